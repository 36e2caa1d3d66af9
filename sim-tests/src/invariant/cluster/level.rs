//! C5: without faults, the fullest and the emptiest node differ by at most one upload, and a leader that has opened its
//! books removes no node from them. And whatever happens, a node that joins does not begin behind the others, a new
//! leader begins with what nodes have reported, and a node that failed is not preferred.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use omb_cluster::{
    config::Policy,
    node::{
        Node, Output,
        message::{Message, Reply},
    },
    peer::{Leadership, NodeId, RequestId},
    routing::{End, PENALTY},
};
use omb_machine::time::Instant;
use omb_runtime_sim::peers::{Facts, Outcome};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Level {
    /// How many uploads each node holds, since it has read its folder.
    held: BTreeMap<NodeId, u64>,
    /// Each leader.
    leaders: BTreeMap<NodeId, Leader>,
    /// Nodes that an upload must not go to, by its entry's request to the leader.
    excluded: BTreeMap<RequestId, BTreeSet<NodeId>>,
}

#[derive(Debug)]
struct Leader {
    of: Leadership,
    /// What each node held when it began.
    held: BTreeMap<NodeId, u64>,
    /// What it has assigned to each node, by its books if they are open, and whether it passes the node over.
    books: Option<BTreeMap<NodeId, (u64, bool)>>,
    /// Uploads that it has assigned to a node since that joined.
    placed: BTreeMap<RequestId, NodeId>,
    /// When a node's failure was reported to it.
    failed: BTreeMap<NodeId, Duration>,
}

/// Until a failure has been reported to the leader; and a clock that is 2 % fast ends a penalty earlier.
const SLACK: Duration = Duration::from_millis(150);

impl Leader {
    fn open(&mut self, books: BTreeMap<NodeId, (u64, bool)>, calm: bool, broken: &mut Broken) {
        let of = self.of;
        match &self.books {
            None => {
                for (node, (given, _)) in &books {
                    if let Some(held) = self.held.get(node).filter(|held| *held > given) {
                        broken.note(format_args!("{of} begins with {given} for {node}, which holds {held}"));
                    }
                }
            }
            Some(before) => {
                if calm && let Some(node) = before.keys().find(|node| !books.contains_key(node)) {
                    broken.note(format_args!("{of} takes {node} off its books, and nothing has gone wrong"));
                }
                let able = before.values().filter(|(_, passed)| !passed);
                let least = able.map(|(given, _)| *given).min().unwrap_or(0);
                for (node, (given, _)) in books.iter().filter(|(node, _)| !before.contains_key(node)) {
                    if *given < least {
                        broken.note(format_args!("{node} joins {of} at {given}, and the others are at {least}"));
                    }
                }
            }
        }
        // A node that has been away starts over.
        self.failed.retain(|node, _| books.contains_key(node));
        self.placed.retain(|_, node| books.contains_key(node));
        self.books = Some(books);
    }
}

impl Level {
    /// `leader` assigns an upload to `node`, instead of to one that has not failed.
    fn prefers(&self, leader: NodeId, id: RequestId, node: NodeId, facts: &Facts, broken: &mut Broken) {
        let (Some(own), Some(excluded)) = (self.leaders.get(&leader), self.excluded.get(&id)) else { return };
        let (Some(failed), Some(books)) = (own.failed.get(&node), &own.books) else { return };
        let passed_over = failed.saturating_add(SLACK)..failed.saturating_add(PENALTY.saturating_sub(SLACK));
        let better = books.iter().find(|(other, (_, passed))| {
            !passed && !excluded.contains(other) && !own.failed.contains_key(other) && **other != node
        });
        if passed_over.contains(&facts.at)
            && facts.rough_until < *failed
            && let Some((better, _)) = better
        {
            let ago = (facts.at - *failed).as_secs_f64();
            broken.note(format_args!("{leader} prefers {node}, which failed {ago:.3} s ago, to {better}"));
        }
    }
}

impl Promise for Level {
    fn name(&self) -> &'static str {
        "C5 level"
    }

    fn on_birth(&mut self, node: NodeId, _: Leadership, _: &Facts, _: &mut Broken) {
        self.held.remove(&node);
        self.leaders.remove(&node);
        self.leaders.values_mut().for_each(|leader| _ = leader.held.remove(&node));
    }

    fn on_output(&mut self, node: NodeId, output: &Output, facts: &Facts, broken: &mut Broken) {
        match output {
            Output::Send { to, envelope } => match &envelope.message {
                Message::Place { put, .. } => _ = self.excluded.insert(put.id, put.excluded.clone()),
                Message::Placed { id, outcome: Ok(given), .. } => {
                    self.prefers(node, *id, *given, facts, broken);
                    if let Some(leader) = self.leaders.get_mut(&node) {
                        leader.placed.insert(*id, *given);
                    }
                }
                Message::Finished { id, node: failed, end: End::Failed } => {
                    let heard = facts.apart_at(node, *to, facts.at.saturating_sub(SLACK)).is_none();
                    if let Some(leader) = self.leaders.get_mut(to).filter(|_| heard)
                        && leader.placed.get(id) == Some(failed)
                    {
                        leader.failed.insert(*failed, facts.at);
                    }
                }
                _ => {}
            },
            // Its own disk, perhaps by its own order.
            Output::Answer {
                reply: Reply::Retry { excluded: Some(failed), .. } | Reply::Full { node: failed, .. },
                ..
            } if *failed == node => {
                if let Some(leader) = self.leaders.get_mut(&node) {
                    leader.failed.remove(failed);
                }
            }
            _ => {}
        }
    }

    fn on_node(&mut self, node: NodeId, machine: &Node, _: Instant, facts: &Facts, broken: &mut Broken) {
        if machine.store().is_ready() {
            self.held.insert(node, machine.store().count());
        }
        let Some(of) = machine.election().leader().filter(|of| of.leader == Some(node)) else {
            self.leaders.remove(&node);
            return;
        };
        if self.leaders.get(&node).is_none_or(|leader| leader.of != of) {
            let (held, placed, failed) = (self.held.clone(), BTreeMap::new(), BTreeMap::new());
            self.leaders.insert(node, Leader { of, held, books: None, placed, failed });
        }
        if let (Some(router), Some(leader)) = (machine.router(), self.leaders.get_mut(&node)) {
            let load = |load: &omb_cluster::routing::Load| (load.node, (load.assigned, load.penalty_until.is_some()));
            leader.open(router.loads().map(load).collect(), facts.scenario.is_calm(), broken);
        }
    }

    fn at_end(&mut self, outcome: &Outcome, facts: &Facts, broken: &mut Broken) {
        let even = matches!(facts.scenario.policy, Policy::LeastLoad | Policy::RoundRobin);
        if !facts.scenario.is_calm() {
            return;
        }
        let counts: Vec<usize> = facts.nodes.values().map(|node| node.disk.copies().len()).collect();
        let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
        if even && most > least.map(|least| least + 1) {
            broken.note(format_args!("the nodes hold {counts:?} uploads"));
        }
        let unfinished = facts.uploads.values().filter(|upload| upload.acknowledged.is_none()).count();
        if unfinished > 0 {
            broken.note(format_args!("{unfinished} uploads were not acknowledged"));
        }
        if !outcome.unfetched.is_empty() {
            broken.note(format_args!("uploads cannot be had: {:?}", outcome.unfetched));
        }
    }
}
