//! Durations in a few fixed buckets: all that a metric needs, for two additions each.

use std::time::Duration;

use crate::time::nanos;

/// Upper bounds of the buckets, inclusive, and the same in seconds as Prometheus writes them. From an fsync on flash to
/// the longest that a client waits by default.
pub const BOUNDS: [(Duration, &str); 15] = [
    (Duration::from_micros(500), "0.0005"),
    (Duration::from_millis(1), "0.001"),
    (Duration::from_micros(2_500), "0.0025"),
    (Duration::from_millis(5), "0.005"),
    (Duration::from_millis(10), "0.01"),
    (Duration::from_millis(25), "0.025"),
    (Duration::from_millis(50), "0.05"),
    (Duration::from_millis(100), "0.1"),
    (Duration::from_millis(250), "0.25"),
    (Duration::from_millis(500), "0.5"),
    (Duration::from_secs(1), "1"),
    (Duration::from_millis(2_500), "2.5"),
    (Duration::from_secs(5), "5"),
    (Duration::from_secs(10), "10"),
    (Duration::from_secs(60), "60"),
];

/// Counts of durations by bucket, and their sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// By bucket, not cumulative; the last one is unbounded.
    counts: [u64; BOUNDS.len() + 1],
    sum_nanos: u64,
}

impl Buckets {
    /// Adds one.
    pub fn record(&mut self, took: Duration) {
        self.counts[BOUNDS.partition_point(|(bound, _)| *bound < took)] += 1;
        self.sum_nanos = self.sum_nanos.saturating_add(nanos(took));
    }

    /// The number of durations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum; 584 years at most.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum_nanos)
    }

    /// Each bound in seconds, as text, and how many are at or below it.
    pub fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let sums = self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        BOUNDS.iter().map(|(_, text)| *text).zip(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_and_are_written_as_they_are() {
        assert!(BOUNDS.is_sorted_by(|(a, _), (b, _)| a < b));
        for (bound, text) in BOUNDS {
            assert_eq!(text.parse::<f64>().map(Duration::from_secs_f64), Ok(bound));
        }
    }

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let mut buckets = Buckets::default();
        for micros in [0, 500, 501, 60_000_000, 60_000_001] {
            buckets.record(Duration::from_micros(micros));
        }
        let below: Vec<u64> = buckets.cumulative().map(|(_, count)| count).collect();
        assert_eq!((below[0], below[1], below[13], below[14]), (2, 3, 3, 4));
        assert_eq!((buckets.count(), buckets.sum()), (5, Duration::from_micros(120_001_002)));
        buckets.record(Duration::MAX);
        assert_eq!(buckets.sum(), Duration::from_nanos(u64::MAX), "it saturates");
    }
}
