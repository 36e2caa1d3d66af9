//! B3: the sum of the periods is the total, and the merged histograms hold exactly the workers' samples.

use std::{collections::BTreeSet, ops::RangeInclusive};

use omb_bench::{
    controller::Output,
    id::SubscriptionId,
    load::header,
    result::Report,
    stats::tally::{Arrivals, Totals},
};
use omb_runtime_sim::truth::Truth;

use super::{Broken, Promise};
use crate::oracle::differences;

/// See the module.
#[derive(Debug, Default)]
pub struct Sums {
    periods: Totals,
    count: usize,
    lost: BTreeSet<usize>,
}

impl Promise for Sums {
    fn name(&self) -> &'static str {
        "B3, periods add up"
    }

    fn on_output(&mut self, output: &Output, truth: &Truth, broken: &mut Broken) {
        match output {
            Output::Period(period) => {
                self.periods.merge(&period.totals);
                self.count += 1;
                // So far they are the sum of what was read.
                for difference in differences(&self.periods, truth, |worker| self.lost.contains(&worker)) {
                    broken.note(format_args!("the first {} periods against what was read: {difference}", self.count));
                }
            }
            Output::WorkerLost { worker, .. } => _ = self.lost.insert(worker.0 as usize),
            Output::Report(report) => self.check(report, broken),
            _ => {}
        }
    }
}

fn exactly(count: u64) -> RangeInclusive<u64> {
    count..=count
}

impl Sums {
    fn check(&self, report: &Report, broken: &mut Broken) {
        if report.periods.len() != self.count {
            broken.note(format_args!("{} periods were reported, the report has {}", self.count, report.periods.len()));
        }
        let sum = |parts: &mut dyn Iterator<Item = &Totals>| {
            let mut sum = Totals::default();
            parts.for_each(|part| sum.merge(part));
            sum
        };
        let phases = sum(&mut report.phases.iter().map(|phase| &phase.totals));
        if phases != report.whole {
            broken.note("the phases do not add up to the whole");
        }
        let measured = sum(&mut report.phases.iter().filter(|it| it.phase.counts()).map(|it| &it.totals));
        if measured != report.measured {
            broken.note("the phases that count do not add up to what was measured");
        }
        // What came after the last period is the rest; with it they make the whole.
        match report.whole.since(&self.periods) {
            Err(_) => broken.note("the periods add up to more than the whole"),
            Ok(rest) => {
                let mut again = self.periods.clone();
                again.merge(&rest);
                if again != report.whole {
                    broken.note("the periods and the rest do not add up to the whole");
                }
                if rest.departures.attempted > 0 && report.partial.is_none() {
                    broken.note(format_args!("{} messages left in no period", rest.departures.attempted));
                }
            }
        }
        let whole = &report.whole;
        // Damaged messages give no latency, and those without a header give none if they pass between clocks.
        let shared = report.plan.owners();
        let unclocked = |id: &SubscriptionId| {
            let topic = report.plan.subscriptions[id.0 as usize].topic;
            report.plan.workload.message_size < header::LEN as u32 && shared[topic.0 as usize].is_none()
        };
        let untimed: u64 = whole.seen.iter().filter(|(id, _)| unclocked(id)).map(|(_, seen)| seen.received).sum();
        // Nor do messages that are read again; some of those may be damaged or without header as well.
        let Arrivals { received, corrupted, reread, .. } = whole.arrivals;
        let timeless = corrupted + untimed;
        let least = received.saturating_sub(timeless + reread);
        let timed = least..=least + reread.min(timeless);
        let counts = [
            ("schedule errors", whole.departures.schedule_error.count(), exactly(whole.departures.attempted)),
            (
                "latencies from intended",
                whole.acknowledgements.from_intended.count(),
                exactly(whole.acknowledgements.acked),
            ),
            ("latencies from sent", whole.acknowledgements.from_sent.count(), exactly(whole.acknowledgements.acked)),
            ("arrivals from intended", whole.arrivals.from_intended.count(), timed.clone()),
            ("arrivals from sent", whole.arrivals.from_sent.count(), timed),
        ];
        for (what, samples, messages) in counts {
            if !messages.contains(&samples) {
                broken.note(format_args!("{samples} {what} of {messages:?} messages"));
            }
        }
    }
}
