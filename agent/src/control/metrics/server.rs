//! The server: a small, bounded part of HTTP/1.1 (RFC 9112), by hyper.
//!
//! A connection is one request and one answer. There are at most `CONNECTIONS_MAX`; one more
//! ends the oldest, so a client that sends or reads nothing keeps nobody out, and each ends
//! after a while by itself. Neither encryption nor a password: it listens on loopback
//! addresses, or on a Unix socket with the rules of the control socket.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::timeout,
};

use super::{Asked, Page, Question};
use crate::{
    config::MetricsAddress,
    control::socket::{self, SocketError, SocketUse},
};

/// Connections at once.
const CONNECTIONS_MAX: usize = 32;
/// For a client to send its request.
const REQUEST_PATIENCE: Duration = Duration::from_secs(3);
/// For the whole of it: the request, the answer, and the client's reading.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest request in bytes, its headers included; hyper's least.
const REQUEST_MAX_BYTES: usize = 8192;
/// Most headers of a request.
const HEADERS_MAX: usize = 64;

/// Why the metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// The address is taken, or is not an address of this host.
    #[error(
        "cannot listen on {address} for `metrics`: {source} (set another address in [agent], or end who uses it: ss -ltnp)"
    )]
    Tcp {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The Unix socket.
    #[error(transparent)]
    Unix(#[from] SocketError),
}

/// A bound endpoint that is not served yet.
#[derive(Debug)]
pub enum Listening {
    /// On a loopback address.
    Tcp(std::net::TcpListener),
    /// On a Unix socket.
    Unix(std::os::unix::net::UnixListener),
}

/// Binds the endpoint; a Unix socket is for root and the control group.
///
/// # Errors
/// If somebody else has it.
pub fn bind(address: &MetricsAddress, group: Option<&str>) -> Result<Listening, MetricsError> {
    match address {
        MetricsAddress::Tcp(address) => std::net::TcpListener::bind(address)
            .and_then(|socket| socket.set_nonblocking(true).map(|()| Listening::Tcp(socket)))
            .map_err(|source| MetricsError::Tcp { address: *address, source }),
        MetricsAddress::Unix(path) => {
            Ok(Listening::Unix(socket::bind(SocketUse::Metrics, path, group)?.socket))
        }
    }
}

impl Listening {
    /// The file that it made and leaves behind, to be removed at the end. What was there when it
    /// could not be bound (another agent's socket, or no socket at all) is not ours to remove.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(socket) => socket.local_addr().ok()?.as_pathname().map(Path::to_owned),
        }
    }
}

/// Serves for ever; what is asked goes to `asked`.
///
/// # Errors
/// If the runtime does not take the socket.
pub async fn serve(listening: Listening, asked: mpsc::Sender<Asked>) -> io::Result<()> {
    let asked = Arc::new(asked);
    let mut open = VecDeque::new();
    match listening {
        Listening::Tcp(socket) => {
            let socket = TcpListener::from_std(socket)?;
            loop {
                match socket.accept().await {
                    Ok((stream, _)) => admit(&mut open, stream, &asked).await,
                    Err(_) => out_of_descriptors().await,
                }
            }
        }
        Listening::Unix(socket) => {
            let socket = UnixListener::from_std(socket)?;
            loop {
                match socket.accept().await {
                    Ok((stream, _)) => admit(&mut open, stream, &asked).await,
                    Err(_) => out_of_descriptors().await,
                }
            }
        }
    }
}

/// Most likely; accepting again at once would spin.
async fn out_of_descriptors() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

async fn admit<S>(open: &mut VecDeque<AbortHandle>, stream: S, asked: &Arc<mpsc::Sender<Asked>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    open.retain(|connection| !connection.is_finished());
    if open.len() >= CONNECTIONS_MAX
        && let Some(oldest) = open.pop_front()
    {
        oldest.abort();
    }
    let asked = Arc::clone(asked);
    let task = tokio::spawn(async move {
        let service = service_fn(move |request| {
            let asked = Arc::clone(&asked);
            async move { Ok::<_, Infallible>(answer(&request, &asked).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(REQUEST_PATIENCE)
            .keep_alive(false)
            .max_buf_size(REQUEST_MAX_BYTES)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(stream), service);
        // A client that breaks off is its own affair.
        let _ = timeout(PATIENCE, connection).await;
    });
    open.push_back(task.abort_handle());
    // Whoever connects without pause shares the thread with everybody.
    tokio::task::yield_now().await;
}

async fn answer(request: &Request<Incoming>, asked: &mpsc::Sender<Asked>) -> Response<Full<Bytes>> {
    let text = |status, text: &str| response(status, Page::text(false, format!("{text}\n")));
    let Some(question) = Question::of(request.uri().path()) else {
        return text(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz");
    };
    if request.method() != Method::GET {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    let (answer, page) = oneshot::channel();
    let page = match asked.send(Asked { question, answer }).await {
        Ok(()) => page.await.ok(),
        Err(_) => None,
    };
    match page {
        Some(page) if page.good => response(StatusCode::OK, page),
        Some(page) => response(StatusCode::SERVICE_UNAVAILABLE, page),
        None => text(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping"),
    }
}

fn response(status: StatusCode, page: Page) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(page.content_type));
    response
}
