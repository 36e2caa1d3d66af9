//! B4: every producer and every consumer of the plan has exactly one living owner, the worker that it was assigned to.
//!
//! A topic goes as a whole to one worker if there are enough topics; otherwise producers and consumers are distributed
//! one by one. Either way no worker gets more than one in excess of another.
//!
//! Checked where they truly live: in the workers' loads.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use omb_bench::{
    controller::{Controller, Output},
    id::WorkerId,
    plan::{Plan, Topology},
    result::Phase,
    worker::Worker,
};
use omb_machine::time::Instant;
use omb_runtime_sim::truth::Truth;

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Owners {
    plan: Option<Plan>,
    lost: BTreeSet<WorkerId>,
    living: usize,
}

impl Promise for Owners {
    fn name(&self) -> &'static str {
        "B4, one living owner each"
    }

    fn on_output(&mut self, output: &Output, truth: &Truth, broken: &mut Broken) {
        match output {
            Output::WorkerLost { worker, .. } => _ = self.lost.insert(*worker),
            Output::Entered(Phase::WarmUp) => self.check_all(truth, broken),
            _ => {}
        }
    }

    fn on_controller(&mut self, controller: &Controller, _: Instant, _: &Truth, broken: &mut Broken) {
        if self.plan.is_none() {
            check_plan(controller.plan(), broken);
        }
        self.plan.get_or_insert_with(|| controller.plan().clone());
    }

    fn on_worker(&mut self, _: u32, _: &Worker, _: Instant, truth: &Truth, broken: &mut Broken) {
        let living = truth.workers.iter().map(|worker| worker.producers.len() + worker.consumers.len()).sum();
        if living != std::mem::replace(&mut self.living, living) {
            self.check_places(truth, broken);
        }
    }
}

impl Owners {
    /// Each that lives, lives where it belongs, and therefore once.
    fn check_places(&self, truth: &Truth, broken: &mut Broken) {
        let Some(plan) = &self.plan else { return };
        for (here, worker) in (0..).map(WorkerId).zip(&truth.workers) {
            for id in &worker.producers {
                let there = plan.producers.get(id.0 as usize).map(|producer| producer.worker);
                if there != Some(here) {
                    broken.note(format_args!("{id} lives at {here}, and was dealt to {there:?}"));
                }
            }
            for id in &worker.consumers {
                let there = plan.consumers.get(id.0 as usize).map(|consumer| consumer.worker);
                if there != Some(here) {
                    broken.note(format_args!("{id} lives at {here}, and was dealt to {there:?}"));
                }
            }
        }
    }

    /// The load begins: all live, except for those whose process is known, or about to be known, to be gone.
    fn check_all(&self, truth: &Truth, broken: &mut Broken) {
        let Some(plan) = &self.plan else { return };
        let gone = |worker: WorkerId| self.lost.contains(&worker) || truth.workers[worker.0 as usize].excused;
        for producer in plan.producers.iter().filter(|it| !gone(it.worker)) {
            if !truth.workers[producer.worker.0 as usize].producers.contains(&producer.id) {
                broken.note(format_args!("the load begins, and {} lives nowhere", producer.id));
            }
        }
        for consumer in plan.consumers.iter().filter(|it| !gone(it.worker)) {
            if !truth.workers[consumer.worker.0 as usize].consumers.contains(&consumer.id) {
                broken.note(format_args!("the load begins, and {} lives nowhere", consumer.id));
            }
        }
    }
}

/// The rule of placement, computed in another way than the product does.
fn check_plan(plan: &Plan, broken: &mut Broken) {
    let producing = match plan.topology {
        Topology::Shared => plan.workers,
        Topology::Split { more_consumers: false } => plan.workers / 2,
        Topology::Split { more_consumers: true } => plan.workers.div_ceil(3),
    };
    let consuming = if plan.topology == Topology::Shared { 0 } else { producing }..plan.workers;
    let producers = plan.producers.iter().map(|it| (it.topic.0, it.worker.0));
    check_part("producers", plan, 0..producing, producers, broken);
    let topic = |it: &omb_bench::plan::Consumer| plan.subscriptions[it.subscription.0 as usize].topic.0;
    check_part("consumers", plan, consuming, plan.consumers.iter().map(|it| (topic(it), it.worker.0)), broken);
}

fn check_part(
    what: &str,
    plan: &Plan,
    workers: Range<u32>,
    dealt: impl Iterator<Item = (u32, u32)>,
    broken: &mut Broken,
) {
    let whole = plan.topics.len() >= workers.len();
    let mut shares: BTreeMap<u32, u32> = workers.map(|worker| (worker, 0)).collect();
    let mut owners: BTreeMap<u32, u32> = BTreeMap::new();
    for (topic, worker) in dealt {
        let owner = owners.insert(topic, worker);
        if whole && owner.is_some_and(|owner| owner != worker) {
            broken.note(format_args!("{what} of topic {topic} are dealt to workers {owner:?} and {worker}"));
        }
        match shares.get_mut(&worker) {
            Some(share) => *share += u32::from(!whole || owner.is_none()),
            None => broken.note(format_args!("worker {worker} is dealt {what}, and has another role")),
        }
    }
    let (least, most) = (shares.values().min(), shares.values().max());
    if most.zip(least).is_some_and(|(most, least)| most - least > 1) {
        broken.note(format_args!("{what} are dealt unevenly: {shares:?}"));
    }
}
