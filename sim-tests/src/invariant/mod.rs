//! The promises of a benchmark run, one file each, checked after every step of every machine. Those of a cluster are in
//! [`cluster`].
//!
//! | file | promise |
//! | --- | --- |
//! | [`ends`] | B1: a run ends within its bound, with a result or a named cause |
//! | [`counts`] | B2: consumed within stored, acknowledged within stored, stored within attempted; the report's counts are those |
//! | [`sums`] | B3: the sum of the periods is the total, and the merged histograms hold exactly the samples |
//! | [`owners`] | B4: every producer and consumer of the plan has exactly one living owner |
//! | [`leases`] | where they can reach each other, no worker considers its controller gone, and none is given up |
//! | [`silence`] | B5: after the end of a run, plus the lease, nothing is produced |
//! | [`freed`] | a worker whose controller is gone is free after twice its lease |
//! | [`one_run`] | B6: one worker follows one run at a time |
//! | [`schedule`] | the schedule is open: no stall moves the instant at which a message is meant to leave |
//! | [`barrier`] | the workers of a fleet begin at once, as exactly as their clocks are known |
//! | [`clocks`] | latencies between machines are right to within the error of their clocks |
//! | [`checked`] | a problem that a worker's check finds ends the run before anything is created |
//! | [`paths`] | the load begins once every producer reaches every subscription to its topic, through every partition |
//! | [`settled`] | the load begins once every group has settled |
//! | [`unread`] | the broker drops nothing that a living group has not read |
//! | [`outages`] | the report's outages are the stretches in which nothing was acknowledged, to the millisecond |
//! | [`calm`] | where nothing goes wrong nothing is missing, and no message is reported lost that is still there |

pub mod barrier;
pub mod calm;
pub mod checked;
pub mod clocks;
pub mod cluster;
pub mod counts;
pub mod ends;
pub mod freed;
pub mod leases;
pub mod one_run;
pub mod outages;
pub mod owners;
pub mod paths;
pub mod schedule;
pub mod settled;
pub mod silence;
pub mod sums;
pub mod unread;

use omb_bench::{
    controller::{self, Controller},
    worker::Worker,
};
use omb_broker::Broker;
use omb_machine::time::Instant;
use omb_runtime_sim::{
    scenario::Scenario,
    truth::Truth,
    witness::Witness,
    world::{Ended, Outcome, Watcher},
};

/// Something that must hold for one run. A promise leaves out the events that it does not need.
pub trait Promise: Send {
    /// Its name, as in the table.
    fn name(&self) -> &'static str;
    /// An output of the controller.
    fn on_output(&mut self, _output: &controller::Output, _truth: &Truth, _broken: &mut Broken) {}
    /// The controller after a step.
    fn on_controller(&mut self, _controller: &Controller, _now: Instant, _truth: &Truth, _broken: &mut Broken) {}
    /// A worker's process begins, with nothing in its memory.
    fn on_birth(&mut self, _worker: u32) {}
    /// A worker after a step.
    fn on_worker(&mut self, _worker: u32, _machine: &Worker, _now: Instant, _truth: &Truth, _broken: &mut Broken) {}
    /// The broker after a step.
    fn on_broker(&mut self, _broker: &Broker, _now: Instant, _truth: &Truth, _broken: &mut Broken) {}
    /// The run is over.
    fn at_end(&mut self, _scenario: &Scenario, _ended: &Ended, _truth: &Truth, _broken: &mut Broken) {}
}

/// Descriptions of broken promises. The first few are enough.
#[derive(Debug, Default)]
pub struct Broken {
    promise: &'static str,
    found: Vec<String>,
}

impl Broken {
    /// Records that the promise being checked does not hold.
    pub fn note(&mut self, what: impl std::fmt::Display) {
        if self.found.len() < ENOUGH {
            self.found.push(format!("{}: {what}", self.promise));
        }
    }

    /// The descriptions.
    #[must_use]
    pub fn found(&self) -> &[String] {
        &self.found
    }
}

/// This many are enough; then the run is cut short, as a broken run may never end.
const ENOUGH: usize = 12;

/// All promises of all runs, and which of them were broken.
#[derive(Default)]
pub struct Promises {
    /// By run.
    runs: Vec<Vec<Box<dyn Promise>>>,
    broken: Broken,
}

fn all() -> Vec<Box<dyn Promise>> {
    vec![
        Box::<ends::Ends>::default(),
        Box::<counts::Counts>::default(),
        Box::<sums::Sums>::default(),
        Box::<owners::Owners>::default(),
        Box::<silence::Silence>::default(),
        Box::<freed::Freed>::default(),
        Box::<one_run::OneRun>::default(),
        Box::<leases::Leases>::default(),
        Box::<schedule::Schedule>::default(),
        Box::<barrier::Barrier>::default(),
        Box::<clocks::Clocks>::default(),
        Box::<checked::Checked>::default(),
        Box::<paths::Paths>::default(),
        Box::<outages::Outages>::default(),
        Box::<settled::Settled>::default(),
        Box::<unread::Unread>::default(),
        Box::<calm::Calm>::default(),
    ]
}

impl Promises {
    /// The broken promises.
    #[must_use]
    pub fn broken(&self) -> &Broken {
        &self.broken
    }

    /// Checks the promises of one run.
    fn of(&mut self, run: usize, witness: &Witness, mut check: impl FnMut(&mut dyn Promise, &Truth, &mut Broken)) {
        while self.runs.len() <= run {
            self.runs.push(all());
        }
        let notes = witness.notes();
        for promise in &mut self.runs[run] {
            self.broken.promise = promise.name();
            check(promise.as_mut(), &notes.truths[run], &mut self.broken);
        }
        drop(notes);
        assert!(self.broken.found.len() < ENOUGH, "enough is broken");
    }

    /// Checks the promises of every run.
    fn each(&mut self, witness: &Witness, mut check: impl FnMut(&mut dyn Promise, &Truth, &mut Broken)) {
        let runs = witness.notes().truths.len();
        (0..runs).for_each(|run| self.of(run, witness, &mut check));
    }
}

impl Watcher for Promises {
    fn on_output(&mut self, run: usize, output: &controller::Output, witness: &Witness) {
        self.of(run, witness, |promise, truth, broken| promise.on_output(output, truth, broken));
    }

    fn on_controller(&mut self, run: usize, controller: &Controller, now: Instant, witness: &Witness) {
        self.of(run, witness, |promise, truth, broken| promise.on_controller(controller, now, truth, broken));
    }

    fn on_birth(&mut self, worker: u32) {
        self.runs.iter_mut().flatten().for_each(|promise| promise.on_birth(worker));
    }

    fn on_worker(&mut self, worker: u32, machine: &Worker, now: Instant, witness: &Witness) {
        self.each(witness, |promise, truth, broken| promise.on_worker(worker, machine, now, truth, broken));
    }

    fn on_broker(&mut self, broker: &Broker, now: Instant, witness: &Witness) {
        self.each(witness, |promise, truth, broken| promise.on_broker(broker, now, truth, broken));
    }

    fn at_end(&mut self, outcome: &Outcome, witness: &Witness) {
        for (run, ended) in outcome.runs.iter().enumerate() {
            self.of(run, witness, |promise, truth, broken| promise.at_end(&outcome.scenario, ended, truth, broken));
        }
    }
}
