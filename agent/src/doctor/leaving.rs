//! Judges how a target's packets leave the host: queue, MTU, socket, and what they pass by. Pure.

use std::net::SocketAddr;

use super::{
    Finding, Level, device,
    way::{Egress, Facts, Hop, Opened},
};
use crate::{egress::EgressKind, netconsole::DATAGRAM_MAX_BYTES};

/// Whether the queue is there.
pub(super) fn queue(facts: &Facts, device: &device::Facts) -> Finding {
    let line = device.judge_queue(facts.queue);
    // `auto` lives with it: the line of the way out tells how.
    if line.level == Level::Fail && facts.egress_wanted.is_none() {
        return Finding { level: Level::Warn, ..line };
    }
    line
}

/// Whether the longest packet fits.
pub(super) fn mtu(hop: &Hop, remote: SocketAddr, kind: Option<EgressKind>) -> Finding {
    // IPv4 or IPv6 header, and UDP's.
    let headers_bytes = if remote.ip().to_canonical().is_ipv4() { 28 } else { 48 };
    let needed_bytes = DATAGRAM_MAX_BYTES as u32 + headers_bytes;
    let enough = hop.mtu_bytes >= needed_bytes;
    let text = format!("{} bytes; the longest packet has {needed_bytes}", hop.mtu_bytes);
    match (enough, kind) {
        (true, _) => Finding::ok("mtu", text),
        (false, Some(EgressKind::Udp)) => Finding::warn(
            "mtu",
            format!("{text}: longer ones leave in IP fragments, which many receivers never see"),
            format!("raise the MTU of {} and of its route to {needed_bytes}", hop.ifname),
        ),
        (false, _) => Finding::warn(
            "mtu",
            format!("{text}: longer ones are counted lost (too_long)"),
            format!(
                "raise the MTU of {} and of its route to {needed_bytes}, or set egress = \"udp\"",
                hop.ifname
            ),
        ),
    }
}

/// Which way out, whether it opens, and why not a better one.
pub(super) fn out(facts: &Facts, egress: &Egress) -> Finding {
    let object = "egress";
    let (kind, reason) = match &egress.choice {
        Ok(choice) => choice,
        Err((finding, remedy)) => return Finding::fail(object, finding.as_str(), remedy.as_str()),
    };
    let Some(((tried, opened), refused)) = egress.tries.split_last() else {
        return Finding::warn(object, format!("{}: not tried", kind.name()), "run doctor as root");
    };
    if !refused.is_empty() {
        return fallback(*tried, opened, refused);
    }
    let name = kind.name();
    let socket = match kind {
        EgressKind::Xdp => format!("queue {}", facts.queue),
        EgressKind::Pcap => "the folder".to_owned(),
        EgressKind::Packet | EgressKind::Udp | EgressKind::Memory => "a socket".to_owned(),
    };
    match opened {
        Opened::Refused { finding, remedy } => {
            Finding::fail(object, format!("{name} ({reason}): {finding}"), remedy.as_str())
        }
        Opened::NotTried => Finding::warn(
            object,
            format!("{name} ({reason}); not tried: opening its socket needs CAP_NET_RAW"),
            "run doctor as root",
        ),
        Opened::Held { pid } => Finding::ok(
            object,
            format!("{name} ({reason}); {socket} is held by the running agent itself (pid {pid})"),
        ),
        Opened::Yes => {
            let frames = matches!(kind, EgressKind::Xdp | EgressKind::Packet);
            let ipsec = matches!(&facts.hop, Ok(Some(hop)) if hop.xfrm_policies);
            let opened = match kind {
                EgressKind::Xdp => "could be bound",
                EgressKind::Pcap => "can be written",
                EgressKind::Packet | EgressKind::Udp | EgressKind::Memory => "could be opened",
            };
            let mut text = format!("{name} ({reason}); {socket} {opened}");
            if frames && ipsec {
                return Finding::warn(
                    object,
                    format!("{text}; its frames leave in the clear, below the IPsec policies"),
                    "set egress = \"auto\" or \"udp\", if the policies are meant for them",
                );
            }
            if *kind == EgressKind::Udp && facts.egress_wanted.is_none() {
                text = format!("{text}; that is why not xdp");
            }
            Finding::ok(object, text)
        }
    }
}

/// What is left where `auto` cannot have what it wants first.
fn fallback(tried: EgressKind, opened: &Opened, refused: &[(EgressKind, Opened)]) -> Finding {
    let object = "egress";
    let told = |(kind, opened): &(EgressKind, Opened)| match opened {
        Opened::Refused { finding, .. } => Some(format!("{}: {finding}", kind.name())),
        _ => None,
    };
    let mut causes: Vec<String> = refused.iter().filter_map(told).collect();
    // What helps the best of them.
    let remedy = refused.iter().find_map(|(_, opened)| match opened {
        Opened::Refused { remedy, .. } => Some(remedy.as_str()),
        _ => None,
    });
    let remedy = remedy.unwrap_or("see the agent's log");
    if let Opened::Refused { finding, .. } = opened {
        causes.push(format!("{}: {finding}", tried.name()));
        return Finding::fail(object, format!("nothing opens; {}", causes.join("; ")), remedy);
    }
    let text =
        format!("auto takes {}, because better is refused; {}", tried.name(), causes.join("; "));
    Finding::warn(object, text, remedy)
}

/// What frames pass by that packets of the ordinary path would meet.
pub(super) fn bypassed(facts: &Facts, hop: &Hop) -> Finding {
    let object = "bypassed";
    let qdiscs = facts.device.as_ref().map(|device| device.qdiscs.as_slice()).unwrap_or_default();
    let mut what = facts.firewall.chains.clone();
    what.extend(qdiscs.iter().map(|kind| format!("qdisc {kind} on {}", hop.ifname)));
    let mut unknown = facts.firewall.unknown.clone();
    if facts.xfrm_unknown {
        let ipsec = "the IPsec policies cannot be listed".to_owned();
        unknown = Some(unknown.map_or(ipsec.clone(), |other| format!("{other}; {ipsec}")));
    }
    if !what.is_empty() {
        Finding::warn(
            object,
            format!("frames leave below firewall and qdiscs; not applied: {}", what.join(", ")),
            "set egress = \"udp\" if they must apply; else allow or shape the traffic elsewhere",
        )
    } else if let Some(cause) = unknown {
        Finding::warn(
            object,
            format!(
                "frames leave below firewall and qdiscs; which there are is not known: {cause}"
            ),
            "run doctor as root, or see `nft list ruleset`",
        )
    } else {
        Finding::ok(
            object,
            "frames leave below firewall and qdiscs; no output rule and no configured qdisc is there",
        )
    }
}
