//! Setting up an AF_XDP socket for transmitting.
//!
//! Order and limits: `xsk_setsockopt`, `xsk_bind` (`net/xdp/xsk.c`) and
//! `xdp_umem_reg` (`net/xdp/xdp_umem.c`). A fill ring must exist although
//! nothing is received. Sending is not done here: see `queue`.

use std::os::fd::{AsFd, OwnedFd};
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_send_buffer_size, set_socket_send_buffer_size_force, set_xdp_tx_ring_size,
    set_xdp_umem_completion_ring_size, set_xdp_umem_fill_ring_size, set_xdp_umem_reg,
    xdp_mmap_offsets,
};
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XdpDesc,
    XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, bind, send, socket_with};
use rustix::system::uname;

use crate::egress::OpenError;

use super::defect::kernel_defect;
use super::frames::{FreeFrame, Umem};
use super::ring::{CompletionRing, RingLayout, TxRing};
use super::sys::{self, Area};

/// Frames per socket unless the caller says otherwise.
pub const FRAMES_DEFAULT: u32 = 2048;
/// Most frames per socket: 64 MiB of memory.
const FRAMES_MAX: u32 = 32_768;
/// Bytes per frame: the smallest size that the kernel takes (`XDP_UMEM_MIN_CHUNK_SIZE`),
/// and enough for every datagram that this agent makes.
pub const FRAME_BYTES: u32 = 2048;
/// What a packet of one frame is charged against the send buffer at most:
/// the frame, headroom and `struct sk_buff`, with room to spare.
const CHARGE_PER_FRAME_BYTES: usize = 4096;

/// Pauses before the binding is tried again. A queue whose socket was just
/// closed is released 20 to 60 ms later, after a grace period.
const BIND_PAUSES_MS: [u64; 7] = [1, 4, 10, 25, 40, 60, 60];

/// Where an AF_XDP socket is to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XdpOptions {
    /// Index of the device in the network namespace of the calling thread.
    pub ifindex: u32,
    /// Name of the device, for messages alone.
    pub ifname: String,
    /// Transmit queue.
    pub queue: u32,
    /// Number of frames of 2048 bytes, 1 to 32768.
    pub frames: u32,
}

impl XdpOptions {
    /// Queue 0 and the default number of frames.
    #[must_use]
    pub fn new(ifindex: u32, ifname: impl Into<String>) -> Self {
        Self { ifindex, ifname: ifname.into(), queue: 0, frames: FRAMES_DEFAULT }
    }
}

/// A bound socket in its parts, with nothing queued.
pub struct RawSocket {
    /// The socket.
    pub fd: OwnedFd,
    /// Memory that it sends from.
    pub umem: Umem,
    /// Tokens of all frames.
    pub free: Vec<FreeFrame>,
    /// Ring of descriptors to send.
    pub tx: TxRing,
    /// Ring of frames given back.
    pub completions: CompletionRing,
}

impl RawSocket {
    /// Makes a socket, its memory and its rings, and binds it in copy mode.
    ///
    /// # Errors
    /// [`OpenError`] says which step failed and what to do.
    pub fn open(options: &XdpOptions) -> Result<Self, OpenError> {
        let &XdpOptions { ifindex, queue, frames, .. } = options;
        let step = |operation| {
            move |cause: Errno| OpenError {
                operation,
                object: format!("AF_XDP on {} queue {queue}", options.ifname),
                cause: cause.into(),
                remedy: remedy(cause),
            }
        };
        if let Some(remedy) = kernel_defect(&uname().release().to_string_lossy()) {
            return Err(OpenError { remedy, ..step("trust this kernel")(Errno::OPNOTSUPP) });
        }
        if !(1..=FRAMES_MAX).contains(&frames) {
            let remedy = "give 1 to 32768 frames";
            return Err(OpenError { remedy, ..step("size the rings")(Errno::INVAL) });
        }

        let fd = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(step("open a socket"))?;

        let len_bytes = FRAME_BYTES as usize * frames as usize;
        let area = Area::anonymous(len_bytes).map_err(step("allocate frame memory"))?;
        let (umem, free) = Umem::new(area, FRAME_BYTES as usize, frames)
            .ok_or(Errno::NOMEM)
            .map_err(step("allocate frame memory"))?;
        let registration = XdpUmemReg {
            addr: umem.base() as u64,
            len: len_bytes as u64,
            chunk_size: FRAME_BYTES,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        set_xdp_umem_reg(&fd, registration).map_err(step("register frame memory"))?;

        let entries = frames.next_power_of_two();
        // Receives nothing, but bind(2) wants it.
        set_xdp_umem_fill_ring_size(&fd, 1).map_err(step("make the fill ring"))?;
        // As long as the TX ring, so that completions never hold up sending.
        set_xdp_umem_completion_ring_size(&fd, entries)
            .map_err(step("make the completion ring"))?;
        set_xdp_tx_ring_size(&fd, entries).map_err(step("make the transmit ring"))?;
        // Best effort: without it the kernel takes 32 descriptors per call.
        let _ = sys::set_tx_budget(fd.as_fd(), entries);
        raise_send_buffer(&fd, frames as usize * CHARGE_PER_FRAME_BYTES);

        let map = || -> Result<_, Errno> {
            let offsets = xdp_mmap_offsets(&fd)?;
            let layout = layout(offsets.tx, entries)?;
            let bytes = layout.entries + entries as usize * size_of::<XdpDesc>();
            let tx = TxRing::new(Area::of_socket(&fd, bytes, XDP_PGOFF_TX_RING)?, layout)?;
            let layout = self::layout(offsets.cr, entries)?;
            let bytes = layout.entries + entries as usize * size_of::<u64>();
            let area = Area::of_socket(&fd, bytes, XDP_UMEM_PGOFF_COMPLETION_RING)?;
            Ok((tx, CompletionRing::new(area, layout)?))
        };
        let (tx, completions) = map().map_err(step("map the rings"))?;

        let flags = SocketAddrXdpFlags::XDP_COPY | SocketAddrXdpFlags::XDP_USE_NEED_WAKEUP;
        bind_patiently(&fd, &SocketAddrXdp::new(flags, ifindex, queue)).map_err(step("bind"))?;
        Ok(Self { fd, umem, free, tx, completions })
    }
}

/// Asks the kernel to transmit what is in the ring.
///
/// # Errors
/// That of sendto(2) on the socket. They say nothing about how much was sent:
/// look at the ring.
pub fn kick(fd: impl AsFd) -> Result<(), Errno> {
    send(fd, &[], SendFlags::DONTWAIT).map(drop)
}

fn layout(offsets: XdpRingOffset, count: u32) -> Result<RingLayout, Errno> {
    let usize = |offset: u64| usize::try_from(offset).map_err(|_| Errno::OVERFLOW);
    Ok(RingLayout {
        producer: usize(offsets.producer)?,
        consumer: usize(offsets.consumer)?,
        flags: offsets.flags.map(usize).transpose()?,
        entries: usize(offsets.desc)?,
        count,
    })
}

/// Makes room for every frame at once, as far as the limits allow: packets
/// that the driver holds are charged against the send buffer.
fn raise_send_buffer(fd: &OwnedFd, bytes: usize) {
    if set_socket_send_buffer_size_force(fd, bytes).is_err() {
        // Without CAP_NET_ADMIN up to net.core.wmem_max.
        let _ = set_socket_send_buffer_size(fd, bytes);
    }
}

fn bind_patiently(fd: &OwnedFd, address: &SocketAddrXdp) -> Result<(), Errno> {
    for pause_ms in BIND_PAUSES_MS {
        match bind(fd, address) {
            Err(Errno::BUSY) => sleep(Duration::from_millis(pause_ms)),
            answer => return answer,
        }
    }
    bind(fd, address)
}

/// What an operator can do about an error of the set-up.
fn remedy(cause: Errno) -> &'static str {
    match cause {
        Errno::PERM | Errno::ACCESS => "give the agent CAP_NET_RAW",
        Errno::AFNOSUPPORT => {
            "this kernel is built without CONFIG_XDP_SOCKETS: use egress = \"packet\""
        }
        Errno::NOBUFS | Errno::NOMEM => {
            "raise LimitMEMLOCK (ulimit -l), give CAP_IPC_LOCK, or use fewer frames"
        }
        Errno::BUSY => {
            "another program holds this queue, or packets are stuck in the device: choose another \
             queue or egress = \"packet\""
        }
        Errno::INVAL => "the device has no such queue (ethtool -l): choose queue = 0",
        Errno::NODEV => "the device is gone or in another network namespace",
        Errno::OPNOTSUPP | Errno::NOPROTOOPT => {
            "this kernel or device does not do this: use egress = \"packet\""
        }
        _ => "use egress = \"packet\" or \"udp\" meanwhile",
    }
}
