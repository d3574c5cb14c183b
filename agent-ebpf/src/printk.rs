//! The printk programs.
//!
//! `printk:console` (`kernel/printk/printk.c`, `printk_sprint`) gives the text while it is
//! stored: the record has its place in printk's ring, but neither level nor
//! time. `prb_commit` and `prb_final_commit` (`kernel/printk/printk_ringbuffer.c`) get the
//! record when it is complete.

use agent_common::{
    FLAG_FINAL, FLAG_LOST, FLAG_PREVIOUS_OPEN, FLAG_TEXT_UNREAD, KIND_TEXT, KIND_WHOLE,
    LAYOUT_VERSION, TEXT_AT_TEXT, TEXT_AT_WHOLE, TEXT_COPY_MAX_BYTES, counter,
};
use aya_ebpf::{
    EbpfContext,
    helpers::generated::bpf_probe_read_kernel,
    macros::{btf_tracepoint, fentry, kprobe, raw_tracepoint},
    programs::{BtfTracePointContext, FEntryContext, ProbeContext, RawTracePointContext},
};
use aya_log_ebpf::warn;

use crate::{
    context::{self, Pointers, read_u32, read_u64},
    header::{Header, ID_MASK, bring, learn, read_device},
    last_words::{hold, suspect},
    maps::{TEXT_SCRATCH, WHOLE_SCRATCH, count, emit, offset, opened, shed},
};

#[btf_tracepoint(function = "console")]
fn printk_tp_btf(ctx: BtfTracePointContext) -> i32 {
    text(&ctx, ctx.arg::<u64>(0), ctx.arg::<u64>(1), Pointers::Typed);
    0
}

#[raw_tracepoint(tracepoint = "console")]
fn printk_raw_tp(ctx: RawTracePointContext) -> i32 {
    text(&ctx, ctx.arg::<u64>(0), ctx.arg::<u64>(1), Pointers::Untyped);
    0
}

#[fentry(function = "prb_commit")]
fn printk_commit_fentry(ctx: FEntryContext) -> i32 {
    whole(&ctx, ctx.arg::<u64>(0), Commit::First, Pointers::Typed);
    0
}

#[fentry(function = "prb_final_commit")]
fn printk_final_fentry(ctx: FEntryContext) -> i32 {
    whole(&ctx, ctx.arg::<u64>(0), Commit::Final, Pointers::Typed);
    0
}

#[kprobe(function = "prb_commit")]
fn printk_commit_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(entry) = ctx.arg::<u64>(0) {
        whole(&ctx, entry, Commit::First, Pointers::Untyped);
    }
    0
}

#[kprobe(function = "prb_final_commit")]
fn printk_final_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(entry) = ctx.arg::<u64>(0) {
        whole(&ctx, entry, Commit::Final, Pointers::Untyped);
    }
    0
}

/// Text and context, for the tracepoint.
#[inline(always)]
fn text<C: EbpfContext>(ctx: &C, text: u64, len_bytes: u64, pointers: Pointers) {
    let Some(scratch) = TEXT_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: the scratch belongs to this CPU and this program while it runs.
    let scratch = unsafe { &mut *scratch };
    let head = &mut scratch.record.head;
    context::fill(head, pointers);
    head.layout = LAYOUT_VERSION;
    head.kind = KIND_TEXT;
    head.flags = 0;
    head.text_at = TEXT_AT_TEXT as u16;
    head.ts_ns = 0;
    head.caller_id = 0;
    head.level = 0;
    head.facility = 0;
    head.header_text_len_bytes = 0;
    // The word before the text of a new record is the descriptor id
    // (`struct prb_data_block`); before a continuation it is older text. `seq` and
    // the text are neighbours here too, so one read does.
    head.seq = u64::MAX;
    let word_and_text = (&raw mut head.seq).cast();
    let word_bytes = core::mem::size_of::<u64>() as u64;
    let copied = bounded(len_bytes);
    // SAFETY: `seq` is followed by room for TEXT_COPY_MAX_BYTES; the helper checks the source.
    let status = unsafe {
        bpf_probe_read_kernel(
            word_and_text,
            (word_bytes + copied) as u32,
            text.wrapping_sub(word_bytes) as *const _,
        )
    };
    let mut copied = copied;
    if status != 0 {
        head.seq = u64::MAX;
        head.flags = FLAG_TEXT_UNREAD;
        read_failed(ctx);
        copied = 0;
    }
    head.text_len_bytes = copied as u16;
    let id = head.seq;
    bring(scratch, id);
    // The word that every kernel's panic begins with; whether it is one is looked up.
    if scratch.record.text[0] == b'K' && scratch.record.text[7] == b'p' {
        suspect();
    }
    // SAFETY: head and `copied` bytes of text are initialised.
    let _ = unsafe { emit(&raw mut scratch.record, TEXT_AT_TEXT as u64 + copied) };
    hold();
    // What the tracepoint hands on lies on the stack.
    learn(scratch, ctx.as_ptr() as u64, id);
}

/// Which commit a program is on; each has a scratch of its own, by this number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Commit {
    /// `prb_commit`: the record may grow.
    First = 0,
    /// `prb_final_commit`.
    Final = 1,
}

/// The whole record behind a `struct prb_reserved_entry`, at the entry of its commit.
#[inline(always)]
fn whole<C: EbpfContext>(ctx: &C, entry: u64, commit: Commit, pointers: Pointers) {
    let Some(scratch) = WHOLE_SCRATCH.get_ptr_mut(commit as u32) else { return };
    // SAFETY: the scratch belongs to this CPU and this program while it runs.
    let scratch = unsafe { &mut *scratch };
    let record = &mut scratch.record;
    let head = &mut record.head;
    head.layout = LAYOUT_VERSION;
    head.kind = KIND_WHOLE;
    head.flags = if commit == Commit::Final { FLAG_FINAL } else { 0 };
    head.text_at = TEXT_AT_WHOLE as u16;

    let found = find(entry);
    let header = found.as_ref().and_then(|found| Header::read(found.info, &mut scratch.info));
    let (Some(found), Some(header)) = (found, header) else {
        read_failed(ctx);
        return;
    };
    if shed(header.level, header.seq) {
        return;
    }
    if found.lost {
        head.flags |= FLAG_LOST;
    }
    if found.is_previous_open {
        head.flags |= FLAG_PREVIOUS_OPEN;
    }
    head.seq = header.seq;
    header.fill(head);
    if !read_device(found.info, &mut record.device) {
        read_failed(ctx);
        return;
    }
    context::fill(head, pointers);

    let len_bytes = if found.text == 0 { 0 } else { u64::from(header.text_len_bytes) };
    let copied = copy_text(ctx, record.text.as_mut_ptr(), found.text, len_bytes, &mut head.flags);
    head.text_len_bytes = copied as u16;
    // SAFETY: head, device info and `copied` bytes of text are initialised.
    let written = unsafe { emit(&raw mut *record, TEXT_AT_WHOLE as u64 + copied) };
    if commit == Commit::First {
        if written {
            opened(header.seq);
        }
        // It may grow: the line that follows, or its final commit, waits for it.
        return;
    }
    // The first line of a panic is an emergency; whether it is one is looked up.
    if header.level == 0 {
        suspect();
    }
    hold();
}

struct Found {
    /// Address of the `printk_info`.
    info: u64,
    /// Address of the text, 0 if the record has none.
    text: u64,
    /// There was no room for the text.
    lost: bool,
    /// The record before is *reserved*, not committed yet or again.
    is_previous_open: bool,
}

/// Walks from the reserved entry to the info and the text block, as
/// `prb_read` does (`get_data`, `to_info` in `printk_ringbuffer.c`).
#[inline(always)]
fn find(entry: u64) -> Option<Found> {
    let rb = read_u64(entry + offset!(entry_rb))?;
    let id = read_u64(entry + offset!(entry_id))?;
    let desc_ring = rb + offset!(rb_desc_ring);
    let count_bits = read_u32(desc_ring + offset!(desc_ring_count_bits))?;
    let mask = (1u64 << (count_bits & 63)) - 1;
    let index = id & mask;
    let infos = read_u64(desc_ring + offset!(desc_ring_infos))?;
    let info = infos + index * offset!(info_size);

    let descs = read_u64(desc_ring + offset!(desc_ring_descs))?;
    // The state is in the two bits above the id, and *reserved* is 0.
    let before = id.wrapping_sub(1) & ID_MASK;
    let state_var = descs + (before & mask) * offset!(desc_size) + offset!(desc_state_var);
    let is_previous_open = read_u64(state_var)? == before;
    let lpos = descs + index * offset!(desc_size) + offset!(desc_text_blk_lpos);
    let begin = read_u64(lpos)?;
    let next = read_u64(lpos + 8)?;
    // LPOS_DATALESS: the low bit is set, there is no block. The record is empty if
    // both positions are EMPTY_LINE_LPOS (NO_LPOS before 6.8), and else lost (FAILED_LPOS).
    if begin & 1 != 0 {
        let lost = begin != 3 || next != 3;
        return Some(Found { info, text: 0, lost, is_previous_open });
    }
    let data_ring = rb + offset!(rb_text_data_ring);
    let size_bits = read_u32(data_ring + offset!(data_ring_size_bits))? & 63;
    let data = read_u64(data_ring + offset!(data_ring_data))?;
    let wrapped = (begin >> size_bits) != (next.wrapping_sub(1) >> size_bits);
    let block = if wrapped { 0 } else { begin & ((1u64 << size_bits) - 1) };
    Some(Found { info, text: data + block + 8, lost: false, is_previous_open })
}

/// The length, at most `TEXT_COPY_MAX_BYTES`. The verifier of 6.1 loses the bound of a
/// value that LLVM spills before it is clamped; the black box keeps the clamped
/// copy the only one.
#[inline(always)]
fn bounded(len_bytes: u64) -> u64 {
    core::hint::black_box(len_bytes) & u64::from(TEXT_COPY_MAX_BYTES)
}

/// Copies the text and returns how many bytes it wrote.
#[inline(always)]
fn copy_text<C: EbpfContext>(
    ctx: &C,
    to: *mut u8,
    from: u64,
    len_bytes: u64,
    flags: &mut u8,
) -> u64 {
    let mut len_bytes = bounded(len_bytes);
    if len_bytes != 0 {
        // SAFETY: the scratch has room for TEXT_COPY_MAX_BYTES; the helper checks the source.
        let status =
            unsafe { bpf_probe_read_kernel(to.cast(), len_bytes as u32, from as *const _) };
        if status != 0 {
            *flags |= FLAG_TEXT_UNREAD;
            read_failed(ctx);
            len_bytes = 0;
        }
    }
    len_bytes
}

/// Counts a failed read, and says so when the number of failures on this CPU doubles.
#[inline(always)]
fn read_failed<C: EbpfContext>(ctx: &C) {
    let failures = count(counter::READ_ERROR);
    if failures & (failures.wrapping_sub(1)) == 0 {
        warn!(ctx, "reading a kernel log record failed; {} failures on this CPU", failures);
    }
}
