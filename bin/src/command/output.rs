//! Files of a run: the record, which grows with each period, and the result.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use omb_bench::{
    config::driver::DriverConfig,
    plan::{Plan, needs::Needs},
    result::{Period, Report},
};
use omb_machine::printable::printable;
use omb_report::{
    context::{Context, Host},
    record,
    result::{ResultFormat, RunResult},
    table,
};

use super::input::Input;
use crate::{
    console::{self, Stream, shown},
    flags,
};

/// Longest file name, without extension, that common file systems allow, with room for a number.
const NAME_MAX: usize = 200;

/// The two files of a run. Nothing is ever overwritten: both are created under free names.
#[derive(Debug)]
pub(crate) struct Files {
    format: ResultFormat,
    result: PathBuf,
    record: Record,
}

/// The `.jsonl` file. Lines that cannot be written are kept and retried, so a full disk loses nothing while the process
/// lives.
#[derive(Debug)]
struct Record {
    path: PathBuf,
    file: File,
    pending: Vec<u8>,
    /// Whether a failed write has been reported.
    reported: bool,
}

impl Files {
    /// Finds free names and creates the record, so that a folder that cannot be written to is noticed before the run
    /// and not after it.
    pub(crate) fn reserve(
        flags: &flags::Run,
        input: &Input,
        driver: &DriverConfig,
        several: bool,
    ) -> anyhow::Result<Self> {
        let name = format!("{}-{}", name_of(input), plain(&driver.name));
        let (folder, stem) = match &flags.output {
            None => {
                let now = jiff::Zoned::now().strftime("%Y-%m-%d-%H-%M-%S");
                (PathBuf::new(), format!("{name}-{now}"))
            }
            Some(path) => {
                if path.is_dir() || path.file_name().is_none() {
                    bail!("--output {}: a folder, where a file is wanted", shown(path));
                }
                let folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
                let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
                (folder, if several { format!("{stem}-{name}") } else { stem })
            }
        };
        let explicit = flags.output.is_some() && !several;
        for copy in 1..1_000 {
            let stem = if copy == 1 { stem.clone() } else { format!("{stem}-{copy}") };
            let result = folder.join(format!("{stem}.json"));
            let result = match &flags.output {
                // The name as given, whatever its extension.
                Some(path) if explicit => path.clone(),
                _ => result,
            };
            let path = result.with_extension("jsonl");
            if path == result {
                bail!("--output {}: this ending belongs to the record beside the result", shown(&path));
            }
            let taken = result.exists().then_some(&result);
            match (taken, OpenOptions::new().write(true).create_new(true).open(&path)) {
                (None, Ok(file)) => {
                    let record = Record { path, file, pending: Vec::new(), reported: false };
                    return Ok(Self { format: flags.result_format.into(), result, record });
                }
                (Some(taken), opened) => {
                    if opened.is_ok() {
                        // It has just been created and is empty.
                        let _ = fs::remove_file(&path);
                    }
                    if explicit {
                        bail!("{} exists already, and nothing is ever overwritten", shown(taken));
                    }
                }
                (None, Err(error)) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if explicit {
                        bail!("{} exists already, and nothing is ever overwritten", shown(&path));
                    }
                }
                (None, Err(error)) => return Err(error).with_context(|| format!("cannot write {}", shown(&path))),
            }
        }
        bail!("no free name like {stem}.json is left")
    }

    /// Begins the record.
    pub(crate) fn begin(&mut self, plan: &Plan, context: &Context, system: &str) -> bool {
        self.record.line(&record::header(plan, context, Some(system)))
    }

    /// Appends a period. Returns whether everything appended so far is on the disk.
    pub(crate) fn append(&mut self, period: &Period) -> bool {
        self.record.line(&record::period(period))
    }

    /// Ends the record of a run that has no result, and removes it if it is empty.
    pub(crate) fn end_without_report(&mut self, why: &str) {
        let empty = fs::metadata(&self.record.path).is_ok_and(|metadata| metadata.len() == 0);
        if empty && self.record.pending.is_empty() {
            let _ = fs::remove_file(&self.record.path);
        } else {
            self.record.line(&record::end_without_report(why));
        }
    }

    /// Writes the result, and ends the record. Returns the files that hold the measurement, and whether every write
    /// succeeded.
    pub(crate) fn write(&mut self, report: &Report, result: &RunResult) -> (Vec<String>, bool) {
        let mut whole = self.record.line(&record::end(report));
        let text = result.to_json(self.format);
        let mut written = Vec::new();
        match write_new(&self.result, &text) {
            Ok(()) => written.push(shown(&self.result)),
            Err(error) => {
                whole = false;
                tracing::error!("cannot write {}: {error}", shown(&self.result));
                written.extend(self.write_elsewhere(&text));
            }
        }
        let record = shown(&self.record.path);
        let lacks = self.record.pending.len();
        written.push(if lacks == 0 { record } else { format!("{record}, which lacks its last {lacks} bytes") });
        (written, whole)
    }

    /// The result must not be lost because its folder is full or gone: it goes to the folder for temporary files, or
    /// to stdout.
    fn write_elsewhere(&self, text: &str) -> Option<String> {
        let name = self.result.file_name().unwrap_or_default();
        let elsewhere = std::env::temp_dir().join(name);
        match write_new(&elsewhere, text) {
            Ok(()) => {
                tracing::warn!("the result is in {} instead", shown(&elsewhere));
                Some(shown(&elsewhere))
            }
            Err(error) => {
                tracing::error!("nor can it be written to {}: {error}; here it is:", shown(&elsewhere));
                console::write(Stream::Out, text.as_bytes());
                None
            }
        }
    }
}

impl Record {
    fn line(&mut self, line: &str) -> bool {
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
        // A write may be partial; the rest is retried with the next line.
        while !self.pending.is_empty() {
            match self.file.write(&self.pending) {
                Ok(0) => break,
                Ok(taken) => drop(self.pending.drain(..taken)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    if !self.reported {
                        self.reported = true;
                        tracing::error!(
                            "cannot write to {}: {error}; what it lacks is kept and tried again",
                            shown(&self.path)
                        );
                    }
                    return false;
                }
            }
        }
        true
    }
}

/// Writes a complete file under a free name, or leaves nothing behind.
pub(super) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written
}

/// The workload's name if it is a plain file name, else the file's stem.
fn name_of(input: &Input) -> String {
    let name = &input.workload.name;
    if *name == plain(name) && name.len() <= NAME_MAX { name.clone() } else { plain(&input.stem) }
}

/// A text as part of a file name.
fn plain(text: &str) -> String {
    let keep = |c: char| if c.is_control() || "/\\:*?\"<>|".contains(c) { '-' } else { c };
    let text: String = text.trim_start_matches('.').chars().map(keep).collect();
    let end = text.char_indices().map(|(at, _)| at).nth(NAME_MAX).unwrap_or(text.len());
    let text = text[..end].trim();
    if text.is_empty() { "unnamed".to_owned() } else { text.to_owned() }
}

/// What a result records beside the measurement.
pub(crate) fn context(driver: &DriverConfig, workers: Vec<String>) -> Context {
    let (_, librdkafka) = omb_runtime_real::driver::kafka::library_version();
    let mut context = Context::new(env!("CARGO_PKG_VERSION"), driver.clone());
    context.commit = option_env!("OMB_COMMIT").map(str::to_owned);
    context.clients = BTreeMap::from([("librdkafka".to_owned(), librdkafka)]);
    context.host = host();
    context.workers = workers;
    context.started = Some(time_now());
    context
}

/// The current time for a result: the wall clock at the start of the process, plus the time elapsed since. So a run
/// never ends before it began, even if the clock is set meanwhile.
pub(crate) fn time_now() -> String {
    let nanos = i128::from(omb_runtime_real::clock::wall().0);
    let now = jiff::Timestamp::from_nanosecond(nanos).map(|now| now.to_zoned(jiff::tz::TimeZone::system()));
    now.unwrap_or_else(|_| jiff::Zoned::now()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

/// Seconds since midnight, by the local wall clock.
pub(crate) fn day_second() -> u32 {
    let time = jiff::Zoned::now().time();
    let part = |number: i8| u32::try_from(number).unwrap_or(0);
    part(time.hour()) * 3_600 + part(time.minute()) * 60 + part(time.second())
}

/// The name of this machine.
pub(crate) fn host_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(printable(name.trim()).into_owned()).filter(|name| !name.is_empty())
}

/// Facts about this machine, from the text files of Linux; the result leaves out missing ones.
fn host() -> Host {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let field = |path: &str, key: &str| {
        let text = read(path)?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let memory = field("/proc/meminfo", "MemTotal");
    let kib = memory.and_then(|memory| memory.split_whitespace().next()?.parse::<u64>().ok());
    Host {
        name: read("/proc/sys/kernel/hostname"),
        system: Some(format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        kernel: read("/proc/sys/kernel/osrelease"),
        cpu_model: field("/proc/cpuinfo", "model name"),
        cores: std::thread::available_parallelism().ok().and_then(|cores| u32::try_from(cores.get()).ok()),
        memory_bytes: kib.map(|kib| kib << 10),
    }
}

/// Columns to format for: those of the terminal, or a hundred.
pub(crate) fn width() -> usize {
    console::columns(Stream::Out, 100).min(140)
}

/// The plan, as it is printed before anything starts.
pub(crate) fn plan(plan: &Plan, names: &[String], driver: &DriverConfig, system: &str, needs: &[Needs]) -> String {
    format!("{}\n", table::plan_text(plan, names, driver, Some(system), needs, width()).trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_parts_of_file_names() {
        assert_eq!(plain("my workload"), "my workload");
        assert_eq!(plain("a/b:c"), "a-b-c");
        assert_eq!(plain("../../etc/passwd"), "-..-etc-passwd");
        assert_eq!(plain("  "), "unnamed");
        assert_eq!(plain(&"é".repeat(300)).chars().count(), NAME_MAX);
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_half_written_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("result.json");
        write_new(&path, "one").expect("a free name");
        assert_eq!(write_new(&path, "two").map_err(|error| error.kind()), Err(io::ErrorKind::AlreadyExists));
        assert_eq!(fs::read_to_string(&path).expect("written"), "one");
    }

    /// A disk that is full temporarily loses no line.
    #[test]
    fn what_could_not_be_written_is_tried_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("record.jsonl");
        let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has a full disk to try with");
        let mut record = Record { path: path.clone(), file: full, pending: Vec::new(), reported: false };
        assert!(!record.line("one"));
        record.file = File::create(&path).expect("a file");
        assert!(record.line("two"));
        assert_eq!(fs::read_to_string(&path).expect("written"), "one\ntwo\n");
    }
}
