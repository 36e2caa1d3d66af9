//! The load while it goes on: periods, phases, and what ends each.

use std::time::Duration;

use super::{Settings, find_rate};
use crate::{
    config::workload::{Backlog, RateGoal},
    controller::find_rate::{Observation, RateSearch, Step},
    plan::{Plan, rate::Rate},
    protocol::{
        Command, Failure, FailureKind,
        event::{Problem, Process, Snapshot},
    },
    report::{
        BacklogTimes, Found, Period, Periods, Phase, PhaseTotals, Report, Verdict,
        sums::{self, Sums},
    },
    stats::tally::Totals,
    time::{Instant, WallTime},
};

/// A load under way.
#[derive(Debug)]
pub(super) struct Load {
    began: Option<Instant>,
    started: WallTime,
    rate: Rate,
    next_read: Option<Instant>,
    /// When the phase ends, or must have ended.
    phase_until: Instant,
    phase_began: Instant,
    /// The newest state of all workers together, and the state at the last period's end.
    newest: Reading,
    closed: Reading,
    cpu_at_phase: Duration,
    client_cpu: Duration,
    periods: Periods,
    /// What the last period showed: the rest of it is packed.
    last: Option<Observation>,
    phases: Vec<PhaseTotals>,
    search: Option<RateSearch>,
    found: Option<Found>,
    backlog: Option<BacklogTimes>,
    messages_wanted: u64,
}

/// What all workers said at about one instant.
#[derive(Clone, Debug, Default)]
struct Reading {
    totals: Totals,
    /// By worker.
    taken_at: Vec<Instant>,
    wall: WallTime,
    in_flight: u64,
    schedule_lag: Duration,
    process: Process,
    problems: Vec<Problem>,
}

/// What follows a period.
pub(super) enum Next {
    Stay,
    Enter(Phase),
    Ask(Phase, Command),
    Stop,
    Fail(Failure),
}

impl Load {
    pub(super) fn new(plan: &Plan, rate: Rate) -> Self {
        Self {
            began: None,
            started: WallTime::default(),
            rate,
            next_read: None,
            phase_until: Instant::ZERO,
            phase_began: Instant::ZERO,
            newest: Reading::default(),
            closed: Reading::default(),
            cpu_at_phase: Duration::ZERO,
            client_cpu: Duration::ZERO,
            periods: Periods::new(),
            last: None,
            phases: Vec::new(),
            search: (plan.workload.rate == RateGoal::Search).then(RateSearch::new),
            found: None,
            backlog: None,
            messages_wanted: 0,
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        self.began.is_some()
    }

    pub(super) fn next_read(&self) -> Option<Instant> {
        self.next_read
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.newest.totals
    }

    /// The workers have started. Returns the phase it begins with.
    pub(super) fn begin(&mut self, now: Instant, settings: &Settings, plan: &Plan) -> Phase {
        let began = now + settings.start_after;
        self.began = Some(began);
        let warm_up = plan.workload.warmup_duration;
        self.phase_began = began;
        self.phase_until = began + warm_up;
        // The first reading is the zero that the first period is measured from.
        self.next_read = Some(began);
        Phase::WarmUp
    }

    /// Takes what every worker said.
    pub(super) fn read(&mut self, snapshots: &[Snapshot]) -> Result<(), Failure> {
        let mut reading = Reading::default();
        for snapshot in snapshots {
            reading.totals.merge(&snapshot.totals);
            reading.taken_at.push(snapshot.taken_at);
            reading.in_flight += snapshot.in_flight;
            reading.schedule_lag = reading.schedule_lag.max(snapshot.schedule_lag);
            reading.process.cpu += snapshot.process.cpu;
            reading.process.broker_cpu += snapshot.process.broker_cpu;
            reading.process.memory_bytes += snapshot.process.memory_bytes;
            reading.process.memory_bytes_max += snapshot.process.memory_bytes_max;
            for problem in &snapshot.problems {
                match reading.problems.iter_mut().find(|known| known.what == problem.what) {
                    Some(known) => known.count += problem.count,
                    None => reading.problems.push(problem.clone()),
                }
            }
        }
        reading.wall = snapshots.first().map(|snapshot| snapshot.wall).unwrap_or_default();
        // Histograms that shrink would make periods that do not add up: a worker that lost its state.
        if reading.totals.since(&self.newest.totals).is_err() {
            let text = "a worker's counts went backwards: it lost its state".to_owned();
            return Err(Failure::new(FailureKind::Broken, text));
        }
        self.newest = reading;
        Ok(())
    }

    /// Ends the period that the newest reading ends; the very first reading only begins one.
    pub(super) fn close_period(&mut self, now: Instant, phase: Phase, subscriptions: u64) -> Option<Period> {
        let began = self.began.unwrap_or(now);
        if self.closed.taken_at.is_empty() {
            self.started = self.newest.wall;
            self.cpu_at_phase = self.newest.process.client_cpu();
            // What was counted before this reading belongs to the first period, so that nothing is missing from the sum.
            self.closed.taken_at.clone_from(&self.newest.taken_at);
            return None;
        }
        let totals = self.newest.totals.since(&self.closed.totals).expect("checked when it was read");
        // The mean over the workers, each by its own clock.
        let sum: Duration =
            self.newest.taken_at.iter().zip(&self.closed.taken_at).map(|(after, before)| after.since(*before)).sum();
        let elapsed = sum / u32::try_from(self.newest.taken_at.len().max(1)).unwrap_or(1);
        let period = Period {
            phase,
            at: now.since(began),
            elapsed,
            wall: self.newest.wall,
            target: if phase < Phase::Stop { self.rate.as_f64() } else { 0.0 },
            unread: self.newest.totals.unread(subscriptions),
            in_flight: self.newest.in_flight,
            schedule_lag: self.newest.schedule_lag,
            process: self.newest.process,
            totals,
        };
        sums::add(&mut self.phases, phase, elapsed, &period.totals);
        let cpu = self.newest.process.client_cpu();
        if phase.counts() {
            self.client_cpu += cpu.saturating_sub(self.cpu_at_phase);
        }
        self.cpu_at_phase = cpu;
        self.closed = self.newest.clone();
        self.last = Some(Observation {
            elapsed,
            attempted: period.totals.departures.attempted,
            acked: period.totals.acknowledgements.acked,
            unread: period.unread,
        });
        self.periods.push(&period);
        Some(period)
    }

    /// What follows the period that has just been closed.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        phase: Phase,
        plan: &Plan,
        settings: &Settings,
        subscriptions: u64,
    ) -> Next {
        // Phases begin and end on the lines at which they were due, not when the answers came: durations stay whole.
        let line = self.next_read.map_or(now, |line| line.min(now));
        let next = self.next_phase(line, phase, plan, settings, subscriptions);
        self.next_read = match next {
            Next::Stop | Next::Fail(_) => None,
            // Periods keep to the grid of the load's beginning; a phase may end between two lines of it. While a
            // backlog fills or drains its end is looked for more often than once a period only at its very end.
            _ => Some(self.line_after(now, settings.period).min(self.phase_end_after(now))),
        };
        next
    }

    fn line_after(&self, now: Instant, period: Duration) -> Instant {
        let began = self.began.unwrap_or(now);
        let period_nanos = crate::time::nanos(period).max(1);
        let lines = now.0.saturating_sub(began.0) / period_nanos + 1;
        Instant(began.0 + lines * period_nanos)
    }

    fn phase_end_after(&self, now: Instant) -> Instant {
        if self.phase_until > now { self.phase_until } else { Instant(u64::MAX) }
    }

    fn next_phase(&mut self, now: Instant, phase: Phase, plan: &Plan, settings: &Settings, subscriptions: u64) -> Next {
        let unread = self.newest.totals.unread(subscriptions);
        match phase {
            Phase::WarmUp if now >= self.phase_until => match plan.workload.rate {
                RateGoal::Search => self.enter(now, Phase::Search, None),
                RateGoal::Fixed(_) => self.after_settling(now, plan),
            },
            Phase::Search => self.search(now, settings, subscriptions),
            Phase::Settle => {
                let little = self.rate.as_f64().max(1_000.0);
                #[expect(clippy::cast_precision_loss, reason = "a threshold")]
                let gone = unread as f64 <= little && self.newest.in_flight as f64 <= little;
                if gone || now >= self.phase_until { self.after_settling(now, plan) } else { Next::Stay }
            }
            Phase::FillBacklog => self.fill(now, plan, settings, unread),
            Phase::DrainBacklog => self.drain(now, plan, unread),
            Phase::Measure if now >= self.phase_until => Next::Stop,
            _ => Next::Stay,
        }
    }

    fn enter(&mut self, now: Instant, phase: Phase, lasts: Option<Duration>) -> Next {
        self.phase_began = now;
        self.phase_until = lasts.map_or(Instant(u64::MAX), |lasts| now + lasts);
        Next::Enter(phase)
    }

    fn after_settling(&mut self, now: Instant, plan: &Plan) -> Next {
        match plan.workload.backlog {
            Some(backlog) if self.backlog.is_none() => self.begin_backlog(now, plan, backlog),
            _ => self.enter(now, Phase::Measure, Some(plan.workload.test_duration)),
        }
    }

    fn search(&mut self, now: Instant, settings: &Settings, subscriptions: u64) -> Next {
        if now.since(self.phase_began) > settings.search_within {
            let text = format!("no rate was found that holds within {:?}", settings.search_within);
            return Next::Fail(Failure::new(FailureKind::Broken, text));
        }
        let (Some(search), Some(seen)) = (&mut self.search, self.last) else { return Next::Stay };
        match search.observe(seen, subscriptions) {
            Step::Stay => Next::Stay,
            Step::Try(rate) => {
                self.rate = rate;
                Next::Ask(Phase::Search, Command::SetRate { rate })
            }
            Step::Found(found) => {
                self.found = Some(found);
                let rate = Rate::per_second(found.rate).expect("a rate that held is a rate");
                self.rate = rate;
                // A backlog of the search must not stand in the measurement.
                self.enter(now, Phase::Settle, Some(settings.period * 10));
                Next::Ask(Phase::Settle, Command::SetRate { rate })
            }
            Step::Nothing => {
                let text = format!(
                    "no rate holds: below 1 msg/s not even {:.0} % of the messages are acknowledged",
                    find_rate::ACHIEVED_MIN * 100.0
                );
                Next::Fail(Failure::new(FailureKind::Broken, text))
            }
        }
    }

    fn begin_backlog(&mut self, now: Instant, plan: &Plan, backlog: Backlog) -> Next {
        self.backlog = Some(BacklogTimes { asked_bytes: backlog.bytes, ..BacklogTimes::default() });
        self.messages_wanted = backlog.bytes.div_ceil(u64::from(plan.workload.message_size)).max(1);
        self.enter(now, Phase::FillBacklog, None);
        Next::Ask(Phase::FillBacklog, Command::PauseConsumers)
    }

    fn fill(&mut self, now: Instant, plan: &Plan, settings: &Settings, unread: u64) -> Next {
        let took = now.since(self.phase_began);
        if unread >= self.messages_wanted {
            if let Some(times) = &mut self.backlog {
                times.fill = took;
                times.built_messages = unread;
            }
            let bound = (took * settings.drain_factor).max(settings.fill_slack);
            self.enter(now, Phase::DrainBacklog, Some(bound));
            return Next::Ask(Phase::DrainBacklog, Command::ResumeConsumers);
        }
        #[expect(clippy::cast_precision_loss, reason = "an estimate, doubled")]
        let expected = self.messages_wanted as f64
            / (self.rate.as_f64() * f64::from(plan.workload.subscriptions_per_topic.max(1)));
        let bound = Duration::from_secs_f64((2.0 * expected).min(1e9)) + settings.fill_slack;
        if took > bound {
            let text = format!(
                "the backlog did not build up within {bound:?}: {unread} of {} messages are unread",
                self.messages_wanted
            );
            return Next::Fail(Failure::new(FailureKind::Broken, text));
        }
        Next::Stay
    }

    fn drain(&mut self, now: Instant, plan: &Plan, unread: u64) -> Next {
        let Some(backlog) = plan.workload.backlog else { return Next::Stay };
        // Upstream's target: what the ratio leaves, and never below 1,000 messages, for producers go on meanwhile.
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "upstream's floor"
        )]
        let target = (((1.0 - backlog.drain_ratio) * self.messages_wanted as f64) as u64).max(1_000);
        let drained = unread <= target;
        if drained && let Some(times) = &mut self.backlog {
            times.drain = Some(now.since(self.phase_began));
        }
        if drained || now >= self.phase_until {
            return self.enter(now, Phase::Measure, Some(plan.workload.test_duration));
        }
        Next::Stay
    }

    /// The result.
    pub(super) fn into_report(
        mut self,
        plan: &Plan,
        settings: &Settings,
        system: &str,
        verdict: Verdict,
        partial: Option<String>,
    ) -> Report {
        // What arrived after the last period that was closed belongs to the drain.
        let rest = self.newest.totals.since(&self.closed.totals).expect("checked when it was read");
        let Sums { measured, measured_for, tail, .. } = sums::finish(&mut self.phases, &rest);
        Report {
            plan: plan.clone(),
            driver: settings.driver.name.clone(),
            system: system.to_owned(),
            started: self.started,
            periods: self.periods,
            phases: self.phases,
            measured,
            measured_for,
            tail,
            whole: self.newest.totals,
            client_cpu: self.client_cpu,
            process: self.newest.process,
            found: self.found,
            backlog: self.backlog,
            verdict,
            problems: self.newest.problems,
            partial,
        }
    }
}
