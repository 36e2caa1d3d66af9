//! What a run needs of its processes: open files, threads, memory. Each client of a messaging system has connections,
//! pipes and threads of its own, and the usual soft limit of 1,024 open files is reached by some eighty pairs of a
//! producer and a consumer.
//!
//! All of it is an estimate from below: no more brokers of a cluster are counted than the driver file names, since
//! their number is only known once the cluster has been reached; and messages in flight at a high rate take memory on
//! top.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Plan, Share, sharing};
use crate::{
    config::{
        driver::{DriverConfig, DriverKind},
        workload::{PayloadSource, Workload},
    },
    id::WorkerId,
};
use omb_machine::{
    config::setting::Setting,
    quantity::{bytes, grouped},
};

/// Open files of a process before it has any client: its streams, listeners, the runtime's own, result and record.
const PROCESS_FILES: u64 = 40;

/// Open files of a client of librdkafka: pipes that wake its threads. (Measured with librdkafka 2.12: 40 producers and
/// 40 consumers at one broker have 520 files open, at three brokers 1,000; so it is half of them, and three for each
/// broker.)
const CLIENT_FILES: u64 = 3;

/// Of a client, for each broker: the connection, and the pipe that wakes its thread.
const CLIENT_AND_BROKER_FILES: u64 = 3;

/// Of a consumer on top of that: the connection to the coordinator of its group, and a pipe's end or two of the thread
/// that serves it. (Measured while 40, 120 and 300 of them are created beside few producers: 10.5, 8.8 and 8.3 files in
/// all for each, so never more than this estimate including the process's own.)
const COORDINATOR_FILES: u64 = 2;

/// Of a client of the embedded broker: the other ends of its connections, which are in this process as well.
const EMBEDDED_FILES: u64 = 2;

/// Threads of a process before it has any client: its own, the runtime's, those that send, and those of the client that creates
/// topics.
const PROCESS_THREADS: u64 = 12;

/// Threads of a client of librdkafka beside those for its brokers, including the one of ours that takes what it reports
/// or receives. (Measured with librdkafka 2.12: 300 producers and 300 consumers at one broker, none of which share
/// anything, have 2,712 threads: four for each producer, five for each consumer. Consumers that share a thread of ours
/// have one each when they are closed.)
const CLIENT_THREADS: u64 = 2;

/// Of a client, for each broker: one for the address it was given, one for the broker found there.
const CLIENT_AND_BROKER_THREADS: u64 = 2;

/// Of a consumer on top of that: one for the coordinator of its group.
const COORDINATOR_THREADS: u64 = 1;

/// Memory of a process before it has any client, including the histograms in which it counts.
const PROCESS_MEMORY: u64 = 40 << 20;

/// Memory of a client's thread where huge pages are in use, which is the case when nothing is shared. (Measured: 2,712
/// threads of 300 producers and 300 consumers take 3,012 MiB, of which 300 MiB are buffers.)
const THREAD_MEMORY: u64 = 1 << 20;

/// The same where they are not. (Measured as above: 755 MiB, of which 300 MiB are buffers.)
const LEAN_THREAD_MEMORY: u64 = 170 << 10;

/// What a process needs, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Open files.
    pub files: u64,
    /// Threads.
    pub threads: u64,
    /// Bytes of memory for the clients and what they hold.
    pub memory: u64,
    /// Bytes of memory that the embedded broker may fill, if it is in the same process.
    pub broker: u64,
}

/// What a process may have; `None` where nothing is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Open files.
    pub files: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<u64>,
}

/// What a share of a plan needs in the end, each by itself.
struct Clients {
    /// Instances of the client that producers use.
    producing: u64,
    consuming: u64,
    /// How many brokers there are, as far as is known.
    brokers: u64,
    /// Whether the embedded broker is in the same process.
    embedded: bool,
}

impl Clients {
    fn all(&self) -> u64 {
        self.producing + self.consuming
    }

    fn files(&self) -> u64 {
        let each = CLIENT_FILES
            + CLIENT_AND_BROKER_FILES * self.brokers.max(1)
            + if self.embedded { EMBEDDED_FILES } else { 0 };
        PROCESS_FILES + self.all() * each + self.consuming * COORDINATOR_FILES
    }

    fn threads(&self) -> u64 {
        let each = CLIENT_THREADS + CLIENT_AND_BROKER_THREADS * self.brokers.max(1);
        PROCESS_THREADS + self.all() * each + self.consuming * COORDINATOR_THREADS
    }
}

/// What the share of each worker needs, in order of the workers. `broker` is how much memory the embedded broker may
/// fill; it counts if it is `in_one_process` with the load.
#[must_use]
pub fn of_plan(plan: &Plan, driver: &DriverConfig, in_one_process: bool, broker: u64) -> Vec<Needs> {
    let (brokers, embedded) = match &driver.kind {
        DriverKind::Embedded => (1, in_one_process),
        DriverKind::Kafka(config) => {
            let servers = config.common.get("bootstrap.servers").and_then(Setting::text).unwrap_or_default();
            (servers.split(',').filter(|server| !server.trim().is_empty()).count() as u64, false)
        }
    };
    let broker = if embedded { broker } else { 0 };
    plan.shares()
        .iter()
        .map(|share| {
            let producing = sharing::producer_clients(plan, share);
            let clients = Clients { producing, consuming: share.consumers.len() as u64, brokers, embedded };
            Needs { files: clients.files(), threads: clients.threads(), memory: memory(plan, share, &clients), broker }
        })
        .collect()
}

fn memory(plan: &Plan, share: &Share<'_>, clients: &Clients) -> u64 {
    let workload = &plan.workload;
    let (producers, consumers) = (share.producers.len() as u64, share.consumers.len() as u64);
    let lean = clients.producing < producers || sharing::receiving_threads(plan, share) < consumers;
    let threads = clients.threads() * if lean { LEAN_THREAD_MEMORY } else { THREAD_MEMORY };
    let buffers = producers.saturating_mul(buffers(workload, clients.producing < producers));
    [threads, buffers, pool(workload)].into_iter().fold(PROCESS_MEMORY, u64::saturating_add)
}

/// Bytes of the buffers that a producer has from its first message on.
fn buffers(workload: &Workload, shared: bool) -> u64 {
    let size = workload.message_size as usize;
    // However large they are, no more than this is ever in flight.
    (sharing::buffers(size, shared).saturating_mul(size)).min(sharing::BUFFER_BYTES_MAX.max(size)) as u64
}

/// Bytes of the pool of payloads.
fn pool(workload: &Workload) -> u64 {
    match &workload.payload {
        PayloadSource::File(_) => workload.message_size.into(),
        PayloadSource::Random { pool, .. } => u64::from(*pool) * u64::from(workload.message_size),
    }
}

/// Adds the needs of several shares that one process runs.
#[must_use]
pub fn of_all(shares: &[Needs]) -> Needs {
    shares.iter().fold(Needs::default(), |sum, share| Needs {
        files: sum.files + share.files,
        threads: sum.threads + share.threads,
        memory: sum.memory.saturating_add(share.memory),
        broker: sum.broker.max(share.broker),
    })
}

/// `1,633 open files, 1,576 threads and 310 MB of memory`.
impl fmt::Display for Needs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { files, threads, memory, broker } = *self;
        let (files, threads) = (grouped(files), grouped(threads));
        write!(f, "{files} open files, {threads} threads and {} of memory", bytes(memory))?;
        if broker > 0 { write!(f, ", and up to {} for the embedded broker", bytes(broker)) } else { Ok(()) }
    }
}

/// What keeps a worker from doing its share, or may do so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// One sentence, with what can be done about it.
    pub what: String,
    /// Whether the share certainly cannot be done; otherwise it may turn out that it cannot.
    pub certain: bool,
}

/// Memory is estimated, and differs from machine to machine: less than this part of the estimate is certainly too little.
const CERTAIN_PART: u64 = 2;

/// What a worker may have less of than its share needs. `name` is the worker's name; `None` is this process.
#[must_use]
pub fn shortages(name: Option<(WorkerId, &str)>, limits: &Limits, needs: &Needs) -> Vec<Shortage> {
    let prefix = name.map_or_else(String::new, |(worker, name)| format!("{}: ", worker.named(name)));
    let share = if name.is_some() { "its share of this run" } else { "this run" };
    let fewer = "or run fewer topics, producers or consumers";
    let mut shortages = Vec::new();
    if let Some(limit) = limits.files.filter(|limit| needs.files > *limit) {
        let what = format!(
            "{prefix}open files {}, {share} needs about {}: raise the hard limit there (ulimit -Hn, LimitNOFILE= of \
             systemd, --ulimit nofile= of a container), {fewer}",
            grouped(limit),
            grouped(needs.files)
        );
        shortages.push(Shortage { what, certain: true });
    }
    if let Some(limit) = limits.threads.filter(|limit| needs.threads > *limit) {
        let what = format!(
            "{prefix}threads {}, {share} needs about {}: raise the limit there (ulimit -Hu, TasksMax= of systemd, \
             --pids-limit of a container), {fewer}",
            grouped(limit),
            grouped(needs.threads)
        );
        shortages.push(Shortage { what, certain: true });
    }
    if let Some(limit) = limits.memory.filter(|limit| needs.memory.saturating_add(needs.broker) > *limit) {
        let broker = if needs.broker > 0 {
            format!(", and the embedded broker up to {} (--embedded-capacity)", bytes(needs.broker))
        } else {
            String::new()
        };
        let what = format!(
            "{prefix}memory {}, {share} needs about {}{broker}: give it more (--memory of a container, MemoryMax= of systemd), {fewer}",
            bytes(limit),
            bytes(needs.memory),
        );
        shortages.push(Shortage { what, certain: needs.memory / CERTAIN_PART > limit });
    }
    shortages
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        config::{driver::KafkaConfig, workload},
        id::RunId,
    };
    use omb_machine::{config::Leniency, seed::Seed};

    fn plan(topics: u32, workers: u32) -> Plan {
        let text = format!(
            "name: w\ntopics: {topics}\npartitionsPerTopic: 1\nmessageSize: 100\nuseRandomizedPayloads: true\n\
             randomBytesRatio: 0.5\nrandomizedPayloadPoolSize: 10\nproducersPerTopic: 1\nproducerRate: 1000\n\
             subscriptionsPerTopic: 1\nconsumerPerSubscription: 1\ntestDurationMinutes: 1\n"
        );
        let parsed = workload::parse("w.yaml", &text, Leniency::Strict).expect("it is sound");
        Plan::new(RunId(1), Seed(1), parsed.value, workers)
    }

    fn kafka(servers: &str) -> DriverConfig {
        let common = BTreeMap::from([("bootstrap.servers".to_owned(), servers.into())]);
        let map = BTreeMap::new;
        let kafka = KafkaConfig { replication_factor: 1, topic: map(), common, producer: map(), consumer: map() };
        DriverConfig { name: "K".to_owned(), kind: DriverKind::Kafka(kafka) }
    }

    fn one(plan: &Plan, driver: &DriverConfig) -> Needs {
        of_all(&of_plan(plan, driver, true, 1 << 30))
    }

    #[test]
    fn each_client_needs_files_at_each_broker() {
        // With 16 producers and consumers each has its own client.
        let all = one(&plan(16, 1), &kafka("a:9092"));
        assert_eq!(all.files, 40 + 16 * 6 + 16 * 8);
        let three = one(&plan(16, 1), &kafka("a:9092, b:9092,c:9092,"));
        assert_eq!(three.files, all.files + 2 * 32 * 3);
        let embedded = DriverConfig { name: "E".to_owned(), kind: DriverKind::Embedded };
        assert_eq!(one(&plan(16, 1), &embedded).files, all.files + 2 * 32, "both ends are here");
        let shares = of_plan(&plan(40, 4), &kafka("a:9092"), false, 0);
        assert_eq!(shares.len(), 4);
        assert!(shares.iter().all(|share| share.files == 40 + 10 * 6 + 10 * 8), "{shares:?}");
    }

    #[test]
    fn each_client_needs_threads_and_memory() {
        let all = one(&plan(16, 1), &kafka("a:9092"));
        assert_eq!(all.threads, 12 + 16 * 4 + 16 * 5);
        assert_eq!(one(&plan(16, 1), &kafka("a:9092,b:9092")).threads, all.threads + 32 * 2);
        // Threads, 1,024 buffers of 100 bytes for each producer, and a pool of 10 payloads.
        assert_eq!(all.memory, PROCESS_MEMORY + all.threads * THREAD_MEMORY + 16 * 102_400 + 1_000);
        assert_eq!(all.broker, 0, "it is elsewhere");
        let embedded = DriverConfig { name: "E".to_owned(), kind: DriverKind::Embedded };
        assert_eq!(one(&plan(16, 1), &embedded).broker, 1 << 30);
        assert_eq!(of_plan(&plan(16, 1), &embedded, false, 1 << 30)[0].broker, 0);
    }

    #[test]
    fn what_is_shared_needs_less() {
        // Of 300 producers at 1,000 msg/s in all each has 64 buffers.
        let shared = one(&plan(300, 1), &kafka("a:9092"));
        let clients = sharing::all_producer_clients(&plan(300, 1));
        assert_eq!(clients, 20);
        assert_eq!(shared.threads, 12 + clients * 4 + 300 * 5);
        assert_eq!(shared.files, 40 + clients * 6 + 300 * 8);
        assert_eq!(shared.memory, PROCESS_MEMORY + shared.threads * LEAN_THREAD_MEMORY + 300 * 6_400 + 1_000);
    }

    #[test]
    fn a_limit_that_does_not_suffice_is_named_with_what_does() {
        let needs = Needs { files: 550, threads: 300, memory: 200_000_000, broker: 0 };
        let enough = Limits { files: Some(550), threads: Some(300), memory: Some(200_000_000) };
        assert_eq!(shortages(None, &enough, &needs), []);
        assert_eq!(shortages(None, &Limits::default(), &needs), [], "nothing is known");
        let only = |limits: Limits, needs: &Needs, worker| {
            let shortages = shortages(worker, &limits, needs);
            assert_eq!(shortages.len(), 1, "{shortages:?}");
            shortages.into_iter().next().expect("one")
        };
        let files = only(Limits { files: Some(200), ..enough }, &needs, None);
        assert!(files.certain && files.what.starts_with("open files 200, this run needs about 550: "), "{files:?}");
        let files = only(Limits { files: Some(549), ..enough }, &needs, Some((WorkerId(1), "b:8080")));
        let beginning = "worker 2 (b:8080): open files 549, its share of this run needs about 550: ";
        assert!(files.what.starts_with(beginning), "{files:?}");
        let threads = only(Limits { threads: Some(299), ..enough }, &needs, None);
        assert!(threads.certain && threads.what.starts_with("threads 299, this run needs about 300: "), "{threads:?}");
        assert!(threads.what.contains("ulimit -Hu") && threads.what.contains("--pids-limit"), "{threads:?}");
        // Less than it takes, as far as that is known ..
        let memory = only(Limits { memory: Some(199_999_999), ..enough }, &needs, None);
        assert!(
            !memory.certain && memory.what.starts_with("memory 200 MB, this run needs about 200 MB: "),
            "{memory:?}"
        );
        // .. and less than it certainly takes.
        assert!(!only(Limits { memory: Some(100_000_000), ..enough }, &needs, None).certain);
        assert!(only(Limits { memory: Some(99_999_999), ..enough }, &needs, None).certain);
        // The broker may fill this memory, but need not.
        let needs = Needs { broker: 1_000_000_000, ..needs };
        let memory = only(Limits { memory: Some(1_199_999_999), ..enough }, &needs, None);
        assert!(!memory.certain && memory.what.contains(", and the embedded broker up to 1.00 GB "), "{memory:?}");
        assert_eq!(shortages(None, &Limits { memory: Some(1_200_000_000), ..enough }, &needs), []);
    }
}
