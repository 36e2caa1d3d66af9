//! Sees everything in a simulated world and records it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use madsim::time::TimeHandle;

use crate::{trace::Trace, truth::Truth};

/// A handle to the records. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<Mutex<Notes>>);

/// The records.
#[derive(Debug, Default)]
pub struct Notes {
    /// Every record, hashed.
    pub trace: Trace,
    /// How often each fault, phase and error path was hit, by name.
    pub coverage: BTreeMap<String, u64>,
    /// What truly happened, by run.
    pub truths: Vec<Truth>,
    /// Which run a topic or a group belongs to, by its name.
    pub topics: BTreeMap<String, usize>,
}

impl Notes {
    /// Nothing is alive in this worker any more, whatever run it served.
    pub fn leave(&mut self, worker: u32) {
        for truth in &mut self.truths {
            if let Some(worker) = truth.workers.get_mut(worker as usize) {
                worker.leave();
                worker.excused = true;
            }
        }
    }
}

impl Witness {
    /// Adds a record to the trace, at the current simulated time.
    pub fn note(&self, actor: &str, what: fmt::Arguments<'_>) {
        let at = TimeHandle::current().elapsed();
        self.notes().trace.push(at, actor, what);
    }

    /// Counts that `what` happened.
    pub fn hit(&self, what: impl Into<String>) {
        *self.notes().coverage.entry(what.into()).or_default() += 1;
    }

    /// Reads, or adds to, the records. The guard must not live across an `await`.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        // A panic of one node ends the run with a report, which still reads the notes.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
