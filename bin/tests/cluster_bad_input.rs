//! What is wrong with a cluster's files, folders, disks and neighbours, or with what a client gives: one clear line,
//! the right exit code, and the cluster goes on.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use omb_cluster::{node::message::VERSION, peer::Digest, store::Name};
use omb_machine::seed::fnv1a;
use support::{
    cluster::{Cluster, config, free_ports, shared, within},
    fleet::Pretender,
    not_permitted,
    omb::{Ended, PATIENCE, Place},
};

const SOON: Duration = Duration::from_secs(20);

const NODE: &str = env!("CARGO_BIN_EXE_cloud-p2p");

/// Asserts that a program ended soon with this code, and printed one line, which contains all this.
#[track_caller]
fn one_line(ended: Ended, code: i32, telling: &[&str]) {
    let ended = ended.with(code).within(SOON);
    assert_eq!(ended.stderr.lines().count(), 1, "one line is enough:\n{}", ended.stderr);
    for part in telling {
        assert!(ended.stderr.contains(part), "{part:?} is not in {}", ended.stderr);
    }
}

/// Asserts that a node does not even begin.
#[track_caller]
fn refused(place: &Place, environment: &[(&str, &str)], code: i32, telling: &[&str]) {
    one_line(place.start_with(NODE, environment, &[]).end(), code, telling);
}

#[test]
fn a_node_that_is_nobody() {
    let cluster = Cluster::prepare(3);
    let (place, all) = (&cluster.place, "config.json has 1, 2, 3");
    refused(place, &[], 2, &["which node is this? Give NODE_ID=N or --id N", all]);
    for id in ["4", "0", "-1", "three", "", " ", "99999999999999999999", "1\n2"] {
        refused(place, &[("NODE_ID", id)], 2, &["NODE_ID (--id): found `", &id.escape_debug().to_string(), all]);
    }
    one_line(place.run(&["node", "--id", "7", "--config", "config.json"]), 2, &["NODE_ID (--id): found `7`", all]);
    let peers = [("NODE_ID", "3"), ("PEERS", "1=127.0.0.1:7001")];
    refused(place, &peers, 2, &["NODE_ID (--id): found `3`; PEERS has 1"]);
}

#[test]
fn a_cluster_file_that_is_none() {
    let place = Place::default();
    let peer = |id: &str, address: &str| format!("{{\"id\": {id}, \"address\": \"{address}\"}}");
    let two = |one: &str, other: &str| format!("{{\"peers\": [{one}, {other}]}}");
    let first = peer("1", "127.0.0.1:7001");
    let files = [
        ("hello", "found `hello`; allowed: {\"peers\""),
        ("", "the file is empty"),
        ("{\"peers\": [", "broken.json:2:1: neither valid YAML nor JSON"),
        ("{\"peers\": []}", "a list of 1 to 1000 peers"),
        ("{\"shared_dir\": \"a\"}", "give every node of the cluster"),
        (&two(&first, &peer("1", "127.0.0.1:7002")), "broken.json:1:59: peers.id: found 1; allowed: a whole number"),
        (&two(&first, &peer("2", "127.0.0.1:7001")), "peers.address: found the quoted text \"127.0.0.1:7001\""),
        (&two(&first, &peer("2", "127.0.0.1")), "an address such as 192.168.1.100:7001, each once"),
        (
            &two(&first, &peer("2", "0.0.0.0:7002")),
            "broken.json:1:73: peers.address: found the quoted text \"0.0.0.0:7002\"; allowed: the address at which the other",
        ),
        (&two(&first, &peer("2", "[::]:7002")), "0.0.0.0 and [::] stand for all addresses"),
        (&two(&first, &peer("2", "224.0.0.1:7002")), "none of many (multicast, broadcast)"),
        (&two(&first, &peer("2", "127.0.0.1:0")), "an address such as 192.168.1.100:7001, each once"),
        (&two(&first, &peer("2", "127.0.0.1:70000")), "an address such as 192.168.1.100:7001, each once"),
        (&two(&first, "{\"id\": 2, \"adress\": \"127.0.0.1:7002\"}"), "address"),
        ("{\"peers\": [{\"id\": 1, \"address\": \"127.0.0.1:7001\"}], \"quorom\": \"none\"}", "did you mean `quorum`"),
    ];
    let programs: [(&str, &[&str]); 3] =
        [(NODE, &[]), (env!("CARGO_BIN_EXE_client"), &["status"]), (env!("CARGO_BIN_EXE_omb"), &["stress"])];
    for (text, why) in files {
        place.write("broken.json", text);
        for (program, arguments) in programs {
            let environment = [("NODE_ID", "1"), ("CONFIG_FILE", "broken.json")];
            let ended = place.start_with(program, &environment, arguments).end().with(2).within(SOON);
            let ended = ended.saying("broken.json:").saying(why);
            assert_eq!(ended.stdout, "");
        }
    }
    for (program, arguments) in programs {
        let telling = ["config.json: cannot read it: No such file", "write the cluster file there", "--config"];
        one_line(place.start_with(program, &[("NODE_ID", "1")], arguments).end(), 2, &telling);
        let environment = [("NODE_ID", "1"), ("PEERS", "1=127.0.0.1:7001,2=127.0.0.1:7001")];
        let ended = place.start_with(program, &environment, arguments).end();
        one_line(ended, 2, &["PEERS:1:18: found `2=127.0.0.1:7001`", "each once"]);
    }
    assert!(place.files(".log").is_empty() && place.files(".bin").is_empty(), "{:?}", place.files(""));
}

#[test]
fn an_address_that_is_not_ours() {
    let place = Place::default();
    let at = |address: &'static str| [("NODE_ID", "1"), ("PEERS", address)];
    refused(
        &place,
        &at("1=192.0.2.1:7001"),
        3,
        &["node 1 cannot listen on 192.0.2.1:7001", "is NODE_ID that of another"],
    );
    refused(&place, &at("1=no-such-host.invalid:7001"), 3, &["no-such-host.invalid:7001", "cannot be looked up"]);
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let port = taken.local_addr().expect("a bound socket has an address").port();
    let peers = format!("1=127.0.0.1:{port}");
    let telling = [&format!("node 1 cannot listen on 127.0.0.1:{port}"), "another process listens there"];
    refused(&place, &[("NODE_ID", "1"), ("PEERS", &peers)], 3, &telling);
    assert!(place.files("").is_empty(), "no folder was made for a node that cannot be: {:?}", place.files(""));
}

#[test]
fn a_folder_that_cannot_be_written() {
    let cluster = Cluster::prepare(1);
    let place = &cluster.place;
    let at = |folder: &'static str| [("NODE_ID", "1"), ("SHARED_DIR", folder)];
    place.write("file", "");
    refused(place, &at("file"), 3, &["file: the folder for uploads (shared_dir) cannot be made"]);
    refused(place, &at("file/below"), 3, &["file/below: the folder for uploads (shared_dir) cannot be made"]);
    refused(place, &at("/proc/nobody/below"), 3, &["/proc/nobody/below: the folder for uploads"]);
    place.write(".state.node-1", "");
    refused(place, &at("state"), 3, &[".state.node-1", "--state-dir names another place"]);
    if may_mount(place) {
        let script = "mkdir -p disk/s1 && mount -t tmpfs -o size=1m none disk && mkdir disk/s1 && \
                      mount -o remount,ro disk && exec \"$NODE\"";
        let environment = [("NODE_ID", "1"), ("SHARED_DIR", "disk/s1")];
        let ended = place.start_with("unshare", &environment, &["-m", "sh", "-c", script]).end();
        one_line(ended, 3, &["disk/.s1.node-1", "Read-only file system"]);
    }
}

#[test]
fn a_folder_for_two() {
    let mut cluster = Cluster::prepare(2);
    cluster.launch(1);
    cluster.node(1).wait_for("[Node 1] leads in term");
    let environment = [("NODE_ID", "2"), ("SHARED_DIR", "./s1")];
    refused(&cluster.place, &environment, 3, &["s1: another node uses this folder", "SHARED_DIR"]);
    // The state, too, is for one.
    let environment = [("NODE_ID", "2"), ("SHARED_DIR", "./s2")];
    let ended = cluster.place.start_with(NODE, &environment, &["--state-dir", ".s1.node-1"]).end();
    let holder = format!("node 1, process {} keeps its state in this folder", cluster.node(1).id());
    one_line(ended, 3, &[".s1.node-1: ", &holder, "--state-dir"]);
    // And one node twice, which its port shows.
    let environment = [("NODE_ID", "1"), ("SHARED_DIR", "./s2")];
    refused(&cluster.place, &environment, 3, &["is this node running already"]);
    cluster.launch(2);
    cluster.agree_on(2);
}

/// Node 3 has another list than the others. Both sides name both digests, and neither follows the other.
#[test]
fn another_list_on_one_node() {
    let mut cluster = Cluster::prepare(3);
    let mut other = cluster.ports.clone();
    other.insert(4, free_ports().next().expect("a free port"));
    cluster.place.write("other.json", config(&other));
    cluster.launch(1);
    cluster.launch(2);
    let environment = [("NODE_ID", "3"), ("SHARED_DIR", "./s3"), ("CONFIG_FILE", "other.json")];
    let process = cluster.place.start_with(NODE, &environment, &[]);
    cluster.adopt(3, process);
    let digest = |file: &str| {
        let said = cluster.client(&["--config", file, "discover"]).stdout;
        let digest = said.split_once("Peers (").and_then(|(_, rest)| rest.split_once(')'));
        digest.unwrap_or_else(|| panic!("no digest: {said}")).0.to_owned()
    };
    let (ours, theirs) = (digest("config.json"), digest("other.json"));
    assert_ne!(ours, theirs);
    for (node, refuses, here, there) in
        [(1, 3, &ours, &theirs), (2, 3, &ours, &theirs), (3, 1, &theirs, &ours), (3, 2, &theirs, &ours)]
    {
        let line = format!(
            "[Node {node}] refuses node {refuses}: it was given another list of peers (digest {there}, here {here})"
        );
        cluster.node(node).wait_for(&line);
    }
    cluster.node(2).wait_for("[Node 2] leads in term");
    cluster.node(3).wait_for("[Node 3] leads in term");
    let followed = |node: u32| within(PATIENCE, || cluster.leader_of(node)).map(|(leader, _)| leader);
    assert_eq!([1, 2, 3].map(followed), [2, 2, 3].map(Some));
    // Reported once, not for each message that arrived meanwhile.
    let lines = cluster.logs().matches("refuses node").count();
    assert_eq!(lines, 4, "{}", cluster.logs());
    // With the right file it is one of them, and leads.
    cluster.kill(3);
    cluster.launch(3);
    cluster.agree_on(3);
}

#[test]
fn a_client_that_gives_nonsense() {
    let cluster = Cluster::start();
    let place = &cluster.place;
    place.write("empty", "");
    place.write("a.png", b"\x89PNG\r\n\x1a\n");
    std::os::unix::fs::symlink("nowhere", place.path("link")).expect("a link can be made");
    let client = |arguments: &[&str], code: i32, telling: &[&str]| one_line(cluster.client(arguments), code, telling);
    client(&["put", "empty"], 2, &["empty: the file is empty"]);
    client(&["put", "."], 2, &[".: not a plain file"]);
    client(&["put", "/dev/zero"], 2, &["/dev/zero: not a plain file"]);
    client(&["put", "link"], 2, &["link: cannot read it: No such file"]);
    let foul = "a\u{1b}[31m\n2026-01-01 00:00:00 - omb - INFO - forged";
    client(
        &["put", foul],
        2,
        &["a\\u{1b}[31m\\n2026-01-01 00:00:00 - omb - INFO - forged: cannot read it: No such file"],
    );
    client(&["put", "a.png", "--user", "a\nb"], 2, &["--user: `a\\nb` is not a user's name"]);
    for name in ["../../etc/passwd", "/etc/passwd", "..", "", "a\nb", "s1/a\u{1}b", ".s1.node-1/leadership"] {
        let shown = format!("`{}` is not the name of an upload", name.escape_debug());
        client(&["get", name], 2, &[&shown]);
    }
    client(&["get", "b.png"], 1, &["b.png: no node that can be reached holds an upload of this name"]);
    let name = format!("{:032x}-{:064x}.png", 1, 2);
    client(&["get", &name], 1, &[&name, "no node that can be reached holds it"]);
    client(&["get", &name, "-o", "missing/a.png"], 1, &[&name]);
    // What no command line can hold, a prompt can.
    place.write("commands", b"get a\0b\nget ../\xc3\nstatus\n");
    let ended = place.start_by_shell("HOME=. exec \"$CLIENT\" < commands").end().with(0);
    assert!(ended.stderr.contains("`a\\0b` is not the name of an upload"), "{}", ended.stderr);
    // One bad file of several does not keep the others from being stored.
    let ended = cluster.client(&["put", "empty", "a.png", "missing"]).with(2);
    assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
    let stored: Vec<Name> = (1..=3).flat_map(|node| cluster.stored_by(node).into_keys()).collect();
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert!(place.files(".part").is_empty(), "{:?}", place.files(""));
    // The folder of a node's state is none of the uploads'.
    assert_eq!(cluster.agree_on(3), cluster.durable_term(3));
}

/// The file goes away, or shrinks, after the client has seen how long it is.
#[test]
fn a_file_that_does_not_stay() {
    let mut cluster = Cluster::prepare(2);
    let place = &cluster.place;
    place.write("gone", [7; 100_000]);
    place.write("shorter", [7; 100_000]);
    let put = |file: &str| {
        let client = place.start_with(env!("CARGO_BIN_EXE_client"), &[], &["-v", "put", file]);
        (client, file.to_owned())
    };
    // No node runs yet, so both wait, with the length they have seen.
    let mut clients = [put("gone"), put("shorter")];
    for (client, _) in &mut clients {
        client.wait_for("connection refused");
    }
    fs::remove_file(place.path("gone")).expect("it was written");
    place.write("shorter", [7; 70_000]);
    for node in [1, 2] {
        cluster.launch(node);
    }
    let ends =
        ["gone: not stored: No such file or directory", "shorter: not stored: it became 30000 bytes shorter meanwhile"];
    for ((client, _), why) in clients.into_iter().zip(ends) {
        let ended = client.end().with(1).saying(why);
        assert_eq!(ended.stderr.matches(" - ERROR - ").count(), 1, "{}", ended.stderr);
    }
    cluster.agree_on(2);
    cluster.audit(&BTreeSet::new());
}

/// Bytes that no program of ours sends, to every node; the cluster must not be affected.
#[test]
fn neighbours_that_speak_nonsense() {
    let mut cluster = Cluster::start_calm();
    let term = cluster.agree_on(3);
    let load = cluster.load(2, 100);
    let mut seed = 1;
    let mut noise = |count: usize| -> Vec<u8> {
        let draw = |_| {
            seed = fnv1a(seed, b"noise");
            seed.to_le_bytes()[0]
        };
        (0..count).map(draw).collect()
    };
    // A client's greeting, a node's, and none at all; behind each a frame too long, one of nothing known, and noise.
    let greeting = |node: u32| [b"omb:".as_slice(), &VERSION.to_le_bytes(), &node.to_le_bytes()].concat();
    let heads = [Vec::new(), greeting(0), greeting(1), greeting(2), greeting(77), b"omb:\xff\xff\0\0\0\0".to_vec()];
    for port in cluster.ports.values() {
        for head in &heads {
            let long = u32::MAX.to_le_bytes();
            for tail in [long.to_vec(), [9_u32.to_le_bytes().as_slice(), &noise(9)].concat(), noise(5_000)] {
                let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).expect("it listens");
                stream.set_read_timeout(Some(SOON)).expect("a bound can be set");
                // It may hang up before everything is sent.
                let _ = stream.write_all(head).and_then(|()| stream.write_all(&tail));
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let hung_up = stream.read_to_end(&mut Vec::new());
                let silent =
                    |error: &std::io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
                assert!(!hung_up.is_err_and(|error| silent(&error)), "who speaks nonsense is hung up on");
            }
        }
    }
    load.end().with(0);
    assert_eq!(cluster.agree_on(3), term, "nobody else was elected:\n{}", cluster.logs());
    cluster.audit(&cluster.acknowledged());
    let logs = cluster.logs();
    assert!(!logs.contains("panicked"), "{logs}");

    // The other way round: what listens at an address is no node.
    let server = Pretender::start("200 OK", "text/html", "<html>Welcome to nginx!</html>");
    let peers = format!("1=127.0.0.1:{}", server.port);
    let client = |arguments: &[&str]| {
        cluster.place.start_with(env!("CARGO_BIN_EXE_client"), &[("PEERS", &peers)], arguments).end()
    };
    one_line(client(&["--timeout", "1s", "status"]), 3, &["HTTP is spoken there", "give the port of a node"]);
    cluster.kill(1);
}

/// More connections than a node has file descriptors for, all of them silent.
#[test]
fn a_flood_of_idle_connections() {
    let mut cluster = Cluster::prepare(3);
    for node in 1..=3 {
        let script = format!("ulimit -n 200; NODE_ID={node} SHARED_DIR=./{} exec \"$NODE\"", shared(node));
        let process = cluster.place.start_by_shell(&script);
        cluster.adopt(node, process);
    }
    let term = cluster.agree_on(3);
    let connect = |port: &u16| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).expect("it listens");
    let flood: Vec<TcpStream> = cluster.ports.values().flat_map(|port| (0..300).map(move |_| connect(port))).collect();
    // Those that greet are let wait for longer.
    for mut stream in &flood[..60] {
        let _ = stream.write_all(&[b"omb:".as_slice(), &VERSION.to_le_bytes(), &[0; 4]].concat());
    }
    let ended = cluster.place.run(&["stress", "--clients", "2", "--requests", "30"]);
    drop(flood);
    // Not evenly, for who is flooded may have to turn others away.
    assert_eq!(cluster.acknowledged().len(), 60, "{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(cluster.agree_on(3), term, "nobody else was elected:\n{}", cluster.logs());
    cluster.audit(&cluster.acknowledged());
}

/// Node 2 has a disk of its own that holds a few uploads. The others take what it cannot.
#[test]
fn a_full_disk() {
    let mut cluster = Cluster::prepare(3);
    if !may_mount(&cluster.place) {
        return not_permitted("a full disk under a node", "no mount namespace of its own");
    }
    for node in [1, 3] {
        cluster.launch(node);
    }
    let script = "mkdir disk && mount -t tmpfs -o size=400k none disk && exec \"$NODE\"";
    let environment = [("NODE_ID", "2"), ("SHARED_DIR", "disk/s2")];
    let process = cluster.place.start_with("unshare", &environment, &["-m", "sh", "-c", script]);
    let disk = PathBuf::from(format!("/proc/{}/root", process.id()))
        .join(cluster.place.path("disk").strip_prefix("/").expect("an absolute path"));
    cluster.adopt(2, process);
    let term = cluster.agree_on(3);
    let ended = cluster.place.run(&["stress", "--clients", "4", "--requests", "10", "--size", "40KiB"]);
    // Each upload was acknowledged, though not as evenly as with three disks.
    let acknowledged = cluster.acknowledged();
    assert_eq!(acknowledged.len(), 40, "{}\n{}", ended.stdout, ended.stderr);
    let shares: Vec<usize> =
        (1..=3).map(|node| acknowledged.iter().filter(|upload| upload.node == node).count()).collect();
    assert!((5..10).contains(&shares[1]) && shares.iter().sum::<usize>() == 40, "{shares:?}");
    for node in [1, 3] {
        assert_eq!(cluster.stored_by(node).len(), shares[node as usize - 1]);
        cluster.nothing_half_written(node);
    }
    let whole = |folder: &Path| {
        let found: BTreeMap<String, Digest> = fs::read_dir(folder)
            .expect("the disk can be seen")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| {
                (entry.file_name().to_string_lossy().into_owned(), Digest::of(&fs::read(entry.path()).expect("a file")))
            })
            .collect();
        found
    };
    let held = whole(&disk.join("s2"));
    assert_eq!(held.len(), shares[1], "{held:?}");
    for (name, digest) in held {
        assert_eq!(name.parse().map(|name: Name| name.digest), Ok(digest), "{name}");
    }
    // What could not be stored is removed after the client has heard so.
    let parts = disk.join(".s2.node-2/parts");
    let removed = within(PATIENCE, || fs::read_dir(&parts).is_ok_and(|mut left| left.next().is_none()).then_some(()));
    assert!(removed.is_some(), "nothing half-written remains");
    let why = || {
        let log = cluster.logs();
        (log.contains("[Node 2] cannot store ") && log.contains("No space left on device")).then_some(())
    };
    assert!(within(PATIENCE, why).is_some(), "it says why:\n{}", cluster.logs());

    // Not a byte is left: terms are stored all the same, so it follows, and leads.
    let mut filler = fs::File::create(disk.join("filler")).expect("the disk can be seen");
    while filler.write_all(&[0; 512]).is_ok() {}
    cluster.kill(3);
    let next = cluster.agree_on(2);
    assert!(next > term, "term {next} after {term}");
    cluster.place.write("a.png", b"\x89PNG\r\n\x1a\n");
    for _ in 0..3 {
        let said = cluster.client(&["put", "a.png"]).with(0).stdout;
        assert!(said.contains("stored by node 1 as"), "{said}");
    }
}

/// The same by a limit on the size of each file, which needs no permission.
#[test]
fn a_file_that_is_too_large_for_one_disk() {
    let mut cluster = Cluster::prepare(3);
    for node in [1, 3] {
        cluster.launch(node);
    }
    // Blocks of 512 bytes.
    let process = cluster.place.start_by_shell("ulimit -f 40; NODE_ID=2 SHARED_DIR=./s2 exec \"$NODE\"");
    cluster.adopt(2, process);
    cluster.agree_on(3);
    cluster.place.run(&["stress", "--clients", "2", "--requests", "6", "--size", "100KiB"]);
    let acknowledged = cluster.acknowledged();
    assert_eq!(acknowledged.len(), 12);
    assert!(acknowledged.iter().all(|upload| upload.node != 2), "{acknowledged:?}");
    cluster.node(3).wait_for("RECORDED: Node 2 now has");
    assert_eq!(cluster.audit(&acknowledged), 0);
    cluster.place.write("small.png", b"\x89PNG\r\n\x1a\n");
    // What fits it still takes, once its penalty is over.
    let taken = within(PATIENCE, || {
        let said = cluster.client(&["put", "small.png"]).with(0).stdout;
        said.contains("stored by node 2 as").then_some(())
    });
    assert!(taken.is_some(), "{}", cluster.logs());
}

/// Whether this user may mount in a namespace of its own.
fn may_mount(place: &Place) -> bool {
    let script = "mkdir -p probe && mount -t tmpfs -o size=4k none probe";
    place.start_with("unshare", &[], &["-m", "sh", "-c", script]).end().code == Some(0)
}
