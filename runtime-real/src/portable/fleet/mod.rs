//! A run over several processes: the controller's side, the worker's side, and the HTTP between them.
//!
//! ```text
//!  leading                        wire                            serving
//!  controller machine ─▶ link ─▶ POST /v1/command ─▶ connection ─▶ worker machine ─▶ performer
//!                     ◀─      ◀─ the answer, once it is ready   ◀─
//!                        clock ─▶ POST /v1/clock   ─▶ the wall clock, at once
//! ```
//!
//! **These files are compiled twice**, like `event_loop.rs`: here against tokio, in `runtime-sim` against the
//! simulator's. What differs between the two comes in as a `Transport` and a `Listener`.

mod door;
pub mod leading;
pub mod serving;
pub mod wire;

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
};

pub use door::Guest;
use tokio::io::{AsyncRead, AsyncWrite};

/// Where a worker listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// As it was typed: the worker's name.
    pub name: String,
    /// A host's name or address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether TLS is used.
    pub tls: bool,
}

/// Makes connections: over TCP, with TLS over it, or simulated.
pub trait Transport: Clone + Send + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// Connects; the caller bounds the time.
    fn connect(&self, to: &Address) -> impl Future<Output = io::Result<Self::Stream>> + Send;
    /// The current addresses of a host's name; an address is its own. The caller bounds the time.
    fn resolve(&self, host: &str) -> impl Future<Output = io::Result<Vec<IpAddr>>> + Send;
}

/// Accepts connections.
pub trait Listener: Send + 'static {
    /// A connection, once it is ready.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// What remains to be done before it is ready (a TLS handshake), which must not hold up the next one.
    type Opening: Future<Output = io::Result<Self::Stream>> + Send + 'static;
    /// The next connection, and its source.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Opening, SocketAddr)>> + Send;
    /// Whether the other side's credentials beneath this connection vouch for its being `host`; always, if there are
    /// none.
    ///
    /// # Errors
    /// What is wrong with it, for people to read.
    fn vouches(_stream: &Self::Stream, _host: &str) -> Result<(), String> {
        Ok(())
    }
}
