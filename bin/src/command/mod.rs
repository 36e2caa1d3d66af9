//! One file per command.

pub(crate) mod broker;
pub(crate) mod check;
mod input;
mod output;
pub(crate) mod progress;
pub(crate) mod run;
