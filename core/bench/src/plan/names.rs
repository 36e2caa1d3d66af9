//! The names of a run's topics and groups on the broker. They carry the run's id, which tells what a dead run left
//! behind from other people's topics, and from those of a run in progress.

use crate::id::{RunId, SubscriptionId, TopicIndex};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
}

/// Begins a topic's name, as upstream's do.
const TOPIC: &str = "test-topic-";
/// Begins a group's name, as upstream's do.
const GROUP: &str = "sub-";
/// Precedes the run's id. Upstream ends its names in 7 characters of base64, so none of its names is one of ours.
const RUN: &str = "-omb-";

/// A topic: `test-topic-0000003-omb-0006b49d20012345`.
#[must_use]
pub fn topic(run: RunId, topic: TopicIndex) -> String {
    format!("{TOPIC}{:07}{RUN}{run}", topic.0)
}

/// A subscription's group: `sub-0000003-omb-0006b49d20012345`, the number being the subscription's over the whole run.
#[must_use]
pub fn group(run: RunId, subscription: SubscriptionId) -> String {
    format!("{GROUP}{:07}{RUN}{run}", subscription.0)
}

/// The run that a topic or group of this name belongs to; `None` if it is none of ours.
#[must_use]
pub fn run_of(kind: Kind, name: &str) -> Option<RunId> {
    let prefix = match kind {
        Kind::Topic => TOPIC,
        Kind::Group => GROUP,
    };
    let (number, run) = name.strip_prefix(prefix)?.split_once(RUN)?;
    let decimal = number.len() >= 7 && number.bytes().all(|byte| byte.is_ascii_digit());
    let hex = run.len() == 16 && run.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !decimal || !hex {
        return None;
    }
    u64::from_str_radix(run, 16).ok().map(RunId)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_read_as_documented() {
        let run = RunId(0x0006_b49d_2001_2345);
        assert_eq!(topic(run, TopicIndex(3)), "test-topic-0000003-omb-0006b49d20012345");
        assert_eq!(group(run, SubscriptionId(12)), "sub-0000012-omb-0006b49d20012345");
    }

    /// A topic must not be lost because its name resembles one of ours.
    #[test]
    fn other_peoples_names_are_not_ours() {
        for name in [
            "",
            "orders",
            "test-topic-",
            // Upstream's.
            "test-topic-0000003-Ab3_x9Q",
            "test-topic-0000003-omb-0006b49d2001234",
            "test-topic-0000003-omb-0006b49d200123456",
            "test-topic-0000003-omb-0006B49D20012345",
            "test-topic-0000003-omb-+006b49d20012345",
            "test-topic-3-omb-0006b49d20012345",
            "test-topic-000000x-omb-0006b49d20012345",
            "test-topic-0000003-omb-0006b49d20012345-dlq",
            "my-test-topic-0000003-omb-0006b49d20012345",
            "sub-0000003-omb-0006b49d20012345",
        ] {
            assert_eq!(run_of(Kind::Topic, name), None, "{name}");
        }
        assert_eq!(run_of(Kind::Group, "test-topic-0000003-omb-0006b49d20012345"), None);
        assert_eq!(run_of(Kind::Group, "sub-003-Ab3_x9Q"), None);
    }

    proptest! {
        #[test]
        fn every_name_leads_back_to_its_run(run in any::<u64>(), number in any::<u32>()) {
            let run = RunId(run);
            prop_assert_eq!(run_of(Kind::Topic, &topic(run, TopicIndex(number))), Some(run));
            prop_assert_eq!(run_of(Kind::Group, &group(run, SubscriptionId(number))), Some(run));
            prop_assert_eq!(run_of(Kind::Group, &topic(run, TopicIndex(number))), None);
        }
    }
}
