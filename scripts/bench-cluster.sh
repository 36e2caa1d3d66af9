#!/usr/bin/env bash
# Measures a cluster of three nodes on this machine beside nginx (least_conn over three WebDAV servers) and beside a bare
# loop of write, fsync, rename and fsync of the folder, in turns, with the same file from as many clients.
# `make bench-cluster` builds what it needs first.
#
#   UPLOADS=20000     uploads of each run        BYTES=1024      size of each
#   CLIENTS="10 64"   clients at once            ROUNDS=3        how often each is run; the table shows medians
#   PARTS="nginx fsync large failover"           what is measured (all of it if not given)
#   KILLS=50          leaders killed             LARGE=1024      MiB of the large file
#
# nginx and wrk are Debian's packages (apt-get install nginx wrk); without them that part is left out, and said so. All
# of it, load generators included, runs on the same cores: only the ratios mean something.
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
pids=()
finish() {
    if [ ${#pids[@]} -gt 0 ]; then
        kill -CONT "${pids[@]}" 2> /dev/null || true
        kill -KILL "${pids[@]}" 2> /dev/null || true
        wait "${pids[@]}" 2> /dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<> "/dev/tcp/127.0.0.1/$port") 2> /dev/null; then
            echo "$port"
            return
        fi
    done
}

median() { sort -g | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

# ---- the cluster ----------------------------------------------------------------------------------------------

# cluster NAME DURABILITY: writes its file.
cluster() {
    mkdir -p "$work/$1"
    cat > "$work/$1/config.json" << JSON
{"peers": [{"id": 1, "address": "127.0.0.1:$(free_port)"}, {"id": 2, "address": "127.0.0.1:$(free_port)"},
 {"id": 3, "address": "127.0.0.1:$(free_port)"}], "durability": "$2"}
JSON
}

# node NAME ID: starts a node; its pid is in $pid. Warnings only: what is logged for each upload is no part of its work.
node() {
    (cd "$work/$1" && exec env NODE_ID="$2" SHARED_DIR="./node$2" "$bin/cloud-p2p" -q >> "node$2.log" 2>&1) &
    pid=$!
    pids+=("$pid")
}

# leads NAME: the id of the leader that all nodes that answer agree on, or nothing.
leads() {
    (cd "$work/$1" && "$bin/client" -q --timeout 2 discover 2> /dev/null || true) |
        sed -n 's/^Leader: node \([0-9]*\) .*/\1/p'
}

await_leader() {
    local tries
    for tries in $(seq 100); do
        if [ "$(leads "$1")" = "$2" ]; then return; fi
        sleep 0.1
    done
    echo "bench-cluster: node $2 does not lead after $tries tries" >&2
    exit 1
}

stop() {
    kill -TERM "${pids[@]}" 2> /dev/null || true
    wait "${pids[@]}" 2> /dev/null || true
    pids=()
}

# upload NAME CLIENTS: "RATE P99" of a stress test, in uploads per second and ms.
upload() {
    (cd "$work/$1" && "$bin/omb" -q stress --clients "$2" --requests $((uploads / $2)) --size "$bytes") > "$work/out.txt" || {
        cat "$work/out.txt" >&2
        exit 1
    }
    rm -f "$work/$1"/stress_test_*.log
    awk '/^Throughput:/ { gsub(",", "", $2); rate = $2 } /^Latency percentiles:/ { p99 = $8; gsub("ms,", "", p99) }
        END { print rate, p99 }' "$work/out.txt"
}

# ---- nginx ----------------------------------------------------------------------------------------------------

start_nginx() {
    local front=$1 one two three
    one=$(free_port) two=$(free_port) three=$(free_port)
    mkdir -p "$work/nginx"
    {
        echo "worker_processes 2; daemon off; pid $work/nginx/pid; error_log $work/nginx/error.log;"
        echo "events { worker_connections 4096; }"
        echo "http { access_log off; client_body_in_single_buffer on; client_max_body_size 0; keepalive_requests 1000000;"
        for path in body proxy fastcgi uwsgi scgi; do
            case $path in
                body) echo "client_body_temp_path $work/nginx/body;" ;;
                *) echo "${path}_temp_path $work/nginx/$path;" ;;
            esac
        done
        echo "upstream nodes { least_conn; keepalive 64; server 127.0.0.1:$one; server 127.0.0.1:$two; server 127.0.0.1:$three; }"
        echo "server { listen 127.0.0.1:$front; location / { proxy_pass http://nodes; proxy_http_version 1.1; proxy_set_header Connection \"\"; } }"
        local server
        for server in "$one" "$two" "$three"; do
            mkdir -p "$work/nginx/$server"
            echo "server { listen 127.0.0.1:$server; root $work/nginx/$server; location / { dav_methods PUT; create_full_put_path on; } }"
        done
        echo "}"
    } > "$work/nginx/nginx.conf"
    chmod -R a+rwX "$work"
    nginx -c "$work/nginx/nginx.conf" 2> "$work/nginx/start.log" &
    pids+=($!)
    for _ in $(seq 50); do
        if (exec 3<> "/dev/tcp/127.0.0.1/$front") 2> /dev/null; then return; fi
        sleep 0.1
    done
    cat "$work/nginx/start.log" >&2
    exit 1
}

# put_nginx PORT CLIENTS: "RATE P99", each file under a name of its own.
put_nginx() {
    cat > "$work/put.lua" << LUA
local thread = tostring(math.random(1, 1000000000)) .. tostring(os.time())
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
    wrk -t1 -c"$2" -d"${NGINX_SECONDS:-4}s" -s "$work/put.lua" "http://127.0.0.1:$1" > "$work/out.txt"
    if ! awk '/^RESULT/ { if ($4 != 0) exit 1; found = 1; print $2, $3 } END { if (!found) exit 1 }' "$work/out.txt"; then
        cat "$work/out.txt" >&2
        exit 1
    fi
}

# row WHAT OTHER: two files of "RATE P99" lines each.
row() {
    local ours theirs
    ours=$(cut -d' ' -f1 "$3" | median) theirs=$(cut -d' ' -f1 "$4" | median)
    printf '| %-34s | %8.0f/s | %8.0f/s | %5.2f | %7.2f ms | %7.2f ms |\n' "$1" "$ours" "$theirs" \
        "$(awk "BEGIN { print $ours / $theirs }")" "$(cut -d' ' -f2 "$3" | median)" "$(cut -d' ' -f2 "$4" | median)"
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
                row "durability none, $count clients" nginx "$work/ours" "$work/theirs"
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
                row "durability fsync, $count clients" bare "$work/ours" "$work/theirs"
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
            began=$(date +%s.%N)
            for _ in 1 2 3; do (cd "$work/large" && "$bin/client" -q --timeout 10m put large.bin); done
            took=$(awk "BEGIN { print $(date +%s.%N) - $began }")
            echo "three files of $large MiB in $took s; the most memory that each node held:"
            while read -r id pid; do
                awk -v id="$id" '/^VmHWM:/ { printf "  node %d: %.1f MB\n", id, $2 * 1024 / 1e6 }' "/proc/$pid/status"
            done < "$work/pids"
            stop
            ;;
        failover)
            cluster failover fsync
            declare -A running=()
            for id in 1 2 3; do
                node failover "$id"
                running[$id]=$pid
            done
            await_leader failover 3
            : > "$work/failover.txt"
            # Each time the leader is killed, the next one is waited for, the former returns and takes over.
            for _ in $(seq "$kills"); do
                : > "$work/failover/node2.log"
                kill -KILL "${running[3]}"
                killed=$(date +%s%N)
                until [ "$(leads failover)" = 2 ]; do sleep 0.02; done
                echo $((($(date +%s%N) - killed) / 1000000)) >> "$work/failover.txt"
                wait "${running[3]}" 2> /dev/null || true
                node failover 3
                running[3]=$pid
                await_leader failover 3
            done
            sort -n "$work/failover.txt" | awk '{ all[NR] = $1 } END {
                printf "failover over %d kills of the leader: p50 %d ms, p90 %d ms, p99 %d ms, max %d ms\n", NR,
                    all[int((NR + 1) / 2)], all[int(NR * 0.9 + 0.5)], all[int(NR * 0.99 + 0.5)], all[NR] }'
            stop
            ;;
        *)
            echo "bench-cluster: PARTS has no \`$part\`; nginx, fsync, large, failover" >&2
            exit 2
            ;;
    esac
done
