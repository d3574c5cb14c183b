//! Looks at one target's way: asks the name servers, the resolver and the tables. What it means is
//! judged in `way`; sockets are tried in `sockets`.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use caps::Capability;
use rustix::io::Errno;

use super::{
    Finding, Section, agent, device, firewall, host::Version, kernel_config::KernelConfig,
    netconsole, privileges, sockets::Sockets, split_remedy, tables::Tables, way,
};
use crate::{
    config,
    egress::EgressKind,
    names::{IpVersion, NameState, Names},
    net::{NextHop, ResolveError, Resolver, Wanted, choose_egress, is_group},
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
    let section = |target: &config::Target, findings| {
        let area = format!("target {}", target.name);
        Section { area, findings }
    };
    let resolver = match Resolver::new() {
        Ok(resolver) => resolver,
        Err(error) => {
            let (finding, remedy) = split_remedy(&error);
            let fail = || vec![Finding::fail("route", finding.as_str(), remedy.as_str())];
            return targets.iter().map(|target| section(target, fail())).collect();
        }
    };
    let tables = Tables::of(&resolver);
    let firewall = firewall::Facts::gather(looks.kernel_config).await;
    // Neighbours that do not answer are waited for together.
    let ways =
        futures_util::future::join_all(targets.iter().map(|target| look(target, &resolver))).await;
    let may_open_raw = looks.privileges.root || looks.privileges.has(Capability::CAP_NET_RAW);
    let mut sockets = Sockets::new(looks.agent, may_open_raw);
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

/// The addresses that a target may send to, in the order in which the agent tries them.
async fn addresses(target: &config::Target) -> Result<Vec<SocketAddr>, way::Blocked> {
    let (host, port) = match &target.remote {
        config::Remote::Address(address) => return Ok(vec![*address]),
        config::Remote::Name { host, port } => (host, *port),
    };
    // What counts of an answer is decided where the agent decides it.
    let mut state = NameState::new(host, target.local_ip.map(IpVersion::of), Instant::now());
    let answer = Names::default().look_up(host).await;
    state.answer(Instant::now(), answer);
    match state.failure() {
        None => Ok(state.addresses().iter().map(|ip| SocketAddr::new(*ip, port)).collect()),
        Some(failure) => {
            let (finding, remedy) = split_remedy(&failure.error);
            Err(way::Blocked { object: "name", finding, remedy })
        }
    }
}

/// The addresses that are known without asking anybody.
pub(super) fn known_remotes(targets: &[config::Target]) -> Vec<SocketAddr> {
    targets.iter().filter_map(|target| target.remote.address()).collect()
}

/// What the resolver says of one address.
struct Look {
    remote: SocketAddr,
    /// `None` where no way is needed.
    hop: Option<Result<NextHop, ResolveError>>,
    /// The neighbour could not be asked for, but the rest is known.
    neighbour_denied: bool,
}

/// The address that the agent would use.
struct Chosen {
    look: Look,
    named: Option<way::Named>,
    elsewhere: way::Elsewhere,
}

async fn look(target: &config::Target, resolver: &Resolver) -> Result<Chosen, way::Blocked> {
    let addresses = addresses(target).await?;
    let mut looks = futures_util::future::join_all(
        addresses.iter().map(|remote| look_at(target, *remote, resolver)),
    )
    .await;
    // As the agent does: the first one to which there is a way, else the first one of all.
    let fits = looks.iter().position(|look| look.obstacle(target).is_none());
    let passed_over = looks[..fits.unwrap_or(0)]
        .iter()
        .filter_map(|look| Some(format!("{} ({})", look.remote.ip(), look.obstacle(target)?)));
    let named = match &target.remote {
        config::Remote::Address(_) => None,
        config::Remote::Name { host, .. } => {
            Some(way::Named { host: host.clone(), passed_over: passed_over.collect() })
        }
    };
    let look = looks.swap_remove(fits.unwrap_or(0));
    let elsewhere = elsewhere(target, &look, resolver).await;
    Ok(Chosen { look, named, elsewhere })
}

fn wanted(target: &config::Target, remote: SocketAddr) -> Wanted {
    Wanted {
        remote,
        device: target.device.clone(),
        known: None,
        local: target.local_ip,
        remote_mac: target.remote_mac,
        patience: NEIGHBOUR_PATIENCE,
    }
}

async fn look_at(target: &config::Target, remote: SocketAddr, resolver: &Resolver) -> Look {
    let wanted = wanted(target, remote);
    let mut neighbour_denied = false;
    let hop = match target.egress {
        Some(EgressKind::Pcap) => None,
        // The kernel finds the neighbour of a UDP socket.
        Some(EgressKind::Udp) => Some(resolver.route(&wanted).await),
        _ => Some(match resolver.resolve(&wanted).await {
            Err(ResolveError::Netlink(error))
                if matches!(error.errno(), Some(Errno::PERM | Errno::ACCESS)) =>
            {
                neighbour_denied = true;
                resolver.route(&wanted).await
            }
            hop => hop,
        }),
    };
    Look { remote, hop, neighbour_denied }
}

impl Look {
    /// Why the agent would not use this address, in words without the remedy.
    fn obstacle(&self, target: &config::Target) -> Option<String> {
        match &self.hop {
            None => None,
            Some(Err(error)) => Some(split_remedy(error).0),
            // Which way out fits is not known without the MAC.
            Some(Ok(_)) if self.neighbour_denied => None,
            Some(Ok(hop)) => {
                choose_egress(target.egress, hop).err().map(|error| split_remedy(&error).0)
            }
        }
    }
}

/// Where the route leads without the configured device.
async fn elsewhere(target: &config::Target, look: &Look, resolver: &Resolver) -> way::Elsewhere {
    let told =
        |device: &Option<String>| device.clone().map_or(way::Elsewhere::No, way::Elsewhere::Device);
    let error = match &look.hop {
        None => return way::Elsewhere::No,
        Some(Ok(hop)) if hop.assumed_on_link => return way::Elsewhere::Nowhere,
        Some(Ok(hop)) => return told(&hop.route_device),
        Some(Err(ResolveError::NeighbourUnresolved { route_device, .. })) => {
            return told(route_device);
        }
        Some(Err(error)) => error,
    };
    if target.device.is_none() || is_group(look.remote.ip().to_canonical()) {
        return way::Elsewhere::No;
    }
    // The resolver stopped before it came to that.
    match resolver.route(&Wanted { device: None, ..wanted(target, look.remote) }).await {
        Ok(hop) if !hop.local_route && blocking_device(error).as_ref() != Some(&hop.ifname) => {
            way::Elsewhere::Device(hop.ifname)
        }
        _ => way::Elsewhere::No,
    }
}

async fn gather(
    target: &config::Target,
    chosen: Result<Chosen, way::Blocked>,
    looks: &Looks<'_>,
    tables: &Tables,
    sockets: &mut Sockets<'_>,
    firewall: &firewall::Facts,
) -> way::Facts {
    let (remote, named, hop, neighbour_denied, elsewhere) = match chosen {
        Ok(Chosen { look: Look { remote, hop, neighbour_denied }, named, elsewhere }) => {
            (Ok(remote), named, hop, neighbour_denied, elsewhere)
        }
        Err(blocked) => (Err(blocked), None, None, false, way::Elsewhere::No),
    };
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
    let egress = match (&hop, &remote) {
        (Ok(hop), Ok(remote)) => Some(sockets.try_egress(target, *remote, hop.as_ref())),
        _ => None,
    };
    let device_addresses = match &hop {
        Ok(Some(hop)) => tables.addresses(hop.ifindex, hop.local).await,
        _ => Vec::new(),
    };
    way::Facts {
        remote,
        named,
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
        | ResolveError::NoSource { device, .. }
        | ResolveError::NeighbourUnresolved { device, .. } => Some(device.clone()),
        ResolveError::NoRoute { device, .. } => device.clone(),
        _ => None,
    }
}
