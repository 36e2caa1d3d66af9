//! Exit codes, the same for every command.

use std::process::ExitCode;

use omb_bench::protocol::{Failure, FailureKind};

/// How a command ended, from best to worst as several of them are weighed: 0, 130, 1, 3. (A usage error ends the
/// process before anything runs.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ended {
    /// 0: done and sound.
    Sound,
    /// 130: interrupted by the user, partial result written.
    Interrupted,
    /// 1: the run itself failed or is incomplete.
    Failed,
    /// 3: something needed cannot be reached, refuses, or is taken.
    Unavailable,
}

/// 2: usage or configuration.
pub(crate) const USAGE: u8 = 2;

impl Ended {
    /// What a failure of a run means for the exit code; a configuration that only the client could refuse is usage.
    pub(crate) fn by(failure: &Failure) -> Result<Self, ExitCode> {
        match failure.kind {
            FailureKind::Configuration => Err(USAGE.into()),
            FailureKind::Unreachable | FailureKind::Refused => Ok(Self::Unavailable),
            FailureKind::Protocol | FailureKind::Forgotten | FailureKind::Broken => Ok(Self::Failed),
        }
    }
}

impl From<Ended> for u8 {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Sound => 0,
            Ended::Interrupted => 130,
            Ended::Failed => 1,
            Ended::Unavailable => 3,
        }
    }
}

impl From<Ended> for ExitCode {
    fn from(ended: Ended) -> Self {
        Self::from(u8::from(ended))
    }
}
