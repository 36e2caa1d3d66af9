//! All that varies from one simulated run to the next, drawn from one number.

use std::{fmt, time::Duration};

use omb_core::{
    config::workload::{Backlog, CatchUp, KeyDistributor, PayloadSource, RateGoal, Verify, Workload},
    seed::Seed,
};
use rand::{Rng, RngExt};

use crate::{
    clock::Skew,
    fault::{Planned, Trouble, broker, clock, network, process},
    load::Knobs,
};

/// One simulated run before it is played.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// From which all the rest follows.
    pub seed: Seed,
    /// What the run shall do.
    pub workload: Workload,
    /// A reporting interval.
    pub period: Duration,
    /// How the client library is set.
    pub knobs: Knobs,
    /// Bytes the broker may store.
    pub capacity: u64,
    /// Whether controller and worker are two processes with a link between them, or one.
    pub linked: bool,
    /// The client's clock.
    pub client_clock: Skew,
    /// The broker's clock.
    pub broker_clock: Skew,
    /// What goes wrong.
    pub troubles: Vec<Planned>,
    /// When the user wants the run to end, in true time since its beginning.
    pub stop_at: Option<Duration>,
    /// When another controller speaks to the worker; only where they are linked.
    pub intruder_at: Option<Duration>,
}

/// Plenty of room.
const ROOMY: u64 = 1 << 30;

impl Scenario {
    /// The scenario that `seed` stands for. Each part draws from a stream of its own, so that a change to one leaves
    /// the others as they were.
    #[must_use]
    pub fn from_seed(seed: Seed) -> Self {
        let mut rng = seed.stream("workload");
        let workload = workload(&mut rng);
        let period = Duration::from_millis(match workload.rate {
            // A search takes some 60 periods.
            RateGoal::Search => 200,
            RateGoal::Fixed(_) => [500, 1_000][rng.random_range(0..2)],
        });
        let mut rng = seed.stream("capacity");
        let tight = workload.rate != RateGoal::Search && workload.backlog.is_none() && rng.random_bool(0.2);
        let capacity = if tight { rng.random_range(15_000..250_000) } else { ROOMY };
        let linked = seed.stream("linked").random_bool(0.5);
        let (mut rng, ends) = (seed.stream("end"), longest_load(&workload) + Duration::from_secs(4));
        // Some lose patience before the load has begun.
        let patience = if rng.random_bool(0.25) { Duration::from_millis(1_200) } else { ends };
        let stop_at = rng.random_bool(0.15).then(|| rng.random_range(Duration::ZERO..patience));
        let intruder_at = (linked && rng.random_bool(0.3)).then(|| rng.random_range(Duration::ZERO..ends));
        let mut rng = seed.stream("clocks");
        let mut skew = || if rng.random_bool(0.5) { clock::draw(&mut rng) } else { Skew::NONE };
        let (client_clock, broker_clock) = (skew(), skew());
        Self {
            seed,
            period,
            knobs: knobs(&mut seed.stream("knobs"), &workload),
            capacity,
            linked,
            client_clock,
            broker_clock,
            // Some come when the load is over and the last messages are waited for.
            troubles: troubles(seed, linked, longest_load(&workload) + Duration::from_secs(1)),
            stop_at,
            intruder_at,
            workload,
        }
    }

    /// Whether nothing at all goes wrong: then the run must be sound, and complete.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.troubles.is_empty() && self.stop_at.is_none() && self.intruder_at.is_none()
    }

    /// Whether reports of the worker can fail to reach the controller.
    #[must_use]
    pub fn reports_can_be_lost(&self) -> bool {
        self.troubles.iter().any(|planned| matches!(planned.trouble, Trouble::Process(_)))
    }
}

/// From the beginning to the end of the load, if nothing goes wrong.
fn longest_load(workload: &Workload) -> Duration {
    let search = if workload.rate == RateGoal::Search { Duration::from_secs(12) } else { Duration::ZERO };
    let backlog = if workload.backlog.is_some() { Duration::from_secs(5) } else { Duration::ZERO };
    Duration::from_secs(2) + workload.warmup_duration + workload.test_duration + search + backlog
}

fn workload(rng: &mut impl Rng) -> Workload {
    let topics = rng.random_range(1..=3);
    let producers_per_topic = rng.random_range(1..=3);
    let subscriptions_per_topic = [0, 1, 1, 1, 2, 2][rng.random_range(0..6)];
    let searches = rng.random_bool(0.06);
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
        consumers_per_subscription: rng.random_range(1..=2),
        producers_per_topic,
        rate: if searches { RateGoal::Search } else { RateGoal::Fixed(rate) },
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
    }
}

fn knobs(rng: &mut impl Rng, workload: &Workload) -> Knobs {
    let ms = Duration::from_millis;
    Knobs {
        idempotent: rng.random_bool(0.7),
        retries: rng.random_bool(0.85),
        request_within: ms(rng.random_range(400..1_500)),
        deliver_within: ms(rng.random_range(1_000..6_000)),
        linger: ms(rng.random_range(0..10)),
        // A search must find an end, and soon: 10,000 messages a second is where it begins.
        batch_max: if workload.rate == RateGoal::Search { 4 } else { [10, 50, 200][rng.random_range(0..3)] },
        queue_max: [20, 100, 1_000][rng.random_range(0..3)],
        senders: rng.random_range(1..=3),
        session: ms(rng.random_range(1_500..4_000)),
        commit_every: ms(rng.random_range(100..1_000)),
        fetch_wait: ms(rng.random_range(50..500)),
        fetch_bytes: [2_000, 20_000, 1 << 20][rng.random_range(0..3)],
    }
}

/// Swarm testing: each family of troubles is off altogether in half of the runs, so that none hides another.
fn troubles(seed: Seed, linked: bool, load: Duration) -> Vec<Planned> {
    let mut swarm = seed.stream("swarm");
    if swarm.random_bool(0.15) {
        return Vec::new();
    }
    let families: [(&str, bool); 16] = [
        ("slow", true),
        ("stalled", true),
        ("failing", true),
        ("cut", true),
        ("restart", true),
        ("damage", true),
        ("partition", true),
        ("deaf broker", true),
        ("deaf client", true),
        ("loss", true),
        ("delay", true),
        ("late", true),
        ("mute", true),
        ("end", true),
        ("lossy", linked),
        ("severed", linked),
    ];
    let mut planned = Vec::new();
    for (family, possible) in families {
        let rare = matches!(family, "mute" | "severed" | "end");
        if swarm.random_bool(if rare { 0.08 } else { 0.3 }) && possible {
            let mut rng = seed.stream(family);
            let first = trouble(family, &mut rng, load);
            // One of a kind at a time: the end of the one would be the end of the other.
            let second = trouble(family, &mut rng, load);
            let apart = first.at + first.lasts < second.at || second.at + second.lasts < first.at;
            planned.extend(Some(second).filter(|_| apart && rng.random_bool(0.5)));
            planned.push(first);
        }
    }
    planned.sort_by_key(|planned| planned.at);
    planned
}

fn trouble(family: &str, rng: &mut impl Rng, load: Duration) -> Planned {
    let at = rng.random_range(Duration::ZERO..load);
    // Mostly short enough to be survived, sometimes not.
    let lasts = Duration::from_millis(if rng.random_bool(0.8) {
        rng.random_range(100..2_500)
    } else {
        rng.random_range(2_500..9_000)
    });
    let ms = |rng: &mut dyn FnMut() -> u64| Duration::from_millis(rng());
    let trouble = match family {
        "slow" => Trouble::Broker(broker::Trouble::Slow(ms(&mut || rng.random_range(20..1_200)))),
        "stalled" => Trouble::Broker(broker::Trouble::Stalled),
        "failing" => Trouble::Broker(broker::Trouble::Failing(rng.random_range(0.05..0.6))),
        "cut" => Trouble::Broker(broker::Trouble::Cut),
        "restart" => Trouble::Broker(broker::Trouble::Restart),
        "damage" => Trouble::Broker(broker::Trouble::Damage(rng.random_range(0.005..0.1))),
        "partition" => Trouble::Network(network::Trouble::Partition),
        "deaf broker" => Trouble::Network(network::Trouble::DeafBroker),
        "deaf client" => Trouble::Network(network::Trouble::DeafClient),
        "loss" => Trouble::Network(network::Trouble::Loss(rng.random_range(0.02..0.4))),
        "end" => Trouble::Network(network::Trouble::Partition),
        "delay" => Trouble::Network(network::Trouble::Slow(ms(&mut || rng.random_range(30..400)))),
        "late" => Trouble::Process(process::Trouble::Late(ms(&mut || rng.random_range(50..3_000)))),
        "mute" => Trouble::Process(process::Trouble::Mute),
        "lossy" => Trouble::Process(process::Trouble::Lossy(rng.random_range(0.05..0.5))),
        "severed" => Trouble::Process(process::Trouble::Severed),
        other => unreachable!("no family of troubles is called {other}"),
    };
    let forever = matches!(trouble, Trouble::Process(process::Trouble::Mute | process::Trouble::Severed));
    let (at, lasts) = match family {
        // The last messages cannot be read, for longer than anybody waits for them.
        "end" => {
            (load.saturating_sub(Duration::from_millis(rng.random_range(1_500..3_000))), lasts + Duration::from_secs(8))
        }
        _ if forever => (at, lasts * 6),
        _ => (at, lasts),
    };
    Planned { at, lasts, trouble }
}

/// In words, for the report of a broken promise.
impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let it = &self.workload;
        let rate = match it.rate {
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
        let link = if self.linked { "two processes" } else { "one process" };
        writeln!(
            f,
            "  {producer} producers, {retries}, catch up {:?}; the broker has room for {room}; {link}",
            it.catch_up
        )?;
        if self.client_clock != Skew::NONE || self.broker_clock != Skew::NONE {
            writeln!(f, "  clocks off: client by {:?}, broker by {:?}", self.client_clock, self.broker_clock)?;
        }
        for planned in &self.troubles {
            writeln!(f, "  {planned}")?;
        }
        if let Some(at) = self.intruder_at {
            writeln!(f, "  another controller speaks to the worker at {:.1} s", at.as_secs_f64())?;
        }
        if let Some(at) = self.stop_at {
            writeln!(f, "  the user stops it at {:.1} s", at.as_secs_f64())?;
        }
        if self.is_calm() { writeln!(f, "  nothing goes wrong") } else { Ok(()) }
    }
}
