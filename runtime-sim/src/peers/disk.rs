//! A disk that loses what was not synced, is slow, fails, fills up, and whose files are removed from outside.
//!
//! What it holds survives its node's process. At a power loss a file keeps a part of what was not synced, and each name
//! that appeared or vanished since its folder was last synced did so, or did not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::{self, Cursor},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use omb_cluster::{
    peer::{Digest, Leadership, RequestId},
    store::{
        Entry, File, Name, Step,
        journal::{HEADER, Record, scan},
    },
};
use omb_machine::seed::Seed;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use tokio::{io::AsyncWrite, time::sleep};

use super::scenario::Moment;
use crate::portable::cluster::{Disk, disk::Listed};

/// One node's disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    platter: Arc<Mutex<Platter>>,
    on_step: Option<Arc<dyn Fn(Moment) + Send + Sync>>,
}

/// A disk's present faults.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trouble {
    /// Nothing more can be written.
    pub full: bool,
    /// The share of operations that fail.
    pub failing: f64,
    /// The share of fsyncs that fail in addition.
    pub unsyncing: f64,
    /// The longest extra time of an operation.
    pub slow: Duration,
}

#[derive(Debug)]
struct Platter {
    rng: ChaCha8Rng,
    trouble: Trouble,
    leadership: Leadership,
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    /// As a process sees them: file names and inodes.
    visible: BTreeMap<Place, u64>,
    /// As a power loss would leave them at worst.
    durable: BTreeMap<Place, u64>,
    /// The journal of uploads, as a process sees it, and as a power loss would leave it at worst.
    journal: Vec<u8>,
    journal_durable: Vec<u8>,
    /// Uploads whose files were removed from outside.
    vanished: BTreeSet<RequestId>,
    /// Number of files that left it, and of crashes.
    losses: u64,
    /// Operations that failed.
    failed: u64,
    /// Removals among them.
    unremoved: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Temporary(String),
    Shared(String),
}

#[derive(Clone, Debug, Default)]
struct Inode {
    content: Vec<u8>,
    /// How much of it was synced.
    synced: usize,
    digest: Option<Digest>,
}

/// A file in the shared folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Its name.
    pub name: Name,
    /// The digest of its content as it is.
    pub digest: Digest,
    /// Its size.
    pub bytes: u64,
    /// Whether a power loss would leave it unchanged.
    pub durable: bool,
}

impl SimDisk {
    /// An empty one.
    #[must_use]
    pub fn new(seed: Seed, node: u32) -> Self {
        let platter = Platter {
            rng: seed.numbered_stream("disk", node.into()),
            trouble: Trouble::default(),
            leadership: Leadership::default(),
            inodes: BTreeMap::new(),
            next: 0,
            visible: BTreeMap::new(),
            durable: BTreeMap::new(),
            journal: HEADER.to_vec(),
            journal_durable: HEADER.to_vec(),
            vanished: BTreeSet::new(),
            losses: 0,
            failed: 0,
            unremoved: 0,
        };
        Self { platter: Arc::new(Mutex::new(platter)), on_step: None }
    }

    /// The same disk, which calls `look` when an upload has reached a stage, before anything else happens.
    #[must_use]
    pub fn watched(&self, look: impl Fn(Moment) + Send + Sync + 'static) -> Self {
        Self { platter: self.platter.clone(), on_step: Some(Arc::new(look)) }
    }

    /// Removes this share of the uploads from outside.
    pub fn remove_some(&self, share: f64) {
        let platter = &mut *self.platter();
        let shared: Vec<Place> =
            platter.visible.keys().filter(|place| matches!(place, Place::Shared(_))).cloned().collect();
        for place in shared {
            if platter.rng.random_bool(share) {
                platter.visible.remove(&place);
                platter.durable.remove(&place);
                if let Place::Shared(name) = place
                    && let Ok(name) = name.parse::<Name>()
                {
                    platter.vanished.insert(name.id);
                }
            }
        }
    }

    /// Uploads whose files were removed from outside.
    #[must_use]
    pub fn vanished(&self) -> BTreeSet<RequestId> {
        self.platter().vanished.clone()
    }

    /// What the journal remembers; with `durable` what it would remember after a power loss.
    #[must_use]
    pub fn recorded(&self, durable: bool) -> BTreeMap<RequestId, Entry> {
        let platter = self.platter();
        scan(if durable { &platter.journal_durable } else { &platter.journal }).entries
    }

    fn platter(&self) -> MutexGuard<'_, Platter> {
        self.platter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes its faults.
    pub fn trouble(&self, change: impl FnOnce(&mut Trouble)) {
        change(&mut self.platter().trouble);
    }

    /// The leadership that a restart would find.
    #[must_use]
    pub fn leadership(&self) -> Leadership {
        self.platter().leadership
    }

    /// How often something was lost, or removed.
    #[must_use]
    pub fn losses(&self) -> u64 {
        self.platter().losses
    }

    /// How many operations failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.platter().failed
    }

    /// How many files could not be removed.
    #[must_use]
    pub fn unremoved(&self) -> u64 {
        self.platter().unremoved
    }

    /// All uploads in the shared folder.
    #[must_use]
    pub fn copies(&self) -> Vec<Copy> {
        let platter = &mut *self.platter();
        let mut copies = Vec::new();
        for (place, inode) in &platter.visible {
            let Place::Shared(file) = place else { continue };
            let Ok(name) = file.parse::<Name>() else { continue };
            let Some(content) = platter.inodes.get_mut(inode) else { continue };
            let digest = *content.digest.get_or_insert_with(|| Digest::of(&content.content));
            let durable = platter.durable.get(place) == Some(inode) && content.synced == content.content.len();
            copies.push(Copy { name, digest, bytes: content.content.len() as u64, durable });
        }
        copies
    }

    /// Number of temporary files.
    #[must_use]
    pub fn temporaries(&self) -> usize {
        self.platter().visible.keys().filter(|place| matches!(place, Place::Temporary(_))).count()
    }

    /// The power fails; without `power`, only the process ended.
    pub fn crash(&self, power: bool) {
        let platter = &mut *self.platter();
        platter.losses += 1;
        if !power {
            return;
        }
        let mut left = BTreeMap::new();
        let places: Vec<Place> = platter.visible.keys().chain(platter.durable.keys()).cloned().collect();
        for place in places {
            let (visible, durable) = (platter.visible.get(&place), platter.durable.get(&place));
            let survivor = if visible == durable || platter.rng.random_bool(0.5) { durable } else { visible };
            if let Some(inode) = survivor.copied() {
                left.insert(place, inode);
            }
        }
        for inode in platter.inodes.values_mut() {
            if inode.synced < inode.content.len() {
                let kept = platter.rng.random_range(inode.synced..=inode.content.len());
                inode.content.truncate(kept);
                inode.digest = None;
            }
            inode.synced = inode.content.len();
        }
        platter.visible.clone_from(&left);
        platter.durable = left;
        // Some of what was appended since the last sync may be there, up to the middle of a record.
        let (all, synced) = (std::mem::take(&mut platter.journal), platter.journal_durable.len());
        let kept = platter.rng.random_range(synced..=all.len().max(synced));
        platter.journal_durable.extend(all.get(synced..kept).unwrap_or_default());
        platter.journal.clone_from(&platter.journal_durable);
    }

    /// Delays an operation, and lets it fail.
    async fn turn(&self) -> io::Result<()> {
        self.turn_or(0.0).await
    }

    /// The same for an fsync.
    async fn sync_turn(&self) -> io::Result<()> {
        let share = self.platter().trouble.unsyncing;
        self.turn_or(share).await
    }

    async fn turn_or(&self, more: f64) -> io::Result<()> {
        let (span, fails) = {
            let platter = &mut *self.platter();
            let slow = platter.trouble.slow;
            let usual = Duration::from_micros(platter.rng.random_range(1_000..4_000));
            let late = if slow.is_zero() { slow } else { platter.rng.random_range(Duration::ZERO..slow) };
            let fails = platter.rng.random_bool(platter.trouble.failing) || platter.rng.random_bool(more);
            platter.failed += u64::from(fails);
            (usual + late, fails)
        };
        sleep(span).await;
        if fails { Err(io::Error::other("input/output error")) } else { Ok(()) }
    }

    async fn sync(&self, id: RequestId) -> io::Result<()> {
        self.sync_turn().await?;
        let platter = &mut *self.platter();
        let inode = platter.visible.get(&temporary(id)).ok_or_else(missing)?;
        let inode = platter.inodes.get_mut(inode).ok_or_else(missing)?;
        inode.synced = inode.content.len();
        Ok(())
    }

    async fn rename(&self, name: Name) -> io::Result<()> {
        self.turn().await?;
        let platter = &mut *self.platter();
        let inode = platter.visible.remove(&temporary(name.id)).ok_or_else(missing)?;
        platter.visible.insert(Place::Shared(name.to_string()), inode);
        Ok(())
    }

    async fn sync_folder(&self) -> io::Result<()> {
        // A failing operation may have written something.
        let outcome = self.sync_turn().await;
        let platter = &mut *self.platter();
        if outcome.is_ok() || platter.rng.random_bool(0.5) {
            platter.durable.retain(|place, _| matches!(place, Place::Temporary(_)));
            let shared = platter.visible.iter().filter(|(place, _)| matches!(place, Place::Shared(_)));
            platter.durable.extend(shared.map(|(place, inode)| (place.clone(), *inode)));
        }
        outcome
    }

    async fn record(&self, records: &[Record], sync: bool) -> io::Result<()> {
        self.turn().await?;
        let range = {
            let platter = &mut *self.platter();
            if platter.trouble.full {
                return Err(full());
            }
            let from = platter.journal.len();
            platter.journal.extend(records.iter().flat_map(Record::encode));
            from..platter.journal.len()
        };
        if !sync {
            return Ok(());
        }
        let outcome = self.sync_turn().await;
        let platter = &mut *self.platter();
        // A failing operation may have written something.
        if outcome.is_ok() || platter.rng.random_bool(0.5) {
            platter.journal_durable.clone_from(&platter.journal);
        }
        if outcome.is_err() {
            platter.journal[range].fill(0);
        }
        outcome
    }

    async fn remove(&self, file: File) -> io::Result<()> {
        let outcome = self.turn().await;
        let name = file.to_string();
        self.platter().unremoved += u64::from(outcome.is_err());
        outcome?;
        self.platter().remove(&match file {
            File::Temporary(_) => Place::Temporary(name),
            File::Shared(_) => Place::Shared(name),
        });
        Ok(())
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimDisk").field("platter", &self.platter).finish_non_exhaustive()
    }
}

impl Platter {
    fn remove(&mut self, place: &Place) {
        if self.visible.remove(place).is_some() && matches!(place, Place::Shared(_)) {
            self.losses += 1;
        }
    }
}

fn missing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such file")
}

fn temporary(id: RequestId) -> Place {
    Place::Temporary(File::Temporary(id).to_string())
}

fn full() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, "no space left on device")
}

impl Disk for SimDisk {
    type Writing = Writing;
    type Reading = Cursor<Vec<u8>>;

    async fn restore(&self) -> io::Result<Leadership> {
        Ok(self.leadership())
    }

    async fn persist(&self, leadership: Leadership) -> io::Result<()> {
        self.turn().await?;
        if self.platter().trouble.full {
            return Err(full());
        }
        self.platter().leadership = leadership;
        // Between its effect and the report of it there may be a crash, or a failure.
        self.turn().await
    }

    async fn list(&self) -> io::Result<Listed> {
        self.sync_turn().await?;
        let platter = &mut *self.platter();
        let scanned = scan(&platter.journal);
        // A torn end is overwritten.
        platter.journal.truncate(scanned.end);
        platter.journal_durable.clone_from(&platter.journal);
        let mut listed = Listed { recorded: scanned.entries, ..Listed::default() };
        for (place, inode) in &platter.visible {
            match place {
                Place::Temporary(name) => listed.temporary.push(name.clone()),
                Place::Shared(name) => {
                    listed
                        .shared
                        .push((name.clone(), platter.inodes.get(inode).map_or(0, |it| it.content.len() as u64)));
                }
            }
        }
        Ok(listed)
    }

    async fn create(&self, id: RequestId) -> io::Result<Writing> {
        self.turn().await?;
        let platter = &mut *self.platter();
        if platter.trouble.full {
            return Err(full());
        }
        platter.next += 1;
        let inode = platter.next;
        platter.inodes.insert(inode, Inode::default());
        platter.visible.insert(temporary(id), inode);
        Ok(Writing { disk: self.clone(), inode })
    }

    async fn perform(&self, steps: Vec<Step>) -> Result<(), (Step, io::Error)> {
        // Each takes time, so that a crash may come between any two.
        for step in steps {
            let done = match &step {
                Step::List | Step::Write(_) | Step::Check(_) => Err(io::Error::other("this is done elsewhere")),
                Step::Record { records, sync } => self.record(records, *sync).await,
                Step::Sync(id) => self.sync(*id).await,
                Step::Rename(name) => {
                    let renamed = self.rename(*name).await;
                    if let (Ok(()), Some(look)) = (&renamed, &self.on_step) {
                        look(Moment::Renamed);
                    }
                    renamed
                }
                Step::SyncFolder(_) => {
                    let synced = self.sync_folder().await;
                    if let (Ok(()), Some(look)) = (&synced, &self.on_step) {
                        look(Moment::Named);
                    }
                    synced
                }
                Step::Remove(file) => self.remove(*file).await,
            };
            done.map_err(|error| (step, error))?;
        }
        Ok(())
    }

    async fn check(&self, names: Vec<Name>) -> io::Result<Vec<(Name, Option<u64>)>> {
        self.turn().await?;
        let platter = self.platter();
        let size = |name: &Name| {
            let inode = platter.visible.get(&Place::Shared(name.to_string()))?;
            platter.inodes.get(inode).map(|inode| inode.content.len() as u64)
        };
        Ok(names.into_iter().map(|name| (name, size(&name))).collect())
    }

    async fn open(&self, name: Name) -> io::Result<Cursor<Vec<u8>>> {
        self.turn().await?;
        let platter = self.platter();
        let inode = platter.visible.get(&Place::Shared(name.to_string())).ok_or_else(missing)?;
        platter.inodes.get(inode).map(|inode| Cursor::new(inode.content.clone())).ok_or_else(missing)
    }
}

/// A file that is being written.
#[derive(Debug)]
pub struct Writing {
    disk: SimDisk,
    inode: u64,
}

impl AsyncWrite for Writing {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let platter = &mut *self.disk.platter();
        if platter.trouble.full {
            platter.failed += 1;
            return Poll::Ready(Err(full()));
        }
        let Some(inode) = platter.inodes.get_mut(&self.inode) else { return Poll::Ready(Err(missing())) };
        inode.content.extend_from_slice(bytes);
        inode.digest = None;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
