//! Somebody who knocks at every node: with another key or none, and with words that break off or are none at all.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use madsim::{task, time::sleep};
use omb_core::{
    handshake::{GREETING_BYTES, Greeting, Key, Nonce, Opening, PROOF_BYTES, TERMS_BYTES},
    node::message::{Envelope, Message, Put, Request, VERSION},
    peer::{Digest, NodeId, RequestId, User},
    seed::Seed,
};
use rand::{Rng, RngExt as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::world::{Cast, address, ask, limits};
use crate::{
    cluster::{Nodes, Secret, wire},
    fleet::Transport as _,
};

/// A key of this name, with nonces of which no life of a process draws what another one has drawn.
pub(super) fn secret(seed: Seed, name: &str, life: u128) -> Secret {
    let rng = Mutex::new(seed.stream(&format!("nonces {life}")));
    let nonces = move || {
        let mut nonce = [0; 32];
        rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut nonce);
        Nonce(nonce)
    };
    let key = Key::new(format!("the key of this cluster: {name}").as_bytes()).expect("long enough");
    Secret { key, nonces: Arc::new(nonces) }
}

/// All that a node says to who has proven nothing.
const SAID_MOST: usize = GREETING_BYTES + TERMS_BYTES + PROOF_BYTES;

/// How much later than its bound a calm node may close: packets take some time.
const SLACK: Duration = Duration::from_millis(200);

/// Knocks some times, and notes what it was given.
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
    let secret = rng.random_bool(0.5).then(|| secret(seed, "guessed", 0));
    let nodes = honest.map(|node| (node, address(node))).collect();
    let nodes = Nodes::new(cast.transport(process), nodes, limits(), secret);
    let stored = cast.facts().uploads.values().find_map(|upload| upload.acknowledged);
    let request = match (rng.random_range(0..3), stored) {
        (0, Some((_, stored, _))) => Request::Get { name: stored.name, here: false },
        (1, _) => Request::List { after: None },
        _ => Request::Put(Put {
            id: RequestId(rng.next_u64().into()),
            user: User::try_from("eve".to_owned()).expect("a sound name"),
            bytes: 3,
            again: false,
            excluded: [].into(),
        }),
    };
    match ask(&nodes, cast, request.clone(), b"eve".to_vec(), seed).await {
        Ok(reply) => {
            let leaked = format!("who lacks the key asked {request:?} and was answered {reply:?}");
            cast.facts().leaked.push(leaked);
        }
        Err(gave_up) => {
            cast.witness.note("intruder", format_args!("{gave_up}"));
            cast.witness.hit("intruder: gets nothing for a question");
        }
    }
}

/// Says what begins like a handshake at best, and listens.
async fn mumble(process: task::NodeId, cast: &Cast, node: NodeId, rng: &mut impl Rng) {
    let keyed = cast.facts().scenario.keyed;
    let mut words = vec![0; rng.random_range(1..200)];
    rng.fill_bytes(&mut words);
    let peers = cast.facts().scenario.nodes.clone();
    let claimed = peers[rng.random_range(0..peers.len())];
    let nonce = Some(Nonce(std::array::from_fn(|nth| words[nth % words.len()])));
    let opening = Opening { greeting: Greeting { version: VERSION, node: Some(claimed) }, nonce }.encode();
    match rng.random_range(0..4) {
        0 => {}
        // Breaks off within the greeting.
        1 => words = opening[..rng.random_range(0..opening.len())].to_vec(),
        // Proves nothing, and votes all the same.
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
    let (mut said, mut piece) = (0, [0; 256]);
    let closed = timeout(limits().connect * 2, async {
        while let Ok(count @ 1..) = stream.read(&mut piece).await {
            said += count;
        }
    });
    let closed = closed.await.is_ok();
    cast.witness.hit("intruder: is closed upon");
    let took = cast.time.elapsed() - began;
    let mut facts = cast.facts();
    if keyed && said > SAID_MOST {
        facts.leaked.push(format!("{node} said {said} bytes to who has proven nothing"));
    }
    // A cluster without a key refuses whoever wants one.
    let calm = facts.scenario.troubles.is_empty();
    if calm && (!closed || took > limits().connect + SLACK) {
        facts.leaked.push(format!("{node} listened for {took:?} to who has proven nothing"));
    }
}
