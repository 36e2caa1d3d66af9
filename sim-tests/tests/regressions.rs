//! Seeds of bugs that the simulation found, each with its story. They stay fixed.
#![cfg(madsim)]

use sim_tests::explore::check;

/// A run without consumers has no path to probe. The answer to "start load" was taken for the creation of the
/// producers, so the load was started again and again until the run's bound was over.
#[test]
fn a_run_that_only_produces_starts_its_load_once() {
    check(0);
}

/// The worker fell silent. When "delete topics" failed too, the run was finished at once: "close" was never sent, and
/// the load went on after the end.
#[test]
fn what_cannot_be_deleted_does_not_keep_the_worker_from_being_closed() {
    check(60);
}

/// Confirmed messages were missing although the counts agreed, so the comparison was put off until silence; then the
/// worker fell silent for good, and the report showed the first comparison beside counts that had gone on.
#[test]
fn a_comparison_that_was_put_off_is_no_verdict() {
    check(598);
}
