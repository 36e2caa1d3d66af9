//! A benchmark run against everything that can go wrong between it and its messaging system.
#![cfg(madsim)]

use sim_tests::explore::{Sweep, explore, story};

/// Seeds of a plain `cargo test`: some 25 s of one core.
const SEEDS: u64 = 300;

#[test]
fn promises_hold_whatever_goes_wrong() {
    let sweep = Sweep::from_env(SEEDS);
    let explored = explore(sweep, |_| {});
    println!("{}", explored.summary());
    if let Some(failed) = &explored.failed {
        panic!("{}", story(failed));
    }
    if sweep.whole {
        let unreached = explored.unreached();
        assert!(unreached.is_empty(), "never met in {} seeds, so never checked: {unreached:#?}", explored.seeds);
    }
}
