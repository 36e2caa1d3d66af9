//! Walks through one election in the terminal, step by step: three machines, a network that takes 5 ms, disks that take
//! 2 ms, and a clock that moves only when something waits. No network, no disk, no time passes.
//!
//! ```text
//! cargo run -p omb-examples --bin bully_by_hand
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    time::Duration,
};

use omb_cluster::{
    config::{Quorum, Timing},
    election::{Ballot, Election, Input, Output, Word},
    peer::{Leadership, NodeId},
};
use omb_machine::{Machine, Wake, settle, time::Instant};

const NETWORK_TAKES: Duration = Duration::from_millis(5);
const DISK_TAKES: Duration = Duration::from_millis(2);

fn main() {
    println!("Three nodes elect a leader by the bully algorithm: of those that answer, the highest leads.\n");
    println!("    time   what happens");
    println!("    ─────  ─────────────────────────────────────────────────────────────────────────────");

    let mut world = World::default();
    world.chapter("Nodes 1, 2 and 3 start. Each listens for 500 ms: somebody may lead already.");
    (1..=3).for_each(|id| world.start(NodeId(id)));
    world.run(Duration::from_millis(700));

    world.chapter("Node 3 dies. Its heartbeats stop, and that is all the others notice.");
    world.stop(NodeId(3));
    world.run(Duration::from_millis(1_100));

    world.chapter("Node 3 comes back. It is the highest, but it waits until it has been reachable for 2 s.");
    world.start(NodeId(3));
    world.run(Duration::from_millis(2_500));

    world.chapter("Node 3 leads again. Who follows whom:");
    for (id, election) in &world.nodes {
        let leader = election.leader().map_or("nobody".to_owned(), |leadership| leadership.to_string());
        println!("           node {} follows {leader}", id.0);
    }
    println!(
        "\nTerms only rise, and with three nodes each node has every third one to itself: no term has two leaders."
    );
}

/// What is on its way.
enum Event {
    Arrives { from: NodeId, to: NodeId, ballot: Ballot },
    Stored { node: NodeId, leadership: Leadership },
}

#[derive(Default)]
struct World {
    now: Instant,
    nodes: BTreeMap<NodeId, Election>,
    disks: BTreeMap<NodeId, Leadership>,
    events: BTreeMap<(Instant, u64), Event>,
    number: u64,
    /// Heartbeats and their echoes never end: each is shown once in each term, from each to each.
    shown: BTreeSet<(NodeId, NodeId, &'static str, Leadership)>,
}

impl World {
    fn chapter(&self, text: &str) {
        println!("\n    {text}\n");
    }

    fn say(&self, text: &str) {
        println!("  {:>6.3}s  {text}", self.now.as_nanos() as f64 / 1e9);
    }

    fn start(&mut self, id: NodeId) {
        let restored = self.disks.get(&id).copied().unwrap_or_default();
        let peers = (1..=3).map(NodeId).collect();
        self.say(&format!("node {} starts; the newest leader it has on disk: {restored}", id.0));
        self.nodes.insert(id, Election::new(self.now, id, &peers, restored, Timing::default(), Quorum::None));
    }

    fn stop(&mut self, id: NodeId) {
        self.nodes.remove(&id);
        self.say(&format!("node {} is gone", id.0));
    }

    /// Plays on for a while: whatever comes first, an arrival or a timer, happens next.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let wakes = self.nodes.iter().filter_map(|(id, node)| node.poll_timeout().map(|wake| (wake, *id)));
            let wake = wakes.min_by_key(|(wake, id)| (wake.at, *id)).filter(|(wake, _)| wake.at <= end);
            let event = self.events.keys().next().copied().filter(|(at, _)| *at <= end);
            match (event, wake) {
                (Some(key), wake) if wake.is_none_or(|(wake, _)| key.0 <= wake.at) => {
                    self.now = key.0;
                    let event = self.events.remove(&key).expect("the first event");
                    self.happen(event);
                }
                (_, Some((Wake { at, why }, id))) => {
                    self.now = at;
                    if why != "heartbeat" {
                        self.say(&format!("node {} wakes: {why}", id.0));
                    }
                    self.rest(id);
                }
                _ => break,
            }
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        let (id, input) = match event {
            Event::Arrives { from, to, ballot } => (to, Input::Received { from, ballot }),
            Event::Stored { node, leadership } => {
                self.disks.insert(node, leadership);
                self.say(&format!("node {} has stored: {leadership}", node.0));
                (node, Input::Persisted(leadership))
            }
        };
        // What arrives at a node that is gone is lost.
        if let Some(node) = self.nodes.get_mut(&id) {
            node.handle_input(self.now, input);
            self.rest(id);
        }
    }

    /// Carries out all outputs of a node.
    fn rest(&mut self, id: NodeId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let mut outputs = Vec::new();
        let _ = settle(node, self.now, |output| {
            outputs.push(output);
            ControlFlow::Continue(())
        });
        for output in outputs {
            match output {
                Output::Send { to, ballot } => {
                    let endless = matches!(ballot.word, Word::Heartbeat { .. } | Word::Echo { .. });
                    if !endless || self.shown.insert((id, to, ballot.word.name(), ballot.newest)) {
                        self.say(&format!("    {} ──▶ {}   {}", id.0, to.0, words(&ballot)));
                    }
                    self.later(NETWORK_TAKES, Event::Arrives { from: id, to, ballot });
                }
                Output::Persist(leadership) => {
                    self.say(&format!("node {} stores, before it says or does anything by it: {leadership}", id.0));
                    self.later(DISK_TAKES, Event::Stored { node: id, leadership });
                }
                Output::LeaderChanged(Some(leadership)) if leadership.leader == Some(id) => {
                    self.say(&format!("node {} ★ leads", id.0));
                }
                Output::LeaderChanged(Some(leadership)) => {
                    self.say(&format!("node {} follows {leadership}", id.0));
                }
                Output::Disbelieved { peer, what } => {
                    self.say(&format!("node {} does not believe {peer}: {what}", id.0));
                }
                Output::LeaderChanged(None) => self.say(&format!("node {} follows no node", id.0)),
                Output::Info(line) => self.say(&format!("log: {line}")),
            }
        }
    }

    fn later(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.events.insert((self.now + after, self.number), event);
    }
}

/// A ballot as text.
fn words(ballot: &Ballot) -> String {
    match &ballot.word {
        Word::Challenge { .. } => "challenge   \"nobody leads; are you there?\"".to_owned(),
        Word::Answer { .. } => "answer      \"I am; leave it to me\"".to_owned(),
        Word::Victory => format!("victory     \"I lead from here on, in {}\"", ballot.newest.term),
        Word::Heartbeat { .. } => "heartbeat   \"I still lead\", again every 100 ms".to_owned(),
        Word::Echo { .. } => "echo        \"heard, and followed\"".to_owned(),
        Word::Outdated => format!("outdated    \"there is a newer leader: {}\"", ballot.newest),
        Word::Inquiry => "inquiry     \"I slept; is there a newer leader?\"".to_owned(),
    }
}
