//! A benchmark run against everything that can go wrong between it and its messaging system.
#![cfg(madsim)]

use sim_tests::explore::{Sweep, explore, story};

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 120;

#[test]
fn promises_hold_whatever_goes_wrong() {
    let sweep = Sweep::from_env(SEEDS);
    let explored = explore(sweep, |_| {});
    println!("{}", explored.summary());
    if let Some(failed) = &explored.failed {
        panic!("{}", story(failed));
    }
}
