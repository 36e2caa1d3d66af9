//! `omb stress`: uploads from many clients at once, and a verdict on how evenly the cluster spread them.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use hdrhistogram::Histogram;
use omb_cluster::{
    client::{GaveUp, Patience, listing::Listing},
    node::message::{Put, Reply, Request},
    peer::{Label, Leadership, NodeId, RequestId, User},
    report::stress::{self, Measured, Setup, Verdict},
    store::Stored,
};
use omb_machine::{printable::printable, seed::Seed};
use omb_runtime_real::{
    clock::{self, Clock},
    files::{self, Links},
    net::Transport,
    portable::cluster::{Nodes, asking},
};
use tokio::task::JoinSet;

use super::{
    cluster::{Nothing, nodes, random_id, random_seed, read, runtime},
    input,
};
use crate::{
    console::{self, Stream, shown},
    exit::Code,
    flags,
    signals::Interrupts,
};

/// Largest file that is uploaded: it is held in memory, once for all clients.
const FILE_MAX: u64 = 1 << 30;

/// Longest wait for a cluster that has just been started.
const READY_MAX: Duration = Duration::from_secs(10);

/// Longest wait for all nodes once there is a leader; then the test begins without those that are missing.
const SETTLED_MAX: Duration = Duration::from_secs(2);

const IMAGE: &str = "test_image.bin";

/// Tests how evenly a cluster spreads uploads.
pub(crate) fn stress(flags: &flags::Stress) -> anyhow::Result<Code> {
    let config = read(&flags.cluster)?;
    let nodes = nodes(&config)?;
    let (image, shown) = match &flags.file {
        Some(path) => (input::bytes_of(path, FILE_MAX)?, shown(path)),
        None => (make_image(flags.size)?, IMAGE.to_owned()),
    };
    let mut screen = Screen::open()?;
    let runtime = runtime()?;
    let (clients, requests, image_bytes) = (flags.clients, flags.requests, image.len() as u64);
    let setup = Setup { config, clients, requests, image: shown, image_bytes };
    let image = Arc::from(image);
    let patience = Patience { deadline: flags.timeout, ..Patience::default() };
    let asker = Asker { nodes, patience };
    runtime.block_on(async {
        let mut interrupts = Interrupts::listen();
        tokio::select! {
            code = test(&setup, &asker, &image, &mut screen) => Ok(code),
            () = interrupts.next() => {
                tracing::warn!("Interrupted: there is no verdict");
                Ok(Code::Interrupted)
            }
        }
    })
}

async fn test(setup: &Setup, asker: &Asker, image: &Arc<[u8]>, screen: &mut Screen) -> Code {
    let leader = match leader(asker).await {
        Ok(leader) => leader.map_or_else(|| "none yet".to_owned(), |leader| leader.to_string()),
        Err(gave_up) => {
            let why = format!("the cluster cannot be reached: {gave_up}");
            screen.write(&format!("{why}\n"));
            tracing::error!("{why}");
            return Code::Unavailable;
        }
    };
    settled(asker).await;
    screen.show(&stress::opening(setup, &leader));
    screen.show("\nRunning...\n");
    let mut measured = upload(setup, asker, image, screen).await;
    check(asker, &mut measured).await;
    screen.show("\n");
    screen.show(&stress::closing(setup, &measured));
    screen.show(&format!("{}\n\n", stress::checked(&measured)));
    let verdict = stress::verdict(setup, &measured);
    screen.show(&stress::verdict_lines(&verdict));
    screen.show(&format!("\nDetails of each request: {}\n", shown(&screen.path)));
    match verdict {
        Verdict::Pass => Code::Sound,
        Verdict::Fail(_) => Code::Failed,
    }
}

/// The leader, as soon as there is one.
async fn leader(asker: &Asker) -> Result<Option<Leadership>, GaveUp> {
    let began = clock::now();
    let deadline = READY_MAX.min(asker.patience.deadline);
    let asker = Asker { patience: Patience { deadline, ..asker.patience }, ..asker.clone() };
    loop {
        match asker.ask(Request::Discover, Nothing).await? {
            Reply::Discovered { leader: None, .. } if clock::now().since(began) < deadline => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Reply::Discovered { leader, .. } => return Ok(leader),
            _ => return Ok(None),
        }
    }
}

/// Waits until the leader has every node in its books: before that, a node that has just been started gets no uploads.
async fn settled(asker: &Asker) {
    let began = clock::now();
    let asker = Asker { patience: Patience { deadline: SETTLED_MAX, ..asker.patience }, ..asker.clone() };
    while clock::now().since(began) < SETTLED_MAX {
        if let Ok(Reply::Status(status)) = asker.ask(Request::Status, Nothing).await
            && status.peers.iter().all(|peer| status.books.iter().any(|book| book.node == peer.node))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One upload as its client saw it.
struct Done {
    client: u32,
    number: u32,
    id: RequestId,
    took: Duration,
    tries: u64,
    outcome: anyhow::Result<(NodeId, Stored)>,
}

async fn upload(setup: &Setup, asker: &Asker, image: &Arc<[u8]>, screen: &mut Screen) -> Measured {
    let user = User::try_from("stress-test".to_owned()).expect("the name is sound");
    let (began, mut clients) = (clock::now(), JoinSet::new());
    let (to_us, mut all) = tokio::sync::mpsc::unbounded_channel();
    for client in 1..=setup.clients {
        let (asker, image, user, to_us, requests) =
            (asker.clone(), image.clone(), user.clone(), to_us.clone(), setup.requests);
        clients.spawn(async move {
            for number in 1..=requests {
                let done = one(&asker, &image, &user, client, number).await;
                if to_us.send(done).is_err() {
                    return;
                }
            }
        });
    }
    drop(to_us);
    let mut measured = Measured {
        took: Duration::ZERO,
        latencies: Histogram::new(3).expect("three digits are allowed"),
        acknowledged: BTreeMap::new(),
        failed: Vec::new(),
        retries: 0,
        held: Vec::new(),
        status: None,
        missing: Default::default(),
    };
    while let Some(done) = all.recv().await {
        screen.note(&done);
        measured.retries += done.tries.saturating_sub(1);
        match done.outcome {
            Ok(stored) => {
                // The histogram grows as needed; more than 584 years do not occur.
                let _ = measured.latencies.record(u64::try_from(done.took.as_nanos()).unwrap_or(u64::MAX));
                measured.acknowledged.insert(done.id, stored);
            }
            Err(error) => {
                measured.failed.push(format!("client {}, request {}: {error:#}", done.client, done.number));
            }
        }
        measured.took = clock::now().since(began);
    }
    measured
}

async fn one(asker: &Asker, image: &Arc<[u8]>, user: &User, client: u32, number: u32) -> Done {
    let id = match random_id() {
        Ok(id) => id,
        Err(error) => {
            let (id, took) = (RequestId(0), Duration::ZERO);
            return Done { client, number, id, took, tries: 0, outcome: Err(error) };
        }
    };
    let label = Label::of(IMAGE, user.clone(), clock::wall());
    let put = Put { id, label, bytes: image.len() as u64, again: false, excluded: Default::default() };
    let began = clock::now();
    let body = Body::of(image);
    let answered = asker.ask(Request::Put(put), body.clone()).await;
    let took = clock::now().since(began);
    let tries = body.tries();
    let outcome = match answered {
        Ok(Reply::Stored { node, stored }) => Ok((node, stored)),
        Ok(other) => Err(anyhow!("answered by {other:?}")),
        Err(gave_up) => Err(anyhow!("{gave_up}")),
    };
    Done { client, number, id, took, tries, outcome }
}

/// Asks the nodes which uploads they hold, and for their status.
async fn check(asker: &Asker, measured: &mut Measured) {
    let mut listing = Listing::default();
    loop {
        let page = match asker.ask(listing.request(), Nothing).await {
            Ok(page) => page,
            Err(gave_up) => return measured.failed.push(format!("the nodes' uploads could not be listed: {gave_up}")),
        };
        let more = listing.take(&page);
        if let (Ok(_), Reply::Listing { uploads, .. }) = (&more, page) {
            let uploads = uploads.into_iter().map(|(node, entry)| (node, entry.stored));
            let ours = |(_, stored): &(NodeId, Stored)| measured.acknowledged.contains_key(&stored.name.id);
            measured.held.extend(uploads.filter(ours));
        }
        match more {
            Ok(true) => {}
            Ok(false) => break,
            Err(error) => return measured.failed.push(format!("the nodes' uploads could not be listed: {error}")),
        }
    }
    measured.missing.extend(listing.missing);
    if let Ok(Reply::Status(status)) = asker.ask(Request::Status, Nothing).await {
        measured.status = Some(*status);
    }
}

/// Sends requests, with retries.
#[derive(Clone)]
struct Asker {
    nodes: Nodes<Transport>,
    patience: Patience,
}

impl Asker {
    async fn ask(&self, request: Request, body: impl asking::Cargo) -> Result<Reply, GaveUp> {
        let seed = random_seed().unwrap_or(Seed(clock::now().0));
        let report = |line| tracing::debug!("{line}");
        asking::ask(&self.nodes, request, body, (self.patience, seed), report, &Clock).await
    }
}

/// The image, shared by all uploads.
#[derive(Clone)]
struct Body {
    bytes: Arc<[u8]>,
    opened: Arc<std::sync::atomic::AtomicU64>,
}

impl Body {
    fn of(bytes: &Arc<[u8]>) -> Self {
        Self { bytes: bytes.clone(), opened: Arc::default() }
    }

    /// How often it was sent.
    fn tries(&self) -> u64 {
        self.opened.load(std::sync::atomic::Ordering::Relaxed)
    }
}

impl asking::Cargo for Body {
    type Source = io::Cursor<Arc<[u8]>>;
    type Sink = tokio::io::Sink;

    async fn source(&self) -> io::Result<Self::Source> {
        self.opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(io::Cursor::new(self.bytes.clone()))
    }

    async fn sink(&self, _: &Stored) -> io::Result<tokio::io::Sink> {
        Ok(tokio::io::sink())
    }
}

/// How our images begin: a PPM, which every viewer opens, with a comment.
const OURS: [u8; 20] = *b"P6\n# omb test image\n";

/// Creates the test image, of about `size` bytes, and returns it. An existing one is replaced if it is ours.
fn make_image(size: u64) -> anyhow::Result<Vec<u8>> {
    let path = Path::new(IMAGE);
    if path.symlink_metadata().is_ok() {
        let mut head = [0; OURS.len()];
        let read = files::open(path, Links::Refused).and_then(|mut file| file.read_exact(&mut head));
        if read.is_err() || head != OURS {
            bail!("{IMAGE} is there and is no test image of ours: upload it by --file {IMAGE}, or remove it");
        }
    }
    let image = image(size);
    // Created anew: by now the name may be a link to another file.
    let made = files::create(path).and_then(|mut file| file.write_all(&image));
    made.with_context(|| format!("{IMAGE}: cannot write it"))?;
    Ok(image)
}

/// A colour gradient, as close to `size` bytes as whole rows allow.
fn image(size: u64) -> Vec<u8> {
    let pixels = size.saturating_sub(32) / 3;
    let width = pixels.isqrt().max(1);
    let height = (pixels / width).max(1);
    let mut image = OURS.to_vec();
    image.extend(format!("{width} {height}\n255\n").bytes());
    let shade = |part: u64, whole: u64| u8::try_from(part * 255 / whole.max(1)).unwrap_or(u8::MAX);
    for y in 0..height {
        for x in 0..width {
            image.extend([shade(x, width), shade(y, height), shade(x + y, width + height)]);
        }
    }
    image
}

/// Stdout, and a log file with the same text.
struct Screen {
    path: PathBuf,
    log: BufWriter<File>,
    failed: bool,
}

impl Screen {
    /// Opens the log in the current folder, under a free name.
    fn open() -> anyhow::Result<Self> {
        let stem = jiff::Zoned::now().strftime("stress_test_%Y-%m-%d-%H-%M-%S").to_string();
        for copy in 1..1_000 {
            let path = PathBuf::from(if copy == 1 { format!("{stem}.log") } else { format!("{stem}-{copy}.log") });
            match File::create_new(&path) {
                Ok(log) => return Ok(Self { path, log: BufWriter::new(log), failed: false }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("{}: cannot write it", shown(&path))),
            }
        }
        bail!("no free name like {stem}.log is left")
    }

    fn show(&mut self, text: &str) {
        console::text(Stream::Out, text);
        self.write(text);
        // The details of requests may stay in the buffer; what was shown is flushed at once.
        let flushed = self.log.flush();
        self.report(flushed);
    }

    fn note(&mut self, done: &Done) {
        let Done { client, number, id, took, tries, outcome } = done;
        let ms = took.as_secs_f64() * 1e3;
        let end = match outcome {
            Ok((node, stored)) => format!("stored by node {} as {}", node.0, stored.name),
            Err(error) => format!("failed: {}", printable(&format!("{error:#}"))),
        };
        self.write(&format!("client {client} request {number} id {id} {ms:.3} ms, sent {tries} times, {end}\n"));
    }

    fn write(&mut self, text: &str) {
        let written = self.log.write_all(text.as_bytes());
        self.report(written);
    }

    /// Reports once that the log cannot be written.
    fn report(&mut self, written: io::Result<()>) {
        if let Err(error) = written
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::error!("{}: cannot write to it: {error}", shown(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_about_the_size_that_was_asked_for() {
        for size in [64, 1_000, 16 << 10, 1 << 20] {
            let image = image(size);
            let missing = size - image.len() as u64;
            assert!(missing < 40 + 3 * size.isqrt(), "{size}: {missing} bytes are missing");
            assert!(image.starts_with(&OURS));
        }
    }
}
