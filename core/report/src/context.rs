//! What a result states beside the measurement: which tool, on which host, from which configuration.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use omb_bench::config::driver::{DriverConfig, DriverKind};
use omb_machine::config::ConfigWarning;

/// Facts that the core cannot find out itself. What is unknown stays out of the result.
#[derive(Clone, Debug, PartialEq)]
pub struct Context {
    /// The version of omb.
    pub version: String,
    /// The git commit it was built from.
    pub commit: Option<String>,
    /// Client libraries by name, with their versions: `librdkafka` → `2.12.1`.
    pub clients: BTreeMap<String, String>,
    /// The machine of the controller, which in local mode is also the worker's.
    pub host: Host,
    /// The messaging system's configuration, secrets included: they are hidden before anything is written.
    pub driver: DriverConfig,
    /// Start of the run, RFC 3339; `None`: the start of the load, in UTC, is taken from the report.
    pub started: Option<String>,
    /// End of the run, RFC 3339; `None`: the end of the last period, in UTC, is taken from the report.
    pub ended: Option<String>,
    /// Addresses of the workers, in order; empty if the one worker is this process.
    pub workers: Vec<String>,
    /// Keys of the workload file and the driver file that were not applied, in the order of the files.
    pub ignored: Vec<Ignored>,
}

/// A key of a file that was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Ignored {
    /// The file, as it was named.
    pub file: String,
    /// The key, as the file spells it.
    pub key: String,
    /// Why it was not applied.
    pub why: String,
}

impl Ignored {
    /// The warnings of a file that report a key that was not applied.
    pub fn among(warnings: &[ConfigWarning]) -> impl Iterator<Item = Self> {
        warnings.iter().filter(|warning| warning.ignored).map(|warning| Self {
            file: warning.file.clone(),
            key: warning.key.clone(),
            why: warning.message.clone(),
        })
    }
}

/// A machine, as far as known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(any(test, feature = "schema"), derive(schemars::JsonSchema))]
pub struct Host {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Operating system and architecture: `linux x86_64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Release of its kernel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// Model of its CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// Cores that this process may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cores: Option<u32>,
    /// Its memory, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

impl Context {
    /// A context with only these facts.
    #[must_use]
    pub fn new(version: impl Into<String>, driver: DriverConfig) -> Self {
        Self {
            version: version.into(),
            commit: None,
            clients: BTreeMap::new(),
            host: Host::default(),
            driver,
            started: None,
            ended: None,
            workers: Vec::new(),
            ignored: Vec::new(),
        }
    }

    /// Whether the messaging system is the embedded broker.
    #[must_use]
    pub fn embedded(&self) -> bool {
        self.driver.kind == DriverKind::Embedded
    }
}
