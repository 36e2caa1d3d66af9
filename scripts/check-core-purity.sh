#!/usr/bin/env bash
# Proves that the checks on the crates of core/ bite: plants one violation of each kind in a copy of each crate, and expects
# clippy to name every one. An unread list would look the same as a clean core, so the clean copy must pass too.
set -euo pipefail
cd "$(dirname "$0")/.."

# An own target folder, and without the tests: only the crates that the core itself needs are checked, and only by
# the lints in question. Whatever else clippy finds is the business of `make clippy`.
copy=target/core-purity
rm -rf "$copy/omb"
mkdir -p "$copy/omb"
cp -R Cargo.lock .cargo core "$copy/omb/"
crates=$(cd core && for manifest in */Cargo.toml; do dirname "$manifest"; done)
# The copy is a workspace of these crates alone; versions and lints are the real ones.
sed 's|^members = .*|members = ["core/*"]|; /^default-members/d' Cargo.toml > "$copy/omb/Cargo.toml"

# The lints are forced to a level: at "deny" a crate that fails keeps those above it from being checked.
lint() {
    (cd "$copy/omb" && CARGO_TARGET_DIR=../build cargo clippy --quiet --offline --workspace --lib -- -A warnings \
        --force-warn clippy::disallowed_types --force-warn clippy::disallowed_methods \
        --force-warn clippy::disallowed_macros)
}

if ! lint > "$copy/clean.log" 2>&1 || grep -q "use of a disallowed" "$copy/clean.log"; then
    cat "$copy/clean.log" >&2
    echo "check-core-purity: the core itself does not pass" >&2
    exit 1
fi

for crate in $crates; do
    cat >> "$copy/omb/core/$crate/src/lib.rs" <<'RUST'

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
done

if ! lint > "$copy/planted.log" 2>&1; then
    cat "$copy/planted.log" >&2
    echo "check-core-purity: the planted copy does not compile" >&2
    exit 1
fi
for crate in $crates; do
    for sin in std::time::Instant::now std::time::SystemTime::now std::thread::spawn std::thread::sleep \
        std::net::TcpStream std::fs::read std::env::var std::collections::HashMap std::println; do
        # Clippy names the place in the line below the message.
        if ! grep -A 1 "use of a disallowed [a-z]* \`$sin\`" "$copy/planted.log" | grep -q "core/$crate/src/lib.rs"; then
            cat "$copy/planted.log" >&2
            echo "check-core-purity: $sin was planted in core/$crate and not found" >&2
            exit 1
        fi
    done
done
# shellcheck disable=SC2086 # Words, on purpose.
echo "check-core-purity: $(echo $crates | wc -w) crates of core/ are clean, and all 9 planted violations were found in each"
