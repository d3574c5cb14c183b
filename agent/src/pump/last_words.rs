//! The pump while the kernel panics, and what it lets its understudy know before.

use std::sync::atomic::Ordering;

use super::{LastWordsParts, Pump, PumpTarget};
use crate::{
    capture::{bpf::Panic, wait::now_ns},
    last_words::{Claim, LIVES_AFTER_NS, Progress, SPEAKING_NAP_NS, placement::current_cpu},
    netoops::{Kind, TextRing},
};

impl LastWordsParts {
    /// Where the text of records goes, if anybody wants dumps.
    pub(super) fn wanted_text(&mut self) -> Option<&mut TextRing> {
        self.shared.dumps.is_wanted().then_some(&mut self.text)
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
        let next_seq = self.store.next_seq();
        let has_all =
            |target: &PumpTarget| target.route.is_none() || target.needed_seq() >= next_seq;
        let handed = self.targets.iter().flatten().all(|target| has_all(target));
        // Who goes on from there gives the same numbers.
        if handed {
            for (index, target) in self.targets.iter().enumerate() {
                target.iter().for_each(|target| shared.beacon.set_msgid(index, target.msgid));
            }
        }
        let before = shared.beacon.progress();
        let handed_position = if handed { ring.released() } else { before.handed_position };
        let progress = Progress {
            handed_position,
            next_seq,
            id_base: self.sequencer.id_base(),
            clock_offset_ns: self.sequencer.clock_offset_ns(),
        };
        if progress != before {
            shared.beacon.publish(&progress);
        }
    }
}
