//! HTTP/1.1 between controller and worker, by hyper, over any stream.
//!
//! Every wait has a bound, every body a limit that is checked before anything is allocated for it. One exchange at a
//! time per connection; a connection on which one failed is thrown away.

use std::{
    convert::Infallible,
    future::Future,
    io,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
pub use hyper::{Method, StatusCode};
use hyper::{
    Request, Response,
    body::{Body, Bytes, Incoming},
    client::conn::http1 as client,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
    server::conn::http1 as server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use omb_core::{
    controller::{Trouble, TroubleKind},
    printable::printable_within,
    protocol::BODY_MAX,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{sleep, timeout},
};

use super::{Address, Transport};

/// The body of a message of ours.
pub const BINARY: &str = "application/octet-stream";
/// Longest a body may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(90);
/// Longest a connection may go on without a request: idle, or in the middle of a head. Between two once to twice this.
const IDLE_WITHIN: Duration = Duration::from_secs(15);
/// Most bytes of a request's head.
const HEAD_MAX: usize = 32 << 10;
/// Most characters shown of what somebody else answered.
const SHOWN_MAX: usize = 200;

/// What a request asks for.
#[derive(Debug)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// The path, without a query.
    pub path: String,
    /// What stands behind `Bearer `, if anything.
    pub token: Option<Vec<u8>>,
    /// The body.
    pub body: Bytes,
}

/// What is answered.
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

    /// A message of ours.
    #[must_use]
    pub fn binary(body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type: BINARY, body: body.into() }
    }
}

/// Serves one connection until it ends. `limit` is the most bytes of a body.
pub async fn serve<S, F>(stream: S, limit: usize, answer: impl Fn(Asked) -> F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = Answered>,
{
    let (answer, begun, done) = (&answer, &AtomicU64::new(0), &AtomicU64::new(0));
    let service = service_fn(|request: Request<Incoming>| async move {
        begun.fetch_add(1, Relaxed);
        let answered = match read(request, limit).await {
            Ok(asked) => answer(asked).await,
            Err(refused) => refused,
        };
        let mut response = Response::new(Full::new(answered.body));
        *response.status_mut() = answered.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(answered.content_type));
        done.fetch_add(1, Relaxed);
        Ok::<_, Infallible>(response)
    });
    let connection =
        server::Builder::new().max_buf_size(HEAD_MAX).half_close(false).serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    loop {
        let before = begun.load(Relaxed);
        tokio::select! {
            biased;
            // Whoever broke the connection knows it, and nobody else can do anything about it.
            _ = &mut connection => return,
            () = sleep(IDLE_WITHIN) => {}
        }
        if begun.load(Relaxed) == before && done.load(Relaxed) == before {
            return;
        }
    }
}

async fn read(request: Request<Incoming>, limit: usize) -> Result<Asked, Answered> {
    let (parts, body) = request.into_parts();
    let too_long = || {
        Answered::text(StatusCode::PAYLOAD_TOO_LARGE, &format!("a body of more than {limit} bytes is not taken here"))
    };
    // Said in advance it is refused unread.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_long());
    }
    let body = match timeout(ARRIVES_WITHIN, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_long()),
        Ok(Err(error)) => return Err(Answered::text(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}"))),
        Err(_) => return Err(Answered::text(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time")),
    };
    let token = parts.headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    Ok(Asked { token: token.map(<[u8]>::to_vec), method: parts.method, path: parts.uri.path().to_owned(), body })
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
    /// If the token holds characters that no header may.
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
            // TLS that failed is somebody who answers, but not as a worker of ours.
            Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(Trouble { kind: TroubleKind::Refused, cause: error.to_string() });
            }
            Ok(Err(error)) => return Err(unconnected(error.to_string())),
            Err(_) => return Err(unconnected(format!("no connection within {:?}", self.connect_within))),
        };
        let (sender, connection) = client::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        tokio::spawn(async move {
            // What breaks it, whoever waits for the answer is told as well.
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
        // Only a connection on which all went well is used again.
        self.connection = Some(sender);
        Ok(body)
    }
}

/// Asks a worker and waits for the answer: the seam at which the simulation delays, loses and doubles exchanges.
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
    // What is not HTTP comes from something that is no worker: asking again changes nothing.
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
        StatusCode::CONFLICT | StatusCode::PAYLOAD_TOO_LARGE => line,
        StatusCode::BAD_REQUEST => format!("it does not take what it is sent: {line}"),
        _ => format!("a web server that is no omb worker listens there: it answers {status}"),
    };
    Trouble { kind: TroubleKind::Refused, cause }
}
