//! The content of a batch on the simulated wire: opaque bytes to the broker machine.

use bytes::Bytes;
use omb_machine::{encoding, time::WallTime};
use serde::{Deserialize, Serialize};

use crate::truth::Mark;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which message it truly is. No code under test reads it.
    pub mark: Mark,
    /// When it was meant to leave, in true time, ns. No code under test reads it.
    pub intended_truly: i64,
    /// The same in the fleet's time, as its sender knew it. No code under test reads it.
    pub stamped: WallTime,
    /// When it left, by the client's wall clock, as Kafka's `CreateTime`.
    pub sent: WallTime,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its payload, with our header if there is room for one.
    pub payload: Vec<u8>,
}

/// The bytes of a batch.
#[must_use]
pub fn pack(records: &[Record]) -> Bytes {
    encoding::encode(&records).into()
}

/// The records of a batch.
///
/// # Panics
/// If the bytes were not made by [`pack`]: the broker must not alter them.
#[must_use]
pub fn unpack(bytes: &Bytes) -> Vec<Record> {
    encoding::decode(bytes).expect("the broker keeps batches as they came")
}
