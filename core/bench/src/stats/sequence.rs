//! Which messages of one producer have been seen: exact, and small while few are missing.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::sparse::{push_varint, take_varint};

/// A set of sequence numbers that grows mostly upwards from 0.
///
/// Everything below `base` is in the set, except the `holes`; above it a bitmap decides. While messages arrive roughly
/// in order the bitmap holds a few words; a message that never arrives costs one hole, not a bitmap that grows for the
/// rest of the run.
///
/// Two sets of the same numbers are equal only if they grew alike: the same numbers may be held as holes or as bits. A
/// set travels in few bytes where it is nearly full or nearly empty; whatever arrives is rejected or is a set, at most
/// some 20 times as large in memory as its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
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

    /// How many numbers of `self` are not in `other`: of the acknowledged, how many were not received.
    #[must_use]
    pub fn count_missing_in(&self, other: &Self) -> u64 {
        // Where both sets are full there is nothing to compare, and beyond the end of `other` everything is missing; a
        // long run costs no more than its disorder.
        let full = self.base.min(other.base);
        let both = self.end().min(other.end()).max(full);
        let below = other.holes.range(..full).filter(|hole| self.contains(**hole)).count() as u64;
        let between = (full..both).step_by(64).map(|at| ones(self.word_at(at) & !other.word_at(at))).sum::<u64>();
        below + between + self.count_from(both)
    }

    /// Adds every number of `other`.
    pub fn union_with(&mut self, other: &Self) {
        let (high, low) = if self.base >= other.base { (&*self, other) } else { (other, &*self) };
        // Below the higher base, only what both lack stays a hole.
        let holes = high.holes.iter().copied().filter(|hole| !low.contains(*hole)).collect();
        let end = high.end().max(low.end());
        let words = (high.base..end).step_by(64).map(|at| high.word_at(at) | low.word_at(at));
        *self = Self::of(high.base, holes, words.collect());
    }

    /// The set with these parts, with the highest possible base.
    fn of(mut base: u64, holes: BTreeSet<u64>, mut ahead: VecDeque<u64>) -> Self {
        while ahead.front() == Some(&u64::MAX) {
            ahead.pop_front();
            base += 64;
        }
        let len = base - holes.len() as u64 + ahead.iter().map(|word| ones(*word)).sum::<u64>();
        Self { base, holes, ahead, len }
    }

    /// Above every number in the set; a multiple of 64.
    fn end(&self) -> u64 {
        self.base + 64 * self.ahead.len() as u64
    }

    /// Numbers in the set from `at`, a multiple of 64.
    fn count_from(&self, at: u64) -> u64 {
        let lacking = self.holes.range(at..).count() as u64;
        let skip = usize::try_from(at.saturating_sub(self.base) / 64).unwrap_or(usize::MAX);
        let ahead = self.ahead.iter().skip(skip).map(|word| ones(*word)).sum::<u64>();
        self.base.saturating_sub(at) - lacking + ahead
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

impl FromIterator<u64> for SequenceSet {
    fn from_iter<I: IntoIterator<Item = u64>>(sequences: I) -> Self {
        let mut set = Self::new();
        sequences.into_iter().for_each(|sequence| _ = set.insert(sequence));
        set
    }
}

/// Bits of `word` that are set.
fn ones(word: u64) -> u64 {
    u64::from(word.count_ones())
}

/// The highest base that is accepted: at a million messages a second it takes 140,000 years. Sums with it do not
/// overflow.
const BASE_MAX: u64 = 1 << 62;

/// A set as it travels.
///
/// A hole or a word takes at least one byte, so no few bytes can claim much memory; a word lacking one number takes two.
#[derive(Serialize, Deserialize)]
struct Wire {
    base: u64,
    /// Varints (LEB128): each hole less the least it could be, from 0 upwards.
    holes: Bytes,
    /// Each word of the bitmap: [`EMPTY`], [`FULL`], [`BUT_ONE`] and a bit's place, or [`BITS`] and 8 bytes, the lowest
    /// first. The first word is not full, the last one not empty.
    ahead: Bytes,
}

/// None of the 64 numbers is in the set.
const EMPTY: u8 = 0;
/// All are.
const FULL: u8 = 1;
/// All but one are; its place follows, 0 to 63.
const BUT_ONE: u8 = 2;
/// Their bits follow.
const BITS: u8 = 3;

impl From<SequenceSet> for Wire {
    fn from(set: SequenceSet) -> Self {
        let (mut holes, mut ahead, mut least) = (Vec::new(), Vec::new(), 0);
        for hole in &set.holes {
            push_varint(&mut holes, hole - least);
            least = hole + 1;
        }
        for word in set.ahead {
            match word {
                0 => ahead.push(EMPTY),
                u64::MAX => ahead.push(FULL),
                word if word.count_zeros() == 1 => ahead.extend([BUT_ONE, word.trailing_ones().to_le_bytes()[0]]),
                word => {
                    ahead.push(BITS);
                    ahead.extend(word.to_le_bytes());
                }
            }
        }
        Self { base: set.base, holes: holes.into(), ahead: ahead.into() }
    }
}

/// The bytes are no set of sequence numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASet {
    /// The base is not a multiple of 64, or impossibly high.
    #[error("a set of sequences has an impossible base")]
    Base,
    /// A hole is malformed, or not below the base.
    #[error("a set of sequences has an impossible hole")]
    Hole,
    /// The bitmap is malformed, too long, or should have ended elsewhere.
    #[error("a set of sequences has an impossible bitmap")]
    Bitmap,
}

impl TryFrom<Wire> for SequenceSet {
    type Error = NotASet;

    fn try_from(wire: Wire) -> Result<Self, NotASet> {
        if !wire.base.is_multiple_of(64) || wire.base > BASE_MAX {
            return Err(NotASet::Base);
        }
        let (mut holes, mut rest, mut least) = (Vec::new(), &wire.holes[..], 0_u64);
        while !rest.is_empty() {
            let gap = take_varint(&mut rest).ok_or(NotASet::Hole)?;
            let hole = least.checked_add(gap).filter(|hole| *hole < wire.base).ok_or(NotASet::Hole)?;
            holes.push(hole);
            least = hole + 1;
        }
        let (mut ahead, mut rest) = (VecDeque::new(), &wire.ahead[..]);
        while !rest.is_empty() {
            ahead.push_back(take_word(&mut rest).ok_or(NotASet::Bitmap)?);
        }
        if ahead.len() > AHEAD_MAX || ahead.front() == Some(&u64::MAX) || ahead.back() == Some(&0) {
            return Err(NotASet::Bitmap);
        }
        Ok(Self::of(wire.base, holes.into_iter().collect(), ahead))
    }
}

/// Reads one word of [`Wire::ahead`]; `None` if it is cut short or not in its shortest form.
fn take_word(bytes: &mut &[u8]) -> Option<u64> {
    let (kind, rest) = bytes.split_first()?;
    let (word, rest) = match *kind {
        EMPTY => (0, rest),
        FULL => (u64::MAX, rest),
        BUT_ONE => {
            let (place, rest) = rest.split_first()?;
            (!1_u64.checked_shl(u32::from(*place))?, rest)
        }
        BITS => {
            let (word, rest) = rest.split_first_chunk()?;
            let word = u64::from_le_bytes(*word);
            (Some(word).filter(|word| *word != 0 && word.count_zeros() > 1)?, rest)
        }
        _ => return None,
    };
    *bytes = rest;
    Some(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use omb_machine::encoding;

    /// Most numbers up to about 3,000, so that the base moves; the bitmap's oldest words may become holes.
    fn sets() -> impl Strategy<Value = (SequenceSet, BTreeSet<u64>)> {
        let lacking = prop::collection::btree_set(0..3_000_u64, 0..40);
        let more = prop::collection::vec(0..6_000_u64, 0..60);
        (0..3_000_u64, lacking, more, 0..40_usize).prop_map(|(dense, lacking, more, retired)| {
            let (mut set, mut plain) = (SequenceSet::new(), BTreeSet::new());
            for sequence in (0..dense).filter(|sequence| !lacking.contains(sequence)).chain(more) {
                set.insert(sequence);
                plain.insert(sequence);
            }
            (0..retired.min(set.ahead.len())).for_each(|_| set.retire_word());
            (SequenceSet::of(set.base, set.holes, set.ahead), plain)
        })
    }

    fn numbers(set: &SequenceSet) -> BTreeSet<u64> {
        (0..set.end() + 64).filter(|sequence| set.contains(*sequence)).collect()
    }

    fn decoded(base: u64, holes: &[u8], ahead: &[u8]) -> Result<SequenceSet, encoding::DecodeError> {
        encoding::decode(&encoding::encode(&(base, holes.to_vec(), ahead.to_vec())))
    }

    #[test]
    fn a_nearly_full_set_travels_in_few_bytes() {
        let mut set = SequenceSet::new();
        (0..1_000_000).filter(|sequence| sequence % 100_000 != 77_777).for_each(|sequence| {
            set.insert(sequence);
        });
        (0..set.ahead.len() / 2).for_each(|_| set.retire_word());
        let set = SequenceSet::of(set.base, set.holes, set.ahead);
        let bytes = encoding::encode(&set);
        assert!(bytes.len() < 10_000, "{} bytes", bytes.len());
        assert!(encoding::decode(&bytes) == Ok(set), "what travels arrives");
    }

    #[test]
    fn what_is_no_set_is_refused() {
        assert_eq!(decoded(128, &[5, 0], &[EMPTY, FULL]).map(|set| set.len()), Ok(190));
        let long = vec![EMPTY; AHEAD_MAX];
        for (base, holes, ahead) in [
            (63, &[][..], &[][..]),
            (BASE_MAX + 64, &[], &[]),
            (u64::MAX - 63, &[], &[]),
            (64, &[64], &[]),
            (64, &[63, 0], &[]),
            (64, &[0x80], &[]),
            (64, &[0x81, 0], &[]),
            (64, &[], &[FULL]),
            (64, &[], &[EMPTY]),
            (64, &[], &[BUT_ONE]),
            (64, &[], &[BUT_ONE, 64]),
            (64, &[], &[BITS, 1]),
            (64, &[], &[BITS, 0, 0, 0, 0, 0, 0, 0, 0, FULL]),
            (64, &[], &[4]),
            (64, &[], &[&long[..], &[FULL]].concat()),
        ] {
            assert!(decoded(base, holes, ahead).is_err(), "{base} {holes:?} {:?}", &ahead[..ahead.len().min(9)]);
        }
    }

    #[test]
    fn an_absurd_base_costs_no_time() {
        let mut set = decoded(BASE_MAX, &[3], &[]).expect("a set");
        assert_eq!((set.count_missing_in(&SequenceSet::new()), set.contains(3)), (BASE_MAX - 1, false));
        set.union_with(&[3, 70].into_iter().collect());
        assert_eq!((set.len(), set.insert(u64::MAX)), (BASE_MAX, false));
    }

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

        /// What travels arrives.
        #[test]
        fn a_round_trip_is_exact((set, plain) in sets()) {
            prop_assert_eq!(numbers(&set), plain);
            prop_assert_eq!(&encoding::decode::<SequenceSet>(&encoding::encode(&set)), &Ok(set.clone()));
            let json = serde_json::to_string(&set).expect("numbers");
            prop_assert_eq!(&serde_json::from_str::<SequenceSet>(&json).expect("our own"), &set);
        }

        /// The union is that of plain sets, goes on as one, and leaves nothing to miss.
        #[test]
        fn a_union_is_exact(
            (mut set, mut plain) in sets(), (other, ref_other) in sets(), later in prop::collection::vec(0..7_000_u64, 0..50),
        ) {
            prop_assert_eq!(set.count_missing_in(&other), plain.difference(&ref_other).count() as u64);
            set.union_with(&other);
            plain.extend(&ref_other);
            prop_assert_eq!(set.len(), plain.len() as u64);
            prop_assert_eq!(&numbers(&set), &plain);
            prop_assert_eq!(other.count_missing_in(&set), 0);
            prop_assert_eq!(set.count_missing_in(&other), plain.difference(&ref_other).count() as u64);
            for sequence in later {
                prop_assert_eq!(set.insert(sequence), plain.insert(sequence));
            }
            prop_assert_eq!(&numbers(&set), &plain);
        }

        /// Whatever arrives is rejected, or is a set that works and would be encoded in the same way.
        #[test]
        fn garbage_is_refused(
            base in 0..40_u64,
            holes in prop::collection::vec(any::<u8>(), 0..20),
            ahead in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..60),
            bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let _ = encoding::decode::<SequenceSet>(&bytes);
            if let Ok(set) = decoded(base * 64, &holes, &ahead) {
                prop_assert_eq!(set.len(), numbers(&set).len() as u64);
                prop_assert_eq!(encoding::encode(&set), encoding::encode(&(base * 64, holes, ahead)));
            }
        }
    }
}
