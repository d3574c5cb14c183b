//! Whether the host has IPsec policies for what it sends: a frame of our own
//! would leave in the clear where a policy asks for encryption.
//!
//! One dump over `NETLINK_XFRM` (`net/xfrm/xfrm_user.c`, `xfrm_dump_policy`,
//! Linux 6.12; structures in `include/uapi/linux/xfrm.h`). Selectors are not
//! matched: policies of the host as a whole count, and the policies that a key
//! daemon puts on its own sockets do not.

use std::io;

use rtnetlink::sys::protocols;
use rustix::io::Errno;

use super::dump;

/// Message types, from `XFRM_MSG_BASE` (0x10).
const XFRM_MSG_NEWPOLICY: u16 = 0x13;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
/// Of `enum` in `linux/xfrm.h`: in 0, out 1, forward 2; those of sockets follow.
const XFRM_POLICY_OUT: u8 = 1;
/// Offset of `dir` in `struct xfrm_userpolicy_info`: selector 56, lifetimes 64
/// and 32, priority 4, index 4.
const DIR_OFFSET_BYTES: usize = 160;

/// Whether there is an outbound policy in this network namespace. True also
/// where the kernel does not tell (`EPERM`): sending in the clear is the worse error.
pub(super) async fn has_outbound_policies() -> io::Result<bool> {
    let outcome = dump::dump(protocols::NETLINK_XFRM, XFRM_MSG_GETPOLICY, &[], scan).await;
    match outcome.as_ref().err().and_then(Errno::from_io_error) {
        // Without CONFIG_XFRM_USER there is no such protocol, or nobody behind it.
        Some(Errno::PROTONOSUPPORT | Errno::CONNREFUSED) => Ok(false),
        Some(Errno::PERM | Errno::ACCESS) => Ok(true),
        _ => outcome,
    }
}

/// Goes through one datagram of the dump: `Some` once the answer is known.
fn scan(datagram: &[u8]) -> io::Result<Option<bool>> {
    dump::scan(datagram, |message| match message {
        None => Some(false),
        Some((XFRM_MSG_NEWPOLICY, policy)) => {
            (policy.get(DIR_OFFSET_BYTES) == Some(&XFRM_POLICY_OUT)).then_some(true)
        }
        Some(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_core::{NLMSG_DONE, NLMSG_ERROR};

    use super::dump::HEADER_BYTES;
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
