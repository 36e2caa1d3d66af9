//! What both sides of a connection say before anything else: `omb_core::handshake` over bytes. The caller bounds the time.

use std::{fmt, io, sync::Arc};

use omb_core::{
    handshake::{
        GREETING_BYTES, Greeting, Key, Meeting, Nonce, Opening, PROOF_BYTES, Refusal, Side, TERMS_BYTES, fits,
    },
    node::message::VERSION,
    peer::NodeId,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What a node or a client shows, and wants to be shown, where a cluster has a shared key.
#[derive(Clone)]
pub struct Secret {
    /// The key.
    pub key: Key,
    /// Where nonces come from: the system's randomness, or a simulation's seed. Each is used once.
    pub nonces: Arc<dyn Fn() -> Nonce + Send + Sync>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why nothing can be said over a connection.
#[derive(Debug, thiserror::Error)]
pub enum Unmet {
    /// It broke.
    #[error("{0}")]
    Broken(#[from] io::Error),
    /// The two do not speak with each other.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

impl Unmet {
    /// Of a connection that could not be made, or taken in: TLS that fails would fail again.
    pub(super) fn opening(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::InvalidData => Refusal::Unsecured(error.to_string()).into(),
            _ => error.into(),
        }
    }
}

fn opening(node: Option<NodeId>, secret: Option<&Secret>) -> Opening {
    let nonce = secret.map(|secret| (secret.nonces)());
    Opening { greeting: Greeting { version: VERSION, node }, nonce }
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

/// Meets the node `peer`, which was connected to, as the node or (`None`) the client `me`.
///
/// # Errors
/// If the connection broke, or one of the two does not speak with the other.
pub async fn meet<S>(stream: &mut S, me: Option<NodeId>, peer: NodeId, secret: Option<&Secret>) -> Result<(), Unmet>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mine = opening(me, secret);
    write(stream, &mine.encode()).await?;
    let greeting = Greeting::decode(read::<GREETING_BYTES>(stream).await?)?;
    fits(mine.greeting, greeting)?;
    if greeting.node != Some(peer) {
        return Err(Refusal::OtherNode.into());
    }
    let theirs = Opening::decode(greeting, read::<TERMS_BYTES>(stream).await?)?;
    let meeting = Meeting::new(Side::Connector, secret.map(|secret| &secret.key), &mine, &theirs)?;
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
    Ok(())
}

/// Meets whoever has connected to the node `me`. Says who it is, or wants to be, also where it is refused.
pub(super) async fn receive<S>(
    stream: &mut S,
    me: NodeId,
    secret: Option<&Secret>,
) -> Result<Option<NodeId>, (Option<NodeId>, Unmet)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut calls_itself = None;
    match meet_stranger(stream, me, secret, &mut calls_itself).await {
        Ok(()) => Ok(calls_itself),
        Err(unmet) => {
            if matches!(unmet, Unmet::Refused(_)) {
                linger(stream).await;
            }
            Err((calls_itself, unmet))
        }
    }
}

async fn meet_stranger<S>(
    stream: &mut S,
    me: NodeId,
    secret: Option<&Secret>,
    calls_itself: &mut Option<NodeId>,
) -> Result<(), Unmet>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mine = opening(Some(me), secret);
    let greeting = Greeting::decode(read::<GREETING_BYTES>(stream).await?);
    if let Ok(greeting) = greeting {
        *calls_itself = greeting.node;
    }
    let greeting = match greeting.and_then(|greeting| fits(mine.greeting, greeting).map(|()| greeting)) {
        Ok(greeting) => greeting,
        Err(refusal) => {
            // So that another version, or a speaker of TLS, learns whom it has reached.
            write(stream, &mine.encode()).await?;
            return Err(refusal.into());
        }
    };
    let theirs = Opening::decode(greeting, read::<TERMS_BYTES>(stream).await?)?;
    let meeting = Meeting::new(Side::Acceptor, secret.map(|secret| &secret.key), &theirs, &mine);
    let mut bytes = mine.encode();
    let proof = meeting.as_ref().ok().and_then(|meeting| meeting.proof(Side::Acceptor));
    bytes.extend(proof.iter().flatten());
    write(stream, &bytes).await?;
    let meeting = meeting?;
    if proof.is_some() {
        let [proven, proof @ ..] = read::<{ 1 + PROOF_BYTES }>(stream).await?;
        if proven != 1 {
            return Err(Refusal::WrongKey.into());
        }
        meeting.check(Side::Connector, &proof)?;
    }
    Ok(())
}

/// Unread bytes at the close would reset the connection under what was just said.
pub(super) async fn linger(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = [0; 1_024];
    for _ in 0..64 {
        if matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {
            break;
        }
    }
}
