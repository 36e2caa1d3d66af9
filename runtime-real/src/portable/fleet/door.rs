//! The connections of one listener: which exist, which must leave, and what each is doing.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use omb_bench::guests::{Bounds, Exhausted, GuestId, Guests, Share};
use tokio::sync::Notify;

/// Connections of strangers that are kept: fetching a page of metrics, or introducing a controller, takes less time
/// than this many others need to come.
const STRANGERS: Share = Share { most: 128, per_source: 32 };

/// Connections that are kept because they are authenticated: two of each controller, and some for its queries.
const KNOWN_MAX: usize = 256;

/// Bodies of the largest size, times two, that strangers of one source may be sending at once; the same for all sources
/// together, and for known connections of one source and of all.
const BODIES: [u64; 4] = [2, 4, 4, 8];

/// The bounds for a listener that takes bodies of up to `body_max` bytes.
pub(super) fn bounds(body_max: usize) -> Bounds {
    let [per_source, most, known_per_source, known_most] = BODIES.map(|bodies| bodies * body_max as u64);
    Bounds {
        strangers: STRANGERS,
        known: KNOWN_MAX,
        stranger_bytes: Share { most, per_source },
        known_bytes: Share { most: known_most, per_source: known_per_source },
    }
}

/// The connections.
#[derive(Debug)]
pub(super) struct Door {
    guests: Mutex<Guests>,
    /// How each is asked to leave.
    leave: Mutex<BTreeMap<GuestId, Arc<Notify>>>,
}

impl Door {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { guests: Mutex::new(Guests::new(bounds)), leave: Mutex::default() })
    }

    /// Admits a connection, for which another may have to leave.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Guest {
        let (id, leaves) = lock(&self.guests).enter(from);
        let dismissed = Arc::<Notify>::default();
        lock(&self.leave).insert(id, Arc::clone(&dismissed));
        self.dismiss(leaves);
        Guest { door: Arc::clone(self), id, from, dismissed, steps: AtomicU64::new(0) }
    }

    fn dismiss(&self, ids: impl IntoIterator<Item = GuestId>) {
        let leave = lock(&self.leave);
        for id in ids {
            if let Some(dismissed) = leave.get(&id) {
                tracing::debug!("a connection of a stranger is closed: others come");
                dismissed.notify_one();
            }
        }
    }
}

/// An admitted connection; its slot is free again when this is dropped.
#[derive(Debug)]
pub struct Guest {
    door: Arc<Door>,
    id: GuestId,
    from: IpAddr,
    dismissed: Arc<Notify>,
    /// Requests begun, and requests answered: odd while one is in progress.
    steps: AtomicU64,
}

impl Guest {
    /// Its source.
    #[must_use]
    pub fn from(&self) -> IpAddr {
        self.from
    }

    /// Authenticated: from now on it is not dismissed for others, as far as there are slots.
    pub fn prove(&self) {
        lock(&self.door.guests).prove(self.id);
    }

    /// Whether it is authenticated.
    #[must_use]
    pub fn is_known(&self) -> bool {
        lock(&self.door.guests).knows(self.id)
    }

    /// Requests begun and requests answered.
    pub(super) fn steps(&self) -> u64 {
        self.steps.load(Relaxed)
    }

    /// A request's head has arrived.
    pub(super) fn begins(&self) {
        self.steps.fetch_add(1, Relaxed);
    }

    /// This many bytes are to follow.
    pub(super) fn announces(&self, bytes: u64) -> Result<(), Exhausted> {
        let leave = lock(&self.door.guests).announce(self.id, bytes)?;
        self.door.dismiss(leave);
        Ok(())
    }

    /// The request is complete.
    pub(super) fn waits(&self) {
        lock(&self.door.guests).waits(self.id);
    }

    /// The request is answered.
    pub(super) fn answered(&self) {
        lock(&self.door.guests).answered(self.id);
        self.steps.fetch_add(1, Relaxed);
    }

    /// Completes when it has to leave.
    pub(super) async fn dismissed(&self) {
        self.dismissed.notified().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        lock(&self.door.guests).leave(self.id);
        lock(&self.door.leave).remove(&self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
