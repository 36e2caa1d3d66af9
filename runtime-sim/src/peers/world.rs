//! One simulated cluster from beginning to end.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use madsim::{
    net::NetSim,
    runtime::{Handle, NodeHandle},
    task::{self, spawn},
    time::{TimeHandle, sleep},
};
use omb_cluster::{
    client::GaveUp,
    config::{ClusterConfig, Durability, PeerAddresses},
    node::{
        Node, Output,
        message::{Envelope, Message, Put, Reply, Request},
    },
    peer::{Digest, Label, NodeId, RequestId, User},
    store::{Name, Step},
};
use omb_machine::{
    seed::Seed,
    time::{Instant, WallTime},
};
use rand::{Rng as _, RngExt as _};
use tokio::sync::mpsc;

use super::{
    Facts, Kin, Listed, NodeFacts, Outcome, Scenario, Upload, Watcher,
    cast::{Cast, address, ask, ip, limits, list, peers_of, socket},
    disk::SimDisk,
    fault::{LATE_MAX, Mishap, Planned, Trouble, Way},
    intruder,
    scenario::{Ambush, Moment, TROUBLED},
};
use crate::{
    clock::{Clock, Skew},
    connection::{SimListener, SimTransport},
    fault::Weather,
    portable::cluster::{self, Nodes, Observer, node::Identity},
    witness::Witness,
};

/// Within this time after all faults are over the nodes must agree.
pub const AGREE_WITHIN: Duration = Duration::from_secs(5);

/// How long they must stay agreed.
const STAYS: Duration = Duration::from_secs(4);

/// How often nodes check that their uploads are there: after all has healed, and before they are asked.
const SCRUB: Duration = Duration::from_secs(2);

/// A host that no node has; it is only in the stranger's list of peers.
const NOBODY: u32 = 99;

/// Plays `scenario` inside a madsim runtime. Everything seen goes to `watcher` and `witness`.
pub async fn play(scenario: Scenario, watcher: Arc<Mutex<dyn Watcher>>, witness: Witness) {
    let facts = Facts {
        nodes: scenario.nodes.iter().map(|node| (*node, born(&scenario, *node))).collect(),
        scenario: scenario.clone(),
        ..Facts::default()
    };
    let (ambushes, mut ambushed) = mpsc::unbounded_channel();
    let cast = Cast {
        time: TimeHandle::current(),
        weather: Weather::new(0),
        nodes: Arc::default(),
        clients: Arc::default(),
        came: Arc::default(),
        ambushes,
        mishaps: Arc::new(Mutex::new((BTreeMap::new(), scenario.seed.stream("mishaps")))),
        facts: Arc::new(Mutex::new(facts)),
        watcher,
        witness,
    };
    cast.witness.hit(format!("cluster: quorum {:?}", scenario.quorum));
    cast.witness.hit(format!("cluster: durability {:?}", scenario.durability));
    cast.witness.hit(format!("cluster: policy {}", scenario.policy));
    if scenario.is_calm() {
        cast.witness.hit("cluster: nothing goes wrong");
    }
    if scenario.stranger.is_some() {
        cast.witness.hit("cluster: a node was given another list of peers");
    }
    if scenario.foreigner.is_some() {
        cast.witness.hit("cluster: a node speaks another version");
    }
    if scenario.starts_late() {
        cast.witness.hit("cluster: a node starts late");
    }
    if scenario.clocks.iter().any(|skew| *skew != Skew::NONE) {
        cast.witness.hit("cluster: clocks are wrong and drift");
    }
    cast.weather.now().resets.rng = Some(scenario.seed.stream("resets"));
    for nth in 0..scenario.nodes.len() {
        let (node, moved) = (scenario.nodes[nth], cast.clone());
        let handle = Handle::current();
        let process = handle.create_node().name(format!("node {}", node.0)).ip(ip(node));
        let process = process.init(move || live(nth, moved.clone())).build();
        cast.nodes.lock().unwrap_or_else(PoisonError::into_inner).push((node, process.id()));
    }
    for planned in scenario.troubles.clone() {
        spawn(befall(planned, cast.clone()));
    }
    if scenario.keyed {
        cast.witness.hit("cluster: a shared key");
    }
    if scenario.peer_keyed {
        cast.witness.hit("cluster: a key of peers");
    }
    if scenario.anywhere {
        cast.witness.hit("cluster: peers may come from anywhere");
    }
    let process = client(101);
    let (own, moved) = (process.id(), cast.clone());
    process.spawn(async move { intruder::intrude(own, moved).await });
    let process = client(102);
    let (own, moved) = (process.id(), cast.clone());
    process.spawn(async move { intruder::forge(own, moved).await });
    if scenario.hoarded {
        cast.witness.hit("cluster: places are hoarded");
        // One source has at most half of the slots.
        let processes = [client(103), client(104)];
        for nth in 0..(limits().requests + 1) * scenario.nodes.len() {
            let process = &processes[nth % 2];
            let (own, moved) = (process.id(), cast.clone());
            process.spawn(async move { intruder::hoard(nth as u64, own, moved).await });
        }
    }
    let moved = cast.clone();
    let ambushing = spawn(async move {
        while let Some(planned) = ambushed.recv().await {
            pass(planned, moved.clone()).await;
        }
    });
    let clients: Vec<_> = (0..scenario.clients.len())
        .map(|nth| {
            let process = client(u8::try_from(nth + 1).expect("few clients"));
            let cast = cast.clone();
            let own = process.id();
            cast.clients.lock().unwrap_or_else(PoisonError::into_inner).push(own);
            process.spawn(async move { upload_all(nth, own, cast).await })
        })
        .collect();
    sleep(scenario.healed()).await;
    cast.facts().healed = Some(cast.time.elapsed());
    cast.witness.note("world", format_args!("has healed"));
    cast.watch(|watcher, facts| watcher.on_event(facts));
    sleep(AGREE_WITHIN).await;
    for client in clients {
        let _ = client.await;
    }
    if scenario.hoarded {
        // Until nothing announced is waited for.
        sleep((intruder::HOARDED + limits().idle * 2).saturating_sub(cast.time.elapsed())).await;
    }
    let process = client(100);
    let (own, moved) = (process.id(), cast.clone());
    let outcome = process.spawn(async move { look_around(own, &moved).await }).await.unwrap_or_default();
    sleep(STAYS).await;
    ambushing.abort();
    cast.watch(|watcher, facts| watcher.at_end(&outcome, facts));
}

fn born(scenario: &Scenario, node: NodeId) -> NodeFacts {
    NodeFacts {
        disk: SimDisk::new(scenario.seed, node.0),
        dead_since: Some(Duration::ZERO),
        paused_since: None,
        paused_until: Duration::ZERO,
        born: Duration::ZERO,
        kin: match node {
            _ if scenario.stranger == Some(node) => Kin::OtherList,
            _ if scenario.foreigner == Some(node) => Kin::OtherVersion,
            _ if scenario.locked_out.is_some_and(|(out, _)| out == node) => Kin::LockedOut,
            _ => Kin::Common,
        },
    }
}

fn client(nth: u8) -> NodeHandle {
    Handle::current().create_node().name(format!("client {nth}")).ip(Ipv4Addr::new(10, 0, 3, nth).into()).build()
}

/// One life of a node's process.
async fn live(nth: usize, cast: Cast) {
    let scenario = cast.facts().scenario.clone();
    let node = scenario.nodes[nth];
    // Its first start; the machine was switched on before.
    sleep(scenario.starts[nth].saturating_sub(cast.time.elapsed())).await;
    let clock = Clock::new(cast.time.clone(), scenario.clocks[nth]);
    let disk = {
        let mut facts = cast.facts();
        let at = facts.at;
        let own = facts.nodes.get_mut(&node).expect("it is one of the nodes");
        (own.dead_since, own.paused_since, own.born) = (None, None, at);
        let disk = own.disk.clone();
        survey(&mut facts, &cast);
        disk
    };
    cast.witness.note("node", format_args!("{} begins with {}", node.0, disk.leadership()));
    cast.watch(|watcher, facts| watcher.on_birth(node, disk.leadership(), facts));
    let foreign = scenario.foreigner == Some(node);
    let listener = SimListener::bind(socket(node)).await.foreign(foreign);
    let process = cast.nodes().into_iter().find(|(it, _)| *it == node).map(|(_, process)| process);
    let transport = SimTransport { foreign, ..cast.transport(process.expect("it is one of the nodes")) };
    let peers =
        if scenario.stranger == Some(node) { list(&scenario, Some(NodeId(NOBODY))) } else { peers_of(&scenario) };
    // Each life draws anew.
    let life = omb_machine::time::nanos(cast.time.elapsed());
    let seed = Seed(scenario.seed.0 ^ u64::from(node.0) << 32 ^ life);
    let secret = match scenario.locked_out {
        Some((out, other)) if out == node => {
            other.then(|| intruder::secret(seed, "another", life.into(), scenario.peer_keyed))
        }
        _ => scenario.keyed.then(|| intruder::secret(seed, "shared", life.into(), scenario.peer_keyed)),
    };
    // A simulated node does not read the paths of the keys; a node that lacks them has no path either.
    let keys = secret.as_ref().map(|secret| &secret.keys);
    let config = ClusterConfig {
        key_file: keys.and_then(|keys| keys.clients.as_ref()).map(|_| PathBuf::new()),
        peer_key_file: keys.and_then(|keys| keys.peers.as_ref()).map(|_| PathBuf::new()),
        peer_addresses: scenario.anywhere.then_some(PeerAddresses::Any),
        quorum: scenario.quorum,
        policy: scenario.policy,
        durability: scenario.durability,
        scrub: SCRUB,
        ..ClusterConfig::new(peers)
    };
    let identity = Identity { me: node, config, limits: limits(), seed, secret };
    let mut observer = Onlooker { cast: cast.clone(), node };
    let disk = disk.watched({
        let onlooker = observer.clone();
        move |moment| onlooker.ambush(moment)
    });
    let ended = cluster::serve(listener, transport, disk, identity, &mut observer, &clock).await;
    cast.witness.note("node", format_args!("{} ended: {ended:?}", node.0));
}

#[derive(Clone)]
struct Onlooker {
    cast: Cast,
    node: NodeId,
}

impl Onlooker {
    /// An upload has come this far on this node.
    fn ambush(&self, came: Moment) {
        let at = self.cast.time.elapsed();
        let ambush = self.cast.facts().scenario.ambush;
        let Some(Ambush { nth, lasts, dies, .. }) = ambush.filter(|it| it.moment == came && at < TROUBLED) else {
            return;
        };
        if self.cast.came.fetch_add(1, Relaxed) == nth {
            self.cast.witness.hit("fault: ambush");
            let node = self.node;
            let trouble = if dies { Trouble::Crash(node, true) } else { Trouble::Partition([node].into()) };
            let planned = Planned { at, lasts, trouble };
            // At once, or the answer would be in flight.
            strike(&planned, &self.cast);
            // If it is not received, the world has ended.
            let _ = self.cast.ambushes.send(planned);
        }
    }
}

impl Observer for Onlooker {
    fn hand_over(&mut self, link: &mpsc::Sender<Envelope>, envelope: Envelope) {
        let late = |late: Duration, link: mpsc::Sender<Envelope>, envelope| {
            spawn(async move {
                sleep(late).await;
                let _ = link.try_send(envelope);
            });
        };
        match self.cast.mishap() {
            None => _ = link.try_send(envelope),
            Some((Mishap::Lost, _)) => {}
            Some((Mishap::Late, by)) => late(by, link.clone(), envelope),
            Some((Mishap::Doubled, by)) => {
                late(by, link.clone(), envelope.clone());
                let _ = link.try_send(envelope);
            }
        }
    }

    fn wants(&mut self, output: &Output) {
        let (witness, me) = (&self.cast.witness, self.node.0);
        match output {
            Output::Send { to, envelope } => {
                let to = to.0;
                match &envelope.message {
                    Message::Ballot(ballot) => {
                        let word = ballot.word.name();
                        witness.note("node", format_args!("{me} -> {to}: {word}, {}", ballot.newest));
                        witness.hit(format!("ballot: {word}"));
                    }
                    message => {
                        witness.note("node", format_args!("{me} -> {to}: {message:?}"));
                        if *message == Message::Refused {
                            witness.hit("effect: a peer with another list is refused");
                        }
                    }
                }
            }
            Output::Info(line) | Output::Warn(line) => {
                witness.note("node", format_args!("{line}"));
                for (part, what) in LINES {
                    if line.contains(part) {
                        witness.hit(what);
                    }
                }
            }
            Output::Answer { reply, .. } => {
                witness.note("node", format_args!("{me} answers {reply:?}"));
                if matches!(reply, Reply::Stored { node, .. } if *node == self.node) {
                    self.ambush(Moment::Stored);
                }
                witness.hit(match reply {
                    Reply::Stored { .. } => "answer: stored",
                    Reply::Retry { excluded: Some(_), .. } => "answer: retry, without this node",
                    Reply::Retry { reason, .. } if reason.contains("void") => "answer: retry, the order is void",
                    Reply::Retry { reason, .. } if reason.contains("majority") => "answer: retry, no majority",
                    Reply::Retry { reason, .. } if reason.contains("broke off") => "answer: retry, a relay broke off",
                    Reply::Retry { reason, .. } if reason.contains("are missing") => "answer: retry, a body broke off",
                    Reply::Retry { reason, .. } if reason.contains("may be storing") => {
                        "answer: retry, somebody may hold it"
                    }
                    Reply::Retry { reason, .. } if reason.contains("did not say") => {
                        "answer: retry, somebody did not say"
                    }
                    Reply::Retry { reason, .. } if reason.contains("nobody leads") => "answer: retry, nobody leads",
                    Reply::Retry { .. } => "answer: retry",
                    Reply::Listing { .. } => "answer: listing",
                    Reply::NotFound => "answer: not found",
                    Reply::Full { .. } => "answer: the disk is full",
                    Reply::Lost { .. } => "answer: lost",
                    _ => "answer: other",
                });
            }
            output => {
                witness.note("node", format_args!("{me} {output:?}"));
                if let Output::Disk(steps) = output
                    && steps.iter().any(|step| matches!(step, Step::Rename(_)))
                {
                    self.ambush(Moment::Written);
                }
                witness.hit(match output {
                    Output::Relay { .. } => "does: relay",
                    Output::Store { .. } => "does: store",
                    Output::SendFile { .. } => "does: send a file",
                    Output::Fetch { .. } => "does: fetch",
                    Output::Persist(_) => "does: persist a leadership",
                    Output::LeaderChanged(Some(_)) => "does: follow a leader",
                    Output::LeaderChanged(None) => "does: follow no node",
                    Output::Recorded { .. } => "does: give an upload to a node",
                    Output::Saved { .. } => "does: say what it saved",
                    _ => "does: a step to the disk",
                });
            }
        }
        self.cast.watch(|watcher, facts| watcher.on_output(self.node, output, facts));
    }

    fn look(&mut self, node: &Node, now: Instant) {
        self.cast.watch(|watcher, facts| watcher.on_node(self.node, node, now, facts));
    }
}

/// Log lines of nodes that are worth counting.
const LINES: [(&str, &str); 13] = [
    ("acknowledged uploads are gone from the folder", "effect: files are missed"),
    ("the folder of uploads is empty", "effect: all files are missed at the start"),
    ("it comes from ", "effect: a peer from elsewhere is refused"),
    ("does not believe ", "effect: an absurd number is not believed"),
    ("it asks for the", "effect: a key is asked for"),
    ("it lacks the", "effect: a key is missing"),
    ("it does not know the", "effect: a key is wrong"),
    ("of the protocol, this is version", "effect: another version of the protocol noticed"),
    ("stepping down", "effect: a leader stepped down"),
    ("becoming coordinator", "effect: became coordinator"),
    ("is gone; it gets no uploads", "effect: a node left the books"),
    ("cannot be read", "effect: the folder of uploads cannot be read"),
    ("another list of peers", "effect: another list of peers noticed"),
];

/// Updates the facts about pairs of nodes.
fn survey(facts: &mut Facts, cast: &Cast) {
    let nodes = cast.nodes();
    let at = facts.at;
    let away = |facts: &Facts, node: &NodeId| {
        facts.nodes.get(node).is_none_or(|it| it.dead_since.is_some() || it.paused_since.is_some())
    };
    for (from, from_process) in &nodes {
        for (to, to_process) in nodes.iter().filter(|(to, _)| to != from) {
            let cut = cast.weather.now().cut.contains_key(&(*from_process, *to_process));
            if cut || away(facts, from) || away(facts, to) {
                facts.unheard.entry((*from, *to)).or_insert(at);
            } else if facts.unheard.remove(&(*from, *to)).is_some() {
                facts.unheard_until.insert((*from, *to), at);
            }
        }
    }
}

/// Begins and ends a fault.
async fn befall(planned: Planned, cast: Cast) {
    sleep(planned.at).await;
    strike(&planned, &cast);
    pass(planned, cast).await;
}

fn strike(planned: &Planned, cast: &Cast) {
    cast.witness.hit(format!("fault: {}", planned.trouble.name()));
    cast.witness.note("world", format_args!("{planned}"));
    turn(planned, true, cast);
}

async fn pass(planned: Planned, cast: Cast) {
    sleep(planned.lasts).await;
    cast.witness.note("world", format_args!("over: {planned}"));
    turn(&planned, false, &cast);
}

fn turn(planned: &Planned, on: bool, cast: &Cast) {
    let nodes = cast.nodes();
    let ids: Vec<NodeId> = nodes.iter().map(|(node, _)| *node).collect();
    let process = |node: NodeId| nodes.iter().find(|(it, _)| *it == node).expect("it is one of the nodes").1;
    let net = NetSim::current();
    let mut cuts: Vec<_> =
        planned.trouble.cuts(&ids).into_iter().map(|(from, to)| (process(from), process(to))).collect();
    if let Trouble::Clients(these, way) = &planned.trouble {
        let clients = cast.clients.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (client, node) in clients.iter().flat_map(|client| these.iter().map(|node| (*client, process(*node)))) {
            cuts.extend((*way != Way::ToClients).then_some((client, node)));
            cuts.extend((*way != Way::ToNodes).then_some((node, client)));
        }
    }
    {
        let mut weather = cast.weather.now();
        for (from, to) in cuts {
            // If two faults cut one link, the end of the second heals it.
            let troubles = weather.cut.entry((from, to)).or_default();
            *troubles = if on { *troubles + 1 } else { *troubles - 1 };
            if *troubles > 0 {
                net.clog_link(from, to);
            } else {
                weather.cut.remove(&(from, to));
                net.unclog_link(from, to);
            }
        }
    }
    let mut facts = cast.facts();
    let at = facts.at;
    match &planned.trouble {
        Trouble::Partition(_) | Trouble::OneWay(_) | Trouble::Link(..) | Trouble::Clients(..) => {}
        Trouble::Messages(mishap, share) => {
            let shares = &mut cast.mishaps.lock().unwrap_or_else(PoisonError::into_inner).0;
            if on {
                shares.insert(*mishap, *share);
            } else {
                shares.remove(mishap);
            }
            if *mishap == Mishap::Doubled {
                // Copies arrive in time, too.
                facts.copies_until = facts.copies_until.max(planned.until() + LATE_MAX);
            } else {
                facts.roughen(on, LATE_MAX);
            }
        }
        Trouble::Resets(share) => {
            let resets = &mut cast.weather.now().resets;
            resets.share = if on { *share } else { 0.0 };
            if !on && resets.count > 0 {
                cast.witness.hit("effect: a connection broke half-way");
            }
            facts.roughen(on, Duration::ZERO);
        }
        Trouble::Loss(share) => {
            net.update_config(|config| config.packet_loss_rate = if on { *share } else { 0.0 });
            facts.roughen(on, Duration::ZERO);
        }
        Trouble::Slow(most) => {
            let most = if on { *most } else { Duration::from_millis(10) };
            net.update_config(|config| config.send_latency = Duration::from_millis(1)..most);
            facts.roughen(on, Duration::ZERO);
        }
        Trouble::Crash(node, power) => power_cycle(&mut facts, *node, process(*node), *power, on),
        Trouble::Blackout => ids.iter().for_each(|node| power_cycle(&mut facts, *node, process(*node), true, on)),
        Trouble::Pause(node) => {
            let own = facts.nodes.get_mut(node).expect("it is one of the nodes");
            if on && own.dead_since.is_none() {
                own.paused_since = Some(at);
                Handle::current().pause(process(*node));
            } else if !on && own.paused_since.take().is_some() {
                own.paused_until = at;
                Handle::current().resume(process(*node));
            }
        }
        Trouble::DiskFull(node) => facts.nodes[node].disk.trouble(|it| it.full = on),
        Trouble::DiskFailing(node, share) => {
            facts.nodes[node].disk.trouble(|it| it.failing = if on { *share } else { 0.0 });
        }
        Trouble::DiskUnsyncing(node, share) => {
            facts.nodes[node].disk.trouble(|it| it.unsyncing = if on { *share } else { 0.0 });
        }
        Trouble::Removed(node, share) => {
            if on {
                facts.nodes[node].disk.remove_some(*share);
            }
        }
        Trouble::DiskSlow(node, most) => {
            facts.nodes[node].disk.trouble(|it| it.slow = if on { *most } else { Duration::ZERO });
        }
    }
    survey(&mut facts, cast);
    drop(facts);
    cast.watch(|watcher, facts| watcher.on_event(facts));
}

fn power_cycle(facts: &mut Facts, node: NodeId, process: task::NodeId, power: bool, off: bool) {
    let (at, durability) = (facts.at, facts.scenario.durability);
    let own = facts.nodes.get_mut(&node).expect("it is one of the nodes");
    // A paused task is dropped under madsim's own lock; a running one is not.
    Handle::current().resume(process);
    Handle::current().kill(process);
    own.paused_since = None;
    if off {
        own.dead_since.get_or_insert(at);
        // Without fsync the only promise is that it survives the process.
        own.disk.crash(power && durability == Durability::Fsync);
    } else {
        // Dead until it begins; a second fault that also killed it ends with the first.
        own.dead_since.get_or_insert(at);
        own.disk.crash(false);
        Handle::current().restart(process);
    }
}

/// A client's connections to some of the nodes.
fn reach(
    process: task::NodeId,
    cast: &Cast,
    seed: Seed,
    nodes: impl IntoIterator<Item = NodeId>,
) -> Nodes<SimTransport> {
    let keyed = cast.facts().scenario.keyed;
    let secret = keyed.then(|| intruder::secret(seed, "shared", 0, false));
    Nodes::new(cast.transport(process), nodes.into_iter().map(|node| (node, address(node))).collect(), limits(), secret)
}

/// Uploads one body under a fresh id; returns it if it was acknowledged.
async fn upload(nodes: &Nodes<SimTransport>, cast: &Cast, seed: Seed, bytes: u64) -> Result<RequestId, GaveUp> {
    let mut rng = seed.stream("body");
    let mut body = vec![0; usize::try_from(bytes).expect("small")];
    rng.fill_bytes(&mut body);
    if rng.random_bool(0.3) {
        let head = b"\x89PNG\r\n\x1a\n";
        body.iter_mut().zip(head).for_each(|(byte, head)| *byte = *head);
    }
    let id = RequestId(u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64()));
    let digest = Digest::of(&body);
    let begun = cast.time.elapsed();
    let user = User::try_from("ann".to_owned()).expect("a sound name");
    let label = Label::of(&format!("{}.png", rng.random_range(0..1_000)), user, WallTime(rng.random()));
    let upload = Upload { digest, bytes, begun, label: label.clone(), acknowledged: None };
    cast.facts().uploads.insert(id, upload);
    cast.witness.note("client", format_args!("uploads {id}, {bytes} bytes"));
    let put = Put { id, label, bytes, again: false, excluded: [].into() };
    let reply = if cast.facts().scenario.careless {
        send_carelessly(nodes, cast, put, body, seed).await?
    } else {
        ask(nodes, cast, Request::Put(put), body, seed).await?
    };
    let Reply::Stored { node, stored } = reply else {
        let last = format!("answered by {reply:?}");
        return Err(GaveUp { tries: 0, last, unknown: false, refused: true, reached: false });
    };
    let mut facts = cast.facts();
    let at = facts.at;
    if let Some(upload) = facts.uploads.get_mut(&id) {
        upload.acknowledged = Some((node, stored, at));
    }
    drop(facts);
    cast.witness.note("client", format_args!("has {id} on {node}"));
    cast.watch(|watcher, facts| watcher.on_acknowledged(id, facts));
    Ok(id)
}

/// Sends an upload through two nodes at once, and then once more: each time as if it were the first.
async fn send_carelessly(
    nodes: &Nodes<SimTransport>,
    cast: &Cast,
    put: Put,
    body: Vec<u8>,
    seed: Seed,
) -> Result<Reply, GaveUp> {
    let mut rng = seed.stream("carelessness");
    let pause = Duration::from_millis(rng.random_range(0..60));
    let later = Duration::from_millis(rng.random_range(0..1_500));
    let send = |number: u64| ask(nodes, cast, Request::Put(put.clone()), body.clone(), Seed(seed.0 ^ number << 20));
    let twin = async {
        sleep(pause).await;
        send(1).await
    };
    let (reply, twin) = tokio::join!(send(0), twin);
    sleep(later).await;
    let third = send(2).await;
    if [&reply, &twin, &third].iter().all(|reply| matches!(reply, Ok(Reply::Stored { .. }))) {
        cast.witness.hit("client: sent three times, acknowledged each time");
    }
    reply.or(twin).or(third)
}

async fn upload_all(nth: usize, process: task::NodeId, cast: Cast) {
    let scenario = cast.facts().scenario.clone();
    let (begins, sizes) = scenario.clients[nth].clone();
    sleep(begins).await;
    let nodes = reach(process, &cast, Seed(scenario.seed.0 ^ (nth as u64 + 1) << 40), scenario.nodes.iter().copied());
    for (number, bytes) in sizes.into_iter().enumerate() {
        let seed = Seed(scenario.seed.0 ^ (nth as u64 + 1) << 48 ^ (number as u64 + 1) << 32);
        match upload(&nodes, &cast, seed, bytes).await {
            Ok(_) => cast.witness.hit("client: acknowledged"),
            Err(gave_up) => {
                cast.witness.note("client", format_args!("{gave_up}"));
                cast.witness.hit(if gave_up.unknown { "client: gave up, unknown" } else { "client: gave up" });
            }
        }
    }
}

/// Once the cluster has healed: what is uploaded is stored, what was acknowledged can be fetched.
async fn look_around(process: task::NodeId, cast: &Cast) -> Outcome {
    let mut outcome = Outcome::default();
    let (scenario, healthy) = {
        let facts = cast.facts();
        (facts.scenario.clone(), facts.healthy())
    };
    let seed = |number: u64| Seed(scenario.seed.0 ^ 0xaf7e << 48 ^ number << 32);
    let nodes = reach(process, cast, seed(98), healthy.iter().copied());
    for number in 0..3 {
        if let Err(gave_up) = upload(&nodes, cast, seed(number), 100 + number).await {
            outcome.failed_after.push(gave_up.to_string());
        }
    }
    let acknowledged: Vec<(NodeId, Name)> = {
        let facts = cast.facts();
        let acknowledged = facts.uploads.values().filter_map(|upload| upload.acknowledged);
        acknowledged.map(|(node, stored, _)| (node, stored.name)).collect()
    };
    for (number, (node, name)) in acknowledged.into_iter().enumerate() {
        if !healthy.contains(&node) {
            continue;
        }
        outcome.fetched.0 += 1;
        let request = Request::Get { name };
        match ask(&nodes, cast, request, Vec::new(), seed(100 + number as u64)).await {
            Ok(Reply::Body(_)) => outcome.fetched.1 += 1,
            Ok(Reply::Lost { entry, .. }) if entry.stored.name == name => _ = outcome.missed.insert(name.id),
            other => outcome.unfetched.push(format!("{name}: {other:?}")),
        }
    }
    let request = Request::List { after: None };
    if let Ok(Reply::Listing { uploads, copies, missing, lost, .. }) =
        ask(&nodes, cast, request, Vec::new(), seed(99)).await
    {
        if copies > 0 {
            cast.witness.hit("effect: an upload lies on several nodes");
        }
        outcome.listed = Some(Listed { uploads, copies, missing, lost });
    }
    if let Ok(Reply::Status(status)) = ask(&nodes, cast, Request::Status, Vec::new(), seed(97)).await {
        outcome.gone = status.nodes.iter().map(|own| (own.node, own.gone + own.damaged)).collect();
    }
    outcome
}
