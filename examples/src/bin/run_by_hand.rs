//! Walks through one whole run in the terminal: the controller's machine, a worker that is a formula, and a clock that
//! moves only when something waits. No network, no broker, no time passes.
//!
//! ```text
//! cargo run -p omb-examples --bin run_by_hand
//! ```

use std::{collections::BTreeMap, ops::ControlFlow, time::Duration};

use omb_bench::{
    config::{
        driver::{DriverConfig, DriverKind, KafkaConfig},
        workload,
    },
    controller::{Controller, Input, Output, Settings},
    id::{RunId, SubscriptionId, WorkerId},
    plan::Plan,
    protocol::{
        Command, Event, Response,
        command::Begin,
        event::{Findings, GroupView, Missing, Snapshot},
    },
    stats::{
        sparse::SparseTotals,
        tally::{Seen, Totals},
    },
};
use omb_machine::{
    Machine,
    config::Leniency,
    seed::Seed,
    settle,
    time::{Instant, WallTime},
};
use omb_report::{context::Context, result::RunResult, table};

/// Every message is confirmed 2 ms, and received 3 ms, after it was due.
const ACKED_AFTER: u64 = 2_000_000;
const RECEIVED_AFTER: u64 = 3_000_000;

const WORKLOAD: &str = "
name: by-hand
topics: 1
partitionsPerTopic: 1
messageSize: 100
useRandomizedPayloads: true
randomBytesRatio: 1.0
randomizedPayloadPoolSize: 1
producersPerTopic: 1
producerRate: 1000
subscriptionsPerTopic: 1
consumerPerSubscription: 1
warmupDuration: 1s
testDuration: 3s
";

fn main() {
    let workload = workload::parse("by-hand.yaml", WORKLOAD, Leniency::Strict).expect("a sound workload").value;
    let driver = DriverConfig { name: "Formula".to_owned(), kind: DriverKind::Kafka(KafkaConfig::default()) };
    let plan = Plan::new(RunId(1), Seed(1), workload, 1);
    let context = Context::new(env!("CARGO_PKG_VERSION"), driver.clone());
    let mut now = Instant::ZERO;
    let mut controller = Controller::new(now, plan, Settings::new(driver));
    let mut worker = Worker::default();
    loop {
        let mut answers = Vec::new();
        let mut done = false;
        let rest = settle(&mut controller, now, |output| {
            match output {
                // One worker on the controller's own clock: nothing to measure, none to lose.
                Output::Ping { .. } | Output::WorkerLost { .. } => {}
                Output::Entered(phase) => println!("{:>9.3} s  ── {phase}", now.as_nanos() as f64 / 1e9),
                Output::ToWorker { worker: to, request, .. } => {
                    println!("{:>9.3} s     {to} is told to {}", now.as_nanos() as f64 / 1e9, request.command.name());
                    let outcome = Ok(worker.perform(now, &request.command));
                    answers.push(Response { run: request.run, number: request.number, outcome, lease_ended: false });
                }
                Output::Period(period) => println!("{}", table::period_line(&period)),
                Output::Report(report) => {
                    let result = RunResult::of(&report, &context);
                    println!("\n{}\n", table::result(&result, &[], 100).trim_end());
                }
                Output::Warning(text) => println!("warning: {text}"),
                Output::Misfit(failure) => println!("in the way: {failure}"),
                Output::Finished(end) => {
                    println!("{end:?}");
                    done = true;
                }
            }
            ControlFlow::Continue(())
        });
        if done {
            return;
        }
        let ControlFlow::Continue(wake) = rest else { unreachable!("nothing above breaks off") };
        if answers.is_empty() {
            // No machine has an output: the clock jumps to the next timeout.
            now = wake.expect("a run that waits for nothing has ended").at;
            controller.handle_timeout(now);
        }
        for response in answers {
            controller.handle_input(now, Input::FromWorker { worker: WorkerId(0), response });
        }
    }
}

/// A worker whose load is a formula.
#[derive(Default)]
struct Worker {
    /// From when to when message after message is due, and how many a second.
    load: Option<(Instant, Option<Instant>, f64)>,
    counted: Snapshot,
    totals: Totals,
}

impl Worker {
    fn perform(&mut self, now: Instant, command: &Command) -> Event {
        match command {
            Command::Prepare(_) => return Event::Prepared { system: "a formula".to_owned() },
            Command::StartLoad { tempo, begin: Begin::After(after), window, .. } => {
                let (begin, rate) = (now + *after, tempo.mean(Duration::ZERO, Duration::ZERO));
                self.load = Some((begin, window.map(|window| begin + window.until), rate));
            }
            Command::StopLoad { .. } => {
                if let Some((_, end, _)) = &mut self.load {
                    *end = Some(end.map_or(now, |end| end.min(now)));
                }
            }
            Command::Read { .. } => return Event::Read(Box::new(self.count(now))),
            Command::Verify => {
                let confirmed = self.totals.acknowledgements.acked;
                let missing = Missing { confirmed, missing: 0, by_count_only: false };
                let compared = BTreeMap::from([(SubscriptionId(0), missing)]);
                return Event::Verified(Box::new(Findings { compared, ..Findings::default() }));
            }
            _ => {}
        }
        Event::Done
    }

    fn count(&mut self, now: Instant) -> Snapshot {
        let snapshot = &mut self.counted;
        (snapshot.taken_at, snapshot.wall, snapshot.paths_open) = (now, WallTime(now.0), 1);
        let view = GroupView { joined: 1, generations: (1, 1), assigned: 1, ..GroupView::default() };
        snapshot.groups.insert(SubscriptionId(0), view);
        let Some((start, end, rate)) = self.load else { return snapshot.clone() };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
        let due_by = |at: Instant| (at.min(end.unwrap_or(at)).since(start).as_secs_f64() * rate) as u64;
        let totals = &mut self.totals;
        // After the end all that was sent is still answered, a little later.
        let late = |after: u64| if end.is_some_and(|end| end <= now) { now } else { now - Duration::from_nanos(after) };
        for _ in totals.departures.attempted..due_by(now) {
            totals.departures.attempted += 1;
            totals.departures.schedule_error.record(0);
        }
        for _ in totals.acknowledgements.acked..due_by(late(ACKED_AFTER)) {
            totals.acknowledgements.acked += 1;
            totals.acknowledgements.acked_bytes += 100;
            totals.acknowledgements.from_intended.record(ACKED_AFTER);
            totals.acknowledgements.from_sent.record(ACKED_AFTER);
        }
        for _ in totals.arrivals.received..due_by(late(RECEIVED_AFTER)) {
            totals.arrivals.received += 1;
            totals.arrivals.received_bytes += 100;
            totals.arrivals.from_intended.record(RECEIVED_AFTER);
            totals.arrivals.from_sent.record(RECEIVED_AFTER);
        }
        let received = totals.arrivals.received;
        totals.seen.insert(SubscriptionId(0), Seen { received, distinct: received, ..Seen::default() });
        snapshot.totals = SparseTotals::from(&*totals);
        snapshot.in_flight = totals.departures.attempted - totals.acknowledgements.acked;
        snapshot.clone()
    }
}
