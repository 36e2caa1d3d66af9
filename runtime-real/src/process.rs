//! What this process uses.

use std::{fs, time::Duration};

use omb_core::protocol::event::Process;

use crate::clock;

/// CPU and memory of this process now; `broker_cpu` is the embedded broker's part.
#[must_use]
pub fn usage(broker_cpu: Duration) -> Process {
    // Linux tells memory in a text file, in KiB; elsewhere the figures are zero and the report leaves them out.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1_024
    };
    let (received_bytes, sent_bytes) = network();
    Process {
        cpu: clock::process_cpu(),
        broker_cpu,
        memory_bytes: bytes("VmRSS"),
        memory_bytes_max: bytes("VmHWM"),
        cores: std::thread::available_parallelism().map_or(0, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        received_bytes,
        sent_bytes,
    }
}

/// How many files this process may open, once it has asked for as many as it can have: the soft limit is that of programs which
/// wait by `select`. `None` if the system does not tell.
#[must_use]
pub fn open_files_max() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place to write one to, and to read one from.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return None;
        }
        let more = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if limit.rlim_cur < limit.rlim_max && libc::setrlimit(libc::RLIMIT_NOFILE, &raw const more) == 0 {
            limit = more;
        }
    }
    Some(limit.rlim_cur)
}

/// Bytes received and sent over all interfaces of this network namespace. What one process of it moved is not told apart.
fn network() -> (u64, u64) {
    let text = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let interfaces = text.lines().filter_map(|line| line.split_once(':'));
    let figures = interfaces.map(|(_, figures)| {
        let mut figures = figures.split_whitespace().map(|figure| figure.parse::<u64>().unwrap_or(0));
        (figures.next().unwrap_or(0), figures.nth(7).unwrap_or(0))
    });
    figures.fold((0, 0), |(received, sent), (more, out)| (received + more, sent + out))
}

/// CPU time of one thread of this process, by the kernel's number of it; zero once it has ended.
#[must_use]
pub fn thread_cpu(thread: i32) -> Duration {
    let text = fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
    Duration::from_nanos(nanos)
}
