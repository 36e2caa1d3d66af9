//! End-to-end latencies are right to within the error of the clocks between which they were taken.

use std::time::Duration;

use madsim::time::TimeHandle;
use omb_bench::{controller::Output, protocol::Command};
use omb_runtime_sim::{scenario::Scenario, truth::Truth, world::Ended};

use super::{Broken, Promise, barrier};

/// See the module.
#[derive(Debug, Default)]
pub struct Clocks {
    /// How exactly the clocks can have been known when the load was told to begin.
    at_first: Duration,
}

impl Promise for Clocks {
    fn name(&self) -> &'static str {
        "latencies between machines"
    }

    fn on_output(&mut self, output: &Output, truth: &Truth, _: &mut Broken) {
        if let Output::ToWorker { request, .. } = output
            && matches!(request.command, Command::StartLoad { .. })
        {
            self.at_first = self.at_first.max(known(TimeHandle::current().elapsed(), truth));
        }
    }

    fn at_end(&mut self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        if scenario.wild_clocks || ended.settings.names.is_empty() {
            return;
        }
        // Clock estimates only improve, except for drift: the load may begin before the best answer has arrived.
        let bound = known(ended.ended_at, truth).max(self.at_first) * 2 + FIRST;
        let wrong = |handed: &&omb_runtime_sim::truth::Handed| {
            let reported = handed.from_intended.filter(|_| !handed.bare && !handed.mark.probe);
            reported.is_some_and(|latency| Duration::from_nanos(latency.abs_diff(handed.truly)) > bound)
        };
        if let Some(handed) = truth.handed.iter().find(wrong) {
            broken.note(format_args!(
                "reported {:?}, truly {}, bound {bound:?}: {handed:?}",
                handed.from_intended, handed.truly
            ));
        }
    }
}

/// The worst over all workers, of each its best answer.
fn known(now: Duration, truth: &Truth) -> Duration {
    truth.clock_answers.values().map(|best| barrier::error(now, *best)).max().unwrap_or_default()
}

/// Additional allowance.
const FIRST: Duration = Duration::from_millis(40);
