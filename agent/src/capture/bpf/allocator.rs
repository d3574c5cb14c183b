//! What the process asks of its allocator, so that its memory stays what it was measured to be.
//!
//! Only glibc's keeps freed memory in a way that matters; others are left alone.
#![cfg_attr(
    target_env = "gnu",
    allow(unsafe_code, reason = "the allocator's own calls have no safe form")
)]

/// Blocks of at least this size come straight from the kernel and go straight back to it: the
/// slots of a socket, which may be opened on one thread and closed on another.
#[cfg(target_env = "gnu")]
const LARGE_BYTES: i32 = 256 << 10;

/// Gives large blocks back when they are freed, whichever thread does it. By itself glibc raises
/// its limit with the first large block that is freed (`M_MMAP_THRESHOLD`, mallopt(3)), and then
/// each thread's arena keeps some of them for ever. To be called before there are threads.
pub fn give_large_blocks_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` only changes the allocator's own settings.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
    }
}

/// Gives the pages back that hold nothing allocated.
pub(super) fn give_free_pages_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` only gives back pages that hold nothing allocated.
    unsafe {
        libc::malloc_trim(0);
    }
}
