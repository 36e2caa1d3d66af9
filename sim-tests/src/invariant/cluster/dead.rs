//! C6: a dead node is given nothing after detection; nor is one of which the leader hears nothing, for it cannot tell.

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

/// Beyond the suspicion: the leader looks again after 100 ms, all this by a clock that is 2 % slow; and what the node had
/// said was under way for 10 ms.
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
        // What the network delays, or doubles, is heard late, and a leader that stood still has not looked since.
        let since = facts.at.saturating_sub(detected);
        let rough = facts.rough_until.max(facts.copies_until);
        let late = rough > since || facts.nodes[&leader].paused_until > since;
        if *unheard < since && !late {
            let silent = (facts.at - *unheard).as_secs_f64();
            broken.note(format_args!("{leader} gives an upload to {node}, which it cannot hear for {silent:.3} s"));
        }
    }
}
