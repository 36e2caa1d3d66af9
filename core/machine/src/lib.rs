//! omb-machine: the building blocks of all of omb's machines, and the readers of all of its files.
//!
//! A [`Machine`] has no I/O: time and inputs go in; outputs and the next timeout come out. One crate drives it with the
//! real network and clock, another with a simulation; the machine cannot tell the difference.

pub mod buckets;
pub mod config;
pub mod encoding;
pub mod grid;
mod machine;
pub mod printable;
pub mod prometheus;
pub mod quantity;
pub mod seed;
pub mod source;
pub mod time;
pub mod units;

pub use machine::{Machine, Wake, settle};
