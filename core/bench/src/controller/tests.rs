//! Conversations with a controller: a model worker answers, and time passes as the controller asks.

use super::*;
use crate::{
    config::{
        driver::{DriverConfig, DriverKind},
        workload::{Backlog, CatchUp, Clients, KeyDistributor, PayloadSource, RateGoal, Verify, Workload},
    },
    id::{RunId, SubscriptionId},
    protocol::{
        command::{Begin, Window},
        event::{Findings, GroupView, Missing, Snapshot},
    },
    rate::{Rate, RateList, RatePoint, Tempo},
    result::{Drained, Verdict, soundness},
    stats::tally::Seen,
};
use omb_machine::{seed::Seed, settle};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn workload() -> Workload {
    Workload {
        name: "w".to_owned(),
        topics: 2,
        partitions_per_topic: 1,
        key_distributor: KeyDistributor::NoKey,
        message_size: 100,
        payload: PayloadSource::Random { ratio: 1.0, pool: 1 },
        subscriptions_per_topic: 1,
        consumers_per_subscription: 1,
        producers_per_topic: 1,
        rate: RateGoal::Fixed(Rate::per_second(1_000).expect("in range")),
        backlog: None,
        test_duration: 10 * SECOND,
        warmup_duration: 2 * SECOND,
        seed: None,
        catch_up: CatchUp::All,
        verify: Verify::Header,
        clients: Clients::default(),
    }
}

/// A worker as a formula: it confirms up to `capacity` a second and its consumers keep up unless paused.
struct RefWorker {
    capacity: f64,
    rate: f64,
    since: Option<Instant>,
    /// When message 0 is due, at which rates, and what is measured of it.
    begins: Instant,
    tempo: Option<Tempo>,
    window: Option<Window>,
    /// How long it takes for each answer.
    slow: Duration,
    acked: f64,
    received: f64,
    paused: bool,
    /// Answers with this failure when asked so.
    fails: Option<(&'static str, FailureKind)>,
    /// Does not answer this.
    mute: Option<&'static str>,
    /// Answers this, and nothing after it.
    mute_after: Option<&'static str>,
    /// Of the confirmed messages, so many never arrive.
    loses: u64,
    /// Beside the confirmed messages, so many are given up.
    refuses: u64,
    /// So many that were given up arrive all the same.
    stray: u64,
    /// What its check finds.
    finds: Vec<Failure>,
    /// Its groups settle this long after they were first looked at.
    settles_after: Duration,
    looked: Option<Instant>,
    /// Its groups begin another generation when the first probes are sent.
    moves: bool,
    generation: i32,
    /// What its consumers were answered that waiting does not change.
    hopeless: Option<Failure>,
    /// Probes that are never confirmed.
    pending: u64,
    rounds: Vec<u64>,
    /// For each producer the client that it is to use, for each consumer the thread.
    dealt: (Vec<u32>, Vec<u32>),
    asked: Vec<&'static str>,
}

impl RefWorker {
    fn new() -> Self {
        Self {
            capacity: 1e9,
            rate: 0.0,
            since: None,
            begins: Instant::ZERO,
            tempo: None,
            window: None,
            slow: Duration::from_millis(1),
            acked: 0.0,
            received: 0.0,
            paused: false,
            fails: None,
            mute: None,
            mute_after: None,
            loses: 0,
            refuses: 0,
            stray: 0,
            finds: Vec::new(),
            settles_after: Duration::ZERO,
            looked: None,
            moves: false,
            generation: 1,
            hopeless: None,
            pending: 0,
            rounds: Vec::new(),
            dealt: Default::default(),
            asked: Vec::new(),
        }
    }

    fn advance(&mut self, now: Instant) {
        let Some(since) = self.since else { return };
        let now = self.window.map_or(now, |window| now.min(self.begins + window.until));
        let elapsed = now.since(since).as_secs_f64();
        self.since = Some(now.max(since));
        self.acked += self.rate.min(self.capacity) * elapsed;
        if !self.paused {
            self.received = self.acked;
        }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn snapshot(&mut self, now: Instant) -> Snapshot {
        let looked = *self.looked.get_or_insert(now);
        let mut snapshot = Snapshot {
            taken_at: now,
            wall: omb_machine::time::WallTime(now.0),
            paths_open: self.dealt.0.len() as u64,
            ..Snapshot::default()
        };
        let joined = u32::from(now >= looked + self.settles_after);
        let view = GroupView {
            joined,
            generations: (self.generation, self.generation),
            assigned: joined,
            rebalances: 0,
            last: None,
        };
        let count = u32::try_from(self.dealt.1.len()).expect("few");
        snapshot.groups = (0..count).map(|id| (SubscriptionId(id), view)).collect();
        snapshot.hopeless.clone_from(&self.hopeless);
        snapshot.probes_pending = self.pending;
        snapshot.totals.acknowledgements.acked = self.acked as u64;
        snapshot.totals.acknowledgements.failed = if self.acked > 0.0 { self.refuses } else { 0 };
        snapshot.totals.departures.attempted = self.acked as u64 + snapshot.totals.acknowledgements.failed;
        let mut received = self.received as u64;
        if let (Some(tempo), Some(window)) = (&self.tempo, self.window) {
            let due = tempo.messages_within(now.since(self.begins).min(window.until));
            snapshot.totals.departures.attempted = due;
            if self.capacity >= 1e9 {
                let acked = due.saturating_sub(snapshot.totals.acknowledgements.failed);
                (snapshot.totals.acknowledgements.acked, received) = (acked, acked);
            }
        }
        let distinct = received.saturating_sub(self.loses) + self.stray;
        snapshot.totals.seen.insert(SubscriptionId(0), Seen { received: distinct, distinct, ..Seen::default() });
        snapshot
    }

    fn answer(&mut self, now: Instant, command: &Command) -> Option<Result<Event, Failure>> {
        let name = command.name();
        let silenced = self.mute_after.is_some_and(|last| self.asked.contains(&last));
        self.asked.push(name);
        if silenced || self.mute == Some(name) {
            return None;
        }
        if let Some((_, kind)) = self.fails.filter(|(when, _)| *when == name) {
            return Some(Err(Failure::new(kind, format!("{name} failed"))));
        }
        // What is read of a window is how things stood at its end, which is waited for.
        let end = |after: Duration, whole: bool| if whole { self.begins + after } else { now.min(self.begins + after) };
        let now = match (command, self.window) {
            (Command::Read { reach: Reach::WarmUp { whole }, .. }, Some(window)) => end(window.from, *whole),
            (Command::Read { reach: Reach::Measured { whole }, .. }, Some(window)) => end(window.until, *whole),
            _ => now,
        };
        self.advance(now);
        Some(Ok(match command {
            Command::Prepare(_) => Event::Prepared { system: "model".to_owned() },
            Command::Check(_) => Event::Checked(self.finds.clone()),
            Command::CreateProducers(specs) => {
                self.dealt.0 = specs.iter().map(|spec| spec.client).collect();
                Event::Done
            }
            Command::CreateConsumers(specs) => {
                self.dealt.1 = specs.iter().map(|spec| spec.thread).collect();
                Event::Done
            }
            Command::StartLoad { tempo, begin: Begin::After(after), window, .. } => {
                self.begins = now + *after;
                self.since = Some(self.begins);
                self.window = *window;
                self.rate = tempo.mean(Duration::ZERO, Duration::ZERO);
                self.tempo = Some(tempo.clone());
                Event::Done
            }
            Command::SetRate { rate } => {
                self.since = Some(now);
                self.rate = rate.as_f64();
                Event::Done
            }
            Command::Probe { round } => {
                self.rounds.push(*round);
                self.generation += i32::from(std::mem::take(&mut self.moves));
                Event::Done
            }
            Command::StopLoad { .. } => {
                self.rate = 0.0;
                Event::Done
            }
            Command::PauseConsumers => {
                self.paused = true;
                Event::Done
            }
            Command::ResumeConsumers => {
                self.paused = false;
                self.received = self.acked;
                Event::Done
            }
            Command::Read { .. } => Event::Read(Box::new(self.snapshot(now))),
            Command::Verify => {
                let missing = Missing {
                    confirmed: self.snapshot(now).totals.acknowledgements.acked,
                    missing: self.loses,
                    by_count_only: false,
                };
                Event::Verified(Box::new(Findings {
                    compared: BTreeMap::from([(SubscriptionId(0), missing)]),
                    ..Findings::default()
                }))
            }
            _ => Event::Done,
        }))
    }
}

struct Played {
    phases: Vec<Phase>,
    report: Option<Report>,
    end: End,
    took: Duration,
    asked: Vec<&'static str>,
    rounds: Vec<u64>,
    dealt: (Vec<u32>, Vec<u32>),
    warnings: Vec<String>,
    misfits: Vec<String>,
}

/// Plays a run to its end; `stop_at` is when somebody wants it to end.
fn play(workload: Workload, worker: RefWorker, stop_at: Option<Duration>) -> Played {
    play_with(workload, worker, stop_at, |settings| settings)
}

fn play_with(
    workload: Workload,
    mut worker: RefWorker,
    stop_at: Option<Duration>,
    change: impl FnOnce(Settings) -> Settings,
) -> Played {
    let settings = change(Settings::new(DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded }));
    let bound = settings.longest(&workload, 1);
    let mut now = Instant(5_000_000_000);
    let began = now;
    let mut controller = Controller::new(now, Plan::new(RunId(1), Seed(1), workload, 1), settings);
    let (mut phases, mut report, mut end) = (Vec::new(), None, None);
    let (mut warnings, mut misfits) = (Vec::new(), Vec::new());
    let mut stop_at = stop_at.map(|after| now + after);
    loop {
        let mut requests = Vec::new();
        let wake = settle(&mut controller, now, |output| {
            match output {
                Output::ToWorker { request, .. } => requests.push(request),
                Output::Ping { .. } | Output::WorkerLost { .. } => {}
                Output::Entered(phase) => phases.push(phase),
                Output::Period(_) => {}
                Output::Report(made) => report = Some(*made),
                Output::Warning(text) => warnings.push(text),
                Output::Misfit(failure) => misfits.push(failure.message),
                Output::Finished(ended) => end = Some(ended),
            }
            std::ops::ControlFlow::Continue(())
        });
        if let Some(end) = end {
            let took = now.since(began);
            assert!(took <= bound, "the run took {took:?}, its bound is {bound:?}");
            let RefWorker { asked, rounds, dealt, .. } = worker;
            return Played { phases, report, end, took, asked, rounds, dealt, warnings, misfits };
        }
        let std::ops::ControlFlow::Continue(wake) = wake else { unreachable!("nothing breaks") };
        let mut answered = false;
        for Request { run, number, command, .. } in requests {
            now += worker.slow;
            if let Some(outcome) = worker.answer(now, &command) {
                let response = Response { run, number, outcome, lease_ended: false };
                // Every answer comes twice; the second must change nothing.
                for response in [response.clone(), response] {
                    controller.handle_input(now, Input::FromWorker { worker: WorkerId(0), response });
                }
                answered = true;
            }
        }
        if !answered {
            let wake = wake.expect("a run that waits for nothing would never end").at;
            now = match stop_at {
                Some(at) if at <= wake => {
                    stop_at = None;
                    controller.handle_input(at.max(now), Input::Stop);
                    at.max(now)
                }
                _ => wake,
            };
            controller.handle_timeout(now);
        }
    }
}

#[test]
fn a_calm_run_goes_through_all_phases_and_adds_up() {
    let played = play(workload(), RefWorker::new(), None);
    assert_eq!(played.end, End::Sound);
    assert_eq!(
        played.phases,
        [
            Phase::Prepare,
            Phase::Check,
            Phase::CreateTopics,
            Phase::CreateConsumers,
            Phase::CreateProducers,
            Phase::Probe,
            Phase::WarmUp,
            Phase::Measure,
            Phase::Stop,
            Phase::Drain,
            Phase::Verify,
            Phase::TearDown,
        ]
    );
    let report = played.report.expect("a report");
    assert_eq!(report.verdict.drained, Drained::Completely);
    let measured = report.measured.acknowledgements.acked;
    assert!((9_900..=10_100).contains(&measured), "{measured}");
    assert!((Duration::from_millis(9_900)..=Duration::from_millis(10_100)).contains(&report.measured_for));
    // The sum of the periods is the total.
    let mut sum = Totals::default();
    report.periods.iter().for_each(|period| sum.merge(&period.totals));
    assert_eq!(sum.acknowledgements.acked, report.whole.acknowledgements.acked);
    assert!(report.periods.iter().filter(|period| period.phase == Phase::Measure).count() == 10);
    assert!(played.took < 14 * SECOND, "{:?}", played.took);
    assert_eq!(played.asked.last(), Some(&"close"));
}

#[test]
fn many_with_little_to_do_are_told_what_to_share() {
    let dealt = |topics, clients| {
        let played = play(Workload { topics, clients, ..workload() }, RefWorker::new(), None);
        assert_eq!(played.end, End::Sound);
        played.dealt
    };
    let own: Vec<u32> = (0..40).collect();
    assert_eq!(dealt(40, Clients::Own), (own.clone(), own.clone()));
    assert_eq!(dealt(16, Clients::Shared), (own[..16].to_vec(), own[..16].to_vec()));
    // At 25 msg/s each two share one.
    let shared: Vec<u32> = (0..40).map(|nth| nth % 20).collect();
    assert_eq!(dealt(40, Clients::Shared), (shared.clone(), shared));
}

use crate::stats::tally::Totals;

/// A window is half open, and as long as it was asked to be: however short it is, and however late the answers come.
#[test]
fn a_window_holds_exactly_its_messages() {
    let ms = Duration::from_millis;
    for (rate, warm_up, test, messages) in [
        ("1", ms(0), ms(3_000), 3),
        ("1000", ms(0), ms(1), 1),
        ("1000", ms(0), ms(2), 2),
        ("0.5", ms(0), ms(3_000), 2),
        ("0.5", ms(1_000), ms(3_000), 1),
        ("3", ms(700), ms(1_600), 4),
        ("40", ms(999), ms(1_001), 40),
        ("1000", ms(1), ms(1), 1),
        ("1000", ms(3_000), ms(2_500), 2_500),
    ] {
        for slow in [ms(1), ms(40), ms(700), ms(2_600)] {
            let rate = Rate::decimal(rate).expect("in range");
            let workload =
                Workload { rate: RateGoal::Fixed(rate), warmup_duration: warm_up, test_duration: test, ..workload() };
            let played = play(workload, RefWorker { slow, ..RefWorker::new() }, None);
            assert_eq!(played.end, End::Sound, "{rate} msg/s for {test:?}, answered after {slow:?}");
            let report = played.report.expect("a report");
            let (measured, whole) = (report.measured.departures.attempted, report.whole.departures.attempted);
            assert_eq!((measured, report.measured_for), (messages, test), "{rate} msg/s, answered after {slow:?}");
            assert_eq!(whole, rate.messages_within(warm_up + test));
            let at = |phase| report.periods.iter().filter(|it| it.phase == phase).map(|it| it.at).next_back();
            assert_eq!(at(Phase::Measure), Some(warm_up + test), "the window's end, not the answer's");
        }
    }
}

/// Rates by a list: what is measured is what the list makes of the window, and the target is their mean.
#[test]
fn rates_by_a_list_are_followed_to_the_message() {
    let point = |minute, milli| RatePoint { minute, milli };
    for (by_day, second) in [(false, 7), (true, 86_395)] {
        let list = RateList::new(by_day, vec![point(0, 0), point(1, 600_000)]).expect("in order");
        let workload = Workload {
            rate: RateGoal::Listed(list.clone()),
            warmup_duration: 7 * SECOND,
            test_duration: 40 * SECOND,
            ..workload()
        };
        // The load begins a few milliseconds after the run.
        let settings = |settings| Settings { day_second_at: (second, Instant(5_000_000_000)), ..settings };
        let report = play_with(workload, RefWorker::new(), None, settings).report.expect("a report");
        let tempo = Tempo::Listed { list, day_second: second };
        let messages = tempo.messages_within(47 * SECOND) - tempo.messages_within(7 * SECOND);
        assert_eq!((report.measured.departures.attempted, report.measured_for), (messages, 40 * SECOND));
        let target = soundness::target(&report);
        assert!((target - tempo.mean(7 * SECOND, 47 * SECOND)).abs() < 1e-6, "{target}");
        let made = target * 40.0;
        #[expect(clippy::cast_precision_loss)]
        let measured = messages as f64;
        assert!((made - measured).abs() <= 1.0, "the target is what was to be sent: {made} of {messages}");
        assert_eq!(report.tempo, Some(tempo), "the day's time is known when the load begins");
    }
}

/// Where nobody reads, probes only have to be confirmed; then the load begins, and once only.
#[test]
fn a_run_that_only_produces_probes_what_is_stored() {
    let workload = Workload { subscriptions_per_topic: 0, consumers_per_subscription: 0, ..workload() };
    let played = play(workload, RefWorker::new(), None);
    assert_eq!(played.end, End::Sound);
    assert_eq!(played.rounds, [1]);
    assert_eq!(played.asked.iter().filter(|asked| **asked == "start load").count(), 1, "{:?}", played.asked);
    let report = played.report.expect("a report");
    assert_eq!(report.verdict.drained, Drained::NotAwaited);
    assert!((9_900..=10_100).contains(&report.measured.acknowledgements.acked));
}

#[test]
fn probes_that_are_not_stored_end_a_run_that_only_produces() {
    let workload = Workload { subscriptions_per_topic: 0, consumers_per_subscription: 0, ..workload() };
    let played = play(workload, RefWorker { pending: 2, ..RefWorker::new() }, None);
    let text = "2 probes were not acknowledged, after 60s";
    assert_eq!(played.end, End::Failed(Failure::new(FailureKind::Unreachable, text)));
    assert!(!played.asked.contains(&"start load"));
}

/// A consumer that joins late would make the group share its partitions anew under load.
#[test]
fn a_load_waits_for_the_groups_to_settle() {
    let played = play(workload(), RefWorker { settles_after: 7 * SECOND, ..RefWorker::new() }, None);
    assert_eq!(played.end, End::Sound);
    assert!(played.took >= 7 * SECOND + 12 * SECOND, "{:?}", played.took);
    assert_eq!(played.rounds, [1]);
    let played = play(workload(), RefWorker { settles_after: 100 * SECOND, ..RefWorker::new() }, None);
    let End::Failed(failure) = played.end else { panic!("{:?}", played.end) };
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.message.starts_with("2 of 2 groups have not settled; "), "{failure}");
    assert!(failure.message.ends_with(": 0 of 1 consumers have joined, after 60s"), "{failure}");
    assert!(!played.asked.contains(&"probe"));
}

/// What a probe showed of one generation says nothing about the next.
#[test]
fn a_group_that_moves_on_is_probed_anew() {
    let played = play(workload(), RefWorker { moves: true, ..RefWorker::new() }, None);
    assert_eq!(played.end, End::Sound);
    assert_eq!(played.rounds, [1, 2]);
}

/// Who is not allowed to read does not become so by waiting.
#[test]
fn what_will_not_pass_ends_the_set_up_at_once() {
    let failure = Failure::new(FailureKind::Refused, "Broker: Group authorization failed");
    let played = play(workload(), RefWorker { hopeless: Some(failure.clone()), ..RefWorker::new() }, None);
    assert_eq!(played.end, End::Failed(failure));
    assert!(played.took < SECOND, "{:?}", played.took);
    assert!(played.asked.ends_with(&["delete topics", "close"]), "{:?}", played.asked);
}

#[test]
fn lost_messages_make_a_run_unsound() {
    let played = play(workload(), RefWorker { loses: 3, ..RefWorker::new() }, None);
    assert_eq!(played.end, End::Unsound(vec!["3 acknowledged messages never arrived".to_owned()]));
    assert_eq!(played.report.expect("a report").verdict.drained, Drained::Quiet);
}

/// Messages that were given up but stored make the counts agree although confirmed ones are missing.
#[test]
fn strays_do_not_hide_a_loss() {
    let played = play(workload(), RefWorker { loses: 3, stray: 5, ..RefWorker::new() }, None);
    assert_eq!(played.end, End::Unsound(vec!["3 acknowledged messages never arrived".to_owned()]));
}

/// A comparison that is to be made once more is no verdict if the run fails before that.
#[test]
fn a_verdict_that_was_put_off_is_none() {
    let worker = RefWorker { loses: 3, stray: 5, mute_after: Some("verify"), ..RefWorker::new() };
    let report = play(workload(), worker, None).report.expect("a partial report");
    assert!(report.partial.is_some());
    assert_eq!(report.verdict, Verdict::default());
}

#[test]
fn a_failure_before_the_load_cleans_up_and_reports_nothing() {
    for step in ["create topics", "create consumers", "create producers", "probe"] {
        let played =
            play(workload(), RefWorker { fails: Some((step, FailureKind::Refused)), ..RefWorker::new() }, None);
        assert_eq!(played.end, End::Failed(Failure::new(FailureKind::Refused, format!("{step} failed"))));
        assert!(played.report.is_none());
        assert!(played.asked.ends_with(&["delete topics", "close"]), "{:?}", played.asked);
    }
}

#[test]
fn a_failure_under_load_keeps_what_was_measured() {
    for step in ["stop load", "verify"] {
        let played = play(workload(), RefWorker { fails: Some((step, FailureKind::Broken)), ..RefWorker::new() }, None);
        assert_eq!(played.end, End::Failed(Failure::new(FailureKind::Broken, format!("{step} failed"))));
        let report = played.report.expect("a partial report");
        assert_eq!(report.partial.as_deref(), Some(&*format!("{step} failed")));
        assert!(report.measured.acknowledgements.acked > 9_000);
    }
}

#[test]
fn a_worker_that_never_answers_is_named_and_the_run_ends() {
    for step in ["prepare", "create topics", "start load", "read", "stop load", "verify", "close"] {
        let played = play(workload(), RefWorker { mute: Some(step), ..RefWorker::new() }, None);
        if step == "close" {
            assert_eq!(played.end, End::Sound, "the result was out already");
            assert_eq!(played.warnings, ["this process did not answer \"close\" within its deadline"]);
        } else {
            let text = format!("this process did not answer \"{step}\" within its deadline");
            assert_eq!(played.end, End::Failed(Failure::new(FailureKind::Unreachable, text)));
        }
    }
}

#[test]
fn what_cannot_be_cleaned_up_is_a_warning() {
    let played =
        play(workload(), RefWorker { fails: Some(("delete topics", FailureKind::Refused)), ..RefWorker::new() }, None);
    assert_eq!(played.end, End::Sound);
    assert_eq!(played.warnings, ["while cleaning up: delete topics failed"]);
    assert!(played.asked.ends_with(&["delete topics", "close"]), "{:?}", played.asked);
    let played = play(workload(), RefWorker { mute: Some("delete topics"), ..RefWorker::new() }, None);
    assert_eq!(played.end, End::Sound);
    assert!(played.asked.ends_with(&["delete topics", "close"]), "{:?}", played.asked);
}

#[test]
fn whoever_stops_a_run_gets_what_there_is() {
    let played = play(workload(), RefWorker::new(), Some(6 * SECOND));
    assert_eq!(played.end, End::Interrupted(true));
    let report = played.report.expect("a partial report");
    assert_eq!(report.partial.as_deref(), Some("interrupted by the user"));
    assert!((3_000..=5_000).contains(&report.measured.acknowledgements.acked));
    assert!(played.took < 8 * SECOND);
}

/// A controller that gives up on a broker that never answers does not also wait for it, and leaves no topics behind.
#[test]
fn a_stop_during_the_setup_waits_for_nothing() {
    let steps = ["prepare", "check", "create topics", "create consumers", "create producers", "probe"];
    for (place, step) in steps.into_iter().enumerate() {
        let played = play(workload(), RefWorker { mute: Some(step), ..RefWorker::new() }, Some(2 * SECOND));
        assert_eq!(played.end, End::Interrupted(false));
        assert!(played.report.is_none() && played.warnings.is_empty(), "{:?}", played.warnings);
        assert!(played.took < 3 * SECOND, "{step}: {:?}", played.took);
        // Once the consumers are there, their groups are looked at until they have settled.
        let asked: Vec<&str> = played.asked.into_iter().filter(|asked| *asked != "read").collect();
        let expected = [&steps[..=place], if place < 2 { &[] } else { &["delete topics"] }, &["close"]].concat();
        assert_eq!(asked, expected);
    }
}

/// Whatever was measured is whole by then; that the rest was not waited for is said.
#[test]
fn a_stop_while_the_last_messages_are_waited_for() {
    let played = play(workload(), RefWorker { loses: 5, ..RefWorker::new() }, Some(Duration::from_millis(12_500)));
    assert_eq!((played.end, played.phases.last()), (End::Interrupted(true), Some(&Phase::TearDown)));
    let report = played.report.expect("a report");
    assert_eq!(report.partial.as_deref(), Some("interrupted by the user"));
    assert!(report.measured.acknowledgements.acked > 9_000);
    assert!(played.took < 14 * SECOND, "{:?}", played.took);
}

/// Two workers: the first deletes the topics when nobody has clients of them any more; one that says that it shuts down is given up
/// at once, and named.
#[test]
fn a_fleet_closes_its_clients_before_its_topics_are_deleted() {
    let names = vec!["a".to_owned(), "b".to_owned()];
    let driver = DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded };
    let settings = Settings { names, ..Settings::new(driver) };
    let mut now = Instant(5_000_000_000);
    let mut controller = Controller::new(now, Plan::new(RunId(1), Seed(1), workload(), 2), settings);
    let (mut deletions, mut lost, mut end) = (Vec::new(), Vec::new(), None);
    while end.is_none() {
        let mut asked = Vec::new();
        let _ = settle(&mut controller, now, |output| {
            match output {
                Output::ToWorker { worker, request, .. } => asked.push((worker, request)),
                Output::WorkerLost { worker, cause } => lost.push((worker, cause)),
                Output::Finished(ended) => end = Some(ended),
                _ => {}
            }
            std::ops::ControlFlow::Continue(())
        });
        now += Duration::from_millis(1);
        let asked_nothing = asked.is_empty();
        for (worker, Request { run, number, command, .. }) in asked {
            if let Command::DeleteTopics { topics, .. } = &command {
                deletions.push((worker.0, topics.len()));
            }
            if matches!(command, Command::CreateProducers(_)) && worker == WorkerId(1) {
                let cause = "this worker is being shut down".to_owned();
                controller.handle_input(now, Input::Leaving { worker, cause });
                continue;
            }
            let response = Response { run, number, outcome: Ok(set_up(worker, &command)), lease_ended: false };
            controller.handle_input(now, Input::FromWorker { worker, response });
        }
        if asked_nothing && end.is_none() {
            let wake = controller.poll_timeout().expect("it waits for something");
            now = now.max(wake.at);
            controller.handle_timeout(now);
        }
    }
    let cause = "worker 2 (b): this worker is being shut down".to_owned();
    assert_eq!(lost, [(WorkerId(1), cause.clone())]);
    assert_eq!(end, Some(End::Failed(Failure::new(FailureKind::Broken, cause))));
    assert_eq!(deletions, [(0, 2)], "nobody else is left");

    let mut controller = Controller::new(now, Plan::new(RunId(2), Seed(1), workload(), 2), {
        let driver = DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded };
        Settings { names: vec!["a".to_owned(), "b".to_owned()], ..Settings::new(driver) }
    });
    let (mut deletions, mut ended) = (Vec::new(), false);
    while !ended {
        let mut asked = Vec::new();
        let _ = settle(&mut controller, now, |output| {
            match output {
                Output::ToWorker { worker, request, .. } => asked.push((worker, request)),
                Output::Entered(Phase::Probe) => asked.clear(),
                Output::Finished(_) => ended = true,
                _ => {}
            }
            std::ops::ControlFlow::Continue(())
        });
        now += Duration::from_millis(1);
        if controller.phase() == Phase::Probe {
            controller.handle_input(now, Input::Stop);
            continue;
        }
        let asked_nothing = asked.is_empty();
        for (worker, Request { run, number, command, .. }) in asked {
            if let Command::DeleteTopics { topics, .. } = &command {
                deletions.push((worker.0, topics.len()));
            }
            let response = Response { run, number, outcome: Ok(set_up(worker, &command)), lease_ended: false };
            controller.handle_input(now, Input::FromWorker { worker, response });
        }
        if asked_nothing && !ended {
            let wake = controller.poll_timeout().expect("it waits for something");
            now = now.max(wake.at);
            controller.handle_timeout(now);
        }
    }
    assert_eq!(deletions, [(0, 0), (1, 0), (0, 2), (1, 0)]);
}

/// What a worker that has all that it needs answers while a run is set up; it has a topic of its own.
fn set_up(worker: WorkerId, command: &Command) -> Event {
    match command {
        Command::Prepare(_) => Event::Prepared { system: "model".to_owned() },
        Command::Check(_) => Event::Checked(Vec::new()),
        Command::Read { .. } => {
            let groups = [(SubscriptionId(worker.0), settled())].into();
            Event::Read(Box::new(Snapshot { groups, ..Snapshot::default() }))
        }
        _ => Event::Done,
    }
}

#[test]
fn a_run_that_could_not_deliver_is_not_sound() {
    let played = play(workload(), RefWorker { refuses: 7, ..RefWorker::new() }, None);
    let End::Unsound(reasons) = played.end else { panic!("{:?}", played.end) };
    assert!(reasons[0].starts_with("7 of ") && reasons[0].ends_with(" messages were given up"), "{reasons:?}");
}

#[test]
fn a_backlog_fills_and_drains() {
    let backlog = Some(Backlog { bytes: 500_000, drain_ratio: 1.0 });
    let played = play(Workload { backlog, ..workload() }, RefWorker::new(), None);
    assert_eq!(played.end, End::Sound);
    assert!(played.phases.windows(3).any(|three| three == [Phase::FillBacklog, Phase::DrainBacklog, Phase::Measure]));
    let times = played.report.expect("a report").backlog.expect("times");
    assert!(times.built_messages >= 5_000 && times.fill >= 4 * SECOND && times.drain.is_some(), "{times:?}");
}

#[test]
fn a_backlog_that_never_builds_up_does_not_hang() {
    let backlog = Some(Backlog { bytes: 500_000, drain_ratio: 1.0 });
    let played = play(Workload { backlog, ..workload() }, RefWorker { capacity: 1.0, ..RefWorker::new() }, None);
    let End::Failed(failure) = played.end else { panic!("{:?}", played.end) };
    assert!(failure.message.starts_with("the backlog did not build up within 70s"), "{failure}");
}

#[test]
fn a_search_ends_in_a_measurement_at_the_rate_found() {
    let played = play(
        Workload { rate: RateGoal::Search, ..workload() },
        RefWorker { capacity: 40_000.0, ..RefWorker::new() },
        None,
    );
    assert_eq!(played.end, End::Sound);
    let report = played.report.expect("a report");
    let found = report.found.expect("a rate");
    assert!((38_000..=42_200).contains(&found.rate), "{found:?}");
    #[expect(clippy::cast_precision_loss)]
    let rate = found.rate as f64;
    assert!(
        report
            .periods
            .iter()
            .filter(|period| period.phase == Phase::Measure)
            .all(|period| (period.target - rate).abs() < 1.0)
    );
}

/// There is no path to probe, but that probes are stored. (The simulation found the load started for ever.)
#[test]
fn a_run_without_consumers_starts_its_load_once() {
    let played = play(Workload { subscriptions_per_topic: 0, ..workload() }, RefWorker::new(), None);
    assert_eq!(played.end, End::Sound);
    assert_eq!(played.asked.iter().filter(|asked| **asked == "start load").count(), 1);
    assert_eq!(played.asked.iter().filter(|asked| **asked == "probe").count(), 1, "{:?}", played.asked);
}

/// Whether it is refused or not even answered. (The simulation found a worker that was never told to stop.)
#[test]
fn topics_that_cannot_be_deleted_do_not_keep_the_worker_from_being_closed() {
    let refusing = RefWorker { fails: Some(("delete topics", FailureKind::Refused)), ..RefWorker::new() };
    let mute = RefWorker { mute: Some("delete topics"), ..RefWorker::new() };
    for worker in [refusing, mute] {
        let played = play(workload(), worker, None);
        assert_eq!(played.end, End::Sound);
        assert_eq!(played.asked.last(), Some(&"close"), "{:?}", played.asked);
        assert_eq!(played.warnings.len(), 1, "{:?}", played.warnings);
    }
}

/// One of two workers takes long to connect; the other must not take its controller for gone meanwhile. (The simulation
/// found workers whose lease ended while the run waited for another one.)
#[test]
fn whoever_waits_for_the_slowest_worker_hears_of_the_controller() {
    let driver = DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded };
    let names = vec!["a".to_owned(), "b".to_owned()];
    let settings = Settings { names, clocks: Clocks::Measured, ..Settings::new(driver) };
    let (lease, call_within) = (settings.lease, settings.call_within);
    let mut now = Instant(5_000_000_000);
    let began = now;
    let mut controller = Controller::new(now, Plan::new(RunId(1), Seed(1), workload(), 2), settings);
    let mut heard = vec![now];
    while now < began + call_within - SECOND {
        let mut asked = Vec::new();
        let wake = settle(&mut controller, now, |output| {
            match output {
                Output::ToWorker { worker: WorkerId(0), request, .. } => asked.push(request),
                Output::Ping { worker: WorkerId(0), .. } => heard.push(now),
                _ => {}
            }
            std::ops::ControlFlow::Continue(())
        });
        for Request { run, number, .. } in asked {
            assert_eq!(number, 1, "nothing new is asked while one has not answered");
            heard.push(now);
            let outcome = Ok(Event::Prepared { system: "model".to_owned() });
            let response = Response { run, number, outcome, lease_ended: false };
            controller.handle_input(now, Input::FromWorker { worker: WorkerId(0), response });
        }
        let std::ops::ControlFlow::Continue(Some(wake)) = wake else { panic!("it waits for the other one") };
        now = wake.at;
        controller.handle_timeout(now);
    }
    assert!(heard.windows(2).all(|pair| pair[1].since(pair[0]) < lease / 2), "{heard:?}");
}

/// What a worker, or the broker behind it, says is shown on one line, and no longer than somebody reads.
#[test]
fn no_word_of_a_worker_forges_a_line() {
    let foul = format!("no\n2026-01-01 00:00:00 - omb - INFO - stored \u{1b}[2J\u{202e}{}", "x".repeat(1 << 20));
    let plain = |text: &str| {
        assert!(text.contains(r"no\n2026-01-01 00:00:00 - omb - INFO - stored \u{1b}[2J\u{202e}xxx"), "{text:.200}");
        assert!(!text.contains(['\n', '\u{1b}', '\u{202e}']) && text.chars().count() < 2_000);
    };
    let settings = || {
        let driver = DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded };
        Settings { names: vec!["a".to_owned()], ..Settings::new(driver) }
    };
    let failed = Response {
        run: RunId(1),
        number: 1,
        outcome: Err(Failure::new(FailureKind::Refused, foul.clone())),
        lease_ended: false,
    };
    let trouble = Trouble { kind: TroubleKind::Refused, cause: foul.clone() };
    for input in [
        Input::FromWorker { worker: WorkerId(0), response: failed },
        Input::CallFailed { worker: WorkerId(0), number: 1, trouble },
        Input::Leaving { worker: WorkerId(0), cause: foul.clone() },
    ] {
        let now = Instant(5_000_000_000);
        let mut controller = Controller::new(now, Plan::new(RunId(1), Seed(1), workload(), 1), settings());
        let mut said = Vec::new();
        let mut hear = |controller: &mut Controller, now| {
            let _ = settle(controller, now, |output| {
                match output {
                    Output::WorkerLost { cause, .. } => said.push(cause),
                    Output::Warning(text) => said.push(text),
                    Output::Finished(End::Failed(failure)) => said.push(failure.message),
                    _ => {}
                }
                std::ops::ControlFlow::Continue(())
            });
        };
        hear(&mut controller, now);
        controller.handle_input(now, input);
        hear(&mut controller, now);
        let response = Response { run: RunId(1), number: 2, outcome: Ok(Event::Done), lease_ended: false };
        controller.handle_input(now, Input::FromWorker { worker: WorkerId(0), response });
        hear(&mut controller, now);
        assert!(!said.is_empty());
        said.iter().for_each(|text| plain(text));
    }
    let now = Instant(5_000_000_000);
    let mut controller = Controller::new(now, Plan::new(RunId(1), Seed(1), workload(), 1), settings());
    let outcome = Ok(Event::Prepared { system: foul.clone() });
    let response = Response { run: RunId(1), number: 1, outcome, lease_ended: false };
    controller.handle_input(now, Input::FromWorker { worker: WorkerId(0), response });
    plain(controller.system());
    let problem = crate::protocol::event::Problem { what: foul, count: 1 };
    let Event::Read(read) =
        Event::Read(Box::new(Snapshot { problems: vec![problem; 1_000], ..Snapshot::default() })).printable()
    else {
        unreachable!("it stays a read")
    };
    assert!(read.problems.len() <= 100);
    plain(&read.problems[0].what);
}

/// Plays a run of two workers, each with one producer and half of 1,000 msg/s. What they use of CPU and memory is known at
/// each instant; the second one falls silent `silent_after` its load began.
fn play_two(silent_after: Duration) -> Report {
    let names = vec!["a".to_owned(), "b".to_owned()];
    let driver = DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded };
    let on_loss = OnLoss::Continue;
    let settings = Settings { names, on_loss, call_within: 3 * SECOND, ..Settings::new(driver) };
    let mut now = Instant(5_000_000_000);
    let mut controller = Controller::new(now, Plan::new(RunId(1), Seed(1), workload(), 2), settings);
    let (mut begins, mut report) = (None, None);
    loop {
        let (mut requests, mut ended) = (Vec::new(), false);
        let wake = settle(&mut controller, now, |output| {
            match output {
                Output::ToWorker { worker, request, .. } => requests.push((worker, request)),
                Output::Report(made) => report = Some(*made),
                Output::Finished(_) => ended = true,
                _ => {}
            }
            std::ops::ControlFlow::Continue(())
        });
        if ended {
            return report.expect("a report");
        }
        let mut answered = false;
        for (worker, Request { run, number, command, .. }) in requests {
            if let Command::StartLoad { begin: Begin::After(after), .. } = command {
                begins = Some(now + after);
            }
            if worker == WorkerId(1) && begins.is_some_and(|begins| now >= begins + silent_after) {
                continue;
            }
            let event = match command {
                Command::Prepare(_) => Event::Prepared { system: "model".to_owned() },
                Command::Check(_) => Event::Checked(Vec::new()),
                Command::Read { reach, .. } => Event::Read(Box::new(known(worker, now, begins, reach))),
                Command::Verify => Event::Verified(Box::default()),
                _ => Event::Done,
            };
            let response = Response { run, number, outcome: Ok(event), lease_ended: false };
            controller.handle_input(now, Input::FromWorker { worker, response });
            answered = true;
        }
        if !answered {
            let std::ops::ControlFlow::Continue(Some(wake)) = wake else { panic!("it waits for something") };
            now = now.max(wake.at);
            controller.handle_timeout(now);
        }
    }
}

/// A group of one member that has all partitions.
fn settled() -> GroupView {
    GroupView { joined: 1, generations: (1, 1), assigned: 1, rebalances: 0, last: None }
}

/// What a worker says: 500 msg/s; 700 ms of CPU in each second of the warm-up, then 100 or 300 ms.
fn known(worker: WorkerId, now: Instant, begins: Option<Instant>, reach: Reach) -> Snapshot {
    let begins = begins.unwrap_or(now);
    let at = match reach {
        Reach::WarmUp { whole: true } => begins + 2 * SECOND,
        Reach::Measured { whole: true } => begins + 12 * SECOND,
        _ => now,
    };
    let (load, nth) = (at.since(begins).min(12 * SECOND), worker.0 + 1);
    let warm = load.min(2 * SECOND);
    let mut snapshot = Snapshot { taken_at: at, wall: WallTime(at.0), paths_open: 1, ..Snapshot::default() };
    snapshot.groups = [(SubscriptionId(worker.0), settled())].into();
    snapshot.process.cpu = warm * 7 / 10 + (load - warm) * (2 * nth - 1) / 10;
    snapshot.process.memory_bytes = 1_000 * u64::from(nth);
    snapshot.process.memory_bytes_max = 3_000 * u64::from(nth);
    let sent = Rate::per_second(500).expect("in range").messages_within(load);
    snapshot.totals.departures.attempted = sent;
    snapshot.totals.acknowledgements.acked = sent;
    snapshot.totals.seen.insert(SubscriptionId(worker.0), Seen { received: sent, distinct: sent, ..Seen::default() });
    snapshot
}

/// The warm-up's CPU is nobody's, memory adds up over the workers, and so does its maximum.
#[test]
fn what_a_fleet_used_is_what_it_used_while_it_was_measured() {
    let report = play_two(Duration::MAX);
    assert_eq!((report.client_cpu, report.measured_for), (4 * SECOND, 10 * SECOND), "100 and 300 ms in each second");
    let process = report.process;
    assert_eq!((process.memory_bytes, process.memory_bytes_max), (3_000, 9_000));
    let rows: Vec<_> =
        report.workers.iter().map(|row| (row.cpu, row.attempted, row.process.memory_bytes_max)).collect();
    assert_eq!(rows, [(SECOND, 5_000, 3_000), (3 * SECOND, 5_000, 6_000)]);
    assert_eq!(report.measured.departures.attempted, 10_000);
}

/// A worker that falls silent is dated by its last read, not by when somebody noticed; from then on its rate is not asked
/// for, and its counts until then stay.
#[test]
fn a_lost_worker_is_dated_by_its_last_read() {
    let report = play_two(Duration::from_millis(5_500));
    let lost = report.workers[1].lost.as_ref().expect("it is lost");
    assert_eq!((lost.read, lost.detected), (Some(5 * SECOND), 9 * SECOND), "asked at 6 s, and waited for 3 s");
    let targets: Vec<_> =
        report.periods.iter().filter(|it| it.phase == Phase::Measure).map(|it| (it.at.as_secs(), it.target)).collect();
    assert_eq!(
        targets,
        [
            (3, 1_000.0),
            (4, 1_000.0),
            (5, 1_000.0),
            // The read of the first worker at 6 s was answered then; the next one is after the loss.
            (6, 500.0),
            (10, 500.0),
            (11, 500.0),
            (12, 500.0),
        ]
    );
    assert_eq!((report.workers[1].attempted, report.workers[0].attempted), (1_500, 5_000));
    assert_eq!(report.measured.departures.attempted, 6_500);
    assert!(soundness::incomplete(&report).is_some_and(|why| why.starts_with("worker 2 (b) was lost")));
    assert!((soundness::target(&report) - 650.0).abs() < 1.0, "{}", soundness::target(&report));
}

/// A worker that finds something in the way ends the run before anything is created; all that was found is reported.
#[test]
fn what_the_check_finds_is_told_before_anything_is_created() {
    let found = vec![
        Failure::new(FailureKind::Configuration, "the broker refuses to create topic t"),
        Failure::new(FailureKind::Unreachable, "broker 2 calls itself b:1"),
    ];
    let played = play(workload(), RefWorker { finds: found, ..RefWorker::new() }, None);
    assert_eq!(played.misfits, ["the broker refuses to create topic t", "broker 2 calls itself b:1"]);
    let End::Failed(failure) = played.end else { panic!("{:?}", played.end) };
    assert_eq!(failure.kind, FailureKind::Unreachable, "a better file alone would not do");
    assert_eq!(failure.message, "the broker refuses to create topic t; broker 2 calls itself b:1");
    assert_eq!(played.asked, ["prepare", "check", "close"]);
    assert_eq!(played.report, None);
}

/// Plays a check of two workers, whose answers to it are as given.
fn check_two(plans: Vec<Plan>, answers: [Result<Event, Failure>; 2]) -> (Vec<String>, End, Vec<Command>) {
    let driver = DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded };
    let settings = Settings { names: vec!["a".to_owned(), "b".to_owned()], ..Settings::new(driver) };
    let mut now = Instant(5_000_000_000);
    let mut controller = Controller::checking(now, plans, settings);
    let (mut misfits, mut end, mut asked) = (Vec::new(), None, Vec::new());
    while end.is_none() {
        let mut requests = Vec::new();
        let _ = settle(&mut controller, now, |output| {
            match output {
                Output::ToWorker { worker, request, .. } => requests.push((worker, request)),
                Output::Misfit(failure) => misfits.push(failure.message),
                Output::Finished(ended) => end = Some(ended),
                _ => {}
            }
            std::ops::ControlFlow::Continue(())
        });
        for (worker, Request { run, number, command, .. }) in requests {
            now += Duration::from_millis(1);
            let outcome = match &command {
                Command::Prepare(_) => Ok(Event::Prepared { system: "model".to_owned() }),
                Command::Check(_) => answers[worker.0 as usize].clone(),
                _ => Ok(Event::Done),
            };
            asked.push(command);
            let response = Response { run, number, outcome, lease_ended: false };
            controller.handle_input(now, Input::FromWorker { worker, response });
        }
    }
    (misfits, end.expect("it ended"), asked)
}

fn plans() -> Vec<Plan> {
    let large =
        Workload { message_size: 5_000, partitions_per_topic: 7, topics: 1, producers_per_topic: 6, ..workload() };
    [workload(), large.clone(), large].map(|workload| Plan::new(RunId(1), Seed(1), workload, 2)).to_vec()
}

/// One connection does for all workloads; each kind of topic is asked for once, by one worker.
#[test]
fn a_check_asks_once_for_all_workloads_and_creates_nothing() {
    let (misfits, end, asked) = check_two(plans(), [const { Ok(Event::Checked(Vec::new())) }; 2]);
    assert_eq!((misfits, end), (Vec::new(), End::Sound));
    let names: Vec<&str> = asked.iter().map(Command::name).collect();
    assert_eq!(names, ["prepare", "prepare", "check", "check", "close", "close"]);
    let [Command::Check(first), Command::Check(second)] = &asked[2..4] else { panic!("{asked:?}") };
    let partitions: Vec<u32> = first.topics.iter().map(|topic| topic.partitions).collect();
    assert_eq!((partitions, second.topics.len()), (vec![1, 7], 0));
    assert_eq!((first.message_bytes, first.producers, first.consumers), (5_000, 3, 1), "the most at once");
    let Command::Prepare(preparation) = &asked[0] else { panic!("{asked:?}") };
    assert_eq!(preparation.payload.pool_bytes(), 5_000, "no pool is made for nothing");
}

/// What several found is reported once, with their names; what one could not even do is reported beside it.
#[test]
fn what_several_workers_find_is_told_once() {
    let same = || Failure::new(FailureKind::Refused, "broker 1 refuses");
    let mine = Failure::new(FailureKind::Unreachable, "broker 2\u{1b}[31m\nis away");
    let (misfits, end, _) =
        check_two(plans(), [Ok(Event::Checked(vec![same()])), Ok(Event::Checked(vec![same(), mine]))]);
    let reported = ["worker 1 (a), worker 2 (b): broker 1 refuses", "worker 2 (b): broker 2\\u{1b}[31m\\nis away"];
    assert_eq!(misfits, reported);
    assert_eq!(end, End::Failed(Failure::new(FailureKind::Refused, reported.join("; "))));
    let many = (0..100).map(|n| Failure::new(FailureKind::Refused, format!("broker {n}"))).collect();
    let (misfits, _, _) = check_two(plans(), [Ok(Event::Checked(many)), Ok(Event::Done)]);
    assert_eq!((misfits.len(), misfits[20].as_str()), (21, "and 80 other failures of this kind"));
    let (misfits, end, asked) = check_two(plans(), [Err(same()), Err(same())]);
    assert_eq!(misfits, ["worker 1 (a), worker 2 (b): broker 1 refuses"]);
    assert!(matches!(end, End::Failed(_)));
    assert_eq!(asked.last().map(Command::name), Some("close"));
}
