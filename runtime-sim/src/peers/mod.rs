//! A cluster of peers on simulated machines: disks that lose what was not synced, clients that upload, and faults.
//!
//! ```text
//!  node 1 .. n: cluster::serve ── links ── each other          disk: survives a crash as far as it was synced
//!  client 1 .. m: cluster::asking ─┘                           facts: what is true, beside what nodes believe
//! ```

mod cast;
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

/// The truth, whatever nodes and clients believe.
#[derive(Debug, Default)]
pub struct Facts {
    /// The scenario that is played.
    pub scenario: Scenario,
    /// True time since the simulation began.
    pub at: Duration,
    /// Each node, by id.
    pub nodes: BTreeMap<NodeId, NodeFacts>,
    /// Directed links that carry nothing, and since when: cut ones, and those to and from a dead or paused node.
    pub unheard: BTreeMap<(NodeId, NodeId), Duration>,
    /// When each link last ceased to be like that.
    pub unheard_until: BTreeMap<(NodeId, NodeId), Duration>,
    /// Until when messages between nodes were last late or lost, or still are (`Duration::MAX`).
    pub rough_until: Duration,
    /// How many faults cause that.
    pub roughs: u32,
    /// Until when copies of earlier messages arrived, or may arrive: signs of life of a node that has died since.
    pub copies_until: Duration,
    /// Each upload.
    pub uploads: BTreeMap<RequestId, Upload>,
    /// When all faults were over and all nodes ran; `None` before.
    pub healed: Option<Duration>,
    /// Changes with each crash, and with each file that leaves a disk.
    pub losses: u64,
    /// What was sent to a side that lacks the key, or had proven nothing in time.
    pub leaked: Vec<String>,
    /// Uploads that were ordered by a process that is not a peer, or under a leadership that no election can have led
    /// to.
    pub forged: BTreeSet<RequestId>,
}

/// What is true of one node.
#[derive(Debug)]
pub struct NodeFacts {
    /// Its disk.
    pub disk: disk::SimDisk,
    /// Since when it is dead, if it is.
    pub dead_since: Option<Duration>,
    /// Since when it is paused, if it is.
    pub paused_since: Option<Duration>,
    /// Until when it was last paused.
    pub paused_until: Duration,
    /// Since when it runs.
    pub born: Duration,
    /// The nodes that it can share a cluster with.
    pub kin: Kin,
}

/// Nodes of different kin ignore each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kin {
    /// The cluster's nodes.
    Common,
    /// A node with another list of peers, with one more.
    OtherList,
    /// A node that speaks another version of the protocol.
    OtherVersion,
    /// A node that has another key, or none.
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
    /// The acknowledgement to the client, and when it came.
    pub acknowledged: Option<(NodeId, Stored, Duration)>,
}

impl Facts {
    /// A fault that makes messages between nodes late or lost begins or ends; what it delayed arrives within `after`.
    pub fn roughen(&mut self, on: bool, after: Duration) {
        self.roughs = if on { self.roughs + 1 } else { self.roughs - 1 };
        self.rough_until = if self.roughs > 0 { Duration::MAX } else { self.at + after };
    }

    /// Whether the two are of one kin and could communicate at some instant since `since`.
    #[must_use]
    pub fn could_meet(&self, one: NodeId, other: NodeId, since: Duration) -> bool {
        let passed = |way| self.unheard.get(&way).is_none_or(|unheard| *unheard >= since);
        self.nodes[&one].kin == self.nodes[&other].kin && passed((one, other)) && passed((other, one))
    }

    /// The last instant since `since` at which something kept the two from communicating in time.
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

/// Observes every step.
pub trait Watcher: Send {
    /// A node's process begins with what was on its disk.
    fn on_birth(&mut self, node: NodeId, restored: Leadership, facts: &Facts);
    /// A node wants something done.
    fn on_output(&mut self, node: NodeId, output: &Output, facts: &Facts);
    /// A node after a step, at `now` by its own clock.
    fn on_node(&mut self, node: NodeId, machine: &Node, now: Instant, facts: &Facts);
    /// A client's upload was acknowledged.
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
    /// How many uploads are on several.
    pub copies: u64,
    /// Nodes that did not report what they hold.
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
    /// Uploads that were fetched after the cluster had healed, and how many of them arrived whole.
    pub fetched: (u64, u64),
    /// Acknowledged uploads that are reported as lost where they were stored.
    pub missed: BTreeSet<RequestId>,
    /// How many uploads each node misses, by its status.
    pub gone: BTreeMap<NodeId, u64>,
    /// Acknowledged uploads that could not be fetched at the end, and why.
    pub unfetched: Vec<String>,
}
