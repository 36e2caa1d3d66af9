//! Connections between controller and workers, and between the nodes and clients of a cluster, over TCP, with TLS over it
//! where certificates are given.

use std::{
    fs,
    future::Future,
    io,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

use crate::fleet::{self, Address};

/// A connection, plain or not.
#[derive(Debug)]
pub enum Stream {
    /// Bare TCP.
    Plain(TcpStream),
    /// TLS as the one who connected.
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    /// TLS as the one who was connected to.
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
}

/// Connects to workers, or to nodes.
#[derive(Clone)]
pub struct Transport {
    /// For addresses that ask for TLS.
    tls: Option<TlsConnector>,
}

impl Transport {
    /// `ca` is a PEM file with the certificates that vouch for whom is connected to; without it addresses with TLS are
    /// refused.
    ///
    /// # Errors
    /// If the file cannot be read or holds no certificate.
    pub fn new(ca: Option<&Path>) -> Result<Self, String> {
        let Some(ca) = ca else { return Ok(Self { tls: None }) };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(|error| format!("{}: {error}", ca.display()))?;
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: Some(TlsConnector::from(Arc::new(config))) })
    }
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
        let stream = TcpStream::connect((to.host.as_str(), to.port)).await?;
        // Small exchanges; what the clock says must not wait for more.
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
                let text = error.to_string();
                let hint = if text.contains("corrupt message") {
                    ": does it speak plain http, or without TLS?"
                } else if text.contains("CaUsedAsEndEntity") {
                    ": its certificate is one for authorities; make one with basicConstraints=CA:FALSE"
                } else {
                    ""
                };
                return wrong(format!("TLS with it fails: {error}{hint}"));
            }
            error
        })?;
        Ok(Stream::Client(Box::new(stream)))
    }
}

/// Takes connections of controllers, or of nodes and clients.
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
        let tls = tls.map(|(certificate, key)| acceptor(certificate, key)).transpose().map_err(BindError::Tls)?;
        let tcp = TcpListener::bind(address).await.map_err(BindError::Address)?;
        Ok(Self { tcp, tls })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Why nobody can be listened to.
#[derive(Debug)]
pub enum BindError {
    /// The address is taken, or not ours.
    Address(io::Error),
    /// The certificate or the key cannot be used.
    Tls(String),
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, String> {
    let chain = certificates(certificate)?;
    let text = fs::read(key).map_err(|error| format!("{}: cannot read it: {error}", key.display()))?;
    let secret = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|error| format!("{}: holds no private key in PEM form: {error}", key.display()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(|error| format!("{} and {} do not fit: {error}", certificate.display(), key.display()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
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
            // 0x16 is TLS's handshake: whoever speaks without is told, in the one language it understands.
            let mut first = [0];
            if stream.peek(&mut first).await? == 1 && first[0] != 0x16 {
                return refuse_plain(stream, first[0]).await;
            }
            Ok(Stream::Server(Box::new(tls.accept(stream).await?)))
        };
        Ok((Box::pin(opening), from))
    }
}

/// Two alerts of TLS, `protocol_version` and `close_notify` (RFC 8446, section 6), together as long as a node's greeting,
/// which they are not: a peer or a client of a cluster that speaks without TLS knows from them what is wrong.
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
    // Unread bytes at the close would reset the connection under the answer.
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
