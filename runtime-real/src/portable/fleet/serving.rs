//! The worker's side: takes commands over HTTP, hands them to the worker's machine, and answers when it does.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{Method, StatusCode, body::Bytes};
use omb_bench::{
    config::terms::Terms,
    id::RunId,
    plan::needs::Limits,
    protocol::{self, Hello, Ping, Response},
    token::Token,
    worker::{self, Worker},
};
use omb_machine::{encoding, time::WallTime};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Guest, Listener,
    door::{self, Door},
    wire::{self, Answered, Head, STRANGER_WITHIN, Service, Welcome},
};
use crate::portable::{
    event_loop::{self, Clock},
    local::{Answer, Observer, Performer},
};

/// Most bytes of a clock query: a run's number and an instant.
const CLOCK_MAX: usize = 1 << 10;

/// What a worker shows to people and their tools, beside what it shows to its controller.
pub trait Pages: Send + Sync + 'static {
    /// The page at `path`; `None` if there is none.
    fn get(&self, path: &str, status: &Status) -> Option<Answered>;
}

/// The state of the worker's machine, for observers.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The run it performs, its controller, and since when.
    pub follows: Option<(RunId, String, WallTime)>,
    /// Commands answered since the process began.
    pub commands_answered: u64,
    /// Runs whose controller fell silent.
    pub leases_expired: u64,
}

/// A worker's identity and its terms of admission.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Version of omb.
    pub omb: String,
    /// Drawn when the process began.
    pub instance: String,
    /// Requests without it are rejected; `None` admits every request.
    pub token: Option<Token>,
    /// Most bytes of a command.
    pub body_max: usize,
    /// Which settings it takes from controllers: [`Terms::foreign`], and what its owner permitted.
    pub terms: Terms,
    /// The limits of its process.
    pub limits: Limits,
}

/// The requests that wait for the answer to a command: several, if it was sent again.
type Waiting = BTreeMap<(RunId, u64), Vec<oneshot::Sender<Bytes>>>;

/// What connections and the machine's loop share.
struct Server<P, C> {
    identity: Identity,
    pages: P,
    clock: C,
    inputs: mpsc::UnboundedSender<worker::Input>,
    waiting: Mutex<Waiting>,
    status: Mutex<Status>,
    /// The process is about to end.
    leaving: AtomicBool,
}

/// The answer to requests from then on.
const LEAVING: &str = "this worker is being shut down";

/// Serves until the worker has shut down, which a message on `shutdown` begins. On `stats` only pages are shown.
#[expect(clippy::too_many_arguments, reason = "the parts that a process is made of, once")]
pub async fn serve<L, P, C>(
    listener: L,
    stats: Option<L>,
    identity: Identity,
    pages: P,
    performer: &mut impl Performer,
    observer: &mut impl Observer,
    shutdown: &mut mpsc::UnboundedReceiver<()>,
    clock: &C,
) where
    L: Listener,
    P: Pages,
    C: Clock + Clone + Send + Sync + 'static,
{
    let (inputs, mut received) = mpsc::unbounded_channel();
    let server = Arc::new(Server {
        identity,
        pages,
        clock: clock.clone(),
        inputs: inputs.clone(),
        waiting: Mutex::default(),
        status: Mutex::default(),
        leaving: AtomicBool::new(false),
    });
    let mut worker = Worker::new(clock.wall_zero(), server.identity.terms.clone());
    let observer = RefCell::new(observer);
    let machine = event_loop::run(
        &mut worker,
        &mut received,
        |output| {
            observer.borrow_mut().on_worker_output(&output);
            match output {
                worker::Output::Perform { ticket, command } => {
                    performer.perform(command, Answer { ticket, to: inputs.clone() });
                }
                worker::Output::Reply(response) => server.answer(&response),
                worker::Output::LeaseExpired(_) => {
                    lock(&server.status).leases_expired += 1;
                    observer.borrow_mut().on_lease_expired();
                }
                worker::Output::Follows { run, controller } => {
                    lock(&server.status).follows = Some((run, controller, server.clock.wall()));
                }
                worker::Output::Freed(_) => lock(&server.status).follows = None,
                worker::Output::ShutDown => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        },
        |worker, now| observer.borrow_mut().on_worker(worker, now),
        clock,
    );
    let stops = async {
        while shutdown.recv().await.is_some() {
            server.leaving.store(true, Relaxed);
            let _ = inputs.send(worker::Input::Shutdown);
        }
        std::future::pending::<()>().await;
    };
    let accepts = accept(listener, server.identity.body_max, Arc::clone(&server));
    let onlookers = Arc::new(Onlookers(Arc::clone(&server)));
    let accepts_stats = async {
        match stats {
            Some(listener) => accept(listener, 0, onlookers).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = machine => {}
        () = stops => {}
        () = accepts => {}
        () = accepts_stats => {}
    }
}

/// Accepts connections, for ever, and has requests over them answered. `body_max` is the most bytes of a body.
async fn accept<L: Listener>(mut listener: L, body_max: usize, service: Arc<impl Service>) {
    let door = Door::new(door::bounds(body_max));
    loop {
        let Ok((opening, from)) = listener.accept().await else {
            // Out of files, for example: established connections go on, and later there may be room again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (guest, service) = (door.enter(from.ip()), Arc::clone(&service));
        tokio::spawn(async move {
            let opened = tokio::select! {
                biased;
                () = guest.dismissed() => return,
                opened = timeout(STRANGER_WITHIN, opening) => opened,
            };
            if let Ok(Ok(stream)) = opened {
                wire::serve(stream, &guest, &*service).await;
            }
        });
    }
}

/// Serves pages on request, for ever.
pub async fn show<L: Listener>(listener: L, page: impl Fn(&str) -> Answered + Send + Sync + 'static) {
    accept(listener, 0, Arc::new(Shown(page))).await;
}

struct Shown<F>(F);

impl<F: Fn(&str) -> Answered + Send + Sync + 'static> Service for Shown<F> {
    fn admit(&self, head: &Head) -> Result<Welcome, Answered> {
        reads(head)
    }

    async fn answer(&self, head: Head, _: Bytes, _: &Guest) -> Answered {
        (self.0)(&head.path)
    }
}

/// A listener with pages only.
fn reads(head: &Head) -> Result<Welcome, Answered> {
    match head.method {
        Method::GET | Method::HEAD => Ok(Welcome { known: false, body_max: 0 }),
        _ => Err(Answered::text(StatusCode::METHOD_NOT_ALLOWED, "read-only endpoint: use GET")),
    }
}

/// Connections that may only read.
struct Onlookers<P, C>(Arc<Server<P, C>>);

impl<P: Pages, C: Clock + Send + Sync + 'static> Service for Onlookers<P, C> {
    fn admit(&self, head: &Head) -> Result<Welcome, Answered> {
        let known = self.0.knows(head)?;
        Ok(Welcome { known, ..reads(head)? })
    }

    async fn answer(&self, head: Head, _: Bytes, _: &Guest) -> Answered {
        self.0.page(&head.path)
    }
}

impl<P: Pages, C: Clock + Send + Sync + 'static> Service for Server<P, C> {
    fn admit(&self, head: &Head) -> Result<Welcome, Answered> {
        let known = self.knows(head)?;
        let body_max = match (&head.method, head.path.as_str()) {
            (&Method::POST, "/v1/command") => self.identity.body_max,
            (&Method::POST, "/v1/clock") => CLOCK_MAX,
            (_, "/v1/command" | "/v1/clock") => {
                return Err(Answered::text(StatusCode::METHOD_NOT_ALLOWED, "use POST"));
            }
            _ => reads(head)?.body_max,
        };
        Ok(Welcome { known, body_max })
    }

    async fn answer(&self, head: Head, body: Bytes, guest: &Guest) -> Answered {
        // As near to the arrival as can be.
        let received = self.clock.wall();
        match head.path.as_str() {
            "/v1/command" => self.command(&body, guest).await,
            "/v1/clock" => {
                let Ok(ping) = encoding::decode::<Ping>(&body) else {
                    return Answered::text(StatusCode::BAD_REQUEST, "this is no question about the clock");
                };
                self.prove(ping.run, guest);
                // If the loop has ended, so has the worker.
                let _ = self.inputs.send(worker::Input::Heard(ping));
                if self.leaving.load(Relaxed) {
                    return Answered::text(StatusCode::SERVICE_UNAVAILABLE, LEAVING);
                }
                let clock = protocol::Clock { received, answered: self.clock.wall() };
                Answered::binary(encoding::encode(&clock))
            }
            "/v1/hello" if self.leaving.load(Relaxed) => Answered::text(StatusCode::SERVICE_UNAVAILABLE, LEAVING),
            "/v1/hello" => {
                let hello = Hello {
                    limits: self.identity.limits,
                    protocol: protocol::VERSION,
                    omb: self.identity.omb.clone(),
                    instance: self.identity.instance.clone(),
                    controller: lock(&self.status).follows.as_ref().map(|(_, controller, _)| controller.clone()),
                };
                let body = serde_json::to_vec(&hello).expect("texts and numbers become JSON");
                Answered { status: StatusCode::OK, content_type: "application/json", body: body.into() }
            }
            path => self.page(path),
        }
    }
}

impl<P: Pages, C: Clock> Server<P, C> {
    /// Whether a head proves that its sender has the token.
    ///
    /// # Errors
    /// If there is a token and the head lacks it: such a sender learns nothing but whether a worker is there at all.
    fn knows(&self, head: &Head) -> Result<bool, Answered> {
        let Some(token) = &self.identity.token else { return Ok(false) };
        let known = head.token.as_deref().is_some_and(|given| token.is(given));
        if known || matches!(head.path.as_str(), "/healthz" | "/readyz") {
            return Ok(known);
        }
        let text = if head.token.is_some() { "this is not the token" } else { "a bearer token is wanted here" };
        Err(Answered::text(StatusCode::UNAUTHORIZED, text))
    }

    /// Without a token, a sender that names the current run is taken for its controller.
    fn prove(&self, run: RunId, guest: &Guest) {
        let followed = lock(&self.status).follows.as_ref().is_some_and(|(followed, ..)| *followed == run);
        if followed && self.identity.token.is_none() {
            guest.prove();
        }
    }

    fn page(&self, path: &str) -> Answered {
        let status = lock(&self.status).clone();
        let page = self.pages.get(path, &status);
        page.unwrap_or_else(|| Answered::text(StatusCode::NOT_FOUND, "no such page"))
    }

    async fn command(&self, body: &[u8], guest: &Guest) -> Answered {
        let request = match protocol::decode_request(body) {
            Ok(request) => request,
            Err(error @ encoding::DecodeError::OtherVersion { .. }) => {
                let text = format!("{error}; this worker is omb {}", self.identity.omb);
                return Answered::text(StatusCode::CONFLICT, &text);
            }
            Err(error) => return Answered::text(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let run = request.run;
        self.prove(run, guest);
        let (answer, answered) = oneshot::channel();
        lock(&self.waiting).entry((request.run, request.number)).or_default().push(answer);
        if self.inputs.send(worker::Input::Command(request)).is_err() {
            return Answered::text(StatusCode::SERVICE_UNAVAILABLE, "this worker has shut down");
        }
        let answered = answered.await;
        // Its first command may have begun the run.
        self.prove(run, guest);
        match answered {
            Ok(body) => Answered::binary(body),
            Err(_) => Answered::text(StatusCode::SERVICE_UNAVAILABLE, "this worker has shut down"),
        }
    }

    /// Answers every request that waits for it.
    fn answer(&self, response: &Response) {
        lock(&self.status).commands_answered += 1;
        let Some(waiting) = lock(&self.waiting).remove(&(response.run, response.number)) else { return };
        let mut body = Bytes::from(encoding::encode(response));
        if body.len() > encoding::BODY_MAX {
            let text =
                format!("its answer of {} bytes is more than the {} that one may have", body.len(), encoding::BODY_MAX);
            let failure = protocol::Failure::new(protocol::FailureKind::Broken, text);
            body = encoding::encode(&Response { outcome: Err(failure), ..response.clone() }).into();
        }
        for answer in waiting {
            // A caller that gave up asks again, or does not need it.
            let _ = answer.send(body.clone());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
