//! Events of network devices: from a program where the kernel allows it, else
//! from rtnetlink. They are logged; acting on them comes later.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    capture::{
        bpf::{MappedRing, NetdevHook, Probes},
        sequencer::RecordRing,
    },
    cli::logging::Limited,
    net::links,
};

/// Where events of network devices come from.
pub(super) enum NetdevSource {
    Program { hook: NetdevHook, fd: OwnedFd, ring: MappedRing },
    Netlink { why: String },
}

impl NetdevSource {
    pub(super) fn open(probes: Option<&mut Probes>) -> Self {
        let Some(probes) = probes else {
            return Self::Netlink { why: "no eBPF programs are in use".to_owned() };
        };
        match probes.attach_netdev().and_then(|hook| Ok((hook, probes.take_netdev_events()?))) {
            Ok((hook, (fd, ring))) => Self::Program { hook, fd, ring },
            Err(error) => Self::Netlink { why: error.to_string() },
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Program { hook: NetdevHook::Fentry, .. } => {
                "fentry call_netdevice_notifiers_info".to_owned()
            }
            Self::Program { hook: NetdevHook::Kprobe, .. } => {
                "kprobe call_netdevice_notifiers_info".to_owned()
            }
            Self::Netlink { why } => format!("rtnetlink ({why})"),
        }
    }
}

/// Logs events of network devices, a few a minute in full and the rest as a count.
pub(super) async fn log_events(source: NetdevSource) {
    let mut limit = Limited::to_one_per(Duration::from_secs(1));
    let mut tell = |event: String, ifindex: Option<u32>, name: Option<String>| {
        if let Some(suppressed) = limit.allow(Instant::now()) {
            tracing::info!(event, ifindex, name, suppressed, "A network device changed.");
        }
    };
    match source {
        NetdevSource::Program { fd, mut ring, .. } => {
            let Ok(fd) = readable_events(fd) else { return };
            loop {
                let Ok(mut ready) = fd.readable().await else { return };
                while let Some(item) = ring.next() {
                    if let Some((event, ifindex, name)) = netdev_event(ring.bytes(item)) {
                        tell(event_name(event), Some(ifindex), Some(name));
                    }
                    ring.release(item.end);
                }
                ready.clear_ready();
            }
        }
        NetdevSource::Netlink { .. } => match links::watch() {
            Ok(mut events) => {
                use futures_util::StreamExt as _;
                while let Some(event) = events.next().await {
                    tell(format!("{:?}", event.kind), event.ifindex, event.name);
                }
            }
            Err(error) => tracing::warn!(%error, "Network devices are not watched."),
        },
    }
}

/// Reads an [`agent_common::NetdevEvent`].
fn netdev_event(bytes: &[u8]) -> Option<(u32, u32, String)> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let name = bytes.get(16..32)?.split(|byte| *byte == 0).next()?;
    Some((word(8)?, word(12)?, String::from_utf8_lossy(name).into_owned()))
}

/// Names of `enum netdev_cmd` (`include/linux/netdevice.h`; its order has not
/// changed since 4.17, new ones are appended).
fn event_name(event: u32) -> String {
    let name = match event {
        1 => "UP",
        2 => "DOWN",
        3 => "REBOOT",
        4 => "CHANGE",
        5 => "REGISTER",
        6 => "UNREGISTER",
        7 => "CHANGEMTU",
        8 => "CHANGEADDR",
        9 => "PRE_CHANGEADDR",
        10 => "GOING_DOWN",
        11 => "CHANGENAME",
        _ => return format!("NETDEV event {event}"),
    };
    name.to_owned()
}

/// Registers a descriptor with tokio's reactor.
pub(super) fn readable_events<T: AsRawFd>(source: T) -> io::Result<AsyncFd<T>> {
    #[expect(
        deprecated,
        reason = "its replacement is unsafe; the sources here own their descriptor and never change it"
    )]
    AsyncFd::with_interest(source, Interest::READABLE)
}
