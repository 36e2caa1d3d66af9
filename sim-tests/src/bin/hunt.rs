//! Plays on from fresh seeds until one breaks a promise, or the bound is reached.
//!
//! `cargo run -p sim-tests --bin hunt -- [SECONDS [FIRST SEED]]`: by default for ten minutes, from a seed that the wall
//! clock gives. `MADSIM_TEST_JOBS` says on how many threads. What was found is then made smaller, as long as it still
//! breaks the same promise; `hunt -- shrink SEED` does so for one seed.

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    use std::{
        process::ExitCode,
        time::{Duration, Instant, SystemTime, UNIX_EPOCH},
    };

    use sim_tests::explore::{Explored, Played, Sweep, explore, play, shrink, story};

    let tell_least = |failed: Played| {
        eprintln!("{}", story(&failed));
        let before = failed.scenario.troubles.len();
        // Each panic on the way would tell its own story.
        std::panic::set_hook(Box::new(|_| {}));
        let (least, tried) = shrink(failed);
        eprintln!("\nwhat it needs of its {before} troubles, after {tried} smaller scenarios:\n{}", least.scenario);
        least.tail.iter().rev().take(25).rev().for_each(|record| eprintln!("  {record}"));
        least.broken.iter().for_each(|broken| eprintln!("  {broken}"));
    };
    let given: Vec<String> = std::env::args().skip(1).collect();
    if let [word, seed] = given.as_slice()
        && word == "shrink"
        && let Ok(seed) = seed.parse()
    {
        let played = play(seed);
        if played.broken.is_empty() {
            println!("seed {seed} breaks no promise");
            return ExitCode::SUCCESS;
        }
        tell_least(played);
        return ExitCode::FAILURE;
    }
    let mut arguments = given.iter().map(|text| text.parse::<u64>());
    let (Ok(seconds), Ok(first)) = (arguments.next().unwrap_or(Ok(600)), arguments.next().transpose()) else {
        eprintln!("usage: hunt [SECONDS [FIRST SEED]]\n       hunt shrink SEED");
        return ExitCode::from(2);
    };
    let fresh = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs()) << 20;
    let mut next = first.unwrap_or_else(fresh);
    let (until, mut all) = (Instant::now() + Duration::from_secs(seconds), Explored::default());
    println!("hunting from seed {next} for {seconds} s");
    while Instant::now() < until {
        // A batch at a time, so that the bound is looked at often.
        let sweep = Sweep { first: next, count: 50, ..Sweep::from_env(50) };
        next += sweep.count;
        let explored = explore(sweep, |_| {});
        let failed = explored.failed.clone();
        all.merge(explored);
        if let Some(failed) = failed {
            println!("{}", all.summary());
            tell_least(failed);
            return ExitCode::FAILURE;
        }
    }
    println!("{}nothing found", all.summary());
    ExitCode::SUCCESS
}

#[cfg(not(madsim))]
fn main() {}
