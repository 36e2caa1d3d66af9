//! This node's connections to its peers, one each, over which it sends messages; theirs arrive over their own.
//!
//! A peer confirms each frame with one byte. If it confirms nothing for [`Limits::silent`], it or the network to it is
//! gone: the connection is dropped, what waited is lost, and another one is opened.

use std::{io, pin::pin, time::Duration};

use omb_cluster::{
    handshake::Part,
    node::{Input, Stranger, message::Envelope},
    peer::NodeId,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    Limits,
    greeting::{self, Secret, Unmet},
    wire::{self, Line},
};
use crate::portable::fleet::{Address, Transport};

/// Messages that may wait for a peer; more are lost.
pub(super) const QUEUE: usize = 256;
/// Messages that may be unconfirmed.
const WINDOW: usize = 256;
/// Of them, those that the receiver confirms at the latest.
pub(super) const CONFIRM: usize = WINDOW / 4;

/// One end of a connection to a peer.
pub(super) struct Link {
    pub(super) me: NodeId,
    pub(super) peer: NodeId,
    pub(super) to: Address,
    pub(super) limits: Limits,
    pub(super) secret: Option<Secret>,
}

impl Link {
    /// Holds a connection for as long as `queue` lasts.
    pub(super) async fn hold<T: Transport>(
        self,
        transport: T,
        mut queue: mpsc::Receiver<Envelope>,
        inputs: mpsc::UnboundedSender<Input>,
    ) {
        let Self { peer, limits, .. } = self;
        let mut pause = limits.pause.0;
        loop {
            match timeout(limits.connect, self.connect(&transport)).await {
                Ok(Ok(line)) => {
                    // Messages queued while there was no connection are outdated.
                    while queue.try_recv().is_ok() {}
                    if inputs.send(Input::Connected(peer)).is_err() {
                        return;
                    }
                    if matches!(speak(line, &mut queue, limits).await, Ok(())) {
                        return;
                    }
                    pause = limits.pause.0;
                }
                Ok(Err(Unmet::Refused(refusal))) => {
                    let stranger = Stranger::Peer(peer);
                    if inputs.send(Input::TurnedAway { stranger, refusal }).is_err() {
                        return;
                    }
                }
                Ok(Err(Unmet::Broken(error))) => tracing::debug!("{peer} cannot be connected to: {error}"),
                Err(_) => tracing::debug!("{peer} cannot be connected to in time"),
            }
            sleep(pause).await;
            pause = (pause * 2).min(limits.pause.1);
            if inputs.is_closed() {
                return;
            }
        }
    }

    async fn connect<T: Transport>(&self, transport: &T) -> Result<Line<T::Stream>, Unmet> {
        let mut line = wire::line(transport.connect(&self.to).await.map_err(Unmet::opening)?);
        let met = greeting::meet(&mut line, Some(self.me), Part::Peer, self.peer, self.secret.as_ref()).await;
        met.map_err(Unmet::settled)?;
        Ok(line)
    }
}

/// Sends what arrives in `queue` until the connection fails, or (`Ok`) the queue has ended.
async fn speak<S>(line: Line<S>, queue: &mut mpsc::Receiver<Envelope>, limits: Limits) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(line);
    let mut unconfirmed = 0_usize;
    let mut confirmations = [0; WINDOW];
    let mut nap = pin!(sleep(limits.keep_alive));
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "the peer confirms nothing");
    loop {
        let after =
            |unconfirmed: usize| -> Duration { if unconfirmed == 0 { limits.keep_alive } else { limits.silent } };
        tokio::select! {
            biased;
            read = reader.read(&mut confirmations) => {
                let count = read?;
                if count == 0 || count > unconfirmed {
                    return Err(wire::invalid("the peer has hung up"));
                }
                unconfirmed -= count;
                nap.set(sleep(after(unconfirmed)));
            }
            () = &mut nap => {
                if unconfirmed > 0 {
                    return Err(silent());
                }
                timeout(limits.silent, wire::write_empty(&mut writer)).await.map_err(|_| silent())??;
                unconfirmed = 1;
                nap.set(sleep(limits.silent));
            }
            envelope = queue.recv(), if unconfirmed < WINDOW => {
                let Some(envelope) = envelope else { return Ok(()) };
                if unconfirmed == 0 {
                    nap.set(sleep(limits.silent));
                }
                // All queued messages go out together.
                let write = async {
                    let mut next = Some(envelope);
                    while let Some(envelope) = next {
                        wire::put_frame(&mut writer, &envelope).await?;
                        unconfirmed += 1;
                        next = if unconfirmed < WINDOW { queue.try_recv().ok() } else { None };
                    }
                    writer.flush().await
                };
                timeout(limits.silent, write).await.map_err(|_| silent())??;
            }
        }
    }
}
