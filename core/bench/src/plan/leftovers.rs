//! What runs that died have left on a messaging system, told from what runs in progress still use.
//!
//! A dead controller cannot be asked. So a run counts as in progress while any of its groups has a member, while its
//! topics grow between two looks at them, or while it is young enough to be still setting up; everything else is left
//! over.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::names::{self, Kind};
use crate::id::RunId;
use omb_machine::time::WallTime;

/// What exists on a messaging system at one instant, ours and other people's alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// Topics by name, with the messages that were ever written to each (the sum of its partitions' end offsets).
    pub topics: BTreeMap<String, u64>,
    /// Consumer groups by name, with the members of each.
    pub groups: BTreeMap<String, u32>,
}

impl Inventory {
    /// Only what runs of ours have created.
    #[must_use]
    pub fn ours(mut self) -> Self {
        self.topics.retain(|name, _| names::run_of(Kind::Topic, name).is_some());
        self.groups.retain(|name, _| names::run_of(Kind::Group, name).is_some());
        self
    }
}

/// What one run has on a messaging system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The run.
    pub run: RunId,
    /// Its topics.
    pub topics: Vec<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// Why it counts as in progress; `None` if it is over, and all of this may go.
    pub in_progress: Option<Sign>,
}

/// A sign that a run is in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Its groups have members.
    Members(u32),
    /// Messages were written to its topics between the two looks.
    Written(u64),
    /// It began so recently that it may still be setting up.
    Young(Duration),
}

/// What each run has left, by run, from two looks at the same system. A run that began less than `older_than` before
/// `now` counts as in progress; so does one from a clock that is ahead of ours.
#[must_use]
pub fn remains(before: &Inventory, after: &Inventory, now: WallTime, older_than: Duration) -> Vec<Remains> {
    let topics = after.topics.keys().filter_map(|name| Some((names::run_of(Kind::Topic, name)?, Kind::Topic, name)));
    let groups = after.groups.keys().filter_map(|name| Some((names::run_of(Kind::Group, name)?, Kind::Group, name)));
    let mut by_run: BTreeMap<RunId, (BTreeSet<&String>, BTreeSet<&String>)> = BTreeMap::new();
    for (run, kind, name) in topics.chain(groups) {
        let (topics, groups) = by_run.entry(run).or_default();
        match kind {
            Kind::Topic => topics.insert(name),
            Kind::Group => groups.insert(name),
        };
    }
    let remains = by_run.into_iter().map(|(run, (topics, groups))| {
        let members: u32 = groups.iter().map(|name| after.groups[*name]).fold(0, u32::saturating_add);
        let written = topics.iter().map(|name| {
            // A topic that did not exist at the first look has been created since: all of it is new.
            after.topics[*name].saturating_sub(before.topics.get(*name).copied().unwrap_or(0))
        });
        let written = written.fold(0, u64::saturating_add);
        let age = Duration::from_nanos(now.0.saturating_sub(run.began().0));
        let in_progress = if members > 0 {
            Some(Sign::Members(members))
        } else if written > 0 {
            Some(Sign::Written(written))
        } else if age < older_than {
            Some(Sign::Young(age))
        } else {
            None
        };
        let owned = |names: BTreeSet<&String>| names.into_iter().cloned().collect();
        Remains { run, topics: owned(topics), groups: owned(groups), in_progress }
    });
    remains.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SubscriptionId, TopicIndex};

    const NOW: WallTime = WallTime(1_800_000_000_000_000_000);

    fn run(seconds_ago: u64) -> RunId {
        RunId::drawn(WallTime(NOW.0 - seconds_ago * 1_000_000_000), 7)
    }

    fn inventory(run: RunId, written: u64, members: u32) -> Inventory {
        Inventory {
            topics: [(names::topic(run, TopicIndex(0)), written), ("orders".to_owned(), written)].into(),
            groups: [(names::group(run, SubscriptionId(0)), members), ("billing".to_owned(), 0)].into(),
        }
    }

    #[track_caller]
    fn judges(run: RunId, written: [u64; 2], members: u32, want: Option<Sign>) {
        let (before, after) = (inventory(run, written[0], 0), inventory(run, written[1], members));
        let found = remains(&before, &after, NOW, Duration::from_secs(600));
        let topics = vec![names::topic(run, TopicIndex(0))];
        let groups = vec![names::group(run, SubscriptionId(0))];
        assert_eq!(found, [Remains { run, topics, groups, in_progress: want }], "other people's are left alone");
    }

    #[test]
    fn signs_of_life() {
        judges(run(3_600), [5, 5], 0, None);
        judges(run(3_600), [5, 5], 1, Some(Sign::Members(1)));
        judges(run(3_600), [5, 6], 0, Some(Sign::Written(1)));
        judges(run(599), [0, 0], 0, Some(Sign::Young(Duration::from_secs(599))));
        judges(run(600), [0, 0], 0, None);
        // Emptied meanwhile: by retention, say.
        judges(run(3_600), [5, 0], 0, None);
    }

    /// Its clock is ahead of ours: its age is unknown.
    #[test]
    fn a_run_from_the_future_is_young() {
        let run = RunId::drawn(WallTime(NOW.0 + 3_600_000_000_000), 7);
        judges(run, [5, 5], 0, Some(Sign::Young(Duration::ZERO)));
    }

    #[test]
    fn what_came_between_the_looks_is_in_progress() {
        let run = run(3_600);
        let found = remains(&Inventory::default(), &inventory(run, 3, 0), NOW, Duration::ZERO);
        assert_eq!(found[0].in_progress, Some(Sign::Written(3)));
    }

    #[test]
    fn a_group_alone_is_left_over_too() {
        let after = Inventory { topics: BTreeMap::new(), ..inventory(run(3_600), 0, 0) }.ours();
        assert_eq!(after.groups.len(), 1, "and only ours is looked at");
        let found = remains(&after, &after, NOW, Duration::from_secs(600));
        assert_eq!((found[0].topics.len(), found[0].groups.len(), found[0].in_progress), (0, 1, None));
    }
}
