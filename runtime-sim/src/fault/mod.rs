//! What can go wrong, a file per kind of fault, and what is going wrong right now.

pub mod broker;
pub mod clock;
pub mod exchange;
pub mod network;
pub mod process;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use madsim::{runtime::Handle, task::NodeId, time};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::witness::Witness;

/// A fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Trouble {
    /// Of the messaging system.
    Broker(broker::Trouble),
    /// Of the network.
    Network(network::Trouble),
    /// Of a process.
    Process(process::Trouble),
    /// Of the exchanges between controller and worker.
    Exchange(exchange::Trouble),
}

/// A fault, when it begins and how long it lasts.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned<T = Trouble> {
    /// Since the simulation began, in true time.
    pub at: Duration,
    /// How long, in true time.
    pub lasts: Duration,
    /// The fault.
    pub trouble: T,
}

impl<T> Planned<T> {
    /// When it is over, in true time.
    #[must_use]
    pub fn until(&self) -> Duration {
        self.at + self.lasts
    }
}

/// `scenario` with less going wrong, one step in each possible direction: without one of its faults, or after one of
/// the changes. To find out what a failure really needs.
pub fn simpler<S: Clone + PartialEq, T>(
    scenario: &S,
    troubles: impl Fn(&mut S) -> &mut Vec<Planned<T>>,
    changes: &[&dyn Fn(&mut S)],
) -> Vec<S> {
    let after = |change: &dyn Fn(&mut S)| {
        let mut less = scenario.clone();
        change(&mut less);
        less
    };
    let count = troubles(&mut scenario.clone()).len();
    let without = (0..count).map(|nth| after(&|it| _ = troubles(it).remove(nth)));
    without.chain(changes.iter().map(|change| after(change)).filter(|less| less != scenario)).collect()
}

impl Trouble {
    /// Its name in the coverage table.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Broker(trouble) => trouble.name(),
            Self::Network(trouble) => trouble.name(),
            Self::Process(trouble) => trouble.name(),
            Self::Exchange(trouble) => trouble.name(),
        }
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.at.as_secs_f64(), self.until().as_secs_f64());
        match &self.trouble {
            Trouble::Broker(trouble) => write!(f, "{trouble} from {from:.1} s to {to:.1} s"),
            Trouble::Network(trouble) => write!(f, "{trouble} from {from:.1} s to {to:.1} s"),
            Trouble::Process(process::Trouble::ControllerKilled) => {
                write!(f, "the controller is killed at {from:.1} s")
            }
            Trouble::Process(trouble) => write!(f, "{trouble} from {from:.1} s to {to:.1} s"),
            Trouble::Exchange(trouble) => write!(f, "{trouble} from {from:.1} s to {to:.1} s"),
        }
    }
}

/// What is going wrong right now; read by the parts it concerns.
#[derive(Clone, Debug)]
pub struct Weather(Arc<Mutex<Now>>);

/// See [`Weather`].
#[derive(Clone, Debug, Default)]
pub struct Now {
    /// The broker's faults.
    pub broker: broker::Now,
    /// Each worker's.
    pub processes: Vec<process::Now>,
    /// Of the exchanges with each worker.
    pub exchanges: Vec<exchange::Now>,
    /// Links that are cut, from which node to which, and by how many faults.
    pub cut: BTreeMap<(NodeId, NodeId), u32>,
    /// Of connections, past and present.
    pub resets: Resets,
}

/// Connections that break half-way.
#[derive(Clone, Debug, Default)]
pub struct Resets {
    /// Of what is written or read at the end that connected, the share that breaks the connection instead.
    pub share: f64,
    /// The random stream for that; `None` if nothing breaks.
    pub rng: Option<ChaCha8Rng>,
    /// How often that happened.
    pub count: u64,
}

impl Resets {
    /// Whether the next one breaks.
    pub fn strikes(&mut self) -> bool {
        let strikes = self.share > 0.0 && self.rng.as_mut().is_some_and(|rng| rng.random_bool(self.share));
        self.count += u64::from(strikes);
        strikes
    }
}

impl Now {
    /// Whether nothing passes between the two, in at least one direction.
    #[must_use]
    pub fn are_apart(&self, one: NodeId, other: NodeId) -> bool {
        self.cut.contains_key(&(one, other)) || self.cut.contains_key(&(other, one))
    }
}

impl Weather {
    /// No faults, over this many workers.
    #[must_use]
    pub fn new(workers: u32) -> Self {
        let (processes, exchanges) =
            (vec![process::Now::default(); workers as usize], vec![exchange::Now::default(); workers as usize]);
        Self(Arc::new(Mutex::new(Now { processes, exchanges, ..Now::default() })))
    }

    /// The current state. The guard must not live across an `await`.
    pub fn now(&self) -> MutexGuard<'_, Now> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The target of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// Every controller.
    Controller,
    /// The messaging system.
    Broker,
    /// One of the workers, from 0.
    Worker(u32),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller => f.write_str("controller"),
            Self::Broker => f.write_str("broker"),
            Self::Worker(worker) => write!(f, "worker {worker}"),
        }
    }
}

/// The simulated machines.
#[derive(Clone, Debug)]
pub struct Nodes {
    /// The first one's, and the second one's if there is one.
    pub controllers: Vec<NodeId>,
    /// Each worker's; where everything is one process, the controller's.
    pub workers: Vec<NodeId>,
    /// The messaging system's.
    pub broker: NodeId,
}

impl Nodes {
    fn of(&self, target: Who) -> Vec<NodeId> {
        match target {
            Who::Controller => self.controllers.clone(),
            Who::Broker => vec![self.broker],
            Who::Worker(worker) => vec![self.workers[worker as usize]],
        }
    }
}

/// Applies one planned fault, and removes it again.
pub async fn befall(planned: Planned, nodes: Nodes, weather: Weather, witness: Witness) {
    time::sleep(planned.at).await;
    witness.note("fault", format_args!("{} begins", planned.trouble.name()));
    witness.hit(format!("fault: {}", planned.trouble.name()));
    turn(&planned.trouble, &nodes, &weather, true);
    if let Trouble::Process(process::Trouble::Killed(worker)) = planned.trouble {
        witness.notes().leave(worker);
    }
    time::sleep(planned.lasts).await;
    if let Trouble::Process(process::Trouble::Shutdown(worker)) = planned.trouble {
        witness.notes().leave(worker);
    }
    turn(&planned.trouble, &nodes, &weather, false);
    witness.note("fault", format_args!("{} is over", planned.trouble.name()));
}

fn turn(trouble: &Trouble, nodes: &Nodes, weather: &Weather, on: bool) {
    match trouble {
        Trouble::Broker(trouble) => trouble.turn(&mut weather.now().broker, &Handle::current(), nodes.broker, on),
        Trouble::Network(trouble) => trouble.turn(&mut weather.now().cut, nodes, on),
        Trouble::Process(trouble) => trouble.turn(&mut weather.now().processes, nodes, on),
        Trouble::Exchange(trouble) => trouble.turn(&mut weather.now().exchanges, on),
    }
}
