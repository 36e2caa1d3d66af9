//! What a connector that greets as a peer must show beyond the proof of a key: that it is one, that its certificate is
//! for its host, and that it connects from an address of its own.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use omb_cluster::{admission::speaks_from, handshake::Refusal, peer::NodeId};
use omb_machine::printable::printable_within;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::portable::fleet::{Address, Listener, Transport};

/// Longest that the lookup of a name may take: the handshake has a deadline.
const LOOK_UP_MAX: Duration = Duration::from_secs(1);

/// How long the addresses of a name are cached, and how long a failed lookup: repeated connections cause no more than
/// one lookup in that time.
const REMEMBERED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1));

/// Decides which connectors are accepted as peers.
pub(super) struct Gate<T> {
    transport: T,
    /// Whether a peer must connect from its own address.
    checks_addresses: bool,
    peers: BTreeMap<NodeId, Peer>,
}

struct Peer {
    listed: Address,
    /// The addresses of its name, or why they are not known, and since when. Locked during a lookup: connectors that
    /// arrive meanwhile wait for the same answer.
    stands_for: Mutex<Option<(Instant, StandsFor)>>,
}

type StandsFor = Result<Vec<IpAddr>, String>;

impl<T: Transport + Sync> Gate<T> {
    pub(super) fn new(transport: T, checks_addresses: bool, addresses: &BTreeMap<NodeId, Address>) -> Self {
        let peer = |(node, listed): (&NodeId, &Address)| {
            (*node, Peer { listed: listed.clone(), stands_for: Mutex::default() })
        };
        Self { transport, checks_addresses, peers: addresses.iter().map(peer).collect() }
    }

    /// Whether a connector that claims to be `peer` at the node `me` is another node in the list of peers, and its
    /// connection's certificate is for it.
    pub(super) fn knows<L: Listener>(&self, me: NodeId, peer: NodeId, stream: &L::Stream) -> Result<(), Refusal> {
        if peer == me {
            return Err(Refusal::SameNode);
        }
        let Peer { listed, .. } = self.peers.get(&peer).ok_or(Refusal::NoPeer)?;
        if listed.tls {
            L::vouches(stream, &listed.host).map_err(|why| Refusal::Uncertified(printable_within(&why, 300)))?;
        }
        Ok(())
    }

    /// Whether `peer` may connect from this address.
    pub(super) async fn admits(&self, peer: NodeId, from: IpAddr) -> Result<(), Refusal> {
        let Some(Peer { listed, stands_for }) = self.peers.get(&peer) else { return Err(Refusal::NoPeer) };
        if !self.checks_addresses {
            return Ok(());
        }
        let found = self.look_up(&listed.host, stands_for).await;
        let found = found.map_err(|why| Refusal::Unresolved { listed: listed.name.clone(), why })?;
        speaks_from(from, &listed.name, &found)
    }

    async fn look_up(&self, host: &str, known: &Mutex<Option<(Instant, StandsFor)>>) -> StandsFor {
        let mut known = known.lock().await;
        if let Some((since, found)) = &*known
            && since.elapsed() < if found.is_ok() { REMEMBERED.0 } else { REMEMBERED.1 }
        {
            return found.clone();
        }
        let found = match timeout(LOOK_UP_MAX, self.transport.resolve(host)).await {
            Ok(found) => found.map_err(|error| printable_within(&error.to_string(), 200)),
            Err(_) => Err(format!("no answer within {} s", LOOK_UP_MAX.as_secs())),
        };
        *known = Some((Instant::now(), found.clone()));
        found
    }
}
