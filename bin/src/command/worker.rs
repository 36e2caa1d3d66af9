//! `omb worker`: one worker of a fleet.

use std::process::ExitCode;

use crate::{exit::Ended, flags};

/// Does what controllers ask for, until it is interrupted.
pub(crate) fn worker(_flags: &flags::Worker) -> ExitCode {
    tracing::error!("`omb worker` is not there yet");
    Ended::Failed.into()
}
