//! The control socket: one JSON object a line in, one a line out.
//!
//! Only root may connect (mode 0600 and the peer's credentials). A client that
//! sends nonsense, too much or nothing costs one task and a bounded buffer.

use std::{
    io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::protocol::{Reply, Request};

const REQUEST_MAX_BYTES: u64 = 4096;
const CLIENTS_MAX: usize = 32;
const PATIENCE: Duration = Duration::from_secs(5);

/// A request with the way back to its client.
pub type Asked = (Request, oneshot::Sender<Reply>);

/// Why the socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It cannot be created.
    #[error("cannot listen on the control socket {path}: {source}")]
    Bind {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path belongs to something else.
    #[error("{0} exists and is no socket; remove it, or set another `control_socket`")]
    NoSocket(PathBuf),
    /// Another agent uses it.
    #[error(
        "another agent answers on the control socket {0}; stop it, or set another `control_socket`"
    )]
    InUse(PathBuf),
    /// No agent answers.
    #[error(
        "cannot reach the agent through {path}: {source} (is it running? `--socket` names another socket)"
    )]
    Connect {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The agent's answer made no sense.
    #[error(
        "the agent's answer on {0} is not understood; are agent and command of the same version?"
    )]
    Answer(PathBuf),
}

/// Binds the socket. One left over by a dead agent is replaced.
///
/// # Errors
/// If another agent answers there, or the path is taken by anything else or
/// cannot be used.
pub fn bind(path: &Path) -> Result<std::os::unix::net::UnixListener, SocketError> {
    let failed = |source| SocketError::Bind { path: path.to_owned(), source };
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(SocketError::InUse(path.to_owned()));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    // A wrong path in the configuration must not cost anybody a file.
    if let Ok(there) = std::fs::symlink_metadata(path)
        && !there.file_type().is_socket()
    {
        return Err(SocketError::NoSocket(path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Accepts clients for ever and passes their requests on.
pub async fn serve(listener: UnixListener, asked: mpsc::Sender<Asked>) {
    let clients = std::sync::Arc::new(tokio::sync::Semaphore::new(CLIENTS_MAX));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely; accepting again at once would spin.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let allowed = stream.peer_cred().is_ok_and(|peer| peer.uid() == 0);
        let Ok(slot) = std::sync::Arc::clone(&clients).try_acquire_owned() else { continue };
        if !allowed {
            continue;
        }
        let asked = asked.clone();
        tokio::spawn(async move {
            // A client that breaks off is its own affair.
            let _ = converse(stream, asked).await;
            drop(slot);
        });
    }
}

async fn converse(stream: UnixStream, asked: mpsc::Sender<Asked>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(REQUEST_MAX_BYTES);
        if timeout(PATIENCE, limited.read_until(b'\n', &mut line)).await?? == 0 {
            return Ok(());
        }
        let reply = if line.last() != Some(&b'\n') {
            Reply::refused(format!("a request is one line of at most {REQUEST_MAX_BYTES} bytes"))
        } else {
            answer(&line, &asked).await
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        timeout(PATIENCE, writer.write_all(&text)).await??;
        if line.last() != Some(&b'\n') {
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], asked: &mpsc::Sender<Asked>) -> Reply {
    let request = match Request::parse(line) {
        Ok(request) => request,
        Err(error) => return Reply::refused(error),
    };
    let (sender, receiver) = oneshot::channel();
    if asked.send((request, sender)).await.is_err() {
        return Reply::refused("the agent is stopping");
    }
    receiver.await.unwrap_or_else(|_| Reply::refused("the agent is stopping"))
}

/// Asks a running agent; for the command line.
///
/// # Errors
/// If no agent answers, or its answer is not understood.
pub fn ask(path: &Path, request: &Request) -> Result<Reply, SocketError> {
    use std::io::{BufRead as _, Write as _};
    let failed = |source| SocketError::Connect { path: path.to_owned(), source };
    let mut stream = std::os::unix::net::UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut text = request.to_line().map_err(|_| SocketError::Answer(path.to_owned()))?;
    text.push('\n');
    stream.write_all(text.as_bytes()).map_err(failed)?;
    let mut line = String::new();
    std::io::BufReader::new(stream).read_line(&mut line).map_err(failed)?;
    serde_json::from_str(&line).map_err(|_| SocketError::Answer(path.to_owned()))
}
