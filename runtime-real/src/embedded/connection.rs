//! One client: frames in, one request after another to the broker, answers out in their order.
//!
//! As with Kafka, a connection's next request is read once the one before is answered. That alone keeps the answers in
//! order, and a producer whose batch waits for room is held back by TCP itself.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    rc::Rc,
};

use bytes::{Buf, Bytes, BytesMut};
use omb_broker::{ConnId, Input, Request, Response, Token};
use omb_kafka::{
    outgoing::Outgoing,
    serving::{self, Endpoint, Incoming, Malformed, Ticket},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};
use tracing::{debug, warn};

use super::{Host, Mailbox, intake::FREE};

/// What is read at once, at most. Most connections are idle, so each begins with [`READ_FIRST`].
const READ_SIZE: usize = 256 * 1024;

/// What is read at once on a connection that has sent little.
const READ_FIRST: usize = 4 * 1024;

/// Answers gathered before they are written although more requests are at hand.
const WRITE_SIZE: usize = 1024 * 1024;

/// Pieces per system call; the kernel takes up to 1024.
const SLICES_MAX: usize = 64;

/// Why a connection ended, other than because the client left.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a frame of {length} bytes, more than the {limit} that are allowed")]
    TooLong { length: u32, limit: u32 },
    #[error("a frame of {length} bytes that came too slowly while others waited")]
    TooSlow { length: usize },
}

/// Serves a client until it leaves, or sends what cannot be understood.
pub(super) async fn serve(host: Rc<Host>, mut stream: TcpStream, client: SocketAddr, local: SocketAddr) {
    // Without it, an answer would wait for the client's acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        warn!(%client, %error, "embedded broker: connection not served");
        return;
    }
    let (name, port) = host.advertise.clone().unwrap_or_else(|| (local.ip().to_string(), local.port()));
    let endpoint = Endpoint { host: name, port, client, cluster: host.cluster.clone() };
    let open = Open::new(&host);
    let (received, outgoing) = (BytesMut::new(), Outgoing::default());
    let mut connection = Connection { open, endpoint, received, read_size: READ_FIRST, granted: None, outgoing };
    match connection.run(&mut stream).await {
        Ok(()) => debug!(%client, "embedded broker: connection closed"),
        Err(Ended::Io(error)) => debug!(%client, %error, "embedded broker: connection lost"),
        Err(error) => warn!(%client, %error, "embedded broker: connection closed for what it sent"),
    }
}

/// Writes all of it.
async fn flush(outgoing: &mut Outgoing, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    while !outgoing.is_empty() {
        let pieces = outgoing.pieces();
        let written = if pieces.len() == 1 {
            to.write(&pieces[0]).await?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(pieces) {
                *slice = IoSlice::new(piece);
                count += 1;
            }
            to.write_vectored(&slices[..count]).await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        outgoing.advance(written);
    }
    Ok(())
}

/// A connection that the broker counts, until this is dropped: also if serving it panics.
struct Open<'a> {
    host: &'a Host,
    id: ConnId,
    mailbox: Rc<Mailbox>,
}

impl<'a> Open<'a> {
    fn new(host: &'a Host) -> Self {
        let (id, mailbox) = host.open();
        Self { host, id, mailbox }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.host.intake.release(self.id);
        self.host.close(self.id);
    }
}

struct Connection<'a> {
    open: Open<'a>,
    endpoint: Endpoint,
    received: BytesMut,
    /// What is read at once, by how much came before.
    read_size: usize,
    /// Permission for the large frame at the front of `received`; notified if it is given up.
    granted: Option<Rc<Notify>>,
    outgoing: Outgoing,
}

impl Connection<'_> {
    async fn run(&mut self, stream: &mut TcpStream) -> Result<(), Ended> {
        loop {
            while let Some(frame) = self.next_frame()? {
                let answered = self.answer(stream, frame).await;
                if self.granted.take().is_some() {
                    self.open.host.intake.release(self.open.id);
                }
                if let Some(message) = answered? {
                    self.outgoing.put_frame(message);
                }
                if self.outgoing.len() >= WRITE_SIZE {
                    flush(&mut self.outgoing, stream).await?;
                }
            }
            flush(&mut self.outgoing, stream).await?;
            if !self.read_on(stream).await? {
                return Ok(());
            }
        }
    }

    async fn answer(&mut self, stream: &mut TcpStream, frame: Bytes) -> Result<Option<Outgoing>, Ended> {
        match serving::read(frame, &self.endpoint)? {
            Incoming::Answered(message) => Ok(Some(message)),
            Incoming::Ask(requests, ticket) => self.ask(stream, requests, ticket).await,
        }
    }

    /// Reads more of the next frame, once that is permitted; `false` at the end.
    async fn read_on(&mut self, stream: &mut TcpStream) -> Result<bool, Ended> {
        let (host, id) = (self.open.host, self.open.id);
        let length = self.length();
        if length > FREE && self.granted.is_none() {
            self.granted = Some(host.intake.acquire(id, self.endpoint.client.ip(), length as u64).await);
        }
        let Some(given_up) = self.granted.clone() else { return Ok(self.read(stream).await?) };
        let read = tokio::select! {
            biased;
            read = self.read(stream) => read?,
            () = given_up.notified() => return Err(Ended::TooSlow { length }),
        };
        host.intake.received(id, self.received.len() as u64);
        Ok(read)
    }

    /// Has the broker answer; `None` if no answer is expected.
    async fn ask(
        &mut self,
        stream: &mut TcpStream,
        requests: Vec<Request>,
        ticket: Ticket,
    ) -> Result<Option<Outgoing>, Ended> {
        let mut responses: Vec<Response> = Vec::with_capacity(requests.len());
        for request in requests {
            let Open { host, id, mailbox } = &self.open;
            host.handle(Input::Request { conn: *id, token: Token(0), request });
            let response = match mailbox.take() {
                Some(response) => response,
                None => {
                    flush(&mut self.outgoing, stream).await?;
                    self.wait(stream, ticket.silent).await?
                }
            };
            responses.push(response);
        }
        let silent = ticket.silent;
        let message = ticket.answer(responses, &self.endpoint);
        Ok((!silent).then_some(message))
    }

    /// Waits for the broker's answer, and meanwhile notices if the client disconnects.
    async fn wait(&mut self, stream: &mut TcpStream, silent: bool) -> Result<Response, Ended> {
        let mailbox = Rc::clone(&self.open.mailbox);
        let mut listen = true;
        loop {
            // If a client has sent much more already, its disconnect is noticed when that is read: it is not buffered.
            listen &= self.received.len() < FREE;
            tokio::select! {
                biased;
                response = mailbox.wait() => return Ok(response),
                read = self.read(stream), if listen => match read {
                    Ok(true) => {}
                    // What was sent without requesting an answer counts all the same.
                    Ok(false) if silent => listen = false,
                    Ok(false) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    /// Reads what has come; `false` at the end. Memory is taken as the bytes come, whatever length was announced.
    async fn read(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        let room = self.received.capacity() - self.received.len();
        let missing = self.length().saturating_sub(self.received.len());
        let want = self.read_size.max(missing.min(READ_SIZE.max(self.received.len())));
        if room < want / 4 || room < READ_FIRST {
            self.received.reserve(want);
        }
        let room = self.received.capacity() - self.received.len();
        let count = stream.read_buf(&mut self.received).await?;
        if count == room {
            self.read_size = (self.read_size * 4).min(READ_SIZE);
        } else if count < self.read_size / 8 {
            self.read_size = (self.read_size / 2).max(READ_FIRST);
        }
        Ok(count > 0)
    }

    /// Bytes of the frame at the front, its length included; as many as are needed to know that, if they are missing.
    fn length(&self) -> usize {
        self.received.first_chunk().map_or(4, |length| u32::from_be_bytes(*length) as usize + 4)
    }

    /// Takes the next whole frame. A length beyond the limit is found before anything is allocated for it.
    fn next_frame(&mut self) -> Result<Option<Bytes>, Ended> {
        let Some(length) = self.received.first_chunk() else { return Ok(None) };
        let (length, limit) = (u32::from_be_bytes(*length), self.open.host.frame_max);
        if length > limit {
            return Err(Ended::TooLong { length, limit });
        }
        if self.received.len() - 4 < length as usize {
            return Ok(None);
        }
        self.received.advance(4);
        Ok(Some(self.received.split_to(length as usize).freeze()))
    }
}
