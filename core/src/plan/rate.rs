//! Rates as exact fractions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Messages per second, as an exact fraction, above zero and at most [`Rate::HIGHEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
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

impl TryFrom<Unchecked> for Rate {
    type Error = &'static str;

    /// Takes what can be shared among any number of producers, which is all that travels: totals of a run.
    fn try_from(Unchecked { messages, seconds }: Unchecked) -> Result<Self, Self::Error> {
        let sound = (1..=Self::HIGHEST).contains(&messages) && (1..=u64::from(u32::MAX)).contains(&seconds);
        if sound { Ok(Self { messages, seconds }) } else { Err("a rate is above zero and at most one per nanosecond") }
    }
}

impl Rate {
    /// The most messages per second that can be asked for: one per nanosecond.
    pub const HIGHEST: u64 = 1_000_000_000;

    /// `messages` per second; `None` for zero, or above [`Self::HIGHEST`].
    #[must_use]
    pub fn per_second(messages: u64) -> Option<Self> {
        (1..=Self::HIGHEST).contains(&messages).then_some(Self { messages, seconds: 1 })
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

    /// Numerator and denominator: so many messages in so many seconds, in lowest terms.
    #[must_use]
    pub fn fraction(self) -> (u64, u64) {
        (self.messages, self.seconds)
    }

    /// As a floating number, for showing.
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
}
