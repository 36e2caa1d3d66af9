//! A cluster of peers on simulated machines: disks that lose what was not synced, clients that upload, and troubles.
//!
//! ```text
//!  node 1 .. n: cluster::serve ── links ── each other          disk: survives a crash as far as it was synced
//!  client 1 .. m: cluster::asking ─┘                           facts: what is true, beside what nodes believe
//! ```

pub mod disk;
pub mod fault;
mod intruder;
pub mod scenario;
pub mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use omb_core::{
    node::{Node, Output},
    peer::{Digest, Leadership, NodeId, RequestId},
    store::Stored,
    time::Instant,
};

pub use scenario::Scenario;

/// What is true, whatever nodes and clients believe.
#[derive(Debug, Default)]
pub struct Facts {
    /// What is played.
    pub scenario: Scenario,
    /// True time since the simulation began.
    pub at: Duration,
    /// Each node, by id.
    pub nodes: BTreeMap<NodeId, NodeFacts>,
    /// Pairs between which something does not pass in at least one direction, since when; the lower id first. One that
    /// is dead or stands still is apart from all.
    pub apart: BTreeMap<(NodeId, NodeId), Duration>,
    /// Until when a pair was last apart.
    pub apart_until: BTreeMap<(NodeId, NodeId), Duration>,
    /// Until when the network was last slow or lossy, a disk slow, or is (`Duration::MAX`).
    pub rough_until: Duration,
    /// Each upload.
    pub uploads: BTreeMap<RequestId, Upload>,
    /// When all troubles were over and everybody ran; `None` before.
    pub healed: Option<Duration>,
    /// Changes with each crash, and with each file that leaves a disk.
    pub losses: u64,
    /// What somebody was given who lacks the key, or who had proven nothing in time.
    pub leaked: Vec<String>,
}

/// What is true of one node.
#[derive(Debug)]
pub struct NodeFacts {
    /// Its disk.
    pub disk: disk::SimDisk,
    /// Since when it is dead, if it is.
    pub dead_since: Option<Duration>,
    /// Since when it stands still, if it does.
    pub paused_since: Option<Duration>,
    /// Until when it last stood still.
    pub paused_until: Duration,
    /// Since when it runs.
    pub born: Duration,
    /// Whether it was given another list of peers, or lacks the key.
    pub stranger: bool,
}

/// What is true of one upload.
#[derive(Clone, Debug)]
pub struct Upload {
    /// The digest of what the client sends.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// When its client began.
    pub begun: Duration,
    /// What the client was told, and when.
    pub acknowledged: Option<(NodeId, Stored, Duration)>,
}

impl Facts {
    /// The pair of two nodes, the lower one first.
    #[must_use]
    pub fn pair(one: NodeId, other: NodeId) -> (NodeId, NodeId) {
        (one.min(other), one.max(other))
    }

    /// Whether the two could speak with each other at some instant since `since`.
    #[must_use]
    pub fn could_meet(&self, one: NodeId, other: NodeId, since: Duration) -> bool {
        self.apart.get(&Self::pair(one, other)).is_none_or(|apart| *apart >= since)
    }

    /// Whether something kept the two from speaking in good time at some instant since `since`.
    #[must_use]
    pub fn were_apart(&self, one: NodeId, other: NodeId, since: Duration) -> bool {
        let pair = Self::pair(one, other);
        self.apart.contains_key(&pair)
            || self.apart_until.get(&pair).is_some_and(|until| *until >= since)
            || self.rough_until >= since
    }

    /// Nodes that run and have the common list of peers.
    #[must_use]
    pub fn healthy(&self) -> BTreeSet<NodeId> {
        let healthy = |(_, facts): &(&NodeId, &NodeFacts)| {
            facts.dead_since.is_none() && facts.paused_since.is_none() && !facts.stranger
        };
        self.nodes.iter().filter(healthy).map(|(node, _)| *node).collect()
    }
}

/// Who looks on, after every step.
pub trait Watcher: Send {
    /// A node's process begins with what was on its disk.
    fn on_birth(&mut self, node: NodeId, restored: Leadership, facts: &Facts);
    /// A node wants something done.
    fn on_output(&mut self, node: NodeId, output: &Output, facts: &Facts);
    /// A node after a step, at `now` by its own clock.
    fn on_node(&mut self, node: NodeId, machine: &Node, now: Instant, facts: &Facts);
    /// A client was told that its upload is stored.
    fn on_acknowledged(&mut self, id: RequestId, facts: &Facts);
    /// Something happened to nodes, disks or the network.
    fn on_event(&mut self, facts: &Facts);
    /// Everything is over.
    fn at_end(&mut self, outcome: &Outcome, facts: &Facts);
}

/// How everything went, as the clients saw it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What a healthy node listed at the very end: which node holds what, and how many uploads lie on several.
    pub listed: Option<(Vec<(NodeId, Stored)>, u64)>,
    /// Uploads that were begun after the cluster had healed and had time to agree, and were not acknowledged; why.
    pub failed_after: Vec<String>,
    /// Uploads that were fetched after the cluster had healed, and how many of them came whole.
    pub fetched: (u64, u64),
    /// Acknowledged uploads that could not be fetched at the end, and why.
    pub unfetched: Vec<String>,
}
