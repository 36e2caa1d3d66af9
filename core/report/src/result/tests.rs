use std::time::Duration;

use proptest::prelude::*;

use serde_json::{Value, json};

use super::{
    upstream::{WINDOW, Windows, publish},
    *,
};
use crate::{fixture, histogram};
use omb_bench::{
    config::workload,
    id::WorkerId,
    result::{Lost, Phase, Report},
    stats::tally::Totals,
};
use omb_machine::config::Leniency;

fn result(report: &Report, context: &Context) -> Value {
    serde_json::to_value(RunResult::of(report, context)).expect("JSON")
}

/// What is permitted under one of upstream's keys.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Int,
    Float,
    Ints,
    Floats,
    FloatMap,
    IntMap,
}

impl Kind {
    fn fits(self, value: &Value) -> bool {
        let all =
            |fits: fn(&Value) -> bool| value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(fits));
        let map = |fits: fn(&Value) -> bool| value.as_object().is_some_and(|map| map.values().all(fits));
        match self {
            Self::Text => value.is_string(),
            Self::Int => value.is_u64(),
            Self::Float => value.is_f64(),
            Self::Ints => all(Value::is_u64),
            Self::Floats => all(Value::is_f64),
            Self::FloatMap => map(Value::is_f64),
            Self::IntMap => map(Value::is_u64),
        }
    }
}

/// Every key of upstream's result, in its order.
fn upstreams_keys() -> Vec<(String, Kind)> {
    use Kind::*;
    let mut keys: Vec<(String, Kind)> = [
        ("workload", Text),
        ("driver", Text),
        ("messageSize", Int),
        ("topics", Int),
        ("partitions", Int),
        ("producersPerTopic", Int),
        ("consumersPerTopic", Int),
        ("publishRate", Floats),
        ("publishErrorRate", Floats),
        ("consumeRate", Floats),
        ("backlog", Ints),
    ]
    .map(|(key, kind)| (key.to_owned(), kind))
    .into();
    let mut figures = |prefix: &str, mean: Kind, value: Kind| {
        for figure in ["Avg", "50pct", "75pct", "95pct", "99pct", "999pct", "9999pct", "Max"] {
            keys.push((format!("{prefix}{figure}"), if figure == "Avg" { mean } else { value }));
        }
    };
    figures("publishLatency", Floats, Floats);
    figures("publishDelayLatency", Floats, Ints);
    figures("aggregatedPublishLatency", Float, Float);
    figures("aggregatedPublishDelayLatency", Float, Int);
    keys.push(("aggregatedPublishLatencyQuantiles".to_owned(), FloatMap));
    keys.push(("aggregatedPublishDelayLatencyQuantiles".to_owned(), IntMap));
    let mut figures = |prefix: &str, kind: Kind| {
        for figure in ["Avg", "50pct", "75pct", "95pct", "99pct", "999pct", "9999pct", "Max"] {
            keys.push((format!("{prefix}{figure}"), kind));
        }
    };
    figures("endToEndLatency", Floats);
    keys.push(("aggregatedEndToEndLatencyQuantiles".to_owned(), FloatMap));
    let mut figures = |prefix: &str, kind: Kind| {
        for figure in ["Avg", "50pct", "75pct", "95pct", "99pct", "999pct", "9999pct", "Max"] {
            keys.push((format!("{prefix}{figure}"), kind));
        }
    };
    figures("aggregatedEndToEndLatency", Float);
    keys
}

#[track_caller]
fn holds_no_null(value: &Value, at: &str) {
    match value {
        Value::Null => panic!("null at {at}"),
        Value::Array(list) => list.iter().for_each(|value| holds_no_null(value, at)),
        Value::Object(map) => map.iter().for_each(|(key, value)| holds_no_null(value, &format!("{at}.{key}"))),
        _ => {}
    }
}

#[track_caller]
fn fits_upstream(value: &Value) {
    let map = value.as_object().expect("an object");
    let ours: Vec<&str> = map.keys().map(String::as_str).filter(|key| *key != "omb").collect();
    let keys = upstreams_keys();
    assert_eq!(ours, keys.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>());
    for (key, kind) in &keys {
        assert!(kind.fits(&map[key]), "{key} is no {kind:?}: {}", map[key]);
    }
    let lengths: Vec<usize> = map.values().filter_map(Value::as_array).map(Vec::len).collect();
    assert!(lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
}

#[test]
fn upstreams_keys_are_all_there_with_their_types() {
    let value = result(&fixture::report(), &fixture::context());
    fits_upstream(&value);
    holds_no_null(&value, "");
    // 24 s: two windows of 10 s, and a rest of 4 s that joins the second.
    assert_eq!(value["publishRate"].as_array().map(Vec::len), Some(2));
    assert_eq!((&value["publishRate"][1], &value["consumeRate"][0]), (&json!(1_000.0), &json!(2_000.0)));
    assert_eq!(value["consumersPerTopic"], json!(1), "consumers per subscription, as upstream says it");
}

#[test]
fn a_run_that_measured_nothing_still_makes_a_valid_result() {
    let mut report = fixture::of(Vec::new(), Totals::default());
    report.partial = Some("interrupted by the user".to_owned());
    let value = result(&report, &fixture::context());
    fits_upstream(&value);
    holds_no_null(&value, "");
    assert_eq!(value["publishRate"], json!([0.0]));
    assert_eq!(value["omb"]["partialReason"], "interrupted by the user");
}

#[test]
fn upstreams_format_has_nothing_of_ours() {
    let text = RunResult::of(&fixture::report(), &fixture::context()).to_json(ResultFormat::Upstream);
    let value: Value = serde_json::from_str(&text).expect("JSON");
    fits_upstream(&value);
    assert_eq!((value.get("omb"), text.ends_with("}\n")), (None, true));
    assert_eq!(RunResult::parse(&text), Err(UnreadableResult::UpstreamOnly));
}

#[test]
fn ours_is_complete_and_keeps_secrets() {
    let report = fixture::report();
    let value = result(&report, &fixture::context());
    let ours = value["omb"].as_object().expect("an object");
    let want = [
        "schemaVersion",
        "tool",
        "host",
        "run",
        "seed",
        "started",
        "loadStarted",
        "ended",
        "complete",
        "system",
        "embedded",
        "workload",
        "driver",
        "plan",
        "acknowledgedMeans",
        "verdict",
        "notes",
        "rates",
        "client",
        "problems",
        "totals",
        "phases",
        "series",
        "histograms",
    ];
    assert_eq!(ours.keys().collect::<Vec<_>>(), want);
    assert_eq!(
        (&ours["started"], &ours["ended"]),
        (&json!("2026-01-04T12:30:00.000Z"), &json!("2026-01-04T12:30:26.000Z"))
    );
    assert!(!value.to_string().contains("hunter2"));
    assert_eq!(ours["series"]["throttledSeconds"].as_array().map(Vec::len), Some(26));
    let again = workload::parse("w.json", &ours["workload"].to_string(), Leniency::Strict).expect("well-formed");
    assert_eq!(again.value, report.plan.workload, "what is shown can be run again");
    let text = ours["histograms"]["publishFromIntended"]["data"].as_str().expect("text");
    let back = histogram::decode(text, 0).expect("our own");
    assert_eq!(back, report.answered().acknowledgements.from_intended);
}

#[test]
fn a_fleet_tells_of_each_worker() {
    let mut report = fixture::fleet();
    report.workers[1].clock = None;
    report.workers[1].lost = Some(Lost {
        worker: WorkerId(1),
        read: Some(Duration::from_secs(11)),
        detected: Duration::from_millis(12_500),
        cause: "it fell silent".to_owned(),
    });
    report.verdict.unverified = 2;
    report.clock_error = Some(Duration::from_micros(250));
    let value = result(&report, &fixture::context());
    fits_upstream(&value);
    holds_no_null(&value, "");
    let ours = &value["omb"];
    assert_eq!(
        ours["workers"][0],
        json!({
            "worker": 1, "address": "http://10.0.0.1:8080", "producers": 5, "consumers": 2,
            "measuredSeconds": 24.0, "targetPerSecond": 500.0, "sentPerSecond": 500.0, "sentShareOfTarget": 1.0,
            "ackedPerSecond": 500.0, "ackedBytesPerSecond": 512_000.0,
            "receivedPerSecond": 1_000.0, "receivedBytesPerSecond": 1_024_000.0,
            "attempted": 12_000, "acked": 12_000, "ackedBytes": 12_288_000,
            "received": 24_000, "receivedBytes": 24_576_000,
            "cpuSeconds": 0.6, "coresUsed": 0.6 / 24.0, "cores": 4,
            "memoryBytes": 45_000_000, "memoryBytesMax": 47_000_000,
            "networkReceivedBytesPerSecond": 1_025_000.0, "networkSentBytesPerSecond": 12_400_000.0 / 24.0,
            "scheduleError": { "p50Ns": 15_000, "p99Ns": 24_800, "maxNs": 25_000 }, "scheduleLagNs": 20_000,
            "clock": { "errorNs": 120_000, "driftPpm": 3.125, "driftErrorPpm": 0.25, "contradictions": 50 },
        })
    );
    assert_eq!(
        ours["workers"][1]["lost"],
        json!({ "lastReadSeconds": 11.0, "detectedSeconds": 12.5, "cause": "it fell silent" })
    );
    assert_eq!(ours["clocks"]["endToEndErrorNs"], 250_000);
    let verdict = &ours["verdict"];
    assert_eq!((&verdict["outcome"], &verdict["subscriptionsUnverified"]), (&json!("partly checked"), &json!(2)));
    assert_eq!((&verdict["limit"], &verdict["limitWorkers"]), (&json!("neither"), &json!([])));
    assert!(verdict["limitReason"].as_str().is_some_and(|reason| reason.contains("1,000 of 1,000 msg/s")));
    let placement = &ours["plan"]["placement"];
    assert_eq!(
        placement[1],
        json!({ "worker": 2, "topics": 1, "producers": 5, "consumers": 2, "targetPerSecond": 500.0 })
    );
    assert_eq!(result(&fixture::report(), &fixture::context())["omb"].get("workers"), None, "one process is no fleet");
    assert_eq!(PlanSummary::of(&fixture::report().plan).producer_clients, None, "each has its own");
    let shared = workload::Workload { topics: 40, ..fixture::workload() };
    assert_eq!(PlanSummary::of(&fixture::plan(shared)).producer_clients, Some(20));
}

#[test]
fn the_tail_counts_in_latencies_and_not_in_rates() {
    let mut tail = Totals::default();
    tail.acknowledgements.acked = 1;
    tail.acknowledgements.from_sent.record(7_000_000_000);
    let period = fixture::period(Phase::Measure, 0, fixture::totals(100, 1));
    let value = result(&fixture::of(vec![period], tail), &fixture::context());
    assert_eq!(value["publishRate"], json!([100.0]));
    assert!(value["publishLatencyMax"][0].as_f64().is_some_and(|max| max > 6_990.0));
    assert_eq!(value["publishLatencyMax"][0], value["aggregatedPublishLatencyMax"]);
}

/// Of a fleet.
const EARLIER: &str = include_str!("../testdata/result-2026-11-30.json");

/// Every result that a test makes, and those that earlier versions made from their fixtures.
fn files() -> Vec<(&'static str, String)> {
    let now = |report: &Report| RunResult::of(report, &fixture::context()).to_json(ResultFormat::Omb);
    let mut lost = fixture::fleet();
    lost.workers[1].lost = Some(Lost { worker: WorkerId(1), cause: "it fell silent".to_owned(), ..Lost::default() });
    vec![
        ("one process", now(&fixture::report())),
        ("a fleet", now(&fixture::fleet())),
        ("a lost worker", now(&lost)),
        ("nothing measured", now(&fixture::of(Vec::new(), Totals::default()))),
        ("every figure different", now(&crate::figures::report())),
        ("2026-11-21", include_str!("../testdata/result-2026-11-21.json").to_owned()),
        ("2026-11-30", EARLIER.to_owned()),
    ]
}

#[test]
fn the_schema_in_the_repository_is_that_of_the_structs() {
    let written = include_str!("../../../../docs/result.schema.json");
    assert!(schema() == written, "docs/result.schema.json is out of date: run `make schema`");
}

#[test]
fn results_of_this_and_of_earlier_versions_fit_the_schema() {
    let schema: Value = serde_json::from_str(&schema()).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    for (name, text) in files() {
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let errors: Vec<_> =
            validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{name}: {errors:?}");
        for (pointer, wrong) in [
            ("/publishRate", json!("fast")),
            ("/omb/verdict/outcome", json!("fine")),
            ("/omb/totals/measured/acked", json!(-1)),
            ("/omb/rates", json!({})),
        ] {
            let mut value = value.clone();
            *value.pointer_mut(pointer).expect("it is there") = wrong;
            assert!(!validator.is_valid(&value), "{name}: {pointer} is not looked at");
        }
    }
}

/// What is read back equals what was written, and looks like what the run showed.
#[test]
fn a_result_reads_back_as_it_was() {
    for report in
        [fixture::report(), fixture::fleet(), crate::figures::report(), fixture::of(vec![], Totals::default())]
    {
        let result = RunResult::of(&report, &fixture::context());
        let text = result.to_json(ResultFormat::Omb);
        let again = RunResult::parse(&text).expect("our own");
        assert_eq!(again, result);
        assert_eq!(crate::table::result(&again, &[], 100), crate::table::result(&result, &[], 100));
        assert_eq!(again.to_json(ResultFormat::Omb), text);
    }
}

/// An earlier result shows the figures that its record shows; the wording may have improved since.
#[test]
fn earlier_results_are_shown_with_the_figures_of_their_records() {
    for (result, record) in [
        (include_str!("../testdata/result-2026-11-21.json"), include_str!("../testdata/record-2026-11-21.jsonl")),
        (EARLIER, include_str!("../testdata/record-2026-11-30.jsonl")),
    ] {
        let result = RunResult::parse(result).expect("an earlier version's");
        let recording = crate::record::parse(record).expect("an earlier version's");
        let context = recording.context();
        let again = RunResult::of(&recording.into_report(), &context);
        let figures = |result: &RunResult| {
            let text = crate::table::result(result, &[], 200);
            let at = text.find("  Rates, over").expect("a table");
            text[at..].to_owned()
        };
        assert_eq!(figures(&result), figures(&again));
        assert_eq!(result.omb.histograms, again.omb.histograms);
        assert_eq!(result.upstream, again.upstream);
        assert!(result.is_sound());
    }
}

#[test]
fn what_is_no_result_is_refused_by_what_it_is() {
    let mut newer: Value = serde_json::from_str(&files()[0].1).expect("JSON");
    newer["omb"]["schemaVersion"] = json!(2);
    newer["omb"]["verdict"] = json!("a new type");
    assert_eq!(RunResult::parse(&newer.to_string()), Err(UnreadableResult::OtherVersion { found: 2 }));
    newer["omb"]["schemaVersion"] = json!(0);
    assert_eq!(RunResult::parse(&newer.to_string()), Err(UnreadableResult::OtherVersion { found: 0 }));
    newer["omb"]["schemaVersion"] = json!(1);
    for (text, why) in [
        (newer.to_string(), "a new type"),
        ("{}".to_owned(), "missing field `workload`"),
        ("[]".to_owned(), "not a result file"),
        (String::new(), "not a result file"),
        ("{\"omb\": {}}".to_owned(), "schemaVersion"),
    ] {
        let refused = RunResult::parse(&text).expect_err("no result").to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

/// The paths of all numbers below `value`.
fn numbers(value: &Value, at: &str, found: &mut Vec<String>) {
    match value {
        Value::Number(_) => found.push(at.to_owned()),
        Value::Array(list) => (0..).zip(list).for_each(|(n, value)| numbers(value, &format!("{at}/{n}"), found)),
        Value::Object(map) => map.iter().for_each(|(key, value)| numbers(value, &format!("{at}/{key}"), found)),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// Numbers that no run can have made are rejected or shown; nothing worse happens.
    #[test]
    fn absurd_numbers_are_shown_or_refused(at in any::<prop::sample::Index>(), which in 0..6_usize) {
        let mut value: Value = serde_json::from_str(EARLIER).expect("JSON");
        let mut places = Vec::new();
        numbers(&value, "", &mut places);
        // Series and quantiles are not shown.
        places.retain(|place| !place.contains("/series/") && !place.contains("Quantiles/"));
        let absurd = [json!(0), json!(u64::MAX), json!(-1), json!(1e308), json!(-1e308), json!(4e-320)];
        *value.pointer_mut(&places[at.index(places.len())]).expect("it is there") = absurd[which].clone();
        if let Ok(result) = RunResult::parse(&value.to_string()) {
            prop_assert!(crate::table::result(&result, &[], 100).contains("Rates, over"));
        }
    }

    /// Whatever is cut off or replaced, nothing panics.
    #[test]
    fn any_text_is_read_or_refused(cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = EARLIER.to_owned().into_bytes();
        let at = cut.index(bytes.len());
        bytes[at] = byte;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _ = RunResult::parse(&text);
        prop_assert!(RunResult::parse(&String::from_utf8_lossy(&bytes[..at])).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// The series' sums are the totals, all arrays are of the same length, upstream's windows hold the measured counts.
    #[test]
    fn series_add_up(counts in prop::collection::vec((0..3_usize, 0..40_u64), 0..40), after in 0..10_u64) {
        let mut phases: Vec<_> = counts.iter().map(|(phase, _)| *phase).collect();
        phases.sort_unstable();
        let phase_of = [Phase::WarmUp, Phase::FillBacklog, Phase::Measure];
        let periods = phases.iter().zip(&counts).zip(0..).map(|((phase, (_, count)), n)| {
            fixture::period(phase_of[*phase], n, fixture::totals(*count, n))
        });
        let report = fixture::of(periods.collect(), fixture::totals(after, 0));
        let value = result(&report, &fixture::context());
        fits_upstream(&value);
        holds_no_null(&value, "");
        let ours = &value["omb"];
        let series = ours["series"].as_object().expect("an object");
        for (key, value) in series {
            let arrays: Vec<&Value> = value.as_object().map_or(vec![value], |map| map.values().collect());
            for array in arrays {
                prop_assert_eq!(array.as_array().map(Vec::len), Some(counts.len()), "{}", key);
            }
        }
        for key in ["attempted", "acked", "failed", "received"] {
            let sum = |wanted: bool| -> u64 {
                let counts = series["counts"].as_array().expect("a list");
                let values = series[key].as_array().expect("a list");
                values.iter().zip(counts).filter(|(_, counts)| !wanted || **counts == json!(true)).filter_map(|(v, _)| v.as_u64()).sum()
            };
            prop_assert_eq!(json!(sum(true)), ours["totals"]["measured"][key].clone());
            let whole = ours["totals"]["sinceLoadBegan"][key].as_u64();
            prop_assert_eq!(Some(sum(false) + ours["totals"]["afterwards"][key].as_u64().unwrap_or(0)), whole);
        }
        let mut windows = Windows::new(|stretch| {
            (stretch.elapsed, stretch.totals.acknowledgements.acked, publish(&stretch.totals).count())
        });
        report.periods.iter().for_each(|period| windows.add(&period));
        let windows = windows.end(&report.tail);
        prop_assert_eq!(value["publishRate"].as_array().map(Vec::len), Some(windows.len()));
        prop_assert_eq!(windows.iter().map(|w| w.1).sum::<u64>(), report.measured.acknowledgements.acked);
        prop_assert_eq!(windows.iter().map(|w| w.2).sum::<u64>(), publish(&report.answered()).count());
        prop_assert!(windows.len() < 2 || windows.iter().all(|w| w.0 >= WINDOW / 2));
    }
}
