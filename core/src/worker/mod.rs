//! Commands in, events out: what a worker decides about its controller.
//!
//! The machine keeps the order: one run at a time, each command performed once, a repeated one answered as the first
//! time. What a command asks for is performed by the runtime (`Output::Perform`), which reports back (`Input::Done`).
//!
//! ```text
//!            Prepare              silence for the lease               as long again
//!   free ──────────────▶ led ───────────────────────────▶ left ────────────────────▶ closed
//!     ▲                   ▲        (the load is stopped)    │                           │
//!     │                   └────── any command of the run ───┘                           │
//!     └──────────────── Close, a take-over, a shutdown: from anywhere ──────────────────┘
//! ```

use std::{collections::VecDeque, time::Duration};

use crate::{
    config::terms::Terms,
    id::RunId,
    machine::{Machine, Wake},
    protocol::{self, Command, Event, Failure, FailureKind, Ping, Request, Response},
    time::{Instant, WallTime},
};

/// What can happen to a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A command arrived.
    Command(Request),
    /// What [`Output::Perform`] asked for is done.
    Done {
        /// The number it was asked under.
        ticket: u64,
        /// What came of it.
        outcome: Result<Event, Failure>,
    },
    /// The controller is there, and waits.
    Heard(Ping),
    /// The process shall end.
    Shutdown,
}

/// What a worker wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Perform this and answer with [`Input::Done`]. At most one is under way, except for [`Command::Close`], which
    /// overtakes and cuts short.
    Perform {
        /// Rises with each.
        ticket: u64,
        /// What to perform.
        command: Command,
    },
    /// Send this to whoever asked: to all of them, if the same command was sent several times.
    Reply(Response),
    /// A run begins to be obeyed: whose.
    Obeys {
        /// The run.
        run: RunId,
        /// Who leads it.
        controller: String,
    },
    /// The controller fell silent for its lease; the load is being stopped.
    LeaseExpired(RunId),
    /// No run is obeyed any more: the worker is free.
    Freed(RunId),
    /// Everything is closed; the process may end.
    ShutDown,
}

/// Past runs remembered. A copy older than this many runs is as good as impossible: TCP connections do not live so long.
const PAST_MAX: usize = 64;

/// Longest the last delivery reports are waited for when nobody leads the run any more.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// A worker's side of the protocol.
#[derive(Debug)]
pub struct Worker {
    /// The process's wall time at its `Instant::ZERO`.
    wall_zero: WallTime,
    /// What it takes from its controllers.
    terms: Terms,
    obeys: Option<Obeyed>,
    /// Runs that were obeyed before, newest last: a late copy of their first command must not begin them again.
    past: VecDeque<RunId>,
    /// A command that waits until what is under way has been performed.
    queued: Option<Request>,
    shutting_down: bool,
    tickets: u64,
    outputs: VecDeque<Output>,
}

/// The run that is obeyed, from its `Prepare` until the next run's.
#[derive(Debug)]
struct Obeyed {
    run: RunId,
    controller: String,
    lease: Duration,
    setup_within: Duration,
    heard: Instant,
    /// How long the controller may be silent beyond the lease, since it waits for what is under way.
    waits: Duration,
    /// The newest command's number, and its answer once there is one.
    number: u64,
    answer: Option<Response>,
    /// What is being performed: its ticket, and the number to answer (none for what nobody asked for).
    under_way: Option<(u64, Option<u64>)>,
    state: State,
    lease_ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// By its controller.
    Led,
    /// Its controller fell silent. What was counted is kept until then.
    Left { until: Instant },
    /// Another run may begin. Why, for a controller that does not know.
    Closed(&'static str),
}

impl Obeyed {
    fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }
}

impl Worker {
    /// A worker that obeys nobody yet. `wall_zero` is its process's wall time at its `Instant::ZERO`; `terms` say which
    /// settings it takes.
    #[must_use]
    pub fn new(wall_zero: WallTime, terms: Terms) -> Self {
        Self {
            wall_zero,
            terms,
            obeys: None,
            past: VecDeque::new(),
            queued: None,
            shutting_down: false,
            tickets: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The run it obeys; `None` if it is free.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        self.obeyed().map(|obeyed| obeyed.run)
    }

    /// Who leads the run it obeys; `None` if it is free.
    #[must_use]
    pub fn controller(&self) -> Option<&str> {
        self.obeyed().map(|obeyed| obeyed.controller.as_str())
    }

    fn obeyed(&self) -> Option<&Obeyed> {
        self.obeys.as_ref().filter(|obeyed| !obeyed.is_closed())
    }

    fn on_command(&mut self, now: Instant, mut request: Request) {
        let (version, run, number) = (request.version, request.run, request.number);
        if version != protocol::VERSION {
            let text =
                format!("the controller speaks version {version} of the protocol, this worker {}", protocol::VERSION);
            return self.refuse(run, number, FailureKind::Protocol, text);
        }
        if self.shutting_down {
            return self.refuse(run, number, FailureKind::Forgotten, "this worker is being shut down".to_owned());
        }
        // Before anything else: settings that are not taken neither begin a run nor end another one.
        if let Command::Prepare(preparation) = &mut request.command
            && let Err(refused) = self.terms.take(&mut preparation.driver)
        {
            let text = format!("the driver's settings are refused: {refused}");
            return self.refuse(run, number, FailureKind::Configuration, text);
        }
        match &mut self.obeys {
            Some(obeyed) if obeyed.run == run => {
                let sent = sent_at(self.wall_zero, now, request.sent);
                if sent + obeyed.lease <= now && request.command != Command::Close {
                    let text =
                        format!("command {number} was sent {:?} ago, which is longer than its lease", now.since(sent));
                    return self.refuse(run, number, FailureKind::Forgotten, text);
                }
                obeyed.heard = obeyed.heard.max(sent);
                if matches!(obeyed.state, State::Left { .. }) {
                    obeyed.state = State::Led;
                }
                self.on_own_command(request);
            }
            Some(obeyed) if !obeyed.is_closed() => self.on_foreign_command(now, request),
            // The run before is still being closed.
            Some(obeyed) if obeyed.under_way.is_some() => self.queue(request),
            _ => self.on_first_command(now, request),
        }
    }

    /// A command while nobody is obeyed.
    fn on_first_command(&mut self, now: Instant, request: Request) {
        let Request { run, number, command, .. } = request;
        match command {
            Command::Prepare(_) if self.past.contains(&run) => {
                self.refuse(run, number, FailureKind::Forgotten, format!("run {run} has ended here"));
            }
            Command::Prepare(preparation) if number == 1 => {
                self.past.extend(self.obeys.as_ref().map(|obeyed| obeyed.run));
                if self.past.len() > PAST_MAX {
                    self.past.pop_front();
                }
                let controller = preparation.controller.clone();
                self.obeys = Some(Obeyed {
                    run,
                    controller: controller.clone(),
                    lease: preparation.lease,
                    setup_within: preparation.setup_within,
                    heard: now,
                    waits: Duration::ZERO,
                    number,
                    answer: None,
                    under_way: None,
                    state: State::Led,
                    lease_ended: false,
                });
                self.outputs.push_back(Output::Obeys { run, controller });
                self.perform(Command::Prepare(preparation), Some(number));
            }
            // A run that never began here is as good as closed.
            Command::Close => self.reply(run, number, Ok(Event::Done), false),
            other => {
                let text = format!(
                    "it knows nothing of run {run}, though this is its command {number} ({}): it was restarted, or \
                     obeyed another controller meanwhile",
                    other.name()
                );
                self.refuse(run, number, FailureKind::Forgotten, text);
            }
        }
    }

    /// A command of another run than the one that is obeyed.
    fn on_foreign_command(&mut self, now: Instant, request: Request) {
        let Some(obeyed) = &mut self.obeys else { return };
        let (run, number) = (request.run, request.number);
        match &request.command {
            Command::Prepare(preparation) if number == 1 && !self.past.contains(&run) => {
                // A controller leads one run at a time: if it begins another, it has given this worker up.
                if preparation.take_over || preparation.controller == obeyed.controller {
                    obeyed.state = State::Closed("another controller took this worker over");
                    self.end(Command::Close, "another controller took this worker over");
                    return self.queue(request);
                }
                let silent = now.since(obeyed.heard).as_secs();
                let text = format!(
                    "it obeys {} (run {}, last heard {silent} s ago); --take-over ends that run",
                    obeyed.controller, obeyed.run
                );
                self.refuse(run, number, FailureKind::Refused, text);
            }
            // Not this run's any more, if it ever was: nothing to close.
            Command::Close => self.reply(run, number, Ok(Event::Done), false),
            _ => {
                let text = format!("it obeys {} (run {})", obeyed.controller, obeyed.run);
                self.refuse(run, number, FailureKind::Forgotten, text);
            }
        }
    }

    /// A command of the run that is obeyed: a new one, or one seen before.
    fn on_own_command(&mut self, request: Request) {
        let obeyed = self.obeys.as_mut().expect("called for the run that is obeyed");
        let (run, number) = (request.run, request.number);
        if number == obeyed.number {
            // Seen before: answered as the first time, or not yet.
            if let Some(answer) = obeyed.answer.clone() {
                self.outputs.push_back(Output::Reply(answer));
            }
            return;
        }
        if number < obeyed.number {
            // A copy that was on its way for long. The controller has its answer, or it would not have gone on.
            let text = format!("command {number} is past: {} came after it", obeyed.number);
            return self.refuse(run, number, FailureKind::Protocol, text);
        }
        let closing = request.command == Command::Close;
        if matches!(request.command, Command::Prepare(_)) {
            return self.refuse(run, number, FailureKind::Protocol, format!("run {run} is prepared already"));
        }
        if let State::Closed(why) = obeyed.state
            && !closing
        {
            return self.refuse(run, number, FailureKind::Forgotten, format!("run {run} was closed here: {why}"));
        }
        if !closing && number != obeyed.number + 1 {
            // A controller goes on when it has been answered. So somebody answered it, and was restarted since; then a
            // late copy of the first command made this process begin the run anew.
            let text = format!("command {number} came after {}: those in between were never heard here", obeyed.number);
            return self.refuse(run, number, FailureKind::Forgotten, text);
        }
        if closing {
            obeyed.number = number;
            obeyed.answer = None;
            if obeyed.is_closed() && obeyed.under_way.is_none() {
                return self.answer(number, Ok(Event::Done));
            }
            obeyed.state = State::Closed("its controller closed it");
            self.end(Command::Close, "the run was closed meanwhile");
            if let Some(obeyed) = &mut self.obeys {
                obeyed.under_way = obeyed.under_way.map(|(ticket, _)| (ticket, Some(number)));
            }
            return;
        }
        match obeyed.under_way {
            // Nobody asked for it: what the lease began. It has a bound.
            Some((_, None)) => self.queue(request),
            Some((_, Some(_))) => {
                let text = format!("command {number} came while {} is under way", obeyed.number);
                self.refuse(run, number, FailureKind::Protocol, text);
            }
            None => {
                obeyed.number = number;
                obeyed.answer = None;
                // A lease that ended before there was a load has stopped none.
                obeyed.lease_ended &= !matches!(request.command, Command::StartLoad { .. });
                self.perform(request.command, Some(number));
            }
        }
    }

    fn on_done(&mut self, now: Instant, ticket: u64, outcome: Result<Event, Failure>) {
        // What was cut short by a close still reports; nobody waits for it any more.
        let Some(obeyed) = self.obeys.as_mut().filter(|obeyed| obeyed.under_way.is_some_and(|(t, _)| t == ticket))
        else {
            return;
        };
        let Some((_, number)) = obeyed.under_way.take() else { return };
        if obeyed.waits > Duration::ZERO && number.is_some() {
            // The controller was silent because it waited; from here on it has its lease again.
            obeyed.heard = now;
        }
        obeyed.waits = Duration::ZERO;
        let (run, closed) = (obeyed.run, obeyed.is_closed());
        if let Some(number) = number {
            self.answer(number, outcome);
        }
        if closed {
            self.outputs.push_back(Output::Freed(run));
        }
        if self.shutting_down {
            // The last delivery reports have been waited for.
            return if closed { self.outputs.push_back(Output::ShutDown) } else { self.close("the worker shuts down") };
        }
        if let Some(request) = self.queued.take() {
            self.on_command(now, request);
        }
    }

    fn on_shutdown(&mut self) {
        if self.shutting_down {
            return;
        }
        self.shutting_down = true;
        if let Some(request) = self.queued.take() {
            let text = "this worker is being shut down".to_owned();
            self.refuse(request.run, request.number, FailureKind::Forgotten, text);
        }
        match &self.obeys {
            Some(obeyed) if obeyed.is_closed() && obeyed.under_way.is_some() => {}
            Some(obeyed) if !obeyed.is_closed() && obeyed.under_way.is_some() => self.close("the worker shuts down"),
            Some(obeyed) if !obeyed.is_closed() => {
                self.end(Command::StopLoad { within: DRAIN_WITHIN }, "the worker shuts down");
            }
            _ => self.outputs.push_back(Output::ShutDown),
        }
    }

    fn close(&mut self, why: &'static str) {
        if let Some(obeyed) = &mut self.obeys {
            obeyed.state = State::Closed(why);
        }
        self.end(Command::Close, why);
    }

    /// Performs something that nobody asked for. Whoever waits for what is under way is told.
    fn end(&mut self, command: Command, why: &str) {
        if let Some((_, Some(number))) = self.obeys.as_ref().and_then(|obeyed| obeyed.under_way) {
            // Kept like any other answer, for whoever asks again.
            let text = format!("command {number} was cut short: {why}");
            self.answer(number, Err(Failure::new(FailureKind::Forgotten, text)));
        }
        self.perform(command, None);
    }

    fn perform(&mut self, command: Command, number: Option<u64>) {
        self.tickets += 1;
        let obeyed = self.obeys.as_mut().expect("only an obeyed run performs");
        obeyed.under_way = Some((self.tickets, number));
        obeyed.waits = command.takes(obeyed.setup_within);
        self.outputs.push_back(Output::Perform { ticket: self.tickets, command });
    }

    /// Makes a command wait; of two the newer one, for the older one's sender is gone or repeats it.
    fn queue(&mut self, request: Request) {
        if let Some(old) = self.queued.replace(request)
            && self.queued.as_ref().is_some_and(|new| (new.run, new.number) != (old.run, old.number))
        {
            let text = "another command took its place".to_owned();
            self.refuse(old.run, old.number, FailureKind::Protocol, text);
        }
    }

    /// Answers the newest command of the run that is obeyed, and keeps the answer.
    fn answer(&mut self, number: u64, outcome: Result<Event, Failure>) {
        let obeyed = self.obeys.as_mut().expect("only an obeyed run is answered");
        let answer = Response { run: obeyed.run, number, outcome, lease_ended: obeyed.lease_ended };
        obeyed.answer = Some(answer.clone());
        self.outputs.push_back(Output::Reply(answer));
    }

    fn refuse(&mut self, run: RunId, number: u64, kind: FailureKind, text: String) {
        self.reply(run, number, Err(Failure::new(kind, text)), false);
    }

    fn reply(&mut self, run: RunId, number: u64, outcome: Result<Event, Failure>, lease_ended: bool) {
        self.outputs.push_back(Output::Reply(Response { run, number, outcome, lease_ended }));
    }
}

/// When something was sent, on the worker's own monotonic clock; now, where the controller does not know its clock yet.
fn sent_at(wall_zero: WallTime, now: Instant, sent: Option<WallTime>) -> Instant {
    sent.map_or(now, |sent| Instant(sent.0.saturating_sub(wall_zero.0)).min(now))
}

impl Machine for Worker {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Command(request) => self.on_command(now, request),
            Input::Done { ticket, outcome } => self.on_done(now, ticket, outcome),
            Input::Heard(Ping { run, sent }) => {
                let sent = sent_at(self.wall_zero, now, sent);
                if let Some(obeyed) = self.obeys.as_mut().filter(|it| it.run == run && it.state == State::Led) {
                    obeyed.heard = obeyed.heard.max(sent);
                }
            }
            Input::Shutdown => self.on_shutdown(),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|wake| wake.at > now) {
            return;
        }
        let Some(obeyed) = &mut self.obeys else { return };
        match obeyed.state {
            State::Led => {
                obeyed.lease_ended = true;
                self.outputs.push_back(Output::LeaseExpired(obeyed.run));
                if obeyed.under_way.is_some() {
                    // It took longer than its controller allowed; nobody waits for it.
                    return self.close("its lease ended");
                }
                obeyed.state = State::Left { until: now + obeyed.lease };
                self.end(Command::StopLoad { within: DRAIN_WITHIN }, "its lease ended");
            }
            State::Left { .. } => self.close("its lease ended"),
            State::Closed(_) => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Wake> {
        let obeyed = self.obeyed().filter(|_| !self.shutting_down)?;
        Some(match obeyed.state {
            State::Led => Wake { at: obeyed.heard + obeyed.lease + obeyed.waits, why: "lease of the controller" },
            State::Left { until } => Wake { at: until, why: "counts kept for a controller that comes back" },
            State::Closed(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests;
