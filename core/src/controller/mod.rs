//! A plan in, a report out: one run, seen from the one who leads it.
//!
//! ```text
//! prepare ─▶ topics ─▶ consumers ─▶ producers ─▶ probe ─▶ load: warm-up [search settle] [fill drain] measure
//!         ─▶ stop ─▶ drain ─▶ verify ─▶ (report) ─▶ tear down
//! ```
//!
//! Every step is one command to each worker, and ends when all have answered or the deadline passes. The report is
//! handed out before anything is torn down, and a run that fails or is interrupted once its load has begun still
//! reports what was measured.

pub mod find_rate;
mod load;
mod settings;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

pub use settings::Settings;

use self::load::Load;
use crate::{
    config::workload::{PayloadSource, RateGoal},
    id::{SubscriptionId, WorkerId},
    load::payload::PayloadRecipe,
    machine::{Machine, Wake},
    plan::{Plan, rate::Rate},
    protocol::{
        self, Command, Event, Failure, FailureKind, Request, Response,
        command::{ConsumerSpec, Preparation, ProducerSpec, TopicSpec},
        event::{Missing, Snapshot},
    },
    report::{Drained, Period, Phase, Report, Verdict},
    time::Instant,
};

/// What can happen to a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A worker answered.
    FromWorker {
        /// Which one.
        worker: WorkerId,
        /// What it said.
        response: Response,
    },
    /// A worker cannot be reached any more.
    WorkerGone {
        /// Which one.
        worker: WorkerId,
        /// Why, in one line.
        cause: String,
    },
    /// Somebody wants the run to end now, with what it has.
    Stop,
}

/// What a run wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this to a worker.
    ToWorker {
        /// Which one.
        worker: WorkerId,
        /// What.
        request: Request,
    },
    /// A phase begins.
    Entered(Phase),
    /// A period of the load is over: to be shown and appended to the record.
    Period(Box<Period>),
    /// The result, to be written before the next output is performed.
    Report(Box<Report>),
    /// Something to be told that changes nothing.
    Warning(String),
    /// Always the last output.
    Finished(End),
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Done, and nothing is missing.
    Sound,
    /// Done, but not sound: confirmed messages are missing, say. Each reason in one line.
    Unsound(Vec<String>),
    /// Ended early because somebody wanted it. Whether there is a (partial) report.
    Interrupted(bool),
    /// It failed. With a partial report if its load had begun.
    Failed(Failure),
}

/// One run's machine.
#[derive(Debug)]
pub struct Controller {
    plan: Plan,
    settings: Settings,
    phase: Phase,
    workers: Vec<Link>,
    /// What the workers are asked and by when all must have answered; `None` between two reads.
    asked: Option<Asked>,
    /// The load, from the moment it is started.
    load: Option<Load>,
    system: String,
    topics_exist: bool,
    /// The last command has been given.
    closing: bool,
    verdict: Verdict,
    probe: Probe,
    drain: Drain,
    stop_wanted: bool,
    /// Why the run was cut short.
    cut: Option<Cut>,
    reported: bool,
    unsound: Vec<String>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Link {
    /// Number of the last request.
    number: u64,
}

#[derive(Debug)]
struct Asked {
    what: &'static str,
    deadline: Instant,
    answers: BTreeMap<WorkerId, Event>,
}

/// Waiting for the probes to arrive.
#[derive(Debug, Default)]
struct Probe {
    deadline: Instant,
    /// When to look whether they have.
    look_at: Option<Instant>,
    /// When to send another round: the first may have come too early for a group that reads from the end.
    again_at: Instant,
    rounds: u32,
}

/// Waiting for the consumers to receive what is left.
#[derive(Debug, Default)]
struct Drain {
    /// The counts agreed, but messages that were given up had arrived in place of confirmed ones: only silence tells
    /// now that nothing more comes.
    by_silence: bool,
    deadline: Instant,
    progress_at: Instant,
    distinct: u64,
    next: Option<Instant>,
}

#[derive(Clone, Debug)]
enum Cut {
    Wanted,
    Failed(Failure),
}

impl Controller {
    /// Begins `plan` at `now`: the first commands are there to be polled.
    #[must_use]
    pub fn new(now: Instant, plan: Plan, settings: Settings) -> Self {
        let workers = (0..plan.workers).map(|_| Link { number: 0 }).collect();
        let mut controller = Self {
            plan,
            settings,
            phase: Phase::Prepare,
            workers,
            asked: None,
            load: None,
            system: String::new(),
            topics_exist: false,
            closing: false,
            verdict: Verdict::default(),
            probe: Probe::default(),
            drain: Drain::default(),
            stop_wanted: false,
            cut: None,
            reported: false,
            unsound: Vec::new(),
            outputs: VecDeque::new(),
        };
        controller.prepare(now);
        controller
    }

    /// The phase it is in.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// What the messaging system says of itself; empty until it has answered.
    #[must_use]
    pub fn system(&self) -> &str {
        &self.system
    }

    /// What it works from.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    fn workload_subscriptions(&self) -> u64 {
        if self.plan.consumers.is_empty() { 0 } else { u64::from(self.plan.workload.subscriptions_per_topic) }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.outputs.push_back(Output::Entered(phase));
    }

    /// Sends a command to every worker; all must answer within `within`.
    fn ask(&mut self, now: Instant, within: Duration, command: impl Fn(&Plan, WorkerId) -> Command) {
        let mut what = "";
        for (index, link) in self.workers.iter_mut().enumerate() {
            let worker = WorkerId(u32::try_from(index).expect("workers fit in 32 bits"));
            link.number += 1;
            let command = command(&self.plan, worker);
            what = command.name();
            let request = Request { version: protocol::VERSION, run: self.plan.run, number: link.number, command };
            self.outputs.push_back(Output::ToWorker { worker, request });
        }
        self.asked = Some(Asked { what, deadline: now + within, answers: BTreeMap::new() });
    }

    /// Sends a command that only the first worker performs; the others are asked for nothing but to stay in step.
    fn ask_first(&mut self, now: Instant, within: Duration, command: &Command) {
        self.ask(now, within, |_, worker| match command {
            Command::CreateTopics(_) if worker.0 > 0 => Command::CreateTopics(Vec::new()),
            Command::DeleteTopics(_) if worker.0 > 0 => Command::DeleteTopics(Vec::new()),
            command => command.clone(),
        });
    }

    // The way up: one step after another, each begun when the one before has been answered by all.

    fn prepare(&mut self, now: Instant) {
        self.enter(Phase::Prepare);
        let workload = &self.plan.workload;
        let payload = match (&workload.payload, &self.settings.payload) {
            (PayloadSource::File(_), Some(bytes)) => PayloadRecipe::Given(bytes.clone()),
            (PayloadSource::File(path), None) => {
                unreachable!("whoever starts a run with a payload file has read it: {}", path.display())
            }
            (PayloadSource::Random { ratio, pool }, _) => {
                PayloadRecipe::Random { size: workload.message_size, ratio: *ratio, count: *pool }
            }
        };
        let preparation = Preparation {
            driver: self.settings.driver.clone(),
            seed: self.plan.seed,
            payload,
            keys: workload.key_distributor,
            catch_up: workload.catch_up,
            verify: workload.verify,
            producers_per_topic: workload.producers_per_topic,
            lease: self.settings.lease,
        };
        self.ask(now, self.settings.call_within, |_, _| Command::Prepare(Box::new(preparation.clone())));
    }

    fn create_topics(&mut self, now: Instant) {
        self.enter(Phase::CreateTopics);
        // Whatever comes of it, some may exist from now on.
        self.topics_exist = true;
        let topics =
            self.plan.topics.iter().map(|topic| TopicSpec { name: topic.name.clone(), partitions: topic.partitions });
        let command = Command::CreateTopics(topics.collect());
        self.ask_first(now, self.settings.setup_within, &command);
    }

    fn create_consumers(&mut self, now: Instant) {
        self.enter(Phase::CreateConsumers);
        self.ask(now, self.settings.setup_within, |plan, worker| {
            let spec = |consumer: &crate::plan::Consumer| {
                let subscription = &plan.subscriptions[consumer.subscription.0 as usize];
                ConsumerSpec {
                    id: consumer.id,
                    topic_index: subscription.topic,
                    topic: plan.topics[subscription.topic.0 as usize].name.clone(),
                    subscription: subscription.id,
                    group: subscription.name.clone(),
                    members: plan.workload.consumers_per_subscription,
                    partitions: plan.workload.partitions_per_topic,
                }
            };
            Command::CreateConsumers(plan.consumers_of(worker).map(spec).collect())
        });
    }

    fn create_producers(&mut self, now: Instant) {
        self.enter(Phase::CreateProducers);
        self.ask(now, self.settings.setup_within, |plan, worker| {
            let spec = |producer: &crate::plan::Producer| ProducerSpec {
                id: producer.id,
                topic: plan.topics[producer.topic.0 as usize].name.clone(),
                partitions: plan.workload.partitions_per_topic,
            };
            Command::CreateProducers(plan.producers_of(worker).map(spec).collect())
        });
    }

    fn probe(&mut self, now: Instant) {
        if self.probe.rounds == 0 {
            self.enter(Phase::Probe);
            self.probe.deadline = now + self.settings.setup_within;
        }
        self.probe.rounds += 1;
        self.probe.again_at = now + self.settings.probe_again;
        self.ask(now, self.settings.call_within, |_, _| Command::Probe);
    }

    /// The probes are on their way (no snapshot yet), or have been looked for.
    fn on_probed(&mut self, now: Instant, snapshots: &[Snapshot]) {
        let open: u64 = snapshots.iter().map(|snapshot| snapshot.paths_open).sum();
        let paths = self.plan.paths();
        if !snapshots.is_empty() && open >= paths {
            return self.start_load(now);
        }
        if !snapshots.is_empty() && now >= self.probe.deadline {
            let problems: Vec<String> =
                snapshots.iter().flat_map(|snapshot| &snapshot.problems).map(|problem| problem.what.clone()).collect();
            let cause = if problems.is_empty() { String::new() } else { format!(" ({})", problems.join("; ")) };
            let text = format!(
                "only {open} of {paths} paths from a producer to a subscription delivered their probe within {:?}{cause}",
                self.settings.setup_within
            );
            return self.fail(now, Failure::new(FailureKind::Unreachable, text));
        }
        self.probe.look_at = Some(now + if snapshots.is_empty() { LOOK_FIRST } else { self.settings.look_again });
    }

    fn start_load(&mut self, now: Instant) {
        let rate = match self.plan.workload.rate {
            RateGoal::Fixed(rate) => rate,
            RateGoal::Search => find_rate::FIRST,
        };
        let rate = Rate::per_second(rate).expect("a workload's rate is checked when it is parsed");
        let producers = u32::try_from(self.plan.producers.len()).expect("checked when it is parsed");
        let after = self.settings.start_after;
        self.load = Some(Load::new(&self.plan, rate));
        self.ask(now, self.settings.call_within, |_, _| Command::StartLoad { rate, producers, after });
    }

    // The way down.

    fn stop_load(&mut self, now: Instant) {
        self.enter(Phase::Stop);
        let within = self.settings.stop_within;
        self.ask(now, within + self.settings.call_within, |_, _| Command::StopLoad { within });
    }

    fn drain(&mut self, now: Instant) {
        self.enter(Phase::Drain);
        self.drain = Drain {
            by_silence: false,
            deadline: now + self.settings.drain_within,
            progress_at: now,
            distinct: 0,
            next: Some(now),
        };
        // Consumers that were paused when the run was cut short could not receive what is left.
        self.ask(now, self.settings.call_within, |_, _| Command::ResumeConsumers);
    }

    fn on_drained(&mut self, now: Instant) {
        let subscriptions = self.workload_subscriptions();
        let load = self.load.as_ref().expect("a drain follows a load");
        let distinct: u64 = load.totals().seen.values().map(|seen| seen.distinct).sum();
        if distinct > self.drain.distinct {
            self.drain.distinct = distinct;
            self.drain.progress_at = now;
        }
        let ended = if subscriptions == 0 {
            Drained::NotAwaited
        } else if load.totals().unread(subscriptions) == 0 && !self.drain.by_silence {
            Drained::Completely
        } else if now.since(self.drain.progress_at) >= self.settings.quiet_after {
            Drained::Quiet
        } else if now >= self.drain.deadline || self.stop_wanted {
            Drained::TooLong
        } else {
            self.drain.next = Some(now + self.settings.look_again);
            return;
        };
        self.verdict.drained = ended;
        self.enter(Phase::Verify);
        self.ask(now, self.settings.call_within, |_, _| Command::Verify);
    }

    fn on_verified(&mut self, now: Instant, missing: BTreeMap<SubscriptionId, Missing>) {
        let seen = &self.load.as_ref().expect("a verdict follows a load").totals().seen;
        self.verdict.subscriptions = missing
            .into_iter()
            .map(|(subscription, missing)| {
                (subscription, (seen.get(&subscription).copied().unwrap_or_default(), missing))
            })
            .collect();
        if self.verdict.missing() > 0 && self.verdict.drained == Drained::Completely {
            // What was compared is out of date from here on; should the run fail now, nothing has been checked.
            self.verdict = Verdict::default();
            self.drain.by_silence = true;
            self.drain.progress_at = now;
            self.drain.next = Some(now + self.settings.look_again);
            return self.enter(Phase::Drain);
        }
        self.report_and_tear_down(now);
    }

    /// Hands the result out, if there is something to tell, and then cleans up.
    fn report_and_tear_down(&mut self, now: Instant) {
        let partial = match &self.cut {
            None => None,
            Some(Cut::Wanted) => Some("interrupted by the user".to_owned()),
            Some(Cut::Failed(failure)) => Some(failure.message.clone()),
        };
        if !self.reported
            && let Some(load) = self.load.take()
        {
            self.reported = true;
            let report = load.into_report(&self.plan, &self.settings, &self.system, self.verdict.clone(), partial);
            self.unsound = unsound(&report);
            self.outputs.push_back(Output::Report(Box::new(report)));
        }
        self.tear_down(now);
    }

    fn tear_down(&mut self, now: Instant) {
        if self.phase != Phase::TearDown {
            self.enter(Phase::TearDown);
        }
        if self.topics_exist {
            self.topics_exist = false;
            let command = Command::DeleteTopics(self.plan.topics.iter().map(|topic| topic.name.clone()).collect());
            // The clients are closed before, which has a bound of its own.
            return self.ask_first(now, self.settings.call_within * 2, &command);
        }
        self.closing = true;
        self.ask(now, self.settings.call_within, |_, _| Command::Close);
    }

    fn finish(&mut self) {
        self.asked = None;
        let end = match self.cut.take() {
            Some(Cut::Failed(failure)) => End::Failed(failure),
            Some(Cut::Wanted) => End::Interrupted(self.reported),
            None if self.unsound.is_empty() => End::Sound,
            None => End::Unsound(std::mem::take(&mut self.unsound)),
        };
        self.outputs.push_back(Output::Finished(end));
    }

    // What cuts a run short.

    fn fail(&mut self, now: Instant, failure: Failure) {
        self.asked = None;
        if self.phase == Phase::TearDown {
            // The result is out; what cannot be cleaned up is told, and the next step taken.
            self.outputs.push_back(Output::Warning(format!("while cleaning up: {failure}")));
            return if self.closing { self.finish() } else { self.tear_down(now) };
        }
        if failure.kind == FailureKind::Unreachable && self.phase == Phase::CreateTopics {
            // Nobody is there to delete them either; asking would only make the user wait once more.
            self.topics_exist = false;
        }
        if self.stop_wanted && self.load.is_none() {
            // Whoever wanted it to end before it began is told of the failure, but did not suffer from it.
            self.cut.get_or_insert(Cut::Wanted);
        }
        if self.cut.is_none() {
            self.cut = Some(Cut::Failed(failure));
        } else {
            self.outputs.push_back(Output::Warning(failure.message));
        }
        let loading = self.load.as_ref().is_some_and(|load| load.is_under_way());
        if loading && self.phase < Phase::Stop { self.stop_load(now) } else { self.report_and_tear_down(now) }
    }

    /// Ends the run because somebody wanted it, once nothing is being asked.
    fn cut_as_wanted(&mut self, now: Instant) {
        match self.phase {
            Phase::Stop | Phase::Drain | Phase::Verify | Phase::TearDown => {}
            _ => {
                self.cut.get_or_insert(Cut::Wanted);
                if self.load.as_ref().is_some_and(|load| load.is_under_way()) {
                    self.stop_load(now);
                } else {
                    self.load = None;
                    self.tear_down(now);
                }
            }
        }
    }

    // Answers.

    fn on_response(&mut self, now: Instant, worker: WorkerId, response: Response) {
        let Some(link) = self.workers.get(worker.0 as usize) else { return };
        let Some(asked) = &mut self.asked else { return };
        // Anything else is a late copy of an answer that has been counted, or of another run.
        if response.run != self.plan.run || response.number != link.number || asked.answers.contains_key(&worker) {
            return;
        }
        match response.outcome {
            Ok(event) => {
                asked.answers.insert(worker, event);
                if asked.answers.len() == self.workers.len() {
                    let asked = self.asked.take().expect("it is being answered");
                    self.on_answers(now, asked.what, asked.answers.into_values().collect());
                }
            }
            Err(failure) => {
                let text =
                    if self.workers.len() == 1 { failure.message } else { format!("{worker}: {}", failure.message) };
                self.fail(now, Failure::new(failure.kind, text));
            }
        }
    }

    fn on_answers(&mut self, now: Instant, what: &'static str, events: Vec<Event>) {
        if self.stop_wanted && self.phase < Phase::Stop {
            return self.cut_as_wanted(now);
        }
        let mut snapshots = Vec::new();
        let mut missing: BTreeMap<SubscriptionId, Missing> = BTreeMap::new();
        for event in events {
            match event {
                Event::Prepared { system } => self.system = system,
                Event::Read(snapshot) => snapshots.push(*snapshot),
                Event::Verified(found) => {
                    for (subscription, found) in found {
                        let sum = missing.entry(subscription).or_default();
                        sum.confirmed += found.confirmed;
                        sum.missing += found.missing;
                        sum.by_count_only |= found.by_count_only;
                    }
                }
                Event::Done => {}
            }
        }
        if !snapshots.is_empty()
            && let Some(load) = &mut self.load
            && let Err(failure) = load.read(&snapshots)
        {
            return self.fail(now, failure);
        }
        match self.phase {
            Phase::Prepare => self.create_topics(now),
            Phase::CreateTopics => self.create_consumers(now),
            Phase::CreateConsumers => self.create_producers(now),
            Phase::CreateProducers if self.plan.paths() > 0 => self.probe(now),
            // Without consumers nothing is probed: the load is started from here, and its start answered here.
            Phase::CreateProducers if self.load.is_none() => self.start_load(now),
            Phase::Probe if self.load.is_none() => self.on_probed(now, &snapshots),
            Phase::CreateProducers
            | Phase::Probe
            | Phase::WarmUp
            | Phase::Search
            | Phase::Settle
            | Phase::FillBacklog
            | Phase::DrainBacklog
            | Phase::Measure => self.on_load(now, !snapshots.is_empty()),
            Phase::Stop if snapshots.is_empty() => self.ask(now, self.settings.call_within, |_, _| Command::Read),
            Phase::Stop => {
                self.emit_period(now, Phase::Stop);
                self.drain(now);
            }
            Phase::Drain if snapshots.is_empty() => self.drain.next = Some(now),
            Phase::Drain => self.on_drained(now),
            Phase::Verify => self.on_verified(now, missing),
            Phase::TearDown if what == "close" => self.finish(),
            Phase::TearDown => self.tear_down(now),
        }
    }

    /// Something was answered while the load goes on: a read, or a command of the phase.
    fn on_load(&mut self, now: Instant, read: bool) {
        let (settings, plan) = (&self.settings, &self.plan);
        let Some(load) = &mut self.load else { return };
        if !load.is_under_way() {
            // The load has just been started.
            let phase = load.begin(now, settings, plan);
            return self.enter(phase);
        }
        if !read {
            return;
        }
        let (phase, subscriptions) = (self.phase, self.workload_subscriptions());
        self.emit_period(now, phase);
        let Some(load) = &mut self.load else { return };
        match load.decide(now, phase, &self.plan, &self.settings, subscriptions) {
            load::Next::Stay => {}
            load::Next::Enter(next) => self.enter(next),
            load::Next::Ask(next, command) => {
                if next != phase {
                    self.enter(next);
                }
                self.ask(now, self.settings.call_within, |_, _| command.clone());
            }
            load::Next::Stop => self.stop_load(now),
            load::Next::Fail(failure) => self.fail(now, failure),
        }
    }

    fn emit_period(&mut self, now: Instant, phase: Phase) {
        let subscriptions = self.workload_subscriptions();
        if let Some(period) = self.load.as_mut().and_then(|load| load.close_period(now, phase, subscriptions)) {
            self.outputs.push_back(Output::Period(Box::new(period)));
        }
    }
}

/// The first look for the probes: on an idle broker they pass within a few milliseconds.
const LOOK_FIRST: Duration = Duration::from_millis(10);

/// Rounds of probes; after that a path that stays closed is waited for, not probed again.
const PROBES_MAX: u32 = 20;

/// What makes a finished run not sound.
fn unsound(report: &Report) -> Vec<String> {
    let mut reasons = Vec::new();
    let seen = report.verdict.seen();
    let corrupted = report.whole.arrivals.corrupted;
    if report.verdict.lost() > 0 {
        // A corrupted message arrived, but nobody can tell which one it was.
        let some =
            if corrupted > 0 { format!(" whole ({corrupted} messages arrived corrupted)") } else { String::new() };
        reasons.push(format!("{} acknowledged messages never arrived{some}", report.verdict.lost()));
    } else if corrupted > 0 {
        reasons.push(format!("{corrupted} messages arrived corrupted"));
    }
    if report.whole.acknowledgements.failed > 0 && report.partial.is_none() {
        let (failed, sent) = (report.whole.acknowledgements.failed, report.whole.departures.attempted);
        let cause = report.problems.first().map(|problem| format!(" (most often: {})", problem.what));
        reasons.push(format!("{failed} of {sent} messages were given up{}", cause.unwrap_or_default()));
    }
    if report.backlog.is_some_and(|backlog| backlog.drain.is_none()) && report.partial.is_none() {
        reasons.push("the backlog was not drained by its deadline".to_owned());
    }
    if report.measured.acknowledgements.acked == 0 && report.partial.is_none() {
        reasons.push("not one message was acknowledged while it was measured".to_owned());
    }
    debug_assert!(seen.distinct <= seen.received, "different messages are among those received");
    reasons
}

impl Machine for Controller {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::FromWorker { worker, response } => self.on_response(now, worker, response),
            Input::WorkerGone { worker, cause } => {
                self.fail(now, Failure::new(FailureKind::Unreachable, format!("{worker} is gone: {cause}")));
            }
            Input::Stop => {
                self.stop_wanted = true;
                if self.asked.is_none() && self.phase < Phase::Stop {
                    self.cut_as_wanted(now);
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(asked) = &self.asked {
            if asked.deadline <= now {
                let silent = self
                    .workers
                    .iter()
                    .enumerate()
                    .map(|(index, _)| WorkerId(u32::try_from(index).unwrap_or(u32::MAX)));
                let silent: Vec<String> = silent
                    .filter(|worker| !asked.answers.contains_key(worker))
                    .map(|worker| worker.to_string())
                    .collect();
                let text = format!("{} did not answer \"{}\" within its deadline", silent.join(", "), asked.what);
                if self.closing {
                    self.outputs.push_back(Output::Warning(text));
                    self.finish();
                } else {
                    self.fail(now, Failure::new(FailureKind::Unreachable, text));
                }
            }
            return;
        }
        match self.phase {
            Phase::Probe if self.load.is_none() && self.probe.look_at.is_some_and(|at| at <= now) => {
                self.probe.look_at = None;
                if self.probe.again_at <= now && self.probe.rounds < PROBES_MAX {
                    self.probe(now);
                } else {
                    self.ask(now, self.settings.call_within, |_, _| Command::Read);
                }
            }
            Phase::Drain if self.drain.next.is_some_and(|next| next <= now) => {
                self.drain.next = None;
                self.ask(now, self.settings.call_within, |_, _| Command::Read);
            }
            _ => {
                if self.load.as_ref().and_then(Load::next_read).is_some_and(|next| next <= now)
                    && self.phase < Phase::Stop
                {
                    self.ask(now, self.settings.call_within, |_, _| Command::Read);
                }
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Wake> {
        if let Some(asked) = &self.asked {
            return Some(Wake { at: asked.deadline, why: "deadline of a call" });
        }
        let (at, why) = match self.phase {
            Phase::Probe if self.load.is_none() => (self.probe.look_at?, "look for the probes"),
            Phase::Drain => (self.drain.next?, "look for the last messages"),
            phase if phase < Phase::Stop => (self.load.as_ref()?.next_read()?, "end of a period"),
            _ => return None,
        };
        Some(Wake { at, why })
    }
}
