//! Clocks that are set wrong and run at the wrong rate; madsim has only one, and it is right.

use std::{fmt, time::Duration};

use madsim::time::TimeHandle;
use omb_machine::time::{Instant, WallTime, nanos};

use crate::portable::event_loop;

/// A simulated process's clock.
#[derive(Clone)]
pub struct Clock {
    time: TimeHandle,
    skew: Skew,
}

/// How a clock errs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skew {
    /// What its monotonic clock shows when the simulation begins.
    pub offset: Duration,
    /// How far its wall clock is ahead of the true time then, in ms.
    pub wall_ms: i64,
    /// Its gain, in millionths: 20,000 is a clock that is 2 % fast.
    pub gain_ppm: i64,
}

impl Skew {
    /// A clock that is right.
    pub const NONE: Self = Self { offset: Duration::ZERO, wall_ms: 0, gain_ppm: 0 };
}

impl fmt::Display for Skew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("right");
        }
        #[expect(clippy::cast_precision_loss, reason = "shown, not computed with")]
        let ahead = self.wall_ms as f64 / 1_000.0;
        write!(f, "{ahead:+.1} s {:+} ppm", self.gain_ppm)
    }
}

/// What the wall clocks showed when the simulation began: some day of 2026.
const EPOCH: u64 = 1_780_000_000_000_000_000;

const MILLION: i128 = 1_000_000;

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("skew", &self.skew).finish_non_exhaustive()
    }
}

impl Clock {
    /// A clock that errs by `skew`.
    #[must_use]
    pub fn new(time: TimeHandle, skew: Skew) -> Self {
        assert!(skew.gain_ppm > -1_000_000, "clocks do not run backwards");
        Self { time, skew }
    }

    /// The true time at which it shows `at`, in ns since the simulation began.
    #[must_use]
    pub fn truly(&self, at: Instant) -> i64 {
        let shown = i128::from(at.0) - i128::from(nanos(self.skew.offset));
        i64::try_from(shown * MILLION / (MILLION + i128::from(self.skew.gain_ppm))).unwrap_or(i64::MAX)
    }

    /// Whole milliseconds of the wall clock, as brokers stamp records.
    #[must_use]
    pub fn wall_ms(&self) -> i64 {
        (event_loop::Clock::wall(self).0 / 1_000_000).cast_signed()
    }
}

impl event_loop::Clock for Clock {
    fn now(&self) -> Instant {
        let elapsed = i128::from(nanos(self.time.elapsed()));
        let shown = elapsed + elapsed * i128::from(self.skew.gain_ppm) / MILLION;
        Instant(nanos(self.skew.offset) + u64::try_from(shown).expect("clocks do not run backwards"))
    }

    fn wall_zero(&self) -> WallTime {
        let shown = i64::try_from(nanos(self.skew.offset)).unwrap_or(i64::MAX);
        WallTime(EPOCH.wrapping_add_signed(self.skew.wall_ms * 1_000_000 - shown))
    }

    fn true_span(&self, span: Duration) -> Duration {
        let span = i128::from(nanos(span));
        // Rounded up: woken too early, a loop would have to sleep once more.
        let spread = MILLION + i128::from(self.skew.gain_ppm);
        let true_span = (span * MILLION + spread - 1) / spread;
        Duration::from_nanos(u64::try_from(true_span).unwrap_or(u64::MAX))
    }
}
