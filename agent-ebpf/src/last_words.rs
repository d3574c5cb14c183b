//! The hold: in a panic, each line waits in the CPU that prints it until the agent, on another
//! CPU, has handed it to the network device; for soon after its last line the kernel stops all other CPUs.
//!
//! Text proves nothing, since everybody may write it. What arms the hold is that `panic` (or `vpanic`,
//! which newer kernels have behind it) was called, or that the kernel's own `panic_cpu` is the
//! printing CPU (`kernel/panic.c`).

use core::ffi::c_void;

use agent_common::{ARMED_BY_HOOK, ARMED_BY_PANIC_CPU, LastWords};
use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_RB_PROD_POS},
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_loop, bpf_ringbuf_query},
    macros::{fentry, kprobe, map},
    maps::{Array, PerCpuArray},
    programs::{FEntryContext, ProbeContext},
};

use crate::{context::read_u32, maps::RECORDS_PTR};

#[map]
static LAST_WORDS: Array<LastWords> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// 1 on each CPU that has called `panic`. More than one may; all but the first stop at once.
#[map]
static PANICKED: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// Most looks at the clock in one hold. The kernel's limit (`BPF_MAX_LOOPS`); the clock ends it first.
const LOOKS_MAX: u32 = 8 << 20;
/// Looks at the acknowledgement between two looks at the clock. Where the clock is a device (HPET), each
/// look at it goes over the bus, and in a virtual machine takes the lock that the other CPUs' interrupts
/// need: a CPU that does nothing else keeps the agent from running.
const SPINS: u32 = 256;
/// As long as the agent has not shown that it noticed the panic, a line waits so many times longer: a
/// virtual machine stands still for tens of milliseconds now and then, and a thread that is
/// woken by its own timer alone then looks that much later.
const UNNOTICED: u64 = 10;

#[fentry(function = "vpanic")]
fn panic_fentry(_ctx: FEntryContext) -> i32 {
    arm(ARMED_BY_HOOK);
    0
}

#[kprobe(function = "panic")]
fn panic_kprobe(_ctx: ProbeContext) -> u32 {
    arm(ARMED_BY_HOOK);
    0
}

/// A record that may be the first one of a panic: looks whether it is.
#[inline(always)]
pub(crate) fn suspect() {
    let Some(words) = LAST_WORDS.get_ptr(0) else { return };
    // SAFETY: the pointer comes from the map; the word is accessed as a whole.
    let address = unsafe { (&raw const (*words).panic_cpu_address).read_volatile() };
    if address == 0 {
        return;
    }
    // SAFETY: the helper takes no pointer.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    if read_u32(address) == Some(cpu) {
        arm(ARMED_BY_PANIC_CPU);
    }
}

/// From now on this CPU's lines are held.
#[inline(always)]
fn arm(armed_by: u32) {
    if let Some(panicked) = PANICKED.get_ptr_mut(0) {
        // SAFETY: the pointer comes from the map, and each CPU has its own value.
        unsafe { panicked.write_volatile(1) };
    }
    let Some(words) = LAST_WORDS.get_ptr_mut(0) else { return };
    // SAFETY: the pointer comes from the map, the helpers take no other one; the CPU is written
    // last, so who sees it sees the rest.
    unsafe {
        let words = &mut *words;
        if (&raw const words.panic_cpu_plus_one).read_volatile() == 0 {
            words.armed_by = armed_by;
            words.armed_ktime_ns = bpf_ktime_get_ns();
            let position = bpf_ringbuf_query(RECORDS_PTR.cast(), u64::from(BPF_RB_PROD_POS));
            exchange(&raw mut words.armed_position, position);
            let cpu = bpf_get_smp_processor_id();
            (&raw mut words.panic_cpu_plus_one).write_volatile(cpu + 1);
        }
    }
}

/// Writes a word with a full barrier, which plain stores of a program do not have: arm64 shows them to
/// other CPUs in any order. An exchange is one on every CPU (`BPF_XCHG`,
/// Documentation/bpf/standardization/instruction-set.rst; Documentation/atomic_t.txt, "ORDERING").
///
/// # Safety
/// `word` must point into a map, aligned to 8.
#[inline(always)]
pub(crate) unsafe fn exchange(word: *mut u64, value: u64) {
    #[cfg(target_arch = "bpf")]
    // SAFETY: the caller vouches for the word; the instruction writes it and the register alone.
    unsafe {
        core::arch::asm!(
            "{value} = xchg_64({word} + 0, {value})",
            word = in(reg) word,
            value = inout(reg) value => _,
        );
    }
    // On the host the programs are only linted.
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller vouches for the word.
    unsafe {
        word.write_volatile(value);
    }
}

/// What a hold remembers between two looks.
struct Hold {
    /// The position that must be acknowledged.
    until: u64,
    seen_position: u64,
    begun_ns: u64,
    /// When the acknowledgement moved last.
    moved_ns: u64,
    hold_ns: u64,
    /// The same as long as nothing was acknowledged in this panic.
    unnoticed_ns: u64,
    left_ns: u64,
    timed_out: u64,
}

/// Waits, if this CPU panics, until the agent has handed on all that is in the ring. Must follow
/// the commit of the record.
#[inline(always)]
pub(crate) fn hold() {
    let Some(words) = LAST_WORDS.get_ptr_mut(0) else { return };
    // SAFETY: the pointer comes from the map; the word is accessed as a whole.
    if unsafe { (&raw const (*words).panic_cpu_plus_one).read_volatile() } == 0 {
        return;
    }
    if PANICKED.get(0).copied() != Some(1) {
        return;
    }
    // SAFETY: the pointer comes from the map, of which the CPU that panics alone writes this part.
    let words = unsafe { &mut *words };
    let left_ns = words.budget_ns.saturating_sub(words.spent_ns);
    if words.hold_ns == 0 || left_ns == 0 {
        return;
    }
    // SAFETY: the helper only reads the ring's positions.
    let until = unsafe { bpf_ringbuf_query(RECORDS_PTR.cast(), u64::from(BPF_RB_PROD_POS)) };
    // SAFETY: the helper takes no pointer.
    let begun_ns = unsafe { bpf_ktime_get_ns() };
    let mut hold = Hold {
        until,
        seen_position: 0,
        begun_ns,
        moved_ns: begun_ns,
        hold_ns: words.hold_ns,
        // Nobody came for an earlier line: nobody will.
        unnoticed_ns: words.hold_ns * if words.timed_out == 0 { UNNOTICED } else { 1 },
        left_ns,
        timed_out: 0,
    };
    // SAFETY: the callback has the form that the helper wants, and `hold` outlives the call.
    unsafe { bpf_loop(LOOKS_MAX, look as *mut c_void, (&raw mut hold).cast(), 0) };
    // SAFETY: the helper takes no pointer.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    words.spent_ns += now_ns.saturating_sub(begun_ns);
    words.held += 1;
    words.timed_out += hold.timed_out;
}

/// One look at the acknowledgement; 1 if it is not what it was.
#[inline(never)]
extern "C" fn spin(_index: u32, hold: *mut Hold) -> i64 {
    let Some(words) = LAST_WORDS.get_ptr(0) else { return 1 };
    // SAFETY: as in `look`.
    let moved =
        unsafe { (&raw const (*words).acked_position).read_volatile() != (*hold).seen_position };
    i64::from(moved)
}

/// Some looks at the acknowledgement and one at the clock; 1 ends the hold.
#[inline(never)]
extern "C" fn look(_index: u32, hold: *mut Hold) -> i64 {
    let Some(words) = LAST_WORDS.get_ptr(0) else { return 1 };
    // SAFETY: `bpf_loop` hands on the pointer that it was given, and nobody else has it; the map's
    // word is accessed as a whole; the callback has the form that the helper wants.
    unsafe {
        bpf_loop(SPINS, spin as *mut c_void, hold.cast(), 0);
        let hold = &mut *hold;
        let position = (&raw const (*words).acked_position).read_volatile();
        if position >= hold.until {
            return 1;
        }
        let now_ns = bpf_ktime_get_ns();
        if position != hold.seen_position {
            hold.seen_position = position;
            hold.moved_ns = now_ns;
        }
        let limit_ns = if position == 0 { hold.unnoticed_ns } else { hold.hold_ns };
        if now_ns - hold.moved_ns >= limit_ns || now_ns - hold.begun_ns >= hold.left_ns {
            hold.timed_out = 1;
            return 1;
        }
    }
    0
}
