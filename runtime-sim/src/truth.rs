//! What truly happened, counted apart from the code under test: the oracle's side of every comparison.
//!
//! Each message carries a [`Mark`] beside its payload, so that it can be told apart even where the product cannot
//! (payloads without header, damaged ones). The logs only grow; checks walk them with a cursor.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use omb_core::{
    id::{ConsumerId, ProducerId, SubscriptionId},
    stats::{latency::Latency, tally::Seen},
    time::Instant,
};
use serde::{Deserialize, Serialize};

/// Which message a record is, whatever its payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    /// Who sent it.
    pub producer: ProducerId,
    /// Its number among the producer's messages; of a probe, its number among the probes.
    pub sequence: u64,
    /// A probe counts nowhere.
    pub probe: bool,
}

/// A place on the broker.
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
    /// When it was meant to leave, by the schedule.
    pub intended: Instant,
    /// When it left.
    pub sent: Instant,
    /// Under which of [`Truth::rates`].
    pub rate: usize,
}

/// A message that the broker confirmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// Which.
    pub mark: Mark,
    /// Where the broker says it is.
    pub place: Place,
    /// At which offset.
    pub offset: i64,
    /// From its intended instant until the confirmation, ns.
    pub from_intended: u64,
    /// From when it was sent until the confirmation, ns.
    pub from_sent: u64,
    /// Its payload's length.
    pub bytes: u64,
}

/// A message that a consumer was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handed {
    /// To whom.
    pub subscription: SubscriptionId,
    /// To which of its consumers.
    pub consumer: ConsumerId,
    /// Which message.
    pub mark: Mark,
    /// From where.
    pub place: Place,
    /// At which offset.
    pub offset: i64,
    /// Its payload's length.
    pub bytes: u64,
    /// The payload was damaged on the way.
    pub damaged: bool,
    /// The payload has no header: too small for one.
    pub bare: bool,
    /// From its intended instant until now by the consumer's wall clock, ns; `None` where the product records nothing.
    pub from_intended: Option<i64>,
}

/// What the product should have counted up to some instant.
#[derive(Clone, Debug, Default)]
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
    /// Of them, damaged ones.
    pub corrupted: u64,
    /// Of them, those that cannot be told apart.
    pub headerless: u64,
    /// By subscription.
    pub seen: BTreeMap<SubscriptionId, Seen>,
    /// Sent minus intended.
    pub schedule_error: Latency,
    /// Confirmed minus intended.
    pub acked_from_intended: Latency,
    /// Confirmed minus sent.
    pub acked_from_sent: Latency,
    /// Received minus intended.
    pub received_from_intended: Latency,
}

/// Everything that happened.
#[derive(Debug, Default)]
pub struct Truth {
    /// Messages that left, in order.
    pub attempts: Vec<Attempt>,
    /// Confirmations, in order.
    pub acks: Vec<Ack>,
    /// Messages given to consumers, in order.
    pub handed: Vec<Handed>,
    /// By place, what the broker stored at each offset from 0; `None` where it was stored and dropped within one step.
    pub stored: BTreeMap<Place, Vec<Option<Mark>>>,
    /// Records that came to be stored, in order: where, and at which offset.
    pub storings: Vec<(Place, i64)>,
    /// When the load was started, at what total rate and over how many producers; then each change of it.
    pub rates: Vec<(Instant, omb_core::plan::rate::Rate, u32)>,
    /// What should have been counted by now.
    pub counts: Counts,
    /// What should have been counted at each of the last reads, oldest first. Older ones tell nothing: a controller has
    /// one read under way at a time, and a few fail before it gives up.
    pub at_reads: VecDeque<Counts>,
    /// What the comparison of confirmed and received should have found: confirmed, and missing of them.
    pub verdict: BTreeMap<SubscriptionId, (u64, u64)>,
    /// The consumers are there, and are to read all there is.
    pub reading: bool,
    /// Groups that lost all their members while they were to read: what they had not read was free to go.
    pub groups_emptied: BTreeSet<String>,
    /// When the last message left.
    pub last_attempt: Option<Duration>,
    /// Messages that left, by producer.
    departed: BTreeMap<ProducerId, u64>,
    distinct: BTreeMap<SubscriptionId, BTreeSet<(ProducerId, u64)>>,
    newest: BTreeMap<(ConsumerId, Place, ProducerId), u64>,
}

/// See [`Truth::at_reads`].
const READS_KEPT: usize = 8;

impl Truth {
    /// Messages of this producer that left so far.
    pub fn sent_by(&mut self, producer: ProducerId) -> &mut u64 {
        self.departed.entry(producer).or_default()
    }

    /// A message left.
    pub fn attempted(&mut self, at: Duration, attempt: Attempt) {
        self.counts.attempted += 1;
        self.counts.schedule_error.record(attempt.sent.0.saturating_sub(attempt.intended.0));
        self.last_attempt = Some(at);
        self.attempts.push(attempt);
    }

    /// A message was confirmed.
    pub fn acked(&mut self, ack: Ack) {
        self.counts.acked += 1;
        self.counts.acked_bytes += ack.bytes;
        self.counts.acked_from_intended.record(ack.from_intended);
        self.counts.acked_from_sent.record(ack.from_sent);
        self.acks.push(ack);
    }

    /// A message was given to a consumer. Probes are noted but count nowhere.
    pub fn handed(&mut self, handed: Handed) {
        if !handed.mark.probe {
            self.count_handed(&handed);
        }
        self.handed.push(handed);
    }

    fn count_handed(&mut self, handed: &Handed) {
        let counts = &mut self.counts;
        counts.received += 1;
        counts.received_bytes += handed.bytes;
        counts.corrupted += u64::from(handed.damaged);
        let anonymous = handed.damaged || handed.bare;
        counts.headerless += u64::from(anonymous);
        if let Some(span) = handed.from_intended {
            counts.received_from_intended.record(span.max(0).cast_unsigned());
        }
        let seen = counts.seen.entry(handed.subscription).or_default();
        seen.received += 1;
        if anonymous {
            // The product cannot know them, and takes each for another one.
            seen.distinct += 1;
            return;
        }
        let Mark { producer, sequence, .. } = handed.mark;
        let newest = self.newest.entry((handed.consumer, handed.place.clone(), producer)).or_insert(sequence);
        let after_later = sequence < *newest;
        *newest = sequence.max(*newest);
        if self.distinct.entry(handed.subscription).or_default().insert((producer, sequence)) {
            seen.distinct += 1;
            seen.reordered += u64::from(after_later);
        } else {
            seen.duplicated += 1;
        }
    }

    /// A read was answered: this is what it had to say.
    pub fn read(&mut self) {
        if self.at_reads.len() == READS_KEPT {
            self.at_reads.pop_front();
        }
        self.at_reads.push_back(self.counts.clone());
    }

    /// Confirmed and received of one subscription, compared message by message.
    #[must_use]
    pub fn missing(&self, subscription: SubscriptionId, producers: impl Fn(ProducerId) -> bool) -> (u64, u64) {
        let acked: BTreeSet<(ProducerId, u64)> = self
            .acks
            .iter()
            .map(|ack| (ack.mark.producer, ack.mark.sequence))
            .filter(|(producer, _)| producers(*producer))
            .collect();
        let none = BTreeSet::new();
        let received = self.distinct.get(&subscription).unwrap_or(&none);
        (acked.len() as u64, acked.difference(received).count() as u64)
    }
}
