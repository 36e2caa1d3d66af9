//! `omb run` against a real Kafka: what it measures agrees with what Kafka says, and what Kafka refuses is told in its words.

mod support;

use std::time::Duration;

use support::{
    kafka::{Kafka, Options},
    omb::{Place, complete, kafka_driver, number, workload},
};

/// One Kafka for all, since its start costs more than any of these runs.
#[test]
fn runs_against_a_real_kafka() {
    let Some(kafka) = Kafka::start() else { return };
    let place = Place::default();
    place.write("k.yaml", kafka_driver(&kafka.bootstrap(), "topicConfig: |\n  segment.bytes=104857600\n"));
    produces_and_consumes(&kafka, &place);
    fills_and_drains_a_backlog(&place);
    outlives_a_broker_that_stands_still(&kafka, &place);
    waits_for_all_consumers(&place);
    is_refused_messages(&kafka, &place);
    is_refused_topics(&kafka, &place);
    assert!(kafka.topics().is_empty(), "no run leaves its topics behind");
}

/// Several topics, partitions, producers, subscriptions and consumers, and keys.
fn produces_and_consumes(kafka: &Kafka, place: &Place) {
    let changes = [
        ("topics", "2"),
        ("partitionsPerTopic", "3"),
        ("keyDistributor", "KEY_ROUND_ROBIN"),
        ("messageSize", "200"),
        ("verify", "full"),
        ("producersPerTopic", "2"),
        ("producerRate", "2000"),
        ("subscriptionsPerTopic", "2"),
        ("consumerPerSubscription", "2"),
        ("testDuration", "3s"),
    ];
    place.write("all.yaml", workload("all", &changes));
    let checked = place.run(&["check", "-d", "k.yaml", "all.yaml"]).with(0);
    assert!(checked.stdout.contains("Kafka, 1 broker"), "{}", checked.stdout);
    let ended = place.run(&["run", "-d", "k.yaml", "-o", "all.json", "all.yaml"]).with(0);
    let result = place.result("all.json");
    complete(&result, &place.record("all.jsonl"));
    assert_eq!(result["omb"]["embedded"], false);
    assert_eq!(result["omb"]["verdict"]["subscriptions"].as_array().map(Vec::len), Some(4));
    assert!(number(&result, "/omb/totals/sinceLoadBegan/acked") >= 6_600);
    assert!(ended.stdout.contains("Kafka, 1 broker"), "{}", ended.stdout);
    assert!(kafka.topics().is_empty(), "no run leaves its topics behind");
}

fn fills_and_drains_a_backlog(place: &Place) {
    let changes = [
        ("messageSize", "1024"),
        ("partitionsPerTopic", "2"),
        ("producerRate", "5000"),
        ("consumerBacklogSizeGB", "0.005"),
        ("testDuration", "1s"),
    ];
    place.write("backlog.yaml", workload("backlog", &changes));
    place.run(&["run", "-d", "k.yaml", "-o", "backlog.json", "backlog.yaml"]).with(0);
    let result = place.result("backlog.json");
    complete(&result, &place.record("backlog.jsonl"));
    let backlog = &result["omb"]["backlog"];
    assert!(backlog["drained"] == true && number(backlog, "/builtMessages") >= 5_242, "{backlog}");
}

/// The process of the broker is held up for 2 s: nothing is lost, and the latency says what happened.
fn outlives_a_broker_that_stands_still(kafka: &Kafka, place: &Place) {
    place.write("stall.yaml", workload("stall", &[("testDuration", "5s")]));
    let mut omb = place.start(&["run", "-d", "k.yaml", "-o", "stall.json", "stall.yaml"]);
    omb.wait_for_output("1.0s measure");
    kafka.suspend();
    std::thread::sleep(Duration::from_secs(2));
    kafka.resume();
    omb.end().with(0);
    let result = place.result("stall.json");
    complete(&result, &place.record("stall.jsonl"));
    let worst = result["aggregatedPublishLatencyMax"].as_f64().unwrap_or_default();
    assert!(worst > 1_800.0, "the first to wait waited for 2 s, not for {worst} ms");
}

/// Eight consumers share one partition, and none joins under load.
fn waits_for_all_consumers(place: &Place) {
    let changes = [("consumerPerSubscription", "8"), ("warmupDuration", "0s"), ("testDuration", "1s")];
    place.write("eight.yaml", workload("eight", &changes));
    place.run(&["run", "-d", "k.yaml", "-o", "eight.json", "eight.yaml"]).with(0);
    let result = place.result("eight.json");
    complete(&result, &place.record("eight.jsonl"));
    let verdict = &result["omb"]["verdict"];
    for key in ["duplicated", "reread", "rebalances"] {
        assert_eq!(number(verdict, &format!("/{key}")), 0, "{key}: {verdict}");
    }
}

/// A probe is as long as the load's messages: what is refused of them is refused at once, and not each by itself.
fn is_refused_messages(kafka: &Kafka, place: &Place) {
    place.write(
        "long.yaml",
        workload("long", &[("messageSize", "4000"), ("subscriptionsPerTopic", "0"), ("consumerPerSubscription", "0")]),
    );
    place.write("short.yaml", kafka_driver(&kafka.bootstrap(), "topicConfig: |\n  max.message.bytes=1000\n"));
    let ended = place.run(&["run", "-d", "short.yaml", "long.yaml"]).with(3).within(Duration::from_secs(30));
    ended.saying("a probe was not delivered: Broker: Message size too large");
}

fn is_refused_topics(kafka: &Kafka, place: &Place) {
    place.write("w.yaml", workload("w", &[]));
    let driver = kafka_driver(&kafka.bootstrap(), "");
    place.write("three.yaml", driver.replace("replicationFactor: 1", "replicationFactor: 3"));
    let ended = place.run(&["run", "-d", "three.yaml", "w.yaml"]).with(3).within(Duration::from_secs(40));
    // Kafka 4.1's own words for it.
    ended.saying("only 1 broker(s) are registered").saying("test-topic-0000000-");
    place.write("config.yaml", format!("{driver}topicConfig: |\n  no.such.setting=1\n"));
    let ended = place.run(&["run", "-d", "config.yaml", "w.yaml"]).with(3).within(Duration::from_secs(40));
    ended.saying("no.such.setting");
    let left: Vec<String> = place.files(".jsonl").into_iter().filter(|name| name.starts_with("w-")).collect();
    for name in left {
        let record = place.record(&name);
        assert_eq!(record.last().map(|line| &line["kind"]), Some(&"end".into()), "{name} says how it ended");
    }
}

#[test]
fn a_real_kafka_refuses_who_is_not_allowed() {
    let options = Options::default().user("alice", "secret").deny_by_default();
    let Some(kafka) = Kafka::start_with(&options) else { return };
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    let login = |password: &str| {
        let sasl = format!(
            "\n  security.protocol=SASL_PLAINTEXT\n  sasl.mechanism=PLAIN\n  sasl.jaas.config=\
             org.apache.kafka.common.security.plain.PlainLoginModule required username=\"alice\" password=\"{password}\";"
        );
        kafka_driver(&format!("{}{sasl}", kafka.sasl_bootstrap()), "")
    };
    place.write("wrong.yaml", login("guessed"));
    place.write("right.yaml", login("secret"));

    let refused = place.run(&["run", "-d", "wrong.yaml", "w.yaml"]).with(3).within(Duration::from_secs(40));
    let refused = refused.saying("refuses us").saying("uthentication failed").saying(&kafka.sasl_bootstrap());
    assert!(!refused.stderr.contains("guessed"), "a password is never told: {}", refused.stderr);
    assert!(place.files(".jsonl").is_empty(), "{:?}", place.files(""));

    place.run(&["check", "-d", "right.yaml", "w.yaml"]).with(0);
    let denied = place.run(&["run", "-d", "right.yaml", "w.yaml"]).with(3).within(Duration::from_secs(40));
    let denied = denied.saying("uthorization failed").saying("test-topic-0000000-");
    assert!(!denied.stdout.contains("secret") && !denied.stderr.contains("secret"));
    assert!(place.files(".json").is_empty(), "{:?}", place.files(""));
    assert!(kafka.topics().is_empty(), "what was refused did not happen");
}
