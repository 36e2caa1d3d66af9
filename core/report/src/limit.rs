//! What limited a run: the client, the broker, or neither, with the numbers that show it.
//!
//! ```text
//! target met, messages left on time, readers kept up ───────────────────────▶ neither
//! target met, but messages left late ────────────────────────────────────────▶ neither; their latencies say it
//! the client library itself refused messages ────────────────────────────────▶ client
//! a quota of the broker throttled clients for a tenth of the time or more ────▶ quota
//! the cores of a process that is behind are used up ────────────────────────▶ client
//! sent as requested but not acknowledged, or long unacknowledged ─────────────▶ broker
//! sent late, though little was unacknowledged ──────────────────────────────▶ client
//! unread messages grew, though the client had CPU left ─────────────────────▶ broker, its reading side
//! missed, and nothing that was measured says why ───────────────────────────▶ neither
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{context::Context, fleet, result::Counts, verdict};
use omb_bench::{
    id::WorkerId,
    result::{Found, Phase, Report, soundness},
    stats::tally::Totals,
};
use omb_machine::{
    quantity::{counted, grouped, latency, per_second, rate, real},
    time::nanos,
};

/// Share of the target that must be acknowledged for it to be met. Rates are exact; a smaller shortfall comes from the
/// edges of the first and the last period.
const MET: f64 = 0.99;

/// Share of its cores that a process may use before they count as used up. Interrupts, the kernel's network stack and
/// other processes take the rest, and a thread that must wait for a core is late long before all are at 100 %.
const CORES_USED_UP: f64 = 0.85;

/// Schedule error, p99, up to which messages left on time: a few time slices of the kernel's scheduler, which even an
/// idle machine may take to wake a thread.
const ON_TIME: Duration = Duration::from_millis(10);

/// As a share of the publish latency from the send, p99: a tenth of the broker's part does not distort the whole.
const ON_TIME_SHARE: f64 = 0.1;

/// How long messages are unacknowledged, on average, where producers wait for room: a producer may have 100,000
/// messages or 64 MiB in flight, which takes longer than this below 2 million msg/s and 1.3 GB/s. A broker that keeps
/// up answers sooner, even from the other end of a continent.
const LONG_UNACKED: Duration = Duration::from_millis(50);

/// Share of the measured time for which a quota must have throttled clients to count as the limit.
const QUOTA_SHARE: f64 = 0.1;

/// How many workers are named; the others are counted.
const NAMED: usize = 3;

/// What limited a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub enum Side {
    /// The processes of the benchmark, or their hosts.
    Client,
    /// The messaging system, or the network to it.
    Broker,
    /// A quota of the messaging system, which could do more.
    Quota,
    /// Nothing, or nothing that was measured shows which.
    Neither,
}

/// What limited a run, and why.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// The side that limited it.
    pub side: Side,
    /// One sentence, with the numbers.
    pub reason: String,
    /// The workers that limited it; empty if none did, or if this process is the only worker.
    pub workers: Vec<WorkerId>,
}

/// What limited the run; `None` if nothing was measured. `answered` is what was measured, with answers that came later.
#[must_use]
pub fn limit(report: &Report, answered: &Totals, context: &Context) -> Option<Limit> {
    Some(Evidence::of(report, answered, context)?.judge())
}

/// A process that sends or receives.
struct Client {
    /// `None` is this process.
    worker: Option<WorkerId>,
    name: String,
    /// Cores it used, on average.
    used: f64,
    /// Cores it has, if that is known.
    cores: Option<f64>,
    /// Whether it sent less than its share, or late.
    behind: bool,
    consumes: bool,
}

impl Client {
    fn share_used(&self) -> f64 {
        self.cores.map_or(0.0, |cores| self.used / cores)
    }

    fn is_used_up(&self) -> bool {
        self.share_used() >= CORES_USED_UP
    }

    /// `worker 2 (http://b:8080) used 3.9 of 4 cores`.
    fn in_words(&self) -> String {
        match self.cores {
            Some(cores) => format!("{} used {:.1} of {cores} cores", self.name, self.used),
            None => format!("{} used {:.1} cores", self.name, self.used),
        }
    }
}

/// The numbers a judgement follows from.
struct Evidence {
    /// Length of the measurement.
    elapsed: Duration,
    /// msg/s, over what was measured.
    target: f64,
    /// Without what the client itself refused.
    sent: f64,
    /// Messages that it refused, of `attempted`.
    refused: u64,
    attempted: u64,
    acked: f64,
    /// The words for "acknowledged" in this run.
    confirmed: &'static str,
    /// Messages without a delivery report, on average over the ends of periods, and how long they stay so.
    unacked: f64,
    unacked_for: Duration,
    /// Sent minus intended, p99.
    late: Duration,
    /// Acknowledged minus sent, p99.
    answered_in: Duration,
    /// By how much the unread messages grew during the measurement, if that is much.
    unread_more: Option<u64>,
    received: f64,
    clients: Vec<Client>,
    /// For how long a quota throttled clients, as a phrase, if that is a share worth naming.
    quota: Option<String>,
    /// Cores that an embedded broker used, which takes them from the client.
    broker_used: f64,
}

impl Evidence {
    fn of(report: &Report, answered: &Totals, context: &Context) -> Option<Self> {
        let (measured, elapsed) = (&report.measured, report.measured_for);
        let target = soundness::target(report);
        if elapsed.is_zero() || target <= 0.0 {
            return None;
        }
        let acked = per_second(measured.acknowledgements.acked, elapsed);
        let ends: Vec<u64> =
            report.periods.frames().filter(|frame| frame.phase.counts()).map(|frame| frame.in_flight).collect();
        let unacked = real(ends.iter().sum()) / real(ends.len().max(1) as u64);
        // By Little's law; without any acknowledgement they stay for the whole measurement.
        let unacked_for =
            if acked > 0.0 { Duration::from_secs_f64((unacked / acked).min(elapsed.as_secs_f64())) } else { elapsed };
        Some(Self {
            elapsed,
            target,
            sent: per_second(Counts::of(measured).sent(), elapsed),
            refused: measured.acknowledgements.refused,
            attempted: measured.departures.attempted,
            acked,
            confirmed: soundness::confirmed(report),
            unacked,
            unacked_for,
            late: Duration::from_nanos(answered.departures.schedule_error.at(0.99)),
            answered_in: Duration::from_nanos(answered.acknowledgements.from_sent.at(0.99)),
            unread_more: unread_more(report, target),
            received: per_second(measured.arrivals.received, elapsed),
            quota: verdict::throttled_in_words(report)
                .filter(|_| verdict::throttled(report).as_secs_f64() >= QUOTA_SHARE * elapsed.as_secs_f64()),
            clients: clients(report, context),
            broker_used: if context.embedded() { broker_used(report) } else { 0.0 },
        })
    }

    fn is_met(&self) -> bool {
        // What was sent as requested and is in flight only briefly is not missing.
        let soon = if self.unacked_for < LONG_UNACKED { self.unacked / self.elapsed.as_secs_f64() } else { 0.0 };
        self.sent.min(self.acked + soon).max(self.acked) >= MET * self.target
    }

    fn is_late(&self) -> bool {
        self.late > ON_TIME && self.late > self.answered_in.mul_f64(ON_TIME_SHARE)
    }

    fn judge(&self) -> Limit {
        let (met, late) = (self.is_met(), self.is_late());
        if let Some(quota) = self.quota.as_ref().filter(|_| !met || late || self.unread_more.is_some()) {
            return self.limit(Side::Quota, Vec::new(), &format!("{}; {quota}", self.rates()));
        }
        if !met && real(self.refused) > (1.0 - MET) * real(self.attempted) {
            return self.limit(
                Side::Client,
                Vec::new(),
                &format!(
                    "{} of {} were refused by the client library itself and never sent; {}",
                    grouped(self.refused),
                    counted(self.attempted, "message"),
                    self.rates()
                ),
            );
        }
        if !met || late {
            return self.judge_sending(met);
        }
        match self.unread_more {
            Some(more) => self.judge_reading(more),
            None => self.limit(
                Side::Neither,
                Vec::new(),
                &format!("{}; messages left on time (schedule error p99 {})", self.rates(), figure(self.late)),
            ),
        }
    }

    fn judge_sending(&self, met: bool) -> Limit {
        let rates = self.rates();
        let used_up = self.those(|client| client.is_used_up() && (client.behind || self.clients.len() == 1));
        let unacked = format!(
            "{} were unacknowledged on average, {} of acknowledgements",
            counted(rounded(self.unacked), "message"),
            figure(self.unacked_for)
        );
        // A run that reached its rate is limited by neither the client that asked for it nor the broker that delivered
        // it.
        if !met && !used_up.is_empty() {
            return self.limit(Side::Client, used_up.clone(), &format!("{rates} while {}", in_words(&used_up)));
        }
        if let [one] = &*self.clients
            && !met
            && let Some(cores) = one.cores
            && self.broker_used > 0.0
            && one.used + self.broker_used >= CORES_USED_UP * cores
        {
            let side = if self.broker_used > one.used { Side::Broker } else { Side::Client };
            let shared = format!(
                "{rates} while the embedded broker used {:.1} and the client {:.1} of the {cores} cores they share",
                self.broker_used, one.used
            );
            return self.limit(side, Vec::new(), &shared);
        }
        if !met && self.sent >= MET * self.target {
            return self.limit(
                Side::Broker,
                Vec::new(),
                &format!(
                    "{} msg/s were sent as requested, but {rates}; {unacked}; {}",
                    rate(self.sent),
                    self.cpu_left()
                ),
            );
        }
        let waited = self.unacked_for >= LONG_UNACKED;
        if !met && waited {
            return self.limit(
                Side::Broker,
                Vec::new(),
                &format!("{rates}, and producers waited for room: {unacked}; {}", self.cpu_left()),
            );
        }
        if self.is_late() && met {
            let late = figure(self.late);
            let waited = if waited { format!("; producers waited for room: {unacked}") } else { String::new() };
            return self.limit(
                Side::Neither,
                Vec::new(),
                &format!(
                    "{rates}; messages left late (schedule error p99 {late}), which latencies from the intended instant \
                     contain{waited}"
                ),
            );
        }
        if self.is_late() {
            let behind = self.those(|client| client.behind && self.clients.len() > 1);
            let names = if behind.is_empty() { String::new() } else { format!(": {}", in_words(&behind)) };
            return self.limit(
                Side::Client,
                behind,
                &format!(
                    "{rates}; messages left late (schedule error p99 {}), though producers had room: only {unacked}{names}",
                    figure(self.late)
                ),
            );
        }
        self.limit(
            Side::Neither,
            Vec::new(),
            &format!(
                "{rates}, but messages left on time (schedule error p99 {}), {unacked}; {}",
                figure(self.late),
                self.cpu_left()
            ),
        )
    }

    fn judge_reading(&self, more: u64) -> Limit {
        let grew = format!(
            "{}, but {} were received, and {} more were unread at the end than at the beginning",
            self.rates(),
            rate(self.received) + " msg/s",
            grouped(more)
        );
        let used_up = self.those(|client| client.consumes && client.is_used_up());
        if used_up.is_empty() {
            let left = self.cpu_left();
            let advice = "it is the broker's reading side, or too few consumers and partitions";
            self.limit(Side::Broker, Vec::new(), &format!("{grew}; {left}, so {advice}"))
        } else {
            self.limit(Side::Client, used_up.clone(), &format!("{grew}, while {}", in_words(&used_up)))
        }
    }

    fn those(&self, which: impl Fn(&Client) -> bool) -> Vec<&Client> {
        let mut those: Vec<&Client> = self.clients.iter().filter(|client| which(client)).collect();
        those.sort_by(|a, b| b.share_used().total_cmp(&a.share_used()));
        those
    }

    /// `499,000 of 500,000 msg/s were acknowledged (99.8 %)`.
    fn rates(&self) -> String {
        format!(
            "{} of {} msg/s were {} ({:.1} %)",
            rate(self.acked),
            rate(self.target),
            self.confirmed,
            100.0 * self.acked / self.target
        )
    }

    /// What the busiest client used, and that it is not all.
    fn cpu_left(&self) -> String {
        match self.those(|_| true).first() {
            Some(busiest) if busiest.cores.is_none() => {
                format!("{}; how many it has is unknown", busiest.in_words())
            }
            Some(busiest) if busiest.is_used_up() => format!("{}, which is nearly all", busiest.in_words()),
            Some(busiest) if self.clients.len() > 1 => format!("the busiest, {}", busiest.in_words()),
            Some(busiest) => busiest.in_words(),
            None => "nothing is known of the clients' CPU".to_owned(),
        }
    }

    fn limit(&self, side: Side, clients: Vec<&Client>, why: &str) -> Limit {
        let label = match side {
            Side::Client => "Client-limited",
            Side::Broker => "Broker-limited",
            Side::Quota => "Limited by a quota of the broker",
            Side::Neither if self.is_met() => "Limited by neither client nor broker",
            Side::Neither => "What limited this run is unknown",
        };
        // A run that met its target with its last core would not have met a higher one.
        let near = self.those(Client::is_used_up);
        let warning = if side == Side::Neither && !near.is_empty() {
            format!("; {}: a higher rate may not hold", in_words(&near))
        } else {
            String::new()
        };
        let mut workers: Vec<WorkerId> = clients.iter().filter_map(|client| client.worker).collect();
        workers.sort_unstable();
        Limit { side, reason: format!("{label}: {why}{warning}."), workers }
    }
}

fn in_words(clients: &[&Client]) -> String {
    let named: Vec<String> = clients.iter().take(NAMED).map(|client| client.in_words()).collect();
    let others = match clients.len().saturating_sub(NAMED) {
        0 => String::new(),
        1 => " and 1 other".to_owned(),
        rest => format!(" and {} others", grouped(rest as u64)),
    };
    format!("{}{others}", named.join(", "))
}

fn figure(duration: Duration) -> String {
    latency(real(nanos(duration)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of counts, shown")]
fn rounded(mean: f64) -> u64 {
    mean.round() as u64
}

/// The workers, or this process.
fn clients(report: &Report, context: &Context) -> Vec<Client> {
    let seconds = report.measured_for.as_secs_f64();
    if report.workers.is_empty() {
        let known = context.host.cores.filter(|_| report.plan.workers == 1).or(Some(report.process.cores));
        return vec![Client {
            worker: None,
            name: if report.plan.workers == 1 { "the client" } else { "the clients together" }.to_owned(),
            used: report.client_cpu.as_secs_f64() / seconds,
            cores: known.filter(|cores| *cores > 0).map(f64::from),
            behind: true,
            consumes: !report.plan.consumers.is_empty(),
        }];
    }
    let rows = report.workers.iter().map(|row| {
        let dealt = fleet::dealt_rate(report, row);
        let late = Duration::from_nanos(row.schedule_error[1]);
        Client {
            worker: Some(row.worker),
            name: row.worker.named(&row.name),
            used: fleet::cores_used(row),
            cores: Some(row.process.cores).filter(|cores| *cores > 0).map(f64::from),
            behind: dealt > 0.0
                && (per_second(row.attempted, row.measured_for) < MET * dealt
                    || late > ON_TIME
                    || row.schedule_lag > ON_TIME),
            consumes: row.consumers > 0,
        }
    });
    rows.collect()
}

/// Cores that the embedded broker used while it was measured. Its CPU is cumulative: a period's is the difference.
fn broker_used(report: &Report) -> f64 {
    let frames = || report.periods.frames();
    let used: Duration = frames()
        .skip(1)
        .zip(frames())
        .filter(|(frame, before)| frame.phase.counts() && before.elapsed > Duration::ZERO)
        .map(|(frame, before)| frame.process.broker_cpu.saturating_sub(before.process.broker_cpu))
        .sum();
    used.as_secs_f64() / report.measured_for.as_secs_f64()
}

/// By how much the unread messages grew over the measurement, if that is more than a search for the highest rate would
/// allow, and more than a second's: a filling pipeline is no backlog. When a worker is lost, the count of what it read
/// is lost too.
fn unread_more(report: &Report, target: f64) -> Option<u64> {
    if report.plan.consumers.is_empty() || report.workers.iter().any(|row| row.lost.is_some()) {
        return None;
    }
    let readers = f64::from(report.plan.workload.subscriptions_per_topic);
    let measuring = || report.periods.frames().filter(|frame| frame.phase == Phase::Measure);
    let (first, last) = (measuring().next()?, measuring().next_back()?);
    let sent = report.phases.iter().filter(|sum| sum.phase == Phase::Measure);
    let sent = real(sent.map(|sum| sum.totals.departures.attempted).sum());
    let more = last.unread.saturating_sub(first.unread);
    let much = (Found::GROWTH_MAX * sent).max(target) * readers;
    (real(more) > much).then_some(more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{analysis::Analysis, fixture};
    use omb_bench::{
        result::Period,
        stats::{latency::Latency, tally::Totals},
    };

    fn limit(report: &Report, context: &Context) -> Option<Limit> {
        Analysis::of(report, context).limit
    }

    /// A report over 10 s in which each second is a good one with `change` applied.
    fn of(change: impl Fn(u64, &mut Period)) -> Report {
        let periods = (0..10).map(|n| {
            let mut period = fixture::period(Phase::Measure, n, fixture::totals(1_000, n));
            change(n, &mut period);
            period
        });
        fixture::of(periods.collect(), Totals::default())
    }

    /// A second in which `count` messages were sent and acknowledged, late by `late_ms`.
    fn sent(period: &mut Period, count: u64, late_ms: u64) {
        period.totals = fixture::totals(count, 1);
        period.totals.departures.schedule_error = Latency::new();
        (0..count).for_each(|_| period.totals.departures.schedule_error.record(late_ms * 1_000_000));
    }

    #[track_caller]
    fn limited(report: &Report, side: Side, reason: &str) {
        let limit = limit(report, &fixture::context()).expect("something was measured");
        assert_eq!((limit.side, limit.reason.as_str()), (side, reason));
    }

    #[test]
    fn a_target_that_was_met_is_limited_by_neither() {
        let met = "Limited by neither client nor broker: 1,000 of 1,000 msg/s were acknowledged (100.0 %); messages left on \
                   time (schedule error p99 24.8 µs)";
        let mut report = of(|_, _| {});
        limited(&report, Side::Neither, &format!("{met}."));
        report.client_cpu = Duration::from_millis(19_000);
        limited(&report, Side::Neither, &format!("{met}; the client used 1.9 of 2 cores: a higher rate may not hold."));
    }

    /// More was acknowledged than the target (left over from the warm-up): neither lateness nor a used-up core limited
    /// that.
    #[test]
    fn a_target_that_was_exceeded_is_never_limited_by_the_client() {
        let mut report = of(|n, period| sent(period, 1_020, 30 + n));
        for cpu in [1_000, 19_000] {
            report.client_cpu = Duration::from_millis(cpu);
            let limit = limit(&report, &fixture::context()).expect("something was measured");
            assert_eq!(limit.side, Side::Neither, "{}", limit.reason);
            let phrase = "1,020 of 1,000 msg/s were acknowledged (102.0 %); messages left late (schedule error p99";
            assert!(limit.reason.contains(phrase), "{}", limit.reason);
        }
    }

    /// What the client library does not even accept counts against the client, whatever the broker does with the rest.
    #[test]
    fn what_the_client_refuses_is_the_clients() {
        let report = of(|_, period| {
            let acks = &mut period.totals.acknowledgements;
            (acks.acked, acks.failed, acks.refused) = (600, 400, 350);
        });
        limited(
            &report,
            Side::Client,
            "Client-limited: 3,500 of 10,000 messages were refused by the client library itself and never sent; 600 of 1,000 \
             msg/s were acknowledged (60.0 %).",
        );
    }

    #[test]
    fn a_client_without_cpu_left_limits() {
        let mut report = of(|n, period| sent(period, 500, 500 * n));
        report.client_cpu = Duration::from_millis(18_000);
        limited(
            &report,
            Side::Client,
            "Client-limited: 500 of 1,000 msg/s were acknowledged (50.0 %) while the client used 1.8 of 2 cores.",
        );
    }

    #[test]
    fn producers_without_room_wait_for_the_broker() {
        let report = of(|n, period| {
            sent(period, 500, 500 * n);
            period.in_flight = 2_000;
        });
        limited(
            &report,
            Side::Broker,
            "Broker-limited: 500 of 1,000 msg/s were acknowledged (50.0 %), and producers waited for room: 2,000 messages \
             were unacknowledged on average, 4.00 s of acknowledgements; the client used 0.1 of 2 cores.",
        );
    }

    /// One thread of the client may be at its end while the other cores are idle.
    #[test]
    fn senders_that_are_late_with_room_left_limit() {
        let report = of(|n, period| sent(period, 500, 500 * n));
        limited(
            &report,
            Side::Client,
            "Client-limited: 500 of 1,000 msg/s were acknowledged (50.0 %); messages left late (schedule error p99 4.50 s), \
             though producers had room: only 2 messages were unacknowledged on average, 4.00 ms of acknowledgements.",
        );
    }

    #[test]
    fn what_is_sent_as_asked_and_never_answered_is_the_brokers() {
        let report = of(|_, period| {
            period.totals.acknowledgements.acked = 600;
            period.totals.acknowledgements.failed = 400;
        });
        limited(
            &report,
            Side::Broker,
            "Broker-limited: 1,000 msg/s were sent as requested, but 600 of 1,000 msg/s were acknowledged (60.0 %); 2 messages \
             were unacknowledged on average, 3.33 ms of acknowledgements; the client used 0.1 of 2 cores.",
        );
    }

    #[test]
    fn readers_that_fall_behind_are_distinguished() {
        let behind = |n, period: &mut Period| {
            period.totals.arrivals.received = 500;
            period.unread = n * 1_500;
        };
        let grew = "1,000 of 1,000 msg/s were acknowledged (100.0 %), but 500 msg/s were received, and 13,500 more were \
                    unread at the end than at the beginning";
        let mut report = of(behind);
        limited(
            &report,
            Side::Broker,
            &format!(
                "Broker-limited: {grew}; the client used 0.1 of 2 cores, so it is the broker's reading side, or too few \
                 consumers and partitions."
            ),
        );
        report.client_cpu = Duration::from_secs(20);
        limited(&report, Side::Client, &format!("Client-limited: {grew}, while the client used 2.0 of 2 cores."));
    }

    #[test]
    fn a_miss_that_nothing_explains_is_called_so() {
        let report = of(|_, period| period.totals = fixture::totals(900, 1));
        let limit = limit(&report, &fixture::context()).expect("something was measured");
        assert_eq!(limit.side, Side::Neither);
        assert!(limit.reason.starts_with("What limited this run is unknown: 900 of 1,000 msg/s"), "{}", limit.reason);
    }

    /// Of two workers one has no CPU left; the other is fine.
    #[test]
    fn the_worker_that_limits_is_named() {
        let mut report = of(|n, period| sent(period, 750, 500 * n));
        let fleet = fixture::fleet();
        (report.plan, report.workers) = (fleet.plan, fleet.workers);
        let row = &mut report.workers[1];
        (row.attempted, row.cpu) = (6_000, Duration::from_secs(94));
        let found = limit(&report, &fixture::context()).expect("something was measured");
        assert_eq!((found.side, found.workers), (Side::Client, vec![WorkerId(1)]));
        assert_eq!(
            found.reason,
            "Client-limited: 750 of 1,000 msg/s were acknowledged (75.0 %) while worker 2 (http://10.0.0.2:8080) used 3.9 \
             of 4 cores."
        );
        report.workers[1].cpu = Duration::from_secs(2);
        let found = limit(&report, &fixture::context()).expect("something was measured");
        assert_eq!((found.side, found.workers), (Side::Client, vec![WorkerId(1)]));
        assert!(found.reason.contains("producers had room") && found.reason.contains("worker 2"), "{}", found.reason);
    }

    /// The broker itself reports that it throttles; this is not the most it could do.
    #[test]
    fn a_quota_is_not_the_brokers_limit() {
        let held = |share_ms: u64| {
            of(move |n, period| {
                sent(period, 500, 500 * n);
                period.in_flight = 2_000;
                period.throttled = Duration::from_millis(share_ms);
            })
        };
        limited(
            &held(910),
            Side::Quota,
            "Limited by a quota of the broker: 500 of 1,000 msg/s were acknowledged (50.0 %); throttled by a quota of the \
             broker for 9.1 s of 10.0 s.",
        );
        let found = limit(&held(50), &fixture::context()).expect("something was measured");
        assert_eq!(found.side, Side::Broker, "half a second of ten is not what halves the rate");
        let met = of(|_, period| period.throttled = Duration::from_millis(500));
        assert_eq!(limit(&met, &fixture::context()).expect("something was measured").side, Side::Neither);
    }

    #[test]
    fn the_embedded_broker_shares_the_cores() {
        let mut report = of(|n, period| {
            sent(period, 500, 500 * n);
            period.process.broker_cpu = Duration::from_millis(1_500 * n);
        });
        report.client_cpu = Duration::from_millis(6_000);
        let context = Context { host: fixture::context().host, ..fixture::embedded() };
        let found = limit(&report, &context).expect("something was measured");
        assert_eq!(found.side, Side::Broker);
        assert!(
            found.reason.contains("embedded broker used 1.4 and the client 0.6 of the 2 cores"),
            "{}",
            found.reason
        );
    }

    #[test]
    fn without_a_measurement_there_is_no_limit() {
        assert_eq!(limit(&fixture::of(Vec::new(), Totals::default()), &fixture::context()), None);
    }
}
