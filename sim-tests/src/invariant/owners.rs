//! B4: every producer and every consumer of the plan has exactly one living owner, the worker that it was dealt to.
//!
//! Looked at where they truly live: in the workers' loads.

use std::collections::BTreeSet;

use omb_core::{
    controller::{Controller, Output},
    id::WorkerId,
    plan::Plan,
    report::Phase,
    time::Instant,
    worker::Worker,
};
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

    fn on_controller(&mut self, controller: &Controller, _: Instant, _: &Truth, _: &mut Broken) {
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
    /// Whoever lives, lives where it belongs, and therefore once.
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

    /// The load begins: everybody lives, but for those whose process is known, or about to be known, to be gone.
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
