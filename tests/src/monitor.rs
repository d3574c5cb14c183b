//! What the kernel says of a namespace's network, and when: the moments from which
//! a target could send again.
//!
//! A netlink socket of its own (rtnetlink(7)); it shares no code with the agent.

use std::{
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
};

use crate::netns::Namespace;

/// `RTMGRP_LINK`, `_NEIGH`, `_IPV4_IFADDR`, `_IPV4_ROUTE`, `_IPV6_IFADDR`, `_IPV6_ROUTE`
/// (`include/uapi/linux/rtnetlink.h`).
const GROUPS: u32 = 0x1 | 0x4 | 0x10 | 0x40 | 0x100 | 0x400;
/// `RTM_NEWLINK`, `RTM_NEWADDR`, `RTM_NEWROUTE`, `RTM_NEWNEIGH`; one more is `RTM_DEL…`.
const LINK: u16 = 16;
const ADDRESS: u16 = 20;
const ROUTE: u16 = 24;
const NEIGHBOUR: u16 = 28;
/// `IFF_UP`, `IFF_RUNNING` and `IFF_LOWER_UP`.
const UP: u32 = 0x1;
const RUNNING: u32 = 0x40;
const LOWER_UP: u32 = 0x1_0000;
/// `NUD_REACHABLE | NUD_STALE | NUD_DELAY | NUD_PROBE | NUD_PERMANENT`: sending is possible.
const NUD_VALID: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;
/// `IFA_F_TENTATIVE`.
const TENTATIVE: u32 = 0x40;

/// One notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A device is there, or changed.
    Link {
        /// Its name.
        name: String,
        /// Whether it is up and has its carrier: it sends.
        sends: bool,
        /// Whether the rest of the kernel has taken notice of that (operational state, IPv6
        /// routes), which may be up to a second later (`net/core/link_watch.c`).
        running: bool,
    },
    /// A device went away.
    LinkGone {
        /// Its name.
        name: String,
    },
    /// An address is there, or changed.
    Address {
        /// The address.
        address: IpAddr,
        /// Whether it can be used.
        usable: bool,
    },
    /// A neighbour is there, or changed.
    Neighbour {
        /// Its address.
        address: IpAddr,
        /// Its MAC, if sending to it is possible.
        mac: Option<[u8; 6]>,
    },
    /// A route is there, or changed.
    Route,
    /// Anything else.
    Other,
}

impl Notice {
    /// Whether this device sends from now on.
    #[must_use]
    pub fn is_sending(&self, device: &str) -> bool {
        matches!(self, Self::Link { name, sends: true, .. } if name == device)
    }

    /// Whether all of the kernel knows that this device sends.
    #[must_use]
    pub fn is_running(&self, device: &str) -> bool {
        matches!(self, Self::Link { name, running: true, .. } if name == device)
    }

    /// Whether this address can be used from now on.
    #[must_use]
    pub fn is_usable(&self, wanted: IpAddr) -> bool {
        matches!(self, Self::Address { address, usable: true } if *address == wanted)
    }

    /// Whether this neighbour can be reached from now on.
    #[must_use]
    pub fn is_reachable(&self, wanted: IpAddr) -> bool {
        matches!(self, Self::Neighbour { address, mac: Some(_) } if *address == wanted)
    }

    fn parse(kind: u16, body: &[u8]) -> Option<Self> {
        let u16_at = |at: usize| Some(u16::from_ne_bytes(body.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
        Some(match kind {
            LINK | 17 => {
                // struct ifinfomsg; IFLA_IFNAME.
                let name = attribute(body.get(16..)?, 3)?;
                let name = String::from_utf8_lossy(name.strip_suffix(&[0]).unwrap_or(name));
                let name = name.into_owned();
                if kind != LINK {
                    return Some(Self::LinkGone { name });
                }
                let flags = u32_at(8)?;
                let has = |wanted| flags & wanted == wanted;
                Self::Link { name, sends: has(UP | LOWER_UP), running: has(UP | RUNNING) }
            }
            ADDRESS => {
                // struct ifaddrmsg; IFA_LOCAL, else IFA_ADDRESS; IFA_FLAGS.
                let attributes = body.get(8..)?;
                let own = attribute(attributes, 2).or_else(|| attribute(attributes, 1))?;
                let flags = attribute(attributes, 8)
                    .and_then(|flags| Some(u32::from_ne_bytes(flags.try_into().ok()?)))
                    .unwrap_or_else(|| u32::from(body[2]));
                Self::Address { address: ip(own)?, usable: flags & TENTATIVE == 0 }
            }
            NEIGHBOUR => {
                // struct ndmsg; NDA_DST and NDA_LLADDR.
                let attributes = body.get(12..)?;
                let mac = attribute(attributes, 2).and_then(|mac| mac.try_into().ok());
                let usable = u16_at(8)? & NUD_VALID != 0;
                let address = ip(attribute(attributes, 1)?)?;
                Self::Neighbour { address, mac: mac.filter(|_| usable) }
            }
            ROUTE => Self::Route,
            _ => Self::Other,
        })
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

/// The value of the attribute `wanted` (struct rtattr).
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        if kind & 0x3fff == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[derive(Debug, Default)]
struct Kept {
    notices: Mutex<Vec<(Instant, Notice)>>,
    more: Condvar,
}

impl Kept {
    fn lock(&self) -> MutexGuard<'_, Vec<(Instant, Notice)>> {
        self.notices.lock().expect("the notices")
    }
}

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Monitor {
    kept: Arc<Kept>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Starts in a namespace.
    #[must_use]
    pub fn start(namespace: &Namespace) -> Self {
        let fd = namespace.run(open);
        let kept = Arc::new(Kept::default());
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (kept, stop) = (Arc::clone(&kept), Arc::clone(&stop));
            std::thread::spawn(move || {
                let mut buffer = vec![0; 65_536];
                while !stop.load(Ordering::Acquire) {
                    match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                        Ok(length) => take(&kept, Instant::now(), &buffer[..length]),
                        Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => {}
                        Err(error) => panic!("receive notices: {error}"),
                    }
                }
            })
        };
        Self { kept, stop, thread: Some(thread) }
    }

    /// How many notices so far: where to look from, later.
    #[must_use]
    pub fn count(&self) -> usize {
        self.kept.lock().len()
    }

    /// The notices from the `from`th on, each as a line with its time as the agent's log has
    /// it: to be read beside that.
    #[must_use]
    pub fn lines(&self, from: usize) -> String {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let line = |(at, notice): &(Instant, Notice)| {
            format!("{} {notice:?}\n", humantime::format_rfc3339_micros(wall - (now - *at)))
        };
        self.kept.lock().iter().skip(from).map(line).collect()
    }

    /// When the first notice as wanted came, from the `from`th on; waits for it.
    #[must_use]
    pub fn wait(
        &self,
        from: usize,
        patience: Duration,
        wanted: impl Fn(&Notice) -> bool,
    ) -> Option<Instant> {
        let end = Instant::now() + patience;
        let mut looked_at = from;
        let mut notices = self.kept.lock();
        loop {
            let found = notices.iter().skip(looked_at).find(|(_, notice)| wanted(notice));
            if let Some((at, _)) = found {
                return Some(*at);
            }
            looked_at = looked_at.max(notices.len());
            let left = end.checked_duration_since(Instant::now())?;
            notices = self.kept.more.wait_timeout(notices, left).expect("the notices").0;
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // Not `expect`: a panic while panicking would abort.
            let _ = thread.join();
        }
    }
}

/// Splits what one read brought (struct nlmsghdr).
fn take(kept: &Kept, at: Instant, mut bytes: &[u8]) {
    while bytes.len() >= 16 {
        let word = |at: usize| -> [u8; 4] { bytes[at..at + 4].try_into().expect("four bytes") };
        let length = u32::from_ne_bytes(word(0)) as usize;
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        if length < 16 || length > bytes.len() {
            return;
        }
        let notice = Notice::parse(kind, &bytes[16..length]).unwrap_or(Notice::Other);
        kept.lock().push((at, notice));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    kept.more.notify_all();
}

fn open() -> OwnedFd {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        Some(SockProtocol::NetlinkRoute),
    )
    .expect("a netlink socket");
    setsockopt(&fd, sockopt::RcvBufForce, &(16 << 20)).expect("a large receive buffer");
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(0, 50_000)).expect("a timeout");
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, GROUPS)).expect("join the groups");
    fd
}
