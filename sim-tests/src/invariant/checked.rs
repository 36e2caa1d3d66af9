//! A problem that any worker's check finds ends the run before anything is created.

use omb_bench::{
    controller::{End, Output},
    result::Phase,
};
use omb_runtime_sim::{scenario::Scenario, truth::Truth, world::Ended};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Checked {
    found: bool,
}

impl Promise for Checked {
    fn name(&self) -> &'static str {
        "what a check finds is heeded"
    }

    fn on_output(&mut self, output: &Output, truth: &Truth, broken: &mut Broken) {
        self.found |= truth.workers.iter().any(|worker| worker.in_the_way);
        if *output == Output::Entered(Phase::CreateTopics) && self.found {
            broken.note("a worker found something in the way, and yet topics are created");
        }
    }

    fn at_end(&mut self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        self.found |= truth.workers.iter().any(|worker| worker.in_the_way);
        if self.found && matches!(ended.end, Some(End::Sound | End::Unsound(_))) {
            broken.note(format_args!("a worker found something in the way, and yet it ended {:?}", ended.end));
        }
        if scenario.knobs.copies > 1 && !truth.attempts.is_empty() {
            broken.note("topics that the broker refuses were sent to");
        }
    }
}
