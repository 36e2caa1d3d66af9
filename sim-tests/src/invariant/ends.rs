//! B1: a run ends within its bound, with a result or a named cause.
//!
//! The bound is `Settings::longest`. Phases only go forward; a run whose load began publishes its result, once, before
//! it tears anything down. Every worker that was sent anything and was not given up is told to close before the run
//! ends.

use std::collections::BTreeSet;

use omb_bench::{
    controller::{Controller, End, OnLoss, Output},
    id::WorkerId,
    protocol::Command,
    result::Phase,
};
use omb_machine::{Machine, time::Instant};
use omb_runtime_sim::{scenario::Scenario, truth::Truth, world::Ended};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Ends {
    phase: Option<Phase>,
    load_began: bool,
    verified_again: bool,
    /// Why workers were given up under load, while others were left.
    lost: Vec<String>,
    left: Option<u32>,
    /// Steps after which it asked to be woken at once.
    restless: u32,
    reports: u32,
    finished: bool,
    /// Workers to which something was sent, that were not given up, and that were not told to close.
    open: BTreeSet<WorkerId>,
}

const RESTLESS_MAX: u32 = 10_000;

impl Promise for Ends {
    fn name(&self) -> &'static str {
        "B1, a run ends"
    }

    fn on_output(&mut self, output: &Output, _: &Truth, broken: &mut Broken) {
        if self.finished {
            broken.note(format_args!("an output follows the last one: {output:?}"));
        }
        match output {
            Output::ToWorker { worker, request, .. } if request.command == Command::Close => {
                _ = self.open.remove(worker)
            }
            Output::ToWorker { worker, .. } => _ = self.open.insert(*worker),
            Output::WorkerLost { worker, .. } => _ = self.open.remove(worker),
            _ => {}
        }
        match output {
            Output::Entered(phase) => {
                // A comparison that finds confirmed messages missing, though the counts agreed, is repeated once after
                // silence; nothing else ever goes back.
                let again = (self.phase, *phase) == (Some(Phase::Verify), Phase::Drain) && !self.verified_again;
                self.verified_again |= again;
                if !again && self.phase.is_some_and(|before| before >= *phase) {
                    broken.note(format_args!("phase {phase} follows {:?}", self.phase));
                }
                if *phase == Phase::TearDown && self.load_began && self.reports == 0 {
                    broken.note("the load had begun, and it is torn down without a result");
                }
                self.phase = Some(*phase);
                self.load_began |= *phase == Phase::WarmUp;
            }
            Output::Report(_) => self.reports += 1,
            Output::WorkerLost { cause, .. } if !cause.trim().is_empty() => {
                self.left = self.left.map(|left| left - 1);
                if self.load_began && self.left > Some(0) && self.phase < Some(Phase::TearDown) {
                    self.lost.push(cause.clone());
                }
            }
            Output::WorkerLost { worker, cause } if cause.trim().is_empty() => {
                broken.note(format_args!("{worker} was given up without a cause"));
            }
            Output::Finished(end) => {
                self.finished = true;
                let unnamed = match end {
                    End::Failed(failure) => failure.message.trim().is_empty(),
                    End::Unsound(reasons) => reasons.is_empty() || reasons.iter().any(|reason| reason.is_empty()),
                    End::Sound | End::Interrupted(_) => false,
                };
                if !self.open.is_empty() {
                    broken.note(format_args!("it ended {end:?}, and did not tell {:?} to close", self.open));
                }
                if unnamed {
                    broken.note(format_args!("it ended without a cause: {end:?}"));
                }
                if let End::Interrupted(reported) = end
                    && *reported != (self.reports > 0)
                {
                    broken.note(format_args!("{end:?} after {} reports", self.reports));
                }
            }
            _ => {}
        }
    }

    fn on_controller(&mut self, controller: &Controller, now: Instant, _: &Truth, _: &mut Broken) {
        self.left.get_or_insert(controller.plan().workers);
        let wake = controller.poll_timeout().filter(|wake| wake.at <= now);
        self.restless = if wake.is_some() { self.restless + 1 } else { 0 };
        // It would continue like this until the bound, a few nanoseconds at a time.
        assert!(self.restless < RESTLESS_MAX, "the controller is woken again and again and does nothing: {wake:?}");
    }

    fn at_end(&mut self, _: &Scenario, outcome: &Ended, _: &Truth, broken: &mut Broken) {
        if let Some(End::Failed(failure)) = &outcome.end
            && outcome.settings.on_loss == OnLoss::Continue
            && self.lost.contains(&failure.message)
        {
            broken.note(format_args!("it was to go on without a lost worker, and failed: {failure}"));
        }
        if let Some(end @ (End::Sound | End::Unsound(_))) = &outcome.end
            && outcome.settings.on_loss == OnLoss::Fail
            && let Some(cause) = self.lost.first()
        {
            broken.note(format_args!("it was to fail with a lost worker, and ended {end:?}: {cause}"));
        }
        match &outcome.end {
            // Only the living can end.
            None if outcome.killed => {}
            None => broken.note(format_args!("no end after {:?}, in phase {:?}", outcome.bound, self.phase)),
            Some(end) if outcome.took > outcome.bound => {
                broken.note(format_args!("{end:?} after {:?}, the bound is {:?}", outcome.took, outcome.bound));
            }
            Some(End::Sound | End::Unsound(_)) if self.reports != 1 => {
                broken.note(format_args!("{} reports of a run that went to its end", self.reports));
            }
            Some(_) if self.reports > 1 => broken.note(format_args!("{} reports", self.reports)),
            Some(_) => {}
        }
    }
}
