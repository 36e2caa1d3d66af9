//! A run as it passed: an array per metric, all of one length, with an entry per period of every phase.

use serde::{Deserialize, Serialize};

use omb_bench::{
    result::Period,
    stats::{latency::Latency, tally::Totals},
};
use omb_machine::time::nanos;

/// The metrics of all periods, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Series {
    /// Name of the phase that the period belongs to.
    pub phase: Vec<String>,
    /// Whether it is measured.
    pub counts: Vec<bool>,
    /// When its end was requested, s since the load began.
    pub at_seconds: Vec<f64>,
    /// How long it was on the workers' clocks, s.
    pub elapsed_seconds: Vec<f64>,
    /// Its end by the first worker's wall clock, ns since 1970 (UTC).
    pub unix_ns: Vec<u64>,
    /// Target rate, msg/s.
    pub target_per_second: Vec<f64>,
    /// Messages handed to the client library.
    pub attempted: Vec<u64>,
    /// Messages that were due and never sent.
    #[serde(default)]
    pub skipped: Vec<u64>,
    /// Messages acknowledged.
    pub acked: Vec<u64>,
    /// Messages that were not acknowledged.
    pub failed: Vec<u64>,
    /// Messages that the client library refused to take.
    #[serde(default)]
    pub refused: Vec<u64>,
    /// Messages received, by all subscriptions.
    pub received: Vec<u64>,
    /// Of them, those read again.
    #[serde(default)]
    pub reread: Vec<u64>,
    /// Of them, those whose checksum does not match.
    pub corrupted: Vec<u64>,
    /// Rebalances of consumer groups.
    #[serde(default)]
    pub rebalances: Vec<u64>,
    /// Acknowledged messages not yet received, over all subscriptions, at the period's end.
    pub unread: Vec<u64>,
    /// Messages sent and neither acknowledged nor given up, at its end.
    pub in_flight: Vec<u64>,
    /// How far the senders were behind their schedule at its end, ns.
    pub schedule_lag_ns: Vec<u64>,
    /// For how long a quota of the broker throttled the worker that it throttled longest, s.
    #[serde(default)]
    pub throttled_seconds: Vec<f64>,
    /// CPU time of the workers' processes since they began, s.
    pub process_cpu_seconds: Vec<f64>,
    /// Memory of the workers' processes, bytes.
    pub memory_bytes: Vec<u64>,
    /// Acknowledged minus intended.
    pub publish_from_intended: LatencySeries,
    /// Acknowledged minus sent.
    pub publish_from_sent: LatencySeries,
    /// Sent minus intended.
    pub schedule_error: LatencySeries,
    /// Received minus intended. Absent if it cannot be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_from_intended: Option<LatencySeries>,
    /// Received minus sent. Absent if it cannot be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_from_sent: Option<LatencySeries>,
}

/// One latency, period by period.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct LatencySeries {
    /// Samples.
    pub count: Vec<u64>,
    /// Median, ns.
    pub p50_ns: Vec<u64>,
    /// 99th percentile, ns.
    pub p99_ns: Vec<u64>,
    /// 99.9th percentile, ns.
    pub p999_ns: Vec<u64>,
    /// Highest, ns.
    pub max_ns: Vec<u64>,
}

impl LatencySeries {
    fn push(&mut self, latency: &Latency) {
        self.count.push(latency.count());
        self.p50_ns.push(latency.at(0.5));
        self.p99_ns.push(latency.at(0.99));
        self.p999_ns.push(latency.at(0.999));
        self.max_ns.push(latency.max());
    }
}

impl Series {
    /// Empty, with or without end-to-end latencies.
    pub(super) fn new(end_to_end: bool) -> Self {
        let latency = || end_to_end.then(LatencySeries::default);
        Self { end_to_end_from_intended: latency(), end_to_end_from_sent: latency(), ..Self::default() }
    }

    pub(super) fn push(&mut self, period: &Period) {
        let Totals { departures, acknowledgements: acks, arrivals, seen: _ } = &period.totals;
        self.phase.push(period.phase.to_string());
        self.counts.push(period.phase.counts());
        self.at_seconds.push(period.at.as_secs_f64());
        self.elapsed_seconds.push(period.elapsed.as_secs_f64());
        self.unix_ns.push(period.wall.0);
        self.target_per_second.push(period.target);
        self.attempted.push(departures.attempted);
        self.skipped.push(departures.skipped);
        self.acked.push(acks.acked);
        self.failed.push(acks.failed);
        self.refused.push(acks.refused);
        self.received.push(arrivals.received);
        self.reread.push(arrivals.reread);
        self.corrupted.push(arrivals.corrupted);
        self.rebalances.push(period.rebalances);
        self.unread.push(period.unread);
        self.in_flight.push(period.in_flight);
        self.schedule_lag_ns.push(nanos(period.schedule_lag));
        self.throttled_seconds.push(period.throttled.as_secs_f64());
        self.process_cpu_seconds.push(period.process.cpu.as_secs_f64());
        self.memory_bytes.push(period.process.memory_bytes);
        self.publish_from_intended.push(&acks.from_intended);
        self.publish_from_sent.push(&acks.from_sent);
        self.schedule_error.push(&departures.schedule_error);
        for (series, latency) in [
            (&mut self.end_to_end_from_intended, &arrivals.from_intended),
            (&mut self.end_to_end_from_sent, &arrivals.from_sent),
        ] {
            if let Some(series) = series {
                series.push(latency);
            }
        }
    }
}
