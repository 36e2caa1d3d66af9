//! Shared by node, client and stress test: the cluster file, and connections to its nodes.

use std::{io, path::Path};

use anyhow::{Context as _, Error, anyhow};
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
    exit::{Code, ExitsWith as _},
    flags,
};

/// Reads the cluster file, and `PEERS`, which takes precedence. All mistakes are reported at once.
pub(super) fn read(flags: &flags::Cluster) -> anyhow::Result<ClusterConfig> {
    let peers = flags.peers.as_deref().map(config::parse_peers).transpose()?;
    let file = match (&peers, input::text_of(&flags.config)) {
        (Some(peers), Err(_)) if !flags.config.exists() => return Ok(ClusterConfig::new(peers.clone())),
        (_, Ok(text)) => text,
        (_, Err(error)) => return Err(missing(&flags.config, error)),
    };
    let parsed = config::parse(&shown(&flags.config), &file)?;
    parsed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let mut config = parsed.value;
    config.peers = peers.unwrap_or(config.peers);
    Ok(config)
}

fn missing(config: &Path, error: Error) -> Error {
    if config.exists() {
        return error;
    }
    anyhow!(
        "{error:#}; write the cluster file there, the same on every machine: {{\"peers\": [{{\"id\": 1, \"address\": \
         \"192.168.1.100:7001\"}}, ..]}}, or name another one by --config or CONFIG_FILE"
    )
}

/// One thread: the work for an upload is short, in a node and in the stress test, and waking a second thread costs more
/// than it saves. Disks have threads of their own.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.context("the system gives no thread").exits_with(Code::Failed)
}

/// The nodes, for clients of all kinds, which need neither the key of peers nor a certificate.
pub(super) fn nodes(config: &ClusterConfig) -> anyhow::Result<Nodes<Transport>> {
    let transport = Transport::new(config.tls.as_ref().map(|tls| tls.ca.as_path())).map_err(Error::msg)?;
    let secret = secret(config.key_file.as_deref(), None).map_err(Error::msg)?;
    let tls = config.tls.is_some();
    let addresses = config.peers.iter().filter_map(|(id, text)| Some((id, address(text, tls)?))).collect();
    Ok(Nodes::new(transport, addresses, Limits::default(), secret))
}

/// A unique number that cannot be guessed.
fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the system gives no random number")?;
    Ok(bytes)
}

pub(super) fn random_id() -> anyhow::Result<RequestId> {
    random().map(u128::from_le_bytes).map(RequestId)
}

pub(super) fn random_seed() -> anyhow::Result<Seed> {
    random().map(u64::from_le_bytes).map(Seed)
}

/// An empty body in both directions: that of a query.
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
