//! How one thread wakes another that may be about to sleep.
//!
//! The protocol, the same as between the programs and their sleeper (`bpf::sleeper`):
//!
//! * The sleeper *arms* the flag, then looks for work once more, and waits for
//!   the bell only if there is none.
//! * The waker first makes its work visible, then *takes* the flag, and rings the
//!   bell if it was armed.
//!
//! Both arm and take with a read-modify-write, which always sees the newest value: if
//! the waker takes the flag first, the sleeper's arming sees that and thereby the
//! work; else the waker sees that it is armed. Programs have no such operation
//! that every kernel takes; they read the flag after the full barrier of their commit.
//! The loom models below check that no wake-up is lost, in both variants.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

#[cfg(agent_loom)]
use loom::sync::atomic::{AtomicU32, Ordering};
use rustix::event::{EventfdFlags, eventfd};
#[cfg(not(agent_loom))]
use std::sync::atomic::{AtomicU32, Ordering};

/// The flag alone, without a bell.
#[derive(Debug)]
pub struct WakeFlag(AtomicU32);

impl Default for WakeFlag {
    fn default() -> Self {
        Self(AtomicU32::new(0))
    }
}

impl WakeFlag {
    /// Announces the sleep; the caller looks for work once more afterwards.
    pub fn arm(&self) {
        self.0.swap(1, Ordering::AcqRel);
    }

    /// Ends the sleep.
    pub fn disarm(&self) {
        self.0.store(0, Ordering::Release);
    }

    /// True if the sleeper must be woken; for exactly one of several wakers. The
    /// caller made its work visible before.
    pub fn take(&self) -> bool {
        self.0.swap(0, Ordering::AcqRel) != 0
    }
}

/// A [`WakeFlag`] with an eventfd as its bell.
#[derive(Debug)]
pub struct Waker {
    flag: WakeFlag,
    bell: OwnedFd,
}

impl Waker {
    /// Makes the eventfd.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { flag: WakeFlag::default(), bell })
    }

    /// See [`WakeFlag::arm`].
    pub fn arm(&self) {
        self.flag.arm();
    }

    /// Ends the sleep. The bell need not be silenced: it is waited for by edge.
    pub fn disarm(&self) {
        self.flag.disarm();
    }

    /// Wakes the sleeper if it sleeps; else costs no system call.
    pub fn wake(&self) {
        if self.flag.take() {
            // It can only fail when the counter is full, after 2^64 - 2 rings.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }
}

impl AsFd for Waker {
    /// To be waited on edge-triggered (`EPOLLET`): each ring of the bell is an edge.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(all(test, agent_loom))]
mod loom_tests {
    use loom::{
        sync::{Arc, Condvar, Mutex, atomic::AtomicU32},
        thread,
    };

    use super::*;

    /// What both sides share: the work, the flag, and a bell that remembers.
    struct Shared {
        work: AtomicU32,
        flag: WakeFlag,
        rung: Mutex<bool>,
        bell: Condvar,
    }

    impl Shared {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                work: AtomicU32::new(0),
                flag: WakeFlag::default(),
                rung: Mutex::new(false),
                bell: Condvar::new(),
            })
        }

        fn ring(&self) {
            *self.rung.lock().unwrap() = true;
            self.bell.notify_one();
        }

        /// Sleeps until `wanted` units of work were seen. A lost wake-up leaves
        /// the thread blocked for ever, which loom reports as a deadlock.
        fn consume(&self, wanted: u32) {
            let mut seen = 0;
            while seen < wanted {
                seen += self.work.swap(0, Ordering::Acquire);
                if seen >= wanted {
                    break;
                }
                self.flag.arm();
                if self.work.load(Ordering::Acquire) == 0 {
                    let mut rung = self.rung.lock().unwrap();
                    while !*rung {
                        rung = self.bell.wait(rung).unwrap();
                    }
                    *rung = false;
                }
                self.flag.disarm();
            }
        }
    }

    /// All interleavings with up to three preemptions; without a bound they do not end.
    fn check(model: impl Fn() + Sync + Send + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(model);
    }

    #[test]
    fn loom_no_wake_up_between_threads_is_lost() {
        check(|| {
            let shared = Shared::new();
            let waker = {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    for _ in 0..2 {
                        shared.work.fetch_add(1, Ordering::Release);
                        if shared.flag.take() {
                            shared.ring();
                        }
                    }
                })
            };
            shared.consume(2);
            waker.join().unwrap();
        });
    }

    #[test]
    fn loom_no_wake_up_by_a_program_is_lost() {
        check(|| {
            let shared = Shared::new();
            let programs: Vec<_> = (0..2)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        // The ring buffer's commit is an xchg, a full barrier, after
                        // which a read sees the newest value: in loom, one that modifies.
                        shared.work.fetch_add(1, Ordering::AcqRel);
                        if shared.flag.0.fetch_add(0, Ordering::AcqRel) != 0 {
                            shared.flag.0.store(0, Ordering::Relaxed);
                            shared.ring();
                        }
                    })
                })
                .collect();
            shared.consume(2);
            for program in programs {
                program.join().unwrap();
            }
        });
    }
}
