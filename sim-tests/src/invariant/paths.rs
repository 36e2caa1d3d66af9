//! The load begins once a probe of every producer has reached every subscription to its topic, through every partition.

use std::collections::BTreeSet;

use omb_bench::{
    controller::{Controller, Output},
    plan::Plan,
    protocol::Command,
};
use omb_machine::time::Instant;
use omb_runtime_sim::truth::Truth;

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Paths {
    plan: Option<Plan>,
    begun: bool,
}

impl Promise for Paths {
    fn name(&self) -> &'static str {
        "every path is open"
    }

    fn on_output(&mut self, output: &Output, truth: &Truth, broken: &mut Broken) {
        let Output::ToWorker { request, .. } = output else { return };
        let Some(plan) = &self.plan else { return };
        if !matches!(request.command, Command::StartLoad { .. }) || std::mem::replace(&mut self.begun, true) {
            return;
        }
        let probes = truth.handed.iter().filter(|handed| handed.mark.probe);
        let open: BTreeSet<_> = probes.map(|it| (it.mark.producer, it.place.partition, it.subscription)).collect();
        if plan.consumers.is_empty() {
            return;
        }
        for subscription in &plan.subscriptions {
            for producer in plan.producers.iter().filter(|it| it.topic == subscription.topic) {
                for partition in 0..plan.workload.partitions_per_topic {
                    if !open.contains(&(producer.id, partition, subscription.id)) {
                        broken.note(format_args!(
                            "the load begins, and {} has not reached {} through partition {partition}",
                            producer.id, subscription.id
                        ));
                    }
                }
            }
        }
    }

    fn on_controller(&mut self, controller: &Controller, _: Instant, _: &Truth, _: &mut Broken) {
        self.plan.get_or_insert_with(|| controller.plan().clone());
    }
}
