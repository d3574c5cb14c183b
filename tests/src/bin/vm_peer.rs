//! The other end of a test VM's network card (see `cargo xtask vm --last-words`): a host that
//! answers ARP and receives what is sent to netconsole's port and dumps to netoops', with the project's
//! own receiver.
//!
//! QEMU's `-netdev dgram` carries one Ethernet frame per datagram of a Unix socket. Each record
//! and each line without a header is told on standard output as one JSON object, as soon as the
//! receiver has it. It judges nothing, and it is no IP stack: it sends nothing but ARP replies
//! (RFC 826). A frame that is damaged is told, too: nothing on this network may send one.
//!
//! Arguments: its own socket, QEMU's socket, and `silent` if it must not answer ARP until the
//! line `answer` comes on standard input. It ends with its standard input.

use std::io::{self, ErrorKind, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use etherparse::{EtherType, Ipv4HeaderSlice, NetSlice, SlicedPacket, TransportSlice};
use netconsole_agent::netoops::{self, Assembled, Assembler, Outcome};
use netconsole_agent::receive::{Event, Receiver};
use serde_json::json;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
const MAC: [u8; 6] = [0x52, 0x55, 10, 0, 2, 2];
const PORT: u16 = 6666;
/// Larger than any frame of an MTU of 1500.
const FRAME_MAX_BYTES: usize = 4096;
const TICK: Duration = Duration::from_millis(20);

/// Behind the Ethernet header: Ethernet, IPv4, lengths of their addresses, request (RFC 826).
const ARP_REQUEST: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 1];
const ARP_REPLY: [u8; 8] = [0, 1, 8, 0, 6, 4, 0, 2];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (own, qemu, silent) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [own, qemu] => (own, qemu, false),
        [own, qemu, "silent"] => (own, qemu, true),
        _ => bail!("usage: vm_peer OWN-SOCKET QEMU-SOCKET [silent]"),
    };
    let socket = UnixDatagram::bind(own).with_context(|| format!("make the socket {own}"))?;
    socket.set_read_timeout(Some(TICK)).context("set the socket's timeout")?;
    let answering = Arc::new(AtomicBool::new(!silent));
    let over = Arc::new(AtomicBool::new(false));
    thread::spawn({
        let (answering, over) = (Arc::clone(&answering), Arc::clone(&over));
        move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                answering.fetch_or(line == "answer", Ordering::Relaxed);
            }
            over.store(true, Ordering::Relaxed);
        }
    });
    tell(&json!({"ready": true}))?;
    let start = Instant::now();
    let mut receiver = Receiver::new();
    let mut dumps = Assembler::new(netoops::Limits::default());
    let mut events = Vec::new();
    let mut frame = [0; FRAME_MAX_BYTES];
    while !over.load(Ordering::Relaxed) {
        match socket.recv(&mut frame) {
            Ok(length) => {
                let frame = &frame[..length];
                if let Some(reply) = arp_reply(frame) {
                    tell(&json!({"arp": answering.load(Ordering::Relaxed)}))?;
                    if answering.load(Ordering::Relaxed) {
                        // QEMU may be ending; its guest asks again.
                        drop(socket.send_to(&reply, qemu));
                    }
                }
                match datagram(frame) {
                    Ok(Some((source, PORT, payload))) => {
                        receiver.datagram(start.elapsed(), source, payload, &mut events);
                    }
                    Ok(Some((source, _, payload))) => {
                        match dumps.push(start.elapsed(), source, payload) {
                            Ok(Outcome::Complete(dump)) => tell_dump(&dump)?,
                            Ok(_) => {}
                            Err(error) => tell(&json!({"damaged": error.to_string()}))?,
                        }
                    }
                    Ok(None) => {}
                    Err(error) => tell(&json!({"damaged": format!("{error:#}")}))?,
                }
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error).context("receive a frame"),
        }
        while let Some(dump) = dumps.pop_incomplete(start.elapsed()) {
            tell_dump(&dump)?;
        }
        receiver.tick(start.elapsed(), &mut events);
        tell_all(&mut events)?;
    }
    while let Some(dump) = dumps.pop_incomplete(Duration::MAX) {
        tell_dump(&dump)?;
    }
    receiver.finish(&mut events);
    tell_all(&mut events)
}

fn tell_dump(dump: &Assembled<IpAddr>) -> Result<()> {
    tell(&json!({
        "dump": dump.kind.name(),
        "missing": dump.packet_count - dump.received,
        "text": String::from_utf8_lossy(&dump.text),
    }))
}

/// One line on standard output.
fn tell(fact: &serde_json::Value) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(format!("{fact}\n").as_bytes())
        .and_then(|()| out.flush())
        .context("tell what was received")
}

fn tell_all(events: &mut Vec<Event>) -> Result<()> {
    events.drain(..).try_for_each(|event| match event {
        Event::Record(_, record) => tell(&json!({
            "seq": record.seq,
            "ts_us": record.ts_us,
            "approximated": record.approximated,
            "missing_bytes": record.missing_bytes,
            "text": String::from_utf8_lossy(&record.text),
        })),
        Event::Plain(_, text) => tell(&json!({"plain": String::from_utf8_lossy(&text)})),
        Event::Restart(_) => tell(&json!({"restart": true})),
        // What is missing is judged by what was printed.
        Event::Gap { .. } => Ok(()),
    })
}

/// The answer to an ARP request for this host.
fn arp_reply(frame: &[u8]) -> Option<[u8; 42]> {
    let (ethernet, arp) = frame.split_at_checked(14)?;
    let asked = ethernet[12..] == EtherType::ARP.0.to_be_bytes()
        && arp.get(..8)? == ARP_REQUEST
        && arp.get(24..28)? == ADDRESS.octets();
    let (mac, address) = (arp.get(8..14)?, arp.get(14..18)?);
    let reply = [mac, &MAC, &ethernet[12..], &ARP_REPLY, &MAC, &ADDRESS.octets(), mac, address];
    asked.then(|| reply.concat().try_into().ok())?
}

/// Sender, port and payload of a UDP datagram to netconsole's or netoops' port, its checksums
/// verified. The MAC
/// it was sent to may be the broadcast one, which the kernel's netconsole uses by default.
fn datagram(frame: &[u8]) -> Result<Option<(IpAddr, u16, &[u8])>> {
    let packet = SlicedPacket::from_ethernet(frame).context("an unreadable frame")?;
    let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) = (packet.net, packet.transport)
    else {
        return Ok(None);
    };
    let header: Ipv4HeaderSlice<'_> = ip.header();
    let port = udp.destination_port();
    if header.destination_addr() != ADDRESS || ![PORT, netoops::PORT].contains(&port) {
        return Ok(None);
    }
    ensure!(
        header.to_header().calc_header_checksum() == header.header_checksum(),
        "wrong IP checksum"
    );
    let checksum = udp
        .to_header()
        .calc_checksum_ipv4_raw(header.source(), header.destination(), udp.payload())
        .context("too long a datagram")?;
    ensure!(checksum == udp.checksum(), "wrong UDP checksum");
    Ok(Some((header.source_addr().into(), port, udp.payload())))
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    const GUEST: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn request(address: [u8; 4]) -> Vec<u8> {
        let to_all = [0xff; 6];
        let own = [10, 0, 2, 15];
        let nobody = [0; 6];
        [&to_all[..], &GUEST, &[8, 6], &ARP_REQUEST, &GUEST, &own, &nobody, &address].concat()
    }

    #[test]
    fn answers_for_its_own_address_only() {
        let reply = arp_reply(&request([10, 0, 2, 2])).unwrap();
        assert_eq!(reply[..6], GUEST);
        assert_eq!(reply[20..22], [0, 2]);
        assert_eq!(reply[22..28], MAC);
        assert_eq!(reply[28..32], [10, 0, 2, 2]);
        assert_eq!(reply[38..], [10, 0, 2, 15]);
        assert!(arp_reply(&request([10, 0, 2, 3])).is_none());
        assert!(arp_reply(&request([10, 0, 2, 2])[..30]).is_none());
    }

    fn frame(port: u16) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2(GUEST, MAC)
            .ipv4([10, 0, 2, 15], [10, 0, 2, 2], 64)
            .udp(6665, port);
        let mut frame = Vec::new();
        builder.write(&mut frame, b"6,1,2,-;hello\n").unwrap();
        frame
    }

    #[test]
    fn takes_what_is_for_netconsole_or_netoops() {
        for port in [PORT, netoops::PORT] {
            let frame = frame(port);
            let taken = datagram(&frame).unwrap().unwrap();
            let source = IpAddr::from([10, 0, 2, 15]);
            assert_eq!(taken, (source, port, &b"6,1,2,-;hello\n"[..]));
        }
        assert!(datagram(&frame(53)).unwrap().is_none());
    }

    #[test]
    fn a_damaged_datagram_is_told() {
        for byte in [14 + 8, 14 + 20 + 8] {
            let mut frame = frame(PORT);
            frame[byte] ^= 1;
            let error = format!("{:#}", datagram(&frame).unwrap_err());
            assert!(error.contains("checksum"), "{error}");
        }
    }
}
