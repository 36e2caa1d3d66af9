//! A run's periods, packed while they are not read.
//!
//! ```text
//! Period ─▶ Frame (plain) + Totals ─▶ bincode, histograms as HdrHistogram V2 ─▶ deflated ─▶ Periods
//! Period ◀─────────────────── one at a time, exactly as it came ◀──────────────────────────────┘
//! ```
//!
//! A [`Latency`](crate::stats::latency::Latency) holds 270 kB of counts, most of them 0, so a period takes 1.35 MB, and
//! an hour of them 4.9 GB. Measured, with latencies of five decades for the wide ones:
//!
//! | load | a period | packed | an hour, packed |
//! | --- | --- | --- | --- |
//! | 10,000 msg/s | 18 kB encoded | 9.0 kB | 32 MB |
//! | 1,000,000 msg/s | 46 kB | 31 kB | 113 MB |
//! | 10,000 msg/s, wide | 56 kB | 21 kB | 76 MB |
//! | 1,000,000 msg/s, wide | 118 kB | 76 kB | 276 MB |
//!
//! While walking over them, one at a time is unpacked.

use std::{
    fmt,
    io::{Read, Write},
    time::Duration,
};

use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};

use crate::{
    protocol::event::Process,
    result::{Period, Phase},
    stats::tally::Totals,
};
use omb_machine::{encoding, time::WallTime};

/// The periods of a run, in order.
#[derive(Clone, Default, PartialEq)]
pub struct Periods(Vec<Packed>);

/// One period, packed. Equal totals pack to equal bytes, so comparing needs no unpacking.
#[derive(Clone, PartialEq)]
struct Packed {
    frame: Frame,
    totals: Box<[u8]>,
}

/// The numbers of a period that are not in its totals: what can be read without unpacking. A record uses the names
/// given here, with times in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    pub phase: Phase,
    #[serde(rename = "at_ns", with = "whole_nanos")]
    pub at: Duration,
    #[serde(rename = "elapsed_ns", with = "whole_nanos")]
    pub elapsed: Duration,
    #[serde(rename = "unix_ns")]
    pub wall: WallTime,
    #[serde(rename = "target_per_second")]
    pub target: f64,
    pub unread: u64,
    pub in_flight: u64,
    #[serde(rename = "schedule_lag_ns", with = "whole_nanos")]
    pub schedule_lag: Duration,
    /// Missing in records of earlier versions.
    #[serde(rename = "throttled_ns", with = "whole_nanos", default)]
    pub throttled: Duration,
    #[serde(default)]
    pub rebalances: u64,
    pub process: Process,
}

impl Frame {
    pub fn of(period: &Period) -> Self {
        let Period {
            phase,
            at,
            elapsed,
            wall,
            target,
            totals: _,
            unread,
            in_flight,
            schedule_lag,
            throttled,
            process,
            rebalances,
            workers: _,
        } = *period;
        Self { phase, at, elapsed, wall, target, unread, in_flight, schedule_lag, throttled, rebalances, process }
    }

    /// The period with these totals.
    pub fn with(self, totals: Totals) -> Period {
        let Self { phase, at, elapsed, wall, target, unread, in_flight, schedule_lag, throttled, rebalances, process } =
            self;
        Period {
            phase,
            at,
            elapsed,
            wall,
            target,
            totals,
            unread,
            in_flight,
            schedule_lag,
            throttled,
            process,
            rebalances,
            workers: Vec::new(),
        }
    }
}

/// A duration as the number of its nanoseconds.
mod whole_nanos {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(omb_machine::time::nanos(*duration))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}

/// How hard to deflate. Level 3 makes 18 kB of a second at 10,000 msg/s into 9 kB in 0.3 ms, and 56 kB of widely spread
/// ones into 21 kB in 3 ms; level 6 takes two to four times as long for 4 % less.
const LEVEL: Compression = Compression::new(3);

impl Packed {
    fn new(period: &Period) -> Self {
        let mut deflated = DeflateEncoder::new(Vec::new(), LEVEL);
        deflated.write_all(&encoding::encode(&period.totals)).expect("writing to memory does not fail");
        let totals = deflated.finish().expect("writing to memory does not fail");
        Self { frame: Frame::of(period), totals: totals.into_boxed_slice() }
    }

    /// Only [`Self::new`] makes one, so it needs no limit, and any failure is our own mistake.
    fn unpack(&self) -> Period {
        let mut bytes = Vec::new();
        DeflateDecoder::new(&*self.totals).read_to_end(&mut bytes).expect("what was packed here unpacks");
        let totals = encoding::decode_own(&bytes).expect("what was encoded here decodes");
        self.frame.with(totals)
    }
}

impl Periods {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next one.
    pub fn push(&mut self, period: &Period) {
        self.0.push(Packed::new(period));
    }

    /// Each in order, unpacked when it is its turn: several sums should be made in one walk.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Period> + ExactSizeIterator {
        self.0.iter().map(Packed::unpack)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The last one, unpacked.
    #[must_use]
    pub fn last(&self) -> Option<Period> {
        self.0.last().map(Packed::unpack)
    }

    /// Bytes they take packed, in total.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<Packed>() + self.0.iter().map(|packed| packed.totals.len()).sum::<usize>()
    }

    /// Those of one phase; no other is unpacked.
    pub fn of_phase(&self, phase: Phase) -> impl Iterator<Item = Period> {
        self.0.iter().filter(move |packed| packed.frame.phase == phase).map(Packed::unpack)
    }

    /// What is known of each without unpacking it.
    pub fn frames(&self) -> impl DoubleEndedIterator<Item = &Frame> + ExactSizeIterator {
        self.0.iter().map(|packed| &packed.frame)
    }
}

impl FromIterator<Period> for Periods {
    fn from_iter<I: IntoIterator<Item = Period>>(periods: I) -> Self {
        Self(periods.into_iter().map(|period| Packed::new(&period)).collect())
    }
}

/// Frames, and how many bytes hold the totals: the counts of the histograms would be millions of lines.
impl fmt::Debug for Periods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|packed| (&packed.frame, packed.totals.len()))).finish()
    }
}

/// As the list of periods that they are.
impl Serialize for Periods {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Periods {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(OneByOne)
    }
}

/// Packs each period before it reads the next.
struct OneByOne;

impl<'de> Visitor<'de> for OneByOne {
    type Value = Periods;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of periods")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Periods, A::Error> {
        let mut periods = Periods::new();
        while let Some(period) = list.next_element()? {
            periods.push(&period);
        }
        Ok(periods)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, RngExt};

    use super::*;
    use crate::result::fixture;
    use omb_machine::seed::Seed;

    /// A normal number, by Box and Muller.
    fn normal(rng: &mut impl Rng) -> f64 {
        (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * (std::f64::consts::TAU * rng.random::<f64>()).cos()
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds, above 0")]
    fn log_normal(rng: &mut impl Rng, median_ns: f64, sigma: f64) -> u64 {
        (median_ns * (sigma * normal(rng)).exp()) as u64
    }

    /// From 0.1 ms to 10 s, every decade as likely as the other.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds, above 0")]
    fn anything(rng: &mut impl Rng) -> u64 {
        (1e5 * 1e5_f64.powf(rng.random())) as u64
    }

    /// One second: `count` messages, each with its schedule error, its time to be confirmed and its time to arrive.
    fn second(n: u64, count: u64, mut message: impl FnMut(&mut rand_chacha::ChaCha8Rng) -> [u64; 3]) -> Period {
        let mut rng = Seed(1).numbered_stream("periods", n);
        let mut totals = fixture::totals(0, n);
        for _ in 0..count {
            let [late, acked, arrived] = message(&mut rng);
            totals.departures.attempted += 1;
            totals.departures.schedule_error.record(late);
            totals.acknowledgements.acked += 1;
            totals.acknowledgements.from_sent.record(acked);
            totals.acknowledgements.from_intended.record(acked + late);
            totals.arrivals.received += 1;
            totals.arrivals.from_sent.record(arrived);
            totals.arrivals.from_intended.record(arrived + late);
        }
        fixture::period(Phase::Measure, n, totals)
    }

    /// Late by 20 us, confirmed after 2 ms, received 0.5 ms later, give or take.
    fn usual(rng: &mut rand_chacha::ChaCha8Rng) -> [u64; 3] {
        let acked = log_normal(rng, 2e6, 0.5);
        [log_normal(rng, 2e4, 0.8), acked, acked + log_normal(rng, 5e5, 0.5)]
    }

    fn wide(rng: &mut rand_chacha::ChaCha8Rng) -> [u64; 3] {
        [anything(rng), anything(rng), anything(rng)]
    }

    /// 3,600 periods, a minute over and over: each is packed separately, so that repeating them saves nothing.
    #[track_caller]
    fn an_hour_fits(bytes: usize, message: fn(&mut rand_chacha::ChaCha8Rng) -> [u64; 3]) {
        let minute: Periods = (0..60).map(|n| second(n, 10_000, message)).collect();
        let mut hour = Periods::new();
        (0..60).for_each(|_| hour.0.extend_from_slice(&minute.0));
        assert_eq!(hour.len(), 3_600);
        assert!(hour.bytes() <= bytes, "an hour takes {} bytes, of {bytes} it may", hour.bytes());
    }

    #[test]
    fn an_hour_at_10_000_a_second_fits_into_36_mb() {
        an_hour_fits(36_000_000, usual);
    }

    /// Five latencies, each over five decades: far wider than a system that keeps up shows. A whole client may take 150
    /// MB.
    #[test]
    fn an_hour_of_wide_latencies_fits_into_84_mb() {
        an_hour_fits(84_000_000, wide);
    }

    #[test]
    fn a_list_of_periods_reads_as_periods() {
        let list = vec![second(0, 100, usual), second(1, 100, wide)];
        let periods: Periods = list.iter().cloned().collect();
        let (written, plain) = (serde_json::to_value(&periods), serde_json::to_value(&list));
        let (written, plain) = (written.expect("numbers"), plain.expect("numbers"));
        assert_eq!(written, plain);
        assert_eq!(serde_json::from_value::<Periods>(plain).expect("a list"), periods);
        let bytes = omb_machine::encoding::encode(&periods);
        assert_eq!(bytes, omb_machine::encoding::encode(&list));
        assert_eq!(omb_machine::encoding::decode(&bytes), Ok(periods));
    }

    #[test]
    fn none_is_none() {
        let mut periods = Periods::new();
        assert_eq!((periods.len(), periods.is_empty(), periods.last(), periods.bytes()), (0, true, None, 0));
        periods.push(&second(0, 0, usual));
        assert_eq!((periods.len(), periods.is_empty(), periods.last()), (1, false, Some(second(0, 0, usual))));
        assert_ne!(periods, Periods::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// What is packed comes back as it was, in order, and equal periods are equal packed.
        #[test]
        fn unpacking_is_exact(list in prop::collection::vec(fixture::any_period(), 0..5)) {
            let mut periods = Periods::new();
            list.iter().for_each(|period| periods.push(period));
            prop_assert_eq!(periods.iter().collect::<Vec<_>>(), list.clone());
            prop_assert_eq!(periods.last(), list.last().cloned());
            prop_assert_eq!(periods.frames().map(|frame| frame.at).collect::<Vec<_>>(), list.iter().map(|p| p.at).collect::<Vec<_>>());
            prop_assert_eq!(periods.iter().collect::<Periods>(), periods.clone());
            if let Some(mut last) = periods.last() {
                last.totals.arrivals.from_sent.record(1);
                let others: Periods = list[..list.len() - 1].iter().cloned().chain([last]).collect();
                prop_assert_ne!(others, periods);
            }
        }
    }
}
