//! Looks at one target's way: asks the resolver, tries the sockets. What it means is judged in `way`.
//!
//! All use of the agent's own rooms for the way (`net`, `egress`) is here.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use caps::Capability;
use rustix::io::Errno;

use super::{
    Finding, Section, agent, device, firewall, host::Version, kernel_config::KernelConfig,
    netconsole, privileges, split_remedy, tables::Tables, way,
};
use crate::{
    config,
    egress::{EgressKind, OpenError, packet, udp, xdp},
    names::Names,
    net::{NextHop, ResolveError, Resolver, Wanted, choose_egress},
};

/// How long a neighbour may take to answer; as long as the agent itself waits at its start.
const NEIGHBOUR_PATIENCE: Duration = Duration::from_millis(1500);

/// What was found out about the host, as far as targets need it.
pub(super) struct Looks<'a> {
    pub(super) privileges: &'a privileges::Facts,
    pub(super) kernel_config: &'a KernelConfig,
    pub(super) agent: &'a agent::Facts,
    pub(super) netconsole: &'a netconsole::Facts,
    pub(super) version: Version,
}

/// Examines all targets.
pub(super) async fn examine(targets: &[config::Target], looks: &Looks<'_>) -> Vec<Section> {
    let opened = Resolver::new().map_err(|error| split_remedy(&error)).and_then(|resolver| {
        let tables = Tables::open().map_err(|error| {
            (format!("cannot open a netlink socket: {error}"), ALLOW_NETLINK.to_owned())
        })?;
        Ok((resolver, tables))
    });
    let section = |target: &config::Target, findings| {
        let area = format!("target {}", target.name);
        Section { area, findings }
    };
    let (resolver, tables) = match opened {
        Ok(opened) => opened,
        Err((finding, remedy)) => {
            let fail = || vec![Finding::fail("route", finding.as_str(), remedy.as_str())];
            return targets.iter().map(|target| section(target, fail())).collect();
        }
    };
    let firewall = firewall::Facts::gather(looks.kernel_config).await;
    // Neighbours that do not answer are waited for together.
    let ways =
        futures_util::future::join_all(targets.iter().map(|target| look(target, &resolver))).await;
    let mut sockets = Sockets { agent: looks.agent, opened: BTreeMap::new() };
    let mut sections = Vec::with_capacity(targets.len());
    for (target, look) in targets.iter().zip(ways) {
        let facts = gather(target, look, looks, &tables, &mut sockets, &firewall).await;
        let mut findings = way::judge(&facts);
        if let Some(device) = &facts.device {
            findings.push(netconsole::estimate(looks.netconsole, device, looks.version));
        }
        sections.push(section(target, findings));
    }
    sections
}

const ALLOW_NETLINK: &str =
    "let this process open netlink sockets (RestrictAddressFamilies= needs AF_NETLINK)";

/// The address that a target sends to.
async fn remote_address(target: &config::Target) -> Result<SocketAddr, way::Blocked> {
    let (host, port) = match &target.remote {
        config::Remote::Address(address) => return Ok(*address),
        config::Remote::Name { host, port } => (host, *port),
    };
    let answer = Names::default().look_up(host).await.map_err(|error| {
        let (finding, remedy) = split_remedy(&error);
        way::Blocked { object: "name", finding, remedy }
    })?;
    let first = answer.addresses.first().copied();
    first.map(|ip| SocketAddr::new(ip, port)).ok_or_else(|| way::Blocked {
        object: "name",
        finding: format!("{host} has no address"),
        remedy: "give it an address record, or correct `remote`".to_owned(),
    })
}

/// The addresses that are known without asking anybody.
pub(super) fn known_remotes(targets: &[config::Target]) -> Vec<SocketAddr> {
    targets.iter().filter_map(|target| target.remote.address()).collect()
}

/// What the resolver says.
struct Look {
    remote: Result<SocketAddr, way::Blocked>,
    hop: Option<Result<NextHop, ResolveError>>,
    /// The neighbour could not be asked for, but the rest is known.
    neighbour_denied: bool,
    elsewhere: way::Elsewhere,
}

async fn look(target: &config::Target, resolver: &Resolver) -> Look {
    let remote = remote_address(target).await;
    let mut look =
        Look { remote, hop: None, neighbour_denied: false, elsewhere: way::Elsewhere::No };
    let Ok(remote) = look.remote else { return look };
    let wanted = Wanted {
        remote,
        device: target.device.clone(),
        known: None,
        local: target.local_ip,
        remote_mac: target.remote_mac,
        patience: NEIGHBOUR_PATIENCE,
    };
    let hop = match target.egress {
        // A file needs no way, and the kernel finds that of a UDP socket.
        Some(EgressKind::Pcap) => return look,
        Some(EgressKind::Udp) => resolver.route(&wanted).await,
        _ => match resolver.resolve(&wanted).await {
            Err(ResolveError::Netlink(error))
                if matches!(error.errno(), Some(Errno::PERM | Errno::ACCESS)) =>
            {
                look.neighbour_denied = true;
                resolver.route(&wanted).await
            }
            hop => hop,
        },
    };
    if let Some(device) = &target.device {
        let by_route = resolver.route(&Wanted { device: None, ..wanted }).await;
        look.elsewhere = match (by_route, &hop) {
            (Ok(by_route), Ok(hop)) if by_route.ifname == hop.ifname => way::Elsewhere::No,
            (Ok(by_route), Err(_)) if by_route.ifname == *device => way::Elsewhere::No,
            (Ok(by_route), _) => way::Elsewhere::Device(by_route.ifname),
            (Err(ResolveError::NoRoute { .. }), Ok(hop)) if hop.gateway.is_none() => {
                way::Elsewhere::Nowhere
            }
            (Err(_), _) => way::Elsewhere::No,
        };
    }
    look.hop = Some(hop);
    look
}

async fn gather(
    target: &config::Target,
    look: Look,
    looks: &Looks<'_>,
    tables: &Tables,
    sockets: &mut Sockets<'_>,
    firewall: &firewall::Facts,
) -> way::Facts {
    let Look { remote, hop, neighbour_denied, elsewhere } = look;
    let mut hop = hop.transpose().map_err(|error| (blocking_device(&error), error));
    let device_name = match &hop {
        Ok(Some(hop)) => Some(hop.ifname.clone()),
        Err((Some(device), _)) => Some(device.clone()),
        _ => target.device.clone(),
    };
    let device = match device_name {
        Some(name) => device::Facts::gather(tables, &name).await,
        None => None,
    };
    // The entry of the next hop, also where it is not used because a MAC is configured.
    let mut neighbour = None;
    if let (Ok(Some(hop)), Ok(remote)) = (&mut hop, &remote)
        && hop.ethernet
        && !hop.local_route
    {
        let address = hop.gateway.unwrap_or(remote.ip().to_canonical());
        neighbour = tables.neighbour(hop.ifindex, address).await;
        if neighbour_denied {
            // Which way out fits does not depend on whose MAC it is.
            let mac = neighbour.as_ref().and_then(|entry| entry.mac);
            hop.dst_mac = Some(mac.unwrap_or_default());
        }
    }
    let unprivileged = !looks.privileges.root;
    let xfrm_unknown = unprivileged && !looks.privileges.has(Capability::CAP_NET_ADMIN);
    if let (true, Ok(Some(hop))) = (xfrm_unknown, &mut hop) {
        // They cannot be listed, which the resolver takes for having them.
        hop.xfrm_policies = false;
    }
    let may_open_raw = !unprivileged || looks.privileges.has(Capability::CAP_NET_RAW);
    let egress = match (&hop, &remote) {
        (Ok(hop), Ok(remote)) => {
            Some(sockets.try_egress(target, *remote, hop.as_ref(), may_open_raw))
        }
        _ => None,
    };
    let device_addresses = match &hop {
        Ok(Some(hop)) => tables.addresses(hop.ifindex).await,
        _ => Vec::new(),
    };
    way::Facts {
        remote,
        device_wanted: target.device.clone(),
        egress_wanted: target.egress,
        queue: target.queue,
        local_wanted: target.local_ip,
        hop: hop.map(|hop| hop.map(way::Hop::from)).map_err(|(_, error)| blocked(&error)),
        neighbour_denied,
        xfrm_unknown,
        elsewhere,
        device,
        neighbour,
        device_addresses,
        egress,
        firewall: firewall.clone(),
        agent: looks.agent.target(&target.name).map(|(agent, target)| way::InAgent {
            pid: agent.pid,
            state: target.state.clone(),
            waiting_for: target.waiting_for.clone(),
            egress: target.egress.clone(),
        }),
    }
}

impl From<NextHop> for way::Hop {
    fn from(hop: NextHop) -> Self {
        Self {
            ifname: hop.ifname,
            local: hop.local,
            gateway: hop.gateway,
            mac: hop.dst_mac,
            mac_source: hop.mac_source,
            mtu_bytes: hop.mtu_bytes,
            ethernet: hop.ethernet,
            local_route: hop.local_route,
            xfrm_policies: hop.xfrm_policies,
        }
    }
}

/// Where in the report an obstacle belongs.
fn blocked(error: &ResolveError) -> way::Blocked {
    let object = match error {
        ResolveError::DeviceMissing { .. }
        | ResolveError::DeviceNeeded { .. }
        | ResolveError::DeviceDown { .. }
        | ResolveError::NoCarrier { .. } => "device",
        ResolveError::NeighbourUnresolved { .. } => "next hop",
        ResolveError::NoSource { .. } | ResolveError::AddressTentative { .. } => "source",
        _ => "route",
    };
    let (finding, remedy) = split_remedy(error);
    way::Blocked { object, finding, remedy }
}

fn blocking_device(error: &ResolveError) -> Option<String> {
    match error {
        ResolveError::DeviceDown { device, .. }
        | ResolveError::NoCarrier { device, .. }
        | ResolveError::AddressTentative { device, .. }
        | ResolveError::NeighbourUnresolved { device, .. } => Some(device.clone()),
        ResolveError::NoRoute { device, .. } => device.clone(),
        _ => None,
    }
}

/// Tries sockets. Those of a queue are shared by targets, so each queue is tried once.
struct Sockets<'a> {
    agent: &'a agent::Facts,
    opened: BTreeMap<(u32, u32), way::Opened>,
}

impl Sockets<'_> {
    fn try_egress(
        &mut self,
        target: &config::Target,
        remote: SocketAddr,
        hop: Option<&NextHop>,
        may_open_raw: bool,
    ) -> way::Egress {
        let Some(hop) = hop else {
            // Only a file needs no way.
            let opened = try_file(target.pcap.as_deref());
            let choice = Ok((EgressKind::Pcap, "configured".to_owned()));
            return way::Egress { choice, opened, fallback: None };
        };
        let choice = choose_egress(target.egress, hop).map_err(|error| split_remedy(&error));
        let opened = match &choice {
            Ok((EgressKind::Xdp | EgressKind::Packet, _)) if !may_open_raw => way::Opened::NotTried,
            Ok((EgressKind::Xdp, _)) => self.try_xdp(target.queue, hop),
            Ok((EgressKind::Packet, _)) => {
                let options = packet::PacketOptions::new(hop.ifindex, &hop.ifname);
                opened(packet::open(&options))
            }
            Ok(_) => try_udp(target, remote),
            Err(_) => way::Opened::NotTried,
        };
        let falls_back = target.egress.is_none()
            && matches!(choice, Ok((EgressKind::Xdp, _)))
            && matches!(opened, way::Opened::Refused { .. });
        let fallback = falls_back.then(|| try_udp(target, remote));
        way::Egress { choice, opened, fallback }
    }

    fn try_xdp(&mut self, queue: u32, hop: &NextHop) -> way::Opened {
        if let Some(pid) = self.agent.holder(&hop.ifname, queue) {
            return way::Opened::Held { pid };
        }
        if let Some(opened) = self.opened.get(&(hop.ifindex, queue)) {
            return opened.clone();
        }
        let result =
            xdp::open(&xdp::XdpOptions { queue, ..xdp::XdpOptions::new(hop.ifindex, &hop.ifname) });
        let busy = result.as_ref().is_err_and(|error| error.errno() == Some(Errno::BUSY));
        let opened = match self.agent.pid() {
            // An agent keeps the socket of a target that waits.
            Some(pid) if busy => way::Opened::Held { pid },
            _ => opened(result),
        };
        self.opened.insert((hop.ifindex, queue), opened.clone());
        opened
    }
}

/// The socket itself is closed at once.
fn opened<T>(result: Result<T, OpenError>) -> way::Opened {
    match result {
        Ok(_) => way::Opened::Yes,
        Err(error) => {
            let (finding, remedy) = split_remedy(&error);
            way::Opened::Refused { finding, remedy }
        }
    }
}

fn try_udp(target: &config::Target, remote: SocketAddr) -> way::Opened {
    let any: IpAddr =
        if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    opened(udp::open(&udp::UdpOptions {
        local: Some(SocketAddr::new(target.local_ip.unwrap_or(any), target.local_port)),
        device: target.device.clone(),
        ..udp::UdpOptions::new(remote)
    }))
}

/// Opening it would empty it, so only the folder is looked at.
fn try_file(path: Option<&Path>) -> way::Opened {
    let path = path.unwrap_or(Path::new(""));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    match rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) => way::Opened::Yes,
        Err(error) => way::Opened::Refused {
            finding: format!("cannot write {}: {}: {error}", path.display(), folder.display()),
            remedy: "make the folder, or let the agent write there".to_owned(),
        },
    }
}
