//! The files that a run needs, read and checked before anything starts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use omb_bench::config::{
    driver::{self, DriverConfig, DriverKind},
    terms::Refused,
    workload::{self, PayloadSource, RateGoal, Workload},
};
use omb_machine::config::{Leniency, setting::CONTENT_MAX};
use omb_report::context::Ignored;
use omb_runtime_real::embedded;

use super::addresses::{self, Address};
use crate::{console::shown, exit::Errors, flags};

/// Largest workload or driver file: more is a mistake, not a file of this kind.
const FILE_MAX: u64 = 64 << 20;

/// Largest payload: it is sent to the workers in one message, with a few other fields.
const PAYLOAD_MAX: u64 = (omb_machine::encoding::BODY_MAX - (1 << 16)) as u64;

/// A workload and what belongs to it.
#[derive(Debug)]
pub(crate) struct Input {
    /// As checked.
    pub(crate) workload: Workload,
    /// The file's name without its extension.
    pub(crate) stem: String,
    /// The bytes of its payload file.
    pub(crate) payload: Option<Vec<u8>>,
    /// Its keys that are not applied.
    pub(crate) ignored: Vec<Ignored>,
}

/// A messaging system, and what belongs to it.
#[derive(Debug)]
pub(crate) struct System {
    /// As checked.
    pub(crate) driver: DriverConfig,
    /// Keys of its file that are not applied.
    pub(crate) ignored: Vec<Ignored>,
}

/// Reads every file. All mistakes of all files are reported at once.
pub(crate) fn read(flags: &flags::Run) -> anyhow::Result<(Vec<Input>, Vec<System>)> {
    let leniency = leniency(flags);
    let mut errors = Errors::default();
    let inputs = flags.workloads.iter().filter_map(|path| errors.ok(workload(path, leniency))).collect();
    let mut systems = errors.ok(drivers(&flags.drivers, leniency)).unwrap_or_default();
    if flags.drivers.is_empty() {
        let driver = DriverConfig { name: "Embedded".to_owned(), kind: DriverKind::Embedded };
        systems.push(System { driver, ignored: Vec::new() });
    }
    errors.none()?;
    Ok((inputs, systems))
}

/// Reads driver files. All mistakes of all of them are reported at once.
pub(crate) fn drivers(paths: &[PathBuf], leniency: Leniency) -> anyhow::Result<Vec<System>> {
    let mut errors = Errors::default();
    let drivers = paths.iter().filter_map(|path| errors.ok(driver(path, leniency))).collect();
    errors.none()?;
    Ok(drivers)
}

fn driver(path: &Path, leniency: Leniency) -> anyhow::Result<System> {
    let text = text_of(path)?;
    let parsed = driver::parse_within(&shown(path), &text, leniency, &|name| std::env::var(name).ok())?;
    parsed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let ignored = Ignored::among(&parsed.warnings).collect();
    Ok(System { driver: parsed.value, ignored })
}

fn leniency(flags: &flags::Run) -> Leniency {
    leniency_of(flags.lenient)
}

/// What `--lenient` asks for.
pub(crate) fn leniency_of(lenient: bool) -> Leniency {
    if lenient { Leniency::Lenient } else { Leniency::Strict }
}

/// The workers of the run; none if this process performs it. All mistakes are reported at once.
pub(crate) fn workers(flags: &flags::Run) -> anyhow::Result<Vec<Address>> {
    let mut errors = Errors::default();
    let workers = errors.ok(match &flags.workers_file {
        Some(path) => text_of(path).and_then(|text| addresses::from_file(&shown(path), &text, leniency(flags))),
        None => addresses::from_flag(&flags.workers),
    });
    let topology = errors.ok(flags.topology());
    if topology == Some(flags::Topology::Split) && workers.as_ref().is_some_and(|workers| workers.len() < 2) {
        errors.push(anyhow!("1 worker is given, where --topology split and --extra need at least 2"));
    }
    errors.none()?;
    Ok(workers.unwrap_or_default())
}

/// The driver for the processes that connect: for workers with the content of its files, for this process with its
/// zone. All rejected settings are reported at once, before any connection is made.
pub(crate) fn settled(driver: &DriverConfig, zone: Option<&str>, fleet: bool) -> anyhow::Result<DriverConfig> {
    let named = |refused: &Refused| anyhow!("{}: {refused}", driver.name);
    if fleet {
        let read = |path: &str| bytes_of(Path::new(path), CONTENT_MAX as u64).map_err(|error| format!("{error:#}"));
        return driver.for_workers(read).map_err(|refused| refused.iter().map(named).collect::<Errors>().into());
    }
    let mut own = driver.clone();
    own.fill_zone(zone).map_err(|refused| named(&refused))?;
    Ok(own)
}

pub(super) fn text_of(path: &Path) -> anyhow::Result<String> {
    let bytes = bytes_of(path, FILE_MAX)?;
    String::from_utf8(bytes).map_err(|_| anyhow!("{}: not a text file (it is not UTF-8)", shown(path)))
}

/// The content of a file of at most `most` bytes.
pub(super) fn bytes_of(path: &Path, most: u64) -> anyhow::Result<Vec<u8>> {
    let unreadable = || format!("{}: cannot read it", shown(path));
    let metadata = fs::metadata(path).with_context(unreadable)?;
    if metadata.is_dir() {
        bail!("{}: a folder, where a file is wanted", shown(path));
    }
    if metadata.len() > most {
        bail!("{}: {} bytes, where at most {most} make sense", shown(path), metadata.len());
    }
    fs::read(path).with_context(unreadable)
}

fn workload(path: &Path, leniency: Leniency) -> anyhow::Result<Input> {
    let text = text_of(path)?;
    let parsed = workload::parse(&shown(path), &text, leniency)?;
    parsed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let ignored = Ignored::among(&parsed.warnings).collect();
    let workload = parsed.value;
    let payload = match &workload.payload {
        PayloadSource::Random { .. } => None,
        PayloadSource::File(file) => {
            let bytes = bytes_of(file, PAYLOAD_MAX).with_context(|| format!("{}: payloadFile", shown(path)))?;
            if bytes.len() as u64 != u64::from(workload.message_size) {
                bail!(
                    "{}: payloadFile: {} holds {} bytes, but messageSize is {}",
                    shown(path),
                    shown(file),
                    bytes.len(),
                    workload.message_size,
                );
            }
            Some(bytes)
        }
    };
    let stem = path.file_stem().map_or_else(|| "workload".to_owned(), |stem| stem.to_string_lossy().into_owned());
    Ok(Input { workload, stem, payload, ignored })
}

/// Rejects messages beyond the limits of the driver file, and a backlog beyond the capacity of the embedded broker,
/// before anything starts.
pub(crate) fn fits(workload: &Workload, driver: &DriverConfig, capacity: u64) -> anyhow::Result<()> {
    if let DriverKind::Kafka(config) = &driver.kind {
        let fitted = config.clone().fit(workload.largest_message());
        fitted.with_context(|| format!("{}, {}", workload.name, driver.name))?;
    }
    let Some(backlog) = workload.backlog.filter(|_| driver.kind == DriverKind::Embedded) else { return Ok(()) };
    // The backlog counts every subscription's unread messages; the broker stores each message once. Batches have
    // some overhead: 70 bytes a message is more than was measured with small batches.
    let messages = backlog.bytes / u64::from(workload.message_size.max(1));
    let stored = (backlog.bytes + messages * 70) / u64::from(workload.subscriptions_per_topic.max(1));
    let most = embedded::records_max(capacity);
    if stored > most {
        bail!(
            "{}: consumerBacklogSizeGB asks for {} MiB to be held, but the embedded broker holds at most {} MiB of \
             records (--embedded-capacity {} MiB)",
            workload.name,
            stored >> 20,
            most >> 20,
            capacity >> 20,
        );
    }
    debug_assert!(workload.rate != RateGoal::Search, "a backlog has a fixed rate, by the workload's own check");
    Ok(())
}
