//! AF_XDP, transmit only, in copy mode.
//!
//! One socket per (device, queue), shared by every target whose frames leave
//! there. No XDP program is loaded and nothing is received. Frames go from our
//! memory to the driver, past qdiscs and netfilter (`Documentation/networking/af_xdp.rst`).
//!
//! *Sent* means that the kernel consumed the descriptor and the driver did not
//! drop the packet at once (`EBUSY`, told as dropped); what a NIC loses later shows in the interface's
//! counters alone. The pieces: `sys` raw calls, `ring` the shared rings,
//! `frames` ownership of frames, `queue` the bookkeeping, `socket` how they are
//! set up.

mod defect;
pub mod frames;
mod queue;
pub mod ring;
pub mod socket;
pub(super) mod sys;

use std::io;
use std::os::fd::OwnedFd;

pub use self::defect::kernel_defect;
use self::queue::TxQueue;
use self::socket::RawSocket;
pub use self::socket::{FRAMES_DEFAULT, XdpOptions};
use super::{Egress, EgressKind, OpenError, Outcome, PushError, Tag};

/// Opens an AF_XDP socket and binds it to its queue.
///
/// May sleep for about 200 ms while the queue is still being released by a
/// socket that was just closed: for the control thread.
///
/// # Errors
/// [`OpenError`] says which step failed and what to do.
pub fn open(options: &XdpOptions) -> Result<Box<dyn Egress>, OpenError> {
    let RawSocket { fd, umem, free, tx, completions } = RawSocket::open(options)?;
    Ok(Box::new(XdpEgress { queue: TxQueue::new(umem, free, tx, completions), fd }))
}

/// The way out through one AF_XDP socket.
struct XdpEgress {
    queue: TxQueue,
    fd: OwnedFd,
}

impl Egress for XdpEgress {
    fn kind(&self) -> EgressKind {
        EgressKind::Xdp
    }

    fn slot_bytes(&self) -> usize {
        self.queue.slot_bytes()
    }

    fn push(
        &mut self,
        tag: Tag,
        mtu_bytes: u32,
        fill: &mut dyn FnMut(&mut [u8]) -> usize,
    ) -> Result<(), PushError> {
        self.queue.push(tag, mtu_bytes, fill)
    }

    fn flush(&mut self) -> io::Result<()> {
        let fd = &self.fd;
        Ok(self.queue.flush(|| socket::kick(fd))?)
    }

    fn reap(&mut self, done: &mut dyn FnMut(Tag, Outcome)) {
        self.queue.reap(done);
    }

    fn queued(&self) -> usize {
        self.queue.queued()
    }

    fn abandon(&mut self, fate: &mut dyn FnMut(Tag, Option<Outcome>)) {
        self.queue.abandon(fate);
    }
}
