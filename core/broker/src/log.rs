//! A partition's log: record batches, opaque and in order, with gaps in neither offsets nor bytes.

use std::collections::VecDeque;

use crate::message::{ListedOffset, NewBatch, OffsetSpec, StoredBatch};

/// What a batch costs beside its bytes: its entry here and the allocator's share. Counted, so that a million batches of
/// one small record each stay within the capacity too.
pub const BATCH_OVERHEAD: u64 = 128;

/// Epoch under which everything is appended: leadership never changes hands here.
pub const LEADER_EPOCH: i32 = 0;

/// Entries for which memory is kept however short the log is.
const ENTRIES_FEW: usize = 64;

#[derive(Debug)]
struct Entry {
    batch: StoredBatch,
    /// When it was appended, counted over the whole broker: decides which of two partitions has the older batch.
    order: u64,
}

/// The batches of one partition.
#[derive(Debug, Default)]
pub struct Log {
    entries: VecDeque<Entry>,
    start: i64,
    end: i64,
    bytes: u64,
}

/// Bytes that storing `batch` takes.
#[must_use]
pub fn cost(batch: &NewBatch) -> u64 {
    batch.bytes.len() as u64 + BATCH_OVERHEAD
}

impl Log {
    /// First offset stored; [`Self::end`] if nothing is.
    #[must_use]
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The offset that the next record will get. Also how many records were ever appended.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Bytes stored, with [`BATCH_OVERHEAD`] for every batch.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The stored batches, oldest first.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = &StoredBatch> {
        self.entries.iter().map(|entry| &entry.batch)
    }

    /// Appends, and returns the offset of the first record. `order` counts the appends of the whole broker.
    pub(super) fn append(&mut self, batch: NewBatch, order: u64) -> i64 {
        let base_offset = self.end;
        self.bytes += cost(&batch);
        self.end += i64::from(batch.records);
        let NewBatch { records, max_timestamp_ms, bytes, .. } = batch;
        let batch = StoredBatch { base_offset, records, max_timestamp_ms, leader_epoch: LEADER_EPOCH, bytes };
        self.entries.push_back(Entry { batch, order });
        base_offset
    }

    /// Batches from the one that holds `offset` on: as many whole ones as fit into `max_bytes`, but always the first if
    /// `at_least_one`.
    pub(super) fn read(&self, offset: i64, max_bytes: u64, at_least_one: bool) -> Vec<StoredBatch> {
        let mut room = max_bytes;
        let mut batches = Vec::new();
        for entry in self.entries.range(self.position(offset)..) {
            let size = entry.batch.bytes.len() as u64;
            if size > room && !(batches.is_empty() && at_least_one) {
                break;
            }
            room = room.saturating_sub(size);
            batches.push(entry.batch.clone());
        }
        batches
    }

    /// Bytes stored from the batch that holds `offset` on, counted up to `enough`.
    pub(super) fn available(&self, offset: i64, enough: u64) -> u64 {
        let mut bytes = 0;
        for entry in self.entries.range(self.position(offset)..) {
            bytes += entry.batch.bytes.len() as u64;
            if bytes >= enough {
                break;
            }
        }
        bytes
    }

    /// Answers one question about offsets.
    pub(super) fn list(&self, spec: OffsetSpec) -> ListedOffset {
        let position = |offset| ListedOffset { offset, timestamp_ms: -1 };
        let batch =
            |batch: &StoredBatch| ListedOffset { offset: batch.base_offset, timestamp_ms: batch.max_timestamp_ms };
        match spec {
            OffsetSpec::Earliest => position(self.start),
            OffsetSpec::Latest => position(self.end),
            OffsetSpec::MaxTimestamp => {
                self.batches().max_by_key(|stored| stored.max_timestamp_ms).map_or(position(-1), batch)
            }
            // Timestamps are set by producers and in no order, so every batch is checked.
            OffsetSpec::AtTimestamp(ms) => {
                self.batches().find(|stored| stored.max_timestamp_ms >= ms).map_or(position(-1), batch)
            }
        }
    }

    /// When the oldest batch was appended, and the offset after it.
    pub(super) fn oldest(&self) -> Option<(u64, i64)> {
        self.entries.front().map(|entry| (entry.order, entry.batch.end_offset()))
    }

    /// Drops the oldest batch.
    pub(super) fn drop_oldest(&mut self) -> Option<StoredBatch> {
        let Entry { batch, .. } = self.entries.pop_front()?;
        self.bytes -= batch.bytes.len() as u64 + BATCH_OVERHEAD;
        self.start = batch.end_offset();
        // A log that once held a backlog releases its memory.
        if self.entries.capacity() > ENTRIES_FEW && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.capacity() / 2);
        }
        Some(batch)
    }

    /// Index of the batch that holds `offset`, or of the first one after it.
    fn position(&self, offset: i64) -> usize {
        self.entries.partition_point(|entry| entry.batch.end_offset() <= offset)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn batch(records: u32, size: usize) -> NewBatch {
        NewBatch { records, max_timestamp_ms: 0, producer: None, bytes: Bytes::from(vec![7; size]) }
    }

    fn bases(batches: &[StoredBatch]) -> Vec<i64> {
        batches.iter().map(|batch| batch.base_offset).collect()
    }

    #[test]
    fn reads_several_whole_batches_from_the_middle_of_one() {
        let mut log = Log::default();
        for order in 0..4 {
            log.append(batch(10, 100), order);
        }
        assert_eq!(bases(&log.read(15, 250, true)), [10, 20]);
        assert_eq!(bases(&log.read(15, 50, true)), [10], "the first comes whatever its size");
        assert_eq!(bases(&log.read(15, 50, false)), [0_i64; 0], "unless something came before it");
        assert_eq!(bases(&log.read(40, 250, true)), [0_i64; 0], "nothing at the end");
        assert_eq!(log.available(15, u64::MAX), 300);
        assert_eq!(log.available(15, 1), 100);
    }

    #[test]
    fn finds_offsets_by_time_at_the_grain_of_batches() {
        let mut log = Log::default();
        for (order, ms) in [50, 90, 70].into_iter().enumerate() {
            log.append(NewBatch { max_timestamp_ms: ms, ..batch(10, 1) }, order as u64);
        }
        let at = |offset, timestamp_ms| ListedOffset { offset, timestamp_ms };
        assert_eq!(log.list(OffsetSpec::AtTimestamp(51)), at(10, 90));
        assert_eq!(log.list(OffsetSpec::AtTimestamp(91)), at(-1, -1));
        assert_eq!(log.list(OffsetSpec::MaxTimestamp), at(10, 90));
        assert_eq!(log.list(OffsetSpec::Earliest), at(0, -1));
        assert_eq!(log.list(OffsetSpec::Latest), at(30, -1));
    }

    proptest! {
        /// Offsets stay contiguous and the bytes add up, whatever is appended and dropped.
        #[test]
        fn offsets_are_contiguous(steps in prop::collection::vec(prop::option::of((1_u32..50, 0_usize..200)), 1..80)) {
            let mut log = Log::default();
            let mut ever = 0;
            for (order, step) in steps.into_iter().enumerate() {
                match step {
                    Some((records, size)) => {
                        prop_assert_eq!(log.append(batch(records, size), order as u64), ever);
                        ever += i64::from(records);
                    }
                    None => drop(log.drop_oldest()),
                }
                let mut next = log.start();
                for stored in log.batches() {
                    prop_assert_eq!(stored.base_offset, next);
                    next = stored.end_offset();
                }
                prop_assert_eq!((next, log.end()), (ever, ever));
                let bytes: u64 = log.batches().map(|stored| stored.bytes.len() as u64 + BATCH_OVERHEAD).sum();
                prop_assert_eq!(log.bytes(), bytes);
                for offset in log.start()..log.end() {
                    let read = log.read(offset, 0, true);
                    prop_assert!(read[0].base_offset <= offset && offset < read[0].end_offset());
                }
            }
        }
    }
}
