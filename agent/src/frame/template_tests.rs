//! Every frame is read back by two independent libraries.

use super::*;
use etherparse::{NetHeaders, PacketBuilder, PacketHeaders, TransportHeader, VlanId};
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire;
use std::net::{Ipv4Addr, Ipv6Addr};

fn any_addresses() -> impl Strategy<Value = FrameAddresses> {
    let ips = prop_oneof![
        (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        (any::<[u8; 16]>(), any::<[u8; 16]>())
            .prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
    ];
    (
        any::<[u8; 6]>(),
        any::<[u8; 6]>(),
        proptest::option::of(0..=VLAN_ID_MAX),
        ips,
        any::<u16>(),
        1u16..,
    )
        .prop_map(|(src_mac, dst_mac, vlan, (from, to), from_port, to_port)| FrameAddresses {
            src_mac,
            dst_mac,
            vlan,
            local: SocketAddr::new(from, from_port),
            remote: SocketAddr::new(to, to_port),
        })
}

fn frame(template: &HeaderTemplate, payload: &[u8], ip_id: u16) -> Vec<u8> {
    let mut buf = vec![0xa5; template.header_len() + payload.len() + 7];
    buf[template.header_len()..][..payload.len()].copy_from_slice(payload);
    let len = template.write(&mut buf, payload.len(), ip_id);
    assert!(buf[len..].iter().all(|b| *b == 0xa5), "wrote past the frame");
    buf.truncate(len);
    buf
}

/// The same frame by etherparse's builder.
fn by_etherparse(a: &FrameAddresses, payload: &[u8], ip_id: u16) -> Vec<u8> {
    let mut out = Vec::new();
    let ip_header = match (a.local.ip(), a.remote.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut ip = etherparse::Ipv4Header::new(
                0,
                HOP_LIMIT,
                etherparse::IpNumber::UDP,
                from.octets(),
                to.octets(),
            )
            .unwrap();
            ip.identification = ip_id;
            ip.dont_fragment = false;
            etherparse::IpHeaders::Ipv4(ip, Default::default())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => etherparse::IpHeaders::Ipv6(
            etherparse::Ipv6Header {
                hop_limit: HOP_LIMIT,
                source: from.octets(),
                destination: to.octets(),
                next_header: etherparse::IpNumber::UDP,
                ..Default::default()
            },
            Default::default(),
        ),
        _ => unreachable!(),
    };
    let ethernet = PacketBuilder::ethernet2(a.src_mac, a.dst_mac);
    match a.vlan {
        Some(id) => ethernet.single_vlan(VlanId::try_new(id).unwrap()).ip(ip_header),
        None => ethernet.ip(ip_header),
    }
    .udp(a.local.port(), a.remote.port())
    .write(&mut out, payload)
    .unwrap();
    out
}

fn check_with_smoltcp(a: &FrameAddresses, frame: &[u8], payload: &[u8], ip_id: u16) {
    let ethernet = wire::EthernetFrame::new_checked(frame).unwrap();
    assert_eq!(ethernet.src_addr().0, a.src_mac);
    assert_eq!(ethernet.dst_addr().0, a.dst_mac);
    // smoltcp reads no tags: look behind it.
    let (ethertype, packet) = match a.vlan {
        None => (ethernet.ethertype(), ethernet.payload()),
        Some(id) => {
            assert_eq!(u16::from(ethernet.ethertype()), ETHERTYPE_VLAN);
            let (tag, packet) = ethernet.payload().split_at(4);
            assert_eq!(u16::from_be_bytes([tag[0], tag[1]]), id);
            (u16::from_be_bytes([tag[2], tag[3]]).into(), packet)
        }
    };
    let (from, to, datagram) = match ethertype {
        wire::EthernetProtocol::Ipv4 => {
            let ip = wire::Ipv4Packet::new_checked(packet).unwrap();
            assert!(ip.verify_checksum());
            assert_eq!((ip.dscp(), ip.ecn(), ip.hop_limit()), (0, 0, HOP_LIMIT));
            assert_eq!((ip.dont_frag(), ip.more_frags(), ip.frag_offset()), (false, false, 0));
            assert_eq!(ip.ident(), ip_id);
            assert_eq!(ip.next_header(), wire::IpProtocol::Udp);
            (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()), &packet[20..])
        }
        wire::EthernetProtocol::Ipv6 => {
            let ip = wire::Ipv6Packet::new_checked(packet).unwrap();
            assert_eq!((ip.traffic_class(), ip.flow_label(), ip.hop_limit()), (0, 0, HOP_LIMIT));
            assert_eq!(ip.next_header(), wire::IpProtocol::Udp);
            (IpAddr::V6(ip.src_addr()), IpAddr::V6(ip.dst_addr()), &packet[40..])
        }
        other => panic!("ethertype {other}"),
    };
    assert_eq!((from, to), (a.local.ip(), a.remote.ip()));
    let udp = wire::UdpPacket::new_checked(datagram).unwrap();
    assert_ne!(udp.checksum(), 0, "a checksum of 0 means that there is none");
    assert!(udp.verify_checksum(&from.into(), &to.into()));
    let repr =
        wire::UdpRepr::parse(&udp, &from.into(), &to.into(), &ChecksumCapabilities::default())
            .unwrap();
    assert_eq!((repr.src_port, repr.dst_port), (a.local.port(), a.remote.port()));
    assert_eq!(udp.payload(), payload);
}

proptest! {
    #[test]
    fn two_libraries_agree(
        a in any_addresses(),
        payload in proptest::collection::vec(any::<u8>(), 0..1500),
        ip_id in any::<u16>(),
    ) {
        // The unspecified and the mapped address have tests of their own.
        prop_assume!(!a.remote.ip().is_unspecified());
        prop_assume!(a.remote.ip().to_canonical() == a.remote.ip());
        prop_assume!(a.local.ip().to_canonical() == a.local.ip());
        let template = HeaderTemplate::new(a).unwrap();
        let ours = frame(&template, &payload, ip_id);
        check_with_smoltcp(&a, &ours, &payload, ip_id);
        prop_assert_eq!(&ours, &by_etherparse(&a, &payload, ip_id));

        let read = PacketHeaders::from_ethernet_slice(&ours).unwrap();
        if let Some(NetHeaders::Ipv4(ip, _)) = &read.net {
            prop_assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        }
        let Some(TransportHeader::Udp(udp)) = read.transport else { panic!("not UDP") };
        prop_assert_eq!(usize::from(udp.length), payload.len() + 8);
        prop_assert_eq!(template.packet_len(payload.len()) + 14 + a.vlan.map_or(0, |_| 4), ours.len());
    }

    #[test]
    fn a_template_can_be_used_again(
        a in any_addresses(),
        payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 1..8),
    ) {
        prop_assume!(!a.remote.ip().is_unspecified());
        prop_assume!(a.remote.ip().to_canonical() == a.remote.ip());
        prop_assume!(a.local.ip().to_canonical() == a.local.ip());
        let template = HeaderTemplate::new(a).unwrap();
        let mut buf = [0; 256];
        for (id, payload) in payloads.iter().enumerate() {
            // The last frame still lies in the buffer.
            buf[template.header_len()..][..payload.len()].copy_from_slice(payload);
            let len = template.write(&mut buf, payload.len(), id as u16);
            check_with_smoltcp(&a, &buf[..len], payload, id as u16);
        }
    }
}

fn v4() -> FrameAddresses {
    FrameAddresses {
        src_mac: [2, 0, 0, 0, 0, 1],
        dst_mac: [2, 0, 0, 0, 0, 2],
        vlan: None,
        local: "192.0.2.1:6665".parse().unwrap(),
        remote: "192.0.2.2:6666".parse().unwrap(),
    }
}

#[test]
fn a_zero_checksum_is_sent_as_all_ones() {
    for (local, remote) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2")] {
        let mut a = v4();
        a.local.set_ip(local.parse().unwrap());
        a.remote.set_ip(remote.parse().unwrap());
        let template = HeaderTemplate::new(a).unwrap();
        let at = template.header_len() - 2;
        let plain = frame(&template, &[0, 0], 0);
        // Adding the checksum to the message makes the sum all ones.
        let payload = [plain[at], plain[at + 1]];
        let zero = frame(&template, &payload, 0);
        assert_eq!(zero[at..at + 2], [0xff, 0xff]);
        check_with_smoltcp(&a, &zero, &payload, 0);
    }
}

#[test]
fn what_does_not_fit_is_not_written() {
    let template = HeaderTemplate::new(v4()).unwrap();
    let mut buf = [0xa5; 100];
    assert_eq!(template.write(&mut buf, 59, 1), 101);
    assert_eq!(buf, [0xa5; 100]);
    let mut large = vec![0xa5; 70_000];
    assert_eq!(template.write(&mut large, 65_508, 1), 65_550);
    assert!(large.iter().all(|b| *b == 0xa5));
    // The largest that fits the IP length field.
    assert_eq!(template.write(&mut large, 65_507, 1), 65_549);
    check_with_smoltcp(&v4(), &large[..65_549], &[0xa5; 65_507], 1);
    assert_eq!(template.write(&mut large, usize::MAX, 1), usize::MAX);
}

#[test]
fn addresses_that_do_not_go_together_are_refused() {
    let mut a = v4();
    a.local.set_ip(Ipv6Addr::LOCALHOST.into());
    assert!(matches!(HeaderTemplate::new(a), Err(HeaderError::FamiliesDiffer { .. })));
    let mut a = v4();
    a.remote.set_ip(Ipv4Addr::UNSPECIFIED.into());
    assert!(matches!(HeaderTemplate::new(a), Err(HeaderError::NoDestination { .. })));
    let mut a = v4();
    a.remote.set_port(0);
    assert!(matches!(HeaderTemplate::new(a), Err(HeaderError::NoDestination { .. })));
    let mut a = v4();
    a.vlan = Some(4095);
    assert_eq!(HeaderTemplate::new(a).unwrap_err(), HeaderError::VlanId { vlan: 4095 });
}

#[test]
fn mapped_addresses_leave_as_ipv4() {
    let mut a = v4();
    a.local.set_ip("::ffff:192.0.2.1".parse().unwrap());
    a.remote.set_ip("::ffff:192.0.2.2".parse().unwrap());
    let template = HeaderTemplate::new(a).unwrap();
    assert_eq!(frame(&template, b"x", 7), frame(&HeaderTemplate::new(v4()).unwrap(), b"x", 7));
}

#[test]
fn the_mtu_does_not_count_ethernet_and_tag() {
    let template = HeaderTemplate::new(v4()).unwrap();
    assert_eq!(super::super::frame_limit_bytes(&frame(&template, b"x", 0), 1500), 1514);
    let tagged = HeaderTemplate::new(FrameAddresses { vlan: Some(5), ..v4() }).unwrap();
    assert_eq!(super::super::frame_limit_bytes(&frame(&tagged, b"x", 0), 1500), 1518);
}

/// A frame that netconsole of Linux 7.2.12 (Debian) sent, captured outside of
/// the guest.
#[test]
fn equals_a_frame_of_the_kernel() {
    let captured = b"\x52\x54\x00\xaa\xbb\x01\x52\x54\x00\xaa\xbb\x0f\x08\x00\
        \x45\x00\x00\x2c\x00\x4e\x00\x00\x40\x11\x62\x63\x0a\x00\x02\x0f\x0a\x00\x02\x02\
        \x1a\x09\x1a\x05\x00\x18\x28\x2a[    6.060477] \n";
    let template = HeaderTemplate::new(FrameAddresses {
        src_mac: [0x52, 0x54, 0x00, 0xaa, 0xbb, 0x0f],
        dst_mac: [0x52, 0x54, 0x00, 0xaa, 0xbb, 0x01],
        vlan: None,
        local: "10.0.2.15:6665".parse().unwrap(),
        remote: "10.0.2.2:6661".parse().unwrap(),
    })
    .unwrap();
    assert_eq!(frame(&template, b"[    6.060477] \n", 0x4e), captured);
}
