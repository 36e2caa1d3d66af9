//! Receiving: each consumer is a member of its group (join, sync, heartbeat, commit) and fetches its assigned
//! partitions.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use omb_bench::{
    config::workload::Verify,
    id::ConsumerId,
    load::{header, receiver::Origin},
    protocol::command::ConsumerSpec,
};
use omb_broker::{
    Committer, ErrorCode, FetchPartition, Fetched, Join, OffsetCommit, OffsetSpec, Request, Response, Sync, TopicRef,
};
use omb_machine::{
    encoding,
    time::{Instant, WallTime},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tokio::time::sleep;

use super::{BACKOFF, Membership, SimLoad, kind, record};
use crate::{
    net::{CallError, Client},
    portable::event_loop::Clock as _,
    truth::{Handed, Place},
};

/// A consumer's side of the group protocol.
struct Member {
    spec: ConsumerSpec,
    client: Client,
    rng: ChaCha8Rng,
    member_id: String,
    generation: i32,
    /// By partition, the next offset wanted.
    positions: BTreeMap<u32, i64>,
}

/// Why a member must join again.
enum Expelled {
    /// The group moves on; offsets already read can still be committed.
    Rebalance,
    /// The group has forgotten it.
    Forgotten,
}

impl SimLoad {
    pub(super) async fn consume(self, spec: ConsumerSpec) {
        let client = Client::new(self.0.broker);
        let rng = self.0.seed.numbered_stream("consume", u64::from(spec.id.0));
        let mut member =
            Member { spec, client, rng, member_id: String::new(), generation: -1, positions: BTreeMap::new() };
        sleep(self.0.knobs.join_within.mul_f64(member.rng.random_range(0.0..1.0))).await;
        loop {
            if self.take_part(&mut member).await.is_none() {
                sleep(BACKOFF).await;
                continue;
            }
            if let Some(consumer) = self.state().consumers.get_mut(&member.spec.id) {
                let (group, id) = (member.spec.group.clone(), member.member_id.clone());
                consumer.member = Some(Membership { group, id });
            }
            let expelled = self.read_on(&mut member).await;
            self.see(member.spec.id, 0, None);
            match expelled {
                Expelled::Rebalance => {
                    self.0.witness.hit("group: rebalance");
                    let _ = self.commit(&mut member).await;
                }
                Expelled::Forgotten => {
                    self.0.witness.hit("group: member forgotten");
                    member.member_id.clear();
                }
            }
        }
    }

    async fn ask(&self, member: &mut Member, request: Request, within: Duration) -> Option<Response> {
        match member.client.call(request, within).await {
            Ok(response) => Some(response),
            Err(error) => {
                self.problem(&error);
                self.0.witness.hit(format!("client: {}", kind(&error)));
                None
            }
        }
    }

    /// Enters the group's next generation and learns its positions.
    async fn take_part(&self, member: &mut Member) -> Option<()> {
        let (within, session) = (self.0.knobs.request_within, self.0.knobs.session);
        let joined = loop {
            let join = Join {
                group: member.spec.group.clone(),
                member_id: member.member_id.clone(),
                static_id: None,
                client_id: member.spec.id.to_string(),
                client_host: "client".to_owned(),
                session_timeout: session,
                rebalance_timeout: session,
                protocol_type: "consumer".to_owned(),
                protocols: vec![("by turn".to_owned(), Bytes::new())],
                topics: vec![member.spec.topic.clone()],
                id_required: true,
            };
            // The group may wait for its slowest member.
            match self.ask(member, Request::JoinGroup(join), session + within).await? {
                Response::JoinGroup(Ok(joined)) => break joined,
                Response::JoinGroup(Err(refused)) if refused.code == ErrorCode::MemberIdRequired => {
                    member.member_id = refused.member_id;
                }
                Response::JoinGroup(Err(refused)) => {
                    self.0.witness.hit(format!("refused: join, {}", refused.code));
                    if refused.code == ErrorCode::UnknownMemberId {
                        member.member_id.clear();
                    }
                    return None;
                }
                _ => return None,
            }
        };
        member.member_id.clone_from(&joined.member_id);
        member.generation = joined.generation;
        self.see(member.spec.id, joined.generation, None);
        let assignments = if joined.leader == joined.member_id {
            let members: Vec<String> = joined.members.into_iter().map(|(id, ..)| id).collect();
            self.assign(member, &members).await?
        } else {
            Vec::new()
        };
        let sync = Sync {
            group: member.spec.group.clone(),
            member_id: member.member_id.clone(),
            static_id: None,
            generation: member.generation,
            protocol: Some(("consumer".to_owned(), joined.protocol)),
            assignments,
        };
        let share = match self.ask(member, Request::SyncGroup(sync), session + within).await? {
            Response::SyncGroup(Ok(share)) => share,
            Response::SyncGroup(Err(code)) => {
                self.0.witness.hit(format!("refused: sync, {code}"));
                if code == ErrorCode::UnknownMemberId {
                    member.member_id.clear();
                }
                return None;
            }
            _ => return None,
        };
        let share: Vec<u32> = encoding::decode(&share).ok()?;
        let wanted = share.iter().map(|partition| (member.spec.topic.clone(), partition.cast_signed())).collect();
        let request = Request::FetchOffsets { group: member.spec.group.clone(), partitions: Some(wanted) };
        let Response::FetchOffsets(found) = self.ask(member, request, within).await? else { return None };
        member.positions = found
            .into_iter()
            .map(|(_, partition, committed)| (partition.cast_unsigned(), committed.map_or(0, |it| it.offset)))
            .collect();
        self.see(member.spec.id, member.generation, Some(member.positions.len()));
        self.note(format_args!(
            "consumer {} has {:?} in generation {}",
            member.spec.id.0, member.positions, member.generation
        ));
        Some(())
    }

    /// A consumer learns of a generation of its group, with or without its share.
    fn see(&self, id: ConsumerId, generation: i32, share: Option<usize>) {
        let now = self.0.clock.now();
        let state = &mut *self.state();
        let Some(consumer) = state.consumers.get_mut(&id) else { return };
        consumer.generation = generation;
        consumer.assigned = share;
        let Some(subscription) = state.subscriptions.get_mut(&consumer.subscription) else { return };
        if generation > subscription.generation {
            subscription.generation = generation;
            subscription.rebalances += 1;
            subscription.last = Some(now);
            if state.loaded.is_some() {
                self.0.witness.hit("effect: group rebalanced under load");
            }
        }
    }

    /// The leader distributes the partitions to the members in turn.
    async fn assign(&self, member: &mut Member, members: &[String]) -> Option<Vec<(String, Bytes)>> {
        let topics = Some(vec![TopicRef::from(member.spec.topic.as_str())]);
        let request = Request::Metadata { topics, create_missing: false };
        let within = self.0.knobs.request_within;
        let Response::Metadata(found) = self.ask(member, request, within).await? else { return None };
        let partitions = found.into_iter().next()?.1.ok()?.partitions.cast_unsigned();
        let share = |(nth, id): (usize, &String)| {
            let mine: Vec<u32> =
                (0..partitions).filter(|partition| *partition as usize % members.len() == nth).collect();
            (id.clone(), Bytes::from(encoding::encode(&mine)))
        };
        Some(members.iter().enumerate().map(share).collect())
    }

    fn committer(member: &Member) -> Committer {
        Committer { member_id: member.member_id.clone(), static_id: None, generation: member.generation }
    }

    /// Fetches, sends heartbeats, and commits, until it must join again.
    async fn read_on(&self, member: &mut Member) -> Expelled {
        let heartbeat_every = self.0.knobs.session / 3;
        let (mut heard, mut committed) = (Instant::ZERO, self.0.clock.now());
        loop {
            if self.state().shaken == Some(Some(member.spec.id)) {
                self.state().shaken = Some(None);
                self.0.witness.hit("group: a member is lost while probes are on their way");
                return Expelled::Forgotten;
            }
            if self.grows_restless() {
                self.0.witness.hit("group: a member is lost under load");
                return Expelled::Forgotten;
            }
            if self.0.clock.now().since(heard) >= heartbeat_every {
                heard = self.0.clock.now();
                let request = Request::Heartbeat { group: member.spec.group.clone(), member: Self::committer(member) };
                if let Some(Response::Heartbeat(Err(code))) =
                    self.ask(member, request, self.0.knobs.request_within).await
                {
                    return expelled(code);
                }
            }
            if self.0.clock.now().since(committed) >= self.0.knobs.commit_every {
                committed = self.0.clock.now();
                if let Err(expelled) = self.commit(member).await {
                    return expelled;
                }
            }
            if self.state().paused || member.positions.is_empty() {
                sleep(BACKOFF).await;
                continue;
            }
            self.fetch(member).await;
        }
    }

    /// Whether it is time for the calling consumer to lose its membership.
    fn grows_restless(&self) -> bool {
        let (now, state) = (self.0.clock.now(), &mut *self.state());
        let due = self.0.knobs.restless.zip(state.loaded).is_some_and(|(after, began)| now >= began + after);
        due && !std::mem::replace(&mut state.restless, true)
    }

    async fn commit(&self, member: &mut Member) -> Result<(), Expelled> {
        let offset = |(partition, offset): (&u32, &i64)| OffsetCommit {
            topic: member.spec.topic.clone(),
            partition: partition.cast_signed(),
            offset: *offset,
            leader_epoch: -1,
            metadata: String::new(),
        };
        let request = Request::CommitOffsets {
            group: member.spec.group.clone(),
            committer: Self::committer(member),
            offsets: member.positions.iter().map(offset).collect(),
        };
        match self.ask(member, request, self.0.knobs.request_within).await {
            Some(Response::CommitOffsets(results)) => {
                match results.into_iter().find_map(|(_, _, result)| result.err()) {
                    // The topic is deleted while consumers are still there.
                    None | Some(ErrorCode::UnknownTopicOrPartition) => Ok(()),
                    Some(code) => {
                        self.0.witness.hit(format!("refused: commit, {code}"));
                        Err(expelled(code))
                    }
                }
            }
            _ => Ok(()),
        }
    }

    async fn fetch(&self, member: &mut Member) {
        let partition = |(partition, offset): (&u32, &i64)| FetchPartition {
            topic: TopicRef::from(member.spec.topic.as_str()),
            partition: partition.cast_signed(),
            offset: *offset,
            max_bytes: self.0.knobs.fetch_bytes,
        };
        let partitions = member.positions.iter().map(partition).collect();
        let (max_wait, max_bytes) = (self.0.knobs.fetch_wait, self.0.knobs.fetch_bytes);
        let request = Request::Fetch { max_wait, min_bytes: 1, max_bytes, partitions };
        let within = max_wait + self.0.knobs.request_within;
        let fetched = match member.client.call(request, within).await {
            Ok(Response::Fetch(fetched)) => fetched,
            Ok(_) => return,
            Err(error) => {
                self.problem(&error);
                self.0.witness.hit(format!("client: {}", kind(&error)));
                if !matches!(error, CallError::TimedOut) {
                    sleep(BACKOFF).await;
                }
                return;
            }
        };
        let mut troubled = false;
        for part in fetched {
            match &part.result {
                Ok(_) => self.receive(member, &part),
                Err(ErrorCode::OffsetOutOfRange) => {
                    self.0.witness.hit("refused: fetch, offset out of range");
                    self.reset(member, part.partition.cast_unsigned()).await;
                }
                Err(_) => troubled = true,
            }
        }
        if troubled {
            sleep(BACKOFF).await;
        }
    }

    /// The requested records are gone: continues at the first record that is stored.
    async fn reset(&self, member: &mut Member, partition: u32) {
        let wanted = (TopicRef::from(member.spec.topic.as_str()), partition.cast_signed(), OffsetSpec::Earliest);
        let request = Request::ListOffsets { partitions: vec![wanted] };
        if let Some(Response::ListOffsets(found)) = self.ask(member, request, self.0.knobs.request_within).await
            && let Some((_, _, Ok(earliest))) = found.into_iter().next()
        {
            member.positions.insert(partition, earliest.offset);
        }
    }

    fn receive(&self, member: &mut Member, fetched: &Fetched) {
        let Ok(batches) = &fetched.result else { return };
        let partition = fetched.partition.cast_unsigned();
        let Some(position) = member.positions.get_mut(&partition) else { return };
        let now = self.0.clock.now();
        let (wall, truly) = (WallTime(self.fleet_zero().0 + now.0), self.0.clock.truly(now));
        let damage = self.0.weather.now().broker.damage;
        let state = &mut *self.state();
        let full = state.preparation().verify == Verify::Full;
        let Some(consumer) = state.consumers.get_mut(&member.spec.id) else { return };
        let mut count = 0;
        for batch in batches {
            for (mut record, offset) in record::unpack(&batch.bytes).into_iter().zip(batch.base_offset..) {
                if offset < *position {
                    continue;
                }
                *position = offset + 1;
                count += 1;
                let bare = record.payload.len() < header::LEN;
                let damaged = !record.mark.probe && !bare && damage > 0.0 && member.rng.random_bool(damage);
                if damaged {
                    // After the magic, without which it would be a foreign message; and only where the checksum
                    // reaches.
                    let end = if full { record.payload.len() } else { header::LEN };
                    record.payload[member.rng.random_range(2..end)] ^= 1 << member.rng.random_range(0..8_u8);
                    self.0.witness.hit("effect: payload damaged");
                }
                let origin = Origin { now: wall, partition, offset, sent: Some(record.sent) };
                consumer.receiver.on_message(&mut consumer.arrivals, origin, &record.payload);
                let since = |stamp: WallTime| wall.signed_since(stamp);
                let handed = Handed {
                    subscription: member.spec.subscription,
                    consumer: member.spec.id,
                    worker: self.0.worker,
                    mark: record.mark,
                    place: Place { topic: member.spec.topic.clone(), partition },
                    offset,
                    bytes: record.payload.len() as u64,
                    damaged,
                    bare,
                    from_intended: match (damaged, bare) {
                        (true, _) => None,
                        // Between two clocks a bare timestamp says nothing.
                        (false, true) => Some(since(record.sent)).filter(|_| member.spec.whole),
                        (false, false) => Some(since(record.stamped)),
                    },
                    truly: truly - record.intended_truly,
                };
                self.truth(|truth| truth.handed(handed));
            }
        }
        if let Some(subscription) = state.subscriptions.get_mut(&consumer.subscription) {
            subscription.ledger.enter(&mut consumer.receiver);
        }
        if count > 0 {
            self.note(format_args!("consumer {} received {count} of {partition} up to {position}", member.spec.id.0));
        }
    }
}

fn expelled(code: ErrorCode) -> Expelled {
    match code {
        ErrorCode::RebalanceInProgress => Expelled::Rebalance,
        _ => Expelled::Forgotten,
    }
}
