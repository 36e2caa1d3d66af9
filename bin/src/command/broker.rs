//! `omb broker`: the embedded broker by itself.

use std::net::SocketAddr;

use anyhow::{Context as _, anyhow};
use omb_machine::quantity::bytes;
use omb_runtime_real::{embedded, process};

use crate::{
    console::outln,
    exit::{Code, ExitsWith as _},
    flags,
    signals::Interrupts,
};

/// Listens until it is interrupted.
pub(crate) fn broker(flags: &flags::Broker) -> anyhow::Result<Code> {
    let mut options = embedded::Options { bind: SocketAddr::new(flags.bind, flags.port), ..crate::embedded_broker() };
    if let Some(capacity) = flags.capacity {
        options.capacity = capacity;
    }
    let capacity = options.capacity;
    if let Some(memory) = process::memory_max().filter(|memory| *memory < capacity) {
        tracing::warn!(
            "--capacity {}: this process may have {} of memory; it is killed when it needs more",
            bytes(capacity),
            bytes(memory)
        );
    }
    // Its text names the cause.
    let server = embedded::Server::start(options).map_err(|error| anyhow!("{error}")).exits_with(Code::Unavailable)?;
    if !flags.bind.is_loopback() {
        tracing::warn!(
            "the embedded broker listens on {}: anyone who reaches this address can read and write everything",
            server.addr()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot wait for signals").exits_with(Code::Failed)?;
    runtime.block_on(async {
        let mut interrupts = Interrupts::listen();
        outln!("Embedded broker on {}, up to {} MiB in memory. Ctrl-C ends it.", server.addr(), capacity >> 20);
        interrupts.next().await;
    });
    let stats = server.stats();
    tracing::info!("Stopping with {} records of {} topics in memory", stats.records, stats.topics);
    Ok(Code::Sound)
}
