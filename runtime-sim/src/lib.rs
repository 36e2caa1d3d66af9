//! omb-runtime-sim: the same machines on madsim: simulated sockets, simulated clocks, faults on demand.
//! Empty unless the build has `--cfg madsim`, which this workspace's `.cargo/config.toml` sets.
#![cfg(madsim)]

/// The very loop the product runs, compiled here against the simulator's tokio.
#[path = "../../runtime-real/src/event_loop.rs"]
pub mod event_loop;
/// The very local run of the product.
#[path = "../../runtime-real/src/local.rs"]
pub mod local;
