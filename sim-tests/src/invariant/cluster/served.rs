//! A client that announces uploads and sends nothing of them keeps no other out.

use std::time::Duration;

use omb_cluster::peer::RequestId;
use omb_runtime_sim::peers::{Facts, Outcome};

use super::{Broken, Promise};

/// See the module.
#[derive(Debug, Default)]
pub struct Served;

/// A client that is asked to retry waits for up to 2 s, longer each time, and a slot is free again after 1 s. An upload
/// that is sent three times is acknowledged after the first.
const WITHIN: Duration = Duration::from_secs(4);

impl Promise for Served {
    fn name(&self) -> &'static str {
        "served beside hoarders"
    }

    fn on_acknowledged(&mut self, id: RequestId, facts: &Facts, broken: &mut Broken) {
        let took = facts.uploads.get(&id).map_or(Duration::ZERO, |upload| facts.at.saturating_sub(upload.begun));
        if is_watched(facts) && took > WITHIN {
            broken.note(format_args!("{id} was acknowledged after {:.3} s", took.as_secs_f64()));
        }
    }

    fn at_end(&mut self, _: &Outcome, facts: &Facts, broken: &mut Broken) {
        for (id, _) in facts.uploads.iter().filter(|(_, upload)| is_watched(facts) && upload.acknowledged.is_none()) {
            broken.note(format_args!("{id} was never acknowledged"));
        }
    }
}

fn is_watched(facts: &Facts) -> bool {
    let Facts { scenario, .. } = facts;
    scenario.hoarded && scenario.is_calm_but_for_hoarders() && !scenario.careless
}
