//! Performs what a worker's commands request, on real threads and against a real messaging system.
//!
//! One control thread performs the commands one after another; each may block, within its bound. The load itself runs
//! on threads of its own: one per sending group, per client's delivery reports, per consumer (or several).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use omb_bench::{
    config::{
        driver::{DriverKind, KafkaConfig},
        workload::{POOL_BYTES_MAX, Verify},
    },
    id::{ProducerId, SubscriptionId, TopicIndex},
    load::{
        books::{Comparison, Ends, Look, Standing},
        header,
        keys::{KeyTable, KeyWalk},
        receiver::{Ledger, ProducerRange, Progress, Receiver},
        sender::{Confirmations, Sender},
        silence::Silences,
        throttle::Throttled,
    },
    plan::{probing, sharing},
    protocol::{
        Command, Event, Failure, FailureKind,
        command::{Begin, ConsumerSpec, Preparation, ProducerSpec, Reach, Window},
        event::Snapshot,
    },
    rate::{Rate, Tempo},
    stats::tally::{Acknowledgements, Arrivals, Departures},
};
use omb_machine::{
    config::setting::Setting,
    seed::Seed,
    time::{Instant, WallTime},
};

use crate::{
    clock::{self, FleetTime},
    driver::{Driver, Target, Trouble, go_on, kafka::Kafka},
    embedded,
    load::{
        Problems, lock, receiving,
        reporting::{self, Reported},
        ring::Ring,
        sending::{self, Lane},
    },
    portable::local,
    process::{self, Pages},
    reaper::{CLOSE_WITHIN, Reaper},
};

/// How often a wait checks its condition.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The creation of topics ends this long before the controller's own deadline (or at half of it), so that the cause is
/// reported and not only a timeout.
const TOLD_WITHIN: Duration = Duration::from_secs(5);
/// Longest that closing clients and deleting what the run created may take, whatever the controller permits.
const DELETE_WITHIN: Duration = Duration::from_secs(30);
/// Longest that the deletion may take where the clients could not be closed.
const DELETE_WITHIN_DOUBT: Duration = Duration::from_secs(2);
/// At least one attempt is made.
const DELETE_AT_LEAST: Duration = Duration::from_millis(500);
/// Longest a broker may take to answer at all, where clients do not close.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);
/// Longest that the senders are waited for at the end of a window, so that what was due before has left: they are
/// behind by less unless they cannot send, and then what they send later belongs to the time at which it leaves.
const SENDERS_WITHIN: Duration = Duration::from_millis(50);
/// How often a wait for the end of a window checks.
const WINDOW_LOOK: Duration = Duration::from_micros(500);
/// Longest a read waits for the end of a window: the controller reads when it is due, and clocks differ by little.
const WINDOW_WITHIN: Duration = Duration::from_secs(5);
/// Beyond the stop's own bound, longest the failed reports of what was given up may take.
const PURGE_WITHIN: Duration = Duration::from_secs(5);

/// The performer of a worker in this process.
#[derive(Debug)]
pub struct Performer {
    jobs: mpsc::Sender<(Command, local::Answer)>,
    /// Raised when the run is to be cleaned up: every blocking call checks it.
    cut: Arc<AtomicBool>,
    counts: Counts,
    reaper: Reaper,
}

/// What the current run has counted, for observers while it goes on.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
enum Shown {
    /// No run was ever prepared.
    #[default]
    Nothing,
    /// A run is in progress.
    Live(Arc<Mutex<Counting>>),
    /// What the last run had counted when it was closed.
    Last(Box<Snapshot>),
}

impl Counts {
    /// Everything counted so far, or at the end of the last run; `None` if there was none.
    #[must_use]
    pub fn snapshot(&self) -> Option<Snapshot> {
        let counting = match &*lock(&self.0) {
            Shown::Nothing => return None,
            Shown::Last(snapshot) => return Some((**snapshot).clone()),
            Shown::Live(counting) => Arc::clone(counting),
        };
        let snapshot = lock(&counting).snapshot();
        Some(snapshot)
    }
}

impl Performer {
    /// Starts the control thread. `runtime` is where the few asynchronous calls of the drivers run; `broker` configures
    /// the embedded broker, if a run asks for it.
    ///
    /// # Panics
    /// If the system refuses a thread.
    #[must_use]
    pub fn start(runtime: tokio::runtime::Handle, broker: embedded::Options) -> Self {
        let (jobs, queue) = mpsc::channel::<(Command, local::Answer)>();
        let cut = Arc::new(AtomicBool::new(false));
        let counts = Counts::default();
        let reaper = Reaper::default();
        let mut engine = Engine {
            runtime,
            broker,
            cut: Arc::clone(&cut),
            counts: counts.clone(),
            reaper: reaper.clone(),
            run: None,
        };
        std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || {
                for (command, answer) in queue {
                    let closes = command == Command::Close;
                    answer.give(engine.perform(command));
                    if closes {
                        // A worker waits for its next run, perhaps for days.
                        (engine.broker.give_back)();
                    }
                }
            })
            .expect("the system gives one thread");
        Self { jobs, cut, counts, reaper }
    }

    /// Clients whose broker is gone.
    #[must_use]
    pub fn reaper(&self) -> Reaper {
        self.reaper.clone()
    }

    /// What the current run counts.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts.clone()
    }
}

impl local::Performer for Performer {
    fn perform(&mut self, command: Command, answer: local::Answer) {
        // Both cut short what is in progress, and then wait for their turn, which comes soon.
        self.cut.store(matches!(command, Command::Close | Command::DeleteTopics { .. }), Relaxed);
        // The control thread lives as long as this sender does.
        let _ = self.jobs.send((command, answer));
    }
}

/// The control thread's state.
struct Engine {
    runtime: tokio::runtime::Handle,
    broker: embedded::Options,
    cut: Arc<AtomicBool>,
    counts: Counts,
    reaper: Reaper,
    run: Option<Run>,
}

/// One run's clients and threads.
struct Run {
    preparation: Preparation,
    pool: Arc<Vec<Vec<u8>>>,
    time: Arc<FleetTime>,
    problems: Arc<Problems>,
    driver: Arc<dyn Driver>,
    /// Dropped after the driver's clients: fields drop in order.
    threads: Threads,
    counting: Arc<Mutex<Counting>>,
    producers: BTreeMap<ProducerId, Confirmed>,
    /// The sending halves while no load runs.
    lanes: Vec<Lane>,
    load: Option<Load>,
    server: Option<embedded::Server>,
    pages: Pages,
}

/// One producer's confirmed messages.
struct Confirmed {
    confirmations: Arc<Mutex<Confirmations>>,
    /// Partitions that it probes.
    probes: u64,
    /// Whether the topic belongs to this worker as a whole.
    whole: bool,
}

/// Where everything is counted.
#[derive(Debug, Default)]
struct Counting {
    ledgers: BTreeMap<SubscriptionId, Subscription>,
    acknowledgements: Vec<Arc<Mutex<Acknowledgements>>>,
    arrivals: Vec<Arc<Mutex<Arrivals>>>,
    /// Also what ended loads had counted; there is one load per run, but a stop must not lose it.
    sent: Vec<Arc<sending::Counted>>,
    problems: Arc<Problems>,
    /// When nothing was acknowledged.
    silences: Arc<Mutex<Silences>>,
    /// For how long a quota throttled clients.
    throttled: Arc<Mutex<Throttled>>,
    /// When the load was due to begin, if one was ever started.
    loaded: Option<Instant>,
    /// For each producer, the probes that it sends and those that were confirmed.
    probes: Vec<(u64, Arc<Mutex<BTreeSet<u32>>>)>,
    /// The kernel's number of the thread on which the embedded broker lives.
    broker_thread: Option<i32>,
    /// The ends of what is measured, and how things stood there.
    ends: Ends,
}

#[derive(Default)]
struct Threads {
    reporting: Vec<JoinHandle<()>>,
    receiving: Vec<JoinHandle<()>>,
    /// Clients that they serve.
    clients: usize,
    stop_reporting: Arc<AtomicBool>,
    receiving_orders: Arc<receiving::Orders>,
}

#[derive(Debug)]
struct Subscription {
    ledger: Arc<Mutex<Ledger>>,
    /// Whether the topic belongs to this worker as a whole.
    whole: bool,
    topic: TopicIndex,
    progress: Arc<Progress>,
    group: Arc<receiving::Group>,
}

struct Load {
    orders: Arc<sending::Orders>,
    threads: Vec<JoinHandle<Vec<Lane>>>,
}

impl Engine {
    fn perform(&mut self, command: Command) -> Result<Event, Failure> {
        match command {
            Command::Prepare(preparation) => return self.prepare(*preparation),
            Command::Close => {
                return match self.run.take() {
                    None => Ok(Event::Done),
                    Some(run) => {
                        let counting = Arc::clone(&run.counting);
                        let closed = run.close(&self.reaper);
                        *lock(&self.counts.0) = Shown::Last(Box::new(lock(&counting).snapshot()));
                        closed
                    }
                };
            }
            _ => {}
        }
        let Some(run) = &mut self.run else {
            return Err(Failure::new(FailureKind::Protocol, format!("nothing is prepared to {}", command.name())));
        };
        match command {
            Command::Check(check) => Ok(Event::Checked(run.driver.check(&check, &self.cut))),
            Command::CreateTopics(topics) => {
                run.driver.create_topics(&topics, run.setup_within(), &self.cut).map(|()| Event::Done)
            }
            Command::CreateConsumers(consumers) => run.create_consumers(consumers, &self.cut),
            Command::CreateProducers(producers) => run.create_producers(producers, &self.cut),
            Command::Probe { round } => run.probe(round),
            Command::StartLoad { tempo, producers, begin, window, correction } => {
                run.time.correct(correction);
                run.start_load(tempo, producers, begin, window)
            }
            Command::SetRate { rate } => run.set_rate(rate),
            Command::PauseConsumers => Ok(run.set_paused(true)),
            Command::ResumeConsumers => Ok(run.set_paused(false)),
            Command::Read { correction, reach } => {
                run.time.correct(correction);
                Ok(Event::Read(run.read(reach, &self.cut)))
            }
            Command::StopLoad { within } => run.stop_load(within, &self.cut),
            Command::Verify => Ok(run.verify()),
            Command::DeleteTopics { within, topics, groups } => {
                let within = within.min(DELETE_WITHIN);
                let deadline = clock::now() + within;
                // Clients whose topic is deleted first would only report errors.
                let closed = run.close_clients(&self.reaper, within / 2);
                // Where clients cannot leave, there is hardly a broker to delete anything.
                let deadline = if closed.is_ok() { deadline } else { deadline.min(clock::now() + DELETE_WITHIN_DOUBT) };
                let left = || deadline.since(clock::now()).max(DELETE_AT_LEAST);
                let deleted = run.driver.delete_topics(&topics, left());
                // A topic that still exists does not keep its groups.
                let groups = run.driver.delete_groups(&groups, left());
                closed.and(deleted).and(groups).map(|()| Event::Done)
            }
            Command::Prepare(_) | Command::Close => unreachable!("performed above"),
        }
    }

    fn prepare(&mut self, preparation: Preparation) -> Result<Event, Failure> {
        if let Some(refusal) = self.reaper.refusal() {
            return Err(refusal);
        }
        let bytes = preparation.payload.pool_bytes();
        if bytes > POOL_BYTES_MAX {
            let text = format!("a pool of {bytes} bytes is asked for, where {POOL_BYTES_MAX} are the most");
            return Err(Failure::new(FailureKind::Protocol, text));
        }
        let (server, driver) = connect(&preparation, &self.broker, self.runtime.clone(), &self.cut)?;
        let system = driver.system().to_owned();
        let pool = Arc::new(preparation.payload.pool(preparation.seed));
        // On the broker's own thread.
        let broker_thread =
            server.as_ref().map(|server| server.look(|_, _| rustix::thread::gettid().as_raw_nonzero().get()));
        let problems: Arc<Problems> = Arc::default();
        let counting = Counting {
            problems: Arc::clone(&problems),
            throttled: driver.throttled(),
            broker_thread,
            ..Counting::default()
        };
        let counting = Arc::new(Mutex::new(counting));
        *lock(&self.counts.0) = Shown::Live(Arc::clone(&counting));
        self.run = Some(Run {
            pool,
            time: Arc::default(),
            problems,
            driver,
            threads: Threads::default(),
            counting,
            producers: BTreeMap::new(),
            lanes: Vec::new(),
            load: None,
            server,
            pages: Pages::default(),
            preparation,
        });
        Ok(Event::Prepared { system })
    }
}

/// Connects to the messaging system, starting the embedded one if that is configured.
fn connect(
    preparation: &Preparation,
    broker: &embedded::Options,
    runtime: tokio::runtime::Handle,
    cut: &AtomicBool,
) -> Result<(Option<embedded::Server>, Arc<dyn Driver>), Failure> {
    let message_bytes = preparation.payload.size() + preparation.keys.key_bytes();
    let fitted = |mut config: KafkaConfig| match config.fit(message_bytes) {
        Ok(()) => Ok(config),
        Err(error) => Err(Failure::new(FailureKind::Configuration, error.to_string())),
    };
    match &preparation.driver.kind {
        DriverKind::Kafka(config) => Ok((None, Arc::new(Kafka::connect(&fitted(config.clone())?, runtime, cut)?))),
        DriverKind::Embedded => {
            let server = embedded::Server::start(broker.clone())
                .map_err(|error| Failure::new(FailureKind::Unreachable, error.to_string()))?;
            let config = fitted(embedded_settings(server.addr()))?;
            let kafka = Kafka::connect(&config, runtime, cut)?.named("embedded, loopback");
            Ok((Some(server), Arc::new(kafka)))
        }
    }
}

/// How the client is set up for the embedded broker: as for a Kafka that is very near.
#[must_use]
pub fn embedded_settings(addr: SocketAddr) -> KafkaConfig {
    let map = |pairs: &[(&str, &str)]| {
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), Setting::from(*value)));
        pairs.chain([("bootstrap.servers".to_owned(), addr.to_string().into())]).collect::<BTreeMap<_, _>>()
    };
    let producer = [("acks", "all"), ("linger.ms", "1"), ("batch.size", "1048576"), ("partitioner", "murmur2_random")];
    let consumer = [
        ("auto.offset.reset", "earliest"),
        ("enable.auto.commit", "false"),
        // As for every Kafka: see `config::kafka`.
        ("fetch.queue.backoff.ms", "2"),
        // What upstream's own driver files set: on a busy machine every fetch waits for its turn, and so brings more.
        ("max.partition.fetch.bytes", "10485760"),
    ];
    KafkaConfig {
        replication_factor: 1,
        topic: BTreeMap::new(),
        common: map(&[]),
        producer: map(&producer),
        consumer: map(&consumer),
    }
}

/// Cores to spread threads over.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn spawn<T: Send + 'static>(name: String, body: impl FnOnce() -> T + Send + 'static) -> Result<JoinHandle<T>, Failure> {
    std::thread::Builder::new()
        .name(name)
        // The loops need little stack; thousands of threads would otherwise reserve gigabytes.
        .stack_size(256 << 10)
        .spawn(body)
        .map_err(|error| Failure::new(FailureKind::Broken, format!("the system gives no more threads: {error}")))
}

/// The producers of each client. Two producers of one topic that ask for the same client get two clients: their reports
/// could not be distinguished.
fn by_client(producers: Vec<ProducerSpec>) -> Vec<Vec<ProducerSpec>> {
    let mut seen: BTreeMap<(u32, String), u32> = BTreeMap::new();
    let mut clients: BTreeMap<(u32, u32), Vec<ProducerSpec>> = BTreeMap::new();
    for spec in producers {
        let again = seen.entry((spec.client, spec.topic.clone())).or_default();
        clients.entry((*again, spec.client)).or_default().push(spec);
        *again += 1;
    }
    clients.into_values().collect()
}

impl Run {
    fn setup_within(&self) -> Duration {
        let within = self.preparation.setup_within;
        within.saturating_sub(TOLD_WITHIN).max(within / 2)
    }

    fn producers_of(&self, topic: TopicIndex) -> ProducerRange {
        let count = self.preparation.producers_per_topic;
        ProducerRange { first: ProducerId(topic.0 * count), count }
    }

    fn create_consumers(&mut self, consumers: Vec<ConsumerSpec>, cut: &AtomicBool) -> Result<Event, Failure> {
        if consumers.is_empty() {
            return Ok(Event::Done);
        }
        let arrivals: Vec<Arc<Mutex<Arrivals>>> = (0..consumers.len().min(cores())).map(|_| Arc::default()).collect();
        lock(&self.counting).arrivals.clone_from(&arrivals);
        // Upstream commits explicitly unless the client does so itself.
        let commits = match &self.preparation.driver.kind {
            DriverKind::Kafka(config) => {
                config.consumer.get("enable.auto.commit").is_none_or(|value| *value == "false")
            }
            DriverKind::Embedded => true,
        };
        let mut threads: BTreeMap<u32, Vec<ConsumerSpec>> = BTreeMap::new();
        let count = consumers.len();
        consumers.into_iter().for_each(|spec| threads.entry(spec.thread).or_default().push(spec));
        self.pages.lean_if(threads.len() < count);
        let mut nth = 0;
        for specs in threads.into_values() {
            let name = format!("receive-{}", specs[0].id.0);
            let mut stations = Vec::with_capacity(specs.len());
            for spec in specs {
                go_on(cut)?;
                let producers = self.producers_of(spec.topic_index);
                let consumer = self.driver.consumer(&spec.topic, &spec.group)?;
                let mut counting = lock(&self.counting);
                let subscription = counting.ledgers.entry(spec.subscription).or_insert_with(|| Subscription {
                    whole: spec.whole,
                    ledger: Arc::new(Mutex::new(Ledger::new(producers, spec.partitions))),
                    topic: spec.topic_index,
                    progress: Arc::new(Progress::new(spec.partitions)),
                    group: Arc::default(),
                });
                let receiver = Receiver::new(producers, spec.whole, Arc::clone(&subscription.progress));
                let shared = receiving::Shared {
                    arrivals: Arc::clone(&arrivals[nth % arrivals.len()]),
                    ledger: Arc::clone(&subscription.ledger),
                    member: subscription.group.member(),
                    group: Arc::clone(&subscription.group),
                    orders: Arc::clone(&self.threads.receiving_orders),
                    problems: Arc::clone(&self.problems),
                    commits,
                    time: Arc::clone(&self.time),
                };
                drop(counting);
                stations.push(receiving::Station::new(consumer, receiver, shared));
                nth += 1;
            }
            self.threads.clients += stations.len();
            self.threads.receiving.push(spawn(name, move || receiving::run(stations))?);
        }
        Ok(Event::Done)
    }

    fn create_producers(&mut self, producers: Vec<ProducerSpec>, cut: &AtomicBool) -> Result<Event, Failure> {
        if producers.is_empty() {
            return Ok(Event::Done);
        }
        let size = self.pool[0].len();
        let full = self.preparation.verify == Verify::Full;
        let most = self.driver.in_flight_max(size);
        let tallies: Vec<Arc<Mutex<Acknowledgements>>> =
            (0..producers.len().min(cores())).map(|_| Arc::default()).collect();
        lock(&self.counting).acknowledgements.clone_from(&tallies);
        let silences = Arc::clone(&lock(&self.counting).silences);
        let (count, mut nth) = (producers.len(), 0);
        let clients = by_client(producers);
        self.pages.lean_if(clients.len() < count);
        for specs in clients {
            go_on(cut)?;
            let targets: Vec<Target<'_>> =
                specs.iter().map(|spec| Target { topic: &spec.topic, partitions: spec.partitions }).collect();
            let (senders, reports) = self.driver.producers(&targets, cut)?;
            // The client's capacity is for all of them.
            let most = (most / specs.len()).max(1);
            let chunk = sharing::buffers(size, specs.len() > 1);
            let mut reported = Vec::with_capacity(specs.len());
            let name = format!("report-{}", specs[0].id.0);
            for (spec, producer) in specs.iter().zip(senders) {
                let rng = self.preparation.seed.numbered_stream("payload choice", u64::from(spec.id.0));
                let (ring, supply) = Ring::new(Arc::clone(&self.pool), most, chunk, rng);
                let confirmations: Arc<Mutex<Confirmations>> = Arc::default();
                let per_topic = self.preparation.producers_per_topic.max(1);
                let probes = probing::partitions(spec.id.0 % per_topic, per_topic, spec.partitions).count() as u64;
                let probed: Arc<Mutex<BTreeSet<u32>>> = Arc::default();
                lock(&self.counting).probes.push((probes, Arc::clone(&probed)));
                reported.push(Reported::new(&ring, &tallies[nth % tallies.len()], &confirmations, &probed));
                self.producers.insert(spec.id, Confirmed { confirmations, probes, whole: spec.whole });
                let sender = Sender::new(spec.id, full);
                self.lanes.push(Lane { id: spec.id, partitions: spec.partitions, producer, ring, supply, sender });
                nth += 1;
            }
            let (problems, stop) = (Arc::clone(&self.problems), Arc::clone(&self.threads.stop_reporting));
            let silences = Arc::clone(&silences);
            self.threads.clients += 1;
            self.threads.reporting.push(spawn(name, move || {
                reporting::run(reports, reported, &problems, &silences, &stop);
            })?);
        }
        self.lanes.sort_by_key(|lane| lane.id);
        Ok(Event::Done)
    }

    /// Sends probes that are like messages of the load: as long, with a key if they have one, through each partition.
    fn probe(&mut self, round: u64) -> Result<Event, Failure> {
        for subscription in lock(&self.counting).ledgers.values() {
            lock(&subscription.ledger).expect_probes(round);
            subscription.group.count_from_here();
        }
        let per_topic = self.preparation.producers_per_topic.max(1);
        let keys = KeyTable::new(Seed(self.preparation.seed.0));
        let mut walk = KeyWalk::new(self.preparation.keys);
        let count: u64 = self.producers.values().map(|producer| producer.probes).sum();
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        for lane in &mut self.lanes {
            let partitions = probing::partitions(lane.id.0 % per_topic, per_topic, lane.partitions);
            for (nth, partition) in partitions.enumerate() {
                let now = clock::now();
                let header = lane.sender.probe(WallTime(self.time.zero().0 + now.0), round);
                let mut payload = self.pool[0].clone();
                payload.resize(probing::len(payload.len(), header::LEN, nth == 0, count), 0);
                payload[..header::LEN].copy_from_slice(&header);
                let key = walk.next(now.0).map(|index| *keys.get(index));
                if let Err(trouble) = lane.producer.probe(partition, key.as_ref(), &payload) {
                    self.problems
                        .trouble(&Trouble { what: format!("a probe could not be sent: {}", trouble.what), ..trouble });
                }
            }
            lane.producer.hurry();
        }
        Ok(Event::Done)
    }

    fn start_load(
        &mut self,
        tempo: Tempo,
        producers: u32,
        begin: Begin,
        window: Option<Window>,
    ) -> Result<Event, Failure> {
        if self.load.is_some() {
            return Err(Failure::new(FailureKind::Protocol, "the load runs already"));
        }
        if let Some(lane) = self.lanes.iter().find(|lane| lane.id.0 >= producers) {
            let text = format!("the load is shared by {producers} producers, and here is {} (from 0)", lane.id);
            return Err(Failure::new(FailureKind::Protocol, text));
        }
        let orders = Arc::new(sending::Orders::default());
        let start = match begin {
            Begin::After(after) => clock::now() + after,
            Begin::At(wall) => Instant(wall.0.saturating_sub(clock::wall_zero().0)),
        };
        let lasts = window.map(|window| window.until);
        orders.set_schedule(sending::Schedule { start, tempo, lasts });
        let ends = window.map(|Window { from, until }| [start + from, start + until]);
        {
            let mut counting = lock(&self.counting);
            counting.loaded = Some(start);
            counting.ends.begin(ends);
            lock(&counting.silences).begin(start);
        }
        self.threads.receiving_orders.loaded.store(true, Relaxed);
        let count = self.lanes.len().min(cores());
        let mut groups: Vec<Vec<Lane>> = (0..count).map(|_| Vec::new()).collect();
        for (index, lane) in std::mem::take(&mut self.lanes).into_iter().enumerate() {
            groups[index % count].push(lane);
        }
        let keys = KeyTable::new(Seed(self.preparation.seed.0));
        let common = Arc::new(sending::Common {
            orders: Arc::clone(&orders),
            problems: Arc::clone(&self.problems),
            keys,
            how_keys: self.preparation.keys,
            catch_up: self.preparation.catch_up,
            time: Arc::clone(&self.time),
            producers,
            measured_from: ends.map_or(Instant(u64::MAX), |[from, _]| from),
        });
        let mut threads = Vec::new();
        for (index, group) in groups.into_iter().enumerate() {
            let counted = Arc::new(sending::Counted::default());
            lock(&self.counting).sent.push(Arc::clone(&counted));
            let common = Arc::clone(&common);
            threads.push(spawn(format!("send-{index}"), move || sending::run(group, &common, &counted))?);
        }
        if let Some(ends) = ends {
            let (counting, orders) = (Arc::clone(&self.counting), Arc::clone(&orders));
            spawn("window".to_owned(), move || keep_ends(&counting, &orders, ends))?;
        }
        self.load = Some(Load { orders, threads });
        Ok(Event::Done)
    }

    /// Everything counted so far, or what belongs to a part of the load.
    fn read(&self, reach: Reach, cut: &AtomicBool) -> Box<Snapshot> {
        let give_up = clock::now() + WINDOW_WITHIN;
        loop {
            let now = clock::now();
            {
                let counting = lock(&self.counting);
                match counting.ends.look(reach, now, self.load.is_some()) {
                    Look::Kept(kept) => return kept,
                    Look::Wait if now < give_up && !cut.load(Relaxed) => {}
                    Look::Wait | Look::Now => return Box::new(counting.snapshot()),
                }
            }
            std::thread::sleep(WINDOW_LOOK);
        }
    }

    fn set_rate(&mut self, rate: Rate) -> Result<Event, Failure> {
        let Some(load) = &self.load else {
            return Err(Failure::new(FailureKind::Protocol, "no load runs whose rate could be set"));
        };
        load.orders.set_schedule(sending::Schedule { start: clock::now(), tempo: rate.into(), lasts: None });
        Ok(Event::Done)
    }

    fn set_paused(&self, paused: bool) -> Event {
        self.threads.receiving_orders.paused.store(paused, Relaxed);
        Event::Done
    }

    fn in_flight(&self) -> u64 {
        lock(&self.counting).in_flight()
    }

    fn stop_load(&mut self, within: Duration, cut: &AtomicBool) -> Result<Event, Failure> {
        if let Some(load) = self.load.take() {
            load.orders.stop.store(true, Relaxed);
            for thread in load.threads {
                match thread.join() {
                    Ok(lanes) => self.lanes.extend(lanes),
                    Err(_) => return Err(Failure::new(FailureKind::Broken, "a sending thread panicked")),
                }
            }
        }
        let deadline = clock::now() + within;
        self.lanes.iter_mut().for_each(|lane| lane.producer.hurry());
        while self.in_flight() > 0 && clock::now() < deadline && !cut.load(Relaxed) {
            std::thread::sleep(LOOK_EVERY);
        }
        if self.in_flight() > 0 {
            tracing::warn!("{} messages had no delivery report after {within:?}: they are given up", self.in_flight());
            self.lanes.iter_mut().for_each(|lane| lane.producer.purge());
            let deadline = clock::now() + PURGE_WITHIN;
            while self.in_flight() > 0 && clock::now() < deadline {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(Event::Done)
    }

    fn verify(&self) -> Event {
        let mut comparison = Comparison::new(self.pool[0].len());
        for (id, Subscription { ledger, whole, topic, .. }) in &lock(&self.counting).ledgers {
            let confirmed = |id| self.producers.get(&id).map(|producer| lock(&producer.confirmations));
            comparison.subscription(*id, *whole, self.producers_of(*topic), &lock(ledger), confirmed);
        }
        for (id, Confirmed { confirmations, whole, .. }) in &self.producers {
            comparison.producer(*id, *whole, &lock(confirmations));
        }
        Event::Verified(Box::new(comparison.findings()))
    }

    /// Ends the run: what is left of it is closed, the embedded broker last.
    fn close(mut self, reaper: &Reaper) -> Result<Event, Failure> {
        let closed = self.close_clients(reaper, CLOSE_WITHIN);
        let Self { server, driver, .. } = self;
        let close = move || {
            drop(driver);
            drop(server);
            true
        };
        // Where the clients could not leave, it cannot either.
        let answers = closed.is_ok();
        reaper
            .close("the connection to the messaging system", 1, CLOSE_WITHIN, close, || answers)
            .and(closed)
            .map(|()| Event::Done)
    }

    /// Stops every thread of the load and closes every producer and consumer, at the same time and within a bound.
    fn close_clients(&mut self, reaper: &Reaper, within: Duration) -> Result<(), Failure> {
        if let Some(load) = self.load.take() {
            load.orders.stop.store(true, Relaxed);
            for thread in load.threads {
                self.lanes.extend(thread.join().unwrap_or_default());
            }
        }
        self.threads.receiving_orders.stop.store(true, Relaxed);
        self.threads.stop_reporting.store(true, Relaxed);
        // The sending halves first: what they still have in flight is given up, and reported as such.
        let lanes = std::mem::take(&mut self.lanes);
        let threads = std::mem::take(&mut self.threads.reporting).into_iter();
        let threads: Vec<_> = threads.chain(std::mem::take(&mut self.threads.receiving)).collect();
        let clients = std::mem::take(&mut self.threads.clients);
        let close = move || {
            drop(lanes);
            threads.into_iter().all(|thread| thread.join().is_ok())
        };
        let driver = &self.driver;
        let what = format!("{clients} clients");
        reaper.close(&what, clients, within, close, || driver.answers(ANSWERS_WITHIN))
    }
}

impl Counting {
    /// Whether everything that is due before `at` has been handed over or skipped.
    fn have_passed(&self, at: Instant) -> bool {
        self.sent.iter().all(|counted| counted.passed.load(Relaxed) >= at.0)
    }

    /// Attempted messages, and those whose outcome is known.
    fn attempted_and_reported(&self) -> (u64, u64) {
        let tallies = self.acknowledgements.iter().map(|tally| {
            let tally = lock(tally);
            tally.acked + tally.failed
        });
        let reported: u64 = tallies.sum();
        let refused: u64 = self.sent.iter().map(|counted| counted.refused.load(Relaxed)).sum();
        let attempted = self.sent.iter().map(|counted| {
            let departures = lock(&counted.departures);
            departures.before.attempted + departures.counted.attempted
        });
        let attempted = attempted.sum();
        (attempted, reported + refused)
    }

    fn in_flight(&self) -> u64 {
        let (attempted, reported) = self.attempted_and_reported();
        attempted.saturating_sub(reported)
    }

    /// Everything counted so far.
    fn snapshot(&self) -> Snapshot {
        let mut standing = Standing::new(self.loaded.is_some());
        for (id, subscription) in &self.ledgers {
            let group = subscription.group.view(self.loaded);
            standing.subscription(*id, subscription.whole, &lock(&subscription.ledger), group);
        }
        self.arrivals.iter().for_each(|arrivals| standing.arrivals(&lock(arrivals)));
        self.acknowledgements.iter().for_each(|tally| standing.acknowledgements(&lock(tally)));
        let mut schedule_lag = Duration::ZERO;
        for counted in &self.sent {
            standing.refused(counted.refused.load(Relaxed));
            standing.departures(&lock(&counted.departures));
            schedule_lag = schedule_lag.max(Duration::from_nanos(counted.lag.load(Relaxed)));
        }
        self.probes.iter().for_each(|(probes, probed)| standing.probes(*probes, lock(probed).len() as u64));
        standing.problems(self.problems.list());
        let taken_at = clock::now();
        // The broker's CPU is read from outside, so that a stalled broker delays nothing.
        let broker_cpu = self.broker_thread.map_or(Duration::ZERO, process::thread_cpu);
        Snapshot {
            schedule_lag,
            hopeless: self.problems.hopeless(),
            process: process::usage(broker_cpu),
            throttled: lock(&self.throttled).so_far(taken_at),
            silences: lock(&self.silences).so_far(),
            ..standing.at(taken_at, WallTime(clock::wall_zero().0 + taken_at.0))
        }
    }
}

/// Records the state at each end of the window: answers and arrivals by when they come, departures by when they were
/// due. Ends when the load is stopped before.
fn keep_ends(counting: &Mutex<Counting>, orders: &sending::Orders, ends: [Instant; 2]) {
    clock::sleep_precisely();
    let stopped = || orders.stop.load(Relaxed);
    for (nth, end) in ends.into_iter().enumerate() {
        while clock::now() < end && !stopped() {
            clock::sleep_until(end.min(clock::now() + Duration::from_millis(20)));
        }
        if stopped() {
            return;
        }
        let stood = lock(counting).snapshot();
        let give_up = clock::now() + SENDERS_WITHIN;
        while clock::now() < give_up && !stopped() && !lock(counting).have_passed(end) {
            std::thread::sleep(WINDOW_LOOK);
        }
        let mut counting = lock(counting);
        let mut departures = Departures::default();
        counting.sent.iter().for_each(|sent| Ends::due_before(nth, &lock(&sent.departures), &mut departures));
        counting.ends.keep(nth, stood, &departures, clock::wall_zero());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever a controller requests: two producers of one topic never share a client.
    #[test]
    fn producers_share_a_client_as_they_are_told_unless_their_topic_is_the_same() {
        let spec = |id, topic: &str, client| ProducerSpec {
            id: ProducerId(id),
            topic: topic.to_owned(),
            partitions: 1,
            whole: true,
            client,
        };
        let specs = vec![
            spec(0, "a", 7),
            spec(1, "b", 7),
            spec(2, "b", 7),
            spec(3, "a", 2),
            spec(4, "b", 7),
            spec(5, "c", 7),
            spec(6, "a", 7),
        ];
        let clients: Vec<Vec<u32>> =
            by_client(specs).into_iter().map(|specs| specs.iter().map(|spec| spec.id.0).collect()).collect();
        assert_eq!(clients, [vec![3], vec![0, 1, 5], vec![2, 6], vec![4]]);
    }
}
