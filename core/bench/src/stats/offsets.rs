//! Which offsets of one partition have been read: a few ranges, since a partition is read in order.

use serde::{Deserialize, Serialize};

/// A set of offsets as ranges, in order and apart from each other.
///
/// It holds at most [`OffsetRanges::RANGES_MAX`] of them; where there would be more, the newest one also covers the gap
/// before it. Each rebalance adds one at most, so no real run gets there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct OffsetRanges(Vec<(u64, u64)>);

/// What arrived is not an [`OffsetRanges`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("ranges of offsets are out of order, or too many")]
pub struct NotRanges;

impl OffsetRanges {
    /// Most ranges that are kept apart.
    pub const RANGES_MAX: usize = 1_024;

    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `offset`; false if it was there already.
    #[inline]
    pub fn insert(&mut self, offset: u64) -> bool {
        match self.0.last_mut() {
            Some(last) if offset == last.1.wrapping_add(1) => {
                last.1 = offset;
                true
            }
            Some(last) if offset <= last.1 => self.insert_below(offset),
            _ => {
                self.append(offset, offset);
                true
            }
        }
    }

    /// Adds a range above all others.
    fn append(&mut self, from: u64, to: u64) {
        let full = self.0.len() == Self::RANGES_MAX;
        match self.0.last_mut() {
            Some(last) if full || from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => self.0.push((from, to)),
        }
    }

    fn insert_below(&mut self, offset: u64) -> bool {
        let at = self.0.partition_point(|(_, to)| *to < offset);
        let (from, _) = self.0[at];
        if from <= offset {
            return false;
        }
        let before = at.checked_sub(1).filter(|before| self.0[*before].1 + 1 == offset);
        match (before, from == offset + 1) {
            (Some(before), true) => {
                self.0[before].1 = self.0[at].1;
                self.0.remove(at);
            }
            (Some(before), false) => self.0[before].1 = offset,
            (None, false) if self.0.len() < Self::RANGES_MAX => self.0.insert(at, (offset, offset)),
            (None, _) => self.0[at].0 = offset,
        }
        true
    }

    /// Offsets in the set; saturates.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, (from, to)| sum.saturating_add((to - from).saturating_add(1)))
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds every offset of `other`.
    pub fn union_with(&mut self, other: &Self) {
        let mut both: Vec<(u64, u64)> = self.0.iter().chain(&other.0).copied().collect();
        both.sort_unstable();
        self.0.clear();
        both.into_iter().for_each(|(from, to)| self.append(from, to));
    }
}

impl FromIterator<u64> for OffsetRanges {
    fn from_iter<I: IntoIterator<Item = u64>>(offsets: I) -> Self {
        let mut ranges = Self::new();
        offsets.into_iter().for_each(|offset| _ = ranges.insert(offset));
        ranges
    }
}

impl From<OffsetRanges> for Vec<(u64, u64)> {
    fn from(ranges: OffsetRanges) -> Self {
        ranges.0
    }
}

impl TryFrom<Vec<(u64, u64)>> for OffsetRanges {
    type Error = NotRanges;

    fn try_from(ranges: Vec<(u64, u64)>) -> Result<Self, NotRanges> {
        let sound = ranges.iter().all(|(from, to)| from <= to && *to < u64::MAX);
        let apart = ranges.windows(2).all(|pair| pair[0].1.saturating_add(1) < pair[1].0);
        if sound && apart && ranges.len() <= Self::RANGES_MAX { Ok(Self(ranges)) } else { Err(NotRanges) }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_arrives_is_checked() {
        for wrong in [vec![(2, 1)], vec![(0, 1), (2, 3)], vec![(4, 5), (0, 1)], vec![(0, u64::MAX)]] {
            assert_eq!(OffsetRanges::try_from(wrong), Err(NotRanges));
        }
        assert_eq!(OffsetRanges::try_from(vec![(0, 1), (3, 3)]).map(|ranges| ranges.len()), Ok(3));
    }

    #[test]
    fn too_many_ranges_close_a_gap() {
        let mut ranges = OffsetRanges::new();
        (0..2_000).for_each(|n| assert!(ranges.insert(n * 2)));
        assert_eq!(ranges.0.len(), OffsetRanges::RANGES_MAX);
        assert_eq!(ranges.0.last(), Some(&(2_046, 3_998)));
        assert!(ranges.insert(1) && ranges.insert(2_041));
        assert_eq!(OffsetRanges::try_from(Vec::from(ranges.clone())), Ok(ranges));
    }

    proptest! {
        /// As a plain set would.
        #[test]
        fn ranges_are_a_set(one in prop::collection::vec(0..60_u64, 0..80), other in prop::collection::vec(0..60_u64, 0..80)) {
            let fill = |offsets: &[u64]| {
                let (mut ranges, mut set) = (OffsetRanges::new(), BTreeSet::new());
                for offset in offsets {
                    assert_eq!(ranges.insert(*offset), set.insert(*offset));
                }
                (ranges, set)
            };
            let ((mut ranges, set), (more, others)) = (fill(&one), fill(&other));
            prop_assert_eq!(ranges.len(), set.len() as u64);
            prop_assert_eq!(OffsetRanges::try_from(Vec::from(ranges.clone())), Ok(ranges.clone()));
            ranges.union_with(&more);
            prop_assert_eq!(ranges.len(), set.union(&others).count() as u64);
            prop_assert_eq!(OffsetRanges::try_from(Vec::from(ranges.clone())), Ok(ranges));
        }
    }
}
