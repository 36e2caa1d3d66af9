//! How much clients may be sending at once: every large request counts, from its announcement until it is answered,
//! against a budget of all and a share of its source.
//!
//! What does not fit waits where it is, in the client, since its connection is not read meanwhile. Half of the budget
//! is for very large requests, so that they delay only one another. While any request waits, those that stall or come
//! too slowly are given up, so that a client that announces much and sends little blocks no other.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    rc::Rc,
    time::Duration,
};

use omb_broker::ConnId;
use tokio::{sync::Notify, time::Instant};

/// Requests up to this size, in bytes, are received at once: those of consumers are smaller, and must come through when
/// producers wait for room.
pub(super) const FREE: usize = 64 << 10;

/// Slowest pace, in bytes per second, of a request for which others wait: a tenth of what a slow local network carries.
const PACE_MIN: u64 = 256 << 10;

/// Time over which the pace is measured.
const PACE_OVER: Duration = Duration::from_secs(1);

/// Requests of more than this share of the budget, one of so many, are very large.
const LARGE_SHARE: u64 = 16;

/// How often a waiting request checks whether others have become too slow.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The requests in progress.
#[derive(Debug)]
pub(super) struct Intake {
    budget: u64,
    requests: RefCell<Requests>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Requests {
    granted: BTreeMap<ConnId, Granted>,
    /// In the order of arrival.
    waiting: VecDeque<Waiting>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    conn: ConnId,
    source: IpAddr,
    bytes: u64,
}

#[derive(Debug)]
struct Granted {
    source: IpAddr,
    bytes: u64,
    received: u64,
    /// When the pace was last checked, and how much had come by then.
    looked: (Instant, u64),
    given_up: Rc<Notify>,
}

impl Intake {
    /// Of each half of `budget` bytes one source gets three quarters. A single request may be larger than that.
    pub(super) fn new(budget: u64) -> Self {
        Self { budget, requests: RefCell::default(), changed: Notify::new() }
    }

    /// Bytes of requests in progress, as announced.
    pub(super) fn held(&self) -> u64 {
        self.requests.borrow().held(|_| true)
    }

    /// Waits until a request of this size may be received. The returned value is notified if the request is given up.
    pub(super) async fn acquire(&self, conn: ConnId, source: IpAddr, bytes: u64) -> Rc<Notify> {
        self.requests.borrow_mut().waiting.push_back(Waiting { conn, source, bytes });
        // A connection that closes while it waits holds no other up.
        let leaves = Leaves { intake: self, conn };
        loop {
            if self.requests.borrow().may_begin(conn, self.budget) {
                drop(leaves);
                let given_up = Rc::<Notify>::default();
                let granted =
                    Granted { source, bytes, received: 0, looked: (Instant::now(), 0), given_up: Rc::clone(&given_up) };
                self.requests.borrow_mut().granted.insert(conn, granted);
                return given_up;
            }
            self.requests.borrow_mut().give_up_the_slow();
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// This many bytes of the request have arrived.
    pub(super) fn received(&self, conn: ConnId, bytes: u64) {
        if let Some(granted) = self.requests.borrow_mut().granted.get_mut(&conn) {
            granted.received = bytes;
        }
    }

    /// The request is answered, or its connection gone.
    pub(super) fn release(&self, conn: ConnId) {
        if self.requests.borrow_mut().granted.remove(&conn).is_some() {
            self.changed.notify_waiters();
        }
    }
}

/// Takes a connection off the waiting list.
struct Leaves<'a> {
    intake: &'a Intake,
    conn: ConnId,
}

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.intake.requests.borrow_mut().waiting.retain(|waiting| waiting.conn != self.conn);
        self.intake.changed.notify_waiters();
    }
}

impl Requests {
    fn held(&self, which: impl Fn(&Granted) -> bool) -> u64 {
        self.granted.values().filter(|granted| which(granted)).map(|granted| granted.bytes).sum()
    }

    /// Whether it is its turn and there is room. One that waits only for its own source holds no other up.
    fn may_begin(&self, conn: ConnId, budget: u64) -> bool {
        let Some(own) = self.waiting.iter().find(|waiting| waiting.conn == conn) else { return false };
        let alike = |bytes: u64| (bytes > budget / LARGE_SHARE) == (own.bytes > budget / LARGE_SHARE);
        let (most, per_source) = (budget / 2, budget / 2 - budget / 8);
        let held_up_by_its_own = |waiting: &&Waiting| {
            let own = self.held(|granted| alike(granted.bytes) && granted.source == waiting.source);
            own > 0 && own.saturating_add(waiting.bytes) > per_source
        };
        let mut waiting = self.waiting.iter().filter(|waiting| alike(waiting.bytes));
        let next = waiting.find(|waiting| !held_up_by_its_own(waiting));
        let all = self.held(|granted| alike(granted.bytes));
        next.is_some_and(|next| next.conn == conn && (all == 0 || all.saturating_add(next.bytes) <= most))
    }

    fn give_up_the_slow(&mut self) {
        let now = Instant::now();
        // What is complete waits for us.
        for granted in self.granted.values_mut().filter(|granted| granted.received < granted.bytes) {
            let (at, before) = granted.looked;
            if now.duration_since(at) < PACE_OVER {
                continue;
            }
            if granted.received - before < PACE_MIN {
                granted.given_up.notify_one();
            }
            granted.looked = (now, granted.received);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(nth: u8) -> IpAddr {
        [10, 0, 0, nth].into()
    }

    /// Requests that are granted and those that wait (host and bytes), and which of the latter may begin with a budget
    /// of
    /// 1,600: 800 for those of more than 100, of which one source gets 600, and as much for the others.
    #[track_caller]
    fn begins(granted: &[(u8, u64)], waiting: &[(u8, u64)], wanted: &[usize]) {
        let mut requests = Requests::default();
        for (nth, &(host, bytes)) in (1_000..).zip(granted) {
            let looked = (Instant::now(), 0);
            let one = Granted { source: ip(host), bytes, received: 0, looked, given_up: Rc::default() };
            requests.granted.insert(ConnId(nth), one);
        }
        let wait = |(nth, &(host, bytes))| Waiting { conn: ConnId(nth), source: ip(host), bytes };
        requests.waiting = (0..).zip(waiting).map(wait).collect();
        let may: Vec<usize> = (0..waiting.len()).filter(|nth| requests.may_begin(ConnId(*nth as u64), 1_600)).collect();
        assert_eq!(may, wanted, "{granted:?} {waiting:?}");
    }

    #[test]
    fn requests_begin_in_turn_and_within_the_budget() {
        begins(&[], &[(1, 500)], &[0]);
        begins(&[], &[(1, 9_000), (2, 101)], &[0]);
        begins(&[(1, 400)], &[(2, 400), (2, 101)], &[0]);
        // A request that waits for the whole budget keeps its turn, so that large ones come through, too.
        begins(&[(1, 400)], &[(2, 401), (2, 101)], &[]);
        begins(&[(1, 101)], &[(2, 900), (3, 101)], &[]);
        // One that waits for its own source does not.
        begins(&[(1, 400)], &[(1, 201), (2, 400)], &[1]);
        begins(&[(1, 400)], &[(1, 200), (2, 400)], &[0]);
        begins(&[(1, 400)], &[(1, 201)], &[]);
        // Large ones delay only one another.
        begins(&[(1, 700)], &[(2, 500), (2, 100), (3, 700), (3, 90)], &[1]);
    }
}
