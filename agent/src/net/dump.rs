//! A dump over a netlink protocol that the rtnetlink library does not speak
//! (`man 7 netlink`): the request, the datagrams, and the messages in them. What
//! the messages mean is the caller's business.

use std::io;

use rtnetlink::packet_core::Emitable;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

/// `struct nlmsghdr`.
pub(crate) const HEADER_BYTES: usize = 16;

/// Asks for everything of a kind, and hands each datagram to `scan` until that knows
/// the answer.
///
/// # Errors
/// If the socket is refused, and what `scan` says.
pub(crate) async fn dump<T>(
    protocol: isize,
    message_type: u16,
    payload: &[u8],
    mut scan: impl FnMut(&[u8]) -> io::Result<Option<T>>,
) -> io::Result<T> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind_auto()?;
    let mut header = NetlinkHeader::default();
    header.length = (HEADER_BYTES + payload.len()) as u32;
    header.message_type = message_type;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = 1;
    let mut request = vec![0; HEADER_BYTES];
    header.emit(&mut request);
    request.extend_from_slice(payload);
    socket.send_to(&request, &SocketAddr::new(0, 0)).await?;
    loop {
        let (datagram, sender) = socket.recv_from_full().await?;
        // Only the kernel has port 0; another process may send to our port.
        if sender.port_number() == 0
            && let Some(answer) = scan(&datagram)?
        {
            return Ok(answer);
        }
    }
}

/// Goes through one datagram: `take` gets the type and the payload of each message, and
/// `None` at the end of the dump, until it knows the answer.
///
/// # Errors
/// What the kernel says, and `InvalidData` if a message is cut.
pub(crate) fn scan<T>(
    mut datagram: &[u8],
    mut take: impl FnMut(Option<(u16, &[u8])>) -> Option<T>,
) -> io::Result<Option<T>> {
    while let Some((header, _)) = datagram.split_first_chunk::<HEADER_BYTES>() {
        let [l0, l1, l2, l3, t0, t1, ..] = *header;
        let length_bytes = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let payload = datagram
            .get(HEADER_BYTES..length_bytes)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        let answer = match u16::from_ne_bytes([t0, t1]) {
            NLMSG_DONE => return Ok(take(None)),
            NLMSG_ERROR => return Err(error_of(payload)),
            message_type => take(Some((message_type, payload))),
        };
        if answer.is_some() {
            return Ok(answer);
        }
        datagram = datagram.get(length_bytes.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(None)
}

fn error_of(payload: &[u8]) -> io::Error {
    match payload.first_chunk() {
        Some(code) => io::Error::from_raw_os_error(i32::from_ne_bytes(*code).saturating_neg()),
        None => io::ErrorKind::InvalidData.into(),
    }
}
