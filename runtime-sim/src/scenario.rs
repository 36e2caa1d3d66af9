//! All that varies from one simulated run to the next, drawn from one number.

use std::{collections::BTreeSet, fmt, time::Duration};

use omb_bench::{
    config::workload::{Backlog, CatchUp, Clients, KeyDistributor, PayloadSource, RateGoal, Verify, Workload},
    plan::Topology,
    rate::{Rate, RateList, RatePoint},
};
use omb_machine::seed::Seed;
use rand::{Rng, RngExt};

use crate::{
    clock::Skew,
    fault::{Planned, Trouble, Who, broker, clock, exchange, network, process, simpler},
    load::Knobs,
};

/// One simulated run before it is played.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The seed that all the rest follows from.
    pub seed: Seed,
    /// What the run is to do.
    pub workload: Workload,
    /// A reporting interval.
    pub period: Duration,
    /// How the client library is configured.
    pub knobs: Knobs,
    /// Bytes the broker may store.
    pub capacity: u64,
    /// Whether controller and workers are processes of their own, or everything is one.
    pub linked: bool,
    /// Number of workers; one where everything is one process.
    pub workers: u32,
    /// Which workers produce and which consume.
    pub topology: Topology,
    /// Whether the run goes on when a worker is lost.
    pub goes_on: bool,
    /// The controller's clock.
    pub controller_clock: Skew,
    /// Each worker's; where everything is one process, the controller's.
    pub worker_clocks: Vec<Skew>,
    /// Seconds since midnight when the controller begins, for rates by the time of day.
    pub day_second: u32,
    /// The broker's clock.
    pub broker_clock: Skew,
    /// Whether clocks drift further than any quartz does, so that no bound of their error holds.
    pub wild_clocks: bool,
    /// The faults.
    pub troubles: Vec<Planned>,
    /// When the user wants the run to end, in true time since its beginning.
    pub stop_at: Option<Duration>,
    /// Another controller that wants the same workers.
    pub second: Option<Second>,
}

/// Another controller, with a run of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Second {
    /// When it begins, in true time.
    pub at: Duration,
    /// Whether it takes workers that follow another controller.
    pub take_over: bool,
    /// Its clock.
    pub clock: Skew,
}

impl Default for Second {
    fn default() -> Self {
        Self { at: Duration::ZERO, take_over: false, clock: Skew::NONE }
    }
}

/// Plenty of room.
const ROOMY: u64 = 1 << 30;

impl Scenario {
    /// The scenario of `seed`. Each part draws from a stream of its own, so that a change to one leaves
    /// the others as they were.
    #[must_use]
    pub fn from_seed(seed: Seed) -> Self {
        let mut rng = seed.stream("fleet");
        let linked = rng.random_bool(0.7);
        let workers = match rng.random_range(0..100) {
            _ if !linked => 1,
            0..18 => 1,
            18..50 => 2,
            50..72 => 3,
            72..86 => 4,
            86..98 => rng.random_range(5..=8),
            _ => rng.random_range(9..=20),
        };
        let split = workers > 1 && rng.random_bool(0.35);
        let more_consumers = rng.random_bool(0.4);
        let goes_on = rng.random_bool(0.5);
        let topology = if split { Topology::Split { more_consumers } } else { Topology::Shared };
        let mut rng = seed.stream("workload");
        let mut workload = workload(&mut rng);
        let day_second = other_rates(&mut seed.stream("rates"), &mut workload);
        let period = Duration::from_millis(match workload.rate {
            // A search takes some 60 periods.
            RateGoal::Search => 200,
            RateGoal::Fixed(_) | RateGoal::Listed(_) => [500, 1_000][rng.random_range(0..2)],
        });
        let mut rng = seed.stream("capacity");
        let tight = workload.rate != RateGoal::Search && workload.backlog.is_none() && rng.random_bool(0.2);
        let capacity = if tight { rng.random_range(15_000..250_000) } else { ROOMY };
        let (mut rng, ends) = (seed.stream("end"), longest_load(&workload) + Duration::from_secs(4));
        // Some interrupt before the load has begun.
        let patience = if rng.random_bool(0.25) { Duration::from_millis(1_200) } else { ends };
        let stop_at = rng.random_bool(0.15).then(|| rng.random_range(Duration::ZERO..patience));
        let mut rng = seed.stream("clocks");
        let (right, wild) = (rng.random_bool(0.2), rng.random_bool(if linked { 0.1 } else { 0.5 }));
        let mut skew = || match (right, wild) {
            (true, _) => Skew::NONE,
            (false, true) => clock::draw_wild(&mut rng),
            (false, false) => clock::draw(&mut rng),
        };
        let (controller_clock, second_clock) = (skew(), skew());
        let worker_clocks = (0..workers).map(|_| if linked { skew() } else { controller_clock }).collect();
        let broker_clock = clock::draw_wild(&mut seed.stream("clock of the broker"));
        // Some come after the load, while the last messages are waited for.
        let load = longest_load(&workload) + Duration::from_secs(1);
        let calm = seed.stream("calm").random_bool(0.12);
        let troubles = if calm { Vec::new() } else { troubles(seed, linked, workers, load) };
        let second = (linked && !calm).then(|| second(seed, &troubles, ends, second_clock)).flatten();
        Self {
            seed,
            period,
            knobs: Knobs {
                copies: if !calm && seed.stream("copies").random_bool(0.03) { 3 } else { 1 },
                shaken: seed.stream("shaken groups").random_bool(0.12),
                restless: restless(&mut seed.stream("restless groups")),
                ..knobs(&mut seed.stream("knobs"), &workload)
            },
            capacity,
            linked,
            workers,
            topology,
            goes_on,
            controller_clock,
            worker_clocks,
            broker_clock,
            day_second,
            wild_clocks: !right && wild,
            troubles,
            stop_at,
            second,
            workload,
        }
    }

    /// Whether there are no faults, and there is room for everything: then the run must be sound, and complete.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.troubles.is_empty()
            && self.stop_at.is_none()
            && self.second.is_none()
            && self.capacity == ROOMY
            && self.knobs.copies == 1
            && !self.knobs.shaken
            && self.knobs.restless.is_none()
    }

    /// Whether some fault is of this kind.
    #[must_use]
    pub fn suffers(&self, is: impl Fn(&Trouble) -> bool) -> bool {
        self.troubles.iter().any(|planned| is(&planned.trouble))
    }

    /// The same with fewer faults, one step in each possible direction: to find out what a failure really needs.
    #[must_use]
    pub fn simpler(&self) -> Vec<Self> {
        let needed =
            self.troubles.iter().flat_map(|planned| workers_of(&planned.trouble)).max().map_or(1, |most| most + 1);
        let least = needed.max(if self.topology == Topology::Shared { 1 } else { 2 });
        let changes: [&dyn Fn(&mut Self); 13] = [
            &|it| it.second = None,
            &|it| it.stop_at = None,
            &|it| it.knobs.shaken = false,
            &|it| it.knobs.restless = None,
            &|it| it.topology = Topology::Shared,
            &|it| it.capacity = ROOMY,
            &|it| {
                it.worker_clocks.fill(Skew::NONE);
                (it.controller_clock, it.broker_clock) = (Skew::NONE, Skew::NONE);
            },
            &|it| it.workload.consumers_per_subscription = 1,
            &|it| it.workload.subscriptions_per_topic = it.workload.subscriptions_per_topic.min(1),
            &|it| it.workload.producers_per_topic = 1,
            &|it| it.workload.topics = 1,
            &|it| it.workload.partitions_per_topic = 1,
            &|it| {
                it.workers = (it.workers - 1).max(least.min(it.workers));
                it.worker_clocks.truncate(it.workers as usize);
            },
        ];
        simpler(self, |it| &mut it.troubles, &changes)
    }
}

/// Workers hit by a fault.
fn workers_of(trouble: &Trouble) -> BTreeSet<u32> {
    let of = |target: &Who| if let Who::Worker(worker) = target { Some(*worker) } else { None };
    match trouble {
        Trouble::Network(network::Trouble::Partition(one, other) | network::Trouble::OneWay(one, other)) => {
            of(one).into_iter().chain(of(other)).collect()
        }
        Trouble::Process(process::Trouble::Paused(target)) => of(target).into_iter().collect(),
        Trouble::Process(
            process::Trouble::Late(worker, _)
            | process::Trouble::Mute(worker)
            | process::Trouble::Killed(worker)
            | process::Trouble::Shutdown(worker),
        ) => BTreeSet::from([*worker]),
        Trouble::Exchange(trouble) => trouble.worker.into_iter().collect(),
        _ => BTreeSet::new(),
    }
}

fn second(seed: Seed, troubles: &[Planned], ends: Duration, clock: Skew) -> Option<Second> {
    let mut rng = seed.stream("second controller");
    let killed = troubles.iter().find(|it| it.trouble == Trouble::Process(process::Trouble::ControllerKilled));
    // Mostly a second attempt after the first controller died.
    let wanted = rng.random_bool(if killed.is_some() { 0.6 } else { 0.12 });
    let (soon, anytime) =
        (rng.random_range(Duration::ZERO..Duration::from_secs(12)), rng.random_range(Duration::ZERO..ends));
    let at = killed.map_or(anytime, |killed| killed.at + soon);
    wanted.then(|| Second { at, take_over: rng.random_bool(0.6), clock })
}

/// From the beginning to the end of the load, if nothing goes wrong.
fn longest_load(workload: &Workload) -> Duration {
    let search = if workload.rate == RateGoal::Search { Duration::from_secs(12) } else { Duration::ZERO };
    let backlog = if workload.backlog.is_some() { Duration::from_secs(5) } else { Duration::ZERO };
    Duration::from_secs(2) + workload.warmup_duration + workload.test_duration + search + backlog
}

fn workload(rng: &mut impl Rng) -> Workload {
    let topics = [1, 1, 2, 3, 4, 6][rng.random_range(0..6)];
    let producers_per_topic = rng.random_range(1..=3);
    let subscriptions_per_topic = [0, 1, 1, 1, 2, 2][rng.random_range(0..6)];
    let searches = rng.random_bool(0.04);
    let fixed = *[40, 150, 400, 1_000].get(rng.random_range(0..4)).expect("one of four");
    // Small payloads carry no header.
    let message_size = if rng.random_bool(0.1) { rng.random_range(1..32) } else { rng.random_range(32..300) };
    let with_backlog = !searches && subscriptions_per_topic > 0 && rng.random_bool(0.12);
    let (rate, messages) = if with_backlog { (1_000, rng.random_range(800..2_500)) } else { (fixed, 0) };
    let backlog = with_backlog.then(|| Backlog {
        bytes: u64::from(message_size) * messages,
        drain_ratio: [1.0, 0.5][rng.random_range(0..2)],
    });
    Workload {
        name: "simulated".to_owned(),
        topics,
        partitions_per_topic: rng.random_range(1..=3),
        key_distributor: [KeyDistributor::NoKey, KeyDistributor::RoundRobin, KeyDistributor::RandomNano]
            [rng.random_range(0..3)],
        message_size,
        payload: PayloadSource::Random { ratio: 0.5, pool: rng.random_range(1..4) },
        subscriptions_per_topic,
        consumers_per_subscription: rng.random_range(1..=4),
        producers_per_topic,
        rate: if searches { RateGoal::Search } else { RateGoal::Fixed(Rate::per_second(rate).expect("in range")) },
        backlog,
        test_duration: Duration::from_millis(rng.random_range(1_500..5_000)),
        warmup_duration: Duration::from_millis([0, 0, 700, 1_500][rng.random_range(0..4)]),
        seed: None,
        catch_up: match rng.random_range(0..4) {
            0 => CatchUp::Cap(Duration::from_millis(500)),
            1 => CatchUp::Drop,
            _ => CatchUp::All,
        },
        verify: if rng.random_bool(0.5) { Verify::Full } else { Verify::Header },
        clients: Clients::default(),
    }
}

/// Makes a steady rate one that follows a list, or one below a few messages per second, now and then. Returns the
/// second of the day.
fn other_rates(rng: &mut impl Rng, workload: &mut Workload) -> u32 {
    let day_second = [86_394, 43_190, rng.random_range(0..86_400)][rng.random_range(0..3)];
    if workload.rate == RateGoal::Search || workload.backlog.is_some() {
        return day_second;
    }
    let minute = day_second / 60;
    let (low, high) = (rng.random_range(0..300_000), rng.random_range(0..6_000_000));
    let point = |minute, milli| RatePoint { minute, milli };
    let (by_day, points) = match rng.random_range(0..16) {
        0 => (false, vec![point(0, low), point(1, high)]),
        // Up to the next minute, or to the first one of the next day.
        1 if minute == 1_439 => (true, vec![point(0, high), point(minute, low)]),
        1 => (true, vec![point(minute, low), point(minute + 1, high)]),
        2 => {
            let slow = rng.random_range(1..4_000);
            workload.rate = Rate::decimal(&format!("0.{slow:04}")).map_or(workload.rate.clone(), RateGoal::Fixed);
            return day_second;
        }
        _ => return day_second,
    };
    if let Ok(list) = RateList::new(by_day, points) {
        // Long enough for a step or two.
        workload.test_duration += Duration::from_millis(rng.random_range(3_000..8_000));
        workload.rate = RateGoal::Listed(list);
    }
    day_second
}

fn knobs(rng: &mut impl Rng, workload: &Workload) -> Knobs {
    let ms = Duration::from_millis;
    Knobs {
        copies: 1,
        idempotent: rng.random_bool(0.7),
        retries: rng.random_bool(0.85),
        request_within: ms(rng.random_range(400..1_500)),
        deliver_within: ms(rng.random_range(1_000..6_000)),
        linger: ms(rng.random_range(0..10)),
        // A search must find an end, and soon: it begins at 10,000 messages a second.
        batch_max: if workload.rate == RateGoal::Search { 4 } else { [10, 50, 200][rng.random_range(0..3)] },
        queue_max: [20, 100, 1_000][rng.random_range(0..3)],
        senders: rng.random_range(1..=3),
        session: ms(rng.random_range(1_500..4_000)),
        commit_every: ms(rng.random_range(100..1_000)),
        fetch_wait: ms(rng.random_range(50..500)),
        fetch_bytes: [2_000, 20_000, 1 << 20][rng.random_range(0..3)],
        join_within: ms([0, 0, 400, 1_500][rng.random_range(0..4)]),
        shaken: false,
        restless: None,
    }
}

fn restless(rng: &mut impl Rng) -> Option<Duration> {
    rng.random_bool(0.35).then(|| Duration::from_millis(rng.random_range(0..2_500)))
}

/// Kinds of fault, by family, and how likely each is where its family is on.
const FAMILIES: [(&str, &[(&str, f64)]); 7] = [
    (
        "broker",
        &[("slow", 0.35), ("stalled", 0.35), ("failing", 0.35), ("cut", 0.35), ("restart", 0.35), ("damage", 0.3)],
    ),
    ("network", &[("loss", 0.5), ("delay", 0.5)]),
    ("reach", &[("partition", 0.35), ("deaf broker", 0.35), ("deaf worker", 0.35), ("end", 0.12)]),
    ("control", &[("control partition", 0.4), ("deaf to controller", 0.3), ("deaf controller", 0.3)]),
    ("exchange", &[("delayed", 0.4), ("request lost", 0.4), ("reply lost", 0.4), ("doubled", 0.5), ("reset", 0.4)]),
    ("process", &[("late", 0.3), ("mute", 0.08), ("killed", 0.25), ("shutdown", 0.12), ("paused", 0.3)]),
    ("controller", &[("controller killed", 0.25), ("controller paused", 0.3)]),
];

/// Swarm testing: each family of faults is off altogether in half of the runs, so that none hides another. Whether it
/// is on, and its faults, are drawn from its own streams: to switch one off changes nothing for the others.
fn troubles(seed: Seed, linked: bool, workers: u32, load: Duration) -> Vec<Planned> {
    let mut planned: Vec<Planned> = Vec::new();
    for (family, kinds) in FAMILIES {
        let mut swarm = seed.stream(&format!("swarm: {family}"));
        if swarm.random_bool(0.5) {
            continue;
        }
        for (kind, share) in kinds {
            let alone = matches!(family, "broker" | "network" | "reach") || matches!(*kind, "late" | "mute");
            let on = swarm.random_bool(*share);
            if !on || !(linked || alone || *kind == "controller paused") {
                continue;
            }
            let mut rng = seed.stream(kind);
            let first = trouble(kind, &mut rng, workers, load);
            // One of a kind at a time: the end of the one would be the end of the other.
            let second = trouble(kind, &mut rng, workers, load);
            let apart = first.until() < second.at || second.until() < first.at;
            let again = rng.random_bool(0.5) && *kind != "controller killed";
            planned.extend(Some(second).filter(|_| apart && again));
            planned.push(first);
        }
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

fn trouble(kind: &str, rng: &mut impl Rng, workers: u32, load: Duration) -> Planned {
    let at = rng.random_range(Duration::ZERO..load);
    // Mostly short enough to be survived, sometimes not.
    let lasts = Duration::from_millis(if rng.random_bool(0.8) {
        rng.random_range(100..2_500)
    } else {
        rng.random_range(2_500..12_000)
    });
    let worker = rng.random_range(0..workers);
    let target = Who::Worker(worker);
    let share = rng.random_range(0.05..0.5);
    let ms = |rng: &mut dyn FnMut() -> u64| Duration::from_millis(rng());
    let whom = Some(worker).filter(|_| rng.random_bool(0.4));
    let exchange = |kind| Trouble::Exchange(exchange::Trouble { kind, worker: whom, share });
    let trouble = match kind {
        "slow" => Trouble::Broker(broker::Trouble::Slow(ms(&mut || rng.random_range(20..1_200)))),
        "stalled" => Trouble::Broker(broker::Trouble::Stalled),
        "failing" => Trouble::Broker(broker::Trouble::Failing(rng.random_range(0.05..0.6))),
        "cut" => Trouble::Broker(broker::Trouble::Cut),
        "restart" => Trouble::Broker(broker::Trouble::Restart),
        "damage" => Trouble::Broker(broker::Trouble::Damage(rng.random_range(0.005..0.1))),
        "partition" | "end" => Trouble::Network(network::Trouble::Partition(target, Who::Broker)),
        "deaf broker" => Trouble::Network(network::Trouble::OneWay(target, Who::Broker)),
        "deaf worker" => Trouble::Network(network::Trouble::OneWay(Who::Broker, target)),
        "control partition" => Trouble::Network(network::Trouble::Partition(Who::Controller, target)),
        "deaf to controller" => Trouble::Network(network::Trouble::OneWay(Who::Controller, target)),
        "deaf controller" => Trouble::Network(network::Trouble::OneWay(target, Who::Controller)),
        "loss" => Trouble::Network(network::Trouble::Loss(rng.random_range(0.02..0.4))),
        "delay" => Trouble::Network(network::Trouble::Slow(ms(&mut || rng.random_range(30..400)))),
        "late" => Trouble::Process(process::Trouble::Late(worker, ms(&mut || rng.random_range(50..3_000)))),
        "mute" => Trouble::Process(process::Trouble::Mute(worker)),
        "killed" => Trouble::Process(process::Trouble::Killed(worker)),
        "shutdown" => Trouble::Process(process::Trouble::Shutdown(worker)),
        "paused" => Trouble::Process(process::Trouble::Paused(target)),
        "controller paused" => Trouble::Process(process::Trouble::Paused(Who::Controller)),
        "controller killed" => Trouble::Process(process::Trouble::ControllerKilled),
        "delayed" => exchange(exchange::Kind::Delayed),
        "request lost" => exchange(exchange::Kind::RequestLost),
        "reply lost" => exchange(exchange::Kind::ReplyLost),
        "doubled" => exchange(exchange::Kind::Doubled),
        "reset" => exchange(exchange::Kind::Reset),
        other => unreachable!("no kind of trouble is called {other}"),
    };
    let (at, lasts) = match kind {
        // The last messages cannot be read, for longer than they are waited for.
        "end" => {
            (load.saturating_sub(Duration::from_millis(rng.random_range(1_500..3_000))), lasts + Duration::from_secs(8))
        }
        "mute" => (at, lasts * 6),
        // Long enough to be encountered, and mostly to be survived.
        "delayed" | "request lost" | "reply lost" | "doubled" | "reset" => (at, lasts * 3),
        _ => (at, lasts),
    };
    Planned { at, lasts, trouble }
}

/// As text, for the report of a broken promise.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = &self.workload;
        let rate = match &it.rate {
            RateGoal::Listed(list) if list.by_day() => {
                format!("{:?} from second {} of the day", list.points(), self.day_second)
            }
            RateGoal::Listed(list) => format!("{:?}", list.points()),
            RateGoal::Fixed(rate) => format!("{rate} msg/s"),
            RateGoal::Search => "the highest rate".to_owned(),
        };
        writeln!(
            f,
            "  {} topics x {} partitions, {} producers each, {} subscriptions of {} consumers; {rate} of {} bytes for {:.1} s after {:.1} s",
            it.topics,
            it.partitions_per_topic,
            it.producers_per_topic,
            it.subscriptions_per_topic,
            it.consumers_per_subscription,
            it.message_size,
            it.test_duration.as_secs_f64(),
            it.warmup_duration.as_secs_f64(),
        )?;
        if let Some(backlog) = it.backlog {
            writeln!(f, "  a backlog of {} bytes, drained by {:.0} %", backlog.bytes, backlog.drain_ratio * 100.0)?;
        }
        let producer = if self.knobs.idempotent { "idempotent" } else { "plain" };
        let retries = if self.knobs.retries { "retrying" } else { "not retrying" };
        let room = if self.capacity == ROOMY { "all it needs".to_owned() } else { format!("{} bytes", self.capacity) };
        let link = match (self.linked, self.topology) {
            (false, _) => "one process".to_owned(),
            (true, topology) => format!(
                "{} workers, {topology:?}{}",
                self.workers,
                if self.goes_on { ", goes on if one is lost" } else { "" }
            ),
        };
        writeln!(
            f,
            "  {producer} producers, {retries}, catch up {:?}; the broker has room for {room}; {link}",
            it.catch_up
        )?;
        if self.knobs.shaken {
            writeln!(f, "  a consumer of each worker loses its membership when the first probes go out")?;
        }
        if let Some(after) = self.knobs.restless {
            writeln!(f, "  a consumer of each worker loses its membership {after:?} after the load has begun")?;
        }
        writeln!(f, "  clocks: controller {}, broker {}", self.controller_clock, self.broker_clock)?;
        if self.linked {
            let clocks: Vec<String> = self.worker_clocks.iter().map(ToString::to_string).collect();
            writeln!(f, "  clocks of the workers: {}", clocks.join("; "))?;
        }
        for planned in &self.troubles {
            writeln!(f, "  {planned}")?;
        }
        if let Some(second) = self.second {
            let how = if second.take_over { "takes the workers over" } else { "asks for the workers" };
            writeln!(f, "  another controller {how} at {:.1} s", second.at.as_secs_f64())?;
        }
        if let Some(at) = self.stop_at {
            writeln!(f, "  the user stops it at {:.1} s", at.as_secs_f64())?;
        }
        if self.is_calm() { writeln!(f, "  nothing goes wrong") } else { Ok(()) }
    }
}
