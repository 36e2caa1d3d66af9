//! A receiving thread: it polls a consumer, or several with little load, in batches.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use omb_bench::{
    load::receiver::{Ledger, Origin, Receiver},
    protocol::event::GroupView,
    stats::tally::Arrivals,
};
use omb_machine::time::{Instant, WallTime};

use super::{Problems, lock};
use crate::{
    clock::{self, FleetTime},
    driver::{Consumer, Incoming, Membership},
};

/// Longest a poll blocks.
const PATIENCE: Duration = Duration::from_millis(100);
/// Messages after which the counts are published, even if more are waiting.
const ENTER_AFTER: u32 = 1_024;
/// Messages that share one reading of the clock, at most: some 2 µs at the highest rates.
const PER_READING: u32 = 8;
/// How often our position is committed to the broker. Upstream commits after every poll, which floods the broker.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How often a consumer checks its part in the group while groups settle or are paused. Each check queries another
/// thread twice, so under load it is done less often.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The same under load: the time of a rebalance is known to within this.
const LOOK_UNDER_LOAD: Duration = Duration::from_millis(100);

/// What the control thread and a receiving thread exchange.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    pub(crate) stop: AtomicBool,
    pub(crate) paused: AtomicBool,
    /// A load has been started.
    pub(crate) loaded: AtomicBool,
}

/// A consumer group as its members at this worker see it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    members: Mutex<Vec<Arc<Member>>>,
    moves: Mutex<Moves>,
}

/// One member's part, as last known.
#[derive(Debug, Default)]
pub(crate) struct Member(Mutex<Membership>);

/// New generations.
#[derive(Clone, Copy, Debug, Default)]
struct Moves {
    newest: i32,
    count: u64,
    last: Option<Instant>,
}

impl Group {
    /// One more member.
    pub(crate) fn member(&self) -> Arc<Member> {
        let member: Arc<Member> = Arc::default();
        lock(&self.members).push(Arc::clone(&member));
        member
    }

    /// The current state of `member`.
    fn see(&self, member: &Member, now: Instant, membership: Membership) {
        *lock(&member.0) = membership;
        let mut moves = lock(&self.moves);
        if membership.generation > moves.newest {
            *moves = Moves { newest: membership.generation, count: moves.count + 1, last: Some(now) };
        }
    }

    /// Generations that have begun so far do not count as rebalances.
    pub(crate) fn count_from_here(&self) {
        let mut moves = lock(&self.moves);
        (moves.count, moves.last) = (0, None);
    }

    /// The combined view of all members here. `began` is when the load was due to begin.
    pub(crate) fn view(&self, began: Option<Instant>) -> GroupView {
        let Moves { count, last, .. } = *lock(&self.moves);
        let last = began.and_then(|began| Some(last?.since(began)));
        let mut view = GroupView { rebalances: count, last, ..GroupView::default() };
        for member in lock(&self.members).iter() {
            let Membership { generation, assigned } = *lock(&member.0);
            if generation <= 0 {
                continue;
            }
            view.member(generation, assigned);
        }
        view
    }
}

/// What a receiving thread shares with others.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Counts, with some of the other consumers.
    pub(crate) arrivals: Arc<Mutex<Arrivals>>,
    /// What the subscription has seen, with the group's other members.
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) member: Arc<Member>,
    pub(crate) group: Arc<Group>,
    pub(crate) orders: Arc<Orders>,
    pub(crate) problems: Arc<Problems>,
    /// Whether we commit, and not the client itself.
    pub(crate) commits: bool,
    /// The clock that messages are stamped with.
    pub(crate) time: Arc<FleetTime>,
}

/// A consumer and all its state.
pub(crate) struct Station {
    consumer: Box<dyn Consumer>,
    receiver: Receiver,
    shared: Shared,
    committed: Instant,
    looked: Instant,
    /// Whether it was paused, with so many partitions.
    is_paused: (bool, u32),
    assigned: u32,
}

impl Station {
    pub(crate) fn new(consumer: Box<dyn Consumer>, receiver: Receiver, shared: Shared) -> Self {
        Self {
            consumer,
            receiver,
            shared,
            committed: clock::now(),
            looked: Instant::ZERO,
            is_paused: (false, 0),
            assigned: 0,
        }
    }

    fn is_stopped(&self) -> bool {
        self.shared.orders.stop.load(Relaxed)
    }

    /// How often it checks its part in the group if it has a thread of its own.
    fn looks_every(&self) -> Duration {
        let Orders { paused, loaded, .. } = &*self.shared.orders;
        let calm = loaded.load(Relaxed) && !paused.load(Relaxed) && !self.is_paused.0;
        if calm { LOOK_UNDER_LOAD } else { LOOK_EVERY }
    }

    /// Takes what has arrived, waiting for it up to `patience`, and checks the consumer if `look_every` has passed.
    fn turn(&mut self, patience: Duration, look_every: Duration) {
        let Shared { arrivals, ledger, member, group, orders, problems, commits, time } = &self.shared;
        let mut batch = Batch {
            receiver: &mut self.receiver,
            arrivals,
            ledger,
            held: None,
            taken: 0,
            now: WallTime(0),
            probed: false,
        };
        self.consumer.poll(patience, &mut |incoming| batch.take(incoming, time));
        batch.enter();
        let (now, probed) = (clock::now(), batch.probed);
        let paused = orders.paused.load(Relaxed);
        if now.since(self.looked) >= look_every {
            self.looked = now;
            let membership = self.consumer.membership();
            group.see(member, now, membership);
            self.assigned = membership.assigned;
            // Newly assigned partitions come unpaused.
            let wanted = (paused, self.assigned);
            if wanted != self.is_paused {
                if wanted.0 || self.is_paused.0 {
                    self.consumer.set_paused(wanted.0);
                }
                self.is_paused = wanted;
            }
            self.consumer.troubles().iter().for_each(|trouble| problems.trouble(trouble));
        }
        // With the first commit before the load, its group has a position to resume from, whenever a rebalance comes:
        // one that reads from the end would skip what arrived until then.
        if *commits && (probed || now.since(self.committed) >= COMMIT_EVERY) {
            self.committed = now;
            self.consumer.commit();
        }
    }
}

/// Receives until ordered to stop: with one consumer by waiting for it, with several by waiting until any has messages.
pub(crate) fn run(stations: Vec<Station>) {
    if stations.len() > 1 {
        return run_together(stations);
    }
    for mut station in stations {
        while !station.is_stopped() {
            let settling = station.assigned == 0 && !station.shared.orders.loaded.load(Relaxed);
            station.turn(if settling { LOOK_EVERY } else { PATIENCE }, station.looks_every());
        }
    }
}

/// Of this many consumers on one thread, each checks its part in the group as rarely as if each check took that much
/// longer: meanwhile the others must wait.
const LOOKS_SHARED: u32 = 4;

/// As [`run`], with consumers that have little load: one that has messages wakes the thread.
fn run_together(mut stations: Vec<Station>) {
    let thread = std::thread::current();
    let waiting: Arc<Vec<AtomicBool>> = Arc::new(stations.iter().map(|_| AtomicBool::new(true)).collect());
    for (place, station) in stations.iter_mut().enumerate() {
        let (thread, waiting) = (thread.clone(), Arc::clone(&waiting));
        station.consumer.wake_by(Box::new(move || {
            waiting[place].store(true, Release);
            thread.unpark();
        }));
    }
    let stretch = u32::try_from(stations.len()).unwrap_or(u32::MAX).div_ceil(LOOKS_SHARED);
    while stations.iter().all(|station| !station.is_stopped()) {
        let mut looked = false;
        let mut next = clock::now() + PATIENCE;
        for (station, waits) in stations.iter_mut().zip(&*waiting) {
            let every = station.looks_every() * stretch;
            // One check at a time: in between the others are served.
            let due = !looked && clock::now().since(station.looked) >= every;
            if waits.swap(false, Acquire) || due {
                station.turn(Duration::ZERO, if due { every } else { Duration::MAX });
            }
            looked |= due;
            next = next.min(station.looked + every);
        }
        let now = clock::now();
        if next > now && !waiting.iter().any(|waits| waits.load(Acquire)) {
            // A consumer that got messages since then has left a mark that ends this at once.
            std::thread::park_timeout(next.since(now));
        }
    }
    // Each takes leave of its broker, which may take long: all do so at the same time.
    std::thread::scope(|scope| {
        for station in stations {
            let consumer = station.consumer;
            let closing = std::thread::Builder::new().name("close".to_owned()).stack_size(CLOSING_STACK);
            // If no thread is available, the consumer is dropped here and now.
            let _ = closing.spawn_scoped(scope, move || drop(consumer));
        }
    });
}

/// Bytes of stack of a thread that only closes a consumer.
const CLOSING_STACK: usize = 256 << 10;

/// The messages of one poll. The shared counts are locked from the first message on and released now and then.
struct Batch<'a> {
    receiver: &'a mut Receiver,
    arrivals: &'a Mutex<Arrivals>,
    ledger: &'a Mutex<Ledger>,
    held: Option<MutexGuard<'a, Arrivals>>,
    taken: u32,
    now: WallTime,
    /// Whether a probe was among them.
    probed: bool,
}

impl Batch<'_> {
    #[inline]
    fn take(&mut self, incoming: Incoming<'_>, time: &FleetTime) {
        if self.taken.is_multiple_of(PER_READING) {
            self.now = WallTime(time.zero().0 + clock::now().0);
        }
        self.taken += 1;
        let arrivals = self.held.get_or_insert_with(|| lock(self.arrivals));
        // Without a header only the producer's timestamp shows when it was sent; the receiver uses it if both have this
        // machine's clock.
        let Incoming { partition, offset, payload, timestamp } = incoming;
        let origin = Origin { now: self.now, partition, offset, sent: timestamp.map(|wall| time.of(wall)) };
        self.receiver.on_message(arrivals, origin, payload);
        if self.taken >= ENTER_AFTER {
            self.enter();
        }
    }

    fn enter(&mut self) {
        self.taken = 0;
        self.probed |= self.receiver.has_probes();
        if Ledger::is_behind(self.receiver) {
            lock(self.ledger).enter(self.receiver);
        }
        self.held = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_generation_is_one_rebalance_however_many_hear_of_it() {
        let group = Group::default();
        let members = [group.member(), group.member(), group.member()];
        let see = |place: usize, generation, assigned, at| {
            group.see(&members[place], Instant(at), Membership { generation, assigned });
        };
        assert_eq!(group.view(None), GroupView::default(), "nobody has joined");
        see(0, 1, 4, 1);
        (0..3).for_each(|place| see(place, 2, u32::from(place < 2) * 2, 2));
        let view = group.view(None);
        assert_eq!((view.joined, view.generations, view.assigned, view.rebalances), (3, (2, 2), 4, 2));
        group.count_from_here();
        (0..3).for_each(|place| see(place, 2, u32::from(place < 2) * 2, 3));
        assert_eq!(group.view(None).rebalances, 0);
        see(1, 3, 2, 7_000);
        see(0, 0, 0, 8_000);
        let view = group.view(Some(Instant(5_000)));
        assert_eq!((view.joined, view.generations, view.rebalances), (2, (2, 3), 1));
        assert_eq!(view.last, Some(Duration::from_nanos(2_000)));
        (1..3).for_each(|place| see(place, 3, 2, 9_000));
        assert_eq!(group.view(Some(Instant(5_000))).rebalances, 1);
    }
}
