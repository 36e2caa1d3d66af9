//! The architecture, held by tests: what depends on what, and what lies where.
//!
//! `core/clippy.toml` is the other half: it turns away what omb-core could reach through the standard library, and
//! `scripts/check-core-purity.sh` proves that it does.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

/// What omb-core may depend on, and what for. None of it brings a clock, a thread, a socket, a file or async.
const CORE_DEPENDENCIES: &[(&str, &str)] = &[
    ("base64", "histograms travel and are stored as text"),
    ("bincode", "the one encoding of our own messages"),
    ("bytes", "record batches that are passed on without copying"),
    ("crc32c", "the checksum of message headers and of Kafka's record batches"),
    ("flate2", "the periods of a long run, packed in memory"),
    ("hdrhistogram", "latencies, in the format that the Java tools read"),
    ("hmac", "the proof that somebody knows a cluster's shared key"),
    ("rand", "the traits of random streams; its features that ask the system for randomness are off"),
    ("rand_chacha", "random streams that are the same on every machine and in every version"),
    ("saphyr-parser", "YAML as events, each with its line and column"),
    ("serde", "the edges serialize: config, protocol, report"),
    ("serde_json", "results, and the bodies of upstream's endpoints"),
    ("sha2", "the digest of the list of peers, and what an upload is known by"),
    ("strsim", "\"did you mean\""),
    ("thiserror", "error enums"),
];

/// What must not be found anywhere below omb-core: another way to the clock, the system or a runtime, each by the crate that would bring it.
const NEVER_BELOW_CORE: &[(&str, &str)] = &[
    ("ahash", "its keys differ from run to run"),
    ("async-trait", "async"),
    ("chrono", "asks the time"),
    ("console", "a terminal"),
    ("crossbeam-utils", "threads"),
    ("fastrand", "unseeded randomness"),
    ("futures-core", "async"),
    ("futures-util", "async"),
    ("getrandom", "unseeded randomness"),
    ("jiff", "asks the time"),
    ("libc", "the operating system"),
    ("log", "state of the whole process"),
    ("memmap2", "files"),
    ("mio", "sockets"),
    ("nix", "the operating system"),
    ("num_cpus", "facts about the computer"),
    ("once_cell", "state of the whole process"),
    ("parking_lot", "locks"),
    ("rayon", "threads"),
    ("rustix", "the operating system"),
    ("socket2", "sockets"),
    ("tempfile", "files"),
    ("time", "asks the time"),
    ("tokio", "async"),
    ("tracing", "state of the whole process"),
    ("windows-sys", "the operating system"),
];

/// Everything that may lie at the top of the repository.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".gitignore",
    ".rustfmt.toml",
    "ARCHITECTURE.md",
    "BENCHMARKS.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "bin",
    "core",
    "deny.toml",
    "examples",
    "fuzz",
    "runtime-real",
    "runtime-sim",
    "scripts",
    "sim-tests",
    "start_worker.sh",
    "stress_test_multi_machine.sh",
    "stress_test_multi_machine.sh",
];

/// The product's dependency graph holds no simulator.
#[test]
fn the_product_holds_no_simulator() {
    for package in ["omb", "omb-runtime-real", "omb-core"] {
        let found: Vec<_> = tree(package, "normal,build").into_iter().filter(|name| name.contains("madsim")).collect();
        assert!(found.is_empty(), "{package} depends on {found:?}, which belongs below runtime-sim and sim-tests only");
    }
    // The same question with another answer, so that a changed output of cargo cannot make the one above true for nothing.
    assert!(tree("sim-tests", "normal").contains("madsim"), "cargo tree names the simulator where there is one");
}

/// The two runtimes do not know each other, and nothing points sideways.
#[test]
fn nothing_points_sideways() {
    let allowed: &[(&str, &[&str])] = &[
        ("omb-core", &[]),
        ("omb-runtime-real", &["omb-core"]),
        ("omb-runtime-sim", &["omb-core"]),
        ("sim-tests", &["omb-core", "omb-runtime-sim"]),
        ("omb", &["omb-core", "omb-runtime-real"]),
        ("omb-examples", &["omb-core"]),
    ];
    let ours: BTreeSet<&str> = allowed.iter().map(|(package, _)| *package).collect();
    for (package, below) in allowed {
        let got: BTreeSet<String> = tree(package, "normal,build,dev")
            .into_iter()
            .filter(|name| name != package && ours.contains(name.as_str()))
            .collect();
        let want: BTreeSet<String> = below.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(got, want, "the packages of ours below {package}");
    }
}

/// omb-core depends on exactly what is listed above, each with its reason.
#[test]
fn core_depends_on_what_is_listed() {
    let got = lines(&["tree", "-p", "omb-core", "-e", "normal,build", "--depth", "1"]);
    let got: BTreeSet<&str> = got.iter().map(String::as_str).filter(|name| *name != "omb-core").collect();
    let want: BTreeSet<&str> = CORE_DEPENDENCIES.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        got, want,
        "a new dependency of omb-core needs a reason in CORE_DEPENDENCIES, and no way to the world outside"
    );
}

/// Nothing below omb-core reaches the clock, the system, a runtime, or randomness without a seed.
#[test]
fn nothing_below_core_reaches_outside() {
    let below = tree("omb-core", "normal,build");
    for (name, brings) in NEVER_BELOW_CORE {
        assert!(
            !below.contains(*name),
            "{name} ({brings}) is in the tree of omb-core: cargo tree -p omb-core -i {name}"
        );
    }
    let features = stdout(&["tree", "-p", "omb-core", "-e", "normal,build,features"]);
    assert!(features.contains("feature \""), "cargo tree prints features");
    for feature in ["std_rng", "sys_rng", "thread_rng"] {
        let spelled = format!("rand feature \"{feature}\"");
        assert!(!features.contains(&spelled), "omb-core switches on rand's {feature}: randomness without a seed");
    }
}

/// The checks of omb-core are not switched off from within.
#[test]
fn core_allows_itself_nothing() {
    let mut files = Vec::new();
    rust_files(&root().join("core/src"), &mut files);
    assert!(files.len() > 10, "the sources of omb-core are found");
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file can be read");
        for (at, line) in text.lines().enumerate() {
            let switched_off =
                (line.contains("allow(") || line.contains("expect(")) && line.contains("clippy::disallowed");
            assert!(!switched_off, "{}:{}: what core/clippy.toml turns away stays turned away", file.display(), at + 1);
            let awaits = line.contains("async fn ") || line.contains(".await") || line.contains("async move");
            assert!(
                !awaits || line.trim_start().starts_with("//"),
                "{}:{}: the core has no async",
                file.display(),
                at + 1
            );
        }
    }
}

/// No crate of ours but the two of the simulator reads its flag: to the product it is inert.
#[test]
fn the_product_does_not_read_the_flag() {
    let mut files = Vec::new();
    for package in ["core", "runtime-real", "bin/src", "examples"] {
        rust_files(&root().join(package), &mut files);
    }
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source file can be read");
        assert!(
            !text.contains("cfg(madsim)") && !text.contains("not(madsim)"),
            "{} reads the simulator's flag",
            file.display()
        );
    }
}

/// The top of the repository holds what belongs there and nothing else.
#[test]
fn the_top_level_is_tidy() {
    let strays: Vec<String> = top_level().into_iter().filter(|name| !TOP_LEVEL.contains(&name.as_str())).collect();
    assert!(strays.is_empty(), "{strays:?} at the top of the repository: move it, or name it in TOP_LEVEL");
}

/// The clippy list of omb-core bites, tried on a copy with planted violations.
#[test]
fn the_core_checks_bite() {
    let script = root().join("scripts/check-core-purity.sh");
    let output = Command::new("bash").arg(script).output().expect("bash runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bin lies in the workspace").to_owned()
}

/// The names of all packages in the tree of `package`, itself included.
#[track_caller]
fn tree(package: &str, edges: &str) -> BTreeSet<String> {
    let names: BTreeSet<String> = lines(&["tree", "-p", package, "-e", edges, "--no-dedupe"]).into_iter().collect();
    assert!(names.contains(package), "cargo tree names {package} itself");
    names
}

/// The first word of each line that cargo prints.
#[track_caller]
fn lines(arguments: &[&str]) -> Vec<String> {
    stdout(arguments).lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// What cargo prints, from the lock file as it is. Without the network, save where this machine never had a package.
#[track_caller]
fn stdout(arguments: &[&str]) -> String {
    let ask = |network: &[&str]| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(arguments).args(["--locked", "--prefix", "none"]).args(network);
        cargo.current_dir(root()).output().expect("cargo runs")
    };
    let offline = ask(&["--offline"]);
    let output = if offline.status.success() { offline } else { ask(&[]) };
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints UTF-8")
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("a folder entry").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What the repository tracks at its top; without git, what lies there.
fn top_level() -> BTreeSet<String> {
    let tracked = Command::new("git").args(["ls-files"]).current_dir(root()).output();
    let first = |path: &str| path.split('/').next().unwrap_or(path).to_owned();
    match tracked {
        Ok(output) if output.status.success() && !output.stdout.is_empty() => {
            String::from_utf8_lossy(&output.stdout).lines().map(first).collect()
        }
        _ => std::fs::read_dir(root())
            .expect("the workspace can be listed")
            .map(|entry| entry.expect("a folder entry").file_name().to_string_lossy().into_owned())
            .filter(|name| name != "target" && name != ".git")
            .collect(),
    }
}
