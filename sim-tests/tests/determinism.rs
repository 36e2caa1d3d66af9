//! One seed is one run: the same trace, byte for byte, however often and after whatever else it is played.
#![cfg(madsim)]

use sim_tests::explore::{Sweep, play};

#[test]
fn one_seed_gives_one_trace() {
    let first = Sweep::from_env(1).first;
    for seed in first..first + 5 {
        let once = play(seed);
        let again = play(seed);
        assert_eq!((once.hash, once.records), (again.hash, again.records), "seed {seed}, played twice in a row");
        let other = play(seed + 1);
        let after = play(seed);
        assert_eq!((once.hash, once.records), (after.hash, after.records), "seed {seed}, played after another one");
        assert_ne!(once.hash, other.hash, "another seed is another run");
        assert_eq!(once.tail, after.tail);
    }
}

/// Two threads that play at once do not meet.
#[test]
fn a_neighbour_changes_nothing() {
    let first = Sweep::from_env(1).first;
    let alone = play(first).hash;
    let beside = std::thread::scope(|scope| {
        let beside = scope.spawn(|| play(first).hash);
        let _ = play(first + 1);
        beside.join().expect("it does not panic")
    });
    assert_eq!(alone, beside);
}
