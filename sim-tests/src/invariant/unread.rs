//! The broker drops nothing that a living group has not read.

use std::collections::{BTreeMap, BTreeSet};

use omb_bench::{
    controller::{Controller, Output},
    id::SubscriptionId,
    result::Phase,
};
use omb_broker::Broker;
use omb_machine::time::Instant;
use omb_runtime_sim::truth::{Place, Truth};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Unread {
    /// By topic, its subscriptions and their groups.
    groups: BTreeMap<String, Vec<(SubscriptionId, String)>>,
    reading: bool,
    handed: usize,
    /// By subscription and place: everything below was delivered, and what was delivered above it.
    read: BTreeMap<(SubscriptionId, Place), (i64, BTreeSet<i64>)>,
}

impl Promise for Unread {
    fn name(&self) -> &'static str {
        "what is unread stays"
    }

    fn on_output(&mut self, output: &Output, _: &Truth, _: &mut Broken) {
        if let Output::Entered(phase) = output {
            // Before the consumers are there, and when the topics are being deleted, nothing is read.
            self.reading = (Phase::CreateProducers..=Phase::Drain).contains(phase);
        }
    }

    fn on_controller(&mut self, controller: &Controller, _: Instant, _: &Truth, _: &mut Broken) {
        if self.groups.is_empty() {
            let plan = controller.plan();
            for subscription in &plan.subscriptions {
                let topic = &plan.topics[subscription.topic.0 as usize].name;
                let groups = self.groups.entry(topic.clone()).or_default();
                groups.push((subscription.id, subscription.name.clone()));
            }
        }
    }

    fn on_broker(&mut self, broker: &Broker, _: Instant, truth: &Truth, broken: &mut Broken) {
        for handed in &truth.handed[self.handed..] {
            let key = (handed.subscription, handed.place.clone());
            let (below, above) = self.read.entry(key).or_default();
            above.insert(handed.offset);
            while above.remove(below) {
                *below += 1;
            }
        }
        self.handed = truth.handed.len();
        if !self.reading || broker.dropped().records == 0 {
            return;
        }
        for (topic, groups) in &self.groups {
            for partition in 0.. {
                let Some(log) = broker.log(topic, partition) else { break };
                for (subscription, group) in groups {
                    if truth.groups_emptied.contains(group) {
                        continue;
                    }
                    let place = Place { topic: topic.clone(), partition };
                    let read = self.read.get(&(*subscription, place)).map_or(0, |(below, _)| *below);
                    if log.start() > read {
                        broken.note(format_args!(
                            "{topic} {partition} begins at {}, but {group} has read up to {read} only",
                            log.start()
                        ));
                    }
                }
            }
        }
    }
}
