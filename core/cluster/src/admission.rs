//! Who may take a place at a node: so many in all, so many from one source, and some kept for peers; and from where a peer
//! may speak ([`speaks_from`]).
//!
//! A connection first takes a [`Place::Stranger`], for as long as the handshake lasts, and then changes it for one as a
//! client or as a peer. So whoever says nothing keeps out strangers at most, and only until the handshake's time is over;
//! clients, however many, never keep out a peer; and one host never keeps out the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{handshake::Refusal, peer::NodeId};
use omb_machine::source::source;

/// A place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Of one that has connected from there and proven nothing yet.
    Stranger(IpAddr),
    /// Of a client, or of a node that asks for one.
    Client(IpAddr),
    /// Of a peer that speaks from there.
    Peer(NodeId, IpAddr),
}

/// How many places there are of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// In all.
    pub most: usize,
    /// For one source: an IPv4 address, or the 64 bits of an IPv6 address that name a network.
    pub per_source: usize,
    /// Of [`Self::most`], those that only sources get from which a peer has spoken, or speaks by the list of peers.
    pub reserve: usize,
}

/// Connections of one peer that may be open at once: after a cut the former ones are noticed late.
const PER_PEER: usize = 32;

/// Sources that are remembered for each peer.
const SOURCES_PER_PEER: usize = 4;

/// Places, and who has them.
#[derive(Debug)]
pub struct Door {
    strangers: Taken,
    clients: Taken,
    peers: BTreeMap<NodeId, (usize, BTreeSet<IpAddr>)>,
    listed: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Taken {
    room: Room,
    count: usize,
    by_source: BTreeMap<IpAddr, usize>,
}

impl Door {
    /// All places are free. `listed` are peers, with the address where it is known.
    #[must_use]
    pub fn new(strangers: Room, clients: Room, listed: BTreeMap<NodeId, Option<IpAddr>>) -> Self {
        let taken = |room| Taken { room, count: 0, by_source: BTreeMap::new() };
        Self {
            strangers: taken(strangers),
            clients: taken(clients),
            listed: listed.values().flatten().map(|address| source(*address)).collect(),
            peers: listed.into_keys().map(|peer| (peer, (0, BTreeSet::new()))).collect(),
        }
    }

    /// Takes a place; whether there is one.
    pub fn enter(&mut self, place: Place) -> bool {
        match place {
            Place::Stranger(from) => {
                let known = self.knows(from);
                self.strangers.enter(source(from), known)
            }
            Place::Client(from) => {
                let known = self.knows(from);
                self.clients.enter(source(from), known)
            }
            Place::Peer(peer, from) => {
                let Some((count, sources)) = self.peers.get_mut(&peer).filter(|(count, _)| *count < PER_PEER) else {
                    return false;
                };
                *count += 1;
                if sources.len() < SOURCES_PER_PEER {
                    sources.insert(source(from));
                }
                true
            }
        }
    }

    /// Gives a place back that [`Self::enter`] has given.
    pub fn leave(&mut self, place: Place) {
        match place {
            Place::Stranger(from) => self.strangers.leave(source(from)),
            Place::Client(from) => self.clients.leave(source(from)),
            Place::Peer(peer, _) => {
                if let Some((count, _)) = self.peers.get_mut(&peer) {
                    *count -= 1;
                }
            }
        }
    }

    fn knows(&self, from: IpAddr) -> bool {
        let from = source(from);
        self.listed.contains(&from) || self.peers.values().any(|(_, sources)| sources.contains(&from))
    }
}

impl Taken {
    fn enter(&mut self, source: IpAddr, known: bool) -> bool {
        let reserve = if known { 0 } else { self.room.reserve };
        let own = self.by_source.get(&source).copied().unwrap_or(0);
        let free = self.count < self.room.most.saturating_sub(reserve) && own < self.room.per_source;
        if free {
            self.count += 1;
            self.by_source.insert(source, own + 1);
        }
        free
    }

    fn leave(&mut self, source: IpAddr) {
        let own = self.by_source.get_mut(&source).expect("who leaves has entered");
        *own -= 1;
        if *own == 0 {
            self.by_source.remove(&source);
        }
        self.count -= 1;
    }
}

/// Whether a peer may speak from the address `from`, where nothing but its address tells it from somebody else. `listed` is
/// what the list of peers says, and `stands_for` are the addresses that its host stands for now, as this machine looks it up.
///
/// IPv4 addresses that are written as IPv6 ones are those IPv4 addresses. All loopback addresses are one: whoever has one is
/// on this machine, and a system may leave from 127.0.0.1 towards 127.0.1.1.
///
/// # Errors
/// If it is none of its own.
pub fn speaks_from(from: IpAddr, listed: &str, stands_for: &[IpAddr]) -> Result<(), Refusal> {
    let from = from.to_canonical();
    let is_own = |own: IpAddr| own == from || (own.is_loopback() && from.is_loopback());
    if stands_for.iter().any(|own| is_own(own.to_canonical())) {
        return Ok(());
    }
    Err(Refusal::Elsewhere { from, listed: listed.to_owned(), stands_for: stands_for.to_vec() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(nth: u8) -> IpAddr {
        [10, 0, 0, nth].into()
    }

    fn door() -> Door {
        let room = Room { most: 10, per_source: 4, reserve: 3 };
        let listed = [(NodeId(1), Some(ip(1))), (NodeId(2), None)];
        Door::new(room, room, listed.into())
    }

    #[test]
    fn one_host_keeps_nobody_else_out() {
        let mut door = door();
        let mut taken = |place| std::iter::repeat_with(|| door.enter(place)).take(40).filter(|free| *free).count();
        assert_eq!(taken(Place::Client(ip(9))), 4);
        assert_eq!(taken(Place::Client(ip(8))), 3, "the reserve is not for strangers");
        assert_eq!(taken(Place::Client(ip(1))), 3, "but for peers' hosts");
        assert_eq!(taken(Place::Peer(NodeId(2), ip(9))), PER_PEER, "clients take no peer's place");
        assert_eq!(taken(Place::Peer(NodeId(3), ip(9))), 0, "it is no peer");
    }

    #[test]
    fn where_a_peer_has_spoken_from_is_known() {
        let mut door = door();
        for nth in 0..7 {
            assert!(door.enter(Place::Stranger(ip(100 + nth))));
        }
        assert!(!door.enter(Place::Stranger(ip(2))));
        assert!(door.enter(Place::Peer(NodeId(2), ip(2))));
        door.leave(Place::Peer(NodeId(2), ip(2)));
        assert!(door.enter(Place::Stranger(ip(2))));
    }

    #[test]
    fn a_peer_speaks_from_its_own_addresses() {
        let own: Vec<IpAddr> =
            ["10.0.0.2", "::ffff:10.0.0.3", "fe80::2"].map(|text| text.parse().expect("sound")).to_vec();
        let speaks = |from: &str, own: &[IpAddr]| speaks_from(from.parse().expect("sound"), "node-b:7001", own).is_ok();
        for from in ["10.0.0.2", "::ffff:10.0.0.2", "10.0.0.3", "fe80::2"] {
            assert!(speaks(from, &own), "{from}");
        }
        // A neighbour in the network, loopback, nobody.
        for from in ["10.0.0.4", "fe80::3", "127.0.0.1", "::1", "::"] {
            assert!(!speaks(from, &own), "{from}");
        }
        assert!(speaks("127.0.0.1", &[[127, 0, 1, 1].into()]) && speaks("::1", &[[127, 0, 0, 1].into()]));
        assert!(!speaks("10.0.0.2", &[]), "a name that stands for nothing lets nobody in");
        let refusal = speaks_from(ip(9), "node-b:7001", &own[..1]).expect_err("another machine").to_string();
        let both = "it comes from 10.0.0.9, but its address in the list of peers, node-b:7001, stands for 10.0.0.2: ";
        assert!(refusal.starts_with(both), "{refusal}");
    }

    #[test]
    fn networks_count_as_one() {
        assert_eq!(
            source("2001:db8:1:2:3::4".parse().expect("sound")),
            source("2001:db8:1:2::".parse().expect("sound"))
        );
        assert_ne!(source("2001:db8:1:2::".parse().expect("sound")), source("2001:db8:1:3::".parse().expect("sound")));
        assert_eq!(source("::ffff:10.0.0.1".parse().expect("sound")), ip(1));
    }

    proptest! {
        /// Whoever comes and goes, in whatever order: no bound is passed, and an empty house has all its places.
        #[test]
        fn places_are_neither_lost_nor_doubled(steps in prop::collection::vec((0..3_u8, 0..4_u8, any::<bool>()), 0..200)) {
            let mut door = door();
            let mut inside: Vec<Place> = Vec::new();
            for (kind, from, comes) in steps {
                let place = match kind {
                    0 => Place::Stranger(ip(from)),
                    1 => Place::Client(ip(from)),
                    _ => Place::Peer(NodeId(u32::from(from)), ip(from)),
                };
                if comes && door.enter(place) {
                    inside.push(place);
                } else if !comes && let Some(nth) = inside.iter().position(|it| *it == place) {
                    door.leave(inside.swap_remove(nth));
                }
                for taken in [&door.strangers, &door.clients] {
                    prop_assert!(taken.count <= taken.room.most);
                    prop_assert!(taken.by_source.values().all(|own| *own <= taken.room.per_source));
                    prop_assert_eq!(taken.by_source.values().sum::<usize>(), taken.count);
                }
            }
            inside.drain(..).for_each(|place| door.leave(place));
            prop_assert!(door.strangers.count == 0 && door.clients.count == 0);
            prop_assert!(door.peers.values().all(|(count, _)| *count == 0));
        }
    }
}
