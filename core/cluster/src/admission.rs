//! Which connections get a slot at a node: a limit in all, a limit per source, and a reserve for peers; and the
//! addresses that a peer may connect from ([`speaks_from`]).
//!
//! A connection first takes a [`Slot::Stranger`], for as long as the handshake lasts, and then exchanges it for one of
//! a client or a peer. So a silent connection keeps out strangers at most, and only until the handshake's deadline;
//! clients, however many, never keep out a peer; and one host never keeps out the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{handshake::Refusal, peer::NodeId};
use omb_machine::source::source;

/// A slot for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// Of a connection from this address that has proven nothing yet.
    Stranger(IpAddr),
    /// Of a client, or of a node that relays for one.
    Client(IpAddr),
    /// Of a peer that connects from this address.
    Peer(NodeId, IpAddr),
}

/// How many slots there are of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// In all.
    pub most: usize,
    /// For one source: an IPv4 address, or the 64 bits of an IPv6 address that name a network.
    pub per_source: usize,
    /// Of [`Self::most`], those kept for sources that a peer has connected from, or that are in the list of peers.
    pub reserve: usize,
}

/// Connections of one peer that may be open at once: after a cut, dead ones are noticed late.
const PER_PEER: usize = 32;

/// Sources that are remembered for each peer.
const SOURCES_PER_PEER: usize = 4;

/// The slots, and which are taken.
#[derive(Debug)]
pub struct Door {
    strangers: Taken,
    clients: Taken,
    peers: BTreeMap<NodeId, (usize, BTreeSet<IpAddr>)>,
    listed: BTreeSet<IpAddr>,
}

#[derive(Debug)]
struct Taken {
    capacity: Capacity,
    count: usize,
    by_source: BTreeMap<IpAddr, usize>,
}

impl Door {
    /// All slots are free. `listed` are the peers, with the address if it is known.
    #[must_use]
    pub fn new(strangers: Capacity, clients: Capacity, listed: BTreeMap<NodeId, Option<IpAddr>>) -> Self {
        let taken = |capacity| Taken { capacity, count: 0, by_source: BTreeMap::new() };
        Self {
            strangers: taken(strangers),
            clients: taken(clients),
            listed: listed.values().flatten().map(|address| source(*address)).collect(),
            peers: listed.into_keys().map(|peer| (peer, (0, BTreeSet::new()))).collect(),
        }
    }

    /// Takes a slot; returns whether there was one.
    pub fn enter(&mut self, slot: Slot) -> bool {
        match slot {
            Slot::Stranger(from) => {
                let known = self.knows(from);
                self.strangers.enter(source(from), known)
            }
            Slot::Client(from) => {
                let known = self.knows(from);
                self.clients.enter(source(from), known)
            }
            Slot::Peer(peer, from) => {
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

    /// Returns a slot that [`Self::enter`] has given.
    pub fn leave(&mut self, slot: Slot) {
        match slot {
            Slot::Stranger(from) => self.strangers.leave(source(from)),
            Slot::Client(from) => self.clients.leave(source(from)),
            Slot::Peer(peer, _) => {
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
        let reserve = if known { 0 } else { self.capacity.reserve };
        let own = self.by_source.get(&source).copied().unwrap_or(0);
        let free = self.count < self.capacity.most.saturating_sub(reserve) && own < self.capacity.per_source;
        if free {
            self.count += 1;
            self.by_source.insert(source, own + 1);
        }
        free
    }

    fn leave(&mut self, source: IpAddr) {
        let own = self.by_source.get_mut(&source).expect("a source that leaves has entered");
        *own -= 1;
        if *own == 0 {
            self.by_source.remove(&source);
        }
        self.count -= 1;
    }
}

/// Whether a peer may connect from the address `from`, where only its address distinguishes it from others. `listed` is
/// its entry in the list of peers, and `stands_for` are the addresses that its host resolves to now on this machine.
///
/// IPv4-mapped IPv6 addresses count as those IPv4 addresses. All loopback addresses are one: each is on this machine,
/// and a system may connect from 127.0.0.1 to 127.0.1.1.
///
/// # Errors
/// If it is not one of the peer's addresses.
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
        let capacity = Capacity { most: 10, per_source: 4, reserve: 3 };
        let listed = [(NodeId(1), Some(ip(1))), (NodeId(2), None)];
        Door::new(capacity, capacity, listed.into())
    }

    #[test]
    fn one_host_keeps_nobody_else_out() {
        let mut door = door();
        let mut taken = |slot| std::iter::repeat_with(|| door.enter(slot)).take(40).filter(|free| *free).count();
        assert_eq!(taken(Slot::Client(ip(9))), 4);
        assert_eq!(taken(Slot::Client(ip(8))), 3, "the reserve is not for strangers");
        assert_eq!(taken(Slot::Client(ip(1))), 3, "but for peers' hosts");
        assert_eq!(taken(Slot::Peer(NodeId(2), ip(9))), PER_PEER, "clients take no peer's slot");
        assert_eq!(taken(Slot::Peer(NodeId(3), ip(9))), 0, "it is no peer");
    }

    #[test]
    fn where_a_peer_has_spoken_from_is_known() {
        let mut door = door();
        for nth in 0..7 {
            assert!(door.enter(Slot::Stranger(ip(100 + nth))));
        }
        assert!(!door.enter(Slot::Stranger(ip(2))));
        assert!(door.enter(Slot::Peer(NodeId(2), ip(2))));
        door.leave(Slot::Peer(NodeId(2), ip(2)));
        assert!(door.enter(Slot::Stranger(ip(2))));
    }

    #[test]
    fn a_peer_speaks_from_its_own_addresses() {
        let own: Vec<IpAddr> =
            ["10.0.0.2", "::ffff:10.0.0.3", "fe80::2"].map(|text| text.parse().expect("sound")).to_vec();
        let speaks = |from: &str, own: &[IpAddr]| speaks_from(from.parse().expect("sound"), "node-b:7001", own).is_ok();
        for from in ["10.0.0.2", "::ffff:10.0.0.2", "10.0.0.3", "fe80::2"] {
            assert!(speaks(from, &own), "{from}");
        }
        // A neighbour in the network, loopback, unspecified.
        for from in ["10.0.0.4", "fe80::3", "127.0.0.1", "::1", "::"] {
            assert!(!speaks(from, &own), "{from}");
        }
        assert!(speaks("127.0.0.1", &[[127, 0, 1, 1].into()]) && speaks("::1", &[[127, 0, 0, 1].into()]));
        assert!(!speaks("10.0.0.2", &[]), "a name without addresses admits no one");
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
        /// Whatever connects and leaves, in any order: no bound is exceeded, and with no connection all slots are free.
        #[test]
        fn places_are_neither_lost_nor_doubled(steps in prop::collection::vec((0..3_u8, 0..4_u8, any::<bool>()), 0..200)) {
            let mut door = door();
            let mut inside: Vec<Slot> = Vec::new();
            for (kind, from, comes) in steps {
                let slot = match kind {
                    0 => Slot::Stranger(ip(from)),
                    1 => Slot::Client(ip(from)),
                    _ => Slot::Peer(NodeId(u32::from(from)), ip(from)),
                };
                if comes && door.enter(slot) {
                    inside.push(slot);
                } else if !comes && let Some(nth) = inside.iter().position(|it| *it == slot) {
                    door.leave(inside.swap_remove(nth));
                }
                for taken in [&door.strangers, &door.clients] {
                    prop_assert!(taken.count <= taken.capacity.most);
                    prop_assert!(taken.by_source.values().all(|own| *own <= taken.capacity.per_source));
                    prop_assert_eq!(taken.by_source.values().sum::<usize>(), taken.count);
                }
            }
            inside.drain(..).for_each(|slot| door.leave(slot));
            prop_assert!(door.strangers.count == 0 && door.clients.count == 0);
            prop_assert!(door.peers.values().all(|(count, _)| *count == 0));
        }
    }
}
