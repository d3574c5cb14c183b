//! What the pump writes into the tag of a datagram: its target, the seq of its record,
//! whether it begins or ends it, and whether that record is approximated.

use crate::egress::Tag;

const TARGET: u64 = 0xffff;
const SEQ_SHIFT: u32 = 16;
const APPROXIMATED: u64 = 1 << 61;
const FIRST: u64 = 1 << 62;
const LAST: u64 = 1 << 63;

/// A tag, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) target: usize,
    /// The low half of the record's seq: what is in flight is no further apart.
    pub(super) seq_low: u32,
    pub(super) first: bool,
    pub(super) last: bool,
    pub(super) approximated: bool,
}

impl From<Datagram> for Tag {
    fn from(datagram: Datagram) -> Self {
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        Self(
            (datagram.target as u64 & TARGET)
                | u64::from(datagram.seq_low) << SEQ_SHIFT
                | bit(datagram.first, FIRST)
                | bit(datagram.last, LAST)
                | bit(datagram.approximated, APPROXIMATED),
        )
    }
}

impl From<Tag> for Datagram {
    fn from(tag: Tag) -> Self {
        Self {
            target: (tag.0 & TARGET) as usize,
            // Cuts the flags off.
            seq_low: (tag.0 >> SEQ_SHIFT) as u32,
            first: tag.0 & FIRST != 0,
            last: tag.0 & LAST != 0,
            approximated: tag.0 & APPROXIMATED != 0,
        }
    }
}
