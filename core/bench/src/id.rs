//! Ids, each its own type so that they cannot be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

use omb_machine::time::WallTime;

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
    /// One run: a workload on a driver, one time. Drawn when the run begins ([`RunId::drawn`]); a worker follows one at a time.
    RunId(u64), "{:016x}"
);

impl RunId {
    /// Bits of noise below the seconds. Together they stay below 2^53, which readers of JSON keep exact, until 2242.
    const NOISE_BITS: u32 = 20;

    /// The id of a run that begins at `began`: whole seconds since the epoch, and 20 bits of `noise`, so that runs that
    /// begin in one second do not collide.
    #[must_use]
    pub fn drawn(began: WallTime, noise: u64) -> Self {
        let seconds = began.0 / 1_000_000_000;
        Self(seconds << Self::NOISE_BITS | noise & ((1 << Self::NOISE_BITS) - 1))
    }

    /// When it began, in whole seconds, by the clock of the process that drew it.
    #[must_use]
    pub fn began(self) -> WallTime {
        WallTime((self.0 >> Self::NOISE_BITS).saturating_mul(1_000_000_000))
    }
}
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

impl WorkerId {
    /// Its number as people count: from 1, as the guide does.
    #[must_use]
    pub fn number(self) -> u64 {
        u64::from(self.0) + 1
    }

    /// Its name in messages to people: `worker 2 (http://b:8080)`, or `worker 2` if its name is empty.
    #[must_use]
    pub fn named(self, name: &str) -> String {
        let number = self.number();
        if name.is_empty() { format!("worker {number}") } else { format!("worker {number} ({name})") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_knows_when_it_began() {
        let began = WallTime(1_796_000_000_987_654_321);
        let run = RunId::drawn(began, u64::MAX);
        assert_eq!(run.began(), WallTime(1_796_000_000_000_000_000));
        assert!(run.0 < 1 << 53, "readers of JSON keep it exact");
        assert_ne!(run, RunId::drawn(began, 0));
        // Nothing that a hostile controller may send overflows.
        let _ = RunId(u64::MAX).began();
    }
}
