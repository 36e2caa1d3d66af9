//! C3: an acknowledged upload is on some disk, whole, whatever crashed later.

use omb_cluster::{config::Durability, peer::RequestId};
use omb_runtime_sim::peers::{Facts, Outcome};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Durable {
    /// The number of disk losses seen so far.
    losses: u64,
}

impl Durable {
    fn check(id: RequestId, facts: &Facts, broken: &mut Broken) {
        let upload = &facts.uploads[&id];
        let Some((node, stored, _)) = upload.acknowledged else { return };
        if stored.name.digest != upload.digest || stored.bytes != upload.bytes || stored.name.id != id {
            broken.note(format_args!("{id} was acknowledged as {stored:?}, which is not what was sent"));
        }
        let must_last = facts.scenario.durability == Durability::Fsync;
        let whole = |node: &omb_runtime_sim::peers::NodeFacts| {
            node.disk
                .copies()
                .iter()
                .any(|copy| copy.name.id == id && copy.digest == upload.digest && (copy.durable || !must_last))
        };
        // If files are removed from outside, the only promise is that it is reported: see [`super::known`].
        if !facts.nodes.values().any(whole) && !facts.nodes[&node].disk.vanished().contains(&id) {
            broken.note(format_args!("{id} was acknowledged by {node}, and no disk holds it safely"));
        }
    }
}

impl Promise for Durable {
    fn name(&self) -> &'static str {
        "C3 durable"
    }

    fn on_acknowledged(&mut self, id: RequestId, facts: &Facts, broken: &mut Broken) {
        Self::check(id, facts, broken);
        if let Some((node, ..)) = facts.uploads[&id].acknowledged
            && !facts.nodes[&node].disk.copies().iter().any(|copy| copy.name.id == id)
            && !facts.nodes[&node].disk.vanished().contains(&id)
        {
            broken.note(format_args!("{id} was acknowledged as held by {node}, which does not hold it"));
        }
    }

    fn on_node(
        &mut self,
        _: omb_cluster::peer::NodeId,
        _: &omb_cluster::node::Node,
        _: omb_machine::time::Instant,
        facts: &Facts,
        broken: &mut Broken,
    ) {
        self.on_event(facts, broken);
    }

    fn on_event(&mut self, facts: &Facts, broken: &mut Broken) {
        // Only then can something be missing that existed.
        let losses = facts.nodes.values().map(|node| node.disk.losses()).sum();
        if std::mem::replace(&mut self.losses, losses) != losses {
            facts.uploads.keys().for_each(|id| Self::check(*id, facts, broken));
        }
    }

    fn at_end(&mut self, outcome: &Outcome, facts: &Facts, broken: &mut Broken) {
        facts.uploads.keys().for_each(|id| Self::check(*id, facts, broken));
        for unfetched in &outcome.unfetched {
            broken.note(format_args!("an acknowledged upload cannot be had: {unfetched}"));
        }
    }
}
