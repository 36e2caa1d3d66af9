//! A network of nodes with their disks, and clients that try again.

use std::ops::ControlFlow;

use rand_chacha::ChaCha8Rng;

use super::*;
use crate::store::{File, Kind};
use omb_machine::settle;

/// Nodes with their disks, and clients that try again, on a network that delays, duplicates, reorders and cuts.
pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) rng: ChaCha8Rng,
    pub(super) config: ClusterConfig,
    pub(super) nodes: Vec<SimNode>,
    pub(super) cut: Vec<Vec<bool>>,
    pub(super) delay: Duration,
    pub(super) doubled_percent: u64,
    pub(super) events: BTreeMap<(Instant, u64), Event>,
    pub(super) number: u64,
    /// Connections: the node they lead to, and what waits at the other end.
    pub(super) connections: BTreeMap<ClientId, (usize, Waits)>,
    pub(super) uploads: Vec<Upload>,
    /// Replies to [`Waits::Asker`].
    pub(super) replies: Vec<Reply>,
    pub(super) lines: Vec<String>,
}

#[derive(Default)]
pub(super) struct SimNode {
    pub(super) node: Option<Node>,
    pub(super) life: u64,
    pub(super) leadership: Leadership,
    pub(super) temporary: BTreeSet<RequestId>,
    pub(super) shared: BTreeMap<String, u64>,
    pub(super) recorded: BTreeMap<RequestId, store::Entry>,
    pub(super) full: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Waits {
    /// An upload's client, in its nth try.
    Client {
        upload: usize,
        attempt: u64,
    },
    /// A node that relays for a client of its own.
    Relay {
        from: usize,
        life: u64,
        client: ClientId,
    },
    Asker,
    Nobody,
}

pub(super) struct Upload {
    pub(super) put: Put,
    pub(super) attempt: u64,
    pub(super) acknowledged: Option<(NodeId, Stored)>,
}

pub(super) enum Event {
    Input { node: usize, life: Option<u64>, from: Option<usize>, input: Box<Input> },
    Reply { waits: Waits, reply: Reply },
    GiveUp { upload: usize, attempt: u64 },
    Try { upload: usize },
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Happening {
    Upload,
    Run(u64),
    Isolate(usize),
    Heal,
    Crash(usize),
    Start(usize),
    Full(usize, bool),
}

impl Net {
    pub(super) fn new(seed: u64, nodes: u32) -> Self {
        let count = nodes as usize;
        let mut net = Self {
            now: Instant::ZERO,
            rng: Seed(seed).stream("net"),
            config: config(nodes),
            nodes: (0..count).map(|_| SimNode::default()).collect(),
            cut: vec![vec![false; count]; count],
            delay: ms(5),
            doubled_percent: 0,
            events: BTreeMap::new(),
            number: 0,
            connections: BTreeMap::new(),
            uploads: Vec::new(),
            replies: Vec::new(),
            lines: Vec::new(),
        };
        (0..count).for_each(|node| net.start(node));
        net
    }

    pub(super) fn push(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.events.insert((self.now + after, self.number), event);
    }

    pub(super) fn some_delay(&mut self) -> Duration {
        Duration::from_nanos(self.rng.next_u64() % omb_machine::time::nanos(self.delay))
    }

    pub(super) fn start(&mut self, node: usize) {
        let id = NodeId(u32::try_from(node).expect("few") + 1);
        let n = &mut self.nodes[node];
        if n.node.is_none() {
            n.life += 1;
            n.node = Some(Node::new(self.now, id, self.config.clone(), n.leadership, Seed(id.0.into())));
            self.settle(node);
        }
    }

    pub(super) fn crash(&mut self, node: usize) {
        self.nodes[node].node = None;
        // Each side that waits for an answer from it sees the connection break.
        let broken: Vec<ClientId> =
            self.connections.iter().filter(|(_, (to, _))| *to == node).map(|(client, _)| *client).collect();
        for client in broken {
            if let Some((_, Waits::Relay { from, life, client })) = self.connections.remove(&client) {
                let outcome = Err(RelayFailure::Node("reset".to_owned()));
                let input = Box::new(Input::Relayed { client, outcome });
                self.push(ms(1), Event::Input { node: from, life: Some(life), from: None, input });
            }
        }
    }

    pub(super) fn step(&mut self, happening: Happening) {
        let count = self.nodes.len();
        match happening {
            Happening::Upload => {
                let upload = self.uploads.len();
                let put = put(upload as u128 + 1, false);
                self.uploads.push(Upload { put, attempt: 0, acknowledged: None });
                self.push(Duration::ZERO, Event::Try { upload });
            }
            Happening::Run(span) => self.run(ms(span)),
            Happening::Isolate(node) => {
                for other in 0..count {
                    self.cut[node % count][other] = true;
                    self.cut[other][node % count] = true;
                }
            }
            Happening::Heal => self.cut.iter_mut().for_each(|row| row.fill(false)),
            Happening::Crash(node) => self.crash(node % count),
            Happening::Start(node) => self.start(node % count),
            Happening::Full(node, full) => self.nodes[node % count].full = full,
        }
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let wakes = self.nodes.iter().enumerate().filter_map(|(index, node)| {
                node.node.as_ref().and_then(Machine::poll_timeout).map(|wake| (wake.at, index))
            });
            let wake = wakes.min().filter(|(at, _)| *at <= end);
            let event = self.events.keys().next().copied().filter(|(at, _)| *at <= end);
            match (event, wake) {
                (Some(key), wake) if wake.is_none_or(|(at, _)| key.0 <= at) => {
                    self.now = self.now.max(key.0);
                    let event = self.events.remove(&key).expect("the first event");
                    self.happen(event);
                }
                (_, Some((at, node))) => {
                    self.now = self.now.max(at);
                    self.settle(node);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Input { node, life, from, input } => {
                let cut = from.is_some_and(|from| self.cut[from][node]);
                if cut || life.is_some_and(|life| life != self.nodes[node].life) {
                    return;
                }
                if let Some(machine) = &mut self.nodes[node].node {
                    machine.handle_input(self.now, *input);
                    self.settle(node);
                } else if let Input::Request { client, .. } | Input::Order { client, .. } = *input
                    && let Some((_, Waits::Relay { from, life, client })) = self.connections.remove(&client)
                {
                    let outcome = Err(RelayFailure::Node("refused".to_owned()));
                    let input = Box::new(Input::Relayed { client, outcome });
                    self.push(ms(1), Event::Input { node: from, life: Some(life), from: None, input });
                }
            }
            Event::Try { upload } => {
                let count = self.nodes.len() as u64;
                let node = usize::try_from(self.rng.next_u64() % count).expect("few");
                let u = &mut self.uploads[upload];
                u.attempt += 1;
                let attempt = u.attempt;
                let request = Request::Put(u.put.clone());
                u.put.again = true;
                self.connect(node, Waits::Client { upload, attempt }, request);
                self.push(ms(5_000), Event::GiveUp { upload, attempt });
            }
            Event::GiveUp { upload, attempt } => {
                let u = &self.uploads[upload];
                if u.attempt == attempt && u.acknowledged.is_none() {
                    self.push(Duration::ZERO, Event::Try { upload });
                }
            }
            Event::Reply { waits: Waits::Client { upload, attempt }, reply } => {
                let u = &mut self.uploads[upload];
                if u.attempt != attempt {
                    return;
                }
                match reply {
                    Reply::Stored { node, stored } => {
                        assert!(u.acknowledged.is_none(), "C4: one request, one acknowledgement");
                        u.acknowledged = Some((node, stored));
                    }
                    Reply::Retry { .. } | Reply::Full { .. } => {
                        let excluded = match reply {
                            Reply::Retry { excluded, .. } => excluded,
                            Reply::Full { node, .. } => Some(node),
                            _ => None,
                        };
                        u.put.excluded = excluded.into_iter().collect();
                        // Anything that arrives for this try is void.
                        u.attempt += 1;
                        self.push(ms(100), Event::Try { upload });
                    }
                    other => panic!("{other:?}"),
                }
            }
            Event::Reply { waits: Waits::Relay { from, life, client }, reply } => {
                let input = Box::new(Input::Relayed { client, outcome: Ok(reply) });
                self.happen(Event::Input { node: from, life: Some(life), from: None, input });
            }
            Event::Reply { waits: Waits::Asker, reply } => self.replies.push(reply),
            Event::Reply { waits: Waits::Nobody, .. } => {}
        }
    }

    pub(super) fn connect(&mut self, node: usize, waits: Waits, request: Request) {
        self.open(node, waits, |client| Input::Request { client, request });
    }

    /// Orders something of a node, as a peer.
    pub(super) fn order(&mut self, node: usize, waits: Waits, from: NodeId, order: Order) {
        self.open(node, waits, |client| Input::Order { client, from, order });
    }

    fn open(&mut self, node: usize, waits: Waits, input: impl FnOnce(ClientId) -> Input) {
        self.number += 1;
        let client = ClientId(self.number);
        self.connections.insert(client, (node, waits));
        let after = self.some_delay();
        if let Waits::Relay { from, life, client: origin } = waits
            && self.cut[from][node]
        {
            self.connections.remove(&client);
            let outcome = Err(RelayFailure::Node("no route".to_owned()));
            let input = Box::new(Input::Relayed { client: origin, outcome });
            return self.push(after, Event::Input { node: from, life: Some(life), from: None, input });
        }
        let input = Box::new(input(client));
        self.push(after, Event::Input { node, life: None, from: None, input });
    }

    /// Asks a node, and waits for the answer.
    pub(super) fn ask(&mut self, node: usize, request: Request) -> Reply {
        self.connect(node, Waits::Asker, request);
        self.run(ms(500));
        self.replies.pop().expect("an answer")
    }

    pub(super) fn status(&mut self, node: usize) -> ClusterStatus {
        match self.ask(node, Request::Status) {
            Reply::Status(status) => *status,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn node(&self, node: usize) -> &Node {
        self.nodes[node].node.as_ref().expect("it runs")
    }

    pub(super) fn settle(&mut self, node: usize) {
        let Some(mut machine) = self.nodes[node].node.take() else { return };
        let mut outputs = Vec::new();
        let _ = settle(&mut machine, self.now, |output| {
            outputs.push(output);
            ControlFlow::Continue(())
        });
        self.nodes[node].node = Some(machine);
        outputs.into_iter().for_each(|output| self.perform(node, output));
        self.check();
    }

    pub(super) fn perform(&mut self, node: usize, output: Output) {
        let life = Some(self.nodes[node].life);
        let after = self.some_delay();
        let here = |input| Event::Input { node, life, from: None, input: Box::new(input) };
        match output {
            Output::Send { to, envelope } => {
                let bytes = message::encode(&envelope);
                let copies = 1 + u64::from(self.rng.next_u64() % 100 < self.doubled_percent);
                for _ in 0..copies {
                    let envelope = message::decode(&bytes).expect("our own frame");
                    let after = self.some_delay();
                    let input = Box::new(Input::Received(envelope));
                    let to = to.0 as usize - 1;
                    if !self.cut[node][to] {
                        self.push(after, Event::Input { node: to, life: None, from: Some(node), input });
                    }
                }
            }
            Output::Answer { client, reply } => {
                if let Some((_, waits)) = self.connections.remove(&client) {
                    self.push(after, Event::Reply { waits, reply });
                }
            }
            Output::Relay { client, to, order } => {
                let waits = Waits::Relay { from: node, life: self.nodes[node].life, client };
                let from = NodeId(u32::try_from(node).expect("few") + 1);
                self.order(to.0 as usize - 1, waits, from, order);
            }
            Output::Store { id, .. } => {
                let input = if self.nodes[node].full {
                    let failure = store::Failure::Full("no space left on device".to_owned());
                    store::Input::Failed { step: Step::Write(id), failure }
                } else {
                    self.nodes[node].temporary.insert(id);
                    let digest = Digest::of(&id.0.to_le_bytes());
                    store::Input::Written { id, bytes: 16, digest, kind: Kind::Bin }
                };
                self.push(after, here(Input::Disk(input)));
            }
            Output::Disk(steps) => {
                let n = &mut self.nodes[node];
                let mut answer = None;
                for step in steps {
                    answer = Some(match &step {
                        Step::List => store::Input::Listed {
                            temporary: n.temporary.iter().map(|id| File::Temporary(*id).to_string()).collect(),
                            shared: n.shared.iter().map(|(name, bytes)| (name.clone(), *bytes)).collect(),
                            recorded: n.recorded.clone(),
                        },
                        Step::Check(names) => {
                            let found = names.iter().map(|name| (*name, n.shared.get(&name.to_string()).copied()));
                            store::Input::Checked(found.collect())
                        }
                        Step::Record { records, .. } => {
                            records.iter().for_each(|record| record.clone().remember(&mut n.recorded));
                            store::Input::Done(step)
                        }
                        Step::Rename(name) => {
                            assert!(n.temporary.remove(&name.id), "it was written");
                            n.shared.insert(name.to_string(), 16);
                            store::Input::Done(step)
                        }
                        Step::Remove(File::Temporary(id)) => {
                            n.temporary.remove(id);
                            store::Input::Done(step)
                        }
                        _ => store::Input::Done(step),
                    });
                }
                self.push(after, here(Input::Disk(answer.expect("there is a step"))));
            }
            Output::Persist(leadership) => {
                self.nodes[node].leadership = leadership;
                self.push(after, here(Input::Persisted(leadership)));
            }
            output @ (Output::Info(_) | Output::Warn(_) | Output::Recorded { .. } | Output::Saved { .. }) => {
                self.lines.extend(output.line(&self.config.shared_dir));
            }
            Output::LeaderChanged(_) | Output::SendFile { .. } | Output::Fetch { .. } => {}
        }
    }

    /// C3: what is acknowledged is where the acknowledgement says. C4: one copy per node.
    pub(super) fn check(&self) {
        for upload in &self.uploads {
            if let Some((node, stored)) = upload.acknowledged {
                let there = self.nodes[node.0 as usize - 1].shared.contains_key(&stored.name.to_string());
                assert!(there, "C3: {} is not on {node}", stored.name);
            }
        }
    }

    pub(super) fn stored(&self) -> Vec<usize> {
        self.nodes.iter().map(|node| node.shared.len()).collect()
    }
}
