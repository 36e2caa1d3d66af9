//! The secret by which controllers prove to a worker that they may lead it.

use hmac::{Hmac, KeyInit, Mac, digest::CtOutput};
use sha2::Sha256;

/// A token shorter than this can be guessed: as many bytes as a cluster's key has at least.
pub const TOKEN_SHORT: usize = 16;

/// A token, as a digest: neither shown nor kept as it was written.
#[derive(Clone)]
pub struct Token(CtOutput<Hmac<Sha256>>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token with this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(digest(text.as_bytes()))
    }

    /// Whether `given` is this token. How long that takes depends on the length of `given` alone: neither on where the two
    /// differ nor on how long the token is.
    #[must_use]
    pub fn is(&self, given: &[u8]) -> bool {
        // `CtOutput` compares in a time that does not depend on what is compared, and both are of one size.
        self.0 == digest(given)
    }
}

fn digest(text: &[u8]) -> CtOutput<Hmac<Sha256>> {
    let keyed = Hmac::<Sha256>::new_from_slice(b"omb token").expect("HMAC takes keys of any length");
    keyed.chain_update(text).finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_is_the_token() {
        let token = Token::new("a token of some length");
        assert!(token.is(b"a token of some length"));
        let long = "x".repeat(100);
        for wrong in ["", "a", "a token of some lengtH", "a token of some length ", &long] {
            assert!(!token.is(wrong.as_bytes()), "{wrong:?}");
        }
        assert!(Token::new(&long).is(long.as_bytes()));
        assert!(!Token::new(&long).is(&long.as_bytes()[1..]));
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
