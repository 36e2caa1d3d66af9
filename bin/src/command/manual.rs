//! `omb completions` and `omb man`: what clap knows of the command line, for shells and for readers of manuals.

use std::process::ExitCode;

use clap::CommandFactory as _;
use omb_machine::printable::printable;

use crate::{
    console::{self, Stream, errln},
    exit,
    flags::{Completions, Flags, Man},
};

/// Prints the script that lets a shell complete arguments.
pub(crate) fn completions(flags: &Completions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Flags::command(), "omb", &mut script);
    console::write(Stream::Out, &script);
    ExitCode::SUCCESS
}

/// Prints a manual page.
pub(crate) fn man(flags: &Man) -> ExitCode {
    let mut omb = Flags::command();
    omb.build();
    let page = match &flags.command {
        None => omb,
        Some(name) => match omb.find_subcommand(name) {
            Some(page) => page.clone(),
            None => {
                let known: Vec<_> = omb.get_subcommands().map(clap::Command::get_name).collect();
                errln!("omb man: no command is called {}; there are {}", printable(name), known.join(", "));
                return exit::USAGE.into();
            }
        },
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff).expect("writing to memory does not fail");
    console::write(Stream::Out, &roff);
    ExitCode::SUCCESS
}
