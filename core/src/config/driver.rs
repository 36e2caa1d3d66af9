//! The driver file: which messaging system, and how to speak to it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A messaging system, as checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverConfig {
    /// `name`: stands in the result and in its file name.
    pub name: String,
    /// What kind of system, and its settings.
    pub kind: DriverKind,
}

/// The systems this version can drive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DriverKind {
    /// The in-memory broker inside this process, reached through the Kafka protocol like any other.
    Embedded,
    /// An Apache Kafka cluster, or anything that speaks its protocol.
    Kafka(KafkaConfig),
}

/// Settings for a Kafka cluster, in librdkafka's words (already translated from the Java client's).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KafkaConfig {
    /// `replicationFactor`; -1 means the broker's default. Default 1.
    pub replication_factor: i32,
    /// `topicConfig`: per-topic settings at creation, in the broker's words.
    pub topic: BTreeMap<String, String>,
    /// Settings of every client: `commonConfig`.
    pub common: BTreeMap<String, String>,
    /// `commonConfig` overlaid by `producerConfig`.
    pub producer: BTreeMap<String, String>,
    /// `commonConfig` overlaid by `consumerConfig`.
    pub consumer: BTreeMap<String, String>,
}
