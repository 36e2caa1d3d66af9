//! The client's side: one request, tried at node after node.

use std::{future::Future, io, ops::ControlFlow};

use omb_cluster::{
    client::{self, Client, Failure, GaveUp, Output, Patience},
    node::message::{Reply, Request},
    peer::{Hashing, NodeId},
    store::Stored,
};
use omb_machine::seed::Seed;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use super::{
    body::{Body, Side},
    nodes::{self, Nodes, word},
    wire::{self, Announces as _, SMALL_MAX, Word},
};
use crate::portable::{
    event_loop::{self, Clock},
    fleet::Transport,
};

/// Source and destination of bodies. Opened anew for each try.
pub trait Cargo: Clone + Send + Sync + 'static {
    /// The body of an upload.
    type Source: AsyncRead + Unpin + Send;
    /// Where a fetched upload goes.
    type Sink: AsyncWrite + Unpin + Send;
    /// Opens what is uploaded.
    fn source(&self) -> impl Future<Output = io::Result<Self::Source>> + Send;
    /// Opens, emptied, where a fetched upload goes.
    fn sink(&self, stored: &Stored) -> impl Future<Output = io::Result<Self::Sink>> + Send;
}

/// Asks until there is an answer, or the client's patience is exhausted. `log` gets the reason whenever it takes
/// longer.
///
/// # Errors
/// If the patience is exhausted, a node refused the request for good, or no node accepts this client.
///
/// # Panics
/// Without any node.
pub async fn ask<T, C>(
    nodes: &Nodes<T>,
    request: Request,
    cargo: C,
    (patience, seed): (Patience, Seed),
    mut log: impl FnMut(String),
    clock: &impl Clock,
) -> Result<Reply, GaveUp>
where
    T: Transport + Sync,
    C: Cargo,
{
    // Large bodies do not all pass through one node: the node that they enter by relays them.
    let first = nodes.leader().filter(|_| request.sent_along() > 0);
    let mut machine = Client::new(first, clock.now(), nodes.ids().collect(), request, patience, seed);
    let (to_machine, mut inputs) = mpsc::unbounded_channel();
    let mut trying: Option<tokio::task::JoinHandle<()>> = None;
    let mut finished = None;
    let perform = |output| {
        match output {
            Output::Try { number, node, request } => {
                if let Some(former) = trying.take() {
                    former.abort();
                }
                let (nodes, cargo, inputs) = (nodes.clone(), cargo.clone(), to_machine.clone());
                trying = Some(tokio::spawn(async move {
                    let outcome = attempt(&nodes, node, &request, &cargo).await;
                    nodes.learn(node, &outcome);
                    let input = match outcome {
                        Ok(reply) => client::Input::Answered { number, reply },
                        Err(failure) => client::Input::Failed { number, failure },
                    };
                    let _ = inputs.send(input);
                }));
            }
            Output::Info(line) => log(line),
            Output::Finished(outcome) => {
                finished = Some(outcome);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    };
    event_loop::run(&mut machine, &mut inputs, perform, |_, _| {}, clock).await;
    if let Some(last) = trying {
        last.abort();
    }
    finished.expect("a client's inputs last until it has finished")
}

/// One try.
async fn attempt<T: Transport, C: Cargo>(
    nodes: &Nodes<T>,
    node: NodeId,
    request: &Request,
    cargo: &C,
) -> Result<Reply, Failure> {
    let limits = nodes.limits();
    let broken = |error: io::Error| Failure::BrokenOff(error.to_string());
    let own = |error: io::Error| Failure::Own(error.to_string());
    let small = match request.sent_along() {
        0 => Vec::new(),
        bytes => {
            let mut source = cargo.source().await.map_err(own)?;
            Body::new(bytes).whole(&mut source, None, limits).await.map_err(own)?
        }
    };
    let mut line = nodes.send(node, request, &small).await?;
    let mut word = word::<T>(&mut line, limits).await.map_err(broken)?;
    let bytes = request.announced();
    if word == Word::Go && bytes > SMALL_MAX {
        let mut source = cargo.source().await.map_err(own)?;
        Body::new(bytes).copy(&mut source, &mut line, None, limits, |_| {}).await.map_err(|side| match side {
            Side::From(error) => own(error),
            Side::To(error) => broken(error),
        })?;
        word = nodes::word::<T>(&mut line, limits).await.map_err(broken)?;
    }
    let Word::Reply(reply) = word else {
        return Err(broken(wire::invalid("it asks for a body that was already sent, or that does not exist")));
    };
    if let Reply::Body(stored) = &reply {
        let mut sink = cargo.sink(stored).await.map_err(own)?;
        let mut hashing = Hashing::default();
        let body = Body::new(stored.bytes);
        body.copy(&mut line, &mut sink, None, limits, |bytes| hashing.update(bytes)).await.map_err(
            |side| match side {
                Side::From(error) => broken(error),
                Side::To(error) => own(error),
            },
        )?;
        sink.shutdown().await.map_err(own)?;
        if hashing.finish() != stored.name.digest {
            return Err(Failure::Damaged("the received body is not what was stored".to_owned()));
        }
    }
    nodes.keep(node, line);
    Ok(reply)
}
