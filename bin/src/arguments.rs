//! Rewrites arguments from the form of upstream and its guides into the one that clap parses.
//!
//! ```text
//! -w a:8080 b:8080 w.yaml  ─▶ --workers=a:8080 --workers=b:8080 w.yaml      (also --workers, -w=a, -wa, -xw a)
//! -wf FILE                 ─▶ --workers-file FILE                           (clap alone: a worker named f)
//! -sp 8081                 ─▶ --stats-port 8081                             (of `worker`)
//! ```

use std::{ffi::OsString, iter::Peekable};

/// Short flags of `run` and `check` that take no value, so others may follow in the same argument.
const SWITCHES: &str = "qvxhV";

/// Rewrites the arguments, the program's name first. Clap judges their meaning; no file is accessed.
///
/// After `-w` each argument is a worker, up to the next flag or workload file: an argument that ends in `.yaml`, `.yml`
/// or `.json` or, after the first worker, a path with a slash that is not a URL.
pub(crate) fn rewrite(given: impl IntoIterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    let mut given = given.into_iter().peekable();
    let mut rewritten: Vec<OsString> = given.next().into_iter().collect();
    // No flag before the command takes a value, so the first argument that is not a flag is the command.
    while let Some(argument) = given.next_if(is_flag) {
        rewritten.push(argument);
    }
    let command = given.next();
    rewritten.extend(command.clone());
    match command.as_ref().and_then(|command| command.to_str()) {
        Some("run" | "check") => workers(&mut given, &mut rewritten),
        Some("worker") => stats_port(&mut given, &mut rewritten),
        _ => {}
    }
    rewritten.into_iter().chain(given)
}

fn is_flag(argument: &OsString) -> bool {
    argument.as_encoded_bytes().starts_with(b"-")
}

/// A flag that names workers, with its attached value.
enum Fleet<'a> {
    Workers(Option<&'a str>),
    File(Option<&'a str>),
}

/// Splits an argument into leading switches and a flag that names workers; `None` if there is no such flag.
fn fleet(argument: &str) -> Option<(&str, Fleet<'_>)> {
    if let Some(rest) = argument.strip_prefix("--workers") {
        return match rest.strip_prefix('=') {
            Some(attached) => Some(("", Fleet::Workers(Some(attached)))),
            None => rest.is_empty().then_some(("", Fleet::Workers(None))),
        };
    }
    let letters = argument.strip_prefix('-')?;
    let (switches, rest) = letters.split_at(letters.find(|letter| !SWITCHES.contains(letter))?);
    let attached = rest.strip_prefix('w')?;
    let fleet = match (attached, attached.strip_prefix("f="), attached.strip_prefix('=')) {
        ("", ..) => Fleet::Workers(None),
        ("f", ..) => Fleet::File(None),
        (_, Some(file), _) => Fleet::File(Some(file)),
        (_, _, Some(worker)) => Fleet::Workers(Some(worker)),
        (worker, ..) => Fleet::Workers(Some(worker)),
    };
    Some((switches, fleet))
}

fn workers(given: &mut Peekable<impl Iterator<Item = OsString>>, rewritten: &mut Vec<OsString>) {
    while let Some(argument) = given.next_if(|argument| argument != "--") {
        let Some((switches, fleet)) = argument.to_str().and_then(fleet) else {
            rewritten.push(argument);
            continue;
        };
        if !switches.is_empty() {
            rewritten.push(format!("-{switches}").into());
        }
        let attached = match fleet {
            Fleet::File(None) => {
                rewritten.push("--workers-file".into());
                continue;
            }
            Fleet::File(Some(file)) => {
                rewritten.push(format!("--workers-file={file}").into());
                continue;
            }
            Fleet::Workers(attached) => attached,
        };
        let before = rewritten.len();
        rewritten.extend(attached.map(|worker| format!("--workers={worker}").into()));
        while let Some(worker) = given.next_if(|next| {
            let first = rewritten.len() == before;
            !is_flag(next) && !is_workload(next) && (first || !is_path(next))
        }) {
            let mut flag = OsString::from("--workers=");
            flag.push(worker);
            rewritten.push(flag);
        }
        if rewritten.len() == before {
            // The parser of addresses rejects the empty list; clap would take the workload for a worker.
            rewritten.push("--workers=".into());
        }
    }
}

fn is_workload(argument: &OsString) -> bool {
    [b".yaml".as_slice(), b".yml", b".json"].iter().any(|ending| argument.as_encoded_bytes().ends_with(ending))
}

/// Whether an argument is a path, and not a URL.
fn is_path(argument: &OsString) -> bool {
    let bytes = argument.as_encoded_bytes();
    bytes.contains(&b'/') && !bytes.windows(3).any(|three| three == b"://")
}

fn stats_port(given: &mut Peekable<impl Iterator<Item = OsString>>, rewritten: &mut Vec<OsString>) {
    while let Some(argument) = given.next_if(|argument| argument != "--") {
        let port = argument.to_str().and_then(|text| text.strip_prefix("-sp"));
        rewritten.push(match port {
            Some("") => "--stats-port".into(),
            Some(port) => format!("--stats-port={}", port.trim_start_matches('=')).into(),
            None => argument,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn becomes(given: &str, want: &str) {
        let words = |text: &str| text.split_whitespace().map(OsString::from).collect::<Vec<_>>();
        let got: Vec<_> = rewrite(words(&format!("omb {given}"))).collect();
        assert_eq!(got, words(&format!("omb {want}")), "{given}");
    }

    #[test]
    fn workers_end_where_something_else_begins() {
        becomes("run -w a:1 b:2 w.yaml", "run --workers=a:1 --workers=b:2 w.yaml");
        becomes("run --workers a:1 b:2 w.yml v.yaml", "run --workers=a:1 --workers=b:2 w.yml v.yaml");
        becomes("run -w a b ./plain more", "run --workers=a --workers=b ./plain more");
        becomes("run -w http://a:1/ b w.json", "run --workers=http://a:1/ --workers=b w.json");
        becomes("run -w a b -- c", "run --workers=a --workers=b -- c");
        becomes("run -w a b -x w", "run --workers=a --workers=b -x w");
        becomes("check -w a,b w.yaml", "check --workers=a,b w.yaml");
        becomes("run w.yaml -w a -o o.json -w b,", "run w.yaml --workers=a -o o.json --workers=b,");
        becomes("run -w plain b w.yaml", "run --workers=plain --workers=b w.yaml");
    }

    #[test]
    fn workers_may_be_attached() {
        becomes("run -w=a b w.yaml", "run --workers=a --workers=b w.yaml");
        becomes("run -wa:8080 w.yaml", "run --workers=a:8080 w.yaml");
        becomes("run -wfoo:8080 w.yaml", "run --workers=foo:8080 w.yaml");
        becomes("run --workers=a,b w.yaml", "run --workers=a,b w.yaml");
        becomes("run -xw a b w.yaml", "run -x --workers=a --workers=b w.yaml");
        becomes("-q run -xvw=a w.yaml", "-q run -xv --workers=a w.yaml");
    }

    #[test]
    fn no_worker_is_no_workload_either() {
        becomes("run -w w.yaml", "run --workers= w.yaml");
        becomes("run -w -x w.yaml", "run --workers= -x w.yaml");
        becomes("run w.yaml -w", "run w.yaml --workers=");
    }

    #[test]
    fn a_workers_file_is_not_a_worker_called_f() {
        becomes("run -wf f.yaml w.yaml", "run --workers-file f.yaml w.yaml");
        becomes("run -wf=f.yaml w.yaml", "run --workers-file=f.yaml w.yaml");
        becomes("run -xwf f.yaml w.yaml", "run -x --workers-file f.yaml w.yaml");
        becomes("run --workers-file f.yaml w.yaml", "run --workers-file f.yaml w.yaml");
    }

    #[test]
    fn a_stats_port_has_two_letters() {
        becomes("worker -p 8080 -sp 8081", "worker -p 8080 --stats-port 8081");
        becomes("-v worker -sp=8081", "-v worker --stats-port=8081");
        becomes("worker -sp8081", "worker --stats-port=8081");
    }

    #[test]
    fn nothing_else_is_touched() {
        for same in
            ["", "-q", "--version", "run -d w -ow --what=w w.yaml", "run -- -w a", "broker -w a -wf", "run --workersx"]
        {
            becomes(same, same);
        }
        becomes("worker -wf -- -sp", "worker -wf -- -sp");
        becomes("run -sp 1 w.yaml", "run -sp 1 w.yaml");
    }

    #[cfg(unix)]
    #[test]
    fn a_name_need_not_be_unicode() {
        use std::os::unix::ffi::OsStringExt as _;
        let odd = OsString::from_vec(vec![b'w', 0xff, b'.', b'y', b'm', b'l']);
        let given = ["omb", "run", "-w", "a"].map(OsString::from).into_iter().chain([odd.clone()]);
        let got: Vec<_> = rewrite(given).collect();
        assert_eq!(got[2..], [OsString::from("--workers=a"), odd]);
    }
}
