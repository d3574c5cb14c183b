//! Changes of the network: events of devices from a program where the kernel allows
//! it, and everything from rtnetlink. What they mean for the targets is the
//! manager's business.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};

use super::manager::Change;

use crate::{
    capture::{
        bpf::{MappedRing, NetdevHook, Probes},
        sequencer::RecordRing,
    },
    cli::logging::Limited,
    net::{NetEvent, NetEventKind, links},
};

/// Pause before a failed rtnetlink socket is opened anew.
const REOPEN_PAUSE: Duration = Duration::from_millis(100);

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
                "fentry call_netdevice_notifiers_info, rtnetlink".to_owned()
            }
            Self::Program { hook: NetdevHook::Kprobe, .. } => {
                "kprobe call_netdevice_notifiers_info, rtnetlink".to_owned()
            }
            Self::Netlink { why } => format!("rtnetlink ({why})"),
        }
    }
}

/// An event of a network device that a program saw.
#[derive(Clone, Debug)]
pub(super) struct NetdevChange {
    /// `NETDEV_*` number.
    event: u32,
    pub(super) ifindex: u32,
    name: String,
}

impl NetdevChange {
    /// What it means, in rtnetlink's terms. `NETDEV_DOWN` and `NETDEV_UNREGISTER` come
    /// after the fact; `NETDEV_CHANGE` says nothing about the direction.
    pub(super) fn kind(&self) -> NetEventKind {
        match self.event {
            2 => NetEventKind::LinkDown,
            6 => NetEventKind::LinkGone,
            _ => NetEventKind::LinkChanged,
        }
    }
}

/// Passes the changes of the network on, from both sources: the faster one wins, and the
/// other one's news are old. A few a minute are logged. Ends with the receiver.
pub(super) async fn watch(source: NetdevSource, changes: mpsc::Sender<Change>) {
    let netlink = watch_netlink(changes.clone());
    match source {
        NetdevSource::Program { fd, ring, .. } => {
            tokio::join!(netlink, watch_program(fd, ring, changes));
        }
        NetdevSource::Netlink { .. } => netlink.await,
    }
}

async fn watch_program(fd: OwnedFd, mut ring: MappedRing, changes: mpsc::Sender<Change>) {
    let mut log = Limited::to_one_per(Duration::from_secs(1));
    let Ok(fd) = readable_events(fd) else { return };
    loop {
        let Ok(mut ready) = fd.readable().await else { return };
        while let Some(item) = ring.next() {
            let change = netdev_change(ring.bytes(item));
            ring.release(item.end());
            let Some(change) = change else { continue };
            if let Some(suppressed) = log.allow(Instant::now()) {
                let NetdevChange { event, ifindex, name } = &change;
                let event = event_name(*event);
                tracing::info!(event, ifindex, name, suppressed, "A network device changed.");
            }
            if changes.send(Change::Netdev(change)).await.is_err() {
                return;
            }
        }
        ready.clear_ready();
    }
}

/// Watches rtnetlink, with a new socket if the old one fails.
async fn watch_netlink(changes: mpsc::Sender<Change>) {
    let mut complaints = Limited::to_one_per(Duration::from_secs(60));
    let mut log = Limited::to_one_per(Duration::from_secs(1));
    loop {
        match links::watch() {
            Ok(mut events) => {
                while let Some(event) = events.next().await {
                    if let Some(name) = &event.name
                        && let Some(suppressed) = log.allow(Instant::now())
                    {
                        let NetEvent { kind, ifindex, .. } = &event;
                        tracing::info!(
                            event = ?kind, ifindex, name, suppressed, "A network device changed."
                        );
                    }
                    if changes.send(Change::Netlink(event)).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                if let Some(suppressed) = complaints.allow(Instant::now()) {
                    tracing::warn!(%error, suppressed, "The network is not watched by rtnetlink.");
                }
            }
        }
        tokio::time::sleep(REOPEN_PAUSE).await;
        // Whatever happened in between was missed.
        let missed = NetEvent {
            kind: NetEventKind::Overrun,
            ifindex: None,
            name: None,
            mac: None,
            neighbour: None,
        };
        if changes.send(Change::Netlink(missed)).await.is_err() {
            return;
        }
    }
}

/// Reads an [`agent_common::NetdevEvent`].
fn netdev_change(bytes: &[u8]) -> Option<NetdevChange> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let name = bytes.get(16..32)?.split(|byte| *byte == 0).next()?;
    let name = String::from_utf8_lossy(name).into_owned();
    Some(NetdevChange { event: word(8)?, ifindex: word(12)?, name })
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
