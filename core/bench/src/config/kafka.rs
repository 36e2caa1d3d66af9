//! Client properties: the Java client's names and values in librdkafka's terms.
//!
//! Driver files are written for Kafka's Java client. Most property names mean the same to librdkafka; some are spelt or
//! counted differently there ([`JAVA`]), some it lacks, and a few have to be taken apart (JAAS, key stores). librdkafka
//! rejects a name or value that it does not know when the client is made, deep in a run, so everything is checked here
//! against its own list ([`PROPERTIES`], after `CONFIGURATION.md` of librdkafka 2.12.1). Nothing is dropped without a
//! warning that names it.
//!
//! Where librdkafka has two names for one property, the result is the one that Kafka also uses.

use std::{borrow::Cow, collections::BTreeMap};

use super::terms::{
    Ask,
    Travel::{self, Consent, Content, Freely, Never},
};
use omb_machine::config::{
    Place, Problem,
    address::WebAddress,
    placeholder,
    setting::{Secret, Setting, Settings},
    yaml::{Reader, nearest},
};

/// The client that the properties are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Makes and deletes topics: `commonConfig` alone.
    Admin,
    Producer,
    Consumer,
}

/// A block of the driver file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Block {
    Common,
    Producer,
    Consumer,
}

/// A property as the file gives it.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// With its placeholders filled in.
    pub(crate) value: String,
    /// As written in the file.
    pub(crate) raw: String,
    /// Whether the value came from the environment, so that it must not be shown.
    pub(crate) filled: bool,
    pub(crate) place: Place,
    pub(crate) block: Block,
    /// As spelt in the file; the key it is kept under may be another name of the same property.
    pub(crate) name: String,
}

/// Properties by name: those of `commonConfig`, overlaid by those of the client's own block.
pub(crate) type Properties = BTreeMap<String, Given>;

impl Given {
    /// The value as a message may show it.
    fn found(&self) -> String {
        if self.filled || is_secret(&self.name) { "a value".to_owned() } else { format!("`{}`", self.value.trim()) }
    }
}

/// Which clients have a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    Both,
    Producer,
    Consumer,
}
use Scope::{Both, Consumer, Producer};

/// The values a property accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    Text,
    Flag,
    /// From, to.
    Whole(i64, i64),
    /// From 0 to.
    Decimal(f64),
    OneOf(&'static [&'static str]),
    /// `all` or a number.
    Acks,
}
use Shape::{Acks, Decimal, Flag, OneOf, Text, Whole};

/// librdkafka's own names for properties that it also accepts under Kafka's name.
const ALIASES: &[(&str, &str)] = &[
    ("metadata.broker.list", "bootstrap.servers"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.oauthbearer.client.id", "sasl.oauthbearer.client.credentials.client.id"),
    ("sasl.oauthbearer.client.secret", "sasl.oauthbearer.client.credentials.client.secret"),
    ("fetch.message.max.bytes", "max.partition.fetch.bytes"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("message.send.max.retries", "retries"),
    ("compression.codec", "compression.type"),
    ("request.required.acks", "acks"),
    ("message.timeout.ms", "delivery.timeout.ms"),
];

/// What happens to a property of the Java client.
#[derive(Clone, Copy)]
enum Java {
    /// librdkafka's name for it; the value means the same.
    Renamed(&'static str),
    /// librdkafka's name, and the value in its terms; a value that cannot be converted is checked as it is.
    Converted(&'static str, fn(&str) -> Option<String>),
    /// It changes nothing that is measured: a warning says why it is not applied.
    Nothing(&'static str),
    /// It requires something that is not available: an error.
    Refused(&'static str),
    /// Taken apart by [`Translation::apart`].
    Apart,
}
use Java::{Apart, Converted, Nothing, Refused, Renamed};

const SERIALIZED: &str = "messages are bytes here, and keys are texts; nothing is serialized";
const MEASURED: &str = "the Java client's own metrics; librdkafka has none of these";
const TLS_JAVA: &str = "a setting of Java's TLS; OpenSSL has no such choice";
const LOGIN: &str = "a setting of Java's login; librdkafka has no such choice";
const NO_KERBEROS: &str =
    "Kerberos (GSSAPI) is not built in; use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or a client certificate";
const BROKER_SIDE: &str = "a setting of a broker that checks tokens; clients have no use for it";
const NO_ASSERTION: &str = "tokens are fetched with a client's id and secret alone (the grant client_credentials); the grant jwt-bearer is not built in";
const NO_METADATA: &str = "tokens are not fetched from a cloud's metadata service; give sasl.oauthbearer.method=oidc with a client's id and secret";
const JAVA_CODE: &str = "Java classes cannot be loaded here";
/// The value of `sasl.oauthbearer.method` that means AWS_MSK_IAM, which librdkafka lacks: to the broker it is
/// OAUTHBEARER with a token that is signed here.
pub const AWS_METHOD: &str = "aws_msk_iam";

/// The mechanisms that a driver file may choose.
const MECHANISMS: [&str; 5] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"];

// Why no worker accepts a setting from a controller.
const CODE: &str = "it loads code into the worker's process";
const WRITES: &str = "it writes files on the worker's machine";
const STORES: &str = "it names stores of the worker's machine";
const NOISE: &str = "it fills the worker's log";
const PATTERN: &str =
    "it is a pattern that can keep the worker's processor busy, and every client subscribes to one topic";

const TRANSACTIONS: &str =
    "messages are not sent in transactions; for exactly-once sending set enable.idempotence=true";

/// Properties of the Java client (4.1) that librdkafka spells differently or lacks, and those that the benchmark itself
/// decides.
const JAVA: &[(&str, Java)] = &[
    // Spelt or counted differently.
    ("buffer.memory", Converted("queue.buffering.max.kbytes", kilobytes)),
    ("max.request.size", Renamed("message.max.bytes")),
    ("fetch.max.wait.ms", Renamed("fetch.wait.max.ms")),
    ("receive.buffer.bytes", Converted("socket.receive.buffer.bytes", minus_one_is_zero)),
    ("send.buffer.bytes", Converted("socket.send.buffer.bytes", minus_one_is_zero)),
    ("connections.max.idle.ms", Converted("connections.max.idle.ms", minus_one_is_zero)),
    ("auto.offset.reset", Converted("auto.offset.reset", offset_reset)),
    ("ssl.endpoint.identification.algorithm", Converted("ssl.endpoint.identification.algorithm", empty_is_none)),
    // Taken apart.
    ("request.timeout.ms", Apart),
    ("batch.size", Apart),
    ("client.id", Apart),
    ("partitioner.class", Apart),
    ("partitioner.ignore.keys", Apart),
    ("partition.assignment.strategy", Apart),
    ("compression.gzip.level", Apart),
    ("compression.lz4.level", Apart),
    ("compression.zstd.level", Apart),
    ("sasl.jaas.config", Apart),
    ("sasl.mechanism", Apart),
    ("sasl.oauthbearer.grant.type", Apart),
    ("sasl.login.callback.handler.class", Apart),
    ("sasl.client.callback.handler.class", Apart),
    ("ssl.truststore.type", Apart),
    ("ssl.truststore.location", Apart),
    ("ssl.truststore.password", Apart),
    ("ssl.truststore.certificates", Apart),
    ("ssl.keystore.type", Apart),
    ("ssl.keystore.location", Apart),
    ("ssl.keystore.password", Apart),
    ("ssl.keystore.key", Apart),
    ("ssl.keystore.certificate.chain", Apart),
    // Decided by the benchmark.
    ("group.id", Nothing("every subscription is a consumer group of its own, named by the benchmark")),
    ("key.serializer", Nothing(SERIALIZED)),
    ("value.serializer", Nothing(SERIALIZED)),
    ("key.deserializer", Nothing(SERIALIZED)),
    ("value.deserializer", Nothing(SERIALIZED)),
    ("delivery.report.only.error", Nothing("every message's report is needed to measure it")),
    ("enable.partition.eof", Nothing("the end of a partition is nothing to a benchmark that waits for more")),
    ("log.queue", Nothing("log lines go to the benchmark's own log")),
    ("enabled_events", Nothing("the benchmark chooses the events that it handles")),
    ("internal.termination.signal", Nothing("signals are handled by the benchmark")),
    ("builtin.features", Nothing("it describes the library and sets nothing")),
    ("group.instance.id", Refused("several consumers of a group would have one identity and push each other out")),
    ("transactional.id", Refused(TRANSACTIONS)),
    ("transaction.timeout.ms", Nothing(TRANSACTIONS)),
    ("transaction.two.phase.commit.enable", Nothing(TRANSACTIONS)),
    // Without a counterpart.
    ("max.poll.records", Nothing("librdkafka hands messages over as they arrive, without a limit per poll")),
    ("max.block.ms", Nothing("sending never blocks; a full queue is measured as schedule error")),
    ("default.api.timeout.ms", Nothing("the benchmark's own deadlines bound every call")),
    ("metadata.max.idle.ms", Nothing("librdkafka keeps the metadata of topics in use")),
    (
        "socket.connection.setup.timeout.max.ms",
        Nothing("librdkafka waits socket.connection.setup.timeout.ms each time"),
    ),
    ("exclude.internal.topics", Nothing("consumers subscribe to one topic by its name")),
    ("partitioner.adaptive.partitioning.enable", Nothing("librdkafka does not adapt to the speed of brokers")),
    ("partitioner.availability.timeout.ms", Nothing("librdkafka does not adapt to the speed of brokers")),
    ("interceptor.classes", Nothing(JAVA_CODE)),
    ("metric.reporters", Nothing(MEASURED)),
    ("metrics.num.samples", Nothing(MEASURED)),
    ("metrics.recording.level", Nothing(MEASURED)),
    ("metrics.sample.window.ms", Nothing(MEASURED)),
    ("auto.include.jmx.reporter", Nothing(MEASURED)),
    ("config.providers", Refused(JAVA_CODE)),
    ("security.providers", Refused(JAVA_CODE)),
    ("bootstrap.controllers", Refused("give bootstrap.servers, the brokers' addresses")),
    ("ssl.protocol", Nothing(TLS_JAVA)),
    ("ssl.enabled.protocols", Nothing(TLS_JAVA)),
    ("ssl.provider", Nothing(TLS_JAVA)),
    ("ssl.keymanager.algorithm", Nothing(TLS_JAVA)),
    ("ssl.trustmanager.algorithm", Nothing(TLS_JAVA)),
    ("ssl.secure.random.implementation", Nothing(TLS_JAVA)),
    ("ssl.engine.factory.class", Refused(JAVA_CODE)),
    ("sasl.kerberos.service.name", Refused(NO_KERBEROS)),
    ("sasl.kerberos.principal", Refused(NO_KERBEROS)),
    ("sasl.kerberos.keytab", Refused(NO_KERBEROS)),
    ("sasl.kerberos.kinit.cmd", Refused(NO_KERBEROS)),
    ("sasl.kerberos.min.time.before.relogin", Refused(NO_KERBEROS)),
    ("sasl.kerberos.ticket.renew.jitter", Refused(NO_KERBEROS)),
    ("sasl.kerberos.ticket.renew.window.factor", Refused(NO_KERBEROS)),
    ("sasl.login.class", Refused(JAVA_CODE)),
    ("sasl.login.connect.timeout.ms", Nothing(LOGIN)),
    ("sasl.login.read.timeout.ms", Nothing(LOGIN)),
    ("sasl.login.refresh.buffer.seconds", Nothing(LOGIN)),
    ("sasl.login.refresh.min.period.seconds", Nothing(LOGIN)),
    ("sasl.login.refresh.window.factor", Nothing(LOGIN)),
    ("sasl.login.refresh.window.jitter", Nothing(LOGIN)),
    ("sasl.login.retry.backoff.max.ms", Nothing(LOGIN)),
    ("sasl.login.retry.backoff.ms", Nothing(LOGIN)),
    ("sasl.oauthbearer.jwks.endpoint.url", Nothing(BROKER_SIDE)),
    ("sasl.oauthbearer.clock.skew.seconds", Nothing(BROKER_SIDE)),
    ("sasl.oauthbearer.expected.audience", Nothing(BROKER_SIDE)),
    ("sasl.oauthbearer.expected.issuer", Nothing(BROKER_SIDE)),
    ("sasl.oauthbearer.scope.claim.name", Nothing(BROKER_SIDE)),
    ("sasl.oauthbearer.sub.claim.name", Nothing(BROKER_SIDE)),
    ("sasl.oauthbearer.assertion.algorithm", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.assertion.claim.aud", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.assertion.claim.exp.seconds", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.assertion.claim.iss", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.assertion.claim.jti.include", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.assertion.claim.nbf.seconds", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.assertion.claim.sub", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.assertion.file", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.assertion.jwt.template.file", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.assertion.private.key.file", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.assertion.private.key.passphrase", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.assertion.private.key.pem", Refused(NO_ASSERTION)),
    ("sasl.oauthbearer.metadata.authentication.type", Refused(NO_METADATA)),
    // Of forks of upstream, beside the client's own properties.
    (
        "offsetCommitLingerMs",
        Nothing("a key of Confluent's fork (time between commits); offsets are committed as upstream commits them"),
    ),
];

/// The properties of librdkafka 2.12.1 that a driver file may set, each under the name that Kafka also uses where there
/// is one. The last column says how a property may travel to a worker: a row cannot be added without deciding that.
#[rustfmt::skip]
const PROPERTIES: &[(&str, Scope, Shape, Travel)] = &[
    ("acks", Producer, Acks, Freely),
    ("allow.auto.create.topics", Both, Flag, Freely),
    ("api.version.fallback.ms", Both, Whole(0, 604_800_000), Freely),
    ("api.version.request", Both, Flag, Freely),
    ("api.version.request.timeout.ms", Both, Whole(1, 300_000), Freely),
    ("auto.commit.enable", Consumer, Flag, Freely),
    ("auto.commit.interval.ms", Consumer, Whole(0, 86_400_000), Freely),
    ("auto.offset.reset", Consumer, OneOf(&["smallest", "earliest", "beginning", "largest", "latest", "end", "error"]), Freely),
    ("batch.num.messages", Producer, Whole(1, 1_000_000), Freely),
    ("batch.size", Producer, Whole(1, 2_147_483_647), Freely),
    ("bootstrap.servers", Both, Text, Freely),
    ("broker.address.family", Both, OneOf(&["any", "v4", "v6"]), Freely),
    ("broker.address.ttl", Both, Whole(0, 86_400_000), Freely),
    ("broker.version.fallback", Both, Text, Freely),
    ("check.crcs", Consumer, Flag, Freely),
    ("client.dns.lookup", Both, OneOf(&["use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"]), Freely),
    ("client.id", Both, Text, Freely),
    ("client.rack", Both, Text, Freely),
    ("compression.level", Producer, Whole(-1, 12), Freely),
    ("compression.type", Producer, OneOf(&["none", "gzip", "snappy", "lz4", "zstd"]), Freely),
    ("connections.max.idle.ms", Both, Whole(0, 2_147_483_647), Freely),
    ("consume.callback.max.messages", Consumer, Whole(0, 1_000_000), Freely),
    ("coordinator.query.interval.ms", Consumer, Whole(1, 3_600_000), Freely),
    ("debug", Both, Text, Never(NOISE)),
    ("delivery.timeout.ms", Producer, Whole(0, 2_147_483_647), Freely),
    ("enable.auto.commit", Consumer, Flag, Freely),
    ("enable.auto.offset.store", Consumer, Flag, Freely),
    ("enable.gapless.guarantee", Producer, Flag, Freely),
    ("enable.idempotence", Producer, Flag, Freely),
    ("enable.metrics.push", Both, Flag, Freely),
    ("enable.random.seed", Both, Flag, Freely),
    ("enable.sasl.oauthbearer.unsecure.jwt", Both, Flag, Freely),
    ("enable.ssl.certificate.verification", Both, Flag, Freely),
    ("fetch.error.backoff.ms", Consumer, Whole(0, 300_000), Freely),
    ("fetch.max.bytes", Consumer, Whole(0, 2_147_483_135), Freely),
    ("fetch.min.bytes", Consumer, Whole(1, 100_000_000), Freely),
    ("fetch.queue.backoff.ms", Consumer, Whole(0, 300_000), Freely),
    ("fetch.wait.max.ms", Consumer, Whole(0, 300_000), Freely),
    ("group.protocol", Consumer, OneOf(&["classic", "consumer"]), Freely),
    ("group.protocol.type", Consumer, Text, Freely),
    ("group.remote.assignor", Consumer, Text, Freely),
    ("heartbeat.interval.ms", Consumer, Whole(1, 3_600_000), Freely),
    ("https.ca.location", Both, Text, Content),
    ("https.ca.pem", Both, Text, Freely),
    ("isolation.level", Consumer, OneOf(&["read_uncommitted", "read_committed"]), Freely),
    ("linger.ms", Producer, Decimal(900_000.0), Freely),
    ("log.connection.close", Both, Flag, Freely),
    ("log.thread.name", Both, Flag, Freely),
    ("log_level", Both, Whole(0, 7), Never(NOISE)),
    ("max.in.flight.requests.per.connection", Both, Whole(1, 1_000_000), Freely),
    ("max.partition.fetch.bytes", Consumer, Whole(1, 1_000_000_000), Freely),
    ("max.poll.interval.ms", Consumer, Whole(1, 86_400_000), Freely),
    ("message.copy.max.bytes", Both, Whole(0, 1_000_000_000), Freely),
    ("message.max.bytes", Both, Whole(1_000, 1_000_000_000), Freely),
    ("metadata.max.age.ms", Both, Whole(1, 86_400_000), Freely),
    ("metadata.recovery.rebootstrap.trigger.ms", Both, Whole(0, 2_147_483_647), Freely),
    ("metadata.recovery.strategy", Both, OneOf(&["none", "rebootstrap"]), Freely),
    ("offset.store.method", Consumer, OneOf(&["none", "file", "broker"]), Never(WRITES)),
    ("offset.store.path", Consumer, Text, Never(WRITES)),
    ("offset.store.sync.interval.ms", Consumer, Whole(-1, 86_400_000), Never(WRITES)),
    ("partition.assignment.strategy", Consumer, Text, Freely),
    ("partitioner", Producer, OneOf(&["random", "consistent", "consistent_random", "murmur2", "murmur2_random", "fnv1a", "fnv1a_random"]), Freely),
    ("plugin.library.paths", Both, Text, Never(CODE)),
    ("produce.offset.report", Producer, Flag, Freely),
    ("queue.buffering.backpressure.threshold", Producer, Whole(1, 1_000_000), Freely),
    ("queue.buffering.max.kbytes", Producer, Whole(1, 2_147_483_647), Freely),
    ("queue.buffering.max.messages", Producer, Whole(0, 2_147_483_647), Freely),
    ("queued.max.messages.kbytes", Consumer, Whole(1, 2_097_151), Freely),
    ("queued.min.messages", Consumer, Whole(1, 10_000_000), Freely),
    ("queuing.strategy", Producer, OneOf(&["fifo", "lifo"]), Freely),
    ("receive.message.max.bytes", Both, Whole(1_000, 2_147_483_647), Freely),
    ("reconnect.backoff.jitter.ms", Both, Whole(0, 3_600_000), Freely),
    ("reconnect.backoff.max.ms", Both, Whole(0, 3_600_000), Freely),
    ("reconnect.backoff.ms", Both, Whole(0, 3_600_000), Freely),
    ("request.timeout.ms", Producer, Whole(1, 900_000), Freely),
    ("retries", Producer, Whole(0, 2_147_483_647), Freely),
    ("retry.backoff.max.ms", Both, Whole(1, 300_000), Freely),
    ("retry.backoff.ms", Both, Whole(1, 300_000), Freely),
    ("sasl.mechanism", Both, Text, Freely),
    ("sasl.oauthbearer.client.credentials.client.id", Both, Text, Freely),
    ("sasl.oauthbearer.client.credentials.client.secret", Both, Text, Freely),
    ("sasl.oauthbearer.config", Both, Text, Freely),
    ("sasl.oauthbearer.extensions", Both, Text, Freely),
    ("sasl.oauthbearer.grant.type", Both, OneOf(&["client_credentials", "urn:ietf:params:oauth:grant-type:jwt-bearer"]), Freely),
    ("sasl.oauthbearer.method", Both, OneOf(&["default", "oidc", AWS_METHOD]), Consent(Ask::AwsLogin)),
    ("sasl.oauthbearer.scope", Both, Text, Freely),
    ("sasl.oauthbearer.token.endpoint.url", Both, Text, Consent(Ask::Origin)),
    ("sasl.password", Both, Text, Freely),
    ("sasl.username", Both, Text, Freely),
    ("security.protocol", Both, OneOf(&["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"]), Freely),
    ("session.timeout.ms", Consumer, Whole(1, 3_600_000), Freely),
    ("socket.blocking.max.ms", Both, Whole(1, 60_000), Freely),
    ("socket.connection.setup.timeout.ms", Both, Whole(1_000, 2_147_483_647), Freely),
    ("socket.keepalive.enable", Both, Flag, Freely),
    ("socket.max.fails", Both, Whole(0, 1_000_000), Freely),
    ("socket.nagle.disable", Both, Flag, Freely),
    ("socket.receive.buffer.bytes", Both, Whole(0, 100_000_000), Freely),
    ("socket.send.buffer.bytes", Both, Whole(0, 100_000_000), Freely),
    ("socket.timeout.ms", Both, Whole(10, 300_000), Freely),
    ("ssl.ca.certificate.stores", Both, Text, Never(STORES)),
    ("ssl.ca.location", Both, Text, Content),
    ("ssl.ca.pem", Both, Text, Freely),
    ("ssl.certificate.location", Both, Text, Content),
    ("ssl.certificate.pem", Both, Text, Freely),
    ("ssl.cipher.suites", Both, Text, Freely),
    ("ssl.crl.location", Both, Text, Content),
    ("ssl.curves.list", Both, Text, Freely),
    ("ssl.endpoint.identification.algorithm", Both, OneOf(&["none", "https"]), Freely),
    ("ssl.engine.id", Both, Text, Never(CODE)),
    ("ssl.engine.location", Both, Text, Never(CODE)),
    ("ssl.key.location", Both, Text, Content),
    ("ssl.key.password", Both, Text, Freely),
    ("ssl.key.pem", Both, Text, Freely),
    ("ssl.keystore.location", Both, Text, Content),
    ("ssl.keystore.password", Both, Text, Freely),
    ("ssl.providers", Both, Text, Never(CODE)),
    ("ssl.sigalgs.list", Both, Text, Freely),
    ("statistics.interval.ms", Both, Whole(0, 86_400_000), Freely),
    ("sticky.partitioning.linger.ms", Producer, Whole(0, 900_000), Freely),
    ("topic.blacklist", Both, Text, Never(PATTERN)),
    ("topic.metadata.propagation.max.ms", Both, Whole(0, 3_600_000), Freely),
    ("topic.metadata.refresh.fast.cnt", Both, Whole(0, 1_000), Freely),
    ("topic.metadata.refresh.fast.interval.ms", Both, Whole(1, 60_000), Freely),
    ("topic.metadata.refresh.interval.ms", Both, Whole(-1, 3_600_000), Freely),
    ("topic.metadata.refresh.sparse", Both, Flag, Freely),
];

/// The name under which a property is kept: one per property.
pub(crate) fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, name)| name)
}

/// Whether the value of a property must not be shown, judged by its name; in doubt it must not, since results are
/// passed on. The file or address of a secret, or its owner's name, is no secret.
pub(crate) fn is_secret(name: &str) -> bool {
    const WORDS: [&str; 15] = [
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "jaas",
        "credential",
        "private",
        "api.key",
        "apikey",
        "access.key",
        "ssl.key",
        "keystore.key",
        "oauthbearer.config",
        // Beside a certificate the same text often holds its key.
        ".pem",
    ];
    const OPEN: [&str; 5] = [".location", ".url", ".file", ".path", ".client.id"];
    // A topic's properties are not checked, so they may be spelt in any way.
    let name = name.to_lowercase().replace(['_', '-'], ".");
    !OPEN.iter().any(|end| name.ends_with(end)) && WORDS.iter().any(|word| name.contains(word))
}

/// Whether Kafka's Java client or librdkafka has a property of this name.
pub(crate) fn is_known(name: &str) -> bool {
    let name = canonical(name);
    java(name).is_some() || property(name).is_some()
}

fn java(name: &str) -> Option<Java> {
    JAVA.iter().find(|(java, _)| *java == name).map(|(_, java)| *java)
}

fn property(name: &str) -> Option<(Scope, Shape)> {
    PROPERTIES.iter().find(|(property, ..)| *property == name).map(|(_, scope, shape, _)| (*scope, *shape))
}

/// Every property and how it may travel.
#[cfg(test)]
pub(crate) fn rows() -> impl Iterator<Item = (&'static str, Travel)> {
    PROPERTIES.iter().map(|(name, _, _, travel)| (*name, *travel))
}

/// How a property may travel, and which values it takes; `None` for a name that is not on the list.
pub(crate) fn travel(name: &str) -> Option<(Travel, Shape)> {
    PROPERTIES.iter().find(|(property, ..)| *property == name).map(|(_, _, shape, travel)| (*travel, *shape))
}

/// The properties of one client in librdkafka's terms, our defaults included. Errors go to `reader`; whether they agree
/// with each other is checked only if all of them could be read (`whole`).
pub(crate) fn translate(reader: &mut Reader<'_>, role: Role, given: &Properties, whole: bool) -> Settings {
    let mut translation = Translation { reader, role, given, settings: BTreeMap::new() };
    translation.all();
    translation.token();
    if whole {
        translation.contradictions();
    }
    translation.defaults();
    let setting = |(name, Translated { value, filled, .. }): (String, Translated)| {
        let hidden = filled || is_secret(&name);
        (name, if hidden { Setting::Secret(Secret::new(value)) } else { Setting::Open(value) })
    };
    translation.settings.into_iter().map(setting).collect()
}

/// A value for librdkafka and the property of the file that it comes from.
struct Translated {
    value: String,
    from: String,
    place: Place,
    /// Whether the value came from the environment.
    filled: bool,
}

struct Translation<'a, 'r> {
    reader: &'a mut Reader<'r>,
    role: Role,
    given: &'a Properties,
    settings: BTreeMap<String, Translated>,
}

impl Translation<'_, '_> {
    fn all(&mut self) {
        let given = self.given;
        for (name, property) in given {
            if matches!(travel(name), Some((Never(CODE), _))) {
                self.warn(
                    property,
                    "it loads code into this process: a driver file is as powerful as a program, so run only those you trust",
                );
            }
            match java(name) {
                Some(Renamed(target)) => self.set(target, property.value.trim(), property),
                Some(Converted(target, convert)) => {
                    let value = convert(property.value.trim()).unwrap_or_else(|| property.value.trim().to_owned());
                    self.set(target, &value, property);
                }
                Some(Nothing(reason)) => self.ignore(property, format!("not applied: {reason}")),
                Some(Refused(reason)) => self.refuse(property, reason),
                Some(Apart) => self.apart(name, property),
                None => self.set(name, property.value.trim(), property),
            }
        }
    }

    fn warn(&mut self, property: &Given, message: impl Into<String>) {
        self.reader.warn(&property.name, Some(property.place), message);
    }

    /// A warning about a property that is not applied, so that the result can list it.
    fn ignore(&mut self, property: &Given, message: impl Into<String>) {
        self.reader.ignore(&property.name, Some(property.place), message);
    }

    fn error(&mut self, property: &Given, problem: Problem) {
        self.reader.error(&property.name, Some(property.place), problem);
    }

    fn refuse(&mut self, property: &Given, reason: impl Into<String>) {
        let problem = Problem::Unsupported(reason.into());
        self.reader.soften(&property.name, Some(property.place), problem, "it is not applied");
    }

    /// Sets librdkafka's property `target`, if this client has it and `value` is one of its values.
    fn set(&mut self, target: &str, value: &str, property: &Given) {
        let Some((scope, shape)) = self::property(target) else {
            let names = PROPERTIES.iter().map(|(name, ..)| *name).chain(JAVA.iter().map(|(name, _)| *name));
            let suggestion = nearest(&property.name, names).map(str::to_owned);
            let problem = Problem::UnknownProperty { suggestion };
            let instead = "it is not applied; the Java client would ignore it as well";
            self.reader.soften(&property.name, Some(property.place), problem, instead);
            return;
        };
        if !self.concerns(scope, property) {
            return;
        }
        let Some(value) = shape.value(value) else {
            let found = property.found();
            let known = if target == property.name || canonical(&property.name) == target {
                String::new()
            } else {
                format!(" (as librdkafka's {target})")
            };
            let suggestion = match shape {
                OneOf(texts) if !property.filled => nearest(value, texts.iter().copied()).map(str::to_owned),
                _ => None,
            };
            let problem = Problem::NotAllowed { found, allowed: format!("{}{known}", shape.allowed()), suggestion };
            self.error(property, problem);
            return;
        };
        // The same twice is no contradiction: a Java login names its mechanism in its module, too.
        if self.settings.get(target).is_some_and(|setting| setting.value == value) {
            return;
        }
        // librdkafka's own name is more exact than a Java name that was translated.
        let exact = self.settings.get(target).is_some_and(|setting| canonical(&setting.from) == target);
        if let Some(other) = self.settings.get(target) {
            let from = other.from.clone();
            let (kept, lost) =
                if exact { (from.as_str(), property.name.as_str()) } else { (property.name.as_str(), from.as_str()) };
            let message = format!(
                "given together with {from}, which is the same to librdkafka; {kept} holds, {lost} is not applied"
            );
            self.warn(property, message);
        }
        if !exact {
            let (from, place, filled) = (property.name.clone(), property.place, property.filled);
            self.settings.insert(target.to_owned(), Translated { value, from, place, filled });
        }
    }

    /// Whether the property is one of this client's. Java ignores a producer's property of `commonConfig` in a consumer
    /// and the reverse, and so do we; in the other client's own block it is a mistake worth reporting.
    fn concerns(&mut self, scope: Scope, property: &Given) -> bool {
        let (fits, whose) = match (self.role, scope) {
            (_, Both) => return true,
            (Role::Producer, Producer) | (Role::Consumer, Consumer) => return true,
            (_, Producer) => {
                (property.block == Block::Common, "a producer's property, and consumers have no use for it")
            }
            (_, Consumer) => {
                (property.block == Block::Common, "a consumer's property, and producers have no use for it")
            }
        };
        if !fits {
            self.ignore(property, format!("not applied: {whose}"));
        }
        false
    }

    /// Properties whose value has to be examined, or that become several.
    fn apart(&mut self, name: &str, property: &Given) {
        let value = property.value.trim();
        match name {
            "request.timeout.ms" => self.request_timeout(value, property),
            // Java: 0 switches batching off.
            "batch.size" if value == "0" => self.set("batch.num.messages", "1", property),
            "partitioner.class" => self.partitioner(value, property),
            "partitioner.ignore.keys" => match value {
                "true" => self.set("partitioner", "random", property),
                "false" => {}
                _ => {
                    let problem =
                        Problem::NotAllowed { found: property.found(), allowed: Flag.allowed(), suggestion: None };
                    self.error(property, problem);
                }
            },
            "partition.assignment.strategy" => self.assignors(value, property),
            "compression.gzip.level" | "compression.lz4.level" | "compression.zstd.level" => {
                let codec = name.split('.').nth(1).unwrap_or_default();
                let chosen = self.given.get("compression.type").is_some_and(|chosen| chosen.value.trim() == codec);
                if chosen {
                    self.set("compression.level", value, property);
                } else if self.role == Role::Producer {
                    self.ignore(property, format!("not applied: compression.type is not {codec}"));
                }
            }
            "sasl.jaas.config" => self.jaas(property),
            "sasl.mechanism" => self.mechanism(value, property),
            "sasl.oauthbearer.grant.type" if value == "client_credentials" => {}
            "sasl.oauthbearer.grant.type" => self.refuse(property, NO_ASSERTION),
            "sasl.login.callback.handler.class" | "sasl.client.callback.handler.class" => {
                self.callback_handler(value, property);
            }
            _ if name.starts_with("ssl.truststore.") => self.truststore(name, property),
            _ if name.starts_with("ssl.keystore.") => self.keystore(name, property),
            _ => self.set(name, value, property),
        }
    }

    /// In Java this is how long a client waits for any answer. librdkafka has two: how long the client waits
    /// (`socket.timeout.ms`), and how long the broker may take to gather acknowledgements (a producer's
    /// `request.timeout.ms`).
    fn request_timeout(&mut self, value: &str, property: &Given) {
        let Ok(millis) = value.parse::<i64>() else {
            let allowed = Whole(1, 900_000).allowed();
            let problem = Problem::NotAllowed { found: property.found(), allowed, suggestion: None };
            self.error(property, problem);
            return;
        };
        let (socket, request) = (millis.clamp(10, 300_000), millis.clamp(1, 900_000));
        if !self.given.contains_key("socket.timeout.ms") {
            if socket != millis {
                self.warn(
                    property,
                    format!("the client waits {socket} ms for an answer, librdkafka's nearest (socket.timeout.ms)"),
                );
            }
            self.set("socket.timeout.ms", &socket.to_string(), property);
        }
        if self.role == Role::Producer {
            if request != millis {
                self.warn(
                    property,
                    format!("brokers are given {request} ms to gather acknowledgements, librdkafka's nearest"),
                );
            }
            self.set("request.timeout.ms", &request.to_string(), property);
        }
    }

    fn partitioner(&mut self, value: &str, property: &Given) {
        match value.rsplit('.').next().unwrap_or(value) {
            "DefaultPartitioner" => self.set("partitioner", "murmur2_random", property),
            "UniformStickyPartitioner" => self.set("partitioner", "random", property),
            _ => self.refuse(
                property,
                "of Java's partitioners only DefaultPartitioner and UniformStickyPartitioner have a counterpart; \
                 librdkafka's own are chosen with `partitioner`",
            ),
        }
    }

    fn assignors(&mut self, value: &str, property: &Given) {
        let mut names = Vec::new();
        for class in value.split(',').map(str::trim).filter(|class| !class.is_empty()) {
            let name = match class.rsplit('.').next().unwrap_or(class) {
                "RangeAssignor" | "range" => "range",
                "RoundRobinAssignor" | "roundrobin" => "roundrobin",
                // With the dot, `cooperative-sticky` has none.
                "CooperativeStickyAssignor" | "cooperative-sticky" => "cooperative-sticky",
                "StickyAssignor" => {
                    self.refuse(
                        property,
                        "librdkafka lacks StickyAssignor; it has range, roundrobin and cooperative-sticky",
                    );
                    return;
                }
                other => {
                    let known = ["RangeAssignor", "RoundRobinAssignor", "CooperativeStickyAssignor"];
                    let suggestion = nearest(other, known).filter(|_| !property.filled).map(str::to_owned);
                    let allowed = "range, roundrobin, cooperative-sticky, or their Java classes".to_owned();
                    let found = if property.filled { property.found() } else { format!("`{class}`") };
                    self.error(property, Problem::NotAllowed { found, allowed, suggestion });
                    return;
                }
            };
            names.push(name);
        }
        // Java's own default names both kinds, to change from one to the other while running.
        if names.contains(&"cooperative-sticky") && names.iter().any(|name| *name != "cooperative-sticky") {
            names.retain(|name| *name != "cooperative-sticky");
            if self.role == Role::Consumer {
                self.warn(property, "cooperative-sticky is left out: librdkafka cannot offer it beside the others");
            }
        }
        if names.is_empty() {
            let problem = Problem::NotAllowed {
                found: "nothing".to_owned(),
                allowed: "range, roundrobin, cooperative-sticky".to_owned(),
                suggestion: None,
            };
            self.error(property, problem);
            return;
        }
        self.set("partition.assignment.strategy", &names.join(","), property);
    }

    fn mechanism(&mut self, value: &str, property: &Given) {
        match MECHANISMS.iter().find(|known| known.eq_ignore_ascii_case(value)) {
            Some(&"AWS_MSK_IAM") => self.aws(property),
            Some(known) => self.set("sasl.mechanism", known, property),
            None if value.eq_ignore_ascii_case("GSSAPI") => self.refuse(property, NO_KERBEROS),
            None => {
                let suggestion = nearest(value, MECHANISMS).filter(|_| !property.filled).map(str::to_owned);
                let (found, allowed) = (property.found(), MECHANISMS.join(", "));
                self.error(property, Problem::NotAllowed { found, allowed, suggestion });
            }
        }
    }

    /// For a broker, Amazon's AWS_MSK_IAM is also OAUTHBEARER, with a token that is signed with AWS's credentials.
    fn aws(&mut self, property: &Given) {
        self.set("sasl.mechanism", "OAUTHBEARER", property);
        self.set("sasl.oauthbearer.method", AWS_METHOD, property);
    }

    /// Java's classes that provide the token, as far as what they do is built in.
    fn callback_handler(&mut self, value: &str, property: &Given) {
        match value.rsplit('.').next().unwrap_or(value) {
            "IAMClientCallbackHandler" | "IAMOAuthBearerLoginCallbackHandler" => self.aws(property),
            "OAuthBearerLoginCallbackHandler" => self.set("sasl.oauthbearer.method", "oidc", property),
            _ => self.refuse(
                property,
                format!(
                    "{JAVA_CODE}; of such classes OAuthBearerLoginCallbackHandler (OpenID Connect) and \
                     IAMClientCallbackHandler (Amazon MSK) have a counterpart"
                ),
            ),
        }
    }

    fn jaas(&mut self, property: &Given) {
        let allowed =
            "`..PlainLoginModule required username=\"..\" password=\"..\";`, or the same with ScramLoginModule";
        // A placeholder may stand for a text with quotes in it, so the line is taken apart before its options are
        // filled in.
        let Some(mut jaas) = Jaas::parse(&property.raw) else {
            // The value holds a password and stays out of the message.
            let problem = Problem::NotAllowed {
                found: "malformed text".to_owned(),
                allowed: allowed.to_owned(),
                suggestion: None,
            };
            self.error(property, problem);
            return;
        };
        for (_, value) in &mut jaas.options {
            // What cannot be filled in was reported where the property was read.
            if let Ok(filled) = placeholder::fill(value, self.reader.environment()) {
                *value = filled.text;
            }
        }
        let (module, mechanisms): (&str, &[&str]) = match jaas.module.rsplit('.').next().unwrap_or_default() {
            "PlainLoginModule" => ("PlainLoginModule", &["PLAIN"]),
            "ScramLoginModule" => ("ScramLoginModule", &["SCRAM-SHA-256", "SCRAM-SHA-512"]),
            "OAuthBearerLoginModule" => ("OAuthBearerLoginModule", &["OAUTHBEARER"]),
            "IAMLoginModule" => ("IAMLoginModule", &["AWS_MSK_IAM"]),
            "Krb5LoginModule" => return self.refuse(property, NO_KERBEROS),
            _ => {
                return self.refuse(
                    property,
                    "of Java's login modules PlainLoginModule, ScramLoginModule, OAuthBearerLoginModule and Amazon's \
                     IAMLoginModule have a counterpart",
                );
            }
        };
        let mechanism = self.given.get("sasl.mechanism");
        match mechanism.map(|given| (given.value.trim().to_uppercase(), given.filled)) {
            Some((mechanism, filled)) if !mechanisms.contains(&mechanism.as_str()) => {
                let is = if filled { "from the environment" } else { &mechanism };
                let what = format!("{module} is for sasl.mechanism {}, but that is {is}", mechanisms.join(" or "));
                self.error(property, Problem::Contradiction(what));
            }
            // Java's default mechanism is GSSAPI, which fails with these modules: only theirs can be meant.
            None if mechanisms.len() == 1 => self.mechanism(mechanisms[0], property),
            _ => {}
        }
        match module {
            "OAuthBearerLoginModule" => self.bearer_options(&jaas, property),
            "IAMLoginModule" => self.aws_options(&jaas, property),
            _ => self.password_options(&jaas, module, allowed, property),
        }
    }

    fn password_options(&mut self, jaas: &Jaas, module: &str, allowed: &str, property: &Given) {
        for (option, value) in &jaas.options {
            match option.as_str() {
                "username" => self.set("sasl.username", value, property),
                "password" => self.set("sasl.password", value, property),
                other => self.ignore(
                    property,
                    format!("the option {other} of {module} is not applied: librdkafka has no such choice"),
                ),
            }
        }
        if !["username", "password"].iter().all(|needed| jaas.options.iter().any(|(option, _)| option == needed)) {
            let problem = Problem::NotAllowed {
                found: "no username or no password".to_owned(),
                allowed: allowed.to_owned(),
                suggestion: None,
            };
            self.error(property, problem);
        }
    }

    /// The options of Java's OAUTHBEARER: those of OpenID Connect, and the one for an unsigned token.
    fn bearer_options(&mut self, jaas: &Jaas, property: &Given) {
        let mut extensions = Vec::new();
        for (option, value) in &jaas.options {
            match option.as_str() {
                "clientId" => self.set("sasl.oauthbearer.client.credentials.client.id", value, property),
                "clientSecret" => self.set("sasl.oauthbearer.client.credentials.client.secret", value, property),
                "scope" => self.set("sasl.oauthbearer.scope", value, property),
                "unsecuredLoginStringClaim_sub" => {
                    self.set("enable.sasl.oauthbearer.unsecure.jwt", "true", property);
                    self.set("sasl.oauthbearer.config", &format!("principal={value}"), property);
                }
                other => match other.strip_prefix("extension_") {
                    Some(name) => extensions.push(format!("{name}={value}")),
                    None => self.ignore(
                        property,
                        format!(
                            "the option {other} of OAuthBearerLoginModule is not applied: it has no equivalent here"
                        ),
                    ),
                },
            }
        }
        if !extensions.is_empty() {
            self.set("sasl.oauthbearer.extensions", &extensions.join(","), property);
        }
    }

    fn aws_options(&mut self, jaas: &Jaas, property: &Given) {
        for (option, _) in &jaas.options {
            if option == "awsDebugCreds" {
                self.ignore(property, "the option awsDebugCreds is not applied: credentials are never logged");
            } else {
                let why = format!(
                    "the option {option} of IAMLoginModule: the credentials are those of the environment \
                     (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) of the process that connects"
                );
                self.refuse(property, why);
            }
        }
    }

    /// In Java a class determines how to get a token; if only the address is given, it can only be OpenID Connect.
    fn token(&mut self) {
        let plain = matches!(self.value("sasl.oauthbearer.method"), None | Some("default"));
        if plain && let Some(url) = self.settings.get("sasl.oauthbearer.token.endpoint.url") {
            let (from, place) = (url.from.clone(), url.place);
            let method = Translated { value: "oidc".to_owned(), from, place, filled: false };
            self.settings.insert("sasl.oauthbearer.method".to_owned(), method);
        }
    }

    /// OAUTHBEARER is how a token is handed over; its source must be given, too.
    fn token_source(&mut self) {
        match self.value("sasl.oauthbearer.method") {
            Some("oidc") => {
                let missing: Vec<&str> = [
                    "sasl.oauthbearer.token.endpoint.url",
                    "sasl.oauthbearer.client.credentials.client.id",
                    "sasl.oauthbearer.client.credentials.client.secret",
                ]
                .into_iter()
                .filter(|name| self.value(name).is_none_or(str::is_empty))
                .collect();
                if !missing.is_empty() {
                    let what = format!("OpenID Connect lacks {}", missing.join(", "));
                    let at = if self.settings.contains_key("sasl.mechanism") {
                        "sasl.mechanism"
                    } else {
                        "sasl.oauthbearer.method"
                    };
                    self.contradiction(at, what);
                    return;
                }
                let url = self.value("sasl.oauthbearer.token.endpoint.url").and_then(WebAddress::parse);
                if url.is_none() {
                    let what = "not an address at which a token is fetched: https://HOST[:PORT]/PATH, in ASCII, without \
                                user and fragment";
                    self.contradiction("sasl.oauthbearer.token.endpoint.url", what);
                }
            }
            Some(AWS_METHOD) => {
                if self.value("security.protocol") != Some("sasl_ssl") {
                    let what = "AWS_MSK_IAM needs security.protocol=SASL_SSL: anyone who reads the token can use it";
                    self.contradiction("sasl.mechanism", what);
                }
            }
            _ if self.value("enable.sasl.oauthbearer.unsecure.jwt") == Some("true") => {
                if !self.value("sasl.oauthbearer.config").is_some_and(|config| config.contains("principal=")) {
                    let what = "an unsigned token needs sasl.oauthbearer.config=principal=NAME";
                    self.contradiction("sasl.mechanism", what);
                }
            }
            _ => {
                let what = "OAUTHBEARER does not say where the token comes from: give sasl.oauthbearer.method=oidc with \
                            sasl.oauthbearer.token.endpoint.url and a client's id and secret \
                            (sasl.oauthbearer.client.credentials.client.id, .client.secret), or sasl.mechanism=AWS_MSK_IAM \
                            for Amazon MSK; a broker that is only tested against may take \
                            enable.sasl.oauthbearer.unsecure.jwt=true";
                self.contradiction("sasl.mechanism", what);
            }
        }
    }

    fn store_type(&self, kind: &str) -> Option<String> {
        self.given.get(kind).map(|given| given.value.trim().to_uppercase())
    }

    /// The certificates that are trusted: PEM only.
    fn truststore(&mut self, name: &str, property: &Given) {
        let value = property.value.trim();
        let pem_file = |path: &str| [".pem", ".crt", ".cer"].iter().any(|end| path.to_lowercase().ends_with(end));
        let kind = self.store_type("ssl.truststore.type");
        match (name, kind.as_deref()) {
            ("ssl.truststore.type", Some("PEM")) => {}
            ("ssl.truststore.type", _) => self.refuse(
                property,
                "librdkafka reads certificates as PEM only: convert with `keytool -list -rfc -keystore FILE > ca.pem`, \
                 then set ssl.truststore.type=PEM and ssl.truststore.location to that file",
            ),
            ("ssl.truststore.location", Some("PEM")) => self.set("ssl.ca.location", value, property),
            ("ssl.truststore.location", None) if pem_file(value) => self.set("ssl.ca.location", value, property),
            ("ssl.truststore.location", None) => self.refuse(
                property,
                "librdkafka cannot read a Java key store (JKS): convert with `keytool -list -rfc -keystore FILE > ca.pem`, \
                 then set ssl.truststore.type=PEM and ssl.truststore.location to that file",
            ),
            ("ssl.truststore.certificates", _) => self.set("ssl.ca.pem", value, property),
            // PEM certificates have no password; for other types the type is what is wrong.
            ("ssl.truststore.password", Some("PEM")) => self.warn(property, "not applied: PEM certificates have no password"),
            _ => {}
        }
    }

    /// The client's own certificate: PEM or PKCS#12.
    fn keystore(&mut self, name: &str, property: &Given) {
        let value = property.value.trim();
        let kind = self.store_type("ssl.keystore.type");
        let jks = value.to_lowercase().ends_with(".jks");
        match (name, kind.as_deref()) {
            ("ssl.keystore.type", Some("PEM" | "PKCS12")) => {}
            ("ssl.keystore.type", _) => self.refuse(
                property,
                "librdkafka reads PEM and PKCS12: convert with `keytool -importkeystore -srckeystore FILE \
                 -destkeystore FILE.p12 -deststoretype PKCS12`, then set ssl.keystore.type=PKCS12",
            ),
            // Java wants key and certificates in one file, and OpenSSL finds either in it.
            ("ssl.keystore.location", Some("PEM")) => {
                self.set("ssl.key.location", value, property);
                self.set("ssl.certificate.location", value, property);
            }
            ("ssl.keystore.location", None) if jks => self.refuse(
                property,
                "librdkafka cannot read a Java key store (JKS): convert with `keytool -importkeystore -srckeystore FILE \
                 -destkeystore FILE.p12 -deststoretype PKCS12`, then set ssl.keystore.type=PKCS12",
            ),
            ("ssl.keystore.location" | "ssl.keystore.password", None | Some("PKCS12")) => self.set(name, &property.value, property),
            ("ssl.keystore.password", Some("PEM")) => {
                self.warn(property, "not applied: in PEM the key has the password (ssl.key.password), not the store");
            }
            ("ssl.keystore.key", _) => self.set("ssl.key.pem", value, property),
            ("ssl.keystore.certificate.chain", _) => self.set("ssl.certificate.pem", value, property),
            _ => {}
        }
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(|setting| setting.value.as_str())
    }

    /// The value as a message may show it.
    fn shown(&self, name: &str) -> Cow<'_, str> {
        match self.settings.get(name) {
            Some(Translated { filled: true, .. }) => "from the environment".into(),
            Some(Translated { value, .. }) => value.as_str().into(),
            None => "(none)".into(),
        }
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.value(name)?.parse().ok()
    }

    /// An error about the property that became `name`.
    fn contradiction(&mut self, name: &str, what: impl Into<String>) {
        if let Some(Translated { from, place, .. }) = self.settings.get(name) {
            let (from, place) = (from.clone(), *place);
            self.reader.error(&from, Some(place), Problem::Contradiction(what.into()));
        }
    }

    /// What librdkafka rejects when the client is made (`rd_kafka_conf_finalize`), found here with its place.
    fn contradictions(&mut self) {
        self.security();
        let (backoff, backoff_max) = (self.number("reconnect.backoff.ms"), self.number("reconnect.backoff.max.ms"));
        if backoff.unwrap_or(100) > backoff_max.unwrap_or(10_000) {
            let name = if backoff_max.is_some() { "reconnect.backoff.max.ms" } else { "reconnect.backoff.ms" };
            self.contradiction(
                name,
                "reconnect.backoff.max.ms (10000 if not given) is below reconnect.backoff.ms (100)",
            );
        }
        match self.role {
            Role::Admin => {}
            Role::Producer => self.producer_contradictions(),
            Role::Consumer => self.consumer_contradictions(),
        }
    }

    fn security(&mut self) {
        let protocol = self.value("security.protocol").unwrap_or("plaintext").to_owned();
        if self.value("ssl.keystore.location").is_some() && self.value("ssl.keystore.password").is_none() {
            self.contradiction("ssl.keystore.location", "a key store needs its ssl.keystore.password");
        }
        if !protocol.starts_with("sasl") {
            for name in ["sasl.mechanism", "sasl.username"] {
                if let Some(Translated { from, place, .. }) = self.settings.get(name) {
                    let shown = self.shown("security.protocol");
                    let shown = if shown == "(none)" { "plaintext".into() } else { shown };
                    let message = format!(
                        "not used: security.protocol is {shown}, without sasl_plaintext or sasl_ssl clients do not log in"
                    );
                    let (from, place) = (from.clone(), *place);
                    self.reader.warn(&from, Some(place), message);
                }
            }
            return;
        }
        match self.value("sasl.mechanism") {
            None if !self.given.contains_key("sasl.mechanism") => self.contradiction(
                "security.protocol",
                format!("{} needs a sasl.mechanism: {}", self.shown("security.protocol"), MECHANISMS.join(", ")),
            ),
            Some("OAUTHBEARER") => self.token_source(),
            Some("PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512") => {
                let given = |name| self.given.contains_key(name);
                let complete = self.value("sasl.username").is_some() && self.value("sasl.password").is_some();
                if !complete && !given("sasl.jaas.config") {
                    self.contradiction(
                        "sasl.mechanism",
                        "needs sasl.username and sasl.password, or sasl.jaas.config with both",
                    );
                }
            }
            _ => {}
        }
    }

    fn producer_contradictions(&mut self) {
        let (linger, timeout) =
            (self.value("linger.ms").and_then(|linger| linger.parse::<f64>().ok()), self.number("delivery.timeout.ms"));
        if let Some(linger) = linger {
            let timeout = timeout.unwrap_or(300_000);
            if timeout != 0 && timeout as f64 <= linger {
                let timeout = match self.shown("delivery.timeout.ms") {
                    shown if shown == "(none)" => timeout.to_string().into(),
                    shown => shown,
                };
                let what = format!("linger.ms {} must be below delivery.timeout.ms {timeout}", self.shown("linger.ms"));
                self.contradiction("linger.ms", what);
            }
        }
        if self.value("enable.idempotence") != Some("true") {
            if self.value("enable.gapless.guarantee") == Some("true") {
                self.contradiction("enable.gapless.guarantee", "needs enable.idempotence=true");
            }
            return;
        }
        if self.number("max.in.flight.requests.per.connection").is_some_and(|requests| requests > 5) {
            self.contradiction("max.in.flight.requests.per.connection", "enable.idempotence allows at most 5");
        }
        if self.number("retries") == Some(0) {
            self.contradiction("retries", "enable.idempotence needs at least 1");
        }
        if self.value("acks").is_some_and(|acks| acks != "all" && acks != "-1") {
            self.contradiction("acks", "enable.idempotence needs acks=all");
        }
        if self.value("queuing.strategy") == Some("lifo") {
            self.contradiction("queuing.strategy", "enable.idempotence needs fifo");
        }
        if self.number("queue.buffering.backpressure.threshold").is_some_and(|threshold| threshold != 1) {
            self.contradiction("queue.buffering.backpressure.threshold", "enable.idempotence needs 1");
        }
    }

    fn consumer_contradictions(&mut self) {
        let newer = self.value("group.protocol") == Some("consumer");
        if newer {
            for name in
                ["session.timeout.ms", "heartbeat.interval.ms", "group.protocol.type", "partition.assignment.strategy"]
            {
                self.contradiction(name, "group.protocol=consumer leaves this to the broker; remove it");
            }
        }
        let (poll, session) = (self.number("max.poll.interval.ms"), self.number("session.timeout.ms"));
        if !newer && poll.unwrap_or(300_000) < session.unwrap_or(45_000) {
            let name = if poll.is_some() { "max.poll.interval.ms" } else { "session.timeout.ms" };
            self.contradiction(name, "max.poll.interval.ms (300000 if not given) is below session.timeout.ms (45000)");
        }
        let message = self.number("message.max.bytes").unwrap_or(1_000_000);
        let queued = self.number("queued.max.messages.kbytes").unwrap_or(65_536) * 1024;
        let fetch = self.number("fetch.max.bytes");
        if fetch.is_some_and(|fetch| fetch < message) {
            let message = match self.shown("message.max.bytes") {
                shown if shown == "(none)" => message.to_string().into(),
                shown => shown,
            };
            let what = format!("must not be below message.max.bytes, {message} here");
            self.contradiction("fetch.max.bytes", what);
        }
        let fetch = fetch.unwrap_or(queued.min(52_428_800).max(message));
        if self.number("receive.message.max.bytes").is_some_and(|receive| receive < fetch + 512) {
            let hidden = ["fetch.max.bytes", "message.max.bytes", "queued.max.messages.kbytes"]
                .iter()
                .any(|name| self.settings.get(*name).is_some_and(|setting| setting.filled));
            let least = if hidden { String::new() } else { format!("at least {}: ", fetch + 512) };
            self.contradiction("receive.message.max.bytes", format!("must be {least}512 above fetch.max.bytes"));
        }
    }

    fn default(&mut self, name: &str, value: &str) {
        if !self.settings.contains_key(name) {
            let place = Place { line: 1, column: 1 };
            let setting = Translated { value: value.to_owned(), from: name.to_owned(), place, filled: false };
            self.settings.insert(name.to_owned(), setting);
        }
    }

    /// What we set if the file does not, different from librdkafka's own defaults.
    fn defaults(&mut self) {
        let tls = self.value("security.protocol").is_some_and(|protocol| protocol.ends_with("ssl"));
        if tls && self.value("ssl.ca.pem").is_none() {
            // OpenSSL is built in and looks for certificates where it was built; this looks where systems keep them.
            self.default("ssl.ca.location", "probe");
        }
        match self.role {
            Role::Admin => {}
            Role::Producer => {
                // The Java client's: keys lie in the same partitions, and batches without keys stick to one.
                self.default("partitioner", "murmur2_random");
                // librdkafka's own, written down since it bounds the backlog of a stalled producer.
                self.default("queue.buffering.max.messages", "100000");
                // 256 MiB where librdkafka has 1 GiB per producer: a stall shows as schedule error, not as lost memory.
                self.default("queue.buffering.max.kbytes", "262144");
            }
            Role::Consumer => {
                // Upstream reads a missing key as false and commits itself; the client then commits as well: twice in
                // all.
                self.default("enable.auto.commit", "false");
                // librdkafka stops fetching for a second whenever 100,000 messages wait for us, so that a consumer
                // capable of a million a second was seen to get 197,000. The Java client has no such pause.
                self.default("fetch.queue.backoff.ms", "2");
            }
        }
    }
}

impl Shape {
    /// The value as librdkafka is to get it, if it is valid.
    pub(crate) fn value(self, text: &str) -> Option<String> {
        let whole = |min, max| {
            text.parse::<i64>().ok().filter(|whole| (min..=max).contains(whole)).map(|whole| whole.to_string())
        };
        match self {
            // librdkafka accepts text without zero bytes only; the YAML reader lets none through, properties escapes
            // could.
            Text => (!text.contains('\0')).then(|| text.to_owned()),
            Flag => ["true", "false"].into_iter().find(|flag| flag.eq_ignore_ascii_case(text)).map(str::to_owned),
            Whole(min, max) => whole(min, max),
            Decimal(max) => {
                let decimal = text.parse::<f64>().ok().filter(|decimal| (0.0..=max).contains(decimal))?;
                Some(decimal.to_string())
            }
            OneOf(texts) => {
                texts.iter().find(|known| known.eq_ignore_ascii_case(text)).map(|known| (*known).to_owned())
            }
            Acks if text.eq_ignore_ascii_case("all") => Some("all".to_owned()),
            Acks => whole(-1, 1000),
        }
    }

    pub(crate) fn allowed(self) -> String {
        match self {
            Text => "a text".to_owned(),
            Flag => "true, false".to_owned(),
            Whole(min, max) => format!("a whole number from {min} to {max}"),
            Decimal(max) => format!("a number from 0 to {max}"),
            OneOf(texts) => texts.join(", "),
            Acks => "all, or a whole number from -1 to 1000".to_owned(),
        }
    }
}

/// Bytes to kilobytes, rounded up so that every message that fitted still does.
fn kilobytes(bytes: &str) -> Option<String> {
    let bytes: u64 = bytes.parse().ok()?;
    Some(bytes.div_ceil(1024).to_string())
}

/// Java's -1 ("as the system likes", "never") is librdkafka's 0.
fn minus_one_is_zero(value: &str) -> Option<String> {
    (value == "-1").then(|| "0".to_owned())
}

/// Java's `none` (fail without an offset) is librdkafka's `error`.
fn offset_reset(value: &str) -> Option<String> {
    (value == "none").then(|| "error".to_owned())
}

/// In Java an empty text switches the check of host names off.
fn empty_is_none(value: &str) -> Option<String> {
    value.is_empty().then(|| "none".to_owned())
}

/// A login module of Java's security framework and its options.
struct Jaas {
    module: String,
    options: Vec<(String, String)>,
}

impl Jaas {
    /// Reads `module required name="value" other='value' third=value;`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let text = text.strip_suffix(';').unwrap_or(text);
        let (module, rest) = text.split_once(char::is_whitespace)?;
        let (flag, mut rest) = rest.trim_start().split_once(char::is_whitespace).unwrap_or((rest.trim_start(), ""));
        if !["required", "requisite", "sufficient", "optional"].iter().any(|known| known.eq_ignore_ascii_case(flag)) {
            return None;
        }
        let mut options = Vec::new();
        loop {
            rest = rest.trim_start();
            if rest.is_empty() {
                return Some(Self { module: module.to_owned(), options });
            }
            let (name, after) = rest.split_once('=')?;
            let (value, after) = jaas_value(after.trim_start())?;
            let name = name.trim();
            if name.is_empty() || name.contains(char::is_whitespace) {
                return None;
            }
            options.push((name.to_owned(), value));
            rest = after;
        }
    }
}

/// A value in quotes, where a backslash escapes, or up to the next blank; and what follows it.
fn jaas_value(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let Some(quote) = quote else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        return (end > 0).then(|| (text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => value.push(chars.next()?.1),
            c if c == quote => return Some((value, &text[at + 1..])),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::is_secret;

    #[test]
    fn secrets_are_known_by_their_names() {
        let secret = [
            "sasl.password",
            "ssl.key.password",
            "ssl.key.pem",
            "ssl.certificate.pem",
            "ssl.keystore.password",
            "ssl.keystore.key",
            "sasl.jaas.config",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.config",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.assertion.private.key.passphrase",
            "SSL_KEY_PASSWORD",
            "some.api-key",
        ];
        assert_eq!(secret.iter().find(|name| !is_secret(name)), None);
        let open = [
            "bootstrap.servers",
            "sasl.username",
            "sasl.mechanisms",
            "ssl.key.location",
            "ssl.keystore.location",
            "sasl.oauthbearer.token.endpoint.url",
            "sasl.oauthbearer.assertion.private.key.file",
            "sasl.oauthbearer.client.credentials.client.id",
            "key.serializer",
            "linger.ms",
            "acks",
        ];
        assert_eq!(open.iter().find(|name| is_secret(name)), None);
    }
}
