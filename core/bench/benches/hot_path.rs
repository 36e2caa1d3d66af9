//! What one message costs in the pure parts of the hot path: schedule, header, sequence set, histogram.
//!
//! `make bench` prints nanoseconds per message. Header write and read together are meant to stay below 50 ns.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use omb_bench::{
    config::workload::CatchUp,
    id::ProducerId,
    load::header::{Front, Header},
    plan::{pace::Pace, rate::Rate},
    stats::{latency::Latency, sequence::SequenceSet},
};
use omb_machine::time::{Instant, WallTime};

/// Messages per measured step, so that a step is far longer than reading the clock around it.
const MESSAGES: u64 = 10_000;

/// When the next message is due, for 16 producers at a rate whose interval is no whole number of nanoseconds.
fn pace(c: &mut Criterion) {
    let mut group = c.benchmark_group("pace");
    group.throughput(Throughput::Elements(MESSAGES));
    for (name, catch_up) in [("due", CatchUp::All), ("due, late messages dropped", CatchUp::Drop)] {
        let rate = Rate::per_second(1_700_001).expect("a rate in range");
        let mut pace = Pace::new(Instant(0), rate, None, 16, (0..16).collect(), catch_up);
        group.bench_function(name, |b| {
            b.iter(|| {
                for _ in 0..MESSAGES {
                    let now = pace.next_at();
                    black_box(pace.due(black_box(now)));
                }
            });
        });
    }
    group.finish();
}

/// Header written and read back with its checksum, as producer and consumer do once per message. `full` covers the whole payload.
fn header(c: &mut Criterion) {
    let mut group = c.benchmark_group("header write + read");
    group.throughput(Throughput::Elements(MESSAGES));
    for (len, full) in [(100, false), (1024, false), (100, true), (1024, true)] {
        let name = format!("{len} B{}", if full { ", full" } else { "" });
        let mut payload = vec![0x5a; len];
        group.bench_function(name, |b| {
            b.iter(|| {
                for sequence in 0..MESSAGES {
                    let intended = WallTime(1_700_000_000_000_000_000 + sequence);
                    let header = Header { producer: ProducerId(7), sequence, intended, late_micros: 3, probe: false };
                    header.write(black_box(&mut payload), full);
                    black_box(Front::read(black_box(&payload)));
                }
            });
        });
    }
    group.finish();
}

/// Each sequence number into the set of those seen: in order, and with neighbours swapped as a retry would.
fn sequence(c: &mut Criterion) {
    let mut group = c.benchmark_group("sequence insert");
    group.throughput(Throughput::Elements(MESSAGES));
    for (name, swap) in [("in order", 0), ("neighbours swapped", 1)] {
        let (mut set, mut next) = (SequenceSet::new(), 0);
        group.bench_function(name, |b| {
            b.iter(|| {
                for _ in 0..MESSAGES {
                    black_box(set.insert(black_box(next ^ swap)));
                    next += 1;
                }
            });
        });
    }
    group.finish();
}

/// One sample per message, over the four decades from 10 µs to 100 ms, in an order the processor cannot foresee.
fn record(c: &mut Criterion) {
    let mut group = c.benchmark_group("histogram");
    let samples = samples();
    group.throughput(Throughput::Elements(MESSAGES));
    let mut latency = Latency::new();
    group.bench_function("record", |b| {
        b.iter(|| {
            for sample in &samples {
                latency.record(black_box(*sample));
            }
        });
    });
    group.finish();
}

/// What happens once per period and thread, not per message: adding one histogram to another, and the difference of two states.
fn merge(c: &mut Criterion) {
    let mut group = c.benchmark_group("histogram, whole");
    let mut latency = Latency::new();
    samples().iter().for_each(|sample| latency.record(*sample));
    let mut total = Latency::new();
    group.bench_function("merge", |b| b.iter(|| total.merge(black_box(&latency))));
    group.bench_function("since", |b| {
        b.iter_batched(Latency::new, |earlier| black_box(latency.since(&earlier)), BatchSize::LargeInput);
    });
    group.bench_function("encode", |b| b.iter(|| black_box(latency.encode())));
    group.finish();
}

fn samples() -> Vec<u64> {
    // A multiplicative generator is random enough for the branch predictor, and the same in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..MESSAGES)
        .map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let decade = 10_u64.pow(4 + u32::try_from(state >> 62).expect("two bits"));
            decade + (state >> 20) % (9 * decade)
        })
        .collect()
}

criterion_group!(benches, pace, header, sequence, record, merge);
criterion_main!(benches);
