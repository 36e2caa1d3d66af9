//! Upstream's keys, in upstream's order.
//!
//! Lists have an entry per window of 10 s of what is measured.

use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::series::Series;
use crate::{
    analysis::Analysis,
    histogram::{millis, quantile_map, whole_micros},
};
use omb_bench::{
    result::{Period, Report},
    stats::{latency::Latency, tally::Totals},
};
use omb_machine::quantity::per_second;

/// Length of an entry of upstream's lists.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// The keys of upstream's result. "Publish latency" is acknowledged minus sent, "publish delay latency" sent minus
/// intended, "end-to-end latency" received minus sent; end-to-end keys are absent if that cannot be known.
///
/// Source: OpenMessaging Benchmark, `TestResult.java`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Upstream {
    /// The workload's name.
    pub workload: String,
    /// The driver file's name.
    pub driver: String,
    /// Payload bytes of a message.
    pub message_size: u32,
    /// Topics.
    pub topics: u32,
    /// Partitions of each topic.
    pub partitions: u32,
    /// Producers of each topic.
    pub producers_per_topic: u32,
    /// Consumers of each subscription.
    pub consumers_per_topic: u32,
    /// Messages acknowledged per second, per window.
    pub publish_rate: Vec<f64>,
    /// Messages not acknowledged per second, per window.
    pub publish_error_rate: Vec<f64>,
    /// Messages received per second, per window.
    pub consume_rate: Vec<f64>,
    /// Acknowledged messages not yet received at the end of each window.
    pub backlog: Vec<u64>,
    /// Mean of the publish latency per window, ms.
    pub publish_latency_avg: Vec<f64>,
    /// Median of the publish latency per window, ms.
    pub publish_latency_50pct: Vec<f64>,
    /// 75th percentile of the publish latency per window, ms.
    pub publish_latency_75pct: Vec<f64>,
    /// 95th percentile of the publish latency per window, ms.
    pub publish_latency_95pct: Vec<f64>,
    /// 99th percentile of the publish latency per window, ms.
    pub publish_latency_99pct: Vec<f64>,
    /// 99.9th percentile of the publish latency per window, ms.
    pub publish_latency_999pct: Vec<f64>,
    /// 99.99th percentile of the publish latency per window, ms.
    pub publish_latency_9999pct: Vec<f64>,
    /// Highest of the publish latency per window, ms.
    pub publish_latency_max: Vec<f64>,
    /// Mean of the publish delay latency per window, µs.
    pub publish_delay_latency_avg: Vec<f64>,
    /// Median of the publish delay latency per window, µs.
    pub publish_delay_latency_50pct: Vec<u64>,
    /// 75th percentile of the publish delay latency per window, µs.
    pub publish_delay_latency_75pct: Vec<u64>,
    /// 95th percentile of the publish delay latency per window, µs.
    pub publish_delay_latency_95pct: Vec<u64>,
    /// 99th percentile of the publish delay latency per window, µs.
    pub publish_delay_latency_99pct: Vec<u64>,
    /// 99.9th percentile of the publish delay latency per window, µs.
    pub publish_delay_latency_999pct: Vec<u64>,
    /// 99.99th percentile of the publish delay latency per window, µs.
    pub publish_delay_latency_9999pct: Vec<u64>,
    /// Highest of the publish delay latency per window, µs.
    pub publish_delay_latency_max: Vec<u64>,
    /// Mean of the publish latency of the whole run, ms.
    pub aggregated_publish_latency_avg: f64,
    /// Median of the publish latency of the whole run, ms.
    pub aggregated_publish_latency_50pct: f64,
    /// 75th percentile of the publish latency of the whole run, ms.
    pub aggregated_publish_latency_75pct: f64,
    /// 95th percentile of the publish latency of the whole run, ms.
    pub aggregated_publish_latency_95pct: f64,
    /// 99th percentile of the publish latency of the whole run, ms.
    pub aggregated_publish_latency_99pct: f64,
    /// 99.9th percentile of the publish latency of the whole run, ms.
    pub aggregated_publish_latency_999pct: f64,
    /// 99.99th percentile of the publish latency of the whole run, ms.
    pub aggregated_publish_latency_9999pct: f64,
    /// Highest of the publish latency of the whole run, ms.
    pub aggregated_publish_latency_max: f64,
    /// Mean of the publish delay latency of the whole run, µs.
    pub aggregated_publish_delay_latency_avg: f64,
    /// Median of the publish delay latency of the whole run, µs.
    pub aggregated_publish_delay_latency_50pct: u64,
    /// 75th percentile of the publish delay latency of the whole run, µs.
    pub aggregated_publish_delay_latency_75pct: u64,
    /// 95th percentile of the publish delay latency of the whole run, µs.
    pub aggregated_publish_delay_latency_95pct: u64,
    /// 99th percentile of the publish delay latency of the whole run, µs.
    pub aggregated_publish_delay_latency_99pct: u64,
    /// 99.9th percentile of the publish delay latency of the whole run, µs.
    pub aggregated_publish_delay_latency_999pct: u64,
    /// 99.99th percentile of the publish delay latency of the whole run, µs.
    pub aggregated_publish_delay_latency_9999pct: u64,
    /// Highest of the publish delay latency of the whole run, µs.
    pub aggregated_publish_delay_latency_max: u64,
    /// Percentile (0 to 100, as text) → publish latency of the whole run, ms.
    pub aggregated_publish_latency_quantiles: IndexMap<String, f64>,
    /// Percentile (0 to 100, as text) → publish delay latency of the whole run, µs.
    pub aggregated_publish_delay_latency_quantiles: IndexMap<String, u64>,
    /// Mean of the end-to-end latency per window, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_latency_avg: Option<Vec<f64>>,
    /// Median of the end-to-end latency per window, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_latency_50pct: Option<Vec<f64>>,
    /// 75th percentile of the end-to-end latency per window, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_latency_75pct: Option<Vec<f64>>,
    /// 95th percentile of the end-to-end latency per window, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_latency_95pct: Option<Vec<f64>>,
    /// 99th percentile of the end-to-end latency per window, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_latency_99pct: Option<Vec<f64>>,
    /// 99.9th percentile of the end-to-end latency per window, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_latency_999pct: Option<Vec<f64>>,
    /// 99.99th percentile of the end-to-end latency per window, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_latency_9999pct: Option<Vec<f64>>,
    /// Highest of the end-to-end latency per window, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end_latency_max: Option<Vec<f64>>,
    /// Percentile (0 to 100, as text) → end-to-end latency of the whole run, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregated_end_to_end_latency_quantiles: Option<IndexMap<String, f64>>,
    /// Mean of the end-to-end latency of the whole run, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregated_end_to_end_latency_avg: Option<f64>,
    /// Median of the end-to-end latency of the whole run, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregated_end_to_end_latency_50pct: Option<f64>,
    /// 75th percentile of the end-to-end latency of the whole run, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregated_end_to_end_latency_75pct: Option<f64>,
    /// 95th percentile of the end-to-end latency of the whole run, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregated_end_to_end_latency_95pct: Option<f64>,
    /// 99th percentile of the end-to-end latency of the whole run, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregated_end_to_end_latency_99pct: Option<f64>,
    /// 99.9th percentile of the end-to-end latency of the whole run, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregated_end_to_end_latency_999pct: Option<f64>,
    /// 99.99th percentile of the end-to-end latency of the whole run, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregated_end_to_end_latency_9999pct: Option<f64>,
    /// Highest of the end-to-end latency of the whole run, ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aggregated_end_to_end_latency_max: Option<f64>,
}

/// Upstream's keys and our series, in one walk over the periods: unpacking one is the most expensive part of a result.
pub(super) fn walk(report: &Report, analysis: &Analysis) -> (Upstream, Series) {
    let end_to_end = analysis.no_end_to_end.is_none();
    let (mut windows, mut series) = (Windows::new(Window::of), Series::new(end_to_end));
    for period in report.periods.iter() {
        windows.add(&period);
        series.push(&period);
    }
    (Upstream::of(report, analysis, &windows.end(&report.tail)), series)
}

impl Upstream {
    fn of(report: &Report, analysis: &Analysis, windows: &[Window]) -> Self {
        let workload = &report.plan.workload;
        let answered = &analysis.answered;
        let (publish_all, delay_all) = (Millis::of(publish(answered)), Micros::of(delay(answered)));
        let rate = |of: fn(&Window) -> f64| windows.iter().map(of).collect::<Vec<_>>();
        let known = analysis.no_end_to_end.is_none();
        let end_to_end_all = known.then(|| Millis::of(end_to_end(answered)));
        // A figure that cannot be known is not written, not even as 0.
        let list = |of: fn(&Window) -> f64| known.then(|| rate(of));
        Self {
            workload: workload.name.clone(),
            driver: report.driver.clone(),
            message_size: workload.message_size,
            topics: workload.topics,
            partitions: workload.partitions_per_topic,
            producers_per_topic: workload.producers_per_topic,
            consumers_per_topic: workload.consumers_per_subscription,
            publish_rate: rate(|it| it.publish_rate),
            publish_error_rate: rate(|it| it.publish_error_rate),
            consume_rate: rate(|it| it.consume_rate),
            backlog: windows.iter().map(|it| it.backlog).collect(),
            publish_latency_avg: rate(|it| it.publish.avg),
            publish_latency_50pct: rate(|it| it.publish.p50),
            publish_latency_75pct: rate(|it| it.publish.p75),
            publish_latency_95pct: rate(|it| it.publish.p95),
            publish_latency_99pct: rate(|it| it.publish.p99),
            publish_latency_999pct: rate(|it| it.publish.p999),
            publish_latency_9999pct: rate(|it| it.publish.p9999),
            publish_latency_max: rate(|it| it.publish.max),
            publish_delay_latency_avg: rate(|it| it.delay.avg),
            publish_delay_latency_50pct: windows.iter().map(|it| it.delay.p50).collect(),
            publish_delay_latency_75pct: windows.iter().map(|it| it.delay.p75).collect(),
            publish_delay_latency_95pct: windows.iter().map(|it| it.delay.p95).collect(),
            publish_delay_latency_99pct: windows.iter().map(|it| it.delay.p99).collect(),
            publish_delay_latency_999pct: windows.iter().map(|it| it.delay.p999).collect(),
            publish_delay_latency_9999pct: windows.iter().map(|it| it.delay.p9999).collect(),
            publish_delay_latency_max: windows.iter().map(|it| it.delay.max).collect(),
            aggregated_publish_latency_avg: publish_all.avg,
            aggregated_publish_latency_50pct: publish_all.p50,
            aggregated_publish_latency_75pct: publish_all.p75,
            aggregated_publish_latency_95pct: publish_all.p95,
            aggregated_publish_latency_99pct: publish_all.p99,
            aggregated_publish_latency_999pct: publish_all.p999,
            aggregated_publish_latency_9999pct: publish_all.p9999,
            aggregated_publish_latency_max: publish_all.max,
            aggregated_publish_delay_latency_avg: delay_all.avg,
            aggregated_publish_delay_latency_50pct: delay_all.p50,
            aggregated_publish_delay_latency_75pct: delay_all.p75,
            aggregated_publish_delay_latency_95pct: delay_all.p95,
            aggregated_publish_delay_latency_99pct: delay_all.p99,
            aggregated_publish_delay_latency_999pct: delay_all.p999,
            aggregated_publish_delay_latency_9999pct: delay_all.p9999,
            aggregated_publish_delay_latency_max: delay_all.max,
            aggregated_publish_latency_quantiles: quantile_map(publish(answered).histogram(), millis),
            aggregated_publish_delay_latency_quantiles: quantile_map(delay(answered).histogram(), whole_micros),
            end_to_end_latency_avg: list(|it| it.end_to_end.avg),
            end_to_end_latency_50pct: list(|it| it.end_to_end.p50),
            end_to_end_latency_75pct: list(|it| it.end_to_end.p75),
            end_to_end_latency_95pct: list(|it| it.end_to_end.p95),
            end_to_end_latency_99pct: list(|it| it.end_to_end.p99),
            end_to_end_latency_999pct: list(|it| it.end_to_end.p999),
            end_to_end_latency_9999pct: list(|it| it.end_to_end.p9999),
            end_to_end_latency_max: list(|it| it.end_to_end.max),
            aggregated_end_to_end_latency_quantiles: known
                .then(|| quantile_map(end_to_end(answered).histogram(), millis)),
            aggregated_end_to_end_latency_avg: end_to_end_all.map(|it| it.avg),
            aggregated_end_to_end_latency_50pct: end_to_end_all.map(|it| it.p50),
            aggregated_end_to_end_latency_75pct: end_to_end_all.map(|it| it.p75),
            aggregated_end_to_end_latency_95pct: end_to_end_all.map(|it| it.p95),
            aggregated_end_to_end_latency_99pct: end_to_end_all.map(|it| it.p99),
            aggregated_end_to_end_latency_999pct: end_to_end_all.map(|it| it.p999),
            aggregated_end_to_end_latency_9999pct: end_to_end_all.map(|it| it.p9999),
            aggregated_end_to_end_latency_max: end_to_end_all.map(|it| it.max),
        }
    }
}

/// Upstream's figures of a latency: the mean in `avg`, and values of type `V`.
#[derive(Clone, Copy)]
struct Figures<V> {
    avg: f64,
    p50: V,
    p75: V,
    p95: V,
    p99: V,
    p999: V,
    p9999: V,
    max: V,
}

type Millis = Figures<f64>;
/// Whole microseconds; only the mean has a fraction.
type Micros = Figures<u64>;

impl<V> Figures<V> {
    fn new(latency: &Latency, mean: fn(f64) -> f64, value: fn(u64) -> V) -> Self {
        let at = |quantile| value(latency.at(quantile));
        Self {
            avg: mean(latency.mean()),
            p50: at(0.5),
            p75: at(0.75),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: value(latency.max()),
        }
    }
}

impl Millis {
    fn of(latency: &Latency) -> Self {
        Self::new(latency, |nanos| nanos / 1e6, millis)
    }
}

impl Micros {
    fn of(latency: &Latency) -> Self {
        Self::new(latency, |nanos| nanos / 1e3, whole_micros)
    }
}

/// An entry of upstream's lists.
struct Window {
    publish_rate: f64,
    publish_error_rate: f64,
    consume_rate: f64,
    backlog: u64,
    publish: Millis,
    delay: Micros,
    end_to_end: Millis,
}

impl Window {
    fn of(stretch: &Stretch) -> Self {
        let Stretch { elapsed, totals, unread } = stretch;
        Self {
            publish_rate: per_second(totals.acknowledgements.acked, *elapsed),
            publish_error_rate: per_second(totals.acknowledgements.failed, *elapsed),
            consume_rate: per_second(totals.arrivals.received, *elapsed),
            backlog: *unread,
            publish: Millis::of(publish(totals)),
            delay: Micros::of(delay(totals)),
            end_to_end: Millis::of(end_to_end(totals)),
        }
    }
}

pub(super) fn publish(totals: &Totals) -> &Latency {
    &totals.acknowledgements.from_sent
}

fn delay(totals: &Totals) -> &Latency {
    &totals.departures.schedule_error
}

fn end_to_end(totals: &Totals) -> &Latency {
    &totals.arrivals.from_sent
}

/// Some periods together.
pub(super) struct Stretch {
    pub(super) elapsed: Duration,
    pub(super) totals: Totals,
    unread: u64,
}

impl Stretch {
    fn join(&mut self, elapsed: Duration, totals: &Totals, unread: u64) {
        self.elapsed += elapsed;
        self.totals.merge(totals);
        self.unread = unread;
    }
}

/// The periods that count, in stretches of 10 s, of which only figures are kept. A rest below half of that joins the
/// stretch before it, so the last two are held whole until what follows them is known.
pub(super) struct Windows<T> {
    /// What is kept of a stretch.
    reduce: fn(&Stretch) -> T,
    closed: Vec<T>,
    before: Option<Stretch>,
    open: Option<Stretch>,
}

impl<T> Windows<T> {
    pub(super) fn new(reduce: fn(&Stretch) -> T) -> Self {
        Self { reduce, closed: Vec::new(), before: None, open: None }
    }

    pub(super) fn add(&mut self, period: &Period) {
        if !period.phase.counts() {
            return;
        }
        let mut stretch = self.open.take().unwrap_or_else(|| Stretch {
            elapsed: Duration::ZERO,
            totals: Totals::default(),
            unread: 0,
        });
        stretch.join(period.elapsed, &period.totals, period.unread);
        // Half a period's tolerance: ten periods of 0.9999 s are a window.
        if stretch.elapsed + period.elapsed / 2 < WINDOW {
            self.open = Some(stretch);
        } else {
            let before = self.before.replace(stretch);
            self.closed.extend(before.as_ref().map(self.reduce));
        }
    }

    /// What was answered after the producers had stopped belongs to the last window's latencies, as in the totals, and
    /// to no window's counts. Never empty: without a period there is one window, in which nothing happened.
    pub(super) fn end(mut self, tail: &Totals) -> Vec<T> {
        let mut last = match (self.before, self.open) {
            (Some(mut before), Some(rest)) if rest.elapsed < WINDOW / 2 => {
                before.join(rest.elapsed, &rest.totals, rest.unread);
                before
            }
            (Some(before), Some(rest)) => {
                self.closed.push((self.reduce)(&before));
                rest
            }
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => Stretch { elapsed: Duration::ZERO, totals: Totals::default(), unread: 0 },
        };
        last.totals.departures.schedule_error.merge(&tail.departures.schedule_error);
        last.totals.acknowledgements.from_sent.merge(&tail.acknowledgements.from_sent);
        last.totals.arrivals.from_sent.merge(&tail.arrivals.from_sent);
        self.closed.push((self.reduce)(&last));
        self.closed
    }
}
