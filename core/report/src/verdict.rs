//! What happened to the messages, and what a reader must know beside the numbers, as sentences.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{context::Context, fleet};
use omb_bench::{
    id::SubscriptionId,
    load::{header, silence::Silence},
    plan::sharing,
    protocol::event::Missing,
    result::{
        Drained, Found, Rebalances, Report,
        soundness::{self, awaited, confirmed, due, incomplete, target},
    },
    stats::tally::Totals,
};
use omb_machine::{
    printable::printable,
    quantity::{bytes, counted, grouped, latency, per_second, plural, rate, real, span},
};

/// What happened to the acknowledged messages, as one term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub enum Outcome {
    /// Every subscription received every one of them, intact.
    Complete,
    /// Some had every opportunity to arrive and did not.
    Lost,
    /// Some had not arrived when the wait for them ended; others still did.
    Unread,
    /// All arrived, some of them damaged.
    Corrupted,
    /// Every subscription that could be checked received every one of them; others could not be checked, since a worker
    /// was lost.
    #[serde(rename = "partly checked")]
    PartlyChecked,
    /// Not checked: there are no consumers, or the run was cut short.
    Unchecked,
    /// There was none.
    #[serde(rename = "nothing acknowledged")]
    NothingAcknowledged,
}

/// What happened to the acknowledged messages.
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

/// The headline: what happened to the acknowledged messages, with the numbers.
#[must_use]
pub fn headline(report: &Report) -> String {
    let acked = report.whole.acknowledgements.acked;
    // The rates beside it are those of the measured time alone.
    let since = if acked == report.measured.acknowledgements.acked { "" } else { " since the load began" };
    let messages = format!("{} {}", counted(acked, "message"), confirmed(report));
    match outcome(report) {
        Outcome::NothingAcknowledged => format!("Not one message was {}.", confirmed(report)),
        Outcome::Unchecked if report.plan.consumers.is_empty() => {
            format!("{messages}{since}; whether they can be read was not checked: there are no consumers.")
        }
        Outcome::Unchecked => format!(
            "{messages}{since}, {} received; whether all arrived was not checked: {}.",
            grouped(report.whole.arrivals.received),
            if report.partial.is_none() && report.verdict.unverified > 0 {
                format!("{} lost, having had a part in every subscription", soundness::lost_in_words(report))
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
                "{messages}{since}; {} received every message of theirs, {} in all: {what}.{}",
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
            let seen = report.verdict.seen();
            let once = if seen.duplicated + seen.reread == 0 { " once" } else { "" };
            if counted_only(report) {
                format!("{messages}{since}, as many received {readers}; counted, for they cannot be told apart.")
            } else {
                format!("{messages}{since}, each received{once} {readers}: {}.", nothing_but(report))
            }
        }
        Outcome::Corrupted => {
            let corrupted = report.whole.arrivals.corrupted;
            format!(
                "{messages}{since} and received, but {} arrived corrupted.{}",
                counted(corrupted, "message"),
                unverified(report)
            )
        }
        Outcome::Lost => format!(
            "{} never arrived ({}), of {} awaited: lost.{}{}",
            awaited(report, report.verdict.missing()),
            where_missing(report),
            expected(report),
            blemishes(report),
            unverified(report),
        ),
        Outcome::Unread if report.verdict.drained == Drained::TooLong => format!(
            "{} (of {} awaited) had not arrived when the wait for the last ones ended ({}); others still arrived, so \
             these count as unread, not as lost.{}{}",
            awaited(report, report.verdict.missing()),
            expected(report),
            where_missing(report),
            blemishes(report),
            unverified(report),
        ),
        Outcome::Unread => format!(
            "{} (of {} awaited) had not arrived when as many messages as were acknowledged had ({}); messages that the \
             client gave up arrived instead. They count as unread: they were not waited for.{}{}",
            awaited(report, report.verdict.missing()),
            expected(report),
            where_missing(report),
            blemishes(report),
            unverified(report),
        ),
    }
}

/// Why no end-to-end latency is reported, though messages were received; `None` if one is, or if there were none.
#[must_use]
pub fn no_end_to_end(report: &Report) -> Option<String> {
    let arrivals = &report.whole.arrivals;
    if arrivals.headerless == 0 || arrivals.from_sent.count() > 0 {
        return None;
    }
    let why = if fleet::pass_between_clocks(report) {
        "pass from one worker to another: nothing in them says by whose clock they left, so no correction for the \
         difference between clocks is possible"
    } else {
        "carry the broker's own timestamp or none: when they left by our clock is not known"
    };
    Some(format!("Messages without our header {why}. No end-to-end latency is reported."))
}

/// That subscriptions could not be checked because a lost worker had a part in them.
fn unverified(report: &Report) -> String {
    let all = report.plan.subscriptions.len() as u64;
    match report.verdict.unverified {
        0 => String::new(),
        count => format!(
            " {} of the {} could not be checked, since {} lost.",
            grouped(u64::from(count)),
            counted(all, "subscription"),
            soundness::lost_in_words(report)
        ),
    }
}

/// How many messages should have arrived, counted once for each subscription.
fn expected(report: &Report) -> String {
    let deliveries: u64 = report.verdict.subscriptions.values().map(|(_, missing)| missing.confirmed).sum();
    if deliveries == 1 { "1 delivery".to_owned() } else { format!("{} deliveries", grouped(deliveries)) }
}

/// `nothing lost, doubled, out of order or corrupted`, or which of these occurred.
fn nothing_but(report: &Report) -> String {
    let seen = report.verdict.seen();
    let troubles = [(seen.duplicated, "doubled"), (seen.reordered, "out of order")];
    let absent: Vec<&str> = troubles.iter().filter(|(count, _)| *count == 0).map(|(_, word)| *word).collect();
    let present: Vec<String> = troubles
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{} {word}", counted(*count, "message")))
        // The system did nothing wrong there.
        .chain((seen.reread > 0).then(|| format!("{} read again", counted(seen.reread, "message"))))
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
    fleet::without_header(report)
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

/// What a reader must know beside the headline, a sentence or two each, the gravest first.
///
/// `answered` is what was measured, with the answers that came later.
#[must_use]
pub fn notes(report: &Report, answered: &Totals, context: &Context) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(reason) = incomplete(report) {
        let shown = if report.partial.is_some() {
            format!(" What was measured until then, {}, is shown.", span(report.measured_for))
        } else {
            String::new()
        };
        notes.push(format!("PARTIAL: {reason}.{shown}"));
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
    notes.extend(report.unconfirmed.then(|| {
        "acks=0: the broker confirms nothing. \"Acknowledged\" means handed to the socket, and publish latency ends there; \
         what the broker stored shows only in what was received."
            .to_owned()
    }));
    notes.extend(sharing::in_words(&report.plan));
    notes.extend(search_sentence(report));
    notes.extend(backlog_sentence(report));
    if due(report) == Some(0) {
        notes.push("No message was due while it was measured: the rate is too low for so short a time.".to_owned());
    }
    notes.extend(outages(report));
    notes.extend(throttled_sentence(report));
    notes.extend(rebalanced(report));
    notes.extend(debt(report, answered));
    notes.extend(failures(report));
    notes.extend(clocks(answered));
    notes.extend(headerless(report));
    notes.extend(clamped(answered));
    notes
}

/// Outages closer together than this are reported as one: a system that stutters is not one that fails again and again.
const STUTTER: Duration = Duration::from_millis(500);

/// When nothing was acknowledged, a line each; outages that follow each other closely are reported together.
fn outages(report: &Report) -> Vec<String> {
    let seconds = |at: Duration| format!("{:.1} s", at.as_secs_f64());
    let follows = |one: &Silence, next: &Silence| one.until.is_some_and(|until| next.from < until + STUTTER);
    let confirmed = confirmed(report);
    let lines = report.outages.chunk_by(follows).filter_map(|together| {
        let (first, last) = (together.first()?, together.last()?);
        let to = last.until.map_or_else(|| "the end of the load".to_owned(), seconds);
        let why = together.iter().find_map(|outage| outage.why.as_ref());
        let why = why.map(|why| format!("; {}", printable(why))).unwrap_or_default();
        let (from, count) = (seconds(first.from), together.len());
        let hardly = if count == 1 { "No message was" } else { "Hardly any message was" };
        let often = if count == 1 { String::new() } else { format!(", with {count} silences of 1 s or more") };
        Some(format!("{hardly} {confirmed} from {from} to {to} (since the load began){often}{why}."))
    });
    lines.collect()
}

/// For how long a quota throttled some client while it was measured.
#[must_use]
pub fn throttled(report: &Report) -> Duration {
    let counting = report.periods.frames().filter(|period| period.phase.counts());
    counting.map(|period| period.throttled.min(period.elapsed)).sum()
}

/// As a phrase, `throttled by a quota of the broker for 9.1 s of 10.0 s`; `None` if for less than a hundredth.
pub(super) fn throttled_in_words(report: &Report) -> Option<String> {
    let throttled = throttled(report);
    (throttled * 100 >= report.measured_for && !throttled.is_zero()).then(|| {
        let (part, whole) = (throttled.as_secs_f64(), report.measured_for.as_secs_f64());
        format!("throttled by a quota of the broker for {part:.1} s of {whole:.1} s")
    })
}

fn throttled_sentence(report: &Report) -> Option<String> {
    let words = throttled_in_words(report)?;
    Some(format!("Clients were {words}: what was measured is the quota, as far as it is below what the broker can do."))
}

/// Which groups were rebalanced under load, and what was read again for it.
fn rebalanced(report: &Report) -> Option<String> {
    const NAMED: usize = 3;
    let reread_by = |id: &SubscriptionId| {
        let judged = report.verdict.subscriptions.get(id).map(|(seen, _)| seen.reread);
        judged.or_else(|| report.whole.seen.get(id).map(|seen| seen.reread)).unwrap_or_default()
    };
    let all = report.whole.seen.keys().chain(report.verdict.subscriptions.keys()).collect::<BTreeSet<_>>();
    let reread: u64 = all.into_iter().map(reread_by).fold(0, u64::saturating_add);
    let again = |count: u64| {
        if count == 0 { "nothing was read again".to_owned() } else { format!("{} read again", were(count, "message")) }
    };
    let left_out = if reread == 0 {
        ""
    } else {
        " Messages read again count as received, not as doubled, and their latency is left out."
    };
    let mut groups: Vec<(&SubscriptionId, &Rebalances)> = report.rebalances.iter().collect();
    if groups.is_empty() {
        return (reread > 0).then(|| format!("{} read again.{left_out}", were(reread, "message")));
    }
    groups.sort_by_key(|(id, rebalances)| std::cmp::Reverse((reread_by(id), rebalances.count)));
    let sentence = |(id, rebalances): &(&SubscriptionId, &Rebalances)| {
        let name = report.plan.subscriptions.get(id.0 as usize).map_or("unknown", |known| known.name.as_str());
        let times = if rebalances.count == 1 { String::new() } else { format!(" {} times", rebalances.count) };
        let at: Vec<String> = rebalances.at.iter().take(NAMED).map(|at| format!("{:.1}", at.as_secs_f64())).collect();
        let more = if rebalances.at.len() > NAMED { ", .." } else { "" };
        let at = if at.is_empty() { String::new() } else { format!(" (at {}{more} s of the load)", at.join(", ")) };
        format!("The group {name} rebalanced under load{times}{at}: {}.", again(reread_by(id)))
    };
    let mut sentences: Vec<String> = groups.iter().take(NAMED).map(sentence).collect();
    if let Some(rest) = groups.get(NAMED..).filter(|rest| !rest.is_empty()) {
        let count = rest.iter().map(|(id, _)| reread_by(id)).fold(0, u64::saturating_add);
        sentences.push(format!("So did {}: {}.", counted(rest.len() as u64, "other group"), again(count)));
    }
    Some(format!("{}{left_out}", sentences.join(" ")))
}

/// Why latency from the intended instant is far above that from the send.
fn debt(report: &Report, answered: &Totals) -> Option<String> {
    let answered = &answered.acknowledgements;
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
            "The target of {} msg/s was not reached ({} {}), so messages leave later and later: publish \
             latency p99 is {intended} from the intended instant but {sent} from the send. The first grows with the \
             length of the run; at the end the sender was {} behind. For a latency worth quoting take a rate that holds.",
            rate(target),
            rate(achieved),
            confirmed(report),
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
    let (acks, skipped) = (&report.whole.acknowledgements, report.whole.departures.skipped);
    if acks.refused > 0 {
        notes.push(format!(
            "{} refused by the client library itself: never sent, and stored nowhere.",
            were(acks.refused, "message")
        ));
    }
    if acks.given_up() > 0 {
        notes.push(format!(
            "{} given up by the client: whether the broker stored them is unknown.",
            were(acks.given_up(), "message")
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

fn clocks(answered: &Totals) -> Option<String> {
    let before = answered.arrivals.before_intended;
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
    if fleet::without_header(report) {
        let some = if fleet::pass_between_clocks(report) { ", and only within one worker" } else { "" };
        let latency = no_end_to_end(report).unwrap_or_else(|| {
            format!("End-to-end latency comes from the producer's timestamp, in whole milliseconds{some}.")
        });
        return Some(format!(
            "Messages of {} have no room for our header ({} B): they could only be counted, not told apart. {latency}",
            bytes(u64::from(size)),
            header::LEN,
        ));
    }
    let others = report.whole.arrivals.headerless;
    (others > 0).then(|| {
        format!("{} received without our header: something else writes to these topics.", were(others, "message"))
    })
}

fn clamped(answered: &Totals) -> Option<String> {
    let Totals { departures, acknowledgements: acks, arrivals, seen: _ } = answered;
    let publish = acks.from_intended.clamped() + acks.from_sent.clamped();
    let end_to_end = arrivals.from_intended.clamped() + arrivals.from_sent.clamped();
    let clamped = publish + departures.schedule_error.clamped() + end_to_end;
    (clamped > 0).then(|| format!("{} above one hour, and counted as one hour.", were(clamped, "latency sample")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{analysis::Analysis, fixture, result::RunResult};
    use omb_bench::{
        config::workload::{Clients, Workload},
        id::{SubscriptionId, WorkerId},
        load::silence::Silence,
        protocol::event::Problem,
        result::{BacklogTimes, Lost, Period, Phase, soundness::unsound},
        stats::latency::Latency,
    };

    fn notes(report: &Report, context: &Context) -> Vec<String> {
        Analysis::of(report, context).notes
    }

    /// The result as it is printed.
    fn table(report: &Report, context: &Context) -> String {
        crate::table::result(&RunResult::of(report, context), &[], 110)
    }

    #[test]
    fn outages_and_quotas_are_a_line_each() {
        let mut report = fixture::report();
        assert_eq!(notes(&report, &fixture::context()), [] as [String; 0]);
        let seconds = Duration::from_secs_f64;
        let why = Some("127.0.0.1:9092: nothing listens there\n".to_owned());
        report.outages = vec![
            Silence { from: seconds(12.0), until: Some(seconds(19.437)), why },
            Silence { from: seconds(22.5), until: None, why: None },
        ];
        assert_eq!(
            notes(&report, &fixture::context()),
            [
                "No message was acknowledged from 12.0 s to 19.4 s (since the load began); 127.0.0.1:9092: nothing listens \
                 there\\n.",
                "No message was acknowledged from 22.5 s to the end of the load (since the load began).",
            ]
        );
        // One that stutters is one: with pauses below half a second in between.
        let stutters = |from, until| Silence { from: seconds(from), until: Some(seconds(until)), why: None };
        report.outages =
            vec![stutters(3.9, 4.9), stutters(4.9, 5.9), stutters(6.39, 7.4), stutters(7.9, 9.0), stutters(9.6, 12.0)];
        assert_eq!(
            notes(&report, &fixture::context()),
            [
                "Hardly any message was acknowledged from 3.9 s to 7.4 s (since the load began), with 3 silences of 1 s or more.",
                "No message was acknowledged from 7.9 s to 9.0 s (since the load began).",
                "No message was acknowledged from 9.6 s to 12.0 s (since the load began).",
            ]
        );
        let held = report.periods.iter().map(|it| Period { throttled: Duration::from_millis(500), ..it });
        report = fixture::of(held.collect(), Totals::default());
        assert_eq!(throttled(&report), Duration::from_secs(12), "of the 24 s that count");
        assert!(
            notes(&report, &fixture::context())[0].contains("throttled by a quota of the broker for 12.0 s of 24.0 s")
        );
    }

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
    fn shared_clients_are_reported() {
        let mut report = fixture::report();
        report.plan = fixture::plan(Workload { topics: 40, ..fixture::workload() });
        let note = notes_of(&report);
        assert!(note.starts_with("200 producers share 20 clients"), "{note}");
        report.plan = fixture::plan(Workload { topics: 40, clients: Clients::Own, ..fixture::workload() });
        assert_eq!(notes_of(&report), "");
    }

    #[test]
    fn lost_is_distinguished_from_unread() {
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
        assert!(headline(&report).contains("the client gave up arrived instead"), "{}", headline(&report));
        report.verdict.drained = Drained::NotAwaited;
        assert_eq!(outcome(&report), Outcome::Unchecked);
    }

    #[test]
    fn the_worst_subscriptions_are_named() {
        let mut report = fixture::report();
        report.verdict.drained = Drained::Quiet;
        (0..4).for_each(|id| missing(&mut report, id, u64::from(id) + 1));
        let name = report.plan.subscriptions[3].name.clone();
        let text = headline(&report);
        assert!(text.starts_with("10 acknowledged messages") && text.contains("and 1 other"), "{text}");
        assert!(text.contains(&format!("subscriptions {name}: 4, ")), "{text}");
    }

    /// The run went on without a worker: the other workers' results are reported, and also what could not be checked.
    #[test]
    fn a_run_that_went_on_without_a_worker() {
        let mut report = fixture::fleet();
        report.workers[1].lost = Some(Lost {
            worker: WorkerId(1),
            read: Some(Duration::from_secs(11)),
            detected: Duration::from_millis(12_300),
            cause: "it fell silent".to_owned(),
        });
        report.verdict.subscriptions.retain(|id, _| id.0 < 2);
        report.verdict.unverified = 2;
        assert_eq!(serde_json::to_value(outcome(&report)).expect("JSON"), "partly checked");
        assert_eq!(
            headline(&report),
            "26,010 messages acknowledged since the load began; 2 subscriptions received every message of theirs, 26,010 \
             deliveries in all: nothing lost, doubled, out of order or corrupted. 2 of the 4 subscriptions could not be \
             checked, since worker 2 (http://10.0.0.2:8080) was lost."
        );
        assert_eq!(
            notes_of(&report),
            "PARTIAL: worker 2 (http://10.0.0.2:8080) was lost, and the run went on without.\n\
             Worker 2 (http://10.0.0.2:8080) was last read 11 s after the load began, and given up at 12.3 s: it fell \
             silent. What it had counted by then is in the totals, exactly; from then on its 500 msg/s and 2 consumers are \
             missing."
        );
        report.workers[1].lost.as_mut().expect("made up so").detected = Duration::from_secs(21);
        assert!(notes_of(&report).ends_with("is longer."), "{}", notes_of(&report));
        report.workers[1].lost.as_mut().expect("made up so").read = None;
        assert!(notes_of(&report).contains("given up 21 s after the load began, before it had been read once: it"));
        assert_eq!(unsound(&report), ["worker 2 (http://10.0.0.2:8080) was lost: it fell silent"]);

        missing(&mut report, 1, 3);
        report.verdict.drained = Drained::Quiet;
        assert_eq!(outcome(&report), Outcome::Lost, "what is known to be lost is worse than what is not known");
        assert!(
            headline(&report).ends_with(
                "lost. 2 of the 4 subscriptions could not be checked, since worker 2 (http://10.0.0.2:8080) was lost."
            ),
            "{}",
            headline(&report)
        );

        report.verdict.subscriptions.clear();
        report.verdict.unverified = 4;
        assert_eq!(outcome(&report), Outcome::Unchecked);
        assert!(headline(&report).contains("had a part in every subscription"), "{}", headline(&report));
        report.partial = Some("it fell silent".to_owned());
        assert_eq!(unsound(&report), Vec::<String>::new(), "that it is partial is reported elsewhere");
    }

    #[test]
    fn many_losses_are_counted() {
        let mut report = fixture::fleet();
        report.workers = (0..9).map(|n| fixture::row(n, format!("w{n}"))).collect();
        for row in &mut report.workers {
            row.lost = Some(Lost { worker: row.worker, cause: "no route to host".to_owned(), ..Lost::default() });
        }
        report.verdict.unverified = 1;
        assert!(
            headline(&report).ends_with("could not be checked, since 9 workers were lost."),
            "{}",
            headline(&report)
        );
        let text = notes_of(&report);
        assert!(text.starts_with("PARTIAL: 9 workers were lost, and the run went on without.\nWorker 1 (w0) was lost before the load began: no route to host.\n"), "{text}");
        assert!(text.ends_with("\n4 more workers were lost; the result file names them."), "{text}");
    }

    #[test]
    fn doubled_messages_are_no_loss_but_reported() {
        let mut report = fixture::report();
        report.verdict.subscriptions.get_mut(&SubscriptionId(0)).expect("made up so").0.duplicated = 5;
        assert_eq!(
            headline(&report),
            "26,010 messages acknowledged since the load began, each received by each of the 2 subscriptions of its \
             topic: nothing lost, out of order or corrupted, but 5 messages doubled."
        );
    }

    #[test]
    fn a_rebalance_is_named_and_what_was_read_again_counts_against_nothing() {
        let mut report = fixture::report();
        report.verdict.subscriptions.get_mut(&SubscriptionId(1)).expect("made up so").0.reread = 1_000;
        let at = |seconds: f64| Duration::from_secs_f64(seconds);
        report.rebalances.insert(SubscriptionId(1), Rebalances { count: 2, at: vec![at(12.34), at(15.0)] });
        assert_eq!(
            headline(&report),
            "26,010 messages acknowledged since the load began, each received by each of the 2 subscriptions of its \
             topic: nothing lost, doubled, out of order or corrupted, but 1,000 messages read again."
        );
        let name = report.plan.subscriptions[1].name.clone();
        let text = format!(
            "The group {name} rebalanced under load 2 times (at 12.3, 15.0 s of the load): 1,000 messages were read \
             again. Messages read again count as received, not as doubled, and their latency is left out."
        );
        assert!(notes_of(&report).contains(&text), "{}", notes_of(&report));
        assert_eq!(unsound(&report), Vec::<String>::new());
        for id in [0, 2, 3] {
            report.rebalances.insert(SubscriptionId(id), Rebalances { count: 1, at: vec![at(1.0)] });
        }
        assert!(notes_of(&report).contains(" So did 1 other group: nothing was read again."), "{}", notes_of(&report));
    }

    #[test]
    fn small_messages_are_only_counted() {
        let mut report = fixture::report();
        report.plan.workload.message_size = 16;
        assert!(headline(&report).contains("cannot be told apart"), "{}", headline(&report));
        assert!(notes_of(&report).contains("producer's timestamp, in whole milliseconds"), "{}", notes_of(&report));
    }

    /// Without a header, the travel time of a message between two clocks cannot be known.
    #[test]
    fn small_messages_between_workers_have_no_latency() {
        let mut report = fixture::fleet();
        let (run, seed) = (report.plan.run, report.plan.seed);
        let workload = omb_bench::config::workload::Workload { message_size: 16, ..report.plan.workload };
        let split = omb_bench::plan::Topology::Split { more_consumers: false };
        report.plan = omb_bench::plan::Plan::with_topology(run, seed, workload, 2, split);
        report.clock_error = Some(Duration::from_micros(513));
        for totals in [&mut report.measured, &mut report.tail, &mut report.whole] {
            totals.arrivals.headerless = totals.arrivals.received;
            (totals.arrivals.from_sent, totals.arrivals.from_intended) = (Latency::new(), Latency::new());
        }
        let text = notes_of(&report);
        assert!(text.contains("so no correction for the difference between clocks is possible"), "{text}");
        let value = serde_json::to_value(RunResult::of(&report, &fixture::context())).expect("JSON");
        let has = |key: &str| value.as_object().expect("an object").keys().any(|it| it.to_lowercase().contains(key));
        assert!(!has("endtoend"), "upstream's keys are absent");
        assert!(value["omb"]["endToEndMissing"].as_str().is_some_and(|why| why.contains("whose clock")));
        assert_eq!(value["omb"]["histograms"].get("endToEndFromSent"), None);
        assert_eq!(value["omb"]["series"].get("endToEndFromIntended"), None);
        let shown = table(&report, &fixture::context());
        assert!(!shown.contains("end-to-end, ") && !shown.contains("Clocks differ"), "{shown}");
    }

    #[test]
    fn acks_0_is_reported() {
        let mut report = fixture::report();
        report.unconfirmed = true;
        assert!(headline(&report).starts_with("26,010 messages handed to the socket since"), "{}", headline(&report));
        assert!(notes_of(&report).starts_with("acks=0: the broker confirms nothing."), "{}", notes_of(&report));
        missing(&mut report, 1, 3);
        report.verdict.drained = Drained::Quiet;
        assert_eq!(unsound(&report), ["3 messages handed to the socket never arrived"]);
        let shown = table(&report, &fixture::context());
        assert!(shown.contains("\n  handed over, from intended ") && shown.contains("\n  handed over  "), "{shown}");
        assert!(!shown.contains("publish, ") && !shown.contains("\n  acknowledged "), "{shown}");
        // Nowhere else, either: only the line that explains the word has it.
        assert!(shown.contains("1,000 of 1,000 msg/s were handed to the socket (100.0 %)"), "{shown}");
        assert_eq!(shown.to_lowercase().matches("acknowledged").count(), 1, "{shown}");
        let value = serde_json::to_value(RunResult::of(&report, &fixture::context())).expect("JSON");
        assert_eq!(value["omb"]["acknowledgedMeans"], "handed to the socket");
    }

    /// A broker that died early: most of what was sent was not delivered, so this is not the requested result.
    #[test]
    fn a_run_that_delivered_less_than_half_is_partial() {
        let mut report = fixture::report();
        let acked = report.whole.acknowledgements.acked;
        report.whole.acknowledgements.failed = acked;
        assert_eq!(incomplete(&report), None);
        report.whole.acknowledgements.failed = acked + 1;
        assert_eq!(incomplete(&report).as_deref(), Some("26,011 of 26,010 messages were not delivered"));
        assert!(notes_of(&report).starts_with("PARTIAL: 26,011"), "{}", notes_of(&report));
        let ours = &serde_json::to_value(RunResult::of(&report, &fixture::context())).expect("JSON")["omb"];
        assert_eq!((&ours["complete"], ours["partialReason"].is_string()), (&false.into(), true));
        // Most of it was never even sent: because of an outage that did not end, or because the client was too slow.
        report.whole.acknowledgements.failed = 11;
        report.whole.departures.skipped = acked - 10;
        assert_eq!(incomplete(&report), None);
        let from = Duration::from_secs(3);
        report.outages = vec![Silence { from, until: Some(Duration::from_secs(9)), why: None }];
        assert_eq!(incomplete(&report), None, "it came back, and all that was due was attempted");
        report.outages.push(Silence { from: Duration::from_secs(12), until: None, why: None });
        assert_eq!(incomplete(&report).as_deref(), Some("26,011 of 52,010 messages were not delivered"));
        report.whole.departures.skipped -= 1;
        assert_eq!(incomplete(&report), None);
    }

    #[test]
    fn refused_is_distinguished_from_given_up() {
        let mut report = fixture::report();
        (report.whole.acknowledgements.failed, report.whole.acknowledgements.refused) = (9, 9);
        assert_eq!(unsound(&report), ["9 of 26,010 messages were refused by the client itself".replace(',', "")]);
        assert_eq!(
            notes_of(&report),
            "9 messages were refused by the client library itself: never sent, and stored nowhere."
        );
        report.whole.acknowledgements.failed = 16;
        assert_eq!(unsound(&report), ["of 26010 messages 9 were refused by the client itself and 7 given up"]);
        assert!(notes_of(&report).contains("7 messages were given up by the client: whether"), "{}", notes_of(&report));
    }

    #[test]
    fn without_consumers_nothing_is_checked() {
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
        let mut report = fixture::of(periods.collect(), omb_bench::stats::tally::Totals::default());
        let text = notes_of(&report);
        assert!(text.contains("The target of 1,000 msg/s was not reached (500 acknowledged)"), "{text}");
        assert!(text.contains("p99 is 5.00 s from the intended instant"), "{text}");
        let caught_up = |period| Period { target: 500.0, schedule_lag: Duration::ZERO, ..period };
        report.periods = report.periods.iter().map(caught_up).collect();
        let text = notes_of(&report);
        assert!(text.contains("was held up for a while and caught up"), "{text}");
    }

    #[test]
    fn what_was_found_and_what_went_wrong_is_reported() {
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
