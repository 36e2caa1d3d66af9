//! The pool of payloads: sent as a recipe, generated where it is needed.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use omb_machine::seed::Seed;

/// How to make the pool; small, whatever the pool's size (upstream sends the pool itself to every worker).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PayloadRecipe {
    /// The payload as it stands, read from the workload's file.
    Given(Vec<u8>),
    /// `count` payloads of `size` bytes: of each, the first `floor(size * ratio)` random, the rest zero.
    Random {
        /// Bytes of each.
        size: u32,
        /// 0.0 to 1.0.
        ratio: f64,
        /// Payloads, at least 1.
        count: u32,
    },
}

impl PayloadRecipe {
    /// Bytes that the pool takes.
    #[must_use]
    pub fn pool_bytes(&self) -> u64 {
        match self {
            Self::Given(bytes) => bytes.len() as u64,
            Self::Random { size, count, .. } => u64::from(*size) * u64::from(*count).max(1),
        }
    }

    /// Bytes of each payload.
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Given(bytes) => bytes.len() as u64,
            Self::Random { size, .. } => u64::from(*size),
        }
    }

    /// Makes the pool; never empty.
    #[must_use]
    pub fn pool(&self, seed: Seed) -> Vec<Vec<u8>> {
        match self {
            Self::Given(bytes) => vec![bytes.clone()],
            Self::Random { size, ratio, count } => {
                let mut rng = seed.stream("payload");
                let size = *size as usize;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "upstream's floor; both factors are checked to be in range"
                )]
                let random = ((size as f64 * ratio.clamp(0.0, 1.0)) as usize).min(size);
                let one = |_| {
                    let mut payload = vec![0; size];
                    rng.fill_bytes(&mut payload[..random]);
                    payload
                };
                (0..(*count).max(1)).map(one).collect()
            }
        }
    }
}

/// Picks an entry of a pool of `len` for the next message, uniformly.
#[inline]
pub fn pick(rng: &mut rand_chacha::ChaCha8Rng, len: usize) -> usize {
    if len == 1 { 0 } else { rng.random_range(0..len) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_random_part_is_as_long_as_asked() {
        let recipe = PayloadRecipe::Random { size: 100, ratio: 0.339, count: 3 };
        let pool = recipe.pool(Seed(1));
        assert_eq!(pool.len(), 3);
        for payload in &pool {
            assert_eq!(payload.len(), 100);
            assert!(payload[33..].iter().all(|byte| *byte == 0), "floor(33.9) bytes are random");
            assert!(payload[..33].iter().any(|byte| *byte != 0));
        }
        assert_ne!(pool[0], pool[1]);
        assert_eq!(pool, recipe.pool(Seed(1)), "the seed decides");
    }
}
