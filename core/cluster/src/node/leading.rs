//! What a leader does: it keeps books of which node was assigned what, and decides which node gets the next upload.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::Rng as _;

use crate::{
    peer::{Leadership, NodeId, RequestId},
    routing::{End, Router},
    store::Stored,
};
use omb_machine::{seed::Seed, time::Instant};

use super::{
    Node, Output,
    gather::{Gather, Purpose},
    known::Known,
    message::{Answer, Holding, Message, Put, Question, RECALLED_MAX, Reply},
};

/// How often a leader takes its census.
const CENSUS_EVERY: Duration = Duration::from_secs(1);

/// After this long without news of an upload, it is removed from the leader's books.
const PLACEMENT_MAX: Duration = Duration::from_secs(600);

/// State that only a leader keeps.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) of: Leadership,
    pub(super) router: Router,
    /// What nodes have reported, until the books are opened.
    pub(super) census: Option<Census>,
    pub(super) placements: BTreeMap<RequestId, Placement>,
    /// Uploads that it has assigned to nodes, and those that nodes recalled.
    pub(super) known: Known,
    /// How far each node has recalled what it holds. What it stores beyond that, it stores by order of this leadership,
    /// so once is enough: as soon as a newer one gives orders, this one is over.
    pub(super) recalls: BTreeMap<NodeId, Recall>,
    pub(super) asked: Instant,
}

/// How far a node has recalled what it holds.
#[derive(Debug)]
pub(super) struct Recall {
    /// Everything up to this id is known; nothing if there is none.
    after: Option<RequestId>,
    asked: Instant,
    whole: bool,
    /// When it last reported to this leader.
    reported: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Census {
    pub(super) until: Instant,
    pub(super) reports: BTreeMap<NodeId, Report>,
}

/// A node's report of how much it was assigned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// The greater of what leaders have reported and what it stores.
    pub(super) level: u64,
    /// What it stores.
    pub(super) stored: u64,
}

/// Uploads that a node may have been assigned beyond what any node has stored: those that failed, or are in flight.
const LEVEL_SLACK: u64 = 1_024;

/// The initial levels. A node knows best what it stores; a level beyond that can be no more than some node has stored,
/// so that no unfounded number takes a node out of the books.
fn levels(reports: &BTreeMap<NodeId, Report>) -> BTreeMap<NodeId, u64> {
    let most = reports.values().map(|report| report.stored).max().unwrap_or(0) + LEVEL_SLACK;
    reports.iter().map(|(node, report)| (*node, report.level.min(most).max(report.stored))).collect()
}

#[derive(Debug)]
pub(super) struct Placement {
    pub(super) node: NodeId,
    pub(super) entry: NodeId,
    /// The entry's number for it.
    pub(super) ticket: u64,
    pub(super) begun: Instant,
}

/// A client's upload that this leader is asked to place.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) entry: NodeId,
    /// The entry's number for it.
    pub(super) ticket: u64,
    pub(super) put: Put,
    /// Whether a node may hold the upload, by what the client says or this leader knows. Then all nodes are asked, and
    /// nothing is placed before all reachable ones have said no. Otherwise only nodes that have not recalled all that
    /// they hold are asked, and an unread one is not waited for: starting nodes would keep every upload from being
    /// placed.
    pub(super) careful: bool,
    /// Whether the same upload was assigned to a node, or stored by one, since they were asked.
    pub(super) overtaken: bool,
}

impl Node {
    /// Leads from now on: asks all nodes how much they hold.
    pub(super) fn lead(&mut self, now: Instant, of: Leadership) {
        let own = Report { level: self.level, stored: self.store.count() };
        let census = Census { until: now + self.config.timing.answer, reports: [(self.me, own)].into() };
        self.leading = Some(Leading {
            of,
            router: Router::new(self.config.policy, self.seed),
            census: Some(census),
            placements: BTreeMap::new(),
            known: Known::new(Seed(self.seed.stream("known uploads").next_u64())),
            recalls: BTreeMap::new(),
            asked: now,
        });
        self.send_to_all(&Message::Census { of, level: None });
        self.recall(now, self.config.peers.ids().collect());
        self.open_books(now);
    }

    /// As the leader: decides which node takes an upload.
    pub(super) fn place(&mut self, now: Instant, entry: NodeId, ticket: u64, put: Put) {
        let id = put.id;
        let refuse = |node: &mut Self, reason: &str| {
            let leader = node.leader();
            let reply = Reply::Retry { reason: reason.to_owned(), excluded: None, leader };
            node.placed(now, entry, ticket, id, Err(reply));
        };
        if let Some(hindrance) = self.hindrance(now) {
            return refuse(self, &format!("{} places no uploads: {hindrance}", self.me));
        }
        let serves = self.election.serves(now);
        let Some(leading) = self.leading.as_ref().filter(|_| serves) else {
            return refuse(self, &format!("{} does not lead", self.me));
        };
        let placement = leading.placements.get(&id);
        if placement.is_some_and(|placement| (placement.entry, placement.ticket) == (entry, ticket)) {
            // A duplicate: a message may arrive twice.
            return;
        }
        let careful = put.again || self.knows(id);
        if careful || self.unrecalled(now).next().is_some() {
            let question = Question::Holder { id, asked: Some((entry, ticket)), label: Some(put.label.clone()) };
            let wish = Wish { entry, ticket, put, careful, overtaken: false };
            return self.gather(now, question, Purpose::Place(wish));
        }
        self.assign(now, entry, ticket, &put);
    }

    /// As the leader: whether a node may hold this upload, or be about to.
    pub(super) fn knows(&self, id: RequestId) -> bool {
        self.leading.as_ref().is_some_and(|leading| leading.known.contains(id)) || self.store.has_seen(id)
    }

    /// As the leader: reachable nodes that have not recalled all that they hold.
    pub(super) fn unrecalled(&self, now: Instant) -> impl Iterator<Item = NodeId> {
        let recalls = self.leading.as_ref().map(|leading| &leading.recalls);
        let whole = move |node: &NodeId| recalls.is_some_and(|it| it.get(node).is_some_and(|recall| recall.whole));
        // Without faults all have, and then the reachable nodes do not matter.
        let all = self.config.peers.ids().all(|node| node == self.me || whole(&node));
        let reachable = if all { BTreeSet::new() } else { self.reachable(now) };
        reachable.into_iter().filter(move |node| *node != self.me && !whole(node))
    }

    /// As the leader: nodes that were heard within the suspicion time, by a ballot or by a report. A node answers the
    /// first census at once, but sends its first ballot under a new leadership only after it has stored it.
    pub(super) fn reachable(&self, now: Instant) -> BTreeSet<NodeId> {
        let mut reachable = self.election.alive(now);
        let suspicion = self.config.timing.suspicion;
        let recent = |recall: &Recall| recall.reported.is_some_and(|at| now.since(at) < suspicion);
        let recalls = self.leading.as_ref().map(|leading| &leading.recalls);
        let reported = recalls.into_iter().flatten().filter(|(_, recall)| recent(recall));
        reachable.extend(reported.map(|(node, _)| *node));
        reachable
    }

    /// As the leader: asks these nodes to continue recalling what they hold.
    fn recall(&mut self, now: Instant, nodes: BTreeSet<NodeId>) {
        let Some(leading) = &mut self.leading else { return };
        let of = leading.of;
        let mut asked = Vec::new();
        for node in nodes.into_iter().filter(|node| *node != self.me) {
            let recall =
                leading.recalls.entry(node).or_insert(Recall { after: None, asked: now, whole: false, reported: None });
            recall.asked = now;
            asked.push((node, Message::Recall { of, after: recall.after }));
        }
        asked.into_iter().for_each(|(node, message)| self.send(node, message));
    }

    /// A leader asks which uploads this node has seen.
    pub(super) fn on_recall(&mut self, from: NodeId, of: Leadership, after: Option<RequestId>) {
        // A node that would still take orders of an earlier leader, or is unread, does not know what it will hold.
        if of.leader == Some(from) && self.election.newest() >= of && self.store.is_ready() {
            let (ids, more) = self.store.seen_after(after, RECALLED_MAX);
            self.send(from, Message::Recalled { of, after, ids, more });
        }
    }

    /// As the leader: a page of what a node has seen.
    pub(super) fn on_recalled(
        &mut self,
        now: Instant,
        from: NodeId,
        of: Leadership,
        after: Option<RequestId>,
        ids: &[RequestId],
        more: bool,
    ) {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.of == of) else { return };
        let recall = leading.recalls.get_mut(&from).filter(|recall| recall.after == after && !recall.whole);
        let Some(recall) = recall else { return };
        let last = ids.iter().max().copied();
        if more && last <= after {
            return self.disbelieve(now, from, "that it holds more uploads, without naming them");
        }
        ids.iter().for_each(|id| leading.known.insert(*id));
        recall.whole = !more;
        if more {
            recall.after = last;
            self.recall(now, [from].into());
        }
    }

    pub(super) fn assign(&mut self, now: Instant, entry: NodeId, ticket: u64, put: &Put) {
        let Some(leading) = &mut self.leading else { return };
        // If all have failed, they are tried again, for a disk may have room again; and if not, the client gets the
        // reason instead of a reply that no node is left.
        let router = &mut leading.router;
        let outcome = match router.assign(now, &put.excluded).or_else(|| router.assign(now, &BTreeSet::new())) {
            Some(node) => {
                leading.placements.insert(put.id, Placement { node, entry, ticket, begun: now });
                leading.known.insert(put.id);
                let total = leading.router.loads().find(|load| load.node == node).map_or(0, |load| load.assigned);
                *self.counts.assigned.entry(node).or_default() += 1;
                let policy = self.config.policy;
                self.outputs.push_back(Output::Recorded { policy, node, total });
                self.overtake(put.id);
                Ok(node)
            }
            None => {
                let reason = "no node can be reached that could take it".to_owned();
                Err(Reply::Retry { reason, excluded: None, leader: Some(self.me) })
            }
        };
        self.placed(now, entry, ticket, put.id, outcome);
    }

    /// Answers about this upload so far are outdated.
    fn overtake(&mut self, id: RequestId) {
        for Gather { purpose, .. } in self.gathers.values_mut() {
            if let Purpose::Place(wish) = purpose {
                wish.overtaken |= wish.put.id == id;
            }
        }
    }

    /// As the leader: sends the decision to the entry.
    pub(super) fn placed(
        &mut self,
        now: Instant,
        entry: NodeId,
        ticket: u64,
        id: RequestId,
        outcome: Result<NodeId, Reply>,
    ) {
        let leadership = self.leading.as_ref().map_or(self.election.durable(), |leading| leading.of);
        let outcome = outcome.map_err(Box::new);
        if entry == self.me {
            self.on_placed(now, self.me, ticket, id, leadership, outcome);
        } else {
            self.send(entry, Message::Placed { ticket, id, leadership, outcome });
        }
    }

    /// As the leader: an upload has ended.
    pub(super) fn on_finished(&mut self, now: Instant, entry: NodeId, id: RequestId, node: NodeId, end: End) {
        let Some(leading) = &mut self.leading else { return };
        let same = |placement: &&Placement| placement.node == node && placement.entry == entry;
        if let Some(begun) = leading.placements.get(&id).filter(same).map(|placement| placement.begun) {
            leading.placements.remove(&id);
            leading.router.finish(now, node, now.since(begun), end);
            // A node that was asked before may have denied what it holds now.
            self.overtake(id);
        }
    }

    /// As the leader: a node reports how much it was assigned.
    pub(super) fn on_report(&mut self, now: Instant, from: NodeId, of: Leadership, report: Report) {
        let alive = self.election.alive(now);
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.of == of) else { return };
        if let Some(recall) = leading.recalls.get_mut(&from) {
            recall.reported = Some(now);
        }
        match &mut leading.census {
            Some(census) => {
                census.reports.insert(from, report);
                self.open_books(now);
            }
            None if alive.contains(&from) => {
                let most = leading.router.loads().map(|load| load.assigned).max().unwrap_or(0) + LEVEL_SLACK;
                leading.router.join(now, from, report.level.min(most).max(report.stored));
            }
            None => {}
        }
    }

    /// As a new leader: begins to place once all nodes that may be reachable have reported, or the deadline has passed.
    /// Lower nodes are waited for although they were not heard yet, or it would assign the first uploads to itself
    /// alone; higher ones have let it lead, so they are not reachable.
    pub(super) fn open_books(&mut self, now: Instant) {
        let mut awaited = self.election.alive(now);
        awaited.extend(self.config.peers.ids().filter(|node| *node < self.me));
        let Some(leading) = &mut self.leading else { return };
        if let Some(census) = &leading.census
            && (census.until <= now || awaited.iter().all(|node| census.reports.contains_key(node)))
        {
            leading.router.begin(now, &levels(&census.reports));
            leading.census = None;
        }
    }

    /// As the leader: nodes that are gone get nothing, nodes that joined are asked how much they hold.
    pub(super) fn watch_members(&mut self, now: Instant) {
        let alive = self.reachable(now);
        let Some(leading) = &mut self.leading else { return };
        let gone: Vec<NodeId> =
            leading.router.loads().map(|load| load.node).filter(|node| !alive.contains(node)).collect();
        for node in &gone {
            leading.router.leave(*node);
        }
        let (router, suspicion) = (&mut leading.router, self.config.timing.suspicion);
        leading.placements.retain(|_, placement| {
            let Placement { node, entry, begun, .. } = placement;
            // An entry that asks is reachable, although its first ballot under this leadership may still be in flight.
            let reports = alive.contains(entry) || now.since(*begun) < suspicion;
            let stays = alive.contains(node) && reports && now.since(*begun) < PLACEMENT_MAX;
            if !stays {
                router.finish(now, *node, now.since(*begun), End::Unknown);
            }
            stays
        });
        let known: BTreeMap<NodeId, u64> = leading.router.loads().map(|load| (load.node, load.assigned)).collect();
        self.level = self.level.max(known.get(&self.me).copied().unwrap_or(0));
        let all = now.since(leading.asked) >= CENSUS_EVERY;
        if all {
            leading.asked = now;
        }
        let of = leading.of;
        if leading.census.is_none() {
            for node in alive {
                let level = known.get(&node).copied();
                if node != self.me && (all || level.is_none()) {
                    self.send(node, Message::Census { of, level });
                }
            }
        }
        let due = |node: &NodeId| {
            let recalls = self.leading.as_ref().map(|leading| &leading.recalls);
            let asked = recalls.and_then(|recalls| recalls.get(node)).map(|recall| recall.asked);
            asked.is_none_or(|asked| now.since(asked) >= self.config.timing.answer)
        };
        let due = self.unrecalled(now).filter(due).collect();
        self.recall(now, due);
        for node in gone {
            self.info(format!("[Node {}] node {} is gone; it gets no uploads", self.me.0, node.0));
        }
    }

    /// As the leader: all that were asked whether they hold an upload have answered, or the deadline has passed.
    pub(super) fn place_asked(
        &mut self,
        now: Instant,
        wish: Wish,
        answers: &BTreeMap<NodeId, Answer>,
        silent: Option<NodeId>,
    ) {
        let Wish { entry, ticket, put, careful, overtaken } = wish;
        let first_with = |wanted: fn(&Holding) -> bool| {
            let mut answers = answers.iter();
            answers.find(|(_, answer)| matches!(answer, Answer::Holds(it) if wanted(it))).map(|(node, _)| *node)
        };
        let held = answers.iter().find_map(|(node, answer)| match answer {
            Answer::Holds(Holding::Held(stored)) => Some((*node, *stored)),
            _ => None,
        });
        let unread = first_with(|it| *it == Holding::Unread).filter(|_| careful);
        let leader = Some(self.me);
        let wait = |reason| Reply::Retry { reason, excluded: None, leader };
        let reply = if let Some((node, stored)) = held {
            as_stored(node, stored, &put)
        } else if let Some(node) = first_with(|it| *it == Holding::Perhaps) {
            wait(format!("node {} may be storing this upload right now", node.0))
        } else if let Some(node) = unread {
            wait(format!("node {} has not read its folder, and does not know whether it holds this upload", node.0))
        } else if let Some(node) = silent {
            wait(format!("node {} did not say whether it holds this upload", node.0))
        } else if self.router().is_none() || !self.election.serves(now) {
            wait("the leader changed meanwhile".to_owned())
        } else if overtaken || self.store.held(put.id).is_some() || self.store.is_under_way(put.id) {
            wait("this upload was given to a node meanwhile".to_owned())
        } else {
            // A former try is over, and the message about it was lost.
            if let Some(leading) = &mut self.leading
                && let Some(former) = leading.placements.remove(&put.id)
            {
                leading.router.finish(now, former.node, now.since(former.begun), End::Unknown);
            }
            return self.assign(now, entry, ticket, &put);
        };
        self.placed(now, entry, ticket, put.id, Err(reply));
    }
}

/// The reply to a client whose upload is stored already. One of another size is not one of its tries.
pub(super) fn as_stored(node: NodeId, stored: Stored, put: &Put) -> Reply {
    if stored.bytes == put.bytes {
        return Reply::Stored { node, stored };
    }
    let (id, bytes, other) = (put.id, put.bytes, stored.bytes);
    Reply::Refused(format!(
        "{id} names an upload of {other} bytes, and this one has {bytes}: it needs an id of its own"
    ))
}
