//! The sending side of one producer: numbers its messages and stamps their headers.

use serde::{Deserialize, Serialize};

use crate::{
    id::ProducerId,
    load::header::{self, Header},
    stats::{sequence::SequenceSet, tally::Acknowledgements},
};
use omb_machine::time::{Instant, WallTime};

/// One producer's numbering.
#[derive(Clone, Debug)]
pub struct Sender {
    producer: ProducerId,
    next: u64,
    full: bool,
}

/// What must be known of a message until its delivery report arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Its number among the producer's messages.
    pub sequence: u64,
    /// When it was meant to leave.
    pub intended: Instant,
    /// When it left.
    pub sent: Instant,
}

impl Sender {
    /// Numbers from 0; `full` lets the checksum cover the whole payload.
    #[must_use]
    pub fn new(producer: ProducerId, full: bool) -> Self {
        Self { producer, next: 0, full }
    }

    /// Stamps `payload` as the next message, if it has room for a header. `wall_zero` is the wall time of `Instant::ZERO`.
    #[inline]
    pub fn stamp(&mut self, payload: &mut [u8], intended: Instant, sent: Instant, wall_zero: WallTime) -> InFlight {
        let sequence = self.next;
        self.next += 1;
        self.restamp(payload, InFlight { sequence, intended, sent }, sent, wall_zero)
    }

    /// Stamps a message again that did not leave when it was first stamped; its number and intended instant stay.
    #[inline]
    pub fn restamp(&self, payload: &mut [u8], note: InFlight, sent: Instant, wall_zero: WallTime) -> InFlight {
        let InFlight { sequence, intended, .. } = note;
        if payload.len() >= header::LEN {
            let late_micros = u32::try_from(sent.0.saturating_sub(intended.0) / 1_000).unwrap_or(u32::MAX);
            let intended = WallTime(wall_zero.0 + intended.0);
            Header { producer: self.producer, sequence, intended, late_micros, probe: false }.write(payload, self.full);
        }
        InFlight { sequence, intended, sent }
    }

    /// The header of a probe of this round: it counts nowhere and takes no sequence number.
    #[must_use]
    pub fn probe(&self, now: WallTime, round: u64) -> [u8; header::LEN] {
        let mut payload = [0; header::LEN];
        Header { producer: self.producer, sequence: round, intended: now, late_micros: 0, probe: true }
            .write(&mut payload, false);
        payload
    }
}

/// Which of one producer's messages were confirmed. The counts and latencies of many producers go into one tally, since
/// its histograms are large.
#[derive(Clone, Debug, Default)]
pub struct Confirmations {
    /// Numbers of the messages confirmed.
    pub sequences: SequenceSet,
}

impl Confirmations {
    /// The broker confirmed `message`, of `bytes` payload bytes, at `now`.
    #[inline]
    pub fn acked(&mut self, tally: &mut Acknowledgements, now: Instant, message: InFlight, bytes: u64) {
        tally.acked += 1;
        tally.acked_bytes += bytes;
        tally.from_intended.record(now.0.saturating_sub(message.intended.0));
        tally.from_sent.record(now.0.saturating_sub(message.sent.0));
        self.sequences.insert(message.sequence);
    }
}
