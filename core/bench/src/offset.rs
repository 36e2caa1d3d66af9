//! How far a worker's wall clock is from the controller's own monotonic clock, with a bound that holds.
//!
//! ```text
//! controller  sent ───────────────┬─────────────── back        θ = ((received - sent) + (answered - back)) / 2
//! worker             received ─ answered                       delay = (back - sent) - (answered - received)
//! ```
//!
//! Source: RFC 5905 (NTP version 4), section 8, for θ and delay. However the delay was split between the two
//! directions, θ is off by at most half of it, so the exchange with the least delay is kept (section 10, the clock
//! filter). With age the bound grows by the assumed drift. A wall clock that is *set* during the run is outside the
//! bound until the next exchange, and [`Offsets::contradictions`] counts it.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use omb_machine::time::{Instant, WallTime, nanos};

/// Most that the two clocks drift apart, in parts per million. Crystals stay below 100; NTP's own limit for a slew is 500.
pub const DRIFT_PPM_MAX: u64 = 100;

/// Length of a window, of which only the best exchange is kept.
const WINDOW: Duration = Duration::from_secs(10);

/// Windows remembered: at 100 ppm, an exchange 80 s old is off by up to 8 ms, and hardly ever the best.
const WINDOWS_MAX: usize = 8;

/// Covers the rounding of halves and of drift, in nanoseconds.
const ROUNDING: u64 = 4;

/// A question of the controller and a worker's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exchange {
    /// When the question left, on the controller's clock.
    pub sent: Instant,
    /// When it arrived, on the worker's wall clock.
    pub received: WallTime,
    /// When the answer left, on the worker's wall clock.
    pub answered: WallTime,
    /// When it arrived, on the controller's clock.
    pub back: Instant,
}

/// What is known of one worker's clock. Of constant size, however long the run.
///
/// ```
/// use std::time::Duration;
///
/// use omb_bench::offset::{Exchange, Offsets};
/// use omb_machine::time::{Instant, WallTime};
///
/// let mut offsets = Offsets::new();
/// // 1 ms each way, and the worker's wall clock shows 1,000 s more than the controller's clock.
/// offsets.add(Exchange {
///     sent: Instant(0),
///     received: WallTime(1_000_001_000_000),
///     answered: WallTime(1_000_001_000_000),
///     back: Instant(2_000_000),
/// });
/// let estimate = offsets.estimate(Instant(2_000_000)).expect("one exchange");
/// assert_eq!(estimate.wall_at, WallTime(1_000_002_000_000));
/// assert!(estimate.error < Duration::from_micros(1_001), "half of the round trip, and a little drift");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// The earliest window and its best sample.
    first: Option<(u64, Sample)>,
    /// The latest windows, in order, and the best sample of each: best when it was taken.
    windows: VecDeque<(u64, Sample)>,
    /// The sample with the smallest bound from now on.
    freshest: Option<Sample>,
    ignored: u64,
    contradictions: u64,
}

/// A worker's wall clock, as seen at one instant of the controller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// The instant, on the controller's clock.
    pub at: Instant,
    /// What the worker's wall clock shows then.
    pub wall_at: WallTime,
    /// How far from it the truth can be, either way.
    pub error: Duration,
}

/// How fast a worker's wall clock runs against the controller's clock.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// Parts per million; above 0 if the worker's clock runs fast.
    pub ppm: f64,
    /// How far from it the truth can be, either way, in parts per million.
    pub error_ppm: f64,
}

impl Estimate {
    /// What the worker's wall clock shows at `t`. Away from [`Self::at`], `error` grows by [`DRIFT_PPM_MAX`].
    #[must_use]
    pub fn wall_of(&self, t: Instant) -> WallTime {
        shifted(t, i128::from(self.wall_at.0) - i128::from(self.at.0))
    }
}

impl Offsets {
    /// No exchange yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `exchange` into account. One that cannot have happened (an answer before its question, a negative delay)
    /// is ignored and counted.
    pub fn add(&mut self, exchange: Exchange) {
        let Some(sample) = Sample::of(exchange) else {
            self.ignored += 1;
            return;
        };
        if self.freshest.is_some_and(|freshest| freshest.contradicts(&sample)) {
            // The clock was set: earlier exchanges no longer say anything about it.
            self.contradictions += 1;
            (self.first, self.freshest) = (None, None);
            self.windows.clear();
        }
        let window = sample.at.0 / nanos(WINDOW);
        match &mut self.first {
            Some((at, first)) if *at == window => *first = first.least(sample),
            Some((at, _)) if *at < window => {}
            first => *first = Some((window, sample)),
        }
        match self.windows.binary_search_by_key(&window, |(at, _)| *at) {
            Ok(place) => self.windows[place].1 = self.windows[place].1.least(sample),
            Err(place) => self.windows.insert(place, (window, sample)),
        }
        if self.windows.len() > WINDOWS_MAX {
            self.windows.pop_front();
        }
        // Bounds grow alike, so the smaller of the two at a later instant stays the smaller.
        let later = self.freshest.map_or(sample.at, |freshest| freshest.at.max(sample.at));
        if self.freshest.is_none_or(|freshest| sample.bound(later) <= freshest.bound(later)) {
            self.freshest = Some(sample);
        }
    }

    /// The worker's wall clock at `at`, by the exchange that bounds it best; `None` before the first one.
    #[must_use]
    pub fn estimate(&self, at: Instant) -> Option<Estimate> {
        let best = self.windows.iter().map(|(_, sample)| sample).chain(&self.freshest).min_by_key(|s| s.bound(at))?;
        Some(Estimate { at, wall_at: shifted(at, best.offset), error: Duration::from_nanos(best.bound(at)) })
    }

    /// What the worker's wall clock shows at `t`, according to [`Self::estimate`].
    #[must_use]
    pub fn wall_of(&self, t: Instant) -> Option<WallTime> {
        self.estimate(t).map(|estimate| estimate.wall_at)
    }

    /// The drift between the first window and the latest; `None` until they are apart.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown, not counted with")]
    pub fn drift(&self) -> Option<Drift> {
        let ((first_window, first), (last_window, last)) = (self.first?, *self.windows.back()?);
        if last_window <= first_window {
            return None;
        }
        let apart = last.at.since(first.at).as_nanos() as f64;
        let ppm = (last.offset - first.offset) as f64 / apart * 1e6;
        let error_ppm = first.error.saturating_add(last.error) as f64 / apart * 1e6;
        Some(Drift { ppm, error_ppm })
    }

    /// Exchanges that cannot have happened.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Times that an exchange contradicted what was known: the worker's clock was set, or drifts beyond all bounds.
    #[must_use]
    pub fn contradictions(&self) -> u64 {
        self.contradictions
    }
}

/// The result of one exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    /// Halfway between question and answer.
    at: Instant,
    /// Worker's wall clock minus controller's clock, in nanoseconds, at that instant.
    offset: i128,
    /// How far from it the truth can be, in nanoseconds.
    error: u64,
}

impl Sample {
    fn of(exchange: Exchange) -> Option<Self> {
        let Exchange { sent, received, answered, back } = exchange;
        let away = back.0.checked_sub(sent.0)?;
        let held = answered.0.checked_sub(received.0)?;
        let delay = away.checked_sub(held)?;
        let there = i128::from(received.0) - i128::from(sent.0);
        let again = i128::from(answered.0) - i128::from(back.0);
        // The clocks drifted during the exchange too: both readings are within half of it from the middle, and `held`
        // was measured by the other clock.
        let error = (delay / 2).saturating_add(drift_over(away)).saturating_add(ROUNDING);
        Some(Self { at: Instant(sent.0 + away / 2), offset: (there + again).div_euclid(2), error })
    }

    /// How far from its offset the truth can be at `at`, in nanoseconds.
    fn bound(&self, at: Instant) -> u64 {
        self.error.saturating_add(drift_over(at.0.abs_diff(self.at.0)))
    }

    /// Whether no clock within the assumed drift fits both.
    fn contradicts(&self, other: &Self) -> bool {
        let between = (self.offset - other.offset).unsigned_abs();
        between > u128::from(self.bound(other.at).saturating_add(other.error))
    }

    /// The one with the smaller error; of equal ones the later.
    fn least(self, other: Self) -> Self {
        if other.error <= self.error { other } else { self }
    }
}

/// Most that the clocks drift apart within `span` nanoseconds, rounded up.
fn drift_over(span: u64) -> u64 {
    // Divided first, so that nothing overflows.
    span / (1_000_000 / DRIFT_PPM_MAX) + 1
}

/// `t` by a clock that is `offset` nanoseconds ahead; clamped to what a clock can show.
fn shifted(t: Instant, offset: i128) -> WallTime {
    let wall = (i128::from(t.0) + offset).clamp(0, i128::from(u64::MAX));
    WallTime(u64::try_from(wall).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A true clock: what a worker's wall shows at each instant of the controller's.
    #[derive(Clone, Copy, Debug)]
    struct RefClock {
        start: u64,
        ppm: i64,
    }

    impl RefClock {
        fn wall(self, at: u64) -> WallTime {
            let drifted = i128::from(at) * i128::from(self.ppm) / 1_000_000;
            shifted(Instant(at), i128::from(self.start) + drifted)
        }

        fn exchange(self, sent: u64, there: u64, held: u64, again: u64) -> Exchange {
            let (received, answered) = (sent + there, sent + there + held);
            let back = Instant(answered + again);
            Exchange { sent: Instant(sent), received: self.wall(received), answered: self.wall(answered), back }
        }
    }

    const SECOND: u64 = 1_000_000_000;

    fn clocks() -> impl Strategy<Value = RefClock> {
        let (epoch, hour) = (1_700_000_000 * SECOND, 3_600 * SECOND);
        (epoch - hour..=epoch + hour, -100..=100_i64).prop_map(|(start, ppm)| RefClock { start, ppm })
    }

    /// Pauses before each exchange, its two delays, and how long the worker took: up to 20 minutes in total.
    fn exchanges() -> impl Strategy<Value = Vec<(u64, u64, u64, u64)>> {
        let delay = || prop_oneof![1_000..200_000_u64, 1_000..50_000_000_u64];
        prop::collection::vec((1_000..10 * SECOND, delay(), 0..2_000_000_u64, delay()), 1..120)
    }

    #[test]
    fn nonsense_is_ignored_and_counted() {
        let mut offsets = Offsets::new();
        let exchange = |sent, received, answered, back| Exchange {
            sent: Instant(sent),
            received: WallTime(received),
            answered: WallTime(answered),
            back: Instant(back),
        };
        offsets.add(exchange(10, 0, 0, 9));
        offsets.add(exchange(10, 5, 4, 20));
        offsets.add(exchange(10, 5, 16, 20));
        assert_eq!((offsets.ignored(), offsets.estimate(Instant(0)), offsets.drift()), (3, None, None));
        offsets.add(exchange(0, 0, u64::MAX, u64::MAX));
        offsets.add(exchange(u64::MAX, u64::MAX, u64::MAX, u64::MAX));
        assert_eq!(offsets.ignored(), 3);
        assert!(offsets.estimate(Instant(0)).is_some() && offsets.estimate(Instant(u64::MAX)).is_some());
    }

    #[test]
    fn the_shortest_exchange_counts() {
        let clock = RefClock { start: 1_700_000_000 * SECOND, ppm: 0 };
        let mut offsets = Offsets::new();
        offsets.add(clock.exchange(SECOND, 40_000_000, 0, 0));
        assert_eq!(offsets.wall_of(Instant(SECOND)), Some(WallTime(clock.wall(SECOND).0 + 20_000_000)));
        offsets.add(clock.exchange(2 * SECOND, 100_000, 500_000_000, 100_000));
        offsets.add(clock.exchange(3 * SECOND, 0, 0, 30_000_000));
        let estimate = offsets.estimate(Instant(3 * SECOND)).expect("three exchanges");
        assert_eq!(estimate.wall_at, clock.wall(3 * SECOND));
        assert!(estimate.error < Duration::from_micros(250), "{:?}", estimate.error);
        assert_eq!(estimate.wall_of(Instant(0)), clock.wall(0));
    }

    #[test]
    fn a_clock_that_was_set_is_believed_anew() {
        let clock = RefClock { start: 1_700_000_000 * SECOND, ppm: 0 };
        let mut offsets = Offsets::new();
        offsets.add(clock.exchange(SECOND, 10_000, 0, 10_000));
        let set = RefClock { start: clock.start - 5 * SECOND, ..clock };
        offsets.add(set.exchange(2 * SECOND, 90_000, 0, 90_000));
        assert_eq!(offsets.contradictions(), 1);
        assert_eq!(offsets.wall_of(Instant(3 * SECOND)), Some(set.wall(3 * SECOND)));
    }

    proptest! {
        /// At every instant, before and after the exchanges, the truth lies within the bound; and none is contradicted.
        #[test]
        fn the_truth_lies_within_the_bound(clock in clocks(), exchanges in exchanges(), asked in 0..1_400 * SECOND) {
            let (mut offsets, mut now) = (Offsets::new(), 0);
            let mut best: Option<(u64, u64)> = None;
            for (pause, there, held, again) in exchanges {
                now += pause;
                let exchange = clock.exchange(now, there, held, again);
                offsets.add(exchange);
                now = exchange.back.0;
                if best.is_none_or(|(delay, _)| there + again <= delay) {
                    best = Some((there + again, now));
                }
                for at in [now, now.saturating_sub(pause), now + pause, asked] {
                    let estimate = offsets.estimate(Instant(at)).expect("an exchange");
                    let off = clock.wall(at).signed_since(estimate.wall_at).unsigned_abs();
                    prop_assert!(u128::from(off) <= estimate.error.as_nanos(), "{off} ns off, {estimate:?}");
                }
            }
            prop_assert_eq!((offsets.ignored(), offsets.contradictions(), offsets.windows.len() <= WINDOWS_MAX), (0, 0, true));
            // No worse than half of the shortest round trip and the drift since.
            let (delay, taken) = best.expect("an exchange");
            let error = nanos(offsets.estimate(Instant(now)).expect("an exchange").error);
            let allowed = delay / 2 + drift_over(now - taken + 200_000_000) + 100;
            prop_assert!(error <= allowed, "{error} ns > {allowed} ns");
            if let Some(drift) = offsets.drift() {
                #[expect(clippy::cast_precision_loss, reason = "at most 100")]
                let off = (drift.ppm - clock.ppm as f64).abs();
                prop_assert!(off <= drift.error_ppm + 1e-6, "{off} ppm off, {drift:?}");
            }
        }
    }
}
