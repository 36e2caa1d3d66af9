//! The command line, as typed.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use omb_bench::{config::terms::Terms, id::RunId};
use omb_machine::{
    config::address::{Origin, WebAddress},
    units,
};
use omb_report::result;

/// Measures messaging systems: throughput, latency, and whether every message arrives.
#[derive(Debug, Parser)]
#[command(name = "omb", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How much is logged.
#[derive(Debug, Args)]
pub(crate) struct Verbosity {
    /// Log only warnings and errors.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// Log more: -v also what the Kafka client says, -vv everything. (RUST_LOG, where set, decides instead.)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The program `cloud-p2p`: one peer of a cluster (omb node).
#[derive(Debug, Parser)]
#[command(name = "cloud-p2p", version, max_term_width = 100)]
pub(crate) struct CloudP2p {
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
    #[command(flatten)]
    pub(crate) node: Node,
}

/// The program `client`: talks to a cluster (omb client).
#[derive(Debug, Parser)]
#[command(name = "client", version, max_term_width = 100)]
pub(crate) struct ClientProgram {
    #[command(flatten)]
    pub(crate) verbosity: Verbosity,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run workloads and write what was measured.
    Run(Run),
    /// Parse everything, reach the broker, print the plan; run nothing.
    Check(Run),
    /// Run one worker of a fleet, which does what a controller (`omb run -w`) asks for.
    Worker(Worker),
    /// Show results again, and make those of records, including one whose process died.
    Report(Report),
    /// Delete the topics and consumer groups that dead runs left on a messaging system.
    Clean(Clean),
    /// Run the embedded broker by itself, for any Kafka client.
    Broker(Broker),
    /// Run one peer of a cluster: it elects a leader, takes uploads and spreads them by load. Also called cloud-p2p.
    Node(Node),
    /// Talk to a cluster; without a command, at a prompt.
    Client(Client),
    /// Test how evenly a cluster spreads uploads; exit code 0 or 1.
    Stress(Stress),
    /// Print what a shell needs to complete omb's arguments.
    Completions(Completions),
    /// Print a manual page, for `man -l -`.
    Man(Man),
}

/// What `completions` takes.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// What `man` takes.
#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The command whose page is wanted. Default: the page of omb itself, which lists the commands.
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Option<String>,
}

/// What `clean` takes.
#[derive(Debug, Args)]
pub(crate) struct Clean {
    /// Driver files: which messaging system, and how to talk to it. May be repeated, or separated by commas.
    #[arg(short, long = "drivers", value_name = "DRIVER.yaml", value_delimiter = ',', required = true)]
    pub(crate) drivers: Vec<PathBuf>,
    /// Say what would be deleted, and delete nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Clean up after this run only: its id, as shown in results, records and the names of its topics.
    #[arg(long, value_name = "ID", value_parser = run_id)]
    pub(crate) run: Option<RunId>,
    /// Leave runs alone that began less than this ago, since they may still be setting up. Runs whose groups have
    /// members or whose topics grow are always left alone.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub(crate) older_than: Duration,
    /// Turn unknown keys of the driver file from errors into warnings.
    #[arg(long)]
    pub(crate) lenient: bool,
}

/// What `run` and `check` take.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("fleet").args(["workers", "workers_file"]))]
pub(crate) struct Run {
    /// Workload files; each runs on each driver, in the order given.
    #[arg(value_name = "WORKLOAD.yaml", required = true)]
    pub(crate) workloads: Vec<PathBuf>,
    /// Driver files: which messaging system, and how to talk to it. May be repeated, or separated by commas. Without
    /// one the embedded broker is used, which keeps everything in memory in this process: good for trying omb, not for
    /// quoting. A driver file is as powerful as a program (plugin.library.paths loads code): run only those you trust.
    #[arg(short, long = "drivers", value_name = "DRIVER.yaml", value_delimiter = ',')]
    pub(crate) drivers: Vec<PathBuf>,
    /// Result file. Default: NAME-DRIVER-YYYY-MM-DD-HH-MM-SS.json in the current folder. No file is ever overwritten;
    /// with several runs, each inserts its workload's and driver's name before the extension.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Layout of the result: `omb` adds an object that upstream's CSV tool rejects, `upstream` leaves it out.
    #[arg(long, value_enum, default_value_t = ResultFormat::Omb)]
    pub(crate) result_format: ResultFormat,
    /// Seed of every random choice. Default: the workload's `seed`, or else a fresh one, which the result records.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Turn unknown keys, and values that would be cut, from errors into warnings.
    #[arg(long)]
    pub(crate) lenient: bool,
    /// Memory of the embedded broker for records and requests: 512MiB, 4GiB. Default: 2 GiB, or a quarter of the memory
    /// if that is less.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) embedded_capacity: Option<u64>,
    /// Zone of this machine, which replaces {zone.id} in driver files. Workers have their own --zone.
    #[arg(long, value_name = "NAME", value_parser = zone, conflicts_with = "fleet")]
    pub(crate) zone: Option<String>,

    /// Workers that do the run instead of this process: HOST:PORT or http://HOST:PORT, with https if they have a
    /// certificate; the default port is 8080. Several follow one another, or are separated by commas; the list ends at
    /// the next flag, at a name that ends in .yaml, .yml or .json, or at a path with a slash.
    #[arg(short, long, value_name = "ADDRESS", help_heading = FLEET)]
    pub(crate) workers: Vec<String>,
    /// File that lists the workers under `workers:`. Also -wf FILE.
    #[arg(long, value_name = "FILE", help_heading = FLEET)]
    pub(crate) workers_file: Option<PathBuf>,
    /// Use more workers for consuming than for producing. Implies --topology split.
    #[arg(short = 'x', long, requires = "fleet", help_heading = FLEET)]
    pub(crate) extra: bool,
    /// How producers and consumers are divided among the workers. Default: shared.
    #[arg(long, value_enum, requires = "fleet", help_heading = FLEET)]
    pub(crate) topology: Option<Topology>,
    /// What happens to the run if a worker is lost.
    #[arg(long, value_enum, default_value_t = OnWorkerLoss::Fail, requires = "fleet", help_heading = FLEET)]
    pub(crate) on_worker_loss: OnWorkerLoss,
    /// Longest wait for a connection to a worker: 500ms, 30s, 1m30s; a number alone is seconds.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration, help_heading = FLEET)]
    pub(crate) connect_timeout: Duration,
    /// Longest wait for a worker's answer.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = FLEET)]
    pub(crate) call_timeout: Duration,
    /// Longest wait for each step of the setup: connecting to the broker, creating topics, producers and consumers.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration, help_heading = FLEET)]
    pub(crate) setup_timeout: Duration,
    /// How long a worker goes on without hearing from its controller before it stops its load by itself.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration, help_heading = FLEET)]
    pub(crate) lease: Duration,
    /// File with the token that the workers require.
    #[arg(long, value_name = "FILE", requires = "fleet", help_heading = FLEET)]
    pub(crate) token_file: Option<PathBuf>,
    /// File with the certificates (PEM) that vouch for workers at https addresses.
    #[arg(long, value_name = "FILE", requires = "fleet", help_heading = FLEET)]
    pub(crate) ca: Option<PathBuf>,
    /// Take over workers that follow another controller; that controller's run ends as failed.
    #[arg(long, requires = "fleet", help_heading = FLEET)]
    pub(crate) take_over: bool,
    /// Address of this machine on which the embedded broker listens for the workers. It has no authentication: anyone
    /// who reaches it can read and write everything.
    #[arg(long, value_name = "ADDR", requires = "fleet", help_heading = FLEET)]
    pub(crate) embedded_bind: Option<IpAddr>,
}

/// Heading of the flags about workers in the help.
const FLEET: &str = "Workers";

/// How producers and consumers are divided among the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Topology {
    /// Every worker produces and consumes.
    Shared,
    /// Some workers produce, the others consume.
    Split,
}

/// What happens to a run that loses a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnWorkerLoss {
    /// It ends, and its result is partial.
    Fail,
    /// It goes on with the workers that are left; its result is marked, and the exit code is 1.
    Continue,
}

impl Run {
    /// How producers and consumers are divided among the workers.
    ///
    /// # Errors
    /// If the flags contradict each other.
    pub(crate) fn topology(&self) -> anyhow::Result<Topology> {
        match (self.extra, self.topology) {
            (true, Some(Topology::Shared)) => {
                bail!(
                    "--extra asks for more workers that consume, where --topology shared lets every worker do both: \
                     leave one of them out"
                )
            }
            (true, _) => Ok(Topology::Split),
            (false, given) => Ok(given.unwrap_or(Topology::Shared)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResultFormat {
    /// Upstream's keys, and an object `omb` with everything else.
    Omb,
    /// Upstream's keys only.
    Upstream,
}

impl From<ResultFormat> for result::ResultFormat {
    fn from(format: ResultFormat) -> Self {
        match format {
            ResultFormat::Omb => Self::Omb,
            ResultFormat::Upstream => Self::Upstream,
        }
    }
}

/// What `report` takes.
#[derive(Debug, Args)]
pub(crate) struct Report {
    /// Records (.jsonl) or results (.json), as `run` writes them.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Result file to write, if there is only one FILE. Default for a record: its name with the extension .json, and a
    /// number before it if that name is taken. A result is only shown unless this is given. No file is ever
    /// overwritten.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Layout of the result: `omb` adds an object that upstream's CSV tool rejects, `upstream` leaves it out.
    #[arg(long, value_enum, default_value_t = ResultFormat::Omb)]
    pub(crate) result_format: ResultFormat,
}

/// What `worker` takes.
#[derive(Debug, Args)]
pub(crate) struct Worker {
    /// Port on which to listen for controllers; 0 for any free one.
    #[arg(short, long, default_value_t = 8080)]
    pub(crate) port: u16,
    /// Port of the metrics for Prometheus; 0 for any free one. Also -sp PORT. Default: 1000 above --port, so that
    /// several workers on one machine (8080, 8081, ..) do not collide; any free one if --port is 0.
    #[arg(long, value_name = "PORT")]
    pub(crate) stats_port: Option<u16>,
    /// Address to listen on.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0")]
    pub(crate) bind: IpAddr,
    /// Largest body of a request that is accepted, 1MiB to 16MiB.
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = body_limit)]
    pub(crate) body_limit: usize,
    /// File to which the log is also appended.
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// File with a token; only controllers that know it are served.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificate chain (PEM); controllers then connect by https.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Zone of this machine, which replaces {zone.id} in driver files.
    #[arg(long, value_name = "NAME", value_parser = zone)]
    pub(crate) zone: Option<String>,
    /// Where controllers may have this worker fetch tokens (sasl.oauthbearer.token.endpoint.url): https://HOST or
    /// https://HOST:PORT. May be repeated. Default: nowhere.
    #[arg(long, value_name = "URL", value_parser = origin)]
    pub(crate) allow_token_url: Vec<Origin>,
    /// Let controllers use the AWS credentials of this worker's environment to log in (AWS_MSK_IAM).
    #[arg(long)]
    pub(crate) allow_aws_login: bool,
}

impl Worker {
    /// Which settings the worker takes from its controllers.
    pub(crate) fn terms(&self) -> Terms {
        let mut terms = Terms::foreign();
        terms.zone.clone_from(&self.zone);
        terms.token_origins.clone_from(&self.allow_token_url);
        terms.aws_login = self.allow_aws_login;
        terms
    }

    /// How far above `--port` the metrics are by default.
    const STATS_PORT_ABOVE: u16 = 1_000;

    /// The port of the metrics.
    ///
    /// # Errors
    /// If it is `--port` too, or none is given and the default does not exist.
    pub(crate) fn stats_port(&self) -> anyhow::Result<u16> {
        match (self.stats_port, self.port) {
            (Some(port), own) if port == own && port != 0 => {
                bail!("--stats-port {port} is --port too: controllers and metrics need a port each")
            }
            (Some(port), _) => Ok(port),
            (None, 0) => Ok(0),
            (None, port) => port.checked_add(Self::STATS_PORT_ABOVE).with_context(|| {
                format!(
                    "--port {port} leaves no port {} above it for the metrics: give --stats-port, 0 for any free one",
                    Self::STATS_PORT_ABOVE
                )
            }),
        }
    }
}

/// What `broker` takes.
#[derive(Debug, Args)]
pub(crate) struct Broker {
    /// Port to listen on; 0 for any free one.
    #[arg(long, default_value_t = 9092)]
    pub(crate) port: u16,
    /// Address to listen on. There is no authentication: anyone who reaches it can read and write everything.
    #[arg(long, default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,
    /// Memory for records and requests in progress: 512MiB, 4GiB. Default: 2 GiB, or a quarter of the memory if that is
    /// less. What every reader has read is dropped, except for the latest 16 MiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) capacity: Option<u64>,
}

/// Where the cluster is described.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// The cluster file, the same on every machine: {"peers": [{"id": 1, "address": "192.168.1.100:7001"}, ..],
    /// "shared_dir": "./shared_images"}.
    #[arg(long, value_name = "FILE", env = "CONFIG_FILE", default_value = "./config.json")]
    pub(crate) config: PathBuf,
    /// The peers, instead of those in the cluster file: 1=HOST:PORT,2=HOST:PORT,..; no file is needed then.
    #[arg(long, value_name = "LIST", env = "PEERS")]
    pub(crate) peers: Option<String>,
}

/// What `node` takes.
#[derive(Debug, Args)]
pub(crate) struct Node {
    /// Which of the peers this node is.
    #[arg(long, value_name = "ID", env = "NODE_ID")]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Folder for uploads, instead of that in the cluster file.
    #[arg(long, value_name = "FOLDER", env = "SHARED_DIR")]
    pub(crate) shared_dir: Option<PathBuf>,
    /// Where to listen, instead of at this node's address in the cluster file: HOST:PORT, HOST, or 0.0.0.0 for all
    /// addresses of this machine.
    #[arg(long, value_name = "ADDRESS", env = "BIND")]
    pub(crate) bind: Option<String>,
    /// Forget stored uploads whose files are gone, damaged or of another size, and go on without them.
    #[arg(long)]
    pub(crate) accept_loss: bool,
    /// Folder for this node's state: its term, names and owners of uploads, and uploads in progress. It must be on the
    /// file system of the folder for uploads and belongs to this node alone. Default: .NAME.node-ID beside that folder.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Port of the metrics for Prometheus; 0 for any free one. Default: none.
    #[arg(long, value_name = "PORT")]
    pub(crate) stats_port: Option<u16>,
    /// Address on which to serve the metrics; anyone who reaches it can read them, without key or certificate. Default:
    /// the address listened on, or 127.0.0.1 if the cluster has a key or certificates.
    #[arg(long, value_name = "ADDR", requires = "stats_port")]
    pub(crate) stats_bind: Option<IpAddr>,
    /// File to which the log is also appended.
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,
    /// Repair this node's state and exit: a stored term that no election can have led to (above 4,294,967,296) is
    /// replaced by one above all that the cluster has had. Stop all nodes first, and do it on each of them. A sound
    /// term is kept.
    #[arg(long)]
    pub(crate) reset_term: bool,
}

/// What `client` takes.
#[derive(Debug, Args)]
pub(crate) struct Client {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Longest time for each request, retries included: 500ms, 30s, 1m30s; a number alone is seconds. Queries (status,
    /// discover, list) end after 5s in any case.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration, global = true)]
    pub(crate) timeout: Duration,
    #[command(subcommand)]
    pub(crate) command: Option<ClientCommand>,
}

/// What a client can ask for.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Who leads, who is alive, and what each node has got.
    Status,
    /// List the peers, and which of them answer.
    Discover,
    /// Upload files.
    Put(Put),
    /// Fetch an upload by the name of its file, or by the first digits of its id.
    Get(Get),
    /// List all uploads: name, owner, time and node.
    List,
}

/// What `put` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Put {
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Owner of the uploads. Default: the user of this machine.
    #[arg(long, value_name = "NAME", env = "USER", default_value = "anonymous")]
    pub(crate) user: String,
}

/// What `get` takes.
#[derive(Clone, Debug, Args)]
pub(crate) struct Get {
    /// The file's name, as it was uploaded; or the upload's id as `put` and `list` show it, or at least its first six
    /// digits.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Where to put it; `-` for stdout. Default: the given name, in the current folder. No file is ever overwritten.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// What `stress` takes.
#[derive(Debug, Args)]
pub(crate) struct Stress {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// Clients that upload at the same time.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) clients: u32,
    /// Uploads of each client, one after another.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) requests: u32,
    /// Size of the test image: 16KiB, 1MiB.
    #[arg(long, value_name = "SIZE", default_value = "16KiB", value_parser = image_size, conflicts_with = "file")]
    pub(crate) size: u64,
    /// A file to upload instead of a test image.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Longest time for each upload, retries included.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub(crate) timeout: Duration,
}

// The functions from here on parse values for clap, which wants a `std::error::Error` or a text.

/// [`bytes`] that an image can have.
fn image_size(text: &str) -> Result<u64, String> {
    bytes(text)
        .and_then(|bytes| if bytes < 64 { Err("an image takes at least 64 bytes".to_owned()) } else { Ok(bytes) })
}

/// A [`size`] that our protocol allows.
fn body_limit(text: &str) -> Result<usize, String> {
    let most = omb_machine::encoding::BODY_MAX;
    let bytes = usize::try_from(size(text)?).unwrap_or(usize::MAX);
    if bytes <= most { Ok(bytes) } else { Err(format!("at most {}MiB, the most that a controller sends", most >> 20)) }
}

/// A name that is allowed in a client's settings: 1 to 255 visible ASCII characters.
fn zone(text: &str) -> Result<String, String> {
    let sound = (1..=255).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic() && !"{}$,".contains(c));
    sound
        .then(|| text.to_owned())
        .ok_or_else(|| "a name such as eu-central-1a is wanted: ASCII, without blanks".to_owned())
}

/// Scheme, host and port of an address.
fn origin(text: &str) -> Result<Origin, String> {
    WebAddress::parse(text)
        .map(|address| address.origin)
        .ok_or_else(|| "an address is wanted: https://HOST[:PORT], in ASCII, without a user".to_owned())
}

/// Bytes, by the grammar of [`units::size`].
fn bytes(text: &str) -> Result<u64, String> {
    units::size(text).ok_or_else(|| "a whole number and a unit are expected: 512MiB, 4GiB".to_owned())
}

/// [`bytes`] that a broker, or a request, needs at least.
fn size(text: &str) -> Result<u64, String> {
    bytes(text).and_then(|bytes| if bytes < 1 << 20 { Err("at least 1MiB".to_owned()) } else { Ok(bytes) })
}

fn run_id(text: &str) -> Result<RunId, String> {
    let hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = if hex { u64::from_str_radix(text, 16).ok() } else { None };
    id.map(RunId).ok_or_else(|| "16 hexadecimal digits are expected, such as 0006b49d20012345".to_owned())
}

/// A duration by the grammar of [`units::duration`]; a number alone is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let seconds = || text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    match units::duration(text).or_else(|| seconds().map(Duration::from_secs)) {
        Some(duration) if (TIME_MIN..=TIME_MAX).contains(&duration) => Ok(duration),
        Some(_) => Err("100ms to 1h are allowed".to_owned()),
        None => Err("whole numbers with units are expected: 500ms, 30s, 1m30s".to_owned()),
    }
}

/// Shortest timeout: a healthy but busy machine may take this long to answer.
const TIME_MIN: Duration = Duration::from_millis(100);

/// Longest timeout: a process that is silent for longer does not come back.
const TIME_MAX: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("512MiB"), Ok(512 << 20));
        assert_eq!(size("4GiB"), Ok(4 << 30));
        assert_eq!(size("1048576"), Ok(1 << 20));
        for wrong in ["", "GiB", "1.5GiB", "12XB", "1KiB", "99999999999999999999GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn drivers_may_be_repeated_or_separated_by_commas() {
        let flags =
            Flags::try_parse_from(["omb", "run", "-d", "a.yaml,b.yaml", "-d", "c.yaml", "w.yaml"]).expect("sound");
        let Command::Run(run) = flags.command else { panic!("a run") };
        assert_eq!(run.drivers, ["a.yaml", "b.yaml", "c.yaml"].map(PathBuf::from));
    }

    #[test]
    fn durations_have_units_and_bounds() {
        for (text, millis) in
            [("500ms", 500), ("30s", 30_000), ("2m", 120_000), ("1h", 3_600_000), ("1m30s", 90_000), ("7", 7_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in [
            "",
            "s",
            "1.5s",
            "30 s",
            "1d",
            "-1s",
            "99ms",
            "0",
            "61m",
            "30s1m",
            "99999999999999999999s",
            "99999999999999999999",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[track_caller]
    fn run(arguments: &[&str]) -> Result<Run, clap::error::ErrorKind> {
        match Flags::try_parse_from(["omb", "run"].iter().chain(arguments)) {
            Ok(Flags { command: Command::Run(run), .. }) => Ok(run),
            Ok(other) => panic!("no run: {other:?}"),
            Err(error) => Err(error.kind()),
        }
    }

    #[test]
    fn workers_and_what_needs_them() {
        let flags = run(&["--workers=a", "--workers=b", "w.yaml"]).expect("sound");
        assert_eq!((flags.workers.len(), flags.on_worker_loss), (2, OnWorkerLoss::Fail));
        assert_eq!(flags.topology().expect("sound"), Topology::Shared);
        let times = [flags.connect_timeout, flags.call_timeout, flags.setup_timeout, flags.lease];
        assert_eq!(times.map(|time| time.as_secs()), [10, 30, 60, 30]);
        let kind = clap::error::ErrorKind::ArgumentConflict;
        assert_eq!(run(&["--workers=a", "--workers-file", "f", "w.yaml"]).err(), Some(kind));
        for alone in [&["-x"][..], &["--take-over"], &["--topology", "split"], &["--token-file", "t"]] {
            let missing = clap::error::ErrorKind::MissingRequiredArgument;
            assert_eq!(run(&[alone, &["w.yaml"]].concat()).err(), Some(missing), "{alone:?}");
        }
        assert_eq!(run(&["w.yaml"]).expect("sound").topology().expect("sound"), Topology::Shared);
    }

    #[test]
    fn extra_consumers_split_the_workers() {
        let topology = |more: &[&str]| run(&[&["--workers=a", "w.yaml"], more].concat()).expect("sound").topology();
        assert_eq!(topology(&["-x"]).expect("sound"), Topology::Split);
        assert_eq!(topology(&["-x", "--topology", "split"]).expect("sound"), Topology::Split);
        assert_eq!(topology(&["--topology", "split"]).expect("sound"), Topology::Split);
        assert!(topology(&["-x", "--topology", "shared"]).is_err_and(|error| error.to_string().contains("--extra")));
    }

    #[test]
    fn metrics_are_a_thousand_ports_above() {
        let stats_port = |arguments: &[&str]| {
            let flags = Flags::try_parse_from(["omb", "worker"].iter().chain(arguments)).expect("sound");
            let Command::Worker(worker) = flags.command else { panic!("a worker") };
            worker.stats_port()
        };
        assert_eq!(stats_port(&[]).expect("sound"), 9_080);
        assert_eq!(stats_port(&["-p", "8081"]).expect("sound"), 9_081);
        assert_eq!(stats_port(&["--port", "0"]).expect("sound"), 0);
        assert_eq!(stats_port(&["--port", "65000", "--stats-port", "8081"]).expect("sound"), 8_081);
        assert!(stats_port(&["--port", "65000"]).is_err_and(|error| error.to_string().contains("--stats-port")));
        let half = Flags::try_parse_from(["omb", "worker", "--tls-cert", "c.pem"]);
        assert!(half.is_err_and(|error| error.to_string().contains("--tls-key")));
    }
}
