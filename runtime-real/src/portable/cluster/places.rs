//! The places that requests have at a node: `omb_cluster::requests` with a clock, and a way to reach who is to leave.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use omb_cluster::{
    admission::Room,
    requests::{Place, Requests},
};
use omb_machine::time;
use tokio::{sync::Notify, time::Instant};

use super::Limits;

/// All places.
pub(super) struct Places {
    taken: Mutex<Taken>,
    began: Instant,
}

struct Taken {
    requests: Requests,
    leaves: BTreeMap<Place, Arc<Notify>>,
}

impl Places {
    pub(super) fn new(limits: &Limits) -> Self {
        let most = limits.requests;
        let room = Room { most, per_source: (most / 2).max(1), reserve: most / 8 };
        let requests = Requests::new(room, limits.patience);
        Self { taken: Mutex::new(Taken { requests, leaves: BTreeMap::new() }), began: Instant::now() }
    }

    /// Takes a place for a request of a client at this address, or (`None`) of a peer, if there is one.
    pub(super) fn begin(&self, from: Option<IpAddr>) -> Option<UnderWay<'_>> {
        let mut taken = self.taken();
        let (place, broken) = taken.requests.begin(self.now(), from)?;
        if let Some(leaves) = broken.and_then(|broken| taken.leaves.remove(&broken)) {
            leaves.notify_one();
        }
        let leaves = Arc::<Notify>::default();
        taken.leaves.insert(place, leaves.clone());
        Some(UnderWay { places: self, place, leaves })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> time::Instant {
        time::Instant::ZERO + self.began.elapsed()
    }
}

/// A request that has a place, until it is dropped.
pub(super) struct UnderWay<'a> {
    places: &'a Places,
    place: Place,
    leaves: Arc<Notify>,
}

impl UnderWay<'_> {
    /// Does what takes as long as the client likes.
    ///
    /// # Errors
    /// Also if that has lasted, and somebody else needs the place.
    pub(super) async fn client<T>(&self, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        self.places.taken().requests.waits(self.places.now(), self.place);
        let done = tokio::select! {
            biased;
            done = what => done,
            () = self.leaves.notified() => {
                let why = "nothing came for a while, and others wait for its place";
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
        };
        self.places.taken().requests.goes_on(self.place);
        done
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.requests.end(self.place);
        taken.leaves.remove(&self.place);
    }
}
