//! What a worker accepts from its controller: a driver's settings are hostile until they are checked here.
//!
//! A driver file is as powerful as a program: a client's settings name libraries to load and files to read. That is
//! right where the author of the file runs it, and wrong where it comes over a network. So each property states how it
//! may travel (`Travel`, a column of the table of properties), and what is not in the table does not travel at all.

use super::{
    driver::{DriverConfig, DriverKind, KafkaConfig},
    kafka::{self, AWS_METHOD, Shape},
};
use omb_machine::{
    config::{
        address::{Origin, WebAddress},
        placeholder::ZONE,
        setting::{CONTENT_MAX, Content, Setting, Settings},
    },
    printable::printable_within,
};

/// How a client's property may travel from a controller to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Travel {
    /// Any worker accepts it: it affects the client's connections to its brokers, and nothing else on the worker's
    /// machine.
    Freely,
    /// It names a file. Its content travels, read by the process that was given its name; a path never does.
    Content,
    /// A worker accepts it if its owner agreed.
    Consent(Ask),
    /// No worker accepts it; the text explains why.
    Never(&'static str),
}

/// What the owner of a worker must agree to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    /// To fetch a token at this address.
    Origin,
    /// To log in with the AWS credentials of the worker's own environment, if that is what the value means.
    AwsLogin,
}

/// Most characters of a text that travels. Certificates in PEM are the longest.
const TEXT_MAX: usize = CONTENT_MAX;

/// Most settings of a topic. Kafka has some forty.
const TOPIC_SETTINGS_MAX: usize = 256;

/// What a worker accepts from its controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whether settings come from another party.
    foreign: bool,
    /// The worker's own zone, which is put in place of `{zone.id}`.
    pub zone: Option<String>,
    /// Where tokens may be fetched.
    pub token_origins: Vec<Origin>,
    /// Whether the AWS credentials of the worker's environment may be used to log in.
    pub aws_login: bool,
}

impl Terms {
    /// For a run within one process: the author of the driver file runs it, so everything is accepted.
    #[must_use]
    pub fn own() -> Self {
        Self { foreign: false, zone: None, token_origins: Vec::new(), aws_login: false }
    }

    /// For a worker with commands from a network: what is on the list, and nothing that needs consent.
    #[must_use]
    pub fn foreign() -> Self {
        Self { foreign: true, ..Self::own() }
    }

    /// The same, for a worker in this zone.
    #[must_use]
    pub fn in_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Checks a driver's settings and fills in what only the worker knows.
    ///
    /// # Errors
    /// The first setting that is not accepted, by its name.
    pub fn take(&self, driver: &mut DriverConfig) -> Result<(), Refused> {
        if self.foreign
            && let DriverKind::Kafka(kafka) = &driver.kind
        {
            self.check(kafka)?;
        }
        driver.fill_zone(self.zone.as_deref())
    }

    fn check(&self, kafka: &KafkaConfig) -> Result<(), Refused> {
        check_topic(&kafka.topic)?;
        for (block, settings) in kafka.clients() {
            for (name, setting) in settings {
                self.check_one(name, setting).map_err(|why| Refused { block, name: shown(name), why })?;
            }
        }
        Ok(())
    }

    fn check_one(&self, name: &str, setting: &Setting) -> Result<(), Why> {
        let (travel, shape) = kafka::travel(name).ok_or(Why::Unlisted)?;
        match (travel, setting) {
            (Travel::Never(why), _) => return Err(Why::Never(why)),
            (Travel::Content, Setting::Content(content)) => return check_content(content),
            // Not a path: the client looks for the certificates of the machine that it runs on.
            (Travel::Content, setting) if name == "ssl.ca.location" && *setting == "probe" => {}
            (Travel::Content, _) => return Err(Why::Path),
            (_, Setting::Content(_)) => return Err(Why::NoFile),
            (Travel::Freely | Travel::Consent(_), _) => {}
        }
        let text = setting.text().unwrap_or_default();
        if text.len() > TEXT_MAX {
            return Err(Why::TooLong);
        }
        check_shape(shape, text)?;
        match travel {
            Travel::Consent(Ask::Origin) => {
                let address =
                    WebAddress::parse(text).ok_or(Why::Value("an address, https://HOST[:PORT]/PATH".into()))?;
                if !self.token_origins.contains(&address.origin) {
                    return Err(Why::Origin(address.origin));
                }
            }
            Travel::Consent(Ask::AwsLogin) if text == AWS_METHOD && !self.aws_login => return Err(Why::AwsLogin),
            _ => {}
        }
        Ok(())
    }
}

fn check_content(content: &Content) -> Result<(), Why> {
    if content.bytes().len() > CONTENT_MAX { Err(Why::TooLong) } else { Ok(()) }
}

/// A template is a text, and only texts may hold one.
fn check_shape(shape: Shape, text: &str) -> Result<(), Why> {
    if shape.value(text).is_some() { Ok(()) } else { Err(Why::Value(shape.allowed())) }
}

/// A topic's settings go to the broker, which knows them; here they only have to be names and values.
fn check_topic(topic: &Settings) -> Result<(), Refused> {
    let refused = |name: &str, why| Refused { block: "topicConfig", name: shown(name), why };
    if topic.len() > TOPIC_SETTINGS_MAX {
        return Err(refused("", Why::TooMany));
    }
    for (name, setting) in topic {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 256 || !name.chars().all(plain) {
            return Err(refused(name, Why::Unlisted));
        }
        match setting.text() {
            None => return Err(refused(name, Why::NoFile)),
            Some(text) if text.len() > 4_096 => return Err(refused(name, Why::TooLong)),
            Some(text) if text.contains(char::is_control) => {
                return Err(refused(name, Why::Value("a text on one line".to_owned())));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// A name from another party, as it is shown.
fn shown(name: &str) -> String {
    printable_within(name, 80)
}

/// A setting that a worker does not accept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{block}: {name}: {why}")]
pub struct Refused {
    /// The block of the driver file.
    pub block: &'static str,
    /// The setting, printable.
    pub name: String,
    /// Why it is not accepted.
    pub why: Why,
}

/// Why a setting is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It is not in the table of properties.
    #[error("no worker takes this setting from a controller: it is not on the list of those that may travel")]
    Unlisted,
    /// Whatever its value, it does not travel.
    #[error("no worker takes this setting from a controller: {0}")]
    Never(&'static str),
    /// A path, where the content of the file must travel.
    #[error("a worker opens no path that a controller names; the content of the file must be sent")]
    Path,
    /// The content of a file, where a text is expected.
    #[error("the content of a file was sent, where a text is expected")]
    NoFile,
    /// More than can make sense.
    #[error("longer than {CONTENT_MAX} bytes (in topicConfig: 4096)")]
    TooLong,
    /// More settings than exist.
    #[error("more than {TOPIC_SETTINGS_MAX} settings of a topic")]
    TooMany,
    /// Not one of its values.
    #[error("not one of its values; allowed: {0}")]
    Value(String),
    /// A token would be fetched where the owner has not agreed.
    #[error(
        "tokens are fetched only where the worker's owner agreed, and nobody agreed to {0}: start the worker with \
         --allow-token-url {0}"
    )]
    Origin(Origin),
    /// The worker's own credentials would be used.
    #[error(
        "AWS_MSK_IAM logs in with the AWS credentials of the worker's own environment, and its owner did not agree to that: \
         start the worker with --allow-aws-login"
    )]
    AwsLogin,
    /// A template without a value.
    #[error(
        "{ZONE} stands for the zone of the process that connects, and none is given here: start it with --zone NAME"
    )]
    NoZone,
    /// A file that cannot be read, reported by the process that was given its name.
    #[error("{0}")]
    Unread(String),
}

impl DriverConfig {
    /// What travels to workers: the content of files instead of their names. `read` is given the path of each, and
    /// returns its content or why it cannot be read.
    ///
    /// # Errors
    /// Every setting that no worker would accept, so that none need be sent one; and every file that cannot be read.
    pub fn for_workers(&self, mut read: impl FnMut(&str) -> Result<Vec<u8>, String>) -> Result<Self, Vec<Refused>> {
        let mut driver = self.clone();
        let DriverKind::Kafka(kafka) = &mut driver.kind else { return Ok(driver) };
        let mut refused = Vec::new();
        let mut files: std::collections::BTreeMap<String, Result<Vec<u8>, String>> = std::collections::BTreeMap::new();
        for (block, settings) in kafka.clients_mut() {
            for (name, setting) in settings {
                let why = match (kafka::travel(name).map(|(travel, _)| travel), &setting) {
                    (None, _) => Why::Unlisted,
                    (Some(Travel::Never(why)), _) => Why::Never(why),
                    (Some(Travel::Content), Setting::Open(_) | Setting::Secret(_)) if *setting != "probe" => {
                        let path = setting.text().unwrap_or_default().to_owned();
                        match files.entry(path.clone()).or_insert_with(|| read(&path)) {
                            Ok(bytes) if bytes.len() > CONTENT_MAX => Why::TooLong,
                            Ok(bytes) => {
                                *setting = Setting::Content(Content::new(setting.shown(), bytes.clone()));
                                continue;
                            }
                            Err(why) => Why::Unread(why.clone()),
                        }
                    }
                    _ => continue,
                };
                let one = Refused { block, name: name.clone(), why };
                // A property of commonConfig is in all three.
                if !refused.iter().any(|other: &Refused| other.name == one.name && other.why == one.why) {
                    refused.push(one);
                }
            }
        }
        if refused.is_empty() { Ok(driver) } else { Err(refused) }
    }

    /// Puts the zone in place of every `{zone.id}`.
    ///
    /// # Errors
    /// The setting that has one, if there is no zone.
    pub fn fill_zone(&mut self, zone: Option<&str>) -> Result<(), Refused> {
        let DriverKind::Kafka(kafka) = &mut self.kind else { return Ok(()) };
        for (block, settings) in kafka.clients_mut() {
            for (name, setting) in settings {
                let Some(text) = setting.text().filter(|text| text.contains(ZONE)) else { continue };
                let zone = zone.ok_or_else(|| Refused { block, name: shown(name), why: Why::NoZone })?;
                *setting = setting.with_text(text.replace(ZONE, zone));
            }
        }
        Ok(())
    }
}

impl KafkaConfig {
    /// The clients' settings, by their block of the driver file.
    pub(crate) fn clients(&self) -> [(&'static str, &Settings); 3] {
        [("commonConfig", &self.common), ("producerConfig", &self.producer), ("consumerConfig", &self.consumer)]
    }

    fn clients_mut(&mut self) -> [(&'static str, &mut Settings); 3] {
        [
            ("commonConfig", &mut self.common),
            ("producerConfig", &mut self.producer),
            ("consumerConfig", &mut self.consumer),
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use omb_machine::config::setting::Secret;

    fn driver(name: &str, value: impl Into<Setting>) -> DriverConfig {
        let producer = BTreeMap::from([(name.to_owned(), value.into())]);
        DriverConfig {
            name: "k".to_owned(),
            kind: DriverKind::Kafka(KafkaConfig { producer, ..KafkaConfig::default() }),
        }
    }

    fn why(terms: &Terms, name: &str, value: impl Into<Setting>) -> Option<Why> {
        terms.take(&mut driver(name, value)).err().map(|refused| {
            assert_eq!((refused.block, refused.name.as_str()), ("producerConfig", name));
            refused.why
        })
    }

    /// Each property that could load code, open or write a file, or require more than brokers is listed here
    /// explicitly: a row of the table that disagrees fails.
    #[test]
    fn dangerous_properties_do_not_travel() {
        let paths = |name: &str| {
            [".location", ".path", ".paths", ".file", ".keytab", ".dir", ".cmd"].iter().any(|end| name.ends_with(end))
        };
        let named = [
            "plugin.library.paths",
            "ssl.engine.location",
            "ssl.engine.id",
            "ssl.providers",
            "ssl.ca.certificate.stores",
            "sasl.kerberos.kinit.cmd",
            "sasl.kerberos.keytab",
            "sasl.kerberos.principal",
            "sasl.kerberos.service.name",
            "offset.store.path",
            "offset.store.method",
            "sasl.oauthbearer.assertion.file",
            "sasl.oauthbearer.assertion.private.key.file",
            "sasl.oauthbearer.assertion.jwt.template.file",
            "sasl.oauthbearer.metadata.authentication.type",
            "debug",
            "log_level",
            "group.id",
            "enabled_events",
            "opaque",
            "metadata.broker.list",
            "no.such.property",
            "",
        ];
        let free = Terms { aws_login: true, ..Terms::foreign() };
        for name in named {
            assert!(matches!(why(&free, name, "1"), Some(Why::Never(_) | Why::Unlisted)), "{name}");
            assert_eq!(why(&Terms::own(), name, "1"), None, "who runs their own file may set {name}");
        }
        let mut rows = 0;
        for (name, travel) in kafka::rows() {
            rows += 1;
            match travel {
                Travel::Freely => assert!(!paths(name) && !name.contains("engine") && !name.contains("url"), "{name}"),
                Travel::Content => {
                    assert!(paths(name), "{name}");
                    assert_eq!(why(&free, name, "/etc/passwd"), Some(Why::Path), "{name}");
                    assert_eq!(why(&free, name, Setting::Content(Content::new("", vec![1]))), None, "{name}");
                    let large = Setting::Content(Content::new("", vec![0; CONTENT_MAX + 1]));
                    assert_eq!(why(&free, name, large), Some(Why::TooLong), "{name}");
                }
                Travel::Consent(Ask::Origin) => assert!(name.ends_with(".url"), "{name}"),
                Travel::Consent(Ask::AwsLogin) => assert_eq!(name, "sasl.oauthbearer.method"),
                Travel::Never(_) => {
                    let hidden = Setting::Secret(Secret::new("1"));
                    assert!(matches!(why(&free, name, "1"), Some(Why::Never(_))), "{name}");
                    assert!(matches!(why(&free, name, hidden), Some(Why::Never(_))), "{name}");
                    let content = Setting::Content(Content::new("", vec![1]));
                    assert!(matches!(why(&free, name, content), Some(Why::Never(_))), "{name}");
                }
            }
            assert_eq!(why(&Terms::own(), name, "x"), None, "who runs their own file may set {name}");
        }
        assert!(rows > 90, "the table is gone through: {rows}");
        assert_eq!(why(&free, "ssl.ca.location", "probe"), None, "the machine's own certificates");
        assert_eq!(why(&free, "ssl.key.location", "probe"), Some(Why::Path), "a file of this name");
    }

    #[test]
    fn values_are_checked_again() {
        let terms = Terms::foreign();
        assert_eq!(why(&terms, "acks", "all"), None);
        assert!(matches!(why(&terms, "acks", "none"), Some(Why::Value(_))));
        assert!(matches!(why(&terms, "linger.ms", "{zone.id}"), Some(Why::Value(_))));
        assert!(matches!(why(&terms, "client.id", "a\0b"), Some(Why::Value(_))));
        assert_eq!(why(&terms, "client.id", "x".repeat(TEXT_MAX + 1)), Some(Why::TooLong));
        assert_eq!(why(&terms, "client.id", Setting::Content(Content::new("", vec![1]))), Some(Why::NoFile));
    }

    #[test]
    fn tokens_are_fetched_where_the_owner_agreed() {
        let url = "sasl.oauthbearer.token.endpoint.url";
        let origin = |text: &str| WebAddress::parse(text).expect("an address").origin;
        let mut terms = Terms::foreign();
        let refused = why(&terms, url, "https://idp.example/oauth/token");
        assert_eq!(refused, Some(Why::Origin(origin("https://idp.example"))));
        assert!(refused.expect("refused").to_string().contains("--allow-token-url https://idp.example:443"));
        terms.token_origins = vec![origin("https://idp.example")];
        assert_eq!(why(&terms, url, "https://IDP.example:443/other"), None);
        for other in [
            "http://idp.example/",
            "https://idp.example:8443/",
            "https://idp.example.evil/",
            "https://evil/?https://idp.example",
        ] {
            assert!(matches!(why(&terms, url, other), Some(Why::Origin(_))), "{other}");
        }
        assert!(matches!(why(&terms, url, "https://idp.example@evil/"), Some(Why::Value(_))));
    }

    #[test]
    fn a_workers_own_credentials_need_its_owner() {
        let method = "sasl.oauthbearer.method";
        assert_eq!(why(&Terms::foreign(), method, "oidc"), None);
        assert_eq!(why(&Terms::foreign(), method, AWS_METHOD), Some(Why::AwsLogin));
        assert_eq!(why(&Terms { aws_login: true, ..Terms::foreign() }, method, AWS_METHOD), None);
    }

    #[test]
    fn topics_settings_are_names_and_values() {
        let take = |name: &str, value: Setting| {
            let topic = BTreeMap::from([(name.to_owned(), value)]);
            let kafka = KafkaConfig { topic, ..KafkaConfig::default() };
            let mut driver = DriverConfig { name: "k".to_owned(), kind: DriverKind::Kafka(kafka) };
            Terms::foreign().take(&mut driver).map_err(|refused| refused.why)
        };
        assert_eq!(take("min.insync.replicas", "2".into()), Ok(()));
        assert_eq!(take("a b", "2".into()), Err(Why::Unlisted));
        assert!(matches!(take("cleanup.policy", "a\nb".into()), Err(Why::Value(_))));
        assert_eq!(take("cleanup.policy", "x".repeat(5_000).into()), Err(Why::TooLong));
        assert_eq!(take("cleanup.policy", Setting::Content(Content::new("", vec![]))), Err(Why::NoFile));
        let escaped = take("\u{1b}[31m", "x".into());
        assert_eq!(escaped, Err(Why::Unlisted));
    }

    #[test]
    fn each_worker_fills_in_its_own_zone() {
        for terms in [Terms::own(), Terms::foreign()] {
            assert_eq!(why(&terms, "client.rack", "{zone.id}"), Some(Why::NoZone));
            let terms = terms.in_zone("eu-1a");
            let mut rack = driver("client.rack", "r-{zone.id}-{zone.id}");
            assert_eq!(terms.take(&mut rack), Ok(()));
            assert_eq!(rack, driver("client.rack", "r-eu-1a-eu-1a"));
        }
    }

    #[test]
    fn files_travel_by_their_content_and_what_cannot_travel_is_refused_before() {
        let read = |path: &str| if path == "ca.pem" { Ok(b"PEM".to_vec()) } else { Err(format!("{path}: not there")) };
        let sent = driver("ssl.ca.location", "ca.pem").for_workers(read).expect("readable");
        assert_eq!(sent, driver("ssl.ca.location", Setting::Content(Content::new("ca.pem", b"PEM".to_vec()))));
        assert_eq!(sent.resolved(), driver("ssl.ca.location", "ca.pem").resolved(), "the result names the file");
        assert_eq!(Terms::foreign().take(&mut sent.clone()), Ok(()));
        let bytes = omb_machine::encoding::encode(&sent);
        assert!(!bytes.windows(6).any(|window| window == b"ca.pem"), "a path does not travel");
        let probing = driver("ssl.ca.location", "probe");
        assert_eq!(probing.for_workers(|_| Err("not asked".to_owned())), Ok(probing));
        let refused = driver("plugin.library.paths", "./evil.so").for_workers(read).expect_err("code");
        assert!(
            refused[0].to_string().starts_with("producerConfig: plugin.library.paths: no worker takes"),
            "{refused:?}"
        );
        let refused = driver("ssl.key.location", "key.pem").for_workers(read).expect_err("no file");
        assert_eq!(refused[0].why, Why::Unread("key.pem: not there".to_owned()));
    }
}
