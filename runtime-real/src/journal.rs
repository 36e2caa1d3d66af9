//! The journal of a node's uploads on a real disk: a file that is appended to, by many threads at once.
//!
//! One fsync serves all threads that have appended by then: a thread that finds no sync in progress does it for the
//! others, which wait. Space is allocated in advance and filled with zeros, so that an append changes no size, and
//! syncing it is one write to the disk instead of two.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

use omb_cluster::store::journal::{HEADER, Scanned, scan, whole};

use crate::files::{self, Links};

/// Space that is allocated at once: half of what is used, within these bounds.
const ROOM_MIN: u64 = 4 << 10;
const ROOM_MAX: u64 = 256 << 10;

/// Failures that are remembered for waiting threads.
const FAILURES_MAX: usize = 64;

/// An open journal.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    state: Mutex<State>,
    /// Signals that a sync has succeeded or failed.
    done: Condvar,
}

#[derive(Debug)]
struct State {
    /// Where the next record goes.
    tail: u64,
    /// The end of the allocated space.
    room: u64,
    /// Up to where it is durable, or was given up.
    synced: u64,
    /// A sync is in progress.
    syncing: bool,
    /// What could not be synced, and why.
    failed: Vec<(Range<u64>, io::ErrorKind, String)>,
}

impl Journal {
    /// Opens a journal, or creates one, and returns its content. `change` may remove some of that. What is returned is
    /// durable.
    pub(crate) fn open(path: &Path, change: impl FnOnce(&mut Scanned)) -> io::Result<(Self, Scanned)> {
        let found = match files::open(path, Links::Refused) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                io::Read::read_to_end(&mut file, &mut bytes)?;
                Some(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let mut scanned = found.as_deref().map(scan).unwrap_or_default();
        let before = scanned.entries.len();
        change(&mut scanned);
        let live = scanned.entries.len();
        // Obsolete records are dropped once they are most of the file; a torn end must not precede the next record.
        let anew = found.is_none()
            || live < before
            || scanned.dropped > 0
            || scanned.records > 2 * live as u64 + 1_000
            || scanned.end < HEADER.len();
        if anew {
            let bytes = whole(scanned.entries.values());
            let fresh = path.with_extension("new");
            let mut file = files::create(&fresh)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, path)?;
            if let Some(folder) = path.parent() {
                File::open(folder)?.sync_all()?;
            }
            scanned.end = bytes.len();
        }
        let file = files::open_or_create(path)?;
        // The process that wrote it may have died before it could.
        file.sync_all()?;
        let (tail, room) = (scanned.end as u64, file.metadata()?.len());
        let state = State { tail, room, synced: tail, syncing: false, failed: Vec::new() };
        Ok((Self { file, state: Mutex::new(state), done: Condvar::new() }, scanned))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends records; with `sync` they are durable once it returns. If it fails none of them is kept. Blocks.
    pub(crate) fn append(&self, records: &[u8], sync: bool) -> io::Result<()> {
        let mut state = self.state();
        let (from, to) = (state.tail, state.tail + records.len() as u64);
        if to > state.room {
            let room = usize::try_from((state.tail / 2).clamp(ROOM_MIN, ROOM_MAX)).expect("it fits into memory");
            let zeros = vec![0; room.max(records.len())];
            // A disk that is nearly full may still have space for the records alone.
            if self.file.write_all_at(&zeros, state.room).is_ok() {
                state.room += zeros.len() as u64;
            }
        }
        if let Err(error) = self.file.write_all_at(records, from) {
            self.clear(from..to);
            return Err(error);
        }
        state.tail = to;
        state.room = state.room.max(to);
        if !sync {
            return Ok(());
        }
        loop {
            if let Some((_, kind, why)) = state.failed.iter().find(|(range, ..)| range.contains(&from)) {
                return Err(io::Error::new(*kind, why.clone()));
            }
            if state.synced >= to {
                return Ok(());
            }
            if state.syncing {
                state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.syncing = true;
            let target = state.tail;
            drop(state);
            let outcome = self.file.sync_data();
            state = self.state();
            state.syncing = false;
            match outcome {
                Ok(()) => state.synced = target,
                Err(error) => {
                    // Also what was appended meanwhile: it may share a page with what could not be written, which the
                    // system treats as written from now on.
                    let given_up = state.synced..state.tail;
                    self.clear(given_up.clone());
                    state.synced = state.tail;
                    if state.failed.len() == FAILURES_MAX {
                        state.failed.remove(0);
                    }
                    state.failed.push((given_up, error.kind(), error.to_string()));
                }
            }
            self.done.notify_all();
        }
    }

    /// Erases what was not acknowledged, as far as the disk still works, so that it is not found later.
    fn clear(&self, range: Range<u64>) {
        let length = usize::try_from(range.end - range.start).unwrap_or(0);
        let _ = self.file.write_all_at(&vec![0; length], range.start);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use omb_cluster::{
        peer::{Digest, Label, RequestId, User},
        store::{Kind, Name, Stored, journal::Record},
    };
    use omb_machine::time::WallTime;

    use super::*;

    fn record(id: u128) -> Vec<u8> {
        let name = Name { id: RequestId(id), digest: Digest::of(b"abc"), kind: Kind::Bin };
        let owner = User::try_from("ann".to_owned()).expect("a name");
        let label = Some(Label::of("photo.png", owner, WallTime(1)));
        Record::Stored { stored: Stored { name, bytes: 3 }, label }.encode()
    }

    fn ids(path: &Path) -> Vec<u128> {
        let (_, scanned) = Journal::open(path, |_| {}).expect("usable");
        scanned.entries.keys().map(|id| id.0).collect()
    }

    #[test]
    fn what_threads_append_at_once_is_all_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("uploads");
        let (journal, scanned) = Journal::open(&path, |_| {}).expect("usable");
        assert!(scanned.entries.is_empty());
        let journal = Arc::new(journal);
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let journal = journal.clone();
                std::thread::spawn(move || {
                    for nth in 0..200 {
                        journal.append(&record(thread * 1_000 + nth), nth % 4 == 0).expect("room");
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        drop(journal);
        assert_eq!(ids(&path).len(), 1_600);
        // And it continues after them.
        let (journal, _) = Journal::open(&path, |_| {}).expect("usable");
        journal.append(&record(99_999), true).expect("room");
        drop(journal);
        assert_eq!((ids(&path).len(), ids(&path).last()), (1_601, Some(&99_999)));
    }

    #[test]
    fn a_torn_end_is_dropped_and_written_over() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("uploads");
        let (journal, _) = Journal::open(&path, |_| {}).expect("usable");
        journal.append(&record(1), true).expect("room");
        let torn = record(2);
        journal.append(&torn[..torn.len() - 5], true).expect("room");
        drop(journal);
        let (journal, scanned) = Journal::open(&path, |_| {}).expect("usable");
        assert!(scanned.dropped > 0);
        journal.append(&record(3), true).expect("room");
        drop(journal);
        assert_eq!(ids(&path), [1, 3]);
        let (_, scanned) = Journal::open(&path, |_| {}).expect("usable");
        assert_eq!(scanned.dropped, 0, "it is said once");
    }

    #[test]
    fn what_counts_no_more_is_left_out_one_day() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("uploads");
        let (journal, _) = Journal::open(&path, |_| {}).expect("usable");
        for _ in 0..1_200 {
            journal.append(&record(1), false).expect("room");
        }
        drop(journal);
        let before = fs::metadata(&path).expect("there").len();
        assert_eq!(ids(&path), [1]);
        assert!(fs::metadata(&path).expect("there").len() < before / 100);
        let (_, scanned) = Journal::open(&path, |scanned| scanned.entries.clear()).expect("usable");
        assert_eq!(scanned.entries.len(), 0);
        assert_eq!(ids(&path), [0; 0], "what was left out stays so");
    }

    /// A link in its place is not followed.
    #[test]
    fn a_link_is_no_journal() {
        let dir = tempfile::tempdir().expect("a folder");
        let (path, other) = (dir.path().join("uploads"), dir.path().join("other"));
        fs::write(&other, b"precious").expect("written");
        std::os::unix::fs::symlink(&other, &path).expect("linked");
        assert!(Journal::open(&path, |_| {}).is_err());
        assert_eq!(fs::read(&other).expect("there"), b"precious");
    }
}
