use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    config::{
        driver::{DriverConfig, DriverKind},
        workload::{CatchUp, KeyDistributor, Verify},
    },
    load::payload::PayloadRecipe,
    protocol::command::Preparation,
    seed::Seed,
};

const LEASE: Duration = Duration::from_secs(30);

fn prepare() -> Command {
    Command::Prepare(Box::new(Preparation {
        driver: DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded },
        seed: Seed(1),
        payload: PayloadRecipe::Given(vec![0; 40]),
        keys: KeyDistributor::NoKey,
        catch_up: CatchUp::All,
        verify: Verify::Header,
        producers_per_topic: 1,
        lease: LEASE,
    }))
}

fn command(run: u64, number: u64, command: Command) -> Input {
    Input::Command(Request { version: protocol::VERSION, run: RunId(run), number, command })
}

fn drain(worker: &mut Worker) -> Vec<Output> {
    std::iter::from_fn(|| worker.poll_output()).collect()
}

fn reply(run: u64, number: u64, event: Event) -> Output {
    Output::Reply(Response { run: RunId(run), number, outcome: Ok(event) })
}

/// A worker that has performed `Prepare` of run 1.
fn prepared() -> Worker {
    let mut worker = Worker::new();
    worker.handle_input(Instant::ZERO, command(1, 1, prepare()));
    assert!(matches!(drain(&mut worker)[..], [Output::Perform { ticket: 1, command: Command::Prepare(_) }]));
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 1, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [reply(1, 1, Event::Done)]);
    worker
}

fn refused(outputs: &[Output]) -> &str {
    match outputs {
        [Output::Reply(Response { outcome: Err(failure), .. })] => &failure.message,
        other => panic!("expected one refusal, got {other:?}"),
    }
}

#[test]
fn a_repeated_command_is_performed_once_and_answered_again() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 2, Command::Probe));
    assert_eq!(drain(&mut worker), [Output::Perform { ticket: 2, command: Command::Probe }]);
    worker.handle_input(Instant::ZERO, command(1, 2, Command::Probe));
    assert_eq!(drain(&mut worker), [], "under way: the one answer will do");
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 2, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [reply(1, 2, Event::Done)]);
    worker.handle_input(Instant::ZERO, command(1, 2, Command::Probe));
    assert_eq!(drain(&mut worker), [reply(1, 2, Event::Done)]);
    worker.handle_input(Instant::ZERO, command(1, 1, prepare()));
    assert_eq!(drain(&mut worker), [], "an old copy");
}

#[test]
fn one_run_at_a_time() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(2, 1, prepare()));
    assert_eq!(refused(&drain(&mut worker)), "this worker obeys run 0000000000000001, not run 0000000000000002");
    worker.handle_input(Instant::ZERO, command(1, 2, Command::Close));
    drain(&mut worker);
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 2, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [reply(1, 2, Event::Done)]);
    worker.handle_input(Instant::ZERO, command(2, 1, prepare()));
    assert!(matches!(drain(&mut worker)[..], [Output::Perform { ticket: 3, .. }]));
}

#[test]
fn missing_commands_and_other_versions_are_refused() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 4, Command::Probe));
    assert_eq!(refused(&drain(&mut worker)), "command 4 came after 1: commands in between are missing");
    let request = Request { version: 9, run: RunId(1), number: 2, command: Command::Probe };
    worker.handle_input(Instant::ZERO, Input::Command(request));
    assert_eq!(refused(&drain(&mut worker)), "the controller speaks version 9 of the protocol, this worker 1");
    let mut idle = Worker::new();
    idle.handle_input(Instant::ZERO, command(3, 2, Command::Read));
    assert_eq!(refused(&drain(&mut idle)), "command 2 (read) of run 0000000000000003, which was never prepared here");
}

#[test]
fn close_overtakes_and_its_answer_is_the_one_that_counts() {
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 2, Command::CreateTopics(Vec::new())));
    drain(&mut worker);
    worker.handle_input(Instant::ZERO, command(1, 3, Command::Close));
    assert_eq!(drain(&mut worker), [Output::Perform { ticket: 3, command: Command::Close }]);
    let cut_short = Err(Failure::new(FailureKind::Broken, "cut short"));
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 2, outcome: cut_short });
    assert_eq!(drain(&mut worker), []);
    worker.handle_input(Instant::ZERO, Input::Done { ticket: 3, outcome: Ok(Event::Done) });
    assert_eq!(drain(&mut worker), [reply(1, 3, Event::Done)]);
    assert_eq!(worker.run(), None);
}

#[test]
fn a_silent_controller_loses_its_lease() {
    let mut worker = prepared();
    let later = Instant::ZERO + Duration::from_secs(10);
    worker.handle_input(later, command(1, 2, Command::Read));
    drain(&mut worker);
    worker.handle_timeout(Instant::ZERO + LEASE);
    assert_eq!(drain(&mut worker), [], "it was heard since");
    worker.handle_timeout(later + LEASE);
    assert_eq!(
        drain(&mut worker),
        [Output::LeaseExpired(RunId(1)), Output::Perform { ticket: 3, command: Command::Close }]
    );
    assert_eq!(worker.poll_timeout(), None);
    worker.handle_input(later + LEASE, command(1, 3, Command::Read));
    assert_eq!(refused(&drain(&mut worker)), "run 0000000000000001 was closed here: its lease ended");
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

    // What never comes to its end does not hold a worker for ever.
    let mut worker = prepared();
    worker.handle_input(Instant::ZERO, command(1, 2, Command::StopLoad { within }));
    drain(&mut worker);
    worker.handle_timeout(Instant::ZERO + LEASE + within);
    assert!(matches!(drain(&mut worker)[..], [Output::LeaseExpired(RunId(1)), _]));
}

proptest! {
    /// Whatever arrives, in whatever order and however often: each number is performed at most once, performances
    /// of one run rise, and only one run is obeyed at a time.
    #[test]
    fn each_command_takes_effect_once(steps in prop::collection::vec((1..3_u64, 1..8_u64, 0..5_u8, any::<bool>()), 0..60)) {
        let mut worker = Worker::new();
        let mut performed: BTreeMap<u64, Vec<Command>> = BTreeMap::new();
        let (mut open, mut now) = (Vec::new(), Instant::ZERO);
        for (run, number, what, finish) in steps {
            now += Duration::from_secs(1);
            let asked = match what { 0 => prepare(), 1 => Command::Close, 2 => Command::Probe, 3 => Command::Read, _ => Command::PauseConsumers };
            let before = worker.run();
            worker.handle_input(now, command(run, number, asked));
            for output in drain(&mut worker) {
                if let Output::Perform { ticket, command } = output {
                    if matches!(command, Command::Prepare(_)) {
                        prop_assert!(before.is_none(), "another run was taken up while {before:?} is obeyed");
                        performed.insert(run, Vec::new());
                    } else {
                        prop_assert!(before == Some(RunId(run)) || command == Command::Close);
                    }
                    performed.entry(run).or_default().push(command);
                    open.push(ticket);
                }
            }
            if finish && let Some(ticket) = open.pop() {
                worker.handle_input(now, Input::Done { ticket, outcome: Ok(Event::Done) });
                prop_assert!(drain(&mut worker).len() <= 1);
            }
        }
        // Numbers are 1..8, so one run performs fewer than 8 commands however often they are repeated.
        prop_assert!(performed.values().all(|commands| commands.len() < 8), "{:?}", performed);
    }
}
