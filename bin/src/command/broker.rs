//! `omb broker`: the embedded broker by itself.

use std::{net::SocketAddr, process::ExitCode};

use omb_machine::quantity::bytes;
use omb_runtime_real::{embedded, process};

use crate::{console::outln, exit::Ended, flags, signals::Interrupts};

/// Listens until it is interrupted.
pub(crate) fn broker(flags: &flags::Broker) -> ExitCode {
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
    let server = match embedded::Server::start(options) {
        Ok(server) => server,
        Err(error) => {
            tracing::error!("{error}");
            return Ended::Unavailable.into();
        }
    };
    if !flags.bind.is_loopback() {
        tracing::warn!(
            "the embedded broker listens on {}: whoever reaches this address can read and write everything",
            server.addr()
        );
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!("cannot wait for signals: {error}");
            return Ended::Failed.into();
        }
    };
    runtime.block_on(async {
        let mut interrupts = Interrupts::listen();
        outln!("Embedded broker on {}, up to {} MiB in memory. Ctrl-C ends it.", server.addr(), capacity >> 20);
        interrupts.next().await;
    });
    let stats = server.stats();
    tracing::info!("Stopping with {} records of {} topics in memory", stats.records, stats.topics);
    ExitCode::SUCCESS
}
