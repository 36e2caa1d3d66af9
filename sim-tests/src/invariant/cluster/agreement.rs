//! C2: once all has healed, all agree on the highest healthy id within 5 s, and stay there. And then the cluster serves.
//! So that nothing flaps, a returning node takes over from a leader only after it was steadily reachable.

use std::collections::{BTreeMap, BTreeSet};

use omb_cluster::{
    config::Timing,
    node::Node,
    peer::{Leadership, NodeId},
};
use omb_machine::time::Instant;
use omb_runtime_sim::peers::{Facts, Kin, Outcome, world::AGREE_WITHIN};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Agreement {
    /// The nodes that were seen to agree after the bound.
    agreed: BTreeSet<NodeId>,
    /// What they agree on.
    on: Option<Leadership>,
    /// The leader that each node follows, and since when by its own clock.
    followed: BTreeMap<NodeId, (Leadership, Instant)>,
}

impl Agreement {
    /// A node that takes over from a leader that it follows must have followed it steadily.
    fn watch_takeover(&mut self, node: NodeId, leader: Option<Leadership>, now: Instant, broken: &mut Broken) {
        let Some(leader) = leader else {
            self.followed.remove(&node);
            return;
        };
        match self.followed.get(&node) {
            Some((before, _)) if *before == leader => return,
            Some((before, since)) if leader.leader == Some(node) => {
                let waited = now.since(*since);
                if waited < Timing::default().steady {
                    let waited = waited.as_secs_f64();
                    broken.note(format_args!("{node} takes over from {before} after {waited:.3} s"));
                }
            }
            _ => {}
        }
        self.followed.insert(node, (leader, now));
    }
}

impl Promise for Agreement {
    fn name(&self) -> &'static str {
        "C2 agreement"
    }

    fn on_birth(&mut self, node: NodeId, _: Leadership, _: &Facts, _: &mut Broken) {
        self.followed.remove(&node);
    }

    fn on_node(&mut self, node: NodeId, machine: &Node, now: Instant, facts: &Facts, broken: &mut Broken) {
        let leader = machine.election().leader();
        self.watch_takeover(node, leader, now, broken);
        let Some(healed) = facts.healed else { return };
        if facts.at < healed + AGREE_WITHIN || facts.nodes[&node].kin != Kin::Common {
            return;
        }
        let highest = facts.healthy().last().copied();
        if leader.and_then(|leadership| leadership.leader) != highest {
            let since = (facts.at - healed).as_secs_f64();
            let follows = leader.map_or("nobody".to_owned(), |leader| leader.to_string());
            broken.note(format_args!("{since:.3} s after all has healed {node} follows {follows}"));
            return;
        }
        if self.on.is_some() && self.on != leader {
            broken
                .note(format_args!("{node} follows another leadership than was agreed on: {leader:?}, {:?}", self.on));
        }
        self.on = leader;
        self.agreed.insert(node);
    }

    fn at_end(&mut self, outcome: &Outcome, facts: &Facts, broken: &mut Broken) {
        for node in facts.healthy().difference(&self.agreed) {
            broken.note(format_args!("{node} was not heard of after all has healed"));
        }
        for failed in &outcome.failed_after {
            broken.note(format_args!("an upload was not stored after all has healed: {failed}"));
        }
    }
}
