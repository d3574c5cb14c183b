//! Which way out fits a next hop. Pure: it looks at nothing but its arguments.

use super::NextHop;
use crate::egress::EgressKind;

/// The configured way out cannot reach the remote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot send by egress {} on {device}: {cause}; set `egress` to `udp` or `auto`", .wanted.name())]
pub struct EgressImpossible {
    /// What was configured.
    pub wanted: EgressKind,
    /// The device's name.
    pub device: String,
    /// Why not, in one phrase.
    pub cause: &'static str,
}

/// Chooses the way out, and says why in one phrase.
///
/// `None` (auto) takes AF_XDP where that is what the routing means, else UDP. A
/// configured way is taken at its word wherever it can work at all: an operator
/// may want frames to pass below IPsec.
///
/// # Errors
/// [`EgressImpossible`] if frames are wanted where there is no Ethernet to carry
/// them, or for this host itself.
pub fn choose_egress(
    wanted: Option<EgressKind>,
    hop: &NextHop,
) -> Result<(EgressKind, String), EgressImpossible> {
    let impossible = frames_impossible(hop);
    match wanted {
        None => Ok(match impossible.or_else(|| frames_unwise(hop)) {
            None => (EgressKind::Xdp, format!("{} is a plain Ethernet way", hop.ifname)),
            Some(reason) => (EgressKind::Udp, reason.to_owned()),
        }),
        Some(wanted @ (EgressKind::Xdp | EgressKind::Packet)) => match impossible {
            Some(cause) => Err(EgressImpossible { wanted, device: hop.ifname.clone(), cause }),
            None => Ok((
                wanted,
                match frames_unwise(hop) {
                    Some(warning) => format!("configured, although {warning}"),
                    None => "configured".to_owned(),
                },
            )),
        },
        Some(wanted) => Ok((wanted, "configured".to_owned())),
    }
}

/// The ways out to try, best first, where [`choose_egress`] has chosen `chosen` for what is `wanted`:
/// `auto` makes do with the next where a socket is refused, a configured way has no other.
#[must_use]
pub fn egress_kinds(wanted: Option<EgressKind>, chosen: EgressKind) -> Vec<EgressKind> {
    match (wanted, chosen) {
        (None, EgressKind::Xdp) => vec![EgressKind::Xdp, EgressKind::Packet, EgressKind::Udp],
        _ => vec![chosen],
    }
}

fn frames_impossible(hop: &NextHop) -> Option<&'static str> {
    if hop.local_route {
        Some("the remote is this host")
    } else if !hop.ethernet || hop.dst_mac.is_none() {
        Some("the device has no Ethernet addresses")
    } else {
        None
    }
}

fn frames_unwise(hop: &NextHop) -> Option<&'static str> {
    if hop.encapsulated {
        Some("the route encapsulates packets")
    } else if hop.xfrm_policies {
        Some("outbound IPsec policies exist or cannot be listed")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::net::MacSource;

    fn hop() -> NextHop {
        NextHop {
            ifindex: 2,
            ifname: "eth7".to_owned(),
            src_mac: [2, 0, 0, 0, 0, 1],
            dst_mac: Some([2, 0, 0, 0, 0, 2]),
            local: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            gateway: None,
            mtu_bytes: 1500,
            ethernet: true,
            local_route: false,
            encapsulated: false,
            xfrm_policies: false,
            mac_source: MacSource::Neighbour,
            neighbour: None,
            mac_confirmed_ago: None,
            neighbour_mac: None,
            device: None,
            configured_device: None,
            route_device: None,
            assumed_on_link: false,
        }
    }

    #[test]
    fn auto_takes_xdp_only_where_the_routing_means_it() {
        assert_eq!(choose_egress(None, &hop()).unwrap().0, EgressKind::Xdp);
        for (other, word) in [
            (NextHop { local_route: true, ..hop() }, "this host"),
            (NextHop { ethernet: false, dst_mac: None, ..hop() }, "Ethernet"),
            (NextHop { encapsulated: true, ..hop() }, "encapsulates"),
            (NextHop { xfrm_policies: true, ..hop() }, "IPsec"),
        ] {
            let (kind, reason) = choose_egress(None, &other).unwrap();
            assert_eq!(kind, EgressKind::Udp);
            assert!(reason.contains(word), "{reason}");
        }
    }

    #[test]
    fn only_auto_makes_do_with_another_way() {
        use EgressKind::{Packet, Udp, Xdp};
        assert_eq!(egress_kinds(None, Xdp), [Xdp, Packet, Udp]);
        assert_eq!(egress_kinds(None, Udp), [Udp]);
        for wanted in [Xdp, Packet, Udp] {
            assert_eq!(egress_kinds(Some(wanted), wanted), [wanted]);
        }
    }

    #[test]
    fn an_impossible_wish_is_an_error() {
        let tunnel = NextHop { ethernet: false, dst_mac: None, ..hop() };
        for wanted in [EgressKind::Xdp, EgressKind::Packet] {
            let error = choose_egress(Some(wanted), &tunnel).unwrap_err();
            assert!(error.to_string().contains(wanted.name()), "{error}");
            assert!(choose_egress(Some(wanted), &NextHop { local_route: true, ..hop() }).is_err());
        }
        assert_eq!(choose_egress(Some(EgressKind::Udp), &tunnel).unwrap().0, EgressKind::Udp);
    }

    #[test]
    fn a_risky_wish_is_granted_and_said() {
        let ipsec = NextHop { xfrm_policies: true, ..hop() };
        let (kind, reason) = choose_egress(Some(EgressKind::Packet), &ipsec).unwrap();
        assert_eq!(kind, EgressKind::Packet);
        assert!(reason.contains("IPsec"), "{reason}");
    }
}
