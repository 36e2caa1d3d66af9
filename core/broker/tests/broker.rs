//! The embedded broker as a machine: dialogues with it, and what must hold whatever is sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    time::Duration,
};

use bytes::Bytes;
use omb_broker::{
    Acks, Appended, Broker, Committer, Config, ConnId, ErrorCode, FetchPartition, GroupState, Input, Join, Joined,
    NewBatch, NewTopic, OffsetCommit, Output, ProducePartition, ProducerStamp, Request, Response, StoredBatch, Sync,
    Token, TopicRef,
    log::{BATCH_OVERHEAD, cost},
    retention::{COMMIT_FRESH, POSITION_IDLE},
};
use omb_machine::{Machine, encoding, settle, time::Instant};
use proptest::prelude::*;

const A: ConnId = ConnId(1);
const B: ConnId = ConnId(2);
const C: ConnId = ConnId(3);

/// The broker and all its answers, with a clock that stands still unless advanced.
struct World {
    broker: Broker,
    now: Instant,
    tokens: u64,
    answers: BTreeMap<Token, Response>,
}

impl World {
    fn new(capacity: u64, partitions: i32) -> Self {
        Self::of(Config::new(capacity, 42), partitions)
    }

    fn of(config: Config, partitions: i32) -> Self {
        let broker = Broker::new(config);
        let mut world = Self { broker, now: Instant::ZERO, tokens: 0, answers: BTreeMap::new() };
        for conn in [A, B, C] {
            world.input(Input::Opened(conn));
        }
        let topic = NewTopic { name: "t".into(), partitions, replication_factor: 1, configs: BTreeMap::new() };
        world.ask(A, Request::CreateTopics { topics: vec![topic], validate_only: false });
        world
    }

    fn input(&mut self, input: Input) {
        self.broker.handle_input(self.now, input);
        self.settle();
    }

    fn settle(&mut self) {
        let answers = &mut self.answers;
        let _ = settle(&mut self.broker, self.now, |Output::Reply { token, response, .. }| {
            assert!(answers.insert(token, response).is_none(), "answered twice");
            ControlFlow::Continue(())
        });
    }

    /// Lets time pass, with every timer fired at its own instant.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        let mut wakes = 0;
        while let Some(wake) = self.broker.poll_timeout().filter(|wake| wake.at <= end) {
            wakes += 1;
            assert!(wakes < 100_000, "woken again and again: {wake:?}");
            self.now = wake.at.max(self.now);
            self.settle();
        }
        self.now = end;
        self.settle();
    }

    fn send(&mut self, conn: ConnId, request: Request) -> Token {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.input(Input::Request { conn, token, request });
        token
    }

    #[track_caller]
    fn ask(&mut self, conn: ConnId, request: Request) -> Response {
        let token = self.send(conn, request);
        self.answer(token).expect("answered at once")
    }

    fn answer(&mut self, token: Token) -> Option<Response> {
        self.answers.remove(&token)
    }

    fn start(&self) -> i64 {
        self.broker.log("t", 0).expect("the topic is there").start()
    }
}

fn batch(records: u32, size: usize) -> NewBatch {
    NewBatch { records, max_timestamp_ms: 0, producer: None, bytes: Bytes::from(vec![0; size]) }
}

fn produce_to(partition: i32, batch: NewBatch) -> Request {
    let partitions = vec![ProducePartition { topic: "t".into(), partition, batch }];
    Request::Produce { acks: Acks::Stored, timeout: Duration::from_secs(30), partitions }
}

fn produce(batch: NewBatch) -> Request {
    produce_to(0, batch)
}

fn fetch_from(partition: i32, offset: i64, max_wait: Duration, min_bytes: u32) -> Request {
    let partitions = vec![FetchPartition { topic: "t".into(), partition, offset, max_bytes: 1 << 20 }];
    Request::Fetch { max_wait, min_bytes, max_bytes: 1 << 20, partitions }
}

/// A fetch that is answered at once.
fn fetch(offset: i64) -> Request {
    fetch_from(0, offset, Duration::ZERO, 1)
}

#[track_caller]
fn appended(response: Option<Response>) -> Result<i64, ErrorCode> {
    match response {
        Some(Response::Produce(produced)) => produced[0].result.map(|Appended { base_offset, .. }| base_offset),
        other => panic!("not the answer to a produce: {other:?}"),
    }
}

#[track_caller]
fn fetched(response: Option<Response>) -> Result<Vec<StoredBatch>, ErrorCode> {
    match response {
        Some(Response::Fetch(mut fetched)) => fetched.remove(0).result,
        other => panic!("not the answer to a fetch: {other:?}"),
    }
}

fn join(group: &str, member_id: &str) -> Join {
    Join {
        group: group.into(),
        member_id: member_id.into(),
        static_id: None,
        client_id: "client".into(),
        client_host: String::new(),
        session_timeout: Duration::from_secs(10),
        rebalance_timeout: Duration::from_secs(60),
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::new())],
        topics: vec!["t".into()],
        id_required: false,
    }
}

#[track_caller]
fn joined(response: Option<Response>) -> Joined {
    match response {
        Some(Response::JoinGroup(Ok(joined))) => joined,
        other => panic!("not joined: {other:?}"),
    }
}

fn sync(joined: &Joined, assignments: &[(&str, &'static str)]) -> Request {
    let assignments = assignments.iter().map(|(id, share)| ((*id).to_owned(), Bytes::from(*share))).collect();
    Request::SyncGroup(Sync {
        group: "g".into(),
        member_id: joined.member_id.clone(),
        static_id: None,
        generation: joined.generation,
        protocol: None,
        assignments,
    })
}

fn member(joined: &Joined) -> Committer {
    Committer { member_id: joined.member_id.clone(), static_id: None, generation: joined.generation }
}

fn commit(committer: Committer, offset: i64) -> Request {
    let topic = "t".into();
    let offsets = vec![OffsetCommit { topic, partition: 0, offset, leader_epoch: -1, metadata: String::new() }];
    Request::CommitOffsets { group: "g".into(), committer, offsets }
}

/// One member, alone in group `g`.
fn lonely_member(world: &mut World, conn: ConnId) -> Joined {
    let token = world.send(conn, Request::JoinGroup(join("g", "")));
    let joined = joined(world.answer(token));
    world.ask(conn, sync(&joined, &[(&joined.member_id, "all")]));
    joined
}

#[test]
fn a_fetch_waits_for_enough_or_its_time() {
    let mut world = World::new(1 << 20, 1);
    let waiting = world.send(A, fetch_from(0, 0, Duration::from_millis(500), 150));
    world.ask(B, produce(batch(1, 100)));
    assert_eq!(world.answer(waiting), None, "100 of 150 bytes");
    world.ask(B, produce(batch(1, 100)));
    assert_eq!(fetched(world.answer(waiting)).map(|it| it.len()), Ok(2));

    let waiting = world.send(A, fetch_from(0, 1, Duration::from_millis(500), 150));
    world.pass(Duration::from_millis(499));
    assert_eq!(world.answer(waiting), None, "too early");
    world.pass(Duration::from_millis(1));
    assert_eq!(fetched(world.answer(waiting)).map(|it| it.len()), Ok(1), "what there is");
    assert_eq!(world.broker.fetches_waiting(), 0);
}

#[test]
fn a_fetch_that_waits_hears_of_the_end_of_its_topic() {
    let mut world = World::new(1 << 20, 1);
    let waiting = world.send(A, fetch_from(0, 0, Duration::from_secs(500), 1));
    world.ask(B, Request::DeleteTopics { topics: vec!["t".into()] });
    assert_eq!(fetched(world.answer(waiting)), Err(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(fetched(Some(world.ask(A, fetch(0)))), Err(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(world.broker.stored_bytes(), 0);
}

#[test]
fn offsets_outside_are_refused_at_once() {
    let mut world = World::new(1 << 20, 1);
    let token = world.send(A, fetch_from(0, 5, Duration::from_secs(9), 1));
    assert_eq!(fetched(world.answer(token)), Err(ErrorCode::OffsetOutOfRange));
    assert_eq!(world.broker.unread_from(world.now, "t", 0), None, "no position was taken");
}

/// Room for four batches of 1,000 bytes.
fn full() -> World {
    let mut world = World::new(4 * cost(&batch(1, 1000)) + 100, 1);
    world.ask(A, fetch(0));
    for _ in 0..4 {
        world.ask(B, produce(batch(1, 1000)));
    }
    world
}

#[test]
fn producers_wait_for_the_reader_in_their_order() {
    let mut world = full();
    let first = world.send(B, produce(batch(1, 1000)));
    let second = world.send(C, produce(batch(1, 10)));
    assert_eq!(world.broker.produces_waiting(), 2, "the smaller one does not overtake");
    assert_eq!(fetched(Some(world.ask(A, fetch(0)))).map(|it| it.len()), Ok(4));
    assert_eq!(world.broker.produces_waiting(), 2, "handed out is not read");
    world.ask(A, fetch(2));
    assert_eq!(appended(world.answer(first)), Ok(4));
    assert_eq!(appended(world.answer(second)), Ok(5));
    assert_eq!(world.start(), 2);
}

#[test]
fn a_producer_that_waited_long_enough_may_try_again() {
    let mut world = full();
    let waiting = world.send(B, produce(batch(1, 1000)));
    world.pass(Duration::from_secs(30));
    assert_eq!(appended(world.answer(waiting)), Err(ErrorCode::RequestTimedOut));
    assert_eq!(world.broker.log("t", 0).expect("there").end(), 4, "it is stored nowhere");
    let huge = world.send(B, produce(batch(1, 5000)));
    assert_eq!(appended(world.answer(huge)), Err(ErrorCode::MessageTooLarge), "waiting would not help");
}

#[test]
fn closing_frees_the_reader_and_forgets_the_producer() {
    let mut world = full();
    let gone = world.send(B, produce(batch(1, 1000)));
    let Request::Produce { timeout, partitions, .. } = produce(batch(1, 999)) else { unreachable!() };
    world.send(C, Request::Produce { acks: Acks::None, timeout, partitions });
    world.input(Input::Closed(B));
    world.input(Input::Closed(C));
    assert_eq!(world.broker.produces_waiting(), 1, "a producer that asked for no answer counts on delivery");
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.broker.produces_waiting(), 1);
    world.input(Input::Closed(A));
    assert_eq!(world.broker.produces_waiting(), 0);
    assert_eq!(world.answer(gone), None);
    assert_eq!(world.broker.log("t", 0).expect("there").end(), 5);
}

#[test]
fn a_committed_offset_of_a_living_group_is_unread() {
    let mut world = World::new(1 << 20, 1);
    for _ in 0..4 {
        world.ask(B, produce(batch(10, 100)));
    }
    let joined = lonely_member(&mut world, A);
    assert_eq!(world.broker.unread_from(world.now, "t", 0), Some(0), "subscribed, and about to begin");
    world.ask(A, fetch(30));
    assert_eq!(world.broker.unread_from(world.now, "t", 0), Some(30), "it has begun");
    world.ask(A, commit(member(&joined), 20));
    assert_eq!(world.broker.unread_from(world.now, "t", 0), Some(20));
    world.input(Input::Closed(A));
    assert_eq!(world.broker.unread_from(world.now, "t", 0), Some(20), "its next reader begins here");
    world.pass(Duration::from_secs(10));
    assert_eq!(world.broker.unread_from(world.now, "t", 0), None, "its only member is dead");
}

#[test]
fn a_group_that_ceased_to_commit_does_not_hold_the_broker_up() {
    let mut world = World::new(1 << 20, 1);
    world.ask(B, produce(batch(100, 100)));
    let joined = lonely_member(&mut world, A);
    world.ask(A, commit(member(&joined), 1));
    for _ in 1..COMMIT_FRESH.as_secs() {
        world.pass(Duration::from_secs(1));
        assert_eq!(world.broker.unread_from(world.now, "t", 0), Some(1));
        world.ask(A, Request::Heartbeat { group: "g".into(), member: member(&joined) });
        world.ask(A, fetch(50));
    }
    world.pass(Duration::from_secs(1));
    assert_eq!(world.broker.unread_from(world.now, "t", 0), Some(50));
}

#[test]
fn positions_end_with_interest() {
    let mut world = World::new(1 << 20, 2);
    world.ask(B, produce(batch(100, 100)));
    world.ask(A, fetch(10));
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.broker.unread_from(world.now, "t", 0), Some(10), "a pause is no loss of interest");
    world.ask(A, fetch_from(1, 0, Duration::ZERO, 1));
    assert_eq!(world.broker.unread_from(world.now, "t", 0), None, "but it goes on elsewhere");
    world.ask(A, fetch(10));
    world.ask(A, fetch_from(1, 0, Duration::ZERO, 1));
    assert_eq!(world.broker.unread_from(world.now, "t", 0), Some(10), "in turns is fine");
    // A new generation: a partition that is not fetched again belongs to another member.
    world.pass(Duration::from_secs(1));
    let joined = lonely_member(&mut world, C);
    world.ask(C, commit(member(&joined), 60));
    world.pass(POSITION_IDLE.saturating_sub(Duration::from_millis(1)));
    world.ask(C, fetch(60));
    assert_eq!(world.broker.unread_from(world.now, "t", 0), Some(10));
    world.ask(C, Request::Heartbeat { group: "g".into(), member: member(&joined) });
    world.pass(Duration::from_millis(1));
    assert_eq!(world.broker.unread_from(world.now, "t", 0), Some(60));
}

#[test]
fn a_batch_sent_twice_is_stored_once() {
    let mut world = World::new(1 << 20, 1);
    let stamped = |sequence| {
        let producer = Some(ProducerStamp { id: 1, epoch: 0, sequence });
        produce(NewBatch { producer, ..batch(2, 10) })
    };
    assert_eq!(appended(Some(world.ask(A, stamped(0)))), Ok(0));
    assert_eq!(appended(Some(world.ask(B, stamped(0)))), Ok(0), "on another connection too");
    assert_eq!(appended(Some(world.ask(A, stamped(4)))), Err(ErrorCode::OutOfOrderSequence));
    assert_eq!(appended(Some(world.ask(A, stamped(2)))), Ok(2));
    assert_eq!(world.broker.stored_records(), 4);
}

#[test]
fn a_rebalance_takes_everyone_to_one_generation() {
    let mut world = World::new(1 << 20, 1);
    let first = lonely_member(&mut world, A);
    let waiting = world.send(B, Request::JoinGroup(join("g", "")));
    assert_eq!(world.answer(waiting), None, "the first has to join again");
    let heartbeat = Request::Heartbeat { group: "g".into(), member: member(&first) };
    assert_eq!(world.ask(A, heartbeat), Response::Heartbeat(Err(ErrorCode::RebalanceInProgress)));
    let again = world.send(A, Request::JoinGroup(join("g", &first.member_id)));
    let (leader, follower) = (joined(world.answer(again)), joined(world.answer(waiting)));
    assert_eq!((leader.generation, follower.generation), (first.generation + 1, first.generation + 1));
    assert_eq!((&leader.leader, &follower.leader), (&leader.member_id, &leader.member_id));
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    let waiting = world.send(B, sync(&follower, &[]));
    assert_eq!(world.answer(waiting), None, "the leader has not sent the assignments");
    let shares = [(leader.member_id.as_str(), "left"), (follower.member_id.as_str(), "right")];
    assert_eq!(world.ask(A, sync(&leader, &shares)), Response::SyncGroup(Ok("left".into())));
    assert_eq!(world.answer(waiting), Some(Response::SyncGroup(Ok("right".into()))));
    // A member of an older generation has no say.
    let old = Request::Heartbeat { group: "g".into(), member: member(&first) };
    assert_eq!(world.ask(A, old), Response::Heartbeat(Err(ErrorCode::IllegalGeneration)));
    // The follower falls silent, and only it is gone.
    for _ in 0..20 {
        world.pass(Duration::from_secs(1));
        world.ask(A, Request::Heartbeat { group: "g".into(), member: member(&leader) });
    }
    let group = world.broker.group("g").expect("there");
    assert_eq!(group.members.len(), 1);
    assert_eq!(group.state, GroupState::Joining);
}

#[test]
fn a_newcomer_is_given_its_id_first() {
    let mut world = World::new(1 << 20, 1);
    let newcomer = Join { id_required: true, ..join("g", "") };
    let Response::JoinGroup(Err(refused)) = world.ask(A, Request::JoinGroup(newcomer)) else { panic!("refused") };
    assert_eq!(refused.code, ErrorCode::MemberIdRequired);
    assert_eq!(world.broker.group("g").expect("there").members.len(), 0, "no ghost if the answer is lost");
    let token = world.send(A, Request::JoinGroup(Join { id_required: true, ..join("g", &refused.member_id) }));
    assert_eq!(joined(world.answer(token)).member_id, refused.member_id);
    let stranger = world.ask(B, Request::JoinGroup(join("g", "made-up")));
    assert!(matches!(stranger, Response::JoinGroup(Err(it)) if it.code == ErrorCode::UnknownMemberId));
}

#[test]
fn a_static_member_comes_back_to_its_share() {
    let mut world = World::new(1 << 20, 1);
    let fixed = || Join { static_id: Some("fixed".into()), ..join("g", "") };
    let token = world.send(A, Request::JoinGroup(fixed()));
    let before = joined(world.answer(token));
    world.ask(A, sync(&before, &[(&before.member_id, "all")]));
    world.input(Input::Closed(A));
    let token = world.send(B, Request::JoinGroup(fixed()));
    let after = joined(world.answer(token));
    assert_eq!(after.generation, before.generation, "no rebalance");
    assert_ne!(after.member_id, before.member_id);
    assert_eq!(world.ask(B, sync(&after, &[])), Response::SyncGroup(Ok("all".into())));
    let mut fenced = member(&before);
    fenced.static_id = Some("fixed".into());
    let heartbeat = Request::Heartbeat { group: "g".into(), member: fenced };
    assert_eq!(world.ask(C, heartbeat), Response::Heartbeat(Err(ErrorCode::FencedInstanceId)));
}

#[test]
fn members_agree_on_what_all_can_do() {
    let mut world = World::new(1 << 20, 1);
    let with = |member_id: &str, protocols: &[&str]| {
        let protocols = protocols.iter().map(|name| ((*name).to_owned(), Bytes::new())).collect();
        Request::JoinGroup(Join { protocols, ..join("g", member_id) })
    };
    let token = world.send(A, with("", &["sticky", "range"]));
    let first = joined(world.answer(token));
    assert_eq!(first.protocol, "sticky");
    let refused = world.ask(B, with("", &["roundrobin"]));
    assert!(matches!(refused, Response::JoinGroup(Err(it)) if it.code == ErrorCode::InconsistentGroupProtocol));
    let second = world.send(B, with("", &["range", "roundrobin"]));
    let again = world.send(A, with(&first.member_id, &["sticky", "range"]));
    assert_eq!(joined(world.answer(again)).protocol, "range");
    assert_eq!(joined(world.answer(second)).protocol, "range");
}

#[test]
fn requests_survive_their_encoding() {
    let request = Request::JoinGroup(join("g", "m"));
    let response = Response::Fetch(vec![]);
    let bytes = encoding::encode(&(&request, &response, batch(1, 5)));
    let back: (Request, Response, NewBatch) = encoding::decode(&bytes).expect("decoded");
    assert_eq!(back, (request, response, batch(1, 5)));
    let topic = TopicRef::from("t");
    assert_eq!(topic.to_string(), "t");
}

/// What one client of a group knows of itself.
#[derive(Default)]
struct RefMember {
    joined: Option<Joined>,
    member_id: String,
    waiting: Option<(Token, Waits)>,
    /// When anything last passed between it and the broker.
    active: Instant,
}

#[derive(Clone, Copy, PartialEq)]
enum Waits {
    Join,
    Sync(i32),
}

/// A group and its clients, any of which may do anything at any time.
struct RefGroup {
    world: World,
    members: Vec<RefMember>,
    conns: Vec<ConnId>,
    next_conn: u64,
    leaders: BTreeMap<i32, String>,
    shares: BTreeMap<(i32, String), Bytes>,
    generation: i32,
}

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(25);

impl RefGroup {
    fn new(clients: u64) -> Self {
        let mut world = World::new(1 << 20, 1);
        let conns: Vec<ConnId> = (100..100 + clients).map(ConnId).collect();
        for &conn in &conns {
            world.input(Input::Opened(conn));
        }
        let members = conns.iter().map(|_| RefMember::default()).collect();
        let (leaders, shares) = (BTreeMap::new(), BTreeMap::new());
        Self { world, members, conns, next_conn: 1000, leaders, shares, generation: 0 }
    }

    fn step(&mut self, nth: usize, what: u8, ms: u64) {
        let conn = self.conns[nth];
        self.members[nth].active = self.world.now;
        match what {
            0..=2 => {
                let it = &self.members[nth];
                let static_id = (nth == 0).then(|| "fixed".to_owned());
                let request = Request::JoinGroup(Join {
                    static_id,
                    rebalance_timeout: REBALANCE,
                    session_timeout: SESSION,
                    id_required: what == 1,
                    ..join("g", &it.member_id)
                });
                let token = self.world.send(conn, request);
                self.supersede(nth, (token, Waits::Join));
            }
            3 | 4 => {
                // No member asks for a share of the old generation while it waits for the next.
                if matches!(self.members[nth].waiting, Some((_, Waits::Join))) {
                    return;
                }
                let Some(joined) = self.members[nth].joined.clone() else { return };
                let mut assignments = Vec::new();
                for (id, ..) in &joined.members {
                    let share = Bytes::from(format!("{id} in {}", joined.generation));
                    self.shares.insert((joined.generation, id.clone()), share.clone());
                    assignments.push((id.clone(), share));
                }
                let request = Sync {
                    group: "g".into(),
                    member_id: joined.member_id.clone(),
                    static_id: None,
                    generation: joined.generation,
                    protocol: None,
                    assignments,
                };
                let token = self.world.send(conn, Request::SyncGroup(request));
                self.supersede(nth, (token, Waits::Sync(joined.generation)));
            }
            5 => {
                let Some(joined) = self.members[nth].joined.clone() else { return };
                let request = Request::Heartbeat { group: "g".into(), member: member(&joined) };
                self.world.ask(conn, request);
            }
            6 => {
                let members = vec![(self.members[nth].member_id.clone(), None)];
                self.world.ask(conn, Request::LeaveGroup { group: "g".into(), members });
            }
            7 => {
                self.world.input(Input::Closed(conn));
                self.next_conn += 1;
                self.conns[nth] = ConnId(self.next_conn);
                self.world.input(Input::Opened(self.conns[nth]));
                self.members[nth].waiting = None;
            }
            _ => self.world.pass(Duration::from_millis(ms)),
        }
    }

    /// A client that asks again no longer looks at the older answer, which arrives all the same.
    fn supersede(&mut self, nth: usize, waiting: (Token, Waits)) {
        if let Some((token, _)) = self.members[nth].waiting.replace(waiting) {
            self.world.answer(token);
        }
    }

    fn hear(&mut self) {
        for it in &mut self.members {
            let Some((token, waits)) = it.waiting else { continue };
            let Some(response) = self.world.answers.remove(&token) else { continue };
            it.waiting = None;
            it.active = self.world.now;
            match (response, waits) {
                (Response::JoinGroup(Ok(joined)), Waits::Join) => {
                    // The reply to a replaced static leader names its own old id; it leads nothing.
                    if !joined.members.is_empty() {
                        let leader = self.leaders.entry(joined.generation).or_insert(joined.leader.clone());
                        assert_eq!(*leader, joined.leader, "one leader in generation {}", joined.generation);
                        assert_eq!(joined.leader, joined.member_id, "only the leader is told the members");
                    }
                    it.member_id.clone_from(&joined.member_id);
                    it.joined = Some(joined);
                }
                (Response::JoinGroup(Err(refused)), Waits::Join) => {
                    it.joined = None;
                    it.member_id = match refused.code {
                        ErrorCode::MemberIdRequired => refused.member_id,
                        _ => String::new(),
                    };
                }
                (Response::SyncGroup(Ok(share)), Waits::Sync(generation)) => {
                    let of = |(known, id): &(i32, String)| *known == generation && *id == it.member_id;
                    let want = self.shares.iter().find(|(key, _)| of(key)).map(|(_, share)| share.clone());
                    // A static member that came back has a new id and its old assignment.
                    let inherited = self.shares.iter().any(|((known, _), old)| *known == generation && *old == share);
                    assert!(want == Some(share) || inherited, "not what the leader gave it");
                }
                (Response::SyncGroup(Err(_)), Waits::Sync(_)) => {}
                (other, _) => panic!("not asked for: {other:?}"),
            }
        }
    }

    fn check(&mut self) {
        let Some(group) = self.world.broker.group("g") else { return };
        assert!(group.generation >= self.generation, "the generation went back");
        self.generation = group.generation;
        let ids: BTreeSet<&String> = group.members.iter().map(|member| &member.id).collect();
        for it in self.members.iter().filter(|it| ids.contains(&it.member_id)) {
            let silent = self.world.now.since(it.active);
            assert!(it.waiting.is_some() || silent < SESSION, "dead for {silent:?} and still a member");
        }
        match group.state {
            GroupState::Empty => assert!(group.members.is_empty()),
            GroupState::Stable | GroupState::Syncing => {
                assert!(group.members.iter().all(|member| !group.protocol.is_empty() && !member.id.is_empty()));
            }
            GroupState::Joining => assert!(!group.members.is_empty()),
        }
    }
}

/// What a reader or a producer does.
#[derive(Clone, Debug)]
enum Step {
    Produce {
        conn: u64,
        partition: i32,
        records: u32,
        size: usize,
    },
    /// Reads on from its position.
    Fetch {
        conn: u64,
        partition: i32,
    },
    Reopen {
        conn: u64,
    },
    Pass {
        ms: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u64..3, 0_i32..2, 1_u32..20, 1_usize..900).prop_map(|(conn, partition, records, size)| Step::Produce { conn, partition, records, size }),
        4 => (0_u64..3, 0_i32..2).prop_map(|(conn, partition)| Step::Fetch { conn, partition }),
        1 => (0_u64..3).prop_map(|conn| Step::Reopen { conn }),
        1 => (0_u64..900).prop_map(|ms| Step::Pass { ms }),
    ];
    prop::collection::vec(step, 1..150)
}

/// What all readers have read is dropped long before the broker is full; what one of them has not, and partitions
/// without readers, are not.
#[test]
fn what_every_reader_has_read_is_dropped_beyond_what_is_kept() {
    let size = 1_000 - usize::try_from(BATCH_OVERHEAD).expect("small");
    let mut world = World::of(Config { read_kept: 10_000, ..Config::new(1_000_000, 42) }, 2);
    let turn = |world: &mut World, readers: &[(ConnId, i64)]| {
        world.pass(Duration::from_millis(200));
        for partition in 0..2 {
            let token = world.send(A, produce_to(partition, batch(1, size)));
            appended(world.answer(token)).expect("there is room");
        }
        for &(conn, offset) in readers {
            fetched(Some(world.ask(conn, fetch(offset)))).expect("it is there");
        }
    };
    // Partition 1 has no reader and keeps its 300 batches of 1,000 bytes.
    for nth in 0..300 {
        turn(&mut world, &[(B, nth), (C, nth.min(150))]);
    }
    assert_eq!(world.broker.log("t", 1).expect("there").start(), 0, "it has no reader");
    assert_eq!(world.start(), 150, "one of two has not read on");
    // Both have read all: it is dropped, except for what arrived since the last check.
    for nth in 300..310 {
        turn(&mut world, &[(B, nth), (C, nth)]);
    }
    assert!(world.start() >= 300, "{}", world.start());
    assert!(world.broker.dropped().batches >= 300);

    let mut world = World::of(Config { read_kept: 10_000, ..Config::new(1_000_000, 42) }, 2);
    for nth in 0..300 {
        world.pass(Duration::from_millis(200));
        let token = world.send(A, produce(batch(1, size)));
        appended(world.answer(token)).expect("there is room");
        fetched(Some(world.ask(B, fetch(nth)))).expect("it is there");
        assert!(world.broker.stored_bytes() <= 15_000, "{} bytes", world.broker.stored_bytes());
    }
    assert!(world.broker.stored_bytes() >= 9_000, "the latest are kept");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever members do and fail to do, a group keeps its promises, and comes to rest when they fall silent.
    #[test]
    fn groups_keep_their_promises(steps in prop::collection::vec((0_usize..4, 0_u8..10, 0_u64..6000), 1..120)) {
        let mut group = RefGroup::new(4);
        for (nth, what, ms) in steps {
            group.step(nth, what, ms);
            group.hear();
            group.check();
        }
        // No join and no sync waits for ever, although nothing happens any more.
        group.world.pass((SESSION + REBALANCE) * 3);
        group.hear();
        prop_assert!(group.members.iter().all(|it| it.waiting.is_none()), "someone still waits");
        // Members answered last are silent since then.
        group.world.pass((SESSION + REBALANCE) * 3);
        let members = group.world.broker.group("g").map_or(0, |group| group.members.len());
        prop_assert_eq!(members, 0, "the dead are still members");
        prop_assert_eq!(group.world.broker.poll_timeout(), None);
    }

    /// Nothing unread is dropped, the capacity holds, and what is read is what was acknowledged, without a gap.
    #[test]
    fn nothing_unread_is_dropped(steps in steps(), batches in 2_u64..12) {
        let capacity = batches * (1000 + BATCH_OVERHEAD);
        let mut world = World::new(capacity, 2);
        let mut conns = [A, B, C];
        let mut next_conn = 1000;
        // All that each partition ever received, and where each connection is.
        let mut ref_logs: [Vec<StoredBatch>; 2] = [Vec::new(), Vec::new()];
        let mut positions: BTreeMap<(u64, i32), (i64, Instant)> = BTreeMap::new();
        let mut waiting: Vec<(Token, i32, NewBatch)> = Vec::new();
        let mut sent = 0_u8;
        for step in steps {
            match step {
                Step::Produce { conn, partition, records, size } => {
                    sent = sent.wrapping_add(1);
                    let batch = NewBatch { bytes: Bytes::from(vec![sent; size]), ..batch(records, 0) };
                    let Request::Produce { acks, partitions, .. } = produce_to(partition, batch.clone()) else { unreachable!() };
                    let request = Request::Produce { acks, partitions, timeout: Duration::from_secs(3600) };
                    waiting.push((world.send(conns[conn as usize], request), partition, batch));
                }
                Step::Fetch { conn, partition } => {
                    let start = world.broker.log("t", partition as u32).expect("there").start();
                    let position = positions.get(&(conn, partition)).map_or(start, |it| it.0);
                    let got = fetched(Some(world.ask(conns[conn as usize], fetch_from(partition, position, Duration::ZERO, 1))));
                    // Its position may have been dropped only after it had read the other partition for long.
                    let other = positions.get(&(conn, 1 - partition)).map(|it| it.1);
                    let here = positions.get(&(conn, partition)).map(|it| it.1);
                    let idle = matches!((here, other), (Some(here), Some(other)) if other.since(here) >= POSITION_IDLE);
                    match got {
                        Ok(got) => {
                            let after: Vec<&StoredBatch> = ref_logs[partition as usize].iter().filter(|it| it.end_offset() > position).collect();
                            prop_assert!(got.iter().eq(after.into_iter().take(got.len())));
                            positions.insert((conn, partition), (got.last().map_or(position, StoredBatch::end_offset), world.now));
                        }
                        Err(code) => {
                            prop_assert!(idle, "{code} at {position}");
                            positions.remove(&(conn, partition));
                        }
                    }
                }
                Step::Reopen { conn } => {
                    let which = &mut conns[conn as usize];
                    let closed = *which;
                    next_conn += 1;
                    *which = ConnId(next_conn);
                    let opened = *which;
                    world.input(Input::Closed(closed));
                    world.input(Input::Opened(opened));
                    positions.retain(|(it, _), _| *it != conn);
                }
                Step::Pass { ms } => world.pass(Duration::from_millis(ms)),
            }
            // In order of acknowledgement, which within a partition is the order of their offsets.
            let mut acked = Vec::new();
            waiting.retain(|(token, partition, batch)| match world.answers.remove(token) {
                Some(response) => {
                    acked.push((*partition, appended(Some(response)), batch.clone()));
                    false
                }
                None => true,
            });
            for (partition, result, batch) in acked {
                let base_offset = result.expect("it waits as long as it takes");
                let log = &mut ref_logs[partition as usize];
                prop_assert_eq!(base_offset, log.last().map_or(0, StoredBatch::end_offset));
                let NewBatch { records, max_timestamp_ms, bytes, .. } = batch;
                log.push(StoredBatch { base_offset, records, max_timestamp_ms, leader_epoch: 0, bytes });
            }
            prop_assert!(world.broker.stored_bytes() <= capacity);
            for (partition, ref_log) in ref_logs.iter().enumerate() {
                let log = world.broker.log("t", partition as u32).expect("there");
                prop_assert!(log.batches().eq(ref_log[ref_log.len() - log.batches().len()..].iter()), "the newest are stored");
            }
        }
        for conn in conns {
            world.input(Input::Closed(conn));
        }
        prop_assert_eq!(world.broker.produces_waiting(), 0, "without readers there is always room");
    }
}
