//! Questions to all reachable nodes, and the combination of their answers.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ClientId, Node, Output,
    leading::Wish,
    message::{Answer, FOUND_MAX, Holding, LIST_BYTES_MAX, LIST_MAX, Message, Question, Reply},
    metrics::Outcome,
};
use crate::{
    peer::{NodeId, RequestId},
    store::{Entry, Loss, Name},
};
use omb_machine::time::Instant;

/// An open question.
#[derive(Debug)]
pub(super) struct Gather {
    pub(super) purpose: Purpose,
    /// The nodes that have not answered.
    pub(super) waiting: BTreeSet<NodeId>,
    /// When to continue without them.
    pub(super) until: Instant,
    pub(super) answers: BTreeMap<NodeId, Answer>,
}

/// What it was asked for.
#[derive(Debug)]
pub(super) enum Purpose {
    List { client: ClientId, after: Option<RequestId>, share: Share },
    Status { client: ClientId },
    Get { client: ClientId, name: Name },
    Find { client: ClientId, bytes: usize },
    Place(Wish),
}

/// Each node's part of one page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) most: usize,
    /// Counted by [`Entry::cost`]. One upload always fits.
    pub(super) bytes: usize,
}

impl Share {
    /// The first that fit, and whether there are more.
    fn of<T>(self, all: impl Iterator<Item = T>, cost: impl Fn(&T) -> usize) -> (Vec<T>, bool) {
        let (mut taken, mut bytes) = (Vec::new(), 0_usize);
        for one in all {
            bytes = bytes.saturating_add(cost(&one));
            if taken.len() >= self.most.max(1) || (bytes > self.bytes && !taken.is_empty()) {
                return (taken, true);
            }
            taken.push(one);
        }
        (taken, false)
    }
}

impl Gather {
    /// Takes an answer, once from each node that was asked; returns whether it was the last.
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
    pub(super) fn answer(&mut self, now: Instant, question: &Question) -> Answer {
        let size = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
        match question {
            Question::Holder { id, asked, label } => {
                let stored = match label {
                    Some(label) => self.store.claim(*id, label),
                    None => self.store.held(*id),
                };
                Answer::Holds(match stored {
                    Some(stored) => Holding::Held(stored),
                    None if self.is_passing(*id, Some(*asked)) => Holding::Perhaps,
                    // It may never find out, and what it holds is as unavailable as that of a dead node. One such disk
                    // must not keep every retry in the cluster from being placed.
                    None if self.store.is_blind() => Holding::No,
                    None if self.store.is_under_way(*id) => Holding::Perhaps,
                    None if !self.store.is_ready() => Holding::Unread,
                    None => match self.store.lost(*id) {
                        Some((entry, loss)) => Holding::Lost(Box::new(entry.clone()), loss),
                        None => Holding::No,
                    },
                })
            }
            Question::List { .. } | Question::Find { .. } if !self.store.is_ready() => Answer::Unread,
            Question::List { after, most, bytes } => {
                let share = Share { most: size(*most).min(LIST_MAX), bytes: size(*bytes).min(LIST_BYTES_MAX) };
                let (uploads, more) = share.of(self.store.after(*after), |entry| entry.cost());
                let lost = self.store.count_lost(Loss::Gone) + self.store.count_lost(Loss::Damaged);
                Answer::List { uploads: uploads.into_iter().cloned().collect(), more, lost }
            }
            Question::Find { sought, bytes } => {
                let share = Share { most: FOUND_MAX, bytes: size(*bytes).min(LIST_BYTES_MAX) };
                let (uploads, more) = share.of(self.store.find(sought), |(entry, _)| entry.cost());
                let uploads = uploads.into_iter().map(|(entry, loss)| (entry.clone(), loss)).collect();
                Answer::Found { uploads, more }
            }
            Question::Status => Answer::Status(Box::new(self.account(now))),
        }
    }

    /// The reply that an upload of this name was stored here and is lost.
    pub(super) fn lost_here(&self, name: Name) -> Option<Reply> {
        let (entry, loss) = self.store.lost(name.id).filter(|(entry, _)| entry.stored.name == name)?;
        Some(Reply::Lost { node: self.me, entry: Box::new(entry.clone()), loss })
    }

    /// Bytes of uploads that each node may answer with.
    fn bytes_each(&self) -> usize {
        LIST_BYTES_MAX / self.config.peers.ids().len()
    }

    /// Asks all nodes for a page of what they hold, each for a share, so that the shares add up to one page.
    pub(super) fn list(&mut self, now: Instant, client: ClientId, after: Option<RequestId>) {
        let share = Share { most: LIST_MAX / self.config.peers.ids().len(), bytes: self.bytes_each() };
        let of = |size: usize| u32::try_from(size).expect("a part of a frame");
        let question = Question::List { after, most: of(share.most), bytes: of(share.bytes) };
        self.gather(now, question, Purpose::List { client, after, share });
    }

    /// Asks all nodes for their matching uploads.
    pub(super) fn find(&mut self, now: Instant, client: ClientId, sought: String) {
        let bytes = self.bytes_each();
        let question = Question::Find { sought, bytes: u32::try_from(bytes).expect("a part of a frame") };
        self.gather(now, question, Purpose::Find { client, bytes });
    }

    /// Asks all reachable nodes.
    pub(super) fn gather(&mut self, now: Instant, question: Question, purpose: Purpose) {
        let ticket = self.ticket();
        let asked: BTreeSet<NodeId> = match purpose {
            // A new leader has not heard all nodes that it can reach, and a holder that it does not ask means a copy.
            Purpose::Place(Wish { careful: true, .. }) => self.config.peers.ids().collect(),
            Purpose::Place(_) => self.unrecalled(now).collect(),
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

    /// All have answered, or the deadline has passed.
    pub(super) fn conclude(&mut self, now: Instant, ticket: u64) {
        let Some(gather) = self.gathers.remove(&ticket) else { return };
        let missing: BTreeSet<NodeId> =
            self.config.peers.ids().filter(|node| !gather.answers.contains_key(node)).collect();
        match gather.purpose {
            Purpose::List { client, after, share } => {
                let reply = listing(gather.answers, missing, after, share);
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
                    None => {
                        let lost = gather.answers.into_iter().find_map(|(node, answer)| match answer {
                            Answer::Holds(Holding::Lost(entry, loss)) if entry.stored.name == name => {
                                Some(Reply::Lost { node, entry, loss })
                            }
                            _ => None,
                        });
                        self.reply(now, client, lost.unwrap_or(Reply::NotFound));
                    }
                }
            }
            Purpose::Find { client, bytes } => {
                let reply = found(gather.answers, missing, bytes);
                self.reply(now, client, reply);
            }
            // It was assigned to a node since, or a node has recalled it: now all are asked.
            Purpose::Place(Wish { entry, ticket, put, careful: false, overtaken })
                if overtaken || self.knows(put.id) =>
            {
                self.place(now, entry, ticket, put);
            }
            Purpose::Place(wish) => {
                let silent = self.reachable(now).into_iter().find(|node| gather.waiting.contains(node));
                self.place_asked(now, wish, &gather.answers, silent);
            }
        }
    }
}

/// A page: which node holds what, and how many uploads are on several.
fn listing(
    answers: BTreeMap<NodeId, Answer>,
    mut missing: BTreeSet<NodeId>,
    after: Option<RequestId>,
    share: Share,
) -> Reply {
    let mut uploads: Vec<(NodeId, Entry)> = Vec::new();
    let mut next: Option<RequestId> = None;
    let mut lost = BTreeMap::new();
    for (node, answer) in answers {
        let Answer::List { uploads: mut listed, more, lost: gone } = answer else {
            missing.insert(node);
            continue;
        };
        if gone > 0 {
            lost.insert(node, gone);
        }
        // Whatever a node reports, a page is one frame, and the next one begins further on.
        listed.retain(|entry| Some(entry.stored.name.id) > after);
        listed.sort_by_key(|entry| entry.stored.name.id);
        let (listed, cut) = share.of(listed.into_iter(), Entry::cost);
        if let Some(last) = listed.last().filter(|_| more || cut) {
            let last = last.stored.name.id;
            next = Some(next.map_or(last, |next| next.min(last)));
        }
        uploads.extend(listed.into_iter().map(|entry| (node, entry)));
    }
    // Beyond what each node has reported, the holders are not all known.
    uploads.retain(|(_, entry)| next.is_none_or(|next| entry.stored.name.id <= next));
    uploads.sort_by_key(|(node, entry)| (entry.stored.name.id, *node));
    let copies = uploads.chunk_by(|(_, one), (_, other)| one.stored.name.id == other.stored.name.id);
    let copies = copies.filter(|holders| holders.len() > 1).count() as u64;
    Reply::Listing { uploads, copies, next, missing, lost }
}

/// What all nodes have found.
fn found(answers: BTreeMap<NodeId, Answer>, mut missing: BTreeSet<NodeId>, bytes: usize) -> Reply {
    let (mut uploads, mut others) = (Vec::new(), false);
    for (node, answer) in answers {
        let Answer::Found { uploads: found, more } = answer else {
            missing.insert(node);
            continue;
        };
        let (found, cut) = Share { most: FOUND_MAX, bytes }.of(found.into_iter(), |(entry, _)| entry.cost());
        others |= more || cut;
        uploads.extend(found.into_iter().map(|(entry, loss)| (node, entry, loss)));
    }
    uploads.sort_by_key(|(node, entry, _)| (entry.stored.name.id, *node));
    others |= uploads.len() > FOUND_MAX;
    uploads.truncate(FOUND_MAX);
    Reply::Found { uploads, more: others, missing }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        client::listing::Listing,
        node::message::Request,
        peer::Digest,
        store::{Kind, Stored},
    };

    fn entry(id: u128) -> Entry {
        let name = Name { id: RequestId(id), digest: Digest([0; 32]), kind: Kind::Bin };
        Entry { stored: Stored { name, bytes: 7 }, label: None }
    }

    proptest! {
        /// Page by page, everything is listed once, and what is on several nodes is recognized as such.
        #[test]
        fn pages_are_the_whole(
            held in prop::collection::vec(prop::collection::btree_set(0..300_u128, 0..100), 1..5),
            most in 1..20_usize,
            bytes in 0..1_000_usize,
        ) {
            let share = Share { most, bytes };
            let most = most.min((bytes / entry(0).cost()).max(1));
            let (mut listing, mut pages) = (Listing::default(), 0);
            loop {
                let Request::List { after } = listing.request() else { unreachable!("it lists") };
                let answer = |ids: &BTreeSet<u128>| {
                    let mut ids = ids.iter().copied().filter(|id| Some(RequestId(*id)) > after);
                    let (uploads, more) = share.of(ids.by_ref().map(entry), Entry::cost);
                    Answer::List { uploads, more, lost: 0 }
                };
                let answers = (1..).map(NodeId).zip(held.iter().map(answer)).collect();
                pages += 1;
                if !listing.take(&listing_of(answers, after, share)).expect("the next page") {
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

    fn listing_of(answers: BTreeMap<NodeId, Answer>, after: Option<RequestId>, share: Share) -> Reply {
        listing(answers, BTreeSet::new(), after, share)
    }

    /// A node that reports more than it was asked for, out of order, or again, neither breaks a page nor its bound.
    #[test]
    fn whatever_a_node_tells_a_page_is_bounded() {
        for share in [Share { most: 2, bytes: 10_000 }, Share { most: 9, bytes: 2 * entry(0).cost() }] {
            let answer = Answer::List { uploads: [9, 4, 5, 1, 7].map(entry).to_vec(), more: false, lost: 3 };
            let reply =
                listing_of([(NodeId(1), answer), (NodeId(2), Answer::Unread)].into(), Some(RequestId(4)), share);
            let Reply::Listing { uploads, copies, next, missing, lost } = reply else { panic!("a listing") };
            let ids: Vec<u128> = uploads.iter().map(|(_, entry)| entry.stored.name.id.0).collect();
            assert_eq!((ids, copies, next, missing), (vec![5, 7], 0, Some(RequestId(7)), [NodeId(2)].into()));
            assert_eq!(lost, [(NodeId(1), 3)].into());
        }
    }
}
