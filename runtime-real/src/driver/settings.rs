//! A client's settings on their way into librdkafka: file contents where it takes paths, and no secret in its messages.

use std::{fs::File, io::Write as _, os::fd::AsRawFd as _, sync::Arc};

use omb_bench::{
    config::driver::KafkaConfig,
    protocol::{Failure, FailureKind},
};
use omb_machine::config::setting::{HIDDEN, Setting, Settings};
use rdkafka::ClientConfig;
use rustix::fs::{MemfdFlags, memfd_create};

use super::login::{self, Login, Tokens};

/// Where librdkafka takes the content of a file as a text, and under which name.
const PEM: &[(&str, &str)] = &[
    ("ssl.ca.location", "ssl.ca.pem"),
    ("ssl.certificate.location", "ssl.certificate.pem"),
    ("ssl.key.location", "ssl.key.pem"),
];

/// One kind of client, as the library makes it.
#[derive(Clone)]
pub(super) struct Kind {
    pub(super) config: ClientConfig,
    /// What it logs in with, if that is our own token.
    pub(super) tokens: Option<Arc<Tokens>>,
}

/// The settings of the three kinds of client, and what must live as long as clients are made from them.
pub(super) struct Native {
    pub(super) admin: Kind,
    pub(super) producer: Kind,
    pub(super) consumer: Kind,
    /// Files in memory, under whose paths some settings are.
    _files: Vec<File>,
}

impl Native {
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, Failure> {
        let mut files = Vec::new();
        let mut kind = |settings| client_config(settings, &mut files).map(|config| Kind { config, tokens: None });
        let (admin, producer, consumer) = (kind(&config.common)?, kind(&config.producer)?, kind(&config.consumer)?);
        Ok(Self { admin, producer, consumer, _files: files })
    }

    /// Gets the tokens that the clients log in with: one where they have the same login.
    pub(super) fn log_in(&mut self, config: &KafkaConfig, runtime: &tokio::runtime::Handle) -> Result<(), Failure> {
        let mut all: Vec<Arc<Tokens>> = Vec::new();
        let kinds = [
            (&mut self.admin, &config.common),
            (&mut self.producer, &config.producer),
            (&mut self.consumer, &config.consumer),
        ];
        for (kind, settings) in kinds {
            let Some(login) = Login::of(settings)? else { continue };
            let tokens = match all.iter().find(|tokens| tokens.is_for(&login)) {
                Some(tokens) => Arc::clone(tokens),
                None => Arc::new(Tokens::start(login, runtime.clone())?),
            };
            all.push(Arc::clone(&tokens));
            kind.tokens = Some(tokens);
        }
        Ok(())
    }
}

fn client_config(settings: &Settings, files: &mut Vec<File>) -> Result<ClientConfig, Failure> {
    let mut config = ClientConfig::new();
    for (name, setting) in settings.iter().filter(|(name, _)| !login::is_ours(name)) {
        match setting {
            Setting::Open(text) => {
                config.set(name, text);
            }
            Setting::Secret(secret) => {
                config.set(name, secret.expose());
            }
            Setting::Content(content) => match PEM.iter().find(|(location, _)| location == name) {
                // If both are given, the text is the one that librdkafka follows, too.
                Some((_, pem)) if settings.contains_key(*pem) => {}
                Some((_, pem)) => {
                    let text = std::str::from_utf8(content.bytes()).map_err(|_| not_pem(name))?;
                    config.set(*pem, text);
                }
                None => {
                    let file = in_memory(content.bytes()).map_err(|error| {
                        Failure::new(FailureKind::Broken, format!("{name}: no file in memory: {error}"))
                    })?;
                    config.set(name, format!("/proc/self/fd/{}", file.as_raw_fd()));
                    files.push(file);
                }
            },
        }
    }
    Ok(config)
}

fn not_pem(name: &str) -> Failure {
    Failure::new(FailureKind::Configuration, format!("{name}: the file that was sent is no text, so it is not PEM"))
}

/// A file that is in no folder: nothing else can open it, and it is gone with this process.
fn in_memory(bytes: &[u8]) -> std::io::Result<File> {
    let mut file = File::from(memfd_create("client setting", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file)
}

/// What must not be in any text that leaves this process.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Shorter texts occur in every message by chance.
    const LEN_MIN: usize = 4;

    pub(super) fn of(config: &KafkaConfig) -> Self {
        let all = [&config.topic, &config.common, &config.producer, &config.consumer];
        let secrets = all.into_iter().flat_map(|settings| settings.values()).filter_map(|setting| match setting {
            Setting::Secret(secret) if secret.expose().len() >= Self::LEN_MIN => Some(secret.expose().to_owned()),
            _ => None,
        });
        let mut secrets: Vec<String> = secrets.collect();
        // One may be a part of another.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self(secrets)
    }

    /// A text of the library, which may quote a value passed to it.
    pub(super) fn redact(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), HIDDEN) } else { text }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use omb_machine::config::setting::{Content, Secret};

    use super::*;

    #[test]
    fn what_was_sent_is_what_the_client_opens() {
        let content = |text: &str| Setting::Content(Content::new("elsewhere.pem", text.as_bytes().to_vec()));
        let common = BTreeMap::from([
            ("ssl.ca.location".to_owned(), content("CA")),
            ("ssl.key.location".to_owned(), content("KEY")),
            ("ssl.crl.location".to_owned(), content("CRL")),
            ("ssl.keystore.location".to_owned(), Setting::Content(Content::new("me.p12", vec![0, 255, 7]))),
            ("client.id".to_owned(), "me".into()),
        ]);
        let native = Native::new(&KafkaConfig { common, ..KafkaConfig::default() }).expect("sound");
        let get = |name: &str| native.admin.config.get(name).map(str::to_owned);
        assert_eq!((get("ssl.ca.pem"), get("ssl.ca.location")), (Some("CA".to_owned()), None));
        assert_eq!((get("ssl.key.pem"), get("ssl.key.location")), (Some("KEY".to_owned()), None));
        assert_eq!(fs::read(get("ssl.keystore.location").expect("set")).expect("a file"), [0, 255, 7]);
        assert_eq!(fs::read(get("ssl.crl.location").expect("set")).expect("a file"), b"CRL");
        assert_eq!(get("client.id").as_deref(), Some("me"));

        let binary = Setting::Content(Content::new("", vec![0xff, 0xfe]));
        let common = BTreeMap::from([("ssl.ca.location".to_owned(), binary)]);
        let refused = Native::new(&KafkaConfig { common, ..KafkaConfig::default() }).err().expect("no text");
        assert_eq!(refused.kind, FailureKind::Configuration);
    }

    #[test]
    fn secrets_are_taken_out_of_the_librarys_texts() {
        let secret = |text: &str| Setting::Secret(Secret::new(text));
        let common = BTreeMap::from([
            ("sasl.password".to_owned(), secret("hunter2")),
            ("sasl.username".to_owned(), secret("hunter2-user")),
            ("linger.ms".to_owned(), secret("5")),
        ]);
        let secrets = Secrets::of(&KafkaConfig { common, ..KafkaConfig::default() });
        assert_eq!(secrets.redact("5: hunter2-user with hunter2 is refused"), "5: (hidden) with (hidden) is refused");
    }
}
