//! Plays one seed, or many.
//!
//! `MADSIM_TEST_SEED` names the first seed (then one is played, unless `MADSIM_TEST_NUM` says how many),
//! `MADSIM_TEST_JOBS` how many threads play, and with `MADSIM_TEST_CHECK_DETERMINISM` (or `CI`) one in ten is played
//! twice. Without them a test plays seeds 0.., so that two plain runs are the same run (madsim's own default is the
//! wall clock).

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use madsim::runtime::{Handle, Runtime};
use omb_machine::seed::Seed;
use omb_runtime_sim::{
    peers,
    scenario::Scenario,
    witness::Witness,
    world::{self, Watcher},
};

use crate::invariant::{Promises, cluster::Cluster};

/// The result of one seed.
#[derive(Clone, Debug)]
pub struct Played<S = Scenario> {
    /// The seed.
    pub seed: u64,
    /// Its scenario.
    pub scenario: S,
    /// Hash over every record of the run.
    pub hash: u64,
    /// How many records.
    pub records: u64,
    /// How often each fault, phase and error path was hit.
    pub coverage: BTreeMap<String, u64>,
    /// Messages that left.
    pub messages: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// The promises that did not hold.
    pub broken: Vec<String>,
    /// The last records.
    pub tail: Vec<String>,
}

/// Keeps glibc from giving each run's histograms (some 10 MB, freed at its end) back to the system and faulting them in
/// again for the next: that costs more than the simulation, 130 ms of 210 per seed.
#[cfg(target_env = "gnu")]
fn keep_memory() {
    // SAFETY: mallopt may be called at any time and from any thread; these options only tune.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
    }
}

#[cfg(not(target_env = "gnu"))]
fn keep_memory() {}

/// Plays the scenario of `seed`.
#[must_use]
pub fn play(seed: u64) -> Played {
    play_scenario(Scenario::from_seed(Seed(seed)))
}

/// Plays `scenario` on a thread of its own: std's hash keys are per thread, and madsim seeds them once.
#[must_use]
pub fn play_scenario(scenario: Scenario) -> Played {
    let promises = Arc::new(Mutex::new(Promises::default()));
    let watcher: Arc<Mutex<dyn Watcher>> = promises.clone();
    let world = |scenario, witness| async move { world::play(scenario, watcher, witness).await };
    let found = move || promises.lock().unwrap_or_else(PoisonError::into_inner).broken().found().to_vec();
    play_world(scenario.seed, scenario, world, found)
}

/// Plays the cluster of `seed`.
#[must_use]
pub fn play_cluster(seed: u64) -> Played<peers::Scenario> {
    play_cluster_scenario(peers::Scenario::from_seed(Seed(seed)))
}

/// Plays a cluster.
#[must_use]
pub fn play_cluster_scenario(scenario: peers::Scenario) -> Played<peers::Scenario> {
    let promises = Arc::new(Mutex::new(Cluster::default()));
    let watcher: Arc<Mutex<dyn peers::Watcher>> = promises.clone();
    let world = |scenario, witness| async move { peers::world::play(scenario, watcher, witness).await };
    let found = move || promises.lock().unwrap_or_else(PoisonError::into_inner).broken().found().to_vec();
    play_world(scenario.seed, scenario, world, found)
}

fn play_world<S, W>(
    seed: Seed,
    scenario: S,
    world: impl FnOnce(S, Witness) -> W + Send + 'static,
    found: impl FnOnce() -> Vec<String>,
) -> Played<S>
where
    S: Clone + Send + 'static,
    W: Future<Output = ()> + 'static,
{
    let seed = seed.0;
    let witness = Witness::default();
    let (seen, played) = (witness.clone(), scenario.clone());
    let world = move || {
        let mut runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
        runtime.set_time_limit(Duration::from_secs(3_600));
        runtime.block_on(async move {
            world(played, seen).await;
            let simulated = madsim::time::TimeHandle::current().elapsed();
            end_all().await;
            simulated
        })
    };
    let played = std::thread::Builder::new().name(format!("seed {seed}")).spawn(world).expect("a thread").join();
    let mut broken = found();
    let simulated = match played {
        Ok(simulated) => simulated,
        Err(cause) => {
            let text = cause.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("the message is above");
            broken.push(format!("a node panicked: {text}"));
            Duration::ZERO
        }
    };
    let notes = witness.notes();
    Played {
        seed,
        scenario,
        hash: notes.trace.hash(),
        records: notes.trace.records(),
        coverage: notes.coverage.clone(),
        messages: notes.truths.iter().map(|truth| truth.attempts.len() as u64).sum(),
        simulated,
        broken,
        tail: notes.trace.tail().map(str::to_owned).collect(),
    }
}

/// Ends all simulated processes. A future that waits holds the clock, which holds its waker: such rings outlive the
/// runtime, and with them what the future owns (1 MB of a cluster, 6 MB of a run).
async fn end_all() {
    let handle = Handle::current();
    for process in handle.metrics().num_tasks_by_node().into_keys() {
        // A process that stands still is dropped under madsim's own lock; one that runs is not.
        handle.resume(&process);
        handle.kill(&process);
    }
    // A killed process is dropped when its turn comes.
    madsim::time::sleep(Duration::from_millis(1)).await;
}

/// Plays `seed`, and panics with its story if it broke a promise.
#[track_caller]
pub fn check(seed: u64) {
    let played = play(seed);
    if !played.broken.is_empty() {
        panic!("{}", story(&played));
    }
}

/// What broke, where, and how to play it again.
#[must_use]
pub fn story(played: &Played) -> String {
    story_with(played, "cargo test -p sim-tests", "shrink")
}

/// What broke in a cluster, where, and how to play it again.
#[must_use]
pub fn story_of_cluster(played: &Played<peers::Scenario>) -> String {
    story_with(played, "cargo test -p sim-tests --test cluster", "shrink-cluster")
}

fn story_with<S: fmt::Display>(played: &Played<S>, again: &str, shrink: &str) -> String {
    let mut text = String::new();
    let Played { seed, scenario, hash, records, broken, tail, .. } = played;
    let _ = writeln!(text, "seed {seed} broke a promise\n{scenario}");
    let _ = writeln!(text, "the last of {records} records (trace {hash:016x}):");
    tail.iter().for_each(|record| _ = writeln!(text, "  {record}"));
    let _ = writeln!(text, "broken:");
    broken.iter().for_each(|broken| _ = writeln!(text, "  {broken}"));
    let _ = writeln!(text, "play it again:  MADSIM_TEST_SEED={seed} {again}");
    let _ = write!(text, "find out what it needs:  cargo run -p sim-tests --bin hunt -- {shrink} {seed}");
    text
}

/// Most scenarios that are tried to make one smaller.
const TRIED_MAX: u32 = 600;

/// The smallest scenario that still breaks the same promise: fewer troubles, fewer workers, less to do. Returns its
/// result and how many scenarios were tried.
#[must_use]
pub fn shrink(failed: Played) -> (Played, u32) {
    shrink_by(failed, Scenario::simpler, play_scenario)
}

/// The smallest scenario of a cluster that still breaks the same promise.
#[must_use]
pub fn shrink_cluster(failed: Played<peers::Scenario>) -> (Played<peers::Scenario>, u32) {
    shrink_by(failed, peers::Scenario::simpler, play_cluster_scenario)
}

fn shrink_by<S>(failed: Played<S>, simpler: impl Fn(&S) -> Vec<S>, play: impl Fn(S) -> Played<S>) -> (Played<S>, u32) {
    let (mut least, mut tried) = (failed, 0);
    'smaller: loop {
        for scenario in simpler(&least.scenario) {
            if tried == TRIED_MAX {
                return (least, tried);
            }
            tried += 1;
            let played = play(scenario);
            if promise(&played).is_some() && promise(&played) == promise(&least) {
                least = played;
                continue 'smaller;
            }
        }
        return (least, tried);
    }
}

/// The first promise that was broken.
fn promise<S>(played: &Played<S>) -> Option<&str> {
    played.broken.first().and_then(|broken| broken.split(':').next())
}

/// Which seeds to play, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sweep {
    /// The first.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// On how many threads.
    pub jobs: u64,
    /// Whether one seed in ten is played twice and must leave the same trace.
    pub twice: bool,
    /// The default sweep, since the environment asks for nothing else: it must reach every corner.
    pub whole: bool,
}

fn env(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value:?} is not a number")))
}

impl Sweep {
    /// The sweep that the environment asks for; `count` seeds from 0 if it says nothing.
    #[must_use]
    pub fn from_env(count: u64) -> Self {
        let (seed, num) = (env("MADSIM_TEST_SEED"), env("MADSIM_TEST_NUM"));
        Self {
            first: seed.unwrap_or(0),
            count: num.unwrap_or(if seed.is_some() { 1 } else { count }),
            jobs: env("MADSIM_TEST_JOBS").unwrap_or(1).max(1),
            twice: std::env::var_os("MADSIM_TEST_CHECK_DETERMINISM").is_some() || std::env::var_os("CI").is_some(),
            whole: seed.is_none() && num.is_none(),
        }
    }
}

/// The sum over the seeds that were played.
#[derive(Clone, Debug)]
pub struct Explored<S = Scenario> {
    /// How many.
    pub seeds: u64,
    /// How often each fault, phase and error path was hit, and in how many seeds.
    pub coverage: BTreeMap<String, (u64, u64)>,
    /// Messages that left.
    pub messages: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Real time.
    pub took: Duration,
    /// The first seed that broke a promise.
    pub failed: Option<Played<S>>,
}

impl<S> Default for Explored<S> {
    fn default() -> Self {
        Self {
            seeds: 0,
            coverage: BTreeMap::new(),
            messages: 0,
            simulated: Duration::ZERO,
            took: Duration::ZERO,
            failed: None,
        }
    }
}

/// Plays the seeds of `sweep` until one breaks a promise. `done` is called for each.
pub fn explore(sweep: Sweep, done: impl Fn(&Played) + Sync) -> Explored {
    play_all(sweep, true, play, done)
}

/// Plays the clusters of `sweep`, until one breaks a promise if `until_broken`. `done` is called for each.
pub fn explore_clusters(
    sweep: Sweep,
    until_broken: bool,
    done: impl Fn(&Played<peers::Scenario>) + Sync,
) -> Explored<peers::Scenario> {
    play_all(sweep, until_broken, play_cluster, done)
}

/// Plays all seeds of `sweep`, whatever they break.
pub fn explore_all(sweep: Sweep, done: impl Fn(&Played) + Sync) -> Explored {
    play_all(sweep, false, play, done)
}

fn play_all<S: Send>(
    sweep: Sweep,
    until_broken: bool,
    play: impl Fn(u64) -> Played<S> + Sync,
    done: impl Fn(&Played<S>) + Sync,
) -> Explored<S> {
    keep_memory();
    let began = Instant::now();
    let next = AtomicU64::new(0);
    let explored = Mutex::new(Explored::default());
    let lock = || explored.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..sweep.jobs {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Relaxed);
                    if index >= sweep.count || (until_broken && lock().failed.is_some()) {
                        return;
                    }
                    let mut played = play(sweep.first + index);
                    if sweep.twice && index.is_multiple_of(10) && played.broken.is_empty() {
                        let again = play(played.seed).hash;
                        if again != played.hash {
                            played.broken.push(format!(
                                "two runs of this seed differ: traces {:016x} and {again:016x}",
                                played.hash
                            ));
                        }
                    }
                    done(&played);
                    lock().add(played);
                }
            });
        }
    });
    let mut explored = explored.into_inner().unwrap_or_else(PoisonError::into_inner);
    explored.took = began.elapsed();
    explored
}

/// What a default sweep must reach: every trouble, every phase, every way to end, and their effects. A check that never
/// met its case proves nothing.
const REACHED: [&str; 92] = [
    "client: connection broke",
    "client: could not connect",
    "client: error in place of an answer",
    "client: no answer in time",
    "command: pause consumers",
    "command: set rate",
    "drained: Completely",
    "drained: NotAwaited",
    "drained: Quiet",
    "drained: TooLong",
    "effect: batch given up",
    "effect: batch sent again",
    "effect: broker dropped what was read",
    "effect: connection cut by the broker",
    "effect: connection reset half-way",
    "effect: exchange delayed",
    "effect: exchange doubled",
    "effect: group lost all its members",
    "effect: lease expired",
    "effect: messages given up at the end of the load",
    "effect: payload damaged",
    "effect: produce failed",
    "effect: produce failed after it was performed",
    "effect: produce waits for room",
    "effect: reply delayed by the broker",
    "effect: reply lost",
    "effect: report delayed by the worker",
    "effect: report swallowed by the worker",
    "effect: request lost",
    "effect: sender blocked by a full queue",
    "effect: stalled broker kept somebody waiting",
    "effect: worker given up",
    "effect: worker shut down in good order",
    "end: failed, Broken",
    "end: failed, Refused",
    "end: failed, Unreachable",
    "end: interrupted, report: false",
    "end: interrupted, report: true",
    "end: sound",
    "end: unsound",
    "end: with a warning",
    "fault: broker cuts connections",
    "fault: broker does not hear a worker",
    "fault: broker failing",
    "fault: broker restarts",
    "fault: broker slow",
    "fault: broker stalled",
    "fault: connections reset",
    "fault: controller does not hear a worker",
    "fault: controller killed",
    "fault: controller paused",
    "fault: exchanges delayed",
    "fault: exchanges doubled",
    "fault: packet delay",
    "fault: packet loss",
    "fault: partition of controller and worker",
    "fault: partition of worker and broker",
    "fault: payloads damaged",
    "fault: replies lost",
    "fault: requests lost",
    "fault: worker does not hear its controller",
    "fault: worker does not hear the broker",
    "fault: worker killed",
    "fault: worker late",
    "fault: worker mute",
    "fault: worker paused",
    "fault: worker shut down",
    "group: a member is lost under load",
    "group: a member is lost while probes are on their way",
    "group: member forgotten",
    "group: rebalance",
    "link: Broken",
    "link: Unconnected",
    "phase: drain backlog",
    "phase: fill backlog",
    "phase: measure",
    "phase: search",
    "phase: settle",
    "phase: verify",
    "phase: warm-up",
    "refused or failed: Forgotten",
    "refused or failed: Protocol",
    "refused or failed: Refused",
    "refused: commit, the group does not know this member",
    "refused: sync, the group is rebalancing",
    "run: a second controller, which asks",
    "run: a second controller, which takes over",
    "run: in one process",
    "run: over several workers that share topics",
    "run: over several workers, each with whole topics",
    "run: goes on without a worker",
    "verdict: subscriptions that nobody can judge",
];

/// The same for clusters.
const CLUSTER_REACHED: [&str; 88] = [
    "answer: listing",
    "answer: lost",
    "answer: retry",
    "answer: retry, a body broke off",
    "answer: retry, a relay broke off",
    "answer: retry, no majority",
    "answer: retry, nobody leads",
    "answer: retry, somebody did not say",
    "answer: retry, somebody may hold it",
    "answer: retry, the order is void",
    "answer: retry, without this node",
    "answer: stored",
    "answer: the disk is full",
    "ballot: answer",
    "ballot: challenge",
    "ballot: echo",
    "ballot: heartbeat",
    "ballot: inquiry",
    "ballot: outdated",
    "ballot: victory",
    "client: acknowledged",
    "client: sent three times, acknowledged each time",
    "client: tries again",
    "cluster: a key of peers",
    "cluster: a node speaks another version",
    "cluster: a node starts late",
    "cluster: a node was given another list of peers",
    "cluster: clocks are wrong and drift",
    "cluster: durability Fsync",
    "cluster: durability None",
    "cluster: nothing goes wrong",
    "cluster: peers may come from anywhere",
    "cluster: places are hoarded",
    "cluster: policy least-load",
    "cluster: policy least-outstanding",
    "cluster: policy peak-ewma",
    "cluster: policy power-of-two",
    "cluster: policy round-robin",
    "cluster: quorum Majority",
    "cluster: quorum None",
    "does: fetch",
    "does: follow a leader",
    "does: follow no node",
    "does: persist a leadership",
    "does: relay",
    "does: send a file",
    "does: store",
    "effect: a connection broke half-way",
    "effect: a leader stepped down",
    "effect: a node left the books",
    "effect: a peer from elsewhere is refused",
    "effect: a peer with another list is refused",
    "effect: an absurd number is not believed",
    "effect: an upload lies on several nodes",
    "effect: another version of the protocol noticed",
    "effect: became coordinator",
    "effect: files are missed",
    "effect: the folder of uploads cannot be read",
    "fault: all die",
    "fault: ambush",
    "fault: clients cut off",
    "fault: clients do not hear nodes",
    "fault: connections reset",
    "fault: disk does not sync",
    "fault: disk failing",
    "fault: disk full",
    "fault: disk slow",
    "fault: files removed",
    "fault: messages doubled",
    "fault: messages late",
    "fault: messages lost",
    "fault: node paused",
    "fault: nodes do not hear clients",
    "fault: packet delay",
    "fault: packet loss",
    "fault: partition",
    "fault: partition one way",
    "fault: power fails",
    "fault: process killed",
    "fault: two nodes apart",
    "forger: names an absurd term",
    "forger: orders as an absurd leader",
    "forger: passes for a peer",
    "forger: refused, comes from elsewhere",
    "forger: refused, does not know the key",
    "hoarder: is answered",
    "hoarder: is broken off",
    "hoarder: is waited for",
];

impl Explored<peers::Scenario> {
    /// What should have been reached and was not.
    #[must_use]
    pub fn unreached(&self) -> Vec<&'static str> {
        CLUSTER_REACHED.into_iter().filter(|what| !self.coverage.contains_key(*what)).collect()
    }
}

impl Explored {
    /// What should have been reached and was not.
    #[must_use]
    pub fn unreached(&self) -> Vec<&'static str> {
        REACHED.into_iter().filter(|what| !self.coverage.contains_key(*what)).collect()
    }
}

impl<S> Explored<S> {
    /// Adds what was explored elsewhere.
    pub fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.messages += other.messages;
        self.simulated += other.simulated;
        self.took += other.took;
        for (what, (hits, seeds)) in other.coverage {
            let sum = self.coverage.entry(what).or_default();
            *sum = (sum.0 + hits, sum.1 + seeds);
        }
        self.failed = self.failed.take().or(other.failed);
    }

    fn add(&mut self, played: Played<S>) {
        self.seeds += 1;
        self.messages += played.messages;
        self.simulated += played.simulated;
        for (what, count) in &played.coverage {
            let (hits, seeds) = self.coverage.entry(what.clone()).or_default();
            *hits += count;
            *seeds += 1;
        }
        let earlier = self.failed.as_ref().is_some_and(|failed| failed.seed < played.seed);
        if !played.broken.is_empty() && !earlier {
            self.failed = Some(played);
        }
    }

    /// One line on the speed, and the coverage table.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = String::new();
        let (took, simulated) = (self.took.as_secs_f64(), self.simulated.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "shown, not computed with")]
        let per_second = self.seeds as f64 / took;
        let _ = writeln!(
            text,
            "{} seeds in {took:.1} s ({per_second:.1} a second), {simulated:.0} simulated seconds, {} messages",
            self.seeds, self.messages
        );
        let _ = writeln!(text, "{:>9} {:>6}  what", "hits", "seeds");
        for (what, (hits, seeds)) in &self.coverage {
            let _ = writeln!(text, "{hits:>9} {seeds:>6}  {what}");
        }
        text
    }
}
