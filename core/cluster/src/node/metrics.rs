//! What a node counts, for monitoring over time.

use std::collections::BTreeMap;

use super::{
    ClientId, Node,
    message::{Order, Reply, Request},
};
use crate::{
    peer::{Leadership, NodeId},
    store::Loss,
};
use omb_machine::{buckets::Buckets, time::Instant};

/// What a request, or an order, asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Request::Put`].
    Put,
    /// [`Order::Store`].
    Store,
    /// [`Request::Get`] and [`Order::Send`].
    Get,
    /// [`Request::Find`].
    Find,
    /// [`Request::List`].
    List,
    /// [`Request::Status`].
    Status,
    /// [`Request::Discover`].
    Discover,
}

impl Kind {
    /// All of them, in order.
    pub const ALL: [(Self, &str); 7] = [
        (Self::Put, "put"),
        (Self::Store, "store"),
        (Self::Get, "get"),
        (Self::Find, "find"),
        (Self::List, "list"),
        (Self::Status, "status"),
        (Self::Discover, "discover"),
    ];

    pub(super) fn of_order(order: &Order) -> Self {
        match order {
            Order::Store { .. } => Self::Store,
            Order::Send { .. } => Self::Get,
        }
    }

    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::Put(_) => Self::Put,
            Request::Get { .. } => Self::Get,
            Request::Find { .. } => Self::Find,
            Request::List { .. } => Self::List,
            Request::Status => Self::Status,
            Request::Discover => Self::Discover,
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It succeeded.
    Done,
    /// Not now: [`Reply::Retry`], [`Reply::Full`].
    Retry,
    /// Never: [`Reply::Refused`].
    Refused,
    /// [`Reply::NotFound`], [`Reply::Lost`].
    NotFound,
    /// Another node is asked to send what it holds.
    PassedOn,
}

impl Outcome {
    /// All of them, in order.
    pub const ALL: [(Self, &str); 5] = [
        (Self::Done, "done"),
        (Self::Retry, "retry"),
        (Self::Refused, "refused"),
        (Self::NotFound, "not_found"),
        (Self::PassedOn, "passed_on"),
    ];

    fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Retry { .. } | Reply::Full { .. } => Self::Retry,
            Reply::Refused(_) => Self::Refused,
            Reply::NotFound | Reply::Lost { .. } => Self::NotFound,
            Reply::Stored { .. } | Reply::Body(_) | Reply::Listing { .. } | Reply::Found { .. } => Self::Done,
            Reply::Status(_) | Reply::Discovered { .. } => Self::Done,
        }
    }
}

/// What a node has counted since its process began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    answers: [[u64; Outcome::ALL.len()]; Kind::ALL.len()],
    /// As the leader: uploads assigned, by node.
    pub assigned: BTreeMap<NodeId, u64>,
    /// Steps to the disk that failed.
    pub disk_failures: u64,
    /// As the entry: from an upload's arrival to the answer that it is stored.
    pub upload: Buckets,
    /// From the order to store a body here to the end of it, if it was stored.
    pub store: Buckets,
}

impl Counts {
    /// Requests of this kind that ended like this.
    #[must_use]
    pub fn answers(&self, kind: Kind, outcome: Outcome) -> u64 {
        self.answers[kind as usize][outcome as usize]
    }
}

/// A node at one moment, in plain numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// The node.
    pub node: NodeId,
    /// The leader that it follows, possibly itself.
    pub leader: Option<Leadership>,
    /// The newest leadership that it has stored.
    pub newest: Leadership,
    /// Whether it leads and places uploads.
    pub serves: bool,
    /// How often it began to follow another leadership.
    pub leader_changes: u64,
    /// Elections that it started.
    pub elections_started: u64,
    /// Elections that it won.
    pub elections_won: u64,
    /// Its peers.
    pub peers: u64,
    /// Those that are reachable, as heard or reported by its leader; at most a heartbeat old.
    pub peers_heard: u64,
    /// Uploads stored here.
    pub stored: u64,
    /// Their bytes.
    pub stored_bytes: u64,
    /// Uploads that were stored here and are lost.
    pub lost: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Uploads being stored here.
    pub under_way: u64,
    /// Whether its folder of uploads could not be read.
    pub blind: bool,
    /// What it has counted.
    pub counts: Counts,
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    kind: Kind,
    since: Instant,
}

impl Node {
    /// This node in numbers. Copies some 200 of them, so a runtime calls it on demand, not after each step.
    #[must_use]
    pub fn metrics(&self, now: Instant) -> Metrics {
        let election = self.election.counts();
        Metrics {
            node: self.me,
            leader: self.election.leader(),
            newest: self.election.durable(),
            serves: self.router().is_some() && self.election.serves(now),
            leader_changes: self.watch.changes,
            elections_started: election.started,
            elections_won: election.won,
            peers: self.config.peers.ids().len() as u64 - 1,
            peers_heard: self.watch.present,
            stored: self.store.count(),
            stored_bytes: self.store.bytes(),
            lost: self.store.count_lost(Loss::Gone) + self.store.count_lost(Loss::Damaged),
            in_flight: self.open.len() as u64,
            under_way: self.storing.len() as u64,
            blind: self.store.is_blind(),
            counts: self.counts.clone(),
        }
    }

    pub(super) fn opened(&mut self, now: Instant, client: ClientId, kind: Kind) {
        self.open.insert(client, Open { kind, since: now });
    }

    /// A request is over.
    pub(super) fn count(&mut self, now: Instant, client: ClientId, outcome: Outcome) {
        let Some(Open { kind, since }) = self.open.remove(&client) else { return };
        self.counts.answers[kind as usize][outcome as usize] += 1;
        if (kind, outcome) == (Kind::Put, Outcome::Done) {
            self.counts.upload.record(now.since(since));
        }
    }

    /// Answers a request.
    pub(super) fn reply(&mut self, now: Instant, client: ClientId, reply: Reply) {
        self.count(now, client, Outcome::of(&reply));
        self.outputs.push_back(super::Output::Answer { client, reply });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_place() {
        assert!(Kind::ALL.iter().enumerate().all(|(position, (kind, _))| *kind as usize == position));
        assert!(Outcome::ALL.iter().enumerate().all(|(position, (outcome, _))| *outcome as usize == position));
    }
}
