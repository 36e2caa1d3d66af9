//! Seeds of bugs that the simulation found, each with its story. They stay fixed.
//!
//! A seed stands for its scenario only as long as scenarios are drawn in the same way. Those of the time before there
//! were fleets are plain seeds now: their scenarios are replayed by tests of the machines too.
#![cfg(madsim)]

use sim_tests::explore::check;

/// A run without consumers has no path to probe. The answer to "start load" was mistaken for the creation of the
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

/// One worker could not reach the broker and took long to create its consumers. The other one, which had answered,
/// heard nothing meanwhile: its lease ended, and the run failed for a controller that was there all the time. With the
/// defaults, where a call and a lease are both 30 s, one frozen worker would have taken all others with it.
#[test]
fn workers_that_wait_for_the_slowest_one_keep_their_lease() {
    check(34);
    check(202);
}

/// A lease ended while the run was being prepared, and the controller came back in time. The load began, and at its
/// first reading the worker was given up, since it had "stopped its load by itself".
#[test]
fn a_lease_that_ended_before_the_load_does_not_count_against_it() {
    check(522);
}

/// A command that came after one that never arrived was mistaken for a restarted worker, also where everything is one
/// process: that was given up, and its load never stopped.
#[test]
fn a_process_does_not_give_itself_up() {
    check(578);
}

/// The load began at some workers before another one, whose connections broke again and again, had heard of it: what
/// its consumers received by then was dated by a clock that had not been corrected, and seemed 36 s late.
#[test]
fn everybody_has_the_fleets_time_before_anybody_sends() {
    check(276);
}
