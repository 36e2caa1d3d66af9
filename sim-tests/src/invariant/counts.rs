//! B2: of distinct (producer, sequence), consumed is within stored, acknowledged within stored, stored within attempted,
//! and the report's counts are those.
//!
//! A publish whose outcome is unknown counts as failed; it may still be stored. A message of an idempotent producer is
//! stored at most once, however often it was sent.

use std::collections::BTreeSet;

use omb_bench::{
    controller::Output,
    id::ProducerId,
    result::{Drained, Report},
    stats::tally::Totals,
    worker::Worker,
};
use omb_broker::Broker;
use omb_machine::time::Instant;
use omb_runtime_sim::{
    scenario::Scenario,
    truth::{Place, Truth},
    world::Ended,
};

use super::{Broken, Promise};
use crate::oracle::differences;

/// See the module.
#[derive(Debug, Default)]
pub struct Counts {
    attempted: BTreeSet<(ProducerId, u64)>,
    attempts: usize,
    storings: usize,
    acks: usize,
    handed: usize,
    stored: BTreeSet<(ProducerId, u64)>,
    stored_twice: Option<String>,
    acked: BTreeSet<(ProducerId, u64)>,
}

impl Counts {
    /// Processes what happened since the last call.
    fn follow(&mut self, truth: &Truth, broken: &mut Broken) {
        for attempt in &truth.attempts[self.attempts..] {
            self.attempted.insert((attempt.mark.producer, attempt.mark.sequence));
        }
        self.attempts = truth.attempts.len();
        for (place, offset) in &truth.storings[self.storings..] {
            let Some(mark) = at(truth, place, *offset).filter(|mark| !mark.probe) else { continue };
            if !self.attempted.contains(&(mark.producer, mark.sequence)) {
                broken.note(format_args!("{mark:?} is stored at {place:?} {offset}, but was never attempted"));
            }
            if !self.stored.insert((mark.producer, mark.sequence)) {
                self.stored_twice.get_or_insert_with(|| format!("{mark:?} is stored again at {place:?} {offset}"));
            }
        }
        self.storings = truth.storings.len();
        for ack in &truth.acks[self.acks..] {
            let stored = at(truth, &ack.place, ack.offset);
            if is_gap(truth, &ack.place, ack.offset) {
                // Stored and dropped in one step, before it could be observed: only the answer shows what it was.
                self.stored.insert((ack.mark.producer, ack.mark.sequence));
            } else if stored != Some(ack.mark) {
                broken.note(format_args!(
                    "{:?} was acknowledged as {} of {:?}, where {stored:?} is",
                    ack.mark, ack.offset, ack.place
                ));
            }
            if !self.acked.insert((ack.mark.producer, ack.mark.sequence)) {
                broken.note(format_args!("{:?} was acknowledged twice", ack.mark));
            }
        }
        self.acks = truth.acks.len();
        for handed in &truth.handed[self.handed..] {
            let stored = at(truth, &handed.place, handed.offset);
            if stored != Some(handed.mark) {
                broken.note(format_args!(
                    "{:?} was handed out from {} of {:?}, where {stored:?} is",
                    handed.mark, handed.offset, handed.place
                ));
            }
        }
        self.handed = truth.handed.len();
    }

    fn compare(report: &Report, truth: &Truth, broken: &mut Broken) {
        // A run that was cut short before the load's first read has nothing to report, and says that it is partial. The
        // last report of a lost worker may have arrived when it was no longer used.
        let nothing = report.partial.is_some() && report.whole == Totals::default();
        let lost = |worker: usize| report.workers.get(worker).is_some_and(|row| row.lost.is_some());
        if !nothing {
            let found = differences(&report.whole, truth, lost);
            found.iter().for_each(|it| broken.note(format_args!("the report, at its best: {it}")));
        }
        let acks = &report.whole.acknowledgements;
        if acks.acked + acks.failed > report.whole.departures.attempted {
            broken.note(format_args!(
                "{} acknowledged and {} failed of {} attempted",
                acks.acked, acks.failed, report.whole.departures.attempted
            ));
        }
        Self::judge(report, truth, broken);
        if report.verdict.drained == Drained::Completely && report.partial.is_none() {
            let subscriptions = report.verdict.subscriptions.len() as u64;
            let seen = report.verdict.seen();
            let topics = u64::from(report.plan.workload.topics);
            // A message that two members of a group on two workers received counts once only in the verdict, which is
            // made after the last read; if there are such messages it has compared one by one.
            let shared = report.plan.workers > 1 && report.plan.owners().contains(&None);
            if shared && report.verdict.missing() > 0 {
                broken.note(format_args!("drained completely, with {} missing", report.verdict.missing()));
            }
            let whole = !shared && (0..truth.workers.len()).all(|worker| !lost(worker));
            if subscriptions > 0 && whole && seen.distinct * topics < acks.acked * subscriptions {
                broken.note(format_args!("drained completely, with {} distinct of {} acked to {subscriptions} subscriptions of {topics} topics", seen.distinct, acks.acked));
            }
        }
    }

    /// The verdict against what the reporting workers had truly had confirmed and received by then.
    fn judge(report: &Report, truth: &Truth, broken: &mut Broken) {
        let owners = report.plan.owners();
        for (id, (seen, missing)) in &report.verdict.subscriptions {
            let topic = report.plan.subscriptions[id.0 as usize].topic;
            let name = &report.plan.topics[topic.0 as usize].name;
            let (mut confirmed, mut received, mut parts) = (BTreeSet::new(), BTreeSet::new(), 0);
            let (mut read, mut read_parts) = (BTreeSet::new(), 0);
            for (worker, (acks, handed)) in (0..).zip(&truth.workers).filter_map(|(nth, it)| Some((nth, it.verified?)))
            {
                let acks = truth.acks[..acks].iter().filter(|ack| ack.worker == worker && ack.place.topic == *name);
                confirmed.extend(acks.map(|ack| (ack.mark.producer, ack.mark.sequence)));
                let here = truth.handed[..handed].iter().filter(|it| it.worker == worker && it.subscription == *id);
                let here = here.filter(|it| !it.mark.probe && !it.damaged && !it.bare);
                let here: BTreeSet<_> = here.map(|it| (it.mark.producer, it.mark.sequence)).collect();
                parts += here.len() as u64;
                received.extend(here);
                let here = truth.handed[..handed].iter().filter(|it| it.worker == worker && it.subscription == *id);
                let here: BTreeSet<_> =
                    here.filter(|it| !it.mark.probe).map(|it| (it.place.partition, it.offset)).collect();
                read_parts += here.len() as u64;
                read.extend(here);
            }
            let mut expected = report.whole.seen.get(id).copied().unwrap_or_default();
            if owners[topic.0 as usize].is_none() {
                let again = read_parts - read.len() as u64;
                let twice = if missing.by_count_only { again } else { parts - received.len() as u64 };
                expected.distinct -= twice.min(expected.distinct);
                expected.reread += twice.min(again);
                expected.duplicated += twice - twice.min(again);
            }
            let count = confirmed.len() as u64;
            let lacking = if missing.by_count_only {
                count.saturating_sub(expected.distinct)
            } else {
                confirmed.difference(&received).count() as u64
            };
            if (missing.confirmed, missing.missing) != (count, lacking) {
                broken.note(format_args!(
                    "{id}: {} confirmed and {} missing, in truth {count} and {lacking}",
                    missing.confirmed, missing.missing
                ));
            }
            if *seen != expected {
                broken.note(format_args!("{id}: the verdict saw {seen:?}, the totals {expected:?}"));
            }
        }
    }
}

/// Whether the broker stored a batch there and dropped it within the same step.
fn is_gap(truth: &Truth, place: &Place, offset: i64) -> bool {
    let stored = truth.stored.get(place).zip(usize::try_from(offset).ok());
    stored.and_then(|(stored, offset)| stored.get(offset)).is_some_and(Option::is_none)
}

fn at(truth: &Truth, place: &Place, offset: i64) -> Option<omb_runtime_sim::truth::Mark> {
    *truth.stored.get(place)?.get(usize::try_from(offset).ok()?)?
}

impl Promise for Counts {
    fn name(&self) -> &'static str {
        "B2, counts are true"
    }

    fn on_output(&mut self, output: &Output, truth: &Truth, broken: &mut Broken) {
        if let Output::Report(report) = output {
            Self::compare(report, truth, broken);
        }
    }

    fn on_worker(&mut self, _: u32, _: &Worker, _: Instant, truth: &Truth, broken: &mut Broken) {
        self.follow(truth, broken);
    }

    fn on_broker(&mut self, _: &Broker, _: Instant, truth: &Truth, broken: &mut Broken) {
        self.follow(truth, broken);
    }

    fn at_end(&mut self, scenario: &Scenario, _: &Ended, truth: &Truth, broken: &mut Broken) {
        self.follow(truth, broken);
        if let Some(twice) = self.stored_twice.take().filter(|_| scenario.knobs.idempotent) {
            broken.note(format_args!("of an idempotent producer, {twice}"));
        }
    }
}
