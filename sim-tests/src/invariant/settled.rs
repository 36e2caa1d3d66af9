//! The load begins once every group has settled: all its members have had their shares at the same time, and if nothing
//! has gone wrong yet they still have, and have had them since before the probes on which the load relies were sent.

use std::time::Duration;

use omb_bench::{
    controller::{Controller, Output},
    plan::Plan,
    protocol::Command,
};
use omb_machine::time::Instant;
use omb_runtime_sim::{scenario::Scenario, truth::Truth, world::Ended};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Settled {
    plan: Option<Plan>,
    /// The last round of probes, and when it began, in true time.
    round: Option<(u64, Duration)>,
    /// When the load was started, in true time, and the groups that were not settled then.
    begun: Option<(Duration, Vec<String>)>,
}

impl Promise for Settled {
    fn name(&self) -> &'static str {
        "ready means ready"
    }

    fn on_output(&mut self, output: &Output, truth: &Truth, broken: &mut Broken) {
        let Output::ToWorker { request, .. } = output else { return };
        let Some(plan) = self.plan.as_ref().filter(|plan| !plan.consumers.is_empty()) else { return };
        let now = madsim::time::TimeHandle::current().elapsed();
        if let Command::Probe { round } = request.command
            && self.round.is_none_or(|(last, _)| last != round)
        {
            self.round = Some((round, now));
        }
        if !matches!(request.command, Command::StartLoad { .. }) || self.begun.is_some() {
            return;
        }
        let wanted = plan.workload.consumers_per_subscription as usize;
        let mut moving = Vec::new();
        for subscription in &plan.subscriptions {
            let group = truth.groups.get(&subscription.name).copied().unwrap_or_default();
            if group.most != wanted {
                let name = &subscription.name;
                broken.note(format_args!("the load begins, and {name} never had {wanted} members: {group:?}"));
            }
            if group.now != Some(wanted) {
                moving.push(format!("{}: {group:?}", subscription.name));
            }
            if let Some((round, began)) = self.round.filter(|(_, began)| *began < group.stable.1) {
                moving.push(format!(
                    "{}, since round {round} of the probes began at {began:?}: {group:?}",
                    subscription.name
                ));
            }
        }
        self.begun = Some((now, moving));
    }

    fn on_controller(&mut self, controller: &Controller, _: Instant, _: &Truth, _: &mut Broken) {
        self.plan.get_or_insert_with(|| controller.plan().clone());
    }

    fn at_end(&mut self, scenario: &Scenario, _: &Ended, _: &Truth, broken: &mut Broken) {
        let Some((at, moving)) = &self.begun else { return };
        let quiet = scenario.troubles.iter().all(|planned| planned.at > *at)
            && scenario.second.is_none_or(|second| second.at > *at);
        if quiet && !moving.is_empty() {
            broken.note(format_args!(
                "nothing has gone wrong yet, the load begins, and groups are on the move: {moving:?}"
            ));
        }
    }
}
