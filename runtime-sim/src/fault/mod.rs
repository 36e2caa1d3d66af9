//! What can go wrong, one trouble each, and what is going wrong right now.

pub mod broker;
pub mod clock;
pub mod network;
pub mod process;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use madsim::{runtime::Handle, task::NodeId, time};

use crate::witness::Witness;

/// One trouble.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// Of the messaging system.
    Broker(broker::Trouble),
    /// Of the network between client and broker.
    Network(network::Trouble),
    /// Of the client's process and of the link between controller and worker.
    Process(process::Trouble),
}

/// A trouble, when it comes and how long it stays.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Since the run began, in true time.
    pub at: Duration,
    /// How long, in true time.
    pub lasts: Duration,
    /// What.
    pub trouble: Trouble,
}

impl Trouble {
    /// Its name in the coverage table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Broker(trouble) => trouble.name(),
            Self::Network(trouble) => trouble.name(),
            Self::Process(trouble) => trouble.name(),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.at.as_secs_f64(), (self.at + self.lasts).as_secs_f64());
        match &self.trouble {
            Trouble::Broker(trouble) => write!(f, "{trouble} from {from:.1} s to {to:.1} s"),
            Trouble::Network(trouble) => write!(f, "{trouble} from {from:.1} s to {to:.1} s"),
            Trouble::Process(trouble) => write!(f, "{trouble} from {from:.1} s to {to:.1} s"),
        }
    }
}

/// What is going wrong right now; read by those it concerns.
#[derive(Clone, Debug, Default)]
pub struct Weather(Arc<Mutex<Now>>);

/// See [`Weather`].
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The broker's troubles.
    pub broker: broker::Now,
    /// The process's and the link's troubles.
    pub process: process::Now,
}

impl Weather {
    /// The state of things. The guard must not live across an `await`.
    pub fn now(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who the troubles befall.
#[derive(Clone, Copy, Debug)]
pub struct Nodes {
    /// The node of controller, worker and load.
    pub client: NodeId,
    /// The messaging system's.
    pub broker: NodeId,
}

/// Brings one planned trouble, and takes it away again.
pub async fn befall(planned: Planned, nodes: Nodes, weather: Weather, witness: Witness) {
    time::sleep(planned.at).await;
    witness.note("fault", format_args!("{} begins", planned.trouble.name()));
    witness.hit(format!("fault: {}", planned.trouble.name()));
    turn(&planned.trouble, nodes, &weather, true);
    time::sleep(planned.lasts).await;
    turn(&planned.trouble, nodes, &weather, false);
    witness.note("fault", format_args!("{} is over", planned.trouble.name()));
}

fn turn(trouble: &Trouble, nodes: Nodes, weather: &Weather, on: bool) {
    match trouble {
        Trouble::Broker(trouble) => trouble.turn(&mut weather.now().broker, &Handle::current(), nodes.broker, on),
        Trouble::Network(trouble) => trouble.turn(nodes, on),
        Trouble::Process(trouble) => trouble.turn(&mut weather.now().process, on),
    }
}
