//! The field offsets that the programs need, looked up in the kernel's BTF.

use std::mem::offset_of;

use agent_common::{DeviceInfo, INFO_ROOM_BYTES, Offsets};

use super::btf::{Btf, BtfError};

/// Fields of the printk ring buffer, for the commit source and for headers in the tracepoint source.
///
/// # Errors
/// Names the first field that this kernel lacks; then texts come without headers.
pub fn printk(btf: &Btf, offsets: &mut Offsets) -> Result<(), BtfError> {
    let field = |of: &str, name: &str| btf.field(of, name).map(|found| found.offset_bytes());
    offsets.entry_rb = field("prb_reserved_entry", "rb")?;
    offsets.entry_id = field("prb_reserved_entry", "id")?;
    offsets.rb_desc_ring = field("printk_ringbuffer", "desc_ring")?;
    offsets.rb_text_data_ring = field("printk_ringbuffer", "text_data_ring")?;
    offsets.desc_ring_count_bits = field("prb_desc_ring", "count_bits")?;
    offsets.desc_ring_descs = field("prb_desc_ring", "descs")?;
    offsets.desc_ring_infos = field("prb_desc_ring", "infos")?;
    offsets.desc_size = btf.size_bytes("prb_desc")?;
    offsets.desc_text_blk_lpos = field("prb_desc", "text_blk_lpos")?;
    offsets.desc_state_var = field("prb_desc", "state_var")?;
    offsets.data_ring_size_bits = field("prb_data_ring", "size_bits")?;
    offsets.data_ring_data = field("prb_data_ring", "data")?;
    offsets.info_size = btf.size_bytes("printk_info")?;
    offsets.info_seq = field("printk_info", "seq")?;
    offsets.info_ts_nsec = field("printk_info", "ts_nsec")?;
    offsets.info_text_len = field("printk_info", "text_len")?;
    offsets.info_facility = field("printk_info", "facility")?;
    offsets.info_flags_level = field("printk_info", "flags")?;
    offsets.info_level_shift = btf.field("printk_info", "level")?.bit_offset % 8;
    offsets.info_caller_id = field("printk_info", "caller_id")?;
    offsets.info_dev_info = field("printk_info", "dev_info")?;
    offsets.info_header_bytes = header_bytes(offsets)?;
    Ok(())
}

/// How much of a `printk_info` the programs read in one go: all but the names of its device, and of
/// those the first bytes, which tell whether there is one.
fn header_bytes(offsets: &Offsets) -> Result<u32, BtfError> {
    let ends = [
        offsets.info_seq + 8,
        offsets.info_ts_nsec + 8,
        offsets.info_text_len + 2,
        offsets.info_facility + 1,
        offsets.info_flags_level + 1,
        offsets.info_caller_id + 4,
        offsets.info_dev_info + offset_of!(DeviceInfo, device) as u32 + 1,
    ];
    let header_bytes = ends.into_iter().max().unwrap_or(0);
    if header_bytes as usize >= INFO_ROOM_BYTES {
        return Err(BtfError::TooLong { name: "printk_info", room_bytes: INFO_ROOM_BYTES });
    }
    Ok(header_bytes)
}

/// Fields of a task, and those on the way from there to the name of its cgroup.
///
/// # Errors
/// Names the first field that this kernel lacks; the name is then left out.
pub fn task(btf: &Btf, offsets: &mut Offsets) -> Result<(), BtfError> {
    let field = |of: &str, name: &str| btf.field(of, name).map(|found| found.offset_bytes());
    offsets.css_set_dfl_cgrp = field("css_set", "dfl_cgrp")?;
    offsets.cgroup_kn = field("cgroup", "kn")?;
    offsets.kernfs_node_id = field("kernfs_node", "id")?;
    offsets.task_pid = field("task_struct", "pid")?;
    offsets.task_comm = field("task_struct", "comm")?;
    offsets.kernfs_node_name = field("kernfs_node", "name")?;
    offsets.task_cgroups = field("task_struct", "cgroups")?;
    Ok(())
}

/// Fields of network devices, for the netdev programs.
///
/// # Errors
/// Names the first field that this kernel lacks.
pub fn netdev(btf: &Btf, offsets: &mut Offsets) -> Result<(), BtfError> {
    let field = |of: &str, name: &str| btf.field(of, name).map(|found| found.offset_bytes());
    offsets.notifier_info_dev = field("netdev_notifier_info", "dev")?;
    offsets.net_device_ifindex = field("net_device", "ifindex")?;
    offsets.net_device_name = field("net_device", "name")?;
    offsets.net_device_net = field("net_device", "nd_net.net")?;
    offsets.net_ns_inum = field("net", "ns.inum")?;
    Ok(())
}
