//! Which connections a server keeps when strangers crowd in: few places and few bytes for those that have proven
//! nothing, and the oldest idle stranger of the largest crowd leaves when a new one comes.
//!
//! A connection enters as a *stranger*. It becomes *known* when it has proven its identity (by a token, or as the one
//! whose run is performed); a known connection is never closed to make room for another. Since a stranger always finds
//! a place, a request for `/healthz` and a controller that has just connected are served, however many connections
//! others hold open.
//!
//! The bytes that a connection announces count from the announcement until they have been handled, against a budget of
//! its source and a global one. A connection that exceeds it evicts the strangers that announced before it.
//!
//! `omb_cluster::admission` is the same for the nodes of a cluster, where a connection keeps its place once it has
//! greeted.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr};

use omb_machine::source::source;

/// A connection. The numbers follow the order of arrival, and none is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestId(u64);

/// A budget: a total, and a limit for one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// In all.
    pub most: u64,
    /// For one source: an IPv4 address, or the 64 bits of an IPv6 address that name a network.
    pub per_source: u64,
}

/// How many connections are kept, and how many bytes they may be sending at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Connections of strangers. Neither may be zero.
    pub strangers: Share,
    /// Known connections. Further ones stay strangers.
    pub known: usize,
    /// Bytes that strangers have announced and that are not handled yet.
    pub stranger_bytes: Share,
    /// The same for known connections.
    pub known_bytes: Share,
}

/// The budget is exhausted: what was announced must not be received now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} bytes more than may be received at once: {held} of {most} are announced already")]
pub struct Exhausted {
    /// Bytes of the rejected announcement.
    pub asked: u64,
    /// Bytes that others have announced.
    pub held: u64,
    /// The budget that was exceeded.
    pub most: u64,
}

/// The stage of a connection. Idle ones leave first, then those that have not sent all of what they announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has sent no request, or not a whole one.
    #[default]
    Idle,
    /// It sends what it has announced.
    Sending,
    /// It waits for an answer.
    Waiting,
}

#[derive(Debug)]
struct Guest {
    source: IpAddr,
    known: bool,
    stage: Stage,
    bytes: u64,
}

/// The open connections.
#[derive(Debug)]
pub struct Guests {
    bounds: Bounds,
    guests: BTreeMap<GuestId, Guest>,
    entered: u64,
}

impl Guests {
    /// No connections yet.
    ///
    /// # Panics
    /// If a stranger would never find a place.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        let Share { most, per_source } = bounds.strangers;
        assert!(most > 0 && per_source > 0, "a stranger always finds a place");
        Self { bounds, guests: BTreeMap::new(), entered: 0 }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.guests.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.guests.is_empty()
    }

    /// Bytes that all have announced and that are not handled yet.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.guests.values().map(|guest| guest.bytes).sum()
    }

    /// Admits a stranger; also returns the connection to close for it.
    pub fn enter(&mut self, from: IpAddr) -> (GuestId, Option<GuestId>) {
        let from = source(from);
        let counts = self.sum(false, |_| 1);
        let own = counts.get(&from).copied().unwrap_or(0);
        let all: u64 = counts.values().sum();
        let Share { most, per_source } = self.bounds.strangers;
        let leaves = if own >= per_source {
            self.first_to_leave(|(_, guest)| guest.source == from, &counts)
        } else if all >= most {
            self.first_to_leave(|_| true, &counts)
        } else {
            None
        };
        if let Some(id) = leaves {
            self.leave(id);
        }
        self.entered += 1;
        let id = GuestId(self.entered);
        self.guests.insert(id, Guest { source: from, known: false, stage: Stage::Idle, bytes: 0 });
        (id, leaves)
    }

    /// The connection has proven its identity; returns whether it is kept from now on. It is not if too many are known
    /// already.
    pub fn prove(&mut self, id: GuestId) -> bool {
        let room = self.guests.values().filter(|guest| guest.known).count() < self.bounds.known;
        let Some(guest) = self.guests.get_mut(&id) else { return false };
        guest.known |= room;
        guest.known
    }

    /// Whether it is known.
    #[must_use]
    pub fn knows(&self, id: GuestId) -> bool {
        self.guests.get(&id).is_some_and(|guest| guest.known)
    }

    /// The connection will send this many bytes, beside those announced before; returns the connections to close for
    /// it.
    ///
    /// # Errors
    /// If that is more than may be received at once, whatever is closed.
    pub fn announce(&mut self, id: GuestId, bytes: u64) -> Result<Vec<GuestId>, Exhausted> {
        let Some(guest) = self.guests.get(&id) else { return Err(Exhausted { asked: bytes, held: 0, most: 0 }) };
        let (from, known, before) = (guest.source, guest.known, guest.bytes);
        let Share { most, per_source } = if known { self.bounds.known_bytes } else { self.bounds.stranger_bytes };
        let alone = most.min(per_source);
        if before.saturating_add(bytes) > alone {
            return Err(Exhausted { asked: bytes, held: before, most: alone });
        }
        let mut leave = Vec::new();
        loop {
            let held = self.sum(known, |guest| guest.bytes);
            let (own, all) = (held.get(&from).copied().unwrap_or(0), held.values().sum::<u64>());
            let of_own = own + bytes > per_source;
            if !of_own && all + bytes <= most {
                break;
            }
            if known {
                let (held, most) = if of_own { (own, per_source) } else { (all, most) };
                return Err(Exhausted { asked: bytes, held, most });
            }
            let sends =
                |(other, guest): (GuestId, &Guest)| other != id && guest.bytes > 0 && (!of_own || guest.source == from);
            let victim = self.first_to_leave(sends, &held).expect("alone it would fit");
            self.leave(victim);
            leave.push(victim);
        }
        let guest = self.guests.get_mut(&id).expect("it does not leave for itself");
        guest.bytes += bytes;
        guest.stage = Stage::Sending;
        Ok(leave)
    }

    /// All that the connection announced has arrived, and it waits for an answer.
    pub fn waits(&mut self, id: GuestId) {
        if let Some(guest) = self.guests.get_mut(&id) {
            guest.stage = Stage::Waiting;
        }
    }

    /// The connection has been answered: what it had announced is handled.
    pub fn answered(&mut self, id: GuestId) {
        if let Some(guest) = self.guests.get_mut(&id) {
            guest.stage = Stage::Idle;
            guest.bytes = 0;
        }
    }

    /// The connection is gone. Closing it again does no harm.
    pub fn leave(&mut self, id: GuestId) {
        self.guests.remove(&id);
    }

    /// A sum over strangers, or known connections, by source.
    fn sum(&self, known: bool, of: impl Fn(&Guest) -> u64) -> BTreeMap<IpAddr, u64> {
        let mut sums = BTreeMap::new();
        for guest in self.guests.values().filter(|guest| guest.known == known) {
            *sums.entry(guest.source).or_default() += of(guest);
        }
        sums
    }

    /// Of the strangers in question: preferably not from a source that also has a known connection; of the source that
    /// holds most; an idle one; the oldest.
    fn first_to_leave(
        &self,
        which: impl Fn((GuestId, &Guest)) -> bool,
        held: &BTreeMap<IpAddr, u64>,
    ) -> Option<GuestId> {
        let familiar = |source: IpAddr| self.guests.values().any(|guest| guest.known && guest.source == source);
        let strangers = self.guests.iter().filter(|(id, guest)| !guest.known && which((**id, guest)));
        let order = |(id, guest): &(&GuestId, &Guest)| {
            let holds = held.get(&guest.source).copied().unwrap_or(0);
            (familiar(guest.source), Reverse(holds), guest.stage, **id)
        };
        strangers.min_by_key(order).map(|(id, _)| *id)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn bounds() -> Bounds {
        Bounds {
            strangers: Share { most: 6, per_source: 3 },
            known: 2,
            stranger_bytes: Share { most: 64 * MIB, per_source: 32 * MIB },
            known_bytes: Share { most: 128 * MIB, per_source: 64 * MIB },
        }
    }

    fn ip(nth: u8) -> IpAddr {
        [10, 0, 0, nth].into()
    }

    /// Enters from each of these hosts in turn: each one's number, and the connection closed for it.
    fn entered(guests: &mut Guests, hosts: &[u8]) -> Vec<(GuestId, Option<GuestId>)> {
        hosts.iter().map(|host| guests.enter(ip(*host))).collect()
    }

    #[test]
    fn a_crowd_leaves_for_whoever_comes() {
        // Hosts that come one after another, and the place that each takes (by position; None for a free one).
        let table: &[(&[u8], &[Option<usize>])] = &[
            (&[1, 1, 1, 1, 1], &[None, None, None, Some(0), Some(1)]),
            (&[1, 1, 1, 2, 2, 3, 4], &[None, None, None, None, None, None, Some(0)]),
            (&[1, 2, 2, 3, 3, 3, 4, 5], &[None, None, None, None, None, None, Some(3), Some(1)]),
            (&[1, 2, 3, 4, 5, 6, 7, 7], &[None, None, None, None, None, None, Some(0), Some(1)]),
        ];
        for (hosts, wanted) in table {
            let mut guests = Guests::new(bounds());
            let came = entered(&mut guests, hosts);
            let left: Vec<Option<GuestId>> = came.iter().map(|(_, left)| *left).collect();
            let wanted: Vec<Option<GuestId>> = wanted.iter().map(|nth| nth.map(|nth| came[nth].0)).collect();
            assert_eq!(left, wanted, "{hosts:?}");
        }
    }

    #[test]
    fn whoever_is_known_stays_and_shields_its_source() {
        let mut guests = Guests::new(bounds());
        let came = entered(&mut guests, &[1, 1, 2, 2, 3, 3]);
        assert!(guests.prove(came[0].0) && guests.knows(came[0].0));
        let more = entered(&mut guests, &[9, 9, 9, 9, 8, 8, 8]);
        assert!(more.iter().all(|(_, left)| *left != Some(came[0].0)), "it is known");
        assert!(more.iter().all(|(_, left)| *left != Some(came[1].0)), "it has the source of a known one");
        // Places for known ones are limited: the third stays a stranger.
        assert!(guests.prove(more[5].0) && !guests.prove(more[6].0));
        assert!(guests.prove(came[0].0), "once more costs nothing");
    }

    #[test]
    fn idle_ones_leave_before_busy_ones() {
        let mut guests = Guests::new(bounds());
        let came = entered(&mut guests, &[1, 1, 1]);
        assert_eq!(guests.announce(came[0].0, MIB), Ok(vec![]));
        guests.waits(came[1].0);
        let more = entered(&mut guests, &[1, 1, 1]);
        let left: Vec<_> = more.iter().map(|(_, left)| *left).collect();
        assert_eq!(left, [Some(came[2].0), Some(more[0].0), Some(more[1].0)]);
        guests.waits(more[2].0);
        assert_eq!(guests.enter(ip(1)).1, Some(came[0].0), "then one that still sends");
    }

    #[test]
    fn announced_bytes_count_until_they_are_dealt_with() {
        let mut guests = Guests::new(bounds());
        let came: Vec<GuestId> = entered(&mut guests, &[1, 1, 1, 2, 3]).into_iter().map(|(id, _)| id).collect();
        assert_eq!(guests.announce(came[0], 16 * MIB), Ok(vec![]));
        assert_eq!(guests.announce(came[1], 16 * MIB), Ok(vec![]));
        assert_eq!(guests.announce(came[2], 16 * MIB), Ok(vec![came[0]]), "of its own source the first to announce");
        assert_eq!(guests.announce(came[3], 32 * MIB), Ok(vec![]));
        assert_eq!(guests.announce(came[4], MIB), Ok(vec![came[1]]), "of the source that announced most, oldest first");
        assert_eq!(guests.bytes(), 49 * MIB);
        let too_much = Exhausted { asked: MIB, held: 32 * MIB, most: 32 * MIB };
        assert_eq!(guests.announce(came[3], MIB), Err(too_much), "it does not leave for itself");
        assert_eq!(guests.announce(came[2], 33 * MIB).map_err(|error| error.asked), Err(33 * MIB));
        guests.waits(came[3]);
        assert_eq!(guests.bytes(), 49 * MIB, "it is held until the answer is sent");
        guests.answered(came[3]);
        assert_eq!(guests.bytes(), 17 * MIB);
    }

    #[test]
    fn strangers_bytes_are_none_of_a_known_ones_business() {
        let mut guests = Guests::new(bounds());
        let came: Vec<GuestId> = entered(&mut guests, &[1, 1, 1]).into_iter().map(|(id, _)| id).collect();
        assert!(guests.prove(came[2]));
        assert_eq!(guests.announce(came[0], 32 * MIB), Ok(vec![]));
        assert_eq!(guests.announce(came[2], 64 * MIB), Ok(vec![]));
        assert!(guests.announce(came[2], 1).is_err(), "known ones have a budget too");
        assert_eq!(guests.announce(came[1], 32 * MIB), Ok(vec![came[0]]));
    }

    proptest! {
        /// Whatever comes, announces and goes, in whatever order: no bound is exceeded, no known connection is closed.
        #[test]
        fn no_bound_is_passed(steps in prop::collection::vec((0..6_u8, 0..5_u8, any::<prop::sample::Index>(), 0..40_u64), 0..200)) {
            let mut guests = Guests::new(bounds());
            let mut inside: Vec<GuestId> = Vec::new();
            for (step, from, which, mib) in steps {
                let known: Vec<GuestId> = inside.iter().copied().filter(|id| guests.knows(*id)).collect();
                let one = (!inside.is_empty()).then(|| *which.get(&inside));
                let left = match (step, one) {
                    (0 | 1, _) | (_, None) => {
                        let (id, left) = guests.enter(ip(from));
                        inside.push(id);
                        left.into_iter().collect()
                    }
                    (2, Some(id)) => guests.announce(id, mib * MIB).unwrap_or_default(),
                    (3, Some(id)) => {
                        guests.prove(id);
                        Vec::new()
                    }
                    (4, Some(id)) => {
                        guests.answered(id);
                        Vec::new()
                    }
                    (_, Some(id)) => {
                        guests.leave(id);
                        inside.retain(|it| *it != id);
                        Vec::new()
                    }
                };
                prop_assert!(left.iter().all(|id| !known.contains(id)));
                inside.retain(|id| !left.contains(id));
                prop_assert_eq!(guests.len(), inside.len());
                let Bounds { strangers, stranger_bytes, .. } = bounds();
                for (share, sums) in [(strangers, guests.sum(false, |_| 1)), (stranger_bytes, guests.sum(false, |guest| guest.bytes))] {
                    prop_assert!(sums.values().sum::<u64>() <= share.most);
                    prop_assert!(sums.values().all(|own| *own <= share.per_source));
                }
                prop_assert!(guests.guests.values().filter(|guest| guest.known).count() <= bounds().known);
            }
        }
    }
}
