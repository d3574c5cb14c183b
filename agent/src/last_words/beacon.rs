//! What the pump lets its understudy know in good times, and who of the two speaks in bad ones.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use crate::pump::TARGETS_MAX;

/// How far the pump has come; what a speaker needs to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The next seq to be settled.
    pub next_seq: u64,
    /// seq less descriptor id, if it is known.
    pub id_base: Option<u64>,
    /// printk's clock less `CLOCK_MONOTONIC`, in nanoseconds.
    pub clock_offset_ns: i64,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The pump.
    Pump,
    /// The understudy.
    Understudy,
}

/// See the module's description.
#[derive(Debug)]
pub struct Beacon {
    /// How much of the ring each target was handed.
    handed_positions: [AtomicU64; TARGETS_MAX],
    next_seq: AtomicU64,
    id_base: AtomicU64,
    clock_offset_ns: AtomicI64,
    /// The CPU that the pump runs on, or ran on when it went to sleep.
    pump_cpu: AtomicU32,
    /// The number of each target's last message.
    msgids: [AtomicU32; TARGETS_MAX],
    /// A report is being printed: whoever looks looks often.
    report: AtomicBool,
    /// 0: nobody; then a [`Claim`].
    speaker: AtomicU32,
    /// Turns of the speaker.
    turns: AtomicU64,
    /// Records that were sent as last words.
    spoken: AtomicU64,
}

/// No constant is known. Ids have 62 bits.
const NO_BASE: u64 = u64::MAX;

impl Default for Beacon {
    fn default() -> Self {
        Self {
            handed_positions: [const { AtomicU64::new(0) }; TARGETS_MAX],
            next_seq: AtomicU64::default(),
            id_base: AtomicU64::new(NO_BASE),
            clock_offset_ns: AtomicI64::default(),
            pump_cpu: AtomicU32::new(u32::MAX),
            msgids: [const { AtomicU32::new(0) }; TARGETS_MAX],
            report: AtomicBool::default(),
            speaker: AtomicU32::default(),
            turns: AtomicU64::default(),
            spoken: AtomicU64::default(),
        }
    }
}

impl Beacon {
    /// The pump has come so far.
    pub fn publish(&self, progress: &Progress) {
        self.id_base.store(progress.id_base.unwrap_or(NO_BASE), Ordering::Relaxed);
        self.clock_offset_ns.store(progress.clock_offset_ns, Ordering::Relaxed);
        self.next_seq.store(progress.next_seq, Ordering::Release);
    }

    /// How far the pump has come.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let next_seq = self.next_seq.load(Ordering::Acquire);
        let id_base = self.id_base.load(Ordering::Relaxed);
        Progress {
            next_seq,
            id_base: (id_base != NO_BASE).then_some(id_base),
            clock_offset_ns: self.clock_offset_ns.load(Ordering::Relaxed),
        }
    }

    /// A target was handed what the ring holds before `position`, and the number of the last
    /// message of that; `target` is its index with the pump.
    pub fn set_handed(&self, target: usize, position: u64, msgid: u32) {
        let Some((handed, shown)) = self.handed_positions.get(target).zip(self.msgids.get(target))
        else {
            return;
        };
        if (handed.load(Ordering::Relaxed), shown.load(Ordering::Relaxed)) != (position, msgid) {
            shown.store(msgid, Ordering::Relaxed);
            handed.store(position, Ordering::Release);
        }
    }

    /// Position in the ring before which a target was handed everything.
    #[must_use]
    pub fn handed_position(&self, target: usize) -> u64 {
        self.handed_positions.get(target).map_or(0, |handed| handed.load(Ordering::Acquire))
    }

    /// The number of a target's last message.
    #[must_use]
    pub fn msgid(&self, target: usize) -> u32 {
        self.msgids.get(target).map_or(0, |msgid| msgid.load(Ordering::Relaxed))
    }

    /// The pump runs on this CPU.
    pub fn set_pump_cpu(&self, cpu: u32) {
        if self.pump_cpu.load(Ordering::Relaxed) != cpu {
            self.pump_cpu.store(cpu, Ordering::Release);
        }
    }

    /// The CPU that the pump runs on; none before its first turn.
    #[must_use]
    pub fn pump_cpu(&self) -> Option<u32> {
        Some(self.pump_cpu.load(Ordering::Acquire)).filter(|cpu| *cpu != u32::MAX)
    }

    /// Whether a report is being printed.
    pub fn set_report(&self, open: bool) {
        if self.report.load(Ordering::Relaxed) != open {
            self.report.store(open, Ordering::Relaxed);
        }
    }

    /// Whether a report is being printed.
    #[must_use]
    pub fn has_report(&self) -> bool {
        self.report.load(Ordering::Relaxed)
    }

    /// Claims the word; true if the caller speaks now, or did before.
    pub fn claim(&self, who: Claim) -> bool {
        let number = who as u32 + 1;
        match self.speaker.compare_exchange(0, number, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(speaker) => speaker == number,
        }
    }

    /// Takes the word from whoever has it.
    pub fn take_over(&self, who: Claim) {
        self.speaker.store(who as u32 + 1, Ordering::Release);
    }

    /// The machine lives: nobody speaks any more.
    pub fn release(&self) {
        self.speaker.store(0, Ordering::Release);
    }

    /// The speaker has had a turn, in which it sent so many records.
    pub fn spoke(&self, records: u64) {
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.spoken.fetch_add(records, Ordering::Relaxed);
    }

    /// Turns of the speaker.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Records that were sent as last words.
    #[must_use]
    pub fn spoken(&self) -> u64 {
        self.spoken.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_speaks_until_the_other_takes_over() {
        let beacon = Beacon::default();
        assert!(beacon.claim(Claim::Pump) && beacon.claim(Claim::Pump));
        assert!(!beacon.claim(Claim::Understudy));
        beacon.take_over(Claim::Understudy);
        assert!(beacon.claim(Claim::Understudy) && !beacon.claim(Claim::Pump));
        beacon.release();
        assert!(beacon.claim(Claim::Pump));
    }

    #[test]
    fn what_is_not_known_is_not_a_number() {
        let beacon = Beacon::default();
        assert_eq!((beacon.pump_cpu(), beacon.progress().id_base), (None, None));
        let progress = Progress { next_seq: 3, id_base: Some(0), clock_offset_ns: -5 };
        beacon.publish(&progress);
        beacon.set_pump_cpu(0);
        beacon.set_handed(TARGETS_MAX, 8, 1);
        beacon.set_handed(1, 8, 2);
        assert_eq!((beacon.progress(), beacon.pump_cpu()), (progress, Some(0)));
        let told = |target| (beacon.handed_position(target), beacon.msgid(target));
        assert_eq!([told(TARGETS_MAX), told(0), told(1)], [(0, 0), (0, 0), (8, 2)]);
    }
}
