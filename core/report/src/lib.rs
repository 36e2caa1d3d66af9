//! omb-report: what a reader gets from a benchmark's result.
//!
//! ```text
//! Period ─▶ record (a line as it arrives) · table (a line on the screen)
//! Report ─▶ analysis (what it means) ─▶ result (a tree of structs: the result file) ─▶ table (the end of a run)
//! record ─▶ Report again            result file ─▶ result again
//! ```
//!
//! What a report means is computed once, by [`analysis`], with sentences from [`verdict`] and [`limit`]; what only the
//! runtime knows comes in as a [`context::Context`]. Renderers read a [`result::RunResult`] and compute nothing.

pub mod analysis;
pub mod context;
#[cfg(test)]
mod figures;
#[cfg(test)]
mod fixture;
mod fleet;
pub mod histogram;
pub mod limit;
pub mod metrics;
pub mod record;
pub mod result;
pub mod table;
pub mod verdict;
