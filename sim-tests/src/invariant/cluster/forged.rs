//! A process that is not a peer is not heard as one, and a number that no honest node reaches changes nothing: no term,
//! no books, no order.

use omb_cluster::{
    election::TERM_JUMP_MAX,
    node::{Node, Output},
    peer::NodeId,
};
use omb_machine::time::Instant;
use omb_runtime_sim::peers::{Facts, Outcome};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Forged;

/// More than is uploaded in any scenario, failed uploads included.
const LEVEL_MOST: u64 = 10_000;

impl Promise for Forged {
    fn name(&self) -> &'static str {
        "forged"
    }

    fn on_output(&mut self, node: NodeId, output: &Output, facts: &Facts, broken: &mut Broken) {
        if let Output::Store { id, .. } = output
            && facts.forged.contains(id)
        {
            broken.note(format_args!("{node} stores {id}, which no leader has ordered"));
        }
    }

    fn on_node(&mut self, node: NodeId, machine: &Node, _: Instant, _: &Facts, broken: &mut Broken) {
        let newest = machine.election().newest();
        if newest.term.0 > TERM_JUMP_MAX {
            broken.note(format_args!("{node} believes {newest}"));
        }
        let books = machine.router().into_iter().flat_map(omb_cluster::routing::Router::loads);
        for load in books.filter(|load| load.assigned > LEVEL_MOST) {
            broken.note(format_args!("{node} has {} uploads in its books for {}", load.assigned, load.node));
        }
    }

    fn at_end(&mut self, _: &Outcome, facts: &Facts, broken: &mut Broken) {
        for (node, own) in &facts.nodes {
            if let Some(copy) = own.disk.copies().iter().find(|copy| facts.forged.contains(&copy.name.id)) {
                broken.note(format_args!("{node} holds {}, which no leader has ordered", copy.name));
            }
        }
    }
}
