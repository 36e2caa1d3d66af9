//! A worker considers its controller gone only if something prevented the worker from hearing it.
//!
//! Nor does a controller give up a worker that it can reach. A lease that ended before a load does not count against
//! the worker. A controller waits for its slowest worker; the leases of the others must not end meanwhile.

use std::{collections::BTreeMap, time::Duration};

use omb_bench::{controller::Output, result::Phase};
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
    /// By worker, the number of the last command that was sent to it, and how often.
    sent: BTreeMap<u32, (u64, u32)>,
    /// Workers that were given up as silent and had been asked only once.
    asked_once: Vec<String>,
    stopped: Option<Duration>,
    /// When processes of workers began, in true time.
    born: Vec<(u32, Duration)>,
}

/// After a trouble, longest until messages sent or resent meanwhile have arrived.
const BACK: Duration = Duration::from_secs(4);

impl Promise for Leases {
    fn name(&self) -> &'static str {
        "no lease ends without a cause"
    }

    fn on_birth(&mut self, worker: u32) {
        self.born.push((worker, madsim::time::TimeHandle::current().elapsed()));
    }

    fn on_output(&mut self, output: &Output, truth: &Truth, broken: &mut Broken) {
        match output {
            Output::ToWorker { worker, request, .. } => {
                let sent = self.sent.entry(worker.0).or_default();
                *sent = (request.number, if sent.0 == request.number { sent.1 + 1 } else { 1 });
            }
            Output::Entered(Phase::Stop) => {
                self.stopped = Some(madsim::time::TimeHandle::current().elapsed());
            }
            Output::Report(report) if report.partial.is_none() => self.check_stopped(truth, broken),
            _ => {}
        }
        let Output::WorkerLost { worker, cause } = output else { return };
        if cause.contains("Timeout waiting") && self.sent.get(&worker.0).is_some_and(|(_, times)| *times < 2) {
            self.asked_once.push(format!("{worker} is given up, and was asked only once: {cause}"));
        }
        self.lost.push((worker.0, madsim::time::TimeHandle::current().elapsed(), cause.clone()));
        let mine = &truth.workers[worker.0 as usize];
        let begun = mine.schedules.get(mine.first_schedule).map(|first| first.given);
        let under_load = begun.is_some_and(|begun| mine.leases_ended.iter().any(|at| *at >= begun));
        if cause.contains("stopped its load by itself") && !under_load {
            broken.note(format_args!("{worker} is given up since it stopped its load, which it did not: {cause}"));
        }
    }

    fn at_end(&mut self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        // A controller that stood still finds every deadline past when it wakes.
        if !scenario.suffers(|it| *it == Trouble::Process(process::Trouble::Paused(Who::Controller))) {
            self.asked_once.iter().for_each(|it| broken.note(it));
        }
        for (worker, at, cause) in &self.lost {
            let since = at.saturating_sub(ended.settings.setup_within + BACK);
            let caused = |it: &Planned| it.at <= *at && (it.until() >= since || lasting(&it.trouble, *worker));
            let excused =
                scenario.troubles.iter().any(|it| caused(it) && silences(&it.trouble, *worker, scenario.linked));
            // Another controller may have been there before, or may take the worker over, if it is allowed to.
            let robbed = !ended.settings.take_over && scenario.second.is_some_and(|it| it.take_over);
            let foreign = robbed || cause.contains("--take-over");
            if !excused && !foreign {
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
                // A controller no longer talks to a worker that it has given up.
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

impl Leases {
    /// A worker that stopped its load by itself, or was restarted, is given up as soon as it is heard from again.
    fn check_stopped(&self, truth: &Truth, broken: &mut Broken) {
        let Some(stopped) = self.stopped else { return };
        for (worker, mine) in (0..).zip(&truth.workers) {
            let given_up = self.lost.iter().any(|(lost, ..)| *lost == worker);
            let begun = mine.schedules.first().map(|first| first.given);
            let born = self
                .born
                .iter()
                .find(|(it, at)| *it == worker && begun.is_some_and(|begun| begun <= *at) && *at + HEARD <= stopped);
            if let Some((_, at)) = born.filter(|_| !given_up) {
                broken.note(format_args!("worker {worker} was restarted at {at:?}, and nobody noticed"));
            }
            let Some(given) = mine.schedules.get(mine.first_schedule).map(|first| first.given) else { continue };
            let ended = mine.leases_ended.iter().find(|at| **at >= given && **at + HEARD <= stopped);
            if let Some(at) = ended
                && !given_up
            {
                broken.note(format_args!("worker {worker} stopped its load at {at:?} by itself, and nobody noticed"));
            }
        }
    }
}

/// Longest from a worker's report until its controller has received it.
const HEARD: Duration = Duration::from_millis(500);

/// Whether its effect is permanent: a controller that is gone, a worker that has forgotten everything.
fn lasting(trouble: &Trouble, worker: u32) -> bool {
    match trouble {
        Trouble::Process(process::Trouble::Killed(it) | process::Trouble::Shutdown(it)) => *it == worker,
        Trouble::Process(process::Trouble::ControllerKilled) => true,
        _ => false,
    }
}

/// Whether it can keep this worker from hearing its controller, or from reporting.
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
