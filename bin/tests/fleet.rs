//! Fleets as a user runs them: real processes on loopback, and all that can happen to one of them. Every run ends in
//! time, with an exact result or a plainly partial one.

mod support;

use std::time::{Duration, Instant};

use serde_json::Value;
use support::{
    fleet::{Faults, Fleet, Proxy, Worker, certificate, get, lead, nobody_listens},
    omb::{Broker, Ended, Omb, PATIENCE, Place, add_up, agree, complete, kafka_driver, number, workload},
};

/// From what happens to the end of the run: its own bounds add up to 10 s, and the machine is busy.
const SOON: Duration = Duration::from_secs(30);

/// A run so long that it would be noticed if nothing ended it.
const ENDLESS: &[(&str, &str)] = &[("testDuration", "1h"), ("topics", "3")];

/// A place with a workload, and a fleet.
fn fleet(workers: usize, changes: &[(&str, &str)]) -> (Place, Fleet) {
    let place = Place::default();
    place.write("w.yaml", workload("w", changes));
    let fleet = Fleet::start(&place, workers);
    (place, fleet)
}

/// The result of [`lead`] and its record.
#[track_caller]
fn measured(place: &Place) -> (Value, Vec<Value>) {
    (place.result("out.json"), place.record("out.jsonl"))
}

/// Asserts that the result is marked as partial, for a reason that names all these.
#[track_caller]
fn partial(result: &Value, reasons: &[&str]) {
    assert_eq!(result["omb"]["complete"], false);
    let told = result["omb"]["partialReason"].as_str().unwrap_or_default();
    let missing: Vec<_> = reasons.iter().filter(|reason| !told.contains(*reason)).collect();
    assert!(missing.is_empty(), "{missing:?} is not in {told:?}");
}

/// Asserts that these were logged, one after another.
#[track_caller]
fn in_order(text: &str, lines: &[&str]) {
    let mut rest = text;
    for line in lines {
        let Some((_, after)) = rest.split_once(line) else { panic!("{line:?} is not in its place in\n{text}") };
        rest = after;
    }
}

/// The one worker that was lost by its address, and how many seconds after the load's beginning it was last read.
#[track_caller]
fn lost_after(result: &Value) -> (String, f64) {
    let workers = result["omb"]["workers"].as_array().expect("a row for each worker");
    let lost: Vec<&Value> = workers.iter().filter(|worker| !worker["lost"].is_null()).collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    let at = |key: &str| lost[0]["lost"][key].as_f64();
    let after = at("lastReadSeconds").expect("a time");
    assert!(at("detectedSeconds").is_some_and(|detected| detected >= after), "{}", lost[0]["lost"]);
    (lost[0]["address"].as_str().expect("an address").to_owned(), after)
}

/// Waits until something was measured. When a line is printed depends on how busy the machine is.
#[track_caller]
fn under_load(omb: &mut Omb) {
    omb.wait_for_output("s measure ");
    std::thread::sleep(Duration::from_millis(1_500));
}

#[track_caller]
fn ends_soon(omb: Omb, code: i32) -> Ended {
    let asked = Instant::now();
    let ended = omb.end().with(code);
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    ended
}

#[test]
fn ten_topics_over_three_workers_are_dealt_in_turn_and_counted_exactly() {
    let (place, fleet) = fleet(3, &[("topics", "10"), ("producerRate", "10000"), ("testDuration", "3s")]);
    let ended = fleet.lead(&place, &[]).end().with(0);
    in_order(&ended.stdout, &["Placement", "warm-up", "measure"]);
    let shares = ["4,000 4 4 0, 3, 6, 9", "3,000 3 3 1, 4, 7", "3,000 3 3 2, 5, 8"];
    for (worker, share) in fleet.workers.iter().zip(shares) {
        let row = ended.stdout.lines().find(|line| line.contains(&worker.address())).unwrap_or_default();
        let row = row.split_whitespace().skip(2).collect::<Vec<_>>().join(" ");
        assert_eq!(row, share, "{}", ended.stdout);
    }
    in_order(
        &ended.stderr,
        &[
            "INFO - Starting benchmark with config: {",
            "INFO - Ensemble of distributed workers (3 workers)\n",
            "INFO - Creating 10 topics...\n",
            "INFO - Creating consumers distributed across 3 workers...\n",
            "INFO - Creating producers distributed across 3 workers...\n",
            "INFO - Starting load test...\n",
        ],
    );
    let (result, record) = measured(&place);
    complete(&result, &record);
    let acked = number(&result, "/omb/totals/sinceLoadBegan/acked");
    assert!(acked >= 33_000, "whatever was due was sent: {acked}");

    fleet.is_free_within(SOON);
    let counters: Vec<[u64; 3]> = fleet.workers.iter().map(Worker::counters).collect();
    let sum = |which: usize| -> u64 { counters.iter().map(|counters| counters[which]).sum() };
    assert_eq!([sum(0), sum(1), sum(2)], [acked, acked, 0], "sent, received, failed");
    for (index, worker) in fleet.workers.iter().enumerate() {
        let (sent, tenths) = (counters[index][0], [4, 3, 3][index]);
        assert_eq!(result["omb"]["workers"][index]["address"], worker.address().as_str());
        assert!((sent * 10).abs_diff(acked * tenths) < acked / 10, "{sent} of {acked}, where {tenths} tenths are due");
        in_order(
            &worker.process.log(),
            &[
                &format!("INFO - Starting benchmark worker on port {}\n", worker.port),
                &format!("INFO - Running on http://127.0.0.1:{}\n", worker.port),
                &format!("INFO - Creating {tenths} consumers...\n"),
                &format!("INFO - Creating {tenths} producers...\n"),
                "INFO - Starting load...\n",
                "INFO - Stopping load...\n",
            ],
        );
    }
}

/// The members of its subscriptions sit on several workers, so what one confirmed another received.
#[test]
fn one_topic_over_three_workers_is_compared_across_them() {
    let changes = [
        ("partitionsPerTopic", "6"),
        ("producersPerTopic", "3"),
        ("subscriptionsPerTopic", "2"),
        ("consumerPerSubscription", "3"),
    ];
    let (place, fleet) = fleet(3, &changes);
    fleet.lead(&place, &[]).end().with(0);
    let (result, record) = measured(&place);
    complete(&result, &record);
    assert!(result["omb"]["verdict"]["subscriptions"].as_array().is_some_and(|all| {
        all.len() == 2 && all.iter().all(|one| one["byCountOnly"] == false && one["distinct"] == one["confirmed"])
    }));
    for worker in &fleet.workers {
        let [sent, received, failed] = worker.counters();
        assert!(sent > 300 && received > 300 && failed == 0, "each has its part: {sent} {received} {failed}");
    }
}

/// Roles are dealt as upstream does, and the same workers serve one run after another.
#[test]
fn split_workers_produce_or_consume() {
    let (place, fleet) = fleet(6, &[("topics", "6"), ("partitionsPerTopic", "2")]);
    for (flags, producing) in [(&["--topology", "split"][..], 3), (&["-x"], 2)] {
        for file in ["out.json", "out.jsonl"] {
            let _ = std::fs::remove_file(place.path(file));
        }
        fleet.lead(&place, flags).end().with(0);
        let (result, record) = measured(&place);
        complete(&result, &record);
        let counters: Vec<[u64; 3]> = fleet.workers.iter().map(Worker::counters).collect();
        let roles = counters.iter().map(|[sent, received, _]| (*sent > 0, *received > 0));
        assert!(roles.clone().all(|(sends, receives)| sends != receives), "{counters:?}");
        assert_eq!(roles.filter(|(sends, _)| *sends).count(), producing, "{flags:?}: {counters:?}");
    }
}

#[test]
fn a_killed_worker_fails_the_run_and_frees_the_others() {
    let (place, mut fleet) = fleet(3, ENDLESS);
    let mut omb = fleet.lead(&place, &[]);
    under_load(&mut omb);
    let lost = fleet.workers.remove(1);
    lost.process.signal("KILL");
    let ended = ends_soon(omb, 1);
    for told in ["Unable to connect to worker", &lost.address(), "Connection refused"] {
        assert!(ended.stderr.contains(told), "{told:?} is not in {}", ended.stderr);
    }
    let (result, record) = measured(&place);
    partial(&result, &[&lost.address(), "Connection refused"]);
    assert_eq!(lost_after(&result).0, lost.address());
    add_up(&result, &record);
    assert!(number(&result, "/omb/totals/measured/acked") > 500);
    fleet.is_free_within(SOON);
}

#[test]
fn a_run_may_go_on_without_a_worker() {
    let (place, mut fleet) = fleet(3, &[("topics", "3"), ("testDuration", "5s")]);
    let mut omb = fleet.lead(&place, &["--on-worker-loss", "continue"]);
    under_load(&mut omb);
    let lost = fleet.workers.remove(1);
    lost.process.signal("KILL");
    let ended = ends_soon(omb, 1).saying(&format!("worker 2 ({}) was lost", lost.address()));
    let (result, record) = measured(&place);
    add_up(&result, &record);
    let (name, after) = lost_after(&result);
    assert!(name == lost.address() && (0.9..5.5).contains(&after), "{name} after {after} s");
    assert!(ended.stdout.contains(" was last read "), "{}", ended.stdout);
    assert_eq!(result["omb"]["complete"], false, "a part of it is missing from then on");
    assert!(ended.stdout.contains("PARTIAL: worker 2 ("), "{}", ended.stdout);
    let targets: Vec<f64> = record.iter().filter_map(|line| line["frame"]["target_per_second"].as_f64()).collect();
    assert!(targets.contains(&1_000.0) && targets.iter().any(|target| (600.0..700.0).contains(target)), "{targets:?}");
    // What the others counted is in the result to the last message.
    let left: u64 = fleet.workers.iter().map(|worker| worker.counters()[0]).sum();
    let all = number(&result, "/omb/totals/sinceLoadBegan/attempted");
    assert!(all > left && all < left + left, "{left} by those who are left, of {all}");
    fleet.is_free_within(SOON);
}

/// No answer, and no rejected connection either. Once it goes on it finds that its lease has ended.
#[test]
fn a_frozen_worker_is_given_up_and_frees_itself_later() {
    let (place, mut fleet) = fleet(3, ENDLESS);
    let mut omb = fleet.lead(&place, &[]);
    under_load(&mut omb);
    let mut frozen = fleet.workers.remove(2);
    frozen.process.signal("STOP");
    let ended = ends_soon(omb, 1).saying("Timeout waiting for worker response").saying(&frozen.address());
    assert!(ended.stdout.contains("PARTIAL"), "{}", ended.stdout);
    let (result, record) = measured(&place);
    partial(&result, &[&frozen.address()]);
    add_up(&result, &record);
    fleet.is_free_within(SOON);
    frozen.process.signal("CONT");
    frozen.process.wait_for("Nothing was heard from the controller");
    frozen.is_free_within(SOON);
    frozen.is_silent();
}

/// Its clients cannot take their leave: the run ends without them, its worker takes the next one, and they go when the
/// broker is back.
#[test]
fn a_broker_that_stands_still_leaves_workers_that_are_free_soon() {
    let (place, mut fleet) = fleet(1, &[("topics", "3"), ("testDuration", "3s")]);
    let mut omb = fleet.lead(&place, &[]);
    under_load(&mut omb);
    fleet.broker.process.signal("STOP");
    omb.end().with(1);
    // Twice the lease of 3 s, and as long again on a busy machine.
    let worker = &mut fleet.workers[0];
    worker.is_free_within(Duration::from_secs(12));
    worker.process.wait_for("the broker does not answer");
    let left = |worker: &Worker| {
        let (_, metrics) = get(worker.stats_port, "/metrics");
        let count = metrics.lines().find_map(|line| line.strip_prefix("omb_clients_left_behind "));
        count.and_then(|count| count.parse::<u32>().ok()).expect("it is counted")
    };
    assert!(left(worker) > 0, "they wait for the broker");

    let other = Broker::start(&place);
    place.write("k.yaml", kafka_driver(&other.address, ""));
    place.run(&["run", "-d", "k.yaml", "-o", "second.json", "-w", &worker.address(), "w.yaml"]).with(0);
    fleet.broker.process.signal("CONT");
    let until = Instant::now() + SOON;
    while left(&fleet.workers[0]) > 0 {
        assert!(Instant::now() < until, "they go when the broker is back");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// They stop by themselves and keep their counts for as long again, and no other controller gets them before.
#[test]
fn a_killed_controller_leaves_workers_that_free_themselves() {
    let (place, mut fleet) = fleet(2, ENDLESS);
    let mut omb = fleet.lead(&place, &[]);
    under_load(&mut omb);
    omb.signal("KILL");
    assert_eq!(omb.end().code, None, "a signal ended it");
    let second = ["run", "-d", "k.yaml", "-o", "second.json", "-w", &fleet.addresses(), "w.yaml"];
    place.run(&second).with(3).saying("it follows omb (process ").saying("--take-over");
    assert!(!place.path("second.json").exists());

    for worker in &mut fleet.workers {
        worker.process.wait_for("Nothing was heard from the controller");
        let (_, said) = get(worker.port, "/readyz");
        assert!(said.starts_with("busy"), "its counts are kept for whoever comes back: {said}");
    }
    fleet.is_free_within(SOON);
    assert!(fleet.workers.iter().all(|worker| worker.counters()[0] > 500));

    let ended = place.run(&["report", "out.jsonl"]).with(1);
    assert!(ended.stdout.contains("PARTIAL: the record breaks off"), "{}", ended.stdout);
    let result = place.result("out.json");
    partial(&result, &["the record breaks off"]);
    assert!(number(&result, "/omb/totals/measured/acked") > 500);
}

#[test]
fn a_second_controller_may_take_the_workers_over() {
    let (place, fleet) = fleet(2, &[("topics", "3")]);
    place.write("long.yaml", workload("long", ENDLESS));
    let lease = ["--lease", "1m", "-d", "k.yaml", "-w"];
    let addresses = fleet.addresses();
    let mut first =
        place.start(&[&["run", "-o", "long.json", "long.yaml"], &lease[..], &[addresses.as_str()]].concat());
    under_load(&mut first);
    let name = format!("omb (process {}", first.id());
    let second = fleet.lead(&place, &[]).end().with(3);
    assert!(second.stderr.contains(&name) && second.stderr.contains("--take-over"), "{}", second.stderr);
    let taking = fleet.lead(&place, &["--take-over"]);
    let name = format!("it follows omb (process {}", taking.id());
    taking.end().with(0);
    let (result, record) = measured(&place);
    complete(&result, &record);
    // The former controller learns which one has them now.
    ends_soon(first, 1).saying(&name);
    partial(&place.result("long.json"), &[&name]);
}

/// It listens again where it listened, but it is not the one it was.
#[test]
fn a_restarted_worker_fails_the_run() {
    let (place, mut fleet) = fleet(2, ENDLESS);
    let mut omb = fleet.lead(&place, &["--connect-timeout", "20s", "--call-timeout", "20s"]);
    under_load(&mut omb);
    let lost = fleet.workers.remove(1);
    lost.process.signal("KILL");
    let port = lost.port;
    assert_eq!(lost.process.end().code, None);
    fleet.workers.push(Worker::start_at(&place, port, &[]));
    let ended = ends_soon(omb, 1).saying("it knows nothing of run").saying("it was restarted");
    assert!(ended.stdout.contains("PARTIAL"), "{}", ended.stdout);
    let (result, record) = measured(&place);
    partial(&result, &[&fleet.workers[1].address(), "it was restarted"]);
    add_up(&result, &record);
    fleet.is_free_within(SOON);
}

/// Whatever is lost on the way is asked for again and answered as the first time.
#[test]
fn connections_that_break_cost_nothing() {
    let (place, fleet) = fleet(3, &[("topics", "6"), ("testDuration", "4s")]);
    let millis = Duration::from_millis;
    let faults = [
        Faults { seed: 1, delay: millis(30), ..Faults::default() },
        Faults { seed: 2, bytes: 12_000, delay: millis(5), ..Faults::default() },
        Faults { seed: 3, life: millis(400), delay: millis(5), ..Faults::default() },
    ];
    let proxies: Vec<Proxy> =
        fleet.workers.iter().zip(faults).map(|(worker, faults)| Proxy::start(worker.port, faults)).collect();
    let addresses: Vec<String> = proxies.iter().map(Proxy::address).collect();
    let patience = ["--call-timeout", "15s", "--connect-timeout", "5s", "--lease", "15s"];
    let ended = lead(&place, &addresses.join(","), &patience).end().with(0);
    let (result, record) = measured(&place);
    complete(&result, &record);
    let cuts: Vec<u64> = proxies.iter().map(Proxy::cuts).collect();
    assert!(cuts[0] == 0 && cuts[1] > 2 && cuts[2] > 2, "{cuts:?}: {}", ended.stderr);
    assert!(number(&result, "/omb/totals/sinceLoadBegan/acked") >= 4_300);
    fleet.is_free_within(SOON);
}

#[test]
fn a_connection_that_is_cut_for_good_fails_the_run() {
    let (place, fleet) = fleet(2, ENDLESS);
    let proxy = Proxy::start(fleet.workers[1].port, Faults::default());
    let mut omb = lead(&place, &format!("{},{}", fleet.workers[0].address(), proxy.address()), &[]);
    under_load(&mut omb);
    proxy.cut_for_good();
    ends_soon(omb, 1).saying(&proxy.address());
    let (result, record) = measured(&place);
    partial(&result, &[&proxy.address()]);
    add_up(&result, &record);
    // No message could end its run, so its lease does.
    fleet.is_free_within(SOON);
    assert!(fleet.workers[1].process.log().contains("Nothing was heard from the controller"));
    assert!(!fleet.workers[0].process.log().contains("Nothing was heard from the controller"));
}

#[test]
fn a_worker_that_is_shut_down_drains_first() {
    let (place, mut fleet) = fleet(2, ENDLESS);
    let mut omb = fleet.lead(&place, &[]);
    under_load(&mut omb);
    let worker = fleet.workers.remove(0);
    worker.process.signal("TERM");
    let address = worker.address();
    let asked = Instant::now();
    let log = worker.process.end().with(0).stderr;
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    in_order(&log, &["Starting load...", "Shutting down", "Stopping load...", "Closing the run...", "Shut down"]);
    assert!(!log.contains("no delivery report"), "what was sent was waited for: {log}");
    let ended = ends_soon(omb, 1).saying(&format!("({address}): this worker is being shut down"));
    assert!(!ended.stderr.contains("Connection refused"), "it said why before it went: {}", ended.stderr);
    let (result, record) = measured(&place);
    partial(&result, &[&address]);
    add_up(&result, &record);
    fleet.is_free_within(SOON);
}

#[test]
fn an_interrupt_of_the_controller_frees_the_workers() {
    let (place, fleet) = fleet(2, ENDLESS);
    let mut omb = fleet.lead(&place, &[]);
    under_load(&mut omb);
    omb.signal("INT");
    let ended = ends_soon(omb, 130);
    assert!(ended.stdout.contains("PARTIAL: interrupted by the user"), "{}", ended.stdout);
    let (result, record) = measured(&place);
    partial(&result, &["interrupted by the user"]);
    agree(&result, &record);
    assert!(number(&result, "/omb/totals/measured/acked") > 500);
    fleet.is_free_within(Duration::from_secs(2));
    let logs: Vec<String> = fleet.workers.iter().map(|worker| worker.process.log()).collect();
    assert!(logs.iter().all(|log| log.contains("is closed; ready for the next one")), "{logs:?}");
    for worker in fleet.workers {
        let port = worker.port;
        worker.process.signal("INT");
        worker.process.end().with(0).within(PATIENCE);
        assert!(nobody_listens(port));
    }
}

#[test]
fn a_fleet_speaks_https_with_a_token() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[("topics", "2")]));
    certificate(&place, "ours");
    place.write("token", "a-long-secret\n");
    let secured = ["--tls-cert", "ours.pem", "--tls-key", "ours.key", "--token-file", "token"];
    let broker = Broker::start(&place);
    place.write("k.yaml", kafka_driver(&broker.address, ""));
    let workers = [Worker::start(&place, &secured), Worker::start(&place, &secured)];
    assert!(workers.iter().all(|worker| worker.address().starts_with("https://")));
    let addresses = workers.each_ref().map(Worker::address).join(",");
    lead(&place, &addresses, &["--ca", "ours.pem", "--token-file", "token"]).end().with(0);
    let (result, record) = measured(&place);
    complete(&result, &record);
    assert!(!std::fs::read_to_string(place.path("out.json")).expect("the result").contains("a-long-secret"));
}
