//! Runs that end otherwise than planned: interrupted, their broker killed, their disk full. They end, and keep what
//! they measured.

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::omb::{Broker, PATIENCE, Place, agree, json, kafka_driver, number, workload};

/// From a signal to the end of the process, on a machine with every core busy.
const SOON: Duration = Duration::from_secs(20);

/// A run so long that it would be noticed if nothing ended it.
fn long() -> String {
    workload("long", &[("testDuration", "1h")])
}

fn partial(result: &Value, reason: &str) {
    let omb = &result["omb"];
    assert_eq!(omb["complete"], false);
    assert!(omb["partialReason"].as_str().is_some_and(|text| text.contains(reason)), "{}", omb["partialReason"]);
}

#[test]
fn an_interrupt_ends_the_measurement_and_keeps_it() {
    let place = Place::default();
    place.write("long.yaml", long());
    let runs = ["INT", "TERM", "HUP", "QUIT"].map(|signal| {
        // As `nohup` leaves them: only what asks to end is heard.
        let ignored = if signal == "INT" { "trap '' HUP QUIT;" } else { "" };
        (signal, place.start_by_shell(&format!("{ignored} exec \"$OMB\" run -o {signal}.json long.yaml")))
    });
    for (signal, mut omb) in runs {
        // The second line of the measurement.
        omb.wait_for_output("2.0s measure");
        if signal == "INT" {
            omb.signal("HUP");
            omb.signal("QUIT");
            omb.wait_for_output("3.0s measure");
        }
        let asked = Instant::now();
        omb.signal(signal);
        let ended = omb.end().with(130).saying("Interrupted");
        assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
        assert!(ended.stdout.contains("PARTIAL: interrupted by the user"), "{}", ended.stdout);
        let (result, record) = (place.result(&format!("{signal}.json")), place.record(&format!("{signal}.jsonl")));
        partial(&result, "interrupted by the user");
        agree(&result, &record);
        assert!(number(&result, "/omb/totals/measured/acked") > 500);
        assert!(number(&result, "/omb/totals/sinceLoadBegan/received") > 500);
    }
}

#[test]
fn a_second_interrupt_leaves_at_once() {
    let place = Place::default();
    place.write("long.yaml", long());
    let broker = Broker::start(&place);
    place.write("k.yaml", kafka_driver(&broker.address, ""));
    let mut omb = place.start(&["run", "-d", "k.yaml", "long.yaml"]);
    omb.wait_for_output("1.0s measure");
    // With a frozen broker, the stop takes its whole bound.
    broker.process.signal("STOP");
    omb.signal("INT");
    omb.wait_for("once more leaves at once");
    let asked = Instant::now();
    omb.signal("INT");
    omb.end().with(130);
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert!(place.files(".jsonl").len() == 1, "the record holds what was measured: {:?}", place.files(""));
}

/// The controller dies without a word, and the record says what was measured until then.
#[test]
fn a_killed_run_can_be_reported() {
    let place = Place::default();
    place.write("long.yaml", long());
    let mut omb = place.start(&["run", "-o", "out.json", "long.yaml"]);
    omb.wait_for_output("2.0s measure");
    omb.signal("KILL");
    assert_eq!(omb.end().code, None, "a signal ended it");
    assert!(!place.path("out.json").exists());
    let ended = place.run(&["report", "out.jsonl"]).with(1);
    assert!(ended.stdout.contains("PARTIAL: the record breaks off"), "{}", ended.stdout);
    assert!(
        ended.stdout.contains("EMBEDDED BROKER") && ended.stdout.contains("Written to out.json"),
        "{}",
        ended.stdout
    );
    let result = place.result("out.json");
    partial(&result, "the record breaks off");
    assert_eq!((&result["workload"], &result["omb"]["embedded"]), (&"long".into(), &true.into()));
    assert!(number(&result, "/omb/totals/measured/acked") > 500);

    // Torn within the last line, or broken in the middle.
    let record = std::fs::read_to_string(place.path("out.jsonl")).expect("the record is there");
    place.write("torn.jsonl", &record[..record.trim_end().len() - 20]);
    let ended = place.run(&["report", "-o", "mine.json", "torn.jsonl"]).with(1);
    assert!(ended.stdout.contains("in the middle of a line"), "{}", ended.stdout);
    partial(&place.result("mine.json"), "in the middle of a line");
    place.write("broken.jsonl", record.replacen("\"kind\":\"period\"", "\"kind\":\"pause\"", 1));
    place.run(&["report", "broken.jsonl"]).with(2).saying("broken.jsonl: line 2:");
    assert!(!place.path("broken.json").exists());
}

/// Before the load there is nothing to keep: no result, no file, and a broker that never answers delays nothing.
#[test]
fn an_interrupt_during_the_setup_leaves_nothing() {
    let place = Place::default();
    place.write("long.yaml", long());
    let broker = Broker::start(&place);
    place.write("k.yaml", kafka_driver(&broker.address, ""));
    broker.process.signal("STOP");
    let mut omb = place.start(&["run", "-d", "k.yaml", "long.yaml"]);
    omb.wait_for("Starting benchmark");
    let asked = Instant::now();
    omb.signal("INT");
    omb.end().with(130).saying("there is no result");
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    assert!(place.files(".json").is_empty() && place.files(".jsonl").is_empty(), "{:?}", place.files(""));
}

/// Each signal, while the run is set up and after: it ends soon, with a partial result where the load had begun, and
/// leaves no topics behind.
#[test]
fn a_signal_in_any_phase_leaves_nothing_behind() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[("topics", "30"), ("testDuration", "1h")]));
    let mut broker = Broker::start(&place);
    place.write("k.yaml", kafka_driver(&broker.address, ""));
    let table = [
        ("Starting benchmark", "HUP"),
        ("Creating 30 topics...", "QUIT"),
        ("Creating 30 consumers...", "TERM"),
        ("Creating 30 producers...", "HUP"),
        ("Starting load test...", "INT"),
        ("Starting load test...", "QUIT"),
    ];
    for (number, (cue, signal)) in table.into_iter().enumerate() {
        let result = format!("{number}.json");
        let mut omb = place.start(&["run", "-d", "k.yaml", "-o", &result, "w.yaml"]);
        omb.wait_for(cue);
        let asked = Instant::now();
        omb.signal(signal);
        let ended = omb.end().with(130).saying("Interrupted");
        assert!(asked.elapsed() < SOON, "{signal} at {cue}: {:?}", asked.elapsed());
        assert!(!ended.stderr.contains("while cleaning up"), "{signal} at {cue}: {}", ended.stderr);
        if place.path(&result).exists() {
            partial(&place.result(&result), "interrupted by the user");
        } else {
            assert!(ended.stderr.contains("there is no result"), "{signal} at {cue}: {}", ended.stderr);
        }
    }
    broker.process.signal("HUP");
    let said = broker.process.wait_for("in memory");
    assert!(said.contains(" of 0 topics in memory"), "{said}");
    broker.process.end().with(0);
}

/// What is interrupted is not followed by the next run.
#[test]
fn an_interrupt_ends_all_runs() {
    let place = Place::default();
    place.write("long.yaml", long());
    let mut omb = place.start(&["run", "long.yaml", "long.yaml"]);
    omb.wait_for_output("1.0s measure");
    omb.signal("INT");
    omb.end().with(130);
    assert_eq!(place.files(".json").len(), 1);
}

/// The broker dies under load. The run goes to its end, says what was not delivered, and keeps what it measured.
#[test]
fn a_broker_that_dies_costs_the_run_and_not_its_result() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[("testDuration", "6s")]));
    let broker = Broker::start(&place);
    // Messages are given up after 2 s instead of 5 min.
    let driver = kafka_driver(&broker.address, "").replace("acks=all", "acks=all\n  message.timeout.ms=2000");
    place.write("k.yaml", driver);
    let mut omb = place.start(&["run", "-d", "k.yaml", "w.yaml"]);
    omb.wait_for_output("2.0s measure");
    broker.process.signal("KILL");
    let ended = omb.end();
    println!("after {:?}: {:?}\n{}\n{}", ended.took, ended.code, ended.stdout, ended.stderr);
    assert_eq!(ended.code, Some(1), "its load had begun");
    assert!(ended.took < PATIENCE);
    let (result, record) = place.only_result();
    agree(&result, &record);
    let totals = &result["omb"]["totals"]["sinceLoadBegan"];
    assert!(number(totals, "/acked") > 1_000 && number(totals, "/failed") > 500, "{totals}");
    assert!(ended.stderr.contains("messages were given up"), "{}", ended.stderr);
    // If most of it was not delivered, it is no whole result.
    let most = number(totals, "/failed") + number(totals, "/skipped") > number(totals, "/acked");
    assert_eq!(result["omb"]["complete"], !most, "{totals}");
    // The outage is one line: since when, to the end of the load, and what the client reported first. It counts from
    // the last acknowledgement, which on a busy machine came a while before the line that the broker was killed at.
    let outage = &result["omb"]["outages"][0];
    let from = outage["fromSeconds"].as_f64().unwrap_or_default();
    assert!((1.5..5.3).contains(&from) && outage["cause"].is_string(), "{outage}");
    assert_eq!(outage.get("untilSeconds"), None, "{outage}");
    let line = format!("No message was acknowledged from {from:.1} s to the end of the load (since the load began)");
    assert!(result["omb"]["notes"].to_string().contains(&line), "{line}: {}", result["omb"]["notes"]);
    assert!(result["omb"]["problems"].to_string().contains("Connection refused"), "{}", result["omb"]["problems"]);
    broker.process.end();
}

/// A disk that is full while the periods are written: here by a limit on the size of each file. The result is whole, in
/// the folder for temporary files or, where that is full too, on stdout.
#[test]
fn a_full_disk_loses_nothing() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    std::fs::create_dir(place.path("tmp")).expect("a folder can be made");
    // Blocks of 512 bytes: the record has room for its header and a period or so, the result has none.
    let omb = place.start_by_shell("ulimit -f 20; TMPDIR=tmp exec \"$OMB\" run -o out.json w.yaml");
    let ended = omb.end().with(1).saying("out.jsonl").saying("out.json: File too large");
    assert!(!place.path("out.json").exists(), "half a result is none");
    assert!(ended.stdout.contains("Written to out.jsonl, which lacks its last "), "{}", ended.stdout);
    let from = ended.stdout.find("\n{\n").expect("the result is on stdout");
    let mut values = serde_json::Deserializer::from_str(&ended.stdout[from..]).into_iter::<Value>();
    let result = values.next().expect("a value").expect("of JSON");
    assert_eq!((&result["workload"], &result["omb"]["complete"]), (&"w".into(), &true.into()));
    assert!(number(&result, "/omb/totals/measured/acked") > 500);
}

/// The folder of the result goes away during the run.
#[test]
fn a_folder_that_vanishes_loses_nothing() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    for folder in ["out", "tmp"] {
        std::fs::create_dir(place.path(folder)).expect("a folder can be made");
    }
    let mut omb = place.start_by_shell("TMPDIR=tmp exec \"$OMB\" run -o out/out.json w.yaml");
    omb.wait_for("Starting load test...");
    std::fs::remove_dir_all(place.path("out")).expect("the folder can be removed");
    let ended = omb.end().with(1).saying("tmp/out.json instead");
    assert!(ended.stdout.contains("Written to tmp/out.json"), "{}", ended.stdout);
    let result = json(&place.path("tmp/out.json"));
    assert!(number(&result, "/omb/totals/measured/acked") > 500);
}
