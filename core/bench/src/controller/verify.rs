//! What was confirmed against what was received, over all workers.

use std::collections::BTreeMap;

use crate::{
    id::{ProducerId, SubscriptionId, WorkerId},
    plan::Plan,
    protocol::event::{Findings, Missing},
    result::Verdict,
    stats::{offsets::OffsetRanges, sequence::SequenceSet, tally::Seen},
};

/// Joins what the workers found. Most subscriptions belong to one worker, which has compared them; of the others the
/// sets are compared here. What a lost worker had a part in cannot be judged.
pub(super) fn judge(
    plan: &Plan,
    seen: &BTreeMap<SubscriptionId, Seen>,
    findings: Vec<Findings>,
    lost: &[WorkerId],
) -> Verdict {
    let mut verdict = Verdict::default();
    let mut confirmed: BTreeMap<ProducerId, SequenceSet> = BTreeMap::new();
    let mut received: BTreeMap<SubscriptionId, Received> = BTreeMap::new();
    let mut by_count_only = false;
    for found in findings {
        by_count_only |= found.by_count_only;
        for (subscription, missing) in found.compared {
            let seen = seen.get(&subscription).copied().unwrap_or_default();
            verdict.subscriptions.insert(subscription, (seen, missing));
        }
        confirmed.extend(found.confirmed);
        for (subscription, sets) in found.received {
            received.entry(subscription).or_default().join(sets);
        }
        for (subscription, offsets) in found.offsets {
            received.entry(subscription).or_default().join_offsets(&offsets);
        }
    }
    let torn = torn_topics(plan, lost);
    for (subscription, received) in received {
        let Some(topic) = plan.subscriptions.get(subscription.0 as usize).map(|it| it.topic.0) else { continue };
        if torn[topic as usize] {
            continue;
        }
        let mut seen = seen.get(&subscription).copied().unwrap_or_default();
        // Received by a second member of the group, which did not know of the first one: from the same place, and so read
        // again, or from another one, and so doubled.
        let whole = received.sets.iter().map(SequenceSet::len).fold(0, u64::saturating_add);
        let again = received.read_again();
        let twice = if by_count_only { again } else { received.parts.saturating_sub(whole) };
        let reread = twice.min(again);
        seen.distinct = seen.distinct.saturating_sub(twice);
        seen.reread = seen.reread.saturating_add(reread);
        seen.duplicated = seen.duplicated.saturating_add(twice - reread);
        let mut missing = Missing { by_count_only, ..Missing::default() };
        let (nothing, count) = (SequenceSet::new(), plan.workload.producers_per_topic);
        for place in 0..count {
            let Some(confirmed) = confirmed.get(&ProducerId(topic * count + place)) else { continue };
            missing.confirmed = missing.confirmed.saturating_add(confirmed.len());
            let lacks = confirmed.count_missing_in(received.sets.get(place as usize).unwrap_or(&nothing));
            missing.missing = missing.missing.saturating_add(lacks);
        }
        if by_count_only {
            missing.missing = missing.confirmed.saturating_sub(seen.distinct);
        }
        verdict.subscriptions.insert(subscription, (seen, missing));
    }
    let all = plan.subscriptions.iter().filter(|_| !plan.consumers.is_empty()).count();
    verdict.unverified = u32::try_from(all.saturating_sub(verdict.subscriptions.len())).unwrap_or(u32::MAX);
    verdict
}

/// What the members of one group received together.
#[derive(Debug, Default)]
struct Received {
    /// By the producer's place within the topic.
    sets: Vec<SequenceSet>,
    /// The sum of the parts: above the size of the sets if something was received by two.
    parts: u64,
    /// Offsets that one of them read, by partition.
    offsets: Vec<OffsetRanges>,
    /// The sum of the parts, likewise.
    offset_parts: u64,
}

impl Received {
    fn join(&mut self, sets: Vec<SequenceSet>) {
        if self.sets.len() < sets.len() {
            self.sets.resize_with(sets.len(), SequenceSet::new);
        }
        for (sum, set) in self.sets.iter_mut().zip(sets) {
            self.parts = self.parts.saturating_add(set.len());
            sum.union_with(&set);
        }
    }

    fn join_offsets(&mut self, offsets: &[OffsetRanges]) {
        if self.offsets.len() < offsets.len() {
            self.offsets.resize_with(offsets.len(), OffsetRanges::new);
        }
        for (sum, ranges) in self.offsets.iter_mut().zip(offsets) {
            self.offset_parts = self.offset_parts.saturating_add(ranges.len());
            sum.union_with(ranges);
        }
    }

    /// Messages that members at two workers read from the same place.
    fn read_again(&self) -> u64 {
        let whole = self.offsets.iter().map(OffsetRanges::len).fold(0, u64::saturating_add);
        self.offset_parts.saturating_sub(whole)
    }
}

/// Topics of which a lost worker ran a producer or a consumer.
fn torn_topics(plan: &Plan, lost: &[WorkerId]) -> Vec<bool> {
    let mut torn = vec![false; plan.topics.len()];
    if lost.is_empty() {
        return torn;
    }
    let read = plan.consumers.iter().map(|it| (plan.subscriptions[it.subscription.0 as usize].topic, it.worker));
    for (topic, worker) in plan.producers.iter().map(|it| (it.topic, it.worker)).chain(read) {
        torn[topic.0 as usize] |= lost.contains(&worker);
    }
    torn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::workload::Workload, controller::tests::workload, id::RunId};
    use omb_machine::seed::Seed;

    /// Two members of a group at two workers. The first confirmed 0 to 5 and read the first of these messages at the first of
    /// these offsets; the second read the others.
    fn judged(messages: [&[u64]; 2], offsets: [&[u64]; 2], by_count_only: bool, lost: &[WorkerId]) -> Verdict {
        let workload = Workload { topics: 1, partitions_per_topic: 1, consumers_per_subscription: 2, ..workload() };
        let plan = Plan::new(RunId(1), Seed(1), workload, 2);
        assert_eq!(plan.owners(), [None], "both have a part in it");
        let found = |nth: usize| Findings {
            confirmed: if nth == 0 { [(ProducerId(0), (0..6).collect())].into() } else { BTreeMap::new() },
            received: [(SubscriptionId(0), vec![messages[nth].iter().copied().collect()])].into(),
            offsets: [(SubscriptionId(0), vec![offsets[nth].iter().copied().collect()])].into(),
            by_count_only,
            ..Findings::default()
        };
        let received = messages.iter().map(|it| it.len() as u64).sum();
        let seen = [(SubscriptionId(0), Seen { received, distinct: received, ..Seen::default() })].into();
        judge(&plan, &seen, vec![found(0), found(1)], lost)
    }

    #[track_caller]
    fn sees(verdict: &Verdict, distinct: u64, reread: u64, duplicated: u64, missing: u64) {
        let (seen, lacks) = verdict.subscriptions[&SubscriptionId(0)];
        assert_eq!((seen.distinct, seen.reread, seen.duplicated), (distinct, reread, duplicated), "{verdict:?}");
        assert_eq!((lacks.confirmed, lacks.missing), (6, missing), "{verdict:?}");
        assert_eq!(verdict.unverified, 0);
    }

    /// What a second worker reads again after a rebalance is not held against the messaging system; what lies there twice is.
    #[test]
    fn read_again_at_another_worker_is_no_double() {
        sees(&judged([&[0, 1, 2], &[3, 4, 5]], [&[0, 1, 2], &[3, 4, 5]], false, &[]), 6, 0, 0, 0);
        sees(&judged([&[0, 1, 2, 3], &[2, 3, 4, 5]], [&[0, 1, 2, 3], &[2, 3, 4, 5]], false, &[]), 6, 2, 0, 0);
        sees(&judged([&[0, 1, 2, 3], &[2, 3, 4, 5]], [&[0, 1, 2, 3], &[4, 5, 6, 7]], false, &[]), 6, 0, 2, 0);
        sees(&judged([&[0, 1, 2, 3], &[2, 3, 4]], [&[0, 1, 2, 3], &[3, 4, 5]], false, &[]), 5, 1, 1, 1);
        // Without headers there are only places and counts.
        sees(&judged([&[0, 1, 2, 3], &[2, 3, 4]], [&[0, 1, 2, 3], &[3, 4, 5]], true, &[]), 6, 1, 0, 0);
    }

    #[test]
    fn of_what_a_lost_worker_had_a_part_in_nothing_is_said() {
        let verdict = judged([&[0, 1, 2], &[3]], [&[0, 1, 2], &[3]], false, &[WorkerId(1)]);
        assert_eq!((verdict.subscriptions.len(), verdict.unverified), (0, 1));
    }
}
