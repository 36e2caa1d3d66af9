//! README and docs: their commands run, or are marked as needing more than this machine has; their links lead
//! somewhere.
//!
//! A block of commands begins with "```sh". What is not marked further is run: here, or by a stage of `.ci/run` that
//! [`ELSEWHERE`] names. Of all others it is checked that the programs know the arguments.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use support::omb::Place;

/// Commands that take too long for this test, and where else they are run: a file, and what it says.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("cargo run --release -- run examples/workloads/quickstart.yaml", ".ci/run", "stage quickstart "),
    ("make test", ".ci/run", "make test"),
    ("cargo test -p sim-tests", "Makefile", "test --locked $(PURE)"),
    ("MADSIM_TEST_SEED=42 cargo test -p sim-tests", ".ci/run", "make sim SEED=42"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bin lies in the workspace").to_owned()
}

/// README and docs, with their texts.
fn documents() -> Vec<(PathBuf, String)> {
    let docs = fs::read_dir(root().join("docs")).expect("there are docs").map(|entry| entry.expect("an entry").path());
    let mut all: Vec<_> = docs.chain([root().join("README.md")]).collect();
    all.sort();
    all.into_iter().map(|path| (path.clone(), fs::read_to_string(path).expect("a document can be read"))).collect()
}

/// The blocks of commands of a text: what follows "sh", and the commands without their comments.
fn commands(text: &str) -> Vec<(String, Vec<String>)> {
    let mut blocks: Vec<(String, Vec<String>)> = Vec::new();
    let mut open = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), open) {
            (Some(kind), None) => {
                let mark = kind.strip_prefix("sh").filter(|rest| rest.is_empty() || rest.starts_with(' '));
                open = Some(mark.is_some());
                blocks.extend(mark.map(|mark| (mark.trim().to_owned(), Vec::new())));
            }
            (Some(_), Some(_)) => open = None,
            (None, Some(true)) => {
                let command = line.split(" #").next().unwrap_or(line).split_whitespace().collect::<Vec<_>>().join(" ");
                blocks.last_mut().expect("a block is open").1.push(command);
            }
            (None, _) => {}
        }
    }
    assert_eq!(open, None, "every block ends");
    blocks
}

/// The program of ours that a command calls, and its arguments; `None` if it calls another.
fn ours(command: &str) -> Option<(&str, Vec<&str>)> {
    let words = command.split(' ').skip_while(|word| word.contains('=') && !word.starts_with('-'));
    let words: Vec<&str> = words.collect();
    match words.as_slice() {
        ["omb", arguments @ ..] => Some(("omb", arguments.to_vec())),
        ["cargo", "run", "--release", "--", arguments @ ..] => Some(("omb", arguments.to_vec())),
        ["cargo", "run", "--release", "--bin", program, "--", arguments @ ..] => Some((program, arguments.to_vec())),
        ["cargo", "run", "--release", "--bin", program] => Some((program, Vec::new())),
        _ => None,
    }
}

/// A program of ours takes these arguments: with them it would only show its help.
fn is_understood(program: &str, arguments: &[&str]) {
    let path = match program {
        "omb" => env!("CARGO_BIN_EXE_omb"),
        "cloud-p2p" => env!("CARGO_BIN_EXE_cloud-p2p"),
        "client" => env!("CARGO_BIN_EXE_client"),
        other => panic!("{other} is none of our programs"),
    };
    let output = std::process::Command::new(path).args(arguments).arg("--help").output().expect("it runs");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn commands_run_or_are_marked() {
    let makefile = fs::read_to_string(root().join("Makefile")).expect("the Makefile can be read");
    let mut elsewhere = BTreeSet::new();
    let place = Place::default();
    for (path, text) in documents() {
        for (mark, block) in commands(&text) {
            for command in &block {
                let shown = format!("{}: {command}", path.display());
                if let Some((program, arguments)) = ours(command) {
                    is_understood(program, &arguments);
                    let file = |word: &&&str| word.starts_with("examples/");
                    for file in arguments.iter().filter(file) {
                        assert!(root().join(file).is_file(), "{shown}: there is no {file}");
                    }
                } else if let Some(target) = command.strip_prefix("make ") {
                    assert!(makefile.contains(&format!("\n{target}:")), "{shown}: no such target");
                } else if let Some(script) = command.strip_prefix("./") {
                    let script = script.split(' ').next().expect("a word");
                    assert!(root().join(script).is_file(), "{shown}: no such script");
                }
                if !mark.is_empty() {
                    assert!(["needs a cluster", "runs until it finds something"].contains(&mark.as_str()), "{mark}");
                } else if let Some((known, file, says)) = ELSEWHERE.iter().find(|(known, ..)| known == command) {
                    let text = fs::read_to_string(root().join(file)).expect("the file can be read");
                    assert!(text.contains(says), "{shown}: {file} does not run it any more");
                    elsewhere.insert(*known);
                } else {
                    place.start_by_shell(command).end().with(0);
                }
            }
        }
    }
    assert_eq!(elsewhere.len(), ELSEWHERE.len(), "each is in a document");
}

/// Links to files, and to headings of this document.
#[test]
fn links_lead_somewhere() {
    let slug = |heading: &str| {
        let kept = heading.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    for (path, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (file, heading) = link.split_once('#').map_or((link, None), |(file, heading)| (file, Some(heading)));
            let target = if file.is_empty() { path.clone() } else { path.parent().expect("a folder").join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", path.display());
            if let Some(heading) = heading {
                let text = fs::read_to_string(&target).expect("a document can be read");
                let mut headings = text.lines().filter_map(|line| line.strip_prefix("## "));
                assert!(headings.any(|it| slug(it) == heading), "{}: no heading {link}", path.display());
            }
        }
    }
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).expect("it can be read").lines().count();
    assert!(lines <= 200, "README.md has {lines} lines: reference belongs into docs/");
}
