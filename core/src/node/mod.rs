//! One node of the cluster: an election, a router, a store, and the uploads that pass through.
//!
//! ```text
//! client ─Put─▶ entry ─Place─▶ leader ─Placed─▶ entry ═body═▶ chosen node ─▶ disk      (any two, or all, may be one)
//! client ◀──────────────Stored── entry ◀──────────Stored────────┘
//!                                entry ─Finished─▶ leader
//! ```
//!
//! Bodies do not pass: [`Output::Relay`] and [`Output::Store`] say from where to where they go, and what came of it
//! comes back as an input. A retried upload is asked for at all nodes that can be reached before it is placed anew. An
//! order names the leadership under which it was given, and a node that has seen a newer one refuses it.

mod gather;
pub mod message;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use rand::Rng as _;

use crate::{
    config::cluster::{ClusterConfig, Policy},
    election::{self, Ballot, Election},
    machine::{Machine, Wake},
    peer::{Digest, Leadership, NodeId, RequestId},
    routing::{End, Router},
    seed::Seed,
    store::{self, Name, Step, Store},
    time::Instant,
};
use gather::{Gather, Purpose};
use message::{Answer, Envelope, Holding, Message, NodeStatus, Put, Question, Reply, Request};

/// A request's connection, numbered by the runtime. A number is not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// What can happen to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A connection to a peer was made.
    Connected(NodeId),
    /// A peer said something.
    Received(Envelope),
    /// A peer speaks another version of the protocol.
    OtherVersion {
        /// The peer.
        peer: NodeId,
        /// Its version.
        version: u16,
    },
    /// A client, or a node that relays for one, asks for something.
    Request {
        /// Its connection.
        client: ClientId,
        /// What it asks for.
        request: Request,
    },
    /// [`Output::Relay`] came to its end.
    Relayed {
        /// The client whose body it was.
        client: ClientId,
        /// What the node answered that it went to, or why there is no answer.
        outcome: Result<Reply, RelayFailure>,
    },
    /// [`Output::Persist`] was done.
    Persisted(Leadership),
    /// [`Output::Persist`] failed.
    PersistFailed(Leadership),
    /// A step to the disk was done, or failed. [`store::Input::Put`] is the node's own.
    Disk(store::Input),
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
    /// Send this to a peer. May be lost, delayed or doubled.
    Send {
        /// The peer.
        to: NodeId,
        /// What to send.
        envelope: Envelope,
    },
    /// Answer a request; its last.
    Answer {
        /// Its connection.
        client: ClientId,
        /// What to answer.
        reply: Reply,
    },
    /// Stream a client's body to another node, after this request, and answer with [`Input::Relayed`].
    Relay {
        /// The client.
        client: ClientId,
        /// The node.
        to: NodeId,
        /// [`Request::Store`].
        request: Request,
    },
    /// Perform [`Step::Write`] with the body of this client, and answer as [`store::Step`] says.
    Store {
        /// The client.
        client: ClientId,
        /// The upload.
        id: RequestId,
    },
    /// Perform any other step, and answer.
    Disk(Step),
    /// Answer a request with [`Reply::Body`] and this file of the shared folder.
    SendFile {
        /// Its connection.
        client: ClientId,
        /// The file.
        file: store::Stored,
    },
    /// Answer a request with what another node answers to [`Request::Get`] with `here`, body included.
    Fetch {
        /// Its connection.
        client: ClientId,
        /// The node.
        from: NodeId,
        /// The upload.
        name: Name,
    },
    /// Make this survive a restart, and answer.
    Persist(Leadership),
    /// Whom this node obeys from here on.
    LeaderChanged(Option<Leadership>),
    /// A line for the log.
    Told(String),
}

/// How long a leader has for saying who takes an upload: it may have to ask all nodes first.
const PLACE_MAX: Duration = Duration::from_secs(2);

/// How often a leader takes its census.
const CENSUS_EVERY: Duration = Duration::from_secs(1);

/// After this long an upload that nobody speaks of any more is off the leader's books.
const PLACEMENT_MAX: Duration = Duration::from_secs(600);

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
    /// Who waits for what is being stored here.
    storing: BTreeMap<RequestId, ClientId>,
    gathers: BTreeMap<u64, Gather>,
    leading: Option<Leading>,
    /// Uploads given to this node, by the highest that a leader has said.
    level: u64,
    /// Peers that were told off, and with which digest.
    refused: BTreeMap<NodeId, Digest>,
    /// Peers of another version, and which.
    foreign: BTreeMap<NodeId, u16>,
    tickets: u64,
    ticked: Instant,
    outputs: VecDeque<Output>,
}

/// An upload that a client is making through this node.
#[derive(Debug)]
struct Entered {
    put: Put,
    state: EnteredState,
}

#[derive(Debug)]
enum EnteredState {
    /// The leader was asked.
    Asked { ticket: u64, until: Instant },
    /// The leader has placed it.
    Placed { node: NodeId, leader: NodeId },
}

/// What only a leader keeps.
#[derive(Debug)]
struct Leading {
    of: Leadership,
    router: Router,
    /// What nodes have reported, until the books are opened.
    census: Option<Census>,
    placements: BTreeMap<RequestId, Placement>,
    asked: Instant,
}

#[derive(Debug)]
struct Census {
    until: Instant,
    reports: BTreeMap<NodeId, u64>,
}

#[derive(Debug)]
struct Placement {
    node: NodeId,
    entry: NodeId,
    begun: Instant,
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
            store: Store::new(config.durability),
            config,
            entered: BTreeMap::new(),
            storing: BTreeMap::new(),
            gathers: BTreeMap::new(),
            leading: None,
            level: 0,
            refused: BTreeMap::new(),
            foreign: BTreeMap::new(),
            // What was asked in a former life may be answered now.
            tickets: seed.stream("tickets").next_u64() >> 1,
            ticked: now,
            outputs: VecDeque::new(),
        };
        node.drain(now);
        node
    }

    /// The election, for whoever looks.
    #[must_use]
    pub fn election(&self) -> &Election {
        &self.election
    }

    /// The store, for whoever looks.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The books of a leader that has opened them.
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
            if self.refused.insert(from, peers) != Some(peers) {
                self.tell(format!(
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
        self.foreign.remove(&from);
        match message {
            // What they are for is done above.
            Message::Hello | Message::Refused => {}
            Message::Ballot(ballot) => self.elect(now, election::Input::Received { from, ballot }),
            Message::Census { of, level } => {
                self.level = self.level.max(level.unwrap_or(0)).max(self.store.count());
                let level = self.level;
                // Who has not read its folder can take nothing yet, and would report too little.
                if self.store.is_ready() {
                    self.send(from, Message::Report { of, level });
                }
            }
            Message::Report { of, level } => self.on_report(now, from, of, level),
            Message::Place { ticket, put } => self.place(now, from, ticket, put),
            Message::Placed { ticket, id, leadership, outcome } => {
                self.on_placed(now, from, ticket, id, leadership, outcome);
            }
            Message::Finished { id, node, end } => self.on_finished(now, from, id, node, end),
            Message::Ask { ticket, question } => {
                if self.can_answer(&question) {
                    let answer = self.answer(&question);
                    self.send(from, Message::Tell { ticket, answer });
                }
            }
            Message::Tell { ticket, answer } => {
                let done = self.gathers.get_mut(&ticket).is_some_and(|gather| gather.take(from, answer));
                if done {
                    self.conclude(now, ticket);
                }
            }
        }
    }

    fn on_other_version(&mut self, peer: NodeId, version: u16) {
        // It tries again and again; once is enough for the log.
        if self.foreign.insert(peer, version) != Some(version) {
            let (me, peer, own) = (self.me.0, peer.0, message::VERSION);
            self.tell(format!(
                "[Node {me}] refuses node {peer}: it speaks version {version} of the protocol, this node {own}"
            ));
        }
    }

    fn on_request(&mut self, now: Instant, client: ClientId, request: Request) {
        match request {
            Request::Put(put) => self.on_put(now, client, put),
            Request::Store { put, leadership } => {
                if leadership < self.election.newest() {
                    let newest = self.election.newest();
                    return self.retry(client, format!("the order of {leadership} is void: {newest} came after"), None);
                }
                self.store_here(now, client, put.id, put.bytes);
            }
            Request::Get { name, here } => match self.store.held(name.id).filter(|stored| stored.name == name) {
                Some(file) => self.outputs.push_back(Output::SendFile { client, file }),
                None if here => self.reply(client, Reply::NotFound),
                None => self.gather(now, Question::Who { id: name.id, asked: None }, Purpose::Get { client, name }),
            },
            Request::List => self.gather(now, Question::List, Purpose::List { client }),
            Request::Status => self.gather(now, Question::Status, Purpose::Status { client }),
            Request::Discover => {
                let peers = self.config.peers.iter().map(|(id, address)| (id, address.to_owned())).collect();
                let leader = self.election.leader();
                self.reply(client, Reply::Discovered { leader, peers });
            }
        }
    }

    fn on_put(&mut self, now: Instant, client: ClientId, put: Put) {
        if put.bytes == 0 {
            return self.reply(client, Reply::Refused("the file is empty; there is nothing to store".to_owned()));
        }
        if put.bytes > self.config.upload_limit {
            let (bytes, limit) = (put.bytes, self.config.upload_limit);
            let text = format!("{bytes} bytes are more than this cluster takes (upload_limit {limit})");
            return self.reply(client, Reply::Refused(text));
        }
        if let Some(stored) = self.store.held(put.id) {
            let node = self.me;
            return self.reply(client, Reply::Stored { node, stored });
        }
        let Some(leader) = self.leader() else {
            return self.retry(client, "nobody leads yet".to_owned(), None);
        };
        let ticket = self.ticket();
        let state = EnteredState::Asked { ticket, until: now + PLACE_MAX };
        self.entered.insert(client, Entered { put: put.clone(), state });
        if leader == self.me {
            self.place(now, self.me, ticket, put);
        } else {
            self.send(leader, Message::Place { ticket, put });
        }
    }

    /// As the leader: says who takes an upload.
    fn place(&mut self, now: Instant, entry: NodeId, ticket: u64, put: Put) {
        let id = put.id;
        let refuse = |node: &mut Self, reason: &str| {
            let leader = node.leader();
            let reply = Reply::Retry { reason: reason.to_owned(), excluded: None, leader };
            node.placed(now, entry, ticket, id, Err(reply));
        };
        let serves = self.election.serves(now);
        let Some(leading) = self.leading.as_ref().filter(|_| serves) else {
            let here = self.me.0;
            return refuse(self, &format!("node {here} does not lead, or hears no majority"));
        };
        if leading.census.is_some() {
            return refuse(self, "the leader is new and still asks who holds how much");
        }
        if put.again {
            let question = Question::Who { id, asked: Some((entry, ticket)) };
            return self.gather(now, question, Purpose::Place { entry, ticket, put });
        }
        if leading.placements.contains_key(&id) {
            return refuse(self, "this upload is under way");
        }
        self.assign(now, entry, ticket, &put);
    }

    fn assign(&mut self, now: Instant, entry: NodeId, ticket: u64, put: &Put) {
        let policy = match self.config.policy {
            Policy::LeastLoad => "LeastLoad".to_owned(),
            other => other.to_string(),
        };
        let Some(leading) = &mut self.leading else { return };
        let outcome = match leading.router.assign(now, &put.excluded) {
            Some(node) => {
                leading.placements.insert(put.id, Placement { node, entry, begun: now });
                let total = leading.router.loads().find(|load| load.node == node).map_or(0, |load| load.assigned);
                self.tell(format!("[{policy}] RECORDED: Node {} now has {total} total requests", node.0));
                Ok(node)
            }
            None => {
                let reason = "no node that can be reached is able to take it".to_owned();
                Err(Reply::Retry { reason, excluded: None, leader: Some(self.me) })
            }
        };
        self.placed(now, entry, ticket, put.id, outcome);
    }

    /// As the leader: tells the entry what was decided.
    fn placed(&mut self, now: Instant, entry: NodeId, ticket: u64, id: RequestId, outcome: Result<NodeId, Reply>) {
        let leadership = self.leading.as_ref().map_or(self.election.durable(), |leading| leading.of);
        let outcome = outcome.map_err(Box::new);
        if entry == self.me {
            self.on_placed(now, self.me, ticket, id, leadership, outcome);
        } else {
            self.send(entry, Message::Placed { ticket, id, leadership, outcome });
        }
    }

    /// As the entry: the leader has decided.
    fn on_placed(
        &mut self,
        now: Instant,
        leader: NodeId,
        ticket: u64,
        id: RequestId,
        leadership: Leadership,
        outcome: Result<NodeId, Box<Reply>>,
    ) {
        let asked = |entered: &Entered| {
            entered.put.id == id && matches!(entered.state, EnteredState::Asked { ticket: t, .. } if t == ticket)
        };
        let client = self.entered.iter().find(|(_, entered)| asked(entered)).map(|(client, _)| *client);
        let Some(client) = client.filter(|_| self.leader() == Some(leader)) else {
            // Its client was told to try again, or this is a copy of an order that is being carried out.
            if let Ok(node) = outcome
                && !self.is_passing(id, None)
            {
                self.finished(now, leader, id, node, End::Abandoned);
            }
            return;
        };
        match outcome {
            Ok(node) => {
                let entered = self.entered.get_mut(&client).expect("it was just found");
                entered.state = EnteredState::Placed { node, leader };
                let put = entered.put.clone();
                if node == self.me {
                    self.store_here(now, client, put.id, put.bytes);
                } else {
                    self.outputs.push_back(Output::Relay {
                        client,
                        to: node,
                        request: Request::Store { put, leadership },
                    });
                }
            }
            Err(reply) => self.end(now, client, *reply, End::Abandoned),
        }
    }

    /// Stores a client's body here.
    fn store_here(&mut self, now: Instant, client: ClientId, id: RequestId, bytes: u64) {
        if self.store.is_under_way(id) || self.storing.contains_key(&id) {
            let reason = format!("node {} is storing this upload already", self.me.0);
            let leader = self.leader();
            return self.end(now, client, Reply::Retry { reason, excluded: None, leader }, End::Abandoned);
        }
        self.storing.insert(id, client);
        self.store.handle_input(now, store::Input::Put { id, bytes });
    }

    /// The store is done with an upload.
    fn on_stored(&mut self, now: Instant, id: RequestId, outcome: Result<store::Stored, store::Failure>) {
        let Some(client) = self.storing.remove(&id) else { return };
        let (me, leader) = (self.me, self.leader());
        let (reply, end) = match outcome {
            Ok(stored) => {
                let path = self.config.shared_dir.join(stored.name.to_string());
                self.tell(format!("[Node {}] ✓ Saved image to \"{}\"", me.0, path.display()));
                (Reply::Stored { node: me, stored }, End::Stored)
            }
            Err(failure) => {
                let disk = matches!(failure, store::Failure::Disk(_));
                let reason = format!("node {} cannot store it: {failure}", me.0);
                let reply = Reply::Retry { reason, excluded: disk.then_some(me), leader };
                (reply, if disk { End::Failed } else { End::Abandoned })
            }
        };
        self.end(now, client, reply, end);
    }

    fn on_relayed(&mut self, now: Instant, client: ClientId, outcome: Result<Reply, RelayFailure>) {
        let leader = self.leader();
        let (reply, end) = match outcome {
            Ok(reply) => {
                let end = match &reply {
                    Reply::Stored { .. } => End::Stored,
                    Reply::Retry { excluded: Some(_), .. } => End::Failed,
                    _ => End::Abandoned,
                };
                (reply, end)
            }
            Err(failure) => {
                let end = match failure {
                    RelayFailure::Client(_) => End::Abandoned,
                    RelayFailure::Node(_) => End::Failed,
                };
                (Reply::Retry { reason: failure.to_string(), excluded: None, leader }, end)
            }
        };
        self.end(now, client, reply, end);
    }

    /// Answers an upload, and tells the leader that has placed it how it ended.
    fn end(&mut self, now: Instant, client: ClientId, reply: Reply, end: End) {
        if let Some(Entered { put, state: EnteredState::Placed { node, leader } }) = self.entered.remove(&client) {
            self.finished(now, leader, put.id, node, end);
        }
        self.reply(client, reply);
    }

    fn finished(&mut self, now: Instant, leader: NodeId, id: RequestId, node: NodeId, end: End) {
        if leader == self.me {
            self.on_finished(now, self.me, id, node, end);
        } else {
            self.send(leader, Message::Finished { id, node, end });
        }
    }

    /// As the leader: an upload has ended.
    fn on_finished(&mut self, now: Instant, entry: NodeId, id: RequestId, node: NodeId, end: End) {
        let Some(leading) = &mut self.leading else { return };
        let same = |placement: &&Placement| placement.node == node && placement.entry == entry;
        if let Some(begun) = leading.placements.get(&id).filter(same).map(|placement| placement.begun) {
            leading.placements.remove(&id);
            leading.router.finish(now, node, now.since(begun), end);
        }
    }

    /// As the leader: a node says how much it was given.
    fn on_report(&mut self, now: Instant, from: NodeId, of: Leadership, level: u64) {
        let alive = self.election.alive(now);
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.of == of) else { return };
        match &mut leading.census {
            Some(census) => {
                census.reports.insert(from, level);
                self.open_books(now);
            }
            None if alive.contains(&from) => leading.router.join(now, from, level),
            None => {}
        }
    }

    /// As a new leader: begins to place once all that can be reached have reported, or have had their time.
    fn open_books(&mut self, now: Instant) {
        let alive = self.election.alive(now);
        let Some(leading) = &mut self.leading else { return };
        if let Some(census) = &leading.census
            && (census.until <= now || alive.iter().all(|node| census.reports.contains_key(node)))
        {
            leading.router.begin(now, &census.reports);
            leading.census = None;
        }
    }

    fn on_leader(&mut self, now: Instant, leader: Option<Leadership>) {
        self.outputs.push_back(Output::LeaderChanged(leader));
        // Whoever was asked no longer leads, or not as the one who was asked.
        let asked = |(client, entered): (&ClientId, &Entered)| {
            matches!(entered.state, EnteredState::Asked { .. }).then_some(*client)
        };
        for client in self.entered.iter().filter_map(asked).collect::<Vec<_>>() {
            let leader = leader.and_then(|leadership| leadership.leader);
            let reason = "the leader changed meanwhile".to_owned();
            self.end(now, client, Reply::Retry { reason, excluded: None, leader }, End::Abandoned);
        }
        self.leading = None;
        if let Some(of) = leader.filter(|of| of.leader == Some(self.me)) {
            let level = self.level.max(self.store.count());
            let census = Census { until: now + self.config.timing.answer, reports: [(self.me, level)].into() };
            self.leading = Some(Leading {
                of,
                router: Router::new(self.config.policy, self.seed),
                census: Some(census),
                placements: BTreeMap::new(),
                asked: now,
            });
            self.send_to_all(&Message::Census { of, level: None });
            self.open_books(now);
        }
    }

    /// As the leader: nodes that are gone get nothing, nodes that came are asked how much they hold.
    fn watch_members(&mut self, now: Instant) {
        let alive = self.election.alive(now);
        let Some(leading) = &mut self.leading else { return };
        let gone: Vec<NodeId> =
            leading.router.loads().map(|load| load.node).filter(|node| !alive.contains(node)).collect();
        for node in &gone {
            leading.router.leave(*node);
        }
        let router = &mut leading.router;
        leading.placements.retain(|_, placement| {
            let Placement { node, entry, begun } = placement;
            let stays = alive.contains(node) && alive.contains(entry) && now.since(*begun) < PLACEMENT_MAX;
            if !stays {
                router.finish(now, *node, now.since(*begun), End::Unknown);
            }
            stays
        });
        let known: BTreeMap<NodeId, u64> = leading.router.loads().map(|load| (load.node, load.assigned)).collect();
        self.level = self.level.max(known.get(&self.me).copied().unwrap_or(0));
        let all = now.since(leading.asked) >= CENSUS_EVERY;
        if all {
            leading.asked = now;
        }
        let of = leading.of;
        if leading.census.is_none() {
            for node in alive {
                let level = known.get(&node).copied();
                if node != self.me && (all || level.is_none()) {
                    self.send(node, Message::Census { of, level });
                }
            }
        }
        for node in gone {
            self.tell(format!("[Node {}] node {} is gone; it gets no uploads", self.me.0, node.0));
        }
    }

    /// Whether it can: a node that has not read its folder is missing in a list, and does not seem to hold nothing.
    fn can_answer(&self, question: &Question) -> bool {
        *question != Question::List || self.store.is_ready()
    }

    /// What this node answers to a question, its own included.
    fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Who { id, asked } => Answer::Holds(match self.store.held(*id) {
                Some(stored) => Holding::Held(stored),
                None if self.is_passing(*id, Some(*asked)) => Holding::Perhaps,
                // It may never find out, and what it holds can be had as little as that of a dead node. One such disk
                // must not keep every retry in the cluster from being placed.
                None if self.store.is_blind() => Holding::No,
                None if self.store.is_under_way(*id) || !self.store.is_ready() => Holding::Perhaps,
                None => Holding::No,
            }),
            Question::List => Answer::List(self.store.all().take(message::LIST_MAX).collect()),
            Question::Status => Answer::Status(NodeStatus {
                node: self.me,
                newest: self.election.durable(),
                assigned: self.level.max(self.store.count()),
                stored: self.store.count(),
                bytes: self.store.all().map(|stored| stored.bytes).sum(),
                under_way: self.storing.len() as u64,
            }),
        }
    }

    /// Whether an upload is being relayed through this node. With `asked` also whether it may be soon, by an order that is
    /// on its way: of any request but the one that is being asked about.
    fn is_passing(&self, id: RequestId, asked: Option<Option<(NodeId, u64)>>) -> bool {
        self.entered.values().filter(|entered| entered.put.id == id).any(|entered| match entered.state {
            EnteredState::Placed { .. } => true,
            EnteredState::Asked { ticket, .. } => asked.is_some_and(|asked| asked != Some((self.me, ticket))),
        })
    }

    /// Asks all nodes that can be reached; where the answer decides about a copy, all that perhaps can.
    fn gather(&mut self, now: Instant, question: Question, purpose: Purpose) {
        let ticket = self.ticket();
        let asked: BTreeSet<NodeId> = match purpose {
            // A leader that is new has not heard of all that it can reach, and a holder that it does not ask makes a copy.
            Purpose::Place { .. } => self.config.peers.ids().collect(),
            _ => self.election.alive(now),
        };
        let others: BTreeSet<NodeId> = asked.into_iter().filter(|node| *node != self.me).collect();
        for node in &others {
            self.send(*node, Message::Ask { ticket, question: question.clone() });
        }
        let own = self.can_answer(&question).then(|| (self.me, self.answer(&question)));
        let answers = own.into_iter().collect();
        let gather = Gather { purpose, waiting: others, until: now + self.config.timing.answer, answers };
        let done = gather.waiting.is_empty();
        self.gathers.insert(ticket, gather);
        if done {
            self.conclude(now, ticket);
        }
    }

    /// All have answered, or have had their time.
    fn conclude(&mut self, now: Instant, ticket: u64) {
        let Some(gather) = self.gathers.remove(&ticket) else { return };
        let missing: BTreeSet<NodeId> =
            self.config.peers.ids().filter(|node| !gather.answers.contains_key(node)).collect();
        match gather.purpose {
            Purpose::List { client } => {
                let reply = gather::listing(gather.answers, missing);
                self.reply(client, reply);
            }
            Purpose::Status { client } => {
                let (leader, policy) = (self.election.leader(), self.config.policy.to_string());
                let nodes = gather::statuses(gather.answers);
                self.reply(client, Reply::Status { leader, policy, nodes, missing });
            }
            Purpose::Get { client, name } => {
                let holds = |answer: &Answer| matches!(answer, Answer::Holds(Holding::Held(s)) if s.name == name);
                match gather.answers.iter().find(|(_, answer)| holds(answer)) {
                    Some((node, _)) => self.outputs.push_back(Output::Fetch { client, from: *node, name }),
                    None => self.reply(client, Reply::NotFound),
                }
            }
            Purpose::Place { entry, ticket, put } => {
                let silent: Vec<NodeId> =
                    self.election.alive(now).into_iter().filter(|node| gather.waiting.contains(node)).collect();
                self.place_again(now, entry, ticket, &put, &gather.answers, silent.first().copied());
            }
        }
    }

    /// As the leader: all that can be reached have said whether they hold an upload that was tried before.
    fn place_again(
        &mut self,
        now: Instant,
        entry: NodeId,
        ticket: u64,
        put: &Put,
        answers: &BTreeMap<NodeId, Answer>,
        silent: Option<NodeId>,
    ) {
        let held = answers.iter().find_map(|(node, answer)| match answer {
            Answer::Holds(Holding::Held(stored)) => Some((*node, *stored)),
            _ => None,
        });
        let perhaps = answers.iter().find(|(_, answer)| **answer == Answer::Holds(Holding::Perhaps));
        let leader = Some(self.me);
        let wait = |reason| Reply::Retry { reason, excluded: None, leader };
        let reply = match (held, perhaps, silent) {
            (Some((node, stored)), ..) => Reply::Stored { node, stored },
            (None, Some((node, _)), _) => wait(format!("node {} may be storing this upload right now", node.0)),
            (None, None, Some(node)) => wait(format!("node {} did not say whether it holds this upload", node.0)),
            (None, None, None) if self.leading.is_none() || !self.election.serves(now) => {
                wait("the leader changed meanwhile".to_owned())
            }
            (None, None, None) => {
                // A former try is over, and word of it was lost.
                if let Some(leading) = &mut self.leading
                    && let Some(former) = leading.placements.remove(&put.id)
                {
                    leading.router.finish(now, former.node, now.since(former.begun), End::Unknown);
                }
                return self.assign(now, entry, ticket, put);
            }
        };
        self.placed(now, entry, ticket, put.id, Err(reply));
    }

    fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    fn retry(&mut self, client: ClientId, reason: String, excluded: Option<NodeId>) {
        let leader = self.leader();
        self.reply(client, Reply::Retry { reason, excluded, leader });
    }

    fn reply(&mut self, client: ClientId, reply: Reply) {
        self.outputs.push_back(Output::Answer { client, reply });
    }

    fn tell(&mut self, line: String) {
        self.outputs.push_back(Output::Told(line));
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

    /// Translates what the machines inside put out.
    fn drain(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.election.poll_output() {
                match output {
                    election::Output::Send { to, ballot } => self.send_ballot(to, ballot),
                    election::Output::Persist(leadership) => self.outputs.push_back(Output::Persist(leadership)),
                    election::Output::LeaderChanged(leader) => self.on_leader(now, leader),
                    election::Output::Told(line) => self.tell(line),
                }
            } else if let Some(output) = self.store.poll_output() {
                match output {
                    store::Output::Do(Step::Write(id)) => {
                        let client = self.storing[&id];
                        self.outputs.push_back(Output::Store { client, id });
                    }
                    store::Output::Do(step) => self.outputs.push_back(Output::Disk(step)),
                    store::Output::Ready => {
                        let (me, count) = (self.me.0, self.store.count());
                        self.tell(format!("[Node {me}] holds {count} uploads"));
                    }
                    store::Output::Ended { id, outcome } => self.on_stored(now, id, outcome),
                    store::Output::Told(line) => {
                        let me = self.me.0;
                        self.tell(format!("[Node {me}] {line}"));
                    }
                }
            } else {
                return;
            }
        }
    }

    fn send_ballot(&mut self, to: NodeId, ballot: Ballot) {
        self.send(to, Message::Ballot(ballot));
    }
}

impl Machine for Node {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Connected(peer) => self.send(peer, Message::Hello),
            Input::Received(envelope) => self.on_envelope(now, envelope),
            Input::OtherVersion { peer, version } => self.on_other_version(peer, version),
            Input::Request { client, request } => self.on_request(now, client, request),
            Input::Relayed { client, outcome } => self.on_relayed(now, client, outcome),
            Input::Persisted(leadership) => self.elect(now, election::Input::Persisted(leadership)),
            Input::PersistFailed(leadership) => self.elect(now, election::Input::PersistFailed(leadership)),
            Input::Disk(input) => self.store.handle_input(now, input),
        }
        self.drain(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.election.handle_timeout(now);
        self.store.handle_timeout(now);
        self.drain(now);
        let due = |(client, entered): (&ClientId, &Entered)| {
            matches!(entered.state, EnteredState::Asked { until, .. } if until <= now).then_some(*client)
        };
        for client in self.entered.iter().filter_map(due).collect::<Vec<_>>() {
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
            self.open_books(now);
            self.watch_members(now);
        }
        self.drain(now);
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Wake> {
        let asked = self.entered.values().filter_map(|entered| match entered.state {
            EnteredState::Asked { until, .. } => Some(Wake { at: until, why: "answer of the leader" }),
            EnteredState::Placed { .. } => None,
        });
        let gathers = self.gathers.values().map(|gather| Wake { at: gather.until, why: "answers of the nodes" });
        let tick = Wake { at: self.ticked + self.config.timing.heartbeat, why: "who is there" };
        asked
            .chain(gathers)
            .chain([tick])
            .chain(self.store.poll_timeout())
            .fold(self.election.poll_timeout(), |first, wake| Wake::earlier(first, Some(wake)))
    }
}

#[cfg(test)]
mod tests;
