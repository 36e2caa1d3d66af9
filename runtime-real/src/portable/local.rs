//! A whole run in one process: the controller and one worker, each in its own loop, with every command and event
//! encoded between them as it is between machines.
//!
//! Compiled twice, like `event_loop.rs`.

use std::{cell::RefCell, ops::ControlFlow};

use omb_bench::{
    config::terms::Terms,
    controller::{self, Controller, End},
    id::WorkerId,
    protocol::{Command, Event, Failure, Request, Response},
    worker::{self, Worker},
};
use omb_machine::{encoding, time::Instant};
use tokio::sync::mpsc;

use crate::portable::event_loop::{self, Clock};

/// Performs a worker's commands. Every command is answered once, through the [`Answer`] it comes with.
pub trait Performer {
    /// Begins to perform `command`; must not block. [`Command::Close`] may come while another is in progress.
    fn perform(&mut self, command: Command, answer: Answer);
}

/// Where the outcome of one command goes.
#[derive(Debug)]
pub struct Answer {
    pub(crate) ticket: u64,
    pub(crate) to: mpsc::UnboundedSender<worker::Input>,
}

impl Answer {
    /// Reports the outcome of the command.
    pub fn give(self, outcome: Result<Event, Failure>) {
        // If the worker's loop has ended, the outcome is not needed any more.
        let _ = self.to.send(worker::Input::Done { ticket: self.ticket, outcome });
    }
}

/// What the loops show of a run in progress.
pub trait Observer {
    /// An output of the controller, before the next is made: a period, the report, a phase.
    fn on_output(&mut self, _output: &controller::Output) {}
    /// The controller after a step.
    fn on_controller(&mut self, _controller: &Controller, _now: Instant) {}
    /// An output of a worker, before it is performed.
    fn on_worker_output(&mut self, _output: &worker::Output) {}
    /// The worker after a step.
    fn on_worker(&mut self, _worker: &Worker, _now: Instant) {}
    /// The lease ended: the controller's loop is stuck.
    fn on_lease_expired(&mut self) {}
}

/// Plays one run to its end. A message on `stop` ends it early.
pub async fn run(
    controller: Controller,
    performer: &mut impl Performer,
    observer: &mut impl Observer,
    stop: &mut mpsc::UnboundedReceiver<()>,
    clock: &impl Clock,
) -> End {
    let (to_controller, controller_inputs) = mpsc::unbounded_channel();
    let (to_worker, mut worker_inputs) = mpsc::unbounded_channel();
    let mut worker = Worker::new(clock.wall_zero(), Terms::own());
    let observer = RefCell::new(observer);

    let answers = to_controller.clone();
    let done = to_worker.clone();
    let worker_loop = event_loop::run(
        &mut worker,
        &mut worker_inputs,
        |output| {
            observer.borrow_mut().on_worker_output(&output);
            match output {
                worker::Output::Perform { ticket, command } => {
                    performer.perform(command, Answer { ticket, to: done.clone() });
                }
                worker::Output::Reply(response) => {
                    let response: Response =
                        encoding::decode(&encoding::encode(&response)).expect("our own encoding is readable");
                    let _ = answers.send(controller::Input::FromWorker { worker: WorkerId(0), response });
                }
                worker::Output::LeaseExpired(_) => observer.borrow_mut().on_lease_expired(),
                worker::Output::Follows { .. } | worker::Output::Freed(_) | worker::Output::ShutDown => {}
            }
            ControlFlow::Continue(())
        },
        |worker, now| observer.borrow_mut().on_worker(worker, now),
        clock,
    );
    let carry = |output| {
        if let controller::Output::ToWorker { request, .. } = output {
            let request: Request = encoding::decode(&encoding::encode(&request)).expect("our own encoding is readable");
            let _ = to_worker.send(worker::Input::Command(request));
        }
    };
    let controller_loop = control(controller, (to_controller, controller_inputs), carry, &observer, stop, clock);
    tokio::select! {
        biased;
        end = controller_loop => end,
        // It goes on for as long as it could be sent anything.
        () = worker_loop => unreachable!("a worker's loop is not over before its controller's"),
    }
}

/// Plays a controller to its end. `carry` takes its messages to its workers; a message on `stop` ends it early.
pub(crate) async fn control(
    mut controller: Controller,
    (to_controller, mut inputs): (mpsc::UnboundedSender<controller::Input>, mpsc::UnboundedReceiver<controller::Input>),
    mut carry: impl FnMut(controller::Output),
    observer: &RefCell<&mut impl Observer>,
    stop: &mut mpsc::UnboundedReceiver<()>,
    clock: &impl Clock,
) -> End {
    let mut end = None;
    let perform = |output| {
        observer.borrow_mut().on_output(&output);
        if let controller::Output::Finished(how) = output {
            end = Some(how);
            return ControlFlow::Break(());
        }
        carry(output);
        ControlFlow::Continue(())
    };
    let look = |controller: &Controller, now| observer.borrow_mut().on_controller(controller, now);
    let machine = event_loop::run(&mut controller, &mut inputs, perform, look, clock);
    let stops = async {
        while stop.recv().await.is_some() {
            let _ = to_controller.send(controller::Input::Stop);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = machine => {}
        () = stops => {}
    }
    end.expect("the controller's loop ends with its last output")
}
