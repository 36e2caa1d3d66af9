//! Who sees everything in a simulated world and writes it down.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use madsim::time::TimeHandle;

use crate::{trace::Trace, truth::Truth};

/// A handle to what is written down. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Notes>>);

/// What is written down.
#[derive(Debug, Default)]
pub struct Notes {
    /// Every record, hashed.
    pub trace: Trace,
    /// How often each fault, phase and error path was hit, by name.
    pub coverage: BTreeMap<String, u64>,
    /// What truly happened.
    pub truth: Truth,
}

impl Witness {
    /// Adds a record to the trace, at the current simulated time.
    pub fn note(&self, who: &str, what: fmt::Arguments<'_>) {
        let at = TimeHandle::current().elapsed();
        self.notes().trace.push(at, who, what);
    }

    /// Counts that `what` happened.
    pub fn hit(&self, what: impl Into<String>) {
        *self.notes().coverage.entry(what.into()).or_default() += 1;
    }

    /// Looks into, or adds to, what is written down. The guard must not live across an `await`.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        // A panic of one node ends the run with a report, which still wants to read the notes.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
