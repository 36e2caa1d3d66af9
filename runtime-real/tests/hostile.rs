//! Whatever is sent to a worker, on whichever endpoint: an HTTP status or a closed connection, in time and in little
//! memory, and the worker goes on as if nothing had been.

use std::{
    future::{Future, Ready, ready},
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use omb_bench::{
    config::{
        driver::{DriverConfig, DriverKind},
        terms::Terms,
        workload::{CatchUp, KeyDistributor, Verify},
    },
    id::{ProducerId, RunId},
    load::payload::PayloadRecipe,
    plan::{needs::Limits, rate::Rate},
    protocol::{
        self, Command, Event, Hello, Ping, Request,
        command::{Begin, Preparation, ProducerSpec, Reach, TopicSpec},
    },
};
use omb_machine::{encoding, seed::Seed};
use omb_runtime_real::{
    clock::Clock,
    portable::{
        fleet::{
            self,
            serving::{self, Identity, Status},
            wire::Answered,
        },
        local::{Answer, Observer, Performer},
    },
};
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    sync::mpsc,
    time::timeout,
};

/// Longest anything may take here: nothing is far away.
const IN_TIME: Duration = Duration::from_secs(20);

/// Most bytes of a body, here; large enough for every command below.
const BODY_MAX: usize = 64 << 10;

/// Hands connections in memory to a worker.
struct Door(mpsc::UnboundedReceiver<DuplexStream>);

impl fleet::Listener for Door {
    type Stream = DuplexStream;
    type Opening = Ready<io::Result<DuplexStream>>;

    async fn accept(&mut self) -> io::Result<(Self::Opening, SocketAddr)> {
        match self.0.recv().await {
            Some(stream) => Ok((ready(Ok(stream)), (Ipv4Addr::LOCALHOST, 1).into())),
            None => std::future::pending().await,
        }
    }
}

struct Pages;

impl serving::Pages for Pages {
    fn get(&self, path: &str, _: &Status) -> Option<Answered> {
        (path == "/healthz").then(|| Answered::text(hyper::StatusCode::OK, "ok"))
    }
}

/// Does nothing, at once.
struct Idle;

impl Performer for Idle {
    fn perform(&mut self, command: Command, answer: Answer) {
        answer.give(Ok(match command {
            Command::Prepare(_) => Event::Prepared { system: "nothing".to_owned() },
            Command::Read { .. } => Event::Read(Box::default()),
            Command::Verify => Event::Verified(Box::default()),
            _ => Event::Done,
        }));
    }
}

struct Nobody;

impl Observer for Nobody {}

/// Lets `visit` come to a worker through its door.
fn with_worker<T>(visit: impl AsyncFnOnce(Caller) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (caller, door) = mpsc::unbounded_channel();
        let (_stop, mut stops) = mpsc::unbounded_channel();
        let identity = Identity {
            omb: "1.2.3".to_owned(),
            instance: "one".to_owned(),
            token: None,
            body_max: BODY_MAX,
            terms: Terms::foreign(),
            limits: Limits::default(),
        };
        let (mut idle, mut nobody) = (Idle, Nobody);
        let worker = serving::serve(Door(door), None, identity, Pages, &mut idle, &mut nobody, &mut stops, &Clock);
        tokio::select! {
            () = worker => panic!("the worker ended"),
            seen = visit(Caller { door: caller, runs: AtomicU64::new(1 << 40) }) => seen,
        }
    })
}

/// Is admitted; draws runs that no other connection names.
struct Caller {
    door: mpsc::UnboundedSender<DuplexStream>,
    runs: AtomicU64,
}

impl Caller {
    /// Sends bytes and shuts down its writing side; everything that comes back until the connection is closed.
    async fn send(&self, bytes: &[u8]) -> Vec<u8> {
        self.exchange(bytes, true).await
    }

    /// Likewise; unless it `ends`, more could follow as far as the worker knows.
    async fn exchange(&self, bytes: &[u8], ends: bool) -> Vec<u8> {
        let (mine, theirs) = tokio::io::duplex(16 << 10);
        self.door.send(theirs).expect("the worker listens");
        let (mut read, mut write) = tokio::io::split(mine);
        let mut answer = Vec::new();
        let talk = async {
            let speak = async {
                // It may be refused half-way.
                let _ = write.write_all(bytes).await;
                if ends {
                    let _ = write.shutdown().await;
                }
            };
            let listen = async {
                let _ = read.read_to_end(&mut answer).await;
            };
            tokio::join!(speak, listen)
        };
        in_time(talk).await;
        answer
    }

    /// What is answered to a request that asks for the connection to be closed after it.
    async fn ask(&self, request: &[u8]) -> Vec<u8> {
        self.exchange(request, false).await
    }

    /// Asserts that the worker is as it was.
    async fn finds_it_sound(&self) {
        let health = self.ask(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!(status(&health), Some(200));
        let answer = self.ask(b"GET /v1/hello HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        let text = String::from_utf8(answer).expect("the answer is text");
        let (_, body) = text.split_once("\r\n\r\n").expect("the answer has a body");
        let hello: Hello = serde_json::from_str(body).expect("the answer is a hello");
        assert_eq!((hello.protocol, hello.instance.as_str()), (protocol::VERSION, "one"));
        // It follows the next controller, and answers it.
        let run = RunId(self.runs.fetch_add(1, Relaxed));
        let take_over = Command::Prepare(Box::new(Preparation { take_over: true, ..preparation() }));
        for (number, command) in [(1, take_over), (2, Command::Close)] {
            let request = Request { version: protocol::VERSION, run, number, sent: None, command };
            let answer = self.ask(&post("/v1/command", &encoding::encode(&request))).await;
            assert_eq!(status(&answer), Some(200), "{}", String::from_utf8_lossy(&answer));
        }
    }
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(IN_TIME, what).await.expect("an answer or an end comes in time")
}

/// The status of an answer; `None` if the connection was closed without a word.
fn status(answer: &[u8]) -> Option<u16> {
    if answer.is_empty() {
        return None;
    }
    let head = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
    let status = head.strip_prefix("HTTP/1.1 ").or(head.strip_prefix("HTTP/1.0 "));
    let status = status.and_then(|status| status.parse().ok());
    Some(status.unwrap_or_else(|| panic!("neither HTTP nor nothing: {head:?}")))
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn preparation() -> Preparation {
    Preparation {
        driver: DriverConfig { name: "d".to_owned(), kind: DriverKind::Embedded },
        seed: Seed(1),
        payload: PayloadRecipe::Random { size: 100, ratio: 0.5, count: 10 },
        keys: KeyDistributor::NoKey,
        catch_up: CatchUp::All,
        verify: Verify::Header,
        producers_per_topic: 1,
        lease: Duration::from_secs(30),
        setup_within: Duration::from_secs(60),
        controller: "omb (process 1 on a)".to_owned(),
        take_over: false,
    }
}

fn commands() -> Vec<Command> {
    let rate = Rate::per_second(1_000).expect("a rate");
    vec![
        Command::Prepare(Box::new(preparation())),
        Command::CreateTopics(vec![TopicSpec { name: "t".to_owned(), partitions: 1 }]),
        Command::CreateProducers(vec![ProducerSpec {
            id: ProducerId(0),
            topic: "t".to_owned(),
            partitions: 1,
            whole: true,
            client: 0,
        }]),
        Command::Probe { round: 1 },
        Command::StartLoad {
            tempo: rate.into(),
            producers: 1,
            begin: Begin::After(Duration::ZERO),
            window: None,
            correction: -5,
        },
        Command::SetRate { rate },
        Command::Read { correction: 5, reach: Reach::Everything },
        Command::StopLoad { within: Duration::from_secs(1) },
        Command::Verify,
        Command::DeleteTopics { within: Duration::from_secs(5), topics: vec!["t".to_owned()], groups: Vec::new() },
        Command::Close,
    ]
}

const PATHS: &[&str] = &[
    "/v1/command",
    "/v1/clock",
    "/v1/hello",
    "/",
    "/metrics",
    "/counters-stats",
    "/healthz",
    "/readyz",
    "/nothing",
    "*",
    "//",
    "/v1/command?x=/v1/hello",
    "http://a/v1/clock",
    "/%00%ff",
    "/../../etc/passwd",
];

const METHODS: &[&str] =
    &["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PRI", "get", "\u{1}"];

/// What a connection sends.
#[derive(Clone, Debug)]
enum Sent {
    Bytes(Vec<u8>),
    /// Method, path, a body, and its declared length.
    Http(&'static str, &'static str, Vec<u8>, Option<String>),
    /// A command of a run, whole but for some bits and its end.
    Command(u64, u64, usize, Vec<(usize, u8)>, usize),
    /// A sound request that breaks off.
    Torn(usize, usize),
    /// One after another on one connection.
    Several(Vec<u8>, usize),
}

fn sent() -> impl Strategy<Value = Sent> {
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    let lengths = prop_oneof![
        4 => Just(None),
        1 => (0..100_000_u64).prop_map(|length| Some(length.to_string())),
        1 => prop::sample::select(&["-1", "1e9", "18446744073709551616", "0x10", "", "5, 5", "1073741824"][..])
            .prop_map(|length| Some(length.to_owned())),
    ];
    let flips = prop::collection::vec((any::<usize>(), 1..=u8::MAX), 0..4);
    prop_oneof![
        2 => bytes(400).prop_map(Sent::Bytes),
        4 => (prop::sample::select(METHODS), prop::sample::select(PATHS), bytes(300), lengths)
            .prop_map(|(method, path, body, length)| Sent::Http(method, path, body, length)),
        6 => (0..3_u64, 0..6_u64, 0..commands().len(), flips, prop_oneof![2 => Just(0), 1 => 0..40_usize])
            .prop_map(|(run, number, which, flips, lacks)| Sent::Command(run, number, which, flips, lacks)),
        2 => (0..commands().len(), any::<usize>()).prop_map(|(which, keep)| Sent::Torn(which, keep)),
        1 => (bytes(100), 1..5_usize).prop_map(|(bytes, times)| Sent::Several(bytes, times)),
    ]
}

fn command(run: u64, number: u64, which: usize) -> Vec<u8> {
    let command = commands().swap_remove(which);
    encoding::encode(&Request { version: protocol::VERSION, run: RunId(run), number, sent: None, command })
}

fn bytes_of(sent: Sent) -> Vec<u8> {
    match sent {
        Sent::Bytes(bytes) => bytes,
        Sent::Http(method, path, body, length) => {
            let length = length.unwrap_or_else(|| body.len().to_string());
            let head =
                format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            [head.as_bytes(), &body].concat()
        }
        Sent::Command(run, number, which, flips, lacks) => {
            let mut body = command(run, number, which);
            body.truncate(body.len().saturating_sub(lacks));
            let length = body.len().max(1);
            flips.into_iter().for_each(|(place, bits)| {
                if let Some(byte) = body.get_mut(place % length) {
                    *byte ^= bits;
                }
            });
            post("/v1/command", &body)
        }
        Sent::Torn(which, keep) => {
            let mut whole = post("/v1/command", &command(1, 1, which));
            whole.truncate(keep % whole.len());
            whole
        }
        Sent::Several(bytes, times) => {
            let ping = encoding::encode(&Ping { run: RunId(1), sent: None });
            let asked = String::from_utf8_lossy(&post("/v1/clock", &ping)).replace("connection: close\r\n", "");
            [&asked.as_bytes().repeat(times)[..], &bytes].concat()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_is_sent_harms_a_worker(sent in prop::collection::vec(sent(), 1..40)) {
        with_worker(async |caller| {
            for sent in sent {
                // Whatever it answers, it is HTTP or nothing.
                let _ = status(&caller.send(&bytes_of(sent)).await);
            }
            caller.finds_it_sound().await;
        });
    }

    /// All at once, and some that never shut down.
    #[test]
    fn nor_does_a_crowd(sent in prop::collection::vec((sent(), any::<bool>()), 1..60)) {
        with_worker(async |caller| {
            let mut open = Vec::new();
            for (sent, goes_on) in sent {
                let (mut mine, theirs) = tokio::io::duplex(128 << 10);
                caller.door.send(theirs).expect("the worker listens");
                mine.write_all(&bytes_of(sent)).await.expect("there is room for it");
                if goes_on {
                    open.push(mine);
                }
            }
            caller.finds_it_sound().await;
            drop(open);
            caller.finds_it_sound().await;
        });
    }
}

/// A body declared too long is refused before a byte of it has come, and an undeclared one is refused where it passes
/// the limit; a body that was not requested is not waited for at all.
#[test]
fn a_body_over_the_limit_is_refused_before_there_is_room_for_it() {
    with_worker(async |caller| {
        let before = memory_most();
        for path in PATHS.iter().filter(|path| path.starts_with('/')) {
            // A path of pages accepts no body, and no POST.
            let refusal = if path.starts_with("/v1/c") { 413 } else { 405 };
            for length in [BODY_MAX as u64 + 1, 1 << 30, u64::MAX] {
                let head =
                    format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
                // It does not wait for the body, though it may still come.
                let (mut mine, theirs) = tokio::io::duplex(16 << 10);
                caller.door.send(theirs).expect("the worker listens");
                mine.write_all(head.as_bytes()).await.expect("there is room for it");
                let mut answer = [0; 12];
                in_time(mine.read_exact(&mut answer)).await.expect("an answer");
                // The highest number is no length to HTTP.
                let wanted: &[u16] = if length == u64::MAX { &[400, 413, 431, refusal] } else { &[refusal] };
                let told = status(&answer).expect("a status");
                assert!(wanted.contains(&told), "{path}, {length}: {told}");
            }
            let head =
                format!("POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
            let chunk = [b"4000\r\n".as_slice(), &[0; 0x4000], b"\r\n"].concat();
            let endless = [head.as_bytes(), &chunk.repeat(1_000)].concat();
            assert_eq!(status(&caller.ask(&endless).await), Some(refusal), "{path}");
        }
        let grown = memory_most() - before;
        assert!(grown < 256 << 20, "{grown} bytes");
        caller.finds_it_sound().await;
    });
}

/// However many connections strangers open, with whatever they announce: the next one is served, and the controller of
/// the current run keeps its connection.
#[test]
fn strangers_crowd_out_no_other() {
    with_worker(async |caller| {
        let run = RunId(7);
        let say = |number: u64, command: Command| {
            let request = Request { version: protocol::VERSION, run, number, sent: None, command };
            String::from_utf8_lossy(&post("/v1/command", b""))
                .replace("connection: close\r\n", "")
                .replace("content-length: 0", &format!("content-length: {}", encoding::encode(&request).len()))
                .into_bytes()
                .into_iter()
                .chain(encoding::encode(&request))
                .collect::<Vec<u8>>()
        };
        let (mut controller, theirs) = tokio::io::duplex(64 << 10);
        caller.door.send(theirs).expect("the worker listens");
        let mut answers = async |bytes: Vec<u8>| {
            controller.write_all(&bytes).await.expect("its connection is open");
            let mut answer = [0; 4_096];
            let count = in_time(controller.read(&mut answer)).await.expect("an answer");
            assert_eq!(status(&answer[..count]), Some(200));
        };
        let take_over = Command::Prepare(Box::new(Preparation { take_over: true, ..preparation() }));
        answers(say(1, take_over)).await;
        let mut crowd = Vec::new();
        let head = format!("POST /v1/command HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY_MAX}\r\n\r\n12345678");
        for nth in 0..512 {
            let (mut mine, theirs) = tokio::io::duplex(1 << 10);
            caller.door.send(theirs).expect("the worker listens");
            if nth % 2 == 0 {
                mine.write_all(head.as_bytes()).await.expect("there is room for it");
            }
            crowd.push(mine);
        }
        let health = caller.ask(b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
        assert_eq!(status(&health), Some(200));
        answers(say(2, Command::Read { correction: 0, reach: Reach::Everything })).await;
        let mut left = 0;
        for mine in &mut crowd {
            let mut said = Vec::new();
            left += usize::from(timeout(Duration::from_millis(1), mine.read_to_end(&mut said)).await.is_err());
        }
        assert!(left <= 32, "{left} connections of one source are kept");
        answers(say(3, Command::Close)).await;
        drop(crowd);
        caller.finds_it_sound().await;
    });
}

/// A connection that sends nothing, or too slowly, is closed soon; and what HTTP does not allow is refused.
#[test]
fn slow_and_sloppy_requests_are_refused() {
    with_worker(async |caller| {
        let refused = |request: &'static str, wanted: u16| {
            let caller = &caller;
            async move { assert_eq!(status(&caller.ask(request.as_bytes()).await), Some(wanted), "{request:?}") }
        };
        refused("GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n", 400).await;
        refused("GET /healthz HTTP/1.0\r\n\r\n", 200).await;
        refused("GET /healthz HTTP/1.1\nhost: a\nconnection: close\n\n", 400).await;
        refused("GET /healthz HTTP/1.1\r\nhost: a\nconnection: close\r\n\r\n", 400).await;
        refused("\r\nGET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", 200).await;
        refused("DELETE / HTTP/1.1\r\nhost: a\r\n\r\n", 405).await;
        refused("POST /v1/command HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\n1234", 408).await;
        assert_eq!(caller.exchange(b"GET /healthz", false).await, b"", "a head that never ends");
        // Line feeds in a body are its own business.
        let ping = encoding::encode(&Ping { run: RunId(0x0a0a), sent: None });
        assert!(ping.contains(&b'\n'));
        assert_eq!(status(&caller.ask(&post("/v1/clock", &ping)).await), Some(200));
        caller.finds_it_sound().await;
    });
}

/// A few bytes that speak of long lists.
#[test]
fn a_command_that_claims_much_is_given_nothing() {
    with_worker(async |caller| {
        let before = memory_most();
        for which in 0..commands().len() {
            let sound = command(1, 1, which);
            for place in 0..sound.len() {
                // A length of 2^62, in place of the declared one.
                let claim = [&sound[..place], &[253], &(1_u64 << 62).to_le_bytes(), &sound[place..]].concat();
                let answer = status(&caller.ask(&post("/v1/command", &claim)).await);
                assert!(matches!(answer, Some(200 | 400 | 409)), "{which}, {place}: {answer:?}");
            }
        }
        let grown = memory_most() - before;
        assert!(grown < 256 << 20, "{grown} bytes");
        caller.finds_it_sound().await;
    });
}

/// Most memory this process ever held, in bytes.
fn memory_most() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak is told");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}
