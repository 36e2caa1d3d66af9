//! One file per command.

mod addresses;
pub(crate) mod broker;
pub(crate) mod check;
pub(crate) mod fleet;
mod input;
mod output;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod worker;
