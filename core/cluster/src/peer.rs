//! Identifiers of nodes, terms, uploads and contents. None of them can become a path by accident.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use omb_machine::{printable::printable, time::WallTime};

/// One node of a cluster, by the number its peers know it under; at least 1. The highest healthy one leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// A period of leadership. Rises with each; 0 is before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Term(pub u64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "term {}", self.0)
    }
}

/// The leader of a term. Of two, the one of the later term is newer, and compares as greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Leadership {
    /// The term; 0 before the first leader.
    pub term: Term,
    /// Its leader; `None` exactly in term 0.
    pub leader: Option<NodeId>,
}

impl fmt::Display for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.leader {
            Some(leader) => write!(f, "{leader} in {}", self.term),
            None => f.write_str("nobody yet"),
        }
    }
}

/// One upload, drawn at random by the client and kept over its retries. As text: 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub u128);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A text that is not such a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not {expected}", .found.escape_debug())]
pub struct NameError {
    found: String,
    expected: &'static str,
}

impl NameError {
    pub(crate) fn new(found: &str, expected: &'static str) -> Self {
        // Hostile texts may be long, and messages stay on one line.
        Self { found: found.chars().take(60).collect(), expected }
    }
}

impl FromStr for RequestId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let id = digits.then(|| u128::from_str_radix(text, 16).ok()).flatten();
        id.map(Self).ok_or_else(|| NameError::new(text, "a request id (32 hexadecimal digits in lower case)"))
    }
}

/// SHA-256 of some bytes. As text: 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of all of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut hashing = Hashing::default();
        hashing.update(bytes);
        hashing.finish()
    }

    /// The first 12 digits, for messages to people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // At once: an upload's name is written several times, and byte by byte that took longer than hashing a small
        // body.
        let mut text = [0; 64];
        for (two, byte) in text.chunks_exact_mut(2).zip(self.0) {
            two.copy_from_slice(&[byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
        }
        f.write_str(std::str::from_utf8(&text).expect("digits are text"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = || NameError::new(text, "a SHA-256 (64 hexadecimal digits in lower case)");
        if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(refused());
        }
        let mut digest = [0; 32];
        for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| refused())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| refused())?;
        }
        Ok(Self(digest))
    }
}

/// A [`Digest`] in the making, for a body that streams past.
#[derive(Clone, Debug, Default)]
pub struct Hashing(Sha256);

impl Hashing {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all that was taken.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// The uploader's self-chosen name: 1 to 64 characters that are safe on a terminal. Shown and logged, never part of a
/// path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct User(String);

impl User {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for User {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        let sound = (1..=64).contains(&name.chars().count()) && is_printable(&name);
        if sound {
            Ok(Self(name))
        } else {
            Err(NameError::new(&name, "a user's name (1 to 64 characters on one line)"))
        }
    }
}

impl From<User> for String {
    fn from(user: User) -> Self {
        user.0
    }
}

/// A file's name at its origin: 1 to 255 bytes that are safe on a terminal. Shown, and looked for; never part of a
/// path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileName(Box<str>);

impl FileName {
    /// Bytes of the longest.
    pub const BYTES_MAX: usize = 255;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name under which a file of this name is known: what is unsafe on a terminal is escaped, what is too long is
    /// cut off.
    #[must_use]
    pub fn of(name: &str) -> Self {
        let shown = printable(name);
        let mut end = shown.len().min(Self::BYTES_MAX);
        while !shown.is_char_boundary(end) {
            end -= 1;
        }
        Self(if end == 0 { "?".into() } else { shown[..end].into() })
    }
}

impl TryFrom<String> for FileName {
    type Error = NameError;

    fn try_from(name: String) -> Result<Self, NameError> {
        if (1..=Self::BYTES_MAX).contains(&name.len()) && is_printable(&name) {
            Ok(Self(name.into()))
        } else {
            Err(NameError::new(&name, "a file's name (1 to 255 bytes on one line)"))
        }
    }
}

impl From<FileName> for String {
    fn from(name: FileName) -> Self {
        name.0.into()
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_printable(text: &str) -> bool {
    matches!(printable(text), Cow::Borrowed(_))
}

/// What a client says of its upload. It cannot be verified, and is for people only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label {
    /// The file's name.
    pub file: FileName,
    /// Its owner.
    pub owner: User,
    /// When it was uploaded, by the client's clock.
    pub at: WallTime,
}

impl Label {
    /// The label of a file of this name, spelled by [`FileName::of`].
    #[must_use]
    pub fn of(file: &str, owner: User, at: WallTime) -> Self {
        Self { file: FileName::of(file), owner, at }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of FIPS 180-2, appendix B.1.
    #[test]
    fn digests_are_sha_256() {
        let digest = Digest::of(b"abc");
        assert_eq!(digest.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.short(), "ba7816bf8f01");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in ["", "../../etc/passwd", "+0000000000000000000000000000000", "ABCDEF00000000000000000000000000"] {
            assert!(text.parse::<RequestId>().is_err(), "{text}");
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let id = RequestId(0xabc);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(User::try_from("a\nb".to_owned()).is_err());
        assert!(User::try_from(String::new()).is_err());
        assert!(User::try_from("a\u{202e}b".to_owned()).is_err(), "it would read backwards");
        for name in ["", "a\u{1b}[31m", "a\nb", &"x".repeat(256)] {
            assert!(FileName::try_from((*name).to_owned()).is_err(), "{name}");
            let shown = FileName::of(name);
            assert_eq!(FileName::try_from(String::from(shown.clone())), Ok(shown), "what it goes by is a name");
        }
        assert_eq!(FileName::of("a\u{1b}b").as_str(), "a\\u{1b}b");
        assert_eq!(FileName::of(&"ä".repeat(200)).as_str().len(), 254, "cut between two characters");
        assert_eq!(User::try_from("Åsa".to_owned()).map(String::from), Ok("Åsa".to_owned()));
    }
}
