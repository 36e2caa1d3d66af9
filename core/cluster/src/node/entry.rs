//! Uploads that clients make through this node, from their arrival to their answer, and what is stored here for them.

use crate::{
    peer::{Leadership, NodeId, RequestId},
    routing::End,
    store,
};
use omb_machine::{Machine as _, time::Instant};

use super::{
    ClientId, Node, Output, PLACE_MAX, RelayFailure,
    leading::as_stored,
    message::{Message, Order, Put, Reply},
};

/// An upload that a client is making through this node.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) put: Put,
    pub(super) state: EnteredState,
}

#[derive(Debug)]
pub(super) enum EnteredState {
    /// The leader was asked, under this number.
    Asked { ticket: u64 },
    /// The leader has placed it.
    Placed { node: NodeId, leader: NodeId },
}

/// An upload whose body is being stored here.
#[derive(Debug)]
pub(super) struct Storing {
    /// The client that waits for it.
    pub(super) client: ClientId,
    since: Instant,
}

impl Node {
    /// Why an upload is never taken: sending it again would change nothing.
    pub(super) fn refusal(&self, put: &Put) -> Option<Reply> {
        let (bytes, limit) = (put.bytes, self.config.upload_limit);
        if bytes == 0 {
            // An empty file is far more often the sender's mistake than something to keep.
            return Some(Reply::Refused("the file is empty; there is nothing to store".to_owned()));
        }
        let text = || format!("{bytes} bytes are more than this cluster takes (upload_limit {limit})");
        (bytes > limit).then(|| Reply::Refused(text()))
    }

    pub(super) fn on_put(&mut self, now: Instant, client: ClientId, mut put: Put) {
        // It is kept until the upload ends, and a client may name as many as fit a frame.
        put.excluded.retain(|node| self.config.peers.address(*node).is_some());
        if let Some(refusal) = self.refusal(&put) {
            return self.reply(now, client, refusal);
        }
        if let Some(stored) = self.store.claim(put.id, &put.label) {
            return self.reply(now, client, as_stored(self.me, stored, &put));
        }
        let Some(leader) = self.leader() else {
            return self.retry(now, client, self.leaderless(now), None);
        };
        let ticket = self.ticket();
        self.entered.insert(client, Entered { put: put.clone(), state: EnteredState::Asked { ticket } });
        self.asked.insert(ticket, (client, now + PLACE_MAX));
        if leader == self.me {
            self.place(now, self.me, ticket, put);
        } else {
            self.send(leader, Message::Place { ticket, put });
        }
    }

    /// As the entry: the leader has decided.
    pub(super) fn on_placed(
        &mut self,
        now: Instant,
        leader: NodeId,
        ticket: u64,
        id: RequestId,
        leadership: Leadership,
        outcome: Result<NodeId, Box<Reply>>,
    ) {
        let same = |(client, _): &&(ClientId, Instant)| self.entered.get(client).is_some_and(|it| it.put.id == id);
        let client = self.asked.get(&ticket).filter(same).map(|(client, _)| *client);
        let Some(client) = client.filter(|_| self.leader() == Some(leader)) else {
            // Its client was asked to try again, or this is a copy of an order that is in progress.
            if let Ok(node) = outcome
                && !self.is_passing(id, None)
            {
                self.finished(now, leader, id, node, End::Abandoned);
            }
            return;
        };
        match outcome {
            Ok(node) => {
                self.asked.remove(&ticket);
                let entered = self.entered.get_mut(&client).expect("the leader was asked for an entered upload");
                entered.state = EnteredState::Placed { node, leader };
                let put = entered.put.clone();
                if node == self.me {
                    self.store_here(now, client, &put);
                } else {
                    let order = Order::Store { put, leadership };
                    self.outputs.push_back(Output::Relay { client, to: node, order });
                }
            }
            Err(reply) => self.end(now, client, *reply, End::Abandoned),
        }
    }

    /// The leader that was asked no longer leads, or leads in another term.
    pub(super) fn abandon_asked(&mut self, now: Instant, leader: Option<NodeId>) {
        for client in self.asked.values().map(|(client, _)| *client).collect::<Vec<_>>() {
            let reason = "the leader changed meanwhile".to_owned();
            self.end(now, client, Reply::Retry { reason, excluded: None, leader }, End::Abandoned);
        }
    }

    /// Stores a client's body here.
    pub(super) fn store_here(&mut self, now: Instant, client: ClientId, put: &Put) {
        let Put { id, bytes, .. } = *put;
        if self.store.is_under_way(id) || self.storing.contains_key(&id) {
            let reason = format!("node {} is storing this upload already", self.me.0);
            let leader = self.leader();
            return self.end(now, client, Reply::Retry { reason, excluded: None, leader }, End::Abandoned);
        }
        self.storing.insert(id, Storing { client, since: now });
        self.store.handle_input(now, store::Input::Put { id, bytes, label: put.label.clone() });
    }

    /// The store is done with an upload.
    pub(super) fn on_stored(&mut self, now: Instant, id: RequestId, outcome: Result<store::Stored, store::Failure>) {
        let Some(Storing { client, since }) = self.storing.remove(&id) else { return };
        let (me, leader) = (self.me, self.leader());
        let (reply, end) = match outcome {
            Ok(stored) => {
                self.counts.store.record(now.since(since));
                self.outputs.push_back(Output::Saved { node: me, stored });
                (Reply::Stored { node: me, stored }, End::Stored)
            }
            Err(failure) => {
                let full = matches!(failure, store::Failure::Full(_));
                let disk = full || matches!(failure, store::Failure::Disk(_));
                if disk {
                    self.warn(format!("[Node {}] cannot store {id}: {failure}", me.0));
                }
                if full {
                    return self.end(now, client, Reply::Full { node: me, leader }, End::Failed);
                }
                let reason = format!("node {} cannot store it: {failure}", me.0);
                let reply = Reply::Retry { reason, excluded: disk.then_some(me), leader };
                (reply, if disk { End::Failed } else { End::Abandoned })
            }
        };
        self.end(now, client, reply, end);
    }

    pub(super) fn on_relayed(&mut self, now: Instant, client: ClientId, outcome: Result<Reply, RelayFailure>) {
        let leader = self.leader();
        let (reply, end) = match outcome {
            Ok(reply) => {
                let end = match &reply {
                    Reply::Stored { .. } => End::Stored,
                    Reply::Retry { excluded: Some(_), .. } | Reply::Full { .. } => End::Failed,
                    _ => End::Abandoned,
                };
                (reply, end)
            }
            Err(failure) => {
                let end = match failure {
                    RelayFailure::Client(_) => End::Abandoned,
                    RelayFailure::Node(_) => End::Failed,
                };
                (Reply::Retry { reason: failure.to_string(), excluded: None, leader }, end)
            }
        };
        self.end(now, client, reply, end);
    }

    /// Answers an upload, and reports to the leader that placed it how it ended.
    pub(super) fn end(&mut self, now: Instant, client: ClientId, reply: Reply, end: End) {
        match self.entered.remove(&client) {
            Some(Entered { put, state: EnteredState::Placed { node, leader } }) => {
                self.finished(now, leader, put.id, node, end);
            }
            Some(Entered { state: EnteredState::Asked { ticket }, .. }) => _ = self.asked.remove(&ticket),
            None => {}
        }
        self.reply(now, client, reply);
    }

    pub(super) fn finished(&mut self, now: Instant, leader: NodeId, id: RequestId, node: NodeId, end: End) {
        if leader == self.me {
            self.on_finished(now, self.me, id, node, end);
        } else {
            self.send(leader, Message::Finished { id, node, end });
        }
    }

    /// Whether an upload is being relayed through this node. With `asked`, also whether it may be soon, by an order in
    /// flight for any request but the one that the question is about.
    pub(super) fn is_passing(&self, id: RequestId, asked: Option<Option<(NodeId, u64)>>) -> bool {
        self.entered.values().filter(|entered| entered.put.id == id).any(|entered| match entered.state {
            EnteredState::Placed { .. } => true,
            EnteredState::Asked { ticket } => asked.is_some_and(|asked| asked != Some((self.me, ticket))),
        })
    }
}
