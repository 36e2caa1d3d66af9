//! Untrusted text, made safe to show.
//!
//! Names and messages of controllers, workers, nodes, brokers, users and files reach logs, terminals and reports. A
//! newline in one of them would forge a line of its own, an escape sequence would colour or move the text around it,
//! and a bidirectional mark would disguise it (CVE-2021-42574). Every sink passes such text through here.

use std::{borrow::Cow, fmt::Write as _};

/// `text` on one line and without effect on a terminal: control characters, line separators, bidirectional marks and
/// characters without width are escaped as in Rust's literals (`\n`, `\u{1b}`). Everything else stays as it is.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_foul) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_foul(c) {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// The same, limited to `chars_max` characters as shown; a shortened text ends in `…`.
#[must_use]
pub fn printable_within(text: &str, chars_max: usize) -> String {
    // Escapes only make it longer, so this much is enough of a text of unbounded length.
    let head = text.char_indices().nth(chars_max + 1).map_or(text, |(at, _)| &text[..at]);
    let shown = printable(head);
    match shown.char_indices().nth(chars_max) {
        None => shown.into_owned(),
        Some(_) if chars_max == 0 => String::new(),
        Some(_) => shown.chars().take(chars_max - 1).chain(['…']).collect(),
    }
}

/// Whether a character would affect more than its own place on the screen.
fn is_foul(c: char) -> bool {
    c.is_control()
        || matches!(c,
            // Separators of lines and paragraphs.
            '\u{2028}' | '\u{2029}'
            // Bidirectional marks, embeddings, overrides and isolates (UAX #9).
            | '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            // Without width: soft hyphen, zero-width space and joiners, word joiner and its kin, byte order mark, tags.
            | '\u{00ad}' | '\u{180e}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}' | '\u{206a}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_harmless_stays() {
        for text in ["", "plain", "Grüße, 世界 🎉", r"C:\temp", "a b"] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_would_act_is_escaped() {
        assert_eq!(printable("a\nforged - INFO - line"), r"a\nforged - INFO - line");
        assert_eq!(printable("\u{1b}[31mred\u{7f}\u{9b}"), r"\u{1b}[31mred\u{7f}\u{9b}");
        assert_eq!(printable("photo\u{202e}gnp.exe"), r"photo\u{202e}gnp.exe");
        assert_eq!(printable("a\u{200b}b\u{2028}c\td"), r"a\u{200b}b\u{2028}c\td");
    }

    #[test]
    fn what_is_cut_off_says_so() {
        assert_eq!(printable_within("abcdef", 6), "abcdef");
        assert_eq!(printable_within("abcdefg", 6), "abcde…");
        assert_eq!(printable_within("\n\n\n\n", 6), r"\n\n\…");
        assert_eq!(printable_within("abc", 0), "");
        assert_eq!(printable_within("", 0), "");
    }

    proptest! {
        #[test]
        fn nothing_foul_is_left_and_lengths_hold(text in any::<String>(), max in 0_usize..40) {
            prop_assert!(!printable(&text).chars().any(is_foul));
            prop_assert!(printable_within(&text, max).chars().count() <= max);
            // Applying it twice changes nothing.
            let once = printable(&text).into_owned();
            prop_assert_eq!(printable(&once), once.as_str());
        }
    }
}
