//! The programs' ring, as the sequencer sees it: items in the order of reservation, which stay
//! where they are until they are released.

use std::num::NonZeroU32;

/// One committed item of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingItem {
    /// Position of the item's header.
    pub start: u64,
    /// Bytes of the record. No item is empty, so an `Option<RingItem>` is no longer than an item.
    pub len_bytes: NonZeroU32,
}

impl RingItem {
    /// Bytes of an item's header (`BPF_RINGBUF_HDR_SZ`, `include/uapi/linux/bpf.h`).
    pub const HEADER_BYTES: u64 = 8;

    /// Position behind the item.
    #[must_use]
    pub fn end(&self) -> u64 {
        Self::end_of(self.start, self.len_bytes.get())
    }

    /// Position behind an item; items begin at multiples of 8.
    #[must_use]
    pub fn end_of(start: u64, len_bytes: u32) -> u64 {
        start + (Self::HEADER_BYTES + u64::from(len_bytes)).next_multiple_of(8)
    }
}

/// The programs' ring, as the sequencer uses it.
pub trait RecordRing {
    /// The next committed item, in the order of reservation.
    fn next(&mut self) -> Option<RingItem>;
    /// Whether something was reserved that `next` has not given out, for
    /// instance because it is not committed yet.
    fn pending(&self) -> bool;
    /// Whether `next` would look at a committed item.
    fn ready(&self) -> bool;
    /// Whether so much is held back that new records may soon find no room.
    fn is_crowded(&self) -> bool;
    /// Whether it fills up: then it is to be emptied before anything else is done.
    fn is_filling(&self) -> bool;
    /// The bytes of an item that was given out and not released; else none.
    fn bytes(&self, item: RingItem) -> &[u8];
    /// Gives the space up to `end` back.
    fn release(&mut self, end: u64);
}

/// No ring is one that is always empty: the `kmsg` source has none.
impl<R: RecordRing> RecordRing for Option<R> {
    fn next(&mut self) -> Option<RingItem> {
        self.as_mut()?.next()
    }
    fn pending(&self) -> bool {
        self.as_ref().is_some_and(R::pending)
    }
    fn ready(&self) -> bool {
        self.as_ref().is_some_and(R::ready)
    }
    fn is_crowded(&self) -> bool {
        self.as_ref().is_some_and(R::is_crowded)
    }
    fn is_filling(&self) -> bool {
        self.as_ref().is_some_and(R::is_filling)
    }
    fn bytes(&self, item: RingItem) -> &[u8] {
        self.as_ref().map_or(&[], |ring| ring.bytes(item))
    }
    fn release(&mut self, end: u64) {
        if let Some(ring) = self {
            ring.release(end);
        }
    }
}
