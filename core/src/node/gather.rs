//! Questions to all nodes that can be reached, and what their answers add up to.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ClientId, Node, Output,
    message::{Answer, Holding, LIST_MAX, Message, Put, Question, Reply},
    metrics::Outcome,
};
use crate::{
    peer::{NodeId, RequestId},
    store::{Name, Stored},
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
    List { client: ClientId, after: Option<RequestId>, most: usize },
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
    pub(super) fn answer(&self, now: Instant, question: &Question) -> Answer {
        match question {
            Question::Who { id, asked } => Answer::Holds(match self.store.held(*id) {
                Some(stored) => Holding::Held(stored),
                None if self.is_passing(*id, Some(*asked)) => Holding::Perhaps,
                // It may never find out, and a retry must not wait for that.
                None if self.store.is_blind() => Holding::No,
                None if self.store.is_under_way(*id) || !self.store.is_ready() => Holding::Perhaps,
                None => Holding::No,
            }),
            Question::List { .. } if !self.store.is_ready() => Answer::Unread,
            Question::List { after, most } => {
                let most = usize::try_from(*most).map_or(LIST_MAX, |most| most.min(LIST_MAX));
                let mut held = self.store.after(*after);
                let uploads = held.by_ref().take(most).collect();
                Answer::List { uploads, more: held.next().is_some() }
            }
            Question::Status => Answer::Status(Box::new(self.account(now))),
        }
    }

    /// Asks all nodes for a page of what they hold, so much each that it is one page together.
    pub(super) fn list(&mut self, now: Instant, client: ClientId, after: Option<RequestId>) {
        let most = LIST_MAX / self.config.peers.ids().len();
        let question = Question::List { after, most: u32::try_from(most).expect("below LIST_MAX") };
        self.gather(now, question, Purpose::List { client, after, most });
    }

    /// Asks all nodes that can be reached.
    pub(super) fn gather(&mut self, now: Instant, question: Question, purpose: Purpose) {
        let ticket = self.ticket();
        let others: BTreeSet<NodeId> = self.election.alive(now).into_iter().filter(|node| *node != self.me).collect();
        for node in &others {
            self.send(*node, Message::Ask { ticket, question: question.clone() });
        }
        let own = (self.me, self.answer(now, &question));
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
            Purpose::List { client, after, most } => {
                let reply = listing(gather.answers, missing, after, most);
                self.reply(now, client, reply);
            }
            Purpose::Status { client } => {
                let status = Box::new(self.cluster_status(now, gather.answers));
                self.reply(now, client, Reply::Status(status));
            }
            Purpose::Get { client, name } => {
                let holds = |answer: &Answer| matches!(answer, Answer::Holds(Holding::Held(s)) if s.name == name);
                match gather.answers.iter().find(|(_, answer)| holds(answer)) {
                    Some((node, _)) => {
                        self.count(now, client, Outcome::PassedOn);
                        self.outputs.push_back(Output::Fetch { client, from: *node, name });
                    }
                    None => self.reply(now, client, Reply::NotFound),
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

/// A page: which node holds what, and how many uploads lie on several.
fn listing(
    answers: BTreeMap<NodeId, Answer>,
    mut missing: BTreeSet<NodeId>,
    after: Option<RequestId>,
    most: usize,
) -> Reply {
    let mut uploads: Vec<(NodeId, Stored)> = Vec::new();
    let mut next: Option<RequestId> = None;
    for (node, answer) in answers {
        let Answer::List { uploads: mut told, more } = answer else {
            missing.insert(node);
            continue;
        };
        // Whatever a node tells, a page is one frame, and the next one begins further on.
        told.retain(|stored| Some(stored.name.id) > after);
        told.sort_by_key(|stored| stored.name.id);
        let more = more || told.len() > most;
        told.truncate(most);
        if let Some(last) = told.last().filter(|_| more) {
            next = Some(next.map_or(last.name.id, |next| next.min(last.name.id)));
        }
        uploads.extend(told.into_iter().map(|stored| (node, stored)));
    }
    // Beyond what a node has told of, nobody knows all holders.
    uploads.retain(|(_, stored)| next.is_none_or(|next| stored.name.id <= next));
    uploads.sort_by_key(|(node, stored)| (stored.name.id, *node));
    let copies = uploads.chunk_by(|(_, one), (_, other)| one.name.id == other.name.id);
    let copies = copies.filter(|holders| holders.len() > 1).count() as u64;
    Reply::Listing { uploads, copies, next, missing }
}
