//! omb-runtime-real: the machines of `omb-core` on real time, real threads and real sockets.

pub mod clock;
pub mod cluster;
pub mod disk;
pub mod driver;
pub mod embedded;
pub mod event_loop;
pub mod files;
pub mod fleet;
pub mod key;
pub mod load;
pub mod local;
pub mod net;
pub mod pages;
pub mod performer;
pub mod process;
pub mod reaper;
