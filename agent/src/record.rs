//! The kernel log record, as every room of the agent speaks of it.
//!
//! A [`Record`] borrows its bytes from wherever they lie (the BPF ring, the
//! queue of the `/dev/kmsg` thread, the record store), so that passing one on
//! copies nothing. It is *not* a wire format: `netconsole` turns it into one.

/// Longest text of one record in bytes (`PRINTKRB_RECORD_MAX` in
/// `kernel/printk/printk.c`, Linux 6.12; `LOG_LINE_MAX` before is shorter).
pub const TEXT_MAX_BYTES: usize = 1024;
/// Longest subsystem in bytes (`PRINTK_INFO_SUBSYSTEM_LEN` less the NUL,
/// `include/linux/dev_printk.h`).
pub const SUBSYSTEM_MAX_BYTES: usize = 15;
/// Longest device in bytes (`PRINTK_INFO_DEVICE_LEN` less the NUL).
pub const DEVICE_MAX_BYTES: usize = 47;
/// Longest task name in bytes (`TASK_COMM_LEN` less the NUL).
pub const TASK_MAX_BYTES: usize = 15;
/// Longest cgroup leaf name that is kept, in bytes.
pub const CGROUP_MAX_BYTES: usize = 63;

/// One kernel log record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Sequence number that the kernel gave it; unique within one boot.
    pub seq: u64,
    /// printk's clock in nanoseconds since boot; whole microseconds when the
    /// record came from `/dev/kmsg`.
    pub ts_ns: u64,
    /// syslog facility; the kernel stores a `u8`, so the priority field of the
    /// header goes up to 2047.
    pub facility: u8,
    /// syslog level, 0 (emergency) to 7 (debug).
    pub level: u8,
    /// The record is a `KERN_CONT` piece that could not be joined to its
    /// beginning (flag `c` of the extended header).
    pub cont: bool,
    /// Who printed it, on kernels with `CONFIG_PRINTK_CALLER`.
    pub caller: Option<Caller>,
    /// The text without its final newline, raw (not escaped).
    pub text: &'a [u8],
    /// Subsystem of the device the record speaks of, empty if none.
    pub subsystem: &'a [u8],
    /// Device the record speaks of (`+pci:0000:00:03.0`, `n2`, …), empty if none.
    pub device: &'a [u8],
    /// Where it was printed; known when an eBPF program saw the printk call.
    pub context: Option<Context<'a>>,
    /// Level, facility, time and dictionary are estimates, because the
    /// `/dev/kmsg` half of the record was gone before it could be read.
    pub approximated: bool,
    /// It was logged while the programs were attached, and they did not deliver it: all of it
    /// is from `/dev/kmsg`.
    pub backfilled: bool,
}

impl Record<'_> {
    /// The priority field of the extended header: `facility << 3 | level`.
    #[must_use]
    pub fn prio(&self) -> u32 {
        (u32::from(self.facility) << 3) | u32::from(self.level & 7)
    }
}

/// Who printed a record (`caller_id` of `struct printk_info`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A task, by its thread id.
    Task(u32),
    /// A CPU outside of task context.
    Cpu(u32),
}

/// The context in which printk was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context<'a> {
    /// CPU that called printk.
    pub cpu: u32,
    /// Thread id of the current task there.
    pub pid: u32,
    /// Name of that task (`comm`).
    pub task: &'a [u8],
    /// Id of the task's cgroup in the default hierarchy.
    pub cgroup_id: u64,
    /// Leaf name of that cgroup, cut at [`CGROUP_MAX_BYTES`].
    pub cgroup: &'a [u8],
}
