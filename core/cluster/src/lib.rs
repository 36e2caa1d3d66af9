//! omb-cluster: the peer cluster. Nodes elect a leader; the leader spreads uploads over the nodes.
//!
//! ```text
//! handshake, admission ─▶ node { election, routing, store } ─▶ client
//! ```

pub mod admission;
pub mod client;
pub mod config;
pub mod election;
pub mod handshake;
pub mod node;
pub mod peer;
pub mod report;
pub mod requests;
pub mod routing;
pub mod store;
