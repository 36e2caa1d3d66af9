//! Workers as processes of their own, impostors, and what lies between them and their controller.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use omb_machine::seed::fnv1a;

use super::omb::{Broker, Omb, Place, kafka_driver};

/// Longest a small answer over loopback takes.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// `omb worker` as a process of its own, on free ports of loopback.
pub struct Worker {
    pub process: Omb,
    pub port: u16,
    pub stats_port: u16,
    scheme: &'static str,
}

impl Worker {
    /// Starts one, with more arguments.
    #[track_caller]
    pub fn start(place: &Place, more: &[&str]) -> Self {
        Self::start_at(place, 0, more)
    }

    /// Starts one on this port.
    #[track_caller]
    pub fn start_at(place: &Place, port: u16, more: &[&str]) -> Self {
        let port = port.to_string();
        let base = ["worker", "--port", &port, "--stats-port", "0", "--bind", "127.0.0.1"];
        let mut process = place.start(&[&base, more].concat());
        let said = process.wait_for("/metrics");
        let port = |label: &str| {
            let (_, rest) = said.split_once(label)?;
            rest[rest.find("127.0.0.1:")? + 10..].split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let scheme = if said.contains("Running on https") { "https" } else { "http" };
        let (port, stats_port) = (port("Running on "), port("Metrics on "));
        Self { process, port: port.expect("it says where it is"), stats_port: stats_port.expect("likewise"), scheme }
    }

    /// One that was started otherwise.
    pub fn of(process: Omb, port: u16, stats_port: u16) -> Self {
        Self { process, port, stats_port, scheme: "http" }
    }

    /// As `-w` takes it, and as it is called in what the controller says.
    pub fn address(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Waits until it follows no controller.
    #[track_caller]
    pub fn is_free_within(&self, limit: Duration) {
        let began = Instant::now();
        loop {
            let (status, said) = get(self.port, "/readyz");
            if (status, said.as_str()) == (200, "free\n") {
                return;
            }
            assert!(began.elapsed() < limit, "after {limit:?} it is not free: {status} {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What it has counted: sent, received, failed.
    #[track_caller]
    pub fn counters(&self) -> [u64; 3] {
        let (status, body) = get(self.port, "/counters-stats");
        assert_eq!(status, 200, "{body}");
        let stats: serde_json::Value = serde_json::from_str(&body).expect("it is JSON");
        assert_eq!(stats.as_object().map(serde_json::Map::len), Some(3), "exactly upstream's keys: {body}");
        ["messagesSent", "messagesReceived", "messageSendErrors"].map(|key| stats[key].as_u64().expect("a number"))
    }

    /// Asserts that no load goes on.
    #[track_caller]
    pub fn is_silent(&self) {
        let before = self.counters();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(self.counters(), before, "it still sends or receives");
    }
}

/// A broker, a driver file for it (`k.yaml`), and workers.
pub struct Fleet {
    pub broker: Broker,
    pub workers: Vec<Worker>,
}

impl Fleet {
    /// Starts a broker and so many workers.
    #[track_caller]
    pub fn start(place: &Place, workers: usize) -> Self {
        let broker = Broker::start(place);
        place.write("k.yaml", kafka_driver(&broker.address, ""));
        Self { broker, workers: (0..workers).map(|_| Worker::start(place, &[])).collect() }
    }

    /// All addresses, as `-w` takes them.
    pub fn addresses(&self) -> String {
        self.workers.iter().map(Worker::address).collect::<Vec<_>>().join(",")
    }

    /// Starts a run over all of them, with bounds as short as a busy machine allows.
    pub fn lead(&self, place: &Place, more: &[&str]) -> Omb {
        lead(place, &self.addresses(), more)
    }

    /// Asserts that no worker follows a controller or sends load.
    #[track_caller]
    pub fn is_free_within(&self, limit: Duration) {
        for worker in &self.workers {
            worker.is_free_within(limit);
            worker.is_silent();
        }
    }
}

/// Starts a run of `w.yaml` on `k.yaml` over these workers, with bounds as short as a busy machine allows, where `more`
/// gives no others.
pub fn lead(place: &Place, workers: &str, more: &[&str]) -> Omb {
    let bounds = [["--connect-timeout", "1s"], ["--call-timeout", "3s"], ["--setup-timeout", "20s"], ["--lease", "3s"]];
    let bounds = bounds.iter().filter(|[flag, _]| !more.contains(flag)).flatten().copied();
    let base = ["run", "-d", "k.yaml", "-o", "out.json", "-w", workers, "w.yaml"];
    let arguments: Vec<&str> = base.into_iter().chain(bounds).chain(more.iter().copied()).collect();
    place.start(&arguments)
}

/// Asks a server on loopback for a page: the status and the body.
#[track_caller]
pub fn get(port: u16, path: &str) -> (u16, String) {
    ask(port, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"))
}

/// Sends bytes to a server on loopback: the status and the body of its answer.
#[track_caller]
pub fn ask(port: u16, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it can be connected to");
    stream.set_read_timeout(Some(ANSWERS_WITHIN)).expect("a bound can be set");
    stream.write_all(request.as_bytes()).expect("it takes the request");
    let mut answer = Vec::new();
    // What came before a reset counts.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP: {answer:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no status: {head}")), body.to_owned())
}

/// A server on loopback that answers everything with the same bytes, and is gone when this is dropped.
pub struct Pretender {
    pub port: u16,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pretender {
    /// Answers with this status line's end and body.
    pub fn start(status: &str, content_type: &str, body: &str) -> Self {
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let (listener, port) = listen();
        let over = Arc::<AtomicBool>::default();
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while let Some(mut stream) = accept(&listener, &ended) {
                let mut request = [0; 4_096];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.shutdown(Shutdown::Write);
                let _ = stream.read(&mut request);
            }
        });
        Self { port, over, thread: Some(thread) }
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Pretender {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a proxy does to what passes through it.
#[derive(Clone, Copy, Default)]
pub struct Faults {
    /// From it follows when what happens.
    pub seed: u64,
    /// Each piece is held back for up to so long.
    pub delay: Duration,
    /// A connection is cut, with a reset or an end, after up to so many bytes; 0 for never.
    pub bytes: u64,
    /// A connection is cut after up to so long; zero for never.
    pub life: Duration,
}

/// A proxy between a controller and one worker.
pub struct Proxy {
    pub port: u16,
    cut: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    cuts: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Passes on to `to`.
    pub fn start(to: u16, faults: Faults) -> Self {
        let (listener, port) = listen();
        let (cut, over, cuts) = <(Arc<AtomicBool>, Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let thread = std::thread::spawn({
            let (cut, over, cuts) = (Arc::clone(&cut), Arc::clone(&over), Arc::clone(&cuts));
            move || {
                let mut connections = Vec::new();
                while let Some(from) = accept(&listener, &over) {
                    if cut.load(Relaxed) {
                        continue;
                    }
                    let Ok(on) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { continue };
                    let number = u64::try_from(connections.len()).expect("few");
                    let fate = Fate::draw(faults, number);
                    let ends = [Arc::clone(&cut), Arc::clone(&over)];
                    let cuts = Arc::clone(&cuts);
                    connections.push(std::thread::spawn(move || carry(&from, &on, fate, &ends, &cuts)));
                }
                connections.into_iter().for_each(|connection| connection.join().expect("carrying does not panic"));
            }
        });
        Self { port, cut, over, cuts, thread: Some(thread) }
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends every connection, and each new one at once, for good.
    pub fn cut_for_good(&self) {
        self.cut.store(true, Relaxed);
    }

    /// Connections cut by their fate so far.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How one connection is treated.
#[derive(Clone, Copy)]
struct Fate {
    seed: u64,
    delay: Duration,
    bytes: u64,
    until: Option<Instant>,
}

impl Fate {
    fn draw(faults: Faults, number: u64) -> Self {
        let Faults { delay, bytes, life, .. } = faults;
        let seed = fnv1a(faults.seed, &number.to_le_bytes());
        // Half of it at least, so that something passes.
        let bytes = if bytes == 0 { u64::MAX } else { bytes / 2 + drawn(seed, "bytes") % (bytes / 2) };
        let life = (life > Duration::ZERO).then(|| life / 2 + fraction(life / 2, drawn(seed, "life")));
        Self { seed, delay, bytes, until: life.map(|life| Instant::now() + life) }
    }
}

/// Carries both ways until an end, an error or the connection's fate. One thread for both: an exchange is one way at a
/// time.
fn carry(from: &TcpStream, to: &TcpStream, fate: Fate, ends: &[Arc<AtomicBool>; 2], cuts: &AtomicU64) {
    let (mut passed, mut piece) = (0, 0_u64);
    for stream in [from, to] {
        let _ = stream.set_nodelay(true);
        let _ = stream.set_read_timeout(Some(Duration::from_millis(2)));
    }
    let mut bytes = [0; 2_048];
    'open: loop {
        if ends.iter().any(|end| end.load(Relaxed)) {
            break;
        }
        for (mut a, mut b) in [(from, to), (to, from)] {
            let count = match a.read(&mut bytes) {
                Ok(0) => break 'open,
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break 'open,
            };
            piece += 1;
            std::thread::sleep(fraction(fate.delay, drawn(fate.seed, &format!("piece {piece}"))));
            passed += count as u64;
            if passed > fate.bytes || fate.until.is_some_and(|until| Instant::now() > until) {
                // Part of it still arrives.
                let _ = b.write_all(&bytes[..count / 2]);
                cuts.fetch_add(1, Relaxed);
                break 'open;
            }
            if b.write_all(&bytes[..count]).is_err() {
                break 'open;
            }
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn drawn(seed: u64, what: &str) -> u64 {
    fnv1a(seed ^ 0xcbf2_9ce4_8422_2325, what.as_bytes()) >> 16
}

fn fraction(of: Duration, drawn: u64) -> Duration {
    of * u32::try_from(drawn % 1_000).expect("below 1000") / 1_000
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.set_nonblocking(true).expect("it can be asked without waiting");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    (listener, port)
}

/// The next connection; `None` once it is over.
fn accept(listener: &TcpListener, over: &AtomicBool) -> Option<TcpStream> {
    loop {
        if over.load(Relaxed) {
            return None;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).ok()?;
                stream.set_read_timeout(Some(ANSWERS_WITHIN)).ok()?;
                return Some(stream);
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Two neighbouring roles of ports: one that is free, and whose place 1000 above is free as well.
pub fn free_pair() -> u16 {
    for _ in 0..1_000 {
        let (below, port) = listen();
        let Some(above) = port.checked_add(1_000) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, above)).is_ok() {
            drop(below);
            return port;
        }
    }
    panic!("no two free ports lie a thousand apart");
}

/// Writes a self-signed certificate for loopback and its key: `NAME.pem`, `NAME.key`.
pub fn certificate(place: &Place, name: &str) {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
    place.write(&format!("{name}.pem"), made.cert.pem());
    place.write(&format!("{name}.key"), made.key_pair.serialize_pem());
}

/// Whether nothing listens on a port of loopback.
pub fn nobody_listens(port: u16) -> bool {
    TcpStream::connect_timeout(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)), Duration::from_secs(1)).is_err()
}
