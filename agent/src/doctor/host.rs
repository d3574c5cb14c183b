//! The kernel: its version, its type information, and the settings that decide what programs may do.

use std::io;

use super::{Finding, read_trimmed};
use crate::{
    capture::{
        bpf::log_buffer_bytes,
        btf::{Btf, BtfError},
    },
    egress::xdp::kernel_defect,
};

/// First two numbers of a kernel release.
pub(super) type Version = (u32, u32);

/// The version that the tracepoint source is made for (README, "Requirements").
const WANTED: Version = (5, 19);
/// BPF ring buffers (`BPF_MAP_TYPE_RINGBUF`).
const RING_BUFFER: Version = (5, 8);
/// A smaller log buffer is overwritten within a millisecond or two of a storm.
const LOG_BUFFER_SMALL_BYTES: u64 = 1 << 20;

/// What the kernel says of itself.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    release: String,
    /// The type information, or why there is none.
    btf: Result<(), BtfProblem>,
    /// The mode in brackets of `/sys/kernel/security/lockdown`.
    lockdown: Option<String>,
    jit: Option<String>,
    log_buffer_bytes: Result<u64, String>,
    devkmsg: Option<String>,
}

#[derive(Clone, Debug)]
enum BtfProblem {
    Missing,
    Other(String),
}

impl Facts {
    pub(super) fn gather() -> Self {
        let btf = Btf::of_running_kernel().map(drop).map_err(|error| match error {
            BtfError::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                BtfProblem::Missing
            }
            error => BtfProblem::Other(error.to_string()),
        });
        let lockdown = read_trimmed("/sys/kernel/security/lockdown").ok();
        Self {
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            btf,
            lockdown: lockdown.as_deref().and_then(chosen).map(str::to_owned),
            jit: read_trimmed("/proc/sys/net/core/bpf_jit_enable").ok(),
            log_buffer_bytes: log_buffer_bytes().map_err(|error| error.to_string()),
            devkmsg: read_trimmed("/proc/sys/kernel/printk_devkmsg").ok(),
        }
    }

    pub(super) fn version(&self) -> Version {
        version(&self.release)
    }

    /// The kernel keeps what programs would have to read from them.
    pub(super) fn is_confidential(&self) -> bool {
        self.lockdown.as_deref() == Some("confidentiality")
    }
}

/// The word in brackets.
fn chosen(text: &str) -> Option<&str> {
    Some(text.split_once('[')?.1.split_once(']')?.0)
}

fn version(release: &str) -> Version {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
    (number(), number())
}

/// `commit_works`: the commit source does not depend on the size of the log buffer.
pub(super) fn judge(facts: &Facts, commit_works: bool) -> Vec<Finding> {
    let mut findings = vec![kernel(facts)];
    if let Some(remedy) = kernel_defect(&facts.release) {
        let found = format!("AF_XDP is defective on {}", facts.release);
        findings.push(Finding::warn("AF_XDP", found, remedy));
    }
    findings.push(match &facts.btf {
        Ok(()) => Finding::ok("BTF", "the kernel describes its types"),
        Err(BtfProblem::Missing) => Finding::warn(
            "BTF",
            format!("the kernel does not describe its types ({} is missing): no commit source, no fentry", Btf::SYSFS_PATH),
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y; the sources below do without where they are ok",
        ),
        Err(BtfProblem::Other(cause)) => Finding::warn(
            "BTF",
            cause.clone(),
            "mount sysfs on /sys and let the agent read it; else no commit source, no fentry",
        ),
    });
    findings.push(match facts.lockdown.as_deref() {
        Some("confidentiality") => Finding::warn(
            "lockdown",
            "mode confidentiality: programs may not read the kernel's memory",
            "boot with lockdown=integrity or without; meanwhile the agent reads /dev/kmsg",
        ),
        Some(mode) => Finding::ok("lockdown", format!("mode {mode}: programs may read records")),
        None => Finding::ok("lockdown", "not in use, or not shown (securityfs is not mounted)"),
    });
    // Shown in the first network namespace only.
    match facts.jit.as_deref() {
        Some("0") => findings.push(Finding::warn(
            "eBPF JIT",
            "off: programs are interpreted, which costs each printk several times more; no fentry",
            "sysctl net.core.bpf_jit_enable=1",
        )),
        Some(_) => findings.push(Finding::ok("eBPF JIT", "on")),
        None => {}
    }
    findings.push(log_buffer(facts, commit_works));
    if let Some(mode) = &facts.devkmsg {
        let meaning = match mode.as_str() {
            "on" => "programs may write to /dev/kmsg without limit",
            "off" => "what programs write to /dev/kmsg is discarded, and never sent",
            _ => {
                "programs may write ten lines in five seconds to /dev/kmsg; the rest is never sent"
            }
        };
        findings.push(Finding::ok("printk_devkmsg", format!("{mode}: {meaning}")));
    }
    findings
}

fn kernel(facts: &Facts) -> Finding {
    let found = |note: &str| format!("Linux {}{note}", facts.release);
    let version = version(&facts.release);
    if version < RING_BUFFER {
        Finding::warn(
            "kernel",
            found(": no BPF ring buffer before 5.8, so /dev/kmsg is the only source"),
            "use Linux 5.19 or later; until then set capture = \"kmsg\"",
        )
    } else if version < WANTED {
        Finding::warn(
            "kernel",
            found(": the agent's programs are made for 5.19 and later"),
            "use Linux 5.19 or later, or set capture = \"kmsg\"; the lines below tell what works",
        )
    } else {
        Finding::ok("kernel", found(""))
    }
}

fn log_buffer(facts: &Facts, commit_works: bool) -> Finding {
    let object = "log buffer";
    match facts.log_buffer_bytes {
        Ok(bytes) if bytes < LOG_BUFFER_SMALL_BYTES && !commit_works => Finding::warn(
            object,
            format!(
                "{} KiB: in a storm the kernel may overwrite lines before they are read",
                bytes >> 10
            ),
            "boot with log_buf_len=4M",
        ),
        Ok(bytes) => Finding::ok(object, format!("{} KiB", bytes >> 10)),
        Err(ref cause) => Finding::warn(
            object,
            format!("its size cannot be asked for: {cause}"),
            "run doctor as root, or with CAP_SYSLOG",
        ),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::Level;
    use super::*;

    pub(in crate::doctor) fn good() -> Facts {
        Facts {
            release: "6.12.1".to_owned(),
            btf: Ok(()),
            lockdown: Some("none".to_owned()),
            jit: Some("1".to_owned()),
            log_buffer_bytes: Ok(4 << 20),
            devkmsg: Some("ratelimit".to_owned()),
        }
    }

    /// The line of `object`, its level, and words of finding and remedy.
    #[track_caller]
    fn expect(facts: &Facts, commit_works: bool, object: &str, level: Level, words: &[&str]) {
        let findings = judge(facts, commit_works);
        let finding = findings.iter().find(|finding| finding.object == object).unwrap();
        assert_eq!(finding.level, level, "{finding:?}");
        assert_eq!(finding.remedy.is_some(), level != Level::Ok, "{finding:?}");
        let text = format!("{} -> {}", finding.finding, finding.remedy.clone().unwrap_or_default());
        for word in words {
            assert!(text.contains(word), "{word:?} in {text}");
        }
    }

    #[test]
    fn a_good_host_has_nothing_to_warn_of() {
        assert!(judge(&good(), true).iter().all(|finding| finding.level == Level::Ok));
    }

    #[test]
    fn old_and_defective_kernels_are_told() {
        let of = |release: &str| Facts { release: release.to_owned(), ..good() };
        expect(&of("5.4.0-150"), true, "kernel", Level::Warn, &["5.8", "capture = \"kmsg\""]);
        expect(&of("5.15.0"), true, "kernel", Level::Warn, &["5.19"]);
        expect(&of("5.19.0-rc1"), true, "kernel", Level::Ok, &[]);
        expect(&of("6.16.9"), true, "AF_XDP", Level::Warn, &["defective", "CVE-2025-40290"]);
    }

    #[test]
    fn what_programs_may_not_do_is_told() {
        let facts = Facts { btf: Err(BtfProblem::Missing), ..good() };
        expect(&facts, true, "BTF", Level::Warn, &["CONFIG_DEBUG_INFO_BTF"]);
        let facts = Facts { lockdown: Some("confidentiality".to_owned()), ..good() };
        expect(&facts, true, "lockdown", Level::Warn, &["lockdown=integrity"]);
        assert!(facts.is_confidential());
        let facts = Facts { jit: Some("0".to_owned()), ..good() };
        expect(&facts, true, "eBPF JIT", Level::Warn, &["net.core.bpf_jit_enable=1"]);
    }

    #[test]
    fn a_small_log_buffer_matters_where_it_is_read() {
        let facts = Facts { log_buffer_bytes: Ok(1 << 17), ..good() };
        expect(&facts, false, "log buffer", Level::Warn, &["128 KiB", "log_buf_len"]);
        expect(&facts, true, "log buffer", Level::Ok, &["128 KiB"]);
        let facts = Facts { log_buffer_bytes: Err("Operation not permitted".to_owned()), ..good() };
        expect(&facts, true, "log buffer", Level::Warn, &["not permitted", "root"]);
    }

    #[test]
    fn the_chosen_mode_is_the_one_in_brackets() {
        assert_eq!(chosen("none [integrity] confidentiality"), Some("integrity"));
        assert_eq!(chosen("none"), None);
    }
}
