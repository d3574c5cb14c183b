//! The way to a remote by one device: route, source address and MAC.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::route::RouteType;
use rustix::io::Errno;

use super::error::{NetError, ResolveError};
use super::link::Link;
use super::neighbour::{self, Answer, usable_mac};
use super::netlink::{OwnAddress, RouteQuery};
use super::resolve::Resolver;
use super::routes::check_configured;
use super::source;
use super::{MacSource, NextHop, Wanted, device, xfrm};
use crate::frame::{BROADCAST_MAC, MacAddr, group_mac};

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    Route,
    Mac,
}

/// One question, and what is needed for all of its answers.
pub(super) struct Look<'a> {
    pub(super) wanted: &'a Wanted,
    /// An IPv4 address is one, however it is written.
    pub(super) remote: IpAddr,
    /// The addresses of this host, where the source has to be checked.
    pub(super) addresses: Vec<OwnAddress>,
    /// The wanted device, and what it is a port of.
    pub(super) devices: Vec<u32>,
    pub(super) depth: Depth,
}

impl Look<'_> {
    fn has(&self, ifindex: u32) -> bool {
        self.devices.contains(&ifindex)
    }

    pub(super) fn query(&self, ifindex: Option<u32>, entries_only: bool) -> RouteQuery {
        RouteQuery {
            remote: self.remote,
            remote_port: self.wanted.remote.port(),
            local: self.wanted.local,
            ifindex,
            entries_only,
        }
    }
}

impl Resolver {
    /// The way to the remote by a device, or by whatever the route says.
    pub(super) async fn way(
        &self,
        look: &Look<'_>,
        device: Option<&Link>,
    ) -> Result<NextHop, ResolveError> {
        let Look { wanted, remote, .. } = *look;
        // Before the route is asked for: without its device there is none, and
        // "no route" would be the wrong thing to tell.
        if let Some(device) = device {
            check_link(device, remote)?;
        }
        check_configured(look, device)?;
        let route = self.find_route(look, device).await?;
        let link = match (device, route.ifindex) {
            (Some(device), Some(index)) if device.ifindex == index => device.clone(),
            (Some(device), None) => device.clone(),
            // Without a device, or with one that stands for others (VRF).
            (_, index) => device::by_index(&self.netlink, index.unwrap_or(0)).await?,
        };
        check_link(&link, remote)?;
        // A packet to one of our own anycast addresses does not leave either.
        let local_route = matches!(route.kind, RouteType::Local | RouteType::Anycast);
        let may_differ = device.is_some()
            && wanted.device.is_some()
            && !local_route
            && !link.in_vrf
            && !source::is_link_local(remote);
        let unbound = if may_differ { self.unbound_device(look).await? } else { None };
        let elsewhere = unbound.filter(|index| *index != link.ifindex && !look.has(*index));
        // Its link is only assumed where neither a router nor a route is on it.
        let assumed = device.is_some()
            && route.gateway.is_none()
            && !local_route
            && (unbound.is_none() || elsewhere.is_some());
        let local = self.source(look, &link, route.local, local_route, assumed).await?;
        let xfrm_policies = xfrm::has_outbound_policies().await.map_err(|cause| NetError {
            operation: "list the IPsec policies",
            object: "this host".to_owned(),
            cause,
        })?;
        let mut hop = NextHop {
            ifindex: link.ifindex,
            ifname: link.name,
            src_mac: link.mac.unwrap_or_default(),
            dst_mac: None,
            local,
            gateway: route.gateway,
            mtu_bytes: route.mtu_bytes.map_or(link.mtu_bytes, |bytes| bytes.min(link.mtu_bytes)),
            ethernet: link.mac.is_some(),
            local_route,
            encapsulated: route.encapsulated,
            xfrm_policies,
            mac_source: MacSource::None,
            neighbour: None,
            mac_confirmed_ago: None,
            neighbour_mac: None,
            device: None,
            configured_device: None,
            route_device: self.name_of(elsewhere.filter(|_| !is_group(remote))).await?,
            assumed_on_link: may_differ
                && unbound.is_none()
                && route.gateway.is_none()
                && !is_group(remote),
        };
        if look.depth == Depth::Mac && hop.ethernet && !hop.local_route {
            self.add_mac(&mut hop, look, route.kind).await?;
        }
        Ok(hop)
    }

    async fn add_mac(
        &self,
        hop: &mut NextHop,
        look: &Look<'_>,
        kind: RouteType,
    ) -> Result<(), ResolveError> {
        let neighbour = hop.gateway.unwrap_or(look.remote);
        let group = group(neighbour, kind);
        let (mac, source) = if let Some(mac) = look.wanted.remote_mac {
            if group.is_none() {
                hop.neighbour_mac =
                    self.listed_mac(hop, neighbour).await?.filter(|listed| *listed != mac);
            }
            (mac, MacSource::Static)
        } else if let Some(group) = group {
            group
        } else {
            hop.neighbour = Some(neighbour);
            (self.neighbour_mac(hop, look, neighbour).await?, MacSource::Neighbour)
        };
        hop.dst_mac = Some(mac);
        hop.mac_source = source;
        Ok(())
    }

    async fn neighbour_mac(
        &self,
        hop: &mut NextHop,
        look: &Look<'_>,
        address: IpAddr,
    ) -> Result<MacAddr, ResolveError> {
        let waited = look.wanted.patience;
        let mute = address.is_ipv6() && source::is_mute(hop.ifindex, &look.addresses);
        let patience = (!mute).then_some(waited);
        match neighbour::resolve(&self.netlink, hop.ifindex, address, patience).await {
            Ok(Answer::Mac { mac, confirmed_ago }) => {
                hop.mac_confirmed_ago = confirmed_ago;
                Ok(mac)
            }
            Ok(Answer::Silence(_)) if mute => {
                let (remote, device) = (look.remote, hop.ifname.clone());
                Err(ResolveError::AddressTentative { remote, device })
            }
            Ok(Answer::Silence(state)) => Err(ResolveError::NeighbourUnresolved {
                neighbour: address,
                device: hop.ifname.clone(),
                state: state.map_or_else(|| "missing".to_owned(), |state| state.to_string()),
                waited,
                route_device: hop.route_device.take(),
            }),
            Err(cause) => Err(neighbour_error(hop, address, cause)),
        }
    }

    /// What the neighbour table says, without asking anybody on the network.
    async fn listed_mac(
        &self,
        hop: &NextHop,
        address: IpAddr,
    ) -> Result<Option<MacAddr>, ResolveError> {
        match self.netlink.neighbour(hop.ifindex, address).await {
            Ok(entry) => Ok(entry.as_ref().and_then(usable_mac)),
            Err(cause) => Err(neighbour_error(hop, address, cause)),
        }
    }
}

/// Whether which device is the right one is up to the sender, not to routes.
pub(crate) fn is_group(remote: IpAddr) -> bool {
    remote.is_multicast() || remote == IpAddr::V4(Ipv4Addr::BROADCAST)
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
    fn link_scope_needs_a_device() {
        for (remote, needed) in [
            ("fe80::1", true),
            ("ff02::1", true),
            ("ff12::1", true),
            ("ff05::1", false),
            ("2001:db8::1", false),
            ("169.254.0.1", false),
        ] {
            assert_eq!(source::is_link_local(remote.parse().unwrap()), needed, "{remote}");
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
