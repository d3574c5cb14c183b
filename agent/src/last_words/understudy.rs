//! The thread that takes the pump's place when the pump's CPU is the one that panics.
//!
//! It looks at one word a few dozen times a second and does nothing else in good times. It has
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
use crate::{capture::bpf::Panic, capture::wait::now_ns};

/// How often it looks whether the kernel panics.
const LOOK: Duration = Duration::from_millis(18);
/// The same while a report is being printed, or another one speaks.
const QUICK_LOOK: Duration = Duration::from_millis(1);
/// A speaker that has not moved for so many looks is stuck.
const STUCK_LOOKS: u32 = 2;

/// See the module's description.
pub struct Understudy {
    speaker: Speaker,
    parts: SpeakerParts,
    placement: Placement,
    stop: Arc<AtomicBool>,
}

impl Understudy {
    /// Puts the parts together. It ends soon after `stop` is set.
    #[must_use]
    pub fn new(
        speaker: Speaker,
        parts: SpeakerParts,
        placement: Placement,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self { speaker, parts, placement, stop }
    }

    /// Runs until it is told to stop.
    pub fn run(&mut self) {
        self.keep_away();
        while !self.stop.load(Ordering::Acquire) {
            match self.parts.alarm.panic() {
                Some(panic) => self.panics(&panic),
                None => {
                    self.keep_away();
                    let look = if self.parts.beacon.has_report() { QUICK_LOOK } else { LOOK };
                    park_timeout(look);
                }
            }
        }
    }

    /// Goes where the pump is not; the kernel moves a thread whose CPU goes offline.
    fn keep_away(&self) {
        if current_cpu() != self.placement.understudy() {
            // Without that CPU, wherever it is.
            let _ = self.placement.place_understudy();
        }
    }

    /// The kernel panics. Returns when the machine turns out to live.
    fn panics(&mut self, panic: &Panic) {
        let beacon = Arc::clone(&self.parts.beacon);
        let mut seen = beacon.turns();
        let mut looks = 0;
        while !self.stop.load(Ordering::Acquire) && self.parts.alarm.panic() == Some(*panic) {
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
                self.parts.alarm.disarm();
                beacon.release();
            }
        }
        self.speaker.reset();
    }
}
