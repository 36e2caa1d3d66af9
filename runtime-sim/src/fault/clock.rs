//! Clocks that are set wrong and drift: drawn once per process, in force for the whole run.

use std::time::Duration;

use rand::{Rng, RngExt};

use crate::clock::Skew;

/// A machine's clock as found in the wild: its monotonic clock set anywhere within a day, its wall clock wrong by up to
/// some minutes, drifting as quartz does.
pub fn draw(rng: &mut impl Rng) -> Skew {
    Skew {
        offset: Duration::from_millis(rng.random_range(0..86_400_000)),
        wall_ms: rng.random_range(-180_000..=180_000),
        gain_ppm: rng.random_range(-100..=100),
    }
}

/// The same, up to 2 % fast or slow: far beyond any quartz, so that silently taking two clocks for one shows within
/// seconds.
pub fn draw_wild(rng: &mut impl Rng) -> Skew {
    Skew { gain_ppm: rng.random_range(-20_000..=20_000), ..draw(rng) }
}
