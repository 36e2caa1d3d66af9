//! Plays on from fresh seeds, runs and clusters in turn, until one breaks a promise, or the bound is reached.
//!
//! `cargo run -p sim-tests --bin hunt -- [SECONDS [FIRST SEED]]`: by default for ten minutes, from a seed that the wall
//! clock gives. `MADSIM_TEST_JOBS` says on how many threads. What was found is then made smaller, as long as it still
//! breaks the same promise; `hunt -- shrink SEED` does so for one run, `hunt -- shrink-cluster SEED` for one cluster.

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    hunt::main()
}

#[cfg(madsim)]
mod hunt {
    use std::{
        fmt::Display,
        process::ExitCode,
        time::{Duration, Instant, SystemTime, UNIX_EPOCH},
    };

    use sim_tests::explore::{
        Explored, Played, Sweep, explore, explore_clusters, play, play_cluster, shrink, shrink_cluster, story,
        story_of_cluster,
    };

    pub(super) fn main() -> ExitCode {
        let given: Vec<String> = std::env::args().skip(1).collect();
        if let [word, seed] = given.as_slice()
            && let Ok(seed) = seed.parse()
        {
            match word.as_str() {
                "shrink" => return printed(play(seed), story, shrink),
                "shrink-cluster" => return printed(play_cluster(seed), story_of_cluster, shrink_cluster),
                _ => {}
            }
        }
        let mut arguments = given.iter().map(|text| text.parse::<u64>());
        let (Ok(seconds), Ok(first)) = (arguments.next().unwrap_or(Ok(600)), arguments.next().transpose()) else {
            eprintln!("usage: hunt [SECONDS [FIRST SEED]]\n       hunt shrink SEED\n       hunt shrink-cluster SEED");
            return ExitCode::from(2);
        };
        let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()) << 20;
        let mut next = first.unwrap_or_else(fresh);
        let until = Instant::now() + Duration::from_secs(seconds);
        let (mut runs, mut clusters) = (Explored::default(), Explored::default());
        println!("hunting from seed {next} for {seconds} s");
        while Instant::now() < until {
            // A batch at a time, so that the bound is checked often. A run takes four times as long as a cluster.
            let sweep = |count| Sweep { first: next, count, ..Sweep::from_env(count) };
            runs.merge(explore(sweep(50), |_| {}));
            clusters.merge(explore_clusters(sweep(200), true, |_| {}));
            next += 200;
            if runs.failed.is_some() || clusters.failed.is_some() {
                break;
            }
        }
        println!("runs: {}\nclusters: {}", runs.summary(), clusters.summary());
        match (runs.failed, clusters.failed) {
            (Some(failed), _) => printed(failed, story, shrink),
            (None, Some(failed)) => printed(failed, story_of_cluster, shrink_cluster),
            (None, None) => {
                println!("nothing found");
                ExitCode::SUCCESS
            }
        }
    }

    /// Prints what broke, and the least that still breaks the same promise.
    fn printed<S: Display>(
        played: Played<S>,
        story: impl Fn(&Played<S>) -> String,
        shrink: impl Fn(Played<S>) -> (Played<S>, u32),
    ) -> ExitCode {
        if played.broken.is_empty() {
            println!("seed {} breaks no promise", played.seed);
            return ExitCode::SUCCESS;
        }
        eprintln!("{}", story(&played));
        // Each panic on the way would print its own message.
        std::panic::set_hook(Box::new(|_| {}));
        let (least, tried) = shrink(played);
        eprintln!("\nwhat it needs, after {tried} smaller scenarios:\n{}", least.scenario);
        least.tail.iter().rev().take(25).rev().for_each(|record| eprintln!("  {record}"));
        least.broken.iter().for_each(|broken| eprintln!("  {broken}"));
        ExitCode::FAILURE
    }
}

#[cfg(not(madsim))]
fn main() {}
