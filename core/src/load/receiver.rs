//! The receiving side: what each arriving message tells, and what a subscription has seen in all.

use crate::{
    id::ProducerId,
    load::header::{Front, Header},
    stats::{
        sequence::SequenceSet,
        tally::{Arrivals, Seen},
    },
    time::WallTime,
};

/// One consumer's view of the messages that reach it. All of its topic's producers send to it.
#[derive(Clone, Debug)]
pub struct Receiver {
    producers: ProducerRange,
    /// Whether whoever sends to it has its clock.
    one_clock: bool,
    /// By partition and producer, one above the highest sequence seen there.
    next: Vec<u64>,
    /// What arrived since the ledger was last brought up to date.
    fresh: Vec<Arrived>,
    probed: Vec<u32>,
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

#[derive(Clone, Copy, Debug)]
enum Arrived {
    /// A message of ours: its producer's place, its number, and whether a later one came before it.
    Numbered { place: u32, sequence: u64, after_later: bool },
    /// A message that cannot be told apart.
    Bare,
}

impl Receiver {
    /// For a consumer of a topic with these producers. `one_clock` says whether all of them have this consumer's clock:
    /// only then does the timestamp of a message without header, which is its producer's, tell how long it took. Nothing
    /// in such a message says whose clock it was, so it cannot be corrected either.
    #[must_use]
    pub fn new(producers: ProducerRange, one_clock: bool) -> Self {
        Self { producers, one_clock, next: Vec::new(), fresh: Vec::new(), probed: Vec::new() }
    }

    /// Takes one message, handed over by the client at `now`, and counts it in `arrivals`, which many consumers may
    /// share. `sent` is the producer's timestamp, used where there is no header; `None` if the broker's stands in its place.
    #[inline]
    pub fn on_message(
        &mut self,
        arrivals: &mut Arrivals,
        now: WallTime,
        partition: u32,
        payload: &[u8],
        sent: Option<WallTime>,
    ) {
        let bytes = payload.len() as u64;
        match Front::read(payload) {
            Front::Sound(header) => {
                if let Some(place) = self.producers.place(header.producer) {
                    if header.probe {
                        self.probed.push(place);
                        return;
                    }
                    self.on_numbered(arrivals, now, partition, place, header);
                } else {
                    // Sound, but of a producer that is not ours: another run writes to this topic.
                    self.bare(arrivals, now, sent);
                }
            }
            Front::Corrupted => {
                arrivals.corrupted += 1;
                self.bare(arrivals, now, None);
            }
            Front::Foreign => self.bare(arrivals, now, sent),
        }
        arrivals.received += 1;
        arrivals.received_bytes += bytes;
    }

    #[inline]
    fn on_numbered(&mut self, arrivals: &mut Arrivals, now: WallTime, partition: u32, place: u32, header: Header) {
        let since_intended = now.signed_since(header.intended);
        let since_sent = since_intended - i64::from(header.late_micros) * 1_000;
        if since_intended <= 0 {
            arrivals.before_intended += 1;
        }
        arrivals.from_intended.record(since_intended.max(0).cast_unsigned());
        arrivals.from_sent.record(since_sent.max(0).cast_unsigned());
        let at = partition as usize * self.producers.count as usize + place as usize;
        if at >= self.next.len() {
            self.next.resize((partition as usize + 1) * self.producers.count as usize, 0);
        }
        let after_later = header.sequence < self.next[at];
        if !after_later {
            self.next[at] = header.sequence + 1;
        }
        self.fresh.push(Arrived::Numbered { place, sequence: header.sequence, after_later });
    }

    fn bare(&mut self, arrivals: &mut Arrivals, now: WallTime, sent: Option<WallTime>) {
        arrivals.headerless += 1;
        if let Some(sent) = sent.filter(|_| self.one_clock) {
            let since = now.signed_since(sent).max(0).cast_unsigned();
            arrivals.from_intended.record(since);
            arrivals.from_sent.record(since);
        }
        self.fresh.push(Arrived::Bare);
    }
}

/// What all consumers of one subscription have seen together.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Counts.
    pub seen: Seen,
    /// By the producer's place in the topic.
    sequences: Vec<SequenceSet>,
    probed: Vec<bool>,
}

impl Ledger {
    /// For a subscription to a topic with so many producers.
    #[must_use]
    pub fn new(producers: ProducerRange) -> Self {
        let count = producers.count as usize;
        Self { seen: Seen::default(), sequences: vec![SequenceSet::new(); count], probed: vec![false; count] }
    }

    /// Enters what `receiver` took since it was last entered: once per batch, since the ledger is shared.
    pub fn enter(&mut self, receiver: &mut Receiver) {
        for arrived in receiver.fresh.drain(..) {
            self.seen.received += 1;
            match arrived {
                Arrived::Bare => self.seen.distinct += 1,
                Arrived::Numbered { place, sequence, after_later } => {
                    if !self.sequences[place as usize].insert(sequence) {
                        self.seen.duplicated += 1;
                        continue;
                    }
                    self.seen.distinct += 1;
                    self.seen.reordered += u64::from(after_later);
                }
            }
        }
        for place in receiver.probed.drain(..) {
            self.probed[place as usize] = true;
        }
    }

    /// Whether `receiver` has something to enter.
    #[must_use]
    pub fn is_behind(receiver: &Receiver) -> bool {
        !receiver.fresh.is_empty() || !receiver.probed.is_empty()
    }

    /// Producers of which a probe has arrived.
    #[must_use]
    pub fn probed(&self) -> u64 {
        self.probed.iter().filter(|probed| **probed).count() as u64
    }

    /// Places (within the topic) of producers of which a probe has arrived.
    #[must_use]
    pub fn probed_places(&self) -> SequenceSet {
        let mut places = SequenceSet::new();
        for (place, _) in (0..).zip(&self.probed).filter(|(_, probed)| **probed) {
            places.insert(place);
        }
        places
    }

    /// What arrived, by the producer's place in the topic.
    #[must_use]
    pub fn sequences(&self) -> &[SequenceSet] {
        &self.sequences
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
    use crate::{load::sender::Sender, time::Instant};

    const PRODUCERS: ProducerRange = ProducerRange { first: ProducerId(4), count: 2 };

    fn message(sender: &mut Sender) -> [u8; 40] {
        let mut payload = [7; 40];
        sender.stamp(&mut payload, Instant(1_000_000), Instant(1_500_000), WallTime(0));
        payload
    }

    #[test]
    fn lost_doubled_and_out_of_order_are_told_apart() {
        let mut sender = Sender::new(ProducerId(5), false);
        let sent: Vec<_> = (0..5).map(|_| message(&mut sender)).collect();
        let (mut receiver, mut ledger) = (Receiver::new(PRODUCERS, true), Ledger::new(PRODUCERS));
        let mut arrivals = Arrivals::default();
        // 3 comes twice, 1 comes late, 4 comes late in another partition (which is no disorder), 2 never comes.
        for (partition, index) in [(0, 0), (0, 3), (0, 1), (0, 3), (1, 4)] {
            receiver.on_message(&mut arrivals, WallTime(2_000_000), partition, &sent[index], None);
        }
        ledger.enter(&mut receiver);
        assert_eq!(ledger.seen, Seen { received: 5, distinct: 4, duplicated: 1, reordered: 1 });
        let mut confirmed = SequenceSet::new();
        (0..5).for_each(|sequence| assert!(confirmed.insert(sequence)));
        assert_eq!((ledger.missing(1, &confirmed), ledger.missing(0, &confirmed)), (1, 5));
        assert_eq!(arrivals.from_intended.count(), 5);
        assert!(arrivals.from_sent.max() < arrivals.from_intended.max());
    }

    #[test]
    fn broken_foreign_and_probing_messages() {
        let mut sender = Sender::new(ProducerId(4), true);
        let (mut receiver, mut ledger) = (Receiver::new(PRODUCERS, true), Ledger::new(PRODUCERS));
        let mut arrivals = Arrivals::default();
        let mut broken = message(&mut sender);
        broken[39] ^= 1;
        receiver.on_message(&mut arrivals, WallTime(2_000_000), 0, &broken, None);
        receiver.on_message(&mut arrivals, WallTime(2_000_000), 0, b"small", Some(WallTime(1_000_000)));
        receiver.on_message(
            &mut arrivals,
            WallTime(2_000_000),
            0,
            &message(&mut Sender::new(ProducerId(99), false)),
            None,
        );
        receiver.on_message(&mut arrivals, WallTime(2_000_000), 0, &sender.probe(WallTime(1)), None);
        ledger.enter(&mut receiver);
        assert_eq!((arrivals.received, arrivals.corrupted, arrivals.headerless), (3, 1, 3));
        assert_eq!((ledger.probed(), ledger.seen.received), (1, 3));
    }

    /// A timestamp of another machine's clock is no latency, however small the difference seems.
    #[test]
    fn without_a_header_only_one_clock_makes_a_latency() {
        for (one_clock, samples) in [(true, 1), (false, 0)] {
            let (mut receiver, mut arrivals) = (Receiver::new(PRODUCERS, one_clock), Arrivals::default());
            let foreign = Receiver::on_message;
            foreign(&mut receiver, &mut arrivals, WallTime(2_000_000), 0, b"small", Some(WallTime(1_000_000)));
            foreign(&mut receiver, &mut arrivals, WallTime(2_000_000), 0, b"small", None);
            assert_eq!((arrivals.received, arrivals.headerless, arrivals.from_sent.count()), (2, 2, samples));
            let sent = message(&mut Sender::new(ProducerId(4), false));
            receiver.on_message(&mut arrivals, WallTime(2_000_000), 0, &sent, None);
            assert_eq!(arrivals.from_sent.count(), samples + 1, "a header says whose clock it is");
        }
    }

    #[test]
    fn clocks_that_disagree_are_counted_not_dropped() {
        let (mut receiver, mut arrivals) = (Receiver::new(PRODUCERS, true), Arrivals::default());
        receiver.on_message(
            &mut arrivals,
            WallTime(900_000),
            0,
            &message(&mut Sender::new(ProducerId(4), false)),
            None,
        );
        assert_eq!((arrivals.before_intended, arrivals.from_intended.count()), (1, 1));
    }
}
