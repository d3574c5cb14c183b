//! Judges one target's way, from the remote to the next hop. Pure: facts in, findings out. How packets
//! leave the host is judged in `leaving`.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use netlink_packet_route::neighbour::NeighbourState;

use super::{Finding, device, firewall, leaving};
use crate::{
    egress::EgressKind,
    frame::{MacAddr, mac_text},
    net::{MacSource, Neighbour, usable_mac},
};

/// What is known of a target's way.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) remote: Result<SocketAddr, Blocked>,
    /// Where the remote is a name.
    pub(super) named: Option<Named>,
    pub(super) device_wanted: Option<String>,
    pub(super) egress_wanted: Option<EgressKind>,
    pub(super) queue: u32,
    pub(super) local_wanted: Option<IpAddr>,
    /// `None` where none is needed.
    pub(super) hop: Result<Option<Hop>, Blocked>,
    /// Asking the kernel for the neighbour was not allowed.
    pub(super) neighbour_denied: bool,
    /// The IPsec policies could not be listed.
    pub(super) xfrm_unknown: bool,
    pub(super) elsewhere: Elsewhere,
    pub(super) device: Option<device::Facts>,
    /// The table's entry of the next hop.
    pub(super) neighbour: Option<Neighbour>,
    pub(super) device_addresses: Vec<IpAddr>,
    pub(super) egress: Option<Egress>,
    pub(super) firewall: firewall::Facts,
    pub(super) agent: Option<InAgent>,
}

/// The name that the remote's address comes from.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) host: String,
    /// Addresses that come before it in the answer and that nothing can be sent to, each with why.
    pub(super) passed_over: Vec<String>,
}

/// Something without which there is no way.
#[derive(Clone, Debug)]
pub(super) struct Blocked {
    pub(super) object: &'static str,
    pub(super) finding: String,
    pub(super) remedy: String,
}

/// The next hop.
#[derive(Clone, Debug)]
pub(super) struct Hop {
    pub(super) ifname: String,
    pub(super) local: IpAddr,
    pub(super) gateway: Option<IpAddr>,
    pub(super) mac: Option<MacAddr>,
    pub(super) mac_source: MacSource,
    pub(super) mtu_bytes: u32,
    pub(super) ethernet: bool,
    pub(super) local_route: bool,
    pub(super) xfrm_policies: bool,
}

/// Where the route leads without the configured device.
#[derive(Clone, Debug)]
pub(super) enum Elsewhere {
    /// By the same device, or none is configured.
    No,
    Device(String),
    /// There is no route.
    Nowhere,
}

/// Which way out, and whether it opens.
#[derive(Clone, Debug)]
pub(super) struct Egress {
    /// The kind and why; or what is wrong and the remedy.
    pub(super) choice: Result<(EgressKind, String), (String, String)>,
    /// What was tried, in this order; all but the last were refused.
    pub(super) tries: Vec<(EgressKind, Opened)>,
}

/// What came of opening a socket.
#[derive(Clone, Debug)]
pub(super) enum Opened {
    Yes,
    /// The running agent has it.
    Held {
        pid: u32,
    },
    Refused {
        finding: String,
        remedy: String,
    },
    /// Not allowed to this user, or of no use.
    NotTried,
}

/// The target as a running agent has it.
#[derive(Clone, Debug)]
pub(super) struct InAgent {
    pub(super) pid: u32,
    pub(super) state: String,
    pub(super) waiting_for: Option<String>,
    pub(super) egress: Option<String>,
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(facts.agent.as_ref().map(in_agent));
    let remote = match &facts.remote {
        Ok(remote) => *remote,
        Err(blocked) => {
            findings.push(fail(blocked));
            return findings;
        }
    };
    findings.push(Finding::ok("remote", address(remote, facts.named.as_ref())));
    let device = facts.device.as_ref().map(device::Facts::judge);
    match &facts.hop {
        Err(blocked) => {
            // The device's own line says the same, and its driver.
            let told = device.as_ref().is_some_and(|line| line.remedy.is_some());
            findings.extend(device);
            if !(told && blocked.object == "device") {
                findings.push(fail(blocked));
            }
            findings.extend(wrong_port(facts));
        }
        Ok(None) => {
            findings.extend(facts.egress.as_ref().map(|egress| leaving::out(facts, egress)))
        }
        Ok(Some(hop)) => {
            findings.extend(device);
            findings.push(route(hop));
            findings.extend(wrong_port(facts));
            findings.push(source(facts, hop));
            if hop.ethernet && !hop.local_route && facts.egress_wanted != Some(EgressKind::Udp) {
                findings.push(next_hop(facts, hop, remote));
            }
            let kind = facts.egress.as_ref().and_then(Egress::kind);
            if let (Some(device), Some(EgressKind::Xdp)) =
                (&facts.device, facts.egress.as_ref().and_then(Egress::wished))
            {
                findings.push(leaving::queue(facts, device));
            }
            findings.push(leaving::mtu(hop, remote, kind));
            findings.extend(facts.egress.as_ref().map(|egress| leaving::out(facts, egress)));
            if let Some(EgressKind::Xdp | EgressKind::Packet) = kind {
                findings.push(leaving::bypassed(facts, hop));
            }
        }
    }
    findings
}

impl Egress {
    /// What the routing asks for.
    fn wished(&self) -> Option<EgressKind> {
        self.choice.as_ref().ok().map(|(kind, _)| *kind)
    }

    /// What is really used, if anything works.
    fn kind(&self) -> Option<EgressKind> {
        match self.tries.last()? {
            (_, Opened::Refused { .. }) => None,
            (kind, _) => Some(*kind),
        }
    }
}

fn fail(blocked: &Blocked) -> Finding {
    Finding::fail(blocked.object, blocked.finding.as_str(), blocked.remedy.as_str())
}

/// The address, and how it was come by.
fn address(remote: SocketAddr, named: Option<&Named>) -> String {
    match named {
        None => remote.to_string(),
        Some(Named { host, passed_over }) if passed_over.is_empty() => {
            format!("{remote}, address of {host}")
        }
        Some(Named { host, passed_over }) => {
            format!("{remote}, address of {host}; passed over: {}", passed_over.join("; "))
        }
    }
}

fn in_agent(agent: &InAgent) -> Finding {
    let who = format!("the running agent (pid {})", agent.pid);
    match &agent.waiting_for {
        Some(reason) if agent.state != "active" => Finding::warn(
            "agent",
            format!("{who} does not send to it: {reason}"),
            "the lines below tell how things are now; the agent tries again by itself",
        ),
        _ => {
            let by = agent.egress.as_ref().map(|kind| format!(", by {kind}")).unwrap_or_default();
            Finding::ok("agent", format!("{who} has it {}{by}", agent.state))
        }
    }
}

fn route(hop: &Hop) -> Finding {
    Finding::ok(
        "route",
        match hop.gateway {
            _ if hop.local_route => format!("by {}: the remote is this host", hop.ifname),
            Some(gateway) => format!("by {} through {gateway}", hop.ifname),
            None => format!("by {}, on the link", hop.ifname),
        },
    )
}

fn wrong_port(facts: &Facts) -> Option<Finding> {
    let wanted = facts.device_wanted.as_ref()?;
    match &facts.elsewhere {
        Elsewhere::No => None,
        Elsewhere::Device(other) => Some(Finding::warn(
            "wrong port",
            format!(
                "device = \"{wanted}\" is configured, but the route to the remote leaves by {other}"
            ),
            format!(
                "set device = \"auto\" or \"{other}\", or add a route by {wanted}, if that is not on purpose"
            ),
        )),
        Elsewhere::Nowhere => Some(Finding::warn(
            "wrong port",
            format!(
                "no route leads to the remote; it is taken to be on the link of {wanted}, as configured"
            ),
            format!("add a route by {wanted}, if the remote is not on its link"),
        )),
    }
}

fn source(facts: &Facts, hop: &Hop) -> Finding {
    if facts.local_wanted.is_some()
        && !hop.local_route
        && !facts.device_addresses.contains(&hop.local)
    {
        return Finding::warn(
            "source",
            format!("{}, as configured, is no address of {}", hop.local, hop.ifname),
            "a reverse path filter (rp_filter) on the way may discard the packets: leave `local` to the \
             route, or give the device that address",
        );
    }
    Finding::ok("source", hop.local.to_string())
}

fn next_hop(facts: &Facts, hop: &Hop, remote: SocketAddr) -> Finding {
    let object = "next hop";
    let address = hop.gateway.unwrap_or(remote.ip().to_canonical());
    let entry = facts.neighbour.as_ref();
    let known = entry.and_then(usable_mac);
    let state = entry.map(|entry| age(entry, hop)).unwrap_or_default();
    match (hop.mac_source, hop.mac) {
        _ if facts.neighbour_denied => match known {
            Some(mac) => Finding::ok(object, format!("{address} is {}{state}", mac_text(mac))),
            None => Finding::warn(
                object,
                format!(
                    "the MAC of {address} is not known, and having it resolved needs CAP_NET_ADMIN"
                ),
                "run doctor as root",
            ),
        },
        (MacSource::Static, Some(mac)) => match known {
            Some(other) if other != mac => Finding::warn(
                object,
                format!(
                    "remote_mac = \"{}\" is configured, but the neighbour table has {} for {address}{state}",
                    mac_text(mac),
                    mac_text(other)
                ),
                "correct `remote_mac`, or remove it to follow the neighbour table",
            ),
            Some(_) => Finding::ok(
                object,
                format!("{address} is {}, as configured and in the neighbour table", mac_text(mac)),
            ),
            None => Finding::ok(
                object,
                format!(
                    "{address} is {}, as configured; the neighbour table has no entry",
                    mac_text(mac)
                ),
            ),
        },
        (MacSource::Neighbour, Some(mac)) => {
            Finding::ok(object, format!("{address} is {}{state}", mac_text(mac)))
        }
        (kind, Some(mac)) => {
            Finding::ok(object, format!("{address} is {} ({})", mac_text(mac), kind.name()))
        }
        (_, None) => Finding::ok(object, format!("{address}; the kernel finds its MAC")),
    }
}

/// State and age of an entry, in brackets.
fn age(entry: &Neighbour, hop: &Hop) -> String {
    match (entry.state, entry.confirmed_ago) {
        (NeighbourState::Permanent | NeighbourState::Noarp, _) | (_, None) => {
            format!(" ({} on {})", entry.state, hop.ifname)
        }
        (state, Some(ago)) => {
            let ago = humantime::format_duration(Duration::from_secs(ago.as_secs()));
            format!(" ({state}, confirmed {ago} ago)")
        }
    }
}

#[cfg(test)]
#[path = "way_tests.rs"]
mod tests;
