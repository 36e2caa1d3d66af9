//! Who may speak with a cluster's node: what both sides say first on every connection, and what each must prove.
//!
//! ```text
//!  connector                                      acceptor
//!  greeting · wants a key? · nonce      ─────▶
//!                                       ◀─────    greeting · wants a key? · nonce · its proof
//!  1 · its proof  (or 0, and nothing)   ─────▶    only now is a frame read
//! ```
//!
//! A proof is HMAC-SHA256 (RFC 2104, FIPS 198-1) under the shared key of who proves, both nonces, both ids and the
//! version. So a proof that was heard elsewhere, on another connection, from the other side or for another node, is none. Without a key
//! the proofs are left out, and a side that has one refuses a side that has none.
//!
//! The greeting keeps its layout in all versions, so that two versions can tell each other what they are.
//!
//! A proof says who is there when a connection begins. It does not protect what passes later from whoever can change packets
//! on the way; TLS does.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::peer::NodeId;

const MAGIC: [u8; 4] = *b"omb:";

/// Bytes of a [`Greeting`].
pub const GREETING_BYTES: usize = 10;

/// Bytes of what follows a greeting in this version: whether a key is wanted, and a nonce.
pub const TERMS_BYTES: usize = 33;

/// Bytes of a proof.
pub const PROOF_BYTES: usize = 32;

/// Who speaks, and how.
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

    /// Reads a greeting of whatever version.
    ///
    /// # Errors
    /// If something else speaks there; what, where that can be told.
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

/// A number used once: 32 bytes that nobody can guess and that do not come twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce(pub [u8; 32]);

/// The first words of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Who it is.
    pub greeting: Greeting,
    /// Of a side that has a key, and wants the other one to know it.
    pub nonce: Option<Nonce>,
}

impl Opening {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.greeting.encode().to_vec();
        bytes.push(u8::from(self.nonce.is_some()));
        bytes.extend(self.nonce.map_or([0; 32], |nonce| nonce.0));
        bytes
    }

    /// Reads what follows `greeting`, which is of this version.
    ///
    /// # Errors
    /// If nobody of ours would write it.
    pub fn decode(greeting: Greeting, terms: [u8; TERMS_BYTES]) -> Result<Self, Refusal> {
        let [wanted, nonce @ ..] = terms;
        let nonce = match wanted {
            0 if nonce == [0; 32] => None,
            1 => Some(Nonce(nonce)),
            _ => return Err(Refusal::Stranger),
        };
        Ok(Self { greeting, nonce })
    }
}

/// A secret that all nodes and clients of a cluster share. Its bytes are never shown.
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

/// One of the two who meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who has made the connection. Proves last.
    Connector,
    /// Who was connected to. Proves first, so that it gives nothing to guess at by asking.
    Acceptor,
}

impl Side {
    /// What a proof begins with.
    fn label(self) -> &'static [u8; 22] {
        match self {
            Self::Connector => b"omb cluster: connector",
            Self::Acceptor => b"omb cluster: acceptor ",
        }
    }
}

/// Two sides that fit each other; what each has to prove, if there is a key.
#[derive(Clone, Debug)]
pub struct Meeting(Option<Keyed>);

#[derive(Clone, Debug)]
struct Keyed {
    key: Key,
    version: u16,
    nonces: [Nonce; 2],
    nodes: [Option<NodeId>; 2],
}

impl Meeting {
    /// After both have opened, as seen from `side`, whose key this is.
    ///
    /// # Errors
    /// If they speak different versions, or only one of them has a key.
    pub fn new(side: Side, key: Option<&Key>, connector: &Opening, acceptor: &Opening) -> Result<Self, Refusal> {
        let (mine, theirs) = match side {
            Side::Connector => (connector, acceptor),
            Side::Acceptor => (acceptor, connector),
        };
        fits(mine.greeting, theirs.greeting)?;
        match (key, connector.nonce, acceptor.nonce) {
            (Some(key), Some(connectors), Some(acceptors)) => Ok(Self(Some(Keyed {
                key: key.clone(),
                version: mine.greeting.version,
                nonces: [connectors, acceptors],
                nodes: [connector.greeting.node, acceptor.greeting.node],
            }))),
            (None, None, None) => Ok(Self(None)),
            _ if theirs.nonce.is_some() => Err(Refusal::KeyWanted),
            _ => Err(Refusal::KeyLacking),
        }
    }

    /// What `side` sends to prove that it knows the key; nothing without one.
    #[must_use]
    pub fn proof(&self, side: Side) -> Option<[u8; PROOF_BYTES]> {
        self.0.as_ref().map(|keyed| keyed.mac(side).finalize().into_bytes().into())
    }

    /// Whether this is what `side` has to send. Takes equally long wherever it differs.
    ///
    /// # Errors
    /// If it is not: that side has another key, or none.
    pub fn check(&self, side: Side, proof: &[u8]) -> Result<(), Refusal> {
        let Some(keyed) = &self.0 else { return Err(Refusal::Stranger) };
        keyed.mac(side).verify_slice(proof).map_err(|_| Refusal::WrongKey)
    }
}

impl Keyed {
    /// Every part has a fixed length, so no two things to prove look the same.
    fn mac(&self, side: Side) -> Hmac<Sha256> {
        let mut mac = self.key.0.clone();
        mac.update(side.label());
        mac.update(&self.version.to_le_bytes());
        self.nonces.iter().for_each(|nonce| mac.update(&nonce.0));
        self.nodes.iter().for_each(|node| mac.update(&id(*node)));
        mac
    }
}

/// Whether two greetings are of one version; needs no more than they say.
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

/// Why one side will not speak with the other, which "it" is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No node and no client of ours says such a thing.
    #[error("what speaks there is no node of a cluster")]
    Stranger,
    /// TLS at a port without, or no TLS at a port with it.
    #[error("one side speaks TLS and the other does not: tls in config.json must be the same everywhere")]
    Tls,
    /// TLS that fails: a certificate that nobody vouches for, or no TLS where it is wanted; in words for people.
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
    #[error("it asks for a shared key: give key_file in config.json")]
    KeyWanted,
    /// It has no key, this side has one.
    #[error("it has no shared key, this side has one: key_file in config.json must be given everywhere")]
    KeyLacking,
    /// It has another key.
    #[error("it does not know the shared key: key_file must hold the same everywhere")]
    WrongKey,
    /// Another node than was looked for.
    #[error("another node listens there")]
    OtherNode,
    /// It has this node's id.
    #[error("it has this node's id: each node needs its own")]
    SameNode,
    /// A node that is not in the list of peers.
    #[error("it is a node that is not among the peers in config.json")]
    NoPeer,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn opening(node: u32, nonce: Option<[u8; 32]>) -> Opening {
        let node = Some(NodeId(node)).filter(|node| node.0 > 0);
        Opening { greeting: Greeting { version: 1, node }, nonce: nonce.map(Nonce) }
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

    /// RFC 4231, test cases 2 (a short key is none of ours, so of HMAC alone) and 6.
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

    /// Made by Python's hmac from the description above.
    #[test]
    fn a_proof_is_what_others_would_compute() {
        let nonce = |from: u8| Some(std::array::from_fn(|nth| from + u8::try_from(nth).expect("below 32")));
        let (peer, client, acceptor) = (opening(2, nonce(0)), opening(0, nonce(0)), opening(3, nonce(32)));
        let proof = |side, connector| {
            hex(&meet(side, b"sixteen bytes ok", connector, &acceptor).proof(side).expect("there is a key"))
        };
        let acceptors = "6a37bb9e5b16a4a24cdb2d94834ed160529d3cfb2eb109eb3c03de3f85e5af46";
        assert_eq!(proof(Side::Acceptor, &peer), acceptors);
        let connectors = "99143e8d083becf05b6f3a970d7fe2927e0a9e84109e68f7ed67a84a42373071";
        assert_eq!(proof(Side::Connector, &peer), connectors);
        let clients = "b8f60f3f6f030ffc0d4e9a02a8488aa5de054c7c47f42341434f3cccd8de7869";
        assert_eq!(proof(Side::Connector, &client), clients);
    }

    #[test]
    fn a_side_without_a_key_gets_nothing_from_one_with_it() {
        let (bare, keyed) = (opening(1, None), opening(2, Some([7; 32])));
        let some = key(&[1; 16]);
        let refused = |side, key, connector, acceptor| {
            Meeting::new(side, key, connector, acceptor).map(|_| ()).expect_err("only one of them has a key")
        };
        assert_eq!(refused(Side::Connector, None, &bare, &keyed), Refusal::KeyWanted);
        assert_eq!(refused(Side::Acceptor, Some(&some), &bare, &keyed), Refusal::KeyLacking);
        assert_eq!(refused(Side::Connector, Some(&some), &keyed, &bare), Refusal::KeyLacking);
        assert_eq!(refused(Side::Acceptor, None, &keyed, &bare), Refusal::KeyWanted);
        let open = Meeting::new(Side::Acceptor, None, &bare, &opening(2, None)).expect("they fit");
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
        let said = |bytes: &[u8; GREETING_BYTES]| Greeting::decode(*bytes);
        assert_eq!(said(b"HTTP/1.1 4"), Err(Refusal::Http));
        assert_eq!(said(&[0x16, 3, 1, 2, 0, 1, 0, 1, 252, 3]), Err(Refusal::Tls));
        assert_eq!(said(b"SSH-2.0-Op"), Err(Refusal::Stranger));
        assert_eq!(Opening::decode(ours, [2; TERMS_BYTES]), Err(Refusal::Stranger));
    }

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), Key::BYTES_MIN..200)
    }

    proptest! {
        #[test]
        fn who_shares_a_key_is_believed(bytes in keys(), nonces: [[u8; 32]; 2], ids in [0..5_u32, 1..5_u32]) {
            let (connector, acceptor) = (opening(ids[0], Some(nonces[0])), opening(ids[1], Some(nonces[1])));
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

        /// Whatever else a proof was made for, it is none here: other key, other side (reflected), other nonce (replayed), other
        /// ids, swapped ids or nonces, other version, cut short, one bit off.
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
            let (connector, acceptor) = (open(2, 0), open(3, 1));
            let proof = meet(side, &bytes, &connector, &acceptor).proof(side).expect("there is a key");
            let other = match side {
                Side::Connector => Side::Acceptor,
                Side::Acceptor => Side::Connector,
            };
            let refused = |meeting: Meeting, side, proof: &[u8]| meeting.check(side, proof) == Err(Refusal::WrongKey);
            let same = || meet(other, &bytes, &connector, &acceptor);
            prop_assert!(refused(same(), other, &proof), "reflected");
            prop_assert!(refused(same(), side, &proof[..cut]), "cut short");
            let mut off = proof;
            off[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(refused(same(), side, &off), "one bit off");
            prop_assert!(refused(meet(other, &other_bytes, &connector, &acceptor), side, &proof), "another key");
            for (what, connector, acceptor) in [
                ("replayed to an acceptor", connector, open(3, 2)),
                ("replayed to a connector", open(2, 2), acceptor),
                ("swapped ids", open(3, 0), open(2, 1)),
                ("swapped nonces", open(2, 1), open(3, 0)),
                ("a client for a peer", open(0, 0), acceptor),
                ("another peer", open(4, 0), acceptor),
                ("another node", connector, open(1, 1)),
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
