//! The slots for a node's requests: `omb_cluster::requests` with a clock, and a way to notify the request that must
//! end.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use omb_cluster::{
    admission::Capacity,
    requests::{Requests, Slot},
};
use omb_machine::time;
use tokio::{sync::Notify, time::Instant};

use super::Limits;

/// All slots.
pub(super) struct Slots {
    taken: Mutex<Taken>,
    began: Instant,
}

struct Taken {
    requests: Requests,
    leaves: BTreeMap<Slot, Arc<Notify>>,
}

impl Slots {
    pub(super) fn new(limits: &Limits) -> Self {
        let most = limits.requests;
        let capacity = Capacity { most, per_source: (most / 2).max(1), reserve: most / 8 };
        let requests = Requests::new(capacity, limits.patience);
        Self { taken: Mutex::new(Taken { requests, leaves: BTreeMap::new() }), began: Instant::now() }
    }

    /// Takes a slot for a request of a client at this address, or (`None`) of a peer, if there is one.
    pub(super) fn begin(&self, from: Option<IpAddr>) -> Option<InFlight<'_>> {
        let mut taken = self.taken();
        let (slot, broken) = taken.requests.begin(self.now(), from)?;
        if let Some(leaves) = broken.and_then(|broken| taken.leaves.remove(&broken)) {
            leaves.notify_one();
        }
        let leaves = Arc::<Notify>::default();
        taken.leaves.insert(slot, leaves.clone());
        Some(InFlight { slots: self, slot, leaves })
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> time::Instant {
        time::Instant::ZERO + self.began.elapsed()
    }
}

/// A request that has a slot, until it is dropped.
pub(super) struct InFlight<'a> {
    slots: &'a Slots,
    slot: Slot,
    leaves: Arc<Notify>,
}

impl InFlight<'_> {
    /// Does something that takes as long as the client likes.
    ///
    /// # Errors
    /// Also if that takes long and another request needs the slot.
    pub(super) async fn client<T>(&self, what: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        self.slots.taken().requests.waits(self.slots.now(), self.slot);
        let done = tokio::select! {
            biased;
            done = what => done,
            () = self.leaves.notified() => {
                let why = "no progress for a while, and other requests need its slot";
                Err(io::Error::new(io::ErrorKind::TimedOut, why))
            }
        };
        self.slots.taken().requests.goes_on(self.slot);
        done
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut taken = self.slots.taken();
        taken.requests.end(self.slot);
        taken.leaves.remove(&self.slot);
    }
}
