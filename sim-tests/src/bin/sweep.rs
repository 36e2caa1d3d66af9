//! Plays all seeds of a sweep and lists those that broke a promise, instead of stopping at the first one.

#[cfg(madsim)]
fn main() {
    use sim_tests::explore::{Sweep, explore_all};

    std::panic::set_hook(Box::new(|_| {}));
    let explored = explore_all(Sweep::from_env(300), |played| {
        if let Some(first) = played.broken.first() {
            println!("seed {}: {} broken, first: {first}", played.seed, played.broken.len());
        }
    });
    println!("{}", explored.summary());
}

#[cfg(not(madsim))]
fn main() {}
