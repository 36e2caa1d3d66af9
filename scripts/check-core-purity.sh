#!/usr/bin/env bash
# Proves that the checks on omb-core bite: plants one violation of each kind in a copy of it, and expects clippy
# to name every one. A list nobody reads would look the same as a clean core, so the clean copy must pass too.
set -euo pipefail
cd "$(dirname "$0")/.."

# An own target folder, and without the tests: only the crates that omb-core itself needs are checked, and only by
# the lints in question. Whatever else clippy finds is the business of `make clippy`.
copy=target/core-purity
rm -rf "$copy/omb"
mkdir -p "$copy/omb"
cp -R Cargo.lock .cargo core "$copy/omb/"
# The copy is a workspace of one; versions and lints are the real ones.
sed 's/^members = .*/members = ["core"]/; /^default-members/d' Cargo.toml > "$copy/omb/Cargo.toml"

lint() {
    (cd "$copy/omb" && CARGO_TARGET_DIR=../build cargo clippy --quiet --offline -p omb-core --lib -- -A warnings \
        -D clippy::disallowed_types -D clippy::disallowed_methods -D clippy::disallowed_macros)
}

if ! lint > "$copy/clean.log" 2>&1; then
    cat "$copy/clean.log" >&2
    echo "check-core-purity: omb-core itself does not pass" >&2
    exit 1
fi

cat >> "$copy/omb/core/src/lib.rs" <<'RUST'

/// One sin per line; each must be named.
pub mod planted {
    /// A clock.
    pub fn clock() -> u128 { std::time::Instant::now().elapsed().as_nanos() }
    /// The time of day.
    pub fn wall() -> bool { std::time::SystemTime::now() == std::time::SystemTime::UNIX_EPOCH }
    /// A thread.
    pub fn thread() { drop(std::thread::spawn(|| ())) }
    /// A pause.
    pub fn pause() { std::thread::sleep(core::time::Duration::ZERO) }
    /// A socket.
    pub fn socket() -> bool { std::net::TcpStream::connect("127.0.0.1:1").is_ok() }
    /// A file.
    pub fn file() -> bool { std::fs::read("x").is_ok() }
    /// A setting.
    pub fn setting() -> bool { std::env::var("X").is_ok() }
    /// An order that differs from run to run.
    pub fn order() -> usize { std::collections::HashMap::<u8, u8>::new().len() }
    /// A word to the terminal.
    pub fn word() { println!("x") }
}
RUST

if lint > "$copy/planted.log" 2>&1; then
    echo "check-core-purity: clippy passes a core with a clock, threads, a socket, a file and a HashMap in it" >&2
    exit 1
fi
for sin in std::time::Instant::now std::time::SystemTime::now std::thread::spawn std::thread::sleep \
    std::net::TcpStream std::fs::read std::env::var std::collections::HashMap std::println; do
    if ! grep -q "use of a disallowed [a-z]* \`$sin\`" "$copy/planted.log"; then
        cat "$copy/planted.log" >&2
        echo "check-core-purity: $sin was planted in omb-core and not found" >&2
        exit 1
    fi
done
echo "check-core-purity: omb-core is clean, and all 9 planted violations were found"
