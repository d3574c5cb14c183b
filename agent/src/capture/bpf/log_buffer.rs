//! The size of the kernel's log buffer, by the one system call that tells it. It reads no record.
#![allow(unsafe_code, reason = "syslog(2) has no safe wrapper")]

use std::io;

/// `SYSLOG_ACTION_SIZE_BUFFER` (`include/linux/syslog.h`).
const SIZE_BUFFER: libc::c_int = 10;

/// Bytes of text that the kernel's log buffer holds.
///
/// # Errors
/// `EPERM` without `CAP_SYSLOG` where `kernel.dmesg_restrict` is 1; `ENOSYS` without
/// `CONFIG_PRINTK`.
pub fn log_buffer_bytes() -> io::Result<u64> {
    // SAFETY: this action takes no buffer; the kernel does not look at the other arguments
    // (`do_syslog`, kernel/printk/printk.c).
    let size = unsafe { libc::klogctl(SIZE_BUFFER, std::ptr::null_mut(), 0) };
    u64::try_from(size).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_power_of_two_or_a_refusal() {
        match log_buffer_bytes() {
            Ok(bytes) => assert!(bytes.is_power_of_two() && bytes >= 4096, "{bytes}"),
            Err(error) => assert!(error.raw_os_error().is_some(), "{error}"),
        }
    }
}
