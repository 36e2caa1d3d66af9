//! The workers of a run, and the connections to them.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path, time::Duration};

use anyhow::{Error, bail};
use omb_bench::{
    controller::{Trouble, TroubleKind},
    plan::needs::Limits,
    token::TOKEN_SHORT,
};
use omb_machine::printable::printable_within;
use omb_runtime_real::{
    net::Transport,
    portable::fleet::{
        Address,
        leading::{self, Links},
        wire::Caller,
    },
};

use super::{addresses, input};
use crate::{console::shown, exit::Code, flags};

/// Most characters that are shown of the name of another controller.
const CONTROLLER_MAX: usize = 300;

/// Largest token file: more is a mistake.
const TOKEN_MAX: u64 = 4_096;

/// Workers that perform a run instead of this process.
pub(crate) struct Fleet {
    workers: Vec<Address>,
    transport: Transport,
    token: Option<String>,
    connect_within: Duration,
    call_within: Duration,
    take_over: bool,
}

impl Fleet {
    /// Reads the files needed to connect to `workers`; `None` if there are none.
    pub(crate) fn new(flags: &flags::Run, workers: &[addresses::Address]) -> anyhow::Result<Option<Self>> {
        if workers.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            workers: workers.iter().map(Address::from).collect(),
            transport: Transport::new(flags.ca.as_deref()).map_err(Error::msg)?,
            token: flags.token_file.as_deref().map(token).transpose()?,
            connect_within: flags.connect_timeout,
            call_within: flags.call_timeout,
            take_over: flags.take_over,
        }))
    }

    /// How many workers.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    /// Their names, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.workers.iter().map(|worker| worker.name.clone()).collect()
    }

    fn caller(&self, to: &Address) -> Caller<Transport> {
        let token = self.token.as_deref();
        Caller::new(self.transport.clone(), to.clone(), token, self.connect_within).expect("the token was checked")
    }

    /// Links to all of them, in order.
    pub(crate) fn links(&self) -> Vec<Links<Caller<Transport>>> {
        self.workers.iter().map(|to| Links { commands: self.caller(to), clock: self.caller(to) }).collect()
    }

    /// Connects to each, and returns their limits of files, threads and memory. Errors are logged as they occur, a line
    /// each; only their exit code is returned.
    pub(crate) async fn reach(&self) -> Result<Vec<Limits>, Code> {
        let asked: Vec<_> = self
            .workers
            .iter()
            .map(|to| {
                let (mut link, within) = (self.caller(to), self.connect_within + self.call_within);
                (to, tokio::spawn(async move { leading::hello(&mut link, within).await }))
            })
            .collect();
        let mut instances: BTreeMap<String, &Address> = BTreeMap::new();
        let mut sound = true;
        let mut limits = Vec::new();
        for (to, answer) in asked {
            match answer.await.expect("asking does not panic") {
                Ok(hello) => {
                    limits.push(hello.limits);
                    if let Some(other) = hello.controller.filter(|_| !self.take_over) {
                        let other = printable_within(&other, CONTROLLER_MAX);
                        tracing::error!("{}: it follows {other}; --take-over ends that run", to.name);
                        sound = false;
                    }
                    if let Some(first) = instances.insert(hello.instance, to) {
                        tracing::error!(
                            "{} and {} are the same worker, which would be dealt its share twice: name it once",
                            first.name,
                            to.name
                        );
                        sound = false;
                    }
                }
                Err(trouble) => {
                    tracing::error!("{}", self.describe(to, &trouble));
                    sound = false;
                }
            }
        }
        if sound { Ok(limits) } else { Err(Code::Unavailable) }
    }

    fn describe(&self, to: &Address, Trouble { kind, cause }: &Trouble) -> String {
        let (name, port) = (&to.name, to.port);
        match kind {
            TroubleKind::Unconnected => format!(
                "Unable to connect to worker {name}: {cause}; start it there by `omb worker --port {port}`, and let port \
                 {port} through the firewall"
            ),
            TroubleKind::Broken if cause.starts_with("no answer") => format!(
                "Timeout waiting for worker response: {name} takes connections and gives {cause}; look into its log, or \
                 allow more with --call-timeout (now {:?})",
                self.call_within
            ),
            TroubleKind::Broken => {
                format!("{name}: {cause}; is that a worker, and not a broker's port, or one that wants https://?")
            }
            TroubleKind::Refused | TroubleKind::Leaving => format!("{name}: {cause}"),
        }
    }
}

/// The token in a file: one line, without spaces. Warns in the log if others than the file's owner may read it, and if
/// it is short enough to be guessed.
pub(crate) fn token(path: &Path) -> anyhow::Result<String> {
    let bytes = input::bytes_of(path, TOKEN_MAX)?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!("{}: holds no token, which is one line of letters, digits and signs without spaces", shown(path));
    }
    let name = shown(path);
    // A file that was just read has metadata, unless it is being replaced.
    let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.mode());
    if mode & 0o077 != 0 {
        tracing::warn!("{name}: others may read the token (mode {:03o}): chmod 600 {name}", mode & 0o777);
    }
    if text.len() < TOKEN_SHORT {
        tracing::warn!(
            "{name}: holds a token of {} characters, which can be guessed: give it {TOKEN_SHORT} at least, such as \
             `head -c 32 /dev/urandom | base64` makes",
            text.len()
        );
    }
    Ok(text)
}

/// The name of this controller, which its workers show to controllers that they reject: `omb (process 4711 on host-a)`.
pub(crate) fn controller_name() -> String {
    let on = super::output::host_name().map(|host| format!(" on {host}")).unwrap_or_default();
    format!("omb (process {}{on})", std::process::id())
}
