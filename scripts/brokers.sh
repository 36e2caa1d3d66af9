#!/usr/bin/env bash
# Gets what the tests against a real Kafka need: a Java runtime, and Kafka's published jars.
#
# The jars come through the ordinary Maven into target/brokers/kafka-VERSION/lib, once. As root on a Debian
# system a missing Java or Maven is installed first. Where that cannot be done, one line names what is left out and
# the exit code is 0, so that the other tests still run; with OMB_REQUIRE_BROKERS=1 it is 1.
set -euo pipefail
cd "$(dirname "$0")/.."

kafka=4.1.0
home=target/brokers/kafka-$kafka
lib=$home/lib

left_out() {
    mkdir -p target
    echo "real Kafka ($1)" >> target/left-out.txt
    echo "left out: real Kafka ($1)"
    if [ "${OMB_REQUIRE_BROKERS:-0}" = 1 ]; then
        echo "OMB_REQUIRE_BROKERS=1 makes that a failure" >&2
        exit 1
    fi
    exit 0
}

have() { command -v "$1" > /dev/null 2>&1; }

# Installs Debian packages, if we may; otherwise does nothing and lets the caller check again.
install() {
    if [ "$(id -u)" != 0 ] || ! have apt-get; then return 0; fi
    echo "brokers: installing $*"
    local log
    log=$(mktemp)
    if ! { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" ||
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; }; } \
        > "$log" 2>&1 < /dev/null; then
        tail -n 5 "$log" >&2
    fi
    rm -f "$log"
}

if ! have java; then install default-jre-headless; fi
if ! have java; then left_out "no java, and only root on Debian lets this script install one"; fi
# Kafka 4 wants Java 17 or newer. "17.0.15" and "1.8.0_392" both begin with the number that decides.
java_major=$(java -version 2>&1 < /dev/null | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
if [ "${java_major:-0}" -lt 17 ]; then left_out "java is version ${java_major:-unknown}, Kafka $kafka needs 17"; fi

if [ -d "$lib" ]; then
    echo "brokers: Kafka $kafka is in $lib"
    exit 0
fi
if ! have mvn; then install maven; fi
if ! have mvn; then left_out "no mvn to fetch it with"; fi

# The folder gets its name only when it is whole, so an interrupted run leaves nothing that looks done.
mkdir -p "$home"
work=$(mktemp -d "$home/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
cat > "$work/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>omb</groupId>
  <artifactId>brokers</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$kafka</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$kafka</version></dependency>
    <!-- Without it the broker logs nothing. -->
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
  </dependencies>
</project>
POM
echo "brokers: fetching Kafka $kafka"
fetch() {
    mvn -q -B -f "$work/pom.xml" dependency:copy-dependencies -DoutputDirectory="$PWD/$work/lib" -DincludeScope=runtime \
        > "$work/log" 2>&1 < /dev/null
}
# A registry that answers badly once usually answers the second time.
if ! fetch && ! { sleep 5; fetch; }; then
    tail -n 5 "$work/log" >&2
    left_out "mvn could not fetch version $kafka"
fi
if ! ls "$work/lib/kafka_2.13-$kafka.jar" "$work/lib/kafka-tools-$kafka.jar" > /dev/null; then
    left_out "mvn fetched something else than Kafka $kafka"
fi
# Another run may have been faster; then its folder is used.
mv -T "$work/lib" "$lib" 2> /dev/null || [ -d "$lib" ] || mv "$work/lib" "$lib"
echo "brokers: $(find "$lib" -name '*.jar' | wc -l) jars in $lib"
