//! Which requests a node works on while more come than it has places for.
//!
//! A request takes a place from its arrival to its answer. For most of that time a client's request may wait for the client
//! alone: for the next bytes of a body that was announced, or until an answer is taken. Such a place is kept as long as nobody
//! else needs it. When one does, the request whose client has been waited for longest, and for as long as the patience, is
//! broken off: of the newcomer's own source if that has its share, else of the source that has most places, and a peer's only
//! if there is no other. With a source that has more places than the newcomer's would have, the patience is a tenth: whoever
//! announces a thousand uploads and sends nothing, and renews them as fast as they are broken off, keeps out nobody else. Who
//! sends at any pace is left alone.
//!
//! `omb_bench::guests` is the same for connections to a worker, and [`crate::admission`] says which connections a node keeps.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, time::Duration};

use crate::admission::Room;
use omb_machine::{source::source, time::Instant};

/// A request that has a place, numbered in the order of arrival. No number is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(u64);

#[derive(Debug)]
struct Open {
    /// Where its client is; `None` for a peer, which asks for many clients.
    source: Option<IpAddr>,
    /// Since when its client is waited for.
    waits: Option<Instant>,
}

/// The requests that have places.
#[derive(Debug)]
pub struct Requests {
    room: Room,
    patience: Duration,
    open: BTreeMap<Place, Open>,
    /// How many each source has.
    counts: BTreeMap<Option<IpAddr>, usize>,
    begun: u64,
}

impl Requests {
    /// All places are free. [`Room::reserve`] is for requests of peers, for which [`Room::per_source`] does not hold.
    #[must_use]
    pub fn new(room: Room, patience: Duration) -> Self {
        Self { room, patience, open: BTreeMap::new(), counts: BTreeMap::new(), begun: 0 }
    }

    /// How many places are taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether all places are free.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes a place for a request of a client at this address, or (`None`) of a peer, and says which request is to be broken
    /// off for it. `None` if no place is free or can be made free.
    pub fn begin(&mut self, now: Instant, from: Option<IpAddr>) -> Option<(Place, Option<Place>)> {
        let from = from.map(source);
        let Room { most, per_source, reserve } = self.room;
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
        let place = Place(self.begun);
        self.open.insert(place, Open { source: from, waits: None });
        *self.counts.entry(from).or_default() += 1;
        Some((place, broken))
    }

    /// The request waits for its client from now on, and for nothing else.
    pub fn waits(&mut self, now: Instant, place: Place) {
        if let Some(open) = self.open.get_mut(&place) {
            open.waits = Some(now);
        }
    }

    /// The client has done what it was waited for.
    pub fn goes_on(&mut self, place: Place) {
        if let Some(open) = self.open.get_mut(&place) {
            open.waits = None;
        }
    }

    /// The request is over. One that was broken off may say so again.
    pub fn end(&mut self, place: Place) {
        let Some(Open { source, .. }) = self.open.remove(&place) else { return };
        let count = self.counts.get_mut(&source).expect("it was counted when it began");
        *count -= 1;
        if *count == 0 {
            self.counts.remove(&source);
        }
    }

    /// Who is broken off for somebody whose source has so many places.
    fn longest_waiting(&self, now: Instant, own: usize, which: impl Fn(&Open) -> bool) -> Option<Place> {
        let waiting = self.open.iter().filter_map(|(place, open)| {
            let crowd = self.counts.get(&open.source).copied().unwrap_or(0);
            let is_larger = open.source.is_some() && crowd > own + 1;
            let patience = if is_larger { self.patience / 10 } else { self.patience };
            let since = open.waits.filter(|since| now.since(*since) >= patience && which(open))?;
            Some((open.source.is_none(), Reverse(crowd), since, *place))
        });
        waiting.min().map(|(.., place)| place)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROOM: Room = Room { most: 6, per_source: 3, reserve: 1 };
    const PATIENCE: Duration = Duration::from_secs(1);

    fn ip(nth: u8) -> IpAddr {
        [10, 0, 0, nth].into()
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn who_waits_for_nobody_keeps_its_place() {
        let mut requests = Requests::new(ROOM, PATIENCE);
        let mut begin = |ms, from: Option<u8>| requests.begin(at(ms), from.map(ip)).map(|(_, broken)| broken);
        assert_eq!([1, 1, 1, 2, 2].map(|from| begin(0, Some(from))), [Some(None); 5]);
        assert_eq!(begin(90_000, Some(1)), None, "it has its share");
        assert_eq!(begin(90_000, Some(3)), None, "the last is kept for peers");
        assert_eq!(begin(90_000, None), Some(None));
        assert_eq!(begin(90_000, None), None, "there is an end to it for peers, too");
    }

    #[test]
    fn whose_client_is_waited_for_makes_room() {
        let mut requests = Requests::new(ROOM, PATIENCE);
        let begin = |requests: &mut Requests, ms, from| requests.begin(at(ms), Some(ip(from)));
        let first: Vec<Place> =
            [1, 1, 1, 2, 2].map(|from| begin(&mut requests, 0, from).expect("there is room").0).to_vec();
        first.iter().zip([50, 30, 40, 10, 20]).for_each(|(place, ms)| requests.waits(at(ms), *place));
        assert_eq!(begin(&mut requests, 109, 3), None, "nobody has been waited for long enough");
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
        let (_, broken) = begin(&mut requests, 9_000, 3).expect("somebody is waited for");
        assert_eq!(broken, Some(first[4]), "it is the only one");
        assert_eq!(begin(&mut requests, 9_000, 3), None);
        requests.waits(at(8_500), first[0]);
        assert_eq!(begin(&mut requests, 9_000, 3), None, "it begins anew each time, and its crowd is no larger");
        // Who was broken off says so again.
        requests.end(first[4]);
        assert_eq!(requests.len(), 5);
        // A peer's, which it would be blamed for, goes last.
        let (peer, _) = requests.begin(at(9_000), None).expect("the one that is kept");
        requests.waits(at(9_000), peer);
        let broken = |requests: &mut Requests| requests.begin(at(10_100), None).and_then(|(_, broken)| broken);
        assert_eq!([broken(&mut requests), broken(&mut requests)], [Some(first[0]), Some(peer)]);
        assert_eq!(broken(&mut requests), None);
    }

    proptest! {
        /// Whoever comes, waits and goes, in whatever order: no bound is passed, nobody is broken off who is not waited for, and
        /// an empty house has all its places.
        #[test]
        fn places_are_neither_lost_nor_doubled(
            steps in prop::collection::vec((0..4_u8, 0..5_u8, any::<prop::sample::Index>(), 0..700_u64), 0..200),
        ) {
            let mut requests = Requests::new(ROOM, PATIENCE);
            let mut inside: BTreeMap<Place, (Option<IpAddr>, Option<Instant>)> = BTreeMap::new();
            let mut now = Instant::ZERO;
            for (step, from, which, ms) in steps {
                now += Duration::from_millis(ms);
                let places: Vec<Place> = inside.keys().copied().collect();
                let one = (!places.is_empty()).then(|| *which.get(&places));
                match (step, one) {
                    (0, _) | (_, None) => {
                        let from = (from > 0).then(|| ip(from));
                        if let Some((place, broken)) = requests.begin(now, from) {
                            if let Some(broken) = broken {
                                let (_, waits) = inside.remove(&broken).expect("it had a place");
                                prop_assert!(waits.is_some_and(|since| now.since(since) >= PATIENCE / 10));
                            }
                            inside.insert(place, (from, None));
                        } else {
                            let own = |(other, _): &&(Option<IpAddr>, _)| from.is_none() || *other == from;
                            let share = from.is_some() && inside.values().filter(own).count() >= ROOM.per_source;
                            let free = ROOM.most - if from.is_some() { ROOM.reserve } else { 0 };
                            prop_assert!(share || inside.len() >= free, "there is room");
                        }
                    }
                    (1, Some(place)) => {
                        requests.waits(now, place);
                        inside.get_mut(&place).expect("inside").1 = Some(now);
                    }
                    (2, Some(place)) => {
                        requests.goes_on(place);
                        inside.get_mut(&place).expect("inside").1 = None;
                    }
                    (_, Some(place)) => {
                        requests.end(place);
                        inside.remove(&place);
                    }
                }
                prop_assert_eq!(requests.len(), inside.len());
                prop_assert!(requests.len() <= ROOM.most);
                let clients = requests.counts.iter().filter(|(source, _)| source.is_some());
                prop_assert!(clients.into_iter().all(|(_, count)| *count <= ROOM.per_source));
                prop_assert_eq!(requests.counts.values().sum::<usize>(), inside.len());
            }
        }
    }
}
