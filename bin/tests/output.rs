//! Output never stops the work: readers that go away or do not read, full disks, terminals that are closed.

mod support;

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::omb::{PATIENCE, Place, complete, number, workload};

/// Waits for a child, which is killed if it takes too long.
#[track_caller]
fn wait(child: &mut Child, what: &str) -> ExitStatus {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    panic!("{what} does not end");
}

fn omb(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_omb"));
    command.args(arguments).current_dir(place.path("")).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Whatever happens to its output, a run goes on to its end, writes its result, and its exit code is that of the run.
#[test]
fn no_run_ends_because_nobody_takes_its_output() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    let outputs =
        ["2>err | head -1", "2>&1 | head -3", "2>err | true", ">/dev/full 2>err", ">/dev/full 2>/dev/full", ">&- 2>&-"];
    let runs: Vec<_> = (0..)
        .zip(outputs)
        .map(|(index, output)| {
            let (to, pipe) = output.split_once('|').map_or((output, String::new()), |(a, b)| (a, format!("|{b}")));
            // The redirection is that of omb itself; the shell writes its exit code to a file.
            let script = format!("{{ \"$OMB\" run -o {index}.json w.yaml {to}; echo $? >{index}.code; }} {pipe}");
            (output, place.start_by_shell(&script))
        })
        .collect();
    for (index, (output, run)) in runs.into_iter().enumerate() {
        run.end();
        let code = fs::read_to_string(place.path(&format!("{index}.code"))).expect("the shell wrote it");
        assert_eq!(code.trim(), "0", "omb run {output}");
        complete(&place.result(&format!("{index}.json")), &place.record(&format!("{index}.jsonl")));
    }
    for (script, code) in [
        ("\"$OMB\" run missing.yaml 2>/dev/full", 2),
        ("\"$OMB\" run --no-such-flag 2>/dev/full", 2),
        ("\"$OMB\" run --no-such-flag 2>&-", 2),
    ] {
        place.start_by_shell(script).end().with(code);
    }
}

/// What a command is only for: a reader that has seen enough is no error, a full disk is one.
#[test]
fn output_that_is_all_a_command_is_for() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    place.run(&["run", "-o", "out.json", "w.yaml"]).with(0);
    for command in ["check w.yaml", "report -o NEW out.jsonl", "--help", "help run", "--version"] {
        let with = |name| command.replace("NEW", name);
        let full = format!("exec \"$OMB\" {} >/dev/full", with("full.json"));
        place.start_by_shell(&full).end().with(1).saying("cannot write to standard output: No space left on device");
        let gone = format!("{{ \"$OMB\" {}; echo $? >code; }} | true", with("gone.json"));
        let ended = place.start_by_shell(&gone).end().with(0);
        assert!(!ended.stderr.contains("standard output"), "{command}: {}", ended.stderr);
        assert_eq!(fs::read_to_string(place.path("code")).expect("the shell wrote it").trim(), "0", "{command}");
        for made in ["full.json", "gone.json"] {
            let _ = fs::remove_file(place.path(made));
        }
    }
}

/// A paused pager: the pipe is full from the start. The measurement goes on to its end, and its output is there when
/// the reader continues.
#[test]
fn a_reader_that_does_not_read_holds_nothing_up() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    let (mut reader, mut writer) = io::pipe().expect("the system gives a pipe");
    // SAFETY: the descriptor is open; this changes a flag and gives the old ones.
    let nonblocking = |on: bool| unsafe {
        libc::fcntl(writer.as_raw_fd(), libc::F_SETFL, if on { libc::O_NONBLOCK } else { 0 });
    };
    nonblocking(true);
    let mut stuffed = 0;
    while let Ok(count) = (&writer).write(&[b'-'; 4_096]) {
        stuffed += count;
    }
    nonblocking(false);
    let copy = writer.try_clone().expect("a descriptor");
    let mut child = omb(&place, &["run", "-o", "out.json", "w.yaml"])
        .stdout(writer.try_clone().expect("a descriptor"))
        .stderr(copy)
        .spawn()
        .expect("omb can be started");
    writer.flush().expect("nothing is buffered");
    drop(writer);
    let until = Instant::now() + PATIENCE;
    while !place.path("out.json").exists() && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(place.path("out.json").exists(), "the run waits for its reader");
    let mut said = Vec::new();
    reader.read_to_end(&mut said).expect("the pipe can be read");
    assert_eq!(wait(&mut child, "the run").code(), Some(0));
    let said = String::from_utf8_lossy(&said[stuffed..]).into_owned();
    assert!(said.contains("Starting load test...") && said.contains("Written to out.json"), "{said}");
    complete(&place.result("out.json"), &place.record("out.jsonl"));
}

/// The bar is drawn on it, and its end is an interrupt like any other.
#[test]
fn a_terminal_that_is_closed_is_an_interrupt() {
    let place = Place::default();
    place.write("long.yaml", workload("long", &[("testDuration", "1h")]));
    let (terminal, line) = terminal();
    let mut command = omb(&place, &["run", "-o", "out.json", "long.yaml"]);
    let ends = [&line, &line, &line].map(|line| line.try_clone().expect("a descriptor"));
    let [stdin, stdout, stderr] = ends;
    command.env("TERM", "xterm").stdin(stdin).stdout(stdout).stderr(stderr);
    // SAFETY: both calls may be made between `fork` and `exec`.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        });
    }
    let mut child = command.spawn().expect("omb can be started");
    drop((line, command));
    // What the person at the terminal sees, until it is closed.
    let seen = Arc::<Mutex<Vec<u8>>>::default();
    let mut screen = File::from(terminal.try_clone().expect("a descriptor"));
    let (heard, (close, closed)) = (Arc::clone(&seen), std::sync::mpsc::channel::<()>());
    let reader = thread::spawn(move || {
        let mut bytes = [0; 4_096];
        while closed.try_recv().is_err() {
            let count = screen.read(&mut bytes).unwrap_or(0);
            heard.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..count]);
        }
    });
    let text = || String::from_utf8_lossy(&seen.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
    let until = Instant::now() + PATIENCE;
    // The bar moves, with a rate behind it.
    while !text().contains("of 1,000 msg/s") && Instant::now() < until {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(text().contains("measure") && text().contains("of 1,000 msg/s"), "{}", text());
    close.send(()).expect("it listens");
    reader.join().expect("reading does not panic");
    drop(terminal);
    assert_eq!(wait(&mut child, "the run").code(), Some(130));
    let result: Value = place.result("out.json");
    assert_eq!(result["omb"]["partialReason"], "interrupted by the user");
    assert!(number(&result, "/omb/totals/measured/acked") > 0);
}

/// A pseudo-terminal: the side of the person, and that of the program.
fn terminal() -> (OwnedFd, File) {
    // SAFETY: plain calls on a descriptor of our own; `number` is a place for one.
    unsafe {
        let person = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(person >= 0, "the system gives a terminal");
        let person = OwnedFd::from_raw_fd(person);
        let mut number: libc::c_uint = 0;
        assert_eq!(libc::unlockpt(person.as_raw_fd()), 0);
        assert_eq!(libc::ioctl(person.as_raw_fd(), libc::TIOCGPTN, &raw mut number), 0);
        let line = Path::new("/dev/pts").join(number.to_string());
        let line = File::options()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(line)
            .expect("its other side can be opened");
        (person, line)
    }
}
