//! The context of the printing CPU: who runs there, and in which cgroup.

use agent_common::RecordHead;
use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_probe_read_kernel,
    generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task,
        bpf_get_current_task_btf, bpf_get_smp_processor_id, bpf_ktime_get_ns,
        bpf_probe_read_kernel_str,
    },
};

use crate::maps::offset;

/// What a program may do with pointers of the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pointers {
    /// The kernel knows their types (it has BTF): they are followed by plain loads.
    Typed,
    /// They are numbers for helpers, each of which costs as much as all the loads.
    Untyped,
}

/// Fills in what does not depend on the record. The head is that of the
/// previous record of this CPU and program, whose cgroup is mostly the same one: then its name, which
/// takes five reads, still stands there. A group of the default hierarchy
/// cannot be renamed, and its id is not used again.
#[inline(always)]
pub(crate) fn fill(head: &mut RecordHead, pointers: Pointers) {
    // SAFETY: the helpers take no pointer.
    unsafe {
        head.ktime_ns = bpf_ktime_get_ns();
        head.cpu = bpf_get_smp_processor_id();
    }
    if pointers == Pointers::Typed && offset!(task_cgroups) != 0 {
        fill_typed(head);
        return;
    }
    // SAFETY: the one helper that takes a pointer fills the array, on failure with zeros.
    // Straight into the head: through the stack it costs 40 instructions more.
    let cgroup_id = unsafe {
        bpf_get_current_comm(head.comm.as_mut_ptr().cast(), 16);
        bpf_get_current_cgroup_id()
    };
    head.pid = bpf_get_current_pid_tgid() as u32;
    if head.cgroup_id != cgroup_id {
        head.cgroup_id = cgroup_id;
        head.cgroup[0] = 0;
        if offset!(task_cgroups) != 0 {
            read_cgroup_leaf(&mut head.cgroup);
        }
    }
}

/// Loads a field behind a pointer whose type the kernel knows: one from a helper, or from such a load.
macro_rules! load {
    ($pointer:expr, $field:ident) => {
        load!($pointer, $field, 0)
    };
    ($pointer:expr, $field:ident, $add:expr) => {{
        let field = $pointer.wrapping_add(offset!($field) as usize + $add);
        // SAFETY: the verifier checks the type, and a load that faults gives zero (`PROBE_MEM`).
        // Volatile: nothing may be done with the pointer but this.
        unsafe { core::ptr::read_volatile(field.cast()) }
    }};
}

/// Thread, its name and its cgroup, as the helpers find them: `current->pid`, `->comm`,
/// `->cgroups->dfl_cgrp->kn->id`.
#[inline(always)]
fn fill_typed(head: &mut RecordHead) {
    // SAFETY: the helper takes no pointer.
    let task = unsafe { bpf_get_current_task_btf() }.cast::<u8>().cast_const();
    head.pid = load!(task, task_pid);
    let comm: [u64; 2] = [load!(task, task_comm), load!(task, task_comm, 8)];
    // SAFETY: `comm` has 16 bytes and is aligned to 8 in the head.
    unsafe { head.comm.as_mut_ptr().cast::<[u64; 2]>().write(comm) };
    let css_set: *const u8 = load!(task, task_cgroups);
    let cgroup: *const u8 = load!(css_set, css_set_dfl_cgrp);
    let kn: *const u8 = load!(cgroup, cgroup_kn);
    let cgroup_id: u64 = load!(kn, kernfs_node_id);
    if head.cgroup_id != cgroup_id {
        head.cgroup_id = cgroup_id;
        head.cgroup[0] = 0;
        read_name(&mut head.cgroup, load!(kn, kernfs_node_name));
    }
}

/// Copies `current->cgroups->dfl_cgrp->kn->name`. Here and not in user space,
/// because a short-lived group is gone when the agent sees the record.
#[inline(always)]
fn read_cgroup_leaf(leaf: &mut [u8; 64]) {
    // SAFETY: the helper takes no pointer.
    let task = unsafe { bpf_get_current_task() };
    let Some(css_set) = read_u64(task + offset!(task_cgroups)) else { return };
    let Some(cgroup) = read_u64(css_set + offset!(css_set_dfl_cgrp)) else { return };
    let Some(kn) = read_u64(cgroup + offset!(cgroup_kn)) else { return };
    let Some(name) = read_u64(kn + offset!(kernfs_node_name)) else { return };
    read_name(leaf, name);
}

#[inline(always)]
fn read_name(leaf: &mut [u8; 64], name: u64) {
    // SAFETY: the helper checks the source and writes at most 64 bytes; if it fails
    // the name stays empty.
    unsafe { bpf_probe_read_kernel_str(leaf.as_mut_ptr().cast(), 64, name as *const _) };
}

/// Reads a word of kernel memory.
#[inline(always)]
pub(crate) fn read_u64(address: u64) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const u64) }.ok()
}

/// Reads half a word of kernel memory.
#[inline(always)]
pub(crate) fn read_u32(address: u64) -> Option<u32> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address as *const u32) }.ok()
}
