//! End-to-end latencies are right to within the error of the clocks between which they were taken.

use std::time::Duration;

use omb_runtime_sim::{scenario::Scenario, truth::Truth, world::Ended};

use super::{Broken, Promise, barrier};

/// See the module.
#[derive(Debug, Default)]
pub struct Clocks;

impl Promise for Clocks {
    fn name(&self) -> &'static str {
        "latencies between machines"
    }

    fn at_end(&mut self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        if scenario.wild_clocks || ended.settings.names.is_empty() {
            return;
        }
        // The first answers come before the load; how exactly clocks are known only gets better, but for drift.
        let error = truth.clock_answers.values().map(|best| barrier::error(ended.ended_at, *best)).max();
        let bound = error.unwrap_or_default() * 2 + FIRST;
        let wrong = |handed: &&omb_runtime_sim::truth::Handed| {
            let told = handed.from_intended.filter(|_| !handed.bare && !handed.mark.probe);
            told.is_some_and(|told| Duration::from_nanos(told.abs_diff(handed.truly)) > bound)
        };
        if let Some(handed) = truth.handed.iter().find(wrong) {
            broken.note(format_args!(
                "told {:?}, truly {}, bound {bound:?}: {handed:?}",
                handed.from_intended, handed.truly
            ));
        }
    }
}

/// The best answer of all may have come after the first messages.
const FIRST: Duration = Duration::from_millis(40);
