//! What a worker reports of its counts: the current state ([`Standing`]), the state at the ends of the measured part
//! ([`Ends`]), and which confirmed messages are missing ([`Comparison`]).
//!
//! The counts themselves belong to the runtime: behind the locks of threads in the product, in tasks in the simulation.
//! What is derived from them is here, once for both, so that the code that decides whether messages were lost is the
//! code that is simulated.

use std::ops::Deref;

use omb_machine::time::{Instant, WallTime};

use super::{
    header,
    receiver::{Ledger, ProducerRange},
    sender::Confirmations,
};
use crate::{
    id::{ProducerId, SubscriptionId},
    protocol::{
        command::Reach,
        event::{Findings, GroupView, Missing, Problem, Snapshot},
    },
    stats::{
        sparse::{SparseDepartures, SparseTotals},
        tally::{Acknowledgements, Arrivals, Departures, Parted, Totals},
    },
};

/// The current state of one worker, added up from wherever it is counted.
///
/// Enter what happens later first (arrivals, then acknowledgements, then departures): counting goes on while it is
/// read, and no message may seem confirmed before it left.
#[derive(Debug, Default)]
pub struct Standing {
    totals: Totals,
    loaded: bool,
    snapshot: Snapshot,
}

impl Standing {
    /// Nothing entered yet. `loaded` says whether a load was started: then probes no longer matter, and of groups only
    /// those that were rebalanced.
    #[must_use]
    pub fn new(loaded: bool) -> Self {
        Self { loaded, ..Self::default() }
    }

    /// A subscription, what its members here know of their group, and whether this worker has all of its topic (`whole`).
    pub fn subscription(&mut self, id: SubscriptionId, whole: bool, ledger: &Ledger, group: GroupView) {
        self.totals.seen.insert(id, ledger.seen);
        if whole {
            self.snapshot.paths_open += ledger.probed().len();
        } else if !self.loaded {
            self.snapshot.probed.insert(id, ledger.probed().clone());
        }
        if !self.loaded || group.rebalances > 0 {
            self.snapshot.groups.insert(id, group);
        }
    }

    /// What some consumers received.
    pub fn arrivals(&mut self, arrivals: &Arrivals) {
        self.totals.arrivals.merge(arrivals);
    }

    /// What was acknowledged to some producers.
    pub fn acknowledgements(&mut self, acknowledgements: &Acknowledgements) {
        self.totals.acknowledgements.merge(acknowledgements);
    }

    /// Messages that the client itself rejected: they were due, and never left.
    pub fn refused(&mut self, count: u64) {
        self.totals.acknowledgements.failed += count;
        self.totals.acknowledgements.refused += count;
    }

    /// What left some producers.
    pub fn departures(&mut self, departures: &Parted) {
        self.totals.departures.merge(&departures.before);
        self.totals.departures.merge(&departures.counted);
    }

    /// Messages that were skipped and are not among [`Self::departures`].
    pub fn skipped(&mut self, count: u64) {
        self.totals.departures.skipped += count;
    }

    /// Of the newest round of probes, those that some producers send, and those that were confirmed.
    pub fn probes(&mut self, sent: u64, confirmed: u64) {
        self.snapshot.probes_pending += sent.saturating_sub(confirmed);
    }

    /// What went wrong, in any order, each kind once.
    pub fn problems(&mut self, problems: impl IntoIterator<Item = Problem>) {
        let all = &mut self.snapshot.problems;
        all.extend(problems);
        all.sort_by_key(|problem| std::cmp::Reverse(problem.count));
        all.truncate(Snapshot::PROBLEMS_MAX);
    }

    /// The sum, taken at an instant of this worker's clocks. What the process knows of itself is for the caller to add.
    #[must_use]
    pub fn at(self, taken_at: Instant, wall: WallTime) -> Snapshot {
        let Acknowledgements { acked, failed, .. } = self.totals.acknowledgements;
        let in_flight = in_flight(&self.totals.departures, acked, failed);
        Snapshot { taken_at, wall, in_flight, totals: SparseTotals::from(&self.totals), ..self.snapshot }
    }
}

/// Messages that have left and whose outcome is not known yet.
fn in_flight(departures: &Departures, acked: u64, failed: u64) -> u64 {
    departures.attempted.saturating_sub(acked + failed)
}

/// The ends of the measured part, and the state at each.
#[derive(Debug, Default)]
pub struct Ends([Option<(Instant, Option<Box<Snapshot>>)>; 2]);

/// How to answer a read that belongs to a part of the load.
#[derive(Debug, PartialEq)]
pub enum Look {
    /// The state at that part's end.
    Kept(Box<Snapshot>),
    /// The end is being recorded, or has not come yet: look again in a moment.
    Wait,
    /// The current state: nothing else is or will be known.
    Now,
}

impl Ends {
    /// A load begins whose measured part begins and ends at these instants, if they are known beforehand.
    pub fn begin(&mut self, ends: Option<[Instant; 2]>) {
        self.0 = ends.map_or([None, None], |ends| ends.map(|end| Some((end, None))));
    }

    /// What is known at `now` of the part that `reach` names, while the load is `running` or after it has ended.
    #[must_use]
    pub fn look(&self, reach: Reach, now: Instant, running: bool) -> Look {
        let (end, whole) = match reach {
            Reach::Everything => return Look::Now,
            Reach::WarmUp { whole } => (0, whole),
            Reach::Measured { whole } => (1, whole),
        };
        match &self.0[end] {
            Some((_, Some(kept))) => Look::Kept(kept.clone()),
            // If the load was ended before, nothing is recorded any more.
            Some((at, None)) if running && (whole || *at <= now) => Look::Wait,
            _ => Look::Now,
        }
    }

    /// The part of some producers' departures that belongs to the `nth` end (0 or 1): what was due before it.
    pub fn due_before(nth: usize, departures: &Parted, sum: &mut Departures) {
        sum.merge(&departures.before);
        if nth > 0 {
            sum.merge(&departures.counted);
        }
    }

    /// Keeps `stood`, which was taken at about the `nth` end, as of exactly that instant: with the departures that were due
    /// before. `wall_zero` is this worker's wall clock at [`Instant::ZERO`].
    ///
    /// # Panics
    /// If no load with such an end was begun.
    pub fn keep(&mut self, nth: usize, mut stood: Snapshot, departures: &Departures, wall_zero: WallTime) {
        let (end, kept) = self.0[nth].as_mut().expect("a load with these ends was begun");
        stood.taken_at = *end;
        stood.wall = WallTime(wall_zero.0 + end.0);
        let acknowledgements = &stood.totals.acknowledgements;
        stood.in_flight = in_flight(departures, acknowledgements.acked, acknowledgements.failed);
        stood.totals.departures = SparseDepartures::from(departures);
        *kept = Some(Box::new(stood));
    }
}

/// Finds which confirmed messages are missing, one subscription after another. For a topic that several workers share,
/// each only collects what it holds, and the controller compares.
#[derive(Debug)]
pub struct Comparison(Findings);

impl Comparison {
    /// Of messages of `payload_len` bytes: those that are too small for a header can only be counted.
    #[must_use]
    pub fn new(payload_len: usize) -> Self {
        Self(Findings { by_count_only: payload_len < header::LEN, ..Findings::default() })
    }

    /// A subscription to the topic of `producers`, which this worker has as a `whole` or in part. `confirmed` returns
    /// what was confirmed to one of the producers; `None` if it is not here.
    pub fn subscription<C: Deref<Target = Confirmations>>(
        &mut self,
        id: SubscriptionId,
        whole: bool,
        producers: ProducerRange,
        ledger: &Ledger,
        confirmed: impl Fn(ProducerId) -> Option<C>,
    ) {
        if !whole {
            self.0.received.insert(id, ledger.sequences().to_vec());
            self.0.offsets.insert(id, ledger.offsets().to_vec());
            return;
        }
        let by_count_only = self.0.by_count_only;
        let mut missing = Missing { by_count_only, ..Missing::default() };
        for place in 0..producers.count {
            let Some(confirmations) = confirmed(ProducerId(producers.first.0 + place)) else { continue };
            missing.confirmed += confirmations.sequences.len();
            if !by_count_only {
                missing.missing += ledger.missing(place, &confirmations.sequences);
            }
        }
        if by_count_only {
            missing.missing = missing.confirmed.saturating_sub(ledger.seen.distinct);
        }
        self.0.compared.insert(id, missing);
    }

    /// A producer, and what was confirmed to it; its topic is here as a `whole` or in part.
    pub fn producer(&mut self, id: ProducerId, whole: bool, confirmations: &Confirmations) {
        if !whole {
            self.0.confirmed.insert(id, confirmations.sequences.clone());
        }
    }

    /// What was found.
    #[must_use]
    pub fn findings(self) -> Findings {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc, time::Duration};

    use super::{
        super::receiver::{Origin, Progress, Receiver},
        *,
    };
    use crate::{
        load::sender::Sender,
        stats::{sequence::SequenceSet, sparse::TotalsSum},
    };

    const PRODUCERS: ProducerRange = ProducerRange { first: ProducerId(4), count: 2 };
    const ID: SubscriptionId = SubscriptionId(1);

    fn numbers(numbers: impl IntoIterator<Item = u64>) -> Confirmations {
        let mut sequences = SequenceSet::new();
        numbers.into_iter().for_each(|number| assert!(sequences.insert(number)));
        Confirmations { sequences }
    }

    /// A ledger that has seen messages 0, 1, .. of the second producer, all but one.
    fn ledger(count: u64, but: u64) -> Ledger {
        let mut sender = Sender::new(ProducerId(5), false);
        let mut receiver = Receiver::new(PRODUCERS, true, Arc::new(Progress::new(1)));
        let (mut arrivals, mut ledger) = (Arrivals::default(), Ledger::new(PRODUCERS, 1));
        for number in 0..count {
            let mut payload = [0; 40];
            sender.stamp(&mut payload, Instant(1), Instant(2), WallTime(0));
            let offset = number.try_into().expect("small");
            if number != but {
                let origin = Origin { now: WallTime(9), partition: 0, offset, sent: None };
                receiver.on_message(&mut arrivals, origin, &payload);
            }
        }
        ledger.enter(&mut receiver);
        ledger
    }

    #[test]
    fn what_is_missing_is_found_and_what_others_hold_is_handed_over() {
        let ledger = ledger(4, 2);
        // The second producer is here; the first one is not, so what was confirmed to it is unknown.
        let here = numbers(0..4);
        let compared = |payload_len, whole| {
            let mut comparison = Comparison::new(payload_len);
            comparison.subscription(ID, whole, PRODUCERS, &ledger, |id| (id == ProducerId(5)).then_some(&here));
            comparison.producer(ProducerId(5), whole, &here);
            comparison.findings()
        };
        let by_header = compared(header::LEN, true);
        assert_eq!(by_header.compared[&ID], Missing { confirmed: 4, missing: 1, by_count_only: false });
        assert!(by_header.received.is_empty() && by_header.confirmed.is_empty() && !by_header.by_count_only);
        // One byte less has no room for a header.
        let by_count = compared(header::LEN - 1, true);
        assert_eq!(by_count.compared[&ID], Missing { confirmed: 4, missing: 1, by_count_only: true });
        let shared = compared(header::LEN, false);
        assert!(shared.compared.is_empty());
        assert_eq!(shared.received[&ID], ledger.sequences());
        assert_eq!(shared.offsets[&ID], ledger.offsets());
        assert_eq!(shared.confirmed[&ProducerId(5)], here.sequences);
    }

    #[test]
    fn the_last_producer_of_a_topic_is_compared_too() {
        let ledger = ledger(0, 0);
        let (first, last) = (numbers([0]), numbers([0, 1]));
        let mut comparison = Comparison::new(header::LEN);
        let confirmed = |id| match id {
            ProducerId(4) => Some(&first),
            ProducerId(5) => Some(&last),
            _ => panic!("{id} is none of the topic's"),
        };
        comparison.subscription(ID, true, PRODUCERS, &ledger, confirmed);
        assert_eq!(comparison.findings().compared[&ID], Missing { confirmed: 3, missing: 3, by_count_only: false });
    }

    #[test]
    fn how_things_stand_adds_up() {
        let acknowledgements = Acknowledgements { acked: 5, failed: 1, ..Acknowledgements::default() };
        let departures = |attempted| Departures { attempted, skipped: 1, ..Departures::default() };
        let mut moved = GroupView { rebalances: 1, ..GroupView::default() };
        moved.member(3, 2);
        moved.member(2, 1);
        assert_eq!((moved.joined, moved.generations, moved.assigned), (2, (2, 3), 3));
        for (loaded, whole) in [(false, true), (false, false), (true, true), (true, false)] {
            let mut standing = Standing::new(loaded);
            standing.subscription(ID, whole, &ledger(3, 9), moved);
            standing.subscription(SubscriptionId(2), whole, &ledger(2, 9), GroupView::default());
            standing.arrivals(&Arrivals { received: 5, ..Arrivals::default() });
            standing.acknowledgements(&acknowledgements);
            standing.acknowledgements(&acknowledgements);
            standing.refused(2);
            standing.departures(&Parted { before: departures(7), counted: departures(10) });
            standing.skipped(3);
            standing.probes(4, 1);
            standing.probes(1, 2);
            let problem = |count| Problem { what: format!("{count} times"), count };
            standing.problems((1..=20).map(problem));
            let found = standing.at(Instant(7), WallTime(8));
            assert_eq!((found.taken_at, found.wall, found.probes_pending), (Instant(7), WallTime(8), 3));
            let mut sum = TotalsSum::default();
            sum.add(&found.totals);
            let totals = sum.into_totals();
            assert_eq!((totals.acknowledgements.failed, totals.acknowledgements.refused), (4, 2));
            assert_eq!((totals.departures.attempted, totals.departures.skipped), (17, 5));
            assert_eq!((found.in_flight, totals.arrivals.received), (3, 5));
            assert_eq!(totals.seen.values().map(|seen| seen.distinct).sum::<u64>(), 5);
            let groups: BTreeSet<_> = found.groups.keys().copied().collect();
            assert_eq!(groups.len(), if loaded { 1 } else { 2 }, "under load only of those that moved");
            assert_eq!(found.probed.len(), if loaded || whole { 0 } else { 2 });
            assert_eq!((found.problems.len(), found.problems[0].count), (Snapshot::PROBLEMS_MAX, 20));
        }
    }

    #[test]
    fn a_read_is_answered_by_what_was_kept() {
        let [from, until] = [Duration::from_secs(1), Duration::from_secs(3)].map(|span| Instant::ZERO + span);
        let (warm_up, measured) = (|whole| Reach::WarmUp { whole }, |whole| Reach::Measured { whole });
        let mut ends = Ends::default();
        assert_eq!(ends.look(measured(true), until, true), Look::Now, "nothing was begun");
        ends.begin(Some([from, until]));
        let before = Instant(from.0 - 1);
        assert_eq!(ends.look(Reach::Everything, until, true), Look::Now);
        assert_eq!(ends.look(warm_up(false), before, true), Look::Now, "it goes on");
        assert_eq!(ends.look(warm_up(true), before, true), Look::Wait, "the whole of it is requested");
        assert_eq!(ends.look(warm_up(false), from, true), Look::Wait, "it is over, and being recorded");
        assert_eq!(ends.look(warm_up(true), from, false), Look::Now, "the load was ended before");
        let parted = Parted {
            before: Departures { attempted: 4, ..Departures::default() },
            counted: Departures { attempted: 6, ..Departures::default() },
        };
        for (nth, attempted) in [(0, 4), (1, 10)] {
            let mut standing = Standing::new(true);
            standing.departures(&parted);
            standing.acknowledgements(&Acknowledgements { acked: 3, ..Acknowledgements::default() });
            let mut due = Departures::default();
            Ends::due_before(nth, &parted, &mut due);
            // It was taken a little late.
            ends.keep(nth, standing.at(Instant(until.0 + 9), WallTime(0)), &due, WallTime(100));
            let reach = if nth == 0 { warm_up(false) } else { measured(true) };
            let Look::Kept(kept) = ends.look(reach, until, false) else { panic!("it was kept") };
            let end = [from, until][nth];
            assert_eq!((kept.taken_at, kept.wall), (end, WallTime(100 + end.0)));
            assert_eq!((kept.totals.departures.attempted, kept.in_flight), (attempted, attempted - 3));
        }
        ends.begin(None);
        assert_eq!(ends.look(measured(true), until, true), Look::Now, "a search has no such ends");
    }
}
