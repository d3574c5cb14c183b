//! Dumps: the tail of the kernel log as netoops packets, to the targets that want them.
//!
//! The pump keeps the text as it settles records; what a speaker has said since is appended from a
//! ring of its own. How a dump looks is in [`crate::netoops`].

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use crate::{
    clock,
    netoops::{Dump, Kind, TextReader, TextRing},
    record::Record,
};

/// Text of one dump at most, and of what is kept for it: about 800 lines.
pub const TEXT_BYTES: usize = 64 << 10;

/// What the control thread, the pump and the understudy tell each other about dumps.
#[derive(Debug, Default)]
pub struct DumpDesk {
    /// A target wants dumps and has, or had, a way.
    is_wanted: AtomicBool,
    /// A target wants dumps, though it may have no way yet: text is kept.
    keeps_text: AtomicBool,
    /// Kinds that were asked for and are not made yet, as bits.
    asked: AtomicU32,
    /// Dumps that were made.
    made: AtomicU64,
    /// Packets of the last one, all passes and targets.
    last_packets: AtomicU64,
}

impl DumpDesk {
    /// Whether text is to be kept for dumps.
    pub fn set_keeps_text(&self, keeps_text: bool) {
        self.keeps_text.store(keeps_text, Ordering::Relaxed);
    }

    /// Whether text is kept.
    #[must_use]
    pub fn keeps_text(&self) -> bool {
        self.keeps_text.load(Ordering::Relaxed)
    }

    /// Whether a target wants dumps and has, or had, a way.
    pub fn set_wanted(&self, is_wanted: bool) {
        self.is_wanted.store(is_wanted, Ordering::Relaxed);
    }

    /// Whether anybody could be sent a dump.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    /// Asks for a dump; the understudy makes it with its next look.
    pub fn ask(&self, kind: Kind) {
        self.asked.fetch_or(bit(kind), Ordering::AcqRel);
    }

    /// What was asked for.
    #[must_use]
    pub(super) fn asked(&self) -> Option<Kind> {
        let asked = self.asked.load(Ordering::Acquire);
        [Kind::Hard, Kind::Soft].into_iter().find(|kind| asked & bit(*kind) != 0)
    }

    /// It was made.
    pub(super) fn made(&self, kind: Kind, packets: u64) {
        self.asked.fetch_and(!bit(kind), Ordering::AcqRel);
        self.last_packets.store(packets, Ordering::Relaxed);
        self.made.fetch_add(1, Ordering::Release);
    }

    /// How many dumps were made, and the packets of the last one.
    #[must_use]
    pub fn dumps(&self) -> (u64, u64) {
        let made = self.made.load(Ordering::Acquire);
        (made, self.last_packets.load(Ordering::Relaxed))
    }
}

fn bit(kind: Kind) -> u32 {
    1 << kind as u32
}

/// Gathers the text of a dump.
pub(super) struct DumpText {
    settled: TextReader,
    own: TextRing,
    own_reader: TextReader,
    /// Something was said since the last dump began to be gathered from `settled` alone.
    has_own: bool,
    scratch: Box<[u8]>,
    text: Box<[u8]>,
    release: Arc<[u8]>,
    last_id: u16,
}

impl DumpText {
    pub(super) fn new(settled: TextReader, release: Arc<[u8]>) -> Self {
        let own = TextRing::new(TEXT_BYTES);
        Self {
            own_reader: own.reader(),
            own,
            settled,
            has_own: false,
            // Not zero, which would be mapped lazily.
            scratch: vec![0x20; TEXT_BYTES].into(),
            text: vec![0x20; 2 * TEXT_BYTES].into(),
            release,
            last_id: 0,
        }
    }

    /// A record that the pump will not settle any more.
    pub(super) fn append(&mut self, record: &Record<'_>) {
        self.own.append(record);
        self.has_own = true;
    }

    /// The dump with its text.
    pub(super) fn gather(&mut self, kind: Kind) -> Option<(Dump, &[u8])> {
        let settled = self.settled.tail(&mut self.scratch);
        let mut end = settled.len();
        self.text[..end].copy_from_slice(settled);
        if self.has_own {
            let own = self.own_reader.tail(&mut self.scratch);
            self.text[end..end + own.len()].copy_from_slice(own);
            end += own.len();
        }
        let mut text = &self.text[end.saturating_sub(TEXT_BYTES)..end];
        if end > TEXT_BYTES
            && let Some(line_end) = memchr::memchr(b'\n', text)
        {
            text = &text[line_end + 1..];
        }
        // As in the patch the seconds since the boot, but never the same one twice.
        let seconds = (clock::boot_ns() / 1_000_000_000) as u16;
        let id = if seconds == self.last_id { seconds.wrapping_add(1) } else { seconds };
        self.last_id = id;
        // The text is as long as a dump may be, or shorter.
        let dump = Dump::new(id, kind, &self.release, text.len()).ok()?;
        Some((dump, text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_made_once() {
        let desk = DumpDesk::default();
        assert_eq!(desk.asked(), None);
        desk.ask(Kind::Soft);
        desk.ask(Kind::Soft);
        desk.ask(Kind::Hard);
        assert_eq!(desk.asked(), Some(Kind::Hard));
        desk.made(Kind::Hard, 192);
        assert_eq!((desk.asked(), desk.dumps()), (Some(Kind::Soft), (1, 192)));
        desk.made(Kind::Soft, 3);
        assert_eq!((desk.asked(), desk.dumps()), (None, (2, 3)));
    }

    #[test]
    fn own_lines_follow_the_settled_ones_and_the_oldest_are_cut() {
        let mut settled = TextRing::new(TEXT_BYTES);
        let mut text = DumpText::new(settled.reader(), Arc::from(&b"6.1.0"[..]));
        let record = |text: &'static str| Record {
            text: text.as_bytes(),
            seq: 0,
            ts_ns: 0,
            facility: 0,
            level: 4,
            cont: false,
            caller: None,
            subsystem: &[],
            device: &[],
            context: None,
            approximated: false,
            backfilled: false,
        };
        settled.append(&record("settled"));
        text.append(&record("said"));
        let (dump, whole) = text.gather(Kind::Hard).unwrap();
        assert_eq!(dump.packet_count(), 1);
        let lines: Vec<_> = whole.split(|byte| *byte == b'\n').collect();
        assert!(lines[0].ends_with(b"settled") && lines[1].ends_with(b"said"));
        let first_id = text.last_id;
        (0..2000).for_each(|_| settled.append(&record("a line that fills the ring in the end")));
        let (_, whole) = text.gather(Kind::Hard).unwrap();
        assert!(whole.len() <= TEXT_BYTES && whole.len() > TEXT_BYTES - 200);
        assert!(whole.starts_with(b"<") && whole.ends_with(b"said\n"));
        assert_ne!(text.last_id, first_id);
    }
}
