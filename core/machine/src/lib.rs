//! omb-machine: what every machine of omb is made of, and what every file of omb is read with.
//!
//! A [`Machine`] has no I/O: time and inputs go in; outputs and a wish to be woken come out. It is driven by the real
//! network and clock in one crate and by a simulation in another; neither shows in here.

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
