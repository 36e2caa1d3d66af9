//! What passes over a connection after the greeting: frames, and bodies after them.
//!
//! A frame is its length (u32, little-endian) and what [`message::encode`] writes; an empty one is a keep-alive. A body
//! of up to [`SMALL_MAX`] bytes follows its frame at once; before a larger one the node is asked, for it may be the
//! wrong one.

use std::io;

use omb_cluster::node::message::{self, FRAME_MAX, Order, Reply, Request};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};

/// A connection, buffered both ways, so that a small exchange is one system call on each side.
pub type Line<S> = BufReader<BufWriter<S>>;

/// A fresh one.
pub fn line<S: AsyncRead + AsyncWrite>(stream: S) -> Line<S> {
    BufReader::new(BufWriter::new(stream))
}

/// Largest body that follows without being asked for: 64 KiB. Sending it in vain costs less than asking first.
pub const SMALL_MAX: u64 = 64 << 10;

/// What a body may follow.
pub(super) trait Announces {
    /// Bytes of the body that follows the request.
    fn announced(&self) -> u64;

    /// Of them, those that are sent at once, whether they are wanted or not.
    fn sent_along(&self) -> u64 {
        Some(self.announced()).filter(|bytes| *bytes <= SMALL_MAX).unwrap_or(0)
    }
}

impl Announces for Request {
    fn announced(&self) -> u64 {
        if let Self::Put(put) = self { put.bytes } else { 0 }
    }
}

impl Announces for Order {
    fn announced(&self) -> u64 {
        if let Self::Store { put, .. } = self { put.bytes } else { 0 }
    }
}

/// What a node sends in answer to a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// "Send the body", which is larger than [`SMALL_MAX`].
    Go,
    /// The answer, which ends this request. After [`Reply::Body`] the body follows.
    Reply(Reply),
}

/// Writes one frame into the buffer; a flush sends it.
///
/// # Errors
/// If the connection broke, or the message is longer than a node reads.
pub async fn put_frame<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let frame = message::encode(message);
    let length = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= FRAME_MAX);
    let length = length.ok_or_else(|| invalid("the message is longer than a frame may be"))?;
    to.write_all(&length.to_le_bytes()).await?;
    to.write_all(&frame).await
}

/// Sends one frame.
///
/// # Errors
/// As for [`put_frame`].
pub async fn write_frame<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    put_frame(to, message).await?;
    to.flush().await
}

/// Sends a keep-alive frame.
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
/// If the connection broke, or the frame is too long or not such a message.
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

/// An error for bytes that no node or client sends.
pub(super) fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
