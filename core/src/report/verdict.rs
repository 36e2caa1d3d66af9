//! What came of the messages, and what a reader must know beside the numbers: in words.

use super::{
    Drained, Found, Report,
    context::Context,
    fleet,
    quantity::{bytes, counted, grouped, latency, per_second, rate, real, span},
};
use crate::{load::header, plan::partition::plural, protocol::event::Missing, stats::latency::Latency};

/// What became of the acknowledged messages, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every subscription received every one of them, intact.
    Complete,
    /// Some had every chance to arrive and did not.
    Lost,
    /// Some had not arrived when the wait for them ended; others still did.
    Unread,
    /// All arrived, some of them damaged.
    Corrupted,
    /// Every subscription that could be checked received every one of them; of others nothing can be said, since a worker
    /// was lost.
    PartlyChecked,
    /// Nobody looked: there are no consumers, or the run was cut short.
    Unchecked,
    /// There was none.
    NothingAcknowledged,
}

impl Outcome {
    /// The word that stands in the result.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Lost => "lost",
            Self::Unread => "unread",
            Self::Corrupted => "corrupted",
            Self::PartlyChecked => "partly checked",
            Self::Unchecked => "unchecked",
            Self::NothingAcknowledged => "nothing acknowledged",
        }
    }
}

impl Drained {
    /// The word that stands in the result.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completely => "completely",
            Self::Quiet => "quiet",
            Self::TooLong => "too long",
            Self::NotAwaited => "not awaited",
        }
    }
}

/// What became of the acknowledged messages.
#[must_use]
pub fn outcome(report: &Report) -> Outcome {
    let verdict = &report.verdict;
    if report.whole.acknowledgements.acked == 0 {
        Outcome::NothingAcknowledged
    } else if verdict.subscriptions.is_empty() || verdict.drained == Drained::NotAwaited {
        Outcome::Unchecked
    } else if verdict.missing() > 0 {
        if verdict.drained == Drained::Quiet { Outcome::Lost } else { Outcome::Unread }
    } else if report.whole.arrivals.corrupted > 0 {
        Outcome::Corrupted
    } else if verdict.unverified > 0 {
        Outcome::PartlyChecked
    } else {
        Outcome::Complete
    }
}

/// The headline: what became of the acknowledged messages, with their numbers.
#[must_use]
pub fn headline(report: &Report) -> String {
    let acked = report.whole.acknowledgements.acked;
    // The rates beside it are those of the measured time alone.
    let since = if acked == report.measured.acknowledgements.acked { "" } else { " since the load began" };
    let messages = counted(acked, "message");
    match outcome(report) {
        Outcome::NothingAcknowledged => "Not one message was acknowledged.".to_owned(),
        Outcome::Unchecked if report.plan.consumers.is_empty() => {
            format!("{messages} acknowledged{since}; whether they can be read was not checked: there are no consumers.")
        }
        Outcome::Unchecked => format!(
            "{messages} acknowledged{since}, {} received; whether all arrived was not checked: {}.",
            grouped(report.whole.arrivals.received),
            if report.partial.is_none() && report.verdict.unverified > 0 {
                format!("{} was lost, which had a part in every subscription", fleet::lost_in_words(report))
            } else {
                "the run ended early".to_owned()
            }
        ),
        Outcome::PartlyChecked => {
            let checked = report.verdict.subscriptions.len() as u64;
            let what = if counted_only(report) {
                "counted, for they cannot be told apart".to_owned()
            } else {
                nothing_but(report)
            };
            format!(
                "{messages} acknowledged{since}; {} received every message of theirs, {} in all: {what}.{}",
                counted(checked, "subscription"),
                expected(report),
                unverified(report)
            )
        }
        Outcome::Complete => {
            let subscriptions = report.plan.workload.subscriptions_per_topic;
            let readers = if subscriptions == 1 {
                "by the subscription of its topic".to_owned()
            } else {
                format!("by each of the {subscriptions} subscriptions of its topic")
            };
            let once = if report.verdict.seen().duplicated == 0 { " once" } else { "" };
            if counted_only(report) {
                format!(
                    "{messages} acknowledged{since}, as many received {readers}; counted, for they cannot be told apart."
                )
            } else {
                format!("{messages} acknowledged{since}, each received{once} {readers}: {}.", nothing_but(report))
            }
        }
        Outcome::Corrupted => {
            let corrupted = report.whole.arrivals.corrupted;
            format!(
                "{messages} acknowledged{since} and received, but {} arrived corrupted.{}",
                counted(corrupted, "message"),
                unverified(report)
            )
        }
        Outcome::Lost => format!(
            "{} never arrived ({}), of {} awaited: lost.{}{}",
            counted(report.verdict.missing(), "acknowledged message"),
            where_missing(report),
            expected(report),
            blemishes(report),
            unverified(report),
        ),
        Outcome::Unread if report.verdict.drained == Drained::TooLong => format!(
            "{} (of {} awaited) had not arrived when the wait for the last ones ended ({}); others still arrived, so \
             these count as unread, not as lost.{}{}",
            counted(report.verdict.missing(), "acknowledged message"),
            expected(report),
            where_missing(report),
            blemishes(report),
            unverified(report),
        ),
        Outcome::Unread => format!(
            "{} (of {} awaited) had not arrived when as many messages as were acknowledged had ({}); messages that the \
             client gave up arrived in their stead. They count as unread: they were not waited for.{}{}",
            counted(report.verdict.missing(), "acknowledged message"),
            expected(report),
            where_missing(report),
            blemishes(report),
            unverified(report),
        ),
    }
}

/// Why the result of a finished run is not sound, a sentence each; none if it is. Whether it is partial is another
/// question.
#[must_use]
pub fn unsound(report: &Report) -> Vec<String> {
    let mut reasons = Vec::new();
    for row in &report.workers {
        if let Some(lost) = &row.lost
            && report.partial.is_none()
        {
            reasons.push(format!("{} was lost: {}", fleet::name(row.worker, &row.name), lost.cause));
        }
    }
    let corrupted = report.whole.arrivals.corrupted;
    if report.verdict.lost() > 0 {
        // A corrupted message arrived, but nobody can tell which one it was.
        let some =
            if corrupted > 0 { format!(" whole ({corrupted} messages arrived corrupted)") } else { String::new() };
        reasons.push(format!("{} acknowledged messages never arrived{some}", report.verdict.lost()));
    } else if corrupted > 0 {
        reasons.push(format!("{corrupted} messages arrived corrupted"));
    }
    if report.whole.acknowledgements.failed > 0 && report.partial.is_none() {
        let (failed, sent) = (report.whole.acknowledgements.failed, report.whole.departures.attempted);
        let cause = report.problems.first().map(|problem| format!(" (most often: {})", problem.what));
        reasons.push(format!("{failed} of {sent} messages were given up{}", cause.unwrap_or_default()));
    }
    if report.backlog.is_some_and(|backlog| backlog.drain.is_none()) && report.partial.is_none() {
        reasons.push("the backlog was not drained by its deadline".to_owned());
    }
    if report.measured.acknowledgements.acked == 0 && report.partial.is_none() {
        reasons.push("not one message was acknowledged while it was measured".to_owned());
    }
    let seen = report.verdict.seen();
    debug_assert!(seen.distinct <= seen.received, "different messages are among those received");
    reasons
}

/// What cannot be said of subscriptions that a lost worker had a part in.
fn unverified(report: &Report) -> String {
    let all = report.plan.subscriptions.len() as u64;
    match report.verdict.unverified {
        0 => String::new(),
        count => format!(
            " Of {} of the {} nothing can be said, since {} was lost.",
            grouped(u64::from(count)),
            counted(all, "subscription"),
            fleet::lost_in_words(report)
        ),
    }
}

/// How many messages should have arrived, counted once for each subscription.
fn expected(report: &Report) -> String {
    let deliveries: u64 = report.verdict.subscriptions.values().map(|(_, missing)| missing.confirmed).sum();
    if deliveries == 1 { "1 delivery".to_owned() } else { format!("{} deliveries", grouped(deliveries)) }
}

/// `nothing lost, doubled, out of order or corrupted`, or what of it is not so.
fn nothing_but(report: &Report) -> String {
    let seen = report.verdict.seen();
    let troubles = [(seen.duplicated, "doubled"), (seen.reordered, "out of order")];
    let absent: Vec<&str> = troubles.iter().filter(|(count, _)| *count == 0).map(|(_, word)| *word).collect();
    let present: Vec<String> = troubles
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{} {word}", counted(*count, "message")))
        .collect();
    let list = ["lost"].into_iter().chain(absent).chain(["corrupted"]).collect::<Vec<_>>();
    let (last, others) = list.split_last().expect("two words stand in it always");
    let nothing = format!("nothing {} or {last}", others.join(", "));
    if present.is_empty() { nothing } else { format!("{nothing}, but {}", present.join(" and ")) }
}

/// What else is wrong with a run that already misses messages.
fn blemishes(report: &Report) -> String {
    let seen = report.verdict.seen();
    let corrupted = report.whole.arrivals.corrupted;
    let parts: Vec<String> = [(seen.duplicated, "doubled"), (seen.reordered, "out of order"), (corrupted, "corrupted")]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{} {word}", grouped(*count)))
        .collect();
    if parts.is_empty() { String::new() } else { format!(" Besides: {}.", parts.join(", ")) }
}

/// The subscriptions that miss something, the worst first.
fn where_missing(report: &Report) -> String {
    const NAMED: usize = 3;
    let mut missing: Vec<(u64, &str)> = report
        .verdict
        .subscriptions
        .iter()
        .filter(|(_, (_, missing))| missing.missing > 0)
        .map(|(id, (_, missing))| {
            let name = report.plan.subscriptions.get(id.0 as usize).map_or("unknown", |known| known.name.as_str());
            (missing.missing, name)
        })
        .collect();
    missing.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    let named: Vec<String> =
        missing.iter().take(NAMED).map(|(count, name)| format!("{name}: {}", grouped(*count))).collect();
    let rest = missing.len().saturating_sub(NAMED);
    let others = if rest == 0 { String::new() } else { format!(", and {rest} other{}", plural(rest)) };
    format!("subscription{} {}{others}", plural(missing.len()), named.join(", "))
}

/// Whether the messages could only be counted: they have no header.
fn counted_only(report: &Report) -> bool {
    report.plan.workload.message_size < header::LEN as u32
        || report.verdict.subscriptions.values().any(|(_, missing): &(_, Missing)| missing.by_count_only)
}

/// What a search found, in one sentence; `None` if there was none.
#[must_use]
pub fn search_sentence(report: &Report) -> Option<String> {
    let found = report.found?;
    let interval = match found.failed_at {
        Some(failed) => format!("the highest rate lies between {} and {} msg/s", grouped(found.rate), grouped(failed)),
        None => "no rate that was tried failed".to_owned(),
    };
    Some(format!(
        "Highest rate that holds: {} msg/s ({interval}; {} trial{}). {}",
        grouped(found.rate),
        found.trials,
        plural(found.trials as usize),
        search_criterion(),
    ))
}

/// When a rate counts as holding.
#[must_use]
pub fn search_criterion() -> String {
    format!(
        "A rate holds if at least {:.0} % of it is acknowledged and the unread messages grow by at most {:.0} % of what \
         is sent.",
        Found::ACHIEVED_MIN * 100.0,
        Found::GROWTH_MAX * 100.0,
    )
}

/// How the backlog built up and drained, in one sentence; `None` if there was none.
#[must_use]
pub fn backlog_sentence(report: &Report) -> Option<String> {
    let times = report.backlog?;
    if times.built_messages == 0 {
        return Some(format!("The backlog of {} was not built up.", bytes(times.asked_bytes)));
    }
    let built = times.built_messages * u64::from(report.plan.workload.message_size);
    let drained = match times.drain {
        Some(took) => format!("drained in {}", span(took)),
        None => "not drained by its deadline".to_owned(),
    };
    Some(format!(
        "Backlog: {} ({}) built up in {}, {drained}.",
        counted(times.built_messages, "message"),
        bytes(built),
        span(times.fill),
    ))
}

/// The mean rate that was asked for while it was measured, msg/s.
#[must_use]
pub fn target(report: &Report) -> f64 {
    let counting = || report.periods.frames().filter(|period| period.phase.counts());
    let seconds: f64 = counting().map(|period| period.elapsed.as_secs_f64()).sum();
    if seconds <= 0.0 {
        return 0.0;
    }
    counting().map(|period| period.target * period.elapsed.as_secs_f64()).sum::<f64>() / seconds
}

/// What a reader must know beside the headline, a sentence or two each, the gravest first.
#[must_use]
pub fn notes(report: &Report, context: &Context) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(reason) = &report.partial {
        notes.push(format!(
            "PARTIAL: {}. What was measured until then, {}, is shown.",
            reason.trim_end_matches('.'),
            span(report.measured_for)
        ));
    }
    notes.extend(fleet::losses(report));
    if context.embedded() {
        let place = if report.workers.is_empty() {
            "EMBEDDED BROKER, LOOPBACK: in memory and in this process".to_owned()
        } else {
            format!("EMBEDDED BROKER, in memory: {}", report.system)
        };
        notes.push(format!("{place}. For trying and testing, not for quoting."));
    }
    notes.extend(search_sentence(report));
    notes.extend(backlog_sentence(report));
    notes.extend(debt(report));
    notes.extend(failures(report));
    notes.extend(clocks(report));
    notes.extend(headerless(report));
    notes.extend(clamped(report));
    notes
}

/// Why latency from the intended instant is far above that from the send.
fn debt(report: &Report) -> Option<String> {
    let answered = &report.answered().acknowledgements;
    let (intended, sent) = (answered.from_intended.at(0.99), answered.from_sent.at(0.99));
    if intended <= 1_000_000_000 || intended / 10 <= sent {
        return None;
    }
    let (intended, sent) = (latency(real(intended)), latency(real(sent)));
    let target = target(report);
    let achieved = per_second(report.measured.acknowledgements.acked, report.measured_for);
    let last = report.periods.frames().rfind(|period| period.phase.counts());
    let behind = last.map(|period| period.schedule_lag).unwrap_or_default();
    if achieved < 0.99 * target || behind.as_millis() > 500 {
        return Some(format!(
            "The target of {} msg/s was not reached ({} acknowledged), so messages leave later and later: publish \
             latency p99 is {intended} from the intended instant but {sent} from the send. The first grows with the \
             length of the run; at the end the sender was {} behind. For a latency worth quoting take a rate that holds.",
            rate(target),
            rate(achieved),
            span(behind),
        ));
    }
    Some(format!(
        "The sender was held up for a while and caught up: publish latency p99 is {intended} from the intended instant \
         but {sent} from the send.",
    ))
}

fn failures(report: &Report) -> Vec<String> {
    let mut notes = Vec::new();
    let (failed, skipped) = (report.whole.acknowledgements.failed, report.whole.departures.skipped);
    if failed > 0 {
        notes.push(format!(
            "{} given up by the client: whether the broker stored them is unknown.",
            were(failed, "message")
        ));
    }
    if skipped > 0 {
        notes.push(format!(
            "{} never sent: they were too late for `catchUp`, or due when the rate changed or the load ended.",
            were(skipped, "message")
        ));
    }
    notes.extend(report.problems.iter().map(|problem| format!("{} × {}", grouped(problem.count), problem.what)));
    notes
}

fn were(count: u64, noun: &str) -> String {
    format!("{} {}", counted(count, noun), if count == 1 { "was" } else { "were" })
}

fn clocks(report: &Report) -> Option<String> {
    let before = report.answered().arrivals.before_intended;
    (before > 0).then(|| {
        let (they, counted) = if before == 1 { ("it was", "It is counted") } else { ("they were", "They are counted") };
        format!(
            "{} received at or before the instant {they} meant to leave: the clocks disagree, and end-to-end latency is \
             off by as much. {counted} as 0.",
            were(before, "message")
        )
    })
}

fn headerless(report: &Report) -> Option<String> {
    let size = report.plan.workload.message_size;
    if size < header::LEN as u32 {
        return Some(format!(
            "Messages of {} have no room for our header ({} B): end-to-end latency comes from the broker's timestamp, in \
             whole milliseconds, and messages could only be counted, not told apart.",
            bytes(u64::from(size)),
            header::LEN,
        ));
    }
    let others = report.whole.arrivals.headerless;
    (others > 0).then(|| {
        format!("{} received without our header: somebody else writes to these topics.", were(others, "message"))
    })
}

fn clamped(report: &Report) -> Option<String> {
    let answered = report.answered();
    let clamped: u64 = latencies(&answered).iter().map(|(_, _, latency)| latency.clamped()).sum();
    (clamped > 0).then(|| format!("{} above one hour, and counted as one hour.", were(clamped, "latency sample")))
}

/// The five latencies: key in the result, name in a table, samples.
#[must_use]
pub fn latencies(totals: &crate::stats::tally::Totals) -> [(&'static str, &'static str, &Latency); 5] {
    let (departures, acks, arrivals) = (&totals.departures, &totals.acknowledgements, &totals.arrivals);
    [
        ("publishFromIntended", "publish, from intended", &acks.from_intended),
        ("publishFromSent", "publish, from sent", &acks.from_sent),
        ("scheduleError", "schedule error", &departures.schedule_error),
        ("endToEndFromIntended", "end-to-end, from intended", &arrivals.from_intended),
        ("endToEndFromSent", "end-to-end, from sent", &arrivals.from_sent),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        id::{SubscriptionId, WorkerId},
        protocol::event::Problem,
        report::{BacklogTimes, Lost, Period, Phase, fixture},
    };

    fn missing(report: &mut Report, subscription: u32, count: u64) {
        report.verdict.subscriptions.get_mut(&SubscriptionId(subscription)).expect("made up so").1.missing = count;
    }

    /// The notes, without which there are none for a sound run on a real system.
    fn notes_of(report: &Report) -> String {
        notes(report, &fixture::context()).join("\n")
    }

    #[test]
    fn a_sound_run_needs_no_notes() {
        let report = fixture::report();
        assert_eq!(outcome(&report), Outcome::Complete);
        assert_eq!(notes_of(&report), "");
    }

    #[test]
    fn lost_is_told_apart_from_unread() {
        let mut report = fixture::report();
        missing(&mut report, 1, 3);
        let name = report.plan.subscriptions[1].name.clone();
        report.verdict.drained = Drained::Quiet;
        assert_eq!(outcome(&report), Outcome::Lost);
        assert_eq!(
            headline(&report),
            format!(
                "3 acknowledged messages never arrived (subscription {name}: 3), of 52,020 deliveries awaited: lost."
            )
        );
        report.verdict.drained = Drained::TooLong;
        assert_eq!(outcome(&report), Outcome::Unread);
        assert!(headline(&report).contains("count as unread, not as lost"), "{}", headline(&report));
        report.verdict.drained = Drained::Completely;
        assert_eq!(outcome(&report), Outcome::Unread);
        assert!(headline(&report).contains("the client gave up arrived in their stead"), "{}", headline(&report));
        report.verdict.drained = Drained::NotAwaited;
        assert_eq!(outcome(&report), Outcome::Unchecked);
    }

    #[test]
    fn the_worst_subscriptions_are_named() {
        let mut report = fixture::report();
        report.verdict.drained = Drained::Quiet;
        (0..4).for_each(|id| missing(&mut report, id, u64::from(id) + 1));
        let name = report.plan.subscriptions[3].name.clone();
        let said = headline(&report);
        assert!(said.starts_with("10 acknowledged messages") && said.contains("and 1 other"), "{said}");
        assert!(said.contains(&format!("subscriptions {name}: 4, ")), "{said}");
    }

    /// The run went on without a worker: what is said of the others is said, and what cannot be said too.
    #[test]
    fn a_run_that_went_on_without_a_worker() {
        let mut report = fixture::fleet();
        report.workers[1].lost = Some(Lost {
            worker: WorkerId(1),
            after: Duration::from_millis(12_300),
            cause: "it fell silent".to_owned(),
        });
        report.verdict.subscriptions.retain(|id, _| id.0 < 2);
        report.verdict.unverified = 2;
        assert_eq!(outcome(&report).as_str(), "partly checked");
        assert_eq!(
            headline(&report),
            "26,010 messages acknowledged since the load began; 2 subscriptions received every message of theirs, 26,010 \
             deliveries in all: nothing lost, doubled, out of order or corrupted. Of 2 of the 4 subscriptions nothing can \
             be said, since worker 2 (http://10.0.0.2:8080) was lost."
        );
        assert_eq!(
            notes_of(&report),
            "Worker 2 (http://10.0.0.2:8080) was lost 12.3 s after the load began: it fell silent. What it had counted when \
             it was last read is in the totals, exactly; from then on its 500 msg/s and 2 consumers are missing."
        );
        assert_eq!(unsound(&report), ["worker 2 (http://10.0.0.2:8080) was lost: it fell silent"]);

        missing(&mut report, 1, 3);
        report.verdict.drained = Drained::Quiet;
        assert_eq!(outcome(&report), Outcome::Lost, "what is known to be lost is worse than what is not known");
        assert!(
            headline(&report).ends_with(
                "lost. Of 2 of the 4 subscriptions nothing can be said, since worker 2 (http://10.0.0.2:8080) was lost."
            ),
            "{}",
            headline(&report)
        );

        report.verdict.subscriptions.clear();
        report.verdict.unverified = 4;
        assert_eq!(outcome(&report), Outcome::Unchecked);
        assert!(headline(&report).contains("had a part in every subscription"), "{}", headline(&report));
        report.partial = Some("it fell silent".to_owned());
        assert_eq!(unsound(&report), Vec::<String>::new(), "that it is partial is told elsewhere");
    }

    #[test]
    fn many_losses_are_counted() {
        let mut report = fixture::fleet();
        report.workers = (0..9).map(|n| fixture::row(n, format!("w{n}"))).collect();
        for row in &mut report.workers {
            row.lost = Some(Lost { worker: row.worker, after: Duration::ZERO, cause: "no route to host".to_owned() });
        }
        let said = notes_of(&report);
        assert!(said.starts_with("Worker 1 (w0) was lost before the load began: no route to host.\n"), "{said}");
        assert!(said.ends_with("\n4 more workers were lost; the result file names them."), "{said}");
    }

    #[test]
    fn doubled_messages_are_no_loss_but_said() {
        let mut report = fixture::report();
        report.verdict.subscriptions.get_mut(&SubscriptionId(0)).expect("made up so").0.duplicated = 5;
        assert_eq!(
            headline(&report),
            "26,010 messages acknowledged since the load began, each received by each of the 2 subscriptions of its \
             topic: nothing lost, out of order or corrupted, but 5 messages doubled."
        );
    }

    #[test]
    fn small_messages_are_only_counted() {
        let mut report = fixture::report();
        report.plan.workload.message_size = 16;
        assert!(headline(&report).contains("cannot be told apart"), "{}", headline(&report));
        assert!(notes_of(&report).contains("broker's timestamp, in whole milliseconds"), "{}", notes_of(&report));
    }

    #[test]
    fn nobody_reads() {
        let mut report = fixture::report();
        report.plan.consumers.clear();
        report.verdict.subscriptions.clear();
        assert!(headline(&report).contains("there are no consumers"), "{}", headline(&report));
    }

    /// The target is 1,000 msg/s, half of it is acknowledged: the debt grows.
    #[test]
    fn a_debt_that_grows_is_explained() {
        let periods = (0..10).map(|n| {
            let mut totals = fixture::totals(500, n);
            totals.acknowledgements.from_intended = Latency::new();
            (0..500).for_each(|_| totals.acknowledgements.from_intended.record((n + 1) * 500_000_000));
            let mut period = fixture::period(Phase::Measure, n, totals);
            period.schedule_lag = Duration::from_millis(500 * (n + 1));
            period
        });
        let mut report = fixture::of(periods.collect(), crate::stats::tally::Totals::default());
        let said = notes_of(&report);
        assert!(said.contains("The target of 1,000 msg/s was not reached (500 acknowledged)"), "{said}");
        assert!(said.contains("p99 is 5.00 s from the intended instant"), "{said}");
        let caught_up = |period| Period { target: 500.0, schedule_lag: Duration::ZERO, ..period };
        report.periods = report.periods.iter().map(caught_up).collect();
        let said = notes_of(&report);
        assert!(said.contains("was held up for a while and caught up"), "{said}");
    }

    #[test]
    fn what_was_found_and_what_went_wrong_is_said() {
        let mut report = fixture::report();
        report.found = Some(Found { rate: 125_000, failed_at: Some(130_000), trials: 11 });
        report.backlog = Some(BacklogTimes {
            asked_bytes: 1 << 30,
            built_messages: 1_048_576,
            fill: Duration::from_millis(12_340),
            drain: None,
        });
        report.partial = Some("worker 0 does not answer".to_owned());
        report.whole.acknowledgements.failed = 7;
        report.measured.arrivals.before_intended = 1;
        report.problems = vec![Problem { what: "Local: Message timed out".to_owned(), count: 7 }];
        assert_eq!(
            notes_of(&report),
            "PARTIAL: worker 0 does not answer. What was measured until then, 24 s, is shown.\n\
             Highest rate that holds: 125,000 msg/s (the highest rate lies between 125,000 and 130,000 msg/s; 11 \
             trials). A rate holds if at least 95 % of it is acknowledged and the unread messages grow by at most 5 % of \
             what is sent.\n\
             Backlog: 1,048,576 messages (1.07 GB) built up in 12.3 s, not drained by its deadline.\n\
             7 messages were given up by the client: whether the broker stored them is unknown.\n\
             7 × Local: Message timed out\n\
             1 message was received at or before the instant it was meant to leave: the clocks disagree, and end-to-end \
             latency is off by as much. It is counted as 0."
        );
    }
}
