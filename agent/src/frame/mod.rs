//! Ethernet frames around a UDP payload, built from a template.
//!
//! One [`HeaderTemplate`] holds everything that stays the same between two
//! datagrams of a target: Ethernet (RFC 894, RFC 2464), an optional 802.1Q tag
//! (IEEE 802.1Q-2022, 9.6), IPv4 (RFC 791) or IPv6 (RFC 8200) and UDP (RFC 768).
//! Per datagram only lengths, the IPv4 id and the checksums are written. The
//! fields have the values that the kernel's netconsole gives them
//! (`net/core/netpoll.c`, `netpoll_send_udp`): no type of service, no DF, the
//! UDP checksum always filled in.
//!
//! It is *not* a packet parser, and it neither resolves addresses nor knows
//! MTUs: `net` finds the addresses, the egress checks lengths.

mod checksum;
mod mac;
mod template;

pub use checksum::internet_checksum;
pub use mac::{BROADCAST_MAC, MacAddr, group_mac, mac_text};
pub use template::{FrameAddresses, HEADER_MAX_BYTES, HeaderError, HeaderTemplate};

/// Bytes of an Ethernet header without a tag.
pub const ETHERNET_HEADER_BYTES: usize = 14;
/// Bytes that an 802.1Q tag adds.
pub const VLAN_TAG_BYTES: usize = 4;

/// Longest frame of this kind that a device carries, in bytes: the MTU counts
/// neither the Ethernet header nor an 802.1Q tag.
#[must_use]
pub fn frame_limit_bytes(frame: &[u8], mtu_bytes: usize) -> usize {
    let tagged = frame.get(12..14) == Some(&template::ETHERTYPE_VLAN.to_be_bytes());
    ETHERNET_HEADER_BYTES + mtu_bytes + if tagged { VLAN_TAG_BYTES } else { 0 }
}
