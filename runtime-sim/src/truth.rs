//! What truly happened, counted separately from the code under test: the oracle's side of every comparison.
//!
//! Each message carries a [`Mark`] beside its payload, so that it can be identified even where the product cannot
//! (payloads without header, damaged ones). The logs only grow; checks walk them with a cursor. Each run has its own
//! [`Truth`], since two controllers may want the same workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use omb_bench::{
    id::{ConsumerId, ProducerId, SubscriptionId},
    rate::Tempo,
    stats::tally::Seen,
};
use omb_machine::time::Instant;
use serde::{Deserialize, Serialize};

/// Which message a record is, whatever its payload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// The producer.
    pub producer: ProducerId,
    /// Its number among the producer's messages; of a probe, its number among the probes.
    pub sequence: u64,
    /// A probe counts nowhere.
    pub probe: bool,
}

/// A partition on the broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic's name.
    pub topic: String,
    /// Its partition.
    pub partition: u32,
}

/// A message that was handed to the client library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which.
    pub mark: Mark,
    /// By which worker.
    pub worker: u32,
    /// When it was meant to leave, by the schedule.
    pub intended: Instant,
    /// When it left.
    pub sent: Instant,
    /// When it left, in true time.
    pub at: Duration,
    /// Index into [`WorkerTruth::schedules`].
    pub schedule: usize,
}

/// A message that the broker confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Which.
    pub mark: Mark,
    /// To which worker.
    pub worker: u32,
    /// The partition, as reported by the broker.
    pub place: Place,
    /// The offset.
    pub offset: i64,
    /// From its intended instant until the confirmation, ns.
    pub from_intended: u64,
    /// From when it was sent until the confirmation, ns.
    pub from_sent: u64,
    /// Its payload's length.
    pub bytes: u64,
}

/// A message handed to a consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// The subscription.
    pub subscription: SubscriptionId,
    /// Its consumer.
    pub consumer: ConsumerId,
    /// The worker.
    pub worker: u32,
    /// The message.
    pub mark: Mark,
    /// The partition it was read from.
    pub place: Place,
    /// The offset.
    pub offset: i64,
    /// Its payload's length.
    pub bytes: u64,
    /// The payload was damaged on the way.
    pub damaged: bool,
    /// The payload has no header: too small for one.
    pub bare: bool,
    /// From its intended instant until now by the clocks as corrected, ns; `None` where the product records nothing.
    pub from_intended: Option<i64>,
    /// The same in true time.
    pub truly: i64,
}

/// What the product should have counted up to some instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages handed to the client library.
    pub attempted: u64,
    /// Of them, confirmed.
    pub acked: u64,
    /// Their payload bytes.
    pub acked_bytes: u64,
    /// Of the attempted, given up.
    pub failed: u64,
    /// Messages that `catchUp` or a change of rate gave up.
    pub skipped: u64,
    /// Messages that were handed to consumers.
    pub received: u64,
    /// Their payload bytes.
    pub received_bytes: u64,
    /// Of them, those that the same subscription was handed from the same position before, at the same worker.
    pub reread: u64,
    /// Of them, damaged ones.
    pub corrupted: u64,
    /// Of them, those that cannot be identified.
    pub headerless: u64,
    /// By subscription.
    pub seen: BTreeMap<SubscriptionId, Seen>,
}

impl Counts {
    /// Adds another worker's.
    pub fn merge(&mut self, other: &Self) {
        self.attempted += other.attempted;
        self.acked += other.acked;
        self.acked_bytes += other.acked_bytes;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.reread += other.reread;
        self.corrupted += other.corrupted;
        self.headerless += other.headerless;
        for (subscription, seen) in &other.seen {
            self.seen.entry(*subscription).or_default().merge(seen);
        }
    }
}

/// The product's latencies, each a list that only grows.
#[derive(Clone, Debug, Default)]
pub struct Samples {
    /// Sent minus intended.
    pub schedule_error: Vec<u64>,
    /// When each of them was meant to leave.
    pub intended: Vec<Instant>,
    /// Confirmed minus intended.
    pub acked_from_intended: Vec<u64>,
    /// Confirmed minus sent.
    pub acked_from_sent: Vec<u64>,
    /// Received minus intended.
    pub received_from_intended: Vec<u64>,
}

impl Samples {
    fn ends(&self) -> [usize; 4] {
        [
            self.schedule_error.len(),
            self.acked_from_intended.len(),
            self.acked_from_sent.len(),
            self.received_from_intended.len(),
        ]
    }

    /// All four.
    #[must_use]
    pub fn all(&self) -> [&[u64]; 4] {
        [&self.schedule_error, &self.acked_from_intended, &self.acked_from_sent, &self.received_from_intended]
    }
}

/// What one read must report.
#[derive(Clone, Debug, Default)]
pub struct Reported {
    /// Numbers.
    pub counts: Counts,
    /// For each list in [`Samples`], the range.
    pub samples: [(usize, usize); 4],
    /// Of the schedule errors, only those of messages that were meant to leave before this.
    pub intended_before: Option<Instant>,
}

/// A schedule that a worker's producers follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// When message 0 of the run is due, by the worker's clock.
    pub start: Instant,
    /// The same in true time, ns since the simulation began.
    pub truly: i64,
    /// When it was given, in true time.
    pub given: Duration,
    /// Total rate of the run.
    pub tempo: Tempo,
    /// How long it lasts, if that was known then.
    pub lasts: Option<Duration>,
    /// Producers of the whole run.
    pub producers: u32,
}

/// One worker's part of a run.
#[derive(Debug, Default)]
pub struct WorkerTruth {
    /// What should have been counted by now.
    pub counts: Counts,
    /// Latencies, of all lives of the process.
    pub samples: Samples,
    born: [usize; 4],
    /// Its schedules: the start of a load, then each change of rate.
    pub schedules: Vec<Schedule>,
    /// Of them, the first of the process's life.
    pub first_schedule: usize,
    /// How often it has performed each command in this life of the process, by name.
    pub performed: BTreeMap<&'static str, u32>,
    /// What each read should have reported, by when it was taken.
    pub reads: BTreeMap<Instant, Reported>,
    /// Of them, those whose answer reached the controller, in order.
    pub taken: Vec<Instant>,
    /// How far [`Truth::acks`] and [`Truth::handed`] went when it last compared confirmed and received.
    pub verified: Option<(usize, usize)>,
    /// Producers and consumers that are alive in it.
    pub producers: BTreeSet<ProducerId>,
    /// See `producers`.
    pub consumers: BTreeSet<ConsumerId>,
    /// When a lease of its controller ended here, in true time.
    pub leases_ended: Vec<Duration>,
    /// It was ordered to close the run, was restarted, or has left the run itself.
    pub excused: bool,
    /// Its check found something that prevents the run.
    pub in_the_way: bool,
    /// When messages were confirmed to it in this life, by its own clock, in order.
    pub acked_at: Vec<Instant>,
    /// When its last message left, in true time.
    pub last_attempt: Option<Duration>,
    seen: Reported,
    departed: BTreeMap<ProducerId, u64>,
    distinct: BTreeMap<SubscriptionId, BTreeSet<(ProducerId, u64)>>,
    newest: BTreeMap<(ConsumerId, Place, ProducerId), u64>,
    read: BTreeSet<(SubscriptionId, Place, i64)>,
}

impl WorkerTruth {
    /// The process begins to count from nothing.
    pub fn begin(&mut self) {
        self.counts = Counts::default();
        self.born = self.samples.ends();
        self.first_schedule = self.schedules.len();
        self.departed.clear();
        self.distinct.clear();
        self.newest.clear();
        self.read.clear();
        self.verified = None;
        self.performed.clear();
        self.in_the_way = false;
        self.acked_at.clear();
        self.leave();
    }

    /// None of its producers and consumers is alive any more.
    pub fn leave(&mut self) {
        self.producers.clear();
        self.consumers.clear();
    }

    /// Messages of this producer that left so far.
    pub fn sent_by(&mut self, producer: ProducerId) -> &mut u64 {
        self.departed.entry(producer).or_default()
    }

    /// A read is answered: this is what it must report.
    pub fn read(&mut self, at: Instant) {
        let ends = self.samples.ends();
        let samples = std::array::from_fn(|nth| (self.born[nth], ends[nth]));
        self.reads.insert(at, Reported { counts: self.counts.clone(), samples, intended_before: None });
    }

    /// The state is recorded, to be reported later.
    pub fn look(&mut self) {
        let ends = self.samples.ends();
        let samples = std::array::from_fn(|nth| (self.born[nth], ends[nth]));
        self.seen = Reported { counts: self.counts.clone(), samples, intended_before: None };
    }

    /// What a read of a window that ended at `end` must report: the state recorded then, with the messages that have
    /// left by now; if the end is the one of the warm-up, those that were meant to leave before it.
    pub fn read_of_window(&mut self, end: Instant, only_before: bool) {
        let mut read = self.seen.clone();
        let to = self.samples.intended.len();
        read.samples[0].1 = to;
        let left = &self.samples.intended[self.born[0]..to];
        read.counts.attempted = if only_before {
            read.intended_before = Some(end);
            left.iter().filter(|intended| **intended < end).count() as u64
        } else {
            left.len() as u64
        };
        self.reads.insert(end, read);
    }

    /// The answer of a read reached the controller.
    pub fn take(&mut self, at: Instant) {
        if self.taken.last().is_none_or(|last| *last != at) {
            self.taken.push(at);
        }
    }

    /// What the controller knows of it; `before` counts reads back.
    #[must_use]
    pub fn reported(&self, before: usize) -> Option<&Reported> {
        let nth = self.taken.len().checked_sub(before + 1)?;
        self.reads.get(&self.taken[nth])
    }

    fn count_handed(&mut self, handed: &Handed) {
        let counts = &mut self.counts;
        counts.received += 1;
        counts.received_bytes += handed.bytes;
        let reread = !self.read.insert((handed.subscription, handed.place.clone(), handed.offset));
        counts.reread += u64::from(reread);
        counts.corrupted += u64::from(handed.damaged);
        let anonymous = handed.damaged || handed.bare;
        counts.headerless += u64::from(anonymous);
        if let Some(span) = handed.from_intended.filter(|_| !reread) {
            self.samples.received_from_intended.push(span.max(0).cast_unsigned());
        }
        let seen = counts.seen.entry(handed.subscription).or_default();
        seen.received += 1;
        if anonymous {
            // The product cannot identify them, and takes each for another one, unless it comes from the same position.
            seen.distinct += u64::from(!reread);
            seen.reread += u64::from(reread);
            return;
        }
        let Mark { producer, sequence, .. } = handed.mark;
        let newest = self.newest.entry((handed.consumer, handed.place.clone(), producer)).or_insert(sequence);
        let after_later = sequence < *newest;
        *newest = sequence.max(*newest);
        if self.distinct.entry(handed.subscription).or_default().insert((producer, sequence)) {
            seen.distinct += 1;
            seen.reordered += u64::from(after_later);
        } else if reread {
            seen.reread += 1;
        } else {
            // The broker holds it twice.
            seen.duplicated += 1;
        }
    }
}

/// A group as the broker has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupTruth {
    /// Its members, if all have been assigned their partitions.
    pub now: Option<usize>,
    /// The most there ever were.
    pub most: usize,
    /// The generation in which that last held, and since when.
    pub stable: (i32, Duration),
}

/// Everything that happened in one run.
#[derive(Debug, Default)]
pub struct Truth {
    /// Messages that left, in order.
    pub attempts: Vec<Attempt>,
    /// Confirmations, in order.
    pub acks: Vec<Ack>,
    /// Messages handed to consumers, in order.
    pub handed: Vec<Handed>,
    /// By partition, what the broker stored at each offset from 0; `None` if stored and dropped within one step.
    pub stored: BTreeMap<Place, Vec<Option<Mark>>>,
    /// Records that were stored, in order: partition and offset.
    pub storings: Vec<(Place, i64)>,
    /// By worker.
    pub workers: Vec<WorkerTruth>,
    /// The consumers exist, and are to read everything.
    pub reading: bool,
    /// Groups that lost all their members while they were to read: what they had not read could be dropped.
    pub groups_emptied: BTreeSet<String>,
    /// Its topics and groups that exist on the broker at this instant.
    pub left_over: BTreeSet<String>,
    /// The groups as the broker has them.
    pub groups: BTreeMap<String, GroupTruth>,
    /// By worker, the shortest time that a clock answer has taken so far, and when that was.
    pub clock_answers: BTreeMap<u32, (Duration, Duration)>,
}

impl Truth {
    /// Of a run over so many workers.
    #[must_use]
    pub fn new(workers: u32) -> Self {
        Self { workers: (0..workers).map(|_| WorkerTruth::default()).collect(), ..Self::default() }
    }

    /// One worker's part.
    pub fn worker(&mut self, worker: u32) -> &mut WorkerTruth {
        &mut self.workers[worker as usize]
    }

    /// What all workers should have counted by now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut sum = Counts::default();
        self.workers.iter().for_each(|worker| sum.merge(&worker.counts));
        sum
    }

    /// A message left.
    pub fn attempted(&mut self, attempt: Attempt) {
        let worker = self.worker(attempt.worker);
        worker.counts.attempted += 1;
        worker.samples.schedule_error.push(attempt.sent.0.saturating_sub(attempt.intended.0));
        worker.samples.intended.push(attempt.intended);
        worker.last_attempt = Some(attempt.at);
        self.attempts.push(attempt);
    }

    /// A message was confirmed.
    pub fn acked(&mut self, ack: Ack) {
        let worker = self.worker(ack.worker);
        worker.counts.acked += 1;
        worker.counts.acked_bytes += ack.bytes;
        worker.samples.acked_from_intended.push(ack.from_intended);
        worker.samples.acked_from_sent.push(ack.from_sent);
        self.acks.push(ack);
    }

    /// A message was handed to a consumer. Probes are recorded but count nowhere.
    pub fn handed(&mut self, handed: Handed) {
        if !handed.mark.probe {
            self.worker(handed.worker).count_handed(&handed);
        }
        self.handed.push(handed);
    }
}
