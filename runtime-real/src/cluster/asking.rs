//! The client's side: one request, tried at node after node.

use std::{collections::BTreeMap, future::Future, io, ops::ControlFlow};

use omb_core::{
    client::{self, Client, Failure, GaveUp, Output, Patience},
    node::message::{Reply, Request, VERSION},
    peer::{Hashing, NodeId},
    seed::Seed,
    store::Stored,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use super::{
    CHUNK, Limits,
    wire::{self, Greeting, Word},
};
use crate::{
    event_loop::{self, Clock},
    fleet::{Address, Transport},
};

/// Where bodies come from, and go to. Opened anew for each try.
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

/// Connects to a node as a client, and greets it. The caller bounds the time.
///
/// # Errors
/// If nobody is there, somebody else is, or it speaks another version.
pub async fn open<T: Transport>(transport: &T, node: NodeId, to: &Address) -> io::Result<T::Stream> {
    let mut stream = transport.connect(to).await?;
    wire::greet(&mut stream, Greeting::of(None)).await?;
    let greeting = wire::read_greeting(&mut stream).await?;
    if greeting.version != VERSION {
        let theirs = greeting.version;
        return Err(wire::invalid(format!("it speaks version {theirs} of the protocol, this is version {VERSION}")));
    }
    if greeting.node != Some(node) {
        return Err(wire::invalid("another node listens there"));
    }
    Ok(stream)
}

/// The next word of a node.
pub(super) async fn word(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Word> {
    loop {
        if let Some(word) = wire::read_frame(from).await? {
            return Ok(word);
        }
    }
}

/// Asks until there is an answer, or the client's patience is at its end. `told` hears why it takes longer.
pub async fn ask<T, C>(
    transport: T,
    addresses: BTreeMap<NodeId, Address>,
    request: Request,
    cargo: C,
    (patience, limits, seed): (Patience, Limits, Seed),
    mut told: impl FnMut(String),
    clock: &impl Clock,
) -> Result<Reply, GaveUp>
where
    T: Transport + Sync,
    C: Cargo,
{
    let mut machine = Client::new(clock.now(), addresses.keys().copied().collect(), request, patience, seed);
    let (to_machine, mut inputs) = mpsc::unbounded_channel();
    let mut trying: Option<tokio::task::JoinHandle<()>> = None;
    let mut finished = None;
    let perform = |output| {
        match output {
            Output::Try { number, node, request } => {
                if let Some(former) = trying.take() {
                    former.abort();
                }
                let (transport, cargo, inputs) = (transport.clone(), cargo.clone(), to_machine.clone());
                let to = addresses[&node].clone();
                trying = Some(tokio::spawn(async move {
                    let input = match attempt(&transport, node, &to, &request, &cargo, limits).await {
                        Ok(reply) => client::Input::Answered { number, reply },
                        Err(failure) => client::Input::Failed { number, failure },
                    };
                    let _ = inputs.send(input);
                }));
            }
            Output::Told(line) => told(line),
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
    transport: &T,
    node: NodeId,
    to: &Address,
    request: &Request,
    cargo: &C,
    limits: Limits,
) -> Result<Reply, Failure> {
    let unsent = |error: io::Error| Failure::NotSent(error.to_string());
    let broken = |error: io::Error| Failure::BrokenOff(error.to_string());
    let opening = timeout(limits.connect, open(transport, node, to)).await;
    let mut stream = opening.map_err(|error| unsent(error.into()))?.map_err(unsent)?;
    let own = |error: io::Error| Failure::Own(error.to_string());
    let reply = async |stream: &mut T::Stream| timeout(limits.reply, word(stream)).await?;
    let sent = timeout(limits.idle, wire::write_frame(&mut stream, request)).await;
    sent.map_err(|error| broken(error.into()))?.map_err(broken)?;
    let mut answer = reply(&mut stream).await.map_err(broken)?;
    if let (Word::Go, Request::Put(put)) = (&answer, request) {
        let mut source = cargo.source().await.map_err(own)?;
        copy(&mut source, &mut stream, put.bytes, limits).await.map_err(|failed| match failed {
            Side::From(error) => own(error),
            Side::To(error) => broken(error),
        })?;
        answer = reply(&mut stream).await.map_err(broken)?;
    }
    let Word::Reply(reply) = answer else { return Err(broken(wire::invalid("it asks for the body twice"))) };
    if let Reply::Body(stored) = &reply {
        let mut sink = cargo.sink(stored).await.map_err(own)?;
        let digest = copy(&mut stream, &mut sink, stored.bytes, limits).await.map_err(|failed| match failed {
            Side::From(error) => broken(error),
            Side::To(error) => own(error),
        })?;
        sink.shutdown().await.map_err(own)?;
        if digest.finish() != stored.name.digest {
            return Err(Failure::BrokenOff("what came is not what was stored".to_owned()));
        }
    }
    Ok(reply)
}

/// Which end of a copy failed.
enum Side {
    From(io::Error),
    To(io::Error),
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    bytes: u64,
    limits: Limits,
) -> Result<Hashing, Side> {
    let late = |elapsed: tokio::time::error::Elapsed| io::Error::from(elapsed);
    let mut buffer = vec![0; usize::try_from(bytes).map_or(CHUNK, |bytes| bytes.min(CHUNK))];
    let (mut left, mut hashing) = (bytes, Hashing::default());
    while left > 0 {
        let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let read = timeout(limits.idle, from.read(&mut buffer[..most])).await;
        let count = read.map_err(late).flatten().map_err(Side::From)?;
        if count == 0 {
            let missing = format!("{left} of {bytes} bytes are missing");
            return Err(Side::From(io::Error::new(io::ErrorKind::UnexpectedEof, missing)));
        }
        hashing.update(&buffer[..count]);
        let written = timeout(limits.idle, to.write_all(&buffer[..count])).await;
        written.map_err(late).flatten().map_err(Side::To)?;
        left -= count as u64;
    }
    timeout(limits.idle, to.flush()).await.map_err(late).flatten().map_err(Side::To)?;
    Ok(hashing)
}
