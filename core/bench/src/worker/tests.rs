use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    config::{
        driver::{DriverConfig, DriverKind, KafkaConfig},
        terms::Terms,
        workload::{CatchUp, KeyDistributor, Verify},
    },
    load::payload::PayloadRecipe,
    protocol::command::Preparation,
};
use omb_machine::seed::Seed;

const WALL: u64 = 1_700_000_000_000_000_000;
const LEASE: Duration = Duration::from_secs(30);
const SECOND: Duration = Duration::from_secs(1);

fn prepare() -> Command {
    prepare_by("somebody")
}

fn prepare_by(controller: &str) -> Command {
    Command::Prepare(Box::new(Preparation {
        driver: DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded },
        seed: Seed(1),
        payload: PayloadRecipe::Given(vec![0; 40]),
        keys: KeyDistributor::NoKey,
        catch_up: CatchUp::All,
        verify: Verify::Header,
        producers_per_topic: 1,
        lease: LEASE,
        setup_within: 60 * SECOND,
        controller: controller.to_owned(),
        take_over: false,
    }))
}

fn command(run: u64, number: u64, command: Command) -> Input {
    Input::Command(Request { version: protocol::VERSION, run: RunId(run), number, sent: None, command })
}

fn drain(worker: &mut Worker) -> Vec<Output> {
    std::iter::from_fn(|| worker.poll_output()).collect()
}

fn reply(run: u64, number: u64, event: Event) -> Output {
    Output::Reply(Response { run: RunId(run), number, outcome: Ok(event), lease_ended: false })
}

/// A worker that has performed `Prepare` of run 1.
fn prepared() -> Worker {
    let mut worker = Worker::new(WallTime(WALL), Terms::foreign());
    worker.handle_input(Instant::ZERO, command(1, 1, prepare()));
    let outputs = drain(&mut worker);
    assert!(matches!(
        &outputs[..],
        [Output::Follows { .. }, Output::Perform { ticket: 1, command: Command::Prepare(_) }]
    ));
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 1, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [reply(1, 1, Event::Done)]);
    worker
}

const READ: Command = Command::Read { correction: 0, reach: crate::protocol::command::Reach::Everything };

/// Asks and lets it be performed.
fn perform(worker: &mut Worker, now: Instant, number: u64, asked: Command) -> Response {
    worker.handle_input(now, command(1, number, asked));
    let outputs = drain(worker);
    let [Output::Perform { ticket, .. }] = outputs[..] else { panic!("one to perform, not {outputs:?}") };
    worker.handle_input(now, Input::Done { ticket, outcome: Ok(Event::Done) });
    let mut outputs = drain(worker);
    let Some(Output::Reply(response)) = outputs.drain(..).next() else { panic!("no answer") };
    response
}

#[track_caller]
fn refused(outputs: &[Output]) -> &str {
    match outputs {
        [Output::Reply(Response { outcome: Err(failure), .. })] => &failure.message,
        other => panic!("expected one refusal, got {other:?}"),
    }
}

#[test]
fn a_repeated_command_is_performed_once_and_answered_again() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 2, Command::Probe { round: 1 }));
    assert_eq!(drain(&mut worker), [Output::Perform { ticket: 2, command: Command::Probe { round: 1 } }]);
    worker.handle_input(Instant::ZERO, command(1, 2, Command::Probe { round: 1 }));
    assert_eq!(drain(&mut worker), [], "in progress: one answer is enough");
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 2, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [reply(1, 2, Event::Done)]);
    worker.handle_input(Instant::ZERO, command(1, 2, Command::Probe { round: 1 }));
    assert_eq!(drain(&mut worker), [reply(1, 2, Event::Done)]);
    worker.handle_input(Instant::ZERO, command(1, 1, prepare()));
    assert_eq!(refused(&drain(&mut worker)), "command 1 is past: 2 came after it");
}

#[test]
fn one_run_at_a_time() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO + 7 * SECOND, command(2, 1, prepare_by("another")));
    assert_eq!(
        refused(&drain(&mut worker)),
        "it follows somebody (run 0000000000000001, last heard 7 s ago); --take-over ends that run"
    );
    worker.handle_input(Instant::ZERO, command(1, 2, Command::Close));
    assert_eq!(drain(&mut worker), [Output::Perform { ticket: 2, command: Command::Close }]);
    worker.handle_input(Instant::ZERO, command(2, 1, prepare()));
    assert_eq!(drain(&mut worker), [], "it waits until the first run is closed");
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 2, outcome: Ok(Event::Done) });
    let outputs = drain(&mut worker);
    assert_eq!(outputs[..2], [reply(1, 2, Event::Done), Output::Freed(RunId(1))]);
    assert!(matches!(outputs[2..], [Output::Follows { run: RunId(2), .. }, Output::Perform { ticket: 3, .. }]));
}

/// The controller has abandoned the worker, and the worker has not heard of it.
#[test]
fn a_controller_that_begins_another_run_has_ended_the_first() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(2, 1, prepare()));
    assert_eq!(drain(&mut worker), [Output::Perform { ticket: 2, command: Command::Close }]);
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 2, outcome: Ok(Event::Done) });
    assert!(matches!(
        drain(&mut worker)[..],
        [Output::Freed(RunId(1)), Output::Follows { run: RunId(2), .. }, Output::Perform { ticket: 3, .. }]
    ));
}

/// A caller that asks for it again hears why, instead of nothing.
#[test]
fn what_was_cut_short_is_answered_again() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 2, Command::Probe { round: 1 }));
    drain(&mut worker);
    worker.handle_timeout(Instant::ZERO + LEASE);
    drain(&mut worker);
    worker.handle_input(Instant::ZERO + LEASE, command(1, 2, Command::Probe { round: 1 }));
    assert_eq!(refused(&drain(&mut worker)), "command 2 was cut short: its lease ended");
}

#[test]
fn whoever_takes_over_ends_the_other_run_first() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 2, Command::CreateTopics(Vec::new())));
    drain(&mut worker);
    let Command::Prepare(mut preparation) = prepare() else { unreachable!("it is one") };
    preparation.take_over = true;
    worker.handle_input(Instant::ZERO, command(2, 1, Command::Prepare(preparation)));
    let outputs = drain(&mut worker);
    let [Output::Reply(Response { run: RunId(1), number: 2, outcome: Err(failure), .. }), rest] = &outputs[..] else {
        panic!("the caller that waited is informed: {outputs:?}")
    };
    assert_eq!(failure.kind, FailureKind::Forgotten);
    assert_eq!(*rest, Output::Perform { ticket: 3, command: Command::Close });
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 3, outcome: Ok(Event::Done) });
    let outputs = drain(&mut worker);
    assert!(matches!(
        outputs[..],
        [Output::Freed(RunId(1)), Output::Follows { run: RunId(2), .. }, Output::Perform { ticket: 4, .. }]
    ));
    worker.handle_input(Instant::ZERO, command(1, 3, READ));
    assert_eq!(refused(&drain(&mut worker)), "it follows somebody (run 0000000000000002)");
}

#[test]
fn missing_commands_and_other_versions_are_refused() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 4, Command::Probe { round: 1 }));
    assert_eq!(refused(&drain(&mut worker)), "command 4 came after 1: those in between were never heard here");
    let request = Request { version: 9, run: RunId(1), number: 2, sent: None, command: Command::Probe { round: 1 } };
    worker.handle_input(Instant::ZERO, Input::Command(request));
    let want = format!("the controller speaks version 9 of the protocol, this worker {}", crate::protocol::VERSION);
    assert_eq!(refused(&drain(&mut worker)), want);
    let mut idle = Worker::new(WallTime(WALL), Terms::foreign());
    idle.handle_input(Instant::ZERO, command(3, 2, READ));
    assert!(refused(&drain(&mut idle)).starts_with("it knows nothing of run 0000000000000003, though this is its"));
}

#[test]
fn close_overtakes_and_its_answer_is_the_one_that_counts() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 2, Command::CreateTopics(Vec::new())));
    drain(&mut worker);
    worker.handle_input(Instant::ZERO, command(1, 3, Command::Close));
    let outputs = drain(&mut worker);
    assert!(matches!(outputs[0], Output::Reply(Response { number: 2, outcome: Err(_), .. })), "cut short");
    assert_eq!(outputs[1..], [Output::Perform { ticket: 3, command: Command::Close }]);
    let cut_short = Err(Failure::new(FailureKind::Broken, "cut short"));
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 2, outcome: cut_short });
    assert_eq!(drain(&mut worker), []);
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 3, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [reply(1, 3, Event::Done), Output::Freed(RunId(1))]);
    assert_eq!(worker.run(), None);
}

/// The load stops, what was counted stays for a controller that comes back, and then the worker is free.
#[test]
fn a_silent_controller_loses_its_lease() {
    let mut worker = prepared();
    let later = Instant::ZERO + Duration::from_secs(10);
    perform(&mut worker, later, 2, READ);
    worker.handle_timeout(Instant::ZERO + LEASE);
    assert_eq!(drain(&mut worker), [], "it was heard since");
    worker.handle_timeout(later + LEASE);
    let stop = Command::StopLoad { within: DRAIN_WITHIN };
    assert_eq!(drain(&mut worker), [Output::LeaseExpired(RunId(1)), Output::Perform { ticket: 3, command: stop }]);

    // It comes back while the load is being stopped, and is informed.
    let back = later + LEASE + SECOND;
    worker.handle_input(back, command(1, 3, READ));
    assert_eq!(drain(&mut worker), [], "the stop is in progress");
    worker.handle_input(back, Input::Done { ticket: 3, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [Output::Perform { ticket: 4, command: READ }]);
    worker.handle_input(back, Input::Done { ticket: 4, outcome: Ok(Event::Done) });
    let outputs = drain(&mut worker);
    assert!(matches!(outputs[..], [Output::Reply(Response { number: 3, lease_ended: true, outcome: Ok(_), .. })]));

    // And falls silent again.
    worker.handle_timeout(back + LEASE);
    drain(&mut worker);
    worker.handle_input(back + LEASE, Input::Done { ticket: 5, outcome: Ok(Event::Done) });
    worker.handle_timeout(back + LEASE + LEASE);
    assert_eq!(drain(&mut worker), [Output::Perform { ticket: 6, command: Command::Close }]);
    assert_eq!((worker.poll_timeout(), worker.run()), (None, None));
    worker.handle_input(back + LEASE + LEASE, command(1, 4, READ));
    assert_eq!(refused(&drain(&mut worker)), "run 0000000000000001 was closed here: its lease ended");
}

/// There was nothing to stop, and the load that begins later is whole. (The simulation found a worker that was given up
/// because of it.)
#[test]
fn a_lease_that_ended_before_the_load_does_not_count_against_it() {
    let mut worker = prepared();
    let late = Instant::ZERO + LEASE;
    worker.handle_timeout(late);
    drain(&mut worker);
    worker.handle_input(late, Input::Done { ticket: 2, outcome: Ok(Event::Done) });
    assert!(perform(&mut worker, late, 2, Command::Probe { round: 1 }).lease_ended, "the answer says so");
    let rate = crate::rate::Rate::per_second(1).expect("in range");
    let begin = crate::protocol::command::Begin::After(SECOND);
    let start = Command::StartLoad { tempo: rate.into(), producers: 1, begin, window: None, correction: 0 };
    assert!(!perform(&mut worker, late, 3, start).lease_ended);
    assert!(!perform(&mut worker, late, 4, READ).lease_ended);
}

/// A worker that stood still finds a command whose controller may be long gone: the lease counts from when it was sent.
#[test]
fn the_lease_counts_from_when_a_command_was_sent() {
    let mut worker = prepared();
    let at = |seconds: u32| Instant::ZERO + SECOND * seconds;
    let sent = |seconds, number| {
        let sent = Some(WallTime(WALL + at(seconds).0));
        Input::Command(Request {
            version: protocol::VERSION,
            run: RunId(1),
            number,
            sent,
            command: Command::Probe { round: 1 },
        })
    };
    worker.handle_input(at(29), sent(20, 2));
    assert_eq!(drain(&mut worker), [Output::Perform { ticket: 2, command: Command::Probe { round: 1 } }]);
    worker.handle_input(at(29), Input::Done { ticket: 2, outcome: Ok(Event::Done) });
    drain(&mut worker);
    assert_eq!(worker.poll_timeout().map(|wake| wake.at), Some(at(50)));
    worker.handle_input(at(60), sent(29, 3));
    assert_eq!(refused(&drain(&mut worker)), "command 3 was sent 31s ago, which is longer than its lease");
}

#[test]
fn a_shutdown_drains_and_closes_first() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, Input::Shutdown);
    let stop = Command::StopLoad { within: DRAIN_WITHIN };
    assert_eq!(drain(&mut worker), [Output::Perform { ticket: 2, command: stop }]);
    worker.handle_input(Instant::ZERO, command(1, 2, READ));
    assert_eq!(refused(&drain(&mut worker)), "this worker is being shut down");
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 2, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [Output::Perform { ticket: 3, command: Command::Close }]);
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 3, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [Output::Freed(RunId(1))], "the refusal is still on its way");
    let left = Instant::ZERO + FAREWELL_LEAVES_WITHIN;
    assert_eq!(worker.poll_timeout().map(|wake| wake.at), Some(left));
    worker.handle_timeout(left);
    assert_eq!(drain(&mut worker), [Output::ShutDown]);
    assert_eq!(worker.poll_timeout(), None);
    let mut idle = Worker::new(WallTime(WALL), Terms::foreign());
    idle.handle_input(Instant::ZERO, Input::Shutdown);
    assert_eq!(drain(&mut idle), [Output::ShutDown]);
}

/// Its controller asks for nothing but the clock between two reads; it would search for a worker that is gone without a
/// word.
#[test]
fn a_worker_that_shuts_down_stays_until_its_controller_knows() {
    let ended = || {
        let mut worker = prepared();
        worker.handle_input(Instant::ZERO, Input::Shutdown);
        worker.handle_input(Instant::ZERO, Input::Done { ticket: 2, outcome: Ok(Event::Done) });
        worker.handle_input(Instant::ZERO + SECOND, Input::Done { ticket: 3, outcome: Ok(Event::Done) });
        assert_eq!(drain(&mut worker).last(), Some(&Output::Freed(RunId(1))));
        worker
    };
    let ping = |run| Input::Heard(Ping { run: RunId(run), sent: None });
    let (closed, asked) = (Instant::ZERO + SECOND, Instant::ZERO + 2 * SECOND);
    let mut worker = ended();
    // A ping of another run does not inform its controller.
    worker.handle_input(asked, ping(9));
    assert_eq!(worker.poll_timeout().map(|wake| wake.at), Some(closed + FAREWELL_WITHIN));
    worker.handle_input(asked, ping(1));
    worker.handle_timeout(asked + FAREWELL_LEAVES_WITHIN);
    assert_eq!(drain(&mut worker), [Output::ShutDown]);
    // It does not wait long for a controller that is gone itself.
    let mut worker = ended();
    worker.handle_timeout(closed + FAREWELL_WITHIN);
    assert_eq!(drain(&mut worker), [Output::ShutDown]);
    // A caller that waited for an answer has one.
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 2, Command::Probe { round: 1 }));
    drain(&mut worker);
    worker.handle_input(Instant::ZERO, Input::Shutdown);
    assert!(matches!(
        &drain(&mut worker)[..],
        [Output::Reply(_), Output::Perform { ticket: 3, command: Command::Close }]
    ));
    worker.handle_input(closed, Input::Done { ticket: 3, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [Output::Freed(RunId(1)), Output::ShutDown]);
}

/// A run that is stopped while it is set up: its topics are deleted without waiting for what is in progress, which may never have
/// arrived here.
#[test]
fn the_deletion_of_topics_overtakes() {
    let delete =
        || Command::DeleteTopics { within: Duration::from_secs(1), topics: vec!["t".to_owned()], groups: Vec::new() };
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 2, Command::CreateConsumers(Vec::new())));
    drain(&mut worker);
    worker.handle_input(Instant::ZERO, command(1, 3, delete()));
    let outputs = drain(&mut worker);
    assert_eq!(refused(&outputs[..1]), "command 2 was cut short: the run is being cleaned up");
    assert_eq!(outputs[1..], [Output::Perform { ticket: 3, command: delete() }]);
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 2, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [], "no caller waits for it any more");
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 3, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [reply(1, 3, Event::Done)]);
    // Command 2 was in flight when the next one took its place.
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 3, delete()));
    assert_eq!(drain(&mut worker), [Output::Perform { ticket: 2, command: delete() }]);
    // Nothing else may skip one.
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 3, Command::Probe { round: 1 }));
    assert!(refused(&drain(&mut worker)).contains("never heard here"));
}

/// A stop may take as long as a lease; the controller that waits for it has not fallen silent.
#[test]
fn a_controller_that_waits_keeps_its_lease() {
    let mut worker = prepared();
    let (within, second) = (Duration::from_secs(30), Duration::from_secs(1));
    worker.handle_input(Instant::ZERO, command(1, 2, Command::StopLoad { within }));
    drain(&mut worker);
    worker.handle_timeout(Instant::ZERO + LEASE + within - second);
    assert_eq!(drain(&mut worker), [], "it waits for the stop");
    let done = Instant::ZERO + within + second;
    worker.handle_input(done, Input::Done { ticket: 2, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [reply(1, 2, Event::Done)]);
    worker.handle_timeout(done + LEASE - second);
    assert_eq!(drain(&mut worker), [], "from the answer on it has a whole lease");
    worker.handle_timeout(done + LEASE);
    assert!(matches!(drain(&mut worker)[..], [Output::LeaseExpired(RunId(1)), _]));

    // A stop that never ends does not hold a worker for ever.
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 2, Command::StopLoad { within }));
    drain(&mut worker);
    worker.handle_timeout(Instant::ZERO + LEASE + within);
    let outputs = drain(&mut worker);
    assert!(matches!(outputs[0], Output::LeaseExpired(RunId(1))));
    assert_eq!(outputs.last(), Some(&Output::Perform { ticket: 3, command: Command::Close }));
}

/// It reaches the log, the page, the metrics, and every controller that is refused because of it.
#[test]
fn the_name_of_a_controller_forges_no_line() {
    let name = format!("omb\n2026-01-01 00:00:00 - omb - ERROR - \u{1b}[31m\u{202e}{}", "x".repeat(1 << 20));
    let mut worker = Worker::new(WallTime(WALL), Terms::foreign());
    worker.handle_input(Instant::ZERO, command(1, 1, prepare_by(&name)));
    let outputs = drain(&mut worker);
    let [Output::Follows { controller, .. }, ..] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(controller.starts_with(r"omb\n2026-01-01 00:00:00 - omb - ERROR - \u{1b}[31m\u{202e}xxx"), "{controller}");
    assert_eq!(controller.chars().count(), CONTROLLER_MAX);
    worker.handle_input(Instant::ZERO, command(2, 1, prepare_by("another")));
    let outputs = drain(&mut worker);
    assert!(!refused(&outputs).contains(char::is_control) && refused(&outputs).contains(controller.as_str()));
    // The same controller is recognised again, whatever its name.
    worker.handle_input(Instant::ZERO, command(3, 1, prepare_by(&name)));
    assert!(drain(&mut worker).iter().any(|output| matches!(output, Output::Perform { command: Command::Close, .. })));
}

#[derive(Clone, Debug)]
enum Step {
    Ask { run: u64, number: u64, what: u8 },
    Finish { newest: bool },
    Wait { seconds: u64 },
    Shutdown,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..3_u64, 1..8_u64, 0..6_u8).prop_map(|(run, number, what)| Step::Ask { run, number, what }),
        6 => any::<bool>().prop_map(|newest| Step::Finish { newest }),
        2 => (1..80_u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Shutdown),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    /// Whatever arrives, in whatever order and however often: each command of a run is performed at most once, a run
    /// begins at most once and only when no other one is followed or being closed, and nothing is performed for a run
    /// that was closed. Every caller is answered once the command in progress is done.
    #[test]
    fn each_command_takes_effect_once(steps in prop::collection::vec(step(), 0..80)) {
        let mut worker = Worker::new(WallTime(WALL), Terms::foreign());
        let (mut begun, mut open, mut now) = (Vec::new(), Vec::<(u64, bool)>::new(), Instant::ZERO);
        let (mut current, mut kinds) = (None, BTreeMap::<(u64, u64), u32>::new());
        let mut closing = false;
        for step in steps {
            let mut asked = None;
            match step {
                Step::Ask { run, number, what } => {
                    let Command::Prepare(mut preparation) = prepare() else { unreachable!("it is one") };
                    preparation.take_over = what == 5;
                    preparation.controller = run.to_string();
                    let command_asked = match what {
                        0 | 5 => Command::Prepare(preparation),
                        1 => Command::Close,
                        2 => Command::Probe { round: 1 },
                        3 => READ,
                        _ => Command::PauseConsumers,
                    };
                    asked = Some((run, number));
                    worker.handle_input(now, command(run, number, command_asked));
                }
                Step::Finish { newest } => {
                    let done = if newest { open.pop() } else { (!open.is_empty()).then(|| open.remove(0)) };
                    if let Some((ticket, _)) = done {
                        worker.handle_input(now, Input::Done { ticket, outcome: Ok(Event::Done) });
                    }
                }
                Step::Wait { seconds } => {
                    now += Duration::from_secs(seconds);
                    worker.handle_timeout(now);
                }
                Step::Shutdown => worker.handle_input(now, Input::Shutdown),
            }
            for output in drain(&mut worker) {
                match output {
                    Output::Follows { run, .. } => {
                        prop_assert!(!begun.contains(&run), "run {run} began twice");
                        prop_assert!(current.is_none(), "run {run} began while {current:?} is there");
                        begun.push(run);
                        (current, closing) = (Some(run), false);
                    }
                    Output::Freed(run) => {
                        prop_assert!(current == Some(run), "{run} freed, {current:?} was there");
                        current = None;
                    }
                    Output::Perform { ticket, command } => {
                        prop_assert!(current.is_some(), "{command:?} without a run");
                        prop_assert!(!closing || command == Command::Close, "{command:?} after the close");
                        closing |= command == Command::Close;
                        if let Some(asked) = asked.filter(|_| command == Command::Probe { round: 1 }) {
                            let times = kinds.entry(asked).or_default();
                            *times += 1;
                            prop_assert!(*times == 1, "{asked:?} was performed twice");
                        }
                        open.push((ticket, closing));
                    }
                    _ => {}
                }
            }
        }
    }
}

fn prepare_with(property: &str, value: &str, take_over: bool) -> Command {
    let Command::Prepare(mut preparation) = prepare_by("mallory") else { unreachable!("made above") };
    let producer = BTreeMap::from([(property.to_owned(), value.into())]);
    preparation.driver.kind = DriverKind::Kafka(KafkaConfig { producer, ..KafkaConfig::default() });
    preparation.take_over = take_over;
    Command::Prepare(preparation)
}

/// Settings that could run code on the worker's machine begin no run, and end no other run either.
#[test]
fn hostile_settings_are_refused_before_anything_else() {
    let refused = |outputs: Vec<Output>| match &outputs[..] {
        [Output::Reply(Response { outcome: Err(failure), .. })] => failure.clone(),
        other => panic!("refused and nothing else: {other:?}"),
    };
    let mut free = Worker::new(WallTime(WALL), Terms::foreign());
    free.handle_input(Instant::ZERO, command(7, 1, prepare_with("plugin.library.paths", "./evil.so", false)));
    let failure = refused(drain(&mut free));
    assert_eq!(failure.kind, FailureKind::Configuration);
    assert!(failure.message.contains("producerConfig: plugin.library.paths: no worker takes this"), "{failure}");
    assert_eq!((free.run(), free.poll_timeout()), (None, None), "it is free, with no timer");

    let mut taken = prepared();
    taken.handle_input(Instant::ZERO + SECOND, command(7, 1, prepare_with("ssl.engine.location", "./evil.so", true)));
    assert!(refused(drain(&mut taken)).message.contains("ssl.engine.location"));
    assert_eq!(taken.run(), Some(RunId(1)), "the run that it was at goes on");

    let mut own = Worker::new(WallTime(WALL), Terms::own());
    own.handle_input(Instant::ZERO, command(7, 1, prepare_with("plugin.library.paths", "./mine.so", false)));
    assert!(
        matches!(&drain(&mut own)[..], [Output::Follows { .. }, Output::Perform { .. }]),
        "it is the person's own file"
    );
}

/// What is performed has the worker's own zone filled in; without a zone nothing is performed.
#[test]
fn a_zone_is_filled_in_before_anything_is_performed() {
    let mut worker = Worker::new(WallTime(WALL), Terms::foreign().in_zone("eu-1a"));
    worker.handle_input(Instant::ZERO, command(7, 1, prepare_with("client.rack", "{zone.id}", false)));
    let outputs = drain(&mut worker);
    let [Output::Follows { .. }, Output::Perform { command: Command::Prepare(preparation), .. }] = &outputs[..] else {
        panic!("performed: {outputs:?}")
    };
    let DriverKind::Kafka(kafka) = &preparation.driver.kind else { panic!("asked for Kafka") };
    assert_eq!(kafka.producer["client.rack"], "eu-1a");

    let mut nowhere = Worker::new(WallTime(WALL), Terms::foreign());
    nowhere.handle_input(Instant::ZERO, command(7, 1, prepare_with("client.rack", "{zone.id}", false)));
    let outputs = drain(&mut nowhere);
    let [Output::Reply(Response { outcome: Err(failure), .. })] = &outputs[..] else { panic!("refused: {outputs:?}") };
    assert!(failure.message.contains("--zone NAME"), "{failure}");
}
