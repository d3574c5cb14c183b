//! The command line's side of the control socket.

use std::{
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    super::protocol::{Reply, Request},
    REQUEST_MAX_BYTES, SocketError,
};

/// Longer than the agent's own patience with itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most bytes of a reply: the status of some thousand targets.
const REPLY_MAX_BYTES: u64 = 64 << 20;

/// Asks a running agent and takes its first reply.
///
/// # Errors
/// If no agent answers, or its answer is not understood.
pub fn ask(path: &Path, request: &Request) -> Result<Reply, SocketError> {
    let mut replies = Replies::open(path, request)?;
    replies.read()?.ok_or(SocketError::Closed(replies.path))
}

/// The replies to a request, as they come.
#[derive(Debug)]
pub struct Replies {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

impl Replies {
    /// Asks. The first reply says whether it is carried out.
    ///
    /// # Errors
    /// If no agent can be reached.
    pub fn open(path: &Path, request: &Request) -> Result<Self, SocketError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => SocketError::Denied(path.to_owned()),
            _ => SocketError::Connect { path: path.to_owned(), source },
        };
        let mut line = request.to_line().map_err(|_| SocketError::Answer(path.to_owned()))?;
        line.push('\n');
        if line.len() > REQUEST_MAX_BYTES {
            return Err(SocketError::TooLong { bytes: line.len() });
        }
        let mut stream = UnixStream::connect(path).map_err(failed)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(failed)?;
        match stream.write_all(line.as_bytes()) {
            // It has hung up already; it may have said why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result.map_err(failed)?,
        }
        Ok(Self { path: path.to_owned(), reader: BufReader::new(stream) })
    }

    /// The next reply; `None` once the agent has hung up.
    ///
    /// # Errors
    /// If none comes in time, or it is not understood.
    pub fn read(&mut self) -> Result<Option<Reply>, SocketError> {
        let mut line = Vec::new();
        let read = (&mut self.reader).take(REPLY_MAX_BYTES).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(SocketError::Late(self.path.clone()));
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(source) => {
                return Err(SocketError::Connect { path: self.path.clone(), source });
            }
        }
        let reply = serde_json::from_slice(&line);
        reply.map(Some).map_err(|_| SocketError::Answer(self.path.clone()))
    }

    /// From now on a reply may take as long as it takes.
    ///
    /// # Errors
    /// If the system does not allow it.
    pub fn wait_for_ever(&mut self) -> Result<(), SocketError> {
        let set = self.reader.get_ref().set_read_timeout(None);
        set.map_err(|source| SocketError::Connect { path: self.path.clone(), source })
    }
}

impl Iterator for Replies {
    type Item = Result<Reply, SocketError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}
