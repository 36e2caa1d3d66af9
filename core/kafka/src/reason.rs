//! Messages of the client library and the broker, in sentences for people.
//!
//! librdkafka's messages describe its own internals ("Purged in queue", "Invalid response size 1213486160"); the reader
//! of a report or a log wants to know what happened and what to do. The original is kept in parentheses, so that it can
//! be searched for. Everything from it that reaches people passes through here: [`Trouble`] for connections,
//! [`of_code`] for messages and requests.

use std::time::Duration;

use omb_machine::printable::printable_within;

/// Most characters that are shown of the library's own text.
const SAID_MAX: usize = 200;

/// A line of librdkafka about one of its connections, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The broker's number, if it is known; a bootstrap address has none yet.
    pub broker: Option<i32>,
    /// `host:port` as the broker or the file names it; empty if the line names none.
    pub address: String,
    /// What happened, in the library's words, without its next step.
    pub said: String,
    /// How long the connection had been in the state in which it happened, if the line says so.
    pub after: Option<Duration>,
}

/// Reported for an address that accepts connections and leaves a request unanswered.
pub const SILENT: &str = "no answer to ApiVersionRequest";

/// How a report begins for an address that requires a login; the mechanisms that it offers follow.
pub const WANTS_SASL: &str = "SASL is wanted, by one of ";

/// A peer that has not answered the first request for this long is silent, whichever side closed the connection then.
/// The library gives up after 10 s.
const SILENT_AFTER: Duration = Duration::from_secs(5);

impl Trouble {
    /// Parses `[thrd:sasl_ssl://host:9092/1]: sasl_ssl://host:9092/1: What happened (after 3ms in state CONNECT)`; the
    /// parts in front may be missing. `None` for what adds nothing, such as that all brokers are down.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")).map_or(line, |(_, rest)| rest);
        if line.trim_end().ends_with("brokers are down") {
            return None;
        }
        // The last such mark: the text before it may contain parentheses of its own.
        let (line, after) = match line.rfind(" (after ") {
            Some(at) => {
                let span = line[at..].trim_start_matches(" (after ").split_once("ms").map(|(ms, _)| ms.parse());
                (&line[..at], span.and_then(Result::ok).map(Duration::from_millis))
            }
            None => (line, None),
        };
        let named = |first: &str| {
            let (address, id) = first.rsplit_once('/')?;
            let address = address.rsplit_once("://").map_or(address, |(_, address)| address);
            let known = id == "bootstrap" || id.parse::<i32>().is_ok();
            (known && !address.contains(' ')).then(|| (address.to_owned(), id.parse().ok()))
        };
        let (first, rest) = line.split_once(": ").unwrap_or(("", line));
        let (address, broker, said) = match named(first) {
            Some((address, broker)) => (address, broker, rest),
            None => (String::new(), None, line),
        };
        // A broker whose name has just changed is named a second time.
        let said = said.strip_prefix(&format!("{address}: ")).unwrap_or(said);
        Some(Self { broker, address, said: said.to_owned(), after })
    }

    /// Whether the broker was reached and rejected us: asking again changes nothing.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        self.wants_sasl()
            || self.said.contains("uthenticat")
                && !self.said.contains("requesting ApiVersion")
                && !self.said.contains("might require SASL")
                && !self.said.contains("SSL authentication might be")
            || self.said.contains("SASL") && self.said.contains("not supported")
    }

    /// Whether the broker has reported by itself that it requires a login.
    #[must_use]
    pub fn wants_sasl(&self) -> bool {
        self.said.starts_with(WANTS_SASL)
    }

    /// Whether the address accepts connections and leaves the first request unanswered.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        let asked = self.said.contains("requesting ApiVersion") || self.said.contains("ApiVersionRequest");
        self.said == SILENT || asked && self.after.is_some_and(|after| after >= SILENT_AFTER)
    }

    /// Whether waiting will not help: something other than a Kafka broker of this `security.protocol` answers, or one
    /// that rejects us. A broker that starts, moves or is overloaded closes connections, too, but does not answer
    /// nonsense.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        let lasting = ["requesting ApiVersion", "Invalid response size", "Invalid frame size", "SSL handshake failed"];
        self.is_refusal() || !self.is_silent() && lasting.iter().any(|text| self.said.contains(text))
    }

    /// The same with the address in front, if there is one.
    #[must_use]
    pub fn sentence_with_address(&self, security: &str) -> String {
        let (address, sentence) = (printable_within(&self.address, SAID_MAX), self.sentence(security));
        if address.is_empty() || sentence.starts_with(&address) { sentence } else { format!("{address}: {sentence}") }
    }

    /// What it means, for a client whose `security.protocol` is as given (empty: plaintext). Without the broker's name.
    #[must_use]
    pub fn sentence(&self, security: &str) -> String {
        let security = if security.is_empty() { "plaintext" } else { security };
        let said = printable_within(&self.said, SAID_MAX);
        let has = |text: &str| self.said.contains(text);
        if let Some(cause) = self.said.strip_prefix("Failed to resolve '") {
            let (address, cause) = cause.split_once("': ").unwrap_or((&self.address, cause));
            return format!(
                "{} cannot be looked up ({})",
                printable_within(address, SAID_MAX),
                printable_within(cause, SAID_MAX)
            );
        }
        if let Some(mechanisms) = self.said.strip_prefix(WANTS_SASL) {
            return format!(
                "this port wants SASL, and security.protocol is {security}; the mechanisms it offers: {}",
                printable_within(mechanisms, SAID_MAX)
            );
        }
        if has("Too many open files") {
            return format!("too many open files: the system gives this process no further connection ({said})");
        }
        let size =
            ["Invalid response size ", "Invalid frame size "].iter().find_map(|it| Some(self.said.split_once(it)?.1));
        if let Some(size) = size {
            let digits = size.find(|c: char| !c.is_ascii_digit() && c != '-').map_or(size, |end| &size[..end]);
            let size = digits.parse::<i32>().ok();
            return match size.map(i32::to_be_bytes) {
                Some(bytes) => format!("{} ({said})", first_bytes(bytes, security)),
                None => said,
            };
        }
        if has("Connection refused") {
            return format!("nothing listens there: connection refused ({said})");
        }
        if has("setup timed out") || has("Connection timed out") || has("No route to host") || has("unreachable") {
            return format!("no connection can be made; is it the right address, and is no firewall between? ({said})");
        }
        if self.is_silent() {
            return format!(
                "connections are accepted there, and nothing answers: is it a Kafka broker, and does it run? ({said})"
            );
        }
        let tls = security == "ssl" || security == "sasl_ssl";
        let closed = has("isconnected") || has("hung up") || has("closed by peer") || has("reset by peer");
        if has("SSL handshake failed") || has("ssl") && has("wrong version number") {
            return handshake(&said, security, closed);
        }
        if has("might require SASL authentication") {
            return format!(
                "the broker closed the connection: security.protocol is {security}; does this port want SASL? ({said})"
            );
        }
        if has("requesting ApiVersion") && closed && !tls {
            return format!(
                "the broker closed the connection: security.protocol is {security}; does this port want {}? ({said})",
                if security == "plaintext" { "SSL or SASL" } else { "SSL" }
            );
        }
        if closed {
            return format!("the broker closed the connection ({said})");
        }
        said
    }
}

/// Why broker `id`, which advertises `address`, cannot be reached: the last error of its connection, or that there was
/// none and no answer either.
#[must_use]
pub fn of_broker(id: i32, address: &str, trouble: Option<&Trouble>, security: &str) -> String {
    let address = printable_within(address, SAID_MAX);
    match trouble {
        None => format!("broker {id} calls itself {address}, where nobody answers in time"),
        Some(trouble) => {
            let sentence = trouble.sentence(security);
            match sentence.strip_prefix(&format!("{address} ")) {
                Some(rest) => format!("broker {id} calls itself {address}, which {rest}"),
                None => format!("broker {id} calls itself {address}: {sentence}"),
            }
        }
    }
}

/// The number of the request kind that a line of librdkafka's `debug=feature` says the broker serves.
#[must_use]
pub fn api_key(said: &str) -> Option<i16> {
    let rest = said.trim_start().strip_prefix("ApiKey ")?;
    let (_, rest) = rest.split_once('(')?;
    rest.split_once(") Versions ")?.0.parse().ok()
}

/// What the first four bytes of an answer mean, which librdkafka takes for its length.
fn first_bytes(bytes: [u8; 4], security: &str) -> String {
    match &bytes {
        b"HTTP" => "what answers there speaks HTTP, not Kafka".to_owned(),
        b"SSH-" => "what answers there speaks SSH, not Kafka".to_owned(),
        // An alert of TLS 1.x: the port did not understand input that is not TLS.
        [0x15, 0x03, ..] => format!("TLS is spoken there: security.protocol is {security}; does this port want SSL?"),
        text if text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') => {
            format!("what answers there is no Kafka broker: it begins with {:?}", String::from_utf8_lossy(text))
        }
        _ => "what answers there is no Kafka broker, or its answer is larger than receive.message.max.bytes".to_owned(),
    }
}

/// Why the TLS handshake failed.
fn handshake(said: &str, security: &str, closed: bool) -> String {
    let has = |text: &str| said.contains(text);
    if has("certificate verify failed") || has("certificate could not be verified") || has("0A000086") {
        return format!(
            "the broker's certificate is not trusted: name the authority that signed it as ssl.ca.location, or \
             ssl.truststore.location of a PEM file ({said})"
        );
    }
    if closed || ["wrong version number", "packet length too long", "PLAINTEXT", "0A00010B"].iter().any(|it| has(it)) {
        return format!("no TLS is spoken there: security.protocol is {security}; is this a plaintext port? ({said})");
    }
    if has("certificate required") || has("client SSL authentication might be") {
        return format!("the broker wants a certificate of the client: ssl.keystore.* name one ({said})");
    }
    format!("no TLS could be agreed on ({said})")
}

/// librdkafka's texts for error codes that a person would not understand, and their meanings.
pub const CODES: &[(&str, &str)] = &[
    ("Local: Message timed out", "not acknowledged within delivery.timeout.ms"),
    ("Local: Purged in queue", "not sent by the end of the run, so the client gave it up"),
    (
        "Local: Purged in flight",
        "sent and not acknowledged by the end of the run, so the client gave it up; the broker may have stored it",
    ),
    ("Local: Queue full", "the client had no room for it"),
    ("Broker: Message size too large", "larger than the client's max.request.size or the broker's message.max.bytes"),
    ("Broker: Not enough in-sync replicas", "fewer replicas are in sync than min.insync.replicas asks for"),
    (
        "Broker: Message(s) written to insufficient number of in-sync replicas",
        "stored, but by fewer replicas than min.insync.replicas asks for",
    ),
    ("Local: Broker transport failure", "the connection to the broker broke"),
    ("Local: All broker connections are down", "no broker can be reached"),
    ("Local: Host resolution failure", "the broker's name cannot be looked up"),
    ("Local: Unknown partition", "the broker does not know so many partitions of the topic"),
    ("Local: Unknown topic", "the broker does not know the topic"),
    ("Broker: Unknown topic or partition", "the broker does not know the topic, or not so many partitions of it"),
    ("Local: Timed out", "no answer in time"),
    ("Local: Timed out in queue", "not even sent in time"),
    ("Broker: Request timed out", "the broker could not have it done by all replicas in time"),
    ("Broker: Leader not available", "the partition has no leader at the moment"),
    ("Broker: Not leader for partition", "the partition's leader has moved"),
    ("Broker: Policy violation", "a policy of the broker forbids it"),
    ("Broker: Topic authorization failed", "the broker does not allow us to use the topic"),
    ("Broker: Group authorization failed", "the broker does not allow us to use the group"),
    ("Broker: Cluster authorization failed", "the broker does not allow us to do this"),
    ("Local: Authentication failure", "the broker does not accept who we say we are"),
    ("Local: Required feature not supported by broker", "the broker does not offer what the client's settings need"),
    (
        "Local: Maximum application poll interval (max.poll.interval.ms) exceeded",
        "the consumer was not read from within max.poll.interval.ms, and left its group",
    ),
];

/// The meaning of one of librdkafka's error codes, given its text: why a message was not delivered, for example. The
/// text is kept in parentheses; one that needs no explanation stays alone.
#[must_use]
pub fn of_code(said: &str) -> String {
    match CODES.iter().find(|(words, _)| *words == said) {
        Some((_, meaning)) => format!("{meaning} ({said})"),
        None => printable_within(said, SAID_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn says(line: &str, security: &str, begins: &str) {
        let sentence = Trouble::parse(line).expect("it says something").sentence(security);
        assert!(sentence.starts_with(begins), "{sentence}");
    }

    #[test]
    fn a_line_is_taken_apart() {
        let line = "[thrd:sasl_ssl://kafka-0.internal.invalid:9092/1]: sasl_ssl://kafka-0.internal.invalid:9092/1: Failed \
                    to resolve 'kafka-0.internal.invalid:9092': Name or service not known (after 5ms in state CONNECT, 3 \
                    identical error(s) suppressed)";
        let trouble = Trouble::parse(line).expect("it says something");
        assert_eq!((trouble.broker, trouble.address.as_str()), (Some(1), "kafka-0.internal.invalid:9092"));
        assert_eq!(
            trouble.sentence("sasl_ssl"),
            "kafka-0.internal.invalid:9092 cannot be looked up (Name or service not known)"
        );
        let bootstrap = Trouble::parse("localhost:9093/bootstrap: Disconnected (after 1ms in state X)").expect("some");
        assert_eq!((bootstrap.broker, bootstrap.address.as_str()), (None, "localhost:9093"));
        assert_eq!(bootstrap.said, "Disconnected");
        assert_eq!(Trouble::parse("[thrd:main]: 2/2 brokers are down"), None);
        let bare = Trouble::parse("SASL authentication error: no").expect("it says something");
        assert_eq!(
            (bare.broker, bare.address.as_str(), bare.said.as_str()),
            (None, "", "SASL authentication error: no")
        );
    }

    #[test]
    fn a_port_that_wants_something_else_is_named() {
        let closed = "localhost:9093/bootstrap: Disconnected: connection closed by peer: receive 0 after POLLIN: requesting \
                      ApiVersion: might be caused by incorrect security.protocol configuration (connecting to a SSL \
                      listener?) or broker version is < 0.10 (see api.version.request) (after 1ms in state \
                      APIVERSION_QUERY)";
        says(
            closed,
            "",
            "the broker closed the connection: security.protocol is plaintext; does this port want SSL or SASL? (",
        );
        says(
            closed,
            "sasl_plaintext",
            "the broker closed the connection: security.protocol is sasl_plaintext; does this port want SSL? (",
        );
        // The library's own timeout is not a reply of the broker.
        let silent = closed.replace("after 1ms", "after 5000ms");
        says(
            &silent,
            "",
            "connections are accepted there, and nothing answers: is it a Kafka broker, and does it run? (",
        );
        assert!(!Trouble::parse(&silent).expect("some").is_lasting(), "it may be held up");
        assert!(Trouble::parse(&closed.replace("after 1ms", "after 4999ms")).expect("some").is_lasting());
        let sasl = "localhost:9094/1: Disconnected: verify that security.protocol is correctly configured, broker might \
                    require SASL authentication (after 12ms in state UP)";
        says(
            sasl,
            "plaintext",
            "the broker closed the connection: security.protocol is plaintext; does this port want SASL? (",
        );
        says(
            &format!("localhost:9094/bootstrap: {WANTS_SASL}PLAIN, SCRAM-SHA-512\u{1b}[31m"),
            "",
            "this port wants SASL, and security.protocol is plaintext; the mechanisms it offers: PLAIN, SCRAM-SHA-512\\u{1b}[31m",
        );
        let alert = format!("a:1/bootstrap: Invalid response size {}: increase", i32::from_be_bytes([0x15, 3, 3, 0]));
        says(&alert, "", "TLS is spoken there: security.protocol is plaintext; does this port want SSL? (");
        let plain =
            "ssl://a:1/bootstrap: SSL handshake failed: error:0A00010B:SSL routines::wrong version number (after 1ms)";
        says(plain, "ssl", "no TLS is spoken there: security.protocol is ssl; is this a plaintext port? (");
        let untrusted = "ssl://a:1/bootstrap: SSL handshake failed: error:0A000086:SSL routines::certificate verify failed: \
                         broker certificate could not be verified (after 1ms in state SSL_HANDSHAKE)";
        says(untrusted, "ssl", "the broker's certificate is not trusted: ");
    }

    #[test]
    fn who_speaks_something_else_is_named() {
        let line = |size: [u8; 4]| {
            let size = i32::from_be_bytes(size);
            format!(
                "a:8080/bootstrap: Receive failed: Invalid response size {size} (0..100000000): increase \
                 receive.message.max.bytes"
            )
        };
        assert!(line(*b"HTTP").contains("1213486160"), "the number that puzzles people");
        says(
            &line(*b"HTTP"),
            "",
            "what answers there speaks HTTP, not Kafka (Receive failed: Invalid response size 1213486160",
        );
        says(&line(*b"SSH-"), "", "what answers there speaks SSH, not Kafka (");
        says(&line(*b"220 "), "", "what answers there is no Kafka broker: it begins with \"220 \" (");
        says(&line([0x7f, 0, 0, 1]), "", "what answers there is no Kafka broker, or its answer is larger than ");
    }

    #[test]
    fn what_the_system_says_is_named() {
        says(
            "a:1/bootstrap: Connect to ipv4#127.0.0.1:1 failed: Connection refused (after 0ms)",
            "",
            "nothing listens there: connection refused (",
        );
        says("a:1/2: Connection setup timed out in state CONNECT (after 30000ms)", "", "no connection can be made; ");
        says("a:1/2: Failed to create socket: Too many open files", "", "too many open files: ");
        says("a:1/2: Receive failed: Connection reset by peer", "", "the broker closed the connection (Receive failed");
    }

    #[test]
    fn a_broker_that_cannot_be_reached_is_named_with_its_address() {
        let trouble = Trouble::parse("k.invalid:9092/1: Failed to resolve 'k.invalid:9092': Name or service not known");
        assert_eq!(
            of_broker(1, "k.invalid:9092", trouble.as_ref(), ""),
            "broker 1 calls itself k.invalid:9092, which cannot be looked up (Name or service not known)"
        );
        let trouble = Trouble::parse("10.0.0.1:9/2: Connect to ipv4#10.0.0.1:9 failed: Connection refused (after 0ms)");
        assert_eq!(
            of_broker(2, "10.0.0.1:9", trouble.as_ref(), ""),
            "broker 2 calls itself 10.0.0.1:9: nothing listens there: connection refused (Connect to ipv4#10.0.0.1:9 \
             failed: Connection refused)"
        );
        assert_eq!(of_broker(3, "a:1", None, ""), "broker 3 calls itself a:1, where nobody answers in time");
    }

    #[test]
    fn the_requests_that_a_broker_serves_are_read() {
        assert_eq!(api_key("  ApiKey ConsumerGroupHeartbeat (68) Versions 0..1"), Some(68));
        assert_eq!(api_key("Feature MsgVer1: Produce (2..2) supported by broker"), None);
        assert_eq!(api_key("Broker API support:"), None);
    }

    #[test]
    fn who_was_turned_away_need_not_ask_again() {
        let refused = |said: &str| Trouble::parse(&format!("a:1/bootstrap: {said}")).expect("some").is_refusal();
        assert!(refused("SASL authentication error: Authentication failed: Invalid username or password"));
        assert!(refused(&format!("{WANTS_SASL}PLAIN")));
        assert!(!refused("Disconnected: verify that .. broker might require SASL authentication"));
        assert!(!refused("Connect to ipv4#127.0.0.1:1 failed: Connection refused"));
        let lasting = |said: &str| Trouble::parse(&format!("a:1/bootstrap: {said}")).expect("some").is_lasting();
        assert!(lasting("Invalid response size 1213486160 (0..100000000): increase receive.message.max.bytes"));
        assert!(lasting("Disconnected: requesting ApiVersion: might be caused by"));
        assert!(lasting("SASL authentication error: Authentication failed: Invalid username or password"));
        assert!(!lasting("Connect to ipv4#127.0.0.1:1 failed: Connection refused"));
        assert!(!lasting("Failed to resolve 'a:1': Temporary failure in name resolution"));
    }

    #[test]
    fn what_became_of_a_message_is_a_sentence() {
        assert_eq!(
            of_code("Local: Purged in queue"),
            "not sent by the end of the run, so the client gave it up (Local: Purged in queue)"
        );
        assert_eq!(of_code("Broker: Something new"), "Broker: Something new");
        assert_eq!(of_code("two\nlines\u{1b}[31m"), "two\\nlines\\u{1b}[31m");
    }
}
