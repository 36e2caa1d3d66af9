//! The workload file: topics, payload, rate, durations.
//!
//! Keys and their meaning are upstream's (openmessaging/benchmark, `Workload.java`), and so are the defaults, except
//! where upstream's make no sense: what it would read as 0 topics or as an endless test is an error here. Our own keys
//! are `testDuration`, `warmupDuration`, `seed`, `catchUp`, `verify` and `clients`.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use crate::rate::{Rate, RateList, RatePoint};
use omb_machine::{
    config::{
        ConfigErrors, Leniency, Parsed, Problem,
        yaml::{self, Node, Number, Reader, Value, nearest},
    },
    units,
};

/// Highest `producerRate`: one message per nanosecond, the resolution of the schedule.
const RATE_MAX: u64 = 1_000_000_000;

/// Payloads of the pool that is made if the file names no payload. As many as upstream's own workloads use.
const POOL_DEFAULT: u32 = 100;

/// Bytes that the default pool may take, with fewer payloads if they are large: it is held on every worker.
const POOL_DEFAULT_BYTES: u32 = 64 << 20;

/// Bytes that a pool of payloads may take at most: it is held on every worker.
pub const POOL_BYTES_MAX: u64 = 1 << 30;

/// Characters of a key: 7 random bytes as unpadded URL-safe base64.
pub const KEY_LEN: usize = 10;

/// Bytes of a GiB, the unit of `consumerBacklogSizeGB`.
const GIB: f64 = 1_073_741_824.0;

/// Largest `consumerBacklogSizeGB`: a pebibyte.
const BACKLOG_MAX: f64 = 1_048_576.0;

/// What one run is to do, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// `name`; the file's stem where the file gives none.
    pub name: String,
    /// `topics`, at least 1.
    pub topics: u32,
    /// `partitionsPerTopic`, at least 1.
    pub partitions_per_topic: u32,
    /// `keyDistributor`, default `NO_KEY`.
    pub key_distributor: KeyDistributor,
    /// `messageSize`, payload bytes, at least 1. From 32 bytes on a payload begins with our header.
    pub message_size: u32,
    /// `payloadFile`, or `useRandomizedPayloads` with `randomBytesRatio` and `randomizedPayloadPoolSize`; where the file
    /// gives neither, 100 fully random payloads (fewer above 64 MiB in all), with a warning.
    pub payload: PayloadSource,
    /// `subscriptionsPerTopic` (Kafka: consumer groups), 0 for a run that only produces.
    pub subscriptions_per_topic: u32,
    /// `consumerPerSubscription`.
    pub consumers_per_subscription: u32,
    /// `producersPerTopic`.
    pub producers_per_topic: u32,
    /// `producerRate` or `producerRateList`: messages per second of the whole run.
    pub rate: RateGoal,
    /// `consumerBacklogSizeGB` above 0, with `backlogDrainRatio`.
    pub backlog: Option<Backlog>,
    /// `testDuration` or `testDurationMinutes`, above 0.
    pub test_duration: Duration,
    /// `warmupDuration` or `warmupDurationMinutes`, default 1 minute.
    pub warmup_duration: Duration,
    /// `seed`; drawn at the start, and recorded, where the file gives none.
    pub seed: Option<u64>,
    /// `catchUp`, default `all`.
    pub catch_up: CatchUp,
    /// `verify`, default `header`.
    pub verify: Verify,
    /// `clients`, default `shared`.
    #[serde(default)]
    pub clients: Clients,
}

/// How messages get keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyDistributor {
    /// No key; the client spreads messages over partitions.
    #[default]
    NoKey,
    /// Each sending thread walks the table of 10,000 keys, from index 1 up, and wraps to 0.
    RoundRobin,
    /// The index is the low 32 bits of the nanosecond clock, modulo 10,000.
    RandomNano,
}

/// Where payloads come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PayloadSource {
    /// One payload, the bytes of this file, whose size must be `messageSize`.
    File(PathBuf),
    /// A pool made from the run's seed: of each payload, `floor(size * ratio)` random bytes, then zeros.
    Random {
        /// 0.0 to 1.0.
        ratio: f64,
        /// Payloads in the pool, at least 1.
        pool: u32,
    },
}

/// `producerRate`, or `producerRateList` in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RateGoal {
    /// Messages per second of the whole run, as in the file; below 1 as well.
    Fixed(Rate),
    /// `producerRate: 0`: find the highest rate that holds, then measure at it.
    Search,
    /// `producerRateList`, as AutoMQ's fork has it: `[[minutes, rate], ..]` from the beginning of the load on, warm-up
    /// included, or `[[hour, minute, rate], ..]` by the controller's local time of day.
    Listed(RateList),
}

/// Backlog phases: consumers pause, a backlog builds up, then they drain it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backlog {
    /// Payload bytes to build up over all subscriptions (`consumerBacklogSizeGB` in GiB).
    /// Fractions such as 0.5 are taken as they are, to the nearest byte; upstream cuts them to 0.
    pub bytes: u64,
    /// 1.0: drain fully; 0.0: best effort. Default 1.0.
    pub drain_ratio: f64,
}

/// What happens to messages that could not be sent when they were due (`catchUp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatchUp {
    /// Send the whole backlog as fast as possible; every message keeps its intended instant.
    #[default]
    All,
    /// `cap(10s)`: keep at most this much of the backlog; what is older is skipped and counted.
    Cap(Duration),
    /// Skip everything that is late by more than one interval; it is counted.
    Drop,
}

/// How far the consumers check a payload (`verify`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verify {
    /// The checksum covers the header.
    #[default]
    Header,
    /// The checksum covers the whole payload.
    Full,
}

/// Whether producers and consumers with little load may share what is costly (`clients`): see
/// [`sharing`](crate::plan::sharing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Clients {
    /// Producers share client instances, consumers share our threads, if there are many with little load.
    #[default]
    Shared,
    /// Each has its own.
    Own,
}

/// Every key that is applied, in the order in which upstream writes them; ours come last.
const KEYS: &[&str] = &[
    "name",
    "topics",
    "partitionsPerTopic",
    "keyDistributor",
    "messageSize",
    "useRandomizedPayloads",
    "randomBytesRatio",
    "randomizedPayloadPoolSize",
    "payloadFile",
    "subscriptionsPerTopic",
    "producersPerTopic",
    "consumerPerSubscription",
    "producerRate",
    "producerRateList",
    "consumerBacklogSizeGB",
    "backlogDrainRatio",
    "testDurationMinutes",
    "warmupDurationMinutes",
    "testDuration",
    "warmupDuration",
    "seed",
    "catchUp",
    "verify",
    "clients",
];

/// Keys of other programs that read such files, and that change nothing about the load: how it is shown, how topics are
/// named.
const ELSEWHERE: &[(&str, &str)] = &[
    ("sampleRateMillis", "Redpanda's fork"),
    ("randomTopicNames", "AutoMQ's fork"),
    ("logIntervalMillis", "AutoMQ's fork"),
];

/// Keys of other programs that *are* the load: without them the measured load would not be the one described. The value
/// is the one that has no effect, if there is one.
const LOAD_ELSEWHERE: &[(&str, &str, &str)] = &[
    ("existingTopicList", "Redpanda's fork", ""),
    ("existingProduceTopicList", "Redpanda's fork", ""),
    ("existingConsumeTopicList", "Redpanda's fork", ""),
    ("drainProducerRate", "Redpanda's fork", "-1"),
    ("partitionsPerTopicList", "AutoMQ's fork", ""),
    ("producersPerTopicList", "AutoMQ's fork", ""),
    ("consumerOnly", "Confluent's fork", "false"),
    ("messageProcessingDelayMs", "the Python port", "0"),
    ("messageSizeDistribution", "newer versions of upstream", ""),
];

const KEY_DISTRIBUTORS: [(&str, KeyDistributor); 3] = [
    ("NO_KEY", KeyDistributor::NoKey),
    ("KEY_ROUND_ROBIN", KeyDistributor::RoundRobin),
    ("RANDOM_NANO", KeyDistributor::RandomNano),
];

/// Reads the workload file `file`, whose content is `text`.
///
/// # Errors
/// All that keeps the workload from running as written, in the order of the file.
pub fn parse(file: &str, text: &str, leniency: Leniency) -> Result<Parsed<Workload>, ConfigErrors> {
    let mut reader = Reader::open(file, text, leniency, "a workload, one `key: value` per line, such as topics: 1")?;
    let load_keys: Vec<&str> = LOAD_ELSEWHERE.iter().map(|(key, ..)| *key).collect();
    reader.check_keys(&[KEYS, &load_keys].concat(), ELSEWHERE);
    loads_elsewhere(&mut reader);
    let workload = workload(&mut reader, file);
    reader.finish(workload)
}

/// Without a part of the load another one would be measured, so this is an error even in lenient mode.
fn loads_elsewhere(reader: &mut Reader<'_>) {
    for (key, origin, nothing) in LOAD_ELSEWHERE {
        let Some(node) = reader.get(key).cloned() else { continue };
        let asks_nothing = match &node.value {
            Value::Scalar { text, .. } => text.trim() == *nothing,
            Value::List(items) => items.is_empty(),
            Value::Keys(entries) => entries.is_empty(),
            Value::Null => true,
        };
        if !asks_nothing {
            let place = reader.place(key);
            reader.error(key, place, Problem::OtherLoad(origin));
        }
    }
}

/// Reads every key before giving up on any, so that all errors are found at once.
fn workload(reader: &mut Reader<'_>, file: &str) -> Option<Workload> {
    let name = if reader.has("name") { reader.text("name") } else { Some(stem(file)) };
    let topics = required(reader, "topics", "give the number of topics, at least 1");
    let partitions = required(reader, "partitionsPerTopic", "give the partitions of each topic, at least 1");
    let key_distributor = key_distributor(reader);
    let message_size = required(reader, "messageSize", "give the bytes of each payload, at least 1");
    let payload = payload(reader, message_size);
    let producers = count(reader, "producersPerTopic", "give the producers of each topic, at least 1");
    let rate = rate(reader);
    let (subscriptions, consumers) =
        (optional(reader, "subscriptionsPerTopic"), optional(reader, "consumerPerSubscription"));
    if !reader.has("subscriptionsPerTopic") && !reader.has("consumerPerSubscription") {
        reader.warn("subscriptionsPerTopic", None, "missing, taken as 0: this run only produces, nothing is consumed");
    }
    let backlog = backlog(reader);
    let test_duration = test_duration(reader);
    let warmup_duration = warmup_duration(reader);
    let seed = reader.has("seed").then(|| reader.whole("seed", 0, u64::MAX.into()));
    let catch_up = catch_up(reader);
    let verify = reader.one_of("verify", &[("header", Verify::Header), ("full", Verify::Full)]);
    let clients = reader.one_of("clients", &[("shared", Clients::Shared), ("own", Clients::Own)]);

    producing(reader, producers, rate.as_ref());
    consuming(reader, subscriptions, consumers);
    let idle = subscriptions == Some(0) && consumers == Some(0);
    draining(reader, backlog, rate.as_ref(), idle);
    products(reader, [topics, partitions, producers, subscriptions, consumers]);

    Some(Workload {
        name: name?,
        topics: topics?,
        partitions_per_topic: partitions?,
        key_distributor: key_distributor?,
        message_size: message_size?,
        payload: payload?,
        subscriptions_per_topic: subscriptions?,
        consumers_per_subscription: consumers?,
        producers_per_topic: producers?,
        rate: rate?,
        backlog: backlog?,
        test_duration: test_duration?,
        warmup_duration: warmup_duration?,
        seed: match seed {
            None => None,
            Some(seed) => Some(u64::try_from(seed?).expect("within the range asked for")),
        },
        catch_up: catch_up?,
        verify: verify?,
        clients: clients?,
    })
}

/// `dir/quickstart.yaml` is called `quickstart`.
fn stem(file: &str) -> String {
    let name = file.rsplit(['/', '\\']).next().unwrap_or(file);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    if stem.is_empty() { "workload".to_owned() } else { stem.to_owned() }
}

/// Counts stay below upstream's signed 32 bits, so that its workers can receive them.
const COUNT_MAX: u32 = i32::MAX as u32;

/// A count of at least 1 that must be given.
fn required(reader: &mut Reader<'_>, key: &str, hint: &'static str) -> Option<u32> {
    reader.require(key, hint).then(|| reader.whole_u32(key, 1, COUNT_MAX))?
}

/// A count that must be given, for which 0 has its own message.
fn count(reader: &mut Reader<'_>, key: &str, hint: &'static str) -> Option<u32> {
    reader.require(key, hint).then(|| reader.whole_u32(key, 0, COUNT_MAX))?
}

/// A count that is 0 where it is not given.
fn optional(reader: &mut Reader<'_>, key: &str) -> Option<u32> {
    if reader.has(key) { reader.whole_u32(key, 0, COUNT_MAX) } else { Some(0) }
}

fn key_distributor(reader: &mut Reader<'_>) -> Option<KeyDistributor> {
    let Some(node) = reader.get("keyDistributor").cloned() else { return Some(KeyDistributor::NoKey) };
    let names = KEY_DISTRIBUTORS.map(|(name, _)| name);
    let mut suggestion = None;
    if let Value::Scalar { text, .. } = &node.value {
        if let Some((_, found)) = KEY_DISTRIBUTORS.iter().find(|(name, _)| name == text) {
            return Some(*found);
        }
        let ordinal = text.trim().parse::<usize>().ok().and_then(|ordinal| KEY_DISTRIBUTORS.get(ordinal));
        if let Some((name, found)) = ordinal {
            let problem = yaml::not_allowed(&node, names.join(", "), Some(name));
            let instead = format!("read as {name}, as upstream counts them");
            return reader.soften("keyDistributor", Some(node.place), problem, &instead).then_some(*found);
        }
        suggestion = nearest(text, names);
    }
    let problem = yaml::not_allowed(&node, names.join(", "), suggestion);
    let instead = "read as NO_KEY, as upstream reads any other text";
    reader.soften("keyDistributor", Some(node.place), problem, instead).then_some(KeyDistributor::NoKey)
}

fn payload(reader: &mut Reader<'_>, message_size: Option<u32>) -> Option<PayloadSource> {
    let file = reader.has("payloadFile").then(|| reader.text("payloadFile"));
    let randomized =
        if reader.has("useRandomizedPayloads") { reader.flag("useRandomizedPayloads") } else { Some(false) };
    let ratio = reader.has("randomBytesRatio").then(|| reader.decimal("randomBytesRatio", 0.0, 1.0));
    // 0 has its own message below, and only where the pool is used.
    let pool =
        reader.has("randomizedPayloadPoolSize").then(|| reader.whole_u32("randomizedPayloadPoolSize", 0, COUNT_MAX));
    match (file, randomized?) {
        (Some(file), true) => {
            let place = reader.place("payloadFile");
            let instead = "payloadFile is not applied, as upstream ignores it";
            if reader.soften("payloadFile", place, Problem::TwoPayloads, instead) {
                file?;
                return random(reader, ratio, pool, message_size);
            }
            None
        }
        (None, true) => random(reader, ratio, pool, message_size),
        (file, false) => {
            for key in ["randomBytesRatio", "randomizedPayloadPoolSize"] {
                if reader.has(key) {
                    let place = reader.place(key);
                    reader.warn(key, place, "not applied, since useRandomizedPayloads is not true");
                }
            }
            if let Some(file) = file {
                return Some(PayloadSource::File(PathBuf::from(file?)));
            }
            let pool = POOL_DEFAULT.min(POOL_DEFAULT_BYTES / message_size?).max(1);
            let message = format!(
                "no payload is given, neither payloadFile nor useRandomizedPayloads: true; \
                 sending a pool of {pool} random payloads, which do not compress"
            );
            reader.warn("payloadFile", None, message);
            Some(PayloadSource::Random { ratio: 1.0, pool })
        }
    }
}

fn random(
    reader: &mut Reader<'_>,
    ratio: Option<Option<f64>>,
    pool: Option<Option<u32>>,
    message_size: Option<u32>,
) -> Option<PayloadSource> {
    let key = "randomizedPayloadPoolSize";
    let place = reader.place(key);
    if ratio.is_none() {
        let message =
            "missing, taken as 0.0 as upstream takes it: the payloads are zeros, which compress to almost nothing";
        reader.warn("randomBytesRatio", None, message);
    }
    let pool = match pool {
        None => {
            reader.error(key, place, Problem::EmptyPool("missing"));
            return None;
        }
        Some(pool) => pool?,
    };
    if pool == 0 {
        reader.error(key, place, Problem::EmptyPool("0"));
        return None;
    }
    let size = u64::from(message_size?);
    if u64::from(pool) * size > POOL_BYTES_MAX {
        reader.error(key, place, Problem::PoolTooLarge { pool: pool.into(), size });
        return None;
    }
    Some(PayloadSource::Random { ratio: ratio.unwrap_or(Some(0.0))?, pool })
}

fn rate(reader: &mut Reader<'_>) -> Option<RateGoal> {
    if reader.has("producerRateList") {
        return rate_list(reader).map(RateGoal::Listed);
    }
    let key = "producerRate";
    if !reader.require(key, "give the messages per second of the whole run, or 0 to search the highest rate that holds")
    {
        return None;
    }
    if let Some(node) = reader.get(key).cloned()
        && let Some((text, Number::Fraction(fraction))) = plain_number(&node)
        && fraction > 0.0
    {
        let rate = Rate::decimal(text);
        if rate.is_none() {
            reader.not_allowed(
                key,
                &node,
                "a rate up to 1000000000, of at most 9 digits where some are decimals",
                None,
            );
        }
        return rate.map(RateGoal::Fixed);
    }
    let min = if reader.lenient() { yaml::NEGATIVE } else { 0 };
    let rate = reader.whole(key, min, RATE_MAX.into())?;
    if rate < 0 {
        let place = reader.place(key);
        reader.warn(key, place, format!("found {rate} (lenient: searches the highest rate, as upstream does)"));
    }
    Some(u64::try_from(rate).ok().and_then(Rate::per_second).map_or(RateGoal::Search, RateGoal::Fixed))
}

/// An unquoted number, with its text.
fn plain_number(node: &Node) -> Option<(&str, Number)> {
    match &node.value {
        Value::Scalar { text, style: yaml::ScalarStyle::Plain } => Some((text, yaml::number(text)?)),
        _ => None,
    }
}

/// What a list of rates may look like, for messages.
const RATE_LIST: &str = "a list of up to 1440 points in order of time, each [minutes, rate], or each [hour, minute, rate]; \
                         rates from 0 to 1000000000 with at most 3 decimals, such as [[0, 100], [5, 5000]]";

fn rate_list(reader: &mut Reader<'_>) -> Option<RateList> {
    let key = "producerRateList";
    let node = reader.get(key).cloned()?;
    let Value::List(items) = &node.value else {
        reader.not_allowed(key, &node, RATE_LIST, None);
        return None;
    };
    let mut by_day = None;
    let mut points = Vec::new();
    for item in items {
        let point = rate_point(item).filter(|(day, _)| *by_day.get_or_insert(*day) == *day);
        let Some((_, point)) = point else {
            let found = Node { place: item.place, value: item.value.clone() };
            let problem = Problem::NotAllowed { found: shown(&found), allowed: RATE_LIST.to_owned(), suggestion: None };
            reader.error(key, Some(item.place), problem);
            return None;
        };
        points.push(point);
    }
    let list = RateList::new(by_day.unwrap_or(false), points);
    if let Err(why) = list {
        reader.error(key, Some(node.place), Problem::RateList(why));
    }
    list.ok()
}

/// A point as the file has it, for messages: `[25, 0, 100]`.
fn shown(node: &Node) -> String {
    match &node.value {
        Value::List(items) if items.len() <= 4 => {
            format!("[{}]", items.iter().map(Node::found).collect::<Vec<_>>().join(", "))
        }
        _ => node.found(),
    }
}

/// Whether it is by the time of day, and the point.
fn rate_point(node: &Node) -> Option<(bool, RatePoint)> {
    let Value::List(items) = &node.value else { return None };
    let whole = |node: &Node, max: i128| match plain_number(node)?.1 {
        Number::Whole(whole) if (0..=max).contains(&whole) => u32::try_from(whole).ok(),
        _ => None,
    };
    let milli = |node: &Node| match plain_number(node)? {
        (_, Number::Whole(0)) => Some(0),
        (text, _) => {
            let (messages, seconds) = Rate::decimal(text)?.fraction();
            (1_000 % seconds == 0).then(|| messages * (1_000 / seconds))
        }
    };
    // No run is longer than a year.
    const MINUTES_MAX: i128 = 365 * 24 * 60;
    match items.as_slice() {
        [minutes, rate] => Some((false, RatePoint { minute: whole(minutes, MINUTES_MAX)?, milli: milli(rate)? })),
        [hour, minute, rate] => {
            let minute = whole(hour, 23)? * 60 + whole(minute, 59)?;
            Some((true, RatePoint { minute, milli: milli(rate)? }))
        }
        _ => None,
    }
}

/// `Some(None)` if none is configured.
fn backlog(reader: &mut Reader<'_>) -> Option<Option<Backlog>> {
    let drain_ratio =
        if reader.has("backlogDrainRatio") { reader.decimal("backlogDrainRatio", 0.0, 1.0) } else { Some(1.0) };
    let key = "consumerBacklogSizeGB";
    if !reader.has(key) {
        return drain_ratio.map(|_| None);
    }
    let min = if reader.lenient() { -BACKLOG_MAX } else { 0.0 };
    let gib = reader.decimal(key, min, BACKLOG_MAX)?;
    if gib < 0.0 {
        let place = reader.place(key);
        reader.warn(key, place, format!("found {gib} (lenient: no backlog, as upstream reads it)"));
    }
    let drain_ratio = drain_ratio?;
    // A product with a power of two is exact, and fractions of a byte are rounded.
    let bytes = (gib.max(0.0) * GIB).round() as u64;
    Some((bytes > 0).then_some(Backlog { bytes, drain_ratio }))
}

fn test_duration(reader: &mut Reader<'_>) -> Option<Duration> {
    let (ours, upstreams) = ("testDuration", "testDurationMinutes");
    if two_durations(reader, ours, upstreams) {
        return None;
    }
    let (key, found) = if reader.has(ours) {
        (ours, reader.duration(ours)?)
    } else if reader.has(upstreams) {
        (upstreams, minutes(reader, upstreams)?)
    } else {
        let place = reader.place(ours).or(reader.place(upstreams));
        let hint = "give how long to measure, such as testDuration: 90s or testDurationMinutes: 5";
        reader.error(ours, place, Problem::Missing(hint));
        return None;
    };
    if found.is_zero() {
        let place = reader.place(key);
        reader.error(key, place, Problem::Endless);
        return None;
    }
    Some(found)
}

fn warmup_duration(reader: &mut Reader<'_>) -> Option<Duration> {
    let (ours, upstreams) = ("warmupDuration", "warmupDurationMinutes");
    if two_durations(reader, ours, upstreams) {
        return None;
    }
    if reader.has(ours) {
        reader.duration(ours)
    } else if reader.has(upstreams) {
        minutes(reader, upstreams)
    } else {
        Some(Duration::from_secs(60))
    }
}

fn two_durations(reader: &mut Reader<'_>, ours: &'static str, upstreams: &str) -> bool {
    let two = reader.has(ours) && reader.has(upstreams);
    if two {
        let place = reader.place(upstreams);
        reader.error(upstreams, place, Problem::TwoDurations(ours));
    }
    two
}

fn minutes(reader: &mut Reader<'_>, key: &str) -> Option<Duration> {
    let year = 365 * 24 * 60;
    // Upstream reads negative minutes as none, which for the test is still an error.
    let min = if reader.lenient() { yaml::NEGATIVE } else { 0 };
    let minutes = reader.whole(key, min, year)?;
    if minutes < 0 {
        let place = reader.place(key);
        reader.warn(key, place, format!("found {minutes} (lenient: read as 0)"));
    }
    Some(Duration::from_secs(u64::try_from(minutes).unwrap_or(0) * 60))
}

fn catch_up(reader: &mut Reader<'_>) -> Option<CatchUp> {
    let key = "catchUp";
    let Some(node) = reader.get(key).cloned() else { return Some(CatchUp::All) };
    let mut suggestion = None;
    if let Value::Scalar { text, .. } = &node.value {
        match text.as_str() {
            "all" => return Some(CatchUp::All),
            "drop" => return Some(CatchUp::Drop),
            _ => {}
        }
        let cap = text.strip_prefix("cap(").and_then(|rest| rest.strip_suffix(')')).and_then(units::duration);
        if let Some(cap) = cap {
            return Some(CatchUp::Cap(cap));
        }
        suggestion = nearest(text, ["all", "drop"]);
    }
    reader.not_allowed(key, &node, "all, drop, or cap(..) with a duration and its unit, such as cap(10s)", suggestion);
    None
}

fn producing(reader: &mut Reader<'_>, producers: Option<u32>, rate: Option<&RateGoal>) {
    if producers == Some(0)
        && let Some(rate) = rate
    {
        let place = reader.place("producersPerTopic");
        let problem = match rate {
            RateGoal::Fixed(rate) => Problem::NoProducers { rate: rate.to_string() },
            RateGoal::Listed(_) => Problem::NoProducers { rate: "more than 0".to_owned() },
            RateGoal::Search => Problem::NoProducersToSearch,
        };
        reader.error("producersPerTopic", place, problem);
    }
}

fn consuming(reader: &mut Reader<'_>, subscriptions: Option<u32>, consumers: Option<u32>) {
    let (key, problem) = match (subscriptions, consumers) {
        (Some(0), Some(consumers)) if consumers > 0 => {
            ("consumerPerSubscription", Problem::NoSubscriptions { consumers })
        }
        (Some(subscriptions), Some(0)) if subscriptions > 0 => {
            ("subscriptionsPerTopic", Problem::NoConsumers { subscriptions })
        }
        _ => return,
    };
    let place = reader.place(key);
    reader.error(key, place, problem);
}

fn draining(reader: &mut Reader<'_>, backlog: Option<Option<Backlog>>, rate: Option<&RateGoal>, idle: bool) {
    let key = "consumerBacklogSizeGB";
    let place = reader.place(key);
    if !matches!(backlog, Some(Some(_))) {
        return;
    }
    match rate {
        Some(RateGoal::Search) => reader.error(key, place, Problem::BacklogWithoutRate),
        Some(RateGoal::Listed(_)) => reader.error(key, place, Problem::BacklogWithList),
        _ => {}
    }
    if idle {
        reader.error(key, place, Problem::BacklogWithoutConsumers);
    }
}

/// All of a kind in the whole run are counted in 32 bits.
fn products(reader: &mut Reader<'_>, [topics, partitions, producers, subscriptions, consumers]: [Option<u32>; 5]) {
    let product = |factors: &[Option<u32>]| {
        factors.iter().try_fold(1_u128, |product, factor| factor.map(|factor| product * u128::from(factor)))
    };
    let all = [
        ("topics x partitionsPerTopic", product(&[topics, partitions])),
        ("topics x producersPerTopic", product(&[topics, producers])),
        ("topics x subscriptionsPerTopic x consumerPerSubscription", product(&[topics, subscriptions, consumers])),
    ];
    for (what, product) in all {
        if let Some(product) = product.filter(|product| *product > u32::MAX.into()) {
            let place = reader.place("topics");
            reader.error("topics", place, Problem::TooMany { what, product });
        }
    }
}

impl Workload {
    /// Bytes of a message, its key included.
    #[must_use]
    pub fn largest_message(&self) -> u64 {
        u64::from(self.message_size) + self.key_distributor.key_bytes()
    }

    /// Every setting under its key of the workload file, defaults included, for the result. Reading it back gives the
    /// same workload.
    #[must_use]
    pub fn resolved(&self) -> Json {
        let mut keys = Map::new();
        let mut put = |key: &str, value: Json| keys.insert(key.to_owned(), value);
        put("name", json!(self.name));
        put("topics", json!(self.topics));
        put("partitionsPerTopic", json!(self.partitions_per_topic));
        put("keyDistributor", json!(self.key_distributor.name()));
        put("messageSize", json!(self.message_size));
        match &self.payload {
            PayloadSource::File(file) => {
                put("useRandomizedPayloads", json!(false));
                put("payloadFile", json!(file.to_string_lossy()));
            }
            PayloadSource::Random { ratio, pool } => {
                put("useRandomizedPayloads", json!(true));
                put("randomBytesRatio", json!(ratio));
                put("randomizedPayloadPoolSize", json!(pool));
            }
        }
        put("subscriptionsPerTopic", json!(self.subscriptions_per_topic));
        put("producersPerTopic", json!(self.producers_per_topic));
        put("consumerPerSubscription", json!(self.consumers_per_subscription));
        match &self.rate {
            RateGoal::Fixed(rate) if rate.fraction().1 == 1 => put("producerRate", json!(rate.fraction().0)),
            RateGoal::Fixed(rate) => put("producerRate", json!(rate.as_f64())),
            RateGoal::Search => put("producerRate", json!(0)),
            RateGoal::Listed(list) => put("producerRateList", list_json(list)),
        };
        match self.backlog {
            Some(Backlog { bytes, drain_ratio }) => {
                put("consumerBacklogSizeGB", json!(bytes as f64 / GIB));
                put("backlogDrainRatio", json!(drain_ratio));
            }
            None => {
                put("consumerBacklogSizeGB", json!(0));
            }
        }
        put("testDuration", json!(units::duration_text(self.test_duration)));
        put("warmupDuration", json!(units::duration_text(self.warmup_duration)));
        if let Some(seed) = self.seed {
            put("seed", json!(seed));
        }
        put(
            "catchUp",
            json!(match self.catch_up {
                CatchUp::All => "all".to_owned(),
                CatchUp::Cap(cap) => format!("cap({})", units::duration_text(cap)),
                CatchUp::Drop => "drop".to_owned(),
            }),
        );
        put(
            "verify",
            json!(match self.verify {
                Verify::Header => "header",
                Verify::Full => "full",
            }),
        );
        put(
            "clients",
            json!(match self.clients {
                Clients::Shared => "shared",
                Clients::Own => "own",
            }),
        );
        Json::Object(keys)
    }
}

fn list_json(list: &RateList) -> Json {
    let point = |RatePoint { minute, milli }: &RatePoint| {
        let rate = if milli % 1_000 == 0 { json!(milli / 1_000) } else { json!(*milli as f64 / 1_000.0) };
        if list.by_day() { json!([minute / 60, minute % 60, rate]) } else { json!([minute, rate]) }
    };
    list.points().iter().map(point).collect()
}

impl KeyDistributor {
    /// Bytes of each key; 0 where messages have none.
    #[must_use]
    pub fn key_bytes(self) -> u64 {
        if self == Self::NoKey { 0 } else { KEY_LEN as u64 }
    }

    /// As the workload file and upstream spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        let found = KEY_DISTRIBUTORS.iter().find(|(_, distributor)| *distributor == self);
        found.expect("every distributor is in the table").0
    }
}
