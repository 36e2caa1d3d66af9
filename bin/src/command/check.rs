//! `omb check`: parse everything, reach every worker and broker, print the plan; run nothing.

use std::{net::SocketAddr, process::ExitCode, sync::atomic::AtomicBool};

use omb_core::id::RunId;

use super::{fleet, output, run};
use crate::{
    console::outln,
    exit::{self, Ended},
    flags,
    signals::Interrupts,
};

/// Checks what `run` would do with the same arguments.
pub(crate) fn check(flags: &flags::Run) -> ExitCode {
    let Some(run::Prepared { inputs, drivers, broker, fleet, .. }) = run::prepare(flags) else {
        return exit::USAGE.into();
    };
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() else {
        tracing::error!("the system gives no thread");
        return Ended::Failed.into();
    };
    let mut worst = Ended::Sound;
    let mut usage = None;
    let mut reached = Vec::new();
    let mut open_files = Vec::new();
    if let Some(fleet) = &fleet {
        match runtime.block_on(async { run::reach(fleet, &mut Interrupts::listen()).await }) {
            Ok(found) => open_files = found,
            Err(ended) => worst = ended,
        }
    }
    for driver in &drivers {
        // Where the workers must reach it, the embedded broker listens where they are told.
        let mut broker = broker.clone();
        if let Some(bind) = flags.embedded_bind {
            broker.bind = SocketAddr::new(bind, 0);
        }
        // This process is in nobody's zone, and a template is never sent as it stands.
        let mut own = driver.clone();
        own.fill_zone(Some("controller")).expect("a zone is given");
        match omb_runtime_real::performer::connect(
            &own.kind,
            &broker,
            runtime.handle().clone(),
            &AtomicBool::new(false),
        ) {
            Ok((_server, system)) => reached.push((driver, system.system().to_owned())),
            Err(failure) => {
                tracing::error!("{}: {failure}", driver.name);
                match Ended::by(&failure) {
                    Ok(ended) => worst = worst.max(ended),
                    Err(code) => usage = Some(code),
                }
            }
        }
    }
    let names = fleet.as_ref().map(fleet::Fleet::names).unwrap_or_default();
    for input in &inputs {
        let plan = run::plan(flags, input, RunId(0), fleet.as_ref());
        for driver in &drivers {
            if !run::enough_files(&plan, driver, fleet.as_ref(), &open_files) {
                worst = worst.max(Ended::Unavailable);
            }
        }
        reached.iter().for_each(|(driver, system)| outln!("{}", output::plan(&plan, &names, driver, system)));
    }
    if worst == Ended::Sound && usage.is_none() {
        outln!("Everything fits. Nothing was run.");
    }
    usage.unwrap_or_else(|| worst.into())
}
