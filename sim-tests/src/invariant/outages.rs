//! The report's outages are the stretches in which no message was acknowledged: all of them that are long, and no other.

use std::time::Duration;

use omb_bench::{config::workload::RateGoal, load::silence, result::Phase};
use omb_runtime_sim::{
    scenario::Scenario,
    truth::{Truth, WorkerTruth},
    world::Ended,
};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Outages;

/// The product's own times count from each worker's beginning as the truth's do, so they differ only by rounding.
const EXACT: Duration = Duration::from_millis(1);

/// A silence that is not clearly longer than the shortest outage may or may not be one: the load's end is the
/// controller's, by its own clock, which may drift.
const CLEAR: Duration = Duration::from_millis(500);

impl Promise for Outages {
    fn name(&self) -> &'static str {
        "outages are reported, and reported right"
    }

    fn at_end(&mut self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        let Some(report) = &ended.report else { return };
        let RateGoal::Fixed(rate) = scenario.workload.rate else { return };
        // Of a lost worker the controller does not know everything; of a run cut short it lacks the last reports.
        if report.partial.is_some() || report.workers.iter().any(|row| row.lost.is_some()) {
            return;
        }
        let mut acked: Vec<Duration> = truth.workers.iter().flat_map(since_the_beginning).collect();
        acked.sort_unstable();
        let frames = report.periods.iter().filter(|period| period.phase < Phase::Stop);
        let Some(end) = frames.map(|period| period.at).next_back() else { return };
        let least = Duration::from_secs(1).max(Duration::from_secs_f64(10.0 / rate.as_f64()));
        let from = std::iter::once(Duration::ZERO).chain(acked.iter().copied());
        let gaps: Vec<(Duration, Option<Duration>)> =
            from.zip(acked.iter().copied().map(Some).chain(std::iter::once(None))).collect();
        let near = |a: Duration, b: Duration| a.abs_diff(b) <= EXACT;
        for outage in &report.outages {
            let is = |gap: &(Duration, Option<Duration>)| {
                let same_end = match (gap.1, outage.until) {
                    (Some(a), Some(b)) => near(a, b),
                    (None, None) => true,
                    _ => false,
                };
                near(gap.0, outage.from) && same_end
            };
            if !gaps.iter().any(is) {
                broken.note(format_args!("the report tells of an outage that was none: {outage:?}"));
            }
        }
        if report.outages.len() >= silence::OUTAGES_MAX {
            return;
        }
        for (from, until) in gaps {
            let long = until.unwrap_or(end).min(end).saturating_sub(from) >= least + CLEAR;
            if long && from < end && !report.outages.iter().any(|outage| near(outage.from, from)) {
                broken.note(format_args!(
                    "nothing was acknowledged from {from:?} to {until:?}, and the report is silent"
                ));
            }
        }
    }
}

/// When messages were confirmed to a worker, since message 0 was due.
fn since_the_beginning(worker: &WorkerTruth) -> Vec<Duration> {
    let Some(schedule) = worker.schedules.get(worker.first_schedule) else { return Vec::new() };
    worker.acked_at.iter().map(|at| at.since(schedule.start)).collect()
}
