//! Several workers: the figures of each, and the order in which they are shown.

use std::time::Duration;

use omb_bench::{
    config::workload::RateGoal,
    load::header,
    result::{Lost, Report, WorkerRow},
};
use omb_machine::{
    quantity::{counted, latency, per_second, rate, real, span, uppercase},
    time::nanos,
};

/// A worker's share of the total rate, msg/s. It stays the same when other workers are lost.
pub(super) fn dealt_rate(report: &Report, row: &WorkerRow) -> f64 {
    let total = match &report.plan.workload.rate {
        RateGoal::Fixed(total) => total.as_f64(),
        RateGoal::Search => report.found.map_or(0.0, |found| real(found.rate)),
        RateGoal::Listed(_) => {
            let from = report.plan.workload.warmup_duration;
            report.tempo.as_ref().map_or(0.0, |tempo| tempo.mean(from, from + report.plan.workload.test_duration))
        }
    };
    total * f64::from(row.producers) / real((report.plan.producers.len() as u64).max(1))
}

/// The share of it that was sent; `None` if it was assigned none.
pub(super) fn achieved(report: &Report, row: &WorkerRow) -> Option<f64> {
    let dealt = dealt_rate(report, row);
    (dealt > 0.0).then(|| per_second(row.attempted, row.measured_for) / dealt)
}

/// Cores it used while it was measured, on average.
pub(super) fn cores_used(row: &WorkerRow) -> f64 {
    if row.measured_for.is_zero() { 0.0 } else { row.cpu.as_secs_f64() / row.measured_for.as_secs_f64() }
}

/// How far clocks may disagree, in one sentence; `None` if that does not matter.
pub(super) fn clocks_sentence(report: &Report) -> Option<String> {
    if report.workers.len() < 2 || report.plan.consumers.is_empty() {
        return None;
    }
    match report.clock_error {
        // Without a header nothing is corrected, even if the clocks are known.
        _ if without_header(report) && pass_between_clocks(report) => None,
        Some(error) => Some(format!(
            "Clocks differ by at most ±{}: end-to-end latencies between workers are right to within that.",
            latency(real(nanos(error)))
        )),
        None if pass_between_clocks(report) => None,
        None => Some(
            "Every message is sent and received by one worker, so by one clock: end-to-end latencies need no clocks that \
             agree."
                .to_owned(),
        ),
    }
}

/// Whether messages are too small for the header.
pub(super) fn without_header(report: &Report) -> bool {
    report.plan.workload.message_size < header::LEN as u32
}

/// Whether messages are sent by one worker and received by another.
pub(super) fn pass_between_clocks(report: &Report) -> bool {
    let plan = &report.plan;
    plan.workers > 1 && !plan.consumers.is_empty() && plan.owners().contains(&None)
}

/// When and why workers were lost, a sentence each, the first ones named.
pub(super) fn losses(report: &Report) -> Vec<String> {
    const NAMED: usize = 5;
    let lost: Vec<(&WorkerRow, &Lost)> =
        report.workers.iter().filter_map(|row| Some((row, row.lost.as_ref()?))).collect();
    let sentence = |(row, lost): &(&WorkerRow, &Lost)| {
        let name = uppercase(&row.worker.named(&row.name));
        let cause = lost.cause.trim_end_matches('.');
        if lost.detected.is_zero() {
            return format!("{name} was lost before the load began: {cause}.");
        }
        let detected = span(whole_millis(lost.detected));
        let Some(read) = lost.read else {
            return format!(
                "{name} was given up {detected} after the load began, before it had been read once: {cause}. Its {} are \
                 missing.",
                parts(report, row)
            );
        };
        // Reads go to all workers at the same time.
        let gap = lost.detected.saturating_sub(read);
        let silence = if gap > GAP_EXPLAINED {
            " No worker was read while it was waited for, so the next period after that is longer."
        } else {
            ""
        };
        format!(
            "{name} was last read {} after the load began, and given up at {detected}: {cause}. What it had counted by \
             then is in the totals, exactly; from then on its {} are missing.{silence}",
            span(whole_millis(read)),
            parts(report, row)
        )
    };
    let mut sentences: Vec<String> = lost.iter().take(NAMED).map(sentence).collect();
    if lost.len() > NAMED {
        sentences.push(format!("{} more workers were lost; the result file names them.", lost.len() - NAMED));
    }
    sentences
}

/// If at least this much time lies between the last read of a worker and its loss, the periods in between are
/// explained.
const GAP_EXPLAINED: Duration = Duration::from_millis(2_500);

/// `333 msg/s and 3 consumers`.
fn parts(report: &Report, row: &WorkerRow) -> String {
    let mut parts = Vec::new();
    if row.producers > 0 {
        parts.push(format!("{} msg/s", rate(dealt_rate(report, row))));
    }
    if row.consumers > 0 {
        parts.push(counted(u64::from(row.consumers), "consumer"));
    }
    if parts.is_empty() { "counts".to_owned() } else { parts.join(" and ") }
}

fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
