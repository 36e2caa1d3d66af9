//! Before anything is created: does every worker reach every broker, and would the brokers take what is to come?

use std::collections::{BTreeMap, BTreeSet};

use super::{Controller, NOBODY, Output, stage::Stage};
use crate::{
    id::WorkerId,
    plan::Plan,
    protocol::{
        Command, Failure, FailureKind,
        command::{Check, TopicSpec},
    },
    result::Phase,
};
use omb_machine::{printable::printable_within, quantity::plural, time::Instant};

/// Most misfits that are reported one by one; a user who has repaired these is shown the rest.
const REPORTED_MAX: usize = 20;

/// Most characters of one of them.
const CHARS_MAX: usize = 2_000;

/// Most workers that are named beside a misfit that all of them found.
const NAMED_MAX: usize = 4;

impl Controller {
    /// All that is to be run, or to be checked.
    pub(super) fn plans(&self) -> impl Iterator<Item = &Plan> {
        std::iter::once(&self.plan).chain(self.only_check.iter().flatten())
    }

    pub(super) fn check(&mut self, now: Instant) {
        self.enter(Stage::Check);
        let first = self.links.alive().next();
        // Topics of one plan differ by their names alone.
        let mut kinds = BTreeSet::new();
        let topics = self.plans().filter_map(|plan| plan.topics.first()).filter(|topic| kinds.insert(topic.partitions));
        let spec = |topic: &crate::plan::Topic| TopicSpec { name: topic.name.clone(), partitions: topic.partitions };
        let topics: Vec<TopicSpec> = topics.map(spec).collect();
        let message_bytes = self.plans().map(|plan| plan.workload.largest_message()).max().unwrap_or(0);
        // Plans are run one after the other.
        let mut most = vec![(0, 0); self.plan.workers as usize];
        for plan in self.plans() {
            for (most, share) in most.iter_mut().zip(plan.shares()) {
                *most = (most.0.max(share.producers.len()), most.1.max(share.consumers.len()));
            }
        }
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        self.ask(now, self.settings.setup_within, |worker| {
            let (producers, consumers) = most[worker.0 as usize];
            Command::Check(Box::new(Check {
                topics: if Some(worker) == first { topics.clone() } else { Vec::new() },
                message_bytes,
                producers: count(producers),
                consumers: count(consumers),
            }))
        });
    }

    pub(super) fn on_checked(&mut self, now: Instant, misfits: Vec<(WorkerId, Failure)>) {
        if !misfits.is_empty() {
            let failure = self.sum_up(misfits);
            return self.fail(now, failure);
        }
        if self.only_check.is_some() { self.end(now, None) } else { self.create_topics(now) }
    }

    /// Several failures of several workers in one. Until the run begins each is reported by itself as well, with all who suffer
    /// from it, so that everything can be repaired at once.
    pub(super) fn sum_up(&mut self, failures: Vec<(WorkerId, Failure)>) -> Failure {
        let mut reported: Vec<(Failure, Vec<WorkerId>)> = Vec::new();
        let mut places = BTreeMap::new();
        for (worker, mut failure) in failures {
            failure.message = printable_within(&failure.message, CHARS_MAX);
            match places.get(&failure.message) {
                Some(place) => {
                    let (_, workers): &mut (_, Vec<WorkerId>) = &mut reported[*place];
                    if workers.last() != Some(&worker) {
                        workers.push(worker);
                    }
                }
                None => {
                    places.insert(failure.message.clone(), reported.len());
                    reported.push((failure, vec![worker]));
                }
            }
        }
        let count = reported.len();
        let mut failures: Vec<Failure> = reported
            .into_iter()
            .take(REPORTED_MAX)
            .map(|(failure, workers)| {
                Failure::new(failure.kind, format!("{}{}", self.those(&workers), failure.message))
            })
            .collect();
        if count > REPORTED_MAX {
            let rest = count - REPORTED_MAX;
            let text = format!("and {rest} other failure{} of this kind", plural(rest));
            failures.push(Failure::new(failures[0].kind, text));
        }
        if self.stage.phase() <= Phase::Check {
            self.outputs.extend(failures.iter().cloned().map(Output::Misfit));
        }
        // Of several kinds, the one that a repaired file alone would not remove.
        let kind = failures.iter().map(|failure| failure.kind).find(|kind| *kind != FailureKind::Configuration);
        let texts: Vec<String> = failures.into_iter().map(|failure| failure.message).collect();
        Failure::new(kind.unwrap_or(FailureKind::Configuration), texts.join("; "))
    }

    /// `worker 1 (http://a:8080), worker 2 (http://b:8080): `; nothing where the worker is this process.
    fn those(&self, workers: &[WorkerId]) -> String {
        if self.settings.names.is_empty() || workers.contains(&NOBODY) {
            return String::new();
        }
        let named: Vec<String> = workers.iter().take(NAMED_MAX).map(|worker| self.name(*worker)).collect();
        let rest = workers.len().saturating_sub(NAMED_MAX);
        let others = if rest == 0 { String::new() } else { format!(" and {rest} other{}", plural(rest)) };
        format!("{}{others}: ", named.join(", "))
    }
}
