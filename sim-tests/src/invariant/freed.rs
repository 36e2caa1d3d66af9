//! A worker whose controller is gone is free again after twice its lease, whatever happens to the broker.

use std::{collections::BTreeMap, time::Duration};

use omb_bench::{id::RunId, worker::Worker};
use omb_runtime_sim::{
    fault::{Trouble, Who, process},
    scenario::Scenario,
    truth::Truth,
    world::Ended,
};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Freed {
    /// The run that each worker followed when it was last seen.
    followed: BTreeMap<u32, Option<RunId>>,
}

/// Longest that a worker takes for its last delivery reports and to close its clients, beyond the lease for which it
/// keeps its counts.
const CLOSES_WITHIN: Duration = Duration::from_secs(8);

impl Promise for Freed {
    fn name(&self) -> &'static str {
        "workers are free after twice the lease"
    }

    fn on_birth(&mut self, worker: u32) {
        self.followed.remove(&worker);
    }

    fn on_worker(&mut self, worker: u32, machine: &Worker, _: omb_machine::time::Instant, _: &Truth, _: &mut Broken) {
        self.followed.insert(worker, machine.run());
    }

    fn at_end(&mut self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        if !scenario.linked {
            return;
        }
        let now = madsim::time::TimeHandle::current().elapsed();
        for (worker, mine) in (0..).zip(&truth.workers) {
            // A worker that stands still, or is dead, frees nothing.
            let gone = scenario.suffers(|trouble| match trouble {
                Trouble::Process(process::Trouble::Paused(who)) => *who == Who::Worker(worker),
                Trouble::Process(process::Trouble::Killed(it)) => *it == worker,
                _ => false,
            });
            let Some(left) = mine.leases_ended.last().filter(|_| !gone) else { continue };
            let due = *left + ended.settings.lease.mul_f64(1.1) + CLOSES_WITHIN;
            if now > due && self.followed.get(&worker) == Some(&Some(ended.plan.run)) {
                broken.note(format_args!(
                    "worker {worker} found its controller gone at {left:?}, and is not free at {now:?}"
                ));
            }
        }
    }
}
