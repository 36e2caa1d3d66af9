//! Exit codes, the same for every command, and errors that carry one.
//!
//! A command returns `anyhow::Result<Code>`. [`ExitsWith::exits_with`] gives an error its code; one without a code is
//! an error of usage or configuration ([`Code::Usage`]). [`log`] and [`print()`] report an error and return its code.

use std::{fmt, process::ExitCode};

use anyhow::Error;
use omb_bench::protocol::{Failure, FailureKind};

use crate::console::errln;

/// How a command ended. The order is that of severity: of several outcomes the greatest decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Code {
    /// 0: done and sound.
    Sound,
    /// 130: interrupted by the user, partial result written.
    Interrupted,
    /// 1: the run itself failed or is incomplete.
    Failed,
    /// 3: something needed cannot be reached, refuses, or is taken.
    Unavailable,
    /// 2: usage or configuration.
    Usage,
}

impl Code {
    /// The code of an error: the outermost one in its chain, or the most severe one in a list.
    pub(crate) fn of(error: &Error) -> Self {
        let attached = error.chain().find_map(|cause| Some(cause.downcast_ref::<Coded>()?.code));
        let listed = || error.downcast_ref::<Errors>()?.0.iter().map(Self::of).max();
        attached.or_else(listed).unwrap_or(Self::Usage)
    }

    /// Attaches this code to an error. Its text stays the same.
    pub(crate) fn attach(self, error: impl Into<Error>) -> Error {
        Error::new(Coded { code: self, error: error.into() })
    }
}

/// By the kind of a failed run; a configuration that only the client library could reject counts as usage.
impl From<&Failure> for Code {
    fn from(failure: &Failure) -> Self {
        match failure.kind {
            FailureKind::Configuration => Self::Usage,
            FailureKind::Unreachable | FailureKind::Refused => Self::Unavailable,
            FailureKind::Protocol | FailureKind::Forgotten | FailureKind::Broken => Self::Failed,
        }
    }
}

impl From<Code> for u8 {
    fn from(code: Code) -> Self {
        match code {
            Code::Sound => 0,
            Code::Failed => 1,
            Code::Usage => 2,
            Code::Unavailable => 3,
            Code::Interrupted => 130,
        }
    }
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(u8::from(code))
    }
}

/// Gives the error of a result an exit code.
pub(crate) trait ExitsWith<T> {
    fn exits_with(self, code: Code) -> anyhow::Result<T>;
}

impl<T, E: Into<Error>> ExitsWith<T> for Result<T, E> {
    fn exits_with(self, code: Code) -> anyhow::Result<T> {
        self.map_err(|error| code.attach(error))
    }
}

/// An error with its exit code. It takes the place of that error in the chain, so the code appears in no text.
#[derive(Debug)]
struct Coded {
    code: Code,
    error: Error,
}

impl fmt::Display for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

impl std::error::Error for Coded {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error.source()
    }
}

/// Independent errors, each reported on a line of its own.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<Error>);

impl Errors {
    /// Adds an error, or all of them if it is a list.
    pub(crate) fn push(&mut self, error: Error) {
        match error.downcast::<Self>() {
            Ok(list) => self.0.extend(list.0),
            Err(error) => self.0.push(error),
        }
    }

    /// The value of a result; its error is added.
    pub(crate) fn ok<T>(&mut self, result: anyhow::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// Fails if there are any.
    pub(crate) fn none(self) -> anyhow::Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(self.into()) }
    }
}

impl FromIterator<Error> for Errors {
    fn from_iter<I: IntoIterator<Item = Error>>(errors: I) -> Self {
        let mut list = Self::default();
        errors.into_iter().for_each(|error| list.push(error));
        list
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<_> = self.0.iter().map(|error| format!("{error:#}")).collect();
        f.write_str(&texts.join("\n"))
    }
}

impl std::error::Error for Errors {}

/// Logs an error and returns its code.
pub(crate) fn log(error: &Error) -> Code {
    report(error, |text| tracing::error!(target: "omb", "{text}"))
}

/// Prints an error on stderr, for mistakes in what the user gave and where there is no log; returns its code.
pub(crate) fn print(error: &Error) -> Code {
    report(error, |text| errln!("{text}"))
}

/// Passes on the text of an error, or each text of a list. A text ends with its causes.
fn report(error: &Error, line: impl Fn(String)) -> Code {
    match error.downcast_ref::<Errors>() {
        Some(list) => list.0.iter().for_each(|error| line(format!("{error:#}"))),
        None => line(format!("{error:#}")),
    }
    Code::of(error)
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, io};

    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn a_code_is_found_and_not_shown() {
        let denied = || -> io::Result<()> { Err(io::ErrorKind::PermissionDenied.into()) };
        let error = denied().exits_with(Code::Unavailable).context("a.yaml").expect_err("denied");
        assert_eq!((Code::of(&error), format!("{error:#}").as_str()), (Code::Unavailable, "a.yaml: permission denied"));
        let error = denied().context("a.yaml").exits_with(Code::Unavailable).expect_err("denied");
        assert_eq!((Code::of(&error), format!("{error:#}").as_str()), (Code::Unavailable, "a.yaml: permission denied"));
    }

    #[test]
    fn the_outermost_code_counts_and_usage_is_the_default() {
        let error = Code::Failed.attach(anyhow!("root").context("middle"));
        let error = Code::Interrupted.attach(error.context("outer"));
        assert_eq!((Code::of(&error), format!("{error:#}").as_str()), (Code::Interrupted, "outer: middle: root"));
        assert_eq!(Code::of(&anyhow!("no code")), Code::Usage);
    }

    #[test]
    fn each_error_of_a_list_is_reported_on_its_own() {
        let mut errors = Errors::default();
        assert_eq!(errors.ok(Ok(1)), Some(1));
        assert_eq!(errors.ok::<()>(Err(Code::Failed.attach(anyhow!("one")))), None);
        errors.push(Errors::from_iter([anyhow!("root").context("two")]).into());
        let error = errors.none().expect_err("two errors");
        let lines = RefCell::new(Vec::new());
        assert_eq!(report(&error, |text| lines.borrow_mut().push(text)), Code::Usage);
        assert_eq!(lines.into_inner(), ["one", "two: root"]);
        assert!(Errors::default().none().is_ok());
    }

    #[test]
    fn outcomes_are_ordered_by_severity() {
        let mut codes = [Code::Usage, Code::Failed, Code::Sound, Code::Unavailable, Code::Interrupted];
        codes.sort();
        assert_eq!(codes.map(u8::from), [0, 130, 1, 3, 2]);
    }
}
