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
                // It may never find out, and what it holds can be had as little as that of a dead node. One such disk
                // must not keep every retry in the cluster from being placed.
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
        let asked: BTreeSet<NodeId> = match purpose {
            // A leader that is new has not heard of all that it can reach, and a holder that it does not ask makes a copy.
            Purpose::Place { .. } => self.config.peers.ids().collect(),
            _ => self.election.alive(now),
        };
        let others: BTreeSet<NodeId> = asked.into_iter().filter(|node| *node != self.me).collect();
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        client::listing::Listing,
        node::message::Request,
        peer::Digest,
        store::{Kind, Name},
    };

    fn stored(id: u128) -> Stored {
        Stored { name: Name { id: RequestId(id), digest: Digest([0; 32]), kind: Kind::Bin }, bytes: 7 }
    }

    proptest! {
        /// Page by page, everything is listed once, and what lies on several nodes is known as such.
        #[test]
        fn pages_are_the_whole(
            held in prop::collection::vec(prop::collection::btree_set(0..300_u128, 0..100), 1..5),
            most in 1..20_usize,
        ) {
            let (mut listing, mut pages) = (Listing::default(), 0);
            loop {
                let Request::List { after } = listing.request() else { unreachable!("it lists") };
                let answer = |ids: &BTreeSet<u128>| {
                    let mut ids = ids.iter().copied().filter(|id| Some(RequestId(*id)) > after);
                    let uploads = ids.by_ref().take(most).map(stored).collect();
                    Answer::List { uploads, more: ids.next().is_some() }
                };
                let answers = (1..).map(NodeId).zip(held.iter().map(answer)).collect();
                pages += 1;
                if !listing.take(&listing_of(answers, after, most)).expect("the next page") {
                    break;
                }
            }
            let all: BTreeSet<u128> = held.iter().flatten().copied().collect();
            let several = |id: &&u128| held.iter().filter(|ids| ids.contains(*id)).count() > 1;
            let doubled: BTreeSet<RequestId> = all.iter().filter(several).copied().map(RequestId).collect();
            prop_assert_eq!(listing.uploads, all.len() as u64);
            prop_assert_eq!(listing.doubled, doubled);
            for (node, ids) in (1..).map(NodeId).zip(&held) {
                prop_assert_eq!(listing.nodes.get(&node).map_or(0, |held| held.uploads), ids.len() as u64);
            }
            prop_assert!(pages <= all.len() / most + held.len() * all.len() / most + 1, "each page leads on");
        }
    }

    fn listing_of(answers: BTreeMap<NodeId, Answer>, after: Option<RequestId>, most: usize) -> Reply {
        listing(answers, BTreeSet::new(), after, most)
    }

    /// A node that tells more than it was asked for, in disorder, or again, neither breaks a page nor its bound.
    #[test]
    fn whatever_a_node_tells_a_page_is_bounded() {
        let told = Answer::List { uploads: [9, 4, 5, 1, 7].map(stored).to_vec(), more: false };
        let reply = listing_of([(NodeId(1), told), (NodeId(2), Answer::Unread)].into(), Some(RequestId(4)), 2);
        let Reply::Listing { uploads, copies, next, missing } = reply else { panic!("a listing") };
        let ids: Vec<u128> = uploads.iter().map(|(_, stored)| stored.name.id.0).collect();
        assert_eq!((ids, copies, next, missing), (vec![5, 7], 0, Some(RequestId(7)), [NodeId(2)].into()));
    }
}
