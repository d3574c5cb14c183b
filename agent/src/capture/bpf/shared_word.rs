//! One number in a mapped file: written by a plain store, and there for whoever comes after this
//! process, however it ends.
#![allow(unsafe_code, reason = "a mapped file is raw memory")]

use std::{fs::File, io, os::fd::AsFd as _, sync::atomic::AtomicU64};

use rustix::mm::ProtFlags;

use super::mapping::Mapping;

/// See the module's description.
#[derive(Debug)]
pub struct SharedWord {
    mapping: Mapping,
    at_bytes: usize,
}

impl SharedWord {
    /// Maps the number that stands `at_bytes` bytes behind the beginning of the file, which must be
    /// a multiple of 8. Nobody may make the file shorter as long as the value lives: the process
    /// would die of SIGBUS.
    ///
    /// # Errors
    /// If the file has no such place, or cannot be mapped.
    pub fn map(file: &File, at_bytes: usize) -> io::Result<Self> {
        let len_bytes = at_bytes + size_of::<u64>();
        if !at_bytes.is_multiple_of(align_of::<AtomicU64>())
            || file.metadata()?.len() < len_bytes as u64
        {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        let mapping = Mapping::new(file.as_fd(), 0, len_bytes, protection)?;
        Ok(Self { mapping, at_bytes })
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> &AtomicU64 {
        // SAFETY: the mapping is readable and writable, longer than the number's end and page
        // aligned, so the number is aligned too; it lives as long as `self`, and is only ever
        // used as an atomic.
        unsafe { self.mapping.start().add(self.at_bytes).cast::<AtomicU64>().as_ref() }
    }
}
