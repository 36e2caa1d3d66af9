//! omb-runtime-real: the machines of `omb-core` on real time, real threads and real sockets.

pub mod embedded;
pub mod event_loop;
pub mod local;
