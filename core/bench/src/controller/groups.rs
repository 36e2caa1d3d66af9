//! Whether every group has settled: all its members, wherever they are, have joined the same generation and share all
//! partitions among them. A member that is still to come would make the group share them anew, in the middle of the load.

use std::collections::BTreeMap;

use crate::{
    id::{SubscriptionId, WorkerId},
    plan::Plan,
    protocol::event::{GroupView, Snapshot},
    stats::sequence::SequenceSet,
};
use omb_machine::quantity::plural;

/// The generation of each group.
pub(super) type Generations = BTreeMap<SubscriptionId, i32>;

/// The generations in which the groups of `plan` have settled, by what the workers see.
///
/// # Errors
/// How many have not, and what the first one lacks, in words.
pub(super) fn settled(plan: &Plan, snapshots: &BTreeMap<WorkerId, Snapshot>) -> Result<Generations, String> {
    let (mut generations, mut behind) = (Generations::new(), Vec::new());
    if plan.consumers.is_empty() {
        return Ok(generations);
    }
    let (members, partitions) = (plan.workload.consumers_per_subscription, plan.workload.partitions_per_topic);
    for subscription in &plan.subscriptions {
        let views = snapshots.values().filter_map(|snapshot| snapshot.groups.get(&subscription.id));
        match join(views, members, partitions) {
            Ok(generation) => _ = generations.insert(subscription.id, generation),
            Err(lacks) => behind.push((&subscription.name, lacks)),
        }
    }
    let Some((name, lacks)) = behind.first() else { return Ok(generations) };
    let all = plan.subscriptions.len();
    Err(format!("{} of {all} group{} have not settled; {name}: {lacks}", behind.len(), plural(all)))
}

/// What members at several workers see of one group, put together: its generation, or what it lacks.
fn join<'a>(views: impl Iterator<Item = &'a GroupView>, members: u32, partitions: u32) -> Result<i32, String> {
    let (mut joined, mut assigned, mut low, mut high) = (0_u32, 0_u32, i32::MAX, 0);
    for view in views.filter(|view| view.joined > 0) {
        joined = joined.saturating_add(view.joined);
        assigned = assigned.saturating_add(view.assigned);
        (low, high) = (low.min(view.generations.0), high.max(view.generations.1));
    }
    if joined != members {
        return Err(format!("{joined} of {members} consumers have joined"));
    }
    if low != high {
        return Err(format!("its consumers are of generations {low} to {high}"));
    }
    if assigned != partitions {
        return Err(format!("{assigned} of {partitions} partitions are assigned"));
    }
    Ok(high)
}

/// Paths from a producer through a partition to a subscription that delivered their probe, by what the workers saw. A probe
/// that two members of a group read, at two workers, has shown one path.
pub(super) fn paths_open(snapshots: &BTreeMap<WorkerId, Snapshot>) -> u64 {
    let mut shared: BTreeMap<SubscriptionId, SequenceSet> = BTreeMap::new();
    for (subscription, places) in snapshots.values().flat_map(|snapshot| &snapshot.probed) {
        shared.entry(*subscription).or_default().union_with(places);
    }
    let whole = snapshots.values().map(|snapshot| snapshot.paths_open);
    whole.chain(shared.values().map(SequenceSet::len)).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_two_workers_saw_has_shown_one_path() {
        let snapshot = |paths_open, probed: &[(u32, &[u64])]| {
            let probed = probed.iter().map(|(id, places)| (SubscriptionId(*id), places.iter().copied().collect()));
            let probed = probed.collect();
            Snapshot { paths_open, probed, ..Snapshot::default() }
        };
        let one = (WorkerId(0), snapshot(3, &[(0, &[0, 1, 2]), (1, &[0])]));
        let two = (WorkerId(1), snapshot(4, &[(0, &[2, 3]), (2, &[0])]));
        assert_eq!(paths_open(&[one.clone(), two].into()), 3 + 4 + 4 + 1 + 1);
        assert_eq!(paths_open(&[one].into()), 3 + 3 + 1);
        assert_eq!(paths_open(&BTreeMap::new()), 0);
    }

    #[track_caller]
    fn joins(views: &[(u32, (i32, i32), u32)], wanted: Result<i32, &str>) {
        let view =
            |&(joined, generations, assigned)| GroupView { joined, generations, assigned, ..GroupView::default() };
        let views: Vec<GroupView> = views.iter().map(view).collect();
        assert_eq!(join(views.iter(), 8, 4), wanted.map_err(str::to_owned));
    }

    #[test]
    fn a_group_has_settled_when_all_are_of_one_generation_and_nothing_is_left_over() {
        joins(&[(8, (3, 3), 4)], Ok(3));
        joins(&[(4, (2, 2), 3), (4, (2, 2), 1)], Ok(2));
        joins(&[(4, (2, 2), 4), (4, (2, 2), 0)], Ok(2));
        joins(&[], Err("0 of 8 consumers have joined"));
        joins(&[(7, (3, 3), 4), (0, (0, 0), 0)], Err("7 of 8 consumers have joined"));
        joins(&[(8, (2, 3), 4)], Err("its consumers are of generations 2 to 3"));
        joins(&[(4, (2, 2), 2), (4, (3, 3), 2)], Err("its consumers are of generations 2 to 3"));
        joins(&[(8, (3, 3), 3)], Err("3 of 4 partitions are assigned"));
        // Two believe to have the same partition.
        joins(&[(8, (3, 3), 5)], Err("5 of 4 partitions are assigned"));
    }
}
