//! The one place that asks the time.

use std::time::Duration;

use omb_core::time::{Instant, WallTime};

use crate::event_loop;

/// The machine's monotonic clock; its origin is the kernel's (boot).
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl event_loop::Clock for Clock {
    fn now(&self) -> Instant {
        now()
    }
}

/// Now, on the monotonic clock. About 26 ns.
#[inline]
#[must_use]
pub fn now() -> Instant {
    Instant(read(libc::CLOCK_MONOTONIC))
}

/// The wall time at `Instant(0)`, so that wall times can be had from the monotonic clock for the length of a run: no
/// step of the wall clock then disturbs a latency.
#[must_use]
pub fn wall_zero() -> WallTime {
    // The reading with the least time between its two neighbours is the most exact; of five, one is undisturbed.
    let best = (0..5)
        .map(|_| {
            let before = read(libc::CLOCK_MONOTONIC);
            let wall = read(libc::CLOCK_REALTIME);
            let after = read(libc::CLOCK_MONOTONIC);
            (after - before, wall - (before + (after - before) / 2))
        })
        .min();
    WallTime(best.expect("five readings").1)
}

/// CPU time of all threads of this process so far.
#[must_use]
pub fn process_cpu() -> Duration {
    Duration::from_nanos(read(libc::CLOCK_PROCESS_CPUTIME_ID))
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write one `timespec` to; the clocks named here exist on every Linux.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(failed, 0, "clock {clock} can be read");
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Sleeps until `at` on the monotonic clock, by an absolute timer: nothing adds up.
pub fn sleep_until(at: Instant) {
    #[expect(clippy::cast_possible_wrap, reason = "seconds since boot")]
    let time = libc::timespec { tv_sec: (at.0 / 1_000_000_000) as i64, tv_nsec: (at.0 % 1_000_000_000) as i64 };
    // SAFETY: `time` is a valid `timespec`; with `TIMER_ABSTIME` nothing is written to the last argument.
    while unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const time, std::ptr::null_mut())
    } == libc::EINTR
    {}
}

/// Lets this thread's sleeps end on time: the kernel otherwise adds up to 50 µs, to wake several threads at once.
pub fn sleep_precisely() {
    // SAFETY: this option takes one integer and touches no memory. It cannot fail on a kernel that knows it; on one
    // that does not, sleeps stay as they were, which the schedule error shows.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1, 0, 0, 0) };
}
