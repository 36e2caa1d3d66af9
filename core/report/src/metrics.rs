//! What a worker reports on request: Prometheus text, upstream's three counters, and a page for people.
//!
//! Source of the format: Prometheus, "Exposition formats", text format 0.0.4. Our own names begin with `omb_` and use
//! base units (seconds, bytes); upstream's names use upstream's units, for its dashboards.

use std::time::Duration;

use serde_json::{Value, json};

use crate::histogram::millis;
use omb_bench::{
    id::RunId,
    stats::{latency::Latency, tally::Totals},
};
use omb_machine::{
    printable::printable,
    prometheus::Text,
    quantity::{bytes, counted, grouped, latency as shown, rate, real, rfc3339, span},
    time::WallTime,
};

/// How often [`status_page`] reloads itself, in seconds.
const REFRESH_SECONDS: u32 = 2;

/// Upper bounds of the histograms' buckets, in nanoseconds, and the same in seconds as written.
const BOUNDS: [(u64, &str); 22] = [
    (10_000, "0.00001"),
    (25_000, "0.000025"),
    (50_000, "0.00005"),
    (100_000, "0.0001"),
    (250_000, "0.00025"),
    (500_000, "0.0005"),
    (1_000_000, "0.001"),
    (2_500_000, "0.0025"),
    (5_000_000, "0.005"),
    (10_000_000, "0.01"),
    (25_000_000, "0.025"),
    (50_000_000, "0.05"),
    (100_000_000, "0.1"),
    (250_000_000, "0.25"),
    (500_000_000, "0.5"),
    (1_000_000_000, "1"),
    (2_500_000_000, "2.5"),
    (5_000_000_000, "5"),
    (10_000_000_000, "10"),
    (30_000_000_000, "30"),
    (60_000_000_000, "60"),
    (300_000_000_000, "300"),
];

/// Upstream's quantiles, as it writes them.
const QUANTILES: [(f64, &str); 7] =
    [(0.5, "0.5"), (0.75, "0.75"), (0.95, "0.95"), (0.99, "0.99"), (0.999, "0.999"), (0.9999, "0.9999"), (1.0, "1.0")];

/// A worker at one moment, as plain numbers.
#[derive(Clone, Copy, Debug)]
pub struct Metrics<'a> {
    /// Version of this program.
    pub version: &'a str,
    /// The worker's name.
    pub worker: &'a str,
    /// The run it performs; `None` if it is free.
    pub follows: Option<Followed<'a>>,
    /// Its counts in the current run, or in the last one.
    pub totals: &'a Totals,
    /// How often its consumer groups were rebalanced under load.
    pub rebalances: u64,
    /// Messages sent that have no delivery report yet.
    pub in_flight: u64,
    /// How far the sender is behind its schedule: the age of the oldest message that is due but not sent.
    pub schedule_lag: Duration,
    /// CPU time of all the process's threads since it began.
    pub cpu: Duration,
    /// Memory that the process holds now, in bytes.
    pub memory_bytes: u64,
    /// Bytes that the host's network interfaces received; `None` if unknown.
    pub network_received_bytes: Option<u64>,
    /// Bytes that the host's network interfaces sent; `None` if unknown.
    pub network_sent_bytes: Option<u64>,
    /// Commands answered since the process began.
    pub commands_answered: u64,
    /// Runs that were closed because their controller fell silent.
    pub leases_expired: u64,
    /// Clients of former runs that still wait for a broker that does not answer.
    pub clients_left_behind: usize,
    /// The current rates; `None` if nothing was measured yet.
    pub rates: Option<Rates>,
    /// Where the stats port answers, `http://host:8081`, if it is not the page's own.
    pub stats_url: Option<&'a str>,
}

/// The run that a worker performs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed<'a> {
    /// Which run.
    pub run: RunId,
    /// The controller's own name, as it sent it.
    pub controller: &'a str,
    /// Start, by the worker's wall clock.
    pub since: WallTime,
}

/// Messages per second over the last period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Confirmed.
    pub acked: f64,
    /// Received.
    pub received: f64,
}

/// All metrics, in Prometheus' text format 0.0.4: each family once, with its help and its type.
///
/// Histograms are exact to the 3 digits of a [`Latency`]: a bound inside one of its buckets counts the whole bucket.
/// Where upstream has a rolling minute, the summaries here cover the whole run.
#[must_use]
pub fn prometheus(metrics: &Metrics<'_>) -> String {
    let mut text = Text::default();
    own(&mut text, metrics);
    upstream(&mut text, metrics.totals);
    text.0
}

/// Upstream's answer to `GET /counters-stats`.
#[must_use]
pub fn counters_stats(totals: &Totals) -> Value {
    json!({
        "messagesSent": totals.acknowledgements.acked,
        "messagesReceived": totals.arrivals.received,
        "messageSendErrors": totals.acknowledgements.failed,
    })
}

/// A page for people: self-contained, without script, reloading itself every 2 s.
#[must_use]
pub fn status_page(metrics: &Metrics<'_>) -> String {
    let (worker, version) = (escaped_html(metrics.worker), escaped_html(metrics.version));
    let follows = match metrics.follows {
        None => "<p class=\"state\">Free: waits for a controller.</p>".to_owned(),
        Some(Followed { run, controller, since }) => format!(
            "<p class=\"state\">Performs run <code>{run}</code> of <b>{}</b> since {}.</p>",
            escaped_html(controller),
            rfc3339(since)
        ),
    };
    let base = escaped_html(metrics.stats_url.unwrap_or_default().trim_end_matches('/'));
    // Only an address may become a link.
    let base = if base.starts_with("http://") || base.starts_with("https://") { base } else { String::new() };
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>omb · {worker}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <h1>{worker} <small>omb {version}</small></h1>\n{follows}\n\
         <h2>Messages</h2>\n<table>\n{}</table>\n\
         <h2>Latencies</h2>\n<table>\n\
         <tr><th></th><th>samples</th><th>p50</th><th>p99</th><th>max</th></tr>\n{}</table>\n\
         <h2>Process</h2>\n<table>\n{}</table>\n\
         <p><a href=\"{base}/metrics\">metrics</a> · <a href=\"{base}/counters-stats\">counters</a></p>\n\
         </body>\n</html>\n",
        messages(metrics),
        latencies(metrics.totals),
        process(metrics),
    )
}

/// The page's look: system fonts, and the browser's own dark or light.
const STYLE: &str = ":root{color-scheme:light dark}\
    body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}\
    h1 small{font-size:.5em;font-weight:normal;opacity:.6}\
    h2{font-size:1rem;margin:1.5rem 0 .3rem;opacity:.7}\
    .state{padding:.6rem .9rem;border-left:4px solid #4a90d9;background:#4a90d922}\
    table{border-collapse:collapse;width:100%}\
    th,td{text-align:right;padding:.25rem .6rem;border-bottom:1px solid #8884;font-variant-numeric:tabular-nums}\
    th:first-child,td:first-child{text-align:left}";

fn row(cells: &[&str]) -> String {
    let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
    format!("<tr>{cells}</tr>\n")
}

fn messages(metrics: &Metrics<'_>) -> String {
    let Totals { departures, acknowledgements, arrivals, .. } = metrics.totals;
    let per_second = |of: fn(Rates) -> f64| metrics.rates.map(|rates| format!("{} msg/s", rate(of(rates))));
    let rows = [
        ("sent", departures.attempted, None),
        ("confirmed", acknowledgements.acked, per_second(|rates| rates.acked)),
        ("received", arrivals.received, per_second(|rates| rates.received)),
        ("refused by the client", acknowledgements.refused, None),
        ("given up", acknowledgements.given_up(), None),
        ("never sent", departures.skipped, None),
        ("corrupted", arrivals.corrupted, None),
        ("in flight", metrics.in_flight, None),
    ];
    rows.into_iter().map(|(name, count, rate)| row(&[name, &grouped(count), &rate.unwrap_or_default()])).collect()
}

fn latencies(totals: &Totals) -> String {
    let line = |(name, latency): (&str, &Latency)| {
        if latency.count() == 0 {
            return row(&[name, "0", "–", "–", "–"]);
        }
        let [p50, p99, max] = [latency.at(0.5), latency.at(0.99), latency.max()].map(|nanos| shown(real(nanos)));
        row(&[name, &grouped(latency.count()), &p50, &p99, &max])
    };
    [
        ("confirmed since intended", &totals.acknowledgements.from_intended),
        ("confirmed since sent", &totals.acknowledgements.from_sent),
        ("received since intended", &totals.arrivals.from_intended),
        ("received since sent", &totals.arrivals.from_sent),
        ("schedule error", &totals.departures.schedule_error),
    ]
    .into_iter()
    .map(line)
    .collect()
}

fn process(metrics: &Metrics<'_>) -> String {
    let mut rows = vec![
        ("behind schedule", span(metrics.schedule_lag)),
        ("CPU time", span(metrics.cpu)),
        ("memory", bytes(metrics.memory_bytes)),
    ];
    rows.extend(metrics.network_received_bytes.map(|count| ("network in", bytes(count))));
    rows.extend(metrics.network_sent_bytes.map(|count| ("network out", bytes(count))));
    rows.push(("commands answered", grouped(metrics.commands_answered)));
    rows.push(("fell silent", counted(metrics.leases_expired, "controller")));
    rows.push(("left behind", counted(metrics.clients_left_behind as u64, "client")));
    rows.iter().map(|(name, value)| row(&[name, value])).collect()
}

/// Our own metrics.
fn own(text: &mut Text, metrics: &Metrics<'_>) {
    let Totals { departures, acknowledgements, arrivals, seen } = metrics.totals;
    text.family("omb_build_info", "gauge", "Version of omb and name of the worker; always 1.");
    text.sample("omb_build_info", &[("version", metrics.version), ("worker", metrics.worker)], 1);
    text.one("omb_obeys_run", "gauge", "Whether the worker performs a run.", u8::from(metrics.follows.is_some()));
    if let Some(Followed { run, controller, since }) = metrics.follows {
        text.family("omb_run_info", "gauge", "The run that the worker performs, and its controller; always 1.");
        text.sample("omb_run_info", &[("run", &run.to_string()), ("controller", controller)], 1);
        let help = "When the worker began the run, by its clock, since the Unix epoch.";
        text.one("omb_run_start_time_seconds", "gauge", help, seconds(since.0));
    }
    for (name, help, count) in [
        ("omb_messages_sent_total", "Messages handed to the client library.", departures.attempted),
        ("omb_messages_skipped_total", "Messages that were due and never sent.", departures.skipped),
        ("omb_messages_acked_total", "Messages that the broker confirmed.", acknowledgements.acked),
        ("omb_acked_bytes_total", "Payload bytes of confirmed messages.", acknowledgements.acked_bytes),
        ("omb_messages_failed_total", "Messages that were refused or given up.", acknowledgements.failed),
        (
            "omb_messages_refused_total",
            "Of them, those that the client library refused to take: never sent.",
            acknowledgements.refused,
        ),
        ("omb_messages_received_total", "Messages received, repeats included.", arrivals.received),
        ("omb_received_bytes_total", "Payload bytes of received messages.", arrivals.received_bytes),
        (
            "omb_messages_reread_total",
            "Messages received again from a position that was read before, as after a rebalance.",
            arrivals.reread,
        ),
        ("omb_group_rebalances_total", "Generations of consumer groups that began under load.", metrics.rebalances),
        ("omb_messages_corrupted_total", "Messages received whose checksum does not fit.", arrivals.corrupted),
        ("omb_messages_headerless_total", "Messages received without our header.", arrivals.headerless),
        (
            "omb_messages_before_intended_total",
            "Messages received at or before the instant they were meant to leave: clocks disagree.",
            arrivals.before_intended,
        ),
        (
            "omb_messages_duplicated_total",
            "Messages received again by the same subscription, from another position.",
            seen.values().map(|seen| seen.duplicated).fold(0, u64::saturating_add),
        ),
        (
            "omb_messages_reordered_total",
            "Messages received after a later one of the same producer and partition.",
            seen.values().map(|seen| seen.reordered).fold(0, u64::saturating_add),
        ),
        ("omb_commands_answered_total", "Commands of controllers that were answered.", metrics.commands_answered),
        ("omb_leases_expired_total", "Runs closed because their controller fell silent.", metrics.leases_expired),
    ] {
        text.one(name, "counter", help, count);
    }
    let help = "Clients of former runs that still wait for a broker that does not answer.";
    text.one("omb_clients_left_behind", "gauge", help, metrics.clients_left_behind);
    text.one("omb_messages_in_flight", "gauge", "Messages sent without a delivery report.", metrics.in_flight);
    let help = "How far the sender is behind its schedule.";
    text.one("omb_schedule_lag_seconds", "gauge", help, metrics.schedule_lag.as_secs_f64());
    text.one("omb_process_cpu_seconds_total", "counter", "CPU time of the process.", metrics.cpu.as_secs_f64());
    text.one("omb_process_memory_bytes", "gauge", "Memory that the process holds.", metrics.memory_bytes);
    for (name, help, count) in [
        (
            "omb_network_received_bytes_total",
            "Bytes received by the host's interfaces.",
            metrics.network_received_bytes,
        ),
        ("omb_network_sent_bytes_total", "Bytes sent by the host's interfaces.", metrics.network_sent_bytes),
    ] {
        if let Some(count) = count {
            text.one(name, "counter", help, count);
        }
    }
    for (name, help, latency) in [
        ("omb_schedule_error_seconds", "Sent minus intended.", &departures.schedule_error),
        ("omb_ack_from_intended_seconds", "Confirmed minus intended.", &acknowledgements.from_intended),
        ("omb_ack_from_sent_seconds", "Confirmed minus sent.", &acknowledgements.from_sent),
        ("omb_receive_from_intended_seconds", "Received minus intended.", &arrivals.from_intended),
        ("omb_receive_from_sent_seconds", "Received minus sent.", &arrivals.from_sent),
    ] {
        histogram(text, name, help, latency);
    }
}

/// Upstream's names and units, for its dashboards.
fn upstream(text: &mut Text, totals: &Totals) {
    let Totals { departures, acknowledgements, arrivals, .. } = totals;
    for (name, help, count) in [
        ("benchmark_producer_messages_sent", "Messages confirmed.", acknowledgements.acked),
        ("benchmark_producer_message_send_errors", "Messages that failed.", acknowledgements.failed),
        ("benchmark_producer_bytes_sent", "Payload bytes confirmed.", acknowledgements.acked_bytes),
        ("benchmark_consumer_messages_recv", "Messages received.", arrivals.received),
        ("benchmark_consumer_bytes_recv", "Payload bytes received.", arrivals.received_bytes),
    ] {
        text.one(name, "counter", help, count);
    }
    for (name, help, latency) in [
        ("benchmark_producer_produce_latency", "Confirmed minus sent, ms.", &acknowledgements.from_sent),
        ("benchmark_producer_producer_delay_latency", "Sent minus intended, ms.", &departures.schedule_error),
        ("benchmark_consumer_e2e_latency", "Received minus sent, ms.", &arrivals.from_sent),
    ] {
        summary(text, name, help, latency);
    }
}

fn histogram(text: &mut Text, name: &str, help: &str, latency: &Latency) {
    text.family(name, "histogram", help);
    let bucket = format!("{name}_bucket");
    for ((_, bound), below) in BOUNDS.iter().zip(counts_to(latency)) {
        text.sample(&bucket, &[("le", bound)], below);
    }
    text.sample(&bucket, &[("le", "+Inf")], latency.count());
    text.sample(&format!("{name}_sum"), &[], sum_nanos(latency) / 1e9);
    text.sample(&format!("{name}_count"), &[], latency.count());
}

fn summary(text: &mut Text, name: &str, help: &str, latency: &Latency) {
    text.family(name, "summary", help);
    let success = ("success", "true");
    for (quantile, written) in QUANTILES {
        text.sample(name, &[success, ("quantile", written)], millis(latency.at(quantile)));
    }
    text.sample(&format!("{name}_count"), &[success], latency.count());
    text.sample(&format!("{name}_sum"), &[success], sum_nanos(latency) / 1e6);
}

/// Samples at or below each of [`BOUNDS`], in one walk over the histogram.
fn counts_to(latency: &Latency) -> [u64; BOUNDS.len()] {
    let (mut counts, mut place, mut below) = ([0; BOUNDS.len()], 0, 0_u64);
    for step in latency.histogram().iter_recorded() {
        let lowest = latency.histogram().lowest_equivalent(step.value_iterated_to());
        while place < BOUNDS.len() && BOUNDS[place].0 < lowest {
            counts[place] = below;
            place += 1;
        }
        below = below.saturating_add(step.count_at_value());
    }
    counts[place..].fill(below);
    counts
}

/// All samples added up, in nanoseconds.
fn sum_nanos(latency: &Latency) -> f64 {
    latency.mean() * real(latency.count())
}

fn seconds(nanos: u64) -> f64 {
    real(nanos) / 1e9
}

/// A text escaped for HTML, also inside an attribute.
fn escaped_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in printable(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use omb_machine::prometheus::fixture::{parsed, value};

    use proptest::prelude::*;

    use super::*;
    use crate::fixture;

    fn metrics<'a>(totals: &'a Totals, name: &'a str) -> Metrics<'a> {
        Metrics {
            version: "0.1.0",
            worker: name,
            follows: Some(Followed { run: RunId(0xab), controller: name, since: WallTime(1_767_529_800_000_000_000) }),
            totals,
            rebalances: 2,
            in_flight: 3,
            schedule_lag: Duration::from_micros(1_500),
            cpu: Duration::from_millis(2_250),
            memory_bytes: 90_000_000,
            network_received_bytes: Some(1_000),
            network_sent_bytes: None,
            commands_answered: 12,
            leases_expired: 1,
            clients_left_behind: 2,
            rates: Some(Rates { acked: 1_234.0, received: 2_468.0 }),
            stats_url: None,
        }
    }

    #[test]
    fn values_are_what_was_counted() {
        let mut totals = fixture::totals(10, 1);
        totals.acknowledgements.from_sent = Latency::new();
        [1_000, 10_000, 10_001, 2_000_000, 400_000_000_000]
            .iter()
            .for_each(|nanos| totals.acknowledgements.from_sent.record(*nanos));
        totals.acknowledgements.failed = 2;
        let samples = parsed(&prometheus(&metrics(&totals, "a")));
        let plain = |name| value(&samples, name, &[]);
        let own = ["omb_messages_acked_total", "omb_messages_received_total", "omb_acked_bytes_total"].map(plain);
        assert_eq!(own, [10.0, 20.0, 10_240.0]);
        assert_eq!((plain("omb_schedule_lag_seconds"), plain("omb_process_cpu_seconds_total")), (0.0015, 2.25));
        assert_eq!(value(&samples, "omb_run_info", &[("run", "00000000000000ab"), ("controller", "a")]), 1.0);
        assert!(!samples.keys().any(|(name, _)| name == "omb_network_sent_bytes_total"), "unknown is left out");
        let below = |le| value(&samples, "omb_ack_from_sent_seconds_bucket", &[("le", le)]);
        // 10,001 ns shares a bucket of 3 digits with 10,000 ns.
        assert_eq!(["0.00001", "0.001", "0.0025", "300", "+Inf"].map(below), [3.0, 3.0, 4.0, 4.0, 5.0]);
        assert_eq!(plain("omb_ack_from_sent_seconds_count"), 5.0);
        assert!((plain("omb_ack_from_sent_seconds_sum") / 400.002_021 - 1.0).abs() < 1e-3);
        let upstream = "benchmark_producer_produce_latency";
        let p50 = value(&samples, upstream, &[("success", "true"), ("quantile", "0.5")]);
        assert!((p50 / 0.010 - 1.0).abs() < 1e-3, "{p50} ms");
        assert_eq!(value(&samples, &format!("{upstream}_count"), &[("success", "true")]), 5.0);
        assert_eq!(plain("benchmark_producer_message_send_errors"), 2.0);
        let stats = counters_stats(&totals);
        assert_eq!(stats, json!({"messagesSent": 10, "messagesReceived": 20, "messageSendErrors": 2}));
    }

    #[test]
    fn a_free_worker_has_a_page_too() {
        let totals = Totals::default();
        let free =
            Metrics { follows: None, rates: None, stats_url: Some("http://host:8081/"), ..metrics(&totals, "w") };
        let page = status_page(&free);
        assert!(page.contains("Free") && page.contains("href=\"http://host:8081/metrics\""), "{page}");
        assert_eq!(value(&parsed(&prometheus(&free)), "omb_obeys_run", &[]), 0.0);
        let evil = Metrics { stats_url: Some("javascript:alert(1)"), ..free };
        assert!(!status_page(&evil).contains("javascript"));
    }

    proptest! {
        /// Any name leaves the text's grammar and the page's tags intact.
        #[test]
        fn any_name_is_escaped(name in "[a-c\"\\\\\n<>&'{}=,é\u{1b}\u{202e}]{0,20}", count in 0..50_u64, seed in any::<u64>()) {
            let totals = fixture::totals(count, seed);
            let metrics = metrics(&totals, &name);
            let samples = parsed(&prometheus(&metrics));
            prop_assert_eq!(value(&samples, "omb_build_info", &[("version", "0.1.0"), ("worker", &printable(&name))]), 1.0);
            let texts = [prometheus(&metrics), status_page(&Metrics { worker: &name, ..metrics })];
            let acts = texts.iter().any(|text| text.contains(['\u{1b}', '\u{202e}']));
            prop_assert!(!acts, "{name:?} acts on a terminal");
            let counts = BOUNDS.map(|(_, le)| value(&samples, "omb_receive_from_sent_seconds_bucket", &[("le", le)]));
            prop_assert!(counts.is_sorted() && counts[BOUNDS.len() - 1] <= real(totals.arrivals.received));
            let tags = |name: &str| status_page(&Metrics { worker: name, ..metrics }).matches(['<', '>', '"']).count();
            prop_assert_eq!(tags(&name), tags("plain"));
        }
    }
}
