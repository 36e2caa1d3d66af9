//! Independent random streams, by name, from one seed.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// The one number from which every random choice of a run follows.
///
/// ```
/// use omb_machine::seed::Seed;
/// use rand::Rng as _;
///
/// let (mut keys, mut payloads) = (Seed(7).stream("keys"), Seed(7).stream("payloads"));
/// let first = keys.next_u64();
/// // However much one part draws, the others draw what they always do.
/// (0..1_000).for_each(|_| _ = payloads.next_u64());
/// let second = keys.next_u64();
///
/// let mut again = Seed(7).stream("keys");
/// assert_eq!((again.next_u64(), again.next_u64()), (first, second));
/// assert_ne!(Seed(8).stream("keys").next_u64(), first);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seed(pub u64);

impl Seed {
    /// The stream called `name`. Streams of different names are independent, so one part drawing more numbers changes
    /// nothing for another; streams of neighbouring seeds never meet.
    #[must_use]
    pub fn stream(self, name: &str) -> ChaCha8Rng {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.0.to_le_bytes());
        // The name is folded by FNV-1a into 64 bits, twice with different offsets: names are few and ours, so this must
        // only keep them distinct, not resist an attacker.
        for (part, offset) in key[8..24].chunks_exact_mut(8).zip([0xcbf2_9ce4_8422_2325_u64, 0x9e37_79b9_7f4a_7c15]) {
            part.copy_from_slice(&fnv1a(offset, name.as_bytes()).to_le_bytes());
        }
        ChaCha8Rng::from_seed(key)
    }

    /// The stream called `name` number `index`, for the members of a family (one per producer, say).
    #[must_use]
    pub fn numbered_stream(self, name: &str, index: u64) -> ChaCha8Rng {
        let mut rng = self.stream(name);
        rng.set_stream(index);
        rng
    }
}

/// FNV-1a over `bytes`, starting from `offset`.
#[must_use]
pub fn fnv1a(offset: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(offset, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    #[test]
    fn streams_are_repeatable_and_apart() {
        let draw = |seed: u64, name: &str, index| Seed(seed).numbered_stream(name, index).next_u64();
        assert_eq!(draw(1, "keys", 0), draw(1, "keys", 0));
        let all = [draw(1, "keys", 0), draw(1, "keys", 1), draw(2, "keys", 0), draw(1, "payload", 0)];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{all:x?}");
        }
    }
}
