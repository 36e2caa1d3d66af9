//! C4: one id, one acknowledgement, at most one copy per node, several only where a holder was out of reach, counted.

use std::collections::{BTreeMap, BTreeSet};

use omb_core::{
    node::{Node, Output, message::Reply},
    peer::{Digest, NodeId, RequestId},
    store::Step,
    time::Instant,
};
use omb_runtime_sim::peers::{Facts, Outcome};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Once {
    /// As what each upload was acknowledged.
    acknowledged: BTreeMap<RequestId, Digest>,
    /// Something was renamed since the disks were last looked at.
    renamed: bool,
    /// Uploads with several copies that were looked at.
    several: BTreeMap<RequestId, usize>,
}

impl Once {
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
            let Some(upload) = facts.uploads.get(&id) else {
                broken.note(format_args!("{id} was never uploaded"));
                continue;
            };
            // Out of whose reach does not matter: its leader may be the one that did not know of it.
            let excused = facts.scenario.nodes.iter().any(|one| {
                facts.scenario.nodes.iter().any(|other| one != other && facts.were_apart(*one, *other, upload.begun))
            });
            if !excused && facts.scenario.stranger.is_none() {
                broken.note(format_args!("{id} lies on {holders:?}, although nobody was out of reach"));
            }
        }
    }
}

impl Promise for Once {
    fn name(&self) -> &'static str {
        "C4 once"
    }

    fn on_output(&mut self, node: NodeId, output: &Output, _: &Facts, broken: &mut Broken) {
        match output {
            Output::Answer { reply: Reply::Stored { stored, .. }, .. } => {
                let (id, digest) = (stored.name.id, stored.name.digest);
                let before = *self.acknowledged.entry(id).or_insert(digest);
                if before != digest {
                    broken.note(format_args!("{node} acknowledges {id} as {digest}, before it was {before}"));
                }
            }
            Output::Disk(Step::SyncFolder(_) | Step::Remove(_)) => self.renamed = true,
            _ => {}
        }
    }

    fn on_node(&mut self, _: NodeId, _: &Node, _: Instant, facts: &Facts, broken: &mut Broken) {
        if std::mem::take(&mut self.renamed) {
            self.check(facts, broken);
        }
    }

    fn at_end(&mut self, outcome: &Outcome, facts: &Facts, broken: &mut Broken) {
        self.check(facts, broken);
        let Some((listed, copies)) = &outcome.listed else {
            return broken.note("nobody lists what is stored, although all has healed");
        };
        // What a node with another list of peers holds nobody else can list.
        let healthy = facts.healthy();
        let mut truth: BTreeMap<RequestId, u64> = BTreeMap::new();
        for (node, own) in facts.nodes.iter().filter(|(node, _)| healthy.contains(node)) {
            for copy in own.disk.copies() {
                *truth.entry(copy.name.id).or_default() += 1;
                if !listed.iter().any(|(holder, stored)| holder == node && stored.name == copy.name) {
                    broken.note(format_args!("{} lies on {node} and is not listed", copy.name.id));
                }
            }
        }
        let counted = truth.values().filter(|count| **count > 1).count() as u64;
        if counted != *copies {
            broken.note(format_args!("{counted} uploads lie on several nodes, {copies} are told of"));
        }
    }
}
