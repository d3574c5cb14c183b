//! Memory in place of a network, with a handle that plays the kernel's part:
//! for tests of everything above the egress.
//!
//! Not for the data path of a running agent: it locks and allocates.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Egress, EgressKind, Outcome, PushError, Tag};

/// Opens a way out into memory, with the handle to its other side.
#[must_use]
pub fn open(slots: usize, slot_bytes: usize) -> (Box<dyn Egress>, MemoryHandle) {
    let handle = MemoryHandle(Arc::new(Mutex::new(State { room: usize::MAX, ..State::default() })));
    let egress = MemoryEgress {
        handle: handle.clone(),
        slots,
        buffer: vec![0; slot_bytes],
        waiting: VecDeque::new(),
        settled: VecDeque::new(),
        abandoned: false,
    };
    (Box::new(egress), handle)
}

/// The other side of a memory egress.
#[derive(Clone, Debug)]
pub struct MemoryHandle(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    sent: Vec<(Tag, Vec<u8>)>,
    dropped: Vec<Tag>,
    /// Datagrams that flushes may still take.
    room: usize,
    refusals: usize,
    drops: usize,
    flush_error: Option<i32>,
    full: bool,
    flushes: usize,
}

impl MemoryHandle {
    fn state(&self) -> MutexGuard<'_, State> {
        // Plain data: a test that panicked leaves it usable.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was sent since the last call, in order.
    #[must_use]
    pub fn take_sent(&self) -> Vec<(Tag, Vec<u8>)> {
        std::mem::take(&mut self.state().sent)
    }

    /// What the device dropped since the last call, in order.
    #[must_use]
    pub fn take_dropped(&self) -> Vec<Tag> {
        std::mem::take(&mut self.state().dropped)
    }

    /// Lets flushes take this many datagrams from now on; the rest waits.
    pub fn set_room(&self, datagrams: usize) {
        self.state().room = datagrams;
    }

    /// Makes the next datagrams that are flushed end as refused.
    pub fn refuse_next(&self, datagrams: usize) {
        self.state().refusals = datagrams;
    }

    /// Makes the next datagrams that are flushed end as dropped by the device.
    pub fn drop_next(&self, datagrams: usize) {
        self.state().drops = datagrams;
    }

    /// Makes every flush fail with this errno and take nothing, until `None`.
    pub fn set_flush_error(&self, errno: Option<i32>) {
        self.state().flush_error = errno;
    }

    /// Makes every push fail as if no slot were free.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Number of flushes so far.
    #[must_use]
    pub fn flushes(&self) -> usize {
        self.state().flushes
    }
}

struct MemoryEgress {
    handle: MemoryHandle,
    slots: usize,
    buffer: Vec<u8>,
    waiting: VecDeque<(Tag, Vec<u8>)>,
    settled: VecDeque<(Tag, Outcome)>,
    abandoned: bool,
}

impl Egress for MemoryEgress {
    fn kind(&self) -> EgressKind {
        EgressKind::Memory
    }

    fn slot_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn push(
        &mut self,
        tag: Tag,
        _mtu_bytes: u32,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<(), PushError> {
        if self.abandoned || self.handle.state().full || self.queued() >= self.slots {
            return Err(PushError::Full);
        }
        let len_bytes = fill(&mut self.buffer);
        let Some(datagram) = self.buffer.get(..len_bytes) else {
            return Err(PushError::TooLong { len_bytes, limit_bytes: self.buffer.len() });
        };
        self.waiting.push_back((tag, datagram.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut state = self.handle.state();
        state.flushes += 1;
        if let Some(errno) = state.flush_error {
            return Err(io::Error::from_raw_os_error(errno));
        }
        while state.room > 0
            && let Some((tag, datagram)) = self.waiting.pop_front()
        {
            state.room -= usize::from(state.room != usize::MAX);
            if state.refusals > 0 {
                state.refusals -= 1;
                self.settled.push_back((tag, Outcome::Refused));
            } else if state.drops > 0 {
                state.drops -= 1;
                state.dropped.push(tag);
                self.settled.push_back((tag, Outcome::Dropped));
            } else {
                state.sent.push((tag, datagram));
                self.settled.push_back((tag, Outcome::Sent));
            }
        }
        Ok(())
    }

    fn reap(&mut self, done: &mut dyn FnMut(Tag, Outcome)) {
        for (tag, outcome) in self.settled.drain(..) {
            done(tag, outcome);
        }
    }

    fn queued(&self) -> usize {
        self.waiting.len() + self.settled.len()
    }

    fn abandon(&mut self, fate: &mut dyn FnMut(Tag, Option<Outcome>)) {
        self.abandoned = true;
        self.reap(&mut |tag, outcome| fate(tag, Some(outcome)));
        for (tag, _) in self.waiting.drain(..) {
            fate(tag, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(egress: &mut dyn Egress, tag: u64) -> Result<(), PushError> {
        egress.push(Tag(tag), 1500, &mut |slot| {
            slot[0] = tag as u8;
            1
        })
    }

    fn reap(egress: &mut dyn Egress) -> Vec<(u64, Outcome)> {
        let mut told = Vec::new();
        egress.reap(&mut |tag, outcome| told.push((tag.0, outcome)));
        told
    }

    #[test]
    fn it_does_what_the_handle_says() {
        let (mut egress, handle) = open(3, 4);
        for tag in 0..3 {
            push(&mut *egress, tag).unwrap();
        }
        assert!(matches!(push(&mut *egress, 3), Err(PushError::Full)));
        handle.set_flush_error(Some(libc::ENETDOWN));
        assert_eq!(egress.flush().unwrap_err().raw_os_error(), Some(libc::ENETDOWN));
        handle.set_flush_error(None);
        handle.set_room(2);
        handle.refuse_next(1);
        egress.flush().unwrap();
        assert_eq!(handle.take_sent(), [(Tag(1), vec![1])]);
        assert_eq!(reap(&mut *egress), [(0, Outcome::Refused), (1, Outcome::Sent)]);
        handle.set_full(true);
        assert!(matches!(push(&mut *egress, 3), Err(PushError::Full)));
        handle.set_full(false);
        let long = egress.push(Tag(3), 1500, &mut |_| 5);
        assert!(matches!(long, Err(PushError::TooLong { len_bytes: 5, limit_bytes: 4 })));
        assert_eq!((egress.queued(), handle.flushes()), (1, 2));
        let mut unsent = Vec::new();
        egress.abandon(&mut |tag, outcome| unsent.push((tag.0, outcome)));
        assert_eq!((unsent, egress.queued()), (vec![(2, None)], 0));
        assert!(matches!(push(&mut *egress, 3), Err(PushError::Full)));
    }
}
