//! Controller to worker.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    config::{
        driver::DriverConfig,
        workload::{CatchUp, KeyDistributor, Verify},
    },
    id::{ConsumerId, ProducerId, SubscriptionId, TopicIndex},
    load::payload::PayloadRecipe,
    rate::{Rate, Tempo},
};
use omb_machine::{seed::Seed, time::WallTime};

/// The commands of a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Take up this run: connect to the messaging system, make the payloads.
    Prepare(Box<Preparation>),
    /// Check whether everything that follows could be done, without doing it.
    Check(Box<Check>),
    /// Create these topics, all of them or none.
    CreateTopics(Vec<TopicSpec>),
    /// Create these consumers; that they have joined their groups shows in the next [`Command::Read`].
    CreateConsumers(Vec<ConsumerSpec>),
    /// Create these producers.
    CreateProducers(Vec<ProducerSpec>),
    /// Send probes with each producer ([`crate::plan::probing`]); that they arrive shows in the next [`Command::Read`].
    /// From here on rebalances are counted.
    Probe {
        /// Rises when earlier probes no longer count, since the groups have changed.
        round: u64,
    },
    /// Begin to send.
    StartLoad {
        /// Total rate of the run; the worker's share follows from its producers.
        tempo: Tempo,
        /// Producers of the whole run.
        producers: u32,
        /// When message 0 is due.
        begin: Begin,
        /// The part of it that is measured, and when it ends, if that is known by now. Otherwise it continues until
        /// [`Command::StopLoad`].
        window: Option<Window>,
        /// See [`Command::Read`].
        correction: i64,
    },
    /// Continue at another total rate, from now, with a fresh schedule. Debt of the old one is dropped, and counted.
    SetRate {
        /// Total rate of the run.
        rate: Rate,
    },
    /// Stop fetching, without leaving the group.
    PauseConsumers,
    /// Fetch again.
    ResumeConsumers,
    /// Report everything counted so far.
    Read {
        /// Nanoseconds by which the fleet's time is ahead of this worker's wall clock, as far as the controller knows by
        /// now. Messages are stamped and received in the fleet's time, so that latencies between workers make sense.
        correction: i64,
        /// Which part is read.
        reach: Reach,
    },
    /// Stop sending; wait, within this bound, until every message sent has its delivery report.
    StopLoad {
        /// Messages without a report by then count as failed.
        within: Duration,
    },
    /// Compare what was confirmed with what each subscription received; where other workers hold a part of either,
    /// report what is here.
    Verify,
    /// Close every client, then delete what this run created, all of it within this bound: clients that have not left
    /// by then are left behind, and what could not be deleted is reported.
    DeleteTopics {
        /// How long it may take.
        within: Duration,
        /// Names of its topics.
        topics: Vec<String>,
        /// Names of its subscriptions' groups. A group that still has members elsewhere is retried for a while.
        groups: Vec<String>,
    },
    /// End the run: stop whatever is in progress, close every client. Always allowed, even while another command is in
    /// progress, which it cuts short.
    Close,
}

impl Command {
    /// Its name, for logs and errors.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prepare(_) => "prepare",
            Self::Check(_) => "check",
            Self::CreateTopics(_) => "create topics",
            Self::CreateConsumers(_) => "create consumers",
            Self::CreateProducers(_) => "create producers",
            Self::Probe { .. } => "probe",
            Self::StartLoad { .. } => "start load",
            Self::SetRate { .. } => "set rate",
            Self::PauseConsumers => "pause consumers",
            Self::ResumeConsumers => "resume consumers",
            Self::Read { .. } => "read",
            Self::StopLoad { .. } => "stop load",
            Self::Verify => "verify",
            Self::DeleteTopics { .. } => "delete topics",
            Self::Close => "close",
        }
    }

    /// How long the controller may wait for it without an answer, beyond what any answer takes; `setup_within` as in
    /// the [`Preparation`]. No load is in progress meanwhile, or it is being ended.
    #[must_use]
    pub fn takes(&self, setup_within: Duration) -> Duration {
        match self {
            Self::Check(_)
            | Self::CreateTopics(_)
            | Self::CreateConsumers(_)
            | Self::CreateProducers(_)
            | Self::DeleteTopics { .. } => setup_within,
            Self::StopLoad { within } => *within,
            _ => Duration::ZERO,
        }
    }
}

/// The part of a load that is measured, half open: a message due at its very end is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Measured from when message 0 is due: what is due from here on counts.
    pub from: Duration,
    /// Measured from when message 0 is due: nothing is due from here on.
    pub until: Duration,
}

/// Which part of the counts a read reports. A worker that was given a [`Window`] records its counts at each of its
/// ends, by its own clock, so that no late exchange moves a count from one side to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// Everything counted so far.
    #[default]
    Everything,
    /// What belongs to the time before the window.
    WarmUp {
        /// All of it: waits until it is over.
        whole: bool,
    },
    /// That, and what belongs to the window.
    Measured {
        /// All of it: waits until it is over.
        whole: bool,
    },
}

/// When a load begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Begin {
    /// This long after the command arrives: where controller and worker are one process.
    After(Duration),
    /// At this instant of the worker's own wall clock, which its controller has measured: all workers of a fleet begin
    /// at once. A worker that hears of it too late is behind its schedule from the first message on.
    At(WallTime),
}

/// What a worker must know before it can create anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preparation {
    /// The messaging system.
    pub driver: DriverConfig,
    /// Determines payloads and keys.
    pub seed: Seed,
    /// How to make the payloads.
    pub payload: PayloadRecipe,
    /// How keys are given.
    pub keys: KeyDistributor,
    /// What happens to a debt.
    pub catch_up: CatchUp,
    /// How far payloads are checked.
    pub verify: Verify,
    /// Producers per topic: those of topic t have the ids from `t * producers_per_topic`.
    pub producers_per_topic: u32,
    /// Silence of the controller after which the worker stops its load by itself.
    pub lease: Duration,
    /// Longest each step of the set-up may take: creating topics, consumers or producers.
    pub setup_within: Duration,
    /// The controller that leads the run, for others that are refused meanwhile: `omb 4711 on host-a`.
    pub controller: String,
    /// Whether to end the run of another controller that the worker may still follow.
    pub take_over: bool,
}

/// What a worker checks before anything is created: whether it reaches every broker at the address that the broker
/// advertises, whether the brokers would accept what is to come, and whether its own process has room for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Topics to ask the broker about, whether it would create them, one for each kind. Empty for all workers but one.
    pub topics: Vec<TopicSpec>,
    /// Bytes of the largest message, its key included.
    pub message_bytes: u64,
    /// Producers that this worker will run.
    pub producers: u32,
    /// Consumers that this worker will run.
    pub consumers: u32,
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicSpec {
    /// Its name on the broker.
    pub name: String,
    /// Its partitions, at least 1.
    pub partitions: u32,
}

/// A producer to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerSpec {
    /// Its id over the whole run.
    pub id: ProducerId,
    /// The topic's name on the broker.
    pub topic: String,
    /// The topic's partitions.
    pub partitions: u32,
    /// Whether this worker also runs all other producers and all consumers of the topic.
    pub whole: bool,
    /// Its client: producers of this worker with the same number share one. See [`sharing`](crate::plan::sharing).
    pub client: u32,
}

/// A consumer to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsumerSpec {
    /// Its id over the whole run.
    pub id: ConsumerId,
    /// The topic's place in the plan.
    pub topic_index: TopicIndex,
    /// The topic's name on the broker.
    pub topic: String,
    /// The subscription's id over the whole run.
    pub subscription: SubscriptionId,
    /// The subscription's name on the broker.
    pub group: String,
    /// Members that the group has over all workers.
    pub members: u32,
    /// The topic's partitions, to be divided among them.
    pub partitions: u32,
    /// Whether this worker also runs all producers and all other consumers of the topic.
    pub whole: bool,
    /// The thread that receives for it: consumers of this worker with the same number share one.
    pub thread: u32,
}
