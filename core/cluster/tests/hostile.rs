//! Whatever is sent to a node of a cluster, decodable or not: it withstands it, and comes to rest.

use std::{collections::BTreeSet, ops::ControlFlow, time::Duration};

use omb_cluster::{
    config::{ClusterConfig, Policy, parse_peers},
    election::{Ballot, TERM_JUMP_MAX, Word},
    handshake::{GREETING_BYTES, Greeting, Key, Meeting, Nonce, Opening, Part, Refusal, Side, TERMS_BYTES},
    node::{
        ClientId, Input, Node, Output,
        message::{
            self, Answer, Envelope, FRAME_MAX, FrameError, Holding, Message, Order, Put, Question, Reply, Request,
        },
        status::{Account, Book, DiskStatus, NodeStatus, Outage},
    },
    peer::{Digest, Label, Leadership, NodeId, RequestId, Term, User},
    routing::End,
    store::{self, Entry, Kind, Loss, Name, Step, Stored},
};
use omb_machine::{
    Machine,
    seed::Seed,
    settle,
    time::{Instant, WallTime},
};
use proptest::prelude::*;

/// Small, or at an edge. (What nests below is boxed: a tree of such types would overflow a test's stack.)
fn numbers() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0..6_u64, 1 => Just(u64::MAX), 1 => Just(u64::MAX - 1), 1 => any::<u64>()]
}

/// Peers, no id, and ids that are not peers.
fn nodes() -> impl Strategy<Value = NodeId> {
    prop_oneof![8 => 1..4_u32, 1 => Just(0), 1 => Just(9), 1 => Just(u32::MAX)].prop_map(NodeId)
}

fn sets() -> impl Strategy<Value = BTreeSet<NodeId>> {
    prop::collection::btree_set(nodes(), 0..5)
}

fn ids() -> impl Strategy<Value = RequestId> {
    prop_oneof![6 => 0..4_u128, 1 => Just(u128::MAX)].prop_map(RequestId)
}

fn names() -> impl Strategy<Value = Name> {
    (ids(), any::<bool>()).prop_map(|(id, same)| Name {
        id,
        digest: Digest::of(if same { b"same" } else { b"other" }),
        kind: Kind::Bin,
    })
}

fn stored() -> impl Strategy<Value = Stored> {
    (names(), numbers()).prop_map(|(name, bytes)| Stored { name, bytes })
}

fn leaderships() -> impl Strategy<Value = Leadership> {
    (numbers(), prop::option::of(nodes())).prop_map(|(term, leader)| Leadership { term: Term(term), leader })
}

fn label() -> Label {
    Label::of("photo.png", User::try_from("ann".to_owned()).expect("a name"), WallTime(1))
}

fn entries() -> impl Strategy<Value = Entry> {
    (stored(), any::<bool>()).prop_map(|(stored, known)| Entry { stored, label: known.then(label) })
}

fn losses() -> impl Strategy<Value = Loss> {
    prop::sample::select(vec![Loss::Gone, Loss::Damaged])
}

fn puts() -> BoxedStrategy<Put> {
    (ids(), numbers(), any::<bool>(), sets())
        .prop_map(|(id, bytes, again, excluded)| Put { id, label: label(), bytes, again, excluded })
        .boxed()
}

fn replies() -> BoxedStrategy<Reply> {
    prop_oneof![
        (nodes(), stored()).prop_map(|(node, stored)| Reply::Stored { node, stored }),
        (prop::option::of(nodes()), prop::option::of(nodes())).prop_map(|(excluded, leader)| Reply::Retry {
            reason: "\u{1b}[31m\n".to_owned(),
            excluded,
            leader
        }),
        Just(Reply::Refused(String::new())),
        stored().prop_map(Reply::Body),
        Just(Reply::NotFound),
    ]
    .boxed()
}

fn ballots() -> BoxedStrategy<Ballot> {
    let words = prop_oneof![
        numbers().prop_map(|round| Word::Challenge { round }),
        numbers().prop_map(|round| Word::Answer { round }),
        Just(Word::Victory),
        (numbers(), sets()).prop_map(|(beat, alive)| Word::Heartbeat { beat, alive }),
        numbers().prop_map(|beat| Word::Echo { beat }),
        Just(Word::Outdated),
        Just(Word::Inquiry),
    ];
    (leaderships(), words).prop_map(|(newest, word)| Ballot { newest, word }).boxed()
}

fn questions() -> impl Strategy<Value = Question> {
    prop_oneof![
        (ids(), prop::option::of((nodes(), numbers())), any::<bool>())
            .prop_map(|(id, asked, stores)| Question::Holder { id, asked, label: stores.then(label) }),
        (prop::option::of(ids()), prop::sample::select(vec![0, 3, u32::MAX]))
            .prop_map(|(after, most)| Question::List { after, most, bytes: most }),
        Just(Question::Find { sought: "photo.png".to_owned(), bytes: u32::MAX }),
        Just(Question::Status),
    ]
}

fn accounts() -> BoxedStrategy<Account> {
    let numbers = || [numbers(), numbers(), numbers(), numbers()];
    (nodes(), nodes(), leaderships(), numbers(), numbers())
        .prop_map(
            |(node, other, newest, [assigned, stored, bytes, under_way], [up_ms, from_ms, until_ms, penalty_ms])| {
                let (follows, hindrance, disk) = (Some(newest), None, DiskStatus::default());
                let (gone, damaged) = (from_ms, until_ms);
                let status = NodeStatus {
                    node,
                    newest,
                    follows,
                    hindrance,
                    up_ms,
                    assigned,
                    stored,
                    bytes,
                    gone,
                    damaged,
                    under_way,
                    disk,
                };
                let books =
                    vec![Book { node: other, assigned, in_flight: bytes, penalty_ms, failed_ms: Some(until_ms) }];
                let outages = vec![Outage { node: other, from_ms, until_ms: Some(until_ms), seen_by: u32::MAX }];
                Account { status, books, outages }
            },
        )
        .boxed()
}

fn answers() -> BoxedStrategy<Answer> {
    prop_oneof![
        Just(Answer::Holds(Holding::No)),
        Just(Answer::Holds(Holding::Perhaps)),
        stored().prop_map(|stored| Answer::Holds(Holding::Held(stored))),
        (entries(), losses()).prop_map(|(entry, loss)| Answer::Holds(Holding::Lost(Box::new(entry), loss))),
        (prop::collection::vec(entries(), 0..4), any::<bool>(), numbers())
            .prop_map(|(uploads, more, lost)| Answer::List { uploads, more, lost }),
        (prop::collection::vec((entries(), prop::option::of(losses())), 0..4), any::<bool>())
            .prop_map(|(uploads, more)| Answer::Found { uploads, more }),
        Just(Answer::Unread),
        accounts().prop_map(|account| Answer::Status(Box::new(account))),
    ]
    .boxed()
}

fn messages() -> BoxedStrategy<Message> {
    let ends = prop::sample::select(vec![End::Stored, End::Failed, End::Abandoned, End::Unknown]);
    prop_oneof![
        1 => Just(Message::Hello),
        1 => Just(Message::Refused),
        8 => ballots().prop_map(Message::Ballot),
        2 => (leaderships(), prop::option::of(numbers())).prop_map(|(of, level)| Message::Census { of, level }),
        3 => (leaderships(), numbers()).prop_map(|(of, level)| Message::Report { of, level, stored: level / 2 }),
        1 => (leaderships(), prop::option::of(ids())).prop_map(|(of, after)| Message::Recall { of, after }),
        2 => (leaderships(), prop::option::of(ids()), prop::collection::vec(ids(), 0..9), any::<bool>())
            .prop_map(|(of, after, ids, more)| Message::Recalled { of, after, ids, more }),
        3 => (numbers(), puts()).prop_map(|(ticket, put)| Message::Place { ticket, put }),
        3 => (numbers(), ids(), leaderships(), prop_oneof![nodes().prop_map(Ok), replies().prop_map(|it| Err(Box::new(it)))])
            .prop_map(|(ticket, id, leadership, outcome)| Message::Placed { ticket, id, leadership, outcome }),
        2 => (ids(), nodes(), ends).prop_map(|(id, node, end)| Message::Finished { id, node, end }),
        2 => (numbers(), questions()).prop_map(|(ticket, question)| Message::Ask { ticket, question }),
        3 => (numbers(), answers()).prop_map(|(ticket, answer)| Message::Answer { ticket, answer }),
    ]
    .boxed()
}

fn requests() -> BoxedStrategy<Request> {
    prop_oneof![
        4 => puts().prop_map(Request::Put),
        1 => names().prop_map(|name| Request::Get { name }),
        1 => prop::option::of(ids()).prop_map(|after| Request::List { after }),
        1 => "[a-f0-9]{0,8}|photo\\.png|.{0,300}".prop_map(|sought| Request::Find { sought }),
        1 => Just(Request::Status),
        1 => Just(Request::Discover),
    ]
    .boxed()
}

fn orders() -> BoxedStrategy<Order> {
    prop_oneof![
        3 => (puts(), leaderships()).prop_map(|(put, leadership)| Order::Store { put, leadership }),
        1 => names().prop_map(|name| Order::Send { name }),
    ]
    .boxed()
}

#[derive(Clone, Debug)]
enum Happens {
    /// The sender, whether with the common list of peers, and the message.
    Said(NodeId, bool, Box<Message>),
    /// Likewise, with one byte of the frame changed.
    Flipped(NodeId, Box<Message>, usize, u8),
    Asked(Box<Request>),
    AskedFlipped(Box<Request>, usize, u8),
    Ordered(NodeId, Box<Order>),
    Relayed(Box<Reply>),
    Passes(u64),
}

fn happenings() -> BoxedStrategy<Happens> {
    prop_oneof![
        12 => (nodes(), prop::bool::weighted(0.9), messages()).prop_map(|(from, same, it)| Happens::Said(from, same, Box::new(it))),
        3 => (nodes(), messages(), any::<usize>(), any::<u8>())
            .prop_map(|(from, it, place, bits)| Happens::Flipped(from, Box::new(it), place, bits)),
        5 => requests().prop_map(|it| Happens::Asked(Box::new(it))),
        1 => (requests(), any::<usize>(), any::<u8>()).prop_map(|(it, place, bits)| Happens::AskedFlipped(Box::new(it), place, bits)),
        2 => (nodes(), orders()).prop_map(|(from, it)| Happens::Ordered(from, Box::new(it))),
        2 => replies().prop_map(|it| Happens::Relayed(Box::new(it))),
        5 => (0..3_000_u64).prop_map(Happens::Passes),
    ]
    .boxed()
}

fn flip(mut frame: Vec<u8>, place: usize, bits: u8) -> Vec<u8> {
    let place = place % frame.len();
    frame[place] ^= bits;
    frame
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_node_bears_whatever_it_is_told(
        happenings in prop::collection::vec(happenings(), 0..120),
        me in 1..4_u32,
        policy in prop::sample::select(vec![Policy::LeastLoad, Policy::PowerOfTwo, Policy::PeakEwma, Policy::RoundRobin]),
    ) {
        let peers = parse_peers("1=a:1,2=b:1,3=c:1").expect("sound");
        let digest = peers.digest();
        let config = ClusterConfig { policy, ..ClusterConfig::new(peers) };
        let mut now = Instant::ZERO;
        let mut node = Node::new(now, NodeId(me), config, Leadership::default(), Seed(1));
        let highest = TERM_JUMP_MAX.saturating_mul(happenings.len() as u64 + 1);
        let mut relays = Vec::new();
        let mut clients = 0;
        for happens in happenings {
            let envelope = |from, peers, message| Envelope { from, peers, message };
            let input = match happens {
                Happens::Said(from, same, message) => {
                    let peers = if same { digest } else { Digest::of(b"other") };
                    Some(Input::Received(envelope(from, peers, *message)))
                }
                Happens::Flipped(from, message, place, bits) => {
                    let frame = flip(message::encode(&envelope(from, digest, *message)), place, bits);
                    message::decode(&frame).ok().map(Input::Received)
                }
                Happens::Asked(request) => {
                    clients += 1;
                    Some(Input::Request { client: ClientId(clients), request: *request })
                }
                Happens::AskedFlipped(request, place, bits) => {
                    clients += 1;
                    let request = message::decode(&flip(message::encode(&*request), place, bits)).ok();
                    request.map(|request| Input::Request { client: ClientId(clients), request })
                }
                Happens::Ordered(from, order) => {
                    clients += 1;
                    Some(Input::Order { client: ClientId(clients), from, order: *order })
                }
                Happens::Relayed(reply) => relays.pop().map(|client| Input::Relayed { client, outcome: Ok(*reply) }),
                Happens::Passes(ms) => {
                    now += Duration::from_millis(ms);
                    None
                }
            };
            node.handle_timeout(now);
            let mut inputs: Vec<Input> = input.into_iter().collect();
            // All its outputs succeed at once.
            while let Some(input) = inputs.pop() {
                node.handle_input(now, input);
                let _ = settle(&mut node, now, |output| {
                    match output {
                        Output::Persist(leadership) => inputs.push(Input::Persisted(leadership)),
                        Output::Disk(mut steps) => {
                            inputs.push(Input::Disk(match steps.pop().expect("there is a step") {
                                Step::List => {
                                    store::Input::Listed { temporary: Vec::new(), shared: Vec::new(), recorded: [].into() }
                                }
                                Step::Check(names) => {
                                    // All its files are gone.
                                    store::Input::Checked(names.into_iter().map(|name| (name, None)).collect())
                                }
                                last => store::Input::Done(last),
                            }));
                        }
                        Output::Store { id, .. } => {
                            let (digest, kind) = (Digest::of(b"same"), Kind::Bin);
                            inputs.push(Input::Disk(store::Input::Written { id, bytes: 3, digest, kind }));
                        }
                        Output::Relay { client, .. } => relays.push(client),
                        _ => {}
                    }
                    ControlFlow::Continue(())
                });
            }
            // Each message takes it at most this far.
            prop_assert!(node.election().newest().term.0 <= highest);
        }
    }

    /// No bytes are a message by accident and none make the reader panic; what is read is written as it was read.
    #[test]
    fn bytes_are_refused_or_read(bytes in prop::collection::vec(any::<u8>(), 0..300), message in messages(), cut in any::<usize>()) {
        let _ = (message::decode::<Envelope>(&bytes), message::decode::<Request>(&bytes), message::decode::<Reply>(&bytes));
        let _ = message::decode::<Order>(&bytes);
        let envelope = Envelope { from: NodeId(1), peers: Digest::of(b"any"), message };
        let frame = message::encode(&envelope);
        prop_assert!(message::decode::<Envelope>(&frame[..cut % frame.len()]).is_err(), "cut short");
        prop_assert!(message::decode::<Envelope>(&[&frame[..], &[0]].concat()).is_err(), "something behind it");
        prop_assert_eq!(message::decode(&frame), Ok(envelope));
    }

    /// Whatever is sent instead of a greeting and a proof is refused, by a side with a key and by one without.
    #[test]
    fn no_words_are_a_handshake(
        greeting: [u8; GREETING_BYTES],
        terms: [u8; TERMS_BYTES],
        proof in prop::collection::vec(any::<u8>(), 0..64),
        magic in any::<bool>(),
        part in 0..4_u8,
        flag in 0..3_u8,
    ) {
        let (mut greeting, mut terms) = (greeting, terms);
        if magic {
            greeting[..4].copy_from_slice(b"omb:");
            greeting[4..6].copy_from_slice(&message::VERSION.to_le_bytes());
        }
        (terms[0], terms[1]) = (part, flag);
        let Ok(theirs) = Greeting::decode(greeting).and_then(|greeting| Opening::decode(greeting, terms)) else { return Ok(()) };
        let key = Key::new(b"the key of this cluster").expect("long enough");
        let ours = Greeting { version: message::VERSION, node: Some(NodeId(1)) };
        for nonce in [None, Some(Nonce([1; 32]))] {
            let ours = Opening { greeting: ours, part: Part::Node, nonce };
            match Meeting::new(Side::Acceptor, nonce.map(|_| &key), &theirs, &ours) {
                Ok(meeting) if nonce.is_some() => {
                    prop_assert_eq!(meeting.check(Side::Connector, &proof), Err(Refusal::WrongKey { peers: theirs.part.is_peer() }));
                }
                Ok(_) => prop_assert!(theirs.nonce.is_none() && theirs.greeting.version == message::VERSION),
                Err(refusal) => prop_assert!(!refusal.to_string().contains('\n')),
            }
        }
    }
}

#[test]
fn a_frame_is_never_longer_than_its_bound() {
    let long = vec![0; FRAME_MAX + 1];
    assert_eq!(message::decode::<Envelope>(&long), Err(FrameError::TooLong(long.len())));
    // A list that claims to be longer than its frame.
    let mut frame = message::encode(&Reply::Listing {
        uploads: Vec::new(),
        copies: 0,
        next: None,
        missing: BTreeSet::new(),
        lost: [].into(),
    });
    frame.truncate(3);
    frame.extend([253, 255, 255, 255, 255, 255, 255, 255, 127]);
    assert!(message::decode::<Reply>(&frame).is_err());
}
