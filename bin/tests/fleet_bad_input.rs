//! What is wrong with workers, or with what is taken for one: a clear line that names it, the right exit code, no
//! waiting.

mod support;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    time::Duration,
};

use omb_bench::{
    config::{
        driver::{DriverConfig, DriverKind, KafkaConfig},
        workload::{CatchUp, KeyDistributor, Verify},
    },
    id::RunId,
    load::payload::PayloadRecipe,
    protocol::{self, Event, Failure, FailureKind, Request, Response, command::Preparation},
};
use omb_machine::{encoding, seed::Seed};
use support::{
    fleet::{Fleet, Pretender, Worker, ask, certificate, free_pair, get},
    omb::{Broker, Ended, Place, kafka_driver, workload},
};

const SOON: Duration = Duration::from_secs(20);

/// A place with a workload, a driver and a broker.
fn with_broker() -> (Place, Broker) {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    let broker = Broker::start(&place);
    place.write("k.yaml", kafka_driver(&broker.address, ""));
    (place, broker)
}

/// Asserts that a run and a check over these workers end soon with this code, say all this in one line, and begin
/// nothing.
#[track_caller]
fn refused(place: &Place, workers: &str, more: &[&str], code: i32, telling: &[&str]) {
    for command in ["run", "check"] {
        let base =
            [command, "-d", "k.yaml", "-w", workers, "w.yaml", "--connect-timeout", "1s", "--call-timeout", "2s"];
        let ended = place.run(&[&base[..], more].concat()).with(code).within(SOON);
        one_line(&ended, telling);
        assert!(!ended.stderr.contains("Creating"), "{}", ended.stderr);
        assert!(place.files(".json").is_empty() && place.files(".jsonl").is_empty(), "{:?}", place.files(""));
    }
}

#[track_caller]
fn one_line(ended: &Ended, telling: &[&str]) {
    let says_all = |line: &&str| telling.iter().all(|part| line.contains(part));
    assert_eq!(ended.stderr.lines().filter(says_all).count(), 1, "{telling:?} is to be one line of\n{}", ended.stderr);
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    listener.local_addr().expect("a bound socket has an address").port()
}

#[test]
fn nobody_there() {
    let (place, _broker) = with_broker();
    let port = free_port();
    let address = format!("http://127.0.0.1:{port}");
    let cure = format!("omb worker --port {port}");
    let telling = ["Unable to connect to worker", &address, "Connection refused", &cure];
    refused(&place, &address, &[], 3, &telling);
    let address = "http://no-such-host.invalid:8080";
    refused(&place, address, &[], 3, &["Unable to connect to worker", address]);
    // All who are missing are named at once, and the one that is there is not.
    let worker = Worker::start(&place, &[]);
    let other = format!("http://127.0.0.1:{}", free_port());
    let ended = place.run(&["run", "-d", "k.yaml", "-w", &format!("{address},{},{other}", worker.address()), "w.yaml"]);
    let ended = ended.with(3).saying(&format!("{address}: ")).saying(&format!("{other}: "));
    assert!(!ended.stderr.contains(&worker.address()), "{}", ended.stderr);
}

/// It takes connections and never says a word.
#[test]
fn somebody_who_is_silent() {
    let (place, _broker) = with_broker();
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let address = format!("http://127.0.0.1:{}", mute.local_addr().expect("an address").port());
    refused(&place, &address, &[], 3, &["Timeout waiting for worker response", &address, "--call-timeout"]);
}

#[test]
fn somebody_who_is_no_worker() {
    let (place, broker) = with_broker();
    for (status, content_type) in
        [("200 OK", "text/html"), ("404 Not Found", "text/html"), ("200 OK", "application/json")]
    {
        let server = Pretender::start(status, content_type, "<html>Welcome to nginx!</html>");
        refused(
            &place,
            &server.address(),
            &[],
            3,
            &[&server.address(), "a web server that is no omb worker listens there"],
        );
    }
    let address = format!("http://{}", broker.address);
    refused(&place, &address, &[], 3, &[&address, "broker"]);
    // A worker's metrics are looked at, not led.
    let worker = Worker::start(&place, &[]);
    let address = format!("http://127.0.0.1:{}", worker.stats_port);
    refused(&place, &address, &[], 3, &[&address, "no omb worker"]);
}

#[test]
fn a_worker_of_another_version() {
    let (place, _broker) = with_broker();
    let hello = r#"{"protocol":0,"omb":"0.0.9","instance":"a","controller":null}"#;
    let old = Pretender::start("200 OK", "application/json", hello);
    let telling =
        [old.address(), "omb 0.0.9".to_owned(), "version 0".to_owned(), "run the same omb everywhere".to_owned()];
    refused(&place, &old.address(), &[], 3, &telling.each_ref().map(String::as_str));
    let words = "version 7 of the protocol is spoken there, version 9 here; this worker is omb 9.0.0";
    let new = Pretender::start("409 Conflict", "text/plain", words);
    refused(&place, &new.address(), &[], 3, &[&new.address(), words]);
}

/// What a worker says that it may have is held against its share, before anything is created.
#[test]
fn a_worker_with_too_few_threads_or_too_little_memory() {
    let (place, _broker) = with_broker();
    let hello =
        r#"{"protocol":2,"omb":"0.1.0","instance":"a","controller":null,"limits":{"threads":20,"memory":5000000}}"#;
    let small = Pretender::start("200 OK", "application/json", hello);
    let (address, about) = (small.address(), "its share of this run needs about");
    let threads = format!("worker 1 ({address}): threads 20, {about} 21: raise the limit there (ulimit -Hu, ");
    let memory = format!("worker 1 ({address}): memory 5.00 MB, {about} ");
    for command in ["run", "check"] {
        let ended = place.run(&[command, "-d", "k.yaml", "-w", &address, "w.yaml"]).with(3);
        assert!(ended.stderr.contains(&threads) && ended.stderr.contains(&memory), "{}", ended.stderr);
        assert!(!ended.stderr.contains("Creating"), "{}", ended.stderr);
    }
}

#[test]
fn one_worker_under_two_names() {
    let (place, _broker) = with_broker();
    let worker = Worker::start(&place, &[]);
    let (one, other) = (worker.address(), format!("http://localhost:{}", worker.port));
    refused(&place, &format!("{one},{other}"), &[], 3, &[&one, &other, "are the same worker"]);
}

#[test]
fn a_token_that_is_wrong_or_missing() {
    let (place, _broker) = with_broker();
    for (file, text) in [("right", "the-token\n"), ("wrong", "the-tokem\n"), ("empty", "\n"), ("two", "a b\n")] {
        place.write(file, text);
    }
    let worker = Worker::start(&place, &["--token-file", "right"]);
    let address = worker.address();
    refused(&place, &address, &[], 3, &[&address, "token"]);
    refused(&place, &address, &["--token-file", "wrong"], 3, &[&address, "this is not the token"]);
    for (file, why) in [("empty", "holds no token"), ("two", "holds no token"), ("missing", "No such file")] {
        refused(&place, &address, &["--token-file", file], 2, &[file, why]);
        place.run(&["worker", "--port", "0", "--token-file", file]).with(2).saying(file).saying(why);
    }
    let base = ["check", "-d", "k.yaml", "-w", &address, "w.yaml", "--token-file", "right"];
    place.run(&base).with(0);
    // Without it a client sees that a worker is there, and nothing else.
    for (path, status) in
        [("/healthz", 200), ("/readyz", 200), ("/", 401), ("/v1/hello", 401), ("/counters-stats", 401)]
    {
        assert_eq!(get(worker.port, path).0, status, "{path}");
    }
    assert_eq!(get(worker.stats_port, "/metrics").0, 401);
    let with_token = "GET /metrics HTTP/1.1\r\nhost: a\r\nauthorization: Bearer the-token\r\nconnection: close\r\n\r\n";
    assert_eq!(ask(worker.stats_port, with_token).0, 200);
}

/// Without the token nothing of a body is received, however many announce one; and whoever has it, or asks whether
/// somebody is there, is heard however many others hold connections open.
#[test]
fn strangers_neither_fill_a_worker_nor_keep_others_out() {
    let (place, _broker) = with_broker();
    place.write("right", "the-token\n");
    let worker = Worker::start(&place, &["--token-file", "right"]);
    let log = worker.process.log();
    assert!(log.contains("right: holds a token of 9 characters, which can be guessed"), "{log}");
    assert!(log.contains("right: others may read the token"), "{log}");
    let connect = || TcpStream::connect((Ipv4Addr::LOCALHOST, worker.port)).expect("it can be connected to");
    let before = worker.process.memory_max();
    let head = format!("POST /v1/command HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", 15 << 20);
    let bytes = vec![7; 15 << 20];
    for nth in 0..40 {
        let mut stream = connect();
        stream.write_all(head.as_bytes()).expect("there is room for it");
        stream.set_read_timeout(Some(SOON)).expect("a bound can be set");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer, before any of the body is there");
        assert_eq!(&answer, b"HTTP/1.1 401");
        // Some send it in any case, as far as it is taken.
        if nth % 4 == 0 {
            let _ = stream.set_write_timeout(Some(Duration::from_millis(200)));
            let _ = stream.write_all(&bytes);
        }
    }
    let grown = worker.process.memory_max().saturating_sub(before);
    assert!(grown < 48 << 20, "{} MiB for what is not received", grown >> 20);

    // Where there is no token, what all are sending together has a bound: twice the largest body for one source.
    let open = Worker::start(&place, &[]);
    let before = open.process.memory_max();
    let crowd: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, open.port)).expect("it can be connected to");
            stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a bound can be set");
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&bytes[1..]));
            stream
        })
        .collect();
    assert_eq!(get(open.port, "/readyz"), (200, "free\n".to_owned()));
    let grown = open.process.memory_max().saturating_sub(before);
    assert!(grown < 192 << 20, "{} MiB for two bodies of 16", grown >> 20);
    drop((crowd, open));

    let crowd: Vec<TcpStream> = (0..512).map(|_| connect()).collect();
    assert_eq!(get(worker.port, "/healthz"), (200, "ok\n".to_owned()));
    let base = ["run", "-d", "k.yaml", "-w", &worker.address(), "w.yaml", "--token-file", "right"];
    place.run(&base).with(0);
    assert_eq!(get(worker.port, "/readyz"), (200, "free\n".to_owned()));
    drop(crowd);
}

#[test]
fn tls_where_it_is_not_expected_and_the_other_way_round() {
    let (place, _broker) = with_broker();
    certificate(&place, "ours");
    certificate(&place, "other");
    let plain = Worker::start(&place, &[]);
    let secure = Worker::start(&place, &["--tls-cert", "ours.pem", "--tls-key", "ours.key"]);
    let ca = ["--ca", "ours.pem"];
    place.run(&[&["check", "-d", "k.yaml", "-w", &secure.address(), "w.yaml"], &ca[..]].concat()).with(0);

    let address = secure.address().replace("https", "http");
    refused(&place, &address, &[], 3, &[&address, "https://", "--ca"]);
    let address = plain.address().replace("http", "https");
    refused(&place, &address, &ca, 3, &[&address, "does it speak plain http"]);
    let address = secure.address();
    refused(&place, &address, &[], 3, &[&address, "--ca"]);
    refused(&place, &address, &["--ca", "other.pem"], 3, &[&address, "certificate"]);
    refused(&place, &address, &["--ca", "ours.key"], 2, &["ours.key", "holds no certificate"]);
    refused(&place, &address, &["--ca", "missing.pem"], 2, &["missing.pem", "No such file"]);
    // What a worker itself is given is checked as well.
    for (cert, key, why) in [
        ("missing.pem", "ours.key", "missing.pem: cannot read it"),
        ("ours.pem", "ours.pem", "ours.pem: holds no private key"),
        ("ours.pem", "other.key", "do not fit"),
    ] {
        place.run(&["worker", "--port", "0", "--tls-cert", cert, "--tls-key", key]).with(2).saying(why).within(SOON);
    }
}

#[test]
fn a_taken_port_is_named_with_who_wanted_it() {
    let place = Place::default();
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port");
    let port = taken.local_addr().expect("a bound socket has an address").port().to_string();
    for (ports, wanted) in [
        (["--port", &port, "--stats-port", "0"], "its controllers (--port)"),
        (["--port", "0", "--stats-port", &port], "its metrics (--stats-port)"),
    ] {
        let ended = place.run(&[&["worker"], &ports[..]].concat()).with(3).within(SOON);
        one_line(&ended, &["omb worker cannot listen on", &port, wanted, "another process listens there"]);
    }
    place.run(&["worker", "--port", "0", "--bind", "192.0.2.1"]).with(3).saying("no address of this machine");
}

#[test]
fn what_a_worker_shows() {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    let mut fleet = Fleet::start(&place, 0);
    // Metrics are 1000 above unless a flag says otherwise.
    let port = free_pair();
    let mut process = place.start(&["worker", "--port", &port.to_string(), "--bind", "127.0.0.1"]);
    process.wait_for(&format!("Metrics on http://127.0.0.1:{}/metrics", port + 1_000));
    let worker = Worker::of(process, port, port + 1_000);
    let log = worker.process.log();
    assert!(!log.contains("ANYONE WHO"), "nobody else reaches loopback: {log}");
    assert_eq!(get(port, "/readyz"), (200, "free\n".to_owned()));
    assert_eq!(worker.counters(), [0, 0, 0]);
    fleet.workers.push(worker);
    fleet.lead(&place, &[]).end().with(0);
    let worker = &fleet.workers[0];
    let [sent, received, failed] = worker.counters();
    let acked = support::omb::number(&place.result("out.json"), "/omb/totals/sinceLoadBegan/acked");
    assert_eq!([sent, received, failed], [acked, acked, 0]);
    for port in [worker.port, worker.stats_port] {
        let (status, metrics) = get(port, "/metrics");
        assert_eq!(status, 200);
        for line in [format!("omb_messages_sent_total {sent}"), format!("omb_messages_received_total {received}")] {
            assert!(metrics.lines().any(|told| told == line), "{line} is not in\n{metrics}");
        }
        assert!(metrics.lines().all(|line| line.starts_with('#') || line.contains(' ')), "{metrics}");
        assert_eq!(get(port, "/healthz"), (200, "ok\n".to_owned()));
        assert_eq!(get(port, "/readyz"), (200, "free\n".to_owned()));
        let (status, page) = get(port, "/");
        assert!(status == 200 && page.starts_with("<!DOCTYPE html>") && page.contains("Free"), "{page}");
        assert_eq!(get(port, "/nothing").0, 404);
    }
    let (status, hello) = get(worker.port, "/v1/hello");
    assert!(status == 200 && hello.contains("\"protocol\":2"), "{hello}");
    assert_eq!(get(worker.stats_port, "/v1/hello").0, 404, "there one can only look");
    assert_eq!(get(worker.port, "/v1/command"), (405, "use POST\n".to_owned()));

    // It is rejected by its announced size, before a byte of it has arrived.
    for (path, wanted, why) in [
        ("/v1/command", 413, "a body of more than 16777216 bytes"),
        ("/v1/clock", 413, "a body of more than 1024 bytes"),
        ("/", 405, "read-only endpoint: use GET"),
    ] {
        let declared = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 1073741824\r\n\r\n");
        let (status, said) = ask(worker.port, &declared);
        assert!(status == wanted && said.contains(why), "{path}: {status} {said}");
    }
    let garbage = "POST /v1/command HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\nconnection: close\r\n\r\n\u{2}ab";
    assert_eq!(ask(worker.port, garbage).0, 400);
    let other_version = "POST /v1/command HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\nconnection: close\r\n\r\n\u{7}";
    let (status, said) = ask(worker.port, other_version);
    assert!(status == 409 && said.contains("version 7 of the protocol"), "{status} {said}");
    assert_eq!(get(worker.port, "/readyz"), (200, "free\n".to_owned()));
}

/// As the guide promises, all interfaces are listened to; one loud warning says that anyone can connect.
#[test]
fn a_worker_without_a_token_says_that_it_is_open() {
    let place = Place::default();
    let base = ["worker", "--port", "0", "--stats-port", "0"];
    let mut worker = place.start(&[&base[..], &["--log-file", "worker.log"]].concat());
    let log = worker.wait_for("ANYONE WHO REACHES PORT");
    assert!(log.contains("Running on http://0.0.0.0:") && log.contains("--token-file"), "{log}");
    worker.signal("TERM");
    worker.end().with(0).saying("Shut down");
    let file = std::fs::read_to_string(place.path("worker.log")).expect("the log is there");
    assert!(file.contains("Starting benchmark worker on port") && file.contains("Shut down"), "{file}");
    place.write("token", "secret\n");
    // A log that cannot be written is reported once, and ends nothing.
    let secured = ["--token-file", "token", "--log-file", "/dev/full"];
    let mut worker = place.start(&[&base[..], &secured].concat());
    let log = worker.wait_for("/metrics");
    assert!(!log.contains("ANYONE WHO"), "{log}");
    assert_eq!(log.matches("--log-file /dev/full: cannot write to it: No space left on device").count(), 1, "{log}");
}

/// A library that says when it was loaded: it writes a file.
fn library(place: &Place) -> bool {
    place.write(
        "loads.c",
        "#include <stdio.h>\n__attribute__((constructor)) static void loaded(void) { fclose(fopen(\"loaded\", \"w\")); }\n",
    );
    let made = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-o", "loads.so", "loads.c"])
        .current_dir(place.path("."))
        .status();
    made.is_ok_and(|status| status.success())
}

/// Sends a worker the first command of a run, as any program could that reaches its port; its answer.
fn prepare(port: u16, driver: DriverConfig) -> Result<Event, Failure> {
    let preparation = Preparation {
        driver,
        seed: Seed(1),
        payload: PayloadRecipe::Given(vec![0; 40]),
        keys: KeyDistributor::NoKey,
        catch_up: CatchUp::All,
        verify: Verify::Header,
        producers_per_topic: 1,
        lease: Duration::from_secs(5),
        setup_within: Duration::from_secs(5),
        controller: "mallory".to_owned(),
        take_over: true,
    };
    let command = protocol::Command::Prepare(Box::new(preparation));
    let body = encoding::encode(&Request { version: protocol::VERSION, run: RunId(7), number: 1, sent: None, command });
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the worker listens");
    stream.set_read_timeout(Some(SOON)).expect("a bound can be set");
    let head = "POST /v1/command HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length:";
    stream.write_all(format!("{head} {}\r\n\r\n", body.len()).as_bytes()).expect("it takes the request");
    stream.write_all(&body).expect("it takes the body");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head and a body");
    encoding::decode::<Response>(&answer[at + 4..]).expect("an answer of the protocol").outcome
}

/// A controller cannot run code on a worker, nor have it open a file: neither one that bypasses our own checks, nor
/// ours.
#[test]
fn a_driver_file_runs_nothing_on_a_worker() {
    let (place, broker) = with_broker();
    let made = library(&place);
    let worker = Worker::start(&place, &["--allow-token-url", "https://idp.example"]);
    for (name, value, telling) in [
        ("plugin.library.paths", "./loads.so", "it loads code into the worker's process"),
        ("ssl.engine.location", "./loads.so", "it loads code into the worker's process"),
        ("ssl.providers", "./loads", "it loads code into the worker's process"),
        ("sasl.kerberos.kinit.cmd", "touch loaded", "not on the list of those that may travel"),
        ("ssl.key.location", "/etc/shadow", "a worker opens no path that a controller names"),
        (
            "sasl.oauthbearer.token.endpoint.url",
            "http://169.254.169.254/latest",
            "--allow-token-url http://169.254.169.254:80",
        ),
        ("sasl.oauthbearer.method", "aws_msk_iam", "--allow-aws-login"),
        ("client.rack", "{zone.id}", "start it with --zone NAME"),
    ] {
        let common = BTreeMap::from([
            ("bootstrap.servers".to_owned(), broker.address.as_str().into()),
            (name.to_owned(), value.into()),
        ]);
        let kafka = KafkaConfig { common, ..KafkaConfig::default() };
        let driver = DriverConfig { name: "evil".to_owned(), kind: DriverKind::Kafka(kafka) };
        let failure = prepare(worker.port, driver).expect_err("a refusal");
        assert_eq!(failure.kind, FailureKind::Configuration, "{failure}");
        assert!(failure.message.contains(name) && failure.message.contains(telling), "{failure}");
    }
    worker.is_free_within(SOON);
    // Our own controller says so before it connects, with the file's owner in mind.
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let with = |line: &str| {
        let driver = kafka_driver(&broker.address, "");
        place.write("k.yaml", driver.replace("commonConfig: |", &format!("commonConfig: |\n  {line}")));
    };
    with("plugin.library.paths=./loads.so");
    let telling = ["K: commonConfig: plugin.library.paths: no worker takes this setting", "it loads code"];
    refused(&place, &nobody, &[], 2, &telling);
    with("ssl.ca.location=missing.pem");
    refused(&place, &nobody, &[], 2, &["K: commonConfig: ssl.ca.location: missing.pem: cannot read it"]);
    assert!(!place.path("loaded").exists(), "the library was loaded");
    // The same library is loaded where its owner runs the file: what was looked for above would have been seen.
    if made {
        with("plugin.library.paths=./loads.so");
        place.run(&["check", "-d", "k.yaml", "w.yaml"]).saying("it loads code into this process");
        assert!(place.path("loaded").exists(), "who runs their own driver file may load what they like");
    } else {
        support::left_out("a_driver_file_runs_nothing_on_a_worker", "no C compiler to make a library with");
    }
}

/// Each worker puts its own zone in place of `{zone.id}`, and a secret comes from the controller's environment.
#[test]
fn zones_and_secrets_are_filled_in_where_they_belong() {
    let (place, broker) = with_broker();
    let driver = kafka_driver(&broker.address, "\nskipCreateTopic: true\n")
        .replace("commonConfig: |", "commonConfig: |\n  client.rack={zone.id}\n  sasl.username=${BENCH_USER}");
    place.write("k.yaml", &driver);
    let (here, nowhere) = (Worker::start(&place, &["--zone", "eu-1a"]), Worker::start(&place, &[]));
    let base = ["run", "-d", "k.yaml", "w.yaml"];
    place.run(&base).with(2).saying("sasl.username: no environment variable BENCH_USER is set").within(SOON);
    let run = |more: &[&str]| {
        place.start_with(env!("CARGO_BIN_EXE_omb"), &[("BENCH_USER", "hunter2")], &[&base[..], more].concat())
    };
    run(&[])
        .end()
        .with(2)
        .saying("client.rack: {zone.id} stands for the zone of the process that connects")
        .saying("--zone NAME");
    // A record of what was refused may lie under the name of a result.
    run(&["-o", "refused.json", "-w", &nowhere.address()])
        .end()
        .with(2)
        .saying("client.rack: {zone.id} stands for the zone");
    let ended = run(&["-o", "out.json", "-w", &here.address()]).end().with(0);
    let (result, record) =
        (place.result("out.json"), std::fs::read_to_string(place.path("out.jsonl")).expect("a record"));
    let all = format!("{}{}{result}{record}{}", ended.stdout, ended.stderr, here.process.log());
    assert!(!all.contains("hunter2"), "a secret is shown in\n{all}");
    let common = &result["omb"]["driver"]["commonConfig"];
    assert_eq!((&common["sasl.username"], &common["client.rack"]), (&"(hidden)".into(), &"{zone.id}".into()));
    let ignored = &result["omb"]["ignored"];
    assert_eq!((&ignored[0]["file"], &ignored[0]["key"]), (&"k.yaml".into(), &"skipCreateTopic".into()), "{ignored}");
}
