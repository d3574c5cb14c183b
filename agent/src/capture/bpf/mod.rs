//! The agent's side of the eBPF programs: loading them, and the memory shared
//! with them. The only room besides `egress/xdp` with `unsafe` code: mapped
//! kernel memory is raw memory.

mod alarm;
mod allocator;
mod log_buffer;
mod mapping;
mod programs;
mod refusal;
mod ring;
mod ring_view;
mod runs;
mod shared_word;
mod sleeper;
mod trial;

pub use alarm::{Alarm, Held, Panic};
pub use allocator::give_large_blocks_back;
pub use log_buffer::log_buffer_bytes;
pub use programs::{Counters, NetdevHook, PanicHook, ProbeError, Probes, RecordHook};
pub use refusal::Refusal;
pub use ring::MappedRing;
pub use ring_view::{ITEM_BYTES, RingView, Seen};
pub use runs::ProgramRuns;
pub use shared_word::SharedWord;
pub use sleeper::{Doorbell, SleeperFlag};
pub use trial::{HookPurpose, HookTrial};
