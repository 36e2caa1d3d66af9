//! Every file under `examples/` is read strictly and without a warning.

use std::time::Duration;

use omb_bench::{
    config::{
        driver::{self, DriverConfig, DriverKind},
        workers,
        workload::{self, RateGoal, Workload},
    },
    rate::Rate,
};
use omb_machine::config::{Leniency, Parsed};

macro_rules! example {
    ($file:literal) => {
        (concat!("examples/", $file), include_str!(concat!("../", $file)))
    };
}

const WORKLOADS: &[(&str, &str)] = &[
    example!("distributed-workload.yaml"),
    example!("backlog-workload.yaml"),
    example!("workloads/quickstart.yaml"),
    example!("workloads/max-rate.yaml"),
    example!("workloads/full-speed-100b.yaml"),
    example!("workloads/fan-out-with-keys.yaml"),
    example!("workloads/many-topics.yaml"),
    example!("workloads/short-backlog.yaml"),
    example!("workloads/produce-only.yaml"),
];

const DRIVERS: &[(&str, &str)] = &[
    example!("kafka-driver.yaml"),
    example!("drivers/embedded.yaml"),
    example!("drivers/kafka-acks-all.yaml"),
    example!("drivers/kafka-low-latency.yaml"),
    example!("drivers/kafka-sasl-tls.yaml"),
];

#[track_caller]
fn workload((file, text): (&str, &str)) -> Workload {
    let Parsed { value, warnings } = workload::parse(file, text, Leniency::Strict).expect("an example is well-formed");
    assert_eq!(warnings, [], "an example needs no excuse");
    value
}

#[track_caller]
fn driver((file, text): (&str, &str)) -> DriverConfig {
    let Parsed { value, warnings } = driver::parse(file, text, Leniency::Strict).expect("an example is well-formed");
    assert_eq!(warnings, [], "an example needs no excuse");
    value
}

#[test]
fn workloads_are_read() {
    for example in WORKLOADS {
        workload(*example);
    }
}

#[test]
fn drivers_are_read() {
    for example in DRIVERS {
        driver(*example);
    }
}

#[test]
fn none_is_forgotten() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut listed = WORKLOADS.len() + DRIVERS.len() + 1;
    for folder in [".", "workloads", "drivers"] {
        for entry in std::fs::read_dir(examples.join(folder)).expect("the folder is part of the repository") {
            let path = entry.expect("a readable folder").path();
            listed -= usize::from(path.extension().is_some_and(|extension| extension == "yaml"));
        }
    }
    assert_eq!(listed, 0, "every example is in one of the lists above");
}

/// The figures that the guide promises: 10,000 msg/s over 10 topics, 5 minutes.
#[test]
fn the_guides_workload() {
    let workload = workload(example!("distributed-workload.yaml"));
    assert_eq!(workload.name, "distributed-test-workload");
    assert_eq!((workload.topics, workload.producers_per_topic, workload.message_size), (10, 1, 1024));
    assert_eq!(
        (workload.rate, workload.test_duration),
        (RateGoal::Fixed(Rate::per_second(10_000).expect("in range")), Duration::from_secs(300))
    );
}

#[test]
fn the_guides_driver() {
    let driver = driver(example!("kafka-driver.yaml"));
    assert_eq!(driver.name, "Kafka");
    let DriverKind::Kafka(kafka) = driver.kind else { panic!("the guide's driver is Kafka") };
    assert_eq!(kafka.replication_factor, 3);
    assert_eq!(kafka.brokers(), "kafka-broker1:9092,kafka-broker2:9092,kafka-broker3:9092");
    assert_eq!(kafka.producer["acks"], "all");
    assert_eq!(kafka.producer["linger.ms"], "1");
    assert_eq!(kafka.consumer["auto.offset.reset"], "earliest");
    assert_eq!(kafka.consumer["enable.auto.commit"], "false");
}

#[test]
fn the_guides_workers() {
    let (file, text) = example!("distributed-workers.yaml");
    let workers = workers::parse(file, text, Leniency::Strict).expect("an example is well-formed").value;
    assert_eq!(workers.len(), 3);
    assert_eq!(workers[0], "http://worker1.example.com:8080");
}

#[test]
fn the_quickstart_is_quick() {
    let workload = workload(example!("workloads/quickstart.yaml"));
    // Leaves time to start and to stop within the 30 seconds that its first line promises.
    assert!(workload.warmup_duration + workload.test_duration <= Duration::from_secs(20));
}
