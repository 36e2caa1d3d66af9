//! Orders to store an upload, in flight to the node that is to store it. Not a promise by itself; two promises use it.

use std::collections::BTreeMap;

use omb_cluster::{
    node::{ClientId, Output, message::Order},
    peer::{Leadership, NodeId, RequestId},
};

/// Orders that were sent and not answered.
#[derive(Debug, Default)]
pub(super) struct Orders(BTreeMap<(NodeId, ClientId), (RequestId, NodeId, Leadership)>);

impl Orders {
    /// A node's output: perhaps an order, or the answer to the client whose upload it was.
    pub(super) fn on_output(&mut self, node: NodeId, output: &Output) {
        match output {
            Output::Relay { client, to, order: Order::Store { put, leadership } } => {
                self.0.insert((node, *client), (put.id, *to, *leadership));
            }
            Output::Answer { client, .. } => _ = self.0.remove(&(node, *client)),
            _ => {}
        }
    }

    /// What a node's former process had sent is forgotten: its body will not arrive.
    pub(super) fn on_birth(&mut self, node: NodeId) {
        self.0.retain(|(entry, _), _| *entry != node);
    }

    /// The newest leadership under which `node` is ordered to store this upload.
    #[must_use]
    pub(super) fn newest(&self, id: RequestId, node: NodeId) -> Option<Leadership> {
        let here = self.0.values().filter(|(of, to, _)| (*of, *to) == (id, node));
        here.map(|(_, _, leadership)| *leadership).max()
    }
}
