//! Java's properties text: the grammar of `java.util.Properties.load`.
//!
//! One `name=value` per line. `:` and blanks separate as well; `#` and `!` begin a comment; a backslash escapes the
//! next character, and at the end of a line it joins the next one. Names and values come out in the order of the text,
//! duplicates included.

use std::{iter::Peekable, str::Chars};

/// One `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Property {
    /// The line of the text on which it begins, from 0.
    pub(crate) line: usize,
    /// Characters before the name on that line.
    pub(crate) indent: usize,
    pub(crate) name: String,
    /// Empty for a lone name. Blanks at its end are kept, as Java keeps them.
    pub(crate) value: String,
}

/// A line that the grammar rejects, from 0, and why.
pub(crate) type Malformed = (usize, String);

/// Reads properties text.
pub(crate) fn parse(text: &str) -> Result<Vec<Property>, Malformed> {
    let mut properties = Vec::new();
    let mut lines = natural_lines(text).into_iter().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let content = line.trim_start_matches(is_blank);
        if content.is_empty() || content.starts_with(['#', '!']) {
            continue;
        }
        let indent = line.chars().count() - content.chars().count();
        let mut logical = content.to_owned();
        while continues(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(is_blank));
        }
        let malformed = |what| (number, what);
        let mut rest = logical.chars().peekable();
        let name = unescape(&mut rest, true).map_err(malformed)?;
        skip_separator(&mut rest);
        let value = unescape(&mut rest, false).map_err(malformed)?;
        properties.push(Property { line: number, indent, name, value });
    }
    Ok(properties)
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

/// Lines end with a line feed, a carriage return, or both in this order.
fn natural_lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(end) = rest.find(['\n', '\r']) {
        lines.push(&rest[..end]);
        rest = rest[end..].strip_prefix("\r\n").unwrap_or(&rest[end + 1..]);
    }
    lines.push(rest);
    lines
}

/// A line continues if it ends with a backslash that is not itself escaped.
fn continues(line: &str) -> bool {
    let backslashes = line.len() - line.trim_end_matches('\\').len();
    backslashes % 2 == 1
}

/// Blanks, at most one `=` or `:`, blanks.
fn skip_separator(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| is_blank(*c)).is_some() {}
    rest.next_if(|c| matches!(c, '=' | ':'));
    while rest.next_if(|c| is_blank(*c)).is_some() {}
}

/// Takes a name, which ends before its separator, or all that is left.
fn unescape(rest: &mut Peekable<Chars<'_>>, name: bool) -> Result<String, String> {
    let mut text = String::new();
    // Java counts in 16-bit units, so a character beyond them is written as two escapes.
    let mut high: Option<u16> = None;
    while let Some(c) = rest.next_if(|c| !name || !(is_blank(*c) || matches!(c, '=' | ':'))) {
        let unescaped = match c {
            '\\' => match rest.next() {
                None => continue,
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    let unit = unit(rest)?;
                    let decoded = match high.take() {
                        Some(first) => char::decode_utf16([first, unit]).next(),
                        None if (0xD800..0xDC00).contains(&unit) => {
                            high = Some(unit);
                            continue;
                        }
                        None => char::decode_utf16([unit]).next(),
                    };
                    match decoded {
                        Some(Ok(decoded)) => decoded,
                        _ => return Err(format!("\\u{unit:04X} is half of a character")),
                    }
                }
                Some(other) => other,
            },
            c => c,
        };
        if let Some(high) = high {
            return Err(format!("\\u{high:04X} is half of a character"));
        }
        text.push(unescaped);
    }
    match high {
        Some(high) => Err(format!("\\u{high:04X} is half of a character")),
        None => Ok(text),
    }
}

/// The four hexadecimal digits of `\uXXXX`.
fn unit(rest: &mut Peekable<Chars<'_>>) -> Result<u16, String> {
    let mut unit = 0;
    for _ in 0..4 {
        let digit = rest.next().and_then(|c| c.to_digit(16));
        let digit = digit.ok_or("\\u must be followed by four hexadecimal digits, such as \\u00E9")?;
        unit = unit * 16 + u16::try_from(digit).expect("a hexadecimal digit is below 16");
    }
    Ok(unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn reads(text: &str, want: &[(&str, &str)]) {
        let got = parse(text).expect("well-formed");
        let got: Vec<_> = got.iter().map(|property| (property.name.as_str(), property.value.as_str())).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn separators_and_blanks() {
        reads("acks=all\nlinger.ms : 1\nbatch.size 5\n", &[("acks", "all"), ("linger.ms", "1"), ("batch.size", "5")]);
        reads("  acks\t=\t all  \n", &[("acks", "all  ")]);
        reads("lone\nempty=\n=value", &[("lone", ""), ("empty", ""), ("", "value")]);
        reads("a==b\nc=d=e:f g", &[("a", "=b"), ("c", "d=e:f g")]);
    }

    #[test]
    fn comments_and_blank_lines() {
        reads(
            "# one\n  ! two\n\n \t\na=1 # not a comment\r\nb=2\rc=3",
            &[("a", "1 # not a comment"), ("b", "2"), ("c", "3")],
        );
        // A comment is not continued.
        reads("# one \\\na=1", &[("a", "1")]);
    }

    #[test]
    fn continued_lines() {
        reads("list=a,\\\n   b,\\\n   c\nnext=1", &[("list", "a,b,c"), ("next", "1")]);
        reads("path=c:\\\\\nnext=1", &[("path", "c:\\"), ("next", "1")]);
        reads("end=1\\", &[("end", "1")]);
        // What looks like a comment in a continuation is none.
        reads("a=1\\\n#2", &[("a", "1#2")]);
    }

    #[test]
    fn escapes() {
        reads(r"a\ b\=c=\ttab\nline\qplain\u00e9", &[("a b=c", "\ttab\nlineqplain\u{e9}")]);
        reads(r"smile=\uD83D\uDE00", &[("smile", "\u{1F600}")]);
        let half = |at, unit| Err((at, format!("\\u{unit} is half of a character")));
        assert_eq!(parse("ok=1\nhalf=\\uD83Dx"), half(1, "D83D"));
        assert_eq!(parse("half=\\uD83D"), half(0, "D83D"));
        assert_eq!(parse("half=\\uDE00"), half(0, "DE00"));
        let digits = "\\u must be followed by four hexadecimal digits, such as \\u00E9";
        assert_eq!(parse("a=\\u12g4"), Err((0, digits.to_owned())));
    }

    #[test]
    fn places() {
        let got = parse("\n# c\n  a=1\\\n 2\nb=3").expect("well-formed");
        let places: Vec<_> = got.iter().map(|property| (property.line, property.indent)).collect();
        assert_eq!(places, [(2, 2), (4, 0)]);
    }

    /// As `java.util.Properties.store` writes it: every blank, separator and line end escaped.
    fn escaped(text: &str) -> String {
        text.chars()
            .map(|c| match c {
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                '\u{c}' => "\\f".to_owned(),
                ' ' | '=' | ':' | '#' | '!' | '\\' => format!("\\{c}"),
                c if c.is_ascii() => c.to_string(),
                c => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
            })
            .collect()
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_escaped_is_read_back(pairs in proptest::collection::vec((any::<String>(), any::<String>()), 0..8)) {
            let text: String = pairs.iter().map(|(name, value)| format!("{}={}\n", escaped(name), escaped(value))).collect();
            let got: Vec<_> = parse(&text).expect("well-formed").into_iter().map(|p| (p.name, p.value)).collect();
            prop_assert_eq!(got, pairs);
        }
    }
}
