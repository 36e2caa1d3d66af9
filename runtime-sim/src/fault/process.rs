//! A client process that answers late or not at all, and a link between controller and worker that loses, doubles and
//! delays what is handed over.

use std::{fmt, time::Duration};

/// One trouble of the client's side.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// What the worker performed is reported this late, at most.
    Late(Duration),
    /// What the worker performed is never reported.
    Mute,
    /// Of the messages between controller and worker this share is lost, and as many come twice.
    Lossy(f64),
    /// Nothing passes between controller and worker.
    Severed,
}

/// What the client's side suffers from right now.
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The most that a report is delayed.
    pub late: Duration,
    /// Whether reports are swallowed.
    pub mute: bool,
    /// Share of the messages lost, and of those doubled.
    pub lossy: f64,
    /// Whether the link is down.
    pub severed: bool,
}

impl Trouble {
    /// Its name in the coverage table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Late(_) => "worker late",
            Self::Mute => "worker mute",
            Self::Lossy(_) => "link lossy",
            Self::Severed => "link severed",
        }
    }

    pub(super) fn turn(&self, now: &mut Now, on: bool) {
        match self {
            Self::Late(by) => now.late = if on { *by } else { Duration::ZERO },
            Self::Mute => now.mute = on,
            Self::Lossy(share) => now.lossy = if on { *share } else { 0.0 },
            Self::Severed => now.severed = on,
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late(by) => write!(f, "worker reports late by up to {} ms", by.as_millis()),
            Self::Mute => f.write_str("worker reports nothing"),
            Self::Lossy(share) => {
                write!(f, "controller and worker lose and double {:.0} % of their messages", share * 100.0)
            }
            Self::Severed => f.write_str("controller and worker cut apart"),
        }
    }
}
