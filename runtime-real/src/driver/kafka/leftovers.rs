//! What runs leave on a cluster besides their topics: groups, and, where a run died, everything.

use std::time::{Duration, Instant};

use omb_bench::{
    plan::leftovers::Inventory,
    protocol::{Failure, FailureKind},
};
use rdkafka::error::RDKafkaErrorCode;

use super::{Kafka, REACH_WITHIN, kind_of};

/// How often a group that still has members is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Longest the members of a group may take to leave, if there is so much time: another worker's clients are closed at
/// the same time as ours. Those of a lost worker keep the group until their session ends.
const MEMBERS_LEAVE_WITHIN: Duration = Duration::from_secs(10);
/// Least time to wait for an answer, however little is left: that members are still there explains more than a timeout.
const ANSWER_AT_LEAST: Duration = Duration::from_millis(500);
/// Groups that are deleted with one request.
const GROUPS_PER_REQUEST: usize = 100;

/// Whether this error means that a broker will know a group in a moment: it has only just begun to coordinate its
/// groups, or another broker does so now.
fn knows_later(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::NotCoordinator
    )
}

impl Kafka {
    pub(super) fn delete_all_groups(&self, names: &[String], within: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + within;
        let members_until = deadline.min(Instant::now() + MEMBERS_LEAVE_WITHIN);
        let mut left: Vec<&str> = names.iter().map(String::as_str).collect();
        loop {
            let (mut peopled, mut later) = (Vec::new(), Vec::new());
            for some in left.chunks(GROUPS_PER_REQUEST) {
                let within = deadline.saturating_duration_since(Instant::now()).max(ANSWER_AT_LEAST);
                let results = self.runtime.block_on(self.admin.delete_groups(some, &Self::options(within)));
                for result in results.map_err(|error| Self::failure("delete groups", &error))? {
                    match result {
                        // A group that no member ever joined, or that is gone already.
                        Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)) => {}
                        Err((name, RDKafkaErrorCode::NonEmptyGroup)) => peopled.push(name),
                        Err((name, code)) if knows_later(code) && Instant::now() < deadline => later.push(name),
                        Err((name, code)) => {
                            let text = format!("the broker refuses to delete group {name}: {code}");
                            return Err(Failure::new(kind_of(code), text));
                        }
                    }
                }
            }
            if peopled.is_empty() && later.is_empty() {
                return Ok(());
            }
            if !peopled.is_empty() && Instant::now() >= members_until {
                let text = format!(
                    "{} of the run's consumer groups still have members, {} among them: `omb clean` deletes them once \
                     their sessions have ended",
                    peopled.len(),
                    peopled[0]
                );
                return Err(Failure::new(FailureKind::Refused, text));
            }
            std::thread::sleep(AGAIN_AFTER);
            left.retain(|name| peopled.iter().chain(&later).any(|other| other == name));
        }
    }

    pub(super) fn take_inventory(&self, within: Duration) -> Result<Inventory, Failure> {
        let deadline = Instant::now() + within;
        let left = || deadline.saturating_duration_since(Instant::now());
        let client = self.admin.inner();
        let metadata = client
            .fetch_metadata(None, left().min(REACH_WITHIN))
            .map_err(|error| Self::failure("ask for the topics", &error))?;
        let groups = loop {
            match client.fetch_group_list(None, left()) {
                Ok(groups) => break groups,
                Err(error) if error.rdkafka_error_code().is_some_and(knows_later) && left() > AGAIN_AFTER => {
                    std::thread::sleep(AGAIN_AFTER);
                }
                Err(error) => return Err(Self::failure("ask for the groups", &error)),
            }
        };
        let mut inventory = Inventory::default();
        for group in groups.groups() {
            let members = u32::try_from(group.members().len()).unwrap_or(u32::MAX);
            inventory.groups.insert(group.name().to_owned(), members);
        }
        for topic in metadata.topics() {
            inventory.topics.insert(topic.name().to_owned(), 0);
        }
        // Only our own are checked closely: other topics may be many, and are none of our business.
        inventory = inventory.ours();
        for topic in metadata.topics() {
            let Some(written) = inventory.topics.get_mut(topic.name()) else { continue };
            for partition in topic.partitions() {
                if left().is_zero() {
                    let text = format!("the topics' sizes could not be read within {} s", within.as_secs());
                    return Err(Failure::new(FailureKind::Unreachable, text));
                }
                match client.fetch_watermarks(topic.name(), partition.id(), left().min(REACH_WITHIN)) {
                    Ok((_, end)) => *written = written.saturating_add(u64::try_from(end).unwrap_or(0)),
                    // Deleted meanwhile, by its own run.
                    Err(error)
                        if matches!(
                            error.rdkafka_error_code(),
                            Some(
                                RDKafkaErrorCode::UnknownTopicOrPartition
                                    | RDKafkaErrorCode::UnknownTopic
                                    | RDKafkaErrorCode::UnknownPartition
                            )
                        ) => {}
                    Err(error) => return Err(Self::failure(&format!("read the size of {}", topic.name()), &error)),
                }
            }
        }
        Ok(inventory)
    }
}
