//! `omb run` as a user runs it, on the embedded broker: what it leaves behind, and whether that adds up.

mod support;

use std::time::Duration;

use serde_json::Value;
use support::{
    cluster::within,
    omb::{Broker, Place, agree, complete, eight_consumers_join_before_the_load, kafka_driver, number, workload},
};

#[test]
fn a_result_holds_upstreams_keys_and_agrees_with_its_record() {
    let place = Place::default();
    let changes = [("topics", "2"), ("partitionsPerTopic", "2"), ("subscriptionsPerTopic", "2"), ("seed", "9")];
    place.write("small.yaml", workload("small", &changes));
    let ended =
        place.run(&["run", "small.yaml"]).with(0).saying("Creating 2 topics...").saying("Starting load test...");

    let [name] = &place.files(".json")[..] else { panic!("one result: {:?}", place.files("")) };
    let time = name.strip_prefix("small-Embedded-").and_then(|name| name.strip_suffix(".json")).unwrap_or(name);
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    assert_eq!(shape, "9999-99-99-99-99-99", "{name}");
    assert!(ended.stdout.contains(&format!("Written to {name}")), "{}", ended.stdout);
    assert!(ended.stdout.contains("Placement"), "the plan is printed: {}", ended.stdout);

    let (result, record) = place.only_result();
    fits_upstream(&result);
    complete(&result, &record);
    let omb = &result["omb"];
    assert_eq!((number(omb, "/seed"), &omb["embedded"]), (9, &true.into()));
    assert_eq!(omb["verdict"]["subscriptions"].as_array().map(Vec::len), Some(4));
    let (acked, received) =
        (number(omb, "/totals/sinceLoadBegan/acked"), number(omb, "/totals/sinceLoadBegan/received"));
    assert_eq!(received, 2 * acked, "two subscriptions read every topic");
    // The schedule is 1.3 s long; however busy the machine is, no message leaves that was not due.
    assert!((1_300..20_000).contains(&acked), "{acked}");
    assert_eq!(number(omb, "/totals/sinceLoadBegan/failed"), 0);
    assert_eq!(result["consumersPerTopic"], 1);
}

/// A window is half open and as long as asked: 3 messages in 3 s, 1 message in 1 ms, one in two seconds at 0.5 msg/s.
#[test]
fn a_window_holds_exactly_its_messages() {
    for (rate, test, messages, seconds) in [("1", "3s", 3, 3.0), ("1000", "1ms", 1, 0.001), ("0.5", "3s", 2, 3.0)] {
        let place = Place::default();
        let changes = [("producerRate", rate), ("warmupDuration", "0s"), ("testDuration", test)];
        place.write("w.yaml", workload("w", &changes));
        place.run(&["run", "w.yaml"]).with(0);
        let (result, record) = place.only_result();
        complete(&result, &record);
        let omb = &result["omb"];
        assert_eq!(number(omb, "/totals/measured/attempted"), messages, "{rate} msg/s for {test}");
        assert_eq!(number(omb, "/totals/sinceLoadBegan/acked"), messages, "{rate} msg/s for {test}");
        assert_eq!(omb["rates"]["measuredSeconds"], seconds, "{rate} msg/s for {test}");
    }
}

/// Rates by a list, to the message: 5 s at 40 msg/s, then 5 s at 80.
#[test]
fn rates_by_a_list_are_followed() {
    let place = Place::default();
    let changes = [("warmupDuration", "0s"), ("testDuration", "6s")];
    place.write("w.yaml", workload("w", &changes) + "producerRateList: [[0, 40], [1, 520]]\n");
    let ended = place.run(&["run", "w.yaml"]).with(0);
    assert!(ended.stdout.contains("by producerRateList: 2 points from minute 0 to minute 1"), "{}", ended.stdout);
    let (result, record) = place.only_result();
    complete(&result, &record);
    assert_eq!(number(&result["omb"], "/totals/measured/attempted"), 5 * 40 + 80);
    let target = result["omb"]["rates"]["targetPerSecond"].as_f64().expect("a rate");
    assert!((target - 280.0 / 6.0).abs() < 0.01, "the mean over the time, not the first rate: {target}");
}

#[test]
fn workloads_and_drivers_run_in_the_order_given() {
    let place = Place::default();
    for name in ["first", "second"] {
        let short = [("warmupDuration", "0s"), ("testDuration", "200ms")];
        place.write(&format!("{name}.yaml"), workload(name, &short));
    }
    place.write("a.yaml", "name: A\ndriverClass: embedded\n");
    place.write("b.yaml", "name: B\ndriverClass: embedded\n");
    let ended = place.run(&["run", "-d", "b.yaml,a.yaml", "-o", "all.json", "second.yaml", "first.yaml"]).with(0);
    let written: Vec<&str> = ended
        .stdout
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Written to ").filter(|name| name.ends_with(".json")))
        .collect();
    assert_eq!(written, ["all-second-B.json", "all-second-A.json", "all-first-B.json", "all-first-A.json"]);
    for name in written {
        let result = place.result(name);
        complete(&result, &place.record(&name.replace(".json", ".jsonl")));
        let named = format!(
            "all-{}-{}.json",
            result["workload"].as_str().unwrap_or(""),
            result["driver"].as_str().unwrap_or("")
        );
        assert_eq!(named, name);
    }
}

/// The same result and the same words, but for when the run ended, which its record does not say.
#[test]
fn a_record_makes_the_result_again() {
    let place = Place::default();
    place.write("small.yaml", workload("small", &[("topics", "2"), ("subscriptionsPerTopic", "2")]));
    let ran = place.run(&["run", "-o", "out.json", "small.yaml"]).with(0);
    let reported = place.run(&["report", "out.jsonl"]).with(0);
    let table = |said: &str| -> String {
        let from = said.find("small on Embedded").unwrap_or_else(|| panic!("no table: {said}"));
        said[from..]
            .lines()
            .filter(|line| !line.contains("Written to"))
            .collect::<Vec<_>>()
            .join("\n")
            .trim()
            .to_owned()
    };
    assert_eq!(table(&reported.stdout), table(&ran.stdout));
    assert!(reported.stdout.contains("Written to out-2.json"), "nothing is overwritten: {}", reported.stdout);
    let [mut result, mut again] = ["out.json", "out-2.json"].map(|name| place.result(name));
    for result in [&mut result, &mut again] {
        assert!(result["omb"].as_object_mut().and_then(|omb| omb.remove("ended")).is_some());
    }
    assert_eq!(result, again);

    // The result file itself is shown as the run showed it, and written only where that is asked for.
    let shown = place.run(&["report", "out.json"]).with(0);
    assert_eq!(table(&shown.stdout), table(&ran.stdout));
    assert!(!shown.stdout.contains("Written to"), "{}", shown.stdout);
    place.run(&["report", "-o", "same.json", "out.json"]).with(0);
    assert_eq!(place.text("same.json"), place.text("out.json"));
    place.run(&["report", "-o", "upstream.json", "--result-format", "upstream", "out.json"]).with(0);
    fits_upstream(&place.result("upstream.json"));
    place.run(&["report", "upstream.json"]).with(2).saying("upstream.json: it has upstream's keys only");
    place.write("lost.json", place.text("out.json").replace("\"complete\",", "\"lost\","));
    place.run(&["report", "lost.json"]).with(1);
    place.write("cut.json", &place.text("out.json")[..1_000]);
    place.run(&["report", "cut.json"]).with(2).saying("cut.json: not a result file: EOF");

    place.run(&["report", "-o", "out.json", "out.jsonl"]).with(2).saying("out.json exists already");
    place.run(&["report", "-o", "bare.json", "--result-format", "upstream", "out.jsonl"]).with(0);
    fits_upstream(&place.result("bare.json"));
    assert!(place.result("bare.json").get("omb").is_none());
}

/// What keeps a result from being written is found before the run; what exists is never touched.
#[test]
fn where_a_result_goes() {
    let place = Place::default();
    // So long that a run which began would be noticed.
    place.write("long.yaml", workload("long", &[("testDuration", "1h")]));
    place.write("taken.json", "precious");
    place.write("record.jsonl", "precious too");
    place.write("file", "no folder");
    let refused = [
        ("taken.json", "taken.json exists already"),
        ("record.json", "record.jsonl exists already"),
        ("missing/out.json", "missing/out.json"),
        ("file/out.json", "file/out.json"),
        (".", "a folder, where a file is wanted"),
        ("out.jsonl", "belongs to the record"),
        ("/proc/out.json", "/proc/out.json"),
    ];
    for (output, why) in refused {
        let ended = place.run(&["run", "-o", output, "long.yaml"]).with(2).saying(why);
        assert!(!ended.stderr.contains("Creating"), "{output}: it began: {}", ended.stderr);
    }
    assert_eq!(place.files("").len(), 4, "nothing is left behind: {:?}", place.files(""));
    assert_eq!(std::fs::read_to_string(place.path("taken.json")).ok().as_deref(), Some("precious"));
    assert_eq!(std::fs::read_to_string(place.path("record.jsonl")).ok().as_deref(), Some("precious too"));

    place.write("short.yaml", workload("short", &[("warmupDuration", "0s"), ("testDuration", "200ms"), ("seed", "9")]));
    place.run(&["run", "-o", "mine.txt", "--seed", "7", "--result-format", "upstream", "short.yaml"]).with(0);
    let result = place.result("mine.txt");
    assert!(result.get("omb").is_none(), "upstream's tool does not bear it");
    fits_upstream(&result);
    assert_eq!(number(&place.record("mine.jsonl")[0], "/origin/seed"), 7, "the flag goes before the file");
}

#[test]
fn the_load_waits_until_all_consumers_have_joined() {
    let place = Place::default();
    let broker = Broker::start(&place);
    place.write("k.yaml", kafka_driver(&broker.address, ""));
    eight_consumers_join_before_the_load(&place);

    // Only a request for what the broker does not offer is rejected, and at once.
    let newer = kafka_driver(&broker.address, "  group.protocol=consumer\n");
    place.write("newer.yaml", newer);
    let ended = place.run(&["run", "-d", "newer.yaml", "eight.yaml"]).with(3).within(Duration::from_secs(20));
    ended.saying("does not offer ConsumerGroupHeartbeat, which group.protocol: consumer needs");
}

/// Without room for a header messages can only be counted, and the result says so. Consumers of one subscription share.
#[test]
fn small_messages_are_counted() {
    let place = Place::default();
    let changes = [
        ("messageSize", "16"),
        ("partitionsPerTopic", "4"),
        ("subscriptionsPerTopic", "3"),
        ("consumerPerSubscription", "2"),
        ("producersPerTopic", "2"),
    ];
    place.write("tiny.yaml", workload("tiny", &changes));
    place.run(&["run", "tiny.yaml"]).with(0);
    let (result, record) = place.only_result();
    complete(&result, &record);
    let totals = &result["omb"]["totals"]["sinceLoadBegan"];
    assert_eq!(totals["headerless"], totals["received"]);
    assert_eq!(result["omb"]["verdict"]["subscriptions"][2]["byCountOnly"], true);
    assert!(result["omb"]["notes"].to_string().contains("header"), "{}", result["omb"]["notes"]);
}

#[test]
fn keys_spread_over_partitions_and_payloads_are_checked_whole() {
    let place = Place::default();
    let changes = [
        ("keyDistributor", "KEY_ROUND_ROBIN"),
        ("partitionsPerTopic", "3"),
        ("verify", "full"),
        ("producerRate", "3000"),
    ];
    place.write("keys.yaml", workload("keys", &changes));
    place.write("payload", [7; 100]);
    place.run(&["run", "keys.yaml"]).with(0);
    let (result, record) = place.only_result();
    complete(&result, &record);
    assert_eq!(number(&result, "/omb/totals/sinceLoadBegan/corrupted"), 0);
    assert_eq!(number(&result, "/omb/totals/sinceLoadBegan/headerless"), 0);
}

#[test]
fn a_backlog_builds_up_and_is_drained() {
    let place = Place::default();
    let changes = [
        ("messageSize", "1024"),
        ("producerRate", "4000"),
        ("subscriptionsPerTopic", "2"),
        ("consumerBacklogSizeGB", "0.004"),
        ("testDuration", "500ms"),
    ];
    place.write("backlog.yaml", workload("backlog", &changes));
    place.run(&["run", "backlog.yaml"]).with(0);
    let (result, record) = place.only_result();
    complete(&result, &record);
    let backlog = &result["omb"]["backlog"];
    // 0.004 GiB of 1 KiB each, over both subscriptions.
    assert!(number(backlog, "/builtMessages") >= 4_194, "{backlog}");
    assert_eq!(backlog["drained"], true, "{backlog}");
    let phases: Vec<&str> = result["omb"]["phases"]
        .as_array()
        .expect("phases")
        .iter()
        .filter_map(|phase| phase["phase"].as_str())
        .collect();
    assert!(phases.windows(3).any(|three| three == ["fill backlog", "drain backlog", "measure"]), "{phases:?}");
    let unread = result["omb"]["series"]["unread"].as_array().expect("a series");
    assert!(unread.iter().filter_map(Value::as_u64).max() >= Some(4_194), "{unread:?}");
}

#[test]
fn nobody_needs_to_read() {
    let place = Place::default();
    place.write("send.yaml", workload("send", &[("subscriptionsPerTopic", "0"), ("consumerPerSubscription", "0")]));
    place.run(&["run", "send.yaml"]).with(0);
    let (result, record) = place.only_result();
    agree(&result, &record);
    assert_eq!(result["omb"]["verdict"]["outcome"], "unchecked");
    assert_eq!(number(&result, "/omb/totals/sinceLoadBegan/received"), 0);
}

/// The same as with a broker in the process, through a driver file; and the run leaves nothing on the broker.
#[test]
fn a_broker_of_its_own_is_used_and_left_clean() {
    let place = Place::default();
    let broker = Broker::start(&place);
    place.write("k.yaml", kafka_driver(&broker.address, ""));
    place.write("small.yaml", workload("small", &[("topics", "2"), ("producerRate", "2000")]));
    let checked = place.run(&["check", "-d", "k.yaml", "small.yaml"]).with(0);
    assert!(checked.stdout.contains("Nothing was run"), "{}", checked.stdout);
    assert!(place.files(".json").is_empty(), "a check leaves no file");
    place.run(&["run", "-d", "k.yaml", "small.yaml"]).with(0);
    let (result, record) = place.only_result();
    complete(&result, &record);
    assert_eq!(result["omb"]["embedded"], false);
    broker.process.signal("TERM");
    broker.process.end().with(0).saying("0 records of 0 topics");
}

/// Without confirmations from the broker the result says what "acknowledged" means.
#[test]
fn what_nobody_confirms_is_called_so() {
    let place = Place::default();
    let broker = Broker::start(&place);
    place.write("k.yaml", kafka_driver(&broker.address, "").replace("acks=all", "acks=0"));
    place.write("w.yaml", workload("w", &[]));
    let ended = place.run(&["run", "-d", "k.yaml", "w.yaml"]).with(0);
    let (result, _) = place.only_result();
    assert_eq!(result["omb"]["acknowledgedMeans"], "handed to the socket");
    assert!(ended.stdout.contains("msg/s were handed to the socket ("), "{}", ended.stdout);
}

/// What a backlog took goes back to the system when its topic is gone, also if no client connects any more.
#[test]
fn a_broker_gives_memory_back() {
    let place = Place::default();
    let broker = Broker::start(&place);
    place.write("k.yaml", kafka_driver(&broker.address, ""));
    let unread = [
        ("messageSize", "65536"),
        ("producerRate", "2000"),
        ("testDuration", "2s"),
        ("subscriptionsPerTopic", "0"),
        ("consumerPerSubscription", "0"),
    ];
    place.write("unread.yaml", workload("unread", &unread));
    place.run(&["run", "-d", "k.yaml", "unread.yaml"]);
    let little = || Some(broker.process.memory()).filter(|bytes| *bytes < 100 << 20);
    let left = within(Duration::from_secs(30), little);
    assert!(left.is_some(), "{} MiB are still there", broker.process.memory() >> 20);
    broker.process.signal("TERM");
    let said = broker.process.end().with(0).stderr;
    let held = said.split("held at most ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
    assert!(held.is_some_and(|mib: u64| (200..400).contains(&mib)), "{said}");
}

/// Every key of upstream's result is there, of its type, and every list is of one length.
#[track_caller]
fn fits_upstream(result: &Value) {
    let map = result.as_object().expect("an object");
    let figures = ["Avg", "50pct", "75pct", "95pct", "99pct", "999pct", "9999pct", "Max"];
    let all = |prefix: &str| figures.map(|figure| format!("{prefix}{figure}")).to_vec();
    let texts = ["workload", "driver"];
    let wholes = ["messageSize", "topics", "partitions", "producersPerTopic", "consumersPerTopic"];
    let lists = ["publishRate", "publishErrorRate", "consumeRate", "backlog"];
    let maps = [
        "aggregatedPublishLatencyQuantiles",
        "aggregatedPublishDelayLatencyQuantiles",
        "aggregatedEndToEndLatencyQuantiles",
    ];
    let lists: Vec<String> = lists
        .map(str::to_owned)
        .into_iter()
        .chain(["publishLatency", "publishDelayLatency", "endToEndLatency"].into_iter().flat_map(all))
        .collect();
    let scalars: Vec<String> =
        ["aggregatedPublishLatency", "aggregatedPublishDelayLatency", "aggregatedEndToEndLatency"]
            .into_iter()
            .flat_map(all)
            .collect();
    assert!(texts.iter().all(|key| map[*key].is_string()), "{texts:?}");
    assert!(wholes.iter().all(|key| map[*key].is_u64()), "{wholes:?}");
    for key in &lists {
        let list = map.get(key).and_then(Value::as_array).unwrap_or_else(|| panic!("{key} is no list"));
        assert!(!list.is_empty() && list.iter().all(Value::is_number), "{key}: {list:?}");
        assert_eq!(Some(list.len()), map["publishRate"].as_array().map(Vec::len), "{key}");
    }
    assert!(scalars.iter().all(|key| map.get(key).is_some_and(Value::is_number)), "{scalars:?}");
    for key in maps {
        let quantiles = map[key].as_object().unwrap_or_else(|| panic!("{key} is no map"));
        assert!(quantiles.iter().all(|(at, value)| at.parse::<f64>().is_ok() && value.is_number()), "{key}");
    }
    let known = texts.len() + wholes.len() + lists.len() + scalars.len() + maps.len();
    assert_eq!(map.len(), known + usize::from(map.contains_key("omb")), "no key beyond upstream's and ours");
}
