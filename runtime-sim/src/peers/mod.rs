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

use omb_cluster::{
    node::{Node, Output},
    peer::{Digest, Label, Leadership, NodeId, RequestId},
    store::{Entry, Stored},
};
use omb_machine::time::Instant;

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
    /// From whom to whom nothing passes, since when. To one that is dead or stands still, and from it, nothing does.
    pub unheard: BTreeMap<(NodeId, NodeId), Duration>,
    /// Until when that last was so.
    pub unheard_until: BTreeMap<(NodeId, NodeId), Duration>,
    /// Until when messages between nodes last came late or not at all, or do (`Duration::MAX`).
    pub rough_until: Duration,
    /// How many troubles see to that.
    pub roughs: u32,
    /// Until when copies of earlier messages came, or may come: signs of life of who is dead since.
    pub copies_until: Duration,
    /// Each upload.
    pub uploads: BTreeMap<RequestId, Upload>,
    /// When all troubles were over and everybody ran; `None` before.
    pub healed: Option<Duration>,
    /// Changes with each crash, and with each file that leaves a disk.
    pub losses: u64,
    /// What somebody was given who lacks the key, or who had proven nothing in time.
    pub leaked: Vec<String>,
    /// Uploads that somebody has ordered who is no peer, or as whose order no election can have led to.
    pub forged: BTreeSet<RequestId>,
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
    /// Whom it can be in one cluster with.
    pub kin: Kin,
}

/// Nodes of different kin do not listen to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kin {
    /// The cluster's nodes.
    Common,
    /// One that was given another list of peers, with one more.
    OtherList,
    /// One that speaks another version of the protocol.
    OtherVersion,
    /// One that has another key, or none.
    LockedOut,
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
    /// What its client says of it.
    pub label: Label,
    /// What the client was told, and when.
    pub acknowledged: Option<(NodeId, Stored, Duration)>,
}

impl Facts {
    /// A trouble comes, or goes, that lets messages between nodes be late or lost; what it delayed comes within `after`.
    pub fn roughen(&mut self, on: bool, after: Duration) {
        self.roughs = if on { self.roughs + 1 } else { self.roughs - 1 };
        self.rough_until = if self.roughs > 0 { Duration::MAX } else { self.at + after };
    }

    /// Whether the two are of one kin and could speak with each other at some instant since `since`.
    #[must_use]
    pub fn could_meet(&self, one: NodeId, other: NodeId, since: Duration) -> bool {
        let passed = |way| self.unheard.get(&way).is_none_or(|unheard| *unheard >= since);
        self.nodes[&one].kin == self.nodes[&other].kin && passed((one, other)) && passed((other, one))
    }

    /// The last instant since `since` at which something kept the two from speaking with each other in good time.
    #[must_use]
    pub fn apart_at(&self, one: NodeId, other: NodeId, since: Duration) -> Option<Duration> {
        let ways = [(one, other), (other, one)];
        let now =
            ways.iter().any(|way| self.unheard.contains_key(way)) || self.nodes[&one].kin != self.nodes[&other].kin;
        let until = ways.iter().filter_map(|way| self.unheard_until.get(way)).copied();
        let last = until.chain([self.rough_until]).chain(now.then_some(self.at)).max()?;
        (last >= since).then_some(last.min(self.at))
    }

    /// Nodes that run and are of the common kin.
    #[must_use]
    pub fn healthy(&self) -> BTreeSet<NodeId> {
        let healthy = |(_, facts): &(&NodeId, &NodeFacts)| {
            facts.dead_since.is_none() && facts.paused_since.is_none() && facts.kin == Kin::Common
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

/// An answer to "which uploads are stored where?"
#[derive(Debug)]
pub struct Listed {
    /// Which node holds what.
    pub uploads: Vec<(NodeId, Entry)>,
    /// How many uploads lie on several.
    pub copies: u64,
    /// Who did not say what it holds.
    pub missing: BTreeSet<NodeId>,
    /// How many uploads each node misses.
    pub lost: BTreeMap<NodeId, u64>,
}

/// How everything went, as the clients saw it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What a healthy node listed at the very end.
    pub listed: Option<Listed>,
    /// Uploads that were begun after the cluster had healed and had time to agree, and were not acknowledged; why.
    pub failed_after: Vec<String>,
    /// Uploads that were fetched after the cluster had healed, and how many of them came whole.
    pub fetched: (u64, u64),
    /// Acknowledged uploads that are said to be lost where they were stored.
    pub missed: BTreeSet<RequestId>,
    /// How many uploads each node misses, by its status.
    pub gone: BTreeMap<NodeId, u64>,
    /// Acknowledged uploads that could not be fetched at the end, and why.
    pub unfetched: Vec<String>,
}
