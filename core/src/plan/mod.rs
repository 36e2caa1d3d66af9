//! Who does what: pure, made once, then only read.

pub mod pace;
pub mod rate;
