//! What is asked of who greets as a peer, beyond the proof of a key: that it is one, that its certificate vouches for it, and
//! that it comes from an address of its own.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use omb_cluster::{admission::speaks_from, handshake::Refusal, peer::NodeId};
use omb_machine::printable::printable_within;
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::portable::fleet::{Address, Listener, Transport};

/// Longest that a name may take to be looked up: the handshake has to end in time.
const LOOK_UP_MAX: Duration = Duration::from_secs(1);

/// How long what a name stands for is remembered, and that it could not be looked up: whoever connects again and again makes
/// no more than one question of it in that time.
const REMEMBERED: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1));

/// Who may come in as a peer.
pub(super) struct Gate<T> {
    transport: T,
    /// Whether a peer must come from its own address.
    checks_addresses: bool,
    peers: BTreeMap<NodeId, Peer>,
}

struct Peer {
    listed: Address,
    /// What its name stands for, or why that is not known, and since when. Held while it is looked up: who comes meanwhile
    /// waits for the same answer.
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

    /// Whether who calls itself `peer` at the node `me` is another one in the list of peers, and what was shown beneath its
    /// connection vouches for it.
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

    /// Whether `peer` may speak from there.
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
