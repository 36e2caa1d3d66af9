//! Every figure that a reader is shown, checked against a run whose numbers are all known and all different: a figure
//! taken from the wrong place, or a new one not listed here, fails.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::{
    analysis::Analysis,
    fixture,
    histogram::{millis, quantile_map, whole_micros},
    metrics::{self, Metrics, Rates},
    result::RunResult,
    table,
};
use omb_bench::{
    id::{SubscriptionId, WorkerId},
    protocol::event::{Missing, Problem, Process},
    result::{BacklogTimes, Drained, Found, Lost, Period, Phase, Rebalances, Report, WorkerClock},
    stats::{
        latency::{DIGITS, HIGHEST, Latency},
        tally::{Seen, Totals},
    },
};
use omb_machine::{quantity::real, time::WallTime};

const WARM_UP: std::ops::Range<u64> = 0..2;
const MEASURED: std::ops::Range<u64> = 2..18;
const STOP: u64 = 18;
/// What arrived after the last period.
const REST: u64 = 19;

/// What period `n` counted.
fn totals(n: u64) -> Totals {
    let mut totals = Totals::default();
    (totals.departures.attempted, totals.departures.skipped) = (10_000 + 17 * n, 100 + n);
    let acks = &mut totals.acknowledgements;
    (acks.acked, acks.acked_bytes, acks.failed, acks.refused) =
        (9_000 + 13 * n, 5_000_000 + 11 * n, 700 + 7 * n, 300 + 3 * n);
    let arrivals = &mut totals.arrivals;
    (arrivals.received, arrivals.received_bytes) = (20_000 + 19 * n, 6_000_000 + 23 * n);
    arrivals.reread = 60 + 3 * n;
    (arrivals.corrupted, arrivals.headerless, arrivals.before_intended) = (40 + n, 200 + 2 * n, 500 + 5 * n);
    let latencies = [
        &mut acks.from_intended,
        &mut acks.from_sent,
        &mut totals.departures.schedule_error,
        &mut arrivals.from_intended,
        &mut arrivals.from_sent,
    ];
    for (place, latency) in (1..).zip(latencies) {
        (0..=n).for_each(|sample| latency.record(place * 1_000_000 + n * 40_000 + sample * 7_000));
    }
    for id in 0..4 {
        let of = u64::from(id) + 1;
        let seen = Seen {
            received: 3_000 * of + n,
            distinct: 2_000 * of + n,
            duplicated: 10 * of + n,
            reread: 15 * of + n,
            reordered: 20 * of + n,
        };
        totals.seen.insert(SubscriptionId(id), seen);
    }
    totals
}

fn sum(periods: impl IntoIterator<Item = u64>) -> Totals {
    let mut sum = Totals::default();
    periods.into_iter().for_each(|n| sum.merge(&totals(n)));
    sum
}

fn elapsed(periods: impl IntoIterator<Item = u64>) -> f64 {
    periods.into_iter().map(|n| real(1_000 + n) / 1e3).sum()
}

fn process(n: u64) -> Process {
    Process {
        cpu: Duration::from_millis(3_000 + 100 * n),
        broker_cpu: Duration::from_millis(1_000 + n),
        memory_bytes: 90_000_000 + n,
        memory_bytes_max: 95_000_000 + n,
        cores: 4,
        ..Process::default()
    }
}

pub(crate) fn report() -> Report {
    let periods = (0..=STOP).map(|n| {
        let phase = match n {
            n if WARM_UP.contains(&n) => Phase::WarmUp,
            n if MEASURED.contains(&n) => Phase::Measure,
            _ => Phase::Stop,
        };
        Period {
            at: Duration::from_millis(1_100 * (n + 1)),
            elapsed: Duration::from_millis(1_000 + n),
            wall: WallTime(1_767_529_800_000_000_000 + n),
            target: real(11_000 + n),
            unread: 60_000 + n,
            in_flight: 400 + n,
            rebalances: 3 + n,
            throttled: Duration::from_micros(900 + n),
            schedule_lag: Duration::from_nanos(800 + n),
            process: process(n),
            ..fixture::period(phase, n, totals(n))
        }
    });
    let mut report = fixture::of(periods.collect(), totals(REST));
    report.plan = fixture::fleet().plan;
    report.workers = (0..).zip(fixture::addresses()).map(|(worker, name)| fixture::row(worker, name)).collect();
    for (place, row) in (1..).zip(&mut report.workers) {
        row.measured_for = Duration::from_secs(15 + place);
        (row.attempted, row.acked, row.acked_bytes) = (70_000 + place, 60_000 + place, 61_000_000 + place);
        (row.received, row.received_bytes) = (120_000 + place, 121_000_000 + place);
        row.cpu = Duration::from_millis(9_000 * place);
        (row.net_received_bytes, row.net_sent_bytes) = (130_000_000 + place, 140_000_000 + place);
        row.process.memory_bytes = 45_000_000 + place;
        row.process.memory_bytes_max = 47_000_000 + place;
        row.schedule_error = [1_000 + place, 2_000 + place, 3_000 + place];
        row.schedule_lag = Duration::from_nanos(4_000 + place);
        row.clock = Some(WorkerClock {
            error: Duration::from_nanos(5_000 + place),
            drift_ppm: Some((6.0 + real(place), 0.5 + real(place))),
            contradictions: 7_000 + place,
        });
    }
    report.workers[1].lost = Some(Lost {
        worker: WorkerId(1),
        read: Some(Duration::from_millis(5_250)),
        detected: Duration::from_millis(9_125),
        cause: "it fell silent".to_owned(),
    });
    report.process = Process { memory_bytes: 91_000_000, memory_bytes_max: 96_000_000, ..process(42) };
    report.client_cpu = Duration::from_millis(6_125);
    report.clock_error = Some(Duration::from_nanos(987_654));
    report.found = Some(Found { rate: 123_456, failed_at: Some(130_000), trials: 11 });
    report.backlog = Some(BacklogTimes {
        asked_bytes: 1 << 30,
        built_messages: 1_048_577,
        fill: Duration::from_millis(12_345),
        drain: Some(Duration::from_millis(23_456)),
    });
    report.problems = vec![Problem { what: "a".to_owned(), count: 17 }, Problem { what: "b".to_owned(), count: 5 }];
    report.verdict.drained = Drained::Quiet;
    report.verdict.unverified = 3;
    let rebalances = Rebalances { count: 9, at: vec![Duration::from_millis(1_500)] };
    report.rebalances.insert(SubscriptionId(2), rebalances);
    for (id, (_, missing)) in &mut report.verdict.subscriptions {
        *missing = Missing { confirmed: 70_000 + u64::from(id.0), missing: 30 + u64::from(id.0), by_count_only: false };
    }
    report
}

/// Every number of a result, by its path.
fn numbers(value: &Value, at: &str, found: &mut BTreeMap<String, f64>) {
    match value {
        Value::Number(number) => _ = found.insert(at.to_owned(), number.as_f64().expect("a number")),
        Value::Array(list) => list.iter().enumerate().for_each(|(n, it)| numbers(it, &format!("{at}.{n}"), found)),
        Value::Object(map) => map.iter().for_each(|(key, it)| numbers(it, &format!("{at}/{key}"), found)),
        _ => {}
    }
}

#[derive(Default)]
struct Expected(BTreeMap<String, f64>);

impl Expected {
    fn put(&mut self, at: impl Into<String>, value: f64) {
        assert!(self.0.insert(at.into(), value).is_none());
    }

    fn all(&mut self, under: &str, values: &[(&str, f64)]) {
        values.iter().for_each(|(key, value)| self.put(format!("{under}/{key}"), *value));
    }

    fn map(&mut self, under: &str, value: Value) {
        let mut found = BTreeMap::new();
        numbers(&value, under, &mut found);
        found.into_iter().for_each(|(at, value)| self.put(at, value));
    }

    fn counts(&mut self, under: &str, totals: &Totals) {
        let Totals { departures, acknowledgements: acks, arrivals, .. } = totals;
        for (key, count) in [
            ("attempted", departures.attempted),
            ("skipped", departures.skipped),
            ("acked", acks.acked),
            ("ackedBytes", acks.acked_bytes),
            ("failed", acks.failed),
            ("refused", acks.refused),
            ("givenUp", acks.failed - acks.refused),
            ("received", arrivals.received),
            ("receivedBytes", arrivals.received_bytes),
            ("reread", arrivals.reread),
            ("corrupted", arrivals.corrupted),
            ("headerless", arrivals.headerless),
            ("beforeIntended", arrivals.before_intended),
        ] {
            self.put(format!("{under}/{key}"), real(count));
        }
    }

    /// Upstream's figures of a latency, in ms, or in whole microseconds.
    fn upstream(&mut self, key: &str, at: &str, latency: &Latency, micros: bool) {
        let unit = |nanos: u64| if micros { real(whole_micros(nanos)) } else { millis(nanos) };
        self.put(format!("/{key}Avg{at}"), latency.mean() / if micros { 1e3 } else { 1e6 });
        for (name, quantile) in
            [("50pct", 0.5), ("75pct", 0.75), ("95pct", 0.95), ("99pct", 0.99), ("999pct", 0.999), ("9999pct", 0.9999)]
        {
            self.put(format!("/{key}{name}{at}"), unit(latency.at(quantile)));
        }
        self.put(format!("/{key}Max{at}"), unit(latency.max()));
    }
}

fn named(totals: &Totals) -> [(&'static str, &Latency); 5] {
    [
        ("publishFromIntended", &totals.acknowledgements.from_intended),
        ("publishFromSent", &totals.acknowledgements.from_sent),
        ("scheduleError", &totals.departures.schedule_error),
        ("endToEndFromIntended", &totals.arrivals.from_intended),
        ("endToEndFromSent", &totals.arrivals.from_sent),
    ]
}

/// Upstream's part: windows of 10 s, the last one with what was answered afterwards.
fn upstreams(expected: &mut Expected) {
    expected.all(
        "",
        &[
            ("messageSize", 1_024.0),
            ("topics", 2.0),
            ("partitions", 3.0),
            ("producersPerTopic", 5.0),
            ("consumersPerTopic", 1.0),
        ],
    );
    let windows = [(2..12, 11), (12..18, 17)];
    for (nth, (periods, last)) in windows.into_iter().enumerate() {
        let (seconds, counted) = (elapsed(periods.clone()), sum(periods.clone()));
        expected.put(format!("/publishRate.{nth}"), real(counted.acknowledgements.acked) / seconds);
        expected.put(format!("/publishErrorRate.{nth}"), real(counted.acknowledgements.failed) / seconds);
        expected.put(format!("/consumeRate.{nth}"), real(counted.arrivals.received) / seconds);
        expected.put(format!("/backlog.{nth}"), real(60_000 + last));
        let answered = if nth == 1 { sum(periods.chain([STOP, REST])) } else { counted };
        let at = format!(".{nth}");
        expected.upstream("publishLatency", &at, &answered.acknowledgements.from_sent, false);
        expected.upstream("publishDelayLatency", &at, &answered.departures.schedule_error, true);
        expected.upstream("endToEndLatency", &at, &answered.arrivals.from_sent, false);
    }
    let answered = sum(MEASURED.chain([STOP, REST]));
    for (key, latency, micros) in [
        ("aggregatedPublishLatency", &answered.acknowledgements.from_sent, false),
        ("aggregatedPublishDelayLatency", &answered.departures.schedule_error, true),
        ("aggregatedEndToEndLatency", &answered.arrivals.from_sent, false),
    ] {
        expected.upstream(key, "", latency, micros);
        let show = |nanos: u64| if micros { real(whole_micros(nanos)) } else { millis(nanos) };
        let quantiles = serde_json::to_value(quantile_map(latency.histogram(), show)).expect("JSON");
        expected.map(&format!("/{key}Quantiles"), quantiles);
    }
}

fn workers(expected: &mut Expected) {
    for place in 1..=2 {
        let (under, n, seconds) = (format!("/omb/workers.{}", place - 1), real(place), real(15 + place));
        expected.all(
            &under,
            &[
                ("worker", n),
                ("producers", 5.0),
                ("consumers", 2.0),
                ("measuredSeconds", seconds),
                ("targetPerSecond", 500.0),
                ("sentPerSecond", (70_000.0 + n) / seconds),
                ("sentShareOfTarget", (70_000.0 + n) / seconds / 500.0),
                ("ackedPerSecond", (60_000.0 + n) / seconds),
                ("ackedBytesPerSecond", (61_000_000.0 + n) / seconds),
                ("receivedPerSecond", (120_000.0 + n) / seconds),
                ("receivedBytesPerSecond", (121_000_000.0 + n) / seconds),
                ("attempted", 70_000.0 + n),
                ("acked", 60_000.0 + n),
                ("ackedBytes", 61_000_000.0 + n),
                ("received", 120_000.0 + n),
                ("receivedBytes", 121_000_000.0 + n),
                ("cpuSeconds", 9.0 * n),
                ("coresUsed", 9.0 * n / seconds),
                ("cores", 4.0),
                ("memoryBytes", 45_000_000.0 + n),
                ("memoryBytesMax", 47_000_000.0 + n),
                ("networkReceivedBytesPerSecond", (130_000_000.0 + n) / seconds),
                ("networkSentBytesPerSecond", (140_000_000.0 + n) / seconds),
                ("scheduleError/p50Ns", 1_000.0 + n),
                ("scheduleError/p99Ns", 2_000.0 + n),
                ("scheduleError/maxNs", 3_000.0 + n),
                ("scheduleLagNs", 4_000.0 + n),
                ("clock/errorNs", 5_000.0 + n),
                ("clock/driftPpm", 6.0 + n),
                ("clock/driftErrorPpm", 0.5 + n),
                ("clock/contradictions", 7_000.0 + n),
            ],
        );
        expected.all(
            &format!("/omb/plan/placement.{}", place - 1),
            &[("worker", n), ("topics", 1.0), ("producers", 5.0), ("consumers", 2.0), ("targetPerSecond", 500.0)],
        );
    }
    expected.all("/omb/workers.1/lost", &[("lastReadSeconds", 5.25), ("detectedSeconds", 9.125)]);
    expected.put("/omb/clocks/endToEndErrorNs", 987_654.0);
}

fn judged(expected: &mut Expected) {
    let whole = sum(0..=REST);
    let all = |of: fn(&Seen) -> u64| real(whole.seen.values().map(of).sum());
    expected.all(
        "/omb/verdict",
        &[
            ("throttledSeconds", MEASURED.map(|n| real(900 + n) / 1e6).sum()),
            ("confirmedOverSubscriptions", 280_006.0),
            ("missing", 126.0),
            ("lost", 126.0),
            ("received", all(|seen| seen.received)),
            ("distinct", all(|seen| seen.distinct)),
            ("duplicated", all(|seen| seen.duplicated)),
            ("reread", all(|seen| seen.reread)),
            ("rebalances", 9.0),
            ("reordered", all(|seen| seen.reordered)),
            ("corrupted", real(whole.arrivals.corrupted)),
            ("headerless", real(whole.arrivals.headerless)),
            ("beforeIntended", real(whole.arrivals.before_intended)),
            ("subscriptionsInAll", 4.0),
            ("subscriptionsUnverified", 3.0),
        ],
    );
    expected.put("/omb/verdict/subscriptions.2/rebalancedAtSeconds.0", 1.5);
    for (id, seen) in &whole.seen {
        expected.all(
            &format!("/omb/verdict/subscriptions.{}", id.0),
            &[
                ("subscription", f64::from(id.0)),
                ("topic", f64::from(id.0 / 2)),
                ("confirmed", 70_000.0 + f64::from(id.0)),
                ("received", real(seen.received)),
                ("distinct", real(seen.distinct)),
                ("missing", 30.0 + f64::from(id.0)),
                ("duplicated", real(seen.duplicated)),
                ("reread", real(seen.reread)),
                ("rebalances", if id.0 == 2 { 9.0 } else { 0.0 }),
                ("reordered", real(seen.reordered)),
            ],
        );
    }
}

fn series(expected: &mut Expected) {
    for n in 0..=STOP {
        let counted = totals(n);
        for (key, value) in [
            ("atSeconds", 1.1 * real(n + 1)),
            ("elapsedSeconds", elapsed([n])),
            ("unixNs", real(1_767_529_800_000_000_000 + n)),
            ("targetPerSecond", real(11_000 + n)),
            ("attempted", real(counted.departures.attempted)),
            ("skipped", real(counted.departures.skipped)),
            ("acked", real(counted.acknowledgements.acked)),
            ("failed", real(counted.acknowledgements.failed)),
            ("refused", real(counted.acknowledgements.refused)),
            ("received", real(counted.arrivals.received)),
            ("reread", real(counted.arrivals.reread)),
            ("corrupted", real(counted.arrivals.corrupted)),
            ("rebalances", real(3 + n)),
            ("throttledSeconds", real(900 + n) / 1e6),
            ("unread", real(60_000 + n)),
            ("inFlight", real(400 + n)),
            ("scheduleLagNs", real(800 + n)),
            ("processCpuSeconds", real(3_000 + 100 * n) / 1e3),
            ("memoryBytes", real(90_000_000 + n)),
        ] {
            expected.put(format!("/omb/series/{key}.{n}"), value);
        }
        for (key, latency) in named(&counted) {
            for (figure, value) in [
                ("count", latency.count()),
                ("p50Ns", latency.at(0.5)),
                ("p99Ns", latency.at(0.99)),
                ("p999Ns", latency.at(0.999)),
                ("maxNs", latency.max()),
            ] {
                expected.put(format!("/omb/series/{key}/{figure}.{n}"), real(value));
            }
        }
    }
}

fn the_rest(expected: &mut Expected) {
    let (measured, seconds) = (sum(MEASURED), elapsed(MEASURED));
    let (acks, arrivals) = (&measured.acknowledgements, &measured.arrivals);
    let sent = measured.departures.attempted - acks.refused;
    let target = MEASURED.map(|n| real(11_000 + n) * elapsed([n])).sum::<f64>() / seconds;
    expected.all(
        "/omb/rates",
        &[
            ("measuredSeconds", seconds),
            ("targetPerSecond", target),
            ("sentPerSecond", real(sent) / seconds),
            ("sentBytesPerSecond", real(sent * 1_024) / seconds),
            ("ackedPerSecond", real(acks.acked) / seconds),
            ("ackedBytesPerSecond", real(acks.acked_bytes) / seconds),
            ("failedPerSecond", real(acks.failed) / seconds),
            ("refusedPerSecond", real(acks.refused) / seconds),
            ("givenUpPerSecond", real(acks.failed - acks.refused) / seconds),
            ("receivedPerSecond", real(arrivals.received) / seconds),
            ("receivedBytesPerSecond", real(arrivals.received_bytes) / seconds),
        ],
    );
    expected.all(
        "/omb/client",
        &[
            ("cpuSeconds", 6.125),
            ("cpuNsPerAckedMessage", 6.125e9 / real(acks.acked)),
            ("processCpuSecondsInAll", 7.2),
            ("brokerCpuSecondsInAll", 1.042),
            ("memoryBytes", 91_000_000.0),
            ("memoryBytesMax", 96_000_000.0),
        ],
    );
    expected.all("/omb/search", &[("ratePerSecond", 123_456.0), ("failedAtPerSecond", 130_000.0), ("trials", 11.0)]);
    expected.all(
        "/omb/backlog",
        &[
            ("askedBytes", 1_073_741_824.0),
            ("builtMessages", 1_048_577.0),
            ("fillSeconds", 12.345),
            ("drainSeconds", 23.456),
        ],
    );
    expected
        .all("/omb", &[("schemaVersion", 1.0), ("seed", 7.0), ("problems.0/count", 17.0), ("problems.1/count", 5.0)]);
    expected.all("/omb/host", &[("cores", 2.0), ("memoryBytes", 8_589_934_592.0)]);
    expected.all(
        "/omb/plan",
        &[
            ("workers", 2.0),
            ("topics", 2.0),
            ("partitionsPerTopic", 3.0),
            ("producers", 10.0),
            ("subscriptions", 4.0),
            ("consumers", 4.0),
        ],
    );
    let report = report();
    // The configuration has tests of its own: it can be read back.
    expected.map("/omb/workload", report.plan.workload.resolved());
    expected.map("/omb/driver", fixture::context().driver.resolved());
    expected.counts("/omb/totals/measured", &measured);
    expected.counts("/omb/totals/afterwards", &sum([STOP, REST]));
    expected.counts("/omb/totals/sinceLoadBegan", &sum(0..=REST));
    let phases = [WARM_UP.collect::<Vec<_>>(), MEASURED.collect(), vec![STOP], vec![REST]];
    for (nth, periods) in phases.into_iter().enumerate() {
        let under = format!("/omb/phases.{nth}");
        let took = if periods == [REST] { 0.0 } else { elapsed(periods.clone()) };
        expected.put(format!("{under}/elapsedSeconds"), took);
        expected.counts(&format!("{under}/totals"), &sum(periods));
    }
    expected.all("/omb/histograms", &[("significantDigits", f64::from(DIGITS)), ("highestNs", real(HIGHEST))]);
    for (key, latency) in named(&sum(MEASURED.chain([STOP, REST]))) {
        expected.all(
            &format!("/omb/histograms/{key}"),
            &[
                ("count", real(latency.count())),
                ("clamped", 0.0),
                ("meanNs", latency.mean()),
                ("p50Ns", real(latency.at(0.5))),
                ("p75Ns", real(latency.at(0.75))),
                ("p95Ns", real(latency.at(0.95))),
                ("p99Ns", real(latency.at(0.99))),
                ("p999Ns", real(latency.at(0.999))),
                ("p9999Ns", real(latency.at(0.9999))),
                ("maxNs", real(latency.max())),
            ],
        );
    }
}

#[track_caller]
fn same(found: &BTreeMap<String, f64>, expected: &BTreeMap<String, f64>) {
    let mut wrong: Vec<String> = Vec::new();
    for (at, value) in found {
        match expected.get(at) {
            None => wrong.push(format!("{at} is {value}, and no test knows what it should be")),
            Some(wanted) if (value - wanted).abs() > 1e-9 * wanted.abs() => {
                wrong.push(format!("{at} is {value} instead of {wanted}"));
            }
            Some(_) => {}
        }
    }
    wrong.extend(expected.keys().filter(|at| !found.contains_key(*at)).map(|at| format!("{at} is missing")));
    assert!(wrong.is_empty(), "{} figures are wrong:\n{}", wrong.len(), wrong[..wrong.len().min(30)].join("\n"));
}

#[test]
fn every_figure_of_the_result_is_known() {
    let mut expected = Expected::default();
    upstreams(&mut expected);
    workers(&mut expected);
    judged(&mut expected);
    series(&mut expected);
    the_rest(&mut expected);
    let value = serde_json::to_value(RunResult::of(&report(), &fixture::context())).expect("JSON");
    let mut found = BTreeMap::new();
    numbers(&value, "", &mut found);
    // The limit's side has tests of its own.
    found.retain(|at, _| !at.starts_with("/omb/verdict/limitWorkers"));
    same(&found, &expected.0);
}

/// The rows of the table, each with its numbers, against the same run.
#[test]
fn every_figure_of_the_table_is_known() {
    let text = table::result(&RunResult::of(&report(), &fixture::context()), &[], 200);
    let cells = |name: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (measured, seconds) = (sum(MEASURED), elapsed(MEASURED));
    let acks = &measured.acknowledgements;
    for (name, count, bytes) in [
        ("sent ", measured.departures.attempted - acks.refused, None),
        ("acknowledged ", acks.acked, Some(acks.acked_bytes)),
        ("refused by client ", acks.refused, None),
        ("given up ", acks.failed - acks.refused, None),
        ("received ", measured.arrivals.received, Some(measured.arrivals.received_bytes)),
    ] {
        let per_second = |amount: u64| real(amount) / seconds;
        let row = cells(name);
        let end = &row[row.len() - 3..];
        let megabytes = per_second(bytes.unwrap_or(count * 1_024)) / 1e6;
        let wanted = [
            omb_machine::quantity::rate(per_second(count)),
            omb_machine::quantity::three_digits(megabytes),
            omb_machine::quantity::grouped(count),
        ];
        assert_eq!(end, wanted, "{name}");
    }
    assert!(text.contains("Rates, over 16.2 s"), "{text}");
    assert_eq!(cells("target ")[1..], ["11,010", "11.3"], "{text}");
    let answered = sum(MEASURED.chain([STOP, REST]));
    for (name, latency) in [
        ("publish, from intended", &answered.acknowledgements.from_intended),
        ("publish, from sent", &answered.acknowledgements.from_sent),
        ("schedule error", &answered.departures.schedule_error),
        ("end-to-end, from intended", &answered.arrivals.from_intended),
        ("end-to-end, from sent", &answered.arrivals.from_sent),
    ] {
        let line = cells(name).join(" ");
        let shown = |nanos: f64| omb_machine::quantity::latency(nanos);
        let mut wanted = name.to_owned();
        for quantile in [0.5, 0.75, 0.95, 0.99] {
            wanted += &format!(" {}", shown(real(latency.at(quantile))));
        }
        wanted += &format!(" - - {} {}", shown(real(latency.max())), shown(latency.mean()));
        assert_eq!(line, wanted);
    }
    // worker, address, dealt, sent, %, acked, received, CPU, memory, in, out, late p50, p99, max, clock, drift, last
    // read, lost.
    let first = "1 http://10.0.0.1:8080 500 4,375 875.0 3,750 7,500 0.56/4 45.0 MB 8.13 8.75 1.00 µs 2.00 µs 3.00 µs \
                 ±5.00 µs +7.00 ±1.50 - -";
    let second = "2 http://10.0.0.2:8080 500 4,118 823.6 3,530 7,059 1.06/4 45.0 MB 7.65 8.24 1.00 µs 2.00 µs 3.00 µs \
                  ±5.00 µs +8.00 ±2.50 5.30 s 9.10 s";
    let row = |address: &str| {
        let line = text.lines().find(|line| line.contains(&format!("{address}  ")));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!([row("http://10.0.0.1:8080"), row("http://10.0.0.2:8080")], [first, second], "{text}");
    let each = omb_machine::quantity::latency(6.125e9 / real(acks.acked));
    let client =
        format!("Client CPU 6.12 s of 2 workers together, {each} per message; memory 91.0 MB, at most 96.0 MB");
    assert!(text.contains(&client), "{client} is missing in\n{text}");
    assert!(text.contains("Clocks differ by at most ±988 µs: end-to-end"), "{text}");
}

/// The workers named by a verdict are the right ones: the busiest, not the idlest.
#[test]
fn the_busiest_worker_is_the_busiest() {
    let mut report = report();
    report.workers[1].lost = None;
    report.workers.iter_mut().for_each(|row| row.attempted = 500 * row.measured_for.as_secs());
    let phrase = "the busiest, worker 2 (http://10.0.0.2:8080) used 1.1 of 4 cores";
    // Nothing acknowledged in time: the broker's, and the busiest client had cores left.
    report.measured.acknowledgements.refused = 0;
    report.measured.departures.attempted = 11_100 * 17;
    let limit = Analysis::of(&report, &fixture::context()).limit.expect("something was measured");
    assert!(limit.reason.contains(phrase), "{}", limit.reason);
}

#[test]
fn every_metric_is_known() {
    let totals = sum(0..=REST);
    let shown = Metrics {
        version: "0.1.0",
        worker: "w",
        follows: None,
        totals: &totals,
        rebalances: 12,
        in_flight: 401,
        schedule_lag: Duration::from_micros(1_502),
        cpu: Duration::from_millis(2_253),
        memory_bytes: 90_000_004,
        network_received_bytes: Some(1_005),
        network_sent_bytes: Some(2_006),
        commands_answered: 17,
        leases_expired: 8,
        clients_left_behind: 3,
        rates: Some(Rates { acked: 1_234.0, received: 2_468.0 }),
        stats_url: None,
    };
    let found = omb_machine::prometheus::fixture::parsed(&metrics::prometheus(&shown));
    let Totals { departures, acknowledgements: acks, arrivals, seen } = &totals;
    let of_seen = |of: fn(&Seen) -> u64| real(seen.values().map(of).sum());
    let mut expected: BTreeMap<&str, f64> = BTreeMap::from([
        ("omb_build_info", 1.0),
        ("omb_obeys_run", 0.0),
        ("omb_messages_sent_total", real(departures.attempted)),
        ("omb_messages_skipped_total", real(departures.skipped)),
        ("omb_clients_left_behind", 3.0),
        ("omb_messages_acked_total", real(acks.acked)),
        ("omb_acked_bytes_total", real(acks.acked_bytes)),
        ("omb_messages_failed_total", real(acks.failed)),
        ("omb_messages_refused_total", real(acks.refused)),
        ("omb_messages_received_total", real(arrivals.received)),
        ("omb_received_bytes_total", real(arrivals.received_bytes)),
        ("omb_messages_corrupted_total", real(arrivals.corrupted)),
        ("omb_messages_headerless_total", real(arrivals.headerless)),
        ("omb_messages_before_intended_total", real(arrivals.before_intended)),
        ("omb_messages_reread_total", real(arrivals.reread)),
        ("omb_group_rebalances_total", 12.0),
        ("omb_messages_duplicated_total", of_seen(|seen| seen.duplicated)),
        ("omb_messages_reordered_total", of_seen(|seen| seen.reordered)),
        ("omb_commands_answered_total", 17.0),
        ("omb_leases_expired_total", 8.0),
        ("omb_messages_in_flight", 401.0),
        ("omb_schedule_lag_seconds", 0.001_502),
        ("omb_process_cpu_seconds_total", 2.253),
        ("omb_process_memory_bytes", 90_000_004.0),
        ("omb_network_received_bytes_total", 1_005.0),
        ("omb_network_sent_bytes_total", 2_006.0),
        ("benchmark_producer_messages_sent", real(acks.acked)),
        ("benchmark_producer_message_send_errors", real(acks.failed)),
        ("benchmark_producer_bytes_sent", real(acks.acked_bytes)),
        ("benchmark_consumer_messages_recv", real(arrivals.received)),
        ("benchmark_consumer_bytes_recv", real(arrivals.received_bytes)),
    ]);
    let histograms = [
        ("omb_schedule_error_seconds", &departures.schedule_error, 1e9),
        ("omb_ack_from_intended_seconds", &acks.from_intended, 1e9),
        ("omb_ack_from_sent_seconds", &acks.from_sent, 1e9),
        ("omb_receive_from_intended_seconds", &arrivals.from_intended, 1e9),
        ("omb_receive_from_sent_seconds", &arrivals.from_sent, 1e9),
        ("benchmark_producer_produce_latency", &acks.from_sent, 1e6),
        ("benchmark_producer_producer_delay_latency", &departures.schedule_error, 1e6),
        ("benchmark_consumer_e2e_latency", &arrivals.from_sent, 1e6),
    ];
    for ((name, labels), value) in &found {
        let wanted = if let Some(wanted) = expected.remove(name.as_str()) {
            wanted
        } else {
            let of = histograms.iter().find(|(family, ..)| name.starts_with(family));
            let (family, latency, unit) = of.unwrap_or_else(|| panic!("{name} is {value}, and no test knows it"));
            match &name[family.len()..] {
                "_count" => real(latency.count()),
                "_sum" => latency.mean() * real(latency.count()) / unit,
                // Buckets are checked by tests of their own; the last one holds all.
                "_bucket" => match labels.iter().find(|(label, _)| label == "le").map(|(_, le)| le.as_str()) {
                    Some("+Inf" | "10" | "60" | "300") => real(latency.count()),
                    Some("0.0001") => 0.0,
                    _ => continue,
                },
                _ => {
                    let quantile = labels.iter().find(|(label, _)| label == "quantile").expect("a summary").1.parse();
                    millis(latency.at(quantile.expect("a number")))
                }
            }
        };
        assert!((value - wanted).abs() <= 1e-9 * wanted.abs(), "{name} {labels:?} is {value} instead of {wanted}");
    }
    assert!(expected.is_empty(), "missing: {expected:?}");
}
