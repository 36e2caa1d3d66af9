//! The phases of a run, in order.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// The workers connect to the messaging system.
    Prepare,
    /// Every worker checks whether it reaches every broker, and whether the brokers would accept what is to come.
    Check,
    /// Topics are created.
    CreateTopics,
    /// Then consumers, so that they miss nothing.
    CreateConsumers,
    /// Then producers.
    CreateProducers,
    /// A probe passes along every path from producer to subscription.
    Probe,
    /// Load, not counted.
    WarmUp,
    /// Load at changing rates: which is the highest that holds?
    Search,
    /// Load at the rate found, until the search's traces are gone. Not counted.
    Settle,
    /// Load while the consumers pause, until the backlog is as large as configured.
    FillBacklog,
    /// Load while the consumers catch up.
    DrainBacklog,
    /// Load, counted.
    Measure,
    /// The producers stop; their last delivery reports arrive.
    Stop,
    /// The consumers receive what is left.
    Drain,
    /// Confirmed and received are compared.
    Verify,
    /// The run's topics are deleted, every client is closed.
    TearDown,
}

impl Phase {
    /// Whether what happens in it counts in the result's totals. As upstream, a backlog's phases count.
    #[must_use]
    pub fn counts(self) -> bool {
        matches!(self, Self::FillBacklog | Self::DrainBacklog | Self::Measure)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Prepare => "prepare",
            Self::Check => "check",
            Self::CreateTopics => "create topics",
            Self::CreateConsumers => "create consumers",
            Self::CreateProducers => "create producers",
            Self::Probe => "probe",
            Self::WarmUp => "warm-up",
            Self::Search => "search",
            Self::Settle => "settle",
            Self::FillBacklog => "fill backlog",
            Self::DrainBacklog => "drain backlog",
            Self::Measure => "measure",
            Self::Stop => "stop",
            Self::Drain => "drain",
            Self::Verify => "verify",
            Self::TearDown => "tear down",
        })
    }
}
