//! Controller and worker as two processes, with a link between them that delays, loses and doubles.
//!
//! The product's local run (`local.rs`) hands commands over in memory, where nothing can get lost. Here every exchange
//! is what it will be over HTTP: a request is sent again until its answer came, so the worker meets repeated and late
//! commands, and the controller repeated and late answers.

use std::{cell::RefCell, collections::BTreeSet, ops::ControlFlow, rc::Rc, time::Duration};

use madsim::task::spawn_local;
use omb_core::{
    controller::{self, Controller, End},
    id::{RunId, WorkerId},
    machine::Machine,
    protocol::{self, Command, Request, Response},
    seed::Seed,
    time::Instant,
    worker::{self, Worker},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::{sync::mpsc, time::sleep};

use crate::{clock::Clock, event_loop, fault::Weather, load::SimLoad, local::Observer, witness::Witness};

/// How long a request waits for its answer before it is sent again.
const AGAIN: Duration = Duration::from_millis(700);
/// How often it is sent at most: for longer than any deadline of the controller.
const TRIES: u32 = 120;

/// The link.
#[derive(Clone)]
struct Link {
    weather: Weather,
    witness: Witness,
    rng: Rc<RefCell<ChaCha8Rng>>,
}

impl Link {
    /// How long each copy of a message takes; none if it is lost.
    fn copies(&self, what: &str) -> Vec<Duration> {
        let now = self.weather.now().process.clone();
        let mut rng = self.rng.borrow_mut();
        if now.severed || (now.lossy > 0.0 && rng.random_bool(now.lossy)) {
            self.witness.hit(format!("effect: {what} lost"));
            return Vec::new();
        }
        let doubled = now.lossy > 0.0 && rng.random_bool(now.lossy);
        if doubled {
            self.witness.hit(format!("effect: {what} doubled"));
        }
        let late = if now.lossy > 0.0 { 900 } else { 4 };
        (0..=u32::from(doubled)).map(|_| Duration::from_millis(rng.random_range(1..=late))).collect()
    }

    /// Hands a message over as often as the link pleases.
    fn carry<T: Clone + 'static>(&self, what: &str, message: &T, to: &mpsc::UnboundedSender<T>) {
        for delay in self.copies(what) {
            let (to, message) = (to.clone(), message.clone());
            spawn_local(async move {
                sleep(delay).await;
                let _ = to.send(message);
            });
        }
    }
}

/// Plays one run to its end, as `local::run` does. The worker lives on afterwards, as a process of its own would.
pub async fn run<O: Observer + 'static>(
    mut controller: Controller,
    load: SimLoad,
    observer: Rc<RefCell<O>>,
    mut stop: mpsc::UnboundedReceiver<()>,
    intruder: Option<Duration>,
    clock: Clock,
    (seed, weather, witness): (Seed, Weather, Witness),
) -> End {
    let link = Link { weather, witness: witness.clone(), rng: Rc::new(RefCell::new(seed.stream("link"))) };
    let (to_controller, mut controller_inputs) = mpsc::unbounded_channel();
    let (to_worker, worker_inputs) = mpsc::unbounded_channel();
    let answered: Rc<RefCell<BTreeSet<u64>>> = Rc::default();

    spawn_local(obey(
        load,
        observer.clone(),
        worker_inputs,
        to_worker.clone(),
        to_controller.clone(),
        link.clone(),
        clock.clone(),
    ));
    if let Some(at) = intruder {
        spawn_local(intrude(at, controller.plan().run, to_worker.clone(), witness, controller.plan().seed));
    }
    let stopper = to_controller.clone();
    spawn_local(async move {
        while stop.recv().await.is_some() {
            let _ = stopper.send(controller::Input::Stop);
        }
    });

    let run = controller.plan().run;
    let (mut end, looking) = (None, observer.clone());
    let noted = answered.clone();
    // Answers are noted where they arrive, which is before the machine takes them.
    let (noting, mut arrived) = mpsc::unbounded_channel();
    let forward = spawn_local(async move {
        while let Some(input) = controller_inputs.recv().await {
            if let controller::Input::FromWorker { response, .. } = &input
                && response.run == run
            {
                noted.borrow_mut().insert(response.number);
            }
            let _ = noting.send(input);
        }
    });
    event_loop::run(
        &mut controller,
        &mut arrived,
        |output| {
            observer.borrow_mut().on_output(&output);
            match output {
                controller::Output::ToWorker { request, .. } => {
                    spawn_local(exchange(request, to_worker.clone(), answered.clone(), link.clone()));
                }
                controller::Output::Finished(how) => {
                    end = Some(how);
                    return ControlFlow::Break(());
                }
                _ => {}
            }
            ControlFlow::Continue(())
        },
        |controller, now| looking.borrow_mut().on_controller(controller, now),
        &clock,
    )
    .await;
    forward.abort();
    // Nobody repeats the requests of a controller that is gone.
    answered.borrow_mut().extend(0..=u64::from(u16::MAX));
    end.expect("the controller's loop ends with its last output")
}

/// Sends a request until it is answered.
async fn exchange(
    request: Request,
    to: mpsc::UnboundedSender<worker::Input>,
    answered: Rc<RefCell<BTreeSet<u64>>>,
    link: Link,
) {
    let bytes = protocol::encode(&request);
    for nth in 0..TRIES {
        if answered.borrow().contains(&request.number) {
            return;
        }
        if nth > 0 {
            link.witness.hit("effect: command sent again");
        }
        let request: Request = protocol::decode(&bytes).expect("our own encoding is readable");
        link.carry("command", &worker::Input::Command(request), &to);
        sleep(AGAIN).await;
    }
}

/// The worker's process.
async fn obey<O: Observer>(
    load: SimLoad,
    observer: Rc<RefCell<O>>,
    mut inputs: mpsc::UnboundedReceiver<worker::Input>,
    done: mpsc::UnboundedSender<worker::Input>,
    to_controller: mpsc::UnboundedSender<controller::Input>,
    link: Link,
    clock: Clock,
) {
    let mut worker = Worker::new();
    let looking = observer.clone();
    event_loop::run(
        &mut worker,
        &mut inputs,
        |output| {
            match output {
                worker::Output::Perform { ticket, command } => {
                    let done = done.clone();
                    load.begin(command, move |outcome| {
                        let _ = done.send(worker::Input::Done { ticket, outcome });
                    });
                }
                worker::Output::Reply(response) => {
                    let response: Response =
                        protocol::decode(&protocol::encode(&response)).expect("our own encoding is readable");
                    let input = controller::Input::FromWorker { worker: WorkerId(0), response };
                    link.carry("answer", &input, &to_controller);
                }
                worker::Output::LeaseExpired(run) => {
                    link.witness.note("worker", format_args!("the lease of run {run} is over"));
                    link.witness.hit("effect: lease expired");
                    observer.borrow_mut().on_lease_expired();
                }
            }
            ControlFlow::Continue(())
        },
        |worker, now| looking.borrow_mut().on_worker(worker, now),
        &clock,
    )
    .await;
}

/// Another controller that takes the worker for its own.
async fn intrude(at: Duration, run: RunId, to: mpsc::UnboundedSender<worker::Input>, witness: Witness, seed: Seed) {
    sleep(at).await;
    witness.hit("effect: another controller spoke to the worker");
    let other = RunId(run.0 ^ 1);
    let settings = controller::Settings::new(omb_core::config::driver::DriverConfig {
        name: "intruder".to_owned(),
        kind: omb_core::config::driver::DriverKind::Embedded,
    });
    let workload = crate::scenario::Scenario::from_seed(seed).workload;
    let mut intruder = Controller::new(Instant::ZERO, omb_core::plan::Plan::new(other, seed, workload, 1), settings);
    while let Some(output) = intruder.poll_output() {
        if let controller::Output::ToWorker { request, .. } = output {
            let _ = to.send(worker::Input::Command(request));
        }
    }
    let request = Request { version: protocol::VERSION, run: other, number: 2, command: Command::Probe };
    let _ = to.send(worker::Input::Command(request));
}
