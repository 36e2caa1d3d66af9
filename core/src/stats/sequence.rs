//! Which messages of one producer have been seen: exact, and small while few are missing.

use std::collections::{BTreeSet, VecDeque};

/// A set of sequence numbers that grows mostly upwards from 0.
///
/// Everything below `base` is in the set, save the `holes`; above it a bitmap tells. While messages arrive
/// roughly in order the bitmap holds a few words; a message that never arrives costs one hole, not a bitmap
/// that grows for the rest of the run.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SequenceSet {
    /// A multiple of 64.
    base: u64,
    holes: BTreeSet<u64>,
    ahead: VecDeque<u64>,
    len: u64,
}

/// Words the bitmap may reach ahead (16 MiB, a hundred million messages) before its oldest word is turned into holes.
const AHEAD_MAX: usize = 1 << 21;

impl SequenceSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `sequence`; false if it was there already.
    #[inline]
    pub fn insert(&mut self, sequence: u64) -> bool {
        let fresh = self.mark(sequence);
        self.len += u64::from(fresh);
        fresh
    }

    fn mark(&mut self, sequence: u64) -> bool {
        if sequence < self.base {
            return self.holes.remove(&sequence);
        }
        let mut word = usize::try_from((sequence - self.base) / 64).unwrap_or(usize::MAX);
        if word >= self.ahead.len() + AHEAD_MAX {
            // No real run jumps this far; a forged header must not make us allocate without bound.
            return false;
        }
        while word >= AHEAD_MAX {
            self.retire_word();
            word -= 1;
        }
        if word >= self.ahead.len() {
            self.ahead.resize(word + 1, 0);
        }
        let bit = 1 << (sequence % 64);
        if self.ahead[word] & bit != 0 {
            return false;
        }
        self.ahead[word] |= bit;
        while self.ahead.front() == Some(&u64::MAX) {
            self.ahead.pop_front();
            self.base += 64;
        }
        true
    }

    /// Moves the base over the oldest word, remembering what it lacks as holes.
    fn retire_word(&mut self) {
        let word = self.ahead.pop_front().unwrap_or(0);
        let base = self.base;
        self.holes.extend((0..64).filter(|bit| word & (1 << bit) == 0).map(|bit| base + bit));
        self.base += 64;
    }

    /// Numbers in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `sequence` is in the set.
    #[must_use]
    pub fn contains(&self, sequence: u64) -> bool {
        if sequence < self.base {
            return !self.holes.contains(&sequence);
        }
        let word = usize::try_from((sequence - self.base) / 64).unwrap_or(usize::MAX);
        self.ahead.get(word).is_some_and(|word| word & (1 << (sequence % 64)) != 0)
    }

    /// stub
    pub fn union_with(&mut self, other: &Self) {
        let end = other.base + 64 * other.ahead.len() as u64;
        (0..end).filter(|n| other.contains(*n)).for_each(|n| {
            self.insert(n);
        });
    }

    /// How many numbers of `self` are not in `other`: of the acknowledged, how many were not received.
    #[must_use]
    pub fn count_missing_in(&self, other: &Self) -> u64 {
        let end = self.base + 64 * self.ahead.len() as u64;
        // Where both sets are full there is nothing to compare; a long run costs no more than its disorder.
        let full = self.base.min(other.base);
        let below = other.holes.range(..full).filter(|hole| self.contains(**hole)).count() as u64;
        below
            + (full..end)
                .step_by(64)
                .map(|at| u64::from((self.word_at(at) & !other.word_at(at)).count_ones()))
                .sum::<u64>()
    }

    /// The 64 numbers from `at`, a multiple of 64, as bits.
    fn word_at(&self, at: u64) -> u64 {
        if at >= self.base {
            let word = usize::try_from((at - self.base) / 64).unwrap_or(usize::MAX);
            return self.ahead.get(word).copied().unwrap_or(0);
        }
        self.holes.range(at..at + 64).fold(u64::MAX, |word, hole| word & !(1 << (hole - at)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn in_order_costs_nothing() {
        let mut set = SequenceSet::new();
        assert!((0..100_000).all(|sequence| set.insert(sequence)));
        assert!(set.ahead.len() <= 1 && set.holes.is_empty());
        assert_eq!(set.len(), 100_000);
        assert!(!set.insert(5), "seen before");
    }

    #[test]
    fn one_loss_far_back_becomes_a_hole() {
        let mut set = SequenceSet::new();
        set.insert(1);
        let far = 64 * AHEAD_MAX as u64 + 10;
        assert!(set.insert(far - 64) && set.insert(far));
        assert!(set.ahead.len() <= AHEAD_MAX);
        assert!(set.contains(1) && !set.contains(0) && set.contains(far));
        assert!(set.insert(0), "late, not lost");
        assert!(!set.insert(0));
    }

    #[test]
    fn an_absurd_jump_does_not_allocate() {
        let mut set = SequenceSet::new();
        assert!(!set.insert(u64::MAX));
        assert!(set.is_empty());
    }

    proptest! {
        /// Against a plain set.
        #[test]
        fn agrees_with_a_plain_set(
            acked in prop::collection::vec(0..2_000_u64, 0..600),
            received in prop::collection::vec(0..2_000_u64, 0..600),
        ) {
            let (mut a, mut ref_a) = (SequenceSet::new(), BTreeSet::new());
            for sequence in acked {
                prop_assert_eq!(a.insert(sequence), ref_a.insert(sequence));
            }
            let (mut b, mut ref_b) = (SequenceSet::new(), BTreeSet::new());
            // Dense below 1,000, so that the base moves.
            for sequence in (0..1_000).chain(received) {
                prop_assert_eq!(b.insert(sequence), ref_b.insert(sequence));
            }
            prop_assert_eq!(a.len(), ref_a.len() as u64);
            prop_assert_eq!(a.count_missing_in(&b), ref_a.difference(&ref_b).count() as u64);
            prop_assert_eq!(b.count_missing_in(&a), ref_b.difference(&ref_a).count() as u64);
        }
    }
}
