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

mod answers;
mod check;
mod ending;
pub mod find_rate;
mod groups;
mod links;
mod load;
mod settings;
mod setup;
mod stage;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

pub use settings::{Clocks, OnLoss, Settings};

pub use self::links::{Trouble, TroubleKind};
use self::{
    links::Links,
    stage::{LoadStep, ProbeStep, Stage},
};
use crate::{
    id::WorkerId,
    offset::Exchange,
    plan::Plan,
    protocol::{Command, Event, Failure, FailureKind, Ping, Request, Response, command::Reach},
    result::{Lost, Period, Phase, Report},
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
    /// Ask a worker's clock; if that fails, nothing need be reported.
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
    /// Something for the log that changes nothing.
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
    stage: Stage,
    links: Links,
    /// Workers that were given up, and why.
    lost: Vec<Lost>,
    clocks: ClockCare,
    /// How long one attempt of the present exchanges may take.
    attempt_within: Duration,
    /// What the workers are asked and by when all must have answered; `None` between two reads.
    asked: Option<Asked>,
    system: String,
    stop_wanted: bool,
    /// Why the run was cut short.
    cut: Option<Cut>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Asked {
    what: &'static str,
    deadline: Instant,
    answers: BTreeMap<WorkerId, Event>,
    /// Who answered that it failed, and how. The others are heard out first, so that the next command finds them idle, and
    /// so that everything that went wrong is reported.
    failed: Vec<(WorkerId, Failure)>,
}

/// Measuring the workers' clocks.
#[derive(Debug, Default)]
struct ClockCare {
    /// When to ask them all next; `None` where they are the controller's own, or once the run ends.
    next: Option<Instant>,
    rounds: u32,
    /// The last correction that each worker was sent.
    sent: BTreeMap<WorkerId, i64>,
    /// The wall time that the fleet's time showed at the controller's `Instant::ZERO`.
    fleet_zero: Option<WallTime>,
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
            stage: Stage::Prepare,
            links,
            lost: Vec::new(),
            clocks: ClockCare::default(),
            attempt_within: Duration::ZERO,
            asked: None,
            system: String::new(),
            stop_wanted: false,
            cut: None,
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
        self.stage.phase()
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

    /// A stage begins that is a phase of its own.
    fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.outputs.push_back(Output::Entered(self.stage.phase()));
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
        let phase = self.stage.phase();
        let reach = self.stage.load_mut().map_or(Reach::Everything, |load| load.ask(now, phase));
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

    fn plan_workers(&self) -> impl Iterator<Item = WorkerId> + use<> {
        (0..self.plan.workers).map(WorkerId)
    }
}

/// Nobody in particular, where it is said in the text who failed.
const NOBODY: WorkerId = WorkerId(u32::MAX);

/// Attempts that fit into the deadline of an exchange, if each takes as long as it may.
const ATTEMPTS: u32 = 3;

/// Least time for one attempt to start a load: the way there and back.
const START_ATTEMPT_MIN: Duration = Duration::from_millis(100);

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
            Input::Leaving { worker, cause } if !self.stage.is_closing() => {
                let text = format!("{}: {}", self.name(worker), printable_within(&cause, links::CAUSE_MAX));
                self.lose(now, worker, text, FailureKind::Broken);
            }
            Input::Leaving { .. } => {}
            Input::Pong { worker, exchange } => {
                if let Some(offsets) = self.links.offsets_mut(worker) {
                    offsets.add(exchange);
                }
                self.on_clocks(now);
            }
            Input::Stop => {
                self.stop_wanted = true;
                // Before the load begins there are no counts to wait for: the cleaning up overtakes what is in progress.
                if (self.asked.is_none() || !matches!(self.stage, Stage::Loaded(..))) && !self.stage.is_ending() {
                    self.asked = None;
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
        if self.next_step().is_none_or(|wake| wake.at > now) {
            return;
        }
        match &self.stage {
            _ if self.asked.is_some() => self.give_up_silent(now),
            Stage::Probe(ProbeStep::MeasureClocks { .. }, _) => self.on_clocks_due(now),
            _ => self.ask_read(now),
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
        let (at, why) = match &self.stage {
            Stage::CreateConsumers(joining) => (joining.look_at, "look whether the groups have settled"),
            Stage::Probe(ProbeStep::Look, probing) => (probing.look_at, "look for the probes"),
            Stage::Probe(ProbeStep::MeasureClocks { until }, _) => (*until, "every clock must be known"),
            Stage::Loaded(LoadStep::Run(_), load) => (load.next_read()?, "end of a period"),
            Stage::Loaded(LoadStep::Drain(drain), _) => (drain.next, "look for the last messages"),
            _ => return None,
        };
        Some(Wake { at, why })
    }
}
