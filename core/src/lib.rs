//! omb-core: decides everything, touches nothing.
//!
//! ```text
//! config ─▶ plan ─▶ commands ─▶ (workers) ─▶ events ─▶ stats ─▶ report
//! ```
//!
//! The machines in here ([`controller`], [`worker`], [`broker`]) are driven by the real network and clock in one
//! crate and by a simulation in another; neither shows in here. A module uses only what stands above it in this list.

pub mod admission;
pub mod broker;
pub mod client;
pub mod config;
pub mod controller;
pub mod election;
pub mod guests;
pub mod handshake;
pub mod id;
pub mod load;
pub mod machine;
pub mod node;
pub mod oauthbearer;
pub mod offset;
pub mod peer;
pub mod plan;
pub mod printable;
pub mod protocol;
pub mod rate;
pub mod reason;
pub mod report;
pub mod requests;
pub mod routing;
pub mod seed;
pub mod stats;
pub mod store;
pub mod time;
pub mod token;
pub mod worker;
