use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    node::message::Put,
    peer::{Digest, Label, RequestId, User},
    store::{Kind, Name, Stored},
};
use omb_machine::time::WallTime;

fn put() -> Request {
    let user = User::try_from("ann".to_owned()).expect("a name");
    let label = Label::of("photo.png", user, WallTime(1));
    Request::Put(Put { id: RequestId(7), label, bytes: 3, again: false, excluded: BTreeSet::new() })
}

fn client(nodes: u32) -> Client {
    let nodes = (1..=nodes).map(NodeId).collect();
    Client::new(None, Instant::ZERO, nodes, put(), Patience::default(), Seed(3))
}

fn drain(client: &mut Client) -> Vec<Output> {
    std::iter::from_fn(|| client.poll_output()).collect()
}

/// The only try among the outputs: its number, node and upload.
fn tried(outputs: &[Output]) -> (u64, NodeId, Put) {
    let tries = outputs.iter().filter_map(|output| match output {
        Output::Try { number, node, request: Request::Put(put) } => Some((*number, *node, put.clone())),
        _ => None,
    });
    let tries: Vec<_> = tries.collect();
    assert_eq!(tries.len(), 1, "{outputs:?}");
    tries[0].clone()
}

/// A named node goes first, and if it cannot be reached each other one is tried before it is tried again.
#[test]
fn begins_where_it_is_told_to() {
    for first in 1..=3 {
        let nodes = (1..=3).map(NodeId).collect();
        let (named, patience) = (Some(NodeId(first)), Patience::default());
        let mut client = Client::new(named, Instant::ZERO, nodes, put(), patience, Seed(3));
        let mut tried_nodes = Vec::new();
        for number in 1..=3 {
            tried_nodes.push(tried(&drain(&mut client)).1);
            let failure = Failure::NotSent("connection refused".to_owned());
            client.handle_input(Instant::ZERO, Input::Failed { number, failure });
        }
        assert_eq!(tried_nodes[0], NodeId(first));
        tried_nodes.sort();
        assert_eq!(tried_nodes, [1, 2, 3].map(NodeId));
    }
}

/// A node that sends such a reply would otherwise report an upload to the user that never existed.
#[test]
fn a_refusal_forges_no_line() {
    let foul = format!("no room\nphoto.png: stored by node 1 as x\u{1b}[2J{}", "x".repeat(1 << 20));
    let mut client = client(1);
    let (number, ..) = tried(&drain(&mut client));
    client.handle_input(Instant::ZERO, Input::Answered { number, reply: Reply::Refused(foul.clone()) });
    let outputs = drain(&mut client);
    let [Output::Finished(Err(gave_up))] = &outputs[..] else { panic!("{outputs:?}") };
    let shown = gave_up.to_string();
    assert!(shown.starts_with(r"no room\nphoto.png: stored by node 1 as x\u{1b}[2Jxxx"), "{shown:.200}");
    assert_eq!(shown.chars().count(), MESSAGE_CHARS_MAX);
    let mut client = self::client(1);
    let (number, ..) = tried(&drain(&mut client));
    client.handle_input(Instant::ZERO, Input::Failed { number, failure: Failure::BrokenOff(foul) });
    let line = drain(&mut client).into_iter().find_map(|output| match output {
        Output::Info(line) => Some(line),
        _ => None,
    });
    let line = line.expect("why it takes longer");
    assert!(!line.contains(char::is_control) && line.chars().count() < MESSAGE_CHARS_MAX + 20, "{line:.200}");
}

fn stored() -> Reply {
    let name = Name { id: RequestId(7), digest: Digest::of(b"abc"), kind: Kind::Bin };
    Reply::Stored { node: NodeId(2), stored: Stored { name, bytes: 3 } }
}

fn retry(excluded: Option<u32>, leader: Option<u32>) -> Reply {
    let reason = "not now".to_owned();
    Reply::Retry { reason, excluded: excluded.map(NodeId), leader: leader.map(NodeId) }
}

#[test]
fn nodes_are_tried_in_turn_and_only_then_is_there_a_pause() {
    let mut client = client(3);
    let mut nodes = BTreeSet::new();
    for number in 1..=3 {
        let (n, node, put) = tried(&drain(&mut client));
        assert_eq!((n, put.again), (number, false), "nothing was sent so far");
        nodes.insert(node);
        let failure = Failure::NotSent("connection refused".to_owned());
        client.handle_input(Instant::ZERO, Input::Failed { number, failure });
    }
    assert_eq!(nodes.len(), 3);
    let wake = client.poll_timeout().expect("a pause");
    assert_eq!(wake.why, "pause between tries");
    assert!((25..50).contains(&wake.at.since(Instant::ZERO).as_millis()), "{wake:?}");
}

#[test]
fn a_retry_goes_to_the_leader_and_leaves_out_who_cannot() {
    let mut client = client(3);
    let (number, node, _) = tried(&drain(&mut client));
    let leader = NodeId(node.0 % 3 + 1);
    client.handle_input(Instant::ZERO, Input::Answered { number, reply: retry(Some(2), Some(leader.0)) });
    let wake = client.poll_timeout().expect("a pause");
    drain(&mut client);
    client.handle_timeout(wake.at);
    let (_, node, put) = tried(&drain(&mut client));
    assert_eq!((node, put.again, put.excluded, put.id), (leader, true, [NodeId(2)].into(), RequestId(7)));
}

#[test]
fn a_late_yes_is_a_yes_and_a_refusal_is_final() {
    let mut late = client(3);
    let (number, ..) = tried(&drain(&mut late));
    late.handle_input(Instant::ZERO, Input::Failed { number, failure: Failure::BrokenOff("reset".to_owned()) });
    let (_, _, put) = tried(&drain(&mut late));
    assert!(put.again);
    late.handle_input(Instant::ZERO, Input::Answered { number, reply: stored() });
    assert_eq!(drain(&mut late), [Output::Finished(Ok(stored()))]);

    let mut refused = client(3);
    let (number, ..) = tried(&drain(&mut refused));
    let reply = Reply::Refused("the file is empty".to_owned());
    refused.handle_input(Instant::ZERO, Input::Answered { number, reply });
    let outputs = drain(&mut refused);
    let [Output::Finished(Err(gave_up))] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(gave_up.to_string(), "the file is empty");
}

proptest! {
    /// Whatever the answers: it ends once, by its deadline, under one id; and says that it is a retry once it may have
    /// been stored.
    #[test]
    fn it_ends_by_its_deadline(answers in prop::collection::vec((0..5_u8, 1..4_u32, 0..20_000_u64), 0..200)) {
        let mut client = client(3);
        let mut now = Instant::ZERO;
        let mut answers = answers.into_iter();
        let (mut finished, mut sent) = (0, false);
        loop {
            let mut open = None;
            for output in drain(&mut client) {
                prop_assert_eq!(finished, 0, "the last output");
                match output {
                    Output::Try { number, request: Request::Put(put), .. } => {
                        prop_assert_eq!(put.id, RequestId(7));
                        prop_assert!(put.again || !sent);
                        open = Some(number);
                    }
                    Output::Finished(_) => finished += 1,
                    _ => {}
                }
            }
            let Some(wake) = client.poll_timeout() else { break };
            let answer = open.and_then(|number| answers.next().map(|answer| (number, answer)));
            match answer {
                Some((number, (what, node, after))) if now + Duration::from_millis(after) < wake.at => {
                    now += Duration::from_millis(after);
                    let input = match what {
                        0 => Input::Failed { number, failure: Failure::NotSent(String::new()) },
                        1 => Input::Failed { number, failure: Failure::BrokenOff(String::new()) },
                        2 => Input::Answered { number, reply: stored() },
                        _ => Input::Answered { number, reply: retry(Some(node), Some(node)) },
                    };
                    sent |= what == 1;
                    client.handle_input(now, input);
                }
                _ => {
                    now = wake.at;
                    sent |= open.is_some();
                    client.handle_timeout(now);
                }
            }
        }
        prop_assert_eq!(finished, 1);
        prop_assert!(now.since(Instant::ZERO) <= Patience::default().deadline);
    }
}

#[test]
fn a_client_that_no_node_speaks_with_gives_up_at_once() {
    let mut client = client(3);
    for tries in 1..=3 {
        let (number, node, put) = tried(&drain(&mut client));
        assert!(!put.again, "nothing was sent");
        let failure = Failure::TurnedAway("it asks for a shared key".to_owned());
        client.handle_input(Instant::ZERO, Input::Failed { number, failure });
        if tries == 3 {
            let last = format!("{node}: it asks for a shared key");
            let gave_up = GaveUp { tries, last, unknown: false, refused: true, reached: false };
            assert_eq!(drain(&mut client), [Output::Finished(Err(gave_up))]);
        }
    }
}

/// If every disk is full the client learns so after one round, not after a minute.
#[test]
fn full_disks_everywhere_end_it_at_once() {
    let mut client = client(3);
    let mut now = Instant::ZERO;
    for full in [2, 1, 3] {
        let (number, _, put) = tried(&drain(&mut client));
        assert!(!put.excluded.contains(&NodeId(full)));
        let reply = Reply::Full { node: NodeId(full), leader: Some(NodeId(3)) };
        client.handle_input(now, Input::Answered { number, reply });
        if let Some(wake) = client.poll_timeout() {
            drain(&mut client);
            now = wake.at;
            client.handle_timeout(now);
        }
    }
    let outputs = drain(&mut client);
    let [Output::Finished(Err(gave_up))] = &outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(gave_up.to_string(), "no node can store it: the disk is full on 1, 2, 3");
    assert!(now.since(Instant::ZERO) < Duration::from_secs(1));
}

/// Nor does it wait for a node that is away: a leader assigns an upload to a full disk again only if no other is
/// reachable.
#[test]
fn a_full_disk_that_is_tried_again_is_the_last_one() {
    let mut client = client(3);
    for full in [1, 2, 1] {
        let (number, ..) = tried(&drain(&mut client));
        let reply = Reply::Full { node: NodeId(full), leader: Some(NodeId(2)) };
        client.handle_input(Instant::ZERO, Input::Answered { number, reply });
        if let Some(wake) = client.poll_timeout() {
            drain(&mut client);
            client.handle_timeout(wake.at);
        }
    }
    let outputs = drain(&mut client);
    let [Output::Finished(Err(gave_up))] = &outputs[..] else { panic!("{outputs:?}") };
    let want = "no node can store it: the disk is full on 1, 2, and no other node can be reached that could take it";
    assert_eq!(gave_up.to_string(), want);
}

/// A damaged copy is fetched once from each node that has one, not until the deadline.
#[test]
fn damage_is_not_fetched_again_and_again() {
    let name = Name { id: RequestId(7), digest: Digest::of(b"abc"), kind: Kind::Bin };
    let nodes = (1..=3).map(NodeId).collect();
    let request = Request::Get { name };
    let mut client = Client::new(None, Instant::ZERO, nodes, request, Patience::default(), Seed(3));
    let mut tries = 0;
    loop {
        let outputs = drain(&mut client);
        if outputs.is_empty() {
            let wake = client.poll_timeout().expect("it has not finished");
            client.handle_timeout(wake.at);
        }
        for output in outputs {
            match output {
                Output::Try { number, .. } => {
                    tries += 1;
                    let failure = Failure::Damaged("the received body is not what was stored".to_owned());
                    client.handle_input(Instant::ZERO, Input::Failed { number, failure });
                }
                Output::Finished(outcome) => {
                    let gave_up = outcome.expect_err("no node has it whole");
                    assert!(gave_up.last.ends_with("the received body is not what was stored"), "{gave_up:?}");
                    assert_eq!(tries, 4);
                    return;
                }
                Output::Info(_) => {}
            }
        }
    }
}
