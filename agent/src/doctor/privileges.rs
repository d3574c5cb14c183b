//! What this process may do, against what the agent needs (README, "Requirements").
//!
//! `kernel.unprivileged_bpf_disabled` is not looked at: tracing programs need the capabilities whatever
//! it says.

use caps::{CapSet, Capability};
use rustix::process::{Resource, getrlimit};

use super::{Finding, host::Version, read_trimmed};
use crate::{
    config,
    privileges::{DAC_READ_SEARCH, NEEDS, Need},
};

/// Memory of BPF maps counts against RLIMIT_MEMLOCK before this version.
const MAPS_NOT_LOCKED: Version = (5, 11);
/// Frames of an AF_XDP socket, stacks, and what else is locked beside store and ring.
const OTHER_LOCKED_BYTES: u64 = 24 << 20;

/// Who this process is.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    /// Effective user id 0: what is missing is missing for the agent, too.
    pub(super) root: bool,
    held: Vec<Capability>,
    /// In a user namespace of its own, where capabilities count for nothing outside.
    user_namespace: bool,
    /// `None` is no limit.
    memlock_bytes: Option<u64>,
    dmesg_restrict: Option<String>,
}

impl Facts {
    pub(super) fn gather() -> Self {
        let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Self {
            root: rustix::process::geteuid().is_root(),
            held: effective.into_iter().collect(),
            user_namespace: !is_first_user_namespace(&map),
            memlock_bytes: getrlimit(Resource::Memlock).current,
            dmesg_restrict: read_trimmed("/proc/sys/kernel/dmesg_restrict").ok(),
        }
    }

    pub(super) fn has(&self, capability: Capability) -> bool {
        self.held.contains(&capability)
    }

    /// Whether programs may be loaded and attached.
    pub(super) fn may_trace(&self) -> bool {
        NEEDS[..2].iter().all(|need| self.has_one(need.one_of))
    }

    fn has_one(&self, one_of: &[Capability]) -> bool {
        one_of.iter().any(|capability| self.has(*capability))
    }

    /// How to get a capability: only root can miss it for good.
    pub(super) fn remedy(&self, capability: &str) -> String {
        if self.root {
            format!(
                "give this environment {capability} (CapabilityBoundingSet=, container settings)"
            )
        } else {
            format!("run doctor as root, or with {capability}")
        }
    }
}

/// The first user namespace maps every id to itself (user_namespaces(7)).
fn is_first_user_namespace(uid_map: &str) -> bool {
    // Without the file there are no such namespaces.
    uid_map.is_empty() || uid_map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// `wants_dumps`: whether a target has `after_crash`.
pub(super) fn judge(
    facts: &Facts,
    settings: &config::Agent,
    wants_dumps: bool,
    kernel: Version,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let (held, missing): (Vec<&Need>, Vec<&Need>) =
        NEEDS.iter().partition(|need| facts.has_one(need.one_of));
    if !held.is_empty() {
        let names: Vec<_> = held.iter().map(|need| need.name).collect();
        findings.push(Finding::ok("capabilities", format!("held: {}", names.join(", "))));
    }
    for Need { name, purpose, .. } in missing {
        // Without the restriction everybody may read.
        if *name == "CAP_SYSLOG" && facts.dmesg_restrict.as_deref() == Some("0") {
            continue;
        }
        if *name == DAC_READ_SEARCH && (facts.root || !wants_dumps) {
            continue;
        }
        findings.push(Finding::warn(
            "capabilities",
            format!("missing: {name}, for {purpose}"),
            facts.remedy(name),
        ));
    }
    if facts.user_namespace {
        findings.push(Finding::warn(
            "user namespace",
            "this process is in a user namespace: its capabilities do not count for programs and the kernel log",
            "run the agent on the host, or in a container without a user namespace",
        ));
    }
    if let Some(value) = &facts.dmesg_restrict {
        let meaning = if value == "0" {
            "everybody may read the log"
        } else {
            "reading the log needs CAP_SYSLOG"
        };
        findings.push(Finding::ok("dmesg_restrict", format!("{value}: {meaning}")));
    }
    findings.push(memlock(facts, settings, kernel));
    findings
}

fn memlock(facts: &Facts, settings: &config::Agent, kernel: Version) -> Finding {
    let object = "memlock";
    let Some(limit_bytes) = facts.memlock_bytes else {
        return Finding::ok(object, "RLIMIT_MEMLOCK is unlimited");
    };
    let limit = format!("RLIMIT_MEMLOCK is {} KiB", limit_bytes >> 10);
    let ring_bytes = u64::from(settings.ring_bytes);
    let needed_bytes = ring_bytes + settings.store_bytes as u64 + OTHER_LOCKED_BYTES;
    if kernel < MAPS_NOT_LOCKED && limit_bytes < ring_bytes + OTHER_LOCKED_BYTES {
        Finding::warn(
            object,
            format!("{limit}, and before Linux 5.11 the memory of eBPF maps counts against it"),
            "start the agent with LimitMEMLOCK=infinity (ulimit -l unlimited)",
        )
    } else if facts.has(Capability::CAP_IPC_LOCK) {
        Finding::ok(object, format!("{limit}, which CAP_IPC_LOCK lifts"))
    } else if limit_bytes < needed_bytes {
        Finding::warn(
            object,
            format!("{limit}; the agent locks about {} MiB", needed_bytes >> 20),
            "start the agent with CAP_IPC_LOCK or LimitMEMLOCK=infinity (ulimit -l unlimited)",
        )
    } else {
        Finding::ok(object, limit)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Level;
    use super::*;

    pub(in crate::doctor) fn root() -> Facts {
        Facts {
            root: true,
            held: caps::all().into_iter().collect(),
            user_namespace: false,
            memlock_bytes: Some(8 << 20),
            dmesg_restrict: Some("1".to_owned()),
        }
    }

    pub(in crate::doctor) fn nobody() -> Facts {
        Facts { root: false, held: Vec::new(), ..root() }
    }

    fn lines(facts: &Facts, kernel: Version) -> Vec<Finding> {
        judge(facts, &config::Agent::default(), true, kernel)
    }

    fn warned(facts: &Facts, kernel: Version) -> String {
        let warned = lines(facts, kernel).into_iter().filter(|line| line.level == Level::Warn);
        warned.map(|line| format!("{} -> {}\n", line.finding, line.remedy.unwrap())).collect()
    }

    #[test]
    fn root_has_all() {
        assert_eq!(warned(&root(), (6, 12)), "");
        assert!(root().may_trace());
    }

    #[test]
    fn each_missing_capability_is_told_with_its_need() {
        let text = warned(&nobody(), (6, 12));
        for Need { name, purpose: need, .. } in NEEDS {
            assert!(text.contains(&format!("missing: {name}, for {need}")), "{text}");
        }
        assert!(text.contains("run doctor as root"), "{text}");
        assert!(!nobody().may_trace());
        let mut one = root();
        one.held
            .retain(|held| !matches!(held, Capability::CAP_NET_RAW | Capability::CAP_SYS_ADMIN));
        let text = warned(&one, (6, 12));
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("CAP_NET_RAW") && text.contains("CapabilityBoundingSet"), "{text}");
    }

    #[test]
    fn an_open_log_needs_no_capability() {
        let facts = Facts { dmesg_restrict: Some("0".to_owned()), ..nobody() };
        assert!(!warned(&facts, (6, 12)).contains("CAP_SYSLOG"));
    }

    #[test]
    fn dumps_are_read_where_they_are_wanted() {
        let settings = config::Agent::default();
        let told = |facts: &Facts, wants_dumps| {
            let findings = judge(facts, &settings, wants_dumps, (6, 12));
            findings.iter().any(|finding| finding.finding.contains(DAC_READ_SEARCH))
        };
        assert!(told(&nobody(), true));
        assert!(!told(&nobody(), false));
        assert!(!told(&Facts { held: Vec::new(), ..root() }, true), "root owns those files");
    }

    #[test]
    fn memlock_matters_to_old_kernels_and_without_the_capability() {
        assert!(warned(&root(), (5, 10)).contains("before Linux 5.11"));
        assert!(warned(&nobody(), (6, 1)).contains("locks about 48 MiB"));
        let free = Facts { memlock_bytes: None, ..nobody() };
        assert!(!warned(&free, (5, 4)).contains("MEMLOCK"));
    }

    #[test]
    fn user_namespaces_are_seen() {
        assert!(is_first_user_namespace("         0          0 4294967295\n"));
        assert!(!is_first_user_namespace("         0       1000          1\n"));
        let facts = Facts { user_namespace: true, ..root() };
        assert!(warned(&facts, (6, 1)).contains("user namespace"));
    }
}
