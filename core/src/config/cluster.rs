//! The cluster file, `config.json`: who the peers are, where uploads go, how soon a silent leader is replaced.
//!
//! The same file lies on every machine. What must agree is the list of peers, and [`Peers::digest`] says whether it
//! does: it depends on ids and addresses only, not on their order or on spaces.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    ConfigErrors, Leniency, Parsed, Place, Problem,
    yaml::{self, Entry, Node, Reader, Value, nearest},
};
use crate::{
    peer::{Digest, NodeId},
    printable::printable_within,
};

/// Everything `config.json` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `peers`.
    pub peers: Peers,
    /// `shared_dir`, where stored uploads lie and nothing else of ours. Default `./shared_images`.
    pub shared_dir: PathBuf,
    /// `policy`. Default `least-load`.
    pub policy: Policy,
    /// `quorum`. Default `none`.
    pub quorum: Quorum,
    /// `durability`. Default `fsync`.
    pub durability: Durability,
    /// `heartbeat_ms`, `suspicion_ms`, `answer_ms`, `steady_ms`.
    pub timing: Timing,
    /// `upload_limit`: bytes of the largest upload. Default 4 GiB.
    pub upload_limit: u64,
    /// `key_file`: a key that all nodes and clients share; who lacks it gets nothing.
    pub key_file: Option<PathBuf>,
    /// `tls`: encrypts what passes between nodes and clients.
    pub tls: Option<Tls>,
}

impl ClusterConfig {
    /// These peers, and the default of everything else.
    #[must_use]
    pub fn new(peers: Peers) -> Self {
        Self {
            peers,
            shared_dir: PathBuf::from(SHARED_DIR_DEFAULT),
            policy: Policy::default(),
            quorum: Quorum::default(),
            durability: Durability::default(),
            timing: Timing::default(),
            upload_limit: UPLOAD_LIMIT_DEFAULT,
            key_file: None,
            tls: None,
        }
    }
}

/// Which node takes the next upload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// `least-load`: fewest uploads assigned so far.
    #[default]
    LeastLoad,
    /// `least-outstanding`: fewest under way.
    LeastOutstanding,
    /// `power-of-two`: of two drawn at random, the one with fewer under way.
    PowerOfTwo,
    /// `peak-ewma`: the lowest product of recent latency and uploads under way.
    PeakEwma,
    /// `round-robin`: one after another.
    RoundRobin,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&POLICIES, *self))
    }
}

/// Whether a leader needs others in order to serve.
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

/// How long what takes in an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader is heard. Default 100 ms.
    pub heartbeat: Duration,
    /// Silence after which a leader counts as gone. Default 500 ms: four heartbeats in a row may be lost.
    pub suspicion: Duration,
    /// How long higher nodes have to answer a challenge. Default 300 ms: above three retransmissions within one network.
    pub answer: Duration,
    /// How long a returning higher node must have been reachable before it takes over. Default 2 s, so that a node that
    /// comes and goes does not take the leadership with it each time.
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
    /// `cert`: what this node shows.
    pub cert: PathBuf,
    /// `key`: the private key to it.
    pub key: PathBuf,
    /// `ca`: who must have signed what others show.
    pub ca: PathBuf,
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

    /// Where `id` listens; `None` if it is no peer.
    #[must_use]
    pub fn address(&self, id: NodeId) -> Option<&str> {
        self.0.get(&id).map(String::as_str)
    }

    /// What two nodes compare to learn whether they were given the same list: SHA-256 over `id=address` lines by id.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let lines: String = self.0.iter().map(|(id, address)| format!("{}={address}\n", id.0)).collect();
        Digest::of(lines.as_bytes())
    }
}

const SHARED_DIR_DEFAULT: &str = "./shared_images";
const UPLOAD_LIMIT_DEFAULT: u64 = 4 << 30;

/// More nodes than a full mesh of heartbeats is made for.
const PEERS_MAX: usize = 1_000;

const POLICIES: [(&str, Policy); 5] = [
    ("least-load", Policy::LeastLoad),
    ("least-outstanding", Policy::LeastOutstanding),
    ("power-of-two", Policy::PowerOfTwo),
    ("peak-ewma", Policy::PeakEwma),
    ("round-robin", Policy::RoundRobin),
];
const QUORUMS: [(&str, Quorum); 2] = [("none", Quorum::None), ("majority", Quorum::Majority)];
const DURABILITIES: [(&str, Durability); 2] = [("fsync", Durability::Fsync), ("none", Durability::None)];

const KEYS: &[&str] = &[
    "peers",
    "shared_dir",
    "policy",
    "quorum",
    "durability",
    "heartbeat_ms",
    "suspicion_ms",
    "answer_ms",
    "steady_ms",
    "upload_limit",
    "key_file",
    "tls",
];

const PEER: &str = r#"a peer such as {"id": 1, "address": "192.168.1.100:7001"}"#;
const ADDRESS: &str = "an address such as 192.168.1.100:7001, each once";
const ID: &str = "a whole number from 1 to 4294967295, each once";

/// Reads the cluster file `file`, whose content is `text`.
///
/// # Errors
/// All that is wrong with the file.
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
/// All that is wrong with it; a place's column counts characters of the value.
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
        let address = self::address(address);
        if address.as_ref().is_none_or(|address| gathered.addresses.contains_key(address)) {
            refuse(format!("{ADDRESS}, after the `=`"));
        }
        gathered.add(id, address);
    }
    reader.finish(Some(Peers(gathered.ids))).map(|parsed| parsed.value)
}

/// Reads every key before giving up on any, so that all errors are found at once.
fn config(reader: &mut Reader<'_>) -> Option<ClusterConfig> {
    let peers = peers(reader);
    let shared_dir = path(reader, "shared_dir", Some(SHARED_DIR_DEFAULT));
    let policy = one_of(reader, "policy", &POLICIES);
    let quorum = one_of(reader, "quorum", &QUORUMS);
    let durability = one_of(reader, "durability", &DURABILITIES);
    let timing = timing(reader);
    let upload_limit = if reader.has("upload_limit") {
        reader.whole("upload_limit", 1, i64::MAX.into()).and_then(|limit| u64::try_from(limit).ok())
    } else {
        Some(UPLOAD_LIMIT_DEFAULT)
    };
    let key_file = path(reader, "key_file", None);
    let tls = tls(reader);
    Some(ClusterConfig {
        peers: peers?,
        shared_dir: shared_dir??,
        policy: policy?,
        quorum: quorum?,
        durability: durability?,
        timing: timing?,
        upload_limit: upload_limit?,
        key_file: key_file?,
        tls: tls?,
    })
}

/// Peers as they are read; what is found twice is reported by who reads, and kept out.
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
            Value::Scalar { text, style: saphyr_parser::ScalarStyle::Plain } => match yaml::number(text)? {
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
        let address = get("address").and_then(|node| match &node.value {
            Value::Scalar { text, .. } => address(text),
            _ => None,
        });
        match get("address") {
            None => reader.error("peers.address", Some(item.place), Problem::Missing("give the node's host:port")),
            Some(node) if address.as_ref().is_none_or(|address| gathered.addresses.contains_key(address)) => {
                reader.not_allowed("peers.address", node, ADDRESS, None);
            }
            Some(_) => {}
        }
        gathered.add(id, address);
    }
    (gathered.ids.len() == items.len()).then_some(Peers(gathered.ids))
}

/// `host:port`: a name, an IPv4 address or an IPv6 address in brackets, and a port of at least 1. Names have no case.
fn address(text: &str) -> Option<String> {
    let text = text.trim();
    let (host, port) = text.rsplit_once(':')?;
    let sound = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok()),
        None => {
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
            (1..=253).contains(&host.len()) && host.chars().all(allowed)
        }
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = digits.then(|| port.parse().ok()).flatten().filter(|port| *port > 0)?;
    sound.then(|| format!("{}:{port}", host.to_ascii_lowercase()))
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

/// One of a few texts, or the default.
fn one_of<T: Copy + Default>(reader: &mut Reader<'_>, key: &str, all: &[(&'static str, T)]) -> Option<T> {
    let Some(node) = reader.get(key).cloned() else { return Some(T::default()) };
    let names = all.iter().map(|(name, _)| *name);
    let mut suggestion = None;
    if let Value::Scalar { text, .. } = &node.value {
        if let Some((_, value)) = all.iter().find(|(name, _)| name == text) {
            return Some(*value);
        }
        suggestion = nearest(text, names.clone());
    }
    reader.not_allowed(key, &node, names.collect::<Vec<_>>().join(", "), suggestion);
    None
}

fn name_of<T: PartialEq>(all: &[(&'static str, T)], value: T) -> &'static str {
    all.iter().find(|(_, other)| *other == value).expect("every value has its name").0
}

fn timing(reader: &mut Reader<'_>) -> Option<Timing> {
    let default = Timing::default();
    let mut read = |key, default: Duration| {
        if !reader.has(key) {
            return Some(default);
        }
        // An hour is longer than anybody waits for a leader.
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
                let hint = "give the name of a PEM file; cert, key and ca belong together";
                reader.error(&format!("tls.{key}"), Some(node.place), Problem::Missing(hint));
                None
            }
        }
    };
    let (cert, key, ca) = (file("cert"), file("key"), file("ca"));
    Some(Some(Tls { cert: cert?, key: key?, ca: ca? }))
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
                "quorum": "majority", "durability": "none", "heartbeat_ms": 10, "suspicion_ms": 50, "answer_ms": 30,
                "steady_ms": 200, "upload_limit": 1048576, "key_file": "k", "tls": {"cert": "c", "key": "d", "ca": "e"}}"#,
        );
        let ms = Duration::from_millis;
        let want = ClusterConfig {
            peers: parse_peers("7=host-a:1").expect("sound"),
            shared_dir: "/srv/up".into(),
            policy: Policy::PeakEwma,
            quorum: Quorum::Majority,
            durability: Durability::None,
            timing: Timing { heartbeat: ms(10), suspicion: ms(50), answer: ms(30), steady: ms(200) },
            upload_limit: 1 << 20,
            key_file: Some("k".into()),
            tls: Some(Tls { cert: "c".into(), key: "d".into(), ca: "e".into() }),
        };
        assert_eq!(config, want);
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
                "config.json:3:72: tls.key: missing; give the name of a PEM file; cert, key and ca belong together",
                "config.json:3:72: tls.ca: missing; give the name of a PEM file; cert, key and ca belong together",
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
        for sound in ["a:1", "127.0.0.1:65535", "[::1]:80", "my_host.example:7001"] {
            assert!(address(sound).is_some(), "{sound}");
        }
        for unsound in
            ["", "a", ":1", "a:", "a:0", "a:65536", "a:+1", "a b:1", "::1:80", "[a]:1", "a/b:1", "http://a:1"]
        {
            assert!(address(unsound).is_none(), "{unsound}");
        }
    }
}
