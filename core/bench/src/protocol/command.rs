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

/// What a worker can be told to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// Take up this run: connect to the messaging system, make the payloads.
    Prepare(Box<Preparation>),
    /// Find out whether everything that follows could be done, without doing it.
    Check(Box<Check>),
    /// Create these topics, whole list or none of it.
    CreateTopics(Vec<TopicSpec>),
    /// Create these consumers; that they have joined their groups shows in the next [`Command::Read`].
    CreateConsumers(Vec<ConsumerSpec>),
    /// Create these producers.
    CreateProducers(Vec<ProducerSpec>),
    /// Send probes with each producer ([`crate::plan::probing`]); that they arrive shows in the next [`Command::Read`].
    /// From here on rebalances are counted.
    Probe {
        /// Rises when earlier probes tell nothing any more, since the groups have changed.
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
        /// What is measured of it, and when it ends, where that is known by now. Else it goes on until
        /// [`Command::StopLoad`].
        window: Option<Window>,
        /// See [`Command::Read`].
        correction: i64,
    },
    /// Go on at another total rate, from now, with a fresh schedule. Debt of the old one is given up, and counted.
    SetRate {
        /// Total rate of the run.
        rate: Rate,
    },
    /// Stop fetching, without leaving the group.
    PauseConsumers,
    /// Fetch again.
    ResumeConsumers,
    /// Tell everything counted so far.
    Read {
        /// Nanoseconds by which the fleet's time is ahead of this worker's wall clock, as far as the controller knows by
        /// now. Messages are stamped and received in the fleet's time, so that latencies between workers make sense.
        correction: i64,
        /// Up to where.
        reach: Reach,
    },
    /// Stop sending; wait, within this bound, until every message sent has its delivery report.
    StopLoad {
        /// Messages without a report by then are failed ones.
        within: Duration,
    },
    /// Compare what was confirmed with what each subscription received; where others hold a part of either, tell what
    /// is here.
    Verify,
    /// Close every client, then delete what this run created, all of it within this bound: who has not left by then is left behind,
    /// and what could not be deleted is told.
    DeleteTopics {
        /// How long it may take.
        within: Duration,
        /// Names of its topics.
        topics: Vec<String>,
        /// Names of its subscriptions' groups. One whose members elsewhere have not left yet is tried again for a while.
        groups: Vec<String>,
    },
    /// End the run: stop whatever still goes on, close every client. Always allowed, also while another command
    /// is under way, which it cuts short.
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

    /// How long the controller may wait for it in silence, beyond what any answer takes; `setup_within` as in the
    /// [`Preparation`]. No load goes on meanwhile, or it is being ended.
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

/// The part of a load that is measured, half open: a message that is meant to leave at its very end is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// From when message 0 is due until what is due counts.
    pub from: Duration,
    /// From when message 0 is due until nothing is due any more.
    pub until: Duration,
}

/// Up to where a read tells what was counted. A worker that was given a [`Window`] keeps what it had counted at each of its
/// ends, by its own clock, so that no exchange that is late moves a count from one side to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// All that was counted so far.
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
    /// So long after the command arrives: where controller and worker are one process.
    After(Duration),
    /// At this instant of the worker's own wall clock, which its controller has measured: all workers of a fleet begin
    /// at once. Whoever is told too late is behind its schedule from the first message on.
    At(WallTime),
}

/// What a worker must know before it can create anything.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preparation {
    /// The messaging system.
    pub driver: DriverConfig,
    /// From which payloads and keys follow.
    pub seed: Seed,
    /// How to make the payloads.
    pub payload: PayloadRecipe,
    /// How keys are given.
    pub keys: KeyDistributor,
    /// What becomes of a debt.
    pub catch_up: CatchUp,
    /// How far payloads are checked.
    pub verify: Verify,
    /// Producers per topic: those of topic t have the ids from `t * producers_per_topic`.
    pub producers_per_topic: u32,
    /// Silence of the controller after which the worker stops its load by itself.
    pub lease: Duration,
    /// Longest each step of the set-up may take: creating topics, consumers or producers.
    pub setup_within: Duration,
    /// Who leads the run, for those who are refused meanwhile: `omb 4711 on host-a`.
    pub controller: String,
    /// Whether to end the run of another controller that the worker may still obey.
    pub take_over: bool,
}

/// What a worker is to find out before anything is created: whether it reaches every broker at the address that the broker
/// advertises, whether the brokers would take what is to come, and whether its own process has room for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Topics that the broker is asked whether it would create, one for each kind. Empty for all workers but one.
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
    /// Which client it uses: those of this worker with one number share one. See [`sharing`](crate::plan::sharing).
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
    /// The topic's partitions, to be shared out among them.
    pub partitions: u32,
    /// Whether this worker also runs all producers and all other consumers of the topic.
    pub whole: bool,
    /// Which thread receives for it: those of this worker with one number share one.
    pub thread: u32,
}
