//! System calls that rustix does not wrap safely: memory mappings, two socket
//! options and the address of a packet socket.
//!
//! Nothing here knows rings or frames. Sources: mmap(2), mlock(2), packet(7),
//! `include/uapi/linux/if_xdp.h`, `include/uapi/linux/if_packet.h`.

#![allow(unsafe_code, reason = "mappings and setsockopt with options that rustix does not know")]

use std::ffi::c_int;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use rustix::io::{self, Errno};
use rustix::mm::{MapFlags, ProtFlags};

/// `XDP_MAX_TX_SKB_BUDGET`: most descriptors that one kick handles in copy
/// mode. Since Linux 6.17; range 32 to the size of the TX ring
/// (`xsk_setsockopt`, `net/xdp/xsk.c`).
const XDP_MAX_TX_SKB_BUDGET: c_int = 9;

/// A piece of memory that is unmapped when dropped. Only its owner knows the
/// address; what lies in it is the owner's affair.
#[derive(Debug)]
pub(super) struct Area {
    base: NonNull<u8>,
    len_bytes: usize,
    origin: Origin,
}

#[derive(Debug)]
enum Origin {
    Mapped,
    #[cfg(test)]
    Heap,
}

// SAFETY: an `Area` is the only owner of its memory and gives out nothing but
// the address; memory is not tied to a thread.
unsafe impl Send for Area {}

impl Area {
    /// Private zeroed memory, present in RAM from the start and, where the
    /// limits allow it, locked there.
    ///
    /// # Errors
    /// That of mmap(2).
    pub(super) fn anonymous(len_bytes: usize) -> io::Result<Self> {
        // SAFETY: a new private mapping at an address of the kernel's choice
        // touches no memory that is in use.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                std::ptr::null_mut(),
                len_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::POPULATE,
            )
        }?;
        let area = Self::mapped(base.cast(), len_bytes)?;
        // Best effort: registering the memory with AF_XDP pins it anyway.
        // SAFETY: the range was just mapped and belongs to `area`.
        let _ = unsafe { rustix::mm::mlock(area.base.as_ptr().cast(), len_bytes) };
        Ok(area)
    }

    /// Memory that a socket shares with the kernel, at `offset` of its file.
    ///
    /// # Errors
    /// That of mmap(2).
    pub(super) fn of_socket(fd: impl AsFd, len_bytes: usize, offset: u64) -> io::Result<Self> {
        // SAFETY: as above; AF_XDP's rings are not memory of anything else in
        // this process.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len_bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                fd,
                offset,
            )
        }?;
        Self::mapped(base.cast(), len_bytes)
    }

    fn mapped(base: *mut u8, len_bytes: usize) -> io::Result<Self> {
        let base = NonNull::new(base).ok_or(Errno::NOMEM)?;
        Ok(Self { base, len_bytes, origin: Origin::Mapped })
    }

    /// Plain memory in place of a mapping.
    #[cfg(test)]
    pub(super) fn heap(len_bytes: usize) -> Self {
        let words: Box<[u64]> = vec![0; len_bytes.div_ceil(8)].into();
        let len_bytes = words.len() * 8;
        let base = NonNull::new(Box::into_raw(words).cast()).unwrap();
        Self { base, len_bytes, origin: Origin::Heap }
    }

    /// First byte. Page-aligned if mapped, 8-byte-aligned in tests.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length in bytes.
    pub(super) fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        match self.origin {
            Origin::Mapped => {
                // SAFETY: the mapping was made by this type, is unmapped once,
                // and every user of the address owns this `Area`.
                let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len_bytes) };
            }
            #[cfg(test)]
            Origin::Heap => {
                let words = std::ptr::slice_from_raw_parts_mut(
                    self.base.as_ptr().cast::<u64>(),
                    self.len_bytes / 8,
                );
                // SAFETY: these are the parts of the box that `heap` took apart.
                drop(unsafe { Box::from_raw(words) });
            }
        }
    }
}

fn set_int_option(fd: BorrowedFd<'_>, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: the option value points to an int and its length is that of an
    // int, for the duration of the call; the descriptor is open.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Raises the number of descriptors that one kick handles in copy mode.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 6.17; `EACCES` out of range.
pub(super) fn set_tx_budget(fd: BorrowedFd<'_>, descriptors: u32) -> io::Result<()> {
    let value = c_int::try_from(descriptors).map_err(|_| Errno::INVAL)?;
    set_int_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, value)
}

/// Lets a packet socket hand its packets to the driver without the qdisc.
///
/// # Errors
/// That of setsockopt(2).
pub(in crate::egress) fn set_qdisc_bypass(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_int_option(fd, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1)
}

/// Binds a packet socket to a device for sending alone: protocol 0 receives nothing.
///
/// # Errors
/// That of bind(2): `ENODEV` without such a device.
pub(in crate::egress) fn bind_packet(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let address = packet_address(ifindex)?;
    // SAFETY: the pointer and the length are those of one whole `sockaddr_ll`,
    // which the kernel only reads during the call; the descriptor is open.
    let result = unsafe {
        libc::bind(
            fd.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

fn packet_address(ifindex: u32) -> io::Result<libc::sockaddr_ll> {
    Ok(libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: 0,
        sll_ifindex: c_int::try_from(ifindex).map_err(|_| Errno::NODEV)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    })
}

/// Sends a whole frame by a device, whichever that is. Does not wait.
///
/// # Errors
/// That of sendto(2).
pub(in crate::egress) fn send_packet(
    fd: BorrowedFd<'_>,
    ifindex: u32,
    frame: &[u8],
) -> io::Result<()> {
    let address = packet_address(ifindex)?;
    // SAFETY: pointers and lengths are those of the frame and of one whole `sockaddr_ll`,
    // which the kernel only reads during the call; the descriptor is open.
    let sent = unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent >= 0 { Ok(()) } else { Err(last_errno()) }
}

/// Binds a socket to a device by name (`SO_BINDTODEVICE`, socket(7)).
///
/// # Errors
/// `ENODEV` without such a device; `EINVAL` if the name is too long.
pub(in crate::egress) fn bind_to_device(fd: BorrowedFd<'_>, ifname: &str) -> io::Result<()> {
    if ifname.len() >= libc::IFNAMSIZ {
        return Err(Errno::INVAL);
    }
    // SAFETY: pointer and length describe the bytes of `ifname`, which the
    // kernel copies during the call; it needs no NUL where the length is given.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            ifname.as_ptr().cast(),
            ifname.len() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(last_errno()) }
}

fn last_errno() -> Errno {
    // Every failed call sets it; the fallback is never used.
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
