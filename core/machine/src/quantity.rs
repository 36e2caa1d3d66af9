//! Numbers as people read them: grouped digits, three significant ones, a unit that fits.
//!
//! ```
//! use std::time::Duration;
//!
//! use omb_machine::quantity::{bytes, counted, latency, per_second, rate, span};
//!
//! assert_eq!(counted(1_234_567, "message"), "1,234,567 messages");
//! assert_eq!(rate(per_second(90, Duration::from_secs(60))), "1.50");
//! assert_eq!(latency(1_204_000.0), "1.20 ms");
//! assert_eq!(bytes(3_686_400_000), "3.69 GB");
//! assert_eq!(span(Duration::from_secs(5_400)), "1 h 30 min");
//! ```

use std::time::Duration;

use crate::time::WallTime;

/// A count as a floating-point number, for rates, means and ratios that are shown.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "shown, not counted with")]
pub fn real(count: u64) -> f64 {
    count as f64
}

/// `amount` per second; 0 if no time passed, so that no result ever holds a NaN or an infinity.
#[must_use]
pub fn per_second(amount: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() { 0.0 } else { real(amount) / elapsed.as_secs_f64() }
}

/// `1,234,567`.
#[must_use]
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Rounded to three significant digits, whole from 100 on and grouped: `0.0123`, `1.20`, `45.6`, `9,998`.
#[must_use]
pub fn three_digits(value: f64) -> String {
    if !value.is_finite() || value <= 0.0 {
        return "0".to_owned();
    }
    // A value that rounds up to 10 or 100 must not show a digit too many.
    let decimals = match value {
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        v if v >= 0.9995 => 2,
        v if v >= 0.09995 => 3,
        v if v >= 0.009_995 => 4,
        _ => 6,
    };
    if decimals == 0 { whole(value) } else { format!("{value:.decimals$}") }
}

/// Rounded to a whole number and grouped.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, and saturates")]
pub fn whole(value: f64) -> String {
    grouped(value.round() as u64)
}

/// A rate in messages per second: whole from 100 on, three digits below, so that 0.5 msg/s does not show as 1.
#[must_use]
pub fn rate(per_second: f64) -> String {
    three_digits(per_second)
}

/// A latency in nanoseconds with the unit that fits: `850 ns`, `12.3 µs`, `1.20 ms`, `2.50 s`.
#[must_use]
pub fn latency(nanos: f64) -> String {
    if nanos < 999.5 {
        return format!("{} ns", whole(nanos.max(0.0)));
    }
    for (unit, size) in [("µs", 1e3), ("ms", 1e6)] {
        if nanos / size < 999.5 {
            return format!("{} {unit}", three_digits(nanos / size));
        }
    }
    format!("{} s", three_digits(nanos / 1e9))
}

/// A duration as a person would write it: `250 ms`, `12.5 s`, `90 s`, `5 min`, `1 h 30 min`.
#[must_use]
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_nanos() != 0 && seconds < 1_000 {
        return latency(duration.as_secs_f64() * 1e9);
    }
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, 0) if minutes > 0 => format!("{minutes} min"),
        (0, 0..=1, _) => format!("{seconds} s"),
        (0, minutes, rest) => format!("{minutes} min {rest} s"),
        (hours, 0, 0) => format!("{hours} h"),
        (hours, minutes, 0) => format!("{hours} h {minutes} min"),
        (hours, minutes, rest) => format!("{hours} h {minutes} min {rest} s"),
    }
}

/// Bytes in powers of a thousand: `512 B`, `1.02 kB`, `3.69 GB`.
#[must_use]
pub fn bytes(count: u64) -> String {
    if count < 1_000 {
        return format!("{count} B");
    }
    let mut value = real(count);
    for unit in ["kB", "MB", "GB"] {
        value /= 1e3;
        if value < 999.5 {
            return format!("{} {unit}", three_digits(value));
        }
    }
    format!("{} TB", three_digits(value / 1e3))
}

/// `1 message`, `2 messages`: a grouped count and a noun that takes an `s`.
#[must_use]
pub fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), plural(count))
}

/// `s`, unless the count is one.
#[must_use]
pub fn plural<N: PartialEq + From<u8>>(count: N) -> &'static str {
    if count == N::from(1) { "" } else { "s" }
}

/// `text` with its first letter in upper case.
#[must_use]
pub fn uppercase(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// An instant in UTC by RFC 3339, to the millisecond: `2026-01-04T12:30:00.250Z`.
#[must_use]
pub fn rfc3339(at: WallTime) -> String {
    let seconds = at.0 / 1_000_000_000;
    let mut days = seconds / 86_400;
    let mut year = 1970_u64;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_of = |year| if leap(year) { 366 } else { 365 };
    while days >= days_of(year) {
        days -= days_of(year);
        year += 1;
    }
    let mut month = 1;
    for length in [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = at.0 / 1_000_000 % 1_000;
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_three_digits_and_a_unit_that_fits() {
        let shown = [0.0, 1.0, 999.4, 999.6, 1_234.0, 99_949.0, 99_960.0, 1_204_000.0, 999_600_000.0, 75.0e9, 4e12];
        let want = [
            "0 ns", "1 ns", "999 ns", "1.00 µs", "1.23 µs", "99.9 µs", "100 µs", "1.20 ms", "1.00 s", "75.0 s",
            "4,000 s",
        ];
        assert_eq!(shown.map(latency), want);
    }

    #[test]
    fn counts_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0.5, 3.138, 9_999.6, 0.0].map(rate), ["0.500", "3.14", "10,000", "0"]);
        assert_eq!([1, 2].map(|n| counted(n, "topic")), ["1 topic", "2 topics"]);
    }

    #[test]
    fn bytes_and_spans_are_said_as_people_say_them() {
        assert_eq!([999, 1_024, 3_686_400_000, 999_999].map(bytes), ["999 B", "1.02 kB", "3.69 GB", "1.00 MB"]);
        let spans = [0, 30, 90, 300, 330, 3_600, 5_400].map(|s| span(Duration::from_secs(s)));
        assert_eq!(spans, ["0 s", "30 s", "90 s", "5 min", "5 min 30 s", "1 h", "1 h 30 min"]);
        assert_eq!(span(Duration::from_millis(1_500)), "1.50 s");
    }

    #[test]
    fn dates_know_leap_years() {
        let at = |seconds: u64| rfc3339(WallTime(seconds * 1_000_000_000 + 250_000_000));
        assert_eq!(at(0), "1970-01-01T00:00:00.250Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.250Z");
        assert_eq!(at(1_709_210_096), "2024-02-29T12:34:56.250Z");
        assert_eq!(at(1_767_225_599), "2025-12-31T23:59:59.250Z");
    }
}
