//! Plays on from fresh seeds until one breaks a promise, or the bound is reached.
//!
//! `cargo run -p sim-tests --bin hunt -- [SECONDS [FIRST SEED]]`: by default for ten minutes, from a seed that the wall
//! clock gives. `MADSIM_TEST_JOBS` says on how many threads.

#[cfg(madsim)]
fn main() -> std::process::ExitCode {
    use std::{
        process::ExitCode,
        time::{Duration, Instant, SystemTime, UNIX_EPOCH},
    };

    use sim_tests::explore::{Explored, Sweep, explore, story};

    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<u64>());
    let (Ok(seconds), Ok(first)) = (arguments.next().unwrap_or(Ok(600)), arguments.next().transpose()) else {
        eprintln!("usage: hunt [SECONDS [FIRST SEED]]");
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
            eprintln!("{}", story(&failed));
            return ExitCode::FAILURE;
        }
    }
    println!("{}nothing found", all.summary());
    ExitCode::SUCCESS
}

#[cfg(not(madsim))]
fn main() {}
