//! One node of the cluster: an election, a router, a store, and the uploads that pass through.
//!
//! ```text
//! client ─Put─▶ entry ─Place─▶ leader ─Placed─▶ entry ═body═▶ chosen node ─▶ disk      (any two, or all, may be one)
//! client ◀──────────────Stored── entry ◀──────────Stored────────┘
//!                                entry ─Finished─▶ leader
//! ```
//!
//! Bodies do not pass through here: [`Output::Relay`] and [`Output::Store`] say from where to where they go, and the
//! result comes back as an input. Before an upload that some node may hold is placed, all reachable nodes are asked for
//! it: a leader knows all ids that it has placed, and those that nodes recall when it begins to lead (`known.rs`). An
//! order names the leadership under which it was given, and a node that has seen a newer one refuses it.

mod account;
mod entry;
mod gather;
mod known;
mod leading;
pub mod message;
pub mod metrics;
pub mod status;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::IpAddr,
    path::Path,
    time::Duration,
};

use rand::Rng as _;

use crate::{
    config::{ClusterConfig, Policy},
    election::{self, Election},
    handshake::Refusal,
    peer::{Digest, Leadership, NodeId, RequestId},
    routing::{End, Router},
    store::{self, Name, Step, Store},
};
use entry::{Entered, Storing};
use gather::{Gather, Purpose};
use leading::{Leading, Report};
use message::{Envelope, Message, Order, Question, Reply, Request};
use metrics::{Counts, Kind, Open, Outcome};
use omb_machine::{Machine, Wake, printable::printable_within, seed::Seed, time::Instant};
use watch::Watch;

/// A request's connection, numbered by the runtime. A number is not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What can happen to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection to a peer was established.
    Connected(NodeId),
    /// A peer, or a node that orders for its clients, connects from this address: its next messages come from there.
    Speaks {
        /// The peer.
        peer: NodeId,
        /// Its address, which proves nothing by itself.
        from: IpAddr,
    },
    /// A peer sent a message.
    Received(Envelope),
    /// One side refused the other: version, key, id. Logged once per source and minute.
    TurnedAway {
        /// The other side.
        stranger: Stranger,
        /// Why.
        refusal: Refusal,
    },
    /// A client asks for something.
    Request {
        /// Its connection.
        client: ClientId,
        /// What it asks for.
        request: Request,
    },
    /// A node that relays for a client of its own orders something.
    Order {
        /// Its connection.
        client: ClientId,
        /// The node, proven a peer when it connected.
        from: NodeId,
        /// What it orders.
        order: Order,
    },
    /// [`Output::Relay`] has ended.
    Relayed {
        /// The client whose body it was.
        client: ClientId,
        /// The answer of the node that it went to, or why there is none.
        outcome: Result<Reply, RelayFailure>,
    },
    /// [`Output::Persist`] succeeded.
    Persisted(Leadership),
    /// [`Output::Persist`] failed, with the reason.
    PersistFailed(Leadership, String),
    /// Disk steps were done, or one failed. [`store::Input::Put`] is the node's own.
    Disk(store::Input),
}

/// The other side of a connection that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stranger {
    /// A peer that this node has connected to.
    Peer(NodeId),
    /// A process that connected to this node from this address. The id that it claims is not proven.
    From(IpAddr, Option<NodeId>),
}

impl Stranger {
    /// The part that it cannot change from one attempt to the next.
    fn source(self) -> Self {
        match self {
            Self::From(address, _) => Self::From(address, None),
            peer @ Self::Peer(_) => peer,
        }
    }
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(node) => node.fmt(f),
            Self::From(address, Some(node)) => write!(f, "{address}, which calls itself {node}"),
            Self::From(address, None) => write!(f, "{address}"),
        }
    }
}

/// Why a relay has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayFailure {
    /// The client broke off.
    #[error("the client broke off: {0}")]
    Client(String),
    /// The other node broke off, or never listened. It may have stored all of it.
    #[error("the other node broke off: {0}")]
    Node(String),
}

/// What a node wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this to a peer. May be lost, delayed or duplicated.
    Send {
        /// The peer.
        to: NodeId,
        /// What to send.
        envelope: Envelope,
    },
    /// Answer a request, as the last step.
    Answer {
        /// Its connection.
        client: ClientId,
        /// What to answer.
        reply: Reply,
    },
    /// Stream a client's body to another node, after this order, and answer with [`Input::Relayed`].
    Relay {
        /// The client.
        client: ClientId,
        /// The node.
        to: NodeId,
        /// [`Order::Store`].
        order: Order,
    },
    /// Perform [`Step::Write`] with the body of this client, and answer as [`store::Step`] says.
    Store {
        /// The client.
        client: ClientId,
        /// The upload.
        id: RequestId,
    },
    /// Perform other steps in sequence, stopping at one that fails, and answer as [`store::Output::Do`] says.
    Disk(Vec<Step>),
    /// Answer a request with [`Reply::Body`] and this file of the shared folder.
    SendFile {
        /// Its connection.
        client: ClientId,
        /// The file.
        file: store::Stored,
    },
    /// Answer a request with what another node answers to [`Order::Send`], body included.
    Fetch {
        /// Its connection.
        client: ClientId,
        /// The node.
        from: NodeId,
        /// The upload.
        name: Name,
    },
    /// Make this survive a restart, and report the result.
    Persist(Leadership),
    /// The leader that this node follows from now on.
    LeaderChanged(Option<Leadership>),
    /// As the leader it has assigned an upload to a node. For the log, and formatted only if that is enabled.
    Recorded {
        /// The policy in use.
        policy: Policy,
        /// The node.
        node: NodeId,
        /// Uploads assigned to it so far.
        total: u64,
    },
    /// It has stored an upload, which survives what the durability says. For the log, like the one above.
    Saved {
        /// This node.
        node: NodeId,
        /// The upload.
        stored: store::Stored,
    },
    /// A line for the log.
    Info(String),
    /// A warning for the log, about something that needs attention.
    Warn(String),
}

impl Output {
    /// The line for the log, if it is one. `shared_dir` is the folder of uploads as configured.
    #[must_use]
    pub fn line(&self, shared_dir: &Path) -> Option<String> {
        match self {
            Self::Info(line) | Self::Warn(line) => Some(line.clone()),
            // A policy's own name is how people know it from the log: LeastLoad, RoundRobin.
            Self::Recorded { policy, node, total } => {
                Some(format!("[{policy:?}] RECORDED: Node {} now has {total} total requests", node.0))
            }
            Self::Saved { node, stored } => {
                let path = shared_dir.join(stored.name.to_string());
                Some(format!("[Node {}] ✓ Saved image to \"{}\"", node.0, path.display()))
            }
            _ => None,
        }
    }
}

/// How long a leader has to decide which node takes an upload: it may have to ask all nodes first.
const PLACE_MAX: Duration = Duration::from_secs(2);

/// More uploads than any node is ever assigned: each takes some 100 bytes of a node's memory, these would take 100 TB.
const LEVEL_MAX: u64 = 1 << 40;

/// How often the same stranger is logged.
const STRANGER_EVERY: Duration = Duration::from_secs(60);

/// For how long the reason why a peer cannot be connected to is reported: it is tried again every few seconds.
const SHUT_FOR: Duration = Duration::from_secs(15);

/// Most characters of that reason.
const SHUT_CHARS_MAX: usize = 400;

/// Strangers that are logged within that time; further ones are not.
const STRANGERS_MAX: usize = 256;

/// One node.
#[derive(Debug)]
pub struct Node {
    me: NodeId,
    config: ClusterConfig,
    digest: Digest,
    seed: Seed,
    election: Election,
    store: Store,
    /// Uploads that clients are making through this node.
    entered: BTreeMap<ClientId, Entered>,
    /// Of them, those that the leader was asked about, by ticket, with the deadline. All have the same timeout, so the
    /// first asked is the first due.
    asked: BTreeMap<u64, (ClientId, Instant)>,
    /// The clients that wait for what is being stored here.
    storing: BTreeMap<RequestId, Storing>,
    gathers: BTreeMap<u64, Gather>,
    leading: Option<Leading>,
    /// Uploads assigned to this node: the highest count that a leader has reported.
    level: u64,
    /// Peers that are ignored, why, and when they last tried.
    refused: BTreeMap<NodeId, (Unheard, Instant)>,
    /// Peers that cannot be connected to because one side refuses the other, why, and when that last happened.
    shut: BTreeMap<NodeId, (String, Instant)>,
    /// When each stranger was last logged.
    strangers: BTreeMap<Stranger, Instant>,
    /// When each peer that sent what no honest node can was last logged.
    disbelieved: BTreeMap<NodeId, Instant>,
    /// The address that each peer last connected from.
    speaks_from: BTreeMap<NodeId, IpAddr>,
    watch: Watch,
    /// Requests in flight.
    open: BTreeMap<ClientId, Open>,
    counts: Counts,
    /// The disk's last failure, and when it was.
    trouble: Option<(Instant, String)>,
    tickets: u64,
    ticked: Instant,
    outputs: VecDeque<Output>,
}

/// Why a peer is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unheard {
    /// It was given the list of peers that has this digest.
    Peers(Digest),
    /// It speaks this version of the protocol.
    Version(u16),
}

impl Node {
    /// Starts at `now` with the leadership restored from disk. Random choices come from `seed`.
    ///
    /// # Panics
    /// If `me` is not among the peers.
    #[must_use]
    pub fn new(now: Instant, me: NodeId, config: ClusterConfig, restored: Leadership, seed: Seed) -> Self {
        let peers: BTreeSet<NodeId> = config.peers.ids().collect();
        let mut node = Self {
            me,
            digest: config.peers.digest(),
            seed,
            election: Election::new(now, me, &peers, restored, config.timing, config.quorum),
            store: Store::new(config.durability, config.scrub),
            config,
            entered: BTreeMap::new(),
            asked: BTreeMap::new(),
            storing: BTreeMap::new(),
            gathers: BTreeMap::new(),
            leading: None,
            level: 0,
            refused: BTreeMap::new(),
            strangers: BTreeMap::new(),
            disbelieved: BTreeMap::new(),
            speaks_from: BTreeMap::new(),
            shut: BTreeMap::new(),
            watch: Watch::new(now, peers.into_iter().filter(|peer| *peer != me)),
            open: BTreeMap::new(),
            counts: Counts::default(),
            trouble: None,
            // Questions of a former process may be answered now.
            tickets: seed.stream("tickets").next_u64() >> 1,
            ticked: now,
            outputs: VecDeque::new(),
        };
        node.drain(now);
        node
    }

    /// The election, for observers.
    #[must_use]
    pub fn election(&self) -> &Election {
        &self.election
    }

    /// The store, for observers.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The books of a leader, once it has opened them.
    #[must_use]
    pub fn router(&self) -> Option<&Router> {
        self.leading.as_ref().filter(|leading| leading.census.is_none()).map(|leading| &leading.router)
    }

    fn leader(&self) -> Option<NodeId> {
        self.election.leader().and_then(|leadership| leadership.leader)
    }

    fn on_envelope(&mut self, now: Instant, Envelope { from, peers, message }: Envelope) {
        if from == self.me || self.config.peers.address(from).is_none() {
            return;
        }
        if peers != self.digest {
            if self.refuses_anew(now, from, Unheard::Peers(peers)) {
                self.info(format!(
                    "[Node {}] refuses node {}: it was given another list of peers (digest {}, here {}); \
                     config.json must name the same peers everywhere",
                    self.me.0,
                    from.0,
                    peers.short(),
                    self.digest.short()
                ));
            }
            if message == Message::Hello {
                self.send(from, Message::Refused);
            }
            return;
        }
        self.refused.remove(&from);
        self.shut.remove(&from);
        match message {
            // What they are for is done above.
            Message::Hello | Message::Refused => {}
            Message::Ballot(ballot) => self.elect(now, election::Input::Received { from, ballot }),
            Message::Census { of, level } => self.on_census(now, from, of, level),
            // No node was ever assigned as many. Believing it would leave no room to count.
            Message::Report { level, stored, .. } if level.max(stored) >= LEVEL_MAX => {
                self.disbelieve(now, from, &format!("a report of {} uploads", level.max(stored)));
            }
            Message::Report { of, level, stored } => self.on_report(now, from, of, Report { level, stored }),
            Message::Recall { of, after } => self.on_recall(from, of, after),
            Message::Recalled { of, after, ids, more } => self.on_recalled(now, from, of, after, &ids, more),
            Message::Place { ticket, put } => self.place(now, from, ticket, put),
            Message::Placed { ticket, id, leadership, outcome } => {
                self.on_placed(now, from, ticket, id, leadership, outcome);
            }
            Message::Finished { id, node, end } => self.on_finished(now, from, id, node, end),
            Message::Ask { ticket, question } => {
                let answer = self.answer(now, &question);
                self.send(from, Message::Answer { ticket, answer });
            }
            Message::Answer { ticket, answer } => {
                let done = self.gathers.get_mut(&ticket).is_some_and(|gather| gather.take(from, answer));
                if done {
                    self.conclude(now, ticket);
                }
            }
        }
    }

    /// Records that a peer is ignored; returns whether that is news.
    fn refuses_anew(&mut self, now: Instant, peer: NodeId, why: Unheard) -> bool {
        self.refused.insert(peer, (why, now)).map(|(before, _)| before) != Some(why)
    }

    /// They must not fill the log, however many come, and how often.
    fn on_turned_away(&mut self, now: Instant, stranger: Stranger, refusal: Refusal) {
        // A node that listens at a peer's address is that peer; one that connects from elsewhere may claim anything.
        if let (Stranger::Peer(peer), Refusal::Version { theirs, .. }) = (stranger, &refusal) {
            self.refuses_anew(now, peer, Unheard::Version(*theirs));
        }
        if let Stranger::Peer(peer) = stranger {
            self.shut.insert(peer, (printable_within(&refusal.to_string(), SHUT_CHARS_MAX), now));
        }
        let source = stranger.source();
        if self.strangers.len() >= STRANGERS_MAX {
            self.strangers.retain(|_, logged| now.since(*logged) < STRANGER_EVERY);
        }
        let logged = self.strangers.get(&source).is_some_and(|logged| now.since(*logged) < STRANGER_EVERY);
        if !logged && (self.strangers.len() < STRANGERS_MAX || self.strangers.contains_key(&source)) {
            self.strangers.insert(source, now);
            let me = self.me.0;
            self.warn(match (stranger, &refusal) {
                (Stranger::Peer(peer), refusal) if refusal.is_theirs() => {
                    format!("[Node {me}] is refused by {peer}: {refusal}")
                }
                _ => format!("[Node {me}] refuses {stranger}: {refusal}"),
            });
        }
    }

    /// A peer sent what no honest node can: nothing changes, and it is logged once per peer and minute.
    fn disbelieve(&mut self, now: Instant, peer: NodeId, what: &str) {
        let logged = self.disbelieved.get(&peer).is_some_and(|logged| now.since(*logged) < STRANGER_EVERY);
        if !logged {
            self.disbelieved.insert(peer, now);
            self.warn_of(peer, what);
        }
    }

    /// A process with a peer's key or address may not be that peer: the log names the address that it connected from.
    fn warn_of(&mut self, peer: NodeId, what: &str) {
        let from = self.speaks_from.get(&peer).map(|from| format!(" at {from}")).unwrap_or_default();
        self.warn(format!("[Node {}] does not believe {peer}{from}: {what}", self.me.0));
    }

    /// The leader asks how much this node was assigned, and reports its own count: no other node is believed.
    fn on_census(&mut self, now: Instant, from: NodeId, of: Leadership, level: Option<u64>) {
        match level {
            Some(level @ LEVEL_MAX..) => return self.disbelieve(now, from, &format!("a census of {level} uploads")),
            Some(level) if of.leader == Some(from) && self.election.leader() == Some(of) => {
                self.level = self.level.max(level);
            }
            _ => {}
        }
        self.level = self.level.max(self.store.count());
        let (level, stored) = (self.level, self.store.count());
        // A node that has not read its folder can take nothing yet, and would report too little.
        if self.store.is_ready() {
            self.send(from, Message::Report { of, level, stored });
        }
    }

    fn on_request(&mut self, now: Instant, client: ClientId, request: Request) {
        self.opened(now, client, Kind::of(&request));
        match request {
            Request::Put(put) => self.on_put(now, client, put),
            Request::Get { name } => {
                if !self.sends(now, client, name) {
                    let question = Question::Holder { id: name.id, asked: None, label: None };
                    self.gather(now, question, Purpose::Get { client, name });
                }
            }
            Request::Find { sought } if sought.len() > message::SOUGHT_MAX => {
                let text = format!("a name of {} bytes is looked for; allowed: {}", sought.len(), message::SOUGHT_MAX);
                self.reply(now, client, Reply::Refused(text));
            }
            Request::Find { sought } => self.find(now, client, sought),
            Request::List { after } => self.list(now, client, after),
            Request::Status => self.gather(now, Question::Status, Purpose::Status { client }),
            Request::Discover => {
                let for_ms = watch::ms(now.since(self.watch.since));
                let (node, leader, peers) = (self.me, self.election.leader(), self.peers(now));
                self.reply(now, client, Reply::Discovered { node, leader, for_ms, peers });
            }
        }
    }

    fn on_order(&mut self, now: Instant, client: ClientId, from: NodeId, order: Order) {
        self.opened(now, client, Kind::of_order(&order));
        if from == self.me || self.config.peers.address(from).is_none() {
            return self.reply(now, client, Reply::Refused("orders are taken from peers only".to_owned()));
        }
        match order {
            Order::Store { put, leadership } => {
                if let Some(refusal) = self.refusal(&put) {
                    return self.reply(now, client, refusal);
                }
                let newest = self.election.newest();
                if leadership < newest {
                    let reason = format!("the order of {leadership} is void: {newest} came after");
                    return self.retry(now, client, reason, None);
                }
                if !self.election.believes(leadership) {
                    self.disbelieve(
                        now,
                        from,
                        &format!("an order of {leadership}, where {newest} is the newest known"),
                    );
                    return self.retry(now, client, format!("the order of {leadership} is not believed"), None);
                }
                self.store_here(now, client, &put);
            }
            Order::Send { name } => {
                if !self.sends(now, client, name) {
                    let reply = self.lost_here(name).unwrap_or(Reply::NotFound);
                    self.reply(now, client, reply);
                }
            }
        }
    }

    /// Sends an upload if it lies here.
    fn sends(&mut self, now: Instant, client: ClientId, name: Name) -> bool {
        let Some(file) = self.store.held(name.id).filter(|stored| stored.name == name) else { return false };
        self.count(now, client, Outcome::Done);
        self.outputs.push_back(Output::SendFile { client, file });
        true
    }

    fn on_leader(&mut self, now: Instant, leader: Option<Leadership>) {
        self.outputs.push_back(Output::LeaderChanged(leader));
        self.watch.on_leader(now, leader);
        self.abandon_asked(now, leader.and_then(|leadership| leadership.leader));
        self.leading = None;
        if let Some(of) = leader.filter(|of| of.leader == Some(self.me)) {
            self.lead(now, of);
        }
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn retry(&mut self, now: Instant, client: ClientId, reason: String, excluded: Option<NodeId>) {
        let leader = self.leader();
        self.reply(now, client, Reply::Retry { reason, excluded, leader });
    }

    /// Records a failure of the disk.
    fn on_trouble(&mut self, now: Instant, text: String) {
        self.counts.disk_failures += 1;
        self.trouble = Some((now, text));
    }

    fn info(&mut self, line: String) {
        self.outputs.push_back(Output::Info(line));
    }

    fn warn(&mut self, line: String) {
        self.outputs.push_back(Output::Warn(line));
    }

    fn send(&mut self, to: NodeId, message: Message) {
        let envelope = Envelope { from: self.me, peers: self.digest, message };
        self.outputs.push_back(Output::Send { to, envelope });
    }

    fn send_to_all(&mut self, message: &Message) {
        for to in self.config.peers.ids().filter(|id| *id != self.me).collect::<Vec<_>>() {
            self.send(to, message.clone());
        }
    }

    fn elect(&mut self, now: Instant, input: election::Input) {
        self.election.handle_input(now, input);
        self.drain(now);
    }

    /// Translates the outputs of the inner machines.
    fn drain(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.election.poll_output() {
                match output {
                    election::Output::Send { to, ballot } => self.send(to, Message::Ballot(ballot)),
                    election::Output::Persist(leadership) => self.outputs.push_back(Output::Persist(leadership)),
                    election::Output::LeaderChanged(leader) => self.on_leader(now, leader),
                    election::Output::Info(line) => self.info(line),
                    election::Output::Disbelieved { peer, what } => self.warn_of(peer, &what),
                }
            } else if let Some(output) = self.store.poll_output() {
                match output {
                    store::Output::Do(steps) => {
                        let output = match steps[..] {
                            [Step::Write(id)] => Output::Store { client: self.storing[&id].client, id },
                            _ => Output::Disk(steps),
                        };
                        self.outputs.push_back(output);
                    }
                    store::Output::Ready => {
                        let (me, count) = (self.me.0, self.store.count());
                        self.info(format!("[Node {me}] holds {count} uploads"));
                    }
                    store::Output::Ended { id, outcome } => self.on_stored(now, id, outcome),
                    store::Output::Info(line) => {
                        let me = self.me.0;
                        self.info(format!("[Node {me}] {line}"));
                    }
                    store::Output::Warn(line) => {
                        let me = self.me.0;
                        self.warn(format!("[Node {me}] {line}"));
                    }
                }
            } else {
                return;
            }
        }
    }
}

impl Machine for Node {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Connected(peer) => self.send(peer, Message::Hello),
            Input::Received(envelope) => self.on_envelope(now, envelope),
            Input::Speaks { peer, from } => _ = self.speaks_from.insert(peer, from),
            Input::TurnedAway { stranger, refusal } => self.on_turned_away(now, stranger, refusal),
            Input::Request { client, request } => self.on_request(now, client, request),
            Input::Order { client, from, order } => self.on_order(now, client, from, order),
            Input::Relayed { client, outcome } => self.on_relayed(now, client, outcome),
            Input::Persisted(leadership) => self.elect(now, election::Input::Persisted(leadership)),
            Input::PersistFailed(leadership, why) => {
                self.on_trouble(now, format!("{leadership} could not be stored: {why}"));
                self.elect(now, election::Input::PersistFailed(leadership));
            }
            Input::Disk(input) => {
                if let store::Input::Failed {
                    failure: store::Failure::Disk(text) | store::Failure::Full(text), ..
                } = &input
                {
                    self.on_trouble(now, text.clone());
                }
                self.store.handle_input(now, input);
            }
        }
        self.drain(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.election.handle_timeout(now);
        self.store.handle_timeout(now);
        self.drain(now);
        while let Some((client, until)) = self.asked.first_entry().map(|first| *first.get())
            && until <= now
        {
            self.asked.pop_first();
            let leader = self.leader();
            let reason = format!("the leader did not answer within {} s", PLACE_MAX.as_secs());
            self.end(now, client, Reply::Retry { reason, excluded: None, leader }, End::Abandoned);
        }
        let due = |(ticket, gather): (&u64, &Gather)| (gather.until <= now).then_some(*ticket);
        for ticket in self.gathers.iter().filter_map(due).collect::<Vec<_>>() {
            self.conclude(now, ticket);
        }
        if now.since(self.ticked) >= self.config.timing.heartbeat {
            self.ticked = now;
            self.watch.look(now, &self.election.alive(now), self.config.timing.suspicion);
            self.open_books(now);
            self.watch_members(now);
        }
        self.drain(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Wake> {
        let asked = self.asked.values().next().map(|(_, until)| Wake { at: *until, why: "answer of the leader" });
        let gathers = self.gathers.values().map(|gather| Wake { at: gather.until, why: "answers of the nodes" });
        let tick = Wake { at: self.ticked + self.config.timing.heartbeat, why: "who is there" };
        asked
            .into_iter()
            .chain(gathers)
            .chain([tick])
            .chain(self.store.poll_timeout())
            .fold(self.election.poll_timeout(), |first, wake| Wake::earlier(first, Some(wake)))
    }
}

#[cfg(test)]
mod tests;
