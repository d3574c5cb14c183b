//! A connected UDP socket: the way out where routing means more than a device
//! and a next hop (IPsec, encapsulation, this host itself).
//!
//! Buffers are UDP payloads, the kernel makes the headers; qdiscs, netfilter
//! and local captures see the packets. One system call per datagram. Nothing
//! is received.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::sockopt::{
    set_socket_broadcast, set_socket_recv_buffer_size, set_socket_reuseaddr,
};
use rustix::net::{
    AddressFamily, SendFlags, SocketFlags, SocketType, bind, connect, send, socket_with,
};

use super::slots::{Slotted, Wire};
use super::xdp::sys;
use super::{Egress, EgressKind, OpenError, Outcome};

/// Slots per socket unless the caller says otherwise.
pub const SLOTS_DEFAULT: u32 = 512;

/// Whom a UDP socket is to send to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Destination.
    pub remote: SocketAddr,
    /// Source address and port; port 0 lets the kernel choose. Several sockets
    /// may have the same.
    pub local: Option<SocketAddr>,
    /// Device that packets must leave by (`SO_BINDTODEVICE`).
    pub device: Option<String>,
    /// Slots of 2048 bytes; at least one is made.
    pub slots: u32,
}

impl UdpOptions {
    /// Source and device by the routing table, default number of slots.
    #[must_use]
    pub fn new(remote: SocketAddr) -> Self {
        Self { remote, local: None, device: None, slots: SLOTS_DEFAULT }
    }
}

/// Opens a UDP socket and connects it.
///
/// # Errors
/// [`OpenError`] says which step failed and what to do.
pub fn open(options: &UdpOptions) -> Result<Box<dyn Egress>, OpenError> {
    Ok(Box::new(Slotted::new(UdpWire(connected(options)?), options.slots)))
}

/// A connected UDP socket, which sends or refuses at once.
///
/// # Errors
/// [`OpenError`] says which step failed and what to do.
pub fn connected(options: &UdpOptions) -> Result<OwnedFd, OpenError> {
    let step = |operation| {
        move |cause: Errno| OpenError {
            operation,
            object: format!("UDP to {}", options.remote),
            cause: cause.into(),
            remedy: remedy(cause),
        }
    };
    let (family, any) = match options.remote {
        SocketAddr::V4(_) => (AddressFamily::INET, IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        SocketAddr::V6(_) => (AddressFamily::INET6, IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = socket_with(family, SocketType::DGRAM, flags, None).map_err(step("open a socket"))?;
    // Every target uses netconsole's source port.
    set_socket_reuseaddr(&fd, true).map_err(step("share the source port"))?;
    set_socket_broadcast(&fd, true).map_err(step("allow broadcasts"))?;
    // Nobody reads: keep as little as the kernel permits of what comes back.
    let _ = set_socket_recv_buffer_size(&fd, 0);
    if let Some(device) = &options.device {
        sys::bind_to_device(fd.as_fd(), device).map_err(step("bind to the device"))?;
    }
    let local = options.local.unwrap_or(SocketAddr::new(any, 0));
    bind(&fd, &local).map_err(step("bind the source address"))?;
    connect(&fd, &options.remote).map_err(step("connect"))?;
    Ok(fd)
}

/// Sends one datagram through such a socket.
///
/// # Errors
/// That of send(2); `ECONNREFUSED` and the like may be about an earlier datagram.
pub fn send_once(socket: &OwnedFd, payload: &[u8]) -> io::Result<()> {
    send(socket, payload, SendFlags::DONTWAIT)?;
    Ok(())
}

/// What an operator can do about an error of the set-up.
fn remedy(cause: Errno) -> &'static str {
    match cause {
        Errno::ADDRNOTAVAIL => "this host does not have the source address: give one it has",
        Errno::ADDRINUSE => "another program holds the source port: give another one",
        Errno::NODEV => "the device is gone or in another network namespace",
        Errno::PERM | Errno::ACCESS => "a port below 1024 needs CAP_NET_BIND_SERVICE",
        Errno::AFNOSUPPORT | Errno::INVAL => {
            "source and destination must be of one family that this kernel has, and a link-local \
             address needs its %device"
        }
        Errno::NETUNREACH | Errno::HOSTUNREACH => "there is no route to it: see `ip route get`",
        _ => "see `ip route get` for the destination",
    }
}

/// Whether a send can report this for an earlier datagram (ICMP, `sk_err`):
/// reporting it clears it, and the datagram at hand was not sent.
fn may_be_of_an_earlier_one(error: Errno) -> bool {
    matches!(
        error,
        Errno::CONNREFUSED
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::PROTO
            | Errno::ACCESS
            | Errno::NONET
            | Errno::MSGSIZE
    )
}

struct UdpWire(OwnedFd);

impl Wire for UdpWire {
    const KIND: EgressKind = EgressKind::Udp;

    fn send(&self, payload: &[u8]) -> Result<Option<Outcome>, Errno> {
        let mut answer = send(&self.0, payload, SendFlags::DONTWAIT);
        if answer.is_err_and(may_be_of_an_earlier_one) {
            answer = send(&self.0, payload, SendFlags::DONTWAIT);
        }
        match answer {
            Ok(_) => Ok(Some(Outcome::Sent)),
            // Refused for good: too long for the path, or by a firewall rule.
            Err(Errno::MSGSIZE | Errno::PERM) => Ok(Some(Outcome::Refused)),
            // Buffers full, or yet another ICMP error came in between.
            Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM | Errno::INTR | Errno::CONNREFUSED) => {
                Ok(None)
            }
            // No route, device down or gone, source address gone.
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Tag;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn push(egress: &mut dyn Egress, number: u64) {
        egress
            .push(Tag(number), 1500, &mut |slot| {
                slot[..8].copy_from_slice(&number.to_le_bytes());
                8
            })
            .unwrap();
    }

    fn receiver() -> UdpSocket {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        receiver
    }

    #[test]
    fn payloads_arrive_in_order() {
        let receiver = receiver();
        let mut egress = open(&UdpOptions {
            local: Some("127.0.0.1:0".parse().unwrap()),
            device: Some("lo".into()),
            ..UdpOptions::new(receiver.local_addr().unwrap())
        })
        .unwrap();
        assert_eq!((egress.kind(), egress.kind().takes_frames()), (EgressKind::Udp, false));
        (0..50).for_each(|number| push(&mut *egress, number));
        assert_eq!(egress.queued(), 50);
        egress.flush().unwrap();
        let mut told = Vec::new();
        egress.reap(&mut |tag, outcome| told.push((tag.0, outcome)));
        assert_eq!(told, (0..50).map(|n| (n, Outcome::Sent)).collect::<Vec<_>>());
        let mut buf = [0; 100];
        for number in 0..50u64 {
            let len = receiver.recv(&mut buf).unwrap();
            assert_eq!(buf[..len], number.to_le_bytes());
        }
    }

    #[test]
    fn a_pending_icmp_error_loses_no_datagram() {
        // A port that nobody listens on, and then somebody does.
        let address = receiver().local_addr().unwrap();
        let mut egress = open(&UdpOptions::new(address)).unwrap();
        push(&mut *egress, 1);
        egress.flush().unwrap();
        // Port unreachable comes back over lo before sendto(2) returns.
        let receiver = UdpSocket::bind(address).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        push(&mut *egress, 2);
        egress.flush().unwrap();
        let mut told = Vec::new();
        egress.reap(&mut |tag, outcome| told.push((tag.0, outcome)));
        assert_eq!(told, [(1, Outcome::Sent), (2, Outcome::Sent)]);
        let mut buf = [0; 100];
        let len = receiver.recv(&mut buf).unwrap();
        assert_eq!(buf[..len], 2u64.to_le_bytes());
    }

    #[test]
    fn two_sockets_share_a_source_port() {
        let receiver = receiver();
        let first = open(&UdpOptions::new(receiver.local_addr().unwrap()));
        assert!(first.is_ok());
        let port_holder = UdpSocket::bind("127.0.0.1:0").unwrap();
        let local = port_holder.local_addr().unwrap();
        drop(port_holder);
        let options =
            UdpOptions { local: Some(local), ..UdpOptions::new(receiver.local_addr().unwrap()) };
        let mut egresses = [open(&options).unwrap(), open(&options).unwrap()];
        for egress in &mut egresses {
            push(&mut **egress, 3);
            egress.flush().unwrap();
            let (_, from) = receiver.recv_from(&mut [0; 100]).unwrap();
            assert_eq!(from, local);
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let mut options = UdpOptions::new("127.0.0.1:9".parse().unwrap());
        options.local = Some("192.0.2.77:6665".parse().unwrap());
        let error = open(&options).err().unwrap();
        assert_eq!(error.errno(), Some(Errno::ADDRNOTAVAIL));
        assert_eq!(
            error.to_string(),
            "cannot bind the source address for UDP to 127.0.0.1:9: Cannot assign requested \
             address (os error 99); this host does not have the source address: give one it has"
        );
        options.local = None;
        options.device = Some("a-name-that-is-too-long".into());
        assert_eq!(open(&options).err().unwrap().operation, "bind to the device");
    }
}
