//! The messages about files that cannot run, word by word, and how the others are read.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use omb_bench::{
    config::{
        driver::{self, DriverConfig, DriverKind, KafkaConfig},
        workers,
        workload::{self, Backlog, CatchUp, Clients, KeyDistributor, PayloadSource, RateGoal, Verify, Workload},
    },
    rate::{Rate, RatePoint},
};
use omb_machine::config::{ConfigErrors, Leniency, Parsed, setting::Setting};
use proptest::prelude::*;

/// A workload that runs; the tests below spoil one line of it, or add one as line 12.
const WORKLOAD: &str = "\
topics: 1
partitionsPerTopic: 1
messageSize: 100
producersPerTopic: 1
producerRate: 1000
subscriptionsPerTopic: 1
consumerPerSubscription: 1
useRandomizedPayloads: true
randomBytesRatio: 0.5
randomizedPayloadPoolSize: 10
testDuration: 5m
";

/// `WORKLOAD` with these lines in place of those of the same keys; `key: -` removes the line.
fn workload_with(lines: &str) -> String {
    let mut text: Vec<String> = WORKLOAD.lines().map(str::to_owned).collect();
    for line in lines.lines() {
        let key = line.split_inclusive(':').next().unwrap_or_default();
        match text.iter().position(|old| old.starts_with(key)) {
            Some(at) if line.ends_with(": -") => _ = text.remove(at),
            Some(at) => text[at] = line.to_owned(),
            None => text.push(line.to_owned()),
        }
    }
    text.join("\n")
}

fn messages<T>(result: Result<Parsed<T>, ConfigErrors>) -> String {
    match result {
        Ok(parsed) => parsed.warnings.iter().fold(String::from("fine"), |mut said, warning| {
            write!(said, "\n{warning}").expect("writing to a String");
            said
        }),
        Err(errors) => errors.to_string(),
    }
}

#[track_caller]
fn refuses(lines: &str, want: &str) {
    assert_eq!(messages(workload::parse("w.yaml", &workload_with(lines), Leniency::Strict)), want);
}

#[track_caller]
fn lets_pass(lines: &str, want: &str) {
    assert_eq!(messages(workload::parse("w.yaml", &workload_with(lines), Leniency::Lenient)), format!("fine\n{want}"));
}

#[track_caller]
fn reads(lines: &str) -> Workload {
    let parsed = workload::parse("dir/w.yaml", &workload_with(lines), Leniency::Strict).expect("well-formed");
    assert_eq!(parsed.warnings, []);
    parsed.value
}

#[test]
fn a_workload_with_its_defaults() {
    let want = Workload {
        name: "w".to_owned(),
        topics: 1,
        partitions_per_topic: 1,
        key_distributor: KeyDistributor::NoKey,
        message_size: 100,
        payload: PayloadSource::Random { ratio: 0.5, pool: 10 },
        subscriptions_per_topic: 1,
        consumers_per_subscription: 1,
        producers_per_topic: 1,
        rate: RateGoal::Fixed(Rate::per_second(1000).expect("in range")),
        backlog: None,
        test_duration: Duration::from_secs(300),
        warmup_duration: Duration::from_secs(60),
        seed: None,
        catch_up: CatchUp::All,
        verify: Verify::Header,
        clients: Clients::default(),
    };
    assert_eq!(reads(""), want);
}

#[test]
fn values_are_read() {
    assert_eq!(reads("producerRate: 1e3").rate, RateGoal::Fixed(Rate::per_second(1000).expect("in range")));
    assert_eq!(reads("producerRate: 0").rate, RateGoal::Search);
    assert_eq!(reads("testDuration: 1h30m").test_duration, Duration::from_secs(5400));
    assert_eq!(reads("testDuration: 500ms").test_duration, Duration::from_millis(500));
    assert_eq!(reads("testDuration: -\ntestDurationMinutes: 2").test_duration, Duration::from_secs(120));
    assert_eq!(reads("warmupDurationMinutes: 0").warmup_duration, Duration::ZERO);
    assert_eq!(reads("warmupDuration: 0s").warmup_duration, Duration::ZERO);
    assert_eq!(reads("catchUp: cap(10s)").catch_up, CatchUp::Cap(Duration::from_secs(10)));
    assert_eq!(reads("catchUp: drop").catch_up, CatchUp::Drop);
    assert_eq!(reads("verify: full").verify, Verify::Full);
    assert_eq!(reads("clients: own").clients, Clients::Own);
    assert_eq!(reads("clients: shared").clients, Clients::Shared);
    assert_eq!(reads("seed: 18446744073709551615").seed, Some(u64::MAX));
    assert_eq!(reads("keyDistributor: \"RANDOM_NANO\"").key_distributor, KeyDistributor::RandomNano);
    let half = Backlog { bytes: 1 << 29, drain_ratio: 1.0 };
    assert_eq!(reads("consumerBacklogSizeGB: 0.5").backlog, Some(half));
    assert_eq!(reads("consumerBacklogSizeGB: 0").backlog, None);
    let file = "payloadFile: p/1Kb.data\nuseRandomizedPayloads: -\nrandomBytesRatio: -\nrandomizedPayloadPoolSize: -";
    assert_eq!(reads(file).payload, PayloadSource::File(PathBuf::from("p/1Kb.data")));
}

#[test]
fn json_is_a_workload_too() {
    let json = reads("seed: 7").resolved().to_string();
    let parsed = workload::parse("w.json", &json, Leniency::Strict).expect("well-formed");
    assert_eq!(parsed.value, reads("seed: 7"));
}

#[test]
fn numbers_that_are_none() {
    let range = "allowed: a whole number from 1 to 2147483647";
    for found in ["0", "-1", "0.5", "99999999999"] {
        refuses(&format!("topics: {found}"), &format!("w.yaml:1:9: topics: found {found}; {range}"));
    }
    for found in ["ten", "1_000", "0x10", "010", "1,000"] {
        refuses(&format!("topics: {found}"), &format!("w.yaml:1:9: topics: found `{found}`; {range}"));
    }
    refuses("topics: '12'", &format!("w.yaml:1:9: topics: found the quoted text \"12\"; {range}"));
    refuses("topics: [1]", &format!("w.yaml:1:9: topics: found a list; {range}"));
    refuses("topics: {a: 1}", &format!("w.yaml:1:9: topics: found a mapping; {range}"));
    refuses("messageSize: 0", &format!("w.yaml:3:14: messageSize: found 0; {range}"));
    refuses("topics:", "w.yaml:1:1: topics: missing; give the number of topics, at least 1");
    refuses("topics: -", "w.yaml: topics: missing; give the number of topics, at least 1");
    refuses("randomBytesRatio: 1.1", "w.yaml:9:19: randomBytesRatio: found 1.1; allowed: a number from 0 to 1");
    refuses("randomBytesRatio: .nan", "w.yaml:9:19: randomBytesRatio: found `.nan`; allowed: a number from 0 to 1");
    refuses("backlogDrainRatio: -0.1", "w.yaml:12:20: backlogDrainRatio: found -0.1; allowed: a number from 0 to 1");
    refuses(
        "producerRate: 1000000001",
        "w.yaml:5:15: producerRate: found 1000000001; allowed: a whole number from 0 to 1000000000",
    );
    refuses("seed: -1", "w.yaml:12:7: seed: found -1; allowed: a whole number from 0 to 18446744073709551615");
    refuses("useRandomizedPayloads: yes", "w.yaml:8:24: useRandomizedPayloads: found `yes`; allowed: true, false");
}

#[test]
fn texts_that_are_none_of_the_allowed() {
    refuses(
        "keyDistributor: random_nano",
        "w.yaml:12:17: keyDistributor: found `random_nano`; allowed: NO_KEY, KEY_ROUND_ROBIN, RANDOM_NANO; did you mean `RANDOM_NANO`?",
    );
    refuses(
        "catchUp: cap(10)",
        "w.yaml:12:10: catchUp: found `cap(10)`; allowed: all, drop, or cap(..) with a duration and its unit, such as cap(10s)",
    );
    refuses("clients: share", "w.yaml:12:10: clients: found `share`; allowed: shared, own; did you mean `shared`?");
    refuses("verify: ful", "w.yaml:12:9: verify: found `ful`; allowed: header, full; did you mean `full`?");
    refuses("name: ''", "w.yaml:12:7: name: found the quoted text \"\"; allowed: a text on one line");
}

#[test]
fn durations_need_units() {
    let allowed = "allowed: a duration with its unit (ms, s, m, h) up to 8760h, such as 90s, 5m, 1h30m or 500ms";
    refuses("testDuration: 90", &format!("w.yaml:11:15: testDuration: found 90; {allowed}"));
    for found in ["90sec", "1.5m", "30m1h", "1m 30s", "8761h", "99999999999999999999s", "s", "5m5m"] {
        refuses(&format!("testDuration: {found}"), &format!("w.yaml:11:15: testDuration: found `{found}`; {allowed}"));
    }
    let endless = "0 means a test without end to upstream, but every run ends here; allowed: a duration above zero";
    refuses("testDuration: 0s", &format!("w.yaml:11:15: testDuration: {endless}"));
    refuses("testDuration: -\ntestDurationMinutes: 0", &format!("w.yaml:11:22: testDurationMinutes: {endless}"));
    refuses(
        "testDuration: -",
        "w.yaml: testDuration: missing; give how long to measure, such as testDuration: 90s or testDurationMinutes: 5",
    );
    refuses(
        "testDurationMinutes: 5",
        "w.yaml:12:22: testDurationMinutes: given together with testDuration; give one of them",
    );
}

#[test]
fn combinations_that_cannot_be() {
    refuses(
        "producersPerTopic: 0",
        "w.yaml:4:20: producersPerTopic: producersPerTopic is 0, but producerRate asks for 1000 msg/s",
    );
    refuses(
        "producersPerTopic: 0\nproducerRate: 0",
        "w.yaml:4:20: producersPerTopic: producersPerTopic is 0, but producerRate: 0 asks to search the highest rate",
    );
    refuses(
        "subscriptionsPerTopic: 0",
        "w.yaml:7:26: consumerPerSubscription: consumerPerSubscription is 1, but subscriptionsPerTopic is 0: no subscription to consume from",
    );
    refuses(
        "consumerPerSubscription: 0",
        "w.yaml:6:24: subscriptionsPerTopic: subscriptionsPerTopic is 1, but consumerPerSubscription is 0: nobody would consume",
    );
    refuses(
        "producerRate: 0\nconsumerBacklogSizeGB: 1",
        "w.yaml:12:24: consumerBacklogSizeGB: consumerBacklogSizeGB asks for a backlog, but producerRate is 0 (search); a backlog needs a fixed rate",
    );
    refuses(
        "subscriptionsPerTopic: 0\nconsumerPerSubscription: 0\nconsumerBacklogSizeGB: 1",
        "w.yaml:12:24: consumerBacklogSizeGB: consumerBacklogSizeGB asks for a backlog, but nobody consumes: give subscriptionsPerTopic and consumerPerSubscription",
    );
    refuses(
        "payloadFile: a.data",
        "w.yaml:12:14: payloadFile: payloadFile and useRandomizedPayloads: true exclude each other; give one of them",
    );
    refuses(
        "randomizedPayloadPoolSize: 0",
        "w.yaml:10:28: randomizedPayloadPoolSize: useRandomizedPayloads is true, but randomizedPayloadPoolSize is 0; allowed: 1 or more",
    );
    refuses(
        "randomizedPayloadPoolSize: -",
        "w.yaml: randomizedPayloadPoolSize: useRandomizedPayloads is true, but randomizedPayloadPoolSize is missing; allowed: 1 or more",
    );
    refuses(
        "randomizedPayloadPoolSize: 1000000\nmessageSize: 100000",
        "w.yaml:10:28: randomizedPayloadPoolSize: randomizedPayloadPoolSize 1000000 x messageSize 100000 is 95367 MiB of memory on every worker; allowed: up to 1024",
    );
    refuses(
        "topics: 100000\nproducersPerTopic: 100000",
        "w.yaml:1:9: topics: topics x producersPerTopic is 10000000000; allowed: up to 4294967295",
    );
}

#[test]
fn all_errors_of_a_file_are_reported_in_its_order() {
    refuses(
        "tpics: 3\nconsumersPerSubscription: 1\ntopics: 0\nverify: no\nverify: full\npartitionsPerTopic: -",
        "w.yaml:1:9: topics: found 0; allowed: a whole number from 1 to 2147483647\n\
         w.yaml:11:1: tpics: no such key; did you mean `topics`?\n\
         w.yaml:12:1: consumersPerSubscription: no such key; did you mean `consumerPerSubscription`?\n\
         w.yaml: partitionsPerTopic: missing; give the partitions of each topic, at least 1",
    );
    let twice = format!("{WORKLOAD}verify: header\nverify: full\n");
    let got = messages(workload::parse("w.yaml", &twice, Leniency::Strict));
    assert_eq!(got, "w.yaml:13:1: verify: given twice; the first is in line 12");
}

#[test]
fn files_that_are_no_workload() {
    let allowed = "allowed: a workload, one `key: value` per line, such as topics: 1";
    for (text, want) in [
        ("", format!("w.yaml: the file is empty; {allowed}")),
        ("# nothing\n---\n", format!("w.yaml: the file is empty; {allowed}")),
        ("- a\n", format!("w.yaml:1:1: found a list; {allowed}")),
        ("hello", format!("w.yaml:1:1: found `hello`; {allowed}")),
        ("a: 1\n---\nb: 2\n", "w.yaml:2:1: a second document begins here; allowed: one per file".to_owned()),
        (
            "a: b: c",
            "w.yaml:1:5: neither valid YAML nor JSON: mapping values are not allowed in this context".to_owned(),
        ),
        ("\u{7f}ELF\0", "w.yaml:1:1: found the control character U+007F; this is not a text file".to_owned()),
        (
            "a: &x 1\nb: *x",
            "w.yaml:2:4: references to anchors (`*name`) are not supported; write the value out".to_owned(),
        ),
        ("a: !foo 1", "w.yaml:1:4: the tag `!foo` is not supported; write the value without it".to_owned()),
        ("? [a]\n: 1", "w.yaml:1:3: found a list as a key; allowed: a name".to_owned()),
        (&"[".repeat(100_000), "w.yaml:1:256: neither valid YAML nor JSON: recursion limit exceeded".to_owned()),
        (&"- ".repeat(100_000), "w.yaml:1:33: nested more than 16 levels deep".to_owned()),
    ] {
        assert_eq!(messages(workload::parse("w.yaml", text, Leniency::Strict)), want);
    }
}

/// A load other than the described one is not measured, not even leniently; a key without effect has none.
#[test]
fn keys_that_are_the_load_are_errors() {
    for (line, origin) in [
        ("partitionsPerTopicList: [1, 2]", "AutoMQ's fork"),
        ("producersPerTopicList: [1]", "AutoMQ's fork"),
        ("consumerOnly: true", "Confluent's fork"),
        ("existingTopicList: [a]", "Redpanda's fork"),
        ("existingProduceTopicList: [a]", "Redpanda's fork"),
        ("existingConsumeTopicList: [a]", "Redpanda's fork"),
        ("drainProducerRate: 500", "Redpanda's fork"),
        ("messageProcessingDelayMs: 5", "the Python port"),
        ("messageSizeDistribution: {0-100: 1}", "newer versions of upstream"),
    ] {
        for leniency in [Leniency::Strict, Leniency::Lenient] {
            let errors = workload::parse("w.yaml", &workload_with(line), leniency).expect_err(line).to_string();
            assert!(errors.contains(&format!("a key of {origin} that is a part of the load")), "{errors}");
        }
    }
    for nothing in
        ["consumerOnly: false", "existingTopicList: []", "drainProducerRate: -1", "messageProcessingDelayMs: 0"]
    {
        workload::parse("w.yaml", &workload_with(nothing), Leniency::Strict).expect(nothing);
    }
}

#[test]
fn rates_below_one_are_exact() {
    let fraction = |line: &str| match reads(line).rate {
        RateGoal::Fixed(rate) => rate.fraction(),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(fraction("producerRate: 0.5"), (1, 2));
    assert_eq!(fraction("producerRate: 33.3"), (333, 10));
    assert_eq!(fraction("producerRate: 0.000001"), (1, 1_000_000));
    for refused in ["producerRate: 0.00000000001", "producerRate: 123456789.01", "producerRate: -0.5"] {
        let text = WORKLOAD.replace("producerRate: 1000", refused);
        assert!(workload::parse("w.yaml", &text, Leniency::Strict).is_err(), "{refused}");
    }
    // What the result shows can be run again.
    for line in ["producerRate: 0.5", "producerRate: 0.000001", "producerRate: 12345.678"] {
        let workload = reads(line);
        let again = workload::parse("w.yaml", &workload.resolved().to_string(), Leniency::Strict).expect(line);
        assert_eq!(again.value, workload);
    }
}

#[test]
fn lists_of_rates_are_read_in_both_forms() {
    let listed = |line: &str| match reads(&format!("producerRate: 7\n{line}")).rate {
        RateGoal::Listed(list) => list,
        other => panic!("{line}: {other:?}"),
    };
    let point = |minute, milli| RatePoint { minute, milli };
    let minutes = listed("producerRateList: [[0, 100], [5, 2.5], [30, 0]]");
    assert_eq!((minutes.by_day(), minutes.points()), (false, &[point(0, 100_000), point(5, 2_500), point(30, 0)][..]));
    let day = listed("producerRateList:\n  - [0, 0, 100]\n  - [12, 30, 5000]");
    assert_eq!((day.by_day(), day.points()), (true, &[point(0, 100_000), point(750, 5_000_000)][..]));
    for line in ["producerRateList: [[0, 100], [5, 2.5]]", "producerRateList: [[0, 0, 1], [23, 59, 7]]"] {
        let workload = reads(line);
        let again = workload::parse("w.yaml", &workload.resolved().to_string(), Leniency::Strict).expect(line);
        assert_eq!(again.value, workload);
    }
    for (line, telling) in [
        ("producerRateList: 5", "found 5; allowed: a list of up to 1440 points"),
        ("producerRateList: [[0, 5], [1, 0, 5]]", "found [1, 0, 5]; allowed"),
        ("producerRateList: [[24, 0, 5]]", "found [24, 0, 5]; allowed"),
        ("producerRateList: [[1, 60, 5]]", "found [1, 60, 5]; allowed"),
        ("producerRateList: [[0, -5]]", "found [0, -5]; allowed"),
        ("producerRateList: [[0, 0.0001]]", "found [0, 0.0001]; allowed"),
        ("producerRateList: [[5, 1], [0, 2]]", "stand in order of their time"),
        ("producerRateList: [[0, 0]]", "every rate of the list is 0"),
        ("producerRateList: []", "has 1 to 1440 points"),
        ("producerRateList: [[0, 5]]\nconsumerBacklogSizeGB: 1", "give one of them"),
    ] {
        for leniency in [Leniency::Strict, Leniency::Lenient] {
            let errors = workload::parse("w.yaml", &workload_with(line), leniency).expect_err(line).to_string();
            assert!(errors.contains(telling), "{line}: {errors}");
        }
    }
}

#[test]
fn keys_from_elsewhere_are_warned_about() {
    let text = workload_with("randomTopicNames: false\nsampleRateMillis: 100");
    let got = messages(workload::parse("w.yaml", &text, Leniency::Strict));
    let want = "fine\nw.yaml:12:1: randomTopicNames: a key of AutoMQ's fork; it is not applied\n\
                w.yaml:13:1: sampleRateMillis: a key of Redpanda's fork; it is not applied";
    assert_eq!(got, want);
}

#[test]
fn a_missing_payload_becomes_a_pool() {
    let text = workload_with(
        "useRandomizedPayloads: -\nrandomBytesRatio: -\nrandomizedPayloadPoolSize: -\nmessageSize: 10000000",
    );
    let parsed = workload::parse("w.yaml", &text, Leniency::Strict).expect("well-formed");
    // Six of them are what fits 64 MiB.
    assert_eq!(parsed.value.payload, PayloadSource::Random { ratio: 1.0, pool: 6 });
    let want = "w.yaml: payloadFile: no payload is given, neither payloadFile nor useRandomizedPayloads: true; \
                sending a pool of 6 random payloads, which do not compress";
    assert_eq!(parsed.warnings[0].to_string(), want);
}

#[test]
fn lenient_reads_as_upstream_does() {
    lets_pass(
        "topic: 3",
        "w.yaml:12:1: topic: no such key; did you mean `topics`? (lenient: it is not applied, as upstream ignores it)",
    );
    lets_pass(
        "topics: ' 12 '",
        "w.yaml:1:9: topics: found the quoted text \" 12 \"; allowed: a whole number from 1 to 2147483647 (lenient: read as the number)",
    );
    lets_pass(
        "warmupDurationMinutes: 1.9",
        "w.yaml:12:24: warmupDurationMinutes: found 1.9; allowed: a whole number from 0 to 525600 (lenient: cut to 1, as upstream cuts it)",
    );
    lets_pass(
        "keyDistributor: random_nano",
        "w.yaml:12:17: keyDistributor: found `random_nano`; allowed: NO_KEY, KEY_ROUND_ROBIN, RANDOM_NANO; did you mean `RANDOM_NANO`? \
         (lenient: read as NO_KEY, as upstream reads any other text)",
    );
    lets_pass(
        "producerRate: -1",
        "w.yaml:5:15: producerRate: found -1 (lenient: searches the highest rate, as upstream does)",
    );
    lets_pass(
        "useRandomizedPayloads: yes",
        "w.yaml:8:24: useRandomizedPayloads: found `yes`; allowed: true, false (lenient: read as true)",
    );
    // What upstream crashes on stays an error.
    assert!(workload::parse("w.yaml", &workload_with("topics: 0"), Leniency::Lenient).is_err());
}

#[test]
fn workers_files() {
    let parse = |text| messages(workers::parse("w.yaml", text, Leniency::Strict));
    assert_eq!(parse("workers: [http://a:1, b:2]"), "fine");
    let allowed = "allowed: a list of addresses, one `- http://host:port` per line";
    assert_eq!(parse("workers: http://a:1"), format!("w.yaml:1:10: workers: found `http://a:1`; {allowed}"));
    assert_eq!(parse("workers: []"), format!("w.yaml:1:10: workers: found a list; {allowed}"));
    assert_eq!(parse("workers: [a, a]"), "w.yaml:1:14: workers: found `a`; allowed: each address once");
    assert_eq!(parse("worker: [a]").lines().next(), Some("w.yaml:1:1: worker: no such key; did you mean `workers`?"));
}

/// A Kafka driver with these lines in one of its blocks; they begin in line 5, or in line 4 of `commonConfig`.
fn kafka_with(block: &str, lines: &str) -> String {
    let mut text = "driverClass: kafka\ncommonConfig:\n  bootstrap.servers: localhost:9092\n".to_owned();
    if block != "commonConfig" {
        writeln!(text, "{block}:").expect("writing to a String");
    }
    for line in lines.lines() {
        writeln!(text, "  {line}").expect("writing to a String");
    }
    text
}

#[track_caller]
fn kafka(block: &str, lines: &str, warnings: &[&str]) -> KafkaConfig {
    let parsed = driver::parse("d.yaml", &kafka_with(block, lines), Leniency::Strict).expect("well-formed");
    let got: Vec<_> = parsed.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(got, warnings);
    match parsed.value.kind {
        DriverKind::Kafka(kafka) => kafka,
        DriverKind::Embedded => panic!("asked for Kafka"),
    }
}

#[track_caller]
fn kafka_refuses(block: &str, lines: &str, want: &str) {
    assert_eq!(messages(driver::parse("d.yaml", &kafka_with(block, lines), Leniency::Strict)), want);
}

#[track_caller]
fn driver_refuses(text: &str, want: &str) {
    assert_eq!(messages(driver::parse("d.yaml", text, Leniency::Strict)), want);
}

#[test]
fn driver_classes() {
    for class in [
        "kafka",
        "io.openmessaging.benchmark.driver.kafka.KafkaBenchmarkDriver",
        "benchmark.driver_kafka.kafka_benchmark_driver.KafkaBenchmarkDriver",
        "benchmark.drivers.kafka.kafka_benchmark_driver.KafkaBenchmarkDriver",
    ] {
        let text = format!("name: K\ndriverClass: {class}\ncommonConfig: {{bootstrap.servers: 'a:1'}}");
        let parsed = driver::parse("d.yaml", &text, Leniency::Strict).expect("well-formed");
        assert!(matches!(parsed.value.kind, DriverKind::Kafka(_)), "{class}");
    }
    let parsed = driver::parse("d.yaml", "driverClass: embedded", Leniency::Strict).expect("well-formed");
    assert_eq!(parsed.value, DriverConfig { name: "Embedded".to_owned(), kind: DriverKind::Embedded });

    let allowed = "allowed: kafka, embedded, or io.openmessaging.benchmark.driver.kafka.KafkaBenchmarkDriver";
    driver_refuses(
        "driverClass: Kafak",
        &format!("d.yaml:1:14: driverClass: found `Kafak`; {allowed}; did you mean `kafka`?"),
    );
    driver_refuses(
        "driverClass: org.example.Driver",
        &format!("d.yaml:1:14: driverClass: found `org.example.Driver`; {allowed}"),
    );
    driver_refuses(
        "name: x",
        "d.yaml: driverClass: missing; give kafka, or embedded for the broker inside this program",
    );
    driver_refuses(
        "driverClass: io.openmessaging.benchmark.driver.pulsar.PulsarBenchmarkDriver\nclient: {}",
        "d.yaml:1:14: driverClass: io.openmessaging.benchmark.driver.pulsar.PulsarBenchmarkDriver (Apache Pulsar) is known, \
         but this version drives only Kafka and the embedded broker",
    );
    driver_refuses(
        "driverClass: embedded\nproducerConfig: {acks: all}",
        "d.yaml:2:17: producerConfig: not supported: a setting for Kafka, and driverClass is embedded",
    );
}

#[test]
fn brokers_must_be_given() {
    let missing = "bootstrap.servers: missing; give the brokers' addresses in commonConfig, such as bootstrap.servers: localhost:9092";
    driver_refuses("driverClass: kafka", &format!("d.yaml: {missing}"));
    driver_refuses("driverClass: kafka\ncommonConfig: |\n  client.id=x", &format!("d.yaml:3:3: {missing}"));
    let allowed = "allowed: host:port, several separated by commas";
    driver_refuses(
        "driverClass: kafka\ncommonConfig: |\n  bootstrap.servers=a",
        &format!("d.yaml:3:3: bootstrap.servers: found `a`; {allowed}"),
    );
    driver_refuses(
        "driverClass: kafka\ncommonConfig: |\n  bootstrap.servers=",
        &format!("d.yaml:3:3: bootstrap.servers: found nothing; {allowed}"),
    );
}

#[test]
fn keys_of_the_driver_file() {
    driver_refuses(
        "driverClass: kafka\nreset: true\nproducerConfg: 1\nreplicationFactor: 0\ncommonConfig: [a]",
        "d.yaml:3:1: producerConfg: no such key; did you mean `producerConfig`?\n\
         d.yaml:4:20: replicationFactor: found 0; allowed: 1 or more copies, or -1 for the broker's default\n\
         d.yaml:5:15: commonConfig: found a list; allowed: properties, one `name: value` or, after `|`, `name=value` per line",
    );
}

#[test]
fn both_styles_mean_the_same() {
    let map = "driverClass: kafka\ntopicConfig:\n  min.insync.replicas: 2\ncommonConfig:\n  bootstrap.servers: [a:1, b:2]\n\
               producerConfig:\n  linger.ms: 1\nconsumerConfig:\n  enable.auto.commit: false\n";
    let text = "driverClass: kafka\ntopicConfig: |\n  min.insync.replicas=2\ncommonConfig: |\n  bootstrap.servers=a:1,\\\n    b:2\n\
                producerConfig: |\n  ! a comment\n  linger.ms : 1\nconsumerConfig: \"enable.auto.commit=false\"\n";
    let parse = |text| driver::parse("d.yaml", text, Leniency::Strict).expect("well-formed");
    assert_eq!(parse(map), parse(text));
    assert_eq!(parse(map).warnings, []);
    let DriverKind::Kafka(kafka) = parse(map).value.kind else { panic!("asked for Kafka") };
    assert_eq!((kafka.brokers(), kafka.replication_factor), ("a:1,b:2", 1));
    assert_eq!(kafka.topic["min.insync.replicas"], "2");
}

#[test]
fn places_within_properties_text() {
    driver_refuses(
        "driverClass: kafka\ncommonConfig: |\n\n  # c\n  bootstrap.servers=a:1\n   lingr.ms=1\n",
        "d.yaml:6:4: lingr.ms: no client property of this name, neither Java's nor librdkafka's; did you mean `linger.ms`?",
    );
    driver_refuses(
        "driverClass: kafka\ncommonConfig: |\n  bootstrap.servers=a:1\n  client.id=\\u12\n",
        "d.yaml:4:3: commonConfig: \\u must be followed by four hexadecimal digits, such as \\u00E9",
    );
    driver_refuses(
        "driverClass: kafka\ncommonConfig: >\n  bootstrap.servers=a:1\n  request.timeout.ms=120000\n",
        "d.yaml:3:3: bootstrap.servers: the lines of this block were joined, so request.timeout.ms became part of the value; \
         write `commonConfig: |`",
    );
}

#[test]
fn our_defaults() {
    let kafka = kafka("commonConfig", "security.protocol: SSL", &[]);
    assert_eq!(kafka.producer["partitioner"], "murmur2_random");
    assert_eq!(kafka.producer["queue.buffering.max.kbytes"], "262144");
    assert_eq!(kafka.producer["queue.buffering.max.messages"], "100000");
    assert_eq!(kafka.consumer["enable.auto.commit"], "false");
    for client in [&kafka.common, &kafka.producer, &kafka.consumer] {
        assert_eq!((client["security.protocol"].shown(), client["ssl.ca.location"].shown()), ("ssl", "probe"));
    }
}

#[test]
fn java_names_are_translated() {
    let producer = kafka(
        "producerConfig",
        "buffer.memory: 1025\nmax.request.size: 2000\nbatch.size: 0\nsend.buffer.bytes: -1",
        &[],
    )
    .producer;
    assert_eq!(producer["queue.buffering.max.kbytes"], "2");
    assert_eq!(producer["message.max.bytes"], "2000");
    assert_eq!(producer["batch.num.messages"], "1");
    assert_eq!(producer["socket.send.buffer.bytes"], "0");
    let consumer = kafka(
        "consumerConfig",
        "fetch.max.wait.ms: 100\nauto.offset.reset: none\n\
         partition.assignment.strategy: org.apache.kafka.clients.consumer.CooperativeStickyAssignor",
        &[],
    )
    .consumer;
    assert_eq!(consumer["fetch.wait.max.ms"], "100");
    assert_eq!(consumer["auto.offset.reset"], "error");
    assert_eq!(consumer["partition.assignment.strategy"], "cooperative-sticky");
    let both = kafka("commonConfig", "request.timeout.ms: 20000\nacks: 1\nfetch.min.bytes: 5", &[]);
    assert_eq!(
        (both.producer["request.timeout.ms"].shown(), both.producer["socket.timeout.ms"].shown()),
        ("20000", "20000")
    );
    assert_eq!(both.consumer["socket.timeout.ms"], "20000");
    // A producer's property in commonConfig is the producer's alone, as in Java.
    assert_eq!(both.producer["acks"], "1");
    assert!(!both.consumer.contains_key("acks") && !both.common.contains_key("acks"));
    assert!(!both.producer.contains_key("fetch.min.bytes"));
}

#[test]
fn security_is_translated() {
    let jaas = r#"'org.apache.kafka.common.security.scram.ScramLoginModule required username="al\"ice" password=''s3 cret;'';'"#;
    let lines = format!("security.protocol: SASL_SSL\nsasl.mechanism: SCRAM-SHA-256\nsasl.jaas.config: {jaas}");
    let scram = kafka("commonConfig", &lines, &[]).common;
    assert_eq!((scram["sasl.username"].text(), scram["sasl.password"].text()), (Some("al\"ice"), Some("s3 cret;")));
    let pem = "security.protocol: SSL\nssl.truststore.type: PEM\nssl.truststore.location: ca.pem\nssl.keystore.type: PEM\n\
               ssl.keystore.location: me.pem\nssl.endpoint.identification.algorithm: ''";
    let pem = kafka("commonConfig", pem, &[]).common;
    assert_eq!(pem["ssl.ca.location"], "ca.pem");
    assert_eq!((pem["ssl.key.location"].shown(), pem["ssl.certificate.location"].shown()), ("me.pem", "me.pem"));
    assert_eq!(pem["ssl.endpoint.identification.algorithm"], "none");
    kafka_refuses(
        "commonConfig",
        "security.protocol: SSL\nssl.truststore.location: /a/t.jks\nssl.truststore.password: hunter2",
        "d.yaml:5:3: ssl.truststore.location: not supported: librdkafka cannot read a Java key store (JKS): \
         convert with `keytool -list -rfc -keystore FILE > ca.pem`, then set ssl.truststore.type=PEM and ssl.truststore.location to that file",
    );
    kafka_refuses(
        "commonConfig",
        "security.protocol: SASL_SSL",
        "d.yaml:4:3: security.protocol: sasl_ssl needs a sasl.mechanism: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, \
         AWS_MSK_IAM",
    );
    kafka_refuses(
        "commonConfig",
        "security.protocol: SASL_SSL\nsasl.mechanism: PLAIN",
        "d.yaml:5:3: sasl.mechanism: needs sasl.username and sasl.password, or sasl.jaas.config with both",
    );
}

#[test]
fn secrets_are_not_shown() {
    let jaas = "sasl.jaas.config: PlainLoginModule required username=me password=hunter2 and more";
    let got = messages(driver::parse("d.yaml", &kafka_with("commonConfig", jaas), Leniency::Strict));
    assert!(got.contains("sasl.jaas.config: found malformed text") && !got.contains("hunter2"), "{got}");
    let lines = "security.protocol: SASL_SSL\nsasl.mechanism: PLAIN\nsasl.username: me\nsasl.password: hunter2";
    let parsed = driver::parse("d.yaml", &kafka_with("commonConfig", lines), Leniency::Strict).expect("well-formed");
    let shown = parsed.value.resolved().to_string();
    assert!(!shown.contains("hunter2") && shown.contains("\"sasl.password\":\"(hidden)\""), "{shown}");
}

#[test]
fn nothing_is_dropped_in_silence() {
    kafka(
        "consumerConfig",
        "acks: all\nmax.poll.records: 5\ngroup.id: x",
        &[
            "d.yaml:5:3: acks: not applied: a producer's property, and consumers have no use for it",
            "d.yaml:6:3: max.poll.records: not applied: librdkafka hands messages over as they arrive, without a limit per poll",
            "d.yaml:7:3: group.id: not applied: every subscription is a consumer group of its own, named by the benchmark",
        ],
    );
    kafka(
        "producerConfig",
        "linger.ms: 1\nqueue.buffering.max.ms: 2",
        &["d.yaml:6:3: queue.buffering.max.ms: given twice, first in line 5 as linger.ms; the last one holds"],
    );
    kafka(
        "producerConfig",
        "buffer.memory: 1024\nqueue.buffering.max.kbytes: 5",
        &[
            "d.yaml:6:3: queue.buffering.max.kbytes: given together with buffer.memory, which is the same to librdkafka; \
         queue.buffering.max.kbytes holds, buffer.memory is not applied",
        ],
    );
}

#[test]
fn values_that_librdkafka_would_refuse() {
    let refuses = |lines, want| kafka_refuses("producerConfig", lines, want);
    refuses("acks: two", "d.yaml:5:3: acks: found `two`; allowed: all, or a whole number from -1 to 1000");
    refuses("linger.ms: -1", "d.yaml:5:3: linger.ms: found `-1`; allowed: a number from 0 to 900000");
    refuses(
        "compression.type: zst",
        "d.yaml:5:3: compression.type: found `zst`; allowed: none, gzip, snappy, lz4, zstd; did you mean `zstd`?",
    );
    refuses(
        "buffer.memory: lots",
        "d.yaml:5:3: buffer.memory: found `lots`; allowed: a whole number from 1 to 2147483647 (as librdkafka's queue.buffering.max.kbytes)",
    );
    refuses(
        "enable.idempotence: true\nacks: 1\nretries: 0\nmax.in.flight: 6",
        "d.yaml:6:3: acks: enable.idempotence needs acks=all\n\
         d.yaml:7:3: retries: enable.idempotence needs at least 1\n\
         d.yaml:8:3: max.in.flight: enable.idempotence allows at most 5",
    );
    kafka_refuses(
        "consumerConfig",
        "group.protocol: consumer\nsession.timeout.ms: 6000",
        "d.yaml:6:3: session.timeout.ms: group.protocol=consumer leaves this to the broker; remove it",
    );
}

fn any_workload() -> impl Strategy<Value = Workload> {
    let counts = (1..1000_u32, 1..1000_u32, 1..100_000_u32, 1..1000_u32, 0..100_u32, 1..100_u32);
    let payload = prop_oneof![
        "[a-z/]{1,12}\\.data".prop_map(|file| PayloadSource::File(file.into())),
        (0.0..=1.0, 1..1000_u32).prop_map(|(ratio, pool)| PayloadSource::Random { ratio, pool }),
    ];
    let times = (1..1_000_000_000_u64, 0..1_000_000_000_u64);
    let choices = (
        prop_oneof![Just(KeyDistributor::NoKey), Just(KeyDistributor::RoundRobin), Just(KeyDistributor::RandomNano)],
        prop_oneof![
            Just(CatchUp::All),
            Just(CatchUp::Drop),
            (0..1_000_000_u64).prop_map(|millis| CatchUp::Cap(Duration::from_millis(millis))),
        ],
        prop_oneof![Just(Verify::Header), Just(Verify::Full)],
        prop_oneof![Just(Clients::Shared), Just(Clients::Own)],
    );
    let rest =
        (1..=1_000_000_000_u64, any::<bool>(), proptest::option::of(1..1_u64 << 50), 0.0..=1.0, any::<Option<u64>>());
    let name = any::<String>().prop_map(|name| format!("{}.", name.replace(char::is_control, " ")));
    (name, counts, payload, times, choices, rest).prop_map(
        |(
            name,
            counts,
            payload,
            times,
            (key_distributor, catch_up, verify, clients),
            (rate, search, backlog, drain_ratio, seed),
        )| {
            let (topics, partitions_per_topic, message_size, producers_per_topic, subscriptions, consumers) = counts;
            let backlog = backlog.filter(|_| subscriptions > 0).map(|bytes| Backlog { bytes, drain_ratio });
            Workload {
                name,
                topics,
                partitions_per_topic,
                key_distributor,
                message_size,
                payload,
                subscriptions_per_topic: subscriptions,
                consumers_per_subscription: if subscriptions == 0 { 0 } else { consumers },
                producers_per_topic,
                rate: if search && backlog.is_none() {
                    RateGoal::Search
                } else {
                    RateGoal::Fixed(Rate::per_second(rate).expect("in range"))
                },
                backlog,
                test_duration: Duration::from_millis(times.0),
                warmup_duration: Duration::from_millis(times.1),
                seed,
                catch_up,
                verify,
                clients,
            }
        },
    )
}

fn environment(name: &str) -> Option<String> {
    match name {
        "KAFKA_PASSWORD" => Some("s3cr\"et".to_owned()),
        "SERVERS" => Some("hidden-host:9092".to_owned()),
        "DISTINCT" => Some("hunter2value".to_owned()),
        _ => None,
    }
}

#[track_caller]
fn filled(text: &str) -> Parsed<DriverConfig> {
    driver::parse_within("d.yaml", text, Leniency::Strict, &environment).expect("well-formed")
}

/// A secret that is to be filled in comes from the environment of the process that reads the file, and is never shown.
#[test]
fn placeholders_come_from_the_environment_and_are_secret() {
    let text = r#"
name: Placeholder
driverClass: kafka
commonConfig: |
  bootstrap.servers=${SERVERS}
  security.protocol=SASL_PLAINTEXT
  sasl.mechanism=PLAIN
  sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="bench" password="${KAFKA_PASSWORD}";
  client.id=a$${b}
"#;
    let parsed = filled(text);
    let DriverKind::Kafka(kafka) = &parsed.value.kind else { panic!("asked for Kafka") };
    // The value has a quote in it, which would end the text in the line.
    assert_eq!(kafka.producer["sasl.password"], "s3cr\"et");
    assert_eq!(kafka.common["bootstrap.servers"], "hidden-host:9092");
    assert_eq!(kafka.common["client.id"], "a${b}");
    let shown = format!("{:?} {} {}", parsed, parsed.value.resolved(), kafka.brokers());
    assert!(!shown.contains("s3cr") && !shown.contains("hidden-host"), "{shown}");
    let debug = format!("{:?}", omb_bench::protocol::Command::Prepare(Box::new(preparation(parsed.value.clone()))));
    assert!(debug.contains("Secret(..)") && !debug.contains("s3cr"), "{debug}");
    assert_eq!(
        omb_machine::encoding::decode(&omb_machine::encoding::encode(&parsed.value)),
        Ok(parsed.value),
        "it travels"
    );
}

fn preparation(driver: DriverConfig) -> omb_bench::protocol::command::Preparation {
    omb_bench::protocol::command::Preparation {
        driver,
        seed: omb_machine::seed::Seed(1),
        payload: omb_bench::load::payload::PayloadRecipe::Given(vec![0; 40]),
        keys: workload::KeyDistributor::NoKey,
        catch_up: workload::CatchUp::All,
        verify: workload::Verify::Header,
        producers_per_topic: 1,
        lease: Duration::from_secs(30),
        setup_within: Duration::from_secs(60),
        controller: String::new(),
        take_over: false,
    }
}

#[test]
fn placeholders_that_cannot_be_filled_in_are_errors() {
    kafka_refuses(
        "commonConfig",
        "sasl.password: ${KAFKA_PASSWORD}",
        "d.yaml:4:3: sasl.password: no environment variable KAFKA_PASSWORD is set; `${KAFKA_PASSWORD}` is filled in from the \
         environment of the process that reads this file (`$${` stands for `${` itself)",
    );
    // Nothing else is missing because of it.
    kafka_refuses(
        "commonConfig",
        "security.protocol: SASL_SSL\nsasl.mechanism: ${MECHANISM}",
        "d.yaml:5:3: sasl.mechanism: no environment variable MECHANISM is set; `${MECHANISM}` is filled in from the \
         environment of the process that reads this file (`$${` stands for `${` itself)",
    );
    kafka_refuses(
        "commonConfig",
        "sasl.password: hunter${2",
        "d.yaml:4:3: sasl.password: `${` begins a placeholder `${NAME}`, filled in from the environment; write `$${` for \
         these characters themselves",
    );
    driver_refuses(
        "driverClass: kafka\ncommonConfig:\n  bootstrap.servers: b:1\ntopicConfig:\n  a.b: '{zone.id}'",
        "d.yaml:5:3: a.b: not supported: {zone.id} is filled in by each worker, and a topic is the same for all of them",
    );
    let zone = kafka("commonConfig", "client.id: load-{zone.id}\nclient.rack: '{zone.id}'", &[]);
    assert_eq!(zone.producer["client.rack"], "{zone.id}", "each worker fills it in");
}

/// The user is warned if a driver file loads code: it is as powerful as a program.
#[test]
fn what_loads_code_is_warned_of() {
    let warning =
        "it loads code into this process: a driver file is as powerful as a program, so run only those you trust";
    for name in ["plugin.library.paths", "ssl.engine.location", "ssl.providers"] {
        kafka("commonConfig", &format!("{name}: ./x.so"), &[&format!("d.yaml:4:3: {name}: {warning}")]);
    }
}

/// Whatever property a value from the environment is given to, and whatever is wrong with it there, it is not shown.
#[test]
fn no_message_shows_what_came_from_the_environment() {
    let names = [
        "acks",
        "linger.ms",
        "batch.size",
        "buffer.memory",
        "request.timeout.ms",
        "partitioner.class",
        "partitioner.ignore.keys",
        "partition.assignment.strategy",
        "compression.type",
        "sasl.mechanism",
        "sasl.jaas.config",
        "sasl.username",
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.grant.type",
        "sasl.oauthbearer.token.endpoint.url",
        "sasl.login.callback.handler.class",
        "ssl.truststore.type",
        "ssl.keystore.type",
        "ssl.truststore.location",
        "security.protocol",
        "bootstrap.servers",
        "group.protocol",
        "auto.offset.reset",
        "no.such.property",
        "client.id",
        "isolation.level",
        "fetch.max.bytes",
        "ssl.endpoint.identification.algorithm",
        "enable.idempotence",
        "debug",
    ];
    for name in names {
        for value in ["${DISTINCT}", "x ${DISTINCT}; y", "${SERVERS},${DISTINCT}"] {
            for block in ["commonConfig", "producerConfig", "consumerConfig", "topicConfig"] {
                let text =
                    format!("driverClass: kafka\n{block}:\n  security.protocol: SASL_SSL\n  {name}: \"{value}\"\n");
                let shown = match driver::parse_within("d.yaml", &text, Leniency::Lenient, &environment) {
                    Ok(parsed) => format!("{parsed:?} {}", parsed.value.resolved()),
                    Err(errors) => errors.to_string(),
                };
                assert!(!shown.contains("hunter2") && !shown.contains("hidden-host"), "{name}: {shown}");
            }
        }
    }
}

#[test]
fn lists_of_brokers() {
    let servers = |list: &str| format!("driverClass: kafka\ncommonConfig:\n  bootstrap.servers: \"{list}\"\n");
    for list in ["a:1,b:2,", ",a:1", "a:1,,b:2", " a:1 , b:2 ", "SASL_SSL://a:1", "[::1]:9092"] {
        let parsed = driver::parse("d.yaml", &servers(list), Leniency::Strict);
        assert!(parsed.is_ok(), "{list}: {}", messages(parsed));
    }
    for (list, what) in [
        (
            "a:1 b:2",
            "found `a:1 b:2`; allowed: host:port, several separated by commas; a blank stands where a comma is expected",
        ),
        (
            "a:1;b:2",
            "found `a:1;b:2`; allowed: host:port, several separated by commas; `;` stands where a comma is expected",
        ),
        (
            "c:3,a:1\tb:2",
            "found `a:1\\tb:2`; allowed: host:port, several separated by commas; a blank stands where a comma is expected",
        ),
        ("a", "found `a`; allowed: host:port, several separated by commas"),
        (",", "found nothing; allowed: host:port, several separated by commas"),
        ("", "found nothing; allowed: host:port, several separated by commas"),
    ] {
        driver_refuses(&servers(list), &format!("d.yaml:3:3: bootstrap.servers: {what}"));
    }
}

/// Driver files of forks are read; what they set beyond upstream is reported as left out, and listed in the result.
#[test]
fn keys_of_forks_are_known() {
    let text = "driverClass: kafka\nreplicationFactor: 1\nskipCreateTopic: true\nresetToLatest: true\ncommonConfig: |\n  \
                bootstrap.servers=b:9092\nconsumerConfig: |\n  enable.auto.commit=false\n  offsetCommitLingerMs=5000\n";
    let parsed = driver::parse("d.yaml", text, Leniency::Strict).expect("well-formed");
    let ignored: Vec<_> = parsed.warnings.iter().filter(|warning| warning.ignored).map(|w| w.key.as_str()).collect();
    assert_eq!(ignored, ["skipCreateTopic", "resetToLatest", "offsetCommitLingerMs"]);
    assert_eq!(parsed.warnings.len(), 3, "{:?}", parsed.warnings);
}

#[test]
fn logins_of_hosted_brokers() {
    let oidc = "security.protocol: SASL_SSL\nsasl.mechanism: OAUTHBEARER\nsasl.oauthbearer.method: OIDC\n\
                sasl.oauthbearer.client.id: me\nsasl.oauthbearer.client.secret: hunter2\nsasl.oauthbearer.scope: a b\n\
                sasl.oauthbearer.token.endpoint.url: https://idp.example/token";
    let own = kafka("commonConfig", oidc, &[]).producer;
    let java = "security.protocol: SASL_SSL\nsasl.mechanism: OAUTHBEARER\n\
                sasl.login.callback.handler.class: org.apache.kafka.common.security.oauthbearer.secured.OAuthBearerLoginCallbackHandler\n\
                sasl.oauthbearer.token.endpoint.url: https://idp.example/token\n\
                sasl.jaas.config: 'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required clientId=\"me\" \
                clientSecret=\"hunter2\" scope=\"a b\";'";
    assert_eq!(kafka("commonConfig", java, &[]).producer, own, "Java's words mean the same");
    assert_eq!(own["sasl.oauthbearer.method"], "oidc");
    assert!(matches!(own["sasl.oauthbearer.client.credentials.client.secret"], Setting::Secret(_)));

    let msk = "security.protocol: SASL_SSL\nsasl.mechanism: AWS_MSK_IAM\n\
               sasl.jaas.config: software.amazon.msk.auth.iam.IAMLoginModule required;\n\
               sasl.client.callback.handler.class: software.amazon.msk.auth.iam.IAMClientCallbackHandler";
    let msk = kafka("commonConfig", msk, &[]).consumer;
    assert_eq!((msk["sasl.mechanism"].shown(), msk["sasl.oauthbearer.method"].shown()), ("OAUTHBEARER", "aws_msk_iam"));

    let unsigned = "security.protocol: SASL_PLAINTEXT\nsasl.mechanism: OAUTHBEARER\n\
                    sasl.jaas.config: 'OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"alice\";'";
    let unsigned = kafka("commonConfig", unsigned, &[]).common;
    assert_eq!(unsigned["sasl.oauthbearer.config"], "principal=alice");
}

#[test]
fn logins_that_lead_nowhere_are_refused_with_what_is_missing() {
    let common = |lines: &str| messages(driver::parse("d.yaml", &kafka_with("commonConfig", lines), Leniency::Strict));
    let alone = common("security.protocol: SASL_SSL\nsasl.mechanism: OAUTHBEARER");
    assert!(
        alone.starts_with("d.yaml:5:3: sasl.mechanism: OAUTHBEARER does not say where the token comes from: give"),
        "{alone}"
    );
    let half = common(
        "security.protocol: SASL_SSL\nsasl.mechanism: OAUTHBEARER\nsasl.oauthbearer.method: oidc\nsasl.oauthbearer.client.id: me",
    );
    assert!(
        half.ends_with("OpenID Connect lacks sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.credentials.client.secret"),
        "{half}"
    );
    let url = common(
        "security.protocol: SASL_SSL\nsasl.mechanism: OAUTHBEARER\nsasl.oauthbearer.client.id: me\n\
         sasl.oauthbearer.client.secret: x\nsasl.oauthbearer.token.endpoint.url: https://user@idp/",
    );
    assert!(url.contains("sasl.oauthbearer.token.endpoint.url: not an address at which a token is fetched"), "{url}");
    let open = common("security.protocol: SASL_PLAINTEXT\nsasl.mechanism: AWS_MSK_IAM");
    assert!(open.contains("AWS_MSK_IAM needs security.protocol=SASL_SSL"), "{open}");
    let other = common("security.protocol: SASL_SSL\nsasl.mechanism: AWS_IAM");
    assert!(other.contains("allowed: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, AWS_MSK_IAM"), "{other}");
    let grant = common("sasl.oauthbearer.grant.type: urn:ietf:params:oauth:grant-type:jwt-bearer");
    assert!(grant.contains("the grant jwt-bearer is not built in"), "{grant}");
}

proptest! {
    #[test]
    fn a_resolved_workload_reads_back(workload in any_workload()) {
        let text = workload.resolved().to_string();
        let parsed = workload::parse("w.json", &text, Leniency::Strict);
        prop_assert_eq!(parsed.map_err(|errors| errors.to_string()), Ok(Parsed { value: workload, warnings: vec![] }));
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        for leniency in [Leniency::Strict, Leniency::Lenient] {
            let _ = workload::parse("w.yaml", &text, leniency);
            let _ = driver::parse("d.yaml", &text, leniency);
            let _ = workers::parse("w.yaml", &text, leniency);
        }
    }

    /// Text made of what our files are made of gets further than any other.
    #[test]
    fn likely_text_never_panics(words in proptest::collection::vec(prop_oneof![
        Just("topics"), Just("driverClass: kafka\n"), Just("commonConfig"), Just("producerConfig"), Just("bootstrap.servers"),
        Just("ssl.keystore.type"), Just("sasl.jaas.config"), Just("request.timeout.ms"), Just(": "), Just(": |\n"), Just("="),
        Just("\n"), Just("  "), Just("- "), Just("\\"), Just("\\u"), Just("\""), Just("'"), Just("{"), Just("}"), Just("["),
        Just("]"), Just("1"), Just("1e999"), Just("-9"), Just("0.5"), Just("cap("), Just("5m"), Just("*a"), Just("&a"), Just("!!str "),
        Just("---\n"), Just("\u{feff}"), Just(">\n"), Just("? "), Just("#"), Just("\t"), Just(","), Just("\r"),
    ], 0..40)) {
        let text = words.concat();
        for leniency in [Leniency::Strict, Leniency::Lenient] {
            let _ = workload::parse("w.yaml", &text, leniency);
            let _ = driver::parse("d.yaml", &text, leniency);
        }
    }

    /// With a valid head, what comes after reaches the property tables.
    #[test]
    fn arbitrary_properties_never_panic(name in "[a-z.]{0,30}", value in any::<String>()) {
        let name = serde_json::Value::from(name).to_string();
        let value = serde_json::Value::from(value).to_string();
        let text = format!("{{driverClass: kafka, commonConfig: {{bootstrap.servers: 'a:1', {name}: {value}, sasl.jaas.config: {value}}}}}");
        for leniency in [Leniency::Strict, Leniency::Lenient] {
            let _ = driver::parse("d.yaml", &text, leniency);
        }
    }
}
