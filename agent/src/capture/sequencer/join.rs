//! Joining the two halves of a record: which descriptor id is which seq, and
//! whether two texts are the same record's; and what a text becomes with its header, or without.

use rtrb::Consumer;

use super::{
    DEFAULT_LEVEL, ID_MASK, MissingReason, RecordRing, RingContent, RingItem, Sequencer, Sink,
    Step,
    window::{Slot, Window},
};
use crate::{
    capture::{kmsg_record::KmsgRecord, ring_record::RingRecord},
    record::{Record, TEXT_MAX_BYTES},
};

/// Joins in a row whose texts differ before the relation of descriptor ids to
/// seqs is learned anew.
const MISMATCHES_MAX: u32 = 16;

impl Sequencer {
    /// The seq of a descriptor id; a continuation has none and belongs to the newest record.
    pub(super) fn seq_of_id(&self, id: u64, base: u64) -> u64 {
        let seq = id.wrapping_add(base) & ID_MASK;
        let newest = self.window.newest_seq().max(self.next_seq);
        let plausible =
            seq.saturating_add(1 << 16) > newest && seq < newest.saturating_add(1 << 20);
        if plausible { seq } else { self.window.newest_seq() }
    }

    /// Finds the constant between descriptor ids and seqs from the record at the
    /// front of the queue, if it came by both ways; true if it was found now. Lines that
    /// repeat may fit more than one constant: then a later record has to tell.
    pub(super) fn learn_from<R: RecordRing>(
        &mut self,
        kmsg: &Consumer<KmsgRecord>,
        ring: &R,
    ) -> bool {
        /// Comparing one record with all that wait takes long, so most are passed
        /// over once so many told nothing.
        const EAGER: u64 = 16;
        const EVERY: u64 = 512;
        let Ok(front) = kmsg.peek() else { return false };
        if front.seq < self.begin.attached_seq {
            return false;
        }
        if self.id_base.is_some() || (self.untold >= EAGER && !self.untold.is_multiple_of(EVERY)) {
            self.untold += u64::from(self.id_base.is_none());
            return false;
        }
        self.untold += 1;
        let mut fitting = None;
        for (item, id) in self.window.unplaced() {
            let base = front.seq.wrapping_sub(id) & ID_MASK;
            let fits = bases().any(|known| known == base)
                && RingRecord::parse(ring.bytes(item))
                    .is_some_and(|record| is_alike(record.text(), front.text()));
            if fits && fitting.replace(base).is_some_and(|other| other != base) {
                return false;
            }
        }
        let Some(base) = fitting else { return false };
        self.untold = 0;
        self.place_near(front.seq, base);
        true
    }

    /// A header tells the constant. A guess that was wrong ends here.
    pub(super) fn is_told(&mut self, seq: u64, base: u64) {
        if self.id_base != Some(base) {
            self.place_near(seq, base);
        }
        self.is_base_told = true;
    }

    /// Takes the constant, and gives what waits its seqs: that was captured within one ring's
    /// length of the record `near`.
    fn place_near(&mut self, near: u64, base: u64) {
        self.id_base = Some(base);
        self.window.place(self.next_seq, |id| {
            Some(id.wrapping_add(base) & ID_MASK).filter(|seq| seq.abs_diff(near) < 1 << 20)
        });
    }

    /// Finds the same constant from the first records that the programs saw: they
    /// were logged after `/dev/kmsg` was read to its end before the attaching, and
    /// not later than what came first after it was read to its end again.
    pub(super) fn learn_from_first(&mut self, id: u64) {
        let last = self.begin.live_seq + self.first_items;
        self.first_items += 1;
        let fits = |base: &u64| {
            (self.begin.attached_seq..=last).contains(&(id.wrapping_add(*base) & ID_MASK))
        };
        let mut fitting = bases().filter(fits);
        if let (Some(base), None) = (fitting.next(), fitting.next()) {
            self.id_base = Some(base);
            let newest = last + (1 << 20);
            self.window.place(self.next_seq, |id| {
                Some(id.wrapping_add(base) & ID_MASK).filter(|seq| *seq < newest)
            });
        }
    }

    pub(super) fn join<R: RecordRing, S: Sink>(
        &mut self,
        front: &KmsgRecord,
        slot: Option<Slot>,
        ring: &R,
        sink: &mut S,
    ) {
        let mut record = front.as_record(None);
        let half = slot.and_then(|slot| {
            RingRecord::parse(ring.bytes(slot.item)).map(|half| (half, slot.pieces))
        });
        if let Some((half, pieces)) = half {
            // A record printed in pieces has only its beginning in this item.
            let has_text = pieces == 1 && !half.text_unread();
            let is_whole = has_text && is_alike(half.text(), front.text());
            // Another CPU's record came in between, and got the rest of this one.
            let is_beginning =
                has_text && !half.text().is_empty() && front.text().starts_with(half.text());
            if !has_text || is_whole || is_beginning {
                self.mismatches = 0;
                self.clock_offset_ns =
                    (front.ts_us as i64).wrapping_mul(1000).wrapping_sub(half.ktime_ns() as i64);
                record.context = Some(half.context());
                if is_whole {
                    // The same, unless /dev/kmsg shows it cut.
                    record.text = half.text();
                }
            } else {
                self.counts.mismatched += 1;
                self.mismatches += 1;
                if self.mismatches >= MISMATCHES_MAX {
                    self.mismatches = 0;
                    self.id_base = None;
                    self.is_base_told = false;
                }
            }
        }
        if front.seq < self.begin.live_seq {
            self.counts.replayed += 1;
        } else if record.context.is_none() && self.content != RingContent::Nothing {
            self.counts.backfilled += 1;
            record.backfilled = true;
        }
        sink.record(&record);
    }

    /// Settles the head with its text and the header that came after it; false if they do not fit.
    pub(super) fn complete<R: RecordRing, S: Sink>(
        &mut self,
        slot: Slot,
        header: RingItem,
        ring: &R,
        sink: &mut S,
    ) -> bool {
        let (Some(half), Some(header)) =
            (RingRecord::parse(ring.bytes(slot.item)), RingRecord::parse(ring.bytes(header)))
        else {
            return false;
        };
        let seq = self.next_seq;
        let text = Self::text_of(&mut self.text, &self.window, seq, slot, &half, ring);
        // A piece that another CPU's record cut off is not known to be this record's.
        if half.text_unread() || text.len() != header.header_text_len_bytes() {
            return false;
        }
        let mut record = half.with_header_of(seq, &header, text);
        if !self.show_caller {
            record.caller = None;
        }
        sink.record(&record);
        self.clock_offset_ns = (record.ts_ns as i64).wrapping_sub(half.ktime_ns() as i64);
        self.counts.completed += 1;
        true
    }

    /// The text of the head, which may have been printed in pieces; `half` is the first.
    fn text_of<'t, R: RecordRing>(
        pieces: &'t mut [u8; TEXT_MAX_BYTES],
        window: &Window,
        seq: u64,
        slot: Slot,
        half: &RingRecord<'t>,
        ring: &R,
    ) -> &'t [u8] {
        if slot.pieces <= 1 {
            return half.text();
        }
        let mut len_bytes = 0;
        for item in window.pieces(seq) {
            let piece = RingRecord::parse(ring.bytes(item)).map_or(&[][..], |piece| piece.text());
            let room = &mut pieces[len_bytes..];
            let take = piece.len().min(room.len());
            room[..take].copy_from_slice(&piece[..take]);
            len_bytes += take;
        }
        &pieces[..len_bytes]
    }

    /// Settles the head with the program's half alone.
    pub(super) fn approximate<R: RecordRing, S: Sink>(
        &mut self,
        slot: Slot,
        ring: &R,
        sink: &mut S,
    ) -> Step {
        let Some(half) = RingRecord::parse(ring.bytes(slot.item)) else {
            sink.missing(self.next_seq, 1, MissingReason::NotCaptured);
            return Step::Settled(1);
        };
        let seq = self.next_seq;
        let text = Self::text_of(&mut self.text, &self.window, seq, slot, &half, ring);
        let ts_ns = half.ktime_ns().saturating_add_signed(self.clock_offset_ns);
        sink.record(&Record { text, ..half.approximated(seq, ts_ns, DEFAULT_LEVEL) });
        self.counts.approximated += 1;
        Step::Settled(1)
    }
}

/// Whether `/dev/kmsg` can show `text` as `shown`: the same, or cut, perhaps in the
/// middle of an escape, of which the last bytes are then guessed.
fn is_alike(text: &[u8], shown: &[u8]) -> bool {
    const GUESSED_BYTES: usize = 4;
    // A line of 2048 bytes holds at least this many, with every byte escaped.
    const CUT_MIN_BYTES: usize = 400;
    if shown.len() < CUT_MIN_BYTES {
        return text == shown;
    }
    let sure = shown.len() - GUESSED_BYTES;
    text.get(..sure) == Some(&shown[..sure])
}

/// What seqs and ids can differ by. The first id is the negative number of
/// descriptors, a power of two (`DESC0_ID`, `printk_ringbuffer.h`); the kernel computes it with
/// 32 bits, and then counts with 62.
fn bases() -> impl Iterator<Item = u64> {
    (4..32).flat_map(|bits| [1 << bits, (1_u64 << bits).wrapping_sub(1 << 32) & ID_MASK])
}
