//! `omb report`: the result of a recorded run, made again from its record.

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use omb_bench::result::soundness;
use omb_report::{
    json,
    record::{self, Recording},
    table,
};

use super::{
    input,
    output::{self, write_new},
};
use crate::{
    console::{errln, outln, shown},
    exit::{self, Ended},
    flags,
};

/// Largest record: days of periods with the widest latencies stay far below.
const RECORD_MAX: u64 = 16 << 30;

/// Makes the result of each record.
pub(crate) fn report(flags: &flags::Report) -> ExitCode {
    if let (Some(output), 2..) = (&flags.output, flags.records.len()) {
        errln!("--output {} names one file, where {} results are made", shown(output), flags.records.len());
        return exit::USAGE.into();
    }
    let mut worst = Ended::Sound;
    let mut usage = false;
    for path in &flags.records {
        match one(flags, path) {
            Ok(ended) => worst = worst.max(ended),
            Err(mistake) => {
                tracing::error!("{mistake}");
                usage = true;
            }
        }
    }
    if usage { exit::USAGE.into() } else { worst.into() }
}

/// The result of one record; an error is what keeps it from being made.
fn one(flags: &flags::Report, path: &Path) -> Result<Ended, String> {
    let recording = read(path)?;
    let mut context = recording.context();
    context.format = flags.result_format.into();
    let report = recording.into_report();
    let text = format!("{:#}\n", json::result(&report, &context));
    let mut ended = if report.partial.is_none() { Ended::Sound } else { Ended::Failed };
    let mut written = Vec::new();
    match write(flags.output.as_deref(), path, &text) {
        Ok(place) => written.push(shown(&place)),
        Err((place, error)) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(format!("{} exists already, and nothing is ever overwritten", shown(&place)));
        }
        Err((place, error)) => {
            tracing::error!("cannot write {}: {error}", shown(&place));
            ended = Ended::Failed;
        }
    }
    let written: Vec<&str> = written.iter().map(String::as_str).collect();
    outln!("{}\n", table::result(&report, &context, &written, output::width()).trim_end());
    for reason in soundness::unsound(&report) {
        tracing::error!("{}: {reason}", shown(path));
        ended = Ended::Failed;
    }
    Ok(ended)
}

fn read(path: &Path) -> Result<Recording, String> {
    let mut bytes = input::bytes_of(path, RECORD_MAX)?;
    if let Err(error) = std::str::from_utf8(&bytes) {
        let whole = error.valid_up_to();
        let line = bytes[..whole].iter().filter(|byte| **byte == b'\n').count() + 1;
        if bytes[whole..].contains(&b'\n') {
            return Err(format!("{}: line {line}: not a text (it is not UTF-8)", shown(path)));
        }
        // The last line broke off within a character; that it did is told by how the rest of it reads.
        bytes.truncate(whole);
    }
    let text = String::from_utf8(bytes).map_err(|error| format!("{}: {error}", shown(path)))?;
    record::parse(&text).map_err(|error| format!("{}: {error}", shown(path)))
}

/// Writes a result to the file asked for, or beside its record under a name that is free. An error comes with the place
/// that could not be written to.
fn write(asked: Option<&Path>, record: &Path, text: &str) -> Result<PathBuf, (PathBuf, io::Error)> {
    let write = |place: PathBuf| match write_new(&place, text) {
        Ok(()) => Ok(place),
        Err(error) => Err((place, error)),
    };
    if let Some(place) = asked {
        return write(place.to_owned());
    }
    let first = record.with_extension("json");
    let stem = record.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let others = (2..1_000).map(|number| record.with_file_name(format!("{stem}-{number}.json")));
    let mut last = write(first);
    for place in others {
        match &last {
            Err((_, error)) if error.kind() == io::ErrorKind::AlreadyExists => last = write(place),
            _ => break,
        }
    }
    last
}
