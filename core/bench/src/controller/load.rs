//! The load while it goes on: periods, phases, and what ends each.

use std::{collections::BTreeMap, time::Duration};

use super::{Settings, find_rate};
use crate::{
    config::workload::{Backlog, RateGoal},
    controller::find_rate::{Observation, RateSearch, Step},
    id::{SubscriptionId, WorkerId},
    load::silence::{self, Silence},
    offset::Offsets,
    plan::Plan,
    protocol::{
        Command, Failure, FailureKind,
        command::{Reach, Window},
        event::{Problem, Process, Snapshot},
    },
    rate::{Rate, Tempo},
    result::{
        BacklogTimes, Found, Lost, Period, Periods, Phase, PhaseTotals, Rebalances, Report, Verdict, WorkerClock,
        WorkerPeriod, WorkerRow,
        sums::{self, Sums},
    },
    stats::{sparse::TotalsSum, tally::Totals},
};
use omb_machine::time::{Instant, WallTime};

/// A load under way.
#[derive(Debug)]
pub(super) struct Load {
    /// When message 0 is due, everywhere.
    at: Instant,
    began: Option<Instant>,
    started: WallTime,
    tempo: Tempo,
    /// What the workers know of the end of the load; `None` if that is decided while it goes on.
    window: Option<Window>,
    next_read: Option<Instant>,
    /// The line up to which the present read tells, and when it was asked for.
    line: Instant,
    asked_at: Instant,
    /// When the phase ends, or must have ended.
    phase_until: Instant,
    phase_began: Instant,
    /// The first reading has been taken.
    opened: bool,
    /// The newest state of all workers together, and the state at the last period's end.
    newest: Reading,
    closed: Reading,
    closed_at: Instant,
    workers: Vec<Member>,
    /// Producers of workers that are left, and of all.
    producers: (u32, u32),
    /// Whether some topic is shared by several workers, so that what a lost one had a part in cannot be told apart.
    shared: bool,
    cpu_at_phase: Duration,
    client_cpu: Duration,
    periods: Periods,
    /// What the last period showed: the rest of it is packed.
    last: Option<Observation>,
    phases: Vec<PhaseTotals>,
    /// Groups that were rebalanced since the load began.
    rebalances: BTreeMap<SubscriptionId, Rebalances>,
    /// How many there were when the last period ended.
    rebalances_closed: u64,
    search: Option<RateSearch>,
    found: Option<Found>,
    backlog: Option<BacklogTimes>,
    messages_wanted: u64,
    /// The end of the last period under load, since it began.
    loaded_until: Duration,
}

/// What all workers said at about one instant.
#[derive(Clone, Debug, Default)]
struct Reading {
    totals: Totals,
    /// Messages confirmed to producers of workers that are left, and received there for the first time.
    acked: u64,
    distinct: u64,
    wall: WallTime,
    in_flight: u64,
    schedule_lag: Duration,
    process: Process,
    problems: Vec<Problem>,
    /// By worker; `None` where nothing can be known.
    silences: Vec<Option<Vec<Silence>>>,
}

/// One worker as the load sees it.
#[derive(Clone, Debug, Default)]
struct Member {
    /// What it said last; stays when it is lost.
    last: Option<Box<Snapshot>>,
    /// What it had counted when the last period ended.
    closed: MemberCounts,
    /// What it had counted when the first counted phase began, and when the last one ended.
    counted: Option<(MemberCounts, MemberCounts)>,
    /// When that was asked for which it said last.
    read_at: Option<Instant>,
    lost: bool,
    /// It was dealt producers.
    produces: bool,
}

/// What is reported of one worker's period.
#[derive(Clone, Copy, Debug, Default)]
struct MemberCounts {
    taken_at: Instant,
    attempted: u64,
    acked: u64,
    acked_bytes: u64,
    received: u64,
    received_bytes: u64,
    process: Process,
    throttled: Duration,
}

impl MemberCounts {
    fn of(snapshot: &Snapshot) -> Self {
        let totals = &snapshot.totals;
        Self {
            taken_at: snapshot.taken_at,
            attempted: totals.departures.attempted,
            acked: totals.acknowledgements.acked,
            acked_bytes: totals.acknowledgements.acked_bytes,
            received: totals.arrivals.received,
            received_bytes: totals.arrivals.received_bytes,
            process: snapshot.process,
            throttled: snapshot.throttled,
        }
    }
}

/// What a report tells beside the load.
pub(super) struct Known<'a> {
    pub(super) system: &'a str,
    pub(super) verdict: Verdict,
    pub(super) partial: Option<String>,
    pub(super) lost: &'a [Lost],
    /// By worker.
    pub(super) clocks: Vec<&'a Offsets>,
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
    pub(super) fn new(plan: &Plan, tempo: Tempo, at: Instant) -> Self {
        let producers = u32::try_from(plan.producers.len()).unwrap_or(u32::MAX);
        Self {
            at,
            workers: plan
                .shares()
                .iter()
                .map(|share| Member { produces: !share.producers.is_empty(), ..Member::default() })
                .collect(),
            producers: (producers, producers),
            shared: plan.workers > 1 && plan.owners().contains(&None),
            began: None,
            started: WallTime::default(),
            tempo,
            window: window_of(plan),
            next_read: None,
            line: at,
            asked_at: at,
            phase_until: Instant::ZERO,
            phase_began: Instant::ZERO,
            opened: false,
            newest: Reading::default(),
            closed: Reading::default(),
            closed_at: at,
            cpu_at_phase: Duration::ZERO,
            client_cpu: Duration::ZERO,
            periods: Periods::new(),
            last: None,
            phases: Vec::new(),
            rebalances: BTreeMap::new(),
            rebalances_closed: 0,
            search: (plan.workload.rate == RateGoal::Search).then(RateSearch::new),
            found: None,
            backlog: None,
            messages_wanted: 0,
            loaded_until: Duration::ZERO,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.began.is_some()
    }

    pub(super) fn next_read(&self) -> Option<Instant> {
        self.next_read
    }

    /// What the workers are sent of it before it begins.
    pub(super) fn window(&self) -> Option<Window> {
        self.window
    }

    /// Everybody is about to be read: notes up to where, and says so.
    pub(super) fn ask(&mut self, now: Instant, phase: Phase) -> Reach {
        self.asked_at = now;
        let whole = phase < Phase::Stop && self.began.is_some() && self.phase_until <= now;
        // Phases begin and end on the lines at which they were due, not when they were read: durations stay whole.
        self.line = if whole { self.phase_until } else { now };
        match phase {
            Phase::WarmUp if self.window.is_some() => Reach::WarmUp { whole },
            Phase::Measure if self.window.is_some() => Reach::Measured { whole },
            _ => Reach::Everything,
        }
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.newest.totals
    }

    /// Confirmed messages not yet received, as far as workers that are left know of them.
    pub(super) fn unread(&self, subscriptions: u64) -> u64 {
        self.newest.acked.saturating_mul(subscriptions).saturating_sub(self.newest.distinct)
    }

    /// Whether a worker was lost that shared topics with others: then counts alone do not tell what is missing.
    pub(super) fn is_torn(&self) -> bool {
        self.shared && self.workers.iter().any(|member| member.lost)
    }

    /// A worker is lost. What it counted stays; returns how long after the load's beginning it was last read, and by now.
    pub(super) fn lose(&mut self, now: Instant, worker: WorkerId, plan: &Plan) -> (Option<Duration>, Duration) {
        let mut read = None;
        if let Some(member) = self.workers.get_mut(worker.0 as usize) {
            member.lost = true;
            read = member.read_at.map(|at| at.since(self.at));
        }
        let gone = plan.producers_of(worker).count();
        self.producers.0 -= u32::try_from(gone).unwrap_or(u32::MAX).min(self.producers.0);
        (read, now.since(self.at))
    }

    /// Rate asked for since the last period, of producers that are left, msg/s.
    fn target(&self) -> f64 {
        let (left, all) = self.producers;
        let rate = self.tempo.mean(self.closed_at.since(self.at), self.line.since(self.at));
        if left == all { rate } else { rate * f64::from(left) / f64::from(all.max(1)) }
    }

    /// The workers have started. Returns the phase it begins with.
    pub(super) fn begin(&mut self, plan: &Plan) -> Phase {
        let began = self.at;
        self.began = Some(began);
        let warm_up = plan.workload.warmup_duration;
        self.phase_began = began;
        self.phase_until = began + warm_up;
        // The first reading is the zero that the first period is measured from.
        self.next_read = Some(began);
        Phase::WarmUp
    }

    /// Takes what every worker that is left said.
    pub(super) fn read(&mut self, snapshots: BTreeMap<WorkerId, Snapshot>) -> Result<(), Failure> {
        for (worker, snapshot) in snapshots {
            if let Some(member) = self.workers.get_mut(worker.0 as usize) {
                member.last = Some(Box::new(snapshot));
                member.read_at = Some(self.asked_at);
            }
        }
        let (mut reading, mut totals) = (Reading::default(), TotalsSum::default());
        let mut first = true;
        for member in &self.workers {
            // A lost one is silent since its last acknowledgement that is known.
            let silences = member.last.as_ref().filter(|_| member.produces).map(|last| last.silences.clone());
            reading.silences.push(silences);
            let Some(snapshot) = &member.last else { continue };
            totals.add(&snapshot.totals);
            for problem in &snapshot.problems {
                match reading.problems.iter_mut().find(|known| known.what == problem.what) {
                    Some(known) => known.count = known.count.saturating_add(problem.count),
                    None => reading.problems.push(problem.clone()),
                }
            }
            if member.lost {
                continue;
            }
            reading.acked = reading.acked.saturating_add(snapshot.totals.acknowledgements.acked);
            for seen in snapshot.totals.seen.values() {
                reading.distinct = reading.distinct.saturating_add(seen.distinct);
            }
            reading.in_flight = reading.in_flight.saturating_add(snapshot.in_flight);
            reading.schedule_lag = reading.schedule_lag.max(snapshot.schedule_lag);
            reading.process.add(&snapshot.process);
            if std::mem::take(&mut first) {
                reading.wall = snapshot.wall;
            }
        }
        reading.totals = totals.into_totals();
        self.read_rebalances();
        // Histograms that shrink would make periods that do not add up: a worker that lost its state.
        if reading.totals.since(&self.newest.totals).is_err() {
            let text = "a worker's counts went backwards: it lost its state".to_owned();
            return Err(Failure::new(FailureKind::Broken, text));
        }
        self.newest = reading;
        Ok(())
    }

    /// Takes over which groups the workers saw being rebalanced. Those of one group see the same, and so the highest count
    /// holds.
    fn read_rebalances(&mut self) {
        for snapshot in self.workers.iter().filter_map(|member| member.last.as_ref()) {
            for (subscription, view) in snapshot.groups.iter().filter(|(_, view)| view.rebalances > 0) {
                let known = self.rebalances.entry(*subscription).or_default();
                if view.rebalances > known.count {
                    known.count = view.rebalances;
                    known.at.extend(view.last.filter(|_| known.at.len() < Rebalances::AT_MAX));
                }
            }
        }
    }

    fn rebalances(&self) -> u64 {
        self.rebalances.values().map(|rebalances| rebalances.count).fold(0, u64::saturating_add)
    }

    /// Ends the period that the newest reading ends; the very first reading only begins one.
    pub(super) fn close_period(&mut self, phase: Phase, subscriptions: u64) -> Option<Period> {
        let began = self.began.unwrap_or(self.line);
        if !std::mem::replace(&mut self.opened, true) {
            // A load that is first read when the warm-up is over has counted all of it.
            let late = self.line == self.phase_until && self.line > self.at;
            let back = if late { self.line.since(self.at) } else { Duration::ZERO };
            self.started = WallTime(self.newest.wall.0.saturating_sub(omb_machine::time::nanos(back)));
            self.cpu_at_phase = self.newest.process.client_cpu();
            // What was counted before this reading belongs to the first period, so that nothing is missing from the sum.
            for member in &mut self.workers {
                if let Some(last) = &member.last {
                    member.closed = MemberCounts {
                        taken_at: last.taken_at - back,
                        process: last.process,
                        throttled: if late { Duration::ZERO } else { last.throttled },
                        ..MemberCounts::default()
                    };
                }
            }
            if !late {
                return None;
            }
        }
        let totals = self.newest.totals.since(&self.closed.totals).expect("checked when it was read");
        let (rows, elapsed, throttled) = self.close_members(phase);
        let period = Period {
            phase,
            // What is reported is how things stood when it was asked for, however long a worker took to answer.
            at: self.line.since(began),
            elapsed,
            wall: self.newest.wall,
            target: if phase < Phase::Stop { self.target() } else { 0.0 },
            unread: self.unread(subscriptions),
            in_flight: self.newest.in_flight,
            schedule_lag: self.newest.schedule_lag,
            throttled,
            process: self.newest.process,
            totals,
            rebalances: self.rebalances().saturating_sub(self.rebalances_closed),
            workers: rows,
        };
        if phase < Phase::Stop {
            self.loaded_until = period.at;
        }
        sums::add(&mut self.phases, phase, elapsed, &period.totals);
        let cpu = self.newest.process.client_cpu();
        if phase.counts() {
            self.client_cpu = self.client_cpu.saturating_add(cpu.saturating_sub(self.cpu_at_phase));
        }
        self.cpu_at_phase = cpu;
        self.closed = self.newest.clone();
        self.closed_at = self.line;
        self.rebalances_closed = self.rebalances();
        self.last = Some(Observation {
            elapsed,
            attempted: period.totals.departures.attempted,
            acked: period.totals.acknowledgements.acked,
            unread: period.unread,
        });
        self.periods.push(&period);
        Some(period)
    }

    /// Each worker's part of the period; how long it was, as the mean over the workers, each by its own clock; and for how long
    /// a quota held up the one that it held up longest.
    fn close_members(&mut self, phase: Phase) -> (Vec<WorkerPeriod>, Duration, Duration) {
        let (mut rows, mut sum, mut left) = (Vec::new(), Duration::ZERO, 0_u32);
        let mut throttled = Duration::ZERO;
        let several = self.workers.len() > 1;
        for (worker, member) in (0..).map(WorkerId).zip(&mut self.workers) {
            let Some(last) = &member.last else { continue };
            let (before, now) = (member.closed, MemberCounts::of(last));
            let elapsed = now.taken_at.since(before.taken_at);
            throttled = throttled.max(now.throttled.saturating_sub(before.throttled).min(elapsed));
            // One that was lost after it answered is in the totals of this period still.
            if !member.lost {
                (sum, left) = (sum + elapsed, left + 1);
            }
            if phase.counts() {
                let from = member.counted.map_or(before, |(from, _)| from);
                member.counted = Some((from, now));
            }
            if several && elapsed > Duration::ZERO {
                rows.push(WorkerPeriod {
                    worker,
                    elapsed,
                    attempted: now.attempted.saturating_sub(before.attempted),
                    acked: now.acked.saturating_sub(before.acked),
                    received: now.received.saturating_sub(before.received),
                    schedule_lag: last.schedule_lag,
                    cpu: now.process.cpu.saturating_sub(before.process.cpu),
                    received_bytes: now.process.received_bytes.saturating_sub(before.process.received_bytes),
                    sent_bytes: now.process.sent_bytes.saturating_sub(before.process.sent_bytes),
                });
            }
            member.closed = now;
        }
        (rows, sum / left.max(1), throttled)
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
        let next = self.next_phase(self.line, phase, plan, settings, subscriptions);
        self.next_read = match next {
            Next::Stop | Next::Fail(_) => None,
            // Periods keep to the grid of the load's beginning; a phase may end between two lines of it. While a
            // backlog fills or drains its end is looked for more often than once a period only at its very end.
            // A phase that is over by now is read at once: it has an end of its own, however short it was.
            _ => Some(self.line_after(now, settings.period).min(self.phase_until.max(now))),
        };
        next
    }

    /// The rate by now, msg/s.
    fn rate(&self) -> f64 {
        let now = self.line.since(self.at);
        self.tempo.mean(now, now)
    }

    fn line_after(&self, now: Instant, period: Duration) -> Instant {
        let began = self.began.unwrap_or(now);
        let period_nanos = omb_machine::time::nanos(period).max(1);
        let lines = now.0.saturating_sub(began.0) / period_nanos + 1;
        Instant(began.0 + lines * period_nanos)
    }

    fn next_phase(&mut self, now: Instant, phase: Phase, plan: &Plan, settings: &Settings, subscriptions: u64) -> Next {
        let unread = self.unread(subscriptions);
        match phase {
            Phase::WarmUp if now >= self.phase_until => match plan.workload.rate {
                RateGoal::Search => self.enter(now, Phase::Search, None),
                RateGoal::Fixed(_) | RateGoal::Listed(_) => self.after_settling(now, plan),
            },
            Phase::Search => self.search(now, settings, subscriptions),
            Phase::Settle => {
                let little = self.rate().max(1_000.0);
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
                self.tempo = rate.into();
                Next::Ask(Phase::Search, Command::SetRate { rate })
            }
            Step::Found(found) => {
                self.found = Some(found);
                let rate = Rate::per_second(found.rate).expect("a rate that held is a rate");
                self.tempo = rate.into();
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
        let expected =
            self.messages_wanted as f64 / (self.rate() * f64::from(plan.workload.subscriptions_per_topic.max(1)));
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
    pub(super) fn into_report(mut self, now: Instant, plan: &Plan, settings: &Settings, known: Known<'_>) -> Report {
        // What arrived after the last period that was closed belongs to the drain.
        let rest = self.newest.totals.since(&self.closed.totals).expect("checked when it was read");
        let Sums { measured, measured_for, tail, .. } = sums::finish(&mut self.phases, &rest);
        let workers = self.rows(now, plan, settings, &known);
        let outages = silence::outages(&self.newest.silences, self.loaded_until, |at| self.tempo.messages_within(at));
        Report {
            plan: plan.clone(),
            driver: settings.driver.name.clone(),
            system: known.system.to_owned(),
            started: self.started,
            periods: self.periods,
            phases: self.phases,
            measured,
            measured_for,
            tail,
            whole: self.newest.totals,
            client_cpu: self.client_cpu,
            process: self.newest.process,
            workers,
            clock_error: fleet_clock_error(now, plan, &known),
            found: self.found,
            backlog: self.backlog,
            rebalances: self.rebalances,
            verdict: known.verdict,
            problems: self.newest.problems,
            unconfirmed: settings.driver.acks_nothing(),
            tempo: Some(self.tempo).filter(|tempo| matches!(tempo, Tempo::Listed { .. })),
            outages,
            partial: known.partial,
        }
    }

    /// A row per worker; none where the one worker is the controller's own process.
    fn rows(&self, now: Instant, plan: &Plan, settings: &Settings, known: &Known<'_>) -> Vec<WorkerRow> {
        if settings.names.is_empty() {
            return Vec::new();
        }
        let shares = plan.shares();
        let rows = (0..).map(WorkerId).zip(&self.workers).zip(&shares).map(|((worker, member), share)| {
            let (from, to) = member.counted.unwrap_or_default();
            let late = member.last.as_ref().map(|last| last.totals.departures.schedule_error.to_latency());
            WorkerRow {
                worker,
                name: settings.names.get(worker.0 as usize).cloned().unwrap_or_default(),
                producers: u32::try_from(share.producers.len()).unwrap_or(u32::MAX),
                consumers: u32::try_from(share.consumers.len()).unwrap_or(u32::MAX),
                measured_for: to.taken_at.since(from.taken_at),
                attempted: to.attempted.saturating_sub(from.attempted),
                acked: to.acked.saturating_sub(from.acked),
                acked_bytes: to.acked_bytes.saturating_sub(from.acked_bytes),
                received: to.received.saturating_sub(from.received),
                received_bytes: to.received_bytes.saturating_sub(from.received_bytes),
                cpu: to.process.cpu.saturating_sub(from.process.cpu),
                net_received_bytes: to.process.received_bytes.saturating_sub(from.process.received_bytes),
                net_sent_bytes: to.process.sent_bytes.saturating_sub(from.process.sent_bytes),
                process: member.last.as_ref().map(|last| last.process).unwrap_or_default(),
                schedule_error: late.map(|late| [late.at(0.5), late.at(0.99), late.max()]).unwrap_or_default(),
                schedule_lag: member.last.as_ref().map(|last| last.schedule_lag).unwrap_or_default(),
                clock: known.clocks.get(worker.0 as usize).and_then(|offsets| WorkerClock::of(offsets, now)),
                lost: known.lost.iter().find(|lost| lost.worker == worker).cloned(),
            }
        });
        rows.collect()
    }
}

/// What is measured of a load whose length is known before it begins.
fn window_of(plan: &Plan) -> Option<Window> {
    let workload = &plan.workload;
    let known = workload.rate != RateGoal::Search && workload.backlog.is_none();
    let from = workload.warmup_duration;
    known.then(|| Window { from, until: from.saturating_add(workload.test_duration) })
}

/// How far the clocks of two workers between which messages pass may disagree, by what is known of them; `None` if no
/// message passes between two clocks.
fn fleet_clock_error(now: Instant, plan: &Plan, known: &Known<'_>) -> Option<Duration> {
    if plan.workers < 2 || plan.consumers.is_empty() || plan.owners().iter().all(Option::is_some) {
        return None;
    }
    let mut errors: Vec<Duration> =
        known.clocks.iter().filter_map(|offsets| WorkerClock::of(offsets, now)).map(|clock| clock.error).collect();
    errors.sort_unstable();
    Some(errors.iter().rev().take(2).sum())
}
