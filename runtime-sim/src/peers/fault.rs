//! What can go wrong in a cluster, and when.

use std::{collections::BTreeSet, fmt, time::Duration};

use omb_cluster::peer::NodeId;

/// One fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// Nothing passes between these nodes and the others.
    Partition(BTreeSet<NodeId>),
    /// Nothing passes from these nodes to the others.
    OneWay(BTreeSet<NodeId>),
    /// Nothing passes between these two.
    Link(NodeId, NodeId),
    /// Clients and these nodes are cut apart.
    Clients(BTreeSet<NodeId>, Way),
    /// This happens to a share of the messages between nodes.
    Messages(Mishap, f64),
    /// This share of the writes and reads on a connection breaks it instead.
    Resets(f64),
    /// This share of the packets is lost, and sent again.
    Loss(f64),
    /// Every packet takes up to this long, instead of 10 ms.
    Slow(Duration),
    /// It dies, and returns with what is on its disk. Whether its power fails too.
    Crash(NodeId, bool),
    /// All die at once, and return.
    Blackout,
    /// It pauses, and continues with its state.
    Pause(NodeId),
    /// Its disk is full.
    DiskFull(NodeId),
    /// This share of the disk's operations fails.
    DiskFailing(NodeId, f64),
    /// This share of its fsyncs fails, and nothing else does.
    DiskUnsyncing(NodeId, f64),
    /// Operations take up to this long.
    DiskSlow(NodeId, Duration),
    /// This share of its uploads is removed, once.
    Removed(NodeId, f64),
}

/// Which traffic between clients and nodes is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Both directions.
    Neither,
    /// What clients send.
    ToNodes,
    /// What nodes answer.
    ToClients,
}

/// What happens to a message when it is handed over; madsim's TCP carries bytes in order or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mishap {
    /// A copy of it arrives too, perhaps after later ones.
    Doubled,
    /// It arrives late, and out of order.
    Late,
    /// It never arrives.
    Lost,
}

/// The longest delay of a message, or of a copy of one.
pub const LATE_MAX: Duration = Duration::from_millis(1_500);

/// A fault in a cluster, when it begins and how long it lasts.
pub type Planned = crate::fault::Planned<Trouble>;

impl Trouble {
    /// Its name in the coverage table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Partition(_) => "partition",
            Self::OneWay(_) => "partition one way",
            Self::Link(..) => "two nodes apart",
            Self::Clients(_, Way::Neither) => "clients cut off",
            Self::Clients(_, Way::ToNodes) => "nodes do not hear clients",
            Self::Clients(_, Way::ToClients) => "clients do not hear nodes",
            Self::Messages(Mishap::Doubled, _) => "messages doubled",
            Self::Messages(Mishap::Late, _) => "messages late",
            Self::Messages(Mishap::Lost, _) => "messages lost",
            Self::Resets(_) => "connections reset",
            Self::Loss(_) => "packet loss",
            Self::Slow(_) => "packet delay",
            Self::Crash(_, true) => "power fails",
            Self::Crash(_, false) => "process killed",
            Self::Blackout => "all die",
            Self::Pause(_) => "node paused",
            Self::DiskFull(_) => "disk full",
            Self::DiskFailing(..) => "disk failing",
            Self::DiskUnsyncing(..) => "disk does not sync",
            Self::DiskSlow(..) => "disk slow",
            Self::Removed(..) => "files removed",
        }
    }

    /// The directed links that it cuts.
    #[must_use]
    pub fn cuts(&self, all: &[NodeId]) -> Vec<(NodeId, NodeId)> {
        let from = |these: &BTreeSet<NodeId>| {
            let others = all.iter().filter(|node| !these.contains(node));
            others.flat_map(|other| these.iter().map(|this| (*this, *other))).collect::<Vec<_>>()
        };
        match self {
            Self::Partition(these) => {
                let mut cut = from(these);
                cut.extend(cut.clone().into_iter().map(|(this, other)| (other, this)));
                cut
            }
            Self::OneWay(these) => from(these),
            Self::Link(one, other) => vec![(*one, *other), (*other, *one)],
            _ => Vec::new(),
        }
    }
}

fn ids(nodes: &BTreeSet<NodeId>) -> String {
    nodes.iter().map(|node| node.0.to_string()).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.trouble {
            Trouble::Partition(these) => write!(f, "nodes {} cut off from the others", ids(these)),
            Trouble::OneWay(these) => write!(f, "nothing passes from nodes {} to the others", ids(these)),
            Trouble::Link(one, other) => write!(f, "{one} and {other} cut apart"),
            Trouble::Clients(these, _) => write!(f, "{} (nodes {})", self.trouble.name(), ids(these)),
            Trouble::Messages(_, share) => write!(f, "{:.0} % of the {}", share * 100.0, self.trouble.name()),
            Trouble::Resets(share) => {
                write!(f, "connections break with {:.1} % of what is written or read", share * 100.0)
            }
            Trouble::Loss(share) => write!(f, "{:.0} % packet loss", share * 100.0),
            Trouble::Slow(most) => write!(f, "packets late by up to {} ms", most.as_millis()),
            Trouble::Crash(node, true) => write!(f, "{node} without power"),
            Trouble::Crash(node, false) => write!(f, "{node} dead"),
            Trouble::Blackout => f.write_str("all without power"),
            Trouble::Pause(node) => write!(f, "{node} stands still"),
            Trouble::DiskFull(node) => write!(f, "the disk of {node} is full"),
            Trouble::DiskFailing(node, share) => write!(f, "the disk of {node} fails {:.0} %", share * 100.0),
            Trouble::DiskUnsyncing(node, share) => write!(f, "fsyncs of {node} fail {:.0} %", share * 100.0),
            Trouble::Removed(node, share) => write!(f, "{:.0} % of the uploads of {node} removed", share * 100.0),
            Trouble::DiskSlow(node, most) => write!(f, "the disk of {node} late by up to {} ms", most.as_millis()),
        }?;
        write!(f, " from {:.1} s to {:.1} s", self.at.as_secs_f64(), self.until().as_secs_f64())
    }
}
