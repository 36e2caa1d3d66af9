//! Kafka, through librdkafka's own functions: its batches going in, its event and callback queues coming out.
//!
//! The safe wrappers cost 1.7 to 9 times the CPU per message of these calls (by-name topic look-up, a box and a
//! future per message); administration, which is not counted, does go through them.

mod check;
mod leftovers;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, CString, c_char, c_int, c_void},
    io::{self, Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    ptr::NonNull,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    time::Duration,
};

use omb_bench::{
    config::driver::KafkaConfig,
    load::{keys, throttle::Throttled},
    plan::{leftovers::Inventory, sharing::BUFFER_BYTES_MAX},
    protocol::{
        Failure, FailureKind,
        command::{Check, TopicSpec},
        remedy::{self, Meaning},
    },
};
use omb_kafka::reason::{self, of_code};
use omb_machine::{
    config::setting::{Setting, Settings},
    printable::printable,
    quantity::plural,
    time::WallTime,
};
use rdkafka::{
    admin::{AdminClient, AdminOptions, TopicResult},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
};
use rdkafka_sys as sys;

use super::{
    Consumer, Driver, Incoming, Membership, Outgoing, Producer, ProducerHalves, Report, Reports, Sent, Target, Trouble,
    go_on,
    login::LoggedIn,
    settings::{Kind, Native, Secrets},
};
use crate::{
    clock,
    load::ring::{Ring, Ticket},
};

/// Longest that a broker may take to answer for the first time.
pub const REACH_WITHIN: Duration = Duration::from_secs(10);

/// How often a wait checks whether its result is still needed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long until a request without an answer is repeated, so as to check whether it is still needed; doubled each
/// time, since the answer may take that long.
const ASK_ANEW: Duration = Duration::from_secs(1);

/// How long the answer to a request for topics is awaited when they are not needed any more: they can only be deleted
/// once the broker has created them.
const CREATED_WITHIN: Duration = Duration::from_secs(2);
/// How long one of the requests for the first answer waits.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How long to wait for something that waiting will probably not fix.
const HOPELESS_AFTER: Duration = Duration::from_secs(2);

/// Topics created with one request. Brokers take a few ms for each, so larger requests would outlast a deadline.
const TOPICS_PER_REQUEST: usize = 100;

/// librdkafka's `RD_KAFKA_PARTITION_UA`: the partitioner chooses.
const PARTITION_UNASSIGNED: i32 = -1;

/// A Kafka cluster, connected to.
pub struct Kafka {
    config: KafkaConfig,
    native: Native,
    secrets: Secrets,
    /// Before the client that logs in with it: fields drop in order.
    _login: Option<LoggedIn>,
    admin: AdminClient<DefaultClientContext>,
    system: String,
    throttled: Arc<Mutex<Throttled>>,
    runtime: tokio::runtime::Handle,
}

fn log_line(level: c_int, facility: &str, message: &str) {
    // Connection errors are reported by the commands that suffer from them, so the library's own lines are for -v.
    match level {
        0..=5 => tracing::debug!(target: "librdkafka", "{facility}: {message}"),
        _ => tracing::trace!(target: "librdkafka", "{facility}: {message}"),
    }
}

/// What the kind of a library error means to the user.
fn kind_of(code: RDKafkaErrorCode) -> FailureKind {
    remedy::of(code as i32).kind
}

/// What the library has reported about its connections so far: why there was no answer. The wrapper of the admin client
/// leaves these events in the client's main queue.
fn troubles(admin: &AdminClient<DefaultClientContext>) -> Vec<reason::Trouble> {
    let mut troubles: Vec<reason::Trouble> = Vec::new();
    let mut add = |text: &str| {
        if let Some(trouble) = reason::Trouble::parse(text)
            && !troubles.contains(&trouble)
            && troubles.len() < TROUBLES_MAX
        {
            troubles.push(trouble);
        }
    };
    // SAFETY: the client is alive, the queue and each event are destroyed here, and texts are copied before that.
    unsafe {
        let queue = sys::rd_kafka_queue_get_main(admin.inner().native_ptr());
        loop {
            let event = sys::rd_kafka_queue_poll(queue, 0);
            if event.is_null() {
                break;
            }
            match sys::rd_kafka_event_type(event) {
                sys::RD_KAFKA_EVENT_LOG => {
                    let (mut facility, mut text, mut level) = (std::ptr::null(), std::ptr::null(), 0);
                    if sys::rd_kafka_event_log(event, &raw mut facility, &raw mut text, &raw mut level) == 0 {
                        on_log(std::ptr::null(), level, facility, text);
                        // Errors and worse, as syslog counts them.
                        if level <= 3 {
                            add(&CStr::from_ptr(text).to_string_lossy());
                        }
                    }
                }
                sys::RD_KAFKA_EVENT_ERROR => {
                    let text = sys::rd_kafka_event_error_string(event);
                    if !text.is_null() {
                        add(&CStr::from_ptr(text).to_string_lossy());
                    }
                }
                _ => {}
            }
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
    }
    troubles
}

/// Why there was no answer: the reports about the connections, or else the code.
enum Unanswered {
    Connections(Vec<reason::Trouble>),
    Code(String),
}

fn unanswered(troubles: Vec<reason::Trouble>, code: &str) -> Unanswered {
    if troubles.is_empty() { Unanswered::Code(of_code(code)) } else { Unanswered::Connections(troubles) }
}

/// The `security.protocol` of some settings; empty if they leave it open.
fn security(settings: &Settings) -> &str {
    settings.get("security.protocol").and_then(Setting::text).unwrap_or("")
}

fn logs_in(settings: &Settings) -> bool {
    security(settings).to_ascii_lowercase().starts_with("sasl")
}

fn speaks_tls(settings: &Settings) -> bool {
    security(settings).to_ascii_lowercase().ends_with("ssl")
}

/// Requests the cluster's brokers until there is an answer, and returns how many there are. An error that waiting does
/// not fix ends it early.
fn first_answer(
    admin: &AdminClient<DefaultClientContext>,
    config: &KafkaConfig,
    secrets: &Secrets,
    cut: &AtomicBool,
) -> Result<usize, Failure> {
    let (began, mut heard, mut slice) = (std::time::Instant::now(), Vec::new(), ASK_AGAIN);
    let (mut knocked, tls) = (false, speaks_tls(&config.common));
    loop {
        let asked = std::time::Instant::now();
        let left = REACH_WITHIN.saturating_sub(began.elapsed());
        let error = match admin.inner().fetch_metadata(None, slice.min(left)) {
            Ok(metadata) => return Ok(metadata.brokers().len()),
            Err(error) => error,
        };
        go_on(cut)?;
        for trouble in troubles(admin) {
            if !heard.contains(&trouble) && heard.len() < TROUBLES_MAX {
                heard.push(trouble);
            }
        }
        // Of several addresses one may be right; all were tried for that long.
        let doubtful = began.elapsed() >= HOPELESS_AFTER;
        let mut hopeless = doubtful && heard.iter().any(reason::Trouble::is_lasting);
        let over = began.elapsed() >= REACH_WITHIN;
        if !hopeless && (over || doubtful && !std::mem::replace(&mut knocked, true)) {
            // The library is silent about connections that are closed while they serve, as by a broker that requires a
            // login. And its reports about them may be past.
            let found = knock(config);
            hopeless = found.iter().any(reason::Trouble::wants_sasl);
            if hopeless || over && (heard.is_empty() || !tls && found.iter().all(reason::Trouble::is_silent)) {
                heard = found;
            }
        }
        if hopeless || over {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown);
            return Err(no_answer(config, secrets, &unanswered(heard, &code.to_string())));
        }
        if asked.elapsed() < slice / 2 {
            std::thread::sleep(LOOK_EVERY);
        }
        // A broker may take long to answer.
        slice *= 2;
    }
}

/// Connects to the cluster's addresses directly, to find out whether anything listens; worded as by the library.
fn knock(config: &KafkaConfig) -> Vec<reason::Trouble> {
    let servers = config.common.get("bootstrap.servers").and_then(Setting::text).unwrap_or_default();
    let knocks = servers.split(',').map(str::trim).filter(|server| !server.is_empty()).take(KNOCKS_MAX);
    knocks
        .map(|server| {
            let address = server.rsplit_once("://").map_or(server, |(_, address)| address).to_owned();
            let said = match address.to_socket_addrs().map(|mut found| found.next()) {
                Err(error) => format!("Failed to resolve '{address}': {error}"),
                Ok(None) => format!("Failed to resolve '{address}': no address"),
                Ok(Some(ip)) => match TcpStream::connect_timeout(&ip, KNOCK_WITHIN) {
                    Ok(stream) => asked_by_hand(stream, &config.common),
                    Err(error) => format!("Connect to {ip} failed: {error}"),
                },
            };
            reason::Trouble { broker: None, address, said, after: None }
        })
        .collect()
}

/// The result of the first request that any client sends (`ApiVersions`, version 0, without a client id), and then of
/// one that only a listener with logins answers (`SaslHandshake`, version 1, of no mechanism); in librdkafka's words.
fn asked_by_hand(mut stream: TcpStream, settings: &Settings) -> String {
    const QUESTION: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 0, 0xff, 0xff];
    const LOGIN: [u8; 16] = [0, 0, 0, 12, 0, 17, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0, 0];
    // Longer than any answer to them.
    const ANSWER_MAX: usize = 1 << 16;
    if speaks_tls(settings) {
        return reason::SILENT.to_owned();
    }
    let timed = stream.set_read_timeout(Some(KNOCK_WITHIN));
    let mut ask = |question: &[u8]| -> io::Result<Result<Vec<u8>, i32>> {
        let mut size = [0; 4];
        stream.write_all(question)?;
        stream.read_exact(&mut size)?;
        let size = i32::from_be_bytes(size);
        let Some(length) = usize::try_from(size).ok().filter(|length| *length <= ANSWER_MAX) else {
            return Ok(Err(size));
        };
        let mut answer = vec![0; length];
        stream.read_exact(&mut answer)?;
        Ok(Ok(answer))
    };
    match timed.and_then(|()| ask(&QUESTION)).map_err(|error| error.kind()) {
        Ok(Ok(_)) => {
            let login = ask(&LOGIN).ok().and_then(Result::ok);
            match login.as_deref().and_then(mechanisms).filter(|_| !logs_in(settings)) {
                Some(offered) => format!("{}{offered}", reason::WANTS_SASL),
                None => "it answers now, and did not in time".to_owned(),
            }
        }
        Ok(Err(size)) => format!("Invalid response size {size}"),
        Err(io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => reason::SILENT.to_owned(),
        Err(_) => "Disconnected: requesting ApiVersion: might be caused by incorrect security.protocol".to_owned(),
    }
}

/// The mechanisms that an answer to `SaslHandshake` offers instead of the requested one: correlation id, error code,
/// and an array of strings. `None` if it is anything else, such as that there are no logins here.
fn mechanisms(answer: &[u8]) -> Option<String> {
    const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
    let (_, rest) = answer.split_first_chunk::<4>()?;
    let (code, rest) = rest.split_first_chunk()?;
    let (_, mut rest) = rest.split_first_chunk::<4>()?;
    let mut offered = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk() {
        let (name, more) = more.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        offered.push(String::from_utf8_lossy(name));
        rest = more;
    }
    (i16::from_be_bytes(*code) == UNSUPPORTED_SASL_MECHANISM && !offered.is_empty()).then(|| offered.join(", "))
}

/// Addresses that are tried directly.
const KNOCKS_MAX: usize = 4;
/// Longest that such an attempt may take.
const KNOCK_WITHIN: Duration = Duration::from_secs(1);

/// The cluster did not answer the first request.
fn no_answer(config: &KafkaConfig, secrets: &Secrets, why: &Unanswered) -> Failure {
    let (servers, security) =
        (config.common.get("bootstrap.servers").map_or("(none)", Setting::shown), security(&config.common));
    let (refused, why) = match why {
        Unanswered::Code(text) => (false, text.clone()),
        Unanswered::Connections(troubles) => {
            // The other reports only follow from it.
            let lasting = troubles.iter().any(reason::Trouble::is_lasting);
            let mut sentences: Vec<String> = troubles
                .iter()
                .filter(|it| it.is_lasting() || !lasting)
                // The address is mentioned already, if there is only one.
                .map(
                    |it| if it.address == servers { it.sentence(security) } else { it.sentence_with_address(security) },
                )
                .collect();
            sentences.dedup();
            (troubles.iter().any(reason::Trouble::is_refusal), sentences.join("; "))
        }
    };
    let why = secrets.redact(&why);
    if refused {
        return Failure::new(FailureKind::Refused, format!("Kafka at {servers} refuses us: {why}"));
    }
    Failure::new(FailureKind::Unreachable, format!("Kafka at {servers} does not answer: {why}"))
}

impl std::fmt::Debug for Kafka {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka").field("system", &self.system).finish_non_exhaustive()
    }
}

impl Kafka {
    /// Connects, and requests the cluster's brokers.
    ///
    /// # Errors
    /// If a setting is rejected, no broker answers within [`REACH_WITHIN`], or one rejects us; names the host and port.
    pub fn connect(config: &KafkaConfig, runtime: tokio::runtime::Handle, cut: &AtomicBool) -> Result<Self, Failure> {
        let (mut native, secrets) = (Native::new(config)?, Secrets::of(config));
        // A misspelt producer or consumer setting is found now and not after topics have been created.
        for settings in [&native.producer, &native.consumer] {
            settings.config.create_native_config().map_err(|error| refused_setting(&error, &secrets))?;
        }
        native.log_in(config, &runtime)?;
        let admin: AdminClient<DefaultClientContext> =
            native.admin.config.create().map_err(|error| refused_setting(&error, &secrets))?;
        let login = log_in(&native.admin, admin.inner().native_ptr())?;
        let brokers = first_answer(&admin, config, &secrets, cut)?;
        let (_, version) = rdkafka::util::get_rdkafka_version();
        let system = format!("Kafka, {brokers} broker{}, librdkafka {version}", plural(brokers));
        let throttled = Arc::default();
        Ok(Self { config: config.clone(), native, secrets, _login: login, admin, system, throttled, runtime })
    }

    /// Reports this as the system's name, instead of a Kafka cluster.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        let (_, version) = rdkafka::util::get_rdkafka_version();
        self.system = format!("{name}, librdkafka {version}");
        self
    }

    fn options(within: Duration) -> AdminOptions {
        AdminOptions::new().request_timeout(Some(within)).operation_timeout(Some(within))
    }

    fn failure(verb: &str, error: &KafkaError) -> Failure {
        let kind = error.rdkafka_error_code().map_or(FailureKind::Broken, kind_of);
        Failure::new(kind, format!("{verb}: {error}"))
    }
}

/// Number and text of the version of librdkafka that is linked.
#[must_use]
pub fn library_version() -> (u32, String) {
    let (number, text) = rdkafka::util::get_rdkafka_version();
    (number.cast_unsigned(), text)
}

/// Gives a client its token, if it logs in with one of ours.
fn log_in(kind: &Kind, raw: *mut sys::rd_kafka_t) -> Result<Option<LoggedIn>, Failure> {
    let raw = NonNull::new(raw).expect("a client that was made");
    kind.tokens.as_ref().map(|tokens| LoggedIn::new(tokens, raw)).transpose()
}

fn refused_setting(error: &KafkaError, secrets: &Secrets) -> Failure {
    let text = match error {
        KafkaError::ClientConfig(_, description, key, value) => format!("{key}={value}: {description}"),
        other => other.to_string(),
    };
    let text = secrets.redact(&text);
    Failure::new(FailureKind::Configuration, format!("the Kafka client refuses its settings: {text}"))
}

impl Driver for Kafka {
    fn system(&self) -> &str {
        &self.system
    }

    fn check(&self, check: &Check, cut: &AtomicBool) -> Vec<Failure> {
        let mut failures = check::brokers(self, check, cut);
        // If some broker cannot be reached, it may be the one that creates topics: that would only take time.
        if failures.iter().all(|failure| failure.kind != FailureKind::Unreachable) {
            // One by one, so that each is reported.
            let one = |topic| self.create_some(std::slice::from_ref(topic), REACH_WITHIN, true, cut);
            failures.extend(check.topics.iter().map(one).filter_map(Result::err));
        }
        failures
    }

    fn create_topics(&self, topics: &[TopicSpec], within: Duration, cut: &AtomicBool) -> Result<(), Failure> {
        let deadline = std::time::Instant::now() + within;
        for some in topics.chunks(TOPICS_PER_REQUEST) {
            go_on(cut)?;
            self.create_some(some, deadline.saturating_duration_since(std::time::Instant::now()), false, cut)?;
        }
        self.wait_for_leaders(topics, deadline, cut)
    }

    fn delete_topics(&self, names: &[String], within: Duration) -> Result<(), Failure> {
        let deadline = std::time::Instant::now() + within;
        for some in names.chunks(TOPICS_PER_REQUEST) {
            let some: Vec<&str> = some.iter().map(String::as_str).collect();
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let results = self.runtime.block_on(self.admin.delete_topics(&some, &Self::options(left)));
            let gone = [RDKafkaErrorCode::UnknownTopicOrPartition, RDKafkaErrorCode::UnknownTopic];
            first_refused("delete topic", results, &gone)?;
        }
        Ok(())
    }

    fn delete_groups(&self, names: &[String], within: Duration) -> Result<(), Failure> {
        self.delete_all_groups(names, within)
    }

    fn inventory(&self, within: Duration) -> Result<Inventory, Failure> {
        self.take_inventory(within)
    }

    fn producers(&self, targets: &[Target<'_>], cut: &AtomicBool) -> Result<ProducerHalves, Failure> {
        let mut settings = self.native.producer.clone();
        if targets.len() > 1 && settings.config.get("socket.nagle.disable").is_none() {
            // Otherwise a small message of one waits until another's was answered. (Java's client never lets it wait.)
            settings.config.set("socket.nagle.disable", "true");
        }
        let client = Arc::new(self.client(sys::rd_kafka_type_t::RD_KAFKA_PRODUCER, &settings)?);
        let sharing = Arc::new(Sharing { producers: targets.len(), gave_up: AtomicUsize::new(0) });
        let mut names = BTreeSet::new();
        let mut producers: Vec<Box<dyn Producer>> = Vec::with_capacity(targets.len());
        let mut only = std::ptr::null_mut();
        for (place, Target { topic, partitions }) in targets.iter().enumerate() {
            assert!(names.insert(*topic), "two producers of {topic} cannot share a client");
            let name = c_string(topic)?;
            let config = if targets.len() == 1 { std::ptr::null_mut() } else { topic_config(&client, place) };
            // SAFETY: the client lives in the `Arc` that both halves hold; the name is copied, the configuration taken
            // over.
            let handle = unsafe { sys::rd_kafka_topic_new(client.raw(), name.as_ptr(), config) };
            let Some(topic) = NonNull::new(handle) else { return Err(last_error("open topic", topic)) };
            only = handle;
            // With one partition there is nothing to choose, and librdkafka's partitioner need not be called per
            // message.
            let partition = if *partitions == 1 { 0 } else { PARTITION_UNASSIGNED };
            let (client, sharing) = (Arc::clone(&client), Arc::clone(&sharing));
            let producer =
                KafkaProducer { topic, partition, raw: Vec::new(), lent: None, client, sharing, gave_up: false };
            producers.push(Box::new(producer));
        }
        // Without a topic of its own, the request covers all that the client has opened.
        know_leaders(&client, if targets.len() == 1 { only } else { std::ptr::null_mut() }, cut)?;
        // SAFETY: as above; the queue is destroyed by `KafkaReports`, before the client is.
        let queue = unsafe { sys::rd_kafka_queue_get_main(client.raw()) };
        let queue = NonNull::new(queue).expect("a client has a main queue");
        let reports = KafkaReports {
            queue,
            _client: client,
            secrets: self.secrets.clone(),
            security: security(&self.config.producer).to_owned(),
            shared: targets.len() > 1,
            messages: Vec::new(),
            batch: Vec::new(),
            probes: Vec::new(),
            troubles: Vec::new(),
        };
        Ok((producers, Box::new(reports)))
    }

    fn consumer(&self, topic: &str, group: &str) -> Result<Box<dyn Consumer>, Failure> {
        let mut settings = self.native.consumer.clone();
        settings.config.set("group.id", group);
        let client = self.client(sys::rd_kafka_type_t::RD_KAFKA_CONSUMER, &settings)?;
        let name = c_string(topic)?;
        // SAFETY: the client is alive; the list lives until it is destroyed here, and subscribing copies it.
        let (set, subscribed) = unsafe {
            let set = sys::rd_kafka_poll_set_consumer(client.raw());
            let list = sys::rd_kafka_topic_partition_list_new(1);
            sys::rd_kafka_topic_partition_list_add(list, name.as_ptr(), PARTITION_UNASSIGNED);
            let subscribed = sys::rd_kafka_subscribe(client.raw(), list);
            sys::rd_kafka_topic_partition_list_destroy(list);
            (set, subscribed)
        };
        for code in [set, subscribed] {
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                let text = format!("cannot subscribe {group} to {topic}: {}", of_code(error_text(code)));
                return Err(Failure::new(FailureKind::Broken, text));
            }
        }
        // SAFETY: the client is alive; the queue is destroyed before it.
        let queue = unsafe { sys::rd_kafka_queue_get_consumer(client.raw()) };
        let queue = NonNull::new(queue).expect("a consumer has a queue");
        Ok(Box::new(KafkaConsumer { queue, client, wake: None, troubles: Vec::new(), failed: false }))
    }

    fn answers(&self, within: Duration) -> bool {
        let within = c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX);
        let mut metadata = std::ptr::null();
        let raw = self.admin.inner().native_ptr();
        // SAFETY: the client is alive; without a topic the request covers only those in use, which are none. The
        // metadata is ours if there is no error, and destroyed here.
        unsafe {
            let code = sys::rd_kafka_metadata(raw, 0, std::ptr::null_mut(), &raw mut metadata, within);
            let answered = code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            if answered {
                sys::rd_kafka_metadata_destroy(metadata);
            }
            answered
        }
    }

    fn throttled(&self) -> Arc<Mutex<Throttled>> {
        Arc::clone(&self.throttled)
    }

    fn in_flight_max(&self, message_bytes: usize) -> usize {
        let setting = |key: &str, default: usize| {
            self.config.producer.get(key).and_then(|value| value.text()?.parse::<usize>().ok()).unwrap_or(default)
        };
        // One message less than the queue takes, for the probe.
        let messages = setting("queue.buffering.max.messages", 100_000).saturating_sub(1);
        let bytes = setting("queue.buffering.max.kbytes", 1 << 20).saturating_mul(1_024);
        // 0 stands for no limit on messages.
        let messages = if messages == 0 { usize::MAX } else { messages };
        messages.min(bytes.min(BUFFER_BYTES_MAX) / message_bytes.max(1)).max(1)
    }
}

/// A raw object of the library and what destroys it.
struct Owned<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: the constructor passes an object of its own and the function that the library has for it.
        unsafe { (self.1)(self.0.as_ptr()) };
    }
}

impl Kafka {
    fn client(&self, kind: sys::rd_kafka_type_t, settings: &Kind) -> Result<Client, Failure> {
        Client::new(kind, settings, &self.secrets, &self.throttled)
    }

    /// By the library's own functions: their wrapper keeps the code of a rejection, but not the broker's message.
    /// With `only_ask` nothing is created.
    fn create_some(
        &self,
        topics: &[TopicSpec],
        within: Duration,
        only_ask: bool,
        cut: &AtomicBool,
    ) -> Result<(), Failure> {
        let raw = self.admin.inner().native_ptr();
        let mut text = [0 as c_char; 512];
        let configuration = |text: &[c_char; 512]| {
            // SAFETY: the library ends its message with a zero byte within the buffer.
            let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
            Failure::new(FailureKind::Configuration, format!("cannot create topics: {text}"))
        };
        let mut new = Vec::with_capacity(topics.len());
        for topic in topics {
            let name = c_string(&topic.name)?;
            let partitions = c_int::try_from(topic.partitions).unwrap_or(c_int::MAX);
            let factor = self.config.replication_factor;
            // SAFETY: `text` is as long as said, and the name is copied.
            let made =
                unsafe { sys::rd_kafka_NewTopic_new(name.as_ptr(), partitions, factor, text.as_mut_ptr(), text.len()) };
            let made = NonNull::new(made).ok_or_else(|| configuration(&text))?;
            let made = Owned(made, sys::rd_kafka_NewTopic_destroy);
            for (key, value) in &self.config.topic {
                let (key, value) = (c_string(key)?, c_string(value.text().unwrap_or_default())?);
                // SAFETY: the topic is alive; both texts are copied.
                unsafe { sys::rd_kafka_NewTopic_set_config(made.0.as_ptr(), key.as_ptr(), value.as_ptr()) };
            }
            new.push(made);
        }
        let millis = c_int::try_from(within.as_millis()).unwrap_or(c_int::MAX);
        let mut list: Vec<_> = new.iter().map(|made| made.0.as_ptr()).collect();
        // SAFETY: the client is alive; the library copies options and topics; the queue and the event live until the
        // end of the function, the event's texts are read before.
        unsafe {
            let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATETOPICS;
            let options = NonNull::new(sys::rd_kafka_AdminOptions_new(raw, operation)).expect("a known operation");
            let options = Owned(options, sys::rd_kafka_AdminOptions_destroy);
            let pointer = options.0.as_ptr();
            sys::rd_kafka_AdminOptions_set_request_timeout(pointer, millis, text.as_mut_ptr(), text.len());
            sys::rd_kafka_AdminOptions_set_operation_timeout(pointer, millis, text.as_mut_ptr(), text.len());
            sys::rd_kafka_AdminOptions_set_validate_only(pointer, only_ask.into(), text.as_mut_ptr(), text.len());
            let queue = NonNull::new(sys::rd_kafka_queue_new(raw)).expect("a client gives queues");
            let queue = Owned(queue, sys::rd_kafka_queue_destroy);
            sys::rd_kafka_CreateTopics(raw, list.as_mut_ptr(), list.len(), pointer, queue.0.as_ptr());
            // The library answers within the time-out it was given; the second more is for a busy machine.
            let event = answer_of(&queue, within + Duration::from_secs(1), cut);
            let Some(event) = event else {
                go_on(cut)?;
                let text = format!("the broker did not create the topics within {} s", within.as_secs());
                return Err(Failure::new(FailureKind::Unreachable, text));
            };
            let event = Owned(event, sys::rd_kafka_event_destroy);
            let event = event.0.as_ptr();
            let code = sys::rd_kafka_event_error(event);
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                let words = CStr::from_ptr(sys::rd_kafka_event_error_string(event)).to_string_lossy();
                return Err(Failure::new(kind_of(code.into()), format!("create topics: {words}")));
            }
            let result = sys::rd_kafka_event_CreateTopics_result(event);
            let mut count = 0;
            let results = sys::rd_kafka_CreateTopics_result_topics(result, &raw mut count);
            for index in 0..count {
                let one = *results.add(index);
                let code = sys::rd_kafka_topic_result_error(one);
                if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                    let name = CStr::from_ptr(sys::rd_kafka_topic_result_name(one)).to_string_lossy();
                    let words = sys::rd_kafka_topic_result_error_string(one);
                    let words =
                        if words.is_null() { error_text(code).into() } else { CStr::from_ptr(words).to_string_lossy() };
                    let words = self.secrets.redact(&words);
                    let text = format!("the broker refuses to create topic {name}: {words}");
                    return Err(Failure::new(kind_of(code.into()), text));
                }
            }
        }
        Ok(())
    }

    /// A created topic may still lack its leaders; a producer that requests them too early would wait for its next
    /// refresh.
    fn wait_for_leaders(
        &self,
        topics: &[TopicSpec],
        deadline: std::time::Instant,
        cut: &AtomicBool,
    ) -> Result<(), Failure> {
        let mut wanted: BTreeMap<&str, u32> =
            topics.iter().map(|topic| (topic.name.as_str(), topic.partitions)).collect();
        while !wanted.is_empty() {
            go_on(cut)?;
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                let name = wanted.keys().next().expect("not empty");
                let text = format!("{} topics have no leader yet, {name} among them", wanted.len());
                return Err(Failure::new(FailureKind::Unreachable, text));
            }
            // One topic is requested by name, since requesting all would fetch the whole cluster's.
            let one = if wanted.len() == 1 { wanted.keys().next().copied() } else { None };
            let fetch = |slice| self.admin.inner().fetch_metadata(one, slice);
            let metadata = in_slices(left.min(REACH_WITHIN), cut, fetch)?
                .map_err(|error| Self::failure("ask for the new topics", &error))?;
            for topic in metadata.topics() {
                let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
                if wanted.get(topic.name()).is_some_and(|partitions| led >= *partitions as usize) {
                    wanted.remove(topic.name());
                }
            }
            if !wanted.is_empty() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        Ok(())
    }
}

/// Repeats a request as long as it is needed, until there is an answer or the time is over; returns the last outcome.
///
/// # Errors
/// If it is not needed any more.
fn in_slices<T, E>(
    within: Duration,
    cut: &AtomicBool,
    mut ask: impl FnMut(Duration) -> Result<T, E>,
) -> Result<Result<T, E>, Failure> {
    let deadline = std::time::Instant::now() + within;
    let mut slice = ASK_ANEW;
    loop {
        let began = std::time::Instant::now();
        let left = deadline.saturating_duration_since(began);
        let asked = ask(left.min(slice));
        go_on(cut)?;
        // What fails before the timeout will fail again.
        if asked.is_ok() || left <= slice || began.elapsed() < slice / 2 {
            return Ok(asked);
        }
        slice *= 2;
    }
}

/// The answer to a request for topics; `None` if there is none in time.
fn answer_of(
    queue: &Owned<sys::rd_kafka_queue_t>,
    within: Duration,
    cut: &AtomicBool,
) -> Option<NonNull<sys::rd_kafka_event_t>> {
    let mut deadline = std::time::Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        let millis = c_int::try_from(left.min(LOOK_EVERY).as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is alive; the event is the caller's.
        let event = NonNull::new(unsafe { sys::rd_kafka_queue_poll(queue.0.as_ptr(), millis) });
        if event.is_some() || left.is_zero() {
            return event;
        }
        if cut.load(Relaxed) {
            deadline = deadline.min(std::time::Instant::now() + CREATED_WITHIN);
        }
    }
}

/// The first topic that was rejected, with the broker's message.
fn first_refused(
    verb: &str,
    results: Result<Vec<TopicResult>, KafkaError>,
    harmless: &[RDKafkaErrorCode],
) -> Result<(), Failure> {
    for result in results.map_err(|error| Kafka::failure(verb, &error))? {
        if let Err((name, code)) = result
            && !harmless.contains(&code)
        {
            return Err(Failure::new(kind_of(code), format!("the broker refuses to {verb} {name}: {code}")));
        }
    }
    Ok(())
}

fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::new(FailureKind::Configuration, format!("{text:?} holds a zero byte")))
}

fn error_text(code: sys::rd_kafka_resp_err_t) -> &'static str {
    // SAFETY: the library returns a constant string for every code.
    unsafe { CStr::from_ptr(sys::rd_kafka_err2str(code)) }.to_str().unwrap_or("unknown error")
}

/// The defaults of a client's topic, and with them its producer's index, by which reports find it.
fn topic_config(client: &Client, place: usize) -> *mut sys::rd_kafka_topic_conf_t {
    // SAFETY: the client is alive; the copy is the caller's. The opaque pointer is a number that is never followed.
    unsafe {
        let config = sys::rd_kafka_default_topic_conf_dup(client.raw());
        sys::rd_kafka_topic_conf_set_opaque(config, std::ptr::without_provenance_mut(place));
        config
    }
}

/// Requests the topic's leaders now, or those of all opened topics: on its own the library does so up to a second after
/// the first message.
fn know_leaders(client: &Client, topic: *mut sys::rd_kafka_topic_t, cut: &AtomicBool) -> Result<(), Failure> {
    let mut metadata = std::ptr::null();
    let asked = in_slices(REACH_WITHIN, cut, |slice| {
        let within = c_int::try_from(slice.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: client and topic are alive; the metadata is ours if there is no error, and destroyed below.
        let code = unsafe { sys::rd_kafka_metadata(client.raw(), 0, topic, &raw mut metadata, within) };
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR { Ok(()) } else { Err(code) }
    })?;
    if let Err(code) = asked {
        let text = format!("a producer cannot learn the leaders of its topic: {}", of_code(error_text(code)));
        return Err(Failure::new(remedy::of(code as i32).kind, text));
    }
    // SAFETY: as above.
    unsafe { sys::rd_kafka_metadata_destroy(metadata) };
    Ok(())
}

fn last_error(verb: &str, what: &str) -> Failure {
    // SAFETY: reads a thread-local number.
    let code = unsafe { sys::rd_kafka_last_error() };
    Failure::new(FailureKind::Broken, format!("cannot {verb} {what}: {}", error_text(code)))
}

/// How librdkafka reports that the broker lacks the API of the newer group protocol: by a debug line and nothing else.
/// It would look for another coordinator for ever.
const NO_HEARTBEAT: &[u8] = b"ConsumerGroupHeartbeatRequest not supported by broker";

/// Whether a consumer takes part in its group by Kafka's newer protocol (KIP-848).
fn is_newer(settings: &Kind) -> bool {
    settings.config.get("group.protocol").is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"))
}

/// Error lines kept between two calls that fetch them.
const TROUBLES_MAX: usize = 32;

unsafe extern "C" fn on_log(
    client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    text: *const c_char,
) {
    // SAFETY: the library passes two C strings that live during the call.
    let (facility, text) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(text)) };
    if !client.is_null() && text.to_bytes().ends_with(NO_HEARTBEAT) {
        // SAFETY: the opaque pointer of each client that logs here is its own flag, which outlives it.
        let heard = unsafe { sys::rd_kafka_opaque(client).cast::<Heard>().as_ref() };
        heard.inspect(|heard| heard.lacking.store(true, Relaxed));
    }
    log_line(level, &facility.to_string_lossy(), &text.to_string_lossy());
}

/// One client of the library; destroyed with its last holder.
struct Client {
    raw: NonNull<sys::rd_kafka_t>,
    /// Buffers it may still read from, even if all other holders have released them: they go after the client, whose
    /// thread may be in the middle of sending.
    lent: Mutex<Vec<Arc<Ring>>>,
    /// The token that it logs in with.
    login: Option<LoggedIn>,
    /// What its callbacks write to. The library holds a pointer to it, so it goes last.
    heard: Box<Heard>,
}

/// What the library reports about a client by callbacks.
struct Heard {
    /// For how long quotas throttle it.
    throttled: Arc<Mutex<Throttled>>,
    /// Whether the broker was found to lack the newer group protocol.
    lacking: AtomicBool,
}

/// A broker announces for how long it will not read from this client.
unsafe extern "C" fn on_throttle(
    _: *mut sys::rd_kafka_t,
    _: *const c_char,
    _: i32,
    millis: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: the library passes what `Client::new` gave it, which lives as long as the client.
    let heard = unsafe { &*opaque.cast_const().cast::<Heard>() };
    let span = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    heard.throttled.lock().unwrap_or_else(PoisonError::into_inner).announce(clock::now(), span);
}

// SAFETY: librdkafka's handles may be used from any thread at the same time.
unsafe impl Send for Client {}
// SAFETY: as above.
unsafe impl Sync for Client {}

impl Client {
    fn new(
        kind: sys::rd_kafka_type_t,
        settings: &Kind,
        secrets: &Secrets,
        throttled: &Arc<Mutex<Throttled>>,
    ) -> Result<Self, Failure> {
        let config = settings.config.create_native_config().map_err(|error| refused_setting(&error, secrets))?;
        let mut text = [0 as c_char; 512];
        let producer = matches!(kind, sys::rd_kafka_type_t::RD_KAFKA_PRODUCER);
        let heard = Box::new(Heard { throttled: Arc::clone(throttled), lacking: AtomicBool::new(false) });
        let listens = !producer && is_newer(settings) && settings.config.get("debug").is_none();
        // SAFETY: `rd_kafka_new` takes the copied configuration over if it succeeds, and only then; `text` is as long
        // as said.
        let raw = unsafe {
            let config = sys::rd_kafka_conf_dup(config.ptr());
            sys::rd_kafka_conf_set_log_cb(config, Some(on_log));
            sys::rd_kafka_conf_set_opaque(config, std::ptr::from_ref(&*heard).cast_mut().cast());
            if listens {
                sys::rd_kafka_conf_set(config, c"debug".as_ptr(), c"cgrp".as_ptr(), text.as_mut_ptr(), text.len());
            }
            if producer {
                sys::rd_kafka_conf_set_events(config, sys::RD_KAFKA_EVENT_DR | sys::RD_KAFKA_EVENT_ERROR);
                // Consumers are read by a call that takes messages and nothing else: this would confuse it.
                sys::rd_kafka_conf_set_throttle_cb(config, Some(on_throttle));
            }
            let raw = sys::rd_kafka_new(kind, config, text.as_mut_ptr(), text.len());
            if raw.is_null() {
                sys::rd_kafka_conf_destroy(config);
            }
            raw
        };
        let Some(raw) = NonNull::new(raw) else {
            // SAFETY: the library ends its message with a zero byte within the buffer.
            let text = unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned();
            let text = format!("the Kafka client refuses its settings: {}", secrets.redact(&text));
            return Err(Failure::new(FailureKind::Configuration, text));
        };
        let mut client = Self { raw, lent: Mutex::default(), login: None, heard };
        client.login = log_in(settings, client.raw())?;
        Ok(client)
    }

    fn raw(&self) -> *mut sys::rd_kafka_t {
        self.raw.as_ptr()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The thread that renews the token must not find a client that is gone.
        self.login = None;
        // SAFETY: there is no other holder any more; every queue, topic and list made from it has been destroyed
        // before.
        unsafe { sys::rd_kafka_destroy(self.raw()) };
    }
}

/// The producers that share a client. It can only give up everything it has.
struct Sharing {
    producers: usize,
    /// Of them, those that request that.
    gave_up: AtomicUsize,
}

struct KafkaProducer {
    topic: NonNull<sys::rd_kafka_topic_t>,
    partition: i32,
    raw: Vec<sys::rd_kafka_message_t>,
    client: Arc<Client>,
    /// The ring that the client is known to hold.
    lent: Option<Arc<Ring>>,
    sharing: Arc<Sharing>,
    /// Whether it has given up what it sent, and sent nothing since.
    gave_up: bool,
}

// SAFETY: the topic's handle may be used from any thread; `raw` is scratch space.
unsafe impl Send for KafkaProducer {}

impl Drop for KafkaProducer {
    fn drop(&mut self) {
        self.purge();
        // SAFETY: made by `rd_kafka_topic_new`, destroyed once.
        unsafe { sys::rd_kafka_topic_destroy(self.topic.as_ptr()) };
    }
}

impl Producer for KafkaProducer {
    fn send(&mut self, batch: &mut Vec<Outgoing>, bytes: usize, ring: &Arc<Ring>) -> Sent {
        if !self.lent.as_ref().is_some_and(|lent| Arc::ptr_eq(lent, ring)) {
            self.client.lent.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(ring));
            self.lent = Some(Arc::clone(ring));
        }
        if self.gave_up {
            self.gave_up = false;
            self.sharing.gave_up.fetch_sub(1, AcqRel);
        }
        self.raw.clear();
        for outgoing in batch.iter_mut() {
            let (key, key_len) =
                outgoing.key.as_mut().map_or((std::ptr::null_mut(), 0), |key| (key.as_mut_ptr(), key.len()));
            self.raw.push(sys::rd_kafka_message_t {
                err: sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
                rkt: std::ptr::null_mut(),
                partition: self.partition,
                payload: outgoing.payload.cast(),
                len: bytes,
                key: key.cast(),
                key_len,
                offset: 0,
                // The ticket's number; the ticket itself goes below, once it is known that the client took it.
                _private: std::ptr::without_provenance_mut(outgoing.ticket.as_opaque()),
            });
        }
        let count = c_int::try_from(self.raw.len()).expect("batches are small");
        // SAFETY: without copy or free flags the payloads are read until their delivery report; they live in `ring`,
        // which the client keeps until it is destroyed. Keys are copied. `raw` holds `count` messages.
        unsafe { sys::rd_kafka_produce_batch(self.topic.as_ptr(), self.partition, 0, self.raw.as_mut_ptr(), count) };
        let mut sent = Sent::default();
        let mut left = Vec::new();
        for (outgoing, raw) in batch.drain(..).zip(&self.raw) {
            match raw.err {
                // The client owns it now: it comes back with its report.
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => drop(outgoing.ticket.into_opaque()),
                sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL => left.push(outgoing),
                code => sent.refused.push((outgoing.ticket, of_code(error_text(code)))),
            }
        }
        sent.full = !left.is_empty();
        *batch = left;
        sent
    }

    fn probe(&mut self, partition: u32, key: Option<&[u8; keys::LEN]>, payload: &[u8]) -> Result<(), Trouble> {
        let (key, key_len) = key.map_or((std::ptr::null(), 0), |key| (key.as_ptr(), key.len()));
        // SAFETY: key and payload are copied before the call returns; the opaque pointer is null, which marks a probe.
        let failed = unsafe {
            sys::rd_kafka_produce(
                self.topic.as_ptr(),
                i32::try_from(partition).unwrap_or(PARTITION_UNASSIGNED),
                sys::RD_KAFKA_MSG_F_COPY,
                payload.as_ptr().cast_mut().cast(),
                payload.len(),
                key.cast(),
                key_len,
                std::ptr::null_mut(),
            )
        };
        // SAFETY: reads a thread-local number.
        if failed == 0 { Ok(()) } else { Err(trouble("", unsafe { sys::rd_kafka_last_error() })) }
    }

    fn hurry(&mut self) {
        // SAFETY: the client is alive. With a time-out of zero it does not wait: it only ends the lingering.
        unsafe { sys::rd_kafka_flush(self.client.raw(), 0) };
    }

    fn purge(&mut self) {
        if !self.gave_up {
            self.gave_up = true;
            self.sharing.gave_up.fetch_add(1, AcqRel);
        }
        if self.sharing.gave_up.load(Acquire) < self.sharing.producers {
            return;
        }
        let flags = sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT;
        // SAFETY: the client is alive.
        unsafe { sys::rd_kafka_purge(self.client.raw(), flags) };
    }
}

struct KafkaReports {
    queue: NonNull<sys::rd_kafka_queue_t>,
    /// Keeps the client alive for as long as its queue is polled.
    _client: Arc<Client>,
    secrets: Secrets,
    /// Whether the topics of the messages identify the producer.
    shared: bool,
    messages: Vec<*const sys::rd_kafka_message_t>,
    batch: Vec<Report>,
    /// Where a probe was stored: the producer's index, the partition.
    probes: Vec<(usize, u32)>,
    troubles: Vec<Trouble>,
    /// Its `security.protocol`, for reports about its connections.
    security: String,
}

// SAFETY: the queue may be polled from any thread; the rest is scratch space.
unsafe impl Send for KafkaReports {}

impl Drop for KafkaReports {
    fn drop(&mut self) {
        // SAFETY: made by `rd_kafka_queue_get_main`, destroyed once, before the client.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) };
    }
}

impl Reports for KafkaReports {
    fn wait(&mut self, timeout: Duration, take: &mut dyn FnMut(omb_machine::time::Instant, &mut Vec<Report>)) {
        let timeout = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is alive; the event is destroyed below, and nothing of it is kept.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), timeout) };
        if event.is_null() {
            return;
        }
        // One reading per batch: reports that come in one answer arrived at one instant.
        let now = clock::now();
        // SAFETY: the event is alive until it is destroyed; the array is as long as was reserved for it.
        unsafe {
            match sys::rd_kafka_event_type(event) {
                sys::RD_KAFKA_EVENT_DR => {
                    let count = sys::rd_kafka_event_message_count(event);
                    self.messages.clear();
                    self.messages.reserve(count);
                    let count = sys::rd_kafka_event_message_array(event, self.messages.as_mut_ptr(), count);
                    self.messages.set_len(count);
                    for message in &self.messages {
                        let message = &**message;
                        let failed = message.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
                        let failed = failed.then(|| error_text(message.err));
                        let producer = if self.shared { sys::rd_kafka_topic_opaque(message.rkt).addr() } else { 0 };
                        if let Some(ticket) = Ticket::from_opaque(message._private.addr()) {
                            self.batch.push(Report { producer, ticket, bytes: message.len as u64, failed });
                        } else if failed.is_some() {
                            self.troubles.push(trouble("a probe was not delivered: ", message.err));
                        } else {
                            self.probes.push((producer, message.partition.cast_unsigned()));
                        }
                    }
                }
                sys::RD_KAFKA_EVENT_ERROR => {
                    let text = sys::rd_kafka_event_error_string(event);
                    if !text.is_null()
                        && let Some(said) = reason::Trouble::parse(&CStr::from_ptr(text).to_string_lossy())
                    {
                        let what =
                            printable(&self.secrets.redact(&said.sentence_with_address(&self.security))).into_owned();
                        let meaning = remedy::of(sys::rd_kafka_event_error(event) as i32);
                        self.troubles.push(Trouble { what, meaning });
                    }
                }
                _ => {}
            }
            sys::rd_kafka_event_destroy(event);
        }
        self.troubles.truncate(TROUBLES_MAX);
        if !self.batch.is_empty() {
            take(now, &mut self.batch);
            self.batch.clear();
        }
    }

    fn probes(&mut self) -> Vec<(usize, u32)> {
        std::mem::take(&mut self.probes)
    }

    fn troubles(&mut self) -> Vec<Trouble> {
        std::mem::take(&mut self.troubles)
    }
}

/// An error of the library, prefixed with what it affected.
fn trouble(what: &str, code: sys::rd_kafka_resp_err_t) -> Trouble {
    Trouble { what: format!("{what}{}", of_code(error_text(code))), meaning: remedy::of(code as i32) }
}

/// Called when messages wait. Behind one more pointer, since the library keeps a thin one.
type Wake = Box<dyn Fn() + Send + Sync>;

struct KafkaConsumer {
    queue: NonNull<sys::rd_kafka_queue_t>,
    client: Client,
    /// What the library calls when messages wait; it goes after that was taken back.
    wake: Option<Box<Wake>>,
    troubles: Vec<Trouble>,
    /// Whether the client has failed for good, and that was reported.
    failed: bool,
}

// SAFETY: the queue may be polled from any thread.
unsafe impl Send for KafkaConsumer {}

impl Drop for KafkaConsumer {
    fn drop(&mut self) {
        // SAFETY: destroyed once, before the client; closing leaves the group and waits for that. Once it was taken
        // back `wake` is not called any more, nor is a call still going on: both are done with the queue locked.
        unsafe {
            if self.wake.is_some() {
                sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, std::ptr::null_mut());
            }
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
            sys::rd_kafka_consumer_close(self.client.raw());
        }
    }
}

/// What the callback below is given.
struct Taking<'a, 'b> {
    take: &'a mut (dyn FnMut(Incoming<'_>) + 'b),
    troubles: &'a mut Vec<Trouble>,
}

unsafe extern "C" fn on_message(message: *mut sys::rd_kafka_message_t, opaque: *mut c_void) {
    // SAFETY: the library passes a message that lives during the call, and the pointer that `poll` gave it.
    let (message, taking) = unsafe { (&*message, &mut *opaque.cast::<Taking<'_, '_>>()) };
    if message.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        if taking.troubles.len() < TROUBLES_MAX {
            let mut trouble = trouble("", message.err);
            if !trouble.meaning.heals && !message.payload.is_null() {
                // Passing errors come often, each time in other words; of those that do not count not all are kept.
                // SAFETY: an error's payload is its text, `len` bytes long.
                let text = unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len) };
                trouble.what = printable(&String::from_utf8_lossy(text)).into_owned();
            }
            taking.troubles.push(trouble);
        }
        return;
    }
    let payload = if message.payload.is_null() {
        &[]
    } else {
        // SAFETY: the message's payload is `len` bytes long and lives during the call.
        unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len) }
    };
    // Only a payload too small for our header needs the record's timestamp.
    let timestamp = if message.len < omb_bench::load::header::LEN { timestamp(message) } else { None };
    let (partition, offset) = (message.partition.cast_unsigned(), message.offset);
    (taking.take)(Incoming { partition, offset, payload, timestamp });
}

unsafe extern "C" fn on_waiting(_: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: the library passes what `wake_by` gave it, which lives until it is taken back.
    let wake = unsafe { &*opaque.cast_const().cast::<Wake>() };
    wake();
}

/// When the producer made the message, by its own clock; `None` if the broker has put its own time there (a topic with
/// `message.timestamp.type=LogAppendTime`): the broker's clock has not been measured.
fn timestamp(message: &sys::rd_kafka_message_t) -> Option<WallTime> {
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is alive, and so is `kind`, to which the kind of timestamp is written.
    let millis = unsafe { sys::rd_kafka_message_timestamp(message, &raw mut kind) };
    let millis =
        u64::try_from(millis).ok().filter(|_| kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_CREATE_TIME);
    millis.map(|millis| WallTime(millis.saturating_mul(1_000_000)))
}

impl Consumer for KafkaConsumer {
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Incoming<'_>)) {
        let timeout = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        let mut taking = Taking { take, troubles: &mut self.troubles };
        // SAFETY: the callback is only called during this call, on this thread, with the pointer to `taking`.
        unsafe {
            sys::rd_kafka_consume_callback_queue(
                self.queue.as_ptr(),
                timeout,
                Some(on_message),
                (&raw mut taking).cast(),
            );
        }
    }

    fn wake_by(&mut self, wake: Wake) {
        assert!(self.wake.is_none(), "a consumer wakes one thread, once and for all");
        let wake: &Wake = self.wake.insert(Box::new(wake));
        let opaque = std::ptr::from_ref(wake).cast_mut().cast();
        // SAFETY: the queue is alive; `wake` stays where it is until it was taken back, when the consumer is dropped.
        unsafe { sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), Some(on_waiting), opaque) };
    }

    fn membership(&self) -> Membership {
        let list = self.assignment();
        // SAFETY: the list is ours, or null. One that is not destroyed would keep the client from ever closing.
        let assigned = unsafe {
            let count = list.as_ref().map_or(0, |list| list.cnt.cast_unsigned());
            if !list.is_null() {
                sys::rd_kafka_topic_partition_list_destroy(list);
            }
            count
        };
        // SAFETY: the client is alive; what it returns is ours, or null.
        let generation = unsafe {
            let known = sys::rd_kafka_consumer_group_metadata(self.client.raw());
            if known.is_null() {
                0
            } else {
                let generation = sys::rd_kafka_consumer_group_metadata_generation_id(known);
                sys::rd_kafka_consumer_group_metadata_destroy(known);
                generation.max(0)
            }
        };
        Membership { generation, assigned }
    }

    fn set_paused(&mut self, paused: bool) {
        let raw = self.client.raw();
        let list = self.assignment();
        if list.is_null() {
            return;
        }
        // SAFETY: the client is alive; the list is ours and destroyed here.
        unsafe {
            if paused {
                sys::rd_kafka_pause_partitions(raw, list);
            } else {
                sys::rd_kafka_resume_partitions(raw, list);
            }
            sys::rd_kafka_topic_partition_list_destroy(list);
        }
    }

    fn commit(&mut self) {
        // SAFETY: the client is alive; without a list what has been handed over is committed, without waiting.
        unsafe { sys::rd_kafka_commit(self.client.raw(), std::ptr::null(), 1) };
    }

    fn troubles(&mut self) -> Vec<Trouble> {
        if !self.failed
            && let Some(failure) = self.failure()
        {
            self.failed = true;
            self.troubles.push(failure);
        }
        std::mem::take(&mut self.troubles)
    }
}

impl KafkaConsumer {
    /// Why the client has failed for good, if it has: such an error arrives in no queue.
    fn failure(&self) -> Option<Trouble> {
        if self.client.heard.lacking.load(Relaxed) {
            let what = "the broker does not offer ConsumerGroupHeartbeat, which group.protocol=consumer needs";
            let meaning = Meaning { kind: FailureKind::Refused, heals: false };
            return Some(Trouble { what: what.to_owned(), meaning });
        }
        let mut text = [0 as c_char; 512];
        // SAFETY: the client is alive; `text` is as long as said, and ends with a zero byte.
        let (code, words) = unsafe {
            let code = sys::rd_kafka_fatal_error(self.client.raw(), text.as_mut_ptr(), text.len());
            (code, CStr::from_ptr(text.as_ptr()).to_string_lossy())
        };
        if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let kind = remedy::of(code as i32).kind;
        Some(Trouble { what: printable(&words).into_owned(), meaning: Meaning { kind, heals: false } })
    }

    /// Its assignment, as a list that the caller must destroy; null if there is none.
    fn assignment(&self) -> *mut sys::rd_kafka_topic_partition_list_t {
        let mut list = std::ptr::null_mut();
        // SAFETY: the client is alive; a list is written to `list` or not.
        unsafe { sys::rd_kafka_assignment(self.client.raw(), &raw mut list) };
        list
    }
}
