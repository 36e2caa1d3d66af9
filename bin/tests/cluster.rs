//! The peer cluster as processes on loopback: whatever order they start in, whichever is killed or frozen, no
//! acknowledged upload is lost.

mod support;

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt as _, path::Path, time::Instant};

use omb_cluster::store::Name;
use support::{
    cluster::{Cluster, PATIENT, shared, within},
    omb::PATIENCE,
    root,
};

const COORDINATOR: &str = "[Node 3] no higher nodes -> becoming coordinator";

/// As in the guide: by environment, all at once, the highest first.
#[test]
fn started_together() {
    let mut cluster = Cluster::prepare(3);
    for node in [3, 1, 2] {
        cluster.launch(node);
    }
    let began = Instant::now();
    let term = cluster.agree_on(3);
    println!("node 3 leads in term {term} {:?} after the start", began.elapsed());
    assert!(began.elapsed() < PATIENT, "{:?}", began.elapsed());
    cluster.node(3).wait_for(COORDINATOR);
    cluster.one_leader_per_term();
}

/// The lowest first, by flags: each leads until a higher one has been there for long enough.
#[test]
fn started_one_after_the_other() {
    let mut cluster = Cluster::prepare(3);
    let mut former = 0;
    for node in 1..=3 {
        let (id, folder) = (node.to_string(), shared(node));
        let flags = ["node", "--id", &id, "--config", "config.json", "--shared-dir", &folder];
        let process = cluster.place.start(&flags);
        cluster.adopt(node, process);
        let term = cluster.agree_on(node);
        assert!(term > former, "term {term} after {former}");
        former = term;
    }
    cluster.node(3).wait_for(COORDINATOR);
    cluster.one_leader_per_term();
}

/// Without any file: `PEERS` says who they are, and `BIND` where to listen.
#[test]
fn started_without_a_file() {
    let mut cluster = Cluster::prepare(3);
    fs::remove_file(cluster.place.path("config.json")).expect("it was written");
    let peers: Vec<String> = cluster.ports.iter().map(|(node, port)| format!("{node}=127.0.0.1:{port}")).collect();
    let peers = peers.join(",");
    for (node, bind) in [(2, "0.0.0.0"), (3, "127.0.0.1"), (1, "0.0.0.0")] {
        let (id, folder) = (node.to_string(), shared(node));
        let environment =
            [("NODE_ID", id.as_str()), ("PEERS", &peers), ("BIND", bind), ("SHARED_DIR", folder.as_str())];
        let process = cluster.place.start_with(env!("CARGO_BIN_EXE_cloud-p2p"), &environment, &[]);
        cluster.adopt(node, process);
    }
    cluster.agree_on(3);
    let log = cluster.node(2).log();
    assert!(log.contains(&format!("listening on 0.0.0.0:{}", cluster.ports[&2])), "{log}");
    cluster.node(3).wait_for(COORDINATOR);
}

/// The guide's file needs no key, and says so once and loudly. With the two keys nothing is to be said: nodes prove
/// theirs to each other, clients theirs, and who has none gets nothing.
#[test]
fn with_and_without_keys() {
    let mut cluster = Cluster::start();
    let log = cluster.node(1).log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("peer_key_file")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    let aloud = "NO KEYS: anyone who reaches this port can upload and fetch, and anyone who has the address of a node can speak as that node";
    assert!(warnings[0].contains(aloud) && warnings[0].contains(" - WARN"), "{log}");
    (1..=3).for_each(|node| cluster.kill(node));

    let bare = fs::read_to_string(cluster.place.path("config.json")).expect("it was written");
    let keys = r#"{"key_file": "cluster.key", "peer_key_file": "peers.key", "#;
    for (file, key) in [("cluster.key", "what clients prove"), ("peers.key", "what nodes alone prove")] {
        cluster.place.write(file, key);
        fs::set_permissions(cluster.place.path(file), fs::Permissions::from_mode(0o600)).expect("it is ours");
    }
    cluster.place.write("config.json", bare.replacen('{', keys, 1));
    // With that of clients alone each of them could speak as a node, from its address.
    cluster.place.write("config.json", bare.replacen('{', r#"{"key_file": "cluster.key", "#, 1));
    cluster.launch(1);
    let said = cluster.node(1).wait_for("peer_key_file");
    assert!(
        said.contains(" - WARN - [Node 1] peers prove the key of clients (key_file), so they are believed only from"),
        "{said}"
    );
    cluster.kill(1);
    cluster.place.write("config.json", bare.replacen('{', keys, 1));
    let before = cluster.mark_of_former();
    (1..=3).for_each(|node| cluster.launch(node));
    cluster.agree_on(3);
    assert!(!cluster.logs()[before..].contains("peer_key_file"), "{}", cluster.logs());
    cluster.place.write("a.png", b"\x89PNG\r\n\x1a\n");
    fs::remove_file(cluster.place.path("peers.key")).expect("it was written");
    cluster.client(&["put", "a.png"]).with(0);
    cluster.place.write("bare.json", bare);
    cluster
        .client(&["--config", "bare.json", "put", "a.png"])
        .with(3)
        .saying("it asks for the shared key: give key_file");
}

/// A term that no election has led to is on every disk, as one forged packet left it in earlier versions: nobody leads
/// until it is repaired, and the terms that come after are above those before.
#[test]
fn an_absurd_term_is_repaired() {
    let mut cluster = Cluster::start();
    let before = cluster.agree_on(3);
    (1..=3).for_each(|node| cluster.kill(node));
    let repair = |cluster: &Cluster, node: u32| {
        let (id, folder) = (node.to_string(), shared(node));
        let environment = [("NODE_ID", id.as_str()), ("SHARED_DIR", folder.as_str())];
        cluster.place.start_with(env!("CARGO_BIN_EXE_cloud-p2p"), &environment, &["--reset-term"]).end()
    };
    repair(&cluster, 1).with(0).saying("nothing to repair");
    for node in 1..=3 {
        // 4611686018427387903 is the highest that there can be, and node 1's.
        fs::write(cluster.state(node).join("leadership"), "term 4611686018427387903 leader 1\n")
            .expect("it can be written");
        cluster.launch(node);
    }
    let cure = "no term is left above term 4611686018427387903; stop all nodes, run each once with --reset-term";
    cluster.node(3).wait_for(cure);
    repair(&cluster, 3).with(3).saying("another node uses this folder");
    assert_eq!(cluster.leader_of(3), None);
    (1..=3).for_each(|node| cluster.kill(node));
    for node in 1..=3 {
        repair(&cluster, node).with(0).saying("is replaced by node ");
        cluster.launch(node);
    }
    let after = cluster.agree_on(3);
    assert!(after > before && after < 1 << 32, "term {after} after {before}");
    let load = cluster.load(2, 10);
    load.end().with(0);
    cluster.audit(&cluster.acknowledged());
}

#[test]
fn a_killed_leader_loses_nothing() {
    let (mut cluster, load) = under_load(300);
    let before = cluster.mark();
    let killed = Instant::now();
    cluster.kill(3);
    let (leader, term) = cluster.leader_since(&before);
    println!("node {leader} leads in term {term} {:?} after the leader was killed", killed.elapsed());
    assert!(killed.elapsed() < PATIENT, "{:?}", killed.elapsed());
    cluster.launch(3);
    let returned = cluster.agree_on(3);
    assert!(returned > term, "term {returned} after {term}");
    everything_is_there(&cluster, load, 2_400);
}

/// The others take over meanwhile; the one that was frozen does not serve a single request by what it knew.
#[test]
fn a_frozen_leader_loses_nothing() {
    let (mut cluster, load) = under_load(300);
    let before = cluster.mark();
    cluster.node(3).signal("STOP");
    let frozen = Instant::now();
    let (leader, term) = cluster.leader_since(&before);
    println!("node {leader} leads in term {term} {:?} after the leader was frozen", frozen.elapsed());
    cluster.node(3).signal("CONT");
    let from = before[&3];
    let said = cluster.node(3).wait_beyond(from, &format!("in term {term}"));
    assert!(said.contains("slept for") && said.contains("follows node "), "{said}");
    let returned = cluster.agree_on(3);
    assert!(returned > term, "term {returned} after {term}");
    everything_is_there(&cluster, load, 2_400);
}

#[test]
fn all_killed_and_restarted() {
    let (mut cluster, load) = under_load(200);
    for node in 1..=3 {
        cluster.kill(node);
    }
    let terms: BTreeMap<u32, u64> = (1..=3).map(|node| (node, cluster.durable_term(node))).collect();
    assert!(terms.values().all(|term| *term > 0), "{terms:?}");
    for node in [2, 3, 1] {
        cluster.launch(node);
    }
    let term = cluster.agree_on(3);
    for (node, former) in terms {
        assert!(cluster.durable_term(node) >= former && term > former, "node {node}: term {former} before {term}");
    }
    everything_is_there(&cluster, load, 1_600);
}

/// A cluster that eight clients upload to, each so many files; some 200 of them are there.
#[track_caller]
fn under_load(each: u32) -> (Cluster, support::omb::Omb) {
    let cluster = Cluster::start();
    let load = cluster.load(8, each);
    cluster.wait_for_acknowledged(200);
    assert!(cluster.acknowledged().len() < 8 * each as usize, "the load goes on");
    (cluster, load)
}

/// Waits for the end of a load of so many uploads, and holds the folders to what it was told.
#[track_caller]
fn everything_is_there(cluster: &Cluster, load: support::omb::Omb, uploads: usize) {
    let ended = load.end();
    assert!(matches!(ended.code, Some(0 | 1)), "{}\n{}", ended.stdout, ended.stderr);
    let acknowledged = cluster.acknowledged();
    assert_eq!(acknowledged.len(), uploads, "{}", ended.stdout);
    let copies = cluster.audit(&acknowledged);
    println!("{uploads} uploads in {:?}, {copies} of them on more than one node", ended.took);
    cluster.one_leader_per_term();
}

/// The whole guide: its command, its screen, the counts in the folders, the servers' logs; then with a node down, and
/// with none.
#[test]
fn the_stress_test_of_the_guide() {
    let mut cluster = Cluster::start_calm();
    let script = root().join("stress_test_multi_machine.sh");
    let target = Path::new(env!("CARGO_BIN_EXE_omb")).ancestors().nth(2).expect("target/release/omb");
    let environment = [("CARGO_TARGET_DIR", target.to_str().expect("UTF-8"))];
    let ended = cluster.place.start_with(script.to_str().expect("UTF-8"), &environment, &[]).end().with(0);
    let screen = &ended.stdout;
    let rule = "=".repeat(40);
    let host = |node: u32| format!("  Node {node}: 127.0.0.1:{}", cluster.ports[&node]);
    let head = [
        &rule,
        "  MULTI-MACHINE LOAD BALANCER STRESS TEST",
        &rule,
        "",
        "Machine IPs:",
        &host(1),
        &host(2),
        &host(3),
        "",
        "Test Configuration:",
        "  - Concurrent Clients: 10",
        "  - Requests per Client: 10",
        "  - Total Requests: 100",
        "",
    ];
    assert!(screen.starts_with(head.join("\n").as_str()), "{screen}");
    let analysis = format!("{rule}\n  LOAD DISTRIBUTION ANALYSIS\n{rule}\n\nDistribution across physical machines:\n");
    let (_, rest) = screen.split_once(&analysis).unwrap_or_else(|| panic!("no analysis:\n{screen}"));
    let counts: BTreeMap<u32, usize> = (1..=3)
        .zip(rest.lines())
        .map(|(node, line)| {
            let count = line.strip_prefix(&format!("  Machine 127.0.0.1 (Node {node}): "));
            let count = count.and_then(|rest| rest.strip_suffix(" requests")?.parse().ok());
            (node, count.unwrap_or_else(|| panic!("no count of node {node}: {line}")))
        })
        .collect();
    let mut sorted: Vec<usize> = counts.values().copied().collect();
    sorted.sort_unstable();
    assert_eq!(sorted, [33, 33, 34], "{screen}");
    assert!(screen.contains("\n✅ PASS: Load distribution is balanced across machines\n"), "{screen}");
    assert!(cluster.place.path("test_image.bin").is_file());
    let logs = cluster.place.files(".log");
    assert!(logs.len() == 1 && logs[0].starts_with("stress_test_"), "{logs:?}");

    let acknowledged = cluster.acknowledged();
    assert_eq!((acknowledged.len(), cluster.audit(&acknowledged)), (100, 0));
    for (node, count) in &counts {
        // The heading of `ls -lh` is one line more, which the guide's "~33" allows for.
        let listed = format!("ls -lh {} | wc -l", shared(*node));
        let listed = cluster.place.start_by_shell(&listed).end().with(0).stdout;
        assert_eq!(listed.trim().parse(), Ok(count + 1), "node {node}");
        let saved = format!("[Node {node}] ✓ Saved image to \"./{}/", shared(*node));
        let recorded = format!("[LeastLoad] RECORDED: Node {node} now has {count} total requests");
        let mut log = String::new();
        let told = within(PATIENCE, || {
            log = cluster.logs();
            (log.matches(&saved).count() == *count && log.matches(&recorded).count() == 1).then_some(())
        });
        assert!(told.is_some(), "{count} of {saved} and {recorded} are to be in\n{log}");
    }

    cluster.kill(2);
    cluster.node(3).wait_for("node 2 is gone; it gets no uploads");
    let ended = cluster.place.run(&["stress"]).with(1);
    let why = format!("node 2 (127.0.0.1:{}) does not answer", cluster.ports[&2]);
    assert!(ended.stdout.contains("❌ FAIL: ") && ended.stdout.contains(&why), "{}", ended.stdout);
    assert!(!ended.stdout.contains("PASS"), "{}", ended.stdout);

    cluster.kill(1);
    cluster.kill(3);
    let ended = cluster.place.run(&["stress", "--timeout", "1s"]).with(3);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    ended.saying("the cluster cannot be reached").saying("connection refused");
}

#[test]
fn what_a_client_can_do() {
    let mut cluster = Cluster::start_calm();
    let images: [(&str, &[u8], &str); 4] = [
        ("a.png", b"\x89PNG\r\n\x1a\n and more", ".png"),
        // By content, not by name.
        ("b.png", b"\xff\xd8\xff\xe0 and more", ".jpg"),
        ("c.jpg", b"GIF89a", ".bin"),
        ("one byte", b"x", ".bin"),
    ];
    for (file, bytes, extension) in images {
        cluster.place.write(file, bytes);
        let said = cluster.client(&["put", file]).with(0).stdout;
        let name = said.split(' ').find(|word| word.ends_with(extension) && word.len() > 90);
        let name = name.unwrap_or_else(|| panic!("no name that ends in {extension}: {said}"));
        assert!(said.starts_with(&format!("{file}: stored by node ")), "{said}");
        // From whichever node.
        for node in 1..=3 {
            let output = format!("{file} from {node}");
            cluster.client_of(node, &["get", name, "-o", &output]).with(0);
            assert_eq!(fs::read(cluster.place.path(&output)).expect("it was fetched"), bytes);
        }
        cluster.client(&["get", name]).with(0);
        assert_eq!(fs::read(cluster.place.path(name)).expect("it was fetched"), bytes);
        cluster.client(&["get", name]).with(2).saying("nothing is ever overwritten");
    }
    let listed = cluster.client(&["list"]).with(0).stdout;
    assert!(listed.ends_with("\n4 uploads in all, 0 of them on more than one node\n"), "{listed}");
    let text = cluster.client(&["put", "a.png", "b.png", "c.jpg"]).with(0).stdout;
    assert_eq!(text.lines().count(), 3, "{text}");
    let discovered = cluster.client(&["discover"]).with(0).stdout;
    let status = cluster.client(&["status"]).with(0).stdout;
    assert!(discovered.starts_with("Leader: node 3 in term "), "{discovered}");
    assert!(status.starts_with("node 3 leads in term "), "{status}");
    for node in 1..=3 {
        let answers = format!("  Node {node}: 127.0.0.1:{} answers (", cluster.ports[&node]);
        assert!(discovered.contains(&answers), "{answers} is not in\n{discovered}");
        let stored = cluster.stored_by(node);
        let (id, address, count) =
            (node.to_string(), format!("127.0.0.1:{}", cluster.ports[&node]), stored.len().to_string());
        let row = [id.as_str(), &address, if node == 3 { "leads" } else { "up" }, &count, &count];
        let rows = status.lines().map(|line| line.split_whitespace().take(5).collect::<Vec<_>>());
        assert_eq!(rows.filter(|found| *found == row).count(), 1, "{row:?} is to be a row of\n{status}");
    }

    // The prompt: what fails does not end it, the end of its input does.
    let commands = "status\nput a.png 'one byte'\nfrob\nput nothing\nget 'x\nlist\n\nhelp\nquit\nstatus\n";
    cluster.place.write("commands", commands);
    let ended = cluster.place.start_by_shell("HOME=. exec \"$CLIENT\" < commands").end().with(0);
    assert!(ended.stdout.starts_with("A cluster of 3 nodes."), "{}", ended.stdout);
    assert_eq!(ended.stdout.matches("node 3 leads in term").count(), 1, "{}", ended.stdout);
    assert!(ended.stdout.contains("\n9 uploads in all, 0 of them"), "{}", ended.stdout);
    let ended = ended.saying("unrecognized subcommand 'frob'").saying("nothing: cannot read it");
    ended.saying("a quote is not closed");
    let ended = cluster.place.start_by_shell("echo discover | HOME=. \"$OMB\" client").end().with(0);
    assert!(ended.stdout.contains("Leader: node 3"), "{}", ended.stdout);
    // The reader is gone.
    let ended = cluster.place.start_by_shell("{ sleep 0.3; \"$CLIENT\" list; echo \"code $?\" >&2; } | true").end();
    assert_eq!(ended.stderr, "code 0\n");

    cluster.kill(3);
    cluster.node(2).wait_for("[Node 2] leads in term");
    let ended = cluster.client(&["discover"]).with(0);
    assert!(
        ended.stdout.contains(&format!("127.0.0.1:{} connection refused: nobody listens there", cluster.ports[&3]))
    );
    let status = cluster.client(&["status"]).with(0).stdout;
    assert!(status.contains("silent for "), "{status}");
    assert!(cluster.client(&["list"]).with(0).stdout.contains("node 3 did not answer: what it holds is not listed"));
    cluster.node(1).signal("TERM");
    cluster.node(1).wait_for("[Node 1] Shut down");
    cluster.client(&["put", "a.png"]).with(0);
}

/// Uploads are known by their files' names; files that are gone, damaged or replaced by something else are reported.
#[test]
fn uploads_have_names_and_are_missed() {
    let mut cluster = Cluster::start_calm();
    for (file, body) in [("holiday.txt", "x"), ("photo.png", "y"), ("other/photo.png", "z")] {
        fs::create_dir_all(cluster.place.path("other")).expect("a folder");
        cluster.place.write(file, body);
        cluster.client(&["put", "--user", "ann", file]).with(0);
    }
    let listed = cluster.client(&["list"]).with(0).stdout;
    let row =
        listed.lines().find(|line| line.starts_with("holiday.txt  ann  20")).unwrap_or_else(|| panic!("{listed}"));
    let (node, name) = row.split_once("  1 B  node ").and_then(|(_, rest)| rest.split_once("  ")).expect("a node");
    let (node, name): (u32, Name) = (node.parse().expect("a number"), name.parse().expect("a name"));
    cluster.client(&["get", "holiday.txt", "-o", "one"]).with(0);
    cluster.client(&["get", &name.to_string()[..12], "-o", "two"]).with(0);
    assert_eq!(["one", "two"].map(|file| fs::read(cluster.place.path(file)).expect("it was fetched")), [b"x", b"x"]);
    let several = cluster.client(&["get", "photo.png", "-o", "three"]).with(1).stderr;
    assert!(several.contains("2 uploads are called so") && several.lines().count() == 3, "{several}");
    let id = several.lines().last().and_then(|line| line.split_whitespace().next()).expect("an id");
    cluster.client(&["get", id, "-o", "three"]).with(0);

    // A pipe in the place of an upload: nothing waits for it, and it is reported as damaged.
    let path = cluster.place.path(&shared(node)).join(name.to_string());
    let pipe = format!("rm {0} && mkfifo {0}", path.display());
    cluster.place.start_by_shell(&pipe).end().with(0);
    let ended = cluster.client(&["get", "holiday.txt", "-o", "four"]).with(1).within(PATIENT);
    let was = format!("was stored by node {node} for ann at 20");
    assert!(ended.stderr.contains(&was) && ended.stderr.contains("and its file is damaged"), "{}", ended.stderr);
    fs::remove_file(&path).expect("it is there");

    // The guide's clean-up, and a restart.
    for node in 1..=3 {
        cluster.kill(node);
        fs::remove_dir_all(cluster.place.path(&shared(node))).expect("it is there");
    }
    (1..=3).for_each(|node| cluster.launch(node));
    cluster.agree_on(3);
    let logs = cluster.logs();
    assert_eq!(
        logs.matches("the folder of uploads is empty, without the 1 acknowledged upload that it held").count(),
        3,
        "{logs}"
    );
    let status = cluster.client(&["status"]).with(0).stdout;
    assert_eq!(status.matches(": 1 acknowledged upload cannot be had: ").count(), 3, "{status}");
    let listed = cluster.client(&["list"]).with(1).stdout;
    assert!(listed.contains("\n0 uploads in all") || listed.starts_with("0 uploads in all"), "{listed}");
    assert!(listed.contains("node 3: 1 acknowledged upload cannot be had, and not listed"), "{listed}");
    let ended = cluster.client(&["get", "holiday.txt", "-o", "four"]).with(1);
    assert!(ended.stderr.contains(&was) && ended.stderr.contains("and its file is gone"), "{}", ended.stderr);
    let ended = cluster.place.run(&["stress"]).with(0);
    assert!(ended.stdout.contains("✅ PASS") && ended.stdout.contains("held by the nodes: 100 "), "{}", ended.stdout);

    // The loss is accepted, node by node.
    for node in 1..=3 {
        cluster.kill(node);
        let (id, folder) = (node.to_string(), shared(node));
        let flags = ["node", "--id", &id, "--shared-dir", &folder, "--accept-loss"];
        let process = cluster.place.start(&flags);
        cluster.adopt(node, process);
        cluster.node(node).wait_for("forgets 1 uploads that cannot be had (--accept-loss)");
    }
    cluster.agree_on(3);
    let listed = cluster.client(&["list"]).with(0).stdout;
    assert!(listed.ends_with("\n100 uploads in all, 0 of them on more than one node\n"), "{listed}");
}
