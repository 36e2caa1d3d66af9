//! Commands in, events out: what a worker decides about its controller.
//!
//! The machine keeps the order: one run at a time, each command performed once, a repeated one answered as the first
//! time, a controller that falls silent replaced by the lease. What a command asks for is performed by the runtime
//! (`Output::Perform`), which reports back (`Input::Done`).

use std::{collections::VecDeque, time::Duration};

use crate::{
    id::RunId,
    machine::{Machine, Wake},
    protocol::{self, Command, Event, Failure, FailureKind, Request, Response},
    time::Instant,
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
    /// Send this to the controller.
    Reply(Response),
    /// The controller fell silent for its lease; the run is being closed.
    LeaseExpired(RunId),
}

/// Past runs remembered. A copy older than this many runs is as good as impossible: TCP connections do not live so long.
const PAST_MAX: usize = 64;

/// A worker's side of the protocol.
#[derive(Debug, Default)]
pub struct Worker {
    obeys: Option<Obeyed>,
    /// Runs that were obeyed before, newest last: a late copy of their first command must not begin them again.
    past: VecDeque<RunId>,
    tickets: u64,
    outputs: VecDeque<Output>,
}

/// The run that is obeyed, from its `Prepare` until the next run's.
#[derive(Debug)]
struct Obeyed {
    run: RunId,
    lease: Duration,
    heard: Instant,
    /// How long the controller may be silent beyond the lease, since it waits for what is under way.
    waits: Duration,
    /// The newest command's number, and its answer once there is one.
    number: u64,
    answer: Option<Response>,
    /// What is being performed: its ticket, and the number to answer (none for what the lease began).
    under_way: Option<(u64, Option<u64>)>,
    /// `Close` was performed, or the lease ended: another run may begin.
    closed: bool,
}

impl Worker {
    /// A worker that obeys nobody yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The run it obeys; `None` if it is free.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        self.obeys.as_ref().filter(|obeyed| !obeyed.closed).map(|obeyed| obeyed.run)
    }

    fn on_command(&mut self, now: Instant, request: Request) {
        let Request { version, run, number, command } = request;
        if version != protocol::VERSION {
            let text =
                format!("the controller speaks version {version} of the protocol, this worker {}", protocol::VERSION);
            return self.refuse(run, number, FailureKind::Protocol, text);
        }
        match &mut self.obeys {
            Some(obeyed) if obeyed.run == run => {
                obeyed.heard = now;
                self.on_own_command(number, command);
            }
            Some(obeyed) if !obeyed.closed => {
                let text = format!("this worker obeys run {}, not run {run}", obeyed.run);
                self.refuse(run, number, FailureKind::Protocol, text);
            }
            _ => match command {
                Command::Prepare(_) if self.past.contains(&run) => {
                    self.refuse(run, number, FailureKind::Protocol, format!("run {run} has ended here"));
                }
                Command::Prepare(preparation) if number == 1 => {
                    let lease = preparation.lease;
                    self.past.extend(self.obeys.as_ref().map(|obeyed| obeyed.run));
                    if self.past.len() > PAST_MAX {
                        self.past.pop_front();
                    }
                    self.obeys = Some(Obeyed {
                        run,
                        lease,
                        heard: now,
                        waits: Duration::ZERO,
                        number,
                        answer: None,
                        under_way: None,
                        closed: false,
                    });
                    self.perform(Command::Prepare(preparation), Some(number));
                }
                // A run that never began here is as good as closed.
                Command::Close => {
                    self.outputs.push_back(Output::Reply(Response { run, number, outcome: Ok(Event::Done) }))
                }
                other => {
                    let text =
                        format!("command {number} ({}) of run {run}, which was never prepared here", other.name());
                    self.refuse(run, number, FailureKind::Protocol, text);
                }
            },
        }
    }

    /// A command of the run that is obeyed: a new one, or one seen before.
    fn on_own_command(&mut self, number: u64, command: Command) {
        let obeyed = self.obeys.as_mut().expect("called for the run that is obeyed");
        let run = obeyed.run;
        if number == obeyed.number {
            // Seen before: answered as the first time, or not yet.
            if let Some(answer) = obeyed.answer.clone() {
                self.outputs.push_back(Output::Reply(answer));
            }
            return;
        }
        if number < obeyed.number {
            // A copy that was on its way for long. The controller has its answer, or it would not have gone on.
            return;
        }
        let closing = command == Command::Close;
        if matches!(command, Command::Prepare(_)) {
            return self.refuse(run, number, FailureKind::Protocol, format!("run {run} is prepared already"));
        }
        if obeyed.closed && !closing {
            return self.refuse(
                run,
                number,
                FailureKind::Protocol,
                format!("run {run} was closed here: its lease ended"),
            );
        }
        if !closing && number != obeyed.number + 1 {
            let text = format!("command {number} came after {}: commands in between are missing", obeyed.number);
            return self.refuse(run, number, FailureKind::Protocol, text);
        }
        if !closing && obeyed.under_way.is_some() {
            let text = format!("command {number} came while {} is under way", obeyed.number);
            return self.refuse(run, number, FailureKind::Protocol, text);
        }
        obeyed.number = number;
        obeyed.answer = None;
        self.perform(command, Some(number));
    }

    fn on_done(&mut self, now: Instant, ticket: u64, outcome: Result<Event, Failure>) {
        // What was cut short by a close still reports; nobody waits for it any more.
        let Some(obeyed) = self.obeys.as_mut().filter(|obeyed| obeyed.under_way.is_some_and(|(t, _)| t == ticket))
        else {
            return;
        };
        let Some((_, number)) = obeyed.under_way.take() else { return };
        if obeyed.waits > Duration::ZERO {
            // The controller was silent because it waited; from here on it has its lease again.
            obeyed.waits = Duration::ZERO;
            obeyed.heard = now;
        }
        if let Some(number) = number {
            let answer = Response { run: obeyed.run, number, outcome };
            obeyed.answer = Some(answer.clone());
            self.outputs.push_back(Output::Reply(answer));
        }
    }

    fn perform(&mut self, command: Command, number: Option<u64>) {
        self.tickets += 1;
        let obeyed = self.obeys.as_mut().expect("only an obeyed run performs");
        obeyed.under_way = Some((self.tickets, number));
        obeyed.closed |= command == Command::Close;
        obeyed.waits = command.takes();
        self.outputs.push_back(Output::Perform { ticket: self.tickets, command });
    }

    fn refuse(&mut self, run: RunId, number: u64, kind: FailureKind, text: String) {
        let outcome = Err(Failure::new(kind, text));
        self.outputs.push_back(Output::Reply(Response { run, number, outcome }));
    }
}

impl Machine for Worker {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Command(request) => self.on_command(now, request),
            Input::Done { ticket, outcome } => self.on_done(now, ticket, outcome),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|wake| wake.at <= now)
            && let Some(obeyed) = &self.obeys
        {
            let run = obeyed.run;
            self.outputs.push_back(Output::LeaseExpired(run));
            self.perform(Command::Close, None);
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Wake> {
        let obeyed = self.obeys.as_ref().filter(|obeyed| !obeyed.closed)?;
        Some(Wake { at: obeyed.heard + obeyed.lease + obeyed.waits, why: "lease of the controller" })
    }
}

#[cfg(test)]
mod tests;
