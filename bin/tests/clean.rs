//! What runs leave on a cluster: nothing, unless they die; then `omb clean` distinguishes it from what is in use, and
//! deletes it.

mod support;

use support::omb::{Broker, Place, kafka_driver, workload};

#[test]
fn a_run_leaves_nothing_and_a_dead_one_is_cleaned_up() {
    let place = Place::default();
    let broker = Broker::start(&place);
    place.write(
        "kafka.yaml",
        kafka_driver(&broker.address, "  session.timeout.ms=6000\n  heartbeat.interval.ms=1000\n"),
    );
    let clean = |more: &[&str]| place.run(&[&["clean", "-d", "kafka.yaml"], more].concat());

    place.write("sound.yaml", workload("sound", &[("topics", "2"), ("subscriptionsPerTopic", "2")]));
    place.run(&["run", "-d", "kafka.yaml", "sound.yaml"]).with(0);
    assert!(clean(&["--older-than", "100ms"]).with(0).stdout.contains("no run has left anything"));

    // In use: its groups have members, however old it is.
    place.write("long.yaml", workload("long", &[("testDuration", "5m")]));
    let mut dying = place.start(&["run", "-d", "kafka.yaml", "long.yaml"]);
    dying.wait_for("Starting load test");
    let ended = clean(&["--older-than", "100ms"]).with(0);
    assert!(ended.stdout.contains("1 topic, 1 group: left alone, its groups have"), "{}", ended.stdout);

    // Dead. The broker keeps its members until their sessions end, so that a moment later they may still count.
    dying.signal("KILL");
    dying.end();
    let run = place
        .files(".jsonl")
        .iter()
        .map(|name| place.record(name))
        .find(|lines| lines[0]["workload"]["name"] == "long");
    let run = run.expect("its record")[0]["run"].as_str().expect("its id").to_owned();
    let mut waited = 0;
    while clean(&["--dry-run", "--older-than", "100ms"]).with(0).stdout.contains("left alone") {
        waited += 1;
        assert!(waited < 60, "sessions end after 6 s");
    }
    let young = clean(&[]).with(0);
    assert!(young.stdout.contains("and may still be setting up"), "{}", young.stdout);
    let other = clean(&["--older-than", "100ms", "--run", "00000000000000ff"]).with(0);
    assert!(other.stdout.contains("there is nothing of run 00000000000000ff"), "{}", other.stdout);
    let would = clean(&["--older-than", "100ms", "--dry-run"]).with(0);
    assert!(would.stdout.contains(&format!("run {run} of 20")), "{}", would.stdout);
    assert!(would.stdout.contains("1 topic, 1 group: would be deleted"), "{}", would.stdout);
    let did = clean(&["--older-than", "100ms", "--run", &run]).with(0);
    assert!(did.stdout.contains("1 topic, 1 group: deleted"), "{}", did.stdout);
    assert!(clean(&[]).with(0).stdout.contains("no run has left anything"));
}

#[test]
fn what_cannot_be_cleaned_is_said() {
    let place = Place::default();
    place.run(&["clean"]).with(2).saying("--drivers");
    place.run(&["clean", "-d", "missing.yaml"]).with(2).saying("missing.yaml");
    place.write("kafka.yaml", kafka_driver("127.0.0.1:1", ""));
    place.run(&["clean", "-d", "kafka.yaml", "--run", "12"]).with(2).saying("16 hexadecimal digits");
    place.run(&["clean", "-d", "kafka.yaml"]).with(3).saying("127.0.0.1:1");
}
