//! What a reader gets of a cluster: its status, its metrics, and what a stress test found.

pub mod metrics;
pub mod status;
pub mod stress;
