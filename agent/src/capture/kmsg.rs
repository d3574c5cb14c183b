//! `/dev/kmsg`: the reader, and the thread that reads it for the pump.
//!
//! It gives every record whole except for the printing context, and it is the
//! only way to what was logged before the agent ran. Format: `Documentation/ABI/testing/dev-kmsg`;
//! code: `devkmsg_read` in `kernel/printk/printk.c`.

use std::{
    io,
    ops::Range,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rtrb::Producer;
use rustix::{
    fs::{Mode, OFlags, SeekFrom, open},
    io::Errno,
};

use super::{
    bpf::Doorbell,
    kmsg_record::KmsgRecord,
    wait::{Waiter, want_precise_naps},
    wake::Waker,
};
use crate::netconsole::{decode::parse_record, format::record_limit_bytes};

/// The device.
pub const PATH: &str = "/dev/kmsg";
/// Longest record that a kernel shows (`CONSOLE_EXT_LOG_MAX`, before 6.3); with a
/// shorter buffer the read fails.
const LINE_MAX_BYTES: usize = 8192;
/// Records between the thread and the pump. When the queue is full the thread
/// stops reading, and the kernel's own buffer is the queue.
pub const QUEUE_RECORDS: usize = 1024;
/// Reading this many records in one go means a storm: then the thread naps
/// instead of being rung for each record.
const STORM_RECORDS: usize = 32;
/// Length of that nap, and of the wait for room in the queue. At full speed two
/// CPUs fill a buffer of 128 KiB in about a millisecond.
const STORM_NAP_NS: u64 = 150_000;
/// Length of a nap while the ring alone tells everything. In it the ring must tell as many records
/// as make a storm.
const SPARED_NAP_NS: u64 = 1_000_000;
/// The first look after something happened. The programs run before the record
/// is committed, so the thread may be rung, look, and find nothing yet.
const FIRST_LOOK_NS: u64 = 40_000;
/// Each look without news makes the next one this much later.
const LOOK_FACTOR: u64 = 4;
/// The slowest look.
const IDLE_LOOK_NS: u64 = 200_000_000;
/// How long a thread sleeps that has nothing to read, unless it is woken. Its turns are its sign of
/// life: it must be well below half of any useful time of a watchdog.
const REST_NS: u64 = 250_000_000;

/// Why `/dev/kmsg` cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum KmsgError {
    /// It cannot be opened.
    #[error("cannot open {PATH}: {0}{remedy}", remedy = remedy(*.0))]
    Open(Errno),
    /// It cannot be read.
    #[error("cannot read {PATH}: {0}")]
    Read(Errno),
    /// There is an end of it, which the kernel's log has not.
    #[error("{PATH} has ended: it is not the kernel's log (is something else mounted there?)")]
    Ended,
    /// The thread cannot wait for it.
    #[error("cannot wait for {PATH}: {0}")]
    Wait(#[from] io::Error),
}

fn remedy(errno: Errno) -> &'static str {
    match errno {
        Errno::PERM | Errno::ACCESS => {
            " (kernel.dmesg_restrict=1 asks for CAP_SYSLOG; run as root or give the service that capability)"
        }
        Errno::NOENT | Errno::NODEV | Errno::NXIO => {
            " (the kernel needs CONFIG_PRINTK=y and a populated /dev)"
        }
        _ => "",
    }
}

/// What one read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// A record, now in [`KmsgReader::record`].
    Record,
    /// Nothing is there now.
    End,
    /// The kernel overwrote what came next; the following read goes on behind it.
    Overwritten,
    /// Bytes that are no record, which should not happen; they are passed over.
    Malformed,
}

/// An open `/dev/kmsg`, read without blocking.
pub struct KmsgReader {
    fd: OwnedFd,
    line: Box<[u8; LINE_MAX_BYTES]>,
    unescaped: Box<[u8; LINE_MAX_BYTES]>,
    /// Where this kernel cuts the lines that it shows.
    record_limit_bytes: usize,
    record: Box<KmsgRecord>,
}

impl KmsgReader {
    /// Opens the device; the first read gives the oldest record the kernel has.
    ///
    /// # Errors
    /// [`KmsgError::Open`], with the remedy.
    pub fn open() -> Result<Self, KmsgError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(Self::of(open(PATH, flags, Mode::empty()).map_err(KmsgError::Open)?))
    }

    fn of(fd: OwnedFd) -> Self {
        Self {
            fd,
            line: Box::new([0; LINE_MAX_BYTES]),
            unescaped: Box::new([0; LINE_MAX_BYTES]),
            record_limit_bytes: record_limit_bytes(rustix::system::uname().release().to_bytes()),
            record: Box::default(),
        }
    }

    /// The record of the last read.
    #[must_use]
    pub fn record(&self) -> &KmsgRecord {
        &self.record
    }

    /// Reads one record.
    ///
    /// # Errors
    /// [`KmsgError::Read`] for what will not pass by itself, [`KmsgError::Ended`].
    pub fn read(&mut self) -> Result<Read, KmsgError> {
        match rustix::io::read(&self.fd, &mut self.line[..]) {
            Ok(0) => Err(KmsgError::Ended),
            Ok(len_bytes) => {
                let line = &self.line[..len_bytes];
                let parsed = parse_record(line, self.record_limit_bytes, &mut self.unescaped[..]);
                Ok(parsed.map_or(Read::Malformed, |record| {
                    self.record.set(&record);
                    Read::Record
                }))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Read::End),
            Err(Errno::PIPE) => Ok(Read::Overwritten),
            Err(errno) => Err(KmsgError::Read(errno)),
        }
    }

    /// Goes back to the oldest record that the kernel has.
    ///
    /// # Errors
    /// [`KmsgError::Read`].
    pub fn rewind(&mut self) -> Result<(), KmsgError> {
        // `devkmsg_llseek`: SEEK_SET with 0 is the only way back there is.
        rustix::fs::seek(&self.fd, SeekFrom::Start(0)).map_err(KmsgError::Read)?;
        Ok(())
    }

    /// Reads to the end of what is there now.
    ///
    /// # Errors
    /// [`KmsgError::Read`].
    pub fn skip_to_end(&mut self) -> Result<Skipped, KmsgError> {
        let mut skipped = Skipped::default();
        loop {
            match self.read()? {
                Read::Record => {
                    skipped.oldest_seq.get_or_insert(self.record.seq);
                    skipped.next_seq = self.record.seq + 1;
                    skipped.shows_caller |= self.record.caller.is_some();
                }
                Read::End => return Ok(skipped),
                Read::Overwritten | Read::Malformed => {}
            }
        }
    }
}

impl AsFd for KmsgReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// What was in the kernel's buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// The seq of the first record read.
    pub oldest_seq: Option<u64>,
    /// The seq of the next record.
    pub next_seq: u64,
    /// The kernel shows `caller=` (`CONFIG_PRINTK_CALLER`).
    pub shows_caller: bool,
}

/// What the thread is to read: everything, or only what the pump asks for; and how far it is.
#[derive(Debug)]
pub struct Wanted {
    /// Nothing before this seq is passed on.
    from_seq: AtomicU64,
    /// It is read until a record with at least this seq was passed on.
    until_seq: AtomicU64,
    /// What the thread reads next, at least.
    at_seq: AtomicU64,
    /// Records that the pump has settled without what is read here.
    spared: AtomicU64,
}

impl Wanted {
    /// Everything from `from_seq` on.
    #[must_use]
    pub fn all_from(from_seq: u64) -> Self {
        Self::until(from_seq, u64::MAX)
    }

    /// What is there from `from_seq` on, up to and with the first record that has at least
    /// `until_seq`.
    #[must_use]
    pub fn until(from_seq: u64, until_seq: u64) -> Self {
        Self {
            from_seq: AtomicU64::new(from_seq),
            until_seq: AtomicU64::new(until_seq),
            at_seq: AtomicU64::new(0),
            spared: AtomicU64::new(0),
        }
    }

    /// The pump has settled everything before `next_seq`; `spared` records of all were not needed
    /// from here.
    pub fn is_settled(&self, next_seq: u64, spared: u64) {
        self.from_seq.store(next_seq, Ordering::Relaxed);
        self.spared.store(spared, Ordering::Relaxed);
    }

    /// The pump misses these; to be followed by a wake. True if that is news.
    pub fn ask(&self, missing: &Range<u64>) -> bool {
        if self.until_seq.load(Ordering::Relaxed) >= missing.end {
            return false;
        }
        self.until_seq.store(missing.end, Ordering::Release);
        true
    }
}

impl Wanted {
    /// The next seq that the thread will read, at least; what it passed on of those before is in
    /// the queue.
    #[must_use]
    pub fn at_seq(&self) -> u64 {
        self.at_seq.load(Ordering::Acquire)
    }

    fn spared(&self) -> u64 {
        self.spared.load(Ordering::Relaxed)
    }

    fn is_at(&self, seq: u64) {
        self.at_seq.store(seq, Ordering::Release);
    }
}

/// How the pump asks the thread for what the programs have left out.
#[derive(Clone, Debug)]
pub struct Backfill {
    /// What the thread is to read.
    pub wanted: Arc<Wanted>,
    /// Wakes it.
    pub waker: Arc<Waker>,
}

impl Backfill {
    /// Asks for these, if it was not yet.
    pub fn ask(&self, missing: &Range<u64>) {
        if self.wanted.ask(missing) {
            self.waker.wake();
        }
    }
}

/// Counts of the thread.
#[derive(Debug, Default)]
pub struct KmsgStats {
    /// Records read.
    pub read: AtomicU64,
    /// Times the kernel said that it overwrote records.
    pub overwritten: AtomicU64,
    /// Lines that were no record.
    pub malformed: AtomicU64,
    /// Waits that ended.
    pub wakeups: AtomicU64,
}

/// A storm, from its beginning on.
#[derive(Debug, Default)]
struct Storm {
    read: u64,
    /// How often the kernel had overwritten records until then, and how many the pump had settled
    /// without what is read here.
    begin: Option<(u64, u64)>,
}

impl Storm {
    /// Whether the ring alone tells everything, and it pays not to read until the storm is over. Reading
    /// costs whoever prints: each line that another CPU has read must be fetched back to be
    /// written again. But then all that the kernel still has must be read to come to the newest
    /// record, so that much of the storm is read first.
    fn is_left_to_ring(
        &mut self,
        read: usize,
        overwritten: u64,
        spared: u64,
        buffer_records: u64,
    ) -> bool {
        self.read += read as u64;
        let (overwritten_before, spared_before) = *self.begin.get_or_insert((overwritten, spared));
        (self.read >= buffer_records || overwritten > overwritten_before)
            && spared >= spared_before + STORM_RECORDS as u64
    }
}

/// What the thread is made of.
pub struct KmsgThread {
    /// The device.
    pub reader: KmsgReader,
    /// The queue to the pump.
    pub queue: Producer<KmsgRecord>,
    /// Wakes the pump.
    pub pump: Arc<Waker>,
    /// Wakes this thread.
    pub waker: Arc<Waker>,
    /// Rung by the programs, in the tracepoint source.
    pub doorbell: Option<Doorbell>,
    /// What it reads next, at least.
    pub next_seq: u64,
    /// How many records the kernel's buffer may hold.
    pub buffer_records: u64,
    /// What to read.
    pub wanted: Arc<Wanted>,
    /// Set, followed by a wake, to end the thread.
    pub stop: Arc<AtomicBool>,
    /// Counts.
    pub stats: Arc<KmsgStats>,
}

impl KmsgThread {
    /// Reads until told to stop, or until the device fails.
    ///
    /// # Errors
    /// If the wait cannot be set up, or the device fails.
    pub fn run(mut self) -> Result<(), KmsgError> {
        want_precise_naps();
        let by_doorbell = self.doorbell.is_some();
        let mut waiter = Waiter::new(Arc::clone(&self.waker), self.doorbell.take())?;
        let is_live = self.wanted.until_seq.load(Ordering::Relaxed) == u64::MAX;
        if is_live && !by_doorbell {
            waiter.also_while_readable(self.reader.as_fd())?;
        }
        let mut look_ns = FIRST_LOOK_NS;
        let mut storm = Storm::default();
        while !self.stop.load(Ordering::Acquire) {
            if !self.is_wanted() {
                waiter.sleep(REST_NS, || self.is_wanted() || self.stop.load(Ordering::Acquire));
                self.stats.wakeups.fetch_add(1, Ordering::Relaxed);
                look_ns = FIRST_LOOK_NS;
                continue;
            }
            let count = self.read_batch()?;
            if count > 0 {
                self.pump.wake();
                look_ns = FIRST_LOOK_NS;
            }
            if count >= STORM_RECORDS || self.queue.slots() == 0 {
                waiter.nap(STORM_NAP_NS);
                let overwritten = self.stats.overwritten.load(Ordering::Relaxed);
                let spared = self.wanted.spared();
                if storm.is_left_to_ring(count, overwritten, spared, self.buffer_records) {
                    self.spare(&waiter);
                    storm = Storm::default();
                }
                continue;
            }
            storm = Storm::default();
            let mut found = false;
            let rang = waiter.sleep(look_ns, || {
                // The programs ring only a sleeper; what was committed before the
                // sleep was announced shows up in one more read. An error shows up in the next.
                found = by_doorbell && matches!(self.read_batch(), Ok(1..));
                found || self.stop.load(Ordering::Acquire)
            });
            if found {
                self.pump.wake();
            }
            look_ns = if rang || found {
                FIRST_LOOK_NS
            } else {
                (look_ns.saturating_mul(LOOK_FACTOR)).min(IDLE_LOOK_NS)
            };
            self.stats.wakeups.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Naps as long as the ring alone tells everything.
    fn spare(&self, waiter: &Waiter) {
        let mut spared = self.wanted.spared();
        while !self.stop.load(Ordering::Acquire) {
            waiter.nap(SPARED_NAP_NS);
            self.stats.wakeups.fetch_add(1, Ordering::Relaxed);
            // Nobody rings while this thread does not sleep.
            self.pump.wake();
            let before = std::mem::replace(&mut spared, self.wanted.spared());
            if spared - before < STORM_RECORDS as u64 {
                return;
            }
        }
    }

    /// Whether there is anything to be read.
    fn is_wanted(&self) -> bool {
        self.next_seq <= self.wanted.until_seq.load(Ordering::Acquire)
    }

    /// Reads until there is nothing left or wanted, or the queue is full; returns how many records
    /// there were, with those that the pump needs no more.
    fn read_batch(&mut self) -> Result<usize, KmsgError> {
        let mut count = 0;
        while self.queue.slots() > 0 && self.is_wanted() {
            match self.reader.read()? {
                Read::Record => {
                    self.next_seq = self.reader.record().seq + 1;
                    count += 1;
                    if self.next_seq > self.wanted.from_seq.load(Ordering::Relaxed) {
                        // Room was checked above, and nobody else writes.
                        let _ = self.queue.push(self.reader.record().clone());
                    }
                    self.wanted.is_at(self.next_seq);
                }
                Read::End => break,
                Read::Overwritten => {
                    self.stats.overwritten.fetch_add(1, Ordering::Relaxed);
                }
                Read::Malformed => {
                    self.stats.malformed.fetch_add(1, Ordering::Relaxed);
                }
            }
            // Under load the pump must not wait for the end of a long batch.
            if count % 64 == 0 {
                self.pump.wake();
            }
        }
        self.stats.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
