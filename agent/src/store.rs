//! The record store: the newest records, in one ring of bytes of fixed size.
//!
//! Each target is a [`Cursor`] into it. What falls off the end before a target
//! read it is lost for that target, and the cursor says how many seqs that were.
//! So memory does not grow with targets or with their troubles. The store knows
//! nothing of targets, and it never allocates after `new`.

use bytes::{Buf, BufMut};

use crate::{
    capture::sequencer::{MissingReason, Sink},
    record::{Caller, Context, Record},
};

const HEAD_BYTES: usize = 64;

const KIND_RECORD: u8 = 1;
const KIND_MISSING: u8 = 2;
/// The rest of the ring up to its end is unused.
const KIND_SKIP: u8 = 3;

const FLAG_CONT: u8 = 1;
const FLAG_APPROXIMATED: u8 = 2;
const FLAG_CONTEXT: u8 = 4;
const FLAG_CALLER_TASK: u8 = 8;
const FLAG_CALLER_CPU: u8 = 16;
const FLAG_KERNEL_OVERWROTE: u8 = 32;
const FLAG_BACKFILLED: u8 = 64;

/// How far [`Store::cursor_back`] goes, in entries.
pub const RECALL_MAX: usize = 256;

/// A ring of entries in strict seq order.
pub struct Store {
    bytes: Box<[u8]>,
    /// Where the newest entries begin; the place of one is its number's remainder.
    recent: Box<[Cursor; RECALL_MAX]>,
    /// Entries ever made.
    entries: usize,
    /// Position behind the newest entry; positions only grow.
    end: u64,
    /// Position of the oldest entry.
    start: u64,
    /// First seq that the oldest entry speaks of.
    start_seq: u64,
    /// First seq that the store has not seen.
    next_seq: u64,
}

/// One target's place in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    position: u64,
    seq: u64,
}

impl Cursor {
    /// The next seq to be read.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// What a cursor finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A record.
    Record(Record<'a>),
    /// Seqs that could not be had.
    Missing {
        /// How many.
        count: u64,
        /// Why.
        reason: MissingReason,
    },
    /// Records that fell off the end before they were read.
    FellOff {
        /// How many seqs.
        count: u64,
    },
}

impl Store {
    /// A store of `size_bytes` bytes whose first record will be `next_seq`. The
    /// memory is touched, so that no page fault comes later.
    #[must_use]
    pub fn new(size_bytes: usize, next_seq: u64) -> Self {
        // `vec![0]` maps zero pages lazily; writing something else touches them.
        let mut bytes = vec![0; size_bytes.max(1 << 16)].into_boxed_slice();
        for page in bytes.chunks_mut(4096) {
            page[0] = 1;
        }
        let recent = Box::new([Cursor { position: 0, seq: next_seq }; RECALL_MAX]);
        Self { bytes, recent, entries: 0, end: 0, start: 0, start_seq: next_seq, next_seq }
    }

    /// First seq that the store has not seen.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// A cursor behind the newest entry.
    #[must_use]
    pub fn cursor_at_end(&self) -> Cursor {
        Cursor { position: self.end, seq: self.next_seq }
    }

    /// A cursor at the `back`th newest entry, or at the oldest that is left: at most
    /// [`RECALL_MAX`] back.
    #[must_use]
    pub fn cursor_back(&self, back: usize) -> Cursor {
        let back = back.min(self.entries).min(RECALL_MAX);
        if back == 0 {
            return self.cursor_at_end();
        }
        let cursor = self.recent[(self.entries - back) % RECALL_MAX];
        if cursor.position < self.start {
            return Cursor { position: self.start, seq: self.start_seq };
        }
        cursor
    }

    /// What the cursor points at; `None` if it has read everything.
    #[must_use]
    pub fn get(&self, cursor: &Cursor) -> Option<Entry<'_>> {
        if cursor.position < self.start {
            return Some(Entry::FellOff { count: self.start_seq - cursor.seq });
        }
        if cursor.position >= self.end {
            return None;
        }
        let at = self.entry_at(cursor.position);
        let head = &self.bytes[at..at + HEAD_BYTES];
        if head[4] == KIND_MISSING {
            let reason = if head[7] & FLAG_KERNEL_OVERWROTE != 0 {
                MissingReason::KernelOverwrote
            } else {
                MissingReason::NotCaptured
            };
            return Some(Entry::Missing { count: u64_at(head, 16), reason });
        }
        Some(Entry::Record(self.record_at(at)))
    }

    /// Moves the cursor behind what [`Self::get`] returned.
    pub fn advance(&self, cursor: &mut Cursor) {
        if cursor.position < self.start {
            *cursor = Cursor { position: self.start, seq: self.start_seq };
        } else if cursor.position < self.end {
            let at = self.entry_at(cursor.position);
            let skipped = (at + self.bytes.len() - (cursor.position % self.len()) as usize)
                % self.bytes.len();
            let head = &self.bytes[at..at + HEAD_BYTES];
            let count = if head[4] == KIND_MISSING { u64_at(head, 16) } else { 1 };
            cursor.seq = u64_at(head, 8) + count;
            cursor.position += skipped as u64 + u64::from(u32_at(head, 0));
        }
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Index of the entry at or, over a skip, behind a position.
    fn entry_at(&self, position: u64) -> usize {
        let at = (position % self.len()) as usize;
        let room = self.bytes.len() - at;
        if room < HEAD_BYTES || self.bytes[at + 4] == KIND_SKIP { 0 } else { at }
    }

    /// Makes room for an entry of `len_bytes` bytes and returns its index.
    fn reserve(&mut self, len_bytes: usize) -> usize {
        let at = (self.end % self.len()) as usize;
        let room = self.bytes.len() - at;
        let skip = if room < len_bytes { room } else { 0 };
        let needed = (skip + len_bytes) as u64;
        while self.end + needed - self.start > self.len() && self.start < self.end {
            let mut oldest = Cursor { position: self.start, seq: self.start_seq };
            self.advance(&mut oldest);
            (self.start, self.start_seq) = (oldest.position, oldest.seq);
        }
        if skip >= HEAD_BYTES {
            self.bytes[at + 4] = KIND_SKIP;
        }
        self.end += skip as u64;
        (self.end % self.len()) as usize
    }

    fn commit(&mut self, at: usize, len_bytes: usize, kind: u8, first_seq: u64, next_seq: u64) {
        self.bytes[at..at + 4].copy_from_slice(&(len_bytes as u32).to_ne_bytes());
        self.bytes[at + 4] = kind;
        self.recent[self.entries % RECALL_MAX] = Cursor { position: self.end, seq: first_seq };
        self.entries += 1;
        self.end += len_bytes as u64;
        self.next_seq = next_seq;
    }

    fn record_at(&self, at: usize) -> Record<'_> {
        let (mut head, mut rest) = self.bytes[at..].split_at(HEAD_BYTES);
        head.advance(5);
        let (facility, level, flags) = (head.get_u8(), head.get_u8(), head.get_u8());
        let (seq, ts_ns, cgroup_id) = (head.get_u64_ne(), head.get_u64_ne(), head.get_u64_ne());
        let (caller_id, cpu, pid) = (head.get_u32_ne(), head.get_u32_ne(), head.get_u32_ne());
        let text_len = head.get_u32_ne() as usize;
        let mut take = |len: usize| {
            let (taken, left) = rest.split_at(len);
            rest = left;
            taken
        };
        let [task, cgroup, subsystem, device] =
            std::array::from_fn(|_| take(usize::from(head.get_u8())));
        let text = take(text_len);
        Record {
            seq,
            ts_ns,
            facility,
            level,
            cont: flags & FLAG_CONT != 0,
            caller: match flags & (FLAG_CALLER_TASK | FLAG_CALLER_CPU) {
                FLAG_CALLER_TASK => Some(Caller::Task(caller_id)),
                FLAG_CALLER_CPU => Some(Caller::Cpu(caller_id)),
                _ => None,
            },
            text,
            subsystem,
            device,
            context: (flags & FLAG_CONTEXT != 0).then_some(Context {
                cpu,
                pid,
                task,
                cgroup_id,
                cgroup,
            }),
            approximated: flags & FLAG_APPROXIMATED != 0,
            backfilled: flags & FLAG_BACKFILLED != 0,
        }
    }
}

impl Sink for Store {
    fn record(&mut self, record: &Record<'_>) {
        let empty = Context { cpu: 0, pid: 0, task: &[], cgroup_id: 0, cgroup: &[] };
        let context = record.context.unwrap_or(empty);
        let parts = [context.task, context.cgroup, record.subsystem, record.device, record.text];
        let body: usize = parts.iter().map(|part| part.len()).sum();
        let len_bytes = (HEAD_BYTES + body).next_multiple_of(8);
        let at = self.reserve(len_bytes);
        let entry = &mut self.bytes[at..at + len_bytes];
        let mut flags = 0;
        let mut caller_id = 0;
        if record.cont {
            flags |= FLAG_CONT;
        }
        if record.approximated {
            flags |= FLAG_APPROXIMATED;
        }
        if record.backfilled {
            flags |= FLAG_BACKFILLED;
        }
        if record.context.is_some() {
            flags |= FLAG_CONTEXT;
        }
        match record.caller {
            Some(Caller::Task(id)) => (flags, caller_id) = (flags | FLAG_CALLER_TASK, id),
            Some(Caller::Cpu(id)) => (flags, caller_id) = (flags | FLAG_CALLER_CPU, id),
            None => {}
        }
        // The length, the kind and the padding at the end are not written here.
        let mut head = &mut entry[5..HEAD_BYTES];
        head.put_u8(record.facility);
        head.put_u8(record.level);
        head.put_u8(flags);
        head.put_u64_ne(record.seq);
        head.put_u64_ne(record.ts_ns);
        head.put_u64_ne(context.cgroup_id);
        head.put_u32_ne(caller_id);
        head.put_u32_ne(context.cpu);
        head.put_u32_ne(context.pid);
        head.put_u32_ne(record.text.len() as u32);
        // The other parts are at most 63 bytes long (see `record`).
        for part in &parts[..4] {
            head.put_u8(part.len() as u8);
        }
        let mut to = HEAD_BYTES;
        for part in parts {
            entry[to..to + part.len()].copy_from_slice(part);
            to += part.len();
        }
        self.commit(at, len_bytes, KIND_RECORD, record.seq, record.seq + 1);
    }

    fn missing(&mut self, first_seq: u64, count: u64, reason: MissingReason) {
        let at = self.reserve(HEAD_BYTES);
        let entry = &mut self.bytes[at..at + HEAD_BYTES];
        entry[7] = if reason == MissingReason::KernelOverwrote { FLAG_KERNEL_OVERWROTE } else { 0 };
        entry[8..16].copy_from_slice(&first_seq.to_ne_bytes());
        entry[16..24].copy_from_slice(&count.to_ne_bytes());
        self.commit(at, HEAD_BYTES, KIND_MISSING, first_seq, first_seq + count);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record<'a>(seq: u64, text: &'a [u8], context: Option<Context<'a>>) -> Record<'a> {
        Record {
            seq,
            ts_ns: seq * 7,
            facility: (seq % 200) as u8,
            level: (seq % 8) as u8,
            cont: seq.is_multiple_of(3),
            caller: match seq % 3 {
                0 => None,
                1 => Some(Caller::Task(7)),
                _ => Some(Caller::Cpu(3)),
            },
            text,
            subsystem: if seq.is_multiple_of(2) { b"pci" } else { b"" },
            device: b"+pci:0000:00:03.0",
            context,
            approximated: seq.is_multiple_of(5),
            backfilled: seq.is_multiple_of(7),
        }
    }

    proptest! {
        #[test]
        fn each_seq_is_read_or_told_lost(
            ops in proptest::collection::vec((0usize..1025, 0u64..20, 0usize..4), 1..600),
        ) {
            let mut store = Store::new(1, 100);
            let mut cursor = store.cursor_at_end();
            let mut read_seq = 100;
            let text: Vec<u8> = (0..1025).map(|n| n as u8).collect();
            let mut lens = std::collections::HashMap::new();
            for (len, missing, reads) in ops {
                let seq = store.next_seq();
                let context = Context { cpu: 1, pid: 2, task: b"task", cgroup_id: 9, cgroup: b"x.slice" };
                if missing > 15 {
                    store.missing(seq, missing, MissingReason::NotCaptured);
                } else {
                    lens.insert(seq, len);
                    store.record(&record(seq, &text[..len], (seq.is_multiple_of(2)).then_some(context)));
                }
                for _ in 0..reads {
                    let Some(entry) = store.get(&cursor) else { break };
                    prop_assert_eq!(cursor.seq(), read_seq);
                    match entry {
                        Entry::Record(found) => {
                            let expected = record(read_seq, &text[..lens[&read_seq]], (read_seq.is_multiple_of(2)).then_some(context));
                            prop_assert_eq!(found, expected);
                            read_seq += 1;
                        }
                        Entry::Missing { count, reason } => {
                            prop_assert_eq!(reason, MissingReason::NotCaptured);
                            read_seq += count;
                        }
                        Entry::FellOff { count } => {
                            prop_assert!(count > 0);
                            read_seq += count;
                        }
                    }
                    store.advance(&mut cursor);
                    prop_assert_eq!(cursor.seq(), read_seq);
                }
            }
            while let Some(entry) = store.get(&cursor) {
                read_seq += match entry {
                    Entry::Record(_) => 1,
                    Entry::Missing { count, .. } | Entry::FellOff { count } => count,
                };
                store.advance(&mut cursor);
            }
            prop_assert_eq!(read_seq, store.next_seq());
        }
    }

    #[test]
    fn a_waiting_cursor_loses_the_oldest_only() {
        let mut store = Store::new(1 << 16, 0);
        let mut cursor = store.cursor_at_end();
        for seq in 0..10_000 {
            store.record(&record(seq, b"some text of a record", None));
        }
        let Some(Entry::FellOff { count }) = store.get(&cursor) else { panic!("nothing fell off") };
        store.advance(&mut cursor);
        let mut kept = 0;
        while let Some(Entry::Record(found)) = store.get(&cursor) {
            assert_eq!(found.seq, count + kept);
            kept += 1;
            store.advance(&mut cursor);
        }
        assert_eq!(count + kept, 10_000);
        assert!(kept * 128 > (1 << 16) / 2, "only {kept} records were kept");
    }
}
