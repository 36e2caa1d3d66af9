//! B5: after the end of a run, however it came, plus the lease, no worker produces; and none does once the producers
//! are reported to have stopped. Nor does one that was sent nothing for its lease, whatever arrives late.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use omb_bench::{
    controller::{Controller, Output},
    result::Phase,
};
use omb_machine::time::Instant;
use omb_runtime_sim::{
    exchange::LATE_MAX,
    fault::{Planned, Trouble, Who, exchange, network, process},
    scenario::Scenario,
    truth::Truth,
    world::Ended,
};

use super::{Broken, Promise, barrier};

/// See the module.
#[derive(Debug, Default)]
pub struct Silence {
    lost: BTreeSet<u32>,
    /// By worker, when something was sent to it, in true time.
    sent: BTreeMap<u32, Vec<Duration>>,
    /// Attempts that have been checked, once the producers are reported to have stopped.
    looked: Option<usize>,
}

/// Until the controller's last message has been sent, and received.
const ARRIVES: Duration = Duration::from_millis(200);
/// A process that stood still finds out what time it is while its tasks are already awake.
const AWAKENING: Duration = Duration::from_millis(50);

impl Promise for Silence {
    fn name(&self) -> &'static str {
        "B5, silence after the end"
    }

    fn on_output(&mut self, output: &Output, _: &Truth, _: &mut Broken) {
        match output {
            Output::WorkerLost { worker, .. } => _ = self.lost.insert(worker.0),
            Output::ToWorker { worker, .. } | Output::Ping { worker, .. } => {
                self.sent.entry(worker.0).or_default().push(madsim::time::TimeHandle::current().elapsed());
            }
            _ => {}
        }
    }

    fn on_controller(&mut self, controller: &Controller, _: Instant, truth: &Truth, broken: &mut Broken) {
        if matches!(controller.phase(), Phase::Drain | Phase::Verify) {
            let from = *self.looked.get_or_insert(truth.attempts.len());
            let late = truth.attempts[from..].iter().filter(|attempt| !self.lost.contains(&attempt.worker)).count();
            if late > 0 {
                broken.note(format_args!("{late} messages left after the stop"));
            }
            self.looked = Some(truth.attempts.len());
        }
    }

    fn at_end(&mut self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        self.check_leases(scenario, ended, truth, broken);
        for (worker, mine) in truth.workers.iter().enumerate() {
            let Some(last) = mine.last_attempt else { continue };
            // In one process, and if nothing goes wrong, the last command has been performed. Otherwise a worker that
            // cannot be reached waits for its lease, from the last message that it receives: a late copy, perhaps.
            let mut limit = ended.ended_at + Duration::from_millis(10);
            if scenario.linked && !scenario.is_calm() {
                let slow = 1_000_000.0 / (1_000_000.0 + gain(scenario, worker));
                limit += ended.settings.lease.mul_f64(slow) + ARRIVES;
                // The lease counts from when the controller sent, by the worker's clock as known to the controller.
                limit += match truth.clock_answers.get(&who_nth(worker)) {
                    Some(best) if !scenario.wild_clocks => barrier::error(ended.ended_at, *best),
                    _ => on_the_way(scenario),
                };
            }
            for planned in &scenario.troubles {
                let stands = planned.trouble == Trouble::Process(process::Trouble::Paused(who(worker)));
                if stands && planned.at <= limit {
                    limit = limit.max(planned.until() + AWAKENING);
                }
            }
            if last > limit {
                broken.note(format_args!(
                    "a message left worker {worker} at {last:?}, the run ended at {:?}, the limit is {limit:?}",
                    ended.ended_at
                ));
            }
        }
    }
}

impl Silence {
    /// Every message against what its worker had been sent by then.
    fn check_leases(&self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        if scenario.wild_clocks || !scenario.linked {
            return;
        }
        let stood = |worker: u32, at: Duration| {
            let paused = Trouble::Process(process::Trouble::Paused(Who::Worker(worker)));
            let near = |it: &Planned| it.at <= at && at <= it.until() + AWAKENING;
            scenario.troubles.iter().any(|it| it.trouble == paused && near(it))
        };
        for attempt in &truth.attempts {
            let Some(best) = truth.clock_answers.get(&attempt.worker) else { continue };
            let Some(sent) = self.sent.get(&attempt.worker) else { continue };
            let Some(last) = sent[..sent.partition_point(|at| *at <= attempt.at)].last() else { continue };
            let slow = 1_000_000.0 / (1_000_000.0 + gain(scenario, attempt.worker as usize));
            let lease = ended.settings.lease.mul_f64(slow);
            if attempt.at > *last + lease + ARRIVES + barrier::error(attempt.at, *best)
                && !stood(attempt.worker, attempt.at)
            {
                return broken.note(format_args!(
                    "a message left worker {} at {:?}, to which nothing had been sent since {last:?}",
                    attempt.worker, attempt.at
                ));
            }
        }
    }
}

/// Longest that a message which a controller sent before its end is in flight.
fn on_the_way(scenario: &Scenario) -> Duration {
    let copies = |it: &Trouble| matches!(it, Trouble::Exchange(it) if it.kind == exchange::Kind::Doubled);
    let slow = |it: &Trouble| matches!(it, Trouble::Network(network::Trouble::Loss(_) | network::Trouble::Slow(_)));
    // What is written to a process out of reach arrives when it is back, and some time after.
    let kept =
        |it: &Trouble| matches!(it, Trouble::Network(network::Trouble::Partition(..) | network::Trouble::OneWay(..)));
    let mut longest = Duration::ZERO;
    for (suffers, late) in [
        (scenario.suffers(copies), LATE_MAX),
        (scenario.suffers(slow), Duration::from_secs(2)),
        (scenario.suffers(kept), Duration::from_secs(20)),
    ] {
        longest += if suffers { late } else { Duration::ZERO };
    }
    longest
}

fn who_nth(worker: usize) -> u32 {
    u32::try_from(worker).unwrap_or(u32::MAX)
}

fn who(worker: usize) -> Who {
    Who::Worker(who_nth(worker))
}

#[expect(clippy::cast_precision_loss, reason = "millionths")]
fn gain(scenario: &Scenario, worker: usize) -> f64 {
    scenario.worker_clocks.get(worker).map_or(0.0, |clock| clock.gain_ppm as f64)
}
