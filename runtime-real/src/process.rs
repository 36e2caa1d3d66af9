//! What this process uses.

use std::{fs, time::Duration};

use omb_bench::{plan::needs::Limits, protocol::event::Process};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{clock, container};

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

/// What this process may have of files, threads and memory.
#[must_use]
pub fn limits() -> Limits {
    Limits { files: open_files_max(), threads: threads_max(), memory: memory_max() }
}

/// How many files this process may open, once it has asked for as many as it can have: the soft limit is that of programs which
/// wait by `select`. `None` if the system does not tell.
#[must_use]
pub fn open_files_max() -> Option<u64> {
    raised(Resource::Nofile)
}

/// How many threads this process may have, with all others that count beside it: those of its user, of its control groups, of the
/// machine. `None` if the system does not tell.
fn threads_max() -> Option<u64> {
    let root = rustix::process::geteuid().is_root();
    // The kernel does not count those of root.
    let user = raised(Resource::Nproc).filter(|_| !root);
    let machine = |file: &str| fs::read_to_string(file).ok()?.trim().parse().ok();
    let machine = [machine("/proc/sys/kernel/threads-max"), machine("/proc/sys/kernel/pid_max")];
    user.into_iter().chain(container::threads_limit()).chain(machine.into_iter().flatten()).min()
}

/// How many bytes of memory this process may have: those of the machine or container. `None` if the system does not tell.
#[must_use]
pub fn memory_max() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
    });
    machine.into_iter().chain(container::memory_limit()).min()
}

/// The soft limit of a resource, after it was raised to the hard one. `None` if there is none.
fn raised(of: Resource) -> Option<u64> {
    let limit = getrlimit(of);
    let more = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit != more && setrlimit(of, more).is_ok() { more.current } else { limit.current }
}

/// Whether the memory of this process comes in huge pages. They make a busy process faster, but an idle thread that needs some KiB
/// takes two MiB: with hundreds of clients that is gigabytes. (Measured with 300 topics at 400 msg/s, where nothing is shared:
/// 3,012 MiB with huge pages, 755 MiB without.)
#[derive(Debug, Default)]
pub struct Pages {
    lean: bool,
}

impl Pages {
    /// Takes small pages from now on, if `many` clients with little to do are about to be made; until this is dropped.
    pub fn lean_if(&mut self, many: bool) {
        if many && !self.lean {
            self.lean = forbid_huge_pages(true);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if self.lean {
            forbid_huge_pages(false);
        }
    }
}

/// Whether it was done; a system without huge pages does not know how.
#[cfg(target_os = "linux")]
fn forbid_huge_pages(forbidden: bool) -> bool {
    rustix::thread::disable_transparent_huge_pages(forbidden).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn forbid_huge_pages(_forbidden: bool) -> bool {
    false
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
