//! Incoming connections: messages of peers, and requests with their bodies, which bypass the machine.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering::Relaxed},
};

use omb_cluster::{
    admission::Slot,
    handshake::Refusal,
    node::{
        ClientId, Input, RelayFailure, Stranger,
        message::{Envelope, Order, Reply, Request},
    },
    peer::{Hashing, NodeId, RequestId},
    store::{self, Failure, Kind, Loss, Name, Step, Stored},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use super::{
    Disk,
    body::{Body, Side},
    disk::failed,
    greeting::{self, Guest, Unmet},
    links,
    nodes::word,
    server::{Action, Server},
    slots::InFlight,
    wire::{self, Announces as _, Line, SMALL_MAX, Word},
};
use crate::portable::fleet::{Listener, Transport};

/// Accepts connections for as long as the listener exists.
pub(super) async fn accept<L, T, D>(mut listener: L, server: Arc<Server<T, D>>)
where
    L: Listener,
    T: Transport + Sync,
    D: Disk,
{
    // A failed accept (out of descriptors) is no reason to refuse the next connection.
    loop {
        let Ok((opening, from)) = listener.accept().await else {
            tokio::time::sleep(server.limits.pause.0).await;
            continue;
        };
        let Some(permit) = Permit::take(&server, Slot::Stranger(from.ip())) else {
            tracing::debug!("{from} is turned away: too many connections are greeting");
            continue;
        };
        tokio::spawn(async move {
            let server = permit.server.clone();
            let met = timeout(server.limits.connect, async {
                let mut line = wire::line(opening.await.map_err(|error| (None, Unmet::opening(error)))?);
                let guest = greeting::receive::<L, T, D>(&mut line, from.ip(), &server).await?;
                Ok((line, guest))
            });
            match met.await {
                // The side that breaks it later knows why.
                Ok(Ok((line, guest))) => _ = admitted(line, guest, from, permit).await,
                Ok(Err((node, Unmet::Refused(refusal)))) => turn_away(&server, from, node, refusal),
                Ok(Err((_, Unmet::Broken(error)))) => {
                    tracing::debug!("{from} breaks off before it has greeted: {error}")
                }
                Err(_) => tracing::debug!("{from} does not greet in time"),
            }
        });
    }
}

/// Logs it, unless there is more important work: strangers wait behind clients.
fn turn_away<T: Transport, D>(server: &Server<T, D>, from: SocketAddr, node: Option<NodeId>, refusal: Refusal) {
    tracing::debug!("{from} is refused: {refusal}");
    if refusal != Refusal::Stranger {
        let stranger = Stranger::From(from.ip(), node);
        let _ = server.inputs.requests.try_send(Input::TurnedAway { stranger, refusal });
    }
}

/// A slot for a connection, freed when this is dropped.
struct Permit<T: Transport, D> {
    server: Arc<Server<T, D>>,
    slot: Slot,
}

impl<T: Transport, D> Permit<T, D> {
    fn take(server: &Arc<Server<T, D>>, slot: Slot) -> Option<Self> {
        server.door().enter(slot).then(|| Self { server: server.clone(), slot })
    }
}

impl<T: Transport, D> Drop for Permit<T, D> {
    fn drop(&mut self) {
        self.server.door().leave(self.slot);
    }
}

/// A question to a node.
#[derive(Clone, Debug)]
enum Asked {
    /// By a client.
    Request(Request),
    /// By a peer.
    Order(NodeId, Order),
}

impl Asked {
    /// Reads what this guest may ask; `None` is a keep-alive frame.
    async fn read(guest: Guest, from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        Ok(match guest {
            Guest::Client => wire::read_frame(from).await?.map(Self::Request),
            Guest::Order(peer) => wire::read_frame(from).await?.map(|order| Self::Order(peer, order)),
            Guest::Peer(_) => return Err(wire::invalid("a peer's connection carries no requests")),
        })
    }

    fn announced(&self) -> u64 {
        match self {
            Self::Request(request) => request.announced(),
            Self::Order(_, order) => order.announced(),
        }
    }

    fn sent_along(&self) -> u64 {
        match self {
            Self::Request(request) => request.sent_along(),
            Self::Order(_, order) => order.sent_along(),
        }
    }
}

/// Serves a connection that has proven what it must.
async fn admitted<S, T, D>(mut line: Line<S>, guest: Guest, from: SocketAddr, permit: Permit<T, D>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: Transport + Sync,
    D: Disk,
{
    let server = permit.server.clone();
    let slot = match guest {
        Guest::Peer(peer) => Slot::Peer(peer, from.ip()),
        // A node may have as many orders in flight as it has clients.
        Guest::Client | Guest::Order(_) => Slot::Client(from.ip()),
    };
    let Some(_permit) = Permit::take(&server, slot) else {
        tracing::debug!("{from} is turned away: too many connections");
        if !matches!(guest, Guest::Peer(_)) {
            // As the answer to its first request, or it would not be read.
            let refuse = async {
                if let Some(asked) = Asked::read(guest, &mut line).await? {
                    refuse_for_now(&mut line, asked.sent_along(), &server).await?;
                }
                io::Result::Ok(())
            };
            timeout(server.limits.connect, refuse).await??;
        }
        return Ok(());
    };
    drop(permit);
    if let Guest::Peer(peer) | Guest::Order(peer) = guest
        && server.inputs.peers.send(Input::Speaks { peer, from: from.ip() }).await.is_err()
    {
        return Ok(());
    }
    if let Guest::Peer(peer) = guest {
        return hear(line, peer, &server).await;
    }
    loop {
        let next = timeout(server.limits.idle, Asked::read(guest, &mut line)).await??;
        if let Some(asked) = next
            && !answer(&mut line, asked, from.ip(), &server).await?
        {
            return Ok(());
        }
    }
}

/// Answers a request that there is no slot for, with which this many bytes were sent. Returns whether another may
/// follow.
async fn refuse_for_now<S, T, D>(line: &mut Line<S>, sent_along: u64, server: &Server<T, D>) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Transport,
{
    let reason = format!("{} is busy", server.me);
    say(line, &Word::Reply(Reply::Retry { reason, excluded: None, leader: None }), server).await?;
    skip(line, sent_along, None, server).await
}

/// Hands over a peer's messages, and confirms them.
async fn hear<S, T, D>(mut line: Line<S>, peer: NodeId, server: &Server<T, D>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Transport,
{
    let mut heard = 0;
    loop {
        let next = timeout(server.limits.idle, wire::read_frame::<Envelope>(&mut line)).await??;
        heard += 1;
        if let Some(envelope) = next {
            if envelope.from != peer {
                return Err(wire::invalid("it speaks for another node"));
            }
            // If the machine does not keep up this waits, and so does the peer for its confirmation.
            if server.inputs.peers.send(Input::Received(envelope)).await.is_err() {
                return Ok(());
            }
        }
        // Messages that arrive together are confirmed together.
        if line.buffer().is_empty() || heard == links::CONFIRM {
            let confirm = async {
                line.write_all(&[1; links::CONFIRM][..heard]).await?;
                line.flush().await
            };
            timeout(server.limits.idle, confirm).await??;
            heard = 0;
        }
    }
}

/// One request, or order, from its arrival to its answer. Returns whether another may follow.
async fn answer<S, T, D>(line: &mut Line<S>, asked: Asked, from: IpAddr, server: &Server<T, D>) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: Transport + Sync,
    D: Disk,
{
    let (bytes, mut untaken) = (asked.announced(), asked.sent_along());
    let from = matches!(asked, Asked::Request(_)).then_some(from);
    let Some(in_flight) = server.slots.begin(from) else {
        return refuse_for_now(line, untaken, server).await;
    };
    let client = ClientId(server.numbers.fetch_add(1, Relaxed));
    let (to_me, mut actions) = mpsc::unbounded_channel();
    server.clients().insert(client, to_me);
    let input = match asked {
        Asked::Request(request) => Input::Request { client, request },
        Asked::Order(from, order) => Input::Order { client, from, order },
    };
    if server.inputs.requests.send(input).await.is_err() {
        return Ok(false);
    }
    while let Some(action) = actions.recv().await {
        match action {
            Action::Answer(reply) => in_flight.client(say(line, &Word::Reply(reply), server)).await?,
            Action::Relay { to, order } => {
                untaken = 0;
                let outcome = relay(line, to, &order, bytes, &in_flight, server).await;
                let broken = matches!(outcome, Err(RelayFailure::Client(_)));
                let _ = server.inputs.own.send(Input::Relayed { client, outcome });
                if broken {
                    return Ok(false);
                }
                continue;
            }
            Action::Store { id } => {
                let input = store(line, id, bytes, &mut untaken, &in_flight, server).await;
                let broken = matches!(&input, store::Input::Failed { failure: Failure::Body(_), .. });
                let _ = server.inputs.own.send(Input::Disk(input));
                if broken {
                    return Ok(false);
                }
                continue;
            }
            Action::SendFile(file) => send_file(line, file, &in_flight, server).await?,
            Action::Fetch { from, name } => fetch(line, from, name, &in_flight, server).await?,
        }
        return skip(line, untaken, Some(&in_flight), server).await;
    }
    Ok(false)
}

/// Reads past an unread body, so that the next request is found after it.
async fn skip<S, T: Transport, D>(
    line: &mut Line<S>,
    untaken: u64,
    in_flight: Option<&InFlight<'_>>,
    server: &Server<T, D>,
) -> io::Result<bool>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut body = Body::new(untaken);
    while body.next(line, in_flight, &server.limits).await?.is_some() {}
    Ok(true)
}

async fn say<T: Transport, D>(
    to: &mut (impl AsyncWrite + Unpin),
    word: &Word,
    server: &Server<T, D>,
) -> io::Result<()> {
    timeout(server.limits.idle, wire::write_frame(to, word)).await?
}

/// Streams a body into its temporary file. If the disk fails the rest of the body is still read, so that the client
/// reads the answer.
async fn store<S, T, D>(
    line: &mut Line<S>,
    id: RequestId,
    bytes: u64,
    untaken: &mut u64,
    in_flight: &InFlight<'_>,
    server: &Server<T, D>,
) -> store::Input
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: Transport,
    D: Disk,
{
    let step = Step::Write(id);
    let mut file = match server.disk.create(id).await {
        Ok(file) => file,
        Err(error) => return failed(step, &error),
    };
    *untaken = 0;
    let broken =
        |error: io::Error| store::Input::Failed { step: Step::Write(id), failure: Failure::Body(error.to_string()) };
    if bytes > SMALL_MAX
        && let Err(error) = in_flight.client(say(line, &Word::Go, server)).await
    {
        return broken(error);
    }
    let (mut body, mut hashing, mut head, mut trouble) = (Body::new(bytes), Hashing::default(), Vec::new(), None);
    loop {
        let bytes = match body.next(line, Some(in_flight), &server.limits).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(error) => return broken(error),
        };
        head.extend(bytes.iter().take(Kind::HEAD_BYTES - head.len().min(Kind::HEAD_BYTES)));
        hashing.update(bytes);
        if trouble.is_none() {
            trouble = file.write_all(bytes).await.err();
        }
    }
    if trouble.is_none() {
        trouble = file.shutdown().await.err();
    }
    match trouble {
        Some(error) => failed(step, &error),
        None => store::Input::Written { id, bytes, digest: hashing.finish(), kind: Kind::of(&head) },
    }
}

/// Streams a body to the node that is to store it. Small ones are read first, and then sent with the request.
async fn relay<S, T, D>(
    line: &mut Line<S>,
    to: NodeId,
    order: &Order,
    bytes: u64,
    in_flight: &InFlight<'_>,
    server: &Server<T, D>,
) -> Result<Reply, RelayFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: Transport + Sync,
{
    let limits = &server.limits;
    let node = |error: io::Error| RelayFailure::Node(error.to_string());
    let client = |error: io::Error| RelayFailure::Client(error.to_string());
    let is_small = bytes <= SMALL_MAX;
    let small =
        Body::new(if is_small { bytes } else { 0 }).whole(line, Some(in_flight), limits).await.map_err(client)?;
    let sent = server.nodes.send(to, order, &small).await;
    let mut other = sent.map_err(|failure| RelayFailure::Node(failure.to_string()))?;
    let mut answer = word::<T>(&mut other, limits).await.map_err(node)?;
    if answer == Word::Go && !is_small {
        in_flight.client(say(line, &Word::Go, server)).await.map_err(client)?;
        let (mut body, mut trouble) = (Body::new(bytes), None);
        while let Some(bytes) = body.next(line, Some(in_flight), limits).await.map_err(client)? {
            if trouble.is_none() {
                trouble = match timeout(limits.idle, other.write_all(bytes)).await {
                    Ok(written) => written.err(),
                    Err(error) => Some(error.into()),
                };
            }
        }
        if let Some(error) = trouble {
            return Err(node(error));
        }
        timeout(limits.idle, other.flush()).await.map_err(|error| node(error.into()))?.map_err(node)?;
        answer = word::<T>(&mut other, limits).await.map_err(node)?;
    }
    let Word::Reply(reply) = answer else {
        return Err(node(wire::invalid("it asks for a body that was already sent")));
    };
    server.nodes.keep(to, other);
    Ok(reply)
}

async fn send_file<S, T, D>(
    line: &mut Line<S>,
    file: Stored,
    in_flight: &InFlight<'_>,
    server: &Server<T, D>,
) -> io::Result<()>
where
    S: AsyncWrite + AsyncRead + Unpin,
    T: Transport,
    D: Disk,
{
    let unreadable = |loss| _ = server.inputs.own.send(Input::Disk(store::Input::Unreadable { name: file.name, loss }));
    let mut reading = match server.disk.open(file.name).await {
        Ok(reading) => reading,
        Err(error) => {
            match error.kind() {
                io::ErrorKind::NotFound => unreadable(Loss::Gone),
                io::ErrorKind::InvalidInput => unreadable(Loss::Damaged),
                // Out of descriptors, perhaps.
                _ => {}
            }
            // A client that retries gets what this node knows by then, or the copy of another holder.
            let reason = format!("{} cannot read it: {error}", server.me);
            let word = Word::Reply(Reply::Retry { reason, excluded: None, leader: None });
            return in_flight.client(say(line, &word, server)).await;
        }
    };
    wire::put_frame(line, &Word::Reply(Reply::Body(file))).await?;
    let mut hashing = Hashing::default();
    let look = |bytes: &[u8]| hashing.update(bytes);
    let copied = Body::new(file.bytes).copy(&mut reading, line, Some(in_flight), &server.limits, look).await;
    let damaged = match &copied {
        Ok(()) => hashing.finish() != file.name.digest,
        // The file has become shorter.
        Err(Side::From(error)) => error.kind() == io::ErrorKind::UnexpectedEof,
        Err(Side::To(_)) => false,
    };
    if damaged {
        unreadable(Loss::Damaged);
    }
    Ok(copied?)
}

async fn fetch<S, T, D>(
    line: &mut Line<S>,
    from: NodeId,
    name: Name,
    in_flight: &InFlight<'_>,
    server: &Server<T, D>,
) -> io::Result<()>
where
    S: AsyncWrite + AsyncRead + Unpin + Send,
    T: Transport + Sync,
{
    let limits = &server.limits;
    let failure = match server.nodes.send(from, &Order::Send { name }, &[]).await {
        Ok(mut other) => match word::<T>(&mut other, limits).await {
            Ok(Word::Reply(reply)) => {
                wire::put_frame(line, &Word::Reply(reply.clone())).await?;
                let bytes = if let Reply::Body(file) = reply { file.bytes } else { 0 };
                Body::new(bytes).copy(&mut other, line, Some(in_flight), limits, |_| {}).await?;
                server.nodes.keep(from, other);
                return Ok(());
            }
            Ok(Word::Go) => "it asks for a body".to_owned(),
            Err(error) => error.to_string(),
        },
        Err(failure) => failure.to_string(),
    };
    let reason = format!("{from} holds it and did not send it: {failure}");
    let word = Word::Reply(Reply::Retry { reason, excluded: None, leader: None });
    in_flight.client(say(line, &word, server)).await
}
