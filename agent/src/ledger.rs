//! The account of one target: each seq ends as sent, filtered or lost with a
//! reason, and until then it is queued.
//!
//! The pump owns a [`Ledger`] per target and counts in it; what others may see
//! is published to [`SharedLedger`] as one consistent picture. Nothing here is
//! derived from anything else, so that [`Ledger::balances`] can fail.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Why a record was lost for a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum LostReason {
    /// It fell off the record store before the target could send it.
    Backlog,
    /// The kernel overwrote it before it could be read.
    KernelOverwrote,
    /// The programs did not deliver it: ring full, or a skipped run.
    NotCaptured,
    /// The way out refused it.
    Refused,
    /// A packet of it is longer than the device's MTU allows.
    TooLong,
    /// The target was removed before it could be sent.
    Removed,
}

impl LostReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Backlog,
        Self::KernelOverwrote,
        Self::NotCaptured,
        Self::Refused,
        Self::TooLong,
        Self::Removed,
    ];

    /// The name used in `status`, in the log and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Backlog => "backlog",
            Self::KernelOverwrote => "kernel_overwrote",
            Self::NotCaptured => "not_captured",
            Self::Refused => "refused",
            Self::TooLong => "too_long",
            Self::Removed => "removed",
        }
    }
}

/// Counts of seqs, for one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// First seq the target is responsible for.
    pub first_seq: u64,
    /// First seq it has not seen: `seen = next_seq - first_seq`.
    pub next_seq: u64,
    /// The kernel took every packet of the record.
    pub sent: u64,
    /// Left out on purpose.
    pub filtered: u64,
    /// Lost, by [`LostReason`].
    pub lost: [u64; LostReason::ALL.len()],
    /// Handed to the way out, fate not known yet.
    pub in_flight: u64,
    /// Waiting in the record store, to be sent for the first time or again.
    pub waiting: u64,
    /// Of `sent`: with estimated fields.
    pub approximated: u64,
    /// Of `sent`: read from `/dev/kmsg`, because the programs did not deliver it.
    pub backfilled: u64,
    /// Of `sent`: a part of it left more than once, because a socket was retired, a device
    /// dropped another part, or the settings changed in the middle of it.
    pub doubled: u64,
    /// Packets handed to the way out; what a retired socket gave back counts again.
    pub packets: u64,
    /// Messages (of operators, keepalives, notices) that the kernel took; they are no records.
    pub messages: u64,
    /// Messages that could not be sent.
    pub messages_lost: u64,
}

/// Words of a ledger before the reasons.
const COUNTS: usize = 12;
const FIELDS: usize = COUNTS + LostReason::ALL.len();

impl Ledger {
    /// Seqs the target has been responsible for.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.next_seq.wrapping_sub(self.first_seq)
    }

    /// Seqs lost, for any reason.
    #[must_use]
    pub fn lost_total(&self) -> u64 {
        self.lost.iter().sum()
    }

    /// Seqs whose fate is open.
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.in_flight + self.waiting
    }

    /// Counts `count` seqs as lost.
    pub fn lose(&mut self, reason: LostReason, count: u64) {
        self.lost[reason as usize] += count;
    }

    /// Whether `seen = sent + filtered + lost + queued`.
    #[must_use]
    pub fn balances(&self) -> bool {
        // Wrong numbers must not make the pump panic.
        let ends = [self.sent, self.filtered, self.in_flight, self.waiting];
        let sum = ends.iter().chain(&self.lost).fold(0, |sum: u64, end| sum.wrapping_add(*end));
        self.seen() == sum
    }

    fn to_words(self) -> [u64; FIELDS] {
        let Self {
            first_seq,
            next_seq,
            sent,
            filtered,
            lost,
            in_flight,
            waiting,
            approximated,
            backfilled,
            doubled,
            packets,
            messages,
            messages_lost,
        } = self;
        let mut words = [0; FIELDS];
        words[..COUNTS].copy_from_slice(&[
            first_seq,
            next_seq,
            sent,
            filtered,
            in_flight,
            waiting,
            approximated,
            backfilled,
            doubled,
            packets,
            messages,
            messages_lost,
        ]);
        words[COUNTS..].copy_from_slice(&lost);
        words
    }

    fn from_words(words: &[u64; FIELDS]) -> Self {
        let mut lost = [0; LostReason::ALL.len()];
        lost.copy_from_slice(&words[COUNTS..]);
        let [
            first_seq,
            next_seq,
            sent,
            filtered,
            in_flight,
            waiting,
            approximated,
            backfilled,
            doubled,
            packets,
            messages,
            messages_lost,
            ..,
        ] = *words;
        Self {
            first_seq,
            next_seq,
            sent,
            filtered,
            lost,
            in_flight,
            waiting,
            approximated,
            backfilled,
            doubled,
            packets,
            messages,
            messages_lost,
        }
    }
}

/// A ledger that one thread publishes and any thread reads whole.
#[derive(Debug, Default)]
pub struct SharedLedger {
    /// Odd while the words are being written.
    version: AtomicU64,
    /// Ledgers that were published and did not balance.
    unbalanced: AtomicU64,
    words: [AtomicU64; FIELDS],
}

impl SharedLedger {
    /// Publishes; one thread only. Never waits. Whether it balances is looked at each time
    /// (a dozen additions), in every build: see [`SharedLedger::unbalanced`].
    pub fn publish(&self, ledger: &Ledger) {
        if !ledger.balances() {
            self.unbalanced.fetch_add(1, Ordering::Relaxed);
        }
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        fence(Ordering::Release);
        for (shared, word) in self.words.iter().zip(ledger.to_words()) {
            shared.store(word, Ordering::Relaxed);
        }
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }

    /// How many of the published ledgers did not balance. Anything but 0 is a mistake in the
    /// agent, since a ledger that balances again later has still been wrong.
    #[must_use]
    pub fn unbalanced(&self) -> u64 {
        self.unbalanced.load(Ordering::Relaxed)
    }

    /// The newest published ledger.
    #[must_use]
    pub fn read(&self) -> Ledger {
        loop {
            let before = self.version.load(Ordering::Acquire);
            let words = std::array::from_fn(|index| self.words[index].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return Ledger::from_words(&words);
            }
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn readers_see_only_balanced_ledgers() {
        let shared = Arc::new(SharedLedger::default());
        let writer = {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || {
                let mut ledger = Ledger::default();
                for round in 0..200_000u64 {
                    ledger.next_seq += 2;
                    ledger.sent += 1;
                    ledger.lose(LostReason::ALL[round as usize % LostReason::ALL.len()], 1);
                    shared.publish(&ledger);
                }
            })
        };
        let mut last_seen = 0;
        while !writer.is_finished() {
            let ledger = shared.read();
            assert!(ledger.balances(), "{ledger:?}");
            assert!(ledger.seen() >= last_seen);
            last_seen = ledger.seen();
        }
        writer.join().unwrap();
        assert_eq!(shared.read().seen(), 400_000);
        assert_eq!(shared.unbalanced(), 0);
    }

    #[test]
    fn a_ledger_that_does_not_balance_is_counted() {
        let shared = SharedLedger::default();
        let right = Ledger { next_seq: 3, sent: 1, waiting: 2, ..Ledger::default() };
        shared.publish(&right);
        shared.publish(&Ledger { sent: 2, ..right });
        shared.publish(&right);
        assert_eq!(shared.unbalanced(), 1);
        // Whatever it counts, it is no reason to panic.
        shared.publish(&Ledger { first_seq: 9, sent: u64::MAX, ..right });
        assert_eq!(shared.unbalanced(), 2);
    }
}
