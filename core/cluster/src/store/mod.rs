//! The sequence of steps that makes one upload durable.
//!
//! ```text
//! Put ─▶ Write ─▶ Sync ─ Rename ─ SyncFolder ─ Record ─▶ Ended(Ok)       only now it may be acknowledged
//!          │        │       │          │          │
//!          └────────┴───────┴──────────┴──────────┴─▶ Remove ─▶ Ended(Err)  nothing half-written remains
//! ```
//!
//! The record names the upload's file and owner (see [`journal`]). It comes last, so that a record without a file means
//! that the file was there: it is lost, and was acknowledged. A file without a record was not: its node crashed in
//! between, and its client tries again, whereupon the record is added before anything is acknowledged (see
//! [`Store::claim`]).
//!
//! If a renamed file is removed again, the folder is synced once more, or a power loss might bring the file back.
//!
//! Steps go out as [`Output::Do`] and come back as an input. Those that need no decision in between go out together, so
//! that a disk's thread is woken once for them; a crash between any two discards the machine. Bodies do not pass
//! through here: [`Step::Write`] asks the runtime to stream one into a temporary file, and [`Input::Written`] describes
//! it. Temporary files lie beside the shared folder, on the same file system, so that the shared folder shows finished
//! uploads and nothing else.
//!
//! On start the folder is listed: leftovers are removed, and the index of uploads is read from the file names. What is
//! found is made durable before it counts, for the process that renamed it may have died before it could. From time to
//! time the store checks that what it holds is still there, some files at a time.

pub mod journal;
mod name;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    time::Duration,
};

use crate::{
    config::Durability,
    peer::{Digest, Label, RequestId},
};
use journal::Record;
pub use name::{File, Kind, Name};
use omb_machine::{Machine, Wake, quantity::plural, time::Instant};

/// One thing to do to the disk. The first two come alone, and are answered by inputs of their own if they succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// List the folder of temporaries and the shared one; they are created if they are missing. Read the journal of
    /// uploads, and fsync it first, or records that a former process wrote and could not sync would be acknowledged,
    /// and torn away by a power loss. Answered by [`Input::Listed`].
    List,
    /// Create the upload's temporary file, truncated if it exists, and stream the body into it. Answered by
    /// [`Input::Written`].
    Write(RequestId),
    /// fsync the temporary file.
    Sync(RequestId),
    /// Rename the temporary file into the shared folder.
    Rename(Name),
    /// fsync the shared folder: after this upload was renamed, or (`None`) after the start.
    SyncFolder(Option<RequestId>),
    /// Remove a file. It is not a failure if it does not exist.
    Remove(File),
    /// Append these to the journal of uploads, and, if it says so, fsync it.
    Record {
        /// What to remember.
        records: Vec<Record>,
        /// Whether to fsync it.
        sync: bool,
    },
    /// Check that these files of the shared folder exist. Comes alone, and is answered by [`Input::Checked`].
    Check(Vec<Name>),
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
        /// What the client says of it.
        label: Label,
    },
    /// Result of [`Step::List`]: names, and for the shared folder sizes in bytes. Names that are not UTF-8 are not
    /// ours.
    Listed {
        /// In the folder of temporaries.
        temporary: Vec<String>,
        /// In the shared folder.
        shared: Vec<(String, u64)>,
        /// What the journal remembers, durably.
        recorded: BTreeMap<RequestId, Entry>,
    },
    /// Result of [`Step::Check`]: the size of each plain file of that name, in bytes; `None` if there is none.
    Checked(Vec<(Name, Option<u64>)>),
    /// A stored upload could not be read: its file is missing, or is not what was stored.
    Unreadable {
        /// Its name.
        name: Name,
        /// What is wrong with it.
        loss: Loss,
    },
    /// Result of [`Step::Write`].
    Written {
        /// The upload.
        id: RequestId,
        /// Bytes in the file.
        bytes: u64,
        /// Their digest.
        digest: Digest,
        /// Their kind, by the first bytes.
        kind: Kind,
    },
    /// Steps are done: this last one, and all before it.
    Done(Step),
    /// A step failed, and those after it were not performed.
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
    /// The disk is full: another node may succeed.
    #[error("{0}")]
    Full(String),
    /// The disk is read-only, broken: another node may succeed.
    #[error("{0}")]
    Disk(String),
    /// The body broke off or is not what was announced: another node would not succeed either.
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

/// What is known of an upload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Entry {
    /// What was stored.
    pub stored: Stored,
    /// What its client said of it; `None` if there is no record of that.
    pub label: Option<Label>,
}

impl Entry {
    /// Most bytes that it takes in a message.
    #[must_use]
    pub fn cost(&self) -> usize {
        /// Id, digest, kind, size, time and lengths.
        const FIXED: usize = 88;
        let label = self.label.as_ref().map_or(0, |label| label.file.as_str().len() + label.owner.as_str().len());
        FIXED + label
    }
}

/// Why a stored upload is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Loss {
    /// Its file is gone.
    Gone,
    /// Its file is not what was stored.
    Damaged,
}

/// What a store wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Do these in sequence, stopping at one that fails, and answer: by [`Input::Done`] with the last, or by
    /// [`Input::Failed`].
    Do(Vec<Step>),
    /// The folder was read; uploads are taken from now on.
    Ready,
    /// An upload that was put is stored, and survives what [`Durability`] says; or it is not, and nothing of it remains.
    Ended {
        /// The upload.
        id: RequestId,
        /// The result.
        outcome: Result<Stored, Failure>,
    },
    /// A line for the log.
    Info(String),
    /// A warning for the log, about something that needs attention.
    Warn(String),
}

/// What one node holds, and is about to hold.
#[derive(Debug)]
pub struct Store {
    durability: Durability,
    state: State,
    held: BTreeMap<RequestId, Entry>,
    /// Bytes of all that is held.
    bytes: u64,
    /// What was stored and is lost.
    lost: BTreeMap<RequestId, (Entry, Loss)>,
    /// Checksums of file names, held and lost, so that one is found without scanning all.
    files: BTreeSet<(u32, RequestId)>,
    /// What is held without a label and is being given one.
    labelling: BTreeMap<RequestId, Label>,
    scrub: Scrub,
    under_way: BTreeMap<RequestId, UnderWay>,
    /// Uploads that failed and may not have been removed from the shared folder. Not acknowledged, and not stored again
    /// before they are removed: another body would make a second copy.
    stuck: BTreeMap<RequestId, File>,
    /// When to retry what failed: to read the folder, or to remove what is stuck.
    again: Option<Instant>,
    /// The folder could not be read, and still has not been.
    blind: bool,
    outputs: VecDeque<Output>,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Listing,
    /// How many leftovers are still to be removed, and whether the folder is still to be synced.
    Cleaning {
        leftovers: usize,
        sync: bool,
    },
    Ready,
    /// The folder could not be read; it is tried again.
    Broken,
}

/// How long after a failure the folder is read again, and what is stuck is removed.
const AGAIN: Duration = Duration::from_secs(1);

/// Files that are checked together, and the time between two such checks.
const CHECKED: usize = 256;
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Records that are appended together when many are missing.
const RECORDED: usize = 1_000;

/// The pass over all that was stored.
#[derive(Debug)]
struct Scrub {
    /// From the end of one pass to the beginning of the next.
    every: Duration,
    /// The last id that was checked.
    after: Option<RequestId>,
    /// When it continues; `None` while files are being checked.
    next: Option<Instant>,
    /// How many were found lost in this pass, and the first of them.
    lost: u64,
    first: Option<RequestId>,
}

#[derive(Debug)]
struct UnderWay {
    announced: u64,
    label: Label,
    written: Option<Stored>,
    /// Set once it is being removed again.
    failure: Option<Failure>,
}

impl Store {
    /// Begins by reading the folder. `scrub_every` is the pause between two checks of all files.
    #[must_use]
    pub fn new(durability: Durability, scrub_every: Duration) -> Self {
        Self {
            durability,
            state: State::Listing,
            held: BTreeMap::new(),
            bytes: 0,
            lost: BTreeMap::new(),
            files: BTreeSet::new(),
            labelling: BTreeMap::new(),
            scrub: Scrub { every: scrub_every, after: None, next: None, lost: 0, first: None },
            under_way: BTreeMap::new(),
            stuck: BTreeMap::new(),
            again: None,
            blind: false,
            outputs: [Output::Do(vec![Step::List])].into(),
        }
    }

    /// Whether the folder has been read, so that [`Self::held`] is complete.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Whether the folder could not be read, so that its content is unknown, with no end in sight. Others must do
    /// without this node, as if it were out of reach.
    #[must_use]
    pub fn is_blind(&self) -> bool {
        self.blind
    }

    /// The stored upload of this id.
    #[must_use]
    pub fn held(&self, id: RequestId) -> Option<Stored> {
        self.held.get(&id).filter(|_| self.is_ready() && !self.labelling.contains_key(&id)).map(|entry| entry.stored)
    }

    /// The upload of this id that was stored and is lost.
    #[must_use]
    pub fn lost(&self, id: RequestId) -> Option<(&Entry, Loss)> {
        self.lost.get(&id).filter(|_| self.is_ready()).map(|(entry, loss)| (entry, *loss))
    }

    /// The stored upload of this id, if it may be acknowledged to a client that tries again with this label. An upload
    /// without a label is given this one first, and is in progress until then.
    pub fn claim(&mut self, id: RequestId, label: &Label) -> Option<Stored> {
        let stored = self.held(id)?;
        if self.held.get(&id).is_some_and(|entry| entry.label.is_some()) {
            return Some(stored);
        }
        self.labelling.insert(id, label.clone());
        self.record(vec![Record::Stored { stored, label: Some(label.clone()) }]);
        None
    }

    /// All stored uploads, by id.
    pub fn all(&self) -> impl Iterator<Item = &Entry> {
        self.held.values()
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

    /// How many stored uploads are lost for this reason.
    #[must_use]
    pub fn count_lost(&self, why: Loss) -> u64 {
        self.lost.values().filter(|(_, loss)| *loss == why).count() as u64
    }

    /// The stored uploads above this id, by id; all of them if it is `None`.
    pub fn after(&self, id: Option<RequestId>) -> impl Iterator<Item = &Entry> {
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.held.range((from, Bound::Unbounded)).map(|(_, entry)| entry)
    }

    /// Uploads, also lost ones, that have this file name, or an id that begins with these digits.
    pub fn find(&self, sought: &str) -> impl Iterator<Item = (&Entry, Option<Loss>)> {
        let sum = crc32c::crc32c(sought.as_bytes());
        let of_sum = self.files.range((sum, RequestId(0))..=(sum, RequestId(u128::MAX))).map(|(_, id)| *id);
        let called = move |entry: &Entry| entry.label.as_ref().is_some_and(|label| label.file.as_str() == sought);
        let by_name = of_sum.filter_map(|id| self.entry(id)).filter(move |(entry, _)| called(entry));
        let range = name::ids_from(sought);
        let held = range.clone().into_iter().flat_map(|range| self.held.range(range)).map(|(_, entry)| (entry, None));
        let lost = range.into_iter().flat_map(|range| self.lost.range(range));
        let by_id = held.chain(lost.map(|(_, (entry, loss))| (entry, Some(*loss))));
        by_name.chain(by_id.filter(move |(entry, _)| !called(entry)))
    }

    fn entry(&self, id: RequestId) -> Option<(&Entry, Option<Loss>)> {
        let held = self.held.get(&id).map(|entry| (entry, None));
        held.or_else(|| self.lost.get(&id).map(|(entry, loss)| (entry, Some(*loss))))
    }

    /// Whether an upload of this id is being stored, or may be there unacknowledged.
    #[must_use]
    pub fn is_under_way(&self, id: RequestId) -> bool {
        self.under_way.contains_key(&id) || self.stuck.contains_key(&id) || self.labelling.contains_key(&id)
    }

    /// Whether it holds an upload of this id or has lost it, or whether one is in progress.
    #[must_use]
    pub fn has_seen(&self, id: RequestId) -> bool {
        self.held.contains_key(&id) || self.lost.contains_key(&id) || self.is_under_way(id)
    }

    /// The first `most` ids above this one that it [has seen](Self::has_seen), and whether there are more.
    #[must_use]
    pub fn seen_after(&self, id: Option<RequestId>, most: usize) -> (Vec<RequestId>, bool) {
        fn above<T>(map: &BTreeMap<RequestId, T>, id: Option<RequestId>) -> impl Iterator<Item = RequestId> {
            let from = id.map_or(Bound::Unbounded, Bound::Excluded);
            map.range((from, Bound::Unbounded)).map(|(id, _)| *id)
        }
        let few = most.saturating_add(1);
        let mut ids: BTreeSet<RequestId> = above(&self.held, id).take(few).collect();
        ids.extend(above(&self.lost, id).take(few));
        ids.extend(above(&self.under_way, id).take(few));
        ids.extend(above(&self.stuck, id).take(few));
        let more = ids.len() > most;
        (ids.into_iter().take(most).collect(), more)
    }

    fn on_put(&mut self, id: RequestId, bytes: u64, label: Label) {
        let refusal = match self.state {
            State::Ready if self.is_under_way(id) => Failure::UnderWay,
            State::Ready => {
                if self.held.contains_key(&id) {
                    let outcome = self.claim(id, &label).ok_or(Failure::UnderWay);
                    return self.outputs.push_back(Output::Ended { id, outcome });
                }
                self.under_way.insert(id, UnderWay { announced: bytes, label, written: None, failure: None });
                return self.perform(Step::Write(id));
            }
            State::Broken => Failure::Disk("the folder of uploads could not be read".to_owned()),
            State::Listing | State::Cleaning { .. } => Failure::Starting,
        };
        self.outputs.push_back(Output::Ended { id, outcome: Err(refusal) });
    }

    fn on_listed(
        &mut self,
        now: Instant,
        temporary: &[String],
        shared: &[(String, u64)],
        mut recorded: BTreeMap<RequestId, Entry>,
    ) {
        if self.state != State::Listing {
            return;
        }
        (self.held, self.lost, self.files) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        self.bytes = 0;
        let (mut unknown, mut damaged) = (Vec::new(), Vec::new());
        for (file, bytes) in shared {
            // Other processes may put files there too; only files with such a name are ours.
            let Ok(name) = file.parse::<Name>() else { continue };
            let stored = Stored { name, bytes: *bytes };
            if let Some(first) = self.held.get(&name.id) {
                let line =
                    format!("found {name} beside {}, which is the same upload; it is not counted", first.stored.name);
                self.info(line);
                continue;
            }
            match recorded.get(&name.id) {
                Some(entry) if entry.stored == stored => {
                    let entry = recorded.remove(&name.id).expect("it was looked up");
                    self.hold(entry);
                }
                Some(entry) if entry.stored.name == name => damaged.push(name.id),
                // Stored by a process that crashed before it recorded it, or before there was a journal.
                _ => {
                    recorded.remove(&name.id);
                    unknown.push(Record::Stored { stored, label: None });
                    self.hold(Entry { stored, label: None });
                }
            }
        }
        let remembered = recorded.len() as u64;
        for (id, entry) in recorded {
            let loss = if damaged.contains(&id) { Loss::Damaged } else { Loss::Gone };
            self.index(&entry);
            self.lost.insert(id, (entry, loss));
        }
        if remembered > 0 {
            let (all, uploads) = (remembered + self.count(), self.first_lost());
            let accept = "if that is as it should be, start this node once with --accept-loss";
            let plural = plural(all);
            self.warn(if remembered == all {
                format!(
                    "the folder of uploads is empty, without the {all} acknowledged upload{plural} that it held ({uploads}), \
                     which cannot be had; {accept}"
                )
            } else {
                format!(
                    "acknowledged uploads are gone from the folder or damaged: {remembered} of {all} ({uploads}), which \
                     cannot be had; {accept}"
                )
            });
        }
        for records in unknown.chunks(RECORDED) {
            self.record(records.to_vec());
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
        self.look_whether_clean(now);
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
            self.scrub.next = Some(now + self.scrub.every);
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
        let label = Some(upload.label.clone());
        let records = vec![Record::Stored { stored: Stored { name, bytes }, label }];
        self.outputs.push_back(Output::Do(match self.durability {
            Durability::Fsync => vec![
                Step::Sync(id),
                Step::Rename(name),
                Step::SyncFolder(Some(id)),
                Step::Record { records, sync: true },
            ],
            Durability::None => vec![Step::Rename(name), Step::Record { records, sync: false }],
        }));
    }

    fn on_done(&mut self, now: Instant, step: Step) {
        match step {
            // Answered by inputs of their own, or never the last.
            Step::List | Step::Write(_) | Step::Sync(_) | Step::Rename(_) | Step::Check(_) => {}
            // The last step only if something is removed.
            Step::SyncFolder(Some(id)) => {
                self.stuck.remove(&id);
                if let Some(failure) = self.under_way.get(&id).and_then(|upload| upload.failure.clone()) {
                    self.fail(id, failure);
                }
            }
            Step::Record { records, .. } => records.iter().for_each(|record| self.on_recorded(record)),
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
                    self.info(format!("the folder of uploads cannot be read: {failure}; this node stores nothing"));
                }
                // Removals in progress are waited for, so that they are not taken for later ones.
                let leftovers = if let State::Cleaning { leftovers, .. } = self.state { leftovers } else { 0 };
                self.state = State::Cleaning { leftovers, sync: false };
                self.look_whether_clean(now);
            }
            Step::Write(id) | Step::Sync(id) | Step::Rename(Name { id, .. }) => {
                self.clean_up(id, File::Temporary(id), failure);
            }
            // Whether the name survives is unknown now. It is removed again: an fsync that is repeated after a failure
            // may succeed without having written anything.
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
            // As with the folder: whether it is recorded is unknown, and it is not acknowledged.
            Step::Record { records, .. } => {
                for record in records {
                    let Record::Stored { stored: Stored { name, .. }, .. } = record else { continue };
                    if self.labelling.remove(&name.id).is_none() {
                        self.clean_up(name.id, File::Shared(name), failure.clone());
                    }
                }
            }
            // Tried again as if nothing had been found.
            Step::Check(_) => self.scrub.next = Some(now + self.scrub.every),
            Step::Remove(file) => self.on_removed(now, &file, Some(&failure)),
        }
    }

    fn on_recorded(&mut self, record: &Record) {
        let Record::Stored { stored: Stored { name, .. }, label } = record else { return };
        if self.labelling.remove(&name.id).is_some() {
            if let Some(entry) = self.held.get_mut(&name.id) {
                entry.label.clone_from(label);
                let entry = entry.clone();
                self.index(&entry);
            }
        } else {
            self.finish(name.id);
        }
    }

    /// Checks the next files.
    fn check(&mut self) {
        let from = || self.scrub.after.map_or(Bound::Unbounded, Bound::Excluded);
        let held = self.held.range((from(), Bound::Unbounded)).take(CHECKED).map(|(_, entry)| entry.stored.name);
        let lost = self.lost.range((from(), Bound::Unbounded)).take(CHECKED).map(|(_, (entry, _))| entry.stored.name);
        let mut names: Vec<Name> = held.chain(lost).collect();
        names.sort_unstable();
        names.truncate(CHECKED);
        self.scrub.next = None;
        self.perform(Step::Check(names));
    }

    fn on_checked(&mut self, now: Instant, found: &[(Name, Option<u64>)]) {
        for (name, bytes) in found {
            let (name, bytes) = (*name, *bytes);
            match self.held.get(&name.id).filter(|entry| entry.stored.name == name).map(|entry| entry.stored.bytes) {
                Some(stored) if bytes != Some(stored) => {
                    self.lose(name.id, if bytes.is_none() { Loss::Gone } else { Loss::Damaged });
                    self.scrub.lost += 1;
                    self.scrub.first.get_or_insert(name.id);
                }
                Some(_) => {}
                None => self.look_whether_back(name, bytes),
            }
            self.scrub.after = Some(name.id);
        }
        let more = found.len() == CHECKED;
        if !more {
            self.scrub.after = None;
            if let Some(first) = self.scrub.first.take() {
                let (count, first) = (std::mem::take(&mut self.scrub.lost), self.describe(first));
                self.warn(format!("acknowledged uploads are gone from the folder or damaged: {count} ({first})"));
            }
        }
        self.scrub.next = Some(now + if more { CHECK_EVERY.min(self.scrub.every) } else { self.scrub.every });
    }

    /// A file that was gone may have been put back. Whether damage was repaired shows when it is read after the next
    /// start.
    fn look_whether_back(&mut self, name: Name, bytes: Option<u64>) {
        let back = |(entry, loss): &&(Entry, Loss)| {
            *loss == Loss::Gone && entry.stored.name == name && Some(entry.stored.bytes) == bytes
        };
        if self.lost.get(&name.id).filter(back).is_some() && !self.is_under_way(name.id) {
            let (entry, _) = self.lost.remove(&name.id).expect("it was looked up");
            self.info(format!("{name} is back"));
            self.hold(entry);
        }
    }

    fn on_unreadable(&mut self, name: Name, loss: Loss) {
        if self.held.get(&name.id).is_some_and(|entry| entry.stored.name == name) {
            self.lose(name.id, loss);
            let (what, first) = (if loss == Loss::Gone { "gone" } else { "damaged" }, self.describe(name.id));
            self.warn(format!("the file of an acknowledged upload is {what}: {name} ({first})"));
        }
    }

    fn lose(&mut self, id: RequestId, loss: Loss) {
        if let Some(entry) = self.held.remove(&id) {
            self.bytes = self.bytes.saturating_sub(entry.stored.bytes);
            self.lost.insert(id, (entry, loss));
        }
    }

    fn hold(&mut self, entry: Entry) {
        self.index(&entry);
        let id = entry.stored.name.id;
        self.lost.remove(&id);
        // Sizes come from a disk, and a sum must not break a node.
        self.bytes = self.bytes.saturating_add(entry.stored.bytes);
        self.held.insert(id, entry);
    }

    fn index(&mut self, entry: &Entry) {
        if let Some(label) = &entry.label {
            self.files.insert((crc32c::crc32c(label.file.as_str().as_bytes()), entry.stored.name.id));
        }
    }

    fn first_lost(&self) -> String {
        self.lost.keys().next().map(|id| self.describe(*id)).unwrap_or_default()
    }

    /// An example, as users know it.
    fn describe(&self, id: RequestId) -> String {
        let label = self.entry(id).and_then(|(entry, _)| entry.label.as_ref());
        match label {
            Some(Label { file, owner, .. }) => format!("such as {file} of {}", owner.as_str()),
            None => format!("such as {id}"),
        }
    }

    fn record(&mut self, records: Vec<Record>) {
        let sync = self.durability == Durability::Fsync;
        self.perform(Step::Record { records, sync });
    }

    fn clean_up(&mut self, id: RequestId, file: File, failure: Failure) {
        if let Some(upload) = self.under_way.get_mut(&id).filter(|upload| upload.failure.is_none()) {
            upload.failure = Some(failure);
            self.perform(Step::Remove(file));
        }
    }

    /// A file was removed, or could not be. Its upload ends only now, so that a retry does not find the file.
    fn on_removed(&mut self, now: Instant, file: &File, failed: Option<&Failure>) {
        if self.stuck.contains_key(&file.id()) {
            match failed {
                Some(_) => self.again = Some(now + AGAIN),
                None => self.perform(Step::SyncFolder(Some(file.id()))),
            }
            return;
        }
        if let Some(failure) = failed {
            self.info(format!("cannot remove {file}: {failure}"));
        }
        if let State::Cleaning { leftovers, .. } = &mut self.state {
            // One that stays is overwritten when its upload is tried again.
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
        if self.under_way.get(&id).is_none_or(|upload| upload.failure.is_some()) {
            return;
        }
        let UnderWay { written, label, .. } = self.under_way.remove(&id).expect("it was looked up");
        let stored = written.expect("what is renamed was written");
        self.hold(Entry { stored, label: Some(label) });
        self.outputs.push_back(Output::Ended { id, outcome: Ok(stored) });
    }

    fn perform(&mut self, step: Step) {
        self.outputs.push_back(Output::Do(vec![step]));
    }

    fn info(&mut self, line: String) {
        self.outputs.push_back(Output::Info(line));
    }

    fn warn(&mut self, line: String) {
        self.outputs.push_back(Output::Warn(line));
    }
}

impl Machine for Store {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Put { id, bytes, label } => self.on_put(id, bytes, label),
            Input::Listed { temporary, shared, recorded } => self.on_listed(now, &temporary, &shared, recorded),
            Input::Checked(found) => self.on_checked(now, &found),
            Input::Unreadable { name, loss } => self.on_unreadable(name, loss),
            Input::Written { id, bytes, digest, kind } => self.on_written(id, bytes, digest, kind),
            Input::Done(step) => self.on_done(now, step),
            Input::Failed { step, failure } => self.on_failed(now, step, failure),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.is_ready() && self.scrub.next.is_some_and(|at| at <= now) {
            self.check();
        }
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

    /// To try again what failed, and to look whether all is there: a disk answers when it answers.
    fn poll_timeout(&self) -> Option<Wake> {
        let again = self.again.map(|at| Wake { at, why: "disk that failed" });
        let scrub = self.scrub.next.filter(|_| self.is_ready()).map(|at| Wake { at, why: "files to look at" });
        Wake::earlier(again, scrub)
    }
}

#[cfg(test)]
mod tests;
