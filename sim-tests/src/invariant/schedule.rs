//! The schedule is open: message n of a run is meant to leave at `start + n / rate`, rounded down to the nanosecond,
//! whatever happened to the messages before it.

use std::collections::BTreeMap;

use omb_core::{
    config::workload::{CatchUp, RateGoal},
    controller::{End, find_rate},
    id::ProducerId,
    time::Instant,
};
use omb_runtime_sim::{
    fault::{Trouble, process},
    scenario::Scenario,
    truth::{self, Attempt, Truth},
    world::Ended,
};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Schedule;

impl Promise for Schedule {
    fn name(&self) -> &'static str {
        "the open schedule"
    }

    fn at_end(&mut self, scenario: &Scenario, ended: &Ended, truth: &Truth, broken: &mut Broken) {
        let mut gaps = 0;
        let mut next: BTreeMap<(u32, ProducerId, usize), u64> = BTreeMap::new();
        for attempt in &truth.attempts {
            let next = next.entry((attempt.worker, attempt.mark.producer, attempt.schedule)).or_default();
            let schedule = &truth.workers[attempt.worker as usize].schedules[attempt.schedule];
            let Some(round) = round(schedule, attempt) else {
                return broken.note(format_args!("{attempt:?} lies on no line of {schedule:?}"));
            };
            let skipped_nothing = scenario.workload.catch_up == CatchUp::All;
            if round < *next || (skipped_nothing && round > *next) {
                return broken.note(format_args!("{attempt:?} is number {round} of its producer, {next} was due"));
            }
            gaps += round - *next;
            *next = round + 1;
            if attempt.sent < attempt.intended {
                return broken.note(format_args!("{attempt:?} left before it was due"));
            }
        }
        // What was skipped is what is missing between the messages that left, but for the very last of each producer.
        let skipped = truth.workers.iter().filter_map(|worker| worker.told(0)).map(|told| told.counts.skipped).sum();
        let rate = match ended.plan.workload.rate {
            RateGoal::Fixed(rate) => rate,
            RateGoal::Search => find_rate::FIRST,
        };
        // A thread that waits for room in one queue owes all its producers' messages meanwhile.
        let last = 2 * ended.plan.producers.len() as u64 + rate / 20;
        // A process that stands still at the end skips what nobody sees.
        let stood = scenario.suffers(|it| matches!(it, Trouble::Process(process::Trouble::Paused(_))));
        let one_rate = truth.workers.iter().all(|worker| worker.schedules.len() == 1);
        if one_rate && !stood && ended.end == Some(End::Sound) && !(gaps..=gaps + last).contains(&skipped) {
            broken.note(format_args!(
                "{skipped} messages were counted as skipped, {gaps} are missing between those that left"
            ));
        }
    }
}

/// The how-manieth message of its producer it is, under its schedule.
fn round(schedule: &truth::Schedule, attempt: &Attempt) -> Option<u64> {
    let truth::Schedule { start, rate, producers, .. } = *schedule;
    let (messages, seconds) = rate.fraction();
    let (messages, seconds) = (u128::from(messages), u128::from(seconds) * 1_000_000_000);
    let place = u128::from(attempt.mark.producer.0);
    let producers = u128::from(producers);
    let due = |round: u128| {
        Instant(start.0 + u64::try_from((round * producers + place) * seconds / messages).unwrap_or(u64::MAX))
    };
    let behind = u128::from(attempt.intended.0.checked_sub(start.0)?);
    // The division that found the instant rounded down, so the inverse may be one short.
    let near = (behind * messages / seconds).saturating_sub(place) / producers;
    (near.saturating_sub(1)..=near + 1)
        .find(|round| due(*round) == attempt.intended)
        .and_then(|round| u64::try_from(round).ok())
}
