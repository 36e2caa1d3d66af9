//! omb: measures messaging systems honestly.

mod arguments;
mod command;
mod exit;
mod flags;
mod logging;

use std::{path::Path, process::ExitCode};

use clap::Parser;

use crate::flags::{Command, Flags};

/// Messages are allocated by one thread and freed by another, in librdkafka too; this allocator halves what a
/// consumed message costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let flags = match Flags::try_parse_from(arguments::rewrite(std::env::args_os(), Path::is_file)) {
        Ok(flags) => flags,
        Err(error) => {
            // Help and version come this way too, and are no errors. A closed pipe is no reason to panic.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let log_file = match &flags.command {
        Command::Worker(worker) => worker.log_file.as_deref(),
        _ => None,
    };
    if let Err(mistake) = logging::start(flags.quiet, flags.verbose, log_file) {
        eprintln!("{mistake}");
        return exit::USAGE.into();
    }
    // A file that grows beyond the limit set for this process shall be an error like that of a full disk.
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    match flags.command {
        Command::Run(run) => command::run::run(&run),
        Command::Check(run) => command::check::check(&run),
        Command::Worker(worker) => command::worker::worker(&worker),
        Command::Report(report) => command::report::report(&report),
        Command::Broker(broker) => command::broker::broker(&broker),
    }
}
