//! The bounds within which everything must happen.

use std::time::Duration;

use crate::config::{
    driver::DriverConfig,
    workload::{RateGoal, Workload},
};
use omb_machine::time::Instant;

/// What a run is given beside its plan. Every wait has a bound, so every run ends.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The messaging system.
    pub driver: DriverConfig,
    /// The bytes of the workload's `payloadFile`, which the program that starts the run has read; `None` where it names none.
    pub payload: Option<Vec<u8>>,
    /// What the messaging system is called, where its own words would mislead. Default: what it says of itself.
    pub system: Option<String>,
    /// Who leads: sent to workers, and reported by them to others. Default empty.
    pub controller: String,
    /// What the workers are called, in order: their addresses. Empty where the one worker is this process.
    pub names: Vec<String>,
    /// Whether to end runs of other controllers that the workers still follow. Default no.
    pub take_over: bool,
    /// What happens to a run whose worker is lost under load. Default: it fails.
    pub on_loss: OnLoss,
    /// How workers' clocks relate to the controller's. Default: they are the same.
    pub clocks: Clocks,
    /// What a clock on the wall showed, and when, for rates by the time of day: seconds since local midnight. Default
    /// midnight at the controller's origin.
    pub day_second_at: (u32, Instant),
    /// A reporting interval. Default 1 s.
    pub period: Duration,
    /// Longest a worker may take to answer a call that creates nothing. Default 30 s.
    pub call_within: Duration,
    /// Longest a worker may refuse to be connected to, from the first attempt that failed, before it counts as lost.
    /// Default 10 s.
    pub connect_within: Duration,
    /// How long to wait before an exchange that failed is tried again. Default 200 ms.
    pub retry_after: Duration,
    /// Longest creation of all topics, consumers or producers, the settling of the groups, or the passing of the probes may
    /// take. Default 60 s.
    pub setup_within: Duration,
    /// Longest the client may take for the last delivery reports after the producers stop. Default 30 s.
    pub stop_within: Duration,
    /// Longest the consumers may take for the last messages, as long as some arrive. Default 60 s.
    pub drain_within: Duration,
    /// Silence after which messages that are missing count as lost. Default 5 s: above the time a group takes to
    /// share out the partitions of a member that died.
    pub quiet_after: Duration,
    /// Silence of the controller after which a worker ends its load by itself. Default 30 s.
    pub lease: Duration,
    /// From the command to start until message 0 is due: time for every thread to be ready. Default 100 ms.
    pub start_after: Duration,
    /// How often to look at groups that settle, for probes or last messages. Default 20 ms.
    pub look_again: Duration,
    /// How long to wait before probing once more. Default 1 s.
    pub probe_again: Duration,
    /// Longest the search for the highest rate may take. Default 10 min; some 60 s are usual.
    pub search_within: Duration,
    /// Longest a backlog may take to build, beyond the time its size takes at the workload's rate. Default 60 s.
    pub fill_slack: Duration,
    /// A backlog must drain within so many times the time it took to build (and at least `fill_slack`). Default 10.
    pub drain_factor: u32,
}

/// What happens to a run whose worker is lost under load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnLoss {
    /// It stops, and what was measured until then is its partial result.
    #[default]
    Fail,
    /// It goes on with the workers that are left; its result says from when.
    Continue,
}

/// How workers' clocks relate to the controller's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clocks {
    /// Controller and worker are one process.
    #[default]
    Same,
    /// Each worker has its own, which is measured again and again.
    Measured,
}

impl Settings {
    /// The defaults, for this messaging system.
    #[must_use]
    pub fn new(driver: DriverConfig) -> Self {
        Self {
            driver,
            payload: None,
            system: None,
            controller: String::new(),
            names: Vec::new(),
            take_over: false,
            on_loss: OnLoss::Fail,
            clocks: Clocks::Same,
            day_second_at: (0, Instant::ZERO),
            period: Duration::from_secs(1),
            call_within: Duration::from_secs(30),
            connect_within: Duration::from_secs(10),
            retry_after: Duration::from_millis(200),
            setup_within: Duration::from_secs(60),
            stop_within: Duration::from_secs(30),
            drain_within: Duration::from_secs(60),
            quiet_after: Duration::from_secs(5),
            lease: Duration::from_secs(30),
            start_after: Duration::from_millis(100),
            look_again: Duration::from_millis(20),
            probe_again: Duration::from_secs(1),
            search_within: Duration::from_secs(600),
            fill_slack: Duration::from_secs(60),
            drain_factor: 10,
        }
    }

    /// Seconds since midnight at `at`.
    pub(super) fn day_second(&self, at: Instant) -> u32 {
        const DAY: u64 = 86_400;
        let (second, known_at) = self.day_second_at;
        let seconds = (u64::from(second) + at.since(known_at).as_secs()) % DAY;
        u32::try_from(seconds).unwrap_or(0)
    }

    /// The longest a run of `workload` over so many workers can take, whatever happens to it: the sum of all bounds.
    #[must_use]
    pub fn longest(&self, workload: &Workload, workers: u32) -> Duration {
        // Calls: prepare, the last look at the groups, the last look for probes, start, the last read of the load, stop, the read after it, resume,
        // the last look for messages, verify, both once more after silence, delete (which counts twice), close.
        let mut longest = self.call_within * 15 + self.setup_within * 6 + self.stop_within + self.drain_within;
        longest += self.start_after + workload.warmup_duration + workload.test_duration + self.period * 2;
        if self.clocks == Clocks::Measured {
            // Until each is known, and until every worker has been sent it.
            longest += self.call_within * 2;
        }
        if self.on_loss == OnLoss::Continue {
            // Each worker that is lost is waited for once.
            longest += self.call_within * workers;
        }
        if workload.rate == RateGoal::Search {
            longest += self.search_within + self.period * 12;
        }
        if let (Some(backlog), RateGoal::Fixed(rate)) = (workload.backlog, &workload.rate) {
            let messages_per_s = rate.as_f64() * f64::from(workload.subscriptions_per_topic.max(1));
            #[expect(clippy::cast_precision_loss, reason = "a bound, generous by design")]
            let fill = backlog.bytes as f64 / f64::from(workload.message_size.max(1)) / messages_per_s;
            let fill = Duration::from_secs_f64((2.0 * fill).min(1e9)) + self.fill_slack + self.period;
            // Pausing and resuming the consumers are two more calls.
            longest += self.call_within * 2 + fill + (fill * self.drain_factor).max(self.fill_slack) + self.period;
        }
        longest
    }
}
