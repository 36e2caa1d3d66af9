//! Producers that share a client of librdkafka: whose message a report is of, and what one of them does to the others.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use omb_bench::{config::driver::KafkaConfig, plan::sharing, protocol::command::TopicSpec};
use omb_machine::seed::Seed;
use omb_runtime_real::{
    driver::{Driver, Outgoing, Producer, Report, Reports, Target, kafka::Kafka},
    embedded::{Options, Server},
    load::ring::{Ring, Supply},
    performer::embedded_settings,
};

const SIZE: usize = 100;
/// More than a busy machine needs for what takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// A producer with its buffers.
struct Sending {
    producer: Box<dyn Producer>,
    ring: Arc<Ring>,
    supply: Supply,
}

impl Sending {
    fn new(producer: Box<dyn Producer>) -> Self {
        let pool = Arc::new(vec![vec![7; SIZE]]);
        let (ring, supply) = Ring::new(pool, 1_000, sharing::buffers(SIZE, true), Seed(1).stream("ring"));
        Self { producer, ring, supply }
    }

    fn send(&mut self, count: usize) {
        let mut batch: Vec<Outgoing> = (0..count)
            .map(|_| {
                let ticket = self.supply.take().expect("a buffer is free");
                Outgoing { payload: self.supply.start(&ticket), ticket, key: None }
            })
            .collect();
        let sent = self.producer.send(&mut batch, SIZE, &self.ring);
        assert!(batch.is_empty() && sent.refused.is_empty() && !sent.full, "{sent:?}");
    }
}

/// Delivered and failed messages of each producer.
type Counts = BTreeMap<usize, (usize, usize)>;

/// Takes reports until there are as many, or `within` is over.
fn reports(reports: &mut dyn Reports, sending: &[Option<Sending>], many: usize, within: Duration) -> Counts {
    let (mut counts, began) = (Counts::new(), Instant::now());
    while counts.values().map(|(acked, failed)| acked + failed).sum::<usize>() < many && began.elapsed() < within {
        reports.wait(Duration::from_millis(50), &mut |_, batch| {
            for Report { producer, ticket, bytes, failed } in batch.drain(..) {
                assert_eq!(bytes, SIZE as u64);
                let count = counts.entry(producer).or_default();
                if failed.is_none() {
                    count.0 += 1
                } else {
                    count.1 += 1
                }
                if let Some(sending) = &sending[producer] {
                    sending.ring.give_back(&mut vec![ticket]);
                }
            }
        });
    }
    counts
}

/// As many log entries as each topic of the broker has.
fn stored(server: &Server) -> BTreeMap<String, i64> {
    server.look(|broker, _| {
        let end = |topic: &str| broker.log(topic, 0).map_or(0, |log| log.end());
        broker.topics().map(|topic| (topic.name.clone(), end(&topic.name))).collect()
    })
}

#[test]
fn one_producer_does_not_touch_the_messages_of_another() {
    let server = Server::start(Options::default()).expect("a free port on loopback");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let cut = AtomicBool::new(false);
    let config: KafkaConfig = embedded_settings(server.addr());
    let kafka = Kafka::connect(&config, runtime.handle().clone(), &cut).expect("it is there");
    let names = ["a", "b", "c"];
    let specs = names.map(|name| TopicSpec { name: name.to_owned(), partitions: 1 });
    kafka.create_topics(&specs, PATIENCE, &cut).expect("three topics");
    let targets = names.map(|topic| Target { topic, partitions: 1 });
    let (producers, mut stream) = kafka.producers(&targets, &cut).expect("three producers");
    let mut all: Vec<Option<Sending>> = producers.into_iter().map(|producer| Some(Sending::new(producer))).collect();
    let send = |all: &mut [Option<Sending>], counts: [usize; 3]| {
        all.iter_mut().zip(counts).filter(|(_, count)| *count > 0).for_each(|(sending, count)| {
            sending.as_mut().expect("it is there").send(count);
        });
    };

    // Each report is of the producer that sent it; probes, too.
    send(&mut all, [1, 20, 300]);
    let counts = reports(&mut *stream, &all, 321, PATIENCE);
    assert_eq!(counts, BTreeMap::from([(0, (1, 0)), (1, (20, 0)), (2, (300, 0))]));
    all[1].as_mut().expect("it is there").producer.probe(0, None, &[0; SIZE]).expect("it is taken");
    let (mut probed, began) = (Vec::new(), Instant::now());
    while probed.is_empty() && began.elapsed() < PATIENCE {
        stream.wait(Duration::from_millis(50), &mut |_, batch| assert!(batch.is_empty(), "a probe has no report"));
        probed = stream.probes();
    }
    assert_eq!(probed, [(1, 0)]);

    // One gives up, and one goes: the others' messages, and even theirs, wait for the broker and arrive.
    server.stall(Duration::from_secs(1));
    send(&mut all, [2, 3, 4]);
    all[0].as_mut().expect("it is there").producer.purge();
    all[0].as_mut().expect("it is there").producer.purge();
    all[1] = None;
    let counts = reports(&mut *stream, &all, 9, PATIENCE);
    assert_eq!(counts, BTreeMap::from([(0, (2, 0)), (1, (3, 0)), (2, (4, 0))]), "nothing is lost");
    assert_eq!(stored(&server), BTreeMap::from([("a".to_owned(), 3), ("b".to_owned(), 24), ("c".to_owned(), 304)]));

    // A producer that sends again has not given up that message.
    server.stall(Duration::from_secs(1));
    send(&mut all, [5, 0, 6]);
    all[2].as_mut().expect("it is there").producer.purge();
    assert_eq!(reports(&mut *stream, &all, 11, PATIENCE), BTreeMap::from([(0, (5, 0)), (2, (6, 0))]));

    // Once all that are left request it, everything is given up, and each gets its own reports.
    server.stall(Duration::from_secs(3));
    send(&mut all, [7, 0, 8]);
    all[0].as_mut().expect("it is there").producer.purge();
    assert_eq!(reports(&mut *stream, &all, 1, Duration::from_millis(200)), BTreeMap::new(), "not by one alone");
    all[2].as_mut().expect("it is there").producer.purge();
    assert_eq!(reports(&mut *stream, &all, 15, PATIENCE), BTreeMap::from([(0, (0, 7)), (2, (0, 8))]));
}

#[test]
#[should_panic(expected = "two producers of a cannot share a client")]
fn two_producers_of_one_topic_do_not_share() {
    let server = Server::start(Options::default()).expect("a free port on loopback");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let cut = AtomicBool::new(false);
    let kafka = Kafka::connect(&embedded_settings(server.addr()), runtime.handle().clone(), &cut).expect("it is there");
    let target = Target { topic: "a", partitions: 1 };
    let _ = kafka.producers(&[target, target], &cut);
}

/// A thread that serves several consumers waits for this and for nothing else.
#[test]
fn a_consumer_that_has_messages_wakes_its_thread() {
    let server = Server::start(Options::default()).expect("a free port on loopback");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let cut = AtomicBool::new(false);
    let kafka = Kafka::connect(&embedded_settings(server.addr()), runtime.handle().clone(), &cut).expect("it is there");
    let topic = TopicSpec { name: "a".to_owned(), partitions: 1 };
    kafka.create_topics(&[topic], PATIENCE, &cut).expect("a topic");
    let (producers, mut stream) = kafka.producers(&[Target { topic: "a", partitions: 1 }], &cut).expect("a producer");
    let mut all: Vec<Option<Sending>> = producers.into_iter().map(|producer| Some(Sending::new(producer))).collect();
    let mut consumer = kafka.consumer("a", "g").expect("a consumer");
    let (wake, woken) = std::sync::mpsc::channel();
    consumer.wake_by(Box::new(move || wake.send(()).expect("somebody listens")));
    for round in 0..3 {
        all[0].as_mut().expect("it is there").send(2);
        assert_eq!(reports(&mut *stream, &all, 2, PATIENCE), BTreeMap::from([(0, (2, 0))]));
        let mut offsets = Vec::new();
        while offsets.len() < 2 {
            // Only the call signals that there are messages.
            woken.recv_timeout(PATIENCE).expect("it is called");
            consumer.poll(Duration::ZERO, &mut |incoming| offsets.push(incoming.offset));
        }
        assert_eq!(offsets, [2 * round, 2 * round + 1]);
    }
    // It is not called once the consumer is gone, when nothing listens any more.
    drop(consumer);
    drop(woken);
}
