//! Logs, to stderr, in the shape people know: `2025-10-18 10:00:00 - omb::command::run - INFO - Creating 10 topics...`

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, IsTerminal as _},
    path::Path,
    sync::Arc,
};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer, layer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::command::progress;

/// Starts logging. `RUST_LOG`, where it is set, decides instead of the flags. What is logged is also appended to `file`,
/// line by line, without colours.
///
/// # Errors
/// If the file cannot be opened; nothing is logged then.
pub(crate) fn start(quiet: bool, verbose: u8, file: Option<&Path>) -> Result<(), String> {
    let level = match (quiet, verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // Each line is one write without a buffer, so what was logged before a crash is there.
    let file = file.map(open).transpose()?.map(Arc::new);
    tracing_subscriber::registry()
        .with(filter)
        .with(layer().with_ansi(io::stderr().is_terminal()).with_writer(|| AboveBar).event_format(Line))
        .with(file.map(|file| layer().with_ansi(false).with_writer(file).event_format(Line)))
        .init();
    Ok(())
}

fn open(path: &Path) -> Result<File, String> {
    let told = |error| format!("--log-file {}: cannot write to it: {error}", path.display());
    OpenOptions::new().create(true).append(true).open(path).map_err(told)
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
