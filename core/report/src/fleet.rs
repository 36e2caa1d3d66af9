//! Several workers: what each did, in figures, and in which order they are shown.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::context::insert_known;
use omb_bench::{
    config::workload::RateGoal,
    load::header,
    result::{Lost, Report, WorkerRow},
};
use omb_machine::{
    quantity::{counted, latency, per_second, rate, real, span, uppercase},
    time::nanos,
};

/// More workers than this are not shown one by one.
const SHOWN_MAX: usize = 20;

/// How many of more than [`SHOWN_MAX`] are shown.
const SHOWN_WORST: usize = 10;

/// The part of the total rate that a worker was dealt, msg/s. It keeps to it whoever else is lost.
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

/// What of it was sent, as a share; `None` if it was dealt none.
pub(super) fn achieved(report: &Report, row: &WorkerRow) -> Option<f64> {
    let dealt = dealt_rate(report, row);
    (dealt > 0.0).then(|| per_second(row.attempted, row.measured_for) / dealt)
}

/// Cores it used while it was measured, on average.
pub(super) fn cores_used(row: &WorkerRow) -> f64 {
    if row.measured_for.is_zero() { 0.0 } else { row.cpu.as_secs_f64() / row.measured_for.as_secs_f64() }
}

/// The workers to show, and whether there are others: all in their order, or of many those that lag most.
pub(super) fn shown(report: &Report) -> (Vec<&WorkerRow>, bool) {
    let mut rows: Vec<&WorkerRow> = report.workers.iter().collect();
    if rows.len() <= SHOWN_MAX {
        return (rows, false);
    }
    rows.sort_by(|a, b| {
        let share = |row| achieved(report, row).unwrap_or(1.0);
        let lost = b.lost.is_some().cmp(&a.lost.is_some());
        // To a tenth of a percent, or the edges of periods decide.
        let share = ((share(a) * 1e3).round()).total_cmp(&(share(b) * 1e3).round());
        let late = |row: &WorkerRow| (row.schedule_lag.as_millis(), row.schedule_error[1]);
        lost.then(share).then(late(b).cmp(&late(a)))
    });
    rows.truncate(SHOWN_WORST);
    (rows, true)
}

/// How far clocks may disagree, in one sentence; `None` if that is no question.
pub(super) fn clocks_sentence(report: &Report) -> Option<String> {
    if report.workers.len() < 2 || report.plan.consumers.is_empty() {
        return None;
    }
    match report.clock_error {
        // Without a header nothing is corrected, whatever is known of the clocks.
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
        let who = row.worker.named(&row.name);
        let who = uppercase(&who);
        let cause = lost.cause.trim_end_matches('.');
        if lost.detected.is_zero() {
            return format!("{who} was lost before the load began: {cause}.");
        }
        let detected = span(whole_millis(lost.detected));
        let Some(read) = lost.read else {
            return format!(
                "{who} was given up {detected} after the load began, before it had been read once: {cause}. Its {} are \
                 missing.",
                parts(report, row)
            );
        };
        // Reads go to all workers at once.
        let gap = lost.detected.saturating_sub(read);
        let silence = if gap > SILENCE_TOLD {
            " No worker was read while it was waited for, so the next period after that is longer."
        } else {
            ""
        };
        format!(
            "{who} was last read {} after the load began, and given up at {detected}: {cause}. What it had counted by \
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

/// From so much time between the last read of a worker and its loss on, a reader is told what became of the periods between.
const SILENCE_TOLD: Duration = Duration::from_millis(2_500);

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

/// The list `omb.workers`.
pub(super) fn workers_json(report: &Report) -> Value {
    report.workers.iter().map(|row| row_json(report, row)).collect()
}

fn row_json(report: &Report, row: &WorkerRow) -> Value {
    let elapsed = row.measured_for;
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    put("worker", row.worker.number().into());
    put("address", row.name.clone().into());
    put("producers", row.producers.into());
    put("consumers", row.consumers.into());
    put("measuredSeconds", elapsed.as_secs_f64().into());
    put("targetPerSecond", dealt_rate(report, row).into());
    put("sentPerSecond", per_second(row.attempted, elapsed).into());
    if let Some(share) = achieved(report, row) {
        put("sentShareOfTarget", share.into());
    }
    put("ackedPerSecond", per_second(row.acked, elapsed).into());
    put("ackedBytesPerSecond", per_second(row.acked_bytes, elapsed).into());
    put("receivedPerSecond", per_second(row.received, elapsed).into());
    put("receivedBytesPerSecond", per_second(row.received_bytes, elapsed).into());
    put("attempted", row.attempted.into());
    put("acked", row.acked.into());
    put("ackedBytes", row.acked_bytes.into());
    put("received", row.received.into());
    put("receivedBytes", row.received_bytes.into());
    put("cpuSeconds", row.cpu.as_secs_f64().into());
    put("coresUsed", cores_used(row).into());
    if row.process.cores > 0 {
        put("cores", row.process.cores.into());
    }
    put("memoryBytes", row.process.memory_bytes.into());
    put("memoryBytesMax", row.process.memory_bytes_max.into());
    put("networkReceivedBytesPerSecond", per_second(row.net_received_bytes, elapsed).into());
    put("networkSentBytesPerSecond", per_second(row.net_sent_bytes, elapsed).into());
    let [p50, p99, max] = row.schedule_error;
    // Only a whole record tells it.
    if max > 0 {
        put("scheduleError", json!({ "p50Ns": p50, "p99Ns": p99, "maxNs": max }));
    }
    put("scheduleLagNs", nanos(row.schedule_lag).into());
    if let Some(clock) = row.clock {
        let mut told = Map::new();
        // JSON knows no infinity.
        let drift = clock.drift_ppm.filter(|(drift, error)| drift.is_finite() && error.is_finite());
        told.insert("errorNs".to_owned(), nanos(clock.error).into());
        insert_known(&mut told, "driftPpm", drift.map(|(drift, _)| drift));
        insert_known(&mut told, "driftErrorPpm", drift.map(|(_, error)| error));
        told.insert("contradictions".to_owned(), clock.contradictions.into());
        put("clock", told.into());
    }
    if let Some(lost) = &row.lost {
        let mut told = Map::new();
        insert_known(&mut told, "lastReadSeconds", lost.read.map(|read| read.as_secs_f64()));
        told.insert("detectedSeconds".to_owned(), lost.detected.as_secs_f64().into());
        told.insert("cause".to_owned(), lost.cause.clone().into());
        put("lost", told.into());
    }
    map.into()
}

/// The object `omb.clocks`; `None` where there is but one clock, this machine's.
pub(super) fn clocks_json(report: &Report) -> Option<Value> {
    if report.workers.is_empty() {
        return None;
    }
    let mut map = Map::new();
    map.insert("messagesPassBetweenClocks".to_owned(), pass_between_clocks(report).into());
    insert_known(&mut map, "endToEndErrorNs", report.clock_error.map(nanos));
    insert_known(&mut map, "sentence", clocks_sentence(report));
    Some(map.into())
}
