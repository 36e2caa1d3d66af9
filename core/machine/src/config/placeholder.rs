//! `${NAME}` in a driver file: filled in by the process that reads the file, from its own environment, and secret from then on.

/// Looks up a variable of the environment of the process that reads a file. Core has none of its own.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// The template that each worker fills in by itself, with the name of its zone.
pub const ZONE: &str = "{zone.id}";

/// A text after its placeholders were filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    pub text: String,
    /// Whether anything was filled in: the whole text is then as secret as a password.
    pub secret: bool,
}

/// Why a text could not be filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// No variable of this name is set.
    Unset(String),
    /// `${` is not followed by the name of a variable and `}`. The text is not shown: it may be a part of a password.
    Malformed,
}

/// Fills in every `${NAME}`. `$${` stands for the characters `${` themselves.
pub fn fill(text: &str, environment: Environment<'_>) -> Result<Filled, Wrong> {
    let mut filled = Filled { text: String::with_capacity(text.len()), secret: false };
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            filled.text.push_str(before);
            filled.text.push_str("${");
            rest = after;
            continue;
        }
        filled.text.push_str(before);
        let (name, after) = after.split_once('}').ok_or(Wrong::Malformed)?;
        if !is_name(name) {
            return Err(Wrong::Malformed);
        }
        filled.text.push_str(&environment(name).ok_or_else(|| Wrong::Unset(name.to_owned()))?);
        filled.secret = true;
        rest = after;
    }
    filled.text.push_str(rest);
    Ok(filled)
}

/// Letters, digits and `_`, not beginning with a digit, as in shells.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "USER_1" => Some("alice".to_owned()),
            "NESTED" => Some("${USER_1}".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    #[track_caller]
    fn fills(text: &str, want: &str, secret: bool) {
        assert_eq!(fill(text, &environment), Ok(Filled { text: want.to_owned(), secret }));
    }

    #[test]
    fn names_are_filled_in() {
        fills("plain", "plain", false);
        fills("a-${USER_1}-b${EMPTY}", "a-alice-b", true);
        // A variable's value is not expanded again.
        fills("${NESTED}", "${USER_1}", true);
        fills("$USER_1 $$ {USER_1} 5$", "$USER_1 $$ {USER_1} 5$", false);
        fills("$${USER_1}${USER_1}", "${USER_1}alice", true);
        fills("pa$${", "pa${", false);
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused() {
        assert_eq!(fill("x${MISSING}", &environment), Err(Wrong::Unset("MISSING".to_owned())));
        for text in ["${", "${}", "${USER_1", "${1A}", "${file:/etc/x:y}", "${A B}"] {
            assert_eq!(fill(text, &environment), Err(Wrong::Malformed), "{text}");
        }
    }
}
