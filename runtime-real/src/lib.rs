//! omb-runtime-real: the machines of `omb-core` on real time, real threads and real sockets.

// Only a program writes for people: it knows how to do so without ending a run.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod clock;
pub mod cluster;
pub mod container;
pub mod disk;
pub mod driver;
pub mod embedded;
pub mod event_loop;
pub mod files;
pub mod fleet;
mod journal;
pub mod key;
pub mod load;
pub mod local;
pub mod net;
pub mod pages;
pub mod performer;
pub mod process;
pub mod reaper;
