//! The one wait of a thread of the data path: the pump, or the `/dev/kmsg` thread.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
};

use rustix::{
    event::{Timespec, epoll},
    io::Errno,
    time::{ClockId, clock_gettime},
};

use super::{bpf::Doorbell, wake::Waker};

/// `CLOCK_MONOTONIC` in nanoseconds, the clock of `bpf_ktime_get_ns`.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Makes the thread's naps as short as asked for, instead of up to 50 µs longer.
pub fn want_precise_naps() {
    // Without it the thread works, only later by the timer's slack.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// An epoll over the waker's bell and the programs' doorbell, both by edge, so
/// that nothing has to be read afterwards.
pub struct Waiter {
    epoll: OwnedFd,
    waker: Arc<Waker>,
    doorbell: Option<Doorbell>,
}

impl Waiter {
    /// Joins what can ring.
    ///
    /// # Errors
    /// If the process has no descriptor left.
    pub fn new(waker: Arc<Waker>, doorbell: Option<Doorbell>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &*waker, epoll::EventData::new_u64(0), edge)?;
        if let Some(doorbell) = &doorbell {
            epoll::add(&epoll, doorbell, epoll::EventData::new_u64(1), edge)?;
        }
        Ok(Self { epoll, waker, doorbell })
    }

    /// Also ends a sleep while `source` is readable.
    ///
    /// # Errors
    /// If the descriptor cannot be waited for.
    pub fn also_while_readable(&self, source: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, epoll::EventData::new_u64(2), epoll::EventFlags::IN)?)
    }

    /// Sleeps until somebody rings, at most `timeout_ns`. Returns at once if
    /// there is `work` after the sleep was announced. True if somebody rang.
    pub fn sleep(&mut self, timeout_ns: u64, work: impl FnOnce() -> bool) -> bool {
        self.waker.arm();
        if let Some(doorbell) = &self.doorbell {
            doorbell.arm();
        }
        let rang = !work() && self.wait(timeout_ns);
        self.waker.disarm();
        if let Some(doorbell) = &mut self.doorbell {
            doorbell.disarm();
        }
        rang
    }

    /// Sleeps without being woken by new work, except by an old ring of the bell.
    pub fn nap(&self, timeout_ns: u64) {
        self.wait(timeout_ns);
    }

    fn wait(&self, timeout_ns: u64) -> bool {
        let timeout = Timespec {
            tv_sec: (timeout_ns / 1_000_000_000) as _,
            tv_nsec: (timeout_ns % 1_000_000_000) as _,
        };
        let mut events = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 2];
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(count) => count > 0,
            Err(Errno::INTR) => false,
            Err(_) => {
                // Not there or forbidden (epoll_pwait2 came with 5.11): a wait that
                // nobody can end is better than none.
                std::thread::sleep(std::time::Duration::from_nanos(timeout_ns.min(1_000_000)));
                false
            }
        }
    }
}
