//! B5: after the end of a run, however it came, plus the lease, no worker produces; and none does once the producers
//! are said to have stopped.

use omb_core::{controller::Controller, report::Phase, time::Instant};
use omb_runtime_sim::{event_loop::Clock as _, truth::Truth, world::Outcome};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Silence {
    at_drain: Option<usize>,
}

impl Promise for Silence {
    fn name(&self) -> &'static str {
        "B5, silence after the end"
    }

    fn on_controller(&mut self, controller: &Controller, _: Instant, truth: &Truth, broken: &mut Broken) {
        if matches!(controller.phase(), Phase::Drain | Phase::Verify) {
            let before = *self.at_drain.get_or_insert(truth.attempts.len());
            if truth.attempts.len() > before {
                broken.note(format_args!("{} messages left after the stop", truth.attempts.len() - before));
                self.at_drain = Some(truth.attempts.len());
            }
        }
    }

    fn at_end(&mut self, outcome: &Outcome, truth: &Truth, broken: &mut Broken) {
        let clock =
            omb_runtime_sim::clock::Clock::new(madsim::time::TimeHandle::current(), outcome.scenario.client_clock);
        // Two processes may be out of each other's reach; in one, the last command has been performed.
        let grace =
            if outcome.scenario.linked { clock.true_span(outcome.settings.lease) } else { std::time::Duration::ZERO };
        let limit = outcome.ended_at + grace + std::time::Duration::from_millis(10);
        if let Some(last) = truth.last_attempt.filter(|last| *last > limit) {
            broken.note(format_args!("a message left at {last:?}, the run ended at {:?}", outcome.ended_at));
        }
    }
}
