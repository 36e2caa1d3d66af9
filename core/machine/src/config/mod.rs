//! Configuration files: strict, with the place of every key, and all that is wrong with a file at once.
//!
//! ```text
//! text ─▶ yaml (keys with line and column) ─▶ a reader of one kind of file ─▶ Parsed { value, warnings } or ConfigErrors
//! ```
//!
//! The message names the file, the line, the column and the key. All that is wrong with one file is reported together.
//! Nothing here opens a file: the caller passes its name and text.

pub mod address;
pub mod placeholder;
pub mod problem;
pub mod setting;
pub mod yaml;

use std::fmt;

pub use placeholder::Environment;
pub use problem::Problem;

/// How to treat a mistake that has a customary reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Leniency {
    /// It is an error.
    #[default]
    Strict,
    /// `--lenient`: it is read as upstream reads it, and a warning says how.
    Lenient,
}

/// A file's value, and what its author should know about how it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Parsed<T> {
    /// What the file asks for.
    pub value: T,
    /// In the order of the file.
    pub warnings: Vec<ConfigWarning>,
}

/// A position in a file; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file's name as the caller gave it.
    pub file: String,
    /// Where; `None` for what is missing.
    pub place: Option<Place>,
    /// The key as the file spells it; empty if the file as a whole is meant.
    pub key: String,
    /// What is wrong.
    pub problem: Problem,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.file, self.place, &self.key, &self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// All that is wrong with one file; never empty, in the order of the file. Displayed as one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// # Panics
    /// Without any error.
    fn new(mut errors: Vec<ConfigError>) -> Self {
        assert!(!errors.is_empty(), "a file is refused for a reason");
        errors.sort_by_key(|error| error.place.map_or((1, None), |place| (0, Some(place))));
        Self(errors)
    }

    /// The errors, in the order of the file; what is missing from it comes last.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &ConfigError> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Something that was read differently than its author may expect, or not applied at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The file's name as the caller gave it.
    pub file: String,
    /// Where; `None` for what is missing.
    pub place: Option<Place>,
    /// The key as the file spells it.
    pub key: String,
    /// What is wrong, and how it was read instead.
    pub message: String,
    /// Whether the key is not applied at all.
    pub ignored: bool,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.file, self.place, &self.key, &self.message)
    }
}

fn show(
    f: &mut fmt::Formatter<'_>,
    file: &str,
    place: Option<Place>,
    key: &str,
    what: &dyn fmt::Display,
) -> fmt::Result {
    write!(f, "{file}:")?;
    if let Some(Place { line, column }) = place {
        write!(f, "{line}:{column}:")?;
    }
    if !key.is_empty() {
        write!(f, " {key}:")?;
    }
    write!(f, " {what}")
}
