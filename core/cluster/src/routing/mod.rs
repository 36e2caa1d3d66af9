//! Which node gets the next upload.
//!
//! ```text
//! assign ─▶ (credit: assigned + 1, in flight + 1) ─▶ finish(Stored)     in flight - 1
//!                                                 ─▶ finish(Failed)     in flight - 1, preferred no more for a while
//!                                                 ─▶ finish(Abandoned)  in flight - 1, assigned - 1: as if never given
//! ```
//!
//! The [`Router`] keeps the books, one [`Load`] per node that can be given work; a [`Choose`] picks among them. Only the
//! leader routes, and it sees every assignment as it makes it, so its loads are never stale.

mod policy;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{config::Policy, peer::NodeId};
use omb_machine::{seed::Seed, time::Instant};
pub use policy::Choose;

/// For how long a node that failed gets only what no other node can take. Failing is quick, and would otherwise look
/// like being idle. Source of the duration: Linkerd's load biaser adds 5 s to a failing endpoint's apparent latency.
pub const PENALTY: Duration = Duration::from_secs(5);

/// What one node has been assigned.
#[derive(Clone, Debug, PartialEq)]
pub struct Load {
    /// The node.
    pub node: NodeId,
    /// Uploads assigned, plus the level at which it joined.
    pub assigned: u64,
    /// Uploads assigned that are not finished.
    pub in_flight: u64,
    /// The number of its last assignment; 0 before the first. The node that has waited longest has the lowest.
    pub turn: u64,
    /// Recent time from assignment to end, in seconds: jumps to a slow one at once, and decays towards quick ones.
    pub latency: Latency,
    /// When an upload last failed on it.
    pub failed: Option<Instant>,
    /// Until when it is passed over because it failed.
    pub penalty_until: Option<Instant>,
}

/// A moving average that follows peaks at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    seconds: f64,
    at: Instant,
}

impl Latency {
    /// How quick a node is, is not known yet: 1 s, as in Finagle and tower.
    const UNKNOWN_SECONDS: f64 = 1.0;
    /// After this long an old value has the weight 1/e. Finagle's default.
    const DECAY: Duration = Duration::from_secs(10);

    fn new(now: Instant) -> Self {
        Self { seconds: Self::UNKNOWN_SECONDS, at: now }
    }

    /// The average in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.seconds
    }

    fn observe(&mut self, now: Instant, took: Duration) {
        let took = took.as_secs_f64();
        let keep = (-now.since(self.at).as_secs_f64() / Self::DECAY.as_secs_f64()).exp();
        self.seconds = if took > self.seconds { took } else { self.seconds * keep + took * (1.0 - keep) };
        self.at = now;
    }
}

/// How an assignment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum End {
    /// The node stored it.
    Stored,
    /// The node's fault: its disk is full, it broke off, it crashed.
    Failed,
    /// Not the node's fault, and nothing was stored: the client vanished.
    Abandoned,
    /// No node is left to report it.
    Unknown,
}

/// The books of what each node was assigned, and the policy that decides by them.
#[derive(Debug)]
pub struct Router {
    kind: Policy,
    policy: Box<dyn Choose>,
    loads: BTreeMap<NodeId, Load>,
    turns: u64,
}

impl Router {
    /// Without nodes at first. Random choices come from `seed`.
    #[must_use]
    pub fn new(policy: Policy, seed: Seed) -> Self {
        Self { kind: policy, policy: policy::make(policy, seed), loads: BTreeMap::new(), turns: 0 }
    }

    /// The policy in use.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.kind
    }

    /// The books, by node.
    pub fn loads(&self) -> impl Iterator<Item = &Load> {
        self.loads.values()
    }

    /// A new leader's first nodes, at their reported levels: imbalance from before it led is evened out.
    pub fn begin(&mut self, now: Instant, reported: &BTreeMap<NodeId, u64>) {
        self.loads = reported.iter().map(|(node, level)| (*node, load(now, *node, *level))).collect();
    }

    /// A node is available (again). It starts at the level of the least loaded one, or at its own if that is higher:
    /// from zero it would get everything until it has caught up. Does nothing if it is known.
    pub fn join(&mut self, now: Instant, node: NodeId, reported: u64) {
        let level = self.level(None).map_or(reported, |least| least.max(reported));
        self.loads.entry(node).or_insert_with(|| load(now, node, level));
    }

    /// A node is gone. It gets nothing until it joins again.
    pub fn leave(&mut self, node: NodeId) {
        self.loads.remove(&node);
    }

    /// Assigns the next upload to a node that is not excluded, and credits it. `None` if there is none.
    pub fn assign(&mut self, now: Instant, excluded: &BTreeSet<NodeId>) -> Option<NodeId> {
        self.pardon(now);
        let able = || self.loads.values().filter(|load| !excluded.contains(&load.node));
        let mut candidates: Vec<&Load> = able().filter(|load| load.penalty_until.is_none()).collect();
        if candidates.is_empty() {
            candidates = able().collect();
        }
        if candidates.is_empty() {
            return None;
        }
        let chosen = self.policy.choose(&candidates);
        let node = candidates[chosen].node;
        self.turns += 1;
        let load = self.loads.get_mut(&node).expect("a candidate is one of the nodes");
        load.assigned += 1;
        load.in_flight += 1;
        load.turn = self.turns;
        Some(node)
    }

    /// An upload assigned to `node` has ended after `took`. Does nothing if the node has left since.
    pub fn finish(&mut self, now: Instant, node: NodeId, took: Duration, end: End) {
        let Some(load) = self.loads.get_mut(&node) else { return };
        // It may have left and rejoined in between; then its books were reset.
        load.in_flight = load.in_flight.saturating_sub(1);
        match end {
            End::Stored => load.latency.observe(now, took),
            End::Failed => (load.failed, load.penalty_until) = (Some(now), Some(now + PENALTY)),
            End::Abandoned => load.assigned = load.assigned.saturating_sub(1),
            End::Unknown => {}
        }
    }

    /// Ends penalties. A node after a penalty has fallen behind, and joins at the level of the least loaded.
    fn pardon(&mut self, now: Instant) {
        let due: Vec<NodeId> = self
            .loads
            .values()
            .filter(|load| load.penalty_until.is_some_and(|until| until <= now))
            .map(|load| load.node)
            .collect();
        for node in due {
            let level = self.level(Some(node));
            let load = self.loads.get_mut(&node).expect("one of the nodes");
            load.penalty_until = None;
            load.assigned = load.assigned.max(level.unwrap_or(0));
        }
    }

    /// The level of the least loaded node that is available.
    fn level(&self, but: Option<NodeId>) -> Option<u64> {
        let able = self.loads.values().filter(|load| Some(load.node) != but && load.penalty_until.is_none());
        able.map(|load| load.assigned).min()
    }
}

fn load(now: Instant, node: NodeId, assigned: u64) -> Load {
    Load { node, assigned, in_flight: 0, turn: 0, latency: Latency::new(now), failed: None, penalty_until: None }
}

#[cfg(test)]
mod tests;
