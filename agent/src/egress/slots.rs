//! Slots of fixed size for the kinds whose system call copies the packet: a
//! ring of datagrams that wait for the kernel, and of fates that wait to be told.
//!
//! All memory is allocated at the start. AF_XDP does not use it: its slots are
//! the frames that the kernel sends from.

use std::io;

use rustix::io::Errno;

use super::{Egress, EgressKind, Outcome, PushError, Tag};

/// Bytes per slot: more than any datagram of the agent with its headers, as
/// in AF_XDP's frames.
pub(super) const SLOT_BYTES: usize = 2048;

/// A socket that takes one datagram per system call.
pub(super) trait Wire: Send {
    const KIND: EgressKind;

    /// Whether a datagram may be queued at all.
    fn check(_slot: &[u8], _len_bytes: usize, _mtu_bytes: u32) -> Result<(), PushError> {
        Ok(())
    }

    /// Offers a datagram to the kernel; `None` if it did not take it and may
    /// a moment later.
    ///
    /// # Errors
    /// What does not pass by itself.
    fn send(&self, datagram: &[u8]) -> Result<Option<Outcome>, Errno>;
}

/// The way out through a [`Wire`].
pub(super) struct Slotted<W> {
    queue: SlotQueue,
    wire: W,
}

impl<W: Wire> Slotted<W> {
    /// At least one slot is made.
    pub(super) fn new(wire: W, slots: u32) -> Self {
        Self { queue: SlotQueue::new(slots.max(1) as usize), wire }
    }
}

impl<W: Wire> Egress for Slotted<W> {
    fn kind(&self) -> EgressKind {
        W::KIND
    }

    fn slot_bytes(&self) -> usize {
        SLOT_BYTES
    }

    fn push(
        &mut self,
        tag: Tag,
        mtu_bytes: u32,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<(), PushError> {
        self.queue.push(tag, fill, |slot, len_bytes| W::check(slot, len_bytes, mtu_bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        while let Some(datagram) = self.queue.next() {
            let Some(outcome) = self.wire.send(datagram)? else { break };
            self.queue.settle(outcome);
        }
        Ok(())
    }

    fn reap(&mut self, done: &mut dyn FnMut(Tag, Outcome)) {
        self.queue.reap(done);
    }

    fn queued(&self) -> usize {
        self.queue.queued()
    }

    fn abandon(&mut self, fate: &mut dyn FnMut(Tag, Option<Outcome>)) {
        self.queue.abandon(fate);
    }
}

#[derive(Clone, Copy)]
struct Slot {
    tag: Tag,
    len_bytes: usize,
    outcome: Outcome,
}

/// `told <= settled <= pushed`, running freely; the slot of an index is its
/// remainder by the number of slots.
pub(super) struct SlotQueue {
    bytes: Box<[u8]>,
    slots: Box<[Slot]>,
    told: usize,
    settled: usize,
    pushed: usize,
    abandoned: bool,
}

impl SlotQueue {
    pub(super) fn new(slots: usize) -> Self {
        let unused = Slot { tag: Tag(0), len_bytes: 0, outcome: Outcome::Sent };
        Self {
            bytes: vec![0; slots * SLOT_BYTES].into(),
            slots: vec![unused; slots].into(),
            told: 0,
            settled: 0,
            pushed: 0,
            abandoned: false,
        }
    }

    fn place(&self, index: usize) -> usize {
        index % self.slots.len()
    }

    /// Lets `fill` write a slot and keeps it if `check` accepts the whole slot
    /// and the length.
    pub(super) fn push(
        &mut self,
        tag: Tag,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
        check: impl FnOnce(&[u8], usize) -> Result<(), PushError>,
    ) -> Result<(), PushError> {
        if self.abandoned || self.pushed - self.told == self.slots.len() {
            return Err(PushError::Full);
        }
        let place = self.place(self.pushed);
        let slot = &mut self.bytes[place * SLOT_BYTES..][..SLOT_BYTES];
        let len_bytes = fill(slot);
        check(slot, len_bytes)?;
        if len_bytes > SLOT_BYTES {
            return Err(PushError::TooLong { len_bytes, limit_bytes: SLOT_BYTES });
        }
        self.slots[place] = Slot { tag, len_bytes, outcome: Outcome::Sent };
        self.pushed += 1;
        Ok(())
    }

    /// The oldest datagram that waits for the kernel.
    pub(super) fn next(&self) -> Option<&[u8]> {
        if self.settled == self.pushed {
            return None;
        }
        let place = self.place(self.settled);
        Some(&self.bytes[place * SLOT_BYTES..][..self.slots[place].len_bytes])
    }

    /// The fate of [`SlotQueue::next`] is known.
    pub(super) fn settle(&mut self, outcome: Outcome) {
        if self.settled != self.pushed {
            let place = self.place(self.settled);
            self.slots[place].outcome = outcome;
            self.settled += 1;
        }
    }

    pub(super) fn reap(&mut self, done: &mut dyn FnMut(Tag, Outcome)) {
        while self.told != self.settled {
            let Slot { tag, outcome, .. } = self.slots[self.place(self.told)];
            self.told += 1;
            done(tag, outcome);
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.pushed - self.told
    }

    pub(super) fn abandon(&mut self, fate: &mut dyn FnMut(Tag, Option<Outcome>)) {
        self.reap(&mut |tag, outcome| fate(tag, Some(outcome)));
        self.abandoned = true;
        for index in self.settled..self.pushed {
            fate(self.slots[self.place(index)].tag, None);
        }
        self.settled = self.pushed;
        self.told = self.pushed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn push(queue: &mut SlotQueue, number: u64) -> Result<(), PushError> {
        queue.push(
            Tag(number),
            &mut |slot| {
                slot[..8].copy_from_slice(&number.to_le_bytes());
                8
            },
            |_, _| Ok(()),
        )
    }

    proptest! {
        /// Against a plain list: same order, same fates, full when it should be.
        #[test]
        fn behaves_like_a_list(
            slots in 1usize..6,
            ops in proptest::collection::vec(0u8..4, 0..200),
        ) {
            let mut queue = SlotQueue::new(slots);
            let (mut waiting, mut settled) = (VecDeque::new(), VecDeque::new());
            for (number, op) in (0u64..).zip(ops) {
                match op {
                    0 => {
                        let full = waiting.len() + settled.len() == slots;
                        prop_assert_eq!(push(&mut queue, number).is_err(), full);
                        if !full {
                            waiting.push_back(number);
                        }
                    }
                    1 | 2 => {
                        let expected = waiting.front().map(|n: &u64| n.to_le_bytes());
                        prop_assert_eq!(queue.next(), expected.as_ref().map(|b| &b[..]));
                        let outcome = if op == 1 { Outcome::Sent } else { Outcome::Refused };
                        queue.settle(outcome);
                        settled.extend(waiting.pop_front().map(|n| (Tag(n), outcome)));
                    }
                    _ => {
                        let mut told = VecDeque::new();
                        queue.reap(&mut |tag, outcome| told.push_back((tag, outcome)));
                        prop_assert_eq!(&told, &settled);
                        settled.clear();
                    }
                }
                prop_assert_eq!(queue.queued(), waiting.len() + settled.len());
            }
            let mut told = VecDeque::new();
            queue.abandon(&mut |tag, outcome| told.push_back((tag, outcome)));
            let settled = settled.into_iter().map(|(tag, outcome)| (tag, Some(outcome)));
            let unsent = waiting.into_iter().map(|number| (Tag(number), None));
            prop_assert_eq!(told, settled.chain(unsent).collect::<VecDeque<_>>());
            prop_assert_eq!(queue.queued(), 0);
            prop_assert!(matches!(push(&mut queue, 0), Err(PushError::Full)));
        }
    }

    #[test]
    fn a_slot_is_free_again_after_a_refusal() {
        let mut queue = SlotQueue::new(1);
        let long = queue.push(Tag(1), &mut |_| SLOT_BYTES + 1, |_, _| Ok(()));
        assert!(matches!(long, Err(PushError::TooLong { limit_bytes: SLOT_BYTES, .. })));
        let refused = queue.push(Tag(1), &mut |_| 5, |_, len_bytes| {
            Err(PushError::TooShort { len_bytes, limit_bytes: 14 })
        });
        assert!(matches!(refused, Err(PushError::TooShort { len_bytes: 5, .. })));
        push(&mut queue, 7).unwrap();
        assert_eq!(queue.next(), Some(&7u64.to_le_bytes()[..]));
    }
}
