//! What can be wrong with a file.

use super::Place;

/// What is wrong with a file or one of its keys. Each message names keys as the file spells them.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    /// A control character: this is not a text file.
    #[error("found the control character U+{0:04X}; this is not a text file")]
    NotText(u32),
    /// The parser's own words.
    #[error("neither valid YAML nor JSON: {0}")]
    Syntax(String),
    /// Nothing but blanks and comments.
    #[error("the file is empty; allowed: {0}")]
    Empty(&'static str),
    /// A list, a number or a text where keys should be.
    #[error("found {found}; allowed: {allowed}")]
    NotKeys {
        /// What the file holds.
        found: String,
        /// What it should hold.
        allowed: &'static str,
    },
    /// A second document (`---`).
    #[error("a second document begins here; allowed: one per file")]
    SeveralDocuments,
    /// A reference to another place of the file (`*name`).
    #[error("references to anchors (`*name`) are not supported; write the value out")]
    Alias,
    /// A YAML tag (`!name`) beyond the common ones.
    #[error("the tag `{0}` is not supported; write the value without it")]
    Tag(String),
    /// Deeper than any file of ours.
    #[error("nested more than {0} levels deep")]
    TooDeep(usize),
    /// A list or mapping as a key.
    #[error("found {0} as a key; allowed: a name")]
    KeyNotName(&'static str),
    /// The same key twice in one mapping.
    #[error("given twice; the first is in line {}", .first.line)]
    Duplicate {
        /// The first of the two.
        first: Place,
    },
    /// An unknown key.
    #[error("no such key; {}", hint(.suggestion.as_deref(), .allowed))]
    UnknownKey {
        /// The nearest known key.
        suggestion: Option<String>,
        /// All known keys.
        allowed: String,
    },
    /// A key that must be there.
    #[error("missing; {0}")]
    Missing(&'static str),
    /// A value of another type, out of range, lossy, or a text that is not allowed.
    #[error("found {found}; allowed: {allowed}{}", question(.suggestion.as_deref()))]
    NotAllowed {
        /// The value.
        found: String,
        /// What is allowed there.
        allowed: String,
        /// The nearest allowed text.
        suggestion: Option<String>,
    },

    /// Without producers there is no rate above zero.
    #[error("producersPerTopic is 0, but producerRate asks for {rate} msg/s")]
    NoProducers {
        /// `producerRate`.
        rate: String,
    },
    /// A rate search needs producers.
    #[error("producersPerTopic is 0, but producerRate: 0 asks to search the highest rate")]
    NoProducersToSearch,
    /// Consumers belong to subscriptions.
    #[error("consumerPerSubscription is {consumers}, but subscriptionsPerTopic is 0: no subscription to consume from")]
    NoSubscriptions {
        /// `consumerPerSubscription`.
        consumers: u32,
    },
    /// A subscription without consumers.
    #[error("subscriptionsPerTopic is {subscriptions}, but consumerPerSubscription is 0: nobody would consume")]
    NoConsumers {
        /// `subscriptionsPerTopic`.
        subscriptions: u32,
    },
    /// A backlog builds up at a known rate only.
    #[error("consumerBacklogSizeGB asks for a backlog, but producerRate is 0 (search); a backlog needs a fixed rate")]
    BacklogWithoutRate,
    /// A backlog builds up at one rate only.
    #[error("consumerBacklogSizeGB asks for a backlog, and producerRateList for changing rates; give one of them")]
    BacklogWithList,
    /// A list of rates that cannot be followed.
    #[error("{0}")]
    RateList(&'static str),
    /// A key that is a part of the load, and that is not implemented.
    #[error(
        "a key of {0} that is a part of the load, and that omb does not implement: without it another load would be \
         measured than this file describes; remove it to measure the rest"
    )]
    OtherLoad(&'static str),
    /// A backlog is what consumers have not read yet.
    #[error(
        "consumerBacklogSizeGB asks for a backlog, but nobody consumes: \
         give subscriptionsPerTopic and consumerPerSubscription"
    )]
    BacklogWithoutConsumers,
    /// Two sources of payloads.
    #[error("payloadFile and useRandomizedPayloads: true exclude each other; give one of them")]
    TwoPayloads,
    /// A pool without payloads.
    #[error("useRandomizedPayloads is true, but randomizedPayloadPoolSize is {0}; allowed: 1 or more")]
    EmptyPool(&'static str),
    /// A pool that takes too much memory on every worker.
    #[error(
        "randomizedPayloadPoolSize {pool} x messageSize {size} is {} MiB of memory on every worker; allowed: up to 1024",
        *.pool * *.size / (1 << 20)
    )]
    PoolTooLarge {
        /// `randomizedPayloadPoolSize`.
        pool: u64,
        /// `messageSize`.
        size: u64,
    },
    /// One duration under two keys.
    #[error("given together with {0}; give one of them")]
    TwoDurations(&'static str),
    /// Upstream would run for ever.
    #[error("0 means a test without end to upstream, but every run ends here; allowed: a duration above zero")]
    Endless,
    /// More clients or partitions than can be counted.
    #[error("{what} is {product}; allowed: up to {}", u32::MAX)]
    TooMany {
        /// The product, in the file's key names.
        what: &'static str,
        /// Its value.
        product: u128,
    },

    /// A driver that upstream or a fork has and this version lacks.
    #[error("{class} ({system}) is known, but this version drives only Kafka and the embedded broker{hint}")]
    OtherSystem {
        /// The driver class as given.
        class: String,
        /// The messaging system.
        system: &'static str,
        /// What to do instead, if there is something.
        hint: &'static str,
    },
    /// A property that neither Kafka's Java client nor librdkafka knows.
    #[error("no client property of this name, neither Java's nor librdkafka's{}", question(.suggestion.as_deref()))]
    UnknownProperty {
        /// The nearest name.
        suggestion: Option<String>,
    },
    /// A property that cannot be supported; the text says why and what to do.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// A placeholder `${NAME}` whose variable is not set.
    #[error(
        "no environment variable {0} is set; `${{{0}}}` is filled in from the environment of the process that reads this file \
         (`$${{` stands for `${{` itself)"
    )]
    Unset(String),
    /// `${` that begins no placeholder. The text is not shown, since it may be a password.
    #[error(
        "`${{` begins a placeholder `${{NAME}}`, filled in from the environment; write `$${{` for these characters themselves"
    )]
    Placeholder,
    /// Two properties that contradict each other; the client library would refuse them.
    #[error("{0}")]
    Contradiction(String),
    /// Malformed properties text.
    #[error("{0}")]
    Properties(String),
}

/// "did you mean", or else the allowed ones.
fn hint(suggestion: Option<&str>, allowed: &str) -> String {
    match suggestion {
        Some(suggestion) => format!("did you mean `{suggestion}`?"),
        None => format!("allowed: {allowed}"),
    }
}

fn question(suggestion: Option<&str>) -> String {
    suggestion.map_or_else(String::new, |suggestion| format!("; did you mean `{suggestion}`?"))
}
