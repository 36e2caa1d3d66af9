//! The highest rate that holds: bracketing, bisection, then a hold.
//!
//! A rate *holds* if, over a window after it has settled, at least 95 % of it was confirmed and the backlog of
//! unread messages grew by no more than 5 % of what was sent. The rate is doubled until one does not hold, then the
//! bracket is halved until it is narrower than 5 %, then its lower end must hold for longer. (Upstream's search
//! moves on during the measurement and never settles: openmessaging/benchmark issues 84, 163, 329.)

use std::time::Duration;

use crate::{rate::Rate, result::Found};

/// Rate of the first trial, msg/s: upstream's.
pub const FIRST: u64 = 10_000;
/// Share of the target that must be confirmed.
pub const ACHIEVED_MIN: f64 = Found::ACHIEVED_MIN;
/// Growth of the backlog, as a share of the messages sent, that still counts as none.
pub const GROWTH_MAX: f64 = Found::GROWTH_MAX;
/// The bracket is narrow enough when its upper end is at most this factor above its lower end.
pub const BRACKET: f64 = 1.05;
/// Periods of a trial that are not looked at.
const SETTLE_PERIODS: u32 = 1;
/// Periods of a trial that are.
const WINDOW_PERIODS: u32 = 4;
/// Periods that the rate found must hold.
const HOLD_PERIODS: u32 = 10;
/// Periods after a trial that failed within which the backlog should be gone; the search then goes on all the same.
const RECOVER_PERIODS: u32 = 15;
/// Unread messages that are no backlog, whatever the rate.
const UNREAD_FREE: u64 = 1_000;

/// What one period of load showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// How long it was.
    pub elapsed: Duration,
    /// Messages handed to the client in it.
    pub attempted: u64,
    /// Messages confirmed in it.
    pub acked: u64,
    /// Unread messages at its end, over all subscriptions.
    pub unread: u64,
}

/// What the search wants next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Go on at the same rate.
    Stay,
    /// Go on at another.
    Try(Rate),
    /// Done; the load shall go on at [`Found::rate`].
    Found(Found),
    /// Not one message per second holds.
    Nothing,
}

/// The search, fed with a period at a time.
#[derive(Clone, Debug)]
pub struct RateSearch {
    holds: Option<u64>,
    fails: Option<u64>,
    trying: u64,
    /// Whether some rate has held, if only for a while: then the highest cannot be far below.
    near: bool,
    stage: Stage,
    trials: u32,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Settling { left: u32, hold: bool },
    Watching { left: u32, hold: bool, window: Window },
    Recovering { left: u32 },
}

#[derive(Clone, Copy, Debug)]
struct Window {
    elapsed: Duration,
    attempted: u64,
    acked: u64,
    unread_before: u64,
}

impl Default for RateSearch {
    fn default() -> Self {
        Self::new()
    }
}

impl RateSearch {
    /// Begins with [`FIRST`], which the load must run at.
    #[must_use]
    pub fn new() -> Self {
        let stage = Stage::Settling { left: SETTLE_PERIODS, hold: false };
        Self { holds: None, fails: None, trying: FIRST, near: false, stage, trials: 1 }
    }

    /// The rate being tried, msg/s.
    #[must_use]
    pub fn trying(&self) -> u64 {
        self.trying
    }

    /// Takes a period that ran at the current rate, of a run with so many subscriptions per topic.
    pub fn observe(&mut self, seen: Observation, subscriptions: u64) -> Step {
        match self.stage {
            Stage::Settling { left, hold } if left > 1 => self.stage = Stage::Settling { left: left - 1, hold },
            Stage::Settling { hold, .. } => {
                let left = if hold { HOLD_PERIODS } else { WINDOW_PERIODS };
                let window = Window { elapsed: Duration::ZERO, attempted: 0, acked: 0, unread_before: seen.unread };
                self.stage = Stage::Watching { left, hold, window };
            }
            Stage::Watching { left, hold, mut window } => {
                window.elapsed += seen.elapsed;
                window.attempted += seen.attempted;
                window.acked += seen.acked;
                if left > 1 {
                    self.stage = Stage::Watching { left: left - 1, hold, window };
                } else {
                    let held = window.held(self.trying, seen.unread, subscriptions);
                    return self.conclude(held, hold);
                }
            }
            Stage::Recovering { left } => {
                let little = UNREAD_FREE.max(self.trying / 2);
                if seen.unread <= little || left <= 1 {
                    return self.next_trial();
                }
                self.stage = Stage::Recovering { left: left - 1 };
            }
        }
        Step::Stay
    }

    fn conclude(&mut self, held: bool, hold: bool) -> Step {
        if held && hold {
            return Step::Found(Found { rate: self.trying, failed_at: self.fails, trials: self.trials });
        }
        if held {
            self.holds = Some(self.trying);
            self.near = true;
            return self.next_trial();
        }
        self.fails = Some(self.fails.map_or(self.trying, |fails| fails.min(self.trying)));
        if hold || self.holds.is_some_and(|holds| holds >= self.trying) {
            // It held for a while and then did not: begin again below it.
            self.holds = None;
        }
        // The debt of the trial must go before the next one: half of what last held leaves room for that.
        self.trying = self.holds.unwrap_or(self.trying / 2) / 2;
        if self.trying == 0 {
            return Step::Nothing;
        }
        self.stage = Stage::Recovering { left: RECOVER_PERIODS };
        self.go(self.trying)
    }

    fn next_trial(&mut self) -> Step {
        self.trials += 1;
        #[expect(clippy::cast_precision_loss, reason = "rates stay far below 2^52")]
        let narrow = |holds: u64, fails: u64| fails as f64 <= holds as f64 * BRACKET || fails <= holds + 1;
        let (rate, hold) = match (self.holds, self.fails) {
            (Some(holds), Some(fails)) if narrow(holds, fails) => (holds, true),
            (Some(holds), Some(fails)) => (holds + (fails - holds) / 2, false),
            (Some(holds), None) if holds >= Rate::HIGHEST / 2 => (holds, true),
            (Some(holds), None) => (holds * 2, false),
            (None, Some(fails)) if self.near => (fails - fails.div_ceil(8), false),
            (None, Some(fails)) => (fails / 2, false),
            (None, None) => (FIRST, false),
        };
        if rate == 0 {
            return Step::Nothing;
        }
        self.trying = rate;
        self.stage = Stage::Settling { left: SETTLE_PERIODS, hold };
        self.go(rate)
    }

    fn go(&self, rate: u64) -> Step {
        Step::Try(Rate::per_second(rate).expect("the search stays between 1 and the highest rate"))
    }
}

impl Window {
    #[expect(clippy::cast_precision_loss, reason = "shares, to a percent")]
    fn held(&self, rate: u64, unread_after: u64, subscriptions: u64) -> bool {
        let wanted = rate as f64 * self.elapsed.as_secs_f64();
        let growth = unread_after.saturating_sub(self.unread_before);
        let free = (GROWTH_MAX * wanted * subscriptions as f64).max(UNREAD_FREE as f64);
        self.acked as f64 >= ACHIEVED_MIN * wanted && (subscriptions == 0 || growth as f64 <= free)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A messaging system that confirms so many messages a second and hands on so many.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn search(confirms: u64, hands_on: u64, subscriptions: u64) -> (Option<Found>, u32) {
        let (mut search, mut rate, mut unread) = (RateSearch::new(), FIRST, 0_u64);
        for period in 0..2_000 {
            let acked = rate.min(confirms);
            unread = (unread + acked * subscriptions).saturating_sub(hands_on * subscriptions);
            let seen = Observation { elapsed: Duration::from_secs(1), attempted: acked, acked, unread };
            match search.observe(seen, subscriptions) {
                Step::Stay => {}
                Step::Try(next) => rate = next.as_f64() as u64,
                Step::Found(found) => return (Some(found), period),
                Step::Nothing => return (None, period),
            }
        }
        panic!("the search does not end");
    }

    #[test]
    fn upstreams_example_converges() {
        let (found, periods) = search(25_000, 25_000, 1);
        let found = found.expect("25,000 holds");
        assert!((24_000..=26_400).contains(&found.rate), "{found:?}");
        assert!(periods < 120, "{periods} periods");
    }

    #[test]
    fn slow_consumers_limit_the_rate_whatever_the_subscriptions() {
        for subscriptions in 1..4 {
            let found = search(1_000_000, 30_000, subscriptions).0.expect("30,000 holds");
            assert!((27_000..=33_000).contains(&found.rate), "{found:?}");
        }
    }

    #[test]
    fn a_dead_system_is_nothing_not_for_ever() {
        assert_eq!(search(0, 0, 1).0, None);
    }

    proptest! {
        /// For any capacity the search ends, near it, and says between which rates it lies.
        #[test]
        fn finds_any_capacity(capacity in 1_u64..50_000_000, subscriptions in 0..3_u64) {
            let found = search(capacity, capacity, subscriptions).0;
            #[expect(clippy::cast_precision_loss)]
            let (low, high) = (capacity as f64 * 0.9 - 2.0, capacity as f64 / ACHIEVED_MIN + 2_000.0);
            let found = found.expect("some rate holds");
            #[expect(clippy::cast_precision_loss)]
            let rate = found.rate as f64;
            prop_assert!((low..=high).contains(&rate), "{:?} for {}", found, capacity);
            prop_assert!(found.failed_at.is_none_or(|failed| failed > found.rate));
        }
    }
}
