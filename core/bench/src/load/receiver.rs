//! The receiving side: what each arriving message says, and what a subscription has seen in all.
//!
//! A message may arrive twice for two reasons. The system may have stored it twice; then it has two offsets, and is a
//! duplicate. Or it is read again: after a rebalance the new owner of a partition begins at the group's last committed
//! offset, which lies behind the position already read. Then it comes from an offset that was read before, and says
//! nothing about the system.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

use crate::{
    id::ProducerId,
    load::header::{Front, Header},
    stats::{
        offsets::OffsetRanges,
        sequence::SequenceSet,
        tally::{Arrivals, Seen},
    },
};
use omb_machine::time::WallTime;

/// One consumer's view of the messages that reach it. All of its topic's producers send to it.
#[derive(Clone, Debug)]
pub struct Receiver {
    producers: ProducerRange,
    /// Whether its producers use the same clock.
    one_clock: bool,
    /// By partition and producer, one above the highest sequence seen there.
    next: Vec<u64>,
    /// By partition, how far it was read.
    read: Vec<Read>,
    progress: Arc<Progress>,
    /// Rises with each batch that is entered.
    batch: u32,
    /// Partitions of this batch.
    touched: Vec<u32>,
    /// What arrived since the ledger was last brought up to date.
    fresh: Vec<Arrived>,
    probed: Vec<Probed>,
}

/// How far a partition was read, as far as one consumer knows.
#[derive(Clone, Copy, Debug)]
struct Read {
    /// The highest offset.
    to: i64,
    /// The batch in which it was last looked up.
    batch: u32,
}

/// How far the consumers of one subscription at one worker have read each partition: offsets up to there were read
/// before. It is looked up once per batch and partition.
#[derive(Debug)]
pub struct Progress(Vec<AtomicI64>);

impl Progress {
    /// For a topic with this many partitions, of which nothing was read.
    #[must_use]
    pub fn new(partitions: u32) -> Self {
        Self((0..partitions).map(|_| AtomicI64::new(-1)).collect())
    }

    fn to(&self, partition: u32) -> i64 {
        self.0.get(partition as usize).map_or(-1, |offset| offset.load(Relaxed))
    }

    fn advance(&self, partition: u32, to: i64) {
        if let Some(offset) = self.0.get(partition as usize) {
            offset.fetch_max(to, Relaxed);
        }
    }
}

/// The producers of one topic, whose ids are consecutive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerRange {
    /// The first one's id.
    pub first: ProducerId,
    /// How many.
    pub count: u32,
}

impl ProducerRange {
    #[inline]
    fn place(self, producer: ProducerId) -> Option<u32> {
        let place = producer.0.wrapping_sub(self.first.0);
        (place < self.count).then_some(place)
    }
}

/// A message that arrived.
#[derive(Clone, Copy, Debug)]
struct Arrived {
    /// Its producer's place, or [`BARE`].
    place: u32,
    partition: u32,
    offset: i64,
    /// Its number. The highest bit says that a later one came before it.
    sequence: u64,
}

/// The place of a message that cannot be identified.
const BARE: u32 = u32::MAX;
/// A later message of the same producer and partition came before this one.
const AFTER_LATER: u64 = 1 << 63;

/// A probe that arrived.
#[derive(Clone, Copy, Debug)]
struct Probed {
    round: u64,
    place: u32,
    partition: u32,
}

/// Where a message came from, and when the client delivered it.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// When the client delivered it.
    pub now: WallTime,
    /// Its partition.
    pub partition: u32,
    /// Its offset there; negative if the system has none.
    pub offset: i64,
    /// The producer's timestamp, used where there is no header; `None` if the broker's stands in its place.
    pub sent: Option<WallTime>,
}

impl Receiver {
    /// For a consumer of a topic with these producers; `progress` is shared by all of its subscription at this worker.
    ///
    /// `one_clock` says whether all of them use this consumer's clock: only then does the timestamp of a message
    /// without header, which is its producer's, give a latency. Nothing in such a message says whose clock it was, so
    /// it cannot be corrected either.
    #[must_use]
    pub fn new(producers: ProducerRange, one_clock: bool, progress: Arc<Progress>) -> Self {
        Self {
            producers,
            one_clock,
            next: Vec::new(),
            read: Vec::new(),
            progress,
            batch: 0,
            touched: Vec::new(),
            fresh: Vec::new(),
            probed: Vec::new(),
        }
    }

    /// Takes one message and counts it in `arrivals`, which many consumers may share. One that is read again counts as
    /// received, and there alone: its latency reflects the rebalance and not the system.
    #[inline]
    pub fn on_message(&mut self, arrivals: &mut Arrivals, origin: Origin, payload: &[u8]) {
        let reread = self.is_read_again(origin.partition, origin.offset);
        match Front::read(payload) {
            Front::Sound(header) => {
                if let Some(place) = self.producers.place(header.producer) {
                    if header.probe {
                        self.probed.push(Probed { round: header.sequence, place, partition: origin.partition });
                        return;
                    }
                    self.on_numbered(arrivals, origin, place, header, reread);
                } else {
                    // Sound, but of a producer that is not ours: another run writes to this topic.
                    self.bare(arrivals, origin, reread);
                }
            }
            Front::Corrupted => {
                arrivals.corrupted += 1;
                self.bare(arrivals, Origin { sent: None, ..origin }, reread);
            }
            Front::Foreign => self.bare(arrivals, origin, reread),
        }
        arrivals.received += 1;
        arrivals.received_bytes += payload.len() as u64;
        arrivals.reread += u64::from(reread);
    }

    /// Whether a consumer of the subscription at this worker has read that far before.
    #[inline]
    fn is_read_again(&mut self, partition: u32, offset: i64) -> bool {
        let at = partition as usize;
        if at >= self.read.len() {
            self.read.resize(at + 1, Read { to: -1, batch: self.batch.wrapping_sub(1) });
        }
        let read = &mut self.read[at];
        if read.batch != self.batch {
            read.batch = self.batch;
            read.to = read.to.max(self.progress.to(partition));
            self.touched.push(partition);
        }
        if offset > read.to {
            read.to = offset;
            return false;
        }
        offset >= 0
    }

    #[inline]
    fn on_numbered(&mut self, arrivals: &mut Arrivals, origin: Origin, place: u32, header: Header, reread: bool) {
        let Origin { now, partition, offset, .. } = origin;
        if !reread {
            let since_intended = now.signed_since(header.intended);
            let since_sent = since_intended - i64::from(header.late_micros) * 1_000;
            if since_intended <= 0 {
                arrivals.before_intended += 1;
            }
            arrivals.from_intended.record(since_intended.max(0).cast_unsigned());
            arrivals.from_sent.record(since_sent.max(0).cast_unsigned());
        }
        let at = partition as usize * self.producers.count as usize + place as usize;
        if at >= self.next.len() {
            self.next.resize((partition as usize + 1) * self.producers.count as usize, 0);
        }
        let mut sequence = header.sequence & !AFTER_LATER;
        if sequence < self.next[at] {
            sequence |= AFTER_LATER;
        } else {
            self.next[at] = sequence + 1;
        }
        self.fresh.push(Arrived { place, partition, offset, sequence });
    }

    fn bare(&mut self, arrivals: &mut Arrivals, origin: Origin, reread: bool) {
        let Origin { now, partition, offset, sent } = origin;
        arrivals.headerless += 1;
        if let Some(sent) = sent.filter(|_| self.one_clock && !reread) {
            let since = now.signed_since(sent).max(0).cast_unsigned();
            arrivals.from_intended.record(since);
            arrivals.from_sent.record(since);
        }
        self.fresh.push(Arrived { place: BARE, partition, offset, sequence: 0 });
    }

    /// Whether a probe has arrived since the last batch was entered.
    #[must_use]
    pub fn has_probes(&self) -> bool {
        !self.probed.is_empty()
    }
}

/// What all consumers of one subscription at one worker have seen together.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Counts.
    pub seen: Seen,
    partitions: u32,
    /// By the producer's place in the topic.
    sequences: Vec<SequenceSet>,
    /// By partition, the offsets that were read.
    offsets: Vec<OffsetRanges>,
    /// The round of probes that counts.
    round: u64,
    /// Of them, those that arrived: the producer's place times the partitions, plus the partition.
    probed: SequenceSet,
}

impl Ledger {
    /// For a subscription to a topic with this many producers and partitions.
    #[must_use]
    pub fn new(producers: ProducerRange, partitions: u32) -> Self {
        Self {
            seen: Seen::default(),
            partitions,
            sequences: vec![SequenceSet::new(); producers.count as usize],
            offsets: vec![OffsetRanges::new(); partitions as usize],
            round: 0,
            probed: SequenceSet::new(),
        }
    }

    /// Enters what `receiver` took since it was last entered: once per batch, since the ledger is shared.
    pub fn enter(&mut self, receiver: &mut Receiver) {
        for arrived in receiver.fresh.drain(..) {
            let Arrived { place, partition, offset, sequence } = arrived;
            self.seen.received += 1;
            let offsets = self.offsets.get_mut(partition as usize);
            let reread = offsets.is_some_and(|offsets| offset >= 0 && !offsets.insert(offset.cast_unsigned()));
            if place == BARE {
                // Only its offset can tell it from others.
                self.seen.reread += u64::from(reread);
                self.seen.distinct += u64::from(!reread);
            } else if self.sequences[place as usize].insert(sequence & !AFTER_LATER) {
                self.seen.distinct += 1;
                self.seen.reordered += u64::from(sequence & AFTER_LATER != 0);
            } else if reread {
                self.seen.reread += 1;
            } else {
                self.seen.duplicated += 1;
            }
        }
        for Probed { round, place, partition } in receiver.probed.drain(..) {
            if round == self.round && partition < self.partitions {
                self.probed.insert(u64::from(place) * u64::from(self.partitions) + u64::from(partition));
            }
        }
        for partition in receiver.touched.drain(..) {
            receiver.progress.advance(partition, receiver.read[partition as usize].to);
        }
        receiver.batch = receiver.batch.wrapping_add(1);
    }

    /// Whether `receiver` has something to enter.
    #[must_use]
    pub fn is_behind(receiver: &Receiver) -> bool {
        !receiver.fresh.is_empty() || !receiver.probed.is_empty()
    }

    /// From now on only probes of this round count; if it is a new one, none has arrived.
    pub fn expect_probes(&mut self, round: u64) {
        if round != self.round {
            self.round = round;
            self.probed = SequenceSet::new();
        }
    }

    /// Pairs of producer and partition of which a probe has arrived, as numbers: the producer's place within the topic
    /// times the partitions, plus the partition.
    #[must_use]
    pub fn probed(&self) -> &SequenceSet {
        &self.probed
    }

    /// What arrived, by the producer's place in the topic.
    #[must_use]
    pub fn sequences(&self) -> &[SequenceSet] {
        &self.sequences
    }

    /// The offsets that were read, by partition; those of probes are not among them.
    #[must_use]
    pub fn offsets(&self) -> &[OffsetRanges] {
        &self.offsets
    }

    /// Of the messages in `confirmed`, those of the producer at `place` that never arrived here.
    #[must_use]
    pub fn missing(&self, place: u32, confirmed: &SequenceSet) -> u64 {
        confirmed.count_missing_in(&self.sequences[place as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::sender::Sender;
    use omb_machine::time::Instant;

    const PRODUCERS: ProducerRange = ProducerRange { first: ProducerId(4), count: 2 };

    fn message(sender: &mut Sender) -> [u8; 40] {
        let mut payload = [7; 40];
        sender.stamp(&mut payload, Instant(1_000_000), Instant(1_500_000), WallTime(0));
        payload
    }

    fn receiver() -> Receiver {
        Receiver::new(PRODUCERS, true, Arc::new(Progress::new(2)))
    }

    fn from(partition: u32, offset: i64) -> Origin {
        Origin { now: WallTime(2_000_000), partition, offset, sent: None }
    }

    #[test]
    fn lost_doubled_and_out_of_order_are_told_apart() {
        let mut sender = Sender::new(ProducerId(5), false);
        let sent: Vec<_> = (0..5).map(|_| message(&mut sender)).collect();
        let (mut receiver, mut ledger) = (receiver(), Ledger::new(PRODUCERS, 2));
        let mut arrivals = Arrivals::default();
        // 3 was stored twice, 1 comes late, 4 comes late in another partition (which is no disorder), 2 never comes.
        for (partition, offset, index) in [(0, 0, 0), (0, 1, 3), (0, 2, 1), (0, 3, 3), (1, 0, 4)] {
            receiver.on_message(&mut arrivals, from(partition, offset), &sent[index]);
        }
        ledger.enter(&mut receiver);
        assert_eq!(ledger.seen, Seen { received: 5, distinct: 4, duplicated: 1, reread: 0, reordered: 1 });
        let mut confirmed = SequenceSet::new();
        (0..5).for_each(|sequence| assert!(confirmed.insert(sequence)));
        assert_eq!((ledger.missing(1, &confirmed), ledger.missing(0, &confirmed)), (1, 5));
        assert_eq!(arrivals.from_intended.count(), 5);
        assert!(arrivals.from_sent.max() < arrivals.from_intended.max());
    }

    /// A partition changes hands, and its new owner begins where the group committed last: at offset 2 of 4.
    #[test]
    fn what_is_read_again_is_no_double_and_has_no_latency() {
        let mut sender = Sender::new(ProducerId(4), false);
        let sent: Vec<_> = (0..6).map(|_| message(&mut sender)).collect();
        let progress = Arc::new(Progress::new(2));
        let mut members = [Receiver::new(PRODUCERS, true, progress.clone()), Receiver::new(PRODUCERS, true, progress)];
        let (mut ledger, mut arrivals) = (Ledger::new(PRODUCERS, 2), Arrivals::default());
        let mut read = |member: usize, offsets: std::ops::Range<i64>| {
            for offset in offsets {
                let index = usize::try_from(offset).expect("small").min(4);
                members[member].on_message(&mut arrivals, from(0, offset), &sent[index]);
            }
            ledger.enter(&mut members[member]);
            (ledger.seen, arrivals.from_intended.count(), arrivals.reread)
        };
        read(0, 0..4);
        // Offset 4 is new; offset 5 holds the same message again: the system duplicated that one.
        let (seen, latencies, reread) = read(1, 2..6);
        assert_eq!(seen, Seen { received: 8, distinct: 5, duplicated: 1, reread: 2, reordered: 0 });
        assert_eq!((latencies, reread), (6, 2));
        // It comes back to the first, which has read to offset 3, and begins right behind that.
        let (seen, latencies, reread) = read(0, 4..6);
        assert_eq!((seen.duplicated, seen.reread, latencies, reread), (1, 4, 6, 4));
    }

    /// Two members read the same partition at the same time: one of them does not know yet that it has lost it.
    #[test]
    fn what_two_read_at_once_is_no_double_either() {
        let mut sender = Sender::new(ProducerId(4), false);
        let sent = message(&mut sender);
        let progress = Arc::new(Progress::new(1));
        let mut members = [Receiver::new(PRODUCERS, true, progress.clone()), Receiver::new(PRODUCERS, true, progress)];
        let (mut ledger, mut arrivals) = (Ledger::new(PRODUCERS, 1), Arrivals::default());
        members.iter_mut().for_each(|member| member.on_message(&mut arrivals, from(0, 7), &sent));
        members.iter_mut().for_each(|member| ledger.enter(member));
        assert_eq!(ledger.seen, Seen { received: 2, distinct: 1, duplicated: 0, reread: 1, reordered: 0 });
    }

    /// Messages without header can be identified only by their offset.
    #[test]
    fn a_small_message_that_is_read_again_is_not_another_one() {
        let (mut receiver, mut ledger, mut arrivals) = (receiver(), Ledger::new(PRODUCERS, 2), Arrivals::default());
        for offset in [0, 1, 0, 1, 2] {
            let origin = Origin { sent: Some(WallTime(1_000_000)), ..from(0, offset) };
            receiver.on_message(&mut arrivals, origin, b"small");
        }
        ledger.enter(&mut receiver);
        assert_eq!(ledger.seen, Seen { received: 5, distinct: 3, duplicated: 0, reread: 2, reordered: 0 });
        assert_eq!((arrivals.reread, arrivals.from_intended.count()), (2, 3));
    }

    #[test]
    fn broken_foreign_and_probing_messages() {
        let mut sender = Sender::new(ProducerId(4), true);
        let (mut receiver, mut ledger) = (receiver(), Ledger::new(PRODUCERS, 2));
        let mut arrivals = Arrivals::default();
        let mut broken = message(&mut sender);
        broken[39] ^= 1;
        receiver.on_message(&mut arrivals, from(0, 0), &broken);
        receiver.on_message(&mut arrivals, Origin { sent: Some(WallTime(1_000_000)), ..from(0, 1) }, b"small");
        receiver.on_message(&mut arrivals, from(0, 2), &message(&mut Sender::new(ProducerId(99), false)));
        ledger.expect_probes(3);
        // One of an earlier round, and one from a partition that the topic does not have.
        for (partition, round) in [(1, 3), (0, 2), (2, 3)] {
            receiver.on_message(&mut arrivals, from(partition, 3), &sender.probe(WallTime(1), round));
        }
        assert!(receiver.has_probes());
        ledger.enter(&mut receiver);
        assert_eq!((arrivals.received, arrivals.corrupted, arrivals.headerless), (3, 1, 3));
        assert_eq!((ledger.probed().len(), ledger.probed().contains(1), ledger.seen.received), (1, true, 3));
        ledger.expect_probes(4);
        assert!(ledger.probed().is_empty());
    }

    /// A timestamp of another machine's clock is no latency, however small the difference seems.
    #[test]
    fn without_a_header_only_one_clock_makes_a_latency() {
        for (one_clock, samples) in [(true, 1), (false, 0)] {
            let progress = Arc::new(Progress::new(2));
            let (mut receiver, mut arrivals) = (Receiver::new(PRODUCERS, one_clock, progress), Arrivals::default());
            receiver.on_message(&mut arrivals, Origin { sent: Some(WallTime(1_000_000)), ..from(0, 0) }, b"small");
            receiver.on_message(&mut arrivals, from(0, 1), b"small");
            assert_eq!((arrivals.received, arrivals.headerless, arrivals.from_sent.count()), (2, 2, samples));
            let sent = message(&mut Sender::new(ProducerId(4), false));
            receiver.on_message(&mut arrivals, from(0, 2), &sent);
            assert_eq!(arrivals.from_sent.count(), samples + 1, "a header says whose clock it is");
        }
    }

    #[test]
    fn clocks_that_disagree_are_counted_not_dropped() {
        let (mut receiver, mut arrivals) = (receiver(), Arrivals::default());
        let early = Origin { now: WallTime(900_000), ..from(0, 0) };
        receiver.on_message(&mut arrivals, early, &message(&mut Sender::new(ProducerId(4), false)));
        assert_eq!((arrivals.before_intended, arrivals.from_intended.count()), (1, 1));
    }
}
