//! Sending: the schedule puts messages into each producer's queue, and a task per producer delivers them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use omb_bench::{
    id::ProducerId,
    load::{header, keys::KeyWalk, payload, sender::InFlight},
    plan::probing,
    protocol::command::{Begin, Window},
    rate::{Rate, Tempo},
};
use omb_broker::{Acks, Appended, ErrorCode, NewBatch, ProducePartition, ProducerStamp, Request, Response, TopicRef};
use omb_machine::{
    seed::fnv1a,
    time::{Instant, WallTime},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::{sync::Notify, time::sleep};

use super::{
    BACKOFF, LOOK, Schedule, SendingThread, SimLoad, State, kind,
    record::{Record, pack},
    schedule,
};
use crate::{
    net::Client,
    portable::event_loop::Clock as _,
    truth::{Ack, Attempt, Mark, Place},
};

/// A message in flight.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    pub(super) mark: Mark,
    in_flight: InFlight,
    /// When it was meant to leave, as its header says.
    stamped: WallTime,
    key: Option<Vec<u8>>,
    /// Its partition, if that does not depend on its key.
    partition: Option<u32>,
    payload: Vec<u8>,
}

/// Longest a sending task sleeps; if nothing is due any more it wakes in vain.
const NAP_MAX: Duration = Duration::from_secs(60);

/// What a sending task does next.
enum Step {
    /// Nothing is due for this long.
    Sleep(Duration, Arc<Notify>),
    /// A queue is full.
    Blocked(Arc<Notify>),
    Over,
}

/// Messages of one partition that are sent, and resent, together.
struct Batch {
    messages: Vec<Outgoing>,
    sent: NewBatch,
}

/// A producer as the broker identifies it.
struct Identity {
    given: Option<(i64, i16)>,
    /// By partition, the number of the next record.
    next: BTreeMap<u32, i32>,
}

impl SimLoad {
    pub(super) fn probe(&self, round: u64) {
        let now = self.0.clock.now();
        let wall = WallTime(self.fleet_zero().0 + now.0);
        let State { producers, subscriptions, prepared, consumers, shaken, .. } = &mut *self.state();
        if self.0.knobs.shaken {
            shaken.get_or_insert_with(|| consumers.keys().next().copied());
        }
        for subscription in subscriptions.values_mut() {
            subscription.ledger.expect_probes(round);
            (subscription.rebalances, subscription.last) = (0, None);
        }
        let Some(prepared) = prepared else { return };
        let per_topic = prepared.preparation.producers_per_topic;
        for (id, producer) in producers {
            let partitions = probing::partitions(id.0 % per_topic, per_topic, producer.partitions);
            for (nth, partition) in partitions.enumerate() {
                let len = probing::len(prepared.pool[0].len(), header::LEN, nth == 0, 1);
                let mut payload = producer.sender.probe(wall, round).to_vec();
                payload.resize(len, 0);
                let key = KeyWalk::new(prepared.preparation.keys).next(now.0);
                let key = key.map(|key| prepared.keys.get(key).to_vec());
                let mark = Mark { producer: *id, sequence: producer.probes, probe: true };
                producer.probes += 1;
                let in_flight = InFlight { sequence: 0, intended: now, sent: now };
                let partition = Some(partition);
                producer.queue.push_back(Outgoing { mark, in_flight, stamped: wall, key, partition, payload });
            }
            producer.filled.notify_one();
        }
    }

    pub(super) fn start_load(&self, tempo: &Tempo, producers: u32, begin: Begin, window: Option<Window>) {
        let start = match begin {
            Begin::After(after) => self.0.clock.now() + after,
            Begin::At(wall) => Instant(wall.0.saturating_sub(self.0.clock.wall_zero().0)),
        };
        if start < self.0.clock.now() {
            self.0.witness.hit("effect: told to begin too late");
        }
        let lasts = window.map(|window| window.until);
        self.follow(start, tempo, lasts, producers);
        let ends = window.map(|Window { from, until }| [start + from, start + until]);
        let threads = {
            let mut state = self.state();
            state.ends.begin(ends);
            state.measured_from = ends.map_or(Instant(u64::MAX), |[from, _]| from);
            state.loaded = Some(start);
            state.silences.begin(start);
            // The end of a lease before the load has stopped nothing.
            state.stopping = false;
            let mine: Vec<ProducerId> = state.producers.keys().copied().collect();
            let share = mine.len().div_ceil(self.0.knobs.senders).max(1);
            let thread = |(index, part): (usize, &[ProducerId])| SendingThread {
                pace: schedule(start, tempo, lasts, producers, part, &state),
                producers: part.to_vec(),
                keys: KeyWalk::new(state.preparation().keys),
                rng: self.0.seed.numbered_stream("sender", index as u64),
                changed: Arc::default(),
            };
            let threads: Vec<SendingThread> = mine.chunks(share).enumerate().map(thread).collect();
            state.senders = threads;
            state.senders.len()
        };
        for index in 0..threads {
            self.spawn(self.clone().send(index));
        }
        if let Some(ends) = ends {
            self.spawn(self.clone().keep_ends(ends));
        }
    }

    /// Installs a new schedule.
    fn follow(&self, start: Instant, tempo: &Tempo, lasts: Option<Duration>, producers: u32) {
        let truly = self.0.clock.truly(start);
        let given = madsim::time::TimeHandle::current().elapsed();
        let tempo = tempo.clone();
        self.mine(|mine| mine.schedules.push(Schedule { start, truly, given, tempo, lasts, producers }));
    }

    pub(super) fn set_rate(&self, rate: Rate) {
        let now = self.0.clock.now();
        let state = &mut *self.state();
        let mut before = 0;
        let producers = self.mine(|mine| mine.schedules.last().map_or(0, |it| it.producers));
        let tempo = Tempo::Steady(rate);
        self.follow(now, &tempo, None, producers);
        let new = |sender: &SendingThread| schedule(now, &tempo, None, producers, &sender.producers, state);
        let paces: Vec<_> = state.senders.iter().map(new).collect();
        for (sender, pace) in state.senders.iter_mut().zip(paces) {
            // The debt of the old schedule is dropped, and counted.
            sender.pace.skip_until(now);
            before += sender.pace.skipped();
            sender.pace = pace;
            sender.changed.notify_one();
        }
        state.skipped_before += before;
    }

    pub(super) async fn stop_load(&self, within: Duration) {
        {
            let (now, mut state) = (self.0.clock.now(), self.state());
            // Messages that are due and have not left are dropped, and counted: every message of the schedule is either
            // sent or skipped.
            if !std::mem::replace(&mut state.stopping, true) {
                state.senders.iter_mut().for_each(|sender| _ = sender.pace.skip_until(now));
            }
        }
        let until = self.0.clock.now() + within;
        while self.state().in_flight() > 0 {
            if self.0.clock.now() >= until {
                return self.surrender();
            }
            sleep(LOOK).await;
        }
    }

    /// Messages without a report by now count as failed, whatever is reported later.
    fn surrender(&self) {
        let mut failed = 0;
        for producer in self.state().producers.values_mut() {
            let left = producer.in_flight();
            failed += left;
            producer.acknowledgements.failed += left;
            producer.queue.clear();
            producer.sending = 0;
            producer.surrenders += 1;
        }
        self.0.witness.hit("effect: messages given up at the end of the load");
        self.mine(|mine| mine.counts.failed += failed);
    }

    async fn send(self, index: usize) {
        loop {
            match self.send_due(index) {
                Step::Sleep(nap, changed) => {
                    tokio::select! {
                        biased;
                        () = changed.notified() => {}
                        () = sleep(nap) => {}
                    }
                }
                Step::Blocked(room) => {
                    self.0.witness.hit("effect: sender blocked by a full queue");
                    room.notified().await;
                }
                Step::Over => return,
            }
        }
    }

    /// Puts everything that is due into the queues, as far as there is room.
    fn send_due(&self, index: usize) -> Step {
        let (now, fleet_zero) = (self.0.clock.now(), self.fleet_zero());
        let State { stopping, prepared, producers, senders, departures, measured_from, .. } = &mut *self.state();
        if *stopping {
            return Step::Over;
        }
        let prepared = prepared.as_ref().expect("the load starts after it was prepared");
        let thread = &mut senders[index];
        loop {
            let full = thread.producers.iter().find(|id| producers[*id].queue.len() >= self.0.knobs.queue_max);
            if let Some(full) = full {
                return Step::Blocked(producers[full].room.clone());
            }
            let Some(due) = thread.pace.due(now) else {
                let nap = self.0.clock.true_span(thread.pace.next_at().since(now).min(NAP_MAX));
                return Step::Sleep(nap, thread.changed.clone());
            };
            let id = thread.producers[due.turn];
            let producer = producers.get_mut(&id).expect("threads serve producers that were created");
            let mut payload = prepared.pool[payload::pick(&mut thread.rng, prepared.pool.len())].clone();
            let key = thread.keys.next(now.0).map(|key| prepared.keys.get(key).to_vec());
            let in_flight = producer.sender.stamp(&mut payload, due.intended, now, fleet_zero);
            let stamped = WallTime(fleet_zero.0 + due.intended.0);
            let departures = departures.of(due.intended, *measured_from);
            departures.attempted += 1;
            departures.schedule_error.record(now.0 - due.intended.0);
            let at = madsim::time::TimeHandle::current().elapsed();
            let worker = self.0.worker;
            let mark = self.truth(|truth| {
                let count = truth.worker(worker).sent_by(id);
                let mark = Mark { producer: id, sequence: *count, probe: false };
                *count += 1;
                let schedule = truth.worker(worker).schedules.len() - 1;
                truth.attempted(Attempt { mark, worker, intended: due.intended, sent: now, at, schedule });
                mark
            });
            producer.queue.push_back(Outgoing { mark, in_flight, stamped, key, partition: None, payload });
            producer.filled.notify_one();
        }
    }

    /// Delivers the messages in the queue of one producer, one request at a time.
    pub(super) async fn deliver(self, id: ProducerId) {
        let mut client = Client::new(self.0.broker);
        let mut rng = self.0.seed.numbered_stream("deliver", u64::from(id.0));
        let mut identity = Identity { given: None, next: BTreeMap::new() };
        let (filled, topic) = {
            let state = self.state();
            (state.producers[&id].filled.clone(), state.producers[&id].topic.clone())
        };
        loop {
            if self.state().producers[&id].queue.is_empty() {
                filled.notified().await;
                continue;
            }
            sleep(self.0.knobs.linger).await;
            let (messages, surrenders) = self.take(id);
            let until = self.0.clock.now() + self.0.knobs.deliver_within;
            let partitions = self.partitions(&topic, &mut client, until).await;
            if self.0.knobs.idempotent && identity.given.is_none() {
                identity.given = self.identify(&mut client, None, until).await;
            }
            let ready = partitions.filter(|_| identity.given.is_some() || !self.0.knobs.idempotent);
            let Some(partitions) = ready else {
                self.give_up(id, surrenders, &messages);
                continue;
            };
            let mut batches = self.batches(messages, partitions, &mut identity, &mut rng);
            let whole = self.transmit(&mut client, id, surrenders, &topic, &mut batches, until).await;
            if !whole && self.0.knobs.idempotent {
                // Their outcome is unknown: the numbers continue under another epoch.
                let until = self.0.clock.now() + self.0.knobs.deliver_within;
                identity.given = self.identify(&mut client, identity.given, until).await;
                identity.next.clear();
            }
        }
    }

    fn take(&self, id: ProducerId) -> (Vec<Outgoing>, u64) {
        let mut state = self.state();
        let producer = state.producers.get_mut(&id).expect("it was created");
        let count = producer.queue.len().min(self.0.knobs.batch_max);
        let messages: Vec<Outgoing> = producer.queue.drain(..count).collect();
        producer.sending = messages.iter().filter(|message| !message.mark.probe).count() as u64;
        producer.room.notify_one();
        let surrenders = producer.surrenders;
        // A thread that serves several producers waits at the first full queue it meets, which may be another one.
        state.producers.values().for_each(|producer| producer.room.notify_one());
        (messages, surrenders)
    }

    async fn partitions(&self, topic: &str, client: &mut Client, until: Instant) -> Option<u32> {
        loop {
            let request = Request::Metadata { topics: Some(vec![TopicRef::from(topic)]), create_missing: false };
            let left = until.since(self.0.clock.now()).min(self.0.knobs.request_within);
            match client.call(request, left).await {
                Ok(Response::Metadata(found)) => {
                    let info = found.into_iter().next().and_then(|(_, info)| info.ok())?;
                    return Some(info.partitions.cast_unsigned());
                }
                Ok(_) => return None,
                Err(error) => {
                    self.problem(&error);
                    self.0.witness.hit(format!("client: {}", kind(&error)));
                }
            }
            if self.0.clock.now() >= until {
                return None;
            }
            sleep(BACKOFF).await;
        }
    }

    async fn identify(&self, client: &mut Client, current: Option<(i64, i16)>, until: Instant) -> Option<(i64, i16)> {
        let within = until.since(self.0.clock.now());
        match self.insist(client, Request::InitProducerId { current }, within).await {
            Ok(Response::InitProducerId(given)) => given.ok(),
            _ => None,
        }
    }

    fn batches(
        &self,
        messages: Vec<Outgoing>,
        partitions: u32,
        identity: &mut Identity,
        rng: &mut ChaCha8Rng,
    ) -> BTreeMap<u32, Batch> {
        // Without a key all go to one random partition, as with a sticky partitioner.
        let sticky = rng.random_range(0..partitions);
        let mut by_partition: BTreeMap<u32, Vec<Outgoing>> = BTreeMap::new();
        for message in messages {
            let keyed = |key: &Vec<u8>| u32::try_from(fnv1a(0, key) % u64::from(partitions)).expect("a remainder");
            let partition = message.partition.unwrap_or_else(|| message.key.as_ref().map_or(sticky, keyed));
            by_partition.entry(partition).or_default().push(message);
        }
        let wall_ms = self.0.clock.wall_ms();
        let wall = self.0.clock.wall();
        let batch = |(partition, messages): (u32, Vec<Outgoing>)| {
            let record = |message: &Outgoing| Record {
                mark: message.mark,
                intended_truly: self.0.clock.truly(message.in_flight.intended),
                stamped: message.stamped,
                sent: wall,
                key: message.key.clone(),
                payload: message.payload.clone(),
            };
            let records: Vec<Record> = messages.iter().map(record).collect();
            let count = u32::try_from(records.len()).expect("few");
            let next = identity.next.entry(partition).or_default();
            let stamp = |(id, epoch)| ProducerStamp { id, epoch, sequence: *next };
            let producer = identity.given.map(stamp);
            *next += count.cast_signed();
            let sent = NewBatch { records: count, max_timestamp_ms: wall_ms, producer, bytes: pack(&records) };
            (partition, Batch { messages, sent })
        };
        by_partition.into_iter().map(batch).collect()
    }

    /// Sends until every batch is confirmed or its deadline has passed; returns whether all were.
    async fn transmit(
        &self,
        client: &mut Client,
        id: ProducerId,
        surrenders: u64,
        topic: &str,
        batches: &mut BTreeMap<u32, Batch>,
        until: Instant,
    ) -> bool {
        loop {
            let part = |(partition, batch): (&u32, &Batch)| ProducePartition {
                topic: TopicRef::from(topic),
                partition: partition.cast_signed(),
                batch: batch.sent.clone(),
            };
            let partitions = batches.iter().map(part).collect();
            let timeout = self.0.knobs.request_within;
            let request = Request::Produce { acks: Acks::Stored, timeout, partitions };
            let mut hopeless = false;
            match client.call(request, timeout).await {
                Ok(Response::Produce(results)) => {
                    for produced in results {
                        let partition = produced.partition.cast_unsigned();
                        match produced.result {
                            Ok(Appended { base_offset, .. }) => {
                                let batch = batches.remove(&partition).expect("it was asked for");
                                let place = Place { topic: topic.to_owned(), partition };
                                self.confirm(id, surrenders, &batch.messages, &place, base_offset);
                            }
                            Err(code) => {
                                self.problem(&code);
                                self.0.witness.hit(format!("refused: produce, {code}"));
                                hopeless |= code != ErrorCode::RequestTimedOut;
                            }
                        }
                    }
                }
                Ok(_) => hopeless = true,
                Err(error) => {
                    self.problem(&error);
                    self.0.witness.hit(format!("client: {}", kind(&error)));
                }
            }
            if batches.is_empty() {
                return true;
            }
            if hopeless || !self.0.knobs.retries || self.0.clock.now() >= until {
                for batch in std::mem::take(batches).into_values() {
                    self.give_up(id, surrenders, &batch.messages);
                }
                return false;
            }
            self.0.witness.hit("effect: batch sent again");
            sleep(BACKOFF).await;
        }
    }

    fn confirm(&self, id: ProducerId, surrenders: u64, messages: &[Outgoing], place: &Place, base_offset: i64) {
        let now = self.0.clock.now();
        let mut state = self.state();
        if messages.iter().any(|message| !message.mark.probe)
            && state.producers.get(&id).is_some_and(|producer| producer.surrenders == surrenders)
        {
            state.silences.acked(now);
            self.mine(|mine| mine.acked_at.push(now));
        }
        let producer = state.producers.get_mut(&id).expect("it was created");
        if producer.surrenders != surrenders {
            return;
        }
        if messages.iter().any(|message| message.mark.probe) {
            producer.probed.insert(place.partition);
        }
        for (message, offset) in messages.iter().zip(base_offset..).filter(|(message, _)| !message.mark.probe) {
            let bytes = message.payload.len() as u64;
            producer.confirmations.acked(&mut producer.acknowledgements, now, message.in_flight, bytes);
            producer.sending -= 1;
            let InFlight { intended, sent, .. } = message.in_flight;
            let (from_intended, from_sent) = (now.0 - intended.0, now.0 - sent.0);
            let worker = self.0.worker;
            let ack = Ack { mark: message.mark, worker, place: place.clone(), offset, from_intended, from_sent, bytes };
            self.truth(|truth| truth.acked(ack));
        }
        self.note(format_args!("producer {} confirmed {} at {base_offset}", id.0, messages.len()));
    }

    fn give_up(&self, id: ProducerId, surrenders: u64, messages: &[Outgoing]) {
        let mut state = self.state();
        let producer = state.producers.get_mut(&id).expect("it was created");
        if producer.surrenders != surrenders {
            return;
        }
        let failed = messages.iter().filter(|message| !message.mark.probe).count() as u64;
        producer.acknowledgements.failed += failed;
        producer.sending -= failed;
        self.mine(|mine| mine.counts.failed += failed);
        self.note(format_args!("producer {} gave {failed} messages up", id.0));
        self.0.witness.hit("effect: batch given up");
    }
}
