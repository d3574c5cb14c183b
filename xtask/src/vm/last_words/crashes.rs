//! The crashes: how each is caused in the guest, and what it needs.
//!
//! `prepare` and `crash` are lines of shell that the guest's init script
//! (`tests/vm/last-words-init`) runs; `mark` there begins what is judged, and the
//! script is pinned to the CPU of the run. Nothing here runs on this machine.

/// Who causes the crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The guest, by these lines of shell.
    Guest(&'static str),
    /// The host, by this command of QEMU's monitor; the guest has set the mark.
    Monitor(&'static str),
}

/// What follows the crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// A panic, and the guest reboots (`kernel.panic` is not 0).
    Reboot,
    /// A panic, and the guest stands still (`kernel.panic=0`) until it is reset.
    Halt,
    /// The guest goes on.
    Life,
}

/// One kind of crash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Crash {
    /// Name on the command line and in the results.
    pub(super) name: &'static str,
    /// What the table says.
    pub(super) title: &'static str,
    /// Settings before it, as shell.
    pub(super) prepare: &'static str,
    pub(super) cause: Cause,
    pub(super) after: After,
    /// `kernel.panic`: seconds until the reboot, -1 at once, 0 never.
    pub(super) panic_timeout_s: i32,
    /// The CPU on which it happens; else the runs take turns.
    pub(super) cpu: Option<usize>,
    /// Whether it needs the module that crashes (`tests/crash-module`).
    pub(super) needs_module: bool,
    /// Whether the receiver answers ARP only when the guest has rebooted.
    pub(super) silent_neighbour: bool,
    /// The last line that a dump must have which the agent sends; without it no dumps are asked for.
    /// The kernel's netconsole has none.
    pub(super) dump: Option<&'static str>,
    /// Runs of the whole matrix.
    pub(super) runs: usize,
}

const PLAIN: Crash = Crash {
    name: "",
    title: "",
    prepare: ":",
    cause: Cause::Guest("mark; usleep 300000; echo c >/proc/sysrq-trigger"),
    after: After::Reboot,
    panic_timeout_s: 1,
    cpu: None,
    needs_module: false,
    silent_neighbour: false,
    dump: None,
    runs: 5,
};

/// Writes a name to the parameter of the module, in a process that may die of it.
macro_rules! by_module {
    ($name:literal) => {
        Cause::Guest(concat!(
            "mark; usleep 300000; (echo ",
            $name,
            " >/sys/module/last_words_crash/parameters/crash) &"
        ))
    };
}
const LOAD: &str = "insmod /crashes/last_words_crash.ko";

/// What the storm consists of; its lines begin with [`STORM_START`].
pub(super) const STORM_WRITER: &str = "exec 4>/dev/kmsg\nwhile :; do\nn=$((n + 1))\n\
     echo \"<6>storm $n: as fast as a shell can write lines\" >&4\ndone\n";
/// Begins the lines of the storm and no other line.
pub(super) const STORM_START: &str = "storm ";

/// All of them. `sysrq c` is a panic without an oops before it.
pub(super) const CRASHES: &[Crash] = &[
    Crash { name: "sysrq-cpu0", title: "`sysrq c` on CPU 0", cpu: Some(0), runs: 10, ..PLAIN },
    Crash { name: "sysrq-cpu1", title: "`sysrq c` on CPU 1", cpu: Some(1), runs: 10, ..PLAIN },
    Crash {
        name: "oops-panic",
        title: "oops, `panic_on_oops=1`",
        prepare: "insmod /crashes/last_words_crash.ko; echo 1 >/proc/sys/kernel/panic_on_oops",
        cause: by_module!("oops"),
        needs_module: true,
        runs: 20,
        ..PLAIN
    },
    // The keys of the emulated keyboard: its interrupt handler runs the sysrq.
    Crash {
        name: "hardirq",
        title: "panic in a hard interrupt",
        prepare: "modprobe i8042; modprobe atkbd; \
                  echo $((1 << lw_cpu)) >/proc/irq/1/smp_affinity",
        cause: Cause::Monitor("sendkey alt-sysrq-c"),
        runs: 20,
        ..PLAIN
    },
    Crash {
        name: "oops",
        title: "oops, no panic",
        prepare: LOAD,
        cause: by_module!("oops"),
        after: After::Life,
        needs_module: true,
        ..PLAIN
    },
    Crash {
        name: "dump",
        title: "`sysrq c`, with a netoops dump",
        dump: Some("Kernel panic - not syncing: sysrq triggered crash"),
        ..PLAIN
    },
    Crash {
        name: "oops-dump",
        title: "oops, no panic, with a netoops dump",
        prepare: LOAD,
        cause: by_module!("oops"),
        after: After::Life,
        needs_module: true,
        dump: Some("---[ end trace "),
        ..PLAIN
    },
    // The CPU of the run is the one that is interrupted.
    Crash {
        name: "ipi",
        title: "panic in an IPI",
        prepare: LOAD,
        cause: Cause::Guest(
            "pin $((1 - lw_cpu)); mark; usleep 300000; \
             echo ipi >/sys/module/last_words_crash/parameters/crash",
        ),
        needs_module: true,
        ..PLAIN
    },
    // The line that QEMU pulls leads to the first CPU only.
    Crash {
        name: "nmi",
        title: "panic in an NMI",
        prepare: "echo 1 >/proc/sys/kernel/unknown_nmi_panic",
        cause: Cause::Monitor("nmi"),
        cpu: Some(0),
        ..PLAIN
    },
    Crash {
        name: "soft-lockup",
        title: "soft lockup, `softlockup_panic=1`",
        prepare: LOAD,
        cause: Cause::Guest(
            "echo 1 >/proc/sys/kernel/softlockup_panic; echo 1 >/proc/sys/kernel/watchdog_thresh; \
             mark; usleep 300000; \
             echo soft-lockup >/sys/module/last_words_crash/parameters/crash",
        ),
        needs_module: true,
        ..PLAIN
    },
    // Lines as fast as a shell writes them, from the CPU that does not crash.
    Crash {
        name: "storm",
        title: "`sysrq c` during a log storm",
        cause: Cause::Guest(
            "taskset $((2 - lw_cpu)) sh /crashes/storm-writer & \
             usleep 500000; mark; echo c >/proc/sysrq-trigger",
        ),
        ..PLAIN
    },
    Crash {
        name: "neighbour",
        title: "`sysrq c` while the target waits for its neighbour",
        silent_neighbour: true,
        ..PLAIN
    },
    Crash {
        name: "halt",
        title: "`sysrq c`, `panic=0`",
        after: After::Halt,
        panic_timeout_s: 0,
        ..PLAIN
    },
    Crash { name: "reboot-now", title: "`sysrq c`, `panic=-1`", panic_timeout_s: -1, ..PLAIN },
];

/// The crash of this name.
pub(super) fn by_name(name: &str) -> Option<&'static Crash> {
    CRASHES.iter().find(|crash| crash.name == name)
}

impl Crash {
    /// The CPU on which it happens in the run of this number, of two CPUs.
    pub(super) fn cpu(&self, run: usize) -> usize {
        self.cpu.unwrap_or(run % 2)
    }

    /// The file that the guest reads.
    pub(super) fn script(&self) -> String {
        let crash = match self.cause {
            Cause::Guest(lines) => lines,
            Cause::Monitor(_) => "mark",
        };
        format!("prepare() {{\n{}\n}}\ncrash() {{\n{crash}\n}}\n", self.prepare)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crash_has_a_name_of_its_own_and_sets_the_mark() {
        for (number, crash) in CRASHES.iter().enumerate() {
            let same = by_name(crash.name).map(|found| found.title);
            assert_eq!(same, Some(crash.title), "crash {number}");
            assert!(crash.script().contains("mark"), "{}", crash.name);
            assert_eq!(crash.script().contains(".ko"), crash.needs_module, "{}", crash.name);
            assert_eq!(crash.after == After::Halt, crash.panic_timeout_s == 0, "{}", crash.name);
        }
    }

    #[test]
    fn the_runs_of_a_crash_take_turns_on_the_cpus() {
        let cpus =
            |name: &str| (0..4).map(|run| by_name(name).unwrap().cpu(run)).collect::<Vec<_>>();
        assert_eq!(cpus("oops"), [0, 1, 0, 1]);
        assert_eq!(cpus("sysrq-cpu1"), [1; 4]);
    }
}
