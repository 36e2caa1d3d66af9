//! C5: in calm, the fullest and the emptiest node differ by one upload at most.

use omb_core::config::cluster::Policy;
use omb_runtime_sim::peers::{Facts, Outcome};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Level;

impl Promise for Level {
    fn name(&self) -> &'static str {
        "C5 level"
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
        let left: usize = facts.nodes.values().map(|node| node.disk.temporaries()).sum();
        if left > 0 {
            broken.note(format_args!("{left} temporary files are left over"));
        }
    }
}
