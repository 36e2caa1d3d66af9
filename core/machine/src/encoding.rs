//! The one encoding of our own messages: bincode 2, its standard configuration, one message and nothing after it.

use serde::{Serialize, de::DeserializeOwned};

/// Largest body that is read, checked before anything is allocated: 16 MiB.
pub const BODY_MAX: usize = 16 << 20;

/// Why bytes are not one of our messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Longer than [`BODY_MAX`].
    #[error("a body of {0} bytes is longer than the limit of {BODY_MAX}")]
    TooLong(usize),
    /// A request of another version, which cannot be decoded further.
    #[error("version {theirs} of the protocol is spoken there, version {ours} here")]
    OtherVersion {
        /// The other side's version.
        theirs: u16,
        /// This side's version.
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
/// If the bytes are too many, not such a message, or more than one.
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

/// Decodes what this process has encoded itself: of any length, and never in another process's hands.
///
/// # Errors
/// As [`decode`], except for the length.
pub fn decode_own<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let (message, _) = bincode::serde::decode_from_slice(bytes, bincode::config::standard())
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    Ok(message)
}

/// Decodes the first value in `bytes`; `None` if it is something else. The rest is not examined.
#[must_use]
pub fn first<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let config = bincode::config::standard().with_limit::<BODY_MAX>();
    bincode::serde::decode_from_slice(bytes, config).ok().map(|(first, _)| first)
}
