//! The workload file: topics, payload, rate, durations.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// What one run shall do, as checked. Keys and their meaning are upstream's (`Workload.java`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// `name`; the file's stem where the file gives none.
    pub name: String,
    /// `topics`, at least 1.
    pub topics: u32,
    /// `partitionsPerTopic`, at least 1.
    pub partitions_per_topic: u32,
    /// `keyDistributor`, default `NO_KEY`.
    pub key_distributor: KeyDistributor,
    /// `messageSize`, payload bytes, at least 1. From 32 bytes on a payload begins with our header.
    pub message_size: u32,
    /// `payloadFile`, or `useRandomizedPayloads` with `randomBytesRatio` and `randomizedPayloadPoolSize`.
    pub payload: PayloadSource,
    /// `subscriptionsPerTopic` (Kafka: consumer groups), 0 for a run that only produces.
    pub subscriptions_per_topic: u32,
    /// `consumerPerSubscription`.
    pub consumers_per_subscription: u32,
    /// `producersPerTopic`.
    pub producers_per_topic: u32,
    /// `producerRate`: messages per second of the whole run.
    pub rate: RateGoal,
    /// `consumerBacklogSizeGB` above 0, with `backlogDrainRatio`.
    pub backlog: Option<Backlog>,
    /// `testDuration` or `testDurationMinutes`, above 0.
    pub test_duration: Duration,
    /// `warmupDuration` or `warmupDurationMinutes`, default 1 minute.
    pub warmup_duration: Duration,
    /// `seed`; drawn at the start, and recorded, where the file gives none.
    pub seed: Option<u64>,
    /// `catchUp`, default `all`.
    pub catch_up: CatchUp,
    /// `verify`, default `header`.
    pub verify: Verify,
}

/// How keys are given to messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyDistributor {
    /// No key; the client spreads messages over partitions.
    #[default]
    NoKey,
    /// Each sending thread walks the table of 10,000 keys, from index 1 up, and wraps to 0.
    RoundRobin,
    /// The index is the low 32 bits of the nanosecond clock, modulo 10,000.
    RandomNano,
}

/// Where payloads come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PayloadSource {
    /// One payload, the bytes of this file, whose size must be `messageSize`.
    File(PathBuf),
    /// A pool made from the run's seed: of each payload, `floor(size * ratio)` random bytes, then zeros.
    Random {
        /// 0.0 to 1.0.
        ratio: f64,
        /// Payloads in the pool, at least 1.
        pool: u32,
    },
}

/// `producerRate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RateGoal {
    /// Messages per second of the whole run, at least 1.
    Fixed(u64),
    /// `producerRate: 0`: find the highest rate that holds, then measure at it.
    Search,
}

/// Backlog phases: consumers pause, a backlog builds up, then they drain it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backlog {
    /// Payload bytes to build up over all subscriptions (`consumerBacklogSizeGB` in GiB).
    pub bytes: u64,
    /// 1.0: drain fully; 0.0: best effort. Default 1.0.
    pub drain_ratio: f64,
}

/// What becomes of messages that could not be sent when they were due (`catchUp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatchUp {
    /// Send the whole debt as fast as possible; every message keeps its intended instant.
    #[default]
    All,
    /// `cap(10s)`: keep at most this much debt; what is older is skipped and counted.
    Cap(Duration),
    /// Skip everything that is late by more than one interval; it is counted.
    Drop,
}

/// How far the consumers check a payload (`verify`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verify {
    /// The checksum covers the header.
    #[default]
    Header,
    /// The checksum covers the whole payload.
    Full,
}
