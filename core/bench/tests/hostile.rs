//! Any decodable message may reach a controller and a worker: neither panics, and both come to rest.

use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

use omb_bench::{
    config::{
        driver::{DriverConfig, DriverKind},
        terms::Terms,
        workload::{CatchUp, Clients, KeyDistributor, PayloadSource, RateGoal, Verify, Workload},
    },
    controller::{self, Clocks, Controller, OnLoss, Settings, Trouble, TroubleKind},
    id::{ProducerId, RunId, SubscriptionId, TopicIndex, WorkerId},
    load::{payload::PayloadRecipe, silence::Silence},
    offset::Exchange,
    plan::{Plan, rate::Rate},
    protocol::{
        self, Command, Event, Failure, FailureKind, Ping, Request, Response,
        command::{Begin, ConsumerSpec, Preparation, ProducerSpec, Reach, TopicSpec, Window},
        event::{Findings, GroupView, Missing, Problem, Process, Snapshot},
    },
    stats::{
        offsets::OffsetRanges,
        sequence::SequenceSet,
        tally::{Seen, Totals},
    },
    worker::{self, Worker},
};
use omb_machine::{
    Machine, encoding,
    seed::Seed,
    settle,
    time::{Instant, WallTime},
};
use proptest::prelude::*;

/// Steps of a conversation; a run with sound workers takes some 60.
const STEPS: usize = 120;

/// A worker's wall time at its `Instant::ZERO`.
const WALL_ZERO: u64 = 1_700_000_000_000_000_000;

/// Small, or at an edge.
fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..3_000_u64, 1 => Just(u64::MAX), 1 => Just(1 << 63), 1 => any::<u64>()]
}

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![3 => (0..5_000_u64).prop_map(Duration::from_millis), 1 => Just(Duration::MAX), 1 => Just(Duration::ZERO)]
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("a".to_owned()), Just("\u{1b}[31m\n\u{202e}".to_owned())]
}

fn sets() -> impl Strategy<Value = SequenceSet> {
    let few = prop::collection::vec(0..500_u64, 0..40).prop_map(SequenceSet::from_iter);
    // As high as is believed.
    let full = Just(encoding::decode(&encoding::encode(&(1_u64 << 62, Vec::<u8>::new(), Vec::<u8>::new()))));
    prop_oneof![3 => few, 1 => full.prop_map(|set| set.expect("the highest base is believed"))]
}

fn totals() -> impl Strategy<Value = Totals> {
    let counts = prop::collection::vec(numbers(), 16);
    let seen = prop::collection::btree_map(0..8_u32, prop::collection::vec(numbers(), 5), 0..6);
    (counts, seen, prop::collection::vec(numbers(), 0..8)).prop_map(|(counts, seen, latencies)| {
        let mut totals = Totals::default();
        (totals.departures.attempted, totals.departures.skipped) = (counts[0], counts[1]);
        let acknowledgements = &mut totals.acknowledgements;
        (acknowledgements.acked, acknowledgements.acked_bytes, acknowledgements.failed) =
            (counts[2], counts[3], counts[4]);
        let arrivals = &mut totals.arrivals;
        (arrivals.received, arrivals.received_bytes, arrivals.corrupted) = (counts[5], counts[6], counts[7]);
        (arrivals.headerless, arrivals.before_intended, arrivals.reread) = (counts[8], counts[9], counts[10]);
        for latency in latencies {
            totals.departures.schedule_error.record(latency);
            totals.acknowledgements.from_intended.record(latency);
            totals.arrivals.from_sent.record(latency);
        }
        totals.seen = seen
            .into_iter()
            .map(|(id, n)| {
                let [received, distinct, duplicated, reread, reordered] = [n[0], n[1], n[2], n[3], n[4]];
                (SubscriptionId(id), Seen { received, distinct, duplicated, reread, reordered })
            })
            .collect();
        totals
    })
}

fn processes() -> impl Strategy<Value = Process> {
    (durations(), durations(), prop::collection::vec(numbers(), 4), any::<u32>()).prop_map(
        |(cpu, broker_cpu, n, cores)| Process {
            cpu,
            broker_cpu,
            memory_bytes: n[0],
            memory_bytes_max: n[1],
            cores,
            received_bytes: n[2],
            sent_bytes: n[3],
        },
    )
}

/// All groups of [`workload`], as one worker that has all of them sees them.
fn settled() -> BTreeMap<SubscriptionId, GroupView> {
    let view = GroupView { joined: 2, generations: (1, 1), assigned: 2, rebalances: 0, last: None };
    (0..6).map(|id| (SubscriptionId(id), view)).collect()
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let probed = prop::collection::btree_map((0..8_u32).prop_map(SubscriptionId), sets(), 0..3);
    let problems = prop::collection::vec((texts(), numbers()), 0..4);
    let view = (any::<u32>(), any::<(i32, i32)>(), any::<u32>(), numbers(), prop::option::of(durations())).prop_map(
        |(joined, generations, assigned, rebalances, last)| GroupView {
            joined,
            generations,
            assigned,
            rebalances,
            last,
        },
    );
    // Mostly settled, so that what comes behind is reached.
    let views = prop::collection::btree_map((0..8_u32).prop_map(SubscriptionId), view, 0..3);
    let groups =
        (prop_oneof![6 => Just(None), 1 => views.prop_map(Some)], numbers(), prop::option::weighted(0.02, failures()));
    (numbers(), numbers(), totals(), numbers(), durations(), numbers(), probed, processes(), (problems, groups))
        .prop_map(
            |(taken_at, wall, totals, in_flight, schedule_lag, paths_open, probed, process, (problems, groups))| {
                Snapshot {
                    taken_at: Instant(taken_at),
                    wall: WallTime(wall),
                    totals: (&totals).into(),
                    in_flight,
                    schedule_lag,
                    paths_open,
                    probed,
                    process,
                    throttled: schedule_lag,
                    silences: vec![Silence {
                        from: schedule_lag,
                        until: (in_flight % 2 == 0).then_some(Duration::MAX),
                        why: None,
                    }],
                    problems: problems.into_iter().map(|(what, count)| Problem { what, count }).collect(),
                    groups: groups.0.unwrap_or_else(settled),
                    probes_pending: groups.1,
                    hopeless: groups.2,
                }
            },
        )
}

fn findings() -> impl Strategy<Value = Findings> {
    // As high as a set's size can be: the sum over these subscriptions fits.
    let sizes = || prop_oneof![0..3_000_u64, 0..(1_u64 << 60)];
    let compared = prop::collection::btree_map(0..8_u32, (sizes(), sizes(), any::<bool>()), 0..5);
    let confirmed = prop::collection::btree_map((0..8_u32).prop_map(ProducerId), sets(), 0..5);
    let received =
        prop::collection::btree_map((0..8_u32).prop_map(SubscriptionId), prop::collection::vec(sets(), 0..4), 0..5);
    let ranges = prop::collection::vec((0..40_u64, 0..9_u64), 0..4)
        .prop_map(|pairs| pairs.into_iter().flat_map(|(from, count)| from..from + count).collect::<OffsetRanges>());
    let offsets =
        prop::collection::btree_map((0..8_u32).prop_map(SubscriptionId), prop::collection::vec(ranges, 0..4), 0..5);
    let findings = (compared, confirmed, received, offsets, any::<bool>());
    findings.prop_map(|(compared, confirmed, received, offsets, by_count_only)| Findings {
        compared: compared
            .into_iter()
            .map(|(id, (confirmed, missing, by_count_only))| {
                (SubscriptionId(id), Missing { confirmed, missing, by_count_only })
            })
            .collect(),
        confirmed,
        received,
        offsets,
        by_count_only,
    })
}

fn failures() -> impl Strategy<Value = Failure> {
    let kinds = [
        FailureKind::Configuration,
        FailureKind::Unreachable,
        FailureKind::Refused,
        FailureKind::Protocol,
        FailureKind::Forgotten,
        FailureKind::Broken,
    ];
    (prop::sample::select(kinds.to_vec()), texts()).prop_map(|(kind, text)| Failure::new(kind, text))
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => texts().prop_map(|system| Event::Prepared { system }),
        1 => Just(Event::Done),
        4 => snapshots().prop_map(|snapshot| Event::Read(Box::new(snapshot))),
        2 => findings().prop_map(|findings| Event::Verified(Box::new(findings))),
    ]
}

/// What a worker may send next.
#[derive(Clone, Debug)]
enum Said {
    /// What fits the question, so that the run goes on.
    Sound,
    /// Likewise, with numbers from nowhere.
    Fitting(Box<(Snapshot, Findings)>),
    /// Anything.
    Other(Box<Event>),
    Failed(Failure),
    /// The bytes of the sound answer, but for one.
    Flipped(usize, u8),
    /// About another run, or another command.
    Astray(u64, u64, bool),
    Broken(u8),
    Silent,
}

fn sayings() -> impl Strategy<Value = Said> {
    prop_oneof![
        40 => Just(Said::Sound),
        12 => (snapshots(), findings()).prop_map(|both| Said::Fitting(Box::new(both))),
        1 => events().prop_map(|event| Said::Other(Box::new(event))),
        1 => failures().prop_map(Said::Failed),
        2 => (any::<usize>(), any::<u8>()).prop_map(|(place, bits)| Said::Flipped(place, bits)),
        2 => (numbers(), numbers(), any::<bool>()).prop_map(|(run, number, lease)| Said::Astray(run, number, lease)),
        2 => any::<u8>().prop_map(Said::Broken),
        2 => Just(Said::Silent),
    ]
}

fn workload(rate: RateGoal) -> Workload {
    Workload {
        name: "w".to_owned(),
        topics: 3,
        partitions_per_topic: 2,
        key_distributor: KeyDistributor::NoKey,
        message_size: 100,
        payload: PayloadSource::Random { ratio: 1.0, pool: 1 },
        subscriptions_per_topic: 2,
        consumers_per_subscription: 2,
        producers_per_topic: 2,
        rate,
        backlog: None,
        test_duration: Duration::from_secs(5),
        warmup_duration: Duration::from_secs(1),
        seed: None,
        catch_up: CatchUp::All,
        verify: Verify::Header,
        clients: Clients::default(),
    }
}

/// What a sound worker answers that has nothing to do.
fn sound(command: &Command, now: Instant) -> Event {
    match command {
        Command::Prepare(_) => Event::Prepared { system: "model".to_owned() },
        Command::Read { .. } => Event::Read(Box::new(Snapshot {
            taken_at: now,
            wall: WallTime(now.0),
            paths_open: 100,
            groups: settled(),
            ..Snapshot::default()
        })),
        Command::Verify => Event::Verified(Box::default()),
        _ => Event::Done,
    }
}

fn answer(said: &Said, request: &Request, worker: WorkerId, now: Instant) -> Option<controller::Input> {
    let (run, number) = (request.run, request.number);
    let response = |outcome| Response { run, number, outcome, lease_ended: false };
    let response = match said {
        Said::Sound => response(Ok(sound(&request.command, now))),
        Said::Fitting(both) => response(Ok(match sound(&request.command, now) {
            Event::Read(_) => Event::Read(Box::new(both.0.clone())),
            Event::Verified(_) => Event::Verified(Box::new(both.1.clone())),
            other => other,
        })),
        Said::Other(event) => response(Ok((**event).clone())),
        Said::Failed(failure) => response(Err(failure.clone())),
        Said::Flipped(place, bits) => {
            let mut bytes = encoding::encode(&response(Ok(sound(&request.command, now))));
            let place = place % bytes.len();
            bytes[place] ^= bits;
            encoding::decode(&bytes).ok()?
        }
        Said::Astray(run, number, lease_ended) => Response {
            run: RunId(*run),
            number: *number,
            outcome: Ok(sound(&request.command, now)),
            lease_ended: *lease_ended,
        },
        Said::Broken(kind) => {
            let kinds = [TroubleKind::Unconnected, TroubleKind::Broken, TroubleKind::Refused, TroubleKind::Leaving];
            let trouble = Trouble { kind: kinds[usize::from(*kind) % kinds.len()], cause: "broken".to_owned() };
            return Some(controller::Input::CallFailed { worker, number, trouble });
        }
        Said::Silent => return None,
    };
    Some(controller::Input::FromWorker { worker, response })
}

/// Plays a run whose workers send this, and then go on soundly. Returns how long it took.
fn play(plan: Plan, settings: Settings, mut said: impl Iterator<Item = (Said, [u64; 3])>) -> Duration {
    let began = Instant(7_000_000_000);
    let mut now = began;
    let mut controller = Controller::new(now, plan, settings);
    let mut finished = false;
    // A run that goes on for ever is a failure of its own.
    for _ in 0..100_000 {
        let (mut asked, mut pinged) = (Vec::new(), Vec::new());
        let wake = settle(&mut controller, now, |output| {
            match output {
                controller::Output::ToWorker { worker, request, .. } => asked.push((worker, request)),
                controller::Output::Ping { worker, .. } => pinged.push(worker),
                controller::Output::Finished(_) => finished = true,
                _ => {}
            }
            ControlFlow::Continue(())
        });
        if finished {
            return now.since(began);
        }
        let ControlFlow::Continue(wake) = wake else { unreachable!("nothing breaks") };
        let mut heard = false;
        now += Duration::from_millis(1);
        for worker in pinged {
            let sane = [now.0, now.0, now.0];
            let [received, answered, _] =
                said.next().map_or(sane, |(said, odd)| if matches!(said, Said::Sound) { sane } else { odd });
            let exchange = Exchange {
                sent: now,
                received: WallTime(received),
                answered: WallTime(answered),
                back: now + Duration::from_micros(9),
            };
            controller.handle_input(now, controller::Input::Pong { worker, exchange });
        }
        for (worker, request) in asked {
            let (saying, _) = said.next().unwrap_or((Said::Sound, [0; 3]));
            if let Some(input) = answer(&saying, &request, worker, now) {
                // Twice, which must make no difference.
                controller.handle_input(now, input.clone());
                controller.handle_input(now, input);
                heard = true;
            }
        }
        if !heard {
            now = now.max(wake.expect("a run that waits for nothing would never end").at);
            controller.handle_timeout(now);
        }
    }
    panic!("the run does not end");
}

fn commands() -> impl Strategy<Value = Command> {
    let preparations = (durations(), durations(), texts(), any::<bool>(), any::<u32>()).prop_map(
        |(lease, setup_within, controller, take_over, producers_per_topic)| {
            Command::Prepare(Box::new(Preparation {
                driver: DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded },
                seed: Seed(1),
                payload: PayloadRecipe::Given(Vec::new()),
                keys: KeyDistributor::NoKey,
                catch_up: CatchUp::All,
                verify: Verify::Header,
                producers_per_topic,
                lease,
                setup_within,
                controller,
                take_over,
            }))
        },
    );
    let rate = || (1..=Rate::HIGHEST).prop_map(|rate| Rate::per_second(rate).expect("in range"));
    prop_oneof![
        4 => preparations,
        1 => texts().prop_map(|name| Command::CreateTopics(vec![TopicSpec { name, partitions: 0 }])),
        1 => any::<u32>().prop_map(|id| Command::CreateConsumers(vec![ConsumerSpec {
            id: omb_bench::id::ConsumerId(id), topic_index: TopicIndex(id), topic: String::new(),
            subscription: SubscriptionId(id), group: String::new(), members: 0, partitions: 0, whole: true, thread: id,
        }])),
        1 => any::<u32>().prop_map(|id| Command::CreateProducers(vec![ProducerSpec {
            id: ProducerId(id), topic: String::new(), partitions: 0, whole: false, client: id,
        }])),
        1 => numbers().prop_map(|round| Command::Probe { round }),
        1 => (rate(), any::<u32>(), numbers(), any::<i64>(), any::<[u32; 2]>()).prop_map(
            |(rate, producers, at, correction, [from, until])| {
                let [from, until] = [from, until].map(|nanos| std::time::Duration::from_nanos(nanos.into()));
                let window = Some(Window { from, until }).filter(|_| from.as_nanos() % 2 == 0);
                Command::StartLoad { tempo: rate.into(), producers, begin: Begin::At(WallTime(at)), window, correction }
            }
        ),
        1 => rate().prop_map(|rate| Command::SetRate { rate }),
        1 => Just(Command::PauseConsumers),
        1 => Just(Command::ResumeConsumers),
        1 => any::<(i64, bool)>().prop_map(|(correction, whole)| Command::Read { correction, reach: Reach::Measured { whole } }),
        1 => durations().prop_map(|within| Command::StopLoad { within }),
        1 => Just(Command::Verify),
        1 => Just(Command::DeleteTopics { within: Duration::MAX, topics: vec![String::new()], groups: vec![String::new()] }),
        1 => Just(Command::Close),
    ]
}

/// What may happen to a worker next.
#[derive(Clone, Debug)]
enum Happens {
    Command(Box<Request>),
    /// The next number of a run in its own order.
    InOrder(u64, Box<Command>),
    Flipped(Box<Command>, usize, u8),
    Heard(u64, Option<u64>),
    Done(Result<Box<Event>, Failure>),
    DoneAstray(u64),
    Time(Duration),
    Wake,
    Shutdown,
}

fn happenings() -> impl Strategy<Value = Happens> {
    let versions = prop_oneof![9 => Just(protocol::VERSION), 1 => any::<u16>()];
    let sent = || prop::option::of(prop_oneof![(0..(1_u64 << 40)).prop_map(|after| WALL_ZERO + after), numbers()]);
    let requests = (versions, 0..3_u64, numbers(), sent(), commands());
    prop_oneof![
        6 => (0..3_u64, commands()).prop_map(|(run, command)| Happens::InOrder(run, Box::new(command))),
        3 => requests.prop_map(|(version, run, number, sent, command)| {
            Happens::Command(Box::new(Request { version, run: RunId(run), number, sent: sent.map(WallTime), command }))
        }),
        2 => (0..3_u64, sent()).prop_map(|(run, sent)| Happens::Heard(run, sent)),
        2 => (commands(), any::<usize>(), any::<u8>()).prop_map(|(command, place, bits)| Happens::Flipped(Box::new(command), place, bits)),
        5 => prop_oneof![4 => events().prop_map(|event| Ok(Box::new(event))), 1 => failures().prop_map(Err)].prop_map(Happens::Done),
        1 => numbers().prop_map(Happens::DoneAstray),
        2 => durations().prop_map(Happens::Time),
        2 => Just(Happens::Wake),
        // Last of all, or hardly anything would be tried.
        1 => Just(Happens::Shutdown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_controller_bears_whatever_workers_say(
        said in prop::collection::vec((sayings(), [numbers(), numbers(), numbers()]), 0..STEPS),
        workers in 1..4_u32,
        search in any::<bool>(),
        go_on in any::<bool>(),
        measured in any::<bool>(),
    ) {
        let rate = if search { RateGoal::Search } else { RateGoal::Fixed(Rate::per_second(1_000).expect("in range")) };
        let workload = workload(rate);
        let mut settings = Settings::new(DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded });
        settings.on_loss = if go_on { OnLoss::Continue } else { OnLoss::Fail };
        settings.clocks = if measured { Clocks::Measured } else { Clocks::Same };
        let bound = settings.longest(&workload, workers);
        let took = play(Plan::new(RunId(1), Seed(1), workload, workers), settings, said.into_iter());
        prop_assert!(took <= bound, "it took {took:?}, its bound is {bound:?}");
    }

    #[test]
    fn a_worker_bears_any_message(happenings in prop::collection::vec(happenings(), 0..STEPS)) {
        let (mut worker, mut now) = (Worker::new(WallTime(WALL_ZERO), Terms::foreign()), Instant(1_000));
        let mut under_way: Vec<u64> = Vec::new();
        let mut numbers: BTreeMap<u64, u64> = BTreeMap::new();
        for happens in happenings {
            let input = match happens {
                Happens::Command(request) => Some(worker::Input::Command(*request)),
                Happens::InOrder(run, command) => {
                    let number = numbers.entry(run).or_default();
                    *number += 1;
                    Some(request(run, *number, *command))
                }
                Happens::Flipped(command, place, bits) => {
                    let (version, sent) = (protocol::VERSION, Some(WallTime(WALL_ZERO)));
                    let request = Request { version, run: RunId(1), number: 1, sent, command: *command };
                    let mut bytes = encoding::encode(&request);
                    let place = place % bytes.len();
                    bytes[place] ^= bits;
                    protocol::decode_request(&bytes).ok().map(worker::Input::Command)
                }
                Happens::Heard(run, sent) => {
                    Some(worker::Input::Heard(Ping { run: RunId(run), sent: sent.map(WallTime) }))
                }
                Happens::Done(outcome) => under_way
                    .pop()
                    .map(|ticket| worker::Input::Done { ticket, outcome: outcome.map(|event| *event) }),
                Happens::DoneAstray(ticket) => Some(worker::Input::Done { ticket, outcome: Ok(Event::Done) }),
                Happens::Time(passes) => {
                    now += passes.min(Duration::from_secs(3_600));
                    None
                }
                Happens::Wake => {
                    now = worker.poll_timeout().map_or(now, |wake| now.max(wake.at));
                    None
                }
                Happens::Shutdown => (numbers.len() > 2).then_some(worker::Input::Shutdown),
            };
            if let Some(input) = input {
                worker.handle_input(now, input);
            }
            worker.handle_timeout(now);
            let _ = settle(&mut worker, now, |output| {
                if let worker::Output::Perform { ticket, .. } = output {
                    under_way.push(ticket);
                }
                ControlFlow::Continue(())
            });
        }
        // However it was left, it can be ended: whatever it still performs comes to an end.
        worker.handle_input(now, worker::Input::Shutdown);
        let mut over = false;
        for _ in 0..10 {
            let _ = settle(&mut worker, now, |output| {
                match output {
                    worker::Output::Perform { ticket, .. } => under_way.push(ticket),
                    worker::Output::ShutDown => over = true,
                    _ => {}
                }
                ControlFlow::Continue(())
            });
            for ticket in std::mem::take(&mut under_way) {
                worker.handle_input(now, worker::Input::Done { ticket, outcome: Ok(Event::Done) });
            }
        }
        // One that a shutdown among the happenings ended has reported it then.
        prop_assert!(over || worker.run().is_none(), "it cannot be ended: {worker:?}");
    }
}

fn request(run: u64, number: u64, command: Command) -> worker::Input {
    worker::Input::Command(Request { version: protocol::VERSION, run: RunId(run), number, sent: None, command })
}
