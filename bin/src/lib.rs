//! omb: measures messaging systems honestly, and elects leaders of clusters of peers.
//!
//! All of it is here, so that the programs that people know by other names are no more than names.

// Only the console writes for people.
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
    console::{Purpose, errln},
    flags::{ClientCommand, Command, Flags, Verbosity},
};

/// Messages are allocated by one thread and freed by another, in librdkafka too; this allocator halves what a
/// consumed message costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The embedded broker as this program runs it: it returns memory through the allocator above, which by itself does so only
/// while it is being used.
fn embedded_broker() -> embedded::Options {
    unsafe extern "C" {
        /// Of the allocator (mimalloc.h): frees what is not used, eagerly if `force`.
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
        Err(code) => return code,
    };
    let log_file = match &flags.command {
        Command::Worker(worker) => worker.log_file.as_deref(),
        Command::Node(node) => node.log_file.as_deref(),
        _ => None,
    };
    let purpose = purpose(&flags.command);
    if let Err(code) = start(&flags.verbosity, log_file, purpose) {
        return code;
    }
    let code = match flags.command {
        Command::Run(run) => command::run::run(&run),
        Command::Check(run) => command::check::check(&run),
        Command::Worker(worker) => command::worker::worker(&worker),
        Command::Report(report) => command::report::report(&report),
        Command::Clean(clean) => command::clean::clean(&clean),
        Command::Broker(broker) => command::broker::broker(&broker),
        Command::Node(node) => command::node::node(&node),
        Command::Client(client) => command::client::client(&client),
        Command::Stress(stress) => command::stress::stress(&stress),
        Command::Completions(completions) => command::manual::completions(&completions),
        Command::Man(man) => command::manual::man(&man),
    };
    console::finish(purpose, code)
}

/// What a command is for.
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
        Err(code) => return code,
    };
    match start(&flags.verbosity, flags.node.log_file.as_deref(), Purpose::Service) {
        Ok(()) => console::finish(Purpose::Service, command::node::node(&flags.node)),
        Err(code) => code,
    }
}

/// The program `client`: `omb client`.
#[must_use]
pub fn client() -> ExitCode {
    let flags: flags::ClientProgram = match parse(std::env::args_os()) {
        Ok(flags) => flags,
        Err(code) => return code,
    };
    let purpose = client_purpose(&flags.client);
    match start(&flags.verbosity, None, purpose) {
        Ok(()) => console::finish(purpose, command::client::client(&flags.client)),
        Err(code) => code,
    }
}

fn parse<F: Parser>(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<F, ExitCode> {
    F::try_parse_from(arguments).map_err(|error| {
        console::show(&error);
        // Help and version come this way too, and are no errors.
        let code = if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        console::finish(Purpose::Output, code)
    })
}

fn start(verbosity: &Verbosity, log_file: Option<&Path>, purpose: Purpose) -> Result<(), ExitCode> {
    logging::start(verbosity.quiet, verbosity.verbose, log_file).map_err(|mistake| {
        errln!("{mistake}");
        ExitCode::from(exit::USAGE)
    })?;
    // A file that grows beyond the limit set for this process shall be an error like that of a full disk.
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    // The soft limit is meant for others.
    let _ = omb_runtime_real::process::open_files_max();
    if matches!(purpose, Purpose::Measurement | Purpose::Service) {
        console::detach();
    }
    Ok(())
}
