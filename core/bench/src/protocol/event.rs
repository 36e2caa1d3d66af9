//! Worker to controller.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    id::{ProducerId, SubscriptionId},
    load::silence::Silence,
    stats::{offsets::OffsetRanges, sequence::SequenceSet, sparse::SparseTotals},
};
use omb_machine::{
    printable::printable_within,
    time::{Instant, WallTime},
};

/// The result of a command that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// The messaging system answers.
    Prepared {
        /// Its own description: `"Kafka, 3 brokers, librdkafka 2.12.1"`.
        system: String,
    },
    /// What prevents the run, as far as [`Command::Check`](super::Command::Check) found out; empty if the run can
    /// begin.
    Checked(Vec<Failure>),
    /// Done; there is nothing to report.
    Done,
    /// Everything counted so far.
    Read(Box<Snapshot>),
    /// What the comparison of confirmed and received found.
    Verified(Box<Findings>),
}

/// Everything a worker has counted since its load began, and its current condition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When it was taken, on the worker's monotonic clock.
    pub taken_at: Instant,
    /// When it was taken, on the worker's wall clock.
    pub wall: WallTime,
    /// Counts and latencies, cumulative.
    pub totals: SparseTotals,
    /// Messages sent that have no delivery report yet.
    pub in_flight: u64,
    /// How far the oldest message that is due but not sent lies behind its schedule.
    pub schedule_lag: Duration,
    /// Probes of the newest round that arrived, for topics that this worker has as a whole.
    pub paths_open: u64,
    /// For each subscription of other topics, the probes that arrived here: the place (within the topic) of the producer
    /// times the partitions, plus the partition. Empty once the load has begun.
    pub probed: BTreeMap<SubscriptionId, SequenceSet>,
    /// For how long a quota of the broker has held up some client of this worker.
    pub throttled: Duration,
    /// When nothing was acknowledged here, in order: at most [`silence::KEPT_MAX`](crate::load::silence::KEPT_MAX), and
    /// one that is still open.
    pub silences: Vec<Silence>,
    /// Probes of the newest round that were not confirmed yet.
    pub probes_pending: u64,
    /// Each group that has members here; once the load has begun only those that have been rebalanced since.
    pub groups: BTreeMap<SubscriptionId, GroupView>,
    /// What prevents the load and will not pass by itself, in the client's or broker's own words.
    pub hopeless: Option<Failure>,
    /// The worker's process.
    pub process: Process,
    /// What went wrong so far, the most frequent first, at most [`Snapshot::PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
}

/// What a worker's members of one group know of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupView {
    /// Members here that have joined.
    pub joined: u32,
    /// Of them, the lowest and the highest generation that a member knows; 0 if none has joined.
    pub generations: (i32, i32),
    /// Partitions assigned to them in total.
    pub assigned: u32,
    /// How often a new generation began since the newest round of probes.
    pub rebalances: u64,
    /// When the last of them was seen, since the load's beginning.
    pub last: Option<Duration>,
}

impl GroupView {
    /// Counts a member that has joined, the newest generation that it knows, and the partitions assigned to it.
    pub fn member(&mut self, generation: i32, assigned: u32) {
        let (low, high) = self.generations;
        let low = if self.joined == 0 { generation } else { low.min(generation) };
        self.generations = (low, high.max(generation));
        self.joined += 1;
        self.assigned += assigned;
    }
}

impl Snapshot {
    /// Kinds of problem that are kept apart; later ones count under "other problems".
    pub const PROBLEMS_MAX: usize = 16;
}

/// Something that went wrong, reported once and counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// In the client's or broker's own words.
    pub what: String,
    /// How often.
    pub count: u64,
}

/// What the worker's process has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// CPU time of all its threads since it began.
    pub cpu: Duration,
    /// Of it, the embedded broker's share, if it runs in the process.
    pub broker_cpu: Duration,
    /// Memory it holds now, in bytes.
    pub memory_bytes: u64,
    /// Most memory it ever held, in bytes.
    pub memory_bytes_max: u64,
    /// Cores it may use; 0 if unknown.
    pub cores: u32,
    /// Bytes received over the network interfaces of its host since boot, loopback included.
    pub received_bytes: u64,
    /// Bytes sent, likewise.
    pub sent_bytes: u64,
}

impl Process {
    /// Adds what another worker's process has used. Sums saturate.
    pub fn add(&mut self, other: &Self) {
        self.cpu = self.cpu.saturating_add(other.cpu);
        self.broker_cpu = self.broker_cpu.saturating_add(other.broker_cpu);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
        self.memory_bytes_max = self.memory_bytes_max.saturating_add(other.memory_bytes_max);
        self.cores = self.cores.saturating_add(other.cores);
        self.received_bytes = self.received_bytes.saturating_add(other.received_bytes);
        self.sent_bytes = self.sent_bytes.saturating_add(other.sent_bytes);
    }

    /// CPU of the client alone: without the embedded broker.
    #[must_use]
    pub fn client_cpu(&self) -> Duration {
        self.cpu.saturating_sub(self.broker_cpu)
    }
}

/// What the comparison of confirmed and received found at one worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    /// Subscriptions to topics that this worker has as a whole: compared here.
    pub compared: BTreeMap<SubscriptionId, Missing>,
    /// For other topics: what was confirmed to the producers here.
    pub confirmed: BTreeMap<ProducerId, SequenceSet>,
    /// For other topics: what the consumers here received, by the place of the producer within the topic.
    pub received: BTreeMap<SubscriptionId, Vec<SequenceSet>>,
    /// For the same subscriptions: the offsets that were read here, by partition.
    pub offsets: BTreeMap<SubscriptionId, Vec<OffsetRanges>>,
    /// Whether messages carry no header, so that they can only be counted.
    pub by_count_only: bool,
}

/// Messages confirmed to the producers that a subscription did not receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Messages confirmed for the subscription's topic.
    pub confirmed: u64,
    /// Of them, those that never arrived.
    pub missing: u64,
    /// Whether they were compared one by one (by the header) or only by count.
    pub by_count_only: bool,
}

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind, which decides the exit code.
    pub kind: FailureKind,
    /// What happened, in one line: which party, what was tried, the broker's own words.
    pub message: String,
}

impl Failure {
    /// A failure of `kind`, described by `message`.
    #[must_use]
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Most characters that are kept of a worker's failure or problem: a line that a person reads.
const WORDS_MAX: usize = 1_000;

/// Most characters of a messaging system's own description.
const SYSTEM_MAX: usize = 200;

/// Most different problems that are kept of one worker.
const PROBLEMS_MAX: usize = 100;

impl Failure {
    /// As it may be shown: on one line, without effect on a terminal, and no longer than a person reads.
    #[must_use]
    pub fn printable(self) -> Self {
        Self { message: printable_within(&self.message, WORDS_MAX), ..self }
    }
}

impl Event {
    /// With all texts in it as they may be shown: they come from another machine, and its broker.
    #[must_use]
    pub fn printable(self) -> Self {
        match self {
            Self::Prepared { system } => Self::Prepared { system: printable_within(&system, SYSTEM_MAX) },
            Self::Read(mut snapshot) => {
                snapshot.problems.truncate(PROBLEMS_MAX);
                for problem in &mut snapshot.problems {
                    problem.what = printable_within(&problem.what, WORDS_MAX);
                }
                Self::Read(snapshot)
            }
            other => other,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// The messaging system rejects the request itself: an unknown property, say.
    Configuration,
    /// It cannot be reached, or does not answer within its deadline.
    Unreachable,
    /// It refuses: authentication, permission, quota, replication factor.
    Refused,
    /// The command does not fit the worker's state, or is of another version.
    Protocol,
    /// The worker no longer follows the run: it was restarted, its lease ended, another controller took it over, or it
    /// is being shut down. Its counts are gone.
    Forgotten,
    /// The run itself failed: something broke while it was in progress.
    Broken,
}
