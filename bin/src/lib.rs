//! omb: measures messaging systems honestly, and elects leaders of clusters of peers.
//!
//! Everything is in this library; each program only calls one of its functions.

// Only the console writes to stdout and stderr.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod command;
mod console;
mod exit;
mod flags;
mod logging;
mod signals;

use std::{path::Path, process::ExitCode};

use clap::Parser;
use omb_runtime_real::embedded;

use crate::{
    console::Purpose,
    exit::Code,
    flags::{ClientCommand, Command, Flags, Verbosity},
};

/// Messages are allocated by one thread and freed by another, in librdkafka too; this allocator halves the cost of a
/// consumed message.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Options of the embedded broker in this program: memory goes back to the system through the allocator above, which by
/// itself returns it only while it is in use.
fn embedded_broker() -> embedded::Options {
    unsafe extern "C" {
        /// From the allocator (mimalloc.h): returns unused memory to the system, eagerly if `force`.
        fn mi_collect(force: bool);
    }
    let give_back = || {
        // SAFETY: it may be called at any time from any thread, and touches only what was freed.
        unsafe { mi_collect(true) }
    };
    embedded::Options { give_back, ..embedded::Options::default() }
}

/// The program `omb`.
#[must_use]
pub fn omb() -> ExitCode {
    let flags: Flags = match parse(arguments::rewrite(std::env::args_os())) {
        Ok(flags) => flags,
        Err(code) => return code.into(),
    };
    let log_file = match &flags.command {
        Command::Worker(worker) => worker.log_file.as_deref(),
        Command::Node(node) => node.log_file.as_deref(),
        _ => None,
    };
    let perform = || match &flags.command {
        Command::Run(run) => command::run::run(run),
        Command::Check(run) => command::check::check(run),
        Command::Worker(worker) => command::worker::worker(worker),
        Command::Report(report) => command::report::report(report),
        Command::Clean(clean) => command::clean::clean(clean),
        Command::Broker(broker) => command::broker::broker(broker),
        Command::Node(node) => command::node::node(node),
        Command::Client(client) => command::client::client(client),
        Command::Stress(stress) => command::stress::stress(stress),
        Command::Completions(completions) => Ok(command::manual::completions(completions)),
        Command::Man(man) => Ok(command::manual::man(man)),
    };
    perform_command(&flags.verbosity, log_file, purpose(&flags.command), perform)
}

/// The purpose of a command, which decides how its output is handled.
fn purpose(command: &Command) -> Purpose {
    match command {
        Command::Run(_) | Command::Stress(_) => Purpose::Measurement,
        Command::Check(_) | Command::Report(_) | Command::Completions(_) | Command::Man(_) => Purpose::Output,
        Command::Clean(_) => Purpose::Deed,
        Command::Worker(_) | Command::Broker(_) | Command::Node(_) => Purpose::Service,
        Command::Client(client) => client_purpose(client),
    }
}

fn client_purpose(client: &flags::Client) -> Purpose {
    match client.command {
        Some(ClientCommand::Status | ClientCommand::Discover | ClientCommand::List) => Purpose::Output,
        Some(ClientCommand::Put(_) | ClientCommand::Get(_)) | None => Purpose::Deed,
    }
}

/// The program `cloud-p2p`: `omb node`.
#[must_use]
pub fn cloud_p2p() -> ExitCode {
    let flags: flags::CloudP2p = match parse(std::env::args_os()) {
        Ok(flags) => flags,
        Err(code) => return code.into(),
    };
    let perform = || command::node::node(&flags.node);
    perform_command(&flags.verbosity, flags.node.log_file.as_deref(), Purpose::Service, perform)
}

/// The program `client`: `omb client`.
#[must_use]
pub fn client() -> ExitCode {
    let flags: flags::ClientProgram = match parse(std::env::args_os()) {
        Ok(flags) => flags,
        Err(code) => return code.into(),
    };
    let perform = || command::client::client(&flags.client);
    perform_command(&flags.verbosity, None, client_purpose(&flags.client), perform)
}

/// Parses the arguments, or shows an error or the help and returns the exit code.
fn parse<F: Parser>(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<F, Code> {
    F::try_parse_from(arguments).map_err(|error| {
        console::show(&error);
        // Help and version arrive here too, and are not errors.
        let code = if error.use_stderr() { Code::Usage } else { Code::Sound };
        console::finish(Purpose::Output, code)
    })
}

/// Starts logging, performs a command, and logs the error it returns.
fn perform_command(
    verbosity: &Verbosity,
    log_file: Option<&Path>,
    purpose: Purpose,
    perform: impl FnOnce() -> anyhow::Result<Code>,
) -> ExitCode {
    if let Err(error) = logging::start(verbosity.quiet, verbosity.verbose, log_file) {
        return exit::print(&error).into();
    }
    set_up(purpose);
    let code = perform().unwrap_or_else(|error| exit::log(&error));
    console::finish(purpose, code).into()
}

/// Sets up the process.
fn set_up(purpose: Purpose) {
    // Exceeding the limit of file sizes shall be a write error, like a full disk.
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // Raises the soft limit of open files to the hard one.
    let _ = omb_runtime_real::process::open_files_max();
    if matches!(purpose, Purpose::Measurement | Purpose::Service) {
        console::detach();
    }
}
