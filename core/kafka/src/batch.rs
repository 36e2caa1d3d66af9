//! Record batches as they come and go: the fields of their first 61 bytes. The records are never read.

use bytes::Bytes;
use omb_broker::{NewBatch, ProducerStamp, StoredBatch};

use crate::error::code;

/// The header of a batch of magic 2, up to its first record.
const HEADER: usize = 61;
/// Bytes before those that the batch's own length covers.
const PREFIX: usize = 12;
const MAGIC: usize = 16;
const CRC: usize = 17;
const CRC_FROM: usize = 21;
/// Bits of the attributes that a batch must not have: transactional and control. Codec (0-2) and timestamp type (3) are
/// allowed.
const TRANSACTIONAL_OR_CONTROL: i16 = 0x30;

/// Checks a batch and reads what the broker needs to know of it. The error is the protocol's code.
///
/// The bytes are copied: as a slice of the socket's buffer, one small batch would keep the whole buffer alive.
pub fn parse(records: Option<&Bytes>) -> Result<NewBatch, i16> {
    let bytes = records.filter(|bytes| bytes.len() >= HEADER).ok_or(code::CORRUPT_MESSAGE)?;
    if bytes[MAGIC] != 2 {
        return Err(code::UNSUPPORTED_FOR_MESSAGE_FORMAT);
    }
    // Exactly one batch per partition, as Kafka requires too.
    if i64::from(i32_at(bytes, 8)) + PREFIX as i64 != bytes.len() as i64 {
        return Err(code::CORRUPT_MESSAGE);
    }
    if crc32c::crc32c(&bytes[CRC_FROM..]) != i32_at(bytes, CRC).cast_unsigned() {
        return Err(code::CORRUPT_MESSAGE);
    }
    let count = i32_at(bytes, 57);
    let attributes = i16::from_be_bytes([bytes[21], bytes[22]]);
    let (base_timestamp, max_timestamp_ms) = (i64_at(bytes, 27), i64_at(bytes, 35));
    let sane = count > 0 && i32_at(bytes, 23) == count - 1 && max_timestamp_ms >= base_timestamp.min(-1);
    if !sane || attributes & TRANSACTIONAL_OR_CONTROL != 0 {
        return Err(code::INVALID_RECORD);
    }
    let producer = ProducerStamp {
        id: i64_at(bytes, 43),
        epoch: i16::from_be_bytes([bytes[51], bytes[52]]),
        sequence: i32_at(bytes, 53),
    };
    if producer.id >= 0 && (producer.epoch < 0 || producer.sequence < 0) {
        return Err(code::INVALID_RECORD);
    }
    Ok(NewBatch {
        records: count.cast_unsigned(),
        max_timestamp_ms,
        producer: (producer.id >= 0).then_some(producer),
        bytes: Bytes::copy_from_slice(bytes),
    })
}

/// The first bytes of a stored batch as it is sent, in place of as many of its own. Its offset is not covered by its
/// checksum.
pub fn prefix(batch: &StoredBatch) -> [u8; 8] {
    batch.base_offset.to_be_bytes()
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(*bytes[at..].first_chunk().expect("the header is there"))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(*bytes[at..].first_chunk().expect("the header is there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch with a valid header, for 3 records of idempotent producer 7.
    fn good() -> Vec<u8> {
        let mut bytes = vec![0; HEADER + 30];
        let length = (bytes.len() - PREFIX) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[MAGIC] = 2;
        bytes[23..27].copy_from_slice(&2_i32.to_be_bytes());
        bytes[35..43].copy_from_slice(&99_i64.to_be_bytes());
        bytes[43..51].copy_from_slice(&7_i64.to_be_bytes());
        bytes[57..61].copy_from_slice(&3_i32.to_be_bytes());
        sealed(bytes)
    }

    fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
        let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
        bytes[CRC..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    #[track_caller]
    fn refuses(bytes: Vec<u8>, want: i16) {
        assert_eq!(parse(Some(&bytes.into())), Err(want));
    }

    #[test]
    fn reads_the_header() {
        let batch = parse(Some(&good().into())).expect("a good batch");
        assert_eq!((batch.records, batch.max_timestamp_ms), (3, 99));
        assert_eq!(batch.producer, Some(ProducerStamp { id: 7, epoch: 0, sequence: 0 }));
    }

    #[test]
    fn refuses_what_is_damaged() {
        assert_eq!(parse(None), Err(code::CORRUPT_MESSAGE));
        refuses(good()[..60].to_vec(), code::CORRUPT_MESSAGE);
        refuses(good()[..80].to_vec(), code::CORRUPT_MESSAGE);
        refuses([good(), good()].concat(), code::CORRUPT_MESSAGE);
        let changed = |at: usize, byte: u8| {
            let mut bytes = good();
            bytes[at] = byte;
            bytes
        };
        refuses(changed(HEADER + 5, 1), code::CORRUPT_MESSAGE);
        refuses(changed(MAGIC, 1), code::UNSUPPORTED_FOR_MESSAGE_FORMAT);
        refuses(sealed(changed(60, 4)), code::INVALID_RECORD);
        refuses(sealed(changed(22, 0x10)), code::INVALID_RECORD);
    }
}
