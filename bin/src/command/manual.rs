//! `omb completions` and `omb man`: shell completions and manual pages, generated from the flags.

use anyhow::anyhow;
use clap::CommandFactory as _;
use omb_machine::printable::printable;

use crate::{
    console::{self, Stream},
    exit::{self, Code},
    flags::{Completions, Flags, Man},
};

/// Prints the script that lets a shell complete arguments.
pub(crate) fn completions(flags: &Completions) -> Code {
    let mut script = Vec::new();
    clap_complete::generate(flags.shell, &mut Flags::command(), "omb", &mut script);
    console::write(Stream::Out, &script);
    Code::Sound
}

/// Prints a manual page.
pub(crate) fn man(flags: &Man) -> Code {
    let mut omb = Flags::command();
    omb.build();
    let page = match &flags.command {
        None => omb,
        Some(name) => match omb.find_subcommand(name) {
            Some(page) => page.clone(),
            None => {
                let known: Vec<_> = omb.get_subcommands().map(clap::Command::get_name).collect();
                return exit::print(&anyhow!(
                    "omb man: no command is called {}; there are {}",
                    printable(name),
                    known.join(", ")
                ));
            }
        },
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff).expect("writing to memory does not fail");
    console::write(Stream::Out, &roff);
    Code::Sound
}
