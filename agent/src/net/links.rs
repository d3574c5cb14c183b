//! Notifications of changes to links, addresses, routes and neighbours
//! (rtnetlink multicast groups), as something to log and as a hint to resolve
//! again. An event says *that* something changed; how things are now, the
//! [`Resolver`](super::Resolver) tells.

use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use futures_util::stream::{BoxStream, StreamExt};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use tokio::task::JoinHandle;

use super::NetError;
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

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetEventKind {
    /// A device exists or changed, and is up with carrier.
    LinkRunning,
    /// A device exists or changed, and is up without carrier.
    LinkNoCarrier,
    /// A device exists or changed, and is down.
    LinkDown,
    /// Something about a device changed that does not say how it is now.
    LinkChanged,
    /// A device is gone from this network namespace.
    LinkGone,
    /// An address was added or changed.
    AddressNew,
    /// An address was removed.
    AddressGone,
    /// A route was added or changed.
    RouteNew,
    /// A route was removed.
    RouteGone,
    /// A routing rule was added or removed.
    RuleChanged,
    /// A neighbour entry was added or changed its state.
    NeighbourNew,
    /// A neighbour entry was removed.
    NeighbourGone,
    /// The kernel dropped notifications, because they were not read in time:
    /// anything may have changed.
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
    /// The entry, in events of neighbours.
    pub neighbour: Option<NeighbourChange>,
}

impl NetEvent {
    /// Anything may have changed.
    #[must_use]
    pub fn overrun() -> Self {
        Self { kind: NetEventKind::Overrun, ifindex: None, name: None, neighbour: None }
    }
}

/// A neighbour entry after a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighbourChange {
    /// The neighbour.
    pub address: IpAddr,
    /// Its MAC, if one is known.
    pub mac: Option<MacAddr>,
    /// Packets would be sent to that MAC (`NUD_VALID`).
    pub usable: bool,
}

/// The stream of changes. It ends only if the socket fails; dropping it closes
/// the socket.
pub struct Changes {
    events: BoxStream<'static, NetEvent>,
    task: JoinHandle<()>,
}

/// Subscribes to the changes of the calling thread's network namespace.
///
/// # Errors
/// If the socket or the subscription is refused.
///
/// # Panics
/// Outside of a tokio runtime with I/O enabled.
pub fn watch() -> Result<Changes, NetError> {
    let (connection, _, messages) =
        rtnetlink::new_multicast_connection(&GROUPS).map_err(|cause| NetError {
            operation: "subscribe to netlink notifications",
            object: "links, addresses, routes and neighbours".to_owned(),
            cause,
        })?;
    let task = tokio::spawn(connection);
    let events = messages.filter_map(async |(message, _)| event(message.payload)).boxed();
    Ok(Changes { events, task })
}

impl Stream for Changes {
    type Item = NetEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<NetEvent>> {
        Poll::Ready(ready!(self.events.as_mut().poll_next(context)))
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        // The task alone would notice the closed channel at the next event only.
        self.task.abort();
    }
}

fn event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<NetEvent> {
    let message = match payload {
        NetlinkPayload::InnerMessage(message) => message,
        NetlinkPayload::Overrun(_) => return Some(NetEvent::overrun()),
        _ => return None,
    };
    let of = |kind, ifindex| NetEvent { kind, ifindex, name: None, neighbour: None };
    Some(match message {
        // Of other families: a bridge tells about its ports, IPv6 about a device's settings
        // (`br_ifinfo_notify`, `inet6_ifinfo_notify`). A port that left is not gone.
        RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)
            if link.header.interface_family != AddressFamily::Unspec =>
        {
            of(NetEventKind::LinkChanged, Some(link.header.index))
        }
        RouteNetlinkMessage::NewLink(link) => {
            let flags = link.header.flags;
            let kind = if !flags.contains(LinkFlags::Up) {
                NetEventKind::LinkDown
            } else if !flags.contains(LinkFlags::LowerUp) {
                NetEventKind::LinkNoCarrier
            } else {
                NetEventKind::LinkRunning
            };
            NetEvent { name: name(&link), ..of(kind, Some(link.header.index)) }
        }
        RouteNetlinkMessage::DelLink(link) => {
            NetEvent { name: name(&link), ..of(NetEventKind::LinkGone, Some(link.header.index)) }
        }
        RouteNetlinkMessage::NewAddress(address) => {
            of(NetEventKind::AddressNew, Some(address.header.index))
        }
        RouteNetlinkMessage::DelAddress(address) => {
            of(NetEventKind::AddressGone, Some(address.header.index))
        }
        RouteNetlinkMessage::NewRoute(route) => of(NetEventKind::RouteNew, device(&route)),
        RouteNetlinkMessage::DelRoute(route) => of(NetEventKind::RouteGone, device(&route)),
        RouteNetlinkMessage::NewRule(_) | RouteNetlinkMessage::DelRule(_) => {
            of(NetEventKind::RuleChanged, None)
        }
        RouteNetlinkMessage::NewNeighbour(entry) => neighbour(entry, NetEventKind::NeighbourNew)?,
        RouteNetlinkMessage::DelNeighbour(entry) => neighbour(entry, NetEventKind::NeighbourGone)?,
        _ => return None,
    })
}

/// `None` for entries of a bridge's forwarding table, which are no neighbours.
fn neighbour(entry: NeighbourMessage, kind: NetEventKind) -> Option<NetEvent> {
    let ifindex = Some(entry.header.ifindex);
    let address = entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::from(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::from(*ip)),
        _ => None,
    })?;
    let entry = Neighbour::from(entry);
    let mac = usable_mac(&entry);
    let usable = mac.is_some() && kind == NetEventKind::NeighbourNew;
    let neighbour = Some(NeighbourChange { address, mac: entry.mac, usable });
    Some(NetEvent { kind, ifindex, name: None, neighbour })
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// A route over several devices (`RTA_MULTIPATH`) names none.
fn device(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}
