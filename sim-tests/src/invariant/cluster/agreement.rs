//! C2: once all has healed, all agree on the highest healthy id within 5 s, and stay there. And then the cluster serves.

use std::collections::BTreeSet;

use omb_core::{
    node::Node,
    peer::{Leadership, NodeId},
    time::Instant,
};
use omb_runtime_sim::peers::{Facts, Outcome, world::AGREE_WITHIN};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Agreement {
    /// Who was seen to agree after the bound.
    agreed: BTreeSet<NodeId>,
    /// What they agree on.
    on: Option<Leadership>,
}

impl Promise for Agreement {
    fn name(&self) -> &'static str {
        "C2 agreement"
    }

    fn on_node(&mut self, node: NodeId, machine: &Node, _: Instant, facts: &Facts, broken: &mut Broken) {
        let Some(healed) = facts.healed else { return };
        if facts.at < healed + AGREE_WITHIN || facts.nodes[&node].stranger {
            return;
        }
        let highest = facts.healthy().last().copied();
        let leader = machine.election().leader();
        if leader.and_then(|leadership| leadership.leader) != highest {
            let since = (facts.at - healed).as_secs_f64();
            let obeys = leader.map_or("nobody".to_owned(), |leader| leader.to_string());
            broken.note(format_args!("{since:.3} s after all has healed {node} obeys {obeys}"));
            return;
        }
        if self.on.is_some() && self.on != leader {
            broken.note(format_args!("{node} obeys another leadership than was agreed on: {leader:?}, {:?}", self.on));
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
