//! The `omb` program itself, run as a user runs it: in a folder of its own, with everything it says kept.

use std::{
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::kafka::{guard, signal};

/// Long enough for whatever ends at all, on a machine with every core busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The current folder of some runs.
pub struct Place(TempDir);

impl Default for Place {
    fn default() -> Self {
        Self(TempDir::with_prefix("omb-test-").expect("a temporary folder can be made"))
    }
}

impl Place {
    /// The folder, or a file in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).expect("a temporary file can be written");
    }

    /// Starts `omb` here.
    pub fn start(&self, arguments: &[&str]) -> Omb {
        let mut command = Command::new(env!("CARGO_BIN_EXE_omb"));
        command.args(arguments);
        self.spawn(command)
    }

    /// Starts a shell here that is to end as `omb`; `$OMB` names the program, `$NODE` and `$CLIENT` those of a cluster.
    pub fn start_by_shell(&self, script: &str) -> Omb {
        self.start_with("sh", &[], &["-c", script])
    }

    /// Starts any program here, with more in its environment.
    pub fn start_with(&self, program: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Omb {
        let mut command = Command::new(program);
        command.args(arguments).envs(environment.iter().copied());
        self.spawn(command)
    }

    /// Runs `omb` here to its end.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).end()
    }

    fn spawn(&self, mut command: Command) -> Omb {
        let mut child = command
            .current_dir(self.0.path())
            .env("OMB", env!("CARGO_BIN_EXE_omb"))
            .env("NODE", env!("CARGO_BIN_EXE_cloud-p2p"))
            .env("CLIENT", env!("CARGO_BIN_EXE_client"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a program can be started");
        let stdout = Heard::listen(child.stdout.take().expect("it is piped"));
        let stderr = Heard::listen(child.stderr.take().expect("it is piped"));
        let guard = guard(child.id());
        Omb { child, guard, stdout, stderr, began: Instant::now() }
    }

    /// Names of the files whose name ends so, sorted.
    pub fn files(&self, ending: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("the folder can be listed");
        let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(ending)).collect();
        names.sort();
        names
    }

    /// What a file holds.
    #[track_caller]
    pub fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The result of this name.
    #[track_caller]
    pub fn result(&self, name: &str) -> Value {
        json(&self.path(name))
    }

    /// The only result there is.
    #[track_caller]
    pub fn only_result(&self) -> (Value, Vec<Value>) {
        let names = self.files(".json");
        assert_eq!(names.len(), 1, "one result: {names:?}");
        (self.result(&names[0]), self.record(&names[0].replace(".json", ".jsonl")))
    }

    /// The lines of the record of this name.
    #[track_caller]
    pub fn record(&self, name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.path(name)).expect("the record is there");
        text.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect()
    }
}

/// A file of JSON.
#[track_caller]
pub fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A running program. Dropping it ends it, and so does the death of the test.
pub struct Omb {
    child: Child,
    guard: Child,
    stdout: Heard,
    stderr: Heard,
    began: Instant,
}

/// How a program ended, and its output.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Ended {
    /// Asserts its exit code, showing its output if it is another.
    #[track_caller]
    pub fn with(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "after {:?}, saying\n{}\n{}", self.took, self.stdout, self.stderr);
        self
    }

    /// Asserts that stderr holds a text.
    #[track_caller]
    pub fn saying(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "{text:?} is not in what it said:\n{}", self.stderr);
        self
    }

    /// Asserts that it ended in time.
    #[track_caller]
    pub fn within(self, limit: Duration) -> Self {
        assert!(self.took < limit, "it took {:?}, saying\n{}", self.took, self.stderr);
        self
    }
}

impl Omb {
    /// Waits until this appears on stderr, and returns all of stderr.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        self.stderr.wait_for(text)
    }

    /// Its stderr so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// Waits until this appears on stderr after the first `from` bytes, and returns what follows those.
    #[track_caller]
    pub fn wait_beyond(&mut self, from: usize, text: &str) -> String {
        self.stderr.wait_beyond(from, text)
    }

    /// Waits until this appears on stdout, and returns all of stdout.
    #[track_caller]
    pub fn wait_for_output(&mut self, text: &str) -> String {
        self.stdout.wait_for(text)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Most memory that it ever held, in bytes.
    #[track_caller]
    pub fn memory_max(&self) -> u64 {
        self.status_of_memory("VmHWM:")
    }

    /// Memory that it holds now, in bytes.
    #[track_caller]
    pub fn memory(&self) -> u64 {
        self.status_of_memory("VmRSS:")
    }

    #[track_caller]
    fn status_of_memory(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("it is told");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
    }

    /// Sends a signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        signal(name, self.child.id());
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end within [`PATIENCE`].
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break status;
            }
            if Instant::now() >= until {
                panic!("it does not end, saying\n{}\n{}", self.stdout.text(), self.stderr.text());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = self.began.elapsed();
        Ended { code: status.code(), stdout: self.stdout.all(), stderr: self.stderr.all(), took }
    }
}

impl Drop for Omb {
    fn drop(&mut self) {
        // Both may be gone already, which is what is wanted. The guard first: the number of a process that has ended
        // may be given to another.
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a program says on one stream, as it says it.
struct Heard {
    text: Arc<(Mutex<Stream>, Condvar)>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stream {
    text: String,
    over: bool,
}

impl Heard {
    fn listen(mut stream: impl Read + Send + 'static) -> Self {
        let text = Arc::<(Mutex<Stream>, Condvar)>::default();
        let heard = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let (mut bytes, mut pending) = ([0; 8192], Vec::new());
            loop {
                let count = stream.read(&mut bytes).unwrap_or(0);
                pending.extend_from_slice(&bytes[..count]);
                // A character may come in two pieces.
                let whole = match std::str::from_utf8(&pending) {
                    Err(error) if error.error_len().is_none() && count > 0 => error.valid_up_to(),
                    _ => pending.len(),
                };
                let mut stream = heard.0.lock().unwrap_or_else(PoisonError::into_inner);
                stream.text += &String::from_utf8_lossy(&pending[..whole]);
                pending.drain(..whole);
                stream.over = count == 0;
                heard.1.notify_all();
                if stream.over {
                    return;
                }
            }
        });
        Self { text, reader: Some(reader) }
    }

    fn text(&self) -> String {
        self.text.0.lock().unwrap_or_else(PoisonError::into_inner).text.clone()
    }

    #[track_caller]
    fn wait_for(&self, wanted: &str) -> String {
        self.wait_beyond(0, wanted)
    }

    #[track_caller]
    fn wait_beyond(&self, from: usize, wanted: &str) -> String {
        let stream = self.text.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = |stream: &Stream| stream.text[from..].contains(wanted);
        let open = |stream: &mut Stream| !stream.over && !said(stream);
        let (stream, _) =
            self.text.1.wait_timeout_while(stream, PATIENCE, open).unwrap_or_else(PoisonError::into_inner);
        assert!(said(&stream), "{wanted:?} was not said, but\n{}", &stream.text[from..]);
        stream.text[from..].to_owned()
    }

    /// All of it, after the end.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("reading does not panic");
        }
        self.text()
    }
}

/// `omb broker` as a process of its own.
pub struct Broker {
    pub process: Omb,
    /// Its host and port.
    pub address: String,
}

impl Broker {
    /// Starts one on a free port.
    #[track_caller]
    pub fn start(place: &Place) -> Self {
        let mut process = place.start(&["broker", "--port", "0"]);
        let said = process.wait_for_output("Ctrl-C");
        let address = said.split("Embedded broker on ").nth(1).and_then(|rest| rest.split(',').next());
        Self { address: address.expect("it says where it is").to_owned(), process }
    }
}

/// A driver file for a Kafka at `address`; `more` is added to it.
pub fn kafka_driver(address: &str, more: &str) -> String {
    format!(
        "name: K\ndriverClass: kafka\nreplicationFactor: 1\ncommonConfig: |\n  bootstrap.servers={address}\n\
         producerConfig: |\n  acks=all\n  linger.ms=1\nconsumerConfig: |\n  auto.offset.reset=earliest\n{more}"
    )
}

/// A workload of a second that every machine can bear, with some keys changed, added, or (where empty) left out.
pub fn workload(name: &str, changes: &[(&str, &str)]) -> String {
    let base = [
        ("name", name),
        ("topics", "1"),
        ("partitionsPerTopic", "1"),
        ("messageSize", "100"),
        ("useRandomizedPayloads", "true"),
        ("randomBytesRatio", "0.5"),
        ("randomizedPayloadPoolSize", "10"),
        ("producersPerTopic", "1"),
        ("producerRate", "1000"),
        ("subscriptionsPerTopic", "1"),
        ("consumerPerSubscription", "1"),
        ("warmupDuration", "300ms"),
        ("testDuration", "1s"),
    ];
    let changed = |key: &str| changes.iter().find(|(changed, _)| *changed == key).map(|(_, value)| *value);
    let kept = base.iter().map(|(key, value)| (*key, changed(key).unwrap_or(value)));
    let added = changes.iter().copied().filter(|(key, _)| !base.iter().any(|(known, _)| known == key));
    let lines = kept.chain(added).filter(|(_, value)| !value.is_empty());
    lines.map(|(key, value)| format!("{key}: {value}\n")).collect()
}

/// The number at a JSON pointer.
#[track_caller]
pub fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number at {pointer}: {value:.300}"))
}

/// Asserts that everything in a result and in its record agrees: periods with totals, totals with the verdict.
#[track_caller]
pub fn agree(result: &Value, record: &[Value]) {
    add_up(result, record);
    let omb = &result["omb"];
    let (acked, failed) = (number(omb, "/totals/sinceLoadBegan/acked"), number(omb, "/totals/sinceLoadBegan/failed"));
    assert_eq!(number(omb, "/totals/sinceLoadBegan/attempted"), acked + failed, "every message has an outcome");
    let subscriptions = omb["verdict"]["subscriptions"].as_array().expect("subscriptions");
    let sum = |key: &str| -> u64 { subscriptions.iter().map(|one| number(one, &format!("/{key}"))).sum() };
    assert_eq!(sum("received"), number(omb, "/totals/sinceLoadBegan/received"));
    let per_topic = number(omb, "/workload/subscriptionsPerTopic");
    if omb["verdict"]["drained"] != "not awaited" {
        assert_eq!(sum("confirmed"), acked * per_topic, "every subscription is to see every acknowledged message");
    }
}

/// Asserts that periods, phases and totals agree, also where a worker was lost with messages on their way.
#[track_caller]
pub fn add_up(result: &Value, record: &[Value]) {
    let kinds: Vec<&str> = record.iter().filter_map(|line| line["kind"].as_str()).collect();
    assert_eq!((kinds.first(), kinds.last()), (Some(&"run"), Some(&"end")), "{kinds:?}");
    assert!(kinds[1..kinds.len() - 1].iter().all(|kind| *kind == "period") && kinds.len() > 3, "{kinds:?}");
    let omb = &result["omb"];
    for key in ["attempted", "skipped", "acked", "ackedBytes", "failed", "received", "receivedBytes", "headerless"] {
        let recorded: u64 = record[1..].iter().map(|line| number(line, &format!("/totals/counts/{key}"))).sum();
        let phases = omb["phases"].as_array().expect("phases");
        let phases: u64 = phases.iter().map(|phase| number(phase, &format!("/totals/{key}"))).sum();
        let whole = number(omb, &format!("/totals/sinceLoadBegan/{key}"));
        assert_eq!((recorded, phases), (whole, whole), "{key}: the record, the phases, the result");
    }
    let (acked, failed) = (number(omb, "/totals/sinceLoadBegan/acked"), number(omb, "/totals/sinceLoadBegan/failed"));
    assert!(number(omb, "/totals/sinceLoadBegan/attempted") >= acked + failed, "no outcome without a message");
}

/// Asserts that every subscription received exactly what was acknowledged, each message once.
#[track_caller]
pub fn complete(result: &Value, record: &[Value]) {
    agree(result, record);
    let verdict = &result["omb"]["verdict"];
    assert_eq!((&verdict["outcome"], &result["omb"]["complete"]), (&"complete".into(), &true.into()), "{verdict}");
    for one in verdict["subscriptions"].as_array().expect("subscriptions") {
        let counts = ["confirmed", "received", "distinct"].map(|key| number(one, &format!("/{key}")));
        assert!(counts[0] > 0 && counts.iter().all(|count| *count == counts[0]), "{one}");
    }
}

/// Eight consumers of the Kafka cluster in `k.yaml` share one partition. They join one after another, and each that
/// joined under load would make the group share it anew: then what was read before is read again. The workload is
/// `eight.yaml` after it.
pub fn eight_consumers_join_before_the_load(place: &Place) {
    let changes = [("consumerPerSubscription", "8"), ("warmupDuration", "0s"), ("testDuration", "1s")];
    place.write("eight.yaml", workload("eight", &changes));
    place.run(&["run", "-d", "k.yaml", "-o", "eight.json", "eight.yaml"]).with(0);
    let result = place.result("eight.json");
    complete(&result, &place.record("eight.jsonl"));
    let verdict = &result["omb"]["verdict"];
    for key in ["duplicated", "reread", "rebalances"] {
        assert_eq!(number(verdict, &format!("/{key}")), 0, "{key}: {verdict}");
    }
}
