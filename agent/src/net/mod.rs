//! Where a target's packets leave the host: next hop, addresses and device.
//!
//! The kernel's own tables decide; this room asks them through rtnetlink
//! (`man 7 rtnetlink`; `net/ipv4/route.c` `inet_rtm_getroute`,
//! `net/ipv6/route.c` `inet6_rtm_getroute`, `net/core/neighbour.c` `neigh_get`
//! and `neigh_add`, Linux 6.12). It holds *no* routing table, ARP or neighbour
//! discovery of its own, changes no configuration of the host, and is never
//! called by the pump: everything here may sleep.

mod choose;
mod device;
pub(crate) mod dump;
mod error;
mod link;
pub mod links;
mod neighbour;
mod netlink;
mod resolve;
mod routes;
mod source;
mod way;
mod xfrm;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use self::choose::{EgressImpossible, choose_egress, egress_kinds};
pub use self::device::KnownDevice;
pub use self::error::{BlockKind, NetError, ResolveError};
pub(crate) use self::link::Link;
pub use self::links::{NeighbourChange, NetEvent, NetEventKind};
pub use self::neighbour::Confirmation;
pub(crate) use self::neighbour::usable_mac;
pub(crate) use self::netlink::{LinkKey, Neighbour, Netlink};
pub use self::resolve::Resolver;
pub(crate) use self::way::is_group;
use crate::frame::MacAddr;

/// What a target's configuration says about its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where the datagrams go. The port takes part in the lookup, because
    /// routing rules may name ports. An IPv6 scope id counts as the device
    /// where `device` is `None`.
    pub remote: SocketAddr,
    /// The device to leave by, by name or by MAC (`02:00:00:00:00:01`); `None`
    /// leaves it to the route. As for any socket bound to a device, IPv4 takes
    /// a remote without a route to be on that device's link.
    pub device: Option<String>,
    /// The device that `device` meant last ([`NextHop::device`]), so that it is
    /// found under another name. `None` at the first time.
    pub known: Option<KnownDevice>,
    /// The source address, which must be one of this host; `None` leaves it to
    /// the route.
    pub local: Option<IpAddr>,
    /// The MAC to send to; `None` asks the neighbour table.
    pub remote_mac: Option<MacAddr>,
    /// Longest wait for the neighbour to answer; twice that where `device` is the
    /// port of a bridge, bond or team. The kernel goes on asking afterwards, and
    /// an event tells its answer.
    pub patience: Duration,
}

/// The way to a remote at the moment of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the device in this network namespace.
    pub ifindex: u32,
    /// Its name.
    pub ifname: String,
    /// Its MAC; zeros where `ethernet` is false.
    pub src_mac: MacAddr,
    /// The MAC to send to; `None` where the device has no Ethernet addresses.
    pub dst_mac: Option<MacAddr>,
    /// Source address.
    pub local: IpAddr,
    /// The router in between (for an IPv4 remote possibly an IPv6 one, RFC 8950).
    pub gateway: Option<IpAddr>,
    /// Longest IP packet in bytes: the device's MTU, or the route's if that is
    /// smaller.
    pub mtu_bytes: u32,
    /// The device speaks Ethernet.
    pub ethernet: bool,
    /// The remote is this host.
    pub local_route: bool,
    /// The route wraps packets into another protocol (`RTA_ENCAP`: MPLS, SRv6, IP
    /// tunnels, …), which a frame of our own would not be.
    pub encapsulated: bool,
    /// The host has outbound IPsec policies, or does not let us see whether it has.
    pub xfrm_policies: bool,
    /// Where `dst_mac` comes from.
    pub mac_source: MacSource,
    /// Whose MAC `dst_mac` is, where the neighbour table told it.
    pub neighbour: Option<IpAddr>,
    /// How long ago that neighbour was last heard of by the kernel, to
    /// hundredths of a second; `None` where it need not be (permanent entries).
    pub mac_confirmed_ago: Option<Duration>,
    /// The neighbour table's MAC, where it contradicts a configured `remote_mac`.
    pub neighbour_mac: Option<MacAddr>,
    /// The device that `device` means, to be kept for [`Wanted::known`]. Not
    /// always the one to send by: see `configured_device`.
    pub device: Option<KnownDevice>,
    /// The device that `device` means, by name, where its master (bridge, bond or
    /// team) is used in its stead.
    pub configured_device: Option<String>,
    /// The device by which the route to the remote leaves without `device`, where
    /// that is another one: the remote may be plugged into that port.
    pub route_device: Option<String>,
    /// Without `device` no route leads to the remote: it is taken to be on the link of
    /// that device. Not told of group addresses.
    pub assumed_on_link: bool,
}

impl NextHop {
    /// Whether both say the same, apart from what changes by time alone.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let age = self.mac_confirmed_ago;
        *self == Self { mac_confirmed_ago: age, ..other.clone() }
    }
}

/// Where a destination MAC comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacSource {
    /// The kernel's neighbour table.
    Neighbour,
    /// The configuration.
    Static,
    /// Computed from a multicast address.
    Multicast,
    /// The Ethernet broadcast address.
    Broadcast,
    /// There is none.
    None,
}

impl MacSource {
    /// The name used in `status`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Neighbour => "neighbour",
            Self::Static => "static",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::None => "none",
        }
    }
}
