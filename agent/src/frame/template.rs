//! The headers of one target, written once and patched per datagram.
//!
//! Field values are netconsole's (`net/core/netpoll.c`, `netpoll_send_udp`):
//! version/IHL 0x45, type of service 0, id from a counter, flags and fragment
//! offset 0 (DF clear), UDP checksum never left out. The counter belongs to
//! the caller. This module checks no MTU: the egress does.

use std::net::{IpAddr, SocketAddr};

use super::checksum::Sum;
use super::mac::MacAddr;
use super::{ETHERNET_HEADER_BYTES, VLAN_TAG_BYTES};

/// Longest headers that a template holds, in bytes (Ethernet, tag, IPv6, UDP).
pub const HEADER_MAX_BYTES: usize =
    ETHERNET_HEADER_BYTES + VLAN_TAG_BYTES + IPV6_HEADER_BYTES + UDP_HEADER_BYTES;

const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
const UDP_HEADER_BYTES: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
pub(super) const ETHERTYPE_VLAN: u16 = 0x8100;

const IP_PROTOCOL_UDP: u8 = 17;
/// TTL of IPv4 and hop limit of IPv6.
const HOP_LIMIT: u8 = 64;
/// Highest VLAN id; 4095 is reserved (IEEE 802.1Q-2022, table 9-2).
const VLAN_ID_MAX: u16 = 4094;

/// Who sends to whom, on both layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameAddresses {
    /// MAC of the sending device.
    pub src_mac: MacAddr,
    /// MAC of the next hop, or of the group (see [`super::group_mac`]).
    pub dst_mac: MacAddr,
    /// VLAN id of an 802.1Q tag to insert, 0 to 4094; 0 is a tag that carries
    /// only the priority.
    pub vlan: Option<u16>,
    /// Source address and port.
    pub local: SocketAddr,
    /// Destination address and port.
    pub remote: SocketAddr,
}

/// Why no frame can be built for these addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// One address is IPv4, the other IPv6.
    #[error(
        "cannot build frames from {local} to {remote}: one is IPv4 and one is IPv6; give a local \
         address of the remote's family"
    )]
    FamiliesDiffer {
        /// Source address.
        local: IpAddr,
        /// Destination address.
        remote: IpAddr,
    },
    /// The destination is the unspecified address or port 0.
    #[error(
        "cannot build frames to {remote}: it names no host or no port; give the receiver's \
         address and port"
    )]
    NoDestination {
        /// Destination address and port.
        remote: SocketAddr,
    },
    /// The VLAN id does not exist.
    #[error("cannot build frames with VLAN id {vlan}: ids go from 0 to 4094")]
    VlanId {
        /// The id that was asked for.
        vlan: u16,
    },
}

/// Ethernet, optional 802.1Q, IP and UDP headers for one target and next hop.
#[derive(Clone, Debug)]
pub struct HeaderTemplate {
    headers: [u8; HEADER_MAX_BYTES],
    /// Where the IP header begins.
    ip_at: usize,
    /// Where the UDP header begins.
    udp_at: usize,
    is_ipv6: bool,
    /// Sum of the IPv4 header with length, id and checksum 0.
    ip_sum: Sum,
    /// Sum of the pseudo header and the ports, without the lengths.
    udp_sum: Sum,
}

impl HeaderTemplate {
    /// Writes every field that does not change between datagrams.
    ///
    /// IPv4-mapped IPv6 addresses (`::ffff:192.0.2.1`) count as IPv4: they must
    /// not appear on the wire (RFC 4291, section 2.5.5.2).
    ///
    /// # Errors
    /// [`HeaderError`] if the addresses do not go together or do not exist.
    pub fn new(addresses: FrameAddresses) -> Result<Self, HeaderError> {
        let FrameAddresses { src_mac, dst_mac, vlan, local, remote } = addresses;
        if remote.ip().is_unspecified() || remote.port() == 0 {
            return Err(HeaderError::NoDestination { remote });
        }
        if let Some(vlan) = vlan.filter(|id| *id > VLAN_ID_MAX) {
            return Err(HeaderError::VlanId { vlan });
        }

        let ip_at = ETHERNET_HEADER_BYTES + if vlan.is_some() { VLAN_TAG_BYTES } else { 0 };
        let mut headers = [0; HEADER_MAX_BYTES];
        headers[..6].copy_from_slice(&dst_mac);
        headers[6..12].copy_from_slice(&src_mac);
        if let Some(vlan) = vlan {
            headers[12..14].copy_from_slice(&ETHERTYPE_VLAN.to_be_bytes());
            // Priority 0, not drop eligible.
            headers[14..16].copy_from_slice(&vlan.to_be_bytes());
        }

        let ip = &mut headers[ip_at..];
        let (ethertype, ip_bytes, address_sum) =
            match (local.ip().to_canonical(), remote.ip().to_canonical()) {
                (IpAddr::V4(from), IpAddr::V4(to)) => {
                    ip[0] = 0x45;
                    ip[8] = HOP_LIMIT;
                    ip[9] = IP_PROTOCOL_UDP;
                    ip[12..16].copy_from_slice(&from.octets());
                    ip[16..20].copy_from_slice(&to.octets());
                    (ETHERTYPE_IPV4, IPV4_HEADER_BYTES, Sum::default().bytes(&ip[12..20]))
                }
                (IpAddr::V6(from), IpAddr::V6(to)) => {
                    ip[0] = 0x60;
                    ip[6] = IP_PROTOCOL_UDP;
                    ip[7] = HOP_LIMIT;
                    ip[8..24].copy_from_slice(&from.octets());
                    ip[24..40].copy_from_slice(&to.octets());
                    (ETHERTYPE_IPV6, IPV6_HEADER_BYTES, Sum::default().bytes(&ip[8..40]))
                }
                (local, remote) => return Err(HeaderError::FamiliesDiffer { local, remote }),
            };
        headers[ip_at - 2..ip_at].copy_from_slice(&ethertype.to_be_bytes());

        let udp_at = ip_at + ip_bytes;
        headers[udp_at..udp_at + 2].copy_from_slice(&local.port().to_be_bytes());
        headers[udp_at + 2..udp_at + 4].copy_from_slice(&remote.port().to_be_bytes());
        Ok(Self {
            headers,
            ip_at,
            udp_at,
            is_ipv6: ethertype == ETHERTYPE_IPV6,
            ip_sum: Sum::default().bytes(&headers[ip_at..ip_at + IPV4_HEADER_BYTES]),
            udp_sum: address_sum
                .word(u16::from(IP_PROTOCOL_UDP))
                .word(local.port())
                .word(remote.port()),
        })
    }

    /// Bytes before the payload.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.udp_at + UDP_HEADER_BYTES
    }

    /// Bytes that the MTU counts of a frame with `payload_len` bytes of payload.
    #[must_use]
    pub fn packet_len(&self, payload_len: usize) -> usize {
        self.header_len() - self.ip_at + payload_len
    }

    /// Completes the frame whose payload already lies in
    /// `buf[header_len()..][..payload_len]`, and returns the frame's length in
    /// bytes. `ip_id` is the IPv4 identification; IPv6 has none.
    ///
    /// Where the frame does not fit `buf`, or the IP length field cannot hold
    /// the packet, nothing is written; the returned length is then over
    /// `buf.len()` or over 65535, and the egress refuses it as too long.
    pub fn write(&self, buf: &mut [u8], payload_len: usize, ip_id: u16) -> usize {
        let header_len = self.header_len();
        let total_len = header_len.saturating_add(payload_len);
        let ip_len = total_len - self.ip_at;
        let (Some(frame), Ok(ip_len)) = (buf.get_mut(..total_len), u16::try_from(ip_len)) else {
            return total_len;
        };
        frame[..header_len].copy_from_slice(&self.headers[..header_len]);

        // Cannot truncate: it is less than `ip_len`.
        let udp_len = (total_len - self.udp_at) as u16;
        let ip = &mut frame[self.ip_at..];
        if self.is_ipv6 {
            ip[4..6].copy_from_slice(&udp_len.to_be_bytes());
        } else {
            ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
            ip[4..6].copy_from_slice(&ip_id.to_be_bytes());
            ip[10..12].copy_from_slice(&self.ip_sum.word(ip_len).word(ip_id).finish());
        }

        let udp = &mut frame[self.udp_at..];
        udp[4..6].copy_from_slice(&udp_len.to_be_bytes());
        // The length counts twice: in the pseudo header and in the UDP header.
        let sum = self.udp_sum.word(udp_len).word(udp_len).bytes(&udp[UDP_HEADER_BYTES..]);
        let checksum = match sum.finish() {
            // RFC 768: "If the computed checksum is zero, it is transmitted as
            // all ones"; RFC 8200, section 8.1 says the same.
            [0, 0] => [0xff, 0xff],
            checksum => checksum,
        };
        udp[6..8].copy_from_slice(&checksum);
        total_len
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
