//! Everything that varies from seed to seed, drawn from named streams.

use std::{collections::BTreeSet, fmt, time::Duration};

use omb_cluster::{
    config::{Durability, Policy, Quorum},
    peer::NodeId,
};
use omb_machine::seed::Seed;
use rand::{Rng, RngExt as _};

use super::fault::{Mishap, Planned, Trouble, Way};
use crate::{clock::Skew, fault::simpler};

/// One cluster's life.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The seed that it was drawn from.
    pub seed: Seed,
    /// Nodes, by id; ids may have gaps.
    pub nodes: Vec<NodeId>,
    /// When each node is first started.
    pub starts: Vec<Duration>,
    /// The error of each node's clock.
    pub clocks: Vec<Skew>,
    /// The node with another list of peers.
    pub stranger: Option<NodeId>,
    /// Whether the cluster has a key that clients prove.
    pub keyed: bool,
    /// Whether it has another one that peers prove.
    pub peer_keyed: bool,
    /// `peer_addresses`: whether peers are believed from any address. Without a key of peers an intruder that knows the
    /// key of clients, if there is one, then cannot be distinguished from a peer.
    pub anywhere: bool,
    /// The node that lacks it, and whether it has another one.
    pub locked_out: Option<(NodeId, bool)>,
    /// The node that speaks another version of the protocol.
    pub foreigner: Option<NodeId>,
    /// `quorum`.
    pub quorum: Quorum,
    /// `policy`.
    pub policy: Policy,
    /// `durability`.
    pub durability: Durability,
    /// Each client: when it begins, and its uploads' sizes in bytes.
    pub clients: Vec<(Duration, Vec<u64>)>,
    /// Whether clients send each upload through several nodes, at once and once more, each time as if it were the first.
    pub careless: bool,
    /// Whether hoarders announce more uploads than a node has slots for, and send nothing of them.
    pub hoarded: bool,
    /// How long clients wait for one answer.
    pub try_max: Duration,
    /// What goes wrong.
    pub troubles: Vec<Planned>,
    /// What goes wrong in addition, at the worst moments.
    pub ambush: Option<Ambush>,
}

/// A fault that hits a node at the worst moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ambush {
    /// Which moment.
    pub moment: Moment,
    /// Of which upload that reaches it, from 0.
    pub nth: u64,
    /// How long.
    pub lasts: Duration,
    /// Whether it dies, and whether its power fails too; otherwise it is cut off.
    pub dies: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Self::from_seed(Seed(0))
    }
}

/// Faults begin within this time.
pub(super) const TROUBLED: Duration = Duration::from_secs(10);

/// Longest that an ambush lasts.
const AMBUSH_MAX: Duration = Duration::from_secs(4);

impl Scenario {
    /// The scenario of `seed`.
    #[must_use]
    pub fn from_seed(seed: Seed) -> Self {
        let mut rng = seed.stream("cluster");
        let most = [3, 5, 5, 9][rng.random_range(0..4)];
        let count = rng.random_range(3..=most);
        let step = rng.random_range(1..=3);
        let nodes: Vec<NodeId> = (0..count).map(|nth| NodeId(1 + nth * step)).collect();
        let mut hoards = seed.stream("hoarder");
        let hoarded = hoards.random_bool(0.2);
        // Often nothing else, so that what it does to others is seen.
        let alone = hoarded && hoards.random_bool(0.4);
        let stranger =
            (!alone && seed.stream("stranger").random_bool(0.12)).then(|| nodes[rng.random_range(0..nodes.len())]);
        let mut foreign = seed.stream("foreigner");
        // Two nodes of three are a majority, one is none.
        let foreigner = !alone && foreign.random_bool(0.08) && stranger.is_none();
        let foreigner = foreigner.then(|| nodes[foreign.random_range(0..nodes.len())]);
        let mut keys = seed.stream("keys");
        let keyed = keys.random_bool(0.4);
        let locked_out = (!alone && keyed && stranger.is_none() && foreigner.is_none() && keys.random_bool(0.4))
            .then(|| (nodes[keys.random_range(0..nodes.len())], keys.random_bool(0.6)));
        let mut proofs = seed.stream("proofs of peers");
        let (peer_keyed, anywhere) = (keyed && proofs.random_bool(0.5), !alone && proofs.random_bool(0.3));
        let troubles = if alone { Vec::new() } else { troubles(seed, &nodes) };
        let mut hidden = seed.stream("ambush");
        let ambush = hidden.random_bool(0.4).then(|| Ambush {
            moment: [Moment::Written, Moment::Renamed, Moment::Named, Moment::Stored][hidden.random_range(0..4)],
            nth: hidden.random_range(0..6),
            lasts: hidden.random_range(Duration::from_millis(500)..AMBUSH_MAX),
            dies: hidden.random_bool(0.5),
        });
        let calm = troubles.is_empty() && stranger.is_none() && foreigner.is_none() && locked_out.is_none();
        let ambush = ambush.filter(|_| !calm);
        let spread = Duration::from_millis(rng.random_range(1..2_000));
        let mut starts: Vec<Duration> = nodes.iter().map(|_| rng.random_range(Duration::ZERO..spread)).collect();
        let mut late = seed.stream("late starts");
        if !calm && late.random_bool(0.25) {
            let nth = late.random_range(0..nodes.len());
            starts[nth] += late.random_range(Duration::from_secs(2)..TROUBLED);
        }
        let mut skews = seed.stream("clocks of the nodes");
        let skewed = skews.random_bool(0.6);
        let clocks = nodes.iter().map(|_| if skewed { skew(&mut skews) } else { Skew::NONE }).collect();
        let mut work = seed.stream("uploads");
        let clients = (0..work.random_range(1..=4))
            .map(|_| {
                // Without faults they begin when there is a leader, so that no node joins after the first upload.
                let from = Duration::from_millis(if calm { 5_000 } else { 500 });
                let begins = from + work.random_range(Duration::ZERO..Duration::from_secs(5));
                let sizes = (0..work.random_range(1..=10)).map(|_| size(&mut work)).collect();
                (begins, sizes)
            })
            .collect();
        let least = Policy::LeastLoad;
        let others = [Policy::LeastOutstanding, Policy::PowerOfTwo, Policy::PeakEwma, Policy::RoundRobin];
        Self {
            seed,
            starts,
            clocks,
            stranger,
            keyed,
            peer_keyed,
            anywhere,
            locked_out,
            foreigner,
            quorum: if rng.random_bool(0.4) { Quorum::Majority } else { Quorum::None },
            policy: if rng.random_bool(0.8) { least } else { others[rng.random_range(0..4)] },
            durability: if rng.random_bool(0.85) { Durability::Fsync } else { Durability::None },
            clients,
            careless: seed.stream("careless clients").random_bool(0.35),
            hoarded,
            // Hasty clients try again while their upload is being stored.
            try_max: Duration::from_millis([300, 1_000, 2_500, 7_000][seed.stream("haste").random_range(0..4)]),
            troubles,
            ambush,
            nodes,
        }
    }

    /// Whether nothing goes wrong.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        !self.hoarded && self.is_calm_but_for_hoarders()
    }

    /// Whether nothing goes wrong, except that slots may be hoarded.
    #[must_use]
    pub fn is_calm_but_for_hoarders(&self) -> bool {
        self.troubles.is_empty()
            && self.stranger.is_none()
            && self.foreigner.is_none()
            && self.locked_out.is_none()
            && self.ambush.is_none()
            && !self.lets_forgers_in()
    }

    /// Whether an intruder that knows the key of clients, if there is one, passes for a peer.
    #[must_use]
    pub fn lets_forgers_in(&self) -> bool {
        self.anywhere && !self.peer_keyed
    }

    /// Whether a node is first started when others have worked for some time.
    #[must_use]
    pub fn starts_late(&self) -> bool {
        self.starts.iter().any(|start| *start > Duration::from_secs(2))
    }

    /// When the last fault is over and the last node runs.
    #[must_use]
    pub fn healed(&self) -> Duration {
        let over = self.troubles.iter().map(Planned::until);
        let ambushed = self.ambush.map(|_| TROUBLED + AMBUSH_MAX);
        over.chain(self.starts.iter().copied()).chain(ambushed).max().unwrap_or_default() + Duration::from_millis(1)
    }

    /// The same with less going wrong, one step in each possible direction.
    #[must_use]
    pub fn simpler(&self) -> Vec<Self> {
        let halve = |it: &mut Self| {
            it.clients.iter_mut().for_each(|(_, sizes)| sizes.truncate(sizes.len().div_ceil(2)));
        };
        let changes: [&dyn Fn(&mut Self); 12] = [
            &|it| it.ambush = None,
            &|it| it.stranger = None,
            &|it| it.foreigner = None,
            &|it| it.locked_out = None,
            &|it| (it.keyed, it.peer_keyed, it.locked_out) = (false, false, None),
            &|it| it.anywhere = false,
            &|it| it.careless = false,
            &|it| it.hoarded = false,
            &|it| it.starts.iter_mut().for_each(|start| *start = (*start).min(Duration::from_secs(1))),
            &|it| it.clocks.fill(Skew::NONE),
            &|it| it.clients.truncate(1),
            &halve,
        ];
        simpler(self, |it| &mut it.troubles, &changes)
    }
}

/// The stage of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Its temporary file is written, and is to be synced and renamed.
    Written,
    /// It is renamed, and the folder is to be synced.
    Renamed,
    /// Its name is durable, and its label is to be recorded.
    Named,
    /// It is stored, and not acknowledged yet.
    Stored,
}

fn size(rng: &mut impl Rng) -> u64 {
    match rng.random_range(0..20) {
        // Several pieces.
        0 => rng.random_range(65_000..300_000),
        1 => 1,
        _ => rng.random_range(1..5_000),
    }
}

fn skew(rng: &mut impl Rng) -> Skew {
    Skew {
        offset: rng.random_range(Duration::ZERO..Duration::from_secs(1_000)),
        wall_ms: rng.random_range(-5_000..5_000),
        gain_ppm: rng.random_range(-20_000..20_000),
    }
}

/// Kinds of fault, by family, and how likely each is if its family is on.
const FAMILIES: [(&str, &[(&str, f64)]); 6] = [
    ("clients", &[("clients cut off", 0.5), ("nodes deaf", 0.3), ("clients deaf", 0.5)]),
    ("messages", &[("doubled", 0.5), ("late", 0.4), ("lost", 0.4), ("resets", 0.5)]),
    ("reach", &[("partition", 0.6), ("one way", 0.5), ("link", 0.4)]),
    ("network", &[("loss", 0.5), ("delay", 0.5)]),
    ("process", &[("power", 0.7), ("killed", 0.4), ("paused", 0.5), ("blackout", 0.15)]),
    ("disk", &[("full", 0.5), ("failing", 0.5), ("unsyncing", 0.6), ("slow disk", 0.4), ("removed", 0.4)]),
];

/// Swarm testing: each family is off altogether in half of the runs, so that none hides another.
fn troubles(seed: Seed, nodes: &[NodeId]) -> Vec<Planned> {
    let mut planned = Vec::new();
    for (family, kinds) in FAMILIES {
        let mut swarm = seed.stream(&format!("cluster swarm: {family}"));
        if swarm.random_bool(0.5) {
            continue;
        }
        for (kind, share) in kinds {
            let on = swarm.random_bool(*share);
            let mut rng = seed.stream(&format!("cluster: {kind}"));
            let times = if on { rng.random_range(1..=3) } else { 0 };
            let mut of_kind: Vec<Planned> = (0..times).map(|_| trouble(kind, &mut rng, nodes)).collect();
            of_kind.sort_by_key(|planned| planned.at);
            // One of a kind at a time: the end of one would be the end of the other.
            of_kind.dedup_by(|later, earlier| later.at <= earlier.until());
            planned.extend(of_kind);
        }
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

fn trouble(kind: &str, rng: &mut impl Rng, nodes: &[NodeId]) -> Planned {
    let at = rng.random_range(Duration::ZERO..TROUBLED);
    let lasts = Duration::from_millis(if rng.random_bool(0.7) {
        rng.random_range(100..2_500)
    } else {
        rng.random_range(2_500..8_000)
    });
    let some = rng.random_range(0..nodes.len());
    // Often the highest one, which leads.
    let node = nodes[if rng.random_bool(0.4) { nodes.len() - 1 } else { some }];
    let other = nodes[(nodes.iter().position(|it| *it == node).unwrap_or(0) + 1 + some) % nodes.len()];
    let mut these: BTreeSet<NodeId> = nodes.iter().copied().filter(|_| rng.random_bool(0.5)).collect();
    if these.is_empty() || these.len() == nodes.len() {
        these = BTreeSet::from([node]);
    }
    let share = rng.random_range(0.05..0.4);
    let span = Duration::from_millis(rng.random_range(30..400));
    let trouble = match kind {
        "partition" => Trouble::Partition(these),
        "one way" => Trouble::OneWay(these),
        "link" if other != node => Trouble::Link(node, other),
        "link" => Trouble::Partition(BTreeSet::from([node])),
        "clients cut off" => Trouble::Clients(these, Way::Neither),
        "nodes deaf" => Trouble::Clients(these, Way::ToNodes),
        "clients deaf" => Trouble::Clients(these, Way::ToClients),
        "doubled" => Trouble::Messages(Mishap::Doubled, share),
        "late" => Trouble::Messages(Mishap::Late, share),
        "lost" => Trouble::Messages(Mishap::Lost, share),
        "resets" => Trouble::Resets(share / 8.0),
        "loss" => Trouble::Loss(share),
        "delay" => Trouble::Slow(span),
        "power" => Trouble::Crash(node, true),
        "killed" => Trouble::Crash(node, false),
        "blackout" => Trouble::Blackout,
        "paused" => Trouble::Pause(node),
        "full" => Trouble::DiskFull(node),
        "failing" => Trouble::DiskFailing(node, share),
        "unsyncing" => Trouble::DiskUnsyncing(node, share * 2.0),
        "slow disk" => Trouble::DiskSlow(node, span * 3),
        // Now and then all of them.
        "removed" => Trouble::Removed(node, if share < 0.1 { 1.0 } else { share * 2.0 }),
        other => unreachable!("no kind of trouble is called {other}"),
    };
    Planned { at, lasts, trouble }
}

/// As text, for the report of a broken promise.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<String> = self.nodes.iter().map(|node| node.0.to_string()).collect();
        writeln!(
            f,
            "  nodes {}; policy {}, quorum {:?}, durability {:?}",
            ids.join(", "),
            self.policy,
            self.quorum,
            self.durability
        )?;
        let starts: Vec<String> = self.starts.iter().map(|at| format!("{:.1} s", at.as_secs_f64())).collect();
        writeln!(f, "  started at {}", starts.join(", "))?;
        let clocks: Vec<String> = self.clocks.iter().map(ToString::to_string).collect();
        writeln!(f, "  clocks: {}", clocks.join("; "))?;
        for (at, sizes) in &self.clients {
            writeln!(f, "  a client uploads {sizes:?} bytes from {:.1} s", at.as_secs_f64())?;
        }
        if let Some(stranger) = self.stranger {
            writeln!(f, "  {stranger} was given another list of peers")?;
        }
        match self.locked_out {
            Some((node, true)) => writeln!(f, "  a shared key; {node} has another one")?,
            Some((node, false)) => writeln!(f, "  a shared key; {node} has none")?,
            None if self.keyed => writeln!(f, "  a shared key")?,
            None => {}
        }
        if self.peer_keyed {
            writeln!(f, "  a key of peers")?;
        }
        if self.anywhere {
            writeln!(f, "  peers may come from anywhere")?;
        }
        if let Some(foreigner) = self.foreigner {
            writeln!(f, "  {foreigner} speaks another version of the protocol")?;
        }
        if self.careless {
            writeln!(f, "  clients send each upload through several nodes, as if for the first time")?;
        }
        if self.hoarded {
            writeln!(f, "  a hoarder announces many uploads and sends nothing of them")?;
        }
        writeln!(f, "  clients wait for an answer for {:.1} s", self.try_max.as_secs_f64())?;
        for planned in &self.troubles {
            writeln!(f, "  {planned}")?;
        }
        if let Some(Ambush { moment, nth, lasts, dies }) = self.ambush {
            let how = if dies { "without power" } else { "cut off" };
            let secs = lasts.as_secs_f64();
            writeln!(f, "  a node that stores an upload is {how} for {secs:.1} s when number {nth} is {moment:?}")?;
        }
        if self.is_calm() { writeln!(f, "  nothing goes wrong") } else { Ok(()) }
    }
}
