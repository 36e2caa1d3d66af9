//! Logins with a token: fetched or signed before the first client is made, given to every client, and renewed before it
//! expires.

use std::{
    ffi::{CString, c_char},
    fs,
    ptr::NonNull,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Request,
    body::Bytes,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use omb_bench::{
    config::AWS_METHOD,
    protocol::{Failure, FailureKind},
};
use omb_kafka::oauthbearer::{self, ANSWER_MAX, AwsCredentials, Token, TokenError};
use omb_machine::{
    config::{
        address::WebAddress,
        setting::{Secret, Setting, Settings},
    },
    printable::printable_within,
    time::WallTime,
};
use rdkafka_sys as sys;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use crate::clock;

/// Longest that fetching a token may take.
const FETCH_WITHIN: Duration = Duration::from_secs(10);

/// After a token could not be renewed, how long until the next attempt.
const TRY_AGAIN: Duration = Duration::from_secs(5);

/// Where systems keep the certificates of public authorities; the first file that exists is used.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/opt/homebrew/etc/openssl@3/cert.pem",
];

/// Our own settings: librdkafka is built without the code that understands them.
pub(super) fn is_ours(name: &str) -> bool {
    const OURS: [&str; 8] = [
        "https.ca.location",
        "https.ca.pem",
        "sasl.oauthbearer.client.credentials.client.id",
        "sasl.oauthbearer.client.credentials.client.secret",
        "sasl.oauthbearer.extensions",
        "sasl.oauthbearer.method",
        "sasl.oauthbearer.scope",
        "sasl.oauthbearer.token.endpoint.url",
    ];
    OURS.contains(&name)
}

/// Where a client's token comes from.
#[derive(Clone, PartialEq)]
enum Source {
    /// A server issues it for a client's id and secret.
    Server { address: WebAddress, client: String, authorization: Secret, form: String, roots: Roots },
    /// It is signed here, with the AWS credentials of this process's environment.
    Aws { region: String },
}

/// Which certificates to trust for the server.
#[derive(Clone, PartialEq)]
enum Roots {
    System,
    Given { name: &'static str, pem: Vec<u8> },
}

/// What a client logs in with.
#[derive(Clone, PartialEq)]
pub(super) struct Login {
    source: Source,
    extensions: Vec<(String, String)>,
}

impl Login {
    /// How a client with these settings logs in; `None` where it needs no token from us.
    pub(super) fn of(settings: &Settings) -> Result<Option<Self>, Failure> {
        let text = |name: &str| settings.get(name).and_then(Setting::text).filter(|text| !text.is_empty());
        let needed = |name: &str| text(name).ok_or_else(|| configuration(format!("{name} is missing")));
        let uses_tokens = text("sasl.mechanism") == Some("OAUTHBEARER")
            && text("security.protocol").is_some_and(|protocol| protocol.starts_with("sasl"));
        let source = match text("sasl.oauthbearer.method") {
            _ if !uses_tokens => return Ok(None),
            Some("oidc") => {
                let url = needed("sasl.oauthbearer.token.endpoint.url")?;
                let address = WebAddress::parse(url)
                    .ok_or_else(|| configuration("sasl.oauthbearer.token.endpoint.url is no address".to_owned()))?;
                let client = needed("sasl.oauthbearer.client.credentials.client.id")?.to_owned();
                let secret = Secret::new(needed("sasl.oauthbearer.client.credentials.client.secret")?);
                let authorization = oauthbearer::basic(&client, &secret);
                let form = oauthbearer::form(text("sasl.oauthbearer.scope"));
                Source::Server { address, client, authorization, form, roots: Roots::of(settings)? }
            }
            Some(AWS_METHOD) => {
                let region = text("bootstrap.servers").and_then(oauthbearer::region_of).map(str::to_owned);
                let from_environment =
                    || ["AWS_REGION", "AWS_DEFAULT_REGION"].iter().find_map(|name| std::env::var(name).ok());
                let region = region.or_else(from_environment).filter(|region| oauthbearer::is_region(region)).ok_or_else(|| {
                    configuration(
                        "AWS_MSK_IAM: the region stands neither in the brokers' names (kafka.REGION.amazonaws.com) nor in \
                         AWS_REGION of the process that connects"
                            .to_owned(),
                    )
                })?;
                Source::Aws { region }
            }
            _ => return Ok(None),
        };
        let extensions = oauthbearer::extensions(text("sasl.oauthbearer.extensions").unwrap_or_default())
            .map_err(|wrong| configuration(format!("sasl.oauthbearer.extensions: {wrong}")))?;
        Ok(Some(Self { source, extensions }))
    }
}

fn configuration(text: String) -> Failure {
    Failure::new(FailureKind::Configuration, text)
}

impl Roots {
    fn of(settings: &Settings) -> Result<Self, Failure> {
        if let Some(text) = settings.get("https.ca.pem").and_then(Setting::text) {
            return Ok(Self::Given { name: "https.ca.pem", pem: text.as_bytes().to_vec() });
        }
        let name = "https.ca.location";
        match settings.get(name) {
            None => Ok(Self::System),
            Some(Setting::Content(content)) => Ok(Self::Given { name, pem: content.bytes().to_vec() }),
            // Only a driver file of this process's own has a path.
            Some(setting) => match setting.text().unwrap_or_default() {
                "probe" => Ok(Self::System),
                path => {
                    let pem = fs::read(path).map_err(|error| configuration(format!("{name}: {path}: {error}")))?;
                    Ok(Self::Given { name, pem })
                }
            },
        }
    }

    fn store(&self) -> Result<RootCertStore, Failure> {
        let (name, pem) = match self {
            Self::Given { name, pem } => (*name, pem.clone()),
            Self::System => {
                let named = std::env::var("SSL_CERT_FILE").ok();
                let paths = named.as_deref().into_iter().chain(BUNDLES.iter().copied());
                let found = paths.filter_map(|path| fs::read(path).ok()).next();
                let found = found.ok_or_else(|| {
                    let text =
                        "no certificates of public authorities are found on this machine: give https.ca.location";
                    configuration(text.to_owned())
                })?;
                ("the machine's certificates", found)
            }
        };
        let mut roots = RootCertStore::empty();
        let certificates = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok);
        let (added, _) = roots.add_parsable_certificates(certificates);
        if added == 0 {
            return Err(configuration(format!("{name}: no certificate in PEM form in it")));
        }
        Ok(roots)
    }
}

impl Source {
    /// Its name, for messages.
    fn name(&self) -> String {
        match self {
            Self::Server { address, .. } => format!("token from {}{}", address.origin, address.path),
            Self::Aws { region } => format!("token for Amazon MSK in {region}"),
        }
    }

    async fn token(&self) -> Result<Token, Failure> {
        let failed = |kind, what: String| Failure::new(kind, format!("no {}: {what}", self.name()));
        match self {
            Self::Aws { region } => {
                let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
                let (Some(access_key), Some(secret_key)) =
                    (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"))
                else {
                    let what =
                        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must be set where the process that connects runs";
                    return Err(failed(FailureKind::Configuration, what.to_owned()));
                };
                let credentials = AwsCredentials {
                    access_key,
                    secret_key: Secret::new(secret_key),
                    session_token: variable("AWS_SESSION_TOKEN").map(Secret::new),
                };
                Ok(oauthbearer::msk_token(&credentials, region, now()))
            }
            Self::Server { address, client, authorization, form, roots } => {
                let fetching = fetch(address, authorization, form, roots);
                let (status, body) = match timeout(FETCH_WITHIN, fetching).await {
                    Ok(Ok(answered)) => answered,
                    Ok(Err(failure)) => return Err(failed(failure.kind, failure.message)),
                    Err(_) => {
                        let what = format!("no answer within {} s", FETCH_WITHIN.as_secs());
                        return Err(failed(FailureKind::Unreachable, what));
                    }
                };
                oauthbearer::read_answer(status, &body, client, now()).map_err(|error| {
                    let kind = match error {
                        TokenError::Refused(_) => FailureKind::Refused,
                        TokenError::Unsound(_) => FailureKind::Unreachable,
                    };
                    failed(kind, error.to_string())
                })
            }
        }
    }
}

fn now() -> WallTime {
    WallTime(clock::wall_zero().0 + clock::now().0)
}

/// Requests a token: one request, no redirection followed, at most [`ANSWER_MAX`] bytes of an answer.
async fn fetch(
    address: &WebAddress,
    authorization: &Secret,
    form: &str,
    roots: &Roots,
) -> Result<(u16, Bytes), Failure> {
    let unreachable = |what: String| Failure::new(FailureKind::Unreachable, what);
    let origin = &address.origin;
    let connector = if origin.tls { Some(connector(roots)?) } else { None };
    let stream = TcpStream::connect((origin.host.as_str(), origin.port));
    let stream = stream.await.map_err(|error| unreachable(format!("cannot connect to {origin}: {error}")))?;
    let request = Request::post(&address.path)
        .header(HOST, origin.authority())
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(AUTHORIZATION, {
            let mut value = HeaderValue::from_str(authorization.expose())
                .map_err(|_| configuration("the client's id and secret make no header".to_owned()))?;
            value.set_sensitive(true);
            value
        })
        .body(Full::new(Bytes::from(form.to_owned())))
        .map_err(|error| configuration(format!("sasl.oauthbearer.token.endpoint.url: {error}")))?;
    match connector {
        None => exchange(stream, request).await,
        Some(connector) => {
            let name = ServerName::try_from(origin.host.clone())
                .map_err(|_| configuration(format!("{} is no name that a certificate can hold", origin.host)))?;
            let stream = connector
                .connect(name, stream)
                .await
                .map_err(|error| unreachable(format!("TLS with {origin} fails: {error}")))?;
            exchange(stream, request).await
        }
    }
}

fn connector(roots: &Roots) -> Result<TlsConnector, Failure> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| configuration(error.to_string()))?
        .with_root_certificates(roots.store()?)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(u16, Bytes), Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        let text = printable_within(&error.to_string(), 200);
        Failure::new(FailureKind::Unreachable, format!("the exchange broke off: {text}"))
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let talking = async {
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await.map_err(|error| broken(&error))?;
        Ok((status, body.to_bytes()))
    };
    // The connection is driven for as long as the exchange takes, and dropped with it.
    let mut talking = std::pin::pin!(talking);
    tokio::select! {
        biased;
        answered = &mut talking => answered,
        _ = connection => talking.await,
    }
}

/// A token that is kept fresh, and the clients that have it.
pub(super) struct Tokens {
    login: Login,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Raised when the token is not needed any more.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    token: Option<(Token, WallTime)>,
    /// Clients that are alive: each leaves before it is destroyed, and is only touched under the lock.
    clients: Vec<Client>,
    ended: bool,
}

#[derive(Clone, Copy, PartialEq)]
struct Client(NonNull<sys::rd_kafka_t>);

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Client {}

impl Drop for Tokens {
    fn drop(&mut self) {
        lock(&self.shared.state).ended = true;
        self.shared.ended.notify_all();
    }
}

impl Tokens {
    /// Gets the first token, and keeps it fresh from then on.
    pub(super) fn start(login: Login, runtime: tokio::runtime::Handle) -> Result<Self, Failure> {
        let shared = Arc::<Shared>::default();
        let (first, got) = mpsc::channel();
        let (keeper, kept) = (login.clone(), Arc::clone(&shared));
        // A thread of its own: the caller may be within the runtime, where nothing may block.
        std::thread::Builder::new()
            .name("token".to_owned())
            .spawn(move || {
                let token = runtime.block_on(keeper.source.token());
                let sound = token.is_ok();
                if first.send(token.map(|token| kept.give(token, &keeper.extensions))).is_ok() && sound {
                    kept.keep(&keeper, &runtime);
                }
            })
            .map_err(|error| Failure::new(FailureKind::Broken, format!("the system gives no thread: {error}")))?;
        let broken = || Failure::new(FailureKind::Broken, "the thread that fetches the token has ended");
        got.recv().map_err(|_| broken())??;
        Ok(Self { login, shared })
    }

    pub(super) fn is_for(&self, login: &Login) -> bool {
        self.login == *login
    }
}

/// A client that has a token as long as this lives; to be dropped before the client is destroyed.
pub(super) struct LoggedIn {
    tokens: Arc<Tokens>,
    client: Client,
}

// SAFETY: the handle is used under the lock of `Shared::state` alone.
unsafe impl Sync for LoggedIn {}

impl LoggedIn {
    /// Gives the client `raw` the token, now and at each renewal.
    pub(super) fn new(tokens: &Arc<Tokens>, raw: NonNull<sys::rd_kafka_t>) -> Result<Self, Failure> {
        let client = Client(raw);
        let mut state = lock(&tokens.shared.state);
        if let Some((token, until)) = &state.token {
            set(client, token, *until, &tokens.login.extensions).map_err(configuration)?;
        }
        state.clients.push(client);
        drop(state);
        Ok(Self { tokens: Arc::clone(tokens), client })
    }
}

impl Drop for LoggedIn {
    fn drop(&mut self) {
        lock(&self.tokens.shared.state).clients.retain(|client| *client != self.client);
    }
}

impl Shared {
    /// Gives a new token to every client.
    fn give(&self, token: Token, extensions: &[(String, String)]) {
        let until = WallTime(now().0 + u64::try_from(token.lifetime.as_nanos()).unwrap_or(u64::MAX / 2));
        let mut state = lock(&self.state);
        for client in &state.clients {
            if let Err(why) = set(*client, &token, until, extensions) {
                fail(*client, &why);
            }
        }
        state.token = Some((token, until));
    }

    /// Renews the token before it expires, until it is not needed any more.
    fn keep(&self, login: &Login, runtime: &tokio::runtime::Handle) {
        let mut wait = self.renew_after();
        loop {
            if self.wait(wait) {
                return;
            }
            wait = match runtime.block_on(login.source.token()) {
                Ok(token) => {
                    self.give(token, &login.extensions);
                    self.renew_after()
                }
                Err(failure) => {
                    tracing::warn!("the login's token could not be renewed: {failure}");
                    lock(&self.state).clients.iter().for_each(|client| fail(*client, &failure.message));
                    TRY_AGAIN
                }
            };
        }
    }

    /// Four fifths of its life, as librdkafka itself does.
    fn renew_after(&self) -> Duration {
        lock(&self.state).token.as_ref().map_or(TRY_AGAIN, |(token, _)| token.lifetime.mul_f64(0.8))
    }

    /// Waits; whether the token is not needed any more.
    fn wait(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = lock(&self.state);
        while !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.ended.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn set(client: Client, token: &Token, until: WallTime, extensions: &[(String, String)]) -> Result<(), String> {
    let zero = |_| "a text of the login holds a zero byte".to_owned();
    let value = CString::new(token.value.expose()).map_err(zero)?;
    let principal = CString::new(token.principal.as_str()).map_err(zero)?;
    let texts: Result<Vec<CString>, _> =
        extensions.iter().flat_map(|(name, value)| [name, value]).map(|text| CString::new(text.as_str())).collect();
    let texts = texts.map_err(zero)?;
    let mut pointers: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    let millis = i64::try_from(until.0 / 1_000_000).unwrap_or(i64::MAX);
    let mut why = [0 as c_char; 512];
    // SAFETY: the client is alive (it leaves the list before it is destroyed); all texts live during the call, which
    // copies them; `why` is as long as said.
    let code = unsafe {
        sys::rd_kafka_oauthbearer_set_token(
            client.0.as_ptr(),
            value.as_ptr(),
            millis,
            principal.as_ptr(),
            pointers.as_mut_ptr(),
            pointers.len(),
            why.as_mut_ptr(),
            why.len(),
        )
    };
    if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: the library ends its message with a zero byte within the buffer.
    let why = unsafe { std::ffi::CStr::from_ptr(why.as_ptr()) }.to_string_lossy().into_owned();
    Err(format!("the Kafka client does not take the token: {why}"))
}

/// Makes the client report why it has no new token; it keeps its present one.
fn fail(client: Client, why: &str) {
    let Ok(why) = CString::new(why) else { return };
    // SAFETY: as above.
    unsafe { sys::rd_kafka_oauthbearer_set_token_failure(client.0.as_ptr(), why.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        io::{Read as _, Write as _},
        net::{Ipv4Addr, SocketAddr, TcpListener},
        path::Path,
    };

    use omb_machine::config::setting::Content;
    use rdkafka::{
        config::FromClientConfig,
        producer::{BaseProducer, DefaultProducerContext, Producer},
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{net::Listener, portable::fleet::Listener as _};

    const SOON: Duration = Duration::from_secs(20);

    /// A token server on loopback that gives these answers, the last one repeatedly; its port, and the requests it
    /// gets.
    fn server(answers: Vec<String>) -> (u16, mpsc::Receiver<String>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let port = listener.local_addr().expect("an address").port();
        let (asked, heard) = mpsc::channel();
        std::thread::spawn(move || {
            for number in 0.. {
                let Ok((mut stream, _)) = listener.accept() else { return };
                stream.set_read_timeout(Some(SOON)).expect("a bound can be set");
                let mut request = Vec::new();
                let mut buffer = [0; 1_024];
                // The form comes last, without a newline.
                while !request.windows(11).any(|window| window == b"grant_type=") {
                    match stream.read(&mut buffer) {
                        Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
                        _ => break,
                    }
                }
                let answer: &String = answers.get(number).unwrap_or_else(|| answers.last().expect("an answer"));
                // The client may have disconnected.
                let _ = stream.write_all(answer.as_bytes());
                if asked.send(String::from_utf8_lossy(&request).into_owned()).is_err() {
                    return;
                }
            }
        });
        (port, heard)
    }

    fn answer(status: &str, body: &str) -> String {
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nlocation: http://127.0.0.1:1/\r\n\r\n{body}", body.len())
    }

    fn settings(url: &str) -> Settings {
        let pairs = [
            ("bootstrap.servers", "127.0.0.1:1"),
            ("security.protocol", "sasl_plaintext"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.client.credentials.client.id", "me"),
            ("sasl.oauthbearer.client.credentials.client.secret", "hunter2"),
            ("sasl.oauthbearer.scope", "a b"),
            ("sasl.oauthbearer.extensions", "logicalCluster=lkc"),
            ("sasl.oauthbearer.token.endpoint.url", url),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
    }

    fn login(settings: &Settings) -> Login {
        Login::of(settings).expect("sound").expect("with a token")
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
    }

    /// A token is fetched with the client's credentials, given to a client of librdkafka, and renewed before it
    /// expires.
    #[test]
    fn a_token_is_fetched_given_and_renewed() {
        let (port, heard) =
            server(vec![answer("200 OK", r#"{"access_token":"tok","expires_in":1,"token_type":"Bearer"}"#)]);
        let settings = settings(&format!("http://127.0.0.1:{port}/oauth/token?x=y"));
        let runtime = runtime();
        let tokens = Arc::new(Tokens::start(login(&settings), runtime.handle().clone()).expect("a token"));
        let asked = heard.recv_timeout(SOON).expect("it was asked");
        for part in [
            "POST /oauth/token?x=y HTTP/1.1\r\n",
            &format!("host: 127.0.0.1:{port}\r\n"),
            "authorization: Basic bWU6aHVudGVyMg==\r\n",
            "content-type: application/x-www-form-urlencoded\r\n",
            "\r\n\r\ngrant_type=client_credentials&scope=a%20b",
        ] {
            assert!(asked.contains(part), "{part} is not in\n{asked}");
        }
        let mut config = rdkafka::ClientConfig::new();
        for (name, setting) in settings.iter().filter(|(name, _)| !is_ours(name)) {
            config.set(name, setting.text().expect("a text"));
        }
        let client: BaseProducer = BaseProducer::from_config(&config).expect("librdkafka takes the rest");
        let raw = Producer::<DefaultProducerContext>::client(&client).native_ptr();
        let logged_in = LoggedIn::new(&tokens, NonNull::new(raw).expect("alive")).expect("it takes the token");
        assert_eq!(lock(&tokens.shared.state).clients.len(), 1);
        heard.recv_timeout(SOON).expect("it is asked again before the token expires");
        drop(logged_in);
        assert_eq!(lock(&tokens.shared.state).clients.len(), 0, "nobody touches a client that is gone");
        drop(client);
        let shared = Arc::clone(&tokens.shared);
        drop(tokens);
        assert!(lock(&shared.state).ended);
    }

    #[track_caller]
    fn fails(answer: String, kind: FailureKind, telling: &str) {
        let (port, _heard) = server(vec![answer]);
        let failed = Tokens::start(login(&settings(&format!("http://127.0.0.1:{port}/"))), runtime().handle().clone());
        let failure = failed.err().expect("no token");
        assert_eq!(failure.kind, kind, "{failure}");
        let whole = format!("no token from http://127.0.0.1:{port}/: ");
        assert!(failure.message.starts_with(&whole) && failure.message.contains(telling), "{failure}");
        assert!(!failure.message.contains("hunter2"), "{failure}");
    }

    #[test]
    fn what_a_server_says_instead_is_told() {
        let refused = answer("401 Unauthorized", r#"{"error":"invalid_client"}"#);
        fails(refused, FailureKind::Refused, "refuses to give a token: status 401, invalid_client");
        fails(answer("302 Found", ""), FailureKind::Unreachable, "status 302");
        fails(answer("200 OK", "<html>"), FailureKind::Unreachable, "not a JSON object");
        let long = format!(r#"{{"access_token":"{}"}}"#, "a".repeat(ANSWER_MAX));
        fails(answer("200 OK", &long), FailureKind::Unreachable, "length limit exceeded");
        fails("SSH-2.0-x\r\n".to_owned(), FailureKind::Unreachable, "the exchange broke off");
        let nobody = Tokens::start(login(&settings("http://127.0.0.1:1/")), runtime().handle().clone());
        let failure = nobody.err().expect("nobody listens");
        assert!(failure.message.contains("cannot connect to http://127.0.0.1:1: Connection refused"), "{failure}");
    }

    /// A token is accepted over TLS only from a server that the given certificates vouch for.
    #[test]
    fn a_server_must_be_vouched_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        fs::write(&cert, made.cert.pem()).expect("written");
        fs::write(&key, made.key_pair.serialize_pem()).expect("written");
        let runtime = runtime();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let tls: (&Path, &Path) = (&cert, &key);
        let mut listener = runtime.block_on(Listener::bind(any, Some(tls))).expect("a free port");
        let port = listener.address().expect("an address").port();
        runtime.spawn(async move {
            loop {
                let Ok((opening, _)) = listener.accept().await else { return };
                let Ok(mut stream) = opening.await else { continue };
                let mut request = [0; 4_096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer("200 OK", r#"{"access_token":"tok"}"#).as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        let url = format!("https://localhost:{port}/token");
        let with = |pem: &str| {
            let content = Setting::Content(Content::new("", pem.as_bytes().to_vec()));
            let settings: BTreeMap<_, _> =
                settings(&url).into_iter().chain([("https.ca.location".to_owned(), content)]).collect();
            Tokens::start(login(&settings), runtime.handle().clone())
        };
        assert!(with(&made.cert.pem()).is_ok());
        let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let failure = with(&other.cert.pem()).err().expect("a stranger");
        assert!(failure.message.contains(&format!("TLS with https://localhost:{port} fails")), "{failure}");
        let failure = with("no certificate").err().expect("nothing to trust");
        assert_eq!(failure.kind, FailureKind::Configuration);
    }

    #[test]
    fn only_who_asks_for_a_token_gets_one() {
        let mut plain = settings("http://127.0.0.1:1/");
        plain.insert("sasl.mechanism".to_owned(), "PLAIN".into());
        assert!(Login::of(&plain).expect("sound").is_none());
        let mut msk = settings("http://127.0.0.1:1/");
        msk.insert("sasl.oauthbearer.method".to_owned(), AWS_METHOD.into());
        msk.insert("bootstrap.servers".to_owned(), "b-1.x.kafka.eu-west-1.amazonaws.com:9098".into());
        assert!(matches!(login(&msk).source, Source::Aws { region } if region == "eu-west-1"));
        assert!(login(&msk) != login(&settings("http://127.0.0.1:1/")), "another login is another token");
    }
}
