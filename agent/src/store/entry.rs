//! The bytes of one entry: a head of fixed size, and for a record what has no fixed size
//! behind it. Where entries lie, and which of them go, is not known here.

use bytes::{Buf as _, BufMut as _};

use crate::{
    capture::sequencer::MissingReason,
    record::{
        CGROUP_MAX_BYTES, Caller, Context, DEVICE_MAX_BYTES, Record, SUBSYSTEM_MAX_BYTES,
        TASK_MAX_BYTES, TEXT_MAX_BYTES,
    },
};

/// Length of the head.
///
/// ```text
///  0 u16 length of the entry   2 u8 flags   3 u8 level   4 u8 facility
///  5 u8 lengths of task, cgroup, subsystem, device   9 u8 class of the next entry
/// 10 u16 length of the text
/// 12 u32 caller   16 u64 seq   24 u64 time   32 u64 cgroup   40 u32 CPU   44 u32 pid
/// ```
///
/// A missing range has its length, flags, next class, first seq, and its count at the place of
/// the time. The class of the next entry is written with that one, and its own until then.
pub(super) const HEAD_BYTES: usize = 48;
const FLAGS_AT: usize = 2;
pub(super) const NEXT_CLASS_AT: usize = 9;
const SEQ_AT: usize = 16;
const COUNT_AT: usize = 24;

/// Length of the longest entry.
pub(super) const ENTRY_MAX_BYTES: usize = (HEAD_BYTES
    + TASK_MAX_BYTES
    + CGROUP_MAX_BYTES
    + SUBSYSTEM_MAX_BYTES
    + DEVICE_MAX_BYTES
    + TEXT_MAX_BYTES)
    .next_multiple_of(8);

const FLAG_CONT: u8 = 1;
const FLAG_APPROXIMATED: u8 = 2;
const FLAG_CONTEXT: u8 = 4;
const FLAG_CALLER_TASK: u8 = 8;
const FLAG_CALLER_CPU: u8 = 16;
/// The entry is a missing range.
const FLAG_MISSING: u8 = 32;
const FLAG_KERNEL_OVERWROTE: u8 = 64;
const FLAG_BACKFILLED: u8 = 128;

/// What every entry says of itself.
#[derive(Clone, Copy)]
pub(super) struct Extent {
    pub(super) len_bytes: u32,
    pub(super) first_seq: u64,
    /// Behind the last seq it speaks of.
    pub(super) end_seq: u64,
}

/// The extent of the entry at the beginning of `bytes`.
#[inline]
pub(super) fn extent(bytes: &[u8]) -> Extent {
    let head = &bytes[..HEAD_BYTES];
    let first_seq = u64_at(head, SEQ_AT);
    let count = if head[FLAGS_AT] & FLAG_MISSING == 0 { 1 } else { u64_at(head, COUNT_AT) };
    let len_bytes = u16::from_ne_bytes([head[0], head[1]]).into();
    Extent { len_bytes, first_seq, end_seq: first_seq + count }
}

/// Why the seqs of the entry are missing; `None` if it is a record.
#[inline]
pub(super) fn missing_reason(bytes: &[u8]) -> Option<MissingReason> {
    let flags = bytes[FLAGS_AT];
    if flags & FLAG_MISSING == 0 {
        return None;
    }
    Some(if flags & FLAG_KERNEL_OVERWROTE == 0 {
        MissingReason::NotCaptured
    } else {
        MissingReason::KernelOverwrote
    })
}

/// The record at the beginning of `bytes`.
#[inline]
pub(super) fn read(bytes: &[u8]) -> Record<'_> {
    let (mut head, mut rest) = bytes.split_at(HEAD_BYTES);
    head.advance(FLAGS_AT);
    let (flags, level, facility) = (head.get_u8(), head.get_u8(), head.get_u8());
    let lens: [usize; 4] = std::array::from_fn(|_| head.get_u8().into());
    head.advance(1);
    let text_len = usize::from(head.get_u16_ne());
    let caller_id = head.get_u32_ne();
    let (seq, ts_ns, cgroup_id) = (head.get_u64_ne(), head.get_u64_ne(), head.get_u64_ne());
    let (cpu, pid) = (head.get_u32_ne(), head.get_u32_ne());
    let mut take = |len: usize| {
        let (taken, left) = rest.split_at(len);
        rest = left;
        taken
    };
    let [task, cgroup, subsystem, device] = lens.map(&mut take);
    let text = take(text_len);
    Record {
        seq,
        ts_ns,
        facility,
        level,
        cont: flags & FLAG_CONT != 0,
        caller: match flags & (FLAG_CALLER_TASK | FLAG_CALLER_CPU) {
            FLAG_CALLER_TASK => Some(Caller::Task(caller_id)),
            FLAG_CALLER_CPU => Some(Caller::Cpu(caller_id)),
            _ => None,
        },
        text,
        subsystem,
        device,
        context: (flags & FLAG_CONTEXT != 0).then_some(Context {
            cpu,
            pid,
            task,
            cgroup_id,
            cgroup,
        }),
        approximated: flags & FLAG_APPROXIMATED != 0,
        backfilled: flags & FLAG_BACKFILLED != 0,
    }
}

/// A record that is about to be stored.
pub(super) struct NewRecord<'a> {
    record: &'a Record<'a>,
    context: Context<'a>,
    /// Task, cgroup, subsystem, device and text, none longer than it may be.
    parts: [&'a [u8]; 5],
    /// Length of the entry.
    pub(super) len_bytes: usize,
}

impl<'a> NewRecord<'a> {
    #[inline]
    pub(super) fn new(record: &'a Record<'a>) -> Self {
        let empty = Context { cpu: 0, pid: 0, task: &[], cgroup_id: 0, cgroup: &[] };
        let context = record.context.unwrap_or(empty);
        let parts = [
            cut(context.task, TASK_MAX_BYTES),
            cut(context.cgroup, CGROUP_MAX_BYTES),
            cut(record.subsystem, SUBSYSTEM_MAX_BYTES),
            cut(record.device, DEVICE_MAX_BYTES),
            cut(record.text, TEXT_MAX_BYTES),
        ];
        let body: usize = parts.iter().map(|part| part.len()).sum();
        Self { record, context, parts, len_bytes: (HEAD_BYTES + body).next_multiple_of(8) }
    }

    /// Writes the entry; `to` has its length.
    #[inline]
    pub(super) fn write(&self, to: &mut [u8], class: u8) {
        let Self { record, context, parts, .. } = self;
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let (caller_flag, caller_id) = match record.caller {
            Some(Caller::Task(id)) => (FLAG_CALLER_TASK, id),
            Some(Caller::Cpu(id)) => (FLAG_CALLER_CPU, id),
            None => (0, 0),
        };
        let mut head = &mut to[..HEAD_BYTES];
        head.put_u16_ne(self.len_bytes as u16);
        head.put_u8(
            flag(record.cont, FLAG_CONT)
                | flag(record.approximated, FLAG_APPROXIMATED)
                | flag(record.backfilled, FLAG_BACKFILLED)
                | flag(record.context.is_some(), FLAG_CONTEXT)
                | caller_flag,
        );
        head.put_u8(record.level);
        head.put_u8(record.facility);
        for part in &parts[..4] {
            head.put_u8(part.len() as u8);
        }
        head.put_u8(class);
        head.put_u16_ne(parts[4].len() as u16);
        head.put_u32_ne(caller_id);
        head.put_u64_ne(record.seq);
        head.put_u64_ne(record.ts_ns);
        head.put_u64_ne(context.cgroup_id);
        head.put_u32_ne(context.cpu);
        head.put_u32_ne(context.pid);
        let mut at = HEAD_BYTES;
        for part in parts {
            to[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
    }
}

/// Writes a missing range; `to` has [`HEAD_BYTES`].
pub(super) fn write_missing(
    to: &mut [u8],
    class: u8,
    first_seq: u64,
    count: u64,
    reason: MissingReason,
) {
    let why = if reason == MissingReason::KernelOverwrote { FLAG_KERNEL_OVERWROTE } else { 0 };
    to[..FLAGS_AT].copy_from_slice(&(HEAD_BYTES as u16).to_ne_bytes());
    to[FLAGS_AT] = FLAG_MISSING | why;
    to[NEXT_CLASS_AT] = class;
    to[SEQ_AT..SEQ_AT + 8].copy_from_slice(&first_seq.to_ne_bytes());
    to[COUNT_AT..COUNT_AT + 8].copy_from_slice(&count.to_ne_bytes());
}

/// No source brings a longer part (see `record`); if one did, the entry would not fit.
fn cut(part: &[u8], max_bytes: usize) -> &[u8] {
    &part[..part.len().min(max_bytes)]
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(word)
}
