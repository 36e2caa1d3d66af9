//! omb-runtime-sim: the same machines on madsim: simulated sockets, simulated clocks, faults on demand.
//!
//! ```text
//!  controller node               worker nodes                broker node
//!    fleet::leading ── exchange ── fleet::serving             core::broker behind frames, faulty on demand
//!                   (connection)    └─ load: producers ── net ──┘
//!                                            consumers        all that happened: witness (trace, coverage, truth)
//! ```
//!
//! Empty unless the build has `--cfg madsim`, which this workspace's `.cargo/config.toml` sets.
#![cfg(madsim)]

/// The very node of the product's cluster, and its clients.
#[path = "../../runtime-real/src/cluster/mod.rs"]
pub mod cluster;
/// The very loop the product runs, compiled here against the simulator's tokio.
#[path = "../../runtime-real/src/event_loop.rs"]
pub mod event_loop;
/// The very links between controller and workers.
#[path = "../../runtime-real/src/fleet/mod.rs"]
pub mod fleet;
/// The very local run of the product.
#[path = "../../runtime-real/src/local.rs"]
pub mod local;

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
