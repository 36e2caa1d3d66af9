//! Exchanges between controller and worker that are late, lost, doubled, out of order, or broken half-way.
//!
//! madsim's TCP carries bytes in order or not at all, so this happens where an exchange is handed over.

use std::fmt;

/// One fault of the exchanges with one worker or all, and the share of them that it hits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trouble {
    /// Its kind.
    pub kind: Kind,
    /// The worker; `None` for all.
    pub worker: Option<u32>,
    /// Share of the exchanges.
    pub share: f64,
}

/// What can happen to an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The request leaves late.
    Delayed,
    /// The request never arrives.
    RequestLost,
    /// The answer never arrives.
    ReplyLost,
    /// A copy of the request arrives too, earlier or later: perhaps behind the next ones.
    Doubled,
    /// The connection breaks half-way.
    Reset,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Delayed, Self::RequestLost, Self::ReplyLost, Self::Doubled, Self::Reset];
}

/// The current faults of the exchanges with one worker: shares, by [`Kind`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// In the order of [`Kind::ALL`].
    pub shares: [f64; 5],
}

impl Trouble {
    /// Its name in the coverage table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Delayed => "exchanges delayed",
            Kind::RequestLost => "requests lost",
            Kind::ReplyLost => "replies lost",
            Kind::Doubled => "exchanges doubled",
            Kind::Reset => "connections reset",
        }
    }

    pub(super) fn turn(self, workers: &mut [Now], on: bool) {
        for (_, now) in (0..).zip(workers).filter(|(worker, _)| self.worker.is_none_or(|it| it == *worker)) {
            now.shares[self.kind as usize] = if on { self.share } else { 0.0 };
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = self.worker.map_or("all workers".to_owned(), |worker| format!("worker {worker}"));
        write!(f, "{:.0} % of {} with {workers}", self.share * 100.0, self.name())
    }
}
