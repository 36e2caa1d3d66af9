//! A made-up report for the tests: every number is chosen, and the parts add up as a controller's do.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::{
    Drained, Period, Phase, Report, Verdict,
    context::{Context, Host},
    sums::{self, Sums},
};
use crate::{
    config::{
        driver::{DriverConfig, DriverKind, KafkaConfig},
        workload::{CatchUp, KeyDistributor, PayloadSource, RateGoal, Verify, Workload},
    },
    id::{RunId, SubscriptionId},
    plan::Plan,
    protocol::event::{Missing, Process},
    seed::Seed,
    stats::tally::{Seen, Totals},
    time::WallTime,
};

/// 2026-01-04 12:30:00 UTC.
const STARTED: u64 = 1_767_529_800_000_000_000;

pub(crate) fn workload() -> Workload {
    Workload {
        name: "made-up".to_owned(),
        topics: 2,
        partitions_per_topic: 3,
        key_distributor: KeyDistributor::NoKey,
        message_size: 1_024,
        payload: PayloadSource::Random { ratio: 0.5, pool: 100 },
        subscriptions_per_topic: 2,
        consumers_per_subscription: 1,
        producers_per_topic: 5,
        rate: RateGoal::Fixed(1_000),
        backlog: None,
        test_duration: Duration::from_secs(24),
        warmup_duration: Duration::from_secs(2),
        seed: Some(7),
        catch_up: CatchUp::All,
        verify: Verify::Header,
    }
}

pub(crate) fn plan(workload: Workload) -> Plan {
    Plan::new(RunId(0xab), Seed(7), workload, 1)
}

pub(crate) fn context() -> Context {
    let common = BTreeMap::from([
        ("bootstrap.servers".to_owned(), "broker:9092".to_owned()),
        ("sasl.password".to_owned(), "hunter2".to_owned()),
    ]);
    let kafka = KafkaConfig { replication_factor: 3, common, ..KafkaConfig::default() };
    let driver = DriverConfig { name: "kafka".to_owned(), kind: DriverKind::Kafka(kafka) };
    let mut context = Context::new("0.1.0", driver);
    context.clients.insert("librdkafka".to_owned(), "2.12.1".to_owned());
    context.host = Host { cores: Some(2), memory_bytes: Some(8 << 30), ..Host::default() };
    context
}

pub(crate) fn embedded() -> Context {
    Context::new("0.1.0", DriverConfig { name: "embedded".to_owned(), kind: DriverKind::Embedded })
}

/// `count` messages that left, were confirmed and arrived twice, their latencies spread a little.
pub(crate) fn totals(count: u64, seed: u64) -> Totals {
    let mut totals = Totals::default();
    for n in 0..count {
        let spread = (n * 7_919 + seed % 1_000 * 104_729) % 1_000;
        totals.departures.attempted += 1;
        totals.departures.schedule_error.record(5_000 + spread * 20);
        totals.acknowledgements.acked += 1;
        totals.acknowledgements.acked_bytes += 1_024;
        totals.acknowledgements.from_sent.record(800_000 + spread * spread * 10);
        totals.acknowledgements.from_intended.record(805_000 + spread * spread * 10 + spread * 20);
        for _ in 0..2 {
            totals.arrivals.received += 1;
            totals.arrivals.received_bytes += 1_024;
            totals.arrivals.from_sent.record(1_100_000 + spread * spread * 10);
            totals.arrivals.from_intended.record(1_105_000 + spread * spread * 10 + spread * 20);
        }
    }
    for id in 0..4 {
        let count = if id < 2 { count.div_ceil(2) } else { count / 2 };
        totals.seen.insert(SubscriptionId(id), Seen { received: count, distinct: count, ..Seen::default() });
    }
    totals
}

/// Period number `n` of 1 s.
pub(crate) fn period(phase: Phase, n: u64, totals: Totals) -> Period {
    let second = 1_000_000_000;
    Period {
        phase,
        at: Duration::from_secs(n + 1),
        elapsed: Duration::from_secs(1),
        wall: WallTime(STARTED + (n + 1) * second),
        target: 1_000.0,
        totals,
        unread: 3 + n % 2,
        in_flight: 2,
        schedule_lag: Duration::from_micros(20),
        process: Process {
            cpu: Duration::from_millis(50 * (n + 1)),
            broker_cpu: Duration::ZERO,
            memory_bytes: 90_000_000,
            memory_bytes_max: 95_000_000,
            ..Process::default()
        },
        workers: Vec::new(),
    }
}

/// A run in which everything went well: 2 s of warm-up and 24 s measured at 1,000 msg/s.
pub(crate) fn report() -> Report {
    let periods = (0..26).map(|n| period(if n < 2 { Phase::WarmUp } else { Phase::Measure }, n, totals(1_000, n)));
    of(periods.collect(), totals(10, 99))
}

/// The report over these periods, and what arrived after them.
pub(crate) fn of(periods: Vec<Period>, rest: Totals) -> Report {
    let mut phases = Vec::new();
    periods.iter().for_each(|period| sums::add(&mut phases, period.phase, period.elapsed, &period.totals));
    let Sums { measured, measured_for, tail, whole } = sums::finish(&mut phases, &rest);
    let subscriptions = whole
        .seen
        .iter()
        .map(|(id, seen)| (*id, (*seen, Missing { confirmed: seen.distinct, missing: 0, by_count_only: false })))
        .collect();
    Report {
        plan: plan(workload()),
        driver: "kafka".to_owned(),
        system: "Kafka, 3 brokers, librdkafka 2.12.1".to_owned(),
        started: WallTime(STARTED),
        process: periods.last().map(|period| period.process).unwrap_or_default(),
        client_cpu: Duration::from_millis(50)
            * u32::try_from(periods.iter().filter(|p| p.phase.counts()).count()).expect("few"),
        periods: periods.into_iter().collect(),
        phases,
        measured,
        measured_for,
        tail,
        whole,
        found: None,
        backlog: None,
        verdict: Verdict { subscriptions, unverified: 0, drained: Drained::Completely },
        workers: Vec::new(),
        clock_error: None,
        problems: Vec::new(),
        partial: None,
    }
}

/// A period whose every number may be anything.
pub(crate) fn any_period() -> impl Strategy<Value = Period> {
    let phase = prop::sample::select(vec![Phase::WarmUp, Phase::Search, Phase::Measure, Phase::Stop, Phase::Drain]);
    let samples = prop::collection::vec(0..u64::MAX / 2, 0..12);
    (phase, samples, any::<[u32; 12]>(), any::<u64>()).prop_map(|(phase, samples, numbers, big)| {
        let mut totals = totals(u64::from(numbers[0] % 20), big);
        let number = |at: usize| u64::from(numbers[at]);
        for (place, sample) in samples.into_iter().enumerate() {
            match place % 5 {
                0 => totals.departures.schedule_error.record(sample),
                1 => totals.acknowledgements.from_intended.record(sample),
                2 => totals.acknowledgements.from_sent.record(sample),
                3 => totals.arrivals.from_intended.record(sample),
                _ => totals.arrivals.from_sent.record(sample),
            }
        }
        totals.departures.skipped = number(1);
        totals.acknowledgements.failed = number(2);
        totals.arrivals.corrupted = number(3);
        totals.arrivals.before_intended = number(4);
        let mut period = period(phase, 1, totals);
        period.at = Duration::from_nanos(number(5));
        period.elapsed = Duration::from_nanos(number(6));
        period.wall = WallTime(big);
        period.target = f64::from(numbers[7]);
        period.unread = big;
        period.in_flight = number(8);
        period.schedule_lag = Duration::from_nanos(big);
        period.process.cpu = Duration::new(number(9), 1);
        period.process.broker_cpu = Duration::from_nanos(number(10));
        period.process.memory_bytes = number(11);
        period
    })
}
