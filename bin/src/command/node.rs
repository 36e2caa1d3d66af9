//! `omb node`, also called `cloud-p2p`: one peer of a cluster.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Error, anyhow, bail};
use omb_cluster::{
    config::{ClusterConfig, Tls},
    election,
    node::{Node, Output, metrics::Metrics},
    peer::NodeId,
    report::metrics::prometheus,
};
use omb_machine::{prometheus::CONTENT_TYPE, time::Instant};
use omb_runtime_real::{
    clock::Clock,
    disk::Folders,
    key::secret,
    net::{BindError, Listener, Transport},
    portable::{
        cluster::{self, Disk as _, Limits, node::Identity},
        fleet::{
            serving,
            wire::{Answered, StatusCode},
        },
    },
    process,
};

use super::cluster::{random_seed, read, runtime};
use crate::{
    console::shown,
    exit::{self, Code, ExitsWith as _},
    flags,
    signals::Interrupts,
};

/// Runs one peer of a cluster until it is interrupted.
pub(crate) fn node(flags: &flags::Node) -> anyhow::Result<Code> {
    let config = read(&flags.cluster)?;
    let me = identify(flags.id.as_deref(), &config, &flags.cluster)?;
    let runtime = runtime()?;
    if flags.reset_term {
        runtime.block_on(reset_term(flags, me, config)).exits_with(Code::Unavailable)?;
        return Ok(Code::Sound);
    }
    if let Err(error) = runtime.block_on(serve(flags, me, config)) {
        // Logged before the runtime is dropped, which waits for the disk.
        return Ok(exit::log(&error));
    }
    // Uploads in progress are left to their clients, which try again.
    runtime.shutdown_background();
    Ok(Code::Sound)
}

/// A warning, in one line, about a cluster that authenticates its peers or clients weakly or not at all.
fn warning(config: &ClusterConfig) -> Option<&'static str> {
    let anywhere = !config.checks_addresses();
    // A certificate proves a peer as a key does.
    let proven = config.peer_key_file.is_some() || config.tls.is_some();
    Some(match (config.key_file.is_some(), proven) {
        (true, true) => return None,
        (true, false) if anywhere => {
            "ANYONE WHO HAS THE KEY OF CLIENTS CAN SPEAK AS A NODE, from any address (peer_addresses): give all nodes, and no \
             client, a peer_key_file in config.json"
        }
        (true, false) => {
            "peers prove the key of clients (key_file), so they are believed only from their addresses in the list: give all \
             nodes, and no client, a peer_key_file in config.json"
        }
        (false, true) => {
            "NO KEY FOR CLIENTS: anyone who reaches this port can upload and fetch; key_file in config.json names one for nodes and \
             clients"
        }
        (false, false) if anywhere => {
            "NO KEYS: ANYONE WHO REACHES THIS PORT CAN UPLOAD, FETCH AND SPEAK AS A NODE, from any address (peer_addresses); \
             key_file in config.json names a key for nodes and clients, peer_key_file one for nodes alone"
        }
        (false, false) => {
            "NO KEYS: anyone who reaches this port can upload and fetch, and anyone who has the address of a node can speak as that node; \
             key_file in config.json names a key for nodes and clients, peer_key_file one for nodes alone"
        }
    })
}

/// Repairs the state of a node that is not running.
async fn reset_term(flags: &flags::Node, me: NodeId, mut config: ClusterConfig) -> anyhow::Result<()> {
    if let Some(shared) = &flags.shared_dir {
        config.shared_dir.clone_from(shared);
    }
    let folders =
        Folders::open(&config.shared_dir, flags.state_dir.as_deref(), me, config.durability, config.file_mode)?;
    let stored = folders.restore().await?;
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let ids: Vec<NodeId> = config.peers.ids().collect();
    let Some(repaired) = election::repaired(stored, &ids, seconds) else {
        tracing::info!("[Node {}] {stored}: nothing to repair", me.0);
        return Ok(());
    };
    folders.persist(repaired).await?;
    tracing::info!(
        "[Node {}] {stored} is replaced by {repaired}. Do the same on every node before you start one.",
        me.0
    );
    Ok(())
}

/// Which of the peers this node is.
fn identify(id: Option<&str>, config: &ClusterConfig, cluster: &flags::Cluster) -> anyhow::Result<NodeId> {
    let ids = config.peers.ids().map(|id| id.0.to_string()).collect::<Vec<_>>().join(", ");
    let from = match cluster.peers {
        Some(_) => "PEERS".to_owned(),
        None => shown(&cluster.config),
    };
    let Some(id) = id else {
        bail!("which node is this? Give NODE_ID=N or --id N; {from} has {ids}");
    };
    let known = id.trim().parse().ok().map(NodeId).filter(|id| config.peers.address(*id).is_some());
    known.with_context(|| format!("NODE_ID (--id): found `{}`; {from} has {ids}", id.escape_debug()))
}

async fn serve(flags: &flags::Node, me: NodeId, mut config: ClusterConfig) -> anyhow::Result<()> {
    if let Some(shared) = &flags.shared_dir {
        config.shared_dir.clone_from(shared);
    }
    let own = config.peers.address(me).unwrap_or_default().to_owned();
    let tls = config.tls.as_ref().map(Tls::of_node).transpose().map_err(Error::msg)?;
    let host = cluster::address(&own, tls.is_some()).map(|own| own.host).unwrap_or_default();
    let transport = Transport::of_node(&host, tls).map_err(Error::msg)?;
    let secret = secret(config.key_file.as_deref(), config.peer_key_file.as_deref()).map_err(Error::msg)?;
    let address = listen_at(flags.bind.as_deref(), &own).exits_with(Code::Unavailable)?;
    let listener = Listener::bind_for_peers(address, tls).await.map_err(|error| match error {
        BindError::Tls(mistake) => anyhow!(mistake),
        BindError::Address(error) => Code::Unavailable.attach(refused(&error, me, address)),
    })?;
    let stats = match flags.stats_port {
        Some(port) => {
            let address = SocketAddr::new(stats_ip(flags.stats_bind, address.ip(), &config), port);
            let refused = |error: BindError| match error {
                BindError::Tls(mistake) => anyhow!(mistake),
                BindError::Address(error) => {
                    anyhow!("{me} cannot listen on {address} for its metrics (--stats-port): {error}")
                }
            };
            let stats = Listener::bind(address, None).await.map_err(refused).exits_with(Code::Unavailable)?;
            tracing::info!("[Node {}] metrics on http://{}/metrics", me.0, stats.address().unwrap_or(address));
            Some(stats)
        }
        None => None,
    };
    let folders =
        Folders::open(&config.shared_dir, flags.state_dir.as_deref(), me, config.durability, config.file_mode)
            .exits_with(Code::Unavailable)?;
    if flags.accept_loss {
        folders.accept_loss();
    }
    let mut interrupts = Interrupts::listen();
    let id = me.0;
    tracing::info!("[Node {id}] listening on {address}, one of {} peers ({})", config.peers.ids().len(), {
        config.peers.digest().short()
    });
    tracing::info!("[Node {id}] stores uploads in {}", shown(folders.shared()));
    if let Some(warning) = warning(&config) {
        tracing::warn!("[Node {id}] {warning}");
    }
    let seed = random_seed().exits_with(Code::Unavailable)?;
    let shared_dir = config.shared_dir.clone();
    let limits = limits(config.peers.ids().len());
    let identity = Identity { me, config, limits, seed, secret };
    let shown = Shown::default();
    let mut watch = Watch { shared_dir, shown: stats.as_ref().map(|_| shown.clone()), looked: None };
    let pages = pages(stats, shown);
    let served = tokio::select! {
        served = cluster::serve(listener, transport, folders, identity, &mut watch, &Clock) => served,
        () = pages => Ok(()),
        () = interrupts.next() => Ok(()),
    };
    served.exits_with(Code::Unavailable)?;
    tracing::info!("[Node {id}] Shut down");
    Ok(())
}

/// Where the metrics are served. They require no authentication, so a cluster that does serves them to this machine
/// alone by default.
fn stats_ip(asked: Option<IpAddr>, own: IpAddr, config: &ClusterConfig) -> IpAddr {
    let guarded = config.key_file.is_some() || config.peer_key_file.is_some() || config.tls.is_some();
    asked.unwrap_or(if guarded { Ipv4Addr::LOCALHOST.into() } else { own })
}

/// Where to listen: as asked for by `BIND`, or at the node's own address.
fn listen_at(bind: Option<&str>, own: &str) -> anyhow::Result<SocketAddr> {
    let port = own.rsplit_once(':').map_or("", |(_, port)| port);
    let (text, from) = match bind.map(str::trim) {
        Some(bind) if bind.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) => {
            (format!("[{bind}]:{port}"), "BIND (--bind)")
        }
        Some(bind) if !bind.contains(':') => (format!("{bind}:{port}"), "BIND (--bind)"),
        Some(bind) => (bind.to_owned(), "BIND (--bind)"),
        None => (own.to_owned(), "the address of this node"),
    };
    let mut found = text.to_socket_addrs().with_context(|| format!("{from}: `{text}` cannot be looked up"))?;
    found.next().with_context(|| format!("{from}: `{text}` stands for no address"))
}

/// Limits that leave file descriptors for peers and the disk, whatever else connects: if this process may have fewer
/// than the defaults need, each limit shrinks in proportion.
fn limits(peers: usize) -> Limits {
    /// Folders and the runtime's own. Two links to each peer come on top.
    const OTHERS: usize = 64;
    let all = Limits::default();
    // A request needs a file or a connection to another node, and at its end a folder.
    let wanted = all.strangers + all.connections + all.requests * 2 + all.kept * peers;
    let most = process::open_files_max().and_then(|files| usize::try_from(files).ok());
    let room = most.map_or(wanted, |files| files.saturating_sub(OTHERS + peers * 2));
    if room >= wanted {
        return all;
    }
    let part = |count: usize| (count * room / wanted).max(1);
    Limits {
        // An eighth of them is reserved for peers.
        strangers: part(all.strangers).max(8),
        connections: part(all.connections),
        connections_per_source: part(all.connections_per_source),
        connections_reserve: part(all.connections_reserve),
        requests: part(all.requests),
        kept: part(all.kept),
        ..all
    }
}

fn refused(error: &io::Error, me: NodeId, address: SocketAddr) -> Error {
    let cure = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another process listens there: is this node running already, or is NODE_ID that of another one?"
        }
        io::ErrorKind::PermissionDenied => "this user may not listen on it: give the node a port above 1023",
        io::ErrorKind::AddrNotAvailable => {
            "it is no address of this machine: is NODE_ID that of another one? BIND=0.0.0.0 listens on all addresses, as \
             is wanted behind a translation of addresses"
        }
        _ => "BIND gives another one",
    };
    anyhow!("{me} cannot listen on {address}: {error}; {cure}")
}

/// The latest metrics of the node.
type Shown = Arc<Mutex<Option<Metrics>>>;

/// Serves pages to Prometheus and to browsers, for ever.
async fn pages(stats: Option<Listener>, shown: Shown) {
    let Some(listener) = stats else { return std::future::pending().await };
    let shown = move |path: &str| page(path, shown.lock().unwrap_or_else(PoisonError::into_inner).as_ref());
    serving::show(listener, shown).await;
}

fn page(path: &str, metrics: Option<&Metrics>) -> Answered {
    match (path, metrics) {
        ("/metrics", Some(metrics)) => Answered {
            status: StatusCode::OK,
            content_type: CONTENT_TYPE,
            body: prometheus(env!("CARGO_PKG_VERSION"), metrics).into(),
        },
        ("/healthz", _) => Answered::text(StatusCode::OK, "ok"),
        ("/readyz", Some(Metrics { leader: Some(_), .. })) => Answered::text(StatusCode::OK, "ready"),
        ("/readyz" | "/metrics", _) => Answered::text(StatusCode::SERVICE_UNAVAILABLE, "nobody leads yet"),
        _ => Answered::text(StatusCode::NOT_FOUND, "here are /metrics, /healthz and /readyz"),
    }
}

/// Greatest age of the metrics that are served.
const SHOWN_EVERY: Duration = Duration::from_millis(100);

/// Logs events, in the words of the guide, and keeps the metrics that are served.
struct Watch {
    shared_dir: PathBuf,
    /// `None` without `--stats-port`.
    shown: Option<Shown>,
    looked: Option<Instant>,
}

impl cluster::Observer for Watch {
    fn wants(&mut self, output: &Output) {
        if let Output::Warn(line) = output {
            tracing::warn!("{line}");
            return;
        }
        // Formatted only if it is logged: two lines for each upload cost as much as the rest of it.
        if tracing::enabled!(tracing::Level::INFO)
            && let Some(line) = output.line(&self.shared_dir)
        {
            tracing::info!("{line}");
        }
    }

    fn look(&mut self, node: &Node, now: Instant) {
        if let Some(shown) = &self.shown
            && self.looked.is_none_or(|looked| now.since(looked) >= SHOWN_EVERY)
        {
            self.looked = Some(now);
            *shown.lock().unwrap_or_else(PoisonError::into_inner) = Some(node.metrics(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use omb_cluster::config::parse_peers;

    use super::*;

    #[test]
    fn metrics_are_local_by_default_in_a_cluster_with_authentication() {
        let (own, asked): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let config = ClusterConfig::new(parse_peers("1=a:1,2=b:1").expect("sound"));
        assert_eq!(stats_ip(None, own, &config), own);
        let with = |change: fn(&mut ClusterConfig)| {
            let mut config = config.clone();
            change(&mut config);
            [None, Some(asked)].map(|asked| stats_ip(asked, own, &config))
        };
        let guarded = [Ipv4Addr::LOCALHOST.into(), asked];
        assert_eq!(with(|config| config.key_file = Some("cluster.key".into())), guarded);
        assert_eq!(with(|config| config.peer_key_file = Some("peers.key".into())), guarded);
    }
}
