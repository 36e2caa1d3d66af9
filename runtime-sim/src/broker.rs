//! The messaging system's node: `omb_broker` behind frames, faulty on demand, and observed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use madsim::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::{NodeId, spawn_local},
    time::TimeHandle,
};
use omb_broker::{Broker, Config, ConnId, GroupState, Input, Output, Request, Response, Token};
use omb_machine::{Machine, Wake, seed::Seed, time::Instant};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::{sync::mpsc, time::sleep};

use crate::{
    clock::Clock,
    fault::Weather,
    load::record::unpack,
    net::{Question, Reply, read_frame, write_frame},
    portable::event_loop,
    truth::{Place, Truth},
    witness::Witness,
};

/// How often a stalled broker checks whether it may go on.
const STALL_STEP: Duration = Duration::from_millis(20);

/// The broker and what survives its restarts.
#[derive(Clone, Debug)]
pub struct SimBroker {
    kept: Arc<Mutex<Kept>>,
    witness: Witness,
    weather: Weather,
    clock: Clock,
}

#[derive(Debug)]
struct Kept {
    broker: Broker,
    connections: u64,
    /// Where the replies of each open connection go.
    writers: BTreeMap<ConnId, mpsc::UnboundedSender<Reply>>,
    /// Requests that are performed but answered with an error.
    spoiled: BTreeSet<(ConnId, Token)>,
    /// Batches of each partition that have been examined, and groups that have had members.
    looked: BTreeMap<Place, i64>,
    peopled: BTreeSet<String>,
    /// Records it had dropped at the last check.
    dropped: u64,
    rng: ChaCha8Rng,
}

/// An observer of the broker after every step.
pub type Look = Arc<dyn Fn(&Broker, Instant) + Send + Sync>;

impl SimBroker {
    /// Starts the node at `address`. `capacity` is what it may store.
    #[must_use]
    pub fn start(
        address: SocketAddr,
        capacity: u64,
        seed: Seed,
        clock: Clock,
        weather: Weather,
        witness: Witness,
        look: Look,
    ) -> (Self, NodeId) {
        let kept = Kept {
            broker: Broker::new(Config { read_kept: capacity / 16, ..Config::new(capacity, seed.0) }),
            connections: 0,
            writers: BTreeMap::new(),
            spoiled: BTreeSet::new(),
            looked: BTreeMap::new(),
            peopled: BTreeSet::new(),
            dropped: 0,
            rng: seed.stream("broker front"),
        };
        let broker = Self { kept: Arc::new(Mutex::new(kept)), witness, weather, clock };
        let born = broker.clone();
        let node = Handle::current()
            .create_node()
            .name("broker")
            .ip(address.ip())
            .init(move || born.clone().serve(address, look.clone()))
            .build();
        (broker, node.id())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve(self, address: SocketAddr, look: Look) {
        let listener = TcpListener::bind(address).await.expect("the address is the node's own");
        let (inputs, mut received) = mpsc::unbounded_channel();
        // The connections of an earlier life are gone; what was stored is not.
        for conn in std::mem::take(&mut self.kept().writers).into_keys() {
            let _ = inputs.send(Input::Closed(conn));
        }
        let machine = self.clone();
        spawn_local(async move {
            let clock = machine.clock.clone();
            let perform = |output: Output| {
                machine.reply(output);
                ControlFlow::Continue(())
            };
            let seen = |machine: &SimBroker, now: Instant| {
                machine.capture();
                look(&machine.kept().broker, now);
            };
            event_loop::run(&mut machine.clone(), &mut received, perform, seen, &clock).await;
        });
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(self.clone().converse(stream, inputs.clone()));
        }
    }

    fn reply(&self, Output::Reply { conn, token, response }: Output) {
        let mut kept = self.kept();
        let spoiled = kept.spoiled.remove(&(conn, token));
        if let Some(writer) = kept.writers.get(&conn) {
            let response = if spoiled { Err("something went wrong inside".to_owned()) } else { Ok(response) };
            let _ = writer.send(Reply { token, response });
        }
    }

    async fn converse(self, stream: TcpStream, inputs: mpsc::UnboundedSender<Input>) {
        let (replies, outgoing) = mpsc::unbounded_channel();
        let conn = {
            let mut kept = self.kept();
            kept.connections += 1;
            let conn = ConnId(kept.connections);
            kept.writers.insert(conn, replies.clone());
            conn
        };
        let _ = inputs.send(Input::Opened(conn));
        let (mut from, to) = tokio::io::split(stream);
        let writer = spawn_local(self.clone().answer(to, outgoing));
        let cuts = self.weather.now().broker.cuts;
        loop {
            let question: Question = tokio::select! {
                biased;
                () = self.cut(cuts) => {
                    self.witness.hit("effect: connection cut by the broker");
                    break;
                }
                question = read_frame(&mut from) => match question {
                    Ok(question) => question,
                    Err(_) => break,
                },
            };
            self.wait_out_stall().await;
            self.ask(conn, question, &replies, &inputs);
        }
        writer.abort();
        self.kept().writers.remove(&conn);
        let _ = inputs.send(Input::Closed(conn));
    }

    async fn cut(&self, cuts: u64) {
        while self.weather.now().broker.cuts == cuts {
            sleep(STALL_STEP * 5).await;
        }
    }

    async fn wait_out_stall(&self) {
        if self.weather.now().broker.stalled {
            self.witness.hit("effect: stalled broker kept somebody waiting");
        }
        while self.weather.now().broker.stalled {
            sleep(STALL_STEP).await;
        }
    }

    fn ask(
        &self,
        conn: ConnId,
        question: Question,
        replies: &mpsc::UnboundedSender<Reply>,
        inputs: &mpsc::UnboundedSender<Input>,
    ) {
        let Question { token, request } = question;
        let failing = self.weather.now().broker.failing;
        let name = name(&request);
        let fails = failing > 0.0 && self.kept().rng.random_bool(failing);
        if fails {
            let performed = self.kept().rng.random_bool(0.5);
            self.witness.note("broker", format_args!("fails {name} of connection {}, performed: {performed}", conn.0));
            self.witness
                .hit(format!("effect: {name} failed{}", if performed { " after it was performed" } else { "" }));
            if !performed {
                let _ = replies.send(Reply { token, response: Err("not now".to_owned()) });
                return;
            }
            self.kept().spoiled.insert((conn, token));
        }
        let _ = inputs.send(Input::Request { conn, token, request });
    }

    async fn answer(self, mut to: impl tokio::io::AsyncWrite + Unpin, mut outgoing: mpsc::UnboundedReceiver<Reply>) {
        while let Some(reply) = outgoing.recv().await {
            let slow = self.weather.now().broker.slow;
            if !slow.is_zero() {
                let delay = slow.mul_f64(self.kept().rng.random_range(0.0..1.0));
                self.witness.hit("effect: reply delayed by the broker");
                sleep(delay).await;
            }
            self.wait_out_stall().await;
            if let Ok(Response::Produce(_) | Response::Fetch(_)) = &reply.response {
                self.witness.hit("effect: load answered");
            }
            if write_frame(&mut to, &reply).await.is_err() {
                return;
            }
        }
    }

    /// Records what was stored since the last step, and which groups lost their last member.
    fn capture(&self) {
        let mut kept = self.kept();
        let Kept { broker, looked, peopled, dropped, .. } = &mut *kept;
        let mut notes = self.witness.notes();
        let notes = &mut *notes;
        notes.truths.iter_mut().for_each(|truth| truth.left_over.clear());
        let names = broker.topics().map(|topic| topic.name).chain(broker.groups().map(|group| group.name));
        for name in names {
            if let Some(run) = notes.topics.get(&name) {
                notes.truths[*run].left_over.insert(name);
            }
        }
        for info in broker.topics() {
            for partition in 0..info.partitions.cast_unsigned() {
                let log = broker.log(&info.name, partition).expect("it was just listed");
                let place = Place { topic: info.name.clone(), partition };
                if looked.get(&place).copied().unwrap_or(0) < log.end() {
                    let from = looked.insert(place.clone(), log.end()).unwrap_or(0);
                    let run = notes.topics.get(&info.name).copied().unwrap_or(0);
                    store(&mut notes.truths[run], &place, from, log);
                }
            }
        }
        if broker.produces_waiting() > 0 {
            *notes.coverage.entry("effect: produce waits for room".to_owned()).or_default() += 1;
        }
        if broker.dropped().records > *dropped {
            *dropped = broker.dropped().records;
            *notes.coverage.entry("effect: broker dropped what was read".to_owned()).or_default() += 1;
        }
        for group in broker.groups() {
            if let Some(run) = notes.topics.get(&group.name).copied() {
                let known = notes.truths[run].groups.entry(group.name.clone()).or_default();
                known.now = (group.state == GroupState::Stable).then_some(group.members.len());
                known.most = known.most.max(known.now.unwrap_or_default());
                if known.now.is_some() && known.stable.0 != group.generation {
                    known.stable = (group.generation, TimeHandle::current().elapsed());
                }
            }
            if !group.members.is_empty() {
                peopled.insert(group.name);
            } else if let Some(truth) = notes.topics.get(&group.name).map(|run| &mut notes.truths[*run])
                && truth.reading
                && peopled.contains(&group.name)
                && truth.groups_emptied.insert(group.name)
            {
                *notes.coverage.entry("effect: group lost all its members".to_owned()).or_default() += 1;
            }
        }
    }
}

fn store(truth: &mut Truth, place: &Place, from: i64, log: &omb_broker::log::Log) {
    let stored = truth.stored.entry(place.clone()).or_default();
    for batch in log.batches().filter(|batch| batch.base_offset >= from) {
        let base = usize::try_from(batch.base_offset).expect("offsets are not negative");
        // What was stored and dropped within one step is a gap.
        stored.resize(base, None);
        stored.extend(unpack(&batch.bytes).into_iter().map(|record| Some(record.mark)));
    }
    stored.resize(usize::try_from(log.end()).expect("offsets are not negative"), None);
    truth.storings.extend((from..log.end()).map(|offset| (place.clone(), offset)));
}

fn name(request: &Request) -> &'static str {
    match request {
        Request::Metadata { .. } => "metadata",
        Request::CreateTopics { .. } => "create topics",
        Request::DeleteTopics { .. } => "delete topics",
        Request::Produce { .. } => "produce",
        Request::Fetch { .. } => "fetch",
        Request::InitProducerId { .. } => "init producer",
        Request::JoinGroup(_) => "join",
        Request::SyncGroup(_) => "sync",
        Request::Heartbeat { .. } => "heartbeat",
        Request::CommitOffsets { .. } => "commit",
        Request::FetchOffsets { .. } => "fetch offsets",
        _ => "other request",
    }
}

/// The machine as its loop sees it: the part that is kept stays reachable for the next life of the node.
impl Machine for SimBroker {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        self.kept().broker.handle_input(now, input);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.kept().broker.handle_timeout(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.kept().broker.poll_output()
    }

    fn poll_timeout(&self) -> Option<Wake> {
        self.kept().broker.poll_timeout()
    }
}
