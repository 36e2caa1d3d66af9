//! A network between client and broker that is cut, slow or lossy.

use std::{fmt, time::Duration};

use madsim::net::NetSim;

use super::Nodes;

/// One trouble of the network.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// Nothing passes.
    Partition,
    /// What the client sends does not arrive.
    DeafBroker,
    /// What the broker sends does not arrive.
    DeafClient,
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
            Self::Partition => "network partition",
            Self::DeafBroker => "broker cannot be reached",
            Self::DeafClient => "client cannot be reached",
            Self::Loss(_) => "packet loss",
            Self::Slow(_) => "packet delay",
        }
    }

    pub(super) fn turn(&self, nodes: Nodes, on: bool) {
        let net = NetSim::current();
        let link = |from, to| if on { net.clog_link(from, to) } else { net.unclog_link(from, to) };
        match self {
            Self::Partition => {
                link(nodes.client, nodes.broker);
                link(nodes.broker, nodes.client);
            }
            Self::DeafBroker => link(nodes.client, nodes.broker),
            Self::DeafClient => link(nodes.broker, nodes.client),
            Self::Loss(share) => net.update_config(|config| config.packet_loss_rate = if on { *share } else { 0.0 }),
            Self::Slow(most) => {
                let most = if on { *most } else { Duration::from_millis(10) };
                net.update_config(|config| config.send_latency = Duration::from_millis(1)..most);
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition => f.write_str("client and broker cut apart"),
            Self::DeafBroker => f.write_str("nothing passes from client to broker"),
            Self::DeafClient => f.write_str("nothing passes from broker to client"),
            Self::Loss(share) => write!(f, "{:.0} % packet loss", share * 100.0),
            Self::Slow(most) => write!(f, "packets late by up to {} ms", most.as_millis()),
        }
    }
}
