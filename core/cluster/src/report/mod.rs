//! Reports on a cluster: its status, its metrics, and the result of a stress test.

pub mod metrics;
pub mod status;
pub mod stress;
