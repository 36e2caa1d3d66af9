//! The counts of a result: one list of what is counted, for the result file, the record and reading them back.

use serde::{Deserialize, Serialize};

use omb_bench::{
    result::PhaseTotals,
    stats::tally::{Acknowledgements, Arrivals, Departures, Totals},
};

/// What was counted in some period of time, without the latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Counts {
    /// Messages handed to the client library.
    pub attempted: u64,
    /// Messages that were due and never sent.
    pub skipped: u64,
    /// Messages that were acknowledged.
    pub acked: u64,
    /// Their payload bytes.
    pub acked_bytes: u64,
    /// Messages that were not acknowledged: `refused` and `givenUp` together.
    pub failed: u64,
    /// Messages that the client library refused to take: never sent.
    #[serde(default)]
    pub refused: u64,
    /// Messages that the client library took and gave up: whether they are stored is unknown.
    #[serde(default)]
    pub given_up: u64,
    /// Messages received, by all subscriptions.
    pub received: u64,
    /// Their payload bytes.
    pub received_bytes: u64,
    /// Of the received, those from a position that the subscription had read before, as after a rebalance.
    #[serde(default)]
    pub reread: u64,
    /// Of the received, those whose checksum does not match.
    pub corrupted: u64,
    /// Of the received, those without our header.
    pub headerless: u64,
    /// Of the received, those that arrived at or before the instant at which they were meant to leave.
    pub before_intended: u64,
}

impl Counts {
    /// The counts of some totals.
    #[must_use]
    pub fn of(totals: &Totals) -> Self {
        let Totals { departures, acknowledgements: acks, arrivals, seen: _ } = totals;
        Self {
            attempted: departures.attempted,
            skipped: departures.skipped,
            acked: acks.acked,
            acked_bytes: acks.acked_bytes,
            failed: acks.failed,
            refused: acks.refused,
            given_up: acks.given_up(),
            received: arrivals.received,
            received_bytes: arrivals.received_bytes,
            reread: arrivals.reread,
            corrupted: arrivals.corrupted,
            headerless: arrivals.headerless,
            before_intended: arrivals.before_intended,
        }
    }

    /// Totals with these counts, and without a latency.
    #[must_use]
    pub fn into_totals(self) -> Totals {
        let departures = Departures { attempted: self.attempted, skipped: self.skipped, ..Departures::default() };
        let acknowledgements = Acknowledgements {
            acked: self.acked,
            acked_bytes: self.acked_bytes,
            failed: self.failed,
            refused: self.refused,
            ..Acknowledgements::default()
        };
        let arrivals = Arrivals {
            received: self.received,
            received_bytes: self.received_bytes,
            reread: self.reread,
            corrupted: self.corrupted,
            headerless: self.headerless,
            before_intended: self.before_intended,
            ..Arrivals::default()
        };
        Totals { departures, acknowledgements, arrivals, ..Totals::default() }
    }

    /// Messages that were sent: what the client library refused was not.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.attempted.saturating_sub(self.refused)
    }
}

/// What was counted, over three spans of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct TotalCounts {
    /// While it was measured: rates are computed from these.
    pub measured: Counts,
    /// After the producers had stopped.
    pub afterwards: Counts,
    /// Since the load began, with the warm-up and with what came after the producers had stopped.
    pub since_load_began: Counts,
}

/// What was counted in one phase of the load.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct PhaseCounts {
    /// Its name: `warm-up`, `search`, `settle`, `fill backlog`, `drain backlog`, `measure`, `stop` or `drain`.
    pub phase: String,
    /// Whether it is measured.
    pub counts: bool,
    /// How long it took on the workers' clocks, s.
    pub elapsed_seconds: f64,
    /// What was counted in it.
    pub totals: Counts,
}

impl PhaseCounts {
    pub(super) fn of(sum: &PhaseTotals) -> Self {
        Self {
            phase: sum.phase.to_string(),
            counts: sum.phase.counts(),
            elapsed_seconds: sum.elapsed.as_secs_f64(),
            totals: Counts::of(&sum.totals),
        }
    }
}
