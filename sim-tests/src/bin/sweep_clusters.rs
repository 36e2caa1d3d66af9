//! Plays all clusters of a sweep and lists those that broke a promise, instead of stopping at the first one.

#[cfg(madsim)]
fn main() {
    use sim_tests::explore::{Sweep, explore_clusters};

    std::panic::set_hook(Box::new(|_| {}));
    let explored = explore_clusters(Sweep::from_env(300), false, |played| {
        if let Some(first) = played.broken.first() {
            println!("seed {}: {} broken, first: {first}", played.seed, played.broken.len());
        }
    });
    println!("{}", explored.summary());
}

#[cfg(not(madsim))]
fn main() {}
