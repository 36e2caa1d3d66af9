//! Whether a result can be relied upon, and if not, why: what decides a run's exit code, and what every report says.

use crate::{
    config::workload::RateGoal,
    rate::Tempo,
    result::{Report, WorkerRow},
};
use omb_machine::quantity::{counted, grouped};

/// Why the result of a finished run is not sound, one sentence per reason; none if it is. Whether it is partial is a
/// different question.
#[must_use]
pub fn unsound(report: &Report) -> Vec<String> {
    let mut reasons = Vec::new();
    for row in &report.workers {
        if let Some(lost) = &row.lost
            && report.partial.is_none()
        {
            reasons.push(format!("{} was lost: {}", row.worker.named(&row.name), lost.cause));
        }
    }
    let corrupted = report.whole.arrivals.corrupted;
    if report.verdict.lost() > 0 {
        // A corrupted message arrived, but which one it was cannot be determined.
        let some =
            if corrupted > 0 { format!(" whole ({corrupted} messages arrived corrupted)") } else { String::new() };
        reasons.push(format!("{} never arrived{some}", awaited(report, report.verdict.lost())));
    } else if corrupted > 0 {
        reasons.push(format!("{corrupted} messages arrived corrupted"));
    }
    let acks = &report.whole.acknowledgements;
    if acks.failed > 0 && report.partial.is_none() {
        let cause = report.problems.first().map(|problem| format!(" (most often: {})", problem.what));
        let of = report.whole.departures.attempted;
        let what = match (acks.refused, acks.given_up()) {
            (0, given_up) => format!("{given_up} of {of} messages were given up"),
            (refused, 0) => format!("{refused} of {of} messages were refused by the client itself"),
            (refused, given_up) => {
                format!("of {of} messages {refused} were refused by the client itself and {given_up} given up")
            }
        };
        reasons.push(format!("{what}{}", cause.unwrap_or_default()));
    }
    if report.backlog.is_some_and(|backlog| backlog.drain.is_none()) && report.partial.is_none() {
        reasons.push("the backlog was not drained by its deadline".to_owned());
    }
    // What left at the end of a short window is answered after it, and a slow rate may have nothing in it.
    if due(report) != Some(0)
        && report.measured.acknowledgements.acked == 0
        && report.tail.acknowledgements.acked == 0
        && report.partial.is_none()
    {
        reasons.push(format!("not one message was {} while it was measured", confirmed(report)));
    }
    let seen = report.verdict.seen();
    debug_assert!(seen.distinct <= seen.received, "different messages are among those received");
    reasons
}

/// Messages that were due while it was measured; `None` if the rate was searched or the window was not known before.
#[must_use]
pub fn due(report: &Report) -> Option<u64> {
    let workload = &report.plan.workload;
    let tempo = match &workload.rate {
        RateGoal::Fixed(rate) => Tempo::Steady(*rate),
        RateGoal::Listed(_) => report.tempo.clone()?,
        RateGoal::Search => return None,
    };
    let (from, until) = (workload.warmup_duration, workload.warmup_duration + workload.test_duration);
    workload.backlog.is_none().then(|| tempo.messages_within(until) - tempo.messages_within(from))
}

/// What "acknowledged" means in this run.
#[must_use]
pub fn confirmed(report: &Report) -> &'static str {
    if report.unconfirmed { "handed to the socket" } else { "acknowledged" }
}

/// `3 acknowledged messages`, in the run's terms.
#[must_use]
pub fn awaited(report: &Report, count: u64) -> String {
    if report.unconfirmed {
        format!("{} handed to the socket", counted(count, "message"))
    } else {
        counted(count, "acknowledged message")
    }
}

/// Why this is not the result of the whole run as configured, in one line; `None` if it is.
#[must_use]
pub fn incomplete(report: &Report) -> Option<String> {
    if let Some(reason) = &report.partial {
        return Some(reason.trim_end_matches('.').to_owned());
    }
    if report.workers.iter().any(|row| row.lost.is_some()) {
        return Some(format!("{} lost, and the run went on without", lost_in_words(report)));
    }
    let (acks, departures) = (&report.whole.acknowledgements, &report.whole.departures);
    // If nothing was acknowledged until the end, what waited for room then was never even sent. (What a client has no
    // time for is another matter: it measured what it could.)
    let down = report.outages.last().is_some_and(|outage| outage.until.is_none());
    let unsent = if down { departures.skipped } else { 0 };
    let (undelivered, due) = (acks.failed.saturating_add(unsent), departures.attempted.saturating_add(unsent));
    (undelivered > acks.acked)
        .then(|| format!("{} of {} were not delivered", grouped(undelivered), counted(due, "message")))
}

/// The mean target rate while it was measured, msg/s.
#[must_use]
pub fn target(report: &Report) -> f64 {
    let counting = || report.periods.frames().filter(|period| period.phase.counts());
    let seconds: f64 = counting().map(|period| period.elapsed.as_secs_f64()).sum();
    if seconds <= 0.0 {
        return 0.0;
    }
    counting().map(|period| period.target * period.elapsed.as_secs_f64()).sum::<f64>() / seconds
}

/// The workers that were lost, and the verb: `worker 2 (http://b:8080) was`, or how many.
#[must_use]
pub fn lost_in_words(report: &Report) -> String {
    let lost: Vec<&WorkerRow> = report.workers.iter().filter(|row| row.lost.is_some()).collect();
    match lost.as_slice() {
        [] => "a worker was".to_owned(),
        [one] => format!("{} was", one.worker.named(&one.name)),
        many => format!("{} workers were", many.len()),
    }
}
