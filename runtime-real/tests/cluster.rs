//! Nodes of a cluster over real sockets, against any kind of other end. Their disks are in memory.

use std::{
    collections::BTreeMap,
    io::{self, Cursor},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use omb_cluster::{
    client::{GaveUp, Patience},
    config::{ClusterConfig, PeerAddresses, Peers, Tls, parse_peers},
    handshake::{
        GREETING_BYTES, Greeting, Key, Keys, Nonce, Objection, Opening, PROOF_BYTES, Part, Refusal, TERMS_BYTES,
        VERDICT_BYTES,
    },
    node::{
        Node, Output,
        message::{Put, Reply, Request, VERSION},
    },
    peer::{Digest, Label, Leadership, NodeId, RequestId, User},
    store::{Kind, Name, Step, Stored},
};
use omb_machine::{seed::Seed, time::WallTime};
use omb_runtime_real::{
    clock::Clock,
    key, net,
    portable::{
        cluster::{
            self, Disk, Limits, Nodes, Observer, Secret, address,
            asking::{Cargo, ask},
            disk::Listed,
            greeting::{self, Unmet},
            node::Identity,
            wire,
        },
        fleet::{self, Address},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// A folder that forgets.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Arc<Vec<u8>>>>>);

impl Memory {
    fn files(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writing(Memory, String, Vec<u8>);

impl AsyncWrite for Writing {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.2.extend(bytes);
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (name, bytes) = (self.1.clone(), std::mem::take(&mut self.2));
        self.0.files().insert(name, Arc::new(bytes));
        Poll::Ready(Ok(()))
    }
}

struct Reading(Cursor<Arc<Vec<u8>>>);

impl tokio::io::AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let at = usize::try_from(self.0.position()).expect("it fits into memory");
        let rest = &self.0.get_ref()[at..];
        let count = rest.len().min(into.remaining());
        into.put_slice(&rest[..count]);
        self.0.set_position((at + count) as u64);
        Poll::Ready(Ok(()))
    }
}

impl Disk for Memory {
    type Writing = Writing;
    type Reading = Reading;

    async fn restore(&self) -> io::Result<Leadership> {
        Ok(Leadership::default())
    }
    async fn persist(&self, _: Leadership) -> io::Result<()> {
        Ok(())
    }
    async fn list(&self) -> io::Result<Listed> {
        Ok(Listed::default())
    }
    async fn create(&self, id: RequestId) -> io::Result<Writing> {
        Ok(Writing(self.clone(), id.to_string(), Vec::new()))
    }
    async fn perform(&self, steps: Vec<Step>) -> Result<(), (Step, io::Error)> {
        for step in steps {
            if let Step::Rename(name) = step {
                let bytes = self.files().remove(&name.id.to_string()).expect("it was written");
                self.files().insert(name.to_string(), bytes);
            }
        }
        Ok(())
    }
    async fn check(&self, names: Vec<Name>) -> io::Result<Vec<(Name, Option<u64>)>> {
        let files = self.files();
        let size = |name: &Name| files.get(&name.to_string()).map(|bytes| bytes.len() as u64);
        Ok(names.into_iter().map(|name| (name, size(&name))).collect())
    }
    async fn open(&self, name: Name) -> io::Result<Reading> {
        self.files()
            .get(&name.to_string())
            .map(|bytes| Reading(Cursor::new(bytes.clone())))
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// What a node has logged, and its view of the leader.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<(Vec<String>, Option<Leadership>)>>);

impl Log {
    fn lock(&self) -> MutexGuard<'_, (Vec<String>, Option<Leadership>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn lines(&self) -> Vec<String> {
        self.lock().0.clone()
    }
    async fn wait_for(&self, what: &str) {
        let said = async {
            while !self.lines().iter().any(|line| line.contains(what)) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(10), said)
            .await
            .unwrap_or_else(|_| panic!("`{what}` is to be in {:?}", self.lines()));
    }
    fn leader(&self) -> Option<Leadership> {
        self.lock().1
    }
}

impl Observer for Log {
    fn wants(&mut self, output: &Output) {
        match output {
            Output::Info(line) | Output::Warn(line) => self.lock().0.push(line.clone()),
            Output::LeaderChanged(leader) => self.lock().1 = *leader,
            _ => {}
        }
    }
    fn look(&mut self, _: &Node, _: omb_machine::time::Instant) {}
}

/// Counts connections.
#[derive(Clone)]
struct Counting(net::Transport, Arc<AtomicUsize>);

impl fleet::Transport for Counting {
    type Stream = net::Stream;
    async fn connect(&self, to: &Address) -> io::Result<net::Stream> {
        self.1.fetch_add(1, Relaxed);
        self.0.connect(to).await
    }
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.0.resolve(host).await
    }
}

/// What is uploaded, and what was fetched.
#[derive(Clone, Default)]
struct Bytes(Arc<Vec<u8>>);

impl Cargo for Bytes {
    type Source = Reading;
    type Sink = Cursor<Vec<u8>>;
    async fn source(&self) -> io::Result<Reading> {
        Ok(Reading(Cursor::new(self.0.clone())))
    }
    async fn sink(&self, _: &Stored) -> io::Result<Self::Sink> {
        Ok(Cursor::default())
    }
}

fn secret(bytes: &[u8]) -> Secret {
    let next = AtomicU64::new(0);
    let nonces = move || {
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&next.fetch_add(1, Relaxed).to_le_bytes());
        Nonce(nonce)
    };
    let keys = Keys { clients: Some(Key::new(bytes).expect("long enough")), peers: None };
    Secret { keys, nonces: Arc::new(nonces) }
}

const OURS: &[u8] = b"the key of this cluster";

struct Cluster {
    config: ClusterConfig,
    logs: Vec<Log>,
    connections: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<io::Result<()>>>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> =
        (0..count).map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("it is bound").port()).collect()
}

fn peers(ports: &[u16]) -> Peers {
    let list: Vec<String> = ports.iter().zip(1..).map(|(port, id)| format!("{id}=127.0.0.1:{port}")).collect();
    parse_peers(&list.join(",")).expect("sound")
}

/// Starts nodes 1, 2, .., each with its key, and waits until those that have the first one's agree.
async fn cluster(keys: &[Option<&[u8]>], limits: Limits, tls: Option<Tls>) -> Cluster {
    let config = ClusterConfig { tls, ..ClusterConfig::new(peers(&free_ports(keys.len()))) };
    let mut cluster =
        Cluster { config: config.clone(), logs: Vec::new(), connections: Arc::default(), tasks: Vec::new() };
    for (me, own) in config.peers.ids().zip(keys) {
        let (log, config, secret) = (Log::default(), config.clone(), own.map(secret));
        cluster.logs.push(log.clone());
        let at: SocketAddr = config.peers.address(me).expect("a peer").parse().expect("an address");
        let tls = config.tls.as_ref().map(|tls| tls.of_node().expect("a certificate"));
        let listener = net::Listener::bind_for_peers(at, tls).await;
        let listener = listener.unwrap_or_else(|error| panic!("{error:?}"));
        let transport = net::Transport::of_node("127.0.0.1", tls).expect("a certificate");
        let transport = Counting(transport, cluster.connections.clone());
        cluster.tasks.push(tokio::spawn(async move {
            let mut log = log;
            let identity = Identity { me, config, limits, seed: Seed(me.0.into()), secret };
            cluster::serve(listener, transport, Memory::default(), identity, &mut log, &Clock).await
        }));
    }
    let alike: Vec<usize> = (0..keys.len()).filter(|nth| keys[*nth] == keys[0]).collect();
    let highest = u32::try_from(alike.last().expect("the first one") + 1).expect("few");
    let agreed = async {
        let leads = |nth: &usize| cluster.logs[*nth].leader().and_then(|it| it.leader) == Some(NodeId(highest));
        while !alike.iter().all(leads) {
            sleep(Duration::from_millis(20)).await;
        }
        // And has counted its books.
        sleep(Duration::from_millis(500)).await;
    };
    timeout(Duration::from_secs(10), agreed).await.expect("they agree");
    cluster
}

impl Cluster {
    fn nodes(&self, secret: Option<Secret>, limits: Limits, only: &[u32]) -> (Nodes<Counting>, Arc<AtomicUsize>) {
        let ca = self.config.tls.as_ref().map(|tls| tls.ca.as_path());
        let transport = Counting(net::Transport::new(ca).expect("a certificate"), Arc::default());
        let connections = transport.1.clone();
        let of = |(id, text): (NodeId, &str)| (id, address(text, self.config.tls.is_some()).expect("sound"));
        let addresses = self.config.peers.iter().map(of).filter(|(id, _)| only.contains(&id.0)).collect();
        (Nodes::new(transport, addresses, limits, secret), connections)
    }

    fn socket(&self, id: u32) -> SocketAddr {
        self.config.peers.address(NodeId(id)).expect("a peer").parse().expect("an address")
    }
}

fn put(id: u128, bytes: u64) -> Request {
    let user = User::try_from("ann".to_owned()).expect("a name");
    let label = Label::of("photo.png", user, WallTime(1));
    Request::Put(Put { id: RequestId(id), label, bytes, again: false, excluded: [].into() })
}

async fn asked(nodes: &Nodes<Counting>, request: Request, body: Vec<u8>) -> Result<Reply, GaveUp> {
    let patience = Patience { deadline: Duration::from_secs(8), ..Patience::default() };
    ask(nodes, request, Bytes(Arc::new(body)), (patience, Seed(7)), |_| {}, &Clock).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_of_all_sizes_go_everywhere_over_few_connections() {
    let cluster = cluster(&[Some(OURS); 3], Limits::default(), None).await;
    let (nodes, connections) = cluster.nodes(Some(secret(OURS)), Limits::default(), &[1]);
    let before = cluster.connections.load(Relaxed);
    nodes.reach(NodeId(1)).await.expect("it is there");
    let mut holders = std::collections::BTreeSet::new();
    // Twice each of: small, the largest that goes unasked, the smallest that does not, large.
    for (id, bytes) in
        (0_u128..).zip([1, 1, 1, 65_536, 65_536, 65_536, 65_537, 65_537, 65_537, 3 << 20, 3 << 20, 3 << 20])
    {
        let body: Vec<u8> = (0..bytes).map(|nth| u8::try_from((nth * 7 + id as usize) % 251).expect("small")).collect();
        let reply = asked(&nodes, put(id, bytes as u64), body.clone()).await.expect("it is stored");
        let Reply::Stored { node, stored } = reply else { panic!("{reply:?}") };
        holders.insert(node.0);
        assert_eq!((stored.name.digest, stored.bytes), (Digest::of(&body), bytes as u64));
        let reply = asked(&nodes, Request::Get { name: stored.name }, Vec::new()).await.expect("it is there");
        assert_eq!(reply, Reply::Body(stored));
    }
    assert_eq!(holders.len(), 3, "{holders:?}");
    assert_eq!(connections.load(Relaxed), 1, "24 requests over one connection");
    assert!(cluster.connections.load(Relaxed) - before <= 2, "and one from the entry to each of the others");
    let name = Name { id: RequestId(99), digest: Digest::of(b""), kind: Kind::Bin };
    assert_eq!(asked(&nodes, Request::Get { name }, Vec::new()).await, Ok(Reply::NotFound));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_key_nothing_is_served_and_the_reason_is_reported() {
    let cluster =
        cluster(&[Some(OURS), Some(OURS), Some(b"another key altogether"), None], Limits::default(), None).await;
    let told = async |secret: Option<Secret>, only: &[u32]| {
        let (nodes, _) = cluster.nodes(secret, Limits::default(), only);
        asked(&nodes, Request::List { after: None }, Vec::new()).await.expect_err("nothing").to_string()
    };
    assert_eq!(told(None, &[1]).await, "node 1: it asks for the shared key: give key_file in config.json");
    assert!(told(Some(secret(&[5; 16])), &[1]).await.starts_with("node 1: it does not know the shared key"));
    assert!(told(Some(secret(OURS)), &[4]).await.starts_with("node 4: it lacks the shared key, which this side has"));
    let (nodes, _) = cluster.nodes(Some(secret(OURS)), Limits::default(), &[1, 2, 3, 4]);
    assert!(
        matches!(asked(&nodes, put(1, 3), b"abc".to_vec()).await, Ok(Reply::Stored { .. })),
        "who has it is served"
    );
    let said = |nth: usize, what: &str| cluster.logs[nth].lines().iter().filter(|line| line.contains(what)).count();
    // The rejected side knows it before it is in the log.
    cluster.logs[0].wait_for("refuses 127.0.0.1").await;
    assert_eq!(said(0, "refuses node 3: it does not know the key of peers"), 1, "{:?}", cluster.logs[0].lines());
    assert_eq!(said(0, "refuses node 4: it lacks the key of peers"), 1);
    assert_eq!(said(3, "refuses node 1: it asks for the key of peers"), 1);
    // All of them come from 127.0.0.1: one line for all.
    assert_eq!(said(0, "refuses 127.0.0.1"), 1, "{:?}", cluster.logs[0].lines());
    assert_eq!(cluster.logs[0].leader(), cluster.logs[1].leader());
}

/// A connection that was used before and was closed meanwhile is replaced, without anyone noticing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_connection_is_replaced() {
    let limits = Limits { idle: Duration::from_millis(300), ..Limits::default() };
    let cluster = cluster(&[None], limits, None).await;
    let (nodes, connections) = cluster.nodes(None, Limits::default(), &[1]);
    for round in 1..=3 {
        let patience = Patience::default();
        let told = |line: String| panic!("{line}");
        let reply = ask(&nodes, Request::Discover, Bytes::default(), (patience, Seed(1)), told, &Clock).await;
        assert!(matches!(reply, Ok(Reply::Discovered { .. })), "{reply:?}");
        assert_eq!(connections.load(Relaxed), round);
        sleep(Duration::from_millis(600)).await;
    }
}

/// Random bytes, silence, and words that break off: closed within the bound, and the cluster goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn noise_is_closed_upon() {
    let limits = Limits { connect: Duration::from_millis(700), ..Limits::default() };
    let cluster = cluster(&[Some(OURS); 2], limits, None).await;
    let leader = cluster.logs[0].leader();
    let greeting = Greeting { version: VERSION, node: Some(NodeId(2)) };
    let opening = Opening { greeting, part: Part::Peer, nonce: Some(Nonce([3; 32])) };
    let other = Opening { greeting: Greeting { version: 9, ..greeting }, part: Part::Peer, nonce: None };
    let mut noise = vec![0; 100_000];
    (0_usize..).zip(&mut noise).for_each(|(nth, byte)| *byte = u8::try_from(nth * nth % 251).expect("small"));
    let words = [
        Vec::new(),
        noise,
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        opening.encode(),
        opening.encode()[..20].to_vec(),
        [opening.encode(), vec![1; 33], vec![255; 64]].concat(),
        other.encode(),
    ];
    for words in words {
        let began = Instant::now();
        let mut stream = TcpStream::connect(cluster.socket(1)).await.expect("somebody listens");
        let _ = stream.write_all(&words).await;
        let mut said = Vec::new();
        let closed = timeout(Duration::from_secs(3), stream.read_to_end(&mut said)).await;
        assert!(closed.is_ok(), "{} bytes are listened to for {:?}", words.len(), began.elapsed());
        let most = GREETING_BYTES + TERMS_BYTES + PROOF_BYTES + VERDICT_BYTES;
        assert!(said.len() <= most, "it says {} bytes to who has proven nothing", said.len());
    }
    assert_eq!(cluster.logs[0].leader(), leader);
    let (nodes, _) = cluster.nodes(Some(secret(OURS)), Limits::default(), &[1]);
    assert!(matches!(asked(&nodes, put(1, 3), b"abc".to_vec()).await, Ok(Reply::Stored { .. })));
}

/// One host that takes all connections it can get, and says nothing, blocks neither peers nor other clients for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_connections_does_not_end_a_leadership() {
    let limits = Limits {
        connect: Duration::from_millis(500),
        strangers: 16,
        connections: 8,
        connections_per_source: 4,
        connections_reserve: 2,
        ..Limits::default()
    };
    let cluster = cluster(&[Some(OURS); 3], limits, None).await;
    let leader = cluster.logs[0].leader();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(TcpStream::connect(cluster.socket(3)).await.expect("somebody listens"));
    }
    let clients: Vec<_> = (0..8).map(|_| cluster.nodes(Some(secret(OURS)), limits, &[3]).0).collect();
    sleep(Duration::from_millis(1_500)).await;
    let mut served = 0;
    for nodes in &clients {
        let patience = Patience { deadline: Duration::from_millis(400), ..Patience::default() };
        match ask(nodes, Request::Discover, Bytes::default(), (patience, Seed(7)), |_| {}, &Clock).await {
            Ok(_) => served += 1,
            Err(gave_up) => assert!(gave_up.last.contains("node 3 is busy"), "{gave_up}"),
        }
    }
    assert_eq!(served, 4, "as many as one source may have");
    assert_eq!(cluster.logs.iter().map(Log::leader).collect::<Vec<_>>(), [leader; 3]);
}

/// A connection for a client's requests, where no key is needed.
async fn greeted(to: SocketAddr) -> wire::Line<TcpStream> {
    let greeting = Opening { greeting: Greeting { version: VERSION, node: None }, part: Part::Client, nonce: None };
    let mut line = wire::line(TcpStream::connect(to).await.expect("somebody listens"));
    line.write_all(&greeting.encode()).await.expect("it listens");
    line.flush().await.expect("it listens");
    line.read_exact(&mut [0; GREETING_BYTES + TERMS_BYTES]).await.expect("it greets");
    line
}

/// A client that announces uploads and sends nothing of them, or requests one and does not read it, blocks none for
/// longer than the patience, from the same address or from others; those that are sent are left alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announced_uploads_that_do_not_come_keep_nobody_out() {
    let limits = Limits { requests: 16, patience: Duration::from_millis(300), ..Limits::default() };
    let cluster = cluster(&[None; 3], limits, None).await;
    let (nodes, _) = cluster.nodes(None, limits, &[1, 2, 3]);
    let large = vec![7; 16 << 20];
    let Ok(Reply::Stored { stored, .. }) = asked(&nodes, put(999, large.len() as u64), large).await else {
        panic!("there is room")
    };
    // One that goes on all the while, a little at a time.
    let mut steady = greeted(cluster.socket(1)).await;
    let bytes = 100 * 1_000;
    wire::write_frame(&mut steady, &put(1_000, bytes)).await.expect("it listens");
    assert_eq!(wire::read_frame(&mut steady).await.expect("it answers"), Some(wire::Word::Go));
    let steady = tokio::spawn(async move {
        for _ in 0..100 {
            steady.write_all(&[7; 1_000]).await.expect("it is not broken off");
            steady.flush().await.expect("it is not broken off");
            sleep(Duration::from_millis(20)).await;
        }
        wire::read_frame::<wire::Word>(&mut steady).await.expect("it answers")
    });
    let mut hoarded = Vec::new();
    for round in 0..3 {
        for nth in 0..20 {
            for node in 1..=3 {
                let mut line = greeted(cluster.socket(node)).await;
                // Small ones come with the request, others after the word; a body that is never taken fills the
                // buffers.
                let request = match nth % 3 {
                    0 => put(u128::from(round * 1_000 + nth * 10 + node), 3_000),
                    1 => put(u128::from(round * 1_000 + nth * 10 + node), 100_000),
                    _ => Request::Get { name: stored.name },
                };
                wire::write_frame(&mut line, &request).await.expect("it listens");
                hoarded.push(line);
            }
        }
        let began = Instant::now();
        for nth in 0..5 {
            let reply = asked(&nodes, put(u128::from(9_000 + round * 10 + nth), 2_000), vec![1; 2_000]).await;
            assert!(matches!(reply, Ok(Reply::Stored { .. })), "round {round}: {reply:?}");
        }
        // The bodies would be waited for for 15 s.
        assert!(began.elapsed() < limits.idle / 2, "{:?}", began.elapsed());
    }
    let word = steady.await.expect("it ends");
    assert!(matches!(word, Some(wire::Word::Reply(Reply::Stored { .. }))), "{word:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_beyond_the_cap_and_bodies_that_trickle_are_cut_off() {
    let limits = Limits { requests: 1, idle: Duration::from_millis(400), pace_min: 1_000_000, ..Limits::default() };
    let cluster = cluster(&[None], limits, None).await;
    let connect = async || greeted(cluster.socket(1)).await;
    let mut trickling = connect().await;
    wire::write_frame(&mut trickling, &put(1, 60_000)).await.expect("it listens");
    let began = Instant::now();
    let mut other = connect().await;
    wire::write_frame(&mut other, &Request::Discover).await.expect("it listens");
    let word = wire::read_frame::<wire::Word>(&mut other).await.expect("it answers");
    let Some(wire::Word::Reply(Reply::Retry { reason, .. })) = word else { panic!("{word:?}") };
    assert_eq!(reason, "node 1 is busy");
    // A byte now and then, each in time.
    let mut cut_off = false;
    while began.elapsed() < Duration::from_secs(3) && !cut_off {
        cut_off = trickling.write_all(&[1]).await.is_err() || trickling.flush().await.is_err();
        sleep(Duration::from_millis(50)).await;
    }
    assert!(cut_off && began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    wire::write_frame(&mut connect().await, &Request::Discover).await.expect("there is room again");
}

/// Many clients with large requests delay no ballot: the leader is not taken for dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_does_not_end_a_leadership() {
    let cluster = cluster(&[None; 3], Limits::default(), None).await;
    let leader = cluster.logs[0].leader();
    let until = Instant::now() + Duration::from_secs(3);
    let flooding: Vec<_> = (0..100)
        .map(|_| {
            let (nodes, _) = cluster.nodes(None, Limits::default(), &[3]);
            tokio::spawn(async move {
                let mut asked_for = 0_u64;
                while Instant::now() < until {
                    asked_for += u64::from(asked(&nodes, Request::Status, Vec::new()).await.is_ok());
                }
                asked_for
            })
        })
        .collect();
    let mut answered = 0;
    for flood in flooding {
        answered += flood.await.expect("it ends");
    }
    assert!(answered > 1_000, "{answered} answers");
    assert_eq!(cluster.logs.iter().map(Log::leader).collect::<Vec<_>>(), [leader; 3]);
}

fn certificate(folder: &Path) -> Tls {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate can be made");
    let write = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("it can be written");
        path
    };
    let cert = write("node.pem", made.cert.pem());
    Tls { own: Some((cert.clone(), write("node.key", made.key_pair.serialize_pem()))), ca: cert }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_where_it_is_and_where_it_is_not() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let tls = certificate(folder.path());
    let mut secure = cluster(&[Some(OURS); 2], Limits::default(), Some(tls.clone())).await;
    let (nodes, _) = secure.nodes(Some(secret(OURS)), Limits::default(), &[1]);
    for id in 0..4 {
        assert!(matches!(asked(&nodes, put(id, 70_000), vec![1; 70_000]).await, Ok(Reply::Stored { .. })));
    }
    let mut plain = cluster(&[None; 2], Limits::default(), None).await;
    // Each queried by a client that expects the other.
    (secure.config.tls, plain.config.tls) = (None, Some(tls));
    let told = async |cluster: &Cluster| {
        let (nodes, _) = cluster.nodes(None, Limits::default(), &[1]);
        let patience = Patience { deadline: Duration::from_millis(600), ..Patience::default() };
        let outcome =
            ask(&nodes, Request::List { after: None }, Bytes::default(), (patience, Seed(7)), |_| {}, &Clock).await;
        outcome.expect_err("nothing").last
    };
    let told_plain = told(&secure).await;
    assert!(told_plain.contains("tls in config.json must be the same everywhere"), "{told_plain}");
    let told_secure = told(&plain).await;
    assert!(told_secure.contains("without TLS?"), "{told_secure}");
    for (cluster, said) in [(&plain, "one side speaks TLS"), (&secure, "it speaks without TLS where TLS is wanted")] {
        cluster.logs[0].wait_for(&format!("refuses 127.0.0.1: {said}")).await;
    }
}

#[test]
fn a_key_s_file_is_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("cluster.key");
    std::fs::write(&path, OURS).expect("it can be written");
    let secret = key::secret(Some(&path), None).expect("a key").expect("there is one");
    assert_ne!((secret.nonces)(), (secret.nonces)());
}

const PEERS: &[u8] = b"the key of the nodes alone";

fn secrets(clients: Option<&[u8]>, peers: Option<&[u8]>) -> Option<Secret> {
    let key = |bytes| Key::new(bytes).expect("long enough");
    let keys = Keys { clients: clients.map(key), peers: peers.map(key) };
    Some(Secret { keys, ..secret(OURS) }).filter(|secret| secret.keys.clients.is_some() || secret.keys.peers.is_some())
}

/// One node, the first of this list, whose others are not there.
async fn lonely(config: &ClusterConfig, secret: Option<Secret>) -> Cluster {
    let (log, at) = (Log::default(), config.peers.address(NodeId(1)).expect("a peer").parse().expect("an address"));
    let tls = config.tls.as_ref().map(|tls| tls.of_node().expect("a certificate"));
    let listener = net::Listener::bind_for_peers(at, tls).await.unwrap_or_else(|error| panic!("{error:?}"));
    let transport = net::Transport::of_node("127.0.0.1", tls).expect("a certificate");
    let identity = Identity { me: NodeId(1), config: config.clone(), limits: Limits::default(), seed: Seed(1), secret };
    let mut moved = log.clone();
    let serving =
        async move { cluster::serve(listener, transport, Memory::default(), identity, &mut moved, &Clock).await };
    let tasks = vec![tokio::spawn(serving)];
    Cluster { config: config.clone(), logs: vec![log], connections: Arc::default(), tasks }
}

/// Greets node 1 of a cluster as another one, in whatever part.
async fn greet(
    cluster: &Cluster,
    transport: &net::Transport,
    claimed: u32,
    part: Part,
    secret: Option<&Secret>,
) -> Result<(), Unmet> {
    let to = address(cluster.config.peers.address(NodeId(1)).expect("a peer"), cluster.config.tls.is_some());
    let stream = fleet::Transport::connect(transport, &to.expect("sound")).await?;
    let mut line = wire::line(stream);
    let claimed = Some(NodeId(claimed)).filter(|_| part != Part::Client);
    timeout(Duration::from_secs(5), greeting::meet(&mut line, claimed, part, NodeId(1), secret)).await.expect("in time")
}

/// Whatever id it claims: a connection that sends messages as a peer, or orders as one, proves the key of peers, or
/// else comes from where the list says. Node 2 is on another machine, node 3 on this one by its name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_of_a_peer_is_proven_one() {
    // The port of a node that has just ended may still be taken.
    let config = |peer_key: bool, peer_addresses| {
        let port = free_ports(1)[0];
        let peers = parse_peers(&format!("1=127.0.0.1:{port},2=192.0.2.2:{port},3=localhost:1"));
        let peer_key_file = peer_key.then(|| "named".into());
        ClusterConfig { peer_key_file, peer_addresses, ..ClusterConfig::new(peers.expect("sound")) }
    };
    let elsewhere = Refusal::Objected(Objection::Elsewhere {
        from: Ipv4Addr::LOCALHOST.into(),
        stands_for: vec![Ipv4Addr::new(192, 0, 2, 2).into()],
    });
    let wrong = Refusal::WrongKey { peers: true };
    let (none, clients, both) = (|| None, || secrets(Some(OURS), None), || secrets(Some(OURS), Some(PEERS)));
    let any = Some(PeerAddresses::Any);
    let listed = Some(PeerAddresses::Listed);
    // The cluster's keys, the connecting side's keys, and the outcome as node 2 and as node 3.
    let cases = [
        (config(false, None), none(), none(), Some(&elsewhere), None),
        (config(false, any), none(), none(), None, None),
        (config(false, None), clients(), clients(), Some(&elsewhere), None),
        (config(false, any), clients(), clients(), None, None),
        (config(true, None), both(), clients(), Some(&wrong), Some(&wrong)),
        (config(true, None), both(), both(), None, None),
        (config(true, listed), both(), both(), Some(&elsewhere), None),
    ];
    for (nth, (config, has, shows, as_two, as_three)) in cases.into_iter().enumerate() {
        let cluster = lonely(&config, has).await;
        let transport = net::Transport::new(None).expect("no certificate");
        for part in [Part::Peer, Part::Order] {
            for (claimed, want) in [(2, as_two), (3, as_three)] {
                let met = greet(&cluster, &transport, claimed, part, shows.as_ref()).await;
                let refusal = met.err().map(|unmet| match unmet {
                    Unmet::Refused(refusal) => refusal,
                    Unmet::Broken(error) => panic!("case {nth}: {error}"),
                });
                assert_eq!(refusal.as_ref(), want, "case {nth}, as node {claimed}, {part:?}");
            }
            for (claimed, want) in [(1, Objection::SameNode), (9, Objection::NoPeer)] {
                if nth < 4 || shows.as_ref().is_some_and(|shows| shows.keys.peers.is_some()) {
                    let met = greet(&cluster, &transport, claimed, part, shows.as_ref()).await;
                    let refused = matches!(&met, Err(Unmet::Refused(Refusal::Objected(it))) if *it == want);
                    assert!(refused, "case {nth}: {met:?}");
                }
            }
        }
        // A client needs no key of peers.
        let client = if nth < 2 { none() } else { clients() };
        greet(&cluster, &transport, 0, Part::Client, client.as_ref()).await.expect("a client");
        if nth == 0 {
            let both = format!(
                "[Node 1] refuses 127.0.0.1, which calls itself node 2: it comes from 127.0.0.1, but its address in the list \
                 of peers, {}, stands for 192.0.2.2: ",
                config.peers.address(NodeId(2)).expect("a peer")
            );
            cluster.logs[0].wait_for(&both).await;
        }
    }
}

/// An authority and what it vouches for, in files.
struct Authority {
    folder: tempfile::TempDir,
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut wanted = rcgen::CertificateParams::default();
        wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let certificate = wanted.self_signed(&key).expect("a certificate can be made");
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("it can be written");
        Self { folder, certificate, key }
    }

    /// A certificate for this host, signed by the authority or by itself, changed by `change`.
    fn certify(&self, name: &str, host: &str, own: bool, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Tls {
        let mut wanted = rcgen::CertificateParams::new([host.to_owned()]).expect("a name");
        change(&mut wanted);
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let made = if own { wanted.self_signed(&key) } else { wanted.signed_by(&key, &self.certificate, &self.key) };
        let write = |name: String, text: String| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).expect("it can be written");
            path
        };
        let cert = write(format!("{name}.pem"), made.expect("a certificate can be made").pem());
        let key = write(format!("{name}.key"), key.serialize_pem());
        Tls { own: Some((cert, key)), ca: self.folder.path().join("ca.pem") }
    }
}

/// With TLS a node verifies incoming and outgoing connections of nodes alike; clients show nothing and are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_calls_shows_its_certificate() {
    let authority = Authority::new();
    let host = "127.0.0.1";
    let good = authority.certify("good", host, false, |_| {});
    let servers_only = authority.certify("servers", host, false, |wanted| {
        wanted.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    });
    let itself = authority.certify("itself", host, true, |_| {});
    let expired = authority.certify("expired", host, false, |wanted| {
        wanted.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let another = authority.certify("another", "127.0.0.9", false, |_| {});
    let list = format!("1=127.0.0.1:{},2=127.0.0.1:1", free_ports(1)[0]);
    let config = ClusterConfig { tls: Some(good.clone()), ..ClusterConfig::new(parse_peers(&list).expect("sound")) };
    let cluster = lonely(&config, None).await;
    let of = |tls: &Tls| {
        let files = Some(tls.of_node().expect("a certificate"));
        net::Transport::of_node(host, files).expect("a certificate")
    };
    let bare = net::Transport::new(Some(&good.ca)).expect("a certificate");
    for sound in [&good, &servers_only] {
        greet(&cluster, &of(sound), 2, Part::Peer, None).await.expect("it vouches for node 2");
    }
    greet(&cluster, &bare, 0, Part::Client, None).await.expect("clients need no certificate");
    for part in [Part::Peer, Part::Order] {
        for (shown, transport) in [
            ("self-signed", of(&itself)),
            ("expired", of(&expired)),
            ("for another", of(&another)),
            ("none", bare.clone()),
        ] {
            let met = greet(&cluster, &transport, 2, part, None).await;
            assert!(met.is_err(), "{shown}, {part:?}");
        }
    }
    // Of one source the log tells once a minute: the first.
    cluster.logs[0].wait_for("refuses 127.0.0.1: its certificate is not signed by the `ca` that it names (invalid peer certificate: BadSignature)").await;
}

/// The lowest node's certificate is invalid: its messages are not read and it is not followed, and the others go on.
/// (It was refused on outgoing connections but followed on its own, led, and no upload could be stored.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_a_bad_certificate_leads_nobody() {
    let authority = Authority::new();
    let good = authority.certify("good", "127.0.0.1", false, |_| {});
    let bad = authority.certify("bad", "127.0.0.1", true, |_| {});
    let config = ClusterConfig { tls: Some(good.clone()), ..ClusterConfig::new(peers(&free_ports(3))) };
    let mut cluster =
        Cluster { config: config.clone(), logs: Vec::new(), connections: Arc::default(), tasks: Vec::new() };
    for (me, tls) in [(1, &bad), (2, &good), (3, &good)] {
        let (me, log) = (NodeId(me), Log::default());
        cluster.logs.push(log.clone());
        let at: SocketAddr = config.peers.address(me).expect("a peer").parse().expect("an address");
        let files = Some(tls.of_node().expect("a certificate"));
        let listener = net::Listener::bind_for_peers(at, files).await.unwrap_or_else(|error| panic!("{error:?}"));
        let transport = net::Transport::of_node("127.0.0.1", files).expect("a certificate");
        let config = ClusterConfig { tls: Some(tls.clone()), ..config.clone() };
        cluster.tasks.push(tokio::spawn(async move {
            let mut log = log;
            let identity = Identity { me, config, limits: Limits::default(), seed: Seed(me.0.into()), secret: None };
            cluster::serve(listener, transport, Memory::default(), identity, &mut log, &Clock).await
        }));
    }
    let leader = |nth: usize| cluster.logs[nth].leader().and_then(|it| it.leader);
    let agreed = async {
        while [1, 2].iter().any(|nth| leader(*nth) != Some(NodeId(3))) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(10), agreed).await.expect("two of three agree");
    sleep(Duration::from_millis(1_000)).await;
    let (nodes, _) = cluster.nodes(None, Limits::default(), &[2, 3]);
    for id in 0..4 {
        let reply = asked(&nodes, put(id, 3), b"abc".to_vec()).await;
        assert!(matches!(reply, Ok(Reply::Stored { node: NodeId(2 | 3), .. })), "{reply:?}");
    }
    assert_eq!([leader(1), leader(2)], [Some(NodeId(3)); 2]);
    assert_ne!(leader(0), Some(NodeId(3)), "it hears nobody");
    cluster.logs[1].wait_for("refuses ").await;
}
