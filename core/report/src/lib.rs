//! omb-report: what a reader gets from a benchmark's result.
//!
//! ```text
//! Period ─▶ record (a line as it arrives) · table (a line on the screen)
//! Report ─▶ json (the result file) · table (the end of a run)      record ─▶ Report again
//! ```
//!
//! All say the same in words, which come from [`verdict`]; what only the runtime knows comes in as a
//! [`context::Context`].

pub mod context;
#[cfg(test)]
mod figures;
#[cfg(test)]
mod fixture;
mod fleet;
pub mod histogram;
pub mod json;
pub mod limit;
pub mod metrics;
pub mod record;
pub mod table;
pub mod verdict;
