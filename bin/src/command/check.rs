//! `omb check`: parses everything, has every worker reach every broker, asks the brokers whether they would create the
//! topics, prints the plan; runs nothing.

use anyhow::Context as _;
use omb_bench::{
    controller::{self, Controller, End},
    id::RunId,
    plan::Plan,
};
use omb_runtime_real::{
    clock::Clock,
    performer::Performer,
    portable::{event_loop::Clock as _, fleet::leading, local},
};
use tokio::sync::mpsc;

use super::{fleet, output, run};
use crate::{
    console::{self, outln},
    exit::{self, Code, ExitsWith as _},
    flags,
    signals::Interrupts,
};

/// Checks what `run` would do with the same arguments.
pub(crate) fn check(flags: &flags::Run) -> anyhow::Result<Code> {
    let prepared = match run::prepare(flags) {
        Ok(prepared) => prepared,
        Err(error) => return Ok(exit::print(&error)),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.ok().context("the system gives no thread").exits_with(Code::Failed)?;
    let mut interrupts = {
        let _within = runtime.enter();
        Interrupts::listen()
    };
    let run::Prepared { inputs, drivers, broker, fleet, .. } = &prepared;
    let fleet = fleet.as_ref();
    let limits = match fleet.map(|fleet| runtime.block_on(run::reach(fleet, &mut interrupts))) {
        None => Vec::new(),
        Some(Ok(limits)) => limits,
        // Without the workers there is nothing more to check.
        Some(Err(code)) => return Ok(code),
    };
    let (mut worst, mut scarce) = (Code::Sound, false);
    let mut systems = Vec::new();
    for driver in drivers {
        for input in inputs {
            let plan = run::plan(flags, input, RunId(0), fleet);
            let room = run::room(&plan, driver, fleet, broker, &limits);
            scarce |= room == run::Room::Scarce;
            if room == run::Room::Lacking {
                worst = worst.max(Code::Unavailable);
            }
        }
        // All workloads at once: each worker connects once.
        let plans: Vec<Plan> =
            inputs.iter().map(|input| run::plan(flags, input, RunId(run::fresh("check")), fleet)).collect();
        let asked = run::Asked { flags, input: &inputs[0], driver, ignored: Vec::new(), broker, fleet, several: false };
        let (mut settings, _server) = match run::settings(&asked) {
            Ok(made) => made,
            Err(error) => {
                worst = worst.max(exit::log(&error));
                continue;
            }
        };
        // A check must not end the run of another controller.
        settings.take_over = false;
        let clock = Clock;
        let mut found = Found { name: &driver.name, system: String::new(), misfit_logged: false };
        let controller = Controller::checking(clock.now(), plans, settings);
        let (stop, mut stops) = mpsc::unbounded_channel();
        let checking = async {
            match fleet {
                Some(fleet) => leading::lead(controller, fleet.links(), &mut found, &mut stops, &clock).await,
                None => {
                    let mut performer = Performer::start(runtime.handle().clone(), broker.clone());
                    local::run(controller, &mut performer, &mut found, &mut stops, &clock).await
                }
            }
        };
        let interrupted = async {
            interrupts.next().await;
            let _ = stop.send(());
            interrupts.next().await;
            console::leave(Code::Interrupted);
        };
        let end = runtime.block_on(async {
            tokio::select! {
                biased;
                end = checking => end,
                () = interrupted => unreachable!("it leaves by itself"),
            }
        });
        systems.push(found.system.clone());
        match end {
            End::Sound => {}
            End::Unsound(_) => worst = worst.max(Code::Failed),
            End::Interrupted(_) => return Ok(Code::Interrupted),
            End::Failed(failure) => {
                if !found.misfit_logged {
                    tracing::error!("{}: {failure}", driver.name);
                }
                worst = worst.max(Code::from(&failure));
            }
        }
    }
    show(flags, &prepared, &systems);
    if worst == Code::Sound {
        let but = if scarce { ", but for the warnings above" } else { "" };
        outln!("Everything fits{but}. Nothing was run.");
    }
    Ok(worst)
}

/// Prints the plan of each workload, on each system that answered.
fn show(flags: &flags::Run, prepared: &run::Prepared, systems: &[String]) {
    let names = prepared.fleet.as_ref().map(fleet::Fleet::names).unwrap_or_default();
    for input in &prepared.inputs {
        let plan = run::plan(flags, input, RunId(0), prepared.fleet.as_ref());
        for (driver, system) in prepared.drivers.iter().zip(systems).filter(|(_, system)| !system.is_empty()) {
            let needs = run::needs(&plan, driver, prepared.fleet.as_ref(), &prepared.broker);
            outln!("{}", output::plan(&plan, &names, driver, system, &needs));
        }
    }
}

/// The findings of a check.
struct Found<'a> {
    /// The driver's name.
    name: &'a str,
    /// How the messaging system describes itself; empty if it did not answer.
    system: String,
    /// The reason why the plan does not fit has been logged.
    misfit_logged: bool,
}

impl local::Observer for Found<'_> {
    fn on_output(&mut self, output: &controller::Output) {
        match output {
            controller::Output::Misfit(failure) => {
                tracing::error!("{}: {failure}", self.name);
                self.misfit_logged = true;
            }
            controller::Output::Warning(text) => tracing::warn!("{text}"),
            controller::Output::WorkerLost { worker, cause } => {
                tracing::error!("worker {} is lost: {cause}", worker.number());
            }
            _ => {}
        }
    }

    fn on_controller(&mut self, controller: &Controller, _now: omb_machine::time::Instant) {
        if self.system.is_empty() {
            controller.system().clone_into(&mut self.system);
        }
    }
}
