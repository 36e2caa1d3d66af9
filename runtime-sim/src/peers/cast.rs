//! What all parts of a simulated cluster share: who takes part, their addresses and bounds, and how a client asks.

use std::{
    collections::BTreeMap,
    io::{self, Cursor},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use madsim::{task, time::TimeHandle};
use omb_cluster::{
    client::{GaveUp, Patience},
    config::{Peers, parse_peers},
    node::message::{Reply, Request},
    peer::NodeId,
    store::Stored,
};
use omb_machine::seed::Seed;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use tokio::sync::mpsc;

use super::{
    Facts, Scenario, Watcher,
    fault::{LATE_MAX, Mishap, Planned},
};
use crate::{
    clock::{Clock, Skew},
    connection::SimTransport,
    fault::Weather,
    portable::{
        cluster::{Limits, Nodes, asking},
        fleet::Address,
    },
    witness::Witness,
};

/// What all parts of the world hold.
#[derive(Clone)]
pub(super) struct Cast {
    pub(super) time: TimeHandle,
    pub(super) weather: Weather,
    pub(super) nodes: Arc<Mutex<Vec<(NodeId, task::NodeId)>>>,
    pub(super) clients: Arc<Mutex<Vec<task::NodeId>>>,
    /// What happens to messages between nodes: shares, and the source of chance.
    pub(super) mishaps: Arc<Mutex<(BTreeMap<Mishap, f64>, ChaCha8Rng)>>,
    /// Number of uploads that reached the moment of the ambush, and where to report the node that it hit.
    pub(super) came: Arc<AtomicU64>,
    pub(super) ambushes: mpsc::UnboundedSender<Planned>,
    pub(super) facts: Arc<Mutex<Facts>>,
    pub(super) watcher: Arc<Mutex<dyn Watcher>>,
    pub(super) witness: Witness,
}

impl Cast {
    pub(super) fn facts(&self) -> MutexGuard<'_, Facts> {
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.at = self.time.elapsed();
        facts
    }

    pub(super) fn watch(&self, look: impl FnOnce(&mut dyn Watcher, &Facts)) {
        let facts = self.facts();
        look(&mut *self.watcher.lock().unwrap_or_else(PoisonError::into_inner), &facts);
    }

    pub(super) fn nodes(&self) -> Vec<(NodeId, task::NodeId)> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn transport(&self, from: task::NodeId) -> SimTransport {
        let nodes = self.nodes().into_iter().map(|(node, task)| (socket(node), task)).collect();
        SimTransport { from, nodes, weather: self.weather.clone(), foreign: false }
    }

    /// What happens to the next message between nodes.
    pub(super) fn mishap(&self) -> Option<(Mishap, Duration)> {
        let (shares, rng) = &mut *self.mishaps.lock().unwrap_or_else(PoisonError::into_inner);
        let mishap = shares.iter().find(|(_, share)| rng.random_bool(**share)).map(|(mishap, _)| *mishap)?;
        Some((mishap, rng.random_range(Duration::ZERO..LATE_MAX)))
    }
}

pub(super) fn ip(node: NodeId) -> IpAddr {
    Ipv4Addr::new(10, 0, 2, u8::try_from(node.0).expect("ids are small")).into()
}

pub(super) fn socket(node: NodeId) -> SocketAddr {
    SocketAddr::new(ip(node), 7001)
}

/// The bounds of simulated nodes: as the product's, but shorter where only waiting is bounded.
pub(super) fn limits() -> Limits {
    let (idle, kept_for) = (Duration::from_secs(4), Duration::from_secs(6));
    // Some idle connections are closed by the other side before they are used again. Few slots, so that they can be
    // hoarded.
    Limits { idle, reply: idle, kept_for, requests: 8, ..Limits::default() }
}

pub(super) fn patience(scenario: &Scenario) -> Patience {
    Patience { deadline: Duration::from_secs(25), try_max: scenario.try_max, ..Patience::default() }
}

/// The list of peers of all nodes except a stranger.
pub(super) fn peers_of(scenario: &Scenario) -> Peers {
    list(scenario, None)
}

pub(super) fn list(scenario: &Scenario, more: Option<NodeId>) -> Peers {
    let nodes = scenario.nodes.iter().copied().chain(more);
    let peers: Vec<String> = nodes.map(|it| format!("{}={}", it.0, socket(it))).collect();
    parse_peers(&peers.join(",")).expect("the list is sound")
}

pub(super) fn address(node: NodeId) -> Address {
    let (name, at) = (node.to_string(), socket(node));
    Address { name, host: at.ip().to_string(), port: at.port(), tls: false }
}

/// What a simulated client uploads, or fetches.
#[derive(Clone)]
struct Cargo(Arc<Vec<u8>>);

impl asking::Cargo for Cargo {
    type Source = Cursor<Vec<u8>>;
    type Sink = Cursor<Vec<u8>>;

    async fn source(&self) -> io::Result<Self::Source> {
        Ok(Cursor::new(self.0.to_vec()))
    }

    async fn sink(&self, _: &Stored) -> io::Result<Self::Sink> {
        Ok(Cursor::new(Vec::new()))
    }
}

pub(super) async fn ask(
    nodes: &Nodes<SimTransport>,
    cast: &Cast,
    request: Request,
    body: Vec<u8>,
    seed: Seed,
) -> Result<Reply, GaveUp> {
    let witness = cast.witness.clone();
    let log = move |line: String| {
        witness.note("client", format_args!("{line}"));
        witness.hit("client: tries again");
    };
    let clock = Clock::new(cast.time.clone(), Skew::NONE);
    let patience = patience(&cast.facts().scenario);
    asking::ask(nodes, request, Cargo(Arc::new(body)), (patience, seed), log, &clock).await
}
