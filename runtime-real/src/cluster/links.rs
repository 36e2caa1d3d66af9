//! This node's connections to its peers, one each, over which it speaks; what they say comes over theirs.
//!
//! A peer confirms each frame with one byte. Who confirms nothing for [`Limits::silent`] is gone, or the way to it is:
//! the connection is thrown away, what waited is lost, and another one is made.

use std::{io, pin::pin, time::Duration};

use omb_core::{
    node::{
        Input,
        message::{Envelope, VERSION},
    },
    peer::NodeId,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    Limits,
    wire::{self, Greeting},
};
use crate::fleet::{Address, Transport};

/// Messages that may wait for a peer; more are lost.
pub(super) const QUEUE: usize = 256;
/// Messages that may be unconfirmed.
const WINDOW: usize = 256;

/// Holds a connection to `peer` for as long as `queue` lasts.
pub(super) async fn hold<T: Transport>(
    me: NodeId,
    peer: NodeId,
    to: Address,
    transport: T,
    limits: Limits,
    mut queue: mpsc::Receiver<Envelope>,
    inputs: mpsc::UnboundedSender<Input>,
) {
    let mut pause = limits.pause.0;
    loop {
        match timeout(limits.connect, connect(me, peer, &to, &transport)).await {
            Ok(Ok(Connected::Ready(stream))) => {
                // What was said while nobody heard it is no news any more.
                while queue.try_recv().is_ok() {}
                if inputs.send(Input::Connected(peer)).is_err() {
                    return;
                }
                if matches!(speak(stream, &mut queue, limits).await, Ok(())) {
                    return;
                }
                pause = limits.pause.0;
            }
            Ok(Ok(Connected::OtherVersion(version))) => {
                if inputs.send(Input::OtherVersion { peer, version }).is_err() {
                    return;
                }
            }
            Ok(Err(_)) | Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(limits.pause.1);
        if inputs.is_closed() {
            return;
        }
    }
}

enum Connected<S> {
    Ready(S),
    OtherVersion(u16),
}

async fn connect<T: Transport>(
    me: NodeId,
    peer: NodeId,
    to: &Address,
    transport: &T,
) -> io::Result<Connected<T::Stream>> {
    let mut stream = transport.connect(to).await?;
    wire::greet(&mut stream, Greeting::of(Some(me))).await?;
    let greeting = wire::read_greeting(&mut stream).await?;
    if greeting.node != Some(peer) {
        return Err(wire::invalid("another node listens there"));
    }
    if greeting.version != VERSION {
        return Ok(Connected::OtherVersion(greeting.version));
    }
    Ok(Connected::Ready(stream))
}

/// Sends what comes until the connection fails, or (`Ok`) nothing will come any more.
async fn speak<S>(stream: S, queue: &mut mpsc::Receiver<Envelope>, limits: Limits) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
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
                timeout(limits.silent, wire::write_frame(&mut writer, &envelope)).await.map_err(|_| silent())??;
                if unconfirmed == 0 {
                    nap.set(sleep(limits.silent));
                }
                unconfirmed += 1;
            }
        }
    }
}
