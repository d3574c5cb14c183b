//! The pump while the kernel panics, and what it lets its understudy know before.

use std::sync::atomic::Ordering;

use super::{LastWordsParts, Pump};
use crate::{
    capture::{bpf::Panic, wait::now_ns},
    last_words::{Claim, LIVES_AFTER_NS, Progress, SPEAKING_NAP_NS, placement::current_cpu},
    netoops::{Kind, TextRing},
};

impl LastWordsParts {
    /// Where the text of records goes, if anybody wants dumps.
    pub(super) fn wanted_text(&mut self) -> Option<&mut TextRing> {
        self.shared.dumps.keeps_text().then_some(&mut self.text)
    }
}

/// Two places in the ring where items begin, the older one not far behind the reader: a target that
/// has been waiting for long is spoken to from there on. What lies far back is overwritten one day.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    older: u64,
    newer: u64,
}

impl Marks {
    /// What lies between the newer mark and the reader at most, but for one item.
    const APART_BYTES: u64 = 32 << 10;
    /// So far behind the reader, as a part of the ring, is what a target was not handed looked for.
    const FAR: u64 = 8;

    /// The reader has come so far.
    fn note(&mut self, released: u64) {
        if released.saturating_sub(self.newer) >= Self::APART_BYTES {
            (self.older, self.newer) = (self.newer, released);
        }
    }
}

impl Pump {
    /// Goes where its understudy is not.
    pub(super) fn take_place(&self) {
        let placement = self.last_words.as_ref().and_then(|parts| parts.placement);
        // If that is refused, both may be on one CPU; nothing else suffers.
        let _ = placement.map(|placement| placement.place_pump());
    }

    /// The panic under way.
    pub(super) fn panic(&self) -> Option<Panic> {
        self.last_words.as_ref()?.shared.panic()
    }

    /// The kernel panics: nothing more is settled. What the ring holds is said at once, and what
    /// waits in the store is sent when there is nothing to say. Returns when the machine turns out to
    /// live; then what was said is settled like anything else, and sent again.
    pub(super) fn panics(&mut self, panic: &Panic) {
        loop {
            let now = now_ns();
            self.stats.rounds.fetch_add(1, Ordering::Relaxed);
            self.obey(now);
            let told_to_stop = self.stop_at_ns.is_some_and(|stop_at_ns| now >= stop_at_ns);
            let Some(LastWordsParts { speaker, shared, .. }) = &mut self.last_words else { return };
            if now.saturating_sub(panic.since_ns) >= LIVES_AFTER_NS {
                shared.lives();
            }
            if told_to_stop || shared.panic() != Some(*panic) {
                speaker.reset();
                return;
            }
            shared.beacon.set_pump_cpu(current_cpu());
            let all = !shared.beacon.claim(Claim::Pump) || speaker.speak(panic, now).all;
            if all {
                self.deliver(now);
                self.flush_and_reap(now);
                self.publish();
                self.waiter.nap(SPEAKING_NAP_NS);
            }
        }
    }

    /// Tells how far it has come.
    pub(super) fn publish_progress(&mut self) {
        let Some(LastWordsParts { shared, .. }) = &self.last_words else { return };
        if self.report.take_ended() && shared.dumps.is_wanted() {
            shared.dumps.ask(Kind::Hard);
        }
        shared.beacon.set_pump_cpu(current_cpu());
        shared.beacon.set_report(self.report.is_open());
        let Some(ring) = &self.ring else { return };
        let (next_seq, released) = (self.store.next_seq(), ring.released());
        self.marks.note(released);
        let far_bytes = ring.size_bytes() as u64 / Marks::FAR;
        for (index, target) in self.targets.iter().enumerate() {
            let Some(target) = target else { continue };
            // Who goes on from there gives the same numbers.
            if target.needed_seq() >= next_seq {
                shared.beacon.set_handed(index, released, target.msgid);
                continue;
            }
            let handed = shared.beacon.handed_position(index);
            if handed < self.marks.older && released.saturating_sub(handed) > far_bytes {
                shared.beacon.set_handed(index, self.marks.older, target.msgid);
            }
        }
        let progress = Progress {
            next_seq,
            id_base: self.sequencer.id_base(),
            clock_offset_ns: self.sequencer.clock_offset_ns(),
        };
        if progress != shared.beacon.progress() {
            shared.beacon.publish(&progress);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_mark_is_never_near_nor_far() {
        let mut marks = Marks::default();
        let mut released = 0;
        for step in [100, 40_000, 8, 30_000, 5_000, 1 << 20, 1, 32 << 10] {
            released += step;
            marks.note(released);
            assert!(marks.older <= marks.newer && marks.newer <= released);
            assert!(released - marks.newer < Marks::APART_BYTES);
        }
        assert_eq!(released - marks.older, (32 << 10) + 1);
    }
}
