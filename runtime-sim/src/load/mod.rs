//! The simulated load: what real threads do for each command, done by tasks over the simulated network.
//!
//! Everything that is decided per message is the product's own (`core::load`, `core::plan::pace`); what happened is
//! reported to the [`Witness`] separately, from values of its own.

mod consume;
mod produce;
pub mod record;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use madsim::task::{JoinHandle, spawn_local};
use omb_bench::{
    config::workload::Verify,
    id::{ConsumerId, ProducerId, SubscriptionId},
    load::{
        books::{Comparison, Ends, Look, Standing},
        keys::{KeyTable, KeyWalk},
        receiver::{Ledger, ProducerRange, Progress, Receiver},
        sender::{Confirmations, Sender},
        silence::Silences,
    },
    plan::{pace::Pace, probing},
    protocol::{
        Command, Event, Failure, FailureKind,
        command::{Check, ConsumerSpec, Preparation, ProducerSpec, Reach, TopicSpec},
        event::{Findings, GroupView, Problem, Snapshot},
    },
    rate::Tempo,
    stats::tally::{Acknowledgements, Arrivals, Departures, Parted},
};
use omb_broker::{ErrorCode, NewTopic, Request, Response, TopicRef};
use omb_machine::{
    seed::Seed,
    time::{Instant, WallTime},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::{sync::Notify, time::sleep};

use self::produce::Outgoing;
use crate::{
    clock::Clock,
    fault::Weather,
    net::{CallError, Client},
    portable::{
        event_loop::Clock as _,
        local::{Answer, Performer},
    },
    truth::{Schedule, Truth, WorkerTruth},
    witness::Witness,
};

/// The settings of the simulated client library: everything that the machines do not decide.
#[derive(Clone, Debug, PartialEq)]
pub struct Knobs {
    /// Replication factor requested for topics. The simulated cluster has one broker, and rejects more.
    pub copies: i16,
    /// Whether the broker recognises a batch that arrives twice.
    pub idempotent: bool,
    /// Whether a batch without a successful answer is sent again.
    pub retries: bool,
    /// Longest wait for one answer.
    pub request_within: Duration,
    /// Longest time from starting a batch to giving it up.
    pub deliver_within: Duration,
    /// How long a batch waits for more messages.
    pub linger: Duration,
    /// Most messages of a batch request.
    pub batch_max: usize,
    /// Most messages that wait in one producer's queue; a full queue blocks the sender.
    pub queue_max: usize,
    /// Tasks that send.
    pub senders: usize,
    /// Silence after which the broker considers a consumer dead.
    pub session: Duration,
    /// How often a consumer commits.
    pub commit_every: Duration,
    /// Longest a fetch waits at the broker.
    pub fetch_wait: Duration,
    /// Bytes at most that one fetch returns.
    pub fetch_bytes: u32,
    /// Longest delay before a consumer first asks to join its group: the others have their share by then.
    pub join_within: Duration,
    /// Whether a consumer of each worker loses its membership when the first probes go out.
    pub shaken: bool,
    /// How long after the load has begun a consumer of each worker loses its membership, with its uncommitted offsets.
    pub restless: Option<Duration>,
}

/// Pause between two tries of a request.
const BACKOFF: Duration = Duration::from_millis(100);
/// How often something that has no event of its own is polled.
const LOOK: Duration = Duration::from_millis(10);
/// As in the product: how long to wait for senders at the end of a window, how often, and how long a read waits for it.
const SENDERS_WITHIN: Duration = Duration::from_millis(50);
const WINDOW_LOOK: Duration = Duration::from_millis(1);
const WINDOW_WITHIN: Duration = Duration::from_secs(5);
/// Bounds within which the client gives a command up by itself: below the controller's deadlines, so that its message
/// reaches the user.
const PREPARE_WITHIN: Duration = Duration::from_secs(4);
const CREATE_WITHIN: Duration = Duration::from_secs(12);
/// How long the members of a group that is to be deleted may take to leave.
const GROUPS_WITHIN: Duration = Duration::from_secs(5);

/// Names of the workers in the trace.
const WHO: [&str; 9] =
    ["worker 0", "worker 1", "worker 2", "worker 3", "worker 4", "worker 5", "worker 6", "worker 7", "worker 8+"];

/// The performer of one simulated worker. Clones share it.
#[derive(Clone, Debug)]
pub struct SimLoad(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    broker: SocketAddr,
    clock: Clock,
    knobs: Knobs,
    seed: Seed,
    weather: Weather,
    witness: Witness,
    /// Its place among the workers.
    worker: u32,
    /// The run it serves: the place of its truth.
    run: AtomicUsize,
    /// The fleet's time at the clock's `Instant::ZERO`.
    fleet_zero: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    prepared: Option<Prepared>,
    producers: BTreeMap<ProducerId, Producer>,
    consumers: BTreeMap<ConsumerId, Consumer>,
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    senders: Vec<SendingThread>,
    departures: Parted,
    /// What is due from here on is measured.
    measured_from: Instant,
    /// The ends of the measured part, and the state at each.
    ends: Ends,
    /// Messages skipped by schedules that a change of rate replaced.
    skipped_before: u64,
    paused: bool,
    /// The consumer that is to lose its membership, if one is; `Some(None)` once it has.
    shaken: Option<Option<ConsumerId>>,
    /// A consumer has lost its membership under load.
    restless: bool,
    stopping: bool,
    problems: BTreeMap<String, u64>,
    silences: Silences,
    tasks: Vec<JoinHandle<()>>,
    under_way: Option<JoinHandle<()>>,
    /// A load was started, and is due to begin then.
    loaded: Option<Instant>,
}

#[derive(Debug)]
struct Subscription {
    producers: ProducerRange,
    ledger: Ledger,
    progress: Arc<Progress>,
    /// The newest generation that a member here knows.
    generation: i32,
    /// New ones since the last round of probes, and when the last of them was seen.
    rebalances: u64,
    last: Option<Instant>,
    /// All producers and consumers of the topic are here.
    whole: bool,
}

#[derive(Debug)]
struct Prepared {
    preparation: Preparation,
    pool: Vec<Vec<u8>>,
    keys: KeyTable,
}

#[derive(Debug)]
struct Producer {
    topic: String,
    /// All producers and consumers of the topic are here.
    whole: bool,
    sender: Sender,
    confirmations: Confirmations,
    acknowledgements: Acknowledgements,
    queue: VecDeque<Outgoing>,
    /// Messages taken from the queue that have no report yet.
    sending: u64,
    /// Rises when everything is given up: later reports do not count.
    surrenders: u64,
    partitions: u32,
    probes: u64,
    /// Partitions for which a probe was confirmed.
    probed: BTreeSet<u32>,
    filled: Arc<Notify>,
    room: Arc<Notify>,
}

impl Producer {
    fn in_flight(&self) -> u64 {
        self.sending + self.queue.iter().filter(|message| !message.mark.probe).count() as u64
    }
}

#[derive(Debug)]
struct Consumer {
    subscription: SubscriptionId,
    receiver: Receiver,
    arrivals: Arrivals,
    /// Its generation; 0 if none.
    generation: i32,
    /// How many partitions it has, once it knows.
    assigned: Option<usize>,
    /// Its name in its group, once it has its share of the partitions.
    member: Option<Membership>,
}

/// A member of a group, as it leaves.
#[derive(Clone, Debug)]
struct Membership {
    group: String,
    id: String,
}

#[derive(Debug)]
struct SendingThread {
    pace: Pace,
    /// The producers by the pace's turns.
    producers: Vec<ProducerId>,
    keys: KeyWalk,
    rng: ChaCha8Rng,
    /// The rate has changed.
    changed: Arc<Notify>,
}

impl SimLoad {
    /// The load of worker number `worker`, against the broker at `broker`.
    #[must_use]
    pub fn new(
        worker: u32,
        broker: SocketAddr,
        clock: Clock,
        knobs: Knobs,
        seed: Seed,
        weather: Weather,
        witness: Witness,
    ) -> Self {
        let (run, fleet_zero) = (AtomicUsize::new(0), AtomicU64::new(clock.wall_zero().0));
        let state = Mutex::default();
        Self(Arc::new(Inner { broker, clock, knobs, seed, weather, witness, worker, run, fleet_zero, state }))
    }

    /// The fleet's time at `Instant::ZERO`: the wall clock, with the controller's correction.
    fn fleet_zero(&self) -> WallTime {
        WallTime(self.0.fleet_zero.load(Relaxed))
    }

    fn correct(&self, correction: i64) {
        self.0.fleet_zero.store(self.0.clock.wall_zero().0.wrapping_add_signed(correction), Relaxed);
    }

    /// A record in the trace.
    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.0.witness.note(WHO[(self.0.worker as usize).min(WHO.len() - 1)], what);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn truth<T>(&self, note: impl FnOnce(&mut Truth) -> T) -> T {
        note(&mut self.0.witness.notes().truths[self.0.run.load(Relaxed)])
    }

    /// What truly happened at this worker.
    fn mine<T>(&self, note: impl FnOnce(&mut WorkerTruth) -> T) -> T {
        self.truth(|truth| note(truth.worker(self.0.worker)))
    }

    fn problem(&self, what: &impl ToString) {
        let (mut state, what) = (self.state(), what.to_string());
        state.silences.trouble(&what);
        *state.problems.entry(what).or_default() += 1;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let handle = spawn_local(task);
        self.state().tasks.push(handle);
    }

    /// Begins to perform `command`; `give` is called later with the result.
    pub fn begin(&self, command: Command, give: impl FnOnce(Result<Event, Failure>) + 'static) {
        self.note(format_args!("performs {}", command.name()));
        self.0.witness.hit(format!("command: {}", command.name()));
        self.mine(|mine| *mine.performed.entry(command.name()).or_default() += 1);
        if matches!(command, Command::DeleteTopics { .. })
            && let Some(under_way) = self.state().under_way.take()
        {
            // As the real client does: what is in progress is cut short.
            under_way.abort();
        }
        if command == Command::Close {
            self.end();
            self.mine(|mine| {
                mine.leave();
                mine.excused = true;
            });
        }
        let load = self.clone();
        let handle = spawn_local(async move {
            let name = command.name();
            let outcome = load.perform(command).await;
            if let Err(failure) = &outcome {
                load.note(format_args!("{name} failed: {failure}"));
            }
            let (late, mute) = {
                let now = load.0.weather.now();
                let now = &now.processes[load.0.worker as usize];
                (now.late, now.mute)
            };
            if !late.is_zero() {
                load.0.witness.hit("effect: report delayed by the worker");
                let share = load.0.seed.numbered_stream("late", load.0.clock.now().0).random_range(0.0..1.0);
                sleep(late.mul_f64(share)).await;
            }
            if mute {
                load.0.witness.hit("effect: report swallowed by the worker");
                return;
            }
            give(outcome);
        });
        self.state().under_way = Some(handle);
    }

    /// Stops whatever is in progress. Connections break off wherever their tasks are.
    fn end(&self) {
        let mut state = self.state();
        state.stopping = true;
        let under_way = state.under_way.take();
        for task in std::mem::take(&mut state.tasks).into_iter().chain(under_way) {
            task.abort();
        }
    }

    async fn perform(&self, command: Command) -> Result<Event, Failure> {
        match command {
            Command::Prepare(preparation) => return self.prepare(*preparation).await,
            Command::Check(check) => return self.check(*check).await,
            Command::CreateTopics(topics) => self.create_topics(topics).await?,
            Command::CreateConsumers(consumers) => self.create_consumers(consumers),
            Command::CreateProducers(producers) => self.create_producers(producers),
            Command::Probe { round } => self.probe(round),
            Command::StartLoad { tempo, producers, begin, window, correction } => {
                self.correct(correction);
                self.start_load(&tempo, producers, begin, window);
            }
            Command::SetRate { rate } => self.set_rate(rate),
            Command::PauseConsumers => self.state().paused = true,
            Command::ResumeConsumers => self.state().paused = false,
            Command::Read { correction, reach } => {
                self.correct(correction);
                return Ok(Event::Read(self.read(reach).await));
            }
            Command::StopLoad { within } => self.stop_load(within).await,
            Command::Verify => return Ok(Event::Verified(Box::new(self.verify()))),
            Command::DeleteTopics { within, topics, groups } => self.delete(within, topics, groups).await?,
            // Everything in progress was ended when the command arrived.
            Command::Close => {}
        }
        Ok(Event::Done)
    }

    /// Asks until there is an answer.
    async fn insist(&self, client: &mut Client, request: Request, within: Duration) -> Result<Response, CallError> {
        let until = self.0.clock.now() + within;
        loop {
            match client.call(request.clone(), self.0.knobs.request_within).await {
                Ok(response) => return Ok(response),
                Err(error) if self.0.clock.now() >= until => return Err(error),
                Err(error) => {
                    self.problem(&error);
                    self.0.witness.hit(format!("client: {}", kind(&error)));
                    sleep(BACKOFF).await;
                }
            }
        }
    }

    async fn prepare(&self, preparation: Preparation) -> Result<Event, Failure> {
        let request = Request::Metadata { topics: Some(Vec::new()), create_missing: false };
        self.insist(&mut Client::new(self.0.broker), request, PREPARE_WITHIN).await.map_err(unreachable)?;
        let (seed, keys) = (preparation.seed, KeyTable::new(preparation.seed));
        // The runs of this simulation are numbered, and called by their number.
        self.0.run.store(preparation.controller.parse().unwrap_or(0), Relaxed);
        self.mine(WorkerTruth::begin);
        self.correct(0);
        let pool = preparation.payload.pool(seed);
        *self.state() = State { prepared: Some(Prepared { preparation, pool, keys }), ..State::default() };
        Ok(Event::Prepared { system: "simulated broker".to_owned() })
    }

    /// Connects to the broker, and asks it whether it would create the topics.
    async fn check(&self, check: Check) -> Result<Event, Failure> {
        let mut client = Client::new(self.0.broker);
        let request = if check.topics.is_empty() {
            Request::Metadata { topics: Some(Vec::new()), create_missing: false }
        } else {
            Request::CreateTopics { topics: self.new_topics(check.topics), validate_only: true }
        };
        let found = match self.insist(&mut client, request, PREPARE_WITHIN).await {
            Err(error) => vec![unreachable(error)],
            Ok(Response::CreateTopics(results)) => {
                let refused = results.into_iter().filter_map(|(name, result)| Some((name, result.err()?)));
                let failure = |(name, refusal)| Failure::new(FailureKind::Refused, format!("{name}: {refusal}"));
                refused.map(failure).collect()
            }
            Ok(_) => Vec::new(),
        };
        if !found.is_empty() {
            self.0.witness.hit("effect: a check found something in the way");
            self.mine(|mine| mine.in_the_way = true);
        }
        Ok(Event::Checked(found))
    }

    fn new_topics(&self, topics: Vec<TopicSpec>) -> Vec<NewTopic> {
        let new = |topic: TopicSpec| NewTopic {
            name: topic.name,
            partitions: i32::try_from(topic.partitions).expect("few"),
            replication_factor: self.0.knobs.copies,
            configs: BTreeMap::new(),
        };
        topics.into_iter().map(new).collect()
    }

    async fn create_topics(&self, topics: Vec<TopicSpec>) -> Result<(), Failure> {
        if topics.is_empty() {
            return Ok(());
        }
        let request = Request::CreateTopics { topics: self.new_topics(topics), validate_only: false };
        let response =
            self.insist(&mut Client::new(self.0.broker), request, CREATE_WITHIN).await.map_err(unreachable)?;
        let Response::CreateTopics(results) = response else { return Err(nonsense()) };
        for (name, result) in results {
            match result {
                // Created by an attempt whose answer was lost: names are this run's own.
                Err(refusal) if refusal.code == ErrorCode::TopicAlreadyExists => {}
                Err(refusal) => return Err(Failure::new(FailureKind::Refused, format!("{name}: {refusal}"))),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Every client leaves; then everything that the run has created is deleted.
    async fn delete(&self, within: Duration, topics: Vec<String>, groups: Vec<String>) -> Result<(), Failure> {
        let until = self.0.clock.now() + within.min(GROUPS_WITHIN);
        let members: Vec<Membership> = {
            let mut state = self.state();
            state.stopping = true;
            state.tasks.drain(..).for_each(|task| task.abort());
            state.consumers.values_mut().filter_map(|consumer| consumer.member.take()).collect()
        };
        let client = &mut Client::new(self.0.broker);
        for Membership { group, id } in members {
            let request = Request::LeaveGroup { group, members: vec![(id, None)] };
            // A client that is not heard has left by the end of its session. The real clients close in parallel, so
            // that the wait for a broker which does not answer is paid once.
            if client.call(request, self.0.knobs.request_within).await.is_err() {
                break;
            }
        }
        if !topics.is_empty() {
            let topics = topics.into_iter().map(TopicRef::Name).collect();
            let request = Request::DeleteTopics { topics };
            self.insist(client, request, PREPARE_WITHIN).await.map_err(unreachable)?;
        }
        self.delete_groups(client, groups, until).await
    }

    /// Until none is left, as members of other workers may still be there; within the time that the real client takes.
    async fn delete_groups(&self, client: &mut Client, mut groups: Vec<String>, until: Instant) -> Result<(), Failure> {
        while !groups.is_empty() {
            let request = Request::DeleteGroups { groups: groups.clone() };
            let response = self.insist(client, request, PREPARE_WITHIN).await.map_err(unreachable)?;
            let Response::DeleteGroups(results) = response else { return Err(nonsense()) };
            let peopled = |(name, result)| (result == Err(ErrorCode::NonEmptyGroup)).then_some(name);
            groups = results.into_iter().filter_map(peopled).collect();
            if self.0.clock.now() >= until && !groups.is_empty() {
                let text = format!("{} groups still have members", groups.len());
                return Err(Failure::new(FailureKind::Refused, text));
            }
            if !groups.is_empty() {
                self.0.witness.hit("effect: group not deleted yet");
                sleep(BACKOFF).await;
            }
        }
        Ok(())
    }

    fn create_consumers(&self, specs: Vec<ConsumerSpec>) {
        for spec in specs {
            {
                let mut state = self.state();
                let per_topic = state.preparation().producers_per_topic;
                let producers = ProducerRange { first: ProducerId(spec.topic_index.0 * per_topic), count: per_topic };
                let new = || Subscription {
                    producers,
                    ledger: Ledger::new(producers, spec.partitions),
                    progress: Arc::new(Progress::new(spec.partitions)),
                    generation: 0,
                    rebalances: 0,
                    last: None,
                    whole: spec.whole,
                };
                let subscription = state.subscriptions.entry(spec.subscription).or_insert_with(new);
                let consumer = Consumer {
                    subscription: spec.subscription,
                    receiver: Receiver::new(producers, spec.whole, Arc::clone(&subscription.progress)),
                    arrivals: Arrivals::default(),
                    generation: 0,
                    assigned: None,
                    member: None,
                };
                state.consumers.insert(spec.id, consumer);
            }
            self.mine(|mine| {
                mine.counts.seen.entry(spec.subscription).or_default();
                mine.consumers.insert(spec.id);
            });
            self.spawn(self.clone().consume(spec));
        }
    }

    fn create_producers(&self, specs: Vec<ProducerSpec>) {
        for spec in specs {
            {
                let mut state = self.state();
                let full = state.preparation().verify == Verify::Full;
                let producer = Producer {
                    whole: spec.whole,
                    topic: spec.topic,
                    sender: Sender::new(spec.id, full),
                    confirmations: Confirmations::default(),
                    acknowledgements: Acknowledgements::default(),
                    queue: VecDeque::new(),
                    sending: 0,
                    surrenders: 0,
                    partitions: spec.partitions,
                    probes: 0,
                    probed: BTreeSet::new(),
                    filled: Arc::default(),
                    room: Arc::default(),
                };
                state.producers.insert(spec.id, producer);
            }
            self.mine(|mine| mine.producers.insert(spec.id));
            self.spawn(self.clone().deliver(spec.id));
        }
    }

    /// Everything counted so far, or what belongs to a part of the load.
    async fn read(&self, reach: Reach) -> Box<Snapshot> {
        let give_up = self.0.clock.now() + WINDOW_WITHIN;
        loop {
            let now = self.0.clock.now();
            let look = {
                let state = self.state();
                state.ends.look(reach, now, !state.stopping)
            };
            match look {
                Look::Kept(kept) => return kept,
                Look::Wait if now < give_up => sleep(WINDOW_LOOK).await,
                Look::Wait | Look::Now => return Box::new(self.snapshot(true)),
            }
        }
    }

    /// Records the state at each end of the window.
    async fn keep_ends(self, ends: [Instant; 2]) {
        for (nth, end) in ends.into_iter().enumerate() {
            sleep(self.0.clock.true_span(end.since(self.0.clock.now()))).await;
            if self.state().stopping {
                return;
            }
            let stood = self.snapshot(false);
            let give_up = self.0.clock.now() + SENDERS_WITHIN;
            while self.0.clock.now() < give_up && self.state().senders.iter().any(|it| it.pace.next_at() < end) {
                sleep(WINDOW_LOOK).await;
            }
            let mut state = self.state();
            if state.stopping {
                return;
            }
            let mut departures = Departures { skipped: stood.totals.departures.skipped, ..Departures::default() };
            Ends::due_before(nth, &state.departures, &mut departures);
            state.ends.keep(nth, stood, &departures, self.0.clock.wall_zero());
            self.mine(|mine| mine.read_of_window(end, nth == 0));
        }
    }

    /// The current state. If it is `reported` now, the truth notes it as what a read has to report; otherwise the
    /// reporting caller does.
    fn snapshot(&self, reported: bool) -> Snapshot {
        let state = self.state();
        let (taken_at, wall) = (self.0.clock.now(), self.0.clock.wall());
        let mut standing = Standing::new(state.loaded.is_some());
        for (id, subscription) in &state.subscriptions {
            standing.subscription(*id, subscription.whole, &subscription.ledger, state.group(*id, subscription));
        }
        state.consumers.values().for_each(|consumer| standing.arrivals(&consumer.arrivals));
        state.producers.values().for_each(|producer| standing.acknowledgements(&producer.acknowledgements));
        standing.departures(&state.departures);
        let skipped = state.skipped();
        standing.skipped(skipped);
        state.probes().for_each(|(probes, probed)| standing.probes(probes, probed));
        standing.problems(state.problems.iter().map(|(what, count)| Problem { what: what.clone(), count: *count }));
        let due = state.senders.iter().filter(|_| !state.stopping).map(|sender| sender.pace.next_at()).min();
        let snapshot = Snapshot {
            silences: state.silences.so_far(),
            schedule_lag: due.map(|due| taken_at.since(due)).unwrap_or_default(),
            ..standing.at(taken_at, wall)
        };
        self.mine(|mine| {
            mine.counts.skipped = skipped;
            if reported { mine.read(taken_at) } else { mine.look() }
        });
        snapshot
    }

    fn verify(&self) -> Findings {
        let state = self.state();
        let mut comparison = Comparison::new(state.payload_len());
        for (id, Subscription { producers, ledger, whole, .. }) in &state.subscriptions {
            let confirmed = |id| state.producers.get(&id).map(|producer| &producer.confirmations);
            comparison.subscription(*id, *whole, *producers, ledger, confirmed);
        }
        for (id, producer) in &state.producers {
            comparison.producer(*id, producer.whole, &producer.confirmations);
        }
        self.truth(|truth| {
            let ends = (truth.acks.len(), truth.handed.len());
            truth.worker(self.0.worker).verified = Some(ends);
        });
        comparison.findings()
    }
}

impl State {
    fn prepared(&self) -> &Prepared {
        self.prepared.as_ref().expect("the worker machine lets nothing through before it is prepared")
    }

    fn preparation(&self) -> &Preparation {
        &self.prepared().preparation
    }

    fn payload_len(&self) -> usize {
        self.prepared().pool[0].len()
    }

    /// What the members here know of a group.
    fn group(&self, id: SubscriptionId, subscription: &Subscription) -> GroupView {
        let last = self.loaded.and_then(|began| Some(subscription.last?.since(began)));
        let mut view = GroupView { rebalances: subscription.rebalances, last, ..GroupView::default() };
        for consumer in self.consumers.values().filter(|it| it.subscription == id) {
            if let Some(assigned) = consumer.assigned {
                view.member(consumer.generation, u32::try_from(assigned).expect("few"));
            }
        }
        view
    }

    /// For each producer, the probes that it sends and those that were confirmed.
    fn probes(&self) -> impl Iterator<Item = (u64, u64)> {
        let per_topic = self.prepared.as_ref().map_or(1, |prepared| prepared.preparation.producers_per_topic);
        self.producers.iter().map(move |(id, producer)| {
            let probes = probing::partitions(id.0 % per_topic, per_topic, producer.partitions).count() as u64;
            (probes, producer.probed.len() as u64)
        })
    }

    fn skipped(&self) -> u64 {
        self.skipped_before + self.senders.iter().map(|sender| sender.pace.skipped()).sum::<u64>()
    }

    fn in_flight(&self) -> u64 {
        self.producers.values().map(Producer::in_flight).sum()
    }
}

/// How an error counts in the coverage table.
fn kind(error: &CallError) -> &'static str {
    match error {
        CallError::Unreachable(_) => "could not connect",
        CallError::Lost(_) => "connection broke",
        CallError::TimedOut => "no answer in time",
        CallError::Failed(_) => "error in place of an answer",
    }
}

fn unreachable(error: CallError) -> Failure {
    Failure::new(FailureKind::Unreachable, error.to_string())
}

fn nonsense() -> Failure {
    Failure::new(FailureKind::Broken, "the broker answered another question")
}

impl Performer for SimLoad {
    fn perform(&mut self, command: Command, answer: Answer) {
        self.begin(command, move |outcome| answer.give(outcome));
    }
}

/// The total rate's share and the schedule of some producers.
fn schedule(
    start: Instant,
    tempo: &Tempo,
    lasts: Option<Duration>,
    producers: u32,
    mine: &[ProducerId],
    state: &State,
) -> Pace {
    let places = mine.iter().map(|producer| producer.0).collect();
    Pace::new(start, tempo.clone(), lasts, producers, places, state.preparation().catch_up)
}
