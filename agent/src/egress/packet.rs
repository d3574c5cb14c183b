//! AF_PACKET, transmit only, past the qdisc.
//!
//! For devices and kernels where AF_XDP does not bind. Same frames and same
//! place below netfilter and qdiscs (packet(7), `PACKET_QDISC_BYPASS`), one
//! system call per frame. Bound with protocol 0, it receives nothing. It sends
//! frames only: UDP sockets are in `udp`.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socket_with};

use super::slots::{Slotted, Wire};
use super::xdp::sys;
use super::{Egress, EgressKind, OpenError, Outcome, PushError, check_frame};

/// Slots per socket unless the caller says otherwise.
pub const SLOTS_DEFAULT: u32 = 512;

/// Where a packet socket is to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketOptions {
    /// Index of the device in the network namespace of the calling thread.
    pub ifindex: u32,
    /// Name of the device, for messages alone.
    pub ifname: String,
    /// Slots of 2048 bytes; at least one is made.
    pub slots: u32,
}

impl PacketOptions {
    /// The default number of slots.
    #[must_use]
    pub fn new(ifindex: u32, ifname: impl Into<String>) -> Self {
        Self { ifindex, ifname: ifname.into(), slots: SLOTS_DEFAULT }
    }
}

/// Opens a packet socket and binds it to its device.
///
/// # Errors
/// [`OpenError`] says which step failed and what to do.
pub fn open(options: &PacketOptions) -> Result<Box<dyn Egress>, OpenError> {
    let step = |operation| {
        move |cause: Errno| OpenError {
            operation,
            object: format!("AF_PACKET on {}", options.ifname),
            cause: cause.into(),
            remedy: match cause {
                Errno::PERM | Errno::ACCESS => "give the agent CAP_NET_RAW",
                Errno::NODEV => "the device is gone or in another network namespace",
                Errno::AFNOSUPPORT => "this kernel has no CONFIG_PACKET: use egress = \"udp\"",
                _ => "use egress = \"udp\" meanwhile",
            },
        }
    };
    let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)
        .map_err(step("open a socket"))?;
    sys::set_qdisc_bypass(fd.as_fd()).map_err(step("set the qdisc bypass"))?;
    sys::bind_packet(fd.as_fd(), options.ifindex).map_err(step("bind"))?;
    Ok(Box::new(Slotted::new(PacketWire(fd), options.slots)))
}

/// A packet socket that belongs to no device: each frame says which one it leaves by.
#[derive(Debug)]
pub struct AnyDevice(OwnedFd);

impl AnyDevice {
    /// Opens the socket.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW; `EAFNOSUPPORT` without CONFIG_PACKET.
    pub fn open() -> io::Result<Self> {
        let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        sys::set_qdisc_bypass(fd.as_fd())?;
        Ok(Self(fd))
    }

    /// Hands a frame to a device's driver.
    ///
    /// # Errors
    /// That of packet(7): `ENOBUFS` or `EAGAIN` if the driver has no room now, `ENETDOWN`, `ENXIO`
    /// or `ENODEV` if the device is down or gone.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        Ok(sys::send_packet(self.0.as_fd(), ifindex, frame)?)
    }
}

struct PacketWire(OwnedFd);

impl Wire for PacketWire {
    const KIND: EgressKind = EgressKind::Packet;

    fn check(slot: &[u8], len_bytes: usize, mtu_bytes: u32) -> Result<(), PushError> {
        check_frame(slot, len_bytes, mtu_bytes)
    }

    fn send(&self, frame: &[u8]) -> Result<Option<Outcome>, Errno> {
        match send(&self.0, frame, SendFlags::DONTWAIT) {
            Ok(_) => Ok(Some(Outcome::Sent)),
            // The frame itself is at fault: the MTU shrank meanwhile, or
            // the device wants another header.
            Err(Errno::MSGSIZE | Errno::INVAL) => Ok(Some(Outcome::Refused)),
            // Send buffer or driver queue full, or no carrier
            // (`packet_snd`, `__dev_direct_xmit`): the kernel kept nothing.
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR) => Ok(None),
            // ENETDOWN while the device is down, ENXIO once it is gone.
            Err(error) => Err(error),
        }
    }
}
