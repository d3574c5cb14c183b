//! Notifications of changes to links, addresses, routes and neighbours
//! (rtnetlink multicast groups), as something to log and as a hint to resolve
//! again. An event says *that* something changed; how things are now, the
//! [`Resolver`](super::Resolver) tells.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use futures_util::stream::{BoxStream, StreamExt};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use tokio::task::JoinHandle;

use super::NetError;

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetEventKind {
    /// A device exists or changed, and is up with carrier.
    LinkRunning,
    /// A device exists or changed, and is down or without carrier.
    LinkDown,
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
        NetlinkPayload::Overrun(_) => {
            return Some(NetEvent { kind: NetEventKind::Overrun, ifindex: None, name: None });
        }
        _ => return None,
    };
    let (kind, ifindex, name) = match message {
        RouteNetlinkMessage::NewLink(link) => {
            let running = LinkFlags::Up | LinkFlags::LowerUp;
            let kind = if link.header.flags.contains(running) {
                NetEventKind::LinkRunning
            } else {
                NetEventKind::LinkDown
            };
            (kind, Some(link.header.index), name(link))
        }
        RouteNetlinkMessage::DelLink(link) => {
            (NetEventKind::LinkGone, Some(link.header.index), name(link))
        }
        RouteNetlinkMessage::NewAddress(address) => {
            (NetEventKind::AddressNew, Some(address.header.index), None)
        }
        RouteNetlinkMessage::DelAddress(address) => {
            (NetEventKind::AddressGone, Some(address.header.index), None)
        }
        RouteNetlinkMessage::NewRoute(route) => (NetEventKind::RouteNew, device(&route), None),
        RouteNetlinkMessage::DelRoute(route) => (NetEventKind::RouteGone, device(&route), None),
        RouteNetlinkMessage::NewNeighbour(entry) => {
            (NetEventKind::NeighbourNew, Some(entry.header.ifindex), None)
        }
        RouteNetlinkMessage::DelNeighbour(entry) => {
            (NetEventKind::NeighbourGone, Some(entry.header.ifindex), None)
        }
        _ => return None,
    };
    Some(NetEvent { kind, ifindex, name })
}

fn name(link: LinkMessage) -> Option<String> {
    link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
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
