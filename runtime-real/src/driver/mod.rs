//! What a messaging system must offer to be measured. Works in batches and callbacks: no future, task or allocation per
//! message.

pub mod kafka;
mod login;
mod settings;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use omb_bench::{
    load::{keys, throttle::Throttled},
    plan::leftovers::Inventory,
    protocol::{
        Failure, FailureKind,
        command::{Check, TopicSpec},
        remedy::Meaning,
    },
};
use omb_machine::time::{Instant, WallTime};

use crate::load::ring::{Ring, Ticket};

/// A messaging system, connected to. Its calls may block, but never beyond their bound, and not for long once the `cut`
/// that some of them take is raised: then their result is no longer needed.
pub trait Driver: Send + Sync {
    /// What it reports of itself: kind, brokers, client library.
    fn system(&self) -> &str;

    /// Finds out, without changing anything, everything about the messaging system that would prevent the run. Ends
    /// early once `cut` is raised.
    fn check(&self, check: &Check, cut: &AtomicBool) -> Vec<Failure>;

    /// Creates topics; all exist when it returns.
    ///
    /// # Errors
    /// The broker's own error for the first topic that could not be created.
    fn create_topics(&self, topics: &[TopicSpec], within: Duration, cut: &AtomicBool) -> Result<(), Failure>;

    /// Deletes topics; one that does not exist counts as deleted.
    ///
    /// # Errors
    /// The broker's own error.
    fn delete_topics(&self, names: &[String], within: Duration) -> Result<(), Failure>;

    /// Deletes consumer groups; one that does not exist counts as deleted. One with members is retried for a while,
    /// since other workers' consumers leave at the same time.
    ///
    /// # Errors
    /// The broker's own error, or that members remain.
    fn delete_groups(&self, names: &[String], within: Duration) -> Result<(), Failure>;

    /// The topics and groups of our own runs that exist; others are left out.
    ///
    /// # Errors
    /// The broker's own error, or that it took longer than `within`.
    fn inventory(&self, within: Duration) -> Result<Inventory, Failure>;

    /// Producers that share one client, which has its own connections, buffers and stream of delivery reports: one
    /// producer for each of these topics, which differ. A single producer has the client to itself.
    ///
    /// # Errors
    /// If the client cannot be made from its settings.
    ///
    /// # Panics
    /// If two topics have the same name: reports could not be distinguished.
    fn producers(&self, topics: &[Target<'_>], cut: &AtomicBool) -> Result<ProducerHalves, Failure>;

    /// A member of the group `group`, subscribed to one topic.
    ///
    /// # Errors
    /// If the client cannot be made from its settings.
    fn consumer(&self, topic: &str, group: &str) -> Result<Box<dyn Consumer>, Failure>;

    /// Whether a broker answers within this time.
    fn answers(&self, within: Duration) -> bool;
    /// For how long a quota has throttled clients made here, as it is counted.
    fn throttled(&self) -> Arc<Mutex<Throttled>>;

    /// Messages that the producers of one client may have in flight, given their size: the client's own queue limits.
    fn in_flight_max(&self, message_bytes: usize) -> usize;
}

/// Fails if the result is no longer needed.
///
/// # Errors
/// If the run is being cleaned up.
pub(crate) fn go_on(cut: &AtomicBool) -> Result<(), Failure> {
    if cut.load(Relaxed) { Err(Failure::new(FailureKind::Broken, "the run was ended meanwhile")) } else { Ok(()) }
}

/// The sending halves of the producers of one client, in the order of the topics, and the reporting half of them all:
/// each is used by one thread.
pub type ProducerHalves = (Vec<Box<dyn Producer>>, Box<dyn Reports>);

/// A topic to send to.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Its name on the broker.
    pub topic: &'a str,
    /// Its partitions.
    pub partitions: u32,
}

/// A message to be handed to the client.
#[derive(Debug)]
pub struct Outgoing {
    /// Owner of the buffer until the delivery report.
    pub ticket: Ticket,
    /// Its address.
    pub payload: *mut u8,
    /// The key, if it has one.
    pub key: Option<[u8; keys::LEN]>,
}

/// What happened to a batch.
#[derive(Debug, Default)]
pub struct Sent {
    /// Messages that the client rejected outright, with its error: they will never have a delivery report.
    pub refused: Vec<(Ticket, String)>,
    /// Whether the client's queue is full; what is left in the batch must be sent again, later.
    pub full: bool,
}

/// The sending half of a producer; used by one thread.
pub trait Producer: Send {
    /// Hands a batch to the client, in order. What it accepted is removed from `batch`, the rest stays, in order. Their
    /// buffers are `bytes` long and stay valid because `ring` does.
    fn send(&mut self, batch: &mut Vec<Outgoing>, bytes: usize, ring: &Arc<Ring>) -> Sent;

    /// Sends a message to this partition by copy. It has no report: that it was stored shows in [`Reports::probes`].
    ///
    /// # Errors
    /// The client's error, if it does not accept it.
    fn probe(&mut self, partition: u32, key: Option<&[u8; keys::LEN]>, payload: &[u8]) -> Result<(), Trouble>;

    /// Flushes: sends what waits for its batch to fill. (Those of the other producers of the client, too.)
    fn hurry(&mut self);

    /// Gives up everything in flight: each message still gets its (failed) report. On a shared client nothing is given
    /// up before all its producers request that, by this call or by being dropped: none loses messages through another.
    fn purge(&mut self);
}

/// A delivery report.
#[derive(Debug)]
pub struct Report {
    /// Which producer's message it was: its index among those of the client.
    pub producer: usize,
    /// The buffer, which is ours again.
    pub ticket: Ticket,
    /// Payload bytes.
    pub bytes: u64,
    /// What went wrong, as the client words it, if the message was not confirmed.
    pub failed: Option<&'static str>,
}

/// The reporting half of the producers of one client; used by a thread of its own, which blocks here.
pub trait Reports: Send {
    /// Waits up to `timeout` for reports and hands them over in one batch, with the instant at which they arrived.
    fn wait(&mut self, timeout: Duration, take: &mut dyn FnMut(Instant, &mut Vec<Report>));

    /// Where probes were stored since the last call: the producer's index among those of the client, and the partition.
    fn probes(&mut self) -> Vec<(usize, u32)>;

    /// What went wrong with the client itself since the last call (connections lost, brokers down), or with a probe.
    fn troubles(&mut self) -> Vec<Trouble>;
}

/// Something that went wrong at a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In its own wording.
    pub what: String,
    /// Whether it may pass without intervention, and what kind of failure it is if not.
    pub meaning: Meaning,
}

/// A message handed over by the client.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Its partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: i64,
    /// Its payload.
    pub payload: &'a [u8],
    /// The broker's or the sender's timestamp, in whole milliseconds.
    pub timestamp: Option<WallTime>,
}

/// A member of a group; used by one thread.
pub trait Consumer: Send {
    /// Waits up to `timeout` for messages and hands over all available, one by one.
    fn poll(&mut self, timeout: Duration, take: &mut dyn FnMut(Incoming<'_>));

    /// Has `wake` called, on a thread of the client's, whenever messages wait to be polled where none did before. It
    /// must return at once, and must not call the consumer.
    fn wake_by(&mut self, wake: Box<dyn Fn() + Send + Sync>);

    /// Its view of its group.
    fn membership(&self) -> Membership;

    /// Stops or resumes fetching, without leaving the group. To be called again whenever partitions are assigned.
    fn set_paused(&mut self, paused: bool);

    /// Commits its position to the broker.
    fn commit(&mut self);

    /// What went wrong since the last call.
    fn troubles(&mut self) -> Vec<Trouble>;
}

/// A consumer's part in its group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The generation that it belongs to; 0 if it has not joined. (With Kafka's newer protocol its member epoch, which
    /// serves the same purpose: all members reach the same one when partitions have been shared out.)
    pub generation: i32,
    /// Partitions assigned to it.
    pub assigned: u32,
}
