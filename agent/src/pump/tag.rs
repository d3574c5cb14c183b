//! What the pump writes into the tag of a datagram: its target, whether it begins
//! or ends a record, and whether that record is approximated.

use crate::egress::Tag;

const APPROXIMATED: u64 = 1 << 61;
const FIRST: u64 = 1 << 62;
const LAST: u64 = 1 << 63;

/// A tag, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Datagram {
    pub(super) target: usize,
    pub(super) first: bool,
    pub(super) last: bool,
    pub(super) approximated: bool,
}

impl From<Datagram> for Tag {
    fn from(datagram: Datagram) -> Self {
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        Self(
            datagram.target as u64
                | bit(datagram.first, FIRST)
                | bit(datagram.last, LAST)
                | bit(datagram.approximated, APPROXIMATED),
        )
    }
}

impl From<Tag> for Datagram {
    fn from(tag: Tag) -> Self {
        Self {
            target: (tag.0 & !(FIRST | LAST | APPROXIMATED)) as usize,
            first: tag.0 & FIRST != 0,
            last: tag.0 & LAST != 0,
            approximated: tag.0 & APPROXIMATED != 0,
        }
    }
}
