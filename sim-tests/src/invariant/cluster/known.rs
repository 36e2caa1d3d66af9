//! An acknowledged upload can be fetched and is listed with its name, owner and time; or its file was removed, and then
//! the node that stored it misses it: what nodes count as lost is what their journals remember and their folders lack.

use std::collections::{BTreeMap, BTreeSet};

use omb_cluster::{
    config::Durability,
    peer::{NodeId, RequestId},
    store::Entry,
};
use omb_runtime_sim::peers::{Facts, Outcome};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Known;

impl Promise for Known {
    fn name(&self) -> &'static str {
        "known"
    }

    fn on_acknowledged(&mut self, id: RequestId, facts: &Facts, broken: &mut Broken) {
        let upload = &facts.uploads[&id];
        let Some((node, ..)) = upload.acknowledged else { return };
        let durable = facts.scenario.durability == Durability::Fsync;
        let recorded = facts.nodes[&node].disk.recorded(durable).remove(&id);
        if recorded.and_then(|entry| entry.label).as_ref() != Some(&upload.label) {
            broken.note(format_args!("{id} was acknowledged by {node}, which does not remember its label"));
        }
    }

    fn at_end(&mut self, outcome: &Outcome, facts: &Facts, broken: &mut Broken) {
        let Some(listed) = &outcome.listed else { return };
        let healthy = facts.healthy();
        let entries: BTreeMap<(NodeId, RequestId), &Entry> =
            listed.uploads.iter().map(|(node, entry)| ((*node, entry.stored.name.id), entry)).collect();
        for (id, upload) in &facts.uploads {
            let Some((node, ..)) = upload.acknowledged.filter(|(node, ..)| healthy.contains(node)) else { continue };
            match entries.get(&(node, *id)) {
                Some(entry) if entry.label.as_ref() == Some(&upload.label) => {}
                Some(entry) => {
                    broken.note(format_args!("{id} is listed as {:?}, not as {:?}", entry.label, upload.label))
                }
                None if !facts.nodes[&node].disk.vanished().contains(id) => {
                    broken.note(format_args!("{id} is not listed, and was not removed"));
                }
                // Another node may hold a copy of it.
                None if outcome.missed.contains(id) || entries.keys().any(|(_, other)| other == id) => {}
                None => broken.note(format_args!("{id} was removed from {node}, and it is not reported as lost")),
            }
        }
        for (node, own) in facts.nodes.iter().filter(|(node, _)| healthy.contains(node)) {
            let there: BTreeSet<RequestId> = own.disk.copies().iter().map(|copy| copy.name.id).collect();
            let missing: Vec<RequestId> =
                own.disk.recorded(false).into_keys().filter(|id| !there.contains(id)).collect();
            let (counted, lost) = (outcome.gone.get(node).copied(), listed.lost.get(node).copied().unwrap_or(0));
            if counted.is_some_and(|counted| counted != missing.len() as u64) || lost != missing.len() as u64 {
                broken.note(format_args!(
                    "{node} lacks {} uploads that it remembers, counts {counted:?}, and lists {lost} as lost",
                    missing.len()
                ));
            }
            // A sync that fails may leave a record of what is not acknowledged.
            let removed = own.disk.vanished();
            if let Some(id) = missing.iter().find(|id| !removed.contains(id)).filter(|_| own.disk.failed() == 0) {
                broken.note(format_args!("{node} misses {id}, which was not removed"));
            }
        }
    }
}
