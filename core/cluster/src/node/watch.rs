//! What a node has observed of its peers: which were reachable when, and which were out of reach from when until when.
//!
//! It checks once per heartbeat, so a request costs nothing here. Absence means something only while there is a leader:
//! followers do not hear each other, and know of the others through their leader.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::status::{OUTAGES_MAX, OUTAGES_REPORTED_MAX, Outage};
use crate::peer::{Leadership, NodeId};
use omb_machine::time::Instant;

#[derive(Debug)]
pub(super) struct Watch {
    /// When this node began.
    pub(super) started: Instant,
    /// The leadership that it follows.
    of: Option<Leadership>,
    /// Since when, or since when it has followed none.
    pub(super) since: Instant,
    /// How often that has changed to another leadership.
    pub(super) changes: u64,
    /// Peers that were reachable at the last check.
    pub(super) present: u64,
    peers: BTreeMap<NodeId, Sight>,
}

#[derive(Debug, Default)]
struct Sight {
    /// When it was last reachable.
    seen: Option<Instant>,
    /// Whether it has been reachable under the current leadership.
    known: bool,
    /// Since when it has been missed under that leadership.
    missed: Option<Instant>,
    /// Since when it has been out of reach.
    out: Option<Instant>,
    /// Beginning and end of the last [`OUTAGES_MAX`] outages.
    past: VecDeque<(Instant, Instant)>,
}

impl Watch {
    pub(super) fn new(now: Instant, peers: impl Iterator<Item = NodeId>) -> Self {
        let peers = peers.map(|peer| (peer, Sight::default())).collect();
        Self { started: now, of: None, since: now, changes: 0, present: 0, peers }
    }

    pub(super) fn on_leader(&mut self, now: Instant, of: Option<Leadership>) {
        self.of = of;
        self.since = now;
        self.changes += u64::from(of.is_some());
        for sight in self.peers.values_mut() {
            sight.known = false;
            sight.missed = None;
        }
    }

    /// Checks. A new leader has not heard every peer yet, so one that was not reachable under it is first missed for
    /// `grace`.
    pub(super) fn look(&mut self, now: Instant, alive: &BTreeSet<NodeId>, grace: Duration) {
        self.present = 0;
        for (peer, sight) in &mut self.peers {
            if alive.contains(peer) {
                self.present += 1;
                sight.seen = Some(now);
                sight.known = true;
                sight.missed = None;
                if let Some(from) = sight.out.take() {
                    sight.past.push_back((from, now));
                    if sight.past.len() > OUTAGES_MAX {
                        sight.past.pop_front();
                    }
                }
            } else if self.of.is_some() && sight.out.is_none() {
                let missed = *sight.missed.get_or_insert(now);
                if sight.known || now.since(missed) >= grace {
                    sight.out = Some(sight.seen.unwrap_or(self.started));
                }
            }
        }
    }

    /// When a peer was last reachable.
    pub(super) fn seen(&self, peer: NodeId) -> Option<Instant> {
        self.peers.get(&peer).and_then(|sight| sight.seen)
    }

    /// The latest [`OUTAGES_REPORTED_MAX`], the latest last.
    pub(super) fn outages(&self, now: Instant) -> Vec<Outage> {
        let ago = |at: Instant| ms(now.since(at));
        let outage = |node: NodeId, from, until: Option<Instant>| Outage {
            node,
            from_ms: ago(from),
            until_ms: until.map(ago),
            seen_by: 1,
        };
        let of = |(node, sight): (&NodeId, &Sight)| {
            let node = *node;
            let past = sight.past.iter().map(move |(from, until)| outage(node, *from, Some(*until)));
            past.chain(sight.out.map(|from| outage(node, from, None))).collect::<Vec<_>>()
        };
        let mut outages: Vec<Outage> = self.peers.iter().flat_map(of).collect();
        outages.sort_by_key(|outage| (std::cmp::Reverse(outage.from_ms), outage.node));
        outages.split_off(outages.len().saturating_sub(OUTAGES_REPORTED_MAX))
    }
}

/// Whole milliseconds.
pub(super) fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Term;

    const GRACE: Duration = Duration::from_millis(500);

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn watch() -> Watch {
        let mut watch = Watch::new(Instant::ZERO, [NodeId(2), NodeId(3)].into_iter());
        watch.on_leader(at(100), Some(Leadership { term: Term(3), leader: Some(NodeId(3)) }));
        watch
    }

    fn outage(node: u32, from_ms: u64, until_ms: Option<u64>) -> Outage {
        Outage { node: NodeId(node), from_ms, until_ms, seen_by: 1 }
    }

    #[test]
    fn who_was_there_and_is_gone_is_out_since_it_was_last_there() {
        let mut watch = watch();
        watch.look(at(200), &[NodeId(2), NodeId(3)].into(), GRACE);
        assert_eq!(watch.present, 2);
        watch.look(at(300), &[NodeId(3)].into(), GRACE);
        assert_eq!(watch.outages(at(1_000)), [outage(2, 800, None)]);
        watch.look(at(900), &[NodeId(2), NodeId(3)].into(), GRACE);
        assert_eq!(watch.outages(at(1_000)), [outage(2, 800, Some(100))]);
        assert_eq!(watch.seen(NodeId(2)), Some(at(900)));
    }

    /// A follower knows of the others through its leader only; a change of leaders is not an outage of theirs.
    #[test]
    fn without_a_leader_nobody_is_out() {
        let mut watch = watch();
        watch.look(at(200), &[NodeId(2), NodeId(3)].into(), GRACE);
        watch.on_leader(at(300), None);
        watch.look(at(2_000), &[].into(), GRACE);
        watch.on_leader(at(2_000), Some(Leadership { term: Term(4), leader: Some(NodeId(1)) }));
        watch.look(at(2_100), &[].into(), GRACE);
        watch.look(at(2_300), &[NodeId(2)].into(), GRACE);
        assert_eq!(watch.outages(at(2_400)), []);
        watch.look(at(2_600), &[NodeId(2)].into(), GRACE);
        assert_eq!(
            watch.outages(at(3_000)),
            [outage(3, 2_800, None)],
            "since it was last reachable, before the change"
        );
        assert_eq!(watch.changes, 2);
    }

    #[test]
    fn the_list_is_bounded_and_holds_the_latest() {
        let mut watch = watch();
        for round in 0..100 {
            watch.look(at(1_000 + round * 200), &[NodeId(2), NodeId(3)].into(), GRACE);
            watch.look(at(1_100 + round * 200), &[NodeId(3)].into(), GRACE);
        }
        let outages = watch.outages(at(21_000));
        assert_eq!(outages.len(), OUTAGES_MAX + 1, "and the one that lasts");
        assert_eq!(outages.last(), Some(&outage(2, 200, None)));
        assert!(outages.is_sorted_by_key(|outage| std::cmp::Reverse(outage.from_ms)));
    }
}
