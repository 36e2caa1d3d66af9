//! A reporting thread: blocks until a client has delivery reports, counts them, gives their buffers back.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use omb_bench::{
    load::{sender::Confirmations, silence::Silences},
    stats::tally::Acknowledgements,
};
use omb_kafka::reason::of_code;

use super::{
    Problems, lock,
    ring::{Ring, Ticket, View},
};
use crate::driver::Reports;

/// Longest a thread blocks without checking whether it is still needed.
const PATIENCE: Duration = Duration::from_millis(100);

/// What happens to one producer's messages.
#[derive(Debug)]
pub(crate) struct Reported {
    view: View,
    ring: Arc<Ring>,
    /// Counts, with some of the other producers.
    tally: Arc<Mutex<Acknowledgements>>,
    confirmations: Arc<Mutex<Confirmations>>,
    /// Partitions in which its probe was stored.
    probed: Arc<Mutex<BTreeSet<u32>>>,
    tickets: Vec<Ticket>,
}

impl Reported {
    pub(crate) fn new(
        ring: &Arc<Ring>,
        tally: &Arc<Mutex<Acknowledgements>>,
        confirmations: &Arc<Mutex<Confirmations>>,
        probed: &Arc<Mutex<BTreeSet<u32>>>,
    ) -> Self {
        Self {
            view: ring.view(),
            ring: Arc::clone(ring),
            tally: Arc::clone(tally),
            confirmations: Arc::clone(confirmations),
            probed: Arc::clone(probed),
            tickets: Vec::new(),
        }
    }
}

/// Takes reports until `stop`: those of all producers of one client, `producers` in their order there.
pub(crate) fn run(
    mut reports: Box<dyn Reports>,
    mut producers: Vec<Reported>,
    problems: &Problems,
    silences: &Mutex<Silences>,
    stop: &AtomicBool,
) {
    while !stop.load(Relaxed) {
        reports.wait(PATIENCE, &mut |now, batch| {
            let mut acked = false;
            let mut batch = batch.drain(..).peekable();
            // Reports of one producer come in a row.
            while let Some(place) = batch.peek().map(|report| report.producer) {
                let producer = &mut producers[place];
                {
                    let mut tally = lock(&producer.tally);
                    let mut confirmations = lock(&producer.confirmations);
                    let before = tally.acked;
                    while let Some(report) = batch.next_if(|report| report.producer == place) {
                        if let Some(why) = report.failed {
                            tally.failed += 1;
                            problems.add(&format!("a message was not delivered: {}", of_code(why)));
                        } else {
                            let note = producer.view.note(&report.ticket);
                            confirmations.acked(&mut tally, now, note, report.bytes);
                        }
                        producer.tickets.push(report.ticket);
                    }
                    acked |= tally.acked > before;
                }
                producer.ring.give_back(&mut producer.tickets);
            }
            if acked {
                lock(silences).acked(now);
            }
        });
        for (place, partition) in reports.probes() {
            lock(&producers[place].probed).insert(partition);
        }
        for trouble in reports.troubles() {
            problems.trouble(&trouble);
            lock(silences).trouble(&trouble.what);
        }
    }
}
