//! Which requests a node works on when more arrive than it has slots for.
//!
//! A request takes a slot from its arrival to its answer. For most of that time a client's request may wait for the
//! client alone: for the next bytes of a body that was announced, or until an answer is read. Such a slot is kept as
//! long as no other request needs it. When one does, the request that has waited longest for its client, at least for
//! the patience, is broken off: of the newcomer's own source if that has its share, otherwise of the source with the
//! most slots, and a peer's only if there is no other. For a source that has more slots than the newcomer's would have,
//! the patience is a tenth: a client that announces a thousand uploads and sends nothing, and renews them as fast as
//! they are broken off, keeps out no other. A client that sends at any pace is left alone.
//!
//! `omb_bench::guests` is the same for connections to a worker, and [`crate::admission`] says which connections a node keeps.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, time::Duration};

use crate::admission::Capacity;
use omb_machine::{source::source, time::Instant};

/// The slot of a request, numbered in the order of arrival. No number is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u64);

#[derive(Debug)]
struct Open {
    /// Its client's source; `None` for a peer, which asks for many clients.
    source: Option<IpAddr>,
    /// Since when it has waited for its client.
    waits: Option<Instant>,
}

/// The requests that have slots.
#[derive(Debug)]
pub struct Requests {
    capacity: Capacity,
    patience: Duration,
    open: BTreeMap<Slot, Open>,
    /// How many each source has.
    counts: BTreeMap<Option<IpAddr>, usize>,
    begun: u64,
}

impl Requests {
    /// All slots are free. [`Capacity::reserve`] is for requests of peers, for which [`Capacity::per_source`] does not
    /// hold.
    #[must_use]
    pub fn new(capacity: Capacity, patience: Duration) -> Self {
        Self { capacity, patience, open: BTreeMap::new(), counts: BTreeMap::new(), begun: 0 }
    }

    /// How many slots are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether all slots are free.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes a slot for a request of a client at this address, or (`None`) of a peer, and returns the request that is
    /// to be broken off for it. `None` if no slot is free or can be freed.
    pub fn begin(&mut self, now: Instant, from: Option<IpAddr>) -> Option<(Slot, Option<Slot>)> {
        let from = from.map(source);
        let Capacity { most, per_source, reserve } = self.capacity;
        let own = self.counts.get(&from).copied().unwrap_or(0);
        let has_share = from.is_some() && own >= per_source;
        let most = if from.is_some() { most.saturating_sub(reserve) } else { most };
        let broken = if has_share {
            Some(self.longest_waiting(now, own, |open| open.source == from)?)
        } else if self.open.len() >= most {
            Some(self.longest_waiting(now, own, |_| true)?)
        } else {
            None
        };
        if let Some(broken) = broken {
            self.end(broken);
        }
        self.begun += 1;
        let slot = Slot(self.begun);
        self.open.insert(slot, Open { source: from, waits: None });
        *self.counts.entry(from).or_default() += 1;
        Some((slot, broken))
    }

    /// The request waits for its client from now on, and for nothing else.
    pub fn waits(&mut self, now: Instant, slot: Slot) {
        if let Some(open) = self.open.get_mut(&slot) {
            open.waits = Some(now);
        }
    }

    /// The client has done what the request waited for.
    pub fn goes_on(&mut self, slot: Slot) {
        if let Some(open) = self.open.get_mut(&slot) {
            open.waits = None;
        }
    }

    /// The request is over. A request that was broken off may report this again.
    pub fn end(&mut self, slot: Slot) {
        let Some(Open { source, .. }) = self.open.remove(&slot) else { return };
        let count = self.counts.get_mut(&source).expect("it was counted when it began");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&source);
        }
    }

    /// The request to break off for a newcomer whose source has `own` slots.
    fn longest_waiting(&self, now: Instant, own: usize, which: impl Fn(&Open) -> bool) -> Option<Slot> {
        let waiting = self.open.iter().filter_map(|(slot, open)| {
            let crowd = self.counts.get(&open.source).copied().unwrap_or(0);
            let is_larger = open.source.is_some() && crowd > own + 1;
            let patience = if is_larger { self.patience / 10 } else { self.patience };
            let since = open.waits.filter(|since| now.since(*since) >= patience && which(open))?;
            Some((open.source.is_none(), Reverse(crowd), since, *slot))
        });
        waiting.min().map(|(.., slot)| slot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPACITY: Capacity = Capacity { most: 6, per_source: 3, reserve: 1 };
    const PATIENCE: Duration = Duration::from_secs(1);

    fn ip(nth: u8) -> IpAddr {
        [10, 0, 0, nth].into()
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn who_waits_for_nobody_keeps_its_place() {
        let mut requests = Requests::new(CAPACITY, PATIENCE);
        let mut begin = |ms, from: Option<u8>| requests.begin(at(ms), from.map(ip)).map(|(_, broken)| broken);
        assert_eq!([1, 1, 1, 2, 2].map(|from| begin(0, Some(from))), [Some(None); 5]);
        assert_eq!(begin(90_000, Some(1)), None, "it has its share");
        assert_eq!(begin(90_000, Some(3)), None, "the last is kept for peers");
        assert_eq!(begin(90_000, None), Some(None));
        assert_eq!(begin(90_000, None), None, "there is an end to it for peers, too");
    }

    #[test]
    fn whose_client_is_waited_for_makes_room() {
        let mut requests = Requests::new(CAPACITY, PATIENCE);
        let begin = |requests: &mut Requests, ms, from| requests.begin(at(ms), Some(ip(from)));
        let first: Vec<Slot> =
            [1, 1, 1, 2, 2].map(|from| begin(&mut requests, 0, from).expect("there is capacity").0).to_vec();
        first.iter().zip([50, 30, 40, 10, 20]).for_each(|(slot, ms)| requests.waits(at(ms), *slot));
        assert_eq!(begin(&mut requests, 109, 3), None, "no client has been waited for long enough");
        assert_eq!(begin(&mut requests, 1_029, 1), None, "of its own source");
        let (_, broken) = begin(&mut requests, 1_030, 1).expect("exactly as long as the patience");
        assert_eq!(broken, Some(first[1]));
        // Of the largest crowd, although others have been waited for longer.
        requests.waits(at(1_000), first[2]);
        requests.waits(at(1_010), first[0]);
        assert_eq!(
            begin(&mut requests, 1_099, 3).map(|(_, broken)| broken),
            Some(Some(first[3])),
            "only of another one"
        );
        let (_, broken) = begin(&mut requests, 1_100, 3).expect("a tenth of the patience");
        assert_eq!(broken, Some(first[2]));
        requests.goes_on(first[0]);
        let (_, broken) = begin(&mut requests, 9_000, 3).expect("a client is waited for");
        assert_eq!(broken, Some(first[4]), "it is the only one");
        assert_eq!(begin(&mut requests, 9_000, 3), None);
        requests.waits(at(8_500), first[0]);
        assert_eq!(begin(&mut requests, 9_000, 3), None, "it begins anew each time, and its crowd is no larger");
        // A request that was broken off ends again.
        requests.end(first[4]);
        assert_eq!(requests.len(), 5);
        // A peer's request, which it would be blamed for, goes last.
        let (peer, _) = requests.begin(at(9_000), None).expect("the one that is kept");
        requests.waits(at(9_000), peer);
        let broken = |requests: &mut Requests| requests.begin(at(10_100), None).and_then(|(_, broken)| broken);
        assert_eq!([broken(&mut requests), broken(&mut requests)], [Some(first[0]), Some(peer)]);
        assert_eq!(broken(&mut requests), None);
    }

    proptest! {
        /// Whatever arrives, waits and ends, in any order: no bound is exceeded, only requests that wait for their
        /// client are broken off, and with no request all slots are free.
        #[test]
        fn places_are_neither_lost_nor_doubled(
            steps in prop::collection::vec((0..4_u8, 0..5_u8, any::<prop::sample::Index>(), 0..700_u64), 0..200),
        ) {
            let mut requests = Requests::new(CAPACITY, PATIENCE);
            let mut inside: BTreeMap<Slot, (Option<IpAddr>, Option<Instant>)> = BTreeMap::new();
            let mut now = Instant::ZERO;
            for (step, from, which, ms) in steps {
                now += Duration::from_millis(ms);
                let slots: Vec<Slot> = inside.keys().copied().collect();
                let one = (!slots.is_empty()).then(|| *which.get(&slots));
                match (step, one) {
                    (0, _) | (_, None) => {
                        let from = (from > 0).then(|| ip(from));
                        if let Some((slot, broken)) = requests.begin(now, from) {
                            if let Some(broken) = broken {
                                let (_, waits) = inside.remove(&broken).expect("it had a slot");
                                prop_assert!(waits.is_some_and(|since| now.since(since) >= PATIENCE / 10));
                            }
                            inside.insert(slot, (from, None));
                        } else {
                            let own = |(other, _): &&(Option<IpAddr>, _)| from.is_none() || *other == from;
                            let share = from.is_some() && inside.values().filter(own).count() >= CAPACITY.per_source;
                            let free = CAPACITY.most - if from.is_some() { CAPACITY.reserve } else { 0 };
                            prop_assert!(share || inside.len() >= free, "there is capacity");
                        }
                    }
                    (1, Some(slot)) => {
                        requests.waits(now, slot);
                        inside.get_mut(&slot).expect("inside").1 = Some(now);
                    }
                    (2, Some(slot)) => {
                        requests.goes_on(slot);
                        inside.get_mut(&slot).expect("inside").1 = None;
                    }
                    (_, Some(slot)) => {
                        requests.end(slot);
                        inside.remove(&slot);
                    }
                }
                prop_assert_eq!(requests.len(), inside.len());
                prop_assert!(requests.len() <= CAPACITY.most);
                let clients = requests.counts.iter().filter(|(source, _)| source.is_some());
                prop_assert!(clients.into_iter().all(|(_, count)| *count <= CAPACITY.per_source));
                prop_assert_eq!(requests.counts.values().sum::<usize>(), inside.len());
            }
        }
    }
}
