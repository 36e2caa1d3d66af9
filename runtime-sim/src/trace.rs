//! Every record of a simulated run: hashed in order, the last ones kept for the failure report.

use std::{collections::VecDeque, fmt, fmt::Write as _, io::Write as _, time::Duration};

use omb_machine::seed::fnv1a;

/// Records kept for the failure report.
const KEPT: usize = 60;

/// The records of one run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    records: u64,
    tail: VecDeque<String>,
    /// All of it, where `OMB_SIM_TRACE` names a file: to compare two runs that should have been the same.
    full: Option<std::fs::File>,
}

impl Default for Trace {
    fn default() -> Self {
        let full = std::env::var_os("OMB_SIM_TRACE")
            .map(|path| std::fs::File::create(path).expect("OMB_SIM_TRACE names a file that can be written"));
        Self { hash: 0xcbf2_9ce4_8422_2325, records: 0, tail: VecDeque::new(), full }
    }
}

impl Trace {
    /// Adds a record: the simulated time, the actor, and what it did.
    pub fn push(&mut self, at: Duration, actor: &str, what: fmt::Arguments<'_>) {
        let mut line = String::with_capacity(96);
        write!(line, "{:>4}.{:09} {actor:<10} {what}", at.as_secs(), at.subsec_nanos()).expect("writing to memory");
        self.hash = fnv1a(fnv1a(self.hash, line.as_bytes()), b"\n");
        self.records += 1;
        if let Some(full) = &mut self.full {
            // A trace that cannot be written must not change the run.
            let _ = writeln!(full, "{line}");
        }
        if self.tail.len() == KEPT {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }

    /// FNV-1a over all records.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many records.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.records
    }

    /// The last records, oldest first.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }
}
