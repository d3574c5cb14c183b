//! The map `LAST_WORDS`: how the programs say that the kernel panics, and how the agent says what
//! it has handed on meanwhile.
#![allow(unsafe_code, reason = "the words are memory shared with the programs")]

use std::{
    io,
    mem::offset_of,
    os::fd::BorrowedFd,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

use agent_common::{ARMED_BY_HOOK, ARMED_BY_PANIC_CPU, LastWords};
use rustix::mm::ProtFlags;

use super::mapping::Mapping;

/// See the module's description.
#[derive(Debug)]
pub struct Alarm {
    words: Mapping,
}

// SAFETY: all access goes through atomics, and the mapping lives as long as the value.
unsafe impl Sync for Alarm {}

/// A panic, as the programs saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panic {
    /// The CPU that panics.
    pub cpu: u32,
    /// What the ring `RECORDS` holds from here on was printed since.
    pub position: u64,
    /// `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// It was proved by the hook on the kernel's function, else by `panic_cpu`.
    pub by_hook: bool,
}

/// What the hold has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Lines that were held.
    pub lines: u64,
    /// Of them, those that went on without an acknowledgement.
    pub timed_out: u64,
    /// How long all were held together.
    pub spent: Duration,
}

impl Alarm {
    /// Maps the array map behind `fd`, whose one value is a [`LastWords`].
    ///
    /// # Errors
    /// If `mmap` fails.
    pub fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        Ok(Self { words: Mapping::new(fd, 0, rustix::param::page_size(), protection)? })
    }

    fn u64_at(&self, offset_bytes: usize) -> &AtomicU64 {
        // SAFETY: `offset_bytes` is that of a `u64` field of `LastWords`, which begins the
        // mapping and is aligned; both sides access it as a whole.
        unsafe { self.words.start().add(offset_bytes).cast::<AtomicU64>().as_ref() }
    }

    fn u32_at(&self, offset_bytes: usize) -> &AtomicU32 {
        // SAFETY: as above, of a `u32` field.
        unsafe { self.words.start().add(offset_bytes).cast::<AtomicU32>().as_ref() }
    }

    /// The panic under way, if there is one. One load as long as there is none.
    #[must_use]
    pub fn panic(&self) -> Option<Panic> {
        let word = self.u32_at(offset_of!(LastWords, panic_cpu_plus_one));
        let cpu = word.load(Ordering::Acquire).checked_sub(1)?;
        let number = |offset| self.u64_at(offset).load(Ordering::Relaxed);
        Some(Panic {
            cpu,
            position: number(offset_of!(LastWords, armed_position)),
            since_ns: number(offset_of!(LastWords, armed_ktime_ns)),
            by_hook: self.u32_at(offset_of!(LastWords, armed_by)).load(Ordering::Relaxed)
                == ARMED_BY_HOOK,
        })
    }

    /// Does what the programs do in a panic, but for the hold: for tests of those who speak then.
    pub fn raise(&self, panic: &Panic) {
        let by = if panic.by_hook { ARMED_BY_HOOK } else { ARMED_BY_PANIC_CPU };
        self.u32_at(offset_of!(LastWords, armed_by)).store(by, Ordering::Relaxed);
        let words = [
            (offset_of!(LastWords, armed_position), panic.position),
            (offset_of!(LastWords, armed_ktime_ns), panic.since_ns),
        ];
        words.iter().for_each(|(at, word)| self.u64_at(*at).store(*word, Ordering::Relaxed));
        let word = self.u32_at(offset_of!(LastWords, panic_cpu_plus_one));
        word.store(panic.cpu + 1, Ordering::Release);
    }

    /// What was acknowledged last.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.u64_at(offset_of!(LastWords, acked_position)).load(Ordering::Acquire)
    }

    /// It was none: the machine lives.
    pub fn disarm(&self) {
        // Nobody has noticed the next one.
        self.acknowledge(0);
        self.u32_at(offset_of!(LastWords, panic_cpu_plus_one)).store(0, Ordering::Release);
    }

    /// Says that everything before this position of the ring was handed to the network device.
    pub fn acknowledge(&self, position: u64) {
        self.u64_at(offset_of!(LastWords, acked_position)).store(position, Ordering::Release);
    }

    /// How long a line may wait for the agent to hand on something more, and all lines together.
    pub fn set_limits(&self, hold: Duration, budget: Duration) {
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.u64_at(offset_of!(LastWords, hold_ns)).store(ns(hold), Ordering::Relaxed);
        self.u64_at(offset_of!(LastWords, budget_ns)).store(ns(budget), Ordering::Relaxed);
    }

    /// Where the kernel keeps `panic_cpu`.
    pub fn set_panic_cpu_address(&self, address: u64) {
        self.u64_at(offset_of!(LastWords, panic_cpu_address)).store(address, Ordering::Relaxed);
    }

    /// What the hold has cost.
    #[must_use]
    pub fn held(&self) -> Held {
        let number = |offset| self.u64_at(offset).load(Ordering::Relaxed);
        Held {
            lines: number(offset_of!(LastWords, held)),
            timed_out: number(offset_of!(LastWords, timed_out)),
            spent: Duration::from_nanos(number(offset_of!(LastWords, spent_ns))),
        }
    }
}
