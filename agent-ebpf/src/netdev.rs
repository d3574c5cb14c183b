//! Events of network devices: `call_netdevice_notifiers_info(val, info)`
//! (`net/core/dev.c`) runs exactly once per event.

use agent_common::{NetdevEvent, counter};
use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_kernel_str},
    macros::{fentry, kprobe},
    programs::{FEntryContext, ProbeContext},
};

use crate::{
    context::{read_u32, read_u64},
    maps::{NETDEV_EVENTS, count, offset},
};

#[fentry(function = "call_netdevice_notifiers_info")]
fn netdev_fentry(ctx: FEntryContext) -> i32 {
    event(ctx.arg::<u64>(0), ctx.arg::<u64>(1));
    0
}

#[kprobe(function = "call_netdevice_notifiers_info")]
fn netdev_kprobe(ctx: ProbeContext) -> u32 {
    if let (Some(val), Some(info)) = (ctx.arg::<u64>(0), ctx.arg::<u64>(1)) {
        event(val, info);
    }
    0
}

#[inline(always)]
fn event(val: u64, info: u64) {
    if write_event(val, info).is_none() {
        count(counter::READ_ERROR);
    }
}

/// `None` if kernel memory could not be read.
#[inline(always)]
fn write_event(val: u64, info: u64) -> Option<()> {
    let dev = read_u64(info + offset!(notifier_info_dev))?;
    let net = read_u64(dev + offset!(net_device_net))?;
    if read_u32(net + offset!(net_ns_inum))? != offset!(own_netns_inum) as u32 {
        return Some(());
    }
    let ifindex = read_u32(dev + offset!(net_device_ifindex))?;
    let mut event = NetdevEvent {
        // SAFETY: the helper takes no pointer.
        ktime_ns: unsafe { bpf_ktime_get_ns() },
        event: val as u32,
        ifindex,
        name: [0; 16],
    };
    let name = dev + offset!(net_device_name);
    // SAFETY: the helper writes at most 16 bytes and checks the source.
    unsafe { bpf_probe_read_kernel_str(event.name.as_mut_ptr().cast(), 16, name as *const _) };
    match NETDEV_EVENTS.output::<NetdevEvent>(&event, 0) {
        Ok(()) => count(counter::NETDEV),
        Err(_) => count(counter::NETDEV_FULL),
    };
    Some(())
}
