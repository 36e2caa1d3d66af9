//! Questions to all nodes that can be reached, and what their answers add up to.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ClientId, Node, Output,
    message::{self, Answer, Holding, Message, NodeStatus, Put, Question, Reply},
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

impl Node {
    /// What this node answers to a question, its own included.
    pub(super) fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Who { id, asked } => Answer::Holds(match self.store.held(*id) {
                Some(stored) => Holding::Held(stored),
                None if self.is_passing(*id, Some(*asked)) => Holding::Perhaps,
                // It may never find out, and a retry must not wait for that.
                None if self.store.is_blind() => Holding::No,
                None if self.store.is_under_way(*id) || !self.store.is_ready() => Holding::Perhaps,
                None => Holding::No,
            }),
            Question::List => Answer::List(self.store.all().take(message::LIST_MAX).collect()),
            Question::Status => Answer::Status(NodeStatus {
                node: self.me,
                newest: self.election.durable(),
                assigned: self.level.max(self.store.count()),
                stored: self.store.count(),
                bytes: self.store.all().map(|stored| stored.bytes).sum(),
                under_way: self.storing.len() as u64,
            }),
        }
    }

    /// Asks all nodes that can be reached.
    pub(super) fn gather(&mut self, now: Instant, question: Question, purpose: Purpose) {
        let ticket = self.ticket();
        let others: BTreeSet<NodeId> = self.election.alive(now).into_iter().filter(|node| *node != self.me).collect();
        for node in &others {
            self.send(*node, Message::Ask { ticket, question: question.clone() });
        }
        let own = (self.me, self.answer(&question));
        let gather = Gather { purpose, waiting: others, until: now + self.config.timing.answer, answers: [own].into() };
        let done = gather.waiting.is_empty();
        self.gathers.insert(ticket, gather);
        if done {
            self.conclude(now, ticket);
        }
    }

    /// All have answered, or have had their time.
    pub(super) fn conclude(&mut self, now: Instant, ticket: u64) {
        let Some(gather) = self.gathers.remove(&ticket) else { return };
        let missing: BTreeSet<NodeId> =
            self.config.peers.ids().filter(|node| !gather.answers.contains_key(node)).collect();
        match gather.purpose {
            Purpose::List { client } => {
                let reply = listing(gather.answers, missing);
                self.reply(client, reply);
            }
            Purpose::Status { client } => {
                let (leader, policy) = (self.election.leader(), self.config.policy.to_string());
                let nodes = statuses(gather.answers);
                self.reply(client, Reply::Status { leader, policy, nodes, missing });
            }
            Purpose::Get { client, name } => {
                let holds = |answer: &Answer| matches!(answer, Answer::Holds(Holding::Held(s)) if s.name == name);
                match gather.answers.iter().find(|(_, answer)| holds(answer)) {
                    Some((node, _)) => self.outputs.push_back(Output::Fetch { client, from: *node, name }),
                    None => self.reply(client, Reply::NotFound),
                }
            }
            Purpose::Place { entry, ticket, put } => {
                let silent: Vec<NodeId> =
                    self.election.alive(now).into_iter().filter(|node| gather.waiting.contains(node)).collect();
                self.place_again(now, entry, ticket, &put, &gather.answers, silent.first().copied());
            }
        }
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
