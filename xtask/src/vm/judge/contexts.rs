//! Judges whether a phase had records out of every context that it is to test: whether they
//! arrived is judged with all others.

use anyhow::{Result, ensure};

use super::super::kernel::version;
use super::super::record::Record;
use super::Evidence;

/// Longest text of a record since 6.3 (`PRINTKRB_RECORD_MAX`); before, a writer may send 992
/// bytes (`LOG_LINE_MAX`).
const TEXT_MAX_BYTES: usize = 1024;

impl Evidence<'_> {
    /// Whether each kind of record is there, and how often.
    pub(super) fn contexts(&self, phase: &str) -> Result<String> {
        let records = self.report.phase(phase)?;
        let kernels = |start: &'static str| {
            records.iter().enumerate().filter(move |(_, record)| {
                record.facility == 0 && record.body.starts_with(start.as_bytes())
            })
        };
        let longest =
            if version(self.report.info("release")?) >= vec![6, 3] { TEXT_MAX_BYTES } else { 992 };
        let counts = [
            // `nmi_cpu_backtrace`, lib/nmi_backtrace.c: only an NMI's handler gets there.
            ("NMI", kernels("NMI backtrace for cpu").count()),
            // `sysrq_handle_showregs`: outside of an interrupt there are no registers to show.
            (
                "hard interrupt",
                kernels("sysrq: Show Regs")
                    .filter(|(at, _)| {
                        let after = &records[at + 1..records.len().min(at + 20)];
                        after.iter().any(|record| record.body.starts_with(b"RIP: "))
                    })
                    .count(),
            ),
            ("inside of printk", inside_of_printk(records)),
            ("continuation", records.iter().filter(|record| record.is_continuation()).count()),
            ("empty", records.iter().filter(|record| record.text().is_empty()).count()),
            (
                "as long as can be",
                records.iter().filter(|record| record.text().len() >= longest - 8).count(),
            ),
        ];
        for (kind, count) in counts {
            ensure!(count > 0, "no record is of the kind: {kind}");
        }
        let counts: Vec<String> =
            counts.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
        Ok(format!("{} records: {}", records.len(), counts.join(", ")))
    }
}

/// Records that the kernel printed while another one was on its way into the ring: they stand
/// before it if it had no place yet, and else right behind it.
fn inside_of_printk(records: &[Record]) -> usize {
    records
        .iter()
        .enumerate()
        .filter(|(_, record)| record.body.starts_with(b"Dumping ftrace buffer:"))
        .filter(|(at, _)| {
            let near = &records[at.saturating_sub(2)..records.len().min(at + 30)];
            near.iter().any(|record| record.facility == 1 && record.body.starts_with(b"outer "))
        })
        .count()
}
