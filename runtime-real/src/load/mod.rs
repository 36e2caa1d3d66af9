//! The threads that send and receive. What happens per message is in `omb_bench::load`; here are the threads, the
//! clocks and the locks, none of which is taken per message.

pub mod ring;

pub(crate) mod receiving;
pub(crate) mod reporting;
pub(crate) mod sending;

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use omb_bench::protocol::{
    Failure,
    event::{Problem, Snapshot},
};

use crate::driver::Trouble;

/// Locks, also after a panic elsewhere: the lock guards counts, which stay usable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What went wrong, each kind reported once and counted.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    counts: Mutex<BTreeMap<String, u64>>,
    /// The first that will not pass without intervention.
    hopeless: Mutex<Option<Failure>>,
}

impl Problems {
    /// Counts one.
    pub(crate) fn add(&self, what: &str) {
        let mut known = lock(&self.counts);
        if let Some(count) = known.get_mut(what) {
            *count += 1;
        } else if known.len() < Snapshot::PROBLEMS_MAX {
            tracing::warn!("{what}");
            known.insert(what.to_owned(), 1);
        } else {
            *known.entry("other problems".to_owned()).or_default() += 1;
        }
    }

    /// Counts a client's error, and keeps it if waiting will not help.
    pub(crate) fn trouble(&self, trouble: &Trouble) {
        self.add(&trouble.what);
        if !trouble.meaning.heals {
            lock(&self.hopeless).get_or_insert_with(|| Failure::new(trouble.meaning.kind, trouble.what.clone()));
        }
    }

    /// The error that will not pass without intervention, if any.
    pub(crate) fn hopeless(&self) -> Option<Failure> {
        lock(&self.hopeless).clone()
    }

    /// All so far, the most frequent first.
    pub(crate) fn list(&self) -> Vec<Problem> {
        let mut list: Vec<_> =
            lock(&self.counts).iter().map(|(what, count)| Problem { what: what.clone(), count: *count }).collect();
        list.sort_by_key(|problem| std::cmp::Reverse(problem.count));
        list.truncate(Snapshot::PROBLEMS_MAX);
        list
    }
}
