//! The client, fitted to the messages it is to carry.
//!
//! Java's clients and Kafka's brokers accept a message of 1,000,000 bytes as it is; librdkafka stops at 1,000,000
//! *with* its overhead, and rejects larger ones itself. What a driver file leaves open is therefore set by the
//! workload's `messageSize`; what it sets stays, and a limit below the messages is an error before anything starts.

use super::driver::KafkaConfig;
use omb_machine::config::setting::{Setting, Settings};

/// Bytes around a message, more than enough: librdkafka counts 36 for the record, and a batch has a head of 61.
const OVERHEAD: u64 = 512;

/// What librdkafka counts beside payload and key when it decides whether a message is too large
/// (`RD_KAFKAP_MESSAGE_V2_MAX_OVERHEAD`), rounded up.
const RECORD: u64 = 40;

/// librdkafka's defaults.
const MESSAGE_MAX: u64 = 1_000_000;
const PARTITION_FETCH: u64 = 1 << 20;
const FETCH_MAX: u64 = 52_428_800;
const RECEIVE_MAX: u64 = 100_000_000;

/// Largest `message.max.bytes` that librdkafka accepts.
const MESSAGE_MAX_MOST: u64 = 1_000_000_000;

/// A setting of the driver file that keeps the workload's messages out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "messageSize: a message takes up to {needed} bytes with key and overhead, but {setting} is {value}: leave it out, \
     and it is set to what the messages need, or raise it"
)]
pub struct TooSmall {
    /// Its common name: the Java client's, with librdkafka's.
    pub setting: &'static str,
    /// The file's value, in bytes.
    pub value: u64,
    /// What it would have to be, in bytes.
    pub needed: u64,
}

/// Bytes of a batch that holds one message of this many bytes, key included, as a broker counts them against
/// `message.max.bytes`.
#[must_use]
pub fn batch_bytes(message_bytes: u64) -> u64 {
    // A signed variable integer holds one bit beside the number, and seven bits a byte.
    let varint = |number: u64| u64::from((number * 2 + 1).ilog2()) / 7 + 1;
    // The batch's head; attributes, time, offset, the key's length and the headers' count are a byte each.
    61 + varint(message_bytes + 9) + 5 + varint(message_bytes) + message_bytes
}

/// A kind of request that a driver file requires of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Its number in Kafka's protocol.
    pub key: i16,
    /// Its name there.
    pub name: &'static str,
    /// What needs it, in the driver file's terms.
    pub because: &'static str,
}

impl KafkaConfig {
    /// The requests that a worker with such clients will make.
    #[must_use]
    pub fn apis(&self, producers: bool, consumers: bool) -> Vec<Api> {
        let api = |key, name, because| Api { key, name, because };
        let mut needed = vec![api(3, "Metadata", "every client"), api(19, "CreateTopics", "every run")];
        if producers {
            needed.push(api(0, "Produce", "every producer"));
            let idempotent = text(&self.producer, "enable.idempotence") == Some("true");
            let transactional = text(&self.producer, "transactional.id").is_some_and(|it| !it.is_empty());
            if idempotent || transactional {
                needed.push(api(22, "InitProducerId", "enable.idempotence: true"));
            }
        }
        if consumers {
            needed.extend([api(1, "Fetch", "every consumer"), api(2, "ListOffsets", "every consumer")]);
            needed.extend([api(8, "OffsetCommit", "every consumer"), api(9, "OffsetFetch", "every consumer")]);
            needed.push(api(10, "FindCoordinator", "every consumer"));
            if text(&self.consumer, "group.protocol").is_some_and(|it| it.eq_ignore_ascii_case("consumer")) {
                needed.push(api(68, "ConsumerGroupHeartbeat", "group.protocol: consumer"));
            } else {
                needed.extend([api(11, "JoinGroup", "every consumer"), api(14, "SyncGroup", "every consumer")]);
            }
        }
        needed
    }

    /// Largest batch that the topics of the file take, if it sets that.
    #[must_use]
    pub fn topic_batch_max(&self) -> Option<u64> {
        number(&self.topic, "max.message.bytes")
    }

    /// Whether producers compress: then the size of a batch is not known beforehand.
    #[must_use]
    pub fn compresses(&self) -> bool {
        text(&self.producer, "compression.type").is_some_and(|kind| !kind.eq_ignore_ascii_case("none"))
    }

    /// Sets what the file leaves open so that messages of this many bytes, keys included, pass. Smaller ones change
    /// nothing.
    ///
    /// # Errors
    /// If a setting of the file is too small for them.
    pub fn fit(&mut self, message_bytes: u64) -> Result<(), TooSmall> {
        let needed = message_bytes + OVERHEAD;
        if needed > MESSAGE_MAX_MOST {
            let setting = "the largest message that the client library takes (message.max.bytes)";
            return Err(TooSmall { setting, value: MESSAGE_MAX_MOST, needed });
        }
        let too_small = |setting, value: Option<u64>, needed| match value {
            Some(value) if value < needed => Err(TooSmall { setting, value, needed }),
            _ => Ok(()),
        };
        let queue = number(&self.producer, "queue.buffering.max.kbytes").map(|kbytes| kbytes.saturating_mul(1_024));
        too_small("buffer.memory (queue.buffering.max.kbytes)", queue, message_bytes)?;
        let most = number(&self.producer, "message.max.bytes");
        too_small("max.request.size (message.max.bytes)", most, message_bytes + RECORD)?;
        raise(&mut self.producer, "message.max.bytes", MESSAGE_MAX, needed);

        let consumer = &mut self.consumer;
        // A first batch that is larger than these is delivered all the same, since Kafka 0.10.1: nothing is rejected.
        raise(consumer, "max.partition.fetch.bytes", PARTITION_FETCH, needed);
        let fetch = number(consumer, "fetch.max.bytes");
        if fetch.is_none_or(|fetch| fetch >= needed) {
            raise(consumer, "message.max.bytes", MESSAGE_MAX, needed);
        }
        let answer = fetch.unwrap_or(FETCH_MAX).max(needed) + OVERHEAD;
        let receive = number(consumer, "receive.message.max.bytes");
        too_small("receive.message.max.bytes", receive, needed)?;
        raise(consumer, "receive.message.max.bytes", RECEIVE_MAX, answer);
        Ok(())
    }
}

fn text<'a>(settings: &'a Settings, name: &str) -> Option<&'a str> {
    settings.get(name).and_then(Setting::text).map(str::trim)
}

fn number(settings: &Settings, name: &str) -> Option<u64> {
    text(settings, name)?.parse().ok()
}

/// Sets what is not given and would be too small by default.
fn raise(settings: &mut Settings, name: &str, default: u64, needed: u64) {
    if needed > default && !settings.contains_key(name) {
        settings.insert(name.to_owned(), needed.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(producer: &[(&str, &str)], consumer: &[(&str, &str)]) -> KafkaConfig {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), Setting::from(*v))).collect();
        KafkaConfig { producer: map(producer), consumer: map(consumer), ..KafkaConfig::default() }
    }

    #[test]
    fn small_messages_change_nothing() {
        let mut config = with(&[("acks", "all")], &[]);
        config.fit(999_000).expect("they pass");
        assert_eq!(config, with(&[("acks", "all")], &[]));
    }

    #[test]
    fn a_batch_of_one_is_counted_as_the_broker_does() {
        // 61 of the head; 3 for the record's length, 5 single bytes, 3 for the payload's length.
        assert_eq!(batch_bytes(1_000_000), 1_000_072);
        assert_eq!(batch_bytes(10), 10 + 61 + 1 + 5 + 1);
        assert_eq!(batch_bytes(0), 67 + 1);
    }

    #[test]
    fn what_the_file_needs_of_the_broker() {
        let keys = |config: &KafkaConfig, producers, consumers| -> Vec<i16> {
            config.apis(producers, consumers).into_iter().map(|api| api.key).collect()
        };
        let plain = with(&[], &[]);
        assert_eq!(keys(&plain, true, false), [3, 19, 0]);
        assert!(keys(&plain, true, true).contains(&11) && !keys(&plain, true, true).contains(&68));
        let newer = with(&[("enable.idempotence", "true")], &[("group.protocol", "consumer")]);
        assert!(keys(&newer, true, false).contains(&22) && !keys(&newer, false, true).contains(&22));
        assert!(keys(&newer, false, true).contains(&68) && !keys(&newer, false, true).contains(&11));
    }

    #[test]
    fn a_megabyte_passes_by_itself() {
        let mut config = with(&[], &[]);
        config.fit(1_000_000).expect("they pass");
        assert_eq!(config, with(&[("message.max.bytes", "1000512")], &[("message.max.bytes", "1000512")]));
    }

    #[test]
    fn the_reader_grows_with_the_messages() {
        let mut config = with(&[], &[]);
        config.fit(200_000_000).expect("they pass");
        let needed = "200000512";
        let consumer = [
            ("max.partition.fetch.bytes", needed),
            ("message.max.bytes", needed),
            ("receive.message.max.bytes", "200001024"),
        ];
        assert_eq!(config, with(&[("message.max.bytes", needed)], &consumer));
        // What the file sets stays.
        let given = [("fetch.max.bytes", "2000000"), ("max.partition.fetch.bytes", "1000")];
        let mut config = with(&[], &given);
        config.fit(3_000_000).expect("they pass");
        assert_eq!(config.consumer, with(&[], &given).consumer);
    }

    #[test]
    fn what_the_file_says_is_not_overruled() {
        let refused = |producer: &[(&str, &str)], consumer: &[(&str, &str)], bytes| {
            let before = with(producer, consumer);
            let mut config = before.clone();
            let error = config.fit(bytes).expect_err("it is too small");
            error.to_string()
        };
        assert_eq!(
            refused(&[("message.max.bytes", "1000000")], &[], 1_000_000),
            "messageSize: a message takes up to 1000040 bytes with key and overhead, but max.request.size \
             (message.max.bytes) is 1000000: leave it out, and it is set to what the messages need, or raise it"
        );
        assert!(refused(&[("queue.buffering.max.kbytes", "10")], &[], 20_000).contains("buffer.memory"));
        assert!(refused(&[], &[("receive.message.max.bytes", "5000")], 20_000).contains("receive.message.max.bytes"));
        assert!(refused(&[], &[], 1_000_000_000).contains("the client library takes"));
        with(&[("message.max.bytes", "2000000")], &[]).fit(1_000_000).expect("it is large enough");
    }
}
