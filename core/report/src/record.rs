//! The record of a run as it goes: a line of JSON per period, appended as it arrives, from which a result can be made.
//!
//! ```text
//! {"kind":"run", ..}      configuration, tool, host and plan; written before the load begins             Header
//! {"kind":"period", ..}   counts, rates and whole histograms of one period; as each arrives              PeriodLine
//! {"kind":"end", ..}      how it ended, and what arrived after the last period; missing if the           EndLine
//!                         process died
//! ```
//!
//! Whatever is needed to make the same result again is written as exact numbers: nanoseconds and counts. Rates are
//! there for people.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    context::{Context, Host, Ignored},
    histogram,
    result::{Counts, PlanSummary, Tool},
};
use omb_bench::{
    config::{
        driver::DriverConfig,
        workload::{PayloadSource, Workload},
    },
    id::{RunId, SubscriptionId, WorkerId},
    load::silence::Silence,
    plan::{Plan, Share, Topology},
    protocol::event::{Problem, Process},
    rate::Tempo,
    result::{
        BacklogTimes, Found, Lost, Period, Periods, Phase, Rebalances, Report, Verdict, WorkerPeriod, WorkerRow,
        periods::Frame,
        soundness,
        sums::{self, Sums},
    },
    stats::{
        latency::Latency,
        tally::{Seen, Totals},
    },
};
use omb_machine::{
    quantity::per_second,
    seed::Seed,
    time::{WallTime, nanos},
};

/// Version of the lines. A reader refuses one it does not know.
pub const FORMAT_VERSION: u32 = 1;

/// Why a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// There is no line at all.
    #[error("the record is empty")]
    Empty,
    /// The first line is not our header.
    #[error("line 1 is not the header of a recorded run: {0}")]
    NotARecord(String),
    /// It was written by another version.
    #[error("the record has format version {found}, this omb reads version {FORMAT_VERSION}")]
    OtherVersion {
        /// The version it states.
        found: u64,
    },
    /// A line that is not the last cannot be read, so something is missing in the middle.
    #[error("line {line}: {why}")]
    Broken {
        /// From 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// A record, read back.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// The plan, made again from the run's id, its seed and its workload.
    pub plan: Plan,
    /// The driver file's `name`.
    pub driver: String,
    /// What the messaging system reported of itself, as far as it was recorded.
    pub system: String,
    /// The first line: the configuration, the tool and the host.
    pub header: Header,
    /// Every period, in order.
    pub periods: Periods,
    /// Each worker's part as far as the periods show it, for a record that breaks off; empty if there is only one.
    pub workers: Vec<WorkerRow>,
    /// How it ended; `None` if the process died before it could record it, or if it had no result.
    pub end: Option<Ending>,
    /// Why it ended without a result.
    pub without_result: Option<String>,
    /// Whether the last line was torn, as it is when a disk fills up or a process dies while writing.
    pub torn: bool,
}

/// The last line: what a report holds beside its periods.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// Why it ended early; `None` if it is whole.
    pub partial: Option<String>,
    /// What the messaging system reports of itself.
    pub system: String,
    /// When the load began.
    pub started: WallTime,
    /// What was counted after the last period.
    pub rest: Totals,
    /// CPU time of the client while it was measured.
    pub client_cpu: Duration,
    /// The process at the end.
    pub process: Process,
    /// Each worker's part.
    pub workers: Vec<WorkerRow>,
    /// How far clocks may disagree.
    pub clock_error: Option<Duration>,
    /// What a search found.
    pub found: Option<Found>,
    /// How a backlog built up and drained.
    pub backlog: Option<BacklogTimes>,
    /// Groups that were rebalanced since the load began.
    pub rebalances: BTreeMap<SubscriptionId, Rebalances>,
    /// What happened to the confirmed messages.
    pub verdict: Verdict,
    /// What went wrong.
    pub problems: Vec<Problem>,
    /// Whether messages are not confirmed.
    pub unconfirmed: bool,
    /// Rates by a list.
    pub tempo: Option<Tempo>,
    /// When nothing was acknowledged.
    pub outages: Vec<Silence>,
}

/// A line of a record, as it is written. Reading goes by its kind first: behind a tag, serde reads no numbers as keys.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line {
    Run(Box<Header>),
    Period(Box<PeriodLine>),
    End(Box<EndLine>),
}

/// What kind of line it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    kind: Option<Value>,
    format_version: Option<u64>,
}

impl Line {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("plain numbers, texts and maps with numbers for keys become JSON")
    }
}

/// The first line of a record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Version of the lines: [`FORMAT_VERSION`].
    pub format_version: u32,
    /// Id of the run.
    pub run: String,
    /// The program that measures.
    #[serde(default)]
    pub tool: Tool,
    /// The controller's machine.
    #[serde(default)]
    pub host: Host,
    /// When the run began, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// What the messaging system reports of itself, if known by then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The workload, every default filled in.
    pub workload: Value,
    /// The driver's configuration, every default filled in and every secret hidden.
    pub driver: Value,
    /// Keys of the files that were not applied. Absent from earlier records, and from runs that applied every key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<Ignored>,
    /// The plan in numbers. Absent from earlier records: a plan is made from `origin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanSummary>,
    /// Addresses of the workers, in order; empty if one process does the whole run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<String>,
    /// How histograms are encoded.
    histograms: Encoding,
    /// What the plan is made from.
    origin: Origin,
}

/// How histograms are encoded, for people and other programs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Encoding {
    encoding: String,
    unit: String,
}

impl Default for Encoding {
    fn default() -> Self {
        Self { encoding: histogram::ENCODING.to_owned(), unit: "ns".to_owned() }
    }
}

/// What the header holds for machines: everything a plan is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Origin {
    run: RunId,
    seed: Seed,
    workers: u32,
    #[serde(default)]
    topology: Topology,
    workload: Workload,
}

/// The line of one period.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PeriodLine {
    frame: Frame,
    /// For people: they follow from the others.
    #[serde(default)]
    rates: PeriodRates,
    totals: RecordedTotals,
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<Vec<WorkerLine>>,
}

/// Rates of one period, per second.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PeriodRates {
    sent_per_second: f64,
    acked_per_second: f64,
    acked_bytes_per_second: f64,
    received_per_second: f64,
    failed_per_second: f64,
}

impl PeriodRates {
    fn of(counts: &Counts, elapsed: Duration) -> Self {
        Self {
            sent_per_second: per_second(counts.attempted, elapsed),
            acked_per_second: per_second(counts.acked, elapsed),
            acked_bytes_per_second: per_second(counts.acked_bytes, elapsed),
            received_per_second: per_second(counts.received, elapsed),
            failed_per_second: per_second(counts.failed, elapsed),
        }
    }
}

/// Totals with nothing left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RecordedTotals {
    counts: Counts,
    seen: BTreeMap<SubscriptionId, Seen>,
    histograms: RecordedHistograms,
}

/// The five latencies, whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordedHistograms {
    publish_from_intended: RecordedHistogram,
    publish_from_sent: RecordedHistogram,
    schedule_error: RecordedHistogram,
    end_to_end_from_intended: RecordedHistogram,
    end_to_end_from_sent: RecordedHistogram,
}

/// One latency, whole, in [`histogram::ENCODING`].
#[derive(Clone, Debug, Serialize, Deserialize)]
struct RecordedHistogram {
    clamped: u64,
    data: String,
}

impl RecordedHistogram {
    fn of(latency: &Latency) -> Self {
        Self { clamped: latency.clamped(), data: histogram::encode(latency) }
    }
}

impl RecordedTotals {
    fn of(totals: &Totals) -> Self {
        let Totals { departures, acknowledgements: acks, arrivals, seen } = totals;
        Self {
            counts: Counts::of(totals),
            seen: seen.clone(),
            histograms: RecordedHistograms {
                publish_from_intended: RecordedHistogram::of(&acks.from_intended),
                publish_from_sent: RecordedHistogram::of(&acks.from_sent),
                schedule_error: RecordedHistogram::of(&departures.schedule_error),
                end_to_end_from_intended: RecordedHistogram::of(&arrivals.from_intended),
                end_to_end_from_sent: RecordedHistogram::of(&arrivals.from_sent),
            },
        }
    }

    fn into_totals(self) -> Result<Totals, String> {
        let decode = |key: &str, one: &RecordedHistogram| {
            histogram::decode(&one.data, one.clamped).map_err(|error| format!("{key}: {error}"))
        };
        let Self { counts, seen, histograms } = self;
        let mut totals = Totals { seen, ..counts.into_totals() };
        totals.acknowledgements.from_intended = decode("publishFromIntended", &histograms.publish_from_intended)?;
        totals.acknowledgements.from_sent = decode("publishFromSent", &histograms.publish_from_sent)?;
        totals.departures.schedule_error = decode("scheduleError", &histograms.schedule_error)?;
        totals.arrivals.from_intended = decode("endToEndFromIntended", &histograms.end_to_end_from_intended)?;
        totals.arrivals.from_sent = decode("endToEndFromSent", &histograms.end_to_end_from_sent)?;
        Ok(totals)
    }
}

/// The last line. Without `frame` and `totals` the run ended without a result.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct EndLine {
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<Tail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    totals: Option<RecordedTotals>,
}

/// The numbers of the last line that are not in its totals.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tail {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    partial: Option<String>,
    system: String,
    started_unix_ns: u64,
    client_cpu_ns: u64,
    process: Process,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    workers: Vec<WorkerRow>,
    #[serde(default)]
    unconfirmed: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tempo: Option<Tempo>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    clock_error: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    found: Option<Found>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    backlog: Option<BacklogTimes>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    rebalances: BTreeMap<SubscriptionId, Rebalances>,
    verdict: Verdict,
    problems: Vec<Problem>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    outages: Vec<Silence>,
}

/// One worker's part of a period, as it is in a record.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkerLine {
    /// From 1.
    worker: u32,
    elapsed_ns: u64,
    attempted: u64,
    acked: u64,
    received: u64,
    schedule_lag_ns: u64,
    cpu_ns: u64,
    network_received_bytes: u64,
    network_sent_bytes: u64,
    /// For people: it follows from the others.
    #[serde(default)]
    sent_per_second: f64,
}

impl WorkerLine {
    fn of(part: &WorkerPeriod) -> Self {
        Self {
            worker: part.worker.0.saturating_add(1),
            elapsed_ns: nanos(part.elapsed),
            attempted: part.attempted,
            acked: part.acked,
            received: part.received,
            schedule_lag_ns: nanos(part.schedule_lag),
            cpu_ns: nanos(part.cpu),
            network_received_bytes: part.received_bytes,
            network_sent_bytes: part.sent_bytes,
            sent_per_second: per_second(part.attempted, part.elapsed),
        }
    }

    /// Adds what was counted to the worker's row.
    fn add_to(&self, row: &mut WorkerRow, message_size: u64) {
        row.measured_for = row.measured_for.saturating_add(Duration::from_nanos(self.elapsed_ns));
        row.cpu = row.cpu.saturating_add(Duration::from_nanos(self.cpu_ns));
        for (sum, more) in [
            (&mut row.attempted, self.attempted),
            (&mut row.acked, self.acked),
            (&mut row.acked_bytes, self.acked.saturating_mul(message_size)),
            (&mut row.received, self.received),
            (&mut row.received_bytes, self.received.saturating_mul(message_size)),
            (&mut row.net_received_bytes, self.network_received_bytes),
            (&mut row.net_sent_bytes, self.network_sent_bytes),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// The first line, without its end. `system` is what the messaging system reports of itself, if known by then.
#[must_use]
pub fn header(plan: &Plan, context: &Context, system: Option<&str>) -> String {
    let mut workload = plan.workload.clone();
    if let PayloadSource::File(path) = &mut workload.payload {
        // JSON is Unicode; a path need not be.
        *path = path.to_string_lossy().into_owned().into();
    }
    let origin = Origin { run: plan.run, seed: plan.seed, workers: plan.workers, topology: plan.topology, workload };
    let header = Header {
        format_version: FORMAT_VERSION,
        run: plan.run.to_string(),
        tool: Tool::of(context),
        host: context.host.clone(),
        started: context.started.clone(),
        system: system.map(str::to_owned),
        workload: plan.workload.resolved(),
        driver: context.driver.resolved(),
        ignored: context.ignored.clone(),
        plan: Some(PlanSummary::of(plan)),
        workers: context.workers.clone(),
        histograms: Encoding::default(),
        origin,
    };
    Line::Run(Box::new(header)).text()
}

/// The line of one period, without its end.
#[must_use]
pub fn period(period: &Period) -> String {
    let workers: Vec<WorkerLine> = period.workers.iter().map(WorkerLine::of).collect();
    let line = PeriodLine {
        frame: Frame::of(period),
        rates: PeriodRates::of(&Counts::of(&period.totals), period.elapsed),
        totals: RecordedTotals::of(&period.totals),
        workers: (!workers.is_empty()).then_some(workers),
    };
    Line::Period(Box::new(line)).text()
}

/// The last line, without its end: how the run of this report ended.
#[must_use]
pub fn end(report: &Report) -> String {
    let tail = Tail {
        partial: report.partial.clone(),
        system: report.system.clone(),
        started_unix_ns: report.started.0,
        client_cpu_ns: nanos(report.client_cpu),
        process: report.process,
        workers: report.workers.clone(),
        unconfirmed: report.unconfirmed,
        tempo: report.tempo.clone(),
        clock_error: report.clock_error,
        found: report.found,
        backlog: report.backlog,
        rebalances: report.rebalances.clone(),
        verdict: report.verdict.clone(),
        problems: report.problems.clone(),
        outages: report.outages.clone(),
    };
    // The phases are the sums of their periods already, except the drain's, which includes the rest.
    let mut counted = Totals::default();
    report.phases.iter().filter(|sum| sum.phase != Phase::Drain).for_each(|sum| counted.merge(&sum.totals));
    report.periods.of_phase(Phase::Drain).for_each(|period| counted.merge(&period.totals));
    let rest = report.whole.since(&counted).expect("the whole holds every period");
    let line = EndLine {
        outcome: crate::verdict::headline(report),
        complete: Some(soundness::incomplete(report).is_none()),
        frame: Some(tail),
        totals: Some(RecordedTotals::of(&rest)),
    };
    Line::End(Box::new(line)).text()
}

/// The line of a run that ended without any report, without its end: why.
#[must_use]
pub fn end_without_report(why: &str) -> String {
    Line::End(Box::new(EndLine { outcome: why.to_owned(), complete: None, frame: None, totals: None })).text()
}

fn end_in(tail: Tail, totals: RecordedTotals) -> Result<Ending, String> {
    Ok(Ending {
        partial: tail.partial,
        system: tail.system,
        started: WallTime(tail.started_unix_ns),
        rest: totals.into_totals()?,
        client_cpu: Duration::from_nanos(tail.client_cpu_ns),
        process: tail.process,
        workers: tail.workers,
        clock_error: tail.clock_error,
        found: tail.found,
        backlog: tail.backlog,
        rebalances: tail.rebalances,
        verdict: tail.verdict,
        problems: tail.problems,
        unconfirmed: tail.unconfirmed,
        tempo: tail.tempo,
        outages: tail.outages,
    })
}

/// Reads a record. A last line that cannot be read is skipped ([`Recording::torn`]); any other is an error.
///
/// # Errors
/// If it is no record, of another version, or broken in the middle.
pub fn parse(text: &str) -> Result<Recording, RecordError> {
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    let (_, first) = lines.next().ok_or(RecordError::Empty)?;
    let header = header_in(first)?;
    let origin = header.origin.clone();
    if origin.workers == 0 || (origin.workers == 1 && origin.topology != Topology::Shared) {
        return Err(RecordError::NotARecord("a run has at least one worker".to_owned()));
    }
    let mut recording = Recording {
        plan: Plan::with_topology(origin.run, origin.seed, origin.workload, origin.workers, origin.topology),
        driver: header.driver["name"].as_str().unwrap_or_default().to_owned(),
        system: header.system.clone().unwrap_or_default(),
        header,
        periods: Periods::new(),
        workers: Vec::new(),
        end: None,
        without_result: None,
        torn: false,
    };
    while let Some((index, line)) = lines.next() {
        if let Err(why) = recording.take(line) {
            if lines.peek().is_some() {
                return Err(RecordError::Broken { line: index + 1, why });
            }
            recording.torn = true;
        }
    }
    Ok(recording)
}

/// The first line. Its version is checked before anything else.
fn header_in(line: &str) -> Result<Header, RecordError> {
    let other = |error: serde_json::Error| RecordError::NotARecord(error.to_string());
    let Kind { kind, format_version } = serde_json::from_str(line).map_err(other)?;
    if kind.is_none_or(|kind| kind != "run") {
        return Err(RecordError::NotARecord("its kind is not \"run\"".to_owned()));
    }
    match format_version {
        Some(found) if found == u64::from(FORMAT_VERSION) => {}
        Some(found) => return Err(RecordError::OtherVersion { found }),
        None => return Err(RecordError::NotARecord("it has no formatVersion".to_owned())),
    }
    serde_json::from_str(line).map_err(other)
}

impl Recording {
    fn take(&mut self, line: &str) -> Result<(), String> {
        fn read<T: DeserializeOwned>(line: &str) -> Result<T, String> {
            serde_json::from_str(line).map_err(|error| error.to_string())
        }
        let kind = read::<Kind>(line)?.kind.ok_or("it has no kind")?;
        match kind.as_str() {
            Some("period") => {
                let PeriodLine { frame, rates: _, totals, workers } = read(line)?;
                let period = frame.with(totals.into_totals()?);
                if let Some(lines) = workers {
                    self.take_workers(&period, &lines)?;
                }
                self.periods.push(&period);
            }
            Some("end") => match read(line)? {
                EndLine { frame: Some(frame), totals: Some(totals), .. } => {
                    let end = end_in(frame, totals)?;
                    self.system.clone_from(&end.system);
                    self.end = Some(end);
                }
                EndLine { frame: None, totals: None, outcome, .. } => self.without_result = Some(outcome),
                _ => return Err("frame and totals belong together".to_owned()),
            },
            _ => return Err(format!("{kind} is no kind of line")),
        }
        Ok(())
    }

    /// Adds the workers' parts of a period. A worker that is missing from them was lost by then.
    fn take_workers(&mut self, period: &Period, lines: &[WorkerLine]) -> Result<(), String> {
        let all = self.plan.workers;
        if let Some(stranger) = lines.iter().find(|line| line.worker == 0 || line.worker > all) {
            return Err(format!("workers: there is no worker {} of {all}", stranger.worker));
        }
        if self.workers.is_empty() {
            self.workers = self.rows();
        }
        let mut present = vec![false; self.workers.len()];
        for line in lines {
            let at = line.worker as usize - 1;
            present[at] = true;
            let row = &mut self.workers[at];
            row.schedule_lag = Duration::from_nanos(line.schedule_lag_ns);
            if period.phase.counts() {
                line.add_to(row, u64::from(self.plan.workload.message_size));
            }
        }
        for (row, _) in self.workers.iter_mut().zip(present).filter(|(row, present)| !present && row.lost.is_none()) {
            let cause = "its numbers end here; the record does not say why".to_owned();
            let read = self.periods.frames().last().map(|before| before.at);
            row.lost = Some(Lost { worker: row.worker, read, detected: period.at, cause });
        }
        Ok(())
    }

    /// A row per worker, with its share and nothing counted.
    fn rows(&self) -> Vec<WorkerRow> {
        let addresses = self.context().workers;
        let row = |(worker, share): (WorkerId, Share<'_>)| WorkerRow {
            worker,
            name: addresses.get(worker.0 as usize).cloned().unwrap_or_default(),
            producers: u32::try_from(share.producers.len()).unwrap_or(u32::MAX),
            consumers: u32::try_from(share.consumers.len()).unwrap_or(u32::MAX),
            ..WorkerRow::default()
        };
        (0..).map(WorkerId).zip(self.plan.shares()).map(row).collect()
    }

    /// What a result states beside the measurement, as the header has it. It does not contain the end of the run, and
    /// what was hidden in the driver's configuration stays hidden.
    #[must_use]
    pub fn context(&self) -> Context {
        let Header { tool, host, started, driver, ignored, workers, .. } = self.header.clone();
        let mut driver = DriverConfig::from_resolved(&driver);
        driver.name.clone_from(&self.driver);
        Context {
            version: tool.version,
            commit: tool.git_commit,
            clients: tool.client_libraries,
            host,
            driver,
            started,
            ended: None,
            workers,
            ignored,
        }
    }

    /// The report this is the record of. Without a last line it is partial, and what arrived was not checked.
    #[must_use]
    pub fn into_report(self) -> Report {
        let end = self.end.unwrap_or_else(|| {
            let torn = if self.torn { ", in the middle of a line" } else { "" };
            let why = self
                .without_result
                .unwrap_or_else(|| format!("the record breaks off{torn}: the process ended before the run did"));
            let unconfirmed = DriverConfig::from_resolved(&self.header.driver).acks_nothing();
            Ending { unconfirmed, ..unfinished(&self.periods, self.workers, self.system, why) }
        });
        let mut phases = Vec::new();
        for Period { phase, elapsed, totals, .. } in self.periods.iter() {
            sums::add(&mut phases, phase, elapsed, &totals);
        }
        let Sums { measured, measured_for, tail, whole } = sums::finish(&mut phases, &end.rest);
        Report {
            plan: self.plan,
            driver: self.driver,
            system: end.system,
            started: end.started,
            periods: self.periods,
            phases,
            measured,
            measured_for,
            tail,
            whole,
            client_cpu: end.client_cpu,
            process: end.process,
            workers: end.workers,
            clock_error: end.clock_error,
            found: end.found,
            backlog: end.backlog,
            rebalances: end.rebalances,
            verdict: end.verdict,
            problems: end.problems,
            unconfirmed: end.unconfirmed,
            tempo: end.tempo,
            outages: end.outages,
            partial: end.partial,
        }
    }
}

/// The end of a run that recorded no end, as far as its periods show it.
fn unfinished(periods: &Periods, workers: Vec<WorkerRow>, system: String, why: String) -> Ending {
    let started = periods.frames().next().map_or(0, |first| first.wall.0.saturating_sub(nanos(first.at)));
    // CPU is cumulative: what a period used is the difference to the one before it.
    let pairs = periods.frames().skip(1).zip(periods.frames());
    let counting = pairs.filter(|(frame, _)| frame.phase.counts());
    let used =
        |(frame, before): (&Frame, &Frame)| frame.process.client_cpu().saturating_sub(before.process.client_cpu());
    let client_cpu = counting.map(used).sum();
    Ending {
        partial: Some(why),
        system,
        started: WallTime(started),
        rest: Totals::default(),
        client_cpu,
        process: periods.frames().last().map(|frame| frame.process).unwrap_or_default(),
        workers,
        clock_error: None,
        found: None,
        backlog: None,
        rebalances: BTreeMap::new(),
        verdict: Verdict::default(),
        problems: Vec::new(),
        unconfirmed: false,
        tempo: None,
        outages: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{fixture, result::RunResult};

    fn lines(report: &Report) -> String {
        let mut text = header(&report.plan, &fixture::context(), None) + "\n";
        for one in report.periods.iter() {
            text += &(period(&one) + "\n");
        }
        text + &end(report) + "\n"
    }

    #[test]
    fn a_record_makes_the_same_report() {
        let mut report = fixture::report();
        report.partial = Some("interrupted by the user".to_owned());
        report.found = Some(Found { rate: 1_000, failed_at: Some(1_040), trials: 9 });
        report.backlog = Some(BacklogTimes { asked_bytes: 1 << 30, built_messages: 5, ..BacklogTimes::default() });
        report.problems = vec![Problem { what: "Local: Message timed out".to_owned(), count: 3 }];
        let (from, until) = (Duration::from_secs(12), Some(Duration::from_secs(19)));
        report.outages = vec![Silence { from, until, why: Some("broker 1 is away".to_owned()) }];
        let text = lines(&report);
        assert!(!text.contains("hunter2"), "a record is passed on as a result is");
        let recording = parse(&text).expect("our own");
        assert!(!recording.torn);
        assert_eq!(recording.into_report(), report);
    }

    #[test]
    fn a_process_that_died_leaves_a_partial_report() {
        let report = fixture::report();
        let text = lines(&report);
        let kept: Vec<&str> = text.lines().take(10).collect();
        let torn = format!("{}\n{}", kept.join("\n"), &text.lines().nth(10).expect("more")[..100]);
        let recording = parse(&torn).expect("nine periods and a torn one");
        assert!(recording.torn && recording.end.is_none());
        assert_eq!(recording.periods, report.periods.iter().take(9).collect());
        let partial = recording.into_report();
        assert_eq!((partial.started, partial.measured_for), (report.started, Duration::from_secs(7)));
        assert!(partial.partial.is_some_and(|reason| reason.contains("breaks off")));
        assert_eq!(partial.client_cpu, Duration::from_millis(350));
    }

    /// The controller was killed: what each worker did until then is in the lines, and which one was lost before.
    #[test]
    fn a_record_that_breaks_off_tells_of_each_worker() {
        let context = Context { workers: fixture::addresses(), ..fixture::context() };
        let mut text = header(&fixture::fleet().plan, &context, None) + "\n";
        for (n, mut one) in fixture::fleet_periods().into_iter().enumerate().take(12) {
            one.workers.truncate(if n < 7 { 2 } else { 1 });
            text += &(period(&one) + "\n");
        }
        let recording = parse(&text).expect("our own");
        assert_eq!(recording.context().workers, fixture::addresses());
        let report = recording.into_report();
        let [first, second] = report.workers.as_slice() else { panic!("two workers: {:?}", report.workers) };
        assert_eq!((first.name.as_str(), first.producers, first.consumers), ("http://10.0.0.1:8080", 5, 2));
        assert_eq!((first.measured_for, first.acked), (Duration::from_secs(10), 5_000), "2 s of warm-up do not count");
        assert_eq!((second.acked, second.cpu), (2_500, Duration::from_millis(125)));
        assert_eq!((first.lost.as_ref(), second.lost.as_ref().map(|it| it.detected.as_secs())), (None, Some(8)));
        assert_eq!(second.lost.as_ref().and_then(|it| it.read), Some(Duration::from_secs(7)), "its last period");
        assert_eq!((first.net_sent_bytes, first.received_bytes), (5_160_000, 10_240_000));
    }

    #[test]
    fn workers_are_counted_from_one_and_strangers_refused() {
        let one = period(&fixture::fleet_periods()[0]);
        let line: Value = serde_json::from_str(&one).expect("JSON");
        assert_eq!(line["workers"][1]["worker"], 2);
        assert_eq!(line["workers"][1]["sentPerSecond"], 500.0);
        for stranger in ["0", "3"] {
            let text = format!(
                "{}\n{}\n{one}\n",
                header(&fixture::fleet().plan, &fixture::context(), None),
                one.replace("\"worker\":2", &format!("\"worker\":{stranger}"))
            );
            let Err(RecordError::Broken { line: 2, why }) = parse(&text) else {
                panic!("worker {stranger} is not there")
            };
            assert!(why.contains(&format!("no worker {stranger} of 2")), "{why}");
        }
    }

    #[test]
    fn a_record_knows_its_context() {
        let context = fixture::context();
        let recording = parse(&lines(&fixture::report())).expect("our own");
        let again = recording.context();
        assert_eq!(again.driver.resolved(), context.driver.resolved());
        assert_eq!(Context { driver: context.driver.clone(), ..again }, context);
    }

    #[test]
    fn a_run_without_a_result_says_why() {
        let report = fixture::report();
        let text = format!(
            "{}\n{}\n",
            header(&report.plan, &fixture::embedded(), None),
            end_without_report("interrupted before the load began")
        );
        let recording = parse(&text).expect("our own");
        assert!(recording.context().embedded());
        assert_eq!(recording.into_report().partial.as_deref(), Some("interrupted before the load began"));
    }

    #[test]
    fn what_is_no_record_is_refused_with_its_line() {
        assert_eq!(parse("\n"), Err(RecordError::Empty));
        assert!(matches!(parse("{}"), Err(RecordError::NotARecord(_))));
        assert_eq!(parse(r#"{"kind":"run","formatVersion":2}"#), Err(RecordError::OtherVersion { found: 2 }));
        let text = lines(&fixture::report());
        let broken = text.replacen(r#"{"kind":"period""#, r#"{"kind":"pause""#, 1);
        let Err(RecordError::Broken { line: 2, why }) = parse(&broken) else { panic!("line 2 is broken") };
        assert!(why.contains("pause"), "{why}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// What is written is read back, and a record cut anywhere gives the periods whose lines are whole.
        #[test]
        fn what_was_written_is_read(periods in prop::collection::vec(fixture::any_period(), 0..5), cut in any::<prop::sample::Index>()) {
            let report = fixture::of(periods, fixture::totals(3, 3));
            let text = lines(&report);
            let recording = parse(&text).expect("our own");
            prop_assert_eq!(&recording.periods, &report.periods);
            prop_assert_eq!(&recording.plan, &report.plan);
            prop_assert_eq!(recording.end.as_ref().map(|end| &end.verdict), Some(&report.verdict));
            prop_assert_eq!(recording.end.as_ref().map(|end| &end.rest), Some(&fixture::totals(3, 3)));
            prop_assert_eq!(&recording.clone().into_report(), &report);

            let header_len = text.find('\n').expect("lines");
            let cut = header_len + cut.index(text.len() - header_len);
            let whole = text[..cut].matches('\n').count().saturating_sub(1);
            let recording = parse(&text[..cut]).expect("only its last line is torn");
            // A line may be whole but for its end.
            prop_assert!((whole..=whole + 1).contains(&(recording.periods.len() + usize::from(recording.end.is_some()))));
            let first: Periods = report.periods.iter().take(recording.periods.len()).collect();
            prop_assert_eq!(&recording.periods, &first);
        }

        /// The same for a fleet: every new number, clocks, losses; wherever it is cut, it still makes a result.
        #[test]
        fn what_was_written_of_workers_is_read(
            rows in prop::collection::vec(fixture::any_row(), 0..4), clock_error in prop::option::of(any::<u64>()),
            unverified in any::<u32>(), cut in any::<prop::sample::Index>(),
        ) {
            let mut report = fixture::fleet();
            report.periods = fixture::fleet_periods().into_iter().take(4).collect();
            let (workers, clock_error) = (rows, clock_error.map(Duration::from_nanos));
            report = Report { workers, clock_error, ..fixture::of(report.periods.iter().collect(), fixture::totals(3, 3)) };
            report.plan = fixture::fleet().plan;
            report.verdict.unverified = unverified;
            let mut text = header(&report.plan, &fixture::context(), None) + "\n";
            fixture::fleet_periods().iter().take(4).for_each(|one| text += &(period(one) + "\n"));
            text += &(end(&report) + "\n");
            let again = parse(&text).expect("our own").into_report();
            prop_assert_eq!(&again.workers, &report.workers);
            prop_assert!(again == report, "something other than the workers differs");
            // Any numbers can be shown.
            let shown = crate::table::result(&RunResult::of(&again, &fixture::context()), &[], 100);
            prop_assert!(again.workers.is_empty() || shown.contains("dealt/s"), "{}", shown);
            let value = serde_json::to_value(RunResult::of(&again, &fixture::context())).expect("JSON");
            prop_assert_eq!(value["omb"]["workers"].as_array().map_or(0, Vec::len), again.workers.len());

            let header_len = text.find('\n').expect("lines");
            let mut cut = header_len + cut.index(text.len() - header_len);
            while !text.is_char_boundary(cut) {
                cut -= 1;
            }
            let recording = parse(&text[..cut]).expect("only its last line is torn");
            let (periods, ended) = (recording.periods.len() as u64, recording.end.is_some());
            let partial = recording.into_report();
            let measured = 500 * periods.saturating_sub(2);
            prop_assert!(ended || partial.workers.iter().all(|row| row.acked == measured && row.lost.is_none()));
            let rows = if periods > 0 { 2 } else { 0 };
            prop_assert!(ended || partial.workers.len() == rows);
            let text = crate::table::result(&RunResult::of(&partial, &fixture::context()), &[], 100);
            prop_assert!(ended || text.contains("PARTIAL"), "{}", text);
            let value = serde_json::to_value(RunResult::of(&partial, &fixture::context())).expect("JSON");
            prop_assert!(!value.to_string().contains("null"), "{}", value);
        }
    }
}
