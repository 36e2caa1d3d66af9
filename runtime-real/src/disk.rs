//! A node's folders on a real disk.
//!
//! ```text
//! shared_images/                    finished uploads, and nothing else of ours; the node holds a lock on it
//! .shared_images.node-3/            beside it: `lock`, `leadership` and a spare, the journal `uploads`, and `parts/`, the
//!                                   uploads in progress
//! ```
//!
//! Other users may be able to write into these folders: what is opened there is checked to be a plain file, a symbolic
//! link is never followed, and a pipe never waited for (see [`crate::files`]).
//!
//! Waking a thread costs more than its work: a small body waits in memory for the step after its write, which then does
//! both, and steps that belong together run in one task. Uploads that sync have a thread each, for the file system
//! flushes concurrent syncs together; those that do not sync share one. The later step reports a failure of the
//! earlier, and nothing was acknowledged before it.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    mem,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc, Mutex as Lock, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use omb_cluster::{
    config::{Durability, FileMode},
    peer::{Leadership, NodeId, RequestId, Term},
    store::{
        self, Entry, Name, Step,
        journal::{Record, Scanned},
    },
};
use omb_machine::printable::printable_within;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    task::{JoinHandle, spawn_blocking},
};

use crate::{
    files::{self, Links},
    journal::Journal,
    portable::cluster::{self, disk::Listed},
};

/// Bytes that are written, or read, at once.
const CHUNK: usize = 256 << 10;

/// Largest body that waits in memory: what the cluster's protocol counts as small, and sends unasked.
const HELD_MAX: usize = 64 << 10;

/// After this many bytes a body in progress is flushed to the disk, so that the fsync at its end is short and a client
/// that is faster than the disk is slowed down.
const WRITE_BACK: u64 = 32 << 20;

/// The state is accessible to its owner only.
const STATE_MODE: u32 = 0o700;

/// Bytes of `lock` that are read.
const HOLDER_MAX: u64 = 256;

/// Bytes of `leadership` that are read: it is one short line.
const LEADERSHIP_MAX: u64 = 256;

/// The folders of one node. Clones share them.
#[derive(Clone, Debug)]
pub struct Folders(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: PathBuf,
    parts: PathBuf,
    state: PathBuf,
    node: NodeId,
    durability: Durability,
    /// Of files in the shared folder.
    mode: FileMode,
    /// The shared folder itself, and `lock` in the state folder: both locked.
    _locks: [File; 2],
    /// Small bodies to be written with their next step. Each belongs to a request in flight.
    held: Lock<BTreeMap<RequestId, Vec<u8>>>,
    short: Lock<Short>,
    /// Once it was read.
    journal: Lock<Option<Arc<Journal>>>,
    /// Whether the next reading forgets what the journal remembers and the folder lacks.
    forgets: AtomicBool,
}

/// The result of steps: which one failed, and why.
type Performed = Result<(), (Step, io::Error)>;

/// Steps without a sync, which share a thread.
#[derive(Debug, Default)]
struct Short {
    waiting: Vec<(Vec<Step>, oneshot::Sender<Performed>)>,
    /// A task performs what waits.
    busy: bool,
}

impl Inner {
    /// Its name contains the node's, so that on a file system without locks no other node takes it for its own
    /// leftover.
    fn part(&self, id: RequestId) -> PathBuf {
        self.parts.join(format!("{}{}", self.part_prefix(), store::File::Temporary(id)))
    }

    fn part_prefix(&self) -> String {
        format!("node-{}-", self.node.0)
    }

    fn create_part(&self, id: RequestId) -> io::Result<File> {
        let file = files::create(&self.part(id))?;
        if self.mode != FileMode::default() {
            // Independent of the umask: a configured mode applies exactly.
            file.set_permissions(fs::Permissions::from_mode(self.mode.file()))?;
        }
        Ok(file)
    }

    fn upload(&self, name: Name) -> PathBuf {
        self.shared.join(name.to_string())
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<RequestId, Vec<u8>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn short(&self) -> MutexGuard<'_, Short> {
        self.short.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a body that waits in memory, if there is one.
    fn write_held(&self, id: RequestId) -> io::Result<Option<File>> {
        let Some(body) = self.held().remove(&id) else { return Ok(None) };
        let mut file = self.create_part(id)?;
        file.write_all(&body)?;
        Ok(Some(file))
    }

    /// Blocks.
    fn perform(&self, steps: Vec<Step>) -> Performed {
        // Opened before anything is done, and for these steps alone: the kernel reports a failure once per open file,
        // so a shared one might miss it.
        let syncs = steps.iter().any(|step| matches!(step, Step::SyncFolder(_)));
        let folder = syncs.then(|| File::open(&self.shared)).transpose().map_err(|error| (steps[0].clone(), error))?;
        for step in steps {
            let done = match &step {
                Step::List | Step::Write(_) | Step::Check(_) => Err(io::Error::other("this is done elsewhere")),
                Step::Record { records, sync } => self.record(records, *sync),
                Step::Sync(id) => self.sync(*id),
                Step::Rename(name) => {
                    self.write_held(name.id).and_then(|_| fs::rename(self.part(name.id), self.upload(*name)))
                }
                Step::SyncFolder(_) => folder.as_ref().expect("it was opened").sync_all(),
                Step::Remove(file) => self.remove(*file),
            };
            done.map_err(|error| (step, error))?;
        }
        Ok(())
    }

    fn sync(&self, id: RequestId) -> io::Result<()> {
        let file = match self.write_held(id)? {
            Some(file) => file,
            None => files::open(&self.part(id), Links::Refused)?,
        };
        file.sync_all()
    }

    fn record(&self, records: &[Record], sync: bool) -> io::Result<()> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let journal = journal.ok_or_else(|| io::Error::other("the journal was not read"))?;
        journal.append(&records.iter().flat_map(Record::encode).collect::<Vec<_>>(), sync)
    }

    /// Reads the journal, and leaves it open. `shared` is what the folder holds.
    fn read_journal(&self, shared: &[(String, u64)]) -> io::Result<BTreeMap<RequestId, Entry>> {
        let path = self.state.join("uploads");
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let forgets = self.forgets.swap(false, Relaxed);
        let (journal, Scanned { mut entries, dropped, .. }) = Journal::open(&path, |scanned| {
            if !forgets {
                return;
            }
            let there: BTreeMap<&str, u64> = shared.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
            let before = scanned.entries.len();
            let kept = |entry: &Entry| there.get(entry.stored.name.to_string().as_str()) == Some(&entry.stored.bytes);
            scanned.entries.retain(|_, entry| kept(entry));
            let lost = before - scanned.entries.len();
            tracing::info!("[Node {}] forgets {lost} uploads that cannot be had (--accept-loss)", self.node.0);
        })
        .map_err(named)?;
        if dropped > 0 {
            let path = path.display();
            tracing::warn!(
                "{path}: {dropped} bytes are not records: a crash in mid-write left them, or they are damaged; the names of \
                 uploads in them are lost"
            );
        }
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(journal));
        Ok(std::mem::take(&mut entries))
    }

    fn remove(&self, file: store::File) -> io::Result<()> {
        let path = match file {
            store::File::Temporary(id) => {
                self.held().remove(&id);
                self.part(id)
            }
            store::File::Shared(name) => self.upload(name),
        };
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Performs what waits, and what is added meanwhile.
    async fn perform_waiting(self: Arc<Self>) {
        loop {
            let batch = {
                let mut short = self.short();
                short.busy = !short.waiting.is_empty();
                mem::take(&mut short.waiting)
            };
            if batch.is_empty() {
                return;
            }
            let inner = self.clone();
            let work =
                move || batch.into_iter().map(|(steps, reply)| (inner.perform(steps), reply)).collect::<Vec<_>>();
            // Sent from here, for each message from the other thread would wake this one again. A panic drops the
            // batch, and the waiting tasks notice by that.
            for (outcome, reply) in spawn_blocking(work).await.unwrap_or_default() {
                let _ = reply.send(outcome);
            }
        }
    }
}

/// Why the folders cannot be used: one line that names the folder, the problem and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be made, read or written.
    #[error("{0}")]
    Unusable(String),
    /// Another process has locked it.
    #[error("{0}")]
    Taken(String),
}

impl Folders {
    /// Opens the folders of `node`, creates those that are missing, and locks them for this process. `state` holds the
    /// newest leadership and uploads in progress; `None` puts it beside `shared`. It must be on the same file system,
    /// since a rename makes an upload appear whole. Uploads get `mode`, and the folder for them, if it is created, the
    /// corresponding one; the state is accessible to its owner only. Existing folders keep their mode.
    ///
    /// # Errors
    /// If a folder cannot be created or written to, or another node uses it.
    pub fn open(
        shared: &Path,
        state: Option<&Path>,
        node: NodeId,
        durability: Durability,
        mode: FileMode,
    ) -> Result<Self, OpenError> {
        let unusable = |path: &Path, what: &str, error: &io::Error| {
            OpenError::Unusable(format!("{}: {what}: {error}", path.display()))
        };
        files::make_folder(shared, mode.folder())
            .map_err(|error| unusable(shared, "the folder for uploads (shared_dir) cannot be made", &error))?;
        let shared = fs::canonicalize(shared).map_err(|error| unusable(shared, "cannot be found", &error))?;
        let folder = File::open(&shared).map_err(|error| unusable(&shared, "cannot be read", &error))?;
        if let Err(TryLockError::WouldBlock) = folder.try_lock() {
            return Err(OpenError::Taken(format!(
                "{}: another node uses this folder; give each node a folder of its own (SHARED_DIR, or --shared-dir)",
                shared.display()
            )));
        }
        let no_state = |path: &Path, error: &io::Error| {
            unusable(path, "the folder of this node's state cannot be made (--state-dir names another place)", error)
        };
        let state = match state {
            Some(state) => {
                files::make_folder(state, STATE_MODE).map_err(|error| no_state(state, &error))?;
                fs::canonicalize(state).map_err(|error| unusable(state, "cannot be found", &error))?
            }
            None => {
                // Its name is predictable for any user who may write beside the shared folder.
                let state = beside(&shared, node)?;
                files::make_folder(&state, STATE_MODE).map_err(|error| no_state(&state, &error))?;
                if fs::symlink_metadata(&state).is_ok_and(|metadata| metadata.is_symlink()) {
                    return Err(OpenError::Unusable(format!(
                        "{}: it is a symbolic link, and may lead anywhere: name where it leads by --state-dir, or remove it",
                        state.display()
                    )));
                }
                state
            }
        };
        let lock = lock_state(&state, node)?;
        let parts = state.join("parts");
        files::make_folder(&parts, STATE_MODE).map_err(|error| no_state(&parts, &error))?;
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
        match (device(&shared), device(&parts)) {
            (Ok(one), Ok(other)) if one == other => {}
            (Ok(_), Ok(_)) => {
                return Err(OpenError::Unusable(format!(
                    "{} is on another file system than {}: name a place on the same one by --state-dir, such as {}",
                    state.display(),
                    shared.display(),
                    shared.join(".state").display()
                )));
            }
            (Err(error), _) => return Err(unusable(&shared, "cannot be read", &error)),
            (_, Err(error)) => return Err(unusable(&parts, "cannot be read", &error)),
        }
        // An existing folder may still not be writable for us.
        for path in [&shared, &parts] {
            files::probe(path).map_err(|error| unusable(path, "this node cannot write to it", &error))?;
        }
        Ok(Self(Arc::new(Inner {
            shared,
            parts,
            state,
            node,
            durability,
            mode,
            _locks: [folder, lock],
            held: Lock::default(),
            short: Lock::default(),
            journal: Lock::default(),
            forgets: AtomicBool::new(false),
        })))
    }

    /// What was stored and is lost is forgotten when the folders are read next.
    pub fn accept_loss(&self) {
        self.0.forgets.store(true, Relaxed);
    }

    /// The folder of finished uploads.
    #[must_use]
    pub fn shared(&self) -> &Path {
        &self.0.shared
    }

    #[cfg(test)]
    fn part(&self, id: RequestId) -> PathBuf {
        self.0.part(id)
    }
}

/// `.NAME.node-ID` beside the shared folder.
fn beside(shared: &Path, node: NodeId) -> Result<PathBuf, OpenError> {
    match (shared.parent(), shared.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.join(format!(".{}.node-{}", name.display(), node.0))),
        _ => Err(OpenError::Unusable(format!(
            "{} has nothing beside it: name a place for this node's state by --state-dir",
            shared.display()
        ))),
    }
}

/// Locks the state folder for this process. Names the holder if another process has it.
fn lock_state(state: &Path, node: NodeId) -> Result<File, OpenError> {
    let path = state.join("lock");
    let unusable = |error: &io::Error| OpenError::Unusable(format!("{}: cannot be locked: {error}", path.display()));
    let mut file = files::open_or_create(&path).map_err(|error| unusable(&error))?;
    match file.try_lock() {
        Ok(()) => {
            let text = format!("{node}, process {}\n", std::process::id());
            // Only for a process that finds it locked: without space for it the lock still holds.
            let _ = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = Vec::new();
            let _ = (&file).take(HOLDER_MAX).read_to_end(&mut holder);
            let holder = printable_within(String::from_utf8_lossy(&holder).trim(), 60);
            let holder = if holder.is_empty() { "another node".to_owned() } else { holder };
            Err(OpenError::Taken(format!(
                "{}: {holder} keeps its state in this folder; give each node a folder of its own (--state-dir)",
                state.display()
            )))
        }
        // A file system without locks.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Exchanges the names of two files atomically.
fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
}

/// Runs blocking work on a thread for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

impl cluster::Disk for Folders {
    type Writing = Writing;
    type Reading = Reading;

    async fn restore(&self) -> io::Result<Leadership> {
        let path = self.0.state.join("leadership");
        blocking(move || match files::read_text(&path, LEADERSHIP_MAX) {
            Ok(text) => leadership(&text).ok_or_else(|| {
                let found = printable_within(text.trim_end(), 60);
                let text = format!(
                    "{}: found `{found}`; allowed: `term T leader N`, as this program writes it. A node that forgot its \
                     term could follow an older leader: restore the file, or remove it if this node is new to the cluster",
                    path.display()
                );
                io::Error::new(io::ErrorKind::InvalidData, text)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Leadership::default()),
            Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
        })
        .await
    }

    async fn persist(&self, leadership: Leadership) -> io::Result<()> {
        let state = self.0.state.clone();
        blocking(move || {
            let (spare, path) = (state.join("leadership.spare"), state.join("leadership"));
            let text = text_of(leadership);
            // Overwrites what is there, which needs no space: a node whose disk is full can still elect and be elected.
            // A link or a pipe under this name is replaced.
            let mut file = files::open_or_create(&spare).or_else(|_| files::create(&spare))?;
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)?;
            // A term that was announced must not be reused after a power loss, whatever uploads survive.
            file.sync_all()?;
            if exchange(&spare, &path).is_err() {
                // There is no former one, or the file system cannot do this.
                fs::rename(&spare, &path)?;
                // For the next time. If there is no space for it, the next time needs some.
                let _ = files::create(&spare).and_then(|mut file| file.write_all(text.as_bytes()));
            }
            File::open(&state)?.sync_all()
        })
        .await
    }

    async fn list(&self) -> io::Result<Listed> {
        let inner = self.0.clone();
        blocking(move || {
            files::make_folder(&inner.shared, inner.mode.folder())?;
            files::make_folder(&inner.parts, STATE_MODE)?;
            let mut listed = Listed::default();
            let prefix = inner.part_prefix();
            for entry in fs::read_dir(&inner.parts)? {
                let name = entry?.file_name();
                listed.temporary.extend(name.to_str().and_then(|name| name.strip_prefix(&prefix)).map(str::to_owned));
            }
            for entry in fs::read_dir(&inner.shared)? {
                let entry = entry?;
                // Of a link itself, not of what it leads to.
                let metadata = entry.metadata()?;
                if let (true, Ok(name)) = (metadata.is_file(), entry.file_name().into_string()) {
                    listed.shared.push((name, metadata.len()));
                }
            }
            listed.recorded = inner.read_journal(&listed.shared)?;
            Ok(listed)
        })
        .await
    }

    async fn check(&self, names: Vec<Name>) -> io::Result<Vec<(Name, Option<u64>)>> {
        let inner = self.0.clone();
        blocking(move || {
            let look = |name: Name| match fs::symlink_metadata(inner.upload(name)) {
                Ok(metadata) => Ok((name, metadata.is_file().then_some(metadata.len()))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((name, None)),
                Err(error) => Err(error),
            };
            names.into_iter().map(look).collect()
        })
        .await
    }

    async fn create(&self, id: RequestId) -> io::Result<Writing> {
        self.0.held().remove(&id);
        // The file is created with the first bytes, or with the step after them; failures are reported then.
        Ok(Writing { folders: self.0.clone(), id, buffer: Vec::new(), unsynced: 0, state: State::Idle(None) })
    }

    async fn perform(&self, steps: Vec<Step>) -> Performed {
        let (inner, first) = (self.0.clone(), steps[0].clone());
        let syncs = |step: &Step| matches!(step, Step::Sync(_) | Step::SyncFolder(_) | Step::Record { sync: true, .. });
        if steps.iter().any(syncs) {
            return spawn_blocking(move || inner.perform(steps))
                .await
                .map_err(|error| (first, io::Error::other(error)))?;
        }
        let (reply, outcome) = oneshot::channel();
        let begin = {
            let mut short = inner.short();
            short.waiting.push((steps, reply));
            !mem::replace(&mut short.busy, true)
        };
        if begin {
            tokio::spawn(inner.perform_waiting());
        }
        outcome.await.map_err(|error| (first, io::Error::other(error)))?
    }

    async fn open(&self, name: Name) -> io::Result<Reading> {
        let path = self.0.upload(name);
        let file = blocking(move || files::open(&path, Links::Refused)).await?;
        Ok(Reading { state: ReadState::Idle(file, Vec::new()), at: 0 })
    }
}

fn text_of(leadership: Leadership) -> String {
    format!("term {} leader {}\n", leadership.term.0, leadership.leader.map_or(0, |leader| leader.0))
}

fn leadership(text: &str) -> Option<Leadership> {
    let (term, leader) = text.strip_suffix('\n')?.strip_prefix("term ")?.split_once(" leader ")?;
    let (term, leader) = (Term(term.parse().ok()?), leader.parse().ok()?);
    let leader = (leader > 0).then_some(NodeId(leader));
    // Term 0 has no leader, and every other term has one.
    ((term == Term(0)) == leader.is_none()).then_some(Leadership { term, leader })
}

/// An upload in progress.
#[derive(Debug)]
pub struct Writing {
    folders: Arc<Inner>,
    id: RequestId,
    /// Bytes that are still to be written.
    buffer: Vec<u8>,
    /// Bytes written since the last sync.
    unsynced: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The file, once it is created.
    Idle(Option<File>),
    Busy(JoinHandle<io::Result<File>>),
}

impl Writing {
    /// Begins to write what is buffered.
    fn begin(&mut self) {
        let State::Idle(file) = mem::replace(&mut self.state, State::Idle(None)) else { return };
        let buffer = mem::take(&mut self.buffer);
        self.unsynced += buffer.len() as u64;
        let sync = self.folders.durability == Durability::Fsync && self.unsynced >= WRITE_BACK;
        if sync {
            self.unsynced = 0;
        }
        let (folders, id) = (self.folders.clone(), self.id);
        self.state = State::Busy(spawn_blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => folders.create_part(id)?,
            };
            file.write_all(&buffer)?;
            if sync {
                file.sync_data()?;
            }
            Ok(file)
        }));
    }

    /// Waits for what was begun.
    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let State::Busy(job) = &mut self.state {
            let done = ready!(Pin::new(job).poll(context)).map_err(io::Error::other).flatten();
            match done {
                Ok(file) => self.state = State::Idle(Some(file)),
                Err(error) => {
                    self.state = State::Idle(None);
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Writing {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.buffer.len() >= CHUNK {
            ready!(this.poll_idle(context))?;
            this.begin();
        }
        let room = CHUNK - this.buffer.len();
        let taken = room.min(bytes.len());
        this.buffer.extend_from_slice(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.poll_idle(context))?;
            // An empty body makes an empty file.
            if this.buffer.is_empty() && !matches!(this.state, State::Idle(None)) {
                return Poll::Ready(Ok(()));
            }
            this.begin();
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if matches!(self.state, State::Idle(None)) && self.buffer.len() <= HELD_MAX {
            let body = mem::take(&mut self.buffer);
            self.folders.held().insert(self.id, body);
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(context)
    }
}

/// A stored upload that is being read.
#[derive(Debug)]
pub struct Reading {
    state: ReadState,
    /// How much of what was read has been passed on.
    at: usize,
}

#[derive(Debug)]
enum ReadState {
    Idle(File, Vec<u8>),
    Busy(JoinHandle<io::Result<(File, Vec<u8>)>>),
    /// A read failed, or the file is at its end.
    Over,
}

impl AsyncRead for Reading {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match mem::replace(&mut this.state, ReadState::Over) {
                ReadState::Idle(file, buffer) if this.at < buffer.len() => {
                    let count = into.remaining().min(buffer.len() - this.at);
                    into.put_slice(&buffer[this.at..this.at + count]);
                    this.at += count;
                    this.state = ReadState::Idle(file, buffer);
                    return Poll::Ready(Ok(()));
                }
                ReadState::Idle(file, mut buffer) => {
                    this.state = ReadState::Busy(spawn_blocking(move || {
                        buffer.clear();
                        (&file).take(CHUNK as u64).read_to_end(&mut buffer)?;
                        Ok((file, buffer))
                    }));
                }
                ReadState::Busy(mut job) => match Pin::new(&mut job).poll(context) {
                    Poll::Pending => {
                        this.state = ReadState::Busy(job);
                        return Poll::Pending;
                    }
                    Poll::Ready(done) => {
                        let (file, buffer) = done.map_err(io::Error::other).flatten()?;
                        if buffer.is_empty() {
                            return Poll::Ready(Ok(()));
                        }
                        this.at = 0;
                        this.state = ReadState::Idle(file, buffer);
                    }
                },
                ReadState::Over => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use omb_cluster::{peer::Digest, store::Kind};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::portable::cluster::Disk as _;

    fn open(shared: &Path) -> Result<Folders, OpenError> {
        Folders::open(shared, None, NodeId(3), Durability::Fsync, FileMode::default())
    }

    #[tokio::test]
    async fn an_upload_appears_whole_and_under_its_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let shared = dir.path().join("shared");
        let folders = open(&shared).expect("usable");
        for body in [Vec::new(), vec![7; 10], vec![9; 3 * CHUNK + 1]] {
            let id = RequestId(body.len() as u128);
            let mut writing = folders.create(id).await.expect("room");
            writing.write_all(&body).await.expect("room");
            writing.shutdown().await.expect("room");
            folders.perform(vec![Step::Sync(id)]).await.expect("synced");
            assert_eq!(fs::read(folders.part(id)).expect("a part"), body);
            let name = Name { id, digest: Digest::of(&body), kind: Kind::Bin };
            folders.perform(vec![Step::Rename(name), Step::SyncFolder(Some(id))]).await.expect("renamed and synced");
            let mut read = Vec::new();
            folders.open(name).await.expect("there").read_to_end(&mut read).await.expect("readable");
            assert!(read == body);
        }
        let listed = folders.list().await.expect("readable");
        assert_eq!((listed.temporary.len(), listed.shared.len()), (0, 3));
        assert_eq!(fs::read_dir(&shared).expect("there").count(), 3, "nothing else lies there");
    }

    /// The failed step is reported, and those after it are not performed.
    #[tokio::test]
    async fn steps_end_at_the_one_that_fails() {
        let dir = tempfile::tempdir().expect("a folder");
        let shared = dir.path().join("shared");
        let folders = open(&shared).expect("usable");
        let id = RequestId(1);
        let name = Name { id, digest: Digest::of(b"body"), kind: Kind::Bin };
        let steps = || vec![Step::Sync(id), Step::Rename(name), Step::SyncFolder(Some(id))];
        let write = async || {
            let mut writing = folders.create(id).await.expect("room");
            writing.write_all(b"body").await.expect("room");
            writing.shutdown().await.expect("room");
        };
        let failed = async || folders.perform(steps()).await.map_err(|(step, error)| (step, error.kind()));
        assert_eq!(failed().await, Err((Step::Sync(id), io::ErrorKind::NotFound)), "nothing was written");
        // It blocks the new name.
        fs::create_dir(folders.0.upload(name)).expect("made");
        write().await;
        assert_eq!(failed().await, Err((Step::Rename(name), io::ErrorKind::IsADirectory)));
        assert_eq!(fs::read(folders.part(id)).expect("it is not renamed"), b"body");
        // The folder itself is missing: this is noticed before anything is renamed.
        fs::remove_dir_all(&shared).expect("removed");
        assert_eq!(failed().await, Err((Step::Sync(id), io::ErrorKind::NotFound)));
        assert!(folders.part(id).exists());
    }

    /// Without a sync the rename writes what waits; and what is removed, or fails, does not exist later.
    #[tokio::test]
    async fn a_small_body_is_written_with_its_next_step() {
        let dir = tempfile::tempdir().expect("a folder");
        let shared = dir.path().join("shared");
        let folders = Folders::open(&shared, None, NodeId(3), Durability::None, FileMode::default()).expect("usable");
        let name = |id| Name { id: RequestId(id), digest: Digest::of(b"body"), kind: Kind::Bin };
        let write = async |id| {
            let mut writing = folders.create(RequestId(id)).await.expect("room");
            writing.write_all(b"body").await.expect("room");
            writing.shutdown().await.expect("room");
        };
        for id in 0..4 {
            write(id).await;
        }
        folders.perform(vec![Step::Remove(store::File::Temporary(RequestId(3)))]).await.expect("removed");
        let rename = |id| folders.perform(vec![Step::Rename(name(id))]);
        let (a, b, c, gone) = tokio::join!(rename(0), rename(1), rename(2), rename(3));
        assert!(a.is_ok() && b.is_ok() && c.is_ok(), "they share a thread, and each gets its own result");
        let gone = gone.map_err(|(step, error)| (step, error.kind()));
        assert_eq!(gone, Err((Step::Rename(name(3)), io::ErrorKind::NotFound)));
        assert_eq!(fs::read(folders.0.upload(name(1))).expect("there"), b"body");
        assert!(folders.0.held().is_empty());
        // A missing folder represents a disk that takes nothing.
        write(5).await;
        fs::remove_dir_all(&folders.0.parts).expect("removed");
        assert!(rename(5).await.is_err());
        assert!(folders.0.held().is_empty() && !folders.0.upload(name(5)).exists());
    }

    #[tokio::test]
    async fn a_leadership_survives() {
        let dir = tempfile::tempdir().expect("a folder");
        let shared = dir.path().join("shared");
        let folders = open(&shared).expect("usable");
        assert_eq!(folders.restore().await.expect("none yet"), Leadership::default());
        let newest = Leadership { term: Term(7), leader: Some(NodeId(2)) };
        folders.persist(newest).await.expect("written");
        drop(folders);
        assert_eq!(open(&shared).expect("free again").restore().await.expect("there"), newest);
    }

    #[test]
    fn what_is_no_leadership_is_refused() {
        for newest in [Leadership::default(), Leadership { term: Term(9), leader: Some(NodeId(4)) }] {
            assert_eq!(leadership(&text_of(newest)), Some(newest));
        }
        for text in ["", "term 1 leader 2", "term 1 leader 0\n", "term 0 leader 1\n", "term x leader 1\n", "{}\n"] {
            assert_eq!(leadership(text), None, "{text}");
        }
    }

    #[test]
    fn a_folder_has_one_node() {
        let dir = tempfile::tempdir().expect("a folder");
        let shared = dir.path().join("shared");
        let _first = open(&shared).expect("free");
        assert!(matches!(open(&shared), Err(OpenError::Taken(_))));
    }

    /// Also the state folder, whose holder is named.
    #[test]
    fn a_state_folder_has_one_node() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = dir.path().join("state");
        let open = |node| {
            let shared = dir.path().join(format!("shared{node}"));
            Folders::open(&shared, Some(&state), NodeId(node), Durability::Fsync, FileMode::default())
        };
        let first = open(1).expect("free");
        let Err(OpenError::Taken(line)) = open(2) else { panic!("two nodes have one state") };
        let holder = format!("node 1, process {} keeps its state in this folder", std::process::id());
        assert!(line.contains(&holder) && line.contains("--state-dir"), "{line}");
        drop(first);
        open(2).expect("free again");
    }

    /// What other users put into the folders is neither followed nor written to nor waited for.
    #[tokio::test]
    async fn links_and_pipes_are_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let shared = dir.path().join("shared");
        let treasure = dir.path().join("treasure");
        fs::write(&treasure, b"precious").expect("written");
        let link = |from: &Path| {
            let _ = fs::remove_file(from);
            std::os::unix::fs::symlink(&treasure, from).expect("linked");
        };
        fs::create_dir(&shared).expect("made");
        for probe in [".probe", ".lock"] {
            link(&shared.join(probe));
        }
        let folders = open(&shared).expect("usable");
        let unharmed = || assert_eq!(fs::read(&treasure).expect("it is there"), b"precious");
        unharmed();
        let (id, body) = (RequestId(1), b"body");
        let name = Name { id, digest: Digest::of(body), kind: Kind::Bin };
        // Under the names of the temporary file, of the leadership's spare, and of the upload.
        link(&folders.part(id));
        link(&folders.0.state.join("leadership.spare"));
        link(&folders.0.upload(name));
        let mut writing = folders.create(id).await.expect("room");
        writing.write_all(body).await.expect("room");
        writing.shutdown().await.expect("room");
        let newest = Leadership { term: Term(7), leader: Some(NodeId(2)) };
        folders.persist(newest).await.expect("what is there is replaced");
        assert_eq!(folders.restore().await.expect("there"), newest);
        assert!(folders.open(name).await.is_err(), "it is not read through the link");
        let steps = vec![Step::Sync(id), Step::Rename(name), Step::SyncFolder(Some(id))];
        folders.perform(steps).await.expect("what was there is replaced");
        unharmed();
        assert_eq!(fs::read(folders.0.upload(name)).expect("there"), body);
        assert!(fs::symlink_metadata(folders.0.upload(name)).expect("there").is_file());
        // An upload that became a pipe: nothing writes into it, so a plain open would wait forever.
        fs::remove_file(folders.0.upload(name)).expect("removed");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, folders.0.upload(name), rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        let opened = tokio::time::timeout(std::time::Duration::from_secs(20), folders.open(name)).await;
        assert_eq!(opened.expect("at once").map(drop).map_err(|error| error.kind()), Err(io::ErrorKind::InvalidInput));
        assert_eq!(folders.list().await.expect("readable").shared, []);
    }

    /// Regardless of the umask: only for the owner, or as configured. Existing folders keep their mode.
    #[tokio::test]
    async fn modes_are_those_asked_for() {
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o7777;
        for (asked, file, folder) in [("0600", 0o600, 0o700), ("0644", 0o644, 0o755), ("0660", 0o660, 0o770)] {
            let dir = tempfile::tempdir().expect("a folder");
            let shared = dir.path().join("a/shared");
            let asked: FileMode = asked.parse().expect("a mode");
            let open = || Folders::open(&shared, None, NodeId(3), Durability::Fsync, asked);
            let folders = open().expect("usable");
            let (id, large) = (RequestId(1), RequestId(2));
            for (id, body) in [(id, vec![1; 10]), (large, vec![1; 3 * CHUNK])] {
                let mut writing = folders.create(id).await.expect("room");
                writing.write_all(&body).await.expect("room");
                writing.shutdown().await.expect("room");
                let name = Name { id, digest: Digest::of(&body), kind: Kind::Bin };
                folders.perform(vec![Step::Sync(id), Step::Rename(name)]).await.expect("stored");
                assert_eq!(mode(&folders.0.upload(name)), file);
            }
            folders.persist(Leadership::default()).await.expect("written");
            assert_eq!(mode(&folders.0.state.join("leadership")), 0o600);
            let state = folders.0.state.clone();
            assert_eq!([&shared, &state, &state.join("parts")].map(|path| mode(path)), [folder, 0o700, 0o700]);
            fs::set_permissions(&shared, fs::Permissions::from_mode(0o751)).expect("changed");
            drop(folders);
            open().expect("usable");
            assert_eq!(mode(&shared), 0o751, "a folder that is there keeps its mode");
        }
    }
}
