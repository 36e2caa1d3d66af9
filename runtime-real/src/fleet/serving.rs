//! The worker's side: takes commands over HTTP, hands them to the worker's machine, and answers when it does.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{Method, StatusCode, body::Bytes};
use omb_core::{
    config::terms::Terms,
    id::RunId,
    protocol::{self, Hello, Ping, Response},
    time::WallTime,
    worker::{self, Worker},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Listener,
    wire::{self, Answered, Asked},
};
use crate::{
    event_loop::{self, Clock},
    local::{Answer, Observer, Performer},
};

/// Longest a connection may take to become ready.
const OPENS_WITHIN: Duration = Duration::from_secs(10);
/// Connections at a time; one more is closed at once.
const CONNECTIONS_MAX: usize = 512;

/// What a worker shows to people and their tools, beside what it shows to its controller.
pub trait Pages: Send + Sync + 'static {
    /// The page at `path`; `None` if there is none.
    fn get(&self, path: &str, status: &Status) -> Option<Answered>;
}

/// What the worker's machine is at, for whoever looks on.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The run it obeys, who leads it, and since when.
    pub obeys: Option<(RunId, String, WallTime)>,
    /// Commands answered since the process began.
    pub commands_answered: u64,
    /// Runs whose controller fell silent.
    pub leases_expired: u64,
}

/// Who a worker is and whom it lets in.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Version of omb.
    pub omb: String,
    /// Drawn when the process began.
    pub instance: String,
    /// Whoever lacks it is refused; `None` lets everybody in.
    pub token: Option<String>,
    /// Most bytes of a body.
    pub body_max: usize,
    /// Which settings it takes from controllers: [`Terms::foreign`], and what its owner agreed to.
    pub terms: Terms,
    /// How many files its process may open.
    pub open_files_max: Option<u64>,
}

/// Those who wait for the answer to a command: several, if it was sent again.
type Waiting = BTreeMap<(RunId, u64), Vec<oneshot::Sender<Bytes>>>;

/// What connections and the machine's loop share.
struct Desk<P, C> {
    identity: Identity,
    pages: P,
    clock: C,
    inputs: mpsc::UnboundedSender<worker::Input>,
    waiting: Mutex<Waiting>,
    status: Mutex<Status>,
    /// The process is to end.
    leaving: AtomicBool,
}

/// What whoever asks is told then.
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
    let desk = Arc::new(Desk {
        identity,
        pages,
        clock: clock.clone(),
        inputs: inputs.clone(),
        waiting: Mutex::default(),
        status: Mutex::default(),
        leaving: AtomicBool::new(false),
    });
    let mut worker = Worker::new(clock.wall_zero(), desk.identity.terms.clone());
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
                worker::Output::Reply(response) => desk.answer(&response),
                worker::Output::LeaseExpired(_) => {
                    lock(&desk.status).leases_expired += 1;
                    observer.borrow_mut().on_lease_expired();
                }
                worker::Output::Obeys { run, controller } => {
                    lock(&desk.status).obeys = Some((run, controller, desk.clock.wall()));
                }
                worker::Output::Freed(_) => lock(&desk.status).obeys = None,
                worker::Output::ShutDown => return ControlFlow::Break(()),
            }
            ControlFlow::Continue(())
        },
        |worker, now| observer.borrow_mut().on_worker(worker, now),
        clock,
    );
    let stops = async {
        while shutdown.recv().await.is_some() {
            desk.leaving.store(true, Relaxed);
            let _ = inputs.send(worker::Input::Shutdown);
        }
        std::future::pending::<()>().await;
    };
    let limit = desk.identity.body_max;
    let accepts = accept(listener, limit, {
        let desk = Arc::clone(&desk);
        move |asked| {
            let desk = Arc::clone(&desk);
            async move { desk.take(asked).await }
        }
    });
    let accepts_stats = async {
        match stats {
            Some(listener) => {
                accept(listener, limit, {
                    let desk = Arc::clone(&desk);
                    move |asked| {
                        let page = desk.look(&asked);
                        async move { page }
                    }
                })
                .await;
            }
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

/// Takes connections in, for ever, and answers what is asked over them. `limit` is the most bytes of a body.
pub async fn accept<L, F>(mut listener: L, limit: usize, answer: impl Fn(Asked) -> F + Clone + Send + Sync + 'static)
where
    L: Listener,
    F: Future<Output = Answered> + Send + 'static,
{
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((opening, _)) = listener.accept().await else {
            // Out of files, say: those who are connected go on, and later there may be room again.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        if open.fetch_add(1, Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Relaxed);
            continue;
        }
        let (answer, open) = (answer.clone(), Arc::clone(&open));
        tokio::spawn(async move {
            if let Ok(Ok(stream)) = timeout(OPENS_WITHIN, opening).await {
                wire::serve(stream, limit, answer).await;
            }
            open.fetch_sub(1, Relaxed);
        });
    }
}

impl<P: Pages, C: Clock> Desk<P, C> {
    async fn take(&self, asked: Asked) -> Answered {
        // As near to the arrival as can be.
        let received = self.clock.wall();
        if let Some(refused) = self.refuse(&asked) {
            return refused;
        }
        match (&asked.method, asked.path.as_str()) {
            (&Method::POST, "/v1/command") => self.command(&asked.body).await,
            (&Method::POST, "/v1/clock") => {
                let Ok(ping) = protocol::decode::<Ping>(&asked.body) else {
                    return Answered::text(StatusCode::BAD_REQUEST, "this is no question about the clock");
                };
                // If the loop is over, so is the worker.
                let _ = self.inputs.send(worker::Input::Heard(ping));
                if self.leaving.load(Relaxed) {
                    return Answered::text(StatusCode::SERVICE_UNAVAILABLE, LEAVING);
                }
                let clock = protocol::Clock { received, answered: self.clock.wall() };
                Answered::binary(protocol::encode(&clock))
            }
            (&Method::GET, "/v1/hello") if self.leaving.load(Relaxed) => {
                Answered::text(StatusCode::SERVICE_UNAVAILABLE, LEAVING)
            }
            (&Method::GET, "/v1/hello") => {
                let hello = Hello {
                    open_files_max: self.identity.open_files_max,
                    protocol: protocol::VERSION,
                    omb: self.identity.omb.clone(),
                    instance: self.identity.instance.clone(),
                    controller: lock(&self.status).obeys.as_ref().map(|(_, controller, _)| controller.clone()),
                };
                let body = serde_json::to_vec(&hello).expect("texts and numbers become JSON");
                Answered { status: StatusCode::OK, content_type: "application/json", body: body.into() }
            }
            (&Method::GET | &Method::HEAD, path) => self.page(path),
            (_, "/v1/command" | "/v1/clock" | "/v1/hello") => {
                Answered::text(StatusCode::METHOD_NOT_ALLOWED, "another method is wanted here")
            }
            _ => Answered::text(StatusCode::NOT_FOUND, "nothing is here"),
        }
    }

    /// Whoever lacks the token gets nothing, but whether somebody is there at all.
    fn refuse(&self, asked: &Asked) -> Option<Answered> {
        let token = self.identity.token.as_ref()?;
        if asked.token.as_deref().is_some_and(|given| same(given, token.as_bytes()))
            || matches!(asked.path.as_str(), "/healthz" | "/readyz")
        {
            return None;
        }
        let text = if asked.token.is_some() { "this is not the token" } else { "a bearer token is wanted here" };
        Some(Answered::text(StatusCode::UNAUTHORIZED, text))
    }

    fn page(&self, path: &str) -> Answered {
        let status = lock(&self.status).clone();
        let page = self.pages.get(path, &status);
        page.unwrap_or_else(|| Answered::text(StatusCode::NOT_FOUND, "nothing is here"))
    }

    /// What whoever may only look gets.
    fn look(&self, asked: &Asked) -> Answered {
        match self.refuse(asked) {
            Some(refused) => refused,
            None if [Method::GET, Method::HEAD].contains(&asked.method) => self.page(&asked.path),
            None => Answered::text(StatusCode::METHOD_NOT_ALLOWED, "here one can only look"),
        }
    }

    async fn command(&self, body: &[u8]) -> Answered {
        let request = match protocol::decode_request(body) {
            Ok(request) => request,
            Err(error @ protocol::DecodeError::OtherVersion(_)) => {
                let text = format!("{error}; this worker is omb {}", self.identity.omb);
                return Answered::text(StatusCode::CONFLICT, &text);
            }
            Err(error) => return Answered::text(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let (answer, answered) = oneshot::channel();
        lock(&self.waiting).entry((request.run, request.number)).or_default().push(answer);
        if self.inputs.send(worker::Input::Command(request)).is_err() {
            return Answered::text(StatusCode::SERVICE_UNAVAILABLE, "this worker has shut down");
        }
        match answered.await {
            Ok(body) => Answered::binary(body),
            Err(_) => Answered::text(StatusCode::SERVICE_UNAVAILABLE, "this worker has shut down"),
        }
    }

    /// Tells everybody who waits for it.
    fn answer(&self, response: &Response) {
        lock(&self.status).commands_answered += 1;
        let Some(waiting) = lock(&self.waiting).remove(&(response.run, response.number)) else { return };
        let mut body = Bytes::from(protocol::encode(response));
        if body.len() > protocol::BODY_MAX {
            let text =
                format!("its answer of {} bytes is more than the {} that one may have", body.len(), protocol::BODY_MAX);
            let failure = protocol::Failure::new(protocol::FailureKind::Broken, text);
            body = protocol::encode(&Response { outcome: Err(failure), ..response.clone() }).into();
        }
        for answer in waiting {
            // Whoever gave up asks again, or does not care.
            let _ = answer.send(body.clone());
        }
    }
}

/// Whether two secrets are the same, in a time that tells nothing about where they differ.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let differs = given.iter().zip(wanted).fold(0, |differs, (a, b)| differs | (a ^ b));
    given.len() == wanted.len() && differs == 0
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
