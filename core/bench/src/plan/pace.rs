//! When message n is meant to leave: an open schedule in exact arithmetic.
//!
//! Message n of the run is intended at `start + n / rate`, rounded down to the nanosecond, whatever happened to the
//! messages before it; where the rate changes, n is what the rates before have added up to. The producers take the
//! messages in turn, so each has its exact share of the rate and no two are due at once. A [`Pace`] walks the messages
//! of some of the producers, to the end of the schedule, which is known before it begins: how many messages a run sends
//! does not depend on when the stop arrives.

use std::time::Duration;

use crate::{
    config::workload::CatchUp,
    rate::{Stretch, Tempo},
};
use omb_machine::time::{Instant, nanos};

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// The schedule of one sending thread: its producers in turn, each at its exact share of the total rate.
///
/// ```
/// use std::time::Duration;
///
/// use omb_bench::{
///     config::workload::CatchUp,
///     plan::pace::Pace,
///     rate::{Rate, Tempo},
/// };
/// use omb_machine::time::Instant;
///
/// // Producers 0 and 1 of three, which together send 3 msg/s for one second.
/// let tempo = Tempo::Steady(Rate::per_second(3).expect("in range"));
/// let second = Some(Duration::from_secs(1));
/// let mut pace = Pace::new(Instant::ZERO, tempo, second, 3, vec![0, 1], CatchUp::All);
///
/// assert_eq!(pace.due(Instant::ZERO).map(|due| due.turn), Some(0));
/// assert_eq!(pace.due(Instant::ZERO), None, "the next one is not due yet");
/// assert_eq!(pace.next_at(), Instant(333_333_333));
/// // A thread that comes late still sends it, with the instant at which it was meant to leave.
/// let late = pace.due(Instant(900_000_000)).expect("long due");
/// assert_eq!((late.turn, late.intended), (1, Instant(333_333_333)));
/// assert_eq!(pace.due(Instant(u64::MAX - 1)), None, "nothing is due after the end");
/// ```
#[derive(Clone, Debug)]
pub struct Pace {
    start: Instant,
    /// Nanoseconds after `start` from which on nothing is due; `u64::MAX` if that is not known.
    end: u64,
    tempo: Tempo,
    /// The stretch of `tempo` that the next message lies in.
    stretch: Stretch,
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

/// A message that is due: its producer and when it was meant to leave.
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
    /// The schedule of the producers at places `mine` (ascending) of the run's `producers`, which together send `tempo`
    /// from `start` on. What would be due `lasts` after it or later is not sent; `None` goes on until it is dropped.
    ///
    /// # Panics
    /// If `mine` is empty, not ascending, or names a place beyond `producers`.
    #[must_use]
    pub fn new(
        start: Instant,
        tempo: impl Into<Tempo>,
        lasts: Option<Duration>,
        producers: u32,
        mine: Vec<u32>,
        catch_up: CatchUp,
    ) -> Self {
        assert!(mine.is_sorted_by(|a, b| a < b), "places are ascending: {mine:?}");
        assert!(mine.last().is_some_and(|last| *last < producers), "places {mine:?} lie within {producers} producers");
        let tempo = tempo.into();
        let stretch = tempo.first();
        let end = lasts.map_or(u64::MAX, nanos);
        let at = Exact { nanos: u64::MAX, rest: 0 };
        let (round, turn, steps) = (0, 0, Vec::new());
        let mut pace =
            Self { start, end, tempo, stretch, producers, mine, round, turn, at, steps, catch_up, skipped: 0 };
        pace.enter(stretch);
        pace
    }

    /// When the next message is due; the last [`Instant`] if none is.
    #[inline]
    #[must_use]
    pub fn next_at(&self) -> Instant {
        if self.at.nanos < self.end { Instant(self.start.0.saturating_add(self.at.nanos)) } else { Instant(u64::MAX) }
    }

    /// The next message if it is due at `now`, advancing past it. Debt beyond what `catchUp` keeps is skipped first.
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

    /// Skips everything that is due before `at`; returns how many that were. For a schedule that is replaced or ended.
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

    #[inline]
    fn advance(&mut self) {
        self.at.add(self.steps[self.turn], self.stretch.messages);
        self.turn += 1;
        if self.turn == self.mine.len() {
            self.turn = 0;
            self.round += 1;
        }
        if self.at.nanos >= self.stretch.until {
            self.enter(self.stretch);
        }
    }

    /// The number of the next message among those of the run.
    fn next(&self) -> u128 {
        u128::from(self.round) * u128::from(self.producers) + u128::from(self.mine[self.turn])
    }

    /// Finds the stretch in which the next message lies, from `stretch` on, and when it is due there.
    fn enter(&mut self, mut stretch: Stretch) {
        let next = self.next();
        loop {
            if stretch.from >= self.end {
                (self.at, self.stretch) = (Exact { nanos: u64::MAX, rest: 0 }, stretch);
                return;
            }
            if stretch.messages > 0 && next >= stretch.first() {
                let (nanos, rest) = stretch.due(next);
                if nanos < stretch.until {
                    self.at = Exact { nanos, rest };
                    break;
                }
            }
            match self.tempo.next(&stretch) {
                Some(after) => stretch = after,
                None => {
                    (self.at, self.stretch) = (Exact { nanos: u64::MAX, rest: 0 }, stretch);
                    return;
                }
            }
        }
        self.stretch = stretch;
        let nexts =
            self.mine[1..].iter().copied().map(u64::from).chain([u64::from(self.producers) + u64::from(self.mine[0])]);
        let (messages, unit) = (u128::from(stretch.messages), u128::from(stretch.seconds) * u128::from(SECOND));
        let step = |(here, next): (&u32, u64)| {
            let scaled = u128::from(next - u64::from(*here)) * unit;
            let narrow = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
            Exact { nanos: narrow(scaled / messages), rest: narrow(scaled % messages) }
        };
        self.steps = self.mine.iter().zip(nexts).map(step).collect();
    }

    /// Skips what is later than the policy keeps, in whole rounds where the debt is long.
    fn forgive(&mut self, now: Instant) {
        let keep = match self.catch_up {
            CatchUp::All => return,
            CatchUp::Cap(keep) => keep,
            // One interval of this thread's own messages: what is due now is sent, what was due before is not.
            CatchUp::Drop => {
                let Stretch { messages, seconds, .. } = self.stretch;
                let per_message = u128::from(seconds) * u128::from(SECOND) * u128::from(self.producers)
                    / (u128::from(messages.max(1)) * self.mine.len() as u128);
                Duration::from_nanos(u64::try_from(per_message).unwrap_or(u64::MAX))
            }
        };
        self.skip_older_than(now.0.saturating_sub(nanos(keep)));
    }

    fn skip_older_than(&mut self, oldest: u64) {
        // What is due at the end or later would never be sent, so it is not skipped either.
        let oldest = oldest.saturating_sub(self.start.0).min(self.end);
        while self.at.nanos < oldest {
            let first = self.stretch.first_not_before(oldest.min(self.stretch.until));
            let before = self.next();
            self.skip_to(first);
            if self.next() == before {
                return;
            }
            self.enter(self.stretch);
        }
    }

    /// Moves to the first of this thread's messages whose number in the run is at least `first`.
    fn skip_to(&mut self, first: u128) {
        let (producers, len) = (u128::from(self.producers), self.mine.len());
        let round = u64::try_from(first / producers).unwrap_or(u64::MAX);
        let turn = self.mine.partition_point(|place| u128::from(*place) < first % producers);
        let (round, turn) = if turn == len { (round.saturating_add(1), 0) } else { (round, turn) };
        let number = |round: u64, turn: usize| u128::from(round) * len as u128 + turn as u128;
        let skips = number(round, turn).saturating_sub(number(self.round, self.turn));
        if skips > 0 {
            self.skipped = self.skipped.saturating_add(u64::try_from(skips).unwrap_or(u64::MAX));
            (self.round, self.turn) = (round, turn);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rate::{Rate, RateList, RatePoint};

    fn pace(rate: u64, producers: u32, mine: &[u32], catch_up: CatchUp) -> Pace {
        let rate = Rate::per_second(rate).expect("in range");
        Pace::new(Instant(0), rate, None, producers, mine.to_vec(), catch_up)
    }

    /// Everything that `tempo` sends within `lasts`, by all threads together, in order: when, and by which producer.
    fn played(tempo: &Tempo, lasts: Duration, producers: u32, threads: u32) -> Vec<(u64, u32)> {
        let mut all = Vec::new();
        for thread in 0..threads.min(producers) {
            let mine: Vec<u32> = (0..producers).filter(|place| place % threads.min(producers) == thread).collect();
            let mut pace = Pace::new(Instant(7), tempo.clone(), Some(lasts), producers, mine.clone(), CatchUp::All);
            while let Some(due) = pace.due(Instant(u64::MAX - 1)) {
                all.push((due.intended.0 - 7, mine[due.turn]));
            }
            assert_eq!((pace.next_at(), pace.skip_until(Instant(u64::MAX))), (Instant(u64::MAX), 0));
        }
        all.sort_unstable();
        all
    }

    /// Rates of 0, 0.5, 3, 0 and 7 msg/s: messages are due where the sum of the rates says, and none in between.
    #[test]
    fn a_list_of_rates_is_played_to_the_message() {
        let point = |minute, milli| RatePoint { minute, milli };
        let list = RateList::new(false, vec![point(0, 0), point(1, 6_000), point(2, 0)]).expect("in order");
        let tempo = Tempo::Listed { list, day_second: 0 };
        let all = played(&tempo, Duration::from_secs(120), 3, 2);
        // Steps of 0, 500, .. 6000, .. 500 thousandths, 5 s each: 360 messages in all.
        assert_eq!(all.len(), 360);
        assert_eq!(all.iter().map(|(_, place)| *place).take(5).collect::<Vec<_>>(), [0, 1, 2, 0, 1]);
        // The second step has 0.5 msg/s: messages 0 and 1 at 5 and 7 s, message 2 at 9 s; then 1 msg/s, half a
        // message having come due before.
        let seconds: Vec<f64> = all.iter().take(6).map(|(at, _)| Duration::from_nanos(*at).as_secs_f64()).collect();
        assert_eq!(seconds, [5.0, 7.0, 9.0, 10.5, 11.5, 12.5]);
    }

    /// A list whose rates are 0 for long, or to the end, causes no endless search for the next message.
    #[test]
    fn nothing_is_due_where_the_rate_is_0() {
        let point = |minute, milli| RatePoint { minute, milli };
        let list = RateList::new(false, vec![point(0, 1_000), point(1, 0)]).expect("in order");
        let tempo = Tempo::Listed { list, day_second: 0 };
        let week = played(&tempo, Duration::from_secs(7 * 86_400), 1, 1);
        assert_eq!(week.len() as u64, tempo.messages_within(Duration::from_secs(60)));
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
        /// Whatever the rate or the list, exactly the messages due within the time are sent, by the producers in turn.
        #[test]
        fn a_schedule_ends_where_it_should(
            milli in prop::collection::vec(prop_oneof![Just(0), 1..30_000_u64], 1..5), gap in 1..3_u32, steady in any::<bool>(),
            lasts in 0..400_000_000_000_u64, producers in 1..6_u32, threads in 1..4_u32, skip in 0..400_000_000_000_u64,
        ) {
            let lasts = Duration::from_nanos(lasts);
            let points = (0..).zip(&milli).map(|(n, milli)| RatePoint { minute: n * gap, milli: *milli }).collect();
            let tempo = match RateList::new(false, points) {
                Ok(list) if !steady => Tempo::Listed { list, day_second: 0 },
                _ => Rate::from_milli(milli[0].max(1)).into(),
            };
            let all = played(&tempo, lasts, producers, threads);
            prop_assert_eq!(all.len() as u64, tempo.messages_within(lasts));
            prop_assert!(all.iter().zip(0_u32..).all(|((_, place), n)| *place == n % producers), "in turn");
            prop_assert!(all.iter().all(|(at, _)| *at < nanos(lasts)), "the window is half open");
            // What is skipped is what was due before.
            let mine: Vec<u32> = (0..producers).step_by(2).collect();
            let mut pace = Pace::new(Instant(7), tempo, Some(lasts), producers, mine.clone(), CatchUp::All);
            let skipped = pace.skip_until(Instant(7 + skip));
            let own: Vec<_> = all.iter().filter(|(_, place)| mine.contains(place)).collect();
            prop_assert_eq!(skipped as usize, own.iter().filter(|(at, _)| *at < skip).count());
            let next = own.iter().find(|(at, _)| *at >= skip).map_or(Instant(u64::MAX), |(at, _)| Instant(7 + at));
            prop_assert_eq!(pace.next_at(), next);
        }

        /// However producers are spread over threads, message n of the run is due at n / rate and belongs to producer n
        /// mod P.
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
