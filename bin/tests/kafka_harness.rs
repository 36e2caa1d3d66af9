//! The real Kafka that other tests rely on: it starts, answers its own tools, knows users, and is gone afterwards.

mod support;

use std::{net::TcpStream, process::Output, time::Duration};

use support::kafka::{Kafka, Options};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";

#[test]
fn a_real_kafka_starts_answers_and_stops() {
    let Some(kafka) = Kafka::start() else { return };
    let bootstrap = kafka.bootstrap();
    assert!(kafka.topics().is_empty(), "a fresh broker has no topics");
    let created =
        kafka.tool(TOPICS, &["--bootstrap-server", &bootstrap, "--create", "--topic", "one", "--partitions", "2"]);
    assert!(created.status.success(), "{created:?}");
    assert_eq!(kafka.topics(), ["one"]);

    drop(kafka);
    assert!(TcpStream::connect(&bootstrap).is_err(), "no broker outlives its test");
}

/// The second listener lets the right password in, turns the wrong one away, and a user without rights creates nothing.
#[test]
fn users_are_known_and_held_to_their_rights() {
    let options = Options::default().user("alice", "secret").deny_by_default();
    let Some(kafka) = Kafka::start_with(&options) else { return };
    let listed = as_user(&kafka, "alice", "secret", &["--list"]);
    assert!(listed.status.success(), "{listed:?}");
    let refused = as_user(&kafka, "alice", "wrong", &["--list"]);
    assert!(text(&refused).contains("SaslAuthenticationException"), "{refused:?}");
    let denied = as_user(&kafka, "alice", "secret", &["--create", "--topic", "hers"]);
    assert!(text(&denied).contains("TopicAuthorizationException"), "{denied:?}");
    assert!(kafka.topics().is_empty(), "what was refused did not happen");
}

/// A suspended broker keeps its connections and answers nothing; resumed, it goes on.
#[test]
fn a_suspended_broker_goes_on() {
    let Some(kafka) = Kafka::start() else { return };
    kafka.suspend();
    std::thread::sleep(Duration::from_millis(300));
    assert!(TcpStream::connect(kafka.bootstrap()).is_ok(), "the system still accepts for it");
    kafka.resume();
    assert!(kafka.topics().is_empty());
}

fn as_user(kafka: &Kafka, name: &str, password: &str, arguments: &[&str]) -> Output {
    let client = format!("{name}-{password}.properties");
    let login = format!(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nrequest.timeout.ms=10000\ndefault.api.timeout.ms=10000\n\
         sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username=\"{name}\" password=\"{password}\";\n"
    );
    std::fs::write(kafka.folder().join(&client), login).expect("a temporary file can be written");
    let bootstrap = kafka.sasl_bootstrap();
    let mut all = vec!["--bootstrap-server", &bootstrap, "--command-config", &client];
    all.extend(arguments);
    kafka.tool(TOPICS, &all)
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
