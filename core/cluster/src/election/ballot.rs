//! The messages that nodes exchange in an election.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::peer::{Leadership, NodeId};

/// One message of an election.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ballot {
    /// The newest leadership that its sender has stored; a leader's is its own.
    pub newest: Leadership,
    /// What it is about.
    pub word: Word,
}

/// What a [`Ballot`] is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// To every higher node: "nobody leads; are you there?"
    Challenge {
        /// The sender's number of this round.
        round: u64,
    },
    /// To a lower node that challenged: "I am, leave it to me."
    Answer {
        /// The number of the round that is answered.
        round: u64,
    },
    /// To all, once: "I lead from here on."
    Victory,
    /// To all, again and again: "I still lead."
    Heartbeat {
        /// Counts up from 1 within one leadership.
        beat: u64,
        /// The nodes that the leader hears, itself included.
        alive: BTreeSet<NodeId>,
    },
    /// To the leader: "I heard that, and follow you."
    Echo {
        /// The heartbeat's number.
        beat: u64,
    },
    /// To a leader or an inquirer that is behind: "there is a newer leadership."
    Outdated,
    /// To all, from a node that slept: "is there a newer one?"
    Inquiry,
}

impl Word {
    /// Its name, for logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Challenge { .. } => "challenge",
            Self::Answer { .. } => "answer",
            Self::Victory => "victory",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Echo { .. } => "echo",
            Self::Outdated => "outdated",
            Self::Inquiry => "inquiry",
        }
    }
}
