//! Whole runs in this process, against a broker that can be inspected and stalled: the report matches what is stored,
//! and a stall of known length shows where it must and nowhere else.

use std::{
    collections::BTreeMap,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use omb_bench::{
    config::{
        driver::{DriverConfig, DriverKind, KafkaConfig},
        workload::{CatchUp, Clients, KeyDistributor, PayloadSource, RateGoal, Verify, Workload},
    },
    controller::{self, Controller, End, Settings},
    id::RunId,
    plan::{Plan, probing, sharing},
    protocol::Command,
    rate::Rate,
    result::{Drained, Phase, Report},
};
use omb_machine::{config::setting::Setting, seed::Seed};
use omb_runtime_real::{
    clock::Clock,
    embedded::{Options, Server},
    performer::Performer,
    portable::{event_loop::Clock as _, local},
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

/// Of the stall below.
const STALL: Duration = Duration::from_secs(2);
/// Latencies above it come from the stall: far above what a busy machine adds, far below the stall.
const LATE: Duration = Duration::from_millis(500);
/// How long the runs with a stall are measured.
const MEASURED: Duration = Duration::from_secs(6);

/// 1,000 messages a second.
fn workload() -> Workload {
    Workload {
        name: "golden".to_owned(),
        topics: 1,
        partitions_per_topic: 1,
        key_distributor: KeyDistributor::NoKey,
        message_size: 100,
        payload: PayloadSource::Random { ratio: 0.5, pool: 10 },
        subscriptions_per_topic: 1,
        consumers_per_subscription: 1,
        producers_per_topic: 1,
        rate: RateGoal::Fixed(Rate::per_second(1_000).expect("in range")),
        backlog: None,
        test_duration: MEASURED,
        warmup_duration: Duration::from_millis(500),
        seed: None,
        catch_up: CatchUp::All,
        verify: Verify::Full,
        clients: Clients::default(),
    }
}

/// What happens during the measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    Nothing,
    /// The broker is held up.
    Stall,
    /// Another member joins the group, stays for a second, and leaves it without having committed anything.
    Intruder,
}

/// What is to be seen of a run from outside.
struct Seen {
    end: End,
    report: Report,
    /// Messages sent before the load, to open the paths.
    probes: u64,
    /// Records that each topic holds when the report is made: the load has stopped, and nothing is torn down.
    stored: BTreeMap<String, u64>,
}

struct Watch<'a> {
    server: &'a Server,
    trouble: Trouble,
    /// Topic and group of the first subscription.
    names: (String, String),
    intruder: Option<JoinHandle<()>>,
    /// Probes of one round.
    paths: u64,
    probes: u64,
    measured: u32,
    report: Option<Report>,
    stored: BTreeMap<String, u64>,
}

impl local::Observer for Watch<'_> {
    fn on_output(&mut self, output: &controller::Output) {
        match output {
            controller::Output::ToWorker { request, .. } if matches!(request.command, Command::Probe { .. }) => {
                self.probes += self.paths;
            }
            controller::Output::Period(period) if period.phase == Phase::Measure => {
                self.measured += 1;
                match self.trouble {
                    Trouble::Stall if self.measured == 1 => self.server.stall(STALL),
                    Trouble::Intruder if self.measured == 1 => {
                        let (address, (topic, group)) = (self.server.addr().to_string(), self.names.clone());
                        self.intruder = Some(std::thread::spawn(move || intrude(&address, &topic, &group)));
                    }
                    _ => {}
                }
            }
            controller::Output::Report(report) => {
                self.report = Some(report.as_ref().clone());
                self.stored = self.server.look(|broker, _| {
                    let stored = |topic: &str, partitions: i32| {
                        let partitions = 0..partitions.cast_unsigned();
                        let logs = partitions.filter_map(|partition| broker.log(topic, partition));
                        logs.map(|log| u64::try_from(log.end()).expect("offsets are not negative")).sum()
                    };
                    broker.topics().map(|topic| (topic.name.clone(), stored(&topic.name, topic.partitions))).collect()
                });
            }
            _ => {}
        }
    }
}

/// Takes part in a group for a second.
fn intrude(address: &str, topic: &str, group: &str) {
    let mut config = ClientConfig::new();
    for (key, value) in [("bootstrap.servers", address), ("group.id", group), ("enable.auto.commit", "false")] {
        config.set(key, value);
    }
    let consumer: BaseConsumer = config.create().expect("a consumer");
    consumer.subscribe(&[topic]).expect("a topic");
    let began = Instant::now();
    let mut since = None;
    while since.is_none_or(|since: Instant| since.elapsed() < Duration::from_secs(1)) {
        assert!(began.elapsed() < Duration::from_secs(30), "it is given its share");
        let _ = consumer.poll(Duration::from_millis(20));
        if since.is_none() && consumer.assignment().is_ok_and(|share| share.count() > 0) {
            since = Some(Instant::now());
        }
    }
}

/// Plays one run against a broker of its own, with this stall and these settings of the producer.
#[track_caller]
fn play(workload: Workload, producer: &[(&str, &str)], trouble: Trouble, settings: impl FnOnce(&mut Settings)) -> Seen {
    let server = Server::start(Options::default()).expect("a free port on loopback");
    let map = |more: &[(&str, &str)]| -> BTreeMap<String, Setting> {
        let address = server.addr().to_string();
        let pairs = more.iter().copied().chain([("bootstrap.servers", address.as_str())]);
        pairs.map(|(key, value)| (key.to_owned(), value.into())).collect()
    };
    let kafka = KafkaConfig {
        replication_factor: 1,
        topic: BTreeMap::new(),
        common: map(&[]),
        producer: map(producer),
        consumer: map(&[
            ("auto.offset.reset", "earliest"),
            ("enable.auto.commit", "false"),
            ("heartbeat.interval.ms", "300"),
        ]),
    };
    let driver = DriverConfig { name: "golden".to_owned(), kind: DriverKind::Kafka(kafka) };
    let mut chosen = Settings::new(driver);
    settings(&mut chosen);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let mut performer = Performer::start(runtime.handle().clone(), Options::default());
    let plan = Plan::new(RunId(7), Seed(7), workload, 1);
    let pairs = probing::pairs(plan.workload.producers_per_topic, plan.workload.partitions_per_topic);
    let paths = pairs * u64::from(plan.workload.topics);
    let names = (plan.topics[0].name.clone(), plan.subscriptions[0].name.clone());
    let mut watch = Watch {
        server: &server,
        trouble,
        names,
        intruder: None,
        paths,
        probes: 0,
        measured: 0,
        report: None,
        stored: BTreeMap::new(),
    };
    let (_stop, mut stops) = tokio::sync::mpsc::unbounded_channel();
    let began = Instant::now();
    let controller = Controller::new(Clock.now(), plan, chosen);
    let end = runtime.block_on(local::run(controller, &mut performer, &mut watch, &mut stops, &Clock));
    println!("ended after {:?}: {end:?}", began.elapsed());
    let Watch { report, stored, probes, intruder, .. } = watch;
    if let Some(intruder) = intruder {
        intruder.join().expect("it leaves");
    }
    Seen { end, report: report.expect("a report"), probes, stored }
}

/// Every message was acknowledged, is stored, and was received once by every subscription.
#[track_caller]
fn whole(seen: &Seen) {
    let Seen { end, report, probes, stored } = seen;
    assert_eq!(end, &End::Sound, "{:?}", report.problems);
    let (attempted, acks) = (report.whole.departures.attempted, &report.whole.acknowledgements);
    assert_eq!((acks.acked, acks.failed), (attempted, 0), "{:?}", report.problems);
    let in_log: u64 = stored.values().sum();
    assert_eq!(in_log, acks.acked + probes, "the logs hold what was acknowledged, and the probes");
    assert_eq!(report.verdict.drained, Drained::Completely);
    assert_eq!(report.verdict.missing(), 0);
    for (subscription, (seen, missing)) in &report.verdict.subscriptions {
        let topic = report.plan.subscriptions[subscription.0 as usize].topic;
        let probed = probes / report.plan.topics.len() as u64;
        let in_topic = stored[&report.plan.topics[topic.0 as usize].name] - probed;
        assert_eq!([seen.received, seen.distinct, missing.confirmed], [in_topic; 3], "subscription {subscription:?}");
    }
    // The periods, and what came after them, add up to the whole.
    let phases: u64 = report.phases.iter().map(|phase| phase.totals.acknowledgements.acked).sum();
    assert_eq!(phases, acks.acked);
    assert_eq!(acks.from_intended.count(), acks.acked, "every acknowledged message has its latency");
    assert_eq!(report.whole.departures.schedule_error.count(), attempted);
    assert_eq!(report.whole.arrivals.from_intended.count(), report.whole.arrivals.received);
}

#[track_caller]
fn about(share: f64, wanted: std::ops::RangeInclusive<f64>, what: &str) {
    assert!(wanted.contains(&share), "{what}: a share of {share:.4} is late, where {wanted:?} is right");
}

/// Of all messages, those whose latency the stall alone puts above [`LATE`]: 1.5 of 6 seconds' worth. Late is also what
/// leaves while a busy machine catches up.
const HIT: std::ops::RangeInclusive<f64> = 0.20..=0.36;
/// A few messages, but no share that a stall could have.
const SPARED: std::ops::RangeInclusive<f64> = 0.0..=0.03;

fn late() -> u64 {
    u64::try_from(LATE.as_nanos()).expect("half a second")
}

#[test]
fn what_the_report_counts_is_what_the_broker_holds() {
    let workload = Workload {
        topics: 3,
        partitions_per_topic: 4,
        key_distributor: KeyDistributor::RoundRobin,
        subscriptions_per_topic: 2,
        consumers_per_subscription: 2,
        producers_per_topic: 2,
        rate: RateGoal::Fixed(Rate::per_second(6_000).expect("in range")),
        test_duration: Duration::from_millis(1_500),
        ..workload()
    };
    let seen = play(workload, &[("acks", "all"), ("linger.ms", "1")], Trouble::Nothing, |_| {});
    whole(&seen);
    assert_eq!(seen.stored.len(), 3);
    let acked = seen.report.whole.acknowledgements.acked;
    assert!(acked >= 12_000, "2 s at 6,000 a second: {acked}");
}

/// Many producers with little to send share clients, and their consumers share threads: what each topic was sent,
/// confirmed and brought is counted separately, also while they wait for a stalled broker and their one queue of 30 is
/// full.
#[test]
fn producers_that_share_a_client_are_counted_separately() {
    let workload = Workload {
        topics: 40,
        partitions_per_topic: 2,
        key_distributor: KeyDistributor::RoundRobin,
        rate: RateGoal::Fixed(Rate::per_second(1_000).expect("in range")),
        test_duration: Duration::from_millis(3_500),
        ..workload()
    };
    let plan = Plan::new(RunId(7), Seed(7), workload.clone(), 1);
    assert_eq!(sharing::all_producer_clients(&plan), 20, "they share");
    assert_eq!(sharing::receiving_threads(&plan, &plan.shares()[0]), 20);
    let producer = [("acks", "all"), ("linger.ms", "1"), ("queue.buffering.max.messages", "30")];
    let seen = play(workload, &producer, Trouble::Stall, |_| {});
    whole(&seen);
    assert_eq!(seen.stored.len(), 40);
    let answered = seen.report.answered();
    let worst = Duration::from_nanos(answered.acknowledgements.from_intended.max());
    assert!(worst >= Duration::from_millis(1_900), "the first to wait waited for all of it, not {worst:?}");
    assert_eq!(seen.report.whole.departures.skipped, 0, "the whole debt is sent");
}

/// (a) The broker stalls. Messages leave on time and wait for it: both latencies show it, the sender's own does not.
#[test]
fn a_stall_of_the_broker_shows_from_both_instants_and_not_in_the_schedule() {
    let seen = play(workload(), &[("acks", "all"), ("linger.ms", "1")], Trouble::Stall, |_| {});
    whole(&seen);
    let answered = seen.report.answered();
    about(answered.acknowledgements.from_intended.share_above(late()), HIT, "publish, from intended");
    about(answered.acknowledgements.from_sent.share_above(late()), HIT, "publish, from sent");
    about(answered.arrivals.from_intended.share_above(late()), HIT, "end-to-end, from intended");
    about(answered.arrivals.from_sent.share_above(late()), HIT, "end-to-end, from sent");
    about(answered.departures.schedule_error.share_above(late()), SPARED, "schedule error");
    let worst = Duration::from_nanos(answered.acknowledgements.from_sent.max());
    assert!(worst >= Duration::from_millis(1_900), "the first to wait waited for all of it, not {worst:?}");
    assert_eq!(seen.report.whole.departures.skipped, 0);
}

/// (b) The client takes no more, since its queue of 10 is full. Messages leave late: latency from the intended instant
/// and the schedule error show it; from the send only those in the queue do.
#[test]
fn a_sender_held_up_shows_from_the_intended_instant_and_in_the_schedule() {
    let producer = [("acks", "all"), ("linger.ms", "0"), ("queue.buffering.max.messages", "10")];
    let seen = play(workload(), &producer, Trouble::Stall, |_| {});
    whole(&seen);
    let answered = seen.report.answered();
    about(answered.acknowledgements.from_intended.share_above(late()), HIT, "publish, from intended");
    about(answered.departures.schedule_error.share_above(late()), HIT, "schedule error");
    about(answered.arrivals.from_intended.share_above(late()), HIT, "end-to-end, from intended");
    about(answered.acknowledgements.from_sent.share_above(late()), SPARED, "publish, from sent");
    about(answered.arrivals.from_sent.share_above(late()), SPARED, "end-to-end, from sent");
    let worst = Duration::from_nanos(answered.acknowledgements.from_sent.max());
    assert!(worst >= Duration::from_millis(1_900), "those in the queue waited for all of it, not {worst:?}");
    assert_eq!(seen.report.whole.departures.skipped, 0, "the whole debt is sent");
}

/// The same stall, but at most half a second of backlog is kept: the rest is never sent, and counted.
#[test]
fn a_debt_beyond_its_cap_is_skipped_and_counted() {
    let producer = [("acks", "all"), ("linger.ms", "0"), ("queue.buffering.max.messages", "10")];
    let workload = Workload { catch_up: CatchUp::Cap(LATE), ..workload() };
    let seen = play(workload, &producer, Trouble::Stall, |_| {});
    whole(&seen);
    let skipped = seen.report.whole.departures.skipped;
    assert!((1_200..=1_900).contains(&skipped), "1.5 s of 1,000 a second: {skipped}");
    let late = u64::try_from((LATE + LATE / 2).as_nanos()).expect("less than a second");
    about(seen.report.answered().departures.schedule_error.share_above(late), SPARED, "schedule error");
}

/// A rebalance is no fault of the system's: it is named, and what is read again for it is neither a double nor has it a
/// latency.
#[test]
fn a_rebalance_under_load_is_named_and_accuses_nobody() {
    let workload = Workload { partitions_per_topic: 4, consumers_per_subscription: 2, ..workload() };
    let Seen { end, report, .. } = play(workload, &[("acks", "all"), ("linger.ms", "1")], Trouble::Intruder, |_| {});
    assert_eq!(end, End::Sound, "{:?}", report.problems);
    let (id, (seen, missing)) = report.verdict.subscriptions.iter().next().expect("one subscription");
    let rebalances = &report.rebalances[id];
    assert!(rebalances.count >= 2, "it came and went: {rebalances:?}");
    let when = Duration::from_secs(1)..Duration::from_secs(8);
    assert!(rebalances.at.iter().all(|at| when.contains(at)), "{rebalances:?}");
    assert_eq!(report.periods.iter().map(|period| period.rebalances).sum::<u64>(), rebalances.count);
    assert_eq!((missing.missing, seen.duplicated), (0, 0), "{seen:?}");
    assert!(seen.reread > 0, "offsets are committed once a second, and 1,000 messages come in one: {seen:?}");
    let arrivals = &report.whole.arrivals;
    assert_eq!(seen.distinct + seen.reread, arrivals.received);
    assert!(arrivals.reread > 0 && arrivals.reread <= seen.reread, "{} of {}", arrivals.reread, seen.reread);
    let latencies = arrivals.from_intended.count();
    assert_eq!(latencies + arrivals.reread, arrivals.received, "what is read again has no latency");
}

/// A client that can have 99 messages in flight and lets them linger for 20 ms carries less than 5,000 a second. The
/// search begins at 10,000, finds a rate below, and measures at it.
#[test]
fn the_highest_rate_is_found_and_held() {
    let producer = [("acks", "all"), ("linger.ms", "20"), ("queue.buffering.max.messages", "100")];
    let workload = Workload {
        rate: RateGoal::Search,
        test_duration: Duration::from_secs(1),
        warmup_duration: Duration::from_millis(300),
        ..workload()
    };
    let seen = play(workload, &producer, Trouble::Nothing, |settings| {
        settings.period = Duration::from_millis(200);
        settings.search_within = Duration::from_secs(90);
    });
    whole(&seen);
    let report = &seen.report;
    let found = report.found.expect("a rate");
    assert!((300..6_000).contains(&found.rate), "{found:?}");
    assert!(found.failed_at.is_some_and(|failed| failed > found.rate && failed <= 10_000), "{found:?}");
    let measured: Vec<f64> =
        report.periods.iter().filter(|period| period.phase == Phase::Measure).map(|period| period.target).collect();
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let rate = found.rate as f64;
    assert!(!measured.is_empty() && measured.iter().all(|target| (target - rate).abs() < 0.5), "{measured:?}");
}
