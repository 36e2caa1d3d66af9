//! The messages between controller and worker: data, and their one encoding.
//!
//! A controller numbers its commands within a run, from 1. A worker answers each exactly once in effect: a command that
//! arrives again (because its reply was lost) gets the same answer. Reads are cumulative, so a repeated or lost one can
//! neither double nor lose a sample.

pub mod command;
pub mod event;
pub mod remedy;

use serde::Serialize;

use crate::{id::RunId, plan::needs::Limits};
pub use command::Command;
pub use event::{Event, Failure, FailureKind};
use omb_machine::{
    encoding::{self, DecodeError, decode},
    time::WallTime,
};

/// Version of this protocol; both sides refuse another one.
pub const VERSION: u16 = 2;

/// A numbered command of one run.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub struct Request {
    /// Version of the protocol that the controller uses.
    pub version: u16,
    /// The run it belongs to.
    pub run: RunId,
    /// Its number within the run, from 1.
    pub number: u64,
    /// When it was sent, by the worker's own wall clock, once the controller has measured that: the lease counts from
    /// then. A worker that stood still may find a request in its buffers whose controller is long gone.
    pub sent: Option<WallTime>,
    /// What to do.
    pub command: Command,
}

/// The answer to one [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
pub struct Response {
    /// The run of the request.
    pub run: RunId,
    /// The number of the request.
    pub number: u64,
    /// The result.
    pub outcome: Result<Event, Failure>,
    /// The worker stopped its load by itself, since its controller had been silent for the lease.
    pub lease_ended: bool,
}

/// What `GET /v1/hello` answers, as JSON, which every version can read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Hello {
    /// Version of this protocol.
    pub protocol: u16,
    /// Version of omb.
    pub omb: String,
    /// Drawn when the process began: two addresses with one instance are one worker.
    pub instance: String,
    /// The controller of the run it follows; `None` if it is free.
    pub controller: Option<String>,
    /// The limits of its process on files, threads and memory.
    #[serde(default)]
    pub limits: Limits,
}

/// The question of `POST /v1/clock`. It also shows a worker that its controller is alive: while one worker is slow to
/// set up, the others receive no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Ping {
    /// The run of the controller that asks.
    pub run: RunId,
    /// As [`Request::sent`].
    pub sent: Option<WallTime>,
}

/// What `POST /v1/clock` answers: when the question arrived and when the answer left, by the worker's wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Clock {
    /// When the question arrived.
    pub received: WallTime,
    /// When the answer left.
    pub answered: WallTime,
}

/// Decodes a request. Its version comes first, so that a request of another version can be told from garbage.
///
/// # Errors
/// As [`decode`]; and if it is of another version.
pub fn decode_request(bytes: &[u8]) -> Result<Request, DecodeError> {
    match encoding::first::<u16>(bytes) {
        Some(version) if version != VERSION => Err(DecodeError::OtherVersion { theirs: version, ours: VERSION }),
        _ => decode(bytes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        protocol::event::Snapshot,
        stats::tally::{Seen, Totals},
    };
    use omb_machine::encoding::encode;

    #[test]
    fn a_reply_with_histograms_survives() {
        let mut totals = Totals::default();
        (0..1_000).for_each(|n| totals.acknowledgements.from_sent.record(n * 1_000));
        totals
            .seen
            .insert(crate::id::SubscriptionId(3), Seen { received: 5, distinct: 4, duplicated: 1, ..Seen::default() });
        let snapshot = Snapshot { totals: (&totals).into(), ..Snapshot::default() };
        let response =
            Response { run: RunId(1), number: 2, outcome: Ok(Event::Read(Box::new(snapshot))), lease_ended: false };
        let bytes = encode(&response);
        assert_eq!(decode::<Response>(&bytes), Ok(response));
        assert!(bytes.len() < 8_192, "{} bytes: a snapshot stays small", bytes.len());
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes =
            encode(&Request { version: VERSION, run: RunId(1), number: 1, sent: None, command: Command::Close });
        bytes.push(0);
        assert!(matches!(decode::<Request>(&bytes), Err(DecodeError::Malformed(_))));
    }

    #[test]
    fn another_version_is_told_from_garbage() {
        let request = Request { version: 7, run: RunId(1), number: 1, sent: None, command: Command::Close };
        assert_eq!(decode_request(&encode(&request)), Err(DecodeError::OtherVersion { theirs: 7, ours: VERSION }));
        let version = u8::try_from(VERSION).expect("small");
        assert!(matches!(decode_request(&[version, 2]), Err(DecodeError::Malformed(_))));
    }

    proptest! {
        /// Whatever arrives is decoded or refused; it never panics.
        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode_request(&bytes);
            let _ = decode::<Response>(&bytes);
        }
    }
}
