//! Plays all clusters of a sweep and lists those that broke a promise, instead of stopping at the first one. With `shrink`
//! as its argument it plays one seed, and tells the least that still breaks the same promise.

#[cfg(madsim)]
fn main() {
    use sim_tests::explore::{Sweep, explore_clusters, play_cluster, shrink_cluster, story_of_cluster};

    std::panic::set_hook(Box::new(|_| {}));
    if std::env::args().nth(1).as_deref() == Some("shrink") {
        let (least, tried) = shrink_cluster(play_cluster(Sweep::from_env(1).first));
        println!("{}\nthe least of {tried} scenarios", story_of_cluster(&least));
        return;
    }
    let explored = explore_clusters(Sweep::from_env(300), false, |played| {
        if let Some(first) = played.broken.first() {
            println!("seed {}: {} broken, first: {first}", played.seed, played.broken.len());
        }
    });
    println!("{}", explored.summary());
}

#[cfg(not(madsim))]
fn main() {}
