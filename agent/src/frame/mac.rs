//! Ethernet addresses: how they are written, and those that follow from the IP address alone.
//!
//! Group addresses have no neighbour entry; their MAC is computed. Unicast
//! addresses are not handled here: `net` asks the kernel's neighbour table.

use std::net::{IpAddr, Ipv4Addr};

/// An Ethernet address.
pub type MacAddr = [u8; 6];

/// The Ethernet broadcast address.
pub const BROADCAST_MAC: MacAddr = [0xff; 6];

/// An address as `ip link` writes it.
#[must_use]
pub fn mac_text(mac: MacAddr) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The MAC of a multicast or broadcast remote, `None` for unicast.
///
/// `subnet_broadcast` is the broadcast address of the subnet that the route to
/// `remote` leads to, where it has one: without it a directed broadcast looks
/// like any unicast address.
///
/// Rules: RFC 1112, section 6.4 (IPv4 multicast: `01:00:5e` and the low 23
/// bits), RFC 2464, section 7 (IPv6 multicast: `33:33` and the last 4 bytes),
/// RFC 919, section 7 (broadcast).
#[must_use]
pub fn group_mac(remote: IpAddr, subnet_broadcast: Option<Ipv4Addr>) -> Option<MacAddr> {
    match remote.to_canonical() {
        IpAddr::V4(ip) if ip.is_broadcast() || subnet_broadcast == Some(ip) => Some(BROADCAST_MAC),
        IpAddr::V4(ip) if ip.is_multicast() => {
            let [_, b, c, d] = ip.octets();
            Some([0x01, 0x00, 0x5e, b & 0x7f, c, d])
        }
        IpAddr::V6(ip) if ip.is_multicast() => {
            let [.., a, b, c, d] = ip.octets();
            Some([0x33, 0x33, a, b, c, d])
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mac(ip: &str) -> Option<MacAddr> {
        group_mac(ip.parse().unwrap(), Some(Ipv4Addr::new(192, 0, 2, 127)))
    }

    #[test]
    fn groups_have_a_mac() {
        // RFC 1112: the high bit of the second octet is not carried.
        assert_eq!(mac("239.255.1.2"), Some([0x01, 0x00, 0x5e, 0x7f, 0x01, 0x02]));
        assert_eq!(mac("224.0.0.1"), Some([0x01, 0x00, 0x5e, 0x00, 0x00, 0x01]));
        assert_eq!(mac("ff02::1:ff28:9c5a"), Some([0x33, 0x33, 0xff, 0x28, 0x9c, 0x5a]));
        assert_eq!(mac("255.255.255.255"), Some(BROADCAST_MAC));
        assert_eq!(mac("192.0.2.127"), Some(BROADCAST_MAC));
    }

    #[test]
    fn unicast_has_none() {
        assert_eq!(mac("192.0.2.1"), None);
        assert_eq!(mac("2001:db8::1"), None);
        assert_eq!(group_mac("192.0.2.127".parse().unwrap(), None), None);
    }
}
