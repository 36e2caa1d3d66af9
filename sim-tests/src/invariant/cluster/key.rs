//! With a shared key, a node that lacks it gets nothing: it neither votes nor is heard, reads nothing and stores
//! nothing.

use omb_cluster::{
    node::{Node, Output},
    peer::NodeId,
};
use omb_machine::time::Instant;
use omb_runtime_sim::peers::{Facts, Outcome};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Key;

impl Promise for Key {
    fn name(&self) -> &'static str {
        "key"
    }

    fn on_output(&mut self, node: NodeId, output: &Output, facts: &Facts, broken: &mut Broken) {
        let Some((out, _)) = facts.scenario.locked_out else { return };
        match output {
            Output::Relay { to, .. } if *to == out || node == out => {
                broken.note(format_args!("{node} relays an upload to {to}; {out} lacks the key"));
            }
            Output::Store { id, .. } if node == out => broken.note(format_args!("{out} lacks the key and stores {id}")),
            Output::Fetch { from, .. } if *from == out || node == out => {
                broken.note(format_args!("{node} fetches from {from}; {out} lacks the key"));
            }
            _ => {}
        }
    }

    fn on_node(&mut self, node: NodeId, machine: &Node, now: Instant, facts: &Facts, broken: &mut Broken) {
        let Some((out, _)) = facts.scenario.locked_out else { return };
        let heard = machine.election().alive(now);
        let wrong = heard.iter().find(|other| **other != node && (**other == out || node == out));
        if let Some(other) = wrong {
            broken.note(format_args!("{node} hears {other}; {out} lacks the key"));
        }
    }

    fn at_end(&mut self, _: &Outcome, facts: &Facts, broken: &mut Broken) {
        facts.leaked.iter().for_each(|leaked| broken.note(leaked));
        if let Some((out, _)) = facts.scenario.locked_out
            && !facts.nodes[&out].disk.copies().is_empty()
        {
            broken.note(format_args!("{out} lacks the key and holds uploads"));
        }
    }
}
