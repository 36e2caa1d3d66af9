//! C4: one id, one acknowledgement, at most one copy per node, several only where a holder was out of reach, counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use omb_cluster::{
    config::Timing,
    node::{
        Node, Output,
        message::{Message, Order, Reply},
    },
    peer::{Digest, Leadership, NodeId, RequestId},
    store::{Name, Step},
};
use omb_machine::time::Instant;
use omb_runtime_sim::{
    peers::{Facts, Listed, Outcome},
    portable::cluster::Limits,
};

use super::{Broken, Promise, orders::Orders};

/// See the module.
#[derive(Debug, Default)]
pub struct Once {
    /// The digest under which each upload was acknowledged.
    acknowledged: BTreeMap<RequestId, Digest>,
    orders: Orders,
    /// The leader that each node follows.
    followed: BTreeMap<NodeId, Option<Leadership>>,
    /// When each node was last seen unable to read what it holds.
    blind: BTreeMap<NodeId, Duration>,
    /// When each was last seen still reading what it holds.
    reading: BTreeMap<NodeId, Duration>,
    /// The last order to each node to take an upload.
    placed: BTreeMap<(RequestId, NodeId), Placing>,
    /// The order by which it was last written.
    written: BTreeMap<(RequestId, NodeId), Placing>,
    /// Something was renamed since the disks were last checked.
    renamed: bool,
    /// Uploads with several copies that were checked.
    several: BTreeMap<RequestId, usize>,
}

/// A leader has decided which node takes an upload.
#[derive(Clone, Debug)]
struct Placing {
    leader: NodeId,
    of: Leadership,
    at: Duration,
    /// Nodes that it could not ask, and when.
    unasked: BTreeMap<NodeId, Duration>,
    /// Nodes that did not know yet what they hold, if the client did not say that it tries again: a new leader has no
    /// reason to wait for them.
    reading: BTreeSet<NodeId>,
}

impl Placing {
    /// Whether this leader could have learned that `holder` was assigned the upload by the `earlier` order.
    fn could_ask(&self, holder: NodeId, earlier: &Self) -> bool {
        !self.unasked.contains_key(&holder) && (self.of == earlier.of || !self.reading.contains(&holder))
    }
}

impl Once {
    fn place(&mut self, leader: NodeId, of: Leadership, id: RequestId, to: NodeId, facts: &Facts) {
        // A link that heals is reconnected: an attempt may have begun in vain just before, and the next one pauses.
        let Limits { connect, pause, .. } = Limits::default();
        let lag = connect + pause.1 + Timing::default().answer * 2;
        let since = facts.at.saturating_sub(lag);
        let blind = |node| self.blind.get(node).copied().filter(|at| *at >= since);
        let others = facts.nodes.keys().filter(|node| **node != leader);
        let unasked = others.filter_map(|node| {
            let at = facts.apart_at(leader, *node, since).or_else(|| blind(node))?;
            Some((*node, at))
        });
        let own = blind(&leader).map(|at| (leader, at));
        let unasked = unasked.chain(own).collect();
        let reading = self.reading.iter().filter(|(_, at)| facts.scenario.careless && **at >= since);
        let reading = reading.map(|(node, _)| *node).collect();
        self.placed.insert((id, to), Placing { leader, of, at: facts.at, unasked, reading });
    }

    fn check(&mut self, facts: &Facts, broken: &mut Broken) {
        let mut holders: BTreeMap<RequestId, Vec<NodeId>> = BTreeMap::new();
        for (node, own) in &facts.nodes {
            let mut seen = BTreeSet::new();
            for copy in own.disk.copies() {
                if !seen.insert(copy.name.id) {
                    broken.note(format_args!("{node} holds {} twice", copy.name.id));
                }
                holders.entry(copy.name.id).or_default().push(*node);
            }
        }
        for (id, holders) in holders.into_iter().filter(|(_, holders)| holders.len() > 1) {
            if self.several.insert(id, holders.len()).is_some_and(|before| before >= holders.len()) {
                continue;
            }
            if !facts.uploads.contains_key(&id) {
                broken.note(format_args!("{id} was never uploaded"));
                continue;
            }
            let mut copies: Vec<(NodeId, &Placing)> = Vec::new();
            for holder in &holders {
                match self.written.get(&(id, *holder)) {
                    Some(placing) => copies.push((*holder, placing)),
                    None => broken.note(format_args!("{id} is on {holder}, which no order told to take it")),
                }
            }
            copies.sort_by_key(|(_, placing)| placing.at);
            for (nth, (node, placing)) in copies.iter().enumerate() {
                for (holder, earlier) in copies[..nth].iter().filter(|(it, earlier)| placing.could_ask(*it, earlier)) {
                    let Placing { leader, at, .. } = placing;
                    let (at, before) = (at.as_secs_f64(), earlier.at.as_secs_f64());
                    broken.note(format_args!(
                        "{leader} places {id} on {node} at {at:.3} s, and could have asked {holder}, \
                         where it was placed at {before:.3} s"
                    ));
                }
            }
        }
    }
}

impl Promise for Once {
    fn name(&self) -> &'static str {
        "C4 once"
    }

    fn on_birth(&mut self, node: NodeId, _: Leadership, _: &Facts, _: &mut Broken) {
        self.orders.on_birth(node);
        self.followed.remove(&node);
    }

    fn on_output(&mut self, node: NodeId, output: &Output, facts: &Facts, broken: &mut Broken) {
        self.orders.on_output(node, output);
        match output {
            Output::LeaderChanged(leader) => _ = self.followed.insert(node, *leader),
            Output::Send { envelope, .. } => {
                if let Message::Placed { id, leadership, outcome: Ok(to), .. } = envelope.message {
                    self.place(node, leadership, id, to, facts);
                }
            }
            Output::Relay { to, order: Order::Store { put, leadership }, .. } if leadership.leader == Some(node) => {
                self.place(node, *leadership, put.id, *to, facts);
            }
            Output::Store { id, .. } => {
                let leads = self.followed.get(&node).copied().flatten().filter(|it| it.leader == Some(node));
                // No order was sent to it: its own.
                if let Some(of) = leads.filter(|_| self.orders.newest(*id, node).is_none()) {
                    self.place(node, of, *id, node, facts);
                }
                if let Some(placing) = self.placed.get(&(*id, node)) {
                    self.written.insert((*id, node), placing.clone());
                }
            }
            Output::Answer { reply: Reply::Stored { stored, .. }, .. } => {
                let (id, digest) = (stored.name.id, stored.name.digest);
                let before = *self.acknowledged.entry(id).or_insert(digest);
                if before != digest {
                    broken.note(format_args!("{node} acknowledges {id} as {digest}, before it was {before}"));
                }
            }
            Output::Saved { .. } => self.renamed = true,
            Output::Disk(steps) => {
                self.renamed |= steps.iter().any(|step| matches!(step, Step::Remove(_)));
                for step in steps {
                    if let Step::Rename(Name { id, .. }) = step
                        && facts.nodes[&node].disk.copies().iter().any(|copy| copy.name.id == *id)
                    {
                        broken.note(format_args!("{node} stores {id} again"));
                    }
                }
            }
            _ => {}
        }
    }

    fn on_node(&mut self, node: NodeId, machine: &Node, _: Instant, facts: &Facts, broken: &mut Broken) {
        if machine.store().is_blind() {
            self.blind.insert(node, facts.at);
        } else if !machine.store().is_ready() {
            self.reading.insert(node, facts.at);
        }
        if std::mem::take(&mut self.renamed) {
            self.check(facts, broken);
        }
    }

    fn at_end(&mut self, outcome: &Outcome, facts: &Facts, broken: &mut Broken) {
        self.check(facts, broken);
        for (node, own) in facts.nodes.iter().filter(|(_, own)| own.disk.unremoved() == 0) {
            if own.disk.temporaries() > 0 {
                broken.note(format_args!("{} temporary files are left over on {node}", own.disk.temporaries()));
            }
        }
        let Some(Listed { uploads: listed, copies, missing, .. }) = &outcome.listed else {
            return broken.note("no node lists what is stored, although all has healed");
        };
        // Other nodes cannot list what a node of another kin holds.
        let healthy = facts.healthy();
        for node in missing.intersection(&healthy) {
            broken.note(format_args!("{node} does not report what it holds, although all has healed"));
        }
        let mut truth: BTreeMap<RequestId, u64> = BTreeMap::new();
        let mut held = BTreeSet::new();
        for (node, own) in facts.nodes.iter().filter(|(node, _)| healthy.contains(node)) {
            for copy in own.disk.copies() {
                *truth.entry(copy.name.id).or_default() += 1;
                held.insert((*node, copy.name));
            }
        }
        let listed: BTreeSet<_> = listed.iter().map(|(node, entry)| (*node, entry.stored.name)).collect();
        for (node, name) in held.symmetric_difference(&listed) {
            let really = if held.contains(&(*node, *name)) { "is there and is not" } else { "does not, and is" };
            broken.note(format_args!("{} {really} listed as of {node}", name.id));
        }
        let counted = truth.values().filter(|count| **count > 1).count() as u64;
        if counted != *copies {
            broken.note(format_args!("{counted} uploads are on several nodes, {copies} are reported"));
        }
    }
}
