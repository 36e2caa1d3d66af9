//! When message n is meant to leave: an open schedule in exact arithmetic.
//!
//! Message n of the run is intended at `start + n / rate`, rounded down to the nanosecond, whatever happened
//! to the messages before it. The messages are dealt to the producers in turn, so each producer has its
//! exact share of the rate and no two are due at once. A [`Pace`] walks the messages of some of the producers.

use std::time::Duration;

use crate::{
    config::workload::CatchUp,
    plan::rate::Rate,
    time::{Instant, nanos},
};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// The schedule of one sending thread: its producers in turn, each at its exact share of the total rate.
#[derive(Clone, Debug)]
pub struct Pace {
    start: Instant,
    rate: Rate,
    /// Producers of the whole run, and the places among them that this thread serves, ascending.
    producers: u32,
    mine: Vec<u32>,
    /// Round through all producers, and position in `mine`, of the next message.
    round: u64,
    turn: usize,
    /// When the next message is due, as nanoseconds after `start` and a remainder over the rate's numerator.
    at: Exact,
    /// From one of `mine` to the next, the last wrapping round to the first.
    steps: Vec<Exact>,
    catch_up: CatchUp,
    skipped: u64,
}

/// A message that is due: whose turn it is and when it was meant to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Position of the producer among those of this thread.
    pub turn: usize,
    /// When it was meant to leave.
    pub intended: Instant,
}

/// `nanos + rest / denominator`, the denominator being the rate's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exact {
    nanos: u64,
    rest: u64,
}

impl Exact {
    /// The time that `messages` messages take.
    fn of(messages: u128, rate: Rate) -> Self {
        let (numerator, denominator) = rate.fraction();
        let scaled = messages * u128::from(denominator) * u128::from(SECOND);
        let narrow = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        Self { nanos: narrow(scaled / u128::from(numerator)), rest: narrow(scaled % u128::from(numerator)) }
    }

    #[inline]
    fn add(&mut self, step: Self, numerator: u64) {
        self.nanos = self.nanos.saturating_add(step.nanos);
        self.rest += step.rest;
        if self.rest >= numerator {
            self.rest -= numerator;
            self.nanos = self.nanos.saturating_add(1);
        }
    }
}

impl Pace {
    /// The schedule of the producers at places `mine` (ascending) of the run's `producers`, which together send `rate`.
    ///
    /// # Panics
    /// If `mine` is empty, not ascending, or names a place beyond `producers`.
    #[must_use]
    pub fn new(start: Instant, rate: Rate, producers: u32, mine: Vec<u32>, catch_up: CatchUp) -> Self {
        assert!(mine.is_sorted_by(|a, b| a < b), "places are ascending: {mine:?}");
        assert!(mine.last().is_some_and(|last| *last < producers), "places {mine:?} lie within {producers} producers");
        let next = mine[1..].iter().copied().map(u64::from).chain([u64::from(producers) + u64::from(mine[0])]);
        let steps =
            mine.iter().zip(next).map(|(here, next)| Exact::of(u128::from(next - u64::from(*here)), rate)).collect();
        let at = Exact::of(u128::from(mine[0]), rate);
        Self { start, rate, producers, mine, round: 0, turn: 0, at, steps, catch_up, skipped: 0 }
    }

    /// When the next message is due.
    #[inline]
    #[must_use]
    pub fn next_at(&self) -> Instant {
        Instant(self.start.0.saturating_add(self.at.nanos))
    }

    /// The next message if it is due at `now`, and moves on. Debt beyond what `catchUp` keeps is skipped first.
    #[inline]
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        let mut intended = self.next_at();
        if intended > now {
            return None;
        }
        if self.catch_up != CatchUp::All {
            self.forgive(now);
            intended = self.next_at();
            if intended > now {
                return None;
            }
        }
        let due = Due { turn: self.turn, intended };
        self.advance();
        Some(due)
    }

    /// Skips everything that is due before `at`; returns how many that were. For a schedule that is replaced.
    pub fn skip_until(&mut self, at: Instant) -> u64 {
        let before = self.skipped;
        self.skip_older_than(at.0);
        self.skipped - before
    }

    /// Messages skipped so far.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The total rate of the run that this schedule has its share of.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    #[inline]
    fn advance(&mut self) {
        self.at.add(self.steps[self.turn], self.rate.fraction().0);
        self.turn += 1;
        if self.turn == self.mine.len() {
            self.turn = 0;
            self.round += 1;
        }
    }

    /// Skips what is later than the policy keeps, in whole rounds where the debt is long.
    fn forgive(&mut self, now: Instant) {
        let keep = match self.catch_up {
            CatchUp::All => return,
            CatchUp::Cap(keep) => keep,
            // One interval of this thread's own messages: what is due now is sent, what was due before is not.
            CatchUp::Drop => {
                let (messages, seconds) = self.rate.fraction();
                let per_message = u128::from(seconds) * u128::from(SECOND) * u128::from(self.producers)
                    / (u128::from(messages) * self.mine.len() as u128);
                Duration::from_nanos(u64::try_from(per_message).unwrap_or(u64::MAX))
            }
        };
        self.skip_older_than(now.0.saturating_sub(nanos(keep)));
    }

    fn skip_older_than(&mut self, oldest: u64) {
        if self.next_at().0 >= oldest {
            return;
        }
        let (messages, seconds) = self.rate.fraction();
        // First message of the run not older than `oldest`, then the round it lies in.
        let behind = u128::from(oldest.saturating_sub(self.start.0)) * u128::from(messages);
        let first = behind / (u128::from(seconds) * u128::from(SECOND));
        let round = u64::try_from(first / u128::from(self.producers)).unwrap_or(u64::MAX);
        if round > self.round {
            let left_in_round = (self.mine.len() - self.turn) as u64;
            self.skipped += left_in_round + (round - self.round - 1) * self.mine.len() as u64;
            self.round = round;
            self.turn = 0;
            self.at = Exact::of(u128::from(round) * u128::from(self.producers) + u128::from(self.mine[0]), self.rate);
        }
        while self.next_at().0 < oldest {
            self.skipped += 1;
            self.advance();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pace(rate: u64, producers: u32, mine: &[u32], catch_up: CatchUp) -> Pace {
        let rate = Rate::per_second(rate).expect("in range");
        Pace::new(Instant(0), rate, producers, mine.to_vec(), catch_up)
    }

    /// 3 messages a second do not drift: the millionth is due where the fraction says.
    #[test]
    fn thirds_do_not_drift() {
        let mut pace = pace(3, 1, &[0], CatchUp::All);
        for n in 0..1_000_000_u64 {
            assert_eq!(pace.next_at(), Instant(n * SECOND / 3));
            pace.due(Instant(u64::MAX)).expect("due by now");
        }
    }

    /// A stall of two seconds under each policy: all is sent, or a second's worth, or next to nothing.
    #[test]
    fn debt_is_kept_capped_or_dropped() {
        let after_stall = |catch_up| {
            let mut pace = pace(1_000, 1, &[0], catch_up);
            let now = Instant(2 * SECOND);
            let mut sent = 0;
            while pace.due(now).is_some() {
                sent += 1;
            }
            (sent, pace.skipped())
        };
        assert_eq!(after_stall(CatchUp::All), (2_001, 0));
        assert_eq!(after_stall(CatchUp::Cap(Duration::from_secs(1))), (1_001, 1_000));
        assert_eq!(after_stall(CatchUp::Drop), (2, 1_999));
    }

    proptest! {
        /// However producers are dealt to threads, message n of the run is due at n / rate and belongs to producer n mod P.
        #[test]
        fn threads_together_play_the_whole_schedule(
            rate in 1..2_000_000_u64, producers in 1..12_u32, threads in 1..4_u32, messages in 1..400_u64,
        ) {
            let mut all = Vec::new();
            let end = Instant(messages * SECOND / rate);
            for thread in 0..threads.min(producers) {
                let mine: Vec<u32> = (0..producers).filter(|place| place % threads.min(producers) == thread).collect();
                let mut pace = pace(rate, producers, &mine, CatchUp::All);
                while let Some(due) = pace.due(end) {
                    all.push((due.intended, mine[due.turn]));
                }
            }
            all.sort_unstable();
            let mut want: Vec<_> = (0..).map(|n: u64| (Instant(n * SECOND / rate), u32::try_from(n % u64::from(producers)).expect("small")))
                .take_while(|(at, _)| *at <= end).collect();
            want.sort_unstable();
            prop_assert_eq!(all, want);
        }

        /// Sent and skipped together are what was due, and nothing older than the cap is sent.
        #[test]
        fn capped_debt_is_counted(rate in 1..100_000_u64, producers in 1..5_u32, stalls in prop::collection::vec(1..3_000_000_000_u64, 1..6), cap in 0..1_000_000_000_u64) {
            let mine: Vec<u32> = (0..producers).collect();
            let mut pace = pace(rate, producers, &mine, CatchUp::Cap(Duration::from_nanos(cap)));
            let (mut now, mut sent) = (0, 0);
            for stall in stalls {
                now += stall;
                // A bounded look at each instant keeps the case small; what is left counts at the next.
                for _ in 0..1_000 {
                    let Some(due) = pace.due(Instant(now)) else { break };
                    prop_assert!(due.intended.0 + cap >= now && due.intended.0 <= now);
                    sent += 1;
                }
            }
            let next = pace.next_at();
            let due_before_next = (u128::from(next.0) * u128::from(rate)).div_ceil(u128::from(SECOND));
            prop_assert_eq!(u128::from(sent + pace.skipped()), due_before_next);
        }
    }
}
