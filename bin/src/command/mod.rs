//! One file per command.

mod addresses;
pub(crate) mod broker;
pub(crate) mod check;
pub(crate) mod clean;
pub(crate) mod client;
mod cluster;
pub(crate) mod fleet;
mod input;
pub(crate) mod manual;
pub(crate) mod node;
mod output;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod stress;
pub(crate) mod worker;
