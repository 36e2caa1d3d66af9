//! C7: with `quorum: majority` a minority never serves.

use std::time::Duration;

use omb_cluster::{
    config::{Quorum, Timing},
    node::Node,
    peer::NodeId,
};
use omb_machine::time::Instant;
use omb_runtime_sim::peers::{Facts, Kin};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Minority;

/// Clocks gain or lose 2 %; what was sent before a link broke still arrives.
const SLACK: Duration = Duration::from_millis(50);

impl Promise for Minority {
    fn name(&self) -> &'static str {
        "C7 minority"
    }

    fn on_node(&mut self, node: NodeId, machine: &Node, now: Instant, facts: &Facts, broken: &mut Broken) {
        if facts.scenario.quorum != Quorum::Majority || !machine.election().serves(now) {
            return;
        }
        let since = facts.at.saturating_sub(Timing::default().suspicion + SLACK);
        let heard = facts.nodes.keys().filter(|other| **other == node || facts.could_meet(node, **other, since));
        let one_more = facts.nodes[&node].kin == Kin::OtherList;
        let (heard, all) = (heard.count(), facts.nodes.len() + usize::from(one_more));
        if heard * 2 <= all {
            broken.note(format_args!("{node} serves, and of {all} nodes at most {heard} can have followed it"));
        }
    }
}
