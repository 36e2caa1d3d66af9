//! Logs to stderr in the guides' format: `2025-10-18 10:00:00 - omb::command::run - INFO - Creating 10 topics...`

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use anyhow::Context as _;
use omb_machine::printable::printable;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer, layer},
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

use crate::console::{self, errln, shown};

/// Starts logging. `RUST_LOG`, if set, overrides the flags. Log lines are also appended to `file`, without colours.
///
/// # Errors
/// If the file cannot be opened; nothing is logged then.
pub(crate) fn start(quiet: bool, verbose: u8, file: Option<&Path>) -> anyhow::Result<()> {
    let level = match (quiet, verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    // Each line is one unbuffered write, so the lines before a crash are in the file.
    let file = file.map(Appended::open).transpose()?;
    // A layer would report its own errors directly to stderr, past the console.
    let on_console = layer().log_internal_errors(false).with_ansi(false);
    let in_file = |file: Appended| {
        let layer = layer().log_internal_errors(false).with_ansi(false);
        layer.with_writer(Box::leak(Box::new(file)) as &'static Appended).event_format(Line)
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(on_console.with_writer(|| console::Log).event_format(Line))
        .with(file.map(in_file))
        .init();
    Ok(())
}

/// The file of `--log-file`. Lines that cannot be written to it are lost, which is reported once.
struct Appended {
    file: File,
    shown: String,
    failed: AtomicBool,
}

impl Appended {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("--log-file {}: cannot write to it", shown(path)))?;
        Ok(Self { file, shown: shown(path), failed: AtomicBool::new(false) })
    }
}

impl<'a> MakeWriter<'a> for &'static Appended {
    type Writer = Appending;

    fn make_writer(&'a self) -> Appending {
        Appending(self)
    }
}

struct Appending(&'static Appended);

impl io::Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&self.0.file).write_all(bytes);
        if let Err(error) = written
            && !self.0.failed.swap(true, Relaxed)
        {
            errln!("--log-file {}: cannot write to it: {error}; what is logged meanwhile is lost there", self.0.shown);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
        let mut text = String::new();
        context.field_format().format_fields(Writer::new(&mut text), event)?;
        // Escapes what the caller did not. Further lines are indented, so that none looks like an event of its own.
        for (index, line) in text.split('\n').enumerate() {
            write!(writer, "{}{}", if index > 0 { "\n    " } else { "" }, printable(line))?;
        }
        writeln!(writer)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Whatever the text, one event looks like one event and does not control the terminal.
    #[test]
    fn no_text_forges_a_line_or_acts_on_a_terminal() {
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = layer().with_ansi(true).with_writer(move || writer.clone()).event_format(Line);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(node = "n\u{1b}[2J", "stored by a\n2026-01-01 00:00:00 - omb - ERROR - forged\r\u{202e}end");
        });
        let bytes = captured.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(bytes).expect("lines are texts");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with(" - INFO - stored by a"), "{text:?}");
        assert_eq!(
            lines[1..],
            [r#"    2026-01-01 00:00:00 - omb - ERROR - forged\r\u{202e}end node="n\u{1b}[2J""#],
            "{text:?}"
        );
    }
}
