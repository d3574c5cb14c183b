//! The header of a record (`struct printk_info`): time, level, facility, caller.
//!
//! printk fills it in after the tracepoint. So in the tracepoint source each text brings the header of
//! the record before it, read from printk's own ring as its readers do
//! (`kernel/printk/printk_ringbuffer.c`): a header holds while its descriptor has its id and is
//! *final*. Where the ring is, is learnt from the stack of the printing CPU, since a kernel without
//! `CONFIG_KALLSYMS_ALL` tells the address of `prb` to nobody.

use agent_common::{
    DeviceInfo, FLAG_CONT, FLAG_FINAL, FLAG_PREVIOUS, KIND_HEADER, LAYOUT_VERSION, RecordHead,
    TEXT_AT_WHOLE,
};
use aya_ebpf::{helpers::generated::bpf_probe_read_kernel, macros::map, maps::Array};

#[cfg(bpf_target_arch = "aarch64")]
use crate::last_words::exchange;
use crate::{
    context::{read_u32, read_u64},
    maps::{InfoBytes, TextScratch, WHOLE_SCRATCH, offset, output},
};

/// Where printk's ring is.
#[repr(C)]
struct PrintkRing {
    /// Number of descriptors less one; 0 as long as nothing is known. Written last.
    mask: u64,
    descs: u64,
    infos: u64,
    /// How often it was looked for.
    searches: u64,
}

#[map]
static PRINTK_RING: Array<PrintkRing> = Array::with_max_entries(1, 0);

/// `DESC_ID_MASK`; the two bits above are the state.
pub(crate) const ID_MASK: u64 = (1 << 62) - 1;
/// `desc_finalized`: the record stays as it is until its descriptor is used again.
const FINAL: u64 = 2 << 62;
const ID_BYTES: usize = core::mem::size_of::<u64>();
/// What `owed_id` is if nothing is owed.
const NOTHING: u64 = 0;
/// Words of the stack that are searched. The frame of `vprintk_store` is that of the tracepoint's
/// caller's caller.
pub(crate) const STACK_WORDS: usize = 128;
/// One mostly does. It costs less than a microsecond.
const SEARCHES_MAX: u64 = 64;

/// What is read of a `printk_info`.
#[derive(Clone, Copy)]
pub(crate) struct Header {
    pub(crate) seq: u64,
    pub(crate) ts_ns: u64,
    caller_id: u32,
    pub(crate) text_len_bytes: u16,
    facility: u8,
    pub(crate) level: u8,
    is_cont: bool,
    has_device: bool,
}

impl Header {
    /// Reads the info at `address`, by way of `bytes`.
    #[inline(always)]
    pub(crate) fn read(address: u64, bytes: &mut InfoBytes) -> Option<Self> {
        let len_bytes = offset!(info_header_bytes) & (core::mem::size_of::<InfoBytes>() as u64 - 1);
        let at = bytes.as_mut_ptr().cast::<u8>();
        // SAFETY: the helper checks the source and writes less than `bytes` has.
        let status =
            unsafe { bpf_probe_read_kernel(at.cast(), len_bytes as u32, address as *const _) };
        if status != 0 {
            return None;
        }
        /// A field of the bytes.
        macro_rules! field {
            ($offset:ident, $add:expr, $type:ty) => {{
                let last =
                    (core::mem::size_of::<InfoBytes>() - core::mem::size_of::<$type>()) as u64;
                let offset = offset!($offset) + $add;
                if offset > last {
                    return None;
                }
                // SAFETY: inside of `bytes`, and aligned as it is in the kernel: `bytes` is
                // aligned to 8.
                unsafe { at.add(offset as usize).cast::<$type>().read() }
            }};
        }
        let flags_level = field!(info_flags_level, 0, u8);
        Some(Self {
            seq: field!(info_seq, 0, u64),
            ts_ns: field!(info_ts_nsec, 0, u64),
            caller_id: field!(info_caller_id, 0, u32),
            text_len_bytes: field!(info_text_len, 0, u16),
            facility: field!(info_facility, 0, u8),
            level: (flags_level >> (offset!(info_level_shift) as u32 & 7)) & 7,
            // LOG_CONT is 8 (`enum printk_info_flags`, kernel/printk/internal.h).
            is_cont: flags_level & 8 != 0,
            has_device: field!(info_dev_info, 0, u8) | field!(info_dev_info, 16, u8) != 0,
        })
    }

    /// Writes what belongs to it in every kind of record.
    #[inline(always)]
    pub(crate) fn fill(&self, head: &mut RecordHead) {
        head.ts_ns = self.ts_ns;
        head.caller_id = self.caller_id;
        head.level = self.level;
        head.facility = self.facility;
        head.header_text_len_bytes = self.text_len_bytes;
        if self.is_cont {
            head.flags |= FLAG_CONT;
        }
    }
}

/// Copies subsystem and device of the info at `address`.
#[inline(always)]
pub(crate) fn read_device(address: u64, device: &mut DeviceInfo) -> bool {
    let len_bytes = core::mem::size_of::<DeviceInfo>() as u32;
    let from = (address + offset!(info_dev_info)) as *const _;
    // SAFETY: the helper checks the source and writes at most the size given.
    unsafe { bpf_probe_read_kernel((&raw mut *device).cast(), len_bytes, from) == 0 }
}

/// Brings the header of the record before `id`: with the text in `scratch`, or in an item of its own
/// if there is a device, or if it comes late.
#[inline(always)]
pub(crate) fn bring(scratch: &mut TextScratch, id: u64) {
    let Some(ring) = PRINTK_RING.get_ptr(0) else { return };
    // SAFETY: the pointer comes from the map.
    let ring = unsafe { &*ring };
    if ring.mask == 0 {
        return;
    }
    let before = id.wrapping_sub(1) & ID_MASK;
    // This CPU has committed what it printed before, unless it was interrupted; another one may
    // be about to commit. Then the header is brought with the next record.
    let is_own = scratch.last_id == before;
    scratch.last_id = id;
    if scratch.owed_id != NOTHING && !is_early(ring, scratch.owed_id) {
        bring_apart(ring, scratch.owed_id, &mut scratch.info);
        scratch.owed_id = NOTHING;
    }
    let header = if is_own || is_final(ring, before) {
        final_header(ring, before, &mut scratch.info)
    } else {
        None
    };
    let Some(header) = header else {
        if scratch.owed_id == NOTHING {
            scratch.owed_id = before;
        }
        return;
    };
    if header.has_device || scratch.is_id_told == 0 {
        bring_apart(ring, before, &mut scratch.info);
        scratch.is_id_told = 1;
        return;
    }
    header.fill(&mut scratch.record.head);
    scratch.record.head.flags |= FLAG_PREVIOUS;
}

/// The header of a record that nobody commits at this moment: it was seen to be final, or is this
/// CPU's own. It is one if it is final after it was read as well: then its descriptor was not used
/// again meanwhile.
#[inline(always)]
fn final_header(ring: &PrintkRing, id: u64, info: &mut InfoBytes) -> Option<Header> {
    read_barrier(info);
    let header = Header::read(info_address(ring, id), info)?;
    read_barrier(info);
    if is_final(ring, id) { Some(header) } else { None }
}

/// Keeps what is read before and after it in this order, on CPUs that do not do so by themselves.
#[inline(always)]
fn read_barrier(_info: &mut InfoBytes) {
    // The last word, in which no header has anything.
    #[cfg(bpf_target_arch = "aarch64")]
    // SAFETY: a word of a map, aligned to 8.
    unsafe {
        exchange(&raw mut _info[_info.len() - 1], 0);
    }
}

/// Brings the header of a record that is final, if it still is, in an item of its own.
#[inline(always)]
fn bring_apart(ring: &PrintkRing, id: u64, info: &mut InfoBytes) {
    let Some(record) = WHOLE_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: the scratch belongs to this CPU, and the programs on commits, which use it as well, are
    // never attached together with those on the tracepoint.
    let record = unsafe { &mut (*record).record };
    // The names first, so that what makes sure of the header makes sure of them.
    if !read_device(info_address(ring, id), &mut record.device) {
        return;
    }
    let Some(header) = final_header(ring, id, info) else { return };
    let head = &mut record.head;
    head.layout = LAYOUT_VERSION;
    head.kind = KIND_HEADER;
    head.flags = FLAG_FINAL;
    head.text_at = TEXT_AT_WHOLE as u16;
    head.text_len_bytes = ID_BYTES as u16;
    head.seq = header.seq;
    header.fill(head);
    record.text[..ID_BYTES].copy_from_slice(&id.to_ne_bytes());
    // SAFETY: head, device info and the id are initialised. Without room the header is `/dev/kmsg`'s
    // to tell.
    unsafe { output(&raw mut *record, (TEXT_AT_WHOLE + ID_BYTES) as u64) };
}

/// Looks for printk's ring on the stack above `frame`, as long as it is not known. `id` is that of
/// the record that is being printed.
#[inline(always)]
pub(crate) fn learn(scratch: &mut TextScratch, frame: u64, id: u64) {
    let Some(known) = PRINTK_RING.get_ptr_mut(0) else { return };
    // SAFETY: the pointer comes from the map.
    let known = unsafe { &mut *known };
    if known.mask != 0 || known.searches >= SEARCHES_MAX || offset!(info_header_bytes) == 0 {
        return;
    }
    known.searches += 1;
    let len_bytes = (STACK_WORDS * 8) as u32;
    let words = scratch.stack.as_mut_ptr();
    // SAFETY: the helper checks the source and writes at most the size of the array.
    if unsafe { bpf_probe_read_kernel(words.cast(), len_bytes, frame as *const _) } != 0 {
        return;
    }
    for (index, word) in scratch.stack.iter().enumerate() {
        if *word == id {
            let entry = frame + index as u64 * 8 - offset!(entry_id);
            if learn_from(known, entry, id).is_some() {
                return;
            }
        }
    }
}

/// Takes note of the ring if `entry` is the `prb_reserved_entry` of the record that is being printed.
#[inline(always)]
fn learn_from(known: &mut PrintkRing, entry: u64, id: u64) -> Option<()> {
    let desc_ring = read_u64(entry + offset!(entry_rb))? + offset!(rb_desc_ring);
    let count_bits = read_u32(desc_ring + offset!(desc_ring_count_bits))?;
    let ring = PrintkRing {
        mask: (1 << (count_bits & 31)) - 1,
        descs: read_u64(desc_ring + offset!(desc_ring_descs))?,
        infos: read_u64(desc_ring + offset!(desc_ring_infos))?,
        searches: 0,
    };
    // Reserved is state 0. The header has its seq by now and nothing else.
    if ring.mask == 0 || state(&ring, id) != Some(id) {
        return None;
    }
    known.descs = ring.descs;
    known.infos = ring.infos;
    // SAFETY: a word of the map. Whoever sees it before the addresses finds no final descriptor.
    unsafe { (&raw mut known.mask).write_volatile(ring.mask) };
    Some(())
}

#[inline(always)]
fn state(ring: &PrintkRing, id: u64) -> Option<u64> {
    read_u64(ring.descs + (id & ring.mask) * offset!(desc_size) + offset!(desc_state_var))
}

#[inline(always)]
fn is_final(ring: &PrintkRing, id: u64) -> bool {
    state(ring, id) == Some(id | FINAL)
}

/// Whether the record is not final yet.
#[inline(always)]
fn is_early(ring: &PrintkRing, id: u64) -> bool {
    state(ring, id).is_some_and(|state| state & ID_MASK == id && state < FINAL)
}

#[inline(always)]
fn info_address(ring: &PrintkRing, id: u64) -> u64 {
    ring.infos + (id & ring.mask) * offset!(info_size)
}
