//! `omb report`: the result of a run, made from its record or read from its result file.

use std::{
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use omb_report::{
    record::{self, Recording},
    result::RunResult,
    table,
};
use serde::Deserialize;

use super::{
    input,
    output::{self, write_new},
};
use crate::{
    console::{outln, shown},
    exit::{self, Code},
    flags,
};

/// Largest record: days of periods with the widest latencies stay far below.
const RECORD_MAX: u64 = 16 << 30;

/// Largest result file: one of a day of periods stays far below.
const RESULT_MAX: u64 = 1 << 30;

/// Shows the result of each file.
pub(crate) fn report(flags: &flags::Report) -> anyhow::Result<Code> {
    if let (Some(output), 2..) = (&flags.output, flags.files.len()) {
        let (output, count) = (shown(output), flags.files.len());
        return Ok(exit::print(&anyhow!("--output {output} names one file, where {count} results are made")));
    }
    let codes = flags.files.iter().map(|path| one(flags, path).unwrap_or_else(|error| exit::log(&error)));
    Ok(codes.max().unwrap_or(Code::Sound))
}

/// What a file holds.
enum Contents {
    Record(Box<Recording>),
    Result(Box<RunResult>),
}

/// Shows the result of one file; an error means that there is none to show.
fn one(flags: &flags::Report, path: &Path) -> anyhow::Result<Code> {
    let mut written = Vec::new();
    let mut code = Code::Sound;
    let contents = read(path)?;
    let is_record = matches!(contents, Contents::Record(_));
    let result = match contents {
        Contents::Record(recording) => {
            let context = recording.context();
            RunResult::of(&recording.into_report(), &context)
        }
        Contents::Result(result) => *result,
    };
    // A result file is not written again unless asked for.
    if is_record || flags.output.is_some() {
        match write(flags.output.as_deref(), path, &result.to_json(flags.result_format.into())) {
            Ok(place) => written.push(shown(&place)),
            Err((place, error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                bail!("{} exists already, and nothing is ever overwritten", shown(&place));
            }
            Err((place, error)) => {
                tracing::error!("cannot write {}: {error}", shown(&place));
                code = Code::Failed;
            }
        }
    }
    let written: Vec<&str> = written.iter().map(String::as_str).collect();
    outln!("{}\n", table::result(&result, &written, output::width()).trim_end());
    if !result.is_sound() {
        code = Code::Failed;
    }
    for reason in &result.omb.verdict.unsound {
        tracing::error!("{}: {reason}", shown(path));
    }
    Ok(code)
}

fn read(path: &Path) -> anyhow::Result<Contents> {
    /// The first line of a record, or a result in one line.
    #[derive(Deserialize)]
    struct FirstLine {
        kind: Option<serde_json::Value>,
    }
    let mut bytes = input::bytes_of(path, RECORD_MAX)?;
    let first = bytes.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let by_name = path.extension().is_some_and(|extension| extension == "jsonl");
    let is_record = serde_json::from_slice::<FirstLine>(first).is_ok_and(|line| line.kind.is_some());
    if !(is_record || by_name || first.is_empty()) {
        let size = bytes.len() as u64;
        if size > RESULT_MAX {
            bail!("{}: {size} bytes, where a result has at most {RESULT_MAX}", shown(path));
        }
        let text =
            String::from_utf8(bytes).map_err(|_| anyhow!("{}: not a text file (it is not UTF-8)", shown(path)))?;
        let result = RunResult::parse(&text).with_context(|| shown(path))?;
        return Ok(Contents::Result(Box::new(result)));
    }
    if let Err(error) = std::str::from_utf8(&bytes) {
        let whole = error.valid_up_to();
        let line = bytes[..whole].iter().filter(|byte| **byte == b'\n').count() + 1;
        if bytes[whole..].contains(&b'\n') {
            bail!("{}: line {line}: not a text (it is not UTF-8)", shown(path));
        }
        // The last line ends within a character; the parser reports that it is incomplete.
        bytes.truncate(whole);
    }
    let text = String::from_utf8(bytes).with_context(|| shown(path))?;
    let recording = record::parse(&text).with_context(|| shown(path))?;
    Ok(Contents::Record(Box::new(recording)))
}

/// Writes a result to the file asked for, or beside its record under a free name. An error comes with the path that
/// could not be written.
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
