//! Made-up periods for tests, here and in other crates (feature `fixture`): every number is chosen.

use std::time::Duration;

use omb_machine::time::WallTime;
use proptest::prelude::*;

use super::{Period, Phase};
use crate::{
    id::SubscriptionId,
    protocol::event::Process,
    stats::tally::{Seen, Totals},
};

/// 2026-01-04 12:30:00 UTC.
pub const STARTED: u64 = 1_767_529_800_000_000_000;

/// `count` messages that left, were confirmed and arrived twice, their latencies spread a little.
#[must_use]
pub fn totals(count: u64, seed: u64) -> Totals {
    let mut totals = Totals::default();
    for n in 0..count {
        let spread = (n * 7_919 + seed % 1_000 * 104_729) % 1_000;
        totals.departures.attempted += 1;
        totals.departures.schedule_error.record(5_000 + spread * 20);
        totals.acknowledgements.acked += 1;
        totals.acknowledgements.acked_bytes += 1_024;
        totals.acknowledgements.from_sent.record(800_000 + spread * spread * 10);
        totals.acknowledgements.from_intended.record(805_000 + spread * spread * 10 + spread * 20);
        for _ in 0..2 {
            totals.arrivals.received += 1;
            totals.arrivals.received_bytes += 1_024;
            totals.arrivals.from_sent.record(1_100_000 + spread * spread * 10);
            totals.arrivals.from_intended.record(1_105_000 + spread * spread * 10 + spread * 20);
        }
    }
    for id in 0..4 {
        let count = if id < 2 { count.div_ceil(2) } else { count / 2 };
        totals.seen.insert(SubscriptionId(id), Seen { received: count, distinct: count, ..Seen::default() });
    }
    totals
}

/// Period number `n` of 1 s.
#[must_use]
pub fn period(phase: Phase, n: u64, totals: Totals) -> Period {
    let second = 1_000_000_000;
    Period {
        phase,
        at: Duration::from_secs(n + 1),
        elapsed: Duration::from_secs(1),
        wall: WallTime(STARTED + (n + 1) * second),
        target: 1_000.0,
        totals,
        unread: 3 + n % 2,
        in_flight: 2,
        rebalances: 0,
        schedule_lag: Duration::from_micros(20),
        throttled: Duration::ZERO,
        process: Process {
            cpu: Duration::from_millis(50 * (n + 1)),
            broker_cpu: Duration::ZERO,
            memory_bytes: 90_000_000,
            memory_bytes_max: 95_000_000,
            ..Process::default()
        },
        workers: Vec::new(),
    }
}

/// A period whose every number may be anything.
pub fn any_period() -> impl Strategy<Value = Period> {
    let phase = prop::sample::select(vec![Phase::WarmUp, Phase::Search, Phase::Measure, Phase::Stop, Phase::Drain]);
    let samples = prop::collection::vec(0..u64::MAX / 2, 0..12);
    (phase, samples, any::<[u32; 12]>(), any::<u64>()).prop_map(|(phase, samples, numbers, big)| {
        let mut totals = totals(u64::from(numbers[0] % 20), big);
        let number = |at: usize| u64::from(numbers[at]);
        for (place, sample) in samples.into_iter().enumerate() {
            match place % 5 {
                0 => totals.departures.schedule_error.record(sample),
                1 => totals.acknowledgements.from_intended.record(sample),
                2 => totals.acknowledgements.from_sent.record(sample),
                3 => totals.arrivals.from_intended.record(sample),
                _ => totals.arrivals.from_sent.record(sample),
            }
        }
        totals.departures.skipped = number(1);
        (totals.acknowledgements.failed, totals.acknowledgements.refused) = (number(2), number(2) / 3);
        totals.arrivals.corrupted = number(3);
        totals.arrivals.before_intended = number(4);
        let mut period = period(phase, 1, totals);
        period.at = Duration::from_nanos(number(5));
        period.elapsed = Duration::from_nanos(number(6));
        period.wall = WallTime(big);
        period.target = f64::from(numbers[7]);
        period.unread = big;
        period.in_flight = number(8);
        period.rebalances = number(11) % 3;
        period.totals.arrivals.reread = number(10) % 7;
        period.schedule_lag = Duration::from_nanos(big);
        period.throttled = Duration::from_nanos(number(5));
        period.process.cpu = Duration::new(number(9), 1);
        period.process.broker_cpu = Duration::from_nanos(number(10));
        period.process.memory_bytes = number(11);
        period
    })
}
