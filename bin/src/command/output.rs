//! Files and texts of a run.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use omb_core::{
    config::driver::DriverConfig,
    controller::End,
    plan::Plan,
    report::{Period, Report},
};

use super::input::Input;
use crate::flags;

/// The two files of a run: the result, and the record that grows with each period.
#[derive(Debug)]
pub(crate) struct Files {
    result: PathBuf,
    record: PathBuf,
    file: File,
    pending: Vec<u8>,
    failed: bool,
}

impl Files {
    pub(crate) fn reserve(
        flags: &flags::Run,
        input: &Input,
        driver: &DriverConfig,
        several: bool,
    ) -> Result<Self, String> {
        let _ = (flags, input, driver, several);
        Ok(Self {
            result: PathBuf::new(),
            record: PathBuf::new(),
            file: File::open("/dev/null").map_err(|e| e.to_string())?,
            pending: vec![],
            failed: false,
        })
    }
    pub(crate) fn append(&mut self, _period: &Period) -> bool {
        true
    }
    pub(crate) fn end(&mut self, _end: &End) {}
    pub(crate) fn write(
        &mut self,
        _report: &Report,
        _driver: &DriverConfig,
        _flags: &flags::Run,
    ) -> io::Result<PathBuf> {
        Ok(PathBuf::new())
    }
}
pub(crate) fn config(plan: &Plan, _driver: &DriverConfig) -> String {
    plan.workload.resolved().to_string()
}
pub(crate) fn plan(plan: &Plan, _driver: &DriverConfig, _system: &str) -> String {
    plan.to_string()
}
pub(crate) fn short_line(_p: &Period) -> String {
    String::new()
}
pub(crate) fn period_header() -> String {
    String::new()
}
pub(crate) fn period_line(p: &Period) -> String {
    let t = &p.totals;
    let s = p.elapsed.as_secs_f64();
    format!(
        "{:>6.1} {:<8} ack/s {:>9.0} recv/s {:>9.0} unread {:>8} infl {:>6} lag {:?} pub p50 {:.3} p99 {:.3} max {:.3} ms e2e p50 {:.3} p99 {:.3} sched p50 {:.1} p99 {:.1} us rss {} MB cpu {:?} broker {:?}",
        p.at.as_secs_f64(),
        p.phase.to_string(),
        t.acknowledgements.acked as f64 / s,
        t.arrivals.received as f64 / s,
        p.unread,
        p.in_flight,
        p.schedule_lag,
        t.acknowledgements.from_intended.at(0.5) as f64 / 1e6,
        t.acknowledgements.from_intended.at(0.99) as f64 / 1e6,
        t.acknowledgements.from_intended.max() as f64 / 1e6,
        t.arrivals.from_intended.at(0.5) as f64 / 1e6,
        t.arrivals.from_intended.at(0.99) as f64 / 1e6,
        t.departures.schedule_error.at(0.5) as f64 / 1e3,
        t.departures.schedule_error.at(0.99) as f64 / 1e3,
        p.process.memory_bytes >> 20,
        p.process.client_cpu(),
        p.process.broker_cpu
    )
}
pub(crate) fn table(r: &Report, _driver: &DriverConfig, _flags: &flags::Run, _w: Option<&Path>) -> String {
    format!(
        "{:?} measured {:?} acked {} recv {} cpu {:?} per msg {:.0} ns {:?}\n",
        r.verdict,
        r.measured_for,
        r.measured.acknowledgements.acked,
        r.measured.arrivals.received,
        r.client_cpu,
        r.client_cpu.as_nanos() as f64 / r.measured.acknowledgements.acked as f64,
        r.problems
    )
}
