#!/usr/bin/env bash
# A cluster over several hosts, each a network namespace of its own with its own address on one network: elects, takes the
# guide's stress test, loses its leader's link, goes on without it on both sides, and agrees again once the link is back.
# Whatever was acknowledged on either side must then be there. Ends with 77 where namespaces are not permitted.
#
# HOSTS=3 BIN=target/release scripts/multi-host.sh       as root; namespaces and files are gone afterwards
set -euo pipefail
cd "$(dirname "$0")/.."

hosts=${HOSTS:-3}
bin=$(realpath "${BIN:-target/release}")
stress=$PWD/stress_test_multi_machine.sh
# Part of every name, so that runs at the same time do not meet.
run=omb-$$
place=$(mktemp -d)
declare -A node=()

leave() {
    local ended=$? name process
    trap - EXIT INT TERM
    for process in "${node[@]}"; do kill -KILL "$process" 2> /dev/null || true; done
    wait 2> /dev/null || true
    # Links go with their namespaces.
    for name in $(ip netns list | awk -v run="$run-" 'index($1, run) == 1 { print $1 }'); do
        ip netns del "$name" || true
    done
    rm -rf "$place"
    exit "$ended"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

fail() {
    echo "FAILED: $*"
    for log in "$place"/host*/node.log; do
        echo "--- $log"
        tail -n 40 "$log"
    done
    exit 1
}

on() { # HOST COMMAND.. in the host's folder
    local host=$1
    shift
    ip netns exec "$run-$host" env -C "$place/host$host" "$@"
}

# Waits until a command succeeds.
wait_for() {
    local what=$1 until=$((SECONDS + 60))
    shift
    until "$@"; do
        if ((SECONDS > until)); then fail "waited for: $what"; fi
        sleep 0.05
    done
}

address() { echo "10.11.12.$1:700$1"; }

start() {
    # No function and no subshell, so that what is killed in the end is the node.
    ip netns exec "$run-$1" env -C "$place/host$1" NODE_ID="$1" SHARED_DIR=./shared_images "$bin/cloud-p2p" \
        >> "$place/host$1/node.log" 2>&1 &
    node[$1]=$!
}

# The leader that a host's node follows, as it reports: "LEADER TERM".
leader_of() {
    on "$1" PEERS="$1=$(address "$1")" "$bin/client" --timeout 2s discover 2> /dev/null |
        sed -n 's/^Leader: node \([0-9]*\) in term \([0-9]*\).*/\1 \2/p'
}

# LEADER HOST..: all these hosts follow that node, in one term, which is kept in `term`.
agreed() {
    local leader=$1 host seen
    shift
    term=
    for host in "$@"; do
        seen=$(leader_of "$host")
        if [ "${seen% *}" != "$leader" ] || [ "${term:-${seen#* }}" != "${seen#* }" ]; then return 1; fi
        term=${seen#* }
    done
}

# Uploads from a host, and notes what was acknowledged: "NODE NAME".
upload() {
    local host=$1 count=$2 stored at said
    for ((at = 0; at < count; at++)); do
        echo "from host $host, number $at, $RANDOM" > "$place/host$host/upload"
        said=$(on "$host" "$bin/client" put upload) || fail "host $host could not upload"
        stored=$(sed -n 's/.*: stored by node \([0-9]*\) as \([^ ]*\) .*/\1 \2/p' <<< "$said")
        echo "$stored" >> "$place/acknowledged"
    done
}

uploads_are_there() {
    local at name file
    while read -r at name; do
        file=$place/host$at/shared_images/$name
        if [ ! -s "$file" ]; then fail "node $at acknowledged $name and lacks it"; fi
        if [[ $name != *-"$(sha256sum < "$file" | cut -d ' ' -f 1)".* ]]; then fail "$file holds other bytes"; fi
    done < "$place/acknowledged"
    echo "$(wc -l < "$place/acknowledged") acknowledged uploads are there"
}

if ! why=$(ip netns add "$run-lan" 2>&1 && ip -n "$run-lan" link add lan type bridge 2>&1); then
    echo "network namespaces are not permitted here: $why"
    exit 77
fi
ip -n "$run-lan" link set lan up
all=$(seq "$hosts")
others=$(seq $((hosts - 1)))
peers=
for host in $all; do
    ip netns add "$run-$host"
    ip -n "$run-lan" link add "to$host" type veth peer name eth0 netns "$run-$host"
    ip -n "$run-lan" link set "to$host" master lan up
    ip -n "$run-$host" link set lo up
    ip -n "$run-$host" address add "10.11.12.$host/24" dev eth0
    ip -n "$run-$host" link set eth0 up
    mkdir "$place/host$host"
    peers+="${peers:+, }{\"id\": $host, \"address\": \"$(address "$host")\"}"
done
for host in $all; do
    echo "{\"peers\": [$peers], \"shared_dir\": \"./shared_images\"}" > "$place/host$host/config.json"
    start "$host"
done

# shellcheck disable=SC2086  # One word for each host.
wait_for "node $hosts to lead" agreed "$hosts" $all
grep -q "\[Node $hosts\] no higher nodes -> becoming coordinator" "$place/host$hosts/node.log" ||
    fail "node $hosts does not say why it leads"
echo "node $hosts leads in term $term"

echo "stress test from host 1"
on 1 CARGO_TARGET_DIR="$(dirname "$bin")" "$stress" | tee "$place/screen" || fail "the stress test failed"
grep -q 'PASS: Load distribution is balanced across machines' "$place/screen" || fail "no verdict"
for host in $all; do
    grep -q "  Machine 10.11.12.$host (Node $host): [0-9]* requests" "$place/screen" || fail "host $host is not listed"
done
sed -n 's/^client .* stored by node \([0-9]*\) as \([^ ]*\)$/\1 \2/p' "$place"/host1/stress_test_*.log > "$place/acknowledged"

echo "cutting the link of host $hosts"
before=$term
cut=$(date +%s%N)
ip -n "$run-lan" link set "to$hosts" down
# shellcheck disable=SC2086
wait_for "the others to elect" agreed "$((hosts - 1))" $others
echo "node $((hosts - 1)) leads the others in term $term, seen $((($(date +%s%N) - cut) / 1000000)) ms after the cut"
if ((term <= before)); then fail "term $term came after term $before"; fi
wait_for "node $hosts to lead itself" agreed "$hosts" "$hosts"
upload 1 5
upload "$hosts" 5

echo "healing the link of host $hosts"
healed=$(date +%s%N)
ip -n "$run-lan" link set "to$hosts" up
# shellcheck disable=SC2086
wait_for "all to obey node $hosts" agreed "$hosts" $all
echo "node $hosts leads all in term $term, seen $((($(date +%s%N) - healed) / 1000000)) ms after the link was back"
if ((term <= before)); then fail "term $term came after term $before"; fi
upload 2 "$hosts"
uploads_are_there
for host in $all; do
    left=$(find "$place/host$host" -path '*/parts/*' | wc -l)
    if ((left > 0)); then fail "host $host keeps $left half-written uploads"; fi
done
echo "PASS: $hosts hosts elected, spread, lost their leader's link, and agree again"
