//! What may be dropped, and what may not.
//!
//! One cap holds for the whole broker. When it is reached, the oldest batches that are no longer needed make room; if
//! that is not enough, produce requests wait (see [`crate::Broker`]): unread records are never dropped. Long before,
//! batches that every reader of a partition has read are dropped, beyond [`crate::Config::read_kept`]: a broker that is
//! read as fast as it is written holds that much however long it runs. A group that begins later finds the rest.
//!
//! **What is unread.** In each partition, everything from the lowest *live position* on. These are live:
//!
//! 1. The latest offset that an open connection has asked for in a fetch of the partition: what that very fetch
//!    returned still counts as unread, since its reply may be lost. It ceases to be live when the connection has
//!    continued to fetch other partitions for [`POSITION_IDLE`] without naming this one, or when a group that subscribes to the
//!    topic began a new generation that long ago and the connection has not named the partition since: then the partition
//!    belongs to another member, and the old one's position would block the broker for ever. A connection that merely
//!    pauses keeps its position. Several readers that share a connection share one position, the latest.
//! 2. The offset that a group with members has committed in the partition. A commit older than [`COMMIT_FRESH`] counts
//!    only while the partition has fewer live connections than groups with members (see 3): a group that reads but no
//!    longer commits does not block the broker for ever.
//! 3. The start of the partition, while it has fewer live connections than there are groups with members that subscribe
//!    to its topic, one of which has committed nothing in it: that group is still about to begin.
//!
//! A partition without any live position has no reader: its oldest batches are dropped in order of age, together with
//! those that every reader has read. Members that do not say what they subscribe to count in 2 only.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    time::Duration,
};

use crate::{
    ConnId,
    groups::Groups,
    message::TopicRef,
    topics::{Dropped, Partition, PartitionKey, Position, Topics},
};
use omb_machine::time::Instant;

/// When a position that is not renewed, although its owner has moved on, ceases to be live.
///
/// Long enough to outlast a rebalance or a full client queue (librdkafka fetches a full partition again after 1 s).
pub const POSITION_IDLE: Duration = Duration::from_secs(10);

/// How old a commit may be and still count while its partition is being read. Six times the usual interval of
/// automatic commits (5 s).
pub const COMMIT_FRESH: Duration = Duration::from_secs(30);

/// How often waiting producers are checked although nothing was read: positions go stale by time alone.
pub(super) const RECHECK: Duration = Duration::from_secs(1);

/// Shortest time between two searches for read batches: each covers all partitions.
pub(super) const TRIM_PAUSE: Duration = Duration::from_millis(100);

/// Dropping continues for this share of the capacity beyond what is needed, so that a full broker need not search all
/// partitions for every batch.
const SLACK_SHARE: u64 = 64;

/// The lowest live position of every partition that has one. `fetched` returns the deadline of each connection's latest
/// fetch.
pub(super) fn floors(
    now: Instant,
    topics: &Topics,
    groups: &Groups,
    fetched: impl Fn(ConnId) -> Option<Instant>,
) -> BTreeMap<PartitionKey, i64> {
    let interests = interests(topics, groups);
    let none = Interest::default();
    let mut floors = BTreeMap::new();
    for (topic, it) in topics.iter() {
        for (index, partition) in it.partitions.iter().enumerate() {
            let key = PartitionKey { topic, index: index as u32 };
            let interest = interests.get(&key).unwrap_or(&none);
            if let Some(floor) = floor(now, partition, interest, &fetched) {
                floors.insert(key, floor);
            }
        }
    }
    floors
}

/// What the groups with members need of a partition.
#[derive(Debug, Default)]
struct Interest {
    /// How many of them subscribe to its topic.
    groups: usize,
    /// When the newest of their generations began.
    begun: Instant,
    commits: Vec<(i64, Instant)>,
    /// How many of the subscribers have committed here.
    committed: usize,
}

fn interests(topics: &Topics, groups: &Groups) -> BTreeMap<PartitionKey, Interest> {
    let mut interests: BTreeMap<PartitionKey, Interest> = BTreeMap::new();
    for living in groups.living() {
        let mut subscribed: Vec<&str> = living.topics().collect();
        subscribed.sort_unstable();
        subscribed.dedup();
        for name in &subscribed {
            let (Ok(topic), Some(it)) = (topics.id(&TopicRef::from(*name)), topics.named(name)) else { continue };
            for index in 0..it.partitions.len() {
                let interest = interests.entry(PartitionKey { topic, index: index as u32 }).or_default();
                interest.groups += 1;
                interest.begun = interest.begun.max(living.begun);
            }
        }
        for (topic, partition, offset, at) in living.offsets() {
            let Ok(key) = topics.key(&TopicRef::from(topic), partition) else { continue };
            let interest = interests.entry(key).or_default();
            interest.commits.push((offset, at));
            interest.committed += usize::from(subscribed.binary_search(&topic).is_ok());
        }
    }
    interests
}

fn floor(
    now: Instant,
    partition: &Partition,
    interest: &Interest,
    fetched: &impl Fn(ConnId) -> Option<Instant>,
) -> Option<i64> {
    let live = |(conn, position): (&ConnId, &Position)| {
        let moved_on = fetched(*conn).is_some_and(|latest| latest.since(position.renewed) >= POSITION_IDLE);
        let reassigned = position.renewed < interest.begun && now.since(interest.begun) >= POSITION_IDLE;
        (!moved_on && !reassigned).then_some(position.offset)
    };
    let readers: Vec<i64> = partition.readers.iter().filter_map(live).collect();
    let awaited = readers.len() < interest.groups.max(1);
    let commits = interest.commits.iter().filter(|(_, at)| awaited || now.since(*at) < COMMIT_FRESH);
    let commits = commits.map(|&(offset, _)| offset);
    let beginning =
        (readers.len() < interest.groups && interest.committed < interest.groups).then(|| partition.log.start());
    readers.iter().copied().chain(commits).chain(beginning).min()
}

/// Drops the oldest batches below the `floors`, over all partitions, until `need` bytes are free, or as far as
/// possible.
///
/// `stored` is the broker's total, and is updated. Returns what was dropped.
pub(super) fn make_room(
    topics: &mut Topics,
    floors: &BTreeMap<PartitionKey, i64>,
    stored: &mut u64,
    capacity: u64,
    need: u64,
) -> Dropped {
    let goal = capacity.saturating_sub(need).saturating_sub(capacity / SLACK_SHARE);
    let unwanted = |key: PartitionKey, end: i64| floors.get(&key).is_none_or(|&floor| end <= floor);
    drop_oldest(topics, stored, goal, unwanted)
}

/// Drops the oldest batches that all readers of their partitions have read, until `kept` bytes are stored, or as far as
/// possible. Partitions without readers are left alone.
pub(super) fn drop_read(
    topics: &mut Topics,
    floors: &BTreeMap<PartitionKey, i64>,
    stored: &mut u64,
    kept: u64,
) -> Dropped {
    drop_oldest(topics, stored, kept, |key, end| floors.get(&key).is_some_and(|&floor| end <= floor))
}

/// Drops the oldest of the batches that are no longer needed (by partition and the offset at their end) until `goal`
/// bytes are stored.
fn drop_oldest(
    topics: &mut Topics,
    stored: &mut u64,
    goal: u64,
    unwanted: impl Fn(PartitionKey, i64) -> bool,
) -> Dropped {
    let mut dropped = Dropped::default();
    let droppable = |key: PartitionKey, partition: &Partition| {
        let (order, end) = partition.log.oldest()?;
        unwanted(key, end).then_some(Reverse((order, key)))
    };
    let mut oldest = BinaryHeap::new();
    for (topic, it) in topics.iter() {
        for (index, partition) in it.partitions.iter().enumerate() {
            oldest.extend(droppable(PartitionKey { topic, index: index as u32 }, partition));
        }
    }
    while *stored > goal {
        let Some(Reverse((_, key))) = oldest.pop() else { break };
        let partition = topics.partition_mut(key).expect("no topic goes while room is made");
        let before = partition.log.bytes();
        let batch = partition.log.drop_oldest().expect("its oldest batch was just seen");
        let bytes = before - partition.log.bytes();
        *stored -= bytes;
        for count in [&mut dropped, &mut partition.dropped] {
            count.batches += 1;
            count.records += u64::from(batch.records);
            count.bytes += bytes;
        }
        oldest.extend(droppable(key, partition));
    }
    dropped
}
