//! Questions to all nodes that can be reached, and what their answers add up to.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ClientId,
    message::{Answer, NodeStatus, Put, Reply},
};
use crate::{
    peer::{NodeId, RequestId},
    store::Name,
    time::Instant,
};

/// A question that is open.
#[derive(Debug)]
pub(super) struct Gather {
    pub(super) purpose: Purpose,
    /// Who has not answered.
    pub(super) waiting: BTreeSet<NodeId>,
    /// When to go on without them.
    pub(super) until: Instant,
    pub(super) answers: BTreeMap<NodeId, Answer>,
}

/// What it was asked for.
#[derive(Debug)]
pub(super) enum Purpose {
    List { client: ClientId },
    Status { client: ClientId },
    Get { client: ClientId, name: Name },
    Place { entry: NodeId, ticket: u64, put: Put },
}

impl Gather {
    /// Takes an answer, once from each that was asked; whether it was the last.
    pub(super) fn take(&mut self, from: NodeId, answer: Answer) -> bool {
        if self.waiting.remove(&from) {
            self.answers.insert(from, answer);
            return self.waiting.is_empty();
        }
        false
    }
}

/// Which node holds what, and how many uploads lie on several.
pub(super) fn listing(answers: BTreeMap<NodeId, Answer>, missing: BTreeSet<NodeId>) -> Reply {
    let mut uploads = Vec::new();
    for (node, answer) in answers {
        if let Answer::List(stored) = answer {
            uploads.extend(stored.into_iter().map(|stored| (node, stored)));
        }
    }
    // A reply is one frame; what is beyond the limit is seen when a node is asked alone.
    uploads.truncate(super::message::LIST_MAX);
    let mut holders: BTreeMap<RequestId, u64> = BTreeMap::new();
    for (_, stored) in &uploads {
        *holders.entry(stored.name.id).or_default() += 1;
    }
    let copies = holders.values().filter(|count| **count > 1).count() as u64;
    Reply::Listing { uploads, copies, missing }
}

/// The statuses, by id.
pub(super) fn statuses(answers: BTreeMap<NodeId, Answer>) -> Vec<NodeStatus> {
    let status = |answer| if let Answer::Status(status) = answer { Some(status) } else { None };
    answers.into_values().filter_map(status).collect()
}
