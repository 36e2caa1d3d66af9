//! How long a broker's quota held clients up.
//!
//! A broker that throttles a client says for how long it will not read from it (Kafka: `throttle_time_ms`, KIP-219).
//! These stretches overlap, since each response may announce one; what counts is the time during which at least one is
//! in effect.

use std::time::Duration;

use omb_machine::time::Instant;

/// Longest announcement that is accepted at once. Kafka's are at most a few seconds; a longer one is announced again.
const ACCEPTED_MAX: Duration = Duration::from_secs(60);

/// The union of all announced stretches of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct Throttled {
    until: Instant,
    /// All of them, including the remainder of the last one.
    sum: Duration,
}

impl Throttled {
    /// A broker says that it will not read from a client for this long.
    pub fn announce(&mut self, now: Instant, span: Duration) {
        let until = now + span.min(ACCEPTED_MAX);
        if until > self.until {
            self.sum = self.sum.saturating_add(until.since(self.until.max(now)));
            self.until = until;
        }
    }

    /// How long some client has been throttled by now. Never shrinks.
    #[must_use]
    pub fn so_far(&self, now: Instant) -> Duration {
        self.sum.saturating_sub(self.until.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_that_overlap_count_once() {
        let at = |millis: u64| Instant(5_000_000_000) + Duration::from_millis(millis);
        let ms = Duration::from_millis;
        let mut throttled = Throttled::default();
        assert_eq!(throttled.so_far(at(0)), Duration::ZERO);
        throttled.announce(at(0), ms(500));
        throttled.announce(at(100), ms(200));
        assert_eq!((throttled.so_far(at(100)), throttled.so_far(at(2_000))), (ms(100), ms(500)));
        throttled.announce(at(400), ms(400));
        assert_eq!((throttled.so_far(at(500)), throttled.so_far(at(2_000))), (ms(500), ms(800)));
        throttled.announce(at(3_000), Duration::from_secs(1 << 40));
        assert_eq!(throttled.so_far(at(1_000_000)), ms(800) + ACCEPTED_MAX, "no announcement lasts for ever");
        let mut last = Duration::ZERO;
        for step in 0..900 {
            let now = throttled.so_far(at(step * 100));
            assert!(now >= last, "it shrinks from {last:?} to {now:?}");
            last = now;
        }
    }
}
