//! An HTTP/1.1 test server on loopback, with or without TLS. A function computes the response to each request.
//!
//! The folder `tests/keys` contains the certificates of two certificate authorities, and one server certificate signed
//! by each of them. The server certificates are valid for `localhost` and `127.0.0.1`.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::serve::Listener;
use futures::future::BoxFuture;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The certificate authority for the server certificate that [`Server::tls`] uses.
pub(crate) const AUTHORITY: &str = include_str!("../../tests/keys/tls_authority.pem");
/// The certificate authority for the server certificate that [`Server::other_tls`] uses.
pub(crate) const OTHER_AUTHORITY: &str = include_str!("../../tests/keys/tls_other_authority.pem");

/// A function that returns the response to a request. The first argument is the number of earlier requests.
pub(crate) type Answer = fn(usize, Request) -> BoxFuture<'static, Response>;

/// A running server, which stops when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Starts a server without TLS.
    pub(crate) async fn plain(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self::start(listener, address, "http", answer)
    }

    /// Starts a server whose certificate is signed by [`AUTHORITY`].
    pub(crate) async fn tls(answer: Answer) -> Self {
        let certificate = include_str!("../../tests/keys/tls_server.pem");
        Self::with_certificate(certificate, include_str!("../../tests/keys/tls_server.key.pem"), answer).await
    }

    /// Starts a server whose certificate is signed by [`OTHER_AUTHORITY`].
    pub(crate) async fn other_tls(answer: Answer) -> Self {
        let certificate = include_str!("../../tests/keys/tls_other_server.pem");
        Self::with_certificate(certificate, include_str!("../../tests/keys/tls_other_server.key.pem"), answer).await
    }

    async fn with_certificate(certificate: &str, key: &str, answer: Answer) -> Self {
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Self::start(TlsListener { listener, acceptor }, address, "https", answer)
    }

    fn start<L>(listener: L, address: SocketAddr, scheme: &'static str, answer: Answer) -> Self
    where
        L: Listener<Addr = SocketAddr>,
    {
        let (mut tasks, seen) = (JoinSet::new(), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&seen);
        let service = service(log, answer);
        tasks.spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { address, scheme, seen, _tasks: tasks }
    }

    /// Returns the URL of a path, with the server's address as the host.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// Returns the URL of a path, with `localhost` as the host. Its origin differs from that of a URL with the server's
    /// address.
    pub(crate) fn url_by_name(&self, path: &str) -> String {
        format!("{}://localhost:{}{path}", self.scheme, self.address.port())
    }

    /// Returns the headers of all requests since the previous call of this function.
    pub(crate) fn seen(&self) -> Vec<HeaderMap> {
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn service(log: Arc<Mutex<Vec<HeaderMap>>>, answer: Answer) -> Router {
    let count = Arc::new(AtomicUsize::new(0));
    Router::new().fallback(move |request: Request| {
        log.lock().unwrap().push(request.headers().clone());
        answer(count.fetch_add(1, Ordering::SeqCst), request)
    })
}

/// Accepts connections and completes their TLS handshakes. If a handshake fails, only that connection is dropped,
/// because some tests make the handshake fail on purpose.
struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (connection, address) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(connection).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
