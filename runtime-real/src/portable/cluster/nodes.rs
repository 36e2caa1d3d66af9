//! The way to the nodes of a cluster, for whoever asks something: clients, and nodes that order something of each other.
//!
//! A connection over which a request came to its end is kept for the next one, for a while.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
};

use omb_cluster::{client::Failure, handshake::Part, node::message::Reply, peer::NodeId};
use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout},
};

use super::{
    Limits,
    greeting::{self, Secret, Unmet},
    wire::{self, Line, Word},
};
use crate::portable::fleet::{Address, Transport};

/// Where nodes listen, what they are shown, and connections to them that are idle. Clones share the connections.
#[derive(Clone)]
pub struct Nodes<T: Transport>(Arc<Shared<T>>);

struct Shared<T: Transport> {
    transport: T,
    addresses: BTreeMap<NodeId, Address>,
    limits: Limits,
    secret: Option<Secret>,
    /// The node that orders; `None` for a client.
    me: Option<NodeId>,
    /// The leader, as the last node that spoke of it named it.
    leader: Mutex<Option<NodeId>>,
    idle: Mutex<BTreeMap<NodeId, Vec<Idle<T::Stream>>>>,
}

struct Idle<S> {
    line: Line<S>,
    since: Instant,
}

impl<T: Transport> Nodes<T> {
    /// For a client. Nobody is connected to before something is asked.
    pub fn new(transport: T, addresses: BTreeMap<NodeId, Address>, limits: Limits, secret: Option<Secret>) -> Self {
        Self::of(None, transport, addresses, limits, secret)
    }

    /// For the orders of the node `me`.
    pub(super) fn of(
        me: Option<NodeId>,
        transport: T,
        addresses: BTreeMap<NodeId, Address>,
        limits: Limits,
        secret: Option<Secret>,
    ) -> Self {
        let (leader, idle) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Shared { transport, addresses, limits, secret, me, leader, idle }))
    }

    /// The nodes, by id.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.0.addresses.keys().copied()
    }

    /// Whether a node can be reached and speaks with this side; within [`Limits::connect`]. The connection is kept.
    ///
    /// # Errors
    /// [`Failure::NotSent`] if nobody answers there, [`Failure::TurnedAway`] if the two do not speak with each other.
    pub async fn reach(&self, node: NodeId) -> Result<(), Failure> {
        let line = self.connect(node).await?;
        self.keep(node, line);
        Ok(())
    }

    /// Who leads, as far as is known. Asked directly it need not be asked by another node first.
    pub(super) fn leader(&self) -> Option<NodeId> {
        *self.0.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from what a request at this node came to.
    pub(super) fn learn(&self, node: NodeId, outcome: &Result<Reply, Failure>) {
        let mut leader = self.0.leader.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(Reply::Discovered { leader: named, .. }) => *leader = named.and_then(|named| named.leader),
            Ok(Reply::Retry { leader: named, .. }) => *leader = *named,
            // Another one may lead soon, and nobody should wait for this one meanwhile.
            Err(_) if *leader == Some(node) => *leader = None,
            _ => {}
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Sends a request or an order, and its body if that is small, over an idle connection or a fresh one.
    pub(super) async fn send<M>(&self, to: NodeId, request: &M, body: &[u8]) -> Result<Line<T::Stream>, Failure>
    where
        M: Serialize + Sync,
    {
        let limits = &self.0.limits;
        let send = async |line: &mut Line<T::Stream>| {
            let write = async {
                wire::put_frame(line, request).await?;
                line.write_all(body).await?;
                line.flush().await
            };
            timeout(limits.idle, write).await?
        };
        while let Some(mut line) = self.take(to).await {
            // What could not be written whole was not performed, so it may be sent again.
            if send(&mut line).await.is_ok() {
                return Ok(line);
            }
        }
        let mut line = self.connect(to).await?;
        send(&mut line).await.map_err(|error| Failure::BrokenOff(error.to_string()))?;
        Ok(line)
    }

    /// Connects to a node, and greets it.
    async fn connect(&self, to: NodeId) -> Result<Line<T::Stream>, Failure> {
        let Shared { transport, addresses, limits, secret, me, .. } = &*self.0;
        let part = if me.is_some() { Part::Order } else { Part::Client };
        let address = addresses.get(&to).ok_or_else(|| Failure::NotSent("it has no address".to_owned()))?;
        let connected = async {
            let mut line = wire::line(transport.connect(address).await.map_err(Unmet::opening)?);
            greeting::meet(&mut line, *me, part, to, secret.as_ref()).await.map_err(Unmet::settled)?;
            Ok(line)
        };
        match timeout(limits.connect, connected).await {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(Unmet::Refused(refusal))) => Err(Failure::TurnedAway(refusal.to_string())),
            Ok(Err(Unmet::Broken(error))) => Err(Failure::NotSent(in_words(&error))),
            Err(_) => Err(Failure::NotSent(format!(
                "no connection within {} s: is the machine up, and does a firewall let the port through?",
                limits.connect.as_secs_f32()
            ))),
        }
    }

    /// The idle connection that was used last, if it still stands.
    async fn take(&self, to: NodeId) -> Option<Line<T::Stream>> {
        loop {
            let Idle { mut line, since } = self.idle().get_mut(&to)?.pop()?;
            if since.elapsed() < self.0.limits.kept_for && stands(&mut line).await {
                return Some(line);
            }
        }
    }

    /// Keeps a connection for the next request.
    pub(super) fn keep(&self, to: NodeId, line: Line<T::Stream>) {
        let limits = &self.0.limits;
        let mut idle = self.idle();
        let idle = idle.entry(to).or_default();
        let old = idle.iter().take_while(|it| it.since.elapsed() >= limits.kept_for).count();
        drop(idle.drain(..old));
        if idle.len() < limits.kept {
            idle.push(Idle { line, since: Instant::now() });
        }
    }

    fn idle(&self) -> MutexGuard<'_, BTreeMap<NodeId, Vec<Idle<T::Stream>>>> {
        self.0.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an error of a connection means to people.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused: nobody listens there; is the node running, and is its address in config.json right?"
        }
        io::ErrorKind::TimedOut => "no answer: is the machine up, and does a firewall let the port through?",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "there is no way to that machine: is it on the same network?"
        }
        io::ErrorKind::UnexpectedEof => "it hung up before it said anything: is it a node of a cluster?",
        _ => return error.to_string(),
    }
    .to_owned()
}

/// Whether a connection over which nothing is expected is open: it would have an end, or something, to be read.
async fn stands<S: AsyncRead + Unpin>(line: &mut S) -> bool {
    let mut byte = [0];
    poll_fn(|context| {
        let read = Pin::new(&mut *line).poll_read(context, &mut ReadBuf::new(&mut byte));
        Poll::Ready(read.is_pending())
    })
    .await
}

/// The next word of a node.
pub(super) async fn word<T: Transport>(from: &mut Line<T::Stream>, limits: &Limits) -> io::Result<Word> {
    timeout(limits.reply, async {
        loop {
            if let Some(word) = wire::read_frame(from).await? {
                return Ok(word);
            }
        }
    })
    .await?
}
