//! The report against what truly happened.

use std::{collections::BTreeMap, fmt::Display};

use omb_bench::{
    id::SubscriptionId,
    stats::{
        latency::Latency,
        tally::{Seen, Totals},
    },
};
use omb_runtime_sim::truth::{Counts, Reported, Truth};

/// Combinations of reads that are tried before a comparison is given up.
const COMBINATIONS_MAX: u32 = 1 << 12;

/// A description of every number in `reported` that differs from the one in `truth`; none if `reported` is the sum of
/// the workers' last reads that reached the controller. For workers in `doubtful` the read before the last one is
/// accepted too: the last one may have arrived when it was no longer used.
#[must_use]
pub fn differences(reported: &Totals, truth: &Truth, doubtful: impl Fn(usize) -> bool) -> Vec<String> {
    let doubted: Vec<usize> = (0..truth.workers.len()).filter(|worker| doubtful(*worker)).collect();
    let combinations = 1_u32.checked_shl(u32::try_from(doubted.len()).unwrap_or(32)).unwrap_or(u32::MAX);
    let mut best: Option<Vec<String>> = None;
    for combination in 0..combinations.min(COMBINATIONS_MAX) {
        let before = |worker: usize| {
            let place = doubted.iter().position(|doubted| *doubted == worker);
            place.map_or(0, |place| (combination >> place & 1) as usize)
        };
        let reads: Vec<(usize, &Reported)> =
            truth.workers.iter().enumerate().filter_map(|(nth, it)| Some((nth, it.reported(before(nth))?))).collect();
        let mut counts = Counts::default();
        reads.iter().for_each(|(_, read)| counts.merge(&read.counts));
        let mut found = numbers(reported, &counts);
        if found.is_empty() {
            found = samples(reported, truth, &reads);
        }
        if found.is_empty() {
            return found;
        }
        if best.as_ref().is_none_or(|best| best.len() > found.len()) {
            best = Some(found);
        }
    }
    best.unwrap_or_default()
}

fn numbers(reported: &Totals, truth: &Counts) -> Vec<String> {
    let mut found = Vec::new();
    let mut number = |what: &str, reported: u64, truth: u64| {
        if reported != truth {
            found.push(format!("{what}: reported {reported}, in truth {truth}"));
        }
    };
    let Totals { departures, acknowledgements, arrivals, seen } = reported;
    number("attempted", departures.attempted, truth.attempted);
    number("skipped", departures.skipped, truth.skipped);
    number("acked", acknowledgements.acked, truth.acked);
    number("acked bytes", acknowledgements.acked_bytes, truth.acked_bytes);
    number("failed", acknowledgements.failed, truth.failed);
    number("received", arrivals.received, truth.received);
    number("received bytes", arrivals.received_bytes, truth.received_bytes);
    number("read again", arrivals.reread, truth.reread);
    number("corrupted", arrivals.corrupted, truth.corrupted);
    number("without header", arrivals.headerless, truth.headerless);
    // For a worker that was lost before it was first read under load not even the zeros are known.
    let some = |seen: &BTreeMap<SubscriptionId, Seen>| {
        seen.iter().filter(|(_, seen)| **seen != Seen::default()).map(|(id, seen)| (*id, *seen)).collect::<Vec<_>>()
    };
    if some(seen) != some(&truth.seen) {
        found.push(format!("subscriptions saw {seen:?}, in truth {:?}", truth.seen));
    }
    found
}

/// The same samples in both, to the bucket.
fn samples(reported: &Totals, truth: &Truth, reads: &[(usize, &Reported)]) -> Vec<String> {
    let histograms = [
        ("schedule error", &reported.departures.schedule_error),
        ("acked from intended", &reported.acknowledgements.from_intended),
        ("acked from sent", &reported.acknowledgements.from_sent),
        ("received from intended", &reported.arrivals.from_intended),
    ];
    let mut found = Vec::new();
    for (nth, (what, reported)) in histograms.into_iter().enumerate() {
        let mut true_one = Latency::new();
        for (worker, read) in reads {
            let (from, to) = read.samples[nth];
            let all = &truth.workers[*worker].samples;
            let counts = |at: usize| nth > 0 || read.intended_before.is_none_or(|end| all.intended[at] < end);
            let samples = (from..to).filter(|at| counts(*at)).map(|at| all.all()[nth][at]);
            samples.for_each(|sample| true_one.record(sample));
        }
        found.extend(unlike(what, reported, &true_one));
    }
    found
}

fn unlike(what: impl Display, reported: &Latency, truth: &Latency) -> Option<String> {
    if reported.count() != truth.count() {
        return Some(format!("{what}: reported {} samples, in truth {}", reported.count(), truth.count()));
    }
    let (reported, truth) = (reported.histogram(), truth.histogram());
    (reported != truth).then(|| {
        format!(
            "{what}: other samples, reported p50 {} max {}, in truth p50 {} max {}",
            reported.value_at_quantile(0.5),
            reported.max(),
            truth.value_at_quantile(0.5),
            truth.max()
        )
    })
}
