//! The policies: each picks one of the loads it is shown.

use std::fmt;

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use super::Load;
use crate::config::Policy;
use omb_machine::seed::Seed;

/// A way to choose a node. It sees only nodes that are available, at least one, by id.
pub trait Choose: fmt::Debug + Send {
    /// The index of the chosen one in `loads`.
    fn choose(&mut self, loads: &[&Load]) -> usize;
}

pub(super) fn make(policy: Policy, seed: Seed) -> Box<dyn Choose> {
    match policy {
        Policy::LeastLoad => Box::new(LeastLoad),
        Policy::LeastOutstanding => Box::new(LeastOutstanding),
        Policy::PowerOfTwo => Box::new(PowerOfTwo(seed.stream("routing"))),
        Policy::PeakEwma => Box::new(PeakEwma),
        Policy::RoundRobin => Box::new(RoundRobin),
    }
}

/// Fewest assigned; among equals fewest in flight; then by turn.
#[derive(Debug)]
struct LeastLoad;

impl Choose for LeastLoad {
    fn choose(&mut self, loads: &[&Load]) -> usize {
        least(loads, |load| (load.assigned, load.in_flight, load.turn))
    }
}

/// Fewest in flight; then by turn.
#[derive(Debug)]
struct LeastOutstanding;

impl Choose for LeastOutstanding {
    fn choose(&mut self, loads: &[&Load]) -> usize {
        least(loads, |load| (load.in_flight, load.turn))
    }
}

/// Of two different ones drawn at random, the one with fewer in flight. Source: M. Mitzenmacher, "The Power of Two
/// Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001.
#[derive(Debug)]
struct PowerOfTwo(ChaCha8Rng);

impl Choose for PowerOfTwo {
    fn choose(&mut self, loads: &[&Load]) -> usize {
        // Nodes are few, so the bias of a remainder of 64 bits cannot be seen.
        let mut below = |bound: usize| usize::try_from(self.0.next_u64() % bound as u64).expect("below a usize");
        let one = below(loads.len());
        if loads.len() == 1 {
            return one;
        }
        let other = (one + 1 + below(loads.len() - 1)) % loads.len();
        if loads[other].in_flight < loads[one].in_flight { other } else { one }
    }
}

/// The lowest product of recent latency and uploads in flight, this one included; then by turn. As in Finagle and
/// tower.
#[derive(Debug)]
struct PeakEwma;

impl Choose for PeakEwma {
    fn choose(&mut self, loads: &[&Load]) -> usize {
        #[expect(clippy::cast_precision_loss, reason = "a count of uploads in flight is small")]
        let cost = |load: &Load| load.latency.seconds() * (load.in_flight + 1) as f64;
        let order = |a: &&Load, b: &&Load| cost(a).total_cmp(&cost(b)).then(a.turn.cmp(&b.turn));
        loads.iter().enumerate().min_by(|(_, a), (_, b)| order(a, b)).map_or(0, |(index, _)| index)
    }
}

/// One after another: the node that has waited longest.
#[derive(Debug)]
struct RoundRobin;

impl Choose for RoundRobin {
    fn choose(&mut self, loads: &[&Load]) -> usize {
        least(loads, |load| load.turn)
    }
}

/// The first of the least.
fn least<K: Ord>(loads: &[&Load], key: impl Fn(&Load) -> K) -> usize {
    loads.iter().enumerate().min_by_key(|(_, load)| key(load)).map_or(0, |(index, _)| index)
}
