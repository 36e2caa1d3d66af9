//! C6: a dead node is given nothing after detection.

use std::time::Duration;

use omb_core::{
    config::cluster::Timing,
    node::{
        Output,
        message::{Message, Request},
    },
    peer::NodeId,
};
use omb_runtime_sim::peers::Facts;

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Dead;

/// Beyond the suspicion: until the leader looks again, by a slow clock; and what was under way when it died.
const SLACK: Duration = Duration::from_millis(600);

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
            Output::Relay { to, request: Request::Store { leadership, .. }, .. } => {
                Some(*to).filter(|_| leadership.leader == Some(leader))
            }
            _ => None,
        };
        let Some(given) = given.and_then(|node| facts.nodes.get(&node).map(|own| (node, own))) else { return };
        let (node, own) = given;
        let detected = Timing::default().suspicion + SLACK;
        // What the network delays is heard late, and a leader that stood still has not looked since.
        let since = facts.at.saturating_sub(detected);
        let late = facts.rough_until > since || facts.nodes[&leader].paused_until > since;
        if let Some(since) = own.dead_since
            && since + detected < facts.at
            && !late
        {
            let dead = (facts.at - since).as_secs_f64();
            broken.note(format_args!("{leader} gives an upload to {node}, which has been dead for {dead:.3} s"));
        }
    }
}
