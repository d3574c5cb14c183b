//! The sleeper's flag and the doorbell: how a program wakes a thread.
//!
//! The protocol, which `capture::wake` models under loom:
//!
//! * The sleeper writes 1 into the flag, puts a full barrier, looks for work once
//!   more, and waits for the doorbell only if there is none.
//! * A program commits its record (an `xchg`, which is a full barrier), then reads the flag;
//!   on 1 it writes 0 and rings.
//!
//! Whoever comes second sees what the other wrote, so no wake-up is lost. The
//! doorbell is a ring buffer of its own: readiness of a ring is "not empty", and
//! the ring of records may already be empty when the sleeper is asked.
#![allow(unsafe_code, reason = "the flag is memory shared with the programs")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering, fence},
};

use agent_common::Sleeper;
use rustix::mm::ProtFlags;

use super::{mapping::Mapping, ring::MappedRing};
use crate::capture::sequencer::RecordRing;

/// The mapped word of the map `SLEEPER`.
#[derive(Debug)]
pub struct SleeperFlag {
    word: Mapping,
}

impl SleeperFlag {
    /// Maps the array map behind `fd`, whose one value is a [`Sleeper`].
    ///
    /// # Errors
    /// If `mmap` fails.
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        Ok(Self { word: Mapping::new(fd, 0, rustix::param::page_size(), protection)? })
    }

    fn asleep(&self) -> &AtomicU32 {
        // SAFETY: the mapping lives as long as `self`; the field is an aligned
        // u32 that both sides access as a whole.
        unsafe {
            AtomicU32::from_ptr(&raw mut (*self.word.start().cast::<Sleeper>().as_ptr()).asleep)
        }
    }

    /// Announces the sleep; whoever calls it looks for work once more afterwards.
    pub fn arm(&self) {
        // A full barrier towards the look for work that follows, as programs have
        // one between their record and their look at the flag.
        self.asleep().swap(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Ends the sleep: programs do not ring any more.
    pub fn disarm(&self) {
        self.asleep().store(0, Ordering::SeqCst);
    }
}

/// The waiting side of the map `DOORBELL`, with the flag that arms it.
#[derive(Debug)]
pub struct Doorbell {
    fd: OwnedFd,
    ring: MappedRing,
    flag: SleeperFlag,
}

impl Doorbell {
    /// Joins the doorbell's ring (of `ring_bytes` bytes) and the flag.
    ///
    /// # Errors
    /// If the descriptors cannot be duplicated or mapped.
    pub fn new(ring: BorrowedFd<'_>, ring_bytes: usize, flag: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self {
            fd: ring.try_clone_to_owned()?,
            ring: MappedRing::new(ring, ring_bytes)?,
            flag: SleeperFlag::new(flag)?,
        })
    }

    /// See [`SleeperFlag::arm`].
    pub fn arm(&self) {
        self.flag.arm();
    }

    /// Ends the sleep and empties the doorbell, so that the next wait blocks.
    pub fn disarm(&mut self) {
        self.flag.disarm();
        while let Some(ring) = self.ring.next() {
            self.ring.release(ring.end());
        }
    }
}

impl AsFd for Doorbell {
    /// Readable once the doorbell was rung.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
