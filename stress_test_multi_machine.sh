#!/usr/bin/env bash
# Tests how evenly a cluster spreads uploads:  ./stress_test_multi_machine.sh [more flags of omb stress]
# Reads ./config.json, or CONFIG_FILE. Builds omb first where that has not been done; one that is there is used as it is.
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
export CARGO_TARGET_DIR
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$here/target}")
omb=$CARGO_TARGET_DIR/release/omb
if [[ ! -x $omb ]]; then
    echo "omb is not built yet: building it, which takes some minutes" >&2
    # From within the workspace, whose settings cargo finds by the current folder; the test keeps that of the caller.
    (cd "$here" && cargo build --locked --release -p omb) >&2
fi
exec "$omb" stress "$@"
