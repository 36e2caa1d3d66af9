//! What both sides of a connection send before anything else: `omb_cluster::handshake` over bytes. The caller bounds
//! the time.

use std::{fmt, io, net::IpAddr, sync::Arc};

use omb_cluster::{
    handshake::{
        GREETING_BYTES, Greeting, Keys, Meeting, Nonce, Objection, Opening, PROOF_BYTES, Part, Refusal, Side,
        TERMS_BYTES, VERDICT_BYTES, decode_verdict, encode_verdict, fits,
    },
    node::message::VERSION,
    peer::NodeId,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{server::Server, wire::Line};
use crate::portable::fleet::{Listener, Transport};

/// What a node or a client proves, and requires as proof, if a cluster has keys.
#[derive(Clone)]
pub struct Secret {
    /// The keys.
    pub keys: Keys,
    /// Where nonces come from: the system's randomness, or a simulation's seed. Each is used once.
    pub nonces: Arc<dyn Fn() -> Nonce + Send + Sync>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a connection cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unmet {
    /// It broke.
    #[error("{0}")]
    Broken(#[from] io::Error),
    /// One side refuses the other.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

impl Unmet {
    /// For a connection that could not be opened: TLS that fails would fail again.
    pub(super) fn opening(error: io::Error) -> Self {
        match error.kind() {
            // It may quote the content of a certificate.
            io::ErrorKind::InvalidData => Refusal::unsecured(&error.to_string()).into(),
            _ => error.into(),
        }
    }

    /// For a connection that was opened, and broke before the other side had accepted this one: over TLS, that side
    /// reports only now that it does not accept this one's certificate.
    pub(super) fn settled(self) -> Self {
        match self {
            Self::Broken(error) => Self::opening(error),
            refused => refused,
        }
    }
}

/// The connector, once it has proven what it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Guest {
    /// A client.
    Client,
    /// A peer that sends messages.
    Peer(NodeId),
    /// A peer that sends orders.
    Order(NodeId),
}

fn opening(node: Option<NodeId>, part: Part, secret: Option<&Secret>, connector: Part) -> Opening {
    let secret = secret.filter(|secret| secret.keys.of(connector).is_some());
    Opening { greeting: Greeting { version: VERSION, node }, part, nonce: secret.map(|secret| (secret.nonces)()) }
}

async fn read<const N: usize>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes).await?;
    to.flush().await
}

/// Meets the node `peer`, which was connected to, in this part, as the node or (`None`) the client `me`.
///
/// # Errors
/// If the connection broke, or one side refuses the other.
pub async fn meet<S>(
    stream: &mut S,
    me: Option<NodeId>,
    part: Part,
    peer: NodeId,
    secret: Option<&Secret>,
) -> Result<(), Unmet>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mine = opening(me, part, secret, part);
    write(stream, &mine.encode()).await?;
    let greeting = Greeting::decode(read::<GREETING_BYTES>(stream).await?)?;
    fits(mine.greeting, greeting)?;
    if greeting.node != Some(peer) {
        return Err(Refusal::OtherNode.into());
    }
    let theirs = Opening::decode(greeting, read::<TERMS_BYTES>(stream).await?)?;
    let key = secret.and_then(|secret| secret.keys.of(part));
    let meeting = Meeting::new(Side::Connector, key, &mine, &theirs)?;
    if let Some(proof) = meeting.proof(Side::Connector) {
        let checked = meeting.check(Side::Acceptor, &read::<PROOF_BYTES>(stream).await?);
        let mut word = [0; 1 + PROOF_BYTES];
        if checked.is_ok() {
            word[0] = 1;
            word[1..].copy_from_slice(&proof);
        }
        write(stream, &word).await?;
        checked?;
    }
    if part.is_peer() {
        decode_verdict(&read::<VERDICT_BYTES>(stream).await?)?;
    }
    Ok(())
}

/// Meets a side that connected to this node from this address. Returns who it is, or the id it claims if it is refused.
pub(super) async fn receive<L, T, D>(
    line: &mut Line<L::Stream>,
    from: IpAddr,
    server: &Server<T, D>,
) -> Result<Guest, (Option<NodeId>, Unmet)>
where
    L: Listener,
    T: Transport + Sync,
    D: Sync,
{
    let mut calls_itself = None;
    match meet_stranger::<L, T, D>(line, from, server, &mut calls_itself).await {
        Ok(guest) => Ok(guest),
        Err(unmet) => {
            if matches!(unmet, Unmet::Refused(_)) {
                linger(line).await;
            }
            Err((calls_itself, unmet))
        }
    }
}

async fn meet_stranger<L, T, D>(
    stream: &mut Line<L::Stream>,
    from: IpAddr,
    server: &Server<T, D>,
    calls_itself: &mut Option<NodeId>,
) -> Result<Guest, Unmet>
where
    L: Listener,
    T: Transport + Sync,
    D: Sync,
{
    let (me, secret) = (Some(server.me), server.secret.as_ref());
    let mine = Opening { greeting: Greeting { version: VERSION, node: me }, part: Part::Node, nonce: None };
    let greeting = Greeting::decode(read::<GREETING_BYTES>(stream).await?);
    if let Ok(greeting) = greeting {
        *calls_itself = greeting.node;
    }
    let greeting = match greeting.and_then(|greeting| fits(mine.greeting, greeting).map(|()| greeting)) {
        Ok(greeting) => greeting,
        Err(refusal) => {
            // So that another version, or a side that speaks TLS, learns what it has reached.
            write(stream, &mine.encode()).await?;
            return Err(refusal.into());
        }
    };
    let theirs = Opening::decode(greeting, read::<TERMS_BYTES>(stream).await?)?;
    let mine = opening(me, Part::Node, secret, theirs.part);
    let key = secret.and_then(|secret| secret.keys.of(theirs.part));
    let meeting = Meeting::new(Side::Acceptor, key, &theirs, &mine);
    let mut bytes = mine.encode();
    let proof = meeting.as_ref().ok().and_then(|meeting| meeting.proof(Side::Acceptor));
    bytes.extend(proof.iter().flatten());
    write(stream, &bytes).await?;
    let meeting = meeting?;
    let mut proven = Ok(());
    if proof.is_some() {
        let [own, proof @ ..] = read::<{ 1 + PROOF_BYTES }>(stream).await?;
        let refused = Err(Refusal::WrongKey { peers: theirs.part.is_peer() });
        proven = if own == 1 { meeting.check(Side::Connector, &proof) } else { refused };
    }
    let (Some(peer), true) = (greeting.node, theirs.part.is_peer()) else {
        return Ok(proven.map(|()| Guest::Client)?);
    };
    let known = proven.and_then(|()| server.gate.knows::<L>(server.me, peer, stream.get_ref().get_ref()));
    let admitted = match known {
        Ok(()) => server.gate.admits(peer, from).await,
        refused => refused,
    };
    let objection = admitted.as_ref().err().and_then(Objection::of);
    if admitted.is_ok() || objection.is_some() {
        write(stream, &encode_verdict(objection.as_ref())).await?;
    }
    admitted?;
    Ok(if theirs.part == Part::Order { Guest::Order(peer) } else { Guest::Peer(peer) })
}

/// Unread bytes at the close would reset the connection before what was just sent is read.
pub(super) async fn linger(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = [0; 1_024];
    for _ in 0..64 {
        if matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {
            break;
        }
    }
}
