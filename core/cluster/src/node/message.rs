//! The messages between nodes, and between a client and a node: data, and their one encoding.
//!
//! A frame begins with the protocol's version, so that another version is recognized as such; the rest is encoded like
//! all our messages (see [`omb_machine::encoding`]). Bodies of uploads are not messages: they follow a
//! [`Request::Put`], an [`Order::Store`] or a reply to [`Request::Get`] or [`Order::Send`] on the same connection.
//!
//! Types decide which side may send what: a client's connection carries [`Request`]s and nothing else, and ballots,
//! books ([`Envelope`]) and [`Order`]s are read only from connections whose connector proved to be a peer
//! ([`crate::handshake::Part`]).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::status::{Account, ClusterStatus, PeerStatus};
use crate::{
    election::Ballot,
    peer::{Digest, Label, Leadership, NodeId, RequestId},
    routing::End,
    store::{Entry, Loss, Name, Stored},
};
use omb_machine::encoding;

/// Version of this protocol; both sides refuse another one.
pub const VERSION: u16 = 2;

/// Largest frame that is read, checked before anything is allocated: 1 MiB. The longest is a [`Reply::Listing`].
pub const FRAME_MAX: usize = 1 << 20;

/// Uploads in one [`Reply::Listing`]. All nodes are asked, for the same share each.
pub const LIST_MAX: usize = 10_000;

/// Bytes of the uploads in one reply, counted by [`Entry::cost`]; the rest of a frame is for the reply's other fields.
pub const LIST_BYTES_MAX: usize = FRAME_MAX - (128 << 10);

/// Uploads in one [`Reply::Found`]: more than anyone chooses from.
pub const FOUND_MAX: usize = 100;

/// Uploads in one [`Message::Recalled`]: 128 KiB, which delay the next heartbeat little.
pub const RECALLED_MAX: usize = 8_192;

/// Bytes of what [`Request::Find`] looks for: no file name is longer.
pub const SOUGHT_MAX: usize = crate::peer::FileName::BYTES_MAX;

/// What one node sends to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The sender, which proved to be this peer when the connection began.
    pub from: NodeId,
    /// Digest of the sender's list of peers. A node with another list is ignored.
    pub peers: Digest,
    /// The message.
    pub message: Message,
}

/// The messages that nodes exchange.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// First on each connection, so that different lists of peers are noticed at once.
    Hello,
    /// To a peer with another list: the sender ignores it.
    Refused,
    /// Part of an election.
    Ballot(Ballot),
    /// From the leader: "how many uploads were you assigned?", and how many that is by the leader's own count.
    Census {
        /// The leadership under which it asks.
        of: Leadership,
        /// Uploads; `None` if the leader does not know yet.
        level: Option<u64>,
    },
    /// To the leader, in answer.
    Report {
        /// The leadership under which the leader asked: what was reported to an earlier one is no longer true.
        of: Leadership,
        /// The greater of what leaders have reported and what is stored.
        level: u64,
        /// Uploads stored. What all nodes store bounds the levels.
        stored: u64,
    },
    /// From the leader: "which uploads do you hold, are you storing, or did you hold?"
    Recall {
        /// The leadership under which it asks: a node that would still take orders of an earlier leader does not
        /// answer.
        of: Leadership,
        /// Only uploads above this id; all of them without it.
        after: Option<RequestId>,
    },
    /// To the leader, in answer: a page of them.
    Recalled {
        /// As in the question.
        of: Leadership,
        /// As in the question.
        after: Option<RequestId>,
        /// By id, at most [`RECALLED_MAX`].
        ids: Vec<RequestId>,
        /// Whether there are others above them.
        more: bool,
    },
    /// To the leader: "a client wants to upload this; which node takes it?"
    Place {
        /// The sender's number for it.
        ticket: u64,
        /// What is to be uploaded.
        put: Put,
    },
    /// From the leader, in answer.
    Placed {
        /// The number that it was asked under.
        ticket: u64,
        /// The upload.
        id: RequestId,
        /// The leadership under which this order is given; a node refuses that of an older leader.
        leadership: Leadership,
        /// The node that takes it, or the reply to the client instead.
        outcome: Result<NodeId, Box<Reply>>,
    },
    /// To the leader: how an upload that it placed ended.
    Finished {
        /// The upload.
        id: RequestId,
        /// The node that it was placed on.
        node: NodeId,
        /// How it ended.
        end: End,
    },
    /// A question to a node about what it holds.
    Ask {
        /// The sender's number for it.
        ticket: u64,
        /// The question.
        question: Question,
    },
    /// In answer.
    Answer {
        /// The number that it was asked under.
        ticket: u64,
        /// The answer.
        answer: Answer,
    },
}

/// What can be asked of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Do you hold this upload, or may you soon?
    Holder {
        /// The upload.
        id: RequestId,
        /// The request that the question is for, as its entry and ticket: it does not count as another try.
        asked: Option<(NodeId, u64)>,
        /// What the client says of it, if it wants it stored. A holder that lacks it remembers it first.
        label: Option<Label>,
    },
    /// What do you hold?
    List {
        /// Only uploads above this id; all of them without it.
        after: Option<RequestId>,
        /// At most this many.
        most: u32,
        /// Of at most this many bytes, counted by [`Entry::cost`].
        bytes: u32,
    },
    /// As [`Request::Find`].
    Find {
        /// What is looked for.
        sought: String,
        /// As in [`Self::List`].
        bytes: u32,
    },
    /// How are you?
    Status,
}

/// What one node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Holder`].
    Holds(Holding),
    /// To [`Question::List`].
    List {
        /// By id.
        uploads: Vec<Entry>,
        /// Whether it holds others above them.
        more: bool,
        /// Of all that it has acknowledged, how many are lost.
        lost: u64,
    },
    /// To [`Question::Find`].
    Found {
        /// Those that were stored here, and what is wrong with each.
        uploads: Vec<(Entry, Option<Loss>)>,
        /// Whether there are others.
        more: bool,
    },
    /// To [`Question::List`] and [`Question::Find`]: it has not read its folder yet.
    Unread,
    /// To [`Question::Status`].
    Status(Box<Account>),
}

/// Whether a node holds an upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding {
    /// It does not.
    No,
    /// It did, and its file is gone or damaged.
    Lost(Box<Entry>, Loss),
    /// It may, soon: it is being stored.
    Perhaps,
    /// The node does not know yet: it is still reading its folder.
    Unread,
    /// It does.
    Held(Stored),
}

/// An upload that a client wants to make. Its body follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    /// Drawn by the client, the same for each try.
    pub id: RequestId,
    /// What the client says of it.
    pub label: Label,
    /// Bytes of the body.
    pub bytes: u64,
    /// Whether it was tried before, so that some node may hold it already. A client's "no" is not relied on.
    pub again: bool,
    /// Nodes that could not take it.
    pub excluded: BTreeSet<NodeId>,
}

/// What a node, but no client, can order of another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Store this here, by order of a leader. The body follows.
    Store {
        /// The upload.
        put: Put,
        /// The leadership that ordered it.
        leadership: Leadership,
    },
    /// Send the body of this upload if it lies here.
    Send {
        /// Its name.
        name: Name,
    },
}

/// What a client asks of any node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Store this somewhere.
    Put(Put),
    /// Send the body of this upload, wherever it lies.
    Get {
        /// Its name.
        name: Name,
    },
    /// Which uploads have a file of this name, or an id that begins with these digits?
    Find {
        /// At most [`SOUGHT_MAX`] bytes.
        sought: String,
    },
    /// Which uploads are stored where? A page of them.
    List {
        /// Only uploads above this id: [`Reply::Listing`]'s `next`, and `None` for the first page.
        after: Option<RequestId>,
    },
    /// How are all nodes?
    Status,
    /// Which node leads, and which are the peers?
    Discover,
}

/// What a node answers a client, or a peer's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The upload is stored.
    Stored {
        /// Where.
        node: NodeId,
        /// As what.
        stored: Stored,
    },
    /// Not now: the same request may be sent again, with this node excluded.
    Retry {
        /// Why, as text.
        reason: String,
        /// The node that cannot take it.
        excluded: Option<NodeId>,
        /// The leader, as far as is known.
        leader: Option<NodeId>,
    },
    /// Never: sending it again would change nothing.
    Refused(String),
    /// The body follows.
    Body(Stored),
    /// No node that can be reached holds it.
    NotFound,
    /// To [`Request::Put`]: the disk of a node is full. The same request may be sent again, with this node excluded.
    Full {
        /// The node.
        node: NodeId,
        /// The leader, as far as is known.
        leader: Option<NodeId>,
    },
    /// To [`Request::Get`]: it was stored, and is lost.
    Lost {
        /// Where it was stored.
        node: NodeId,
        /// What is known of it.
        entry: Box<Entry>,
        /// What is wrong with it.
        loss: Loss,
    },
    /// To [`Request::Find`].
    Found {
        /// By id, lost ones included; an upload on several nodes is listed with each.
        uploads: Vec<(NodeId, Entry, Option<Loss>)>,
        /// Whether there are others.
        more: bool,
        /// As in [`Self::Listing`].
        missing: BTreeSet<NodeId>,
    },
    /// To [`Request::List`].
    Listing {
        /// Which node holds what, by id. Each upload listed here is listed with all its holders.
        uploads: Vec<(NodeId, Entry)>,
        /// Uploads of this page that are on several nodes because a holder could not be reached when they were retried.
        copies: u64,
        /// The id after which the next page begins; `None` after the last.
        next: Option<RequestId>,
        /// Peers that did not answer, or have not read their folder.
        missing: BTreeSet<NodeId>,
        /// How many acknowledged uploads each node has lost; none of them is among `uploads`.
        lost: BTreeMap<NodeId, u64>,
    },
    /// To [`Request::Status`].
    Status(Box<ClusterStatus>),
    /// To [`Request::Discover`].
    Discovered {
        /// The node that answers.
        node: NodeId,
        /// The leader that it follows, possibly itself.
        leader: Option<Leadership>,
        /// For how long, or for how long it has followed none, in ms.
        for_ms: u64,
        /// All nodes, and what the one that answers knows of them.
        peers: Vec<PeerStatus>,
    },
}

/// Bytes that are not a frame of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`FRAME_MAX`].
    #[error("a frame of {0} bytes is longer than the limit of {FRAME_MAX}")]
    TooLong(usize),
    /// Another version of the protocol.
    #[error("version {0} of the protocol; this is version {VERSION}")]
    OtherVersion(u16),
    /// Not decodable.
    #[error("not a frame of this protocol: {0}")]
    Malformed(String),
}

/// The frame of an [`Envelope`], an [`Order`], a [`Request`] or a [`Reply`].
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut frame = VERSION.to_le_bytes().to_vec();
    frame.extend(encoding::encode(message));
    frame
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// If the bytes are too many, of another version, or not such a message.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, FrameError> {
    if frame.len() > FRAME_MAX {
        return Err(FrameError::TooLong(frame.len()));
    }
    let (version, message) =
        frame.split_first_chunk().ok_or_else(|| FrameError::Malformed(format!("{} bytes", frame.len())))?;
    let version = u16::from_le_bytes(*version);
    if version != VERSION {
        return Err(FrameError::OtherVersion(version));
    }
    encoding::decode(message).map_err(|error| FrameError::Malformed(error.to_string()))
}
