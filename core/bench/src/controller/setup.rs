//! The way up: one step after another, each begun when the one before has been answered by all workers.

use std::{collections::BTreeMap, time::Duration};

use super::{
    Clocks, Controller, Output, find_rate, groups,
    load::Load,
    stage::{Joining, LoadStep, ProbeStep, Probing, Stage},
};
use crate::{
    config::workload::{PayloadSource, RateGoal},
    id::WorkerId,
    load::payload::PayloadRecipe,
    plan::{Share, sharing},
    protocol::{
        Command, Failure, FailureKind, Ping,
        command::{Begin, ConsumerSpec, Preparation, ProducerSpec, TopicSpec},
        event::Snapshot,
    },
    rate::{Rate, Tempo},
};
use omb_machine::time::{Instant, WallTime};

/// The first look at the groups, or for the probes: on an idle broker both take a few milliseconds.
const LOOK_FIRST: Duration = Duration::from_millis(10);

/// The first rounds of questions to the clocks, and the pause between them; then there is one in each period.
const CLOCK_ROUNDS_FIRST: u32 = 24;
const CLOCK_ROUND: Duration = Duration::from_millis(10);
/// Questions within a lease, so that one that is lost does not end it.
const PINGS_PER_LEASE: u32 = 4;
/// Rounds to wait for before a load begins.
const CLOCK_ROUNDS_MIN: u32 = 8;

/// Rounds of probes; after that a path that stays closed is waited for, not probed again.
const PROBES_MAX: u32 = 20;

impl Controller {
    pub(super) fn prepare(&mut self, now: Instant) {
        self.enter(Stage::Prepare);
        let workload = &self.plan.workload;
        let payload = match (&workload.payload, &self.settings.payload) {
            // Nothing is sent, so one payload of the largest size does.
            _ if self.only_check.is_some() => {
                let size = self.plans().map(|plan| plan.workload.message_size).max().unwrap_or(1);
                PayloadRecipe::Random { size, ratio: 0.0, count: 1 }
            }
            (PayloadSource::File(_), Some(bytes)) => PayloadRecipe::Given(bytes.clone()),
            (PayloadSource::File(path), None) => {
                unreachable!("a run with a payload file is given its bytes: {}", path.display())
            }
            (PayloadSource::Random { ratio, pool }, _) => {
                PayloadRecipe::Random { size: workload.message_size, ratio: *ratio, count: *pool }
            }
        };
        let preparation = Preparation {
            driver: self.settings.driver.clone(),
            seed: self.plan.seed,
            payload,
            keys: workload.key_distributor,
            catch_up: workload.catch_up,
            verify: workload.verify,
            producers_per_topic: workload.producers_per_topic,
            lease: self.settings.lease,
            setup_within: self.settings.setup_within,
            controller: self.settings.controller.clone(),
            take_over: self.settings.take_over,
        };
        self.ask_all(now, self.settings.setup_within, &Command::Prepare(Box::new(preparation)));
    }

    pub(super) fn create_topics(&mut self, now: Instant) {
        self.enter(Stage::CreateTopics);
        let topics =
            self.plan.topics.iter().map(|topic| TopicSpec { name: topic.name.clone(), partitions: topic.partitions });
        let command = Command::CreateTopics(topics.collect());
        self.ask_first(now, self.settings.setup_within, &command);
    }

    pub(super) fn create_consumers(&mut self, now: Instant) {
        let deadline = now + self.settings.setup_within;
        self.enter(Stage::CreateConsumers(Joining { deadline, look_at: now }));
        let (plan, owners) = (&self.plan, self.plan.owners());
        let spec = |(consumer, thread): (&&crate::plan::Consumer, u32)| {
            let subscription = &plan.subscriptions[consumer.subscription.0 as usize];
            ConsumerSpec {
                id: consumer.id,
                topic_index: subscription.topic,
                topic: plan.topics[subscription.topic.0 as usize].name.clone(),
                subscription: subscription.id,
                group: subscription.name.clone(),
                members: plan.workload.consumers_per_subscription,
                partitions: plan.workload.partitions_per_topic,
                whole: owners[subscription.topic.0 as usize].is_some(),
                thread,
            }
        };
        let of_share = |share: Share<'_>| {
            let threads = sharing::dealt(sharing::receiving_threads(plan, &share));
            share.consumers.iter().zip(threads).map(spec).collect()
        };
        let mut specs: Vec<Vec<ConsumerSpec>> = plan.shares().into_iter().map(of_share).collect();
        self.ask(now, self.settings.setup_within, |worker| {
            Command::CreateConsumers(std::mem::take(&mut specs[worker.0 as usize]))
        });
    }

    /// The consumers are there (no snapshot yet), or have been looked at.
    pub(super) fn on_joining(&mut self, now: Instant, snapshots: &BTreeMap<WorkerId, Snapshot>) {
        if self.plan.consumers.is_empty() {
            return self.create_producers(now, groups::Generations::new());
        }
        let hopeless = self.hopeless(snapshots);
        let Stage::CreateConsumers(joining) = &mut self.stage else { return };
        if snapshots.is_empty() && now < joining.deadline {
            joining.look_at = now + LOOK_FIRST;
            return;
        }
        if let Some(failure) = hopeless {
            return self.fail(now, failure);
        }
        match groups::settled(&self.plan, snapshots) {
            Ok(generations) => self.create_producers(now, generations),
            Err(why) if now >= joining.deadline => {
                let text = format!("{why}, after {:?}{}", self.settings.setup_within, causes(snapshots));
                self.fail(now, Failure::new(FailureKind::Unreachable, text));
            }
            Err(_) => joining.look_at = now + self.settings.look_again,
        }
    }

    /// What a worker found that will not pass by itself, while the run is being set up.
    fn hopeless(&self, snapshots: &BTreeMap<WorkerId, Snapshot>) -> Option<Failure> {
        let found = |(worker, snapshot): (&WorkerId, &Snapshot)| Some((*worker, snapshot.hopeless.clone()?));
        let (worker, failure) = snapshots.iter().find_map(found)?;
        let one = self.settings.names.is_empty();
        let text = if one { failure.message } else { format!("{}: {}", self.name(worker), failure.message) };
        Some(Failure::new(failure.kind, text))
    }

    /// The groups have settled in these generations.
    fn create_producers(&mut self, now: Instant, settled: groups::Generations) {
        self.enter(Stage::CreateProducers(settled));
        let (plan, owners) = (&self.plan, self.plan.owners());
        let spec = |(producer, client): (&&crate::plan::Producer, u32)| ProducerSpec {
            id: producer.id,
            topic: plan.topics[producer.topic.0 as usize].name.clone(),
            partitions: plan.workload.partitions_per_topic,
            whole: owners[producer.topic.0 as usize].is_some(),
            client,
        };
        let of_share = |share: Share<'_>| {
            let clients = sharing::dealt(sharing::producer_clients(plan, &share));
            share.producers.iter().zip(clients).map(spec).collect()
        };
        let mut specs: Vec<Vec<ProducerSpec>> = plan.shares().into_iter().map(of_share).collect();
        self.ask(now, self.settings.setup_within, |worker| {
            Command::CreateProducers(std::mem::take(&mut specs[worker.0 as usize]))
        });
    }

    /// The producers are there.
    pub(super) fn on_produced(&mut self, now: Instant) {
        let Stage::CreateProducers(settled) = &mut self.stage else { return };
        let settled = std::mem::take(settled);
        let deadline = now + self.settings.setup_within;
        let probing = Probing { deadline, look_at: now, again_at: now, sent: 0, round: 1, settled };
        self.enter(Stage::Probe(ProbeStep::Look, probing));
        self.probe(now);
    }

    fn probe(&mut self, now: Instant) {
        let Stage::Probe(_, probing) = &mut self.stage else { return };
        probing.sent += 1;
        probing.again_at = now + self.settings.probe_again;
        let command = Command::Probe { round: probing.round };
        self.ask_all(now, self.settings.call_within, &command);
    }

    /// The probes are on their way (no snapshot yet), or have been looked for.
    pub(super) fn on_probed(&mut self, now: Instant, snapshots: &BTreeMap<WorkerId, Snapshot>) {
        let hopeless = self.hopeless(snapshots);
        let Stage::Probe(_, probing) = &mut self.stage else { return };
        let open = groups::paths_open(snapshots);
        if snapshots.is_empty() && now < probing.deadline {
            probing.look_at = now + LOOK_FIRST;
            return;
        }
        if let Some(failure) = hopeless {
            return self.fail(now, failure);
        }
        let paths = self.plan.paths();
        let settled = groups::settled(&self.plan, snapshots);
        let moved = settled.as_ref().is_ok_and(|generations| *generations != probing.settled);
        // Without consumers, that a probe is stored is all there is to know.
        let pending = snapshots.values().map(|snapshot| snapshot.probes_pending).fold(0, u64::saturating_add);
        let arrived = if self.plan.consumers.is_empty() { pending == 0 } else { open >= paths };
        if settled.is_ok() && !moved && arrived {
            return self.on_ready(now);
        }
        if now >= probing.deadline {
            let lacks = match settled {
                Err(why) => why,
                Ok(_) if self.plan.consumers.is_empty() => format!("{pending} probes were not acknowledged"),
                Ok(_) => {
                    format!("only {open} of {paths} paths from a producer to a subscription delivered their probe")
                }
            };
            let text = format!("{lacks}, after {:?}{}", self.settings.setup_within, causes(snapshots));
            return self.fail(now, Failure::new(FailureKind::Unreachable, text));
        }
        if moved {
            // What earlier probes showed is past: a partition may be read by another consumer now.
            probing.settled = settled.unwrap_or_default();
            probing.round += 1;
            probing.sent = 0;
            return self.probe(now);
        }
        // Only a look shows that another round is wanted: where exchanges are slow, the time for it comes before the first
        // look.
        if probing.again_at <= now && probing.sent < PROBES_MAX {
            return self.probe(now);
        }
        probing.look_at = now + self.settings.look_again;
    }

    /// Every path is open. The load begins as soon as every clock is known.
    fn on_ready(&mut self, now: Instant) {
        if self.settings.clocks != Clocks::Measured {
            return self.begin_load(now);
        }
        if let Stage::Probe(step, _) = &mut self.stage {
            *step = ProbeStep::MeasureClocks { until: now + self.settings.call_within };
        }
        self.on_clocks(now);
    }

    /// More may be known of the clocks.
    pub(super) fn on_clocks(&mut self, now: Instant) {
        let Stage::Probe(step, _) = &mut self.stage else { return };
        let ProbeStep::MeasureClocks { until } = *step else { return };
        if self.clocks.rounds < CLOCK_ROUNDS_MIN && now < until
            || self.links.alive().any(|worker| self.links.offsets(worker).wall_of(now).is_none())
        {
            return;
        }
        *step = ProbeStep::SetClocks;
        // The fleet's time is the first worker's, as it is known now. Every worker must have it before any sends: a message
        // may arrive at a worker that has not heard yet that the load begins.
        let first = self.links.alive().next();
        let wall = first.and_then(|first| self.links.offsets(first).wall_of(now));
        self.clocks.fleet_zero = wall.map(|wall| WallTime(wall.0.wrapping_sub(now.0)));
        self.ask_read(now);
    }

    /// By now each clock must be known: a worker whose clock is not is lost.
    pub(super) fn on_clocks_due(&mut self, now: Instant) {
        let unknown = self.links.alive().filter(|worker| self.links.offsets(*worker).wall_of(now).is_none());
        for worker in unknown.collect::<Vec<_>>() {
            let text = format!("the clock of {} could not be measured", self.name(worker));
            self.lose(now, worker, text, FailureKind::Unreachable);
        }
        self.on_clocks(now);
    }

    /// Every worker has the fleet's time. That took a while: a group that has moved on meanwhile is probed anew.
    pub(super) fn on_clocks_set(&mut self, now: Instant, snapshots: &BTreeMap<WorkerId, Snapshot>) {
        let Stage::Probe(step, probing) = &mut self.stage else { return };
        *step = ProbeStep::Look;
        let still = groups::settled(&self.plan, snapshots).is_ok_and(|generations| generations == probing.settled);
        if still { self.begin_load(now) } else { self.on_probed(now, snapshots) }
    }

    fn begin_load(&mut self, now: Instant) {
        let producers = u32::try_from(self.plan.producers.len()).expect("checked when it is parsed");
        let (at, after) = (now + self.settings.start_after, self.settings.start_after);
        let tempo = match &self.plan.workload.rate {
            RateGoal::Fixed(rate) => Tempo::Steady(*rate),
            RateGoal::Search => Tempo::Steady(Rate::per_second(find_rate::FIRST).expect("in range")),
            RateGoal::Listed(list) => Tempo::Listed { list: list.clone(), day_second: self.settings.day_second(at) },
        };
        let corrections = self.corrections(at);
        let begins: BTreeMap<WorkerId, Begin> = self
            .links
            .alive()
            .map(|worker| {
                let wall = self.clocks.fleet_zero.and_then(|_| self.links.offsets(worker).wall_of(at));
                (worker, wall.map_or(Begin::After(after), Begin::At))
            })
            .collect();
        let load = Load::new(&self.plan, tempo.clone(), at);
        let window = load.window();
        self.stage = Stage::Loaded(LoadStep::Start, Box::new(load));
        self.ask(now, self.settings.call_within, |worker| Command::StartLoad {
            tempo: tempo.clone(),
            producers,
            begin: begins[&worker],
            window,
            correction: corrections.get(&worker).copied().unwrap_or(0),
        });
    }

    /// By how many nanoseconds the fleet's time is ahead of each worker's clock.
    pub(super) fn corrections(&mut self, at: Instant) -> BTreeMap<WorkerId, i64> {
        let Some(zero) = self.clocks.fleet_zero else { return BTreeMap::new() };
        let fleet = WallTime(zero.0.wrapping_add(at.0));
        let correction = |worker| Some((worker, fleet.signed_since(self.links.offsets(worker).wall_of(at)?)));
        let known: Vec<_> = self.links.alive().filter_map(correction).collect();
        // Of a clock that has just been set nothing is known for a moment; what was sent last stays.
        self.clocks.sent.extend(known);
        self.clocks.sent.clone()
    }

    pub(super) fn ping(&mut self, now: Instant) {
        let run = self.plan.run;
        let ping = |worker| {
            let ping = Ping { run, sent: self.links.offsets(worker).wall_of(now) };
            Output::Ping { worker, ping }
        };
        self.outputs.extend(self.links.alive().map(ping));
        self.clocks.rounds += 1;
        let often = self.settings.period.min(self.settings.lease / PINGS_PER_LEASE);
        let pause = if self.clocks.rounds < CLOCK_ROUNDS_FIRST { CLOCK_ROUND } else { often };
        self.clocks.next = Some(now + pause);
    }
}

/// What workers say went wrong, in parentheses.
fn causes(snapshots: &BTreeMap<WorkerId, Snapshot>) -> String {
    let mut causes: Vec<&str> = Vec::new();
    for problem in snapshots.values().flat_map(|snapshot| &snapshot.problems) {
        if causes.len() < Snapshot::PROBLEMS_MAX && !causes.contains(&problem.what.as_str()) {
            causes.push(&problem.what);
        }
    }
    if causes.is_empty() { String::new() } else { format!(" ({})", causes.join("; ")) }
}
