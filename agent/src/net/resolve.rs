//! From a target's configuration to its next hop.

use std::io;
use std::net::{IpAddr, SocketAddr};

use netlink_packet_route::route::RouteType;
use rustix::io::Errno;

use super::error::{NetError, ResolveError};
use super::neighbour::{self, Answer};
use super::netlink::{Link, LinkKey, Netlink, Route, RouteQuery};
use super::{MacSource, NextHop, Wanted, xfrm};
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
    /// most `wanted.patience`. Calling it again every now and then keeps the
    /// neighbour entry confirmed, which AF_XDP traffic does not.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn resolve(&self, wanted: &Wanted) -> Result<NextHop, ResolveError> {
        let (mut hop, kind) = self.look_up(wanted).await?;
        let remote = wanted.remote.ip().to_canonical();
        if !hop.ethernet || hop.local_route {
            return Ok(hop);
        }
        let neighbour = hop.gateway.unwrap_or(remote);
        let (mac, source) = if let Some(mac) = wanted.remote_mac {
            (mac, MacSource::Static)
        } else if let Some(group) = group(neighbour, kind) {
            group
        } else {
            let mac = self.neighbour_mac(&hop, neighbour, wanted).await?;
            (mac, MacSource::Neighbour)
        };
        hop.dst_mac = Some(mac);
        hop.mac_source = source;
        Ok(hop)
    }

    /// The next hop without a MAC (`dst_mac` is `None`), for the UDP way out,
    /// which leaves neighbours to the kernel. Waits for nobody.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn route(&self, wanted: &Wanted) -> Result<NextHop, ResolveError> {
        self.look_up(wanted).await.map(|(hop, _)| hop)
    }

    async fn look_up(&self, wanted: &Wanted) -> Result<(NextHop, RouteType), ResolveError> {
        let remote = wanted.remote.ip().to_canonical();
        self.check_local(wanted, remote).await?;
        let device = self.wanted_device(wanted, remote).await?;
        let route = self.find_route(wanted, remote, device.as_ref()).await?;
        let link = match (device, route.ifindex) {
            (Some(device), Some(index)) if device.ifindex == index => device,
            (Some(device), None) => device,
            // Without a device, or with one that stands for others (VRF).
            (_, index) => self.link(LinkKey::Index(index.unwrap_or(0))).await?,
        };
        check_link(&link, remote)?;
        // The kernel does not repeat the source it was asked for.
        let local = wanted.local.or(route.local).filter(|address| !address.is_unspecified());
        let local = local.ok_or_else(|| ResolveError::NoSource {
            remote,
            device: link.name.clone(),
            cause: format!("{} has none that can be used", link.name),
        })?;
        let xfrm_policies = xfrm::has_outbound_policies().await.map_err(|cause| NetError {
            operation: "list the IPsec policies",
            object: "this host".to_owned(),
            cause,
        })?;
        let hop = NextHop {
            ifindex: link.ifindex,
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
        };
        Ok((hop, route.kind))
    }

    /// IPv4 refuses a foreign source with `EINVAL`, like a blackhole route; IPv6
    /// takes any. So it is looked up beforehand.
    async fn check_local(&self, wanted: &Wanted, remote: IpAddr) -> Result<(), ResolveError> {
        let Some(local) = wanted.local else { return Ok(()) };
        let device = wanted.device.clone().unwrap_or_else(|| "the device".to_owned());
        let refuse = |cause| Err(ResolveError::NoSource { remote, device, cause });
        if local.is_ipv4() != remote.is_ipv4() {
            return refuse(format!("`local` {local} is of the other address family"));
        }
        // All of 127.0.0.0/8 is ours, though only one address of it is configured.
        if local.is_loopback() {
            return Ok(());
        }
        let own = self.netlink.has_address(local).await.map_err(|cause| NetError {
            operation: "list the addresses",
            object: "this host".to_owned(),
            cause,
        })?;
        if own { Ok(()) } else { refuse(format!("`local` {local} is no address of this host")) }
    }

    async fn wanted_device(
        &self,
        wanted: &Wanted,
        remote: IpAddr,
    ) -> Result<Option<Link>, ResolveError> {
        let key = match (&wanted.device, wanted.remote) {
            (Some(device), _) => match parse_mac(device) {
                Some(mac) => LinkKey::Mac(mac),
                None => LinkKey::Name(device),
            },
            (None, SocketAddr::V6(address)) if address.scope_id() != 0 => {
                LinkKey::Index(address.scope_id())
            }
            (None, _) if needs_device(remote) => return Err(ResolveError::DeviceNeeded { remote }),
            (None, _) => return Ok(None),
        };
        let link = self.link(key).await?;
        // Before the route is asked for: without its device there is none, and
        // "no route" would be the wrong thing to tell.
        check_link(&link, remote)?;
        Ok(Some(link))
    }

    async fn link(&self, key: LinkKey<'_>) -> Result<Link, ResolveError> {
        let name = match key {
            LinkKey::Index(index) => format!("number {index}"),
            LinkKey::Name(name) => name.to_owned(),
            LinkKey::Mac(mac) => format!("with MAC {}", format_mac(mac)),
        };
        match self.netlink.link(key).await {
            Ok(Some(link)) => Ok(link),
            Ok(None) => Err(ResolveError::DeviceMissing { device: name }),
            Err(cause) => {
                Err(NetError { operation: "look up a device", object: name, cause }.into())
            }
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
        let no_route = |errno: Errno| ResolveError::NoRoute {
            remote,
            device: device.map(|link| link.name.clone()),
            cause: errno.into(),
        };
        let route = match self.netlink.route(query).await {
            Ok(route) => route,
            Err(cause) => {
                return Err(match (Errno::from_io_error(&cause), device) {
                    (Some(Errno::NODEV), Some(link)) => {
                        ResolveError::DeviceMissing { device: link.name.clone() }
                    }
                    (Some(errno), _) if is_no_route(errno) => no_route(errno),
                    _ => NetError {
                        operation: "ask for the route",
                        object: remote.to_string(),
                        cause,
                    }
                    .into(),
                });
            }
        };
        // IPv6 answers with the route that refuses, IPv4 with an error.
        match route.kind {
            RouteType::BlackHole => Err(no_route(Errno::INVAL)),
            RouteType::Unreachable => Err(no_route(Errno::HOSTUNREACH)),
            RouteType::Prohibit => Err(no_route(Errno::ACCESS)),
            RouteType::Throw => Err(no_route(Errno::NETUNREACH)),
            _ => Ok(route),
        }
    }

    async fn neighbour_mac(
        &self,
        hop: &NextHop,
        address: IpAddr,
        wanted: &Wanted,
    ) -> Result<MacAddr, ResolveError> {
        let patience = wanted.patience;
        match neighbour::resolve(&self.netlink, hop.ifindex, address, patience).await {
            Ok(Answer::Mac(mac)) => Ok(mac),
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

fn check_link(link: &Link, remote: IpAddr) -> Result<(), ResolveError> {
    let device = link.name.clone();
    if !link.up {
        Err(ResolveError::DeviceDown { remote, device })
    } else if !link.carrier {
        Err(ResolveError::NoCarrier { remote, device })
    } else {
        Ok(())
    }
}

/// The answers to a lookup that found nothing or a route that refuses
/// (`fib_props` in `net/ipv4/fib_semantics.c`; `EINVAL` is a blackhole).
fn is_no_route(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::NETUNREACH
            | Errno::HOSTUNREACH
            | Errno::ACCESS
            | Errno::INVAL
            | Errno::SRCH
            | Errno::AGAIN
    )
}

/// IPv6 addresses of link scope (RFC 4291, 2.5.6 and 2.7) exist once per link.
fn needs_device(remote: IpAddr) -> bool {
    match remote {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => {
            ip.is_unicast_link_local()
                || (ip.is_multicast() && matches!(ip.octets()[1] & 0xf, 1 | 2))
        }
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

/// `02:00:00:00:00:01`, or `None`. (A device name may hold colons too, but six
/// groups of two hex digits exceed `IFNAMSIZ`.)
fn parse_mac(text: &str) -> Option<MacAddr> {
    let mut mac = [0; 6];
    let mut groups = text.split(':');
    for byte in &mut mac {
        let group = groups.next().filter(|group| group.len() == 2)?;
        if !group.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(group, 16).ok()?;
    }
    groups.next().is_none().then_some(mac)
}

fn format_mac(mac: MacAddr) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_mac_is_one() {
        assert_eq!(parse_mac("02:0A:ff:00:00:01"), Some([2, 10, 255, 0, 0, 1]));
        for text in
            ["eth0", "02:0a:ff:00:00", "02:0a:ff:00:00:01:02", "2:a:ff:0:0:1", "+2:0a:ff:00:00:01"]
        {
            assert_eq!(parse_mac(text), None, "{text}");
        }
        assert_eq!(format_mac([2, 10, 255, 0, 0, 1]), "02:0a:ff:00:00:01");
    }

    #[test]
    fn link_scope_needs_a_device() {
        for (remote, needed) in [
            ("fe80::1", true),
            ("ff02::1", true),
            ("ff12::1", true),
            ("ff05::1", false),
            ("2001:db8::1", false),
            ("169.254.0.1", false),
        ] {
            assert_eq!(needs_device(remote.parse().unwrap()), needed, "{remote}");
        }
    }

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
