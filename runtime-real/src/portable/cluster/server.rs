//! What the connections of a node share, and what its machine has them do.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
};

use omb_cluster::{
    admission::Door,
    node::{
        ClientId,
        message::{Order, Reply},
    },
    peer::{NodeId, RequestId},
    store::{Name, Stored},
};
use tokio::sync::mpsc;

use super::{Limits, Nodes, Secret, gate::Gate, lanes::Entrances, slots::Slots};
use crate::portable::fleet::Transport;

/// The next action of a request's connection.
#[derive(Debug)]
pub(super) enum Action {
    /// Answer.
    Answer(Reply),
    /// Stream the body to another node.
    Relay { to: NodeId, order: Order },
    /// Stream the body into its temporary file.
    Store { id: RequestId },
    /// Answer with a stored upload.
    SendFile(Stored),
    /// Answer with what another node holds.
    Fetch { from: NodeId, name: Name },
}

impl Action {
    /// Whether it ends the request.
    pub(super) fn is_last(&self) -> bool {
        matches!(self, Self::Answer(_) | Self::SendFile(_) | Self::Fetch { .. })
    }
}

/// What all connections of a node share.
pub(super) struct Server<T: Transport, D> {
    pub(super) me: NodeId,
    pub(super) limits: Limits,
    pub(super) secret: Option<Secret>,
    pub(super) gate: Gate<T>,
    pub(super) nodes: Nodes<T>,
    pub(super) disk: D,
    pub(super) inputs: Entrances,
    pub(super) door: Mutex<Door>,
    pub(super) clients: Mutex<BTreeMap<ClientId, mpsc::UnboundedSender<Action>>>,
    pub(super) numbers: AtomicU64,
    pub(super) slots: Slots,
}

impl<T: Transport, D> Server<T, D> {
    pub(super) fn door(&self) -> MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn clients(&self) -> MutexGuard<'_, BTreeMap<ClientId, mpsc::UnboundedSender<Action>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes an action to a client's connection; returns whether it is still there.
    pub(super) fn pass(&self, client: ClientId, action: Action) -> bool {
        let mut clients = self.clients();
        if action.is_last() {
            clients.remove(&client).is_some_and(|to| to.send(action).is_ok())
        } else {
            clients.get(&client).is_some_and(|to| to.send(action).is_ok())
        }
    }
}
