//! The embedded broker: [`omb_broker`] behind the Kafka protocol, on a thread of its own.
//!
//! ```text
//!   TCP ─▶ frame ─▶ omb_kafka::serving ─▶ Request ─▶ Broker ─▶ Response ─▶ Ticket::answer ─▶ TCP
//!          connection.rs          ╰────────────── core, one thread ──────────────╯
//! ```
//!
//! One thread serves everything: the broker is a machine and has one owner. Nothing is done per record; a batch is
//! copied once, when it is stored, and sent from where it lies.
//!
//! Memory: a part of the capacity is for requests that are being received or wait for room, the rest for records. What
//! every reader has read is dropped, oldest first, beyond the latest 16 MiB; unread records are not. So a group that
//! begins later, at the earliest offset, finds what others have not read yet and those 16 MiB. Of a topic without
//! readers the latest records are kept, as far as the capacity goes. The process still holds dropped memory until its
//! allocator is asked to return it to the system, which is done once there is much of it ([`Options::give_back`]).
//!
//! Topics must be created, unless [`Options::auto_create`] is set. Transactions, access control, quotas and
//! encryption are not served. Everything is in memory and gone with the server.

mod connection;
mod intake;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    fmt, io,
    net::{SocketAddr, TcpListener},
    ops::ControlFlow,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use omb_broker::{Broker, Config, ConnId, Dropped, Input, Output, Response};
use omb_machine::{Machine, Wake, settle, time::Instant};
use tokio::{
    sync::{Notify, mpsc},
    task::LocalSet,
};
use tracing::{error, info, warn};

use self::intake::Intake;
use crate::process;

/// Upper bound of the default of [`Options::capacity`].
const CAPACITY_DEFAULT: u64 = 2 << 30;

/// See [`intake_max`].
const INTAKE_MIN: u64 = 16 << 20;

/// Frames up to this size are accepted by the smallest broker, one at a time: clients send a million bytes by default.
const FRAME_SMALL: u64 = 2 << 20;

/// Bytes of records that are kept although every reader has read them, for readers that begin later; a sixteenth of the
/// capacity if that is less.
const READ_KEPT: u64 = 16 << 20;

/// Freed memory is returned to the system if it is that much, and more than what is still held. Less will soon be
/// needed again.
const EBB_MIN: u64 = 32 << 20;

/// How long it must have been free: returning memory under load that is soon needed again costs a page fault per page.
const EBB_FOR: Duration = Duration::from_secs(1);

/// Connections at once. A benchmark of thousands of clients stays below; the limit of open files comes first on most
/// machines.
const CONNECTIONS_MAX: usize = 50_000;

/// How long to wait when the system has no room for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the embedded broker is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen. Default 127.0.0.1, any free port.
    pub bind: SocketAddr,
    /// Host and port that are advertised to clients. Default: the address they reached the broker at.
    pub advertise: Option<(String, u16)>,
    /// Bytes to hold at most: records (see [`records_max`]), and requests that are being received. Unread records are
    /// never dropped: when they fill the room for records, producers wait.
    ///
    /// Default 2 GiB, or a quarter of the memory of this machine (or container) if that is less.
    pub capacity: u64,
    /// Longest frame a client may send, in bytes, if the capacity has room for it; checked before anything is
    /// allocated. Default 100 MiB, as Kafka.
    pub frame_max: u32,
    /// Partitions of a topic that is created because a client requests its metadata. Default `None`: it is not created,
    /// so that a wrong name is an error.
    pub auto_create: Option<i32>,
    /// How long a group without members waits for more of them when one joins. Default 100 ms, where Kafka's own is 3
    /// s: enough for all consumers of a run, so that they need not rebalance for each.
    pub group_initial_delay: Duration,
    /// Makes the allocator return freed memory to the system. Called on the broker's thread, some time after it has
    /// dropped much, and by a [`Performer`](crate::performer::Performer) after each run. Default: nothing, as is right
    /// for allocators that do so on their own.
    pub give_back: fn(),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            capacity: default_capacity(),
            frame_max: 100 << 20,
            auto_create: None,
            group_initial_delay: Duration::from_millis(100),
            give_back: || {},
        }
    }
}

/// Why the embedded broker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, not of this machine, or not allowed.
    #[error("the embedded broker cannot listen on {addr}: {error}")]
    Bind {
        /// Where it was to listen.
        addr: SocketAddr,
        /// The system's error.
        #[source]
        error: io::Error,
    },
    /// The system provides no thread, or no means to wait for sockets.
    #[error("the embedded broker cannot start its thread: {0}")]
    Thread(#[source] io::Error),
}

/// What the broker holds, and what happened to the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Existing topics.
    pub topics: usize,
    /// Existing consumer groups, with or without members.
    pub groups: usize,
    /// Clients connected.
    pub connections: usize,
    /// Records stored now.
    pub records: u64,
    /// Bytes stored now, with what batches cost beside theirs.
    pub bytes: u64,
    /// Most bytes ever held: stored, and announced by requests in progress.
    pub bytes_max: u64,
    /// What was dropped to make room for newer records.
    pub dropped: Dropped,
    /// Produce requests that wait for room now.
    pub produces_waiting: usize,
}

/// A running embedded broker. Dropping it closes every connection and waits for its thread.
pub struct Server {
    addr: SocketAddr,
    capacity: u64,
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<thread::JoinHandle<()>>,
    /// Most bytes ever held.
    held_max: Arc<AtomicU64>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("addr", &self.addr).finish_non_exhaustive()
    }
}

type Look = Box<dyn FnOnce(&Broker, Instant) + Send>;

enum Command {
    Look(Look),
    Stop,
}

impl Server {
    /// Starts a broker. When this returns, clients can connect.
    ///
    /// # Errors
    /// If the address cannot be listened on, or the system provides no thread.
    pub fn start(options: Options) -> Result<Self, StartError> {
        let bind = |error| StartError::Bind { addr: options.bind, error };
        let listener = TcpListener::bind(options.bind).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let addr = listener.local_addr().map_err(bind)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Thread)?;
        let (commands, received) = mpsc::unbounded_channel();
        let (capacity, held_max) = (options.capacity, Arc::<AtomicU64>::default());
        let held = Arc::clone(&held_max);
        let work = move || {
            let host = Rc::new(Host::new(options, held));
            LocalSet::new().block_on(&runtime, host.run(listener, received));
            // The sockets go with the runtime, so that the address is free again when the thread has ended.
        };
        let thread =
            thread::Builder::new().name("embedded-broker".to_owned()).spawn(work).map_err(StartError::Thread)?;
        Ok(Self { addr, capacity, commands, thread: Some(thread), held_max })
    }

    /// Where it listens, with its actual port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it holds.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let held_max = Arc::clone(&self.held_max);
        self.look(move |broker, _| Stats {
            bytes_max: held_max.load(Relaxed),
            topics: broker.topics().count(),
            groups: broker.groups().count(),
            connections: broker.connections(),
            records: broker.stored_records(),
            bytes: broker.stored_bytes(),
            dropped: broker.dropped(),
            produces_waiting: broker.produces_waiting(),
        })
    }

    /// Inspects the broker, at a time of its clock. Blocks until its thread has done so; everything else waits for it.
    ///
    /// # Panics
    /// If the broker's thread has panicked.
    pub fn look<T: Send + 'static>(&self, look: impl FnOnce(&Broker, Instant) -> T + Send + 'static) -> T {
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let look = move |broker: &Broker, now: Instant| drop(sender.send(look(broker, now)));
        let sent = self.commands.send(Command::Look(Box::new(look)));
        sent.expect("the broker's thread runs as long as its server");
        receiver.recv().expect("the broker's thread runs as long as its server")
    }

    /// Stalls everything for this long, as a pause of a garbage collector or of a disk would. Returns at once.
    pub fn stall(&self, duration: Duration) {
        let sent = self.commands.send(Command::Look(Box::new(move |_, _| thread::sleep(duration))));
        sent.expect("the broker's thread runs as long as its server");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Without a receiver the thread has ended already.
        let _ = self.commands.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("embedded broker: its thread panicked");
        }
        let (held, capacity) = (self.held_max.load(Relaxed).div_ceil(1 << 20), self.capacity >> 20);
        // Not logged for one that was only inspected.
        if held > 0 {
            info!("The embedded broker held at most {held} of {capacity} MiB");
        }
    }
}

/// Bytes of records that a broker of this capacity holds at most; the rest is for requests in progress.
#[must_use]
pub fn records_max(capacity: u64) -> u64 {
    capacity - intake_max(capacity)
}

/// Bytes of requests that may be in progress: an eighth of the capacity, at least 16 MiB, unless that is most of it.
fn intake_max(capacity: u64) -> u64 {
    (capacity / 8).max(INTAKE_MIN.min(capacity / 2))
}

/// A quarter of the available memory, at most 2 GiB.
fn default_capacity() -> u64 {
    let memory = process::memory_max();
    memory.map_or(CAPACITY_DEFAULT, |memory| (memory / 4).min(CAPACITY_DEFAULT))
}

/// Where a connection finds the broker's answer to its request.
#[derive(Debug, Default)]
struct Mailbox {
    responses: RefCell<VecDeque<Response>>,
    arrived: Notify,
}

impl Mailbox {
    fn take(&self) -> Option<Response> {
        self.responses.borrow_mut().pop_front()
    }

    async fn wait(&self) -> Response {
        loop {
            if let Some(response) = self.take() {
                return response;
            }
            self.arrived.notified().await;
        }
    }
}

/// The broker and its runtime.
struct Host {
    broker: RefCell<Broker>,
    mailboxes: RefCell<BTreeMap<ConnId, Rc<Mailbox>>>,
    connections: Cell<u64>,
    started: tokio::time::Instant,
    /// When the broker needs to be woken.
    wake: Cell<Option<Wake>>,
    /// When the alarm will ring. It may be too early, never too late.
    alarm: Cell<Option<Instant>>,
    alarm_moved: Notify,
    advertise: Option<(String, u16)>,
    cluster: String,
    frame_max: u32,
    intake: Intake,
    held_max: Arc<AtomicU64>,
    tide: Cell<Tide>,
    give_back: fn(),
}

/// How much is held, to notice when much of it has become free.
#[derive(Clone, Copy, Debug, Default)]
struct Tide {
    /// Most since the last look.
    now: u64,
    /// Most since memory was last returned: the process may still have that much.
    high: u64,
}

impl Tide {
    fn rise(&mut self, held: u64) {
        self.now = self.now.max(held);
    }

    /// Whether to return memory, given how much is held now. To be called regularly: the peak between two calls counts.
    fn ebbed(&mut self, held: u64) -> bool {
        let now = std::mem::replace(&mut self.now, held).max(held);
        self.high = self.high.max(now);
        let free = self.high - now;
        let much = free >= EBB_MIN && free > now;
        if much {
            self.high = now;
        }
        much
    }
}

impl Host {
    fn new(options: Options, held_max: Arc<AtomicU64>) -> Self {
        // Two brokers in succession at the same port must not be taken for one.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = (since_epoch.as_nanos() as u64) ^ (u64::from(std::process::id()) << 40);
        let (records, intake) = (records_max(options.capacity), intake_max(options.capacity));
        let config = Config {
            capacity: records,
            read_kept: READ_KEPT.min(records / 16),
            group_initial_delay: options.group_initial_delay,
            auto_create: options.auto_create,
            seed,
        };
        Self {
            broker: RefCell::new(Broker::new(config)),
            mailboxes: RefCell::default(),
            connections: Cell::default(),
            started: tokio::time::Instant::now(),
            wake: Cell::default(),
            alarm: Cell::default(),
            alarm_moved: Notify::new(),
            advertise: options.advertise,
            cluster: format!("embedded-{seed:016x}"),
            frame_max: options.frame_max.min(u32::try_from((intake / 2).max(FRAME_SMALL)).unwrap_or(u32::MAX)),
            intake: Intake::new(intake),
            held_max,
            tide: Cell::default(),
            give_back: options.give_back,
        }
    }

    async fn run(self: Rc<Self>, listener: TcpListener, mut commands: mpsc::UnboundedReceiver<Command>) {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return error!(%error, "embedded broker: cannot listen"),
        };
        tokio::task::spawn_local(Rc::clone(&self).ring());
        tokio::task::spawn_local(Rc::clone(&self).watch_memory());
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Look(look)) => look(&self.broker.borrow(), self.now()),
                    Some(Command::Stop) | None => return,
                },
                accepted = listener.accept() => match accepted {
                    Ok((stream, client)) => self.accept(stream, client),
                    Err(error) => {
                        warn!(%error, "embedded broker: a connection was not accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    fn accept(self: &Rc<Self>, stream: tokio::net::TcpStream, client: SocketAddr) {
        if self.mailboxes.borrow().len() >= CONNECTIONS_MAX {
            return warn!(%client, "embedded broker: too many connections");
        }
        // The client may be gone again already.
        if let Ok(local) = stream.local_addr() {
            tokio::task::spawn_local(connection::serve(Rc::clone(self), stream, client, local));
        }
    }

    /// Fires the broker's timers.
    async fn ring(self: Rc<Self>) {
        loop {
            let at = self.wake.get().map(|wake| wake.at);
            self.alarm.set(at);
            let asleep = async {
                match at {
                    Some(at) => tokio::time::sleep_until(self.started + at.since(Instant::ZERO)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = asleep => self.settle(self.now()),
                () = self.alarm_moved.notified() => {}
            }
        }
    }

    async fn watch_memory(self: Rc<Self>) {
        loop {
            tokio::time::sleep(EBB_FOR).await;
            let (held, mut tide) = (self.held(), self.tide.get());
            let ebbed = tide.ebbed(held);
            self.tide.set(tide);
            if ebbed {
                (self.give_back)();
            }
        }
    }

    /// Bytes stored, and announced by requests in progress.
    fn held(&self) -> u64 {
        self.broker.borrow().stored_bytes() + self.intake.held()
    }

    fn now(&self) -> Instant {
        Instant::ZERO + self.started.elapsed()
    }

    fn open(&self) -> (ConnId, Rc<Mailbox>) {
        self.connections.update(|count| count + 1);
        let id = ConnId(self.connections.get());
        let mailbox = Rc::<Mailbox>::default();
        self.mailboxes.borrow_mut().insert(id, Rc::clone(&mailbox));
        self.handle(Input::Opened(id));
        (id, mailbox)
    }

    fn close(&self, id: ConnId) {
        self.mailboxes.borrow_mut().remove(&id);
        self.handle(Input::Closed(id));
    }

    fn handle(&self, input: Input) {
        let now = self.now();
        self.broker.borrow_mut().handle_input(now, input);
        self.settle(now);
    }

    /// Hands out the broker's answers, and ensures that the alarm rings in time.
    fn settle(&self, now: Instant) {
        let mailboxes = self.mailboxes.borrow();
        let deliver = |output| {
            let Output::Reply { conn, response, .. } = output;
            // The connection may be gone: this answer is no longer awaited.
            if let Some(mailbox) = mailboxes.get(&conn) {
                mailbox.responses.borrow_mut().push_back(response);
                mailbox.arrived.notify_one();
            }
            ControlFlow::Continue(())
        };
        let ControlFlow::Continue(wake) = settle(&mut *self.broker.borrow_mut(), now, deliver) else {
            unreachable!("delivering never breaks off")
        };
        let (held, mut tide) = (self.held(), self.tide.get());
        self.held_max.fetch_max(held, Relaxed);
        tide.rise(held);
        self.tide.set(tide);
        self.wake.set(wake);
        let too_late = |alarm: Instant| wake.is_some_and(|wake| wake.at < alarm);
        if self.alarm.get().map_or(wake.is_some(), too_late) {
            self.alarm_moved.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_returned_once_much_is_free_for_a_while() {
        const MIB: u64 = 1 << 20;
        let mut tide = Tide::default();
        let mut ebbed = |rises: &[u64], held: u64| {
            rises.iter().for_each(|to| tide.rise(to * MIB));
            tide.ebbed(held * MIB)
        };
        assert!(!ebbed(&[10, 900], 900), "it rises");
        assert!(!ebbed(&[900, 100], 100), "it has only just fallen");
        assert!(!ebbed(&[460], 80), "less is free than is held");
        assert!(!ebbed(&[450], 80), "as much");
        assert!(ebbed(&[449], 80));
        assert!(ebbed(&[80], 80), "of the 449 that were kept");
        assert!(!ebbed(&[], 80), "once");
        // A load whose readers keep up.
        for _ in 0..10 {
            assert!(!ebbed(&[17, 60, 17], 17));
        }
        assert!(ebbed(&[17], 16), "it is over");
        assert!(!ebbed(&[16], 0), "what was held since the last look counts");
        assert!(!ebbed(&[31], 0) && !ebbed(&[], 0) && !ebbed(&[], 0), "little is kept");
        assert!(!ebbed(&[32], 0) && ebbed(&[], 0));
    }
}
