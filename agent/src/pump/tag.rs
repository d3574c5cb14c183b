//! What the pump writes into the tag of a datagram: its target, the seq of its record,
//! whether it begins or ends it, and whether that record is approximated or back-filled. A message of an
//! operator has its number in place of the seq.

use crate::egress::Tag;

const TARGET: u64 = 0xff;
const GENERATION_SHIFT: u32 = 8;
const SEQ_SHIFT: u32 = 16;
const BACKFILLED: u64 = 1 << 59;
const MESSAGE: u64 = 1 << 60;
const APPROXIMATED: u64 = 1 << 61;
const FIRST: u64 = 1 << 62;
const LAST: u64 = 1 << 63;

/// A tag, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    /// Index of the target, below 256.
    pub(super) target: usize,
    /// Which of the targets that had this index one after the other.
    pub(super) generation: u8,
    /// The low half of the record's seq: what is in flight is no further apart. The number of
    /// a message.
    pub(super) seq_low: u32,
    pub(super) first: bool,
    pub(super) last: bool,
    pub(super) approximated: bool,
    pub(super) backfilled: bool,
    /// No record, but a message.
    pub(super) message: bool,
}

impl Datagram {
    /// One that is no record.
    pub(super) fn of_message(target: usize, generation: u8, number: u32) -> Self {
        Self {
            target,
            generation,
            seq_low: number,
            first: true,
            last: true,
            approximated: false,
            backfilled: false,
            message: true,
        }
    }
}

impl From<Datagram> for Tag {
    fn from(datagram: Datagram) -> Self {
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        Self(
            (datagram.target as u64 & TARGET)
                | u64::from(datagram.generation) << GENERATION_SHIFT
                | u64::from(datagram.seq_low) << SEQ_SHIFT
                | bit(datagram.first, FIRST)
                | bit(datagram.last, LAST)
                | bit(datagram.approximated, APPROXIMATED)
                | bit(datagram.backfilled, BACKFILLED)
                | bit(datagram.message, MESSAGE),
        )
    }
}

impl From<Tag> for Datagram {
    fn from(tag: Tag) -> Self {
        Self {
            target: (tag.0 & TARGET) as usize,
            generation: (tag.0 >> GENERATION_SHIFT) as u8,
            // Cuts the flags off.
            seq_low: (tag.0 >> SEQ_SHIFT) as u32,
            first: tag.0 & FIRST != 0,
            last: tag.0 & LAST != 0,
            approximated: tag.0 & APPROXIMATED != 0,
            backfilled: tag.0 & BACKFILLED != 0,
            message: tag.0 & MESSAGE != 0,
        }
    }
}
