//! The 32 bytes at the front of every payload, which identify each message.
//!
//! Little-endian: magic and version u16, flags u16, producer u32, sequence u64, intended instant u64
//! (ns since the epoch, the producer's clock), sent minus intended u32 (µs, saturating), CRC-32C u32 over the
//! 28 bytes before it, and over the bytes behind the header too when the flag says so.

use crate::id::ProducerId;
use omb_machine::time::WallTime;

/// Bytes of a header; smaller payloads carry none.
pub const LEN: usize = 32;

/// "om" and format version 1.
const MAGIC: u16 = 0x6d01;
/// The payload is a probe, sent before the load to see that every path delivers; it counts nowhere.
const PROBE: u16 = 1;
/// The checksum covers the whole payload.
const FULL: u16 = 2;
const CRC_AT: usize = 28;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Who sent it.
    pub producer: ProducerId,
    /// Its number among that producer's messages, from 0.
    pub sequence: u64,
    /// When it was meant to leave, by the producer's clock.
    pub intended: WallTime,
    /// How much later it left, in µs; 71 minutes at most.
    pub late_micros: u32,
    /// Whether it is a probe.
    pub probe: bool,
}

/// What the front of a payload turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Front {
    /// A valid header (and payload, if it is checked in full).
    Sound(Header),
    /// Our magic, but the checksum does not match.
    Corrupted,
    /// No header of ours: a small payload, or a message from elsewhere.
    Foreign,
}

impl Header {
    /// Writes the header over the first 32 bytes of `payload`; `full` lets the checksum cover all of it.
    ///
    /// # Panics
    /// If `payload` is shorter than [`LEN`].
    #[inline]
    pub fn write(&self, payload: &mut [u8], full: bool) {
        let flags = if self.probe { PROBE } else { 0 } | if full { FULL } else { 0 };
        let (front, rest) = payload.split_at_mut(LEN);
        front[0..2].copy_from_slice(&MAGIC.to_le_bytes());
        front[2..4].copy_from_slice(&flags.to_le_bytes());
        front[4..8].copy_from_slice(&self.producer.0.to_le_bytes());
        front[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        front[16..24].copy_from_slice(&self.intended.0.to_le_bytes());
        front[24..28].copy_from_slice(&self.late_micros.to_le_bytes());
        let mut crc = crc32c::crc32c(&front[..CRC_AT]);
        if full {
            crc = crc32c::crc32c_append(crc, rest);
        }
        front[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    }
}

impl Front {
    /// Reads and checks the front of `payload`.
    #[inline]
    #[must_use]
    pub fn read(payload: &[u8]) -> Self {
        let Some((front, rest)) = payload.split_first_chunk::<LEN>() else { return Self::Foreign };
        let u16_at = |at: usize| u16::from_le_bytes([front[at], front[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([front[at], front[at + 1], front[at + 2], front[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if u16_at(0) != MAGIC {
            return Self::Foreign;
        }
        let flags = u16_at(2);
        let mut crc = crc32c::crc32c(&front[..CRC_AT]);
        if flags & FULL != 0 {
            crc = crc32c::crc32c_append(crc, rest);
        }
        if crc != u32_at(CRC_AT) {
            return Self::Corrupted;
        }
        Self::Sound(Header {
            producer: ProducerId(u32_at(4)),
            sequence: u64_at(8),
            intended: WallTime(u64_at(16)),
            late_micros: u32_at(24),
            probe: flags & PROBE != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header {
        producer: ProducerId(7),
        sequence: 0x0102_0304_0506_0708,
        intended: WallTime(9),
        late_micros: 3,
        probe: false,
    };

    /// The layout is a promise to other readers, so it is pinned byte for byte.
    #[test]
    fn layout_is_as_documented() {
        let mut payload = [0xee; 40];
        HEADER.write(&mut payload, false);
        assert_eq!(
            payload[..28],
            [1, 0x6d, 0, 0, 7, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]
        );
        assert_eq!(payload[28..32], crc32c::crc32c(&payload[..28]).to_le_bytes());
        assert_eq!(payload[32..], [0xee; 8]);
    }

    #[test]
    fn too_small_or_somebody_elses_is_foreign() {
        assert_eq!(Front::read(&[0; 31]), Front::Foreign);
        assert_eq!(Front::read(&[0; 64]), Front::Foreign);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(producer: u32, sequence: u64, intended: u64, late_micros: u32, probe: bool, full: bool, len in LEN..200) {
            let header = Header { producer: ProducerId(producer), sequence, intended: WallTime(intended), late_micros, probe };
            let mut payload = vec![0x5a; len];
            header.write(&mut payload, full);
            prop_assert_eq!(Front::read(&payload), Front::Sound(header));
        }

        /// Any flipped bit is noticed: in the header always, behind it when the whole payload is checked.
        #[test]
        fn a_flipped_bit_is_noticed(bit in 0..64 * 8_usize, full: bool) {
            let mut payload = vec![0x5a; 64];
            HEADER.write(&mut payload, full);
            payload[bit / 8] ^= 1 << (bit % 8);
            let front = Front::read(&payload);
            if full || bit < LEN * 8 {
                prop_assert_ne!(front, Front::Sound(HEADER));
            } else {
                prop_assert_eq!(front, Front::Sound(HEADER));
            }
        }
    }
}
