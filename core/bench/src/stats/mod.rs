//! How numbers add up: latencies, sequences, periods, totals. Knows no machine.

pub mod latency;
pub mod offsets;
pub mod sequence;
pub mod sparse;
pub mod tally;
