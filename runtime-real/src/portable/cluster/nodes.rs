//! Connections to the nodes of a cluster, for requests: of clients, and of nodes that give each other orders.
//!
//! A connection over which a request has ended is kept for the next one, for a while.

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

/// The addresses of nodes, the keys for them, and idle connections to them. Clones share the connections.
#[derive(Clone)]
pub struct Nodes<T: Transport>(Arc<Shared<T>>);

struct Shared<T: Transport> {
    transport: T,
    addresses: BTreeMap<NodeId, Address>,
    limits: Limits,
    secret: Option<Secret>,
    /// The node that orders; `None` for a client.
    me: Option<NodeId>,
    /// The leader, as named last by a node.
    leader: Mutex<Option<NodeId>>,
    idle: Mutex<BTreeMap<NodeId, Vec<Idle<T::Stream>>>>,
}

struct Idle<S> {
    line: Line<S>,
    since: Instant,
}

impl<T: Transport> Nodes<T> {
    /// For a client. Connects only when something is asked.
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

    /// Whether a node can be reached and accepts this side; within [`Limits::connect`]. The connection is kept.
    ///
    /// # Errors
    /// [`Failure::NotSent`] if no node answers there, [`Failure::TurnedAway`] if one side refuses the other.
    pub async fn reach(&self, node: NodeId) -> Result<(), Failure> {
        let line = self.connect(node).await?;
        self.keep(node, line);
        Ok(())
    }

    /// The leader, as far as is known. Asking it directly saves another node from asking it.
    pub(super) fn leader(&self) -> Option<NodeId> {
        *self.0.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from the outcome of a request at this node.
    pub(super) fn learn(&self, node: NodeId, outcome: &Result<Reply, Failure>) {
        let mut leader = self.0.leader.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(Reply::Discovered { leader: named, .. }) => *leader = named.and_then(|named| named.leader),
            Ok(Reply::Retry { leader: named, .. }) => *leader = *named,
            // Another node may lead soon, and nothing should wait for this one meanwhile.
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
            // A request that was not written completely was not performed, so it may be sent again.
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
            Ok(Err(Unmet::Broken(error))) => Err(Failure::NotSent(explained(&error))),
            Err(_) => Err(Failure::NotSent(format!(
                "no connection within {} s: is the machine up, and does a firewall let the port through?",
                limits.connect.as_secs_f32()
            ))),
        }
    }

    /// The idle connection that was used last, if it is still open.
    async fn take(&self, to: NodeId) -> Option<Line<T::Stream>> {
        loop {
            let Idle { mut line, since } = self.idle().get_mut(&to)?.pop()?;
            if since.elapsed() < self.0.limits.kept_for && is_open(&mut line).await {
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

/// An explanation of a connection's error for the user.
fn explained(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            "connection refused: nobody listens there; is the node running, and is its address in config.json right?"
        }
        io::ErrorKind::TimedOut => "no answer: is the machine up, and does a firewall let the port through?",
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            "there is no route to that machine: is it on the same network?"
        }
        io::ErrorKind::UnexpectedEof => "it hung up before it sent anything: is it a node of a cluster?",
        _ => return error.to_string(),
    }
    .to_owned()
}

/// Whether an idle connection is open: otherwise its end, or something else, could be read.
async fn is_open<S: AsyncRead + Unpin>(line: &mut S) -> bool {
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
