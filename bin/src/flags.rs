//! The command line, as typed.

use std::{net::IpAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures messaging systems honestly.
#[derive(Debug, Parser)]
#[command(name = "omb", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Flags {
    /// Log only warnings and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Log more: -v also what the Kafka client says, -vv everything. (RUST_LOG, where set, decides instead.)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run workloads and write what was measured.
    Run(Run),
    /// Parse everything, reach the broker, print the plan; run nothing.
    Check(Run),
    /// Run the embedded broker by itself, for any Kafka client.
    Broker(Broker),
}

/// What `run` and `check` take.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Workload files; each runs on each driver, in the order given.
    #[arg(value_name = "WORKLOAD.yaml", required = true)]
    pub(crate) workloads: Vec<PathBuf>,
    /// Driver files: which messaging system, and how to speak to it. May be repeated, or separated by commas. None
    /// means the embedded broker: in memory, in this process, for trying and not for quoting.
    #[arg(short, long = "drivers", value_name = "DRIVER.yaml", value_delimiter = ',')]
    pub(crate) drivers: Vec<PathBuf>,
    /// Result file. Default: NAME-DRIVER-YYYY-MM-DD-HH-MM-SS.json in the current folder. Nothing is ever overwritten;
    /// of several runs each puts its workload's and driver's name before the ending.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Whether the result holds our own object beside upstream's keys, which upstream's CSV tool does not bear.
    #[arg(long, value_enum, default_value_t = ResultFormat::Omb)]
    pub(crate) result_format: ResultFormat,
    /// The number from which every random choice follows. Default: the workload's `seed`, or else a fresh one, which
    /// the result records.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Turn unknown keys, and values that would be cut, from errors into warnings.
    #[arg(long)]
    pub(crate) lenient: bool,
    /// Bytes the embedded broker may hold: 512MiB, 4GiB. Default: 2 GiB, or a quarter of the memory if that is less.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) embedded_capacity: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultFormat {
    /// Upstream's keys and an object `omb` with all that is ours.
    Omb,
    /// Upstream's keys alone.
    Upstream,
}

/// What `broker` takes.
#[derive(Debug, Args)]
pub(crate) struct Broker {
    /// Port to listen on; 0 for any free one.
    #[arg(long, default_value_t = 9092)]
    pub(crate) port: u16,
    /// Address to listen on. Whoever reaches it can read and write everything: it knows no authentication.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,
    /// Bytes it may hold: 512MiB, 4GiB. Default: 2 GiB, or a quarter of the memory if that is less.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) capacity: Option<u64>,
}

/// `512MiB`, `4GiB`, `1000000`: bytes, with an optional binary unit.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let factor = match text[digits..].trim() {
        "" | "B" => Some(1),
        "KiB" | "K" => Some(1 << 10),
        "MiB" | "M" => Some(1 << 20),
        "GiB" | "G" => Some(1 << 30),
        _ => None,
    };
    let bytes = factor.and_then(|factor: u64| text[..digits].parse::<u64>().ok()?.checked_mul(factor));
    match bytes {
        Some(bytes) if bytes >= 1 << 20 => Ok(bytes),
        Some(_) => Err("at least 1MiB".to_owned()),
        None => Err("a whole number and a unit are wanted: 512MiB, 4GiB".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("4GiB"), Ok(4 << 30));
        assert_eq!(size("1048576"), Ok(1 << 20));
        for wrong in ["", "GiB", "1.5GiB", "12XB", "1KiB", "99999999999999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn drivers_may_be_repeated_or_separated_by_commas() {
        let flags =
            Flags::try_parse_from(["omb", "run", "-d", "a.yaml,b.yaml", "-d", "c.yaml", "w.yaml"]).expect("sound");
        let Command::Run(run) = flags.command else { panic!("a run") };
        assert_eq!(run.drivers, ["a.yaml", "b.yaml", "c.yaml"].map(PathBuf::from));
    }
}
