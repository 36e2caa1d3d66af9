//! The state of a cluster, in numbers, as it travels: what a node reports of itself, and what all answers say together.
//!
//! Instants do not cross machines, whose clocks are their own: every event is reported as the milliseconds since.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    config::{Durability, Policy, Quorum},
    peer::{Digest, Leadership, NodeId, Term},
};
use omb_machine::printable::printable;

/// Outages that a node remembers per peer.
pub const OUTAGES_MAX: usize = 16;

/// Outages that a node reports, so that its answer stays one frame however many peers there are.
pub const OUTAGES_REPORTED_MAX: usize = 64;

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
    pub(super) fn new(ms: u64, text: &str) -> Self {
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
