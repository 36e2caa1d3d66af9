#!/usr/bin/env bash
# Ten workers and 100 topics on this machine, through the embedded broker in a process of its own. Fails unless every
# message arrived once. Prints the result, and what each worker used.
#
# WORKERS=10 TOPICS=100 RATE=10000 LASTS=30s scripts/fleet-of-ten.sh
set -euo pipefail
cd "$(dirname "$0")/.."

workers=${WORKERS:-10} topics=${TOPICS:-100} rate=${RATE:-10000} lasts=${LASTS:-30s}
omb=${OMB:-$PWD/target/release/omb}
place=$(mktemp -d)
started=()
leave() {
    for process in "${started[@]}"; do kill "$process" 2> /dev/null || true; done
    for process in "${started[@]}"; do wait "$process" 2> /dev/null || true; done
    rm -rf "$place"
}
trap leave EXIT

# Waits until a process has printed this to its file.
said() {
    for _ in $(seq 200); do
        if grep -q "$2" "$1"; then return; fi
        sleep 0.1
    done
    echo "$1 never said \"$2\":"
    cat "$1"
    exit 1
}

cd "$place"
"$omb" broker --port 0 > broker.log 2>&1 &
started+=($!)
said broker.log "Embedded broker on"
broker=$(sed -n 's/^Embedded broker on \([^,]*\),.*/\1/p' broker.log)
addresses=()
for ((i = 0; i < workers; i++)); do
    "$omb" worker --port 0 --bind 127.0.0.1 > "worker-$i.log" 2>&1 &
    started+=($!)
done
for ((i = 0; i < workers; i++)); do
    said "worker-$i.log" "/metrics"
    addresses+=("$(sed -n 's/.*Running on \(http:.*\)/\1/p' "worker-$i.log")")
done
cat > driver.yaml << END
name: Embedded
driverClass: kafka
replicationFactor: 1
commonConfig: |
  bootstrap.servers=$broker
producerConfig: |
  acks=all
  linger.ms=1
consumerConfig: |
  auto.offset.reset=earliest
END
cat > fleet.yaml << END
name: fleet of $workers
topics: $topics
partitionsPerTopic: 1
messageSize: 1000
useRandomizedPayloads: true
randomBytesRatio: 0.5
randomizedPayloadPoolSize: 100
producersPerTopic: 1
producerRate: $rate
subscriptionsPerTopic: 1
consumerPerSubscription: 1
warmupDuration: 3s
testDuration: $lasts
END
ended=0
"$omb" run -d driver.yaml -o fleet.json -w "${addresses[@]}" fleet.yaml || ended=$?

echo
echo "worker  CPU s  memory MB  sent  received"
for address in "${addresses[@]}"; do
    curl -s "$address/metrics" | awk -v worker="${address##*:}" '
        $1 == "omb_process_cpu_seconds_total" { cpu = $2 }
        $1 == "omb_process_memory_bytes" { memory = $2 / 1e6 }
        $1 == "omb_messages_sent_total" { sent = $2 }
        $1 == "omb_messages_received_total" { received = $2 }
        END { printf "%6s  %5.1f  %9.0f  %d  %d\n", worker, cpu, memory, sent, received }'
done
exit "$ended"
