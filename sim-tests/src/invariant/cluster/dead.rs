//! C6: a dead node is assigned nothing after detection; nor is one that the leader does not hear, for it looks dead.

use std::time::Duration;

use omb_cluster::{
    config::Timing,
    node::{
        Output,
        message::{Message, Order},
    },
    peer::NodeId,
};
use omb_runtime_sim::peers::Facts;

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Dead;

/// Beyond the suspicion: the leader checks again after 100 ms, all this by a clock that is 2 % slow; and the node's
/// last message was in flight for 10 ms.
const SLACK: Duration = Duration::from_millis(130);

impl Promise for Dead {
    fn name(&self) -> &'static str {
        "C6 dead"
    }

    fn on_output(&mut self, leader: NodeId, output: &Output, facts: &Facts, broken: &mut Broken) {
        let given = match output {
            Output::Send { envelope, .. } => match &envelope.message {
                Message::Placed { outcome: Ok(node), .. } => Some(*node),
                _ => None,
            },
            Output::Relay { to, order: Order::Store { leadership, .. }, .. } => {
                Some(*to).filter(|_| leadership.leader == Some(leader))
            }
            _ => None,
        };
        let Some((node, unheard)) = given.and_then(|node| Some((node, facts.unheard.get(&(node, leader))?))) else {
            return;
        };
        let detected = Timing::default().suspicion + SLACK;
        // A delayed or duplicated message is heard late, and a leader that was paused has not checked since.
        let since = facts.at.saturating_sub(detected);
        let rough = facts.rough_until.max(facts.copies_until);
        let late = rough > since || facts.nodes[&leader].paused_until > since;
        if *unheard < since && !late {
            let silent = (facts.at - *unheard).as_secs_f64();
            broken.note(format_args!("{leader} assigns an upload to {node}, which it cannot hear for {silent:.3} s"));
        }
    }
}
