//! omb-runtime-sim: the same machines on madsim: simulated sockets, simulated clocks, faults on demand.
//!
//! ```text
//!  controller node               worker nodes                broker node
//!    fleet::leading ── exchange ── fleet::serving             omb_broker behind frames, faulty on demand
//!                   (connection)    └─ load: producers ── net ──┘
//!                                            consumers        all that happened: witness (trace, coverage, truth)
//! ```
//!
//! Empty unless the build has `--cfg madsim`, which this workspace's `.cargo/config.toml` sets.
#![cfg(madsim)]

// The product's own loop, fleet and node, compiled here against the simulator's tokio.
#[path = "../../runtime-real/src/portable/mod.rs"]
pub mod portable;

pub mod broker;
pub mod clock;
pub mod connection;
pub mod exchange;
pub mod fault;
pub mod load;
pub mod net;
pub mod peers;
pub mod scenario;
pub mod trace;
pub mod truth;
pub mod witness;
pub mod world;
