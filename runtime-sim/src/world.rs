//! One simulated fleet from beginning to end: the nodes, the faults, and the observers.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use madsim::{
    runtime::Handle,
    task::{spawn, spawn_local},
    time::{TimeHandle, sleep},
};
use omb_bench::{
    config::driver::{DriverConfig, DriverKind},
    controller::{self, Clocks, Controller, End, OnLoss, Settings},
    id::RunId,
    plan::Plan,
    protocol::{Event, Failure, FailureKind, Response},
    result::{Phase, Report},
    worker::{self, Worker},
};
use omb_broker::Broker;
use omb_machine::time::{Instant, nanos};
use tokio::sync::{mpsc, oneshot};

use crate::{
    broker::SimBroker,
    clock::Clock,
    connection::{SimListener, SimTransport},
    exchange::Rough,
    fault::{self, Nodes, Trouble, Weather, Who, process},
    load::SimLoad,
    portable::{
        event_loop::Clock as _,
        fleet::{
            Address,
            leading::{self, Links},
            serving::{self, Identity, Pages, Status},
            wire::Answered,
        },
        local::{self, Observer},
    },
    scenario::Scenario,
    truth::Truth,
    witness::Witness,
};

/// Observes every step of every machine.
pub trait Watcher: Send {
    /// An output of the controller of run number `run`.
    fn on_output(&mut self, run: usize, output: &controller::Output, witness: &Witness);
    /// The controller of run number `run` after a step.
    fn on_controller(&mut self, run: usize, controller: &Controller, now: Instant, witness: &Witness);
    /// A worker's process begins, with nothing in its memory.
    fn on_birth(&mut self, worker: u32);
    /// A worker after a step.
    fn on_worker(&mut self, worker: u32, machine: &Worker, now: Instant, witness: &Witness);
    /// The broker after a step.
    fn on_broker(&mut self, broker: &Broker, now: Instant, witness: &Witness);
    /// All runs are over, and everything that could still happen has happened.
    fn at_end(&mut self, outcome: &Outcome, witness: &Witness);
}

/// The outcome.
#[derive(Debug)]
pub struct Outcome {
    /// What was played.
    pub scenario: Scenario,
    /// Each run: the first controller's, and the second one's if there was one.
    pub runs: Vec<Ended>,
}

/// The outcome of a run.
#[derive(Debug)]
pub struct Ended {
    /// The controller's configuration.
    pub settings: Settings,
    /// The plan.
    pub plan: Plan,
    /// How it ended; `None` if it had not by its bound, or its controller was killed.
    pub end: Option<End>,
    /// Whether its controller was killed.
    pub killed: bool,
    /// What it handed out.
    pub report: Option<Report>,
    /// How long it took, by the controller's clock.
    pub took: Duration,
    /// How long it was permitted to take.
    pub bound: Duration,
    /// When it ended, in true time.
    pub ended_at: Duration,
}

const BROKER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), 9092);
const CONTROLLERS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 3))];

fn worker_address(worker: u32) -> SocketAddr {
    let last = u8::try_from(worker + 1).expect("few workers");
    SocketAddr::new(Ipv4Addr::new(10, 0, 1, last).into(), 8080)
}

/// How long the world goes on after its runs, beyond twice the lease (its end, and the time for which counts are kept):
/// a worker that still produces then is found.
const AFTERMATH: Duration = Duration::from_secs(8);

/// How often a worker that does not answer is greeted.
const GREETINGS: u32 = 4;

/// The bounds of a simulated run: shorter than the product's, in the same proportions, so that running into them costs
/// little.
#[must_use]
pub fn settings(scenario: &Scenario, run: usize) -> Settings {
    let secs = Duration::from_secs;
    let names = if scenario.linked {
        (0..scenario.workers).map(|worker| format!("http://{}", worker_address(worker))).collect()
    } else {
        Vec::new()
    };
    Settings {
        // Workers derive it from what is set here: see `load`.
        controller: run.to_string(),
        names,
        take_over: run > 0 && scenario.second.is_some_and(|second| second.take_over),
        on_loss: if scenario.goes_on { OnLoss::Continue } else { OnLoss::Fail },
        clocks: if scenario.linked { Clocks::Measured } else { Clocks::Same },
        day_second_at: (scenario.day_second, Instant(nanos(scenario.controller_clock.offset))),
        period: scenario.period,
        call_within: secs(5),
        connect_within: secs(3),
        setup_within: secs(15),
        stop_within: secs(6),
        drain_within: secs(15),
        quiet_after: secs(4),
        lease: secs(5),
        look_again: Duration::from_millis(100),
        probe_again: Duration::from_millis(500),
        search_within: secs(60),
        fill_slack: secs(15),
        drain_factor: 5,
        ..Settings::new(DriverConfig { name: "simulated".to_owned(), kind: DriverKind::Embedded })
    }
}

/// What all parts of the world hold.
#[derive(Clone)]
struct Cast {
    scenario: Scenario,
    /// The runs' names, in order.
    runs: Vec<RunId>,
    time: TimeHandle,
    weather: Weather,
    watcher: Arc<Mutex<dyn Watcher>>,
    witness: Witness,
}

impl Cast {
    fn watch<T>(&self, look: impl FnOnce(&mut dyn Watcher) -> T) -> T {
        look(&mut *self.watcher.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Plays `scenario` inside a madsim runtime. Everything observed goes to `watcher` and `witness`.
pub async fn play(scenario: Scenario, watcher: Arc<Mutex<dyn Watcher>>, witness: Witness) {
    let time = TimeHandle::current();
    let weather = Weather::new(scenario.workers);
    let count = 1 + usize::from(scenario.second.is_some());
    let plans: Vec<Plan> = (0..count).map(|run| plan(&scenario, run)).collect();
    for (run, plan) in plans.iter().enumerate() {
        let mut notes = witness.notes();
        notes.truths.push(Truth::new(scenario.workers));
        let groups = plan.subscriptions.iter().map(|subscription| &subscription.name);
        for name in plan.topics.iter().map(|topic| &topic.name).chain(groups) {
            notes.topics.insert(name.clone(), run);
        }
    }
    let runs = plans.iter().map(|plan| plan.run).collect();
    let cast = Cast { scenario: scenario.clone(), runs, time, weather, watcher, witness };
    cast.witness.hit(match (&scenario.linked, plans[0].owners().contains(&None)) {
        (false, _) => "run: in one process",
        (true, _) if scenario.workers == 1 => "run: over one worker",
        (true, false) => "run: over several workers, each with whole topics",
        (true, true) => "run: over several workers that share topics",
    });
    match scenario.second {
        Some(second) if second.take_over => cast.witness.hit("run: a second controller, which takes over"),
        Some(_) => cast.witness.hit("run: a second controller, which asks"),
        None => {}
    }
    let nodes = start_nodes(&cast, count);
    for planned in scenario.troubles.clone() {
        spawn(fault::befall(planned, nodes.clone(), cast.weather.clone(), cast.witness.clone()));
    }
    let begun: Vec<_> = plans.into_iter().enumerate().map(|(run, plan)| begin(&cast, &nodes, run, plan)).collect();
    let mut ended = Vec::new();
    for running in begun {
        ended.push(running.end(&cast).await);
    }
    let lease = ended.iter().map(|run: &Ended| run.settings.lease).max().unwrap_or_default();
    // Clocks may be slow, but not by a tenth.
    sleep(lease.mul_f64(2.1) + AFTERMATH).await;
    let outcome = Outcome { scenario, runs: ended };
    cast.watch(|watcher| watcher.at_end(&outcome, &cast.witness));
}

fn plan(scenario: &Scenario, run: usize) -> Plan {
    let id = RunId(scenario.seed.0 ^ 0x5eed ^ ((run as u64) << 60));
    Plan::with_topology(id, scenario.seed, scenario.workload.clone(), scenario.workers, scenario.topology)
}

fn start_nodes(cast: &Cast, controllers: usize) -> Nodes {
    let Cast { scenario, time, weather, witness, .. } = cast;
    let clock = Clock::new(time.clone(), scenario.broker_clock);
    let looking = cast.clone();
    let look = move |broker: &Broker, now| looking.watch(|watcher| watcher.on_broker(broker, now, &looking.witness));
    let (_, broker) = SimBroker::start(
        BROKER,
        scenario.capacity,
        scenario.seed,
        clock,
        weather.clone(),
        witness.clone(),
        Arc::new(look),
    );
    let handle = Handle::current();
    let controller = |run: usize| handle.create_node().name(format!("controller {run}")).ip(CONTROLLERS[run]).build();
    let controllers: Vec<_> = (0..controllers).map(|run| controller(run).id()).collect();
    let worker = |worker: u32| {
        let cast = cast.clone();
        let node = handle.create_node().name(format!("worker {worker}")).ip(worker_address(worker).ip());
        node.init(move || serve(worker, cast.clone())).build().id()
    };
    let workers = if scenario.linked { (0..scenario.workers).map(worker).collect() } else { vec![controllers[0]] };
    Nodes { controllers, workers, broker }
}

/// One life of a worker's process.
async fn serve(worker: u32, cast: Cast) {
    let clock = Clock::new(cast.time.clone(), cast.scenario.worker_clocks[worker as usize]);
    cast.watch(|watcher| watcher.on_birth(worker));
    cast.witness.note(WORKER, format_args!("{worker} begins"));
    let listener = SimListener::bind(worker_address(worker)).await;
    let mut load = load(worker, &cast, clock.clone());
    let mut observer = Onlooker { cast: cast.clone(), run: 0, worker, report: None };
    let identity = Identity {
        omb: "0.0.0".to_owned(),
        instance: format!("{worker} {:?}", cast.time.elapsed()),
        token: None,
        body_max: omb_machine::encoding::BODY_MAX,
        terms: omb_bench::config::terms::Terms::foreign(),
        limits: omb_bench::plan::needs::Limits::default(),
    };
    let (shutdown, mut shutdowns) = mpsc::unbounded_channel();
    cast.weather.now().processes[worker as usize].shutdown = Some(shutdown);
    serving::serve(listener, None, identity, NoPages, &mut load, &mut observer, &mut shutdowns, &clock).await;
    cast.witness.note(WORKER, format_args!("{worker} has shut down"));
    cast.witness.hit("effect: worker shut down in good order");
}

const WORKER: &str = "worker";

fn load(worker: u32, cast: &Cast, clock: Clock) -> SimLoad {
    let Scenario { knobs, seed, .. } = &cast.scenario;
    SimLoad::new(worker, BROKER, clock, knobs.clone(), *seed, cast.weather.clone(), cast.witness.clone())
}

struct NoPages;

impl Pages for NoPages {
    fn get(&self, _: &str, _: &Status) -> Option<Answered> {
        None
    }
}

/// A run that has been started, or will be.
struct Running {
    settings: Settings,
    plan: Plan,
    bound: Duration,
    clock: Clock,
    /// When it begins, in true time.
    at: Duration,
    end: oneshot::Receiver<(End, Option<Report>, Duration, Duration)>,
    /// When its controller is killed, in true time.
    killed_at: Option<Duration>,
    stop: mpsc::UnboundedSender<()>,
}

fn begin(cast: &Cast, nodes: &Nodes, run: usize, plan: Plan) -> Running {
    let scenario = &cast.scenario;
    let settings = settings(scenario, run);
    let skew = if run == 0 { scenario.controller_clock } else { scenario.second.unwrap_or_default().clock };
    let clock = Clock::new(cast.time.clone(), skew);
    let bound = settings.longest(&scenario.workload, scenario.workers);
    let at = if run == 0 { Duration::ZERO } else { scenario.second.unwrap_or_default().at };
    let (ended, end) = oneshot::channel();
    let (stop, stops) = mpsc::unbounded_channel();
    if let Some(stop_at) = scenario.stop_at.filter(|_| run == 0) {
        let (stop, witness) = (stop.clone(), cast.witness.clone());
        spawn(async move {
            sleep(stop_at).await;
            witness.note("user", format_args!("wants it to end"));
            let _ = stop.send(());
        });
    }
    let transport = SimTransport {
        from: nodes.controllers[run],
        nodes: (0..).map(worker_address).zip(nodes.workers.iter().copied()).collect(),
        weather: cast.weather.clone(),
        foreign: false,
    };
    let (moved, run_settings, own) = (cast.clone(), settings.clone(), clock.clone());
    let running = plan.clone();
    let node = Handle::current().get_node(nodes.controllers[run]).expect("it was created");
    node.spawn(async move {
        sleep(at).await;
        // What the loops hold cannot move between threads, and need not.
        let run = spawn_local(async move {
            let began = own.now();
            let (end, report) = lead(moved.clone(), run, running, run_settings, transport, stops, own.clone()).await;
            // The world may have abandoned the run.
            let _ = ended.send((end, report, own.now().since(began), moved.time.elapsed()));
        });
        let _ = run.await;
    });
    let killed_at =
        scenario.troubles.iter().find(|it| it.trouble == Trouble::Process(process::Trouble::ControllerKilled));
    let killed_at = killed_at.map(|planned| planned.at).filter(|_| run == 0);
    Running { settings, plan, bound, clock, at, end, killed_at, stop }
}

impl Running {
    async fn end(self, cast: &Cast) -> Ended {
        let Self { settings, plan, bound, clock, at, end, killed_at, stop } = self;
        // A paused controller cannot end anything meanwhile; and workers are greeted before the run begins.
        let stood: Duration =
            cast.scenario.troubles.iter().filter(|it| stops_controller(&it.trouble)).map(|it| it.lasts).sum();
        let greeting = settings.connect_within * GREETINGS * cast.scenario.workers;
        let bound = bound + stood + if cast.scenario.linked { greeting } else { Duration::ZERO };
        // A little more than the bound, for the loop's own steps.
        let limit = at + clock.true_span(bound + Duration::from_millis(100));
        let result = madsim::time::timeout(limit.saturating_sub(cast.time.elapsed()), end).await;
        drop(stop);
        let ended = match result {
            Ok(Ok((end, report, took, ended_at))) => {
                Ended { settings, plan, end: Some(end), killed: false, report, took, bound, ended_at }
            }
            Ok(Err(_)) | Err(_) => {
                let killed = killed_at.is_some_and(|at| at <= cast.time.elapsed());
                let ended_at = killed_at.filter(|_| killed).unwrap_or_else(|| cast.time.elapsed());
                Ended { settings, plan, end: None, killed, report: None, took: bound, bound, ended_at }
            }
        };
        cast.witness.note("world", format_args!("run {} ended: {:?}", ended.plan.run, ended.end));
        ended
    }
}

/// Whether the controller is paused for as long as it lasts.
#[must_use]
pub fn stops_controller(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Process(process::Trouble::Paused(Who::Controller)))
}

async fn lead(
    cast: Cast,
    run: usize,
    plan: Plan,
    settings: Settings,
    transport: SimTransport,
    mut stops: mpsc::UnboundedReceiver<()>,
    clock: Clock,
) -> (End, Option<Report>) {
    let mut observer = Onlooker { cast: cast.clone(), run, worker: 0, report: None };
    if !cast.scenario.linked {
        let controller = Controller::new(clock.now(), plan, settings);
        let mut load = load(0, &cast, clock.clone());
        let end = local::run(controller, &mut load, &mut observer, &mut stops, &clock).await;
        return (end, observer.report);
    }
    let link = |worker: u32, what: &str| {
        let at = worker_address(worker);
        let to = Address { name: format!("http://{at}"), host: at.ip().to_string(), port: at.port(), tls: false };
        let rng = cast.scenario.seed.numbered_stream(what, u64::from(worker) << 1 | run as u64);
        let notes = (cast.weather.clone(), cast.witness.clone(), rng);
        Rough::new((run, worker), transport.clone(), to, settings.connect_within, notes)
    };
    let mut links = Vec::new();
    for worker in 0..cast.scenario.workers {
        let mut commands = link(worker, "commands");
        if let Err(trouble) = greet(&mut commands, settings.connect_within).await {
            cast.witness.note("controller", format_args!("{run}: worker {worker} does not answer: {}", trouble.cause));
            cast.witness.hit("end: a worker could not be greeted");
            let text = format!("Unable to connect to worker {worker}: {}", trouble.cause);
            return (End::Failed(Failure::new(FailureKind::Unreachable, text)), None);
        }
        links.push(Links { commands, clock: link(worker, "clock") });
    }
    let controller = Controller::new(clock.now(), plan, settings);
    let end = leading::lead(controller, links, &mut observer, &mut stops, &clock).await;
    (end, observer.report)
}

async fn greet(link: &mut Rough, within: Duration) -> Result<(), controller::Trouble> {
    let mut tries = 1;
    loop {
        match leading::hello(link, within).await {
            Ok(_) => return Ok(()),
            Err(trouble) if tries == GREETINGS => return Err(trouble),
            Err(_) => tries += 1,
        }
    }
}

/// Passes the loops' steps on to the watcher, and records them.
struct Onlooker {
    cast: Cast,
    /// The run whose controller is observed.
    run: usize,
    /// The worker that is observed.
    worker: u32,
    report: Option<Report>,
}

impl Observer for Onlooker {
    fn on_output(&mut self, output: &controller::Output) {
        let witness = &self.cast.witness;
        let actor = ["controller", "second"][self.run];
        match output {
            controller::Output::ToWorker { worker, request, .. } => {
                witness.note(actor, format_args!("asks {worker} {}: {}", request.number, request.command.name()));
            }
            controller::Output::Ping { .. } => {}
            controller::Output::WorkerLost { worker, cause } => {
                witness.note(actor, format_args!("gives {worker} up: {cause}"));
                witness.hit("effect: worker given up");
            }
            controller::Output::Entered(phase) => {
                witness.note(actor, format_args!("enters {phase}"));
                witness.hit(format!("phase: {phase}"));
                witness.notes().truths[self.run].reading = (Phase::CreateProducers..=Phase::Drain).contains(phase);
            }
            controller::Output::Period(period) => {
                let (departed, acked) = (&period.totals.departures, &period.totals.acknowledgements);
                witness.note(
                    actor,
                    format_args!(
                        "period of {} at {:?}: {} attempted, {} acked, {} failed, {} received, {} unread",
                        period.phase,
                        period.at,
                        departed.attempted,
                        acked.acked,
                        acked.failed,
                        period.totals.arrivals.received,
                        period.unread
                    ),
                );
            }
            controller::Output::Report(report) => {
                witness.note(
                    actor,
                    format_args!(
                        "report: {} acked, {} lost, drained {:?}, partial: {:?}",
                        report.whole.acknowledgements.acked,
                        report.verdict.lost(),
                        report.verdict.drained,
                        report.partial
                    ),
                );
                witness.hit(format!("drained: {:?}", report.verdict.drained));
                if !report.outages.is_empty() {
                    witness.hit("run: an outage is reported");
                }
                let lost = report.workers.iter().any(|row| row.lost.is_some());
                if lost && report.partial.is_none() {
                    witness.hit("run: goes on without a worker");
                }
                if report.verdict.unverified > 0 {
                    witness.hit("verdict: subscriptions that nobody can judge");
                }
                self.report = Some((**report).clone());
            }
            controller::Output::Misfit(failure) => witness.note(actor, format_args!("finds in the way: {failure}")),
            controller::Output::Warning(text) => {
                witness.note(actor, format_args!("warns: {text}"));
                witness.hit("end: with a warning");
            }
            controller::Output::Finished(end) => {
                witness.note(actor, format_args!("finished: {end:?}"));
                witness.hit(match end {
                    End::Sound => "end: sound".to_owned(),
                    End::Unsound(_) => "end: unsound".to_owned(),
                    End::Interrupted(reported) => format!("end: interrupted, report: {reported}"),
                    End::Failed(failure) => format!("end: failed, {:?}", failure.kind),
                });
            }
        }
        self.cast.watch(|watcher| watcher.on_output(self.run, output, witness));
    }

    fn on_controller(&mut self, controller: &Controller, now: Instant) {
        self.cast.watch(|watcher| watcher.on_controller(self.run, controller, now, &self.cast.witness));
    }

    fn on_worker_output(&mut self, output: &worker::Output) {
        let Cast { witness, runs, .. } = &self.cast;
        let place = |id: &RunId| runs.iter().position(|run| run == id).unwrap_or(0);
        match output {
            worker::Output::Reply(Response { run, outcome: Ok(Event::Read(snapshot)), .. })
                if !self.cast.scenario.linked =>
            {
                witness.notes().truths[place(run)].worker(self.worker).take(snapshot.taken_at);
            }
            worker::Output::Reply(Response { outcome: Err(failure), .. }) => {
                witness.note(WORKER, format_args!("{} refuses or fails: {failure}", self.worker));
                witness.hit(format!("refused or failed: {:?}", failure.kind));
            }
            worker::Output::LeaseExpired(run) => {
                witness.note(WORKER, format_args!("{}: the lease of run {} is over", self.worker, place(run)));
                witness.hit("effect: lease expired");
                let at = self.cast.time.elapsed();
                let mut notes = witness.notes();
                let mine = notes.truths[place(run)].worker(self.worker);
                mine.excused = true;
                mine.leases_ended.push(at);
            }
            worker::Output::Follows { run, .. } => {
                witness.note(WORKER, format_args!("{} follows run {}", self.worker, place(run)));
            }
            worker::Output::Freed(run) => {
                witness.note(WORKER, format_args!("{} is freed of run {}", self.worker, place(run)));
            }
            worker::Output::Reply(_) | worker::Output::Perform { .. } | worker::Output::ShutDown => {}
        }
    }

    fn on_worker(&mut self, worker: &Worker, now: Instant) {
        self.cast.watch(|watcher| watcher.on_worker(self.worker, worker, now, &self.cast.witness));
    }
}
