//! Which records are the text of a kernel report: an oops, BUG, panic, lockup or stall.
//!
//! Such text is what the agent is for, and comes in bursts, so the target-wide rate is
//! never applied to it. The kernel does not mark it; it is told by its first line. Only records of
//! facility 0 count, which user space cannot write (`devkmsg_write`,
//! `kernel/printk/printk.c`, makes 0 into `LOG_USER`).
//!
//! A driver may print what the outside gave it, so a beginning may be forged. A report
//! therefore ends after [`REPORT_MAX_RECORDS`] whatever they say, and all together take
//! at most [`EXEMPT`]; beyond that the rate is applied to them too. It is *not* a parser:
//! what other CPUs print meanwhile is taken for a part of it.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use memchr::memmem;

use super::{
    rate::{SharedWindow, Window},
    spec::Rate,
};
use crate::record::Record;

/// Most records of one report: the backtraces of a large machine's CPUs.
const REPORT_MAX_RECORDS: u32 = 1_000;
/// Most that pass as parts of reports.
const EXEMPT: Rate = Rate { count: 4_000, period: Duration::from_secs(60) };
/// A pause as long as this, in the records' own time, ends a report.
const PAUSE_NS: u64 = 5_000_000_000;
/// After the end marker x86 prints the registers of the first oops once more
/// (`oops_end`, `arch/x86/kernel/dumpstack.c`): about 20 records.
const AFTER_END_RECORDS: u32 = 24;

/// How the first line of a report starts, and what else it holds.
const BEGINNINGS: [(&[u8], &[u8]); 27] = [
    // `CUT_HERE`, include/asm-generic/bug.h: WARN, BUG, UBSAN, list corruption.
    (b"------------[ cut here ]------------", b""),
    // BUG: include/asm-generic/bug.h, kasan, page fault (arch/x86/mm/fault.c), bad page
    // state, scheduling while atomic, workqueue lockup, …
    (b"BUG: ", b""),
    (b"BUG ", b": "), // slub, mm/slub.c: `BUG kmalloc-64 (Not tainted): Poison overwritten`
    (b"kernel BUG at ", b""), // lib/bug.c
    (b"Kernel BUG", b" [#"), // arch/riscv/kernel/traps.c
    // `__die`, arch/x86/kernel/dumpstack.c; powerpc, riscv (`Oops [#1]`), mips (`Oops[#1]:`)
    (b"Oops: ", b""),
    (b"Oops", b"[#"),
    (b"Kernel panic - not syncing", b""), // kernel/panic.c
    // arch/arm64/mm/fault.c, arm, riscv, s390
    (b"Unable to handle kernel ", b""),
    (b"Internal error: ", b""), // `__die`, arch/arm64/kernel/traps.c
    (b"Bad mode in ", b""),     // arch/arm64/kernel/traps.c
    (b"SError Interrupt on CPU", b""), // the same
    (b"Insufficient stack space to handle exception!", b""), // the same, riscv
    // arch/x86/kernel/traps.c of older kernels, without `Oops: ` before
    (b"general protection fault", b""),
    (b"invalid opcode: ", b" [#"),
    (b"divide error: ", b" [#"),
    (b"stack segment: ", b" [#"),
    (b"double fault: ", b" [#"),
    (b"traps: PANIC: ", b""),
    (b"PANIC: double fault", b""),
    // kernel/watchdog.c, kernel/watchdog_perf.c; older kernels with `NMI watchdog: `
    (b"watchdog: BUG: ", b""),
    (b"watchdog: ", b"hard LOCKUP"),
    (b"NMI watchdog: ", b"LOCKUP"),
    (b"NMI watchdog: ", b"soft lockup"),
    // kernel/rcu/tree_stall.h; without `rcu: ` in older kernels
    (b"rcu: INFO: ", b" stall"),
    (b"INFO: ", b" stall"),
    // kernel/hung_task.c
    (b"INFO: task ", b" blocked for more than "),
];

/// `print_oops_end_marker`, kernel/panic.c.
const END: &[u8] = b"---[ end trace ";
/// The last line of `vpanic`, kernel/panic.c.
const END_OF_PANIC: &[u8] = b"---[ end Kernel panic";

/// What is known of the report under way.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Records that may still belong to it; 0 if none is under way.
    left: u32,
    last_ts_ns: u64,
    exempt: Window,
}

impl State {
    /// Whether this record, the next, is part of a report.
    fn follow(&mut self, record: &Record<'_>) -> bool {
        if record.facility != 0 && !record.approximated {
            return false;
        }
        // Backwards it is no less a pause.
        if record.ts_ns.abs_diff(self.last_ts_ns) > PAUSE_NS {
            self.left = 0;
        }
        let mut part = self.left > 0;
        self.left = self.left.saturating_sub(1);
        // One record may hold several lines.
        let mut rest = record.text;
        loop {
            let end = memchr::memchr(b'\n', rest);
            let line = end.map_or(rest, |end| &rest[..end]);
            match Line::new(line) {
                Line::Begin => {
                    part = true;
                    self.left = REPORT_MAX_RECORDS - 1;
                }
                Line::End => self.left = self.left.min(AFTER_END_RECORDS),
                Line::EndOfPanic => self.left = 0,
                Line::Other => {}
            }
            match end {
                Some(end) => rest = &rest[end + 1..],
                None => break,
            }
        }
        self.last_ts_ns = record.ts_ns;
        part && self.exempt.admit(EXEMPT, record.ts_ns, 0)
    }
}

/// Bytes with which a line of [`BEGINNINGS`] or an end marker starts: most lines need no
/// more than a look at the first.
static FIRST_BYTES: [bool; 256] = {
    let mut set = [false; 256];
    let mut i = 0;
    while i < BEGINNINGS.len() {
        set[BEGINNINGS[i].0[0] as usize] = true;
        i += 1;
    }
    set[END[0] as usize] = true;
    set[END_OF_PANIC[0] as usize] = true;
    set
};

/// What a line means to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Begin,
    End,
    EndOfPanic,
    Other,
}

impl Line {
    pub(crate) fn new(line: &[u8]) -> Self {
        let Some(first) = line.first().filter(|first| FIRST_BYTES[usize::from(**first)]) else {
            return Self::Other;
        };
        let begins = BEGINNINGS.iter().any(|(start, holds)| {
            Some(first) == start.first()
                && line.starts_with(start)
                && memmem::find(line, holds).is_some()
        });
        if begins {
            Self::Begin
        } else if line.starts_with(END) {
            Self::End
        } else if line.starts_with(END_OF_PANIC) {
            Self::EndOfPanic
        } else {
            Self::Other
        }
    }
}

/// Follows the records of one target, in their order.
#[derive(Debug, Default)]
pub(super) struct Reports {
    left: AtomicU32,
    last_ts_ns: AtomicU64,
    exempt: SharedWindow,
}

impl Reports {
    /// Whether this record is part of a report; without `now_ns` that is not remembered.
    pub(super) fn follow(&self, record: &Record<'_>, now_ns: Option<u64>) -> bool {
        let mut state = State {
            left: self.left.load(Relaxed),
            last_ts_ns: self.last_ts_ns.load(Relaxed),
            exempt: self.exempt.load(),
        };
        let part = state.follow(record);
        if now_ns.is_some() {
            self.left.store(state.left, Relaxed);
            self.last_ts_ns.store(state.last_ts_ns, Relaxed);
            self.exempt.store(state.exempt);
        }
        part
    }
}
