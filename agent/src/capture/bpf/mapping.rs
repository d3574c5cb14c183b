//! Memory of an eBPF map or of a file, mapped for as long as the value lives.
#![allow(unsafe_code, reason = "the memory is shared with the kernel")]

use std::{io, os::fd::BorrowedFd, ptr::NonNull};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A shared mapping; says nothing of what lies there.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the mapping belongs to this value alone and stays valid on any thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len_bytes` bytes of `fd` from `offset` on.
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        offset: u64,
        len_bytes: usize,
        protection: ProtFlags,
    ) -> io::Result<Self> {
        // SAFETY: a fresh mapping of kernel memory; no Rust object lives there.
        let start = unsafe {
            mmap(std::ptr::null_mut(), len_bytes, protection, MapFlags::SHARED, fd, offset)?
        };
        let start = NonNull::new(start.cast())
            .ok_or_else(|| io::Error::other("mmap returned address 0"))?;
        Ok(Self { start, len_bytes })
    }

    /// Its first byte; page-aligned, and valid for the mapping's length.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; its owner holds no reference into it any more.
        unsafe {
            let _ = munmap(self.start.as_ptr().cast(), self.len_bytes);
        }
    }
}
