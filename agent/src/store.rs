//! The record store: as many records as fit into memory of fixed size, the severe ones longest.
//!
//! Each target is a [`Cursor`] into it. What had to go before a target read it is lost for that
//! target, and the cursor says at its place how many seqs that were. So memory does not grow
//! with targets or with their troubles. The store knows nothing of targets, and it never
//! allocates after `new`.
//!
//! **What goes** when there is no room: first what nobody needs any more, oldest first. Then,
//! whoever needs it: debug, then info, notice, warning, and only when nothing else is left err
//! and worse; within a class the oldest. What is told as missing stays as long as the most severe.
//!
//! The memory is cut into segments, and a segment holds entries of one class (see `pool`). A
//! cursor has a place in each class and reads the entry with the lowest seq. Since each seq
//! comes as a record or in a missing range, a jump in seq is what fell off.
//!
//! Room is made between the rounds of the pump ([`Store::round_over`]), when all that can read has
//! read: so a target that keeps up loses nothing because another one is stuck, and a record that
//! is less severe than everything else is still read by the former.

mod entry;
mod pool;

use self::{
    entry::{Extent, NEXT_CLASS_AT, NewRecord},
    pool::{CLASSES, Pool, Position},
};
use crate::{
    capture::sequencer::{MissingReason, ROUND_ENTRIES, Sink},
    record::Record,
};

/// Class of what is missing.
const MOST_SEVERE: usize = 0;
/// Levels up to this one, err, are one class.
const LEVEL_ERR: u8 = 3;

/// The newest records in strict seq order.
pub struct Store {
    pool: Pool,
    /// First seq that the store has not seen.
    next_seq: u64,
}

/// One target's place in the store.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    seq: u64,
    /// Where the next entry is, unless something fell off.
    class: u8,
    positions: [Position; CLASSES],
}

impl Default for Cursor {
    fn default() -> Self {
        Self { seq: 0, class: 0, positions: [Position::NOWHERE; CLASSES] }
    }
}

impl Cursor {
    /// The next seq to be read.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }
}

/// Where a record lies that is to be read once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its halves, lower one first: each target remembers thousands of places, and so none has
    /// padding.
    seq: [u32; 2],
    position: Position,
}

impl Place {
    /// Of no record.
    pub const NOWHERE: Self = Self { seq: [0; 2], position: Position::NOWHERE };

    fn new(seq: u64, position: Position) -> Self {
        Self { seq: [seq as u32, (seq >> 32) as u32], position }
    }

    /// Seq of the record.
    #[must_use]
    pub fn seq(&self) -> u64 {
        u64::from(self.seq[1]) << 32 | u64::from(self.seq[0])
    }
}

/// What a cursor finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A record, and where it lies.
    Record(Record<'a>, Place),
    /// Seqs that could not be had.
    Missing {
        /// How many, from the cursor on.
        count: u64,
        /// Why.
        reason: MissingReason,
    },
    /// Records that fell off before they were read.
    FellOff {
        /// How many seqs.
        count: u64,
    },
}

/// What a cursor points at.
struct Found {
    class: usize,
    /// At the cursor's seq, or behind what fell off.
    first_seq: u64,
    end_seq: u64,
    len_bytes: u32,
}

impl Store {
    /// A store of about `size_bytes` bytes (at least 64 KiB) whose first record will be
    /// `next_seq`. The memory is touched, so that no page fault comes later.
    #[must_use]
    pub fn new(size_bytes: usize, next_seq: u64) -> Self {
        Self { pool: Pool::new(size_bytes, ROUND_ENTRIES), next_seq }
    }

    /// First seq that the store has not seen.
    #[must_use]
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// A cursor at a seq, which may lie before the oldest entry: then it finds first what fell
    /// off since. Of a missing range that begins before it, it finds the rest.
    #[must_use]
    pub fn cursor_at(&self, seq: u64) -> Cursor {
        Cursor { seq: seq.min(self.next_seq), ..Cursor::default() }
    }

    /// A cursor behind the newest entry.
    #[must_use]
    pub fn cursor_at_end(&self) -> Cursor {
        self.cursor_at(self.next_seq)
    }

    /// Every target has been offered what is there, as far as it could take it, and all have done
    /// with the seqs before `needed_seq`: makes room for the next round. Of the next
    /// [`ROUND_ENTRIES`] entries none will be given up before the next call (but in a store
    /// below 1 MiB).
    pub fn round_over(&mut self, needed_seq: u64) {
        self.pool.round_over(needed_seq);
    }

    /// All have done with the seqs before `needed_seq`, but nothing else is to be given up: there
    /// may be no room for the next round ([`Sink::has_room`]).
    pub fn keep_from(&mut self, needed_seq: u64) {
        self.pool.keep_from(needed_seq);
    }

    /// Bytes that hold what some target needed when the last round was over, to within a segment
    /// per class. It looks at every segment.
    #[must_use]
    pub fn needed_bytes(&self) -> usize {
        self.pool.needed_bytes()
    }

    /// What the cursor points at; `None` if it has read everything.
    #[must_use]
    pub fn get(&self, cursor: &mut Cursor) -> Option<Entry<'_>> {
        let Some(Found { class, first_seq, end_seq, .. }) = self.find(cursor) else {
            let count = self.next_seq - cursor.seq;
            return (count > 0).then_some(Entry::FellOff { count });
        };
        if first_seq > cursor.seq {
            return Some(Entry::FellOff { count: first_seq - cursor.seq });
        }
        let position = cursor.positions[class];
        let bytes = self.pool.bytes_at(&position);
        Some(match entry::missing_reason(bytes) {
            Some(reason) => Entry::Missing { count: end_seq - first_seq, reason },
            None => Entry::Record(entry::read(bytes), Place::new(first_seq, position)),
        })
    }

    /// Moves the cursor behind what [`Self::get`] returned.
    pub fn advance(&self, cursor: &mut Cursor) {
        cursor.seq = match self.find(cursor) {
            None => self.next_seq,
            Some(Found { first_seq, .. }) if first_seq > cursor.seq => first_seq,
            Some(Found { class, end_seq, len_bytes, .. }) => {
                let position = &mut cursor.positions[class];
                cursor.class = self.pool.bytes_at(position)[NEXT_CLASS_AT];
                position.offset += len_bytes;
                end_seq
            }
        };
    }

    /// The record at a place; `None` if it fell off.
    #[must_use]
    pub fn at(&self, place: &Place) -> Option<Record<'_>> {
        let is_there = self.pool.is_there(&place.position);
        is_there.then(|| entry::read(self.pool.bytes_at(&place.position)))
    }

    /// The entry with the lowest seq from the cursor on.
    #[inline]
    fn find(&self, cursor: &mut Cursor) -> Option<Found> {
        match self.find_in(usize::from(cursor.class), cursor) {
            Some(found) if found.first_seq == cursor.seq => Some(found),
            _ => self.find_in_all(cursor),
        }
    }

    fn find_in_all(&self, cursor: &mut Cursor) -> Option<Found> {
        let all = (0..CLASSES).filter_map(|class| self.find_in(class, cursor));
        all.min_by_key(|found| found.first_seq)
    }

    #[inline]
    fn find_in(&self, class: usize, cursor: &mut Cursor) -> Option<Found> {
        let position = cursor.positions.get_mut(class)?;
        let Extent { len_bytes, first_seq, end_seq } =
            self.pool.seek(class, position, cursor.seq)?;
        // Of a range that the cursor is within, the rest.
        Some(Found { class, first_seq: first_seq.max(cursor.seq), end_seq, len_bytes })
    }
}

/// The class of a record's level.
fn class_of(level: u8) -> usize {
    usize::from((level & 7).saturating_sub(LEVEL_ERR))
}

impl Sink for Store {
    fn record(&mut self, record: &Record<'_>) {
        let new = NewRecord::new(record);
        self.next_seq = record.seq + 1;
        let class = class_of(record.level);
        let to = self.pool.append(class, new.len_bytes, record.seq, self.next_seq);
        new.write(to, class as u8);
    }

    fn missing(&mut self, first_seq: u64, count: u64, reason: MissingReason) {
        self.next_seq = first_seq + count;
        let to = self.pool.append(MOST_SEVERE, entry::HEAD_BYTES, first_seq, self.next_seq);
        entry::write_missing(to, MOST_SEVERE as u8, first_seq, count, reason);
    }

    fn has_room(&mut self, rounds: usize) -> bool {
        self.pool.has_room(rounds)
    }
}

#[cfg(test)]
mod tests;
