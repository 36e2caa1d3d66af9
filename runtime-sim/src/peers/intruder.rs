//! An intruder that connects to every node: with another key or none, and with bytes that break off or are not
//! messages; and a forger that passes for a peer where that is possible, and sends what no honest one does.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use madsim::{task, time::sleep};
use omb_cluster::{
    election::{self, Ballot},
    handshake::{
        GREETING_BYTES, Greeting, Key, Keys, Nonce, Objection, Opening, PROOF_BYTES, Part, Refusal, TERMS_BYTES,
        VERDICT_BYTES,
    },
    node::message::{Envelope, Message, Order, Put, Request, VERSION},
    peer::{Digest, Label, Leadership, NodeId, RequestId, Term, User},
};
use omb_machine::{seed::Seed, time::WallTime};
use rand::{Rng, RngExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{
    Scenario,
    cast::{Cast, address, ask, limits, peers_of},
};
use crate::{
    connection::Stream,
    portable::{
        cluster::{
            Nodes, Secret,
            greeting::{self, Unmet},
            wire::{self, Line, Word},
        },
        fleet::Transport as _,
    },
};

/// A key of this name for clients, and one for `peers` if requested, with nonces that differ between all lives of all
/// processes.
pub(super) fn secret(seed: Seed, name: &str, life: u128, peers: bool) -> Secret {
    let rng = Mutex::new(seed.stream(&format!("nonces {life}")));
    let nonces = move || {
        let mut nonce = [0; 32];
        rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut nonce);
        Nonce(nonce)
    };
    let key = |whose: &str| Key::new(format!("the key of {whose}: {name}").as_bytes()).expect("long enough");
    let keys = Keys { clients: Some(key("clients")), peers: peers.then(|| key("peers")) };
    Secret { keys, nonces: Arc::new(nonces) }
}

/// All bytes that a node sends to a side that has proven nothing.
const RECEIVED_MAX: usize = GREETING_BYTES + TERMS_BYTES + PROOF_BYTES + VERDICT_BYTES;

/// How much later than its bound a node without faults may close: packets take some time.
const SLACK: Duration = Duration::from_millis(200);

/// Connects several times, and records what it receives.
pub(super) async fn intrude(process: task::NodeId, cast: Cast) {
    let scenario = cast.facts().scenario.clone();
    let mut rng = scenario.seed.stream("intruder");
    for number in 0..rng.random_range(2..6_u64) {
        sleep(rng.random_range(Duration::ZERO..Duration::from_secs(4))).await;
        let node = scenario.nodes[rng.random_range(0..scenario.nodes.len())];
        if scenario.keyed && rng.random_bool(0.5) {
            let honest =
                scenario.nodes.iter().copied().filter(|it| scenario.locked_out.is_none_or(|(out, _)| out != *it));
            demand(process, &cast, Seed(scenario.seed.0 ^ number << 56), honest, &mut rng).await;
        } else {
            mumble(process, &cast, node, &mut rng).await;
        }
    }
}

/// Asks as a client would, with another key or none.
async fn demand(
    process: task::NodeId,
    cast: &Cast,
    seed: Seed,
    honest: impl Iterator<Item = NodeId>,
    rng: &mut impl Rng,
) {
    let secret = rng.random_bool(0.5).then(|| secret(seed, "guessed", 0, true));
    let nodes = honest.map(|node| (node, address(node))).collect();
    let nodes = Nodes::new(cast.transport(process), nodes, limits(), secret);
    let stored = cast.facts().uploads.values().find_map(|upload| upload.acknowledged);
    let request = match (rng.random_range(0..3), stored) {
        (0, Some((_, stored, _))) => Request::Get { name: stored.name },
        (1, _) => Request::List { after: None },
        _ => Request::Put(Put {
            id: RequestId(rng.next_u64().into()),
            label: label(),
            bytes: 3,
            again: false,
            excluded: [].into(),
        }),
    };
    match ask(&nodes, cast, request.clone(), b"eve".to_vec(), seed).await {
        Ok(reply) => {
            let leaked = format!("a client without the key asked {request:?} and was answered {reply:?}");
            cast.facts().leaked.push(leaked);
        }
        Err(gave_up) => {
            cast.witness.note("intruder", format_args!("{gave_up}"));
            cast.witness.hit("intruder: gets nothing for a question");
        }
    }
}

/// Sends what begins like a handshake at best, and listens.
async fn mumble(process: task::NodeId, cast: &Cast, node: NodeId, rng: &mut impl Rng) {
    let keyed = cast.facts().scenario.keyed;
    let mut words = vec![0; rng.random_range(1..200)];
    rng.fill_bytes(&mut words);
    let peers = cast.facts().scenario.nodes.clone();
    let claimed = peers[rng.random_range(0..peers.len())];
    let nonce = Some(Nonce(std::array::from_fn(|nth| words[nth % words.len()])));
    let greeting = Greeting { version: VERSION, node: Some(claimed) };
    let opening = Opening { greeting, part: Part::Peer, nonce }.encode();
    match rng.random_range(0..4) {
        0 => {}
        // Breaks off within the greeting.
        1 => words = opening[..rng.random_range(0..opening.len())].to_vec(),
        // Proves nothing, and votes nevertheless.
        _ => {
            let envelope = Envelope { from: claimed, peers: Digest::of(b"whatever"), message: Message::Hello };
            let proof = vec![1; 1 + PROOF_BYTES];
            words = [opening, proof].concat();
            let _ = wire::put_frame(&mut words, &envelope).await;
        }
    }
    cast.witness.note("intruder", format_args!("says {} bytes to {node}", words.len()));
    let transport = cast.transport(process);
    let Ok(Ok(mut stream)) = timeout(limits().connect, transport.connect(&address(node))).await else { return };
    let began = cast.time.elapsed();
    if stream.write_all(&words).await.is_err() || stream.flush().await.is_err() {
        return;
    }
    if rng.random_bool(0.3) {
        return cast.witness.hit("intruder: breaks off within the handshake");
    }
    let (mut received, mut piece) = (0, [0; 256]);
    let closed = timeout(limits().connect * 2, async {
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            received += count;
        }
    });
    let closed = closed.await.is_ok();
    cast.witness.hit("intruder: is closed upon");
    let took = cast.time.elapsed() - began;
    let mut facts = cast.facts();
    if keyed && received > RECEIVED_MAX {
        facts.leaked.push(format!("{node} sent {received} bytes to a side that has proven nothing"));
    }
    // A cluster without a key refuses a side that requires one.
    let calm = facts.scenario.troubles.is_empty();
    if calm && (!closed || took > limits().connect + SLACK) {
        facts.leaked.push(format!("{node} listened for {took:?} to a side that has proven nothing"));
    }
}

/// Until when slots are hoarded; what was announced last is waited for a little longer.
pub(super) const HOARDED: Duration = Duration::from_secs(12);

/// One of many connections that announce uploads, to each node more than it has slots for, and send nothing of them.
pub(super) async fn hoard(nth: u64, process: task::NodeId, cast: Cast) {
    let scenario = cast.facts().scenario.clone();
    let seed = Seed(scenario.seed.0 ^ (nth + 1) << 44);
    let mut rng = seed.stream("hoarder");
    let key = scenario.keyed.then(|| secret(seed, "shared", 0, false));
    // Two in a row are of one node, so that both sources have the same number of connections to each.
    let node = scenario.nodes[usize::try_from(nth / 2).expect("few") % scenario.nodes.len()];
    while cast.time.elapsed() < HOARDED {
        let announced = async {
            let mut line = wire::line(cast.transport(process).connect(&address(node)).await?);
            greeting::meet(&mut line, None, Part::Client, node, key.as_ref()).await?;
            // A small body follows the request at once, a larger one after the node's request for it.
            let bytes = [3_000, 100_000][rng.random_range(0..2)];
            let id = RequestId(u128::from(rng.next_u64()) << 64 | 0x40a2d);
            let put = Put { id, label: label(), bytes, again: false, excluded: [].into() };
            wire::write_frame(&mut line, &Request::Put(put)).await?;
            Ok::<_, Unmet>(line)
        };
        match timeout(limits().connect, announced).await {
            Ok(Ok(mut line)) => {
                // A little less than the node waits for.
                let patience = limits().idle - Duration::from_millis(200);
                let answer = timeout(patience, wire::read_frame::<Word>(&mut line)).await;
                cast.witness.hit(match answer {
                    Ok(Err(_)) => "hoarder: is broken off",
                    Ok(Ok(_)) => "hoarder: is answered",
                    Err(_) => "hoarder: is waited for",
                });
                sleep(Duration::from_millis(rng.random_range(100..500))).await;
            }
            _ => sleep(Duration::from_millis(rng.random_range(50..500))).await,
        }
    }
}

/// Greets as a peer several times, from an address that is not a peer's, and forges what it can where it is accepted.
pub(super) async fn forge(process: task::NodeId, cast: Cast) {
    let scenario = cast.facts().scenario.clone();
    let mut rng = scenario.seed.stream("forger");
    for number in 0..rng.random_range(2..8_u64) {
        sleep(rng.random_range(Duration::ZERO..Duration::from_secs(3))).await;
        let node = scenario.nodes[rng.random_range(0..scenario.nodes.len())];
        let claimed = scenario.nodes[rng.random_range(0..scenario.nodes.len())];
        let part = if rng.random_bool(0.6) { Part::Peer } else { Part::Order };
        let seed = Seed(scenario.seed.0 ^ (number + 1) << 52);
        let secret = match rng.random_range(0..5) {
            0 => Some(secret(seed, "guessed", 0, true)),
            1 => None,
            // It is a client besides.
            _ => scenario.keyed.then(|| secret(seed, "shared", 0, false)),
        };
        let met = async {
            let stream = cast.transport(process).connect(&address(node)).await?;
            let mut line = wire::line(stream);
            greeting::meet(&mut line, Some(claimed), part, node, secret.as_ref()).await?;
            Ok::<_, Unmet>(line)
        };
        match timeout(limits().connect, met).await {
            Ok(Ok(line)) => {
                // A node without any key, among others that have one, follows its own file.
                let keyless = scenario.anywhere && scenario.locked_out == Some((node, false));
                if !scenario.lets_forgers_in() && !keyless {
                    let leaked = format!("{node} takes a process that is not a peer for {claimed} ({part:?})");
                    cast.facts().leaked.push(leaked);
                }
                cast.witness.note("forger", format_args!("passes for {claimed} at {node}"));
                cast.witness.hit("forger: passes for a peer");
                let outcome = timeout(limits().idle, lie(line, claimed, part, &cast, &mut rng)).await;
                if let Ok(Err(error)) = outcome {
                    cast.witness.note("forger", format_args!("{error}"));
                }
            }
            Ok(Err(Unmet::Refused(refusal))) => {
                cast.witness.note("forger", format_args!("{refusal}"));
                cast.witness.hit(match refusal {
                    Refusal::Objected(Objection::Elsewhere { .. }) => "forger: refused, comes from elsewhere",
                    Refusal::WrongKey { .. } => "forger: refused, does not know the key",
                    _ => "forger: refused",
                });
            }
            _ => cast.witness.hit("forger: is not heard"),
        }
    }
}

/// A term of this node among this many, close below the highest possible.
fn absurd_term(scenario: &Scenario, node: NodeId, rng: &mut impl Rng) -> Term {
    let (nodes, rank) =
        (scenario.nodes.len() as u64, scenario.nodes.iter().position(|it| *it == node).unwrap_or(0) as u64);
    let near = [u64::MAX / 4, u64::MAX / 4, 1 << 61, (1 << 33) + 64][rng.random_range(0..4)] - rng.random_range(0..40);
    Term(near - near % nodes + rank - if near % nodes < rank { nodes } else { 0 })
}

fn label() -> Label {
    Label::of("eve.png", User::try_from("eve".to_owned()).expect("a sound name"), WallTime(1))
}

/// Sends as a peer what no honest one sends.
async fn lie(mut line: Line<Stream>, claimed: NodeId, part: Part, cast: &Cast, rng: &mut impl Rng) -> io::Result<()> {
    let scenario = cast.facts().scenario.clone();
    let leader = scenario.nodes[rng.random_range(0..scenario.nodes.len())];
    let newest = Leadership { term: absurd_term(&scenario, leader, rng), leader: Some(leader) };
    if part == Part::Order {
        let id = RequestId(u128::from(rng.next_u64()) << 64 | 0xf0_96ed);
        let put = Put { id, label: label(), bytes: 3, again: false, excluded: [].into() };
        cast.facts().forged.insert(id);
        wire::put_frame(&mut line, &Order::Store { put, leadership: newest }).await?;
        line.write_all(b"eve").await?;
        line.flush().await?;
        let word = wire::read_frame::<Word>(&mut line).await?;
        cast.witness.note("forger", format_args!("orders as {newest}: {word:?}"));
        cast.witness.hit("forger: orders as an absurd leader");
        return Ok(());
    }
    let peers = peers_of(&scenario).digest();
    let known = cast.facts().nodes.values().map(|node| node.disk.leadership()).max().unwrap_or_default();
    let messages = [
        Message::Ballot(Ballot { newest, word: election::Word::Outdated }),
        Message::Ballot(Ballot { newest, word: election::Word::Victory }),
        Message::Census { of: newest, level: Some((1 << 60) - 2) },
        Message::Census { of: known, level: Some(1 << [39, 60, 63][rng.random_range(0..3)]) },
    ];
    for message in messages {
        wire::write_frame(&mut line, &Envelope { from: claimed, peers, message }).await?;
        // It was received once it is confirmed.
        line.read_exact(&mut [0; 1]).await?;
    }
    cast.witness.hit("forger: names an absurd term");
    Ok(())
}
