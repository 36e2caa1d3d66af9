//! One node of the peer cluster over sockets and a disk, and the client's side of it.
//!
//! ```text
//!  links ─▶ one connection to each peer, frames one way, a byte back for each       serving ─▶ Input::Received
//!  asking ─▶ one connection per request ─ Request ─▶ ◀─ Go ─ body ═▶ ◀─ Reply ─      serving ─▶ Input::Request
//!                                                      node: the loop around core::node::Node
//! ```
//!
//! **These files are compiled twice**, like `event_loop.rs`: what differs comes in as a `Transport`, a
//! `Listener` and a `Disk`.
//!
//! `Transport`: crate::fleet::Transport

pub mod asking;
pub mod disk;
mod links;
pub mod node;
mod serving;
pub mod wire;

use std::time::Duration;

pub use disk::Disk;
pub use node::{Observer, serve};

use crate::fleet::Address;

/// Bounds on everything that others can make last, or grow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest until a connection is made and both sides have greeted.
    pub connect: Duration,
    /// Longest until a peer has confirmed a message; then its connection is made anew.
    pub silent: Duration,
    /// After this long without a message a peer is sent an empty one.
    pub keep_alive: Duration,
    /// First and longest pause between attempts to connect to a peer; doubled in between.
    pub pause: (Duration, Duration),
    /// Longest that a request, or the next bytes of a body, may be waited for.
    pub idle: Duration,
    /// Longest that a node may take to answer a request which it was sent, once the body is there.
    pub reply: Duration,
    /// Connections that are served at once; more are turned away.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            connect: ms(2_000),
            silent: ms(1_000),
            keep_alive: ms(1_000),
            pause: (ms(50), ms(500)),
            idle: ms(15_000),
            reply: ms(25_000),
            connections: 4_096,
        }
    }
}

/// Bytes of a body that are held at once.
const CHUNK: usize = 64 << 10;

/// The address of a peer, `host:port`; brackets around the host are taken off.
#[must_use]
pub fn address(text: &str, tls: bool) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Address { name: text.to_owned(), host, port: port.parse().ok()?, tls })
}
