//! What it costs to lead a fleet as it grows: `cargo run -p sim-tests --bin scale -- [WORKERS..]`, by default 10, 100
//! and 1000.
//!
//! Each row is a whole run: as many simulated nodes with a worker each and ten topics for each worker, every command
//! encoded and sent over HTTP/1 on a simulated connection, a period a second. The load is a formula, so that what is
//! measured is the leading: plan, messages, merging. CPU is that of the whole process, workers and network included.

#[cfg(madsim)]
fn main() {
    let mut sizes: Vec<u32> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    if sizes.is_empty() {
        sizes = vec![10, 100, 1_000];
    }
    println!("| workers | topics | plan, ms | CPU, s | CPU per worker and period, ms | read, bytes | periods | end |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for workers in sizes {
        println!("{}", fleet::measure(workers));
    }
}

#[cfg(not(madsim))]
fn main() {}

#[cfg(madsim)]
mod fleet {
    use std::{
        net::{IpAddr, Ipv4Addr, SocketAddr},
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering::Relaxed},
        },
        time::Duration,
    };

    use madsim::{
        runtime::{Handle, NodeHandle, Runtime},
        task::spawn_local,
        time::TimeHandle,
    };
    use omb_bench::{
        config::{
            driver::{DriverConfig, DriverKind},
            terms::Terms,
            workload::{CatchUp, Clients, KeyDistributor, PayloadSource, RateGoal, Verify, Workload},
        },
        controller::{Clocks, Controller, End, Output, Settings},
        id::{RunId, SubscriptionId},
        plan::Plan,
        protocol::{
            Command, Event,
            command::Begin,
            event::{Findings, GroupView, Missing, Snapshot},
        },
        rate::Rate,
        stats::{
            sparse::SparseTotals,
            tally::{Seen, Totals},
        },
    };
    use omb_machine::{encoding, seed::Seed, time::Instant};
    use omb_runtime_sim::{
        clock::{Clock, Skew},
        connection::{SimListener, SimTransport},
        portable::{
            event_loop::Clock as _,
            fleet::{
                Address,
                leading::{self, Links},
                serving::{self, Identity, Pages, Status},
                wire::{Answered, Caller},
            },
            local::{Answer, Observer, Performer},
        },
    };

    /// How long is measured, and so how many periods.
    const MEASURED: Duration = Duration::from_secs(10);
    /// Messages a second of each worker.
    const RATE: u64 = 1_000;

    fn workload(topics: u32) -> Workload {
        Workload {
            name: "scale".to_owned(),
            topics,
            partitions_per_topic: 1,
            key_distributor: KeyDistributor::NoKey,
            message_size: 100,
            payload: PayloadSource::Random { ratio: 1.0, pool: 1 },
            subscriptions_per_topic: 1,
            consumers_per_subscription: 1,
            producers_per_topic: 1,
            rate: RateGoal::Fixed(Rate::per_second(u64::from(topics / 10) * RATE).expect("in range")),
            backlog: None,
            test_duration: MEASURED,
            warmup_duration: Duration::ZERO,
            seed: None,
            catch_up: CatchUp::All,
            verify: Verify::Header,
            clients: Clients::default(),
        }
    }

    fn address(worker: u32) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + worker + 1)), 8080)
    }

    /// A load as a formula: whatever is due is confirmed and received, with latencies as they are seen.
    struct Model {
        clock: Clock,
        totals: Totals,
        subscriptions: Vec<SubscriptionId>,
        begin: Option<Instant>,
        read_bytes: Arc<AtomicU64>,
    }

    impl Performer for Model {
        fn perform(&mut self, command: Command, answer: Answer) {
            let event = match command {
                Command::Prepare(_) => Event::Prepared { system: "a formula".to_owned() },
                Command::CreateConsumers(consumers) => {
                    self.subscriptions = consumers.iter().map(|consumer| consumer.subscription).collect();
                    Event::Done
                }
                Command::StartLoad { begin: Begin::At(wall), .. } => {
                    self.begin = Some(Instant(wall.0 - self.clock.wall_zero().0));
                    Event::Done
                }
                Command::Read { .. } => {
                    let event = Event::Read(Box::new(self.read()));
                    self.read_bytes.store(encoding::encode(&event).len() as u64, Relaxed);
                    event
                }
                Command::StopLoad { .. } => {
                    self.advance();
                    self.begin = None;
                    Event::Done
                }
                Command::Verify => {
                    let compared = self.subscriptions.iter().map(|id| (*id, Missing::default())).collect();
                    Event::Verified(Box::new(Findings { compared, ..Findings::default() }))
                }
                _ => Event::Done,
            };
            answer.give(Ok(event));
        }
    }

    impl Model {
        fn advance(&mut self) {
            let Some(begin) = self.begin else { return };
            let now = self.clock.now();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
            let due = (now.since(begin).as_secs_f64() * RATE as f64) as u64;
            let totals = &mut self.totals;
            for n in totals.departures.attempted..due {
                // A few thousand buckets in all, as a real run fills them.
                let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44;
                totals.departures.attempted += 1;
                totals.departures.schedule_error.record(10_000 + spread / 16);
                totals.acknowledgements.acked += 1;
                totals.acknowledgements.acked_bytes += 100;
                totals.acknowledgements.from_intended.record(1_000_000 + spread);
                totals.acknowledgements.from_sent.record(900_000 + spread);
                totals.arrivals.received += 1;
                totals.arrivals.received_bytes += 100;
                totals.arrivals.from_intended.record(1_200_000 + spread);
                totals.arrivals.from_sent.record(1_100_000 + spread);
            }
            let count = self.subscriptions.len() as u64;
            for (place, id) in (0..).zip(&self.subscriptions) {
                let distinct = (totals.arrivals.received + place) / count;
                totals.seen.insert(*id, Seen { received: distinct, distinct, ..Seen::default() });
            }
        }

        fn read(&mut self) -> Snapshot {
            self.advance();
            let view = GroupView { joined: 1, generations: (1, 1), assigned: 1, ..GroupView::default() };
            Snapshot {
                taken_at: self.clock.now(),
                wall: self.clock.wall(),
                totals: SparseTotals::from(&self.totals),
                paths_open: self.subscriptions.len() as u64,
                groups: self.subscriptions.iter().map(|id| (*id, view)).collect(),
                ..Snapshot::default()
            }
        }
    }

    struct NoPages;

    impl Pages for NoPages {
        fn get(&self, _: &str, _: &Status) -> Option<Answered> {
            None
        }
    }

    #[derive(Default)]
    struct Watch {
        periods: u32,
    }

    impl Observer for Watch {
        fn on_output(&mut self, output: &Output) {
            self.periods += u32::from(matches!(output, Output::Period(_)));
        }
    }

    fn start_worker(worker: u32, read_bytes: Arc<AtomicU64>) -> NodeHandle {
        let node = Handle::current().create_node().name(format!("worker {worker}")).ip(address(worker).ip()).build();
        // What the loops hold cannot move between threads, and need not.
        node.spawn(async move {
            let serving = spawn_local(async move {
                let clock = Clock::new(TimeHandle::current(), Skew::NONE);
                let listener = SimListener::bind(address(worker)).await;
                let (totals, subscriptions, begin) = (Totals::default(), Vec::new(), None);
                let mut model = Model { clock: clock.clone(), totals, subscriptions, begin, read_bytes };
                let identity = Identity {
                    omb: "0.0.0".to_owned(),
                    instance: worker.to_string(),
                    token: None,
                    body_max: encoding::BODY_MAX,
                    terms: Terms::foreign(),
                    limits: omb_bench::plan::needs::Limits::default(),
                };
                let (_stop, mut stops) = tokio::sync::mpsc::unbounded_channel();
                serving::serve(
                    listener,
                    None,
                    identity,
                    NoPages,
                    &mut model,
                    &mut Watch::default(),
                    &mut stops,
                    &clock,
                )
                .await;
            });
            let _ = serving.await;
        });
        node
    }

    async fn run(workers: u32) -> (End, u32, Duration, u64) {
        let read_bytes = Arc::new(AtomicU64::new(0));
        let _nodes: Vec<NodeHandle> = (0..workers).map(|worker| start_worker(worker, read_bytes.clone())).collect();
        let node = Handle::current().create_node().name("controller").ip(Ipv4Addr::new(10, 0, 0, 1).into()).build();
        let from = node.id();
        let (end, periods, planning) = node
            .spawn(async move {
                let leading = spawn_local(async move {
                    let clock = Clock::new(TimeHandle::current(), Skew::NONE);
                    let before = cpu();
                    let plan = Plan::new(RunId(1), Seed(1), workload(workers * 10), workers);
                    let planning = cpu() - before;
                    let driver = DriverConfig { name: "scale".to_owned(), kind: DriverKind::Embedded };
                    let names = (0..workers).map(|worker| address(worker).to_string()).collect();
                    let settings = Settings {
                        names,
                        clocks: Clocks::Measured,
                        start_after: Duration::from_millis(500),
                        ..Settings::new(driver)
                    };
                    let caller = |worker: u32| {
                        let to = address(worker);
                        let to =
                            Address { name: to.to_string(), host: to.ip().to_string(), port: to.port(), tls: false };
                        Caller::new(SimTransport::plain(from), to, None, Duration::from_secs(5)).expect("no token")
                    };
                    let links = (0..workers).map(|it| Links { commands: caller(it), clock: caller(it) }).collect();
                    let controller = Controller::new(clock.now(), plan, settings);
                    let (_stop, mut stops) = tokio::sync::mpsc::unbounded_channel();
                    let mut watch = Watch::default();
                    let end = leading::lead(controller, links, &mut watch, &mut stops, &clock).await;
                    (end, watch.periods, planning)
                });
                leading.await.expect("the run ends")
            })
            .await
            .expect("the controller's task ends");
        (end, periods, planning, read_bytes.load(Relaxed))
    }

    /// CPU time of this process so far. The simulator turns every clock, this one included, but not the accounts.
    fn cpu() -> Duration {
        // SAFETY: a `rusage` is plain numbers, for which zero is a value; the call writes one to a valid place.
        let used = unsafe {
            let mut used = std::mem::zeroed::<libc::rusage>();
            libc::getrusage(libc::RUSAGE_SELF, &raw mut used);
            used
        };
        let of = |time: libc::timeval| {
            Duration::from_secs(time.tv_sec.cast_unsigned()) + Duration::from_micros(time.tv_usec.cast_unsigned())
        };
        of(used.ru_utime) + of(used.ru_stime)
    }

    /// Plays one fleet and prints its cost, as a row.
    pub(super) fn measure(workers: u32) -> String {
        std::thread::spawn(move || {
            let before = cpu();
            let (end, periods, planning, read_bytes) =
                Runtime::with_seed_and_config(1, madsim::Config::default()).block_on(run(workers));
            let took = cpu() - before;
            let each = took.as_secs_f64() * 1e3 / f64::from(workers) / f64::from(periods.max(1));
            let planning = planning.as_secs_f64() * 1e3;
            let (took, topics) = (took.as_secs_f64(), workers * 10);
            format!(
                "| {workers} | {topics} | {planning:.1} | {took:.2} | {each:.2} | {read_bytes} | {periods} | {end:?} |"
            )
        })
        .join()
        .expect("the run does not panic")
    }
}
