//! One simulated run from beginning to end: the nodes, the troubles, and who looks on.

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use madsim::{
    runtime::Handle,
    task::{spawn, spawn_local},
    time::{TimeHandle, sleep},
};
use omb_core::{
    broker::Broker,
    config::driver::{DriverConfig, DriverKind},
    controller::{self, Controller, End, Settings},
    id::RunId,
    plan::Plan,
    report::{Phase, Report},
    time::Instant,
    worker::Worker,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    broker::SimBroker,
    clock::Clock,
    event_loop::Clock as _,
    fault::{self, Nodes, Weather},
    link,
    load::SimLoad,
    local::{self, Observer},
    scenario::Scenario,
    witness::Witness,
};

/// Who looks on, after every step of every machine.
pub trait Watcher: Send {
    /// An output of the controller.
    fn on_output(&mut self, output: &controller::Output, witness: &Witness);
    /// The controller after a step.
    fn on_controller(&mut self, controller: &Controller, now: Instant, witness: &Witness);
    /// The worker after a step.
    fn on_worker(&mut self, worker: &Worker, now: Instant, witness: &Witness);
    /// The broker after a step.
    fn on_broker(&mut self, broker: &Broker, now: Instant, witness: &Witness);
    /// The run is over, and whatever could still happen has happened.
    fn at_end(&mut self, outcome: &Outcome, witness: &Witness);
}

/// How a run went.
#[derive(Debug)]
pub struct Outcome {
    /// What was played.
    pub scenario: Scenario,
    /// What the controller was told.
    pub settings: Settings,
    /// Who did what.
    pub plan: Plan,
    /// How it ended; `None` if it had not by its bound.
    pub end: Option<End>,
    /// What it handed out.
    pub report: Option<Report>,
    /// How long it took, by the client's clock.
    pub took: Duration,
    /// How long it was allowed to take.
    pub bound: Duration,
    /// When it ended, in true time.
    pub ended_at: Duration,
}

const BROKER: &str = "10.0.0.2:9092";
const CLIENT: &str = "10.0.0.1";

/// How long the world goes on after a run, beyond the worker's lease: whoever still produces then is found.
const AFTERMATH: Duration = Duration::from_secs(3);

/// The bounds of a simulated run: shorter than the product's, in the same proportions, so that running into them costs
/// little.
#[must_use]
pub fn settings(scenario: &Scenario) -> Settings {
    let secs = Duration::from_secs;
    Settings {
        period: scenario.period,
        call_within: secs(5),
        setup_within: secs(15),
        stop_within: secs(6),
        drain_within: secs(15),
        quiet_after: secs(4),
        lease: secs(8),
        look_again: Duration::from_millis(100),
        probe_again: Duration::from_millis(500),
        search_within: secs(60),
        fill_slack: secs(15),
        drain_factor: 5,
        ..Settings::new(DriverConfig { name: "simulated".to_owned(), kind: DriverKind::Embedded })
    }
}

/// Plays `scenario` inside a madsim runtime. Everything seen goes to `watcher` and `witness`.
pub async fn play(scenario: Scenario, watcher: Arc<Mutex<dyn Watcher>>, witness: Witness) -> Outcome {
    let time = TimeHandle::current();
    let (seed, weather) = (scenario.seed, Weather::default());
    let settings = settings(&scenario);
    let bound = settings.longest(&scenario.workload);
    let plan = Plan::new(RunId(seed.0 ^ 0x5eed), seed, scenario.workload.clone(), 1);
    let address: SocketAddr = BROKER.parse().expect("it is an address");

    let broker_clock = Clock::new(time.clone(), scenario.broker_clock);
    let (looking, seen) = (watcher.clone(), witness.clone());
    let look = move |broker: &Broker, now| lock(&looking).on_broker(broker, now, &seen);
    let (_, broker) = SimBroker::start(
        address,
        scenario.capacity,
        seed,
        broker_clock,
        weather.clone(),
        witness.clone(),
        Arc::new(look),
    );
    let client = Handle::current().create_node().name("client").ip(CLIENT.parse().expect("an address")).build();
    let nodes = Nodes { client: client.id(), broker };

    let (ended, end) = oneshot::channel();
    let (stop, stops) = mpsc::unbounded_channel();
    let clock = Clock::new(time.clone(), scenario.client_clock);
    let began = clock.now();
    let cast =
        Cast { scenario: scenario.clone(), plan: plan.clone(), settings: settings.clone(), weather: weather.clone() };
    let (looking, seen, local) = (watcher.clone(), witness.clone(), clock.clone());
    client.spawn(async move {
        // What `local::run` holds cannot move between threads, and need not.
        let run = spawn_local(async move {
            let (end, report) = run(cast, address, local, stops, looking, seen).await;
            // The world may have given the run up.
            let _ = ended.send((end, report));
        });
        let _ = run.await;
    });
    for planned in scenario.troubles.clone() {
        spawn(fault::befall(planned, nodes, weather.clone(), witness.clone()));
    }
    if let Some(at) = scenario.stop_at {
        let (stop, witness) = (stop.clone(), witness.clone());
        spawn(async move {
            sleep(at).await;
            witness.note("user", format_args!("wants it to end"));
            let _ = stop.send(());
        });
    }

    // A little more than the bound, for the loop's own steps; by the client's clock.
    let limit = clock.true_span(bound + Duration::from_millis(100));
    let result = madsim::time::timeout(limit, end).await;
    let (took, ended_at) = (clock.now().since(began), time.elapsed());
    let (end, report) = match result {
        Ok(Ok((end, report))) => (Some(end), report),
        Ok(Err(_)) | Err(_) => (None, None),
    };
    witness.note("world", format_args!("the run ended: {end:?}"));
    sleep(clock.true_span(settings.lease) + AFTERMATH).await;
    drop(stop);
    let outcome = Outcome { scenario, settings, plan, end, report, took, bound, ended_at };
    lock(&watcher).at_end(&outcome, &witness);
    outcome
}

fn lock<'a>(watcher: &'a Arc<Mutex<dyn Watcher>>) -> std::sync::MutexGuard<'a, dyn Watcher + 'static> {
    watcher.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a run is made of.
struct Cast {
    scenario: Scenario,
    plan: Plan,
    settings: Settings,
    weather: Weather,
}

async fn run(
    cast: Cast,
    broker: SocketAddr,
    clock: Clock,
    mut stops: mpsc::UnboundedReceiver<()>,
    watcher: Arc<Mutex<dyn Watcher>>,
    witness: Witness,
) -> (End, Option<Report>) {
    let Cast { scenario, plan, settings, weather } = cast;
    let controller = Controller::new(clock.now(), plan, settings);
    let mut load =
        SimLoad::new(broker, clock.clone(), scenario.knobs.clone(), scenario.seed, weather.clone(), witness.clone());
    let mut observer = Onlooker { watcher, witness: witness.clone(), report: None };
    if scenario.linked {
        let observer = Rc::new(RefCell::new(observer));
        let parts = (scenario.seed, weather, witness);
        let end = link::run(controller, load, observer.clone(), stops, scenario.intruder_at, clock, parts).await;
        let report = observer.borrow_mut().report.take();
        (end, report)
    } else {
        let end = local::run(controller, &mut load, &mut observer, &mut stops, &clock).await;
        (end, observer.report)
    }
}

/// Passes what the loops show on to the watcher, and writes it down.
struct Onlooker {
    watcher: Arc<Mutex<dyn Watcher>>,
    witness: Witness,
    report: Option<Report>,
}

impl Observer for Onlooker {
    fn on_output(&mut self, output: &controller::Output) {
        match output {
            controller::Output::ToWorker { request, .. } => {
                self.witness.note("controller", format_args!("asks {}: {}", request.number, request.command.name()));
            }
            controller::Output::Entered(phase) => {
                self.witness.note("controller", format_args!("enters {phase}"));
                self.witness.hit(format!("phase: {phase}"));
                self.witness.notes().truth.reading = (Phase::CreateProducers..=Phase::Drain).contains(phase);
            }
            controller::Output::Period(period) => {
                let (departed, acked) = (&period.totals.departures, &period.totals.acknowledgements);
                self.witness.note(
                    "controller",
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
                self.witness.note(
                    "controller",
                    format_args!(
                        "report: {} acked, {} lost, drained {:?}, partial: {:?}",
                        report.whole.acknowledgements.acked,
                        report.verdict.lost(),
                        report.verdict.drained,
                        report.partial
                    ),
                );
                self.witness.hit(format!("drained: {:?}", report.verdict.drained));
                self.report = Some((**report).clone());
            }
            controller::Output::Warning(text) => {
                self.witness.note("controller", format_args!("warns: {text}"));
                self.witness.hit("end: with a warning");
            }
            controller::Output::Finished(end) => {
                self.witness.note("controller", format_args!("finished: {end:?}"));
                self.witness.hit(match end {
                    End::Sound => "end: sound".to_owned(),
                    End::Unsound(_) => "end: unsound".to_owned(),
                    End::Interrupted(reported) => format!("end: interrupted, report: {reported}"),
                    End::Failed(failure) => format!("end: failed, {:?}", failure.kind),
                });
            }
        }
        lock(&self.watcher).on_output(output, &self.witness);
    }

    fn on_controller(&mut self, controller: &Controller, now: Instant) {
        lock(&self.watcher).on_controller(controller, now, &self.witness);
    }

    fn on_worker(&mut self, worker: &Worker, now: Instant) {
        lock(&self.watcher).on_worker(worker, now, &self.witness);
    }
}
