//! Consumer groups: their members, generation, leader and committed offsets.
//!
//! ```text
//!            join                     all joined, or time is up               leader's sync
//!   Empty ─────────▶ Joining ──────────────────────────────────▶ Syncing ─────────────────▶ Stable
//!     ▲                 ▲                                           │                          │
//!     │ none is left    └───────────────────────────────────────────┴──────────────────────────┘
//!     └─ (from any)           someone joins anew, leaves, or falls silent
//! ```
//!
//! Source: the classic consumer group protocol of Kafka, with member ids required before a join counts (KIP-394) and
//! static members (KIP-345). A member that waits here for the reply to its join or sync is alive as long as its
//! connection is; any other is dead once it has been silent for its session timeout.
//!
//! A group without members stays, with its offsets and its generation, until it is deleted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    Caller, ConnId,
    message::{
        Committed, Committer, ErrorCode, GroupInfo, GroupState, Join, JoinRefused, Joined, MemberInfo, OffsetCommit,
        PartitionResults, Response, Sync,
    },
};
use omb_machine::{Wake, time::Instant};

/// Longest session timeout that is accepted, as Kafka's `group.max.session.timeout.ms`.
const SESSION_TIMEOUT_MAX: Duration = Duration::from_secs(30 * 60);

/// Responses of the groups, and their receivers.
pub(super) type Replies = Vec<(Caller, Response)>;

/// All groups.
#[derive(Debug)]
pub(super) struct Groups {
    by_name: BTreeMap<String, Group>,
    deadlines: BTreeSet<(Instant, String)>,
    initial_delay: Duration,
    ids: MemberIds,
}

#[derive(Debug)]
struct MemberIds {
    seed: u64,
    drawn: u64,
}

impl MemberIds {
    fn draw(&mut self, client: &str) -> String {
        self.drawn += 1;
        format!("{client}-{:016x}-{:08x}", self.seed, self.drawn)
    }
}

#[derive(Debug, Default)]
struct Group {
    phase: Phase,
    generation: i32,
    /// When this generation began.
    begun: Instant,
    protocol_type: String,
    protocol: String,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    statics: BTreeMap<String, String>,
    /// Member ids assigned but not used yet, with the instant they lapse.
    promised: BTreeMap<String, Instant>,
    offsets: BTreeMap<(String, i32), (Committed, Instant)>,
    /// The instant under which the group is listed in [`Groups::deadlines`].
    listed: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Empty,
    Joining {
        /// Does not end before this: a new group waits a little for its other members.
        hold: Option<Instant>,
        /// Ends by then.
        until: Instant,
    },
    Syncing {
        until: Instant,
    },
    Stable,
}

#[derive(Debug)]
struct Member {
    static_id: Option<String>,
    client_id: String,
    client_host: String,
    session_timeout: Duration,
    rebalance_timeout: Duration,
    protocols: Vec<(String, Bytes)>,
    topics: Vec<String>,
    assignment: Bytes,
    /// When it counts as dead, unless it waits for a reply.
    silent_until: Instant,
    joining: Option<Caller>,
    syncing: Option<Caller>,
}

impl Member {
    fn new(now: Instant, join: &Join) -> Self {
        let mut member = Self {
            static_id: join.static_id.clone(),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout: join.session_timeout,
            rebalance_timeout: join.rebalance_timeout,
            protocols: Vec::new(),
            topics: Vec::new(),
            assignment: Bytes::new(),
            silent_until: now,
            joining: None,
            syncing: None,
        };
        member.update(now, join);
        member
    }

    fn update(&mut self, now: Instant, join: &Join) {
        self.client_id.clone_from(&join.client_id);
        self.client_host.clone_from(&join.client_host);
        self.session_timeout = join.session_timeout;
        self.rebalance_timeout = join.rebalance_timeout;
        self.protocols.clone_from(&join.protocols);
        self.topics.clone_from(&join.topics);
        self.heard(now);
    }

    fn heard(&mut self, now: Instant) {
        self.silent_until = now + self.session_timeout;
    }

    fn waits(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, data)| data.clone()).unwrap_or_default()
    }
}

/// What retention needs to know of a group with members.
pub(super) struct Living<'a> {
    group: &'a Group,
    /// When its generation began.
    pub(super) begun: Instant,
}

impl Living<'_> {
    /// The topics that its members subscribe to, some perhaps more than once.
    pub(super) fn topics(&self) -> impl Iterator<Item = &str> {
        self.group.members.values().flat_map(|member| &member.topics).map(String::as_str)
    }

    /// What it has committed, and when.
    pub(super) fn offsets(&self) -> impl Iterator<Item = (&str, i32, i64, Instant)> {
        self.group.offsets.iter().map(|((topic, partition), (it, at))| (topic.as_str(), *partition, it.offset, *at))
    }
}

impl Groups {
    pub(super) fn new(seed: u64, initial_delay: Duration) -> Self {
        let ids = MemberIds { seed, drawn: 0 };
        Self { by_name: BTreeMap::new(), deadlines: BTreeSet::new(), initial_delay, ids }
    }

    pub(super) fn join(&mut self, now: Instant, caller: Caller, join: Join, replies: &mut Replies) {
        let refuse = |code| Response::JoinGroup(Err(JoinRefused { code, member_id: join.member_id.clone() }));
        if join.group.is_empty() {
            return replies.push((caller, refuse(ErrorCode::InvalidGroupId)));
        }
        if join.session_timeout.is_zero() || join.session_timeout > SESSION_TIMEOUT_MAX {
            return replies.push((caller, refuse(ErrorCode::InvalidSessionTimeout)));
        }
        let name = join.group.clone();
        // A member of a group that never existed (or is deleted) must not create it.
        if !self.by_name.contains_key(&name) && !join.member_id.is_empty() {
            return replies.push((caller, refuse(ErrorCode::UnknownMemberId)));
        }
        self.by_name.entry(name.clone()).or_default();
        let initial_delay = self.initial_delay;
        self.with(&name, |group, ids| group.join(now, caller, join, ids, initial_delay, replies));
    }

    pub(super) fn sync(&mut self, now: Instant, caller: Caller, sync: Sync, replies: &mut Replies) {
        let unknown = Response::SyncGroup(Err(ErrorCode::UnknownMemberId));
        if self.with(&sync.group.clone(), |group, _| group.sync(now, caller, sync, replies)).is_none() {
            replies.push((caller, unknown));
        }
    }

    pub(super) fn heartbeat(&mut self, now: Instant, group: &str, committer: &Committer) -> Result<(), ErrorCode> {
        self.with(group, |group, _| {
            group.known(committer)?.heard(now);
            match group.phase {
                Phase::Joining { .. } => Err(ErrorCode::RebalanceInProgress),
                _ => Ok(()),
            }
        })
        .unwrap_or(Err(ErrorCode::UnknownMemberId))
    }

    pub(super) fn leave(
        &mut self,
        now: Instant,
        group: &str,
        members: Vec<(String, Option<String>)>,
        replies: &mut Replies,
    ) -> Vec<(String, Option<String>, Result<(), ErrorCode>)> {
        let mut results = Vec::new();
        for (id, static_id) in members {
            let left = self.with(group, |group, _| group.leave(now, &id, static_id.as_deref(), replies));
            results.push((id, static_id, left.unwrap_or(Err(ErrorCode::UnknownMemberId))));
        }
        results
    }

    /// Remembers offsets of partitions that exist.
    pub(super) fn commit(
        &mut self,
        now: Instant,
        group: &str,
        committer: &Committer,
        offsets: Vec<OffsetCommit>,
    ) -> Result<(), ErrorCode> {
        if group.is_empty() {
            return Err(ErrorCode::InvalidGroupId);
        }
        if !self.by_name.contains_key(group) {
            if committer.generation >= 0 {
                return Err(ErrorCode::IllegalGeneration);
            }
            self.by_name.insert(group.to_owned(), Group::default());
        }
        self.with(group, |group, _| {
            let outsider = committer.generation < 0 && committer.member_id.is_empty();
            if !(outsider && group.members.is_empty()) {
                group.known(committer)?.heard(now);
                if matches!(group.phase, Phase::Syncing { .. }) {
                    return Err(ErrorCode::RebalanceInProgress);
                }
            }
            for OffsetCommit { topic, partition, offset, leader_epoch, metadata } in offsets {
                let committed = Committed { offset, leader_epoch, metadata };
                group.offsets.insert((topic, partition), (committed, now));
            }
            Ok(())
        })
        .expect("the group was just made")
    }

    pub(super) fn offsets(
        &self,
        group: &str,
        partitions: Option<Vec<(String, i32)>>,
    ) -> Vec<(String, i32, Option<Committed>)> {
        let known = self.by_name.get(group).map(|group| &group.offsets);
        match partitions {
            Some(partitions) => {
                let find = |key: &(String, i32)| known?.get(key).map(|(committed, _)| committed.clone());
                let found = |key: (String, i32)| {
                    let committed = find(&key);
                    (key.0, key.1, committed)
                };
                partitions.into_iter().map(found).collect()
            }
            None => known
                .into_iter()
                .flatten()
                .map(|((topic, partition), (it, _))| (topic.clone(), *partition, Some(it.clone())))
                .collect(),
        }
    }

    pub(super) fn delete_offsets(
        &mut self,
        group: &str,
        partitions: Vec<(String, i32)>,
    ) -> Result<PartitionResults, ErrorCode> {
        let group = self.by_name.get_mut(group).ok_or(ErrorCode::GroupIdNotFound)?;
        let mut results = Vec::new();
        for (topic, partition) in partitions {
            let subscribed = group.members.values().any(|member| member.topics.contains(&topic));
            let result = if subscribed { Err(ErrorCode::GroupSubscribedToTopic) } else { Ok(()) };
            if result.is_ok() {
                group.offsets.remove(&(topic.clone(), partition));
            }
            results.push((topic, partition, result));
        }
        Ok(results)
    }

    pub(super) fn delete(&mut self, name: &str) -> Result<(), ErrorCode> {
        let group = self.by_name.get(name).ok_or(ErrorCode::GroupIdNotFound)?;
        if !group.members.is_empty() {
            return Err(ErrorCode::NonEmptyGroup);
        }
        if let Some(at) = group.listed {
            self.deadlines.remove(&(at, name.to_owned()));
        }
        self.by_name.remove(name);
        Ok(())
    }

    /// Forgets what was committed for a topic that is gone.
    pub(super) fn topic_deleted(&mut self, topic: &str) {
        for group in self.by_name.values_mut() {
            group.offsets.retain(|(name, _), _| name != topic);
        }
    }

    /// No request waits on this connection any more; its members have their session timeout to come back.
    pub(super) fn closed(&mut self, now: Instant, conn: ConnId) {
        let on = |caller: &mut Caller| caller.conn == conn;
        let mut touched = Vec::new();
        for (name, group) in &mut self.by_name {
            for member in group.members.values_mut() {
                if member.joining.take_if(on).is_some() | member.syncing.take_if(on).is_some() {
                    member.heard(now);
                    touched.push(name.clone());
                }
            }
        }
        for name in touched {
            self.with(&name, |_, _| ());
        }
    }

    pub(super) fn expire(&mut self, now: Instant, replies: &mut Replies) {
        while let Some((_, name)) = self.deadlines.first().filter(|(at, _)| *at <= now).cloned() {
            self.with(&name, |group, _| group.expire(now, replies));
        }
    }

    pub(super) fn wake(&self) -> Option<Wake> {
        self.deadlines.first().map(|&(at, _)| Wake { at, why: "group member or rebalance" })
    }

    pub(super) fn info(&self, name: &str) -> Option<GroupInfo> {
        self.by_name.get(name).map(|group| group.info(name))
    }

    pub(super) fn infos(&self) -> impl Iterator<Item = GroupInfo> {
        self.by_name.iter().map(|(name, group)| group.info(name))
    }

    pub(super) fn living(&self) -> impl Iterator<Item = Living<'_>> {
        let alive = self.by_name.values().filter(|group| !group.members.is_empty());
        alive.map(|group| Living { group, begun: group.begun })
    }

    /// Runs `work` on a group, and records when the group needs to be woken next.
    fn with<T>(&mut self, name: &str, work: impl FnOnce(&mut Group, &mut MemberIds) -> T) -> Option<T> {
        let group = self.by_name.get_mut(name)?;
        let done = work(group, &mut self.ids);
        let deadline = group.deadline();
        if deadline != group.listed {
            if let Some(at) = group.listed {
                self.deadlines.remove(&(at, name.to_owned()));
            }
            if let Some(at) = deadline {
                self.deadlines.insert((at, name.to_owned()));
            }
            group.listed = deadline;
        }
        Some(done)
    }
}

impl Group {
    fn join(
        &mut self,
        now: Instant,
        caller: Caller,
        mut join: Join,
        ids: &mut MemberIds,
        initial_delay: Duration,
        replies: &mut Replies,
    ) {
        let refuse =
            |code, member_id: &str| Response::JoinGroup(Err(JoinRefused { code, member_id: member_id.to_owned() }));
        if !self.agrees(&join) {
            return replies.push((caller, refuse(ErrorCode::InconsistentGroupProtocol, &join.member_id)));
        }
        let holder = join.static_id.as_ref().and_then(|it| self.statics.get(it)).cloned();
        if join.member_id.is_empty() {
            let id = ids.draw(&join.client_id);
            match (holder, &join.static_id) {
                (Some(old), _) => return self.replace(now, caller, &old, id, &join, replies),
                (None, None) if join.id_required => {
                    self.promised.insert(id.clone(), now + join.session_timeout);
                    return replies.push((caller, refuse(ErrorCode::MemberIdRequired, &id)));
                }
                (None, _) => join.member_id = id,
            }
        } else if holder.is_some_and(|holder| holder != join.member_id) {
            return replies.push((caller, refuse(ErrorCode::FencedInstanceId, &join.member_id)));
        } else if let Some(member) = self.members.get_mut(&join.member_id) {
            let same = member.protocols == join.protocols;
            member.update(now, &join);
            // The older of two joins was lost with its connection, or is a duplicate request.
            if let Some(older) = member.joining.take() {
                replies.push((older, refuse(ErrorCode::RebalanceInProgress, &join.member_id)));
            }
            // It no longer waits for its assignment in the old generation either.
            if let Some(older) = member.syncing.take() {
                replies.push((older, Response::SyncGroup(Err(ErrorCode::RebalanceInProgress))));
            }
            let leads = self.leader.as_ref() == Some(&join.member_id);
            match self.phase {
                // It missed the reply, or asks again.
                Phase::Syncing { .. } if same => return replies.push((caller, self.joined(&join.member_id))),
                Phase::Stable if same && !leads => return replies.push((caller, self.joined(&join.member_id))),
                _ => {}
            }
            member_mut(&mut self.members, &join.member_id).joining = Some(caller);
            return self.rebalance(now, Duration::ZERO, replies);
        } else if self.promised.remove(&join.member_id).is_none() {
            return replies.push((caller, refuse(ErrorCode::UnknownMemberId, &join.member_id)));
        }
        // A new member.
        let mut member = Member::new(now, &join);
        member.joining = Some(caller);
        if let Some(static_id) = &join.static_id {
            self.statics.insert(static_id.clone(), join.member_id.clone());
        }
        if self.members.is_empty() {
            self.protocol_type = join.protocol_type;
        }
        self.members.insert(join.member_id, member);
        let delay = if self.phase == Phase::Empty { initial_delay } else { Duration::ZERO };
        if let Phase::Joining { hold: Some(hold), until } = &mut self.phase {
            *hold = (now + initial_delay).min(*until);
        }
        self.rebalance(now, delay, replies);
    }

    /// Whether all members, this one included, would still have a protocol in common.
    fn agrees(&self, join: &Join) -> bool {
        let mut others = self.members.iter().filter(|(id, _)| **id != join.member_id).map(|(_, it)| it).peekable();
        let known = |member: &Member, name: &str| member.protocols.iter().any(|(it, _)| it == name);
        if join.protocol_type.is_empty() || (others.peek().is_some() && join.protocol_type != self.protocol_type) {
            return false;
        }
        let others: Vec<&Member> = others.collect();
        join.protocols.iter().any(|(name, _)| others.iter().all(|member| known(member, name)))
    }

    /// A static member came back under a new id, which replaces the old one.
    fn replace(&mut self, now: Instant, caller: Caller, old: &str, new: String, join: &Join, replies: &mut Replies) {
        let mut member = self.members.remove(old).expect("a static id belongs to a member");
        for (waiting, response) in [
            (
                member.joining.take(),
                Response::JoinGroup(Err(JoinRefused { code: ErrorCode::FencedInstanceId, member_id: old.to_owned() })),
            ),
            (member.syncing.take(), Response::SyncGroup(Err(ErrorCode::FencedInstanceId))),
        ] {
            replies.extend(waiting.map(|waiting| (waiting, response)));
        }
        let same = member.protocols == join.protocols;
        member.update(now, join);
        let led = self.leader.as_deref() == Some(old);
        if led {
            self.leader = Some(new.clone());
        }
        let static_id = join.static_id.clone().expect("only static members are replaced");
        self.statics.insert(static_id, new.clone());
        self.members.insert(new.clone(), member);
        if self.phase == Phase::Stable && same {
            // Nothing changes for the others. Given the old leader's id, it asks for its assignment instead of making
            // one.
            let mut response = self.joined(&new);
            if let (true, Response::JoinGroup(Ok(joined))) = (led, &mut response) {
                old.clone_into(&mut joined.leader);
                joined.members.clear();
            }
            return replies.push((caller, response));
        }
        member_mut(&mut self.members, &new).joining = Some(caller);
        self.rebalance(now, Duration::ZERO, replies);
    }

    fn sync(&mut self, now: Instant, caller: Caller, sync: Sync, replies: &mut Replies) {
        let committer = Committer { member_id: sync.member_id, static_id: sync.static_id, generation: sync.generation };
        let member = match self.known(&committer) {
            Ok(member) => member,
            Err(code) => return replies.push((caller, Response::SyncGroup(Err(code)))),
        };
        member.heard(now);
        let assignment = member.assignment.clone();
        if sync.protocol.is_some_and(|(class, name)| class != self.protocol_type || name != self.protocol) {
            return replies.push((caller, Response::SyncGroup(Err(ErrorCode::InconsistentGroupProtocol))));
        }
        match self.phase {
            Phase::Empty | Phase::Joining { .. } => {
                replies.push((caller, Response::SyncGroup(Err(ErrorCode::RebalanceInProgress))));
            }
            Phase::Stable => replies.push((caller, Response::SyncGroup(Ok(assignment)))),
            Phase::Syncing { .. } => {
                let member = member_mut(&mut self.members, &committer.member_id);
                let older = member.syncing.replace(caller);
                replies.extend(older.map(|older| (older, Response::SyncGroup(Err(ErrorCode::RebalanceInProgress)))));
                if self.leader.as_ref() == Some(&committer.member_id) {
                    self.assign(now, sync.assignments, replies);
                }
            }
        }
    }

    /// The leader has sent the assignments: every member that waits gets its own.
    fn assign(&mut self, now: Instant, assignments: Vec<(String, Bytes)>, replies: &mut Replies) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        for member in self.members.values_mut() {
            if let Some(waiting) = member.syncing.take() {
                member.heard(now);
                replies.push((waiting, Response::SyncGroup(Ok(member.assignment.clone()))));
            }
        }
        self.phase = Phase::Stable;
    }

    fn leave(
        &mut self,
        now: Instant,
        id: &str,
        static_id: Option<&str>,
        replies: &mut Replies,
    ) -> Result<(), ErrorCode> {
        if self.promised.remove(id).is_some() {
            self.try_complete(now, replies);
            return Ok(());
        }
        let id = match static_id {
            Some(static_id) => {
                let holder = self.statics.get(static_id).ok_or(ErrorCode::UnknownMemberId)?;
                if !id.is_empty() && holder != id {
                    return Err(ErrorCode::FencedInstanceId);
                }
                holder.clone()
            }
            None => id.to_owned(),
        };
        if !self.members.contains_key(&id) {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.remove(&id, replies);
        self.shrunk(now, replies);
        Ok(())
    }

    fn expire(&mut self, now: Instant, replies: &mut Replies) {
        self.promised.retain(|_, lapses| *lapses > now);
        let dead = |member: &Member| !member.waits() && member.silent_until <= now;
        let dead: Vec<String> =
            self.members.iter().filter(|(_, member)| dead(member)).map(|(id, _)| id.clone()).collect();
        for id in &dead {
            self.remove(id, replies);
        }
        if !dead.is_empty() {
            self.shrunk(now, replies);
        }
        match self.phase {
            Phase::Joining { until, .. } if until <= now => self.begin_generation(now, replies),
            Phase::Joining { .. } => self.try_complete(now, replies),
            Phase::Syncing { until } if until <= now => {
                // A member that has not asked for its assignment by now will not. Without the leader there is none.
                let late = self.members.iter().filter(|(_, member)| member.syncing.is_none());
                let late: Vec<String> = late.map(|(id, _)| id.clone()).collect();
                for id in &late {
                    self.remove(id, replies);
                }
                self.shrunk(now, replies);
            }
            _ => {}
        }
    }

    /// When [`Self::expire`] has something to do.
    fn deadline(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Joining { hold: Some(hold), until } if hold < until && self.all_joined() => Some(hold),
            Phase::Joining { until, .. } | Phase::Syncing { until } => Some(until),
            Phase::Empty | Phase::Stable => None,
        };
        let members = self.members.values().filter(|member| !member.waits()).map(|member| member.silent_until);
        members.chain(self.promised.values().copied()).chain(phase).min()
    }

    fn remove(&mut self, id: &str, replies: &mut Replies) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(static_id) = &member.static_id {
            self.statics.remove(static_id);
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = None;
        }
        let unknown = JoinRefused { code: ErrorCode::UnknownMemberId, member_id: id.to_owned() };
        replies.extend(member.joining.map(|caller| (caller, Response::JoinGroup(Err(unknown)))));
        let unknown = Response::SyncGroup(Err(ErrorCode::UnknownMemberId));
        replies.extend(member.syncing.map(|caller| (caller, unknown)));
    }

    /// A member is gone: the others take over its share.
    fn shrunk(&mut self, now: Instant, replies: &mut Replies) {
        match self.phase {
            _ if self.members.is_empty() => self.become_empty(now),
            Phase::Empty => {}
            Phase::Joining { .. } => self.try_complete(now, replies),
            Phase::Syncing { .. } | Phase::Stable => self.rebalance(now, Duration::ZERO, replies),
        }
    }

    fn become_empty(&mut self, now: Instant) {
        self.phase = Phase::Empty;
        self.generation += 1;
        self.begun = now;
        self.leader = None;
        self.protocol.clear();
    }

    /// Calls every member to join anew, unless that is in progress, and continues if all have.
    fn rebalance(&mut self, now: Instant, delay: Duration, replies: &mut Replies) {
        if !matches!(self.phase, Phase::Joining { .. }) {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
                if let Some(waiting) = member.syncing.take() {
                    member.heard(now);
                    replies.push((waiting, Response::SyncGroup(Err(ErrorCode::RebalanceInProgress))));
                }
            }
            let until = now + self.patience().max(delay);
            let hold = (!delay.is_zero()).then(|| now + delay);
            self.phase = Phase::Joining { hold, until };
        }
        self.try_complete(now, replies);
    }

    /// How long the slowest member may take.
    fn patience(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    fn all_joined(&self) -> bool {
        self.promised.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    fn try_complete(&mut self, now: Instant, replies: &mut Replies) {
        if let Phase::Joining { hold, .. } = self.phase
            && hold.is_none_or(|hold| hold <= now)
            && self.all_joined()
        {
            self.begin_generation(now, replies);
        }
    }

    /// The members that have joined make up the next generation; static members stay in it although they are silent.
    fn begin_generation(&mut self, now: Instant, replies: &mut Replies) {
        let late = self.members.iter().filter(|(_, it)| it.joining.is_none() && it.static_id.is_none());
        let late: Vec<String> = late.map(|(id, _)| id.clone()).collect();
        for id in &late {
            self.remove(id, replies);
        }
        if self.members.is_empty() {
            return self.become_empty(now);
        }
        let joined = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        let Some(leader) =
            self.leader.take().filter(joined).or_else(|| self.members.keys().find(|it| joined(it)).cloned())
        else {
            // Static members only, and all silent: their session timeouts decide.
            self.phase = Phase::Joining { hold: None, until: now + self.patience().max(Duration::from_secs(1)) };
            return;
        };
        self.leader = Some(leader);
        self.generation += 1;
        self.begun = now;
        self.protocol = self.vote();
        self.phase = Phase::Syncing { until: now + self.patience().max(Duration::from_secs(1)) };
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let member = member_mut(&mut self.members, &id);
            if let Some(caller) = member.joining.take() {
                member.heard(now);
                replies.push((caller, self.joined(&id)));
            }
        }
    }

    /// Of the protocols that all support, the one most members prefer; on a tie the first by name.
    fn vote(&self) -> String {
        let all_know = |name: &str| self.members.values().all(|it| it.protocols.iter().any(|(known, _)| known == name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let preferred = member.protocols.iter().find(|(name, _)| all_know(name));
            *votes.entry(preferred.map(|(name, _)| name.as_str()).unwrap_or_default()).or_default() += 1;
        }
        let most = votes.values().max().copied().unwrap_or_default();
        let winner = votes.into_iter().find(|&(_, count)| count == most);
        winner.map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    /// This generation, as sent to one member.
    fn joined(&self, id: &str) -> Response {
        let leads = self.leader.as_deref() == Some(id);
        let tell =
            |(id, member): (&String, &Member)| (id.clone(), member.static_id.clone(), member.metadata(&self.protocol));
        Response::JoinGroup(Ok(Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            members: if leads { self.members.iter().map(tell).collect() } else { Vec::new() },
        }))
    }

    /// The sending member, if it is one and of this generation.
    fn known(&mut self, committer: &Committer) -> Result<&mut Member, ErrorCode> {
        if let Some(holder) = committer.static_id.as_ref().and_then(|it| self.statics.get(it))
            && *holder != committer.member_id
        {
            return Err(ErrorCode::FencedInstanceId);
        }
        let member = self.members.get_mut(&committer.member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if committer.generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        Ok(member)
    }

    fn info(&self, name: &str) -> GroupInfo {
        let member = |(id, member): (&String, &Member)| MemberInfo {
            id: id.clone(),
            static_id: member.static_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: member.metadata(&self.protocol),
            assignment: member.assignment.clone(),
        };
        GroupInfo {
            name: name.to_owned(),
            state: match self.phase {
                Phase::Empty => GroupState::Empty,
                Phase::Joining { .. } => GroupState::Joining,
                Phase::Syncing { .. } => GroupState::Syncing,
                Phase::Stable => GroupState::Stable,
            },
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: self.members.iter().map(member).collect(),
        }
    }
}

fn member_mut<'a>(members: &'a mut BTreeMap<String, Member>, id: &str) -> &'a mut Member {
    members.get_mut(id).expect("the member was just looked up")
}
