//! Merges the halves of records: each seq once, in strict seq order.
//!
//! The programs' ring and the `/dev/kmsg` queue bring the same records by two
//! ways, each with something the other lacks. The sequencer joins them by seq,
//! waits a bounded time for what is missing, and hands on whole records,
//! approximated ones, and ranges that nobody has. It is pure: time is passed in, the
//! ring is a trait, and nothing is allocated after `new`.
//!
//! A ring record is not copied while it waits: it stays in the ring, which gets its
//! space back when all before it is settled.

mod asking;
mod join;
mod record_ring;
mod window;

use std::ops::Range;

use rtrb::Consumer;

pub use self::record_ring::{RecordRing, RingItem};
use self::{
    asking::Asking,
    window::{ItemKind, Slot, Window},
};
use super::{kmsg::QUEUE_RECORDS, kmsg_record::KmsgRecord, ring_record::RingRecord};
use crate::record::{Record, TEXT_MAX_BYTES};

/// How long a missing half, or a missing seq, is waited for once a later one is known.
pub const PATIENCE_NS: u64 = 100_000_000;
/// How long a record that was committed without its newline is held after a
/// later seq was seen. A printing CPU may have reopened it just before that and is then
/// about to commit it again (`prb_reserve_in_last`), with interrupts off. If the next record tells
/// that it has, the commit is waited for as everything that is missing is: in a virtual machine the
/// CPU may be kept from it for longer.
const REOPEN_GRACE_NS: u64 = 2_000_000;
/// Descriptor ids have 62 bits (`DESC_ID_MASK`, `printk_ringbuffer.h`).
const ID_MASK: u64 = (1 << 62) - 1;
/// Level of a record whose own is not known: the kernel's default for messages
/// without one (`CONFIG_MESSAGE_LOGLEVEL_DEFAULT`).
pub const DEFAULT_LEVEL: u8 = 4;
/// Most entries that one round settles: the targets have their turn before the next ones. While
/// what comes in fills up ([`RecordRing::is_filling`]) a round goes on as long as it costs nobody
/// anything ([`Sink::has_room`]): no target may cost the others a record that is not even in the
/// store, nor one in the store that it would have read in its turn.
pub const ROUND_ENTRIES: usize = 128;

/// Why a seq cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingReason {
    /// The kernel overwrote it before `/dev/kmsg` could be read.
    KernelOverwrote,
    /// The programs did not deliver it (ring full, skipped run).
    NotCaptured,
}

/// Where settled records go.
pub trait Sink {
    /// Takes the next record.
    fn record(&mut self, record: &Record<'_>);
    /// Takes note that `count` records from `first_seq` on are lost.
    fn missing(&mut self, first_seq: u64, count: u64, reason: MissingReason);
    /// Whether the entries of so many rounds ([`ROUND_ENTRIES`] each) find room without anything
    /// being given up that somebody needs.
    fn has_room(&mut self, rounds: usize) -> bool;
}

/// What the ring delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingContent {
    /// Whole records (commit source).
    Whole,
    /// Text and context (tracepoint source).
    Text,
    /// Nothing (kmsg source).
    Nothing,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The first seq to be settled: what was logged before is replayed from there on.
    pub first_seq: u64,
    /// The next seq before the programs were attached.
    pub attached_seq: u64,
    /// The next seq when `/dev/kmsg` had been read to its end after that: from here on the
    /// programs saw everything.
    pub live_seq: u64,
}

impl Begin {
    /// A run without a past.
    #[must_use]
    pub fn at(seq: u64) -> Self {
        Self { first_seq: seq, attached_seq: seq, live_seq: seq }
    }
}

/// What the caller must know after a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Seqs settled in this round.
    pub settled: u64,
    /// The round ended with more to settle, perhaps.
    pub more: bool,
    /// When to come back although nothing new arrived.
    pub deadline_ns: Option<u64>,
    /// Records that were left in the `/dev/kmsg` queue: they wait for the ring.
    pub kmsg_waiting: usize,
    /// What the ring has left out, to be looked for in `/dev/kmsg` (commit source).
    pub wanted: Option<Range<u64>>,
}

/// Counts of the sequencer's own decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequencerCounts {
    /// Records sent with estimated fields.
    pub approximated: u64,
    /// Records whose header came by the ring, so that `/dev/kmsg` was not needed (tracepoint source).
    pub completed: u64,
    /// Records that the programs, although attached, did not deliver: all of them is from
    /// `/dev/kmsg`.
    pub backfilled: u64,
    /// Records that were logged before the start.
    pub replayed: u64,
    /// Ring items that were no record.
    pub malformed: u64,
    /// Joins whose two texts differed.
    pub mismatched: u64,
}

/// See the module's description.
pub struct Sequencer {
    content: RingContent,
    /// Whether `/dev/kmsg` shows `caller=` (`CONFIG_PRINTK_CALLER`).
    show_caller: bool,
    next_seq: u64,
    begin: Begin,
    /// Ring items seen while no constant between ids and seqs was known.
    first_items: u64,
    /// Records that did not tell the constant.
    untold: u64,
    window: Window,
    /// A ring item that did not fit the window, and its seq.
    held: Option<(RingItem, Option<u64>)>,
    /// seq = id + base (mod 2^62).
    id_base: Option<u64>,
    /// Whether a header told it, or it is a guess that joins must confirm.
    is_base_told: bool,
    mismatches: u32,
    /// printk's clock less `CLOCK_MONOTONIC`, from the newest join.
    clock_offset_ns: i64,
    /// Since when the head waits for a ring item that is being written.
    busy_since_ns: Option<u64>,
    /// Since when the replay is over.
    live_since_ns: Option<u64>,
    asking: Asking,
    counts: SequencerCounts,
    /// The text of a record that was printed in pieces.
    text: Box<[u8; TEXT_MAX_BYTES]>,
}

enum Step {
    Settled(u64),
    Wait(Option<u64>),
}

impl Sequencer {
    /// A sequencer for a run that begins so.
    #[must_use]
    pub fn new(content: RingContent, begin: Begin, show_caller: bool) -> Self {
        Self {
            content,
            show_caller,
            next_seq: begin.first_seq,
            begin,
            first_items: 0,
            untold: 0,
            window: Window::new(begin.live_seq),
            held: None,
            id_base: None,
            is_base_told: false,
            mismatches: 0,
            clock_offset_ns: 0,
            busy_since_ns: None,
            live_since_ns: None,
            asking: Asking::default(),
            counts: SequencerCounts::default(),
            text: Box::new([0; TEXT_MAX_BYTES]),
        }
    }

    /// The next seq to be settled.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// What a descriptor id lacks to be a seq (modulo 2^62), if it is known.
    #[must_use]
    pub fn id_base(&self) -> Option<u64> {
        self.id_base
    }

    /// printk's clock less `CLOCK_MONOTONIC` in nanoseconds, from the newest join.
    #[must_use]
    pub fn clock_offset_ns(&self) -> i64 {
        self.clock_offset_ns
    }

    /// From here on the programs saw everything.
    #[must_use]
    pub fn live_seq(&self) -> u64 {
        self.begin.live_seq
    }

    /// Whether what was logged before the start is not settled yet.
    #[must_use]
    pub fn is_replaying(&self) -> bool {
        self.next_seq < self.begin.live_seq
    }

    /// Counts since the start.
    #[must_use]
    pub fn counts(&self) -> SequencerCounts {
        self.counts
    }

    /// The thread of `/dev/kmsg` will read this seq next, or a later one: it is waited for as long
    /// as it moves.
    pub fn kmsg_is_at(&mut self, seq: u64, now_ns: u64) {
        self.asking.thread_is_at(seq, now_ns);
    }

    /// Takes what arrived and settles what can be settled, in order.
    pub fn poll<R: RecordRing, S: Sink>(
        &mut self,
        now_ns: u64,
        ring: &mut R,
        kmsg: &mut Consumer<KmsgRecord>,
        sink: &mut S,
    ) -> Progress {
        // What /dev/kmsg shows was in the ring before. So only what is in the
        // queue now may be judged by what the walk below finds.
        let mut kmsg_left = kmsg.slots();
        let full = self.walk(now_ns, ring) || ring.is_crowded();
        let hurries = ring.is_filling() || kmsg_left > QUEUE_RECORDS / 2;
        let mut progress = Progress::default();
        let mut entries = 0;
        // What was logged before the start can wait where it is.
        let has_room = !self.is_replaying() || sink.has_room(1);
        let mut pause_at = if has_room { ROUND_ENTRIES } else { 0 };
        loop {
            if entries >= pause_at {
                // More room than is needed: the targets have a start when things begin to go.
                if !hurries || !sink.has_room(2) {
                    progress.more = has_room;
                    break;
                }
                pause_at += ROUND_ENTRIES;
            }
            match self.settle_head(now_ns, ring, kmsg, &mut kmsg_left, full, sink) {
                Step::Settled(count) => {
                    self.next_seq += count;
                    self.busy_since_ns = None;
                    self.asking.settled(self.next_seq);
                    progress.settled += count;
                    entries += usize::from(count > 0);
                }
                Step::Wait(deadline_ns) => {
                    progress.deadline_ns = deadline_ns;
                    break;
                }
            }
        }
        progress.kmsg_waiting = kmsg_left;
        progress.wanted = self.asking.wanted();
        self.window.release(self.next_seq, now_ns, ring);
        progress
    }

    /// Reads ahead in the ring; true if the window is full.
    fn walk<R: RecordRing>(&mut self, now_ns: u64, ring: &mut R) -> bool {
        while let Some(item) = self.held.take().map(|(item, _)| item).or_else(|| ring.next()) {
            let Some(record) = RingRecord::parse(ring.bytes(item)) else {
                self.counts.malformed += 1;
                self.window.push_settled(item);
                continue;
            };
            let word = record.seq_or_id();
            let kind = if record.is_header() {
                ItemKind::Header
            } else {
                match (record.is_whole(), record.is_final(), record.brings_previous()) {
                    (true, true, _) => ItemKind::Final,
                    (true, false, _) => ItemKind::Committed,
                    (false, _, true) => ItemKind::PieceAfterHeader,
                    (false, _, false) => ItemKind::Piece,
                }
            };
            let has_seq = matches!(kind, ItemKind::Header | ItemKind::Final | ItemKind::Committed);
            if let Some(base) = record.id_base() {
                self.is_told(word, base & ID_MASK);
            }
            if !has_seq && self.id_base.is_none() {
                self.learn_from_first(word);
            }
            let seq = if has_seq {
                Some(word)
            } else {
                self.id_base.map(|base| self.seq_of_id(word, base))
            };
            if !self.window.push(item, seq, word, kind, now_ns, self.next_seq) {
                self.held = Some((item, seq));
                return true;
            }
            if record.is_previous_open() {
                self.window.reopen(word.wrapping_sub(1));
            }
        }
        false
    }

    fn settle_head<R: RecordRing, S: Sink>(
        &mut self,
        now_ns: u64,
        ring: &mut R,
        kmsg: &mut Consumer<KmsgRecord>,
        kmsg_left: &mut usize,
        full: bool,
        sink: &mut S,
    ) -> Step {
        let head = self.next_seq;
        // Only a reference to the queue's front is taken: the record is copied once, by the sink.
        let front_seq =
            if *kmsg_left == 0 { None } else { kmsg.peek().ok().map(|front| front.seq) };
        if front_seq.is_some() {
            self.asking.is_answered();
        }
        if front_seq.is_some_and(|seq| seq < head) {
            *kmsg_left -= 1;
            let _ = kmsg.pop_discard();
            return Step::Settled(0);
        }
        let slot = self.window.slot(head);
        // Its last stage may have found no room in the ring, and /dev/kmsg shows all of it.
        let may_be_cut = slot.is_some_and(|slot| !slot.is_final) && front_seq == Some(head);
        if let Some(slot) = slot
            && !may_be_cut
            && let Some(whole) = RingRecord::parse(ring.bytes(slot.item))
            && let Some(mut record) = whole.whole()
        {
            // What /dev/kmsg shows, the record itself or a later one, is final.
            if !slot.is_final && front_seq.is_none() {
                let Some((_, seen_ns)) = self.next_known(head) else {
                    return Step::Wait(None);
                };
                let is_due = slot.is_reopened && !full;
                let until_ns = seen_ns + if is_due { PATIENCE_NS } else { REOPEN_GRACE_NS };
                if now_ns < until_ns {
                    return Step::Wait(Some(until_ns));
                }
            }
            if whole.is_lost() {
                sink.missing(head, 1, MissingReason::KernelOverwrote);
                return Step::Settled(1);
            }
            if !self.show_caller {
                record.caller = None;
            }
            sink.record(&record);
            return Step::Settled(1);
        }
        if let Some(slot) = slot
            && let Some(header) = slot.header
            // A guess would give a record another one's seq, and nobody would notice.
            && self.is_base_told
            // What was logged before is `/dev/kmsg`'s.
            && !self.is_replaying()
            && self.complete(slot, header, ring, sink)
        {
            return Step::Settled(1);
        }
        match front_seq {
            Some(seq) if seq == head => {
                // The program's half may be in the making on another CPU.
                if slot.is_none()
                    && ring.pending()
                    && !full
                    && self.content == RingContent::Text
                    && head >= self.begin.attached_seq
                {
                    let since_ns = *self.busy_since_ns.get_or_insert(now_ns);
                    if now_ns < since_ns + REOPEN_GRACE_NS {
                        return Step::Wait(Some(since_ns + REOPEN_GRACE_NS));
                    }
                }
                if let Ok(front) = kmsg.peek() {
                    self.learn_from(kmsg, ring);
                    let slot = self.window.slot(head);
                    self.join(front, slot, ring, sink);
                }
                *kmsg_left -= 1;
                let _ = kmsg.pop_discard();
                Step::Settled(1)
            }
            Some(seq) => match slot {
                Some(slot) => self.approximate(slot, ring, sink),
                None if self.learn_from(kmsg, ring) => Step::Settled(0),
                None => {
                    let until = self.next_known(head).map_or(seq, |(known, _)| known.min(seq));
                    sink.missing(head, until - head, MissingReason::KernelOverwrote);
                    Step::Settled(until - head)
                }
            },
            None => self.wait_for_head(now_ns, slot, full, ring, sink),
        }
    }

    /// The lowest seq above the head that the ring brought, and when.
    fn next_known(&self, head: u64) -> Option<(u64, u64)> {
        // A held item lies beyond the window: all before it can only be missing.
        let held = self.held.and_then(|(_, seq)| seq).filter(|seq| *seq > head).map(|seq| (seq, 0));
        self.window.next_known(head).or(held)
    }

    /// The head is not in the `/dev/kmsg` queue (yet).
    fn wait_for_head<R: RecordRing, S: Sink>(
        &mut self,
        now_ns: u64,
        slot: Option<Slot>,
        full: bool,
        ring: &R,
        sink: &mut S,
    ) -> Step {
        let head = self.next_seq;
        // What was logged before is sure to come: itself, or a later one if it is gone.
        if self.is_replaying() {
            return Step::Wait(None);
        }
        // As long as no later record exists, the head may simply not be finished:
        // the kernel shows a record without its newline to nobody.
        let Some((known, known_seen_ns)) = self.next_known(head) else {
            return Step::Wait(None);
        };
        if slot.is_none() && self.content == RingContent::Whole {
            return self.look_for(head..known, known_seen_ns, now_ns, full, sink);
        }
        // During a replay much waits in the ring for what /dev/kmsg has not shown yet.
        let live_since_ns = *self.live_since_ns.get_or_insert(now_ns);
        let since_ns = slot.map_or(known_seen_ns, |slot| slot.seen_ns.max(known_seen_ns));
        let since_ns = since_ns.max(live_since_ns);
        if !full && now_ns < since_ns + PATIENCE_NS {
            return Step::Wait(Some(since_ns + PATIENCE_NS));
        }
        match slot {
            Some(slot) => self.approximate(slot, ring, sink),
            None => {
                sink.missing(head, known - head, MissingReason::NotCaptured);
                Step::Settled(known - head)
            }
        }
    }

    /// The ring has left records out: `/dev/kmsg` may have them.
    fn look_for<S: Sink>(
        &mut self,
        missing: Range<u64>,
        known_seen_ns: u64,
        now_ns: u64,
        full: bool,
        sink: &mut S,
    ) -> Step {
        // Two CPUs may commit in another order than they began.
        if now_ns < known_seen_ns + REOPEN_GRACE_NS {
            return Step::Wait(Some(known_seen_ns + REOPEN_GRACE_NS));
        }
        let crowded_until = full.then(|| self.window.newest_seq());
        if let Some(until_ns) = self.asking.wait_for(&missing, crowded_until, now_ns) {
            return Step::Wait(Some(until_ns));
        }
        let count = missing.end - missing.start;
        sink.missing(missing.start, count, MissingReason::NotCaptured);
        Step::Settled(count)
    }
}

/// Popping without moving the record out of the queue.
trait PopDiscard {
    fn pop_discard(&mut self) -> Result<(), rtrb::chunks::ChunkError>;
}

impl PopDiscard for Consumer<KmsgRecord> {
    fn pop_discard(&mut self) -> Result<(), rtrb::chunks::ChunkError> {
        self.read_chunk(1).map(|chunk| chunk.commit_all())
    }
}

#[cfg(test)]
mod tests;
