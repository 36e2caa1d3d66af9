//! Where nothing goes wrong nothing is missing; and no message is reported lost that could still be read.

use std::time::Duration;

use omb_bench::{
    config::workload::RateGoal,
    controller::{End, Output},
    result::{Drained, Phase},
};
use omb_runtime_sim::{
    fault::{Trouble, broker},
    scenario::Scenario,
    truth::Truth,
    world::Ended,
};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Calm {
    drain_began: Option<Duration>,
}

/// After a trouble, this long until every client has recovered: a session, a rebalance, and the attempts to connect in
/// between.
const RECOVERED: Duration = Duration::from_secs(12);

impl Promise for Calm {
    fn name(&self) -> &'static str {
        "calm after and without storms"
    }

    fn on_output(&mut self, output: &Output, _: &Truth, _: &mut Broken) {
        if *output == Output::Entered(Phase::Drain) {
            self.drain_began = Some(madsim::time::TimeHandle::current().elapsed());
        }
    }

    fn at_end(&mut self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        if scenario.is_calm() {
            Self::check_calm(scenario, ended, truth, broken);
        }
        self.check_lost(scenario, ended, truth, broken);
    }
}

impl Calm {
    fn check_calm(scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        // Consumers that fetch too little at a time never drain a backlog, and the run reports that.
        let undrained = ended.report.as_ref().and_then(|report| report.backlog).is_some_and(|it| it.drain.is_none());
        // A search asks for more than the client can do, and what it cannot do within the bound of the stop is given
        // up, which the run reports.
        let counts = &truth.counts();
        let searches = scenario.workload.rate == RateGoal::Search;
        let overloaded = searches && counts.acked != counts.attempted;
        if ended.end != Some(End::Sound) && !undrained && !overloaded {
            broken.note(format_args!("nothing went wrong, and yet it ended {:?}", ended.end));
        }
        if counts.acked != counts.attempted && !searches {
            broken.note(format_args!("nothing went wrong, and yet {} of {} are acked", counts.acked, counts.attempted));
        }
        for (subscription, seen) in &counts.seen {
            if seen.distinct != seen.received || seen.reordered > 0 {
                broken.note(format_args!("nothing went wrong, and yet {subscription} saw {seen:?}"));
            }
        }
        if !truth.left_over.is_empty() {
            broken.note(format_args!("nothing went wrong, and yet it left {:?} on the broker", truth.left_over));
        }
        let Some(report) = &ended.report else { return };
        for (subscription, (_, missing)) in &report.verdict.subscriptions {
            if missing.missing > 0 {
                broken.note(format_args!("nothing went wrong, and yet {subscription} misses {missing:?}"));
            }
        }
        if !report.rebalances.is_empty() {
            broken.note(format_args!("nothing went wrong, and yet {:?}", report.rebalances));
        }
        if report.verdict.unverified > 0 {
            broken.note(format_args!("nothing went wrong, and yet {} are unverified", report.verdict.unverified));
        }
    }

    /// A verdict of loss, long after the last trouble, over messages that were never dropped nor damaged.
    fn check_lost(&self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        let (Some(report), Some(drain_began)) = (&ended.report, self.drain_began) else { return };
        let long_over = scenario.troubles.iter().all(|planned| planned.until() + RECOVERED <= drain_began);
        let damaged = scenario.suffers(|it| matches!(it, Trouble::Broker(broker::Trouble::Damage(_))));
        let lost = report.verdict.lost();
        if report.verdict.drained == Drained::Quiet
            && lost > 0
            && long_over
            && !damaged
            && truth.groups_emptied.is_empty()
        {
            broken.note(format_args!("{lost} messages are called lost, but nothing kept them from being read"));
        }
    }
}
