//! B6: one worker follows one run at a time, and performs each of its commands once.

use std::collections::BTreeMap;

use omb_bench::{controller::Output, id::RunId, protocol::Command, worker::Worker};
use omb_machine::time::Instant;
use omb_runtime_sim::truth::Truth;

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct OneRun {
    workers: BTreeMap<u32, One>,
    /// By worker and command, how often it was given, and the number of the last one.
    given: BTreeMap<(u32, &'static str), (u32, u64)>,
}

/// One worker's.
#[derive(Debug, Default)]
struct One {
    followed: Option<RunId>,
    /// Runs whose end this process has seen.
    past: Vec<RunId>,
    schedules: usize,
}

/// What a worker does by itself when no controller leads it, and the first command, which is performed before its run
/// is known.
const UNASKED: [&str; 3] = ["prepare", "stop load", "close"];

impl Promise for OneRun {
    fn name(&self) -> &'static str {
        "B6, one run at a time"
    }

    fn on_output(&mut self, output: &Output, _: &Truth, broken: &mut Broken) {
        if let Output::ToWorker { worker, request, .. } = output {
            let given = self.given.entry((worker.0, request.command.name())).or_default();
            // The same number again is the same command, sent again.
            *given = (given.0 + u32::from(given.1 != request.number), request.number);
            if matches!(request.command, Command::StartLoad { .. }) && given.0 > 1 {
                broken.note(format_args!("{worker} is told to start the load once more"));
            }
        }
    }

    fn on_birth(&mut self, worker: u32) {
        self.workers.remove(&worker);
    }

    fn on_worker(&mut self, worker: u32, machine: &Worker, _: Instant, truth: &Truth, broken: &mut Broken) {
        let one = self.workers.entry(worker).or_default();
        let now = machine.run();
        match (one.followed, now) {
            // Even a take-over closes the previous run before it begins the next.
            (Some(before), Some(now)) if before != now => {
                broken.note(format_args!("run {now} took worker {worker} from run {before}"));
            }
            (None, Some(now)) if one.past.contains(&now) => {
                broken.note(format_args!("run {now} began once more at worker {worker}"));
            }
            (Some(before), None) => one.past.push(before),
            _ => {}
        }
        one.followed = now;
        let performed = &truth.workers[worker as usize].performed;
        for (name, times) in performed.iter().filter(|(name, _)| !UNASKED.contains(*name)) {
            let given = self.given.get(&(worker, name)).map_or(0, |(given, _)| *given);
            if *times > given {
                broken.note(format_args!("worker {worker} was given {given} of \"{name}\" and performed {times}"));
            }
        }
        // The second start of one load would count everything twice.
        let mine = &truth.workers[worker as usize];
        if mine.schedules.len() > one.schedules {
            one.schedules = mine.schedules.len();
            let starts =
                mine.schedules[mine.first_schedule..].windows(2).filter(|pair| pair[0].start == pair[1].start).count();
            if starts > 0 {
                broken.note(format_args!("one load was started twice at worker {worker}"));
            }
        }
    }
}
