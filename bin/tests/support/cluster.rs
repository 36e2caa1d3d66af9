//! Clusters of processes on loopback: each node `cloud-p2p` as in the guide, all folders in one place.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::{Duration, Instant},
};

use omb_cluster::{
    peer::{Digest, RequestId},
    store::Name,
};
use omb_machine::quantity::{counted, grouped};

use super::omb::{Ended, Omb, PATIENCE, Place};

/// Longest that an election takes, on a machine with every core busy. With its defaults it takes about a second, of
/// which the tests print what they saw.
pub const PATIENT: Duration = Duration::from_secs(30);

/// How often what cannot be waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Nodes by their ids, and the folder that they and their clients run in.
pub struct Cluster {
    pub place: Place,
    pub ports: BTreeMap<u32, u16>,
    running: BTreeMap<u32, Omb>,
    /// The logs of processes that have ended.
    former: String,
}

/// An upload as reported to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Acknowledged {
    pub node: u32,
    pub name: Name,
}

impl Cluster {
    /// A cluster file for so many nodes on free ports. None is started.
    pub fn prepare(nodes: u32) -> Self {
        let ports = (1..=nodes).zip(free_ports()).collect();
        let cluster = Self { place: Place::default(), ports, running: BTreeMap::new(), former: String::new() };
        cluster.place.write("config.json", config(&cluster.ports));
        cluster
    }

    /// Nodes 1 to 3, and the third leads.
    #[track_caller]
    pub fn start() -> Self {
        Self::prepare(3).started()
    }

    /// As [`Self::start`], but a leader that gets no processor for a while stays the leader: for tests of what a
    /// cluster does between two elections, which count what is assigned.
    #[track_caller]
    pub fn start_calm() -> Self {
        let cluster = Self::prepare(3);
        let config = config(&cluster.ports).replacen('{', "{\"suspicion_ms\": 3000, ", 1);
        cluster.place.write("config.json", config);
        cluster.started()
    }

    #[track_caller]
    fn started(mut self) -> Self {
        (1..=3).for_each(|node| self.launch(node));
        self.agree_on(3);
        self
    }

    /// Starts a node as the guide does, with uploads in `sID`.
    pub fn launch(&mut self, node: u32) {
        let (id, folder) = (node.to_string(), shared(node));
        let process = self.place.start_with(
            env!("CARGO_BIN_EXE_cloud-p2p"),
            &[("NODE_ID", &id), ("SHARED_DIR", &format!("./{folder}"))],
            &[],
        );
        self.adopt(node, process);
    }

    /// Takes in a node that was started otherwise.
    pub fn adopt(&mut self, node: u32, process: Omb) {
        assert!(self.running.insert(node, process).is_none(), "node {node} is running");
    }

    #[track_caller]
    pub fn node(&mut self, node: u32) -> &mut Omb {
        self.running.get_mut(&node).unwrap_or_else(|| panic!("node {node} is not running"))
    }

    /// Ends a node without a warning.
    #[track_caller]
    pub fn kill(&mut self, node: u32) {
        let process = self.running.remove(&node).unwrap_or_else(|| panic!("node {node} is not running"));
        process.signal("KILL");
        let ended = process.end();
        assert_eq!(ended.code, None, "node {node} ended before it was killed:\n{}", ended.stderr);
        self.former += &ended.stderr;
    }

    /// Asks all nodes.
    pub fn client(&self, arguments: &[&str]) -> Ended {
        self.place.start_with(env!("CARGO_BIN_EXE_client"), &[], arguments).end()
    }

    /// Asks one node.
    pub fn client_of(&self, node: u32, arguments: &[&str]) -> Ended {
        let peers = format!("{node}=127.0.0.1:{}", self.ports[&node]);
        self.place.start_with(env!("CARGO_BIN_EXE_client"), &[("PEERS", &peers)], arguments).end()
    }

    /// Which leader a node follows, and in which term.
    pub fn leader_of(&self, node: u32) -> Option<(u32, u64)> {
        let ended = self.client_of(node, &["discover"]);
        let line = ended.stdout.lines().find_map(|line| line.strip_prefix("Leader: node "))?;
        let (leader, rest) = line.split_once(" in term ")?;
        Some((leader.parse().ok()?, rest.split_once(',')?.0.parse().ok()?))
    }

    /// Waits until every running node follows this one, all in one term, and returns the term.
    #[track_caller]
    pub fn agree_on(&self, leader: u32) -> u64 {
        let mut seen = BTreeMap::new();
        let agreed = within(PATIENCE, || {
            seen = self.running.keys().map(|node| (*node, self.leader_of(*node))).collect();
            let terms: BTreeSet<_> = seen.values().copied().collect();
            let only = terms.first().copied().flatten().filter(|_| terms.len() == 1);
            only.filter(|(named, _)| *named == leader).map(|(_, term)| term)
        });
        agreed.unwrap_or_else(|| panic!("node {leader} is not followed by all: {seen:?}\n{}", self.logs()))
    }

    /// How much each running node has logged so far.
    pub fn mark(&self) -> BTreeMap<u32, usize> {
        self.running.iter().map(|(node, process)| (*node, process.log().len())).collect()
    }

    /// Waits until a node says that it leads, after that mark: which one, and in which term.
    #[track_caller]
    pub fn leader_since(&self, mark: &BTreeMap<u32, usize>) -> (u32, u64) {
        let until = Instant::now() + PATIENCE;
        loop {
            for (node, process) in &self.running {
                let log = process.log();
                let said = log[mark[node]..].split_once(&format!("[Node {node}] leads in term "));
                if let Some(term) = said.and_then(|(_, rest)| rest.split_once('\n')) {
                    return (*node, term.0.parse().expect("a term is a number"));
                }
            }
            assert!(Instant::now() < until, "nobody leads:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How much was logged by nodes that have ended, with which [`Self::logs`] begins.
    pub fn mark_of_former(&self) -> usize {
        self.former.len()
    }

    /// Everything that all nodes have logged.
    pub fn logs(&self) -> String {
        self.running.values().fold(self.former.clone(), |logs, node| logs + &node.log())
    }

    /// Asserts that no term had two leaders, nor one leader twice, over all that was logged.
    #[track_caller]
    pub fn one_leader_per_term(&self) {
        let logs = self.logs();
        let mut terms = BTreeSet::new();
        for line in logs.lines() {
            if let Some((_, term)) = line.split_once("] leads in term ") {
                assert!(terms.insert(term), "term {term} was claimed twice:\n{logs}");
            }
        }
        assert!(!terms.is_empty(), "somebody has led:\n{logs}");
    }

    /// Starts uploads by so many clients at once.
    pub fn load(&self, clients: u32, requests: u32) -> Omb {
        let (clients, requests) = (clients.to_string(), requests.to_string());
        self.place.start(&["stress", "--clients", &clients, "--requests", &requests, "--timeout", "110s"])
    }

    /// What was acknowledged to stress tests here so far. Fails if any of them gave an upload up.
    #[track_caller]
    pub fn acknowledged(&self) -> BTreeSet<Acknowledged> {
        let mut acknowledged = BTreeSet::new();
        for log in self.place.files(".log") {
            let text = fs::read_to_string(self.place.path(&log)).expect("the log can be read");
            for line in text.lines().filter(|line| line.starts_with("client ")) {
                let stored = line.split_once(", stored by node ").and_then(|(_, rest)| rest.split_once(" as "));
                // The last line may be in the making.
                let Some((node, name)) = stored else {
                    assert!(!line.contains("failed:"), "{line}");
                    continue;
                };
                if let (Ok(node), Ok(name)) = (node.parse(), name.parse()) {
                    acknowledged.insert(Acknowledged { node, name });
                }
            }
        }
        acknowledged
    }

    /// Waits until so many uploads were acknowledged.
    #[track_caller]
    pub fn wait_for_acknowledged(&self, count: usize) {
        let enough = within(PATIENCE, || (self.acknowledged().len() >= count).then_some(()));
        enough.unwrap_or_else(|| panic!("only {} acknowledged", self.acknowledged().len()));
    }

    /// The uploads in a node's folder, by name. Fails if anything else lies there, or another content than its name
    /// says.
    #[track_caller]
    pub fn stored_by(&self, node: u32) -> BTreeMap<Name, u64> {
        let mut stored = BTreeMap::new();
        for (name, path) in entries(&self.place.path(&shared(node))) {
            let upload: Name = name.parse().unwrap_or_else(|error| panic!("in the folder of node {node}: {error}"));
            let bytes = fs::read(&path).expect("an upload can be read");
            assert_eq!(Digest::of(&bytes), upload.digest, "{} is not what its name says", path.display());
            stored.insert(upload, bytes.len() as u64);
        }
        stored
    }

    /// Asserts that every acknowledged upload lies whole where it was acknowledged, that nothing else was stored, no
    /// node has one twice, nothing is half-written, and that `client list` shows exactly this. Returns how many lie on
    /// more than one node.
    #[track_caller]
    pub fn audit(&self, acknowledged: &BTreeSet<Acknowledged>) -> usize {
        let mut holders: BTreeMap<RequestId, BTreeSet<u32>> = BTreeMap::new();
        let mut files = 0;
        for node in self.ports.keys() {
            let stored = self.stored_by(*node);
            files += stored.len();
            for name in stored.keys() {
                let new = holders.entry(name.id).or_default().insert(*node);
                assert!(new, "node {node} holds {} twice", name.id);
            }
            for upload in acknowledged.iter().filter(|upload| upload.node == *node) {
                assert!(stored.contains_key(&upload.name), "node {node} acknowledged {} and lacks it", upload.name);
            }
            self.nothing_half_written(*node);
        }
        let ids: BTreeSet<RequestId> = acknowledged.iter().map(|upload| upload.name.id).collect();
        let strange: Vec<_> = holders.keys().filter(|id| !ids.contains(id)).collect();
        assert!(strange.is_empty(), "stored and never acknowledged: {strange:?}");
        let copies = holders.values().filter(|nodes| nodes.len() > 1).count();
        // A node that gets no processor for a while does not answer in time, and the listing says so.
        let listed = within(PATIENCE, || {
            let listed = self.client(&["list"]).with(0).stdout;
            (!listed.contains("did not answer")).then_some(listed)
        });
        let listed = listed.expect("all nodes answer");
        let rows = listed.lines().filter(|line| line.contains("  node ")).count();
        assert_eq!(rows, files, "every file is listed:\n{listed}");
        let last = format!(
            "{} in all, {} of them on more than one node",
            counted(holders.len() as u64, "upload"),
            grouped(copies as u64)
        );
        assert_eq!(listed.lines().last(), Some(last.as_str()), "{listed}");
        copies
    }

    /// Waits until a node has no upload in the making any more.
    #[track_caller]
    pub fn nothing_half_written(&self, node: u32) {
        let parts = self.state(node).join("parts");
        let mut left = Vec::new();
        let done = within(PATIENCE, || {
            left = entries(&parts);
            left.is_empty().then_some(())
        });
        assert!(done.is_some(), "node {node} keeps {left:?}");
    }

    /// Where a node keeps its state.
    pub fn state(&self, node: u32) -> PathBuf {
        self.place.path(&format!(".{}.node-{node}", shared(node)))
    }

    /// The term that a node has made durable; 0 before the first.
    #[track_caller]
    pub fn durable_term(&self, node: u32) -> u64 {
        let Ok(text) = fs::read_to_string(self.state(node).join("leadership")) else { return 0 };
        text.split(' ').nth(1).and_then(|term| term.parse().ok()).unwrap_or_else(|| panic!("no term: {text}"))
    }
}

/// A node's folder for uploads.
pub fn shared(node: u32) -> String {
    format!("s{node}")
}

/// The cluster file.
pub fn config(ports: &BTreeMap<u32, u16>) -> String {
    let peers = ports.iter().fold(String::new(), |mut peers, (node, port)| {
        let comma = if peers.is_empty() { "" } else { ", " };
        let _ = write!(peers, "{comma}{{\"id\": {node}, \"address\": \"127.0.0.1:{port}\"}}");
        peers
    });
    format!("{{\"peers\": [{peers}], \"shared_dir\": \"./shared_images\"}}\n")
}

/// Name and path of everything in a folder; one that does not exist has nothing.
fn entries(folder: &std::path::Path) -> Vec<(String, PathBuf)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let entry = |entry: fs::DirEntry| (entry.file_name().to_string_lossy().into_owned(), entry.path());
    entries.map(|found| entry(found.expect("an entry"))).collect()
}

/// Looks until there is something to see, or it is too late.
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Ports of loopback that are free now. They lie below those that the system gives to connections, one of which could
/// otherwise have a node's port while that node is down.
pub fn free_ports() -> impl Iterator<Item = u16> {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other tests run at the same time, in this process and in others.
    let own = u16::try_from(std::process::id() % u32::from(COUNT)).expect("below 20000").wrapping_mul(37);
    std::iter::repeat_with(move || FIRST + (own.wrapping_add(NEXT.fetch_add(1, Relaxed))) % COUNT)
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
}
