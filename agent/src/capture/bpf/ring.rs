//! The consumer side of a BPF ring buffer.
//!
//! Unlike the one in aya it reads ahead: an item stays valid until it is
//! released, so that a half-known record waits in the ring itself and is copied
//! once. Layout and ordering: `kernel/bpf/ringbuf.c` (Linux 6.12), `libbpf/src/ringbuf.c`.
#![allow(unsafe_code, reason = "the ring is memory shared with the kernel")]

use std::{
    cell::Cell,
    io,
    num::NonZeroU32,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use rustix::mm::ProtFlags;

use super::mapping::Mapping;
use crate::capture::sequencer::{RecordRing, RingItem};

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// A mapped BPF ring buffer with its one consumer.
#[derive(Debug)]
pub struct MappedRing {
    consumer: Mapping,
    producer: Mapping,
    /// Inside of `producer`.
    data: NonNull<u8>,
    size_bytes: usize,
    /// Next position to look at.
    ahead: u64,
    /// Everything before was given back to the producers.
    released: u64,
    /// The producers' position when it was last looked at. Each look takes the cache
    /// line from the CPU that prints, so there is one for a batch, not for each item.
    seen_producer: Cell<u64>,
}

// SAFETY: the mapping belongs to this value alone and stays valid on any thread;
// what the kernel writes is read with acquire loads.
unsafe impl Send for MappedRing {}

impl MappedRing {
    /// Maps the ring behind `fd`, which holds `size_bytes` bytes.
    ///
    /// # Errors
    /// If `size_bytes` is not a power of two or `mmap` fails.
    pub fn new(fd: BorrowedFd<'_>, size_bytes: usize) -> io::Result<Self> {
        if !size_bytes.is_power_of_two() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "ring size is no power of two",
            ));
        }
        let page_bytes = rustix::param::page_size();
        let consumer = Mapping::new(fd, 0, page_bytes, ProtFlags::READ | ProtFlags::WRITE)?;
        // The data area is mapped twice in a row, so an item that wraps is contiguous.
        let producer =
            Mapping::new(fd, page_bytes as u64, page_bytes + 2 * size_bytes, ProtFlags::READ)?;
        // SAFETY: `producer` maps `page_bytes + 2 * size_bytes` bytes.
        let data = unsafe { producer.start().add(page_bytes) };
        let mut ring = Self {
            consumer,
            producer,
            data,
            size_bytes,
            ahead: 0,
            released: 0,
            seen_producer: Cell::new(0),
        };
        ring.released = ring.consumer().load(Ordering::Acquire);
        ring.ahead = ring.released;
        Ok(ring)
    }

    fn consumer(&self) -> &AtomicU64 {
        // SAFETY: the mapping lives as long as `self` and is page-aligned.
        unsafe { self.consumer.start().cast().as_ref() }
    }

    /// Position up to which producers have reserved space.
    #[must_use]
    pub fn producer_position(&self) -> u64 {
        // SAFETY: the mapping lives as long as `self` and is page-aligned.
        unsafe { self.producer.start().cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire)
    }

    /// Position before which everything was given back to the producers.
    #[must_use]
    pub fn released(&self) -> u64 {
        self.released
    }

    /// Bytes that the ring holds.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Bytes that are reserved or written and not given back. It takes the cache line from the CPU
    /// that prints.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.producer_position().saturating_sub(self.released)
    }

    fn header(&self, position: u64) -> &AtomicU32 {
        let at = (position as usize) & (self.size_bytes - 1);
        // SAFETY: `at` is below `size_bytes`, positions are multiples of 8, and
        // the mapping lives as long as `self`.
        unsafe { &*self.data.as_ptr().add(at).cast::<AtomicU32>() }
    }
}

impl RecordRing for MappedRing {
    fn next(&mut self) -> Option<RingItem> {
        loop {
            if !self.ready() {
                // A producer wakes a waiter only if it sees that everything before
                // its record was released; so what was released must be visible
                // before the ring is believed to be empty.
                fence(Ordering::SeqCst);
                if !self.ready() {
                    return None;
                }
            }
            let header = self.header(self.ahead).load(Ordering::Acquire);
            let len_bytes = header & !(BUSY | DISCARDED);
            let start = self.ahead;
            self.ahead = RingItem::end_of(start, len_bytes);
            if let Some(len_bytes) = NonZeroU32::new(len_bytes)
                && header & DISCARDED == 0
            {
                return Some(RingItem { start, len_bytes });
            }
        }
    }

    fn pending(&self) -> bool {
        if self.ahead >= self.seen_producer.get() {
            self.seen_producer.set(self.producer_position());
        }
        self.ahead < self.seen_producer.get()
    }

    fn is_crowded(&self) -> bool {
        self.ahead - self.released > self.size_bytes as u64 / 2
    }

    fn is_filling(&self) -> bool {
        self.ahead - self.released > self.size_bytes as u64 / 8
    }

    fn ready(&self) -> bool {
        self.pending() && self.header(self.ahead).load(Ordering::Acquire) & BUSY == 0
    }

    fn bytes(&self, item: RingItem) -> &[u8] {
        let RingItem { start, len_bytes } = item;
        let end = item.end();
        let whole =
            start >= self.released && end <= self.ahead && end - start <= self.size_bytes as u64;
        if !whole {
            return &[];
        }
        let at = (start as usize) & (self.size_bytes - 1);
        // SAFETY: the item was committed (seen by `next`) and is not released, so
        // the kernel does not write there; it is at most `size_bytes` long and
        // begins in the first of two consecutive mappings of the data area.
        unsafe {
            std::slice::from_raw_parts(
                self.data.as_ptr().add(at + RingItem::HEADER_BYTES as usize),
                len_bytes.get() as usize,
            )
        }
    }

    fn release(&mut self, end: u64) {
        if end > self.released && end <= self.ahead {
            self.released = end;
            self.consumer().store(end, Ordering::Release);
        }
    }
}
