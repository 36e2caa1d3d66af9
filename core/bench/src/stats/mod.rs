//! How numbers add up: latencies, sequences, periods, totals. Independent of any machine.

pub mod latency;
pub mod offsets;
pub mod sequence;
pub mod sparse;
pub mod tally;
