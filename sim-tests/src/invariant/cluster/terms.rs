//! C1: terms never go back, no term has two leaders, and no node follows an older leader after a newer one, nor its
//! orders.

use std::collections::BTreeMap;

use omb_cluster::{
    node::{Node, Output, message::Message},
    peer::{Leadership, NodeId, RequestId, Term},
};
use omb_machine::time::Instant;
use omb_runtime_sim::peers::{Facts, Kin};

use super::{Broken, Promise, orders::Orders};

/// See the module.
#[derive(Debug, Default)]
pub struct Terms {
    /// The newest leadership that each node's disk was believed to hold; over restarts.
    durable: BTreeMap<NodeId, Leadership>,
    /// The newest that each node has seen, in its present life.
    seen: BTreeMap<NodeId, Leadership>,
    /// The newest that each node has followed; over restarts.
    followed: BTreeMap<NodeId, Leadership>,
    /// The leader that was followed in each term. Nodes of another kin count terms separately.
    leaders: BTreeMap<(Kin, Term), NodeId>,
    orders: Orders,
    /// The newest leadership under which an upload was placed on a node.
    placed: BTreeMap<(RequestId, NodeId), Leadership>,
}

impl Promise for Terms {
    fn name(&self) -> &'static str {
        "C1 terms"
    }

    fn on_birth(&mut self, node: NodeId, restored: Leadership, _: &Facts, broken: &mut Broken) {
        self.orders.on_birth(node);
        self.seen.remove(&node);
        let before = self.durable.get(&node).copied().unwrap_or_default();
        if restored < before {
            broken.note(format_args!("{node} begins with {restored}, but had made {before} durable"));
        }
    }

    fn on_output(&mut self, node: NodeId, output: &Output, _: &Facts, broken: &mut Broken) {
        self.orders.on_output(node, output);
        match output {
            Output::Send { envelope, .. } => {
                if let Message::Placed { id, leadership, outcome: Ok(to), .. } = envelope.message {
                    let newest = self.placed.entry((id, to)).or_insert(leadership);
                    *newest = leadership.max(*newest);
                }
            }
            Output::Store { id, .. } => {
                // Of several orders it may be the newest one that it follows; or its own, if it leads.
                let order = self.orders.newest(*id, node).max(self.placed.get(&(*id, node)).copied());
                if let (Some(order), Some(seen)) = (order, self.seen.get(&node))
                    && order < *seen
                    && seen.leader != Some(node)
                {
                    broken.note(format_args!("{node} stores {id} as {order} has ordered, and knows of {seen}"));
                }
            }
            _ => {}
        }
    }

    fn on_node(&mut self, node: NodeId, machine: &Node, _: Instant, facts: &Facts, broken: &mut Broken) {
        let election = machine.election();
        let (durable, newest) = (election.durable(), election.newest());
        self.seen.insert(node, newest);
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
            broken.note(format_args!("{node} follows {leader}, but its disk holds {on_disk}"));
        }
        let before = self.followed.insert(node, leader).unwrap_or_default();
        if leader < before {
            broken.note(format_args!("{node} follows {leader} after {before}"));
        }
        let own = leader.leader.unwrap_or(node);
        let kin = facts.nodes[&node].kin;
        if facts.nodes.get(&own).is_none_or(|leader| leader.kin != kin) {
            broken.note(format_args!("{node} follows {own}, which has another list or version"));
        }
        let other = *self.leaders.entry((kin, leader.term)).or_insert(own);
        if other != own {
            broken.note(format_args!("{} is led by {own} and by {other}", leader.term));
        }
    }
}
