//! Commands in, events out: what a worker decides about its controller.
//!
//! The machine keeps the order: one run at a time, each command performed once, a repeated one given the same answer.
//! The runtime performs what a command requests (`Output::Perform`) and reports back (`Input::Done`).
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
    protocol::{self, Command, Event, Failure, FailureKind, Ping, Request, Response},
};
use omb_machine::{
    Machine, Wake,
    printable::printable_within,
    time::{Instant, WallTime},
};

/// What can happen to a worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A command arrived.
    Command(Request),
    /// The runtime has finished an [`Output::Perform`].
    Done {
        /// The ticket of that output.
        ticket: u64,
        /// The result.
        outcome: Result<Event, Failure>,
    },
    /// The controller is alive, and waits.
    Heard(Ping),
    /// The process is to end.
    Shutdown,
}

/// What a worker wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Perform this and answer with [`Input::Done`]. At most one is in progress, except for [`Command::DeleteTopics`] and
    /// [`Command::Close`], which overtake it and cut it short.
    Perform {
        /// Rises with each.
        ticket: u64,
        /// What to perform.
        command: Command,
    },
    /// Send this to the caller: to all of them, if the same command was sent several times.
    Reply(Response),
    /// The worker follows a run from here on.
    Follows {
        /// The run.
        run: RunId,
        /// Its controller.
        controller: String,
    },
    /// The controller has been silent for its lease; the load is being stopped.
    LeaseExpired(RunId),
    /// The worker follows no run any more: it is free.
    Freed(RunId),
    /// Everything is closed; the process may end.
    ShutDown,
}

/// Past runs remembered. A copy older than this many runs is practically impossible: TCP connections do not live so
/// long.
const PAST_MAX: usize = 64;

/// Longest wait for the last delivery reports once no controller leads the run.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);

/// How long a worker that is shut down stays at most, with everything closed, so that its controller learns why it
/// goes. The controller asks for the clock once per period, which is a second.
const FAREWELL_WITHIN: Duration = Duration::from_millis(2_500);

/// How long the last answer to its controller may take to leave the process.
const FAREWELL_LEAVES_WITHIN: Duration = Duration::from_millis(100);

/// Most characters of a controller's name: `omb (process 4711 on host-a)`, and a host's name has at most 253.
const CONTROLLER_MAX: usize = 300;

/// A worker's side of the protocol.
#[derive(Debug)]
pub struct Worker {
    /// The process's wall time at its `Instant::ZERO`.
    wall_zero: WallTime,
    /// Which settings it accepts from its controllers.
    terms: Terms,
    follows: Option<Followed>,
    /// Runs that it followed before, newest last: a late copy of their first command must not begin them again.
    past: VecDeque<RunId>,
    /// A command that waits until the one in progress has been performed.
    queued: Option<Request>,
    shutdown: Option<Shutdown>,
    tickets: u64,
    outputs: VecDeque<Output>,
}

/// The process is to end.
#[derive(Debug)]
struct Shutdown {
    /// The run whose controller is to learn of it, and when it did; `None` if the worker followed no run.
    run: Option<RunId>,
    heard: Option<Instant>,
    /// Since when everything is closed.
    closed: Option<Instant>,
    /// [`Output::ShutDown`] was given out.
    over: bool,
}

impl Shutdown {
    /// When the process may end; `None` as long as something is open.
    fn leaves_at(&self) -> Option<Instant> {
        let closed = self.closed.filter(|_| !self.over)?;
        let waits = match (self.run, self.heard) {
            (None, _) => return Some(closed),
            (Some(_), Some(heard)) => heard + FAREWELL_LEAVES_WITHIN,
            (Some(_), None) => closed + FAREWELL_WITHIN,
        };
        Some(waits.max(closed))
    }
}

/// The run that is followed, from its `Prepare` until the next run's.
#[derive(Debug)]
struct Followed {
    run: RunId,
    controller: String,
    lease: Duration,
    setup_within: Duration,
    heard: Instant,
    /// How long the controller may be silent beyond the lease, since it waits for the command in progress.
    waits: Duration,
    /// The newest command's number, and its answer once there is one.
    number: u64,
    answer: Option<Response>,
    /// What is being performed: its ticket, and the number to answer (none if no command requested it).
    under_way: Option<(u64, Option<u64>)>,
    state: State,
    lease_ended: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// By its controller.
    Led,
    /// Its controller fell silent. The counts are kept until then.
    Left { until: Instant },
    /// Another run may begin. The reason, for a controller that does not know it.
    Closed(&'static str),
}

impl Followed {
    fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed(_))
    }
}

impl Worker {
    /// A worker that follows no run yet. `wall_zero` is its process's wall time at its `Instant::ZERO`; `terms` say
    /// which settings it accepts.
    #[must_use]
    pub fn new(wall_zero: WallTime, terms: Terms) -> Self {
        Self {
            wall_zero,
            terms,
            follows: None,
            past: VecDeque::new(),
            queued: None,
            shutdown: None,
            tickets: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The run it follows; `None` if it is free.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        self.followed().map(|followed| followed.run)
    }

    /// The controller of the run it follows; `None` if it is free.
    #[must_use]
    pub fn controller(&self) -> Option<&str> {
        self.followed().map(|followed| followed.controller.as_str())
    }

    fn followed(&self) -> Option<&Followed> {
        self.follows.as_ref().filter(|followed| !followed.is_closed())
    }

    fn on_command(&mut self, now: Instant, mut request: Request) {
        let (version, run, number) = (request.version, request.run, request.number);
        if version != protocol::VERSION {
            let text =
                format!("the controller speaks version {version} of the protocol, this worker {}", protocol::VERSION);
            return self.refuse(run, number, FailureKind::Protocol, text);
        }
        if self.shutdown.is_some() {
            self.bid_farewell(now, run);
            return self.refuse(run, number, FailureKind::Forgotten, "this worker is being shut down".to_owned());
        }
        // Before anything else: settings that are not accepted neither begin a run nor end another one.
        if let Command::Prepare(preparation) = &mut request.command
            && let Err(refused) = self.terms.take(&mut preparation.driver)
        {
            let text = format!("the driver's settings are refused: {refused}");
            return self.refuse(run, number, FailureKind::Configuration, text);
        }
        match &mut self.follows {
            Some(followed) if followed.run == run => {
                let sent = sent_at(self.wall_zero, now, request.sent);
                if sent + followed.lease <= now && request.command != Command::Close {
                    let text =
                        format!("command {number} was sent {:?} ago, which is longer than its lease", now.since(sent));
                    return self.refuse(run, number, FailureKind::Forgotten, text);
                }
                followed.heard = followed.heard.max(sent);
                if matches!(followed.state, State::Left { .. }) {
                    followed.state = State::Led;
                }
                self.on_own_command(request);
            }
            Some(followed) if !followed.is_closed() => self.on_foreign_command(now, request),
            // The previous run is still being closed.
            Some(followed) if followed.under_way.is_some() => self.queue(request),
            _ => self.on_first_command(now, request),
        }
    }

    /// A command while no run is followed.
    fn on_first_command(&mut self, now: Instant, request: Request) {
        let Request { run, number, command, .. } = request;
        match command {
            Command::Prepare(_) if self.past.contains(&run) => {
                self.refuse(run, number, FailureKind::Forgotten, format!("run {run} has ended here"));
            }
            Command::Prepare(preparation) if number == 1 => {
                self.past.extend(self.follows.as_ref().map(|followed| followed.run));
                if self.past.len() > PAST_MAX {
                    self.past.pop_front();
                }
                let controller = printable_within(&preparation.controller, CONTROLLER_MAX);
                self.follows = Some(Followed {
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
                self.outputs.push_back(Output::Follows { run, controller });
                self.perform(Command::Prepare(preparation), Some(number));
            }
            // A run that never began here is as good as closed.
            Command::Close => self.reply(run, number, Ok(Event::Done), false),
            other => {
                let text = format!(
                    "it knows nothing of run {run}, though this is its command {number} ({}): it was restarted, or \
                     followed another controller meanwhile",
                    other.name()
                );
                self.refuse(run, number, FailureKind::Forgotten, text);
            }
        }
    }

    /// A command of another run than the one that is followed.
    fn on_foreign_command(&mut self, now: Instant, request: Request) {
        let Some(followed) = &mut self.follows else { return };
        let (run, number) = (request.run, request.number);
        match &request.command {
            Command::Prepare(preparation) if number == 1 && !self.past.contains(&run) => {
                // A controller leads one run at a time: if it begins another, it has abandoned this worker.
                let controller = printable_within(&preparation.controller, CONTROLLER_MAX);
                if preparation.take_over || controller == followed.controller {
                    followed.state = State::Closed("another controller took this worker over");
                    self.end(Command::Close, "another controller took this worker over");
                    return self.queue(request);
                }
                let silent = now.since(followed.heard).as_secs();
                let text = format!(
                    "it follows {} (run {}, last heard {silent} s ago); --take-over ends that run",
                    followed.controller, followed.run
                );
                self.refuse(run, number, FailureKind::Refused, text);
            }
            // Not this run's any more, if it ever was: nothing to close.
            Command::Close => self.reply(run, number, Ok(Event::Done), false),
            _ => {
                let text = format!("it follows {} (run {})", followed.controller, followed.run);
                self.refuse(run, number, FailureKind::Forgotten, text);
            }
        }
    }

    /// A command of the run that is followed: a new one, or one seen before.
    fn on_own_command(&mut self, request: Request) {
        let followed = self.follows.as_mut().expect("called for the run that is followed");
        let (run, number) = (request.run, request.number);
        if number == followed.number {
            // Seen before: the same answer, or not yet.
            if let Some(answer) = followed.answer.clone() {
                self.outputs.push_back(Output::Reply(answer));
            }
            return;
        }
        if number < followed.number {
            // A copy that was long in flight. The controller has its answer, or it would not have gone on.
            let text = format!("command {number} is past: {} came after it", followed.number);
            return self.refuse(run, number, FailureKind::Protocol, text);
        }
        let closing = request.command == Command::Close;
        if matches!(request.command, Command::Prepare(_)) {
            return self.refuse(run, number, FailureKind::Protocol, format!("run {run} is prepared already"));
        }
        if let State::Closed(why) = followed.state
            && !closing
        {
            return self.refuse(run, number, FailureKind::Forgotten, format!("run {run} was closed here: {why}"));
        }
        // What a run created is cleaned up whatever the result of its last command, which may never have arrived.
        let deleting = matches!(request.command, Command::DeleteTopics { .. });
        if !closing && !deleting && number != followed.number + 1 {
            // A controller goes on only when it has an answer. So an earlier process here answered it and was restarted
            // since; then a late copy of the first command made this process begin the run anew.
            let text =
                format!("command {number} came after {}: those in between were never heard here", followed.number);
            return self.refuse(run, number, FailureKind::Forgotten, text);
        }
        if closing {
            followed.number = number;
            followed.answer = None;
            if followed.is_closed() && followed.under_way.is_none() {
                return self.answer(number, Ok(Event::Done));
            }
            followed.state = State::Closed("its controller closed it");
            self.end(Command::Close, "the run was closed meanwhile");
            if let Some(followed) = &mut self.follows {
                followed.under_way = followed.under_way.map(|(ticket, _)| (ticket, Some(number)));
            }
            return;
        }
        match followed.under_way {
            // No command requested it: the lease began it. It has a bound.
            Some((_, None)) => self.queue(request),
            Some((_, Some(before))) if deleting => {
                let text = format!("command {before} was cut short: the run is being cleaned up");
                self.answer(before, Err(Failure::new(FailureKind::Forgotten, text)));
                self.perform_own(number, request.command);
            }
            Some((_, Some(_))) => {
                let text = format!("command {number} came while {} is in progress", followed.number);
                self.refuse(run, number, FailureKind::Protocol, text);
            }
            None => self.perform_own(number, request.command),
        }
    }

    /// Performs a new command of the run that is followed.
    fn perform_own(&mut self, number: u64, command: Command) {
        let followed = self.follows.as_mut().expect("called for the run that is followed");
        followed.number = number;
        followed.answer = None;
        // A lease that ended before there was a load has stopped none.
        followed.lease_ended &= !matches!(command, Command::StartLoad { .. });
        self.perform(command, Some(number));
    }

    fn on_done(&mut self, now: Instant, ticket: u64, outcome: Result<Event, Failure>) {
        // A command cut short by a close still reports; no caller waits for it any more.
        let Some(followed) =
            self.follows.as_mut().filter(|followed| followed.under_way.is_some_and(|(t, _)| t == ticket))
        else {
            return;
        };
        let Some((_, number)) = followed.under_way.take() else { return };
        if followed.waits > Duration::ZERO && number.is_some() {
            // The controller was silent because it waited; from here on it has its full lease again.
            followed.heard = now;
        }
        followed.waits = Duration::ZERO;
        let (run, closed) = (followed.run, followed.is_closed());
        if let Some(number) = number {
            self.answer(number, outcome);
        }
        if closed {
            self.outputs.push_back(Output::Freed(run));
        }
        if self.shutdown.is_some() {
            // The wait for the last delivery reports is over.
            return if closed { self.leave(now) } else { self.close("the worker shuts down") };
        }
        if let Some(request) = self.queued.take() {
            self.on_command(now, request);
        }
    }

    fn on_shutdown(&mut self, now: Instant) {
        if self.shutdown.is_some() {
            return;
        }
        let run = self.run();
        self.shutdown = Some(Shutdown { run, heard: None, closed: None, over: false });
        if self.followed().is_some_and(|followed| matches!(followed.under_way, Some((_, Some(_)))))
            && let Some(run) = run
        {
            // Callers that wait are answered below.
            self.bid_farewell(now, run);
        }
        if let Some(request) = self.queued.take() {
            let text = "this worker is being shut down".to_owned();
            self.refuse(request.run, request.number, FailureKind::Forgotten, text);
        }
        match &self.follows {
            Some(followed) if followed.is_closed() && followed.under_way.is_some() => {}
            Some(followed) if !followed.is_closed() && followed.under_way.is_some() => {
                self.close("the worker shuts down")
            }
            Some(followed) if !followed.is_closed() => {
                self.end(Command::StopLoad { within: DRAIN_WITHIN }, "the worker shuts down");
            }
            _ => self.leave(now),
        }
    }

    /// A controller is being informed that this worker shuts down.
    fn bid_farewell(&mut self, now: Instant, run: RunId) {
        if let Some(shutdown) = self.shutdown.as_mut().filter(|shutdown| shutdown.run == Some(run)) {
            shutdown.heard.get_or_insert(now);
        }
    }

    /// Everything is closed: the process ends as soon as the controller knows why.
    fn leave(&mut self, now: Instant) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.closed.get_or_insert(now);
        }
        self.end_process(now);
    }

    /// Ends the process if it is time.
    fn end_process(&mut self, now: Instant) {
        if let Some(shutdown) = self.shutdown.as_mut().filter(|it| it.leaves_at().is_some_and(|at| at <= now)) {
            shutdown.over = true;
            self.outputs.push_back(Output::ShutDown);
        }
    }

    fn close(&mut self, why: &'static str) {
        if let Some(followed) = &mut self.follows {
            followed.state = State::Closed(why);
        }
        self.end(Command::Close, why);
    }

    /// Performs something that no command requested. The caller of a command in progress is informed.
    fn end(&mut self, command: Command, why: &str) {
        if let Some((_, Some(number))) = self.follows.as_ref().and_then(|followed| followed.under_way) {
            // Kept like any other answer, in case the caller asks again.
            let text = format!("command {number} was cut short: {why}");
            self.answer(number, Err(Failure::new(FailureKind::Forgotten, text)));
        }
        self.perform(command, None);
    }

    fn perform(&mut self, command: Command, number: Option<u64>) {
        self.tickets += 1;
        let followed = self.follows.as_mut().expect("only a followed run performs");
        followed.under_way = Some((self.tickets, number));
        followed.waits = command.takes(followed.setup_within);
        self.outputs.push_back(Output::Perform { ticket: self.tickets, command });
    }

    /// Makes a command wait; of two the newer one, as the older one's sender is gone or repeats it.
    fn queue(&mut self, request: Request) {
        if let Some(old) = self.queued.replace(request)
            && self.queued.as_ref().is_some_and(|new| (new.run, new.number) != (old.run, old.number))
        {
            let text = "another command took its place".to_owned();
            self.refuse(old.run, old.number, FailureKind::Protocol, text);
        }
    }

    /// Answers the newest command of the run that is followed, and keeps the answer.
    fn answer(&mut self, number: u64, outcome: Result<Event, Failure>) {
        let followed = self.follows.as_mut().expect("only a followed run is answered");
        let answer = Response { run: followed.run, number, outcome, lease_ended: followed.lease_ended };
        followed.answer = Some(answer.clone());
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
                // While it shuts down, the answer says so in place of the time.
                self.bid_farewell(now, run);
                let sent = sent_at(self.wall_zero, now, sent);
                if let Some(followed) = self.follows.as_mut().filter(|it| it.run == run && it.state == State::Led) {
                    followed.heard = followed.heard.max(sent);
                }
            }
            Input::Shutdown => self.on_shutdown(now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|wake| wake.at > now) {
            return;
        }
        if self.shutdown.is_some() {
            return self.end_process(now);
        }
        let Some(followed) = &mut self.follows else { return };
        match followed.state {
            State::Led => {
                followed.lease_ended = true;
                self.outputs.push_back(Output::LeaseExpired(followed.run));
                if followed.under_way.is_some() {
                    // It took longer than its controller allowed; the controller no longer waits for it.
                    return self.close("its lease ended");
                }
                followed.state = State::Left { until: now + followed.lease };
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
        if let Some(shutdown) = &self.shutdown {
            return Some(Wake { at: shutdown.leaves_at()?, why: "the controller learns that this worker shuts down" });
        }
        let followed = self.followed()?;
        Some(match followed.state {
            State::Led => Wake { at: followed.heard + followed.lease + followed.waits, why: "lease of the controller" },
            State::Left { until } => Wake { at: until, why: "counts kept for a controller that comes back" },
            State::Closed(_) => return None,
        })
    }
}

#[cfg(test)]
mod tests;
