//! omb-bench: one benchmark, from its files to its result.
//!
//! ```text
//! config ─▶ plan ─▶ commands ─▶ (workers) ─▶ events ─▶ stats ─▶ result
//! ```

pub mod config;
pub mod controller;
pub mod guests;
pub mod id;
pub mod load;
pub mod offset;
pub mod plan;
pub mod protocol;
pub mod rate;
pub mod result;
pub mod stats;
pub mod token;
pub mod worker;
