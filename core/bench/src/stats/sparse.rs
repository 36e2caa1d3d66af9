//! Counts as they travel: a dense histogram is 0.3 MB, of which a worker fills a few thousand buckets.
//!
//! ```text
//! Totals ─▶ SparseTotals ─▶ (bincode, the network) ─▶ SparseTotals, checked ─▶ Totals::add_sparse
//! ```
//!
//! What was decoded has been checked: it fits the dense form, and adding it neither panics nor allocates.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    id::SubscriptionId,
    stats::{
        latency::{HIGHEST, Latency},
        tally::{Acknowledgements, Arrivals, Departures, Seen, Totals, tallies},
    },
};

/// The buckets of a [`Latency`] that hold samples.
///
/// Packed as varints (LEB128, shortest form), buckets ascending: twice the bucket's count, never 0, and one more if
/// empty buckets lie before it, whose number then follows. A run of buckets with few samples takes 1 byte for each.
/// A bucket's count ends at 2⁶³ - 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct SparseLatency {
    clamped: u64,
    /// Written as a list of numbers would be, but in one piece.
    packed: Bytes,
}

impl From<&Latency> for SparseLatency {
    fn from(latency: &Latency) -> Self {
        let (mut packed, mut least) = (Vec::new(), 0);
        let mut put = |bucket: u64, count| {
            push_pair(&mut packed, bucket - least, count);
            least = bucket + 1;
        };
        // Above the last bucket lies only what another's bytes brought in: it counts there, as in `Latency::record`.
        let (last, mut in_last) = (bucket_of(HIGHEST), 0_u64);
        for step in latency.histogram().iter_recorded() {
            match bucket_of(step.value_iterated_to()) {
                bucket if bucket < last => put(bucket, step.count_at_value()),
                _ => in_last = in_last.saturating_add(step.count_at_value()),
            }
        }
        if in_last > 0 {
            put(last, in_last);
        }
        Self { clamped: latency.clamped(), packed: packed.into() }
    }
}

impl SparseLatency {
    /// Samples that were above [`HIGHEST`].
    #[must_use]
    pub fn clamped(&self) -> u64 {
        self.clamped
    }

    /// Length of the packed buckets, in bytes.
    #[must_use]
    pub fn packed_len(&self) -> usize {
        self.packed.len()
    }

    /// The same samples, dense.
    #[must_use]
    pub fn to_latency(&self) -> Latency {
        let mut latency = Latency::new();
        latency.add_sparse(self);
        latency
    }
}

impl Latency {
    /// Adds all samples of `other`: what [`Self::merge`] of its dense form would do. Sums saturate.
    pub fn add_sparse(&mut self, other: &SparseLatency) {
        for (bucket, count) in Pairs::of(&other.packed).map_while(Result::ok) {
            self.record_n(value_of(bucket), count);
        }
        self.add_clamped(other.clamped);
    }
}

/// The sum of many [`SparseLatency`]s: adding one costs a few nanoseconds for each of its buckets, where a histogram
/// takes ten times as long.
#[derive(Clone, Debug, Default)]
struct LatencySum {
    clamped: u64,
    /// By bucket; none until something is added.
    counts: Vec<u64>,
}

impl LatencySum {
    fn add(&mut self, other: &SparseLatency) {
        if self.counts.is_empty() && !other.packed.is_empty() {
            self.counts = vec![0; usize::try_from(bucket_of(HIGHEST) + 1).expect("some 40,000")];
        }
        for (bucket, count) in Pairs::of(&other.packed).map_while(Result::ok) {
            if let Some(sum) = usize::try_from(bucket).ok().and_then(|bucket| self.counts.get_mut(bucket)) {
                *sum = sum.saturating_add(count);
            }
        }
        self.clamped = self.clamped.saturating_add(other.clamped);
    }

    fn to_latency(&self) -> Latency {
        let mut latency = Latency::new();
        for (bucket, count) in (0..).zip(&self.counts).filter(|(_, count)| **count > 0) {
            latency.record_n(value_of(bucket), *count);
        }
        latency.add_clamped(self.clamped);
        latency
    }
}

/// The bytes are no [`SparseLatency`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSparse {
    /// A number is cut short, longer than a `u64`, or not in its shortest form.
    #[error("a number of a sparse histogram is malformed")]
    Number,
    /// A bucket lies above the one of [`HIGHEST`].
    #[error("a sparse histogram reaches above the highest latency")]
    TooHigh,
    /// A bucket without samples is listed.
    #[error("a sparse histogram lists an empty bucket")]
    Empty,
    /// All counts together exceed a `u64`.
    #[error("a sparse histogram counts more than a number can hold")]
    TooMany,
}

/// A [`SparseLatency`] as it arrives.
#[derive(Deserialize)]
struct Unchecked {
    clamped: u64,
    packed: Bytes,
}

impl TryFrom<Unchecked> for SparseLatency {
    type Error = NotSparse;

    fn try_from(Unchecked { clamped, packed }: Unchecked) -> Result<Self, NotSparse> {
        let mut sum = 0_u64;
        for pair in Pairs::of(&packed) {
            sum = sum.checked_add(pair?.1).ok_or(NotSparse::TooMany)?;
        }
        Ok(Self { clamped, packed })
    }
}

/// Pairs of bucket and count, read from packed bytes. After an error it goes no further.
struct Pairs<'a> {
    rest: &'a [u8],
    /// The least that the next bucket can be.
    least: u64,
}

impl<'a> Pairs<'a> {
    fn of(packed: &'a [u8]) -> Self {
        Self { rest: packed, least: 0 }
    }

    #[inline]
    fn read(&mut self) -> Result<(u64, u64), NotSparse> {
        let number = take_varint(&mut self.rest).ok_or(NotSparse::Number)?;
        let count = number >> 1;
        let gap = match number & 1 {
            0 => 0,
            _ => take_varint(&mut self.rest).filter(|gap| *gap > 0).ok_or(NotSparse::Number)?,
        };
        let bucket = self.least.saturating_add(gap);
        if bucket > bucket_of(HIGHEST) {
            return Err(NotSparse::TooHigh);
        }
        if count == 0 {
            return Err(NotSparse::Empty);
        }
        self.least = bucket + 1;
        Ok((bucket, count))
    }
}

impl Iterator for Pairs<'_> {
    type Item = Result<(u64, u64), NotSparse>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let pair = self.read();
        if pair.is_err() {
            self.rest = &[];
        }
        Some(pair)
    }
}

/// Buckets per power of two, as an HdrHistogram of 3 digits from 1 has them; below twice this each value has its own.
const HALF: u64 = 1_024;

/// The number of the bucket in which `value` counts; they rise together, without gaps.
const fn bucket_of(value: u64) -> u64 {
    // Bits beyond the 11 that tell 2,048 values apart.
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(11);
    shift as u64 * HALF + (value >> shift)
}

/// The lowest value that counts in `bucket`, which is at most [`HIGHEST`]'s.
const fn value_of(bucket: u64) -> u64 {
    let shift = (bucket / HALF).saturating_sub(1);
    (bucket - shift * HALF) << shift
}

/// Appends a bucket's `count` and the `gap` of empty buckets before it.
fn push_pair(packed: &mut Vec<u8>, gap: u64, count: u64) {
    push_varint(packed, count.min(u64::MAX >> 1) << 1 | u64::from(gap > 0));
    if gap > 0 {
        push_varint(packed, gap);
    }
}

/// Appends `number` in 7-bit groups, the lowest first.
pub(super) fn push_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

/// Reads what [`push_varint`] wrote; `None` if it is cut short, too long, or not in its shortest form.
#[inline]
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    if *first < 0x80 {
        *bytes = rest;
        return Some(u64::from(*first));
    }
    take_long_varint(bytes)
}

fn take_long_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        let (group, shift) = (u64::from(byte & 0x7f), 7 * at);
        if shift == 63 && group > 1 {
            return None;
        }
        number |= group << shift;
        if *byte < 0x80 {
            *bytes = &bytes[at + 1..];
            return (*byte != 0).then_some(number);
        }
    }
    None
}

/// Makes the twin of a tally, and every way between the two. Taking the tally apart without `..` keeps a field that
/// one of them has and the other lacks from compiling.
macro_rules! sparse_twin {
    ($tally:ident, $twin:ident, $sum:ident { counts: $($count:ident),* ; latencies: $($latency:ident),* }) => {
        #[doc = concat!("[`", stringify!($tally), "`] as they travel.")]
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct $twin {
            $(
                #[doc = concat!("As [`", stringify!($tally), "::", stringify!($count), "`].")]
                pub $count: u64,
            )*
            $(
                #[doc = concat!("As [`", stringify!($tally), "::", stringify!($latency), "`].")]
                pub $latency: SparseLatency,
            )*
        }

        #[doc = concat!("The sum of many [`", stringify!($twin), "`].")]
        #[derive(Clone, Debug, Default)]
        struct $sum {
            $($count: u64,)*
            $($latency: LatencySum,)*
        }

        impl $sum {
            fn add(&mut self, other: &$twin) {
                let $twin { $($count,)* $($latency,)* } = other;
                $(self.$count = self.$count.saturating_add(*$count);)*
                $(self.$latency.add($latency);)*
            }

            fn to_tally(&self) -> $tally {
                let Self { $($count,)* $($latency,)* } = self;
                $tally { $($count: *$count,)* $($latency: $latency.to_latency(),)* }
            }
        }

        impl From<&$tally> for $twin {
            fn from(tally: &$tally) -> Self {
                let $tally { $($count,)* $($latency,)* } = tally;
                Self { $($count: *$count,)* $($latency: $latency.into(),)* }
            }
        }

        impl $tally {
            /// Adds another tally's counts and samples. Sums saturate.
            pub fn add_sparse(&mut self, other: &$twin) {
                let $twin { $($count,)* $($latency,)* } = other;
                $(self.$count = self.$count.saturating_add(*$count);)*
                $(self.$latency.add_sparse($latency);)*
            }
        }
    };
}

tallies!(sparse_twin);

/// [`Totals`] as they travel: a few kB for each histogram in use, instead of 1.35 MB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SparseTotals {
    /// Messages that left.
    pub departures: SparseDepartures,
    /// What became of them.
    pub acknowledgements: SparseAcknowledgements,
    /// Messages that arrived.
    pub arrivals: SparseArrivals,
    /// By subscription.
    pub seen: BTreeMap<SubscriptionId, Seen>,
}

impl From<&Totals> for SparseTotals {
    fn from(totals: &Totals) -> Self {
        let Totals { departures, acknowledgements, arrivals, seen } = totals;
        Self {
            departures: departures.into(),
            acknowledgements: acknowledgements.into(),
            arrivals: arrivals.into(),
            seen: seen.clone(),
        }
    }
}

impl SparseTotals {
    /// The same counts and samples, dense.
    #[must_use]
    pub fn to_totals(&self) -> Totals {
        let mut totals = Totals::default();
        totals.add_sparse(self);
        totals
    }
}

impl Totals {
    /// Adds another worker's totals: what [`Self::merge`] of their dense form would do. Sums saturate.
    pub fn add_sparse(&mut self, other: &SparseTotals) {
        let SparseTotals { departures, acknowledgements, arrivals, seen } = other;
        self.departures.add_sparse(departures);
        self.acknowledgements.add_sparse(acknowledgements);
        self.arrivals.add_sparse(arrivals);
        for (subscription, seen) in seen {
            self.seen.entry(*subscription).or_default().merge(seen);
        }
    }
}

/// The sum of many [`SparseTotals`]: what adding each to one [`Totals`] would give, in a third of the time.
#[derive(Clone, Debug, Default)]
pub struct TotalsSum {
    departures: DeparturesSum,
    acknowledgements: AcknowledgementsSum,
    arrivals: ArrivalsSum,
    seen: BTreeMap<SubscriptionId, Seen>,
}

impl TotalsSum {
    /// Adds one worker's totals. Sums saturate.
    pub fn add(&mut self, other: &SparseTotals) {
        let SparseTotals { departures, acknowledgements, arrivals, seen } = other;
        self.departures.add(departures);
        self.acknowledgements.add(acknowledgements);
        self.arrivals.add(arrivals);
        for (subscription, seen) in seen {
            self.seen.entry(*subscription).or_default().merge(seen);
        }
    }

    /// The sum.
    #[must_use]
    pub fn into_totals(self) -> Totals {
        Totals {
            departures: self.departures.to_tally(),
            acknowledgements: self.acknowledgements.to_tally(),
            arrivals: self.arrivals.to_tally(),
            seen: self.seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use omb_machine::encoding;

    /// Latencies of every size, also above the highest.
    fn samples() -> impl Strategy<Value = Vec<u64>> {
        let one = (0..64_u32, any::<u64>()).prop_map(|(shift, any)| any >> shift);
        prop::collection::vec(one, 0..300)
    }

    fn of(samples: &[u64]) -> Latency {
        let mut latency = Latency::new();
        samples.iter().for_each(|sample| latency.record(*sample));
        latency
    }

    /// Totals whose every number is drawn from `samples` and `numbers`.
    fn totals(samples: &[u64], numbers: [u32; 16]) -> Totals {
        let number = |at: usize| u64::from(numbers[at]);
        let every = |first: usize| of(&samples.iter().skip(first).step_by(5).copied().collect::<Vec<_>>());
        let seen = Seen {
            received: number(10),
            distinct: number(11),
            duplicated: number(12),
            reread: number(14),
            reordered: number(13),
        };
        Totals {
            departures: Departures { attempted: number(0), skipped: number(1), schedule_error: every(0) },
            acknowledgements: Acknowledgements {
                acked: number(2),
                acked_bytes: number(3),
                failed: number(4),
                refused: number(4),
                from_intended: every(1),
                from_sent: every(2),
            },
            arrivals: Arrivals {
                received: number(5),
                received_bytes: number(6),
                reread: number(15),
                corrupted: number(7),
                headerless: number(8),
                before_intended: number(9),
                from_intended: every(3),
                from_sent: every(4),
            },
            seen: BTreeMap::from([(SubscriptionId(numbers[0] % 3), seen), (SubscriptionId(7), seen)]),
        }
    }

    fn decoded(clamped: u64, packed: &[u8]) -> Result<SparseLatency, encoding::DecodeError> {
        encoding::decode(&encoding::encode(&(clamped, packed.to_vec())))
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let pairs = |pairs: &[(u64, u64)]| {
            let mut packed = Vec::new();
            pairs.iter().for_each(|(gap, count)| push_pair(&mut packed, *gap, *count));
            packed
        };
        let last = bucket_of(HIGHEST);
        assert_eq!(decoded(0, &pairs(&[(last, 1)])).map(|sparse| sparse.to_latency()), Ok(of(&[HIGHEST])));
        for refused in [
            pairs(&[(last + 1, 1)]),
            pairs(&[(last, 1), (0, 1)]),
            pairs(&[(5, 1), (u64::MAX, 1)]),
            pairs(&[(5, 0)]),
            pairs(&[(5, u64::MAX), (5, u64::MAX), (5, 2)]),
            vec![3, 0],
            vec![5],
            vec![5, 0x80],
            vec![5, 0x81, 0],
            [vec![5], vec![0xff; 9], vec![2]].concat(),
            [vec![5], vec![0xff; 20]].concat(),
        ] {
            assert!(decoded(0, &refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn sums_saturate() {
        let mut packed = Vec::new();
        push_pair(&mut packed, 5, u64::MAX);
        push_pair(&mut packed, 0, u64::MAX);
        let huge = decoded(u64::MAX, &packed).expect("every number fits");
        let mut latency = of(&[5, u64::MAX]);
        latency.add_sparse(&huge);
        latency.add_sparse(&huge);
        latency.merge(&huge.to_latency());
        assert_eq!((latency.count(), latency.clamped()), (u64::MAX, u64::MAX));
        let mut sparse = SparseTotals::default();
        sparse.departures.attempted = u64::MAX;
        sparse.seen.insert(SubscriptionId(1), Seen { received: u64::MAX, ..Seen::default() });
        let mut totals = sparse.to_totals();
        totals.add_sparse(&sparse);
        assert_eq!((totals.departures.attempted, totals.seen[&SubscriptionId(1)].received), (u64::MAX, u64::MAX));
    }

    #[test]
    fn a_worker_takes_kilobytes() {
        let latency = of(&(0..10_000).map(|n| 3_000_000 + n * 700).collect::<Vec<_>>());
        let sparse = SparseLatency::from(&latency);
        assert!(sparse.packed_len() < 3_500, "{} bytes", sparse.packed_len());
    }

    proptest! {
        /// Our numbers of buckets are the histogram's own buckets.
        #[test]
        fn buckets_are_the_histograms(shift in 22..64_u32, any in any::<u64>()) {
            let (value, latency) = ((any >> shift).min(HIGHEST), Latency::new());
            let lowest = latency.histogram().lowest_equivalent(value);
            prop_assert_eq!(value_of(bucket_of(value)), lowest);
            prop_assert_eq!(bucket_of(latency.histogram().next_non_equivalent(value)), bucket_of(value) + 1);
        }

        /// There and back, and through the network, nothing changes.
        #[test]
        fn a_round_trip_is_exact(samples in samples(), numbers in any::<[u32; 16]>()) {
            let totals = totals(&samples, numbers);
            let sparse = SparseTotals::from(&totals);
            prop_assert_eq!(&sparse.to_totals(), &totals);
            prop_assert_eq!(&encoding::decode::<SparseTotals>(&encoding::encode(&sparse)), &Ok(sparse.clone()));
            let json = serde_json::to_string(&sparse).expect("numbers");
            prop_assert_eq!(&serde_json::from_str::<SparseTotals>(&json).expect("our own"), &sparse);
        }

        /// Merged sparse is merged dense.
        #[test]
        fn merging_is_exact(
            one in samples(), other in samples(), numbers in any::<[u32; 16]>(), others in any::<[u32; 16]>(),
        ) {
            let (mut dense, other) = (totals(&one, numbers), totals(&other, others));
            let mut sparse = dense.clone();
            dense.merge(&other);
            let mut sum = TotalsSum::default();
            [&sparse, &other].iter().for_each(|it| sum.add(&SparseTotals::from(*it)));
            sparse.add_sparse(&SparseTotals::from(&other));
            prop_assert_eq!(&sparse, &dense);
            prop_assert_eq!(sum.into_totals(), dense);
        }

        /// Whatever arrives is refused, or is what would have been sent for it.
        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..60)) {
            let _ = encoding::decode::<SparseTotals>(&bytes);
            if let Ok(sparse) = decoded(3, &bytes) {
                prop_assert_eq!(SparseLatency::from(&sparse.to_latency()), sparse);
            }
        }
    }
}
