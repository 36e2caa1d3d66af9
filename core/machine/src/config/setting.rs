//! Values of client settings. Secrets have a type of their own, which cannot be shown by mistake.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// Settings of one client by their names.
pub type Settings = BTreeMap<String, Setting>;

/// Largest file whose content is sent with the settings: 1 MiB, several times a bundle of all public authorities.
pub const CONTENT_MAX: usize = 1 << 20;

/// What is shown in place of a secret.
pub const HIDDEN: &str = "(hidden)";

/// A text that is never shown: `Debug` hides it, and it has no `Display`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret(String);

impl Secret {
    /// Takes a text as a secret.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for its intended receiver.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The content of a file, read by the process that was given its name. It may hold keys, so it is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    bytes: Vec<u8>,
    /// The path as the driver file spells it, for results. It is not sent: no other process opens it.
    #[serde(skip)]
    path: String,
}

impl Content {
    /// The bytes that the file at `path` holds.
    #[must_use]
    pub fn new(path: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self { bytes, path: path.into() }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.bytes.len())
    }
}

/// The value of one setting. It has no `Display`: to show it, use [`Self::shown`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Setting {
    /// A text that may be shown.
    Open(String),
    /// A password, a key, or a text that was filled in from the environment.
    Secret(Secret),
    /// The content of a file, if the setting names a file.
    Content(Content),
}

impl Setting {
    /// The text, shown or not; `None` for the content of a file.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Open(text) => Some(text),
            Self::Secret(secret) => Some(secret.expose()),
            Self::Content(_) => None,
        }
    }

    /// The part that may be shown: the text, [`HIDDEN`], or the path of the file whose content it is.
    #[must_use]
    pub fn shown(&self) -> &str {
        match self {
            Self::Open(text) => text,
            Self::Secret(_) => HIDDEN,
            Self::Content(content) if content.path.is_empty() => "(content of a file)",
            Self::Content(content) => &content.path,
        }
    }

    /// The same kind of value with another text; the content of a file has none and stays.
    pub fn with_text(&self, text: String) -> Self {
        match self {
            Self::Open(_) => Self::Open(text),
            Self::Secret(_) => Self::Secret(Secret(text)),
            Self::Content(content) => Self::Content(content.clone()),
        }
    }
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(text) => text.fmt(f),
            Self::Secret(secret) => secret.fmt(f),
            Self::Content(content) => content.fmt(f),
        }
    }
}

impl From<&str> for Setting {
    fn from(text: &str) -> Self {
        Self::Open(text.to_owned())
    }
}

impl From<String> for Setting {
    fn from(text: String) -> Self {
        Self::Open(text)
    }
}

impl PartialEq<str> for Setting {
    fn eq(&self, text: &str) -> bool {
        self.text() == Some(text)
    }
}

impl PartialEq<&str> for Setting {
    fn eq(&self, text: &&str) -> bool {
        self == *text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_shown() {
        let secret = Setting::Secret(Secret::new("hunter2"));
        let content = Setting::Content(Content::new("/etc/key.pem", b"hunter2".to_vec()));
        let text =
            format!("{secret:?} {content:?} {:?} {} {}", Secret::new("hunter2"), secret.shown(), content.shown());
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(text, "Secret(..) Content(7 bytes) Secret(..) (hidden) /etc/key.pem");
        assert_eq!((secret.text(), content.text()), (Some("hunter2"), None));
    }
}
