//! What can go wrong in a cluster, and when.

use std::{collections::BTreeSet, fmt, time::Duration};

use omb_core::peer::NodeId;

/// One trouble.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// Nothing passes between these nodes and the others.
    Partition(BTreeSet<NodeId>),
    /// Nothing passes from these nodes to the others.
    OneWay(BTreeSet<NodeId>),
    /// Nothing passes between these two.
    Link(NodeId, NodeId),
    /// This share of the packets is lost, and sent again.
    Loss(f64),
    /// Every packet takes this long at most, instead of 10 ms.
    Slow(Duration),
    /// It dies, and comes back with what is on its disk. Whether its power fails too.
    Crash(NodeId, bool),
    /// All die at once, and come back.
    Blackout,
    /// It stands still, and goes on with its state.
    Pause(NodeId),
    /// Nothing more can be written.
    DiskFull(NodeId),
    /// This share of the disk's operations fails.
    DiskFailing(NodeId, f64),
    /// Operations take this long at most.
    DiskSlow(NodeId, Duration),
}

/// A trouble of a cluster, when it comes and how long it stays.
pub type Planned = crate::fault::Planned<Trouble>;

impl Trouble {
    /// Its name in the coverage table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Partition(_) => "partition",
            Self::OneWay(_) => "partition one way",
            Self::Link(..) => "two nodes apart",
            Self::Loss(_) => "packet loss",
            Self::Slow(_) => "packet delay",
            Self::Crash(_, true) => "power fails",
            Self::Crash(_, false) => "process killed",
            Self::Blackout => "all die",
            Self::Pause(_) => "node paused",
            Self::DiskFull(_) => "disk full",
            Self::DiskFailing(..) => "disk failing",
            Self::DiskSlow(..) => "disk slow",
        }
    }

    /// Links that it cuts, from whom to whom.
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
            Trouble::Loss(share) => write!(f, "{:.0} % packet loss", share * 100.0),
            Trouble::Slow(most) => write!(f, "packets late by up to {} ms", most.as_millis()),
            Trouble::Crash(node, true) => write!(f, "{node} without power"),
            Trouble::Crash(node, false) => write!(f, "{node} dead"),
            Trouble::Blackout => f.write_str("all without power"),
            Trouble::Pause(node) => write!(f, "{node} stands still"),
            Trouble::DiskFull(node) => write!(f, "the disk of {node} is full"),
            Trouble::DiskFailing(node, share) => write!(f, "the disk of {node} fails {:.0} %", share * 100.0),
            Trouble::DiskSlow(node, most) => write!(f, "the disk of {node} late by up to {} ms", most.as_millis()),
        }?;
        write!(f, " from {:.1} s to {:.1} s", self.at.as_secs_f64(), self.until().as_secs_f64())
    }
}
