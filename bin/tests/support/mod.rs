//! What the tests of the whole product share: real brokers, and the list of what could not be run.

// Each test file compiles its own copy and uses a part of it; what the next one needs is `pub` here.
#![allow(dead_code, unreachable_pub)]

pub mod cluster;
pub mod fleet;
pub mod kafka;
pub mod omb;

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::{Path, PathBuf},
};

/// The workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bin lies in the workspace").to_owned()
}

/// Notes that `what` is not tried here because of `why`, for the last line of `make test`.
///
/// # Panics
/// With `OMB_REQUIRE_BROKERS=1`: there, leaving out is a failure.
#[track_caller]
pub fn left_out(what: &str, why: &str) {
    let line = format!("{what} ({why})");
    assert!(
        std::env::var_os("OMB_REQUIRE_BROKERS").is_none_or(|value| value != "1"),
        "OMB_REQUIRE_BROKERS=1, but this would be left out: {line}"
    );
    note_left_out(what, &line);
}

/// Notes that `what` is not tried here since the system does not permit it, which no preparation can change.
pub fn not_permitted(what: &str, why: &str) {
    note_left_out(what, &format!("{what} ({why})"));
}

fn note_left_out(what: &str, line: &str) {
    println!("left out: {line}");
    let list = root().join("target/left-out.txt");
    // One reason is enough, and the first (of scripts/brokers.sh) is the best informed.
    let told = std::fs::read_to_string(&list).unwrap_or_default();
    if told.lines().any(|told| told.starts_with(&format!("{what} ("))) {
        return;
    }
    // The list is a courtesy; a read-only target folder must not fail the tests that can run.
    if let Ok(mut list) = OpenOptions::new().create(true).append(true).open(list) {
        let _ = writeln!(list, "{line}");
    }
}
