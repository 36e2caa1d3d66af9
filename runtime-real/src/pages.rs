//! What a worker shows to people and to Prometheus.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use hyper::{StatusCode, body::Bytes};
use omb_core::protocol::event::Snapshot;

use crate::{
    fleet::{serving, wire::Answered},
    performer::Counts,
};

/// The pages of one worker.
#[derive(Clone, Debug)]
pub struct Pages {
    /// Version of omb.
    pub omb: String,
    /// What the current run counts.
    pub counts: Counts,
    /// The port of the metrics, for the page that people read.
    pub stats_port: u16,
    /// Raised once the worker ends: nobody shall begin a run on it any more.
    pub ending: Arc<AtomicBool>,
}

impl Pages {
    fn snapshot(&self) -> Snapshot {
        self.counts.snapshot().unwrap_or_default()
    }
}

impl serving::Pages for Pages {
    fn get(&self, path: &str, controller: Option<&str>) -> Option<Answered> {
        let page =
            |content_type, body: String| Answered { status: StatusCode::OK, content_type, body: Bytes::from(body) };
        Some(match path {
            "/counters-stats" => {
                let totals = self.snapshot().totals;
                page(
                    "application/json",
                    format!(
                        "{{\"messagesSent\":{},\"messagesReceived\":{},\"messageSendErrors\":{}}}\n",
                        totals.acknowledgements.acked, totals.arrivals.received, totals.acknowledgements.failed
                    ),
                )
            }
            "/healthz" => Answered::text(StatusCode::OK, "ok"),
            "/readyz" if self.ending.load(Relaxed) => Answered::text(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
            "/readyz" => Answered::text(
                StatusCode::OK,
                &match controller {
                    Some(controller) => format!("busy: obeys {controller}"),
                    None => "free".to_owned(),
                },
            ),
            _ => return None,
        })
    }
}
