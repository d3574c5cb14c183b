//! Whether the kernel prints a report now (oops, BUG, lockup, panic).
//!
//! Then the ring is looked at often: a CPU that prints with interrupts off wakes nobody. And when
//! it is over, those who want a dump get one. Text proves nothing, so nothing else follows from it.

use crate::{
    capture::sequencer::{MissingReason, Sink},
    netoops::TextRing,
    record::Record,
    target::filter::report::Line,
};

/// A report is over when nothing was printed for so long.
const SILENCE_NS: u64 = 1_000_000_000;
/// After its end marker a report is watched for so long: x86 prints the registers of the first oops once
/// more, and then the kernel may panic (`oops_end`, `arch/x86/kernel/dumpstack.c`).
const AFTER_END_NS: u64 = 1_000_000_000;
/// However much is printed, no report lasts longer.
const LONGEST_NS: u64 = 10_000_000_000;

/// How reports begin that tell of nothing broken: warnings, stalls, hung tasks. (A BUG begins like a
/// warning, and says in the next line what it is.)
const MILD: [&[u8]; 3] = [b"------------[ cut here ]", b"INFO: ", b"rcu: INFO: "];

/// Follows the records in their order.
#[derive(Debug, Default)]
pub struct ReportWatch {
    begun_ns: Option<u64>,
    last_ns: u64,
    /// Of the current round.
    now_ns: u64,
    /// When the last one had its end marker.
    end_ns: Option<u64>,
    /// The report under way is of an oops or a BUG: something is broken.
    broken: bool,
    /// One of something broken has ended and nobody was told.
    ended: bool,
}

impl ReportWatch {
    /// A round begins.
    pub fn round(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
        if let Some(begun_ns) = self.begun_ns
            && (now_ns.saturating_sub(self.last_ns) >= SILENCE_NS
                || now_ns.saturating_sub(begun_ns) >= LONGEST_NS)
        {
            self.end();
        }
        self.end_ns.take_if(|end_ns| now_ns.saturating_sub(*end_ns) >= AFTER_END_NS);
    }

    /// The next record.
    pub fn record(&mut self, record: &Record<'_>) {
        // User space cannot write as the kernel; what is not known may be the kernel's.
        if record.facility != 0 && !record.approximated {
            return;
        }
        if self.begun_ns.is_some() {
            self.last_ns = self.now_ns;
        }
        match Line::new(record.text) {
            Line::Begin => {
                self.begun_ns.get_or_insert(self.now_ns);
                self.last_ns = self.now_ns;
                self.broken |= !MILD.iter().any(|start| record.text.starts_with(start));
            }
            Line::End | Line::EndOfPanic => {
                if self.begun_ns.is_some() {
                    self.end_ns = Some(self.now_ns);
                }
                self.end();
            }
            Line::Other => {}
        }
    }

    fn end(&mut self) {
        let broken = std::mem::take(&mut self.broken);
        self.ended |= self.begun_ns.take().is_some() && broken;
    }

    /// Whether a report is being printed, or was just now.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.begun_ns.is_some() || self.end_ns.is_some()
    }

    /// Whether the report of an oops or a BUG has ended since this was asked last.
    pub fn take_ended(&mut self) -> bool {
        std::mem::take(&mut self.ended)
    }
}

/// Where settled records go, watched on their way.
pub struct Watched<'a, S> {
    /// Where they go.
    pub sink: &'a mut S,
    /// Who watches.
    pub watch: &'a mut ReportWatch,
    /// Text for dumps, if anybody wants it.
    pub text: Option<&'a mut TextRing>,
    /// What was logged before is not watched.
    pub live_seq: u64,
}

impl<S: Sink> Sink for Watched<'_, S> {
    fn record(&mut self, record: &Record<'_>) {
        if record.seq >= self.live_seq {
            self.watch.record(record);
        }
        if let Some(text) = &mut self.text {
            text.append(record);
        }
        self.sink.record(record);
    }

    fn has_room(&mut self, rounds: usize) -> bool {
        self.sink.has_room(rounds)
    }

    fn missing(&mut self, first_seq: u64, count: u64, reason: MissingReason) {
        self.sink.missing(first_seq, count, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(text: &str) -> Record<'_> {
        Record {
            seq: 0,
            ts_ns: 0,
            facility: 0,
            level: 4,
            cont: false,
            caller: None,
            text: text.as_bytes(),
            subsystem: &[],
            device: &[],
            context: None,
            approximated: false,
            backfilled: false,
        }
    }

    #[test]
    fn a_report_lasts_from_its_first_line_to_its_last() {
        let mut watch = ReportWatch::default();
        watch.round(1);
        watch.record(&kernel("nothing of note"));
        assert!(!watch.is_open());
        watch.record(&kernel("BUG: kernel NULL pointer dereference, address: 0"));
        watch.record(&kernel("RIP: 0010:f+0x1/0x2"));
        assert!(watch.is_open() && !watch.take_ended());
        watch.record(&kernel("---[ end trace 0000000000000000 ]---"));
        assert!(watch.take_ended() && !watch.take_ended());
        // A panic may follow.
        watch.round(AFTER_END_NS);
        assert!(watch.is_open());
        watch.round(1 + AFTER_END_NS);
        assert!(!watch.is_open() && !watch.take_ended());
        watch.record(&kernel("---[ end trace 0000000000000000 ]---"));
        assert!(!watch.is_open(), "of what?");
    }

    #[test]
    fn silence_ends_it_and_so_does_time() {
        let mut watch = ReportWatch::default();
        watch.round(0);
        watch.record(&kernel("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a:1]"));
        watch.round(SILENCE_NS - 1);
        assert!(watch.is_open());
        watch.record(&kernel("Modules linked in:"));
        watch.round(2 * SILENCE_NS - 2);
        assert!(watch.is_open());
        watch.round(2 * SILENCE_NS - 1);
        assert!(!watch.is_open() && watch.take_ended());
        for at in 0..=100 {
            watch.round(LONGEST_NS * at / 50);
            watch.record(&kernel(if at == 0 { "Oops: 0000 [#1]" } else { "and so on" }));
            assert_eq!(watch.is_open(), at < 50, "{at}");
        }
    }

    #[test]
    fn user_space_cannot_pretend_one() {
        let mut watch = ReportWatch::default();
        watch.record(&Record { facility: 1, ..kernel("Oops: 0000 [#1]") });
        assert!(!watch.is_open());
    }
}
