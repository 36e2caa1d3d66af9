//! `omb check` is as strong as `run`: what would end a run is found before anything is created, by both and in the same
//! words.

mod support;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    thread,
};

use omb_runtime_real::embedded::{Options, Server};
use support::{
    fleet::Worker,
    omb::{Place, complete, kafka_driver, number, workload},
};

/// Listens and treats every connection alike: reads a little, sends `answer`, hangs up.
fn stub(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    // Ends with the test's process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut some = [0; 64];
            // A client that has left already needs no answer.
            let _ = stream.read(&mut some).and_then(|_| stream.write_all(answer));
        }
    });
    address
}

/// An embedded broker that advertises this address to clients.
fn advertising(host: &str, port: u16) -> Server {
    let options = Options { advertise: Some((host.to_owned(), port)), ..Options::default() };
    Server::start(options).expect("loopback has a free port")
}

/// Asserts that `check` and `run` both end with this code, saying this, and that nothing was created.
#[track_caller]
fn both_say(place: &Place, code: i32, said: &str) {
    place.run(&["check", "-d", "k.yaml", "w.yaml"]).with(code).saying(said);
    place.run(&["run", "-d", "k.yaml", "w.yaml"]).with(code).saying(said);
}

fn place() -> Place {
    let place = Place::default();
    place.write("w.yaml", workload("w", &[]));
    place
}

#[test]
fn what_is_no_kafka_is_called_so() {
    let place = place();
    place.write("k.yaml", kafka_driver(&stub(b"").to_string(), ""));
    let closed = "the broker closed the connection: security.protocol is plaintext; does this port want SSL or SASL?";
    both_say(&place, 3, closed);
    place.write("k.yaml", kafka_driver(&stub(b"HTTP/1.1 400 Bad Request\r\n\r\n").to_string(), ""));
    both_say(&place, 3, "what answers there speaks HTTP, not Kafka");
    // What a TLS port sends to a client without TLS.
    place.write("k.yaml", kafka_driver(&stub(&[0x15, 3, 3, 0, 2, 2, 80, 0]).to_string(), ""));
    place
        .run(&["check", "-d", "k.yaml", "w.yaml"])
        .with(3)
        .saying("TLS is spoken there: security.protocol is plaintext");
}

#[test]
fn tls_to_a_port_without_it_is_called_so() {
    let (place, server) = (place(), Server::start(Options::default()).expect("a free port"));
    let driver =
        kafka_driver(&server.addr().to_string(), "").replace("bootstrap", "security.protocol=ssl\n  bootstrap");
    place.write("k.yaml", driver);
    let said = "no TLS is spoken there: security.protocol is ssl; is this a plaintext port?";
    place.run(&["check", "-d", "k.yaml", "w.yaml"]).with(3).saying(said);
}

#[test]
fn every_broker_is_reached_where_it_says_it_is() {
    let place = place();
    let server = advertising("kafka-0.internal.invalid", 9092);
    place.write("k.yaml", kafka_driver(&server.addr().to_string(), ""));
    let said = "broker 1 calls itself kafka-0.internal.invalid:9092, which cannot be looked up";
    both_say(&place, 3, said);
    assert_eq!(server.stats().topics, 0, "nothing was created");
    // From every worker, and once for those who found the same.
    let workers = [Worker::start(&place, &[]), Worker::start(&place, &[])];
    let [first, second] = [workers[0].address(), workers[1].address()];
    let fleet = format!("{first},{second}");
    let said = format!("worker 1 ({first}), worker 2 ({second}): {said}");
    for command in ["check", "run"] {
        place.run(&[command, "-d", "k.yaml", "-w", &fleet, "w.yaml"]).with(3).saying(&said);
    }
    // A port on which nothing listens any more.
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|it| it.local_addr()).expect("a free port").port();
    let server = advertising("127.0.0.1", gone);
    place.write("k.yaml", kafka_driver(&server.addr().to_string(), ""));
    let said = format!("broker 1 calls itself 127.0.0.1:{gone}: nothing listens there: connection refused");
    place.run(&["check", "-d", "k.yaml", "w.yaml"]).with(3).saying(&said);
}

/// The broker reports everything that it would reject, before anything is created.
#[test]
fn the_broker_is_asked_whether_it_would() {
    let (place, server) = (place(), Server::start(Options::default()).expect("a free port"));
    let address = server.addr().to_string();
    let copies = kafka_driver(&address, "").replace("replicationFactor: 1", "replicationFactor: 3");
    place.write("k.yaml", format!("{copies}  group.protocol=consumer\n"));
    let groups = "does not offer ConsumerGroupHeartbeat, which group.protocol: consumer needs";
    for command in ["check", "run"] {
        let ended =
            place.run(&[command, "-d", "k.yaml", "w.yaml"]).with(3).saying(groups).saying("Replication factor 3");
        assert!(!ended.stdout.contains("Everything fits"), "{}", ended.stdout);
    }
    assert_eq!(server.stats().topics, 0, "nothing was created");
    // Several workloads and drivers: each driver is connected to once, and its topics are asked for.
    place.write("k.yaml", kafka_driver(&address, ""));
    place.write("other.yaml", workload("other", &[("partitionsPerTopic", "3"), ("topics", "2")]));
    let ended = place.run(&["check", "-d", "k.yaml", "w.yaml", "other.yaml"]).with(0);
    assert!(ended.stdout.contains("Everything fits") && ended.stdout.contains("other"), "{}", ended.stdout);
    assert_eq!(server.stats().topics, 0, "a question creates nothing");
}

/// A million bytes is what Java's clients take as they come.
#[test]
fn the_client_is_fitted_to_the_messages() {
    let place = place();
    let million = [("messageSize", "1000000"), ("producerRate", "20"), ("keyDistributor", "KEY_ROUND_ROBIN")];
    place.write("w.yaml", workload("million", &million));
    place.run(&["run", "-o", "million.json", "w.yaml"]).with(0);
    let result = place.result("million.json");
    complete(&result, &place.record("million.jsonl"));
    assert_eq!(number(&result, "/omb/totals/sinceLoadBegan/failed"), 0);
    // What the file says stays, and is named where it is too small.
    let driver = kafka_driver("127.0.0.1:9", "").replace("acks=all", "acks=all\n  max.request.size=1000000");
    place.write("k.yaml", driver);
    both_say(&place, 2, "max.request.size (message.max.bytes) is 1000000");
}
