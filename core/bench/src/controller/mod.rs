//! A plan in, a report out: one run, seen from the one who leads it.
//!
//! ```text
//! prepare ─▶ check ─▶ topics ─▶ consumers (groups settle) ─▶ producers ─▶ probe ─▶ load: warm-up [search settle]
//!         [fill drain] measure
//!         ─▶ stop ─▶ drain ─▶ verify ─▶ (report) ─▶ tear down
//! ```
//!
//! A controller that only checks ([`Controller::checking`]) goes from `check` to `tear down`.
//!
//! Every step is one command to each worker, and ends when all have answered or the deadline passes. A worker that does
//! not answer by then, or cannot be connected to, is lost: the run goes on to its end without it. The report is handed
//! out before anything is torn down, and a run that fails or is interrupted once its load has begun still reports what
//! was measured.

mod check;
pub mod find_rate;
mod groups;
mod links;
mod load;
mod settings;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

pub use settings::{Clocks, OnLoss, Settings};

pub use self::links::{Trouble, TroubleKind};
use self::{groups::Generations, links::Links, load::Load};
use crate::{
    config::workload::{PayloadSource, RateGoal},
    id::WorkerId,
    load::payload::PayloadRecipe,
    offset::Exchange,
    plan::{Plan, Share, sharing},
    protocol::{
        Command, Event, Failure, FailureKind, Ping, Request, Response,
        command::{Begin, ConsumerSpec, Preparation, ProducerSpec, Reach, TopicSpec},
        event::{Findings, Snapshot},
    },
    rate::{Rate, Tempo},
    result::{Drained, Lost, Period, Phase, Report, Verdict, soundness},
};
use omb_machine::{
    Machine, Wake,
    printable::printable_within,
    time::{Instant, WallTime},
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
    /// An exchange with a worker brought no answer.
    CallFailed {
        /// Which one.
        worker: WorkerId,
        /// The number of the request.
        number: u64,
        /// What happened.
        trouble: Trouble,
    },
    /// An [`Output::Ping`] came back.
    Pong {
        /// Which one.
        worker: WorkerId,
        /// The four instants of the exchange.
        exchange: Exchange,
    },
    /// A worker said, unasked, that its process ends.
    Leaving {
        /// Which one.
        worker: WorkerId,
        /// In its words.
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
        /// How long this attempt may take; then, or if it fails before, [`Input::CallFailed`] tells.
        within: Duration,
    },
    /// Ask a worker's clock; if that fails, nothing need be told.
    Ping {
        /// Which one.
        worker: WorkerId,
        /// The question.
        ping: Ping,
    },
    /// A worker is given up for good.
    WorkerLost {
        /// Which one.
        worker: WorkerId,
        /// Why, in one line.
        cause: String,
    },
    /// A phase begins.
    Entered(Phase),
    /// A period of the load is over: to be shown and appended to the record.
    Period(Box<Period>),
    /// The result, to be written before the next output is performed.
    Report(Box<Report>),
    /// Something to be told that changes nothing.
    Warning(String),
    /// Something that keeps the run from beginning, by whom it was found. There may be several; [`End::Failed`] sums them up.
    Misfit(Failure),
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
    /// Where nothing is to be run: further plans for the same messaging system, to be checked together with the first.
    only_check: Option<Vec<Plan>>,
    settings: Settings,
    phase: Phase,
    links: Links,
    /// Workers that were given up, and why.
    lost: Vec<Lost>,
    clocks: ClockCare,
    /// How long one attempt of the present exchanges may take.
    attempt_within: Duration,
    /// What the workers are asked and by when all must have answered; `None` between two reads.
    asked: Option<Asked>,
    /// The load, from the moment it is started.
    load: Option<Load>,
    system: String,
    topics_exist: bool,
    /// Every worker was told to close its clients.
    clients_closed: bool,
    /// The last command has been given.
    closing: bool,
    verdict: Verdict,
    groups: Groups,
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
struct Asked {
    what: &'static str,
    deadline: Instant,
    answers: BTreeMap<WorkerId, Event>,
    /// Who answered that it failed, and how. The others are heard out first, so that the next command finds them idle, and
    /// so that all is told that went wrong.
    failed: Vec<(WorkerId, Failure)>,
}

/// Measuring the workers' clocks.
#[derive(Debug, Default)]
struct ClockCare {
    /// When to ask them all next; `None` where they are the controller's own, or once the run ends.
    next: Option<Instant>,
    rounds: u32,
    /// Everything else is ready; the load begins once each clock is known, and by then somebody is lost.
    known_by: Option<Instant>,
    /// Everybody is being told the fleet's time; then the load begins.
    telling: bool,
    /// The last correction that each worker was told.
    told: BTreeMap<WorkerId, i64>,
    /// The wall time that the fleet's time showed at the controller's `Instant::ZERO`.
    fleet_zero: Option<WallTime>,
}

/// Waiting for the groups to settle.
#[derive(Debug, Default)]
struct Groups {
    deadline: Instant,
    /// When to look whether they have.
    look_at: Option<Instant>,
    /// The generations in which they have.
    settled: Generations,
}

/// Waiting for the probes to arrive.
#[derive(Debug, Default)]
struct Probe {
    deadline: Instant,
    /// When to look whether they have.
    look_at: Option<Instant>,
    /// When to send another round: the first may have come too early for a group that reads from the end.
    again_at: Instant,
    /// How often they were sent since the groups settled.
    sent: u32,
    /// Which of them count: rises when the groups have moved on since.
    round: u64,
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
        Self::begin(now, plan, None, settings)
    }

    /// Finds out whether these plans could be run, all on the same workers and the same messaging system, and creates nothing:
    /// [`End::Sound`] if so.
    ///
    /// # Panics
    /// If there is no plan.
    #[must_use]
    pub fn checking(now: Instant, mut plans: Vec<Plan>, settings: Settings) -> Self {
        let first = plans.remove(0);
        Self::begin(now, first, Some(plans), settings)
    }

    fn begin(now: Instant, plan: Plan, only_check: Option<Vec<Plan>>, settings: Settings) -> Self {
        let links = Links::new(plan.run, plan.workers);
        let mut controller = Self {
            plan,
            only_check,
            settings,
            phase: Phase::Prepare,
            links,
            lost: Vec::new(),
            clocks: ClockCare::default(),
            attempt_within: Duration::ZERO,
            asked: None,
            load: None,
            system: String::new(),
            topics_exist: false,
            clients_closed: false,
            closing: false,
            verdict: Verdict::default(),
            groups: Groups::default(),
            probe: Probe::default(),
            drain: Drain::default(),
            stop_wanted: false,
            cut: None,
            reported: false,
            unsound: Vec::new(),
            outputs: VecDeque::new(),
        };
        if controller.settings.clocks == Clocks::Measured {
            controller.clocks.next = Some(now);
        }
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

    /// What a worker is called in messages to people.
    fn name(&self, worker: WorkerId) -> String {
        match self.settings.names.get(worker.0 as usize) {
            Some(name) => worker.named(name),
            None => "this process".to_owned(),
        }
    }

    /// Sends a command to every worker that is left; all must answer within `within`.
    fn ask(&mut self, now: Instant, within: Duration, mut command: impl FnMut(WorkerId) -> Command) {
        let mut what = "";
        // A lost answer is asked for again well before the deadline. A worker that is asked again, while it still performs,
        // answers both, so nothing is lost by asking early.
        self.attempt_within = within / ATTEMPTS;
        let alive: Vec<WorkerId> = self.links.alive().collect();
        for worker in alive {
            let command = command(worker);
            what = command.name();
            if matches!(command, Command::StartLoad { .. }) {
                // In time for the agreed instant, if the first attempt is lost.
                self.attempt_within = self.attempt_within.min(self.settings.start_after / 2).max(START_ATTEMPT_MIN);
            }
            let request = self.links.ask(now, worker, command);
            self.send(worker, request);
        }
        self.asked = Some(Asked { what, deadline: now + within, answers: BTreeMap::new(), failed: Vec::new() });
    }

    fn send(&mut self, worker: WorkerId, request: Request) {
        let within = self.attempt_within;
        self.outputs.push_back(Output::ToWorker { worker, request, within });
    }

    /// Sends the same command to everybody.
    fn ask_all(&mut self, now: Instant, within: Duration, command: &Command) {
        self.ask(now, within, |_| command.clone());
    }

    /// Asks everybody for what was counted so far, and tells each how its clock errs by now.
    fn ask_read(&mut self, now: Instant) {
        let corrections = self.corrections(now);
        let reach = self.load.as_mut().map_or(Reach::Everything, |load| load.ask(now, self.phase));
        self.ask(now, self.settings.call_within, |worker| Command::Read {
            correction: corrections.get(&worker).copied().unwrap_or(0),
            reach,
        });
    }

    /// Sends a command that only the first worker performs; the others are asked for nothing but to stay in step.
    fn ask_first(&mut self, now: Instant, within: Duration, command: &Command) {
        let (first, call_within) = (self.links.alive().next(), self.settings.call_within);
        self.ask(now, within, |worker| match command {
            Command::CreateTopics(_) if Some(worker) != first => Command::CreateTopics(Vec::new()),
            Command::DeleteTopics { .. } if Some(worker) != first => {
                Command::DeleteTopics { within: call_within, topics: Vec::new(), groups: Vec::new() }
            }
            command => command.clone(),
        });
    }

    // The way up: one step after another, each begun when the one before has been answered by all.

    fn prepare(&mut self, now: Instant) {
        self.enter(Phase::Prepare);
        let workload = &self.plan.workload;
        let payload = match (&workload.payload, &self.settings.payload) {
            // Nothing is sent, so one payload of the largest size does.
            _ if self.only_check.is_some() => {
                let size = self.plans().map(|plan| plan.workload.message_size).max().unwrap_or(1);
                PayloadRecipe::Random { size, ratio: 0.0, count: 1 }
            }
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
            setup_within: self.settings.setup_within,
            controller: self.settings.controller.clone(),
            take_over: self.settings.take_over,
        };
        self.ask_all(now, self.settings.setup_within, &Command::Prepare(Box::new(preparation)));
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
        self.groups.deadline = now + self.settings.setup_within;
        let (plan, owners) = (&self.plan, self.plan.owners());
        let spec = |(consumer, thread): (&&crate::plan::Consumer, u32)| {
            let subscription = &plan.subscriptions[consumer.subscription.0 as usize];
            ConsumerSpec {
                id: consumer.id,
                topic_index: subscription.topic,
                topic: plan.topics[subscription.topic.0 as usize].name.clone(),
                subscription: subscription.id,
                group: subscription.name.clone(),
                members: plan.workload.consumers_per_subscription,
                partitions: plan.workload.partitions_per_topic,
                whole: owners[subscription.topic.0 as usize].is_some(),
                thread,
            }
        };
        let of_share = |share: Share<'_>| {
            let threads = sharing::dealt(sharing::receiving_threads(plan, &share));
            share.consumers.iter().zip(threads).map(spec).collect()
        };
        let mut specs: Vec<Vec<ConsumerSpec>> = plan.shares().into_iter().map(of_share).collect();
        self.ask(now, self.settings.setup_within, |worker| {
            Command::CreateConsumers(std::mem::take(&mut specs[worker.0 as usize]))
        });
    }

    /// The consumers are there (no snapshot yet), or have been looked at.
    fn on_joining(&mut self, now: Instant, snapshots: &BTreeMap<WorkerId, Snapshot>) {
        if self.plan.consumers.is_empty() {
            return self.create_producers(now);
        }
        if snapshots.is_empty() && now < self.groups.deadline {
            self.groups.look_at = Some(now + LOOK_FIRST);
            return;
        }
        if let Some(failure) = self.hopeless(snapshots) {
            return self.fail(now, failure);
        }
        match groups::settled(&self.plan, snapshots) {
            Ok(generations) => {
                self.groups.settled = generations;
                self.create_producers(now);
            }
            Err(why) if now >= self.groups.deadline => {
                let text = format!("{why}, after {:?}{}", self.settings.setup_within, causes(snapshots));
                self.fail(now, Failure::new(FailureKind::Unreachable, text));
            }
            Err(_) => self.groups.look_at = Some(now + self.settings.look_again),
        }
    }

    /// What a worker found that will not pass by itself, while the run is being set up.
    fn hopeless(&self, snapshots: &BTreeMap<WorkerId, Snapshot>) -> Option<Failure> {
        let found = |(worker, snapshot): (&WorkerId, &Snapshot)| Some((*worker, snapshot.hopeless.clone()?));
        let (worker, failure) = snapshots.iter().find_map(found)?;
        let one = self.settings.names.is_empty();
        let text = if one { failure.message } else { format!("{}: {}", self.name(worker), failure.message) };
        Some(Failure::new(failure.kind, text))
    }

    fn create_producers(&mut self, now: Instant) {
        self.enter(Phase::CreateProducers);
        let (plan, owners) = (&self.plan, self.plan.owners());
        let spec = |(producer, client): (&&crate::plan::Producer, u32)| ProducerSpec {
            id: producer.id,
            topic: plan.topics[producer.topic.0 as usize].name.clone(),
            partitions: plan.workload.partitions_per_topic,
            whole: owners[producer.topic.0 as usize].is_some(),
            client,
        };
        let of_share = |share: Share<'_>| {
            let clients = sharing::dealt(sharing::producer_clients(plan, &share));
            share.producers.iter().zip(clients).map(spec).collect()
        };
        let mut specs: Vec<Vec<ProducerSpec>> = plan.shares().into_iter().map(of_share).collect();
        self.ask(now, self.settings.setup_within, |worker| {
            Command::CreateProducers(std::mem::take(&mut specs[worker.0 as usize]))
        });
    }

    fn probe(&mut self, now: Instant) {
        if self.probe.round == 0 {
            self.enter(Phase::Probe);
            self.probe.deadline = now + self.settings.setup_within;
            self.probe.round = 1;
        }
        self.probe.sent += 1;
        self.probe.again_at = now + self.settings.probe_again;
        self.ask_all(now, self.settings.call_within, &Command::Probe { round: self.probe.round });
    }

    /// The probes are on their way (no snapshot yet), or have been looked for.
    fn on_probed(&mut self, now: Instant, snapshots: &BTreeMap<WorkerId, Snapshot>) {
        let open = groups::paths_open(snapshots);
        if snapshots.is_empty() && now < self.probe.deadline {
            self.probe.look_at = Some(now + LOOK_FIRST);
            return;
        }
        if let Some(failure) = self.hopeless(snapshots) {
            return self.fail(now, failure);
        }
        let paths = self.plan.paths();
        let settled = groups::settled(&self.plan, snapshots);
        let moved = settled.as_ref().is_ok_and(|generations| *generations != self.groups.settled);
        // Where nobody reads, that a probe is stored is all there is to know.
        let pending = snapshots.values().map(|snapshot| snapshot.probes_pending).fold(0, u64::saturating_add);
        let arrived = if self.plan.consumers.is_empty() { pending == 0 } else { open >= paths };
        if settled.is_ok() && !moved && arrived {
            return self.start_load(now);
        }
        if now >= self.probe.deadline {
            let lacks = match settled {
                Err(why) => why,
                Ok(_) if self.plan.consumers.is_empty() => format!("{pending} probes were not acknowledged"),
                Ok(_) => {
                    format!("only {open} of {paths} paths from a producer to a subscription delivered their probe")
                }
            };
            let text = format!("{lacks}, after {:?}{}", self.settings.setup_within, causes(snapshots));
            return self.fail(now, Failure::new(FailureKind::Unreachable, text));
        }
        if moved {
            // What earlier probes told is past: a partition may be read by somebody else now.
            self.groups.settled = settled.unwrap_or_default();
            self.probe.round += 1;
            self.probe.sent = 0;
            return self.probe(now);
        }
        // Only who has looked knows that another round is wanted: where exchanges are slow, the time for it comes before
        // the first look.
        if self.probe.again_at <= now && self.probe.sent < PROBES_MAX {
            return self.probe(now);
        }
        self.probe.look_at = Some(now + self.settings.look_again);
    }

    /// Everything is ready. The load begins as soon as every clock is known.
    fn start_load(&mut self, now: Instant) {
        if self.settings.clocks == Clocks::Measured {
            let until = *self.clocks.known_by.get_or_insert(now + self.settings.call_within);
            if self.clocks.rounds < CLOCK_ROUNDS_MIN && now < until
                || self.links.alive().any(|worker| self.links.offsets(worker).wall_of(now).is_none())
            {
                return;
            }
        }
        self.clocks.known_by = None;
        let Some(first) = self.links.alive().next().filter(|_| self.settings.clocks == Clocks::Measured) else {
            return self.begin_load(now);
        };
        // The fleet's time is the first worker's, as it is known now. Everybody must have it before anybody sends: a
        // message may arrive at a worker that has not heard yet that the load begins.
        let zero = self.links.offsets(first).wall_of(now).map(|wall| WallTime(wall.0.wrapping_sub(now.0)));
        self.clocks.fleet_zero = zero;
        self.clocks.telling = true;
        self.ask_read(now);
    }

    fn begin_load(&mut self, now: Instant) {
        let producers = u32::try_from(self.plan.producers.len()).expect("checked when it is parsed");
        let (at, after) = (now + self.settings.start_after, self.settings.start_after);
        let tempo = match &self.plan.workload.rate {
            RateGoal::Fixed(rate) => Tempo::Steady(*rate),
            RateGoal::Search => Tempo::Steady(Rate::per_second(find_rate::FIRST).expect("in range")),
            RateGoal::Listed(list) => Tempo::Listed { list: list.clone(), day_second: self.settings.day_second(at) },
        };
        let corrections = self.corrections(at);
        let begins: BTreeMap<WorkerId, Begin> = self
            .links
            .alive()
            .map(|worker| {
                let wall = self.clocks.fleet_zero.and_then(|_| self.links.offsets(worker).wall_of(at));
                (worker, wall.map_or(Begin::After(after), Begin::At))
            })
            .collect();
        let load = Load::new(&self.plan, tempo.clone(), at);
        let window = load.window();
        self.load = Some(load);
        self.ask(now, self.settings.call_within, |worker| Command::StartLoad {
            tempo: tempo.clone(),
            producers,
            begin: begins[&worker],
            window,
            correction: corrections.get(&worker).copied().unwrap_or(0),
        });
    }

    /// By how many nanoseconds the fleet's time is ahead of each worker's clock.
    fn corrections(&mut self, at: Instant) -> BTreeMap<WorkerId, i64> {
        let Some(zero) = self.clocks.fleet_zero else { return BTreeMap::new() };
        let fleet = WallTime(zero.0.wrapping_add(at.0));
        let correction = |worker| Some((worker, fleet.signed_since(self.links.offsets(worker).wall_of(at)?)));
        let known: Vec<_> = self.links.alive().filter_map(correction).collect();
        // Of a clock that has just been set nothing is known for a moment; what was told last stays.
        self.clocks.told.extend(known);
        self.clocks.told.clone()
    }

    fn ping(&mut self, now: Instant) {
        let run = self.plan.run;
        let ping = |worker| {
            let ping = Ping { run, sent: self.links.offsets(worker).wall_of(now) };
            Output::Ping { worker, ping }
        };
        self.outputs.extend(self.links.alive().map(ping));
        self.clocks.rounds += 1;
        let often = self.settings.period.min(self.settings.lease / PINGS_PER_LEASE);
        let pause = if self.clocks.rounds < CLOCK_ROUNDS_FIRST { CLOCK_ROUND } else { often };
        self.clocks.next = Some(now + pause);
    }

    // The way down.

    fn stop_load(&mut self, now: Instant) {
        self.enter(Phase::Stop);
        let within = self.settings.stop_within;
        self.ask_all(now, within + self.settings.call_within, &Command::StopLoad { within });
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
        self.ask_all(now, self.settings.call_within, &Command::ResumeConsumers);
    }

    fn on_drained(&mut self, now: Instant) {
        let subscriptions = self.workload_subscriptions();
        let load = self.load.as_ref().expect("a drain follows a load");
        let distinct = load.totals().seen.values().map(|seen| seen.distinct).fold(0, u64::saturating_add);
        if distinct > self.drain.distinct {
            self.drain.distinct = distinct;
            self.drain.progress_at = now;
        }
        let ended = if subscriptions == 0 {
            Drained::NotAwaited
        } else if load.unread(subscriptions) == 0 && !self.drain.by_silence && !load.is_torn() {
            Drained::Completely
        } else if now.since(self.drain.progress_at) >= self.settings.quiet_after {
            Drained::Quiet
        } else if self.stop_wanted {
            // What was measured is whole, but nobody knows what became of the rest.
            self.cut.get_or_insert(Cut::Wanted);
            Drained::TooLong
        } else if now >= self.drain.deadline {
            Drained::TooLong
        } else {
            self.drain.next = Some(now + self.settings.look_again);
            return;
        };
        self.verdict.drained = ended;
        self.enter(Phase::Verify);
        self.ask_all(now, self.settings.call_within, &Command::Verify);
    }

    fn on_verified(&mut self, now: Instant, findings: Vec<Findings>) {
        let seen = &self.load.as_ref().expect("a verdict follows a load").totals().seen;
        let lost: Vec<WorkerId> = self.lost.iter().map(|lost| lost.worker).collect();
        let drained = self.verdict.drained;
        self.verdict = Verdict { drained, ..verify::judge(&self.plan, seen, findings, &lost) };
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
            let told = load::Told {
                system: &self.system,
                verdict: self.verdict.clone(),
                partial,
                lost: &self.lost,
                clocks: self.plan_workers().map(|worker| self.links.offsets(worker)).collect(),
            };
            let report = load.into_report(now, &self.plan, &self.settings, told);
            self.unsound = soundness::unsound(&report);
            self.outputs.push_back(Output::Report(Box::new(report)));
        }
        self.tear_down(now);
    }

    fn tear_down(&mut self, now: Instant) {
        if self.phase != Phase::TearDown {
            self.enter(Phase::TearDown);
        }
        if self.links.alive_count() == 0 {
            return self.finish();
        }
        if self.topics_exist && !self.clients_closed && self.links.alive_count() > 1 {
            // Nobody may ask for a topic any more when it is deleted: many brokers create it anew for who does.
            self.clients_closed = true;
            return self.ask_all(
                now,
                self.settings.call_within * 2,
                &Command::DeleteTopics { within: self.settings.call_within, topics: Vec::new(), groups: Vec::new() },
            );
        }
        if self.topics_exist {
            self.topics_exist = false;
            let command = Command::DeleteTopics {
                within: self.settings.call_within,
                topics: self.plan.topics.iter().map(|topic| topic.name.clone()).collect(),
                groups: self.plan.subscriptions.iter().map(|subscription| subscription.name.clone()).collect(),
            };
            return self.ask_first(now, self.settings.call_within * 2, &command);
        }
        self.closing = true;
        self.clocks.next = None;
        self.ask_all(now, self.settings.call_within, &Command::Close);
        // Those who were given up may live all the same; nobody waits for them.
        let lost: Vec<WorkerId> = self.lost.iter().map(|lost| lost.worker).collect();
        for worker in lost {
            let request = self.links.ask(now, worker, Command::Close);
            self.send(worker, request);
        }
    }

    fn finish(&mut self) {
        self.asked = None;
        self.clocks.next = None;
        self.links.forget_all();
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
        if let Some(asked) = self.asked.take() {
            self.keep_counts(asked.answers);
        }
        self.clocks.known_by = None;
        self.clocks.telling = false;
        if self.phase == Phase::TearDown {
            // The result is out; what cannot be cleaned up is told, and the next step taken.
            self.outputs.push_back(Output::Warning(format!("while cleaning up: {failure}")));
            return if self.closing { self.finish() } else { self.tear_down(now) };
        }
        if failure.kind == FailureKind::Unreachable && self.phase == Phase::CreateTopics {
            // Nobody is there to delete them either; asking would only make the user wait once more.
            self.topics_exist = false;
        }
        if self.cut.is_none() {
            self.cut = Some(Cut::Failed(failure));
        } else {
            self.outputs.push_back(Output::Warning(failure.message));
        }
        // Where the load was to begin, some may have begun.
        if self.load.is_some() && self.phase < Phase::Stop && self.links.alive_count() > 0 {
            self.stop_load(now);
        } else {
            self.report_and_tear_down(now);
        }
    }

    /// Ends the run because somebody wanted it, once nothing is being asked.
    fn cut_as_wanted(&mut self, now: Instant) {
        self.clocks.telling = false;
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
        if !self.links.answered(worker, response.run, response.number) {
            return;
        }
        let Some(asked) = &mut self.asked else { return };
        let loading = self.load.as_ref().is_some_and(|load| load.is_under_way()) && self.phase < Phase::Stop;
        match response.outcome.map(Event::printable).map_err(Failure::printable) {
            Ok(event) => {
                asked.answers.insert(worker, event);
                if response.lease_ended && loading && self.cut.is_none() {
                    let text = format!(
                        "{} stopped its load by itself: it had heard nothing from here for {:?}",
                        self.name(worker),
                        self.settings.lease
                    );
                    return self.lose(now, worker, text, FailureKind::Broken);
                }
            }
            // This process cannot have forgotten anything but what it was told while something else was under way.
            Err(failure)
                if failure.kind == FailureKind::Forgotten && !self.closing && !self.settings.names.is_empty() =>
            {
                let text = format!("{}: {}", self.name(worker), failure.message);
                return self.lose(now, worker, text, FailureKind::Broken);
            }
            Err(failure) => {
                if let Some(asked) = &mut self.asked {
                    asked.failed.push((worker, failure));
                }
            }
        }
        self.go_on(now);
    }

    /// Goes on if everybody who is left has answered.
    fn go_on(&mut self, now: Instant) {
        if !self.links.all_answered() {
            return;
        }
        let Some(mut asked) = self.asked.take() else { return };
        let failed = std::mem::take(&mut asked.failed);
        if !failed.is_empty() {
            self.asked = Some(asked);
            let failure = self.sum_up(failed);
            return self.fail(now, failure);
        }
        self.on_answers(now, asked.what, asked.answers);
    }

    /// What some have told of their counts is not lost because others failed.
    fn keep_counts(&mut self, answers: BTreeMap<WorkerId, Event>) {
        let read = answers.into_iter().filter_map(|(worker, event)| match event {
            Event::Read(snapshot) => Some((worker, *snapshot)),
            _ => None,
        });
        let snapshots: BTreeMap<WorkerId, Snapshot> = read.collect();
        if let Some(load) = self.load.as_mut().filter(|load| load.is_under_way() && !snapshots.is_empty())
            && let Err(failure) = load.read(snapshots)
        {
            self.outputs.push_back(Output::Warning(failure.message));
        }
    }

    /// A worker is lost for good.
    fn lose(&mut self, now: Instant, worker: WorkerId, cause: String, kind: FailureKind) {
        if !self.links.lose(worker) {
            return;
        }
        self.outputs.push_back(Output::WorkerLost { worker, cause: cause.clone() });
        let under_way = self.load.is_some();
        let (read, detected) = self.load.as_mut().map(|load| load.lose(now, worker, &self.plan)).unwrap_or_default();
        self.lost.push(Lost { worker, read, detected, cause: cause.clone() });
        let goes_on = under_way && self.settings.on_loss == OnLoss::Continue && self.links.alive_count() > 0;
        if under_way && !goes_on && (Phase::Stop..=Phase::Verify).contains(&self.phase) && self.cut.is_none() {
            // The way down is the same, and what the others have counted is still to be read.
            self.cut = Some(Cut::Failed(Failure::new(kind, cause.clone())));
        }
        // Whoever failed or was stopped already goes on to its end with those who are left.
        let ending = self.cut.is_some() && self.links.alive_count() > 0;
        if goes_on || ending {
            return self.go_on(now);
        }
        if self.phase == Phase::TearDown {
            self.outputs.push_back(Output::Warning(format!("while cleaning up: {cause}")));
            return if self.links.alive_count() == 0 { self.finish() } else { self.go_on(now) };
        }
        let alive = self.links.alive_count() > 0;
        if let Some(asked) = &mut self.asked {
            // Its name stands in the cause already.
            asked.failed.push((NOBODY, Failure::new(kind, cause)));
            if alive {
                return self.go_on(now);
            }
            let failed = std::mem::take(&mut asked.failed);
            let failure = self.sum_up(failed);
            return self.fail(now, failure);
        }
        self.fail(now, Failure::new(kind, cause));
    }

    /// Nobody waits for those who are silent any longer.
    fn give_up_silent(&mut self, now: Instant) {
        let Some(what) = self.asked.as_ref().map(|asked| asked.what) else { return };
        let silent = self.links.silent();
        if self.settings.names.is_empty() {
            // This process is as alive as the controller; only its broker can be what it waits for.
            let text = format!("this process did not answer \"{what}\" within its deadline");
            if self.closing {
                self.outputs.push_back(Output::Warning(text));
                return self.finish();
            }
            self.links.forget_all();
            return self.fail(now, Failure::new(FailureKind::Unreachable, text));
        }
        for (worker, trouble) in silent {
            let trouble = trouble.map_or_else(String::new, |trouble| format!(" (last trouble: {trouble})"));
            let text = format!(
                "Timeout waiting for worker response: {} did not answer \"{what}\" in time{trouble}; look into its log, and \
                 whether it reaches the messaging system, or allow more with --call-timeout",
                self.name(worker),
            );
            self.lose(now, worker, text, FailureKind::Unreachable);
        }
    }

    fn plan_workers(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.plan.workers).map(WorkerId)
    }

    fn on_answers(&mut self, now: Instant, what: &'static str, events: BTreeMap<WorkerId, Event>) {
        if self.stop_wanted && self.phase < Phase::Stop {
            self.keep_counts(events);
            return self.cut_as_wanted(now);
        }
        let mut snapshots = BTreeMap::new();
        let mut findings = Vec::new();
        let mut misfits = Vec::new();
        for (worker, event) in events {
            match event {
                Event::Prepared { system } => self.system = self.settings.system.clone().unwrap_or(system),
                Event::Read(snapshot) => {
                    snapshots.insert(worker, *snapshot);
                }
                Event::Verified(found) => findings.push(*found),
                Event::Checked(found) => misfits.extend(found.into_iter().map(|failure| (worker, failure))),
                Event::Done => {}
            }
        }
        let read = !snapshots.is_empty();
        if std::mem::take(&mut self.clocks.telling) {
            // The clocks took their time: a group that has moved on meanwhile is probed anew.
            let still = groups::settled(&self.plan, &snapshots).is_ok_and(|now| now == self.groups.settled);
            return if still { self.begin_load(now) } else { self.on_probed(now, &snapshots) };
        }
        match self.phase {
            Phase::Prepare => self.check(now),
            Phase::Check => self.on_checked(now, misfits),
            Phase::CreateTopics => self.create_consumers(now),
            Phase::CreateConsumers => self.on_joining(now, &snapshots),
            Phase::CreateProducers => self.probe(now),
            Phase::Probe if self.load.is_none() => self.on_probed(now, &snapshots),
            _ => {
                if read
                    && let Some(load) = &mut self.load
                    && let Err(failure) = load.read(snapshots)
                {
                    return self.fail(now, failure);
                }
                self.on_answers_under_load(now, what, read, findings);
            }
        }
    }

    fn on_answers_under_load(&mut self, now: Instant, what: &'static str, read: bool, findings: Vec<Findings>) {
        match self.phase {
            Phase::Stop if !read => self.ask_read(now),
            Phase::Stop => {
                self.emit_period(Phase::Stop);
                self.drain(now);
            }
            Phase::Drain if !read => self.drain.next = Some(now),
            Phase::Drain => self.on_drained(now),
            Phase::Verify => self.on_verified(now, findings),
            Phase::TearDown if what == "close" => self.finish(),
            Phase::TearDown => self.tear_down(now),
            _ => self.on_load(now, read),
        }
    }

    /// Something was answered while the load goes on: a read, or a command of the phase.
    fn on_load(&mut self, now: Instant, read: bool) {
        let plan = &self.plan;
        let Some(load) = &mut self.load else { return };
        if !load.is_under_way() {
            // The load has just been started.
            let phase = load.begin(plan);
            return self.enter(phase);
        }
        if !read {
            return;
        }
        let (phase, subscriptions) = (self.phase, self.workload_subscriptions());
        self.emit_period(phase);
        let Some(load) = &mut self.load else { return };
        match load.decide(now, phase, &self.plan, &self.settings, subscriptions) {
            load::Next::Stay => {}
            load::Next::Enter(next) => self.enter(next),
            load::Next::Ask(next, command) => {
                if next != phase {
                    self.enter(next);
                }
                self.ask_all(now, self.settings.call_within, &command);
            }
            load::Next::Stop => self.stop_load(now),
            load::Next::Fail(failure) => self.fail(now, failure),
        }
    }

    fn emit_period(&mut self, phase: Phase) {
        let subscriptions = self.workload_subscriptions();
        if let Some(period) = self.load.as_mut().and_then(|load| load.close_period(phase, subscriptions)) {
            self.outputs.push_back(Output::Period(Box::new(period)));
        }
    }
}

/// Nobody in particular, where it is said in the text who failed.
const NOBODY: WorkerId = WorkerId(u32::MAX);

/// What workers say went wrong, in parentheses.
fn causes(snapshots: &BTreeMap<WorkerId, Snapshot>) -> String {
    let mut causes: Vec<&str> = Vec::new();
    for problem in snapshots.values().flat_map(|snapshot| &snapshot.problems) {
        if causes.len() < Snapshot::PROBLEMS_MAX && !causes.contains(&problem.what.as_str()) {
            causes.push(&problem.what);
        }
    }
    if causes.is_empty() { String::new() } else { format!(" ({})", causes.join("; ")) }
}

/// The first look at the groups, or for the probes: on an idle broker both take a few milliseconds.
const LOOK_FIRST: Duration = Duration::from_millis(10);

/// Attempts that fit into the deadline of an exchange, if each takes as long as it may.
const ATTEMPTS: u32 = 3;

/// Least time for one attempt to start a load: the way there and back.
const START_ATTEMPT_MIN: Duration = Duration::from_millis(100);

/// The first rounds of questions to the clocks, and the pause between them; then there is one in each period.
const CLOCK_ROUNDS_FIRST: u32 = 24;
const CLOCK_ROUND: Duration = Duration::from_millis(10);
/// Questions within a lease, so that one that is lost does not end it.
const PINGS_PER_LEASE: u32 = 4;
/// Rounds to wait for before a load begins.
const CLOCK_ROUNDS_MIN: u32 = 8;

/// Rounds of probes; after that a path that stays closed is waited for, not probed again.
const PROBES_MAX: u32 = 20;

impl Machine for Controller {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::FromWorker { worker, response } => self.on_response(now, worker, response),
            Input::CallFailed { worker, number, trouble } => {
                let trouble = trouble.printable();
                let trouble_kind = trouble.kind;
                if let Some(cause) = self.links.failed(now, worker, number, trouble, &self.settings) {
                    let (text, kind) = match trouble_kind {
                        TroubleKind::Refused => (format!("{}: {cause}", self.name(worker)), FailureKind::Refused),
                        TroubleKind::Leaving => (format!("{}: {cause}", self.name(worker)), FailureKind::Broken),
                        TroubleKind::Unconnected | TroubleKind::Broken => {
                            let text = format!("Unable to connect to worker: {} is gone: {cause}", self.name(worker));
                            (text, FailureKind::Unreachable)
                        }
                    };
                    self.lose(now, worker, text, kind);
                }
            }
            // Whom it has closed, or given up, it does not need any more.
            Input::Leaving { worker, cause } if !self.closing => {
                let text = format!("{}: {}", self.name(worker), printable_within(&cause, links::CAUSE_MAX));
                self.lose(now, worker, text, FailureKind::Broken);
            }
            Input::Leaving { .. } => {}
            Input::Pong { worker, exchange } => {
                if let Some(offsets) = self.links.offsets_mut(worker) {
                    offsets.add(exchange);
                }
                if self.clocks.known_by.is_some() {
                    self.start_load(now);
                }
            }
            Input::Stop => {
                self.stop_wanted = true;
                // Before the load begins there are no counts to wait for: the cleaning up overtakes what is in progress.
                if (self.asked.is_none() || self.load.is_none()) && self.phase < Phase::Stop {
                    self.asked = None;
                    self.clocks.known_by = None;
                    self.cut_as_wanted(now);
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while let Some((worker, request)) = self.links.pop_again(now) {
            self.send(worker, request);
        }
        if self.clocks.next.is_some_and(|next| next <= now) {
            self.ping(now);
        }
        if let Some(asked) = &self.asked {
            if asked.deadline <= now {
                self.give_up_silent(now);
            }
            return;
        }
        if let Some(until) = self.clocks.known_by {
            if until > now {
                return;
            }
            let unknown = self.links.alive().filter(|worker| self.links.offsets(*worker).wall_of(now).is_none());
            for worker in unknown.collect::<Vec<_>>() {
                let text = format!("the clock of {} could not be measured", self.name(worker));
                self.lose(now, worker, text, FailureKind::Unreachable);
            }
            // By now each that is left is known, unless the run has failed by it.
            if self.clocks.known_by.is_some() {
                self.start_load(now);
            }
            return;
        }
        match self.phase {
            Phase::CreateConsumers if self.groups.look_at.is_some_and(|at| at <= now) => {
                self.groups.look_at = None;
                self.ask_read(now);
            }
            Phase::Probe if self.load.is_none() && self.probe.look_at.is_some_and(|at| at <= now) => {
                self.probe.look_at = None;
                self.ask_read(now);
            }
            Phase::Drain if self.drain.next.is_some_and(|next| next <= now) => {
                self.drain.next = None;
                self.ask_read(now);
            }
            _ => {
                if self.load.as_ref().and_then(Load::next_read).is_some_and(|next| next <= now)
                    && self.phase < Phase::Stop
                {
                    self.ask_read(now);
                }
            }
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Wake> {
        let again = self.links.next_again().map(|at| Wake { at, why: "an exchange that failed is tried again" });
        let ping = self.clocks.next.map(|at| Wake { at, why: "the clocks are asked" });
        Wake::earlier(self.next_step(), Wake::earlier(again, ping))
    }
}

impl Controller {
    /// What the run itself waits for.
    fn next_step(&self) -> Option<Wake> {
        if let Some(asked) = &self.asked {
            return Some(Wake { at: asked.deadline, why: "deadline of a call" });
        }
        if let Some(at) = self.clocks.known_by {
            return Some(Wake { at, why: "every clock must be known" });
        }
        let (at, why) = match self.phase {
            Phase::CreateConsumers => (self.groups.look_at?, "look whether the groups have settled"),
            Phase::Probe if self.load.is_none() => (self.probe.look_at?, "look for the probes"),
            Phase::Drain => (self.drain.next?, "look for the last messages"),
            phase if phase < Phase::Stop => (self.load.as_ref()?.next_read()?, "end of a period"),
            _ => return None,
        };
        Some(Wake { at, why })
    }
}
