//! HTTP/1.1 between controller and worker, by hyper, over any stream.
//!
//! Of a request the head comes first: what is requested, by which side, and with how large a body. Only what is welcome
//! by its head is received, at a pace that has a lower bound, and memory is taken as the bytes come. One exchange at a
//! time per connection; a connection on which one failed is discarded.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::IpAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
pub use hyper::{Method, StatusCode};
use hyper::{
    Request, Response, Version,
    body::{Body, Bytes, Incoming},
    client::conn::http1 as client,
    header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, HeaderValue},
    server::conn::http1 as server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use omb_bench::controller::{Trouble, TroubleKind};
use omb_machine::{encoding::BODY_MAX, printable::printable_within};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, sleep, timeout},
};

use super::{Address, Guest, Transport};

/// The body of our own messages.
pub const BINARY: &str = "application/octet-stream";
/// Longest a body may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(90);
/// How long a body may be behind [`BODY_PACE_MIN`]; also the longest pause before its first byte.
const BODY_BEHIND_MAX: Duration = Duration::from_secs(5);
/// Slowest pace of a body, in bytes per second: below any line over which a controller leads workers.
const BODY_PACE_MIN: u64 = 32 << 10;
/// Longest a known connection may go on without a request: idle, or in the middle of a head. Between once and twice
/// this.
const IDLE_WITHIN: Duration = Duration::from_secs(15);
/// The same for a connection that is not authenticated. It is also the longest it may take to become ready.
pub(super) const STRANGER_WITHIN: Duration = Duration::from_secs(5);
/// Most bytes of a request's head.
const HEAD_MAX: usize = 32 << 10;
/// Most characters shown of a foreign answer.
const SHOWN_MAX: usize = 200;

/// A request's head.
#[derive(Debug)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The path, without a query.
    pub path: String,
    /// The text after `Bearer `, if any.
    pub token: Option<Vec<u8>>,
    /// The sender.
    pub from: IpAddr,
}

/// A request that is received and answered.
#[derive(Clone, Copy, Debug)]
pub struct Welcome {
    /// Whether the head authenticates the sender.
    pub known: bool,
    /// Most bytes of its body.
    pub body_max: usize,
}

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// Judges a head, before anything of a body is received.
    ///
    /// # Errors
    /// If the request is rejected: what is answered before the connection is closed.
    fn admit(&self, head: &Head) -> Result<Welcome, Answered>;
    /// Answers a request that has been received.
    fn answer(&self, head: Head, body: Bytes, guest: &Guest) -> impl Future<Output = Answered> + Send;
}

/// An answer.
#[derive(Debug)]
pub struct Answered {
    /// The status.
    pub status: StatusCode,
    /// The kind of body.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Answered {
    /// A plain text, with a line's end.
    #[must_use]
    pub fn text(status: StatusCode, text: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", body: Bytes::from(format!("{text}\n")) }
    }

    /// One of our own messages.
    #[must_use]
    pub fn binary(body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type: BINARY, body: body.into() }
    }
}

/// Serves one connection until it ends, has been idle for too long, or has to leave for another.
pub(super) async fn serve<S>(stream: S, guest: &Guest, service: &impl Service)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let lines = Arc::<Mutex<Lines>>::default();
    let seen = &lines;
    let answers = service_fn(|request: Request<Incoming>| async move {
        guest.begins();
        let (answered, closes) = match exchange(request, guest, service, seen).await {
            Ok(answered) => (answered, false),
            Err(refused) => (refused, true),
        };
        let mut response = Response::new(Full::new(answered.body));
        *response.status_mut() = answered.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answered.content_type));
        if closes {
            // What it may still send is not received.
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = Lines::default();
        guest.answered();
        Ok::<_, Infallible>(response)
    });
    let stream = TokioIo::new(Watched { stream, lines: Arc::clone(&lines) });
    let connection = server::Builder::new().max_buf_size(HEAD_MAX).half_close(false).serve_connection(stream, answers);
    let mut connection = pin!(connection);
    loop {
        let before = guest.steps();
        let patience = if guest.is_known() { IDLE_WITHIN } else { STRANGER_WITHIN };
        tokio::select! {
            biased;
            () = guest.dismissed() => return,
            // The side that broke the connection knows it, and the other can do nothing about it.
            _ = &mut connection => return,
            () = sleep(patience) => {}
        }
        if guest.steps() == before && before.is_multiple_of(2) {
            return;
        }
    }
}

/// One request from its head to its answer; as an error, what ends the connection.
async fn exchange(
    request: Request<Incoming>,
    guest: &Guest,
    service: &impl Service,
    lines: &Mutex<Lines>,
) -> Result<Answered, Answered> {
    let (parts, body) = request.into_parts();
    if lines.lock().unwrap_or_else(PoisonError::into_inner).bare {
        let text = "a line of the request's head ends in a bare line feed: end each with CR LF";
        return Err(Answered::text(StatusCode::BAD_REQUEST, text));
    }
    if parts.version == Version::HTTP_11 && !parts.headers.contains_key(HOST) {
        return Err(Answered::text(StatusCode::BAD_REQUEST, "the request lacks the header Host"));
    }
    let token = parts.headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    let head = Head {
        token: token.map(<[u8]>::to_vec),
        method: parts.method,
        path: parts.uri.path().to_owned(),
        from: guest.from(),
    };
    let Welcome { known, body_max } = service.admit(&head)?;
    if known {
        guest.prove();
    }
    let body = receive(body, body_max, guest).await?;
    guest.waits();
    Ok(service.answer(head, body, guest).await)
}

/// Receives a body of up to `limit` bytes.
async fn receive(mut body: Incoming, limit: usize, guest: &Guest) -> Result<Bytes, Answered> {
    let too_long = || {
        Answered::text(StatusCode::PAYLOAD_TOO_LARGE, &format!("a body of more than {limit} bytes is not taken here"))
    };
    // If announced, it is rejected unread; without an announcement it may be as long as the limit.
    let announced = body.size_hint().upper().unwrap_or(limit as u64);
    if announced > limit as u64 {
        return Err(too_long());
    }
    if announced > 0 {
        guest.announces(announced).map_err(|exhausted| {
            Answered::text(StatusCode::TOO_MANY_REQUESTS, &format!("{exhausted}: try again in a few seconds"))
        })?;
    }
    let began = Instant::now();
    let mut received = Vec::new();
    loop {
        let behind = BODY_BEHIND_MAX + Duration::from_millis(received.len() as u64 * 1_000 / BODY_PACE_MIN);
        let left = behind.min(ARRIVES_WITHIN).saturating_sub(began.elapsed());
        let bytes = match timeout(left, body.frame()).await {
            Ok(None) => return Ok(received.into()),
            Ok(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Ok(Some(Err(error))) => {
                return Err(Answered::text(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}")));
            }
            Err(_) => return Err(Answered::text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
        };
        if received.len() + bytes.len() > limit {
            return Err(too_long());
        }
        received.extend_from_slice(&bytes);
    }
}

/// How far the lines of a head have been checked.
#[derive(Debug, Default)]
struct Lines {
    /// Bytes of the line so far, without its end.
    length: usize,
    /// Whether the byte before was a carriage return.
    returned: bool,
    /// Whether a line was seen.
    begun: bool,
    /// Whether the head has ended: a body follows.
    over: bool,
    /// Whether a line ended without a carriage return.
    bare: bool,
}

impl Lines {
    fn look(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.over {
                return;
            }
            match byte {
                b'\n' if !self.returned => (self.bare, self.over) = (true, true),
                b'\n' => {
                    self.over = self.begun && self.length == 0;
                    (self.begun, self.length) = (self.begun || self.length > 0, 0);
                }
                b'\r' => {}
                _ => self.length += 1,
            }
            self.returned = *byte == b'\r';
        }
    }
}

/// A connection whose heads are checked for bare line feeds, which hyper takes for ends of lines. Where one program
/// accepts them and the next does not, the two see different requests. Of requests that come before the former one is
/// answered only the first is checked.
struct Watched<S> {
    stream: S,
    lines: Arc<Mutex<Lines>>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, into);
        this.lines.lock().unwrap_or_else(PoisonError::into_inner).look(&into.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

/// A caller's connection to one worker, made when it is needed.
pub struct Caller<T: Transport> {
    transport: T,
    to: Address,
    token: Option<HeaderValue>,
    connect_within: Duration,
    connection: Option<client::SendRequest<Full<Bytes>>>,
}

impl<T: Transport> Caller<T> {
    /// Connects at the first call, within `connect_within`. `token` is sent with every request.
    ///
    /// # Errors
    /// If the token holds characters that no header may hold.
    pub fn new(transport: T, to: Address, token: Option<&str>, connect_within: Duration) -> Result<Self, String> {
        let token = token.map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| "the token holds characters that HTTP does not carry".to_owned())?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        });
        Ok(Self { transport, to, token: token.transpose()?, connect_within, connection: None })
    }

    async fn connect(&mut self) -> Result<client::SendRequest<Full<Bytes>>, Trouble> {
        let unconnected = |cause: String| Trouble { kind: TroubleKind::Unconnected, cause };
        let stream = match timeout(self.connect_within, self.transport.connect(&self.to)).await {
            Ok(Ok(stream)) => stream,
            // After failed TLS something is there, but no worker of ours.
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Trouble { kind: TroubleKind::Refused, cause: error.to_string() });
            }
            Ok(Err(error)) => return Err(unconnected(error.to_string())),
            Err(_) => return Err(unconnected(format!("no connection within {:?}", self.connect_within))),
        };
        let (sender, connection) = client::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        tokio::spawn(async move {
            // What breaks it is also reported to the caller that waits for the answer.
            let _ = connection.await;
        });
        Ok(sender)
    }

    /// One exchange over this connection, which is kept if all goes well.
    async fn exchange(
        &mut self,
        mut sender: client::SendRequest<Full<Bytes>>,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, Trouble> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("our own paths are URIs");
        let host = if self.to.host.contains(':') { format!("[{}]", self.to.host) } else { self.to.host.clone() };
        let host = HeaderValue::from_str(&format!("{host}:{}", self.to.port));
        request.headers_mut().insert(HOST, host.unwrap_or(HeaderValue::from_static("worker")));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(BINARY));
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, BODY_MAX).collect().await.map_err(|error| Trouble {
            kind: if error.is::<LengthLimitError>() { TroubleKind::Refused } else { TroubleKind::Broken },
            cause: if error.is::<LengthLimitError>() {
                format!("it answers with more than {BODY_MAX} bytes")
            } else {
                format!("the answer broke off: {error}")
            },
        })?;
        let body = body.to_bytes();
        let ours = parts.headers.get(CONTENT_TYPE).is_some_and(|kind| kind == BINARY || kind == "application/json");
        if parts.status != StatusCode::OK || !ours {
            return Err(refused(parts.status, &body));
        }
        // Only a connection on which all went well is reused.
        self.connection = Some(sender);
        Ok(body)
    }
}

/// Sends a worker a request and waits for the answer: the seam at which the simulation delays, loses and doubles
/// exchanges.
pub trait Call: Send + 'static {
    /// One exchange, within `within`.
    fn call(
        &mut self,
        method: Method,
        path: &'static str,
        body: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, Trouble>> + Send;
}

impl<T: Transport> Call for Caller<T> {
    async fn call(
        &mut self,
        method: Method,
        path: &'static str,
        body: Bytes,
        within: Duration,
    ) -> Result<Bytes, Trouble> {
        // Connecting has a bound of its own.
        let sender = match self.connection.take().filter(client::SendRequest::is_ready) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        match timeout(within, self.exchange(sender, method, path, body)).await {
            Ok(result) => result,
            Err(_) => Err(Trouble { kind: TroubleKind::Broken, cause: format!("no answer within {within:?}") }),
        }
    }
}

fn broken(error: &hyper::Error) -> Trouble {
    // What is not HTTP does not come from a worker: a retry changes nothing.
    let kind = if error.is_parse() { TroubleKind::Refused } else { TroubleKind::Broken };
    let cause = if error.is_parse() {
        format!("what listens there does not speak HTTP ({error}): is it a broker, or does it want https?")
    } else {
        let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        format!("the connection broke: {error}{source}")
    };
    Trouble { kind, cause }
}

/// An answer that is not a worker's.
fn refused(status: StatusCode, body: &[u8]) -> Trouble {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN_MAX)]).into_owned();
    let line = printable_within(text.lines().next().unwrap_or_default(), SHOWN_MAX);
    let cause = match status {
        StatusCode::UNAUTHORIZED => format!("it wants another token: {line}"),
        StatusCode::SERVICE_UNAVAILABLE => return Trouble { kind: TroubleKind::Leaving, cause: line },
        StatusCode::CONFLICT | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => line,
        StatusCode::BAD_REQUEST => format!("it does not take what it is sent: {line}"),
        _ => format!("a web server that is no omb worker listens there: it answers {status}"),
    };
    // It has too much to receive at present, which passes.
    let passes = status == StatusCode::TOO_MANY_REQUESTS;
    Trouble { kind: if passes { TroubleKind::Broken } else { TroubleKind::Refused }, cause }
}
