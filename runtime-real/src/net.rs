//! Connections between controller and workers, and between the nodes and clients of a cluster, over TCP, with TLS over it
//! where certificates are given.

use std::{
    fs,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use omb_machine::printable::printable_within;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
        client::{danger::HandshakeSignatureValid, verify_server_cert_signed_by_trust_anchor, verify_server_name},
        crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
        server::{
            ParsedCertificate,
            danger::{ClientCertVerified, ClientCertVerifier},
        },
    },
};

use crate::portable::fleet::{self, Address};

/// A connection, with or without TLS.
#[derive(Debug)]
pub enum Stream {
    /// Bare TCP.
    Plain(TcpStream),
    /// TLS as the side that connected.
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// TLS as the side that was connected to.
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// Connects to workers, or to nodes.
#[derive(Clone)]
pub struct Transport {
    /// For addresses that ask for TLS.
    tls: Option<TlsConnector>,
    /// The host whose addresses connections are made from, if they are this machine's.
    from: Option<Arc<str>>,
}

impl Transport {
    /// `ca` is a PEM file with the authorities for the other side's certificate; without it addresses with TLS are
    /// refused.
    ///
    /// # Errors
    /// If the file cannot be read or holds no certificate.
    pub fn new(ca: Option<&Path>) -> Result<Self, String> {
        let tls = ca.map(|ca| connector(ca, None)).transpose()?;
        Ok(Self { tls, from: None })
    }

    /// For a node at `host`, as its peers know it: connections are made from there if that is an address of this
    /// machine, for its peers may believe it only then. `tls` names the PEM files of its certificate and its key, used
    /// towards its peers, and of the authorities for theirs.
    ///
    /// # Errors
    /// If one of the files cannot be used.
    pub fn of_node(host: &str, tls: Option<(&Path, &Path, &Path)>) -> Result<Self, String> {
        let tls = tls.map(|(certificate, key, ca)| connector(ca, Some((certificate, key)))).transpose()?;
        Ok(Self { tls, from: Some(host.into()) })
    }

    /// Connects, from an address of [`Self::from`] if one is this machine's and has a route.
    async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let own = match &self.from {
            Some(host) => fleet::Transport::resolve(self, host).await.unwrap_or_default(),
            None => Vec::new(),
        };
        for from in own.into_iter().filter(|own| own.is_ipv4() == to.is_ipv4()) {
            let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            // Behind network address translation its own address is not this machine's.
            if socket.bind(SocketAddr::new(from, 0)).is_err() {
                continue;
            }
            match socket.connect(to).await {
                Err(error) if is_unroutable(&error) => {}
                connected => return connected,
            }
        }
        TcpStream::connect(to).await
    }
}

/// Whether there is no route to an address from the one that was bound, as from 127.0.0.1 to another machine.
fn is_unroutable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidInput
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
    )
}

fn connector(ca: &Path, shown: Option<(&Path, &Path)>) -> Result<TlsConnector, String> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots(ca)?);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => config
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|error| format!("{} and {} do not fit: {error}", certificate.display(), key.display()))?,
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(ca: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", ca.display()))?;
    }
    Ok(roots)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = fs::read(path).map_err(|error| format!("{}: cannot read it: {error}", path.display()))?;
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| format!("{}: holds no private key in PEM form: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = fs::read(path).map_err(|error| format!("{}: cannot read it: {error}", path.display()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("{}: holds no certificate in PEM form", path.display())),
        Err(error) => Err(format!("{}: not a file of certificates in PEM form: {error}", path.display())),
    }
}

impl fleet::Transport for Transport {
    type Stream = Stream;

    async fn connect(&self, to: &Address) -> io::Result<Stream> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name stands for no address");
        let mut connected = None;
        for ip in self.resolve(&to.host).await? {
            match self.dial(SocketAddr::new(ip, to.port)).await {
                Ok(stream) => {
                    connected = Some(stream);
                    break;
                }
                Err(error) => failed = error,
            }
        }
        let Some(stream) = connected else { return Err(failed) };
        // Small exchanges; an answer about the clock must not wait for more.
        stream.set_nodelay(true)?;
        if !to.tls {
            return Ok(Stream::Plain(stream));
        }
        let wrong = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let Some(tls) = &self.tls else {
            return Err(wrong(
                "its address asks for https: name the certificate that vouches for it by --ca".to_owned(),
            ));
        };
        let name = ServerName::try_from(to.host.clone())
            .map_err(|_| wrong(format!("{} is no name that a certificate can hold", to.host)))?;
        let stream = tls.connect(name, stream).await.map_err(|error| {
            if error.kind() == io::ErrorKind::InvalidData {
                // It may quote the content of a certificate.
                let text = printable_within(&error.to_string(), 300);
                let hint = if text.contains("corrupt message") {
                    ": does it speak plain http, or without TLS?"
                } else if text.contains("CaUsedAsEndEntity") {
                    ": its certificate is one for authorities; make one with basicConstraints=CA:FALSE"
                } else {
                    ""
                };
                return wrong(format!("TLS with it fails: {text}{hint}"));
            }
            error
        })?;
        Ok(Stream::Client(Box::new(stream)))
    }

    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![ip]);
        }
        let mut found: Vec<IpAddr> = Vec::new();
        for address in lookup_host((host, 0)).await? {
            // On some systems each is listed once per kind of socket.
            if !found.contains(&address.ip()) {
                found.push(address.ip());
            }
        }
        Ok(found)
    }
}

/// Accepts connections of controllers, or of nodes and clients.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
}

impl Listener {
    /// Listens on `address`. `tls` names the certificate's and the key's PEM file.
    ///
    /// # Errors
    /// If the address is taken or not ours, or the files cannot be used.
    pub async fn bind(address: SocketAddr, tls: Option<(&Path, &Path)>) -> Result<Self, BindError> {
        let tls = tls.map(|(certificate, key)| acceptor(certificate, key, None)).transpose().map_err(BindError::Tls)?;
        let tcp = TcpListener::bind(address).await.map_err(BindError::Address)?;
        Ok(Self { tcp, tls })
    }

    /// Listens on `address` for peers, which show a certificate of an authority in the last of these PEM files, and for
    /// clients, which need none.
    ///
    /// # Errors
    /// If the address is taken or not ours, or the files cannot be used.
    pub async fn bind_for_peers(address: SocketAddr, tls: Option<(&Path, &Path, &Path)>) -> Result<Self, BindError> {
        let acceptor = |(certificate, key, ca)| acceptor(certificate, key, Some(ca));
        let tls = tls.map(acceptor).transpose().map_err(BindError::Tls)?;
        let tcp = TcpListener::bind(address).await.map_err(BindError::Address)?;
        Ok(Self { tcp, tls })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// If the system does not return it.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Why a listener cannot be opened.
#[derive(Debug)]
pub enum BindError {
    /// The address is taken, or not ours.
    Address(io::Error),
    /// The certificate or the key cannot be used.
    Tls(String),
}

/// `ca` holds the authorities for certificates of connectors; without it none is requested.
fn acceptor(certificate: &Path, key: &Path, ca: Option<&Path>) -> Result<TlsAcceptor, String> {
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match ca {
        None => config.with_no_client_auth(),
        Some(ca) => config.with_client_cert_verifier(Arc::new(Vouchers { roots: roots(ca)?, provider })),
    };
    let config = config
        .with_single_cert(certificates(certificate)?, private_key(key)?)
        .map_err(|error| format!("{} and {} do not fit: {error}", certificate.display(), key.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Verifies the certificates of connectors, if they show one, in the same way as those of servers: a node has one
/// certificate for both, and authorities often allow it to servers only (`extendedKeyUsage=serverAuth`). Whose it is,
/// [`fleet::Listener::vouches`] checks once its owner has greeted.
#[derive(Debug)]
struct Vouchers {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Vouchers {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A node has one certificate, and shows it whatever the hints are.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fleet::Listener for Listener {
    type Stream = Stream;
    type Opening = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    async fn accept(&mut self) -> io::Result<(Self::Opening, SocketAddr)> {
        let (stream, from) = self.tcp.accept().await?;
        let tls = self.tls.clone();
        let opening = async move {
            stream.set_nodelay(true)?;
            let Some(tls) = tls else { return Ok(Stream::Plain(stream)) };
            // 0x16 is TLS's handshake: a side that speaks without TLS gets an answer that it understands.
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first[0] != 0x16 {
                return refuse_plain(stream, first[0]).await;
            }
            Ok(Stream::Server(Box::new(tls.accept(stream).await?)))
        };
        Ok((Box::pin(opening), from))
    }

    fn vouches(stream: &Stream, host: &str) -> Result<(), String> {
        let Stream::Server(tls) = stream else { return Err("it speaks without TLS".to_owned()) };
        // Its chain was verified within the handshake.
        let Some([certificate, ..]) = tls.get_ref().1.peer_certificates() else {
            return Err("it shows no certificate".to_owned());
        };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host} is no name that a certificate can hold"))?;
        let certificate = ParsedCertificate::try_from(certificate).map_err(|error| error.to_string())?;
        verify_server_name(&certificate, &name).map_err(|error| error.to_string())
    }
}

/// Two alerts of TLS, `protocol_version` and `close_notify` (RFC 8446, section 6), together as long as a node's
/// greeting but distinct from it: a peer or a client of a cluster that speaks without TLS recognizes the problem from
/// them.
const ALERT: [u8; 14] = [0x15, 3, 3, 0, 2, 2, 70, 0x15, 3, 3, 0, 2, 1, 0];

async fn refuse_plain(mut stream: TcpStream, first: u8) -> io::Result<Stream> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // Methods of HTTP are in capitals, and no greeting of a node begins with one.
    if first.is_ascii_uppercase() {
        let text = "TLS is spoken here: write https:// before a worker's address, and name its certificate by --ca\n";
        let head = format!(
            "HTTP/1.1 409 Conflict\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}",
            text.len()
        );
        stream.write_all(head.as_bytes()).await?;
    } else {
        stream.write_all(&ALERT).await?;
    }
    stream.shutdown().await?;
    // Unread bytes at the close would reset the connection before the answer is read.
    let mut rest = [0; 4_096];
    for _ in 0..16 {
        if stream.read(&mut rest).await? == 0 {
            break;
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "it speaks without TLS where TLS is wanted"))
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, into),
            Self::Client(stream) => Pin::new(stream).poll_read(context, into),
            Self::Server(stream) => Pin::new(stream).poll_read(context, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Client(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Server(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Client(stream) => Pin::new(stream).poll_flush(context),
            Self::Server(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Client(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Server(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
