//! What the start needs, and giving up what only the start needs.
//!
//! Attaching programs and opening `/dev/kmsg` need much; afterwards the agent
//! opens raw sockets, asks the kernel to resolve neighbours, and locks memory.
//! Capabilities belong to threads, so this runs before any thread is started.

use caps::{CapSet, Capability, CapsHashSet};

use crate::{capture::Choice, capture::SourceKind, config::Config, egress::EgressKind};

/// A capability that the agent needs.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Its name.
    pub name: &'static str,
    /// One of these is enough.
    pub one_of: &'static [Capability],
    /// What for.
    pub purpose: &'static str,
}

/// Root needs it not: the files are its own.
pub(crate) const DAC_READ_SEARCH: &str = "CAP_DAC_READ_SEARCH";

/// What needs which capability; the first two are for the programs.
pub const NEEDS: [Need; 7] = [
    Need {
        name: "CAP_BPF",
        one_of: &[Capability::CAP_BPF, Capability::CAP_SYS_ADMIN],
        purpose: "loading the programs",
    },
    Need {
        name: "CAP_PERFMON",
        one_of: &[Capability::CAP_PERFMON, Capability::CAP_SYS_ADMIN],
        purpose: "attaching the programs",
    },
    Need {
        name: "CAP_SYSLOG",
        one_of: &[Capability::CAP_SYSLOG, Capability::CAP_SYS_ADMIN],
        purpose: "opening /dev/kmsg where kernel.dmesg_restrict=1",
    },
    Need {
        name: DAC_READ_SEARCH,
        one_of: &[Capability::CAP_DAC_READ_SEARCH, Capability::CAP_DAC_OVERRIDE],
        purpose: "after_crash: what pstore kept is root's",
    },
    Need {
        name: "CAP_NET_RAW",
        one_of: &[Capability::CAP_NET_RAW],
        purpose: "AF_XDP and AF_PACKET sockets",
    },
    Need {
        name: "CAP_NET_ADMIN",
        one_of: &[Capability::CAP_NET_ADMIN],
        purpose: "having the kernel resolve a neighbour",
    },
    Need { name: "CAP_IPC_LOCK", one_of: &[Capability::CAP_IPC_LOCK], purpose: "locking memory" },
];

/// The process may not do what its configuration asks for.
#[derive(Debug, thiserror::Error)]
#[error(
    "the agent (user {uid}) lacks {}.\n\
     Start it as a service (`systemctl start netconsole-agent`) or as root; or grant them: \
     `AmbientCapabilities=` in a unit, `--cap-add` of a container, \
     `setcap {}+ep` on its binary.{}",
    listed(.missing), granted(.missing), .instead.map_or(String::new(), |instead| format!("\n{instead}"))
)]
pub struct Unprivileged {
    uid: u32,
    missing: Vec<Need>,
    /// How it could be without them.
    instead: Option<&'static str>,
}

fn listed(missing: &[Need]) -> String {
    let each = missing.iter().map(|need| format!("{} ({})", need.name, need.purpose));
    each.collect::<Vec<_>>().join(", ")
}

fn granted(missing: &[Need]) -> String {
    missing.iter().map(|need| need.name.to_lowercase()).collect::<Vec<_>>().join(",")
}

/// Checks that this process has the capabilities without which it could do less than its
/// configuration asks for: "auto" is a choice among what the host can do, not among what somebody
/// forgot to grant.
///
/// # Errors
/// If one is missing; all of them are named.
pub fn check(config: &Config) -> Result<(), Unprivileged> {
    // What cannot be read is missing.
    let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
    let restricted = std::fs::read_to_string("/proc/sys/kernel/dmesg_restrict")
        .is_ok_and(|value| value.trim() != "0");
    let user = rustix::process::geteuid();
    let has = |capability| effective.contains(&capability);
    let missing = missing(config, restricted, user.is_root(), has);
    if missing.is_empty() {
        return Ok(());
    }
    let raw = missing.iter().any(|need| need.name == "CAP_NET_RAW");
    let bpf = missing.iter().any(|need| need.one_of.contains(&Capability::CAP_BPF));
    let instead = match (bpf, raw) {
        (true, _) => Some(
            "With less it runs as an ordinary program if the configuration says so: `capture = \"kmsg\"` \
             in [agent], and `egress = \"udp\"` in each target.",
        ),
        (false, true) => Some("Without raw sockets: `egress = \"udp\"` in each target."),
        (false, false) => None,
    };
    Err(Unprivileged { uid: user.as_raw(), missing, instead })
}

fn missing(
    config: &Config,
    restricted: bool,
    root: bool,
    has: impl Fn(Capability) -> bool,
) -> Vec<Need> {
    let programs = config.agent.capture != Choice::Only(SourceKind::Kmsg);
    let raw_socket = |kind: Option<EgressKind>| match kind {
        None | Some(EgressKind::Xdp | EgressKind::Packet) => true,
        Some(EgressKind::Udp | EgressKind::Pcap | EgressKind::Memory) => false,
    };
    let raw_sockets = config.targets.iter().any(|target| raw_socket(target.egress));
    let dumps = config.wants_after_crash();
    let is_needed = |need: &&Need| match need.name {
        "CAP_BPF" | "CAP_PERFMON" => programs,
        "CAP_SYSLOG" => restricted,
        "CAP_NET_RAW" => raw_sockets,
        DAC_READ_SEARCH => dumps && !root,
        // Without them a neighbour that is not known, or memory under pressure, is a problem.
        _ => false,
    };
    let is_missing = |need: &&Need| !need.one_of.iter().any(|capability| has(*capability));
    NEEDS.iter().filter(is_needed).filter(is_missing).copied().collect()
}

/// What stays, and what for (the README's table says the same):
/// `CAP_NET_RAW` opens AF_XDP and AF_PACKET sockets, `CAP_NET_ADMIN` asks the kernel to
/// resolve a neighbour, `CAP_IPC_LOCK` lets a new socket's frames be locked.
pub const KEPT: [Capability; 3] =
    [Capability::CAP_NET_RAW, Capability::CAP_NET_ADMIN, Capability::CAP_IPC_LOCK];

/// Reads something as the agent will be able to read it once it has given up privileges: by its user
/// and groups alone. What a start reads and a reload cannot would fail at the worst time.
pub fn as_after_the_start<T>(read: impl FnOnce() -> T) -> T {
    let before = caps::read(None, CapSet::Effective).unwrap_or_default();
    for capability in [Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH] {
        if before.contains(&capability) {
            let _ = caps::drop(None, CapSet::Effective, capability);
        }
    }
    let result = read();
    // They are permitted still.
    let _ = caps::set(None, CapSet::Effective, &before);
    result
}

/// Why a capability could not be given up.
#[derive(Debug, thiserror::Error)]
#[error("cannot give up capabilities ({set} set): {cause}")]
pub struct PrivilegeError {
    set: &'static str,
    cause: String,
}

/// Drops everything but [`KEPT`], for this thread and all that it starts.
///
/// # Errors
/// If the kernel refuses.
pub fn drop_start_up_privileges() -> Result<(), PrivilegeError> {
    let failed = |set| {
        move |cause: caps::errors::CapsError| PrivilegeError { set, cause: cause.to_string() }
    };
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed("permitted"))?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|cap| permitted.contains(cap)).collect();
    // The bounding set needs CAP_SETPCAP; a unit without it has bounded the set already.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::all() {
            let bounded = caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false);
            if bounded && !KEPT.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(failed("bounding"))?;
            }
        }
    }
    // Kernels before 4.3 have no ambient set, which leaves nothing to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Effective, &kept).map_err(failed("effective"))?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(failed("inheritable"))?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed("permitted"))?;
    // No program that is started from here on regains anything.
    let _ = rustix::thread::set_no_new_privs(true);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of what this configuration lacks without any capability.
    fn lacks(text: &str, root: bool) -> Vec<&'static str> {
        let text = format!("{text}\n[target.x]\nremote = \"192.0.2.1\"\n");
        let config = crate::config::parse(&text, "agent.toml").unwrap();
        missing(&config, false, root, |_| false).iter().map(|need| need.name).collect()
    }

    #[test]
    fn each_setting_needs_what_it_needs() {
        assert_eq!(lacks("", true), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_RAW"]);
        let modest = "[agent]\ncapture = \"kmsg\"\n[defaults]\negress = \"udp\"\n";
        assert!(lacks(modest, false).is_empty());
        let dumps = format!("{modest}after_crash = true\n");
        assert_eq!(lacks(&dumps, false), [DAC_READ_SEARCH]);
        assert!(lacks(&dumps, true).is_empty(), "root owns those files");
    }
}
