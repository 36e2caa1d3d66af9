//! `omb worker`: one worker of a fleet.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use anyhow::{Context as _, anyhow};
use omb_bench::{protocol::Command, token::Token, worker};
use omb_runtime_real::{
    clock::Clock,
    net::{BindError, Listener},
    pages::Pages,
    performer::Performer,
    portable::{
        fleet::serving::{self, Identity},
        local,
    },
    process,
};
use tokio::sync::mpsc;

use super::{fleet::token, output, run::fresh};
use crate::{
    console,
    exit::{Code, Errors, ExitsWith as _},
    flags,
    signals::Interrupts,
};

/// Performs the commands of controllers until it is interrupted.
pub(crate) fn worker(flags: &flags::Worker) -> anyhow::Result<Code> {
    let mut errors = Errors::default();
    let stats_port = errors.ok(flags.stats_port()).unwrap_or_default();
    let token = errors.ok(flags.token_file.as_deref().map(token).transpose()).flatten();
    errors.none()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("the system gives no thread").exits_with(Code::Failed)?;
    runtime.block_on(serve(flags, stats_port, token, runtime.handle().clone()))?;
    Ok(Code::Sound)
}

async fn serve(
    flags: &flags::Worker,
    stats_port: u16,
    token: Option<String>,
    runtime: tokio::runtime::Handle,
) -> anyhow::Result<()> {
    let tls = flags.tls_cert.as_deref().zip(flags.tls_key.as_deref());
    let bind = |port, what| async move {
        let address = SocketAddr::new(flags.bind, port);
        Listener::bind(address, tls).await.map_err(|error| refused(error, address, what))
    };
    let listener = bind(flags.port, "its controllers (--port)").await?;
    let stats = bind(stats_port, "its metrics (--stats-port)").await?;
    let port_of = |listener: &Listener, asked| listener.address().map_or(asked, |address| address.port());
    let (port, stats_port) = (port_of(&listener, flags.port), port_of(&stats, stats_port));
    let scheme = if tls.is_some() { "https" } else { "http" };
    // Before the log says that the worker runs: from then on a signal ends it cleanly.
    let mut interrupts = Interrupts::listen();
    tracing::info!("Starting benchmark worker on port {port}");
    tracing::info!("Running on {scheme}://{}", SocketAddr::new(flags.bind, port));
    tracing::info!("Metrics on {scheme}://{}/metrics", SocketAddr::new(flags.bind, stats_port));
    if token.is_none() && !flags.bind.is_loopback() {
        tracing::warn!(
            "ANYONE WHO REACHES PORT {port} CAN MAKE THIS MACHINE CONNECT AND SEND LOAD ANYWHERE, and use its memory, its \
             processor and its network for that; it runs none of their code and opens none of its files: close it by \
             --token-file FILE, or by --bind 127.0.0.1, or by a firewall"
        );
    }
    let ending = Arc::new(AtomicBool::new(false));
    let mut performer = Performer::start(runtime, crate::embedded_broker());
    let name = format!("{}:{port}", output::host_name().unwrap_or_else(|| "worker".to_owned()));
    let ends = Arc::clone(&ending);
    let pages = Pages::new(env!("CARGO_PKG_VERSION"), &name, performer.counts(), performer.reaper(), ends);
    let identity = Identity {
        omb: env!("CARGO_PKG_VERSION").to_owned(),
        instance: format!("{:016x}", fresh("instance")),
        token: token.as_deref().map(Token::new),
        body_max: flags.body_limit,
        terms: flags.terms(),
        limits: process::limits(),
    };
    let (stop, mut stops) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        interrupts.next().await;
        tracing::warn!("Shutting down: what was sent is waited for (once more leaves at once)");
        ending.store(true, Relaxed);
        let _ = stop.send(());
        interrupts.next().await;
        console::leave(Code::Interrupted);
    });
    serving::serve(listener, Some(stats), identity, pages, &mut performer, &mut Watch, &mut stops, &Clock).await;
    tracing::info!("Shut down");
    Ok(())
}

fn refused(error: BindError, address: SocketAddr, what: &str) -> anyhow::Error {
    match error {
        BindError::Tls(mistake) => Code::Usage.attach(anyhow!(mistake)),
        BindError::Address(error) => {
            let cure = match (error.kind(), address.ip()) {
                (io::ErrorKind::AddrInUse, _) => "another process listens there: end it, or give another port",
                (io::ErrorKind::PermissionDenied, _) => "this user may not listen on it: give a port above 1023",
                (io::ErrorKind::AddrNotAvailable, IpAddr::V4(_) | IpAddr::V6(_)) => {
                    "it is no address of this machine: see --bind"
                }
                _ => "give another one",
            };
            Code::Unavailable.attach(anyhow!("omb worker cannot listen on {address} for {what}: {error}; {cure}"))
        }
    }
}

/// Logs events, in the words of the guide.
struct Watch;

impl local::Observer for Watch {
    fn on_worker_output(&mut self, output: &worker::Output) {
        match output {
            worker::Output::Follows { run, controller } => tracing::info!("Following {controller}, run {run}"),
            worker::Output::Perform { command, .. } => match command {
                Command::CreateTopics(topics) if !topics.is_empty() => {
                    tracing::info!("Creating {} topics...", topics.len());
                }
                Command::CreateConsumers(consumers) => tracing::info!("Creating {} consumers...", consumers.len()),
                Command::CreateProducers(producers) => tracing::info!("Creating {} producers...", producers.len()),
                Command::StartLoad { .. } => tracing::info!("Starting load..."),
                Command::StopLoad { .. } => tracing::info!("Stopping load..."),
                Command::Close => tracing::info!("Closing the run..."),
                other => tracing::debug!("Performing: {}", other.name()),
            },
            worker::Output::Reply(response) => {
                if let Err(failure) = &response.outcome {
                    tracing::error!("Command {} of run {}: {failure}", response.number, response.run);
                }
            }
            worker::Output::LeaseExpired(run) => {
                tracing::error!(
                    "Nothing was heard from the controller of run {run} for its lease: the load stops, its counts are kept \
                     for a while"
                );
            }
            worker::Output::Freed(run) => tracing::info!("Run {run} is closed; ready for the next one"),
            worker::Output::ShutDown => {}
        }
    }
}
