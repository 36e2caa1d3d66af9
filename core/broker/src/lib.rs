//! The embedded messaging system's decisions: topics, logs, groups, and what to keep.
//!
//! ```text
//!   Opened ┐                ┌─ topics ── partitions ── log, producers' sequences, readers' positions
//!  Request ├──▶  Broker  ───┤
//!   Closed ┘       │        └─ groups ── members, generations, committed offsets
//!                  ▼
//!                Reply       at once, or later: a fetch waits for records, a join for its
//!                            group, and a produce for room
//! ```
//!
//! One broker, one replica, everything in memory. It behaves as the Kafka protocol promises, but uses none of its
//! encodings: the real runtime adds them in front, the simulation sends [`Request`] and [`Response`] as they are.
//! Record batches are opaque [`Bytes`](bytes::Bytes); nothing here costs per record.
//!
//! **When it is full** (see [`retention`]), produce requests wait, in order of arrival, until readers have moved on. A
//! waiting request is answered after it is appended; at its timeout it is rejected with [`ErrorCode::RequestTimedOut`],
//! which makes clients retry.

mod fetch;
mod groups;
pub mod idempotence;
pub mod log;
mod message;
pub mod retention;
mod topics;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use self::message::*;
pub use self::topics::Dropped;
use self::{
    fetch::{WaitingFetch, WaitingFetches, Wanted},
    groups::{Groups, Replies},
    idempotence::Verdict,
    log::Log,
    topics::{PartitionKey, Position, Topics},
};
use omb_machine::{Machine, Wake, time::Instant};

/// A client's connection. The runtime numbers them; no number is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConnId(pub u64);

/// Identifies a reply on its connection; the client's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Token(pub u64);

/// The broker's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Bytes it may store, with [`log::BATCH_OVERHEAD`] for every batch. Waiting produce requests come on top.
    pub capacity: u64,
    /// Bytes that may stay stored although every reader has read them; beyond that, read batches are dropped before the
    /// capacity is reached. Default: the capacity, so that none are.
    pub read_kept: u64,
    /// How long a group that had no members waits for more of them before its first generation. Default zero: then the
    /// first member begins at once, and each further one causes a rebalance.
    pub group_initial_delay: Duration,
    /// Whether a metadata request may create the topics it names, with this many partitions. Default `None`: a
    /// benchmark that mistypes a topic should get an error.
    pub auto_create: Option<i32>,
    /// Topic and member ids are drawn from it. Two brokers that succeed each other at one address should differ, or a
    /// client could mistake one for the other.
    pub seed: u64,
}

impl Config {
    /// The defaults, with this capacity and seed.
    #[must_use]
    pub fn new(capacity: u64, seed: u64) -> Self {
        Self { capacity, read_kept: capacity, group_initial_delay: Duration::ZERO, auto_create: None, seed }
    }
}

/// What can happen to the broker.
#[expect(clippy::large_enum_variant, reason = "it is handed in and taken apart, never kept")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A client has connected.
    Opened(ConnId),
    /// A request of a client. Requests on connections that are not open are ignored.
    Request {
        /// Its connection.
        conn: ConnId,
        /// Returned with the reply.
        token: Token,
        /// The request.
        request: Request,
    },
    /// A connection is gone. Its waiting requests are dropped, except a produce without acknowledgement.
    Closed(ConnId),
}

/// What the broker wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this. Replies come in the order in which they are ready: a caller that must keep the order of the requests
    /// (as Kafka does) passes the requests of one connection one at a time.
    Reply {
        /// The connection.
        conn: ConnId,
        /// The request's token.
        token: Token,
        /// The reply.
        response: Response,
    },
}

/// The client that waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) conn: ConnId,
    pub(crate) token: Token,
}

#[derive(Debug, Default)]
struct Connection {
    /// Partitions that have a position of this connection.
    reads: BTreeSet<PartitionKey>,
    /// Deadline of its latest fetch.
    fetched: Option<Instant>,
}

#[derive(Debug)]
struct WaitingProduce {
    caller: Caller,
    acks: Acks,
    partitions: Vec<ProducePartition>,
    need: u64,
    /// `None`: without bound.
    deadline: Option<Instant>,
}

/// The broker.
///
/// ```
/// use std::{collections::BTreeMap, time::Duration};
///
/// use bytes::Bytes;
/// use omb_broker::*;
/// use omb_machine::{Machine, time::Instant};
///
/// let mut broker = Broker::new(Config::new(1 << 20, 7));
/// let conn = ConnId(1);
/// broker.handle_input(Instant::ZERO, Input::Opened(conn));
/// let mut ask = |request| {
///     broker.handle_input(Instant::ZERO, Input::Request { conn, token: Token(0), request });
///     broker.poll_output().map(|Output::Reply { response, .. }| response)
/// };
///
/// let topic = NewTopic { name: "t".into(), partitions: 1, replication_factor: 1, configs: BTreeMap::new() };
/// ask(Request::CreateTopics { topics: vec![topic], validate_only: false });
///
/// let batch = NewBatch { records: 3, max_timestamp_ms: 0, producer: None, bytes: Bytes::from_static(b"opaque") };
/// let partitions = vec![ProducePartition { topic: "t".into(), partition: 0, batch }];
/// let produce = Request::Produce { acks: Acks::Stored, timeout: Duration::from_secs(1), partitions };
/// let Some(Response::Produce(produced)) = ask(produce) else { panic!("there is room") };
/// assert_eq!(produced[0].result, Ok(Appended { base_offset: 0, log_start: 0 }));
///
/// let fetch = |offset| Request::Fetch {
///     max_wait: Duration::from_millis(500),
///     min_bytes: 1,
///     max_bytes: 1 << 20,
///     partitions: vec![FetchPartition { topic: "t".into(), partition: 0, offset, max_bytes: 1 << 20 }],
/// };
/// let Some(Response::Fetch(fetched)) = ask(fetch(0)) else { panic!("there are records") };
/// assert_eq!(fetched[0].result.as_ref().expect("no error")[0].end_offset(), 3);
///
/// // At the end of the log there is nothing to answer with: the fetch waits.
/// assert_eq!(ask(fetch(3)), None);
/// let wake = broker.poll_timeout().expect("its deadline");
/// assert_eq!(wake.at, Instant::ZERO + Duration::from_millis(500));
/// ```
#[derive(Debug)]
pub struct Broker {
    config: Config,
    topics: Topics,
    groups: Groups,
    connections: BTreeMap<ConnId, Connection>,
    fetches: WaitingFetches,
    produces: VecDeque<WaitingProduce>,
    /// When to look again whether the waiting produces fit.
    recheck: Option<Instant>,
    /// When, and from how many stored bytes on, read batches are next looked for.
    trim: (Instant, u64),
    stored: u64,
    appended: u64,
    dropped: Dropped,
    producers: i64,
    outputs: VecDeque<Output>,
}

impl Machine for Broker {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Opened(conn) => {
                self.connections.insert(conn, Connection::default());
            }
            Input::Request { conn, token, request } => {
                if self.connections.contains_key(&conn) {
                    self.handle_request(now, Caller { conn, token }, request);
                }
            }
            Input::Closed(conn) => self.handle_closed(now, conn),
        }
        self.admit(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        for waiting in self.fetches.expired(&mut self.topics, now) {
            self.answer_fetch(&waiting);
        }
        let mut replies = Replies::new();
        self.groups.expire(now, &mut replies);
        self.reply_all(replies);
        let (late, waiting): (VecDeque<_>, _) = std::mem::take(&mut self.produces)
            .into_iter()
            .partition(|waiting| waiting.deadline.is_some_and(|deadline| deadline <= now));
        self.produces = waiting;
        for WaitingProduce { caller, partitions, .. } in late {
            self.refuse_produce(caller, partitions, ErrorCode::RequestTimedOut);
        }
        self.admit(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Wake> {
        let fetch = self.fetches.deadline().map(|at| Wake { at, why: "fetch has waited long enough" });
        let produce = self.produces.iter().filter_map(|waiting| waiting.deadline).min();
        let produce = produce.map(|at| Wake { at, why: "produce has waited long enough" });
        let recheck = self.recheck.map(|at| Wake { at, why: "room for waiting produces" });
        Wake::earlier(Wake::earlier(fetch, self.groups.wake()), Wake::earlier(produce, recheck))
    }
}

impl Broker {
    /// An empty broker.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let groups = Groups::new(config.seed, config.group_initial_delay);
        let trim = (Instant::ZERO, config.read_kept);
        Self {
            config,
            topics: Topics::default(),
            groups,
            connections: BTreeMap::new(),
            fetches: WaitingFetches::default(),
            produces: VecDeque::new(),
            recheck: None,
            trim,
            stored: 0,
            appended: 0,
            dropped: Dropped::default(),
            producers: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Bytes stored, with [`log::BATCH_OVERHEAD`] for every batch.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.stored
    }

    /// What was dropped to make room, over all partitions, deleted ones included.
    #[must_use]
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// What was dropped from one partition.
    #[must_use]
    pub fn dropped_from(&self, topic: &str, partition: u32) -> Option<Dropped> {
        self.partition(topic, partition).map(|partition| partition.dropped)
    }

    /// The topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = TopicInfo> {
        self.topics.infos()
    }

    /// The log of a partition: its offsets and the batches stored.
    #[must_use]
    pub fn log(&self, topic: &str, partition: u32) -> Option<&Log> {
        self.partition(topic, partition).map(|partition| &partition.log)
    }

    /// Records stored now, over all partitions.
    #[must_use]
    pub fn stored_records(&self) -> u64 {
        let records = |log: &Log| (log.end() - log.start()) as u64;
        self.topics.iter().flat_map(|(_, topic)| &topic.partitions).map(|partition| records(&partition.log)).sum()
    }

    /// The lowest live position of a partition: from here on everything is unread. `None` if it has no reader.
    #[must_use]
    pub fn unread_from(&self, now: Instant, topic: &str, partition: u32) -> Option<i64> {
        let key = self.topics.key(&TopicRef::from(topic), i32::try_from(partition).ok()?).ok()?;
        self.floors(now).get(&key).copied()
    }

    /// A group, seen from outside.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<GroupInfo> {
        self.groups.info(name)
    }

    /// All groups, by name.
    pub fn groups(&self) -> impl Iterator<Item = GroupInfo> {
        self.groups.infos()
    }

    /// What a group has committed in a partition.
    #[must_use]
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<Committed> {
        self.groups.offsets(group, Some(vec![(topic.to_owned(), partition)])).pop()?.2
    }

    /// How many produce requests wait for room.
    #[must_use]
    pub fn produces_waiting(&self) -> usize {
        self.produces.len()
    }

    /// How many fetches wait for records.
    #[must_use]
    pub fn fetches_waiting(&self) -> usize {
        self.fetches.len()
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    fn partition(&self, topic: &str, partition: u32) -> Option<&topics::Partition> {
        self.topics.named(topic)?.partitions.get(partition as usize)
    }

    fn handle_request(&mut self, now: Instant, caller: Caller, request: Request) {
        let mut replies = Replies::new();
        let response = match request {
            Request::Produce { acks, timeout, partitions } => {
                return self.handle_produce(now, caller, acks, timeout, partitions);
            }
            Request::Fetch { max_wait, min_bytes, max_bytes, partitions } => {
                let wanted =
                    Wanted { min_bytes: u64::from(min_bytes.max(1)), max_bytes: u64::from(max_bytes), partitions };
                return self.handle_fetch(now, caller, max_wait, wanted);
            }
            Request::JoinGroup(join) => {
                self.groups.join(now, caller, join, &mut replies);
                return self.reply_all(replies);
            }
            Request::SyncGroup(sync) => {
                self.groups.sync(now, caller, sync, &mut replies);
                return self.reply_all(replies);
            }
            Request::LeaveGroup { group, members } => {
                let left = self.groups.leave(now, &group, members, &mut replies);
                self.reply_all(replies);
                Response::LeaveGroup(left)
            }
            Request::Heartbeat { group, member } => Response::Heartbeat(self.groups.heartbeat(now, &group, &member)),
            Request::CommitOffsets { group, committer, offsets } => {
                Response::CommitOffsets(self.commit(now, &group, &committer, offsets))
            }
            Request::FetchOffsets { group, partitions } => {
                Response::FetchOffsets(self.groups.offsets(&group, partitions))
            }
            Request::DeleteOffsets { group, partitions } => {
                Response::DeleteOffsets(self.groups.delete_offsets(&group, partitions))
            }
            Request::ListGroups => Response::ListGroups(self.groups.infos().collect()),
            Request::DescribeGroups { groups } => {
                Response::DescribeGroups(each(groups, |name| self.groups.info(name).ok_or(ErrorCode::GroupIdNotFound)))
            }
            Request::DeleteGroups { groups } => Response::DeleteGroups(each(groups, |name| self.groups.delete(name))),
            Request::Metadata { topics, create_missing } => Response::Metadata(self.metadata(topics, create_missing)),
            Request::CreateTopics { topics, validate_only } => {
                let seed = self.config.seed;
                let create = |new: NewTopic| (new.name.clone(), self.topics.create(new, validate_only, seed));
                Response::CreateTopics(topics.into_iter().map(create).collect())
            }
            Request::DeleteTopics { topics } => {
                let deleted = topics.into_iter().map(|topic| {
                    let result = self.delete_topic(&topic);
                    (topic, result)
                });
                Response::DeleteTopics(deleted.collect())
            }
            Request::CreatePartitions { topics, validate_only } => {
                let grow = |(name, total): (String, i32)| {
                    let result = self.topics.grow(&name, total, validate_only);
                    (name, result)
                };
                Response::CreatePartitions(topics.into_iter().map(grow).collect())
            }
            Request::DescribeConfigs { topics } => {
                Response::DescribeConfigs(each(topics, |name| self.topics.configs(name)))
            }
            Request::ListOffsets { partitions } => Response::ListOffsets(self.list_offsets(partitions)),
            Request::InitProducerId { current } => Response::InitProducerId(Ok(self.init_producer(current))),
        };
        self.reply(caller, response);
    }

    fn handle_closed(&mut self, now: Instant, conn: ConnId) {
        let Some(connection) = self.connections.remove(&conn) else { return };
        for key in connection.reads {
            if let Some(partition) = self.topics.partition_mut(key) {
                partition.readers.remove(&conn);
            }
        }
        self.fetches.remove_if(&mut self.topics, |waiting| waiting.caller.conn == conn);
        // Requests that wait for an acknowledgement are dropped; a producer that asked for none counts on delivery.
        self.produces.retain(|waiting| waiting.caller.conn != conn || waiting.acks == Acks::None);
        self.groups.closed(now, conn);
    }

    fn handle_produce(
        &mut self,
        now: Instant,
        caller: Caller,
        acks: Acks,
        timeout: Duration,
        partitions: Vec<ProducePartition>,
    ) {
        let need: u64 = partitions.iter().map(|it| log::cost(&it.batch)).sum();
        if need > self.config.capacity {
            return self.refuse_produce(caller, partitions, ErrorCode::MessageTooLarge);
        }
        let deadline = (acks != Acks::None).then(|| now + timeout);
        // Last in the queue: requests are appended in order of arrival. `admit` follows every input.
        self.produces.push_back(WaitingProduce { caller, acks, partitions, need, deadline });
    }

    /// Appends waiting requests, in order, as far as there is room.
    fn admit(&mut self, now: Instant) {
        while let Some(first) = self.produces.front() {
            let need = first.need;
            if self.stored + need > self.config.capacity && !self.make_room(now, need) {
                self.recheck = Some(now + retention::RECHECK);
                return;
            }
            let WaitingProduce { caller, partitions, .. } = self.produces.pop_front().expect("it was just seen");
            let produced = partitions.into_iter().map(|it| self.produce(it)).collect();
            self.reply(caller, Response::Produce(produced));
        }
        self.recheck = None;
        self.trim(now);
    }

    /// Drops batches that every reader has read, beyond what is to be kept of them.
    fn trim(&mut self, now: Instant) {
        let (at, above) = self.trim;
        if self.stored <= above || now < at {
            return;
        }
        let kept = self.config.read_kept;
        let floors = self.floors(now);
        let dropped = retention::drop_read(&mut self.topics, &floors, &mut self.stored, kept);
        self.count_dropped(dropped);
        // Unread batches stay; they are not examined again for every batch.
        self.trim = (now + retention::TRIM_PAUSE, self.stored.max(kept) + kept / 4);
    }

    fn count_dropped(&mut self, dropped: Dropped) {
        self.dropped.batches += dropped.batches;
        self.dropped.records += dropped.records;
        self.dropped.bytes += dropped.bytes;
    }

    fn produce(&mut self, ProducePartition { topic, partition, batch }: ProducePartition) -> Produced {
        let result = self.topics.key(&topic, partition).and_then(|key| self.append(key, batch));
        Produced { topic, partition, result }
    }

    fn append(&mut self, key: PartitionKey, batch: NewBatch) -> Result<Appended, ErrorCode> {
        let partition = self.topics.partition_mut(key).expect("the key is of a partition that exists");
        if batch.records == 0 {
            return Err(ErrorCode::CorruptMessage);
        }
        let records = batch.records;
        let log_start = partition.log.start();
        if let Some(stamp) = batch.producer {
            match partition.producers.check(stamp, records) {
                Verdict::Append => {}
                Verdict::Duplicate(base_offset) => return Ok(Appended { base_offset, log_start }),
                Verdict::Refuse(code) => return Err(code),
            }
        }
        let (cost, bytes, stamp) = (log::cost(&batch), batch.bytes.len() as u64, batch.producer);
        self.appended += 1;
        let base_offset = partition.log.append(batch, self.appended);
        if let Some(stamp) = stamp {
            partition.producers.accept(stamp, records, base_offset);
        }
        self.stored += cost;
        for waiting in self.fetches.appended(&mut self.topics, key, bytes) {
            self.answer_fetch(&waiting);
        }
        Ok(Appended { base_offset, log_start })
    }

    fn refuse_produce(&mut self, caller: Caller, partitions: Vec<ProducePartition>, code: ErrorCode) {
        let refused = |it: ProducePartition| Produced { topic: it.topic, partition: it.partition, result: Err(code) };
        self.reply(caller, Response::Produce(partitions.into_iter().map(refused).collect()));
    }

    /// Drops batches that are no longer needed, oldest first, and returns whether `need` bytes fit now.
    fn make_room(&mut self, now: Instant, need: u64) -> bool {
        let floors = self.floors(now);
        let dropped = retention::make_room(&mut self.topics, &floors, &mut self.stored, self.config.capacity, need);
        self.count_dropped(dropped);
        self.stored + need <= self.config.capacity
    }

    fn floors(&self, now: Instant) -> BTreeMap<PartitionKey, i64> {
        let fetched = |conn: ConnId| self.connections.get(&conn).and_then(|it| it.fetched);
        retention::floors(now, &self.topics, &self.groups, fetched)
    }

    fn handle_fetch(&mut self, now: Instant, caller: Caller, max_wait: Duration, wanted: Wanted) {
        let deadline = now + max_wait;
        let connection = self.connections.get_mut(&caller.conn).expect("requests come on open connections");
        connection.fetched = Some(deadline);
        for it in &wanted.partitions {
            if let Ok(key) = fetch::readable(&self.topics, it) {
                let partition = self.topics.partition_mut(key).expect("it was found readable");
                partition.readers.insert(caller.conn, Position { offset: it.offset, renewed: deadline });
                connection.reads.insert(key);
            }
        }
        match fetch::available(&self.topics, &wanted) {
            Some(have) if have < wanted.min_bytes && !max_wait.is_zero() => {
                self.fetches.wait(&mut self.topics, caller, wanted, have, deadline);
            }
            _ => self.reply(caller, Response::Fetch(fetch::gather(&self.topics, &wanted))),
        }
    }

    fn answer_fetch(&mut self, waiting: &WaitingFetch) {
        let fetched = fetch::gather(&self.topics, &waiting.wanted);
        self.reply(waiting.caller, Response::Fetch(fetched));
    }

    fn metadata(
        &mut self,
        topics: Option<Vec<TopicRef>>,
        create_missing: bool,
    ) -> Vec<(TopicRef, Result<TopicInfo, ErrorCode>)> {
        let Some(topics) = topics else {
            return self.topics.infos().map(|info| (TopicRef::Name(info.name.clone()), Ok(info))).collect();
        };
        let mut found = Vec::with_capacity(topics.len());
        for topic in topics {
            let known = self.topics.id(&topic).map(|id| self.topics.info(id).expect("its id was just found"));
            let info = match (known, &topic, self.config.auto_create) {
                (Err(_), TopicRef::Name(name), Some(partitions)) if create_missing => {
                    let new =
                        NewTopic { name: name.clone(), partitions, replication_factor: 1, configs: BTreeMap::new() };
                    self.topics.create(new, false, self.config.seed).map_err(|refusal| refusal.code)
                }
                (known, ..) => known,
            };
            found.push((topic, info));
        }
        found
    }

    fn delete_topic(&mut self, topic: &TopicRef) -> Result<TopicInfo, ErrorCode> {
        let id = self.topics.id(topic)?;
        let info = self.topics.info(id).expect("its id was just found");
        let deleted = self.topics.delete(id).expect("its id was just found");
        self.stored -= deleted.partitions.iter().map(|partition| partition.log.bytes()).sum::<u64>();
        self.groups.topic_deleted(&info.name);
        for connection in self.connections.values_mut() {
            connection.reads.retain(|key| key.topic != id);
        }
        // Fetches that wait for records of it learn that there will be none.
        for waiting in self.fetches.remove_if(&mut self.topics, |waiting| waiting.watches(id)) {
            self.answer_fetch(&waiting);
        }
        Ok(info)
    }

    fn commit(
        &mut self,
        now: Instant,
        group: &str,
        committer: &Committer,
        offsets: Vec<OffsetCommit>,
    ) -> PartitionResults {
        let mut results: Vec<_> = offsets
            .iter()
            .map(|it| {
                let known = self.topics.key(&TopicRef::from(it.topic.as_str()), it.partition).map(drop);
                (it.topic.clone(), it.partition, known)
            })
            .collect();
        let mut known = results.iter().map(|(_, _, result)| result.is_ok());
        let good = offsets.into_iter().filter(|_| known.next().unwrap_or(false)).collect();
        if let Err(code) = self.groups.commit(now, group, committer, good) {
            for (_, _, result) in &mut results {
                *result = Err(code);
            }
        }
        results
    }

    fn list_offsets(
        &self,
        partitions: Vec<(TopicRef, i32, OffsetSpec)>,
    ) -> Vec<(TopicRef, i32, Result<ListedOffset, ErrorCode>)> {
        let list = |(topic, partition, spec): (TopicRef, i32, OffsetSpec)| {
            let key = self.topics.key(&topic, partition);
            let listed = key.map(|key| self.topics.partition(key).expect("its key was just made").log.list(spec));
            (topic, partition, listed)
        };
        partitions.into_iter().map(list).collect()
    }

    fn init_producer(&mut self, current: Option<(i64, i16)>) -> (i64, i16) {
        match current {
            // A producer that lost count continues under its id, and its old batches can no longer arrive.
            Some((id, epoch)) if (1..=self.producers).contains(&id) && (0..i16::MAX).contains(&epoch) => {
                (id, epoch + 1)
            }
            _ => {
                self.producers += 1;
                (self.producers, 0)
            }
        }
    }

    fn reply(&mut self, caller: Caller, response: Response) {
        self.outputs.push_back(Output::Reply { conn: caller.conn, token: caller.token, response });
    }

    fn reply_all(&mut self, replies: Replies) {
        for (caller, response) in replies {
            self.reply(caller, response);
        }
    }
}

/// Answers one question for each name.
fn each<T>(names: Vec<String>, mut ask: impl FnMut(&str) -> T) -> Vec<(String, T)> {
    let answer = |name: String| {
        let answer = ask(&name);
        (name, answer)
    };
    names.into_iter().map(answer).collect()
}
