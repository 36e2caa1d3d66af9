//! A latency histogram that cannot overflow, merges exactly and subtracts exactly.

use std::sync::LazyLock;

use bytes::Bytes;
use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer, V2Serializer},
};
use serde::{Deserialize, Serialize};

/// Highest latency that is distinguished: one hour, in nanoseconds. Higher samples count as this and in `clamped`.
pub const HIGHEST: u64 = 3_600_000_000_000;

/// Significant decimal digits: a reported value is at most 0.1 % off.
pub const DIGITS: u8 = 3;

/// Latencies in nanoseconds, with 3 significant digits from 1 ns to one hour.
///
/// Of constant size (about 0.3 MB) from the first sample on, so that recording does not allocate; an empty one is free.
///
/// ```
/// use omb_bench::stats::latency::Latency;
///
/// let mut total = Latency::new();
/// (1..=1_000).for_each(|micros| total.record(micros * 1_000));
/// let close = |nanos: u64, wanted: u64| nanos.abs_diff(wanted) <= wanted / 1_000;
/// assert!(close(total.at(0.50), 500_000) && close(total.at(0.99), 990_000) && close(total.max(), 1_000_000));
///
/// // Worker reports are cumulative: what came between two of them is the difference, exactly.
/// let earlier = total.clone();
/// total.record(5_000_000);
/// let since = total.since(&earlier).expect("the older state of the same histogram");
/// assert_eq!(since.count(), 1);
///
/// // And parts merge into the whole again, whatever the order.
/// let mut merged = since;
/// merged.merge(&earlier);
/// assert_eq!(merged, total);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Latency {
    histogram: Option<Histogram<u64>>,
    clamped: u64,
}

/// Shown to readers before the first sample.
static EMPTY: LazyLock<Histogram<u64>> = LazyLock::new(histogram);

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, HIGHEST, DIGITS).expect("the bounds are constants that fit")
}

impl PartialEq for Latency {
    fn eq(&self, other: &Self) -> bool {
        self.clamped == other.clamped && self.histogram() == other.histogram()
    }
}

impl Latency {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[inline]
    fn filled(&mut self) -> &mut Histogram<u64> {
        self.histogram.get_or_insert_with(histogram)
    }

    /// Counts one sample. Above [`HIGHEST`] it counts there, and as clamped.
    #[inline]
    pub fn record(&mut self, nanos: u64) {
        if nanos > HIGHEST {
            self.clamped += 1;
        }
        self.filled().saturating_record(nanos.min(HIGHEST));
    }

    /// Adds all samples of `other`.
    pub fn merge(&mut self, other: &Self) {
        if let Some(other) = &other.histogram {
            self.filled().add(other).expect("all latencies have the same bounds");
        }
        self.add_clamped(other.clamped);
    }

    /// Counts `count` samples of `nanos`, at most [`HIGHEST`]. Sums saturate.
    #[inline]
    pub(super) fn record_n(&mut self, nanos: u64, count: u64) {
        self.filled().saturating_record_n(nanos, count);
    }

    /// Counts as clamped what another histogram had clamped. The sum saturates.
    pub(super) fn add_clamped(&mut self, clamped: u64) {
        self.clamped = self.clamped.saturating_add(clamped);
    }

    /// The samples that came since `earlier`, an older state of the same cumulative histogram.
    ///
    /// # Errors
    /// If `earlier` holds a sample that `self` does not: then it is not an older state of it.
    pub fn since(&self, earlier: &Self) -> Result<Self, NotCumulative> {
        let clamped = self.clamped.checked_sub(earlier.clamped).ok_or(NotCumulative)?;
        let mut since = Self { clamped, ..self.clone() };
        if earlier.count() > 0 {
            let earlier = earlier.histogram();
            since.histogram.as_mut().ok_or(NotCumulative)?.subtract(earlier).map_err(|_| NotCumulative)?;
        }
        Ok(since)
    }

    /// Samples counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram().len()
    }

    /// Samples above [`HIGHEST`].
    #[must_use]
    pub fn clamped(&self) -> u64 {
        self.clamped
    }

    /// Value in nanoseconds that a share `quantile` (0.0 to 1.0) of the samples does not exceed; 0 if empty.
    #[must_use]
    pub fn at(&self, quantile: f64) -> u64 {
        self.histogram().value_at_quantile(quantile)
    }

    /// Highest sample, in nanoseconds to 3 digits; 0 if empty.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.histogram().max()
    }

    /// Mean in nanoseconds; 0 if empty.
    #[must_use]
    pub fn mean(&self) -> f64 {
        self.histogram().mean()
    }

    /// The histogram itself, for readers that iterate over it.
    #[must_use]
    pub fn histogram(&self) -> &Histogram<u64> {
        self.histogram.as_ref().unwrap_or_else(|| &EMPTY)
    }

    /// Share of the samples (0.0 to 1.0) above `nanos`; 0 if empty.
    #[must_use]
    pub fn share_above(&self, nanos: u64) -> f64 {
        if self.count() == 0 { 0.0 } else { 1.0 - self.histogram().quantile_below(nanos) }
    }

    /// HdrHistogram V2 bytes (not deflated) and nothing else: what Java's `encodeIntoByteBuffer` writes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(self.histogram(), &mut bytes).expect("writing to memory does not fail");
        bytes
    }

    /// Reads what [`Self::encode`] wrote; any histogram of compatible values is converted sample by sample.
    ///
    /// # Errors
    /// If the bytes are no HdrHistogram V2.
    pub fn decode(mut bytes: &[u8], clamped: u64) -> Result<Self, UnreadableHistogram> {
        let read: Histogram<u64> =
            Deserializer::new().deserialize(&mut bytes).map_err(|error| UnreadableHistogram(error.to_string()))?;
        // Our own: nothing to convert, and no second array of counts to fill.
        if (read.low(), read.high(), read.sigfig()) == (1, HIGHEST, DIGITS) {
            return Ok(Self { histogram: Some(read).filter(|read| !read.is_empty()), clamped });
        }
        let mut latency = Self::new();
        latency.filled().add(&read).map_err(|error| UnreadableHistogram(error.to_string()))?;
        latency.clamped = clamped;
        Ok(latency)
    }
}

/// The two histograms are not an older and a newer state of the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cumulative histogram went backwards")]
pub struct NotCumulative;

/// The bytes are not a histogram.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unreadable histogram: {0}")]
pub struct UnreadableHistogram(String);

/// A histogram as it travels: V2 bytes and the count of clamped samples.
#[derive(Serialize, Deserialize)]
struct Wire {
    /// Written as a list of numbers would be, but in one piece.
    bytes: Bytes,
    clamped: u64,
}

impl Serialize for Latency {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire { bytes: self.encode().into(), clamped: self.clamped }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Latency {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Wire::deserialize(deserializer)?;
        Self::decode(&wire.bytes, wire.clamped).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(samples: &[u64]) -> Latency {
        let mut latency = Latency::new();
        samples.iter().for_each(|sample| latency.record(*sample));
        latency
    }

    #[test]
    fn beyond_the_highest_is_counted_not_lost() {
        let latency = of(&[1, HIGHEST, HIGHEST + 1, u64::MAX]);
        assert_eq!((latency.count(), latency.clamped()), (4, 2));
        assert!(latency.max() >= HIGHEST);
    }

    /// Upstream's have other bounds and 5 digits; once read, they are recorded into and merged like our own.
    #[test]
    fn others_are_taken_over() {
        let mut other = Histogram::<u64>::new_with_bounds(1, 60_000_000, 5).expect("bounds that fit");
        [1_000, 2_000, 60_000_000].iter().for_each(|value| other.saturating_record(*value));
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&other, &mut bytes).expect("writing to memory does not fail");
        let mut latency = Latency::decode(&bytes, 1).expect("a histogram");
        assert_eq!((latency.count(), latency.clamped(), latency.at(0.5)), (3, 1, 2_000));
        latency.record(HIGHEST);
        latency.merge(&of(&[HIGHEST]));
        assert_eq!(latency.count(), 5);
        let mut own = Latency::decode(&of(&[7]).encode(), 0).expect("our own");
        own.record(HIGHEST + 1);
        assert_eq!(own, of(&[7, HIGHEST + 1]));
    }

    #[test]
    fn going_backwards_is_refused() {
        assert_eq!(of(&[5]).since(&of(&[7])), Err(NotCumulative));
    }

    proptest! {
        /// Differences over any cut add up to the whole, and so do merged parts.
        #[test]
        fn parts_add_up(samples in prop::collection::vec(0..=2 * HIGHEST, 0..200), cut in 0..200_usize) {
            let cut = cut.min(samples.len());
            let (all, first, second) = (of(&samples), of(&samples[..cut]), of(&samples[cut..]));
            let difference = all.since(&first).expect("first is an older state");
            prop_assert_eq!(difference.count(), second.count());
            prop_assert_eq!(difference.clamped(), second.clamped());
            let mut merged = first;
            merged.merge(&difference);
            prop_assert_eq!(merged.encode(), all.encode());
        }

        /// What travels arrives.
        #[test]
        fn encoding_is_exact(samples in prop::collection::vec(0..=2 * HIGHEST, 0..50)) {
            let latency = of(&samples);
            let back = Latency::decode(&latency.encode(), latency.clamped()).expect("our own bytes");
            prop_assert_eq!(back.encode(), latency.encode());
            prop_assert_eq!(back.clamped(), latency.clamped());
            let json = serde_json::to_string(&latency).expect("numbers");
            prop_assert_eq!(&serde_json::from_str::<Latency>(&json).expect("our own"), &latency);
            // One piece of bytes is encoded as the list of numbers it is.
            let list = omb_machine::encoding::encode(&(latency.encode(), latency.clamped()));
            prop_assert_eq!(omb_machine::encoding::encode(&latency), list);
        }
    }
}
