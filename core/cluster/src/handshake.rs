//! Which connections a cluster's node accepts: what both sides send first on each, and what each side must prove.
//!
//! ```text
//!  connector                                      acceptor
//!  greeting · part · wants a key? · nonce ────▶
//!                                         ◀────   greeting · part · wants a key? · nonce · its proof
//!  1 · its proof  (or 0, and nothing)     ────▶   from a client: only now is a frame read
//!                                         ◀────   to a peer: the verdict, and only then is a frame read
//! ```
//!
//! The role that the connector asks for, its [`Part`], decides which key both sides prove and what is read from it:
//! clients prove the key of clients and can send requests only; peers prove the key of peers, and only they can send
//! ballots, books and orders. If no key is set for peers, a peer must also connect from its address in the list
//! ([`crate::admission`]).
//!
//! A proof is HMAC-SHA256 (RFC 2104, FIPS 198-1) under the prover's key over the side, the part, both nonces, both ids
//! and the version. So a proof recorded elsewhere, on another connection, from the other side, in another part or for
//! another node, is not valid. Without a key the proofs are omitted, and a side that has one refuses a side that has
//! none.
//!
//! The greeting keeps its layout in all versions, so that two versions can identify each other.
//!
//! A proof authenticates a side when a connection begins. It does not protect what passes later from an attacker that
//! can change packets on the way; TLS does.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::peer::NodeId;
use omb_machine::printable::printable_within;

const MAGIC: [u8; 4] = *b"omb:";

/// Bytes of a [`Greeting`].
pub const GREETING_BYTES: usize = 10;

/// Bytes of what follows a greeting in this version: the part, whether a key is required, and a nonce.
pub const TERMS_BYTES: usize = 34;

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;

/// The sender and its version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Version of the protocol.
    pub version: u16,
    /// The node; `None` from a client.
    pub node: Option<NodeId>,
}

impl Greeting {
    /// Its bytes.
    #[must_use]
    pub fn encode(self) -> [u8; GREETING_BYTES] {
        let [v, w] = self.version.to_le_bytes();
        let [a, b, c, d] = id(self.node);
        let [m, n, o, p] = MAGIC;
        [m, n, o, p, v, w, a, b, c, d]
    }

    /// Reads a greeting of any version.
    ///
    /// # Errors
    /// If the other side speaks another protocol; which one, if that is recognized.
    pub fn decode(bytes: [u8; GREETING_BYTES]) -> Result<Self, Refusal> {
        let [m, n, o, p, v, w, a, b, c, d] = bytes;
        match [m, n, o, p] {
            MAGIC => {}
            // A record of TLS: alert, or handshake (RFC 8446, section 5.1).
            [0x15 | 0x16, 3, ..] => return Err(Refusal::Tls),
            [b'H', b'T', b'T', b'P'] => return Err(Refusal::Http),
            _ => return Err(Refusal::Stranger),
        }
        let node = Some(NodeId(u32::from_le_bytes([a, b, c, d]))).filter(|node| node.0 > 0);
        Ok(Self { version: u16::from_le_bytes([v, w]), node })
    }
}

fn id(node: Option<NodeId>) -> [u8; 4] {
    node.map_or(0, |node| node.0).to_le_bytes()
}

/// A number used once: 32 bytes that cannot be guessed and that do not occur twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; 32]);

/// The role of one side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Has connected as a client: sends requests.
    Client,
    /// Has connected as a peer: sends messages between nodes.
    Peer,
    /// Has connected as a peer: sends orders, and the bodies that belong to them.
    Order,
    /// Was connected to.
    Node,
}

impl Part {
    /// Whether it is the part of a connector that must prove to be a peer.
    #[must_use]
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Peer | Self::Order)
    }

    fn byte(self) -> u8 {
        match self {
            Self::Client => 0,
            Self::Peer => 1,
            Self::Order => 2,
            Self::Node => 3,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Client, Self::Peer, Self::Order, Self::Node].into_iter().find(|part| part.byte() == byte)
    }
}

/// The opening message of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its greeting.
    pub greeting: Greeting,
    /// Its role: [`Part::Client`] exactly if it greets without a node id.
    pub part: Part,
    /// Of a side that has a key, and requires the other one to prove it.
    pub nonce: Option<Nonce>,
}

impl Opening {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.greeting.encode().to_vec();
        bytes.push(self.part.byte());
        bytes.push(u8::from(self.nonce.is_some()));
        bytes.extend(self.nonce.map_or([0; 32], |nonce| nonce.0));
        bytes
    }

    /// Reads what follows `greeting`, which is of this version.
    ///
    /// # Errors
    /// If no node or client sends this.
    pub fn decode(greeting: Greeting, terms: [u8; TERMS_BYTES]) -> Result<Self, Refusal> {
        let [part, wanted, nonce @ ..] = terms;
        let part = Part::of(part).filter(|part| (*part == Part::Client) == greeting.node.is_none());
        let part = part.ok_or(Refusal::Stranger)?;
        let nonce = match wanted {
            0 if nonce == [0; 32] => None,
            1 => Some(Nonce(nonce)),
            _ => return Err(Refusal::Stranger),
        };
        Ok(Self { greeting, part, nonce })
    }
}

/// The keys that one side has.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// `key_file`: what clients prove.
    pub clients: Option<Key>,
    /// `peer_key_file`: what peers prove. Clients do not have it.
    pub peers: Option<Key>,
}

impl Keys {
    /// The key to prove on a connection whose connector has this part. Peers without a key of their own prove that of
    /// clients, which alone does not prove a peer: they also need their address.
    #[must_use]
    pub fn of(&self, connector: Part) -> Option<&Key> {
        if connector.is_peer() { self.peers.as_ref().or(self.clients.as_ref()) } else { self.clients.as_ref() }
    }
}

/// A secret of a cluster, shared by its nodes, or by nodes and clients. Its bytes are never shown.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// Fewest bytes of a key. Of random bytes 16 cannot be guessed; a sentence should be longer.
    pub const BYTES_MIN: usize = 16;

    /// A key of these bytes; of a key longer than 64 bytes its SHA-256 is used (RFC 2104, section 2).
    ///
    /// # Errors
    /// If they are fewer than [`Self::BYTES_MIN`].
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        if bytes.len() < Self::BYTES_MIN {
            return Err(KeyError { found: bytes.len() });
        }
        Ok(Self(Hmac::new_from_slice(bytes).expect("HMAC takes keys of any length")))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Too few bytes for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("holds {found} bytes; allowed: a key of at least {} bytes", Key::BYTES_MIN)]
pub struct KeyError {
    /// How many there are.
    pub found: usize,
}

/// One of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The side that connected. Proves last.
    Connector,
    /// The side that was connected to. Proves first, so that a connection alone yields no material for guessing.
    Acceptor,
}

impl Side {
    /// What the proof's input begins with.
    fn label(self) -> &'static [u8; 22] {
        match self {
            Self::Connector => b"omb cluster: connector",
            Self::Acceptor => b"omb cluster: acceptor ",
        }
    }
}

/// Two compatible sides; what each has to prove, if there is a key.
#[derive(Clone, Debug)]
pub struct Meeting(Option<Keyed>);

#[derive(Clone, Debug)]
struct Keyed {
    key: Key,
    version: u16,
    part: Part,
    nonces: [Nonce; 2],
    nodes: [Option<NodeId>; 2],
}

impl Meeting {
    /// After both have opened, as seen from `side`, whose key this is: that of [`Keys::of`] the connector's part.
    ///
    /// # Errors
    /// If they speak different versions, only one of them has a key, or one of them has no such part.
    pub fn new(side: Side, key: Option<&Key>, connector: &Opening, acceptor: &Opening) -> Result<Self, Refusal> {
        let (mine, theirs) = match side {
            Side::Connector => (connector, acceptor),
            Side::Acceptor => (acceptor, connector),
        };
        fits(mine.greeting, theirs.greeting)?;
        if connector.part == Part::Node || acceptor.part != Part::Node {
            return Err(Refusal::Stranger);
        }
        let peers = connector.part.is_peer();
        match (key, connector.nonce, acceptor.nonce) {
            (Some(key), Some(connectors), Some(acceptors)) => Ok(Self(Some(Keyed {
                key: key.clone(),
                version: mine.greeting.version,
                part: connector.part,
                nonces: [connectors, acceptors],
                nodes: [connector.greeting.node, acceptor.greeting.node],
            }))),
            (None, None, None) => Ok(Self(None)),
            _ if theirs.nonce.is_some() => Err(Refusal::KeyWanted { peers }),
            _ => Err(Refusal::KeyLacking { peers }),
        }
    }

    /// What `side` sends to prove that it knows the key; nothing without one.
    #[must_use]
    pub fn proof(&self, side: Side) -> Option<[u8; PROOF_BYTES]> {
        self.0.as_ref().map(|keyed| keyed.mac(side).finalize().into_bytes().into())
    }

    /// Whether this is what `side` has to send. Takes constant time, wherever it differs.
    ///
    /// # Errors
    /// If it is not: that side has another key, or none.
    pub fn check(&self, side: Side, proof: &[u8]) -> Result<(), Refusal> {
        let Some(keyed) = &self.0 else { return Err(Refusal::Stranger) };
        let peers = keyed.part.is_peer();
        keyed.mac(side).verify_slice(proof).map_err(|_| Refusal::WrongKey { peers })
    }
}

impl Keyed {
    /// Every field has a fixed length, so no two inputs coincide.
    fn mac(&self, side: Side) -> Hmac<Sha256> {
        let mut mac = self.key.0.clone();
        mac.update(side.label());
        mac.update(&[self.part.byte()]);
        mac.update(&self.version.to_le_bytes());
        self.nonces.iter().for_each(|nonce| mac.update(&nonce.0));
        self.nodes.iter().for_each(|node| mac.update(&id(*node)));
        mac
    }
}

/// Whether two greetings are of the same version.
///
/// # Errors
/// If they are not.
pub fn fits(mine: Greeting, theirs: Greeting) -> Result<(), Refusal> {
    if mine.version == theirs.version {
        Ok(())
    } else {
        Err(Refusal::Version { theirs: theirs.version, ours: mine.version })
    }
}

/// Why one side refuses the other, which is "it" in the messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No node and no client of ours sends this.
    #[error("what speaks there is no node of a cluster")]
    Stranger,
    /// TLS at a port without TLS, or the reverse.
    #[error("one side speaks TLS and the other does not: tls in config.json must be the same everywhere")]
    Tls,
    /// TLS that fails: an untrusted certificate, or no TLS where it is required; as text.
    #[error("{0}")]
    Unsecured(String),
    /// HTTP, as workers speak it.
    #[error("HTTP is spoken there, as by a worker: give the port of a node")]
    Http,
    /// Another version.
    #[error("it speaks version {theirs} of the protocol, this is version {ours}")]
    Version {
        /// What it speaks.
        theirs: u16,
        /// What is spoken here.
        ours: u16,
    },
    /// It has a key, this side has none.
    #[error("it asks for {}: give {} in config.json", key_of(*.peers), file_of(*.peers))]
    KeyWanted {
        /// Whether that is the key of peers.
        peers: bool,
    },
    /// It has no key, this side has one.
    #[error("it lacks {}, which this side has: {} in config.json must be given {}", key_of(*.peers), file_of(*.peers), holders(*.peers))]
    KeyLacking {
        /// Whether that is the key of peers.
        peers: bool,
    },
    /// It has another key.
    #[error("it does not know {}: {} must hold the same {}", key_of(*.peers), file_of(*.peers), holders(*.peers))]
    WrongKey {
        /// Whether that is the key of peers.
        peers: bool,
    },
    /// A peer that connects from an address that is not its own.
    #[error(
        "it comes from {from}, but its address in the list of peers, {listed}, stands for {}: without peer_key_file a peer is \
         believed only there (\"peer_addresses\": \"any\" believes it anywhere)",
        list(.stands_for)
    )]
    Elsewhere {
        /// The address that it connected from.
        from: IpAddr,
        /// Its address in the list of peers.
        listed: String,
        /// The addresses that its host name resolves to now.
        stands_for: Vec<IpAddr>,
    },
    /// A peer whose host name cannot be resolved, so that its addresses are unknown.
    #[error("its address in the list of peers, {listed}, cannot be looked up: {why}")]
    Unresolved {
        /// Its address in the list of peers.
        listed: String,
        /// Why, as text.
        why: String,
    },
    /// A peer whose certificate is not for its host.
    #[error("{0}: each node must show the others a certificate for its host in the list of peers")]
    Uncertified(String),
    /// The other side refuses this one, for this reason.
    #[error("{0}")]
    Objected(Objection),
    /// A node other than the expected one.
    #[error("another node listens there")]
    OtherNode,
    /// It has this node's id.
    #[error("it has this node's id: each node needs its own")]
    SameNode,
    /// A node that is not in the list of peers.
    #[error("it is a node that is not among the peers in config.json")]
    NoPeer,
}

/// How the text of a TLS refusal by the other side begins.
const THEIR_WORD: &str = "it does not take this side's certificate";

impl Refusal {
    /// TLS that failed, from its library's message.
    #[must_use]
    pub fn unsecured(message: &str) -> Self {
        let message = printable_within(message, 300);
        // The time of the check, in seconds since 1970, is of no use.
        let short = message.split(": verification time").next().unwrap_or(&message);
        let means = [
            ("received fatal alert", THEIR_WORD),
            ("CaUsedAsEndEntity", "its certificate is an authority's own, and none that `ca` has signed"),
            ("certificate expired", "its certificate has expired"),
            ("UnknownIssuer", "its certificate is signed by nobody in `ca`"),
            ("BadSignature", "its certificate is not signed by the `ca` that it names"),
        ];
        let means = means.into_iter().find(|(words, _)| message.contains(words));
        Self::Unsecured(means.map_or_else(|| message.clone(), |(_, means)| format!("{means} ({short})")))
    }

    /// Whether this is the other side's refusal of this one.
    #[must_use]
    pub fn is_theirs(&self) -> bool {
        matches!(self, Self::Objected(_)) || matches!(self, Self::Unsecured(why) if why.starts_with(THEIR_WORD))
    }
}

fn key_of(peers: bool) -> &'static str {
    if peers { "the key of peers" } else { "the shared key" }
}

fn file_of(peers: bool) -> &'static str {
    if peers { "peer_key_file (or key_file, where that is not given)" } else { "key_file" }
}

fn holders(peers: bool) -> &'static str {
    if peers { "on all nodes" } else { "everywhere" }
}

/// `10.0.0.1, 10.0.0.2`, at most [`SHOWN_MAX`] of them.
fn list(addresses: &[IpAddr]) -> String {
    if addresses.is_empty() {
        return "no address".to_owned();
    }
    let shown: Vec<String> = addresses.iter().take(SHOWN_MAX).map(ToString::to_string).collect();
    let more = if addresses.len() > SHOWN_MAX { ", .." } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// Addresses of a name that are shown, or sent, in a refusal.
const SHOWN_MAX: usize = 4;

/// Bytes of a verdict: its code, how many addresses follow, and space for one and `SHOWN_MAX` of them.
pub const VERDICT_BYTES: usize = 2 + 16 * (1 + SHOWN_MAX);

/// Why the other side, a node, refuses this one, a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// See [`Refusal::WrongKey`].
    #[error("this node has another key of peers than it: peer_key_file must hold the same on all nodes")]
    Key,
    /// See [`Refusal::Elsewhere`].
    #[error(
        "this node comes to it from {from}, and its address in the list of peers stands there for {}: list that address, \
         give all nodes a peer_key_file, or set \"peer_addresses\": \"any\"",
        list(.stands_for)
    )]
    Elsewhere {
        /// The address that this node connected from.
        from: IpAddr,
        /// Some of the addresses that this node's name in the list resolves to there.
        stands_for: Vec<IpAddr>,
    },
    /// See [`Refusal::Unresolved`].
    #[error("it cannot look up this node's address in the list of peers")]
    Unresolved,
    /// See [`Refusal::Uncertified`].
    #[error("this node's certificate does not vouch for its host in the list of peers, or it shows none")]
    Uncertified,
    /// See [`Refusal::SameNode`].
    #[error("it has this node's id: each node needs its own")]
    SameNode,
    /// See [`Refusal::NoPeer`].
    #[error("this node is not in its list of peers")]
    NoPeer,
}

impl Objection {
    /// What is sent to a peer that is refused like this; `None` if nothing is sent.
    #[must_use]
    pub fn of(refusal: &Refusal) -> Option<Self> {
        Some(match refusal {
            Refusal::WrongKey { .. } => Self::Key,
            Refusal::Elsewhere { from, stands_for, .. } => {
                Self::Elsewhere { from: *from, stands_for: stands_for.iter().copied().take(SHOWN_MAX).collect() }
            }
            Refusal::Unresolved { .. } => Self::Unresolved,
            Refusal::Uncertified(_) => Self::Uncertified,
            Refusal::SameNode => Self::SameNode,
            Refusal::NoPeer => Self::NoPeer,
            _ => return None,
        })
    }
}

/// The bytes of a verdict on a peer: `None` accepts it.
#[must_use]
pub fn encode_verdict(verdict: Option<&Objection>) -> [u8; VERDICT_BYTES] {
    let (code, addresses) = match verdict {
        None => (0, Vec::new()),
        Some(Objection::Key) => (1, Vec::new()),
        Some(Objection::Elsewhere { from, stands_for }) => {
            (2, [from].into_iter().chain(stands_for.iter().take(SHOWN_MAX)).copied().collect())
        }
        Some(Objection::Unresolved) => (3, Vec::new()),
        Some(Objection::Uncertified) => (4, Vec::new()),
        Some(Objection::SameNode) => (5, Vec::new()),
        Some(Objection::NoPeer) => (6, Vec::new()),
    };
    let mut bytes = [0; VERDICT_BYTES];
    bytes[0] = code;
    bytes[1] = u8::try_from(addresses.len()).expect("few");
    for (chunk, address) in bytes[2..].chunks_exact_mut(16).zip(addresses) {
        let octets = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
            IpAddr::V6(address) => address.octets(),
        };
        chunk.copy_from_slice(&octets);
    }
    bytes
}

/// Reads a verdict.
///
/// # Errors
/// If it is a refusal, or no node sends this.
pub fn decode_verdict(bytes: &[u8; VERDICT_BYTES]) -> Result<(), Refusal> {
    let [code, count, rest @ ..] = bytes;
    let address = |octets: &[u8]| {
        let octets: [u8; 16] = octets.try_into().expect("a chunk of 16");
        IpAddr::from(Ipv6Addr::from(octets)).to_canonical()
    };
    let mut addresses = rest.chunks_exact(16).map(address).take(usize::from(*count));
    Err(Refusal::Objected(match (code, addresses.next()) {
        (0, None) => return Ok(()),
        (1, None) => Objection::Key,
        (2, Some(from)) => Objection::Elsewhere { from, stands_for: addresses.collect() },
        (3, None) => Objection::Unresolved,
        (4, None) => Objection::Uncertified,
        (5, None) => Objection::SameNode,
        (6, None) => Objection::NoPeer,
        _ => return Err(Refusal::Stranger),
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of a client (node 0), or of a peer.
    fn opening(node: u32, nonce: Option<[u8; 32]>) -> Opening {
        let node = Some(NodeId(node)).filter(|node| node.0 > 0);
        let part = if node.is_some() { Part::Peer } else { Part::Client };
        Opening { greeting: Greeting { version: 1, node }, part, nonce: nonce.map(Nonce) }
    }

    /// Of the node that is connected to.
    fn accepting(node: u32, nonce: Option<[u8; 32]>) -> Opening {
        Opening { part: Part::Node, ..opening(node, nonce) }
    }

    fn key(bytes: &[u8]) -> Key {
        Key::new(bytes).expect("long enough")
    }

    fn meet(side: Side, bytes: &[u8], connector: &Opening, acceptor: &Opening) -> Meeting {
        Meeting::new(side, Some(&key(bytes)), connector, acceptor).expect("they fit")
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 4231, test cases 2 (of HMAC alone, for the key is too short for ours) and 6.
    #[test]
    fn the_mac_is_hmac_sha_256() {
        let mac = |key: &[u8], text: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
            mac.update(text);
            hex(&mac.finalize().into_bytes())
        };
        let want = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(mac(b"Jefe", b"what do ya want for nothing?"), want);
        let want = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        assert_eq!(mac(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"), want);
    }

    /// Computed with Python's hmac from the description above.
    #[test]
    fn a_proof_is_what_others_would_compute() {
        let nonce = |from: u8| Some(std::array::from_fn(|nth| from + u8::try_from(nth).expect("below 32")));
        let (peer, client, acceptor) = (opening(2, nonce(0)), opening(0, nonce(0)), accepting(3, nonce(32)));
        let proof = |side, connector| {
            hex(&meet(side, b"sixteen bytes ok", connector, &acceptor).proof(side).expect("there is a key"))
        };
        let acceptors = "4577a04d4e425fa4b71bf36db38454a88b81152fe63fd71da473d3d0d7afa997";
        assert_eq!(proof(Side::Acceptor, &peer), acceptors);
        let connectors = "4b8378b141f2e41b81773bb14dfb24d0bca96bc707a26e937f783929249c31fd";
        assert_eq!(proof(Side::Connector, &peer), connectors);
        let clients = "798df97e5034f1598aa4eb5d56ce6f3e573ddab44cbb70e89ef767cc69d2bfe3";
        assert_eq!(proof(Side::Connector, &client), clients);
    }

    #[test]
    fn a_side_without_a_key_gets_nothing_from_one_with_it() {
        let some = key(&[1; 16]);
        let refused = |side, key, connector: &Opening, acceptor: &Opening| {
            Meeting::new(side, key, connector, acceptor).map(|_| ()).expect_err("only one of them has a key")
        };
        for (peers, node) in [(true, 1), (false, 0)] {
            let (bare, keyed) = (opening(node, None), accepting(2, Some([7; 32])));
            assert_eq!(refused(Side::Connector, None, &bare, &keyed), Refusal::KeyWanted { peers });
            assert_eq!(refused(Side::Acceptor, Some(&some), &bare, &keyed), Refusal::KeyLacking { peers });
            let (bare, keyed) = (accepting(2, None), opening(node, Some([7; 32])));
            assert_eq!(refused(Side::Connector, Some(&some), &keyed, &bare), Refusal::KeyLacking { peers });
            assert_eq!(refused(Side::Acceptor, None, &keyed, &bare), Refusal::KeyWanted { peers });
        }
        let open = Meeting::new(Side::Acceptor, None, &opening(1, None), &accepting(2, None)).expect("they fit");
        assert_eq!(open.proof(Side::Acceptor), None);
        assert_eq!(open.check(Side::Connector, &[0; 32]), Err(Refusal::Stranger));
    }

    #[test]
    fn short_keys_are_refused_and_no_key_is_shown() {
        let error = Key::new(b"fifteen bytes..").expect_err("15 bytes");
        assert_eq!(error.to_string(), "holds 15 bytes; allowed: a key of at least 16 bytes");
        assert_eq!(format!("{:?}", key(b"sixteen bytes ok")), "Key(..)");
    }

    #[test]
    fn another_version_is_told_apart_from_somebody_else() {
        let theirs = Greeting { version: 7, node: Some(NodeId(9)) };
        assert_eq!(Greeting::decode(theirs.encode()), Ok(theirs));
        let ours = Greeting { version: 1, node: None };
        assert_eq!(fits(ours, theirs), Err(Refusal::Version { theirs: 7, ours: 1 }));
        let decode = |bytes: &[u8; GREETING_BYTES]| Greeting::decode(*bytes);
        assert_eq!(decode(b"HTTP/1.1 4"), Err(Refusal::Http));
        assert_eq!(decode(&[0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3]), Err(Refusal::Tls));
        assert_eq!(decode(b"SSH-2.0-Op"), Err(Refusal::Stranger));
        assert_eq!(Opening::decode(ours, [2; TERMS_BYTES]), Err(Refusal::Stranger));
    }

    /// A client cannot open in the part of a peer, nor a node in that of a client.
    #[test]
    fn a_part_fits_who_greets() {
        for (node, part, fits) in [
            (0, 0, true),
            (0, 1, false),
            (0, 2, false),
            (0, 3, false),
            (2, 0, false),
            (2, 1, true),
            (2, 2, true),
            (2, 4, false),
        ] {
            let greeting = opening(node, None).greeting;
            let mut terms = [0; TERMS_BYTES];
            terms[0] = part;
            assert_eq!(Opening::decode(greeting, terms).is_ok(), fits, "{node} {part}");
        }
        let peer = opening(1, None);
        let accepts = |connector, acceptor| Meeting::new(Side::Acceptor, None, &connector, &acceptor).is_ok();
        assert!(accepts(peer, accepting(2, None)));
        assert!(!accepts(peer, opening(2, None)), "an acceptor has no other part");
        assert!(!accepts(accepting(1, None), accepting(2, None)));
    }

    /// The key of clients does not prove a peer, whatever its holder claims to be.
    #[test]
    fn the_key_of_clients_makes_no_peer() {
        let nodes = Keys { clients: Some(key(b"the key of clients")), peers: Some(key(b"the key of peers")) };
        let client = Keys { peers: None, ..nodes.clone() };
        let acceptor = accepting(3, Some([3; 32]));
        for part in [Part::Peer, Part::Order] {
            let forger = Opening { part, ..opening(2, Some([2; 32])) };
            let theirs = Meeting::new(Side::Connector, client.of(part), &forger, &acceptor).expect("it has a key");
            let ours = Meeting::new(Side::Acceptor, nodes.of(part), &forger, &acceptor).expect("so has the node");
            let proof = theirs.proof(Side::Connector).expect("there is a key");
            assert_eq!(ours.check(Side::Connector, &proof), Err(Refusal::WrongKey { peers: true }));
            // Nor does the proof of the same client as a client.
            let as_client = opening(0, Some([2; 32]));
            let theirs =
                Meeting::new(Side::Connector, client.of(Part::Client), &as_client, &acceptor).expect("it has a key");
            let proof = theirs.proof(Side::Connector).expect("there is a key");
            let both = Keys { peers: None, ..nodes.clone() };
            let ours = Meeting::new(Side::Acceptor, both.of(part), &forger, &acceptor).expect("so has the node");
            assert_eq!(
                ours.check(Side::Connector, &proof),
                Err(Refusal::WrongKey { peers: true }),
                "under one key, too"
            );
        }
        let bare = Keys { clients: None, ..nodes };
        assert!(bare.of(Part::Client).is_none() && bare.of(Part::Order).is_some(), "clients may come without a key");
    }

    #[test]
    fn verdicts_are_read_as_they_were_written() {
        let ips = |count: u8| (0..count).map(|nth| IpAddr::from([10, 0, 0, nth])).collect::<Vec<_>>();
        let from: IpAddr = "2001:db8::7".parse().expect("sound");
        let far = Refusal::Elsewhere { from, listed: "a:1".to_owned(), stands_for: ips(9) };
        let text = far.to_string();
        let begins = "it comes from 2001:db8::7, but its address in the list of peers, a:1, stands for 10.0.0.0, 10.0.0.1, 10.0.0.2, 10.0.0.3, ..:";
        assert!(text.starts_with(begins), "{text}");
        for refusal in [
            far,
            Refusal::WrongKey { peers: true },
            Refusal::Unresolved { listed: String::new(), why: String::new() },
            Refusal::Uncertified(String::new()),
            Refusal::SameNode,
            Refusal::NoPeer,
        ] {
            let objection = Objection::of(&refusal).expect("it is sent to a peer");
            let read = decode_verdict(&encode_verdict(Some(&objection)));
            assert_eq!(read, Err(Refusal::Objected(objection)));
        }
        assert_eq!(decode_verdict(&encode_verdict(None)), Ok(()));
        assert_eq!(decode_verdict(&[7; VERDICT_BYTES]), Err(Refusal::Stranger));
    }

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), Key::BYTES_MIN..200)
    }

    proptest! {
        #[test]
        fn who_shares_a_key_is_believed(bytes in keys(), nonces: [[u8; 32]; 2], ids in [0..5_u32, 1..5_u32]) {
            let (connector, acceptor) = (opening(ids[0], Some(nonces[0])), accepting(ids[1], Some(nonces[1])));
            for (prover, checker) in [(Side::Connector, Side::Acceptor), (Side::Acceptor, Side::Connector)] {
                let proof = meet(prover, &bytes, &connector, &acceptor).proof(prover).expect("there is a key");
                let checks = meet(checker, &bytes, &connector, &acceptor);
                prop_assert_eq!(checks.check(prover, &proof), Ok(()));
            }
            for opening in [connector, acceptor] {
                let sent = opening.encode();
                let (greeting, terms) = sent.split_at(GREETING_BYTES);
                let greeting = Greeting::decode(greeting.try_into().expect("its bytes")).expect("ours");
                prop_assert_eq!(Opening::decode(greeting, terms.try_into().expect("its bytes")), Ok(opening));
            }
        }

        /// A proof made for anything else is not valid here: other key, other side (reflected), other nonce (replayed),
        /// other ids, swapped ids or nonces, other version, cut short, one bit off.
        #[test]
        fn a_proof_holds_for_one_meeting_only(
            bytes in keys(),
            other_bytes in keys(),
            nonces: [[u8; 32]; 3],
            side in prop::sample::select(vec![Side::Connector, Side::Acceptor]),
            cut in 0..PROOF_BYTES,
            bit in 0..PROOF_BYTES * 8,
        ) {
            prop_assume!(bytes != other_bytes && nonces[0] != nonces[1] && nonces[1] != nonces[2] && nonces[0] != nonces[2]);
            let open = |node, nth: usize| opening(node, Some(nonces[nth]));
            let accept = |node, nth: usize| accepting(node, Some(nonces[nth]));
            let (connector, acceptor) = (open(2, 0), accept(3, 1));
            let proof = meet(side, &bytes, &connector, &acceptor).proof(side).expect("there is a key");
            let other = match side {
                Side::Connector => Side::Acceptor,
                Side::Acceptor => Side::Connector,
            };
            let refused = |meeting: Meeting, side, proof: &[u8]| matches!(meeting.check(side, proof), Err(Refusal::WrongKey { .. }));
            let same = || meet(other, &bytes, &connector, &acceptor);
            prop_assert!(refused(same(), other, &proof), "reflected");
            prop_assert!(refused(same(), side, &proof[..cut]), "cut short");
            let mut off = proof;
            off[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(refused(same(), side, &off), "one bit off");
            prop_assert!(refused(meet(other, &other_bytes, &connector, &acceptor), side, &proof), "another key");
            for (what, connector, acceptor) in [
                ("replayed to an acceptor", connector, accept(3, 2)),
                ("replayed to a connector", open(2, 2), acceptor),
                ("swapped ids", open(3, 0), accept(2, 1)),
                ("swapped nonces", open(2, 1), accept(3, 0)),
                ("a client for a peer", open(0, 0), acceptor),
                ("orders for ballots", Opening { part: Part::Order, ..connector }, acceptor),
                ("another peer", open(4, 0), acceptor),
                ("another node", connector, accept(1, 1)),
            ] {
                prop_assert!(refused(meet(other, &bytes, &connector, &acceptor), side, &proof), "{}", what);
            }
            let next = |mut opening: Opening| {
                opening.greeting.version = 2;
                opening
            };
            prop_assert!(refused(meet(other, &bytes, &next(connector), &next(acceptor)), side, &proof), "another version");
        }
    }
}
