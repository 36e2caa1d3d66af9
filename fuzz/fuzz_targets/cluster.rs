//! No bytes make the readers of a cluster's greetings, proofs and frames panic; no proof is believed by accident; and what is
//! read is written as it was read.
//!
//! `cargo +nightly fuzz run cluster`
#![no_main]

use libfuzzer_sys::fuzz_target;
use omb_cluster::{handshake::{GREETING_BYTES, Greeting, Key, Meeting, Nonce, Opening, Part, Refusal, Side, TERMS_BYTES}, node::message::{self, Envelope, Order, Reply, Request}, peer::NodeId};

fn same<T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(read) = message::decode::<T>(bytes) {
        assert_eq!(message::decode(&message::encode(&read)), Ok(read));
    }
}

fuzz_target!(|bytes: &[u8]| {
    same::<Envelope>(bytes);
    same::<Order>(bytes);
    same::<Request>(bytes);
    same::<Reply>(bytes);
    let Some((greeting, rest)) = bytes.split_first_chunk::<GREETING_BYTES>() else { return };
    let Some((terms, proof)) = rest.split_first_chunk::<TERMS_BYTES>() else { return };
    let Ok(theirs) = Greeting::decode(*greeting).and_then(|greeting| Opening::decode(greeting, *terms)) else { return };
    assert_eq!(theirs.encode(), bytes[..GREETING_BYTES + TERMS_BYTES]);
    let key = Key::new(b"the key of this cluster").expect("long enough");
    let greeting = Greeting { version: message::VERSION, node: Some(NodeId(1)) };
    let ours = Opening { greeting, part: Part::Node, nonce: Some(Nonce([1; 32])) };
    if let Ok(meeting) = Meeting::new(Side::Acceptor, Some(&key), &theirs, &ours) {
        assert_eq!(meeting.check(Side::Connector, proof), Err(Refusal::WrongKey { peers: theirs.part.is_peer() }));
    }
});
