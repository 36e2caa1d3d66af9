//! What a result says beside the measurement: which tool, on which host, from which configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use omb_bench::{
    config::driver::{DriverConfig, DriverKind},
    plan::{Plan, Topology, partition, sharing},
};
use omb_machine::config::ConfigWarning;

/// Facts that the core cannot know by itself. What is unknown stays out of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// The version of omb.
    pub version: String,
    /// The git commit it was built from.
    pub commit: Option<String>,
    /// Client libraries by name, with their versions: `librdkafka` → `2.12.1`.
    pub clients: BTreeMap<String, String>,
    /// The machine of the controller, which in local mode is also the worker's.
    pub host: Host,
    /// The messaging system's configuration, secrets and all: they are hidden before anything is written.
    pub driver: DriverConfig,
    /// Start of the run, RFC 3339; `None`: the start of the load, in UTC, is taken from the report.
    pub started: Option<String>,
    /// End of the run, RFC 3339; `None`: the end of the last period, in UTC, is taken from the report.
    pub ended: Option<String>,
    /// Which keys the result has.
    pub format: ResultFormat,
    /// Addresses of the workers, in order; empty if the one worker is this process.
    pub workers: Vec<String>,
    /// Keys of the workload's and the driver's file that were not applied, in the order of the files.
    pub ignored: Vec<Ignored>,
}

/// A key of a file that was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    /// The file, as it was named.
    pub file: String,
    /// The key, as the file spells it.
    pub key: String,
    /// Why it was not applied.
    pub why: String,
}

impl Ignored {
    /// Those of a file's warnings that say that a key was not applied.
    pub fn among(warnings: &[ConfigWarning]) -> impl Iterator<Item = Self> {
        warnings.iter().filter(|warning| warning.ignored).map(|warning| Self {
            file: warning.file.clone(),
            key: warning.key.clone(),
            why: warning.message.clone(),
        })
    }
}

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: Option<String>,
    /// Operating system and architecture: `linux x86_64`.
    pub system: Option<String>,
    /// Release of its kernel.
    pub kernel: Option<String>,
    /// Model of its CPU.
    pub cpu_model: Option<String>,
    /// Cores this process may use.
    pub cores: Option<u32>,
    /// Its memory, in bytes.
    pub memory_bytes: Option<u64>,
}

/// Which keys a result has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResultFormat {
    /// Upstream's keys, and one object `omb` with all that is ours.
    #[default]
    Omb,
    /// Upstream's keys alone, for its strict CSV tool.
    Upstream,
}

impl Context {
    /// A context that knows no more than this.
    #[must_use]
    pub fn new(version: impl Into<String>, driver: DriverConfig) -> Self {
        Self {
            version: version.into(),
            commit: None,
            clients: BTreeMap::new(),
            host: Host::default(),
            driver,
            started: None,
            ended: None,
            format: ResultFormat::Omb,
            workers: Vec::new(),
            ignored: Vec::new(),
        }
    }

    /// Whether the messaging system is the embedded broker.
    #[must_use]
    pub fn embedded(&self) -> bool {
        self.driver.kind == DriverKind::Embedded
    }

    /// The tool, as the result names it.
    pub(super) fn tool_json(&self) -> Value {
        let mut tool = Map::new();
        tool.insert("name".to_owned(), "omb".into());
        tool.insert("version".to_owned(), self.version.clone().into());
        insert_known(&mut tool, "gitCommit", self.commit.clone());
        tool.insert("clientLibraries".to_owned(), json!(self.clients));
        tool.into()
    }

    /// The host, as far as it is known.
    pub(super) fn host_json(&self) -> Value {
        let mut host = Map::new();
        insert_known(&mut host, "name", self.host.name.clone());
        insert_known(&mut host, "system", self.host.system.clone());
        insert_known(&mut host, "kernel", self.host.kernel.clone());
        insert_known(&mut host, "cpuModel", self.host.cpu_model.clone());
        insert_known(&mut host, "cores", self.host.cores);
        insert_known(&mut host, "memoryBytes", self.host.memory_bytes);
        host.into()
    }
}

/// Inserts what is known; a result holds no null.
pub(super) fn insert_known(map: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(key.to_owned(), value.into());
    }
}

/// Who does what, in numbers: a line per worker, not per producer, for there may be a million of them.
#[must_use]
pub fn plan_json(plan: &Plan) -> Value {
    let placement: Vec<Value> = partition::dealt(plan)
        .into_iter()
        .map(|dealt| {
            let mut row = Map::new();
            row.insert("worker".to_owned(), dealt.worker.number().into());
            row.insert("topics".to_owned(), dealt.topics.len().into());
            row.insert("producers".to_owned(), dealt.producers.into());
            row.insert("consumers".to_owned(), dealt.consumers.into());
            insert_known(&mut row, "targetPerSecond", dealt.rate.map(partition::PartOfRate::as_f64));
            row.into()
        })
        .collect();
    let mut map = Map::new();
    map.insert("workers".to_owned(), plan.workers.into());
    map.insert(
        "topology".to_owned(),
        match plan.topology {
            Topology::Shared => "shared",
            Topology::Split { more_consumers: false } => "split",
            Topology::Split { more_consumers: true } => "split, more consumers",
        }
        .into(),
    );
    map.insert("topics".to_owned(), plan.topics.len().into());
    map.insert("partitionsPerTopic".to_owned(), plan.workload.partitions_per_topic.into());
    map.insert("producers".to_owned(), plan.producers.len().into());
    let clients = sharing::all_producer_clients(plan);
    insert_known(&mut map, "producerClients", (clients < plan.producers.len() as u64).then_some(clients));
    map.insert("subscriptions".to_owned(), plan.subscriptions.len().into());
    map.insert("consumers".to_owned(), plan.consumers.len().into());
    insert_known(&mut map, "firstTopicName", plan.topics.first().map(|topic| topic.name.clone()));
    insert_known(&mut map, "lastTopicName", plan.topics.last().map(|topic| topic.name.clone()));
    map.insert("placement".to_owned(), placement.into());
    map.into()
}
