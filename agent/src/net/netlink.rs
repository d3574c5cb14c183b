//! The few rtnetlink questions this room asks, with answers cut down to what
//! is needed. It decides nothing: missing things are `None`, the kernel's
//! refusals are the `io::Error` of their errno.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::StreamExt;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteMetric, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::Handle;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rustix::io::Errno;

use super::KnownDevice;
use crate::frame::MacAddr;

/// Longest wait for an answer. The kernel answers within the system call; only
/// an answer that the library cannot decode never arrives.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// `IFNAMSIZ` less the NUL (`include/uapi/linux/if.h`): longer names are
/// alternative names.
const IFNAME_MAX_BYTES: usize = 15;
/// `IFLA_ALT_IFNAME` (`include/uapi/linux/if_link.h`), which the library does not know at this level.
const IFLA_ALT_IFNAME: u16 = 53;
/// `USER_HZ`, the unit of times in neighbour entries on every architecture that matters here.
const CLOCK_TICKS_PER_SECOND: u64 = 100;
/// `IPPROTO_UDP`.
const UDP: u8 = 17;

/// What is asked of the routing tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct RouteQuery {
    pub(super) remote: IpAddr,
    pub(super) remote_port: u16,
    pub(super) local: Option<IpAddr>,
    pub(super) ifindex: Option<u32>,
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
pub(super) enum LinkKey<'a> {
    Index(u32),
    Name(&'a str),
    Mac(MacAddr),
}

/// A device.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) ifindex: u32,
    pub(super) name: String,
    /// Its MAC if it speaks Ethernet.
    pub(super) mac: Option<MacAddr>,
    pub(super) mtu_bytes: u32,
    pub(super) up: bool,
    pub(super) carrier: bool,
    /// Index of the bridge, bond, team or VRF that it is a port of.
    pub(super) master: Option<u32>,
    /// What made it (`IFLA_INFO_KIND`), for virtual devices.
    pub(super) kind: Option<InfoKind>,
}

impl Link {
    /// Whether the device stands on top of others and may carry the MAC of one of them.
    pub(super) fn is_stacked(&self) -> bool {
        self.kind.as_ref().is_some_and(|kind| {
            matches!(
                kind,
                InfoKind::Vlan
                    | InfoKind::Bridge
                    | InfoKind::Bond
                    | InfoKind::MacVlan
                    | InfoKind::MacVtap
                    | InfoKind::IpVlan
                    | InfoKind::IpVtap
                    | InfoKind::Vrf
            ) || kind.to_string() == "team"
        })
    }

    /// Whether frames of its ports may also leave through it.
    pub(super) fn joins_ports(&self) -> bool {
        self.kind.as_ref().is_some_and(|kind| {
            matches!(kind, InfoKind::Bridge | InfoKind::Bond) || kind.to_string() == "team"
        })
    }

    pub(super) fn known(&self) -> KnownDevice {
        KnownDevice { ifindex: self.ifindex, name: self.name.clone(), mac: self.mac }
    }
}

/// A neighbour table entry.
#[derive(Clone, Debug)]
pub(super) struct Neighbour {
    pub(super) state: NeighbourState,
    pub(super) mac: Option<MacAddr>,
    /// How long ago the neighbour was last known to be there.
    pub(super) confirmed_ago: Option<Duration>,
}

/// An rtnetlink socket and the task that serves it.
#[derive(Clone, Debug)]
pub(super) struct Netlink {
    handle: Handle,
}

impl Netlink {
    /// The task ends when the last clone is dropped.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub(super) async fn route(&self, query: RouteQuery) -> io::Result<Route> {
        let bits = if query.remote.is_ipv4() { 32 } else { 128 };
        let mut message = RouteMessage::default();
        message.header.address_family = family(query.remote);
        message.header.destination_prefix_length = bits;
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

    pub(super) async fn link(&self, key: LinkKey<'_>) -> io::Result<Option<Link>> {
        let mut message = LinkMessage::default();
        let mut flags = NLM_F_REQUEST;
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
            LinkKey::Mac(_) => flags |= NLM_F_DUMP,
        }
        let answers = match self.ask(RouteNetlinkMessage::GetLink(message), flags).await {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => return Ok(None),
            answers => answers?,
        };
        Ok(answers
            .into_iter()
            .filter_map(|answer| match answer {
                RouteNetlinkMessage::NewLink(link) => Some(Link::from(link)),
                _ => None,
            })
            .filter(|link| !matches!(key, LinkKey::Mac(mac) if link.mac != Some(mac)))
            // VLANs and bridges share their lower device's MAC, which is the one that is
            // meant; of several like netconsole (`dev_getbyhwaddr_rcu`) the one that was there first.
            .min_by_key(|link| (link.is_stacked(), link.ifindex)))
    }

    pub(super) async fn neighbour(
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

    /// Has the kernel ask a neighbour whether it is still there, by unicast, whatever the
    /// state of the entry. It needs an entry with a MAC (`__neigh_update`).
    pub(super) async fn probe_neighbour(&self, ifindex: u32, address: IpAddr) -> io::Result<()> {
        let mut message = neighbour_message(ifindex, address);
        message.header.state = NeighbourState::Probe;
        let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_REPLACE;
        self.ask(RouteNetlinkMessage::NewNeighbour(message), flags).await.map(drop)
    }

    /// The state of one of this network namespace's addresses; `None` without it.
    pub(super) async fn own_address(&self, address: IpAddr) -> io::Result<Option<AddressState>> {
        let mut message = AddressMessage::default();
        message.header.family = family(address);
        let question = RouteNetlinkMessage::GetAddress(message);
        let answers = self.ask(question, NLM_F_REQUEST | NLM_F_DUMP).await?;
        Ok(answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(entry) if is_own(entry, address) => {
                Some(AddressState::of(entry))
            }
            _ => None,
        }))
    }

    /// An IPv6 address of a device that is not usable yet.
    pub(super) async fn tentative_address(&self, ifindex: u32) -> io::Result<Option<IpAddr>> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet6;
        let question = RouteNetlinkMessage::GetAddress(message);
        let answers = self.ask(question, NLM_F_REQUEST | NLM_F_DUMP).await?;
        Ok(answers.iter().find_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(entry)
                if entry.header.index == ifindex
                    && AddressState::of(entry) == AddressState::Tentative =>
            {
                entry.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(*address),
                    _ => None,
                })
            }
            _ => None,
        }))
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
        let collect = async {
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
        };
        match tokio::time::timeout(ANSWER_LIMIT, collect).await {
            Ok(answers) => answers,
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

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            mac: None,
            mtu_bytes: 0,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            master: None,
            kind: None,
        };
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) if ethernet => link.mac = bytes.try_into().ok(),
                LinkAttribute::Mtu(bytes) => link.mtu_bytes = bytes,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.into_iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }
}

impl From<NeighbourMessage> for Neighbour {
    fn from(message: NeighbourMessage) -> Self {
        let mut entry = Self { state: message.header.state, mac: None, confirmed_ago: None };
        for attribute in message.attributes {
            match attribute {
                NeighbourAttribute::LinkLayerAddress(bytes) => entry.mac = bytes.try_into().ok(),
                NeighbourAttribute::CacheInfo(info) => {
                    let ticks = u64::from(info.confirmed);
                    let ago = Duration::from_millis(ticks * 1000 / CLOCK_TICKS_PER_SECOND);
                    entry.confirmed_ago = Some(ago);
                }
                _ => {}
            }
        }
        entry
    }
}

fn neighbour_message(ifindex: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = ifindex;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::from(address)));
    message
}

/// Whether an address may be sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AddressState {
    Usable,
    /// Duplicate address detection goes on (RFC 4862, section 5.4).
    Tentative,
    /// Somebody else has it.
    Duplicate,
}

impl AddressState {
    fn of(entry: &AddressMessage) -> Self {
        let mut flags = AddressFlags::from_bits_retain(entry.header.flags.bits().into());
        for attribute in &entry.attributes {
            if let AddressAttribute::Flags(more) = attribute {
                flags |= *more;
            }
        }
        if flags.contains(AddressFlags::Dadfailed) {
            Self::Duplicate
        } else if flags.contains(AddressFlags::Tentative)
            && !flags.contains(AddressFlags::Optimistic)
        {
            Self::Tentative
        } else {
            Self::Usable
        }
    }
}

/// On a point-to-point device `Address` is the peer, and `Local` the own one.
fn is_own(entry: &AddressMessage, wanted: IpAddr) -> bool {
    let mut own = None;
    for attribute in &entry.attributes {
        match attribute {
            AddressAttribute::Local(address) => return *address == wanted,
            AddressAttribute::Address(address) => own = Some(*address),
            _ => {}
        }
    }
    own == Some(wanted)
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
