//! The state of a cluster, in numbers: what a node reports of itself, and what the asked node makes of all answers.
//!
//! Instants do not cross machines, whose clocks are their own: every event is reported as the milliseconds since.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use super::{Node, Unheard, message::Answer, watch::ms};
use crate::{
    config::{Durability, Policy, Quorum},
    peer::{Digest, Leadership, NodeId, Term},
    store::Loss,
};
use omb_machine::{printable::printable, time::Instant};

/// Outages that a node remembers per peer.
pub const OUTAGES_MAX: usize = 16;

/// Outages that a node reports, so that its answer stays one frame however many peers there are.
pub const OUTAGES_REPORTED_MAX: usize = 64;

/// Outages in one [`ClusterStatus`], which is one frame for the most peers that there may be.
const OUTAGES_ALL_MAX: usize = 1_000;

/// Most bytes of a disk failure's text.
const FAILURE_BYTES_MAX: usize = 200;

/// The whole cluster, as seen by the node that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The node that was asked.
    pub node: NodeId,
    /// The leader that it follows, possibly itself.
    pub leader: Option<Leadership>,
    /// For how long, or for how long it has followed none, in ms.
    pub for_ms: u64,
    /// The policy in use.
    pub policy: Policy,
    /// What an acknowledged upload survives.
    pub durability: Durability,
    /// Whether a leader needs others in order to serve.
    pub quorum: Quorum,
    /// All nodes, by id, and what the asked node itself knows of them.
    pub peers: Vec<PeerStatus>,
    /// What each node that answered reports of itself, by id.
    pub nodes: Vec<NodeStatus>,
    /// The leader's books, by node; empty if it did not answer, or has not opened them.
    pub books: Vec<Book>,
    /// Nodes that were out of reach of another, the latest last; at most [`OUTAGES_MAX`] per node, and 1,000 in all.
    pub outages: Vec<Outage>,
}

/// One peer, as another node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Its address, as the list of peers has it.
    pub address: String,
    /// What is known of it.
    pub state: PeerState,
}

/// What a node itself knows of a peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerState {
    /// It is the node that was asked.
    Own,
    /// It was heard, or the leader reports hearing it.
    Here {
        /// Since its last message, or the leader's about it.
        ms: u64,
    },
    /// It was reachable, and is no longer heard.
    Silent {
        /// For how long; up to the suspicion time longer.
        ms: u64,
    },
    /// It was not heard for as long as the asked node has run.
    Never {
        /// For how long.
        ms: u64,
    },
    /// It has another list of peers, so that both ignore each other.
    OtherPeers {
        /// The digest of its list.
        theirs: Digest,
        /// The digest of the list here.
        ours: Digest,
        /// Since its last message.
        ms: u64,
    },
    /// It names a term that no election can have led to, so that it is ignored.
    Disbelieved {
        /// The term.
        term: Term,
        /// Since its last message.
        ms: u64,
    },
    /// It speaks another version of the protocol.
    OtherVersion {
        /// Its version.
        theirs: u16,
        /// The version here.
        ours: u16,
        /// Since it last tried.
        ms: u64,
    },
    /// One of the two refuses the other: keys, certificates.
    Refused {
        /// Why, as in the log.
        why: String,
        /// Since that last happened.
        ms: u64,
    },
}

/// The state of one node, as it reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// The newest leadership that it has stored.
    pub newest: Leadership,
    /// The leader that it follows, possibly itself.
    pub follows: Option<Leadership>,
    /// Why it places no uploads: if it follows no leader, or leads and is hindered. A follower has nothing to place.
    pub hindrance: Option<Hindrance>,
    /// For how long it has run, in ms.
    pub up_ms: u64,
    /// Uploads assigned to it since the cluster began, as leaders count them.
    pub assigned: u64,
    /// Uploads stored.
    pub stored: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Acknowledged uploads whose files are gone.
    pub gone: u64,
    /// Acknowledged uploads whose files are not what was stored.
    pub damaged: u64,
    /// Uploads being stored.
    pub under_way: u64,
    /// The state of its disk.
    pub disk: DiskStatus,
}

/// The state of a node's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskStatus {
    /// The folder of uploads could not be read, so that the node stores nothing and does not know what it holds.
    pub blind: bool,
    /// Steps that failed since the node started.
    pub failures: u64,
    /// The last of them.
    pub last: Option<LastFailure>,
}

/// A failure of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// How long ago, in ms.
    pub ms: u64,
    /// The system's message; at most 200 bytes, on one line.
    pub text: String,
}

impl LastFailure {
    fn new(ms: u64, text: &str) -> Self {
        let mut short = String::new();
        for character in printable(text).chars() {
            if short.len() + character.len_utf8() > FAILURE_BYTES_MAX {
                break;
            }
            short.push(character);
        }
        Self { ms, text: short }
    }
}

/// Why a node that is asked to place an upload does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hindrance {
    /// It follows no leader.
    NobodyLeads,
    /// It leads, and is still asking the others how much they hold.
    TakesCensus,
    /// It leads, and `quorum: majority` requires more nodes than follow it.
    NoMajority {
        /// Nodes that follow it, itself included.
        heard: u32,
        /// Nodes in all.
        of: u32,
    },
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NobodyLeads => f.write_str("it follows no leader"),
            Self::TakesCensus => f.write_str("it is new as the leader, and still asks the others how much they hold"),
            Self::NoMajority { heard, of } => {
                write!(
                    f,
                    "it is heard by {heard} of {of} nodes, itself included, and quorum: majority asks for more than half"
                )
            }
        }
    }
}

/// The leader's record of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    /// The node.
    pub node: NodeId,
    /// Uploads assigned, plus the level at which it joined.
    pub assigned: u64,
    /// Uploads assigned that are not finished.
    pub in_flight: u64,
    /// For how much longer it is passed over after a failure, in ms; 0 if it is not.
    pub penalty_ms: u64,
    /// How long ago an upload last failed on it, in ms; `None` if none has since it joined under this leader.
    pub failed_ms: Option<u64>,
}

/// A node was out of reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// The node.
    pub node: NodeId,
    /// How long ago it was last reachable, in ms; up to the suspicion time longer.
    pub from_ms: u64,
    /// How long ago it was reachable again, in ms; `None` if it is not yet.
    pub until_ms: Option<u64>,
    /// How many of the nodes that answered missed it.
    pub seen_by: u32,
}

/// One node's answer to [`super::message::Question::Status`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its state.
    pub status: NodeStatus,
    /// If it leads, its books.
    pub books: Vec<Book>,
    /// The outages that it has seen, at most [`OUTAGES_REPORTED_MAX`].
    pub outages: Vec<Outage>,
}

impl Node {
    /// What this node reports of itself.
    pub(super) fn account(&self, now: Instant) -> Account {
        let status = NodeStatus {
            node: self.me,
            newest: self.election.durable(),
            follows: self.election.leader(),
            hindrance: self.hindrance(now),
            up_ms: ms(now.since(self.watch.started)),
            assigned: self.level.max(self.store.count()),
            stored: self.store.count(),
            bytes: self.store.bytes(),
            gone: self.store.count_lost(Loss::Gone),
            damaged: self.store.count_lost(Loss::Damaged),
            under_way: self.storing.len() as u64,
            disk: DiskStatus {
                blind: self.store.is_blind(),
                failures: self.counts.disk_failures,
                last: self.trouble.as_ref().map(|(at, text)| LastFailure::new(ms(now.since(*at)), text)),
            },
        };
        let loads = self.router().into_iter().flat_map(crate::routing::Router::loads);
        let books = loads.map(|load| Book {
            node: load.node,
            assigned: load.assigned,
            in_flight: load.in_flight,
            penalty_ms: load.penalty_until.map_or(0, |until| ms(until.since(now))),
            failed_ms: load.failed.map(|failed| ms(now.since(failed))),
        });
        Account { status, books: books.collect(), outages: self.watch.outages(now) }
    }

    /// Why this node places no uploads; `None` if it does, or another node leads.
    pub(super) fn hindrance(&self, now: Instant) -> Option<Hindrance> {
        let count = |nodes: usize| u32::try_from(nodes).unwrap_or(u32::MAX);
        match (&self.leading, self.election.minority(now)) {
            (None, _) if self.election.leader().is_none() => Some(Hindrance::NobodyLeads),
            (_, Some(heard)) => {
                Some(Hindrance::NoMajority { heard: count(heard), of: count(self.config.peers.ids().len()) })
            }
            (Some(leading), None) if leading.census.is_some() => Some(Hindrance::TakesCensus),
            _ => None,
        }
    }

    /// All nodes, and what this one itself knows of them.
    pub(super) fn peers(&self, now: Instant) -> Vec<PeerStatus> {
        let alive = self.election.alive(now);
        let status = |(node, address): (NodeId, &str)| PeerStatus {
            node,
            address: address.to_owned(),
            state: self.peer_state(now, node, &alive),
        };
        self.config.peers.iter().map(status).collect()
    }

    /// A text that there is no leader, for how long, and which nodes are missing.
    pub(super) fn leaderless(&self, now: Instant) -> String {
        let missing = self.peers(now).into_iter().filter_map(|PeerStatus { node, state, .. }| match state {
            PeerState::Own | PeerState::Here { .. } => None,
            PeerState::Silent { ms } => Some(format!("{node} has been silent for {ms} ms")),
            PeerState::Never { .. } => Some(format!("{node} was never heard")),
            PeerState::OtherPeers { .. } => Some(format!("{node} has another list of peers")),
            PeerState::Disbelieved { term, .. } => Some(format!("{node} names {term} and is not believed")),
            PeerState::OtherVersion { .. } => Some(format!("{node} speaks another version of the protocol")),
            PeerState::Refused { why, .. } => Some(format!("{node}: {why}")),
        });
        let missing: Vec<String> = missing.collect();
        let for_ms = ms(now.since(self.watch.since));
        let colon = if missing.is_empty() { "" } else { ": " };
        format!("nobody leads, for {for_ms} ms{colon}{}", missing.join(", "))
    }

    fn peer_state(&self, now: Instant, node: NodeId, alive: &BTreeSet<NodeId>) -> PeerState {
        let ago = |at: Instant| ms(now.since(at));
        if node == self.me {
            return PeerState::Own;
        }
        if let Some((refusal, at)) = self.refused.get(&node) {
            let ms = ago(*at);
            return match *refusal {
                Unheard::Peers(theirs) => PeerState::OtherPeers { theirs, ours: self.digest, ms },
                Unheard::Version(theirs) => PeerState::OtherVersion { theirs, ours: super::message::VERSION, ms },
            };
        }
        if let Some(disbelieved) = self.election.disbelieved(node) {
            return PeerState::Disbelieved { term: disbelieved.term, ms: ago(disbelieved.at) };
        }
        match self.watch.seen(node).max(self.election.heard(node)) {
            Some(seen) if alive.contains(&node) => PeerState::Here { ms: ago(seen) },
            // The leader has just named it.
            None if alive.contains(&node) => PeerState::Here { ms: 0 },
            seen => match (self.shut.get(&node).filter(|(_, at)| now.since(*at) < super::SHUT_FOR), seen) {
                (Some((why, at)), _) => PeerState::Refused { why: why.clone(), ms: ago(*at) },
                (None, Some(seen)) => PeerState::Silent { ms: ago(seen) },
                (None, None) => PeerState::Never { ms: ago(self.watch.started) },
            },
        }
    }

    /// Combines all answers.
    pub(super) fn cluster_status(&self, now: Instant, answers: BTreeMap<NodeId, Answer>) -> ClusterStatus {
        let leader = self.election.leader();
        let (mut nodes, mut books, mut outages) = (Vec::new(), Vec::new(), Vec::new());
        for (node, answer) in answers {
            let Answer::Status(account) = answer else { continue };
            let Account { mut status, books: own, outages: seen } = *account;
            status.disk.last = status.disk.last.map(|last| LastFailure::new(last.ms, &last.text));
            if leader.is_some_and(|leader| leader.leader == Some(node)) {
                books = own;
            }
            outages.extend(seen.into_iter().take(OUTAGES_REPORTED_MAX).map(|outage| (node, outage)));
            nodes.push(NodeStatus { node, ..status });
        }
        let of = |node: NodeId| self.config.peers.address(node).is_some();
        books.retain(|book| of(book.node));
        books.truncate(self.config.peers.ids().len());
        outages.retain(|(_, outage)| of(outage.node));
        ClusterStatus {
            node: self.me,
            leader,
            for_ms: ms(now.since(self.watch.since)),
            policy: self.config.policy,
            durability: self.config.durability,
            quorum: self.config.quorum,
            peers: self.peers(now),
            nodes,
            books,
            outages: united(outages),
        }
    }
}

/// Outages, each reported by a node. Overlapping ones of a node are merged; the latest [`OUTAGES_MAX`] of each node
/// remain.
fn united(mut outages: Vec<(NodeId, Outage)>) -> Vec<Outage> {
    outages.sort_by_key(|(witness, outage)| (outage.node, std::cmp::Reverse(outage.from_ms), *witness));
    let mut united: Vec<Outage> = Vec::new();
    let mut witnesses = BTreeSet::new();
    for (witness, outage) in outages {
        match united.last_mut() {
            Some(last) if last.node == outage.node && last.until_ms.is_none_or(|until| until <= outage.from_ms) => {
                last.until_ms = last.until_ms.zip(outage.until_ms).map(|(one, other)| one.min(other));
                last.seen_by += u32::from(witnesses.insert(witness));
            }
            _ => {
                witnesses = [witness].into();
                united.push(Outage { seen_by: 1, ..outage });
            }
        }
    }
    let mut later: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut latest: Vec<Outage> = united
        .into_iter()
        .rev()
        .filter(|outage| {
            let later = later.entry(outage.node).or_default();
            *later += 1;
            *later <= OUTAGES_MAX
        })
        .collect();
    latest.sort_by_key(|outage| (std::cmp::Reverse(outage.from_ms), outage.node));
    latest.split_off(latest.len().saturating_sub(OUTAGES_ALL_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outage(node: u32, from_ms: u64, until_ms: Option<u64>, seen_by: u32) -> Outage {
        Outage { node: NodeId(node), from_ms, until_ms, seen_by }
    }

    #[test]
    fn outages_that_overlap_are_one() {
        let reported = [
            (1, outage(2, 9_000, Some(5_000), 1)),
            (3, outage(2, 9_100, Some(7_000), 1)),
            (3, outage(2, 6_000, Some(5_200), 1)),
            (1, outage(2, 4_000, Some(3_000), 1)),
            (2, outage(3, 8_000, None, 1)),
            (1, outage(3, 7_000, Some(6_000), 1)),
        ];
        let reported = reported.map(|(witness, outage)| (NodeId(witness), outage)).to_vec();
        let want = [outage(2, 9_100, Some(5_000), 2), outage(3, 8_000, None, 2), outage(2, 4_000, Some(3_000), 1)];
        assert_eq!(united(reported), want);
        let many = (0..100).map(|n| (NodeId(2), outage(1, 100_000 - n * 1_000, Some(99_500 - n * 1_000), 1))).collect();
        let latest = united(many);
        assert_eq!((latest.len(), latest.last().map(|outage| outage.from_ms)), (OUTAGES_MAX, Some(1_000)));
    }
}
