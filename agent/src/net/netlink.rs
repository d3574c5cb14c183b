//! The few rtnetlink questions this room asks, with answers cut down to what
//! is needed. It decides nothing: missing things are `None`, the kernel's
//! refusals are the `io::Error` of their errno.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rustix::io::Errno;

use super::link::Link;
use crate::frame::MacAddr;

/// Longest wait for an answer. The kernel answers within the system call; only
/// an answer that the library cannot decode never arrives.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// `IFNAMSIZ` less the NUL (`include/uapi/linux/if.h`): longer names are
/// alternative names.
const IFNAME_MAX_BYTES: usize = 15;
/// `IFLA_ALT_IFNAME` (`include/uapi/linux/if_link.h`), which the library does not know at this level.
const IFLA_ALT_IFNAME: u16 = 53;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;

/// What is asked of the routing tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteQuery {
    pub(super) remote: IpAddr,
    pub(super) remote_port: u16,
    pub(super) local: Option<IpAddr>,
    pub(super) ifindex: Option<u32>,
    /// Only entries of the tables count (`RTM_F_FIB_MATCH`): IPv4 takes a remote
    /// without one to be on the link of `ifindex`. The answer is the entry, so it
    /// has no source address.
    pub(super) entries_only: bool,
}

/// What they say.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) kind: RouteType,
    pub(super) ifindex: Option<u32>,
    pub(super) local: Option<IpAddr>,
    pub(super) gateway: Option<IpAddr>,
    pub(super) mtu_bytes: Option<u32>,
    pub(super) encapsulated: bool,
}

/// How a device is named.
#[derive(Clone, Copy, Debug)]
pub(crate) enum LinkKey<'a> {
    Index(u32),
    Name(&'a str),
}

/// A neighbour table entry.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    pub(crate) state: NeighbourState,
    pub(crate) mac: Option<MacAddr>,
    /// Since the neighbour was last heard of.
    pub(crate) confirmed_ago: Option<Duration>,
    /// It is a router (`NTF_ROUTER`): what updates the entry must say so again.
    pub(crate) router: bool,
    /// Somebody else keeps the entry up to date: the kernel (`NTF_EXT_MANAGED`),
    /// a switch or a routing daemon (`NTF_EXT_LEARNED`). An update would take
    /// that mark away (`neigh_update_flags`).
    pub(crate) kept: bool,
}

/// An address of this host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OwnAddress {
    pub(crate) ifindex: u32,
    pub(crate) address: IpAddr,
    pub(crate) flags: AddressFlags,
}

/// An rtnetlink socket and the task that serves it.
#[derive(Clone, Debug)]
pub(crate) struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// The task ends when the last clone is dropped.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// For questions that only another room has.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    pub(super) async fn route(&self, query: RouteQuery) -> io::Result<Route> {
        let bits = if query.remote.is_ipv4() { 32 } else { 128 };
        let mut message = RouteMessage::default();
        message.header.address_family = family(query.remote);
        message.header.destination_prefix_length = bits;
        if query.entries_only {
            message.header.flags = RouteFlags::FibMatch;
        }
        message.attributes.push(RouteAttribute::Destination(query.remote.into()));
        message.attributes.push(RouteAttribute::IpProto(UDP));
        message.attributes.push(RouteAttribute::Dport(query.remote_port));
        if let Some(local) = query.local {
            message.header.source_prefix_length = bits;
            message.attributes.push(RouteAttribute::Source(local.into()));
        }
        message.attributes.extend(query.ifindex.map(RouteAttribute::Oif));
        let answers = self.ask(RouteNetlinkMessage::GetRoute(message), NLM_F_REQUEST).await?;
        answers
            .into_iter()
            .find_map(|answer| match answer {
                RouteNetlinkMessage::NewRoute(route) => Some(Route::from(route)),
                _ => None,
            })
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    pub(crate) async fn link(&self, key: LinkKey<'_>) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        match key {
            LinkKey::Index(index) => message.header.index = index,
            LinkKey::Name(name) if name.len() <= IFNAME_MAX_BYTES => {
                message.attributes.push(LinkAttribute::IfName(name.to_owned()));
            }
            LinkKey::Name(name) => {
                let value = [name.as_bytes(), b"\0"].concat();
                let alternative = DefaultNla::new(IFLA_ALT_IFNAME, value);
                message.attributes.push(LinkAttribute::Other(alternative));
            }
        }
        match self.ask_links(message, NLM_F_REQUEST).await {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => Ok(None),
            links => Ok(links?.into_iter().next()),
        }
    }

    /// All devices of this network namespace.
    pub(super) async fn links(&self) -> io::Result<Vec<Link>> {
        self.ask_links(LinkMessage::default(), NLM_F_REQUEST | NLM_F_DUMP).await
    }

    async fn ask_links(&self, message: LinkMessage, flags: u16) -> io::Result<Vec<Link>> {
        let answers = self.ask(RouteNetlinkMessage::GetLink(message), flags).await?;
        let link = |answer| match answer {
            RouteNetlinkMessage::NewLink(link) => Some(Link::from(link)),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(link).collect())
    }

    pub(crate) async fn neighbour(
        &self,
        ifindex: u32,
        address: IpAddr,
    ) -> io::Result<Option<Neighbour>> {
        let message = neighbour_message(ifindex, address);
        let question = RouteNetlinkMessage::GetNeighbour(message);
        let answers = match self.ask(question, NLM_F_REQUEST).await {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => return Ok(None),
            answers => answers?,
        };
        Ok(answers.into_iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewNeighbour(entry) => Some(Neighbour::from(entry)),
            _ => None,
        }))
    }

    /// Makes the kernel use an entry as if a packet had been sent to it: it
    /// creates, resolves or confirms it. Must not be called for a permanent
    /// entry: the kernel would take the permanence away (`__neigh_update`).
    pub(super) async fn use_neighbour(&self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let mut message = neighbour_message(ifindex, address);
        message.header.flags = NeighbourFlags::Use;
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE;
        self.ask(RouteNetlinkMessage::NewNeighbour(message), flags).await.map(drop)
    }

    /// Makes the kernel forget that it is resolving an entry, so that its next use resolves it anew; the
    /// packets that wait for the answer go on waiting (`__neigh_update` with `NUD_NONE`).
    pub(super) async fn restart_neighbour(&self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let mut message = neighbour_message(ifindex, address);
        message.header.state = NeighbourState::None;
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_REPLACE;
        match self.ask(RouteNetlinkMessage::NewNeighbour(message), flags).await {
            // It has gone in the meantime.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Makes the kernel ask the neighbour now, at the MAC it knows, whatever it
    /// believes of it (`neigh_add` with a state and without a MAC:
    /// `__neigh_update` takes the known one). Refused with `EINVAL` or `ENOENT`
    /// where there is none. `router` is the entry's own mark, which would be lost.
    pub(super) async fn probe_neighbour(
        &self,
        ifindex: u32,
        address: IpAddr,
        router: bool,
    ) -> io::Result<()> {
        let mut message = neighbour_message(ifindex, address);
        message.header.state = NeighbourState::Probe;
        if router {
            message.header.flags = NeighbourFlags::Router;
        }
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_REPLACE;
        self.ask(RouteNetlinkMessage::NewNeighbour(message), flags).await.map(drop)
    }

    /// The addresses of this network namespace, of the family of `like`.
    pub(crate) async fn addresses(&self, like: IpAddr) -> io::Result<Vec<OwnAddress>> {
        let mut message = AddressMessage::default();
        message.header.family = family(like);
        let question = RouteNetlinkMessage::GetAddress(message);
        let answers = self.ask(question, NLM_F_REQUEST | NLM_F_DUMP).await?;
        let own = |answer| match answer {
            RouteNetlinkMessage::NewAddress(entry) => own_address(&entry),
            _ => None,
        };
        Ok(answers.into_iter().filter_map(own).collect())
    }

    async fn ask(
        &self,
        question: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        let mut message = NetlinkMessage::from(question);
        message.header.flags = flags;
        let closed = || io::Error::new(io::ErrorKind::BrokenPipe, "the netlink socket was closed");
        let mut stream = self.handle.clone().request(message).map_err(|_| closed())?;
        // Looks are dropped when something newer happens; the library would warn of
        // each answer that finds nobody, so a task of its own takes it.
        let collect = tokio::spawn(async move {
            let mut answers = Vec::new();
            while let Some(message) = stream.next().await {
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => answers.push(answer),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Overrun(_) => return Err(Errno::NOBUFS.into()),
                    _ => {}
                }
            }
            Ok(answers)
        });
        match tokio::time::timeout(ANSWER_LIMIT, collect).await {
            Ok(answers) => answers.map_err(io::Error::other)?,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl From<RouteMessage> for Route {
    fn from(message: RouteMessage) -> Self {
        let mut route = Self {
            kind: message.header.kind,
            ifindex: None,
            local: None,
            gateway: None,
            mtu_bytes: None,
            encapsulated: false,
        };
        for attribute in message.attributes {
            match attribute {
                RouteAttribute::Oif(index) => route.ifindex = Some(index),
                RouteAttribute::PrefSource(address) => route.local = ip(&address),
                RouteAttribute::Gateway(address) => route.gateway = ip(&address),
                RouteAttribute::Via(RouteVia::Inet(address)) => {
                    route.gateway = Some(address.into())
                }
                RouteAttribute::Via(RouteVia::Inet6(address)) => {
                    route.gateway = Some(address.into())
                }
                RouteAttribute::Metrics(metrics) => {
                    route.mtu_bytes = metrics.iter().find_map(|metric| match metric {
                        RouteMetric::Mtu(bytes) if *bytes > 0 => Some(*bytes),
                        _ => None,
                    });
                }
                RouteAttribute::EncapType(_) | RouteAttribute::Encap(_) => {
                    route.encapsulated = true
                }
                _ => {}
            }
        }
        route
    }
}

impl From<NeighbourMessage> for Neighbour {
    fn from(message: NeighbourMessage) -> Self {
        let header = message.header;
        let mut entry = Self {
            state: header.state,
            mac: None,
            confirmed_ago: None,
            router: header.flags.contains(NeighbourFlags::Router),
            kept: header.flags.contains(NeighbourFlags::ExtLearned),
        };
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => entry.mac = bytes.try_into().ok(),
                NeighbourAttribute::CacheInfo(info) => {
                    entry.confirmed_ago = Some(clock_ticks(info.confirmed));
                }
                // Whatever other marks there are or will be: they would be lost, too.
                NeighbourAttribute::ExtFlags(flags) => entry.kept |= !flags.is_empty(),
                _ => {}
            }
        }
        entry
    }
}

/// A time in `USER_HZ`, the clock ticks of the system-call interface.
fn clock_ticks(ticks: u32) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_millis(u64::from(ticks) * 1000 / per_second)
}

fn neighbour_message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(address)));
    message
}

/// On a point-to-point device `Address` is the peer, and `Local` the own one.
fn own_address(entry: &AddressMessage) -> Option<OwnAddress> {
    let (mut own, mut local) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(entry.header.flags.bits()));
    for attribute in &entry.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => own = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let address = local.or(own)?;
    Some(OwnAddress { ifindex: entry.header.index, address, flags })
}

fn family(address: IpAddr) -> AddressFamily {
    match address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}
