//! What a node remembers of its uploads beside their files: each one's file name, owner and time.
//!
//! ```text
//! omb uploads 1\n                                             first in the file
//! length u32 | CRC-32C u32 | record (length bytes)            little-endian; one after the other
//! 0 0 0 0 ..                                                  space allocated in advance, or the end of the file
//! ```
//!
//! A record is appended before its upload is acknowledged, so a record whose file is missing means a loss. A crash may
//! leave the last one torn: it fails its checksum and is dropped, and was not acknowledged. Damage in the middle is
//! skipped, and the records after it are found again.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Entry, Stored};
use crate::peer::{Label, RequestId};
use omb_machine::encoding;

/// The first bytes of the file.
pub const HEADER: &[u8] = b"omb uploads 1\n";

/// Bytes of the longest record, without length and checksum: a name and an owner of full length are below 700.
const RECORD_MAX: usize = 1 << 10;

/// Length and checksum.
const FRAME: usize = 8;

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// An upload is stored. A later record of the same upload replaces it, but a label once recorded stays known.
    Stored {
        /// The file in the shared folder.
        stored: Stored,
        /// What its client said of it; `None` if that is unknown.
        label: Option<Label>,
    },
    /// Its loss was accepted.
    Forgotten(RequestId),
}

impl Record {
    /// Applies this record to the remembered entries.
    pub fn remember(self, entries: &mut BTreeMap<RequestId, Entry>) {
        match self {
            Self::Stored { stored, label } => {
                // The record of a file found at start may be written after its client has tried again.
                let former = entries.remove(&stored.name.id).filter(|former| former.stored == stored);
                let label = label.or(former.and_then(|former| former.label));
                entries.insert(stored.name.id, Entry { stored, label });
            }
            Self::Forgotten(id) => _ = entries.remove(&id),
        }
    }

    /// The bytes that are appended.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let record = encoding::encode(self);
        assert!(record.len() <= RECORD_MAX, "names and owners are bounded");
        let length = u32::try_from(record.len()).expect("it was compared");
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend(crc32c::crc32c(&record).to_le_bytes());
        bytes.extend(record);
        bytes
    }
}

/// The content of a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Uploads that it remembers.
    pub entries: BTreeMap<RequestId, Entry>,
    /// Where the next record goes: after the last sound one.
    pub end: usize,
    /// Records in it, also those that were replaced.
    pub records: u64,
    /// Bytes that are neither a record nor empty: a torn end, or damage.
    pub dropped: usize,
}

/// Reads a whole journal, whatever is in it.
#[must_use]
pub fn scan(bytes: &[u8]) -> Scanned {
    let mut scanned = Scanned { end: HEADER.len(), ..Scanned::default() };
    let mut at = if bytes.starts_with(HEADER) { HEADER.len() } else { 0 };
    while at < bytes.len() {
        match record(&bytes[at..]) {
            Some((record, taken)) => {
                at += taken;
                scanned.end = at;
                scanned.records += 1;
                record.remember(&mut scanned.entries);
            }
            None => {
                scanned.dropped += usize::from(bytes[at] != 0);
                at += 1;
            }
        }
    }
    scanned
}

/// The record at the beginning of these bytes, and its length.
fn record(bytes: &[u8]) -> Option<(Record, usize)> {
    let (length, rest) = bytes.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    if !(1..=RECORD_MAX).contains(&length) {
        return None;
    }
    let (checksum, rest) = rest.split_first_chunk()?;
    let record = rest.get(..length)?;
    if crc32c::crc32c(record) != u32::from_le_bytes(*checksum) {
        return None;
    }
    Some((encoding::decode(record).ok()?, FRAME + length))
}

/// A journal of exactly these entries.
#[must_use]
pub fn whole<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<u8> {
    let mut bytes = HEADER.to_vec();
    for Entry { stored, label } in entries {
        bytes.extend(Record::Stored { stored: *stored, label: label.clone() }.encode());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        peer::{Digest, FileName, User},
        store::{Kind, Name},
    };
    use omb_machine::time::WallTime;

    fn entry(id: u128, file: &str) -> Entry {
        let name = Name { id: RequestId(id), digest: Digest::of(file.as_bytes()), kind: Kind::Bin };
        let label = Label {
            file: FileName::try_from(file.to_owned()).expect("a name"),
            owner: User::try_from("ann".to_owned()).expect("a name"),
            at: WallTime(7),
        };
        Entry { stored: Stored { name, bytes: 3 }, label: Some(label) }
    }

    #[test]
    fn the_last_word_counts() {
        let (first, second) = (entry(1, "a.png"), entry(2, "b.png"));
        let nameless = Entry { label: None, ..second.clone() };
        let mut bytes = whole([&first, &nameless].into_iter());
        bytes.extend(Record::Forgotten(RequestId(1)).encode());
        let label = second.label.clone();
        bytes.extend(Record::Stored { stored: second.stored, label }.encode());
        bytes.extend(Record::Stored { stored: second.stored, label: None }.encode());
        let end = bytes.len();
        bytes.extend([0; 100]);
        let scanned = scan(&bytes);
        assert_eq!(scanned.entries, [(RequestId(2), second)].into());
        assert_eq!((scanned.end, scanned.records, scanned.dropped), (end, 5, 0));
        assert_eq!(scan(b"").entries, BTreeMap::new());
    }

    #[test]
    fn the_longest_record_fits() {
        let file = FileName::try_from("x".repeat(FileName::BYTES_MAX)).expect("a name");
        let owner = User::try_from("𝄞".repeat(64)).expect("a name");
        let Entry { stored, .. } = entry(u128::MAX, "a");
        let label = Label { file, owner, at: WallTime(u64::MAX) };
        let stored = Stored { bytes: u64::MAX, ..stored };
        let longest = Entry { stored, label: Some(label) };
        let bytes = whole([&longest].into_iter());
        assert!(bytes.len() < 700, "{}", bytes.len());
        assert!(encoding::encode(&longest).len() <= longest.cost(), "what a page reckons with");
        assert_eq!(scan(&bytes).entries.len(), 1);
    }

    proptest! {
        /// Wherever a crash tears it, all earlier records are there, and nothing that was never written.
        #[test]
        fn a_torn_end_is_dropped(count in 1..8_u128, torn in 0..400_usize, zeroed: bool) {
            let entries: Vec<Entry> = (0..count).map(|id| entry(id, &format!("file-{id}.png"))).collect();
            let whole = whole(entries.iter());
            let cut = whole.len().saturating_sub(torn).max(HEADER.len());
            let mut bytes = whole.clone();
            if zeroed {
                bytes[cut..].fill(0);
            } else {
                bytes.truncate(cut);
            }
            let scanned = scan(&bytes);
            prop_assert!(scanned.end <= cut);
            let sound = scanned.entries.len();
            prop_assert_eq!(scanned.entries.into_values().collect::<Vec<_>>(), &entries[..sound]);
            let rest: usize = entries[sound..].iter().map(|it| super::whole([it].into_iter()).len() - HEADER.len()).sum();
            prop_assert!(cut < whole.len() - rest + (rest / (entries.len() - sound).max(1)).max(1), "no whole one is missing");
        }

        /// Damage in the middle costs only the record that it hits.
        #[test]
        fn damage_costs_what_it_hits(at in 0..2_000_usize, flip in 1..=255_u8) {
            let entries: Vec<Entry> = (0..6).map(|id| entry(id, &format!("file-{id}.png"))).collect();
            let mut bytes = whole(entries.iter());
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(scan(&bytes).entries.len() >= entries.len() - 1, "byte {}", at);
        }

        #[test]
        fn whatever_is_there_is_read(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = scan(&bytes);
        }
    }
}
