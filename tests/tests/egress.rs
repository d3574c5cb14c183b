//! The ways out over a veth pair between two network namespaces.
//!
//! What leaves `left0` is looked at in the other namespace: on a packet socket
//! where bytes matter, on a UDP socket where the kernel's own opinion does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail there")]

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use agent_tests::netns::{
    LEFT_MAC, LEFT_V4, MTU_BYTES, Pair, RIGHT_MAC, RIGHT_V4, root_or_skip, xdp_or_skip,
};
use netconsole_agent::egress::packet::{self, PacketOptions};
use netconsole_agent::egress::udp::{self, UdpOptions};
use netconsole_agent::egress::xdp::{self, XdpOptions};
use netconsole_agent::egress::{Egress, EgressKind, Outcome, PushError, Tag};
use netconsole_agent::frame::{FrameAddresses, HeaderTemplate};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};
use rustix::system::uname;

const PATIENCE: Duration = Duration::from_secs(5);
/// Enough for everything that a test sends.
const RECEIVE_BUFFER_BYTES: usize = 64 << 20;

fn template(local: &str, remote: &str) -> HeaderTemplate {
    HeaderTemplate::new(FrameAddresses {
        src_mac: LEFT_MAC,
        dst_mac: RIGHT_MAC,
        vlan: None,
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
    })
    .unwrap()
}

fn v4_template(port: u16) -> HeaderTemplate {
    template(&format!("{LEFT_V4}:6665"), &format!("{RIGHT_V4}:{port}"))
}

fn xdp_options(pair: &Pair, frames: u32) -> XdpOptions {
    let ifindex = pair.left.ifindex("left0");
    XdpOptions { frames, ..XdpOptions::new(ifindex, "left0") }
}

fn open_xdp(pair: &Pair, frames: u32) -> Box<dyn Egress> {
    let options = xdp_options(pair, frames);
    pair.left.run(|| xdp::open(&options)).unwrap()
}

fn open_packet(pair: &Pair) -> Box<dyn Egress> {
    let options = PacketOptions::new(pair.left.ifindex("left0"), "left0");
    pair.left.run(|| packet::open(&options)).unwrap()
}

/// Both kinds that send whole frames.
fn frame_senders(pair: &Pair) -> [Box<dyn Egress>; 2] {
    [open_xdp(pair, 64), open_packet(pair)]
}

/// Pushes one datagram and returns the frame.
fn push(
    egress: &mut dyn Egress,
    template: &HeaderTemplate,
    tag: u64,
    payload: &[u8],
) -> Result<Vec<u8>, PushError> {
    let mut frame = Vec::new();
    egress.push(Tag(tag), MTU_BYTES, &mut |slot| {
        let at = template.header_len();
        slot[at..][..payload.len()].copy_from_slice(payload);
        let len = template.write(slot, payload.len(), tag as u16);
        frame = slot[..len].to_vec();
        len
    })?;
    Ok(frame)
}

fn reap(egress: &mut dyn Egress) -> Vec<(u64, Outcome)> {
    let mut told = Vec::new();
    egress.reap(&mut |tag, outcome| told.push((tag.0, outcome)));
    told
}

/// Flushes until everything was told, and returns it.
fn drain(egress: &mut dyn Egress) -> Vec<(u64, Outcome)> {
    let begin = Instant::now();
    let mut told = Vec::new();
    while egress.queued() > 0 {
        egress.flush().unwrap();
        told.extend(reap(egress));
        assert!(begin.elapsed() < PATIENCE, "{} still queued", egress.queued());
    }
    told
}

/// A UDP socket on the right.
fn receiver(pair: &Pair, local: &str) -> UdpSocket {
    pair.right.run(|| {
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).unwrap();
        socket
    })
}

/// A packet socket on the right that sees every frame.
struct Wire(OwnedFd);

impl Wire {
    fn of(pair: &Pair) -> Self {
        const ETH_P_ALL: u16 = 3;
        pair.right.run(|| {
            let protocol = Protocol::from_raw(u32::from(ETH_P_ALL.to_be()).try_into().unwrap());
            let flags = SocketFlags::CLOEXEC;
            let fd =
                socket_with(AddressFamily::PACKET, SocketType::RAW, flags, Some(protocol)).unwrap();
            set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE)).unwrap();
            set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER_BYTES).unwrap();
            Self(fd)
        })
    }

    /// The next frame that carries UDP from the port of these tests; the
    /// kernel sends frames of its own.
    fn next_frame(&self) -> Vec<u8> {
        let begin = Instant::now();
        let mut buf = vec![0; 4096];
        while begin.elapsed() < PATIENCE {
            let (len, _) = recv(&self.0, &mut buf[..], RecvFlags::empty()).unwrap();
            let ports_at = if buf[12..14] == [0x86, 0xdd] { 54 } else { 34 };
            if len > ports_at && buf[ports_at..ports_at + 2] == 6665u16.to_be_bytes() {
                return buf[..len].to_vec();
            }
        }
        panic!("no frame");
    }
}

#[test]
fn the_bytes_at_the_other_end_are_those_that_were_pushed() {
    if !xdp_or_skip("the_bytes_at_the_other_end_are_those_that_were_pushed") {
        return;
    }
    let pair = Pair::new();
    let wire = Wire::of(&pair);
    for mut egress in frame_senders(&pair) {
        let templates = [v4_template(6666), template("[2001:db8::1]:6665", "[2001:db8::2]:6666")];
        for template in &templates {
            let longest = MTU_BYTES as usize - template.packet_len(0);
            for (tag, len) in [0, 1, 17, 18, 999, 1000, longest].into_iter().enumerate() {
                let payload: Vec<u8> = (0..len).map(|at| (at * 7 + tag) as u8).collect();
                let frame = push(&mut *egress, template, tag as u64, &payload).unwrap();
                assert_eq!(drain(&mut *egress), [(tag as u64, Outcome::Sent)]);
                assert_eq!(wire.next_frame(), frame, "{:?}, {len} bytes", egress.kind());
            }
        }
    }
}

#[test]
fn the_receiving_kernel_accepts_every_kind() {
    if !xdp_or_skip("the_receiving_kernel_accepts_every_kind") {
        return;
    }
    let pair = Pair::new();
    let v4 = receiver(&pair, &format!("{RIGHT_V4}:6666"));
    let v6 = receiver(&pair, "[2001:db8::2]:6666");
    let open_udp = |local: &str, remote: SocketAddr| {
        let options = UdpOptions {
            local: Some(local.parse().unwrap()),
            device: Some("left0".into()),
            ..UdpOptions::new(remote)
        };
        pair.left.run(|| udp::open(&options)).unwrap()
    };
    for (socket, local) in [(&v4, "192.0.2.1:6665"), (&v6, "[2001:db8::1]:6665")] {
        let remote = socket.local_addr().unwrap();
        let template = template(local, &remote.to_string());
        for mut egress in [open_xdp(&pair, 64), open_packet(&pair), open_udp(local, remote)] {
            let payload = format!("over {}", egress.kind().name());
            if egress.kind() == EgressKind::Udp {
                egress
                    .push(Tag(1), MTU_BYTES, &mut |slot| {
                        slot[..payload.len()].copy_from_slice(payload.as_bytes());
                        payload.len()
                    })
                    .unwrap();
            } else {
                push(&mut *egress, &template, 1, payload.as_bytes()).unwrap();
            }
            assert_eq!(drain(&mut *egress), [(1, Outcome::Sent)]);
            let mut buf = [0; 100];
            let (len, from) = socket.recv_from(&mut buf).unwrap();
            assert_eq!(std::str::from_utf8(&buf[..len]).unwrap(), payload);
            assert_eq!(from, local.parse().unwrap());
        }
    }
}

#[test]
fn ten_thousand_frames_of_two_targets_all_arrive() {
    if !xdp_or_skip("ten_thousand_frames_of_two_targets_all_arrive") {
        return;
    }
    const FRAMES: u32 = 100;
    const DATAGRAMS: u64 = 10_000;
    let pair = Pair::new();
    let receivers = [6666, 6667].map(|port| receiver(&pair, &format!("{RIGHT_V4}:{port}")));
    let templates = [v4_template(6666), v4_template(6667)];
    let mut egress = open_xdp(&pair, FRAMES);
    // An uneven mix, so that neither target has every other frame.
    let target_of = |number: u64| usize::from(number % 5 < 2);

    let (mut pushed, mut told) = (0, Vec::new());
    let begin = Instant::now();
    while (told.len() as u64) < DATAGRAMS {
        assert!(begin.elapsed() < 4 * PATIENCE, "{} of {DATAGRAMS} told", told.len());
        while pushed < DATAGRAMS {
            let template = &templates[target_of(pushed)];
            match push(&mut *egress, template, pushed, &pushed.to_le_bytes()) {
                Ok(_) => pushed += 1,
                Err(PushError::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
        egress.flush().unwrap();
        told.extend(reap(&mut *egress));
    }
    let expected: Vec<_> = (0..DATAGRAMS).map(|tag| (tag, Outcome::Sent)).collect();
    assert_eq!(told, expected);

    let mut buf = [0; 100];
    for number in 0..DATAGRAMS {
        let len = receivers[target_of(number)].recv(&mut buf).unwrap();
        assert_eq!(buf[..len], number.to_le_bytes());
    }

    // Every frame came home: as many as there are fit in again.
    assert_eq!(egress.queued(), 0);
    for tag in 0..u64::from(FRAMES) {
        push(&mut *egress, &templates[0], tag, b"again").unwrap();
    }
    assert!(matches!(push(&mut *egress, &templates[0], 0, b"x"), Err(PushError::Full)));
    assert_eq!(drain(&mut *egress).len(), FRAMES as usize);
}

#[test]
fn frames_wait_while_the_device_is_down() {
    if !xdp_or_skip("frames_wait_while_the_device_is_down") {
        return;
    }
    let pair = Pair::new();
    let socket = receiver(&pair, &format!("{RIGHT_V4}:6666"));
    for mut egress in frame_senders(&pair) {
        pair.left.ip("link set left0 down");
        for tag in 0..5 {
            push(&mut *egress, &v4_template(6666), tag, &[tag as u8]).unwrap();
        }
        for _ in 0..3 {
            let error = egress.flush().unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::NETDOWN), "{error}");
            assert_eq!((reap(&mut *egress), egress.queued()), (vec![], 5));
        }
        pair.left.ip("link set left0 up");
        assert_eq!(drain(&mut *egress), [0, 1, 2, 3, 4].map(|tag| (tag, Outcome::Sent)));
        let mut buf = [0; 10];
        for tag in 0..5 {
            assert_eq!(socket.recv(&mut buf).unwrap(), 1);
            assert_eq!(buf[0], tag);
        }
    }
}

#[test]
fn a_deleted_device_is_reported_and_what_was_queued_is_told_unsent() {
    if !xdp_or_skip("a_deleted_device_is_reported_and_what_was_queued_is_told_unsent") {
        return;
    }
    for kind in [EgressKind::Xdp, EgressKind::Packet] {
        let pair = Pair::new();
        let [xdp, packet] = frame_senders(&pair);
        let mut egress = if kind == EgressKind::Xdp { xdp } else { packet };
        push(&mut *egress, &v4_template(6666), 1, b"before").unwrap();
        assert_eq!(drain(&mut *egress), [(1, Outcome::Sent)]);
        push(&mut *egress, &v4_template(6666), 2, b"pushed before").unwrap();
        pair.left.ip("link del left0");
        push(&mut *egress, &v4_template(6666), 3, b"pushed after").unwrap();
        for _ in 0..3 {
            let error = egress.flush().unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::NXIO), "{kind:?}: {error}");
            assert_eq!((reap(&mut *egress), egress.queued()), (vec![], 2));
        }
        let mut unsent = Vec::new();
        egress.abandon(&mut |tag, outcome| unsent.push((tag.0, outcome)));
        assert_eq!((unsent, egress.queued()), (vec![(2, None), (3, None)], 0));
    }
}

/// The driver drops at once: the kernel consumed the descriptor, and nothing
/// left.
#[test]
fn frames_that_the_driver_drops_are_not_told_as_sent() {
    if !xdp_or_skip("frames_that_the_driver_drops_are_not_told_as_sent") {
        return;
    }
    let pair = Pair::new();
    let mut egress = open_xdp(&pair, 64);
    // Without the other end there is no carrier.
    pair.right.ip("link set right0 down");
    for tag in 0..40 {
        push(&mut *egress, &v4_template(6666), tag, b"into the void").unwrap();
    }
    let expected: Vec<_> = (0..40).map(|tag| (tag, Outcome::Dropped)).collect();
    assert_eq!(drain(&mut *egress), expected);
    pair.right.ip("link set right0 up");
    push(&mut *egress, &v4_template(6666), 40, b"and on").unwrap();
    assert_eq!(drain(&mut *egress), [(40, Outcome::Sent)]);
}

#[test]
fn a_device_may_be_renamed_while_in_use() {
    if !xdp_or_skip("a_device_may_be_renamed_while_in_use") {
        return;
    }
    let pair = Pair::new();
    let socket = receiver(&pair, &format!("{RIGHT_V4}:6666"));
    let mut senders = frame_senders(&pair);
    // Linux 6.1 renames only what is down.
    pair.left.ip("link set left0 down");
    pair.left.ip("link set left0 name renamed0 up");
    for egress in &mut senders {
        push(&mut **egress, &v4_template(6666), 1, b"x").unwrap();
        assert_eq!(drain(&mut **egress), [(1, Outcome::Sent)]);
        assert_eq!(socket.recv(&mut [0; 10]).unwrap(), 1);
    }
}

#[test]
fn lengths_that_the_device_does_not_carry_are_refused() {
    if !xdp_or_skip("lengths_that_the_device_does_not_carry_are_refused") {
        return;
    }
    let pair = Pair::new();
    for mut egress in frame_senders(&pair) {
        let template = v4_template(6666);
        let longest = MTU_BYTES as usize - template.packet_len(0);
        let error = push(&mut *egress, &template, 1, &vec![0; longest + 1]).unwrap_err();
        assert!(
            matches!(error, PushError::TooLong { len_bytes: 1515, limit_bytes: 1514 }),
            "{error}"
        );
        let slot_bytes = egress.slot_bytes();
        let over = egress.push(Tag(1), MTU_BYTES, &mut |slot| slot.len() + 1).unwrap_err();
        assert!(
            matches!(over, PushError::TooLong { len_bytes, .. } if len_bytes == slot_bytes + 1)
        );
        let short = egress.push(Tag(1), MTU_BYTES, &mut |_| 13).unwrap_err();
        assert!(matches!(short, PushError::TooShort { len_bytes: 13, limit_bytes: 14 }));
        assert_eq!(egress.queued(), 0);
        // An 802.1Q tag is not counted by the MTU.
        egress
            .push(Tag(2), MTU_BYTES, &mut |slot| {
                slot[..12].copy_from_slice(&[RIGHT_MAC, LEFT_MAC].concat());
                slot[12..18].copy_from_slice(&[0x81, 0, 0, 5, 0x08, 0]);
                1518
            })
            .unwrap();
        assert_eq!(drain(&mut *egress), [(2, Outcome::Sent)]);
    }
}

#[test]
fn a_queue_can_be_opened_again_at_once_but_not_twice() {
    if !xdp_or_skip("a_queue_can_be_opened_again_at_once_but_not_twice") {
        return;
    }
    let pair = Pair::new();
    for round in 0..5 {
        // Released only after a grace period: the opener waits.
        let mut egress = open_xdp(&pair, 16);
        push(&mut *egress, &v4_template(6666), round, b"x").unwrap();
        assert_eq!(drain(&mut *egress), [(round, Outcome::Sent)]);
    }
    let _holder = open_xdp(&pair, 16);
    let options = xdp_options(&pair, 16);
    let begin = Instant::now();
    let error = pair.left.run(|| xdp::open(&options)).err().unwrap();
    assert_eq!(error.errno(), Some(Errno::BUSY));
    assert!((150..1000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());
    assert!(error.to_string().starts_with("cannot bind for AF_XDP on left0 queue 0: "), "{error}");
}

#[test]
fn a_kernel_that_would_crash_is_not_touched() {
    let test = "a_kernel_that_would_crash_is_not_touched";
    if xdp::kernel_defect(&uname().release().to_string_lossy()).is_none() {
        println!("SKIPPED: {test}: this kernel does not");
        return;
    }
    if !root_or_skip(test) {
        return;
    }
    let pair = Pair::new();
    let options = xdp_options(&pair, 16);
    let error = pair.left.run(|| xdp::open(&options)).err().unwrap();
    assert_eq!(error.errno(), Some(Errno::OPNOTSUPP), "{error}");
    assert!(error.remedy.contains("egress = \"packet\""), "{error}");
    // Which does work there.
    let mut egress = open_packet(&pair);
    push(&mut *egress, &v4_template(6666), 1, b"x").unwrap();
    assert_eq!(drain(&mut *egress), [(1, Outcome::Sent)]);
}

#[test]
fn openers_say_what_is_wrong() {
    if !xdp_or_skip("openers_say_what_is_wrong") {
        return;
    }
    let pair = Pair::new();
    let good = xdp_options(&pair, 16);
    let cases = [
        (XdpOptions { queue: 99, ..good.clone() }, Errno::INVAL, "the device has no such queue"),
        (XdpOptions { ifindex: 4242, ..good.clone() }, Errno::NODEV, "the device is gone"),
        (XdpOptions { frames: 0, ..good.clone() }, Errno::INVAL, "give 1 to 32768 frames"),
    ];
    for (options, errno, remedy) in cases {
        let error = pair.left.run(|| xdp::open(&options)).err().unwrap();
        assert_eq!(error.errno(), Some(errno), "{error}");
        assert!(error.remedy.contains(remedy), "{error}");
    }
    let options = PacketOptions::new(4242, "gone0");
    let error = pair.left.run(|| packet::open(&options)).err().unwrap();
    assert_eq!(error.errno(), Some(Errno::NODEV));
    let remote = SocketAddr::from((RIGHT_V4, 6666));
    let options = UdpOptions { device: Some("gone0".into()), ..UdpOptions::new(remote) };
    let error = pair.left.run(|| udp::open(&options)).err().unwrap();
    assert_eq!(error.errno(), Some(Errno::NODEV));
}
