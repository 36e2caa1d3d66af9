//! Topics, producers and consumers over workers.

use std::{collections::BTreeSet, fmt};

use crate::{
    config::workload::RateGoal,
    id::WorkerId,
    plan::{Plan, Share, Topology},
    rate::Rate,
};
use omb_machine::quantity::plural;

/// The worker that runs the `nth` producer (or consumer) of `topic`.
///
/// With at least as many topics as workers, a topic belongs as a whole to worker `topic mod workers`. With fewer,
/// producers (and consumers) are distributed one by one, topics varying fastest, so that no worker is idle.
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
    /// Upstream's arithmetic for split roles: in the reversed list the first ones consume, the rest produce.
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

/// One worker's share, as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Dealt {
    /// From 0.
    pub worker: WorkerId,
    /// Topics it sends to or reads from.
    pub topics: BTreeSet<u32>,
    pub producers: usize,
    pub consumers: usize,
    /// Its part of the total rate; `None` where the rate is still to be found.
    pub rate: Option<PartOfRate>,
}

/// A part of the total rate, possibly none of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PartOfRate(Option<Rate>);

impl PartOfRate {
    /// As a floating number, msg/s.
    pub fn as_f64(self) -> f64 {
        self.0.map_or(0.0, Rate::as_f64)
    }
}

impl fmt::Display for PartOfRate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(rate) => write!(f, "{rate}"),
            None => f.write_str("0"),
        }
    }
}

impl Dealt {
    /// Its topics in ranges.
    pub fn topics_in_words(&self) -> String {
        ranges(&self.topics)
    }
}

/// Every worker's share, in order of the workers: one pass over the plan.
pub fn dealt(plan: &Plan) -> Vec<Dealt> {
    let all = u32::try_from(plan.producers.len()).unwrap_or(u32::MAX);
    let rate = |producers: usize| match &plan.workload.rate {
        RateGoal::Search | RateGoal::Listed(_) => None,
        RateGoal::Fixed(_) if producers == 0 => Some(PartOfRate(None)),
        RateGoal::Fixed(total) => {
            let mine = u32::try_from(producers).unwrap_or(all).min(all);
            Some(PartOfRate(Some(total.share(mine, all))))
        }
    };
    let one = |(worker, share): (WorkerId, Share<'_>)| {
        let read = share.consumers.iter().map(|consumer| plan.subscriptions[consumer.subscription.0 as usize].topic.0);
        Dealt {
            worker,
            topics: share.producers.iter().map(|producer| producer.topic.0).chain(read).collect(),
            producers: share.producers.len(),
            consumers: share.consumers.len(),
            rate: rate(share.producers.len()),
        }
    };
    (0..).map(WorkerId).zip(plan.shares()).map(one).collect()
}

/// More workers than this are not listed one by one: only the first and the last, and the range in which all numbers
/// lie.
const LISTED_MAX: usize = 40;
const LISTED_FIRST: usize = 5;
const LISTED_LAST: usize = 3;

/// What is shown for the part of a rate that is no number.
pub fn unstated(plan: &Plan) -> &'static str {
    match plan.workload.rate {
        RateGoal::Listed(_) => "by producerRateList",
        RateGoal::Fixed(_) | RateGoal::Search => "as fast as holds",
    }
}

/// Those of a list that are shown before and after a gap; the second part is empty if all are shown.
pub fn listed<T>(all: &[T]) -> (&[T], &[T]) {
    if all.len() <= LISTED_MAX { (all, &[]) } else { (&all[..LISTED_FIRST], &all[all.len() - LISTED_LAST..]) }
}

/// The range in which the parts of all workers lie.
pub fn spread(plan: &Plan, all: &[Dealt]) -> String {
    fn between<T: PartialEq + fmt::Display>(least: Option<T>, most: Option<T>) -> String {
        match (least, most) {
            (Some(least), Some(most)) if least == most => least.to_string(),
            (Some(least), Some(most)) => format!("{least} to {most}"),
            _ => "0".to_owned(),
        }
    }
    let of = |count: fn(&Dealt) -> usize| between(all.iter().map(count).min(), all.iter().map(count).max());
    let order = |a: &&PartOfRate, b: &&PartOfRate| a.as_f64().total_cmp(&b.as_f64());
    let rates = || all.iter().filter_map(|dealt| dealt.rate.as_ref());
    let rate = if rates().next().is_none() {
        unstated(plan).to_owned()
    } else {
        between(rates().min_by(order), rates().max_by(order))
    };
    format!(
        "each of the {} workers: topics {}, producers {}, msg/s {rate}, consumers {}",
        all.len(),
        of(|dealt| dealt.topics.len()),
        of(|dealt| dealt.producers),
        of(|dealt| dealt.consumers),
    )
}

/// Which workers produce and which consume, and how topics are distributed, in a sentence.
pub fn topology_in_words(plan: &Plan) -> String {
    let workers = plan.workers;
    if let Topology::Split { more_consumers } = plan.topology {
        let producing = u32::try_from(Roles::new(workers, plan.topology).producers.len()).unwrap_or(workers);
        let named = |first: u32, last: u32, does: &str| {
            if first == last { format!("worker {first} {does}s") } else { format!("workers {first}-{last} {does}") }
        };
        let larger = if more_consumers { "; -x gives consumers the larger part" } else { "" };
        let (produce, consume) = (named(1, producing, "produce"), named(producing + 1, workers, "consume"));
        return format!("{workers} with split roles: {produce}, {consume}{larger}.");
    }
    let topics = plan.workload.topics;
    if topics >= workers {
        format!(
            "{workers}; each produces and consumes. A topic belongs to one worker, with all its producers and consumers: \
             topic i to worker 1 + i mod {workers}."
        )
    } else {
        format!(
            "{workers}; each produces and consumes. They are more than the {topics} topic{}, so producers and consumers \
             are dealt one by one, and messages pass from worker to worker.",
            plural(topics as usize)
        )
    }
}

/// Writes who produces and consumes what, at what rate, a line per worker.
pub(super) fn write_placement(plan: &Plan, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let all = dealt(plan);
    let mut line = |dealt: &Dealt| {
        let (producers, consumers) = (dealt.producers, dealt.consumers);
        let name = if plan.workers == 1 { "this process".to_owned() } else { dealt.worker.named("") };
        let rate = dealt.rate.map_or_else(|| unstated(plan).to_owned(), |rate| format!("{rate} msg/s"));
        writeln!(
            f,
            "  {name}: topics {}; {producers} producer{}, {rate}; {consumers} consumer{}",
            dealt.topics_in_words(),
            plural(producers),
            plural(consumers),
        )
    };
    let (first, last) = listed(&all);
    first.iter().try_for_each(&mut line)?;
    if last.is_empty() {
        return Ok(());
    }
    last.iter().try_for_each(&mut line)?;
    writeln!(f, "  {}", spread(plan, &all))
}

/// Of more ranges than this only the first and the last are shown, so that every third of 1,000 topics does not fill a
/// screen.
const RANGES_MAX: usize = 6;
const RANGES_FIRST: usize = 3;

/// `0-3, 7, 9-10`; `0, 3, 6, … 999 (334)`.
fn ranges(numbers: &BTreeSet<u32>) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == *number => *end = *number,
            _ => parts.push((*number, *number)),
        }
    }
    let show = |(start, end): &(u32, u32)| if start == end { start.to_string() } else { format!("{start}-{end}") };
    let list = |parts: &[(u32, u32)]| parts.iter().map(show).collect::<Vec<_>>().join(", ");
    match parts.as_slice() {
        [] => "none".to_owned(),
        [first @ .., last] if parts.len() > RANGES_MAX => {
            format!("{}, … {} ({})", list(&first[..RANGES_FIRST]), show(last), numbers.len())
        }
        all => list(all),
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::workload::{CatchUp, Clients, KeyDistributor, PayloadSource, Verify, Workload},
        id::RunId,
    };
    use omb_machine::seed::Seed;

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
            rate: RateGoal::Fixed(Rate::per_second(10_000).expect("in range")),
            backlog: None,
            test_duration: Duration::from_secs(1),
            warmup_duration: Duration::ZERO,
            seed: None,
            catch_up: CatchUp::All,
            verify: Verify::Header,
            clients: Clients::default(),
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
            "  worker 1: topics 0, 3, 6, 9; 4 producers, 4000 msg/s; 4 consumers\n  \
             worker 2: topics 1, 4, 7; 3 producers, 3000 msg/s; 3 consumers\n  \
             worker 3: topics 2, 5, 8; 3 producers, 3000 msg/s; 3 consumers\n"
        );
        assert_eq!(
            topology_in_words(&plan),
            "3; each produces and consumes. A topic belongs to one worker, with all its producers and consumers: topic i \
             to worker 1 + i mod 3."
        );
    }

    #[test]
    fn a_thousand_workers_are_not_listed() {
        let plan = Plan::new(RunId(1), Seed(1), workload(9_995, 1, 1, 1), 1_000);
        let text = plan.to_string();
        assert_eq!(text.lines().count(), 9, "{text}");
        assert!(text.starts_with("  worker 1: topics 0, 1000, 2000, … 9000 (10); 10 producers, 10.005"), "{text}");
        let spread =
            "each of the 1000 workers: topics 9 to 10, producers 9 to 10, msg/s 9.005 to 10.005, consumers 9 to 10";
        assert!(text.ends_with(&format!("  {spread}\n")), "{text}");
    }

    #[test]
    fn the_topology_is_said_in_words() {
        let words = |topics, workers, topology| {
            topology_in_words(&Plan::with_topology(RunId(1), Seed(1), workload(topics, 5, 1, 5), workers, topology))
        };
        assert_eq!(
            words(10, 5, Topology::Split { more_consumers: false }),
            "5 with split roles: workers 1-2 produce, workers 3-5 consume."
        );
        assert_eq!(
            words(10, 3, Topology::Split { more_consumers: true }),
            "3 with split roles: worker 1 produces, workers 2-3 consume; -x gives consumers the larger part."
        );
        assert!(words(1, 2, Topology::Shared).contains("more than the 1 topic, so producers"));
    }

    /// A worker that only consumes has no part of the rate, and a rate that is searched is not known yet.
    #[test]
    fn a_rate_may_be_none_or_unknown() {
        let split = Topology::Split { more_consumers: false };
        let plan = Plan::with_topology(RunId(1), Seed(1), workload(2, 1, 1, 1), 2, split);
        let shown: Vec<_> = dealt(&plan).iter().map(|it| it.rate.map(|rate| rate.to_string())).collect();
        assert_eq!(shown, [Some("10000".to_owned()), Some("0".to_owned())]);
        let searching = Workload { rate: RateGoal::Search, ..workload(2, 1, 1, 1) };
        assert!(dealt(&Plan::new(RunId(1), Seed(1), searching, 2)).iter().all(|it| it.rate.is_none()));
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
    fn names_begin_like_upstreams_and_belong_to_the_run() {
        let plan = Plan::new(RunId(1), Seed(1), workload(2, 1, 2, 1), 1);
        let name = &plan.topics[1].name;
        assert_eq!(name, "test-topic-0000001-omb-0000000000000001");
        assert_eq!(plan.subscriptions[3].name, "sub-0000003-omb-0000000000000001");
        assert_ne!(*name, Plan::new(RunId(2), Seed(1), workload(2, 1, 2, 1), 1).topics[1].name);
    }

    proptest! {
        /// Every producer and consumer has one owner; the counts differ by at most 1 where they are distributed one by
        /// one.
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
            let shown = dealt(&plan);
            prop_assert_eq!(shown.iter().map(|it| it.producers).sum::<usize>(), plan.producers.len());
            prop_assert_eq!(shown.iter().map(|it| it.consumers).sum::<usize>(), plan.consumers.len());
            let rate: f64 = shown.iter().filter_map(|it| it.rate).map(PartOfRate::as_f64).sum();
            prop_assert!(producers == 0 || (rate - 10_000.0).abs() < 1e-6, "the parts add up to the total: {}", rate);
        }
    }
}
