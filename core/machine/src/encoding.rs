//! The one encoding of our own messages: bincode 2, its standard configuration, one message and nothing after it.

use serde::{Serialize, de::DeserializeOwned};

/// Largest body that is read, checked before anything is allocated: 16 MiB.
pub const BODY_MAX: usize = 16 << 20;

/// Bytes that are no message of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than [`BODY_MAX`].
    #[error("a body of {0} bytes is longer than the limit of {BODY_MAX}")]
    TooLong(usize),
    /// A request of another version, which cannot be read further.
    #[error("version {theirs} of the protocol is spoken there, version {ours} here")]
    OtherVersion {
        /// What the other side speaks.
        theirs: u16,
        /// What this side speaks.
        ours: u16,
    },
    /// Not decodable, or followed by something else.
    #[error("not a message of this protocol: {0}")]
    Malformed(String),
}

/// Encodes a message of this protocol: bincode 2, its standard configuration.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(message, bincode::config::standard()).expect("our own types always encode")
}

/// Decodes what [`encode`] wrote.
///
/// # Errors
/// If the bytes are too many, or no such message, or more than one.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > BODY_MAX {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    let config = bincode::config::standard().with_limit::<BODY_MAX>();
    let (message, read) =
        bincode::serde::decode_from_slice(bytes, config).map_err(|error| DecodeError::Malformed(error.to_string()))?;
    if read == bytes.len() {
        Ok(message)
    } else {
        Err(DecodeError::Malformed(format!("{} bytes too many", bytes.len() - read)))
    }
}

/// Decodes what this process has encoded itself: of any length, and nobody else may have had it in hand.
///
/// # Errors
/// As [`decode`], but for the length.
pub fn decode_own<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (message, _) = bincode::serde::decode_from_slice(bytes, bincode::config::standard())
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    Ok(message)
}

/// Decodes what stands first in `bytes`; `None` if it is something else. What follows is not looked at.
#[must_use]
pub fn first<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let config = bincode::config::standard().with_limit::<BODY_MAX>();
    bincode::serde::decode_from_slice(bytes, config).ok().map(|(first, _)| first)
}
