//! The bookkeeping of one AF_XDP transmit queue: which datagram lies in which
//! frame, what became of it, and which frames are ours.
//!
//! It works on rings and memory that it is given and kicks through a closure,
//! so the tests run it against a simulated kernel. Rules, from
//! `__xsk_generic_xmit` and `xsk_destruct_skb` in `net/xdp/xsk.c`:
//!
//! * The kernel consumes descriptors in order. A consumed descriptor is a datagram
//!   that the kernel took, unless the kick said `EBUSY`: then the driver dropped the
//!   last one consumed, and the batch ended there.
//! * The consumer index in shared memory may lag (after a lone drop; on older
//!   kernels also after a batch cut short). A completed frame proves that its
//!   descriptor and all before it were consumed.
//! * A frame is free when the completion ring names it, in any order.

use rustix::io::Errno;

use super::frames::{FreeFrame, KernelFrames, Umem};
use super::ring::{CompletionRing, TxRing};
use crate::egress::{Outcome, PushError, Tag, check_frame};

/// Kicks in a row that may achieve nothing before [`TxQueue::flush`] gives up
/// until it is called again: the driver's queue is full, or memory is short.
const IDLE_KICKS_MAX: u32 = 3;

/// What is known of a pushed datagram, by TX index.
#[derive(Clone, Copy, Default)]
struct Slot {
    tag: Tag,
    dropped: bool,
}

/// One transmit queue.
pub(super) struct TxQueue {
    umem: Umem,
    tx: TxRing,
    completions: CompletionRing,
    free: Vec<FreeFrame>,
    kernel: KernelFrames,
    slots: Box<[Slot]>,
    /// TX index of the first datagram whose fate was not told.
    told: u32,
    /// TX index of the first descriptor that the kernel did not consume.
    consumed: u32,
    abandoned: bool,
}

impl TxQueue {
    /// `completions` must have at least as many entries as there are frames,
    /// else the kernel stops while it is full.
    pub(super) fn new(
        umem: Umem,
        free: Vec<FreeFrame>,
        tx: TxRing,
        completions: CompletionRing,
    ) -> Self {
        let kernel = KernelFrames::new(&umem);
        let slots = vec![Slot::default(); tx.capacity() as usize].into();
        let (told, consumed) = (tx.produced(), tx.produced());
        Self { umem, tx, completions, free, kernel, slots, told, consumed, abandoned: false }
    }

    /// Bytes of the buffer that [`TxQueue::push`] hands out.
    pub(super) fn slot_bytes(&self) -> usize {
        self.umem.frame_bytes()
    }

    /// Datagrams whose fate was not told.
    pub(super) fn queued(&self) -> usize {
        self.tx.produced().wrapping_sub(self.told) as usize
    }

    /// Frames that are ours, and frames that the kernel holds.
    #[cfg(test)]
    pub(super) fn frames(&self) -> (usize, usize) {
        (self.free.len(), self.kernel.count())
    }

    /// Lets `fill` write a frame and puts it into the ring, unseen by the
    /// kernel until [`TxQueue::flush`].
    pub(super) fn push(
        &mut self,
        tag: Tag,
        mtu_bytes: u32,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<(), PushError> {
        if self.abandoned || self.queued() >= self.slots.len() {
            return Err(PushError::Full);
        }
        if self.free.is_empty() {
            self.take_completed();
        }
        let mut frame = self.free.pop().ok_or(PushError::Full)?;
        let bytes = self.umem.bytes_mut(&mut frame);
        let len_bytes = fill(bytes);
        if let Err(refusal) = check_frame(bytes, len_bytes, mtu_bytes) {
            self.free.push(frame);
            return Err(refusal);
        }
        let index = self.tx.produced();
        // Cannot truncate: it is at most the length of a frame.
        self.tx.write(self.umem.address(&frame), len_bytes as u32);
        self.kernel.hold(frame.queued(index));
        *self.slot(index) = Slot { tag, dropped: false };
        Ok(())
    }

    /// Publishes what was pushed and kicks until the kernel took it all or
    /// takes no more for now. The ring, not the return code, says what was taken.
    ///
    /// # Errors
    /// What the kick said, if waiting on the same socket and device does not
    /// help; `ENXIO` also if the kernel says it is well and takes nothing,
    /// which is what it does when the device has lost the queue.
    pub(super) fn flush(
        &mut self,
        mut kick: impl FnMut() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if self.abandoned {
            return Ok(());
        }
        self.tx.publish();
        let mut idle_kicks = 0;
        while self.consumed != self.tx.published() && self.tx.needs_wakeup() {
            let before = self.consumed;
            let answer = kick();
            self.observe();
            if answer == Err(Errno::BUSY) {
                self.drop_last(before);
            }
            idle_kicks = if self.consumed == before { idle_kicks + 1 } else { 0 };
            match answer {
                // Says it is well and takes nothing.
                Ok(()) if idle_kicks >= IDLE_KICKS_MAX => return Err(Errno::NXIO),
                Ok(()) => {}
                Err(error) if !passes_by_itself(error) => return Err(error),
                Err(_) if idle_kicks >= IDLE_KICKS_MAX => return Ok(()),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Tells what became of the datagrams that the kernel consumed.
    pub(super) fn reap(&mut self, done: &mut dyn FnMut(Tag, Outcome)) {
        self.observe();
        while self.told != self.consumed {
            let Slot { tag, dropped } = *self.slot(self.told);
            self.told = self.told.wrapping_add(1);
            done(tag, if dropped { Outcome::Dropped } else { Outcome::Sent });
        }
    }

    /// Gives up what the kernel did not consume. Nobody kicks after this, so it
    /// never will be.
    pub(super) fn abandon(&mut self, fate: &mut dyn FnMut(Tag, Option<Outcome>)) {
        self.reap(&mut |tag, outcome| fate(tag, Some(outcome)));
        self.abandoned = true;
        let mut index = self.consumed;
        while index != self.tx.produced() {
            fate(self.slot(index).tag, None);
            index = index.wrapping_add(1);
        }
        self.told = index;
        self.consumed = index;
    }

    fn slot(&mut self, index: u32) -> &mut Slot {
        // The ring's size is a power of two.
        let mask = self.slots.len() - 1;
        &mut self.slots[index as usize & mask]
    }

    /// Learns from the shared memory what the kernel has done.
    fn observe(&mut self) {
        self.take_completed();
        self.advance(self.tx.consumed());
    }

    /// The kernel consumed everything before `index`. An index that is behind
    /// (the shared one may lag) or that cannot be looks like one from far ahead.
    fn advance(&mut self, index: u32) {
        let published = self.tx.published().wrapping_sub(self.consumed);
        if !self.abandoned && index.wrapping_sub(self.consumed) <= published {
            self.consumed = index;
        }
    }

    /// Takes completed frames back, and learns from them what was consumed.
    fn take_completed(&mut self) {
        let Self { completions, kernel, free, tx, consumed, .. } = self;
        let published = tx.published();
        let mut newest = *consumed;
        completions.drain(|address| {
            // A descriptor that was not published cannot have been seen.
            let seen = |index| is_before(index, published);
            let Some((frame, index)) = kernel.take_back(address, seen) else {
                return;
            };
            free.push(frame);
            let next = index.wrapping_add(1);
            if is_before(newest, next) {
                newest = next;
            }
        });
        self.advance(newest);
    }

    /// The driver dropped the last descriptor that the kernel consumed.
    fn drop_last(&mut self, consumed_before: u32) {
        if self.consumed == consumed_before {
            // Neither index nor completion shows it yet: it was the first one.
            self.consumed = self.consumed.wrapping_add(1);
        }
        let last = self.consumed.wrapping_sub(1);
        self.slot(last).dropped = true;
    }
}

/// Whether the same call may succeed a moment later: a full driver queue or a
/// batch cut short, a packet that the driver dropped, memory, a signal.
fn passes_by_itself(error: Errno) -> bool {
    matches!(error, Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::NOMEM | Errno::INTR)
}

/// Order of two TX indices that are less than half the range apart.
fn is_before(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).wrapping_sub(1) < u32::MAX / 2
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
