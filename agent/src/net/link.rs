//! A device as rtnetlink describes it (`rtnl_fill_ifinfo`,
//! `net/core/rtnetlink.c`, Linux 6.12), cut down to what this room and `doctor`
//! need. Pure: it asks nobody.

use netlink_packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, Prop,
};

use crate::frame::MacAddr;

/// A device.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    pub(crate) ifindex: u32,
    pub(crate) name: String,
    /// Alternative names (`ip link property`).
    pub(crate) alt_names: Vec<String>,
    /// Its MAC if it speaks Ethernet.
    pub(crate) mac: Option<MacAddr>,
    /// The MAC it was made with, where it has one (`IFLA_PERM_ADDRESS`).
    pub(crate) permanent_mac: Option<MacAddr>,
    pub(crate) mtu_bytes: u32,
    pub(crate) up: bool,
    pub(crate) carrier: bool,
    /// It lies on other devices and may have the MAC of one of them.
    pub(crate) stacked: bool,
    /// It is a VRF, or its master is one: routing knows that by itself.
    pub(crate) in_vrf: bool,
    /// Index of the bridge, bond or team whose port it is.
    pub(crate) port_of: Option<u32>,
    /// Index of what it is a port of, of any kind.
    pub(crate) master: Option<u32>,
    /// As `ip -details link` names it; physical devices have none.
    pub(crate) kind: Option<String>,
    pub(crate) loopback: bool,
    /// Transmit queues that were allocated; fewer may be in use.
    pub(crate) tx_queues: u32,
}

impl Link {
    /// The MAC by which the device can be told from others: a bond gives its own
    /// to all of its ports, but their permanent ones stay.
    pub(super) fn identity_mac(&self) -> Option<MacAddr> {
        self.permanent_mac.or(self.mac)
    }

    /// Whether this is its MAC, or was when it was made.
    pub(super) fn has_mac(&self, mac: MacAddr) -> bool {
        self.mac == Some(mac) || self.permanent_mac == Some(mac)
    }

    /// Whether the device goes by this name.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alt_names.iter().any(|other| other == name)
    }
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            ifindex: message.header.index,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            ..Self::default()
        };
        let ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        link.loopback = message.header.link_layer_type == LinkLayerType::Loopback;
        let mut infos = Vec::new();
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::PropList(names) => {
                    link.alt_names = names.into_iter().filter_map(alt_name).collect();
                }
                LinkAttribute::Address(bytes) if ethernet => link.mac = bytes.try_into().ok(),
                LinkAttribute::PermAddress(bytes) if ethernet => {
                    link.permanent_mac = bytes.try_into().ok();
                }
                LinkAttribute::Mtu(bytes) => link.mtu_bytes = bytes,
                LinkAttribute::Controller(index) => link.master = Some(index),
                LinkAttribute::NumTxQueues(count) => link.tx_queues = count,
                LinkAttribute::LinkInfo(parts) => infos = parts,
                _ => {}
            }
        }
        for info in infos {
            match info {
                LinkInfo::Kind(kind) => {
                    link.in_vrf |= kind == InfoKind::Vrf;
                    link.stacked = is_stacked(&kind);
                    link.kind = Some(kind.to_string());
                }
                LinkInfo::PortKind(InfoPortKind::Vrf) => link.in_vrf = true,
                LinkInfo::PortKind(
                    InfoPortKind::Bridge | InfoPortKind::Bond | InfoPortKind::Team,
                ) => link.port_of = link.master,
                _ => {}
            }
        }
        link
    }
}

fn alt_name(property: Prop) -> Option<String> {
    match property {
        Prop::AltIfName(name) => Some(name),
        _ => None,
    }
}

fn is_stacked(kind: &InfoKind) -> bool {
    matches!(
        kind,
        InfoKind::Vlan
            | InfoKind::Bridge
            | InfoKind::Bond
            | InfoKind::Team
            | InfoKind::MacVlan
            | InfoKind::MacVtap
            | InfoKind::IpVlan
            | InfoKind::IpVtap
            | InfoKind::MacSec
            | InfoKind::Hsr
            | InfoKind::BatAdv
            | InfoKind::Vrf
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: Vec<LinkAttribute>) -> LinkMessage {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.link_layer_type = LinkLayerType::Ether;
        message.header.flags = LinkFlags::Up;
        message.attributes = attributes;
        message
    }

    #[test]
    fn a_port_knows_its_master_whatever_the_order_of_attributes() {
        let info = |kind| LinkAttribute::LinkInfo(vec![LinkInfo::PortKind(kind)]);
        let master = LinkAttribute::Controller(3);
        for kind in [InfoPortKind::Bridge, InfoPortKind::Bond, InfoPortKind::Team] {
            let link = Link::from(message(vec![info(kind.clone()), master.clone()]));
            assert_eq!(link.port_of, Some(3), "{kind}");
            assert!(!link.in_vrf && !link.stacked);
        }
        let link = Link::from(message(vec![master.clone(), info(InfoPortKind::Vrf)]));
        assert_eq!((link.port_of, link.in_vrf), (None, true));
        let other = InfoPortKind::Other("openvswitch".to_owned());
        assert_eq!(Link::from(message(vec![master, info(other)])).port_of, None);
    }

    #[test]
    fn devices_on_others_are_told_from_devices_of_their_own() {
        let of =
            |kind| Link::from(message(vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])]));
        for kind in [InfoKind::Vlan, InfoKind::Bond, InfoKind::Team, InfoKind::Vrf] {
            assert!(of(kind.clone()).stacked, "{kind}");
        }
        for kind in [InfoKind::Veth, InfoKind::Tun, InfoKind::Dummy] {
            assert!(!of(kind.clone()).stacked, "{kind}");
        }
        assert!(of(InfoKind::Vrf).in_vrf && !of(InfoKind::Vlan).in_vrf);
    }

    #[test]
    fn the_permanent_mac_identifies_a_port_that_was_given_another() {
        let own = vec![2, 0, 0, 0, 0, 1];
        let bonds = vec![2, 0, 0, 0, 0, 9];
        let mut attributes = vec![LinkAttribute::Address(bonds)];
        assert_eq!(
            Link::from(message(attributes.clone())).identity_mac(),
            Some([2, 0, 0, 0, 0, 9])
        );
        attributes.push(LinkAttribute::PermAddress(own));
        assert_eq!(Link::from(message(attributes)).identity_mac(), Some([2, 0, 0, 0, 0, 1]));
    }

    #[test]
    fn without_ethernet_there_is_no_mac() {
        let mut other = message(vec![LinkAttribute::Address(vec![0; 6])]);
        other.header.link_layer_type = LinkLayerType::Loopback;
        assert_eq!(Link::from(other).mac, None);
    }
}
