#!/usr/bin/env bash
# Measures `omb` next to Kafka's own load generator (ProducerPerformance), in turns, against one real Kafka on this
# machine, and prints a table with the ratios. `make bench-kafka` builds omb first.
#
#   SECONDS_EACH=60   measured seconds of each run (omb warms up WARMUP=10 seconds before)
#   ROUNDS=3          how often each pair is run; the table shows medians
#   WORKLOADS="steady max-100B max-1KiB"      TOOLS="omb kafka"
#
# ProducerPerformance only produces; omb produces and consumes what it produced, in one process, and checks it. CPU and
# memory are measured from outside, by the same means for both: all of the process, start and warm-up included.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${SECONDS_EACH:-60}
warmup=${WARMUP:-10}
rounds=${ROUNDS:-3}
workloads=${WORKLOADS:-steady max-100B max-1KiB}
tools=${TOOLS:-omb kafka}
omb=${OMB:-$PWD/target/release/omb}

OMB_REQUIRE_BROKERS=1 scripts/brokers.sh
lib=${OMB_KAFKA_LIB:-$PWD/target/brokers/kafka-4.1.0/lib}
if [[ " $tools " == *" omb "* && ! -x $omb ]]; then
    echo "bench-kafka: no $omb; build it with: cargo build --release -p omb" >&2
    exit 1
fi
# At full rate a run writes hundreds of MB a second; retention keeps it to what is stated in `topic_config`.
free_kb=$(df -Pk target | awk 'NR == 2 { print $4 }')
if [ "$free_kb" -lt 16000000 ]; then
    echo "bench-kafka: 16 GB of free disk wanted, $((free_kb / 1000000)) GB there" >&2
    exit 1
fi

work=$(mktemp -d "$PWD/target/bench-kafka.XXXXXX")
broker=""
finish() {
    if [ -n "$broker" ]; then
        kill -TERM "$broker" 2> /dev/null || true
        wait "$broker" 2> /dev/null || true
    fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# ---- the broker -----------------------------------------------------------------------------------------------

source scripts/ports.sh

kafka_java() {
    java -Dlog4j2.configurationFile="$work/log4j2.properties" -cp "$lib/*" "$@"
}

topics() {
    kafka_java org.apache.kafka.tools.TopicCommand --bootstrap-server "$bootstrap" "$@" 2> "$work/topics.log"
}

start_broker() {
    local port controller_port
    port=$(free_port)
    controller_port=$(free_port)
    bootstrap=127.0.0.1:$port
    sed 's/=info/=warn/' bin/tests/support/log4j2.properties > "$work/log4j2.properties"
    sed "s|@PORT@|$port|; s|@CONTROLLER_PORT@|$controller_port|; s|@DATA@|$work/data|" \
        bin/tests/support/kafka.properties > "$work/server.properties"
    # Old segments go while a run lasts, not five minutes later.
    echo "log.retention.check.interval.ms=2000" >> "$work/server.properties"
    kafka_java kafka.tools.StorageTool format -t ombBenchKafka000000000A -c "$work/server.properties" > "$work/format.log" 2>&1
    java -Xms512m -Xmx1g -Dlog4j2.configurationFile="$work/log4j2.properties" -cp "$lib/*" \
        kafka.Kafka "$work/server.properties" > "$work/kafka.log" 2>&1 &
    broker=$!
    # If this script is killed outright, its end of the pipe closes and the broker goes too.
    exec 9> >(trap '' INT TERM; read -r _ || true; kill -TERM "$broker" 2> /dev/null)
    local tries=0
    until topics --list > /dev/null; do
        tries=$((tries + 1))
        if [ $tries -gt 20 ] || ! kill -0 "$broker" 2> /dev/null; then
            tail -n 20 "$work/kafka.log" >&2
            echo "bench-kafka: Kafka did not start" >&2
            exit 1
        fi
    done
    echo "bench-kafka: Kafka 4.1.0 on $bootstrap, process $broker"
}

# ---- measuring a process from outside ---------------------------------------------------------------------------

# Runs a command; afterwards `cpu` is its user and system seconds, `rss` its peak memory in MB.
measure() {
    local log=$1 pid=""
    shift
    rm -f "$work/pid" "$work/rss"
    { TIMEFORMAT='%U %S'; time bash -c 'echo $$ > "$0"; exec "$@"' "$work/pid" "$@" > "$log" 2>&1 9>&-; } 2> "$work/time" &
    local job=$!
    # The high-water mark only grows, so the last reading is the peak, but for the last tenth of a second.
    while kill -0 "$job" 2> /dev/null; do
        if [ -z "$pid" ] && [ -s "$work/pid" ]; then pid=$(< "$work/pid"); fi
        if [ -n "$pid" ]; then
            if grep VmHWM "/proc/$pid/status" > "$work/rss.new" 2> /dev/null; then mv "$work/rss.new" "$work/rss"; fi
        fi
        sleep 0.1
    done
    if ! wait "$job"; then
        tail -n 20 "$log" >&2
        return 1
    fi
    cpu=$(awk '{ print $1 + $2 }' "$work/time")
    rss=$(awk '{ printf "%.0f", $2 / 1024 }' "$work/rss" 2> /dev/null || echo 0)
}

# ---- the two tools ----------------------------------------------------------------------------------------------

# 1 GiB of a topic stays on disk, in pieces small enough to be dropped in time.
retention=1073741824
segment=134217728

size_of() { case $1 in max-100B) echo 100 ;; *) echo 1024 ;; esac; }
rate_of() { case $1 in steady) echo 10000 ;; *) echo 10000000 ;; esac; }

# Messages per second of the last run at full rate, by which the next run of the Java tool gets its length.
declare -A seen=([max-100B]=1000000 [max-1KiB]=180000 [steady]=10000)

run_kafka() {
    local workload=$1 round=$2 throughput=-1 records
    local topic=perf-$workload-$round
    if [ "$workload" = steady ]; then throughput=10000; fi
    records=$((seen[$workload] * seconds))
    topics --create --topic "$topic" --partitions 1 --config retention.bytes=$retention --config segment.bytes=$segment > /dev/null
    measure "$work/perf.log" java -Xms256m -Xmx1g -Dlog4j2.configurationFile="$work/log4j2.properties" -cp "$lib/*" \
        org.apache.kafka.tools.ProducerPerformance --topic "$topic" --num-records "$records" \
        --record-size "$(size_of "$workload")" --throughput $throughput \
        --producer-props bootstrap.servers="$bootstrap" acks=1 linger.ms=1 batch.size=131072
    # "600000 records sent, 9999.8 records/sec (9.77 MB/sec), 0.61 ms avg latency, 203.00 ms max latency, 1 ms 50th, ..."
    local last rate p50 p99 p999
    last=$(grep 'records sent.*99.9th' "$work/perf.log" | tail -n 1)
    rate=$(sed -n 's/.*sent, \([0-9.]*\) records\/sec.*/\1/p' <<< "$last")
    p50=$(sed -n 's/.* \([0-9]*\) ms 50th.*/\1/p' <<< "$last")
    p99=$(sed -n 's/.* \([0-9]*\) ms 99th.*/\1/p' <<< "$last")
    p999=$(sed -n 's/.* \([0-9]*\) ms 99.9th.*/\1/p' <<< "$last")
    if [ "$workload" != steady ]; then seen[$workload]=${rate%.*}; fi
    note "$workload" kafka "$round" "$rate" - "$records" "$p50" "$p99" "$p999" - -
}

# The only place that knows the result file: a top-level number, and the mean of a top-level list.
number() { tr -d '\n' < "$work/result.json" | grep -o "\"$1\" *: *[0-9.eE+-]*" | head -n 1 | sed 's/.*: *//'; }
mean() {
    tr -d '\n' < "$work/result.json" | grep -o "\"$1\" *: *\[[^]]*\]" | head -n 1 | sed 's/.*\[//; s/\]//' | tr ',' '\n' |
        awk 'NF { sum += $1; n++ } END { if (n) printf "%.1f", sum / n; else print 0 }'
}

run_omb() {
    local workload=$1 round=$2 rate
    cat > "$work/driver.yaml" << YAML
name: Kafka
driverClass: io.openmessaging.benchmark.driver.kafka.KafkaBenchmarkDriver
replicationFactor: 1
topicConfig: |
  retention.bytes=$retention
  segment.bytes=$segment
commonConfig: |
  bootstrap.servers=$bootstrap
producerConfig: |
  acks=1
  linger.ms=1
  batch.size=131072
consumerConfig: |
  auto.offset.reset=earliest
  enable.auto.commit=false
YAML
    cat > "$work/workload.yaml" << YAML
name: $workload
topics: 1
partitionsPerTopic: 1
messageSize: $(size_of "$workload")
useRandomizedPayloads: true
randomBytesRatio: 0.5
randomizedPayloadPoolSize: 100
subscriptionsPerTopic: 1
consumerPerSubscription: 1
producersPerTopic: 1
producerRate: $(rate_of "$workload")
consumerBacklogSizeGB: 0
testDuration: ${seconds}s
warmupDuration: ${warmup}s
YAML
    # A result is never overwritten.
    rm -f "$work"/result.json*
    measure "$work/omb.log" "$omb" run -d "$work/driver.yaml" -o "$work/result.json" "$work/workload.yaml"
    rate=$(mean publishRate)
    note "$workload" omb "$round" "$rate" "$(mean consumeRate)" \
        "$(awk -v r="$rate" -v s="$((seconds + warmup))" 'BEGIN { printf "%.0f", r * s }')" \
        "$(number aggregatedPublishLatency50pct)" "$(number aggregatedPublishLatency99pct)" "$(number aggregatedPublishLatency999pct)" \
        "$(number aggregatedPublishDelayLatency50pct)" "$(number aggregatedPublishDelayLatency99pct)"
    # omb deletes its own topics; this is for a version that does not.
    topics --delete --topic '.*' > /dev/null 2>&1 || true
}

# One line of results: workload, tool, round, published and consumed per second, messages, CPU, memory, latencies in ms, lateness in us.
note() {
    local per
    per=$(awk -v c="$cpu" -v m="$6" 'BEGIN { printf "%.3f", m ? c * 1e6 / m : 0 }')
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' \
        "$1" "$2" "$3" "$4" "$5" "$cpu" "$per" "$rss" "$7" "$8" "$9" "${10}/${11}" >> "$work/results"
    printf '  %-9s %-5s round %s: %12s msg/s  %7s s CPU  %7s us/msg  %5s MB  p50/p99/p99.9 %s/%s/%s ms  late p50/p99 %s/%s us\n' \
        "$1" "$2" "$3" "$4" "$cpu" "$per" "$rss" "$7" "$8" "$9" "${10}" "${11}"
}

# ---- the rounds, and the table ----------------------------------------------------------------------------------

start_broker
for workload in $workloads; do
    for round in $(seq "$rounds"); do
        for tool in $tools; do
            "run_$tool" "$workload" "$round"
            topics --delete --topic "perf-.*" > /dev/null 2>&1 || true
            # The disk settles before the other one's turn.
            sync
        done
    done
done

echo
echo "medians of $rounds rounds of $seconds s; acks=1, linger 1 ms, batches of 128 KiB, 1 topic, 1 partition; broker on the same machine"
echo "kafka = ProducerPerformance (produces only); omb produces and consumes"
awk -F '\t' '
    function median(list,    parts, n, i, j, t) {
        n = split(substr(list, 2), parts, " ")
        for (i = 2; i <= n; i++) for (j = i; j > 1 && parts[j] + 0 < parts[j - 1] + 0; j--) { t = parts[j]; parts[j] = parts[j - 1]; parts[j - 1] = t }
        return n % 2 ? parts[(n + 1) / 2] : (parts[n / 2] + parts[n / 2 + 1]) / 2
    }
    { if (!($1 in order)) { order[$1] = ++workloads; name[workloads] = $1 }
      for (c = 4; c <= 11; c++) if ($c != "-" && $c != "") value[$1, $2, c] = value[$1, $2, c] " " $c }
    END {
        split("published/s,consumed/s,CPU s,CPU us/msg,peak MB,p50 ms,p99 ms,p99.9 ms", title, ",")
        for (w = 1; w <= workloads; w++) {
            printf "\n%-12s %14s %14s %12s\n", name[w], "omb", "kafka", "omb : kafka"
            for (c = 4; c <= 11; c++) {
                a = value[name[w], "omb", c]; b = value[name[w], "kafka", c]
                am = a == "" ? "-" : median(a); bm = b == "" ? "-" : median(b)
                ratio = (am == "-" || bm == "-" || bm + 0 == 0) ? "" : sprintf("%.2f", am / bm)
                printf "%-12s %14s %14s %12s\n", title[c - 3], am, bm, ratio
            }
        }
    }' "$work/results"
