//! The order of steps that makes one upload durable.
//!
//! ```text
//! Put ─▶ Write ─▶ Sync ─ Rename ─ SyncFolder ─▶ Ended(Ok)      only now it may be acknowledged
//!          │        │       │          │
//!          └────────┴───────┴──────────┴─▶ Remove ─▶ Ended(Err)  nothing half-written remains
//! ```
//!
//! What was renamed already and is removed again is synced once more, or a loss of power might bring it back.
//!
//! Steps go out as [`Output::Do`] and come back as an input. Those that need no decision in between go out together, so
//! that a disk's thread is woken once for them; a crash between any two is a machine that is thrown away. Bodies do not
//! pass: [`Step::Write`] asks the runtime to stream one into a temporary file, and [`Input::Written`] says what it was.
//! Temporary files lie beside the shared folder, on the same file system, so that people who look into the shared folder
//! see finished uploads and nothing else.
//!
//! On start the folder is listed: leftovers are removed, and the index of who holds what is read from the names. What is
//! found is made durable before it counts, for the process that renamed it may have died before it could.

mod name;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    time::Duration,
};

use crate::{
    config::cluster::Durability,
    machine::{Machine, Wake},
    peer::{Digest, RequestId},
    time::Instant,
};
pub use name::{File, Kind, Name};

/// One thing to do to the disk. The first two come alone, and are answered by inputs of their own if they succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// List the folder of temporaries and the shared one; they are created where they are missing. Answered by [`Input::Listed`].
    List,
    /// Create the upload's temporary file, emptied if it is there, and stream the body into it. Answered by [`Input::Written`].
    Write(RequestId),
    /// fsync the temporary file.
    Sync(RequestId),
    /// Rename the temporary file into the shared folder.
    Rename(Name),
    /// fsync the shared folder: after this upload was renamed, or (`None`) after the start.
    SyncFolder(Option<RequestId>),
    /// Remove a file. That it does not exist is no failure.
    Remove(File),
}

/// What can happen to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Store an upload.
    Put {
        /// Its id.
        id: RequestId,
        /// Bytes that the client has announced.
        bytes: u64,
    },
    /// What [`Step::List`] found: names, and for the shared folder sizes in bytes. Names that are not UTF-8 are not ours.
    Listed {
        /// In the folder of temporaries.
        temporary: Vec<String>,
        /// In the shared folder.
        shared: Vec<(String, u64)>,
    },
    /// What [`Step::Write`] has written.
    Written {
        /// The upload.
        id: RequestId,
        /// Bytes in the file.
        bytes: u64,
        /// Their digest.
        digest: Digest,
        /// What they begin like.
        kind: Kind,
    },
    /// Steps are done: the last of them, and all before it.
    Done(Step),
    /// A step failed, and those behind it were left undone.
    Failed {
        /// The step.
        step: Step,
        /// Why.
        failure: Failure,
    },
}

/// Why an upload could not be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The disk is full, read-only, broken: another node may fare better.
    #[error("{0}")]
    Disk(String),
    /// The body broke off or is not what was announced: another node would fare no better.
    #[error("{0}")]
    Body(String),
    /// The same upload is being stored right now.
    #[error("this upload is being stored already")]
    UnderWay,
    /// The folder has not been read yet.
    #[error("this node is starting and does not know yet what it holds")]
    Starting,
}

/// An upload that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Stored {
    /// Its name in the shared folder.
    pub name: Name,
    /// Its size in bytes.
    pub bytes: u64,
}

/// What a store wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Do these, one after the other and none after one that fails, and answer: by [`Input::Done`] with the last or by
    /// [`Input::Failed`].
    Do(Vec<Step>),
    /// The folder was read; uploads are taken from here on.
    Ready,
    /// An upload that was put is stored, and survives what [`Durability`] says; or it is not, and nothing of it remains.
    Ended {
        /// The upload.
        id: RequestId,
        /// What came of it.
        outcome: Result<Stored, Failure>,
    },
    /// A line for the log.
    Told(String),
}

/// What one node holds, and is about to.
#[derive(Debug)]
pub struct Store {
    durability: Durability,
    state: State,
    held: BTreeMap<RequestId, Stored>,
    /// Bytes of all that is held.
    bytes: u64,
    under_way: BTreeMap<RequestId, UnderWay>,
    /// Uploads that failed and could not be removed from the shared folder, surely. Not acknowledged, and not stored again
    /// before it is removed: another body would make a second copy.
    stuck: BTreeMap<RequestId, File>,
    /// When to try again what failed: to read the folder, or to remove what is stuck.
    again: Option<Instant>,
    /// The folder could not be read, and has not been since.
    blind: bool,
    outputs: VecDeque<Output>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Listing,
    /// Leftovers that are still to be removed, and whether the folder is still to be synced.
    Cleaning {
        leftovers: usize,
        sync: bool,
    },
    Ready,
    /// The folder could not be read; it is tried again.
    Broken,
}

/// How long after a failure the folder is read again, and what is stuck removed.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct UnderWay {
    announced: u64,
    written: Option<Stored>,
    /// Set once it is being removed again.
    failure: Option<Failure>,
}

impl Store {
    /// Begins by reading the folder.
    #[must_use]
    pub fn new(durability: Durability) -> Self {
        Self {
            durability,
            state: State::Listing,
            held: BTreeMap::new(),
            bytes: 0,
            under_way: BTreeMap::new(),
            stuck: BTreeMap::new(),
            again: None,
            blind: false,
            outputs: [Output::Do(vec![Step::List])].into(),
        }
    }

    /// Whether the folder has been read, so that [`Self::held`] is the whole truth.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether the folder could not be read, so that nobody knows what is in it, or when somebody will. Whoever asks must
    /// do without this node, as if it were out of reach.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.blind
    }

    /// The stored upload of this id.
    #[must_use]
    pub fn held(&self, id: RequestId) -> Option<Stored> {
        self.held.get(&id).copied().filter(|_| self.is_ready())
    }

    /// All stored uploads, by id.
    pub fn all(&self) -> impl Iterator<Item = Stored> {
        self.held.values().copied()
    }

    /// How many uploads are stored.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.held.len() as u64
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The stored uploads above this id, by id; all of them without one.
    pub fn after(&self, id: Option<RequestId>) -> impl Iterator<Item = Stored> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.held.range((from, Bound::Unbounded)).map(|(_, stored)| *stored)
    }

    /// Whether an upload of this id is being stored, or may lie there unacknowledged.
    #[must_use]
    pub fn is_under_way(&self, id: RequestId) -> bool {
        self.under_way.contains_key(&id) || self.stuck.contains_key(&id)
    }

    fn on_put(&mut self, id: RequestId, bytes: u64) {
        let refusal = match self.state {
            State::Ready if self.is_under_way(id) => Failure::UnderWay,
            State::Ready => {
                if let Some(stored) = self.held.get(&id) {
                    let outcome = Ok(*stored);
                    return self.outputs.push_back(Output::Ended { id, outcome });
                }
                self.under_way.insert(id, UnderWay { announced: bytes, written: None, failure: None });
                return self.perform(Step::Write(id));
            }
            State::Broken => Failure::Disk("the folder of uploads could not be read".to_owned()),
            State::Listing | State::Cleaning { .. } => Failure::Starting,
        };
        self.outputs.push_back(Output::Ended { id, outcome: Err(refusal) });
    }

    fn on_listed(&mut self, temporary: &[String], shared: &[(String, u64)]) {
        if self.state != State::Listing {
            return;
        }
        self.held.clear();
        self.bytes = 0;
        for (file, bytes) in shared {
            // Others may put files there too; only what has a name of ours is ours.
            let Ok(name) = file.parse::<Name>() else { continue };
            let stored = Stored { name, bytes: *bytes };
            if let Some(first) = self.held.insert(name.id, stored) {
                self.held.insert(name.id, first);
                self.tell(format!("found {name} beside {}, which is the same upload; it is not counted", first.name));
            } else {
                // Sizes come from a disk, and a sum must not break a node.
                self.bytes = self.bytes.saturating_add(stored.bytes);
            }
        }
        let leftovers: Vec<File> = temporary.iter().filter_map(|file| File::temporary(file)).collect();
        let sync = self.durability == Durability::Fsync && !self.held.is_empty();
        self.state = State::Cleaning { leftovers: leftovers.len(), sync };
        if sync {
            self.perform(Step::SyncFolder(None));
        }
        for file in leftovers {
            self.perform(Step::Remove(file));
        }
        self.blind = false;
        self.look_whether_clean(Instant::ZERO);
    }

    fn look_whether_clean(&mut self, now: Instant) {
        if self.state != (State::Cleaning { leftovers: 0, sync: false }) {
            return;
        }
        if self.blind {
            self.state = State::Broken;
            self.again = Some(now + AGAIN);
        } else {
            self.state = State::Ready;
            self.outputs.push_back(Output::Ready);
        }
    }

    fn on_written(&mut self, id: RequestId, bytes: u64, digest: Digest, kind: Kind) {
        let Some(upload) = self.under_way.get_mut(&id).filter(|upload| upload.written.is_none()) else { return };
        let name = Name { id, digest, kind };
        upload.written = Some(Stored { name, bytes });
        if bytes != upload.announced {
            let text = format!("{} bytes were announced, {bytes} came", upload.announced);
            return self.clean_up(id, File::Temporary(id), Failure::Body(text));
        }
        self.outputs.push_back(Output::Do(match self.durability {
            Durability::Fsync => vec![Step::Sync(id), Step::Rename(name), Step::SyncFolder(Some(id))],
            Durability::None => vec![Step::Rename(name)],
        }));
    }

    fn on_done(&mut self, now: Instant, step: Step) {
        match step {
            // Answered by inputs of their own, or never the last.
            Step::List | Step::Write(_) | Step::Sync(_) => {}
            Step::Rename(Name { id, .. }) => {
                if self.durability == Durability::None {
                    self.finish(id);
                }
            }
            Step::SyncFolder(Some(id)) => {
                self.stuck.remove(&id);
                match self.under_way.get(&id).and_then(|upload| upload.failure.clone()) {
                    Some(failure) => self.fail(id, failure),
                    None => self.finish(id),
                }
            }
            Step::SyncFolder(None) => {
                if let State::Cleaning { sync, .. } = &mut self.state {
                    *sync = false;
                }
                self.look_whether_clean(now);
            }
            Step::Remove(file) => self.on_removed(now, &file, None),
        }
    }

    fn on_failed(&mut self, now: Instant, step: Step, failure: Failure) {
        match step {
            Step::List | Step::SyncFolder(None) => {
                if !std::mem::replace(&mut self.blind, true) {
                    self.tell(format!("the folder of uploads cannot be read: {failure}; this node stores nothing"));
                }
                // What is still being removed is waited for, so that it is not taken for a later removal.
                let leftovers = if let State::Cleaning { leftovers, .. } = self.state { leftovers } else { 0 };
                self.state = State::Cleaning { leftovers, sync: false };
                self.look_whether_clean(now);
            }
            Step::Write(id) | Step::Sync(id) | Step::Rename(Name { id, .. }) => {
                self.clean_up(id, File::Temporary(id), failure);
            }
            // Whether the name survives is unknown now. It is taken away again: an fsync that is repeated after a
            // failure may succeed without having written anything.
            Step::SyncFolder(Some(id)) => {
                if self.stuck.contains_key(&id) {
                    self.again = Some(now + AGAIN);
                } else if let Some(upload) = self.under_way.get(&id)
                    && let Some(Stored { name, .. }) = upload.written
                {
                    match upload.failure.clone() {
                        Some(first) => self.stick(now, File::Shared(name), first),
                        None => self.clean_up(id, File::Shared(name), failure),
                    }
                }
            }
            Step::Remove(file) => self.on_removed(now, &file, Some(&failure)),
        }
    }

    fn clean_up(&mut self, id: RequestId, file: File, failure: Failure) {
        if let Some(upload) = self.under_way.get_mut(&id).filter(|upload| upload.failure.is_none()) {
            upload.failure = Some(failure);
            self.perform(Step::Remove(file));
        }
    }

    /// A file is gone, or could not be removed. Its upload ends only now, so that a retry cannot meet it.
    fn on_removed(&mut self, now: Instant, file: &File, failed: Option<&Failure>) {
        if self.stuck.contains_key(&file.id()) {
            match failed {
                Some(_) => self.again = Some(now + AGAIN),
                None => self.perform(Step::SyncFolder(Some(file.id()))),
            }
            return;
        }
        if let Some(failure) = failed {
            self.tell(format!("cannot remove {file}: {failure}"));
        }
        if let State::Cleaning { leftovers, .. } = &mut self.state {
            // One that stays is overwritten when its upload comes again.
            *leftovers -= 1;
            return self.look_whether_clean(now);
        }
        let id = file.id();
        if let Some(failure) = self.under_way.get(&id).and_then(|upload| upload.failure.clone()) {
            match (file, failed) {
                (File::Temporary(_), _) => self.fail(id, failure),
                (File::Shared(_), None) => self.perform(Step::SyncFolder(Some(id))),
                (File::Shared(_), Some(_)) => self.stick(now, *file, failure),
            }
        }
    }

    /// It has failed, and its file may stay for now.
    fn stick(&mut self, now: Instant, file: File, failure: Failure) {
        self.stuck.insert(file.id(), file);
        self.again = Some(now + AGAIN);
        self.fail(file.id(), failure);
    }

    fn fail(&mut self, id: RequestId, failure: Failure) {
        self.under_way.remove(&id);
        self.outputs.push_back(Output::Ended { id, outcome: Err(failure) });
    }

    fn finish(&mut self, id: RequestId) {
        let Some(upload) = self.under_way.get(&id).filter(|upload| upload.failure.is_none()) else { return };
        let stored = upload.written.expect("what is renamed was written");
        self.under_way.remove(&id);
        self.held.insert(id, stored);
        self.bytes = self.bytes.saturating_add(stored.bytes);
        self.outputs.push_back(Output::Ended { id, outcome: Ok(stored) });
    }

    fn perform(&mut self, step: Step) {
        self.outputs.push_back(Output::Do(vec![step]));
    }

    fn tell(&mut self, line: String) {
        self.outputs.push_back(Output::Told(line));
    }
}

impl Machine for Store {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Put { id, bytes } => self.on_put(id, bytes),
            Input::Listed { temporary, shared } => self.on_listed(&temporary, &shared),
            Input::Written { id, bytes, digest, kind } => self.on_written(id, bytes, digest, kind),
            Input::Done(step) => self.on_done(now, step),
            Input::Failed { step, failure } => self.on_failed(now, step, failure),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.again.is_none_or(|at| at > now) {
            return;
        }
        self.again = None;
        if self.state == State::Broken {
            self.state = State::Listing;
            self.perform(Step::List);
        }
        for file in self.stuck.values().copied().collect::<Vec<_>>() {
            self.perform(Step::Remove(file));
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Only to try again what failed: a disk answers when it answers.
    fn poll_timeout(&self) -> Option<Wake> {
        self.again.map(|at| Wake { at, why: "disk that failed" })
    }
}

#[cfg(test)]
mod tests;
