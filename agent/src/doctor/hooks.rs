//! The sources of records: which hooks the kernel takes, and which source that makes.

use std::{io::BufReader, num::NonZero};

use super::{Finding, host, kernel_config::KernelConfig, privileges};
use crate::{
    capture::{
        Choice, SourceKind,
        bpf::{HookPurpose, HookTrial, Probes},
        kmsg::{KmsgError, KmsgReader},
    },
    config,
    last_words::{find_panic_cpu, open_symbols},
};

/// `ENOTSUPP` (`include/linux/errno.h`), which libc has no words for.
const ENOTSUPP: i32 = 524;

/// What was tried.
pub(super) struct Facts {
    choice: Choice,
    programs: Programs,
    /// Why `/dev/kmsg` cannot be read.
    kmsg: Result<(), KmsgError>,
    /// Where the kernel keeps `panic_cpu`.
    panic_cpu: Result<u64, String>,
    /// CPUs that the agent may use.
    cpus: usize,
}

enum Programs {
    /// Not tried, for want of privileges.
    NotTried,
    /// Refused as a whole.
    Refused(String),
    Tried(Vec<HookTrial>),
}

impl Facts {
    /// Tries all hooks, whatever the configuration asks for.
    pub(super) fn gather(settings: &config::Agent, privileges: &privileges::Facts) -> Self {
        let programs = if privileges.may_trace() {
            match Probes::load(settings.ring_bytes) {
                Ok(mut probes) => Programs::Tried(probes.try_hooks()),
                Err(error) => Programs::Refused(error.to_string()),
            }
        } else {
            Programs::NotTried
        };
        let kmsg = KmsgReader::open().and_then(|mut reader| reader.read().map(drop));
        let symbols =
            open_symbols().map_err(|error| format!("/proc/kallsyms: {error}"));
        let panic_cpu = symbols.and_then(|file| find_panic_cpu(BufReader::new(file)));
        let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self { choice: settings.capture, programs, kmsg, panic_cpu, cpus }
    }

    pub(super) fn commit_works(&self) -> bool {
        self.works(HookPurpose::Commit)
    }

    fn works(&self, purpose: HookPurpose) -> bool {
        let Programs::Tried(trials) = &self.programs else { return false };
        trials.iter().any(|trial| trial.purpose == purpose && trial.refusal.is_none())
    }

    fn source_works(&self, kind: SourceKind) -> bool {
        match kind {
            SourceKind::Commit => self.works(HookPurpose::Commit),
            SourceKind::Tracepoint => self.works(HookPurpose::Tracepoint),
            SourceKind::Kmsg => true,
        }
    }
}

pub(super) fn judge(
    facts: &Facts,
    privileges: &privileges::Facts,
    host: &host::Facts,
    kernel_config: &KernelConfig,
) -> Vec<Finding> {
    let mut findings = vec![kmsg(facts, privileges)];
    match &facts.programs {
        Programs::NotTried => findings.push(Finding::warn(
            "hooks",
            "not looked at: loading programs needs CAP_BPF and CAP_PERFMON",
            privileges.remedy("CAP_BPF and CAP_PERFMON"),
        )),
        Programs::Refused(cause) => findings.push(Finding::warn(
            "hooks",
            cause.clone(),
            "allow bpf(2) (seccomp filter, SystemCallFilter=, security module), or set capture = \"kmsg\"",
        )),
        Programs::Tried(trials) => findings.extend(trials.iter().map(|trial| {
            let object = format!("{} {}", trial.kind, purpose_name(trial.purpose));
            match &trial.refusal {
                None => Finding::ok(object, format!("attaches to {}", trial.at)),
                Some(refusal) => {
                    let cause = in_words(&refusal.cause);
                    match alternative(facts, trials, trial.purpose) {
                        Some(other) => Finding::ok(object, format!("{cause}; not needed, {other}")),
                        None => Finding::warn(
                            object,
                            cause,
                            remedy(trial, host.is_confidential(), kernel_config),
                        ),
                    }
                }
            }
        })),
    }
    findings.push(source(facts, privileges));
    if let Programs::Tried(trials) = &facts.programs {
        findings.push(last_words(facts, trials));
    }
    findings
}

fn purpose_name(purpose: HookPurpose) -> &'static str {
    match purpose {
        HookPurpose::Commit => "commit",
        HookPurpose::Tracepoint => "printk",
        HookPurpose::Netdev => "netdev",
        HookPurpose::Panic => "panic",
    }
}

/// Whether the end of a panic gets out.
fn last_words(facts: &Facts, trials: &[HookTrial]) -> Finding {
    let object = "last words";
    let works = |trial: &&HookTrial| trial.purpose == HookPurpose::Panic && trial.refusal.is_none();
    let proof = match (trials.iter().find(works), &facts.panic_cpu) {
        (Some(trial), _) => Ok(format!("{} {}", trial.kind, trial.at)),
        (None, Ok(_)) => Ok("panic_cpu".to_owned()),
        (None, Err(why)) => Err(why),
    };
    match proof {
        _ if facts.cpus < 2 => Finding::warn(
            object,
            "the agent has one CPU: when it panics, nobody is left to send what it says",
            "give the agent a second CPU (CPUAffinity=, cpuset); what is printed before still leaves, and \
             pstore keeps the rest",
        ),
        Ok(proof) => {
            Finding::ok(object, format!("lines of a panic are held until they have left: {proof}"))
        }
        Err(why) => Finding::warn(
            object,
            format!(
                "lines of a panic are not held, its end may not get out: nothing proves a panic ({why})"
            ),
            "use a kernel with CONFIG_KPROBES=y or CONFIG_KALLSYMS_ALL=y, and kernel.kptr_restrict of at most 1",
        ),
    }
}

/// What makes a refused hook dispensable.
fn alternative(facts: &Facts, trials: &[HookTrial], purpose: HookPurpose) -> Option<String> {
    let other = trials.iter().find(|trial| trial.purpose == purpose && trial.refusal.is_none());
    match (other, purpose) {
        (Some(other), _) => Some(format!("{} works", other.kind)),
        (None, HookPurpose::Tracepoint) if facts.commit_works() => {
            Some("the commit source works".to_owned())
        }
        (None, HookPurpose::Netdev) => {
            Some("the agent hears of devices by rtnetlink, a little later".to_owned())
        }
        (None, HookPurpose::Panic) if facts.panic_cpu.is_ok() => {
            Some("the kernel shows panic_cpu".to_owned())
        }
        _ => None,
    }
}

/// The kernel's refusal in words where its own say nothing to a reader.
fn in_words(cause: &str) -> String {
    if cause.contains("/event_source/devices/kprobe") {
        return format!("the kernel has no kprobes ({cause})");
    }
    cause.replace(
        &format!("Unknown error {ENOTSUPP} (os error {ENOTSUPP})"),
        "the kernel does not support this (ENOTSUPP)",
    )
}

fn remedy(trial: &HookTrial, confidential: bool, kernel_config: &KernelConfig) -> String {
    let refusal = trial.refusal.as_ref();
    let cause = refusal.map(|refusal| refusal.cause.as_str()).unwrap_or_default();
    let errno = refusal.and_then(|refusal| refusal.errno);
    let unset = |options: &[&'static str]| -> Vec<String> {
        let unset = options.iter().filter(|option| kernel_config.has(option) == Some(false));
        unset.map(|option| format!("CONFIG_{option}=y")).collect()
    };
    let wanted: &[&str] = match trial.kind {
        "fentry" => &["DEBUG_INFO_BTF", "FUNCTION_TRACER", "DYNAMIC_FTRACE_WITH_DIRECT_CALLS"],
        "kprobe" => &["KPROBES", "KPROBE_EVENTS", "BPF_EVENTS"],
        "tp_btf" => &["DEBUG_INFO_BTF", "BPF_EVENTS"],
        _ => &["BPF_EVENTS"],
    };
    let missing = unset(wanted);
    if !missing.is_empty() {
        format!("use a kernel with {}", missing.join(", "))
    } else if confidential {
        "boot with lockdown=integrity or without".to_owned()
    } else if cause.contains("CONFIG_DEBUG_INFO_BTF") {
        "use a kernel with CONFIG_DEBUG_INFO_BTF=y".to_owned()
    } else if cause.contains("no field") {
        "please report this kernel's release: its printk is laid out in a way the agent does not know"
            .to_owned()
    } else if trial.kind == "kprobe" && matches!(errno, Some(libc::ENOENT)) {
        "use a kernel with CONFIG_KPROBE_EVENTS=y, and let the agent see /sys".to_owned()
    } else {
        match errno {
            Some(libc::EPERM | libc::EACCES) if cause.contains("verifier: ") => {
                "please report this with the kernel's release: its verifier refuses the program"
            }
            Some(libc::EPERM | libc::EACCES) => {
                "the capabilities are there, so the kernel itself, a security module or a container \
                 forbids this type of program: allow it there"
            }
            Some(ENOTSUPP | libc::EOPNOTSUPP) => {
                "use a kernel that can attach programs to functions (on arm64: 6.4 or later)"
            }
            Some(libc::EBUSY) => {
                "another tracer holds the function: live patches and fprobe users are candidates"
            }
            Some(libc::ENOMEM) => "raise LimitMEMLOCK, or the memory limit of the service's cgroup",
            _ => "please report this with the kernel's release",
        }
        .to_owned()
    }
}

fn kmsg(facts: &Facts, privileges: &privileges::Facts) -> Finding {
    let object = "/dev/kmsg";
    let Err(error) = &facts.kmsg else {
        return Finding::ok(object, "can be read");
    };
    let denied = matches!(
        error,
        KmsgError::Open(errno) if matches!(errno.raw_os_error(), libc::EPERM | libc::EACCES)
    );
    let text = error.to_string();
    match (denied, privileges.root) {
        (true, false) => Finding::warn(
            object,
            "not looked at: it may not be opened by this user",
            privileges.remedy("CAP_SYSLOG"),
        ),
        (true, true) => Finding::fail(object, text, privileges.remedy("CAP_SYSLOG")),
        (false, _) => Finding::fail(
            object,
            text,
            "use a kernel with CONFIG_PRINTK=y, and give the agent a /dev with kmsg in it",
        ),
    }
}

/// Which source the agent would take.
fn source(facts: &Facts, privileges: &privileges::Facts) -> Finding {
    let object = "source";
    // Every source reads it, at least at the start.
    if facts.kmsg.is_err() {
        return if privileges.root {
            Finding::fail(object, "none: every source reads /dev/kmsg", "see /dev/kmsg above")
        } else {
            Finding::warn(object, "not known: /dev/kmsg was not looked at", "run doctor as root")
        };
    }
    let chosen = match facts.choice {
        Choice::Only(kind) => format!("capture = \"{}\"", kind.name()),
        Choice::Auto => "auto".to_owned(),
    };
    if matches!(facts.programs, Programs::NotTried)
        && !privileges.root
        && facts.choice != Choice::Only(SourceKind::Kmsg)
    {
        return Finding::warn(
            object,
            format!(
                "{chosen}: not known, the hooks were not looked at; without programs it is kmsg"
            ),
            "run doctor as root",
        );
    }
    match facts.choice {
        Choice::Only(kind) if facts.source_works(kind) => {
            Finding::ok(object, format!("{chosen} works"))
        }
        Choice::Only(_) => Finding::fail(
            object,
            format!("{chosen} is not possible, and the agent takes no other then"),
            "set capture = \"auto\", or see the hooks above",
        ),
        Choice::Auto => {
            let kinds = [SourceKind::Commit, SourceKind::Tracepoint, SourceKind::Kmsg];
            match kinds.into_iter().find(|kind| facts.source_works(*kind)) {
                Some(SourceKind::Commit) => {
                    Finding::ok(object, "auto takes commit: whole records, with their context")
                }
                Some(SourceKind::Tracepoint) => Finding::ok(
                    object,
                    "auto takes tracepoint: the text from the hook, the rest from /dev/kmsg",
                ),
                _ => Finding::warn(
                    object,
                    "auto takes kmsg: records without context, and lost where the kernel's buffer overflows",
                    "make a hook above work",
                ),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::super::Level;
    use super::*;
    use crate::capture::bpf::Refusal;

    const COMMIT: HookPurpose = HookPurpose::Commit;
    const TEXT: HookPurpose = HookPurpose::Tracepoint;
    const NO_KPROBES: &str =
        "`/sys/bus/event_source/devices/kprobe/type`: No such file or directory (os error 2)";
    const NETDEV: HookPurpose = HookPurpose::Netdev;

    fn trial(kind: &'static str, purpose: HookPurpose, refused: Option<(&str, i32)>) -> HookTrial {
        let refusal = refused.map(|(cause, errno)| Refusal {
            hook: kind.to_owned(),
            cause: cause.to_owned(),
            errno: Some(errno),
        });
        HookTrial { purpose, kind, at: "somewhere", refusal }
    }

    fn tried(trials: Vec<HookTrial>) -> Facts {
        Facts {
            choice: Choice::Auto,
            programs: Programs::Tried(trials),
            kmsg: Ok(()),
            panic_cpu: Err("not shown".to_owned()),
            cpus: 2,
        }
    }

    fn judged(facts: &Facts, privileges: &privileges::Facts, config: &str) -> Vec<Finding> {
        judge(facts, privileges, &host::tests::good(), &KernelConfig::parse(config))
    }

    #[track_caller]
    fn expect(findings: &[Finding], object: &str, level: Level, words: &[&str]) {
        let found = findings.iter().find(|finding| finding.object == object);
        let found = found.unwrap_or_else(|| panic!("{object} in {findings:?}"));
        assert_eq!(found.level, level, "{found:?}");
        assert_eq!(found.remedy.is_some(), level != Level::Ok, "{found:?}");
        let text = format!("{} -> {}", found.finding, found.remedy.clone().unwrap_or_default());
        for word in words {
            assert!(text.contains(word), "{word:?} in {text}");
        }
    }

    #[test]
    fn a_refused_hook_matters_only_without_an_alternative() {
        let refused =
            Some(("the kernel refused the program: Operation not permitted", libc::EPERM));
        let facts = tried(vec![
            trial("fentry", COMMIT, refused),
            trial("kprobe", COMMIT, None),
            trial("tp_btf", TEXT, refused),
            trial("raw_tp", TEXT, refused),
            trial("fentry", NETDEV, refused),
        ]);
        let findings = judged(&facts, &privileges::tests::root(), "");
        expect(&findings, "fentry commit", Level::Ok, &["not permitted", "kprobe works"]);
        expect(&findings, "tp_btf printk", Level::Ok, &["the commit source works"]);
        expect(&findings, "fentry netdev", Level::Ok, &["rtnetlink"]);
        expect(&findings, "source", Level::Ok, &["auto takes commit"]);
    }

    #[test]
    fn refusals_are_told_with_what_would_help() {
        let unsupported = ("the kernel refused: Unknown error 524 (os error 524)", ENOTSUPP);
        let facts = tried(vec![
            trial("fentry", COMMIT, Some(unsupported)),
            trial("kprobe", COMMIT, Some((NO_KPROBES, libc::ENOENT))),
            trial("tp_btf", TEXT, Some(("refused: Permission denied", libc::EACCES))),
            trial("raw_tp", TEXT, None),
        ]);
        let findings = judged(&facts, &privileges::tests::root(), "");
        expect(&findings, "fentry commit", Level::Warn, &["ENOTSUPP", "attach programs"]);
        assert!(!findings.iter().any(|finding| finding.finding.contains("error 524")));
        expect(
            &findings,
            "kprobe commit",
            Level::Warn,
            &["has no kprobes", "CONFIG_KPROBE_EVENTS"],
        );
        expect(&findings, "tp_btf printk", Level::Ok, &["Permission denied", "raw_tp works"]);
        expect(&findings, "source", Level::Ok, &["auto takes tracepoint"]);
        // Where the configuration is known, it is named.
        let findings = judged(&facts, &privileges::tests::root(), "CONFIG_BPF_EVENTS=y\n");
        expect(
            &findings,
            "kprobe commit",
            Level::Warn,
            &["CONFIG_KPROBES=y, CONFIG_KPROBE_EVENTS=y"],
        );
    }

    #[test]
    fn a_wanted_source_that_cannot_be_had_is_a_failure() {
        let refused = Some(("refused", libc::EPERM));
        let mut facts = tried(vec![trial("fentry", COMMIT, refused), trial("raw_tp", TEXT, None)]);
        facts.choice = Choice::Only(SourceKind::Commit);
        let findings = judged(&facts, &privileges::tests::root(), "");
        expect(&findings, "source", Level::Fail, &["capture = \"commit\"", "auto"]);
        facts.choice = Choice::Only(SourceKind::Tracepoint);
        let findings = judged(&facts, &privileges::tests::root(), "");
        expect(&findings, "source", Level::Ok, &["works"]);
    }

    #[test]
    fn without_any_hook_there_is_dev_kmsg() {
        let facts = tried(vec![trial("raw_tp", TEXT, Some(("refused", libc::EINVAL)))]);
        let findings = judged(&facts, &privileges::tests::root(), "");
        expect(&findings, "raw_tp printk", Level::Warn, &["report"]);
        expect(&findings, "source", Level::Warn, &["auto takes kmsg"]);
    }

    #[test]
    fn what_a_user_may_not_see_is_not_called_broken() {
        let facts = |errno| Facts {
            choice: Choice::Auto,
            programs: Programs::NotTried,
            kmsg: Err(KmsgError::Open(errno)),
            panic_cpu: Err("not shown".to_owned()),
            cpus: 2,
        };
        let nobody = privileges::tests::nobody();
        let findings = judged(&facts(Errno::PERM), &nobody, "");
        expect(&findings, "/dev/kmsg", Level::Warn, &["not looked at", "root"]);
        expect(&findings, "hooks", Level::Warn, &["not looked at", "root"]);
        expect(&findings, "source", Level::Warn, &["not known", "root"]);
        // Root without the capability has no source at all.
        let findings = judged(&facts(Errno::PERM), &privileges::tests::root(), "");
        expect(&findings, "/dev/kmsg", Level::Fail, &["CAP_SYSLOG"]);
        expect(&findings, "source", Level::Fail, &["/dev/kmsg"]);
        let findings = judged(&facts(Errno::NOENT), &nobody, "");
        expect(&findings, "/dev/kmsg", Level::Fail, &["CONFIG_PRINTK"]);
    }
}
