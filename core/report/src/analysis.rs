//! What follows from a report, computed once and read by every renderer.

use crate::{
    context::Context,
    limit::{self, Limit},
    verdict::{self, Outcome},
};
use omb_bench::{
    result::{Report, soundness},
    stats::tally::Totals,
};

/// What a report means.
#[derive(Clone, Debug, PartialEq)]
pub struct Analysis {
    /// What was measured, including answers that came after the producers had stopped; latencies are shown of these.
    pub answered: Totals,
    /// What happened to the acknowledged messages, as one term.
    pub outcome: Outcome,
    /// The same in a sentence, with the numbers.
    pub headline: String,
    /// What a reader must know beside the headline, a sentence or two each, the gravest first.
    pub notes: Vec<String>,
    /// Why the result is not sound, one sentence per reason; empty if it is.
    pub unsound: Vec<String>,
    /// What limited the run; `None` if nothing was measured.
    pub limit: Option<Limit>,
    /// Why there is no end-to-end latency although messages were received; `None` if there is one, or if there were
    /// none.
    pub no_end_to_end: Option<String>,
}

impl Analysis {
    /// Looks at a report.
    #[must_use]
    pub fn of(report: &Report, context: &Context) -> Self {
        let answered = report.answered();
        Self {
            outcome: verdict::outcome(report),
            headline: verdict::headline(report),
            notes: verdict::notes(report, &answered, context),
            unsound: soundness::unsound(report),
            limit: limit::limit(report, &answered, context),
            no_end_to_end: verdict::no_end_to_end(report),
            answered,
        }
    }
}
