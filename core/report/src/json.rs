//! The result file: every key of upstream's in upstream's meaning and order, and one object with ours.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{
    context::{Context, ResultFormat, insert_known, plan_json},
    fleet,
    histogram::{self, millis, quantile_map, whole_micros},
    limit,
    verdict::{self, latencies},
};
use omb_bench::{
    config::workload::RateGoal,
    load::silence::Silence,
    result::{Period, Phase, Report, soundness},
    stats::{
        latency::{DIGITS, HIGHEST, Latency},
        tally::Totals,
    },
};
use omb_machine::{
    printable::printable,
    quantity::{per_second, real, rfc3339},
    time::WallTime,
};

/// Version of the object `omb`. It grows when a key changes its meaning or goes, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// Length of an entry of upstream's lists.
const WINDOW: Duration = Duration::from_secs(10);

/// Subscriptions that are listed one by one; beyond, only those that miss or doubled something, or were rebalanced, are.
const SUBSCRIPTIONS_LISTED: usize = 100;

/// The percentiles in upstream's keys.
const PERCENTILES: [(&str, f64); 6] =
    [("50pct", 0.5), ("75pct", 0.75), ("95pct", 0.95), ("99pct", 0.99), ("999pct", 0.999), ("9999pct", 0.9999)];

/// One result. It holds no null and no NaN; what is unknown or does not apply is left out.
#[must_use]
pub fn result(report: &Report, context: &Context) -> Value {
    let ours_too = context.format == ResultFormat::Omb;
    let (mut windows, mut series) = (Windows::new(Window::of), Series::new(report.periods.len()));
    for period in report.periods.iter() {
        windows.add(&period);
        if ours_too {
            series.add(&period);
        }
    }
    let mut map = upstream(report, &windows.end(&report.tail));
    if ours_too {
        map.insert("omb".to_owned(), ours(report, context, series));
    }
    map.into()
}

/// Some periods together.
struct Stretch {
    elapsed: Duration,
    totals: Totals,
    unread: u64,
}

impl Stretch {
    fn join(&mut self, elapsed: Duration, totals: &Totals, unread: u64) {
        self.elapsed += elapsed;
        self.totals.merge(totals);
        self.unread = unread;
    }
}

/// The periods that count, in stretches of 10 s, of which only figures are kept. A rest below half of that joins the
/// stretch before it, so the last two are held whole until what follows them is known.
struct Windows<T> {
    /// What is kept of a stretch.
    reduce: fn(&Stretch) -> T,
    closed: Vec<T>,
    before: Option<Stretch>,
    open: Option<Stretch>,
}

impl<T> Windows<T> {
    fn new(reduce: fn(&Stretch) -> T) -> Self {
        Self { reduce, closed: Vec::new(), before: None, open: None }
    }

    fn add(&mut self, period: &Period) {
        if !period.phase.counts() {
            return;
        }
        let mut stretch = self.open.take().unwrap_or_else(|| Stretch {
            elapsed: Duration::ZERO,
            totals: Totals::default(),
            unread: 0,
        });
        stretch.join(period.elapsed, &period.totals, period.unread);
        // Half a period's tolerance: ten periods of 0.9999 s are a window.
        if stretch.elapsed + period.elapsed / 2 < WINDOW {
            self.open = Some(stretch);
        } else {
            let before = self.before.replace(stretch);
            self.closed.extend(before.as_ref().map(self.reduce));
        }
    }

    /// What was answered after the producers had stopped belongs to the last one's latencies, as to the totals', and to
    /// nobody's counts. Never empty: without a period there is one window, in which nothing happened.
    fn end(mut self, tail: &Totals) -> Vec<T> {
        let mut last = match (self.before, self.open) {
            (Some(mut before), Some(rest)) if rest.elapsed < WINDOW / 2 => {
                before.join(rest.elapsed, &rest.totals, rest.unread);
                before
            }
            (Some(before), Some(rest)) => {
                self.closed.push((self.reduce)(&before));
                rest
            }
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Stretch { elapsed: Duration::ZERO, totals: Totals::default(), unread: 0 },
        };
        last.totals.departures.schedule_error.merge(&tail.departures.schedule_error);
        last.totals.acknowledgements.from_sent.merge(&tail.acknowledgements.from_sent);
        last.totals.arrivals.from_sent.merge(&tail.arrivals.from_sent);
        self.closed.push((self.reduce)(&last));
        self.closed
    }
}

/// An entry of upstream's lists: what is written of a stretch.
struct Window {
    publish_rate: f64,
    publish_error_rate: f64,
    consume_rate: f64,
    backlog: u64,
    publish: Figures,
    delay: Figures,
    end_to_end: Figures,
}

impl Window {
    fn of(stretch: &Stretch) -> Self {
        let Stretch { elapsed, totals, unread } = stretch;
        Self {
            publish_rate: per_second(totals.acknowledgements.acked, *elapsed),
            publish_error_rate: per_second(totals.acknowledgements.failed, *elapsed),
            consume_rate: per_second(totals.arrivals.received, *elapsed),
            backlog: *unread,
            publish: figures(publish(totals), MILLIS),
            delay: figures(delay(totals), MICROS),
            end_to_end: figures(end_to_end(totals), MILLIS),
        }
    }
}

fn publish(totals: &Totals) -> &Latency {
    &totals.acknowledgements.from_sent
}

fn delay(totals: &Totals) -> &Latency {
    &totals.departures.schedule_error
}

fn end_to_end(totals: &Totals) -> &Latency {
    &totals.arrivals.from_sent
}

/// How a latency's numbers are written: average and value.
#[derive(Clone, Copy)]
struct Unit {
    mean: fn(f64) -> f64,
    value: fn(u64) -> Value,
}

const MILLIS: Unit = Unit { mean: |nanos| nanos / 1e6, value: |nanos| millis(nanos).into() };
/// Whole microseconds; only the average has a fraction.
const MICROS: Unit = Unit { mean: |nanos| nanos / 1e3, value: |nanos| whole_micros(nanos).into() };

/// `…Avg`, `…50pct` to `…9999pct` and `…Max`, each a function of a histogram.
type Figures = Vec<(&'static str, Value)>;

fn figures(latency: &Latency, unit: Unit) -> Figures {
    let mut figures = vec![("Avg", Value::from((unit.mean)(latency.mean())))];
    figures.extend(PERCENTILES.iter().map(|(key, quantile)| (*key, (unit.value)(latency.at(*quantile)))));
    figures.push(("Max", (unit.value)(latency.max())));
    figures
}

fn put_lists(map: &mut Map<String, Value>, key: &str, windows: &[Window], of: fn(&Window) -> &Figures) {
    for window in windows {
        for (figure, value) in of(window) {
            let list = map.entry(format!("{key}{figure}")).or_insert_with(|| Value::Array(Vec::new()));
            list.as_array_mut().expect("only lists stand under these keys").push(value.clone());
        }
    }
}

fn put_scalars(map: &mut Map<String, Value>, key: &str, latency: &Latency, unit: Unit) {
    map.extend(figures(latency, unit).into_iter().map(|(figure, value)| (format!("{key}{figure}"), value)));
}

/// Upstream's keys, in upstream's order.
fn upstream(report: &Report, windows: &[Window]) -> Map<String, Value> {
    let workload = &report.plan.workload;
    let answered = report.answered();
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    put("workload", workload.name.clone().into());
    put("driver", report.driver.clone().into());
    put("messageSize", workload.message_size.into());
    put("topics", workload.topics.into());
    put("partitions", workload.partitions_per_topic.into());
    put("producersPerTopic", workload.producers_per_topic.into());
    put("consumersPerTopic", workload.consumers_per_subscription.into());
    put("publishRate", windows.iter().map(|window| window.publish_rate).collect());
    put("publishErrorRate", windows.iter().map(|window| window.publish_error_rate).collect());
    put("consumeRate", windows.iter().map(|window| window.consume_rate).collect());
    put("backlog", windows.iter().map(|window| window.backlog).collect());
    put_lists(&mut map, "publishLatency", windows, |window| &window.publish);
    put_lists(&mut map, "publishDelayLatency", windows, |window| &window.delay);
    put_scalars(&mut map, "aggregatedPublishLatency", publish(&answered), MILLIS);
    put_scalars(&mut map, "aggregatedPublishDelayLatency", delay(&answered), MICROS);
    let quantiles = |latency: &Latency, unit: Unit| quantile_map(latency.histogram(), unit.value).into();
    map.insert("aggregatedPublishLatencyQuantiles".to_owned(), quantiles(publish(&answered), MILLIS));
    map.insert("aggregatedPublishDelayLatencyQuantiles".to_owned(), quantiles(delay(&answered), MICROS));
    // A figure that nobody can know is not written, not even as 0.
    if verdict::no_end_to_end(report).is_some() {
        return map;
    }
    put_lists(&mut map, "endToEndLatency", windows, |window| &window.end_to_end);
    map.insert("aggregatedEndToEndLatencyQuantiles".to_owned(), quantiles(end_to_end(&answered), MILLIS));
    put_scalars(&mut map, "aggregatedEndToEndLatency", end_to_end(&answered), MILLIS);
    map
}

/// The object `omb`.
fn ours(report: &Report, context: &Context, series: Series) -> Value {
    let plan = &report.plan;
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    put("schemaVersion", SCHEMA_VERSION.into());
    put("tool", context.tool_json());
    put("host", context.host_json());
    put("run", plan.run.to_string().into());
    put("seed", plan.seed.0.into());
    let end = report.periods.frames().last().map_or(report.started, |period| period.wall);
    let time = |given: &Option<String>, measured: WallTime| given.clone().unwrap_or_else(|| rfc3339(measured));
    put("started", time(&context.started, report.started).into());
    put("loadStarted", rfc3339(report.started).into());
    put("ended", time(&context.ended, end).into());
    let incomplete = soundness::incomplete(report);
    put("complete", incomplete.is_none().into());
    if let Some(reason) = incomplete {
        put("partialReason", reason.into());
    }
    put("system", report.system.clone().into());
    put("embedded", context.embedded().into());
    put("workload", plan.workload.resolved());
    put("driver", context.driver.resolved());
    if !context.ignored.is_empty() {
        put("ignored", json!(context.ignored));
    }
    put("plan", plan_json(plan));
    put("acknowledgedMeans", soundness::confirmed(report).into());
    put("verdict", verdict_json(report, context));
    put("notes", verdict::notes(report, context).into());
    put("rates", rates_json(report));
    put("client", client_json(report));
    if !report.workers.is_empty() {
        put("workers", fleet::workers_json(report));
    }
    if let Some(clocks) = fleet::clocks_json(report) {
        put("clocks", clocks);
    }
    if let Some(search) = search_json(report) {
        put("search", search);
    }
    if let Some(backlog) = backlog_json(report) {
        put("backlog", backlog);
    }
    put(
        "problems",
        report.problems.iter().map(|problem| json!({ "what": problem.what, "count": problem.count })).collect(),
    );
    if !report.outages.is_empty() {
        put("outages", report.outages.iter().map(outage_json).collect());
    }
    put("totals", totals_json(report));
    put(
        "phases",
        report.phases.iter().map(|sum| phase_json(sum.phase, sum.elapsed, &sum.totals)).collect::<Vec<_>>().into(),
    );
    let untold = verdict::no_end_to_end(report);
    put("series", series.into_json(untold.is_some()));
    put("histograms", histograms_json(&report.answered(), untold.is_some()));
    if let Some(why) = untold {
        put("endToEndMissing", why.into());
    }
    map.into()
}

/// Times since the load began; without an end it went on until the load's.
fn outage_json(outage: &Silence) -> Value {
    let mut told = json!({ "fromSeconds": outage.from.as_secs_f64() });
    if let Some(until) = outage.until {
        told["untilSeconds"] = until.as_secs_f64().into();
    }
    if let Some(why) = &outage.why {
        told["cause"] = printable(why).into();
    }
    told
}

fn verdict_json(report: &Report, context: &Context) -> Value {
    let (verdict, arrivals) = (&report.verdict, &report.whole.arrivals);
    let seen = verdict.seen();
    let all = verdict.subscriptions.len() <= SUBSCRIPTIONS_LISTED;
    let subscriptions: Vec<Value> = verdict
        .subscriptions
        .iter()
        .filter(|(id, (seen, missing))| {
            let blemishes = missing.missing + seen.duplicated + seen.reread + seen.reordered;
            all || blemishes > 0 || report.rebalances.contains_key(id)
        })
        .take(10 * SUBSCRIPTIONS_LISTED)
        .map(|(id, (seen, missing))| {
            let known = report.plan.subscriptions.get(id.0 as usize);
            let rebalances = report.rebalances.get(id).cloned().unwrap_or_default();
            json!({
                "subscription": id.0,
                "name": known.map_or("", |known| known.name.as_str()),
                "topic": known.map_or(0, |known| known.topic.0),
                "confirmed": missing.confirmed,
                "received": seen.received,
                "distinct": seen.distinct,
                "missing": missing.missing,
                "duplicated": seen.duplicated,
                "reread": seen.reread,
                "reordered": seen.reordered,
                "rebalances": rebalances.count,
                "rebalancedAtSeconds": rebalances.at.iter().map(Duration::as_secs_f64).collect::<Vec<_>>(),
                "byCountOnly": missing.by_count_only,
            })
        })
        .collect();
    let confirmed: u64 = verdict.subscriptions.values().map(|(_, missing)| missing.confirmed).sum();
    let mut judged = json!({
        "outcome": verdict::outcome(report).as_str(),
        "sentence": verdict::headline(report),
        "drained": verdict.drained.as_str(),
        "confirmedOverSubscriptions": confirmed,
        "missing": verdict.missing(),
        "lost": verdict.lost(),
        "received": seen.received,
        "distinct": seen.distinct,
        "duplicated": seen.duplicated,
        "reread": seen.reread,
        "reordered": seen.reordered,
        "rebalances": report.rebalances.values().map(|it| it.count).fold(0, u64::saturating_add),
        "corrupted": arrivals.corrupted,
        "headerless": arrivals.headerless,
        "beforeIntended": arrivals.before_intended,
        "throttledSeconds": verdict::throttled(report).as_secs_f64(),
        "subscriptionsInAll": verdict.subscriptions.len(),
        "subscriptionsUnverified": verdict.unverified,
        "subscriptions": subscriptions,
    });
    if let Some(limit) = limit::limit(report, context) {
        judged["limit"] = limit.side.as_str().into();
        judged["limitReason"] = limit.reason.into();
        judged["limitWorkers"] = limit.workers.into_iter().map(|worker| worker.number()).collect();
    }
    judged
}

/// Messages that were sent: what the client itself refused was not.
pub(super) fn sent(totals: &Totals) -> u64 {
    totals.departures.attempted.saturating_sub(totals.acknowledgements.refused)
}

/// Means over what was measured.
fn rates_json(report: &Report) -> Value {
    let (measured, elapsed) = (&report.measured, report.measured_for);
    let size = u64::from(report.plan.workload.message_size);
    json!({
        "measuredSeconds": elapsed.as_secs_f64(),
        "targetPerSecond": soundness::target(report),
        "targetIsOfSearch": report.plan.workload.rate == RateGoal::Search,
        "sentPerSecond": per_second(sent(measured), elapsed),
        "sentBytesPerSecond": per_second(sent(measured) * size, elapsed),
        "ackedPerSecond": per_second(measured.acknowledgements.acked, elapsed),
        "ackedBytesPerSecond": per_second(measured.acknowledgements.acked_bytes, elapsed),
        "failedPerSecond": per_second(measured.acknowledgements.failed, elapsed),
        "refusedPerSecond": per_second(measured.acknowledgements.refused, elapsed),
        "givenUpPerSecond": per_second(measured.acknowledgements.given_up(), elapsed),
        "receivedPerSecond": per_second(measured.arrivals.received, elapsed),
        "receivedBytesPerSecond": per_second(measured.arrivals.received_bytes, elapsed),
    })
}

/// What the benchmark itself used. With the embedded broker its CPU is not in it, but its memory is.
fn client_json(report: &Report) -> Value {
    let mut map = Map::new();
    map.insert("cpuSeconds".to_owned(), report.client_cpu.as_secs_f64().into());
    insert_known(&mut map, "cpuNsPerAckedMessage", cpu_per_message(report));
    map.insert("processCpuSecondsInAll".to_owned(), report.process.cpu.as_secs_f64().into());
    map.insert("brokerCpuSecondsInAll".to_owned(), report.process.broker_cpu.as_secs_f64().into());
    map.insert("memoryBytes".to_owned(), report.process.memory_bytes.into());
    map.insert("memoryBytesMax".to_owned(), report.process.memory_bytes_max.into());
    map.into()
}

/// CPU nanoseconds of the client for each message acknowledged while it was measured, its receiving included.
#[must_use]
pub fn cpu_per_message(report: &Report) -> Option<f64> {
    let acked = report.measured.acknowledgements.acked;
    (acked > 0).then(|| report.client_cpu.as_secs_f64() * 1e9 / real(acked))
}

fn search_json(report: &Report) -> Option<Value> {
    let found = report.found?;
    let mut map = Map::new();
    map.insert("ratePerSecond".to_owned(), found.rate.into());
    insert_known(&mut map, "failedAtPerSecond", found.failed_at);
    map.insert("trials".to_owned(), found.trials.into());
    map.insert("criterion".to_owned(), verdict::search_criterion().into());
    insert_known(&mut map, "sentence", verdict::search_sentence(report));
    Some(map.into())
}

fn backlog_json(report: &Report) -> Option<Value> {
    let times = report.backlog?;
    let mut map = Map::new();
    map.insert("askedBytes".to_owned(), times.asked_bytes.into());
    map.insert("builtMessages".to_owned(), times.built_messages.into());
    map.insert("fillSeconds".to_owned(), times.fill.as_secs_f64().into());
    insert_known(&mut map, "drainSeconds", times.drain.map(|drain| drain.as_secs_f64()));
    map.insert("drained".to_owned(), times.drain.is_some().into());
    insert_known(&mut map, "sentence", verdict::backlog_sentence(report));
    Some(map.into())
}

fn totals_json(report: &Report) -> Value {
    json!({
        "measured": counts_json(&report.measured),
        "afterwards": counts_json(&report.tail),
        "sinceLoadBegan": counts_json(&report.whole),
    })
}

/// The counts of some totals, without their latencies.
pub(super) fn counts_json(totals: &Totals) -> Value {
    let (departures, acks, arrivals) = (&totals.departures, &totals.acknowledgements, &totals.arrivals);
    json!({
        "attempted": departures.attempted,
        "skipped": departures.skipped,
        "acked": acks.acked,
        "ackedBytes": acks.acked_bytes,
        "failed": acks.failed,
        "refused": acks.refused,
        "givenUp": acks.given_up(),
        "received": arrivals.received,
        "receivedBytes": arrivals.received_bytes,
        "reread": arrivals.reread,
        "corrupted": arrivals.corrupted,
        "headerless": arrivals.headerless,
        "beforeIntended": arrivals.before_intended,
    })
}

fn phase_json(phase: Phase, elapsed: Duration, totals: &Totals) -> Value {
    json!({
        "phase": phase.to_string(),
        "counts": phase.counts(),
        "elapsedSeconds": elapsed.as_secs_f64(),
        "totals": counts_json(totals),
    })
}

/// A key, and how to read what stands under it.
type Column<T, V> = (&'static str, fn(&T) -> V);

/// The metrics of a period.
const METRICS: [Column<Period, Value>; 21] = [
    ("phase", |p| p.phase.to_string().into()),
    ("counts", |p| p.phase.counts().into()),
    ("atSeconds", |p| p.at.as_secs_f64().into()),
    ("elapsedSeconds", |p| p.elapsed.as_secs_f64().into()),
    ("unixNs", |p| p.wall.0.into()),
    ("targetPerSecond", |p| p.target.into()),
    ("attempted", |p| p.totals.departures.attempted.into()),
    ("skipped", |p| p.totals.departures.skipped.into()),
    ("acked", |p| p.totals.acknowledgements.acked.into()),
    ("failed", |p| p.totals.acknowledgements.failed.into()),
    ("refused", |p| p.totals.acknowledgements.refused.into()),
    ("received", |p| p.totals.arrivals.received.into()),
    ("reread", |p| p.totals.arrivals.reread.into()),
    ("corrupted", |p| p.totals.arrivals.corrupted.into()),
    ("rebalances", |p| p.rebalances.into()),
    ("unread", |p| p.unread.into()),
    ("inFlight", |p| p.in_flight.into()),
    ("scheduleLagNs", |p| omb_machine::time::nanos(p.schedule_lag).into()),
    ("throttledSeconds", |p| p.throttled.as_secs_f64().into()),
    ("processCpuSeconds", |p| p.process.cpu.as_secs_f64().into()),
    ("memoryBytes", |p| p.process.memory_bytes.into()),
];

/// What is told of each latency of a period.
const FIGURES: [Column<Latency, u64>; 5] = [
    ("count", Latency::count),
    ("p50Ns", |latency| latency.at(0.5)),
    ("p99Ns", |latency| latency.at(0.99)),
    ("p999Ns", |latency| latency.at(0.999)),
    ("maxNs", Latency::max),
];

/// An array per metric, all of one length: one entry per period of every phase, the ones that count marked.
struct Series {
    metrics: [Vec<Value>; METRICS.len()],
    /// By latency, in the order of [`latencies`].
    latencies: [[Vec<u64>; FIGURES.len()]; 5],
}

impl Series {
    fn new(periods: usize) -> Self {
        Self {
            metrics: std::array::from_fn(|_| Vec::with_capacity(periods)),
            latencies: std::array::from_fn(|_| std::array::from_fn(|_| Vec::with_capacity(periods))),
        }
    }

    fn add(&mut self, period: &Period) {
        for (list, (_, of)) in self.metrics.iter_mut().zip(METRICS) {
            list.push(of(period));
        }
        for (lists, (_, _, latency)) in self.latencies.iter_mut().zip(latencies(&period.totals)) {
            for (list, (_, figure)) in lists.iter_mut().zip(FIGURES) {
                list.push(figure(latency));
            }
        }
    }

    fn into_json(self, without_end_to_end: bool) -> Value {
        let mut map: Map<String, Value> =
            METRICS.iter().zip(self.metrics).map(|((key, _), list)| ((*key).to_owned(), list.into())).collect();
        for ((key, _, _), lists) in latencies(&Totals::default()).into_iter().zip(self.latencies) {
            if without_end_to_end && is_end_to_end(key) {
                continue;
            }
            let figures = FIGURES.iter().zip(lists).map(|((figure, _), list)| ((*figure).to_owned(), list.into()));
            map.insert(key.to_owned(), Value::Object(figures.collect()));
        }
        map.into()
    }
}

fn is_end_to_end(key: &str) -> bool {
    key.starts_with("endToEnd")
}

fn histograms_json(totals: &Totals, without_end_to_end: bool) -> Value {
    let mut map = Map::new();
    map.insert("encoding".to_owned(), histogram::ENCODING.into());
    map.insert("unit".to_owned(), "ns".into());
    map.insert("significantDigits".to_owned(), DIGITS.into());
    map.insert("highestNs".to_owned(), HIGHEST.into());
    let told = latencies(totals).into_iter().filter(|(key, _, _)| !(without_end_to_end && is_end_to_end(key)));
    map.extend(told.map(|(key, _, latency)| (key.to_owned(), histogram::to_json(latency))));
    map.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fixture;
    use omb_bench::{config::workload, id::WorkerId, result::Lost};
    use omb_machine::config::Leniency;

    /// What may stand under one of upstream's keys.
    #[derive(Clone, Copy, Debug)]
    enum Kind {
        Text,
        Int,
        Float,
        Ints,
        Floats,
        FloatMap,
        IntMap,
    }

    impl Kind {
        fn fits(self, value: &Value) -> bool {
            let all = |fits: fn(&Value) -> bool| {
                value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(fits))
            };
            let map = |fits: fn(&Value) -> bool| value.as_object().is_some_and(|map| map.values().all(fits));
            match self {
                Self::Text => value.is_string(),
                Self::Int => value.is_u64(),
                Self::Float => value.is_f64(),
                Self::Ints => all(Value::is_u64),
                Self::Floats => all(Value::is_f64),
                Self::FloatMap => map(Value::is_f64),
                Self::IntMap => map(Value::is_u64),
            }
        }
    }

    /// Every key of upstream's result, in its order.
    fn upstreams_keys() -> Vec<(String, Kind)> {
        use Kind::*;
        let mut keys: Vec<(String, Kind)> = [
            ("workload", Text),
            ("driver", Text),
            ("messageSize", Int),
            ("topics", Int),
            ("partitions", Int),
            ("producersPerTopic", Int),
            ("consumersPerTopic", Int),
            ("publishRate", Floats),
            ("publishErrorRate", Floats),
            ("consumeRate", Floats),
            ("backlog", Ints),
        ]
        .map(|(key, kind)| (key.to_owned(), kind))
        .into();
        let mut figures = |prefix: &str, mean: Kind, value: Kind| {
            for figure in ["Avg", "50pct", "75pct", "95pct", "99pct", "999pct", "9999pct", "Max"] {
                keys.push((format!("{prefix}{figure}"), if figure == "Avg" { mean } else { value }));
            }
        };
        figures("publishLatency", Floats, Floats);
        figures("publishDelayLatency", Floats, Ints);
        figures("aggregatedPublishLatency", Float, Float);
        figures("aggregatedPublishDelayLatency", Float, Int);
        keys.push(("aggregatedPublishLatencyQuantiles".to_owned(), FloatMap));
        keys.push(("aggregatedPublishDelayLatencyQuantiles".to_owned(), IntMap));
        let mut figures = |prefix: &str, kind: Kind| {
            for figure in ["Avg", "50pct", "75pct", "95pct", "99pct", "999pct", "9999pct", "Max"] {
                keys.push((format!("{prefix}{figure}"), kind));
            }
        };
        figures("endToEndLatency", Floats);
        keys.push(("aggregatedEndToEndLatencyQuantiles".to_owned(), FloatMap));
        let mut figures = |prefix: &str, kind: Kind| {
            for figure in ["Avg", "50pct", "75pct", "95pct", "99pct", "999pct", "9999pct", "Max"] {
                keys.push((format!("{prefix}{figure}"), kind));
            }
        };
        figures("aggregatedEndToEndLatency", Float);
        keys
    }

    #[track_caller]
    fn holds_no_null(value: &Value, at: &str) {
        match value {
            Value::Null => panic!("null at {at}"),
            Value::Array(list) => list.iter().for_each(|value| holds_no_null(value, at)),
            Value::Object(map) => map.iter().for_each(|(key, value)| holds_no_null(value, &format!("{at}.{key}"))),
            _ => {}
        }
    }

    #[track_caller]
    fn fits_upstream(value: &Value) {
        let map = value.as_object().expect("an object");
        let ours: Vec<&str> = map.keys().map(String::as_str).filter(|key| *key != "omb").collect();
        let keys = upstreams_keys();
        assert_eq!(ours, keys.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>());
        for (key, kind) in &keys {
            assert!(kind.fits(&map[key]), "{key} is no {kind:?}: {}", map[key]);
        }
        let lengths: Vec<usize> = map.values().filter_map(Value::as_array).map(Vec::len).collect();
        assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
    }

    #[test]
    fn upstreams_keys_are_all_there_with_their_types() {
        let value = result(&fixture::report(), &fixture::context());
        fits_upstream(&value);
        holds_no_null(&value, "");
        // 24 s: two windows of 10 s, and a rest of 4 s that joins the second.
        assert_eq!(value["publishRate"].as_array().map(Vec::len), Some(2));
        assert_eq!((&value["publishRate"][1], &value["consumeRate"][0]), (&json!(1_000.0), &json!(2_000.0)));
        assert_eq!(value["consumersPerTopic"], json!(1), "consumers per subscription, as upstream says it");
    }

    #[test]
    fn a_run_that_measured_nothing_still_makes_a_valid_result() {
        let mut report = fixture::of(Vec::new(), Totals::default());
        report.partial = Some("interrupted by the user".to_owned());
        let value = result(&report, &fixture::context());
        fits_upstream(&value);
        holds_no_null(&value, "");
        assert_eq!(value["publishRate"], json!([0.0]));
        assert_eq!(value["omb"]["partialReason"], "interrupted by the user");
    }

    #[test]
    fn upstreams_format_has_nothing_of_ours() {
        let mut context = fixture::context();
        context.format = ResultFormat::Upstream;
        assert_eq!(result(&fixture::report(), &context).get("omb"), None);
    }

    #[test]
    fn ours_is_complete_and_keeps_secrets() {
        let report = fixture::report();
        let value = result(&report, &fixture::context());
        let ours = value["omb"].as_object().expect("an object");
        let want = [
            "schemaVersion",
            "tool",
            "host",
            "run",
            "seed",
            "started",
            "loadStarted",
            "ended",
            "complete",
            "system",
            "embedded",
            "workload",
            "driver",
            "plan",
            "acknowledgedMeans",
            "verdict",
            "notes",
            "rates",
            "client",
            "problems",
            "totals",
            "phases",
            "series",
            "histograms",
        ];
        assert_eq!(ours.keys().collect::<Vec<_>>(), want);
        assert_eq!(
            (&ours["started"], &ours["ended"]),
            (&json!("2026-01-04T12:30:00.000Z"), &json!("2026-01-04T12:30:26.000Z"))
        );
        assert!(!value.to_string().contains("hunter2"));
        assert_eq!(ours["series"]["throttledSeconds"].as_array().map(Vec::len), Some(26));
        let again = workload::parse("w.json", &ours["workload"].to_string(), Leniency::Strict).expect("well-formed");
        assert_eq!(again.value, report.plan.workload, "what is shown can be run again");
        let text = ours["histograms"]["publishFromIntended"]["data"].as_str().expect("text");
        let back = histogram::decode(text, 0).expect("our own");
        assert_eq!(back, report.answered().acknowledgements.from_intended);
    }

    #[test]
    fn a_fleet_tells_of_each_worker() {
        let mut report = fixture::fleet();
        report.workers[1].clock = None;
        report.workers[1].lost = Some(Lost {
            worker: WorkerId(1),
            read: Some(Duration::from_secs(11)),
            detected: Duration::from_millis(12_500),
            cause: "it fell silent".to_owned(),
        });
        report.verdict.unverified = 2;
        report.clock_error = Some(Duration::from_micros(250));
        let value = result(&report, &fixture::context());
        fits_upstream(&value);
        holds_no_null(&value, "");
        let ours = &value["omb"];
        assert_eq!(
            ours["workers"][0],
            json!({
                "worker": 1, "address": "http://10.0.0.1:8080", "producers": 5, "consumers": 2,
                "measuredSeconds": 24.0, "targetPerSecond": 500.0, "sentPerSecond": 500.0, "sentShareOfTarget": 1.0,
                "ackedPerSecond": 500.0, "ackedBytesPerSecond": 512_000.0,
                "receivedPerSecond": 1_000.0, "receivedBytesPerSecond": 1_024_000.0,
                "attempted": 12_000, "acked": 12_000, "ackedBytes": 12_288_000,
                "received": 24_000, "receivedBytes": 24_576_000,
                "cpuSeconds": 0.6, "coresUsed": 0.6 / 24.0, "cores": 4,
                "memoryBytes": 45_000_000, "memoryBytesMax": 47_000_000,
                "networkReceivedBytesPerSecond": 1_025_000.0, "networkSentBytesPerSecond": 12_400_000.0 / 24.0,
                "scheduleError": { "p50Ns": 15_000, "p99Ns": 24_800, "maxNs": 25_000 }, "scheduleLagNs": 20_000,
                "clock": { "errorNs": 120_000, "driftPpm": 3.125, "driftErrorPpm": 0.25, "contradictions": 50 },
            })
        );
        assert_eq!(
            ours["workers"][1]["lost"],
            json!({ "lastReadSeconds": 11.0, "detectedSeconds": 12.5, "cause": "it fell silent" })
        );
        assert_eq!(ours["clocks"]["endToEndErrorNs"], 250_000);
        let verdict = &ours["verdict"];
        assert_eq!((&verdict["outcome"], &verdict["subscriptionsUnverified"]), (&json!("partly checked"), &json!(2)));
        assert_eq!((&verdict["limit"], &verdict["limitWorkers"]), (&json!("neither"), &json!([])));
        assert!(verdict["limitReason"].as_str().is_some_and(|reason| reason.contains("1,000 of 1,000 msg/s")));
        let placement = &ours["plan"]["placement"];
        assert_eq!(
            placement[1],
            json!({ "worker": 2, "topics": 1, "producers": 5, "consumers": 2, "targetPerSecond": 500.0 })
        );
        assert_eq!(
            result(&fixture::report(), &fixture::context())["omb"].get("workers"),
            None,
            "one process is no fleet"
        );
        assert_eq!(plan_json(&fixture::report().plan).get("producerClients"), None, "each has its own");
        let shared = workload::Workload { topics: 40, ..fixture::workload() };
        assert_eq!(plan_json(&fixture::plan(shared))["producerClients"], 20);
    }

    #[test]
    fn the_tail_counts_in_latencies_and_not_in_rates() {
        let mut tail = Totals::default();
        tail.acknowledgements.acked = 1;
        tail.acknowledgements.from_sent.record(7_000_000_000);
        let period = fixture::period(Phase::Measure, 0, fixture::totals(100, 1));
        let value = result(&fixture::of(vec![period], tail), &fixture::context());
        assert_eq!(value["publishRate"], json!([100.0]));
        assert!(value["publishLatencyMax"][0].as_f64().is_some_and(|max| max > 6_990.0));
        assert_eq!(value["publishLatencyMax"][0], value["aggregatedPublishLatencyMax"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// The series' sums are the totals, all arrays are of one length, upstream's windows hold the measured counts.
        #[test]
        fn series_add_up(counts in prop::collection::vec((0..3_usize, 0..40_u64), 0..40), after in 0..10_u64) {
            let mut phases: Vec<_> = counts.iter().map(|(phase, _)| *phase).collect();
            phases.sort_unstable();
            let phase_of = [Phase::WarmUp, Phase::FillBacklog, Phase::Measure];
            let periods = phases.iter().zip(&counts).zip(0..).map(|((phase, (_, count)), n)| {
                fixture::period(phase_of[*phase], n, fixture::totals(*count, n))
            });
            let report = fixture::of(periods.collect(), fixture::totals(after, 0));
            let value = result(&report, &fixture::context());
            fits_upstream(&value);
            holds_no_null(&value, "");
            let ours = &value["omb"];
            let series = ours["series"].as_object().expect("an object");
            for (key, value) in series {
                let arrays: Vec<&Value> = value.as_object().map_or(vec![value], |map| map.values().collect());
                for array in arrays {
                    prop_assert_eq!(array.as_array().map(Vec::len), Some(counts.len()), "{}", key);
                }
            }
            for key in ["attempted", "acked", "failed", "received"] {
                let sum = |wanted: bool| -> u64 {
                    let counts = series["counts"].as_array().expect("a list");
                    let values = series[key].as_array().expect("a list");
                    values.iter().zip(counts).filter(|(_, counts)| !wanted || **counts == json!(true)).filter_map(|(v, _)| v.as_u64()).sum()
                };
                prop_assert_eq!(json!(sum(true)), ours["totals"]["measured"][key].clone());
                let whole = ours["totals"]["sinceLoadBegan"][key].as_u64();
                prop_assert_eq!(Some(sum(false) + ours["totals"]["afterwards"][key].as_u64().unwrap_or(0)), whole);
            }
            let mut windows = Windows::new(|stretch| {
                (stretch.elapsed, stretch.totals.acknowledgements.acked, publish(&stretch.totals).count())
            });
            report.periods.iter().for_each(|period| windows.add(&period));
            let windows = windows.end(&report.tail);
            prop_assert_eq!(value["publishRate"].as_array().map(Vec::len), Some(windows.len()));
            prop_assert_eq!(windows.iter().map(|w| w.1).sum::<u64>(), report.measured.acknowledgements.acked);
            prop_assert_eq!(windows.iter().map(|w| w.2).sum::<u64>(), publish(&report.answered()).count());
            prop_assert!(windows.len() < 2 || windows.iter().all(|w| w.0 >= WINDOW / 2));
        }
    }
}
