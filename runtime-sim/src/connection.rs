//! Connections between controller and worker, over the simulator's TCP.
//!
//! What that lacks, and what is done about it: bytes that were not flushed are lost, so every write is followed by a
//! flush; a connection that is shut down stays open for the other side, so it is dropped; an attempt to connect to
//! somebody out of reach is refused at once, so it hangs here until it could be made, as it does on a real network.

use std::{
    future::{Ready, ready},
    io,
    net::SocketAddr,
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
    fleet::{Address, Listener, Transport},
};

/// One end of a connection.
#[derive(Debug)]
pub struct Stream {
    inner: TcpStream,
    /// Something was written since the last flush.
    dirty: bool,
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.dirty = true;
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

/// Makes connections from the node it is used on.
#[derive(Clone, Debug)]
pub struct SimTransport {
    /// The node it is used on.
    pub from: NodeId,
    /// By address, the nodes that can be connected to.
    pub nodes: Vec<(SocketAddr, NodeId)>,
    /// Who is out of whose reach.
    pub weather: Weather,
}

impl SimTransport {
    /// Connects from the node `from`; everybody is in reach.
    #[must_use]
    pub fn plain(from: NodeId) -> Self {
        Self { from, nodes: Vec::new(), weather: Weather::new(0) }
    }
}

/// How often an attempt to connect to somebody out of reach is made again.
const AGAIN: Duration = Duration::from_millis(200);

impl Transport for SimTransport {
    type Stream = Stream;

    async fn connect(&self, to: &Address) -> io::Result<Stream> {
        let host = to.host.parse().map_err(|_| io::Error::other("no address"))?;
        let address = SocketAddr::new(host, to.port);
        loop {
            let error = match TcpStream::connect(address).await {
                Ok(inner) => return Ok(Stream { inner, dirty: false }),
                Err(error) => error,
            };
            let node = self.nodes.iter().find(|(known, _)| *known == address).map(|(_, node)| *node);
            if !node.is_some_and(|to| self.weather.now().are_apart(self.from, to)) {
                return Err(error);
            }
            sleep(AGAIN).await;
        }
    }
}

/// Takes connections in.
#[derive(Debug)]
pub struct SimListener(TcpListener);

impl SimListener {
    /// Listens at `address`, which is the node's own.
    pub async fn bind(address: SocketAddr) -> Self {
        Self(TcpListener::bind(address).await.expect("the address is the node's own"))
    }
}

impl Listener for SimListener {
    type Stream = Stream;
    type Opening = Ready<io::Result<Stream>>;

    async fn accept(&mut self) -> io::Result<(Self::Opening, SocketAddr)> {
        let (inner, from) = self.0.accept().await?;
        Ok((ready(Ok(Stream { inner, dirty: false })), from))
    }
}
