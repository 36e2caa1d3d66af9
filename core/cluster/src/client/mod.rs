//! A client's retries: one request, tried at node after node until it is answered or its deadline has passed.
//!
//! Each try goes to another node than the last, to the leader if a node named it. An upload keeps its request id over
//! all tries, and says so when it may have been stored already; so trying again is safe. The pause between rounds
//! doubles each time, with a seeded jitter, so that many clients do not return all at once.

pub mod listing;

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    time::Duration,
};

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    node::message::{Reply, Request},
    peer::NodeId,
};
use omb_machine::{Machine, Wake, printable::printable_within, seed::Seed, time::Instant};

/// How patient a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From the first try to giving up. Default 60 s.
    pub deadline: Duration,
    /// Longest try. Default 30 s; for a large upload the runtime's own limit on silence is the better bound.
    pub try_max: Duration,
    /// The first pause. Default 50 ms.
    pub pause_min: Duration,
    /// The longest pause. Default 2 s: an election takes less.
    pub pause_max: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(60),
            try_max: Duration::from_secs(30),
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(2),
        }
    }
}

/// What can happen to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A node answered.
    Answered {
        /// The number of the try.
        number: u64,
        /// Its answer.
        reply: Reply,
    },
    /// There will be no answer.
    Failed {
        /// The number of the try.
        number: u64,
        /// Why.
        failure: Failure,
    },
}

/// Why a try has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Nothing was sent: connection refused, no route.
    #[error("{0}")]
    NotSent(String),
    /// Nothing was sent, for the node and this client refuse each other, now and later: version, key.
    #[error("{0}")]
    TurnedAway(String),
    /// It may have been performed all the same.
    #[error("{0}")]
    BrokenOff(String),
    /// The received body is not what was stored: its holder's disk is damaged, and it knows by now. Another copy may
    /// do.
    #[error("{0}")]
    Damaged(String),
    /// The client's own side failed: what it uploads cannot be read, or where a fetched upload goes cannot be written.
    /// Another try would fail as well.
    #[error("{0}")]
    Own(String),
}

/// What a client wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this, followed by its body, and report the result. An earlier try that is still open is abandoned.
    Try {
        /// Counts up.
        number: u64,
        /// Where to send it.
        node: NodeId,
        /// What to send.
        request: Request,
    },
    /// A line for the user: why it takes longer.
    Info(String),
    /// Always the last output.
    Finished(Result<Reply, GaveUp>),
}

/// Why a request was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GaveUp {
    /// How often it was tried.
    pub tries: u64,
    /// The result of the last try.
    pub last: String,
    /// Whether it may have been performed, so that only a retry under the same id can tell.
    pub unknown: bool,
    /// Whether a node, or the client's own side, refused it for good; trying longer would not have helped.
    pub refused: bool,
    /// Whether any node was reached that accepts this client.
    pub reached: bool,
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.refused {
            return f.write_str(&self.last);
        }
        let (tries, last) = (self.tries, &self.last);
        let unknown = if self.unknown { "; it may have been stored all the same" } else { "" };
        write!(f, "given up after {tries} {}: {last}{unknown}", if tries == 1 { "try" } else { "tries" })
    }
}

impl std::error::Error for GaveUp {}

/// One request, until it is answered.
#[derive(Debug)]
pub struct Client {
    nodes: Vec<NodeId>,
    request: Request,
    patience: Patience,
    deadline: Instant,
    rng: ChaCha8Rng,
    /// The position in `nodes` of the next try, if no node has named a leader.
    next: usize,
    /// The leader, as named by the last answer.
    hint: Option<NodeId>,
    /// Tries since the last pause: after as many as there are nodes there is a pause.
    round: usize,
    pause: Duration,
    number: u64,
    state: State,
    unknown: bool,
    reached: bool,
    /// Nodes that refuse this client, or that it refuses.
    closed: BTreeSet<NodeId>,
    /// Nodes whose disks are full.
    full: BTreeSet<NodeId>,
    /// Bodies that were not what was stored.
    damaged: usize,
    last: String,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Trying { node: NodeId, until: Instant },
    Pausing { until: Instant },
    Finished,
}

/// Most characters that are shown of a node's message.
const MESSAGE_CHARS_MAX: usize = 500;

impl Client {
    /// Tries at once: at `first` if it is given, otherwise at the node that `seed` picks.
    ///
    /// # Panics
    /// Without any node.
    #[must_use]
    pub fn new(
        first: Option<NodeId>,
        now: Instant,
        nodes: Vec<NodeId>,
        request: Request,
        patience: Patience,
        seed: Seed,
    ) -> Self {
        assert!(!nodes.is_empty(), "a cluster has nodes");
        let mut rng = seed.stream("client");
        let drawn = usize::try_from(rng.next_u64() % nodes.len() as u64).expect("below a usize");
        // If the first one fails, the others are each tried before it is tried again.
        let next = nodes.iter().position(|node| Some(*node) == first).map_or(drawn, |first| first + 1);
        let mut client = Self {
            nodes,
            request,
            patience,
            deadline: now + patience.deadline,
            rng,
            next,
            hint: first,
            round: 0,
            pause: patience.pause_min,
            number: 0,
            state: State::Finished,
            unknown: false,
            reached: false,
            closed: BTreeSet::new(),
            full: BTreeSet::new(),
            damaged: 0,
            last: String::new(),
            outputs: VecDeque::new(),
        };
        client.attempt(now);
        client
    }

    fn attempt(&mut self, now: Instant) {
        let node = self.hint.take().filter(|hint| self.nodes.contains(hint)).unwrap_or_else(|| {
            let node = self.nodes[self.next % self.nodes.len()];
            self.next = (self.next + 1) % self.nodes.len();
            node
        });
        self.number += 1;
        self.round += 1;
        self.state = State::Trying { node, until: (now + self.patience.try_max).min(self.deadline) };
        let request = self.request.clone();
        self.outputs.push_back(Output::Try { number: self.number, node, request });
    }

    fn on_reply(&mut self, now: Instant, number: u64, reply: Reply) {
        self.reached = true;
        let State::Trying { node, .. } = self.state else {
            // A late acknowledgement counts.
            if self.state != State::Finished && matches!(reply, Reply::Stored { .. }) {
                self.finish(Ok(reply));
            }
            return;
        };
        match reply {
            Reply::Stored { .. } => self.finish(Ok(reply)),
            _ if number != self.number => {}
            Reply::Retry { reason, excluded, leader } => {
                if let Request::Put(put) = &mut self.request {
                    // The node may have asked others, and their answer may have been lost on the way.
                    put.again = true;
                    put.excluded.extend(excluded);
                    if self.nodes.iter().all(|node| put.excluded.contains(node)) {
                        // A disk may have room again.
                        put.excluded.clear();
                    }
                }
                self.hint = leader.filter(|leader| *leader != node);
                self.pause(now, node, &reason);
            }
            Reply::Full { node: full, leader } => {
                // The leader assigns it to a node that has refused it only if no other can be reached.
                let all = !self.full.insert(full) || self.nodes.iter().all(|node| self.full.contains(node));
                if all {
                    let full: Vec<String> = self.full.iter().map(|node| node.0.to_string()).collect();
                    let others = self.nodes.iter().any(|node| !self.full.contains(node));
                    let others = if others { ", and no other node can be reached that could take it" } else { "" };
                    self.last = format!("no node can store it: the disk is full on {}{others}", full.join(", "));
                    return self.give_up(true);
                }
                if let Request::Put(put) = &mut self.request {
                    put.again = true;
                    put.excluded.insert(full);
                }
                self.hint = leader.filter(|leader| *leader != node);
                self.pause(now, node, &format!("the disk of {full} is full"));
            }
            Reply::Refused(reason) => {
                self.last = printable_within(&reason, MESSAGE_CHARS_MAX);
                self.give_up(true);
            }
            reply => self.finish(Ok(reply)),
        }
    }

    fn on_failure(&mut self, now: Instant, number: u64, failure: &Failure) {
        let State::Trying { node, .. } = self.state else { return };
        if number != self.number {
            return;
        }
        self.reached |= !matches!(failure, Failure::NotSent(_) | Failure::TurnedAway(_));
        match (failure, &mut self.request) {
            (Failure::Own(why), _) => {
                self.last = printable_within(why, MESSAGE_CHARS_MAX);
                return self.give_up(true);
            }
            (Failure::BrokenOff(_), Request::Put(put)) => {
                put.again = true;
                self.unknown = true;
            }
            _ => {}
        }
        if let Failure::TurnedAway(_) = failure {
            self.closed.insert(node);
            if self.nodes.iter().all(|node| self.closed.contains(node)) {
                self.last = format!("{node}: {}", printable_within(&failure.to_string(), MESSAGE_CHARS_MAX));
                return self.give_up(true);
            }
        }
        if let Failure::Damaged(why) = failure {
            // From then on each holder reports its own copy as damaged. More failures than holders have another cause.
            self.damaged += 1;
            if self.damaged > self.nodes.len() {
                self.last = format!("{node}: {why}");
                return self.give_up(false);
            }
        }
        if self.round < self.nodes.len() {
            // Another node may do at once.
            self.note(node, &failure.to_string());
            return self.attempt(now);
        }
        self.pause(now, node, &failure.to_string());
    }

    fn note(&mut self, node: NodeId, why: &str) {
        self.last = format!("{node}: {}", printable_within(why, MESSAGE_CHARS_MAX));
        self.outputs.push_back(Output::Info(self.last.clone()));
    }

    /// Waits before the next round, for half to all of the pause.
    fn pause(&mut self, now: Instant, node: NodeId, why: &str) {
        self.note(node, why);
        let half = self.pause / 2;
        let jitter = self.rng.next_u64() % omb_machine::time::nanos(half).max(1);
        let until = now + half + Duration::from_nanos(jitter);
        self.pause = (self.pause * 2).min(self.patience.pause_max);
        self.round = 0;
        self.state = State::Pausing { until };
        if until >= self.deadline {
            self.give_up(false);
        }
    }

    fn give_up(&mut self, refused: bool) {
        let (tries, last) = (self.number, self.last.clone());
        let gave_up = GaveUp { tries, last, unknown: self.unknown, refused, reached: self.reached };
        self.finish(Err(gave_up));
    }

    fn finish(&mut self, outcome: Result<Reply, GaveUp>) {
        self.state = State::Finished;
        self.outputs.push_back(Output::Finished(outcome));
    }
}

impl Machine for Client {
    type Input = Input;
    type Output = Output;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Answered { number, reply } => self.on_reply(now, number, reply),
            Input::Failed { number, failure } => self.on_failure(now, number, &failure),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Trying { node, until } if until <= now => {
                let failure = Failure::BrokenOff("no answer in time".to_owned());
                if now >= self.deadline {
                    self.unknown |= matches!(self.request, Request::Put(_));
                    self.note(node, &failure.to_string());
                    return self.give_up(false);
                }
                self.on_failure(now, self.number, &failure);
            }
            State::Pausing { until } if until <= now => self.attempt(now),
            _ => {}
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn poll_timeout(&self) -> Option<Wake> {
        match self.state {
            State::Trying { until, .. } => Some(Wake { at: until, why: "answer of a node" }),
            State::Pausing { until } => Some(Wake { at: until, why: "pause between tries" }),
            State::Finished => None,
        }
    }
}

#[cfg(test)]
mod tests;
