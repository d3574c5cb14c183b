//! A capture of what arrives at the devices of a namespace, before any IP stack: frames
//! to wrong MAC addresses are seen as well. The times are the kernel's.
//!
//! An AF_PACKET socket of all devices (packet(7)), so that it outlives each of them. What
//! leaves the namespace is left out, and so is what a bridge passes on to itself.

use std::{
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use netconsole_agent::netconsole::decode::{parse_header, split_body};
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol,
            SockType, recvmsg, setsockopt, socket, sockopt,
        },
        time::{TimeSpec, TimeVal},
    },
};
use std::io::IoSliceMut;

use crate::{netns::Namespace, stream::is_notice};

const BUFFER_BYTES: usize = 256 << 20;
/// `PACKET_HOST` and `PACKET_OUTGOING` (`include/uapi/linux/if_packet.h`).
const TO_US: u8 = 0;
const OUTGOING: u8 = 4;

/// One UDP datagram, as it came by.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When it arrived at the device.
    pub at: Instant,
    /// Index of the device.
    pub ifindex: usize,
    /// Whether the destination MAC is that of the device.
    pub to_us: bool,
    /// Destination MAC.
    pub dst_mac: [u8; 6],
    /// Source MAC.
    pub src_mac: [u8; 6],
    /// Source address and port.
    pub from: SocketAddr,
    /// Destination address and port.
    pub to: SocketAddr,
    /// What UDP carries.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads Ethernet, IP and UDP headers; none of anything else or of a fragment.
    fn parse(at: Instant, device: LinkAddr, frame: &'a [u8]) -> Option<Self> {
        let mac = |at: usize| -> Option<[u8; 6]> { frame.get(at..at + 6)?.try_into().ok() };
        let ethertype = u16::from_be_bytes(frame.get(12..14)?.try_into().ok()?);
        let ip = frame.get(14..)?;
        let (from, to, udp): (IpAddr, IpAddr, &[u8]) = match ethertype {
            0x0800 if *ip.get(9)? == 17 && ip[6] & 0x3f == 0 && ip[7] == 0 => {
                let address =
                    |at: usize| -> Option<[u8; 4]> { ip.get(at..at + 4)?.try_into().ok() };
                let header_bytes = usize::from(ip[0] & 15) * 4;
                (address(12)?.into(), address(16)?.into(), ip.get(header_bytes..)?)
            }
            0x86dd if *ip.get(6)? == 17 => {
                let address =
                    |at: usize| -> Option<[u8; 16]> { ip.get(at..at + 16)?.try_into().ok() };
                (address(8)?.into(), address(24)?.into(), ip.get(40..)?)
            }
            _ => return None,
        };
        let word = |at: usize| -> Option<u16> {
            Some(u16::from_be_bytes(udp.get(at..at + 2)?.try_into().ok()?))
        };
        Some(Self {
            at,
            ifindex: device.ifindex(),
            to_us: device.pkttype() == TO_US,
            dst_mac: mac(0)?,
            src_mac: mac(6)?,
            from: (from, word(0)?).into(),
            to: (to, word(2)?).into(),
            payload: udp.get(8..usize::from(word(4)?))?,
        })
    }
}

/// Calls a function for each UDP datagram to one port.
#[derive(Debug)]
pub struct Tap {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tap {
    /// Starts in a namespace; the devices of the names in `without` are left out.
    #[must_use]
    pub fn start(
        namespace: &Namespace,
        port: u16,
        without: &[&str],
        mut take: impl FnMut(Frame<'_>) + Send + 'static,
    ) -> Self {
        let without: Vec<usize> =
            without.iter().map(|name| namespace.ifindex(name) as usize).collect();
        let fd = namespace.run(open);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                loop {
                    let stopping = stop.load(Ordering::Acquire);
                    match receive(&fd, &mut buffer) {
                        Some((at, device, length)) => {
                            if device.pkttype() != OUTGOING
                                && !without.contains(&device.ifindex())
                                && let Some(frame) = Frame::parse(at, device, &buffer[..length])
                                && frame.to.port() == port
                            {
                                take(frame);
                            }
                        }
                        None if stopping => return,
                        None => {}
                    }
                }
            })
        };
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // Not `expect`: a panic while panicking would abort.
            let _ = thread.join();
        }
    }
}

fn open() -> OwnedFd {
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        Some(SockProtocol::EthAll),
    )
    .expect("a packet socket");
    setsockopt(&fd, sockopt::RcvBufForce, &BUFFER_BYTES).expect("a large receive buffer");
    setsockopt(&fd, sockopt::ReceiveTimestampns, &true).expect("the kernel's times");
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000)).expect("a timeout");
    fd
}

/// The next frame, with the time at which it arrived; none if nothing came in a while.
fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> Option<(Instant, LinkAddr, usize)> {
    let mut control = nix::cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::empty();
    let message = match recvmsg::<LinkAddr>(fd.as_raw_fd(), &mut parts, Some(&mut control), flags) {
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR) => return None,
        Err(error) => panic!("receive frames: {error}"),
    };
    let stamp =
        message.cmsgs().expect("whole control messages").find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
            _ => None,
        });
    let age = stamp.and_then(|stamp| (SystemTime::UNIX_EPOCH + stamp).elapsed().ok());
    let at = Instant::now().checked_sub(age.unwrap_or_default()).expect("not before the boot");
    Some((at, message.address?, message.bytes))
}

/// An extended datagram that came by, with its text as it was escaped.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Sequence number of the record.
    pub seq: u64,
    /// Its text, without what follows; none for a fragment.
    pub text: Option<String>,
    /// When it arrived at the device.
    pub at: Instant,
    /// Index of the device.
    pub ifindex: usize,
    /// Whether the destination MAC is that of the device.
    pub to_us: bool,
    /// Destination MAC.
    pub dst_mac: [u8; 6],
    /// Source MAC.
    pub src_mac: [u8; 6],
    /// Source address and port.
    pub from: SocketAddr,
    /// Destination address and port.
    pub to: SocketAddr,
}

impl Arrived {
    /// Whether its text begins so.
    #[must_use]
    pub fn begins_with(&self, text: &str) -> bool {
        self.text.as_deref().is_some_and(|own| own.starts_with(text))
    }
}

#[derive(Debug, Default)]
struct Kept {
    arrived: Mutex<Vec<Arrived>>,
    more: Condvar,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Vec<Arrived>> {
        self.arrived.lock().expect("what arrived")
    }
}

/// Keeps each extended datagram to one port.
#[derive(Debug)]
pub struct Capture {
    kept: Arc<Kept>,
    _tap: Tap,
}

impl Capture {
    /// Starts in a namespace; the devices of the names in `without` are left out.
    #[must_use]
    pub fn start(namespace: &Namespace, port: u16, without: &[&str]) -> Self {
        let kept = Arc::new(Kept::default());
        let sink = Arc::clone(&kept);
        let tap = Tap::start(namespace, port, without, move |frame| {
            if is_notice(frame.payload) {
                return;
            }
            let (header, body) = parse_header(frame.payload).expect("an extended datagram");
            // Others may log long records.
            let text = header.fragment.is_none().then(|| split_body(body).0.to_vec());
            let text = text.map(|text| String::from_utf8(text).expect("escaped text"));
            let Frame { at, ifindex, to_us, dst_mac, src_mac, from, to, .. } = frame;
            let seq = header.seq;
            sink.lock().push(Arrived { seq, text, at, ifindex, to_us, dst_mac, src_mac, from, to });
            sink.more.notify_all();
        });
        Self { kept, _tap: tap }
    }

    /// Everything so far, in order of arrival.
    #[must_use]
    pub fn all(&self) -> Vec<Arrived> {
        self.kept.lock().clone()
    }

    /// How many so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.kept.lock().len()
    }

    /// Waits for the first datagram that is as wanted, from the `from`th on.
    #[must_use]
    pub fn wait(
        &self,
        from: usize,
        patience: Duration,
        wanted: impl Fn(&Arrived) -> bool,
    ) -> Option<Arrived> {
        let end = Instant::now() + patience;
        let mut looked_at = from;
        let mut arrived = self.kept.lock();
        loop {
            if let Some(found) = arrived.iter().skip(looked_at).find(|one| wanted(one)) {
                return Some(found.clone());
            }
            looked_at = looked_at.max(arrived.len());
            let left = end.checked_duration_since(Instant::now())?;
            arrived = self.kept.more.wait_timeout(arrived, left).expect("what arrived").0;
        }
    }

    /// Waits until nothing has come for `quiet`.
    pub fn settle(&self, quiet: Duration) {
        let mut last = (self.count(), Instant::now());
        while last.1.elapsed() < quiet {
            std::thread::sleep(Duration::from_millis(10));
            let count = self.count();
            if count != last.0 {
                last = (count, Instant::now());
            }
        }
    }
}
