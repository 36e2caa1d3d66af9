//! The result of a run as a tree of structs: what is written, what is read back, and what every renderer shows.
//!
//! ```text
//! Report (omb_bench) + Context ─▶ Analysis ─▶ Result ─▶ JSON ─▶ Result
//!                                                 └──▶ table            (table)
//! ```
//!
//! A file holds every key of upstream's result in upstream's meaning and order, and the object `omb`. It has no null
//! and no NaN: what is unknown or does not apply is left out. `docs/result.schema.json` is derived from these structs.
//!
//! Source of upstream's keys: OpenMessaging Benchmark, `TestResult.java`.

mod counts;
mod omb;
mod series;
mod upstream;

use serde::{Deserialize, Serialize};

use crate::{analysis::Analysis, context::Context};
use omb_bench::result::Report;

pub use crate::histogram::{Histograms, Samples};
pub use counts::{Counts, PhaseCounts, TotalCounts};
pub use omb::{
    AcknowledgedMeans, Backlog, Client, Clocks, Drained, LateBy, LostWorker, Omb, Outage, Outcome, Placement,
    PlanSummary, Problem, Rates, Search, Side, Subscription, Tool, Verdict, Worker, WorkerClock,
};
pub use series::{LatencySeries, Series};
pub use upstream::Upstream;

#[cfg(test)]
mod tests;

/// Version of the object `omb`. It grows when a key is removed or changes its meaning, not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

/// The result of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct RunResult {
    /// Upstream's keys.
    #[serde(flatten)]
    pub upstream: Upstream,
    /// Our own keys.
    pub omb: Omb,
}

/// The JSON Schema of result files, with its last newline.
#[cfg(any(test, feature = "schema"))]
#[must_use]
pub fn schema() -> String {
    let mut schema = schemars::schema_for!(RunResult);
    schema.insert("title".to_owned(), format!("Result of an omb run, schemaVersion {SCHEMA_VERSION}").into());
    serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n"
}

/// Which keys a result file has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ResultFormat {
    /// Upstream's keys, and one object `omb` with our own keys.
    #[default]
    Omb,
    /// Upstream's keys alone, for its strict CSV tool.
    Upstream,
}

/// Why a text is not a result file of omb.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableResult {
    /// It is not JSON, or a key is missing or has another type.
    #[error("not a result file: {0}")]
    Malformed(String),
    /// It was written by upstream, or with `--result-format upstream`.
    #[error("it has upstream's keys only; what is shown comes from the object \"omb\", which omb writes by default")]
    UpstreamOnly,
    /// It was written by a later version.
    #[error("the object \"omb\" has schemaVersion {found}, this omb reads versions 1 to {SCHEMA_VERSION}")]
    OtherVersion {
        /// The version it states.
        found: u64,
    },
}

impl RunResult {
    /// The result of a run.
    #[must_use]
    pub fn of(report: &Report, context: &Context) -> Self {
        let analysis = Analysis::of(report, context);
        let (upstream, series) = upstream::walk(report, &analysis);
        Self { upstream, omb: Omb::of(report, context, analysis, series) }
    }

    /// Whether the result can be relied upon: it covers the whole run, and nothing is wrong with it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let Omb { complete, verdict, .. } = &self.omb;
        // Earlier results give no reasons.
        *complete && verdict.unsound.is_empty() && !matches!(verdict.outcome, Outcome::Lost | Outcome::Corrupted)
    }

    /// The file's text, with its last newline.
    #[must_use]
    pub fn to_json(&self, format: ResultFormat) -> String {
        let text = match format {
            ResultFormat::Omb => serde_json::to_string_pretty(self),
            ResultFormat::Upstream => serde_json::to_string_pretty(&self.upstream),
        };
        text.expect("numbers, texts and maps with texts for keys become JSON") + "\n"
    }

    /// Reads what this version or an earlier one has written. Unknown keys are ignored.
    ///
    /// # Errors
    /// If the text is not a result, has no object `omb`, or is of a version whose keys may have other meanings.
    pub fn parse(text: &str) -> Result<Self, UnreadableResult> {
        /// Read first, so that a result of a later version is rejected for its version and not for its first new type.
        #[derive(Deserialize)]
        struct Versions {
            omb: Option<Version>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            schema_version: u64,
        }
        let malformed = |error: serde_json::Error| UnreadableResult::Malformed(error.to_string());
        let versions: Versions = serde_json::from_str(text).map_err(malformed)?;
        match versions.omb {
            Some(Version { schema_version }) if (1..=u64::from(SCHEMA_VERSION)).contains(&schema_version) => {}
            Some(Version { schema_version: found }) => return Err(UnreadableResult::OtherVersion { found }),
            // Upstream's files are distinguished from files of another kind.
            None => {
                let _: Upstream = serde_json::from_str(text).map_err(malformed)?;
                return Err(UnreadableResult::UpstreamOnly);
            }
        }
        serde_json::from_str(text).map_err(malformed)
    }
}
