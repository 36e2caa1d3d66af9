//! omb-runtime-real: the machines of the core on real time, real threads and real sockets.

// Only a program writes for people: it knows how to do so without ending a run.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod clock;
pub mod container;
pub mod disk;
pub mod driver;
pub mod embedded;
pub mod files;
mod journal;
pub mod key;
pub mod load;
pub mod net;
pub mod pages;
pub mod performer;
pub mod portable;
pub mod process;
pub mod reaper;
