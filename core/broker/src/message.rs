//! A client's requests to the broker, and its responses: plain data, no wire format of its own.
//!
//! The real runtime translates these from and to the Kafka protocol; the simulation sends them as they are.

use std::{collections::BTreeMap, fmt, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A topic's identity. A topic that is deleted and created again has another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TopicId(pub u128);

/// A topic as a client names it: old versions of the protocol by name, newer ones by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TopicRef {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicId),
}

impl From<&str> for TopicRef {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl fmt::Display for TopicRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Id(TopicId(id)) => write!(f, "{id:032x}"),
        }
    }
}

/// Why the broker refuses. The meanings are those of the Kafka protocol's errors of the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message is its documentation")]
pub enum ErrorCode {
    #[error("there is no such topic or partition")]
    UnknownTopicOrPartition,
    #[error("there is no topic with this id")]
    UnknownTopicId,
    #[error("the topic exists already")]
    TopicAlreadyExists,
    #[error("the topic's name is not allowed")]
    InvalidTopic,
    #[error("the number of partitions is not allowed")]
    InvalidPartitions,
    #[error("the replication factor is not allowed")]
    InvalidReplicationFactor,
    #[error("the configuration is not allowed")]
    InvalidConfig,
    #[error("the offset lies outside of what is stored")]
    OffsetOutOfRange,
    #[error("the record batch is damaged")]
    CorruptMessage,
    #[error("the records are larger than the broker's capacity")]
    MessageTooLarge,
    #[error("no room became free within the request's timeout")]
    RequestTimedOut,
    #[error("a batch of this producer is missing before this one")]
    OutOfOrderSequence,
    #[error("a newer producer has taken over this producer id")]
    InvalidProducerEpoch,
    #[error("the group's name is not allowed")]
    InvalidGroupId,
    #[error("the session timeout is not allowed")]
    InvalidSessionTimeout,
    #[error("the members of the group share no such protocol")]
    InconsistentGroupProtocol,
    #[error("the group does not know this member")]
    UnknownMemberId,
    #[error("the group has moved on to another generation")]
    IllegalGeneration,
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    #[error("join again with the member id given here")]
    MemberIdRequired,
    #[error("another member has taken over this instance id")]
    FencedInstanceId,
    #[error("the group still has members")]
    NonEmptyGroup,
    #[error("there is no such group")]
    GroupIdNotFound,
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
}

/// Whether a producer waits for its acknowledgement. With one replica, one and all mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acks {
    /// The reply is not sent on. A full broker lets the request wait without bound, since a rejection would reach no
    /// client.
    None,
    /// The reply says that the records are stored.
    Stored,
}

/// The producer of a batch, and its position in that producer's sequence: what makes a repeated batch recognisable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerStamp {
    /// Given out by [`Request::InitProducerId`].
    pub id: i64,
    /// Raised when the same id is taken over.
    pub epoch: i16,
    /// Sequence number of the first record, per producer and partition; after `i32::MAX` comes 0.
    pub sequence: i32,
}

/// Records as a producer sends them: opaque, with the metadata that the broker needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewBatch {
    /// How many records [`Self::bytes`] holds; at least 1.
    pub records: u32,
    /// Newest timestamp of the records, milliseconds since the Unix epoch.
    pub max_timestamp_ms: i64,
    /// Only idempotent producers have one.
    pub producer: Option<ProducerStamp>,
    /// The records, which the broker does not read.
    pub bytes: Bytes,
}

/// Records as they are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredBatch {
    /// Offset of the first record.
    pub base_offset: i64,
    /// How many records; their offsets are consecutive.
    pub records: u32,
    /// Newest timestamp of the records, milliseconds since the Unix epoch.
    pub max_timestamp_ms: i64,
    /// Leader epoch under which it was appended.
    pub leader_epoch: i32,
    /// The records as they came.
    pub bytes: Bytes,
}

impl StoredBatch {
    /// The offset after the last record.
    #[must_use]
    pub fn end_offset(&self) -> i64 {
        self.base_offset + i64::from(self.records)
    }
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTopic {
    /// At most 249 of `a-z A-Z 0-9 . _ -`, and neither `.` nor `..`.
    pub name: String,
    /// How many partitions; -1 means 1.
    pub partitions: i32,
    /// How many replicas; -1 means 1, and more than 1 is rejected, as there is one broker.
    pub replication_factor: i16,
    /// Topic configuration by key. Stored and shown; none of it changes what the broker does.
    pub configs: BTreeMap<String, String>,
}

/// One partition's part of a produce request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducePartition {
    /// The topic to write to.
    pub topic: TopicRef,
    /// Partition of the topic, from 0.
    pub partition: i32,
    /// The batch.
    pub batch: NewBatch,
}

/// One partition's part of a fetch request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchPartition {
    /// The topic to read from.
    pub topic: TopicRef,
    /// Partition of the topic, from 0.
    pub partition: i32,
    /// The first offset wanted; everything from here on counts as unread.
    pub offset: i64,
    /// Bytes at most from this partition; a larger first batch is returned nevertheless.
    pub max_bytes: u32,
}

/// The offset that [`Request::ListOffsets`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OffsetSpec {
    /// Of the first stored record.
    Earliest,
    /// That the next record will get.
    Latest,
    /// Where the batch with the newest timestamp begins, with that timestamp.
    MaxTimestamp,
    /// Of the first batch that holds a record of this time (milliseconds since the epoch) or later.
    ///
    /// Batches are opaque, so the answer is where that batch begins, which may be some records early.
    AtTimestamp(i64),
}

/// A member's request to take part in the next generation of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Join {
    /// Name of the group.
    pub group: String,
    /// Empty at first; later the one the broker assigned.
    pub member_id: String,
    /// A name that survives restarts of the member (static membership).
    pub static_id: Option<String>,
    /// The client's own name, for people and for the member id.
    pub client_id: String,
    /// Where the client is, for people.
    pub client_host: String,
    /// Longest silence before the member counts as dead.
    pub session_timeout: Duration,
    /// How long a rebalance waits for this member.
    pub rebalance_timeout: Duration,
    /// Class of the protocols, `"consumer"` for consumers; the same for all members.
    pub protocol_type: String,
    /// Protocols this member supports, the preferred one first, with its metadata for the leader.
    pub protocols: Vec<(String, Bytes)>,
    /// The topics it subscribes to, as far as known: their data waits for the group's first fetch.
    pub topics: Vec<String>,
    /// A new member is given its id and must join again with it (KIP-394), so that a lost reply leaves no ghost.
    pub id_required: bool,
}

/// What the leader, or a follower, sends at the end of a rebalance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// Name of the group.
    pub group: String,
    /// The member's id.
    pub member_id: String,
    /// Its static name, if it has one.
    pub static_id: Option<String>,
    /// The generation it joined.
    pub generation: i32,
    /// Class and name of the protocol it expects, if the client sends them.
    pub protocol: Option<(String, String)>,
    /// From the leader: each member's assignment. From the others: nothing.
    pub assignments: Vec<(String, Bytes)>,
}

/// An offset to remember for a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetCommit {
    /// The topic's name.
    pub topic: String,
    /// Partition of the topic, from 0.
    pub partition: i32,
    /// The next offset the group wants.
    pub offset: i64,
    /// Leader epoch as the client saw it, -1 if it did not.
    pub leader_epoch: i32,
    /// Opaque metadata, returned with the offset.
    pub metadata: String,
}

/// The committer of offsets. All three empty or -1: a client that uses the group's name only to store offsets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committer {
    /// The member's id.
    pub member_id: String,
    /// Its static name, if it has one.
    pub static_id: Option<String>,
    /// The generation it joined.
    pub generation: i32,
}

impl Committer {
    /// A committer that is no member.
    #[must_use]
    pub fn outsider() -> Self {
        Self { member_id: String::new(), static_id: None, generation: -1 }
    }
}

/// A client's request. Each is answered by the [`Response`] of the same name, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Which topics there are; all of them if none is named.
    Metadata {
        /// The topics of interest.
        topics: Option<Vec<TopicRef>>,
        /// Create those that are named and missing, if [`crate::Config::auto_create`] allows it.
        create_missing: bool,
    },
    /// Create topics.
    CreateTopics {
        /// One result each.
        topics: Vec<NewTopic>,
        /// Only validate.
        validate_only: bool,
    },
    /// Delete topics with everything in them, committed offsets included.
    DeleteTopics {
        /// One result each.
        topics: Vec<TopicRef>,
    },
    /// Raise the number of partitions.
    CreatePartitions {
        /// Topic and new total.
        topics: Vec<(String, i32)>,
        /// Only validate.
        validate_only: bool,
    },
    /// The configuration of topics: the given values, and the defaults of all the others.
    DescribeConfigs {
        /// One result each.
        topics: Vec<String>,
    },
    /// Append records.
    Produce {
        /// Whether anyone waits for the reply.
        acks: Acks,
        /// How long the request may wait for room.
        timeout: Duration,
        /// At most one batch per partition.
        partitions: Vec<ProducePartition>,
    },
    /// Read records, which also reports the position read so far.
    Fetch {
        /// How long to wait for [`Self::Fetch::min_bytes`].
        max_wait: Duration,
        /// Bytes that make an answer worth sending; 0 and 1 mean any.
        min_bytes: u32,
        /// Bytes at most; a larger first batch is returned nevertheless.
        max_bytes: u32,
        /// Earlier partitions come first where there is more than [`Self::Fetch::max_bytes`].
        partitions: Vec<FetchPartition>,
    },
    /// Offsets by position or time.
    ListOffsets {
        /// Topic, partition and which offset.
        partitions: Vec<(TopicRef, i32, OffsetSpec)>,
    },
    /// A producer id that is not in use; or, given one, its next epoch.
    InitProducerId {
        /// The producer's current id and epoch.
        current: Option<(i64, i16)>,
    },
    /// Enter a group, or its next generation.
    JoinGroup(Join),
    /// Distribute, or request, the assignment of a generation.
    SyncGroup(Sync),
    /// The member is alive.
    Heartbeat {
        /// Name of the group.
        group: String,
        /// Member and generation.
        member: Committer,
    },
    /// Leave a group.
    LeaveGroup {
        /// Name of the group.
        group: String,
        /// Member id and static id of each that leaves; an empty member id stands for the member with that static id.
        members: Vec<(String, Option<String>)>,
    },
    /// Remember offsets.
    CommitOffsets {
        /// Name of the group.
        group: String,
        /// The member that commits.
        committer: Committer,
        /// What to remember.
        offsets: Vec<OffsetCommit>,
    },
    /// Recall offsets.
    FetchOffsets {
        /// Name of the group.
        group: String,
        /// Topic and partition; all the group has if none is named.
        partitions: Option<Vec<(String, i32)>>,
    },
    /// Forget offsets of topics that no member subscribes to.
    DeleteOffsets {
        /// Name of the group.
        group: String,
        /// Topic and partition.
        partitions: Vec<(String, i32)>,
    },
    /// All groups.
    ListGroups,
    /// Some groups in detail.
    DescribeGroups {
        /// One result each.
        groups: Vec<String>,
    },
    /// Forget groups without members.
    DeleteGroups {
        /// One result each.
        groups: Vec<String>,
    },
}

/// A topic as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub id: TopicId,
    /// How many partitions.
    pub partitions: i32,
}

/// An error with a description for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The kind.
    pub code: ErrorCode,
    /// The description.
    pub text: String,
}

impl Refusal {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self { code, text: code.to_string() }
    }
}

/// A configuration value of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigValue {
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Whether it is the default.
    pub default: bool,
}

/// The result for one partition's batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Produced {
    /// As the request named it.
    pub topic: TopicRef,
    /// As the request named it.
    pub partition: i32,
    /// Where the batch is stored, also if it had been stored before; or why it is not.
    pub result: Result<Appended, ErrorCode>,
}

/// Where a batch was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: i64,
    /// First offset still stored in the partition.
    pub log_start: i64,
}

/// What was read from one partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// As the request named it.
    pub topic: TopicRef,
    /// As the request named it.
    pub partition: i32,
    /// First offset stored; -1 if there is no such partition.
    pub log_start: i64,
    /// Offset after the last one stored; -1 if there is no such partition.
    pub log_end: i64,
    /// Batches from the one that holds the requested offset on.
    pub result: Result<Vec<StoredBatch>, ErrorCode>,
}

/// An offset and the timestamp that belongs to it, -1 where none does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedOffset {
    /// The offset; -1 if no record is that new.
    pub offset: i64,
    /// Milliseconds since the epoch; -1 for positions.
    pub timestamp_ms: i64,
}

/// A generation of a group, as sent to one member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Number of the generation; it only grows.
    pub generation: i32,
    /// Class of the protocol.
    pub protocol_type: String,
    /// The protocol that all members support and most prefer.
    pub protocol: String,
    /// Member id of the one that distributes the assignments.
    pub leader: String,
    /// The receiving member.
    pub member_id: String,
    /// For the leader only: every member with its static id and its metadata for the protocol.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// Why a join failed, with the id to join again with, if there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRefused {
    /// The kind.
    pub code: ErrorCode,
    /// The id that was assigned, or the one of the request.
    pub member_id: String,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// The next offset the group wants.
    pub offset: i64,
    /// As committed.
    pub leader_epoch: i32,
    /// As committed.
    pub metadata: String,
}

/// What a group is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupState {
    /// No members.
    Empty,
    /// Waiting for members to join the next generation.
    Joining,
    /// Waiting for the leader's assignments.
    Syncing,
    /// Every member has its assignment.
    Stable,
}

/// A group, seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// What it is doing.
    pub state: GroupState,
    /// Its generation.
    pub generation: i32,
    /// Class of its protocols; empty if it never had a member.
    pub protocol_type: String,
    /// The protocol of this generation; empty if there is none.
    pub protocol: String,
    /// Member id of the leader of this generation.
    pub leader: Option<String>,
    /// Its members by id.
    pub members: Vec<MemberInfo>,
}

/// A member, seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberInfo {
    /// Its id.
    pub id: String,
    /// Its static name, if it has one.
    pub static_id: Option<String>,
    /// The client's own name.
    pub client_id: String,
    /// Where the client is.
    pub client_host: String,
    /// What it said for the protocol of this generation.
    pub metadata: Bytes,
    /// What it was assigned in this generation.
    pub assignment: Bytes,
}

/// Topic, partition, and the result there.
pub type PartitionResults = Vec<(String, i32, Result<(), ErrorCode>)>;

/// The answer to a client's request. Lists have one entry for each entry of the request, in its order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// Topics, each under the name used in the request.
    Metadata(Vec<(TopicRef, Result<TopicInfo, ErrorCode>)>),
    /// By topic.
    CreateTopics(Vec<(String, Result<TopicInfo, Refusal>)>),
    /// By topic; name and id where it was found.
    DeleteTopics(Vec<(TopicRef, Result<TopicInfo, ErrorCode>)>),
    /// By topic.
    CreatePartitions(Vec<(String, Result<(), Refusal>)>),
    /// By topic.
    DescribeConfigs(Vec<(String, Result<Vec<ConfigValue>, ErrorCode>)>),
    /// By partition.
    Produce(Vec<Produced>),
    /// By partition.
    Fetch(Vec<Fetched>),
    /// By partition.
    ListOffsets(Vec<(TopicRef, i32, Result<ListedOffset, ErrorCode>)>),
    /// Id and epoch.
    InitProducerId(Result<(i64, i16), ErrorCode>),
    /// To each member once the generation has begun.
    JoinGroup(Result<Joined, JoinRefused>),
    /// The member's assignment.
    SyncGroup(Result<Bytes, ErrorCode>),
    /// Nothing to say but whether all is well.
    Heartbeat(Result<(), ErrorCode>),
    /// By member: its id, its static id, and whether it was there.
    LeaveGroup(Vec<(String, Option<String>, Result<(), ErrorCode>)>),
    /// By partition.
    CommitOffsets(PartitionResults),
    /// By partition; `None` where nothing is committed.
    FetchOffsets(Vec<(String, i32, Option<Committed>)>),
    /// By partition, unless there is no such group.
    DeleteOffsets(Result<PartitionResults, ErrorCode>),
    /// Without members.
    ListGroups(Vec<GroupInfo>),
    /// By group.
    DescribeGroups(Vec<(String, Result<GroupInfo, ErrorCode>)>),
    /// By group.
    DeleteGroups(Vec<(String, Result<(), ErrorCode>)>),
}
