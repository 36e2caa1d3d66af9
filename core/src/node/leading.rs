//! What a leader does: its books of who was given what, and to whom it gives the next upload.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    peer::{Leadership, NodeId, RequestId},
    routing::{End, Router},
    time::Instant,
};

use super::{
    Node, Output,
    gather::Purpose,
    message::{Answer, Holding, Message, Put, Question, Reply},
};

/// How often a leader takes its census.
const CENSUS_EVERY: Duration = Duration::from_secs(1);

/// After this long an upload that nobody speaks of any more is off the leader's books.
const PLACEMENT_MAX: Duration = Duration::from_secs(600);

/// What only a leader keeps.
#[derive(Debug)]
pub(super) struct Leading {
    pub(super) of: Leadership,
    pub(super) router: Router,
    /// What nodes have reported, until the books are opened.
    pub(super) census: Option<Census>,
    pub(super) placements: BTreeMap<RequestId, Placement>,
    pub(super) asked: Instant,
}

#[derive(Debug)]
pub(super) struct Census {
    pub(super) until: Instant,
    pub(super) reports: BTreeMap<NodeId, Report>,
}

/// What a node says that it was given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    /// The greater of what leaders have said and what it stores.
    pub(super) level: u64,
    /// What it stores.
    pub(super) stored: u64,
}

/// Uploads that a node may have been given beyond what any node has stored: those that failed, or are under way.
const LEVEL_SLACK: u64 = 1_024;

/// The levels to begin with. What a node stores it knows best; what it was told beyond that can be no more than some node
/// has stored, so nobody is taken out of the books by a number that nothing stands behind.
fn levels(reports: &BTreeMap<NodeId, Report>) -> BTreeMap<NodeId, u64> {
    let most = reports.values().map(|report| report.stored).max().unwrap_or(0) + LEVEL_SLACK;
    reports.iter().map(|(node, report)| (*node, report.level.min(most).max(report.stored))).collect()
}

#[derive(Debug)]
pub(super) struct Placement {
    pub(super) node: NodeId,
    pub(super) entry: NodeId,
    pub(super) begun: Instant,
}

impl Node {
    /// Leads from here on: asks who holds how much.
    pub(super) fn lead(&mut self, now: Instant, of: Leadership) {
        let own = Report { level: self.level, stored: self.store.count() };
        let census = Census { until: now + self.config.timing.answer, reports: [(self.me, own)].into() };
        self.leading = Some(Leading {
            of,
            router: Router::new(self.config.policy, self.seed),
            census: Some(census),
            placements: BTreeMap::new(),
            asked: now,
        });
        self.send_to_all(&Message::Census { of, level: None });
        self.open_books(now);
    }

    /// As the leader: says who takes an upload.
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
        if put.again {
            let question = Question::Who { id, asked: Some((entry, ticket)), label: Some(put.label.clone()) };
            return self.gather(now, question, Purpose::Place { entry, ticket, put });
        }
        if leading.placements.contains_key(&id) {
            return refuse(self, "this upload is under way");
        }
        self.assign(now, entry, ticket, &put);
    }

    pub(super) fn assign(&mut self, now: Instant, entry: NodeId, ticket: u64, put: &Put) {
        let Some(leading) = &mut self.leading else { return };
        // Where all have failed, they are tried again, for a disk may have room again; and if not, the client hears why
        // instead of hearing that nobody is left.
        let router = &mut leading.router;
        let outcome = match router.assign(now, &put.excluded).or_else(|| router.assign(now, &BTreeSet::new())) {
            Some(node) => {
                leading.placements.insert(put.id, Placement { node, entry, begun: now });
                let total = leading.router.loads().find(|load| load.node == node).map_or(0, |load| load.assigned);
                *self.counts.assigned.entry(node).or_default() += 1;
                let policy = self.config.policy;
                self.outputs.push_back(Output::Recorded { policy, node, total });
                Ok(node)
            }
            None => {
                let reason = "no node can be reached that could take it".to_owned();
                Err(Reply::Retry { reason, excluded: None, leader: Some(self.me) })
            }
        };
        self.placed(now, entry, ticket, put.id, outcome);
    }

    /// As the leader: tells the entry what was decided.
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
        }
    }

    /// As the leader: a node says how much it was given.
    pub(super) fn on_report(&mut self, now: Instant, from: NodeId, of: Leadership, report: Report) {
        let alive = self.election.alive(now);
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.of == of) else { return };
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

    /// As a new leader: begins to place once all that may be there have reported, or have had their time. Lower nodes are
    /// waited for although they were not heard yet, or it would give the first uploads to itself alone; higher ones have
    /// let it lead, so they are not there.
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

    /// As the leader: nodes that are gone get nothing, nodes that came are asked how much they hold.
    pub(super) fn watch_members(&mut self, now: Instant) {
        let alive = self.election.alive(now);
        let Some(leading) = &mut self.leading else { return };
        let gone: Vec<NodeId> =
            leading.router.loads().map(|load| load.node).filter(|node| !alive.contains(node)).collect();
        for node in &gone {
            leading.router.leave(*node);
        }
        let router = &mut leading.router;
        leading.placements.retain(|_, placement| {
            let Placement { node, entry, begun } = placement;
            let stays = alive.contains(node) && alive.contains(entry) && now.since(*begun) < PLACEMENT_MAX;
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
        for node in gone {
            self.tell(format!("[Node {}] node {} is gone; it gets no uploads", self.me.0, node.0));
        }
    }

    /// As the leader: all that can be reached have said whether they hold an upload that was tried before.
    pub(super) fn place_again(
        &mut self,
        now: Instant,
        entry: NodeId,
        ticket: u64,
        put: &Put,
        answers: &BTreeMap<NodeId, Answer>,
        silent: Option<NodeId>,
    ) {
        let held = answers.iter().find_map(|(node, answer)| match answer {
            Answer::Holds(Holding::Held(stored)) => Some((*node, *stored)),
            _ => None,
        });
        let perhaps = answers.iter().find(|(_, answer)| **answer == Answer::Holds(Holding::Perhaps));
        let leader = Some(self.me);
        let wait = |reason| Reply::Retry { reason, excluded: None, leader };
        let reply = match (held, perhaps, silent) {
            (Some((node, stored)), ..) => Reply::Stored { node, stored },
            (None, Some((node, _)), _) => wait(format!("node {} may be storing this upload right now", node.0)),
            (None, None, Some(node)) => wait(format!("node {} did not say whether it holds this upload", node.0)),
            (None, None, None) if self.router().is_none() || !self.election.serves(now) => {
                wait("the leader changed meanwhile".to_owned())
            }
            (None, None, None) => {
                // A former try is over, and word of it was lost.
                if let Some(leading) = &mut self.leading
                    && let Some(former) = leading.placements.remove(&put.id)
                {
                    leading.router.finish(now, former.node, now.since(former.begun), End::Unknown);
                }
                return self.assign(now, entry, ticket, put);
            }
        };
        self.placed(now, entry, ticket, put.id, Err(reply));
    }
}
