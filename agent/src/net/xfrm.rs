//! Whether the host has IPsec policies for what it sends: a frame of our own
//! would leave in the clear where a policy asks for encryption.
//!
//! One dump over `NETLINK_XFRM` (`net/xfrm/xfrm_user.c`, `xfrm_dump_policy`,
//! Linux 6.12; structures in `include/uapi/linux/xfrm.h`). Selectors are not
//! matched: policies of the host as a whole count, and the policies that a key
//! daemon puts on its own sockets do not.

use std::io;

use rtnetlink::packet_core::Emitable;
use rtnetlink::packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkHeader};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket, protocols};
use rustix::io::Errno;

/// Message types, from `XFRM_MSG_BASE` (0x10).
const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
/// Of `enum` in `linux/xfrm.h`: in 0, out 1, forward 2; those of sockets follow.
const XFRM_POLICY_OUT: u8 = 1;
/// Offset of `dir` in `struct xfrm_userpolicy_info`: selector 56, lifetimes 64
/// and 32, priority 4, index 4.
const DIR_OFFSET_BYTES: usize = 160;
/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;

/// Whether there is an outbound policy in this network namespace. True also
/// where the kernel does not tell (`EPERM`): sending in the clear is the worse error.
pub(super) async fn has_outbound_policies() -> io::Result<bool> {
    let outcome = dump().await;
    match outcome.as_ref().err().and_then(Errno::from_io_error) {
        // Without CONFIG_XFRM_USER there is no such protocol, or nobody behind it.
        Some(Errno::PROTONOSUPPORT | Errno::CONNREFUSED) => Ok(false),
        Some(Errno::PERM | Errno::ACCESS) => Ok(true),
        _ => outcome,
    }
}

async fn dump() -> io::Result<bool> {
    let mut socket = TokioSocket::new(protocols::NETLINK_XFRM)?;
    socket.socket_mut().bind_auto()?;
    let mut header = NetlinkHeader::default();
    header.length = HEADER_BYTES as u32;
    header.message_type = XFRM_MSG_GETPOLICY;
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = 1;
    let mut request = [0; HEADER_BYTES];
    header.emit(&mut request);
    socket.send_to(&request, &SocketAddr::new(0, 0)).await?;
    loop {
        let (datagram, sender) = socket.recv_from_full().await?;
        // Only the kernel has port 0; another process may send to our port.
        if sender.port_number() != 0 {
            continue;
        }
        if let Some(found) = scan(&datagram)? {
            return Ok(found);
        }
    }
}

/// Goes through one datagram of the dump: `Some` once the answer is known.
fn scan(mut datagram: &[u8]) -> io::Result<Option<bool>> {
    while let Some((header, _)) = datagram.split_first_chunk::<HEADER_BYTES>() {
        let [l0, l1, l2, l3, t0, t1, ..] = *header;
        let length_bytes = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
        let payload = datagram
            .get(HEADER_BYTES..length_bytes)
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        match u16::from_ne_bytes([t0, t1]) {
            NLMSG_DONE => return Ok(Some(false)),
            NLMSG_ERROR => return Err(error_of(payload)),
            XFRM_MSG_NEWPOLICY if payload.get(DIR_OFFSET_BYTES) == Some(&XFRM_POLICY_OUT) => {
                return Ok(Some(true));
            }
            _ => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER_BYTES + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn policy(dir: u8) -> Vec<u8> {
        let mut payload = vec![0; 168];
        payload[DIR_OFFSET_BYTES] = dir;
        message(XFRM_MSG_NEWPOLICY, &payload)
    }

    #[test]
    fn only_outbound_policies_count() {
        let others = [policy(0), policy(2), policy(4)].concat();
        assert_eq!(scan(&others).unwrap(), None);
        assert_eq!(scan(&[others.clone(), policy(1)].concat()).unwrap(), Some(true));
        assert_eq!(scan(&[others, message(NLMSG_DONE, &[0; 4])].concat()).unwrap(), Some(false));
    }

    #[test]
    fn refusals_and_garbage_are_errors() {
        let refused = message(NLMSG_ERROR, &(-1i32).to_ne_bytes());
        assert_eq!(scan(&refused).unwrap_err().raw_os_error(), Some(1));
        let mut short = policy(1);
        short.truncate(100);
        assert!(scan(&short).is_err());
        let mut zero = policy(1);
        zero[..4].fill(0);
        assert!(scan(&zero).is_err());
    }
}
