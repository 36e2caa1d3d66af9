//! No bytes make the readers of messages between controller and worker panic, and what they read is written as it was
//! read.
//!
//! `cargo +nightly fuzz run protocol`
#![no_main]

use libfuzzer_sys::fuzz_target;
use omb_machine::encoding;
use omb_bench::protocol::{self, Clock, Hello, Ping, Request, Response};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = protocol::decode_request(bytes) {
        let again = protocol::decode_request(&encoding::encode(&request));
        // What is not a number is not equal to itself.
        assert!(again.as_ref() == Ok(&request) || format!("{request:?}").contains("NaN"), "{request:?}, {again:?}");
    }
    let _ = encoding::decode::<Request>(bytes);
    if let Ok(response) = encoding::decode::<Response>(bytes) {
        let again = encoding::decode::<Response>(&encoding::encode(&response));
        assert_eq!(again, Ok(response));
    }
    let _ = (encoding::decode::<Clock>(bytes), encoding::decode::<Ping>(bytes));
    if let Ok(hello) = serde_json::from_slice::<Hello>(bytes) {
        let text = serde_json::to_vec(&hello).expect("texts and numbers become JSON");
        assert_eq!(serde_json::from_slice::<Hello>(&text).expect("our own JSON is readable"), hello);
    }
});
