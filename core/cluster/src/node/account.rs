//! What a node reports of itself, and what the node that was asked makes of all answers.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Node, Unheard,
    message::Answer,
    status::{
        Account, Book, ClusterStatus, DiskStatus, Hindrance, LastFailure, NodeStatus, OUTAGES_MAX,
        OUTAGES_REPORTED_MAX, Outage, PeerState, PeerStatus,
    },
    watch::ms,
};
use crate::{peer::NodeId, store::Loss};
use omb_machine::time::Instant;

/// Outages in one [`ClusterStatus`], which is one frame for the most peers that there may be.
const OUTAGES_ALL_MAX: usize = 1_000;

impl Node {
    /// What this node reports of itself.
    pub(super) fn account(&self, now: Instant) -> Account {
        let status = NodeStatus {
            node: self.me,
            newest: self.election.durable(),
            follows: self.election.leader(),
            hindrance: self.hindrance(now),
            up_ms: ms(now.since(self.watch.started)),
            assigned: self.level.max(self.store.count()),
            stored: self.store.count(),
            bytes: self.store.bytes(),
            gone: self.store.count_lost(Loss::Gone),
            damaged: self.store.count_lost(Loss::Damaged),
            under_way: self.storing.len() as u64,
            disk: DiskStatus {
                blind: self.store.is_blind(),
                failures: self.counts.disk_failures,
                last: self.trouble.as_ref().map(|(at, text)| LastFailure::new(ms(now.since(*at)), text)),
            },
        };
        let loads = self.router().into_iter().flat_map(crate::routing::Router::loads);
        let books = loads.map(|load| Book {
            node: load.node,
            assigned: load.assigned,
            in_flight: load.in_flight,
            penalty_ms: load.penalty_until.map_or(0, |until| ms(until.since(now))),
            failed_ms: load.failed.map(|failed| ms(now.since(failed))),
        });
        Account { status, books: books.collect(), outages: self.watch.outages(now) }
    }

    /// Why this node places no uploads; `None` if it does, or another node leads.
    pub(super) fn hindrance(&self, now: Instant) -> Option<Hindrance> {
        let count = |nodes: usize| u32::try_from(nodes).unwrap_or(u32::MAX);
        match (&self.leading, self.election.minority(now)) {
            (None, _) if self.election.leader().is_none() => Some(Hindrance::NobodyLeads),
            (_, Some(heard)) => {
                Some(Hindrance::NoMajority { heard: count(heard), of: count(self.config.peers.ids().len()) })
            }
            (Some(leading), None) if leading.census.is_some() => Some(Hindrance::TakesCensus),
            _ => None,
        }
    }

    /// All nodes, and what this one itself knows of them.
    pub(super) fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        let alive = self.election.alive(now);
        let status = |(node, address): (NodeId, &str)| PeerStatus {
            node,
            address: address.to_owned(),
            state: self.peer_state(now, node, &alive),
        };
        self.config.peers.iter().map(status).collect()
    }

    /// A text that there is no leader, for how long, and which nodes are missing.
    pub(super) fn leaderless(&self, now: Instant) -> String {
        let missing = self.peers(now).into_iter().filter_map(|PeerStatus { node, state, .. }| match state {
            PeerState::Own | PeerState::Here { .. } => None,
            PeerState::Silent { ms } => Some(format!("{node} has been silent for {ms} ms")),
            PeerState::Never { .. } => Some(format!("{node} was never heard")),
            PeerState::OtherPeers { .. } => Some(format!("{node} has another list of peers")),
            PeerState::Disbelieved { term, .. } => Some(format!("{node} names {term} and is not believed")),
            PeerState::OtherVersion { .. } => Some(format!("{node} speaks another version of the protocol")),
            PeerState::Refused { why, .. } => Some(format!("{node}: {why}")),
        });
        let missing: Vec<String> = missing.collect();
        let for_ms = ms(now.since(self.watch.since));
        let colon = if missing.is_empty() { "" } else { ": " };
        format!("nobody leads, for {for_ms} ms{colon}{}", missing.join(", "))
    }

    fn peer_state(&self, now: Instant, node: NodeId, alive: &BTreeSet<NodeId>) -> PeerState {
        let ago = |at: Instant| ms(now.since(at));
        if node == self.me {
            return PeerState::Own;
        }
        if let Some((refusal, at)) = self.refused.get(&node) {
            let ms = ago(*at);
            return match *refusal {
                Unheard::Peers(theirs) => PeerState::OtherPeers { theirs, ours: self.digest, ms },
                Unheard::Version(theirs) => PeerState::OtherVersion { theirs, ours: super::message::VERSION, ms },
            };
        }
        if let Some(disbelieved) = self.election.disbelieved(node) {
            return PeerState::Disbelieved { term: disbelieved.term, ms: ago(disbelieved.at) };
        }
        match self.watch.seen(node).max(self.election.heard(node)) {
            Some(seen) if alive.contains(&node) => PeerState::Here { ms: ago(seen) },
            // The leader has just named it.
            None if alive.contains(&node) => PeerState::Here { ms: 0 },
            seen => match (self.shut.get(&node).filter(|(_, at)| now.since(*at) < super::SHUT_FOR), seen) {
                (Some((why, at)), _) => PeerState::Refused { why: why.clone(), ms: ago(*at) },
                (None, Some(seen)) => PeerState::Silent { ms: ago(seen) },
                (None, None) => PeerState::Never { ms: ago(self.watch.started) },
            },
        }
    }

    /// Combines all answers.
    pub(super) fn cluster_status(&self, now: Instant, answers: BTreeMap<NodeId, Answer>) -> ClusterStatus {
        let leader = self.election.leader();
        let (mut nodes, mut books, mut outages) = (Vec::new(), Vec::new(), Vec::new());
        for (node, answer) in answers {
            let Answer::Status(account) = answer else { continue };
            let Account { mut status, books: own, outages: seen } = *account;
            status.disk.last = status.disk.last.map(|last| LastFailure::new(last.ms, &last.text));
            if leader.is_some_and(|leader| leader.leader == Some(node)) {
                books = own;
            }
            outages.extend(seen.into_iter().take(OUTAGES_REPORTED_MAX).map(|outage| (node, outage)));
            nodes.push(NodeStatus { node, ..status });
        }
        let of = |node: NodeId| self.config.peers.address(node).is_some();
        books.retain(|book| of(book.node));
        books.truncate(self.config.peers.ids().len());
        outages.retain(|(_, outage)| of(outage.node));
        ClusterStatus {
            node: self.me,
            leader,
            for_ms: ms(now.since(self.watch.since)),
            policy: self.config.policy,
            durability: self.config.durability,
            quorum: self.config.quorum,
            peers: self.peers(now),
            nodes,
            books,
            outages: united(outages),
        }
    }
}

/// Outages, each reported by a node. Overlapping ones of a node are merged; the latest [`OUTAGES_MAX`] of each node
/// remain.
fn united(mut outages: Vec<(NodeId, Outage)>) -> Vec<Outage> {
    outages.sort_by_key(|(witness, outage)| (outage.node, std::cmp::Reverse(outage.from_ms), *witness));
    let mut united: Vec<Outage> = Vec::new();
    let mut witnesses = BTreeSet::new();
    for (witness, outage) in outages {
        match united.last_mut() {
            Some(last) if last.node == outage.node && last.until_ms.is_none_or(|until| until <= outage.from_ms) => {
                last.until_ms = last.until_ms.zip(outage.until_ms).map(|(one, other)| one.min(other));
                last.seen_by += u32::from(witnesses.insert(witness));
            }
            _ => {
                witnesses = [witness].into();
                united.push(Outage { seen_by: 1, ..outage });
            }
        }
    }
    let mut later: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut latest: Vec<Outage> = united
        .into_iter()
        .rev()
        .filter(|outage| {
            let later = later.entry(outage.node).or_default();
            *later += 1;
            *later <= OUTAGES_MAX
        })
        .collect();
    latest.sort_by_key(|outage| (std::cmp::Reverse(outage.from_ms), outage.node));
    latest.split_off(latest.len().saturating_sub(OUTAGES_ALL_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage(node: u32, from_ms: u64, until_ms: Option<u64>, seen_by: u32) -> Outage {
        Outage { node: NodeId(node), from_ms, until_ms, seen_by }
    }

    #[test]
    fn outages_that_overlap_are_one() {
        let reported = [
            (1, outage(2, 9_000, Some(5_000), 1)),
            (3, outage(2, 9_100, Some(7_000), 1)),
            (3, outage(2, 6_000, Some(5_200), 1)),
            (1, outage(2, 4_000, Some(3_000), 1)),
            (2, outage(3, 8_000, None, 1)),
            (1, outage(3, 7_000, Some(6_000), 1)),
        ];
        let reported = reported.map(|(witness, outage)| (NodeId(witness), outage)).to_vec();
        let want = [outage(2, 9_100, Some(5_000), 2), outage(3, 8_000, None, 2), outage(2, 4_000, Some(3_000), 1)];
        assert_eq!(united(reported), want);
        let many = (0..100).map(|n| (NodeId(2), outage(1, 100_000 - n * 1_000, Some(99_500 - n * 1_000), 1))).collect();
        let latest = united(many);
        assert_eq!((latest.len(), latest.last().map(|outage| outage.from_ms)), (OUTAGES_MAX, Some(1_000)));
    }
}
