//! Whole fleets of bare machines, without a runtime: a controller and its workers, with a network between them that
//! loses, doubles, delays and cuts exchanges, and processes that die, freeze and come back, all drawn by proptest.
//!
//! This is the quick tier of the simulation (some thousand schedules a second); `sim-tests` plays whole programs.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    ops::ControlFlow,
    time::Duration,
};

use omb_bench::{
    config::{
        driver::{DriverConfig, DriverKind},
        terms::Terms,
        workload::{CatchUp, Clients, KeyDistributor, PayloadSource, RateGoal, Verify, Workload},
    },
    controller::{self, Clocks, Controller, End, OnLoss, Settings, Trouble, TroubleKind},
    id::{ConsumerId, ProducerId, RunId, SubscriptionId, WorkerId},
    offset::Exchange,
    plan::Plan,
    protocol::{
        self, Command, Event, Failure, FailureKind, Ping,
        command::Begin,
        event::{Findings, GroupView, Missing, Snapshot},
    },
    rate::Rate,
    result::Report,
    stats::{sequence::SequenceSet, tally::Seen},
    worker::{self, Worker},
};
use omb_machine::{
    Machine, encoding,
    seed::Seed,
    settle,
    time::{Instant, WallTime},
};
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What happens to one exchange.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Arrives,
    RequestLost,
    ReplyLost,
    Doubled,
    /// Both ways, by this many milliseconds.
    Late(u16),
    /// The connection breaks at once; the request may arrive all the same.
    Cut(bool),
}

/// What goes wrong with a worker's process, and when.
#[derive(Clone, Copy, Debug)]
enum Mishap {
    /// It dies for good.
    Dies,
    /// It dies and comes back, knowing nothing.
    Restarts,
    /// It is paused for this many seconds.
    Freezes(u8),
    /// It is unreachable for this many seconds.
    Unreachable(u8),
    /// It is asked to shut down.
    ShutDown,
}

#[derive(Clone, Debug)]
struct Schedule {
    workers: u32,
    topics: u32,
    goes_on: bool,
    fates: Vec<Fate>,
    mishaps: Vec<(u16, u8, Mishap)>,
    /// When the controller dies, in ms.
    controller_dies: Option<u16>,
    stop_at: Option<u16>,
}

impl Schedule {
    /// Whether nothing happens but that now and then an exchange fails.
    fn is_tame(&self) -> bool {
        let bad = self.fates.iter().filter(|fate| !matches!(fate, Fate::Arrives | Fate::Doubled)).count();
        bad * 12 <= self.fates.len()
            && self.mishaps.is_empty()
            && self.stop_at.is_none()
            && self.controller_dies.is_none()
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        20 => Just(Fate::Arrives),
        1 => Just(Fate::RequestLost),
        1 => Just(Fate::ReplyLost),
        2 => Just(Fate::Doubled),
        1 => (1..4_000_u16).prop_map(Fate::Late),
        1 => any::<bool>().prop_map(Fate::Cut),
    ]
}

fn mishap() -> impl Strategy<Value = Mishap> {
    prop_oneof![
        Just(Mishap::Dies),
        Just(Mishap::Restarts),
        (1..40_u8).prop_map(Mishap::Freezes),
        (1..20_u8).prop_map(Mishap::Unreachable),
        Just(Mishap::ShutDown),
    ]
}

fn schedule() -> impl Strategy<Value = Schedule> {
    (
        1..5_u32,
        1..6_u32,
        any::<bool>(),
        prop::collection::vec(fate(), 1..60),
        prop_oneof![3 => Just(Vec::new()), 2 => prop::collection::vec((0..9_000_u16, 0..4_u8, mishap()), 1..4)],
        prop_oneof![9 => Just(None), 1 => (0..8_000_u16).prop_map(Some)],
        prop_oneof![9 => Just(None), 1 => (0..8_000_u16).prop_map(Some)],
    )
        .prop_map(|(workers, topics, goes_on, fates, mishaps, controller_dies, stop_at)| Schedule {
            workers,
            topics,
            goes_on,
            fates,
            mishaps,
            controller_dies,
            stop_at,
        })
}

/// What happens at some instant.
#[derive(Debug)]
enum Happening {
    /// A request arrives at a worker; by which attempt it was sent.
    Request {
        worker: usize,
        attempt: u64,
        body: Vec<u8>,
    },
    /// A reply arrives at the controller.
    Reply {
        worker: usize,
        attempt: u64,
        body: Vec<u8>,
    },
    /// An attempt is given up.
    GaveUp {
        worker: usize,
        attempt: u64,
        kind: TroubleKind,
    },
    Performed {
        worker: usize,
        life: u32,
        ticket: u64,
    },
    Pinged {
        worker: usize,
        sent: Instant,
        ping: Ping,
    },
    Mishap {
        worker: usize,
        mishap: Mishap,
    },
    Back {
        worker: usize,
    },
    Stop,
    ControllerDies,
}

/// A worker's process: the machine, and a load as a formula.
struct Process {
    machine: Worker,
    /// Rises with each restart.
    life: u32,
    alive: bool,
    frozen_until: Option<Instant>,
    unreachable_until: Option<Instant>,
    shut_down: bool,
    /// Which caller waits for which answer.
    waiting: BTreeMap<(RunId, u64), Vec<u64>>,
    doing: BTreeMap<u64, Command>,
    load: Load,
    followed: Option<RunId>,
}

impl Process {
    fn new(life: u32) -> Self {
        Self {
            machine: Worker::new(WallTime(WALL), Terms::foreign()),
            life,
            alive: true,
            frozen_until: None,
            unreachable_until: None,
            shut_down: false,
            waiting: BTreeMap::new(),
            doing: BTreeMap::new(),
            load: Load::default(),
            followed: None,
        }
    }
}

#[derive(Debug, Default)]
struct Load {
    producers: BTreeSet<ProducerId>,
    consumers: BTreeSet<ConsumerId>,
    subscriptions: BTreeSet<SubscriptionId>,
    starts: u32,
    /// Sends from then on, at this many messages a second.
    since: Option<(Instant, f64)>,
    sent: u64,
}

impl Load {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a model")]
    fn sent(&self, now: Instant) -> u64 {
        self.sent + self.since.map_or(0, |(since, rate)| (now.since(since).as_secs_f64() * rate) as u64)
    }

    fn stop(&mut self, now: Instant) {
        self.sent = self.sent(now);
        self.since = None;
    }
}

struct World {
    now: Instant,
    order: u64,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    processes: Vec<Process>,
    plan: Plan,
    fates: Vec<Fate>,
    /// Whether the third attempt of an exchange always arrives.
    tame: bool,
    tries: BTreeMap<(usize, u64), u32>,
    spared: BTreeSet<u64>,
    attempts: u64,
    /// Of each worker the attempt that the controller waits for, and the number of its request.
    open: BTreeMap<usize, (u64, u64)>,
    /// What each worker reported last, by the answer that reached the controller.
    told: BTreeMap<usize, u64>,
}

const WALL: u64 = 1_700_000_000_000_000_000;

impl World {
    fn at(&mut self, after: Duration, happening: Happening) {
        self.order += 1;
        self.queue.push(Reverse((self.now + after, self.order)));
        self.happenings.insert(self.order, happening);
    }

    /// Sends a request, as its fate will have it.
    fn send(&mut self, worker: usize, request: &protocol::Request, within: Duration) {
        let attempt = self.attempts;
        self.attempts += 1;
        self.open.insert(worker, (attempt, request.number));
        let body = encoding::encode(request);
        let tries = self.tries.entry((worker, request.number)).or_default();
        *tries += 1;
        if self.tame && *tries > 2 {
            self.spared.insert(attempt);
        }
        let fate = self.fate(attempt);
        let there = |body: Vec<u8>| Happening::Request { worker, attempt, body };
        match fate {
            Fate::Arrives | Fate::ReplyLost => self.at(MS, there(body)),
            Fate::RequestLost => {}
            Fate::Doubled => {
                self.at(MS, there(body.clone()));
                self.at(700 * MS, there(body));
            }
            Fate::Late(millis) => self.at(MS * u32::from(millis), there(body)),
            Fate::Cut(arrives) => {
                if arrives {
                    self.at(MS, there(body));
                }
                return self.at(MS, Happening::GaveUp { worker, attempt, kind: TroubleKind::Broken });
            }
        }
        self.at(within, Happening::GaveUp { worker, attempt, kind: TroubleKind::Broken });
    }

    fn fate(&self, attempt: u64) -> Fate {
        if self.spared.contains(&attempt) {
            return Fate::Arrives;
        }
        self.fates[usize::try_from(attempt).expect("few") % self.fates.len()]
    }

    fn is_up(&self, worker: usize) -> bool {
        let process = &self.processes[worker];
        process.alive && !process.shut_down && process.unreachable_until.is_none_or(|until| until <= self.now)
    }

    fn thaws(&self, worker: usize) -> Option<Instant> {
        self.processes[worker].frozen_until.filter(|until| *until > self.now)
    }

    /// Runs a worker's machine until it comes to rest, and performs its outputs.
    fn settle(&mut self, worker: usize) -> Option<Instant> {
        if !self.processes[worker].alive || self.processes[worker].shut_down || self.thaws(worker).is_some() {
            return self.thaws(worker);
        }
        let (now, mut outputs) = (self.now, Vec::new());
        let wake = settle(&mut self.processes[worker].machine, now, |output| {
            outputs.push(output);
            ControlFlow::Continue(())
        });
        for output in outputs {
            self.on_worker_output(worker, output);
        }
        match wake {
            ControlFlow::Continue(wake) => wake.map(|wake| wake.at),
            ControlFlow::Break(()) => None,
        }
    }

    fn on_worker_output(&mut self, worker: usize, output: worker::Output) {
        let process = &mut self.processes[worker];
        match output {
            worker::Output::Perform { ticket, command } => {
                let life = process.life;
                let takes = match &command {
                    Command::Prepare(_) | Command::CreateTopics(_) => 300 * MS,
                    Command::CreateConsumers(_) => 500 * MS,
                    _ => MS,
                };
                // Senders stop at once; only the answer takes time.
                if matches!(command, Command::StopLoad { .. } | Command::Close) {
                    process.load.stop(self.now);
                }
                // It cuts short what is in progress, as the real performer does: a load that was about to start stays
                // unstarted.
                if command == Command::Close {
                    process.doing.clear();
                }
                process.doing.insert(ticket, command);
                self.at(takes, Happening::Performed { worker, life, ticket });
            }
            worker::Output::Reply(response) => {
                let Some(attempts) = process.waiting.remove(&(response.run, response.number)) else { return };
                let body = encoding::encode(&response);
                for attempt in attempts {
                    let after = match self.fate(attempt) {
                        Fate::ReplyLost => continue,
                        Fate::Late(millis) => MS * u32::from(millis),
                        _ => MS,
                    };
                    self.at(after, Happening::Reply { worker, attempt, body: body.clone() });
                }
            }
            worker::Output::Follows { run, .. } => {
                assert!(
                    process.followed.is_none(),
                    "B6: worker {worker} takes up {run} while it follows {:?}",
                    process.followed
                );
                process.followed = Some(run);
            }
            worker::Output::Freed(run) => {
                assert_eq!(process.followed, Some(run), "B6");
                process.followed = None;
            }
            worker::Output::ShutDown => process.shut_down = true,
            worker::Output::LeaseExpired(_) => {}
        }
    }

    fn perform(&mut self, worker: usize, ticket: u64) -> Result<Event, Failure> {
        let (now, producers) = (self.now, self.plan.producers.len());
        let plan = &self.plan;
        let process = &mut self.processes[worker];
        let Some(command) = process.doing.remove(&ticket) else { return Ok(Event::Done) };
        let load = &mut process.load;
        match command {
            Command::Prepare(_) => {
                *load = Load::default();
                return Ok(Event::Prepared { system: "model".to_owned() });
            }
            Command::CreateProducers(specs) => load.producers.extend(specs.iter().map(|spec| spec.id)),
            Command::CreateConsumers(specs) => {
                load.consumers.extend(specs.iter().map(|spec| spec.id));
                load.subscriptions.extend(specs.iter().map(|spec| spec.subscription));
            }
            Command::StartLoad { tempo, begin, .. } => {
                load.starts += 1;
                assert_eq!(load.starts, 1, "one load was started twice");
                #[expect(clippy::cast_precision_loss, reason = "a model")]
                let rate =
                    tempo.mean(Duration::ZERO, Duration::ZERO) * load.producers.len() as f64 / producers.max(1) as f64;
                let Begin::At(wall) = begin else { return Err(Failure::new(FailureKind::Broken, "no instant")) };
                load.since = Some((Instant(wall.0 - WALL), rate));
            }
            Command::Read { .. } => return Ok(Event::Read(Box::new(snapshot(process, now, plan)))),
            Command::Verify => {
                let snapshot = snapshot(process, now, plan);
                let mut findings = Findings::default();
                let owners = plan.owners();
                for id in &process.load.subscriptions {
                    let topic = plan.subscriptions[id.0 as usize].topic.0;
                    if owners[topic as usize].is_some() {
                        let confirmed = snapshot.totals.seen[id].distinct;
                        findings.compared.insert(*id, Missing { confirmed, ..Missing::default() });
                    } else {
                        findings.received.insert(*id, vec![SequenceSet::new()]);
                    }
                }
                return Ok(Event::Verified(Box::new(findings)));
            }
            _ => {}
        }
        Ok(Event::Done)
    }
}

/// A worker's counts: whatever it sends is confirmed and received at once.
fn snapshot(process: &Process, now: Instant, plan: &Plan) -> Snapshot {
    let (load, sent) = (&process.load, process.load.sent(now));
    let mut snapshot = Snapshot { taken_at: now, wall: WallTime(WALL + now.0), ..Snapshot::default() };
    snapshot.totals.departures.attempted = sent;
    snapshot.totals.acknowledgements.acked = sent;
    snapshot.totals.arrivals.received = sent;
    let owners = plan.owners();
    let subscriptions = load.subscriptions.len() as u64;
    let view = GroupView { joined: 1, generations: (1, 1), assigned: 1, rebalances: 0, last: None };
    for (place, id) in (0..).zip(&load.subscriptions) {
        let distinct = (sent + place) / subscriptions;
        snapshot.totals.seen.insert(*id, Seen { received: distinct, distinct, ..Seen::default() });
        snapshot.groups.insert(*id, view);
        if owners[plan.subscriptions[id.0 as usize].topic.0 as usize].is_some() {
            snapshot.paths_open += 1;
        } else {
            snapshot.probed.insert(*id, [0].into_iter().collect());
        }
    }
    snapshot
}

fn workload(topics: u32) -> Workload {
    Workload {
        name: "w".to_owned(),
        topics,
        partitions_per_topic: 1,
        key_distributor: KeyDistributor::NoKey,
        message_size: 100,
        payload: PayloadSource::Random { ratio: 1.0, pool: 1 },
        subscriptions_per_topic: 1,
        consumers_per_subscription: 1,
        producers_per_topic: 1,
        rate: RateGoal::Fixed(Rate::per_second(1_000).expect("in range")),
        backlog: None,
        test_duration: 3 * SECOND,
        warmup_duration: Duration::ZERO,
        seed: None,
        catch_up: CatchUp::All,
        verify: Verify::Header,
        clients: Clients::default(),
    }
}

fn settings(schedule: &Schedule) -> Settings {
    Settings {
        names: (0..schedule.workers).map(|worker| format!("w{worker}")).collect(),
        controller: "c".to_owned(),
        clocks: Clocks::Measured,
        on_loss: if schedule.goes_on { OnLoss::Continue } else { OnLoss::Fail },
        call_within: 6 * SECOND,
        connect_within: 2 * SECOND,
        setup_within: 15 * SECOND,
        stop_within: 5 * SECOND,
        drain_within: 10 * SECOND,
        quiet_after: 3 * SECOND,
        lease: 8 * SECOND,
        look_again: 100 * MS,
        start_after: 500 * MS,
        ..Settings::new(DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded })
    }
}

/// How a schedule ended.
struct Played {
    end: Option<End>,
    report: Option<Report>,
    lost: usize,
}

/// Plays a schedule to its end and past it, and checks what must hold at every step.
fn play(schedule: &Schedule) -> Played {
    let settings = settings(schedule);
    let workload = workload(schedule.topics);
    let bound = settings.longest(&workload, schedule.workers);
    let lease = settings.lease;
    let began = Instant(1_000_000_000);
    let plan = Plan::new(RunId(1), Seed(1), workload, schedule.workers);
    let mut world = World {
        now: began,
        order: 0,
        queue: BinaryHeap::new(),
        happenings: BTreeMap::new(),
        processes: (0..schedule.workers).map(|_| Process::new(0)).collect(),
        plan: plan.clone(),
        fates: schedule.fates.clone(),
        tame: schedule.is_tame(),
        tries: BTreeMap::new(),
        spared: BTreeSet::new(),
        attempts: 0,
        open: BTreeMap::new(),
        told: BTreeMap::new(),
    };
    for (at, worker, mishap) in &schedule.mishaps {
        let worker = usize::from(*worker) % world.processes.len();
        world.at(MS * u32::from(*at), Happening::Mishap { worker, mishap: *mishap });
    }
    if let Some(at) = schedule.stop_at {
        world.at(MS * u32::from(at), Happening::Stop);
    }
    if let Some(at) = schedule.controller_dies {
        world.at(MS * u32::from(at), Happening::ControllerDies);
    }
    let mut controller = Some(Controller::new(began, plan.clone(), settings));
    let mut played = Played { end: None, report: None, lost: 0 };
    let mut periods = 0_u64;
    let mut ended_at = None;
    loop {
        // Everything comes to rest.
        let mut wake: Option<Instant> = None;
        let mut sooner = |at: Option<Instant>| wake = [wake, at].into_iter().flatten().min();
        if let Some(machine) = &mut controller {
            let (now, mut outputs) = (world.now, Vec::new());
            let next = settle(machine, now, |output| {
                outputs.push(output);
                ControlFlow::Continue(())
            });
            for output in outputs {
                match output {
                    controller::Output::ToWorker { worker, request, within } => {
                        assert!(ended_at.is_none(), "a request after the end");
                        world.send(worker.0 as usize, &request, within);
                    }
                    controller::Output::Ping { worker, ping } => {
                        let (worker, sent) = (worker.0 as usize, world.now);
                        if world.is_up(worker) && world.thaws(worker).is_none() {
                            world.at(2 * MS, Happening::Pinged { worker, sent, ping });
                        }
                    }
                    controller::Output::Period(period) => {
                        periods += period.totals.departures.attempted;
                        // B3, while it goes on: periods are what was reported.
                        assert!(periods <= world.told.values().sum::<u64>(), "B3: more in periods than was told");
                    }
                    controller::Output::Report(report) => {
                        assert!(played.report.is_none(), "two reports");
                        // B2: the report's counts are those that the workers reported, of lost ones the last reported.
                        assert_eq!(report.whole.departures.attempted, world.told.values().sum::<u64>(), "B2");
                        let sum: u64 = report.phases.iter().map(|phase| phase.totals.departures.attempted).sum();
                        assert_eq!(sum, report.whole.departures.attempted, "B3");
                        let rows: u64 = report.workers.iter().map(|row| row.acked).sum();
                        assert_eq!(rows, report.measured.acknowledgements.acked, "B3: rows of the workers");
                        played.report = Some(*report);
                    }
                    controller::Output::WorkerLost { worker, .. } => {
                        // It is not listened to any more.
                        world.open.remove(&(worker.0 as usize));
                        played.lost += 1;
                    }
                    controller::Output::Finished(end) => {
                        assert!(ended_at.is_none(), "finished twice");
                        let took = now.since(began);
                        assert!(took <= bound, "B1: it took {took:?}, its bound is {bound:?}");
                        ended_at = Some(now);
                        played.end = Some(end);
                    }
                    _ => {}
                }
            }
            if let ControlFlow::Continue(next) = next {
                sooner(next.map(|next| next.at));
            }
        }
        if ended_at.is_some() {
            controller = None;
        }
        for worker in 0..world.processes.len() {
            let next = world.settle(worker);
            sooner(next);
        }
        // B4: every producer has at most one living owner, and the one that the plan names.
        for (worker, process) in world.processes.iter().enumerate().filter(|(_, process)| process.alive) {
            for id in &process.load.producers {
                assert_eq!(plan.producers[id.0 as usize].worker.0 as usize, worker, "B4: {id}");
            }
        }
        // B5: after the end and the lease nothing is produced.
        if let Some(end) = ended_at {
            let late = world.now.since(end) > lease + SECOND;
            for (worker, process) in world.processes.iter().enumerate().filter(|(_, process)| process.alive) {
                let frozen = process.frozen_until.is_some_and(|until| until + SECOND > world.now);
                assert!(!late || frozen || process.load.since.is_none(), "B5: worker {worker} still produces");
            }
            if world.now.since(end) > 3 * lease + 60 * SECOND {
                break;
            }
        } else {
            assert!(world.now.since(began) <= bound, "B1: no end after {bound:?}");
        }
        // Time goes on.
        let next = world.queue.peek().map(|Reverse((at, _))| *at);
        let horizon = ended_at.map(|end| end + 3 * lease + 61 * SECOND);
        let Some(to) = [wake, next, horizon].into_iter().flatten().min() else { break };
        world.now = to.max(world.now);
        let due = world.queue.peek().is_some_and(|Reverse((at, _))| *at <= world.now);
        if due && let Some(Reverse((_, order))) = world.queue.pop() {
            let happening = world.happenings.remove(&order).expect("it was put there");
            happen(&mut world, &mut controller, &mut ended_at, happening);
        }
    }
    played
}

fn happen(world: &mut World, controller: &mut Option<Controller>, ended_at: &mut Option<Instant>, it: Happening) {
    let now = world.now;
    match it {
        Happening::Request { worker, attempt, body } => {
            if !world.is_up(worker) {
                let kind = TroubleKind::Unconnected;
                return world.at(MS, Happening::GaveUp { worker, attempt, kind });
            }
            if let Some(until) = world.thaws(worker) {
                return world.at(until.since(now), Happening::Request { worker, attempt, body });
            }
            let request = protocol::decode_request(&body).expect("our own encoding");
            let process = &mut world.processes[worker];
            process.waiting.entry((request.run, request.number)).or_default().push(attempt);
            process.machine.handle_input(now, worker::Input::Command(request));
        }
        Happening::Reply { worker, attempt, body } => {
            // A caller that gave up the attempt does not get its answer.
            if world.open.get(&worker).is_none_or(|(open, _)| *open != attempt) || !world.is_up(worker) {
                return;
            }
            world.open.remove(&worker);
            let response: protocol::Response = encoding::decode(&body).expect("our own encoding");
            if let Some(controller) = controller {
                if let Ok(Event::Read(snapshot)) = &response.outcome {
                    world.told.insert(worker, snapshot.totals.departures.attempted);
                }
                let worker = WorkerId(u32::try_from(worker).expect("few"));
                controller.handle_input(now, controller::Input::FromWorker { worker, response });
            }
        }
        Happening::GaveUp { worker, attempt, kind } => {
            let Some((_, number)) = world.open.get(&worker).copied().filter(|(open, _)| *open == attempt) else {
                return;
            };
            world.open.remove(&worker);
            if let Some(controller) = controller {
                let worker = WorkerId(u32::try_from(worker).expect("few"));
                let trouble = Trouble { kind, cause: "drawn".to_owned() };
                controller.handle_input(now, controller::Input::CallFailed { worker, number, trouble });
            }
        }
        Happening::Performed { worker, life, ticket } => {
            if world.processes[worker].life != life || !world.processes[worker].alive {
                return;
            }
            if let Some(until) = world.thaws(worker) {
                return world.at(until.since(now), Happening::Performed { worker, life, ticket });
            }
            let outcome = world.perform(worker, ticket);
            world.processes[worker].machine.handle_input(now, worker::Input::Done { ticket, outcome });
        }
        Happening::Pinged { worker, sent, ping } => {
            if world.is_up(worker) && world.thaws(worker).is_none() {
                world.processes[worker].machine.handle_input(now, worker::Input::Heard(ping));
            }
            if let Some(controller) = controller {
                let wall = WallTime(WALL + now.0 - 1_000_000);
                let exchange = Exchange { sent, received: wall, answered: wall, back: now };
                let worker = WorkerId(u32::try_from(worker).expect("few"));
                controller.handle_input(now, controller::Input::Pong { worker, exchange });
            }
        }
        Happening::Mishap { worker, mishap } => {
            let process = &mut world.processes[worker];
            match mishap {
                Mishap::Dies => {
                    process.alive = false;
                    process.load.stop(now);
                }
                Mishap::Restarts => {
                    process.alive = false;
                    process.load.stop(now);
                    world.at(800 * MS, Happening::Back { worker });
                }
                Mishap::Freezes(seconds) => process.frozen_until = Some(now + SECOND * u32::from(seconds)),
                Mishap::Unreachable(seconds) => process.unreachable_until = Some(now + SECOND * u32::from(seconds)),
                Mishap::ShutDown => process.machine.handle_input(now, worker::Input::Shutdown),
            }
        }
        Happening::Back { worker } => {
            let life = world.processes[worker].life + 1;
            world.processes[worker] = Process::new(life);
        }
        Happening::Stop => {
            if let Some(controller) = controller {
                controller.handle_input(now, controller::Input::Stop);
            }
        }
        Happening::ControllerDies => {
            *controller = None;
            ended_at.get_or_insert(now);
        }
    }
}

fn calm(workers: u32, topics: u32) -> Schedule {
    Schedule {
        workers,
        topics,
        goes_on: false,
        fates: vec![Fate::Arrives],
        mishaps: Vec::new(),
        controller_dies: None,
        stop_at: None,
    }
}

#[test]
fn a_calm_fleet_is_sound_and_exact() {
    for (workers, topics) in [(1, 1), (1, 4), (3, 10), (4, 4)] {
        let played = play(&calm(workers, topics));
        assert_eq!(played.end, Some(End::Sound));
        let report = played.report.expect("a report");
        assert!(
            (2_950..=3_050).contains(&report.measured.acknowledgements.acked),
            "{}",
            report.measured.acknowledgements.acked
        );
        assert_eq!(report.workers.len(), workers as usize);
    }
}

#[test]
fn a_dead_worker_fails_the_run_or_is_left_behind() {
    let dies = |goes_on| Schedule { goes_on, mishaps: vec![(3_500, 1, Mishap::Dies)], ..calm(3, 6) };
    let failed = play(&dies(false));
    let Some(End::Failed(failure)) = failed.end else { panic!("{:?}", failed.end) };
    assert!(failure.message.starts_with("Unable to connect to worker: worker 2 (w1) is gone"), "{failure}");
    let report = failed.report.expect("what was measured until then");
    assert_eq!(report.partial, Some(failure.message));
    assert!(report.workers[1].lost.is_some());

    let went_on = play(&dies(true));
    let Some(End::Unsound(reasons)) = went_on.end else { panic!("{:?}", went_on.end) };
    assert!(reasons[0].contains("was lost"), "{reasons:?}");
    let report = went_on.report.expect("a report");
    assert_eq!((report.partial, report.verdict.unverified, report.verdict.subscriptions.len()), (None, 2, 4));
    assert!(report.workers[0].acked > 0 && report.workers[0].lost.is_none());
}

#[test]
fn a_restarted_worker_is_found_out() {
    let played = play(&Schedule { mishaps: vec![(3_500, 0, Mishap::Restarts)], ..calm(2, 2) });
    let Some(End::Failed(failure)) = played.end else { panic!("{:?}", played.end) };
    assert!(failure.message.contains("it knows nothing of run"), "{failure}");
}

#[test]
fn a_frozen_worker_is_given_up_at_its_deadline() {
    let played = play(&Schedule { mishaps: vec![(3_500, 0, Mishap::Freezes(39))], ..calm(2, 2) });
    let Some(End::Failed(failure)) = played.end else { panic!("{:?}", played.end) };
    assert!(failure.message.starts_with("Timeout waiting for worker response: worker 1 (w0)"), "{failure}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]
    /// Whatever happens to exchanges and processes, the promises hold (they are checked in `play`, at every step). If
    /// exchanges alone misbehave, and not too often in a row, the run is sound.
    #[test]
    fn promises_hold_whatever_goes_wrong(schedule in schedule()) {
        let played = play(&schedule);
        prop_assert!(played.end.is_some() || schedule.controller_dies.is_some());
        if schedule.is_tame() {
            prop_assert_eq!(played.lost, 0);
            prop_assert_eq!(played.end, Some(End::Sound));
        }
    }
}
