use proptest::prelude::*;

use super::*;
use crate::peer::User;
use omb_machine::time::WallTime;

fn drain(store: &mut Store) -> Vec<Output> {
    std::iter::from_fn(|| store.poll_output()).collect()
}

fn give(store: &mut Store, input: Input) -> Vec<Output> {
    store.handle_input(Instant::ZERO, input);
    drain(store)
}

fn done(store: &mut Store, step: Step) -> Vec<Output> {
    give(store, Input::Done(step))
}

fn ready(durability: Durability) -> Store {
    let mut store = Store::new(durability, SCRUB);
    assert_eq!(drain(&mut store), [one(Step::List)]);
    let empty = Input::Listed { temporary: vec![], shared: vec![], recorded: [].into() };
    assert_eq!(give(&mut store, empty), [Output::Ready]);
    store
}

const ID: RequestId = RequestId(7);

const SCRUB: Duration = Duration::from_secs(60);

fn label() -> Label {
    Label::of("photo.png", User::try_from("ann".to_owned()).expect("a name"), WallTime(1))
}

fn entry(stored: Stored) -> Entry {
    Entry { stored, label: Some(label()) }
}

fn put(bytes: u64) -> Input {
    Input::Put { id: ID, bytes, label: label() }
}

fn record(stored: Stored, label: Option<Label>, sync: bool) -> Step {
    Step::Record { records: vec![Record::Stored { stored, label }], sync }
}

fn stored(body: &[u8]) -> Stored {
    let name = Name { id: ID, digest: Digest::of(body), kind: Kind::of(body) };
    Stored { name, bytes: body.len() as u64 }
}

fn written(stored: Stored) -> Input {
    let Stored { name: Name { id, digest, kind }, bytes } = stored;
    Input::Written { id, bytes, digest, kind }
}

fn full() -> Failure {
    Failure::Disk("no space left on device".to_owned())
}

fn one(step: Step) -> Output {
    Output::Do(vec![step])
}

/// Brings an upload to where `step` is in progress.
fn upload_until(store: &mut Store, upload: Stored, step: &Step) {
    assert_eq!(give(store, put(upload.bytes)), [one(Step::Write(ID))]);
    if *step != Step::Write(ID) {
        let last = record(upload, Some(label()), true);
        let together = vec![Step::Sync(ID), Step::Rename(upload.name), Step::SyncFolder(Some(ID)), last];
        assert!(together.contains(step));
        assert_eq!(give(store, written(upload)), [Output::Do(together)]);
    }
}

/// What is held, what is lost and what is in progress, each once, in pages.
#[test]
fn what_was_seen_is_told_page_by_page() {
    let mut store = Store::new(Durability::None, SCRUB);
    drain(&mut store);
    let name = |id: u128| Name { id: RequestId(id), digest: Digest([0; 32]), kind: Kind::Bin };
    let entry = |id: u128| (RequestId(id), entry(Stored { name: name(id), bytes: 3 }));
    let shared = [2, 4, 6].map(|id| (name(id).to_string(), 3)).to_vec();
    let recorded = [2, 3, 4, 6, 9].map(entry).into();
    give(&mut store, Input::Listed { temporary: vec![], shared, recorded });
    give(&mut store, put(3));
    let all: Vec<RequestId> = [2, 3, 4, 6, 7, 9].map(RequestId).to_vec();
    for most in 1..8 {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let (ids, more) = store.seen_after(after, most);
            assert!(ids.len() == most || !more, "{most}");
            after = ids.last().copied();
            seen.extend(ids);
            if !more {
                break;
            }
        }
        assert_eq!(seen, all, "{most} at a time");
    }
    assert!(all.iter().all(|id| store.has_seen(*id)) && !store.has_seen(RequestId(5)));
}

#[test]
fn an_upload_counts_after_it_is_recorded() {
    let mut store = ready(Durability::Fsync);
    let upload = stored(b"\x89PNG\r\n\x1a\n..");
    upload_until(&mut store, upload, &Step::SyncFolder(Some(ID)));
    assert_eq!(done(&mut store, Step::SyncFolder(Some(ID))), []);
    assert_eq!(store.held(ID), None);
    assert_eq!(done(&mut store, record(upload, Some(label()), true)), [Output::Ended { id: ID, outcome: Ok(upload) }]);
    assert_eq!(store.held(ID), Some(upload));
    assert!(upload.name.to_string().starts_with("00000000000000000000000000000007-"), "{}", upload.name);
    assert!(upload.name.to_string().ends_with(".png"), "{}", upload.name);
    let again = give(&mut store, put(99));
    assert_eq!(again, [Output::Ended { id: ID, outcome: Ok(upload) }], "one id is stored once");
}

#[test]
fn without_durability_nothing_is_synced() {
    let mut store = ready(Durability::None);
    let upload = stored(b"abc");
    give(&mut store, put(3));
    let last = record(upload, Some(label()), false);
    let together = vec![Step::Rename(upload.name), last.clone()];
    assert_eq!(give(&mut store, written(upload)), [Output::Do(together)]);
    assert_eq!(done(&mut store, last), [Output::Ended { id: ID, outcome: Ok(upload) }]);
}

#[test]
fn whichever_step_fails_nothing_remains() {
    let upload = stored(b"abc");
    let temporary = File::Temporary(ID);
    for (step, file) in [
        (Step::Write(ID), temporary),
        (Step::Sync(ID), temporary),
        (Step::Rename(upload.name), temporary),
        (Step::SyncFolder(Some(ID)), File::Shared(upload.name)),
        (record(upload, Some(label()), true), File::Shared(upload.name)),
    ] {
        let mut store = ready(Durability::Fsync);
        upload_until(&mut store, upload, &step);
        let outputs = give(&mut store, Input::Failed { step, failure: full() });
        assert_eq!(outputs, [one(Step::Remove(file))]);
        let busy = give(&mut store, put(3));
        assert_eq!(busy, [Output::Ended { id: ID, outcome: Err(Failure::UnderWay) }]);
        let mut outputs = done(&mut store, Step::Remove(file));
        if let File::Shared(_) = file {
            // Or a power loss might bring it back.
            let sync = Step::SyncFolder(Some(ID));
            assert_eq!(outputs, [one(sync.clone())]);
            outputs = done(&mut store, sync);
        }
        assert_eq!(outputs, [Output::Ended { id: ID, outcome: Err(full()) }]);
        assert_eq!(give(&mut store, put(3)), [one(Step::Write(ID))], "and again");
    }
}

#[test]
fn a_body_of_another_length_is_refused() {
    let mut store = ready(Durability::Fsync);
    give(&mut store, put(5));
    let outputs = give(&mut store, written(stored(b"abc")));
    assert_eq!(outputs, [one(Step::Remove(File::Temporary(ID)))]);
    let outcome = Err(Failure::Body("5 bytes were announced, 3 came".to_owned()));
    assert_eq!(done(&mut store, Step::Remove(File::Temporary(ID))), [Output::Ended { id: ID, outcome }]);
}

#[test]
fn the_start_cleans_up_and_reads_the_index_from_names() {
    let mut store = Store::new(Durability::Fsync, SCRUB);
    drain(&mut store);
    let early = give(&mut store, put(3));
    assert_eq!(early, [Output::Ended { id: ID, outcome: Err(Failure::Starting) }]);
    let upload = stored(b"abc");
    let left = File::Temporary(RequestId(9));
    let temporary = vec![left.to_string(), "../../etc/passwd.part".to_owned(), "notes.txt".to_owned()];
    let shared = vec![(upload.name.to_string(), 3), ("holiday.png".to_owned(), 9), ("a/../b".to_owned(), 1)];
    let outputs = give(&mut store, Input::Listed { temporary, shared, recorded: [].into() });
    // Its file name is unknown; from now on it is missed if it is removed.
    let found = record(upload, None, true);
    assert_eq!(outputs, [one(found.clone()), one(Step::SyncFolder(None)), one(Step::Remove(left))]);
    assert_eq!(done(&mut store, found), []);
    assert_eq!(done(&mut store, Step::Remove(left)), []);
    assert_eq!(store.held(ID), None, "its name may not be on the disk yet");
    assert_eq!(done(&mut store, Step::SyncFolder(None)), [Output::Ready]);
    assert_eq!((store.held(ID), store.count()), (Some(upload), 1));
}

/// Found by the cluster's simulation, seed 59: one node whose folder could not be read at its start answered "perhaps"
/// to every question, so that no upload that had been tried before was ever stored anywhere.
#[test]
fn a_folder_that_cannot_be_read_is_read_again() {
    let second = Instant::ZERO + Duration::from_secs(1);
    let left = File::Temporary(RequestId(9));
    let mut store = Store::new(Durability::Fsync, SCRUB);
    drain(&mut store);
    assert!(!store.is_blind(), "it is only starting");
    give(&mut store, Input::Failed { step: Step::List, failure: full() });
    assert!(store.is_blind());
    assert_eq!(store.poll_timeout().map(|wake| wake.at), Some(second));
    store.handle_timeout(second);
    assert_eq!(drain(&mut store), [one(Step::List)]);
    let upload = stored(b"abc");
    let recorded = [(ID, entry(upload))].into();
    let listed =
        Input::Listed { temporary: vec![left.to_string()], shared: vec![(upload.name.to_string(), 3)], recorded };
    give(&mut store, listed.clone());
    assert!(matches!(
        give(&mut store, Input::Failed { step: Step::SyncFolder(None), failure: full() })[..],
        [Output::Info(_)]
    ));
    assert_eq!(store.poll_timeout(), None, "what is being removed is waited for");
    done(&mut store, Step::Remove(left));
    store.handle_timeout(second);
    assert_eq!(drain(&mut store), [one(Step::List)]);
    give(&mut store, listed);
    done(&mut store, Step::Remove(left));
    assert_eq!(done(&mut store, Step::SyncFolder(None)), [Output::Ready]);
    assert_eq!((store.held(ID), store.is_blind()), (Some(upload), false));
}

/// What could not be removed is not stored again before it is gone, and does not block others forever.
#[test]
fn what_is_stuck_is_removed_later() {
    let mut store = ready(Durability::Fsync);
    let upload = stored(b"abc");
    let (sync, remove) = (Step::SyncFolder(Some(ID)), Step::Remove(File::Shared(upload.name)));
    upload_until(&mut store, upload, &sync);
    give(&mut store, Input::Failed { step: sync, failure: full() });
    give(&mut store, Input::Failed { step: remove.clone(), failure: full() });
    assert!(store.is_under_way(ID));
    for _ in 0..2 {
        let wake = store.poll_timeout().expect("it is tried again");
        store.handle_timeout(wake.at);
        assert_eq!(drain(&mut store), [one(remove.clone())]);
        give(&mut store, Input::Failed { step: remove.clone(), failure: full() });
    }
    let sync = Step::SyncFolder(Some(ID));
    assert_eq!(done(&mut store, remove.clone()), [one(sync.clone())]);
    give(&mut store, Input::Failed { step: sync.clone(), failure: full() });
    assert!(store.is_under_way(ID), "a loss of power might bring it back");
    let wake = store.poll_timeout().expect("it is tried again");
    store.handle_timeout(wake.at);
    assert_eq!(drain(&mut store), [one(remove.clone())]);
    done(&mut store, remove);
    assert_eq!(done(&mut store, sync), []);
    assert!(!store.is_under_way(ID));
}

/// What the journal remembers and the folder lacks is lost: logged once, counted, found by its name, and not held.
#[test]
fn the_start_misses_what_is_gone_or_damaged() {
    let other = |id: u128| Stored { name: Name { id: RequestId(id), ..stored(b"abc").name }, bytes: 3 };
    let recorded: BTreeMap<_, _> = (1..=3).map(|id| (RequestId(id), entry(other(id)))).collect();
    let start = |shared: Vec<(String, u64)>| {
        let mut store = Store::new(Durability::None, SCRUB);
        drain(&mut store);
        let outputs = give(&mut store, Input::Listed { temporary: vec![], shared, recorded: recorded.clone() });
        (store, outputs)
    };
    let file = |id, bytes| (other(id).name.to_string(), bytes);
    let (store, outputs) = start(vec![file(1, 3), file(2, 3), file(3, 3)]);
    assert_eq!((outputs, store.count()), (vec![Output::Ready], 3));
    let (store, outputs) = start(vec![file(1, 3), file(2, 2)]);
    let [Output::Warn(line), Output::Ready] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(
        line.starts_with("acknowledged uploads are gone from the folder or damaged: 2 of 3 (such as photo.png of ann)")
    );
    assert_eq!((store.count(), store.count_lost(Loss::Gone), store.count_lost(Loss::Damaged)), (1, 1, 1));
    assert_eq!((store.held(RequestId(2)), store.lost(RequestId(2)).map(|(_, loss)| loss)), (None, Some(Loss::Damaged)));
    assert_eq!(
        store.find("photo.png").map(|(_, loss)| loss).collect::<Vec<_>>(),
        [None, Some(Loss::Damaged), Some(Loss::Gone)]
    );
    let (store, outputs) = start(vec![]);
    let [Output::Warn(line), Output::Ready] = &outputs[..] else { panic!("{outputs:?}") };
    assert!(
        line.starts_with("the folder of uploads is empty, without the 3 acknowledged uploads that it held"),
        "{line}"
    );
    assert!(line.contains("--accept-loss"), "{line}");
    assert_eq!((store.count(), store.bytes(), store.count_lost(Loss::Gone)), (0, 0, 3));
}

/// Files are checked from time to time, some at once: what is gone is lost, and what is put back is held again.
#[test]
fn files_are_looked_at_from_time_to_time() {
    let of = |id: u128| Stored { name: Name { id: RequestId(id), ..stored(b"abc").name }, bytes: 3 };
    let recorded: BTreeMap<_, _> = (0..600).map(|id| (RequestId(id), entry(of(id)))).collect();
    let mut there: BTreeMap<Name, u64> = recorded.values().map(|entry| (entry.stored.name, 3)).collect();
    let shared = there.iter().map(|(name, bytes)| (name.to_string(), *bytes)).collect();
    let mut store = Store::new(Durability::None, SCRUB);
    drain(&mut store);
    give(&mut store, Input::Listed { temporary: vec![], shared, recorded });
    let pass = |store: &mut Store, there: &BTreeMap<Name, u64>| {
        let (mut seen, mut lines) = (Vec::new(), Vec::new());
        while seen.len() < 600 {
            let wake = store.poll_timeout().expect("it goes on");
            store.handle_timeout(wake.at);
            let outputs = drain(store);
            let [Output::Do(steps)] = &outputs[..] else { panic!("{outputs:?}") };
            let [Step::Check(names)] = &steps[..] else { panic!("{steps:?}") };
            assert!(names.len() <= CHECKED);
            assert_eq!(store.poll_timeout(), None, "one at a time");
            seen.extend(names.clone());
            let found = names.iter().map(|name| (*name, there.get(name).copied())).collect();
            store.handle_input(wake.at, Input::Checked(found));
            lines.extend(drain(store));
        }
        assert!(seen.is_sorted(), "each once");
        lines
    };
    assert_eq!(pass(&mut store, &there), []);
    there.remove(&of(5).name);
    there.remove(&of(400).name);
    there.insert(of(599).name, 2);
    let line = "acknowledged uploads are gone from the folder or damaged: 3 (such as photo.png of ann)";
    assert_eq!(pass(&mut store, &there), [Output::Warn(line.to_owned())]);
    assert_eq!((store.count(), store.count_lost(Loss::Gone), store.count_lost(Loss::Damaged)), (597, 2, 1));
    assert_eq!(store.bytes(), 597 * 3);
    assert_eq!(pass(&mut store, &there), [], "it is logged once");
    there.insert(of(5).name, 3);
    there.insert(of(599).name, 3);
    assert_eq!(pass(&mut store, &there), [Output::Info(format!("{} is back", of(5).name))]);
    assert_eq!((store.count(), store.held(RequestId(5))), (598, Some(of(5))));
    // A reader notices it first.
    let outputs = give(&mut store, Input::Unreadable { name: of(6).name, loss: Loss::Damaged });
    assert!(matches!(&outputs[..], [Output::Warn(line)] if line.contains("damaged")), "{outputs:?}");
    assert_eq!((store.held(RequestId(6)), store.count_lost(Loss::Damaged)), (None, 2));
    assert_eq!(give(&mut store, Input::Unreadable { name: of(6).name, loss: Loss::Damaged }), []);
    // A damaged upload is stored again if its client tries again.
    let put = Input::Put { id: RequestId(6), bytes: 3, label: label() };
    assert_eq!(give(&mut store, put), [one(Step::Write(RequestId(6)))]);
}

/// A file whose record is missing was not acknowledged: its client is answered only when it has one.
#[test]
fn what_has_no_record_is_recorded_before_it_is_acknowledged() {
    let upload = stored(b"abc");
    let mut store = Store::new(Durability::None, SCRUB);
    drain(&mut store);
    let shared = vec![(upload.name.to_string(), 3)];
    give(&mut store, Input::Listed { temporary: vec![], shared, recorded: [].into() });
    assert_eq!(store.held(ID), Some(upload));
    for fails in [true, false] {
        assert_eq!(store.claim(ID, &label()), None);
        assert!(store.is_under_way(ID) && store.held(ID).is_none());
        let step = record(upload, Some(label()), false);
        assert_eq!(drain(&mut store), [one(step.clone())]);
        let input = if fails { Input::Failed { step, failure: full() } } else { Input::Done(step) };
        assert_eq!(give(&mut store, input), [], "it is not removed, whatever comes");
        assert_eq!(store.held(ID), Some(upload));
    }
    assert_eq!(store.claim(ID, &label()), Some(upload));
    assert_eq!(store.find("photo.png").count(), 1);
    assert_eq!(give(&mut store, put(3)), [Output::Ended { id: ID, outcome: Ok(upload) }]);
}

#[test]
fn kinds_are_told_by_content() {
    for (head, kind) in [
        (&b"\x89PNG\r\n\x1a\n"[..], Kind::Png),
        (b"\x89PNG\r\n", Kind::Bin),
        (b"\xff\xd8\xff\xe0", Kind::Jpg),
        (b"GIF89a", Kind::Bin),
        (b"", Kind::Bin),
    ] {
        assert_eq!(Kind::of(head), kind, "{head:?}");
    }
}

proptest! {
    /// Whatever a folder holds, only names that stay inside it are ours, and they read back as they were written.
    #[test]
    fn names_are_safe(text in ".{0,120}", id: u128, content: [u8; 4]) {
        if let Ok(name) = text.parse::<Name>() {
            prop_assert_eq!(name.to_string(), text);
        }
        let name = Name { id: RequestId(id), digest: Digest::of(&content), kind: Kind::Jpg };
        prop_assert!(!name.to_string().contains(['/', '\\', '\0']));
        prop_assert_eq!(name.to_string().parse(), Ok(name));
    }
}

/// A disk that forgets, when power is lost, what was not synced.
#[derive(Default)]
struct SimDisk {
    /// Temporary files: content, and whether it was synced.
    temporary: BTreeMap<RequestId, (Vec<u8>, bool)>,
    /// Shared files: content, whether it was synced, and whether the name was.
    shared: BTreeMap<String, (Vec<u8>, bool, bool)>,
    /// The journal, and how much of it was synced.
    journal: (Vec<u8>, usize),
}

impl SimDisk {
    fn perform(&mut self, step: &Step, body: &[u8]) -> Input {
        match step {
            Step::List => {
                // What is reported of the journal is durable: its process may have died before it could sync it.
                self.journal.1 = self.journal.0.len();
                return Input::Listed {
                    temporary: self.temporary.keys().map(|id| File::Temporary(*id).to_string()).collect(),
                    shared: self.shared.iter().map(|(name, (body, ..))| (name.clone(), body.len() as u64)).collect(),
                    recorded: self.recorded(),
                };
            }
            Step::Write(id) => {
                self.temporary.insert(*id, (body.to_vec(), false));
                let (digest, kind) = (Digest::of(body), Kind::of(body));
                return Input::Written { id: *id, bytes: body.len() as u64, digest, kind };
            }
            Step::Sync(id) => self.temporary.get_mut(id).expect("it was written").1 = true,
            Step::Rename(name) => {
                let (body, synced) = self.temporary.remove(&name.id).expect("it was written");
                self.shared.insert(name.to_string(), (body, synced, false));
            }
            Step::SyncFolder(_) => self.shared.values_mut().for_each(|(_, _, name_synced)| *name_synced = true),
            Step::Remove(File::Temporary(id)) => _ = self.temporary.remove(id),
            Step::Remove(File::Shared(name)) => _ = self.shared.remove(&name.to_string()),
            Step::Record { records, .. } => {
                self.journal.0.extend(records.iter().flat_map(Record::encode));
                self.journal.1 = self.journal.0.len();
            }
            Step::Check(names) => {
                let size = |name: &Name| self.shared.get(&name.to_string()).map(|(body, ..)| body.len() as u64);
                return Input::Checked(names.iter().map(|name| (*name, size(name))).collect());
            }
        }
        Input::Done(step.clone())
    }

    fn recorded(&self) -> BTreeMap<RequestId, Entry> {
        journal::scan(&self.journal.0).entries
    }

    /// Power is lost. `luck` decides what the system had happened to write by itself.
    fn lose_power(&mut self, luck: u8) {
        self.temporary.values_mut().for_each(|(body, synced)| {
            if !*synced {
                body.truncate(1)
            }
        });
        // The journal is torn somewhere after what was synced.
        let (bytes, synced) = &mut self.journal;
        bytes.truncate(*synced + usize::from(luck) % (bytes.len() - *synced + 1));
        *synced = bytes.len();
        let lucky = |index: usize| luck >> (index % 8) & 1 == 1;
        let mut index = 0;
        self.shared.retain(|_, (body, synced, name_synced)| {
            index += 1;
            if !*synced && !lucky(index) {
                body.truncate(1);
            }
            let kept = *name_synced || lucky(index + 3);
            (*synced, *name_synced) = (true, true);
            kept
        });
    }
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Put(u8),
    /// The oldest, or another, of the open steps is performed and answered.
    Answer(u8),
    /// One of the open steps fails: before it had an effect, or after.
    Fail {
        which: u8,
        after: bool,
    },
    Kill,
    LosePower(u8),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// C3 and C4 on one node: what is acknowledged is there, whole, whatever crashes later; one id has one copy.
    #[test]
    fn acknowledged_is_stored(happenings in prop::collection::vec(prop_oneof![
        3 => (0..4_u8).prop_map(Happening::Put),
        12 => any::<u8>().prop_map(Happening::Answer),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(which, after)| Happening::Fail { which, after }),
        1 => Just(Happening::Kill),
        1 => any::<u8>().prop_map(Happening::LosePower),
    ], 0..80)) {
        let mut disk = SimDisk::default();
        let mut store = Store::new(Durability::Fsync, SCRUB);
        let mut open: Vec<Vec<Step>> = Vec::new();
        let mut acknowledged: BTreeMap<RequestId, Stored> = BTreeMap::new();
        // Each attempt brings another body, so that a second copy can be distinguished from the first.
        let mut attempts = 0_u32;
        let body = |attempt: u32| format!("body of attempt {attempt:010}").into_bytes();
        let bytes = body(0).len() as u64;
        for happening in happenings {
            let pick = |which: u8, open: &mut Vec<Vec<Step>>| {
                (!open.is_empty()).then(|| open.remove(usize::from(which) % open.len()))
            };
            match happening {
                Happening::Put(id) => store.handle_input(Instant::ZERO, Input::Put { id: RequestId(id.into()), bytes, label: label() }),
                // One of the steps that go together, so that a crash may come between any two.
                Happening::Answer(which) => if let Some(mut steps) = pick(which, &mut open) {
                    attempts += 1;
                    let answer = disk.perform(&steps.remove(0), &body(attempts));
                    if steps.is_empty() {
                        store.handle_input(Instant::ZERO, answer);
                    } else {
                        open.push(steps);
                    }
                },
                Happening::Fail { which, after } => if let Some(mut steps) = pick(which, &mut open) {
                    let step = steps.remove(0);
                    if after && !matches!(step, Step::List | Step::Write(_) | Step::Rename(_)) {
                        disk.perform(&step, &[]);
                    } else if let Step::Record { records, .. } = &step {
                        // Appended and not synced: a power loss may tear it.
                        disk.journal.0.extend(records.iter().flat_map(Record::encode));
                    }
                    store.handle_input(Instant::ZERO, Input::Failed { step, failure: full() });
                },
                Happening::Kill | Happening::LosePower(_) => {
                    if let Happening::LosePower(luck) = happening {
                        disk.lose_power(luck);
                    }
                    open.clear();
                    store = Store::new(Durability::Fsync, SCRUB);
                }
            }
            for output in drain(&mut store) {
                match output {
                    Output::Do(steps) => open.push(steps),
                    Output::Ended { id, outcome: Ok(stored) } => {
                        let first = *acknowledged.entry(id).or_insert(stored);
                        prop_assert_eq!(first, stored, "one id is acknowledged as one content");
                    }
                    Output::Ended { .. } | Output::Ready | Output::Info(_) | Output::Warn(_) => {}
                }
            }
            for stored in acknowledged.values() {
                let recorded = disk.recorded().remove(&stored.name.id);
                prop_assert_eq!(recorded, Some(entry(*stored)), "it is remembered as it was acknowledged");
                let Some((body, synced, name_synced)) = disk.shared.get(&stored.name.to_string()) else {
                    return Err(TestCaseError::fail(format!("{} is gone", stored.name)));
                };
                prop_assert!(*synced && *name_synced, "{} would not survive", stored.name);
                prop_assert_eq!(Digest::of(body), stored.name.digest);
            }
            let ids: Vec<_> = disk.shared.keys().map(|name| &name[..32]).collect();
            prop_assert!(ids.windows(2).all(|pair| pair[0] != pair[1]), "two copies: {:?}", ids);
        }
    }
}
