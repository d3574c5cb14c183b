//! What a dying machine says gets out.
//!
//! While the kernel panics, the ring half of each record is sent at once, past store, order, pace and
//! the usual sockets, by whoever is still alive: the pump or its [`Understudy`], which is pinned to a
//! CPU where the pump never runs. A [`Speaker`] is what both use. The programs hold the
//! printing CPU meanwhile (`agent-ebpf/src/last_words.rs`) until the speaker has acknowledged the line.
//!
//! What is said here is said besides the account: a record that the pump has sent, or sends later if
//! the machine lives, is the same datagram again, which receivers drop by its seq.

mod beacon;
mod dump;
pub mod placement;
pub mod plan;
mod proof;
mod speaker;
mod understudy;
mod voice;
mod watch;

pub use self::{
    beacon::{Beacon, Claim, Progress},
    dump::{DumpDesk, TEXT_BYTES},
    proof::{HoldState, find_panic_cpu, open_symbols},
    speaker::{Said, Speaker, SpeakerParts},
    understudy::Understudy,
    watch::{ReportWatch, Watched},
};

/// How long the kernel may have panicked without the machine's end before it is believed to live:
/// longer than any hold, and than what other CPUs are given after their stop was asked for.
pub const LIVES_AFTER_NS: u64 = 10_000_000_000;
/// How often who speaks looks for the next line: the printing CPU waits for it.
pub const SPEAKING_NAP_NS: u64 = 50_000;
