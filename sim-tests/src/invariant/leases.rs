//! A worker takes its controller for gone only if something kept it from being heard.
//!
//! Nor does a controller give up a worker that it can reach. What ended before a load does not count against it. A controller waits for its slowest worker; the others must not lose patience meanwhile.

use std::time::Duration;

use omb_core::controller::Output;
use omb_runtime_sim::{
    fault::{Planned, Trouble, Who, network, process},
    scenario::Scenario,
    truth::Truth,
    world::Ended,
};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Leases {
    /// Workers that were given up, and when, in true time.
    lost: Vec<(u32, Duration, String)>,
}

/// After a trouble, longest until what was sent meanwhile, or is sent again, has arrived.
const BACK: Duration = Duration::from_secs(4);

impl Promise for Leases {
    fn name(&self) -> &'static str {
        "no lease ends without a cause"
    }

    fn on_output(&mut self, output: &Output, truth: &Truth, broken: &mut Broken) {
        let Output::WorkerLost { worker, cause } = output else { return };
        self.lost.push((worker.0, madsim::time::TimeHandle::current().elapsed(), cause.clone()));
        let mine = &truth.workers[worker.0 as usize];
        let begun = mine.schedules.get(mine.first_schedule).map(|first| first.given);
        let under_load = begun.is_some_and(|begun| mine.leases_ended.iter().any(|at| *at >= begun));
        if cause.contains("stopped its load by itself") && !under_load {
            broken.note(format_args!("{worker} is given up since it stopped its load, which it did not: {cause}"));
        }
    }

    fn at_end(&mut self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        for (worker, at, cause) in &self.lost {
            let since = at.saturating_sub(ended.settings.setup_within + BACK);
            let caused = |it: &Planned| it.at <= *at && (it.until() >= since || lasting(&it.trouble, *worker));
            let excused =
                scenario.troubles.iter().any(|it| caused(it) && silences(&it.trouble, *worker, scenario.linked));
            if !excused && scenario.second.is_none() {
                broken
                    .note(format_args!("worker {worker} is given up at {at:?}, and nothing is wrong with it: {cause}"));
            }
        }
        for (worker, mine) in (0..).zip(&truth.workers) {
            for at in &mine.leases_ended {
                let since = at.saturating_sub(ended.settings.lease.mul_f64(1.05) + BACK);
                let caused = |it: &Planned| it.at <= *at && (it.until() >= since || lasting(&it.trouble, worker));
                let excused =
                    scenario.troubles.iter().any(|it| caused(it) && silences(&it.trouble, worker, scenario.linked));
                // Whom its controller has given up, it does not speak to any more.
                let given_up = self.lost.iter().any(|(lost, when, _)| *lost == worker && when <= at);
                if *at < ended.ended_at && !excused && !given_up {
                    broken.note(format_args!(
                        "at {at:?} worker {worker} had not heard its controller for its lease, and nothing kept it from that"
                    ));
                }
            }
        }
    }
}

/// Whether its effect stays: a controller that is gone, a worker that has forgotten everything.
fn lasting(trouble: &Trouble, worker: u32) -> bool {
    match trouble {
        Trouble::Process(process::Trouble::Killed(it) | process::Trouble::Shutdown(it)) => *it == worker,
        Trouble::Process(process::Trouble::ControllerKilled) => true,
        _ => false,
    }
}

/// Whether it can keep this worker from hearing its controller, or from telling what it did.
fn silences(trouble: &Trouble, worker: u32, linked: bool) -> bool {
    let concerns = |who: &Who| *who == Who::Controller || *who == Who::Worker(worker);
    match trouble {
        Trouble::Broker(_) => !linked,
        Trouble::Network(network::Trouble::Partition(one, other) | network::Trouble::OneWay(one, other)) => {
            !linked || (concerns(one) && concerns(other))
        }
        Trouble::Network(_) => true,
        Trouble::Process(process::Trouble::Paused(who)) => concerns(who),
        Trouble::Process(process::Trouble::ControllerKilled) => true,
        Trouble::Process(
            process::Trouble::Late(it, _)
            | process::Trouble::Mute(it)
            | process::Trouble::Killed(it)
            | process::Trouble::Shutdown(it),
        ) => *it == worker,
        Trouble::Exchange(trouble) => trouble.worker.is_none_or(|it| it == worker),
    }
}
