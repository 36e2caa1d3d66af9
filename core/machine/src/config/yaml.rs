//! A strict reader of YAML: typed getters by key, which report errors with their place.
//!
//! The events of `saphyr-parser` become a small tree here and not in its own loader, for three reasons: duplicate keys
//! stay visible, a scalar keeps its text as written (`1_000`, `0.10`), and depth is limited before the stack is. JSON
//! is YAML, so a JSON file is read as well.

use std::{borrow::Cow, time::Duration};

pub use saphyr_parser::ScalarStyle;
use saphyr_parser::{Event, Parser, Span, Tag};

use super::{ConfigError, ConfigErrors, ConfigWarning, Leniency, Parsed, Place, Problem, placeholder::Environment};
use crate::{
    printable::printable,
    units::{duration, size},
};

/// Levels of lists and mappings in one file. Ours need three; a limit keeps hostile files off the stack.
const DEPTH_MAX: usize = 16;

/// What a size may look like, in messages.
const SIZE: &str = "a number of bytes from 1 on, or one with a unit (KiB, MiB, GiB), such as 512MiB or 4GiB";

/// What a duration may look like, in messages.
const DURATION: &str = "a duration with its unit (ms, s, m, h) up to 8760h, such as 90s, 5m, 1h30m or 500ms";

/// The lowest number that upstream reads, for keys where it treats any negative one as 0.
pub const NEGATIVE: i128 = i32::MIN as i128;

/// A value with its place.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub enum Value {
    /// A plain scalar without text, `~` or `null`.
    Null,
    /// The text as written, without quotes.
    Scalar {
        text: String,
        style: ScalarStyle,
    },
    List(Vec<Node>),
    Keys(Vec<Entry>),
}

/// One `key: value` of a mapping.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub place: Place,
    pub value: Node,
}

impl Node {
    /// What was found, for messages.
    pub fn found(&self) -> String {
        match &self.value {
            Value::Null => "nothing".to_owned(),
            Value::List(_) => "a list".to_owned(),
            Value::Keys(_) => "a mapping".to_owned(),
            Value::Scalar { text, style: ScalarStyle::Plain } if number(text).is_some() => shortened(text),
            Value::Scalar { text, style: ScalarStyle::Plain } => format!("`{}`", shortened(text)),
            Value::Scalar { text, .. } => format!("the quoted text \"{}\"", shortened(text)),
        }
    }
}

/// The first line of a text, at most 60 characters of it: messages stay on one line.
fn shortened(text: &str) -> String {
    let line = text.split(['\n', '\r']).next().unwrap_or_default();
    let head: String = line.chars().take(60).collect();
    let shown = printable(&head);
    if head.len() == text.len() { shown.into_owned() } else { format!("{shown}..") }
}

/// A plain scalar as a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Whole(i128),
    Fraction(f64),
}

/// Reads a decimal number. `1e3` and `5.0` are whole; `1_000`, `0x10` and `010` are not numbers, since YAML parsers
/// disagree on them.
pub fn number(text: &str) -> Option<Number> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || !digits.chars().all(plain) {
        return None;
    }
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    if leading_zero {
        return None;
    }
    if let Ok(whole) = text.parse::<i128>() {
        return Some(Number::Whole(whole));
    }
    let float = text.parse::<f64>().ok().filter(|float| float.is_finite())?;
    // Up to 2^53 every whole float is exact.
    if float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0 {
        return Some(Number::Whole(float as i128));
    }
    Some(Number::Fraction(float))
}

/// The candidate most similar to `text`, ignoring case, if any is similar enough.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Comparing takes time proportional to the product of both lengths, and nothing this long is a typo.
    if text.chars().count() > 120 {
        return None;
    }
    let text = text.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&text, &candidate.to_lowercase()), candidate))
        // Below this, suggestions become guesses: `topics` for `tools`.
        .filter(|(likeness, _)| *likeness >= 0.65)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

/// How the description of the fallback begins if a key is not applied at all.
const NOT_APPLIED: &str = "it is not applied";

/// A file being read: its top-level keys, and what was found wrong so far.
///
/// ```
/// use std::time::Duration;
///
/// use omb_machine::config::{Leniency, yaml::Reader};
///
/// let read = |text: &str, leniency| {
///     let mut reader = Reader::open("load.yaml", text, leniency, "keys such as topics: 1").expect("a mapping");
///     reader.check_keys(&["topics", "testDuration"], &[]);
///     let topics = reader.whole_u32("topics", 1, 1_000);
///     let lasts = reader.duration("testDuration");
///     reader.finish(topics.zip(lasts))
/// };
///
/// // JSON is YAML, too.
/// let parsed = read(r#"{"topics": 3, "testDuration": "1h30m"}"#, Leniency::Strict).expect("nothing is wrong");
/// assert_eq!(parsed.value, (3, Duration::from_secs(5_400)));
///
/// // Everything that is wrong is reported at once, with its place.
/// let errors = read("topics: 0\ntestDurations: 5m\n", Leniency::Strict).expect_err("two errors");
/// let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
/// assert_eq!(lines[0], "load.yaml:1:9: topics: found 0; allowed: a whole number from 1 to 1000");
/// assert_eq!(lines[1], "load.yaml:2:1: testDurations: no such key; did you mean `testDuration`?");
/// ```
pub struct Reader<'t> {
    file: &'t str,
    leniency: Leniency,
    environment: Environment<'t>,
    entries: Vec<Entry>,
    errors: Vec<ConfigError>,
    warnings: Vec<ConfigWarning>,
}

impl<'t> Reader<'t> {
    /// Opens a file whose top level must be `key: value` lines; `allowed` says which, in messages.
    pub fn open(file: &'t str, text: &'t str, leniency: Leniency, allowed: &'static str) -> Result<Self, ConfigErrors> {
        let refuse = |place, problem| {
            ConfigErrors::new(vec![ConfigError { file: file.to_owned(), place, key: String::new(), problem }])
        };
        let root = tree(text, allowed).map_err(|(place, problem)| refuse(place, problem))?;
        let Value::Keys(entries) = root.value else {
            return Err(refuse(Some(root.place), Problem::NotKeys { found: root.found(), allowed }));
        };
        let mut reader = Self {
            file,
            leniency,
            environment: &|_| None,
            entries: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        };
        reader.entries = reader.unique(entries);
        Ok(reader)
    }

    /// The same reader, with an environment from which placeholders are filled in.
    pub fn within(mut self, environment: Environment<'t>) -> Self {
        self.environment = environment;
        self
    }

    /// Where placeholders are filled in from; empty, unless [`Self::within`] set one.
    pub fn environment(&self) -> Environment<'t> {
        self.environment
    }

    /// Reports duplicate keys. The last of them is used, as upstream does.
    pub fn unique(&mut self, entries: Vec<Entry>) -> Vec<Entry> {
        let mut unique: Vec<Entry> = Vec::with_capacity(entries.len());
        // Keys of one file are few, but a hostile one may have many: a sorted index keeps this from being quadratic.
        let mut index = std::collections::BTreeMap::new();
        for entry in entries {
            match index.get(&entry.key) {
                Some(&at) => {
                    let first: &mut Entry = &mut unique[at];
                    let problem = Problem::Duplicate { first: first.place };
                    let (key, place) = (entry.key.clone(), entry.place);
                    *first = entry;
                    self.soften(&key, Some(place), problem, "the last one holds");
                }
                None => {
                    index.insert(entry.key.clone(), unique.len());
                    unique.push(entry);
                }
            }
        }
        unique
    }

    pub fn lenient(&self) -> bool {
        self.leniency == Leniency::Lenient
    }

    pub fn error(&mut self, key: &str, place: Option<Place>, problem: Problem) {
        let error = ConfigError { file: self.file.to_owned(), place, key: key.to_owned(), problem };
        // A property of a common block is checked once per kind of client.
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    pub fn error_count(&self) -> usize {
        self.errors.len()
    }

    pub fn warn(&mut self, key: &str, place: Option<Place>, message: impl Into<String>) {
        self.push(key, place, message.into(), false);
    }

    /// A warning about a key that is not applied at all: the result lists it, too.
    pub fn ignore(&mut self, key: &str, place: Option<Place>, message: impl Into<String>) {
        self.push(key, place, message.into(), true);
    }

    fn push(&mut self, key: &str, place: Option<Place>, message: String, ignored: bool) {
        let warning = ConfigWarning { file: self.file.to_owned(), place, key: key.to_owned(), message, ignored };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// An error, or when lenient a warning that says what is done `instead`; returns whether to continue with that.
    pub fn soften(&mut self, key: &str, place: Option<Place>, problem: Problem, instead: &str) -> bool {
        if self.lenient() {
            let ignored = instead.starts_with(NOT_APPLIED);
            self.push(key, place, format!("{problem} (lenient: {instead})"), ignored);
        } else {
            self.error(key, place, problem);
        }
        self.lenient()
    }

    /// Reports keys that are not `known`; for those of `elsewhere` it says where they come from.
    pub fn check_keys(&mut self, known: &[&str], elsewhere: &[(&str, &str)]) {
        for (key, place) in self.entries.iter().map(|entry| (entry.key.clone(), entry.place)).collect::<Vec<_>>() {
            if known.contains(&key.as_str()) {
                continue;
            }
            if let Some((_, origin)) = elsewhere.iter().find(|(name, _)| *name == key) {
                self.ignore(&key, Some(place), format!("a key of {origin}; it is not applied"));
                continue;
            }
            let suggestion = nearest(&key, known.iter().copied()).map(str::to_owned);
            let key = shortened(&key);
            self.soften(
                &key,
                Some(place),
                Problem::UnknownKey { suggestion, allowed: known.join(", ") },
                "it is not applied, as upstream ignores it",
            );
        }
    }

    /// The value of a key; `None` if it is missing or empty, which upstream treats alike.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        (!matches!(entry.value.value, Value::Null)).then_some(&entry.value)
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The place of a key's value, or else of the key.
    pub fn place(&self, key: &str) -> Option<Place> {
        self.entries.iter().find(|entry| entry.key == key).map(|entry| match entry.value.value {
            Value::Null => entry.place,
            _ => entry.value.place,
        })
    }

    /// Reports a required key that is missing; returns whether it is there.
    pub fn require(&mut self, key: &str, hint: &'static str) -> bool {
        let there = self.has(key);
        if !there {
            let place = self.place(key);
            self.error(key, place, Problem::Missing(hint));
        }
        there
    }

    pub fn not_allowed(&mut self, key: &str, node: &Node, allowed: impl Into<String>, suggestion: Option<&str>) {
        let problem = not_allowed(node, allowed, suggestion);
        self.error(key, Some(node.place), problem);
    }

    /// One of a few texts, or the default.
    pub fn one_of<T: Copy + Default>(&mut self, key: &str, all: &[(&'static str, T)]) -> Option<T> {
        let Some(node) = self.get(key).cloned() else { return Some(T::default()) };
        let names = all.iter().map(|(name, _)| *name);
        let mut suggestion = None;
        if let Value::Scalar { text, .. } = &node.value {
            if let Some((_, value)) = all.iter().find(|(name, _)| name == text) {
                return Some(*value);
            }
            suggestion = nearest(text, names.clone());
        }
        self.not_allowed(key, &node, names.collect::<Vec<_>>().join(", "), suggestion);
        None
    }

    /// A text on one line: texts end up in logs and file names. Any scalar is one, as it is written.
    pub fn text(&mut self, key: &str) -> Option<String> {
        let node = self.get(key)?.clone();
        match &node.value {
            Value::Scalar { text, .. } if !text.trim().is_empty() && !text.contains(char::is_control) => {
                Some(text.clone())
            }
            _ => {
                self.not_allowed(key, &node, "a text on one line", None);
                None
            }
        }
    }

    /// A whole number from `min` to `max`. [`NEGATIVE`] lets in what the caller then reads as 0, and messages do not offer it.
    pub fn whole(&mut self, key: &str, min: i128, max: i128) -> Option<i128> {
        let node = self.get(key)?.clone();
        let from = if min == NEGATIVE { 0 } else { min };
        let allowed = format!("a whole number from {from} to {max}");
        let whole = match self.number(key, &node, &allowed)? {
            Number::Whole(whole) => whole,
            Number::Fraction(fraction) => {
                let problem = not_allowed(&node, allowed.clone(), None);
                let cut = fraction.trunc() as i128;
                self.soften(key, Some(node.place), problem, &format!("cut to {cut}, as upstream cuts it"))
                    .then_some(cut)?
            }
        };
        if whole < min || whole > max {
            self.not_allowed(key, &node, allowed, None);
            return None;
        }
        Some(whole)
    }

    /// A whole number from `min` to `max`, which fits 32 bits.
    pub fn whole_u32(&mut self, key: &str, min: u32, max: u32) -> Option<u32> {
        let whole = self.whole(key, min.into(), max.into())?;
        Some(u32::try_from(whole).expect("within the range asked for"))
    }

    /// A decimal number from `min` to `max`.
    pub fn decimal(&mut self, key: &str, min: f64, max: f64) -> Option<f64> {
        let node = self.get(key)?.clone();
        let allowed = format!("a number from {min} to {max}");
        let decimal = match self.number(key, &node, &allowed)? {
            Number::Whole(whole) => whole as f64,
            Number::Fraction(fraction) => fraction,
        };
        if !(min..=max).contains(&decimal) {
            self.not_allowed(key, &node, allowed, None);
            return None;
        }
        Some(decimal)
    }

    fn number(&mut self, key: &str, node: &Node, allowed: &str) -> Option<Number> {
        if let Value::Scalar { text, style } = &node.value {
            let plain = *style == ScalarStyle::Plain;
            match number(if plain { text } else { text.trim() }) {
                Some(number) if plain => return Some(number),
                Some(number) => {
                    let problem = not_allowed(node, allowed, None);
                    return self.soften(key, Some(node.place), problem, "read as the number").then_some(number);
                }
                None => {}
            }
        }
        self.not_allowed(key, node, allowed, None);
        None
    }

    /// `true` or `false`.
    pub fn flag(&mut self, key: &str) -> Option<bool> {
        let node = self.get(key)?.clone();
        if let Value::Scalar { text, style } = &node.value {
            let plain = *style == ScalarStyle::Plain;
            let customary = match text.trim() {
                "true" | "True" | "TRUE" if plain => return Some(true),
                "false" | "False" | "FALSE" if plain => return Some(false),
                "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "1" => Some(true),
                "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "0" => Some(false),
                _ => None,
            };
            if let Some(flag) = customary {
                let problem = not_allowed(&node, "true, false", None);
                return self.soften(key, Some(node.place), problem, &format!("read as {flag}")).then_some(flag);
            }
        }
        self.not_allowed(key, &node, "true, false", None);
        None
    }

    /// A duration with its unit.
    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        let node = self.get(key)?.clone();
        let read = match &node.value {
            Value::Scalar { text, .. } => duration(text),
            _ => None,
        };
        if read.is_none() {
            self.not_allowed(key, &node, DURATION, None);
        }
        read
    }

    /// A size from 1 byte to 2^63 - 1: a number of bytes, or one with a unit, such as `4GiB`.
    pub fn size(&mut self, key: &str) -> Option<u64> {
        let node = self.get(key)?.clone();
        let read = match &node.value {
            Value::Scalar { text, .. } => size(text).filter(|bytes| (1..=i64::MAX.cast_unsigned()).contains(bytes)),
            _ => None,
        };
        if read.is_none() {
            self.not_allowed(key, &node, SIZE, None);
        }
        read
    }

    /// Hands over the value, unless anything was wrong.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<Parsed<T>, ConfigErrors> {
        if !self.errors.is_empty() {
            return Err(ConfigErrors::new(self.errors));
        }
        self.warnings.sort_by_key(|warning| warning.place.map_or((1, None), |place| (0, Some(place))));
        let value = value.expect("a value that cannot be made was reported as an error");
        Ok(Parsed { value, warnings: self.warnings })
    }
}

pub fn not_allowed(node: &Node, allowed: impl Into<String>, suggestion: Option<&str>) -> Problem {
    let (found, allowed) = (node.found(), allowed.into());
    Problem::NotAllowed { found, allowed, suggestion: suggestion.map(str::to_owned) }
}

type Refusal = (Option<Place>, Problem);

/// Makes the tree of the only document in `text`.
fn tree(text: &str, allowed: &'static str) -> Result<Node, Refusal> {
    if let Some(refusal) = control_character(text) {
        return Err(refusal);
    }
    let mut parser = Parser::new_from_str(text);
    let mut building = Building::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let marker = error.marker();
            let place = Place { line: marker.line().max(1), column: marker.col() + 1 };
            (Some(place), Problem::Syntax(error.info().to_owned()))
        })?;
        if event == Event::StreamEnd {
            break;
        }
        building.take(event, span)?;
    }
    match building.root {
        Some(Node { value: Value::Null, .. }) | None => Err((None, Problem::Empty(allowed))),
        Some(root) => Ok(root),
    }
}

/// The first character that no text file holds.
fn control_character(text: &str) -> Option<Refusal> {
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{85}');
    let (at, found) = text.char_indices().find(|(_, c)| odd(*c))?;
    let before = &text[..at];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Some((Some(Place { line, column }), Problem::NotText(found.into())))
}

/// The collections that are open, and the finished document.
#[derive(Default)]
struct Building {
    open: Vec<Open>,
    documents: usize,
    root: Option<Node>,
}

enum Open {
    List { place: Place, items: Vec<Node> },
    Keys { place: Place, entries: Vec<Entry>, key: Option<(String, Place)> },
}

impl Building {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Refusal> {
        let place = Place { line: span.start.line(), column: span.start.col() + 1 };
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err((Some(place), Problem::SeveralDocuments));
                }
                Ok(())
            }
            Event::Alias(_) => Err((Some(place), Problem::Alias)),
            Event::Scalar(text, style, _, tag) => {
                let value = scalar(text, style, tag.as_deref()).map_err(|problem| (Some(place), problem))?;
                self.place_node(Node { place, value })
            }
            Event::SequenceStart(_, tag) => {
                core_tag(tag.as_deref()).map_err(|problem| (Some(place), problem))?;
                self.open(Open::List { place, items: Vec::new() }, place)
            }
            Event::MappingStart(_, tag) => {
                core_tag(tag.as_deref()).map_err(|problem| (Some(place), problem))?;
                self.open(Open::Keys { place, entries: Vec::new(), key: None }, place)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let node = match self.open.pop() {
                    Some(Open::List { place, items }) => Node { place, value: Value::List(items) },
                    Some(Open::Keys { place, entries, .. }) => Node { place, value: Value::Keys(entries) },
                    None => return Ok(()),
                };
                self.place_node(node)
            }
        }
    }

    fn open(&mut self, open: Open, place: Place) -> Result<(), Refusal> {
        if self.open.len() == DEPTH_MAX {
            return Err((Some(place), Problem::TooDeep(DEPTH_MAX)));
        }
        self.open.push(open);
        Ok(())
    }

    fn place_node(&mut self, node: Node) -> Result<(), Refusal> {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Keys { entries, key, .. }) => match key.take() {
                Some((key, place)) => entries.push(Entry { key, place, value: node }),
                None => match node.value {
                    Value::Scalar { text, .. } => *key = Some((text, node.place)),
                    Value::Null => *key = Some(("null".to_owned(), node.place)),
                    Value::List(_) => return Err((Some(node.place), Problem::KeyNotName("a list"))),
                    Value::Keys(_) => return Err((Some(node.place), Problem::KeyNotName("a mapping"))),
                },
            },
        }
        Ok(())
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, Problem> {
    core_tag(tag)?;
    let text = text.into_owned();
    // `!!str 5` and `! 5` say: a text, whatever it looks like.
    let quoted = tag.is_some_and(|tag| tag.suffix == "str" || !tag.is_yaml_core_schema());
    let style = if quoted && style == ScalarStyle::Plain { ScalarStyle::SingleQuoted } else { style };
    let null = style == ScalarStyle::Plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
    Ok(if null { Value::Null } else { Value::Scalar { text, style } })
}

/// Tags that say what a value is anyway are fine; others mean something we do not know.
fn core_tag(tag: Option<&Tag>) -> Result<(), Problem> {
    let Some(tag) = tag else { return Ok(()) };
    let core = ["str", "int", "float", "bool", "null", "map", "seq"];
    let bare = tag.handle.is_empty() && tag.suffix == "!" || tag.handle == "!" && tag.suffix.is_empty();
    if bare || tag.is_yaml_core_schema() && core.contains(&tag.suffix.as_str()) {
        return Ok(());
    }
    Err(Problem::Tag(shortened(&tag.to_string())))
}
