#!/usr/bin/env bash
# Measures a cluster of three nodes on this machine beside nginx (least_conn over three WebDAV servers) and beside a bare
# loop of write, fsync, rename and fsync of the folder, in turns, with the same file from as many clients.
# `make bench-cluster` builds what it needs first.
#
#   UPLOADS=20000     uploads of each run        BYTES=1024      size of each
#   CLIENTS="10 64"   clients at once            ROUNDS=3        how often each is run; the table shows medians
#   PARTS="nginx fsync large failover"           what is measured (all of it if not given)
#   KILLS=50          leaders killed             LARGE=1024      MiB of the large file
#   KEEP=1            the files stay (see below)
#
# nginx and wrk are Debian's packages (apt-get install nginx wrk); without them that part is skipped, with a message. All
# of it, load generators included, runs on the same cores: only the ratios mean something.
#
# Nothing is removed before the end: ext4 avoids the inodes of files that were removed in the last minutes, one by one, and
# a node that makes files beside thousands of them was measured at a fifth of its rate. For that reason, too, the folders
# of a run are spread over the disk (chattr +T) where the file system knows how. Between two runs leave some minutes, or
# KEEP=1 and remove target/bench-cluster.* after the last. Each round's rates go to stderr: look for such outliers.
set -euo pipefail
cd "$(dirname "$0")/.."

uploads=${UPLOADS:-20000}
bytes=${BYTES:-1024}
clients=${CLIENTS:-10 64}
rounds=${ROUNDS:-3}
parts=${PARTS:-nginx fsync large failover}
kills=${KILLS:-50}
large=${LARGE:-1024}
bin=${BIN:-$PWD/target/release}

work=$(mktemp -d "$PWD/target/bench-cluster.XXXXXX")
chattr +T "$work" 2> /dev/null || true
pids=()
finish() {
    # TERM, not KILL: nginx would leave its workers behind.
    stop
    if [ -z "${KEEP:-}" ]; then rm -rf "$work"; fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

source scripts/ports.sh

# The middle one; of an even number the lower.
median() { sort -g | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

# ---- the cluster ----------------------------------------------------------------------------------------------

# cluster NAME DURABILITY: writes its file.
cluster() {
    mkdir -p "$work/$1"/disk{1,2,3}
    cat > "$work/$1/config.json" << JSON
{"peers": [{"id": 1, "address": "127.0.0.1:$(free_port)"}, {"id": 2, "address": "127.0.0.1:$(free_port)"},
 {"id": 3, "address": "127.0.0.1:$(free_port)"}], "durability": "$2"}
JSON
}

# node NAME ID [LOG]: starts a node; its pid is in $pid. Warnings only, unless LOG is given, which then gets it all.
node() {
    local quiet=-q
    if [ $# -gt 2 ]; then quiet=; fi
    # shellcheck disable=SC2086
    (cd "$work/$1" && exec "$bin/omb" node $quiet --id "$2" --shared-dir "./disk$2/node" 2>> "${3:-node$2.log}") &
    pid=$!
    pids+=("$pid")
}

# leads NAME: the id of the leader, as reported by the first node that answers; or nothing.
leads() {
    (cd "$work/$1" && "$bin/omb" client -q --timeout 2 discover 2> /dev/null || true) |
        sed -n 's/^Leader: node \([0-9]*\) .*/\1/p'
}

await_leader() {
    local tries
    for tries in $(seq 100); do
        if [ "$(leads "$1")" = "$2" ]; then return; fi
        sleep 0.1
    done
    echo "bench-cluster: node $2 does not lead after $tries tries" >&2
    tail -n 5 "$work/$1"/node*.log >&2
    exit 1
}

stop() {
    local tries
    if [ ${#pids[@]} -eq 0 ]; then return; fi
    kill -TERM "${pids[@]}" 2> /dev/null || true
    for tries in $(seq 50); do
        if ! kill -0 "${pids[@]}" 2> /dev/null; then break; fi
        sleep 0.1
    done
    kill -KILL "${pids[@]}" 2> /dev/null || true
    wait "${pids[@]}" 2> /dev/null || true
    pids=()
}

# upload NAME CLIENTS: "RATE P99" of a stress test, in uploads per second and ms.
upload() {
    (cd "$work/$1" && "$bin/omb" -q stress --clients "$2" --requests $((uploads / $2)) --size "$bytes") > "$work/out.txt" || {
        cat "$work/out.txt" >&2
        exit 1
    }
    awk '/^Throughput:/ { rate = $2; gsub(",", "", rate) }
        /^Latency percentiles:/ { for (i = 3; i < NF; i++) if ($i == "p99") { p99 = $(i + 1); gsub("[^0-9.]", "", p99) } }
        END { if (rate == "" || p99 == "") exit 1; print rate, p99 }' "$work/out.txt" || {
        echo "bench-cluster: no rate and p99 in what the stress test says" >&2
        exit 1
    }
}

# ---- nginx ----------------------------------------------------------------------------------------------------

# As quick as nginx gets: a worker per core, connections spread over them (reuseport) and kept on both sides, no log, bodies
# renamed into place and not copied, and one count of connections for both workers (zone).
start_nginx() {
    local front=$1 one two three server path
    one=$(free_port) two=$(free_port) three=$(free_port)
    mkdir -p "$work/nginx"
    {
        echo "worker_processes auto; daemon off; pid $work/nginx/pid; error_log $work/nginx/error.log;"
        echo "events { worker_connections 4096; }"
        echo "http { access_log off; client_body_buffer_size 64k; client_body_in_single_buffer on; client_max_body_size 0;"
        echo "keepalive_requests 1000000000;"
        for path in proxy fastcgi uwsgi scgi; do echo "${path}_temp_path $work/nginx/$path;"; done
        echo "upstream nodes { zone nodes 256k; least_conn; keepalive 128; keepalive_requests 1000000000;"
        echo "server 127.0.0.1:$one; server 127.0.0.1:$two; server 127.0.0.1:$three; }"
        echo "server { listen 127.0.0.1:$front reuseport; client_body_temp_path $work/nginx/body; location / {"
        echo "proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection \"\"; } }"
        for server in "$one" "$two" "$three"; do
            mkdir -p "$work/nginx-$server/files"
            echo "server { listen 127.0.0.1:$server reuseport; root $work/nginx-$server/files;"
            echo "client_body_temp_path $work/nginx-$server/body; location / { dav_methods PUT; } }"
        done
        echo "}"
    } > "$work/nginx/nginx.conf"
    # Started by root its workers run as another user.
    chmod a+rwx "$work" "$work"/nginx*/ "$work"/nginx-*/files
    nginx -c "$work/nginx/nginx.conf" 2> "$work/nginx/start.log" &
    pids+=($!)
    for _ in $(seq 50); do
        if (exec 3<> "/dev/tcp/127.0.0.1/$front") 2> /dev/null; then return; fi
        sleep 0.1
    done
    cat "$work/nginx/start.log" "$work/nginx/error.log" >&2
    exit 1
}

# put_nginx PORT CLIENTS: "RATE P99", each file under a name of its own. wrk measures by time, so it is given one in which
# about as many files are made as by the stress test.
put_nginx() {
    cat > "$work/put.lua" << LUA
local thread = "$(date +%s%N)"
local body, number = string.rep("x", $bytes), 0
request = function()
    number = number + 1
    return wrk.format("PUT", "/" .. thread .. "-" .. number, { ["Content-Type"] = "application/octet-stream" }, body)
end
done = function(summary, latency)
    local bad = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    io.write(string.format("RESULT %f %f %d\n", summary.requests / summary.duration * 1e6, latency:percentile(99) / 1e3, bad))
end
LUA
    wrk -t1 -c"$2" -d"${NGINX_SECONDS:-$((uploads / 10000 + 1))}s" -s "$work/put.lua" "http://127.0.0.1:$1" > "$work/out.txt"
    if ! awk '/^RESULT/ { if ($4 != 0) exit 1; found = 1; print $2, $3 } END { if (!found) exit 1 }' "$work/out.txt"; then
        cat "$work/out.txt" >&2
        exit 1
    fi
}

# row WHAT OURS THEIRS: two files of "RATE P99" lines each, line by line measured one after the other.
row() {
    local ours theirs
    ours=$(cut -d' ' -f1 "$2" | median) theirs=$(cut -d' ' -f1 "$3" | median)
    paste -d' ' "$2" "$3" | awk -v what="$1" '{ printf "  %s: omb %.0f/s, the other %.0f/s\n", what, $1, $3 }' >&2
    printf '| %-34s | %8.0f/s | %8.0f/s | %5.2f | %7.2f ms | %7.2f ms |\n' "$1" "$ours" "$theirs" \
        "$(paste -d' ' "$2" "$3" | awk '{ print $1 / $3 }' | median)" "$(cut -d' ' -f2 "$2" | median)" "$(cut -d' ' -f2 "$3" | median)"
}

table() {
    printf '| %-34s | %10s | %10s | %5s | %10s | %10s |\n' "$uploads uploads of $bytes bytes" omb "$1" ratio "omb p99" "$1 p99"
    echo "| --- | --- | --- | --- | --- | --- |"
}

for part in $parts; do
    case $part in
        nginx)
            if ! command -v nginx > /dev/null || ! command -v wrk > /dev/null; then
                echo "nginx: left out, for it or wrk is not installed (apt-get install nginx wrk)"
                continue
            fi
            cluster none none
            for id in 1 2 3; do node none "$id"; done
            await_leader none 3
            front=$(free_port)
            start_nginx "$front"
            table nginx
            for count in $clients; do
                rm -f "$work"/{ours,theirs}
                for _ in $(seq "$rounds"); do
                    put_nginx "$front" "$count" >> "$work/theirs"
                    upload none "$count" >> "$work/ours"
                done
                row "durability none, $count clients" "$work/ours" "$work/theirs"
            done
            stop
            ;;
        fsync)
            cluster fsync fsync
            for id in 1 2 3; do node fsync "$id"; done
            await_leader fsync 3
            table "bare loop"
            for count in $clients; do
                rm -f "$work"/{ours,theirs}
                for round in $(seq "$rounds"); do
                    "$bin/bare_store" "$work/bare$count-$round" "$count" "$uploads" "$bytes" | cut -d' ' -f1,3 >> "$work/theirs"
                    upload fsync "$count" >> "$work/ours"
                done
                row "durability fsync, $count clients" "$work/ours" "$work/theirs"
            done
            stop
            ;;
        large)
            cluster large fsync
            : > "$work/pids"
            for id in 1 2 3; do
                node large "$id"
                echo "$id $pid" >> "$work/pids"
            done
            await_leader large 3
            head -c "$((large << 20))" /dev/urandom > "$work/large/large.bin"
            memory() {
                local id pid
                while read -r id pid; do
                    awk -v id="$id" -v what="$1" '$1 == what ":" { printf " node %d: %.1f MB", id, $2 * 1024 / 1e6 }' "/proc/$pid/status"
                done < "$work/pids"
                echo
            }
            echo "memory before any upload:$(memory VmRSS)"
            began=$(date +%s.%N)
            # Each node gets one, and a follower may be asked first or the leader: the client draws.
            for _ in 1 2 3 4 5 6; do (cd "$work/large" && "$bin/omb" client -q --timeout 600 put large.bin > /dev/null); done
            took=$(awk "BEGIN { print $(date +%s.%N) - $began }")
            echo "six files of $large MiB, one after the other, in $took s; the most memory of each node:$(memory VmHWM)"
            stop
            ;;
        failover)
            cluster failover fsync
            # Node 2's output comes through a pipe, and is timed as it comes: no process is started meanwhile.
            mkfifo "$work/failover/said"
            exec {said}<> "$work/failover/said"
            # hear WORDS: waits until node 2 prints a line with these words; the time is in $heard, in µs.
            hear() {
                local line deadline=$((SECONDS + 20))
                while [ "$SECONDS" -lt "$deadline" ]; do
                    if read -r -t 1 -u "$said" line && [[ $line == *"$1"* ]]; then
                        heard=${EPOCHREALTIME/[.,]/}
                        return
                    fi
                done
                echo "bench-cluster: node 2 does not say \`$1\` within 20 s" >&2
                exit 1
            }
            declare -A running=()
            node failover 1
            node failover 2 "$work/failover/said"
            node failover 3
            running[3]=$pid
            hear "[Node 2] follows node 3"
            : > "$work/failover.txt"
            # Each time the leader is killed, the next one is waited for, the former returns and takes over.
            for _ in $(seq "$kills"); do
                # At any time between two heartbeats.
                sleep "0.$((RANDOM % 900 + 100))"
                killed=${EPOCHREALTIME/[.,]/}
                kill -KILL "${running[3]}"
                hear "[Node 2] leads in"
                echo $(((heard - killed) / 1000)) >> "$work/failover.txt"
                wait "${running[3]}" 2> /dev/null || true
                node failover 3
                running[3]=$pid
                hear "[Node 2] follows node 3"
            done
            sort -n "$work/failover.txt" | awk 'function at(q) { i = int(NR * q); return all[i < NR * q ? i + 1 : i] }
                { all[NR] = $1 } END {
                printf "failover over %d kills of the leader: p50 %d ms, p90 %d ms, p99 %d ms, max %d ms\n", NR,
                    at(0.5), at(0.9), at(0.99), all[NR] }'
            stop
            exec {said}>&-
            ;;
        *)
            echo "bench-cluster: PARTS has no \`$part\`; nginx, fsync, large, failover" >&2
            exit 2
            ;;
    esac
done
