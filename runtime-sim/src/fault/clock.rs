//! Clocks that are set wrong and drift: drawn once per process, in force for the whole run.

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::clock::Skew;

/// A clock as found in the wild: set anywhere within a day, up to 2 % fast or slow (far beyond any quartz, so that
/// whatever silently takes two clocks for one shows within seconds).
pub fn draw(rng: &mut impl Rng) -> Skew {
    Skew {
        offset: Duration::from_millis(rng.random_range(0..86_400_000)),
        gain_ppm: rng.random_range(-20_000..=20_000),
    }
}
