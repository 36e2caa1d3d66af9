//! What a run yields, as data from which files and tables are made (`omb_report`).
//!
//! An hour has 3,600 periods of 1.35 MB each, so they are [packed](periods), and readers unpack one at a time, in one
//! walk. Measured on the heap, for an hour at 10,000 msg/s: the report takes 42 MB (32 MB of packed periods, the rest
//! sums of phases), with a peak of 58 MB while it becomes a result file; 86 MB and 102 MB if latencies spread over five
//! decades. Sums of phases stay whole, for they are few.
//!
//! Whether it can be relied upon is decided by [`soundness`].

#[cfg(any(test, feature = "fixture"))]
pub mod fixture;
pub mod periods;
mod phase;
pub mod soundness;
pub mod sums;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    id::{SubscriptionId, WorkerId},
    load::silence::Silence,
    offset::Offsets,
    plan::Plan,
    protocol::event::{Missing, Problem, Process},
    rate::Tempo,
    stats::tally::{Seen, Totals},
};
use omb_machine::time::{Instant, WallTime};

pub use periods::Periods;
pub use phase::Phase;

/// The result of one run, whole or partial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The plan.
    pub plan: Plan,
    /// The driver file's `name`.
    pub driver: String,
    /// What the messaging system reports of itself; "embedded, loopback" for our own.
    pub system: String,
    /// When the load began, by the (first) worker's wall clock.
    pub started: WallTime,
    /// Every period of every phase of the load, in order.
    pub periods: Periods,
    /// Each phase of the load, in order: the sums of its periods.
    pub phases: Vec<PhaseTotals>,
    /// What was measured: the sum of the phases that count ([`Phase::counts`]).
    pub measured: Totals,
    /// How long that took, on the workers' clocks.
    pub measured_for: Duration,
    /// What was still answered or received after the producers had stopped. Its latencies belong to the result,
    /// otherwise a stall at the very end would vanish; its counts make no rate.
    pub tail: Totals,
    /// Everything since the load began, with warm-up and what arrived after the end.
    pub whole: Totals,
    /// CPU time the client's process used while it was measured, without the embedded broker's.
    pub client_cpu: Duration,
    /// What the process holds at the end.
    pub process: Process,
    /// Each worker's part, in order; empty where the one worker is the controller's own process.
    #[serde(default)]
    pub workers: Vec<WorkerRow>,
    /// How far the clocks of two workers that exchange messages may disagree: end-to-end latencies are right to within
    /// this. `None` if every message is sent and received by one clock.
    #[serde(default)]
    pub clock_error: Option<Duration>,
    /// What a search for the highest rate found.
    pub found: Option<Found>,
    /// How the backlog built up and drained.
    pub backlog: Option<BacklogTimes>,
    /// Groups that were rebalanced since the load began.
    #[serde(default)]
    pub rebalances: BTreeMap<SubscriptionId, Rebalances>,
    /// Whether everything confirmed was received.
    pub verdict: Verdict,
    /// What went wrong as the client or the broker words it, and how often.
    pub problems: Vec<Problem>,
    /// Whether messages are not confirmed (`acks=0`), so that "acknowledged" means "handed to the socket".
    #[serde(default)]
    pub unconfirmed: bool,
    /// The rates of the load, if they follow a list.
    #[serde(default)]
    pub tempo: Option<Tempo>,
    /// Stretches in which no message was acknowledged although messages were due, in order; times since the load began.
    #[serde(default)]
    pub outages: Vec<Silence>,
    /// Why the run ended early; `None` if it is whole.
    pub partial: Option<String>,
}

/// One reporting interval, nominally 1 s.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Period {
    /// The phase it belongs to.
    pub phase: Phase,
    /// When its end was requested, since the load began.
    pub at: Duration,
    /// How long it was, on the workers' clocks.
    pub elapsed: Duration,
    /// Its end, by the (first) worker's wall clock.
    pub wall: WallTime,
    /// Target rate during the period, msg/s.
    pub target: f64,
    /// What was counted in it.
    pub totals: Totals,
    /// Confirmed messages not yet received, over all subscriptions, at its end.
    pub unread: u64,
    /// Messages sent without a delivery report at its end.
    pub in_flight: u64,
    /// How far the sender was behind its schedule at its end.
    pub schedule_lag: Duration,
    /// For how long a quota of the broker throttled the worker that it throttled longest.
    pub throttled: Duration,
    /// The worker's process at its end (added up over workers).
    pub process: Process,
    /// How often a group was rebalanced in it.
    #[serde(default)]
    pub rebalances: u64,
    /// Each worker's part, of those that are left; empty if there is only one. Reported as it arrives and written to
    /// the record, but not kept: a thousand workers would fill the memory within an hour.
    #[serde(default)]
    pub workers: Vec<WorkerPeriod>,
}

/// One worker's part of a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerPeriod {
    /// Which worker.
    pub worker: WorkerId,
    /// How long the period was, on its own clock.
    pub elapsed: Duration,
    /// Messages handed to the client library.
    pub attempted: u64,
    /// Messages confirmed.
    pub acked: u64,
    /// Messages received.
    pub received: u64,
    /// How far its senders were behind their schedule at the end.
    pub schedule_lag: Duration,
    /// CPU time its process used.
    pub cpu: Duration,
    /// Bytes its host received over the network, loopback included.
    pub received_bytes: u64,
    /// Bytes its host sent.
    pub sent_bytes: u64,
}

/// One worker's part of a run: what it did in the phases that count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Which worker.
    pub worker: WorkerId,
    /// Its address.
    pub name: String,
    /// Its producers: with the total rate, its rate follows from them.
    pub producers: u32,
    /// Its consumers.
    pub consumers: u32,
    /// Length of the measurement, on its own clock.
    pub measured_for: Duration,
    /// Messages handed to the client library.
    pub attempted: u64,
    /// Messages confirmed.
    pub acked: u64,
    /// Their payload bytes.
    pub acked_bytes: u64,
    /// Messages received.
    pub received: u64,
    /// Their payload bytes.
    pub received_bytes: u64,
    /// CPU time its process used.
    pub cpu: Duration,
    /// Bytes its host received over the network, loopback included.
    pub net_received_bytes: u64,
    /// Bytes its host sent.
    pub net_sent_bytes: u64,
    /// Its process at the end.
    pub process: Process,
    /// Sent minus intended over the whole load, warm-up included: p50, p99 and highest, ns.
    pub schedule_error: [u64; 3],
    /// How far its senders were behind their schedule when it was last read.
    pub schedule_lag: Duration,
    /// What is known of its clock.
    pub clock: Option<WorkerClock>,
    /// When and why it was given up.
    pub lost: Option<Lost>,
}

/// What is known of a worker's clock at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerClock {
    /// Bound of the error of its offset.
    pub error: Duration,
    /// How much faster it runs than the controller's clock, in parts per million, with the bound of the error of that.
    pub drift_ppm: Option<(f64, f64)>,
    /// How often an answer contradicted earlier ones: the clock was set meanwhile.
    pub contradictions: u64,
}

/// A worker that was given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Which worker.
    pub worker: WorkerId,
    /// How long after the load's beginning it was last read: what it did until then is counted. `None` if it never was.
    #[serde(default)]
    pub read: Option<Duration>,
    /// How long after the load's beginning it was given up; zero if that had not begun.
    #[serde(alias = "after")]
    pub detected: Duration,
    /// Why, in one line.
    pub cause: String,
}

/// The sum of a phase's periods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PhaseTotals {
    /// Which phase.
    pub phase: Phase,
    /// How long it took, on the workers' clocks.
    pub elapsed: Duration,
    /// What was counted in it.
    pub totals: Totals,
}

/// The rate that a search found, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Highest rate that held, msg/s.
    pub rate: u64,
    /// Lowest rate that was tried and did not hold, msg/s; `None` if every rate held.
    pub failed_at: Option<u64>,
    /// Trials it took, the final hold included.
    pub trials: u32,
}

/// Times of the backlog phases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BacklogTimes {
    /// Bytes of backlog requested.
    pub asked_bytes: u64,
    /// Messages in the backlog when the consumers resumed.
    pub built_messages: u64,
    /// How long it took to build.
    pub fill: Duration,
    /// How long it took to drain; `None` if it was not drained by the deadline.
    pub drain: Option<Duration>,
}

/// How often a group was rebalanced under load.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalances {
    /// Generations that began since the load was ready to begin.
    pub count: u64,
    /// When the first [`Self::AT_MAX`] readings found new ones: how long after the load's beginning the newest was
    /// seen.
    pub at: Vec<Duration>,
}

impl Rebalances {
    /// Instants that are kept.
    pub const AT_MAX: usize = 16;
}

/// What happened to the confirmed messages, by subscription.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// What each subscription saw, and what it missed.
    pub subscriptions: BTreeMap<SubscriptionId, (Seen, Missing)>,
    /// Subscriptions that could not be checked, since a worker that had a part in them was lost.
    #[serde(default)]
    pub unverified: u32,
    /// How the wait for the last messages ended.
    pub drained: Drained,
}

/// How the wait for the last messages ended, after the producers had stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Drained {
    /// Every confirmed message was received.
    Completely,
    /// Nothing arrived for so long that what is missing counts as lost.
    Quiet,
    /// Messages still arrived at the deadline: what is missing is unread, not lost.
    TooLong,
    /// It was not waited for: interrupted, failed, or there are no consumers.
    #[default]
    NotAwaited,
}

impl Found {
    /// Share of a rate that must be confirmed for it to hold.
    pub const ACHIEVED_MIN: f64 = 0.95;
    /// Growth of the unread messages, as a share of the messages sent, that a rate which holds may show.
    pub const GROWTH_MAX: f64 = 0.05;
}

impl WorkerClock {
    /// The estimate in `offsets` at `now`; `None` if the worker never answered.
    #[must_use]
    pub fn of(offsets: &Offsets, now: Instant) -> Option<Self> {
        let estimate = offsets.estimate(now)?;
        let drift_ppm = offsets.drift().map(|drift| (drift.ppm, drift.error_ppm));
        Some(Self { error: estimate.error, drift_ppm, contradictions: offsets.contradictions() })
    }
}

impl Report {
    /// What was measured, with the answers that came after the producers had stopped: the latencies to show. A copy (1.35 MB),
    /// to be kept where it is needed more than once.
    #[must_use]
    pub fn answered(&self) -> Totals {
        let mut answered = self.measured.clone();
        answered.merge(&self.tail);
        answered
    }
}

impl Verdict {
    /// Confirmed messages that subscriptions never received, in total.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.subscriptions.values().map(|(_, missing)| missing.missing).sum()
    }

    /// Of them, those that count as lost: they had every opportunity to arrive.
    #[must_use]
    pub fn lost(&self) -> u64 {
        if self.drained == Drained::Quiet { self.missing() } else { 0 }
    }

    /// What all subscriptions saw together.
    #[must_use]
    pub fn seen(&self) -> Seen {
        let mut sum = Seen::default();
        self.subscriptions.values().for_each(|(seen, _)| sum.merge(seen));
        sum
    }
}
