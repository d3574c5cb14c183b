//! The user's ends of the TX ring and the completion ring.
//!
//! Single producer, single consumer rings in memory shared with the kernel
//! (`net/xdp/xsk_queue.h`, "The structure of the shared state of the rings"):
//! whoever writes an entry publishes it by a release store of the producer
//! index, whoever reads it gives it back by a release store of the consumer
//! index, and each reads the other's index with acquire. Indices run freely and
//! are cut by the mask. Nothing that the kernel wrote is trusted.
//!
//! These types know indices and entries, not frames: `queue` does.

#![allow(unsafe_code, reason = "rings are raw memory shared with the kernel")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::io::{self, Errno};
use rustix::net::xdp::{XdpDesc, XdpDescOptions, XdpRingFlags};

use super::sys::Area;

/// Where the parts of a ring lie in its memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingLayout {
    pub(super) producer: usize,
    pub(super) consumer: usize,
    pub(super) flags: Option<usize>,
    pub(super) entries: usize,
    /// Number of entries, a power of two.
    pub(super) count: u32,
}

/// # Safety
/// Every pattern of bits must be a valid value.
unsafe trait Entry: Copy {}
// SAFETY: a plain integer.
unsafe impl Entry for u64 {}
// SAFETY: integers only; `XdpDescOptions` is a transparent `u32` in which
// bitflags allows unknown bits.
unsafe impl Entry for XdpDesc {}

struct Ring<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: Option<NonNull<AtomicU32>>,
    entries: NonNull<T>,
    mask: u32,
    /// Keeps the memory that the pointers lead to.
    _area: Area,
}

// SAFETY: the pointers lead into the `Area` that is moved along.
unsafe impl<T: Send> Send for Ring<T> {}

impl<T: Entry> Ring<T> {
    /// Lays a ring over `area`.
    ///
    /// # Errors
    /// `EPROTO` if the layout does not fit the memory.
    fn new(area: Area, layout: RingLayout) -> io::Result<Self> {
        let base = area.base();
        let within = |offset: usize, len: usize, align: usize| {
            let end = offset.checked_add(len).ok_or(Errno::PROTO)?;
            let aligned = (base.as_ptr() as usize).wrapping_add(offset).is_multiple_of(align);
            if end > area.len_bytes() || !aligned {
                return Err(Errno::PROTO);
            }
            // SAFETY: the offset lies within the area, as was just checked.
            Ok(unsafe { base.add(offset) })
        };
        if !layout.count.is_power_of_two() {
            return Err(Errno::PROTO);
        }
        let index = |offset| {
            within(offset, size_of::<AtomicU32>(), align_of::<AtomicU32>())
                .map(NonNull::cast::<AtomicU32>)
        };
        let entries_bytes =
            size_of::<T>().checked_mul(layout.count as usize).ok_or(Errno::PROTO)?;
        Ok(Self {
            producer: index(layout.producer)?,
            consumer: index(layout.consumer)?,
            flags: layout.flags.map(index).transpose()?,
            entries: within(layout.entries, entries_bytes, align_of::<T>())?.cast(),
            mask: layout.count - 1,
            _area: area,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: `new` checked bounds and alignment, the area lives as long as
        // `self`, and both sides use the word atomically only.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as in `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: `new` checked that `mask + 1` entries lie in the area.
        unsafe { self.entries.add((index & self.mask) as usize) }
    }
}

/// The producer's end of the TX ring.
pub struct TxRing {
    ring: Ring<XdpDesc>,
    /// Index of the next entry to write.
    produced: u32,
    /// What the kernel was told.
    published: u32,
}

impl TxRing {
    pub(super) fn new(area: Area, layout: RingLayout) -> io::Result<Self> {
        let ring = Ring::new(area, layout)?;
        let produced = ring.producer().load(Ordering::Relaxed);
        Ok(Self { ring, produced, published: produced })
    }

    /// Number of entries.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        // `new` saw a count that fits.
        self.ring.mask + 1
    }

    /// Index that the next descriptor gets.
    #[must_use]
    pub fn produced(&self) -> u32 {
        self.produced
    }

    /// Index behind the last descriptor that the kernel may read.
    #[must_use]
    pub fn published(&self) -> u32 {
        self.published
    }

    /// Writes a descriptor; the kernel sees it after [`TxRing::publish`]. The
    /// caller keeps count: at most [`TxRing::capacity`] are not consumed yet.
    ///
    /// Any address is sound here: in a memory without receive rings the kernel
    /// only reads, and it checks addresses itself.
    pub fn write(&mut self, addr: u64, len_bytes: u32) {
        let descriptor = XdpDesc { addr, len: len_bytes, options: XdpDescOptions::empty() };
        // SAFETY: `entry` is within the ring, and only this end writes entries
        // that the kernel was not told of.
        unsafe { self.ring.entry(self.produced).write(descriptor) };
        self.produced = self.produced.wrapping_add(1);
    }

    /// Shows the kernel what was written.
    pub fn publish(&mut self) {
        if self.published != self.produced {
            // Release: descriptors and frames are visible before the index.
            self.ring.producer().store(self.produced, Ordering::Release);
            self.published = self.produced;
        }
    }

    /// Index of the first descriptor that the kernel has not consumed, as far
    /// as it has told. It may lag behind (`__xsk_generic_xmit` publishes it
    /// only if a frame of the batch was sent).
    #[must_use]
    pub fn consumed(&self) -> u32 {
        // Acquire: an entry is written anew only after the kernel read it.
        self.ring.consumer().load(Ordering::Acquire)
    }

    /// Whether the kernel transmits only after a system call.
    #[must_use]
    pub fn needs_wakeup(&self) -> bool {
        // SAFETY: as in `Ring::producer`.
        self.ring.flags.is_none_or(|flags| unsafe {
            flags.as_ref().load(Ordering::Relaxed) & XdpRingFlags::XDP_RING_NEED_WAKEUP.bits() != 0
        })
    }
}

/// The consumer's end of the completion ring.
pub struct CompletionRing {
    ring: Ring<u64>,
    taken: u32,
}

impl CompletionRing {
    pub(super) fn new(area: Area, layout: RingLayout) -> io::Result<Self> {
        let ring = Ring::new(area, layout)?;
        let taken = ring.consumer().load(Ordering::Relaxed);
        Ok(Self { ring, taken })
    }

    /// Hands every address that the kernel gave back to `each`, in its order,
    /// and returns their number.
    pub fn drain(&mut self, mut each: impl FnMut(u64)) -> u32 {
        // Acquire: entries are visible once the index is, and the kernel does
        // not touch a frame after it gave it back.
        let filled = self.ring.producer().load(Ordering::Acquire).wrapping_sub(self.taken);
        if filled == 0 || filled > self.ring.mask + 1 {
            // More than the ring holds cannot be: believe none of it.
            return 0;
        }
        for _ in 0..filled {
            // SAFETY: `entry` is within the ring, and the kernel does not write
            // entries between its consumer and its producer index.
            each(unsafe { self.ring.entry(self.taken).read() });
            self.taken = self.taken.wrapping_add(1);
        }
        // Release: entries are read before the kernel may overwrite them.
        self.ring.consumer().store(self.taken, Ordering::Release);
        filled
    }
}

/// The kernel's ends, for the simulated kernel of the tests.
#[cfg(test)]
pub(super) mod kernel_end {
    use super::*;

    /// Both indices and the entries of a ring, seen from the other side.
    pub(in crate::egress::xdp) struct KernelEnd<T> {
        producer: NonNull<AtomicU32>,
        consumer: NonNull<AtomicU32>,
        entries: NonNull<T>,
        mask: u32,
    }

    // SAFETY: the tests keep the ring alive as long as its kernel's end.
    unsafe impl<T> Send for KernelEnd<T> {}

    impl<T: Copy> KernelEnd<T> {
        pub(in crate::egress::xdp) fn producer(&self) -> &AtomicU32 {
            // SAFETY: see `Send` above.
            unsafe { self.producer.as_ref() }
        }

        pub(in crate::egress::xdp) fn consumer(&self) -> &AtomicU32 {
            // SAFETY: see `Send` above.
            unsafe { self.consumer.as_ref() }
        }

        pub(in crate::egress::xdp) fn read(&self, index: u32) -> T {
            // SAFETY: within the ring; the caller looked at the producer index.
            unsafe { self.entries.add((index & self.mask) as usize).read() }
        }

        pub(in crate::egress::xdp) fn write(&self, index: u32, value: T) {
            // SAFETY: within the ring; the caller looked at the consumer index.
            unsafe { self.entries.add((index & self.mask) as usize).write(value) }
        }

        pub(in crate::egress::xdp) fn capacity(&self) -> u32 {
            self.mask + 1
        }
    }

    impl<T> Ring<T> {
        fn kernel_end(&self) -> KernelEnd<T> {
            KernelEnd {
                producer: self.producer,
                consumer: self.consumer,
                entries: self.entries,
                mask: self.mask,
            }
        }
    }

    /// Rings in plain memory; `first` is where their indices start.
    pub(in crate::egress::xdp) fn rings(
        count: u32,
        first: u32,
    ) -> (TxRing, CompletionRing, KernelEnd<XdpDesc>, KernelEnd<u64>) {
        let layout =
            RingLayout { producer: 0, consumer: 64, flags: Some(128), entries: 192, count };
        let area = |entry_bytes: usize| {
            let area = Area::heap(192 + entry_bytes * count as usize);
            for (offset, value) in [(0, first), (64, first), (128, 1)] {
                // SAFETY: the area is larger than that and aligned to 8 bytes.
                unsafe { area.base().add(offset).cast::<u32>().write(value) };
            }
            area
        };
        let tx = TxRing::new(area(size_of::<XdpDesc>()), layout).unwrap();
        let completions = CompletionRing::new(area(size_of::<u64>()), layout).unwrap();
        let (tx_end, completion_end) = (tx.ring.kernel_end(), completions.ring.kernel_end());
        (tx, completions, tx_end, completion_end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_outside_of_the_memory_is_refused() {
        let good =
            RingLayout { producer: 0, consumer: 64, flags: Some(128), entries: 192, count: 4 };
        let ring = |layout| Ring::<u64>::new(Area::heap(192 + 32), layout).map(drop);
        assert_eq!(ring(good), Ok(()));
        for bad in [
            RingLayout { producer: 224, ..good },
            RingLayout { consumer: 2, ..good },
            RingLayout { flags: Some(usize::MAX), ..good },
            RingLayout { entries: 196, ..good },
            RingLayout { count: 8, ..good },
            RingLayout { count: 3, ..good },
            RingLayout { count: 0, ..good },
        ] {
            assert_eq!(ring(bad), Err(Errno::PROTO), "{bad:?}");
        }
    }

    #[test]
    fn a_completion_index_that_cannot_be_is_not_believed() {
        let (_tx, mut completions, _, kernel) = kernel_end::rings(4, u32::MAX);
        kernel.producer().store(4, Ordering::Release);
        assert_eq!(completions.drain(|_| panic!("5 of 4 entries")), 0);
        kernel.write(u32::MAX, 7);
        kernel.write(0, 8);
        kernel.producer().store(1, Ordering::Release);
        let mut seen = Vec::new();
        assert_eq!(completions.drain(|addr| seen.push(addr)), 2);
        assert_eq!(seen, [7, 8]);
        assert_eq!(kernel.consumer().load(Ordering::Acquire), 1);
    }
}
