//! The addresses of workers, as typed or from a workers file, checked.

use std::{fmt, net::Ipv6Addr};

use anyhow::{Context as _, anyhow, bail};
use omb_bench::config::workers;
use omb_machine::config::Leniency;

use crate::exit::Errors;

/// Where a worker listens if its address names no port.
const PORT: u16 = 8080;

/// Where one worker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// As typed; messages show this.
    pub(crate) name: String,
    /// Default http.
    pub(crate) scheme: Scheme,
    /// A name or an IP address in lower case, an IPv6 address without its brackets.
    pub(crate) host: String,
    /// Default 8080.
    pub(crate) port: u16,
}

/// How to connect to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// As a URL without a path: `http://[::1]:8080`.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, .. } = self;
        let scheme = match scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        if host.contains(':') { write!(f, "{scheme}://[{host}]:{port}") } else { write!(f, "{scheme}://{host}:{port}") }
    }
}

impl From<&Address> for omb_runtime_real::portable::fleet::Address {
    fn from(address: &Address) -> Self {
        Self {
            name: address.to_string(),
            host: address.host.clone(),
            port: address.port,
            tls: address.scheme == Scheme::Https,
        }
    }
}

/// The workers that `-w` names: each value one address, or several separated by commas.
///
/// # Errors
/// All mistakes, a line each.
pub(crate) fn from_flag(values: &[String]) -> anyhow::Result<Vec<Address>> {
    // A comma at the end is harmless.
    let names = values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|name| !name.is_empty());
    let names: Vec<&str> = names.collect();
    if names.is_empty() && !values.is_empty() {
        bail!("--workers names no worker, where HOST:PORT or http://HOST:PORT is wanted");
    }
    all("--workers", &names)
}

/// The workers that the file `file`, whose content is `text`, lists.
///
/// # Errors
/// All mistakes, a line each.
pub(crate) fn from_file(file: &str, text: &str, leniency: Leniency) -> anyhow::Result<Vec<Address>> {
    let parsed = workers::parse(file, text, leniency)?;
    parsed.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    all(&format!("{file}: workers"), &parsed.value)
}

/// Parses each address; `from` says where they come from.
fn all(from: &str, names: &[impl AsRef<str>]) -> anyhow::Result<Vec<Address>> {
    let (mut addresses, mut errors) = (Vec::<Address>::new(), Errors::default());
    for name in names.iter().map(AsRef::as_ref) {
        match address(name) {
            Ok(new) => match addresses.iter().find(|known| (&known.host, known.port) == (&new.host, new.port)) {
                Some(known) => errors.push(anyhow!(
                    "{from}: {name} is the same worker as {}: a worker follows one controller and takes one part of a \
                     run, so each is to be named once",
                    known.name
                )),
                None => addresses.push(new),
            },
            Err(error) => errors.push(error.context(format!("{from}: {}", without_secret(name)))),
        }
    }
    errors.none()?;
    Ok(addresses)
}

/// Messages go into logs, which must not hold passwords.
fn without_secret(name: &str) -> String {
    name.rsplit_once('@').map_or_else(|| name.to_owned(), |(_, host)| format!("(hidden)@{host}"))
}

fn address(name: &str) -> anyhow::Result<Address> {
    let (scheme, rest) = match name.split_once("://") {
        None => (Scheme::Http, name),
        Some((scheme, rest)) => match scheme.to_ascii_lowercase().as_str() {
            "http" => (Scheme::Http, rest),
            "https" => (Scheme::Https, rest),
            _ => bail!("the scheme is {scheme}, where http and https are allowed"),
        },
    };
    if rest.contains('@') {
        bail!("it holds credentials, which are not allowed here: a token goes into a file (--token-file)");
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(at) = rest.find(['/', '?', '#']) {
        bail!("the path is {}, where HOST:PORT or http://HOST:PORT is allowed", &rest[at..]);
    }
    let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
        let (host, after) = bracketed.split_once(']').context("a bracket is open, where [IPV6]:PORT is allowed")?;
        let ip: Ipv6Addr =
            host.parse().map_err(|_| anyhow!("in brackets is {host}, where an IPv6 address is allowed"))?;
        let port = match after.strip_prefix(':') {
            None if !after.is_empty() => bail!("behind the bracket is {after}, where :PORT is allowed"),
            port => port,
        };
        (ip.to_string(), port)
    } else {
        let (host, port) = rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port)));
        if port.is_some_and(|port| port.contains(':')) {
            bail!("it has several colons, where an IPv6 address stands in brackets: [::1]:8080");
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if host.is_empty() || !host.chars().all(allowed) {
            bail!("the host is {host:?}, where letters, digits, dots, - and _ are allowed");
        }
        (host.to_ascii_lowercase(), port)
    };
    let port = match port {
        None => PORT,
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .with_context(|| format!("the port is {digits:?}, where 1 to 65535 are allowed"))?,
    };
    Ok(Address { name: name.to_owned(), scheme, host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads(name: &str, want: &str) {
        let got = from_flag(&[name.to_owned()]).unwrap_or_else(|why| panic!("{name}: {why:?}"));
        assert_eq!(got.iter().map(Address::to_string).collect::<Vec<_>>().join(" "), want, "{name}");
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        reads("worker1", "http://worker1:8080");
        reads("worker1:81", "http://worker1:81");
        reads("http://Worker1.example.com/", "http://worker1.example.com:8080");
        reads("HTTPS://10.0.0.11:443", "https://10.0.0.11:443");
        reads("[::1]", "http://[::1]:8080");
        reads("https://[2001:DB8:0::1]:81/", "https://[2001:db8::1]:81");
        reads("a:1, b:2,", "http://a:1 http://b:2");
        assert_eq!(from_flag(&["http://A/".to_owned()]).expect("sound")[0].name, "http://A/");
        assert_eq!(from_flag(&[]).expect("no workers"), []);
    }

    #[track_caller]
    fn rejects(name: &str, saying: &[&str]) {
        let why = format!("{:#}", from_flag(&[name.to_owned()]).expect_err(name));
        let missing: Vec<_> = saying.iter().filter(|part| !why.contains(*part)).collect();
        assert!(missing.is_empty(), "{name}: {missing:?} is not in: {why}");
    }

    #[test]
    fn invalid_addresses_are_reported() {
        rejects("", &["--workers names no worker", "HOST:PORT"]);
        rejects(",", &["--workers names no worker"]);
        rejects("ftp://a:1", &["--workers: ftp://a:1: the scheme is ftp", "http and https"]);
        rejects("http://a:1/base", &["/base", "http://HOST:PORT"]);
        rejects("a:1?x", &["?x"]);
        rejects("a:0", &["\"0\"", "1 to 65535"]);
        rejects("a:65536", &["65536"]);
        rejects("a:", &["the port is \"\""]);
        rejects("a:80a", &["80a"]);
        rejects("http://:8080", &["the host is \"\""]);
        rejects("wörker", &["wörker"]);
        rejects("a b", &["\"a b\""]);
        rejects("::1", &["[::1]:8080"]);
        rejects("[::1", &["bracket"]);
        rejects("[::1]8080", &["8080", ":PORT"]);
        rejects("[worker]:1", &["worker", "IPv6"]);
    }

    #[test]
    fn passwords_are_not_shown() {
        rejects("http://me:hunter2@a:1", &["(hidden)@a:1", "--token-file"]);
        let why = format!("{:#}", from_flag(&["http://me:hunter2@a:1".to_owned()]).expect_err("credentials"));
        assert!(!why.contains("hunter2"), "{why}");
    }

    /// Whatever the spelling.
    #[test]
    fn a_worker_is_named_once() {
        rejects("a,http://A:8080/", &["http://A:8080/ is the same worker as a:", "one controller"]);
        rejects("[::1],https://[0::1]:8080", &["[0::1]:8080 is the same worker as [::1]"]);
        reads("a:1,a:2", "http://a:1 http://a:2");
    }

    #[test]
    fn a_file_lists_them_too() {
        let read = |text| from_file("f.yaml", text, Leniency::Strict);
        let names = read("workers:\n  - http://a:8080\n  - b\n").expect("sound");
        assert_eq!(names.iter().map(|one| one.port).collect::<Vec<_>>(), [8080, 8080]);
        let why = read("workers:\n  - http://a:8080\n  - a\n  - a:x\n").expect_err("twice, and no port").to_string();
        assert!(why.contains("f.yaml: workers: a is the same worker as http://a:8080"), "{why}");
        assert!(why.contains("f.yaml: workers: a:x: the port is \"x\""), "{why}");
        assert!(read("workers: []\n").expect_err("none").to_string().contains("f.yaml:1"));
    }
}
