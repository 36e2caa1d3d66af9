//! C1: terms never go back, no term has two leaders, and no node obeys an older leader after a newer one.

use std::collections::BTreeMap;

use omb_core::{
    node::Node,
    peer::{Leadership, NodeId, Term},
    time::Instant,
};
use omb_runtime_sim::peers::Facts;

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Terms {
    /// The newest leadership that each node's disk was believed to hold; over restarts.
    durable: BTreeMap<NodeId, Leadership>,
    /// The newest that each node has obeyed; over restarts.
    obeyed: BTreeMap<NodeId, Leadership>,
    /// Who was obeyed in which term. A stranger counts terms by another list.
    leaders: BTreeMap<(bool, Term), NodeId>,
}

impl Promise for Terms {
    fn name(&self) -> &'static str {
        "C1 terms"
    }

    fn on_birth(&mut self, node: NodeId, restored: Leadership, _: &Facts, broken: &mut Broken) {
        let before = self.durable.get(&node).copied().unwrap_or_default();
        if restored < before {
            broken.note(format_args!("{node} begins with {restored}, but had made {before} durable"));
        }
    }

    fn on_node(&mut self, node: NodeId, machine: &Node, _: Instant, facts: &Facts, broken: &mut Broken) {
        let election = machine.election();
        let (durable, newest) = (election.durable(), election.newest());
        let before = self.durable.insert(node, durable).unwrap_or_default();
        if durable < before {
            broken.note(format_args!("{node} went back from {before} to {durable}"));
        }
        if newest < durable {
            broken.note(format_args!("{node} has seen {newest}, which is older than its own {durable}"));
        }
        let Some(leader) = election.leader() else { return };
        let on_disk = facts.nodes[&node].disk.leadership();
        if leader > on_disk {
            broken.note(format_args!("{node} obeys {leader}, but its disk holds {on_disk}"));
        }
        let before = self.obeyed.insert(node, leader).unwrap_or_default();
        if leader < before {
            broken.note(format_args!("{node} obeys {leader} after {before}"));
        }
        let stranger = facts.nodes[&node].stranger;
        let own = leader.leader.unwrap_or(node);
        let other = *self.leaders.entry((stranger, leader.term)).or_insert(own);
        if other != own {
            broken.note(format_args!("{} is led by {own} and by {other}", leader.term));
        }
    }
}
