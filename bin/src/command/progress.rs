//! The progress of a run: a bar on a terminal, one line per period otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use omb_bench::{
    plan::Plan,
    result::{Period, Phase},
};
use omb_machine::quantity;
use omb_report::table;

use crate::console::{self, Stream, outln};

/// A bar, or lines.
#[derive(Debug)]
pub(crate) struct Progress {
    on_terminal: bool,
    /// While it is on the screen.
    bar: Option<ProgressBar>,
    warm_up_ms: u64,
    total_ms: u64,
    headed: bool,
}

impl Progress {
    pub(crate) fn new(plan: &Plan) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let warm_up_ms = millis(plan.workload.warmup_duration);
        Self {
            on_terminal: console::is_terminal(Stream::Out) && console::is_terminal(Stream::Err),
            bar: None,
            warm_up_ms,
            total_ms: warm_up_ms + millis(plan.workload.test_duration),
            headed: false,
        }
    }

    pub(crate) fn enter(&mut self, phase: Phase) {
        if self.on_terminal && phase == Phase::WarmUp {
            // Before that there is no progress to show.
            let style =
                ProgressStyle::with_template("{prefix:>14} [{bar:24}] {wide_msg}").expect("the template is sound");
            let bar = console::bar(self.total_ms).with_style(style.progress_chars("=> "));
            console::stand_above(Some(bar.clone()));
            self.bar = Some(bar);
        }
        if let Some(bar) = &self.bar {
            bar.set_prefix(phase.to_string());
            if phase >= Phase::Stop {
                bar.set_position(self.total_ms);
            }
        }
    }

    pub(crate) fn period(&mut self, period: &Period) {
        if !self.on_terminal {
            if !self.headed {
                self.headed = true;
                outln!("{}", table::period_heading());
            }
            outln!("{}", table::period_line(period));
        }
        if let Some(bar) = &self.bar {
            // The duration of searches and backlogs is unknown; the bar follows phases with a fixed one.
            let at = u64::try_from(period.at.as_millis()).unwrap_or(u64::MAX);
            bar.set_position(match period.phase {
                Phase::WarmUp => at.min(self.warm_up_ms),
                Phase::Measure => at.min(self.total_ms),
                _ => bar.position(),
            });
            if period.target > 0.0 {
                bar.set_message(in_short(period));
            }
        }
    }

    pub(crate) fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            console::stand_above(None);
            bar.finish_and_clear();
        }
    }
}

/// A summary that fits behind a bar.
fn in_short(period: &Period) -> String {
    let (acks, arrivals) = (&period.totals.acknowledgements, &period.totals.arrivals);
    let mut text = format!(
        "{} of {} msg/s, publish p99 {}",
        quantity::rate(quantity::per_second(acks.acked, period.elapsed)),
        quantity::rate(period.target),
        quantity::latency(quantity::real(acks.from_intended.at(0.99))),
    );
    if arrivals.received > 0 {
        text += &format!(", end-to-end p99 {}", quantity::latency(quantity::real(arrivals.from_intended.at(0.99))));
    }
    if acks.failed > 0 {
        text += &format!(", {} failed", acks.failed);
    }
    text
}
