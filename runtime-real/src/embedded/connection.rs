//! One client: frames in, one request after the other to the broker, answers out in their order.
//!
//! As with Kafka, a connection's next request is looked at when the one before is answered. That alone keeps
//! the answers in order, and a producer whose batch waits for room is held back by TCP itself.

use std::{io, net::SocketAddr, rc::Rc};

use bytes::{Buf, Bytes, BytesMut};
use omb_core::broker::{ConnId, Input, Request, Response, Token};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tracing::{debug, warn};

use super::{
    Host, Mailbox,
    codec::{self, Endpoint, Incoming, Malformed, Ticket},
    outgoing::Outgoing,
};

/// What is read at once, at most. A frame that is larger is given its size.
const READ_SIZE: usize = 256 * 1024;

/// Answers gathered before they are written although more requests are at hand.
const WRITE_SIZE: usize = 1024 * 1024;

/// Why a connection ended other than by the client's wish.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a frame of {length} bytes, more than the {limit} that are allowed")]
    TooLong { length: u32, limit: u32 },
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
    let mut connection = Connection { open, endpoint, received: BytesMut::new(), outgoing: Outgoing::default() };
    match connection.run(&mut stream).await {
        Ok(()) => debug!(%client, "embedded broker: connection closed"),
        Err(Ended::Io(error)) => debug!(%client, %error, "embedded broker: connection lost"),
        Err(error) => warn!(%client, %error, "embedded broker: connection closed for what it sent"),
    }
}

/// A connection the broker knows of, until this is dropped: also if serving it panics.
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
        self.host.close(self.id);
    }
}

struct Connection<'a> {
    open: Open<'a>,
    endpoint: Endpoint,
    received: BytesMut,
    outgoing: Outgoing,
}

impl Connection<'_> {
    async fn run(&mut self, stream: &mut TcpStream) -> Result<(), Ended> {
        loop {
            while let Some(frame) = self.next_frame()? {
                let message = match codec::read(frame, &self.endpoint)? {
                    Incoming::Answered(message) => message,
                    Incoming::Ask(requests, ticket) => match self.ask(stream, requests, ticket).await? {
                        Some(message) => message,
                        None => continue,
                    },
                };
                self.outgoing.put_frame(message);
                if self.outgoing.len() >= WRITE_SIZE {
                    self.outgoing.flush(stream).await?;
                }
            }
            self.outgoing.flush(stream).await?;
            if !self.read(stream).await? {
                return Ok(());
            }
        }
    }

    /// Has the broker answer; `None` if nobody waits for it.
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
                    self.outgoing.flush(stream).await?;
                    self.wait(stream, ticket.silent).await?
                }
            };
            responses.push(response);
        }
        let silent = ticket.silent;
        let message = ticket.answer(responses, &self.endpoint);
        Ok((!silent).then_some(message))
    }

    /// Waits for the broker's answer, and meanwhile hears if the client goes away.
    async fn wait(&mut self, stream: &mut TcpStream, silent: bool) -> Result<Response, Ended> {
        let mailbox = Rc::clone(&self.open.mailbox);
        let mut listen = true;
        loop {
            // A client that has sent much more already will be heard leaving when that is read; it is not kept in memory.
            listen &= self.received.len() < READ_SIZE;
            tokio::select! {
                biased;
                response = mailbox.wait() => return Ok(response),
                read = self.read(stream), if listen => match read {
                    Ok(true) => {}
                    // What was sent without asking for an answer counts all the same.
                    Ok(false) if silent => listen = false,
                    Ok(false) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                    Err(error) => return Err(error.into()),
                },
            }
        }
    }

    /// Reads what has come; `false` at the end.
    async fn read(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        let missing = self.missing();
        if self.received.capacity() - self.received.len() < missing.max(READ_SIZE / 4) {
            self.received.reserve(missing.max(READ_SIZE));
        }
        Ok(stream.read_buf(&mut self.received).await? > 0)
    }

    /// How much of the next frame is not there yet, as far as one can tell.
    fn missing(&self) -> usize {
        match self.received.first_chunk() {
            Some(length) => (u32::from_be_bytes(*length).min(self.open.host.frame_max) as usize + 4)
                .saturating_sub(self.received.len()),
            None => 4,
        }
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
