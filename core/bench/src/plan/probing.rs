//! Which probes are sent before a load, so that each path it takes is known to deliver: from a producer through a
//! partition to each subscription.
//!
//! A probe is like a message of the load: as long, with a key if messages have keys. So what the system would reject
//! during the load it rejects before it.

/// Most probes of one topic for which each producer probes each partition. Beyond that each producer sends some, and
/// each partition receives one.
pub const PAIRS_MAX: u64 = 256;

/// Bytes that one round of a worker's probes may take if all are as long as messages. Beyond that only the first of
/// each producer is as long, and the others are as short as possible.
pub const BYTES_MAX: usize = 16 << 20;

/// Probes of a topic with this many producers and partitions: pairs of the two.
#[must_use]
pub fn pairs(producers: u32, partitions: u32) -> u64 {
    let all = u64::from(producers) * u64::from(partitions);
    if all <= PAIRS_MAX { all } else { u64::from(producers.max(partitions)) }
}

/// The partitions that the producer at `place`, of `producers`, probes, each once. All producers together make
/// [`pairs`].
pub fn partitions(place: u32, producers: u32, partitions: u32) -> impl Iterator<Item = u32> {
    let all = u64::from(producers) * u64::from(partitions) <= PAIRS_MAX;
    let (first, end, step) =
        if all { (0, partitions, 1) } else { (place, producers.max(partitions), producers.max(1)) };
    (first..end).step_by(step as usize).map(move |nth| nth % partitions.max(1))
}

/// Length of a probe's payload, given the length of messages and at least `shortest` bytes; `first` of its producer,
/// and one of `count` of the worker's.
#[must_use]
pub fn len(message_size: usize, shortest: usize, first: bool, count: usize) -> usize {
    let long = message_size.max(shortest);
    if first || count.saturating_mul(long) <= BYTES_MAX { long } else { shortest }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_producer_probes_and_every_partition_is_probed() {
        for (producers, count) in [(1, 1), (3, 5), (16, 16), (16, 17), (1, 300), (300, 1), (7, 1_000), (1_000, 7)] {
            let all: Vec<(u32, u32)> = (0..producers)
                .flat_map(|place| partitions(place, producers, count).map(move |partition| (place, partition)))
                .collect();
            let distinct: BTreeSet<_> = all.iter().copied().collect();
            assert_eq!(distinct.len(), all.len(), "no pair twice");
            assert_eq!(all.len() as u64, pairs(producers, count));
            assert_eq!(distinct.iter().map(|(place, _)| place).collect::<BTreeSet<_>>().len() as u32, producers);
            assert_eq!(distinct.iter().map(|(_, to)| to).collect::<BTreeSet<_>>().len() as u32, count);
            assert!(distinct.iter().all(|(_, partition)| *partition < count));
        }
    }

    #[test]
    fn probes_are_as_long_as_messages_while_they_are_few() {
        assert_eq!((len(10, 32, true, 1), len(100, 32, false, 9), len(1 << 20, 32, false, 16)), (32, 100, 1 << 20));
        assert_eq!((len(1 << 20, 32, false, 17), len(1 << 20, 32, true, 17)), (32, 1 << 20));
    }
}
