//! The schedule is open: message n of a run is meant to leave at `start + n / rate`, rounded down to the nanosecond,
//! whatever happened to the messages before it. And it is exact: every message within its window leaves or is counted
//! as skipped, no message more and none less, whenever the stop arrives.

use std::{collections::BTreeMap, time::Duration};

use omb_bench::{
    config::workload::{CatchUp, RateGoal},
    controller::End,
    id::ProducerId,
    rate::Tempo,
    result::Report,
};
use omb_machine::time::Instant;
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
        // The skipped messages are the gaps between the messages that left, except for the very last of each producer.
        let skipped: u64 =
            truth.workers.iter().filter_map(|worker| worker.reported(0)).map(|it| it.counts.skipped).sum();
        let one_rate = truth.workers.iter().all(|worker| worker.schedules.len() == 1);
        // A process that stands still at the end skips messages unobserved.
        let stood = scenario.suffers(|it| matches!(it, Trouble::Process(process::Trouble::Paused(_))));
        if one_rate && !stood && ended.end == Some(End::Sound) && skipped < gaps {
            broken.note(format_args!(
                "{skipped} messages were counted as skipped, {gaps} are missing between those that left"
            ));
        }
        if let Some(report) = &ended.report
            && let [schedule, ..] = truth.workers[0].schedules.as_slice()
            && let Some(lasts) = schedule.lasts
            && matches!(ended.end, Some(End::Sound | End::Unsound(_)))
            && report.workers.iter().all(|row| row.lost.is_none())
            && one_rate
        {
            Self::check_window(scenario, report, schedule, lasts, broken);
        }
        // At a rate that is known from the start a load ends by itself.
        let known = scenario.workload.rate != RateGoal::Search && scenario.workload.backlog.is_none();
        let informed = truth.workers.iter().filter_map(|worker| worker.schedules.first()).all(|it| it.lasts.is_some());
        if known && ended.end == Some(End::Sound) && !informed {
            broken.note("a worker does not know when the load ends");
        }
    }
}

impl Schedule {
    fn check_window(
        scenario: &Scenario,
        report: &Report,
        schedule: &truth::Schedule,
        lasts: Duration,
        broken: &mut Broken,
    ) {
        let (departures, due) = (&report.whole.departures, schedule.tempo.messages_within(lasts));
        if departures.attempted + departures.skipped != due {
            broken.note(format_args!(
                "{due} messages were due within {lasts:?}, {} left and {} were skipped",
                departures.attempted, departures.skipped
            ));
        }
        // A worker that sends in time leaves nothing over at the end of the warm-up.
        let in_time = departures.schedule_error.max() < 20_000_000 && departures.skipped == 0;
        let warm_up = scenario.workload.warmup_duration;
        let due = due - schedule.tempo.messages_within(warm_up);
        let measured = report.measured.departures.attempted;
        if in_time && measured != due {
            broken.note(format_args!("{due} messages were due while it was measured, {measured} were counted"));
        }
        // To the rounding of the workers' clocks, which are read in whole nanoseconds.
        let off = report.measured_for.abs_diff(scenario.workload.test_duration);
        if scenario.is_calm() && off > Duration::from_micros(1) {
            broken.note(format_args!(
                "{:?} were to be measured, {:?} were",
                scenario.workload.test_duration, report.measured_for
            ));
        }
    }
}

/// The same where the rate follows a list: counted up, step by step.
fn listed(schedule: &truth::Schedule, attempt: &Attempt) -> Option<u64> {
    let behind = Duration::from_nanos(attempt.intended.0.checked_sub(schedule.start.0)?);
    // This many are due before it, and it is the next one.
    let nth = schedule.tempo.messages_within(behind);
    let next = schedule.tempo.messages_within(behind + Duration::from_nanos(1));
    let producers = u64::from(schedule.producers);
    (nth..next).find(|nth| nth % producers == u64::from(attempt.mark.producer.0)).map(|nth| nth / producers)
}

/// Its number among the messages of its producer, under its schedule.
fn round(schedule: &truth::Schedule, attempt: &Attempt) -> Option<u64> {
    let truth::Schedule { start, tempo, producers, .. } = schedule;
    let (start, producers) = (*start, *producers);
    let Tempo::Steady(rate) = tempo else { return listed(schedule, attempt) };
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
