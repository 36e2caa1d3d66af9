//! Logs, to stderr, in the shape people know: `2025-10-18 10:00:00 - omb::command::run - INFO - Creating 10 topics...`

use std::{fmt, io};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::command::progress;

/// Starts logging. `RUST_LOG`, where it is set, decides instead of the flags.
pub(crate) fn start(quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| AboveBar).event_format(Line).init();
}

/// Stderr, above the progress bar where there is one.
struct AboveBar;

impl io::Write for AboveBar {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::above_bar(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
        write!(writer, "{now} - {} - {} - ", metadata.target().replace("::", "."), metadata.level())?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
