//! Memory layouts that the eBPF programs and the agent share.
//!
//! Everything here is plain data with a fixed `repr(C)` layout: what lies in
//! the ring buffers, what the agent tells the programs through read-only
//! globals, and the one word both sides write (the sleeper's flag). It holds no logic.
#![cfg_attr(not(feature = "user"), no_std)]

/// Version of [`RecordHead`]'s layout; the first field of each ring record, so
/// that a reader which did not load the programs can refuse what it does not know.
pub const LAYOUT_VERSION: u16 = 3;

/// Room for the text of one record in the programs' scratch. printk stores at
/// most 1024 bytes (`PRINTKRB_RECORD_MAX`); a power of two lets the verifier
/// follow the bound.
pub const TEXT_ROOM_BYTES: usize = 2048;
/// Room for the part of a `printk_info` that a program reads; a power of two as well.
pub const INFO_ROOM_BYTES: usize = 128;
/// Longest text that a program copies.
pub const TEXT_COPY_MAX_BYTES: u32 = (TEXT_ROOM_BYTES - 1) as u32;

/// [`RecordHead::kind`]: the text and the context are known, and `seq` is the
/// descriptor id; the header comes with the next record ([`FLAG_PREVIOUS`]), as [`KIND_HEADER`],
/// or from `/dev/kmsg`.
pub const KIND_TEXT: u8 = 1;
/// [`RecordHead::kind`]: the record is whole, [`DeviceInfo`] lies between the
/// head and the text.
pub const KIND_WHOLE: u8 = 2;
/// [`RecordHead::kind`]: the header of a record whose text came before, with its [`DeviceInfo`] and no
/// context. In the place of the text is the record's descriptor id, a `u64`.
pub const KIND_HEADER: u8 = 3;

/// [`RecordHead::flags`]: committed for good, nothing can be appended.
pub const FLAG_FINAL: u8 = 1 << 0;
/// [`RecordHead::flags`]: `LOG_CONT` was set (flag `c` in the extended header).
pub const FLAG_CONT: u8 = 1 << 1;
/// [`RecordHead::flags`]: the text could not be read; it is empty here.
pub const FLAG_TEXT_UNREAD: u8 = 1 << 2;

/// [`RecordHead::flags`]: the kernel had no room for the text and lost the record.
pub const FLAG_LOST: u8 = 1 << 3;
/// [`RecordHead::flags`]: the header in this [`KIND_TEXT`] is that of the record before.
pub const FLAG_PREVIOUS: u8 = 1 << 4;
/// [`RecordHead::flags`]: the record before this [`KIND_WHOLE`] was being written when this one was
/// committed: it has been reopened (`prb_reserve_in_last`), and one more item brings all of it.
pub const FLAG_PREVIOUS_OPEN: u8 = 1 << 5;

/// Head of one record in the ring buffer `RECORDS`. The text is the rest of the
/// ring record from `text_at` on.
///
/// A reader needs nothing else to send a half-known record: which fields are
/// known follows from `kind`.
///
/// The *header* is `ts_ns`, `caller_id`, `level`, `facility`, `header_text_len_bytes` and
/// [`FLAG_CONT`]. printk fills it in after the tracepoint; so a [`KIND_TEXT`] has, with
/// [`FLAG_PREVIOUS`], that of the record before, and else none.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RecordHead {
    /// [`LAYOUT_VERSION`].
    pub layout: u16,
    /// [`KIND_TEXT`] or [`KIND_WHOLE`].
    pub kind: u8,
    /// `FLAG_*` bits.
    pub flags: u8,
    /// Offset of the text from the start of the head, in bytes.
    pub text_at: u16,
    /// Length of the text in bytes.
    pub text_len_bytes: u16,
    /// printk's time of the record in nanoseconds; 0 if unknown.
    pub ts_ns: u64,
    /// `bpf_ktime_get_ns` when the program ran.
    pub ktime_ns: u64,
    /// Id of the current task's cgroup in the default hierarchy.
    pub cgroup_id: u64,
    /// CPU the program ran on.
    pub cpu: u32,
    /// Thread id of the current task.
    pub pid: u32,
    /// `caller_id` of the record; 0 if unknown.
    pub caller_id: u32,
    /// syslog level.
    pub level: u8,
    /// syslog facility.
    pub facility: u8,
    /// Length of the text of the record that the header is of.
    pub header_text_len_bytes: u16,
    /// Name of the current task, NUL-padded.
    pub comm: [u8; 16],
    /// Leaf name of its cgroup, NUL-terminated, cut at 63 bytes.
    pub cgroup: [u8; 64],
    /// Sequence number ([`KIND_WHOLE`], [`KIND_HEADER`]), or the word before the text, which is
    /// the descriptor id unless the text continues another one ([`KIND_TEXT`]).
    /// Last, so that one read brings the word and the text behind it.
    pub seq: u64,
}

/// Subsystem and device of a whole record, NUL-terminated
/// (`struct dev_printk_info`, `include/linux/dev_printk.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceInfo {
    /// `SUBSYSTEM=`.
    pub subsystem: [u8; 16],
    /// `DEVICE=`.
    pub device: [u8; 48],
}

/// Bytes before the text of a [`KIND_TEXT`] record.
pub const TEXT_AT_TEXT: usize = core::mem::size_of::<RecordHead>();
/// Bytes before the text of a [`KIND_WHOLE`] record.
pub const TEXT_AT_WHOLE: usize = TEXT_AT_TEXT + core::mem::size_of::<DeviceInfo>();

const _: () = assert!(TEXT_AT_TEXT == 136 && TEXT_AT_WHOLE == 200);

/// One event of a network device, in the ring buffer `NETDEV_EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NetdevEvent {
    /// `bpf_ktime_get_ns` of the event.
    pub ktime_ns: u64,
    /// `NETDEV_*` number (`include/linux/netdevice.h`).
    pub event: u32,
    /// Interface index.
    pub ifindex: u32,
    /// Name of the interface at that moment, NUL-terminated.
    pub name: [u8; 16],
}

/// The word the data thread and the programs share (map `SLEEPER`).
///
/// The sleeper writes 1, looks at the ring once more and then waits on
/// `DOORBELL`; a program that finds 1 after its record is committed writes 0 and
/// rings. Both sides have a full barrier between their write and their look
/// (`SeqCst` fence there, the ring buffer's `xchg` on commit here), so one of the two sees
/// the other.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sleeper {
    /// 1 while a thread waits, or is about to wait, for the doorbell.
    pub asleep: u32,
    /// Keeps the value eight bytes long.
    pub reserved: u32,
}

/// What the programs and the agent tell each other while the machine dies (map `LAST_WORDS`).
///
/// Programs write the first cache line, the agent the second. Nobody writes here before a panic
/// but the agent when its configuration changes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LastWords {
    /// CPU that called `panic` first, plus one; 0 while none has.
    pub panic_cpu_plus_one: u32,
    /// What proved it: an `ARMED_BY_*` number.
    pub armed_by: u32,
    /// `bpf_ktime_get_ns` of that moment.
    pub armed_ktime_ns: u64,
    /// The producers' position in `RECORDS` at that moment: what follows are last words.
    pub armed_position: u64,
    /// How long lines have been held in all.
    pub spent_ns: u64,
    /// Lines that were held.
    pub held: u64,
    /// Held lines that went on without having been acknowledged.
    pub timed_out: u64,
    /// Keeps what the agent writes in another cache line.
    pub reserved: [u64; 2],
    /// How long a line waits without the agent having handed on anything more; 0: it is not held.
    pub hold_ns: u64,
    /// How long all lines may be held together.
    pub budget_ns: u64,
    /// Position in `RECORDS` before which everything was handed to the network device.
    pub acked_position: u64,
    /// Address of the kernel's `panic_cpu`; 0 if it is not known.
    pub panic_cpu_address: u64,
}

const _: () = assert!(core::mem::offset_of!(LastWords, hold_ns) == 64);

/// [`LastWords::armed_by`]: the programs on `vpanic` or `panic` ran.
pub const ARMED_BY_HOOK: u32 = 1;
/// [`LastWords::armed_by`]: the kernel's `panic_cpu` was the printing CPU.
pub const ARMED_BY_PANIC_CPU: u32 = 2;

/// Indices of the per-CPU counters in the map `COUNTERS`.
pub mod counter {
    /// Records written to the ring.
    pub const CAPTURED: u32 = 0;
    /// Records that found the ring full (or its lock taken, in NMI context).
    pub const RING_FULL: u32 = 1;
    /// Reads of kernel memory that failed.
    pub const READ_ERROR: u32 = 2;
    /// Times the doorbell was rung.
    pub const DOORBELL: u32 = 3;
    /// Events of network devices written.
    pub const NETDEV: u32 = 4;
    /// Events of network devices that found their ring full.
    pub const NETDEV_FULL: u32 = 5;
    /// Whole records that were left out because the ring was filling up, by level: the
    /// first is [`super::SHED_MILDEST`]'s, the next one's level is one less.
    pub const SHED: u32 = 6;
    /// Number of counters.
    pub const COUNT: u32 = SHED + super::SHED_LEVELS;
}

/// The mildest level: debug. It is sacrificed first.
pub const SHED_MILDEST: u8 = 7;
/// The severest level that is sacrificed while the ring still has room: warning. Errors and
/// worse are written as long as there is any.
pub const SHED_SEVEREST: u8 = 4;
/// How many levels are sacrificed.
pub const SHED_LEVELS: u32 = (SHED_MILDEST - SHED_SEVEREST) as u32 + 1;
/// Sixteenths of the ring that may be in use for a record of [`SHED_MILDEST`] to be
/// written; each level more severe may find one sixteenth more in use.
///
/// While the agent waits for a missing record it holds up to half of the ring back
/// (`is_crowded` in `agent/src/capture/bpf/ring.rs`), which is no overload. Two sixteenths
/// above that are for what comes in while it lets go. Above the last mark three sixteenths
/// are left for errors and worse alone.
pub const SHED_FROM_SIXTEENTHS: u32 = 10;

/// Where the running kernel keeps the fields that the programs read; from its
/// BTF. Offsets are in bytes from the start of the named struct.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Offsets {
    /// `prb_reserved_entry.rb`.
    pub entry_rb: u32,
    /// `prb_reserved_entry.id`.
    pub entry_id: u32,
    /// `printk_ringbuffer.desc_ring`.
    pub rb_desc_ring: u32,
    /// `printk_ringbuffer.text_data_ring`.
    pub rb_text_data_ring: u32,
    /// `prb_desc_ring.count_bits`.
    pub desc_ring_count_bits: u32,
    /// `prb_desc_ring.descs`.
    pub desc_ring_descs: u32,
    /// `prb_desc_ring.infos`.
    pub desc_ring_infos: u32,
    /// Size of `prb_desc`.
    pub desc_size: u32,
    /// `prb_desc.text_blk_lpos`.
    pub desc_text_blk_lpos: u32,
    /// `prb_desc.state_var`.
    pub desc_state_var: u32,
    /// `prb_data_ring.size_bits`.
    pub data_ring_size_bits: u32,
    /// `prb_data_ring.data`.
    pub data_ring_data: u32,
    /// Size of `printk_info`.
    pub info_size: u32,
    /// `printk_info.seq`.
    pub info_seq: u32,
    /// `printk_info.ts_nsec`.
    pub info_ts_nsec: u32,
    /// `printk_info.text_len`.
    pub info_text_len: u32,
    /// `printk_info.facility`.
    pub info_facility: u32,
    /// Byte that holds the bit fields `flags` and `level`.
    pub info_flags_level: u32,
    /// First bit of `level` in that byte.
    pub info_level_shift: u32,
    /// `printk_info.caller_id`.
    pub info_caller_id: u32,
    /// `printk_info.dev_info`.
    pub info_dev_info: u32,
    /// How much of a `printk_info` has to be read for its header, less than [`INFO_ROOM_BYTES`];
    /// 0 if the layout is not known.
    pub info_header_bytes: u32,
    /// `task_struct.cgroups`, 0 if the task's fields are not known.
    pub task_cgroups: u32,
    /// `task_struct.pid`.
    pub task_pid: u32,
    /// `task_struct.comm`.
    pub task_comm: u32,
    /// `css_set.dfl_cgrp`.
    pub css_set_dfl_cgrp: u32,
    /// `cgroup.kn`.
    pub cgroup_kn: u32,
    /// `kernfs_node.id`.
    pub kernfs_node_id: u32,
    /// `kernfs_node.name`.
    pub kernfs_node_name: u32,
    /// `netdev_notifier_info.dev`.
    pub notifier_info_dev: u32,
    /// `net_device.ifindex`.
    pub net_device_ifindex: u32,
    /// `net_device.name`.
    pub net_device_name: u32,
    /// `net_device.nd_net.net`.
    pub net_device_net: u32,
    /// `net.ns.inum`.
    pub net_ns_inum: u32,
    /// Inode number of the agent's network namespace.
    pub own_netns_inum: u32,
    /// A sixteenth of the ring `RECORDS` in bytes.
    pub ring_sixteenth_bytes: u32,
}

#[cfg(feature = "user")]
#[allow(unsafe_code, reason = "aya's marker trait for plain data is an unsafe trait")]
mod user {
    // SAFETY: `repr(C)`, only `u32` fields, no padding, any bit pattern is valid.
    unsafe impl aya::Pod for super::Offsets {}
    // SAFETY: `repr(C)`, only `u32` fields, no padding, any bit pattern is valid.
    unsafe impl aya::Pod for super::Sleeper {}
    // SAFETY: `repr(C)`, only integers, no padding, any bit pattern is valid.
    unsafe impl aya::Pod for super::LastWords {}
}
