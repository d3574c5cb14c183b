//! What speaks last words, without the agent around it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use netconsole_agent::{
    capture::{LastWordsCapture, bpf::RingView},
    egress::packet::AnyDevice,
    last_words::{Speaker, SpeakerParts, TEXT_BYTES, plan::Plan},
    netoops::TextRing,
    pump::LastWordsParts,
};

/// Parts for those who speak, with the views into the ring, and where the text of records goes.
#[must_use]
pub fn parts(capture: LastWordsCapture) -> (SpeakerParts, [RingView; 2], TextRing) {
    let text = TextRing::new(TEXT_BYTES);
    let parts = SpeakerParts {
        beacon: Arc::default(),
        alarm: Some(Arc::new(capture.alarm)),
        plan: Arc::new(ArcSwap::from_pointee(Plan::default())),
        cgroups: Arc::default(),
        shows_caller: false,
        dumps: Arc::default(),
        text: text.reader(),
        release: Arc::from(&b"6.18.0-test"[..]),
    };
    (parts, capture.views, text)
}

/// A speaker in the calling thread's network namespace.
///
/// # Panics
/// If AF_PACKET cannot be had.
#[must_use]
pub fn speaker(view: RingView, parts: &SpeakerParts) -> Speaker {
    Speaker::new(Some(view), parts.clone(), Some(AnyDevice::open().expect("AF_PACKET")))
}

/// The pump's part.
#[must_use]
pub fn for_the_pump(capture: LastWordsCapture) -> LastWordsParts {
    let (shared, [view, _], text) = parts(capture);
    LastWordsParts { speaker: speaker(view, &shared), shared, placement: None, text }
}
