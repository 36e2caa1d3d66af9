//! What a disk can do at best: threads that write, fsync, rename, and fsync the folder, and do nothing else.
//!
//! ```text
//! cargo run --release -p omb-examples --bin bare_store -- FOLDER THREADS FILES BYTES
//! ```
//!
//! Prints `RATE P50 P99`: files per second, and how long one of them takes, in ms.

use std::{
    env,
    fs::{self, File},
    io::{self, Write},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize| arguments.get(at).and_then(|text| text.parse::<usize>().ok()).filter(|number| *number > 0);
    let (Some(folder), Some(threads), Some(files), Some(bytes), 4) =
        (arguments.first(), number(1), number(2), number(3), arguments.len())
    else {
        eprintln!("usage: bare_store FOLDER THREADS FILES BYTES");
        return ExitCode::from(2);
    };
    match measure(Path::new(folder), threads, files, bytes) {
        Ok((rate, p50, p99)) => {
            println!("{rate:.0} {p50:.3} {p99:.3}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{folder}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(folder: &Path, threads: usize, files: usize, bytes: usize) -> io::Result<(f64, f64, f64)> {
    fs::create_dir_all(folder)?;
    let (body, each) = (vec![7; bytes], files.div_ceil(threads));
    let began = Instant::now();
    let mut took = thread::scope(|scope| {
        let body = &body;
        let running: Vec<_> =
            (0..threads).map(|thread| scope.spawn(move || store(folder, thread, each, body))).collect();
        let mut all = Vec::new();
        for thread in running {
            all.extend(thread.join().expect("it does not panic")?);
        }
        io::Result::Ok(all)
    })?;
    let elapsed = began.elapsed();
    took.sort_unstable();
    let at = |share: usize| took[(took.len() * share / 100).min(took.len() - 1)].as_secs_f64() * 1e3;
    #[expect(clippy::cast_precision_loss, reason = "a count of files")]
    let rate = took.len() as f64 / elapsed.as_secs_f64();
    Ok((rate, at(50), at(99)))
}

fn store(folder: &Path, thread: usize, files: usize, body: &[u8]) -> io::Result<Vec<Duration>> {
    let synced = File::open(folder)?;
    let mut took = Vec::with_capacity(files);
    for number in 0..files {
        let began = Instant::now();
        let (part, whole) =
            (folder.join(format!("{thread}-{number}.part")), folder.join(format!("{thread}-{number}.bin")));
        let mut file = File::create(&part)?;
        file.write_all(body)?;
        file.sync_all()?;
        fs::rename(&part, &whole)?;
        synced.sync_all()?;
        took.push(began.elapsed());
    }
    Ok(took)
}
