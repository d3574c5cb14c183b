//! The UDP datagrams in a capture, with the checks every sent frame must pass.
//!
//! Reads the classic pcap format (little-endian, microseconds, Ethernet) that
//! QEMU's `filter-dump` writes, and nothing else.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail, ensure};

const PCAP_MAGIC: u32 = 0xa1b2_c3d4;
const LINKTYPE_ETHERNET: u32 = 1;
const ETHERTYPE_IPV4: u16 = 0x0800;
const PROTOCOL_UDP: u8 = 17;

/// A UDP datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination_port: u16,
    pub(crate) destination_mac: [u8; 6],
    pub(crate) payload: Vec<u8>,
}

/// The UDP datagrams over IPv4 in the capture `file`, in order.
///
/// # Errors
/// A file that is no such capture, or a frame whose lengths or checksums are
/// wrong: nothing on the VM's network may send one.
pub(crate) fn datagrams(file: &[u8]) -> Result<Vec<Datagram>> {
    ensure!(u32_at(file, 0) == Some(PCAP_MAGIC), "not a little-endian pcap file");
    ensure!(u32_at(file, 20) == Some(LINKTYPE_ETHERNET), "not a capture of Ethernet frames");
    let mut rest = &file[24..];
    let mut found = Vec::new();
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let length = u32_at(rest, 8).map(|length| length as usize);
        // A VM that was stopped hard may leave half a frame at the end.
        let Some(frame) = length.and_then(|length| rest.get(16..16 + length)) else { break };
        rest = &rest[16 + frame.len()..];
        found.extend(datagram(frame).with_context(|| format!("frame {number}"))?);
    }
    Ok(found)
}

fn datagram(frame: &[u8]) -> Result<Option<Datagram>> {
    let Some((ethernet, ip)) = frame.split_at_checked(14) else {
        bail!("{} bytes are too short for Ethernet", frame.len())
    };
    if u16_at(ethernet, 12) != Some(ETHERTYPE_IPV4) || ip.get(9) != Some(&PROTOCOL_UDP) {
        return Ok(None);
    }
    let destination_mac = ethernet.first_chunk().copied().context("no destination address")?;
    let header_bytes = usize::from(ip[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16_at(ip, 2).context("no total length")?);
    // Behind it may be the padding of a short Ethernet frame.
    let ip = ip.get(..total_bytes).context("the IP packet is cut off")?;
    let (header, udp) = ip.split_at_checked(header_bytes).context("the IP header is cut off")?;
    ensure!(header.len() >= 20 && ones_complement(&[header]) == 0xffff, "wrong IP checksum");
    ensure!(u16_at(udp, 4).map(usize::from) == Some(udp.len()), "wrong UDP length");
    let pseudo = [&header[12..20], &[0, PROTOCOL_UDP], &udp[4..6]].concat();
    // 0 is "no checksum", which netconsole never sends.
    ensure!(u16_at(udp, 6) != Some(0), "no UDP checksum");
    ensure!(ones_complement(&[&pseudo, udp]) == 0xffff, "wrong UDP checksum");
    Ok(Some(Datagram {
        source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
        destination_port: u16_at(udp, 2).context("no destination port")?,
        destination_mac,
        payload: udp.get(8..).context("the UDP header is cut off")?.to_vec(),
    }))
}

/// The ones' complement sum of 16-bit words; every part but the last is even.
fn ones_complement(parts: &[&[u8]]) -> u16 {
    let mut sum: u32 = 0;
    for part in parts {
        for word in part.chunks(2) {
            sum += u32::from(word[0]) << 8 | u32::from(word.get(1).copied().unwrap_or(0));
        }
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let udp_bytes = u16::try_from(8 + payload.len()).unwrap();
        let mut udp = [6665_u16, 6666, udp_bytes, 0].map(u16::to_be_bytes).concat();
        udp.extend_from_slice(payload);
        let mut ip = vec![0x45, 0];
        ip.extend_from_slice(&(20 + udp_bytes).to_be_bytes());
        ip.extend_from_slice(&[0, 1, 0, 0, 64, PROTOCOL_UDP, 0, 0, 10, 0, 2, 15, 10, 0, 2, 2]);
        let pseudo = [&ip[12..20], &[0, PROTOCOL_UDP], &udp[4..6]].concat();
        let check = !ones_complement(&[&pseudo, &udp]);
        udp[6..8].copy_from_slice(&check.to_be_bytes());
        let check = !ones_complement(&[&ip]);
        ip[10..12].copy_from_slice(&check.to_be_bytes());
        [&[0x52, 0x55, 10, 0, 2, 2, 2, 0, 0, 0, 0, 1, 8, 0][..], &ip, &udp, &[0, 0]].concat()
    }

    fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = [PCAP_MAGIC, 0x0004_0002, 0, 0, 65535, 1].map(u32::to_le_bytes).concat();
        for frame in frames {
            let length = u32::try_from(frame.len()).unwrap();
            file.extend([7, 8, length, length].map(u32::to_le_bytes).concat());
            file.extend_from_slice(frame);
        }
        file
    }

    #[test]
    fn reads_datagrams_and_leaves_other_frames_out() {
        let mut arp = frame(b"");
        arp[12..14].copy_from_slice(&[8, 6]);
        let found = datagrams(&pcap(&[frame(b"odd"), arp, frame(b"even")])).unwrap();
        let payloads: Vec<&[u8]> = found.iter().map(|found| found.payload.as_slice()).collect();
        assert_eq!(payloads, [&b"odd"[..], b"even"]);
        assert_eq!(found[0].source, Ipv4Addr::new(10, 0, 2, 15));
        assert_eq!(found[0].destination_port, 6666);
        assert_eq!(found[0].destination_mac, [0x52, 0x55, 10, 0, 2, 2]);
    }

    #[test]
    fn a_damaged_frame_is_an_error() {
        for byte in [24 + 16 + 14 + 8, 24 + 16 + 14 + 20 + 9] {
            let mut file = pcap(&[frame(b"payload")]);
            file[byte] ^= 1;
            let error = format!("{:#}", datagrams(&file).unwrap_err());
            assert!(error.contains("checksum"), "{error}");
        }
    }

    #[test]
    fn half_a_frame_at_the_end_is_left_out() {
        let mut file = pcap(&[frame(b"a"), frame(b"b")]);
        file.truncate(file.len() - 3);
        assert_eq!(datagrams(&file).unwrap().len(), 1);
    }
}
