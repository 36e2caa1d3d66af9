//! A receiving thread: one consumer, polled in batches.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use omb_core::{
    load::receiver::{Ledger, Receiver},
    stats::tally::Arrivals,
    time::{Instant, WallTime},
};

use super::{Problems, lock};
use crate::{
    clock::{self, FleetTime},
    driver::Consumer,
};

/// Longest a poll blocks.
const PATIENCE: Duration = Duration::from_millis(100);
/// Messages after which the counts are made visible, even if more are waiting.
const ENTER_AFTER: u32 = 1_024;
/// Messages that share one reading of the clock, at most: some 2 µs at the highest rates.
const PER_READING: u32 = 8;
/// How often the broker is told how far we have read. Upstream does it after every poll, which floods the broker.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How often the assignment is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What the control thread tells a receiving thread, and hears from it.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) stop: AtomicBool,
    pub(crate) paused: AtomicBool,
}

/// What a receiving thread shares with others.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Counts, with some of the other consumers.
    pub(crate) arrivals: Arc<Mutex<Arrivals>>,
    /// What the subscription has seen, with the group's other members.
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    /// Partitions that this consumer has been given.
    pub(crate) assigned: Arc<AtomicU32>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) problems: Arc<Problems>,
    /// Whether we commit, and not the client by itself.
    pub(crate) commits: bool,
    /// The time that messages are stamped in.
    pub(crate) time: Arc<FleetTime>,
}

/// Receives until it is ordered to stop.
pub(crate) fn run(mut consumer: Box<dyn Consumer>, mut receiver: Receiver, shared: &Shared) {
    let Shared { arrivals, ledger, assigned, orders, problems, commits, time } = shared;
    let (mut committed, mut looked, mut is_paused) = (clock::now(), Instant::ZERO, (false, 0));
    while !orders.stop.load(Relaxed) {
        let mut batch = Batch { receiver: &mut receiver, arrivals, ledger, held: None, taken: 0, now: WallTime(0) };
        consumer.poll(if assigned.load(Relaxed) == 0 { LOOK_EVERY } else { PATIENCE }, &mut |incoming| {
            batch.take(incoming.partition, incoming.payload, incoming.timestamp, time);
        });
        batch.enter();
        let now = clock::now();
        if now.since(looked) >= LOOK_EVERY {
            looked = now;
            let count = consumer.assigned();
            assigned.store(count, Relaxed);
            // Partitions that are given anew come unpaused.
            let wanted = (orders.paused.load(Relaxed), count);
            if wanted != is_paused {
                if wanted.0 || is_paused.0 {
                    consumer.set_paused(wanted.0);
                }
                is_paused = wanted;
            }
            consumer.troubles().iter().for_each(|trouble| problems.add(trouble));
        }
        if *commits && now.since(committed) >= COMMIT_EVERY {
            committed = now;
            consumer.commit();
        }
    }
}

/// The messages of one poll. The shared counts are locked from the first message on and let go now and then.
struct Batch<'a> {
    receiver: &'a mut Receiver,
    arrivals: &'a Mutex<Arrivals>,
    ledger: &'a Mutex<Ledger>,
    held: Option<MutexGuard<'a, Arrivals>>,
    taken: u32,
    now: WallTime,
}

impl Batch<'_> {
    #[inline]
    fn take(&mut self, partition: u32, payload: &[u8], timestamp: Option<WallTime>, time: &FleetTime) {
        if self.taken.is_multiple_of(PER_READING) {
            self.now = WallTime(time.zero().0 + clock::now().0);
        }
        self.taken += 1;
        let arrivals = self.held.get_or_insert_with(|| lock(self.arrivals));
        // Without a header only the producer's timestamp tells when it was sent; the receiver takes it where both have
        // this machine's clock.
        self.receiver.on_message(arrivals, self.now, partition, payload, timestamp.map(|wall| time.of(wall)));
        if self.taken >= ENTER_AFTER {
            self.enter();
        }
    }

    fn enter(&mut self) {
        self.taken = 0;
        if Ledger::is_behind(self.receiver) {
            lock(self.ledger).enter(self.receiver);
        }
        self.held = None;
    }
}
