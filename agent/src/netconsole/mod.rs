//! The netconsole wire format: kernel records to datagrams and back.
//!
//! Pure functions over `(record, target settings)`: no clock, no I/O, and no
//! allocation on the way out. It does not send, pace, filter or number
//! anything; `msgid` and the time of a reassembly are passed in.
//!
//! Encoding follows `kernel/printk/printk.c` (`info_print_ext_header`,
//! `msg_print_ext_body`, `record_print_text`) and `drivers/net/netconsole.c`
//! (`send_ext_msg_udp`, `send_msg_udp`) of Linux 7.x. Decoding follows
//! `parse_packet` of netconsd's `ncrx/libncrx.c` and is wider only where the
//! kernel sends more than netconsd takes.

mod basic;
pub mod decode;
pub mod encode;
pub mod escape;
pub mod format;
mod out;
pub mod reassemble;
pub mod sysdata;

#[cfg(test)]
mod proptests;

pub(crate) use basic::{PREFIX_MAX_BYTES, syslog_prefix};
pub use decode::{DecodeError, Dict, DictLine, Flag, Fragment, Header, parse_header};
pub use encode::{Datagrams, Encoder};
pub use format::{BasicStyle, Format, FormatKind, Sysdata, SysdataKey, UserdataError};
pub use reassemble::{Limits, Message, Reassembler};
pub use sysdata::{Extras, HostLines};

/// Longest datagram in bytes (`MAX_PRINT_CHUNK`, `drivers/net/netconsole.c`).
pub const DATAGRAM_MAX_BYTES: usize = 1000;
