//! Maps, read-only globals, and the few operations on them.

use agent_common::{
    DeviceInfo, INFO_ROOM_BYTES, Offsets, RecordHead, SHED_FROM_SIXTEENTHS, SHED_MILDEST,
    SHED_SEVEREST, Sleeper, TEXT_ROOM_BYTES, counter,
};
use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_ringbuf_output, bpf_ringbuf_query},
    macros::map,
    maps::{Array, PerCpuArray, RingBuf},
};

use crate::header::STACK_WORDS;

/// Records on their way to the agent; the agent sets the size at load time.
#[map]
pub(crate) static RECORDS: RingBuf = RingBuf::with_byte_size(8 << 20, 0);

/// Carries no data: its wake-up is the doorbell of whoever sleeps. A ring of its
/// own, because the wake-up of a ring reaches only a waiter for whom that ring
/// is not empty, and the pump may have emptied `RECORDS` by then.
#[map]
static DOORBELL: RingBuf = RingBuf::with_byte_size(4096, 0);

#[map]
static SLEEPER: Array<Sleeper> = Array::with_max_entries(1, BPF_F_MMAPABLE);

#[map]
pub(crate) static NETDEV_EVENTS: RingBuf = RingBuf::with_byte_size(64 << 10, 0);

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// The seq of the newest record that was written while it was still open. printk has one
/// open record at most, the newest (`prb_reserve_in_last`, `printk_ringbuffer.c`).
#[map]
static OPEN: Array<u64> = Array::with_max_entries(1, 0);

/// Scratch of the text programs: one entry per program, since an NMI may run one
/// program in the middle of another on the same CPU.
#[map]
pub(crate) static TEXT_SCRATCH: PerCpuArray<TextScratch> = PerCpuArray::with_max_entries(1, 0);
#[map]
pub(crate) static WHOLE_SCRATCH: PerCpuArray<WholeScratch> = PerCpuArray::with_max_entries(2, 0);

/// Set by the agent before the programs are loaded.
#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> = Global::new(ZERO_OFFSETS);

// SAFETY: all fields are integers, for which zero is a value.
const ZERO_OFFSETS: Offsets = unsafe { core::mem::zeroed() };

#[repr(C)]
pub(crate) struct TextRecord {
    pub(crate) head: RecordHead,
    pub(crate) text: [u8; TEXT_ROOM_BYTES],
}

/// What the text program of one CPU works with.
#[repr(C)]
pub(crate) struct TextScratch {
    /// Descriptor id of the text before.
    pub(crate) last_id: u64,
    /// 1 once the agent was told what a descriptor id lacks to be a seq.
    pub(crate) is_id_told: u64,
    /// Descriptor id of a record whose header could not be brought yet.
    pub(crate) owed_id: u64,
    pub(crate) info: InfoBytes,
    pub(crate) stack: [u64; STACK_WORDS],
    pub(crate) record: TextRecord,
}

/// What the programs on commits work with.
#[repr(C)]
pub(crate) struct WholeScratch {
    pub(crate) info: InfoBytes,
    pub(crate) record: WholeRecord,
}

/// Room for the part of a `printk_info` that is read; aligned like one.
pub(crate) type InfoBytes = [u64; INFO_ROOM_BYTES / 8];

#[repr(C)]
pub(crate) struct WholeRecord {
    pub(crate) head: RecordHead,
    pub(crate) device: DeviceInfo,
    pub(crate) text: [u8; TEXT_ROOM_BYTES],
}

/// The offsets. A field is read with [`offset!`]: loading the struct as a whole
/// costs 30 loads in each program run.
pub(crate) const OFFSETS_PTR: *const Offsets = (&raw const OFFSETS).cast();

/// One field of [`Offsets`], as `u64`.
macro_rules! offset {
    ($field:ident) => {{
        // SAFETY: `Global` is transparent and never written after the load; volatile,
        // because the value that the compiler sees is not the one that the agent sets.
        u64::from(unsafe { (&raw const (*$crate::maps::OFFSETS_PTR).$field).read_volatile() })
    }};
}
pub(crate) use offset;

/// Adds one and returns the new value.
#[inline(always)]
pub(crate) fn count(index: u32) -> u64 {
    match COUNTERS.get_ptr_mut(index) {
        // SAFETY: the pointer comes from the map, and each CPU has its own value;
        // a nested program on this CPU can at worst make one count disappear.
        Some(value) => unsafe {
            *value += 1;
            *value
        },
        None => 0,
    }
}

/// Whether a whole record is to be left out, because the ring is filling up and what is left
/// of it is for more severe ones. Then it is counted.
///
/// A record of which an earlier stage is in the ring is never left out: the agent would take
/// that stage for the whole.
#[inline(always)]
pub(crate) fn shed(level: u8, seq: u64) -> bool {
    if level < SHED_SEVEREST {
        return false;
    }
    let milder = u32::from(SHED_MILDEST - (level & SHED_MILDEST));
    let mark_bytes = offset!(ring_sixteenth_bytes) * u64::from(SHED_FROM_SIXTEENTHS + milder);
    // SAFETY: the map is a ring buffer; the helper only reads its two positions.
    let used_bytes = unsafe { bpf_ringbuf_query(RECORDS_PTR.cast(), u64::from(BPF_RB_AVAIL_DATA)) };
    if used_bytes <= mark_bytes || OPEN.get(0).copied() == Some(seq) {
        return false;
    }
    count(counter::SHED + milder);
    true
}

/// Remembers that an early stage of a record was written. Two open records follow one
/// another closely only if another CPU closes the first; then the second counts.
#[inline(always)]
pub(crate) fn opened(seq: u64) {
    if let Some(open) = OPEN.get_ptr_mut(0) {
        // SAFETY: the pointer comes from the map; the word is accessed as a whole.
        unsafe {
            if open.read_volatile() < seq {
                open.write_volatile(seq);
            }
        }
    }
}

/// Writes a record of `len_bytes` bytes to `RECORDS`; false if there was no room. Both are counted.
///
/// # Safety
/// `record` must point to at least `len_bytes` initialised bytes.
#[inline(always)]
pub(crate) unsafe fn emit<T>(record: *mut T, len_bytes: u64) -> bool {
    // SAFETY: the caller vouches for the memory.
    let written = unsafe { output(record, len_bytes) };
    count(if written { counter::CAPTURED } else { counter::RING_FULL });
    written
}

/// Writes `len_bytes` bytes to `RECORDS` and wakes the sleeper if there is one; false if there was no
/// room.
///
/// # Safety
/// `item` must point to at least `len_bytes` initialised bytes.
#[inline(always)]
pub(crate) unsafe fn output<T>(item: *mut T, len_bytes: u64) -> bool {
    // SAFETY: the caller vouches for the memory; the helper copies it.
    let status = unsafe {
        bpf_ringbuf_output(RECORDS_PTR.cast(), item.cast(), len_bytes, u64::from(BPF_RB_NO_WAKEUP))
    };
    if status != 0 {
        return false;
    }
    wake_sleeper();
    true
}

pub(crate) const RECORDS_PTR: *mut RingBuf = (&raw const RECORDS).cast_mut();

/// Rings the doorbell if a thread sleeps. Must follow the commit of the record,
/// whose `xchg` is the barrier between the record and this look.
#[inline(always)]
fn wake_sleeper() {
    let Some(sleeper) = SLEEPER.get_ptr_mut(0) else { return };
    // SAFETY: the pointer comes from the map; both sides access the word as a
    // whole. Two CPUs may both see 1 and ring twice, which wakes once.
    unsafe {
        let asleep = &raw mut (*sleeper).asleep;
        if asleep.read_volatile() == 0 {
            return;
        }
        asleep.write_volatile(0);
    }
    count(counter::DOORBELL);
    // A full doorbell means that a wake-up is already on its way.
    let _ = DOORBELL.output::<u64>(&0u64, u64::from(BPF_RB_FORCE_WAKEUP));
}
