//! Open files that a run needs: each client of a messaging system has connections and pipes of its own, and the usual soft limit
//! of 1,024 is that of some eighty pairs of a producer and a consumer.

use super::Plan;
use crate::{
    config::{
        driver::{DriverConfig, DriverKind},
        setting::Setting,
    },
    id::WorkerId,
};

/// What a process needs before it has any client: its streams, listeners, the runtime's own, result and record.
const PROCESS: u64 = 40;

/// Of a client of librdkafka: pipes that wake its threads. (Measured with librdkafka 2.12: 40 producers and 40 consumers at one
/// broker have 520 files open, at three brokers 1,000; so it is half as much as they say, and three for each broker.)
const CLIENT: u64 = 3;

/// Of a client, for each broker: the connection, and the pipe that wakes its thread.
const CLIENT_AND_BROKER: u64 = 3;

/// Of a consumer beside that: the connection to the coordinator of its group.
const COORDINATOR: u64 = 1;

/// Of a client at the embedded broker: the other ends of its connections, which lie in this process as well.
const EMBEDDED: u64 = 2;

/// Open files that these clients need, about. `brokers` is how many brokers the cluster has, as far as it is known; at the embedded
/// broker, if it is in the same process, `embedded`.
#[must_use]
pub fn of_clients(producers: u64, consumers: u64, brokers: u64, embedded: bool) -> u64 {
    let each = CLIENT + CLIENT_AND_BROKER * brokers.max(1) + if embedded { EMBEDDED } else { 0 };
    (producers + consumers) * each + consumers * COORDINATOR
}

/// Open files that the share of each worker needs, about, in order of the workers. Of a cluster no more brokers are counted than the
/// driver file names: how many there are is only known once it has been reached.
#[must_use]
pub fn of_plan(plan: &Plan, driver: &DriverConfig, in_one_process: bool) -> Vec<u64> {
    let (brokers, embedded) = match &driver.kind {
        DriverKind::Embedded => (1, in_one_process),
        DriverKind::Kafka(config) => {
            let servers = config.common.get("bootstrap.servers").and_then(Setting::text).unwrap_or_default();
            (servers.split(',').filter(|server| !server.trim().is_empty()).count() as u64, false)
        }
    };
    let shares = plan.shares();
    let clients = shares.iter().map(|share| (share.producers.len() as u64, share.consumers.len() as u64));
    clients.map(|(producers, consumers)| PROCESS + of_clients(producers, consumers, brokers, embedded)).collect()
}

/// Why a worker cannot do its share: it may open fewer files than that needs. `name` is what it is called; `None` is this process.
#[must_use]
pub fn too_few(name: Option<(WorkerId, &str)>, limit: u64, needs: u64) -> Option<String> {
    let who = name.map_or_else(String::new, |(worker, name)| format!("worker {} ({name}): ", worker.0 + 1));
    let share = if name.is_some() { "its share of this run" } else { "this run" };
    (needs > limit).then(|| {
        format!(
            "{who}open files {limit}, {share} needs about {needs}: raise the hard limit there (ulimit -Hn, LimitNOFILE= of \
             systemd, --ulimit nofile= of a container), or run fewer topics, producers or consumers"
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        config::{Leniency, driver::KafkaConfig, workload},
        id::RunId,
        seed::Seed,
    };

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

    #[test]
    fn each_client_needs_files_at_each_broker() {
        let one = of_plan(&plan(40, 1), &kafka("a:9092"), true)[0];
        assert!((480..=600).contains(&one), "{one}: about 520 were measured");
        let three = of_plan(&plan(40, 1), &kafka("a:9092, b:9092,c:9092,"), true)[0];
        assert!(three > one + 2 * 80 * 2, "{three}");
        let shares = of_plan(&plan(40, 4), &kafka("a:9092"), false);
        assert_eq!(shares.len(), 4);
        assert!(shares.iter().all(|share| *share == shares[0] && *share < one / 2), "{shares:?}");
        let embedded = DriverConfig { name: "E".to_owned(), kind: DriverKind::Embedded };
        assert!(of_plan(&plan(40, 1), &embedded, true)[0] > one, "both ends are here");
    }

    #[test]
    fn a_limit_that_does_not_suffice_is_named_with_what_does() {
        assert_eq!(too_few(None, 550, 550), None);
        let text = too_few(None, 200, 550).expect("too few");
        assert!(text.starts_with("open files 200, this run needs about 550: "), "{text}");
        let text = too_few(Some((WorkerId(1), "b:8080")), 200, 550).expect("too few");
        assert!(
            text.starts_with("worker 2 (b:8080): open files 200, its share of this run needs about 550: "),
            "{text}"
        );
    }
}
