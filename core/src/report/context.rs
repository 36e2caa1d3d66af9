//! What a result says beside the measurement: which tool, on which host, from which configuration.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

use super::quantity::real;
use crate::{
    config::{
        driver::{DriverConfig, DriverKind},
        workload::{CatchUp, KeyDistributor, PayloadSource, RateGoal, Verify, Workload},
    },
    id::WorkerId,
    plan::{Plan, rate::Rate},
};

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

/// A workload under the keys of its file, every default filled in.
#[must_use]
pub fn workload_json(workload: &Workload) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    put("name", workload.name.clone().into());
    put("topics", workload.topics.into());
    put("partitionsPerTopic", workload.partitions_per_topic.into());
    put(
        "keyDistributor",
        match workload.key_distributor {
            KeyDistributor::NoKey => "NO_KEY",
            KeyDistributor::RoundRobin => "KEY_ROUND_ROBIN",
            KeyDistributor::RandomNano => "RANDOM_NANO",
        }
        .into(),
    );
    put("messageSize", workload.message_size.into());
    match &workload.payload {
        PayloadSource::File(path) => {
            put("useRandomizedPayloads", false.into());
            put("payloadFile", path.to_string_lossy().into());
        }
        PayloadSource::Random { ratio, pool } => {
            put("useRandomizedPayloads", true.into());
            put("randomBytesRatio", (*ratio).into());
            put("randomizedPayloadPoolSize", (*pool).into());
        }
    }
    put("subscriptionsPerTopic", workload.subscriptions_per_topic.into());
    put("consumerPerSubscription", workload.consumers_per_subscription.into());
    put("producersPerTopic", workload.producers_per_topic.into());
    put(
        "producerRate",
        match workload.rate {
            RateGoal::Fixed(rate) => rate.into(),
            RateGoal::Search => 0.into(),
        },
    );
    if let Some(backlog) = workload.backlog {
        put("consumerBacklogSizeGB", (real(backlog.bytes) / f64::from(1 << 30)).into());
        put("backlogDrainRatio", backlog.drain_ratio.into());
    }
    put("testDuration", with_unit(workload.test_duration).into());
    put("warmupDuration", with_unit(workload.warmup_duration).into());
    if let Some(seed) = workload.seed {
        put("seed", seed.into());
    }
    put(
        "catchUp",
        match workload.catch_up {
            CatchUp::All => "all".to_owned(),
            CatchUp::Cap(keep) => format!("cap({})", with_unit(keep)),
            CatchUp::Drop => "drop".to_owned(),
        }
        .into(),
    );
    put(
        "verify",
        match workload.verify {
            Verify::Header => "header",
            Verify::Full => "full",
        }
        .into(),
    );
    map.into()
}

/// `90s`, `1500ms`: whole numbers, as a workload file may spell them.
fn with_unit(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_millis())
    }
}

/// A driver under the keys of its file, with what must stay secret hidden.
#[must_use]
pub fn driver_json(driver: &DriverConfig) -> Value {
    let mut map = Map::new();
    map.insert("name".to_owned(), driver.name.clone().into());
    match &driver.kind {
        DriverKind::Embedded => {
            map.insert("kind".to_owned(), "embedded".into());
        }
        DriverKind::Kafka(kafka) => {
            map.insert("kind".to_owned(), "kafka".into());
            map.insert("replicationFactor".to_owned(), kafka.replication_factor.into());
            let settings = [
                ("topicConfig", &kafka.topic),
                ("commonConfig", &kafka.common),
                ("producerConfig", &kafka.producer),
                ("consumerConfig", &kafka.consumer),
            ];
            for (key, settings) in settings {
                map.insert(key.to_owned(), redacted(settings));
            }
        }
    }
    map.into()
}

/// What stands in the place of a secret.
const REDACTED: &str = "[hidden]";

fn redacted(settings: &BTreeMap<String, String>) -> Value {
    let show = |(key, value): (&String, &String)| {
        (key.clone(), if is_secret(key) { REDACTED.into() } else { value.clone().into() })
    };
    settings.iter().map(show).collect::<Map<_, _>>().into()
}

/// Whether a setting of this name holds a secret. In doubt it does: a result is made to be passed on. Where a
/// secret's file or address is named, that is no secret.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    const WORDS: [&str; 14] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "jaas",
        "credential",
        "private",
        "api.key",
        "apikey",
        "access.key",
        "ssl.key",
        "keystore.key",
        "oauthbearer.config",
    ];
    let key = key.to_lowercase().replace(['_', '-'], ".");
    let names_a_place = [".location", ".url", ".file", ".path"].iter().any(|end| key.ends_with(end));
    !names_a_place && WORDS.iter().any(|word| key.contains(word))
}

/// Who does what, in numbers: a line per worker, not per producer, for there may be a million of them.
#[must_use]
pub fn plan_json(plan: &Plan) -> Value {
    let producers = u32::try_from(plan.producers.len()).unwrap_or(u32::MAX);
    let placement: Vec<Value> = (0..plan.workers)
        .map(WorkerId)
        .map(|worker| {
            let mine = plan.producers_of(worker).count();
            let mut row = Map::new();
            row.insert("worker".to_owned(), worker.0.into());
            row.insert("producers".to_owned(), mine.into());
            row.insert("consumers".to_owned(), plan.consumers_of(worker).count().into());
            let rate = match (plan.workload.rate, u32::try_from(mine).unwrap_or(u32::MAX)) {
                (RateGoal::Search, _) => None,
                (RateGoal::Fixed(_), 0) => Some(0.0),
                (RateGoal::Fixed(total), mine) => {
                    Rate::per_second(total).map(|total| total.share(mine.min(producers), producers).as_f64())
                }
            };
            insert_known(&mut row, "targetPerSecond", rate);
            row.into()
        })
        .collect();
    let mut map = Map::new();
    map.insert("workers".to_owned(), plan.workers.into());
    map.insert("topics".to_owned(), plan.topics.len().into());
    map.insert("partitionsPerTopic".to_owned(), plan.workload.partitions_per_topic.into());
    map.insert("producers".to_owned(), plan.producers.len().into());
    map.insert("subscriptions".to_owned(), plan.subscriptions.len().into());
    map.insert("consumers".to_owned(), plan.consumers.len().into());
    insert_known(&mut map, "firstTopicName", plan.topics.first().map(|topic| topic.name.clone()));
    insert_known(&mut map, "lastTopicName", plan.topics.last().map(|topic| topic.name.clone()));
    map.insert("placement".to_owned(), placement.into());
    map.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::driver::KafkaConfig;

    #[test]
    fn secrets_are_known_by_their_names() {
        let secret = [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.keystore.password",
            "ssl.keystore.key",
            "sasl.jaas.config",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.config",
            "SSL_KEY_PASSWORD",
        ];
        assert!(secret.iter().all(|key| is_secret(key)), "{secret:?}");
        let open = [
            "bootstrap.servers",
            "sasl.username",
            "sasl.mechanisms",
            "ssl.key.location",
            "ssl.keystore.location",
            "sasl.oauthbearer.token.endpoint.url",
            "ssl.certificate.pem",
            "key.serializer",
            "linger.ms",
            "acks",
        ];
        assert!(!open.iter().any(|key| is_secret(key)), "{open:?}");
    }

    #[test]
    fn a_shown_driver_holds_no_secret() {
        let settings = BTreeMap::from([
            ("sasl.password".to_owned(), "hunter2".to_owned()),
            ("bootstrap.servers".to_owned(), "b:9092".to_owned()),
        ]);
        let kafka = KafkaConfig { common: settings.clone(), producer: settings, ..KafkaConfig::default() };
        let driver = DriverConfig { name: "k".to_owned(), kind: DriverKind::Kafka(kafka) };
        let text = driver_json(&driver).to_string();
        assert!(text.contains("b:9092") && text.contains(REDACTED) && !text.contains("hunter2"), "{text}");
    }
}
