//! The object `omb`: all that upstream's keys have no room for.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Counts, PhaseCounts, SCHEMA_VERSION, Series, TotalCounts};
use crate::{
    analysis::Analysis,
    context::{Context, Host, Ignored},
    fleet,
    histogram::Histograms,
    verdict,
};
use omb_bench::{
    config::workload::RateGoal,
    load::silence::Silence,
    plan::{Plan, Topology, partition, sharing},
    protocol::event,
    result::{self, Report, WorkerRow, soundness},
};
use omb_machine::{
    printable::printable,
    quantity::{per_second, real, rfc3339},
    time::{WallTime, nanos},
};

pub use crate::{limit::Side, verdict::Outcome};

/// Subscriptions listed one by one; of more, only those that miss or doubled something, or were rebalanced, are.
const SUBSCRIPTIONS_LISTED: usize = 100;

/// The object `omb` of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Omb {
    /// Version of this object: 1.
    pub schema_version: u32,
    /// The program that measured.
    pub tool: Tool,
    /// The controller's machine, which in a local run is also the worker's.
    pub host: Host,
    /// Id of the run, in hexadecimal.
    pub run: String,
    /// Seed of its random streams.
    pub seed: u64,
    /// When the run began, RFC 3339.
    pub started: String,
    /// When its load began, RFC 3339.
    pub load_started: String,
    /// When the run ended, RFC 3339.
    pub ended: String,
    /// Whether this is the result of the whole run as configured.
    pub complete: bool,
    /// Why it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial_reason: Option<String>,
    /// What the messaging system reports of itself.
    pub system: String,
    /// Whether it is the embedded broker.
    pub embedded: bool,
    /// The workload as it was run, every default filled in. It can be read as a workload file.
    pub workload: Value,
    /// The driver's configuration, every default filled in and every secret hidden.
    pub driver: Value,
    /// Keys of the files that were not applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<Ignored>,
    /// The plan of the run.
    pub plan: PlanSummary,
    /// What "acknowledged" means.
    #[serde(default)]
    pub acknowledged_means: AcknowledgedMeans,
    /// What happened to the acknowledged messages.
    pub verdict: Verdict,
    /// What a reader must know beside the verdict, a sentence or two each, the gravest first.
    pub notes: Vec<String>,
    /// Means over what was measured.
    pub rates: Rates,
    /// What the benchmark itself used.
    pub client: Client,
    /// Each worker's part; empty if one process did the whole run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<Worker>,
    /// How far clocks may disagree. Absent if one process did the whole run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clocks: Option<Clocks>,
    /// What a search for the highest rate found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Search>,
    /// How a backlog built up and drained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backlog: Option<Backlog>,
    /// What went wrong, the most frequent first.
    pub problems: Vec<Problem>,
    /// When no message was acknowledged although messages were due.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outages: Vec<Outage>,
    /// What was counted.
    pub totals: TotalCounts,
    /// What was counted in each phase of the load, in order.
    pub phases: Vec<PhaseCounts>,
    /// The run as it passed.
    pub series: Series,
    /// Its latencies.
    pub histograms: Histograms,
    /// Why there is no end-to-end latency although messages were received.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_missing: Option<String>,
}

/// What "acknowledged" means in a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub enum AcknowledgedMeans {
    /// The broker has confirmed the message.
    #[default]
    Acknowledged,
    /// The broker confirms nothing (`acks=0`).
    #[serde(rename = "handed to the socket")]
    HandedOver,
}

/// The program that measured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Tool {
    /// Its name: `omb`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The git commit it was built from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_commit: Option<String>,
    /// Client libraries by name, with their versions.
    #[serde(default)]
    pub client_libraries: BTreeMap<String, String>,
}

impl Tool {
    pub(crate) fn of(context: &Context) -> Self {
        Self {
            name: "omb".to_owned(),
            version: context.version.clone(),
            git_commit: context.commit.clone(),
            client_libraries: context.clients.clone(),
        }
    }
}

/// The plan of a run, in numbers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct PlanSummary {
    /// Workers.
    pub workers: u32,
    /// `shared` if each worker both sends and receives, `split` if it does one of them, `split, more consumers`.
    #[serde(default = "shared")]
    pub topology: String,
    /// Topics.
    pub topics: u64,
    /// Partitions of each.
    pub partitions_per_topic: u32,
    /// Producers.
    pub producers: u64,
    /// Client connections that they share, where there are fewer than producers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer_clients: Option<u64>,
    /// Subscriptions.
    pub subscriptions: u64,
    /// Consumers.
    pub consumers: u64,
    /// Name of the first topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_topic_name: Option<String>,
    /// Name of the last topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_topic_name: Option<String>,
    /// Each worker's part. Not each producer's, for there may be a million of them.
    #[serde(default)]
    pub placement: Vec<Placement>,
}

fn shared() -> String {
    "shared".to_owned()
}

/// A worker's part of the plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Placement {
    /// Its number, from 1.
    pub worker: u64,
    /// Topics that it takes part in.
    pub topics: u64,
    /// Its producers.
    pub producers: u64,
    /// Its consumers.
    pub consumers: u64,
    /// Its share of the rate, msg/s. Absent if the rate is searched or follows a list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_per_second: Option<f64>,
}

impl PlanSummary {
    /// The summary of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let placement = partition::dealt(plan).into_iter().map(|dealt| Placement {
            worker: dealt.worker.number(),
            topics: dealt.topics.len() as u64,
            producers: dealt.producers as u64,
            consumers: dealt.consumers as u64,
            target_per_second: dealt.rate.map(partition::PartOfRate::as_f64),
        });
        let (clients, producers) = (sharing::all_producer_clients(plan), plan.producers.len() as u64);
        let topology = match plan.topology {
            Topology::Shared => "shared",
            Topology::Split { more_consumers: false } => "split",
            Topology::Split { more_consumers: true } => "split, more consumers",
        };
        Self {
            workers: plan.workers,
            topology: topology.to_owned(),
            topics: plan.topics.len() as u64,
            partitions_per_topic: plan.workload.partitions_per_topic,
            producers,
            producer_clients: (clients < producers).then_some(clients),
            subscriptions: plan.subscriptions.len() as u64,
            consumers: plan.consumers.len() as u64,
            first_topic_name: plan.topics.first().map(|topic| topic.name.clone()),
            last_topic_name: plan.topics.last().map(|topic| topic.name.clone()),
            placement: placement.collect(),
        }
    }
}

/// What happened to the acknowledged messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Verdict {
    /// As one term.
    pub outcome: Outcome,
    /// As a sentence.
    pub sentence: String,
    /// Why the result is not sound, one sentence per reason; empty if it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsound: Vec<String>,
    /// How the wait for the last messages ended.
    pub drained: Drained,
    /// Messages that should have arrived, counted once for each subscription.
    pub confirmed_over_subscriptions: u64,
    /// Of them, those that did not arrive.
    pub missing: u64,
    /// Of these, those that count as lost: they had every opportunity to arrive.
    pub lost: u64,
    /// Messages received since the load began, repeats included, over all subscriptions.
    pub received: u64,
    /// Different messages among them.
    pub distinct: u64,
    /// Messages received again from another position: the system holds them twice.
    pub duplicated: u64,
    /// Messages received again from the same position, as after a rebalance.
    #[serde(default)]
    pub reread: u64,
    /// Messages received after a later one of the same producer in the same partition.
    pub reordered: u64,
    /// Rebalances of consumer groups since the load began.
    #[serde(default)]
    pub rebalances: u64,
    /// Messages received whose checksum does not match.
    pub corrupted: u64,
    /// Messages received without our header.
    pub headerless: u64,
    /// Messages received at or before the instant at which they were meant to leave.
    pub before_intended: u64,
    /// For how long a quota of the broker throttled clients while it was measured, s.
    #[serde(default)]
    pub throttled_seconds: f64,
    /// Subscriptions that were checked.
    pub subscriptions_in_all: u64,
    /// Subscriptions that could not be checked, since a worker with a part in them was lost.
    #[serde(default)]
    pub subscriptions_unverified: u64,
    /// The subscriptions. Of more than a hundred, only those with something to report.
    pub subscriptions: Vec<Subscription>,
    /// What limited the run. Absent if nothing was measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Side>,
    /// Why, in a sentence with the numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_reason: Option<String>,
    /// Numbers, from 1, of the workers that limited it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_workers: Option<Vec<u64>>,
}

/// How the wait for the last messages ended, after the producers had stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub enum Drained {
    /// Every acknowledged message was received.
    Completely,
    /// Nothing arrived for so long that what is missing counts as lost.
    Quiet,
    /// Messages still arrived at the deadline: what is missing is unread, not lost.
    #[serde(rename = "too long")]
    TooLong,
    /// There was no wait: the run was interrupted or failed, or there are no consumers.
    #[serde(rename = "not awaited")]
    NotAwaited,
}

impl From<result::Drained> for Drained {
    fn from(drained: result::Drained) -> Self {
        match drained {
            result::Drained::Completely => Self::Completely,
            result::Drained::Quiet => Self::Quiet,
            result::Drained::TooLong => Self::TooLong,
            result::Drained::NotAwaited => Self::NotAwaited,
        }
    }
}

/// What one subscription received.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Subscription {
    /// Its number, from 0.
    pub subscription: u32,
    /// Its name.
    pub name: String,
    /// Number of its topic, from 0.
    pub topic: u32,
    /// Messages that should have arrived.
    pub confirmed: u64,
    /// Messages received, repeats included.
    pub received: u64,
    /// Different messages among them.
    pub distinct: u64,
    /// Messages that did not arrive.
    pub missing: u64,
    /// Messages received again from another position.
    pub duplicated: u64,
    /// Messages received again from the same position.
    #[serde(default)]
    pub reread: u64,
    /// Messages received after a later one of the same producer in the same partition.
    pub reordered: u64,
    /// Rebalances of its group since the load began.
    #[serde(default)]
    pub rebalances: u64,
    /// When the first of them were noticed, s since the load began.
    #[serde(default)]
    pub rebalanced_at_seconds: Vec<f64>,
    /// Whether messages could only be counted, not told apart.
    pub by_count_only: bool,
}

impl Verdict {
    fn of(report: &Report, analysis: &Analysis) -> Self {
        let (verdict, arrivals) = (&report.verdict, &report.whole.arrivals);
        let seen = verdict.seen();
        let all = verdict.subscriptions.len() <= SUBSCRIPTIONS_LISTED;
        let subscriptions = verdict
            .subscriptions
            .iter()
            .filter(|(id, (seen, missing))| {
                let blemishes = missing.missing + seen.duplicated + seen.reread + seen.reordered;
                all || blemishes > 0 || report.rebalances.contains_key(id)
            })
            .take(10 * SUBSCRIPTIONS_LISTED)
            .map(|(id, (seen, missing))| {
                let known = report.plan.subscriptions.get(id.0 as usize);
                let rebalances = report.rebalances.get(id);
                Subscription {
                    subscription: id.0,
                    name: known.map_or_else(String::new, |known| known.name.clone()),
                    topic: known.map_or(0, |known| known.topic.0),
                    confirmed: missing.confirmed,
                    received: seen.received,
                    distinct: seen.distinct,
                    missing: missing.missing,
                    duplicated: seen.duplicated,
                    reread: seen.reread,
                    reordered: seen.reordered,
                    rebalances: rebalances.map_or(0, |it| it.count),
                    rebalanced_at_seconds: rebalances
                        .map_or_else(Vec::new, |it| it.at.iter().map(Duration::as_secs_f64).collect()),
                    by_count_only: missing.by_count_only,
                }
            })
            .collect();
        let limit = analysis.limit.as_ref();
        Self {
            outcome: analysis.outcome,
            sentence: analysis.headline.clone(),
            unsound: analysis.unsound.clone(),
            drained: verdict.drained.into(),
            confirmed_over_subscriptions: verdict.subscriptions.values().map(|(_, missing)| missing.confirmed).sum(),
            missing: verdict.missing(),
            lost: verdict.lost(),
            received: seen.received,
            distinct: seen.distinct,
            duplicated: seen.duplicated,
            reread: seen.reread,
            reordered: seen.reordered,
            rebalances: report.rebalances.values().map(|it| it.count).fold(0, u64::saturating_add),
            corrupted: arrivals.corrupted,
            headerless: arrivals.headerless,
            before_intended: arrivals.before_intended,
            throttled_seconds: verdict::throttled(report).as_secs_f64(),
            subscriptions_in_all: verdict.subscriptions.len() as u64,
            subscriptions_unverified: u64::from(verdict.unverified),
            subscriptions,
            limit: limit.map(|limit| limit.side),
            limit_reason: limit.map(|limit| limit.reason.clone()),
            limit_workers: limit.map(|limit| limit.workers.iter().map(|worker| worker.number()).collect()),
        }
    }
}

/// Means over what was measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Rates {
    /// Length of the measurement, on the workers' clocks, s.
    pub measured_seconds: f64,
    /// Target rate, msg/s.
    pub target_per_second: f64,
    /// Whether a search found it.
    #[serde(default)]
    pub target_is_of_search: bool,
    /// Messages sent, msg/s.
    pub sent_per_second: f64,
    /// Their payload, bytes/s.
    #[serde(default)]
    pub sent_bytes_per_second: f64,
    /// Messages acknowledged, msg/s.
    pub acked_per_second: f64,
    /// Their payload, bytes/s.
    pub acked_bytes_per_second: f64,
    /// Messages not acknowledged, msg/s.
    pub failed_per_second: f64,
    /// Messages that the client library refused, msg/s.
    #[serde(default)]
    pub refused_per_second: f64,
    /// Messages that the client library gave up, msg/s.
    #[serde(default)]
    pub given_up_per_second: f64,
    /// Messages received, over all subscriptions, msg/s.
    pub received_per_second: f64,
    /// Their payload, bytes/s.
    pub received_bytes_per_second: f64,
}

impl Rates {
    fn of(report: &Report) -> Self {
        let (measured, elapsed) = (&report.measured, report.measured_for);
        let sent = Counts::of(measured).sent();
        let acks = &measured.acknowledgements;
        Self {
            measured_seconds: elapsed.as_secs_f64(),
            target_per_second: soundness::target(report),
            target_is_of_search: report.plan.workload.rate == RateGoal::Search,
            sent_per_second: per_second(sent, elapsed),
            sent_bytes_per_second: per_second(sent * u64::from(report.plan.workload.message_size), elapsed),
            acked_per_second: per_second(acks.acked, elapsed),
            acked_bytes_per_second: per_second(acks.acked_bytes, elapsed),
            failed_per_second: per_second(acks.failed, elapsed),
            refused_per_second: per_second(acks.refused, elapsed),
            given_up_per_second: per_second(acks.given_up(), elapsed),
            received_per_second: per_second(measured.arrivals.received, elapsed),
            received_bytes_per_second: per_second(measured.arrivals.received_bytes, elapsed),
        }
    }
}

/// What the benchmark itself used. The embedded broker's CPU is not in it, but its memory is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Client {
    /// CPU time while it was measured, s.
    pub cpu_seconds: f64,
    /// CPU time per message acknowledged meanwhile, including receiving it, ns. Absent if there were none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_ns_per_acked_message: Option<f64>,
    /// CPU time of the workers' processes since they began, s.
    #[serde(default)]
    pub process_cpu_seconds_in_all: f64,
    /// Of it, the embedded broker's, s.
    #[serde(default)]
    pub broker_cpu_seconds_in_all: f64,
    /// Memory at the end, bytes.
    pub memory_bytes: u64,
    /// Most memory at any time, bytes.
    pub memory_bytes_max: u64,
}

impl Client {
    fn of(report: &Report) -> Self {
        let acked = report.measured.acknowledgements.acked;
        let process = &report.process;
        Self {
            cpu_seconds: report.client_cpu.as_secs_f64(),
            cpu_ns_per_acked_message: (acked > 0).then(|| report.client_cpu.as_secs_f64() * 1e9 / real(acked)),
            process_cpu_seconds_in_all: process.cpu.as_secs_f64(),
            broker_cpu_seconds_in_all: process.broker_cpu.as_secs_f64(),
            memory_bytes: process.memory_bytes,
            memory_bytes_max: process.memory_bytes_max,
        }
    }
}

/// One worker's part of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Worker {
    /// Its number, from 1.
    pub worker: u64,
    /// Its address.
    pub address: String,
    /// Its producers.
    pub producers: u32,
    /// Its consumers.
    pub consumers: u32,
    /// Length of the measurement, on its own clock, s.
    pub measured_seconds: f64,
    /// Its share of the rate, msg/s.
    pub target_per_second: f64,
    /// Messages sent, msg/s.
    pub sent_per_second: f64,
    /// The share of its target that was sent: 1 is all. Absent if it has no producer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_share_of_target: Option<f64>,
    /// Messages acknowledged, msg/s.
    pub acked_per_second: f64,
    /// Their payload, bytes/s.
    #[serde(default)]
    pub acked_bytes_per_second: f64,
    /// Messages received, msg/s.
    pub received_per_second: f64,
    /// Their payload, bytes/s.
    #[serde(default)]
    pub received_bytes_per_second: f64,
    /// Messages handed to the client library while it was measured.
    pub attempted: u64,
    /// Messages acknowledged.
    pub acked: u64,
    /// Their payload bytes.
    #[serde(default)]
    pub acked_bytes: u64,
    /// Messages received.
    pub received: u64,
    /// Their payload bytes.
    #[serde(default)]
    pub received_bytes: u64,
    /// CPU time of its process while it was measured, s.
    pub cpu_seconds: f64,
    /// Cores that it used, on average.
    pub cores_used: f64,
    /// Cores that it may use. Absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Memory at the end, bytes.
    pub memory_bytes: u64,
    /// Most memory at any time, bytes.
    pub memory_bytes_max: u64,
    /// What its host received over the network, loopback included, bytes/s.
    pub network_received_bytes_per_second: f64,
    /// What its host sent, bytes/s.
    pub network_sent_bytes_per_second: f64,
    /// Sent minus intended over the whole load, warm-up included. Absent from the result of a record that breaks off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_error: Option<LateBy>,
    /// How far its senders were behind their schedule when it was last read, ns.
    pub schedule_lag_ns: u64,
    /// What is known of its clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<WorkerClock>,
    /// When and why it was given up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<LostWorker>,
}

/// Sent minus intended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct LateBy {
    /// Median, ns.
    pub p50_ns: u64,
    /// 99th percentile, ns.
    pub p99_ns: u64,
    /// Highest, ns.
    pub max_ns: u64,
}

/// What is known of a worker's clock.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct WorkerClock {
    /// Bound of the error of its offset, ns.
    pub error_ns: u64,
    /// How much faster it runs than the controller's clock, parts per million. Absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_ppm: Option<f64>,
    /// Bound of the error of the drift, parts per million.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift_error_ppm: Option<f64>,
    /// How often an answer contradicted earlier ones: the clock was set meanwhile.
    pub contradictions: u64,
}

/// A worker that was given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct LostWorker {
    /// When it was last read, s since the load began: what it did until then is counted. Absent if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_read_seconds: Option<f64>,
    /// When it was given up, s since the load began; 0 if that had not begun.
    #[serde(default)]
    pub detected_seconds: f64,
    /// Why.
    pub cause: String,
}

impl Worker {
    fn of(report: &Report, row: &WorkerRow) -> Self {
        let elapsed = row.measured_for;
        let [p50_ns, p99_ns, max_ns] = row.schedule_error;
        Self {
            worker: row.worker.number(),
            address: row.name.clone(),
            producers: row.producers,
            consumers: row.consumers,
            measured_seconds: elapsed.as_secs_f64(),
            target_per_second: fleet::dealt_rate(report, row),
            sent_per_second: per_second(row.attempted, elapsed),
            sent_share_of_target: fleet::achieved(report, row),
            acked_per_second: per_second(row.acked, elapsed),
            acked_bytes_per_second: per_second(row.acked_bytes, elapsed),
            received_per_second: per_second(row.received, elapsed),
            received_bytes_per_second: per_second(row.received_bytes, elapsed),
            attempted: row.attempted,
            acked: row.acked,
            acked_bytes: row.acked_bytes,
            received: row.received,
            received_bytes: row.received_bytes,
            cpu_seconds: row.cpu.as_secs_f64(),
            cores_used: fleet::cores_used(row),
            cores: (row.process.cores > 0).then_some(row.process.cores),
            memory_bytes: row.process.memory_bytes,
            memory_bytes_max: row.process.memory_bytes_max,
            network_received_bytes_per_second: per_second(row.net_received_bytes, elapsed),
            network_sent_bytes_per_second: per_second(row.net_sent_bytes, elapsed),
            schedule_error: (max_ns > 0).then_some(LateBy { p50_ns, p99_ns, max_ns }),
            schedule_lag_ns: nanos(row.schedule_lag),
            clock: row.clock.as_ref().map(WorkerClock::of),
            lost: row.lost.as_ref().map(|lost| LostWorker {
                last_read_seconds: lost.read.map(|read| read.as_secs_f64()),
                detected_seconds: lost.detected.as_secs_f64(),
                cause: lost.cause.clone(),
            }),
        }
    }
}

impl WorkerClock {
    fn of(clock: &result::WorkerClock) -> Self {
        // JSON knows no infinity.
        let drift = clock.drift_ppm.filter(|(drift, error)| drift.is_finite() && error.is_finite());
        Self {
            error_ns: nanos(clock.error),
            drift_ppm: drift.map(|(drift, _)| drift),
            drift_error_ppm: drift.map(|(_, error)| error),
            contradictions: clock.contradictions,
        }
    }
}

/// How far clocks may disagree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Clocks {
    /// Whether messages are sent by one worker and received by another.
    pub messages_pass_between_clocks: bool,
    /// Bound of the error of end-to-end latencies between workers, ns. Absent if each message involves one clock only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_error_ns: Option<u64>,
    /// The same in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
}

/// What a search for the highest rate found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Search {
    /// Highest rate that held, msg/s.
    pub rate_per_second: u64,
    /// Lowest rate that was tried and did not hold, msg/s. Absent if every rate held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at_per_second: Option<u64>,
    /// Rates that were tried.
    pub trials: u32,
    /// When a rate holds, in a sentence.
    pub criterion: String,
    /// What was found, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
}

/// How a backlog built up and drained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Backlog {
    /// Size requested, bytes.
    pub asked_bytes: u64,
    /// Messages in it when the consumers resumed.
    pub built_messages: u64,
    /// How long it took to build, s.
    pub fill_seconds: f64,
    /// How long it took to drain, s. Absent if it was not drained by the deadline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<f64>,
    /// Whether it was drained.
    pub drained: bool,
    /// All of this as a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentence: Option<String>,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Problem {
    /// In the client's or the broker's own wording.
    pub what: String,
    /// How often.
    pub count: u64,
}

impl Problem {
    fn of(problem: &event::Problem) -> Self {
        Self { what: problem.what.clone(), count: problem.count }
    }
}

/// A time in which no message was acknowledged although messages were due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Outage {
    /// Its beginning, s since the load began.
    pub from_seconds: f64,
    /// Its end, s since the load began. Absent if it lasted until the load's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_seconds: Option<f64>,
    /// What was first reported about a connection meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl Outage {
    fn of(outage: &Silence) -> Self {
        Self {
            from_seconds: outage.from.as_secs_f64(),
            until_seconds: outage.until.map(|until| until.as_secs_f64()),
            cause: outage.why.as_deref().map(|why| printable(why).into_owned()),
        }
    }
}

impl Omb {
    pub(super) fn of(report: &Report, context: &Context, analysis: Analysis, series: Series) -> Self {
        let plan = &report.plan;
        let end = report.periods.frames().last().map_or(report.started, |period| period.wall);
        let time = |given: &Option<String>, measured: WallTime| given.clone().unwrap_or_else(|| rfc3339(measured));
        let incomplete = soundness::incomplete(report);
        Self {
            schema_version: SCHEMA_VERSION,
            tool: Tool::of(context),
            host: context.host.clone(),
            run: plan.run.to_string(),
            seed: plan.seed.0,
            started: time(&context.started, report.started),
            load_started: rfc3339(report.started),
            ended: time(&context.ended, end),
            complete: incomplete.is_none(),
            partial_reason: incomplete,
            system: report.system.clone(),
            embedded: context.embedded(),
            workload: plan.workload.resolved(),
            driver: context.driver.resolved(),
            ignored: context.ignored.clone(),
            plan: PlanSummary::of(plan),
            acknowledged_means: if report.unconfirmed {
                AcknowledgedMeans::HandedOver
            } else {
                AcknowledgedMeans::Acknowledged
            },
            verdict: Verdict::of(report, &analysis),
            rates: Rates::of(report),
            client: Client::of(report),
            workers: report.workers.iter().map(|row| Worker::of(report, row)).collect(),
            clocks: (!report.workers.is_empty()).then(|| Clocks {
                messages_pass_between_clocks: fleet::pass_between_clocks(report),
                end_to_end_error_ns: report.clock_error.map(nanos),
                sentence: fleet::clocks_sentence(report),
            }),
            search: report.found.map(|found| Search {
                rate_per_second: found.rate,
                failed_at_per_second: found.failed_at,
                trials: found.trials,
                criterion: verdict::search_criterion(),
                sentence: verdict::search_sentence(report),
            }),
            backlog: report.backlog.map(|times| Backlog {
                asked_bytes: times.asked_bytes,
                built_messages: times.built_messages,
                fill_seconds: times.fill.as_secs_f64(),
                drain_seconds: times.drain.map(|drain| drain.as_secs_f64()),
                drained: times.drain.is_some(),
                sentence: verdict::backlog_sentence(report),
            }),
            problems: report.problems.iter().map(Problem::of).collect(),
            outages: report.outages.iter().map(Outage::of).collect(),
            totals: TotalCounts {
                measured: Counts::of(&report.measured),
                afterwards: Counts::of(&report.tail),
                since_load_began: Counts::of(&report.whole),
            },
            phases: report.phases.iter().map(PhaseCounts::of).collect(),
            series,
            histograms: Histograms::of(&analysis.answered, analysis.no_end_to_end.is_none()),
            notes: analysis.notes,
            end_to_end_missing: analysis.no_end_to_end,
        }
    }
}
