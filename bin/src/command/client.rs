//! `omb client`, also called `client`: talks to a cluster, one command at a time or at a prompt.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use omb_cluster::{
    client::{GaveUp, Patience, listing::Listing},
    config::ClusterConfig,
    node::message::{self, Reply, Request},
    peer::{Digest, FileName, Hashing, Label, NodeId, User},
    report::status,
    store::{Entry, Loss, Name, Stored},
};
use omb_machine::{printable::printable, quantity, time::WallTime};
use omb_runtime_real::{
    clock::{self, Clock},
    files::{self, Links},
    net::Transport,
    portable::cluster::{Nodes, asking},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::cluster::{Nothing, nodes, random_id, random_seed, read, runtime};
use crate::{
    console::{self, errln, outln, shown},
    exit::{self, Code, ExitsWith as _},
    flags::{self, ClientCommand},
};

/// Longest time for a query, such as that for the leader.
const QUERY_MAX: Duration = Duration::from_secs(5);

/// How long a request is retried silently.
const QUIET: Duration = Duration::from_secs(1);

/// Most causes of retries that are reported for a request.
const CAUSES_MAX: usize = 8;

/// Sends requests to a cluster.
pub(crate) fn client(flags: &flags::Client) -> anyhow::Result<Code> {
    let session = Session::new(flags)?;
    let runtime = runtime()?;
    match &flags.command {
        // Logged before the runtime is dropped, which waits for the reader of stdout.
        Some(command) => Ok(runtime.block_on(session.perform(command)).unwrap_or_else(|error| exit::log(&error))),
        None => prompt(&runtime, &session),
    }
}

/// What is typed at the prompt.
#[derive(Debug, Parser)]
#[command(name = "", no_binary_name = true, disable_help_flag = true, disable_version_flag = true)]
struct Typed {
    #[command(subcommand)]
    command: ClientCommand,
}

/// Reads commands until the input ends.
fn prompt(runtime: &tokio::runtime::Runtime, session: &Session) -> anyhow::Result<Code> {
    // Its text names the cause.
    let editor = rustyline::DefaultEditor::new().map_err(|error| anyhow!("cannot read from this terminal: {error}"));
    let mut editor = editor.exits_with(Code::Failed)?;
    let history = std::env::var_os("HOME").map(|home| Path::new(&home).join(".omb_client_history"));
    if let Some(history) = &history {
        // The first time there is none.
        let _ = editor.load_history(history);
    }
    outln!(
        "A cluster of {} nodes. Commands: status, discover, put FILE.., get NAME, list, help, quit.",
        session.size()
    );
    loop {
        let line = match editor.readline("omb> ") {
            Ok(line) => line,
            Err(rustyline::error::ReadlineError::Interrupted) => continue,
            // End of input.
            Err(_) => break,
        };
        let Some(words) = shlex::split(&line) else {
            errln!("a quote is not closed");
            continue;
        };
        match words.first().map(String::as_str) {
            None => continue,
            Some("quit" | "exit") => break,
            Some(_) => {}
        }
        let _ = editor.add_history_entry(&line);
        match Typed::try_parse_from(words) {
            // After an error, the next command may still succeed.
            Ok(typed) => {
                if let Err(error) = runtime.block_on(session.perform(&typed.command)) {
                    exit::log(&error);
                }
            }
            Err(error) => console::show(&error),
        }
    }
    if let Some(history) = &history
        && let Err(error) = editor.save_history(history)
    {
        tracing::warn!("{}: the history cannot be kept: {error}", shown(history));
    }
    Ok(Code::Sound)
}

/// A client of one cluster.
struct Session {
    config: ClusterConfig,
    nodes: Nodes<Transport>,
    patience: Patience,
}

/// A node that stores an upload, what it knows of it, and whether its file is gone or damaged.
type Holding = (NodeId, Entry, Option<Loss>);

impl Session {
    fn new(flags: &flags::Client) -> anyhow::Result<Self> {
        let config = read(&flags.cluster)?;
        let nodes = nodes(&config)?;
        // A large upload may take long; its bytes show its progress.
        let patience = Patience { deadline: flags.timeout, try_max: flags.timeout, ..Patience::default() };
        Ok(Self { config, nodes, patience })
    }

    fn size(&self) -> usize {
        self.config.peers.ids().len()
    }

    async fn perform(&self, command: &ClientCommand) -> anyhow::Result<Code> {
        match command {
            ClientCommand::Status => self.status().await,
            ClientCommand::Discover => self.discover().await,
            ClientCommand::Put(put) => self.put(put).await,
            ClientCommand::Get(get) => self.get(get).await,
            ClientCommand::List => self.list().await,
        }
    }

    /// Sends a request until it is answered. Messages about a failure begin with `about`.
    async fn ask<C: asking::Cargo>(&self, about: &str, request: Request, cargo: C) -> anyhow::Result<Reply> {
        let seed = random_seed().exits_with(Code::Failed)?;
        // After a while, and each cause once: why it takes longer, not how often it was retried.
        let (began, mut causes) = (clock::now(), BTreeSet::new());
        let report = |line: String| {
            let waits = clock::now().since(began) >= QUIET;
            if waits && causes.len() < CAUSES_MAX && causes.insert(line.clone()) {
                tracing::warn!("{about}{line}; trying again");
            }
        };
        // Queries are answered quickly or not at all; uploads may outlast an election.
        let query =
            matches!(request, Request::Status | Request::Discover | Request::List { .. } | Request::Find { .. });
        let deadline = if query { self.patience.deadline.min(QUERY_MAX) } else { self.patience.deadline };
        let patience = Patience { deadline, ..self.patience };
        let asked = asking::ask(&self.nodes, request, cargo, (patience, seed), report, &Clock);
        asked.await.map_err(|gave_up| gone(about, &gave_up))
    }

    async fn status(&self) -> anyhow::Result<Code> {
        let reply = self.ask("", Request::Status, Nothing).await?;
        let Reply::Status(status) = reply else { return Err(unexpected(&reply)) };
        status::lines(&status).iter().for_each(|line| outln!("{line}"));
        Ok(Code::Sound)
    }

    /// Tries all nodes at once, as a user would one by one with `nc`.
    async fn discover(&self) -> anyhow::Result<Code> {
        let mut tries = Vec::new();
        for node in self.nodes.ids() {
            let nodes = self.nodes.clone();
            let attempt = tokio::spawn(async move {
                let began = std::time::Instant::now();
                (nodes.reach(node).await, began.elapsed())
            });
            tries.push((node, attempt));
        }
        let mut answered = false;
        let (mut lines, mut notes) = (Vec::new(), Vec::new());
        for (node, attempt) in tries {
            let address = self.config.peers.address(node).unwrap_or_default();
            let (reached, took) = attempt.await.exits_with(Code::Failed)?;
            lines.push(match reached {
                Ok(()) => {
                    answered = true;
                    format!("  Node {}: {address} answers ({:.1} ms)", node.0, took.as_secs_f64() * 1e3)
                }
                Err(error) => format!("  Node {}: {address} {error}", node.0),
            });
        }
        if answered {
            let reply = self.ask("", Request::Discover, Nothing).await?;
            let Reply::Discovered { node, leader, for_ms, peers } = reply else { return Err(unexpected(&reply)) };
            let since = quantity::span(Duration::from_secs(for_ms / 1_000));
            match leader {
                Some(leader) => outln!("Leader: {leader}, for {since}"),
                None => outln!("Leader: none, for {since}"),
            }
            notes = status::missing(node, &peers);
        }
        outln!("Peers ({}):", self.config.peers.digest().short());
        lines.iter().chain(&notes).for_each(|line| outln!("{line}"));
        Ok(if answered { Code::Sound } else { Code::Unavailable })
    }

    async fn put(&self, put: &flags::Put) -> anyhow::Result<Code> {
        let owner = User::try_from(put.user.clone()).context("--user")?;
        let mut code = Code::Sound;
        for path in &put.files {
            if let Err(error) = self.put_one(path, &owner).await {
                code = exit::log(&error);
            }
        }
        Ok(code)
    }

    async fn put_one(&self, path: &Path, owner: &User) -> anyhow::Result<()> {
        let named = shown(path);
        let metadata = fs::metadata(path).with_context(|| format!("{named}: cannot read it"))?;
        if !metadata.is_file() {
            bail!("{named}: not a plain file");
        }
        if metadata.len() == 0 {
            bail!("{named}: the file is empty; there is nothing to store");
        }
        let id = random_id().exits_with(Code::Failed)?;
        let bytes = metadata.len();
        let upload = Upload { path: path.to_owned(), bytes, bar: bar(&named, bytes), digest: Arc::default() };
        let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let label = Label::of(&file, owner.clone(), clock::wall());
        let put = message::Put { id, label, bytes, again: false, excluded: Default::default() };
        let outcome = self.ask(&format!("{named}: not stored: "), Request::Put(put), upload.clone()).await;
        upload.bar.finish_and_clear();
        let reply = outcome?;
        let Reply::Stored { node, stored } = reply else { return Err(unexpected(&reply)) };
        if let Some(digest) = upload.digest()
            && digest != stored.name.digest
        {
            return Err(failed(format!(
                "{named}: node {} stored other bytes: {} instead of {digest}",
                node.0, stored.name.digest
            )));
        }
        outln!("{named}: stored by node {} as {} ({})", node.0, stored.name, quantity::bytes(stored.bytes));
        Ok(())
    }

    async fn get(&self, get: &flags::Get) -> anyhow::Result<Code> {
        let target = get.output.clone().unwrap_or_else(|| {
            // Without a path: the upload goes to the current folder.
            PathBuf::from(Path::new(&get.name).file_name().unwrap_or(OsStr::new("upload")))
        });
        let to_stdout = target.as_os_str() == "-";
        // A dangling link exists, too.
        if !to_stdout && target.symlink_metadata().is_ok() {
            bail!("{} exists already, and nothing is ever overwritten", shown(&target));
        }
        let name = match get.name.parse() {
            Ok(name) => name,
            Err(_) => self.find(&get.name).await?,
        };
        // All or nothing: the file gets its name when it is complete, and has a unique one until then.
        let fresh = random_id().exits_with(Code::Failed)?;
        let part = PathBuf::from(format!("{}.{fresh}.part", target.display()));
        let download = Download { part: (!to_stdout).then(|| part.clone()), bar: bar(&get.name, 0) };
        let outcome = self.ask("", Request::Get { name }, download.clone()).await;
        download.bar.finish_and_clear();
        let fetched = match outcome {
            Ok(Reply::Body(stored)) if to_stdout => Ok(stored),
            Ok(Reply::Body(stored)) => fs::hard_link(&part, &target)
                .map(|()| stored)
                .with_context(|| format!("{}: cannot be made", shown(&target)))
                .exits_with(Code::Failed),
            Ok(Reply::NotFound) => Err(failed(format!("{name}: no node that can be reached holds it"))),
            Ok(Reply::Lost { node, entry, loss }) => Err(failed(lost(node, &entry, loss))),
            Ok(other) => Err(unexpected(&other)),
            Err(error) => Err(error),
        };
        let _ = fs::remove_file(&part);
        let stored = fetched?;
        if !to_stdout {
            outln!("{}: fetched ({})", shown(&target), quantity::bytes(stored.bytes));
        }
        Ok(Code::Sound)
    }

    /// Finds the upload with this file name, or with an id that begins with these digits.
    async fn find(&self, sought: &str) -> anyhow::Result<Name> {
        let shown = printable(sought);
        // No file has such a name, and a path names no upload.
        if FileName::try_from(sought.to_owned()).is_err() || sought.contains('/') || [".", ".."].contains(&sought) {
            let text = sought.chars().take(300).collect::<String>();
            let text = text.escape_debug();
            bail!(
                "`{text}` is not the name of an upload: give the name of its file, or its own, or the first digits of that"
            );
        }
        let reply = self.ask("", Request::Find { sought: sought.to_owned() }, Nothing).await?;
        let Reply::Found { uploads, more, missing } = reply else { return Err(unexpected(&reply)) };
        let mut meant: BTreeMap<Name, Vec<&Holding>> = BTreeMap::new();
        uploads.iter().for_each(|found| meant.entry(found.1.stored.name).or_default().push(found));
        let held = |found: &[&Holding]| found.iter().any(|(_, _, loss)| loss.is_none());
        // An upload that cannot be fetched does not count if another one can.
        if meant.values().any(|found| held(found)) {
            meant.retain(|_, found| held(found));
        }
        match (meant.len(), more) {
            (0, _) => {
                let nodes: Vec<String> = missing.iter().map(|node| node.0.to_string()).collect();
                let missing =
                    if nodes.is_empty() { String::new() } else { format!(", and {} did not answer", nodes.join(", ")) };
                Err(failed(format!("{shown}: no node that can be reached holds an upload of this name{missing}")))
            }
            (1, false) => {
                let (name, found) = meant.pop_first().expect("there is one");
                match found.first() {
                    Some((node, entry, Some(loss))) if !held(&found) => Err(failed(lost(*node, entry, *loss))),
                    _ => Ok(name),
                }
            }
            (count, _) => {
                let more = if more { " or more" } else { "" };
                let mut text =
                    format!("{shown}: {count}{more} uploads are called so; name one by the first digits of its id:");
                for (name, found) in meant {
                    let (node, entry, _) = found[0];
                    let [file, owner, at] = described(entry.label.as_ref());
                    let (id, bytes) = (short(&name), quantity::bytes(entry.stored.bytes));
                    text.push_str(&format!("\n  {id}  {file}  {owner}  {at}  {bytes}  node {}", node.0));
                }
                Err(failed(text))
            }
        }
    }

    async fn list(&self) -> anyhow::Result<Code> {
        let mut listing = Listing::default();
        loop {
            let reply = self.ask("", listing.request(), Nothing).await?;
            let more = listing.take(&reply).exits_with(Code::Failed)?;
            if let Reply::Listing { uploads, .. } = &reply {
                for (node, Entry { stored, label }) in uploads {
                    let [file, owner, at] = described(label.as_ref());
                    let bytes = quantity::bytes(stored.bytes);
                    outln!("{file}  {owner}  {at}  {bytes}  node {}  {}", node.0, stored.name);
                }
            }
            if !more {
                break;
            }
        }
        for (node, held) in &listing.nodes {
            outln!("node {}: {}, {}", node.0, quantity::counted(held.uploads, "upload"), quantity::bytes(held.bytes));
        }
        let doubled = listing.doubled.len() as u64;
        outln!(
            "{} in all, {} of them on more than one node",
            quantity::counted(listing.uploads, "upload"),
            quantity::grouped(doubled)
        );
        for node in &listing.missing {
            outln!("node {} did not answer: what it holds is not listed", node.0);
        }
        for (node, lost) in &listing.lost {
            let uploads = quantity::counted(*lost, "acknowledged upload");
            outln!("node {}: {uploads} cannot be had, and not listed: see status", node.0);
        }
        Ok(if listing.lost.is_empty() { Code::Sound } else { Code::Failed })
    }
}

/// Name, owner and time of an upload, for display.
fn described(label: Option<&Label>) -> [String; 3] {
    let Some(Label { file, owner, at }) = label else { return ["unknown"; 3].map(str::to_owned) };
    [printable(file.as_str()).into_owned(), printable(owner.as_str()).into_owned(), local(*at)]
}

/// A time in the local time zone.
fn local(at: WallTime) -> String {
    let at = jiff::Timestamp::from_nanosecond(at.0.into());
    at.map_or_else(
        |_| "unknown".to_owned(),
        |at| at.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// The first digits of an upload's id, enough to name it.
fn short(name: &Name) -> String {
    name.to_string()[..12].to_owned()
}

/// Says that an upload was stored and cannot be fetched.
fn lost(node: NodeId, Entry { stored, label }: &Entry, loss: Loss) -> String {
    let what = match loss {
        Loss::Gone => "its file is gone",
        Loss::Damaged => "its file is damaged",
    };
    match label {
        Some(label) => {
            let [file, owner, at] = described(Some(label));
            format!("{file} ({}) was stored by node {} for {owner} at {at}, and {what}", short(&stored.name), node.0)
        }
        None => format!("{} was stored by node {}, and {what}", stored.name, node.0),
    }
}

fn failed(text: String) -> anyhow::Error {
    Code::Failed.attach(anyhow!(text))
}

fn gone(about: &str, gave_up: &GaveUp) -> anyhow::Error {
    let code = if gave_up.reached { Code::Failed } else { Code::Unavailable };
    code.attach(anyhow!("{about}{gave_up}"))
}

fn unexpected(reply: &Reply) -> anyhow::Error {
    failed(format!("a node answered something else than was asked: {reply:?}"))
}

/// A bar for a body, on a terminal.
fn bar(name: &str, bytes: u64) -> ProgressBar {
    let template = "{prefix:>24} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec}";
    let style = ProgressStyle::with_template(template).expect("the template is sound").progress_chars("=> ");
    let bar = console::bar(bytes).with_style(style);
    let tail: String = printable(name).chars().rev().take(24).collect::<Vec<_>>().into_iter().rev().collect();
    bar.set_prefix(tail);
    bar
}

/// A file that is uploaded.
#[derive(Clone)]
struct Upload {
    path: PathBuf,
    bytes: u64,
    bar: ProgressBar,
    /// Of the whole file, once it was read to its end.
    digest: Arc<Mutex<Option<Digest>>>,
}

impl Upload {
    fn digest(&self) -> Option<Digest> {
        *self.digest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl asking::Cargo for Upload {
    type Source = Sending;
    type Sink = tokio::io::Sink;

    async fn source(&self) -> io::Result<Sending> {
        // It may have been replaced since it was checked.
        let path = self.path.clone();
        let opened = tokio::task::spawn_blocking(move || files::open(&path, Links::Followed)).await;
        let file = tokio::fs::File::from_std(opened.map_err(io::Error::other)??);
        self.bar.set_position(0);
        Ok(Sending { file, left: self.bytes, hashing: Some(Hashing::default()), upload: self.clone() })
    }

    async fn sink(&self, _: &Stored) -> io::Result<tokio::io::Sink> {
        Ok(tokio::io::sink())
    }
}

/// A file that is being read and hashed, with its progress bar.
struct Sending {
    file: tokio::fs::File,
    left: u64,
    hashing: Option<Hashing>,
    upload: Upload,
}

impl AsyncRead for Sending {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        ready!(Pin::new(&mut this.file).poll_read(context, into))?;
        let read = &into.filled()[before..];
        if read.is_empty() && this.left > 0 {
            let text = format!("it became {} bytes shorter meanwhile", this.left);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        this.left = this.left.saturating_sub(read.len() as u64);
        this.upload.bar.inc(read.len() as u64);
        if let Some(hashing) = &mut this.hashing {
            hashing.update(read);
        }
        if this.left == 0 {
            let digest = this.hashing.take().map(Hashing::finish);
            let mut slot = this.upload.digest.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = digest.or(*slot);
        }
        Poll::Ready(Ok(()))
    }
}

/// A file that is fetched, or stdout.
#[derive(Clone)]
struct Download {
    part: Option<PathBuf>,
    bar: ProgressBar,
}

impl asking::Cargo for Download {
    type Source = tokio::io::Empty;
    type Sink = Receiving;

    async fn source(&self) -> io::Result<tokio::io::Empty> {
        Ok(tokio::io::empty())
    }

    async fn sink(&self, stored: &Stored) -> io::Result<Receiving> {
        self.bar.set_length(stored.bytes);
        self.bar.set_position(0);
        let to = match &self.part {
            Some(part) => {
                // Created anew for each try: others may be able to write to the folder, so no existing file is used.
                let _ = fs::remove_file(part);
                let file = fs::File::create_new(part);
                let file = file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", shown(part))))?;
                Sink::File(tokio::fs::File::from_std(file))
            }
            None => Sink::Stdout(console::body()),
        };
        Ok(Receiving { to, bar: self.bar.clone() })
    }
}

enum Sink {
    File(tokio::fs::File),
    Stdout(tokio::io::Stdout),
}

/// A body that is being received.
struct Receiving {
    to: Sink,
    bar: ProgressBar,
}

impl Receiving {
    fn to(&mut self) -> Pin<&mut (dyn AsyncWrite + Send + Unpin)> {
        match &mut self.to {
            Sink::File(file) => Pin::new(file),
            Sink::Stdout(stdout) => Pin::new(stdout),
        }
    }
}

impl AsyncWrite for Receiving {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(self.to().poll_write(context, bytes));
        if let Ok(count) = written {
            self.bar.inc(count as u64);
        }
        Poll::Ready(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.to().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.to().poll_shutdown(context)
    }
}
