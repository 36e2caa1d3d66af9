//! A made-up report for the tests: every number is chosen, and the parts add up as a controller's do.

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use crate::context::{Context, Host};
use omb_bench::{
    config::{
        driver::{DriverConfig, DriverKind, KafkaConfig},
        workload::{CatchUp, Clients, KeyDistributor, PayloadSource, RateGoal, Verify, Workload},
    },
    id::{RunId, WorkerId},
    plan::Plan,
    protocol::event::{Missing, Process},
    rate::Rate,
    result::{
        Drained, Lost, Period, Phase, Report, Verdict, WorkerClock, WorkerPeriod, WorkerRow,
        sums::{self, Sums},
    },
    stats::tally::Totals,
};
use omb_machine::{seed::Seed, time::WallTime};

pub(crate) use omb_bench::result::fixture::{STARTED, any_period, period, totals};

pub(crate) fn rate(per_second: u64) -> Rate {
    Rate::per_second(per_second).expect("in range")
}

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
        rate: RateGoal::Fixed(rate(1_000)),
        backlog: None,
        test_duration: Duration::from_secs(24),
        warmup_duration: Duration::from_secs(2),
        seed: Some(7),
        catch_up: CatchUp::All,
        verify: Verify::Header,
        clients: Clients::default(),
    }
}

pub(crate) fn plan(workload: Workload) -> Plan {
    Plan::new(RunId(0xab), Seed(7), workload, 1)
}

pub(crate) fn context() -> Context {
    let common = BTreeMap::from([
        ("bootstrap.servers".to_owned(), "broker:9092".into()),
        ("sasl.password".to_owned(), "hunter2".into()),
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
        rebalances: BTreeMap::new(),
        verdict: Verdict { subscriptions, unverified: 0, drained: Drained::Completely },
        workers: Vec::new(),
        clock_error: None,
        problems: Vec::new(),
        unconfirmed: false,
        tempo: None,
        outages: Vec::new(),
        partial: None,
    }
}

/// Addresses of two workers.
pub(crate) fn addresses() -> Vec<String> {
    ["http://10.0.0.1:8080", "http://10.0.0.2:8080"].map(str::to_owned).into()
}

/// [`report`], by two workers, each with one topic and half of everything.
pub(crate) fn fleet() -> Report {
    let mut report = report();
    report.plan = Plan::new(RunId(0xab), Seed(7), workload(), 2);
    report.workers = (0..).zip(addresses()).map(|(worker, name)| row(worker, name)).collect();
    report
}

/// A worker that is assigned 5 of 10 producers of 1,000 msg/s, and keeps up.
pub(crate) fn row(worker: u32, name: String) -> WorkerRow {
    WorkerRow {
        worker: WorkerId(worker),
        name,
        producers: 5,
        consumers: 2,
        measured_for: Duration::from_secs(24),
        attempted: 12_000,
        acked: 12_000,
        acked_bytes: 12_000 * 1_024,
        received: 24_000,
        received_bytes: 24_000 * 1_024,
        cpu: Duration::from_millis(600),
        net_received_bytes: 24_600_000,
        net_sent_bytes: 12_400_000,
        process: Process {
            cpu: Duration::from_millis(650),
            memory_bytes: 45_000_000,
            memory_bytes_max: 47_000_000,
            cores: 4,
            ..Process::default()
        },
        schedule_error: [15_000, 24_800, 25_000],
        schedule_lag: Duration::from_micros(20),
        clock: Some(WorkerClock {
            error: Duration::from_micros(120 + 10 * u64::from(worker)),
            drift_ppm: Some((3.125 - 5.0 * f64::from(worker), 0.25)),
            contradictions: 50,
        }),
        lost: None,
    }
}

/// The periods of [`fleet`] as they arrive, with each worker's part.
pub(crate) fn fleet_periods() -> Vec<Period> {
    let part = |worker| WorkerPeriod {
        worker: WorkerId(worker),
        elapsed: Duration::from_secs(1),
        attempted: 500,
        acked: 500,
        received: 1_000,
        schedule_lag: Duration::from_micros(20),
        cpu: Duration::from_millis(25),
        received_bytes: 1_025_000,
        sent_bytes: 516_000,
    };
    let with = |period| Period { workers: vec![part(0), part(1)], ..period };
    fleet().periods.iter().map(with).collect()
}

/// A worker's row with arbitrary numbers.
pub(crate) fn any_row() -> impl Strategy<Value = WorkerRow> {
    let clock = prop::option::of((any::<u32>(), prop::option::of((-1e6..1e6, 0.0..1e3))));
    let lost = prop::option::of((any::<u64>(), ".{0,20}"));
    (any::<[u64; 20]>(), 0..1_000_u32, ".{0,20}", clock, lost).prop_map(|(n, worker, name, clock, lost)| WorkerRow {
        worker: WorkerId(worker),
        name,
        producers: worker / 2,
        consumers: worker / 3,
        measured_for: Duration::from_nanos(n[0]),
        attempted: n[1],
        acked: n[2],
        acked_bytes: n[3],
        received: n[4],
        received_bytes: n[5],
        cpu: Duration::from_nanos(n[6]),
        net_received_bytes: n[7],
        net_sent_bytes: n[8],
        process: Process {
            cpu: Duration::from_nanos(n[9]),
            broker_cpu: Duration::from_nanos(n[10]),
            memory_bytes: n[11],
            memory_bytes_max: n[12],
            cores: worker % 130,
            received_bytes: n[13],
            sent_bytes: n[14],
        },
        schedule_error: [n[15], n[16], n[17]],
        schedule_lag: Duration::from_nanos(n[18]),
        clock: clock.map(|(error, drift_ppm)| WorkerClock {
            error: Duration::from_nanos(u64::from(error)),
            drift_ppm,
            contradictions: n[19],
        }),
        lost: lost.map(|(at, cause)| Lost {
            worker: WorkerId(worker),
            read: Some(Duration::from_nanos(at / 2)).filter(|_| at % 3 > 0),
            detected: Duration::from_nanos(at),
            cause,
        }),
    })
}
