//! Rates as exact fractions, and how they change while a load goes on.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use omb_machine::time::nanos;

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// Messages per second, as an exact fraction, above zero and at most [`Rate::HIGHEST`].
///
/// ```
/// use std::time::Duration;
///
/// use omb_bench::rate::Rate;
///
/// let total = Rate::per_second(10_000).expect("in range");
/// // A third has no exact decimal; as a fraction nothing is lost.
/// assert_eq!(total.share(1, 3).fraction(), (10_000, 3));
/// assert_eq!(total.messages_within(Duration::from_secs(90)), 900_000);
///
/// assert_eq!(Rate::decimal("0.5").map(Rate::fraction), Some((1, 2)), "one message in two seconds");
/// assert_eq!(Rate::per_second(0), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Rate {
    messages: u64,
    seconds: u64,
}

/// A [`Rate`] as it arrives.
#[derive(Deserialize)]
struct Unchecked {
    messages: u64,
    seconds: u64,
}

/// In text also as records of November 2026 hold it: whole messages per second.
#[derive(Deserialize)]
#[serde(untagged)]
enum UncheckedText {
    Whole(u64),
    Fraction(Unchecked),
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let unchecked = if deserializer.is_human_readable() {
            match UncheckedText::deserialize(deserializer)? {
                UncheckedText::Whole(messages) => Unchecked { messages, seconds: 1 },
                UncheckedText::Fraction(fraction) => fraction,
            }
        } else {
            Unchecked::deserialize(deserializer)?
        };
        Self::try_from(unchecked).map_err(D::Error::custom)
    }
}

impl TryFrom<Unchecked> for Rate {
    type Error = &'static str;

    /// Accepts what can be divided among any number of producers, which is all that travels: totals of a run.
    fn try_from(Unchecked { messages, seconds }: Unchecked) -> Result<Self, Self::Error> {
        let sound = (1..=Self::HIGHEST).contains(&messages) && (1..=u64::from(u32::MAX)).contains(&seconds);
        if sound { Ok(Self { messages, seconds }) } else { Err("a rate is above zero and at most one per nanosecond") }
    }
}

impl Rate {
    /// The highest rate, in messages per second: one per nanosecond.
    pub const HIGHEST: u64 = 1_000_000_000;

    /// `messages` per second; `None` for zero, or above [`Self::HIGHEST`].
    #[must_use]
    pub fn per_second(messages: u64) -> Option<Self> {
        (1..=Self::HIGHEST).contains(&messages).then_some(Self { messages, seconds: 1 })
    }

    /// Messages per second from a decimal number, exactly: `0.5` is one message in two seconds. `None` for zero, above
    /// [`Self::HIGHEST`], for more than 9 decimals, or more than 9 digits in all where some are decimals.
    #[must_use]
    pub fn decimal(text: &str) -> Option<Self> {
        let (text, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let decimals = decimals.trim_end_matches('0');
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + decimals.len() == 0 || !digits(whole) || !digits(decimals) {
            return None;
        }
        let places = i32::try_from(decimals.len()).ok()?.checked_sub(exponent.parse().ok()?)?;
        let more = 10_u64.checked_pow(u32::try_from(-places.min(0)).ok()?)?;
        let messages: u64 = format!("{whole}{decimals}").parse().ok()?;
        let messages = messages.checked_mul(more)?;
        let seconds = 10_u64.pow(u32::try_from(places.max(0)).ok().filter(|places| *places <= 9)?);
        let common = gcd(messages, seconds);
        Self::try_from(Unchecked { messages: messages / common, seconds: seconds / common }).ok()
    }

    /// Thousandths of a message per second, for tests.
    #[cfg(test)]
    pub(crate) fn from_milli(milli: u64) -> Self {
        let common = gcd(milli, 1_000);
        Self { messages: milli / common, seconds: 1_000 / common }
    }

    /// The share of `part` equal parts in `whole`: 3 of 10 producers of a total rate.
    ///
    /// # Panics
    /// If `part` is zero or above `whole`, or the fraction leaves 64 bits (a thousand million producers do not).
    #[must_use]
    pub fn share(self, part: u32, whole: u32) -> Self {
        assert!(0 < part && part <= whole, "a share is above none and at most all: {part} of {whole}");
        let messages = self.messages.checked_mul(u64::from(part)).expect("rate times producers fits in 64 bits");
        let seconds = self.seconds.checked_mul(u64::from(whole)).expect("seconds times producers fits in 64 bits");
        let common = gcd(messages, seconds);
        Self { messages: messages / common, seconds: seconds / common }
    }

    /// Numerator and denominator: messages and seconds, in lowest terms.
    #[must_use]
    pub fn fraction(self) -> (u64, u64) {
        (self.messages, self.seconds)
    }

    /// Messages that are due within a window that begins with message 0 and ends before `length`: the one due at its
    /// very end belongs to the next window.
    #[must_use]
    pub fn messages_within(self, length: Duration) -> u64 {
        let due = u128::from(nanos(length)) * u128::from(self.messages);
        u64::try_from(due.div_ceil(u128::from(self.seconds) * u128::from(SECOND))).unwrap_or(u64::MAX)
    }

    /// As a floating-point number, for display.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown, not computed with")]
    pub fn as_f64(self) -> f64 {
        self.messages as f64 / self.seconds as f64
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seconds == 1 { write!(f, "{}", self.messages) } else { write!(f, "{:.3}", self.as_f64()) }
    }
}

/// The total rate of a run over the time since its load began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tempo {
    /// Constant.
    Steady(Rate),
    /// By a list of points.
    Listed {
        /// The list.
        list: RateList,
        /// Seconds since midnight when the load begins, for a list by the time of day; ignored for others.
        day_second: u32,
    },
}

/// A total rate that changes along straight lines between points; its value at the beginning of a step of
/// [`RateList::STEP_SECONDS`] holds for that step. (AutoMQ's fork of the benchmark: `producerRateList`.)
///
/// In thousandths of a message per second, so that a sum over any number of steps stays exact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedList")]
pub struct RateList {
    by_day: bool,
    points: Vec<RatePoint>,
}

/// A [`RateList`] as it arrives.
#[derive(Deserialize)]
struct UncheckedList {
    by_day: bool,
    points: Vec<RatePoint>,
}

/// A point of a [`RateList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RatePoint {
    /// Minutes since the load began, or since midnight.
    pub minute: u32,
    /// Thousandths of a message per second.
    pub milli: u64,
}

impl TryFrom<UncheckedList> for RateList {
    type Error = &'static str;

    fn try_from(UncheckedList { by_day, points }: UncheckedList) -> Result<Self, Self::Error> {
        Self::new(by_day, points)
    }
}

impl RateList {
    /// How long a rate holds before the next one is taken.
    pub const STEP_SECONDS: u64 = 5;
    /// Most points of a list: one for each minute of a day.
    pub const POINTS_MAX: usize = 1_440;
    const DAY_MINUTES: u32 = 24 * 60;
    const MILLI_MAX: u64 = Rate::HIGHEST * 1_000;

    /// A list of points in order of their minutes, since midnight if `by_day`, else since the load began.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(by_day: bool, points: Vec<RatePoint>) -> Result<Self, &'static str> {
        if points.is_empty() || points.len() > Self::POINTS_MAX {
            return Err("a list of rates has 1 to 1440 points");
        }
        if !points.is_sorted_by(|a, b| a.minute < b.minute) {
            return Err("the points of a list of rates stand in order of their time, each time once");
        }
        if by_day && points.iter().any(|point| point.minute >= Self::DAY_MINUTES) {
            return Err("a time of day is between 0:00 and 23:59");
        }
        if points.iter().any(|point| point.milli > Self::MILLI_MAX) {
            return Err("a rate is at most one message per nanosecond");
        }
        if points.iter().all(|point| point.milli == 0) {
            return Err("every rate of the list is 0");
        }
        Ok(Self { by_day, points })
    }

    /// Whether the minutes count from midnight.
    #[must_use]
    pub fn by_day(&self) -> bool {
        self.by_day
    }

    /// The points, in order.
    #[must_use]
    pub fn points(&self) -> &[RatePoint] {
        &self.points
    }

    /// The rate at a second, since midnight or since the load began. Beyond the last point, and before the first, the
    /// nearest one's rate holds; by day the line continues over midnight.
    fn milli_at(&self, second: u64) -> u64 {
        const DAY: i64 = 86_400;
        let at = |point: &RatePoint| i64::from(point.minute) * 60;
        let second = i64::try_from(second).unwrap_or(i64::MAX);
        let second = if self.by_day { second % DAY } else { second };
        let after = self.points.partition_point(|point| at(point) <= second);
        let (first, last) = (&self.points[0], &self.points[self.points.len() - 1]);
        let (before, next) = match (after.checked_sub(1).map(|n| &self.points[n]), self.points.get(after)) {
            (Some(before), Some(next)) => ((at(before), before.milli), (at(next), next.milli)),
            (Some(before), None) if self.by_day => ((at(before), before.milli), (at(first) + DAY, first.milli)),
            (None, Some(next)) if self.by_day => ((at(last) - DAY, last.milli), (at(next), next.milli)),
            (Some(one), _) | (None, Some(one)) => return one.milli,
            (None, None) => unreachable!("a list has a point"),
        };
        let (span, gone) = (i128::from(next.0 - before.0), i128::from(second - before.0));
        let (low, high) = (i128::from(before.1), i128::from(next.1));
        // To the nearest thousandth.
        let value = (2 * (low * (span - gone) + high * gone) + span).div_euclid(2 * span);
        u64::try_from(value).unwrap_or(0)
    }
}

/// A stretch of a [`Tempo`] with one rate: message `n` is due `from + (n * seconds - shift) / messages` seconds after
/// the load began, rounded down to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Nanoseconds from the load's beginning to its own, and to the next one's.
    pub(crate) from: u64,
    pub(crate) until: u64,
    /// The rate: messages in seconds. May be zero.
    pub(crate) messages: u64,
    pub(crate) seconds: u64,
    /// `seconds` times the messages due before it.
    pub(crate) shift: u128,
}

impl Stretch {
    /// The first message that is due in it or later.
    pub(crate) fn first(&self) -> u128 {
        self.shift.div_ceil(u128::from(self.seconds))
    }

    /// The first message that is not due before `at` (nanoseconds after the load's beginning), if it lies in this
    /// stretch.
    pub(crate) fn first_not_before(&self, at: u64) -> u128 {
        let behind = u128::from(at.saturating_sub(self.from)) * u128::from(self.messages);
        (behind + self.shift * u128::from(SECOND)).div_ceil(u128::from(self.seconds) * u128::from(SECOND))
    }

    /// When message `n` is due, in nanoseconds and a remainder over `messages`.
    pub(crate) fn due(&self, n: u128) -> (u64, u64) {
        let scaled = (n * u128::from(self.seconds)).saturating_sub(self.shift) * u128::from(SECOND);
        let narrow = |value: u128| u64::try_from(value).unwrap_or(u64::MAX);
        let messages = u128::from(self.messages);
        (self.from.saturating_add(narrow(scaled / messages)), narrow(scaled % messages))
    }
}

impl Tempo {
    const STEP: u64 = RateList::STEP_SECONDS * SECOND;

    /// The first stretch.
    pub(crate) fn first(&self) -> Stretch {
        match self {
            Self::Steady(rate) => {
                let (messages, seconds) = rate.fraction();
                Stretch { from: 0, until: u64::MAX, messages, seconds, shift: 0 }
            }
            Self::Listed { .. } => self.step(0, 0),
        }
    }

    /// The one after `stretch`; `None` after the last, which lasts for ever.
    pub(crate) fn next(&self, stretch: &Stretch) -> Option<Stretch> {
        (stretch.until < u64::MAX).then(|| {
            let came = u128::from(stretch.messages) * u128::from(RateList::STEP_SECONDS);
            self.step(stretch.until / Self::STEP, stretch.shift + came)
        })
    }

    fn step(&self, step: u64, shift: u128) -> Stretch {
        let from = step.saturating_mul(Self::STEP);
        let (messages, seconds) = self.rate_of(step);
        Stretch { from, until: from.saturating_add(Self::STEP), messages, seconds, shift }
    }

    fn rate_of(&self, step: u64) -> (u64, u64) {
        match self {
            Self::Steady(rate) => rate.fraction(),
            Self::Listed { list, day_second } => {
                let day_second = if list.by_day { u64::from(*day_second) } else { 0 };
                (list.milli_at(day_second.saturating_add(step.saturating_mul(RateList::STEP_SECONDS))), 1_000)
            }
        }
    }

    /// Messages that are due before `length`, from the load's beginning.
    #[must_use]
    pub fn messages_within(&self, length: Duration) -> u64 {
        let length = nanos(length);
        let mut stretch = self.first();
        while stretch.until < length {
            let Some(next) = self.next(&stretch) else { break };
            stretch = next;
        }
        u64::try_from(stretch.first_not_before(length)).unwrap_or(u64::MAX)
    }

    /// The mean rate between two instants after the load's beginning, msg/s; the rate at `from` if they are equal.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "shown, not scheduled by")]
    pub fn mean(&self, from: Duration, to: Duration) -> f64 {
        let per_second = |step| {
            let (messages, seconds) = self.rate_of(step);
            messages as f64 / seconds as f64
        };
        let (from, to) = (nanos(from), nanos(to));
        if let Self::Steady(rate) = self {
            return rate.as_f64();
        }
        if to <= from {
            return per_second(from / Self::STEP);
        }
        let mut sum = 0.0;
        for step in from / Self::STEP..=(to - 1) / Self::STEP {
            let (begins, ends) = (step * Self::STEP, (step + 1).saturating_mul(Self::STEP));
            sum += per_second(step) * (to.min(ends) - from.max(begins)) as f64;
        }
        sum / (to - from) as f64
    }
}

impl From<Rate> for Tempo {
    fn from(rate: Rate) -> Self {
        Self::Steady(rate)
    }
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact() {
        let total = Rate::per_second(10_000).expect("in range");
        assert_eq!(total.share(4, 10).fraction(), (4_000, 1));
        assert_eq!(total.share(1, 3).fraction(), (10_000, 3));
        assert_eq!(total.share(1, 3).to_string(), "3333.333");
    }

    #[test]
    fn nothing_and_too_much_are_refused() {
        assert_eq!(Rate::per_second(0), None);
        assert_eq!(Rate::per_second(Rate::HIGHEST + 1), None);
    }

    #[test]
    fn decimals_are_exact() {
        let fraction = |text| Rate::decimal(text).map(Rate::fraction);
        assert_eq!(fraction("0.5"), Some((1, 2)));
        assert_eq!(fraction(".25"), Some((1, 4)));
        assert_eq!(fraction("1000"), Some((1_000, 1)));
        assert_eq!(fraction("33.30"), Some((333, 10)));
        assert_eq!(fraction("0.000000001"), Some((1, 1_000_000_000)));
        assert_eq!(
            (fraction("1e3"), fraction("1e-9")),
            (Some((1_000, 1)), Some((1, 1_000_000_000))),
            "as JSON writes it"
        );
        for refused in [
            "",
            ".",
            "0",
            "0.0",
            "-1",
            "1e99",
            "1e-10",
            "e1",
            "0.0000000001",
            "1000000001",
            "123456789.01",
            "1_0",
            " 1",
        ] {
            assert_eq!(fraction(refused), None, "{refused:?}");
        }
    }

    /// The message due at the very end belongs to the next window.
    #[test]
    fn windows_are_half_open() {
        let within =
            |rate: &str, millis| Rate::decimal(rate).expect("in range").messages_within(Duration::from_millis(millis));
        assert_eq!((within("1", 3_000), within("1", 3_001), within("1", 2_999)), (3, 4, 3));
        assert_eq!((within("1000", 1), within("1000", 0), within("3", 1_000)), (1, 0, 3));
        assert_eq!((within("0.5", 3_000), within("0.5", 2_000), within("0.5", 2_001)), (2, 1, 2));
    }

    fn list(by_day: bool, points: &[(u32, u64)]) -> RateList {
        let points = points.iter().map(|(minute, rate)| RatePoint { minute: *minute, milli: rate * 1_000 });
        RateList::new(by_day, points.collect()).expect("in order")
    }

    #[test]
    fn lists_that_say_nothing_are_refused() {
        let point = |minute, milli| RatePoint { minute, milli };
        for (by_day, points) in [
            (false, vec![]),
            (false, vec![point(0, 0)]),
            (false, vec![point(1, 5), point(1, 6)]),
            (false, vec![point(2, 5), point(1, 6)]),
            (true, vec![point(1_440, 5)]),
            (false, vec![point(0, RateList::MILLI_MAX + 1)]),
        ] {
            assert!(RateList::new(by_day, points.clone()).is_err(), "{points:?}");
        }
    }

    #[test]
    fn rates_lie_on_lines_between_points() {
        let minutes = list(false, &[(1, 100), (2, 700), (4, 100)]);
        let at = |second| minutes.milli_at(second);
        assert_eq!(
            [0, 60, 65, 90, 120, 180, 240, 9_999].map(at),
            [100_000, 100_000, 150_000, 400_000, 700_000, 400_000, 100_000, 100_000]
        );
        // From 22:00 to 2:00 the line goes over midnight, from 2:00 to 22:00 it comes back.
        let day = list(true, &[(120, 0), (1_320, 240)]);
        let at = |hour: u64| day.milli_at(hour * 3_600);
        assert_eq!(
            [22, 23, 0, 1, 2, 12, 24, 46].map(at),
            [240_000, 180_000, 120_000, 60_000, 0, 120_000, 120_000, 240_000]
        );
        let one = list(true, &[(600, 7)]);
        assert_eq!([0, 36_000, 80_000].map(|second| one.milli_at(second)), [7_000; 3]);
    }

    /// The messages of a list are the sum of its steps, to the message.
    #[test]
    fn a_list_adds_up() {
        let tempo = Tempo::Listed { list: list(false, &[(0, 0), (1, 120)]), day_second: 0 };
        // Steps of 0, 10, 20 .. 110 msg/s, for 5 s each.
        let seconds = Duration::from_secs;
        assert_eq!(tempo.messages_within(seconds(5)), 0);
        assert_eq!(tempo.messages_within(seconds(10)), 50);
        assert_eq!(tempo.messages_within(seconds(12)), 90);
        assert_eq!(tempo.messages_within(seconds(60)), 5 * 660);
        assert_eq!(tempo.messages_within(seconds(61)), 5 * 660 + 120);
        assert!((tempo.mean(Duration::ZERO, seconds(60)) - 55.0).abs() < 1e-9);
        assert!((tempo.mean(seconds(8), seconds(12)) - 15.0).abs() < 1e-9);
        let noon = Tempo::Listed { list: list(true, &[(0, 0), (720, 4_320)]), day_second: 43_200 };
        assert!((noon.mean(Duration::ZERO, seconds(5)) - 4_320.0).abs() < 1e-9);
    }
}
