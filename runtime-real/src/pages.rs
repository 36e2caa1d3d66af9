//! What a worker shows to people and to Prometheus.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{StatusCode, body::Bytes};
use omb_bench::stats::tally::Totals;
use omb_machine::{prometheus::CONTENT_TYPE, time::Instant};
use omb_report::metrics::{self, Followed, Metrics, Rates};

use crate::{
    clock,
    load::lock,
    performer::Counts,
    portable::fleet::{
        serving::{self, Status},
        wire::Answered,
    },
    process,
    reaper::Reaper,
};

/// Shortest time over which a rate is shown.
const RATE_OVER: Duration = Duration::from_secs(1);

/// The pages of one worker.
#[derive(Debug)]
pub struct Pages {
    omb: String,
    name: String,
    counts: Counts,
    reaper: Reaper,
    /// Raised once the worker ends: nobody shall begin a run on it any more.
    ending: Arc<AtomicBool>,
    rates: Mutex<Looks>,
}

/// What was counted at two looks, for the rates between them.
#[derive(Debug, Default)]
struct Looks {
    at: Instant,
    acked: u64,
    received: u64,
    rates: Option<Rates>,
}

impl Pages {
    /// The pages of the worker `name`, of this version of omb. `ending` is raised once it shuts down.
    #[must_use]
    pub fn new(omb: &str, name: &str, counts: Counts, reaper: Reaper, ending: Arc<AtomicBool>) -> Self {
        Self { omb: omb.to_owned(), name: name.to_owned(), counts, reaper, ending, rates: Mutex::default() }
    }

    fn with_metrics(&self, status: &Status, show: impl Fn(&Metrics<'_>) -> String) -> String {
        let snapshot = self.counts.snapshot().unwrap_or_default();
        let totals = snapshot.totals.to_totals();
        let usage = process::usage(Duration::ZERO);
        let follows = status.follows.as_ref();
        show(&Metrics {
            version: &self.omb,
            worker: &self.name,
            follows: follows.map(|(run, controller, since)| Followed { run: *run, controller, since: *since }),
            totals: &totals,
            rebalances: snapshot.groups.values().map(|group| group.rebalances).fold(0, u64::saturating_add),
            in_flight: snapshot.in_flight,
            schedule_lag: snapshot.schedule_lag,
            cpu: usage.cpu,
            memory_bytes: usage.memory_bytes,
            network_received_bytes: Some(usage.received_bytes),
            network_sent_bytes: Some(usage.sent_bytes),
            commands_answered: status.commands_answered,
            leases_expired: status.leases_expired,
            clients_left_behind: self.reaper.left(),
            rates: self.rates(&totals),
            stats_url: None,
        })
    }

    /// The rates since the last look that lies long enough back.
    #[expect(clippy::cast_precision_loss, reason = "shown, not computed with")]
    fn rates(&self, totals: &Totals) -> Option<Rates> {
        let (acked, received) = (totals.acknowledgements.acked, totals.arrivals.received);
        let (mut looks, now) = (lock(&self.rates), clock::now());
        let elapsed = now.since(looks.at);
        if elapsed >= RATE_OVER {
            let per_second = |count: u64, before: u64| count.saturating_sub(before) as f64 / elapsed.as_secs_f64();
            let known = looks.at > Instant::ZERO && acked >= looks.acked;
            let rates = known.then(|| Rates {
                acked: per_second(acked, looks.acked),
                received: per_second(received, looks.received),
            });
            *looks = Looks { at: now, acked, received, rates };
        }
        looks.rates
    }
}

impl serving::Pages for Pages {
    fn get(&self, path: &str, status: &Status) -> Option<Answered> {
        let page =
            |content_type, body: String| Answered { status: StatusCode::OK, content_type, body: Bytes::from(body) };
        Some(match path {
            "/" => page("text/html; charset=utf-8", self.with_metrics(status, metrics::status_page)),
            "/metrics" => page(CONTENT_TYPE, self.with_metrics(status, metrics::prometheus)),
            "/counters-stats" => {
                let totals = self.counts.snapshot().unwrap_or_default().totals.to_totals();
                page("application/json", format!("{}\n", metrics::counters_stats(&totals)))
            }
            "/healthz" => Answered::text(StatusCode::OK, "ok"),
            "/readyz" if self.ending.load(Relaxed) => Answered::text(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
            // Shown to anyone who asks, so it names no one.
            "/readyz" => Answered::text(StatusCode::OK, if status.follows.is_some() { "busy" } else { "free" }),
            _ => return None,
        })
    }
}
