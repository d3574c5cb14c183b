//! To whom last words go and by which way: made by the control thread, used as it is when there is no
//! time to ask anybody.

use std::{io, os::fd::OwnedFd, sync::Arc};

use arc_swap::ArcSwap;

use crate::{
    egress::packet::AnyDevice, egress::udp, frame::HeaderTemplate, target::TargetSettings,
};

/// All targets that have, or had, a way.
#[derive(Debug, Default)]
pub struct Plan {
    /// In the order of the pump's indices.
    pub targets: Vec<Spoken>,
}

/// One target.
#[derive(Debug)]
pub struct Spoken {
    /// Its index with the pump.
    pub place: usize,
    /// Its settings, as the pump has them.
    pub settings: Arc<ArcSwap<TargetSettings>>,
    /// Device and queue as the extra data names them, as in its route.
    pub nic: Box<[u8]>,
    /// Its way.
    pub way: SpokenWay,
    /// The way of dumps, if it wants them.
    pub dump: Option<SpokenWay>,
}

/// The way of last words.
#[derive(Debug)]
pub enum SpokenWay {
    /// Frames, handed to a device's driver.
    Frames {
        /// The device.
        ifindex: u32,
        /// The headers.
        header: Box<HeaderTemplate>,
    },
    /// A connected UDP socket.
    Udp(Arc<OwnedFd>),
}

impl SpokenWay {
    /// Bytes before the payload in what [`Self::send`] takes.
    pub(super) fn header_bytes(&self) -> usize {
        match self {
            SpokenWay::Frames { header, .. } => header.header_len(),
            SpokenWay::Udp(_) => 0,
        }
    }

    /// Completes and sends a datagram whose payload stands behind [`Self::header_bytes`].
    ///
    /// # Errors
    /// Those of [`AnyDevice::send`] and [`udp::send_once`].
    pub(super) fn send(
        &self,
        devices: Option<&AnyDevice>,
        buffer: &mut [u8],
        payload_bytes: usize,
        ip_id: u16,
    ) -> io::Result<()> {
        match self {
            SpokenWay::Frames { ifindex, header } => {
                let len_bytes = header.write(buffer, payload_bytes, ip_id);
                let frame = buffer.get(..len_bytes).ok_or(io::ErrorKind::InvalidInput)?;
                devices.ok_or(io::ErrorKind::NotConnected)?.send(*ifindex, frame)
            }
            SpokenWay::Udp(socket) => {
                let payload = buffer.get(..payload_bytes).ok_or(io::ErrorKind::InvalidInput)?;
                udp::send_once(socket, payload)
            }
        }
    }
}
