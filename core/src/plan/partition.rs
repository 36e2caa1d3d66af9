//! Topics, producers and consumers over workers.

use std::{collections::BTreeSet, fmt};

use rand::Rng;

use crate::{
    config::workload::RateGoal,
    id::WorkerId,
    plan::{Plan, Topology, rate::Rate},
};

/// Who runs the `nth` producer (or consumer) of `topic`.
///
/// With at least as many topics as workers, a topic belongs as a whole to worker `topic mod workers`. With
/// fewer, producers (and consumers) are dealt one by one, topics varying fastest, so that none is idle.
#[must_use]
pub fn owner(topics: u32, workers: u32, topic: u32, nth: u32) -> WorkerId {
    let place =
        if topics >= workers { u64::from(topic) } else { u64::from(nth) * u64::from(topics) + u64::from(topic) };
    WorkerId(u32::try_from(place % u64::from(workers)).expect("a remainder is below its divisor"))
}

/// Which workers produce and which consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Roles {
    producers: Vec<WorkerId>,
    consumers: Vec<WorkerId>,
}

impl Roles {
    /// Upstream's arithmetic for split roles: the list reversed, the first of it consume, the rest produce.
    pub(super) fn new(workers: u32, topology: Topology) -> Self {
        let all: Vec<WorkerId> = (0..workers).map(WorkerId).collect();
        let Topology::Split { more_consumers } = topology else {
            return Self { producers: all.clone(), consumers: all };
        };
        assert!(workers > 1, "one worker cannot be split");
        let producing = if more_consumers { workers.div_ceil(3) } else { workers / 2 } as usize;
        let reversed = |part: &[WorkerId]| part.iter().rev().copied().collect();
        Self { producers: reversed(&all[..producing]), consumers: reversed(&all[producing..]) }
    }

    pub(super) fn producer(&self, topics: u32, topic: u32, nth: u32) -> WorkerId {
        Self::of(&self.producers, topics, topic, nth)
    }

    pub(super) fn consumer(&self, topics: u32, topic: u32, nth: u32) -> WorkerId {
        Self::of(&self.consumers, topics, topic, nth)
    }

    fn of(part: &[WorkerId], topics: u32, topic: u32, nth: u32) -> WorkerId {
        part[owner(topics, u32::try_from(part.len()).expect("workers fit in 32 bits"), topic, nth).0 as usize]
    }
}

/// 7 random characters, as upstream ends its names: 5 random bytes in unpadded URL-safe base64.
#[must_use]
pub fn suffix(rng: &mut impl Rng) -> String {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut bytes = [0; 5];
    rng.fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Writes who produces and consumes what, at what rate, a line per worker.
pub(super) fn write_placement(plan: &Plan, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let all = u32::try_from(plan.producers.len()).unwrap_or(u32::MAX);
    for (worker, share) in (0..).map(WorkerId).zip(plan.shares()) {
        let (producers, consumers) = (share.producers.len(), share.consumers.len());
        let read = share.consumers.iter().map(|consumer| plan.subscriptions[consumer.subscription.0 as usize].topic.0);
        let topics: BTreeSet<u32> = share.producers.iter().map(|producer| producer.topic.0).chain(read).collect();
        let rate = match plan.workload.rate {
            RateGoal::Search => "as fast as holds".to_owned(),
            RateGoal::Fixed(_) if producers == 0 => "0 msg/s".to_owned(),
            RateGoal::Fixed(total) => Rate::per_second(total).map_or_else(String::new, |total| {
                format!("{} msg/s", total.share(u32::try_from(producers).unwrap_or(all), all))
            }),
        };
        let name = if plan.workers == 1 { "this process".to_owned() } else { worker.to_string() };
        writeln!(
            f,
            "  {name}: topics {}; {producers} producer{}, {rate}; {consumers} consumer{}",
            ranges(&topics),
            plural(producers),
            plural(consumers),
        )?;
    }
    Ok(())
}

/// `s`, unless there is one.
#[must_use]
pub fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// `0-3, 7, 9-10`.
fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == *number => *end = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let show = |(start, end): (u32, u32)| if start == end { start.to_string() } else { format!("{start}-{end}") };
    if parts.is_empty() { "none".to_owned() } else { parts.into_iter().map(show).collect::<Vec<_>>().join(", ") }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::workload::{CatchUp, KeyDistributor, PayloadSource, Verify, Workload},
        id::RunId,
        seed::Seed,
    };

    fn workload(topics: u32, producers: u32, subscriptions: u32, consumers: u32) -> Workload {
        Workload {
            name: "w".to_owned(),
            topics,
            partitions_per_topic: 1,
            key_distributor: KeyDistributor::NoKey,
            message_size: 100,
            payload: PayloadSource::Random { ratio: 1.0, pool: 1 },
            subscriptions_per_topic: subscriptions,
            consumers_per_subscription: consumers,
            producers_per_topic: producers,
            rate: RateGoal::Fixed(10_000),
            backlog: None,
            test_duration: Duration::from_secs(1),
            warmup_duration: Duration::ZERO,
            seed: None,
            catch_up: CatchUp::All,
            verify: Verify::Header,
        }
    }

    /// The guide's example: 10 topics over 3 workers.
    #[test]
    fn ten_topics_on_three_workers() {
        let plan = Plan::new(RunId(1), Seed(1), workload(10, 1, 1, 1), 3);
        let of = |worker| plan.producers_of(WorkerId(worker)).map(|p| p.topic.0).collect::<Vec<_>>();
        assert_eq!((of(0), of(1), of(2)), (vec![0, 3, 6, 9], vec![1, 4, 7], vec![2, 5, 8]));
        assert_eq!(
            plan.to_string(),
            "  worker 0: topics 0, 3, 6, 9; 4 producers, 4000 msg/s; 4 consumers\n  \
             worker 1: topics 1, 4, 7; 3 producers, 3000 msg/s; 3 consumers\n  \
             worker 2: topics 2, 5, 8; 3 producers, 3000 msg/s; 3 consumers\n"
        );
    }

    /// Upstream's table for N workers, and its reversed list: of 5, w4 w3 w2 consume, w1 w0 produce.
    #[test]
    fn split_roles_are_upstreams() {
        let producing =
            |workers, more_consumers| Roles::new(workers, Topology::Split { more_consumers }).producers.len();
        assert_eq!([2, 3, 4, 5, 6, 7, 8, 9, 10].map(|n| producing(n, false)), [1, 1, 2, 2, 3, 3, 4, 4, 5]);
        assert_eq!([2, 3, 4, 5, 6, 7, 8, 9, 10].map(|n| producing(n, true)), [1, 1, 2, 2, 2, 3, 3, 3, 4]);
        let roles = Roles::new(5, Topology::Split { more_consumers: false });
        assert_eq!(roles.consumers, [4, 3, 2].map(WorkerId));
        assert_eq!(roles.producers, [1, 0].map(WorkerId));
    }

    #[test]
    fn a_topic_belongs_to_one_worker_or_to_several() {
        let owners = |topics, workers| Plan::new(RunId(1), Seed(1), workload(topics, 2, 1, 1), workers).owners();
        assert_eq!(owners(3, 2), [Some(WorkerId(0)), Some(WorkerId(1)), Some(WorkerId(0))]);
        assert_eq!(owners(1, 2), [None]);
        let nobody = Plan::new(RunId(1), Seed(1), workload(1, 0, 0, 0), 2);
        assert_eq!(nobody.owners(), [None]);
    }

    #[test]
    fn names_look_like_upstreams_and_belong_to_the_run() {
        let plan = Plan::new(RunId(1), Seed(1), workload(2, 1, 2, 1), 1);
        let name = &plan.topics[1].name;
        assert!(name.starts_with("test-topic-0000001-") && name.len() == "test-topic-0000001-".len() + 7, "{name}");
        assert!(plan.subscriptions[3].name.starts_with("sub-001-"));
        assert_ne!(*name, Plan::new(RunId(2), Seed(1), workload(2, 1, 2, 1), 1).topics[1].name);
    }

    proptest! {
        /// Every producer and consumer has one owner; counts dealt differ by at most 1 where they are dealt one by one.
        #[test]
        fn everything_is_dealt_once_and_evenly(
            topics in 1..20_u32, producers in 0..5_u32, subscriptions in 0..4_u32, consumers in 0..4_u32, workers in 1..8_u32,
        ) {
            let plan = Plan::new(RunId(9), Seed(1), workload(topics, producers, subscriptions, consumers), workers);
            prop_assert_eq!(plan.producers.len() as u32, topics * producers);
            prop_assert_eq!(plan.consumers.len() as u32, topics * subscriptions * consumers);
            prop_assert!(plan.producers.iter().enumerate().all(|(i, p)| p.id.0 as usize == i && p.worker.0 < workers));
            prop_assert!(plan.consumers.iter().enumerate().all(|(i, c)| c.id.0 as usize == i && c.worker.0 < workers));
            let mut counts: BTreeMap<u32, i64> = (0..workers).map(|worker| (worker, 0)).collect();
            plan.producers.iter().for_each(|p| *counts.entry(p.worker.0).or_default() += 1);
            let (least, most) = (counts.values().min().expect("some"), counts.values().max().expect("some"));
            let unit = if topics >= workers { i64::from(producers) } else { 1 };
            prop_assert!(most - least <= unit, "{:?}", counts);
        }
    }
}
