//! A second look into a BPF ring buffer: reads what its consumer has read or will read, and
//! releases nothing.
//!
//! What the consumer has released stays readable until the producers have gone once around;
//! so each item is copied, and it is checked afterwards whether it was overwritten meanwhile.
//! Layout and ordering: `kernel/bpf/ringbuf.c` (Linux 6.12).
#![allow(unsafe_code, reason = "the ring is memory shared with the kernel")]

use std::{
    io,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64, Ordering, fence},
};

use agent_common::{TEXT_AT_WHOLE, TEXT_ROOM_BYTES};
use rustix::mm::ProtFlags;

use super::mapping::Mapping;
use crate::capture::sequencer::RingItem;

const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// Room for the longest item of `RECORDS`.
pub const ITEM_BYTES: usize = TEXT_AT_WHOLE + TEXT_ROOM_BYTES;
const _: () = assert!(ITEM_BYTES.is_multiple_of(8));

/// What stands at the position of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// An item of so many bytes; the view has gone past it.
    Item(usize),
    /// Nothing that a reader should see: discarded, or longer than any record. The view has gone past it.
    Skipped,
    /// An item that is being written.
    Busy,
    /// The producers have not come further.
    End,
    /// The producers have overwritten it; the view has gone to where the consumer is.
    Overtaken,
}

/// See the module's description.
#[derive(Debug)]
pub struct RingView {
    consumer: Mapping,
    producer: Mapping,
    /// Inside of `producer`.
    data: NonNull<u8>,
    size_bytes: u64,
    position: u64,
}

// SAFETY: the mappings belong to this value alone and stay valid on any thread;
// what the kernel writes is read with atomic or volatile loads.
unsafe impl Send for RingView {}

impl RingView {
    /// Maps the ring behind `fd`, which holds `size_bytes` bytes, for reading alone.
    ///
    /// # Errors
    /// If `mmap` fails.
    pub fn new(fd: BorrowedFd<'_>, size_bytes: usize) -> io::Result<Self> {
        let page_bytes = rustix::param::page_size();
        let consumer = Mapping::new(fd, 0, page_bytes, ProtFlags::READ)?;
        let len_bytes = page_bytes + 2 * size_bytes;
        let producer = Mapping::new(fd, page_bytes as u64, len_bytes, ProtFlags::READ)?;
        // SAFETY: `producer` maps more than `page_bytes` bytes.
        let data = unsafe { producer.start().add(page_bytes) };
        Ok(Self { consumer, producer, data, size_bytes: size_bytes as u64, position: 0 })
    }

    /// Where the view stands.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Goes to a position that is the beginning of an item. One that was overwritten
    /// since is noticed by the next look.
    pub fn seek(&mut self, position: u64) {
        self.position = position;
    }

    /// What the consumer has released.
    #[must_use]
    pub fn consumer_position(&self) -> u64 {
        // SAFETY: the mapping lives as long as `self` and is page-aligned.
        unsafe { self.consumer.start().cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire)
    }

    /// Up to where producers have reserved space.
    #[must_use]
    pub fn producer_position(&self) -> u64 {
        // SAFETY: the mapping lives as long as `self` and is page-aligned.
        unsafe { self.producer.start().cast::<AtomicU64>().as_ref() }.load(Ordering::Acquire)
    }

    fn header(&self) -> u32 {
        let at = (self.position & (self.size_bytes - 1)) as usize;
        // SAFETY: `at` is below the ring's size, which is a power of two, positions are
        // multiples of 8, and the mapping lives as long as `self`.
        unsafe { (*self.data.as_ptr().add(at).cast::<AtomicU32>()).load(Ordering::Acquire) }
    }

    fn is_overtaken(&self, from: u64) -> bool {
        self.producer_position().wrapping_sub(from) > self.size_bytes
    }

    /// Whether no other item follows the next one.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.end_of_next() >= self.producer_position()
    }

    /// Position behind the next item, whose length is known even while it is being written.
    fn end_of_next(&self) -> u64 {
        let len_bytes = self.header() & !(BUSY | DISCARDED);
        RingItem::end_of(self.position, len_bytes)
    }

    /// Goes past the next item without reading it, even if it is being written. False at the end.
    pub fn skip(&mut self) -> bool {
        if self.is_overtaken(self.position) {
            self.position = self.consumer_position();
            return true;
        }
        if self.position >= self.producer_position() {
            return false;
        }
        self.position = self.end_of_next();
        true
    }

    /// Copies the next item.
    pub fn next(&mut self, into: &mut [u8; ITEM_BYTES]) -> Seen {
        let start = self.position;
        if self.is_overtaken(start) {
            self.position = self.consumer_position();
            return Seen::Overtaken;
        }
        if start >= self.producer_position() {
            return Seen::End;
        }
        let header = self.header();
        if header & BUSY != 0 {
            return Seen::Busy;
        }
        let len_bytes = (header & !DISCARDED) as usize;
        let at = (start & (self.size_bytes - 1)) as usize + RingItem::HEADER_BYTES as usize;
        let fits = len_bytes <= ITEM_BYTES && ITEM_BYTES < self.size_bytes as usize;
        if header & DISCARDED == 0 && fits {
            let (words, _) = into.as_chunks_mut::<8>();
            for (index, to) in words.iter_mut().take(len_bytes.div_ceil(8)).enumerate() {
                // SAFETY: an item begins in the first of two consecutive mappings of the data
                // and is at most as long as one; it is aligned to 8. The kernel may write there
                // meanwhile only if the view was overtaken, which is looked at below.
                let word =
                    unsafe { self.data.as_ptr().add(at + 8 * index).cast::<u64>().read_volatile() };
                *to = word.to_ne_bytes();
            }
        }
        fence(Ordering::Acquire);
        if self.is_overtaken(start) {
            self.position = self.consumer_position();
            return Seen::Overtaken;
        }
        self.position = RingItem::end_of(start, len_bytes as u32);
        if header & DISCARDED == 0 && fits { Seen::Item(len_bytes) } else { Seen::Skipped }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        os::{fd::AsFd as _, unix::fs::FileExt as _},
    };

    use super::*;

    /// A file laid out as the pages of a ring are: consumer, producer, data twice.
    struct Pages(File);

    impl Pages {
        const SIZE_BYTES: usize = 1 << 16;

        fn new() -> Self {
            let file = File::from(
                rustix::fs::memfd_create("ring", rustix::fs::MemfdFlags::empty()).unwrap(),
            );
            let len_bytes = 2 * rustix::param::page_size() + 2 * Self::SIZE_BYTES;
            file.set_len(len_bytes as u64).unwrap();
            Self(file)
        }

        fn item(&self, position: u64, flags: u32, data: &[u8]) {
            let at = 2 * rustix::param::page_size() as u64 + position;
            let header = (data.len() as u32 | flags).to_ne_bytes();
            self.0.write_all_at(data, at + RingItem::HEADER_BYTES).unwrap();
            self.0.write_all_at(&header, at).unwrap();
        }

        fn produced(&self, position: u64) {
            let at = rustix::param::page_size() as u64;
            self.0.write_all_at(&position.to_ne_bytes(), at).unwrap();
        }
    }

    #[test]
    fn an_item_that_is_being_written_is_known_to_be_the_last_one() {
        let pages = Pages::new();
        let mut view = RingView::new(pages.0.as_fd(), Pages::SIZE_BYTES).unwrap();
        let mut item = [0; ITEM_BYTES];
        assert!(matches!(view.next(&mut item), Seen::End));

        pages.item(0, BUSY, b"12345");
        pages.produced(16);
        assert!(matches!(view.next(&mut item), Seen::Busy) && view.is_last());
        // Another CPU is faster.
        pages.item(16, 0, b"abc");
        pages.produced(32);
        assert!(matches!(view.next(&mut item), Seen::Busy) && !view.is_last());
        assert!(view.skip() && view.is_last());
        assert!(matches!(view.next(&mut item), Seen::Item(3)));
        assert_eq!((&item[..3], view.position()), (&b"abc"[..], 32));

        view.seek(0);
        pages.item(0, DISCARDED, b"12345");
        assert!(matches!(view.next(&mut item), Seen::Skipped) && view.is_last());
    }
}
