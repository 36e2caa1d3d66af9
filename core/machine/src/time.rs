//! Time as the machines see it: a number passed in, never read from a clock.

use std::{
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Nanoseconds since an origin that the runtime chose (start of the process, or of the simulation).
///
/// Monotonic, and comparable only with instants of the same process. It has no `now()`: code that needs the time takes
/// it as a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instant(pub u64);

impl Instant {
    /// The origin itself.
    pub const ZERO: Self = Self(0);

    /// Time since `earlier`; zero if `earlier` lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        self.0
    }
}

/// A `Duration` in whole nanoseconds; 584 years is the most a `u64` holds, so longer ones saturate.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(duration)))
    }
}

/// Nanoseconds since the Unix epoch on some machine's wall clock: the time that is sent between machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WallTime(pub u64);

impl WallTime {
    /// Nanoseconds from `earlier` to `self`, negative if `earlier` is later (clocks disagree).
    #[must_use]
    pub fn signed_since(self, earlier: Self) -> i64 {
        self.0.wrapping_sub(earlier.0).cast_signed()
    }
}
