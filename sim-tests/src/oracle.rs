//! The report against what truly happened.

use std::fmt::Display;

use omb_core::stats::{latency::Latency, tally::Totals};
use omb_runtime_sim::truth::Counts;

/// Every number in `told` that is not the one in `truth`, in words.
#[must_use]
pub fn differences(told: &Totals, truth: &Counts) -> Vec<String> {
    let mut found = Differences(Vec::new());
    let Totals { departures, acknowledgements, arrivals, seen } = told;
    found.number("attempted", departures.attempted, truth.attempted);
    found.number("skipped", departures.skipped, truth.skipped);
    found.number("acked", acknowledgements.acked, truth.acked);
    found.number("acked bytes", acknowledgements.acked_bytes, truth.acked_bytes);
    found.number("failed", acknowledgements.failed, truth.failed);
    found.number("received", arrivals.received, truth.received);
    found.number("received bytes", arrivals.received_bytes, truth.received_bytes);
    found.number("corrupted", arrivals.corrupted, truth.corrupted);
    found.number("without header", arrivals.headerless, truth.headerless);
    found.samples("schedule error", &departures.schedule_error, &truth.schedule_error);
    found.samples("acked from intended", &acknowledgements.from_intended, &truth.acked_from_intended);
    found.samples("acked from sent", &acknowledgements.from_sent, &truth.acked_from_sent);
    found.samples("received from intended", &arrivals.from_intended, &truth.received_from_intended);
    if *seen != truth.seen {
        found.0.push(format!("subscriptions saw {seen:?}, in truth {:?}", truth.seen));
    }
    found.0
}

struct Differences(Vec<String>);

impl Differences {
    fn number(&mut self, what: &str, told: impl PartialEq + Display, truth: impl PartialEq + Display + Copy)
    where
        u64: From<u64>,
    {
        let (told, truth) = (told.to_string(), truth.to_string());
        if told != truth {
            self.0.push(format!("{what}: told {told}, in truth {truth}"));
        }
    }

    /// The same samples in both, to the bucket.
    fn samples(&mut self, what: &str, told: &Latency, truth: &Latency) {
        if told.count() != truth.count() {
            self.0.push(format!("{what}: told {} samples, in truth {}", told.count(), truth.count()));
        } else if told.histogram() != truth.histogram() {
            let (told, truth) = (told.histogram(), truth.histogram());
            self.0.push(format!(
                "{what}: other samples, told p50 {} max {}, in truth p50 {} max {}",
                told.value_at_quantile(0.5),
                told.max(),
                truth.value_at_quantile(0.5),
                truth.max()
            ));
        }
    }
}
