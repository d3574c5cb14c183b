//! The ring items that wait: by seq, and in the order of the ring.

use std::{collections::VecDeque, num::NonZeroU32};

use super::{PATIENCE_NS, RecordRing, RingItem};

/// Seqs that can be looked at ahead of the head. At 300 bytes a record it
/// spans the default ring.
const WINDOW: usize = 1 << 15;

/// What is known of one seq.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    seq: u64,
    /// The first piece in the text source, the newest commit in the commit source.
    pub(super) item: RingItem,
    pub(super) pieces: u32,
    /// What brought its header, in the text source.
    pub(super) header: Option<RingItem>,
    pub(super) is_final: bool,
    /// Another commit of it is due, in the commit source.
    pub(super) is_reopened: bool,
    pub(super) seen_ns: u64,
}

impl Slot {
    fn new(seq: u64, item: RingItem, is_final: bool, seen_ns: u64) -> Self {
        Self { seq, item, pieces: 1, header: None, is_final, is_reopened: false, seen_ns }
    }
}

const EMPTY: u64 = u64::MAX;

/// What an item holds of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ItemKind {
    /// A piece of the text.
    Piece,
    /// A piece of the text, with the header of the record before.
    PieceAfterHeader,
    /// A header alone.
    Header,
    /// The whole record, which may still grow.
    Committed,
    /// The whole record for good.
    Final,
}

#[derive(Clone, Copy, Debug)]
struct Queued {
    item: RingItem,
    /// Descriptor id until the relation of ids to seqs is known.
    seq_or_id: u64,
    is_placed: bool,
    kind: ItemKind,
    seen_ns: u64,
}

/// See the module's description.
pub(super) struct Window {
    slots: Box<[Slot]>,
    order: VecDeque<Queued>,
    newest_seq: u64,
}

impl Window {
    pub(super) fn new(next_seq: u64) -> Self {
        let empty = RingItem { start: 0, len_bytes: NonZeroU32::MIN };
        let slot = Slot::new(EMPTY, empty, false, 0);
        Self {
            slots: vec![slot; WINDOW].into_boxed_slice(),
            order: VecDeque::with_capacity(WINDOW),
            newest_seq: next_seq.saturating_sub(1),
        }
    }

    /// The newest seq that the ring brought.
    pub(super) fn newest_seq(&self) -> u64 {
        self.newest_seq
    }

    pub(super) fn slot(&self, seq: u64) -> Option<Slot> {
        let slot = self.slots[seq as usize % WINDOW];
        (slot.seq == seq).then_some(slot)
    }

    /// The lowest known seq above `head`, and when it was seen.
    pub(super) fn next_known(&self, head: u64) -> Option<(u64, u64)> {
        let last = self.newest_seq.min(head.saturating_add(WINDOW as u64 - 1));
        (head + 1..=last).find_map(|seq| self.slot(seq)).map(|slot| (slot.seq, slot.seen_ns))
    }

    /// Takes an item that needs no place, only its turn in the release.
    pub(super) fn push_settled(&mut self, item: RingItem) {
        let kind = ItemKind::Final;
        self.order.push_back(Queued { item, seq_or_id: 0, is_placed: true, kind, seen_ns: 0 });
    }

    /// Takes an item in; false if there is no room for it now.
    pub(super) fn push(
        &mut self,
        item: RingItem,
        seq: Option<u64>,
        id: u64,
        kind: ItemKind,
        now_ns: u64,
        next_seq: u64,
    ) -> bool {
        if self.order.len() >= WINDOW {
            return false;
        }
        match seq {
            Some(seq) if seq >= next_seq.saturating_add(WINDOW as u64) => return false,
            Some(seq) => {
                self.enter(item, seq, kind, now_ns, next_seq);
                self.order.push_back(Queued {
                    item,
                    seq_or_id: seq,
                    is_placed: true,
                    kind,
                    seen_ns: now_ns,
                });
            }
            None => {
                self.order.push_back(Queued {
                    item,
                    seq_or_id: id,
                    is_placed: false,
                    kind,
                    seen_ns: now_ns,
                });
            }
        }
        true
    }

    fn enter(&mut self, item: RingItem, seq: u64, kind: ItemKind, now_ns: u64, next_seq: u64) {
        if kind == ItemKind::Header {
            return self.enter_header(item, seq);
        }
        if kind == ItemKind::PieceAfterHeader {
            self.enter_header(item, seq.wrapping_sub(1));
        }
        self.newest_seq = self.newest_seq.max(seq);
        if seq < next_seq {
            return;
        }
        let slot = &mut self.slots[seq as usize % WINDOW];
        let is_final = kind == ItemKind::Final;
        if slot.seq != seq {
            *slot = Slot::new(seq, item, is_final, now_ns);
        } else if matches!(kind, ItemKind::Piece | ItemKind::PieceAfterHeader) {
            slot.pieces += 1;
        } else {
            // Committed again with more text: the newest commit has all of it.
            (slot.item, slot.is_final) = (item, slot.is_final || is_final);
            slot.is_reopened = false;
        }
    }

    /// Takes note that another commit of that record is due.
    pub(super) fn reopen(&mut self, seq: u64) {
        let slot = &mut self.slots[seq as usize % WINDOW];
        slot.is_reopened |= slot.seq == seq && !slot.is_final;
    }

    /// A record's header comes after its text, or there is no text to go with it.
    fn enter_header(&mut self, item: RingItem, seq: u64) {
        let slot = &mut self.slots[seq as usize % WINDOW];
        if slot.seq == seq {
            slot.header = Some(item);
        }
    }

    /// Items whose seq is not known, with their ids.
    pub(super) fn unplaced(&self) -> impl Iterator<Item = (RingItem, u64)> {
        self.order
            .iter()
            .filter(|queued| !queued.is_placed)
            .map(|queued| (queued.item, queued.seq_or_id))
    }

    /// Gives the unplaced items their seqs; one without belongs to the newest.
    pub(super) fn place(&mut self, next_seq: u64, seq_of_id: impl Fn(u64) -> Option<u64>) {
        for index in 0..self.order.len() {
            let Queued { item, seq_or_id: id, is_placed, kind, seen_ns } = self.order[index];
            if !is_placed {
                let seq = seq_of_id(id).unwrap_or(self.newest_seq);
                self.enter(item, seq, kind, seen_ns, next_seq);
                (self.order[index].seq_or_id, self.order[index].is_placed) = (seq, true);
            }
        }
    }

    /// The items of one seq, in the order of the ring.
    pub(super) fn pieces(&self, seq: u64) -> impl Iterator<Item = RingItem> {
        self.order
            .iter()
            .filter(move |queued| {
                queued.is_placed && queued.seq_or_id == seq && queued.kind != ItemKind::Header
            })
            .map(|queued| queued.item)
    }

    /// Gives the space of everything before the first unsettled item back. Items
    /// that could not be related to a seq in time never will be: their records
    /// come from `/dev/kmsg` alone.
    pub(super) fn release<R: RecordRing>(&mut self, next_seq: u64, now_ns: u64, ring: &mut R) {
        let mut end = None;
        while let Some(front) = self.order.front() {
            let is_needed = if front.is_placed {
                front.seq_or_id >= next_seq
            } else {
                now_ns < front.seen_ns + PATIENCE_NS
            };
            if is_needed {
                break;
            }
            end = Some(front.item.end());
            self.order.pop_front();
        }
        if let Some(end) = end {
            ring.release(end);
        }
    }
}
