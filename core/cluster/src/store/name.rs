//! File names. They consist of ids and digests only, so whatever a client sends, none leads out of its folder.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::peer::{Digest, NameError, RequestId};

/// The kind of a body, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A PNG image.
    Png,
    /// A JPEG image.
    Jpg,
    /// Anything else.
    Bin,
}

impl Kind {
    /// How many first bytes are enough to determine it.
    pub const HEAD_BYTES: usize = 8;

    /// The kind of a body that begins with `head`. Sources: PNG specification, 5.2; ITU-T T.81, B.1.1.3.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        if head.starts_with(b"\x89PNG\r\n\x1a\n") {
            Self::Png
        } else if head.starts_with(b"\xff\xd8\xff") {
            Self::Jpg
        } else {
            Self::Bin
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpg => "jpg",
            Self::Bin => "bin",
        }
    }
}

/// The name of a stored upload: `REQUEST-DIGEST.EXTENSION`. It repeats what was acknowledged, without reading the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Name {
    /// The upload.
    pub id: RequestId,
    /// Its content's digest.
    pub digest: Digest,
    /// Its content's kind.
    pub kind: Kind,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}.{}", self.id, self.digest, self.kind.extension())
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parse = || {
            let (id, rest) = text.split_once('-')?;
            let (digest, extension) = rest.split_once('.')?;
            let kind = [Kind::Png, Kind::Jpg, Kind::Bin].into_iter().find(|kind| kind.extension() == extension)?;
            Some(Self { id: id.parse().ok()?, digest: digest.parse().ok()?, kind })
        };
        parse().ok_or_else(|| NameError::new(text, "the name of an upload (REQUEST-DIGEST.png, .jpg or .bin)"))
    }
}

/// Digits of an id that are enough to identify it: of a million uploads, two begin with the same eight once in 8,000
/// times.
const DIGITS_MIN: usize = 6;

/// The ids that begin with these hexadecimal digits; `None` if they are too few, or not digits.
pub(super) fn ids_from(digits: &str) -> Option<RangeInclusive<RequestId>> {
    let sound = (DIGITS_MIN..=32).contains(&digits.len())
        && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let first = |fill: &str| u128::from_str_radix(&format!("{digits}{}", fill.repeat(32 - digits.len())), 16).ok();
    let range = |fill| first(fill).map(RequestId);
    sound.then(|| Some(range("0")?..=range("f")?)).flatten()
}

/// A file of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `REQUEST.part` in the folder of temporaries.
    Temporary(RequestId),
    /// In the shared folder.
    Shared(Name),
}

impl File {
    /// The temporary file of this name; `None` if it is not one of ours.
    pub(super) fn temporary(name: &str) -> Option<Self> {
        name.strip_suffix(".part")?.parse().ok().map(Self::Temporary)
    }

    /// The upload it belongs to.
    #[must_use]
    pub fn id(&self) -> RequestId {
        match self {
            Self::Temporary(id) | Self::Shared(Name { id, .. }) => *id,
        }
    }
}

/// Its name within its folder.
impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Temporary(id) => write!(f, "{id}.part"),
            Self::Shared(name) => name.fmt(f),
        }
    }
}
