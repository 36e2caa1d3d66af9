//! Keys: a table of 10,000, and the ways to walk it that upstream knows (`KeyDistributor.java`).

use rand::Rng;

use crate::config::workload::KeyDistributor;
use omb_machine::seed::Seed;

/// Keys in the table.
pub const COUNT: usize = 10_000;
pub use crate::config::workload::KEY_LEN as LEN;

/// The keys of a run; the same on every worker, since they follow from the run's seed.
#[derive(Clone, Debug)]
pub struct KeyTable(Vec<[u8; LEN]>);

impl KeyTable {
    /// The table that belongs to `seed`.
    #[must_use]
    pub fn new(seed: Seed) -> Self {
        use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
        let mut rng = seed.stream("keys");
        let key = |_| {
            let mut bytes = [0; 7];
            rng.fill_bytes(&mut bytes);
            let mut key = [0; LEN];
            URL_SAFE_NO_PAD.encode_slice(bytes, &mut key).expect("7 bytes make 10 characters");
            key
        };
        Self((0..COUNT).map(key).collect())
    }

    /// The key at `index`, modulo the table's length.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> &[u8; LEN] {
        &self.0[index % COUNT]
    }
}

/// One sending thread's walk through the table.
#[derive(Clone, Debug)]
pub struct KeyWalk {
    how: KeyDistributor,
    at: usize,
}

impl KeyWalk {
    /// A walk that begins before index 1, as upstream's does.
    #[must_use]
    pub fn new(how: KeyDistributor) -> Self {
        Self { how, at: 0 }
    }

    /// The next key's index; `None` if messages carry none. `now_ns` is the monotonic clock.
    #[inline]
    pub fn next(&mut self, now_ns: u64) -> Option<usize> {
        match self.how {
            KeyDistributor::NoKey => None,
            KeyDistributor::RoundRobin => {
                self.at = if self.at + 1 == COUNT { 0 } else { self.at + 1 };
                Some(self.at)
            }
            KeyDistributor::RandomNano => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "upstream takes the low 32 bits, as a signed number"
                )]
                let low = now_ns as i32;
                Some((low % 10_000).unsigned_abs() as usize)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_robin_begins_at_one_and_wraps() {
        let mut walk = KeyWalk::new(KeyDistributor::RoundRobin);
        assert_eq!((walk.next(0), walk.next(0)), (Some(1), Some(2)));
        assert_eq!((3..COUNT).map(|_| walk.next(0)).last(), Some(Some(COUNT - 1)));
        assert_eq!(walk.next(0), Some(0));
    }

    #[test]
    fn random_nano_takes_the_low_bits_as_signed() {
        let mut walk = KeyWalk::new(KeyDistributor::RandomNano);
        assert_eq!(walk.next(123_456), Some(3_456));
        assert_eq!(walk.next(0xffff_ffff), Some(1), "minus one");
        assert_eq!(walk.next(0x8000_0000), Some(3_648), "the lowest of all");
    }

    #[test]
    fn keys_follow_from_the_seed_and_look_like_upstreams() {
        let table = KeyTable::new(Seed(1));
        assert_eq!(table.get(5), KeyTable::new(Seed(1)).get(5));
        assert_ne!(table.get(5), KeyTable::new(Seed(2)).get(5));
        assert!(table.get(7).iter().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(c)));
    }
}
