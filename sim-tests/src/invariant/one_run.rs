//! B6: one worker obeys one run at a time.

use omb_core::{id::RunId, time::Instant, worker::Worker};
use omb_runtime_sim::truth::Truth;

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct OneRun {
    obeyed: Option<RunId>,
    /// Runs whose end this worker has seen.
    past: Vec<RunId>,
    producing: usize,
}

impl Promise for OneRun {
    fn name(&self) -> &'static str {
        "B6, one run at a time"
    }

    fn on_worker(&mut self, worker: &Worker, _: Instant, truth: &Truth, broken: &mut Broken) {
        let now = worker.run();
        match (self.obeyed, now) {
            (Some(before), Some(now)) if before != now => {
                broken.note(format_args!("run {now} took the worker from run {before}"));
            }
            (None, Some(now)) if self.past.contains(&now) => broken.note(format_args!("run {now} began once more")),
            (Some(before), None) => self.past.push(before),
            _ => {}
        }
        self.obeyed = now;
        // The second start of one load would count everything twice.
        if truth.rates.len() > self.producing {
            let starts = truth.rates.windows(2).filter(|pair| pair[0] == pair[1]).count();
            if starts > 0 {
                broken.note("one load was started twice");
            }
            self.producing = truth.rates.len();
        }
    }
}
