//! What is wrong with what a user gives, or with what should be there: a clear error, the right exit code, no waiting.

mod support;

use std::{
    net::{Ipv4Addr, TcpListener},
    time::Duration,
};

use support::omb::{Broker, Ended, Place, kafka_driver, workload};

/// A port on which nothing listens: it was free a moment ago.
fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Nothing of a run may have begun, and no file may be left behind.
#[track_caller]
fn nothing_began(place: &Place, ended: &Ended) {
    assert!(!ended.stderr.contains("Creating"), "{}", ended.stderr);
    assert!(place.files(".json").is_empty() && place.files(".jsonl").is_empty(), "{:?}", place.files(""));
}

/// The mistake, the keys that cause it, and what the message must contain.
type Mistake<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [&'a str]);

#[test]
fn mistakes_in_files_are_told_with_their_place() {
    let place = Place::default();
    place.write("good.yaml", workload("good", &[]));
    let bad: [Mistake; 14] = [
        (
            "unknown key",
            &[("partitionsPerTopc", "1")],
            &["w.yaml:14:1", "partitionsPerTopc", "did you mean `partitionsPerTopic`?"],
        ),
        ("wrong unit", &[("testDuration", "90x")], &["w.yaml:13:15", "testDuration", "90x"]),
        ("zero topics", &[("topics", "0")], &["w.yaml:2:9", "topics"]),
        ("missing key", &[("messageSize", "")], &["messageSize", "missing"]),
        ("wrong type", &[("topics", "many")], &["w.yaml:2:9", "topics", "many"]),
        ("lossy", &[("topics", "1.5")], &["topics", "1.5"]),
        ("negative rate", &[("producerRate", "-5")], &["producerRate", "-5"]),
        (
            "rate without producers",
            &[("producersPerTopic", "0")],
            &["producersPerTopic is 0, but producerRate asks for 1000 msg/s"],
        ),
        (
            "consumers of nothing",
            &[("subscriptionsPerTopic", "0")],
            &["consumerPerSubscription is 1, but subscriptionsPerTopic is 0"],
        ),
        (
            "payload missing",
            &[("useRandomizedPayloads", "false"), ("payloadFile", "nowhere.bin")],
            &["payloadFile", "nowhere.bin", "No such file"],
        ),
        (
            "payload of another size",
            &[("useRandomizedPayloads", "false"), ("payloadFile", "good.yaml")],
            &["good.yaml holds", "messageSize is 100"],
        ),
        (
            "two payloads",
            &[("payloadFile", "good.yaml")],
            &["payloadFile and useRandomizedPayloads: true exclude each other"],
        ),
        ("endless", &[("testDuration", "0s")], &["testDuration", "without end"]),
        (
            "backlog without rate",
            &[("producerRate", "0"), ("consumerBacklogSizeGB", "1")],
            &["a backlog needs a fixed rate"],
        ),
    ];
    for (what, changes, telling) in bad {
        place.write("w.yaml", workload("w", changes));
        for command in ["run", "check"] {
            let ended = place.run(&[command, "w.yaml"]).with(2).within(Duration::from_secs(20));
            let missing: Vec<_> = telling.iter().filter(|part| !ended.stderr.contains(*part)).collect();
            assert!(missing.is_empty(), "{what}: {missing:?} is not in\n{}", ended.stderr);
            nothing_began(&place, &ended);
        }
    }
    // All mistakes of all files are reported at once.
    place.write("w.yaml", workload("w", &[("topics", "0")]));
    place.write("v.yaml", workload("v", &[("partitionsPerTopic", "0")]));
    place.run(&["run", "w.yaml", "v.yaml", "good.yaml"]).with(2).saying("w.yaml:2:9").saying("v.yaml:3:21");
}

#[test]
fn what_is_no_workload_is_refused() {
    let place = Place::default();
    place.write("good.yaml", workload("good", &[]));
    place.write("list.yaml", "- a\n- b\n");
    place.write("torn.yaml", "topics: [1, 2\nname: x\n");
    place.write("empty.yaml", "");
    place.write("bytes.yaml", [0xff, 0xfe, 0x00]);
    std::fs::create_dir(place.path("folder.yaml")).expect("a folder can be made");
    for (file, telling) in [
        ("missing.yaml", "missing.yaml: cannot read it: No such file"),
        ("folder.yaml", "folder.yaml: a folder"),
        ("list.yaml", "list.yaml"),
        ("torn.yaml", "neither valid YAML nor JSON"),
        ("empty.yaml", "the file is empty"),
        ("bytes.yaml", "not a text file"),
        ("good.yaml/more.yaml", "Not a directory"),
        ("/dev/null", "the file is empty"),
        // A name forges no line.
        ("a\nGOOD\u{1b}[31m.yaml", "a\\nGOOD\\u{1b}[31m.yaml: cannot read it"),
    ] {
        let ended = place.run(&["run", file]).with(2).saying(telling);
        nothing_began(&place, &ended);
    }
}

#[test]
fn mistakes_in_drivers_are_told_with_their_place() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    for (driver, telling) in [
        ("name: x\n", &["driverClass", "missing"][..]),
        ("driverClass: kafak\n", &["d.yaml:1:14", "kafak", "did you mean `kafka`?"]),
        ("driverClass: io.openmessaging.benchmark.driver.pulsar.PulsarBenchmarkDriver\n", &["Apache Pulsar"]),
        ("driverClass: kafka\n", &["bootstrap.servers"]),
        (&kafka_driver("127.0.0.1:1", "replicationFacto: 1\n"), &["did you mean `replicationFactor`?"]),
        (
            &kafka_driver("127.0.0.1:1", "").replace("acks=all", "acks=all\n  lingr.ms=1"),
            &["lingr.ms", "did you mean `linger.ms`?"],
        ),
        (&kafka_driver("127.0.0.1:1", "").replace("acks=all", "acks=none"), &["acks"]),
        (
            &kafka_driver("127.0.0.1:1", "replicationFactor: 0\n").replacen("replicationFactor: 1\n", "", 1),
            &["replicationFactor"],
        ),
        ("driverClass: embedded\nreplicationFactor: 1\n", &["driverClass is embedded"]),
    ] {
        place.write("d.yaml", driver);
        let ended = place.run(&["check", "-d", "d.yaml", "w.yaml"]).with(2).within(Duration::from_secs(20));
        let missing: Vec<_> = telling.iter().filter(|part| !ended.stderr.contains(*part)).collect();
        assert!(missing.is_empty(), "{missing:?} is not in\n{}\nof\n{driver}", ended.stderr);
    }
    place.run(&["run", "-d", "missing.yaml", "w.yaml"]).with(2).saying("missing.yaml: cannot read it");
}

#[test]
fn the_command_line_is_checked() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    for (arguments, telling) in [
        (&["run", "--nonsense", "w.yaml"][..], "--nonsense"),
        (&["run"], "WORKLOAD.yaml"),
        (&["run", "--seed", "many", "w.yaml"], "many"),
        (&["run", "--embedded-capacity", "12XB", "w.yaml"], "512MiB"),
        (&["run", "--result-format", "xml", "w.yaml"], "upstream"),
        (&["run", "--lease", "5d", "w.yaml"], "500ms, 30s, 1m30s"),
        (&["run", "--call-timeout", "2h", "w.yaml"], "100ms to 1h"),
        (&["run", "-x", "w.yaml"], "--workers"),
        (&["worker", "-sp", "many"], "--stats-port"),
        (&["worker", "--tls-cert", "c.pem"], "--tls-key"),
        (&["worker", "--log-file", "missing/log"], "--log-file missing/log: cannot write to it: No such file"),
        (&["report"], "<FILE>..."),
        (&["fly"], "fly"),
        (&["man", "fly"], "omb man: no command is called fly; there are run, check, "),
        (&["completions", "tcl"], "bash, "),
        (&[], "Usage"),
    ] {
        place.run(arguments).with(2).saying(telling);
    }
    for arguments in [&["--help"][..], &["run", "--help"], &["--version"], &["help"]] {
        let ended = place.run(arguments).with(0);
        assert!(ended.stdout.contains("omb") && ended.stderr.is_empty(), "{ended:?}");
    }
}

/// What shells complete, and the manual: all of it from the flags themselves.
#[test]
fn shells_and_manuals_know_the_flags() {
    let place = Place::default();
    for (arguments, telling) in [
        (&["completions", "bash"][..], "--embedded-capacity"),
        (&["completions", "zsh"], "--embedded-capacity"),
        (&["completions", "fish"], "embedded-capacity"),
        (&["man"], ".TH omb 1"),
        (&["man", "run"], "\\-\\-embedded\\-capacity"),
        (&["man", "client"], ".SH SUBCOMMANDS"),
    ] {
        let ended = place.run(arguments).with(0);
        assert!(ended.stdout.contains(telling) && ended.stderr.is_empty(), "{arguments:?}: {ended:?}");
    }
    // A shell takes it as it is.
    let script = r#"bash -c 'eval "$("$OMB" completions bash)" && complete -p omb'"#;
    place.start_by_shell(script).end().with(0);
}

/// The soft limit is raised; a hard one that is too low is reported before anything is created.
#[test]
fn open_files_are_counted_before_the_start() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[("topics", "40")]));
    place.start_by_shell("ulimit -Sn 200; exec \"$OMB\" run -o out.json w.yaml").end().with(0);
    for command in ["run", "check"] {
        let ended = place.start_by_shell(&format!("ulimit -n 200; exec \"$OMB\" {command} w.yaml")).end().with(3);
        assert!(ended.stderr.contains("open files 200, this run needs about "), "{}", ended.stderr);
        assert!(!ended.stderr.contains("Creating"), "{}", ended.stderr);
    }
    assert_eq!(place.files(".json"), ["out.json"]);
    // A worker says how many it has.
    let script = "ulimit -n 200; exec \"$OMB\" worker --port 0 --stats-port 0 --bind 127.0.0.1";
    let mut worker = place.start_by_shell(script);
    let said = worker.wait_for("/metrics");
    let (_, address) = said.split_once("Running on ").expect("it says where it is");
    let address = address.split_whitespace().next().expect("an address");
    place.write("k.yaml", support::omb::kafka_driver("127.0.0.1:9", ""));
    let ended = place.run(&["run", "-d", "k.yaml", "-w", address, "w.yaml"]).with(3);
    let line = format!("worker 1 ({address}): open files 200, its share of this run needs about ");
    assert!(ended.stderr.contains(&line), "{}", ended.stderr);
}

/// Workers as upstream and the guide write them; the mistake shows what was taken for a worker, and what for a
/// workload.
#[test]
fn workers_are_read_as_people_write_them() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    place.write("fleet.yaml", "workers:\n  - http://a:8080\n  - http://A:8080/\n");
    place.write("soft.yaml", "workers:\n  - http://a:8080\n  - https://b\n");
    // Reading the addresses and the workload went well, for the driver is refused.
    let embedded = "--embedded-bind";
    for (arguments, telling) in [
        ("-w http://a:8080 http://b:8080 w.yaml", embedded),
        ("-w=a b w.yaml", embedded),
        ("-xw a:8080,b:8080, w.yaml", embedded),
        ("--workers a --workers b w.yaml", embedded),
        ("w.yaml -w a b", embedded),
        ("-wf soft.yaml -x w.yaml", embedded),
        ("--workers-file=soft.yaml w.yaml", embedded),
        ("-w http://a:8080 ftp://b w.yaml", "--workers: ftp://b: the scheme is ftp, where http and https are allowed"),
        ("-w a:8080/base w.yaml", "--workers: a:8080/base: the path is /base"),
        ("-w a http://a:8080/ w.yaml", "--workers: http://a:8080/ is the same worker as a"),
        ("-wf fleet.yaml w.yaml", "fleet.yaml: workers: http://A:8080/ is the same worker as http://a:8080"),
        ("-wf missing.yaml w.yaml", "missing.yaml: cannot read it: No such file"),
        ("-wf w.yaml w.yaml", "w.yaml"),
        ("-w a -wf fleet.yaml w.yaml", "cannot be used with"),
        ("-w w.yaml", "--workers names no worker"),
        ("-x -w a w.yaml", "need at least 2"),
        ("-x --topology shared -w a b w.yaml", "--topology shared"),
        ("-w a b missing.yaml", "missing.yaml: cannot read it"),
    ] {
        for command in ["run", "check"] {
            let arguments: Vec<&str> = [command].into_iter().chain(arguments.split(' ')).collect();
            let ended = place.run(&arguments).with(2).saying(telling).within(Duration::from_secs(20));
            nothing_began(&place, &ended);
        }
    }
}

/// Upstream takes it without a word.
#[test]
fn a_workers_file_is_not_used_unasked() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    place.write("workers.yaml", "workers:\n  - http://a:8080\n");
    place.run(&["check", "w.yaml"]).with(0).saying("workers.yaml lies here and is not used: -wf workers.yaml");
}

#[test]
fn a_check_asks_each_driver_once() {
    let place = Place::default();
    for name in ["first", "second"] {
        place.write(&format!("{name}.yaml"), workload(name, &[]));
    }
    place.write("here.yaml", "driverClass: embedded\n");
    place.write("gone.yaml", kafka_driver(&format!("127.0.0.1:{}", free_port()), ""));
    let checked = place.run(&["check", "-d", "gone.yaml,here.yaml", "first.yaml", "second.yaml"]).with(3);
    assert_eq!(checked.stderr.matches("does not answer").count(), 1, "{}", checked.stderr);
    for plan in ["first: 1 topic", "second: 1 topic"] {
        assert_eq!(checked.stdout.matches(plan).count(), 1, "{}", checked.stdout);
    }
}

#[test]
fn what_is_no_record_is_refused() {
    let place = Place::default();
    place.write("empty.jsonl", "");
    place.write("text.jsonl", "hello\n");
    place.write("other.jsonl", "{\"kind\":\"run\",\"formatVersion\":99}\n");
    place.write("bytes.jsonl", b"\xff\n{}\n");
    for (file, telling) in [
        ("missing.jsonl", "missing.jsonl: cannot read it: No such file"),
        (".", "a folder"),
        ("empty.jsonl", "empty.jsonl: the record is empty"),
        ("text.jsonl", "text.jsonl: line 1 is not the header"),
        ("other.jsonl", "other.jsonl: the record has format version 99"),
        ("bytes.jsonl", "bytes.jsonl: line 1: not a text"),
    ] {
        place.run(&["report", file]).with(2).saying(telling);
    }
    place.run(&["report", "-o", "one.json", "a.jsonl", "b.jsonl"]).with(2).saying("--output one.json names one file");
    assert!(place.files(".json").is_empty(), "{:?}", place.files(""));
}

#[test]
fn a_check_tells_the_plan_and_what_does_not_fit() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[("topics", "3")]));
    let checked = place.run(&["check", "w.yaml"]).with(0);
    assert!(checked.stdout.contains("3 topics") && checked.stdout.contains("Nothing was run"), "{}", checked.stdout);
    nothing_began(&place, &checked);

    place.write("big.yaml", workload("big", &[("consumerBacklogSizeGB", "0.5")]));
    for command in ["check", "run"] {
        let ended = place.run(&[command, "--embedded-capacity", "64MiB", "big.yaml"]).with(2);
        let ended = ended.saying("consumerBacklogSizeGB asks for").saying("holds at most 48 MiB of records");
        nothing_began(&place, &ended);
    }
}

/// Both the port where nothing listens, and the one where something listens that never says a word.
#[test]
fn a_broker_that_cannot_be_reached_is_named_in_time() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let mute_port = mute.local_addr().expect("a bound socket has an address").port();
    let mut under_way = Vec::new();
    for (port, command) in [(free_port(), "run"), (mute_port, "run"), (free_port(), "check")] {
        let (driver, address) = (format!("{port}.yaml"), format!("127.0.0.1:{port}"));
        place.write(&driver, kafka_driver(&address, ""));
        under_way.push((address, place.start(&[command, "-d", &driver, "w.yaml"])));
    }
    place.write("name.yaml", kafka_driver("no-such-host.invalid:9092", ""));
    under_way.push(("no-such-host.invalid:9092".to_owned(), place.start(&["run", "-d", "name.yaml", "w.yaml"])));
    let ended: Vec<Ended> = under_way
        .into_iter()
        .map(|(address, omb)| {
            omb.end().with(3).saying(&address).saying("does not answer").within(Duration::from_secs(45))
        })
        .collect();
    ended.iter().for_each(|ended| nothing_began(&place, ended));
}

#[test]
fn a_taken_port_is_named() {
    let place = Place::default();
    let broker = Broker::start(&place);
    let port = broker.address.rsplit(':').next().expect("a port");
    place.run(&["broker", "--port", port]).with(3).saying(&broker.address);
}

/// Of several runs all are tried, and the worst code is returned.
#[test]
fn one_driver_that_cannot_be_reached_does_not_keep_the_other_from_running() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[("warmupDuration", "0s"), ("testDuration", "200ms")]));
    place.write("gone.yaml", kafka_driver(&format!("127.0.0.1:{}", free_port()), ""));
    place.write("here.yaml", "driverClass: embedded\n");
    place.run(&["run", "-d", "gone.yaml,here.yaml", "w.yaml"]).with(3).saying("does not answer");
    assert_eq!(place.only_result().0["driver"], "Embedded");
}
