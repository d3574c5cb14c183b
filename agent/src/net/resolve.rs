//! From a target's configuration to its next hop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netlink_packet_route::route::RouteType;
use rustix::io::Errno;

use super::error::{NetError, ResolveError};
use super::neighbour::{self, Answer};
use super::netlink::{AddressState, Link, LinkKey, Netlink, Route, RouteQuery};
use super::{MacSource, NextHop, Wanted, device, xfrm};
use crate::frame::{BROADCAST_MAC, MacAddr, group_mac};

/// Asks the kernel for next hops. Cheap to clone; all clones share one socket.
#[derive(Clone, Debug)]
pub struct Resolver {
    netlink: Netlink,
}

impl Resolver {
    /// Opens a netlink socket in the calling thread's network namespace and
    /// serves it from a task of the current tokio runtime, until the last clone
    /// is dropped.
    ///
    /// # Errors
    /// If the socket is refused.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O and time enabled.
    pub fn new() -> Result<Self, NetError> {
        let netlink = Netlink::open().map_err(|cause| NetError {
            operation: "open a netlink socket",
            object: "routes, links and neighbours".to_owned(),
            cause,
        })?;
        Ok(Self { netlink })
    }

    /// The next hop with the MAC to send to. Waits for an unknown neighbour at
    /// most `wanted.patience`; the kernel goes on asking.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn resolve(&self, wanted: &Wanted) -> Result<NextHop, ResolveError> {
        self.by_best_device(wanted, true).await
    }

    /// The next hop without a MAC (`dst_mac` is `None`), for the UDP way out,
    /// which leaves neighbours to the kernel. Waits for nobody.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn route(&self, wanted: &Wanted) -> Result<NextHop, ResolveError> {
        self.by_best_device(wanted, false).await
    }

    /// Has the kernel find out whether a neighbour is still where it was, by a unicast
    /// question, whatever it believes. What comes of it is an event, and shows in
    /// [`NextHop::mac_confirmed_ago`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn confirm(&self, ifindex: u32, address: IpAddr) -> Result<(), NetError> {
        neighbour::confirm(&self.netlink, ifindex, address).await.map_err(|cause| NetError {
            operation: "have the neighbour confirmed",
            object: address.to_string(),
            cause,
        })
    }

    /// A port of a bridge, bond or team is reached through its master, if anything
    /// is: what arrives for it, such as the neighbour's answer, goes to the master.
    async fn by_best_device(
        &self,
        wanted: &Wanted,
        with_mac: bool,
    ) -> Result<NextHop, ResolveError> {
        let remote = wanted.remote.ip().to_canonical();
        self.check_local(wanted, remote).await?;
        let configured = device::wanted(&self.netlink, wanted, remote).await?;
        let master = match configured.as_ref().and_then(|port| port.master) {
            Some(index) => device::find(&self.netlink, LinkKey::Index(index)).await?,
            None => None,
        };
        if let (Some(port), Some(master)) = (&configured, master.filter(Link::joins_ports))
            && let Ok(hop) = self.by_device(wanted, remote, Some(master), with_mac).await
        {
            return Ok(NextHop {
                device: port.known(),
                configured_device: Some(port.name.clone()),
                ..hop
            });
        }
        self.by_device(wanted, remote, configured, with_mac).await
    }

    async fn by_device(
        &self,
        wanted: &Wanted,
        remote: IpAddr,
        device: Option<Link>,
        with_mac: bool,
    ) -> Result<NextHop, ResolveError> {
        let (mut hop, kind) = self.look_up(wanted, remote, device).await?;
        if !with_mac || !hop.ethernet || hop.local_route {
            return Ok(hop);
        }
        let neighbour = hop.gateway.unwrap_or(remote);
        if let Some(mac) = wanted.remote_mac {
            (hop.dst_mac, hop.mac_source) = (Some(mac), MacSource::Static);
            hop.neighbour = Some(neighbour);
            hop.neighbour_mac = self.other_mac(&hop, neighbour, mac).await;
        } else if let Some((mac, source)) = group(neighbour, kind) {
            (hop.dst_mac, hop.mac_source) = (Some(mac), source);
        } else {
            let (mac, ago) = self.neighbour_mac(&hop, neighbour, wanted).await?;
            (hop.dst_mac, hop.mac_source) = (Some(mac), MacSource::Neighbour);
            (hop.neighbour, hop.mac_confirmed_ago) = (Some(neighbour), ago);
        }
        Ok(hop)
    }

    async fn look_up(
        &self,
        wanted: &Wanted,
        remote: IpAddr,
        device: Option<Link>,
    ) -> Result<(NextHop, RouteType), ResolveError> {
        if let Some(link) = &device {
            // Before the route is asked for: without its device there is none, and
            // "no route" would be the wrong thing to tell.
            device::check(link, remote)?;
        }
        let route = self.find_route(wanted, remote, device.as_ref()).await?;
        let configured = device.is_some();
        let link = match (device, route.ifindex) {
            (Some(device), Some(index)) if device.ifindex == index => device,
            (Some(device), None) => device,
            // Without a device, or with one that stands for others (VRF).
            (_, index) => {
                let index = index.unwrap_or(0);
                let link = device::find(&self.netlink, LinkKey::Index(index)).await?;
                let device = format!("number {index}");
                link.ok_or(ResolveError::DeviceMissing { device })?
            }
        };
        device::check(&link, remote)?;
        let local = self.source(wanted, remote, &link, &route).await?;
        let xfrm_policies = xfrm::has_outbound_policies().await.map_err(|cause| NetError {
            operation: "list the IPsec policies",
            object: "this host".to_owned(),
            cause,
        })?;
        let route_device =
            if configured { self.other_device(wanted, remote, &link).await } else { None };
        let hop = NextHop {
            ifindex: link.ifindex,
            device: link.known(),
            ifname: link.name,
            src_mac: link.mac.unwrap_or_default(),
            dst_mac: None,
            local,
            gateway: route.gateway,
            mtu_bytes: route.mtu_bytes.map_or(link.mtu_bytes, |bytes| bytes.min(link.mtu_bytes)),
            ethernet: link.mac.is_some(),
            // A packet to one of our own anycast addresses does not leave either.
            local_route: matches!(route.kind, RouteType::Local | RouteType::Anycast),
            encapsulated: route.encapsulated,
            xfrm_policies,
            mac_source: MacSource::None,
            neighbour: None,
            mac_confirmed_ago: None,
            neighbour_mac: None,
            route_device,
            configured_device: None,
        };
        Ok((hop, route.kind))
    }

    /// The address to send from. IPv6 leaves out what duplicate address detection has
    /// not passed yet, and may then choose an address that does not reach the remote.
    async fn source(
        &self,
        wanted: &Wanted,
        remote: IpAddr,
        link: &Link,
        route: &Route,
    ) -> Result<IpAddr, ResolveError> {
        // The kernel does not repeat the source it was asked for.
        let local = wanted.local.or(route.local).filter(|address| !address.is_unspecified());
        let too_narrow = |local: IpAddr| match (local, remote) {
            (IpAddr::V6(local), IpAddr::V6(remote)) => {
                local.is_unicast_link_local() && is_global_unicast(remote)
            }
            _ => false,
        };
        if remote.is_ipv6() && local.is_none_or(too_narrow) {
            let tentative = self.netlink.tentative_address(link.ifindex).await;
            let tentative = tentative.map_err(addresses_unknown)?;
            if let Some(local) = tentative {
                return Err(ResolveError::AddressTentative {
                    remote,
                    device: link.name.clone(),
                    local,
                });
            }
        }
        local.ok_or_else(|| ResolveError::NoSource {
            remote,
            device: link.name.clone(),
            cause: format!("{} has none that can be used", link.name),
        })
    }

    /// The device that the route leads by when none is asked for, if it is not this
    /// one. Only a hint, so whatever goes wrong means no.
    async fn other_device(&self, wanted: &Wanted, remote: IpAddr, link: &Link) -> Option<String> {
        // An address of link scope has no route without its device.
        if matches!(wanted.remote, SocketAddr::V6(address) if address.scope_id() != 0) {
            return None;
        }
        let route = self.find_route(wanted, remote, None).await.ok()?;
        let index = route.ifindex.filter(|index| *index != link.ifindex)?;
        let other = device::find(&self.netlink, LinkKey::Index(index)).await.ok()??;
        // A port and its master are one way.
        (link.master != Some(index) && other.master != Some(link.ifindex)).then_some(other.name)
    }

    /// What the neighbour table says, if that is another MAC. Asks nobody on the wire.
    async fn other_mac(
        &self,
        hop: &NextHop,
        neighbour: IpAddr,
        configured: MacAddr,
    ) -> Option<MacAddr> {
        let entry = self.netlink.neighbour(hop.ifindex, neighbour).await.ok()??;
        neighbour::usable_mac(&entry).filter(|mac| *mac != configured)
    }

    /// IPv4 refuses a foreign source with `EINVAL`, like a blackhole route; IPv6
    /// takes any. So it is looked up beforehand.
    async fn check_local(&self, wanted: &Wanted, remote: IpAddr) -> Result<(), ResolveError> {
        let Some(local) = wanted.local else { return Ok(()) };
        let device = wanted.device.clone().unwrap_or_else(|| "the device".to_owned());
        let refuse = |cause| Err(ResolveError::NoSource { remote, device: device.clone(), cause });
        if local.is_ipv4() != remote.is_ipv4() {
            return refuse(format!("`local` {local} is of the other address family"));
        }
        // All of 127.0.0.0/8 is ours, though only one address of it is configured.
        if local.is_loopback() {
            return Ok(());
        }
        match self.netlink.own_address(local).await.map_err(addresses_unknown)? {
            Some(AddressState::Usable) => Ok(()),
            Some(AddressState::Tentative) => {
                Err(ResolveError::AddressTentative { remote, device, local })
            }
            Some(AddressState::Duplicate) => {
                refuse(format!("somebody else on the link has `local` {local}, too"))
            }
            None => refuse(format!("`local` {local} is no address of this host")),
        }
    }

    async fn find_route(
        &self,
        wanted: &Wanted,
        remote: IpAddr,
        device: Option<&Link>,
    ) -> Result<Route, ResolveError> {
        let query = RouteQuery {
            remote,
            remote_port: wanted.remote.port(),
            local: wanted.local,
            ifindex: device.map(|link| link.ifindex),
        };
        let no_route = |cause| ResolveError::NoRoute {
            remote,
            device: device.map(|link| link.name.clone()),
            cause,
        };
        let route = self.netlink.route(query).await.map_err(|cause| {
            let errno = Errno::from_io_error(&cause);
            match (errno, errno.and_then(no_route_cause), device) {
                (Some(Errno::NODEV), _, Some(link)) => {
                    ResolveError::DeviceMissing { device: link.name.clone() }
                }
                (_, Some(words), _) => no_route(words),
                _ => {
                    let object = remote.to_string();
                    NetError { operation: "ask for the route", object, cause }.into()
                }
            }
        })?;
        // IPv6 answers with the route that refuses, IPv4 with an error.
        match route.kind {
            RouteType::BlackHole => Err(no_route(BLACKHOLE)),
            RouteType::Unreachable => Err(no_route(UNREACHABLE)),
            RouteType::Prohibit => Err(no_route(PROHIBITED)),
            _ => Ok(route),
        }
    }

    async fn neighbour_mac(
        &self,
        hop: &NextHop,
        address: IpAddr,
        wanted: &Wanted,
    ) -> Result<(MacAddr, Option<Duration>), ResolveError> {
        let patience = wanted.patience;
        match neighbour::resolve(&self.netlink, hop.ifindex, address, patience).await {
            Ok(Answer::Mac(mac, ago)) => Ok((mac, ago)),
            Ok(Answer::Silence(state)) => Err(ResolveError::NeighbourUnresolved {
                neighbour: address,
                device: hop.ifname.clone(),
                state: state.map_or_else(|| "missing".to_owned(), |state| state.to_string()),
                waited: patience,
            }),
            Err(cause) => Err(neighbour_error(hop, address, cause)),
        }
    }
}

fn neighbour_error(hop: &NextHop, address: IpAddr, cause: io::Error) -> ResolveError {
    match Errno::from_io_error(&cause) {
        Some(Errno::NODEV) => ResolveError::DeviceMissing { device: hop.ifname.clone() },
        Some(Errno::NETDOWN) => {
            ResolveError::DeviceDown { remote: address, device: hop.ifname.clone() }
        }
        _ => NetError {
            operation: "ask for the neighbour",
            object: format!("{address} on {}", hop.ifname),
            cause,
        }
        .into(),
    }
}

fn addresses_unknown(cause: io::Error) -> ResolveError {
    NetError { operation: "list the addresses", object: "this host".to_owned(), cause }.into()
}

/// Not for this link alone (RFC 4291, section 2.4), and not for a group.
fn is_global_unicast(address: std::net::Ipv6Addr) -> bool {
    !address.is_unicast_link_local() && !address.is_multicast() && !address.is_loopback()
}

const BLACKHOLE: &str = "a blackhole route discards its packets";
const UNREACHABLE: &str = "a route says that it is unreachable";
const PROHIBITED: &str = "a route prohibits it";

/// What the errno of a lookup means (`fib_props` in `net/ipv4/fib_semantics.c`),
/// `None` if it is not about routes.
fn no_route_cause(errno: Errno) -> Option<&'static str> {
    match errno {
        Errno::INVAL => Some(BLACKHOLE),
        Errno::HOSTUNREACH => Some(UNREACHABLE),
        Errno::ACCESS => Some(PROHIBITED),
        Errno::NETUNREACH | Errno::SRCH | Errno::AGAIN => Some("no routing table has an entry"),
        _ => None,
    }
}

/// The MAC of a group address. The route tells a directed broadcast.
fn group(neighbour: IpAddr, kind: RouteType) -> Option<(MacAddr, MacSource)> {
    let subnet_broadcast = match neighbour {
        IpAddr::V4(ip) if kind == RouteType::Broadcast => Some(ip),
        _ => None,
    };
    group_mac(neighbour, subnet_broadcast).map(|mac| {
        (mac, if mac == BROADCAST_MAC { MacSource::Broadcast } else { MacSource::Multicast })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_tells_a_directed_broadcast() {
        let address = "192.0.2.127".parse().unwrap();
        assert_eq!(group(address, RouteType::Unicast), None);
        assert_eq!(
            group(address, RouteType::Broadcast),
            Some((BROADCAST_MAC, MacSource::Broadcast))
        );
    }
}
