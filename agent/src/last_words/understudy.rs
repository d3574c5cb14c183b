//! The thread that takes the pump's place when the pump's CPU is the one that panics.
//!
//! It looks at one word a few dozen times a second. In good times it does nothing else but make the
//! dumps that are asked for, which nobody else has time for. It has
//! its own CPU, its own look into the ring and its own socket, so it needs nothing of the pump's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::park_timeout,
    time::Duration,
};

use super::{
    Claim, LIVES_AFTER_NS, SPEAKING_NAP_NS, Speaker,
    placement::{Placement, current_cpu},
    speaker::SpeakerParts,
};
use crate::{
    capture::{bpf::Panic, wait::now_ns},
    netoops::Kind,
};

/// How often it looks whether the kernel panics.
const LOOK: Duration = Duration::from_millis(18);
/// The same while a report is being printed, or another one speaks.
const QUICK_LOOK: Duration = Duration::from_millis(1);
/// Between two dumps after an oops.
const DUMPS_APART_NS: u64 = 5_000_000_000;
/// A speaker that has not moved for so many looks is stuck.
const STUCK_LOOKS: u32 = 2;

/// See the module's description.
pub struct Understudy {
    speaker: Speaker,
    parts: SpeakerParts,
    placement: Option<Placement>,
    stop: Arc<AtomicBool>,
    /// When another dump after an oops may be made.
    next_dump_ns: Option<u64>,
}

impl Understudy {
    /// Puts the parts together. It ends soon after `stop` is set.
    #[must_use]
    pub fn new(
        speaker: Speaker,
        parts: SpeakerParts,
        placement: Option<Placement>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { speaker, parts, placement, stop, next_dump_ns: None }
    }

    /// Runs until it is told to stop.
    pub fn run(&mut self) {
        self.keep_away();
        while !self.stop.load(Ordering::Acquire) {
            match self.parts.panic() {
                Some(panic) => self.panics(&panic),
                None => {
                    self.keep_away();
                    self.make_dumps();
                    let look = if self.parts.beacon.has_report() { QUICK_LOOK } else { LOOK };
                    park_timeout(look);
                }
            }
        }
    }

    /// Goes where the pump is not; the kernel moves a thread whose CPU goes offline.
    fn keep_away(&self) {
        if let Some(placement) = &self.placement
            && current_cpu() != placement.understudy()
        {
            // Without that CPU, wherever it is.
            let _ = placement.place_understudy();
        }
    }

    /// Makes the dumps that were asked for. Those after an oops are apart in time, however many
    /// there are: the one that comes then has all of them.
    fn make_dumps(&mut self) {
        while let Some(kind) = self.parts.dumps.asked() {
            if kind == Kind::Hard {
                let now = now_ns();
                if self.next_dump_ns.is_some_and(|next_ns| now < next_ns) {
                    return;
                }
                self.next_dump_ns = Some(now + DUMPS_APART_NS);
            }
            self.speaker.dump(kind);
        }
    }

    /// The kernel panics. Returns when the machine turns out to live.
    fn panics(&mut self, panic: &Panic) {
        let beacon = Arc::clone(&self.parts.beacon);
        let mut seen = beacon.turns();
        let mut looks = 0;
        while !self.stop.load(Ordering::Acquire) && self.parts.panic() == Some(*panic) {
            let now = now_ns();
            // Who has just noticed speaks; but the pump cannot on that CPU.
            if beacon.pump_cpu() == Some(panic.cpu) {
                beacon.take_over(Claim::Understudy);
            }
            if beacon.claim(Claim::Understudy) {
                if self.speaker.speak(panic, now).all {
                    park_timeout(Duration::from_nanos(SPEAKING_NAP_NS));
                }
            } else {
                park_timeout(QUICK_LOOK);
                let turns = beacon.turns();
                looks = if turns == seen { looks + 1 } else { 0 };
                seen = turns;
                if looks >= STUCK_LOOKS {
                    beacon.take_over(Claim::Understudy);
                }
            }
            if now.saturating_sub(panic.since_ns) >= LIVES_AFTER_NS {
                self.parts.lives();
            }
        }
        self.speaker.reset();
    }
}
