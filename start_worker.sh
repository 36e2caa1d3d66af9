#!/usr/bin/env bash
# Starts a worker of the fleet:  ./start_worker.sh [PORT] [more flags of omb worker]
# Port 8080 if none is given. Builds omb first where that has not been done; one that is there is used as it is.
set -euo pipefail

here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
port=8080
if [[ ${1-} =~ ^[0-9]+$ ]]; then
    port=$1
    shift
fi

export CARGO_TARGET_DIR
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$here/target}")
omb=$CARGO_TARGET_DIR/release/omb
if [[ ! -x $omb ]]; then
    echo "omb is not built yet: building it, which takes some minutes" >&2
    # From within the workspace, whose settings cargo finds by the current folder; the worker keeps that of the caller.
    (cd "$here" && cargo build --locked --release -p omb) >&2
fi
exec "$omb" worker --port "$port" "$@"
