//! netoops: dumps of the kernel log's tail, from the text to packets and back.
//!
//! Pure: no clock, no I/O, and no allocation on the way out. It decides neither when
//! a dump is due nor where it goes; that is the sending thread's work, and the files of the
//! receiver are written by `cli::receive`.
//!
//! The format is that of Google's `drivers/net/netoops.c` as posted in 2010 (version 2 of the
//! packet; LWN 414031): [`wire`] is the packet, [`text_ring`] the text that a dump is taken
//! from, [`dump`] makes packets of it, and [`assemble`] makes text of the packets.

pub mod assemble;
mod assembled;
pub mod dump;
pub mod text_ring;
pub mod wire;

#[cfg(test)]
mod proptests;

pub use assemble::{Assembler, Limits, Outcome};
pub use assembled::{Assembled, placeholder};
pub use dump::{Dump, DumpTooLong};
pub use text_ring::{TextReader, TextRing};
pub use wire::{Header, Kind, PORT, WireError};
