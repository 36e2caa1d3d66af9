//! The promises of a cluster, one file each, checked after every step of every node.
//!
//! | file | promise |
//! | --- | --- |
//! | [`terms`] | C1: terms never go back, no term has two leaders, and no node follows an older leader, or its order, after a newer one |
//! | [`agreement`] | C2: once all has healed, all agree on the highest healthy id within 5 s, and stay there; a returning node waits |
//! | [`durable`] | C3: an acknowledged upload is on some disk, whole, whatever crashed later |
//! | [`known`] | an acknowledged upload can be fetched and is listed with its name, owner and time, or it is missed where it was stored |
//! | [`once`] | C4: one id, one acknowledgement, at most one copy per node, several only where a holder was out of reach |
//! | [`level`] | C5: without faults, the fullest and the emptiest node differ by at most one upload; no node joins behind the others, or fails and is preferred |
//! | [`dead`] | C6: a dead node is assigned nothing after detection |
//! | [`key`] | a node without the shared key gets nothing: no vote, no byte of an upload, no list |
//! | [`forged`] | a process that is not a peer is not heard as one, and a number that no honest node reaches changes nothing |
//! | [`served`] | a client that announces uploads and sends nothing of them keeps no other out |
//! | [`minority`] | C7: with `quorum: majority` a minority never serves |

pub mod agreement;
pub mod dead;
pub mod durable;
pub mod forged;
pub mod key;
pub mod known;
pub mod level;
pub mod minority;
pub mod once;
mod orders;
pub mod served;
pub mod terms;

use omb_cluster::{
    node::{Node, Output},
    peer::{Leadership, NodeId, RequestId},
};
use omb_machine::time::Instant;
use omb_runtime_sim::peers::{Facts, Outcome, Watcher};

use super::Broken;

/// Something that must hold for a cluster. A promise omits what it does not check.
pub trait Promise: Send {
    /// Its name, as in the table.
    fn name(&self) -> &'static str;
    /// A node's process begins with what was on its disk.
    fn on_birth(&mut self, _node: NodeId, _restored: Leadership, _facts: &Facts, _broken: &mut Broken) {}
    /// A node wants something done.
    fn on_output(&mut self, _node: NodeId, _output: &Output, _facts: &Facts, _broken: &mut Broken) {}
    /// A node after a step, at `now` by its own clock.
    fn on_node(&mut self, _node: NodeId, _machine: &Node, _now: Instant, _facts: &Facts, _broken: &mut Broken) {}
    /// A client's upload was acknowledged.
    fn on_acknowledged(&mut self, _id: RequestId, _facts: &Facts, _broken: &mut Broken) {}
    /// Something happened to nodes, disks or the network.
    fn on_event(&mut self, _facts: &Facts, _broken: &mut Broken) {}
    /// Everything is over.
    fn at_end(&mut self, _outcome: &Outcome, _facts: &Facts, _broken: &mut Broken) {}
}

/// All promises of a cluster, and what was found broken.
pub struct Cluster {
    promises: Vec<Box<dyn Promise>>,
    broken: Broken,
}

impl Default for Cluster {
    fn default() -> Self {
        let promises: Vec<Box<dyn Promise>> = vec![
            Box::<terms::Terms>::default(),
            Box::<agreement::Agreement>::default(),
            Box::<durable::Durable>::default(),
            Box::<known::Known>::default(),
            Box::<once::Once>::default(),
            Box::<level::Level>::default(),
            Box::<dead::Dead>::default(),
            Box::<minority::Minority>::default(),
            Box::<key::Key>::default(),
            Box::<forged::Forged>::default(),
            Box::<served::Served>::default(),
        ];
        Self { promises, broken: Broken::default() }
    }
}

impl Cluster {
    /// What was found broken.
    #[must_use]
    pub fn broken(&self) -> &Broken {
        &self.broken
    }

    fn each(&mut self, mut check: impl FnMut(&mut dyn Promise, &mut Broken)) {
        for promise in &mut self.promises {
            self.broken.promise = promise.name();
            check(promise.as_mut(), &mut self.broken);
        }
    }
}

impl Watcher for Cluster {
    fn on_birth(&mut self, node: NodeId, restored: Leadership, facts: &Facts) {
        self.each(|promise, broken| promise.on_birth(node, restored, facts, broken));
    }

    fn on_output(&mut self, node: NodeId, output: &Output, facts: &Facts) {
        self.each(|promise, broken| promise.on_output(node, output, facts, broken));
    }

    fn on_node(&mut self, node: NodeId, machine: &Node, now: Instant, facts: &Facts) {
        self.each(|promise, broken| promise.on_node(node, machine, now, facts, broken));
    }

    fn on_acknowledged(&mut self, id: RequestId, facts: &Facts) {
        self.each(|promise, broken| promise.on_acknowledged(id, facts, broken));
    }

    fn on_event(&mut self, facts: &Facts) {
        self.each(|promise, broken| promise.on_event(facts, broken));
    }

    fn at_end(&mut self, outcome: &Outcome, facts: &Facts) {
        self.each(|promise, broken| promise.at_end(outcome, facts, broken));
    }
}
