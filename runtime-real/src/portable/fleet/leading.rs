//! The controller's side: identifies the workers, then carries its machine's requests to them and their answers back.

use std::{cell::RefCell, time::Duration};

use hyper::{Method, body::Bytes};
use omb_bench::{
    controller::{self, Controller, End, Trouble, TroubleKind},
    id::WorkerId,
    offset::Exchange,
    protocol::{self, Hello, Ping, Request},
};
use omb_machine::{encoding, printable::printable_within};
use tokio::{sync::mpsc, time::timeout};

use super::wire::Call;
use crate::portable::{
    event_loop::Clock,
    local::{Observer, control},
};

/// Longest that the answer to a clock query may take to be of use.
const CLOCK_WITHIN: Duration = Duration::from_secs(2);
/// Longest that the last messages to workers that were given up may take.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(500);

/// Requests a worker's identity.
///
/// # Errors
/// If there is no answer, or not that of a worker of this version.
pub async fn hello(link: &mut impl Call, within: Duration) -> Result<Hello, Trouble> {
    let body = link.call(Method::GET, "/v1/hello", Bytes::new(), within).await?;
    let refused = |cause| Trouble { kind: TroubleKind::Refused, cause };
    let hello: Hello = serde_json::from_slice(&body)
        .map_err(|_| refused("a web server that is no omb worker listens there".to_owned()))?;
    if hello.protocol != protocol::VERSION {
        return Err(refused(format!(
            "it is omb {} and speaks version {} of the protocol; this omb speaks version {}: run the same omb everywhere",
            printable_within(&hello.omb, 60),
            hello.protocol,
            protocol::VERSION
        )));
    }
    Ok(hello)
}

/// Links to a worker: commands are answered when they have been performed, the clock must be answered at once.
#[derive(Debug)]
pub struct Links<L> {
    /// For commands.
    pub commands: L,
    /// For the clock.
    pub clock: L,
}

/// Plays one run to its end over these workers, in the order of the plan. A message on `stop` ends it early.
pub async fn lead<L: Call, C: Clock + Clone + Send + Sync + 'static>(
    controller: Controller,
    workers: Vec<Links<L>>,
    observer: &mut impl Observer,
    stop: &mut mpsc::UnboundedReceiver<()>,
    clock: &C,
) -> End {
    let (inputs, received) = mpsc::unbounded_channel();
    let mut tasks = Vec::new();
    let mut links = Vec::new();
    for (worker, Links { commands, clock: pings }) in (0..).map(WorkerId).zip(workers) {
        let (requests, asked) = mpsc::unbounded_channel();
        tasks.push(tokio::spawn(carry(worker, commands, asked, inputs.clone())));
        let (ping, pinged) = mpsc::unbounded_channel();
        tasks.push(tokio::spawn(ask_clock(worker, pings, pinged, inputs.clone(), clock.clone())));
        links.push((requests, ping));
    }
    let observer = RefCell::new(observer);
    // A link lives as long as this loop.
    let carry = |output| match output {
        controller::Output::ToWorker { worker, request, within } => {
            let _ = links[worker.0 as usize].0.send((request, within));
        }
        controller::Output::Ping { worker, ping } => _ = links[worker.0 as usize].1.send(ping),
        _ => {}
    };
    let end = control(controller, (inputs, received), carry, &observer, stop, clock).await;
    drop(links);
    // A link ends when it has carried what it was given.
    let carried = async {
        for task in &mut tasks {
            let _ = task.await;
        }
    };
    let _ = timeout(LAST_WORDS_WITHIN, carried).await;
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    end
}

/// Carries requests to one worker. A newer one cancels the one before it, if that is not answered yet.
async fn carry(
    worker: WorkerId,
    mut link: impl Call,
    mut asked: mpsc::UnboundedReceiver<(Request, Duration)>,
    inputs: mpsc::UnboundedSender<controller::Input>,
) {
    let mut next = asked.recv().await;
    while let Some((request, within)) = next.take() {
        let number = request.number;
        let body = Bytes::from(encoding::encode(&request));
        let result = tokio::select! {
            biased;
            newer = asked.recv() => {
                next = newer;
                continue;
            }
            result = link.call(Method::POST, "/v1/command", body, within) => result,
        };
        let input = match result.and_then(|body| read(&body)) {
            Ok(response) => controller::Input::FromWorker { worker, response },
            Err(trouble) => controller::Input::CallFailed { worker, number, trouble },
        };
        if inputs.send(input).is_err() {
            return;
        }
        next = asked.recv().await;
    }
}

fn read(body: &[u8]) -> Result<protocol::Response, Trouble> {
    encoding::decode(body).map_err(|error| Trouble { kind: TroubleKind::Refused, cause: error.to_string() })
}

/// Queries one worker's clock on demand.
async fn ask_clock(
    worker: WorkerId,
    mut link: impl Call,
    mut wanted: mpsc::UnboundedReceiver<Ping>,
    inputs: mpsc::UnboundedSender<controller::Input>,
    clock: impl Clock,
) {
    while let Some(mut ping) = wanted.recv().await {
        // Of several queued meanwhile the last is enough.
        while let Ok(newer) = wanted.try_recv() {
            ping = newer;
        }
        let question = Bytes::from(encoding::encode(&ping));
        let sent = clock.now();
        let body = match link.call(Method::POST, "/v1/clock", question, CLOCK_WITHIN).await {
            Ok(body) => body,
            Err(Trouble { kind: TroubleKind::Leaving, cause }) => {
                if inputs.send(controller::Input::Leaving { worker, cause }).is_err() {
                    return;
                }
                continue;
            }
            Err(_) => continue,
        };
        let back = clock.now();
        let Ok(protocol::Clock { received, answered }) = encoding::decode(&body) else { continue };
        let exchange = Exchange { sent, received, answered, back };
        if inputs.send(controller::Input::Pong { worker, exchange }).is_err() {
            return;
        }
    }
}
