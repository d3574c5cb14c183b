//! Ways out of the host, behind one small trait.
//!
//! An [`Egress`] is owned by the pump: it is built and closed by the control
//! thread, and moved as a box in between. It takes datagrams in order, tells
//! when the kernel has taken each of them, and does nothing else: it neither
//! encodes nor resolves nor logs.

mod error;
pub mod memory;
pub mod packet;
pub mod pcap;
mod slots;
pub mod udp;
pub mod xdp;

use std::io;

pub use self::error::OpenError;
use crate::frame::{ETHERNET_HEADER_BYTES, frame_limit_bytes};

/// Names the datagram to its owner when its fate is known. The egress does not
/// look into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag(pub u64);

/// What became of a datagram, from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The kernel consumed its TX descriptor or took the packet.
    Sent,
    /// The device dropped it at once, as one without carrier does: the same datagram
    /// may pass later.
    Dropped,
    /// The kernel refused it for good; it is not tried again.
    Refused,
}

/// Why a datagram could not be taken now.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Every slot is in use; reap and try later.
    #[error("every transmit slot is in use")]
    Full,
    /// The datagram does not fit the slot or the device's MTU.
    #[error("a packet of {len_bytes} bytes exceeds the limit of {limit_bytes} bytes")]
    TooLong {
        /// Bytes of the packet.
        len_bytes: usize,
        /// Most that can be sent there.
        limit_bytes: usize,
    },
    /// The buffer cannot hold a packet of this kind (AF_XDP, AF_PACKET: not
    /// even an Ethernet header).
    #[error("a packet of {len_bytes} bytes is shorter than {limit_bytes} bytes")]
    TooShort {
        /// Bytes of the packet.
        len_bytes: usize,
        /// Least that can be sent there.
        limit_bytes: usize,
    },
}

/// The kind of a way out, as the configuration and `status` name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EgressKind {
    /// AF_XDP transmit ring.
    Xdp,
    /// AF_PACKET with qdisc bypass.
    Packet,
    /// Connected UDP socket.
    Udp,
    /// A pcap file.
    Pcap,
    /// Memory, for tests.
    Memory,
}

impl EgressKind {
    /// The name used in the configuration, in `status` and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Packet => "packet",
            Self::Udp => "udp",
            Self::Pcap => "pcap",
            Self::Memory => "memory",
        }
    }

    /// Whether a pushed buffer is a whole Ethernet frame (else UDP payload only).
    #[must_use]
    pub fn takes_frames(self) -> bool {
        match self {
            Self::Xdp | Self::Packet | Self::Pcap | Self::Memory => true,
            Self::Udp => false,
        }
    }
}

/// One way out of the host. All methods are called by the pump: none blocks,
/// allocates or logs.
pub trait Egress: Send {
    /// Which kind this is.
    fn kind(&self) -> EgressKind;

    /// Largest buffer that [`Egress::push`] hands to `fill`, in bytes.
    fn slot_bytes(&self) -> usize;

    /// Takes one datagram: hands a slot to `fill`, which writes into it and
    /// returns the length in bytes. The slot is memory that the kernel sends
    /// from (AF_XDP) wherever the kind allows. `mtu_bytes` is the longest IP packet
    /// on the datagram's way; kinds without frames of their own on a device (UDP,
    /// pcap, memory) do not look at it.
    ///
    /// # Errors
    /// [`PushError::Full`] before `fill` was called, if no slot is free;
    /// [`PushError::TooLong`] or [`PushError::TooShort`] after it, and the slot
    /// is free again.
    fn push(
        &mut self,
        tag: Tag,
        mtu_bytes: u32,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<(), PushError>;

    /// Hands what was pushed to the kernel: at most one system call for a batch
    /// where the kind allows it. What the kernel does not take now stays queued
    /// and is offered again by the next call.
    ///
    /// # Errors
    /// The error of the system call where it will not pass by itself (device
    /// gone, device down); what was pushed stays queued.
    fn flush(&mut self) -> io::Result<()>;

    /// Tells `done` about each datagram whose fate became known since the last
    /// call, in the order of their pushes, and frees the slots that the kernel gave back.
    fn reap(&mut self, done: &mut dyn FnMut(Tag, Outcome));

    /// Number of datagrams pushed whose fate `reap` has not told yet.
    fn queued(&self) -> usize;

    /// Gives up: tells `fate` about each datagram of which `reap` has not told, in
    /// the order of their pushes; `None` for those that the kernel did not take and
    /// now never will. The egress takes no datagram after it. (The socket itself is
    /// closed when the box is dropped, by the control thread.)
    fn abandon(&mut self, fate: &mut dyn FnMut(Tag, Option<Outcome>));
}

/// Whether a frame may leave by a device with this MTU. AF_XDP checks neither
/// end (a frame over the MTU is sent, one shorter than its header dropped).
fn check_frame(slot: &[u8], len_bytes: usize, mtu_bytes: u32) -> Result<(), PushError> {
    let limit_bytes = frame_limit_bytes(slot, mtu_bytes as usize).min(slot.len());
    if len_bytes > limit_bytes {
        return Err(PushError::TooLong { len_bytes, limit_bytes });
    }
    if len_bytes < ETHERNET_HEADER_BYTES {
        return Err(PushError::TooShort { len_bytes, limit_bytes: ETHERNET_HEADER_BYTES });
    }
    Ok(())
}
