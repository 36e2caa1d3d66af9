//! Reading: what a fetch gets now, and the fetches that wait for more.
//!
//! A fetch that finds less than it asked for waits until the records arrive or its deadline passes (a long poll). It is
//! re-evaluated when something is appended to one of its partitions, never by polling.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    Caller,
    message::{ErrorCode, FetchPartition, Fetched},
    topics::{FetchId, PartitionKey, Topics},
};
use omb_machine::time::Instant;

/// What a fetch wants.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) min_bytes: u64,
    pub(super) max_bytes: u64,
    pub(super) partitions: Vec<FetchPartition>,
}

#[derive(Debug)]
pub(super) struct WaitingFetch {
    pub(super) caller: Caller,
    pub(super) wanted: Wanted,
    /// The partitions it watches.
    watched: Vec<PartitionKey>,
    deadline: Instant,
    /// Bytes available to it so far.
    have: u64,
}

/// The fetches that wait.
#[derive(Debug, Default)]
pub(super) struct WaitingFetches {
    by_id: BTreeMap<FetchId, WaitingFetch>,
    deadlines: BTreeSet<(Instant, FetchId)>,
    last: FetchId,
}

impl WaitingFetches {
    /// Parks a fetch that has found `have` bytes so far.
    pub(super) fn wait(&mut self, topics: &mut Topics, caller: Caller, wanted: Wanted, have: u64, deadline: Instant) {
        self.last.0 += 1;
        let id = self.last;
        let keys = wanted.partitions.iter().filter_map(|it| topics.key(&it.topic, it.partition).ok());
        let watched: Vec<PartitionKey> = keys.collect();
        for &key in &watched {
            topics.partition_mut(key).expect("its key was just made").watchers.insert(id);
        }
        self.deadlines.insert((deadline, id));
        self.by_id.insert(id, WaitingFetch { caller, wanted, watched, deadline, have });
    }

    /// Adds `bytes` to the fetches that wait at a partition, and returns those that have enough.
    pub(super) fn appended(&mut self, topics: &mut Topics, key: PartitionKey, bytes: u64) -> Vec<WaitingFetch> {
        let Some(partition) = topics.partition(key) else { return Vec::new() };
        if partition.watchers.is_empty() {
            return Vec::new();
        }
        let mut enough = Vec::new();
        for id in &partition.watchers {
            let waiting = self.by_id.get_mut(id).expect("only waiting fetches watch");
            waiting.have += bytes;
            if waiting.have >= waiting.wanted.min_bytes {
                enough.push(*id);
            }
        }
        enough.into_iter().filter_map(|id| self.take(topics, id)).collect()
    }

    /// Those whose deadline has passed.
    pub(super) fn expired(&mut self, topics: &mut Topics, now: Instant) -> Vec<WaitingFetch> {
        let due: Vec<FetchId> = self.deadlines.range(..=(now, FetchId(u64::MAX))).map(|&(_, id)| id).collect();
        due.into_iter().filter_map(|id| self.take(topics, id)).collect()
    }

    /// Those for which `which` holds.
    pub(super) fn remove_if(
        &mut self,
        topics: &mut Topics,
        which: impl Fn(&WaitingFetch) -> bool,
    ) -> Vec<WaitingFetch> {
        let ids: Vec<FetchId> = self.by_id.iter().filter(|(_, it)| which(it)).map(|(&id, _)| id).collect();
        ids.into_iter().filter_map(|id| self.take(topics, id)).collect()
    }

    /// The earliest deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    fn take(&mut self, topics: &mut Topics, id: FetchId) -> Option<WaitingFetch> {
        let waiting = self.by_id.remove(&id)?;
        self.deadlines.remove(&(waiting.deadline, id));
        for &key in &waiting.watched {
            // The topic may be gone by now.
            if let Some(partition) = topics.partition_mut(key) {
                partition.watchers.remove(&id);
            }
        }
        Some(waiting)
    }
}

impl WaitingFetch {
    pub(super) fn watches(&self, topic: crate::TopicId) -> bool {
        self.watched.iter().any(|key| key.topic == topic)
    }
}

/// What is available to a fetch, in bytes up to `min_bytes`; `None` if one of its partitions cannot be read.
pub(super) fn available(topics: &Topics, wanted: &Wanted) -> Option<u64> {
    let mut bytes = 0;
    for it in &wanted.partitions {
        let log = &topics.partition(readable(topics, it).ok()?).expect("it was found readable").log;
        if bytes < wanted.min_bytes {
            bytes += log.available(it.offset, wanted.min_bytes - bytes);
        }
    }
    Some(bytes)
}

/// Reads what is available.
pub(super) fn gather(topics: &Topics, wanted: &Wanted) -> Vec<Fetched> {
    let mut room = wanted.max_bytes;
    let mut empty = true;
    let read = |it: &FetchPartition| {
        let result = readable(topics, it).map(|key| {
            let log = &topics.partition(key).expect("it was found readable").log;
            let batches = log.read(it.offset, room.min(u64::from(it.max_bytes)), empty);
            empty &= batches.is_empty();
            room = room.saturating_sub(batches.iter().map(|batch| batch.bytes.len() as u64).sum());
            batches
        });
        let log = topics.key(&it.topic, it.partition).ok().and_then(|key| topics.partition(key)).map(|it| &it.log);
        Fetched {
            topic: it.topic.clone(),
            partition: it.partition,
            log_start: log.map_or(-1, |log| log.start()),
            log_end: log.map_or(-1, |log| log.end()),
            result,
        }
    };
    wanted.partitions.iter().map(read).collect()
}

/// The partition, if it exists and stores or is about to store the wanted offset.
pub(super) fn readable(topics: &Topics, it: &FetchPartition) -> Result<PartitionKey, ErrorCode> {
    let key = topics.key(&it.topic, it.partition)?;
    let log = &topics.partition(key).expect("its key was just made").log;
    match (log.start()..=log.end()).contains(&it.offset) {
        true => Ok(key),
        false => Err(ErrorCode::OffsetOutOfRange),
    }
}
