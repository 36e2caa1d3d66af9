//! `omb clean`: deletes the topics and consumer groups that dead runs have left on a messaging system.

use std::{
    sync::atomic::AtomicBool,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, anyhow, bail};
use omb_bench::{
    config::driver::{DriverConfig, DriverKind},
    plan::leftovers::{Remains, Sign, remains},
    protocol::Failure,
};
use omb_machine::{
    quantity::{plural, rfc3339},
    time::{WallTime, nanos},
};
use omb_runtime_real::driver::{Driver, kafka::Kafka};
use tokio::runtime::Runtime;

use super::input;
use crate::{
    console::outln,
    exit::{self, Code, ExitsWith as _},
    flags,
    signals::Interrupts,
};

/// Time between two inventories, whose sizes of topics show even a run that writes one message a second.
const INVENTORY_INTERVAL: Duration = Duration::from_secs(2);
/// Longest time for one inventory.
const INVENTORY_WITHIN: Duration = Duration::from_secs(60);
/// Longest time for the deletion of one run's topics, and of its groups.
const DELETE_WITHIN: Duration = Duration::from_secs(60);

/// Takes two inventories, reports what each run has left, and deletes what no run in progress uses.
pub(crate) fn clean(flags: &flags::Clean) -> anyhow::Result<Code> {
    let drivers = input::drivers(&flags.drivers, input::leniency_of(flags.lenient))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.ok().context("the system gives no thread").exits_with(Code::Failed)?;
    let mut worst = Code::Sound;
    for system in &drivers {
        worst = worst.max(one(flags, &system.driver, &runtime).or_else(unless_usage)?);
        if worst == Code::Interrupted {
            break;
        }
    }
    Ok(worst)
}

/// Logs an error after which the rest can still be cleaned: any but one of usage or configuration.
fn unless_usage(error: anyhow::Error) -> anyhow::Result<Code> {
    if Code::of(&error) == Code::Usage { Err(error) } else { Ok(exit::log(&error)) }
}

/// Cleans one system.
fn one(flags: &flags::Clean, driver: &DriverConfig, runtime: &Runtime) -> anyhow::Result<Code> {
    let own = input::settled(driver, Some("clean"), false)?;
    let failed = |failure: Failure| Code::from(&failure).attach(anyhow!("{}: {failure}", driver.name));
    let DriverKind::Kafka(config) = &own.kind else {
        bail!("{}: the embedded broker keeps nothing beyond its process: there is nothing to clean", driver.name);
    };
    let system = Kafka::connect(config, runtime.handle().clone(), &AtomicBool::new(false)).map_err(failed)?;
    let before = system.inventory(INVENTORY_WITHIN).map_err(failed)?;
    if before.topics.is_empty() && before.groups.is_empty() {
        outln!("{}: no run has left anything.", driver.name);
        return Ok(Code::Sound);
    }
    let interrupted = runtime.block_on(async {
        tokio::select! {
            () = tokio::time::sleep(INVENTORY_INTERVAL) => false,
            () = async { Interrupts::listen().next().await } => true,
        }
    });
    if interrupted {
        return Ok(Code::Interrupted);
    }
    let after = system.inventory(INVENTORY_WITHIN).map_err(failed)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(WallTime(0), |since| WallTime(nanos(since)));
    let found = remains(&before, &after, now, flags.older_than);
    let chosen: Vec<&Remains> = found.iter().filter(|it| flags.run.is_none_or(|run| run == it.run)).collect();
    if chosen.is_empty() {
        let run = flags.run.map_or_else(String::new, |run| format!(" run {run}"));
        outln!("{}: there is nothing of{run}.", driver.name);
        return Ok(Code::Sound);
    }
    let mut worst = Code::Sound;
    for remains in chosen {
        let what = describe(remains);
        if let Some(sign) = remains.in_progress {
            outln!("{}: {what}: left alone, {}", driver.name, why(sign, flags.older_than));
        } else if flags.dry_run {
            outln!("{}: {what}: would be deleted", driver.name);
        } else {
            match delete(&system, remains) {
                Ok(()) => outln!("{}: {what}: deleted", driver.name),
                Err(failure) => worst = worst.max(unless_usage(failed(failure))?),
            }
        }
    }
    Ok(worst)
}

fn delete(system: &dyn Driver, remains: &Remains) -> Result<(), Failure> {
    let topics = system.delete_topics(&remains.topics, DELETE_WITHIN);
    // Groups are deleted even if a topic cannot be.
    let groups = system.delete_groups(&remains.groups, DELETE_WITHIN);
    topics.and(groups)
}

/// `run 0006b49d20012345 of 2026-11-29T21:54:49Z, 3 topics, 1 group`.
fn describe(remains: &Remains) -> String {
    let count = |n: usize, what: &str| format!("{n} {what}{}", plural(n));
    format!(
        "run {} of {}, {}, {}",
        remains.run,
        rfc3339(remains.run.began()),
        count(remains.topics.len(), "topic"),
        count(remains.groups.len(), "group")
    )
}

/// Why a run counts as in progress.
fn why(sign: Sign, older_than: Duration) -> String {
    match sign {
        Sign::Members(1) => "its groups have a member".to_owned(),
        Sign::Members(members) => format!("its groups have {members} members"),
        Sign::Written(messages) => format!("{messages} messages were written to it meanwhile"),
        Sign::Young(age) => format!(
            "it began {} s ago and may still be setting up (--older-than {} s)",
            age.as_secs(),
            older_than.as_secs()
        ),
    }
}
