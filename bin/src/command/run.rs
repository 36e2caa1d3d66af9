//! `omb run`: workloads, one after another, each on each driver.

use std::{
    cell::Cell,
    net::SocketAddr,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow};
use omb_bench::{
    config::driver::{DriverConfig, DriverKind},
    controller::{self, Clocks, Controller, End, OnLoss, Settings},
    id::{RunId, WorkerId},
    plan::{
        Plan, Topology,
        needs::{self, Limits, Needs, Shortage},
    },
    result::Phase,
};
use omb_machine::{
    quantity::plural,
    seed::Seed,
    time::{WallTime, nanos},
};
use omb_report::{
    context::{Context, Ignored},
    result::RunResult,
    table,
};
use omb_runtime_real::{
    clock::Clock,
    embedded,
    performer::{self, Performer},
    portable::{event_loop::Clock as _, fleet::leading, local},
    process,
};
use tokio::sync::mpsc;

use super::{
    fleet::{self, Fleet},
    input::{self, Input},
    output::{self, Files},
    progress::Progress,
};
use crate::{
    console::{self, errln, outln},
    exit::{self, Code, Errors, ExitsWith as _},
    flags,
    signals::Interrupts,
};

/// Runs every workload on every driver, in the order given.
pub(crate) fn run(flags: &flags::Run) -> anyhow::Result<Code> {
    let Prepared { inputs, drivers, driver_ignored, broker, fleet } = match prepare(flags) {
        Ok(prepared) => prepared,
        Err(error) => return Ok(exit::print(&error)),
    };
    let several = inputs.len() * drivers.len() > 1;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("the system gives no thread").exits_with(Code::Failed)?;
    // Signals are received from here to the end, also between two runs.
    let mut interrupts = {
        let _within = runtime.enter();
        Interrupts::listen()
    };
    let limits = match &fleet {
        None => Vec::new(),
        Some(fleet) => match runtime.block_on(reach(fleet, &mut interrupts)) {
            Ok(limits) => limits,
            Err(code) => return Ok(code),
        },
    };
    let mut worst = Code::Sound;
    for input in &inputs {
        for (driver, ignored) in drivers.iter().zip(&driver_ignored) {
            let ignored = [&input.ignored[..], &ignored[..]].concat();
            let asked = Asked { flags, input, driver, ignored, broker: &broker, fleet: fleet.as_ref(), several };
            let plan = plan(flags, input, RunId(0), fleet.as_ref());
            if room(&plan, driver, fleet.as_ref(), &broker, &limits) == Room::Lacking {
                worst = worst.max(Code::Unavailable);
                continue;
            }
            let interrupted = Cell::new(false);
            let ended = runtime.block_on(one(&asked, runtime.handle(), &mut interrupts, &interrupted));
            worst = worst.max(ended.unwrap_or_else(|error| exit::log(&error)));
            if interrupted.get() {
                // An interrupt ends the remaining runs as well, however this one ended.
                return Ok(worst.max(Code::Interrupted));
            }
        }
    }
    Ok(worst)
}

/// What the command line names, read and checked.
pub(super) struct Prepared {
    pub(super) inputs: Vec<Input>,
    pub(super) drivers: Vec<DriverConfig>,
    /// For each driver, keys of its file that are not applied.
    pub(super) driver_ignored: Vec<Vec<Ignored>>,
    pub(super) broker: embedded::Options,
    /// `None` if this process performs the run.
    pub(super) fleet: Option<Fleet>,
}

/// Reads and checks what the command line names. All mistakes of one stage are reported at once.
pub(super) fn prepare(flags: &flags::Run) -> anyhow::Result<Prepared> {
    let mut errors = Errors::default();
    let (read, workers) = (errors.ok(input::read(flags)), errors.ok(input::workers(flags)));
    errors.none()?;
    let ((inputs, systems), workers) = (read.unwrap_or_default(), workers.unwrap_or_default());
    let (mut drivers, mut driver_ignored, mut errors) = (Vec::new(), Vec::new(), Errors::default());
    for input::System { driver, ignored } in systems {
        drivers.extend(errors.ok(input::settled(&driver, flags.zone.as_deref(), !workers.is_empty())));
        driver_ignored.push(ignored);
    }
    errors.none()?;
    let mut broker = crate::embedded_broker();
    broker.capacity = flags.embedded_capacity.unwrap_or(broker.capacity);
    let mut errors: Errors = inputs
        .iter()
        .flat_map(|input| drivers.iter().map(|driver| input::fits(&input.workload, driver, broker.capacity)))
        .filter_map(Result::err)
        .collect();
    if !workers.is_empty() && flags.embedded_bind.is_none() {
        let embedded = drivers.iter().filter(|driver| driver.kind == DriverKind::Embedded);
        embedded.for_each(|driver| {
            errors.push(anyhow!(
                "{}: the embedded broker listens on this machine's loopback, where workers do not reach it: give \
                 --embedded-bind ADDR, or another driver by -d",
                driver.name
            ));
        });
    }
    if let Some(bind) = flags.embedded_bind.filter(|bind| bind.is_unspecified()) {
        errors.push(anyhow!(
            "--embedded-bind {bind}: workers are given this address; name the one at which they reach this machine"
        ));
    }
    if flags.workers.is_empty() && flags.workers_file.is_none() && Path::new(WORKERS_FILE).is_file() {
        tracing::info!("{WORKERS_FILE} lies here and is not used: -wf {WORKERS_FILE} runs over the workers it lists");
    }
    let fleet = errors.ok(Fleet::new(flags, &workers)).flatten();
    errors.none()?;
    Ok(Prepared { inputs, drivers, driver_ignored, broker, fleet })
}

/// The file in the current folder that upstream reads as the list of workers without being asked to.
const WORKERS_FILE: &str = "workers.yaml";

/// What each worker, or this process, needs for the plan.
pub(super) fn needs(
    plan: &Plan,
    driver: &DriverConfig,
    fleet: Option<&Fleet>,
    broker: &embedded::Options,
) -> Vec<Needs> {
    let needs = needs::of_plan(plan, driver, fleet.is_none(), broker.capacity);
    if fleet.is_none() { vec![needs::of_all(&needs)] } else { needs }
}

/// Whether the limits of every process allow what its share of a plan needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Enough,
    /// They may be too low.
    Scarce,
    Lacking,
}

/// Whether every process may have the files, threads and memory that its share of the plan needs; logs each shortage.
/// `limits` are those of the workers.
pub(super) fn room(
    plan: &Plan,
    driver: &DriverConfig,
    fleet: Option<&Fleet>,
    broker: &embedded::Options,
    limits: &[Limits],
) -> Room {
    let needs = needs(plan, driver, fleet, broker);
    let names = fleet.map(Fleet::names).unwrap_or_default();
    let shortages: Vec<Shortage> = match fleet {
        None => needs::shortages(None, &process::limits(), &needs[0]),
        Some(_) => (0..)
            .map(WorkerId)
            .zip(&names)
            .zip(limits.iter().zip(&needs))
            .flat_map(|((worker, name), (limits, needs))| needs::shortages(Some((worker, name)), limits, needs))
            .collect(),
    };
    for Shortage { what, certain } in &shortages {
        if *certain { tracing::error!("{what}") } else { tracing::warn!("{what}") }
    }
    match &shortages[..] {
        [] => Room::Enough,
        some if some.iter().any(|shortage| shortage.certain) => Room::Lacking,
        _ => Room::Scarce,
    }
}

/// Connects to the workers and returns the limits of each, unless the user interrupts it. An error has been logged.
pub(super) async fn reach(fleet: &Fleet, interrupts: &mut Interrupts) -> Result<Vec<Limits>, Code> {
    tokio::select! {
        reached = fleet.reach() => reached,
        () = interrupts.next() => Err(Code::Interrupted),
    }
}

/// The plan of one run: seeded by the flag, the workload or the clock, in this order.
pub(super) fn plan(flags: &flags::Run, input: &Input, run: RunId, fleet: Option<&Fleet>) -> Plan {
    let seed = flags.seed.or(input.workload.seed).unwrap_or_else(|| fresh("seed"));
    let topology = match flags.topology() {
        Ok(flags::Topology::Split) => Topology::Split { more_consumers: flags.extra },
        _ => Topology::Shared,
    };
    Plan::with_topology(run, Seed(seed), input.workload.clone(), fleet.map_or(1, Fleet::len), topology)
}

/// The id of a run that begins now.
fn new_run() -> RunId {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    RunId::drawn(WallTime(nanos(now)), fresh("run"))
}

/// A number that was never used before: a hash of the clock and the process.
pub(super) fn fresh(purpose: &str) -> u64 {
    use omb_machine::seed::fnv1a;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_nanos();
    let hash = fnv1a(0xcbf2_9ce4_8422_2325, purpose.as_bytes());
    let hash = fnv1a(hash, &now.to_le_bytes());
    // JSON readers keep integers up to 2^53 exact.
    fnv1a(hash, &std::process::id().to_le_bytes()) >> 11
}

/// One run, as requested.
pub(super) struct Asked<'a> {
    pub(super) flags: &'a flags::Run,
    pub(super) input: &'a Input,
    pub(super) driver: &'a DriverConfig,
    /// Keys of both files that are not applied.
    pub(super) ignored: Vec<Ignored>,
    pub(super) broker: &'a embedded::Options,
    pub(super) fleet: Option<&'a Fleet>,
    /// Whether it is one of several, which share the name given for the result.
    pub(super) several: bool,
}

async fn one(
    asked: &Asked<'_>,
    runtime: &tokio::runtime::Handle,
    interrupts: &mut Interrupts,
    interrupted: &Cell<bool>,
) -> anyhow::Result<Code> {
    let Asked { flags, input, driver, broker, fleet, several, .. } = *asked;
    let plan = plan(flags, input, new_run(), fleet);
    let mut files = Files::reserve(flags, input, driver, several)?;
    tracing::info!("Starting benchmark with config: {}", plan.workload.resolved());
    let (settings, _server) = settings(asked).inspect_err(|_| files.end_without_report("it could not begin"))?;
    let clock = Clock;
    let mut observer = Watch {
        progress: Progress::new(&plan),
        files,
        driver,
        context: Context { ignored: asked.ignored.clone(), ..output::context(driver, settings.names.clone()) },
        names: settings.names.clone(),
        needs: needs(&plan, driver, fleet, broker),
        plan: plan.clone(),
        began: false,
        reported: false,
        misfit_logged: false,
        write_failed: false,
    };
    let (stop, mut stops) = mpsc::unbounded_channel();
    let controller = Controller::new(clock.now(), plan, settings);
    let playing = async {
        match fleet {
            Some(fleet) => leading::lead(controller, fleet.links(), &mut observer, &mut stops, &clock).await,
            None => {
                let mut performer = Performer::start(runtime.clone(), broker.clone());
                local::run(controller, &mut performer, &mut observer, &mut stops, &clock).await
            }
        }
    };
    let ending = async {
        interrupts.next().await;
        interrupted.set(true);
        errln!();
        tracing::warn!("Interrupted: ending the measurement (once more leaves at once)");
        let _ = stop.send(());
        interrupts.next().await;
        console::leave(Code::Interrupted);
    };
    let end = tokio::select! {
        biased;
        end = playing => end,
        () = ending => unreachable!("it leaves by itself"),
    };
    observer.progress.finish();
    let code = conclude(&end, &observer);
    Ok(if observer.write_failed { code.max(Code::Failed) } else { code })
}

/// The settings of the controller, and the embedded broker if workers must reach it.
pub(super) fn settings(asked: &Asked<'_>) -> anyhow::Result<(Settings, Option<embedded::Server>)> {
    let Asked { flags, input, driver, broker, fleet, .. } = *asked;
    let mut settings = Settings { payload: input.payload.clone(), ..Settings::new(driver.clone()) };
    settings.day_second_at = (output::day_second(), Clock.now());
    settings.call_within = flags.call_timeout;
    settings.setup_within = flags.setup_timeout;
    // Within one process there are no connections that could be lost.
    let Some(fleet) = fleet else { return Ok((settings, None)) };
    settings.lease = flags.lease;
    settings.connect_within = flags.connect_timeout;
    settings.names = fleet.names();
    settings.controller = fleet::controller_name();
    settings.take_over = flags.take_over;
    settings.clocks = Clocks::Measured;
    settings.start_after = FLEET_START_AFTER;
    settings.on_loss = match flags.on_worker_loss {
        flags::OnWorkerLoss::Fail => OnLoss::Fail,
        flags::OnWorkerLoss::Continue => OnLoss::Continue,
    };
    let (DriverKind::Embedded, Some(bind)) = (&driver.kind, flags.embedded_bind) else { return Ok((settings, None)) };
    let options = embedded::Options { bind: SocketAddr::new(bind, 0), ..broker.clone() };
    let server = embedded::Server::start(options).map_err(|error| anyhow!("--embedded-bind {bind}: {error}"));
    let server = server.exits_with(Code::Unavailable)?;
    let (address, near) = (server.addr(), if bind.is_loopback() { ", loopback" } else { "" });
    if !bind.is_loopback() {
        tracing::warn!("the embedded broker listens on {address}: anyone who reaches it can read and write everything");
    }
    settings.driver.kind = DriverKind::Kafka(performer::embedded_settings(address));
    settings.system = Some(format!("embedded{near}, at {address} beside the controller"));
    Ok((settings, Some(server)))
}

/// From the start command until message 0 is due: enough for the command to reach every worker, even at the second try.
const FLEET_START_AFTER: Duration = Duration::from_millis(500);

/// Logs how a run ended, and returns its exit code.
fn conclude(end: &End, observer: &Watch<'_>) -> Code {
    match end {
        End::Sound => Code::Sound,
        End::Unsound(reasons) => {
            reasons.iter().for_each(|reason| tracing::error!("{reason}"));
            Code::Failed
        }
        End::Interrupted(reported) => {
            if !reported {
                tracing::warn!("Interrupted before the load began: there is no result");
            }
            Code::Interrupted
        }
        End::Failed(failure) => {
            if !observer.misfit_logged {
                tracing::error!("{failure}");
            }
            if observer.reported {
                // There is a partial result, marked as such: the run failed, whatever the cause.
                return Code::Failed;
            }
            failure.into()
        }
    }
}

/// Shows the progress of a run, and writes its files.
struct Watch<'a> {
    progress: Progress,
    files: Files,
    driver: &'a DriverConfig,
    context: Context,
    /// The names of the workers; empty if this process performs the run.
    names: Vec<String>,
    plan: Plan,
    /// What each worker needs for it.
    needs: Vec<Needs>,
    /// The messaging system has answered, and the plan has been printed.
    began: bool,
    reported: bool,
    /// The reason why the run cannot begin has been logged.
    misfit_logged: bool,
    /// A file could not be written.
    write_failed: bool,
}

impl local::Observer for Watch<'_> {
    fn on_output(&mut self, output: &controller::Output) {
        match output {
            controller::Output::Entered(phase) => {
                self.log(*phase);
                self.progress.enter(*phase);
            }
            controller::Output::Period(period) => {
                self.write_failed |= !self.files.append(period);
                self.progress.period(period);
            }
            controller::Output::Report(report) => {
                self.progress.finish();
                self.context.ended = Some(output::time_now());
                let result = RunResult::of(report, &self.context);
                let (written, whole) = self.files.write(report, &result);
                self.write_failed |= !whole;
                self.reported = true;
                let written: Vec<&str> = written.iter().map(String::as_str).collect();
                outln!("\n{}", table::result(&result, &written, output::width()).trim_end());
            }
            controller::Output::Warning(text) => tracing::warn!("{text}"),
            controller::Output::Misfit(failure) => {
                tracing::error!("{failure}");
                self.misfit_logged = true;
            }
            controller::Output::Finished(end) => {
                if !self.reported {
                    self.files.end_without_report(&match end {
                        End::Failed(failure) => failure.message.clone(),
                        _ => "interrupted before the load began".to_owned(),
                    });
                }
            }
            controller::Output::WorkerLost { worker, cause } => {
                tracing::error!("worker {} is lost: {cause}", worker.number());
            }
            controller::Output::ToWorker { .. } | controller::Output::Ping { .. } => {}
        }
    }

    fn on_controller(&mut self, controller: &Controller, _now: omb_machine::time::Instant) {
        if !self.began && !controller.system().is_empty() {
            self.began = true;
            self.write_failed |= !self.files.begin(&self.plan, &self.context, controller.system());
            outln!("{}", output::plan(&self.plan, &self.names, self.driver, controller.system(), &self.needs));
        }
    }

    fn on_lease_expired(&mut self) {
        tracing::error!("this process stood still for longer than the lease: the run is being closed");
    }
}

impl Watch<'_> {
    /// Logs the start of a phase, in the words of the guide.
    fn log(&self, phase: Phase) {
        let plan = &self.plan;
        let count = self.names.len();
        let workers = (count > 0).then(|| format!("{count} worker{}", plural(count)));
        match phase {
            Phase::CreateTopics => {
                if let Some(workers) = &workers {
                    tracing::info!("Ensemble of distributed workers ({workers})");
                }
                tracing::info!("Creating {} topics...", plan.topics.len());
            }
            Phase::CreateConsumers => match &workers {
                Some(workers) => tracing::info!("Creating consumers distributed across {workers}..."),
                None => tracing::info!("Creating {} consumers...", plan.consumers.len()),
            },
            Phase::CreateProducers => match &workers {
                Some(workers) => tracing::info!("Creating producers distributed across {workers}..."),
                None => tracing::info!("Creating {} producers...", plan.producers.len()),
            },
            Phase::WarmUp => tracing::info!("Starting load test..."),
            Phase::Drain => tracing::info!("Waiting for the last messages..."),
            _ => tracing::debug!("Entering phase: {phase}"),
        }
    }
}
