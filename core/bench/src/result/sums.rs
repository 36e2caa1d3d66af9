//! The phases of a load and what they add up to: one rule, for a run in progress and for one read from its record.

use std::time::Duration;

use crate::{
    result::{Phase, PhaseTotals},
    stats::tally::Totals,
};

/// What the phases add up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sums {
    /// The phases that count.
    pub measured: Totals,
    /// How long they took.
    pub measured_for: Duration,
    /// From the stop on.
    pub tail: Totals,
    /// All.
    pub whole: Totals,
}

/// Adds a period to the phase it belongs to, which is the last one or begins with it.
pub fn add(phases: &mut Vec<PhaseTotals>, phase: Phase, elapsed: Duration, totals: &Totals) {
    match phases.last_mut().filter(|sum| sum.phase == phase) {
        Some(sum) => {
            sum.elapsed += elapsed;
            sum.totals.merge(totals);
        }
        None => phases.push(PhaseTotals { phase, elapsed, totals: totals.clone() }),
    }
}

/// Adds what arrived after the last period, which belongs to the drain, and sums up.
pub fn finish(phases: &mut Vec<PhaseTotals>, rest: &Totals) -> Sums {
    add(phases, Phase::Drain, Duration::ZERO, rest);
    let mut sums = Sums::default();
    for PhaseTotals { phase, elapsed, totals } in phases {
        sums.whole.merge(totals);
        if phase.counts() {
            sums.measured.merge(totals);
            sums.measured_for += *elapsed;
        } else if *phase >= Phase::Stop {
            sums.tail.merge(totals);
        }
    }
    sums
}
