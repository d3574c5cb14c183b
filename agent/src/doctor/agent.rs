//! A running agent: it holds what this command would try to open.

use std::{io, path::Path, path::PathBuf};

use super::Finding;
use crate::control::{
    protocol::Request,
    socket::{SocketError, ask},
    status::Status,
};

/// Whether an agent runs, as far as its control socket tells.
#[derive(Clone, Debug)]
pub(super) enum Facts {
    Running(Running),
    None,
    /// It cannot be asked.
    Unknown {
        socket: PathBuf,
        cause: String,
        denied: bool,
    },
}

/// A running agent.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub(super) pid: u32,
    version: String,
    source: String,
    /// It sees the network that this process sees.
    same_namespace: bool,
    targets: Vec<RunningTarget>,
}

/// A target of a running agent.
#[derive(Clone, Debug)]
pub(super) struct RunningTarget {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) waiting_for: Option<String>,
    pub(super) egress: Option<String>,
    queue: Option<u32>,
    device: Option<String>,
}

impl Running {
    fn new(status: Status) -> Self {
        let targets = status.targets.into_iter().map(|target| RunningTarget {
            name: target.name,
            state: target.state,
            waiting_for: target.waiting_for,
            queue: target.egress.as_ref().and_then(|egress| egress.queue),
            egress: target.egress.map(|egress| egress.kind),
            device: target.next_hop.map(|hop| hop.device),
        });
        Self {
            pid: status.pid,
            version: status.version,
            source: status.capture.source,
            same_namespace: same_network_namespace(status.pid),
            targets: targets.collect(),
        }
    }
}

impl Facts {
    pub(super) fn gather(socket: &Path) -> Self {
        let unknown =
            |cause: String, denied| Self::Unknown { socket: socket.to_owned(), cause, denied };
        match ask(socket, &Request::Status) {
            Ok(reply) => match reply.status {
                Some(status) => Self::Running(Running::new(*status)),
                None => unknown(reply.error.unwrap_or_else(|| "no status".to_owned()), false),
            },
            Err(SocketError::Connect { source, .. }) => match source.kind() {
                // A socket that nobody listens on was left by an agent that was killed.
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Self::None,
                kind => unknown(source.to_string(), kind == io::ErrorKind::PermissionDenied),
            },
            Err(error) => unknown(error.to_string(), false),
        }
    }

    /// The agent and its target of this name, if it sees the network that we see.
    pub(super) fn target(&self, name: &str) -> Option<(&Running, &RunningTarget)> {
        let running = self.near()?;
        Some((running, running.targets.iter().find(|target| target.name == name)?))
    }

    /// The process id of the agent that holds a queue of a device.
    pub(super) fn holder(&self, device: &str, queue: u32) -> Option<u32> {
        let running = self.near()?;
        let holds = |target: &RunningTarget| {
            target.egress.as_deref() == Some("xdp")
                && target.queue == Some(queue)
                && target.device.as_deref() == Some(device)
        };
        running.targets.iter().any(holds).then_some(running.pid)
    }

    /// The process id of an agent that sees the network that we see.
    pub(super) fn pid(&self) -> Option<u32> {
        self.near().map(|running| running.pid)
    }

    fn near(&self) -> Option<&Running> {
        match self {
            Self::Running(running) if running.same_namespace => Some(running),
            _ => None,
        }
    }

    pub(super) fn judge(&self) -> Finding {
        match self {
            Self::Running(running) => {
                let sending = running.targets.iter().filter(|target| target.state == "active");
                let text = format!(
                    "version {} runs with pid {}, source {}; {} of {} targets send",
                    running.version,
                    running.pid,
                    running.source,
                    sending.count(),
                    running.targets.len()
                );
                if running.same_namespace {
                    Finding::ok("agent", text)
                } else {
                    Finding::warn(
                        "agent",
                        format!("{text}; it is in another network namespace than this command"),
                        format!(
                            "`nsenter --net=/proc/{}/ns/net netconsole-agent doctor` sees its network",
                            running.pid
                        ),
                    )
                }
            }
            Self::None => Finding::ok("agent", "none runs"),
            Self::Unknown { socket, denied: true, .. } => Finding::warn(
                "agent",
                format!("whether one runs is not known: only root may ask on {}", socket.display()),
                "run doctor as root",
            ),
            Self::Unknown { socket, cause, .. } => Finding::warn(
                "agent",
                format!(
                    "one listens on {}, but its answer is of no use: {cause}",
                    socket.display()
                ),
                "restart the agent; command and agent should be of the same version",
            ),
        }
    }
}

/// Devices are known by name, so an agent elsewhere must not be mistaken for one here.
fn same_network_namespace(pid: u32) -> bool {
    let of = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
    match (of("self"), of(&pid.to_string())) {
        (Some(own), Some(other)) => own == other,
        // In another pid namespace it cannot be seen; the socket in common speaks for one host.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn running(same_namespace: bool) -> Facts {
        let target = RunningTarget {
            name: "a".to_owned(),
            state: "active".to_owned(),
            waiting_for: None,
            egress: Some("xdp".to_owned()),
            queue: Some(0),
            device: Some("eth7".to_owned()),
        };
        Facts::Running(Running {
            pid: 7,
            version: "1".to_owned(),
            source: "commit".to_owned(),
            same_namespace,
            targets: vec![target],
        })
    }

    #[test]
    fn it_holds_its_own_queue_only() {
        let agent = running(true);
        assert_eq!(agent.holder("eth7", 0), Some(7));
        assert_eq!(agent.holder("eth7", 1), None);
        assert_eq!(agent.holder("eth8", 0), None);
        assert_eq!(agent.judge().level, Level::Ok);
        assert!(agent.judge().finding.contains("1 of 1 targets send"));
    }

    #[test]
    fn an_agent_elsewhere_holds_nothing_here() {
        let agent = running(false);
        assert_eq!(agent.holder("eth7", 0), None);
        assert!(agent.target("a").is_none());
        assert!(agent.judge().remedy.is_some_and(|remedy| remedy.contains("nsenter")));
    }

    #[test]
    fn no_socket_means_no_agent() {
        let folder = tempfile::tempdir().unwrap();
        let facts = Facts::gather(&folder.path().join("none.sock"));
        assert!(matches!(facts, Facts::None));
        assert_eq!(facts.judge(), Finding::ok("agent", "none runs"));
    }
}
