//! A real Kafka for a test: one process on free loopback ports, in a temporary folder, gone with the test.
//!
//! ```no_run
//! let Some(kafka) = Kafka::start() else { return }; // Says what was left out, and why.
//! run_something_against(&kafka.bootstrap());
//! ```
//!
//! The jars come from `scripts/brokers.sh`; `OMB_KAFKA_LIB` names another folder of them.

use std::{
    fmt::Write as _,
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use super::{left_out, root};

/// How long a start may take. Usually 3 s; a machine with every core busy has been seen to need 20.
const START_MAX: Duration = Duration::from_secs(90);
/// How long a stop may take before it is forced.
const STOP_MAX: Duration = Duration::from_secs(15);

/// A running Kafka. Dropping it stops the process and removes its data.
pub struct Kafka {
    broker: Child,
    /// Ends the broker when its standard input closes, which also happens when the test process is killed.
    guard: Child,
    port: u16,
    sasl_port: Option<u16>,
    lib: PathBuf,
    folder: TempDir,
}

/// What a test wants beyond one plain listener.
#[derive(Default)]
pub struct Options {
    properties: String,
    users: Vec<(String, String)>,
}

impl Options {
    /// Adds or overrides one line of `server.properties`.
    #[must_use]
    pub fn property(mut self, key: &str, value: &str) -> Self {
        writeln!(self.properties, "{key}={value}").expect("writing to memory does not fail");
        self
    }

    /// Adds a second listener that wants SASL/PLAIN over plain TCP and knows this user; see [`Kafka::sasl_bootstrap`].
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// Lets SASL users do only what access rules allow, and there are none; the plain listener may do everything.
    #[must_use]
    pub fn deny_by_default(self) -> Self {
        self.property("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
            .property("super.users", "User:ANONYMOUS")
    }
}

impl Kafka {
    /// Starts one, or says what is left out. Takes about 6 s, half of it for formatting its storage.
    #[track_caller]
    pub fn start() -> Option<Self> {
        Self::start_with(&Options::default())
    }

    /// Starts one that is set up as `options` say.
    ///
    /// # Panics
    /// If the jars are there but it does not start, with the end of its log; and, with `OMB_REQUIRE_BROKERS=1`,
    /// if jars or Java are missing.
    #[track_caller]
    pub fn start_with(options: &Options) -> Option<Self> {
        let lib = std::env::var_os("OMB_KAFKA_LIB")
            .map_or_else(|| root().join("target/brokers/kafka-4.1.0/lib"), PathBuf::from);
        if !lib.is_dir() {
            left_out("real Kafka", &format!("no jars in {}; scripts/brokers.sh gets them", lib.display()));
            return None;
        }
        let java = Command::new("java").arg("-version").stdin(Stdio::null()).output();
        if !java.is_ok_and(|output| output.status.success()) {
            left_out("real Kafka", "no java");
            return None;
        }
        // A port that was free may be taken by the time Kafka binds it.
        let mut last = String::new();
        for _ in 0..3 {
            match Self::try_start(&lib, options) {
                Ok(kafka) => return Some(kafka),
                Err(log) if log.contains("Address already in use") => last = log,
                Err(log) => panic!("Kafka did not start:\n{log}"),
            }
        }
        panic!("Kafka found no free port, three times:\n{last}");
    }

    fn try_start(lib: &Path, options: &Options) -> Result<Self, String> {
        let folder = TempDir::with_prefix("omb-kafka-").expect("a temporary folder can be made");
        let at = |name: &str| folder.path().join(name);
        let [port, controller_port, sasl_port] = free_ports();
        let sasl_port = (!options.users.is_empty()).then_some(sasl_port);

        let mut properties = include_str!("kafka.properties")
            .replace("@PORT@", &port.to_string())
            .replace("@CONTROLLER_PORT@", &controller_port.to_string())
            .replace("@DATA@", &at("data").display().to_string());
        properties.push_str(&sasl_properties(port, controller_port, sasl_port, &options.users));
        // Of a key that is given twice, Java takes the last.
        properties.push_str(&options.properties);
        std::fs::write(at("server.properties"), properties).expect("a temporary file can be written");
        std::fs::write(at("log4j2.properties"), include_str!("log4j2.properties"))
            .expect("a temporary file can be written");

        let format = java(lib, folder.path())
            .args(["kafka.tools.StorageTool", "format", "-t", &cluster_id(), "-c", "server.properties"])
            .stdin(Stdio::null())
            .output()
            .expect("java runs");
        if !format.status.success() {
            return Err(said(&format));
        }

        let log = File::create(at("kafka.log")).expect("a temporary file can be written");
        let broker = java(lib, folder.path())
            .args(["kafka.Kafka", "server.properties"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be doubled"))
            .stderr(log)
            .spawn()
            .expect("java runs");
        let guard = guard(broker.id());
        let mut kafka = Self { broker, guard, port, sasl_port, lib: lib.to_owned(), folder };
        kafka.wait_until_ready()?;
        Ok(kafka)
    }

    /// `host:port` of the plain listener, as `bootstrap.servers` wants it.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `host:port` of the SASL listener.
    ///
    /// # Panics
    /// If no [`Options::user`] was given: then there is none.
    pub fn sasl_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.sasl_port.expect("a SASL listener needs a user"))
    }

    /// Runs one of Kafka's own tools, such as `org.apache.kafka.tools.TopicCommand`, in the broker's folder.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> Output {
        java(&self.lib, self.folder.path()).arg(class).args(arguments).stdin(Stdio::null()).output().expect("java runs")
    }

    /// Names of all topics but Kafka's own, sorted.
    ///
    /// # Panics
    /// If the broker does not answer.
    #[track_caller]
    pub fn topics(&self) -> Vec<String> {
        let output = self.tool(
            "org.apache.kafka.tools.TopicCommand",
            &["--bootstrap-server", &self.bootstrap(), "--list", "--exclude-internal"],
        );
        assert!(output.status.success(), "topics can be listed: {}", said(&output));
        let mut topics: Vec<String> = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect();
        topics.sort();
        topics
    }

    /// Names of all consumer groups.
    ///
    /// # Panics
    /// If the broker does not answer.
    #[track_caller]
    pub fn groups(&self) -> Vec<String> {
        let output = self.tool(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            &["--bootstrap-server", &self.bootstrap(), "--list"],
        );
        assert!(output.status.success(), "groups can be listed: {}", said(&output));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// The folder of the broker; files that tools are to read can be put there.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Holds the whole process up: connections stay open, nothing answers. For a stall of known length.
    pub fn suspend(&self) {
        signal("STOP", self.broker.id());
    }

    /// Lets it go on.
    pub fn resume(&self) {
        signal("CONT", self.broker.id());
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("kafka.log")).unwrap_or_default()
    }

    /// Until it accepts, answers, and knows itself as a living broker; a port that accepts is not yet ready.
    fn wait_until_ready(&mut self) -> Result<(), String> {
        let started = Instant::now();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        loop {
            if let Some(status) = self.broker.try_wait().expect("a child can be waited for") {
                return Err(format!("it ended by itself, {status}\n{}", end_of(&self.log())));
            }
            if brokers_known(address).is_ok_and(|brokers| brokers == 1) {
                return Ok(());
            }
            if started.elapsed() > START_MAX {
                return Err(format!("not ready after {START_MAX:?}\n{}", end_of(&self.log())));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = root().join(format!("target/kafka-{}.log", self.broker.id()));
            if std::fs::copy(self.folder.path().join("kafka.log"), &kept).is_ok() {
                println!("the log of Kafka is kept in {}", kept.display());
            }
        }
        // One that is suspended would not hear the end.
        self.resume();
        drop(self.guard.stdin.take());
        let asked = Instant::now();
        while asked.elapsed() < STOP_MAX {
            if matches!(self.broker.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // Both may be gone already, which is what is wanted.
        let _ = self.broker.kill();
        let _ = self.broker.wait();
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

/// A process that ends `broker` as soon as we close its standard input, or are gone. In a group of its own, so that
/// what ends the group of the tests leaves it time to do so.
pub(super) fn guard(broker: u32) -> Child {
    let script = "read -r _; kill -CONT $1; kill -TERM $1; \
                  for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 1; kill -0 $1 || exit 0; done; kill -KILL $1";
    Command::new("sh")
        .args(["-c", script, "guard", &broker.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh runs")
}

/// By the shell's own `kill`, so that the tests need no unsafe code for it.
pub(super) fn signal(name: &str, process: u32) {
    let sent = Command::new("sh").args(["-c", "kill -\"$1\" \"$2\"", "kill", name, &process.to_string()]).output();
    assert!(sent.is_ok(), "sh runs");
}

fn java(lib: &Path, folder: &Path) -> Command {
    let mut command = Command::new("java");
    command
        .args(["-Xms128m", "-Xmx1g"])
        .arg("-Dlog4j2.configurationFile=log4j2.properties")
        .arg("-cp")
        .arg(lib.join("*"))
        .current_dir(folder);
    command
}

/// Ports that are free now. All are held until the last is known, so they differ.
fn free_ports<const N: usize>() -> [u16; N] {
    let held: [TcpListener; N] =
        std::array::from_fn(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port"));
    held.map(|listener| listener.local_addr().expect("a bound socket has an address").port())
}

/// 16 bytes in URL-safe base64 without padding, as Kafka spells a cluster's id. No other broker joins, so it need not
/// be random.
fn cluster_id() -> String {
    format!("omb{:0>19}", std::process::id())
}

fn sasl_properties(port: u16, controller_port: u16, sasl_port: Option<u16>, users: &[(String, String)]) -> String {
    let Some(sasl_port) = sasl_port else { return String::new() };
    let known =
        users.iter().fold(String::new(), |known, (name, password)| known + &format!(" user_{name}=\"{password}\""));
    format!(
        "listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl_port},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL://127.0.0.1:{sasl_port}\n\
         sasl.enabled.mechanisms=PLAIN\n\
         listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required{known};\n"
    )
}

/// How many living brokers the one at `address` knows, by a bare metadata request (version 1) for no topic.
fn brokers_known(address: SocketAddr) -> std::io::Result<u32> {
    let timeout = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    // Length, API key 3, version 1, correlation id, client id "omb", no topics.
    stream.write_all(b"\0\0\0\x11\0\x03\0\x01\0\0\0\x07\0\x03omb\0\0\0\0")?;
    // Length, correlation id, number of brokers.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    Ok(u32::from_be_bytes([answer[8], answer[9], answer[10], answer[11]]))
}

fn said(output: &Output) -> String {
    end_of(&format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// The last 40 lines.
fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
