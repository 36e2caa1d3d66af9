//! Batches that arrive twice are stored once: producer ids, epochs and sequence numbers.
//!
//! Source: the idempotent producer of KIP-98. Per partition and producer the last five batches are remembered, as that
//! many may be in flight at once; a batch found among them is acknowledged with its original offset, and one that skips
//! a sequence number is rejected, so that its predecessor can come first.

use std::collections::{BTreeMap, VecDeque};

use crate::message::{ErrorCode, ProducerStamp};

/// Batches remembered per producer and partition: the most that a client keeps in flight when idempotent.
pub const REMEMBERED: usize = 5;

/// Producers remembered per partition. Beyond it the one that was silent longest is forgotten, and treated as new when
/// it comes back.
const PRODUCERS_MAX: usize = 10_000;

/// What to do with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Append,
    /// It is stored already, at this offset.
    Duplicate(i64),
    Refuse(ErrorCode),
}

#[derive(Debug)]
struct Accepted {
    first: i32,
    last: i32,
    base_offset: i64,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    recent: VecDeque<Accepted>,
}

/// What one partition remembers of its producers.
#[derive(Debug, Default)]
pub(super) struct Producers {
    by_id: BTreeMap<i64, Producer>,
}

impl Producers {
    pub(super) fn check(&self, stamp: ProducerStamp, records: u32) -> Verdict {
        // Unknown: it is new, or was forgotten. Any sequence will do, as with Kafka.
        let Some(known) = self.by_id.get(&stamp.id) else { return Verdict::Append };
        if stamp.epoch < known.epoch {
            return Verdict::Refuse(ErrorCode::InvalidProducerEpoch);
        }
        if stamp.epoch > known.epoch {
            return match stamp.sequence {
                0 => Verdict::Append,
                _ => Verdict::Refuse(ErrorCode::OutOfOrderSequence),
            };
        }
        let last = last_sequence(stamp.sequence, records);
        if let Some(same) = known.recent.iter().find(|it| it.first == stamp.sequence && it.last == last) {
            return Verdict::Duplicate(same.base_offset);
        }
        match known.recent.back() {
            Some(newest) if next_sequence(newest.last) != stamp.sequence => {
                Verdict::Refuse(ErrorCode::OutOfOrderSequence)
            }
            _ => Verdict::Append,
        }
    }

    /// Remembers a batch that passed [`Self::check`] and was appended at `base_offset`.
    pub(super) fn accept(&mut self, stamp: ProducerStamp, records: u32, base_offset: i64) {
        let producer = self.by_id.entry(stamp.id).or_insert(Producer { epoch: stamp.epoch, recent: VecDeque::new() });
        if producer.epoch != stamp.epoch {
            producer.epoch = stamp.epoch;
            producer.recent.clear();
        }
        if producer.recent.len() == REMEMBERED {
            producer.recent.pop_front();
        }
        let last = last_sequence(stamp.sequence, records);
        producer.recent.push_back(Accepted { first: stamp.sequence, last, base_offset });
        if self.by_id.len() > PRODUCERS_MAX {
            let newest = |producer: &Producer| producer.recent.back().map(|it| it.base_offset);
            let silent = self.by_id.iter().min_by_key(|(_, producer)| newest(producer)).map(|(&id, _)| id);
            self.by_id.remove(&silent.expect("more than the most is not none"));
        }
    }
}

fn last_sequence(first: i32, records: u32) -> i32 {
    // Sequences live in 0..=i32::MAX and wrap to 0.
    ((i64::from(first) + i64::from(records) - 1) & i64::from(i32::MAX)) as i32
}

fn next_sequence(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stamp(epoch: i16, sequence: i32) -> ProducerStamp {
        ProducerStamp { id: 9, epoch, sequence }
    }

    fn after(accepted: &[(i16, i32, u32, i64)]) -> Producers {
        let mut producers = Producers::default();
        for &(epoch, sequence, records, offset) in accepted {
            assert_eq!(producers.check(stamp(epoch, sequence), records), Verdict::Append);
            producers.accept(stamp(epoch, sequence), records, offset);
        }
        producers
    }

    #[test]
    fn a_repeated_batch_keeps_its_offset() {
        let producers = after(&[(0, 0, 3, 100), (0, 3, 2, 103)]);
        assert_eq!(producers.check(stamp(0, 0), 3), Verdict::Duplicate(100));
        assert_eq!(producers.check(stamp(0, 3), 2), Verdict::Duplicate(103));
        assert_eq!(producers.check(stamp(0, 5), 1), Verdict::Append);
    }

    #[test]
    fn a_gap_is_refused() {
        let producers = after(&[(0, 0, 3, 100)]);
        assert_eq!(producers.check(stamp(0, 4), 1), Verdict::Refuse(ErrorCode::OutOfOrderSequence));
        assert_eq!(producers.check(stamp(0, 0), 1), Verdict::Refuse(ErrorCode::OutOfOrderSequence));
    }

    #[test]
    fn epochs_only_rise_and_begin_at_zero() {
        let producers = after(&[(1, 0, 3, 100)]);
        assert_eq!(producers.check(stamp(0, 3), 1), Verdict::Refuse(ErrorCode::InvalidProducerEpoch));
        assert_eq!(producers.check(stamp(2, 3), 1), Verdict::Refuse(ErrorCode::OutOfOrderSequence));
        assert_eq!(producers.check(stamp(2, 0), 1), Verdict::Append);
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let producers = after(&[(0, i32::MAX - 1, 2, 0)]);
        assert_eq!(producers.check(stamp(0, 0), 1), Verdict::Append);
        let producers = after(&[(0, i32::MAX - 1, 4, 0)]);
        assert_eq!(producers.check(stamp(0, 2), 1), Verdict::Append);
    }

    proptest! {
        /// However batches are repeated within the window, each is appended once, in order.
        #[test]
        fn each_batch_once(sends in prop::collection::vec(0_i32..12, 1..200)) {
            let mut producers = Producers::default();
            let mut stored: Vec<i32> = Vec::new();
            for sequence in sends {
                match producers.check(stamp(0, sequence), 1) {
                    // Only the very first may begin anywhere.
                    Verdict::Append => {
                        prop_assert!(stored.last().is_none_or(|&last| last + 1 == sequence));
                        producers.accept(stamp(0, sequence), 1, stored.len() as i64);
                        stored.push(sequence);
                    }
                    Verdict::Duplicate(offset) => prop_assert_eq!(stored[offset as usize], sequence),
                    Verdict::Refuse(code) => {
                        prop_assert_eq!(code, ErrorCode::OutOfOrderSequence);
                        let recent = stored.len().saturating_sub(REMEMBERED);
                        prop_assert!(!stored[recent..].contains(&sequence));
                        prop_assert_ne!(stored.last().map(|last| last + 1), Some(sequence));
                    }
                }
            }
        }
    }
}
