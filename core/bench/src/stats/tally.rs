//! What is counted, cumulative from the start of the load; differences of two states make a period.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    id::SubscriptionId,
    stats::latency::{Latency, NotCumulative},
};
use omb_machine::time::Instant;

/// Messages that left: counted by the sending thread.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Departures {
    /// Messages handed to the client library. Probes do not count, here or anywhere.
    pub attempted: u64,
    /// Messages that were due and never sent: given up by `catchUp`, at a change of the rate, or when the load ended
    /// before the client had room for them.
    pub skipped: u64,
    /// Sent minus intended, ns: how far the sender itself lagged behind the schedule.
    pub schedule_error: Latency,
}

/// Outcomes of messages that left: counted where delivery reports arrive.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Acknowledgements {
    /// Messages that the broker confirmed.
    pub acked: u64,
    /// Their payload bytes.
    pub acked_bytes: u64,
    /// Messages that left without being confirmed, or not even left: those [refused](Self::refused), and those that were
    /// given up. Of the latter some may have been stored all the same: unknown, not absent.
    pub failed: u64,
    /// Of them, those that our own client refused to take. They were never sent, so they are stored nowhere.
    pub refused: u64,
    /// Confirmed minus intended, ns: the headline, which no stall of the sender can hide.
    pub from_intended: Latency,
    /// Confirmed minus sent, ns: what the messaging system itself took. Upstream's publish latency.
    pub from_sent: Latency,
}

impl Acknowledgements {
    /// Messages that the client took and gave up: whether they are stored is unknown.
    #[must_use]
    pub fn given_up(&self) -> u64 {
        self.failed.saturating_sub(self.refused)
    }
}

/// [`Departures`] on both sides of the instant from which on it is measured, by when each message was meant to leave: so
/// neither a sender that wakes up late nor a read that comes late moves a message from one side to the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parted {
    /// What was due before.
    pub before: Departures,
    /// What was due from then on.
    pub counted: Departures,
}

impl Parted {
    /// The side of what was due at `intended`, if it is measured from `from` on.
    #[inline]
    pub fn of(&mut self, intended: Instant, from: Instant) -> &mut Departures {
        if intended < from { &mut self.before } else { &mut self.counted }
    }

    /// Both sides together.
    #[must_use]
    pub fn whole(&self) -> Departures {
        let mut whole = self.before.clone();
        whole.merge(&self.counted);
        whole
    }
}

/// Messages that arrived: counted by each consumer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Arrivals {
    /// Messages handed over by the client, whatever they held. Probes do not count.
    pub received: u64,
    /// Their payload bytes.
    pub received_bytes: u64,
    /// Of them, those from a place that the subscription had read before, as one does after a rebalance. They have no
    /// latency: it would tell how long the group took, not the system.
    pub reread: u64,
    /// Of them, those whose checksum does not fit.
    pub corrupted: u64,
    /// Of them, those without our header: too small for one, or somebody else's. Not told apart by sequence.
    pub headerless: u64,
    /// Of them, those that arrived at or before the instant they were meant to leave: two clocks disagree.
    pub before_intended: u64,
    /// Received minus intended, ns, by the wall clock in the header; not of messages read again.
    pub from_intended: Latency,
    /// Received minus sent, ns. Upstream's end-to-end latency, but in ns and with nothing dropped.
    pub from_sent: Latency,
}

/// What one subscription has seen of its producers' sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Messages received, repeats included: those below but [`Self::reordered`] add up to it.
    pub received: u64,
    /// Different messages among them; those without header count as different.
    pub distinct: u64,
    /// Messages received once more from another place: the system holds them twice.
    pub duplicated: u64,
    /// Messages received once more from the same place: read again, as one does after a rebalance.
    #[serde(default)]
    pub reread: u64,
    /// Messages that came after a later one of the same producer in the same partition.
    pub reordered: u64,
}

/// Everything counted, of one worker or of all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Messages that left.
    pub departures: Departures,
    /// What became of them.
    pub acknowledgements: Acknowledgements,
    /// Messages that arrived.
    pub arrivals: Arrivals,
    /// By subscription.
    pub seen: BTreeMap<SubscriptionId, Seen>,
}

/// Applies a binary operation to every number of two tallies, so that merging and subtracting cannot
/// forget a field that the other knows.
macro_rules! each_field {
    ($tally:ident $(, $twin:ident, $sum:ident)? { counts: $($count:ident),* ; latencies: $($latency:ident),* }) => {
        impl $tally {
            /// Adds another tally's counts and samples. Sums saturate.
            pub fn merge(&mut self, other: &Self) {
                $(self.$count = self.$count.saturating_add(other.$count);)*
                $(self.$latency.merge(&other.$latency);)*
            }

            /// What came since `earlier`, an older state of the same tally.
            ///
            /// # Errors
            /// If any number went backwards.
            pub fn since(&self, earlier: &Self) -> Result<Self, NotCumulative> {
                Ok(Self {
                    $($count: self.$count.checked_sub(earlier.$count).ok_or(NotCumulative)?,)*
                    $($latency: self.$latency.since(&earlier.$latency)?,)*
                })
            }
        }
    };
}

/// The one list of what the tallies hold: what adds, subtracts and sends them is made from it.
macro_rules! tallies {
    ($make:ident) => {
        $make!(Departures, SparseDepartures, DeparturesSum { counts: attempted, skipped; latencies: schedule_error });
        $make!(Acknowledgements, SparseAcknowledgements, AcknowledgementsSum {
            counts: acked, acked_bytes, failed, refused;
            latencies: from_intended, from_sent
        });
        $make!(Arrivals, SparseArrivals, ArrivalsSum {
            counts: received, received_bytes, reread, corrupted, headerless, before_intended;
            latencies: from_intended, from_sent
        });
    };
}
pub(super) use tallies;

tallies!(each_field);
each_field!(Seen { counts: received, distinct, duplicated, reread, reordered; latencies: });

impl Totals {
    /// Adds another worker's totals.
    pub fn merge(&mut self, other: &Self) {
        self.departures.merge(&other.departures);
        self.acknowledgements.merge(&other.acknowledgements);
        self.arrivals.merge(&other.arrivals);
        for (subscription, seen) in &other.seen {
            self.seen.entry(*subscription).or_default().merge(seen);
        }
    }

    /// What came since `earlier`, an older state of the same totals.
    ///
    /// # Errors
    /// If any number went backwards, or a subscription vanished.
    pub fn since(&self, earlier: &Self) -> Result<Self, NotCumulative> {
        if earlier.seen.keys().any(|subscription| !self.seen.contains_key(subscription)) {
            return Err(NotCumulative);
        }
        let nothing = Seen::default();
        let seen = self.seen.iter().map(|(subscription, seen)| {
            Ok((*subscription, seen.since(earlier.seen.get(subscription).unwrap_or(&nothing))?))
        });
        Ok(Self {
            departures: self.departures.since(&earlier.departures)?,
            acknowledgements: self.acknowledgements.since(&earlier.acknowledgements)?,
            arrivals: self.arrivals.since(&earlier.arrivals)?,
            seen: seen.collect::<Result<_, _>>()?,
        })
    }

    /// Confirmed messages that subscriptions have not received yet, over all `subscriptions`: the backlog.
    ///
    /// A subscription may be ahead of the confirmations, which then count as none.
    #[must_use]
    pub fn unread(&self, subscriptions: u64) -> u64 {
        let received = self.seen.values().fold(0_u64, |sum, seen| sum.saturating_add(seen.distinct));
        self.acknowledgements.acked.saturating_mul(subscriptions).saturating_sub(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(acked: u64, received: u64) -> Totals {
        let mut totals = Totals::default();
        for n in 0..acked {
            totals.acknowledgements.acked += 1;
            totals.acknowledgements.from_sent.record(n);
        }
        totals.seen.insert(SubscriptionId(0), Seen { received, distinct: received, ..Seen::default() });
        totals
    }

    #[test]
    fn periods_add_up_to_the_total() {
        let (start, end) = (totals(3, 1), totals(10, 7));
        let period = end.since(&start).expect("start is older");
        assert_eq!((period.acknowledgements.acked, period.seen[&SubscriptionId(0)].received), (7, 6));
        let mut sum = start;
        sum.merge(&period);
        assert_eq!(sum, end);
    }

    #[test]
    fn nothing_goes_backwards() {
        assert_eq!(totals(3, 1).since(&totals(4, 1)), Err(NotCumulative));
        assert_eq!(Totals::default().since(&totals(0, 0)), Err(NotCumulative));
    }

    #[test]
    fn unread_counts_every_subscription_and_never_below_none() {
        assert_eq!(totals(10, 7).unread(2), 13);
        assert_eq!(totals(3, 7).unread(1), 0);
    }
}
