//! The architecture, held by tests: what depends on what, and what lies where.
//!
//! `core/clippy.toml` is the other half: it turns away what the core could reach through the standard library, and
//! `scripts/check-core-purity.sh` proves that it does.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
};

/// The packages of this repository, and which of ours each may use. What a line does not name, the compiler does not
/// find.
const PACKAGES: &[(&str, &[&str])] = &[
    ("omb-machine", &[]),
    ("omb-bench", &["omb-machine"]),
    ("omb-report", &["omb-bench", "omb-machine"]),
    ("omb-cluster", &["omb-machine"]),
    ("omb-broker", &["omb-machine"]),
    ("omb-kafka", &["omb-broker", "omb-machine"]),
    ("omb-runtime-real", CORE),
    ("omb-runtime-sim", &["omb-bench", "omb-broker", "omb-cluster", "omb-machine"]),
    ("sim-tests", &["omb-bench", "omb-broker", "omb-cluster", "omb-machine", "omb-runtime-sim"]),
    ("omb", &["omb-bench", "omb-cluster", "omb-machine", "omb-report", "omb-runtime-real"]),
    ("omb-examples", &["omb-bench", "omb-cluster", "omb-machine", "omb-report"]),
];

/// The pure packages, which lie below `core/`.
const CORE: &[&str] = &["omb-bench", "omb-broker", "omb-cluster", "omb-kafka", "omb-machine", "omb-report"];

/// What the packages of the core may depend on, and what for. None of it brings a clock, a thread, a socket, a file or
/// async.
const CORE_DEPENDENCIES: &[(&str, &str)] = &[
    ("base64", "histograms travel and are stored as text"),
    ("bincode", "the one encoding of our own messages"),
    ("bytes", "record batches that are passed on without copying"),
    ("crc32c", "the checksum of message headers and of Kafka's record batches"),
    ("flate2", "the periods of a long run, packed in memory"),
    ("hdrhistogram", "latencies, in the format that the Java tools read"),
    ("hmac", "the proof that somebody knows a cluster's shared key"),
    ("indexmap", "maps of a result that keep their order"),
    ("kafka-protocol", "the shapes of Kafka's requests and answers"),
    ("rand", "the traits of random streams; its features that ask the system for randomness are off"),
    ("rand_chacha", "random streams that are the same on every machine and in every version"),
    ("saphyr-parser", "YAML as events, each with its line and column"),
    ("serde", "the edges serialize: config, protocol, report"),
    ("serde_json", "results, and the bodies of upstream's endpoints"),
    ("sha2", "the digest of the list of peers, and what an upload is known by"),
    ("strsim", "\"did you mean\""),
    ("thiserror", "error enums"),
    ("unicode-width", "how many columns of a terminal a text takes"),
    ("uuid", "named by the types of kafka-protocol"),
];

/// What must not be found anywhere below the core: another way to the clock, the system or a runtime, each by the crate
/// that would bring it.
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
    "docs",
    "examples",
    "fuzz",
    "runtime-real",
    "runtime-sim",
    "scripts",
    "sim-tests",
    "start_worker.sh",
    "stress_test_multi_machine.sh",
];

/// The product's dependency graph holds no simulator.
#[test]
fn the_product_holds_no_simulator() {
    for package in CORE.iter().copied().chain(["omb", "omb-runtime-real"]) {
        let found: Vec<_> = tree(package, "normal,build").into_iter().filter(|name| name.contains("madsim")).collect();
        assert!(found.is_empty(), "{package} depends on {found:?}, which belongs below runtime-sim and sim-tests only");
    }
    // The same question with another answer, so that a changed output of cargo cannot make the one above true for
    // nothing.
    assert!(tree("sim-tests", "normal").contains("madsim"), "cargo tree names the simulator where there is one");
}

/// Each package names exactly those of ours that it may use: nothing points sideways or upwards, and no line of the
/// table is idle.
#[test]
fn packages_use_what_the_table_says() {
    let metadata: serde_json::Value =
        serde_json::from_str(&stdout(&["metadata", "--format-version", "1", "--no-deps"])).expect("cargo writes JSON");
    let name = |value: &serde_json::Value| value["name"].as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let listed: BTreeSet<String> = PACKAGES.iter().map(|(package, _)| (*package).to_owned()).collect();
    assert_eq!(ours, listed, "the packages of the workspace");
    for package in packages {
        let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
        // Also those of tests and build scripts.
        let got: BTreeSet<String> = dependencies.iter().map(name).filter(|name| ours.contains(name)).collect();
        let (_, may) = PACKAGES.iter().find(|(listed, _)| *listed == name(package)).expect("it is listed");
        let want: BTreeSet<String> = may.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(got, want, "the packages of ours that {} uses", name(package));
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        let pure = manifest.starts_with(root().join("core"));
        assert_eq!(pure, CORE.contains(&name(package).as_str()), "{} is pure, or lies elsewhere", manifest.display());
    }
}

/// The core depends on exactly what is listed above, each with its reason.
#[test]
fn core_depends_on_what_is_listed() {
    let mut got = BTreeSet::new();
    for package in CORE {
        got.extend(lines(&["tree", "--prefix", "none", "-p", package, "-e", "normal,build", "--depth", "1"]));
    }
    got.retain(|name| !CORE.contains(&name.as_str()));
    let want: BTreeSet<String> = CORE_DEPENDENCIES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        got, want,
        "a new dependency of the core needs a reason in CORE_DEPENDENCIES, and no way to the world outside"
    );
}

/// Nothing below the core reaches the clock, the system, a runtime, or randomness without a seed.
#[test]
fn nothing_below_core_reaches_outside() {
    for package in CORE {
        let below = tree(package, "normal,build");
        for (name, brings) in NEVER_BELOW_CORE {
            assert!(
                !below.contains(*name),
                "{name} ({brings}) is in the tree of {package}: cargo tree -p {package} -i {name}"
            );
        }
        let features = stdout(&["tree", "--prefix", "none", "-p", package, "-e", "normal,build,features"]);
        assert!(features.contains("feature \""), "cargo tree prints features");
        for feature in ["std_rng", "sys_rng", "thread_rng"] {
            let spelled = format!("rand feature \"{feature}\"");
            assert!(!features.contains(&spelled), "{package} switches on rand's {feature}: randomness without a seed");
        }
    }
}

/// The checks of the core are not switched off from within.
#[test]
fn core_allows_itself_nothing() {
    let mut files = Vec::new();
    for package in CORE {
        let source = root().join("core").join(package.trim_start_matches("omb-")).join("src");
        rust_files(&source, &mut files);
    }
    assert!(files.len() > 100, "the sources of the core are found");
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

/// What is compiled twice is one folder.
#[test]
fn one_folder_is_compiled_twice() {
    let mut files = Vec::new();
    for package in ["core", "runtime-real", "runtime-sim", "sim-tests", "bin", "examples"] {
        rust_files(&root().join(package), &mut files);
    }
    let mut shared = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("bin/tests/layering.rs")) {
        let text = std::fs::read_to_string(file).expect("a source file can be read");
        shared.extend(text.lines().filter(|line| line.trim_start().starts_with("#[path")).map(str::to_owned));
    }
    assert_eq!(shared, ["#[path = \"../../runtime-real/src/portable/mod.rs\"]"]);
}

/// Libraries that one package alone may use: Kafka's protocol and its client, the encoding, and madsim (see
/// `deny.toml`). The settings of a Kafka driver file are still among the benchmark's.
#[test]
fn some_libraries_have_one_user() {
    let users: &[(&str, &[&str])] = &[
        ("bincode", &["omb-machine"]),
        ("kafka-protocol", &["omb-kafka"]),
        ("madsim", &["omb-runtime-sim", "sim-tests"]),
        ("rdkafka", &["omb-runtime-real"]),
    ];
    for (library, allowed) in users {
        for (package, _) in PACKAGES {
            let names = lines(&["tree", "--prefix", "none", "-p", package, "-e", "normal,build", "--depth", "1"]);
            assert_eq!(names.iter().any(|name| name == *library), allowed.contains(package), "{package} and {library}");
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

/// The clippy list of the core bites, tried on a copy with planted violations.
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
    let names: BTreeSet<String> =
        lines(&["tree", "--prefix", "none", "-p", package, "-e", edges, "--no-dedupe"]).into_iter().collect();
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
        cargo.args(arguments).arg("--locked").args(network);
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
