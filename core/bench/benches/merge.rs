//! What a period costs the controller of many workers: decoding their cumulative counts and adding them up.
//!
//! For 100 workers it is meant to stay below 10 ms, 1 % of a period of 1 s; other ways are shown beside it. Measured on
//! a shared machine of 2 cores: 6.7 ms summed sparse, 10.2 ms merged sparse, 16.3 ms dense.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use omb_bench::stats::{
    latency::Latency,
    sparse::{SparseTotals, TotalsSum},
    tally::Totals,
};
use omb_machine::encoding;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Workers whose counts are merged.
const WORKERS: u64 = 100;

/// Messages that each has counted.
const MESSAGES: u64 = 10_000;

/// Merging what all workers sent: sparse with its decoding, and dense with and without.
fn merge(c: &mut Criterion) {
    let totals: Vec<Totals> = (0..WORKERS).map(totals).collect();
    let sparse: Vec<Vec<u8>> = totals.iter().map(|totals| encoding::encode(&SparseTotals::from(totals))).collect();
    let dense: Vec<Vec<u8>> = totals.iter().map(encoding::encode).collect();
    let mut group = c.benchmark_group("totals of 100 workers");
    group.throughput(Throughput::Elements(WORKERS));
    group.sample_size(20);
    let mut sum = Totals::default();
    group.bench_function("decode and sum, sparse", |b| {
        b.iter(|| {
            let mut sum = TotalsSum::default();
            for body in &sparse {
                let totals: SparseTotals = encoding::decode(black_box(body)).expect("our own");
                sum.add(&totals);
            }
            sum.into_totals()
        });
    });
    group.bench_function("decode and merge, sparse", |b| {
        b.iter(|| {
            for body in &sparse {
                let totals: SparseTotals = encoding::decode(black_box(body)).expect("our own");
                sum.add_sparse(&totals);
            }
        });
    });
    group.bench_function("decode and merge, dense", |b| {
        b.iter(|| {
            for body in &dense {
                let totals: Totals = encoding::decode(black_box(body)).expect("our own");
                sum.merge(&totals);
            }
        });
    });
    group.bench_function("merge, dense, without decoding", |b| {
        b.iter(|| totals.iter().for_each(|totals| sum.merge(black_box(totals))));
    });
    group.bench_function("make sparse", |b| b.iter(|| black_box(SparseTotals::from(black_box(&totals[0])))));
    group.finish();
}

/// One worker's totals: log-normal latencies of some milliseconds, a schedule error of some microseconds.
fn totals(worker: u64) -> Totals {
    let mut random = ChaCha8Rng::seed_from_u64(worker);
    let mut fill = |latency: &mut Latency, median: f64| {
        (0..MESSAGES).for_each(|_| latency.record(log_normal(&mut random, median)));
    };
    let mut totals = Totals::default();
    totals.departures.attempted = MESSAGES;
    totals.acknowledgements.acked = MESSAGES;
    totals.arrivals.received = MESSAGES;
    fill(&mut totals.departures.schedule_error, 2e4);
    fill(&mut totals.acknowledgements.from_intended, 3e6);
    fill(&mut totals.acknowledgements.from_sent, 3e6);
    fill(&mut totals.arrivals.from_intended, 5e6);
    fill(&mut totals.arrivals.from_sent, 5e6);
    totals
}

/// A latency in nanoseconds whose logarithm has a standard deviation of 0.5 about that of `median`.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sample, and saturates")]
fn log_normal(random: &mut ChaCha8Rng, median: f64) -> u64 {
    // By Box and Muller; one minus a number below 1 is never 0.
    let (u, v): (f64, f64) = (random.random(), random.random());
    let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    (median * (0.5 * normal).exp()) as u64
}

criterion_group!(benches, merge);
criterion_main!(benches);
