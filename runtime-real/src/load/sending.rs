//! A sending thread: takes what is due from the schedule, stamps it, hands it to the client in batches.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use omb_bench::{
    config::workload::{CatchUp, KeyDistributor},
    id::ProducerId,
    load::{
        keys::{KeyTable, KeyWalk},
        sender::Sender,
    },
    plan::pace::Pace,
    rate::Tempo,
    stats::tally::Parted,
};
use omb_machine::time::Instant;

use super::{
    Problems, lock,
    ring::{Ring, Supply},
};
use crate::{
    clock::{self, FleetTime},
    driver::{Outgoing, Producer},
};

/// Messages handed to the client at once. More would make the first of a batch wait for the last.
const BATCH: usize = 256;
/// Least time between two wake-ups: at high rates what is due is sent in batches. Measured to cost 12 % of a core at
/// any rate, for a schedule error of half of it.
const NAP_MIN: Duration = Duration::from_micros(50);
/// How soon to look again for a free buffer.
const NAP_BLOCKED: Duration = Duration::from_micros(100);
/// Longest nap, so that an order to stop or to change the rate is noticed.
const NAP_MAX: Duration = Duration::from_millis(10);

/// A producer's sending half and its state.
pub(crate) struct Lane {
    pub(crate) id: ProducerId,
    /// The topic's partitions.
    pub(crate) partitions: u32,
    pub(crate) producer: Box<dyn Producer>,
    pub(crate) ring: Arc<Ring>,
    pub(crate) supply: Supply,
    pub(crate) sender: Sender,
}

/// What the control thread sets for all sending threads.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) stop: AtomicBool,
    /// Rises with each new schedule.
    version: AtomicU64,
    schedule: Mutex<Option<Schedule>>,
}

/// The rate of all lanes together; each sends its share.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) start: Instant,
    pub(crate) tempo: Tempo,
    /// Counted from `start`, if its end is known.
    pub(crate) lasts: Option<Duration>,
}

impl Orders {
    pub(crate) fn set_schedule(&self, schedule: Schedule) {
        *lock(&self.schedule) = Some(schedule);
        self.version.fetch_add(1, Relaxed);
    }
}

/// What all sending threads of a run share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) orders: Arc<Orders>,
    pub(crate) problems: Arc<Problems>,
    pub(crate) keys: KeyTable,
    pub(crate) how_keys: KeyDistributor,
    pub(crate) catch_up: CatchUp,
    /// The clock that messages are stamped with.
    pub(crate) time: Arc<FleetTime>,
    /// Producers of the whole run.
    pub(crate) producers: u32,
    /// What is due from then on is measured.
    pub(crate) measured_from: Instant,
}

/// What a sending thread counts.
#[derive(Debug)]
pub(crate) struct Counted {
    pub(crate) departures: Mutex<Parted>,
    /// Refused by the client at once; they have no delivery report.
    pub(crate) refused: AtomicU64,
    /// The age of the oldest message that is due but not sent, ns.
    pub(crate) lag: AtomicU64,
    /// Everything that is due before this instant has been handed over or skipped.
    pub(crate) passed: AtomicU64,
}

impl Default for Counted {
    fn default() -> Self {
        Self {
            departures: Mutex::default(),
            refused: AtomicU64::new(0),
            lag: AtomicU64::new(0),
            passed: AtomicU64::new(0),
        }
    }
}

/// A lane with its schedule and what waits for room in the client.
struct Paced {
    lane: Lane,
    pace: Option<Pace>,
    batch: Vec<Outgoing>,
    /// Intended and sent instants of the messages in `batch`.
    times: Vec<(Instant, Instant)>,
    skipped_before: u64,
}

/// Sends until ordered to stop; returns the lanes.
pub(crate) fn run(lanes: Vec<Lane>, common: &Common, counted: &Counted) -> Vec<Lane> {
    clock::sleep_precisely();
    let mut walk = KeyWalk::new(common.how_keys);
    let mut version = 0;
    let mut lanes: Vec<Paced> = lanes
        .into_iter()
        .map(|lane| Paced { lane, pace: None, batch: Vec::with_capacity(BATCH), times: Vec::new(), skipped_before: 0 })
        .collect();
    while !common.orders.stop.load(Relaxed) {
        let newest = common.orders.version.load(Relaxed);
        if newest != version {
            version = newest;
            let schedule = lock(&common.orders.schedule).clone();
            if let Some(schedule) = schedule {
                lanes.iter_mut().for_each(|lane| lane.reschedule(&schedule, common, counted));
            }
        }
        let now = clock::now();
        let (mut next, mut lag, mut passed) = (now + NAP_MAX, 0, u64::MAX);
        for lane in &mut lanes {
            let wake = lane.pump(now, common, counted, &mut walk);
            next = next.min(wake);
            if let Some(pace) = &lane.pace {
                lag = lag.max(now.0.saturating_sub(pace.next_at().0));
                // What waits in the batch has not been handed over.
                passed = passed.min(lane.times.first().map_or(pace.next_at().0, |(intended, _)| intended.0));
            }
        }
        counted.passed.store(passed, Relaxed);
        counted.lag.store(lag, Relaxed);
        if next > now {
            clock::sleep_until(next.max(now + NAP_MIN));
        }
    }
    counted.lag.store(0, Relaxed);
    lanes.into_iter().map(|paced| paced.give_up(common, counted)).collect()
}

impl Paced {
    /// A fresh schedule from `start`: what was due under the old one is given up, and counted.
    fn reschedule(&mut self, schedule: &Schedule, common: &Common, counted: &Counted) {
        let Schedule { start, tempo, lasts } = schedule.clone();
        self.drop_debt(start, common, counted);
        self.skipped_before = 0;
        let mine = vec![self.lane.id.0];
        self.pace = Some(Pace::new(start, tempo, lasts, common.producers, mine, common.catch_up));
    }

    /// What is due before `at` and was not sent is given up, and counted.
    fn drop_debt(&mut self, at: Instant, common: &Common, counted: &Counted) {
        let Some(mut old) = self.pace.take() else { return };
        let before = old.skipped() - self.skipped_before;
        let skipped = before + old.skip_until(at);
        lock(&counted.departures).of(at, common.measured_from).skipped += skipped;
    }

    /// Sends what is due, up to a batch. Returns when to call again: `now` or earlier means at once.
    fn pump(&mut self, now: Instant, common: &Common, counted: &Counted, walk: &mut KeyWalk) -> Instant {
        let Some(pace) = &mut self.pace else { return now + NAP_MAX };
        if pace.next_at() > now && self.batch.is_empty() {
            return pace.next_at();
        }
        let mut blocked = false;
        // Messages that the client had no room for leave now, regardless of their earlier stamp.
        for (outgoing, times) in self.batch.iter_mut().zip(&mut self.times) {
            times.1 = now;
            let note = self.lane.supply.noted(&outgoing.ticket);
            let note =
                self.lane.sender.restamp(self.lane.supply.payload(&mut outgoing.ticket), note, now, common.time.zero());
            self.lane.supply.note(&mut outgoing.ticket, note);
        }
        while self.batch.len() < BATCH {
            if pace.next_at() > now {
                break;
            }
            let Some(mut ticket) = self.lane.supply.take() else {
                blocked = true;
                break;
            };
            let Some(due) = pace.due(now) else {
                self.lane.supply.untake(ticket);
                break;
            };
            let payload = self.lane.supply.payload(&mut ticket);
            let note = self.lane.sender.stamp(payload, due.intended, now, common.time.zero());
            self.lane.supply.note(&mut ticket, note);
            let key = walk.next(now.0).map(|index| *common.keys.get(index));
            let payload = self.lane.supply.start(&ticket);
            self.batch.push(Outgoing { ticket, payload, key });
            self.times.push((due.intended, now));
        }
        if blocked && self.batch.is_empty() {
            return now + NAP_BLOCKED;
        }
        let skipped = pace.skipped();
        let offered = self.batch.len();
        let sent = self.lane.producer.send(&mut self.batch, self.lane.ring.size(), &self.lane.ring);
        let taken = offered - self.batch.len();
        {
            let mut departures = lock(&counted.departures);
            departures.of(now, common.measured_from).skipped += skipped - self.skipped_before;
            for (intended, left) in self.times.drain(..taken) {
                let departures = departures.of(intended, common.measured_from);
                departures.attempted += 1;
                departures.schedule_error.record(left.0.saturating_sub(intended.0));
            }
        }
        self.skipped_before = skipped;
        for (ticket, why) in sent.refused {
            counted.refused.fetch_add(1, Relaxed);
            // The error text reads like the broker's, but no broker was involved.
            let why = why.strip_prefix("Broker: ").unwrap_or(&why);
            common.problems.add(&format!("the client library refuses to send: {why}"));
            self.lane.supply.untake(ticket);
        }
        if sent.full || blocked { now + NAP_BLOCKED } else { self.pace.as_ref().map_or(now, Pace::next_at) }
    }

    /// The load is over: what the client had no room for never leaves. It was due and is given up, like the rest of the
    /// backlog: every message of the schedule has left or is counted as skipped.
    fn give_up(mut self, common: &Common, counted: &Counted) -> Lane {
        let now = clock::now();
        self.drop_debt(now, common, counted);
        lock(&counted.departures).of(now, common.measured_from).skipped += self.batch.len() as u64;
        for outgoing in self.batch.drain(..) {
            self.lane.supply.untake(outgoing.ticket);
        }
        self.lane
    }
}
