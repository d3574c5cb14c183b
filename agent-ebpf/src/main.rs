//! The eBPF programs of netconsole-agent.
//!
//! `printk_*` copy kernel log records into the ring buffer `RECORDS`, `netdev_*` copy
//! events of network devices into `NETDEV_EVENTS`, `panic_*` prove that the kernel panics. Each program exists once per
//! kind of hook; user space attaches one set and never two of the same job.
//! The programs decide nothing but what is sacrificed while the ring fills up (`maps::shed`):
//! filtering, order and joining happen in the agent. And in a panic each line waits in the printing CPU
//! until the agent has handed it on (`last_words`).
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![allow(
    unsafe_code,
    reason = "eBPF programs read raw kernel memory through helpers; the verifier checks each access"
)]
#![allow(missing_docs, reason = "the program and map macros generate undocumented items")]

mod context;
mod header;
mod last_words;
mod maps;
mod netdev;
mod printk;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Without a GPL-compatible licence the kernel refuses the read helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
