//! The only module that writes to stdout and stderr, which the lints of this crate enforce.
//!
//! ```text
//! outln!, errln!, log lines, --help, the bar ─▶ write ─┬─▶ the stream                         (report, check, client)
//!                                                      └─▶ a queue ─▶ a thread ─▶ the stream (run, worker, node, ..)
//! ```
//!
//! Output never stops the work: nothing here panics, fails or, in a command that measures or serves, blocks. A stream
//! that is closed (a pipe, a terminal) is not written to again; one that accepts nothing for a while (a full disk, a
//! paused pager) loses lines, and the next line that gets through reports how many.

#![allow(clippy::disallowed_methods, reason = "the other modules write through this one")]

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{self, IsTerminal as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::{
        Arc, Condvar, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, TermLike};
use omb_machine::printable::printable;

use crate::exit::Code;

/// Writes a line to stdout.
macro_rules! outln {
    () => { $crate::console::line($crate::console::Stream::Out, format_args!("")) };
    ($($line:tt)*) => { $crate::console::line($crate::console::Stream::Out, format_args!($($line)*)) };
}

/// Writes a line to stderr.
macro_rules! errln {
    () => { $crate::console::line($crate::console::Stream::Err, format_args!("")) };
    ($($line:tt)*) => { $crate::console::line($crate::console::Stream::Err, format_args!($($line)*)) };
}

pub(crate) use {errln, outln};

/// Most bytes that are queued for a stream that accepts nothing.
const QUEUE_MAX: usize = 4 << 20;

/// Longest that a service, or an interrupted command, waits at its end for a stream that accepts nothing.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

/// An output stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// The purpose of a command, as far as its output is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To produce output. A failed write is an error, unless the reader has closed the pipe.
    Output,
    /// To do something for the user. The exit code is that of the deed, whether or not the output can be written.
    Deed,
    /// The same, but writing must not wait for a reader.
    Measurement,
    /// To serve requests until it is asked to end.
    Service,
}

/// Writes a line (or several), above the progress bar where there is one.
pub(crate) fn line(stream: Stream, line: fmt::Arguments<'_>) {
    text(stream, &format!("{line}\n"));
}

/// Writes lines, escaped so that they cannot control a terminal.
pub(crate) fn text(stream: Stream, text: &str) {
    let lines: Vec<_> = text.split('\n').map(printable).collect();
    write(stream, lines.join("\n").as_bytes());
}

/// Writes bytes, above the progress bar where there is one.
pub(crate) fn write(stream: Stream, bytes: &[u8]) {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
    match bar {
        Some(bar) => bar.suspend(|| pass_on(stream, bytes)),
        None => pass_on(stream, bytes),
    }
}

/// Shows the output of the argument parser: an error, or the help that was asked for.
pub(crate) fn show(error: &clap::Error) {
    let stream = if error.use_stderr() { Stream::Err } else { Stream::Out };
    let (rendered, plain) = (error.render(), error.render().to_string());
    // It quotes arguments without escaping them.
    let escaped: Vec<_> = plain.lines().map(printable).collect();
    let text = if plain.lines().ne(escaped.iter().map(AsRef::as_ref)) {
        escaped.join("\n") + "\n"
    } else if styled(stream) {
        rendered.ansi().to_string()
    } else {
        plain
    };
    write(stream, text.as_bytes());
}

/// Moves all further writing to a thread of its own, so that callers do not wait for a reader.
pub(crate) fn detach() {
    let one = match (&OUT.file, &ERR.file) {
        (Some(out), Some(err)) => same(out, err),
        _ => false,
    };
    let out = Arc::<Queue>::default();
    // Lines on the same terminal, pipe or file keep their order.
    let err = if one { Arc::clone(&out) } else { Arc::default() };
    let start = |queue: &Arc<Queue>| {
        let queue = Arc::clone(queue);
        std::thread::Builder::new().name("console".to_owned()).stack_size(128 << 10).spawn(move || queue.serve())
    };
    // Without a thread, callers go on writing themselves.
    if start(&out).is_ok() && (one || start(&err).is_ok()) {
        let _ = QUEUES.set((out, err));
    }
}

/// Flushes the output of a command and returns its exit code: `code`, unless its purpose is output and a write failed.
pub(crate) fn finish(purpose: Purpose, code: Code) -> Code {
    let patient = purpose != Purpose::Service && code != Code::Interrupted;
    if patient {
        // A reader may take its time; the user can interrupt the wait.
        crate::signals::restore();
    }
    flush((!patient).then_some(FLUSH_WITHIN));
    if purpose == Purpose::Output
        && let Some(error) = OUT.failed.get()
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        errln!("cannot write to standard output: {error}");
        return if code == Code::Sound { Code::Failed } else { code };
    }
    code
}

/// Ends the process at once, but flushes its output.
pub(crate) fn leave(code: Code) -> ! {
    flush(Some(FLUSH_WITHIN));
    std::process::exit(u8::from(code).into())
}

/// Whether a stream is a terminal.
pub(crate) fn is_terminal(stream: Stream) -> bool {
    sink(stream).file.as_ref().is_some_and(|file| file.is_terminal())
}

/// Whether colours are wanted on a stream.
pub(crate) fn styled(stream: Stream) -> bool {
    moves(stream) && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether a stream is a terminal that understands escape sequences.
fn moves(stream: Stream) -> bool {
    is_terminal(stream) && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Columns to format for: those of the stream's terminal, or `otherwise`.
pub(crate) fn columns(stream: Stream, otherwise: usize) -> usize {
    let size = sink(stream).file.as_ref().and_then(terminal_size::terminal_size_of);
    size.map(|(width, _)| usize::from(width.0)).filter(|columns| *columns > 0).unwrap_or(otherwise)
}

/// A progress bar of this length on stderr: hidden unless that is a terminal.
pub(crate) fn bar(length: u64) -> ProgressBar {
    let target = if moves(Stream::Err) {
        ProgressDrawTarget::term_like_with_hz(Box::new(Screen), 20)
    } else {
        ProgressDrawTarget::hidden()
    };
    ProgressBar::with_draw_target(Some(length), target)
}

/// Sets the bar above which lines are written from now on; `None` removes it.
pub(crate) fn stand_above(bar: Option<ProgressBar>) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = bar;
}

/// Stdout for the bytes of a file. They are data, so errors go to the writer.
pub(crate) fn body() -> tokio::io::Stdout {
    tokio::io::stdout()
}

/// The writer of log lines.
#[derive(Debug)]
pub(crate) struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        write(Stream::Err, bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The bar at the bottom of the terminal.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Those of stdout and stderr; unset as long as callers write themselves.
static QUEUES: OnceLock<(Arc<Queue>, Arc<Queue>)> = OnceLock::new();

static OUT: LazyLock<Sink> = LazyLock::new(|| Sink::new(io::stdout().as_fd()));
static ERR: LazyLock<Sink> = LazyLock::new(|| Sink::new(io::stderr().as_fd()));

fn sink(stream: Stream) -> &'static Sink {
    match stream {
        Stream::Out => &OUT,
        Stream::Err => &ERR,
    }
}

/// Whether two files are the same terminal, pipe or file.
fn same(one: &File, other: &File) -> bool {
    let id = |file: &File| file.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    id(one).is_some_and(|one| Some(one) == id(other))
}

fn pass_on(stream: Stream, bytes: &[u8]) {
    match QUEUES.get() {
        None => _ = sink(stream).write(bytes),
        Some((out, err)) => if stream == Stream::Out { out } else { err }.push(stream, bytes),
    }
}

/// Waits until everything is written, but no longer than `within`.
fn flush(within: Option<Duration>) {
    let until = within.map(|within| Instant::now() + within);
    if let Some((out, err)) = QUEUES.get() {
        out.flush(until);
        err.flush(until);
    }
}

/// One of the two streams.
struct Sink {
    /// `None` if the process has no such stream.
    file: Option<File>,
    /// All further writes would fail.
    gone: AtomicBool,
    /// The first error of a write.
    failed: OnceLock<io::Error>,
}

impl Sink {
    fn new(stream: BorrowedFd<'_>) -> Self {
        // Without the buffer and the lock of the standard library, which keeps what could not be written.
        let file = stream.try_clone_to_owned().ok().map(File::from);
        Self { gone: AtomicBool::new(file.is_none()), file, failed: OnceLock::new() }
    }

    /// Writes as much as the stream accepts. Returns whether that was everything.
    fn write(&self, mut bytes: &[u8]) -> bool {
        let Some(mut file) = self.file.as_ref().filter(|_| !self.gone.load(Relaxed)) else { return false };
        while !bytes.is_empty() {
            let error = match file.write(bytes) {
                Ok(0) => io::ErrorKind::WriteZero.into(),
                Ok(count) => {
                    bytes = &bytes[count..];
                    continue;
                }
                Err(error) => error,
            };
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                // Another process that shares the terminal has made it non-blocking.
                io::ErrorKind::WouldBlock => wait_for_room(file.as_fd()),
                _ => {
                    // A closed terminal gives EIO. Other errors, such as a full disk, may be temporary.
                    let for_good = matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EIO | libc::EBADF));
                    self.gone.fetch_or(for_good, Relaxed);
                    let _ = self.failed.set(error);
                    return false;
                }
            }
        }
        true
    }
}

/// Waits until a file accepts bytes again, but no longer than a second.
fn wait_for_room(file: BorrowedFd<'_>) {
    let mut asked = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: `asked` is one valid `pollfd`, as the count says. If the call fails, the next write reports why.
    unsafe { libc::poll(&raw mut asked, 1, 1_000) };
}

/// Output that waits to be written.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// A piece was added.
    added: Condvar,
    /// Everything is written.
    drained: Condvar,
}

#[derive(Default)]
struct Waiting {
    pieces: VecDeque<(Stream, Vec<u8>)>,
    bytes: usize,
    /// A piece is being written.
    writing: bool,
    /// Pieces dropped for lack of room.
    left_out: u64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, stream: Stream, bytes: &[u8]) {
        let mut waiting = self.lock();
        // An empty queue accepts a piece of any size.
        if waiting.bytes > 0 && waiting.bytes + bytes.len() > QUEUE_MAX {
            waiting.left_out += 1;
            return;
        }
        waiting.bytes += bytes.len();
        waiting.pieces.push_back((stream, bytes.to_vec()));
        self.added.notify_one();
    }

    /// Writes pieces as they arrive, for ever.
    fn serve(&self) {
        let mut waiting = self.lock();
        loop {
            let Some((stream, piece)) = waiting.pieces.pop_front() else {
                if waiting.left_out > 0 {
                    let text = format!("({} lines were dropped: the stream did not accept them)\n", waiting.left_out);
                    waiting.left_out = 0;
                    waiting.pieces.push_back((Stream::Err, text.into_bytes()));
                    continue;
                }
                waiting.writing = false;
                self.drained.notify_all();
                waiting = self.added.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            waiting.writing = true;
            drop(waiting);
            sink(stream).write(&piece);
            waiting = self.lock();
            waiting.bytes = waiting.bytes.saturating_sub(piece.len());
        }
    }

    fn flush(&self, until: Option<Instant>) {
        let mut waiting = self.lock();
        while waiting.writing || !waiting.pieces.is_empty() {
            let left = until.map_or(Duration::from_secs(1), |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return;
            }
            waiting = self.drained.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Stderr, as the progress bar draws on it.
#[derive(Debug)]
struct Screen;

impl Screen {
    fn draw(&self, text: fmt::Arguments<'_>) -> io::Result<()> {
        pass_on(Stream::Err, text.to_string().as_bytes());
        Ok(())
    }

    fn move_cursor(&self, count: usize, way: char) -> io::Result<()> {
        if count == 0 { Ok(()) } else { self.draw(format_args!("\u{1b}[{count}{way}")) }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        u16::try_from(columns(Stream::Err, 80)).unwrap_or(u16::MAX)
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.move_cursor(n, 'D')
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.draw(format_args!("{text}\n"))
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.draw(format_args!("{text}"))
    }

    fn clear_line(&self) -> io::Result<()> {
        self.draw(format_args!("\r\u{1b}[2K"))
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A path for display: escaped, since the name of a file may hold anything.
pub(crate) fn shown(path: &Path) -> String {
    printable(&path.display().to_string()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sink_of(file: File) -> Sink {
        Sink { file: Some(file), gone: AtomicBool::new(false), failed: OnceLock::new() }
    }

    #[test]
    fn a_closed_pipe_is_remembered_and_a_full_disk_tried_again() {
        let (reader, writer) = io::pipe().expect("the system gives a pipe");
        let pipe = sink_of(File::from(std::os::fd::OwnedFd::from(writer)));
        assert!(pipe.write(b"taken"));
        drop(reader);
        assert!(!pipe.write(b"nobody reads"));
        assert!(pipe.gone.load(Relaxed));
        assert_eq!(pipe.failed.get().map(io::Error::kind), Some(io::ErrorKind::BrokenPipe));

        let full = sink_of(File::options().write(true).open("/dev/full").expect("Linux has it"));
        assert!(!full.write(b"no room"));
        assert!(!full.gone.load(Relaxed));
        assert_eq!(full.failed.get().map(io::Error::kind), Some(io::ErrorKind::StorageFull));
    }

    /// Callers do not wait, and the memory for unread output is bounded.
    #[test]
    fn unread_output_is_dropped_and_counted() {
        let queue = Queue::default();
        let piece = vec![b'x'; QUEUE_MAX / 4 + 1];
        (0..5).for_each(|_| queue.push(Stream::Out, &piece));
        let counts = |waiting: &Waiting| (waiting.pieces.len(), waiting.left_out);
        assert_eq!(counts(&queue.lock()), (3, 2));
        queue.flush(Some(Instant::now()));
        // Whatever its length, if the queue is empty.
        let queue = Queue::default();
        queue.push(Stream::Out, &vec![b'x'; QUEUE_MAX + 1]);
        assert_eq!(queue.lock().pieces.len(), 1);
    }
}
