//! What passes over a connection: a greeting from each side, then frames.
//!
//! The greeting keeps its layout in all versions, so that two versions can tell each other what they are. A frame is
//! its length (u32, little-endian) and what [`message::encode`] writes; an empty one only says that somebody is there.

use std::io;

use omb_core::{
    node::message::{self, FRAME_MAX, Reply, VERSION},
    peer::NodeId,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAGIC: [u8; 4] = *b"omb:";

/// Who speaks, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Greeting {
    /// Version of the protocol.
    pub version: u16,
    /// The node; `None` from a client.
    pub node: Option<NodeId>,
}

impl Greeting {
    /// Of this version.
    #[must_use]
    pub fn of(node: Option<NodeId>) -> Self {
        Self { version: VERSION, node }
    }
}

/// What a node says to whoever asked something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// "Send the body."
    Go,
    /// The answer, the last word on this request. After [`Reply::Body`] the body follows.
    Reply(Reply),
}

/// Writes a greeting.
///
/// # Errors
/// If the connection broke.
pub async fn greet(to: &mut (impl AsyncWrite + Unpin), greeting: Greeting) -> io::Result<()> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(greeting.version.to_le_bytes());
    bytes.extend(greeting.node.map_or(0, |node| node.0).to_le_bytes());
    to.write_all(&bytes).await?;
    to.flush().await
}

/// Reads a greeting, of whatever version.
///
/// # Errors
/// If the connection broke, or somebody who is no node of ours speaks.
pub async fn read_greeting(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Greeting> {
    let mut magic = [0; 4];
    from.read_exact(&mut magic).await?;
    if magic != MAGIC {
        return Err(invalid("what speaks there is no node of a cluster"));
    }
    let mut version = [0; 2];
    from.read_exact(&mut version).await?;
    let mut node = [0; 4];
    from.read_exact(&mut node).await?;
    let node = Some(NodeId(u32::from_le_bytes(node))).filter(|node| node.0 > 0);
    Ok(Greeting { version: u16::from_le_bytes(version), node })
}

/// Writes one frame.
///
/// # Errors
/// If the connection broke, or the message is longer than anybody would read.
pub async fn write_frame<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let frame = message::encode(message);
    let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= FRAME_MAX);
    let length = length.ok_or_else(|| invalid("the message is longer than a frame may be"))?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend(frame);
    to.write_all(&bytes).await?;
    to.flush().await
}

/// Writes the frame that only says that somebody is there.
///
/// # Errors
/// If the connection broke.
pub async fn write_empty(to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    to.write_all(&[0; 4]).await?;
    to.flush().await
}

/// Reads one frame; `None` is the empty one.
///
/// # Errors
/// If the connection broke, or the frame is too long or no such message.
pub async fn read_frame<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length == 0 {
        return Ok(None);
    }
    // Before anything is allocated.
    if length > FRAME_MAX {
        return Err(invalid(message::FrameError::TooLong(length)));
    }
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await?;
    message::decode(&frame).map(Some).map_err(invalid)
}

/// Bytes that nobody of ours sends.
pub(super) fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
