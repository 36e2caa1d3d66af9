//! A network that is cut between two nodes, both ways or one way, or is slow or lossy everywhere.

use std::{collections::BTreeMap, fmt, time::Duration};

use madsim::{net::NetSim, task::NodeId};

use super::{Nodes, Who};

/// A fault of the network.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// Nothing passes between the two.
    Partition(Who, Who),
    /// Nothing passes from the first to the second.
    OneWay(Who, Who),
    /// This share of the packets is lost, and sent again.
    Loss(f64),
    /// Every packet takes this long at most, instead of 10 ms.
    Slow(Duration),
}

impl Trouble {
    /// Its name in the coverage table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Partition(Who::Controller, _) => "partition of controller and worker",
            Self::Partition(..) => "partition of worker and broker",
            Self::OneWay(Who::Controller, _) => "worker does not hear its controller",
            Self::OneWay(_, Who::Controller) => "controller does not hear a worker",
            Self::OneWay(Who::Broker, _) => "worker does not hear the broker",
            Self::OneWay(..) => "broker does not hear a worker",
            Self::Loss(_) => "packet loss",
            Self::Slow(_) => "packet delay",
        }
    }

    pub(super) fn turn(&self, cut: &mut BTreeMap<(NodeId, NodeId), u32>, nodes: &Nodes, on: bool) {
        let net = NetSim::current();
        let mut link = |from: &Who, to: &Who| {
            for (from, to) in pairs(nodes.of(*from), &nodes.of(*to)) {
                // Of two faults that cut one link the second one's end heals it.
                let troubles = cut.entry((from, to)).or_default();
                *troubles = if on { *troubles + 1 } else { *troubles - 1 };
                if *troubles > 0 {
                    net.clog_link(from, to);
                } else {
                    cut.remove(&(from, to));
                    net.unclog_link(from, to);
                }
            }
        };
        match self {
            Self::Partition(one, other) => {
                link(one, other);
                link(other, one);
            }
            Self::OneWay(from, to) => link(from, to),
            Self::Loss(share) => net.update_config(|config| config.packet_loss_rate = if on { *share } else { 0.0 }),
            Self::Slow(most) => {
                let most = if on { *most } else { Duration::from_millis(10) };
                net.update_config(|config| config.send_latency = Duration::from_millis(1)..most);
            }
        }
    }
}

fn pairs(from: Vec<NodeId>, to: &[NodeId]) -> impl Iterator<Item = (NodeId, NodeId)> {
    from.into_iter().flat_map(|from| to.iter().map(move |to| (from, *to))).filter(|(from, to)| from != to)
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(one, other) => write!(f, "{one} and {other} cut apart"),
            Self::OneWay(from, to) => write!(f, "nothing passes from {from} to {to}"),
            Self::Loss(share) => write!(f, "{:.0} % packet loss", share * 100.0),
            Self::Slow(most) => write!(f, "packets late by up to {} ms", most.as_millis()),
        }
    }
}
