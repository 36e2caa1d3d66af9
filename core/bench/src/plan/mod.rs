//! Which worker does what: pure, made once, then only read.

pub mod leftovers;
pub mod names;
pub mod needs;
pub mod pace;
pub mod partition;
pub mod probing;
pub mod sharing;

pub use crate::rate;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    config::workload::Workload,
    id::{ConsumerId, ProducerId, RunId, SubscriptionId, TopicIndex, WorkerId},
};
use omb_machine::seed::Seed;

/// A run's assignment: every topic, producer and consumer, and the worker it belongs to.
///
/// ```
/// use omb_bench::{
///     config::workload,
///     id::{RunId, WorkerId},
///     plan::Plan,
/// };
/// use omb_machine::{config::Leniency, seed::Seed};
///
/// let file = "{topics: 5, partitionsPerTopic: 3, messageSize: 100, producersPerTopic: 1, producerRate: 10000,
///              subscriptionsPerTopic: 2, consumerPerSubscription: 1, testDuration: 5m}";
/// let workload = workload::parse("load.yaml", file, Leniency::Strict).expect("a sound workload").value;
/// let plan = Plan::new(RunId(1), Seed(7), workload, 2);
///
/// // Topics go to the workers in turn, each with all its producers and consumers.
/// let topics: Vec<u32> = plan.producers_of(WorkerId(0)).map(|producer| producer.topic.0).collect();
/// assert_eq!(topics, [0, 2, 4]);
/// let shares = plan.shares();
/// assert_eq!((shares[0].producers.len(), shares[0].consumers.len()), (3, 6));
/// assert_eq!((shares[1].producers.len(), shares[1].consumers.len()), (2, 4));
/// let placement = plan.to_string();
/// assert!(placement.starts_with("  worker 1: topics 0, 2, 4; 3 producers, 6000 msg/s; 6 consumers"), "{placement}");
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Which run.
    pub run: RunId,
    /// Every random choice of the run follows from it.
    pub seed: Seed,
    /// The workload as requested.
    pub workload: Workload,
    /// How many workers share it.
    pub workers: u32,
    /// How the work is split.
    #[serde(default)]
    pub topology: Topology,
    /// In order of their index.
    pub topics: Vec<Topic>,
    /// In order of their id.
    pub producers: Vec<Producer>,
    /// In order of their id.
    pub subscriptions: Vec<Subscription>,
    /// In order of their id.
    pub consumers: Vec<Consumer>,
}

/// Which workers produce and which consume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Topology {
    /// Every worker does both.
    #[default]
    Shared,
    /// Each worker does one of the two, as upstream: of N workers the last `N - N div 2` consume.
    Split {
        /// `-x`: only `(N + 2) div 3` produce.
        more_consumers: bool,
    },
}

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topic {
    /// Its name on the broker: [`names::topic`].
    pub name: String,
    /// Its partitions.
    pub partitions: u32,
}

/// A producer and the worker that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// Its id, which is also its place in the schedule.
    pub id: ProducerId,
    /// The topic it sends to.
    pub topic: TopicIndex,
    /// The worker that runs it.
    pub worker: WorkerId,
}

/// A subscription: a group whose consumers share one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id.
    pub id: SubscriptionId,
    /// The topic it reads.
    pub topic: TopicIndex,
    /// Its name on the broker: [`names::group`].
    pub name: String,
}

/// A consumer and the worker that runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumer {
    /// Its id.
    pub id: ConsumerId,
    /// The subscription it belongs to.
    pub subscription: SubscriptionId,
    /// The worker that runs it.
    pub worker: WorkerId,
}

impl Plan {
    /// Distributes `workload` over `workers` workers, at least one. Names carry `run`, so that two runs of one seed do
    /// not collide on a broker; everything else follows from `seed`.
    ///
    /// # Panics
    /// If there is no worker.
    #[must_use]
    pub fn new(run: RunId, seed: Seed, workload: Workload, workers: u32) -> Self {
        Self::with_topology(run, seed, workload, workers, Topology::Shared)
    }

    /// As [`Self::new`], with a choice of which workers produce and which consume.
    ///
    /// # Panics
    /// If there is no worker, or only one to be split.
    #[must_use]
    pub fn with_topology(run: RunId, seed: Seed, workload: Workload, workers: u32, topology: Topology) -> Self {
        assert!(workers > 0, "a run needs a worker");
        let roles = partition::Roles::new(workers, topology);
        let topics: Vec<_> = (0..workload.topics)
            .map(|index| Topic {
                name: names::topic(run, TopicIndex(index)),
                partitions: workload.partitions_per_topic,
            })
            .collect();
        let per_topic = workload.producers_per_topic;
        let producers = (0..workload.topics * per_topic).map(|id| Producer {
            id: ProducerId(id),
            topic: TopicIndex(id / per_topic),
            worker: roles.producer(workload.topics, id / per_topic, id % per_topic),
        });
        let subscriptions: Vec<_> = (0..workload.topics * workload.subscriptions_per_topic)
            .map(|id| Subscription {
                id: SubscriptionId(id),
                topic: TopicIndex(id / workload.subscriptions_per_topic),
                name: names::group(run, SubscriptionId(id)),
            })
            .collect();
        let members = workload.consumers_per_subscription;
        let consumers = subscriptions.iter().flat_map(|subscription| {
            let (topic, nth) = (subscription.topic.0, subscription.id.0 % workload.subscriptions_per_topic);
            let (roles, workload) = (&roles, &workload);
            (0..members).map(move |member| Consumer {
                id: ConsumerId(subscription.id.0 * members + member),
                subscription: subscription.id,
                worker: roles.consumer(workload.topics, topic, nth * members + member),
            })
        });
        let (producers, consumers) = (producers.collect(), consumers.collect());
        Self { run, seed, workers, topology, topics, producers, subscriptions, consumers, workload }
    }

    /// For each topic the worker that runs all its producers and consumers; `None` if several share them.
    #[must_use]
    pub fn owners(&self) -> Vec<Option<WorkerId>> {
        let mut owners: Vec<Owners> = vec![Owners::None; self.topics.len()];
        let consumed =
            self.consumers.iter().map(|it| (self.subscriptions[it.subscription.0 as usize].topic, it.worker));
        for (topic, worker) in self.producers.iter().map(|it| (it.topic, it.worker)).chain(consumed) {
            let owner = &mut owners[topic.0 as usize];
            *owner = match *owner {
                Owners::None => Owners::One(worker),
                Owners::One(one) if one == worker => Owners::One(one),
                _ => Owners::Several,
            };
        }
        owners.into_iter().map(|owner| if let Owners::One(worker) = owner { Some(worker) } else { None }).collect()
    }

    /// What each worker runs, in order of the workers: one pass, as there may be thousands of them.
    #[must_use]
    pub fn shares(&self) -> Vec<Share<'_>> {
        let mut shares: Vec<Share<'_>> = (0..self.workers).map(|_| Share::default()).collect();
        self.producers.iter().for_each(|producer| shares[producer.worker.0 as usize].producers.push(producer));
        self.consumers.iter().for_each(|consumer| shares[consumer.worker.0 as usize].consumers.push(consumer));
        shares
    }

    /// The producers of one worker, in order of their id.
    pub fn producers_of(&self, worker: WorkerId) -> impl Iterator<Item = &Producer> {
        self.producers.iter().filter(move |producer| producer.worker == worker)
    }

    /// Paths from a producer through a partition to a subscription that are probed: this many probes must arrive before
    /// the load begins. See [`probing`].
    #[must_use]
    pub fn paths(&self) -> u64 {
        if self.consumers.is_empty() {
            return 0;
        }
        let Workload { topics, producers_per_topic, partitions_per_topic, subscriptions_per_topic, .. } = self.workload;
        let pairs = probing::pairs(producers_per_topic, partitions_per_topic);
        pairs * u64::from(topics) * u64::from(subscriptions_per_topic)
    }
}

/// What one worker runs.
#[derive(Clone, Debug, Default)]
pub struct Share<'a> {
    /// In order of their id.
    pub producers: Vec<&'a Producer>,
    /// In order of their id.
    pub consumers: Vec<&'a Consumer>,
}

/// Which workers run the producers and consumers of a topic.
#[derive(Clone, Copy)]
enum Owners {
    None,
    One(WorkerId),
    Several,
}

/// The placement, as it is printed before anything starts.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        partition::write_placement(self, f)
    }
}
