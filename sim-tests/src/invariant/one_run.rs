//! B6: one worker obeys one run at a time, and performs each of its commands once.

use std::collections::BTreeMap;

use omb_core::{controller::Output, id::RunId, protocol::Command, time::Instant, worker::Worker};
use omb_runtime_sim::truth::Truth;

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct OneRun(BTreeMap<u32, One>, BTreeMap<u32, u64>);

/// One worker's.
#[derive(Debug, Default)]
struct One {
    obeyed: Option<RunId>,
    /// Runs whose end this process has seen.
    past: Vec<RunId>,
    schedules: usize,
}

/// Commands that come once in a run.
const ONCE: [&str; 4] = ["create topics", "create consumers", "create producers", "start load"];

impl Promise for OneRun {
    fn name(&self) -> &'static str {
        "B6, one run at a time"
    }

    fn on_output(&mut self, output: &Output, _: &Truth, broken: &mut Broken) {
        if let Output::ToWorker { worker, request, .. } = output
            && matches!(request.command, Command::StartLoad { .. })
            && *self.1.entry(worker.0).or_insert(request.number) != request.number
        {
            broken.note(format_args!("{worker} is told to start the load once more"));
        }
    }

    fn on_birth(&mut self, worker: u32) {
        self.0.remove(&worker);
    }

    fn on_worker(&mut self, worker: u32, machine: &Worker, _: Instant, truth: &Truth, broken: &mut Broken) {
        let one = self.0.entry(worker).or_default();
        let now = machine.run();
        match (one.obeyed, now) {
            // Also a take-over closes the one before it begins the other.
            (Some(before), Some(now)) if before != now => {
                broken.note(format_args!("run {now} took worker {worker} from run {before}"));
            }
            (None, Some(now)) if one.past.contains(&now) => {
                broken.note(format_args!("run {now} began once more at worker {worker}"));
            }
            (Some(before), None) => one.past.push(before),
            _ => {}
        }
        one.obeyed = now;
        let performed = &truth.workers[worker as usize].performed;
        for (name, times) in performed.iter().filter(|(name, times)| **times > 1 && ONCE.contains(*name)) {
            broken.note(format_args!("worker {worker} performed \"{name}\" {times} times"));
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
