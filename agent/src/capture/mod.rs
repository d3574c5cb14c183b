//! Capture: where kernel log records come from, and in which order they go on.
//!
//! Three sources, each a step down: commit hooks, the printk tracepoint joined
//! with `/dev/kmsg`, and `/dev/kmsg` alone. [`open()`] takes the best one that this host
//! allows. Nothing here knows targets or networks.

pub mod bpf;
pub mod btf;
pub mod kmsg;
pub mod kmsg_record;
pub mod offsets;
mod open;
mod replay;
pub mod ring_record;
pub mod sequencer;
pub mod wait;
pub mod wake;

pub use open::{Capture, CaptureError, Choice, LastWordsCapture, SourceKind, SourceReport, open};
pub use replay::Replay;
