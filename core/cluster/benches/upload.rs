//! What one upload costs in the pure part of a cluster of three: entry, leader and store, all their messages and steps,
//! without encoding, sockets and disks.
//!
//! `make bench` prints nanoseconds per upload, of all three nodes together.

use std::{
    collections::{BTreeMap, VecDeque},
    hint::black_box,
    ops::ControlFlow,
    time::Duration,
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use omb_cluster::{
    config::{ClusterConfig, Durability, parse_peers},
    node::{
        ClientId, Input, Node, Output,
        message::{Put, Reply, Request},
    },
    peer::{Digest, Label, Leadership, NodeId, RequestId, User},
    store::{self, Kind, Step},
};
use omb_machine::{
    Machine as _,
    seed::Seed,
    settle,
    time::{Instant, WallTime},
};

/// Uploads per measured step.
const UPLOADS: u64 = 300;

/// Three nodes whose messages, bodies and disks take no time.
struct Cluster {
    now: Instant,
    nodes: BTreeMap<NodeId, Node>,
    inputs: VecDeque<(NodeId, Input)>,
    /// Connections over which a node relays: the node, and its client.
    relays: BTreeMap<ClientId, (NodeId, ClientId)>,
    number: u64,
    stored: u64,
    digest: Digest,
    user: User,
}

impl Cluster {
    fn new(durability: Durability) -> Self {
        let mut config = ClusterConfig::new(parse_peers("1=a:1,2=b:1,3=c:1").expect("sound"));
        config.durability = durability;
        let node = |id| Node::new(Instant::ZERO, id, config.clone(), Leadership::default(), Seed(7));
        let mut cluster = Self {
            now: Instant::ZERO,
            nodes: [1, 2, 3].map(NodeId).map(|id| (id, node(id))).into(),
            inputs: VecDeque::new(),
            relays: BTreeMap::new(),
            number: 0,
            stored: 0,
            digest: Digest::of(b"a body"),
            user: User::try_from("ann".to_owned()).expect("a name"),
        };
        for _ in 0..300 {
            cluster.now += Duration::from_millis(10);
            [1, 2, 3].map(NodeId).into_iter().for_each(|id| cluster.rest(id));
            cluster.run();
        }
        assert!(cluster.nodes[&NodeId(3)].router().is_some(), "node 3 leads after 3 s");
        cluster
    }

    /// Takes what a node wants done for done.
    fn rest(&mut self, me: NodeId) {
        let Self { now, nodes, inputs, relays, number, stored, digest, .. } = self;
        let node = nodes.get_mut(&me).expect("one of three");
        let _ = settle(node, *now, |output| {
            match output {
                Output::Send { to, envelope } => inputs.push_back((to, Input::Received(envelope))),
                Output::Relay { client, to, order } => {
                    *number += 1;
                    relays.insert(ClientId(*number), (me, client));
                    inputs.push_back((to, Input::Order { client: ClientId(*number), from: me, order }));
                }
                Output::Answer { client, reply } => match relays.remove(&client) {
                    Some((entry, client)) => inputs.push_back((entry, Input::Relayed { client, outcome: Ok(reply) })),
                    None => *stored += u64::from(matches!(reply, Reply::Stored { .. })),
                },
                Output::Store { id, .. } => {
                    let written = store::Input::Written { id, bytes: 1_024, digest: *digest, kind: Kind::Bin };
                    inputs.push_back((me, Input::Disk(written)));
                }
                Output::Disk(mut steps) => {
                    let done = match steps.pop().expect("there is a step") {
                        Step::List => {
                            store::Input::Listed { temporary: Vec::new(), shared: Vec::new(), recorded: [].into() }
                        }
                        last => store::Input::Done(last),
                    };
                    inputs.push_back((me, Input::Disk(done)));
                }
                Output::Persist(leadership) => inputs.push_back((me, Input::Persisted(leadership))),
                other => _ = black_box(other),
            }
            ControlFlow::Continue(())
        });
    }

    fn run(&mut self) {
        while let Some((to, input)) = self.inputs.pop_front() {
            self.nodes.get_mut(&to).expect("one of three").handle_input(self.now, input);
            self.rest(to);
        }
    }

    fn upload(&mut self, entry: NodeId) {
        self.number += 1;
        let (id, label) = (RequestId(self.number.into()), Label::of("photo.png", self.user.clone(), WallTime(1)));
        let put = Put { id, label, bytes: 1_024, again: false, excluded: [].into() };
        self.inputs.push_back((entry, Input::Request { client: ClientId(self.number), request: Request::Put(put) }));
        self.run();
    }
}

fn upload(c: &mut Criterion) {
    let mut group = c.benchmark_group("upload");
    group.throughput(Throughput::Elements(UPLOADS));
    for (name, entry, durability) in [
        ("to a follower, fsync", 1, Durability::Fsync),
        ("to a follower, none", 1, Durability::None),
        ("to the leader, none", 3, Durability::None),
    ] {
        let mut cluster = Cluster::new(durability);
        let mut wanted = 0;
        group.bench_function(name, |b| {
            b.iter(|| {
                (0..UPLOADS).for_each(|_| cluster.upload(NodeId(entry)));
                wanted += UPLOADS;
            });
        });
        assert_eq!(cluster.stored, wanted, "each is acknowledged");
    }
    group.finish();
}

criterion_group!(benches, upload);
criterion_main!(benches);
