//! The memory of the store: segments of one size, in one queue per class of severity.
//!
//! It knows which segment is given up when there are none left, and nothing of cursors: who
//! remembers a place in a segment remembers its generation too, and sees that it is gone.

use super::entry::{self, ENTRY_MAX_BYTES, Extent, NEXT_CLASS_AT};

/// Classes of severity, the most severe first: err and worse (with what is missing), warning,
/// notice, info, debug.
pub(super) const CLASSES: usize = 5;

/// No segment.
pub(super) const NONE: u32 = u32::MAX;

/// A store has so many segments, unless they became too small or too large by that.
const SEGMENTS: usize = 256;
/// Holds three of the longest entries.
const SEGMENT_MIN_BYTES: usize = 4096;
/// Offsets are within the 16 bits of an entry's length, and the pieces that fall off are small.
const SEGMENT_MAX_BYTES: usize = 1 << 16;
const _: () = assert!(SEGMENT_MIN_BYTES >= 3 * ENTRY_MAX_BYTES);

/// Where an entry lies, or will lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) generation: u32,
    pub(super) offset: u32,
}

impl Position {
    pub(super) const NOWHERE: Self = Self { segment: NONE, generation: 0, offset: 0 };
}

/// One segment of a queue.
#[derive(Clone, Copy, Default)]
struct Segment {
    /// Changes when the segment is given up.
    generation: u32,
    /// Bytes in use.
    len_bytes: u32,
    /// The next one in its queue, or in the list of those that are free.
    next: u32,
    /// Of its oldest entry.
    first_seq: u64,
    /// Behind its newest entry.
    end_seq: u64,
}

/// Segments with entries, oldest first.
#[derive(Clone, Copy)]
struct Queue {
    head: u32,
    tail: u32,
}

/// See the module's description.
pub(super) struct Pool {
    bytes: Box<[u8]>,
    segment_bytes: usize,
    segments: Box<[Segment]>,
    queues: [Queue; CLASSES],
    /// First of the free segments, and how many there are.
    free: u32,
    free_count: usize,
    /// As many are made free after each round.
    reserve: usize,
    /// Nobody needs what is before.
    needed_seq: u64,
    /// Index of the newest entry.
    newest: usize,
}

impl Pool {
    /// Touches the memory, so that no page fault comes later. What comes in one round, at most
    /// `round_entries`, finds room in the reserve, unless the pool is tiny.
    pub(super) fn new(size_bytes: usize, round_entries: usize) -> Self {
        let size_bytes = size_bytes.max(16 * SEGMENT_MIN_BYTES);
        let segment_bytes =
            (size_bytes / SEGMENTS).clamp(SEGMENT_MIN_BYTES, SEGMENT_MAX_BYTES) & !7;
        let count = size_bytes / segment_bytes;
        // `vec![0]` maps zero pages lazily; writing something else touches them.
        let mut bytes = vec![0; count * segment_bytes].into_boxed_slice();
        for page in bytes.chunks_mut(4096) {
            page[0] = 1;
        }
        let segments = (1..=count as u32)
            .map(|next| Segment {
                next: if next == count as u32 { NONE } else { next },
                ..Segment::default()
            })
            .collect();
        // At the end of each there may be no room for one more entry, and one per class is
        // not full.
        let round_segments =
            (round_entries * ENTRY_MAX_BYTES).div_ceil(segment_bytes - ENTRY_MAX_BYTES) + CLASSES;
        Self {
            bytes,
            segment_bytes,
            segments,
            queues: [Queue { head: NONE, tail: NONE }; CLASSES],
            free: 0,
            free_count: count,
            reserve: round_segments.min(count / 4),
            needed_seq: 0,
            newest: 0,
        }
    }

    /// Room for a new entry of at most [`ENTRY_MAX_BYTES`] behind the newest of its class.
    #[inline]
    pub(super) fn append(
        &mut self,
        class: usize,
        len_bytes: usize,
        first_seq: u64,
        end_seq: u64,
    ) -> &mut [u8] {
        // Before anything moves: its segment may have been given up, but not used again.
        self.bytes[self.newest + NEXT_CLASS_AT] = class as u8;
        let mut index = self.queues[class].tail;
        if index == NONE || self.room_in(index) < len_bytes {
            index = self.take();
            self.link(class, index, first_seq);
        }
        let segment = &mut self.segments[index as usize];
        let at = index as usize * self.segment_bytes + segment.len_bytes as usize;
        segment.len_bytes += len_bytes as u32;
        segment.end_seq = end_seq;
        self.newest = at;
        &mut self.bytes[at..at + len_bytes]
    }

    /// Nobody needs what is before `needed_seq`, and who could send has been offered all there
    /// is: makes room for the next round.
    pub(super) fn round_over(&mut self, needed_seq: u64) {
        self.keep_from(needed_seq);
        while self.free_count < self.reserve && self.give_up_one() {}
    }

    /// Nobody needs what is before `needed_seq`.
    pub(super) fn keep_from(&mut self, needed_seq: u64) {
        self.needed_seq = needed_seq;
    }

    /// Bytes of the segments in which there is something that somebody needs.
    pub(super) fn needed_bytes(&self) -> usize {
        let mut bytes = 0;
        for queue in &self.queues {
            let mut index = queue.head;
            while let Some(segment) = self.segments.get(index as usize) {
                let is_needed = segment.end_seq > self.needed_seq;
                bytes += if is_needed { segment.len_bytes as usize } else { 0 };
                index = segment.next;
            }
        }
        bytes
    }

    /// Whether what comes in so many rounds finds room in what is free, or needed by nobody.
    pub(super) fn has_room(&mut self, rounds: usize) -> bool {
        let wanted = rounds * self.reserve;
        while self.free_count < wanted
            && let Some(class) = self.oldest_unneeded()
        {
            self.free_head(class);
        }
        self.free_count >= wanted
    }

    /// Moves a position to the next entry of its class that speaks of `seq` or a later one, or
    /// to where that will be; returns what it finds there.
    #[inline]
    pub(super) fn seek(&self, class: usize, position: &mut Position, seq: u64) -> Option<Extent> {
        let mut segment = match self.segment_of(position) {
            Some(segment) => segment,
            None => self.enter(position, self.queues[class].head)?,
        };
        loop {
            if position.offset < segment.len_bytes {
                if segment.end_seq > seq {
                    let extent = entry::extent(self.bytes_at(position));
                    if extent.end_seq > seq {
                        return Some(extent);
                    }
                    position.offset += extent.len_bytes;
                    continue;
                }
                position.offset = segment.len_bytes;
            }
            segment = self.enter(position, segment.next)?;
        }
    }

    /// The bytes from a position on that [`Self::seek`] found, or that is still there.
    #[inline]
    pub(super) fn bytes_at(&self, position: &Position) -> &[u8] {
        let begin = position.segment as usize * self.segment_bytes;
        &self.bytes[begin + position.offset as usize..begin + self.segment_bytes]
    }

    /// Segments that are free.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free_count
    }

    /// Whether what was at a position is still there.
    #[inline]
    pub(super) fn is_there(&self, position: &Position) -> bool {
        self.segment_of(position).is_some()
    }

    #[inline]
    fn segment_of(&self, position: &Position) -> Option<&Segment> {
        let segment = self.segments.get(position.segment as usize)?;
        (segment.generation == position.generation).then_some(segment)
    }

    fn enter(&self, position: &mut Position, index: u32) -> Option<&Segment> {
        let segment = self.segments.get(index as usize)?;
        *position = Position { segment: index, generation: segment.generation, offset: 0 };
        Some(segment)
    }

    fn room_in(&self, index: u32) -> usize {
        self.segment_bytes - self.segments[index as usize].len_bytes as usize
    }

    /// Puts an empty segment at the end of a queue.
    fn link(&mut self, class: usize, index: u32, first_seq: u64) {
        let queue = &mut self.queues[class];
        match self.segments.get_mut(queue.tail as usize) {
            Some(tail) => tail.next = index,
            None => queue.head = index,
        }
        queue.tail = index;
        let segment = &mut self.segments[index as usize];
        (segment.len_bytes, segment.next) = (0, NONE);
        (segment.first_seq, segment.end_seq) = (first_seq, first_seq);
    }

    /// A free segment.
    fn take(&mut self) -> u32 {
        if self.free == NONE {
            self.give_up_one();
        }
        let index = self.free;
        self.free = self.segments[index as usize].next;
        self.free_count -= 1;
        index
    }

    /// Frees the oldest segment that nobody needs; else, in the order of sacrifice, the oldest
    /// one of the least severe class there is.
    fn give_up_one(&mut self) -> bool {
        let least_severe = || (0..CLASSES).rev().find(|class| self.queues[*class].head != NONE);
        let Some(class) = self.oldest_unneeded().or_else(least_severe) else { return false };
        self.free_head(class);
        true
    }

    /// The class of the oldest segment that nobody needs.
    fn oldest_unneeded(&self) -> Option<usize> {
        let head =
            |class: usize| Some((class, self.segments.get(self.queues[class].head as usize)?));
        let unneeded =
            (0..CLASSES).filter_map(head).filter(|(_, head)| head.end_seq <= self.needed_seq);
        unneeded.min_by_key(|(_, head)| head.first_seq).map(|(class, _)| class)
    }

    fn free_head(&mut self, class: usize) {
        let queue = &mut self.queues[class];
        let index = queue.head;
        let segment = &mut self.segments[index as usize];
        queue.head = segment.next;
        if queue.head == NONE {
            queue.tail = NONE;
        }
        segment.generation = segment.generation.wrapping_add(1);
        segment.next = self.free;
        self.free = index;
        self.free_count += 1;
    }
}
