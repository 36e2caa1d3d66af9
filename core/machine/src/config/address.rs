//! Web addresses in settings: where a token is fetched.

use std::fmt;

/// An `http` or `https` address, parsed in the one way in which it is also compared and connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebAddress {
    /// Scheme, host and port.
    pub origin: Origin,
    /// Path and query, from `/`.
    pub path: String,
}

/// The server: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Whether the scheme is `https`.
    pub tls: bool,
    /// The host in lower case: a name, or an address without its brackets.
    pub host: String,
    /// The port; the scheme's default if none is given.
    pub port: u16,
}

impl WebAddress {
    /// Reads `https://host[:port][/path][?query]`. Anything on which parsers disagree (a user before `@`, a fragment, a
    /// backslash, blanks and whatever is not ASCII) is rejected: the host that is named must be the host that is
    /// contacted.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 2_048 || !text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#\"<>`{}^|".contains(&byte)) {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                host.parse::<std::net::Ipv6Addr>().ok()?;
                (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
            }
            None => {
                let (host, port) =
                    authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
                if host.is_empty() || !host.chars().all(plain) {
                    return None;
                }
                (host, port)
            }
        };
        let port = match port {
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                port.parse().ok().filter(|port| *port > 0)?
            }
            Some(_) => return None,
        };
        let path = match path {
            "" => "/".to_owned(),
            query if query.starts_with('?') => format!("/{query}"),
            path => path.to_owned(),
        };
        Some(Self { origin: Origin { tls, host: host.to_ascii_lowercase(), port }, path })
    }
}

impl Origin {
    /// `host:port`, with brackets where the host needs them.
    #[must_use]
    pub fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(text: &str, origin: &str, path: &str) {
        let address = WebAddress::parse(text).unwrap_or_else(|| panic!("{text}"));
        assert_eq!((address.origin.to_string().as_str(), address.path.as_str()), (origin, path));
    }

    #[test]
    fn addresses_are_taken_apart() {
        reads("https://Idp.Example/oauth/token", "https://idp.example:443", "/oauth/token");
        reads("http://127.0.0.1:8080", "http://127.0.0.1:8080", "/");
        reads("https://[::1]:8443?x=y", "https://[::1]:8443", "/?x=y");
        reads("HTTPS://h/a?b=c&d", "https://h:443", "/a?b=c&d");
    }

    #[test]
    fn what_is_read_in_two_ways_is_refused() {
        for text in [
            "",
            "idp.example/token",
            "ftp://h/",
            "https://",
            "https://user@h/",
            "https://h@evil/",
            "https://h\\@evil/",
            "https://h#@evil/",
            "https://h:0/",
            "https://h:+80/",
            "https://h:99999/",
            "https://[h]/",
            "https://[::1]x/",
            "https://h /",
            "https://é/",
            "https://h/\r\nHost: evil",
        ] {
            assert_eq!(WebAddress::parse(text), None, "{text:?}");
        }
    }
}
