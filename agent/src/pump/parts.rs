//! What goes in and out of the pump: its parts, commands, returns, and numbers.

use std::sync::{
    Arc,
    atomic::{AtomicI32, AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use rtrb::{Consumer, Producer};

use super::{EGRESS_MAX, PumpTarget, message::Message, recall::Recall, tap::Tap};
use crate::{
    capture::{
        bpf::{Doorbell, MappedRing},
        kmsg::Backfill,
        kmsg_record::KmsgRecord,
        sequencer::{Sequencer, SequencerCounts},
        wake::Waker,
    },
    checkpoint::Checkpoint,
    egress::Egress,
    extradata::CgroupNames,
    handover::PumpEnd,
    last_words::{Speaker, SpeakerParts, placement::Placement},
    ledger::SharedLedger,
    netoops::TextRing,
    store::Store,
    target::{Route, TargetSettings},
};

/// What the control thread asks of the pump.
pub enum Command {
    /// Take a socket (one box lent).
    Install {
        /// Its place; what was there before comes back.
        index: usize,
        /// The socket.
        egress: Box<dyn Egress>,
    },
    /// Give the socket back. What it has not sent goes to the target's next socket.
    Retire {
        /// Its place.
        index: usize,
    },
    /// Send a target's packets this way (one box lent). While something of it is in
    /// another socket, nothing is pushed: that must be settled or retired first.
    Bind {
        /// Index of the target.
        target: usize,
        /// The way; the previous one comes back.
        route: Box<Route>,
    },
    /// Push nothing more for a target; its route comes back. What is in flight is
    /// settled all the same, and a route to the same socket goes on where it was.
    Unbind {
        /// Index of the target.
        target: usize,
    },
    /// Take a target (one box lent); it begins with the next record. The commands that wait
    /// when the pump begins are carried out before the first record.
    Add {
        /// Its index, which nobody has.
        index: usize,
        /// The target.
        target: Box<PumpTarget>,
    },
    /// Give a target back; what it has not sent is lost for it.
    Remove {
        /// Its index.
        index: usize,
    },
    /// Send a message of an operator's to a target before its next record (one box lent).
    Message {
        /// Index of the target.
        target: usize,
        /// The message; comes back when its fate is known.
        message: Box<Message>,
    },
    /// Copy what a target sends to a tap (one box lent); the one before comes back.
    Tap {
        /// Index of the target.
        target: usize,
        /// The tap.
        tap: Box<Tap>,
    },
    /// Give a target's tap back.
    Untap {
        /// Index of the target.
        target: usize,
    },
    /// Copy the newest records (one box lent).
    Recall {
        /// Where to; comes back.
        into: Box<Recall>,
    },
    /// Send what is there, at most until the deadline, and end.
    Stop {
        /// `CLOCK_MONOTONIC`.
        deadline_ns: u64,
    },
}

impl Command {
    /// Whether it lends a box, which comes back as [`Returned`].
    #[must_use]
    pub fn lends(&self) -> bool {
        match self {
            Self::Install { .. }
            | Self::Bind { .. }
            | Self::Add { .. }
            | Self::Message { .. }
            | Self::Tap { .. }
            | Self::Recall { .. } => true,
            Self::Retire { .. }
            | Self::Unbind { .. }
            | Self::Remove { .. }
            | Self::Untap { .. }
            | Self::Stop { .. } => false,
        }
    }
}

/// What comes back from the pump.
pub enum Returned {
    /// A socket that is not used any more.
    Egress {
        /// Where it was.
        index: usize,
        /// The socket, to be dropped.
        egress: Box<dyn Egress>,
    },
    /// A route that is not used any more.
    Route(Box<Route>),
    /// A target that was removed.
    Target {
        /// The index it had.
        index: usize,
        /// The target, to be dropped.
        target: Box<PumpTarget>,
    },
    /// A message, sent or lost.
    Message(Box<Message>),
    /// A tap that is not used any more.
    Tap(Box<Tap>),
    /// The newest records.
    Recall(Box<Recall>),
}

/// One target as the control thread describes it to a new pump.
pub struct TargetSeed {
    /// Shared settings; the control thread keeps a reference to each value it
    /// ever stored there until the pump has moved on, so none is freed here.
    pub settings: Arc<ArcSwap<TargetSettings>>,
    /// Where the target's account is published.
    pub ledger: Arc<SharedLedger>,
    /// The first record it is to send; the next one if `None`.
    pub first_seq: Option<u64>,
    /// Where it keeps how far it has come.
    pub checkpoint: Option<Checkpoint>,
}

/// What a pump is made of.
pub struct PumpParts {
    /// The programs' ring; the kmsg source has none.
    pub ring: Option<MappedRing>,
    /// The programs' doorbell, if they are to wake the pump itself.
    pub doorbell: Option<Doorbell>,
    /// Records from `/dev/kmsg`.
    pub kmsg: Consumer<KmsgRecord>,
    /// How the pump asks for what is missing in the ring.
    pub backfill: Backfill,
    /// How the other threads wake the pump.
    pub waker: Arc<Waker>,
    /// The merging of the two.
    pub sequencer: Sequencer,
    /// The record store.
    pub store: Store,
    /// Commands and returns.
    pub handover: PumpEnd<Command, Returned>,
    /// Names of cgroups by their ids.
    pub cgroups: Arc<ArcSwap<CgroupNames>>,
    /// Ids of cgroups whose names are not known.
    pub unnamed: Producer<u64>,
    /// What the pump publishes about itself.
    pub stats: Arc<PumpStats>,
    /// What it does when the kernel panics.
    pub last_words: Option<LastWordsParts>,
}

/// What a pump needs to speak while the kernel panics.
pub struct LastWordsParts {
    /// Speaks.
    pub speaker: Speaker,
    /// What it shares with its understudy.
    pub shared: SpeakerParts,
    /// Where it runs, if its understudy has a CPU of its own.
    pub placement: Option<Placement>,
    /// Text of what is settled, for dumps.
    pub text: TextRing,
}

/// Numbers about the pump itself, for `status`.
#[derive(Debug)]
pub struct PumpStats {
    /// Turns of its loop: at least one every 18 ms, whatever happens. The control thread
    /// knows by it that the pump lives.
    pub rounds: AtomicU64,
    /// Waits that ended.
    pub wakeups: AtomicU64,
    /// Records whose header came by the ring, of the sequencer.
    pub completed: AtomicU64,
    /// Records sent with estimated fields, of the sequencer.
    pub approximated: AtomicU64,
    /// Records that the programs did not deliver and `/dev/kmsg` did, of the sequencer.
    pub backfilled: AtomicU64,
    /// Records that were logged before the start, of the sequencer.
    pub replayed: AtomicU64,
    /// Ring items that were no record, of the sequencer.
    pub malformed: AtomicU64,
    /// Joins whose texts differed, of the sequencer.
    pub mismatched: AtomicU64,
    /// Bytes of the record store with what some target needs.
    pub store_needed_bytes: AtomicU64,
    /// Bytes in use of the programs' ring.
    pub ring_used_bytes: AtomicU64,
    /// Records from `/dev/kmsg` that wait for the pump.
    pub kmsg_waiting: AtomicU64,
    /// `errno` of the last flush of the socket at each place; 0 if it went well, or
    /// if there is none.
    pub socket_errno: [AtomicI32; EGRESS_MAX],
}

impl Default for PumpStats {
    fn default() -> Self {
        Self {
            rounds: AtomicU64::default(),
            wakeups: AtomicU64::default(),
            completed: AtomicU64::default(),
            approximated: AtomicU64::default(),
            backfilled: AtomicU64::default(),
            replayed: AtomicU64::default(),
            malformed: AtomicU64::default(),
            mismatched: AtomicU64::default(),
            store_needed_bytes: AtomicU64::default(),
            ring_used_bytes: AtomicU64::default(),
            kmsg_waiting: AtomicU64::default(),
            socket_errno: [const { AtomicI32::new(0) }; EGRESS_MAX],
        }
    }
}

impl PumpStats {
    /// Stores only what changed: others' caches keep the line meanwhile.
    pub(super) fn set_errno(&self, index: usize, errno: i32) {
        if let Some(shown) = self.socket_errno.get(index)
            && shown.load(Ordering::Relaxed) != errno
        {
            shown.store(errno, Ordering::Relaxed);
        }
    }

    pub(super) fn set_counts(&self, counts: &SequencerCounts) {
        self.completed.store(counts.completed, Ordering::Relaxed);
        self.approximated.store(counts.approximated, Ordering::Relaxed);
        self.backfilled.store(counts.backfilled, Ordering::Relaxed);
        self.replayed.store(counts.replayed, Ordering::Relaxed);
        self.malformed.store(counts.malformed, Ordering::Relaxed);
        self.mismatched.store(counts.mismatched, Ordering::Relaxed);
    }
}
