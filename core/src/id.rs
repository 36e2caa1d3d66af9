//! Names of things, each its own type so that they cannot be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub $inner);
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, $format, self.0)
            }
        }
    };
}

id!(
    /// One run: a workload on a driver, one time. Drawn when the run begins; a worker obeys one at a time.
    RunId(u64), "{:016x}"
);
id!(
    /// A worker's place in the list of workers, from 0.
    WorkerId(u32), "worker {}"
);
id!(
    /// A topic's place in the plan, from 0.
    TopicIndex(u32), "topic {}"
);
id!(
    /// A producer's number over the whole run: `topic * producersPerTopic + k`. Stands in every header.
    ProducerId(u32), "producer {}"
);
id!(
    /// A subscription's number over the whole run: `topic * subscriptionsPerTopic + k`.
    SubscriptionId(u32), "subscription {}"
);
id!(
    /// A consumer's number over the whole run.
    ConsumerId(u32), "consumer {}"
);
