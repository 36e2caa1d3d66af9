//! Fetch: what consumers read.

use kafka_protocol::messages::FetchRequest;
use omb_broker::{FetchPartition, Fetched, Request, TopicId, TopicRef};

use super::{Decoded, Decoding, Incoming, RESPONSE_MAX, bytes_max, millis, topic_ref};
use crate::{batch, error::result_code, outgoing::Outgoing};

impl Decoding {
    pub(super) fn fetch(&mut self) -> Decoded<Incoming> {
        let it: FetchRequest = self.body()?;
        let by_id = self.version >= 13;
        let mut partitions = Vec::new();
        for topic in &it.topics {
            for partition in &topic.partitions {
                partitions.push(FetchPartition {
                    topic: topic_ref(by_id, &topic.topic, topic.topic_id),
                    partition: partition.partition,
                    offset: partition.fetch_offset,
                    max_bytes: bytes_max(partition.partition_max_bytes),
                });
            }
        }
        Ok(self.ask(Request::Fetch {
            max_wait: millis(it.max_wait_ms),
            min_bytes: bytes_max(it.min_bytes),
            // Whatever the client accepts, a response's length has to fit in 31 bits.
            max_bytes: bytes_max(it.max_bytes).min(RESPONSE_MAX),
            partitions,
        }))
    }
}

/// A fetch response, written by hand so that the batches are sent from where they are stored.
pub(super) fn fetched(version: i16, correlation: i32, fetched: &[Fetched]) -> Outgoing {
    let flexible = version >= 12;
    let mut out = Outgoing::default();
    out.put(&correlation.to_be_bytes());
    if flexible {
        out.put(&[0]);
    }
    out.put(&0_i32.to_be_bytes()); // throttle time
    if version >= 7 {
        out.put(&0_i16.to_be_bytes()); // error of the session
        out.put(&0_i32.to_be_bytes()); // no session: every fetch names all it wants
    }
    let topics = fetched.chunk_by(|a, b| a.topic == b.topic);
    put_count(&mut out, flexible, topics.clone().count());
    for partitions in topics {
        match &partitions[0].topic {
            TopicRef::Id(TopicId(id)) => out.put(&id.to_be_bytes()),
            TopicRef::Name(name) => {
                if flexible {
                    put_varint(&mut out, name.len() + 1);
                } else {
                    out.put(&i16::try_from(name.len()).expect("it came with a length of 16 bits").to_be_bytes());
                }
                out.put(name.as_bytes());
            }
        }
        put_count(&mut out, flexible, partitions.len());
        for Fetched { partition, log_start, log_end, result, .. } in partitions {
            out.put(&partition.to_be_bytes());
            out.put(&result_code(result).to_be_bytes());
            out.put(&log_end.to_be_bytes()); // high watermark
            out.put(&log_end.to_be_bytes()); // last stable offset
            if version >= 5 {
                out.put(&log_start.to_be_bytes());
            }
            if flexible {
                out.put(&[0]); // no aborted transactions: null
            } else {
                out.put(&(-1_i32).to_be_bytes());
            }
            if version >= 11 {
                out.put(&(-1_i32).to_be_bytes()); // no better replica
            }
            let batches = result.as_deref().unwrap_or_default();
            put_count(&mut out, flexible, batches.iter().map(|batch| batch.bytes.len()).sum());
            for stored in batches {
                let prefix = batch::prefix(stored);
                out.put(&prefix);
                out.put_shared(stored.bytes.slice(prefix.len()..));
            }
            if flexible {
                out.put(&[0]);
            }
        }
        if flexible {
            out.put(&[0]);
        }
    }
    if flexible {
        out.put(&[0]);
    }
    out
}

fn put_count(out: &mut Outgoing, flexible: bool, count: usize) {
    if flexible {
        put_varint(out, count + 1);
    } else {
        out.put(&i32::try_from(count).expect("a response holds less than 2 GiB").to_be_bytes());
    }
}

fn put_varint(out: &mut Outgoing, mut value: usize) {
    while value >= 0x80 {
        out.put(&[(value & 0x7f) as u8 | 0x80]);
        value >>= 7;
    }
    out.put(&[value as u8]);
}
