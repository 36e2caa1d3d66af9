//! Connections between controller and worker, over the simulator's TCP.
//!
//! What that lacks, and the remedy: bytes that were not flushed are lost, so every write is followed by a flush; a
//! connection that is shut down stays open for the other side, so it is dropped; an attempt to connect to an
//! unreachable node is refused at once, so it hangs here until it could be made, as on a real network.

use std::{
    future::{Ready, ready},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use madsim::{
    net::{TcpListener, TcpStream},
    task::NodeId,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::sleep,
};

use crate::{
    fault::Weather,
    portable::fleet::{Address, Listener, Transport},
};

/// One end of a connection.
#[derive(Debug)]
pub struct Stream {
    inner: TcpStream,
    /// Something was written since the last flush.
    dirty: bool,
    /// Decides when it breaks; checked by the end that connected.
    weather: Option<Weather>,
    broken: bool,
    accent: Option<Accent>,
}

/// Bytes written and read by a node of another version: it and its peer see each other's as one higher.
#[derive(Clone, Copy, Debug, Default)]
struct Accent {
    written: usize,
    read: usize,
}

/// Where the low byte of the version is in a greeting, after the magic.
const VERSION_AT: usize = 4;

fn shift(passed: &mut usize, bytes: &mut [u8]) {
    if let Some(byte) = VERSION_AT.checked_sub(*passed).and_then(|at| bytes.get_mut(at)) {
        *byte = byte.wrapping_add(1);
    }
    *passed += bytes.len();
}

impl Stream {
    fn new(inner: TcpStream, weather: Option<Weather>, foreign: bool) -> Self {
        Self { inner, dirty: false, weather, broken: false, accent: foreign.then(Accent::default) }
    }

    /// Whether it is broken, or breaks now.
    fn breaks(&mut self) -> bool {
        self.broken |= self.weather.as_ref().is_some_and(|weather| weather.now().resets.strikes());
        self.broken
    }
}

fn reset<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "connection reset by the peer")))
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return reset();
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        let read = &mut buf.filled_mut()[before..];
        if let Some(accent) = &mut self.accent {
            shift(&mut accent.read, read);
        }
        // What arrived is lost with it.
        if !read.is_empty() && self.breaks() {
            buf.set_filled(before);
            return reset();
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.broken {
            return reset();
        }
        if self.breaks() {
            // Half of it is on its way.
            let _ = Pin::new(&mut self.inner).poll_write(cx, &bytes[..bytes.len() / 2]);
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
            return reset();
        }
        self.dirty = true;
        if let Some(mut accent) = self.accent {
            let mut bytes = bytes.to_vec();
            let before = accent.written;
            shift(&mut accent.written, &mut bytes);
            let polled = Pin::new(&mut self.inner).poll_write(cx, &bytes);
            if let Poll::Ready(Ok(count)) = polled {
                accent.written = before + count;
                self.accent = Some(accent);
            }
            return polled;
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.broken {
            return reset();
        }
        // An empty flush would be an empty packet.
        if !std::mem::take(&mut self.dirty) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

/// Makes connections from the node that uses it.
#[derive(Clone, Debug)]
pub struct SimTransport {
    /// The node that uses it.
    pub from: NodeId,
    /// By address, the nodes that can be connected to.
    pub nodes: Vec<(SocketAddr, NodeId)>,
    /// Which nodes cannot reach each other.
    pub weather: Weather,
    /// Whether it uses another version of the protocol.
    pub foreign: bool,
}

impl SimTransport {
    /// Connects from the node `from`; every node is in reach.
    #[must_use]
    pub fn plain(from: NodeId) -> Self {
        Self { from, nodes: Vec::new(), weather: Weather::new(0), foreign: false }
    }
}

/// How often an attempt to connect to an unreachable node is repeated.
const AGAIN: Duration = Duration::from_millis(200);

impl Transport for SimTransport {
    type Stream = Stream;

    async fn connect(&self, to: &Address) -> io::Result<Stream> {
        let host = to.host.parse().map_err(|_| io::Error::other("no address"))?;
        let address = SocketAddr::new(host, to.port);
        loop {
            let error = match TcpStream::connect(address).await {
                Ok(inner) => return Ok(Stream::new(inner, Some(self.weather.clone()), self.foreign)),
                Err(error) => error,
            };
            let node = self.nodes.iter().find(|(known, _)| *known == address).map(|(_, node)| *node);
            if !node.is_some_and(|to| self.weather.now().are_apart(self.from, to)) {
                return Err(error);
            }
            sleep(AGAIN).await;
        }
    }

    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        host.parse().map(|ip| vec![ip]).map_err(|_| io::Error::other("no address"))
    }
}

/// Accepts connections.
#[derive(Debug)]
pub struct SimListener {
    inner: TcpListener,
    foreign: bool,
}

impl SimListener {
    /// Listens at `address`, which is the node's own.
    pub async fn bind(address: SocketAddr) -> Self {
        Self { inner: TcpListener::bind(address).await.expect("the address is the node's own"), foreign: false }
    }

    /// The same, of a node with another version of the protocol if `foreign`.
    #[must_use]
    pub fn foreign(self, foreign: bool) -> Self {
        Self { foreign, ..self }
    }
}

impl Listener for SimListener {
    type Stream = Stream;
    type Opening = Ready<io::Result<Stream>>;

    async fn accept(&mut self) -> io::Result<(Self::Opening, SocketAddr)> {
        let (inner, from) = self.inner.accept().await?;
        Ok((ready(Ok(Stream::new(inner, None, self.foreign))), from))
    }
}
