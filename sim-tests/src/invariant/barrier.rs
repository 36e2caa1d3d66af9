//! All workers of a fleet begin at one instant, as exactly as the answers about their clocks allow.

use std::{collections::BTreeMap, time::Duration};

use omb_bench::{controller::Output, protocol::Command};
use omb_runtime_sim::{scenario::Scenario, truth::Truth, world::Ended};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Barrier {
    /// By worker, how exactly its clock can have been known when it was told to begin.
    known: BTreeMap<u32, Duration>,
}

/// How fast two clocks may drift apart: each by 100 ppm.
const APART: f64 = 200e-6;
/// Allowance for an estimate that is not the best one.
const SLACK: Duration = Duration::from_millis(1);

/// How exactly a clock can be known at `now` from an answer that took `took`: half of that, since the split between the
/// ways there and back is unknown; and the drift since.
#[must_use]
pub fn error(now: Duration, (took, at): (Duration, Duration)) -> Duration {
    took / 2 + (now.saturating_sub(at) + took).mul_f64(APART) + SLACK
}

impl Promise for Barrier {
    fn name(&self) -> &'static str {
        "all begin at once"
    }

    fn on_output(&mut self, output: &Output, truth: &Truth, broken: &mut Broken) {
        if let Output::ToWorker { worker, request, .. } = output
            && matches!(request.command, Command::StartLoad { .. })
            && truth.workers.len() > 1
        {
            let now = madsim::time::TimeHandle::current().elapsed();
            match truth.clock_answers.get(&worker.0) {
                Some(best) => _ = self.known.entry(worker.0).or_insert(error(now, *best)),
                None => broken.note(format_args!("{worker} is told to begin, but its clock never answered")),
            }
        }
    }

    fn at_end(&mut self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        if scenario.wild_clocks || ended.settings.names.is_empty() {
            return;
        }
        let begun: Vec<(u32, i64)> = (0..)
            .zip(&truth.workers)
            .filter_map(|(worker, mine)| Some((worker, mine.schedules.first()?.truly)))
            .collect();
        for (nth, (one, at)) in begun.iter().enumerate() {
            for (other, then) in &begun[..nth] {
                let (Some(a), Some(b)) = (self.known.get(one), self.known.get(other)) else { continue };
                let apart = Duration::from_nanos(at.abs_diff(*then));
                if apart > *a + *b {
                    broken.note(format_args!(
                        "workers {one} and {other} begin {apart:?} apart; their clocks are known to within {a:?} and {b:?}"
                    ));
                }
            }
        }
    }
}
