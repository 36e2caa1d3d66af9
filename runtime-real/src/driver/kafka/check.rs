//! What can be found out about a cluster before anything is created on it.
//!
//! A client made for this alone requests each broker's own settings, at the address that the broker advertises: an
//! answer, even a rejection, proves that name, network, TLS and login work between this process and that broker.
//! librdkafka reports which requests a broker serves only in the lines of `debug=feature`; these are read here.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{CStr, c_int, c_void},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use omb_bench::{
    config::{batch_bytes, driver::KafkaConfig},
    protocol::{Failure, FailureKind, command::Check},
};
use omb_kafka::reason::{Trouble, api_key, of_broker};
use rdkafka_sys as sys;

use super::{Client, Kafka, Owned, REACH_WITHIN, c_string, error_text, on_log};

/// Brokers that are queried; of a cluster that claims more, the rest is not checked.
const BROKERS_MAX: usize = 1_000;
/// How long a broker whose connection fails is tried again: names and networks may need a moment.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// How long one poll for answers waits.
const LOOK: c_int = 20;

/// One broker, as the cluster reports it.
struct Broker {
    address: String,
    answered: bool,
    trouble: Option<Trouble>,
    since: Option<Instant>,
    /// Largest batch it takes, if it reports that.
    batch_max: Option<u64>,
}

/// Queries every broker, also whether it serves what `config` needs. Returns what prevents a run.
pub(super) fn brokers(kafka: &Kafka, check: &Check, cut: &AtomicBool) -> Vec<Failure> {
    match Asking::new(kafka) {
        Ok(mut asking) => {
            let redacted = |failure: Failure| Failure::new(failure.kind, kafka.secrets.redact(&failure.message));
            asking.run(kafka, check, cut).into_iter().map(redacted).collect()
        }
        Err(failure) => vec![failure],
    }
}

struct Asking {
    /// Goes before the client does: fields drop in order.
    main: Owned<sys::rd_kafka_queue_t>,
    client: Arc<Client>,
    brokers: BTreeMap<i32, Broker>,
    /// Kinds of request that are served, by the address of the broker that reports them.
    served: BTreeMap<String, BTreeSet<i16>>,
}

impl Asking {
    fn new(kafka: &Kafka) -> Result<Self, Failure> {
        let mut settings = kafka.native.admin.clone();
        settings.config.set("debug", "feature").set("log.queue", "true");
        let client = Arc::new(kafka.client(sys::rd_kafka_type_t::RD_KAFKA_PRODUCER, &settings)?);
        // SAFETY: the client is alive, and outlives the queue, which is dropped first.
        let main = unsafe {
            sys::rd_kafka_set_log_queue(client.raw(), std::ptr::null_mut());
            NonNull::new(sys::rd_kafka_queue_get_main(client.raw())).expect("a client has a main queue")
        };
        let main = Owned(main, sys::rd_kafka_queue_destroy);
        Ok(Self { main, client, brokers: BTreeMap::new(), served: BTreeMap::new() })
    }

    fn run(&mut self, kafka: &Kafka, check: &Check, cut: &AtomicBool) -> Vec<Failure> {
        let (config, security) = (&kafka.config, super::security(&kafka.config.common));
        if let Err(failure) = self.learn_brokers(kafka) {
            return vec![failure];
        }
        let answers = match self.ask() {
            Ok(answers) => answers,
            Err(failure) => return vec![failure],
        };
        let until = Instant::now() + REACH_WITHIN;
        while self.waits() && Instant::now() < until && !cut.load(Relaxed) {
            self.listen();
            self.take_answer(&answers);
        }
        // Reports about a connection arrive a little after it.
        self.listen();
        let mut failures: Vec<Failure> = self.unreachable(security).collect();
        failures.extend(self.unserved(config, check));
        failures.extend(self.too_small(config, check));
        failures
    }

    /// Some broker has neither answered nor failed for long enough.
    fn waits(&self) -> bool {
        let lost = |broker: &Broker| broker.since.is_some_and(|since| since.elapsed() >= TRY_AGAIN);
        self.brokers.values().any(|broker| !broker.answered && !lost(broker))
    }

    fn learn_brokers(&mut self, kafka: &Kafka) -> Result<(), Failure> {
        let mut metadata = std::ptr::null();
        let within = c_int::try_from(REACH_WITHIN.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the client is alive; the metadata is ours if there is no error, holds as many brokers as it says, and
        // is destroyed after its texts have been copied.
        unsafe {
            let none = std::ptr::null_mut();
            let code = sys::rd_kafka_metadata(self.client.raw(), 0, none, &raw mut metadata, within);
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                let why = super::unanswered(self.troubles(), error_text(code));
                return Err(super::no_answer(&kafka.config, &kafka.secrets, &why));
            }
            let all = std::slice::from_raw_parts((*metadata).brokers, (*metadata).broker_cnt.unsigned_abs() as usize);
            for broker in all.iter().take(BROKERS_MAX) {
                let host = CStr::from_ptr(broker.host).to_string_lossy();
                let address = format!("{host}:{}", broker.port);
                let broker_here = Broker { address, answered: false, trouble: None, since: None, batch_max: None };
                self.brokers.insert(broker.id, broker_here);
            }
            sys::rd_kafka_metadata_destroy(metadata);
        }
        Ok(())
    }

    /// Requests each broker's its own settings; the answers arrive in the queue.
    fn ask(&self) -> Result<Owned<sys::rd_kafka_queue_t>, Failure> {
        let raw = self.client.raw();
        let mut text = [0; 512];
        let millis = c_int::try_from(REACH_WITHIN.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the client is alive; the library copies options and resources, which are destroyed here.
        let queue = unsafe { NonNull::new(sys::rd_kafka_queue_new(raw)).expect("a client gives queues") };
        let queue = Owned(queue, sys::rd_kafka_queue_destroy);
        for id in self.brokers.keys() {
            let name = c_string(&id.to_string())?;
            // SAFETY: as above; the opaque pointer is a number that is never followed.
            unsafe {
                let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS;
                let options = NonNull::new(sys::rd_kafka_AdminOptions_new(raw, operation)).expect("a known operation");
                let options = Owned(options, sys::rd_kafka_AdminOptions_destroy);
                let pointer = options.0.as_ptr();
                sys::rd_kafka_AdminOptions_set_request_timeout(pointer, millis, text.as_mut_ptr(), text.len());
                let mark: *mut c_void = std::ptr::without_provenance_mut(id.cast_unsigned() as usize);
                sys::rd_kafka_AdminOptions_set_opaque(pointer, mark);
                let kind = sys::rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_BROKER;
                let resource = sys::rd_kafka_ConfigResource_new(kind, name.as_ptr());
                let Some(resource) = NonNull::new(resource) else { continue };
                let resource = Owned(resource, sys::rd_kafka_ConfigResource_destroy);
                let mut list = [resource.0.as_ptr()];
                sys::rd_kafka_DescribeConfigs(raw, list.as_mut_ptr(), list.len(), pointer, queue.0.as_ptr());
            }
        }
        Ok(queue)
    }

    /// Takes a broker's answer, if one arrives now.
    fn take_answer(&mut self, answers: &Owned<sys::rd_kafka_queue_t>) {
        // SAFETY: the queue is alive; the event is destroyed at the end, and its texts are copied before.
        unsafe {
            let Some(event) = NonNull::new(sys::rd_kafka_queue_poll(answers.0.as_ptr(), LOOK)) else { return };
            let event = Owned(event, sys::rd_kafka_event_destroy);
            let event = event.0.as_ptr();
            let id = u32::try_from(sys::rd_kafka_event_opaque(event).addr()).unwrap_or(u32::MAX).cast_signed();
            let Some(broker) = self.brokers.get_mut(&id) else { return };
            use sys::rd_kafka_resp_err_t as Code;
            match sys::rd_kafka_event_error(event) {
                // It was reached, and answered something: that it does not serve this, for example.
                Code::RD_KAFKA_RESP_ERR__TIMED_OUT
                | Code::RD_KAFKA_RESP_ERR__TRANSPORT
                | Code::RD_KAFKA_RESP_ERR__DESTROY
                | Code::RD_KAFKA_RESP_ERR__UNKNOWN_BROKER => return,
                _ => broker.answered = true,
            }
            let result = sys::rd_kafka_event_DescribeConfigs_result(event);
            if result.is_null() {
                return;
            }
            let mut count = 0;
            let resources = sys::rd_kafka_DescribeConfigs_result_resources(result, &raw mut count);
            for index in 0..count {
                let mut entries = 0;
                let list = sys::rd_kafka_ConfigResource_configs(*resources.add(index), &raw mut entries);
                for entry in 0..entries {
                    let entry = *list.add(entry);
                    let value = sys::rd_kafka_ConfigEntry_value(entry);
                    if CStr::from_ptr(sys::rd_kafka_ConfigEntry_name(entry)) == c"message.max.bytes" && !value.is_null()
                    {
                        broker.batch_max = CStr::from_ptr(value).to_str().ok().and_then(|value| value.parse().ok());
                    }
                }
            }
        }
    }

    /// Reads what the library reports about its connections.
    fn listen(&mut self) {
        for trouble in self.troubles() {
            let by_id = trouble.broker.filter(|id| self.brokers.contains_key(id));
            let by_address = || self.brokers.iter().find(|(_, it)| it.address == trouble.address).map(|(id, _)| *id);
            let Some(id) = by_id.or_else(by_address) else { continue };
            let broker = self.brokers.get_mut(&id).expect("it was just found");
            broker.since.get_or_insert_with(Instant::now);
            broker.trouble = Some(trouble);
        }
    }

    /// What went wrong since the last call; notes what the brokers claim to serve.
    fn troubles(&mut self) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        // SAFETY: the queue is alive, each event is destroyed here, and texts are copied before that.
        unsafe {
            while let Some(event) = NonNull::new(sys::rd_kafka_queue_poll(self.main.0.as_ptr(), 0)) {
                let event = Owned(event, sys::rd_kafka_event_destroy);
                let event = event.0.as_ptr();
                let line = match sys::rd_kafka_event_type(event) {
                    sys::RD_KAFKA_EVENT_LOG => {
                        let (mut facility, mut text, mut level) = (std::ptr::null(), std::ptr::null(), 0);
                        if sys::rd_kafka_event_log(event, &raw mut facility, &raw mut text, &raw mut level) != 0 {
                            continue;
                        }
                        on_log(std::ptr::null(), level, facility, text);
                        let line = CStr::from_ptr(text).to_string_lossy().into_owned();
                        if CStr::from_ptr(facility) == c"APIVERSION" {
                            self.note_served(&line);
                        }
                        // Errors and worse, as syslog counts them.
                        if level > 3 {
                            continue;
                        }
                        line
                    }
                    sys::RD_KAFKA_EVENT_ERROR => {
                        let text = sys::rd_kafka_event_error_string(event);
                        if text.is_null() {
                            continue;
                        }
                        CStr::from_ptr(text).to_string_lossy().into_owned()
                    }
                    _ => continue,
                };
                troubles.extend(Trouble::parse(&line));
            }
        }
        troubles
    }

    fn note_served(&mut self, line: &str) {
        if let Some(Trouble { address, said, .. }) = Trouble::parse(line)
            && let Some(key) = api_key(&said)
            // A malicious broker could name new ones for ever.
            && (self.served.len() < BROKERS_MAX || self.served.contains_key(&address))
        {
            self.served.entry(address).or_default().insert(key);
        }
    }

    fn unreachable(&self, security: &str) -> impl Iterator<Item = Failure> {
        self.brokers.iter().filter(|(_, broker)| !broker.answered).map(move |(id, broker)| {
            let refused = broker.trouble.as_ref().is_some_and(Trouble::is_refusal);
            let kind = if refused { FailureKind::Refused } else { FailureKind::Unreachable };
            Failure::new(kind, of_broker(*id, &broker.address, broker.trouble.as_ref(), security))
        })
    }

    /// Requests that the driver file needs and some broker does not serve.
    fn unserved(&self, config: &KafkaConfig, check: &Check) -> Vec<Failure> {
        let needed = config.apis(check.producers > 0, check.consumers > 0);
        let lacking =
            |key| self.served.iter().filter(move |(_, served)| !served.contains(&key)).map(|(address, _)| address);
        let failures = needed.into_iter().filter_map(|api| {
            let address = lacking(api.key).next()?;
            let text = format!("the broker at {address} does not offer {}, which {} needs", api.name, api.because);
            Some(Failure::new(FailureKind::Refused, text))
        });
        failures.collect()
    }

    /// Whether the messages are larger than what the brokers take.
    fn too_small(&self, config: &KafkaConfig, check: &Check) -> Option<Failure> {
        let needed = batch_bytes(check.message_bytes);
        let by_broker = self.brokers.iter().filter_map(|(id, broker)| Some((broker.batch_max?, *id))).min();
        let (most, of) = match (config.topic_batch_max(), by_broker) {
            (Some(most), _) => (most, "max.message.bytes in topicConfig".to_owned()),
            (None, Some((most, id))) => (most, format!("message.max.bytes of broker {id}")),
            (None, None) => return None,
        };
        let self_set = config.topic_batch_max().is_some();
        (check.producers > 0 && needed > most && !config.compresses()).then(|| {
            let instead = if self_set { "" } else { ", or set max.message.bytes in topicConfig" };
            let text =
                format!("messageSize: one message is a batch of {needed} bytes, but {of} is {most}: raise it{instead}");
            Failure::new(FailureKind::Refused, text)
        })
    }
}

#[cfg(test)]
mod tests {
    use omb_kafka::reason::CODES;

    use super::*;

    /// A code that is spelt differently here than there would never be found.
    #[test]
    fn every_word_that_is_explained_is_one_of_the_librarys() {
        let (mut descriptions, mut count) = (std::ptr::null(), 0);
        // SAFETY: the library hands out a table of its own, as long as it says, of constant texts.
        let known: BTreeSet<String> = unsafe {
            sys::rd_kafka_get_err_descs(&raw mut descriptions, &raw mut count);
            let all = std::slice::from_raw_parts(descriptions, count);
            let with_text = all.iter().filter(|it| !it.desc.is_null());
            with_text.map(|it| CStr::from_ptr(it.desc).to_string_lossy().into_owned()).collect()
        };
        assert!(known.len() > 100, "{} codes", known.len());
        for (words, _) in CODES {
            assert!(known.contains(*words), "librdkafka has no code called {words:?}");
        }
        let timed_out = error_text(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__MSG_TIMED_OUT);
        assert!(CODES.iter().any(|(words, _)| *words == timed_out), "{timed_out}");
    }
}
