//! The control socket: one JSON object a line in, one a line out ([`super::protocol`]).
//!
//! Who may connect is decided by the kernel: the file has mode 0600, or 0660 and the
//! configured group, and `connect` needs the right to write to it (`unix_find_bsd`,
//! net/unix/af_unix.c). So whoever got in without being root is in that group, by its
//! primary or a supplementary one; asking for the peer's groups again could only be less
//! exact. What such a client may ask is decided by the peer's credentials (`SO_PEERCRED`),
//! which the kernel keeps as they were at `connect`. Capabilities that ignore file modes
//! (CAP_DAC_OVERRIDE) get a client no further than the group does, and nowhere if there is none.
//!
//! [`server`] is the agent's side, [`client`] that of the command line, [`tail`] the feed of
//! a `tail`. Nothing here carries out a request.

pub mod client;
mod group;
pub mod server;
pub mod tail;

use std::{
    io,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::Mode,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType},
};

pub use client::{Replies, ask};
pub use server::{Answer, Asked, Peer, Refusals, serve};

/// Longest request in bytes, its newline included.
pub const REQUEST_MAX_BYTES: usize = 64 << 10;
/// Connections that wait to be accepted; more wait in `connect`.
const BACKLOG: i32 = 128;
const GROUP_FILE: &str = "/etc/group";

/// Which socket it is, for what is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketUse {
    /// The control socket.
    Control,
    /// The one that `metrics` names.
    Metrics,
}

impl SocketUse {
    fn name(self) -> &'static str {
        match self {
            Self::Control => "the control socket",
            Self::Metrics => "the metrics' socket",
        }
    }

    /// Its key in `[agent]`.
    fn key(self) -> &'static str {
        match self {
            Self::Control => "control_socket",
            Self::Metrics => "metrics",
        }
    }
}

/// Why the socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// It cannot be created.
    #[error("cannot listen on {name} {path}: {source}", name = .of.name())]
    Bind {
        /// Which one.
        of: SocketUse,
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The path belongs to something else.
    #[error("{1} exists and is no socket; remove it, or set another `{key}`", key = .0.key())]
    NoSocket(SocketUse, PathBuf),
    /// Another agent uses it.
    #[error(
        "another agent answers on {name} {1}; stop it, or set another `{key}`",
        name = .0.name(),
        key = .0.key()
    )]
    InUse(SocketUse, PathBuf),
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
    /// This user may not connect.
    #[error(
        "{0} may be used by root and by the members of `control_group` only (see [agent] in the configuration)"
    )]
    Denied(PathBuf),
    /// The agent is there and says nothing.
    #[error("the agent on {0} does not answer in time; try again, and look at its log")]
    Late(PathBuf),
    /// The agent has hung up.
    #[error("the agent on {0} has closed the connection; it may have ended, look at its log")]
    Closed(PathBuf),
    /// The request is longer than the agent takes.
    #[error("the request has {bytes} bytes, and an agent takes at most {REQUEST_MAX_BYTES}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// The agent's answer made no sense.
    #[error(
        "the agent's answer on {0} is not understood; are agent and command of the same version?"
    )]
    Answer(PathBuf),
}

/// Who may connect besides root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nobody.
    Root,
    /// The members of this group, for what `Request::is_for_the_group` allows.
    Group(u32),
}

/// A bound control socket.
#[derive(Debug)]
pub struct Listening {
    /// Listens, and does not block.
    pub socket: UnixListener,
    /// Who may connect.
    pub access: Access,
}

/// Binds the socket for root and, if it can be found, a group given by name or number; if
/// not, that is logged and the socket is root's alone. One left over by a dead agent is replaced.
///
/// # Errors
/// If another agent answers there, or the path is taken by anything else or
/// cannot be used.
pub fn bind(of: SocketUse, path: &Path, group: Option<&str>) -> Result<Listening, SocketError> {
    bind_with(of, path, group, Path::new(GROUP_FILE))
}

fn bind_with(
    of: SocketUse,
    path: &Path,
    group: Option<&str>,
    groups: &Path,
) -> Result<Listening, SocketError> {
    let failed = |source| SocketError::Bind { of, path: path.to_owned(), source };
    if UnixStream::connect(path).is_ok() {
        return Err(SocketError::InUse(of, path.to_owned()));
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    // A wrong path in the configuration must not cost anybody a file.
    if let Ok(there) = std::fs::symlink_metadata(path)
        && !there.file_type().is_socket()
    {
        return Err(SocketError::NoSocket(of, path.to_owned()));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let socket = listen(path).map_err(failed)?;
    let access = match group.map(|group| give_to_group(path, group, groups)) {
        None => Access::Root,
        Some(Ok(gid)) => Access::Group(gid),
        Some(Err(problem)) => {
            tracing::warn!(
                socket = %path.display(),
                problem,
                "Only root can use {}.", of.name()
            );
            // Whatever of it was done.
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).map_err(failed)?;
            Access::Root
        }
    };
    Ok(Listening { socket, access })
}

/// A socket whose file has mode 0600 from its first moment on: `bind` takes the mode of the
/// socket's own inode (`unix_bind_bsd`, net/unix/af_unix.c), so there is nothing to narrow after it.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// First the group, then the mode: no group but the right one ever has access.
fn give_to_group(path: &Path, group: &str, groups: &Path) -> Result<u32, String> {
    let gid = group::find(group, groups)?;
    std::os::unix::fs::lchown(path, None, Some(gid))
        .and_then(|()| std::fs::set_permissions(path, PermissionsExt::from_mode(0o660)))
        .map_err(|error| {
            format!(
                "the socket cannot be given to `control_group` {group:?}: {error} (needs CAP_CHOWN, or \
                 SupplementaryGroups={group} in a drop-in of the service's unit)"
            )
        })?;
    Ok(gid)
}

#[cfg(test)]
mod tests;
