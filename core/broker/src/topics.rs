//! The topics, and which names and configurations are allowed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    ConnId,
    idempotence::Producers,
    log::Log,
    message::{ConfigValue, ErrorCode, NewTopic, Refusal, TopicId, TopicInfo, TopicRef},
};
use omb_machine::time::Instant;

/// Longest name of a topic, in bytes: with a partition number it still fits a file name, as in Kafka.
const NAME_MAX: usize = 249;

/// Partitions that one topic may have. Far more than one machine can use, far less than its memory holds.
const PARTITIONS_MAX: i32 = 100_000;

/// Numbers the fetches that wait, in order of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FetchId(pub(super) u64);

/// What was dropped to make room, since the broker began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// How many batches.
    pub batches: u64,
    /// How many records were in them.
    pub records: u64,
    /// How many bytes they took, overhead included.
    pub bytes: u64,
}

/// How far a connection has read in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) offset: i64,
    /// Deadline of the fetch that named it.
    pub(super) renewed: Instant,
}

/// The keys a topic's configuration may have, and their defaults.
///
/// These are the topic configurations of Kafka 4.1, so that a driver file written for it is accepted. The defaults
/// describe what this broker does: nothing expires by time, and sizes are bounded by the broker's capacity.
const CONFIGS: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("compression.gzip.level", "-1"),
    ("compression.lz4.level", "9"),
    ("compression.type", "producer"),
    ("compression.zstd.level", "3"),
    ("delete.retention.ms", "86400000"),
    ("file.delete.delay.ms", "60000"),
    ("flush.messages", "9223372036854775807"),
    ("flush.ms", "9223372036854775807"),
    ("follower.replication.throttled.replicas", ""),
    ("index.interval.bytes", "4096"),
    ("leader.replication.throttled.replicas", ""),
    ("local.retention.bytes", "-2"),
    ("local.retention.ms", "-2"),
    ("max.compaction.lag.ms", "9223372036854775807"),
    ("max.message.bytes", "104857600"),
    ("message.timestamp.after.max.ms", "9223372036854775807"),
    ("message.timestamp.before.max.ms", "9223372036854775807"),
    (TIMESTAMP_TYPE, "CreateTime"),
    ("min.cleanable.dirty.ratio", "0.5"),
    ("min.compaction.lag.ms", "0"),
    ("min.insync.replicas", "1"),
    ("preallocate", "false"),
    ("remote.log.copy.disable", "false"),
    ("remote.log.delete.on.disable", "false"),
    ("remote.storage.enable", "false"),
    ("retention.bytes", "-1"),
    ("retention.ms", "-1"),
    ("segment.bytes", "1073741824"),
    ("segment.index.bytes", "10485760"),
    ("segment.jitter.ms", "0"),
    ("segment.ms", "604800000"),
    ("unclean.leader.election.enable", "false"),
];

const TIMESTAMP_TYPE: &str = "message.timestamp.type";

#[derive(Debug, Default)]
pub(super) struct Partition {
    pub(super) log: Log,
    pub(super) producers: Producers,
    /// How far each connection has read.
    pub(super) readers: BTreeMap<ConnId, Position>,
    /// Fetches that wait for records here.
    pub(super) watchers: BTreeSet<FetchId>,
    pub(super) dropped: Dropped,
}

#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: String,
    pub(super) partitions: Vec<Partition>,
    configs: BTreeMap<String, String>,
}

/// A partition of a topic that exists, or did when the key was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartitionKey {
    pub(super) topic: TopicId,
    pub(super) index: u32,
}

#[derive(Debug, Default)]
pub(super) struct Topics {
    by_id: BTreeMap<TopicId, Topic>,
    ids: BTreeMap<String, TopicId>,
    created: u64,
}

impl Topics {
    /// Creates a topic, or only validates it. Ids are drawn from `seed` and the number of topics so far.
    pub(super) fn create(&mut self, new: NewTopic, validate_only: bool, seed: u64) -> Result<TopicInfo, Refusal> {
        let partitions = self.check(&new)?;
        // Version and variant bits as in a random UUID; never zero, which means "no id" on the wire.
        let bits = (u128::from(seed) << 64) | u128::from(self.created + 1);
        let id = TopicId(bits & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62));
        let info = TopicInfo { name: new.name.clone(), id, partitions };
        if !validate_only {
            self.created += 1;
            let partitions = (0..partitions).map(|_| Partition::default()).collect();
            self.ids.insert(new.name.clone(), id);
            self.by_id.insert(id, Topic { name: new.name, partitions, configs: new.configs });
        }
        Ok(info)
    }

    fn check(&self, new: &NewTopic) -> Result<i32, Refusal> {
        let NewTopic { name, partitions, replication_factor, configs } = new;
        check_name(name)?;
        if self.ids.contains_key(name) {
            return Err(Refusal::new(ErrorCode::TopicAlreadyExists, format!("Topic '{name}' already exists.")));
        }
        let partitions = match *partitions {
            -1 => 1,
            given => check_partitions(given)?,
        };
        if !matches!(replication_factor, -1 | 1) {
            return Err(Refusal::new(
                ErrorCode::InvalidReplicationFactor,
                format!(
                    "Replication factor {replication_factor}: the embedded broker is one broker, so it can only be 1."
                ),
            ));
        }
        for (key, value) in configs {
            if !CONFIGS.iter().any(|(known, _)| known == key) {
                return Err(Refusal::new(ErrorCode::InvalidConfig, format!("Unknown topic config name: {key}")));
            }
            if key == TIMESTAMP_TYPE && value != "CreateTime" {
                return Err(Refusal::new(
                    ErrorCode::InvalidConfig,
                    format!(
                        "{TIMESTAMP_TYPE}={value}: the embedded broker never looks into records and knows CreateTime only."
                    ),
                ));
            }
        }
        Ok(partitions)
    }

    /// Raises the number of a topic's partitions to `total`.
    pub(super) fn grow(&mut self, name: &str, total: i32, validate_only: bool) -> Result<(), Refusal> {
        let unknown = || Refusal::from(ErrorCode::UnknownTopicOrPartition);
        let id = self.ids.get(name).ok_or_else(unknown)?;
        let topic = self.by_id.get_mut(id).ok_or_else(unknown)?;
        let total = check_partitions(total)? as usize;
        if total <= topic.partitions.len() {
            let has = topic.partitions.len();
            return Err(Refusal::new(
                ErrorCode::InvalidPartitions,
                format!("Topic '{name}' has {has} partitions; {total} would not be an increase."),
            ));
        }
        if !validate_only {
            topic.partitions.resize_with(total, Partition::default);
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, id: TopicId) -> Option<Topic> {
        let topic = self.by_id.remove(&id)?;
        self.ids.remove(&topic.name);
        Some(topic)
    }

    pub(super) fn id(&self, topic: &TopicRef) -> Result<TopicId, ErrorCode> {
        match topic {
            TopicRef::Name(name) => self.ids.get(name).copied().ok_or(ErrorCode::UnknownTopicOrPartition),
            TopicRef::Id(id) if self.by_id.contains_key(id) => Ok(*id),
            TopicRef::Id(_) => Err(ErrorCode::UnknownTopicId),
        }
    }

    /// The key of a partition that exists.
    pub(super) fn key(&self, topic: &TopicRef, partition: i32) -> Result<PartitionKey, ErrorCode> {
        let topic = self.id(topic)?;
        let index = u32::try_from(partition).map_err(|_| ErrorCode::UnknownTopicOrPartition)?;
        let key = PartitionKey { topic, index };
        self.partition(key).map(|_| key).ok_or(ErrorCode::UnknownTopicOrPartition)
    }

    pub(super) fn partition(&self, key: PartitionKey) -> Option<&Partition> {
        self.by_id.get(&key.topic)?.partitions.get(key.index as usize)
    }

    pub(super) fn partition_mut(&mut self, key: PartitionKey) -> Option<&mut Partition> {
        self.by_id.get_mut(&key.topic)?.partitions.get_mut(key.index as usize)
    }

    pub(super) fn named(&self, name: &str) -> Option<&Topic> {
        self.by_id.get(self.ids.get(name)?)
    }

    pub(super) fn info(&self, id: TopicId) -> Option<TopicInfo> {
        let topic = self.by_id.get(&id)?;
        Some(TopicInfo { name: topic.name.clone(), id, partitions: topic.partitions.len() as i32 })
    }

    /// Every topic, by name.
    pub(super) fn infos(&self) -> impl Iterator<Item = TopicInfo> {
        self.ids.values().filter_map(|&id| self.info(id))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TopicId, &Topic)> {
        self.by_id.iter().map(|(&id, topic)| (id, topic))
    }

    /// Every configuration value of a topic, defaults included, by key.
    pub(super) fn configs(&self, name: &str) -> Result<Vec<ConfigValue>, ErrorCode> {
        let topic = self.named(name).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let value = |&(key, default): &(&str, &str)| {
            let given = topic.configs.get(key);
            ConfigValue {
                key: key.to_owned(),
                value: given.map_or(default, String::as_str).to_owned(),
                default: given.is_none(),
            }
        };
        Ok(CONFIGS.iter().map(value).collect())
    }
}

fn check_name(name: &str) -> Result<(), Refusal> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let complaint = match name {
        "" => "is empty",
        "." | ".." => "cannot be '.' or '..'",
        _ if name.len() > NAME_MAX => "is longer than 249 characters",
        _ if !name.chars().all(legal) => "contains a character other than ASCII alphanumerics, '.', '_' and '-'",
        _ => return Ok(()),
    };
    Err(Refusal::new(ErrorCode::InvalidTopic, format!("Topic name '{}' {complaint}.", name.escape_debug())))
}

fn check_partitions(partitions: i32) -> Result<i32, Refusal> {
    match partitions {
        1..=PARTITIONS_MAX => Ok(partitions),
        ..1 => Err(Refusal::new(ErrorCode::InvalidPartitions, "Number of partitions must be larger than 0.")),
        _ => Err(Refusal::new(
            ErrorCode::InvalidPartitions,
            format!("{partitions} partitions are more than the {PARTITIONS_MAX} that a topic may have."),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str, partitions: i32, replication_factor: i16, configs: &[(&str, &str)]) -> NewTopic {
        let configs = configs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        NewTopic { name: name.to_owned(), partitions, replication_factor, configs }
    }

    #[track_caller]
    fn refuses(topic: NewTopic, code: ErrorCode, words: &str) {
        let mut topics = Topics::default();
        topics.create(new("taken", 1, 1, &[]), false, 1).expect("a good topic");
        let refusal = topics.create(topic, false, 1).expect_err("a bad topic");
        assert_eq!(refusal.code, code);
        assert!(refusal.text.contains(words), "{}", refusal.text);
        assert_eq!(topics.infos().count(), 1, "a refused topic leaves nothing behind");
    }

    #[test]
    fn says_what_is_wrong_with_a_topic() {
        refuses(new("", 1, 1, &[]), ErrorCode::InvalidTopic, "empty");
        refuses(new("a b", 1, 1, &[]), ErrorCode::InvalidTopic, "'a b'");
        refuses(new(&"x".repeat(250), 1, 1, &[]), ErrorCode::InvalidTopic, "249");
        refuses(new("taken", 1, 1, &[]), ErrorCode::TopicAlreadyExists, "'taken'");
        refuses(new("t", 0, 1, &[]), ErrorCode::InvalidPartitions, "larger than 0");
        refuses(new("t", 1, 3, &[]), ErrorCode::InvalidReplicationFactor, "3");
        refuses(new("t", 1, 1, &[("retention", "1")]), ErrorCode::InvalidConfig, "retention");
        refuses(new("t", 1, 1, &[(TIMESTAMP_TYPE, "LogAppendTime")]), ErrorCode::InvalidConfig, "CreateTime");
    }

    #[test]
    fn a_topic_created_again_is_another() {
        let mut topics = Topics::default();
        let first = topics.create(new("t", 2, -1, &[("segment.bytes", "7")]), false, 1).expect("created");
        assert_eq!(topics.grow("t", 5, false), Ok(()));
        assert_eq!(topics.grow("t", 5, false).expect_err("no increase").code, ErrorCode::InvalidPartitions);
        assert!(topics.configs("t").expect("there").iter().any(|it| it.value == "7" && !it.default));
        topics.delete(first.id).expect("it is there");
        let second = topics.create(new("t", -1, 1, &[]), false, 1).expect("created again");
        assert_ne!(first.id, second.id);
        assert_eq!(second.partitions, 1);
        assert_eq!(topics.id(&TopicRef::Id(first.id)), Err(ErrorCode::UnknownTopicId));
    }
}
