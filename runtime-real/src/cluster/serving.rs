//! What comes in: peers that speak, and requests with their bodies, which stream past the machine.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use omb_core::{
    node::{
        ClientId, Input, RelayFailure,
        message::{Envelope, Reply, Request, VERSION},
    },
    peer::{Hashing, NodeId, RequestId},
    store::{self, Failure, Kind, Name, Step, Stored},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::timeout,
};

use super::{
    CHUNK, Disk, asking,
    disk::failed,
    node::House,
    wire::{self, Greeting, Word},
};
use crate::fleet::{Listener, Transport};

/// What a request's connection is to do.
#[derive(Debug)]
pub(super) enum Errand {
    /// Answer.
    Answer(Reply),
    /// Stream the body to another node.
    Relay { to: NodeId, request: Request },
    /// Stream the body into its temporary file.
    Store { id: RequestId },
    /// Answer with a stored upload.
    SendFile(Stored),
    /// Answer with what another node holds.
    Fetch { from: NodeId, name: Name },
}

impl Errand {
    /// Whether the request is over with it.
    pub(super) fn is_last(&self) -> bool {
        matches!(self, Self::Answer(_) | Self::SendFile(_) | Self::Fetch { .. })
    }
}

/// Takes connections in for as long as the listener lasts.
pub(super) async fn accept<L, T, D>(mut listener: L, house: Arc<House<T, D>>)
where
    L: Listener,
    T: Transport + Sync,
    D: Disk,
{
    let open = Arc::new(AtomicUsize::new(0));
    // One that fails to come in (out of descriptors) is no reason to turn away the next.
    loop {
        let Ok((opening, _)) = listener.accept().await else {
            tokio::time::sleep(house.limits.pause.0).await;
            continue;
        };
        if open.fetch_add(1, Relaxed) >= house.limits.connections {
            open.fetch_sub(1, Relaxed);
            continue;
        }
        let (house, open) = (house.clone(), Seat(open.clone()));
        tokio::spawn(async move {
            let _open = open;
            if let Ok(Ok(stream)) = timeout(house.limits.connect, opening).await {
                // Who broke it knows.
                let _ = connection(stream, &house).await;
            }
        });
    }
}

/// A place among the connections, free again when it is dropped.
struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn connection<S, T, D>(mut stream: S, house: &House<T, D>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: Transport + Sync,
    D: Disk,
{
    let greeting = timeout(house.limits.connect, async {
        let greeting = wire::read_greeting(&mut stream).await?;
        wire::greet(&mut stream, Greeting::of(Some(house.me))).await?;
        io::Result::Ok(greeting)
    });
    let greeting = greeting.await??;
    match greeting.node {
        Some(peer) if greeting.version != VERSION => {
            let _ = house.inputs.send(Input::OtherVersion { peer, version: greeting.version });
            Ok(())
        }
        None if greeting.version != VERSION => Ok(()),
        Some(peer) => hear(stream, peer, house).await,
        None => loop {
            let next = timeout(house.limits.idle, wire::read_frame(&mut stream)).await??;
            if let Some(request) = next {
                answer(&mut stream, request, house).await?;
            }
        },
    }
}

/// Hands over what a peer says, and confirms it.
async fn hear<S, T, D>(mut stream: S, peer: NodeId, house: &House<T, D>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let next = timeout(house.limits.idle, wire::read_frame::<Envelope>(&mut stream)).await??;
        if let Some(envelope) = next {
            if envelope.from != peer {
                return Err(wire::invalid("it speaks for another node"));
            }
            if house.inputs.send(Input::Received(envelope)).is_err() {
                return Ok(());
            }
        }
        let confirm = async {
            stream.write_all(&[1]).await?;
            stream.flush().await
        };
        timeout(house.limits.idle, confirm).await??;
    }
}

/// One request from its arrival to its answer.
async fn answer<S, T, D>(stream: &mut S, request: Request, house: &House<T, D>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: Transport + Sync,
    D: Disk,
{
    let client = ClientId(house.numbers.fetch_add(1, Relaxed));
    let announced = match &request {
        Request::Put(put) | Request::Store { put, .. } => put.bytes,
        _ => 0,
    };
    let (to_me, mut errands) = mpsc::unbounded_channel();
    house.clients().insert(client, to_me);
    if house.inputs.send(Input::Request { client, request }).is_err() {
        return Ok(());
    }
    while let Some(errand) = errands.recv().await {
        match errand {
            Errand::Answer(reply) => return say(stream, &Word::Reply(reply), house).await,
            Errand::Relay { to, request } => {
                let outcome = relay(stream, to, &request, announced, house).await;
                let broken = matches!(outcome, Err(RelayFailure::Client(_)));
                let _ = house.inputs.send(Input::Relayed { client, outcome });
                if broken {
                    return Ok(());
                }
            }
            Errand::Store { id } => {
                let input = store(stream, id, announced, house).await;
                let broken = matches!(&input, store::Input::Failed { failure: Failure::Body(_), .. });
                let _ = house.inputs.send(Input::Disk(input));
                if broken {
                    return Ok(());
                }
            }
            Errand::SendFile(file) => return send_file(stream, file, house).await,
            Errand::Fetch { from, name } => return fetch(stream, from, name, house).await,
        }
    }
    Ok(())
}

async fn say<T, D>(stream: &mut (impl AsyncWrite + Unpin), word: &Word, house: &House<T, D>) -> io::Result<()> {
    timeout(house.limits.idle, wire::write_frame(stream, word)).await?
}

/// The next bytes of a body, `left` of which are still to come.
async fn chunk<'a, T, D>(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &'a mut [u8],
    left: u64,
    house: &House<T, D>,
) -> io::Result<&'a [u8]> {
    let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
    let count = timeout(house.limits.idle, stream.read(&mut buffer[..most])).await??;
    if count == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{left} bytes are missing")));
    }
    Ok(&buffer[..count])
}

/// A buffer for a body of this size.
fn buffer(bytes: u64) -> Vec<u8> {
    vec![0; usize::try_from(bytes).map_or(CHUNK, |bytes| bytes.min(CHUNK))]
}

/// Streams a body into its temporary file. Where the disk fails the rest of the body is read all the same, so that the
/// answer is heard.
async fn store<S, T, D>(stream: &mut S, id: RequestId, announced: u64, house: &House<T, D>) -> store::Input
where
    S: AsyncRead + AsyncWrite + Unpin,
    D: Disk,
{
    let step = Step::Write(id);
    let mut file = match house.disk.create(id).await {
        Ok(file) => file,
        Err(error) => return failed(step, &error),
    };
    let broken =
        |error: io::Error| store::Input::Failed { step: Step::Write(id), failure: Failure::Body(error.to_string()) };
    if let Err(error) = say(stream, &Word::Go, house).await {
        return broken(error);
    }
    let (mut buffer, mut left, mut hashing, mut head) = (buffer(announced), announced, Hashing::default(), Vec::new());
    let mut trouble = None;
    while left > 0 {
        let bytes = match chunk(stream, &mut buffer, left, house).await {
            Ok(bytes) => bytes,
            Err(error) => return broken(error),
        };
        left -= bytes.len() as u64;
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
        None => store::Input::Written { id, bytes: announced, digest: hashing.finish(), kind: Kind::of(&head) },
    }
}

/// Streams a body to the node that is to store it.
async fn relay<S, T, D>(
    stream: &mut S,
    to: NodeId,
    request: &Request,
    announced: u64,
    house: &House<T, D>,
) -> Result<Reply, RelayFailure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: Transport + Sync,
{
    let node = |error: io::Error| RelayFailure::Node(error.to_string());
    let client = |error: io::Error| RelayFailure::Client(error.to_string());
    let mut other = open(to, house).await.map_err(node)?;
    let asked = async {
        wire::write_frame(&mut other, request).await?;
        asking::word(&mut other).await
    };
    match timeout(house.limits.reply, asked).await.map_err(|error| node(error.into()))?.map_err(node)? {
        Word::Reply(reply) => return Ok(reply),
        Word::Go => {}
    }
    say(stream, &Word::Go, house).await.map_err(client)?;
    let (mut buffer, mut left, mut trouble) = (buffer(announced), announced, None);
    while left > 0 {
        let bytes = chunk(stream, &mut buffer, left, house).await.map_err(client)?;
        left -= bytes.len() as u64;
        if trouble.is_none() {
            trouble = match timeout(house.limits.idle, other.write_all(bytes)).await {
                Ok(written) => written.err(),
                Err(error) => Some(error.into()),
            };
        }
    }
    if let Some(error) = trouble {
        return Err(node(error));
    }
    let answered = async {
        other.flush().await?;
        asking::word(&mut other).await
    };
    match timeout(house.limits.reply, answered).await.map_err(|error| node(error.into()))?.map_err(node)? {
        Word::Reply(reply) => Ok(reply),
        Word::Go => Err(node(wire::invalid("it asks for the body twice"))),
    }
}

async fn open<T: Transport, D>(to: NodeId, house: &House<T, D>) -> io::Result<T::Stream> {
    let address = house.addresses.get(&to).ok_or_else(|| io::Error::other("it has no address"))?;
    timeout(house.limits.connect, asking::open(&house.transport, to, address)).await?
}

async fn send_file<S, T, D>(stream: &mut S, file: Stored, house: &House<T, D>) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
    D: Disk,
{
    let Ok(mut reading) = house.disk.open(file.name).await else {
        return say(stream, &Word::Reply(Reply::NotFound), house).await;
    };
    say(stream, &Word::Reply(Reply::Body(file)), house).await?;
    pass_on(&mut reading, stream, file.bytes, house).await
}

async fn fetch<S, T, D>(stream: &mut S, from: NodeId, name: Name, house: &House<T, D>) -> io::Result<()>
where
    S: AsyncWrite + Unpin + Send,
    T: Transport + Sync,
{
    let asked = async {
        let mut other = open(from, house).await?;
        wire::write_frame(&mut other, &Request::Get { name, here: true }).await?;
        let word = asking::word(&mut other).await?;
        io::Result::Ok((word, other))
    };
    let failure = match timeout(house.limits.reply, asked).await {
        Ok(Ok((Word::Reply(Reply::Body(file)), mut other))) => {
            say(stream, &Word::Reply(Reply::Body(file)), house).await?;
            return pass_on(&mut other, stream, file.bytes, house).await;
        }
        Ok(Ok((Word::Reply(reply), _))) => return say(stream, &Word::Reply(reply), house).await,
        Ok(Ok((Word::Go, _))) => "it asks for a body".to_owned(),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    let reason = format!("{from} holds it and did not send it: {failure}");
    say(stream, &Word::Reply(Reply::Retry { reason, excluded: None, leader: None }), house).await
}

/// Copies a body, as fast as it is taken.
async fn pass_on<T, D>(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    bytes: u64,
    house: &House<T, D>,
) -> io::Result<()> {
    let (mut buffer, mut left) = (buffer(bytes), bytes);
    while left > 0 {
        let bytes = chunk(from, &mut buffer, left, house).await?;
        left -= bytes.len() as u64;
        timeout(house.limits.idle, to.write_all(bytes)).await??;
    }
    timeout(house.limits.idle, to.flush()).await?
}
