//! The cluster over several hosts: network namespaces, whose links can be cut. `scripts/multi-host.sh` does it.

mod support;

use support::{not_permitted, omb::Place, root};

#[test]
fn multi_host() {
    let script = root().join("scripts/multi-host.sh");
    let omb = std::path::Path::new(env!("CARGO_BIN_EXE_omb"));
    let bin = omb.parent().and_then(std::path::Path::to_str).expect("a folder in UTF-8");
    let place = Place::default();
    let ended = place.start_with(script.to_str().expect("UTF-8"), &[("BIN", bin)], &[]).end();
    if ended.code == Some(77) {
        return not_permitted("several hosts in network namespaces", ended.stdout.trim());
    }
    println!("in {:?}:\n{}", ended.took, ended.stdout);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("\nPASS: 3 hosts elected"), "{}", ended.stdout);
}
