//! The driver file: which messaging system, and how to connect to it.
//!
//! The four blocks of a Kafka driver file (`topicConfig`, `commonConfig`, `producerConfig`, `consumerConfig`) are
//! properties text, as upstream writes them (`commonConfig: |`), or mappings with native values, as the Python port
//! documented them. Both may occur in one file, and a missing block is empty.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::{
    kafka::{self, Block, Given, Role},
    properties,
};
use omb_machine::config::{
    ConfigErrors, Leniency, Parsed, Place, Problem,
    placeholder::{self, Environment, Filled, Wrong, ZONE},
    setting::{HIDDEN, Secret, Setting, Settings},
    yaml::{self, Node, Reader, Value, nearest},
};

use omb_machine::printable::printable_within;

/// A messaging system, checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverConfig {
    /// `name`: appears in the result and in its file name.
    pub name: String,
    /// What kind of system, and its settings.
    pub kind: DriverKind,
}

/// The systems this version can drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DriverKind {
    /// The in-memory broker inside this process, reached through the Kafka protocol like any other.
    Embedded,
    /// An Apache Kafka cluster, or anything with its protocol.
    Kafka(KafkaConfig),
}

/// Settings for a Kafka cluster, in librdkafka's terms (already translated from the Java client's).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaConfig {
    /// `replicationFactor`; -1 means the broker's default. Default 1.
    pub replication_factor: i32,
    /// `topicConfig`: per-topic settings at creation, in the broker's terms.
    pub topic: Settings,
    /// Settings of every client: `commonConfig`.
    pub common: Settings,
    /// `commonConfig` overlaid by `producerConfig`.
    pub producer: Settings,
    /// `commonConfig` overlaid by `consumerConfig`.
    pub consumer: Settings,
}

/// Every key of a Kafka driver file.
const KEYS: &[&str] =
    &["name", "driverClass", "replicationFactor", "topicConfig", "commonConfig", "producerConfig", "consumerConfig"];

/// Keys of other programs that read such files.
const ELSEWHERE: &[(&str, &str)] = &[
    ("reset", "older versions of upstream and of forks (delete all topics at the start)"),
    ("skipCreateTopic", "a fork (use topics that exist already); topics are created for every run"),
    (
        "resetToLatest",
        "Aiven's fork (begin at the end of each partition); topics are new, so nothing lies before the load",
    ),
];

/// Names for Kafka: ours, upstream's, those of the Python port (documented and in its code), and Redpanda's fork, whose
/// driver is Kafka's with the same keys.
const KAFKA: &[&str] = &[
    "kafka",
    "io.openmessaging.benchmark.driver.kafka.KafkaBenchmarkDriver",
    "benchmark.driver_kafka.kafka_benchmark_driver.KafkaBenchmarkDriver",
    "benchmark.drivers.kafka.kafka_benchmark_driver.KafkaBenchmarkDriver",
    "io.openmessaging.benchmark.driver.redpanda.RedpandaBenchmarkDriver",
];

const EMBEDDED: &str = "embedded";

/// Drivers of upstream and the Python port for other systems: what their class name ends with.
const OTHERS: &[(&str, &str)] = &[
    ("ArtemisBenchmarkDriver", "Apache ActiveMQ Artemis"),
    ("DlogBenchmarkDriver", "Apache BookKeeper"),
    ("JMSBenchmarkDriver", "JMS"),
    ("KopBenchmarkDriver", "Kafka on Pulsar"),
    ("MqttBenchmarkDriver", "MQTT"),
    ("NatsBenchmarkDriver", "NATS JetStream"),
    ("NatsStreamingBenchmarkDriver", "NATS Streaming"),
    ("NsqBenchmarkDriver", "NSQ"),
    ("PravegaBenchmarkDriver", "Pravega"),
    ("PulsarBenchmarkDriver", "Apache Pulsar"),
    ("RabbitMqBenchmarkDriver", "RabbitMQ"),
    ("RedisBenchmarkDriver", "Redis"),
    ("RocketMQBenchmarkDriver", "Apache RocketMQ"),
    ("RocketMQ5BenchmarkDriver", "Apache RocketMQ 5"),
];

/// Reads the driver file `file`, whose content is `text`, where no environment variable is set.
///
/// # Errors
/// All that keeps the system from being driven as written, in the order of the file.
pub fn parse(file: &str, text: &str, leniency: Leniency) -> Result<Parsed<DriverConfig>, ConfigErrors> {
    parse_within(file, text, leniency, &|_| None)
}

/// As [`parse`], and fills in `${NAME}` from `environment`: that of the process that was given the file's name, of no
/// other. What was filled in is a secret from then on.
///
/// # Errors
/// As [`parse`]; and every placeholder whose variable is not set.
pub fn parse_within(
    file: &str,
    text: &str,
    leniency: Leniency,
    environment: Environment<'_>,
) -> Result<Parsed<DriverConfig>, ConfigErrors> {
    let mut reader =
        Reader::open(file, text, leniency, "a driver, one `key: value` per line, such as driverClass: kafka")?
            .within(environment);
    let driver = driver(&mut reader);
    reader.finish(driver)
}

fn driver(reader: &mut Reader<'_>) -> Option<DriverConfig> {
    let system = if reader.require("driverClass", "give kafka, or embedded for the broker inside this program") {
        system(reader)
    } else {
        None
    };
    let (kind, fallback) = match system? {
        System::Embedded => {
            embedded(reader);
            (Some(DriverKind::Embedded), "Embedded")
        }
        System::Kafka => {
            reader.check_keys(KEYS, ELSEWHERE);
            (kafka(reader).map(DriverKind::Kafka), "Kafka")
        }
    };
    let name = if reader.has("name") { reader.text("name") } else { Some(fallback.to_owned()) };
    Some(DriverConfig { name: name?, kind: kind? })
}

enum System {
    Embedded,
    Kafka,
}

fn system(reader: &mut Reader<'_>) -> Option<System> {
    let key = "driverClass";
    let class = reader.text(key)?;
    let node = reader.get(key)?.clone();
    if class == EMBEDDED {
        return Some(System::Embedded);
    }
    if KAFKA.contains(&class.as_str()) {
        if class.contains("redpanda") {
            reader.warn(key, Some(node.place), "Redpanda is driven through the Kafka protocol, like Kafka");
        }
        return Some(System::Kafka);
    }
    let simple = class.rsplit('.').next().unwrap_or_default();
    if let Some((_, system)) = OTHERS.iter().find(|(name, _)| *name == simple) {
        let hint = match *system {
            "Kafka on Pulsar" => {
                "; it speaks Kafka's protocol: set driverClass: kafka, and kafkaConfig's properties as commonConfig"
            }
            _ => "",
        };
        reader.error(key, Some(node.place), Problem::OtherSystem { class, system, hint });
        return None;
    }
    let suggestion = nearest(&class, KAFKA.iter().copied().chain([EMBEDDED]));
    reader.not_allowed(key, &node, format!("kafka, embedded, or {}", KAFKA[1]), suggestion);
    None
}

/// The embedded broker has no settings.
fn embedded(reader: &mut Reader<'_>) {
    reader.check_keys(KEYS, ELSEWHERE);
    for key in &KEYS[2..] {
        if reader.has(key) {
            let place = reader.place(key);
            let problem = Problem::Unsupported("a setting for Kafka, and driverClass is embedded".to_owned());
            reader.soften(key, place, problem, "it is not applied");
        }
    }
}

fn kafka(reader: &mut Reader<'_>) -> Option<KafkaConfig> {
    let replication_factor = replication_factor(reader);
    let topic = block(reader, "topicConfig", None);
    let before = reader.error_count();
    let [common, mut producer, mut consumer] =
        [("commonConfig", Block::Common), ("producerConfig", Block::Producer), ("consumerConfig", Block::Consumer)]
            .map(|(key, kind)| block(reader, key, Some(kind)));
    let malformed = reader.error_count() > before;
    for own in [&mut producer, &mut consumer] {
        for (name, property) in &common {
            own.entry(name.clone()).or_insert_with(|| property.clone());
        }
    }
    // A block that cannot be read may hold anything: neither addresses nor a login are reported missing.
    if !malformed {
        brokers(reader, &common);
    }
    for given in topic.values().filter(|given| given.value.contains(ZONE)) {
        let why = format!("{ZONE} is filled in by each worker, and a topic is the same for all of them");
        reader.error(&given.name, Some(given.place), Problem::Unsupported(why));
    }
    let topic_setting = |(name, given): (String, Given)| {
        let value = given.value.trim().to_owned();
        let hidden = given.filled || kafka::is_secret(&name);
        (name, if hidden { Setting::Secret(Secret::new(value)) } else { Setting::Open(value) })
    };
    Some(KafkaConfig {
        replication_factor: replication_factor?,
        topic: topic.into_iter().map(topic_setting).collect(),
        common: kafka::translate(reader, Role::Admin, &common, !malformed),
        producer: kafka::translate(reader, Role::Producer, &producer, !malformed),
        consumer: kafka::translate(reader, Role::Consumer, &consumer, !malformed),
    })
}

fn replication_factor(reader: &mut Reader<'_>) -> Option<i32> {
    let key = "replicationFactor";
    if !reader.has(key) {
        return Some(1);
    }
    // Upstream's type has 16 bits, as has the protocol.
    let factor = reader.whole(key, -1, i16::MAX.into())?;
    if factor == 0 {
        let node = reader.get(key)?.clone();
        reader.not_allowed(key, &node, "1 or more copies, or -1 for the broker's default", None);
        return None;
    }
    Some(i32::try_from(factor).expect("within the range asked for"))
}

/// The properties of one block, kept under one name each. Names in `topicConfig` are the broker's and go to it
/// unchecked.
fn block(reader: &mut Reader<'_>, key: &str, kind: Option<Block>) -> kafka::Properties {
    let Some(node) = reader.get(key).cloned() else { return BTreeMap::new() };
    let given = match &node.value {
        Value::Keys(entries) => {
            let entries = reader.unique(entries.clone());
            let property = |entry: yaml::Entry| {
                let value = property_text(reader, &entry.key, &entry.value)?;
                Some((entry.key, value, entry.place))
            };
            entries.into_iter().filter_map(property).collect()
        }
        Value::Scalar { text, style } => properties_text(reader, key, &node, text, *style),
        Value::List(_) | Value::Null => {
            reader.not_allowed(key, &node, "properties, one `name: value` or, after `|`, `name=value` per line", None);
            return BTreeMap::new();
        }
    };
    let mut properties: BTreeMap<String, Given> = BTreeMap::new();
    for (name, value, place) in given {
        let canonical = if kind.is_some() { kafka::canonical(&name) } else { &name }.to_owned();
        let block = kind.unwrap_or(Block::Common);
        if let Some(first) = properties.get(&canonical) {
            let message =
                format!("given twice, first in line {} as {}; the last one holds", first.place.line, first.name);
            reader.warn(&name, Some(place), message);
        }
        let Some(Filled { text, secret }) = filled(reader, &name, place, &value) else { continue };
        properties.insert(canonical, Given { value: text, raw: value, filled: secret, place, block, name });
    }
    properties
}

/// A value with its placeholders filled in.
fn filled(reader: &mut Reader<'_>, name: &str, place: Place, value: &str) -> Option<Filled> {
    match placeholder::fill(value, reader.environment()) {
        Ok(filled) => Some(filled),
        Err(wrong) => {
            let problem = match wrong {
                Wrong::Unset(variable) => Problem::Unset(variable),
                Wrong::Malformed => Problem::Placeholder,
            };
            reader.error(name, Some(place), problem);
            None
        }
    }
}

/// A native value of a mapping as a property's text: as it is written, lists joined with commas.
fn property_text(reader: &mut Reader<'_>, name: &str, node: &Node) -> Option<String> {
    let scalar = |node: &Node| match &node.value {
        Value::Scalar { text, .. } => Some(text.clone()),
        _ => None,
    };
    let text = match &node.value {
        Value::Null => Some(String::new()),
        Value::List(items) => items.iter().map(scalar).collect::<Option<Vec<_>>>().map(|items| items.join(",")),
        _ => scalar(node),
    };
    if text.is_none() {
        reader.not_allowed(name, node, "one value; write the property's whole name, such as linger.ms: 1", None);
    }
    text
}

/// The properties of a text block: name, value, place.
fn properties_text(
    reader: &mut Reader<'_>,
    key: &str,
    node: &Node,
    text: &str,
    style: yaml::ScalarStyle,
) -> Vec<(String, String, Place)> {
    let literal = style == yaml::ScalarStyle::Literal;
    // The node begins at its first line that is not blank.
    let blank = text.lines().take_while(|line| line.trim().is_empty()).count();
    let place = |line: usize, indent: usize| {
        if literal {
            Place { line: node.place.line + line.saturating_sub(blank), column: node.place.column + indent }
        } else {
            node.place
        }
    };
    let properties = match properties::parse(text) {
        Ok(properties) => properties,
        Err((line, what)) => {
            reader.error(key, Some(place(line, 0)), Problem::Properties(what));
            return Vec::new();
        }
    };
    let mut read = Vec::with_capacity(properties.len());
    for property in properties {
        let place = place(property.line, property.indent);
        if property.name.is_empty() {
            let what = "a line without a property's name; allowed: name=value".to_owned();
            reader.error(key, Some(place), Problem::Properties(what));
            continue;
        }
        // YAML joins the lines of `>` and of plain text, and then one property swallows those after it.
        let swallowed = property.value.split_whitespace().skip(1).find_map(|word| {
            let (name, _) = word.split_once('=')?;
            (!literal && kafka::is_known(name)).then(|| name.to_owned())
        });
        if let Some(name) = swallowed {
            let what =
                format!("the lines of this block were joined, so {name} became part of the value; write `{key}: |`");
            reader.error(&property.name, Some(place), Problem::Properties(what));
            continue;
        }
        read.push((property.name, property.value, place));
    }
    read
}

/// Without addresses nothing can be reached, and all three clients need them: they belong in `commonConfig`.
fn brokers(reader: &mut Reader<'_>, common: &kafka::Properties) {
    let Some(given) = common.get("bootstrap.servers") else {
        let place = reader.place("commonConfig");
        let hint = "give the brokers' addresses in commonConfig, such as bootstrap.servers: localhost:9092";
        reader.error("bootstrap.servers", place, Problem::Missing(hint));
        return;
    };
    // Java's client skips what is empty between commas, and templates leave a comma at the end.
    let mut parts = given.value.split(',').map(str::trim).filter(|part| !part.is_empty()).peekable();
    let wrong = if parts.peek().is_none() { Some("") } else { parts.find(|part| !is_address(part)) };
    let Some(wrong) = wrong else { return };
    let inner = wrong.find(|c: char| c.is_whitespace() || c == ';');
    let (found, allowed) = match inner {
        _ if wrong.is_empty() => ("nothing".to_owned(), "host:port, several separated by commas".to_owned()),
        Some(at) => {
            let what = if wrong[at..].starts_with(';') { "`;`" } else { "a blank" };
            let found = if given.filled { "a value".to_owned() } else { format!("`{}`", printable_within(wrong, 200)) };
            (found, format!("host:port, several separated by commas; {what} stands where a comma is expected"))
        }
        None => {
            let found = if given.filled { "a value".to_owned() } else { format!("`{}`", printable_within(wrong, 200)) };
            (found, "host:port, several separated by commas".to_owned())
        }
    };
    reader.error(&given.name, Some(given.place), Problem::NotAllowed { found, allowed, suggestion: None });
}

/// `host:port`, with or without a protocol before it.
fn is_address(address: &str) -> bool {
    let bare = address.rsplit("://").next().unwrap_or_default();
    match bare.rsplit_once(':') {
        Some((host, port)) => {
            let listed = host.contains(|c: char| c.is_whitespace() || matches!(c, ';' | ','));
            !host.is_empty() && !listed && port.parse::<u16>().is_ok_and(|port| port > 0)
        }
        None => false,
    }
}

impl KafkaConfig {
    /// The addresses of the brokers, `host:port`, separated by commas (`bootstrap.servers`), as they may be shown.
    #[must_use]
    pub fn brokers(&self) -> &str {
        self.common.get("bootstrap.servers").map_or("", Setting::shown)
    }
}

impl DriverConfig {
    /// Whether the broker is configured to confirm nothing (`acks=0`): the client then calls a message delivered once
    /// it is handed to the socket.
    #[must_use]
    pub fn acks_nothing(&self) -> bool {
        let DriverKind::Kafka(kafka) = &self.kind else { return false };
        let given = |name: &str| kafka.producer.get(name).or_else(|| kafka.common.get(name));
        given("acks").or_else(|| given("request.required.acks")).is_some_and(|acks| acks == "0")
    }

    /// Every setting as it goes to the client library, for the result; passwords and keys are hidden.
    #[must_use]
    pub fn resolved(&self) -> Json {
        let mut keys = Map::new();
        keys.insert("name".to_owned(), json!(self.name));
        match &self.kind {
            DriverKind::Embedded => {
                keys.insert("driverClass".to_owned(), json!(EMBEDDED));
            }
            DriverKind::Kafka(kafka) => {
                keys.insert("driverClass".to_owned(), json!(KAFKA[0]));
                keys.insert("replicationFactor".to_owned(), json!(kafka.replication_factor));
                let blocks = [
                    ("topicConfig", &kafka.topic),
                    ("commonConfig", &kafka.common),
                    ("producerConfig", &kafka.producer),
                    ("consumerConfig", &kafka.consumer),
                ];
                for (key, block) in blocks {
                    let shown = |(name, value): (&String, &Setting)| {
                        let value = if kafka::is_secret(name) { HIDDEN } else { value.shown() };
                        (name.clone(), json!(value))
                    };
                    keys.insert(key.to_owned(), Json::Object(block.iter().map(shown).collect()));
                }
            }
        }
        Json::Object(keys)
    }

    /// The configuration that [`Self::resolved`] shows; what was hidden stays hidden, and what is missing is empty.
    #[must_use]
    pub fn from_resolved(shown: &Json) -> Self {
        let kind = if shown["driverClass"] == EMBEDDED {
            DriverKind::Embedded
        } else {
            let block = |key: &str| {
                let properties = shown[key].as_object().into_iter().flatten();
                properties.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.into()))).collect()
            };
            DriverKind::Kafka(KafkaConfig {
                replication_factor: shown["replicationFactor"].as_i64().and_then(|n| n.try_into().ok()).unwrap_or(1),
                topic: block("topicConfig"),
                common: block("commonConfig"),
                producer: block("producerConfig"),
                consumer: block("consumerConfig"),
            })
        };
        Self { name: shown["name"].as_str().unwrap_or_default().to_owned(), kind }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_driver_holds_no_secret() {
        let settings = BTreeMap::from([
            ("sasl.password".to_owned(), "hunter2".into()),
            ("bootstrap.servers".to_owned(), "b:9092".into()),
        ]);
        let kafka = KafkaConfig {
            topic: settings.clone(),
            common: settings.clone(),
            producer: settings.clone(),
            consumer: settings,
            ..KafkaConfig::default()
        };
        let driver = DriverConfig { name: "k".to_owned(), kind: DriverKind::Kafka(kafka) };
        let text = driver.resolved().to_string();
        assert!(text.contains("b:9092") && text.contains("(hidden)") && !text.contains("hunter2"), "{text}");
        let again = DriverConfig::from_resolved(&driver.resolved());
        assert_eq!(again.resolved(), driver.resolved(), "what is shown can be read back");
        let embedded = DriverConfig { name: "e".to_owned(), kind: DriverKind::Embedded };
        assert_eq!(DriverConfig::from_resolved(&embedded.resolved()), embedded);
    }
}
