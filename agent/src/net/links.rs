//! Notifications of changes to links, addresses, routes, rules and neighbours
//! (rtnetlink multicast groups), as something to log and as a hint to resolve
//! again. An event says *that* something changed; how things are now, the
//! [`Resolver`](super::Resolver) tells.
//!
//! Not every change has one: the routes of a device that goes down leave without
//! (`fib_sync_down_dev`, `net/ipv4/fib_semantics.c`); its own event stands for them.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use futures_util::Stream;
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket, protocols};
use rustix::io::Errno;
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_socket_recv_buffer_size_force};
use rustix::net::{RecvFlags, recv};

use super::NetError;
use super::link::Link;
use super::neighbour::usable_mac;
use super::netlink::Neighbour;
use crate::frame::MacAddr;

const GROUPS: [MulticastGroup; 8] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
    MulticastGroup::Ipv4Rule,
    MulticastGroup::Ipv6Rule,
];

/// Room for notifications that were not read yet; the default of 208 KiB holds
/// only about 250 of them, less than a router's change of mind.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// More than any notification: that of a device with many virtual functions is
/// the longest.
const DATAGRAM_MAX_BYTES: usize = 64 << 10;

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetEventKind {
    /// A device exists or changed, and is up with carrier.
    LinkRunning,
    /// A device exists or changed, and is up without carrier.
    LinkNoCarrier,
    /// A device exists or changed, and is down.
    LinkDown,
    /// A device is gone from this network namespace.
    LinkGone,
    /// A device was made a port of a bridge, is none any more, or its port
    /// changed. Says nothing of its state.
    LinkChanged,
    /// An address was added or changed, or is no longer tentative.
    AddressNew,
    /// An address was removed.
    AddressGone,
    /// A route was added or changed.
    RouteNew,
    /// A route was removed.
    RouteGone,
    /// A routing rule was added or removed: any route may be another one now.
    RuleChanged,
    /// A neighbour entry was added or changed its state.
    NeighbourNew,
    /// A neighbour entry was removed.
    NeighbourGone,
    /// The kernel dropped notifications, because they were not read in time, or
    /// sent one that could not be read: anything may have changed. Told when it
    /// begins, and again once everything before was read, since the kernel may
    /// have dropped more in between.
    Overrun,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetEvent {
    /// What changed.
    pub kind: NetEventKind,
    /// Index of the device concerned, where there is one.
    pub ifindex: Option<u32>,
    /// Its name, in events of links.
    pub name: Option<String>,
    /// Its MAC, the permanent one where it has one, in events of links.
    pub mac: Option<MacAddr>,
    /// The neighbour concerned, in events of neighbours.
    pub neighbour: Option<NeighbourChange>,
}

/// How a neighbour is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourChange {
    /// Its address.
    pub address: IpAddr,
    /// The MAC the kernel has for it.
    pub mac: Option<MacAddr>,
    /// The kernel would send to that MAC (`NUD_VALID`).
    pub usable: bool,
}

/// The stream of changes. It ends only if the socket fails; dropping it closes
/// the socket. Nothing is read ahead: what is not taken waits in the kernel, and
/// the kernel tells when that was too much.
pub struct Changes {
    socket: TokioSocket,
    datagram: Datagram,
    /// The kernel said that it dropped something, and may go on doing so without
    /// another word until everything was read (`netlink_overrun`,
    /// `net/netlink/af_netlink.c`).
    overrun: bool,
}

/// Subscribes to the changes of the calling thread's network namespace.
///
/// # Errors
/// If the socket or the subscription is refused.
///
/// # Panics
/// Outside of a tokio runtime with I/O enabled.
pub fn watch() -> Result<Changes, NetError> {
    let socket = subscribe().map_err(|cause| NetError {
        operation: "subscribe to netlink notifications",
        object: "links, addresses, routes and neighbours".to_owned(),
        cause,
    })?;
    Ok(Changes { socket, datagram: Datagram::default(), overrun: false })
}

fn subscribe() -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocols::NETLINK_ROUTE)?;
    // A smaller buffer only overruns earlier, which is told.
    if set_socket_recv_buffer_size_force(socket.socket_ref(), RECEIVE_BUFFER_BYTES).is_err() {
        let _ = set_socket_recv_buffer_size(socket.socket_ref(), RECEIVE_BUFFER_BYTES);
    }
    let groups = GROUPS.iter().fold(0, |mask, group| mask | 1 << (*group as u32 - 1));
    socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}

impl Stream for Changes {
    type Item = NetEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<NetEvent>> {
        let this = &mut *self;
        loop {
            while let Some(message) = this.datagram.next_message() {
                match message.map(event) {
                    Some(None) => {}
                    Some(Some(event)) => return Poll::Ready(Some(event)),
                    // Something changed, and what cannot be read.
                    None => return Poll::Ready(Some(plain(NetEventKind::Overrun, None))),
                }
            }
            match this.socket.poll_recv_from(context, this.datagram.empty()) {
                // Only the kernel has port 0; another process may send to our port.
                Poll::Ready(Ok(sender)) if sender.port_number() == 0 => {}
                Poll::Ready(Ok(_)) => {
                    this.datagram.empty();
                }
                Poll::Ready(Err(error)) if errno(&error) == Some(Errno::NOBUFS) => {
                    this.overrun = true;
                    return Poll::Ready(Some(plain(NetEventKind::Overrun, None)));
                }
                Poll::Ready(Err(error)) => {
                    tracing::warn!(%error, "Notifications of the network cannot be read.");
                    return Poll::Ready(None);
                }
                Poll::Pending if this.overrun && this.is_drained() => {
                    this.overrun = false;
                    return Poll::Ready(Some(plain(NetEventKind::Overrun, None)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Changes {
    /// Whether nothing is left to be read. That a poll is pending does not say so:
    /// the runtime makes a task pause that has much to do.
    fn is_drained(&self) -> bool {
        let peek =
            recv(self.socket.socket_ref(), &mut [0; 1], RecvFlags::PEEK | RecvFlags::DONTWAIT);
        peek.err() == Some(Errno::AGAIN)
    }
}

/// What was received, and where in it the next message begins.
#[derive(Debug, Default)]
struct Datagram {
    bytes: BytesMut,
    next_bytes: usize,
}

impl Datagram {
    /// Room for the next one.
    fn empty(&mut self) -> &mut BytesMut {
        self.bytes.clear();
        self.bytes.reserve(DATAGRAM_MAX_BYTES);
        self.next_bytes = 0;
        &mut self.bytes
    }

    /// The next message, `Some(None)` if it cannot be read.
    fn next_message(&mut self) -> Option<Option<NetlinkPayload<RouteNetlinkMessage>>> {
        let rest = self.bytes.get(self.next_bytes..).filter(|rest| !rest.is_empty())?;
        let length_bytes = rest.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize);
        let Some(message) = length_bytes.filter(|end| *end > 0).and_then(|end| rest.get(..end))
        else {
            self.next_bytes = self.bytes.len();
            return Some(None);
        };
        self.next_bytes += message.len().next_multiple_of(4);
        Some(NetlinkMessage::deserialize(message).ok().map(|message| message.payload))
    }
}

fn errno(error: &io::Error) -> Option<Errno> {
    Errno::from_io_error(error)
}

fn event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<NetEvent> {
    let NetlinkPayload::InnerMessage(message) = payload else { return None };
    match message {
        RouteNetlinkMessage::NewLink(link) => Some(link_event(link, false)),
        RouteNetlinkMessage::DelLink(link) => Some(link_event(link, true)),
        RouteNetlinkMessage::NewAddress(address) => {
            Some(plain(NetEventKind::AddressNew, Some(address.header.index)))
        }
        RouteNetlinkMessage::DelAddress(address) => {
            Some(plain(NetEventKind::AddressGone, Some(address.header.index)))
        }
        RouteNetlinkMessage::NewRoute(route) => Some(plain(NetEventKind::RouteNew, device(&route))),
        RouteNetlinkMessage::DelRoute(route) => {
            Some(plain(NetEventKind::RouteGone, device(&route)))
        }
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => {
            Some(plain(NetEventKind::RuleChanged, None))
        }
        RouteNetlinkMessage::NewNeighbour(entry) => neighbour_event(entry, false),
        RouteNetlinkMessage::DelNeighbour(entry) => neighbour_event(entry, true),
        _ => None,
    }
}

fn plain(kind: NetEventKind, ifindex: Option<u32>) -> NetEvent {
    NetEvent { kind, ifindex, name: None, mac: None, neighbour: None }
}

fn link_event(message: LinkMessage, gone: bool) -> NetEvent {
    let flags = message.header.flags;
    let kind = if message.header.interface_family != AddressFamily::Unspec {
        // A bridge about its port (`br_ifinfo_notify`, `net/bridge/br_netlink.c`):
        // "deleted" means that it left the bridge.
        NetEventKind::LinkChanged
    } else if gone {
        NetEventKind::LinkGone
    } else if !flags.contains(LinkFlags::Up) {
        NetEventKind::LinkDown
    } else if !flags.contains(LinkFlags::LowerUp) {
        NetEventKind::LinkNoCarrier
    } else {
        NetEventKind::LinkRunning
    };
    let link = Link::from(message);
    let mac = link.identity_mac();
    let name = (!link.name.is_empty()).then_some(link.name);
    NetEvent { name, mac, ..plain(kind, Some(link.ifindex)) }
}

/// `None` for what is no neighbour of IP: the forwarding tables of bridges
/// notify the same group.
fn neighbour_event(message: NeighbourMessage, gone: bool) -> Option<NetEvent> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    let ifindex = message.header.ifindex;
    let entry = Neighbour::from(message);
    let usable = !gone && usable_mac(&entry).is_some();
    let kind = if gone { NetEventKind::NeighbourGone } else { NetEventKind::NeighbourNew };
    let neighbour = Some(NeighbourChange { address, mac: entry.mac, usable });
    Some(NetEvent { neighbour, ..plain(kind, Some(ifindex)) })
}

/// A route over several devices (`RTA_MULTIPATH`) names none.
fn device(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTM_NEWLINK: u16 = 16;

    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = ((16 + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// `struct ifinfomsg` of device 7, which is up and has carrier.
    fn link(family: u8) -> Vec<u8> {
        let flags = (LinkFlags::Up | LinkFlags::LowerUp).bits();
        [[family, 0, 1, 0], 7u32.to_ne_bytes(), flags.to_ne_bytes(), [0; 4]].concat()
    }

    fn read(bytes: &[u8]) -> Vec<Option<NetEvent>> {
        let mut datagram = Datagram { bytes: BytesMut::from(bytes), next_bytes: 0 };
        std::iter::from_fn(|| datagram.next_message())
            .map(|message| message.and_then(event))
            .collect()
    }

    #[test]
    fn messages_of_one_datagram_are_told_one_by_one() {
        let datagram = [message(RTM_NEWLINK, &link(0)), message(RTM_NEWLINK, &link(7))].concat();
        let kinds: Vec<_> = read(&datagram).into_iter().flatten().map(|event| event.kind).collect();
        assert_eq!(kinds, [NetEventKind::LinkRunning, NetEventKind::LinkChanged]);
    }

    #[test]
    fn what_cannot_be_read_is_not_passed_over() {
        let whole = message(RTM_NEWLINK, &link(0));
        for garbage in [vec![1], vec![0; 16], whole[..20].to_vec(), message(RTM_NEWLINK, &[])] {
            let seen = read(&[whole.clone(), garbage].concat());
            assert_eq!(seen.len(), 2, "{seen:?}");
            assert!(seen[0].is_some() && seen[1].is_none(), "{seen:?}");
        }
    }
}
