//! Durations and sizes as people write them: one grammar, for files and for flags.
//!
//! ```
//! use std::time::Duration;
//!
//! use omb_machine::units::{duration, duration_text, size};
//!
//! assert_eq!(duration("1h30m"), Some(Duration::from_secs(5_400)));
//! assert_eq!(duration_text(Duration::from_secs(5_400)), "90m");
//! assert_eq!(duration("90"), None, "a number without a unit could mean anything");
//! assert_eq!(duration("30m1h"), None, "units go from large to small");
//!
//! assert_eq!(size("512MiB"), Some(512 * 1024 * 1024));
//! assert_eq!(size("1000000"), Some(1_000_000), "plain bytes");
//! assert_eq!(size("1MB"), None, "only binary units, which leave no doubt");
//! ```

use std::time::Duration;

/// No duration of a run is longer: a year in nanoseconds leaves room in 64 bits for every sum of them.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Reads `90s`, `5m`, `1h30m`, `500ms`: whole numbers with units, from large to small, each unit at most once.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut previous = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let count: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let millis = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        if millis >= previous {
            return None;
        }
        previous = millis;
        rest = &rest[letters..];
        total = total.checked_add(Duration::from_millis(count.checked_mul(millis)?))?;
    }
    (previous != u64::MAX && total <= DURATION_MAX).then_some(total)
}

/// A duration as [`duration`] reads it, in one unit.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

/// Reads `512MiB`, `4GiB`, `1000000`: bytes, with an optional binary unit (`KiB`, `MiB`, `GiB`, or their first letter).
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor: u64 = match text[digits..].trim_start() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return None,
    };
    text[..digits].parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("512MiB", 512 << 20), ("4 GiB", 4 << 30), ("1048576", 1 << 20), ("0", 0), ("7B", 7), ("2K", 2048)]
        {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for wrong in ["", "GiB", "1.5GiB", "12XB", "-1", "1MB", "4GiB ", "99999999999999999999", "17179869184GiB"] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_is_read_as_it_was_written(millis in 0..31_536_000_000_u64) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(duration(&duration_text(span)), Some(span));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = (duration(&text), size(&text));
        }
    }
}
