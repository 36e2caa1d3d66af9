//! The embedded broker as its clients see it: librdkafka, the official Java clients, and some that mean no good.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use omb_runtime_real::embedded::{Options, Server, StartError};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::RDKafkaErrorCode,
    producer::{BaseProducer, BaseRecord, Producer},
};

/// Long enough for anything that happens at all on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn server() -> Server {
    Server::start(Options::default()).expect("a free port on loopback")
}

fn small(capacity: u64) -> Server {
    Server::start(Options { capacity, ..Options::default() }).expect("a free port on loopback")
}

fn config(server: &Server, more: &[(&str, &str)]) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", server.addr().to_string());
    for (key, value) in more {
        config.set(*key, *value);
    }
    config
}

fn producer(server: &Server, more: &[(&str, &str)]) -> BaseProducer {
    config(server, more).create().expect("a producer")
}

fn consumer(server: &Server, group: &str, more: &[(&str, &str)]) -> BaseConsumer {
    let mut config = config(server, &[("auto.offset.reset", "earliest")]);
    config.set("group.id", group);
    for (key, value) in more {
        config.set(*key, *value);
    }
    config.create().expect("a consumer")
}

fn admin(server: &Server) -> AdminClient<DefaultClientContext> {
    config(server, &[]).create().expect("an admin client")
}

fn block_on<F: std::future::Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn create(server: &Server, topic: &str, partitions: i32) {
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let created = block_on(admin(server).create_topics([&topic], &AdminOptions::new())).expect("an answer");
    created[0].as_ref().expect("created");
}

fn send(producer: &BaseProducer, topic: &str, partition: Option<i32>, key: &str, payload: &str) {
    let mut record = BaseRecord::to(topic).key(key).payload(payload);
    record.partition = partition;
    let until = Instant::now() + PATIENCE;
    while let Err((error, back)) = producer.send(record) {
        assert_eq!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::QueueFull), "{error}");
        assert!(Instant::now() < until, "the queue stays full");
        producer.poll(Duration::from_millis(10));
        record = back;
    }
}

/// Polls all of the consumers until they have `want` messages together, each payload with the consumer that got it.
fn read(consumers: &[&BaseConsumer], want: usize) -> Vec<(usize, String)> {
    let mut got = Vec::new();
    let until = Instant::now() + PATIENCE;
    while got.len() < want {
        assert!(Instant::now() < until, "only {} of {want} messages came", got.len());
        for (index, consumer) in consumers.iter().enumerate() {
            if let Some(message) = consumer.poll(Duration::from_millis(5)) {
                let message = message.expect("a message");
                let payload = message.payload_view::<str>().expect("a payload").expect("text");
                got.push((index, payload.to_owned()));
            }
        }
    }
    got
}

fn payloads(mut got: Vec<(usize, String)>) -> Vec<String> {
    got.sort_by(|a, b| a.1.cmp(&b.1));
    got.into_iter().map(|(_, payload)| payload).collect()
}

fn numbered(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n:06}")).collect()
}

/// Polls until every consumer has partitions and all `partitions` are assigned.
fn settle(consumers: &[&BaseConsumer], partitions: usize) {
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "the group does not settle");
        for consumer in consumers {
            if let Some(message) = consumer.poll(Duration::from_millis(10)) {
                panic!("nothing was sent yet: {message:?}");
            }
        }
        let counts: Vec<usize> =
            consumers.iter().map(|consumer| consumer.assignment().expect("an assignment").count()).collect();
        if counts.iter().sum::<usize>() == partitions && counts.iter().all(|&count| count > 0) {
            return;
        }
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Records ever appended to a topic.
fn appended(server: &Server, topic: &'static str, partitions: u32) -> i64 {
    server.look(move |broker, _| {
        (0..partitions).map(|partition| broker.log(topic, partition).expect("it was created").end()).sum()
    })
}

#[test]
fn every_kind_of_acknowledgement_stores_everything_once() {
    let server = server();
    for (topic, more) in [
        ("none", &[("acks", "0")][..]),
        ("one", &[("acks", "1")]),
        ("all", &[("acks", "all")]),
        ("idempotent", &[("enable.idempotence", "true")]),
        ("zstd", &[("compression.type", "zstd"), ("acks", "1")]),
    ] {
        create(&server, topic, 3);
        let producer = producer(&server, more);
        let sent = numbered(topic, 1000);
        for payload in &sent {
            send(&producer, topic, None, payload, payload);
        }
        producer.flush(PATIENCE).expect("all acknowledged");
        // Without acknowledgements, flushed means handed to the system.
        eventually("all stored", || appended(&server, topic, 3) == 1000);
        let consumer = consumer(&server, "readers", &[]);
        consumer.subscribe(&[topic]).expect("a topic's name");
        assert_eq!(payloads(read(&[&consumer], 1000)), sent);
    }
}

#[test]
fn members_share_a_topic_and_take_over_from_those_that_leave() {
    let server = server();
    create(&server, "shared", 6);
    let timings = [("session.timeout.ms", "2000"), ("heartbeat.interval.ms", "200")];
    let [first, second, third] = ["first", "second", "third"].map(|id| {
        let member = consumer(&server, "group", &[&timings[..], &[("client.id", id)]].concat());
        member.subscribe(&["shared"]).expect("a topic's name");
        member
    });
    settle(&[&first, &second, &third], 6);

    let producer = producer(&server, &[]);
    let sent = numbered("a", 600);
    for (n, payload) in sent.iter().enumerate() {
        send(&producer, "shared", Some(n as i32 % 6), payload, payload);
    }
    let got = read(&[&first, &second, &third], 600);
    let busy: BTreeSet<usize> = got.iter().map(|(consumer, _)| *consumer).collect();
    assert_eq!(busy.len(), 3, "each has its share");
    assert_eq!(payloads(got), sent);

    // One leaves as it should.
    for member in [&first, &second, &third] {
        member.commit_consumer_state(rdkafka::consumer::CommitMode::Sync).expect("committed");
    }
    third.unsubscribe();
    drop(third);
    settle(&[&first, &second], 6);
    drop(second);
    settle(&[&first], 6);
    let sent = numbered("b", 60);
    for (n, payload) in sent.iter().enumerate() {
        send(&producer, "shared", Some(n as i32 % 6), payload, payload);
    }
    assert_eq!(payloads(read(&[&first], 60)), sent, "committed offsets are where the others stopped");
}

/// A member without a goodbye: it joins by a raw request, in version 0 of the request, and its connection is cut.
#[test]
fn a_dead_member_is_replaced_after_its_session_timeout() {
    let server = server();
    create(&server, "orphaned", 2);
    let text = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    // Version 0, one topic, no user data.
    let subscription = [&[0, 0, 0, 0, 0, 1][..], &text("orphaned"), &[0xff; 4]].concat();
    let body = [
        &[0, 11, 0, 0, 0, 0, 0, 1][..],
        &text("doomed"),
        &text("group"),
        &1500_u32.to_be_bytes(), // session timeout
        &text(""),
        &text("consumer"),
        &[0, 0, 0, 1],
        &text("range"),
        &(subscription.len() as u32).to_be_bytes(),
        &subscription,
    ]
    .concat();
    let mut stream = TcpStream::connect(server.addr()).expect("connected");
    stream.write_all(&[&(body.len() as u32).to_be_bytes()[..], &body].concat()).expect("sent");
    let members = || server.look(|broker, _| broker.group("group").map_or(0, |group| group.members.len()));
    eventually("it is a member", || members() == 1);
    let generation = || server.look(|broker, _| broker.group("group").map_or(0, |group| group.generation));
    // A new group waits a little for more members.
    eventually("its generation has begun", || generation() == 1);
    drop(stream);
    assert_eq!(members(), 1, "a lost connection is no goodbye");
    let heir = consumer(&server, "group", &[]);
    heir.subscribe(&["orphaned"]).expect("a topic's name");
    settle(&[&heir], 2);
    assert_eq!(members(), 1);
    assert_eq!(generation(), 2);
}

#[test]
fn groups_read_independently_and_go_on_where_they_were() {
    let server = server();
    create(&server, "topic", 2);
    let producer = producer(&server, &[]);
    let sent = numbered("m", 100);
    for (n, payload) in sent.iter().enumerate() {
        send(&producer, "topic", Some(n as i32 % 2), payload, payload);
    }
    producer.flush(PATIENCE).expect("all acknowledged");
    for group in ["red", "blue"] {
        let consumer = consumer(&server, group, &[]);
        consumer.subscribe(&["topic"]).expect("a topic's name");
        assert_eq!(payloads(read(&[&consumer], 100)), sent);
        consumer.commit_consumer_state(rdkafka::consumer::CommitMode::Sync).expect("committed");
    }
    send(&producer, "topic", Some(0), "", "newer");
    let again = consumer(&server, "red", &[]);
    again.subscribe(&["topic"]).expect("a topic's name");
    assert_eq!(payloads(read(&[&again], 1)), ["newer"]);
    let groups = again.fetch_group_list(None, PATIENCE).expect("a list of groups");
    let names: BTreeSet<&str> = groups.groups().iter().map(|group| group.name()).collect();
    assert_eq!(names, BTreeSet::from(["blue", "red"]));
}

#[test]
fn keys_keep_to_their_partitions_and_in_order() {
    let server = server();
    create(&server, "keyed", 4);
    let producer = producer(&server, &[]);
    for n in 0..400 {
        send(&producer, "keyed", None, &format!("key{}", n % 10), &format!("{n:06}"));
    }
    let consumer = consumer(&server, "keys", &[]);
    consumer.subscribe(&["keyed"]).expect("a topic's name");
    let mut by_key: BTreeMap<String, Vec<(i32, String)>> = BTreeMap::new();
    let until = Instant::now() + PATIENCE;
    while by_key.values().map(Vec::len).sum::<usize>() < 400 {
        assert!(Instant::now() < until, "not all came");
        let Some(message) = consumer.poll(Duration::from_millis(100)) else { continue };
        let message = message.expect("a message");
        let text = |view: Option<Result<&str, _>>| view.expect("there").expect("text").to_owned();
        let (key, payload) = (text(message.key_view()), text(message.payload_view()));
        by_key.entry(key).or_default().push((message.partition(), payload));
    }
    for got in by_key.values() {
        assert!(got.windows(2).all(|two| two[0].0 == two[1].0 && two[0].1 < two[1].1), "{got:?}");
    }
}

/// The consumer would wait for a minute; the message must wake it, whatever the machine is busy with.
#[test]
fn a_fetch_that_waits_is_answered_by_the_message() {
    let server = server();
    create(&server, "poll", 1);
    let waiting = [("fetch.wait.max.ms", "50000"), ("socket.timeout.ms", "60000")];
    let consumer = consumer(&server, "poll", &waiting);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("poll", 0, Offset::Beginning).expect("a partition");
    consumer.assign(&list).expect("assigned");
    eventually("a fetch waits", || {
        assert!(consumer.poll(Duration::ZERO).is_none());
        server.look(|broker, _| broker.fetches_waiting()) == 1
    });
    let producer = producer(&server, &[("linger.ms", "0")]);
    let began = Instant::now();
    for n in 0..10 {
        send(&producer, "poll", Some(0), "", &n.to_string());
        producer.flush(PATIENCE).expect("acknowledged");
        assert_eq!(read(&[&consumer], 1)[0].1, n.to_string());
    }
    assert!(began.elapsed() < Duration::from_secs(45), "each waited until its fetch gave up");
}

#[test]
fn a_full_broker_delays_producers_and_drops_nothing_unread() {
    let server = small(2 << 20);
    create(&server, "full", 1);
    let consumer = consumer(&server, "slow", &[("enable.auto.commit", "false"), ("queued.max.messages.kbytes", "64")]);
    consumer.subscribe(&["full"]).expect("a topic's name");
    settle(&[&consumer], 1);
    let producer = producer(
        &server,
        &[("batch.size", "16384"), ("linger.ms", "1"), ("enable.idempotence", "true"), ("compression.type", "none")],
    );
    let padding = "x".repeat(1000);
    let sent: Vec<String> = numbered("", 8000).into_iter().map(|n| n + &padding).collect();
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            for payload in &sent {
                send(&producer, "full", Some(0), "", payload);
            }
            producer.flush(PATIENCE).expect("all acknowledged in the end");
        });
        eventually("producers wait", || server.stats().produces_waiting > 0);
        let stats = server.stats();
        assert!(stats.bytes <= 2 << 20, "{stats:?}");
        let got = read(&[&consumer], sent.len());
        assert!(got.iter().map(|(_, payload)| payload).eq(&sent), "every one, once, in order");
        sender.join().expect("the sender");
    });
    let stats = server.stats();
    assert!(stats.dropped.records > 5000, "what was read made room: {stats:?}");
    assert!(stats.bytes <= 2 << 20, "{stats:?}");
}

#[test]
fn what_nobody_reads_is_dropped_oldest_first() {
    let server = small(1 << 20);
    create(&server, "unread", 2);
    let producer = producer(&server, &[("batch.size", "16384"), ("compression.type", "none")]);
    let padding = "x".repeat(1000);
    for n in 0..4000 {
        send(&producer, "unread", Some(n % 2), "", &padding);
    }
    producer.flush(PATIENCE).expect("no producer waits for readers that are not there");
    let stats = server.stats();
    assert!(stats.bytes <= 1 << 20, "{stats:?}");
    assert_eq!(stats.records + stats.dropped.records, 4000);
    let (low, high) = consumer(&server, "late", &[]).fetch_watermarks("unread", 0, PATIENCE).expect("offsets");
    assert_eq!(high, 2000);
    assert!(low > 1000, "the older ones are gone: {low}");
}

#[test]
fn topics_are_created_deleted_described_and_created_again() {
    let server = server();
    let admin = admin(&server);
    let options = AdminOptions::new();
    let create = |topic: NewTopic| block_on(admin.create_topics([&topic], &options)).expect("an answer").remove(0);
    let one = || TopicReplication::Fixed(1);
    create(NewTopic::new("t", 2, one()).set("retention.ms", "1234")).expect("created");
    for (topic, code) in [
        (NewTopic::new("t", 1, one()), RDKafkaErrorCode::TopicAlreadyExists),
        (NewTopic::new("no/slash", 1, one()), RDKafkaErrorCode::InvalidTopic),
        (NewTopic::new("u", 1, TopicReplication::Fixed(3)), RDKafkaErrorCode::InvalidReplicationFactor),
        (NewTopic::new("u", 1, one()).set("no.such.key", "1"), RDKafkaErrorCode::InvalidConfig),
    ] {
        assert_eq!(create(topic).expect_err("refused").1, code);
    }
    let topic = [ResourceSpecifier::Topic("t")];
    let described = block_on(admin.describe_configs(&topic, &options)).expect("an answer").remove(0).expect("there");
    assert_eq!(described.get("retention.ms").and_then(|it| it.value.as_deref()), Some("1234"));
    let grown = block_on(admin.create_partitions([&NewPartitions::new("t", 5)], &options)).expect("an answer");
    grown[0].as_ref().expect("grown");

    let producer = producer(&server, &[]);
    send(&producer, "t", Some(4), "", "before");
    producer.flush(PATIENCE).expect("acknowledged");
    let reader = consumer(&server, "reader", &[]);
    reader.subscribe(&["t"]).expect("a topic's name");
    assert_eq!(payloads(read(&[&reader], 1)), ["before"]);
    drop(reader);
    let deleted = block_on(admin.delete_topics(&["t"], &options)).expect("an answer");
    deleted[0].as_ref().expect("deleted");
    assert_eq!(server.stats().topics, 0);
    create(NewTopic::new("t", 1, one())).expect("created again");
    let producer = self::producer(&server, &[]);
    send(&producer, "t", Some(0), "", "after");
    producer.flush(PATIENCE).expect("acknowledged");
    let reader = consumer(&server, "reader", &[]);
    reader.subscribe(&["t"]).expect("a topic's name");
    assert_eq!(payloads(read(&[&reader], 1)), ["after"], "nothing is left of the old one, offsets neither");
}

#[test]
fn a_wrong_topic_is_an_error_unless_it_may_be_created() {
    let strict = server();
    let metadata = |server: &Server| {
        let consumer = consumer(server, "g", &[("allow.auto.create.topics", "true")]);
        let metadata = consumer.fetch_metadata(Some("fresh"), PATIENCE).expect("metadata");
        metadata.topics()[0].partitions().len()
    };
    assert_eq!(metadata(&strict), 0);
    let lenient = Server::start(Options { auto_create: Some(3), ..Options::default() }).expect("a free port");
    eventually("it is created", || metadata(&lenient) == 3);
}

#[test]
fn a_taken_port_is_named() {
    let server = server();
    let error = Server::start(Options { bind: server.addr(), ..Options::default() }).expect_err("it is taken");
    assert!(matches!(error, StartError::Bind { .. }));
    assert!(error.to_string().contains(&server.addr().to_string()), "{error}");
    let addr = server.addr();
    drop(server);
    Server::start(Options { bind: addr, ..Options::default() }).expect("free again");
}

#[test]
fn what_cannot_be_understood_ends_its_own_connection_only() {
    let server = server();
    let frame = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    // Api, version, correlation id, client id.
    let header =
        |api: u16, version: u16| [&api.to_be_bytes()[..], &version.to_be_bytes(), &[0, 0, 0, 1, 0, 0]].concat();
    for (what, bytes) in [
        ("longer than allowed", vec![0x7f, 0xff, 0xff, 0xff]),
        ("negative length", vec![0xff; 4]),
        ("shorter than a header", frame(&[0, 3])),
        ("unknown request", frame(&header(999, 0))),
        ("unknown version", frame(&header(3, 99))),
        (
            "an array that claims two thousand million topics",
            frame(&[&header(3, 1)[..], &[0x7f, 0xff, 0xff, 0xff]].concat()),
        ),
        ("a string longer than the frame", frame(&[&header(12, 0)[..], &[0x7f, 0xff]].concat())),
        ("too short a body", frame(&header(1, 4))),
    ] {
        let mut stream = TcpStream::connect(server.addr()).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(&bytes).expect("sent");
        let mut answer = Vec::new();
        // Closed or reset, both will do.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty(), "{what}: {answer:?}");
    }
    // In pieces, and several at once, is fine.
    let mut stream = TcpStream::connect(server.addr()).expect("connected");
    let three = frame(&header(18, 0)).repeat(3);
    for piece in three.chunks(7) {
        stream.write_all(piece).expect("sent");
        stream.flush().expect("sent");
    }
    stream.shutdown(std::net::Shutdown::Write).expect("half closed");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("three answers");
    assert_eq!(answer.len() % 3, 0);
    assert!(answer.len() > 3 * 100);
    create(&server, "still-serving", 1);
}

/// Whatever clients announce, and whatever part of it they send: memory stays within the capacity, and others come
/// through.
#[test]
fn requests_that_announce_much_take_no_memory() {
    let server = small(64 << 20);
    create(&server, "big", 1);
    let before = memory_most();
    // What does not fit is refused by its length.
    let mut endless = TcpStream::connect(server.addr()).expect("connected");
    endless.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    endless.write_all(&(90_u32 << 20).to_be_bytes()).expect("sent");
    assert_eq!(endless.read(&mut [0]).expect("an end"), 0);
    let mut crowd: Vec<TcpStream> = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(server.addr()).expect("connected");
        stream.write_all(&(7_u32 << 20).to_be_bytes()).expect("sent");
        stream.set_nonblocking(true).expect("it can be asked without waiting");
        crowd.push(stream);
    }
    // They send 6 of the 7 MiB, as far as they may.
    let piece = vec![0; 1 << 20];
    let mut sent = vec![0; crowd.len()];
    let send_some = |crowd: &mut [TcpStream], sent: &mut [usize]| {
        for (stream, sent) in crowd.iter_mut().zip(sent) {
            while *sent < 6 << 20 {
                match stream.write(&piece[..piece.len().min((6 << 20) - *sent)]) {
                    Ok(count) => *sent += count,
                    Err(_) => break,
                }
            }
        }
    };
    for _ in 0..20 {
        send_some(&mut crowd, &mut sent);
        thread::sleep(Duration::from_millis(20));
    }
    let producer = producer(&server, &[("compression.type", "none"), ("linger.ms", "50")]);
    let padding = "x".repeat(100_000);
    for _ in 0..50 {
        send(&producer, "big", Some(0), "", &padding);
    }
    producer.flush(PATIENCE).expect("acknowledged although others have announced more than there is room for");
    send_some(&mut crowd, &mut sent);
    let stats = server.stats();
    assert!(stats.bytes_max <= 64 << 20, "{stats:?}");
    let grown = memory_most() - before;
    assert!(grown < 192 << 20, "{} MiB for a capacity of 64", grown >> 20);
    // Those that have stopped are given up for those that wait.
    eventually("the crowd is dissolved", || {
        send_some(&mut crowd, &mut sent);
        server.stats().connections < 40
    });
}

/// Most memory this process ever held, in bytes.
fn memory_most() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak is told");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") << 10
}

/// A broker that is read from as fast as it is written to holds little, however long it runs.
#[test]
fn what_every_reader_has_read_is_given_up_long_before_the_broker_is_full() {
    let server = small(256 << 20);
    create(&server, "read", 2);
    let reader = consumer(&server, "reader", &[]);
    reader.subscribe(&["read"]).expect("a topic's name");
    settle(&[&reader], 2);
    let producer = producer(&server, &[("compression.type", "none"), ("linger.ms", "1")]);
    let padding = "x".repeat(50_000);
    // 50 MB in all, of which 16 MiB are kept.
    for round in 0..50 {
        for n in 0..20 {
            send(&producer, "read", Some(n % 2), "", &padding);
        }
        producer.flush(PATIENCE).expect("acknowledged");
        assert_eq!(read(&[&reader], 20).len(), 20, "round {round}");
    }
    let stats = server.stats();
    assert!(stats.dropped.records > 0 && stats.bytes_max < 30 << 20, "{stats:?}");
    // A consumer that begins later finds the latest of what was read.
    let late = consumer(&server, "late", &[]);
    late.subscribe(&["read"]).expect("a topic's name");
    let records = usize::try_from(stats.records).expect("few");
    assert!(records > 200 && read(&[&late], records).len() == records, "{stats:?}");
}

/// The official Java clients, as their own tools use them.
#[test]
fn java_clients_produce_consume_and_administrate() {
    let lib = std::env::var_os("OMB_KAFKA_LIB").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/brokers/kafka-4.1.0/lib")),
        PathBuf::from,
    );
    if !lib.is_dir() {
        let required = std::env::var_os("OMB_REQUIRE_BROKERS").is_some_and(|it| it == "1");
        assert!(!required, "no Kafka 4.1 jars at {} (scripts/brokers.sh gets them)", lib.display());
        println!("LEFT OUT: no Kafka 4.1 jars at {} (scripts/brokers.sh gets them)", lib.display());
        return;
    }
    let server = server();
    let addr = server.addr().to_string();
    let java = |tool: &str, arguments: &[&str]| {
        let output = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(lib.join("*"))
            .arg(format!("org.apache.kafka.tools.{tool}"))
            .args(arguments)
            .output()
            .expect("java is installed where the jars are");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    };
    let topic = |arguments: &[&str]| java("TopicCommand", &[&["--bootstrap-server", &addr], arguments].concat());
    let (ok, text) = topic(&["--create", "--topic", "java", "--partitions", "3", "--config", "segment.bytes=1048576"]);
    assert!(ok && text.contains("Created topic java"), "{text}");
    let (ok, text) = topic(&["--create", "--topic", "two", "--replication-factor", "2"]);
    assert!(!ok && text.contains("Replication factor 2"), "{text}");
    let (ok, text) = topic(&["--describe", "--topic", "java"]);
    assert!(ok && text.contains("PartitionCount: 3") && text.contains("segment.bytes=1048576"), "{text}");

    let bootstrap = format!("bootstrap.servers={addr}");
    // Idempotent, acks=all: the defaults of the Java producer.
    let (ok, text) = java(
        "ProducerPerformance",
        &[
            "--topic",
            "java",
            "--num-records",
            "50000",
            "--record-size",
            "100",
            "--throughput",
            "-1",
            "--producer-props",
            &bootstrap,
            "linger.ms=1",
        ],
    );
    assert!(ok && text.contains("50000 records sent"), "{text}");
    assert_eq!(appended(&server, "java", 3), 50_000);
    let (ok, text) = java(
        "ConsumerPerformance",
        &["--bootstrap-server", &addr, "--topic", "java", "--messages", "50000", "--timeout", "60000", "--group", "jc"],
    );
    // The fifth column counts the messages.
    let count = text.lines().filter_map(|line| line.split(", ").nth(4)?.trim().parse::<u32>().ok()).max();
    assert!(ok && count >= Some(50_000), "{text}");
    let group = |arguments: &[&str]| {
        java("consumer.group.ConsumerGroupCommand", &[&["--bootstrap-server", &addr], arguments].concat())
    };
    let (ok, text) = group(&["--describe", "--group", "jc"]);
    assert!(ok && text.contains("java"), "{text}");
    let (ok, text) = group(&["--delete", "--group", "jc"]);
    assert!(ok && text.contains("successful"), "{text}");
    let (ok, text) = topic(&["--delete", "--topic", "java"]);
    assert!(ok && server.stats().topics == 0, "{text}");
}
