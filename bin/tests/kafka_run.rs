//! `omb run` against a real Kafka: what it measures agrees with what Kafka says, and what Kafka rejects is reported in
//! its words.

mod support;

use std::time::Duration;

use support::{
    kafka::{Kafka, Options},
    omb::{Place, complete, eight_consumers_join_before_the_load, kafka_driver, number, workload},
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
    eight_consumers_join_before_the_load(&place);
    is_refused_messages(&kafka, &place);
    is_refused_topics(&kafka, &place);
    takes_a_megabyte(&place);
    probes_with_the_keys_of_the_load(&kafka, &place);
    says_that_a_quota_holds_it_up(&kafka, &place);
    assert_eq!(kafka.groups(), [""; 0], "no run leaves its groups behind");
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

/// A compacted topic takes messages with keys alone: probes have them where the load does, and where it does not the
/// run ends before it.
fn probes_with_the_keys_of_the_load(kafka: &Kafka, place: &Place) {
    let driver = kafka_driver(&kafka.bootstrap(), "topicConfig: |\n  cleanup.policy=compact\n");
    place.write("compact.yaml", driver);
    place.write("keyed.yaml", workload("keyed", &[("keyDistributor", "RANDOM_NANO")]));
    place.run(&["run", "-d", "compact.yaml", "-o", "keyed.json", "keyed.yaml"]).with(0);
    complete(&place.result("keyed.json"), &place.record("keyed.jsonl"));
    place.write("bare.yaml", workload("bare", &[]));
    let refused = place.run(&["run", "-d", "compact.yaml", "-o", "bare.json", "bare.yaml"]).with(3);
    refused.saying("a probe was not delivered").saying("failed to validate record");
    assert!(!place.path("bare.json").exists(), "there was no load");
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

/// What the topic would refuse is known before it is created.
fn is_refused_messages(kafka: &Kafka, place: &Place) {
    place.write(
        "long.yaml",
        workload("long", &[("messageSize", "4000"), ("subscriptionsPerTopic", "0"), ("consumerPerSubscription", "0")]),
    );
    place.write("short.yaml", kafka_driver(&kafka.bootstrap(), "topicConfig: |\n  max.message.bytes=1000\n"));
    let ended = place.run(&["run", "-d", "short.yaml", "long.yaml"]).with(3).within(Duration::from_secs(30));
    ended.saying("max.message.bytes in topicConfig is 1000");
}

fn is_refused_topics(kafka: &Kafka, place: &Place) {
    place.write("w.yaml", workload("w", &[]));
    let driver = kafka_driver(&kafka.bootstrap(), "");
    place.write("three.yaml", driver.replace("replicationFactor: 1", "replicationFactor: 3"));
    let ended = place.run(&["run", "-d", "three.yaml", "w.yaml"]).with(3).within(Duration::from_secs(40));
    // Kafka 4.1's own words for it.
    ended.saying("only 1 broker(s) are registered").saying("test-topic-0000000-");
    let checked = place.run(&["check", "-d", "three.yaml", "w.yaml"]).with(3).within(Duration::from_secs(40));
    let checked = checked.saying("only 1 broker(s) are registered");
    assert!(!checked.stdout.contains("Everything fits"), "{}", checked.stdout);
    place.write("config.yaml", format!("{driver}topicConfig: |\n  no.such.setting=1\n"));
    let ended = place.run(&["run", "-d", "config.yaml", "w.yaml"]).with(3).within(Duration::from_secs(40));
    ended.saying("no.such.setting");
    place.run(&["check", "-d", "config.yaml", "w.yaml"]).with(3).saying("no.such.setting");
    let left: Vec<String> = place.files(".jsonl").into_iter().filter(|name| name.starts_with("w-")).collect();
    for name in left {
        let record = place.record(&name);
        assert_eq!(record.last().map(|line| &line["kind"]), Some(&"end".into()), "{name} says how it ended");
    }
}

/// What Java's clients and brokers take as they come; what the broker would reject is reported before anything is
/// created.
fn takes_a_megabyte(place: &Place) {
    place.write("million.yaml", workload("million", &[("messageSize", "1000000"), ("producerRate", "20")]));
    place.run(&["run", "-d", "k.yaml", "-o", "million.json", "million.yaml"]).with(0);
    complete(&place.result("million.json"), &place.record("million.jsonl"));
    place.write("two.yaml", workload("two", &[("messageSize", "2000000"), ("producerRate", "20")]));
    place.run(&["check", "-d", "k.yaml", "two.yaml"]).with(3).saying("message.max.bytes of broker 1 is 1048588");
}

/// The broker announces that it throttles, and for how long: in the verdict, in each period, and in the result.
fn says_that_a_quota_holds_it_up(kafka: &Kafka, place: &Place) {
    let quota = |change: &[&str]| {
        let whom = ["--alter", "--entity-type", "clients", "--entity-default"];
        let bootstrap = kafka.bootstrap();
        let changed =
            kafka.tool("kafka.admin.ConfigCommand", &[&["--bootstrap-server", &bootstrap], &whom[..], change].concat());
        assert!(changed.status.success(), "{}", String::from_utf8_lossy(&changed.stderr));
    };
    quota(&["--add-config", "producer_byte_rate=200000"]);
    let changes = [("messageSize", "1000"), ("producerRate", "1000"), ("warmupDuration", "0s"), ("testDuration", "4s")];
    place.write("quota.yaml", workload("quota", &changes));
    let ended = place.run(&["run", "-d", "k.yaml", "-o", "quota.json", "quota.yaml"]);
    quota(&["--delete-config", "producer_byte_rate"]);
    assert!(ended.stdout.contains("Limited by a quota of the broker"), "{}\n{}", ended.stdout, ended.stderr);
    let (result, record) = (place.result("quota.json"), place.record("quota.jsonl"));
    let verdict = &result["omb"]["verdict"];
    assert_eq!(verdict["limit"], "quota", "{verdict}");
    let throttled = verdict["throttledSeconds"].as_f64().unwrap_or_default();
    assert!((0.4..=6.0).contains(&throttled), "{verdict}");
    let series = result["omb"]["series"]["throttledSeconds"].as_array().expect("a series");
    assert!(series.iter().any(|one| one.as_f64().is_some_and(|one| one > 0.0)), "{series:?}");
    let recorded = |line: &serde_json::Value| line["frame"]["throttled_ns"].as_u64().unwrap_or(0);
    assert!(record.iter().map(recorded).sum::<u64>() > 0, "the record holds it, too");
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

    // A client that does not log in at all learns that it must.
    place.write("forgot.yaml", kafka_driver(&kafka.sasl_bootstrap(), ""));
    for command in ["check", "run"] {
        let said =
            place.run(&[command, "-d", "forgot.yaml", "w.yaml"]).with(3).saying("refuses us: this port wants SASL");
        said.saying("security.protocol is plaintext; the mechanisms it offers: PLAIN");
    }

    // Whether it may create topics is asked as well.
    place.run(&["check", "-d", "right.yaml", "w.yaml"]).with(3).saying("uthorization failed");
    let denied = place.run(&["run", "-d", "right.yaml", "w.yaml"]).with(3).within(Duration::from_secs(40));
    let denied = denied.saying("uthorization failed").saying("test-topic-0000000-");
    assert!(!denied.stdout.contains("secret") && !denied.stderr.contains("secret"));
    assert!(place.files(".json").is_empty(), "{:?}", place.files(""));
    assert!(kafka.topics().is_empty(), "what was refused did not happen");
}
