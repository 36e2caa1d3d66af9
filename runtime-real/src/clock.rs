//! The one place that asks the time.

use std::{
    num::NonZeroU64,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use omb_machine::time::{Instant, WallTime};
use rustix::{
    io::Errno,
    thread::{clock_nanosleep_absolute, set_current_timer_slack},
    time::{ClockId, Timespec, clock_gettime},
};

use crate::portable::event_loop;

/// The machine's monotonic clock; its origin is the kernel's (boot).
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl event_loop::Clock for Clock {
    fn now(&self) -> Instant {
        now()
    }

    fn wall_zero(&self) -> WallTime {
        wall_zero()
    }
}

/// Now, on the monotonic clock. About 26 ns.
#[inline]
#[must_use]
pub fn now() -> Instant {
    Instant(read(ClockId::Monotonic))
}

/// The wall time at `Instant(0)`, read once per process: wall times are had from the monotonic clock, so that no step of
/// the wall clock disturbs a latency, or what a controller knows of this process's clock.
#[must_use]
pub fn wall_zero() -> WallTime {
    static ZERO: OnceLock<WallTime> = OnceLock::new();
    *ZERO.get_or_init(read_wall_zero)
}

/// Now, on this process's wall clock.
#[must_use]
pub fn wall() -> WallTime {
    WallTime(wall_zero().0 + now().0)
}

/// The fleet's time: this process's wall clock, corrected by what the controller knows of it.
#[derive(Debug)]
pub struct FleetTime(AtomicU64);

impl Default for FleetTime {
    fn default() -> Self {
        Self(AtomicU64::new(wall_zero().0))
    }
}

impl FleetTime {
    /// The fleet's time at `Instant(0)`.
    #[inline]
    pub fn zero(&self) -> WallTime {
        WallTime(self.0.load(Relaxed))
    }

    /// The fleet's time when this process's wall clock showed `wall`.
    #[must_use]
    pub fn of(&self, wall: WallTime) -> WallTime {
        WallTime(wall.0.wrapping_add(self.zero().0.wrapping_sub(wall_zero().0)))
    }

    /// Takes a new correction: nanoseconds by which the fleet's time is ahead of this process's wall clock.
    pub fn correct(&self, correction: i64) {
        self.0.store(wall_zero().0.wrapping_add_signed(correction), Relaxed);
    }
}

fn read_wall_zero() -> WallTime {
    // The reading with the least time between its two neighbours is the most exact; of five, one is undisturbed.
    let best = (0..5)
        .map(|_| {
            let before = read(ClockId::Monotonic);
            let wall = read(ClockId::Realtime);
            let after = read(ClockId::Monotonic);
            (after - before, wall - (before + (after - before) / 2))
        })
        .min();
    WallTime(best.expect("five readings").1)
}

/// CPU time of all threads of this process so far.
#[must_use]
pub fn process_cpu() -> Duration {
    Duration::from_nanos(read(ClockId::ProcessCPUTime))
}

#[inline]
fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Sleeps until `at` on the monotonic clock, by an absolute timer: nothing adds up.
pub fn sleep_until(at: Instant) {
    #[expect(clippy::cast_possible_wrap, reason = "seconds since boot")]
    let time = Timespec { tv_sec: (at.0 / 1_000_000_000) as i64, tv_nsec: (at.0 % 1_000_000_000) as i64 };
    while clock_nanosleep_absolute(ClockId::Monotonic, &time) == Err(Errno::INTR) {}
}

/// Lets this thread's sleeps end on time: the kernel otherwise adds up to 50 µs, to wake several threads at once.
pub fn sleep_precisely() {
    // Where the kernel does not know it, sleeps stay as they were, which the schedule error shows.
    let _ = set_current_timer_slack(NonZeroU64::new(1));
}
