//! The cluster file, `config.json`: the peers, where uploads go, how soon a silent leader is replaced.
//!
//! The same file is on every machine. The list of peers must agree, and [`Peers::digest`] shows whether it does: it
//! depends on ids and addresses only, not on their order or on spaces.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::peer::{Digest, NodeId};
use omb_machine::{
    config::{
        ConfigErrors, Leniency, Parsed, Place, Problem,
        yaml::{self, Entry, Node, Reader, Value, nearest},
    },
    printable::printable_within,
};

/// Everything in `config.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `peers`.
    pub peers: Peers,
    /// `shared_dir`, which holds stored uploads and nothing else of ours. Default `./shared_images`.
    pub shared_dir: PathBuf,
    /// `policy`. Default `least-load`.
    pub policy: Policy,
    /// `quorum`. Default `none`.
    pub quorum: Quorum,
    /// `durability`. Default `fsync`.
    pub durability: Durability,
    /// `file_mode`: which users may read stored uploads. Default `0600`, only their owner.
    pub file_mode: FileMode,
    /// `scrub_s`: the pause between two checks of whether all uploads of a node are still there. Default 60 s.
    pub scrub: Duration,
    /// `heartbeat_ms`, `suspicion_ms`, `answer_ms`, `steady_ms`.
    pub timing: Timing,
    /// `upload_limit`: bytes of the largest upload, as a number or as `512MiB`. Default 4 GiB.
    pub upload_limit: u64,
    /// `key_file`: a key that clients prove, so that all nodes and clients share it; a client without it is refused.
    pub key_file: Option<PathBuf>,
    /// `peer_key_file`: a key that peers prove; nodes share it, clients do not have it. Without it peers prove that of
    /// clients, if there is one, and must connect from their own address.
    pub peer_key_file: Option<PathBuf>,
    /// `peer_addresses`, if it is given. See [`Self::checks_addresses`].
    pub peer_addresses: Option<PeerAddresses>,
    /// `tls`: encrypts the traffic between nodes and clients.
    pub tls: Option<Tls>,
}

impl ClusterConfig {
    /// These peers, and defaults for everything else.
    #[must_use]
    pub fn new(peers: Peers) -> Self {
        Self {
            peers,
            shared_dir: PathBuf::from(SHARED_DIR_DEFAULT),
            policy: Policy::default(),
            quorum: Quorum::default(),
            durability: Durability::default(),
            file_mode: FileMode::default(),
            scrub: SCRUB_DEFAULT,
            timing: Timing::default(),
            upload_limit: UPLOAD_LIMIT_DEFAULT,
            key_file: None,
            peer_key_file: None,
            peer_addresses: None,
            tls: None,
        }
    }

    /// Whether a peer is believed only if it connects from an address that its name in the list of peers resolves to:
    /// as `peer_addresses` says, and without that setting if no key of peers proves them.
    #[must_use]
    pub fn checks_addresses(&self) -> bool {
        match self.peer_addresses {
            Some(addresses) => addresses == PeerAddresses::Listed,
            None => self.peer_key_file.is_none(),
        }
    }
}

/// The addresses that peers may connect from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerAddresses {
    /// `listed`: each from the addresses that its name in the list of peers resolves to.
    #[default]
    Listed,
    /// `any`: from any address, as behind network address translation.
    Any,
}

/// Which node takes the next upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// `least-load`: fewest uploads assigned so far.
    #[default]
    LeastLoad,
    /// `least-outstanding`: fewest in flight.
    LeastOutstanding,
    /// `power-of-two`: of two drawn at random, the one with fewer in flight.
    PowerOfTwo,
    /// `peak-ewma`: the lowest product of recent latency and uploads in flight.
    PeakEwma,
    /// `round-robin`: one after another.
    RoundRobin,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&POLICIES, *self))
    }
}

/// Whether a leader needs other nodes in order to serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quorum {
    /// `none`: each side of a partition serves.
    #[default]
    None,
    /// `majority`: a leader serves only while it hears more than half of all peers, itself included.
    Majority,
}

impl fmt::Display for Quorum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&QUORUMS, *self))
    }
}

/// What an acknowledged upload survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// `fsync`: loss of power.
    #[default]
    Fsync,
    /// `none`: the end of the process.
    None,
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&DURABILITIES, *self))
    }
}

/// Permissions of stored uploads, regardless of the umask: those for other users; the owner always reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(u32);

impl FileMode {
    /// Of files.
    #[must_use]
    pub fn file(self) -> u32 {
        self.0
    }

    /// Of their folder: users who may read a file may enter it.
    #[must_use]
    pub fn folder(self) -> u32 {
        self.0 | (self.0 & 0o444) >> 2
    }
}

impl Default for FileMode {
    fn default() -> Self {
        Self(0o600)
    }
}

/// A text that is not a [`FileMode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a file mode: {FILE_MODE}")]
pub struct FileModeError;

impl std::str::FromStr for FileMode {
    type Err = FileModeError;

    fn from_str(text: &str) -> Result<Self, FileModeError> {
        let digits = (3..=4).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
        let mode = digits.then(|| u32::from_str_radix(text, 8).ok()).flatten();
        // The owner reads and writes; nothing is executed, and nothing special.
        mode.filter(|mode| mode & 0o600 == 0o600 && mode & !0o666 == 0).map(Self).ok_or(FileModeError)
    }
}

/// The timing of elections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader sends a heartbeat. Default 100 ms.
    pub heartbeat: Duration,
    /// Silence after which a leader counts as gone. Default 500 ms: four heartbeats in a row may be lost.
    pub suspicion: Duration,
    /// How long higher nodes have to answer a challenge. Default 300 ms: above three retransmissions within one network.
    pub answer: Duration,
    /// How long a returning higher node must have been reachable before it takes over. Default 2 s, so that an unstable
    /// node does not take the leadership with it each time.
    pub steady: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self { heartbeat: ms(100), suspicion: ms(500), answer: ms(300), steady: ms(2_000) }
    }
}

/// Files in PEM form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// `cert` and `key`: this node's certificate, and its private key. Clients need neither.
    pub own: Option<(PathBuf, PathBuf)>,
    /// `ca`: the authority that must have signed the certificates of others.
    pub ca: PathBuf,
}

impl Tls {
    /// The names of the node's files: `cert`, `key`, `ca`.
    ///
    /// # Errors
    /// If it has no certificate: a message about what a node lacks.
    pub fn of_node(&self) -> Result<(&Path, &Path, &Path), &'static str> {
        let Some((cert, key)) = &self.own else {
            return Err("tls: a node needs its cert and key, too; ca alone is for clients");
        };
        Ok((cert, key, &self.ca))
    }
}

/// The nodes of a cluster: at least one, each id and each address once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers(BTreeMap<NodeId, String>);

impl Peers {
    /// Ids and addresses (`host:port`), by id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (NodeId, &str)> {
        self.0.iter().map(|(id, address)| (*id, address.as_str()))
    }

    /// The ids, from low to high.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = NodeId> {
        self.0.keys().copied()
    }

    /// The address of `id`; `None` if it is not a peer.
    #[must_use]
    pub fn address(&self, id: NodeId) -> Option<&str> {
        self.0.get(&id).map(String::as_str)
    }

    /// What two nodes compare to learn whether they have the same list: SHA-256 over `id=address` lines by id.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let lines: String = self.0.iter().map(|(id, address)| format!("{}={address}\n", id.0)).collect();
        Digest::of(lines.as_bytes())
    }
}

const SHARED_DIR_DEFAULT: &str = "./shared_images";
const SCRUB_DEFAULT: Duration = Duration::from_secs(60);
const UPLOAD_LIMIT_DEFAULT: u64 = 4 << 30;

/// More nodes than a full mesh of heartbeats is designed for.
const PEERS_MAX: usize = 1_000;

const POLICIES: [(&str, Policy); 5] = [
    ("least-load", Policy::LeastLoad),
    ("least-outstanding", Policy::LeastOutstanding),
    ("power-of-two", Policy::PowerOfTwo),
    ("peak-ewma", Policy::PeakEwma),
    ("round-robin", Policy::RoundRobin),
];
const QUORUMS: [(&str, Quorum); 2] = [("none", Quorum::None), ("majority", Quorum::Majority)];
const PEER_ADDRESSES: [(&str, PeerAddresses); 2] = [("listed", PeerAddresses::Listed), ("any", PeerAddresses::Any)];
const DURABILITIES: [(&str, Durability); 2] = [("fsync", Durability::Fsync), ("none", Durability::None)];

const KEYS: &[&str] = &[
    "peers",
    "shared_dir",
    "policy",
    "quorum",
    "durability",
    "file_mode",
    "scrub_s",
    "heartbeat_ms",
    "suspicion_ms",
    "answer_ms",
    "steady_ms",
    "upload_limit",
    "key_file",
    "peer_key_file",
    "peer_addresses",
    "tls",
];

const PEER: &str = r#"a peer such as {"id": 1, "address": "192.168.1.100:7001"}"#;
const ADDRESS: &str = "an address such as 192.168.1.100:7001, each once";
const FILE_MODE: &str =
    "an octal mode in quotes that its owner can read and write and nobody execute, such as \"0600\" or \"0644\"";
const ANY_ADDRESS: &str = "the address at which the other nodes reach this one, such as 192.168.1.100:7001 (0.0.0.0 and [::] \
                           stand for all addresses of whichever machine reads them; BIND=0.0.0.0 makes a node listen on all)";
const ONE_ADDRESS: &str =
    "the address of one machine, such as 192.168.1.100:7001, and none of many (multicast, broadcast)";
const ID: &str = "a whole number from 1 to 4294967295, each once";

/// Reads the cluster file `file`, whose content is `text`.
///
/// # Errors
/// All errors in the file.
pub fn parse(file: &str, text: &str) -> Result<Parsed<ClusterConfig>, ConfigErrors> {
    let allowed = r#"{"peers": [{"id": 1, "address": "host:port"}, ..], "shared_dir": "./shared_images"}"#;
    let mut reader = Reader::open(file, text, Leniency::Strict, allowed)?;
    reader.check_keys(KEYS, &[]);
    let config = config(&mut reader);
    reader.finish(config)
}

/// Reads the value of the variable `PEERS`: `1=host:port,2=host:port`. Spaces around its parts do not matter.
///
/// # Errors
/// All errors in it; the column of a position counts characters of the value.
pub fn parse_peers(text: &str) -> Result<Peers, ConfigErrors> {
    let mut reader = Reader::open("PEERS", "peers: [PEERS]", Leniency::Strict, "1=host:port,..")?;
    let mut gathered = Gathered::default();
    let mut column = 1;
    for part in text.split(',') {
        let place = Place { line: 1, column: column + part.chars().take_while(|c| c.is_whitespace()).count() };
        column += part.chars().count() + 1;
        let found = if part.trim().is_empty() { "nothing".to_owned() } else { format!("`{}`", part.trim()) };
        let mut refuse = |allowed: String| {
            reader.error("", Some(place), Problem::NotAllowed { found: found.clone(), allowed, suggestion: None });
        };
        let Some((id, address)) = part.split_once('=') else {
            refuse("ID=HOST:PORT, such as 1=192.168.1.100:7001".to_owned());
            continue;
        };
        let id = id.trim().parse().ok().filter(|id| *id > 0).map(NodeId);
        if id.is_none_or(|id| gathered.ids.contains_key(&id)) {
            refuse(format!("an id before the `=`, {ID}"));
        }
        let address = self::address(address)
            .and_then(|address| if gathered.addresses.contains_key(&address) { Err(ADDRESS) } else { Ok(address) });
        if let Err(allowed) = address {
            refuse(format!("{allowed}, after the `=`"));
        }
        gathered.add(id, address.ok());
    }
    reader.finish(Some(Peers(gathered.ids))).map(|parsed| parsed.value)
}

/// Reads every key before giving up on any, so that all errors are found at once.
fn config(reader: &mut Reader<'_>) -> Option<ClusterConfig> {
    let peers = peers(reader);
    let shared_dir = path(reader, "shared_dir", Some(SHARED_DIR_DEFAULT));
    let policy = reader.one_of("policy", &POLICIES);
    let quorum = reader.one_of("quorum", &QUORUMS);
    let durability = reader.one_of("durability", &DURABILITIES);
    let file_mode = file_mode(reader);
    let scrub = if reader.has("scrub_s") {
        // A day, and some time to spare.
        reader.whole_u32("scrub_s", 1, 100_000).map(|seconds| Duration::from_secs(seconds.into()))
    } else {
        Some(SCRUB_DEFAULT)
    };
    let timing = timing(reader);
    let upload_limit =
        if reader.has("upload_limit") { reader.size("upload_limit") } else { Some(UPLOAD_LIMIT_DEFAULT) };
    let key_file = path(reader, "key_file", None);
    let peer_key_file = path(reader, "peer_key_file", None);
    let given = reader.has("peer_addresses");
    let peer_addresses = reader.one_of("peer_addresses", &PEER_ADDRESSES).map(|addresses| given.then_some(addresses));
    let tls = tls(reader);
    Some(ClusterConfig {
        peers: peers?,
        shared_dir: shared_dir??,
        policy: policy?,
        quorum: quorum?,
        durability: durability?,
        file_mode: file_mode?,
        scrub: scrub?,
        timing: timing?,
        upload_limit: upload_limit?,
        key_file: key_file?,
        peer_key_file: peer_key_file?,
        peer_addresses: peer_addresses?,
        tls: tls?,
    })
}

/// Peers as they are read; duplicates are reported by the caller, and left out.
#[derive(Default)]
struct Gathered {
    ids: BTreeMap<NodeId, String>,
    addresses: BTreeMap<String, NodeId>,
}

impl Gathered {
    fn add(&mut self, id: Option<NodeId>, address: Option<String>) {
        if let (Some(id), Some(address)) = (id, address) {
            self.addresses.entry(address.clone()).or_insert(id);
            self.ids.entry(id).or_insert(address);
        }
    }
}

fn peers(reader: &mut Reader<'_>) -> Option<Peers> {
    let hint = r#"give every node of the cluster: "peers": [{"id": 1, "address": "192.168.1.100:7001"}, ..]"#;
    if !reader.require("peers", hint) {
        return None;
    }
    let node = reader.get("peers")?.clone();
    let items = match &node.value {
        Value::List(items) if (1..=PEERS_MAX).contains(&items.len()) => items,
        _ => {
            reader.not_allowed("peers", &node, format!("a list of 1 to {PEERS_MAX} peers, each {PEER}"), None);
            return None;
        }
    };
    let mut gathered = Gathered::default();
    for item in items {
        let Some(entries) = entries(reader, "peers", item, PEER, &["id", "address"]) else { continue };
        let get = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        let id = get("id").and_then(|node| match &node.value {
            Value::Scalar { text, style: yaml::ScalarStyle::Plain } => match yaml::number(text)? {
                yaml::Number::Whole(id) => u32::try_from(id).ok().filter(|id| *id > 0).map(NodeId),
                yaml::Number::Fraction(_) => None,
            },
            _ => None,
        });
        match get("id") {
            None => reader.error("peers.id", Some(item.place), Problem::Missing("give the node's number, at least 1")),
            Some(node) if id.is_none_or(|id| gathered.ids.contains_key(&id)) => {
                reader.not_allowed("peers.id", node, ID, None);
            }
            Some(_) => {}
        }
        let address = get("address").map(|node| match &node.value {
            Value::Scalar { text, .. } => address(text),
            _ => Err(ADDRESS),
        });
        match (&address, get("address")) {
            (Some(Err(allowed)), Some(node)) => reader.not_allowed("peers.address", node, *allowed, None),
            (Some(Ok(address)), Some(node)) if gathered.addresses.contains_key(address) => {
                reader.not_allowed("peers.address", node, ADDRESS, None);
            }
            (Some(_), _) => {}
            (None, _) => reader.error("peers.address", Some(item.place), Problem::Missing("give the node's host:port")),
        }
        gathered.add(id, address.and_then(Result::ok));
    }
    (gathered.ids.len() == items.len()).then_some(Peers(gathered.ids))
}

/// `host:port`: a name, an IPv4 address or an IPv6 address in brackets, and a port of at least 1. Names are folded to
/// lower case, and addresses to one spelling, so that one node is not in the list twice.
///
/// # Errors
/// What is allowed.
fn address(text: &str) -> Result<String, &'static str> {
    let (host, port) = text.trim().rsplit_once(':').ok_or(ADDRESS)?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = digits.then(|| port.parse().ok()).flatten().filter(|port| *port > 0).ok_or(ADDRESS)?;
    let ip: IpAddr = match host.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']').ok_or(ADDRESS)?;
            inner.parse::<Ipv6Addr>().map(IpAddr::from).map_err(|_| ADDRESS)?.to_canonical()
        }
        None => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            if !(1..=253).contains(&host.len()) || !host.chars().all(allowed) {
                return Err(ADDRESS);
            }
            if !is_number(host) {
                return Ok(format!("{}:{port}", host.to_ascii_lowercase()));
            }
            // `0`, `127.1` and `0x7f.1` are addresses only to the C library.
            host.parse::<Ipv4Addr>().map(IpAddr::from).map_err(|_| ADDRESS)?
        }
    };
    if ip.is_unspecified() {
        return Err(ANY_ADDRESS);
    }
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(ONE_ADDRESS);
    }
    Ok(match ip {
        IpAddr::V4(ip) => format!("{ip}:{port}"),
        IpAddr::V6(ip) => format!("[{ip}]:{port}"),
    })
}

/// Whether a host is meant as a number: its last part is one (as in WHATWG's URL standard, section 3.5).
fn is_number(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// The entries of a mapping that knows only `known` keys.
fn entries(
    reader: &mut Reader<'_>,
    key: &str,
    node: &Node,
    allowed: &str,
    known: &[&'static str],
) -> Option<Vec<Entry>> {
    let Value::Keys(entries) = &node.value else {
        reader.not_allowed(key, node, allowed, None);
        return None;
    };
    let entries = reader.unique(entries.clone());
    for entry in &entries {
        if !known.contains(&entry.key.as_str()) {
            let suggestion = nearest(&entry.key, known.iter().copied()).map(str::to_owned);
            let problem = Problem::UnknownKey { suggestion, allowed: known.join(", ") };
            let name = printable_within(&entry.key, 60);
            reader.error(&format!("{key}.{name}"), Some(entry.place), problem);
        }
    }
    Some(entries)
}

/// A path, or the default. The outer `None` is an error that was reported.
fn path(reader: &mut Reader<'_>, key: &str, default: Option<&str>) -> Option<Option<PathBuf>> {
    if reader.has(key) { reader.text(key).map(|text| Some(text.into())) } else { Some(default.map(PathBuf::from)) }
}

fn name_of<T: PartialEq>(all: &[(&'static str, T)], value: T) -> &'static str {
    all.iter().find(|(_, other)| *other == value).expect("every value has its name").0
}

fn file_mode(reader: &mut Reader<'_>) -> Option<FileMode> {
    let Some(node) = reader.get("file_mode").cloned() else { return Some(FileMode::default()) };
    let mode = match &node.value {
        Value::Scalar { text, .. } => text.parse().ok(),
        _ => None,
    };
    if mode.is_none() {
        reader.not_allowed("file_mode", &node, FILE_MODE, None);
    }
    mode
}

fn timing(reader: &mut Reader<'_>) -> Option<Timing> {
    let default = Timing::default();
    let mut read = |key, default: Duration| {
        if !reader.has(key) {
            return Some(default);
        }
        // An hour is longer than anyone waits for a leader.
        reader.whole_u32(key, 1, 3_600_000).map(|ms| Duration::from_millis(ms.into()))
    };
    let heartbeat = read("heartbeat_ms", default.heartbeat);
    let suspicion = read("suspicion_ms", default.suspicion);
    let (answer, steady) = (read("answer_ms", default.answer), read("steady_ms", default.steady));
    let timing = Timing { heartbeat: heartbeat?, suspicion: suspicion?, answer: answer?, steady: steady? };
    if timing.suspicion < timing.heartbeat * 2 {
        let text = format!(
            "suspicion_ms is {}, heartbeat_ms is {}: one late heartbeat would cost the leader its office; \
             allowed: a suspicion of at least two heartbeats",
            timing.suspicion.as_millis(),
            timing.heartbeat.as_millis()
        );
        let place = reader.place("suspicion_ms").or_else(|| reader.place("heartbeat_ms"));
        reader.error("suspicion_ms", place, Problem::Contradiction(text));
        return None;
    }
    Some(timing)
}

fn tls(reader: &mut Reader<'_>) -> Option<Option<Tls>> {
    let Some(node) = reader.get("tls").cloned() else { return Some(None) };
    let allowed = r#"{"cert": FILE, "key": FILE, "ca": FILE}"#;
    let entries = entries(reader, "tls", &node, allowed, &["cert", "key", "ca"])?;
    let mut file = |key: &str| {
        let entry = entries.iter().find(|entry| entry.key == key);
        match entry.map(|entry| &entry.value.value) {
            Some(Value::Scalar { text, .. }) if !text.trim().is_empty() && !text.contains(char::is_control) => {
                Some(PathBuf::from(text))
            }
            Some(_) => {
                let entry = entry.expect("it was found");
                reader.not_allowed(&format!("tls.{key}"), &entry.value, "the name of a PEM file", None);
                None
            }
            None => {
                let hint = "give the name of a PEM file; a node needs cert, key and ca, a client ca alone";
                reader.error(&format!("tls.{key}"), Some(node.place), Problem::Missing(hint));
                None
            }
        }
    };
    // All missing keys are reported before any of them ends this.
    let own = entries.iter().any(|entry| entry.key != "ca").then(|| file("cert").zip(file("key")));
    let ca = file("ca");
    let own = if let Some(own) = own { Some(own?) } else { None };
    Some(Some(Tls { own, ca: ca? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> ClusterConfig {
        let parsed = parse("config.json", text).expect("a sound file");
        assert_eq!(parsed.warnings, []);
        parsed.value
    }

    #[track_caller]
    fn refuses(text: &str, want: &[&str]) {
        let errors = parse("config.json", text).expect_err("this file is refused").to_string();
        assert_eq!(errors.lines().collect::<Vec<_>>(), want);
    }

    const THREE: &str = r#"{"peers": [{"id": 1, "address": "10.0.0.1:7001"}, {"id": 2, "address": "10.0.0.2:7001"},
        {"id": 3, "address": "[fe80::1]:7001"}], "shared_dir": "./shared_images"}"#;

    #[test]
    fn the_guide_s_file_is_read() {
        let config = read(THREE);
        assert_eq!(config, ClusterConfig::new(config.peers.clone()));
        assert_eq!(config.peers.ids().collect::<Vec<_>>(), [NodeId(1), NodeId(2), NodeId(3)]);
        assert_eq!(config.peers.address(NodeId(2)), Some("10.0.0.2:7001"));
        assert_eq!((config.policy.to_string().as_str(), config.upload_limit), ("least-load", 4 << 30));
    }

    #[test]
    fn every_key_is_read() {
        let config = read(
            r#"{"peers": [{"id": 7, "address": "Host-a:1"}], "shared_dir": "/srv/up", "policy": "peak-ewma",
                "quorum": "majority", "durability": "none", "file_mode": "0640", "scrub_s": 3600, "heartbeat_ms": 10, "suspicion_ms": 50, "answer_ms": 30,
                "steady_ms": 200, "upload_limit": "1MiB", "key_file": "k",
                "peer_key_file": "p", "peer_addresses": "any", "tls": {"cert": "c", "key": "d", "ca": "e"}}"#,
        );
        let ms = Duration::from_millis;
        let want = ClusterConfig {
            peers: parse_peers("7=host-a:1").expect("sound"),
            shared_dir: "/srv/up".into(),
            policy: Policy::PeakEwma,
            quorum: Quorum::Majority,
            durability: Durability::None,
            file_mode: FileMode(0o640),
            scrub: Duration::from_secs(3_600),
            timing: Timing { heartbeat: ms(10), suspicion: ms(50), answer: ms(30), steady: ms(200) },
            upload_limit: 1 << 20,
            key_file: Some("k".into()),
            peer_key_file: Some("p".into()),
            peer_addresses: Some(PeerAddresses::Any),
            tls: Some(Tls { own: Some(("c".into(), "d".into())), ca: "e".into() }),
        };
        assert_eq!(config, want);
    }

    #[test]
    fn the_limit_of_uploads_is_a_size() {
        let limit = |text: &str| {
            let text = format!(r#"{{"peers": [{{"id": 1, "address": "a:1"}}], "upload_limit": {text}}}"#);
            parse("config.json", &text).map(|parsed| parsed.value.upload_limit).map_err(|errors| errors.to_string())
        };
        for (text, bytes) in [("1", 1), ("\"512MiB\"", 512 << 20), ("9223372036854775807", i64::MAX.cast_unsigned())] {
            assert_eq!(limit(text), Ok(bytes), "{text}");
        }
        for wrong in ["0", "-1", "1.5", "\"4 TB\"", "9223372036854775808", "[]"] {
            let error = limit(wrong).expect_err(wrong);
            assert!(
                error.starts_with("config.json:1:58: upload_limit: ") && error.contains("such as 512MiB"),
                "{error}"
            );
        }
    }

    /// Clients show no certificate, so they need none; a node does.
    #[test]
    fn clients_need_an_authority_alone() {
        let tls = |files: &str| {
            let tls = read(&THREE.replacen('{', &format!(r#"{{"tls": {{{files}}}, "#), 1)).tls.expect("it is given");
            tls.of_node().map(|(cert, key, ca)| [cert, key, ca].map(Path::to_owned))
        };
        assert_eq!(tls(r#""ca": "e""#), Err("tls: a node needs its cert and key, too; ca alone is for clients"));
        assert_eq!(tls(r#""ca": "e", "cert": "c", "key": "d""#), Ok(["c", "d", "e"].map(PathBuf::from)));
    }

    #[test]
    fn order_and_spaces_do_not_change_the_digest() {
        let digest = read(THREE).peers.digest();
        let other = parse_peers(" 3=[fe80::1]:7001, 1 = 10.0.0.1:7001,2=10.0.0.2:7001").expect("sound");
        assert_eq!(other.digest(), digest);
        assert_ne!(parse_peers("1=10.0.0.1:7001,2=10.0.0.2:7001").expect("sound").digest(), digest);
        assert_ne!(parse_peers("1=10.0.0.1:7001,2=10.0.0.2:7001,3=[fe80::1]:7002").expect("sound").digest(), digest);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        refuses(
            r#"{"peers": [{"id": 0, "address": "a:1"}, {"id": 2, "address": "b"}, {"id": 3, "address": "c:1"},
{"id": 3, "address": "c:1"}, {"id": 4, "addres": "d:1"}, 5],
"polcy": "round-robin", "quorum": "majorty", "heartbeat_ms": 0, "tls": {"cert": "c"}}"#,
            &[
                "config.json:1:19: peers.id: found 0; allowed: a whole number from 1 to 4294967295, each once",
                "config.json:1:62: peers.address: found the quoted text \"b\"; allowed: an address such as 192.168.1.100:7001, each once",
                "config.json:2:8: peers.id: found 3; allowed: a whole number from 1 to 4294967295, each once",
                "config.json:2:22: peers.address: found the quoted text \"c:1\"; allowed: an address such as 192.168.1.100:7001, each once",
                "config.json:2:30: peers.address: missing; give the node's host:port",
                "config.json:2:40: peers.addres: no such key; did you mean `address`?",
                "config.json:2:58: peers: found 5; allowed: a peer such as {\"id\": 1, \"address\": \"192.168.1.100:7001\"}",
                "config.json:3:1: polcy: no such key; did you mean `policy`?",
                "config.json:3:35: quorum: found the quoted text \"majorty\"; allowed: none, majority; did you mean `majority`?",
                "config.json:3:62: heartbeat_ms: found 0; allowed: a whole number from 1 to 3600000",
                "config.json:3:72: tls.key: missing; give the name of a PEM file; a node needs cert, key and ca, a client ca alone",
                "config.json:3:72: tls.ca: missing; give the name of a PEM file; a node needs cert, key and ca, a client ca alone",
            ],
        );
        refuses(
            "{}",
            &[
                r#"config.json: peers: missing; give every node of the cluster: "peers": [{"id": 1, "address": "192.168.1.100:7001"}, ..]"#,
            ],
        );
    }

    #[test]
    fn a_suspicion_below_two_heartbeats_is_refused() {
        refuses(
            r#"{"peers": [{"id": 1, "address": "a:1"}], "heartbeat_ms": 300}"#,
            &[
                "config.json:1:58: suspicion_ms: suspicion_ms is 500, heartbeat_ms is 300: one late heartbeat would cost \
               the leader its office; allowed: a suspicion of at least two heartbeats",
            ],
        );
    }

    #[test]
    fn modes_are_those_of_plain_files_that_their_owner_can_use() {
        for (text, file, folder) in [("0600", 0o600, 0o700), ("644", 0o644, 0o755), ("0660", 0o660, 0o770)] {
            let mode: FileMode = text.parse().expect("sound");
            assert_eq!((mode.file(), mode.folder()), (file, folder), "{text}");
        }
        for text in ["", "0", "0400", "0755", "4644", "00644", "0x1a", "rw-r--r--", "-644", "0648"] {
            assert_eq!(text.parse::<FileMode>(), Err(FileModeError), "{text}");
        }
        refuses(
            r#"{"peers": [{"id": 1, "address": "a:1"}], "file_mode": "0755"}"#,
            &[
                "config.json:1:55: file_mode: found the quoted text \"0755\"; allowed: an octal mode in quotes that its owner \
               can read and write and nobody execute, such as \"0600\" or \"0644\"",
            ],
        );
    }

    #[test]
    fn peers_in_one_line_are_checked_as_strictly() {
        let errors = parse_peers("1=a:1, 1=b:1,x=c:1,3=a:1,,4").expect_err("refused").to_string();
        assert_eq!(
            errors.lines().collect::<Vec<_>>(),
            [
                "PEERS:1:8: found `1=b:1`; allowed: an id before the `=`, a whole number from 1 to 4294967295, each once",
                "PEERS:1:14: found `x=c:1`; allowed: an id before the `=`, a whole number from 1 to 4294967295, each once",
                "PEERS:1:20: found `3=a:1`; allowed: an address such as 192.168.1.100:7001, each once, after the `=`",
                "PEERS:1:26: found nothing; allowed: ID=HOST:PORT, such as 1=192.168.1.100:7001",
                "PEERS:1:27: found `4`; allowed: ID=HOST:PORT, such as 1=192.168.1.100:7001",
            ]
        );
    }

    #[test]
    fn addresses() {
        for (sound, read) in [
            ("a:1", "a:1"),
            ("127.0.0.1:65535", "127.0.0.1:65535"),
            ("[::1]:80", "[::1]:80"),
            ("[0:0:0:0:0:0:0:1]:80", "[::1]:80"),
            ("[::FFFF:10.0.0.1]:80", "10.0.0.1:80"),
            ("My_Host.example:7001", "my_host.example:7001"),
            ("4pc.example.:07001", "4pc.example.:7001"),
            ("0x.example:1", "0x.example:1"),
        ] {
            assert_eq!(address(sound).as_deref(), Ok(read));
        }
        for unsound in [
            "",
            "a",
            ":1",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a b:1",
            "::1:80",
            "[a]:1",
            "a/b:1",
            "http://a:1",
            "0:1",
            "127.1:1",
            "0x0:1",
            "10.0.0.256:1",
            "1.2.3.4.:1",
            ".:1",
            "[::1%1]:1",
        ] {
            assert_eq!(address(unsound), Err(ADDRESS), "{unsound}");
        }
        for any in ["0.0.0.0:7001", "[::]:7001", "[0:0::0]:7001", "[::ffff:0.0.0.0]:7001"] {
            assert_eq!(address(any), Err(ANY_ADDRESS), "{any}");
        }
        for many in ["255.255.255.255:7001", "224.0.0.1:7001", "[ff02::1]:7001"] {
            assert_eq!(address(many), Err(ONE_ADDRESS), "{many}");
        }
    }

    #[test]
    fn an_address_of_all_machines_is_no_peer_s() {
        let errors = parse(
            "config.json",
            r#"{"peers": [{"id": 1, "address": "0.0.0.0:7001"}, {"id": 2, "address": "[::]:7002"}]}"#,
        );
        let errors = errors.expect_err("refused").to_string();
        let lines: Vec<&str> = errors.lines().collect();
        assert_eq!(lines.len(), 2, "{errors}");
        let first = "config.json:1:33: peers.address: found the quoted text \"0.0.0.0:7001\"; allowed: the address at which the other \
                     nodes reach this one, such as 192.168.1.100:7001 (";
        assert!(lines[0].starts_with(first), "{errors}");
        assert!(
            lines[1].starts_with("config.json:1:71: peers.address: found the quoted text \"[::]:7002\"; allowed: "),
            "{errors}"
        );
        let errors = parse_peers("1=0.0.0.0:7001").expect_err("refused").to_string();
        assert!(errors.starts_with("PEERS:1:1: found `1=0.0.0.0:7001`; allowed: the address at which"), "{errors}");
    }

    #[test]
    fn who_is_proven_by_nothing_else_is_proven_by_its_address() {
        let with =
            |rest: &str| read(&format!(r#"{{"peers": [{{"id": 1, "address": "a:1"}}]{rest}}}"#)).checks_addresses();
        assert!(
            with("") && with(r#", "key_file": "k""#) && with(r#", "peer_addresses": "listed", "peer_key_file": "p""#)
        );
        assert!(!with(r#", "peer_key_file": "p""#) && !with(r#", "peer_addresses": "any""#));
        refuses(
            r#"{"peers": [{"id": 1, "address": "a:1"}], "peer_addresses": "all"}"#,
            &["config.json:1:60: peer_addresses: found the quoted text \"all\"; allowed: listed, any"],
        );
    }
}
