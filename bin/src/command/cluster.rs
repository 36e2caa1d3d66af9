//! What node, client and stress test have in common: the cluster file, and ways to its nodes.

use std::{fmt, io, path::Path, process::ExitCode};

use omb_cluster::{
    config::{self, ClusterConfig},
    peer::RequestId,
    store::Stored,
};
use omb_machine::seed::Seed;
use omb_runtime_real::{
    key::secret,
    net::Transport,
    portable::cluster::{Limits, Nodes, address, asking},
};

use tokio::runtime::Runtime;

use super::input;
use crate::{
    console::shown,
    exit::{self, Ended},
    flags,
};

/// Reads the cluster file, and `PEERS`, which takes precedence. All mistakes are told at once.
pub(super) fn read(flags: &flags::Cluster) -> Result<ClusterConfig, String> {
    let peers = flags.peers.as_deref().map(|text| config::parse_peers(text).map_err(|errors| errors.to_string()));
    let peers = peers.transpose()?;
    let file = match (&peers, input::text_of(&flags.config)) {
        (Some(peers), Err(_)) if !flags.config.exists() => return Ok(ClusterConfig::new(peers.clone())),
        (_, Ok(text)) => text,
        (_, Err(mistake)) => return Err(missing(&flags.config, mistake)),
    };
    let parsed = config::parse(&shown(&flags.config), &file).map_err(|errors| errors.to_string())?;
    parsed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let mut config = parsed.value;
    config.peers = peers.unwrap_or(config.peers);
    Ok(config)
}

fn missing(config: &Path, mistake: String) -> String {
    if config.exists() {
        return mistake;
    }
    format!(
        "{mistake}; write the cluster file there, the same on every machine: {{\"peers\": [{{\"id\": 1, \"address\": \
         \"192.168.1.100:7001\"}}, ..]}}, or name another one by --config or CONFIG_FILE"
    )
}

/// Tells a mistake; the exit code that goes with it.
pub(super) fn told(mistake: impl fmt::Display, code: impl Into<ExitCode>) -> ExitCode {
    tracing::error!("{mistake}");
    code.into()
}

/// Goes on with what was prepared, on a runtime of its own; mistakes in preparing it are those of usage.
pub(super) fn begin<T>(prepared: Result<T, String>) -> Result<(T, Runtime), ExitCode> {
    let prepared = prepared.map_err(|mistake| told(mistake, exit::USAGE))?;
    Ok((prepared, runtime()?))
}

/// One thread: what an upload asks of a node, or of the one that tests it, is short, and waking a second thread for half of
/// it costs more. Disks have threads of their own.
fn runtime() -> Result<Runtime, ExitCode> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|error| told(format_args!("the system gives no thread: {error}"), Ended::Failed))
}

/// The nodes, for clients of all kinds. They need neither the key of peers nor a certificate.
pub(super) fn nodes(config: &ClusterConfig) -> Result<Nodes<Transport>, String> {
    let transport = Transport::new(config.tls.as_ref().map(|tls| tls.ca.as_path()))?;
    let secret = secret(config.key_file.as_deref(), None)?;
    let tls = config.tls.is_some();
    let addresses = config.peers.iter().filter_map(|(id, text)| Some((id, address(text, tls)?))).collect();
    Ok(Nodes::new(transport, addresses, Limits::default(), secret))
}

/// A number that nobody else draws, or can guess.
fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("the system gives no random number: {error}"))?;
    Ok(bytes)
}

pub(super) fn random_id() -> Result<RequestId, String> {
    random().map(u128::from_le_bytes).map(RequestId)
}

pub(super) fn random_seed() -> Result<Seed, String> {
    random().map(u64::from_le_bytes).map(Seed)
}

/// No body, either way: that of a question.
#[derive(Clone, Copy)]
pub(super) struct Nothing;

impl asking::Cargo for Nothing {
    type Source = tokio::io::Empty;
    type Sink = tokio::io::Sink;

    async fn source(&self) -> io::Result<tokio::io::Empty> {
        Ok(tokio::io::empty())
    }

    async fn sink(&self, _: &Stored) -> io::Result<tokio::io::Sink> {
        Ok(tokio::io::sink())
    }
}
