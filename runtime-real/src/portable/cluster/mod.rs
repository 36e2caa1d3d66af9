//! One node of the peer cluster over sockets and a disk, and the client's side of it.
//!
//! ```text
//!  both sides ─▶ greeting, proofs of keys; peers also: gate, their certificate and their address
//!  links ─▶ one connection to each peer, frames one way, a byte back for each       serving ─▶ Input::Received
//!  asking ─▶ nodes ─ Request ─▶ ◀─ Go ─ body ═▶ ◀─ Reply ─, and the next            serving ─▶ Input::Request
//!  serving ─▶ nodes ─ Order ─▶ ◀─ Go ─ body ═▶ ◀─ Reply ─, and the next             serving ─▶ Input::Order
//!                                                      node: the loop around core::node::Node
//! ```
//!
//! **These files are compiled twice**, like `event_loop.rs`: what differs comes in as a `Transport`, a
//! `Listener`, a `Disk` and a source of nonces.

pub mod asking;
mod body;
pub mod disk;
mod gate;
pub mod greeting;
mod lanes;
mod links;
pub mod node;
pub mod nodes;
mod server;
mod serving;
mod slots;
pub mod wire;

use std::time::Duration;

pub use disk::Disk;
pub use greeting::Secret;
pub use node::{Observer, serve};
pub use nodes::Nodes;

use crate::portable::fleet::Address;

/// Bounds on everything that others can prolong or grow.
///
/// They bound what a node holds in memory for others: some 20 kB for each connection, and a further 64 kB for each
/// request in flight.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest until a connection is established and both sides have greeted and proven what they must. Default 2 s.
    pub connect: Duration,
    /// Longest until a peer has confirmed a message; then its connection is replaced. Default 1 s.
    pub silent: Duration,
    /// After this long without a message a peer is sent an empty one. Default 1 s.
    pub keep_alive: Duration,
    /// First and longest pause between attempts to connect to a peer; doubled in between. Default 50 ms and 500 ms.
    pub pause: (Duration, Duration),
    /// Longest wait for a request, or for the next bytes of a body, and for 64 KiB to be read by the other side. An
    /// idle connection is closed after it. Default 15 s.
    pub idle: Duration,
    /// Longest that a node may take to answer a request, once the body is there. Default 25 s.
    pub reply: Duration,
    /// Slowest pace of a body, in bytes per second, after [`Self::idle`]: a slower sender is cut off. Default 4,096,
    /// below any modem; a trickle of single bytes could otherwise hold its slot for years.
    pub pace_min: u64,
    /// Connections that may be greeting at once; half of them from one source, an eighth only for hosts of peers.
    /// Default 512.
    pub strangers: usize,
    /// Connections of clients at once, those over which nodes relay requests included; further ones are answered that
    /// the node is busy. Connections for messages of peers do not count. Default 4,096.
    pub connections: usize,
    /// Of them, from one source: an IPv4 address, or an IPv6 network of 64 bits. Default 2,048.
    pub connections_per_source: usize,
    /// Of them, reserved for hosts of peers. Default 256.
    pub connections_reserve: usize,
    /// Requests in flight at once; further ones are answered with "node N is busy", and tried again by their clients.
    /// Half of them from one source, an eighth only for those that nodes relay. Default 1,024.
    pub requests: usize,
    /// How long a client that sends nothing of what it has announced, or does not read its answer, keeps its slot while
    /// others need one; a tenth of it while those are of a source that has fewer. Default 1 s.
    pub patience: Duration,
    /// Idle connections to one node that are kept for the next request. Default 64.
    pub kept: usize,
    /// How long they are kept: shorter than [`Self::idle`], after which the other side closes them. Default 10 s.
    pub kept_for: Duration,
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
            pace_min: 4_096,
            strangers: 512,
            connections: 4_096,
            connections_per_source: 2_048,
            connections_reserve: 256,
            requests: 1_024,
            patience: ms(1_000),
            kept: 64,
            kept_for: ms(10_000),
        }
    }
}

/// The address of a peer, `host:port`; brackets around the host are removed.
#[must_use]
pub fn address(text: &str, tls: bool) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Address { name: text.to_owned(), host, port: port.parse().ok()?, tls })
}
