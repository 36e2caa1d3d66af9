//! Producers that share a client, and consumers that share a thread, where each has so little to do that one of its own
//! would only cost memory: a client of librdkafka has some threads and connections of its own, idle or not.
//!
//! Producers that share a client share its connections, and a broker takes one request of a connection after another,
//! so that the messages of one wait for those of the others. So the limits here are low: where a request takes 5 ms, 50
//! of them a second fill a quarter of a connection's time, and wait for 0.8 ms on average. Few producers, or busy ones,
//! never share. Consumers never share a client: each is a member of its own group. They share a thread of ours, which
//! handles what their clients have received.

use super::{Plan, Share};
use crate::config::workload::{Clients, RateGoal};
use omb_machine::quantity::counted;

/// With no more of them than this on one worker each has its own; with more there are never fewer clients than this.
pub const OWN_MAX: u64 = 16;
/// Messages per second that a client may have to send for all that share it, or a thread to receive.
pub const RATE_MAX: u64 = 50;
/// The same in bytes per second: 100 KiB.
pub const BYTES_PER_SECOND_MAX: u64 = 100 << 10;
/// Most that share one.
pub const MEMBERS_MAX: u64 = 64;

/// Buffers for payloads that a producer allocates at a time, as it needs them, if it has a client of its own.
pub const BUFFERS_OWN: usize = 1_024;

/// The most and the fewest that it allocates at a time if it shares one: too few would send the same payload all the
/// time.
const BUFFERS_SHARED: (usize, usize) = (64, 4);

/// Bytes of those, if they are not the fewest.
const BUFFERS_SHARED_BYTES: usize = 64 << 10;

/// Bytes of all buffers that the producers of one client may have: as much as librdkafka's own default of 1 GiB would
/// allow, but limited to what a small machine has. A queue of 64 MiB is far more than any broker has in flight.
pub const BUFFER_BYTES_MAX: usize = 64 << 20;

/// Buffers for payloads of `size` bytes that a producer allocates at a time: a power of two.
#[must_use]
pub fn buffers(size: usize, shared: bool) -> usize {
    if !shared {
        return BUFFERS_OWN;
    }
    let (most, fewest) = BUFFERS_SHARED;
    1 << (BUFFERS_SHARED_BYTES / size.max(1)).clamp(fewest, most).ilog2()
}

/// What each producer, or each consumer, of a run has to do, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    /// This many messages ..
    messages: u128,
    /// .. in this many seconds.
    seconds: u128,
    /// Bytes of a message.
    bytes: u128,
}

impl Load {
    /// How many are needed so that none has more to do than is allowed, if `members` with this load share them; `apart`
    /// of the members must not share.
    fn shared_by(self, members: u64, apart: u64) -> u64 {
        let together = |most: u64, each: u128| (u128::from(most) * self.seconds).checked_div(each).unwrap_or(u128::MAX);
        let by_rate = together(RATE_MAX, self.messages);
        let by_bytes = together(BYTES_PER_SECOND_MAX, self.messages.saturating_mul(self.bytes));
        let together = by_rate.min(by_bytes).clamp(1, MEMBERS_MAX.into());
        let needed = u64::try_from(u128::from(members).div_ceil(together)).unwrap_or(members);
        needed.max(OWN_MAX).max(apart).min(members)
    }
}

/// The most that the whole run sends, as messages in seconds; `None` if it is as much as holds, or nothing may be
/// shared.
fn highest(plan: &Plan) -> Option<(u128, u128)> {
    let workload = &plan.workload;
    if workload.clients == Clients::Own {
        return None;
    }
    match &workload.rate {
        RateGoal::Search => None,
        RateGoal::Fixed(rate) => {
            let (messages, seconds) = rate.fraction();
            Some((messages.into(), seconds.into()))
        }
        RateGoal::Listed(list) => Some((list.points().iter().map(|point| point.milli).max()?.into(), 1_000)),
    }
}

/// How many clients the producers of a share have.
#[must_use]
pub fn producer_clients(plan: &Plan, share: &Share<'_>) -> u64 {
    let members = share.producers.len() as u64;
    let Some((messages, seconds)) = highest(plan) else { return members };
    let load = Load {
        messages,
        seconds: seconds * plan.producers.len().max(1) as u128,
        bytes: plan.workload.largest_message().into(),
    };
    // Several producers of one topic are meant to be several connections. They are adjacent.
    let of_topic = share.producers.chunk_by(|a, b| a.topic == b.topic).map(<[_]>::len).max().unwrap_or(0);
    load.shared_by(members, of_topic as u64)
}

/// How many threads of ours receive for the consumers of a share.
#[must_use]
pub fn receiving_threads(plan: &Plan, share: &Share<'_>) -> u64 {
    let (members, workload) = (share.consumers.len() as u64, &plan.workload);
    // A backlog is drained as fast as possible.
    let Some((messages, seconds)) = highest(plan).filter(|_| workload.backlog.is_none()) else { return members };
    // In a group with more members than partitions some have nothing to read, and others more.
    let readers = workload.consumers_per_subscription.min(workload.partitions_per_topic).max(1);
    let load = Load {
        messages,
        seconds: seconds * u128::from(workload.topics.max(1)) * u128::from(readers),
        bytes: workload.largest_message().into(),
    };
    load.shared_by(members, 0)
}

/// Distributes adjacent members over this many: the number that each gets.
pub fn dealt(among: u64) -> impl Iterator<Item = u32> {
    (0..u32::try_from(among).unwrap_or(u32::MAX)).cycle()
}

/// How many clients the producers of the whole run have, over all workers.
#[must_use]
pub fn all_producer_clients(plan: &Plan) -> u64 {
    plan.shares().iter().map(|share| producer_clients(plan, share)).sum()
}

/// How many clients the producers of a run have, in a sentence, if they share them.
#[must_use]
pub fn in_words(plan: &Plan) -> Option<String> {
    let (producers, clients) = (plan.producers.len() as u64, all_producer_clients(plan));
    (clients < producers).then(|| {
        format!(
            "{} share {}, each with connections of its own, for each has little to send; consumers have one each. `clients: \
             own` in the workload gives every producer its own.",
            counted(producers, "producer"),
            counted(clients, "client"),
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::workload::{self, Workload},
        id::RunId,
        rate::Rate,
    };
    use omb_machine::{config::Leniency, seed::Seed};

    /// A plan of a workload with these keys beside the usual ones.
    fn plan(workers: u32, topics: u32, keys: &str) -> Plan {
        let with = |key: &str, usual: &str| {
            if keys.contains(key) { String::new() } else { format!("{key}: {usual}\n") }
        };
        let mut text = format!(
            "name: w\ntopics: {topics}\nuseRandomizedPayloads: true\nrandomBytesRatio: 0.5\nrandomizedPayloadPoolSize: 1\n\
             testDurationMinutes: 1\n{keys}\n"
        );
        for (key, usual) in [
            ("partitionsPerTopic", "1"),
            ("messageSize", "100"),
            ("producersPerTopic", "1"),
            ("subscriptionsPerTopic", "1"),
            ("consumerPerSubscription", "1"),
        ] {
            text += &with(key, usual);
        }
        if !keys.contains("producerRate") {
            text += "producerRate: 400\n";
        }
        let parsed = workload::parse("w.yaml", &text, Leniency::Strict).expect("it is sound");
        Plan::new(RunId(1), Seed(1), parsed.value, workers)
    }

    /// Clients of the producers and threads for the consumers, of the first worker.
    fn shared(plan: &Plan) -> (u64, u64) {
        let share = &plan.shares()[0];
        (producer_clients(plan, share), receiving_threads(plan, share))
    }

    #[test]
    fn few_have_their_own_and_of_more_there_are_no_fewer() {
        for (topics, expected) in [(1, 1), (16, 16), (17, 16), (300, 16), (1_024, 16), (1_025, 17)] {
            assert_eq!(shared(&plan(1, topics, "")), (expected, expected), "{topics} topics");
        }
        // The limit counts those of one worker.
        assert_eq!(shared(&plan(20, 300, "")), (15, 15));
        assert_eq!(all_producer_clients(&plan(20, 300, "")), 300);
        assert_eq!(all_producer_clients(&plan(10, 300, "")), 160);
        assert_eq!(in_words(&plan(20, 300, "")), None);
        let sentence = in_words(&plan(10, 300, "")).expect("they are shared");
        assert!(
            sentence.starts_with("300 producers share 160 clients, each with connections of its own"),
            "{sentence}"
        );
    }

    #[test]
    fn buffers_are_as_many_as_fit() {
        let sizes = [(1, 64), (1_024, 64), (1_025, 32), (2_048, 32), (16_384, 4), (16_385, 4), (1 << 20, 4)];
        assert_eq!(sizes.map(|(size, _)| buffers(size, true)), sizes.map(|(_, expected)| expected));
        assert_eq!(buffers(1 << 20, false), BUFFERS_OWN);
    }

    #[test]
    fn no_client_has_more_to_send_than_fifty_messages_a_second() {
        for (rate, expected) in [("800", 16), ("801", 17), ("1600", 32), ("8000", 160), ("8001", 320)] {
            let plan = plan(1, 320, &format!("producerRate: {rate}"));
            assert_eq!(shared(&plan), (expected, expected), "{rate}");
        }
        assert_eq!(shared(&plan(1, 300, "producerRate: 3000000")), (300, 300), "each is busy");
        assert_eq!(shared(&plan(1, 300, "producerRate: 0.5")), (16, 16));
        assert_eq!(shared(&plan(1, 300, "producerRate: 0")), (300, 300), "as much as holds");
    }

    #[test]
    fn nor_more_than_a_hundred_kib() {
        let with = |size: u32, rate: u32| plan(1, 320, &format!("messageSize: {size}\nproducerRate: {rate}"));
        assert_eq!(shared(&with(102_400, 16)), (16, 16));
        assert_eq!(shared(&with(102_400, 17)), (18, 18));
        assert_eq!(shared(&with(102_401, 16)), (17, 17));
        assert_eq!(shared(&with(10_240_000, 300)), (320, 320));
        let keyed = |size: u32| {
            plan(1, 320, &format!("messageSize: {size}\nproducerRate: 16\nkeyDistributor: KEY_ROUND_ROBIN"))
        };
        assert_eq!(shared(&keyed(102_390)), (16, 16), "with its key a message is as long as is allowed");
        assert_eq!(shared(&keyed(102_391)), (17, 17));
    }

    #[test]
    fn a_list_counts_by_its_highest_point() {
        let listed = |high: u32| plan(1, 320, &format!("producerRateList: [[0, 10], [1, {high}], [2, 0]]"));
        assert_eq!(shared(&listed(800)), (16, 16));
        assert_eq!(shared(&listed(801)), (17, 17));
    }

    #[test]
    fn producers_of_one_topic_have_connections_of_their_own() {
        let plan = plan(1, 10, "producersPerTopic: 40\nproducerRate: 10");
        let share = &plan.shares()[0];
        let clients = producer_clients(&plan, share);
        assert_eq!(clients, 40);
        for producers in share.producers.iter().zip(dealt(clients)).collect::<Vec<_>>().chunks(40) {
            let mut numbers: Vec<u32> = producers.iter().map(|(_, client)| *client).collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), 40, "none shares with another of its topic");
        }
    }

    #[test]
    fn what_drains_a_backlog_or_was_asked_for_is_not_shared() {
        assert_eq!(shared(&plan(1, 300, "consumerBacklogSizeGB: 1")), (16, 300));
        assert_eq!(shared(&plan(1, 300, "clients: own")), (300, 300));
        assert_eq!(shared(&plan(1, 300, "clients: shared")), (16, 16));
    }

    #[test]
    fn each_subscription_reads_it_all_and_a_group_only_as_wide_as_its_topic() {
        // 25 msg/s of each topic are sent, and received twice.
        assert_eq!(shared(&plan(1, 40, "producerRate: 1000\nsubscriptionsPerTopic: 2")), (20, 40));
        // Of three members on one partition one reads everything.
        assert_eq!(shared(&plan(1, 40, "producerRate: 800\nconsumerPerSubscription: 3")).1, 60);
        let wide = plan(1, 40, "producerRate: 2400\nconsumerPerSubscription: 3\npartitionsPerTopic: 3");
        assert_eq!(shared(&wide).1, 60);
        assert_eq!(shared(&plan(1, 40, "subscriptionsPerTopic: 0\nconsumerPerSubscription: 0")), (16, 0));
    }

    proptest! {
        /// Whatever the workload is, no client is left without a producer, and none has more than it may.
        #[test]
        fn loads_stay_below_the_limits(
            topics in 1_u32..2_000,
            producers in 1_u32..40,
            rate in 1_u64..100_000,
            size in 1_u32..200_000,
            workers in 1_u32..5,
        ) {
            let base = plan(1, 1, "");
            let workload = Workload {
                topics,
                producers_per_topic: producers,
                rate: RateGoal::Fixed(Rate::per_second(rate).expect("above zero")),
                message_size: size,
                ..base.workload
            };
            let plan = Plan::new(RunId(1), Seed(1), workload, workers);
            for share in plan.shares() {
                let members = share.producers.len() as u64;
                let clients = producer_clients(&plan, &share);
                prop_assert!(clients >= members.min(OWN_MAX) && clients <= members);
                if clients == members {
                    continue;
                }
                // The fullest one has this many.
                let fullest = members.div_ceil(clients);
                prop_assert!(fullest <= MEMBERS_MAX);
                let load = members as f64 / clients as f64 * rate as f64 / plan.producers.len() as f64;
                prop_assert!(load <= RATE_MAX as f64 * 1.000_001);
                prop_assert!(load * f64::from(size) <= BYTES_PER_SECOND_MAX as f64 * 1.000_001);
            }
        }
    }
}
