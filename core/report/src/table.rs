//! What a person sees: the plan before the start, a line per period, the result at the end. Plain text of given width.

use std::time::Duration;

use crate::{
    histogram::Samples,
    result::{AcknowledgedMeans, Omb, RunResult, TotalCounts, Worker},
    verdict,
};
use omb_bench::{
    config::{
        driver::{DriverConfig, DriverKind},
        workload::{CatchUp, PayloadSource, RateGoal, Workload},
    },
    load::header,
    plan::{
        Plan,
        needs::Needs,
        partition::{self, Dealt},
        sharing,
    },
    rate::{RateList, Tempo},
    result::Period,
    stats::latency::Latency,
};
use omb_machine::{
    config::setting::Setting,
    grid::{Grid, INDENT, wrap},
    quantity::{bytes, counted, grouped, latency, per_second, rate, real, span, three_digits, uppercase},
};

/// Lower bound of the width, whatever is requested: below it words and numbers would be broken.
const WIDTH_MIN: usize = 60;

/// The result as a person reads it, in lines of at most `width` characters where words permit it.
///
/// `written` names the files with more details. MB are a million bytes, as the messages' payloads are counted.
#[must_use]
pub fn result(result: &RunResult, written: &[&str], width: usize) -> String {
    let RunResult { upstream, omb } = result;
    let width = width.max(WIDTH_MIN);
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(&format!("{} on {} ({})", upstream.workload, upstream.driver, omb.system));
    line("");
    wrap(&omb.verdict.sentence, INDENT, INDENT, width).iter().for_each(|wrapped| line(wrapped));
    for note in &omb.notes {
        wrap(note, "  - ", "    ", width).iter().for_each(|wrapped| line(wrapped));
    }
    if let Some(reason) = &omb.verdict.limit_reason {
        line("");
        wrap(reason, INDENT, INDENT, width).iter().for_each(|wrapped| line(wrapped));
    }
    line("");
    rates(result).lines().iter().for_each(|row| line(row));
    line("");
    latency_table(omb, width).iter().for_each(|row| line(row));
    line("");
    if !omb.workers.is_empty() {
        workers(omb, width).iter().for_each(|row| line(row));
        line("");
    }
    wrap(&client(omb), INDENT, INDENT, width).iter().for_each(|wrapped| line(wrapped));
    for path in written {
        line(&format!("{INDENT}Written to {path}"));
    }
    text
}

/// Megabytes, of a million bytes, per second.
fn megabytes(bytes: u64, elapsed: Duration) -> String {
    three_digits(per_second(bytes, elapsed) / 1e6)
}

fn rates(result: &RunResult) -> Grid {
    let Omb { rates, totals: TotalCounts { measured, .. }, .. } = &result.omb;
    let size = f64::from(result.upstream.message_size);
    let row = |name: &str, count: u64, messages: f64, bytes: f64| {
        vec![name.to_owned(), rate(messages), three_digits(bytes / 1e6), grouped(count)]
    };
    let target = rates.target_per_second;
    let measured_for = Duration::try_from_secs_f64(rates.measured_seconds).unwrap_or_default();
    let heads = [&format!("Rates, over {}", span(rounded(measured_for))), "msg/s", "MB/s", "messages"];
    let mut rows = vec![
        heads.map(str::to_owned).to_vec(),
        vec!["target".to_owned(), rate(target), three_digits(target * size / 1e6), String::new()],
        row("sent", measured.sent(), rates.sent_per_second, rates.sent_bytes_per_second),
        row(
            if unconfirmed(&result.omb) { "handed over" } else { "acknowledged" },
            measured.acked,
            rates.acked_per_second,
            rates.acked_bytes_per_second,
        ),
    ];
    for (name, count, messages) in [
        ("refused by client", measured.refused, rates.refused_per_second),
        ("given up", measured.given_up, rates.given_up_per_second),
    ] {
        if count > 0 {
            rows.push(row(name, count, messages, messages * size));
        }
    }
    if result.omb.plan.consumers > 0 {
        rows.push(row("received", measured.received, rates.received_per_second, rates.received_bytes_per_second));
    }
    Grid::new(rows)
}

/// Whether the broker confirms nothing, so that messages are handed over and not acknowledged.
fn unconfirmed(omb: &Omb) -> bool {
    omb.acknowledged_means == AcknowledgedMeans::HandedOver
}

/// Rounded to a tenth of a second if longer than one: 60.0004 s is `1 min`.
fn rounded(elapsed: Duration) -> Duration {
    if elapsed < Duration::from_secs(1) {
        return elapsed;
    }
    let tenths = (elapsed.as_millis() + 50) / 100;
    Duration::from_millis(u64::try_from(tenths).unwrap_or(u64::MAX / 100) * 100)
}

/// A column of the latency table: its name, the share of the samples that lie above its value, and the value.
type Column = (&'static str, f64, fn(&Samples) -> u64);

const COLUMNS: [Column; 6] = [
    ("p50", 0.5, |samples| samples.p50_ns),
    ("p75", 0.25, |samples| samples.p75_ns),
    ("p95", 0.05, |samples| samples.p95_ns),
    ("p99", 0.01, |samples| samples.p99_ns),
    ("p99.9", 0.001, |samples| samples.p999_ns),
    ("p99.99", 0.000_1, |samples| samples.p9999_ns),
];

/// A percentile, or `-` where not even one sample can be expected above it.
fn percentile(samples: &Samples, (_, above, value): &Column) -> String {
    // With a little tolerance for the rounding of binary fractions: 1,000 samples are enough for p99.9.
    if real(samples.count) * above < 0.999 { "-".to_owned() } else { latency(real(value(samples))) }
}

/// A row per latency, or where that is too wide a column per latency.
fn latency_table(omb: &Omb, width: usize) -> Vec<String> {
    let histograms = &omb.histograms;
    let (intended, sent, confirmed) = if unconfirmed(omb) {
        ("handed over, from intended", "handed over, from sent", "handed to the socket")
    } else {
        ("publish, from intended", "publish, from sent", "acknowledged")
    };
    let all = [
        (intended, Some(&histograms.publish_from_intended)),
        (sent, Some(&histograms.publish_from_sent)),
        ("schedule error", Some(&histograms.schedule_error)),
        ("end-to-end, from intended", histograms.end_to_end_from_intended.as_ref()),
        ("end-to-end, from sent", histograms.end_to_end_from_sent.as_ref()),
    ];
    let known = all.into_iter().filter_map(|(name, samples)| Some((name, samples?)));
    let shown: Vec<(&str, &Samples)> = known.filter(|(_, samples)| samples.count > 0).collect();
    if shown.is_empty() {
        return vec![format!("{INDENT}No latencies: nothing was {confirmed}.")];
    }
    let values = |samples: &Samples| {
        let mut cells: Vec<String> = COLUMNS.iter().map(|column| percentile(samples, column)).collect();
        cells.push(latency(real(samples.max_ns)));
        cells.push(latency(samples.mean_ns));
        cells
    };
    let heads = COLUMNS.iter().map(|(name, ..)| *name).chain(["max", "mean"]).map(str::to_owned);
    let mut rows = vec![["Latency".to_owned()].into_iter().chain(heads).collect::<Vec<_>>()];
    rows.extend(shown.iter().map(|(name, samples)| [(*name).to_owned()].into_iter().chain(values(samples)).collect()));
    let wide = Grid::new(rows);
    if wide.width() <= width {
        return wide.lines();
    }
    // Transposed, with the names in two lines.
    let names = shown.iter().map(|(name, _)| name.split_once([',', ' ']).unwrap_or((name, "")));
    let (mut above, mut below) = (vec!["Latency".to_owned()], vec![String::new()]);
    for (what, of) in names {
        above.push(what.to_owned());
        below.push(of.trim().to_owned());
    }
    let turned = (1..wide.rows()[0].len()).map(|column| wide.rows().iter().map(|row| row[column].clone()).collect());
    Grid::new([above, below].into_iter().chain(turned).collect()).lines()
}

fn client(omb: &Omb) -> String {
    let client = &omb.client;
    let cpu = format!("Client CPU {}", latency(client.cpu_seconds * 1e9));
    let each = client.cpu_ns_per_acked_message;
    let each = each.map_or_else(String::new, |nanos| format!(", {} per message", latency(nanos)));
    let broker = if omb.embedded && omb.workers.is_empty() { ", of which part is the embedded broker's" } else { "" };
    let memory = format!("memory {}, at most {}{broker}", bytes(client.memory_bytes), bytes(client.memory_bytes_max));
    let sum = match omb.plan.workers {
        1 => String::new(),
        workers => format!(" of {} workers together", grouped(u64::from(workers))),
    };
    format!("{cpu}{sum}{each}; {memory}")
}

/// Longest address that a table shows whole.
const ADDRESS_MAX: usize = 30;

/// The end of a long address, which is more telling than its beginning: hosts of one fleet begin alike.
fn short(address: &str) -> String {
    let length = address.chars().count();
    if length <= ADDRESS_MAX {
        return address.to_owned();
    }
    format!("…{}", address.chars().skip(length + 1 - ADDRESS_MAX).collect::<String>())
}

/// More workers than this are not shown one by one.
const SHOWN_MAX: usize = 20;

/// How many of more than [`SHOWN_MAX`] are shown.
const SHOWN_WORST: usize = 10;

/// The workers to show, and whether there are others: all in order, or of many the ones that lag most.
fn shown(workers: &[Worker]) -> (Vec<&Worker>, bool) {
    let mut rows: Vec<&Worker> = workers.iter().collect();
    if rows.len() <= SHOWN_MAX {
        return (rows, false);
    }
    rows.sort_by(|a, b| {
        // To a tenth of a percent, otherwise the edges of periods would decide.
        let share = |row: &Worker| (row.sent_share_of_target.unwrap_or(1.0) * 1e3).round();
        let lost = b.lost.is_some().cmp(&a.lost.is_some());
        let late = |row: &Worker| (row.schedule_lag_ns / 1_000_000, row.schedule_error.map_or(0, |late| late.p99_ns));
        lost.then(share(a).total_cmp(&share(b))).then(late(b).cmp(&late(a)))
    });
    rows.truncate(SHOWN_WORST);
    (rows, true)
}

/// A row per worker, an explanation of the columns, and what is known of the clocks.
fn workers(omb: &Omb, width: usize) -> Vec<String> {
    let (rows, others) = shown(&omb.workers);
    let lost = rows.iter().any(|row| row.lost.is_some());
    let mut heads = vec![
        "Worker",
        "address",
        "dealt/s",
        "sent/s",
        "%",
        "acked/s",
        "recv/s",
        "CPU",
        "memory",
        "in MB/s",
        "out MB/s",
        "late p50",
        "late p99",
        "late max",
        "clock",
        "drift ppm",
    ];
    if lost {
        heads.extend(["last read", "lost at"]);
    }
    let mut table = vec![heads.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    table.extend(rows.iter().map(|row| worker_cells(row, lost)));
    let mut lines = Vec::new();
    if others {
        let hint = format!(
            "The {} of {} workers that lag most; the result file has all of them.",
            rows.len(),
            grouped(omb.workers.len() as u64)
        );
        lines.extend(wrap(&hint, INDENT, INDENT, width));
    }
    lines.extend(Grid::with_texts(table, vec![1]).folded(width));
    lines.push(String::new());
    let words = "Dealt is a worker's share of the total rate, % what of it was sent, CPU the cores it used of those it \
                 has, in and out the network of its host (loopback included), late sent minus intended over the whole \
                 load.";
    lines.extend(wrap(words, INDENT, INDENT, width));
    if let Some(clocks) = omb.clocks.as_ref().and_then(|clocks| clocks.sentence.as_ref()) {
        lines.extend(wrap(clocks, INDENT, INDENT, width));
    }
    lines
}

fn worker_cells(row: &Worker, lost: bool) -> Vec<String> {
    let unknown = || "-".to_owned();
    let cores = row.cores.map_or_else(|| "?".to_owned(), |cores| cores.to_string());
    let megabytes = |bytes: f64| three_digits(bytes / 1e6);
    let mut cells = vec![
        row.worker.to_string(),
        short(&row.address),
        rate(row.target_per_second),
        rate(row.sent_per_second),
        row.sent_share_of_target.map_or_else(unknown, |share| format!("{:.1}", share * 100.0)),
        rate(row.acked_per_second),
        rate(row.received_per_second),
        format!("{:.2}/{cores}", row.cores_used),
        bytes(row.memory_bytes),
        megabytes(row.network_received_bytes_per_second),
        megabytes(row.network_sent_bytes_per_second),
    ];
    let late = row.schedule_error.map(|late| [late.p50_ns, late.p99_ns, late.max_ns].map(|late| latency(real(late))));
    cells.extend(late.unwrap_or_else(|| std::array::from_fn(|_| unknown())));
    let clock = row.clock.as_ref();
    cells.push(clock.map_or_else(unknown, |clock| format!("±{}", latency(real(clock.error_ns)))));
    let drift = clock.and_then(|clock| Some((clock.drift_ppm?, clock.drift_error_ppm?)));
    cells.push(drift.map_or_else(unknown, |(drift, error)| {
        // Rounded up, or it would not be a bound.
        format!("{drift:+.2} ±{:.2}", (error * 100.0).ceil() / 100.0)
    }));
    if lost {
        let seconds = |at: f64| span(rounded(Duration::try_from_secs_f64(at).unwrap_or_default()));
        let lost = row.lost.as_ref();
        cells.push(lost.and_then(|lost| lost.last_read_seconds).map_or_else(unknown, seconds));
        cells.push(lost.map_or_else(unknown, |lost| seconds(lost.detected_seconds)));
    }
    cells
}

/// Widths of the columns of [`period_line`], each with its heading.
const PERIOD: [(&str, usize); 14] = [
    ("time", 8),
    ("phase", 13),
    ("target/s", 10),
    ("sent/s", 10),
    ("acked/s", 10),
    ("recv/s", 10),
    ("MB/s", 7),
    ("unread", 9),
    ("pub p50", 8),
    ("pub p99", 8),
    ("pub max", 8),
    ("e2e p99", 8),
    ("late", 8),
    ("errors", 7),
];

fn in_columns(cells: [String; PERIOD.len()]) -> String {
    let pad = |(column, (cell, (_, width))): (usize, (String, &(&str, usize)))| {
        if column == 1 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    };
    let line = cells.into_iter().zip(&PERIOD).enumerate().map(pad).collect::<Vec<_>>().join(" ");
    line.trim_end().to_owned()
}

/// The heading over the lines of [`period_line`].
///
/// `pub` is publish latency from the intended instant, `e2e` end-to-end from the intended instant, `late` how far the
/// sender is behind its schedule, `MB/s` what is acknowledged.
#[must_use]
pub fn period_heading() -> String {
    in_columns(PERIOD.map(|(heading, _)| heading.to_owned()))
}

/// One period as a line without its end, in the columns of [`period_heading`]; fields keep their order and are
/// separated by blanks only.
#[must_use]
pub fn period_line(period: &Period) -> String {
    let (totals, elapsed) = (&period.totals, period.elapsed);
    let acks = &totals.acknowledgements;
    let every_second = |count: u64| rate(per_second(count, elapsed));
    // A value and its unit are one word, so that a line splits at its blanks.
    let joined = |text: String| text.replace(' ', "");
    let figure = |samples: &Latency, quantile: f64| {
        if samples.count() == 0 { "-".to_owned() } else { joined(latency(real(samples.at(quantile)))) }
    };
    in_columns([
        format!("{:.1}s", period.at.as_secs_f64()),
        period.phase.to_string().replace(' ', "-"),
        rate(period.target),
        every_second(totals.departures.attempted),
        every_second(acks.acked),
        every_second(totals.arrivals.received),
        megabytes(acks.acked_bytes, elapsed),
        grouped(period.unread),
        figure(&acks.from_intended, 0.5),
        figure(&acks.from_intended, 0.99),
        figure(&acks.from_intended, 1.0),
        figure(&totals.arrivals.from_intended, 0.99),
        joined(latency(period.schedule_lag.as_secs_f64() * 1e9)),
        grouped(acks.failed + totals.arrivals.corrupted),
    ])
}

/// What is printed before a run starts: what will be done, by which workers, and how much load it makes.
///
/// The addresses of the workers are `names`, in order; none if the one worker is this process, or if they are unknown.
/// What the messaging system reports of itself, if already queried, is `system`; `needs` is what each worker needs.
#[must_use]
pub fn plan_text(
    plan: &Plan,
    names: &[String],
    driver: &DriverConfig,
    system: Option<&str>,
    needs: &[Needs],
    width: usize,
) -> String {
    let width = width.max(WIDTH_MIN);
    let workload = &plan.workload;
    let broker = match (&driver.kind, system) {
        (DriverKind::Embedded, Some(system)) if !names.is_empty() => {
            format!("{}: {system}. For trying and testing, not for quoting.", driver.name)
        }
        (DriverKind::Embedded, _) => {
            format!("{}: embedded, loopback. For trying and testing, not for quoting.", driver.name)
        }
        (DriverKind::Kafka(_), Some(system)) => format!("{}: {system}", driver.name),
        (DriverKind::Kafka(kafka), None) => {
            let servers = kafka.common.get("bootstrap.servers").or_else(|| kafka.producer.get("bootstrap.servers"));
            format!("{}: Kafka at {}", driver.name, servers.map_or("an address of the client's own", Setting::shown))
        }
    };
    let mut facts = vec![("Workload", what(plan)), ("System", broker), ("Rate", who_sends(plan))];
    if plan.workers > 1 {
        facts.push(("Workers", partition::topology_in_words(plan)));
    }
    facts.extend(sharing::in_words(plan).map(|sharing| ("Clients", sharing)));
    facts.push(("Durations", durations(workload)));
    facts.push(("Expected", expected(plan)));
    facts.extend(needed(needs).map(|needs| ("Needs", needs)));
    facts.extend(cautions(workload).into_iter().map(|caution| ("Note", caution)));
    facts.push(("Run", format!("{}, seed {}", plan.run, plan.seed.0)));
    let mut text = String::new();
    for (name, fact) in facts {
        for line in wrap(&fact, &format!("{name:<11}"), &" ".repeat(11), width) {
            text.push_str(&line);
            text.push('\n');
        }
    }
    text.push_str("Placement\n");
    if plan.workers == 1 && names.is_empty() {
        text.push_str(&plan.to_string());
        return text;
    }
    for line in placement(plan, names, width) {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A row per worker with its share; of very many the first and the last, and the range that all lie in.
fn placement(plan: &Plan, names: &[String], width: usize) -> Vec<String> {
    let all = partition::dealt(plan);
    let (first, last) = partition::listed(&all);
    let row = |dealt: &Dealt| {
        let mut cells = vec![dealt.worker.number().to_string()];
        if !names.is_empty() {
            cells.push(names.get(dealt.worker.0 as usize).map_or_else(String::new, |name| short(name)));
        }
        cells.extend([
            dealt.rate.map_or_else(|| partition::unstated(plan).to_owned(), |it| rate(it.as_f64())),
            grouped(dealt.producers as u64),
            grouped(dealt.consumers as u64),
            dealt.topics_in_words(),
        ]);
        cells
    };
    let mut heads = vec!["Worker", "address", "msg/s", "producers", "consumers", "topics"];
    if names.is_empty() {
        heads.remove(1);
    }
    let topics = heads.len() - 1;
    let mut rows = vec![heads.into_iter().map(str::to_owned).collect::<Vec<_>>()];
    rows.extend(first.iter().map(row));
    if !last.is_empty() {
        rows.push(vec!["…".to_owned()]);
        rows.extend(last.iter().map(row));
    }
    let texts = if names.is_empty() { vec![topics] } else { vec![1, topics] };
    let mut lines = Grid::with_texts(rows, texts).folded(width);
    if !last.is_empty() {
        lines.extend(wrap(&format!("{}.", uppercase(&partition::spread(plan, &all))), INDENT, INDENT, width));
    }
    lines
}

/// The workload in one sentence.
fn what(plan: &Plan) -> String {
    let workload = &plan.workload;
    let payload = match &workload.payload {
        PayloadSource::File(path) => format!("the bytes of {}", path.display()),
        PayloadSource::Random { ratio, pool } => {
            format!("{:.0} % of them random, {}", ratio * 100.0, counted(u64::from(*pool), "payload"))
        }
    };
    let consumers = plan.consumers.len() as u64;
    let readers = if consumers == 0 {
        "no consumers".to_owned()
    } else {
        format!("{} in {}", counted(consumers, "consumer"), counted(plan.subscriptions.len() as u64, "subscription"))
    };
    format!(
        "{}: {} of {}, messages of {} bytes ({payload}), {}, {readers}.",
        workload.name,
        counted(u64::from(workload.topics), "topic"),
        counted(u64::from(workload.partitions_per_topic), "partition"),
        grouped(u64::from(workload.message_size)),
        counted(plan.producers.len() as u64, "producer"),
    )
}

/// The rate, and each producer's share of it.
fn who_sends(plan: &Plan) -> String {
    let producers = plan.producers.len() as u64;
    match &plan.workload.rate {
        RateGoal::Search => format!(
            "searched: the highest that holds over all of {} (producerRate is 0), then measured at that fixed rate. {}",
            counted(producers, "producer"),
            verdict::search_criterion(),
        ),
        RateGoal::Listed(list) => {
            let (first, last) = (&list.points()[0], &list.points()[list.points().len() - 1]);
            let clock = |minute: u32| format!("{}:{:02}", minute / 60, minute % 60);
            let (from, to, of) = if list.by_day() {
                (clock(first.minute), clock(last.minute), "the time of day, over midnight as well")
            } else {
                (
                    format!("minute {}", first.minute),
                    format!("minute {}", last.minute),
                    "the time since the load began, warm-up included",
                )
            };
            format!(
                "by producerRateList: {} from {from} to {to}, along straight lines between them, a new rate every {} s, by \
                 {of}; the total of {}. producerRate is not used.",
                counted(list.points().len() as u64, "point"),
                RateList::STEP_SECONDS,
                counted(producers, "producer"),
            )
        }
        RateGoal::Fixed(total) if producers == 1 => format!("{} msg/s from 1 producer.", rate(total.as_f64())),
        RateGoal::Fixed(total) => {
            let share = u32::try_from(producers)
                .ok()
                .filter(|producers| *producers > 0)
                .map(|producers| total.share(1, producers).as_f64());
            let each = share.map_or_else(String::new, |share| {
                format!(" = {} msg/s for each of {} producers", rate(share), grouped(producers))
            });
            let workers = match plan.workers {
                1 => String::new(),
                workers => format!(", shared by all {} workers, not each worker's", grouped(u64::from(workers))),
            };
            format!("{} msg/s in all{each}: producerRate is the total of the run{workers}.", rate(total.as_f64()))
        }
    }
}

/// What a process needs: this one, or the worker with the largest share.
fn needed(needs: &[Needs]) -> Option<String> {
    match needs {
        [] => None,
        [one] => Some(format!("about {one}.")),
        all => {
            let most = |of: fn(&Needs) -> u64| all.iter().map(of).max().unwrap_or(0);
            let most = Needs {
                files: most(|needs| needs.files),
                threads: most(|needs| needs.threads),
                memory: most(|needs| needs.memory),
                broker: 0,
            };
            Some(format!("about {most} on each worker, at most."))
        }
    }
}

fn durations(workload: &Workload) -> String {
    let mut parts = Vec::new();
    if workload.warmup_duration > Duration::ZERO {
        parts.push(format!("{} of warm-up that does not count", span(workload.warmup_duration)));
    }
    if workload.rate == RateGoal::Search {
        parts.push("the search, usually about a minute".to_owned());
    }
    if let Some(backlog) = workload.backlog {
        let kept =
            if backlog.drain_ratio < 1.0 { format!(" by {:.0} %", backlog.drain_ratio * 100.0) } else { String::new() };
        parts.push(format!("a backlog of {} built up and drained{kept}", bytes(backlog.bytes)));
    }
    parts.push(format!("{} measured", span(workload.test_duration)));
    format!("{}.", parts.join(", then "))
}

/// Messages and bytes that the warm-up and the measurement make.
fn expected(plan: &Plan) -> String {
    let workload = &plan.workload;
    let lasts = workload.warmup_duration + workload.test_duration;
    let messages = match &workload.rate {
        RateGoal::Search => return "depends on the rate that is found.".to_owned(),
        RateGoal::Listed(list) if list.by_day() => return "depends on the time of day at which it begins.".to_owned(),
        RateGoal::Listed(list) => Tempo::Listed { list: list.clone(), day_second: 0 }.messages_within(lasts),
        RateGoal::Fixed(total) => total.messages_within(lasts),
    };
    let volume = messages.saturating_mul(u64::from(workload.message_size));
    let beside =
        if workload.backlog.is_some() { ", and what is sent while the backlog builds up and drains" } else { "" };
    let readers = u64::from(if plan.consumers.is_empty() { 0 } else { workload.subscriptions_per_topic });
    let received = match readers {
        0 => String::new(),
        1 => ", received once".to_owned(),
        2 => ", received twice".to_owned(),
        times => format!(", received {times} times"),
    };
    format!("{} sent ({}){beside}{received}.", counted(messages, "message"), bytes(volume))
}

/// What the workload's choices mean for the results.
fn cautions(workload: &Workload) -> Vec<String> {
    let mut cautions = Vec::new();
    if workload.message_size < header::LEN as u32 {
        cautions.push(format!(
            "messages below {} bytes have no room for our header: they can be counted but not told apart. End-to-end \
             latency comes from the producer's timestamp, in whole milliseconds, where one worker sends and receives; \
             between workers none is reported.",
            header::LEN
        ));
    }
    match workload.catch_up {
        CatchUp::All => {}
        CatchUp::Cap(keep) => cautions
            .push(format!("catchUp: messages that are late by more than {} are skipped, and counted.", span(keep))),
        CatchUp::Drop => cautions.push("catchUp: messages that are late are skipped, and counted.".to_owned()),
    }
    cautions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{context::Context, fixture};
    use omb_bench::{
        config::workload::Backlog,
        id::{RunId, WorkerId},
        plan::Topology,
        result::{Drained, Lost, Phase, Report},
        stats::tally::Totals,
    };
    use omb_machine::seed::Seed;

    fn result(report: &Report, context: &Context, written: &[&str], width: usize) -> String {
        super::result(&RunResult::of(report, context), written, width)
    }

    #[track_caller]
    fn looks(got: &str, want: &str) {
        assert!(got == want, "this was printed:\n{got}\ninstead of:\n{want}");
    }

    #[test]
    fn a_sound_run() {
        let got = result(&fixture::report(), &fixture::context(), &["made-up.json"], 110);
        looks(
            &got,
            "\
made-up on kafka (Kafka, 3 brokers, librdkafka 2.12.1)

  26,010 messages acknowledged since the load began, each received once by each of the 2 subscriptions of its
  topic: nothing lost, doubled, out of order or corrupted.

  Limited by neither client nor broker: 1,000 of 1,000 msg/s were acknowledged (100.0 %); messages left on
  time (schedule error p99 24.8 µs).

  Rates, over 24 s  msg/s  MB/s  messages
  target            1,000  1.02
  sent              1,000  1.02    24,000
  acknowledged      1,000  1.02    24,000
  received          2,000  2.05    48,000

  Latency                        p50      p75      p95      p99    p99.9   p99.99      max     mean
  publish, from intended     3.32 ms  6.45 ms  9.83 ms  10.6 ms  10.8 ms  10.8 ms  10.8 ms  4.14 ms
  publish, from sent         3.30 ms  6.43 ms  9.81 ms  10.6 ms  10.8 ms  10.8 ms  10.8 ms  4.13 ms
  schedule error             15.0 µs  20.0 µs  24.0 µs  24.8 µs  25.0 µs  25.0 µs  25.0 µs  15.0 µs
  end-to-end, from intended  3.62 ms  6.75 ms  10.1 ms  10.9 ms  11.1 ms  11.1 ms  11.1 ms  4.44 ms
  end-to-end, from sent      3.60 ms  6.73 ms  10.1 ms  10.9 ms  11.1 ms  11.1 ms  11.1 ms  4.43 ms

  Client CPU 1.20 s, 50.0 µs per message; memory 90.0 MB, at most 95.0 MB
  Written to made-up.json
",
        );
    }

    /// Transposed on a narrow terminal; too few samples for the high percentiles; the embedded broker is mentioned.
    #[test]
    fn a_short_partial_run_on_a_narrow_terminal() {
        let period = fixture::period(Phase::Measure, 0, fixture::totals(500, 1));
        let mut report = fixture::of(vec![period], Totals::default());
        report.partial = Some("interrupted by the user".to_owned());
        report.verdict.drained = Drained::NotAwaited;
        let got = result(&report, &fixture::embedded(), &[], 72);
        looks(
            &got,
            "\
made-up on kafka (Kafka, 3 brokers, librdkafka 2.12.1)

  500 messages acknowledged, 1,000 received; whether all arrived was not
  checked: the run ended early.
  - PARTIAL: interrupted by the user. What was measured until then, 1 s,
    is shown.
  - EMBEDDED BROKER, LOOPBACK: in memory and in this process. For trying
    and testing, not for quoting.

  What limited this run is unknown: 500 of 1,000 msg/s were acknowledged
  (50.0 %), but messages left on time (schedule error p99 24.7 µs), 2
  messages were unacknowledged on average, 4.00 ms of acknowledgements;
  the client used 0.1 cores; how many it has is unknown.

  Rates, over 1 s  msg/s   MB/s  messages
  target           1,000   1.02
  sent               500  0.512       500
  acknowledged       500  0.512       500
  received         1,000   1.02     1,000

  Latency        publish    publish  schedule     end-to-end  end-to-end
           from intended  from sent     error  from intended   from sent
  p50            3.27 ms    3.25 ms   14.9 µs        3.57 ms     3.55 ms
  p75            6.31 ms    6.29 ms   19.8 µs        6.61 ms     6.59 ms
  p95            9.80 ms    9.77 ms   24.0 µs        10.1 ms     10.1 ms
  p99            10.5 ms    10.5 ms   24.7 µs        10.8 ms     10.8 ms
  p99.9                -          -         -        11.1 ms     11.1 ms
  p99.99               -          -         -              -           -
  max            10.8 ms    10.8 ms   25.0 µs        11.1 ms     11.1 ms
  mean           4.12 ms    4.10 ms   15.0 µs        4.42 ms     4.40 ms

  Client CPU 50.0 ms, 100 µs per message; memory 90.0 MB, at most 95.0
  MB, of which part is the embedded broker's
",
        );
    }

    #[test]
    fn periods_stand_in_columns() {
        let heading = period_heading();
        let line = period_line(&fixture::period(Phase::FillBacklog, 11, fixture::totals(1_000, 1)));
        looks(
            &format!("{heading}\n{line}"),
            "    time phase           target/s     sent/s    acked/s     recv/s    MB/s    unread  pub p50  pub p99  pub max  e2e p99     late  errors
   12.0s fill-backlog       1,000      1,000      1,000      2,000    1.02         4   3.31ms   10.6ms   10.8ms   10.9ms   20.0µs       0",
        );
        assert_eq!(line.split_whitespace().count(), PERIOD.len(), "a line splits at its blanks");
        let idle = period_line(&fixture::period(Phase::Measure, 0, Totals::default()));
        assert_eq!(idle.split_whitespace().count(), PERIOD.len(), "{idle}");
    }

    #[test]
    fn the_plan_says_what_the_rate_means() {
        looks(
            &plan_text(&fixture::plan(fixture::workload()), &[], &fixture::context().driver, None, &[], 100),
            "\
Workload   made-up: 2 topics of 3 partitions, messages of 1,024 bytes (50 % of them random, 100
           payloads), 10 producers, 4 consumers in 4 subscriptions.
System     kafka: Kafka at broker:9092
Rate       1,000 msg/s in all = 100 msg/s for each of 10 producers: producerRate is the total of the
           run.
Durations  2 s of warm-up that does not count, then 24 s measured.
Expected   26,000 messages sent (26.6 MB), received twice.
Run        00000000000000ab, seed 7
Placement
  this process: topics 0-1; 10 producers, 1000 msg/s; 4 consumers
",
        );
    }

    #[test]
    fn the_plan_says_what_it_needs() {
        let needs = Needs { files: 2_440, threads: 1_576, memory: 310_000_000, broker: 0 };
        let line_of = |needs: &[Needs]| {
            let plan = fixture::plan(fixture::workload());
            let text = plan_text(&plan, &[], &fixture::context().driver, None, needs, 100);
            text.lines().find(|line| line.starts_with("Needs")).expect("it is shown").to_owned()
        };
        assert_eq!(line_of(&[needs]), "Needs      about 2,440 open files, 1,576 threads and 310 MB of memory.");
        let broker = Needs { broker: 2 << 30, ..needs };
        let expected =
            "Needs      about 2,440 open files, 1,576 threads and 310 MB of memory, and up to 2.15 GB for the";
        assert_eq!(line_of(&[broker]), expected);
        let less = Needs { files: 3, threads: 2_000, memory: 4, broker: 0 };
        let expected = "Needs      about 2,440 open files, 2,000 threads and 310 MB of memory on each worker, at most.";
        assert_eq!(line_of(&[needs, less]), expected);
    }

    fn fleet_plan(workload: Workload, workers: u32, topology: Topology) -> Plan {
        Plan::with_topology(RunId(0xab), Seed(7), workload, workers, topology)
    }

    /// The workers' part of a plan's text: from their row on.
    fn of_workers(text: &str) -> String {
        let kept = text
            .lines()
            .skip_while(|line| !line.starts_with("Rate"))
            .filter(|line| !["Durations", "Expected", "Run "].iter().any(|other| line.starts_with(other)));
        kept.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_placement_of_a_fleet() {
        let workload = Workload {
            topics: 10,
            producers_per_topic: 1,
            rate: RateGoal::Fixed(fixture::rate(10_000)),
            ..fixture::workload()
        };
        let names = ["http://10.0.0.1:8080", "http://10.0.0.2:8080", "http://10.0.0.3:8080"].map(str::to_owned);
        let driver = fixture::context().driver;
        let plan = fleet_plan(workload.clone(), 3, Topology::Shared);
        looks(
            &of_workers(&plan_text(&plan, &names, &driver, None, &[], 100)),
            "\
Rate       10,000 msg/s in all = 1,000 msg/s for each of 10 producers: producerRate is the total of
           the run, shared by all 3 workers, not each worker's.
Workers    3; each produces and consumes. A topic belongs to one worker, with all its producers and
           consumers: topic i to worker 1 + i mod 3.
Placement
  Worker  address               msg/s  producers  consumers  topics
  1       http://10.0.0.1:8080  4,000          4          8  0, 3, 6, 9
  2       http://10.0.0.2:8080  3,000          3          6  1, 4, 7
  3       http://10.0.0.3:8080  3,000          3          6  2, 5, 8",
        );
        let split = fleet_plan(workload, 3, Topology::Split { more_consumers: false });
        looks(
            &of_workers(&plan_text(&split, &[], &driver, None, &[], 100)),
            "\
Rate       10,000 msg/s in all = 1,000 msg/s for each of 10 producers: producerRate is the total of
           the run, shared by all 3 workers, not each worker's.
Workers    3 with split roles: worker 1 produces, workers 2-3 consume.
Placement
  Worker   msg/s  producers  consumers  topics
  1       10,000         10          0  0-9
  2            0          0         10  1, 3, 5, 7, 9
  3            0          0         10  0, 2, 4, 6, 8",
        );
    }

    #[test]
    fn the_placement_of_a_thousand_workers_fills_no_screen() {
        let workload =
            Workload { topics: 10_000, rate: RateGoal::Fixed(fixture::rate(1_000_000)), ..fixture::workload() };
        let plan = fleet_plan(workload, 1_000, Topology::Shared);
        let names: Vec<String> =
            (1..=1_000).map(|n| format!("http://a-rather-long-name-of-a-worker-{n}.example:8080")).collect();
        looks(
            &of_workers(&plan_text(&plan, &names, &fixture::context().driver, None, &[], 100)),
            "\
Rate       1,000,000 msg/s in all = 20.0 msg/s for each of 50,000 producers: producerRate is the
           total of the run, shared by all 1,000 workers, not each worker's.
Workers    1000; each produces and consumes. A topic belongs to one worker, with all its producers
           and consumers: topic i to worker 1 + i mod 1000.
Clients    50,000 producers share 25,000 clients, each with connections of its own, for each has
           little to send; consumers have one each. `clients: own` in the workload gives every
           producer its own.
Placement
  Worker  address                         msg/s  producers  consumers  topics
  1       …me-of-a-worker-1.example:8080  1,000         50         20  0, 1000, 2000, … 9000 (10)
  2       …me-of-a-worker-2.example:8080  1,000         50         20  1, 1001, 2001, … 9001 (10)
  3       …me-of-a-worker-3.example:8080  1,000         50         20  2, 1002, 2002, … 9002 (10)
  4       …me-of-a-worker-4.example:8080  1,000         50         20  3, 1003, 2003, … 9003 (10)
  5       …me-of-a-worker-5.example:8080  1,000         50         20  4, 1004, 2004, … 9004 (10)
  …
  998     …-of-a-worker-998.example:8080  1,000         50         20  997, 1997, 2997, … 9997 (10)
  999     …-of-a-worker-999.example:8080  1,000         50         20  998, 1998, 2998, … 9998 (10)
  1000    …of-a-worker-1000.example:8080  1,000         50         20  999, 1999, 2999, … 9999 (10)
  Each of the 1000 workers: topics 10, producers 50, msg/s 1000, consumers 20.",
        );
    }

    /// One worker went on without the other; on a narrower terminal the table is folded.
    #[test]
    fn a_fleet_that_lost_a_worker() {
        let mut report = fixture::fleet();
        let row = &mut report.workers[1];
        row.measured_for = Duration::from_millis(10_300);
        (row.attempted, row.acked, row.received) = (5_000, 4_990, 10_100);
        row.lost = Some(Lost {
            worker: row.worker,
            read: Some(Duration::from_secs(11)),
            detected: Duration::from_millis(12_345),
            cause: "it fell silent".to_owned(),
        });
        report.clock_error = Some(Duration::from_micros(250));
        report.verdict.subscriptions.retain(|id, _| id.0 < 2);
        report.verdict.unverified = 2;
        for width in [80, 100, 140] {
            let text = result(&report, &fixture::context(), &[], width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
        }
        looks(
            &result(&report, &fixture::context(), &["made-up.json"], 110),
            "\
made-up on kafka (Kafka, 3 brokers, librdkafka 2.12.1)

  26,010 messages acknowledged since the load began; 2 subscriptions received every message of theirs, 26,010
  deliveries in all: nothing lost, doubled, out of order or corrupted. 2 of the 4 subscriptions could not be
  checked, since worker 2 (http://10.0.0.2:8080) was lost.
  - PARTIAL: worker 2 (http://10.0.0.2:8080) was lost, and the run went on without.
  - Worker 2 (http://10.0.0.2:8080) was last read 11 s after the load began, and given up at 12.3 s: it fell
    silent. What it had counted by then is in the totals, exactly; from then on its 500 msg/s and 2 consumers
    are missing.

  Limited by neither client nor broker: 1,000 of 1,000 msg/s were acknowledged (100.0 %); messages left on
  time (schedule error p99 24.8 µs).

  Rates, over 24 s  msg/s  MB/s  messages
  target            1,000  1.02
  sent              1,000  1.02    24,000
  acknowledged      1,000  1.02    24,000
  received          2,000  2.05    48,000

  Latency                        p50      p75      p95      p99    p99.9   p99.99      max     mean
  publish, from intended     3.32 ms  6.45 ms  9.83 ms  10.6 ms  10.8 ms  10.8 ms  10.8 ms  4.14 ms
  publish, from sent         3.30 ms  6.43 ms  9.81 ms  10.6 ms  10.8 ms  10.8 ms  10.8 ms  4.13 ms
  schedule error             15.0 µs  20.0 µs  24.0 µs  24.8 µs  25.0 µs  25.0 µs  25.0 µs  15.0 µs
  end-to-end, from intended  3.62 ms  6.75 ms  10.1 ms  10.9 ms  11.1 ms  11.1 ms  11.1 ms  4.44 ms
  end-to-end, from sent      3.60 ms  6.73 ms  10.1 ms  10.9 ms  11.1 ms  11.1 ms  11.1 ms  4.43 ms

  Worker  address               dealt/s  sent/s      %  acked/s  recv/s     CPU   memory  in MB/s  out MB/s
  1       http://10.0.0.1:8080      500     500  100.0      500   1,000  0.02/4  45.0 MB     1.02     0.517
  2       http://10.0.0.2:8080      500     485   97.1      484     981  0.06/4  45.0 MB     2.39      1.20

  Worker  late p50  late p99  late max    clock    drift ppm  last read  lost at
  1        15.0 µs   24.8 µs   25.0 µs  ±120 µs  +3.12 ±0.25          -        -
  2        15.0 µs   24.8 µs   25.0 µs  ±130 µs  -1.88 ±0.25       11 s   12.3 s

  Dealt is a worker's share of the total rate, % what of it was sent, CPU the cores it used of those it has,
  in and out the network of its host (loopback included), late sent minus intended over the whole load.
  Clocks differ by at most ±250 µs: end-to-end latencies between workers are right to within that.

  Client CPU 1.20 s of 2 workers together, 50.0 µs per message; memory 90.0 MB, at most 95.0 MB
  Written to made-up.json
",
        );
    }

    #[test]
    fn of_many_workers_those_that_lag_most_are_shown() {
        let mut report = fixture::fleet();
        report.workers = (0..1_000).map(|n| fixture::row(n, format!("w{}", n + 1))).collect();
        report.workers[700].attempted = 6_000;
        report.workers[800].attempted = 9_000;
        report.workers[900].schedule_lag = Duration::from_secs(3);
        report.workers[999].lost = Some(Lost { worker: WorkerId(999), ..Lost::default() });
        let text = workers(&RunResult::of(&report, &fixture::context()).omb, 140).join("\n");
        assert!(
            text.starts_with("  The 10 of 1,000 workers that lag most; the result file has all of them."),
            "{text}"
        );
        let numbers: Vec<&str> =
            text.lines().skip(2).take(5).filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(numbers, ["1000", "701", "801", "901", "1"], "{text}");
    }

    #[test]
    fn a_long_address_keeps_its_end() {
        assert_eq!(short("http://10.0.0.1:8080"), "http://10.0.0.1:8080");
        let long = short("https://worker-0123456789.benchmarks.example:8080");
        assert_eq!((long.as_str(), long.chars().count()), ("…56789.benchmarks.example:8080", ADDRESS_MAX));
    }

    #[test]
    fn a_search_with_a_backlog_is_planned_in_words() {
        let mut workload = fixture::workload();
        workload.rate = RateGoal::Search;
        workload.message_size = 10;
        workload.backlog = Some(Backlog { bytes: 1 << 30, drain_ratio: 0.9 });
        let text = plan_text(&fixture::plan(workload), &[], &fixture::embedded().driver, None, &[], 100);
        for part in
            ["embedded, loopback", "searched", "95 %", "1.07 GB built up and drained by 90 %", "10 bytes", "Note"]
        {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn nothing_is_wider_than_asked() {
        let mut report = fixture::report();
        report.partial = Some("worker 0 did not answer within 30 s when asked to read its counters".to_owned());
        for width in [80, 100, 120] {
            let text = result(&report, &fixture::embedded(), &[], width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
        }
    }
}
