//! Metrics as text. Source: Prometheus, "Exposition formats", text format 0.0.4.

use std::fmt::{Display, Write};

use crate::printable::printable;

/// The `Content-Type` of [`Text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A growing text in the exposition format.
#[derive(Clone, Debug, Default)]
pub struct Text(pub String);

impl Text {
    /// Begins a family: its help and its type (`counter`, `gauge`, `histogram` or `summary`).
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One sample of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped_label(value))).collect();
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
        }
    }

    /// A family of one sample.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing to memory does not fail");
    }
}

/// A label's value, escaped as the format requires: backslash, quote and line feed.
fn escaped_label(value: &str) -> String {
    printable(value).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Reads what was written, for tests (feature `fixture`).
#[cfg(any(test, feature = "fixture"))]
pub mod fixture {
    use std::collections::BTreeMap;

    /// Labels of a sample, read by the grammar of the format, and what follows them.
    fn labels(mut text: &str) -> Option<(Vec<(String, String)>, &str)> {
        let mut labels = Vec::new();
        loop {
            let (name, rest) = text.split_once("=\"")?;
            let named = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if name.is_empty() || !name.chars().all(named) || name.starts_with(|c: char| c.is_ascii_digit()) {
                return None;
            }
            let (mut value, mut characters) = (String::new(), rest.chars());
            loop {
                match characters.next()? {
                    '"' => break,
                    '\\' => value.push(match characters.next()? {
                        'n' => '\n',
                        escaped @ ('\\' | '"') => escaped,
                        _ => return None,
                    }),
                    plain => value.push(plain),
                }
            }
            labels.push((name.to_owned(), value));
            text = characters.as_str();
            match text.strip_prefix(',') {
                Some(more) => text = more,
                None => return Some((labels, text.strip_prefix('}')?)),
            }
        }
    }

    /// Each sample's name, labels and value.
    pub type Samples = BTreeMap<(String, Vec<(String, String)>), f64>;

    /// Reads the whole text: every line has its place, every family its help and type before its samples.
    ///
    /// # Panics
    /// If it violates the format.
    #[must_use]
    pub fn parsed(text: &str) -> Samples {
        assert!(text.ends_with('\n'), "the last line ends too");
        let (mut samples, mut families) = (Samples::new(), BTreeMap::new());
        let mut open = (String::new(), String::new());
        let mut helped = String::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                helped = rest.split_once(' ').expect("a name and a help").0.to_owned();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                assert_eq!(name, helped, "help first");
                assert!(["counter", "gauge", "histogram", "summary"].contains(&kind), "{line}");
                assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
                assert_eq!(name.starts_with("omb_") && kind == "counter", name.ends_with("_total"), "{name}");
                open = (name.to_owned(), kind.to_owned());
            } else {
                let end = line.find(['{', ' ']).expect("a name and a value");
                let name = &line[..end];
                assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{line}");
                let suffixes: &[&str] = match open.1.as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "summary" => &["", "_sum", "_count"],
                    _ => &[""],
                };
                assert!(suffixes.iter().any(|suffix| format!("{}{suffix}", open.0) == name), "{line}");
                let (labels, value) = match line[end..].strip_prefix('{') {
                    Some(rest) => labels(rest).unwrap_or_else(|| panic!("labels of {line}")),
                    None => (Vec::new(), &line[end..]),
                };
                let value = value.strip_prefix(' ').and_then(|value| value.parse::<f64>().ok()).expect("a number");
                assert!(value.is_finite(), "{line}");
                assert!(samples.insert((name.to_owned(), labels), value).is_none(), "twice: {line}");
            }
        }
        samples
    }

    /// The value of one sample.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn value(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        *samples.get(&(name.to_owned(), labels)).unwrap_or_else(|| panic!("no {name}"))
    }
}
