//! A reporting thread: blocks until delivery reports arrive, counts them, gives their buffers back.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use omb_core::{
    load::{sender::Confirmations, silence::Silences},
    reason::of_code,
    stats::tally::Acknowledgements,
};

use super::{Problems, lock, ring::Ring};
use crate::driver::Reports;

/// Longest a thread blocks without looking whether it is still wanted.
const PATIENCE: Duration = Duration::from_millis(100);

/// Takes reports until `stop`.
#[expect(clippy::too_many_arguments, reason = "what a thread shares with others, named once")]
pub(crate) fn run(
    mut reports: Box<dyn Reports>,
    ring: &Arc<Ring>,
    tally: &Mutex<Acknowledgements>,
    confirmations: &Mutex<Confirmations>,
    probed: &Mutex<BTreeSet<u32>>,
    problems: &Problems,
    silences: &Mutex<Silences>,
    stop: &AtomicBool,
) {
    let mut view = ring.view();
    let mut tickets = Vec::new();
    while !stop.load(Relaxed) {
        reports.wait(PATIENCE, &mut |now, batch| {
            {
                let mut tally = lock(tally);
                let mut confirmations = lock(confirmations);
                let before = tally.acked;
                for report in batch.drain(..) {
                    if let Some(why) = report.failed {
                        tally.failed += 1;
                        problems.add(&format!("a message was not delivered: {}", of_code(why)));
                    } else {
                        confirmations.acked(&mut tally, now, view.note(&report.ticket), report.bytes);
                    }
                    tickets.push(report.ticket);
                }
                if tally.acked > before {
                    lock(silences).acked(now);
                }
            }
            ring.give_back(&mut tickets);
        });
        for partition in reports.probes() {
            lock(probed).insert(partition);
        }
        for trouble in reports.troubles() {
            problems.trouble(&trouble);
            lock(silences).trouble(&trouble.what);
        }
    }
}
