//! Clients' side of the simulated wire: length-prefixed frames over a simulated TCP stream.
//!
//! madsim's TCP drops what is not flushed, has no half-close, and never times out, so every call has a deadline of its
//! own and a connection that missed one is discarded.

use std::{io, net::SocketAddr, time::Duration};

use omb_broker::{Request, Response, Token};
use omb_machine::encoding;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// What a client sends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// Returned with the answer.
    pub token: Token,
    /// The request.
    pub request: Request,
}

/// What it receives.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// Of the request.
    pub token: Token,
    /// The answer, or the error of the broker's front instead.
    pub response: Result<Response, String>,
}

/// Why a call brought no answer. The request may have been performed all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// No connection could be made.
    Unreachable(String),
    /// The connection broke.
    Lost(String),
    /// No answer by the deadline.
    TimedOut,
    /// The broker answered with an error of its own.
    Failed(String),
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "cannot connect to the broker: {why}"),
            Self::Lost(why) => write!(f, "the connection to the broker broke: {why}"),
            Self::TimedOut => f.write_str("the broker did not answer in time"),
            Self::Failed(why) => write!(f, "the broker failed: {why}"),
        }
    }
}

/// Writes one frame.
pub async fn write_frame<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let body = encoding::encode(message);
    let length = u32::try_from(body.len()).expect("frames are small");
    to.write_all(&length.to_le_bytes()).await?;
    to.write_all(&body).await?;
    to.flush().await
}

/// Reads one frame.
pub async fn read_frame<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<T> {
    let mut length = [0; 4];
    from.read_exact(&mut length).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > encoding::BODY_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the frame is too long"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    encoding::decode(&body).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A client's connection, remade whenever it breaks. One call at a time.
#[derive(Debug)]
pub struct Client {
    broker: SocketAddr,
    stream: Option<TcpStream>,
    token: u64,
}

impl Client {
    /// Connects at the first call.
    #[must_use]
    pub fn new(broker: SocketAddr) -> Self {
        Self { broker, stream: None, token: 0 }
    }

    /// Sends a request, and waits for the answer.
    ///
    /// # Errors
    /// If there is no answer within `within`; the connection is given up then.
    pub async fn call(&mut self, request: Request, within: Duration) -> Result<Response, CallError> {
        match timeout(within, self.exchange(request)).await {
            Ok(Ok(response)) => response.map_err(CallError::Failed),
            Ok(Err(error)) => {
                self.stream = None;
                Err(error)
            }
            Err(_) => {
                self.stream = None;
                Err(CallError::TimedOut)
            }
        }
    }

    async fn exchange(&mut self, request: Request) -> Result<Result<Response, String>, CallError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            none => {
                let stream = TcpStream::connect(self.broker).await;
                none.insert(stream.map_err(|error| CallError::Unreachable(error.to_string()))?)
            }
        };
        self.token += 1;
        let token = Token(self.token);
        let lost = |error: io::Error| CallError::Lost(error.to_string());
        write_frame(stream, &Question { token, request }).await.map_err(lost)?;
        loop {
            let reply: Reply = read_frame(stream).await.map_err(lost)?;
            if reply.token == token {
                return Ok(reply.response);
            }
        }
    }
}
