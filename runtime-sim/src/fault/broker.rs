//! A messaging system that is slow, silent, failing, breaking connections, or away.

use std::{fmt, time::Duration};

use madsim::{runtime::Handle, task::NodeId};

/// A fault of the broker.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// Every reply takes this much longer, at most.
    Slow(Duration),
    /// It neither accepts requests nor sends replies.
    Stalled,
    /// This share of the requests is answered with an error; half of them are performed all the same.
    Failing(f64),
    /// It breaks every connection, once.
    Cut,
    /// It goes down, and comes back with everything it had stored.
    Restart,
    /// This share of the payloads is damaged on the way to a consumer.
    Damage(f64),
}

/// The broker's current faults.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The most that a reply is delayed.
    pub slow: Duration,
    /// Whether it is stalled.
    pub stalled: bool,
    /// Share of the requests that fail.
    pub failing: f64,
    /// Share of the payloads that are damaged.
    pub damage: f64,
    /// Rises when all connections are to break.
    pub cuts: u64,
}

impl Trouble {
    /// Its name in the coverage table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Slow(_) => "broker slow",
            Self::Stalled => "broker stalled",
            Self::Failing(_) => "broker failing",
            Self::Cut => "broker cuts connections",
            Self::Restart => "broker restarts",
            Self::Damage(_) => "payloads damaged",
        }
    }

    pub(super) fn turn(&self, now: &mut Now, handle: &Handle, broker: NodeId, on: bool) {
        match self {
            Self::Slow(by) => now.slow = if on { *by } else { Duration::ZERO },
            Self::Stalled => now.stalled = on,
            Self::Failing(share) => now.failing = if on { *share } else { 0.0 },
            Self::Damage(share) => now.damage = if on { *share } else { 0.0 },
            Self::Cut => now.cuts += u64::from(on),
            Self::Restart if on => handle.kill(broker),
            Self::Restart => handle.restart(broker),
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slow(by) => write!(f, "broker replies late by up to {} ms", by.as_millis()),
            Self::Stalled => f.write_str("broker stalled"),
            Self::Failing(share) => write!(f, "broker fails {:.0} % of the requests", share * 100.0),
            Self::Cut => f.write_str("broker cuts all connections"),
            Self::Restart => f.write_str("broker down"),
            Self::Damage(share) => write!(f, "{:.1} % of the payloads damaged", share * 100.0),
        }
    }
}
