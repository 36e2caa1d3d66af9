//! The loop around one node's machine: its outputs are performed here, and the results are handed back.

use std::{
    collections::BTreeMap,
    io,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use omb_cluster::{
    admission::{Capacity, Door},
    config::ClusterConfig,
    node::{Input, Node, Output, RelayFailure, message::Envelope},
    peer::NodeId,
    store::{self, Failure, Step},
};
use omb_machine::{seed::Seed, time::Instant};
use tokio::sync::mpsc;

use super::{
    Disk, Limits, Nodes, Secret, address, disk,
    gate::Gate,
    lanes::lanes,
    links::{self, Link},
    server::{Action, Server},
    serving,
    slots::Slots,
};
use crate::portable::{
    event_loop::{self, Clock},
    fleet::{Address, Listener, Transport},
};

/// Observes a node: for logs and metrics, or for a simulation's promises.
pub trait Observer: Send {
    /// Hands a message to the connection that carries it. A simulation's comes late, twice, or never.
    fn hand_over(&mut self, link: &mpsc::Sender<Envelope>, envelope: Envelope) {
        // To a peer that does not read it may be lost, as on the network.
        let _ = link.try_send(envelope);
    }
    /// The machine wants this done.
    fn wants(&mut self, output: &Output);
    /// The machine after a step.
    fn look(&mut self, node: &Node, now: Instant);
}

/// Which node this is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its id, one of the peers.
    pub me: NodeId,
    /// The content of `config.json`.
    pub config: ClusterConfig,
    /// Bounds on what others can do.
    pub limits: Limits,
    /// Where its random choices come from.
    pub seed: Seed,
    /// The keys in `key_file` and `peer_key_file`, if one of them is given.
    pub secret: Option<Secret>,
}

/// Runs one node for as long as the process lives.
///
/// # Errors
/// If what was stored before cannot be read.
pub async fn serve<L, T, D>(
    listener: L,
    transport: T,
    disk: D,
    identity: Identity,
    observer: &mut impl Observer,
    clock: &impl Clock,
) -> io::Result<()>
where
    L: Listener,
    T: Transport + Sync,
    D: Disk,
{
    let Identity { me, config, limits, seed, secret } = identity;
    let restored = disk.restore().await?;
    let (entrances, mut inputs) = lanes();
    let tls = config.tls.is_some();
    let addresses: BTreeMap<NodeId, Address> =
        config.peers.iter().filter_map(|(id, text)| Some((id, address(text, tls)?))).collect();
    let mut links = BTreeMap::new();
    for (peer, to) in addresses.iter().filter(|(peer, _)| **peer != me) {
        let (link, queue) = mpsc::channel(links::QUEUE);
        links.insert(*peer, link);
        let link = Link { me, peer: *peer, to: to.clone(), limits, secret: secret.clone() };
        tokio::spawn(link.hold(transport.clone(), queue, entrances.own.clone()));
    }
    let listed =
        addresses.iter().map(|(peer, to)| (*peer, to.host.parse().ok())).filter(|(peer, _)| *peer != me).collect();
    let strangers =
        Capacity { most: limits.strangers, per_source: limits.strangers / 2, reserve: limits.strangers / 8 };
    let clients = Capacity {
        most: limits.connections,
        per_source: limits.connections_per_source,
        reserve: limits.connections_reserve,
    };
    let server = Arc::new(Server {
        me,
        limits,
        secret: secret.clone(),
        gate: Gate::new(transport.clone(), config.checks_addresses(), &addresses),
        nodes: Nodes::of(Some(me), transport, addresses, limits, secret),
        disk,
        inputs: entrances,
        door: Mutex::new(Door::new(strangers, clients, listed)),
        clients: Mutex::default(),
        numbers: AtomicU64::new(1),
        slots: Slots::new(&limits),
    });
    let accepting = tokio::spawn(serving::accept(listener, server.clone()));
    let mut machine = Node::new(clock.now(), me, config, restored, seed);
    // Both closures use it, one after the other.
    let observer = Mutex::new(observer);
    let observing = || observer.lock().unwrap_or_else(PoisonError::into_inner);
    let perform = |output: Output| {
        observing().wants(&output);
        match output {
            Output::Send { to, envelope } => {
                if let Some(link) = links.get(&to) {
                    observing().hand_over(link, envelope);
                }
            }
            output => begin(output, &server),
        }
        ControlFlow::Continue(())
    };
    event_loop::run(&mut machine, &mut inputs, perform, |node, now| observing().look(node, now), clock).await;
    accepting.abort();
    Ok(())
}

/// Begins what the machine wants done.
fn begin<T, D>(output: Output, server: &Arc<Server<T, D>>)
where
    T: Transport + Sync,
    D: Disk,
{
    // If it is not read, the loop that would read it has ended.
    let report = |input| _ = server.inputs.own.send(input);
    match output {
        Output::Answer { client, reply } => _ = server.pass(client, Action::Answer(reply)),
        Output::Relay { client, to, order } => {
            if !server.pass(client, Action::Relay { to, order }) {
                report(Input::Relayed { client, outcome: Err(RelayFailure::Client("it is gone".to_owned())) });
            }
        }
        Output::Store { client, id } => {
            if !server.pass(client, Action::Store { id }) {
                let failure = Failure::Body("the client is gone".to_owned());
                report(Input::Disk(store::Input::Failed { step: Step::Write(id), failure }));
            }
        }
        Output::SendFile { client, file } => _ = server.pass(client, Action::SendFile(file)),
        Output::Fetch { client, from, name } => _ = server.pass(client, Action::Fetch { from, name }),
        Output::Disk(steps) => {
            let server = server.clone();
            tokio::spawn(async move {
                let input = disk::perform(&server.disk, steps).await;
                let _ = server.inputs.own.send(Input::Disk(input));
            });
        }
        Output::Persist(leadership) => {
            let server = server.clone();
            tokio::spawn(async move {
                let input = match server.disk.persist(leadership).await {
                    Ok(()) => Input::Persisted(leadership),
                    Err(error) => Input::PersistFailed(leadership, error.to_string()),
                };
                let _ = server.inputs.own.send(input);
            });
        }
        // Handed over above; for observers only.
        Output::Send { .. }
        | Output::LeaderChanged(_)
        | Output::Recorded { .. }
        | Output::Saved { .. }
        | Output::Info(_)
        | Output::Warn(_) => {}
    }
}
